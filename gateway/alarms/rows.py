"""What one row of the book becomes: pure functions from a row, and a verdict or a command.

Owns: how a verdict fills a row, what a command writes into it, when a transition asks for a person
and when it is heard. The book owns the table, the numbers and the order.

Not here: the flags (alarm_rules/lifecycle), refusals (commands.py).
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import repeat
from operator import attrgetter, call
from typing import Any, NamedTuple

import orjson

from alarm_rules.lifecycle import Flags, step
from gateway.alarms.commands import Action, Command
from gateway.alarms.policy import WEEK_NS
from gateway.alarms.ranking import STANDING
from gateway.model.alarm import Alarm, AlarmState, Transition
from gateway.model.condition import NORMAL, Conditions, Level, RuleInstance
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule

SHELVINGS_KEPT = 64
"""Times of shelving kept in a row: an alarm shelved more often in a week shows as this many."""

DIGESTS_KEPT = 10_000
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
_DIGESTS: dict[tuple[int, tuple[Level, ...]], tuple[Rule, str]] = {}

_NAMES = tuple(field.name for field in fields(Alarm))
_AT = {name: at for at, name in enumerate(_NAMES)}
_VALUES = attrgetter(*_NAMES)
_SETTERS = tuple(getattr(Alarm, name).__set__ for name in _NAMES)


def with_changes(row: Alarm, changes: Mapping[str, Any]) -> Alarm:
    """`dataclasses.replace`, six times as fast: a flood makes ten thousand of them.

    The new row's slots are filled from C, past the `__init__` of a frozen class, which sets them
    one by one through a lookup each.
    """
    values = list(_VALUES(row))
    for name, value in changes.items():
        values[_AT[name]] = value
    new = object.__new__(Alarm)
    deque(map(call, _SETTERS, repeat(new), values), maxlen=0)
    return new


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
    step: int = 0
    recipients: tuple[str, ...] = ()


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
    facts = {
        "alarm_key": instance.alarm_key,
        "rule_id": rule.id,
        "rule_kind": rule.kind,
        "target": instance.target,
        "point_id": instance.point_id,
        "priority": top,
        "top_priority": top,
        "scheme": rule.scheme,
        "unit": instance.unit,
        "name": rule.name,
        "action": rule.action,
        "location": instance.location,
        "area": instance.area,
        "display_name": instance.display_name,
        "citation": rule.citation,
        "rule_version": rule.version,
    }
    return with_changes(_BLANK, facts)


_BLANK = Alarm("", "", "", "", "", Priority.LOW)


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
        "level_time_ns": change.time_ns,
        "planned": change.quality == Quality.UNCERTAIN_CALIBRATING,
        "rule_digest": digest_of(instance),
    }


def edited(instance: RuleInstance) -> dict[str, Any]:
    """What an edited rule says of an alarm it has not judged yet: its words, not its verdict."""
    rule = instance.rule
    return {
        "top_priority": min((level.priority for level in instance.levels), default=rule.priority),
        "scheme": rule.scheme,
        "unit": instance.unit,
        "name": rule.name,
        "action": rule.action,
        "citation": rule.citation,
        "rule_version": rule.version,
        "rule_digest": digest_of(instance),
    }


def digest_of(instance: RuleInstance) -> str:
    """Names what an alarm is judged by: the same digest, the same limits, delays and latching."""
    rule = instance.rule
    # By identity: a rule holds mappings and has no hash. It is kept, so that its id stays its own.
    kept = _DIGESTS.get((id(rule), instance.levels))
    if kept is None or kept[0] is not rule:
        if len(_DIGESTS) >= DIGESTS_KEPT:
            _DIGESTS.clear()
        levels = [
            [level.name, level.priority, level.limit, level.latching] for level in instance.levels
        ]
        parts: list[object] = [rule.kind, rule.version, rule.parameters, levels]
        parts += [rule.on_delay_s, rule.off_delay_s, rule.latching]
        # Named one by one: a field added to a class must not look like an edit of every rule.
        try:
            body = orjson.dumps(parts, default=repr, option=_CANONICAL)
        except orjson.JSONEncodeError:  # half a surrogate pair, a number of more than 64 bits
            body = repr(parts).encode("utf-8", "replace")
        text = hashlib.sha256(body).hexdigest()[:12]
        kept = _DIGESTS[id(rule), instance.levels] = (rule, text)
    return kept[1]


def latches(change: Change) -> bool:
    """Whether the level reached latches: as the level says, else as its rule."""
    rule = change.instance.rule
    if change.level == NORMAL:
        return rule.latching
    own = change.instance.levels[change.level - 1].latching
    return rule.latching if own is None else own


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


def _confirm(_: Alarm, command: Command, now_ns: int) -> _Changes:
    return {"confirmed_by": command.actor, "confirmed_time_ns": now_ns}


def _shelve(row: Alarm, command: Command, now_ns: int) -> _Changes:
    times = (*shelvings_in_week(row, now_ns), now_ns)[-SHELVINGS_KEPT:]
    return {
        "shelved_until_ns": command.until_ns,
        "hidden_note": _note(command),
        "shelvings": times,
    }


def shelvings_in_week(row: Alarm, now_ns: int) -> tuple[int, ...]:
    """When the alarm was shelved in the seven days before `now_ns`."""
    return tuple(time_ns for time_ns in row.shelvings if time_ns > now_ns - WEEK_NS)


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
    Action.CONFIRM: _confirm,
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
