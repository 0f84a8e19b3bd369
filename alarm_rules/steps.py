"""From signals to edges: what was said at each time, and where a raw condition changed by it.

    signals of one instance     t1 set   t2 set   t2 reset   t3 reset
    steps, one for each time    t1 set   t2 set              t3 reset      set wins
    edges of each level         t1 ╭──── (nothing new) ──────╮ t3

Edges are found level by level among the rows that said something: each is compared with the one
before it of the same instance, so nothing is carried across rows that said nothing.

Not here: how long a condition lasted (program.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import Columns, Signals
from gateway.model.quality import Quality

PLANNED = int(Quality.UNCERTAIN_CALIBRATING)


@dataclass(frozen=True, slots=True)
class Steps:
    """Signals of equal (instance, time) as one, in that order; what a clock found comes first.

    set_row, reset_row: (steps, levels), the signal that made a level, -1 for none; None when each
    step is the signal of the same row.
    """

    signals: Signals
    instance: NDArray[np.int64]
    time_ns: NDArray[np.int64]  # held to the instance's last word
    raw_ns: NDArray[np.int64]  # as it was said
    timed: NDArray[np.bool_] | None  # None: none is
    set: NDArray[np.bool_]
    reset: NDArray[np.bool_]
    set_row: NDArray[np.int64] | None
    reset_row: NDArray[np.int64] | None
    last: NDArray[np.int64] | None  # the last step of each instance; None: no instance twice

    def causes(
        self, step: NDArray[np.int64], level: NDArray[np.int64] | int, value: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The signal that made the level what it is, for each of the given steps."""
        if self.set_row is None or self.reset_row is None:
            return step
        found: NDArray[np.int64] = np.where(
            value, self.set_row[step, level], self.reset_row[step, level]
        )
        return found

    @property
    def newest(self) -> NDArray[np.int64] | slice:
        """The last step of each instance, as an index."""
        return slice(None) if self.last is None else self.last


@dataclass(frozen=True, slots=True)
class Edges:
    """Where a level's raw condition changed, grouped by `key`, in order of time within it."""

    key: NDArray[np.int64]  # level * instances + instance
    step: NDArray[np.int64]
    level: NDArray[np.int64]
    value: NDArray[np.bool_]  # the condition from there on


def steps_of(signals: Signals, state: Columns, *, latest_wins: bool) -> Steps:
    """One step for each time; what `state` says of the time before is respected."""
    instance, timed = signals.instance, signals.timed
    time_ns = np.maximum(signals.time_ns, state["floor_ns"][instance])
    set_, reset, raw_ns = signals.set, signals.reset, signals.time_ns
    set_row = reset_row = last = None
    if not seg.is_ascending(instance, strictly=True):
        keys = (instance, time_ns) if timed is None else (instance, time_ns, timed)
        first = seg.heads(*keys)
        if not first.all():
            signals, set_row, reset_row = _merged_rows(signals, time_ns, first)
            head = np.flatnonzero(first)
            end = np.append(head[1:], len(first)) - 1
            instance, time_ns, raw_ns = instance[head], time_ns[head], signals.time_ns[end]
            timed = None if timed is None else timed[head]
            set_, reset = set_row >= 0, reset_row >= 0
        last = np.flatnonzero(np.append(instance[1:] != instance[:-1], True))
    if not latest_wins:
        again = raw_ns == state["step_ns"][instance]
        if timed is not None:
            again &= ~timed
        if again.any():
            reset = reset.copy()
            reset[again] &= ~state["set_at"][instance[again]]
    return Steps(signals, instance, time_ns, raw_ns, timed, set_, reset, set_row, reset_row, last)


