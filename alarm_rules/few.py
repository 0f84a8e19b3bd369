"""A dense tick in which hardly anything happens, in plain numbers.

    rows   instance, time, value, quality, bits of levels set ▪·▪, of levels reset ·▪·

A call of numpy costs about a microsecond whatever it is asked; of a handful of levels each is known
in a tenth of that. So where few instances speak and few delays end, levels are looked at one by
one and the state is written where it changes. **Same events as `dense.tick`, to the bit**, and
under the same conditions; the same tests tell both.

Not here: when it is asked (program.py), why each step is as it is (dense.py, turns.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.turns import Changes
from gateway.contract.rule_kind import FOREVER, Columns, Signals

Int = NDArray[np.int64]

Row = tuple[int, int, float, int, int, int]
"""What one instance says: instance, time, value, quality, bits of levels set, of levels reset."""

_Turn = tuple[int, int, bool, int, int, float, int]
"""Instance, time, by a sample of that time, level, when its run began, its value and quality."""

_TYPES = (np.int64, np.uint8, np.int64, np.int64, np.float64, np.float64, np.uint8)
"""Of the columns of `Changes`."""


class Cells:
    """The state by key, as memory: to read a number there takes half as long as from an array.
    Anew after the state has grown."""

    __slots__ = (
        "cause",
        "condition",
        "due_ns",
        "floor_ns",
        "limit",
        "of",
        "off_ns",
        "on_ns",
        "output",
        "quality",
        "reset",
        "set_at",
        "since_ns",
        "size",
        "step_ns",
        "wide",
    )

    def __init__(self, state: Columns) -> None:
        self.of, self.size = state, len(state)
        self.wide = state["condition"].shape[1]
        self.condition, self.output, self.due_ns = self._of("condition", "output", "due_ns")
        self.since_ns, self.cause, self.quality = self._of("since_ns", "cause", "quality")
        self.on_ns, self.off_ns = self._of("on_ns", "off_ns")
        self.limit, self.reset = self._of("limit", "reset")
        self.floor_ns, self.set_at, self.step_ns = self._of("floor_ns", "set_at", "step_ns")

    def _of(self, *names: str) -> list[Any]:
        columns: list[Any] = [seg.flat(self.of[name]) for name in names]
        return [memoryview(column) for column in columns]

    def __deepcopy__(self, memo: dict[int, Any]) -> Cells:
        return Cells(copy.deepcopy(self.of, memo))

    def is_after(self, rows: Iterable[Row]) -> bool:
        """Whether each row is later than the last word of its instance."""
        floor_ns = self.floor_ns
        return all(row[1] > floor_ns[row[0]] for row in rows)

    def outputs(self, instance: int) -> int:
        """Of an instance's levels, bit n for level n."""
        output, mask, bit = self.output, 0, 1
        for key in range(instance, instance + self.wide * self.size, self.size):
            if output[key]:
                mask |= bit
            bit += bit
        return mask

    def keep_said(self, rows: Iterable[Row]) -> None:
        """To know a repeat of its time by."""
        set_at, step_ns = self.set_at, self.step_ns
        every, size = self.wide * self.size, self.size
        for instance, time_ns, _, _, sets, _ in rows:
            step_ns[instance] = time_ns
            for key in range(instance, instance + every, size):
                set_at[key] = sets & 1
                sets >>= 1


