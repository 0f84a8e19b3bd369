"""The book: the live table of alarms, one row per alarm key. In memory, no I/O, no clock.

    Conditions ──apply──▶ ┌──────────────┐ ──▶ AlarmEvents, to be journalled, then told
    Command    ──command▶ │ key -> Alarm │ ──▶ CommandResult with its events
    now        ──tick───▶ │              │ ──▶ shelves that ran out, re-alarms, escalation in time
    Batch      ──observe▶ │              │ ──▶ peaks; the end of a calibration
    rules      ──follow─▶ └──────────────┘ ──▶ alarms whose rule was edited or is gone

Owns: occurrence numbers, `seq` (gap-free per key), `gseq` (gap-free over all), the rejoin window,
peaks, what is annunciated. What the flags may do is alarm_rules/lifecycle; who explains whom is
relations.py, deadlines are timers.py, the order of the standing list is ranking.py.

**Repeats.** After a restart the rule core evaluates again from its last checkpoint, and conditions
already lived through come again. Rows of one key come in time order, so a row older than the
newest verdict on record (`Alarm.judged_time_ns`) is a repeat, and is dropped. At the same instant
one key may have several verdicts (an off-delay ends in the nanosecond the next condition begins),
so the row keeps them all (`Alarm.judged`): repeated ones are matched in order and dropped, one
beyond them is new. A row whose level is the level in force changes nothing and is dropped whenever
it comes. Late rows have no order; they are remembered by (key, time, level) for as long as they
can come again.

Surprising: a verdict about a disabled alarm is journalled as HISTORICAL, so that enabling can raise
the alarm that has been standing all along; a rejoined occurrence sounds again only if somebody had
acknowledged it or it is now worse: chatter is seen, not heard; and an alarm that another explains
is suppressed *before* it is activated, so that it never sounds.

The row of a removed rule is kept, marked: its numbers must go on if the rule comes back.

Limits: one row per rule instance, so as many as the rules make; LATE_KEPT late identities. Not
here: the disk (journal.py), who may do what (commands.py). One thread at a time may use a book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
    urgency_of,
)
from gateway.alarms.policy import SECOND_NS, BookConfig
from gateway.alarms.ranking import Ranking
from gateway.alarms.relations import PARENT, Above, Relations, above_in, is_automatic
from gateway.alarms.rows import (
    ASKED,
    Change,
    Told,
    annunciates,
    asks,
    changes_of,
    described,
    digest_of,
    edited,
    event_of,
    flags_of,
    further,
    is_down,
    latches,
    new_row,
    position_of,
    shelvings_in_week,
    transition_of,
    with_changes,
    with_permit,
)
from gateway.alarms.timers import WAITING, Timers
from gateway.alarms.watch import Part, Watch, meant_from
from gateway.contract.rule_kind import NEVER
from gateway.model.alarm import Alarm, AlarmEvent, Transition
from gateway.model.batch import Batch
from gateway.model.condition import NORMAL, Conditions, RuleInstance
from gateway.model.point import PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority

__all__ = ["AlarmBook", "BookConfig"]

LATE_KEPT = 100_000
"""Late rows remembered against repeats. Beyond it the oldest is forgotten, and if that one came
again it would be recorded twice: as history, never with a sound."""
JUDGED_KEPT = 8
"""Verdicts kept of one instant."""

LateIdentity = tuple[str, int, str]
"""(alarm_key, time_ns, level) of a HISTORICAL event found in late data."""


class AlarmBook:
    """The live table. Everything returned is frozen and may be handed to anyone."""

    def __init__(
        self,
        epoch: int,
        *,
        gseq: int = 0,
        config: BookConfig | None = None,
        above: Above | None = None,
    ) -> None:
        """`epoch` is the journal's, `gseq` the last one used; `above` says what links an alarm's
        target hangs on (`relations.above_in` of the point table)."""
        config = config or BookConfig()
        self.epoch = epoch
        self.gseq = gseq
        self.repeated_count = 0  # conditions dropped as already lived through
        self._rejoin_window_ns = round(config.rejoin_window_s * SECOND_NS)
        self._shelf_max_ns = config.shelf_max_ns()
        self._rows: dict[str, Alarm] = {}
        self._instances: dict[str, RuleInstance] = {}
        self._listed: Sequence[RuleInstance] = ()  # the rule core's, as followed
        self._position: dict[str, int] = {}  # in it; positions never change
        self._live: NDArray[np.bool_] = np.empty(0, np.bool_)  # by position
        self._ranking = Ranking()
        self._timers = Timers(config)
        self._relations = Relations(
            config.groups,
            config.silence_kinds,
            above=above or above_in(PointTable()),
            release_ns=round(config.parent_release_s * SECOND_NS),
        )
        self._recovered = True  # what explained others before a restart has been looked at
        self._standing: list[Alarm] | None = None  # in order, until something changes
        self._watch = Watch()
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
            self._put(alarm, 0)
        self._recovered = False
        self.gseq = max(self.gseq, gseq)
        for identity in late:
            self._remember_late(identity)
        self.expect_repeats()

    def expect_repeats(self) -> None:
        """The rule core starts again from a checkpoint: conditions may come again."""
        self._fresh.clear()
        self._repeat_at.clear()

    # --- from the rules, whose level changes come to `apply`, or in parts to `live`

    def declare(self, instances: Iterable[RuleInstance]) -> None:
        """Name the rule instances, so that an alarm that never was can be taken out of service."""
        for instance in instances:
            if self._instances.get(instance.alarm_key) is not instance:
                self._learn(instance)

    def follow(
        self,
        instances: Sequence[RuleInstance],
        live: NDArray[np.bool_],
        now_ns: int,
        *,
        levels: NDArray[np.uint8] | None = None,
    ) -> list[AlarmEvent]:
        """The rules are these now; `live` tells which of them still match something. `levels`, if
        given, are the rule core's: what it has long said of an instance that matches again.

        Alarms of the others are closed: nothing judges them any more, and one that stood for ever
        would teach people to overlook it. An alarm that stands or is hidden and whose rule was
        edited says so, and is judged by the edited rule from its next sample on.
        """
        events: list[AlarmEvent] = []
        self.declare(instances)
        if self._listed is not instances:
            self._listed, self._position = instances, {}
        for at in range(len(self._position), len(instances)):
            self._position[instances[at].alarm_key] = at
        self._live = live
        for key in self._ranking.all_keys() if self._rows else ():
            row = self._rows[key]
            if not self._is_live(key):
                if not row.removed:
                    events.append(self._remove(row, now_ns))
            elif (row.open or flags_of(row).hidden) and self._was_edited(row):
                told = Told(now_ns, now_ns, level=row.level, comment="rule edited")
                changes = edited(self._instances[key])
                events.append(self._advance(row, Transition.RULE_CHANGED, told, changes=changes))
        codes = [] if levels is None else levels.tolist()
        for position, level in enumerate(codes):
            if level == NORMAL:
                continue
            held = self._rows.get(instances[position].alarm_key)
            if held is not None and held.removed and live[position]:
                events.extend(self._bring_back(held, instances[position], level, now_ns))
        if self._relations.due_ns is not None:
            events.extend(self._release(now_ns + 1, now_ns))
        if not self._recovered:
            self._recovered = True
            self._relations.recover(self._rows.get, now_ns)
        return events

    def apply(
        self, conditions: Conditions, instances: Sequence[RuleInstance], now_ns: int
    ) -> list[AlarmEvent]:
        """Live through level changes; events in order of time, then priority, then key."""
        return self.live(self.in_turn(conditions, instances), now_ns)

    def live(
        self, changes: Iterable[Change], now_ns: int, *, is_last: bool = True
    ) -> list[AlarmEvent]:
        """`apply` for changes that are in their order already (`in_turn`), or a part of them:
        `is_last` if none of the others is still to come, which may be of the same instant."""
        events: list[AlarmEvent] = []
        for change in changes:
            if not change.late:  # what was due before it comes before it, in a backlog too
                if self._relations.due_ns is not None:
                    events.extend(self._release(change.time_ns, now_ns))
                until_ns = min(change.time_ns, now_ns)
                if self._timers.is_due(until_ns):
                    events.extend(self._tick(until_ns, now_ns))
            events.extend(self._judge(change, now_ns))
        if is_last and self._relations.due_ns is not None:
            events.extend(self._release(now_ns, now_ns))
        return events

    def is_critical(self, change: Change) -> bool:
        """Whether it is of priority 1, and of an alarm that may go before the others: one that no
        other explains and that explains no other."""
        if change.late or self._urgency(change) != Priority.CRITICAL:
            return False
        row = self._rows.get(change.instance.alarm_key)
        if row is not None and any(map(is_automatic, row.suppressed_by)):
            return False  # its rule was edited meanwhile; what explained it is still taken back
        return self._relations.stands_alone(change.instance)

    def live_ahead(self, changes: Iterable[Change], now_ns: int) -> list[AlarmEvent]:
        """Changes before others that happened earlier. Nothing else is moved on in time by them, so
        in the end every row is what it would be in turn; only `gseq` tells the difference. To be
        given: all changes of an alarm there are, of alarms that are critical (`is_critical`)."""
        events: list[AlarmEvent] = []
        for change in changes:
            until_ns = min(change.time_ns, now_ns)
            key = change.instance.alarm_key
            while (due := self._timers.due_of(key, until_ns)) is not None:
                events.append(self._in_time(self._rows[key], due[1], due[0], now_ns))
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

    def last_words(self, instances: Sequence[RuleInstance]) -> NDArray[np.int64]:
        """The time of the newest verdict on each, NEVER for none."""
        found = np.full(len(instances), NEVER)
        for position, instance in enumerate(instances):
            row = self._rows.get(instance.alarm_key)
            if row is not None and row.judged_time_ns is not None:
                found[position] = row.judged_time_ns
        return found

    def expect_no_repeats(self, alarm_keys: Iterable[str]) -> None:
        """The rule core has taken the book's word on these: what it says next is new, at the
        instant of the last word too."""
        self._fresh.update(alarm_keys)

    def observe(self, batch: Batch, points: PointTable, now_ns: int) -> list[AlarmEvent]:
        """Move peaks of active alarms; escalate what was raised under a calibration now ended.

        A value still holding when calibration ends changes no level, so no condition would tell.
        """
        # A peak is no transition: no active alarm comes or goes while the parts are walked.
        return [
            event
            for key, part in self._watch.parts(batch, points)
            if (event := self._observe_one(key, part, now_ns)) is not None
        ]

    # --- from people and from time

    def command(self, command: Command, now_ns: int) -> CommandResult:
        """Do what a person asks, or say why not. Journal the events before answering."""
        row = self._rows.get(command.alarm_key)
        if row is not None and row.removed and not self._is_live(command.alarm_key):
            return CommandResult(Refusal.UNKNOWN_ALARM)
        if row is None:
            instance = self._instances.get(command.alarm_key)
            at = self._position.get(command.alarm_key)
            if instance is None or (at is not None and not self._live[at]):
                return CommandResult(Refusal.UNKNOWN_ALARM)  # never there, or its rule is gone
            row = new_row(instance)
        refusal = refusal_of(command, row, now_ns, shelf_max_ns=self._shelf_max_ns)
        if refusal is not None:
            return CommandResult(refusal, alarm=row)
        if command.action is Action.SHELVE_ONCE and command.until_ns is None:
            until_ns = now_ns + self._shelf_max_ns[urgency_of(row)]
            command = replace(command, until_ns=until_ns)
        transition = TRANSITION[command.action]
        changes = ASKED[command.action](row, command, now_ns)
        taken = _taken(row, transition, changes)
        if taken.outcome is Outcome.REJECT:
            assert taken.reason is not None
            return CommandResult(Refusal(taken.reason.value), alarm=row)
        if taken.outcome is Outcome.NOOP or _was_confirmed(row, transition):
            return CommandResult(alarm=row)
        told = Told(now_ns, now_ns, actor=command.actor, comment=with_permit(command))
        events = [self._advance(row, transition, told, taken=taken, changes=changes)]
        if command.action is Action.ENABLE:
            events.extend(self._raise_standing(command.alarm_key, now_ns))
        if self._relations.due_ns is not None:  # what it explained comes back with the same act
            events.extend(self._release(now_ns + 1, now_ns))
        return CommandResult(events=tuple(events), alarm=self._rows[command.alarm_key])

    def tick(self, now_ns: int) -> list[AlarmEvent]:
        """What time alone does up to `now_ns`: shelves run out, alarms ask again, others are
        told."""
        return self._tick(now_ns, now_ns)

    def _tick(self, until_ns: int, now_ns: int) -> list[AlarmEvent]:
        events: list[AlarmEvent] = []
        while due := self._timers.due(until_ns):
            due.sort(key=lambda item: (item[0], self._rows[item[1]].priority, item[1]))
            for due_ns, key, transition in due:
                events.append(self._in_time(self._rows[key], transition, due_ns, now_ns))
        return events

    def newest_judged_ns(self) -> int:
        """Event time of the newest verdict on any alarm; 0 for none."""
        return max((row.judged_time_ns or 0 for row in self._rows.values()), default=0)

    def forget_after(self, now_ns: int) -> None:
        """The clock was set back to `now_ns`: a verdict of later than that must not make those to
        come look like repeats of the past."""
        for row in list(self._rows.values()):
            if row.judged_time_ns is not None and row.judged_time_ns > now_ns:
                self._put(replace(row, judged_time_ns=now_ns, judged=row.judged[-1:]), now_ns)
        self.expect_repeats()

    # --- for screens and sinks

    def get(self, alarm_key: str) -> Alarm | None:
        return self._rows.get(alarm_key)

    def snapshot(self) -> list[Alarm]:
        """Every row, by key, those of removed rules too."""
        return [self._rows[key] for key in self._ranking.all_keys()]

    def standing(self) -> Sequence[Alarm]:
        """What a person can see and has not finished with: most urgent, then oldest first."""
        if self._standing is None:
            self._standing = [self._rows[key] for key in self._ranking.standing()]
        return self._standing

    def counts(self) -> dict[str, int]:
        """`standing`, `unacknowledged`, and rows by display state: the heartbeat's figures.
        Planned alarms are in none of them but `planned`."""
        return dict(self._ranking.counts())

    def shelvings(self, now_ns: int) -> int:
        """How often anything was shelved in the week before `now_ns`."""
        rows = (row for row in self._rows.values() if row.shelvings)
        return sum(len(shelvings_in_week(row, now_ns)) for row in rows)

    # --- one condition

    def in_turn(self, conditions: Conditions, instances: Sequence[RuleInstance]) -> list[Change]:
        """By time, then priority, then key; changes of one key at one time keep their order."""
        changes = changes_of(conditions, instances)
        urgency: dict[tuple[int, str], int] = {}
        for change in changes:
            at = (change.time_ns, change.instance.alarm_key)
            own = self._urgency(change)
            if own < urgency.get(at, 99):
                urgency[at] = own
        depth = self._relations.depth
        order = [
            (time_ns, urgency[time_ns, key], depth(key), key, position)
            for position, (time_ns, key) in enumerate(
                (change.time_ns, change.instance.alarm_key) for change in changes
            )
        ]
        order.sort()
        return [changes[place[-1]] for place in order]

    def _urgency(self, change: Change) -> int:
        if change.level != NORMAL:
            return change.instance.levels[change.level - 1].priority
        row = self._rows.get(change.instance.alarm_key)
        return change.instance.rule.priority if row is None else row.priority

    def _judge(self, change: Change, now_ns: int) -> list[AlarmEvent]:
        key = change.instance.alarm_key
        if self._instances.get(key) is not change.instance:
            self._learn(change.instance)
        row = self._rows.get(key) or new_row(change.instance)
        if change.late:
            return self._record_late(row, change, now_ns)
        name, in_force = change.name, row.judged[-1] if row.judged else ""
        if self._is_repeat(row, change) or name == in_force:
            if self._ends_calibration(row, change):
                return [self._meant(row, change, now_ns)]
            self.repeated_count += 1
            return []
        self._fresh.add(key)
        same_instant = row.judged if change.time_ns == row.judged_time_ns else ()
        judged: dict[str, Any] = {
            "judged_time_ns": change.time_ns,
            "judged": (*same_instant, name)[-JUDGED_KEPT:],
        }
        told = Told(change.time_ns, now_ns, change.value, change.limit, level=name)
        if not row.enabled:
            told = told._replace(comment="disabled")
            changes = judged | (described(row, change) if name else {})
            return [self._advance(row, Transition.HISTORICAL, told, changes=changes)]
        transition = transition_of(row, change)
        changes = self._lived(row, change, transition)
        changes.update(judged)
        if transition is Transition.ACTIVATED:
            if self._rejoins(row, change) and _is_chatter(row, change):
                told = told._replace(quiet=True)
            return self._activate(row, told, changes=changes, latching=latches(change))
        taken = step(flags_of(row), transition, latching=latches(change))
        assert taken.outcome is Outcome.OK, f"{key}: {transition} of {row}"
        events = []
        if transition is Transition.ESCALATED and row.suppressed_by:
            # A worse level is an alarm of its own: what explained the lower one does not hide it.
            events = self._lift(row, told)
            row = self._rows[key]
            taken = step(flags_of(row), transition, latching=latches(change))
        events.append(self._advance(row, transition, told, taken=taken, changes=changes))
        if transition is Transition.DEESCALATED and self._ends_calibration(row, change):
            events.append(self._meant(self._rows[key], change, now_ns))
        return events

    def _activate(
        self, row: Alarm, told: Told, *, changes: dict[str, Any], latching: bool
    ) -> list[AlarmEvent]:
        """Activate, explained by what stands already; then explain what this one explains."""
        key, events = row.alarm_key, list[AlarmEvent]()
        priority = changes.get("priority", row.priority)
        planned = changes.get("planned", row.planned)
        if not planned:
            changes["first_out"] = self._relations.firsts(key)
            explained = self._relations.sources(key, priority)
            if row.suppressed_by:  # of an earlier, less urgent episode
                events += self._lift(row, told, but=explained)
                row = self._rows.get(key, row)
            sources = [source for source in explained if source not in row.suppressed_by]
            if sources:
                events.append(self._explain(row, sources, told))
                row = self._rows[key]
        taken = step(flags_of(row), Transition.ACTIVATED, latching=latching)
        assert taken.outcome is Outcome.OK, f"{key}: activation of {row}"
        events.append(self._advance(row, Transition.ACTIVATED, told, taken=taken, changes=changes))
        for child in self._relations.explains(key):
            below, source = self._rows[child], PARENT + key
            if source not in below.suppressed_by:
                events.append(self._explain(below, [source], told))
        return events

    def _explain(self, row: Alarm, sources: Sequence[str], told: Told) -> AlarmEvent:
        """Suppressed by what stands already, or by the link that has just died."""
        told = Told(told.time_ns, told.now_ns, level=row.level, comment=", ".join(sources))
        changes: dict[str, Any] = {"suppressed_by": tuple(sorted({*row.suppressed_by, *sources}))}
        if not flags_of(row).hidden:
            changes["hidden_note"] = told.comment
        taken = _taken(row, Transition.SUPPRESSED, changes)
        return self._advance(row, Transition.SUPPRESSED, told, taken=taken, changes=changes)

    def _lift(self, row: Alarm, told: Told, *, but: Sequence[str] = ()) -> list[AlarmEvent]:
        """Take the gateway's own suppressions away, unheard: what follows is heard."""
        sources = [each for each in row.suppressed_by if is_automatic(each) and each not in but]
        quiet = Told(told.time_ns, told.now_ns, level=row.level, comment="worse", quiet=True)
        return [self._let_go(row.alarm_key, source, quiet) for source in sources]

    def _let_go(self, key: str, source: str, told: Told) -> AlarmEvent:
        row = self._rows[key]
        changes = {"suppressed_by": tuple(s for s in row.suppressed_by if s != source)}
        taken = _taken(row, Transition.UNSUPPRESSED, changes)
        return self._advance(row, Transition.UNSUPPRESSED, told, taken=taken, changes=changes)

    def _release(self, before_ns: int, now_ns: int) -> list[AlarmEvent]:
        """Take back explanations whose time is over before `before_ns`."""
        events = []
        for due_ns, source, keys in self._relations.due(before_ns):
            ordered = sorted(keys, key=lambda key: (self._rows[key].priority, key))
            for key in ordered:
                told = Told(due_ns, now_ns, level=self._rows[key].level, comment=source)
                events.append(self._let_go(key, source, told))
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
            for name in ("condition_time_ns", "active_time_ns"):
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
            changes["occ_no"] = row.occ_no + 1
            changes["reactivation_count"] = changes["realarm_count"] = 0
            changes["initial_value"] = change.value
        changes.update(_BEGUN)
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

    def _observe_one(self, key: str, part: Part, now_ns: int) -> AlarmEvent | None:
        row, instance = self._rows[key], self._instances.get(key)
        if instance is None or not instance.measures:
            return None  # a slope or a count is no sample of the point
        first = meant_from(row, part) if row.planned else None
        if first is not None:
            told = Told(part.time_ns[first], now_ns, part.value[first], row.limit)
            return self._call_for(row, told, part.quality[first])
        peak = self._watch.peak_of(row, part)
        if peak is not None:
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

    # --- time, rules and enabling

    def _in_time(self, row: Alarm, transition: Transition, due_ns: int, now_ns: int) -> AlarmEvent:
        told = Told(due_ns, now_ns, level=row.level)
        changes: dict[str, Any] = {}
        if transition is Transition.REALARMED:
            changes["realarm_count"] = row.realarm_count + 1
        elif transition is Transition.OVERDUE:
            at = row.overdue_step + 1
            changes["overdue_step"] = at
            told = told._replace(step=at, recipients=self._timers.step(row).recipients)
        return self._advance(row, transition, told, changes=changes)

    def _is_live(self, key: str) -> bool:
        at = self._position.get(key)
        return at is not None and bool(self._live[at])

    def _remove(self, row: Alarm, now_ns: int) -> AlarmEvent:
        told = Told(now_ns, now_ns, level=row.level, comment="rule removed")
        flags = flags_of(row)
        taken = Step(step(flags, Transition.REMOVED).flags, Outcome.OK)
        # Whoever judges it again does so by a rule that matches again: nothing is a repeat.
        forgotten = {"judged_time_ns": None, "judged": ()}
        changes = {"removed": True, "suppressed_by": (), "first_out": (), **forgotten}
        return self._advance(row, Transition.REMOVED, told, taken=taken, changes=changes)

    def _bring_back(
        self, row: Alarm, instance: RuleInstance, code: int, now_ns: int
    ) -> list[AlarmEvent]:
        """A rule matches again, and has held all along what it will not say again."""
        change = Change(instance, code, now_ns, now_ns, None, None, 0, late=False)
        changes = self._lived(row, change, Transition.ACTIVATED) | {"judged": (change.name,)}
        told = Told(now_ns, now_ns, level=change.name, comment="rule matches again")
        return self._activate(row, told, changes=changes, latching=latches(change))

    def _was_edited(self, row: Alarm) -> bool:
        instance = self._instances[row.alarm_key]
        if not row.rule_digest:  # recorded before there were digests
            return row.rule_version != instance.rule.version
        return row.rule_digest != digest_of(instance)

    def _learn(self, instance: RuleInstance) -> None:
        key = instance.alarm_key
        self._instances[key] = instance
        self._relations.learn(instance, self._rows.get(key))

    def _raise_standing(self, key: str, now_ns: int) -> list[AlarmEvent]:
        """After enabling: the condition that held, or began, while the alarm was disabled."""
        row = self._rows[key]
        if not row.judged or not row.judged[-1]:
            return []
        instance = self._instances.get(key)
        latching = instance is not None and instance.rule.latching
        told = Told(now_ns, now_ns, row.value, row.limit, level=row.judged[-1], comment="enabled")
        changes = {
            "occ_no": row.occ_no + 1,
            "reactivation_count": 0,
            "realarm_count": 0,
            "initial_value": row.value,
            "peak": row.value,
            "active_time_ns": row.judged_time_ns,
            "return_time_ns": None,
            "acknowledged_time_ns": None,
            "acknowledged_by": "",
        }
        return self._activate(row, told, changes=changes, latching=latching)

    # --- every event goes through here

    def _advance(
        self,
        row: Alarm,
        transition: Transition,
        told: Told,
        *,
        taken: Step | None = None,
        changes: dict[str, Any] | None = None,
    ) -> AlarmEvent:
        """Number the transition, write the row, say whether it is to be heard. `changes` is taken
        over and filled."""
        before = flags_of(row)
        after = (
            before
            if transition is Transition.HISTORICAL
            else (taken or step(before, transition)).flags
        )
        seq = row.seq + 1
        self.gseq += 1
        changed = {} if changes is None else changes
        changed["active"] = after.active
        changed["acknowledged"] = after.acknowledged
        changed["latched"] = after.latched
        changed["shelved"] = after.shelved
        changed["out_of_service"] = after.out_of_service
        changed["enabled"] = after.enabled
        changed["open"] = after.open
        changed["shown"] = after.shown
        changed["state"] = display(after)
        changed["seq"] = seq
        changed["epoch"] = self.epoch
        changed["gseq"] = self.gseq
        if row.removed and "removed" not in changed:
            changed["removed"] = False
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
        if before.acknowledged and not after.acknowledged:
            changed |= _UNANSWERED
        _count_waiting(row, changed, told)
        alarm = with_changes(row, changed)
        self._put(alarm, told.time_ns)
        comment = told.comment
        if not comment and after.acknowledged and not before.acknowledged and not told.actor:
            comment = "came and went unseen"
        return event_of(
            transition,
            alarm,
            told,
            from_state=row.state,
            annunciate=not told.quiet and annunciates(transition, row, alarm),
            comment=comment,
        )

    def _put(self, alarm: Alarm, time_ns: int) -> None:
        key = alarm.alarm_key
        before = self._rows.get(key)
        self._rows[key] = alarm
        self._standing = None
        self._ranking.put(before, alarm)
        self._timers.put(alarm)
        if self._relations.is_used or alarm.suppressed_by or (before and before.suppressed_by):
            self._relations.put(before, alarm, time_ns)
        self._watch.put(alarm)


_BEGUN: Mapping[str, Any] = {
    "return_time_ns": None,
    "acknowledged_time_ns": None,
    "acknowledged_by": "",
}
"""Of an episode that has just begun."""
_UNANSWERED: Mapping[str, Any] = {
    "acknowledged_by": "",
    "acknowledged_time_ns": None,
    "confirmed_by": "",
    "confirmed_time_ns": None,
}
"""An alarm that asks anew: who answered before stands in the journal."""


def _count_waiting(row: Alarm, changed: dict[str, Any], told: Told) -> None:
    """Since when the alarm waits in sight for a person, and how far that was escalated."""
    waits = changed["state"] in WAITING and not changed.get("planned", row.planned)
    if not waits:
        if row.attention_time_ns is not None:
            changed["attention_time_ns"] = None
            changed["overdue_step"] = 0
    elif row.attention_time_ns is None:
        changed["attention_time_ns"] = max(told.time_ns, told.now_ns)
        changed["overdue_step"] = 0
    elif changed.get("priority", row.priority) < row.priority:
        changed["overdue_step"] = 0  # others are to be told of what is more urgent


def _was_confirmed(row: Alarm, transition: Transition) -> bool:
    return transition is Transition.CONFIRMED and bool(row.confirmed_by)


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
