"""What a site decides about its alarms: times, limits, groups, who is told when nobody answers.

Values only, checked by the reader of the site file (gateway/config); the book takes them as they
are. Everything has a default that a site without an `[alarms]` section runs with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from gateway.model.alarm import SHELF_MAX_S
from gateway.model.condition import RuleInstance
from gateway.model.rule import Priority

SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
WEEK_NS = 7 * 24 * HOUR_NS
SHELF_MAX_NS: Mapping[Priority, int] = {
    priority: limit_s * SECOND_NS for priority, limit_s in SHELF_MAX_S.items()
}
REALARM_MAX = 10
"""Re-alarms of one occurrence: beyond it somebody has long known, and the sound teaches nothing."""


class GroupMode(StrEnum):
    """What a first-out group does with those that come after the first."""

    MARK = "mark"
    SUPPRESS = "suppress"


@dataclass(frozen=True, slots=True)
class AlarmGroup:
    """Alarms of one cause: the first of them to come tells most. An empty selection is any."""

    name: str
    rules: tuple[str, ...] = ()  # rule ids, `*` stands for any part
    areas: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mode: GroupMode = GroupMode.MARK

    def has(self, instance: RuleInstance) -> bool:
        pairs = (
            (self.rules, instance.rule.id),
            (self.areas, instance.area),
            (self.devices, instance.device),
        )
        return all(
            not patterns or any(fnmatchcase(found, pattern) for pattern in patterns)
            for patterns, found in pairs
        )


@dataclass(frozen=True, slots=True)
class EscalationStep:
    """Told when an alarm waits in sight for so long and nobody has acknowledged it."""

    after_s: float
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BookConfig:
    """What a site may set.

    parent_release_s: how long what a dead link explained stays explained after the link is back:
        its points are heard one after the other, not at once.
    silence_kinds: rule kinds that say "nothing is heard" (`RuleKind.hides`).
    """

    # A condition back within this time of its return goes on with the open occurrence.
    rejoin_window_s: float = 60.0
    realarm_after_s: Mapping[Priority, float] = field(default_factory=dict)  # absent: never
    realarm_max: int = REALARM_MAX
    shelf_max_s: Mapping[Priority, float] = field(default_factory=dict)  # absent: SHELF_MAX_NS
    escalation: Mapping[Priority, tuple[EscalationStep, ...]] = field(default_factory=dict)
    groups: tuple[AlarmGroup, ...] = ()
    silence_kinds: frozenset[str] = frozenset()
    parent_release_s: float = 0.0

    def shelf_max_ns(self) -> Mapping[Priority, int]:
        """The shorter of the site's limit and ours, by priority."""
        return {
            priority: min(limit_ns, round(self.shelf_max_s[priority] * SECOND_NS))
            if priority in self.shelf_max_s
            else limit_ns
            for priority, limit_ns in SHELF_MAX_NS.items()
        }
