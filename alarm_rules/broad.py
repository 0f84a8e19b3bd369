"""The path of a tick that concerns most of a range of instances: level by level, nothing picked.

    instances   0 1 2 3 4 …                 a column of memory for each level
    H           ▪ ▪ · ▪ ▪      edge ──mask──▶ since, cause, due where it is set, by arithmetic
    HH          · ▪ · · ▪

To pick what moved and to put it back costs a dozen times what it costs to write it over all of a
range: masks as integers choose between old and new without a branch. What turned a level is little,
and picked. By pieces a cache holds.

**Same events as `dense`, to the bit**, and under the same conditions; each row is one instance of a
range, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.dense import Int, Tick, Told, changes_by
from alarm_rules.turns import Changes, chained
from gateway.contract.rule_kind import FOREVER, NEVER, Columns, Signals

Mask = NDArray[np.bool_]

PIECE = 1 << 14
"""Instances at once: their columns are about a megabyte. Measured: fewer at once cost more in calls
than a cache saves."""
_FEW_SHARE = 16
"""Of so many rows one moved: then it is quicker to pick."""
_NONE = np.empty(0, np.int64)


def tick_range(
    state: Columns, signals: Signals, instances: slice, now_ns: int, *, due_ns: int
) -> Tick:
    """Take the signals in. `due_ns`: no run ends earlier. `Tick.due_ns` is the next deadline: of
    all these instances if one may have passed by `now_ns`, else of the runs that began. Keys are
    not told."""
    swept, least_ns = due_ns <= now_ns, due_ns
    found: list[Changes] = []
    due_ns = FOREVER
    for first in range(instances.start, instances.stop, PIECE):
        part = slice(first, min(first + PIECE, instances.stop))
        piece = _Piece(state, signals, part, first - instances.start)
        may_end = least_ns <= max(piece.newest_ns, now_ns)
        for level in range(state["condition"].shape[1]):
            found_ns = piece.take_in(level, now_ns, swept=swept, may_end=may_end)
            due_ns = min(due_ns, found_ns)
        changes = piece.finish()
        if changes is not None:
            found.append(changes)
    return Tick(chained(found), _NONE, _NONE, due_ns)


class _Piece:
    """Some of the instances, and what is found of them."""

    def __init__(self, state: Columns, signals: Signals, part: slice, row: int) -> None:
        rows = slice(row, row + part.stop - part.start)
        self.state, self.part = state, part
        self.set, self.reset = signals.set[rows], signals.reset[rows]
        self.time_ns, self.value = signals.time_ns[rows], signals.value[rows]
        self.quality = signals.quality[rows]
        self.newest_ns = int(np.maximum.reduce(self.time_ns))
        self._known_ns: dict[int, Int] = {}
        self.old: list[Told] = []
        self.new: list[Told] = []

    def column(self, name: str, level: int) -> NDArray[Any]:
        """A level of the piece: a view, to write into."""
        found: NDArray[Any] = self.state[name].T[level, self.part]
        return found

    def take_in(self, level: int, now_ns: int, *, swept: bool, may_end: bool) -> int:
        """Runs of one level end and begin. Returns the next deadline: of those that began, or, if
        `swept`, of all."""
        condition, due_ns = self.column("condition", level), self.column("due_ns", level)
        output = self.column("output", level)
        now = np.greater(condition, self.reset[:, level])  # stood and was not reset
        now |= self.set[:, level]
        edge = now != condition
        count = int(np.count_nonzero(edge))
        known_ns = self.known_ns(now_ns) if count or may_end else self.time_ns
        if may_end and np.minimum.reduce(due_ns) <= max(self.newest_ns, now_ns if swept else NEVER):
            end_ns = self.time_ns
            if swept:
                end_ns = known_ns.copy() if count else known_ns
                if count:
                    _blend(end_ns, self.time_ns, _mask(edge))
            output = self._lasted(level, (due_ns <= end_ns).nonzero()[0], output)
        found = FOREVER
        if count * _FEW_SHARE < len(edge):
            if count:
                found = self._begin_some(level, edge.nonzero()[0], now, output, known_ns)
        else:
            found = self._begin(level, (edge, count), now, output, known_ns)
        return int(np.minimum.reduce(due_ns)) if swept else found

    def known_ns(self, now_ns: int) -> Int:
        """Up to when each instance is known."""
        if now_ns == NEVER:
            return self.time_ns
        if now_ns not in self._known_ns:
            self._known_ns[now_ns] = np.maximum(self.time_ns, now_ns)
        return self._known_ns[now_ns]

    def _lasted(self, level: int, at: Int, output: Mask) -> Mask:
        """Old runs take effect; returns the output after them."""
        if len(at) == 0:
            return output
        due_ns = self.column("due_ns", level)
        floor_ns = self.state["floor_ns"][self.part].take(at)
        columns = (self.column(name, level).take(at) for name in ("since_ns", "cause", "quality"))
        sampled = np.zeros(len(at), np.bool_)
        time_ns = np.maximum(due_ns.take(at), floor_ns)
        self.old.append(Told(self._key(level, at), time_ns, sampled, *columns))
        due_ns[at] = FOREVER
        output = output.copy()
        output[at] ^= True
        return output

    def _key(self, level: int, at: Int) -> Int:
        key: Int = at + (level * len(self.state) + self.part.start)
        return key

    def _delay(self, level: int, now: Mask, edges: tuple[Mask, int]) -> Int:
        """Of the runs that begin; mostly all of them go one way."""
        edge, count = edges
        on_ns, off_ns = self.column("on_ns", level), self.column("off_ns", level)
        rising = np.count_nonzero(now & edge)
        delay_ns: Int = on_ns if rising else off_ns
        if rising in {0, count}:
            return delay_ns
        delay_ns = on_ns ^ off_ns
        delay_ns &= _mask(now)
        delay_ns ^= off_ns
        return delay_ns

    def _begin(
        self, level: int, edges: tuple[Mask, int], now: Mask, output: Mask, known_ns: Int
    ) -> int:
        """The runs that begin, of many."""
        edge, count = edges
        waits = now != output
        waits &= edge
        waiting = int(np.count_nonzero(waits))
        effect_ns = self._effect(level, edges, now, known_ns, (waits, waiting))
        columns = (
            ("due_ns", effect_ns),
            ("since_ns", self.time_ns),
            ("cause", self.value),
            ("quality", self.quality),
        )
        if count == len(edge):
            for name, new in columns:
                self.column(name, level)[:] = new
        else:
            mask = _mask(edge)
            for name, new in columns[:3]:
                _blend(self.column(name, level).view(np.int64), new.view(np.int64), mask)
            _blend(self.column("quality", level), self.quality, _mask8(edge))
        self.column("condition", level)[:] = now
        return int(np.minimum.reduce(effect_ns)) if waiting else FOREVER

    def _effect(
        self,
        level: int,
        edges: tuple[Mask, int],
        now: Mask,
        known_ns: Int,
        waiting: tuple[Mask, int],
    ) -> Int:
        """When runs that begin take effect; FOREVER for one that changes nothing or has."""
        waits, count = waiting
        if count == 0:
            return np.full(len(waits), FOREVER)
        effect_ns = self.time_ns + self._delay(level, now, edges)
        at_once = effect_ns <= known_ns
        at_once &= waits
        if np.count_nonzero(at_once):
            self._turned(level, at_once.nonzero()[0], effect_ns)
            waits ^= at_once
        elif count == edges[1]:  # what begins waits, and nothing else is asked of
            return effect_ns
        effect_ns ^= FOREVER
        effect_ns &= _mask(waits)
        effect_ns ^= FOREVER
        return effect_ns

    def _begin_some(self, level: int, at: Int, now: Mask, output: Mask, known_ns: Int) -> int:
        """The runs that begin, of few."""
        value, time_ns = now.take(at), self.time_ns.take(at)
        on_ns, off_ns = self.column("on_ns", level).take(at), self.column("off_ns", level).take(at)
        effect_ns = time_ns + np.where(value, on_ns, off_ns)
        waits = value != output.take(at)
        at_once = waits & (effect_ns <= known_ns.take(at))
        if np.count_nonzero(at_once):
            self._turned(level, at[at_once], effect_ns[at_once], is_picked=True)
        effect_ns[~waits | at_once] = FOREVER
        for name, new in (
            ("due_ns", effect_ns),
            ("since_ns", time_ns),
            ("cause", self.value.take(at)),
            ("quality", self.quality.take(at)),
            ("condition", value),
        ):
            self.column(name, level)[at] = new
        return int(np.minimum.reduce(effect_ns))

    def _turned(self, level: int, at: Int, effect_ns: Int, *, is_picked: bool = False) -> None:
        began_ns = self.time_ns.take(at)
        time_ns = effect_ns if is_picked else effect_ns.take(at)
        self.new.append(
            Told(
                self._key(level, at),
                time_ns,
                time_ns == began_ns,
                began_ns,
                self.value.take(at),
                self.quality.take(at),
            )
        )

    def finish(self) -> Changes | None:
        """What turned, as changes; the outputs, and the last words."""
        state, part = self.state, self.part
        told = [*self.old, *self.new]
        changes = changes_by(state, told) if told else None
        state["floor_ns"][part] = self.time_ns
        output = seg.flat(state["output"])
        for turned in told:
            output[turned.key] ^= True
            np.maximum.at(state["floor_ns"], turned.key % len(state), turned.time_ns)
        return changes


def _mask(flags: Mask) -> Int:
    """All bits set where true."""
    return _mask8(flags).view(np.int8).astype(np.int64)


def _mask8(flags: Mask) -> NDArray[np.uint8]:
    return np.negative(flags.view(np.uint8))


def _blend(into: NDArray[Any], new: NDArray[Any], mask: NDArray[Any]) -> None:
    """`new` where the mask is set."""
    moved = into ^ new
    moved &= mask
    into ^= moved
