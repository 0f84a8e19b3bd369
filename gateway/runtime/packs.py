"""Reading the rule packs that ship with the gateway.

The rule core itself opens no file; this is the only place that does it for packs. What a site makes
of them stands in siterules.py.
"""

from __future__ import annotations

from importlib import resources

from alarm_rules.packs import RulePack, parse_pack
from gateway.model.errors import ConfigError, Fault

_SUFFIX = ".toml"


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
