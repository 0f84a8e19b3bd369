"""A dense tick in which hardly anything happens, in plain numbers.

A call of numpy costs about a microsecond whatever it is asked; of a handful of levels each is known
in a tenth of that. So where few instances speak and few delays end, levels are looked at one by
one and the state is written where it changes. **Same events as `dense.tick`, to the bit**, and
under the same conditions; the same tests tell both.

Not here: when it is asked (program.py), why each step is as it is (dense.py, turns.py).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.dense import Tick
from alarm_rules.turns import Changes
from gateway.contract.rule_kind import FOREVER, Columns, Signals

Int = NDArray[np.int64]

CELLS_MAX = 32
"""Levels of instances that speak, and delays that end: beyond about 40 numpy is quicker
(measured)."""

_NONE = np.empty(0, np.int64)
_IN_TIME = itemgetter(0, 2, 3)

_Turn = tuple[int, int, int, bool, int, float, int]
"""Instance, level, time, by a sample of that time, when its run began, its value and quality."""


def tick_few(state: Columns, signals: Signals, now_ns: int, *, late: Int | None) -> Tick:
    """As `dense.tick`."""
    of = _Cells(state)
    due_ns = FOREVER
    said = signals.instance.tolist()
    if said:
        due_ns = of.take_in(said, signals, now_ns, is_swept=late is not None)
    if late is not None and len(late):
        for key in late.tolist():
            if key % of.size not in said:
                of.last(key)
    changes = of.finish(said, signals)
    begun = np.array(sorted(of.begun), np.int64) if of.begun else _NONE
    return Tick(changes, begun, np.array(of.lasted, np.int64) if of.lasted else _NONE, due_ns)


class _Cells:
    """The state by key, and what is found."""

    def __init__(self, state: Columns) -> None:
        self.state, self.size = state, len(state)
        self.column = {
            name: seg.flat(state[name])
            for name in ("condition", "output", "due_ns", "since_ns", "cause", "quality")
        }
        self.begun: list[int] = []
        self.lasted: list[int] = []
        self.old: list[_Turn] = []
        self.new: list[_Turn] = []

    def last(self, key: int) -> None:
        """The run takes effect, at its deadline or the last word after it."""
        level, instance = divmod(key, self.size)
        column = self.column
        due_ns = column["due_ns"].item(key)
        time_ns = max(due_ns, self.state["floor_ns"].item(instance))
        run = (column[name].item(key) for name in ("since_ns", "cause", "quality"))
        self.old.append((instance, level, time_ns, False, *run))
        self.lasted.append(key)
        column["due_ns"][key] = FOREVER

    def take_in(self, said: list[int], signals: Signals, now_ns: int, *, is_swept: bool) -> int:
        """Runs end and begin. Returns the next deadline of those that began."""
        condition, due_ns = self.column["condition"], self.column["due_ns"]
        sets, resets = signals.set.tolist(), signals.reset.tolist()
        next_ns = FOREVER
        for row, (instance, time_ns) in enumerate(zip(said, signals.time_ns.tolist(), strict=True)):
            known_ns = max(time_ns, now_ns)
            end_ns = known_ns if is_swept else time_ns
            key = instance
            for is_set, is_reset in zip(sets[row], resets[row], strict=True):
                stood = condition.item(key)
                now = is_set or (stood and not is_reset)
                is_edge = now != stood
                has_lasted = due_ns.item(key) <= (time_ns if is_edge else end_ns)
                if has_lasted:
                    self.last(key)
                if is_edge:
                    found_ns = self._begin(key, now, signals, row, (time_ns, known_ns), has_lasted)
                    next_ns = min(next_ns, found_ns)
                key += self.size
        return next_ns

    def _begin(  # noqa: PLR0917  one run
        self,
        key: int,
        now: bool,
        signals: Signals,
        row: int,
        at: tuple[int, int],
        has_lasted: bool,
    ) -> int:
        """A run begins. Returns when it takes effect, if it is to be waited for."""
        time_ns, known_ns = at
        level, instance = divmod(key, self.size)
        column = self.column
        delay_ns = self.state["on_ns" if now else "off_ns"].item(instance, level)
        cause, quality = signals.value.item(row), signals.quality.item(row)
        effect_ns = FOREVER
        if now != (column["output"].item(key) != has_lasted):
            effect_ns = time_ns + delay_ns
            if effect_ns <= known_ns:
                self.new.append(
                    (instance, level, effect_ns, delay_ns == 0, time_ns, cause, quality)
                )
                effect_ns = FOREVER
        self.begun.append(key)
        column["condition"][key] = now
        column["since_ns"][key] = time_ns
        column["cause"][key] = cause
        column["quality"][key] = quality
        column["due_ns"][key] = effect_ns
        return effect_ns

    def finish(self, said: list[int], signals: Signals) -> Changes | None:
        """What turned, as changes; the outputs, and the last words."""
        turns = [*self.old, *self.new]
        changes = self._changes(sorted(turns, key=_IN_TIME)) if turns else None
        floor_ns, output = self.state["floor_ns"], self.column["output"]
        if said:
            floor_ns[signals.instance] = signals.time_ns
        for instance, level, time_ns, *_ in turns:
            output[level * self.size + instance] ^= True
            if floor_ns.item(instance) < time_ns:
                floor_ns[instance] = time_ns
        return changes

    def _changes(self, turns: list[_Turn]) -> Changes:
        """Turns of one instance at one time are one change, told by the level that decides it."""
        told: list[Any] = []
        mask, of = 0, -1
        at = 0
        while at < len(turns):
            instance, _, time_ns, sampled, *_ = turns[at]
            if instance != of:
                of, mask = instance, self._standing(instance)
            earlier, end = mask.bit_length(), at
            while end < len(turns) and _IN_TIME(turns[end]) == (instance, time_ns, sampled):
                mask ^= 1 << turns[end][1]
                end += 1
            level = mask.bit_length()
            if level != earlier:
                decides = max(level, earlier) - 1
                turn = [turn for turn in turns[at:end] if turn[1] == decides][-1]
                limit = (
                    self.state["limit"].item(instance, level - 1)
                    if level
                    else self.state["reset"].item(instance, earlier - 1)
                )
                told.append((instance, level, time_ns, turn[4], turn[5], limit, turn[6]))
            at = end
        columns = zip(*told, strict=True) if told else [()] * len(_TYPES)
        return Changes(*map(np.array, columns, _TYPES))

    def _standing(self, instance: int) -> int:
        """Its outputs, bit n for level n."""
        mask, output = 0, self.column["output"]
        for level, key in enumerate(range(instance, len(output), self.size)):
            mask |= output.item(key) << level
        return mask


_TYPES = (np.int64, np.uint8, np.int64, np.int64, np.float64, np.float64, np.uint8)
"""Of the columns of `Changes`."""
