"""What one row of the book becomes: pure functions from a row, and a verdict or a command.

Owns: how a verdict fills a row, what a command writes into it, when a transition asks for a person
and when it is heard. The book owns the table, the numbers and the order.

Not here: the flags (alarm_rules/lifecycle), refusals (commands.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

from alarm_rules.lifecycle import Flags, step
from gateway.alarms.commands import SHELF_MAX_NS, Action, Command
from gateway.model.alarm import Alarm, AlarmState, Transition
from gateway.model.condition import NORMAL, Conditions, RuleInstance
from gateway.model.quality import Quality

STANDING = frozenset(
    {
        AlarmState.UNACKNOWLEDGED,
        AlarmState.ACKNOWLEDGED,
        AlarmState.RETURNED_UNACKNOWLEDGED,
        AlarmState.LATCHED_UNACKNOWLEDGED,
        AlarmState.LATCHED_ACKNOWLEDGED,
    }
)
"""States of the standing list: what a person can see and has not finished with."""


_NAMES = tuple(field.name for field in fields(Alarm))
_AT = {name: at for at, name in enumerate(_NAMES)}
_VALUES = attrgetter(*_NAMES)


def with_changes(row: Alarm, changes: Mapping[str, Any]) -> Alarm:
    """`dataclasses.replace`, three times as fast: a flood makes ten thousand of them."""
    values = list(_VALUES(row))
    for name, value in changes.items():
        values[_AT[name]] = value
    return Alarm(*values)


class Change(NamedTuple):
    """One row of Conditions."""

    instance: RuleInstance
    level: int
    time_ns: int
    began_ns: int
    value: float | None
    limit: float | None
    quality: int
    late: bool

    @property
    def name(self) -> str:
        return "" if self.level == NORMAL else self.instance.levels[self.level - 1].name


class Told(NamedTuple):
    """What an event says beside the row."""

    time_ns: int
    now_ns: int
    value: float | None = None
    limit: float | None = None
    actor: str = ""
    comment: str = ""
    late: bool = False
    level: str = ""
    quiet: bool = False  # seen, not heard


def changes_of(conditions: Conditions, instances: Sequence[RuleInstance]) -> list[Change]:
    columns = (
        conditions.level,
        conditions.time_ns,
        conditions.began_ns,
        conditions.value,
        conditions.limit,
        conditions.quality,
        conditions.late,
    )
    changes = []
    for index, level, time_ns, began_ns, value, limit, quality, late in zip(
        conditions.instance.tolist(), *(column.tolist() for column in columns), strict=True
    ):
        instance = instances[index]
        assert 0 <= level <= len(instance.levels), f"{instance.alarm_key} has no level {level}"
        changes.append(
            Change(
                instance,
                level,
                time_ns,
                began_ns,
                None if math.isnan(value) else value,
                None if math.isnan(limit) else limit,
                quality,
                late,
            )
        )
    return changes


def flags_of(row: Alarm) -> Flags:
    return Flags(
        row.active,
        row.acknowledged,
        row.latched,
        row.shelved,
        bool(row.suppressed_by),
        row.out_of_service,
        row.enabled,
        row.shown,
        row.open,
    )


def new_row(instance: RuleInstance) -> Alarm:
    rule = instance.rule
    top = min((level.priority for level in instance.levels), default=rule.priority)
    return Alarm(
        alarm_key=instance.alarm_key,
        rule_id=rule.id,
        rule_kind=rule.kind,
        target=instance.target,
        point_id=instance.point_id,
        priority=top,
        top_priority=top,
        scheme=rule.scheme,
        unit=instance.unit,
        name=rule.name,
        action=rule.action,
        location=instance.location,
        area=instance.area,
        display_name=instance.display_name,
        citation=rule.citation,
        rule_version=rule.version,
    )


def described(row: Alarm, change: Change) -> dict[str, Any]:
    """What the instance and the verdict say of an alarm: edited names and limits arrive here."""
    instance, rule = change.instance, change.instance.rule
    level = instance.levels[change.level - 1]
    limit = level.limit if change.limit is None else change.limit
    return {
        "priority": level.priority,
        "top_priority": min(item.priority for item in instance.levels),
        "level": level.name,
        "scheme": rule.scheme,
        "scheme_level": level.scheme_level or rule.level,
        "value": change.value,
        "peak": change.value,
        "limit": limit,
        "unit": instance.unit,
        "quality": change.quality,
        "name": rule.name,
        "action": rule.action,
        "location": instance.location,
        "area": instance.area,
        "display_name": instance.display_name,
        "citation": rule.citation,
        "rule_version": rule.version,
        "point_id": instance.point_id or row.point_id,
        "condition_time_ns": change.began_ns,
        "active_time_ns": change.time_ns,
        "planned": change.quality == Quality.UNCERTAIN_CALIBRATING,
    }


def transition_of(row: Alarm, change: Change) -> Transition:
    if change.level == NORMAL:
        return Transition.RETURNED
    if not row.active:
        return Transition.ACTIVATED
    worse = change.level - 1 > position_of(change.instance, row.level)
    return Transition.ESCALATED if worse else Transition.DEESCALATED


def position_of(instance: RuleInstance, name: str) -> int:
    """Where the level stands in severity; the least where the rule no longer has it."""
    return next((at for at, level in enumerate(instance.levels) if level.name == name), 0)


def is_down(row: Alarm) -> bool:
    """Whether worse is lower: by the level's name where it says so, else by the limit."""
    letters = set(row.level)
    if letters in ({"L"}, {"H"}):
        return letters == {"L"}
    return row.limit is not None and row.peak is not None and row.peak < row.limit