def _merged_rows(
    signals: Signals, time_ns: NDArray[np.int64], first: NDArray[np.bool_]
) -> tuple[Signals, NDArray[np.int64], NDArray[np.int64]]:
    """Several at one time: the order among them must not decide whose value is shown."""
    timed = np.zeros(len(signals), np.bool_) if signals.timed is None else signals.timed
    real = signals.quality != PLANNED  # calibration counts only where nothing else was said
    order = np.lexsort((signals.value, ~signals.quality, real, ~timed, time_ns, signals.instance))
    signals = taken(signals, order)
    row, head = np.arange(len(signals))[:, None], np.flatnonzero(first)
    set_row = np.where(signals.set, row, -1)
    reset_row = np.where(signals.reset & ~signals.set, row, -1)
    return (
        signals,
        np.maximum.reduceat(set_row, head, axis=0),
        np.maximum.reduceat(reset_row, head, axis=0),
    )


def edges_of(steps: Steps, state: Columns, *, planned: bool) -> Edges:
    """`planned`: calibration plays a part, in these steps or in what stands."""
    if steps.last is None and not planned:
        return _edges_of_single_steps(steps, state)
    wide = steps.set.shape[1]
    found = [_edges_of_level(steps, state, level, planned=planned) for level in range(wide)]
    step = np.concatenate([step for step, _ in found])
    level = np.repeat(np.arange(wide), [len(step) for step, _ in found])
    value = np.concatenate([value for _, value in found])
    return Edges(level * len(state) + steps.instance[step], step, level, value)


def _edges_of_single_steps(steps: Steps, state: Columns) -> Edges:
    """No instance twice: every level of every instance at once."""
    wide = steps.set.shape[1]
    condition = seg.rows_of(state["condition"], steps.instance)
    now = steps.set | (condition & ~steps.reset)
    size = len(now)
    at = np.flatnonzero(seg.flat(now != condition))
    value = seg.flat(now)[at]
    if wide == 1:
        return Edges(steps.instance[at], at, np.zeros(len(at), np.int64), value)
    level = at // size
    step = at - level * size
    return Edges(level * len(state) + steps.instance[step], step, level, value)


def _edges_of_level(
    steps: Steps, state: Columns, level: int, *, planned: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(step, condition from there on) of one level, in the order of the steps."""
    set_ = steps.set[:, level]
    none = np.empty(0, np.int64), np.empty(0, np.bool_)
    if not set_.any() and not state["condition"][steps.instance[steps.newest], level].any():
        return none
    step = np.flatnonzero(set_ | steps.reset[:, level])
    if len(step) == 0:
        return none
    value, instance = set_[step], steps.instance[step]
    first = seg.heads(instance)
    head = np.flatnonzero(first)
    before = np.empty_like(value)
    before[1:] = value[:-1]
    before[head] = state["condition"][instance[head], level]
    edge = value != before
    if planned:
        quality = steps.signals.quality[steps.causes(step, level, value)]
        was_planned = np.zeros(len(step), np.bool_)
        was_planned[head] = state["quality"][instance[head], level] == PLANNED
        edge |= _turned_real(value, value & (quality != PLANNED), edge, first, was_planned)
    at = np.flatnonzero(edge)
    return step[at], value[at]


def _turned_real(
    value: NDArray[np.bool_],
    real: NDArray[np.bool_],
    edge: NDArray[np.bool_],
    first: NDArray[np.bool_],
    was_planned: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """The first real value in a run that calibration began: there a new run begins.

    `first`: rows that begin an instance; `was_planned`: of those, the run they may carry on.
    """
    goes_on = first & value & ~edge  # carries the open run on
    start = seg.starts_of(edge | first)
    is_real = seg.last_true(real, start) >= 0
    is_real |= (goes_on & ~was_planned)[start]
    before = np.empty_like(is_real)
    before[1:] = is_real[:-1]
    before[first] = (goes_on & ~was_planned)[first]
    turned: NDArray[np.bool_] = value & ~edge & is_real & ~before
    return turned


def taken(signals: Signals, order: NDArray[np.int64] | slice) -> Signals:
    return Signals(
        instance=signals.instance[order],
        time_ns=signals.time_ns[order],
        set=signals.set[order],
        reset=signals.reset[order],
        value=signals.value[order],
        quality=signals.quality[order],
        timed=None if signals.timed is None else signals.timed[order],
    )


def merged(parts: list[Signals], width: int) -> Signals:
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
    return taken(whole, np.lexsort((~timed, whole.time_ns, whole.instance)))
