"""Reading a site: its file, its packs, its rules; every fault at once, and what to know besides.

`load_site` raises what `check_site` reports. The notes of a report are not faults: rules whose
source is unconfirmed, where the site deviates from a statutory rule, packs that are empty because
the text could not be read, and the duties of packs, which no sample can show to be done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alarm_rules.packs import Duty, check_pack
from alarm_rules.ruleset import check_rules
from gateway.config import Kinds, SiteConfig, check, load, warnings
from gateway.model.errors import ConfigError, Fault
from gateway.model.rule import Citation, Confidence, Rule
from gateway.runtime.packs import pack_names
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.siterules import SiteRules, site_rules

CONFIRMED = frozenset({Confidence.CONFIRMED, Confidence.SITE})


@dataclass(frozen=True)
class CheckReport:
    """What `check` prints: faults make it fail, notes do not."""

    faults: list[Fault]
    notes: list[str]


def kinds_of(plugins: Plugins) -> Kinds:
    """What may be named in a site file, from what is installed."""
    return Kinds(
        adapters={name: kind.config for name, kind in plugins.adapters.items()},
        sinks={name: kind.config for name, kind in plugins.sinks.items()},
        rule_kinds={name: kind.parameters for name, kind in plugins.rule_kinds.items()},
        rule_inputs={name: kind.inputs for name, kind in plugins.rule_kinds.items()},
        rule_checks={name: kind.check for name, kind in plugins.rule_kinds.items()},
        packs=pack_names(),
    )


def load_site(path: Path, plugins: Plugins) -> SiteConfig:
    """The site's configuration. Raises ConfigError with every fault, its packs' included."""
    config = load(path, kinds_of(plugins))
    faults = _rule_faults(config, site_rules(config, plugins.rule_kinds), plugins)
    if faults:
        raise ConfigError(faults)
    return config


def check_site(path: Path) -> CheckReport:
    """Everything wrong with a site and everything worth knowing. Builds and connects nothing."""
    plugins = load_plugins()
    faults = check(path, kinds_of(plugins))
    if faults:
        return CheckReport(faults, [])
    config = load(path, kinds_of(plugins))
    rules = site_rules(config, plugins.rule_kinds)
    faults = _rule_faults(config, rules, plugins)
    return CheckReport(faults, [] if faults else _notes(config, rules))


def _rule_faults(config: SiteConfig, rules: SiteRules, plugins: Plugins) -> list[Fault]:
    broken = [fault for pack in rules.packs for fault in check_pack(pack, plugins.rule_kinds)]
    if broken:
        return broken  # at their lines in the pack; what the site makes of it says nothing new
    compiled = [
        Fault(str(config.path), 0, fault.key, fault.expected)
        for fault in check_rules(rules.rules, plugins.rule_kinds)
    ]
    return [*rules.faults, *compiled]


def _notes(config: SiteConfig, rules: SiteRules) -> list[str]:
    notes = [f"warning: {line}" for line in warnings(config)]
    notes += [
        f"note: pack {pack.name} is {pack.status}: {pack.reason['en']}"
        for pack in rules.packs
        if pack.reason
    ]
    notes += [f"note: {line}" for line in rules.deviations]
    notes += [f"unconfirmed: {_source(r)}" for r in rules.rules if _is_unconfirmed(r)]
    notes += [f"duty: {_duty(duty)}" for pack in rules.packs for duty in pack.duties]
    notes.append(
        f"{config.path}: no faults; {len(config.adapters)} adapters, {len(config.sinks)} sinks, "
        f"{len(config.points)} configured points, {len(rules.rules)} rules"
    )
    return notes


def _is_unconfirmed(rule: Rule) -> bool:
    return rule.citation.confidence not in CONFIRMED


def _source(rule: Rule) -> str:
    return f"rule {rule.id} ({_where(rule.citation)}): {rule.citation.confidence.value}"


def _where(citation: Citation) -> str:
    where = " ".join(part for part in (citation.standard, citation.clause) if part)
    return where or "no statutory source"


def _duty(duty: Duty) -> str:
    """What must be done, by whom, in what time, and who says so."""
    if duty.number is None:
        much = duty.unread.get("en", "")
    elif duty.number == 0:
        much = "at once"
    else:
        bound = duty.bound.removesuffix("_s").replace("_", " ")
        much = f"{bound} {duty.number:g} {duty.unit}"
    source = f"{_where(duty.citation)}, {duty.citation.confidence.value}"
    what = ", ".join(part for part in (duty.kind.value, much) if part)
    return f"{duty.id}: {duty.who['en']}: {duty.action['en']} [{what}] ({source})"
