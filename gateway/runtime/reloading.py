"""SIGHUP: the site file read again, its rules taken by the running gateway.

    SIGHUP ─▶ site file ─▶ every fault? ─yes─▶ said, counted; the rules in force stay
                             └─no─▶ judge.take_rules ─▶ what is new, edited, gone
                                    and what else differs in the file: it waits for a restart

Timers, alarms and acknowledgements go on: the next sample is judged by the edited limits, and
alarms of rules that are edited or gone say so (decision 0024). Points, adapters, sinks and limits
are read at the start alone.

A file that is being written may be a good one: cut before its first rule it says that there are
none. So it must be the same before and after it is read, and one without any rule is refused.

Not here: how rules are exchanged (judge.py, alarm_rules/exchange.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config import SiteConfig
from gateway.model.errors import ConfigError, Fault, GatewayError
from gateway.runtime.checking import load_site
from gateway.runtime.core import RULE_SECTIONS, Core
from gateway.runtime.plugins import Plugins
from gateway.runtime.siterules import site_rules

COMPONENT = "rules"  # on the system page
_NAMED_MAX = 20  # rules that have a line each in the log
_SAME = {*RULE_SECTIONS, "path"}
_SECTION = {"alarm_groups": "alarm_group", "escalations": "escalation", "points": "point",
            "adapters": "adapter", "sinks": "sink"}  # as the file calls it  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reloaded:
    """Ids of rules, and the sections of the file that differ from what runs."""

    added: Sequence[str]
    edited: Sequence[str]
    removed: Sequence[str]
    waiting: Sequence[str]
    in_place: bool
    in_force: int

    def __str__(self) -> str:
        counts = f"{len(self.added)} new, {len(self.edited)} edited, {len(self.removed)} gone"
        text = f"rules in force: {self.in_force}; {counts}"
        if self.waiting:
            text += f"; waiting for a restart: {', '.join(self.waiting)}"
        return text


async def reload_rules(core: Core, path: Path) -> Reloaded:
    """Read the site file and judge by its rules. Raises ConfigError with every fault of the file,
    Unavailable while other rules are being taken; then the rules in force stay."""
    before = {rule.id: rule for rule in core.rules.rules}
    config = await asyncio.to_thread(_read, path, core.plugins)
    if before and not site_rules(config, core.plugins.rule_kinds).rules:
        wanted = "at least one rule; nobody is left unwatched by a reload"
        raise ConfigError([Fault(str(path), 0, "rule", wanted)])
    in_place = await core.take_rules(config)
    after = {rule.id: rule for rule in core.rules.rules}
    return Reloaded(
        added=[id_ for id_ in after if id_ not in before],
        edited=[id_ for id_, rule in after.items() if before.get(id_, rule) != rule],
        removed=[id_ for id_ in before if id_ not in after],
        waiting=differing(core.config, config),
        in_place=in_place,
        in_force=len(after),
    )


def _read(path: Path, plugins: Plugins) -> SiteConfig:
    """Raises ConfigError too while somebody writes."""
    before = path.stat()
    config = load_site(path, plugins)
    after = path.stat()
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (
        after.st_ino, after.st_size, after.st_mtime_ns,
    ):  # fmt: skip
        raise ConfigError([Fault(str(path), 0, "file", "one that is not being written")])
    return config


def differing(running: SiteConfig, read: SiteConfig) -> list[str]:
    """Sections, but for the rules, that say something else."""
    return [
        _SECTION.get(name, name)
        for name in type(running).model_fields
        if name not in _SAME and getattr(running, name) != getattr(read, name)
    ]


async def reload_when(wanted: asyncio.Event, core: Core, path: Path) -> None:
    """Each time the event is set; what came of it is in the log and on the system page."""
    status, counters = core.status(COMPONENT), core.counters.component(COMPONENT)
    while True:
        await wanted.wait()
        wanted.clear()
        log.info("reading the rules of %s again", path)
        try:
            reloaded = await reload_rules(core, path)
        except (GatewayError, OSError) as error:
            counters.count("reload_refused")
            faults = error.faults if isinstance(error, ConfigError) else [error]
            for fault in faults:
                log.error("not reloaded: %s", fault)  # noqa: TRY400  the file's faults, not ours
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            status("faulty", f"the file was not taken, the rules before it stay: {faults[0]}{more}")
        except Exception as error:  # the next one must be heard
            counters.count("reload_failed")
            log.exception("not reloaded")
            status("faulty", f"a failure of ours, see the log: {error!r}")
        else:
            counters.count("reloaded")
            _say(reloaded)
            status("in force", str(reloaded))


def _say(reloaded: Reloaded) -> None:
    how = "in place" if reloaded.in_place else "as a new set"
    log.info("%s (%s)", reloaded, how)
    for what, ids in (
        ("new", reloaded.added),
        ("edited", reloaded.edited),
        ("gone", reloaded.removed),
    ):
        for rule_id in ids[:_NAMED_MAX]:
            log.info("rule %s is %s", rule_id, what)
