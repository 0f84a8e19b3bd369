"""What is known of many rows together, so that most of them need never be looked at.

    rows      p0 p0 p0 p0 │ p1 p1 p1 │ p2 p2 p2 p2        runs of one point, in order of time
    outline    0.3 … 0.5  │ 0.4 … 1.2│  0.3 … 0.4         least, most, longest silence, bad or not
    judged        -       │  ·  ▲  ▲ │      -             only the runs that may say something

History comes out of a store as such runs, a day of a point at a time. Made once, an outline serves
every rule set that judges the rows. A run is **plain** when each of its rows is good, a number, and
later than the row before; a plain run whose bounds no rule minds can change nothing but when its
point was last heard. That is decided by the kinds (`quiet`, in gateway/contract/rule_kind.py)
against what stands at that moment, and costs one look a run.

**In pieces of time.** A day in which something happens for half an hour is not quiet; two thirds of
it are. Long runs are therefore cut at a few moments, the same for all points, and judged piece by
piece: `pieces`.

Exact, not a guess: what is not proven quiet by its bounds is judged row by row.

Not here: what a kind minds (kinds/), what was heard before (lane.py, gaps.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import FOREVER
from gateway.model.batch import Batch
from gateway.model.quality import EARLIEST_BELIEVED_NS, UNCERTAIN

RUN_ROWS_MIN = 32
"""Rows a run has on average, at least: an outline of shorter ones costs what it spares
(engineering)."""
PIECES = 3
PIECE_ROWS_MIN = 128
"""Of a run, on average; shorter pieces cost more calls than they spare rows (both measured: a year
of a thousand points)."""
BLOCK_ROWS = 1 << 16
"""Half a megabyte of a column: stays near the core while several figures are made of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Figures of each run of a batch, by column. Times are the devices' own.

    start, stop: its rows. step_ns: the longest time from one row to the next, 0 for a single row.
    lag_ns, ahead_ns: the longest a row took from its source time to receipt, and the reverse.
    is_plain: see above. is_in_order: no row is older, or was received earlier, than the one before.
    A value of NaN makes `least` and `most` NaN.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    point: NDArray[np.int64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    first_ns: NDArray[np.int64]
    last_ns: NDArray[np.int64]
    first_received_ns: NDArray[np.int64]
    last_received_ns: NDArray[np.int64]
    step_ns: NDArray[np.int64]
    lag_ns: NDArray[np.int64]
    ahead_ns: NDArray[np.int64]
    is_plain: NDArray[np.bool_]
    is_in_order: NDArray[np.bool_]
    finer: Outline | None = None  # of the same rows, each run cut at `cuts_ns`
    cuts_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.start)

    @property
    def row_count(self) -> int:
        return int((self.stop - self.start).sum())

    def part(self, runs: slice) -> Outline:
        """Of a piece of the batch that begins with the first of these runs."""
        finer = None
        if self.finer is not None:
            cut = self.finer.start.searchsorted
            ends = self.start[runs][0], self.stop[runs][-1]
            finer = self.finer.part(slice(int(cut(ends[0])), int(cut(ends[1]))))
        found = self.only(runs, finer)
        first = found.start[0]
        return replace(found, start=found.start - first, stop=found.stop - first)

    def taken(self, batch: Batch) -> Batch:
        """The rows it is of."""
        if self.row_count == len(batch):
            return batch
        return batch.take(self.rows(np.ones(len(self), np.bool_)))

    def rows(self, runs: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of some runs."""
        start, stop = self.start[runs], self.stop[runs]
        owner, ordinal = seg.expand(stop - start)
        found: NDArray[np.int64] = start[owner] + ordinal
        return found

    @property
    def is_own_time(self) -> bool:
        """No row is ahead of its receipt, or older than believed: but for flagged ones all are
        judged at the devices' own times."""
        return bool((self.ahead_ns <= 0).all() and (self.first_ns >= EARLIEST_BELIEVED_NS).all())

    def uncut(self) -> Outline:
        """The same, as one piece."""
        return replace(self, finer=None)

    def pieces(self) -> Iterator[tuple[Outline, int | None]]:
        """(outline, the moment it ends before), piece by piece; the last ends with the rows: None.
        Only of runs in order, and to be judged so only where all times are the rows' own: a row
        judged at its receipt would come behind the timers of its time."""
        assert self.is_in_order.all(), "times that run back cannot be cut"
        if self.finer is None:
            yield self, None
            return
        piece = self.cuts_ns.searchsorted(self.finer.first_ns, side="right")
        for number in range(len(self.cuts_ns) + 1):
            of_it = piece == number
            if of_it.any():
                end = self.cuts_ns[number : number + 1].tolist()
                yield self.finer.only(of_it), end[0] if end else None

    def only(self, runs: slice | NDArray[np.bool_], finer: Outline | None = None) -> Outline:
        """Of some of the runs."""
        columns = {name: getattr(self, name)[runs] for name in _COLUMNS}
        return Outline(**columns, finer=finer, cuts_ns=self.cuts_ns)


_COLUMNS = tuple(each.name for each in fields(Outline) if each.name not in {"finer", "cuts_ns"})


def outline_of(batch: Batch) -> Outline | None:
    """None where rows of one point do not stand together."""
    point = batch.point_index
    size = len(point)
    if size < RUN_ROWS_MIN:
        return None
    start = np.append(0, np.flatnonzero(point[1:] != point[:-1]) + 1)
    if RUN_ROWS_MIN * len(start) > size:
        return None
    stop = np.append(start[1:], size)
    if size < PIECES * PIECE_ROWS_MIN * len(start):
        return _outline(batch, start, stop)
    time_ns = batch.source_time_ns
    first_ns, last_ns = int(time_ns[start].min()), int(time_ns[stop - 1].max())
    cuts_ns = first_ns + (last_ns - first_ns) // PIECES * np.arange(1, PIECES)
    begins = [start, *(_first_at(time_ns, start, stop, int(at_ns)) for at_ns in cuts_ns)]
    fine = np.unique(np.concatenate(begins))
    fine = fine[fine < size]
    return _joined(_outline(batch, fine, np.append(fine[1:], size)), start, stop, cuts_ns)


def _first_at(
    time_ns: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], at_ns: int
) -> NDArray[np.int64]:
    """Of each run in order the first row at or after a moment; its end where there is none. Of one
    that is not in order, some row of it."""
    low, high = start.copy(), stop.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        is_before = open_ & (time_ns[np.minimum(middle, len(time_ns) - 1)] < at_ns)
        low = np.where(is_before, middle + 1, low)
        high = np.where(open_ & ~is_before, middle, high)
    return low


