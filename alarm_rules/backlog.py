"""Many samples of a point at once, standing together in order of time: a backlog.

    rows    p7 p7 p7 p7 │ p2 p2 p2 │ p9 p9 p9 p9          runs, one for each point
    value    ·  ·  ·  · │  · ▲  ▲  │  ▲  ▼  ▲  ▼          ▲ ▼ beyond its band
    rounds                   1        1  2  3  4          one tick of all runs that have one left

What is known of all rows together spares a look at each: they are later than all that was heard of
their points, usable, and each run ascends. Runs that stay inside their bands are done with that.
For the others the first row beyond the band is told as a tick, which moves the band; then the next
row that is beyond *that*, until there is none: a point pays for what happens to it, not for its
samples. Where most points have something to tell at every row, the rows are told column by column.

Every row of a run is later than the one before it, so no row can say what another of its time takes
back, and what stands between two rows that move a level needs no telling.

Not here: when rows qualify (lane.py), what a tick does (dense.py, broad.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import FOREVER, NEVER, Rows, Tick
from gateway.model.batch import Batch

Int = NDArray[np.int64]
Floats = NDArray[np.float64]

SIZE_MIN = 64
"""Rows that are not worth the look whether they are a backlog (engineering)."""

_ROWS_AT_ONCE = 1 << 15
"""Of a column these are 256 KB: a cache holds them while they are looked at twice."""
_TURNED_AT_ONCE = 1 << 9
"""Runs: of ten numbers they are 40 KB. Measured: a third of the time of 16,384 at once."""


@dataclass(eq=False)
class Backlog:
    """Rows of which those of a point stand together and ascend in time.

    points: of each run, none twice. head: its first row. each: rows of every run; 0 where runs have
    different lengths. tick: what is known of all rows together.
    """

    batch: Batch
    time_ns: Int
    points: Int
    head: Int
    each: int
    tick: Tick
    told: Callable[[], Rows] = field(repr=False)  # the rows as they are told to everybody else

    def __len__(self) -> int:
        return len(self.time_ns)

    @cached_property
    def rows(self) -> Rows:
        """As every kind can judge them. Not to be asked for after the call."""
        return self.told()

    @cached_property
    def stop(self) -> Int:
        """Behind the last row of each run."""
        return np.append(self.head[1:], len(self.time_ns))

    def lasts(self, column: NDArray[Any]) -> NDArray[Any]:
        """Of each run the last row of a column."""
        if self.each:
            return np.ascontiguousarray(column[self.each - 1 :: self.each])
        return column.take(self.stop - 1)

    @cached_property
    def newest_ns(self) -> Int:
        return self.lasts(self.time_ns)

    def by_row(self, column: NDArray[Any]) -> NDArray[Any]:
        """What stands by run, for each row."""
        return np.repeat(column, self.each or self.stop - self.head)

    def run_of(self, row: Int) -> Int:
        if self.each:
            return row // self.each
        return self.head.searchsorted(row, side="right") - 1

    def firsts(self, low: Floats, high: Floats) -> tuple[Int, Int]:
        """(run, row): the first row beyond the band of each run that has one."""
        value = self.batch.value
        beyond = value >= self.by_row(high)
        beyond |= value <= self.by_row(low)
        return self._firsts_of(beyond)

    def firsts_of_common(
        self, low: float, high: float, others: Int, bands: tuple[Floats, Floats]
    ) -> tuple[Int, Int]:
        """The same, where most runs have one band, and the runs `others` have bands of their
        own."""
        value = self.batch.value
        beyond = value >= high
        if not self.tick.least > low:
            beyond |= value <= low
        owner, ordinal = seg.expand((self.stop - self.head).take(others))
        at = self.head.take(others).take(owner) + ordinal
        value = value.take(at)
        beyond[at] = (value >= bands[1].take(owner)) | (value <= bands[0].take(owner))
        return self._firsts_of(beyond)

    def _firsts_of(self, beyond: NDArray[np.bool_]) -> tuple[Int, Int]:
        row = beyond.nonzero()[0]
        run = self.run_of(row)
        first = seg.heads(run)
        return run[first], row[first]

    def nexts(
        self, run: Int, row: Int, low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> tuple[Int, Int]:
        """The next one of these runs behind the given rows."""
        owner, ordinal = seg.expand(self.stop[run] - row - 1)
        at = row[owner] + ordinal + 1
        value = self.batch.value[at]
        beyond = ((value >= high[owner]) | (value <= low[owner])).nonzero()[0]
        owner = owner[beyond]
        first = seg.heads(owner)
        return run[owner[first]], at[beyond[first]]

    def columns(self, run: Int) -> Iterator[Column]:
        """The first row of each of these runs, then the second, …"""
        row, batch = self.head[run], self.batch
        if self.each:
            named = (self.time_ns, batch.value, batch.quality)
            columns: Any = [_turned(column, self.each, run) for column in named]
            for told in zip(*columns, strict=True):
                yield Column(None, *told)
            return
        left = self.stop[run] - row
        for step in range(int(left.max(initial=0))):
            has = left > step
            at = row[has] + step
            yield Column(has, self.time_ns[at], batch.value[at], batch.quality[at])


class Column(NamedTuple):
    """One row of each of some runs; `has`: which of the runs have it, None: all."""

    has: NDArray[np.bool_] | None
    time_ns: Int
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]


def _turned(column: NDArray[Any], each: int, run: Int) -> NDArray[Any]:
    """The rows of some runs, one below the other: whole runs are picked, and then turned, since to
    pick every tenth value is three times slower; a few at a time, which the nearest cache holds."""
    runs = column.reshape(-1, each)
    found = np.empty((each, len(run)), column.dtype)
    for first in range(0, len(run), _TURNED_AT_ONCE):
        part = slice(first, first + _TURNED_AT_ONCE)
        found[:, part] = runs.take(run[part], axis=0).T
    return found


def runs_of(point: NDArray[np.int32]) -> tuple[Int, int] | None:
    """(first rows, length of every run or 0) where rows of one point mostly stand together."""
    size = len(point)
    begins = point[1:] != point[:-1]
    count = int(np.count_nonzero(begins)) + 1
    if size < SIZE_MIN or 2 * count > size:
        return None
    head = np.empty(count, np.int64)
    head[0] = 0
    np.add(begins.nonzero()[0], 1, out=head[1:])
    each = size // count
    if count * each != size or not np.array_equal(head, np.arange(0, size, each)):
        each = 0
    return head, each


def silence_bounds(time_ns: Int, head: Int, first_ns: Int) -> tuple[int, int]:
    """(least, most) time since the row before, over all rows; `first_ns`: that of the first row of
    each run."""
    least, most = FOREVER, NEVER
    size = len(time_ns)
    begins = range(0, size, _ROWS_AT_ONCE)
    heads = [*head.searchsorted(begins).tolist(), len(head)]
    scratch = np.empty(min(size, _ROWS_AT_ONCE), np.int64)
    for number, begin in enumerate(begins):
        stop = min(begin + _ROWS_AT_ONCE, size)
        since_ns = scratch[: stop - begin]
        later = max(begin, 1)
        np.subtract(time_ns[later:stop], time_ns[later - 1 : stop - 1], since_ns[later - begin :])
        runs = slice(heads[number], heads[number + 1])
        since_ns[head[runs] - begin] = first_ns[runs]
        least = min(least, int(np.minimum.reduce(since_ns)))
        most = max(most, int(np.maximum.reduce(since_ns)))
    return least, most
