"""A dense tick in which hardly anything happens, in plain numbers.

    rows   instance, time, value, quality, bits of levels set ▪·▪, of levels reset ·▪·

A call of numpy costs about a microsecond whatever it is asked; of a handful of levels each is known
in a tenth of that. So where few instances speak and few delays end, what moves is found as bits of
an instance, and the state is written where it changes. **Same events as `dense.tick`, to the bit**,
and under the same conditions; the same tests tell both.

Not here: when it is asked (program.py), why each step is as it is (dense.py, turns.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.turns import Changes
from gateway.contract.rule_kind import FOREVER, Columns, Signals

Int = NDArray[np.int64]

Row = tuple[int, int, float, int, tuple[int, int]]
"""What one instance says: instance, time, value, quality, bits of levels set and of levels reset.
"""

_Turn = tuple[int, int, bool, int, int, float, int]
"""Instance, time, by a sample of that time, level, when its run began, its value and quality."""

_Moves = tuple[int, int, int]
"""Bits of an instance's levels that move, of those that stand then, and when."""

_END: _Turn = (-1, 0, False, 0, 0, 0.0, 0)

_Change = tuple[int, int, int, int, int, int, float, int, float]
"""Time, position of the instance in the rule set, number, instance, level, when the run began that
decided it, its value and quality, limit."""