def _joined(
    fine: Outline, start: NDArray[np.int64], stop: NDArray[np.int64], cuts_ns: NDArray[np.int64]
) -> Outline:
    """What the pieces say of whole runs."""
    head = fine.start.searchsorted(start)
    last = np.append(head[1:], len(fine)) - 1
    between_ns = np.zeros(len(fine), np.int64)  # from the piece before, of the same run
    between_ns[1:] = fine.first_ns[1:] - fine.last_ns[:-1]
    back_ns = np.zeros(len(fine), np.int64)
    back_ns[1:] = fine.first_received_ns[1:] - fine.last_received_ns[:-1]
    back_ns[head] = 0
    between_ns[head] = 0
    is_plain, is_in_order = fine.is_plain & (between_ns > 0), fine.is_in_order & (between_ns >= 0)
    is_plain[head] = fine.is_plain[head]
    is_in_order &= back_ns >= 0
    return Outline(
        start=start,
        stop=stop,
        point=fine.point[head],
        least=np.minimum.reduceat(fine.least, head),
        most=np.maximum.reduceat(fine.most, head),
        first_ns=fine.first_ns[head],
        last_ns=fine.last_ns[last],
        first_received_ns=fine.first_received_ns[head],
        last_received_ns=fine.last_received_ns[last],
        step_ns=np.maximum.reduceat(np.maximum(fine.step_ns, between_ns), head),
        lag_ns=np.maximum.reduceat(fine.lag_ns, head),
        ahead_ns=np.maximum.reduceat(fine.ahead_ns, head),
        is_plain=np.logical_and.reduceat(is_plain, head),
        is_in_order=np.logical_and.reduceat(is_in_order, head),
        finer=fine,
        cuts_ns=cuts_ns,
    )


def _outline(batch: Batch, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Outline:
    time_ns, received_ns = batch.source_time_ns, batch.received_time_ns
    blocks = [_figures(batch, start[runs], stop[runs]) for runs in _blocks(stop)]
    columns: tuple[NDArray[Any], ...] = tuple(map(np.concatenate, zip(*blocks, strict=True)))
    least, most, quality, step_ns, least_step_ns, back_ns, lag_ns, ahead_ns = columns
    is_plain = (quality < UNCERTAIN) & ~np.isnan(least)
    is_plain &= (least_step_ns > 0) & (time_ns[start] >= EARLIEST_BELIEVED_NS)
    return Outline(
        start=start,
        stop=stop,
        point=batch.point_index[start].astype(np.int64),
        least=least,
        most=most,
        first_ns=time_ns[start],
        last_ns=time_ns[stop - 1],
        first_received_ns=received_ns[start],
        last_received_ns=received_ns[stop - 1],
        step_ns=step_ns,
        lag_ns=lag_ns,
        ahead_ns=ahead_ns,
        is_plain=is_plain,
        is_in_order=(least_step_ns >= 0) & (back_ns >= 0),
    )


def _blocks(stop: NDArray[np.int64]) -> Iterator[slice]:
    """Whole runs, as many as make a block; a longer one is a block of its own."""
    at, begin = 0, 0
    while at < len(stop):
        end = max(at + 1, int(stop.searchsorted(begin + BLOCK_ROWS, side="right")))
        yield slice(at, end)
        at, begin = end, int(stop[end - 1])


def _figures(
    batch: Batch, start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[Any], ...]:
    """Of each run of one block: least and most value, worst quality, longest and shortest step of
    time, the shortest of receipt, longest lag and longest lead."""
    rows, head = slice(int(start[0]), int(stop[-1])), start - start[0]
    value, time_ns, received_ns = (
        column[rows] for column in (batch.value, batch.source_time_ns, batch.received_time_ns)
    )
    step_ns = np.empty(len(time_ns), np.int64)
    np.subtract(time_ns[1:], time_ns[:-1], out=step_ns[1:])
    step_ns[head] = 0
    longest = np.maximum.reduceat(step_ns, head)
    step_ns[head] = FOREVER
    shortest = np.minimum.reduceat(step_ns, head)
    np.subtract(received_ns[1:], received_ns[:-1], out=step_ns[1:])
    step_ns[head] = 0
    back = np.minimum.reduceat(step_ns, head)
    np.subtract(received_ns, time_ns, out=step_ns)
    return (
        np.minimum.reduceat(value, head),
        np.maximum.reduceat(value, head),
        np.maximum.reduceat(batch.quality[rows], head),
        longest,
        shortest,
        back,
        np.maximum.reduceat(step_ns, head),
        -np.minimum.reduceat(step_ns, head),
    )
