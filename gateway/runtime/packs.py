"""Reading the rule packs that ship with the gateway, and a site's rules put together.

    alarm_rules/packs/*.toml ─read_pack─▶ RulePack ┐
    site.toml: packs, [[pack_override]], [[rule]]  ┴─site_rules─▶ SiteRules

The rule core itself opens no file; this is the only place that does it for packs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from alarm_rules.packs import Override, RulePack, apply_overrides, parse_pack
from gateway.config import SiteConfig
from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import ConfigError, Fault
from gateway.model.rule import Rule
from gateway.runtime.plugins import load_plugins

_SUFFIX = ".toml"


@dataclass(frozen=True, slots=True)
class SiteRules:
    """Every rule of a site, and the packs they came from."""

    rules: Sequence[Rule]
    packs: Sequence[RulePack]


def pack_names() -> list[str]:
    """The packs that ship, by name."""
    folder = resources.files("alarm_rules.packs")
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_pack(name: str) -> RulePack:
    """Raises ConfigError when there is none of that name, or when it is damaged."""
    if name not in pack_names():
        raise ConfigError([Fault("packs", 0, name, f"one of {', '.join(pack_names())}")])
    file = resources.files("alarm_rules.packs") / f"{name}{_SUFFIX}"
    return parse_pack(file.read_bytes(), f"alarm_rules/packs/{name}{_SUFFIX}")


def site_rules(config: SiteConfig, kinds: Mapping[str, RuleKind] | None = None) -> SiteRules:
    """The packs' rules with the site's overrides, then the site's own.

    Raises ConfigError naming every pack that does not exist and every override that is refused:
    before the start a refused change is a mistake somebody should see. `kinds`: the installed ones
    unless given.
    """
    kinds = load_plugins().rule_kinds if kinds is None else kinds
    faults: list[Fault] = []
    packs: list[RulePack] = []
    for name in config.packs:
        try:
            packs.append(read_pack(name))
        except ConfigError as error:
            faults += [
                Fault(str(config.path), 0, f"packs.{name}", f.expected) for f in error.faults
            ]
    overrides = [
        Override(
            rule=item.rule,
            parameters=item.parameters,
            priority=item.priority,
            on_delay_s=item.on_delay_s,
            off_delay_s=item.off_delay_s,
            latching=item.latching,
            reason=item.reason,
            signed_by=item.signed_by,
            signed_on=item.signed_on.isoformat() if item.signed_on else "",
        )
        for item in config.pack_overrides
    ]
    rules, refused = apply_overrides(packs, overrides, kinds)
    faults += [Fault(str(config.path), 0, "pack_override", text) for text in refused]
    if faults:
        raise ConfigError(faults)
    return SiteRules(rules=[*rules, *config.rules], packs=packs)
