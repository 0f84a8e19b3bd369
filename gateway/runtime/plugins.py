"""Finding what is installed: adapters, rule kinds, sinks and simulators, by entry point.

The runtime never names a plugin. Loading an entry point imports the plugin's `KIND` only; protocol
libraries come in when something is built. Four top-level package names are common words, so the
start also checks that the ones Python found are ours.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from gateway.contract.adapter import AdapterKind
from gateway.contract.rule_kind import RuleKind
from gateway.contract.simulator import SimulatorKind
from gateway.contract.sink import SinkKind
from gateway.model.errors import ConfigError, Fault

GROUPS = ("adapters", "rule_kinds", "sinks", "simulators")
PACKAGES = ("gateway", "adapters", "alarm_rules", "simulators")


@dataclass(frozen=True)
class Plugins:
    """Every installed plugin, by name."""

    adapters: Mapping[str, AdapterKind]
    rule_kinds: Mapping[str, RuleKind]
    sinks: Mapping[str, SinkKind]
    simulators: Mapping[str, SimulatorKind]
    origins: Mapping[tuple[str, str], str]  # (group, name) -> "distribution version: module:attr"


def load_plugins() -> Plugins:
    """Load every entry point of the four groups.

    Raises ConfigError naming the plugin when one cannot be imported, when a group is empty (the
    package is being run without being installed), or when a package of the same name shadows ours.
    """
    faults = _shadowed_packages()
    loaded: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    for group in GROUPS:
        loaded[group] = {}
        for entry in sorted(entry_points(group=f"hazard_gateway.{group}"), key=lambda e: e.name):
            try:
                loaded[group][entry.name] = entry.load()
            except Exception as error:  # noqa: BLE001  a broken plugin is reported, whatever it raised
                faults.append(Fault(_origin(entry), 0, f"{group}.{entry.name}", f"{error!r}"))
            origins[group, entry.name] = _origin(entry)
        if not loaded[group] and not faults:
            faults.append(
                Fault("hazard-gateway", 0, group, "no plugins found: install it (make install)")
            )
    if faults:
        raise ConfigError(faults)
    return Plugins(**loaded, origins=origins)


def _origin(entry: EntryPoint) -> str:
    where = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
    return f"{where}: {entry.value}"


def _shadowed_packages() -> list[Fault]:
    """Faults for packages of our names that do not stand beside this one."""
    root = Path(__file__).resolve().parents[2]
    faults = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
        if found != root:
            expected = f"expected beside {root}, found {found}: another package of this name"
            faults.append(Fault("python environment", 0, package, expected))
    return faults


def list_plugins() -> list[str]:
    """One line a plugin: group, name, origin, summary."""
    plugins = load_plugins()
    return [
        f"{group:<11} {name:<12} {plugins.origins[group, name]:<52} {kind.summary}"
        for group in GROUPS
        for name, kind in getattr(plugins, group).items()
    ]
