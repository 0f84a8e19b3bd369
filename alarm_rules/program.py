"""One evaluator with its state: set and reset become changes of level at exact times.

    Signals ─clamp, one step per time─▶ hysteresis ─edges─▶ runs ─delays─▶ transitions ─▶ level

Per (instance, level) the state is one open **run**: the raw condition, since when, the value and
quality that began it, and the output after delays. That is all a restart needs to go on with a
half-elapsed delay.

Order at one time: what a delay or a clock found comes before what a sample of that time says, as a
tick between the two would have had it. A delay that ends exactly when the condition does has
elapsed: the alarm comes and goes, both at that time.

**Time never runs back for an instance.** A sample that is newer than its point's last one but older
than what its instance already said (another input was faster, or a timer fired) counts from the
time of the last word on.

A condition that began under calibration and goes on with real values says so again: a change row
with the same level and the new quality, so that the book stops calling it planned.

Not here: which rows matter (kinds/), lateness and order (ruleset.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Derived,
    Feed,
    Layout,
    PointTimes,
    Rows,
    RuleKind,
    Signals,
)
from gateway.model.quality import Quality

PLANNED = int(Quality.UNCERTAIN_CALIBRATING)


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of level of this program's instances, ordered by (instance, time)."""

    instance: NDArray[np.int64]
    level: NDArray[np.uint8]
    time_ns: NDArray[np.int64]
    began_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    limit: NDArray[np.float64]
    quality: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Steps:
    """Signals of equal (instance, time) as one; row numbers point into `signals`, -1 for none."""

    signals: Signals
    instance: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    raw_ns: NDArray[np.int64]  # before it was held to the instance's last word
    timed: NDArray[np.bool_]
    set_row: NDArray[np.int64]  # (steps, levels)
    reset_row: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of the raw condition, ordered by (touched instance, level, begin)."""

    key: NDArray[np.int64]  # position among the touched instances * levels + level
    value: NDArray[np.bool_]
    begin_ns: NDArray[np.int64]
    cause: NDArray[np.float64]
    quality: NDArray[np.uint8]
    timed: NDArray[np.bool_]


class Program:
    """All rules of one kind in one layer."""

    def __init__(self, kind: RuleKind, layer: int, level_count: int) -> None:
        self.kind = kind
        self.layer = layer
        self.width = max(level_count, 1)
        self.evaluator = kind.build(self.width)
        wide = self.width
        self.state = Columns(
            settings={
                "on_ns": (np.int64, 0, wide),
                "off_ns": (np.int64, 0, wide),
                "limit": (np.float64, np.nan, wide),
                "reset": (np.float64, np.nan, wide),
                "position": (np.int32, -1),  # in RuleSet.instances
            },
            saved={
                "condition": (np.bool_, False, wide),
                "output": (np.bool_, False, wide),
                "planned": (np.bool_, False, wide),  # the output stands on calibration values
                "since_ns": (np.int64, 0, wide),
                "cause": (np.float64, np.nan, wide),
                "quality": (np.uint8, 0, wide),
                "set_at": (np.bool_, False, wide),  # set at step_ns
                "step_ns": (np.int64, NEVER),  # time of the last sample that said something
                "floor_ns": (np.int64, NEVER),  # time of the last word
            },
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
        self._signals: list[Signals] = []

    # ------------------------------------------------------------------ samples in

    def judge(self, rows: Rows, times: PointTimes, now_ns: int) -> Derived | None:
        """Let the rows speak; what they said is kept until `finish`."""
        if len(rows) == 0 or len(self.layout.slot_point) == 0:
            return None
        chosen = np.flatnonzero(self.evaluator.select(rows))
        if len(chosen) == 0:
            return None
        feed = self._feed(rows if len(chosen) == len(rows) else rows.take(chosen))
        if len(feed) == 0:
            return None
        verdict = self.evaluator.judge(feed, times, now_ns)
        if verdict.signals is not None and len(verdict.signals):
            self._signals.append(verdict.signals)
        return verdict.derived

    def _feed(self, rows: Rows) -> Feed:
        layout = self.layout
        owner, slot = seg.gather_lists(layout.point_start, layout.point_slots, rows.point)
        group = layout.slot_group[slot]
        time_ns = rows.time_ns[owner]
        order = seg.group_sort(group, time_ns, len(layout.group_start))
        owner = owner[order]
        return Feed(
            group=group[order],
            slot=slot[order],
            value=rows.value[owner],
            quality=rows.quality[owner],
            time_ns=time_ns[order],
            received_ns=rows.received_ns[owner],
            usable=rows.usable[owner],
        )

    # ------------------------------------------------------------------ changes out

    def finish(self, times: PointTimes, now_ns: int) -> Changes | None:
        """Fire what is due up to `now_ns` and return every change since the last call."""
        if self.evaluator.due_ns <= now_ns:
            timed = self.evaluator.timers(now_ns, times)
            if timed is not None and len(timed):
                self._signals.append(timed)
        signals, self._signals = self._signals, []
        swept = self.due_ns <= now_ns
        if not signals and not swept:
            return None
        steps = self._steps(_merged(signals, self.width))
        touched = np.unique(steps.instance)
        if swept:
            touched = np.union1d(touched, self._pending_up_to(now_ns))
        changes = self._apply(steps, touched, now_ns) if len(touched) else None
        if swept:
            self.forget_due()
        return changes

    def forget_due(self) -> None:
        """Find the next deadline anew over all instances."""
        rows, columns = np.nonzero(self._waiting(slice(None)))
        self.due_ns = self._next_due(rows, columns)

    def _waiting(self, instances: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        """Levels whose open run has not taken effect yet: as a change, or as real after planned."""
        state = self.state
        condition, output = state["condition"][instances], state["output"][instances]
        said_planned = state["planned"][instances] & (state["quality"][instances] != PLANNED)
        waiting: NDArray[np.bool_] = (condition != output) | (condition & said_planned)
        return waiting

    def _next_due(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> int:
        if len(rows) == 0:
            return FOREVER
        state = self.state
        delay = np.where(
            state["condition"][rows, columns],
            state["on_ns"][rows, columns],
            state["off_ns"][rows, columns],
        )
        return int((state["since_ns"][rows, columns] + delay).min())

    def _pending_up_to(self, now_ns: int) -> NDArray[np.int64]:
        state = self.state
        delay = np.where(state["condition"], state["on_ns"], state["off_ns"])
        due = self._waiting(slice(None)) & (state["since_ns"] + delay <= now_ns)
        return np.flatnonzero(due.any(axis=1))

    def _steps(self, signals: Signals) -> _Steps:
        state = self.state
        time_ns = np.maximum(signals.time_ns, state["floor_ns"][signals.instance])
        timed = np.zeros(len(signals), np.bool_) if signals.timed is None else signals.timed
        first = seg.heads(signals.instance, time_ns, timed)
        row = np.arange(len(signals))[:, None]
        if not first.all():
            # Several at one time: the order among them must not decide whose value is shown.
            order = np.lexsort((signals.value, ~signals.quality, ~timed, time_ns, signals.instance))
            signals = _taken(signals, order)
            time_ns, timed = time_ns[order], timed[order]
        set_row = np.where(signals.set, row, -1)
        reset_row = np.where(signals.reset & ~signals.set, row, -1)
        head = np.flatnonzero(first)
        if len(head) < len(first):
            set_row = np.maximum.reduceat(set_row, head, axis=0)
            reset_row = np.maximum.reduceat(reset_row, head, axis=0)
        last = np.append(head[1:], len(first))[: len(head)] - 1
        instance = signals.instance[head]
        raw_ns = signals.time_ns[last]
        if not self.evaluator.latest_wins:
            again = ~timed[head] & (raw_ns == state["step_ns"][instance])
            reset_row[again[:, None] & state["set_at"][instance]] = -1
        return _Steps(signals, instance, time_ns[head], raw_ns, timed[head], set_row, reset_row)

    def _apply(self, steps: _Steps, touched: NDArray[np.int64], now_ns: int) -> Changes | None:
        state, wide = self.state, self.width
        owner = np.searchsorted(touched, steps.instance)
        runs = self._runs(steps, touched, owner)
        horizon = np.maximum(state["floor_ns"][touched], now_ns)
        if len(owner):
            np.maximum.at(horizon, owner, steps.time_ns)
        first = seg.heads(runs.key)
        start = seg.starts_of(first)
        last = np.flatnonzero(np.append(first[1:], True))
        who, level = runs.key // wide, runs.key % wide
        instance = touched[who]
        end_ns = np.append(runs.begin_ns[1:], 0)
        end_ns[last] = horizon[who[last]]
        delay = np.where(
            runs.value, state["on_ns"][instance, level], state["off_ns"][instance, level]
        )
        out = seg.debounce(
            runs.value, runs.begin_ns, end_ns, delay, start, state["output"][instance, level]
        )
        again = self._said_again(runs, out, start, instance, level)
        rows = np.flatnonzero(out.changed | again)
        changes = None
        if len(rows):
            changes = self._levels(runs, out, rows, instance, level, delay)
        self._keep(steps, touched, owner, runs, out, last, start)
        return changes

    def _runs(self, steps: _Steps, touched: NDArray[np.int64], owner: NDArray[np.int64]) -> _Runs:
        """The open run of every touched instance and level, and one for each edge behind it."""
        state, wide = self.state, self.width
        row, level, value = self._edges(steps)
        cause_row = np.where(value, steps.set_row[row, level], steps.reset_row[row, level])
        size = len(touched) * wide
        key = np.concatenate([np.arange(size), owner[row] * wide + level])
        order = seg.sort_stable(key, size)
        signals = steps.signals

        def joined(name: str, new: NDArray[np.generic]) -> NDArray[np.generic]:
            return np.concatenate([state[name][touched].ravel(), new])[order]

        return _Runs(
            key=key[order],
            value=joined("condition", value),  # type: ignore[arg-type]
            begin_ns=joined("since_ns", steps.time_ns[row]),  # type: ignore[arg-type]
            cause=joined("cause", signals.value[cause_row]),  # type: ignore[arg-type]
            quality=joined("quality", signals.quality[cause_row]),  # type: ignore[arg-type]
            timed=np.concatenate([np.zeros(size, np.bool_), steps.timed[row]])[order],
        )

    def _edges(
        self, steps: _Steps
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """(step, level, new condition) wherever a new run begins."""
        if len(steps.instance) == 0:
            none = np.empty(0, np.int64)
            return none, none, np.empty(0, np.bool_)
        start = seg.starts_of(seg.heads(steps.instance))
        set_, reset = steps.set_row >= 0, steps.reset_row >= 0
        carried = self.state["condition"][steps.instance]
        found = seg.hysteresis(set_, reset, start, carried)
        edge = found.edge
        was_planned = self.state["quality"][steps.instance] == PLANNED
        planned = set_ & (steps.signals.quality[steps.set_row] == PLANNED)
        if was_planned.any() or planned.any():
            edge = edge | _turned_real(set_ & ~planned, found, planned, was_planned, start)
        row, level = np.nonzero(edge)
        return row, level, found.state[row, level]

    def _said_again(
        self,
        runs: _Runs,
        out: seg.Debounced,
        start: NDArray[np.int64],
        instance: NDArray[np.int64],
        level: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Runs of real values behind an output that stands on calibration values."""
        was = self.state["planned"][instance, level]
        if not was.any() and not (runs.quality == PLANNED).any():
            return np.zeros(len(runs.key), np.bool_)
        newest = seg.last_true(out.lasted, start)
        previous = np.where(start == np.arange(len(start)), -1, np.roll(newest, 1))
        stood = np.where(previous >= 0, runs.quality[np.maximum(previous, 0)] == PLANNED, was)
        real: NDArray[np.bool_] = runs.value & (runs.quality != PLANNED)
        again: NDArray[np.bool_] = out.lasted & real & out.before & stood
        return again

    def _levels(  # noqa: PLR0917  the columns of one table
        self,
        runs: _Runs,
        out: seg.Debounced,
        rows: NDArray[np.int64],
        instance: NDArray[np.int64],
        level: NDArray[np.int64],
        delay: NDArray[np.int64],
    ) -> Changes:
        """Transitions of single levels as changes of the most severe one."""
        state = self.state
        time_ns = np.maximum(out.effect_ns[rows], state["floor_ns"][instance[rows]])
        sampled = ~((delay[rows] > 0) | runs.timed[rows])
        order = np.lexsort((sampled, time_ns, instance[rows]))
        rows, time_ns, sampled = rows[order], time_ns[order], sampled[order]
        inst, lev = instance[rows], level[rows]
        bit = np.where(out.changed[rows], np.int64(1) << lev, np.int64(0))
        first_of_instance = seg.heads(inst)
        before = _as_bits(state["output"][inst])
        running = np.bitwise_xor.accumulate(bit)
        base = np.where(first_of_instance, running ^ bit, 0)[seg.starts_of(first_of_instance)]
        mask = before ^ running ^ base
        last = np.append(seg.heads(inst, time_ns, sampled)[1:], True)
        group = np.cumsum(np.append(0, last[:-1]))
        ends = np.flatnonzero(last)
        now = _most_severe(mask[ends])
        earlier = np.append(0, now[:-1])
        head = seg.heads(inst[ends])
        earlier[head] = _most_severe(before[ends[head]])
        decides = (np.maximum(now, earlier) - 1)[group]
        begins = np.append(0, ends[:-1] + 1)
        chosen = np.maximum.reduceat(np.where(lev == decides, np.arange(len(rows)), -1), begins)
        keep = (now != earlier) | ((chosen >= 0) & (bit[chosen] == 0) & (now > 0))
        now, earlier, chosen, ends = now[keep], earlier[keep], chosen[keep], ends[keep]
        assert (chosen >= 0).all(), "a level changed without a transition"
        run, inst = rows[chosen], inst[ends]
        limit = np.where(now > 0, state["limit"][inst, now - 1], state["reset"][inst, earlier - 1])
        return Changes(
            instance=inst,
            level=now.astype(np.uint8),
            time_ns=time_ns[ends],
            began_ns=runs.begin_ns[run],
            value=runs.cause[run],
            limit=limit,
            quality=runs.quality[run],
        )

    def _keep(  # noqa: PLR0917  everything one round leaves behind
        self,
        steps: _Steps,
        touched: NDArray[np.int64],
        owner: NDArray[np.int64],
        runs: _Runs,
        out: seg.Debounced,
        last: NDArray[np.int64],
        start: NDArray[np.int64],
    ) -> None:
        """Carry the open runs, the outputs and the times."""
        state, shape = self.state, (len(touched), self.width)
        state["condition"][touched] = runs.value[last].reshape(shape)
        state["since_ns"][touched] = runs.begin_ns[last].reshape(shape)
        state["cause"][touched] = runs.cause[last].reshape(shape)
        state["quality"][touched] = runs.quality[last].reshape(shape)
        newest = seg.last_true(out.lasted, start)[last].reshape(shape)
        fresh, safe = newest >= 0, np.maximum(newest, 0)
        state["output"][touched] = np.where(fresh, runs.value[safe], state["output"][touched])
        state["planned"][touched] = np.where(
            fresh, runs.value[safe] & (runs.quality[safe] == PLANNED), state["planned"][touched]
        )
        floor = state["floor_ns"][touched]
        if len(owner):
            np.maximum.at(floor, owner, steps.time_ns)
        at = np.flatnonzero(out.changed)
        np.maximum.at(floor, runs.key[at] // self.width, out.effect_ns[at])
        state["floor_ns"][touched] = floor
        self._keep_step(steps)
        pending = np.nonzero(self._waiting(touched))
        self.due_ns = min(self.due_ns, self._next_due(touched[pending[0]], pending[1]))
        self.evaluator.settled(touched, self._busy(touched))

    def _keep_step(self, steps: _Steps) -> None:
        """Remember the newest sampled step, to know a repeat of its time by."""
        sampled = np.flatnonzero(~steps.timed)
        if len(sampled) == 0:
            return
        instance = steps.instance[sampled]
        newest = sampled[np.append(instance[1:] != instance[:-1], True)]
        instance, state = steps.instance[newest], self.state
        same = (steps.raw_ns[newest] == state["step_ns"][instance])[:, None]
        set_ = steps.set_row[newest] >= 0
        state["set_at"][instance] = set_ | (same & state["set_at"][instance])
        state["step_ns"][instance] = np.maximum(steps.raw_ns[newest], state["step_ns"][instance])

    # ------------------------------------------------------------------ for the rule set

    def settle_all(self) -> None:
        """Tell the evaluator about every instance: after a refresh or a load."""
        every = np.arange(len(self.state))
        self.evaluator.settled(every, self._busy(every))
        self.forget_due()

    def _busy(self, instances: NDArray[np.int64]) -> NDArray[np.bool_]:
        state = self.state
        busy: NDArray[np.bool_] = np.any(
            state["condition"][instances] | state["output"][instances], axis=1
        )
        return busy

    def levels(self) -> NDArray[np.uint8]:
        return _most_severe(_as_bits(self.state["output"])).astype(np.uint8)


def _turned_real(
    real: NDArray[np.bool_],
    found: seg.Hysteresis,
    planned: NDArray[np.bool_],
    was_planned: NDArray[np.bool_],
    start: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """The first real value in a run that calibration began: there a new run begins."""
    run = seg.last_true(found.edge, start)
    newest = seg.last_true(real, start)
    earlier = np.roll(newest, 1, axis=0)
    earlier[start == np.arange(len(start))] = -1
    begun_planned = np.where(
        run >= 0, np.take_along_axis(planned, np.maximum(run, 0), axis=0), was_planned
    )
    fresh = earlier < np.maximum(run, 0)
    return found.state & real & ~found.edge & fresh & begun_planned


def _as_bits(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    return flags @ (np.int64(1) << np.arange(flags.shape[1], dtype=np.int64))


def _most_severe(mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """The highest set bit's position + 1; 0 for none."""
    return np.frexp(mask.astype(np.float64))[1].astype(np.int64)


def _taken(signals: Signals, order: NDArray[np.int64]) -> Signals:
    return Signals(
        instance=signals.instance[order],
        time_ns=signals.time_ns[order],
        set=signals.set[order],
        reset=signals.reset[order],
        value=signals.value[order],
        quality=signals.quality[order],
        timed=None if signals.timed is None else signals.timed[order],
    )


def _merged(parts: list[Signals], width: int) -> Signals:
    """What samples and clocks said, in order of (instance, time), clocks first."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Signals(
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            np.empty((0, width), np.bool_),
            np.empty((0, width), np.bool_),
            np.empty(0),
            np.empty(0, np.uint8),
        )
    timed = np.concatenate(
        [np.zeros(len(part), np.bool_) if part.timed is None else part.timed for part in parts]
    )
    whole = Signals(
        instance=np.concatenate([part.instance for part in parts]),
        time_ns=np.concatenate([part.time_ns for part in parts]),
        set=np.concatenate([part.set for part in parts]),
        reset=np.concatenate([part.reset for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        quality=np.concatenate([part.quality for part in parts]),
        timed=timed,
    )
    return _taken(whole, np.lexsort((~timed, whole.time_ns, whole.instance)))
