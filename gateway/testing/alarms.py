"""Rule instances, conditions and alarm events for tests, short to write; the life cycle by hand.

    H = make_instance("ch4", levels=("H", "HH"))
    book.apply(make_conditions((0, "H", 10 * S), instances=[H]), [H], 10 * S)

`AlarmSpec` is the life cycle a second time, as plain statements about one alarm, written from the
specification and not from `alarm_rules.lifecycle`: what the table and the book are compared with.

Not here: the rule core that makes real conditions (alarm_rules).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.condition import NORMAL, Conditions, Level, RuleInstance
from gateway.model.rule import Citation, Confidence, Priority, Rule, Selector, alarm_key

S = 1_000_000_000
"""A second in nanoseconds."""

LEVEL_PRIORITIES: Mapping[str, Priority] = {
    "L": Priority.MEDIUM,
    "H": Priority.MEDIUM,
    "LL": Priority.HIGH,
    "HH": Priority.HIGH,
    "HHH": Priority.CRITICAL,
    "OFFLINE": Priority.LOW,
}


class Row(NamedTuple):
    """One change: which instance, to which level ("" for normal), when it took effect."""

    instance: int
    level: str
    time_ns: int
    value: float = float("nan")
    began_ns: int | None = None  # None: no delay
    limit: float = float("nan")
    quality: int = 0
    late: bool = False


def make_instance(
    target: str = "ch4.001",
    rule_id: str = "ch4.limit",
    *,
    levels: Sequence[str | Level] = ("H", "HH"),
    kind: str = "limit",
    latching: bool = False,
    priority: Priority | None = None,
) -> RuleInstance:
    """An instance on the point named like its target; `priority` overrides that of every level."""
    made = tuple(
        level
        if isinstance(level, Level)
        else Level(level, priority or LEVEL_PRIORITIES.get(level, Priority.MEDIUM), 1.0 + at)
        for at, level in enumerate(levels)
    )
    rule = Rule(
        id=rule_id,
        kind=kind,
        inputs={"value": Selector(ids=(target,))},
        parameters={},
        name={"en": "Methane high", "zh": "甲烷超限"},
        priority=priority or Priority.MEDIUM,
        latching=latching,
        citation=Citation("AQ 1029-2019", "2019", "6.1", Confidence.UNCONFIRMED),
        action={"en": "Stop work, withdraw people"},
    )
    return RuleInstance(
        alarm_key=alarm_key(target, rule_id),
        rule=rule,
        target=target,
        point_id=target,
        levels=made,
        unit="%CH4",
        area="3101",
        location="3101 T1",
        display_name=target,
        measures=True,
    )


def make_conditions(
    *rows: Row | tuple[object, ...], instances: Sequence[RuleInstance]
) -> Conditions:
    """Conditions of `Row`s or their leading fields, in the order the rule core keeps."""
    made = [row if isinstance(row, Row) else Row(*row) for row in rows]  # type: ignore[arg-type]
    made.sort(key=lambda row: (row.time_ns, row.instance))

    def code(row: Row) -> int:
        names = [level.name for level in instances[row.instance].levels]
        return NORMAL if not row.level else 1 + names.index(row.level)

    return Conditions(
        instance=np.array([row.instance for row in made], np.int32),
        level=np.array([code(row) for row in made], np.uint8),
        time_ns=np.array([row.time_ns for row in made], np.int64),
        began_ns=np.array(
            [row.time_ns if row.began_ns is None else row.began_ns for row in made], np.int64
        ),
        value=np.array([row.value for row in made], np.float64),
        limit=np.array([row.limit for row in made], np.float64),
        quality=np.array([row.quality for row in made], np.uint8),
        late=np.array([row.late for row in made], np.bool_),
    )


def make_event(
    gseq: int,
    *,
    key: str = "ch4.001:ch4.limit",
    transition: Transition = Transition.ACTIVATED,
    time_ns: int = 1 * S,
    kind: str = "limit",
    seq: int | None = None,
) -> AlarmEvent:
    """An event that could stand at `gseq`, for a journal or a sink that does not look closer."""
    target, _, rule_id = key.partition(":")
    alarm = Alarm(
        alarm_key=key,
        rule_id=rule_id,
        rule_kind=kind,
        target=target,
        point_id=target,
        priority=Priority.MEDIUM,
        active=transition is Transition.ACTIVATED,
        acknowledged=False,
        open=True,
        shown=True,
        state=AlarmState.UNACKNOWLEDGED
        if transition is Transition.ACTIVATED
        else AlarmState.RETURNED_UNACKNOWLEDGED,
        level="H",
        value=1.5,
        limit=1.0,
        name={"en": "Methane high", "zh": "甲烷超限"},
        occ_no=1,
        seq=gseq if seq is None else seq,
        epoch=1,
        gseq=gseq,
        active_time_ns=time_ns,
    )
    return AlarmEvent(
        transition=transition,
        alarm=alarm,
        time_ns=time_ns,
        recorded_time_ns=time_ns,
        from_state=AlarmState.NORMAL,
        annunciate=transition is Transition.ACTIVATED,
        value=1.5,
        limit=1.0,
        level="H",
    )


class AlarmSpec:
    """One alarm, as the specification tells it. `do` answers "ok", "noop" or "reject"."""

    def __init__(self, *, latching: bool = False) -> None:
        self.latching = latching
        self.active = self.latched = self.suppressed = self.out_of_service = False
        self.shelf = ""
        self.acknowledged = self.enabled = True
        self.open = self.shown = False

    def vector(self) -> tuple[object, ...]:
        """In the order of `alarm_rules.lifecycle.Flags`."""
        return (
            self.active,
            self.acknowledged,
            self.latched,
            self.shelf,
            self.suppressed,
            self.out_of_service,
            self.enabled,
            self.shown,
            self.open,
        )

    def at(self, vector: Sequence[object]) -> AlarmSpec:
        """This alarm, put into a state."""
        (
            self.active,
            self.acknowledged,
            self.latched,
            self.shelf,
            self.suppressed,
            self.out_of_service,
            self.enabled,
            self.shown,
            self.open,
        ) = vector  # type: ignore[assignment]
        return self

    @property
    def is_visible(self) -> bool:
        return self.enabled and not (self.out_of_service or self.suppressed or self.shelf)

    def do(self, event: Transition) -> str:
        """Let `event` happen."""
        answer: str = getattr(self, f"_{event.name.lower()}")()
        if answer == "ok":
            self._settle()
        return answer

    def _settle(self) -> None:
        waiting = self.open and not self.acknowledged
        if waiting and self.is_visible:
            came_and_went_unseen = not (self.active or self.shown or self.latched)
            if came_and_went_unseen:
                self.acknowledged = True
            else:
                self.shown = True
        if self.open and self.acknowledged and not self.active and not self.latched:
            self.open = self.shown = False

    def _activated(self) -> str:
        if not self.enabled or self.active:
            return "noop"
        self.active, self.acknowledged, self.latched, self.open = True, False, self.latching, True
        return "ok"

    def _returned(self) -> str:
        if not self.active:
            return "noop"
        self.active = False
        if self.shelf == "oneshot":
            self.shelf = ""
        return "ok"

    def _escalated(self) -> str:
        if not (self.active and self.enabled):
            return "noop"
        self.acknowledged = False
        self.latched = self.latched or self.latching
        return "ok"

    def _deescalated(self) -> str:
        return "ok" if self.active and self.enabled else "noop"

    def _acknowledged(self) -> str:
        if not self.is_visible:
            return "reject"
        if self.acknowledged:
            return "noop"
        self.acknowledged = True
        return "ok"

    def _reset(self) -> str:
        if not self.latched:
            return "noop"
        if self.active or not self.acknowledged or not self.is_visible:
            return "reject"
        self.latched = False
        return "ok"

    def _shelved(self) -> str:
        if not self.enabled or self.out_of_service:
            return "reject"
        self.shelf = "timed"
        return "ok"

    def _shelved_once(self) -> str:
        if not self.enabled or self.out_of_service or not self.active:
            return "reject"
        self.shelf = "oneshot"
        return "ok"

    def _unshelved(self) -> str:
        if not self.shelf:
            return "noop"
        self.shelf = ""
        if self.open and not (self.suppressed or self.out_of_service):
            self.acknowledged = True
        return "ok"

    def _shelf_expired(self) -> str:
        if not self.shelf:
            return "noop"
        self.shelf = ""
        if self.active:
            self.acknowledged = False
        return "ok"

    def _suppressed(self) -> str:
        if self.suppressed:
            return "noop"
        self.suppressed = True
        return "ok"

    def _unsuppressed(self) -> str:
        if not self.suppressed:
            return "noop"
        self.suppressed = False
        return "ok"

    def _out_of_service(self) -> str:
        if self.out_of_service:
            return "noop"
        self.out_of_service = True
        return "ok"

    def _returned_to_service(self) -> str:
        if not self.out_of_service:
            return "noop"
        self.out_of_service = False
        if self.active:
            self.acknowledged = False
        return "ok"

    def _realarmed(self) -> str:
        if not (self.active and self.acknowledged and self.is_visible):
            return "noop"
        self.acknowledged = False
        return "ok"

    def _disabled(self) -> str:
        if not self.enabled:
            return "noop"
        self.enabled = self.active = self.latched = self.open = self.shown = False
        self.acknowledged, self.shelf = True, ""
        return "ok"

    def _enabled(self) -> str:
        if self.enabled:
            return "noop"
        self.enabled = True
        return "ok"

    def _commented(self) -> str:
        return "ok"

    _historical = _commented
    _rule_changed = _commented

    def _confirmed(self) -> str:
        return "ok" if self.acknowledged else "reject"

    def _overdue(self) -> str:
        return "noop" if self.acknowledged or not self.is_visible else "ok"

    def _removed(self) -> str:
        fresh = AlarmSpec(latching=self.latching).vector()
        if self.vector() == fresh:
            return "noop"
        self.at(fresh)
        return "ok"
