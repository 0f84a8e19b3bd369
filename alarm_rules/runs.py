"""Runs of raw conditions, for what is said of one instance several times in a call: which lasted,
what they turned, and what stays open.

    raw      ─────╭──────────────╮──╭───    a run: a stretch of one raw value of one level
    output   ─────────╭──────────────╮──    it decides, if it is as long as its delay

Each level comes with one open run; the edges of the call end it and begin others; the last one
stays open. All of them stand in one table, grouped by key, and delays are one pass over it.

Not here: edges (steps.py), where pieces and deadlines come from (program.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.steps import PLANNED, Edges, Steps
from alarm_rules.turns import Turns, joined
from gateway.contract.rule_kind import FOREVER, Columns


@dataclass(frozen=True, slots=True)
class Runs:
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


class RunTable:
    """The state of a program, seen as open runs. planned: calibration plays a part in some.
    behind_ns: by instance, how far its clock is behind; None: that of none is."""

    def __init__(
        self, state: Columns, *, planned: bool, behind_ns: NDArray[np.int64] | None = None
    ) -> None:
        self.state, self._is_planned, self._behind_ns = state, planned, behind_ns

    def due(self, now_ns: int, swept: slice) -> NDArray[np.int64]:
        """Keys, of a range of instances, whose delay ends by now."""
        clock: NDArray[np.int64] | int = now_ns
        if self._behind_ns is not None:
            of_run = self.state["behind_ns"].T[:, swept]
            clock = now_ns - np.minimum(of_run, self._behind_ns[swept])
        level, at = np.nonzero(self.state["due_ns"].T[:, swept] <= clock)
        found: NDArray[np.int64] = level * len(self.state) + at + swept.start
        return found

    def clock(self, now_ns: int, instance: NDArray[np.int64] | slice) -> int | NDArray[np.int64]:
        """Up to when each of these instances is known by its samples."""
        return now_ns if self._behind_ns is None else now_ns - self._behind_ns[instance]

    def _began_behind(
        self, steps: Steps, edges: Edges, last: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """How far behind the instances of these edges are, for the runs that begin there: from the
        moment on at which they count as begun, which may be later than it was measured."""
        assert self._behind_ns is not None, "asked where somebody is"
        step = edges.step.take(last)
        held_ns = steps.time_ns.take(step) - steps.raw_ns.take(step)
        behind_ns = self._behind_ns.take(steps.instance.take(step)) - held_ns
        found: NDArray[np.int64] = np.maximum(behind_ns, 0)
        return found

    def opened(
        self,
        steps: Steps,
        edges: Edges,
        due: NDArray[np.int64],
        head: NDArray[np.int64],
        now_ns: int,
    ) -> tuple[Runs, NDArray[np.int64]]:
        """The run each key came with, up to its first edge, and up to when the key is known now.
        Keys with edges come first, in the order of the edges."""
        state, key = self.state, edges.key[head]
        if len(due):
            seen = np.zeros(state["condition"].size, np.bool_)
            seen[key] = True
            key = np.concatenate([key, due[~seen[due]]])
        instance = key % len(state) if self.state["condition"].shape[1] > 1 else key
        floor_ns = state["floor_ns"]
        last_word_ns = floor_ns[instance]
        floor_ns[steps.instance[steps.newest]] = steps.time_ns[steps.newest]
        behind_ns: Any = 0
        if self._behind_ns is not None:
            behind_ns = np.minimum(self._of("behind_ns", key), self._behind_ns.take(instance))
            last = np.append(head[1:], len(edges.key))[: len(head)] - 1
            behind_ns[: len(head)] = self._began_behind(steps, edges, last)
        known_to_ns = np.maximum(floor_ns[instance], now_ns - behind_ns)
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
        return Runs(
            key, instance, value, begin_ns, delay_ns, out, again, planned, after
        ), known_to_ns

    def begun(
        self,
        steps: Steps,
        edges: Edges,
        first: NDArray[np.bool_],
        opened: Runs,
        known_to_ns: NDArray[np.int64],
    ) -> Runs:
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
        return Runs(
            edges.key, instance, edges.value, begin_ns, delay_ns, out, again, planned, after
        )

    def turns(self, steps: Steps, edges: Edges, opened: Runs, begun: Runs) -> Turns:
        """What the runs changed: of those that came, and of those that began."""
        old, new = opened.turned, begun.turned
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
                level=old_key // len(self.state),
                time_ns=opened.out.effect_ns[old],
                sampled=opened.delay_ns[old] <= 0,
                changed=opened.out.changed[old],
                began_ns=opened.begin_ns[old],
                cause=self._of("cause", old_key),
                quality=self._of("quality", old_key),
            ),
            turns,
        )

    def keep(
        self, steps: Steps, edges: Edges, opened: Runs, begun: Runs, last: NDArray[np.int64]
    ) -> int:
        """Carry the open runs and the outputs. Returns the next deadline of those that began."""
        rest = slice(len(last), None)  # keys without an edge
        self._column("output")[opened.key[rest]] = opened.output[rest]
        self._column("due_ns")[opened.key[rest]] = FOREVER
        self._column("behind_ns")[opened.key[rest]] = 0
        if opened.planned is not None:
            self._column("planned")[opened.key[rest]] = opened.planned[rest]
        if len(last) == 0:
            return FOREVER
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
        if self._behind_ns is not None:
            began_ns = self._began_behind(steps, edges, last)
            self._column("behind_ns")[key] = np.where(due_ns < FOREVER, began_ns, 0)
        return int(due_ns.min(initial=FOREVER))

    def keep_steps(self, steps: Steps) -> None:
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

    def _column(self, name: str) -> NDArray[Any]:
        """A column of the state by key: a view, to write into."""
        return seg.flat(self.state[name])

    def _of(self, name: str, key: NDArray[np.int64]) -> NDArray[Any]:
        found: NDArray[Any] = self._column(name).take(key)
        return found

    def _delay(self, key: NDArray[np.int64], value: NDArray[np.bool_]) -> NDArray[np.int64]:
        off_ns = self._of("off_ns", key)
        delay_ns: NDArray[np.int64] = off_ns + (self._of("on_ns", key) - off_ns) * value
        return delay_ns


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
