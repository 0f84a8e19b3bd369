"""What one row of the book becomes: pure functions from a row, and a verdict or a command.

Owns: how a verdict fills a row, what a command writes into it, when a transition asks for a person
and when it is heard. The book owns the table, the numbers and the order.

Not here: the flags (alarm_rules/lifecycle), refusals (commands.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, make_dataclass
from math import isnan
from operator import attrgetter
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from alarm_rules.lifecycle import Flags, step
from gateway.alarms.commands import Action, Command
from gateway.alarms.policy import WEEK_NS
from gateway.alarms.ranking import STANDING
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.condition import NORMAL, Conditions, Level, RuleInstance
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule

SHELVINGS_KEPT = 64
"""Times of shelving kept in a row: an alarm shelved more often in a week shows as this many."""

FACTS_KEPT = 10_000
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS

_NAMES = tuple(field.name for field in fields(Alarm))
_AT = {name: at for at, name in enumerate(_NAMES)}
_VALUES = attrgetter(*_NAMES)
# Classes with the same slots that are not frozen: filled at the speed of plain assignments, which
# the `__init__` of a frozen class is far from, and then declared to be what they stand for.
_AlarmDraft = make_dataclass("_AlarmDraft", _NAMES, slots=True)
_EventDraft = make_dataclass(
    "_EventDraft", [field.name for field in fields(AlarmEvent)], slots=True
)


def with_changes(row: Alarm, changes: Mapping[str, Any]) -> Alarm:
    """`dataclasses.replace`, many times as fast: a flood makes ten thousand of them."""
    values = list(_VALUES(row))
    for name, value in changes.items():
        values[_AT[name]] = value
    new = _AlarmDraft(*values)
    new.__class__ = Alarm
    return cast("Alarm", new)


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
    asked = [instances[index] for index in conditions.instance.tolist()]
    levels = conditions.level.tolist()
    for instance, level in zip(asked, levels, strict=True):
        assert level <= len(instance.levels), f"{instance.alarm_key} has no level {level}"
    return list(
        map(
            Change,
            asked,
            levels,
            conditions.time_ns.tolist(),
            conditions.began_ns.tolist(),
            _numbers(conditions.value),
            _numbers(conditions.limit),
            conditions.quality.tolist(),
            conditions.late.tolist(),
        )
    )


def _numbers(column: NDArray[np.float64]) -> list[float | None]:
    return [None if isnan(number) else number for number in column.tolist()]


def event_of(
    transition: Transition,
    alarm: Alarm,
    told: Told,
    *,
    from_state: AlarmState,
    annunciate: bool,
    comment: str,
) -> AlarmEvent:
    """The event of a row just written. Made as `with_changes` makes a row."""
    new = _EventDraft(
        *(transition, alarm, told.time_ns, told.now_ns, from_state, annunciate),
        *(told.value, told.limit, told.actor, comment, told.late, told.level),
        *(told.step, told.recipients),
    )
    new.__class__ = AlarmEvent
    return cast("AlarmEvent", new)


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
    facts = {
        "alarm_key": instance.alarm_key,
        "target": instance.target,
        "point_id": instance.point_id,
        "unit": instance.unit,
        "location": instance.location,
        "area": instance.area,
        "display_name": instance.display_name,
    }
    return with_changes(_facts_of(instance).blank, facts)


def described(row: Alarm, change: Change) -> dict[str, Any]:
    """What the instance and the verdict say of an alarm: edited names and limits arrive here."""
    instance = change.instance
    limit = change.limit
    return {
        **_facts_of(instance).levels[change.level - 1],
        "value": change.value,
        "peak": change.value,
        "limit": instance.levels[change.level - 1].limit if limit is None else limit,
        "unit": instance.unit,
        "quality": change.quality,
        "location": instance.location,
        "area": instance.area,
        "display_name": instance.display_name,
        "point_id": instance.point_id or row.point_id,
        "condition_time_ns": change.began_ns,
        "active_time_ns": change.time_ns,
        "level_time_ns": change.time_ns,
        "planned": change.quality == Quality.UNCERTAIN_CALIBRATING,
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
    return _facts_of(instance).digest


class _Facts(NamedTuple):
    """What all instances of a rule with the same levels have in common."""

    rule: Rule
    digest: str
    blank: Alarm  # a new row, but for its key and place
    levels: tuple[Mapping[str, Any], ...]  # what a verdict of each writes into the row


def _facts_of(instance: RuleInstance) -> _Facts:
    rule, levels = instance.rule, instance.levels
    # By identity: a rule holds mappings and has no hash. It is kept, so that its id stays its own.
    kept = _FACTS.get((id(rule), levels))
    if kept is None or kept.rule is not rule:
        if len(_FACTS) >= FACTS_KEPT:
            _FACTS.clear()
        kept = _FACTS[id(rule), levels] = _facts(rule, levels)
    return kept


def _facts(rule: Rule, levels: tuple[Level, ...]) -> _Facts:
    digest = _digest(rule, levels)
    top = min((level.priority for level in levels), default=rule.priority)
    words = {
        "scheme": rule.scheme,
        "name": rule.name,
        "action": rule.action,
        "citation": rule.citation,
        "rule_version": rule.version,
        "top_priority": top,
    }
    blank = {"rule_id": rule.id, "rule_kind": rule.kind, "priority": top, **words}
    verdicts = tuple(
        {
            "priority": level.priority,
            "level": level.name,
            "scheme_level": level.scheme_level or rule.level,
            "rule_digest": digest,
            **words,
        }
        for level in levels
    )
    return _Facts(rule, digest, with_changes(_BLANK, blank), verdicts)


def _digest(rule: Rule, levels: tuple[Level, ...]) -> str:
    named = [[level.name, level.priority, level.limit, level.latching] for level in levels]
    parts: list[object] = [rule.kind, rule.version, rule.parameters, named]
    parts += [rule.on_delay_s, rule.off_delay_s, rule.latching]
    # Named one by one: a field added to a class must not look like an edit of every rule.
    try:
        body = orjson.dumps(parts, default=repr, option=_CANONICAL)
    except orjson.JSONEncodeError:  # half a surrogate pair, a number of more than 64 bits
        body = repr(parts).encode("utf-8", "replace")
    return hashlib.sha256(body).hexdigest()[:12]


_BLANK = Alarm("", "", "", "", "", Priority.LOW)
_FACTS: dict[tuple[int, tuple[Level, ...]], _Facts] = {}


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
