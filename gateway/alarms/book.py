"""The book: the live table of alarms, one row per alarm key. In memory, no I/O, no clock.

    Conditions ──apply──▶ ┌──────────────┐ ──▶ AlarmEvents, to be journalled, then told
    Command    ──command▶ │ key -> Alarm │ ──▶ CommandResult with its events
    now        ──tick───▶ │              │ ──▶ shelves that ran out, re-alarms
    Batch      ──observe▶ └──────────────┘ ──▶ peaks; the end of a calibration

Owns: occurrence numbers, `seq` (gap-free per key), `gseq` (gap-free over all), the rejoin window,
peaks, what is annunciated. What the flags may do is alarm_rules/lifecycle.

**Repeats.** After a restart the rule core evaluates again from its last checkpoint, and conditions
already lived through come again. Rows of one key come in time order, so a row older than the
newest verdict on record (`Alarm.judged_time_ns`) is a repeat, and is dropped. At the same instant
one key may have several verdicts (an off-delay ends in the nanosecond the next condition begins),
so the row keeps them all (`Alarm.judged`): repeated ones are matched in order and dropped, one
beyond them is new. A row whose level is the level in force changes nothing and is dropped whenever
it comes. Late rows have no order; they are remembered by (key, time, level) for as long as they
can come again.

Surprising: a verdict about a disabled alarm is journalled as HISTORICAL, so that enabling can raise
the alarm that has been standing all along; and a rejoined occurrence sounds again only if somebody
had acknowledged it or it is now worse: chatter is seen, not heard.

A peak between two events lives in memory only and is found again in the samples after a restart.

Limits: one row per rule instance, so as many as the rules make; LATE_KEPT late identities. Not
here: the disk (journal.py), who may do what (commands.py). One thread at a time may use a book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules.lifecycle import Outcome, Step, display, step
from gateway.alarms.commands import (
    TRANSITION,
    Action,
    Command,
    CommandResult,
    Refusal,
    refusal_of,
)
from gateway.alarms.rows import (
    ASKED,
    STANDING,
    Change,
    Told,
    annunciates,
    asks,
    changes_of,
    described,
    flags_of,
    further,
    is_down,
    new_row,
    position_of,
    transition_of,
    with_changes,
    with_permit,
)
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.batch import Batch
from gateway.model.condition import NORMAL, Conditions, RuleInstance
from gateway.model.point import PointTable
from gateway.model.quality import BAD, Quality
from gateway.model.rule import Priority

SECOND_NS = 1_000_000_000
PEAK_INTERVAL_NS = 1 * SECOND_NS
"""A row's peak moves at most this often."""
LATE_KEPT = 100_000
"""Late rows remembered against repeats. Beyond it the oldest is forgotten, and if that one came
again it would be recorded twice: as history, never with a sound."""
JUDGED_KEPT = 8
"""Verdicts kept of one instant."""

LateIdentity = tuple[str, int, str]
"""(alarm_key, time_ns, level) of a HISTORICAL event found in late data."""


@dataclass(frozen=True, slots=True)
class BookConfig:
    """What a site may set."""

    # A condition back within this time of its return goes on with the open occurrence.
    rejoin_window_s: float = 60.0
    realarm_after_s: Mapping[Priority, float] = field(default_factory=dict)  # absent: never