def further(peak: float | None, value: float | None, down: bool) -> float | None:
    if peak is None or value is None:
        return value if peak is None else peak
    return min(peak, value) if down else max(peak, value)


def asks(transition: Transition, before: Flags, after: Flags) -> bool:
    """Whether the transition asks for a person, so that older tokens no longer acknowledge."""
    if after.acknowledged:
        return False
    again = transition in (Transition.ACTIVATED, Transition.ESCALATED)
    return again or before.acknowledged or (after.shown and not before.shown)


def annunciates(transition: Transition, before: Alarm, after: Alarm) -> bool:
    """Whether it is to be heard: newly waiting for a person, in sight, and meant."""
    if after.planned or after.acknowledged or after.state not in STANDING:
        return False
    if transition in (Transition.ACTIVATED, Transition.ESCALATED):
        return True
    if after.shown and not before.shown:
        return True
    unseen = AlarmState.UNACKNOWLEDGED
    return after.state is unseen and before.state is not unseen


def with_permit(command: Command) -> str:
    text = command.text.strip()
    return f"[{command.permit.strip()}] {text}" if command.permit.strip() else text


def _note(command: Command) -> str:
    second = f" + {command.approved_by.strip()}" if command.approved_by.strip() else ""
    return f"{command.actor}{second}: {with_permit(command)}"


_Changes = dict[str, Any]


def _acknowledge(_: Alarm, command: Command, now_ns: int) -> _Changes:
    comment = {"comment": command.text.strip()} if command.text.strip() else {}
    return {"acknowledged_by": command.actor, "acknowledged_time_ns": now_ns, **comment}


def _comment(_: Alarm, command: Command, _now_ns: int) -> _Changes:
    return {"comment": command.text.strip()}


def _shelve(row: Alarm, command: Command, now_ns: int) -> _Changes:
    urgency = row.priority if row.top_priority is None else row.top_priority
    until_ns = command.until_ns or now_ns + SHELF_MAX_NS[urgency]
    return {"shelved_until_ns": until_ns, "hidden_note": _note(command)}


def _unshelve(row: Alarm, command: Command, now_ns: int) -> _Changes:
    flags = flags_of(row)
    if step(flags, Transition.UNSHELVED).flags.acknowledged and not flags.acknowledged:
        return {"acknowledged_by": command.actor, "acknowledged_time_ns": now_ns}
    return {}


def _hide(_: Alarm, command: Command, _now_ns: int) -> _Changes:
    return {"hidden_note": _note(command)}


def _suppress(row: Alarm, command: Command, _now_ns: int) -> _Changes:
    sources = tuple(sorted({*row.suppressed_by, command.source}))
    return {"suppressed_by": sources, "hidden_note": _note(command)}


def _unsuppress(row: Alarm, command: Command, _now_ns: int) -> _Changes:
    return {"suppressed_by": tuple(s for s in row.suppressed_by if s != command.source)}


def _nothing(_: Alarm, _command: Command, _now_ns: int) -> _Changes:
    return {}


ASKED: Mapping[Action, Callable[[Alarm, Command, int], _Changes]] = {
    Action.ACKNOWLEDGE: _acknowledge,
    Action.COMMENT: _comment,
    Action.SHELVE: _shelve,
    Action.SHELVE_ONCE: _shelve,
    Action.UNSHELVE: _unshelve,
    Action.SUPPRESS: _suppress,
    Action.UNSUPPRESS: _unsuppress,
    Action.OUT_OF_SERVICE: _hide,
    Action.RETURN_TO_SERVICE: _nothing,
    Action.RESET: _nothing,
    Action.DISABLE: _hide,
    Action.ENABLE: _nothing,
}
