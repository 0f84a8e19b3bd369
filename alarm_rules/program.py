"""One evaluator with its state: set and reset become changes of level at exact times.

    Signals ─one step per time─▶ edges ─▶ runs ─delays─▶ turns of a level ─▶ most severe level

Per (instance, level) the state is one open **run**: the raw condition, since when, the value and
quality that began it, and the output after delays. That is all a restart needs to go on with a
half-elapsed delay. Only levels with an edge or with a delay that ends now are looked at: a **key**
is such a level, `level * instances + instance`, its place in the state's arrays read as one row.

Order at one time: what a delay or a clock found comes before what a sample of that time says, as a
tick between the two would have had it. A delay that ends exactly when the condition does has
elapsed: the alarm comes and goes, both at that time.

**A clock of its own.** Of a point that is behind (behind.py) no more is known than its newest
sample and what has passed since that came in. Its delays end by that clock.

**Time never runs back for an instance.** A sample that is newer than its point's last one but older
than what its instance already said (another input was faster, or a timer fired) counts from the
time of the last word on.

A condition that began under calibration and goes on with real values says so again: a change row
with the same level and the new quality, so that the book stops calling it planned.

Rows of a call are taken in by the cheapest way there is: few one by one (few.py), a tick by element
(dense.py), most of a range level by level (broad.py), a backlog by what happens in it (backlog.py),
and whatever else in order (steps.py, runs.py). All of them tell the same.

Not here: which rows matter (kinds/), edges (steps.py), delays in order (runs.py), how levels become
one (turns.py), lateness and order (ruleset.py).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.backlog import Backlog
from alarm_rules.behind import Behind, Lag
from alarm_rules.broad import PIECE, tick_range
from alarm_rules.dense import Tick, is_dense, tick
from alarm_rules.few import Cells, Row, TickOfFew, rows_of
from alarm_rules.runs import RunTable
from alarm_rules.steps import PLANNED, Edges, Steps, edges_of, merged, steps_of, taken
from alarm_rules.turns import Changes, bits_of, chained, changes_of, most_severe
from alarm_rules.waiting import Waiting
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Banded,
    Columns,
    Derived,
    Feed,
    Layout,
    PointTimes,
    Rows,
    RuleKind,
    Signals,
)
from gateway.contract.rule_kind import Tick as KnownOfRows

__all__ = ["Changes", "Program"]


_PIECE = 1 << 14
"""Signals told at once. Fresh arrays of megabytes cost more than what is written into them: every
page of them is given by the system anew."""


_FEW = 1 << 8
"""Instances that cost less than the calls that look at them."""

ONE_BY_ONE_MAX = 64
"""Instances that speak, and delays that end: of both together 40 are a seventh quicker in plain
numbers, 80 as quick, 120 a seventh slower than by numpy (measured)."""


class Program:
    """All rules of one kind in one layer."""

    def __init__(self, kind: RuleKind, layer: int, level_count: int) -> None:
        self.kind = kind
        self.layer = layer
        self.width = max(level_count, 1)
        self.evaluator = kind.build(self.width)
        self._has_stands = hasattr(self.evaluator, "stands")
        self._has_passes = hasattr(self.evaluator, "passes")
        wide = self.width
        self.state = Columns(
            settings={
                "on_ns": (np.int64, 0, wide),
                "off_ns": (np.int64, 0, wide),
                "limit": (np.float64, np.nan, wide),
                "reset": (np.float64, np.nan, wide),
                "position": (np.int32, -1),  # in RuleSet.instances
                "due_ns": (np.int64, FOREVER, wide),  # when the open run takes effect, if it has
                # not; follows from the rest (`settle_all`)
            },
            saved={
                "condition": (np.bool_, False, wide),
                "output": (np.bool_, False, wide),
                "planned": (np.bool_, False, wide),  # the output stands on calibration values
                "since_ns": (np.int64, 0, wide),
                "cause": (np.float64, np.nan, wide),
                "quality": (np.uint8, 0, wide),
                "behind_ns": (np.int64, 0, wide),  # of an instance that was when its open run
                # began, which waits: no longer than so much it waits for samples
                "set_at": (np.bool_, False, wide),  # set at step_ns
                "step_ns": (np.int64, NEVER),  # time of the last sample that set something
                "floor_ns": (np.int64, NEVER),  # time of the last word
            },
            by_column=True,
        )
        none = np.empty(0, np.int64)
        self.layout = Layout(
            slot_group=none,
            slot_point=none,
            slot_input=none,
            slot_live=np.empty(0, np.bool_),
            group_instance=none,
            group_slots=none,
            group_start=np.zeros(1, np.int64),
            point_slots=none,
            point_start=np.zeros(1, np.int64),
            instance_group=none,
            instance_live=np.empty(0, np.bool_),
        )
        self.due_ns = FOREVER
        self._waiting = Waiting()
        self._cells = Cells(self.state)
        self._has_few = False  # the evaluator can be asked one by one
        self._plain: tuple[Rows, NDArray[np.int64] | None] | None = None  # chosen (None: all of
        # them), not asked yet
        self._signals: list[Signals] = []
        self._early: list[Changes] = []  # found before `finish`
        self._instance_of: NDArray[np.int64] | None = None  # by point, -1 for none; of a `Banded`
        self.is_dense_allowed = True  # a test tells its ticks with and without
        self._lag = Lag(self.state, self.layout)
        self._is_planned = False  # calibration plays a part in some open run or output
        self._only_slot: NDArray[np.int64] | None = None  # by point, if none has two here
        self._is_straight = False  # points, slots, groups and instances have the same numbers

    # ------------------------------------------------------------------ samples in

    def judge(self, rows: Rows | Backlog, times: PointTimes, now_ns: int) -> Derived | None:
        """Let the rows speak; what they said is kept until `finish`."""
        if isinstance(rows, Backlog):
            if self._judge_backlog(rows, now_ns):
                return None
            rows = rows.rows
        if self._is_nothing_to(rows):
            return None
        selected = self.evaluator.select(rows)
        count = np.count_nonzero(selected)
        if count == 0:
            return None
        is_most = self._has_stands and 2 * count > len(rows) > _FEW  # then all: what the band lets
        # pass says nothing anyway
        if rows.tick is not None and self._is_plain(rows.tick):
            self._plain = rows, None if is_most else selected.nonzero()[0]
            return None
        if is_most and rows.span is not None:
            chosen = rows.point - rows.span.start
        else:
            chosen = selected.nonzero()[0]
        feed = self._feed(rows, chosen)
        if len(feed) == 0:
            return None
        verdict = self.evaluator.judge(feed, times, now_ns)
        if verdict.signals is not None and len(verdict.signals):
            self._signals.append(verdict.signals)
        return verdict.derived

    def _is_nothing_to(self, rows: Rows) -> bool:
        if len(rows.point) == 0 or len(self.layout.slot_point) == 0:
            return True
        evaluator: Any = self.evaluator
        return self._has_passes and rows.tick is not None and evaluator.passes(rows.tick)

    def _is_plain(self, rows: KnownOfRows) -> bool:
        """Whether samples say what they say by themselves: nothing need be looked up."""
        is_banded = self._is_straight and self._instance_of is not None
        return is_banded and rows.is_later and rows.is_usable

    def _signals_at(self, rows: Rows, chosen: NDArray[np.int64]) -> Signals:
        """What usable samples say, each later than the last of its point, of a `Banded`."""
        evaluator: Any = self.evaluator
        instance, value = rows.point.take(chosen), rows.value.take(chosen)
        time_ns = rows.time_ns.take(chosen)
        sets, resets = evaluator.said(instance, value)
        evaluator.note(instance, time_ns)
        return Signals(instance, time_ns, sets, resets, value, rows.quality.take(chosen))

    def _judge_backlog(self, backlog: Backlog, now_ns: int) -> bool:
        """Judge it at once, if that can be done; false: nothing was done."""
        evaluator: Any = self.evaluator
        if self._has_passes and evaluator.passes(backlog.tick):
            return True
        if self._instance_of is None or not self._is_simple:
            return False
        instance = self._instance_of.take(backlog.points)
        if not self._lag.is_of_none(instance):
            return False
        common = evaluator.common_band(backlog.points)
        if common is None:
            run, row = backlog.firsts(*evaluator.bands(backlog.points))
        else:
            low, high, others = common
            bands = evaluator.bands(backlog.points.take(others))
            run, row = backlog.firsts_of_common(low, high, others, bands)
        if len(run) and instance[run].min() < 0:  # none is judged here, and infinity is beyond
            judged = instance[run] >= 0
            run, row = run[judged], row[judged]
        first_ns, floor_ns = backlog.time_ns[backlog.head[run]], self.state["floor_ns"]
        if (first_ns <= floor_ns[instance[run]]).any():
            return False
        if 2 * len(run) > len(self.state):
            self._tell_columns(backlog, instance)
        elif len(run):
            self._tell_rounds(backlog, instance, (run, row), now_ns)
        return True

    def _tell_rounds(
        self,
        backlog: Backlog,
        instance: NDArray[np.int64],
        firsts: tuple[NDArray[np.int64], NDArray[np.int64]],
        now_ns: int,
    ) -> None:
        """Of each run the rows that move its band, a tick for the first ones, the second, …."""
        evaluator: Any = self.evaluator
        run, row = firsts
        last = np.full(len(backlog.points), -1)  # the row that was told last, of each run
        while len(run):
            last[run] = row
            self._tell_rows(backlog, instance[run], row)
            run, row = backlog.nexts(run, row, *evaluator.bands(backlog.points[run]))
        ahead = backlog.stop - 1  # what is due up to there is known to be
        run = ((last >= 0) & (last < ahead)).nonzero()[0]
        run = run[backlog.time_ns[ahead[run]] > now_ns]
        if len(run):
            self._tell_rows(backlog, instance[run], ahead[run])

    def _tell_rows(
        self, backlog: Backlog, instance: NDArray[np.int64], row: NDArray[np.int64]
    ) -> None:
        evaluator: Any = self.evaluator
        order = instance.argsort(kind="stable")
        instance, row = instance[order], row[order]
        signals = self._signals_of(backlog, instance, row)
        evaluator.note(instance, signals.time_ns)
        changes = self._tick(signals, NEVER, swept=False)
        if changes is not None:
            self._early.append(changes)

    def _signals_of(
        self, backlog: Backlog, instance: NDArray[np.int64], row: NDArray[np.int64]
    ) -> Signals:
        evaluator: Any = self.evaluator
        batch, value = backlog.batch, backlog.batch.value[row]
        sets, resets = evaluator.said(instance, value)
        quality = batch.quality[row]
        return Signals(instance, backlog.time_ns[row], sets, resets, value, quality)

    def _tell_columns(self, backlog: Backlog, instance: NDArray[np.int64]) -> None:
        """Every row of every run that is judged here: the first of each as one tick, and so on; by
        pieces of instances that a cache holds."""
        evaluator: Any = self.evaluator
        order = seg.sort_stable(instance + 1, len(self.state) + 1)
        order = order[np.count_nonzero(instance < 0) :]
        last_ns = backlog.time_ns[backlog.stop - 1]
        for first in range(0, len(order), PIECE):
            run = order[first : first + PIECE]
            piece = instance[run]
            rows = seg.as_slice(piece)
            for column in backlog.columns(run):
                is_range = column.has is None and isinstance(rows, slice)
                told = piece if column.has is None else piece[column.has]
                sets, resets = evaluator.said(rows if is_range else told, column.value)
                signals = Signals(told, column.time_ns, sets, resets, column.value, column.quality)
                self._tell_column(signals, rows if is_range else None)
            if backlog.each:  # every column is of all of them
                self._keep_said(signals)
            evaluator.note(piece, signals.time_ns if backlog.each else last_ns[run])
            self._tell(piece)

    def _tell_column(self, signals: Signals, rows: NDArray[np.int64] | slice | None) -> None:
        """As `_tick`, without a clock; the evaluator is told by who asks. `rows`: a range."""
        if isinstance(rows, slice):
            found = tick_range(self.state, signals, rows, NEVER, due_ns=self.due_ns)
            self.due_ns = min(self.due_ns, found.due_ns)
            self._waiting.forget()
        else:
            self._keep_said(signals)
            found = tick(self.state, signals, NEVER, late=None)
            self._wait(found.begun, found.due_ns)
        if found.changes is not None:
            self._early.append(found.changes)

    def _feed(self, rows: Rows, chosen: NDArray[np.int64]) -> Feed:
        """The chosen rows once for each of their slots, in order of (group, time)."""
        layout, point = self.layout, rows.point
        row: NDArray[np.int64] | slice = chosen
        if len(chosen) == len(rows):
            row = slice(None)
        else:
            point = point.take(chosen)
        if self._is_straight:
            slot = point
        elif self._only_slot is not None:
            slot = self._only_slot.take(point)
            if slot.min() < 0:
                inside = np.flatnonzero(slot >= 0)
                row, slot = chosen[inside], slot[inside]
        else:
            owner, slot = seg.gather_lists(layout.point_start, layout.point_slots, point)
            row = chosen[owner]
        group = slot if self._is_straight else layout.slot_group.take(slot)
        if not seg.is_ascending(group, strictly=True):
            order = seg.group_sort(group, rows.time_ns[row], len(layout.group_start))
            group, slot = group.take(order), slot.take(order)
            row = order if isinstance(row, slice) else row.take(order)
        names = ("value", "quality", "time_ns", "received_ns", "usable")
        columns: Any = (getattr(rows, name) for name in names)
        if not isinstance(row, slice):
            columns = (column.take(row) for column in columns)
        is_later = rows.tick is not None and rows.tick.is_later
        found: Any = (group, slot, *columns, is_later)
        return Feed(*found)

    @property
    def _is_simple(self) -> bool:
        """Whether rows that need no order may be taken in without one, but for those of who is
        behind."""
        return self.is_dense_allowed and not self._is_planned and not self._lag.is_waited_for

    # ------------------------------------------------------------------ changes out

    def finish(self, times: PointTimes, now_ns: int) -> Changes | None:
        """Fire what is due up to `now_ns` and return every change since the last call."""
        if self.evaluator.due_ns <= now_ns:
            timed = self.evaluator.timers(now_ns, times)
            if timed is not None and len(timed):
                self._signals.append(timed)
        swept = self.due_ns <= now_ns
        plain, self._plain = self._plain, None
        if plain is not None:
            told = self._tell_plain(*plain, now_ns, swept=swept)
            if not isinstance(told, Signals):
                return told
            self._signals.append(told)
        if not self._signals and not self._early:
            if not swept:
                return None
            if self._is_simple:
                return self._tick_of_few([], now_ns, swept=True)
        parts, self._signals = self._signals, []
        early, self._early = self._early, []
        if not parts and not swept:
            return chained(early)
        signals = merged(parts, self.width)
        if np.count_nonzero(signals.quality) and (signals.quality == PLANNED).any():
            self._is_planned = True
        is_simple = self._is_simple and self._lag.is_of_none(signals.instance)
        if is_simple and is_dense(signals, self.state):
            changes = self._tick(signals, now_ns, swept=swept)
            return chained([*early, changes] if changes is not None else early)
        changes = self._in_order(signals, now_ns, swept=swept)
        self._waiting.forget()
        if swept:
            self._find_due()
        return chained([*early, changes] if changes is not None else early)

    def _tick(self, signals: Signals, now_ns: int, *, swept: bool) -> Changes | None:
        """Every instance said one thing at most."""
        state = self.state
        self._keep_said(signals)
        if 2 * len(signals) > len(state) > _FEW:
            rows = seg.as_slice(signals.instance)
            if isinstance(rows, slice):
                return self._tick_range(signals, rows, now_ns, swept=swept)
        late = self._overdue(now_ns) if swept else None
        ended = 0 if late is None else len(late)
        if 2 * (len(signals) + ended) <= ONE_BY_ONE_MAX:  # they stand in arrays already
            return self._take_few(rows_of(signals), None if late is None else late.tolist(), now_ns)
        return self._took(signals, tick(state, signals, now_ns, late=late))

    def _tell_plain(
        self, rows: Rows, chosen: NDArray[np.int64] | None, now_ns: int, *, swept: bool
    ) -> Signals | Changes | None:
        """Take in what the chosen rows say, if they are a tick by themselves; else what that is."""
        is_alone = not (self._signals or self._early)
        is_alone = is_alone and self._is_simple
        if self._lag.is_any:
            point = rows.point if chosen is None else rows.point.take(chosen)
            is_alone = is_alone and self._lag.is_of_none(point)
        if chosen is not None:
            count = len(chosen) + self._waiting.count(now_ns)
            if is_alone and self._has_few and count <= ONE_BY_ONE_MAX:
                few = self._few_at(rows, chosen.tolist())
                if few is not None:
                    return self._tick_of_few(few, now_ns, swept=swept)
            return self._signals_at(rows, chosen)
        span, evaluator = rows.span, cast("Banded", self.evaluator)
        assert span is not None, "all of a range"
        sets, resets = evaluator.said(span, rows.value)
        evaluator.note(span, rows.time_ns)
        signals = Signals(rows.point, rows.time_ns, sets, resets, rows.value, rows.quality)
        is_alone = is_alone and not (rows.quality == PLANNED).any()
        if not is_alone or not (rows.time_ns > self.state["floor_ns"][span]).all():
            return signals
        self._keep_said(signals, span)
        return self._tick_range(signals, span, now_ns, swept=swept)

    def _few_at(self, rows: Rows, chosen: list[int]) -> list[Row] | None:
        """What a few usable samples say, as `_signals_at`; None: in another way."""
        evaluator: Any = self.evaluator
        instance = [*map(rows.point.item, chosen)]
        time_ns, quality = [*map(rows.time_ns.item, chosen)], [*map(rows.quality.item, chosen)]
        if PLANNED in quality or not self._cells.is_after(instance, time_ns):
            return None
        evaluator.note_few(instance, time_ns)
        value = [*map(rows.value.item, chosen)]
        said = evaluator.said_of_few(instance, value)
        return [*zip(instance, time_ns, value, quality, said, strict=True)]

    def _tick_of_few(self, few: list[Row], now_ns: int, *, swept: bool) -> Changes | None:
        if not self.evaluator.latest_wins:
            self._cells.keep_said(few)
        if not swept:
            return self._take_few(few, None, now_ns)
        late, changes = self._overdue_few(now_ns), None
        if len(late) > ONE_BY_ONE_MAX:  # of those who say nothing
            key = np.asarray(late)
            is_said = np.isin(key % len(self.state), [row[0] for row in few])
            none = merged([], self.width)
            found = tick(self.state, none, now_ns, late=key[~is_said])
            changes, late = self._took(none, found), key[is_said].tolist()
        told = self._take_few(few, late, now_ns)
        return chained([part for part in (changes, told) if part is not None])

    def _take_few(self, few: list[Row], late: list[int] | None, now_ns: int) -> Changes | None:
        """Take them in, level by level in plain numbers."""
        evaluator: Any = self.evaluator
        found = TickOfFew(self._cells, now_ns)
        changes = found.take(few, late)
        if found.waits:
            self.due_ns = min(self.due_ns, min(found.waits)[0])
            self._waiting.push(found.waits)
        size = len(self.state)
        if self._has_few:
            evaluator.stands_of_few(found.stands)
            return changes
        told = {instance for instance, _ in found.stands}
        if not self._has_stands:
            told.update(row[0] for row in few)
            told.update(key % size for key in found.lasted)
        if told:
            self._tell(np.array(sorted(told), np.int64))
        return changes

    def _took(self, signals: Signals, found: Tick) -> Changes | None:
        """What follows from a tick beside its changes."""
        self._wait(found.begun, found.due_ns)
        self._tell_of_tick(signals.instance, found)
        return found.changes

    def _keep_said(self, signals: Signals, rows: slice | None = None) -> None:
        """To know a repeat of its time by. `rows`: the instances, where they are a range."""
        if not self.evaluator.latest_wins and len(signals):
            of: NDArray[np.int64] | slice = signals.instance if rows is None else rows
            if rows is None and len(signals) > _FEW:
                of = seg.as_slice(signals.instance)
            self.state["set_at"][of] = signals.set
            self.state["step_ns"][of] = signals.time_ns

    def _tick_range(
        self, signals: Signals, instances: slice, now_ns: int, *, swept: bool
    ) -> Changes | None:
        """Most of them, and they stand side by side."""
        state, changes, due_ns = self.state, [], self.due_ns
        is_every = len(signals) == len(state)
        if swept and not is_every:  # those that say nothing
            late = self._overdue(now_ns)
            instance = late % len(state)
            late = late[(instance < instances.start) | (instance >= instances.stop)]
            silent = tick(state, taken(signals, slice(0)), now_ns, late=late)
            self._tell_of_tick(signals.instance[:0], silent)
            changes = [] if silent.changes is None else [silent.changes]
        found = tick_range(state, signals, instances, now_ns, due_ns=due_ns)
        self.due_ns = found.due_ns if swept and is_every else min(self.due_ns, found.due_ns)
        self._waiting.forget()
        self._tell(signals.instance)
        if found.changes is not None:
            changes.append(found.changes)
        return chained(changes)

    def _tell_of_tick(self, instance: NDArray[np.int64], found: Tick) -> None:
        """How levels stand follows from the runs that began, who is busy from all of it."""
        if self._has_stands:
            instance = self._instances_of(found.begun)
        elif len(found.lasted):
            instance = np.union1d(instance, found.lasted % len(self.state))
        if len(instance):
            self._tell(instance)

    def _instances_of(self, key: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ascending, none twice; of keys that ascend."""
        if self.width == 1 or len(key) < 2:
            return key % len(self.state)
        instance = key % len(self.state)
        instance.sort()
        return instance[seg.heads(instance)]

    def _wait(self, key: NDArray[np.int64], due_ns: int) -> None:
        """These runs began; the first of those that wait takes effect at `due_ns`."""
        if due_ns < FOREVER:
            self.due_ns = min(self.due_ns, due_ns)
            self._waiting.add(key, self._of("due_ns", key), due_ns)

    def _overdue(self, now_ns: int) -> NDArray[np.int64]:
        """Keys whose delay ends by now; `due_ns` becomes that of the others."""
        late = self._waiting.overdue(self._column("due_ns"), now_ns)
        self.due_ns = self._waiting.due_ns
        return late

    def _overdue_few(self, now_ns: int) -> list[int]:
        """The same; mostly they are few and known one by one."""
        late = self._waiting.soon(self._cells.due_ns, now_ns)
        if late is None:
            found: list[int] = self._overdue(now_ns).tolist()
            return found
        self.due_ns = self._waiting.due_ns
        return late

    def _in_order(self, signals: Signals, now_ns: int, *, swept: bool) -> Changes | None:
        """Whatever was said, as often as it was said; by pieces that a cache holds, each a range of
        instances."""
        instance, every, behind_ns = signals.instance, len(self.state), self._lag.by_instance()
        runs = RunTable(self.state, planned=self._is_planned, behind_ns=behind_ns)
        begins = np.unique(np.append(0, instance[_PIECE::_PIECE]))
        rows = np.append(np.searchsorted(instance, begins), len(instance))
        found = []
        for n, end in enumerate([*begins[1:].tolist(), every]):
            piece = signals
            if len(begins) > 1:
                piece = taken(signals, slice(rows[n], rows[n + 1]))
            steps = steps_of(piece, self.state, latest_wins=self.evaluator.latest_wins)
            edges = edges_of(steps, self.state, planned=self._is_planned)
            due = self._due(runs, steps, now_ns, slice(int(begins[n]), end) if swept else None)
            found.append(self._apply(runs, steps, edges, due, now_ns))
        if behind_ns is not None:
            self._lag.look()
        return chained([changes for changes in found if changes is not None])

    def _due(
        self, runs: RunTable, steps: Steps, now_ns: int, swept: slice | None
    ) -> NDArray[np.int64]:
        """Keys, of the instances `swept`, whose delay ends by now, or of any by a sample of their
        instance that is ahead of now."""
        found: list[NDArray[np.int64]] = []
        if swept is not None:
            found.append(runs.due(now_ns, swept))
        newest_ns = steps.time_ns[steps.newest]
        is_ahead = newest_ns > runs.clock(now_ns, steps.instance[steps.newest])
        if np.count_nonzero(is_ahead):
            ahead = np.flatnonzero(is_ahead)
            instance = steps.instance[steps.newest][ahead]
            late = seg.picked(self.state["due_ns"], instance) <= newest_ns[ahead][:, None]
            owner, level = np.nonzero(late)
            found.append(level * len(self.state) + instance[owner])
        if not found:
            return np.empty(0, np.int64)
        return found[0] if len(found) == 1 else np.union1d(found[0], found[1])

    def _find_due(self) -> None:
        """The next deadline, and whether calibration still plays a part, over all instances."""
        state = self.state
        if self._is_planned:
            self._is_planned = bool(
                state["planned"].any() or (state["condition"] & (state["quality"] == PLANNED)).any()
            )
        self.due_ns = int(state["due_ns"].min(initial=FOREVER))

    def _set_due(self) -> None:
        """Which levels have an open run that has not taken effect yet, as a change, or as real
        after planned; and when it does."""
        state = self.state
        condition = state["condition"]
        waiting = condition != state["output"]
        waiting |= condition & state["planned"] & (state["quality"] != PLANNED)
        delay_ns = np.where(condition, state["on_ns"], state["off_ns"])
        state["due_ns"][:] = np.where(waiting, state["since_ns"] + delay_ns, FOREVER)
        state["behind_ns"][~waiting] = 0
        self._lag.look()

    def _column(self, name: str) -> NDArray[Any]:
        """A column of the state by key: a view, to write into."""
        return seg.flat(self.state[name])

    def _of(self, name: str, key: NDArray[np.int64]) -> NDArray[Any]:
        found: NDArray[Any] = self._column(name).take(key)
        return found

    # ------------------------------------------------------------------ runs

    def _apply(
        self, runs: RunTable, steps: Steps, edges: Edges, due: NDArray[np.int64], now_ns: int
    ) -> Changes | None:
        """Runs last or not, end and begin; what follows is kept and told."""
        first = seg.heads(edges.key)
        head = np.flatnonzero(first)
        opened, known_to_ns = runs.opened(steps, edges, due, head, now_ns)
        begun = runs.begun(steps, edges, first, opened, known_to_ns[: len(head)])
        turns = runs.turns(steps, edges, opened, begun)
        changes = changes_of(turns, self.state) if len(turns) else None
        last = np.append(head[1:], len(first))[: len(head)] - 1
        self.due_ns = min(self.due_ns, runs.keep(steps, edges, opened, begun, last))
        if not self.evaluator.latest_wins:
            runs.keep_steps(steps)
        said = turns.changed
        np.maximum.at(self.state["floor_ns"], turns.instance[said], turns.time_ns[said])
        instance = steps.instance[steps.newest]
        if len(head) < len(opened.key):
            instance = np.union1d(instance, opened.instance[len(head) :])
        if len(instance):
            self._tell(instance)
        return changes

    # ------------------------------------------------------------------ for the rule set

    def settle_all(self) -> None:
        """Tell the evaluator about every instance: after a refresh or a load."""
        self._waiting.forget()
        self._cells = Cells(self.state)
        layout = self.layout
        self._only_slot = seg.only_members(layout.point_start, layout.point_slots)
        self._instance_of = None
        if hasattr(self.evaluator, "bands") and self._only_slot is not None:
            instance = layout.group_instance[layout.slot_group]
            self._instance_of = np.append(instance, -1)[self._only_slot]
        self._is_straight = self._only_slot is not None and all(
            seg.is_numbering(column)
            for column in (self._only_slot, layout.slot_group, layout.group_instance)
        )
        evaluator: Any = self.evaluator
        self._has_few = hasattr(evaluator, "judges_few") and evaluator.judges_few
        self._set_due()
        self._is_planned = True  # unless it shows that it does not
        self._find_due()
        self._tell(np.arange(len(self.state)))

    def fall_behind(
        self,
        points: NDArray[np.int64],
        behind: Behind,
        heard_ns: NDArray[np.int64],
        *,
        anew: bool = False,
    ) -> None:
        """Of these points something changed; `anew`: nobody else is behind."""
        if anew:
            self._lag.by_group = None
        if not self.evaluator.is_by_gateway:
            self._lag.note(points, behind, heard_ns)
        self.evaluator.behind_ns = self._lag.by_group

    def keep_up(self) -> None:
        """Nobody is behind."""
        self._lag.keep_up()
        self.evaluator.behind_ns = None

    def came_by(self, now_ns: int) -> None:
        """Nothing came in after now, nor what an open run began with."""
        self._lag.came_by(now_ns)

    def _tell(self, instances: NDArray[np.int64]) -> None:
        """Tell the evaluator how these instances stand."""
        evaluator: Any = self.evaluator
        if not self._has_stands:
            self.evaluator.settled(instances, self._busy(instances))
            return
        condition, planned = seg.rows_of(self.state["condition"], instances), None
        if self._is_planned:
            quality = seg.rows_of(self.state["quality"], instances)
            planned = seg.rows_of(self.state["planned"], instances)
            planned = (planned | (condition & (quality == PLANNED))).any(axis=1)
        evaluator.stands(instances, condition, planned)

    def _busy(self, instances: NDArray[np.int64]) -> NDArray[np.bool_]:
        """In condition, or on the way in or out."""
        flags = seg.rows_of(self.state["condition"], instances) | seg.rows_of(
            self.state["output"], instances
        )
        busy: NDArray[np.bool_] = flags[:, 0].copy()
        for column in range(1, self.width):
            busy |= flags[:, column]
        return busy

    def standing_quality(self) -> NDArray[np.uint8]:
        """Of each instance the quality its level stands on; good for one that is normal."""
        level = self.levels().astype(np.int64)
        row, at = np.arange(len(level)), np.maximum(level - 1, 0)
        state = self.state
        held = np.where(state["condition"][row, at], state["quality"][row, at], 0)
        quality = np.where(state["planned"][row, at], PLANNED, held)
        return np.where(level > 0, quality, 0).astype(np.uint8)

    def levels(self) -> NDArray[np.uint8]:
        return most_severe(bits_of(self.state["output"])).astype(np.uint8)
