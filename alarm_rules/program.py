"""One evaluator with its state: set and reset become changes of level at exact times.

    Signals ─one step per time─▶ edges ─▶ runs ─delays─▶ turns of a level ─▶ most severe level

Per (instance, level) the state is one open **run**: the raw condition, since when, the value and
quality that began it, and the output after delays. That is all a restart needs to go on with a
half-elapsed delay. Only levels with an edge or with a delay that ends now are looked at: a **key**
is such a level, `instance * levels + level`, its place in the state's arrays read as one row.

Order at one time: what a delay or a clock found comes before what a sample of that time says, as a
tick between the two would have had it. A delay that ends exactly when the condition does has
elapsed: the alarm comes and goes, both at that time.

**Time never runs back for an instance.** A sample that is newer than its point's last one but older
than what its instance already said (another input was faster, or a timer fired) counts from the
time of the last word on.

A condition that began under calibration and goes on with real values says so again: a change row
with the same level and the new quality, so that the book stops calling it planned.

Not here: which rows matter (kinds/), edges (steps.py), how levels become one (turns.py), lateness
and order (ruleset.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.dense import is_dense, tick, with_silent
from alarm_rules.steps import PLANNED, Edges, Steps, edges_of, merged, steps_of, taken
from alarm_rules.turns import Changes, Turns, bits_of, chained, changes_of, joined, most_severe
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

__all__ = ["Changes", "Program"]


_PIECE = 1 << 14
"""Signals told at once. Fresh arrays of megabytes cost more than what is written into them: every
page of them is given by the system anew."""


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of raw conditions, grouped by key, in order of time within it."""

    key: NDArray[np.int64]
    instance: NDArray[np.int64]
    value: NDArray[np.bool_]
    begin_ns: NDArray[np.int64]
    delay_ns: NDArray[np.int64]
    out: seg.Debounced
    again: NDArray[np.bool_] | None  # says again, by real values, what calibration said
    planned: NDArray[np.bool_] | None  # whether the output then stands on calibration values
    output: NDArray[np.bool_]  # after the run

    @property
    def turned(self) -> NDArray[np.int64]:
        """Rows that have something to tell."""
        changed = self.out.changed
        return np.flatnonzero(changed if self.again is None else changed | self.again)


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
                "set_at": (np.bool_, False, wide),  # set at step_ns
                "step_ns": (np.int64, NEVER),  # time of the last sample that set something
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
        self.is_dense_allowed = True  # a test tells its ticks with and without
        self._is_planned = False  # calibration plays a part in some open run or output
        self._only_slot: NDArray[np.int64] | None = None  # by point, if none has two here

    # ------------------------------------------------------------------ samples in

    def judge(self, rows: Rows, times: PointTimes, now_ns: int) -> Derived | None:
        """Let the rows speak; what they said is kept until `finish`."""
        if len(rows) == 0 or len(self.layout.slot_point) == 0:
            return None
        chosen = np.flatnonzero(self.evaluator.select(rows))
        if len(chosen) == 0:
            return None
        feed = self._feed(rows, chosen)
        if len(feed) == 0:
            return None
        verdict = self.evaluator.judge(feed, times, now_ns)
        if verdict.signals is not None and len(verdict.signals):
            self._signals.append(verdict.signals)
        return verdict.derived

    def _feed(self, rows: Rows, chosen: NDArray[np.int64]) -> Feed:
        """The chosen rows once for each of their slots, in order of (group, time)."""
        layout, point = self.layout, rows.point
        row: NDArray[np.int64] | slice = chosen
        if len(chosen) == len(rows):
            row = slice(None)
        else:
            point = point.take(chosen)
        if self._only_slot is not None:
            slot = self._only_slot.take(point)
            if slot.min() < 0:
                inside = np.flatnonzero(slot >= 0)
                row, slot = chosen[inside], slot[inside]
        else:
            owner, slot = seg.gather_lists(layout.point_start, layout.point_slots, point)
            row = chosen[owner]
        group = layout.slot_group.take(slot)
        if not seg.is_ascending(group, strictly=True):
            order = seg.group_sort(group, rows.time_ns[row], len(layout.group_start))
            group, slot = group.take(order), slot.take(order)
            row = order if isinstance(row, slice) else row.take(order)
        names = ("value", "quality", "time_ns", "received_ns", "usable")
        columns: Any = (getattr(rows, name) for name in names)
        if not isinstance(row, slice):
            columns = (column.take(row) for column in columns)
        return Feed(group, slot, *columns)

    # ------------------------------------------------------------------ changes out

    def finish(self, times: PointTimes, now_ns: int) -> Changes | None:
        """Fire what is due up to `now_ns` and return every change since the last call."""
        if self.evaluator.due_ns <= now_ns:
            timed = self.evaluator.timers(now_ns, times)
            if timed is not None and len(timed):
                self._signals.append(timed)
        parts, self._signals = self._signals, []
        swept = self.due_ns <= now_ns
        if not parts and not swept:
            return None
        signals = merged(parts, self.width)
        if signals.quality.any() and (signals.quality == PLANNED).any():
            self._is_planned = True
        if self.is_dense_allowed and not self._is_planned and is_dense(signals, self.state):
            changes = self._tick(signals, now_ns, swept=swept)
        else:
            changes = self._in_order(signals, now_ns, swept=swept)
        if swept:
            self._find_due()
        return changes

    def _tick(self, signals: Signals, now_ns: int, *, swept: bool) -> Changes | None:
        """Every instance said one thing at most."""
        state = self.state
        if not self.evaluator.latest_wins and len(signals):
            seg.write_rows(state["set_at"], signals.instance, signals.set)
            seg.write_rows(state["step_ns"], signals.instance, signals.time_ns)
        if swept:
            late = np.flatnonzero(self._column("due_ns") <= now_ns) // self.width
            signals = with_silent(signals, late[seg.heads(late)], state)
        found = tick(state, signals, now_ns, swept=swept)
        self.due_ns = min(self.due_ns, found.due_ns)
        if len(found.instance):
            self._tell(found.instance)
        return found.changes

    def _in_order(self, signals: Signals, now_ns: int, *, swept: bool) -> Changes | None:
        """Whatever was said, as often as it was said; by pieces that a cache holds, each a range of
        instances."""
        instance, every = signals.instance, len(self.state)
        begins = np.unique(np.append(0, instance[_PIECE::_PIECE]))
        rows = np.append(np.searchsorted(instance, begins), len(instance))
        found = []
        for n, end in enumerate([*begins[1:].tolist(), every]):
            piece = signals
            if len(begins) > 1:
                piece = taken(signals, slice(rows[n], rows[n + 1]))
            steps = steps_of(piece, self.state, latest_wins=self.evaluator.latest_wins)
            edges = edges_of(steps, self.state, planned=self._is_planned)
            span = slice(int(begins[n]) * self.width, end * self.width)
            due = self._due(steps, now_ns, span if swept else None)
            found.append(self._apply(steps, edges, due, now_ns))
        return chained([changes for changes in found if changes is not None])

    def _due(self, steps: Steps, now_ns: int, swept: slice | None) -> NDArray[np.int64]:
        """Keys, of those `swept`, whose delay ends by now, or of any by a sample of their instance
        that is ahead of now."""
        found: list[NDArray[np.int64]] = []
        if swept is not None:
            late_keys = np.flatnonzero(self._column("due_ns")[swept] <= now_ns)
            found.append(late_keys + swept.start)
        newest_ns = steps.time_ns[steps.newest]
        if len(newest_ns) and newest_ns.max() > now_ns:
            ahead = np.flatnonzero(newest_ns > now_ns)
            instance = steps.instance[steps.newest][ahead]
            late = self.state["due_ns"].take(instance, axis=0) <= newest_ns[ahead][:, None]
            owner, level = np.nonzero(late)
            found.append(instance[owner] * self.width + level)
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

    def _column(self, name: str) -> NDArray[Any]:
        """A column of the state by key: a view, to write into."""
        return self.state[name].reshape(-1)

    def _of(self, name: str, key: NDArray[np.int64]) -> NDArray[Any]:
        found: NDArray[Any] = self._column(name).take(key)
        return found

    def _delay(self, key: NDArray[np.int64], value: NDArray[np.bool_]) -> NDArray[np.int64]:
        off_ns = self._of("off_ns", key)
        delay_ns: NDArray[np.int64] = off_ns + (self._of("on_ns", key) - off_ns) * value
        return delay_ns

    # ------------------------------------------------------------------ runs

    def _apply(
        self, steps: Steps, edges: Edges, due: NDArray[np.int64], now_ns: int
    ) -> Changes | None:
        """Runs last or not, end and begin; what follows is kept and told."""
        first = seg.heads(edges.key)
        head = np.flatnonzero(first)
        opened, known_to_ns = self._open_runs(steps, edges, due, head, now_ns)
        begun = self._begun_runs(steps, edges, first, opened, known_to_ns[: len(head)])
        turns = self._turns(steps, edges, opened, begun)
        changes = changes_of(turns, self.state) if len(turns) else None
        self._keep(steps, edges, opened, begun, np.append(head[1:], len(first))[: len(head)] - 1)
        if not self.evaluator.latest_wins:
            self._keep_steps(steps)
        said = turns.changed
        np.maximum.at(self.state["floor_ns"], turns.instance[said], turns.time_ns[said])
        instance = steps.instance[steps.newest]
        if len(head) < len(opened.key):
            instance = np.union1d(instance, opened.instance[len(head) :])
        if len(instance):
            self._tell(instance)
        return changes

    def _open_runs(
        self,
        steps: Steps,
        edges: Edges,
        due: NDArray[np.int64],
        head: NDArray[np.int64],
        now_ns: int,
    ) -> tuple[_Runs, NDArray[np.int64]]:
        """The run each key came with, up to its first edge, and up to when the key is known now.
        Keys with edges come first, in the order of the edges."""
        state, key = self.state, edges.key[head]
        if len(due):
            seen = np.zeros(state["condition"].size, np.bool_)
            seen[key] = True
            key = np.concatenate([key, due[~seen[due]]])
        instance = key // self.width if self.width > 1 else key
        floor_ns = state["floor_ns"]
        last_word_ns = floor_ns[instance]
        floor_ns[steps.instance[steps.newest]] = steps.time_ns[steps.newest]
        known_to_ns = np.maximum(floor_ns[instance], now_ns)
        end_ns = known_to_ns.copy()
        end_ns[: len(head)] = steps.time_ns[edges.step[head]]
        value, output = self._of("condition", key), self._of("output", key)
        begin_ns = self._of("since_ns", key)
        delay_ns = self._delay(key, value)
        out = seg.debounce(value, begin_ns, end_ns, delay_ns, None, output)
        np.maximum(out.effect_ns, last_word_ns, out=out.effect_ns)
        again = planned = None
        if self._is_planned:
            stands = (self._of("quality", key) == PLANNED, self._of("planned", key))
            again, planned = _planned(value, out, *stands, None)
        after = np.where(out.lasted, value, output)
        return _Runs(
            key, instance, value, begin_ns, delay_ns, out, again, planned, after
        ), known_to_ns

    def _begun_runs(
        self,
        steps: Steps,
        edges: Edges,
        first: NDArray[np.bool_],
        opened: _Runs,
        known_to_ns: NDArray[np.int64],
    ) -> _Runs:
        """The runs that edges begin, each up to the next edge of its key."""
        begin_ns = steps.time_ns.take(edges.step)
        delay_ns = self._delay(edges.key, edges.value)
        start, carried, end_ns = None, opened.output[: len(known_to_ns)], known_to_ns
        owner: NDArray[np.int64] | slice = slice(len(known_to_ns))
        if len(known_to_ns) < len(first):
            head = np.flatnonzero(first)
            count = np.diff(np.append(head, len(first)))
            owner = np.repeat(np.arange(len(head)), count)
            carried = carried.take(owner)
            end_ns = np.append(begin_ns[1:], 0)
            end_ns[head + count - 1] = known_to_ns
            if opened.planned is not None or bool((end_ns - delay_ns >= begin_ns).any()):
                start = head.take(owner)  # where none lasted, the output stays what it was
        out = seg.debounce(edges.value, begin_ns, end_ns, delay_ns, start, carried)
        again = planned = None
        if opened.planned is not None:
            row = steps.causes(edges.step, edges.level, edges.value)
            is_planned = steps.signals.quality[row] == PLANNED
            again, planned = _planned(edges.value, out, is_planned, opened.planned[owner], start)
        after = np.where(out.lasted, edges.value, out.before)
        instance = steps.instance.take(edges.step)
        return _Runs(
            edges.key, instance, edges.value, begin_ns, delay_ns, out, again, planned, after
        )

    def _turns(self, steps: Steps, edges: Edges, opened: _Runs, begun: _Runs) -> Turns:
        """What the runs changed: of those that came, and of those that began."""
        old, new, wide = opened.turned, begun.turned, self.width
        step, level, value = edges.step[new], edges.level[new], edges.value[new]
        row = steps.causes(step, level, value)
        timed = np.zeros(len(new), np.bool_) if steps.timed is None else steps.timed[step]
        old_key = opened.key[old]
        quality = steps.signals.quality[row]
        cause = steps.signals.value[row]
        sampled = (begun.delay_ns[new] <= 0) & ~timed
        turns = Turns(
            instance=begun.instance[new],
            level=level,
            time_ns=begun.out.effect_ns[new],
            sampled=sampled,
            changed=begun.out.changed[new],
            began_ns=begun.begin_ns[new],
            cause=cause,
            quality=quality,
        )
        if len(old) == 0:
            return turns
        return joined(
            Turns(
                instance=opened.instance[old],
                level=old_key % wide,
                time_ns=opened.out.effect_ns[old],
                sampled=opened.delay_ns[old] <= 0,
                changed=opened.out.changed[old],
                began_ns=opened.begin_ns[old],
                cause=self._of("cause", old_key),
                quality=self._of("quality", old_key),
            ),
            turns,
        )

    def _keep(
        self, steps: Steps, edges: Edges, opened: _Runs, begun: _Runs, last: NDArray[np.int64]
    ) -> None:
        """Carry the open runs and the outputs; note the next deadline."""
        rest = slice(len(last), None)  # keys without an edge
        self._column("output")[opened.key[rest]] = opened.output[rest]
        self._column("due_ns")[opened.key[rest]] = FOREVER
        if opened.planned is not None:
            self._column("planned")[opened.key[rest]] = opened.planned[rest]
        if len(last) == 0:
            return
        at: NDArray[np.int64] | slice = last if len(last) < len(begun.key) else slice(None)
        key, value, begin_ns = begun.key[at], begun.value[at], begun.begin_ns[at]
        output = begun.output[at]
        row = steps.causes(edges.step[at], edges.level[at], value)
        self._column("condition")[key] = value
        self._column("since_ns")[key] = begin_ns
        self._column("cause")[key] = steps.signals.value[row]
        self._column("quality")[key] = steps.signals.quality[row]
        self._column("output")[key] = output
        waiting = value != output
        if begun.planned is not None:
            planned = begun.planned[at]
            self._column("planned")[key] = planned
            waiting |= value & planned & (steps.signals.quality[row] != PLANNED)
        due_ns = np.where(waiting, begun.out.effect_ns[at], FOREVER)
        self._column("due_ns")[key] = due_ns
        self.due_ns = min(self.due_ns, int(due_ns.min(initial=FOREVER)))

    def _keep_steps(self, steps: Steps) -> None:
        """Remember the newest sampled step, to know a repeat of its time by."""
        newest: NDArray[np.int64] | slice = steps.newest
        if steps.timed is not None and steps.timed.any():
            sampled = np.flatnonzero(~steps.timed)
            instance = steps.instance[sampled]
            newest = sampled[np.append(instance[1:] != instance[:-1], True)[: len(sampled)]]
        instance, raw_ns, set_ = steps.instance[newest], steps.raw_ns[newest], steps.set[newest]
        state = self.state
        same = raw_ns == state["step_ns"][instance]
        if same.any():
            set_ = set_ | (same[:, None] & state["set_at"][instance])
        seg.write_rows(state["set_at"], instance, set_)
        seg.write_rows(state["step_ns"], instance, np.maximum(raw_ns, state["step_ns"][instance]))

    # ------------------------------------------------------------------ for the rule set

    def settle_all(self) -> None:
        """Tell the evaluator about every instance: after a refresh or a load."""
        self._only_slot = seg.only_members(self.layout.point_start, self.layout.point_slots)
        self._set_due()
        self._is_planned = True  # unless it shows that it does not
        self._find_due()
        self._tell(np.arange(len(self.state)))

    def _tell(self, instances: NDArray[np.int64]) -> None:
        """Tell the evaluator how these instances stand."""
        stands = getattr(self.evaluator, "stands", None)
        if stands is None:
            self.evaluator.settled(instances, self._busy(instances))
            return
        condition, planned = seg.rows_of(self.state["condition"], instances), None
        if self._is_planned:
            quality = seg.rows_of(self.state["quality"], instances)
            planned = seg.rows_of(self.state["planned"], instances)
            planned = (planned | (condition & (quality == PLANNED))).any(axis=1)
        stands(instances, condition, planned)

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


def _planned(
    value: NDArray[np.bool_],
    out: seg.Debounced,
    is_planned: NDArray[np.bool_],
    carried: NDArray[np.bool_],
    start: NDArray[np.int64] | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(which runs say again, whether the output then stands on calibration values).

    `is_planned`: the run's own quality; `carried`: of the output before the key's first run. What
    stood on real values and is held by calibration still stands on real values.
    """
    real = out.lasted & value & ~is_planned
    stands = value & is_planned
    decides = out.changed | real
    if start is None:
        return real & out.before & carried, np.where(decides, stands, carried)
    after = seg.forward_fill(stands, decides, start, carried)
    before = seg.before(after, start, carried)
    return real & out.before & before, after