class Cells:
    """The state by key, as memory: to read a number there takes half as long as from an array. By
    instance, where all its levels are asked at once. Anew after the state has grown."""

    __slots__ = (
        "cause",
        "condition",
        "conditions",
        "due_ns",
        "floor_ns",
        "limits",
        "of",
        "off_ns",
        "on_ns",
        "output",
        "outputs",
        "position",
        "quality",
        "resets",
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
        self.limits, self.resets = state["limit"], state["reset"]
        self.floor_ns, self.step_ns, self.position = self._of("floor_ns", "step_ns", "position")
        self.conditions, self.outputs = state["condition"], state["output"]
        self.set_at = state["set_at"]

    def _of(self, *names: str) -> list[Any]:
        columns: list[Any] = [seg.flat(self.of[name]) for name in names]
        return [memoryview(column) for column in columns]

    def __deepcopy__(self, memo: dict[int, Any]) -> Cells:
        return Cells(copy.deepcopy(self.of, memo))

    def is_after(self, instances: list[int], times_ns: list[int]) -> bool:
        """Whether each time is later than the last word of its instance."""
        floor_ns = self.floor_ns
        for instance, time_ns in zip(instances, times_ns, strict=True):
            if time_ns <= floor_ns[instance]:
                return False
        return True

    def keep_said(self, rows: Iterable[Row]) -> None:
        """To know a repeat of its time by."""
        set_at, step_ns, wide = self.set_at, self.step_ns, self.wide
        for instance, time_ns, _, _, (sets, _) in rows:
            step_ns[instance] = time_ns
            set_at[instance] = _flags_of(sets, wide)


class TickOfFew:
    """A tick: what it found stands in its fields.

    stands: (instance, bits of the levels that stand) where one moved. lasted: keys of runs that
    took effect. waits: (when, which run) takes effect later.
    """

    __slots__ = ("_cells", "_now_ns", "_turns", "lasted", "stands", "waits")

    def __init__(self, cells: Cells, now_ns: int) -> None:
        self._cells, self._now_ns = cells, now_ns
        self.waits: list[tuple[int, int]] = []
        self.stands: list[tuple[int, int]] = []
        self.lasted: list[int] = []
        self._turns: list[_Turn] = []

    def take(self, rows: list[Row], late: list[int] | None) -> Changes | None:
        """Take in what instances say. `late`: keys whose delay ends by now; None: no clock is
        asked, a delay ends by the samples alone."""
        ends = late or []
        moves = self._moves(rows, ends)
        if ends:
            self._last(ends, moves)
        self._begin(rows, moves)
        told = self._told() if self._turns else None
        return _changes(told) if told else None

    def _moves(self, rows: list[Row], ends: list[int]) -> dict[int, _Moves]:
        """What each row moves. A row ahead of now ends delays by itself: they are added."""
        condition, due_ns, now_ns = self._cells.conditions, self._cells.due_ns, self._now_ns
        size, found = self._cells.size, dict[int, _Moves]()
        for instance, time_ns, _, _, (sets, resets) in rows:
            stood = _mask_of(condition[instance].tobytes())
            stands = sets | stood & ~resets
            found[instance] = stands ^ stood, stands, time_ns
            if time_ns > now_ns:
                keys = range(instance, instance + self._cells.wide * size, size)
                ends += [key for key in keys if now_ns < due_ns[key] <= time_ns]
        return found

    def _last(self, ends: list[int], moves: dict[int, _Moves]) -> None:
        """Runs take effect, at their deadline or the last word after it; not those that end before
        it."""
        cells = self._cells
        size, due_ns, floor_ns = cells.size, cells.due_ns, cells.floor_ns
        since_ns, cause, quality = cells.since_ns, cells.cause, cells.quality
        for key in ends:
            level, instance = divmod(key, size)
            time_ns = due_ns[key]
            if instance in moves:
                moved, _, ended_ns = moves[instance]
                if moved >> level & 1 and time_ns > ended_ns:
                    continue
            time_ns = max(time_ns, floor_ns[instance])
            run = since_ns[key], cause[key], quality[key]
            self._turns.append((instance, time_ns, False, level, *run))
            self.lasted.append(key)
            due_ns[key] = FOREVER

    def _begin(self, rows: list[Row], moves: dict[int, _Moves]) -> None:
        """Runs end, lasting or not, and others begin, of each level that moved."""
        cells, lasted, now_ns = self._cells, self.lasted, self._now_ns
        size, output, condition, due_ns = cells.size, cells.output, cells.condition, cells.due_ns
        since_ns, causes, qualities = cells.since_ns, cells.cause, cells.quality
        for instance, time_ns, cause, quality, _ in rows:
            cells.floor_ns[instance] = time_ns
            moved, stands, _ = moves[instance]
            if not moved:
                continue
            self.stands.append((instance, stands))
            for level in _levels_of(moved):
                key = instance + level * size
                now, is_told = stands >> level & 1, output[key]
                if key in lasted:
                    is_told = not is_told
                effect_ns = FOREVER
                if now != is_told:
                    delay_ns = cells.on_ns[key] if now else cells.off_ns[key]
                    effect_ns = time_ns + delay_ns
                    if effect_ns > now_ns and delay_ns:
                        self.waits.append((effect_ns, key))
                    else:
                        run = time_ns, cause, quality
                        self._turns.append((instance, effect_ns, delay_ns == 0, level, *run))
                        effect_ns = FOREVER
                condition[key] = now
                since_ns[key] = time_ns
                causes[key] = cause
                qualities[key] = quality
                due_ns[key] = effect_ns

    def _told(self) -> list[_Change]:
        """Turns of one instance at one time are one change, told by the level that decides it; the
        outputs turn."""
        turns, cells, told = self._turns, self._cells, list[_Change]()
        turns.sort()
        floor_ns, position = cells.floor_ns, cells.position
        of, mask, earlier, together = -1, 0, 0, list[_Turn]()
        for turn, after in zip(turns, [*turns[1:], _END], strict=True):
            instance, time_ns, _, level, began_ns, cause, quality = turn
            if instance != of:
                of, outputs = instance, cells.outputs[instance]
                mask = _mask_of(outputs.tobytes())
            if not together:
                earlier = mask.bit_length()
            mask ^= 1 << level
            outputs[level] = mask >> level & 1
            if after[0] == instance and after[:3] == turn[:3]:
                together.append(turn)
                continue
            floor_ns[instance] = max(floor_ns[instance], time_ns)
            now = mask.bit_length()
            if together:
                decides = max(now, earlier) - 1
                for other in (*together, turn):
                    if other[3] == decides:
                        began_ns, cause, quality = other[4:]
                together = []
            if now != earlier:
                bound = (
                    cells.limits[instance, now - 1] if now else cells.resets[instance, earlier - 1]
                )
                run = began_ns, cause, quality, float(bound)
                told.append((time_ns, position[instance], len(told), instance, now, *run))
        return told


def _changes(told: list[_Change]) -> Changes:
    """In the order in which a rule set tells them."""
    if len(told) > 1:
        told.sort()
    time_ns, _, _, instance, level, began_ns, value, quality, limit = zip(*told, strict=True)
    return Changes(
        np.array(instance, np.int64),
        np.array(level, np.uint8),
        np.array(time_ns, np.int64),
        np.array(began_ns, np.int64),
        np.array(value, np.float64),
        np.array(limit, np.float64),
        np.array(quality, np.uint8),
        is_told_in_order=True,
    )


_KNOWN_MAX = 1 << 12
"""Combinations of levels kept ready, of each of the three: all there are of twelve levels."""


@lru_cache(_KNOWN_MAX)
def _mask_of(flags: bytes) -> int:
    """A row of levels, a byte each, as bits: bit n for level n."""
    return sum(1 << level for level, is_on in enumerate(flags) if is_on)


@lru_cache(_KNOWN_MAX)
def _levels_of(mask: int) -> tuple[int, ...]:
    return tuple(level for level in range(mask.bit_length()) if mask >> level & 1)


@lru_cache(_KNOWN_MAX)
def _flags_of(mask: int, wide: int) -> NDArray[np.bool_]:
    return np.array([mask >> level & 1 for level in range(wide)], np.bool_)


def rows_of(signals: Signals) -> list[Row]:
    """What few signals say."""
    names = (signals.instance, signals.time_ns, signals.value, signals.quality)
    columns = (column.tolist() for column in names)
    said = zip(_bits(signals.set), _bits(signals.reset), strict=True)
    return list(zip(*columns, said, strict=True))


def _bits(flags: NDArray[np.bool_]) -> list[int]:
    found = []
    for row in flags.tolist():
        mask = 0
        for level, is_on in enumerate(row):
            mask |= is_on << level
        found.append(mask)
    return found