class AlarmBook:
    """The live table. Everything returned is frozen and may be handed to anyone."""

    def __init__(self, epoch: int, *, gseq: int = 0, config: BookConfig | None = None) -> None:
        """`epoch` is the journal's, `gseq` the last one used."""
        config = config or BookConfig()
        self.epoch = epoch
        self.gseq = gseq
        self.repeated_count = 0  # conditions dropped as already lived through
        self._rejoin_window_ns = round(config.rejoin_window_s * SECOND_NS)
        self._realarm_after_ns = {
            priority: round(after_s * SECOND_NS)
            for priority, after_s in config.realarm_after_s.items()
        }
        self._rows: dict[str, Alarm] = {}
        self._instances: dict[str, RuleInstance] = {}
        self._standing: set[str] = set()
        self._shelved: dict[str, int] = {}  # key -> until
        self._active_at: dict[str, set[str]] = {}  # point id -> keys of its active alarms
        self._peak_moved_ns: dict[str, int] = {}
        self._late: dict[LateIdentity, None] = {}  # in order of arrival
        self._fresh: set[str] = set()  # keys judged anew since repeats were last expected
        self._repeat_at: dict[str, int] = {}  # how many of `judged` were repeated so far

    # --- from the journal

    def restore(
        self, alarms: Iterable[Alarm], *, gseq: int, late: Iterable[LateIdentity] = ()
    ) -> None:
        """Take over the live table of an earlier run, before anything else is asked."""
        assert not self._rows, "restore comes first"
        for alarm in alarms:
            self._put(alarm)
        self.gseq = max(self.gseq, gseq)
        for identity in late:
            self._remember_late(identity)
        self.expect_repeats()

    def expect_repeats(self) -> None:
        """The rule core starts again from a checkpoint: conditions may come again."""
        self._fresh.clear()
        self._repeat_at.clear()

    # --- from the rules

    def declare(self, instances: Iterable[RuleInstance]) -> None:
        """Name the rule instances, so that an alarm that never was can be taken out of service."""
        for instance in instances:
            self._instances[instance.alarm_key] = instance

    def apply(
        self, conditions: Conditions, instances: Sequence[RuleInstance], now_ns: int
    ) -> list[AlarmEvent]:
        """Live through level changes; events in order of time, then priority, then key."""
        events: list[AlarmEvent] = []
        for change in self._in_order(changes_of(conditions, instances)):
            events.extend(self._judge(change, now_ns))
        return events

    def levels(self, instances: Sequence[RuleInstance]) -> NDArray[np.uint8]:
        """The level code in force of each, by the book: for a rule core that lost its state."""
        found = np.full(len(instances), NORMAL, np.uint8)
        for position, instance in enumerate(instances):
            row = self._rows.get(instance.alarm_key)
            if row is not None and row.judged and row.judged[-1]:
                found[position] = 1 + position_of(instance, row.judged[-1])
        return found

    def observe(self, batch: Batch, points: PointTable, now_ns: int) -> list[AlarmEvent]:
        """Move peaks of active alarms; escalate what was raised under a calibration now ended.

        A value still holding when calibration ends changes no level, so no condition would tell.
        """
        wanted = [points.index(p) for p in self._active_at if p in points]
        rows = np.flatnonzero(np.isin(batch.point_index, np.array(wanted, np.int32)))
        rows = rows[(batch.quality[rows] < BAD) & np.isfinite(batch.value[rows])]
        events: list[AlarmEvent] = []
        if not len(rows):
            return events
        rows = rows[np.lexsort((batch.source_time_ns[rows], batch.point_index[rows]))]
        point = batch.point_index[rows]
        for part in np.split(rows, np.flatnonzero(np.diff(point)) + 1):
            point_id = points[int(batch.point_index[part[0]])].id
            for key in sorted(self._active_at[point_id]):
                event = self._observe_one(key, batch.take(part), now_ns)
                if event is not None:
                    events.append(event)
        return events

    # --- from people and from time

    def command(self, command: Command, now_ns: int) -> CommandResult:
        """Do what a person asks, or say why not. Journal the events before answering."""
        row = self._rows.get(command.alarm_key)
        if row is None:
            instance = self._instances.get(command.alarm_key)
            if instance is None:
                return CommandResult(Refusal.UNKNOWN_ALARM)
            row = new_row(instance)
        refusal = refusal_of(command, row, now_ns)
        if refusal is not None:
            return CommandResult(refusal, alarm=row)
        transition = TRANSITION[command.action]
        changes = ASKED[command.action](row, command, now_ns)
        taken = _taken(row, transition, changes)
        if taken.outcome is Outcome.REJECT:
            assert taken.reason is not None
            return CommandResult(Refusal(taken.reason.value), alarm=row)
        if taken.outcome is Outcome.NOOP:
            return CommandResult(alarm=row)
        told = Told(now_ns, now_ns, actor=command.actor, comment=with_permit(command))
        events = [self._advance(row, transition, told, taken=taken, changes=changes)]
        if command.action is Action.ENABLE:
            events.extend(self._raise_standing(command.alarm_key, now_ns))
        return CommandResult(events=tuple(events), alarm=self._rows[command.alarm_key])

    def tick(self, now_ns: int) -> list[AlarmEvent]:
        """Shelves that ran out by `now_ns`, and re-alarms that are due."""
        events = []
        due = [key for key, until_ns in self._shelved.items() if until_ns <= now_ns]
        for key in sorted(due, key=lambda k: (self._shelved[k], self._rows[k].priority, k)):
            told = Told(self._shelved[key], now_ns)
            events.append(self._advance(self._rows[key], Transition.SHELF_EXPIRED, told))
        if self._realarm_after_ns:
            events.extend(self._realarm(now_ns))
        return events

    def newest_judged_ns(self) -> int:
        """Event time of the newest verdict on any alarm; 0 for none."""
        return max((row.judged_time_ns or 0 for row in self._rows.values()), default=0)

    def forget_after(self, now_ns: int) -> None:
        """The clock was set back to `now_ns`: a verdict of later than that must not make those to
        come look like repeats of the past."""
        for row in list(self._rows.values()):
            if row.judged_time_ns is not None and row.judged_time_ns > now_ns:
                self._put(replace(row, judged_time_ns=now_ns, judged=row.judged[-1:]))
        self.expect_repeats()

    # --- for screens and sinks

    def get(self, alarm_key: str) -> Alarm | None:
        return self._rows.get(alarm_key)

    def snapshot(self) -> list[Alarm]:
        """Every row, by key."""
        return [self._rows[key] for key in sorted(self._rows)]

    def standing(self) -> list[Alarm]:
        """What a person can see and has not finished with: most urgent, then oldest first."""
        return sorted(
            (self._rows[key] for key in self._standing),
            key=lambda row: (row.priority, row.active_time_ns or 0, row.alarm_key),
        )

    def counts(self) -> dict[str, int]:
        """`standing`, `unacknowledged`, and rows by display state: the heartbeat's figures."""
        by_state = Counter(row.state for row in self._rows.values())
        unseen = (
            AlarmState.UNACKNOWLEDGED,
            AlarmState.RETURNED_UNACKNOWLEDGED,
            AlarmState.LATCHED_UNACKNOWLEDGED,
        )
        return {
            "standing": len(self._standing),
            "unacknowledged": sum(by_state[state] for state in unseen),
            **{state.value: by_state[state] for state in AlarmState},
        }

    # --- one condition

    def _in_order(self, changes: list[Change]) -> list[Change]:
        """By time, then priority, then key; changes of one key at one time keep their order."""
        urgency: dict[tuple[int, str], int] = {}
        for change in changes:
            at = (change.time_ns, change.instance.alarm_key)
            urgency[at] = min(self._urgency(change), urgency.get(at, 99))
        return sorted(
            changes,
            key=lambda c: (
                c.time_ns,
                urgency[c.time_ns, c.instance.alarm_key],
                c.instance.alarm_key,
            ),
        )

    def _urgency(self, change: Change) -> int:
        if change.level != NORMAL:
            return change.instance.levels[change.level - 1].priority
        row = self._rows.get(change.instance.alarm_key)
        return change.instance.rule.priority if row is None else row.priority

    def _judge(self, change: Change, now_ns: int) -> list[AlarmEvent]:
        key = change.instance.alarm_key
        self._instances[key] = change.instance
        row = self._rows.get(key) or new_row(change.instance)
        if change.late:
            return self._record_late(row, change, now_ns)
        in_force = row.judged[-1] if row.judged else ""
        if self._is_repeat(row, change) or change.name == in_force:
            if self._ends_calibration(row, change):
                return [self._meant(row, change, now_ns)]
            self.repeated_count += 1
            return []
        self._fresh.add(key)
        same_instant = row.judged if change.time_ns == row.judged_time_ns else ()
        judged: dict[str, Any] = {
            "judged_time_ns": change.time_ns,
            "judged": (*same_instant, change.name)[-JUDGED_KEPT:],
        }
        told = Told(change.time_ns, now_ns, change.value, change.limit, level=change.name)
        if not row.enabled:
            told = told._replace(comment="disabled")
            changes = judged | (described(row, change) if change.name else {})
            return [self._advance(row, Transition.HISTORICAL, told, changes=changes)]
        transition = transition_of(row, change)
        taken = step(flags_of(row), transition, latching=change.instance.rule.latching)
        assert taken.outcome is Outcome.OK, f"{key}: {transition} of {row}"
        if transition is Transition.ACTIVATED and self._rejoins(row, change):
            told = told._replace(quiet=_is_chatter(row, change))
        changes = judged | self._lived(row, change, transition)
        events = [self._advance(row, transition, told, taken=taken, changes=changes)]
        if transition is Transition.DEESCALATED and self._ends_calibration(row, change):
            events.append(self._meant(self._rows[key], change, now_ns))
        return events

    def _is_repeat(self, row: Alarm, change: Change) -> bool:
        if row.judged_time_ns is None or change.time_ns > row.judged_time_ns:
            return False
        if change.time_ns < row.judged_time_ns:
            return True
        key = row.alarm_key
        if key in self._fresh:
            return False
        start = self._repeat_at.get(key, 0)
        if change.name not in row.judged[start:]:
            return False
        self._repeat_at[key] = row.judged.index(change.name, start) + 1
        return True

    def _lived(self, row: Alarm, change: Change, transition: Transition) -> dict[str, Any]:
        """What a verdict writes into the row."""
        if transition is Transition.RETURNED:
            return {"return_time_ns": change.time_ns}
        changes = described(row, change)
        if transition is not Transition.ACTIVATED:
            # The occurrence began with its first level; what it began with stays.
            for name in ("value", "condition_time_ns", "active_time_ns"):
                del changes[name]
            changes["peak"] = further(row.peak, change.value, is_down(row))
            changes["planned"] = row.planned and (
                changes["planned"] or transition is Transition.DEESCALATED
            )
            return changes
        if self._rejoins(row, change):
            changes["reactivation_count"] = row.reactivation_count + 1
            changes["peak"] = further(row.peak, change.value, is_down(row))
            changes["planned"] = row.planned and changes["planned"]
        else:
            changes |= {"occ_no": row.occ_no + 1, "reactivation_count": 0}
        changes |= {"return_time_ns": None, "acknowledged_time_ns": None, "acknowledged_by": ""}
        return changes

    def _rejoins(self, row: Alarm, change: Change) -> bool:
        returned_ns = row.return_time_ns
        return (
            row.open
            and returned_ns is not None
            and change.time_ns - returned_ns <= self._rejoin_window_ns
        )

    def _record_late(self, row: Alarm, change: Change, now_ns: int) -> list[AlarmEvent]:
        identity = (row.alarm_key, change.time_ns, change.name)
        if identity in self._late:
            self.repeated_count += 1
            return []
        self._remember_late(identity)
        told = Told(
            change.time_ns, now_ns, change.value, change.limit, level=change.name, late=True
        )
        return [self._advance(row, Transition.HISTORICAL, told)]

    def _remember_late(self, identity: LateIdentity) -> None:
        self._late[identity] = None
        if len(self._late) > LATE_KEPT:
            del self._late[next(iter(self._late))]

    # --- values while active

    def _observe_one(self, key: str, part: Batch, now_ns: int) -> AlarmEvent | None:
        row = self._rows[key]
        since_ns = row.active_time_ns or 0
        if row.planned:
            sound = np.flatnonzero(
                (part.quality != Quality.UNCERTAIN_CALIBRATING) & (part.source_time_ns > since_ns)
            )
            if len(sound):
                first = sound[0]
                time_ns, value = int(part.source_time_ns[first]), float(part.value[first])
                told = Told(time_ns, now_ns, value, row.limit)
                return self._call_for(row, told, int(part.quality[first]))
        newest_ns = int(part.source_time_ns[-1])
        if newest_ns - self._peak_moved_ns.get(key, since_ns - PEAK_INTERVAL_NS) < PEAK_INTERVAL_NS:
            return None
        values = part.value[part.source_time_ns >= since_ns]
        if row.value is not None and len(values):
            down = is_down(row)
            peak = further(row.peak, float(values.min() if down else values.max()), down)
            if peak != row.peak:
                self._peak_moved_ns[key] = newest_ns
                self._rows[key] = with_changes(row, {"peak": peak})
        return None

    def _ends_calibration(self, row: Alarm, change: Change) -> bool:
        return (
            row.planned
            and row.active
            and bool(change.name)
            and change.quality != Quality.UNCERTAIN_CALIBRATING
            and change.time_ns >= (row.active_time_ns or 0)
        )

    def _meant(self, row: Alarm, change: Change, now_ns: int) -> AlarmEvent:
        told = Told(change.time_ns, now_ns, change.value, change.limit)
        return self._call_for(row, told, change.quality)

    def _call_for(self, row: Alarm, told: Told, quality: int) -> AlarmEvent:
        """An alarm of a calibration turns out to be meant: as grave as an escalation."""
        told = told._replace(level=row.level, comment="calibration ended")
        changes = {"planned": False, "quality": quality}
        return self._advance(row, Transition.ESCALATED, told, changes=changes)

    # --- time and enabling

    def _realarm(self, now_ns: int) -> list[AlarmEvent]:
        events = []
        for row in self.standing():
            after_ns = self._realarm_after_ns.get(row.priority)
            since_ns = row.acknowledged_time_ns
            if row.state is not AlarmState.ACKNOWLEDGED or after_ns is None or since_ns is None:
                continue
            if since_ns + after_ns <= now_ns:
                told = Told(since_ns + after_ns, now_ns, level=row.level)
                events.append(self._advance(row, Transition.REALARMED, told))
        return events

    def _raise_standing(self, key: str, now_ns: int) -> list[AlarmEvent]:
        """After enabling: the condition that held, or began, while the alarm was disabled."""
        row = self._rows[key]
        if not row.judged or not row.judged[-1]:
            return []
        instance = self._instances.get(key)
        latching = instance is not None and instance.rule.latching
        taken = step(flags_of(row), Transition.ACTIVATED, latching=latching)
        told = Told(now_ns, now_ns, row.value, row.limit, level=row.judged[-1], comment="enabled")
        changes = {
            "occ_no": row.occ_no + 1,
            "reactivation_count": 0,
            "peak": row.value,
            "active_time_ns": row.judged_time_ns,
            "return_time_ns": None,
            "acknowledged_time_ns": None,
            "acknowledged_by": "",
        }
        return [self._advance(row, Transition.ACTIVATED, told, taken=taken, changes=changes)]

    # --- every event goes through here

    def _advance(
        self,
        row: Alarm,
        transition: Transition,
        told: Told,
        *,
        taken: Step | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> AlarmEvent:
        """Number the transition, write the row, say whether it is to be heard."""
        before = flags_of(row)
        after = (
            before
            if transition is Transition.HISTORICAL
            else (taken or step(before, transition)).flags
        )
        seq = row.seq + 1
        self.gseq += 1
        changed: dict[str, Any] = {
            **(changes or {}),
            "active": after.active,
            "acknowledged": after.acknowledged,
            "latched": after.latched,
            "shelved": after.shelved,
            "out_of_service": after.out_of_service,
            "enabled": after.enabled,
            "open": after.open,
            "shown": after.shown,
            "state": display(after),
            "seq": seq,
            "epoch": self.epoch,
            "gseq": self.gseq,
        }
        if not after.shelved:
            changed["shelved_until_ns"] = None
        if not after.hidden:
            changed["hidden_note"] = ""
        if asks(transition, before, after):
            changed["attention_seq"] = seq
        changed["unacknowledged_from"] = 0
        if after.open and not after.acknowledged:
            occ_no = changed.get("occ_no", row.occ_no)
            changed["unacknowledged_from"] = row.unacknowledged_from or occ_no
        alarm = with_changes(row, changed)
        self._put(alarm)
        return AlarmEvent(
            transition=transition,
            alarm=alarm,
            time_ns=told.time_ns,
            recorded_time_ns=told.now_ns,
            from_state=row.state,
            annunciate=not told.quiet and annunciates(transition, row, alarm),
            value=told.value,
            limit=told.limit,
            actor=told.actor,
            comment=told.comment,
            late=told.late,
            level=told.level,
        )

    def _put(self, alarm: Alarm) -> None:
        key = alarm.alarm_key
        self._rows[key] = alarm
        if alarm.state in STANDING:
            self._standing.add(key)
        else:
            self._standing.discard(key)
        if alarm.shelved_until_ns is not None:
            self._shelved[key] = alarm.shelved_until_ns
        else:
            self._shelved.pop(key, None)
        if not alarm.point_id:
            return
        if alarm.active:
            self._active_at.setdefault(alarm.point_id, set()).add(key)
        else:
            keys = self._active_at.get(alarm.point_id, set())
            keys.discard(key)
            if not keys:
                self._active_at.pop(alarm.point_id, None)
            self._peak_moved_ns.pop(key, None)


def _taken(row: Alarm, transition: Transition, changes: Mapping[str, Any]) -> Step:
    """The table's answer; it knows one suppression flag where the row has a set of sources."""
    flags = flags_of(row)
    sources = changes.get("suppressed_by")
    if sources is None or bool(sources) != bool(row.suppressed_by):
        return step(flags, transition)
    return Step(flags, Outcome.NOOP if sources == row.suppressed_by else Outcome.OK)


def _is_chatter(row: Alarm, change: Change) -> bool:
    """Back before anybody looked, and no worse: it is still flashing, it need not sound."""
    worse = change.level - 1 > position_of(change.instance, row.level)
    return row.shown and not row.acknowledged and not row.planned and not worse