class TickOfFew:
    """A tick: what it found stands in its fields.

    stands: (instance, bits of the levels that stand) where one moved. begun, lasted: keys of runs.
    waits: (when, which run) takes effect later.
    """

    __slots__ = ("_cells", "_now_ns", "_turns", "begun", "lasted", "stands", "waits")

    def __init__(self, cells: Cells, now_ns: int) -> None:
        self._cells, self._now_ns = cells, now_ns
        self.waits: list[tuple[int, int]] = []
        self.stands: list[tuple[int, int]] = []
        self.begun: list[int] = []
        self.lasted: list[int] = []
        self._turns: list[_Turn] = []

    def take(self, rows: list[Row], late: list[int] | None) -> Changes | None:
        """Take in what instances say. `late`: keys whose delay ends by now, ascending; None: no
        clock is asked, a delay ends by the samples alone."""
        floor_ns, size = self._cells.floor_ns, self._cells.size
        for row in rows:
            self._take_row(row, is_swept=late is not None)
        if late:
            said = {row[0] for row in rows}
            for key in late:
                if key % size not in said:
                    self._last(key)
        changes = self._changes() if self._turns else None
        for row in rows:
            floor_ns[row[0]] = row[1]
        output = self._cells.output
        for instance, time_ns, _, level, *_ in self._turns:
            key = instance + level * size
            output[key] = not output[key]
            floor_ns[instance] = max(floor_ns[instance], time_ns)
        return changes

    def _take_row(self, row: Row, *, is_swept: bool) -> None:
        """Runs end and begin."""
        instance, time_ns, _, _, sets, resets = row
        size, condition, due_ns = self._cells.size, self._cells.condition, self._cells.due_ns
        known_ns = max(time_ns, self._now_ns)
        end_ns = known_ns if is_swept else time_ns
        mask, is_moved, key, bit = 0, False, instance, 1
        for _ in range(self._cells.wide):
            stood = condition[key]
            now = sets & bit != 0 or (stood and not resets & bit)
            if now:
                mask |= bit
            is_edge = now != stood
            has_lasted = due_ns[key] <= (time_ns if is_edge else end_ns)
            if has_lasted:
                self._last(key)
            if is_edge:
                is_moved = True
                self._begin(key, row, known_ns, now=now, has_lasted=has_lasted)
            key += size
            bit += bit
        if is_moved:
            self.stands.append((instance, mask))

    def _last(self, key: int) -> None:
        """The run takes effect, at its deadline or the last word after it."""
        cells = self._cells
        level, instance = divmod(key, self._cells.size)
        time_ns = max(cells.due_ns[key], cells.floor_ns[instance])
        run = (cells.since_ns[key], cells.cause[key], cells.quality[key])
        self._turns.append((instance, time_ns, False, level, *run))
        self.lasted.append(key)
        cells.due_ns[key] = FOREVER

    def _begin(self, key: int, row: Row, known_ns: int, *, now: bool, has_lasted: bool) -> None:
        instance, time_ns, cause, quality, _, _ = row
        cells = self._cells
        effect_ns = FOREVER
        if now != (cells.output[key] != has_lasted):
            delay_ns = (cells.on_ns if now else cells.off_ns)[key]
            effect_ns = time_ns + delay_ns
            if effect_ns <= known_ns:
                level = key // self._cells.size
                turn = (instance, effect_ns, delay_ns == 0, level, time_ns, cause, quality)
                self._turns.append(turn)
                effect_ns = FOREVER
            else:
                self.waits.append((effect_ns, key))
        self.begun.append(key)
        cells.condition[key] = now
        cells.since_ns[key] = time_ns
        cells.cause[key] = cause
        cells.quality[key] = quality
        cells.due_ns[key] = effect_ns

    def _changes(self) -> Changes:
        """Turns of one instance at one time are one change, told by the level that decides it."""
        turns = sorted(self._turns)
        cells, told = self._cells, list[tuple[Any, ...]]()
        mask, of, at = 0, -1, 0
        while at < len(turns):
            first = turns[at]
            instance, when = first[0], first[:3]
            if instance != of:
                of, mask = instance, cells.outputs(instance)
            earlier, end = mask.bit_length(), at
            while end < len(turns) and turns[end][:3] == when:
                mask ^= 1 << turns[end][3]
                end += 1
            level = mask.bit_length()
            if level != earlier:
                decides = max(level, earlier) - 1
                turn = first
                if end - at > 1:
                    turn = [turn for turn in turns[at:end] if turn[3] == decides][-1]
                bound, of_level = (cells.limit, level) if level else (cells.reset, earlier)
                limit = bound[instance + (of_level - 1) * cells.size]
                told.append((instance, level, first[1], turn[4], turn[5], limit, turn[6]))
            at = end
        columns = zip(*told, strict=True) if told else [()] * len(_TYPES)
        return Changes(*map(np.array, columns, _TYPES))


def rows_of(signals: Signals) -> list[Row]:
    """What few signals say."""
    names = (signals.instance, signals.time_ns, signals.value, signals.quality)
    columns = (column.tolist() for column in names)
    return list(zip(*columns, _bits(signals.set), _bits(signals.reset), strict=True))


def _bits(flags: NDArray[np.bool_]) -> list[int]:
    found = []
    for row in flags.tolist():
        mask = 0
        for level, is_on in enumerate(row):
            mask |= is_on << level
        found.append(mask)
    return found
