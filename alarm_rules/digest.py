"""What is known of many rows together, so that most of them need never be looked at.

    rows    p0 p0 p0 p0 │ p1 p1 p1 │ p2 p2 p2 p2          runs of one point, in order of time
    digest   0.3 … 0.5  │ 0.4 … 1.2│ 0.3 … 0.4            least, most, longest silence, bad or not
    judged      -       │  · ▲  ▲  │    -                 only the runs that may say something

History comes out of a store as such runs, a day of a point at a time. Made once, a digest serves
every rule set that judges the rows. A run is **plain** when each of its rows is good, a number, and
later than the row before; a plain run whose bounds no rule minds can change
nothing but when its point was last heard. That is decided by the kinds (`quiet`, in
gateway/contract/rule_kind.py) against what stands at that moment, and costs one look a run.

Exact, not a guess: what is not proven quiet by its bounds is judged row by row.

Not here: what a kind minds (kinds/), what was heard before (lane.py, gaps.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import FOREVER
from gateway.model.batch import Batch
from gateway.model.quality import EARLIEST_BELIEVED_NS, UNCERTAIN

RUN_ROWS_MIN = 32
"""Rows a run has on average, at least: a digest of shorter ones costs what it spares
(engineering)."""
BLOCK_ROWS = 1 << 16
"""Half a megabyte of a column: stays near the core while several figures are made of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Digest:
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
    step_ns: NDArray[np.int64]
    lag_ns: NDArray[np.int64]
    ahead_ns: NDArray[np.int64]
    is_plain: NDArray[np.bool_]
    is_in_order: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.start)

    def part(self, runs: slice) -> Digest:
        """Of a piece of the batch that begins with the first of these runs."""
        columns = {each.name: getattr(self, each.name)[runs] for each in fields(self)}
        first = columns["start"][0]
        columns["start"], columns["stop"] = columns["start"] - first, columns["stop"] - first
        return Digest(**columns)

    def rows(self, runs: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of some runs."""
        start, stop = self.start[runs], self.stop[runs]
        owner, ordinal = seg.expand(stop - start)
        found: NDArray[np.int64] = start[owner] + ordinal
        return found


def digest_of(batch: Batch) -> Digest | None:
    """None where rows of one point do not stand together."""
    point = batch.point_index
    size = len(point)
    if size < RUN_ROWS_MIN:
        return None
    start = np.append(0, np.flatnonzero(point[1:] != point[:-1]) + 1)
    if RUN_ROWS_MIN * len(start) > size:
        return None
    stop = np.append(start[1:], size)
    first_ns, last_ns = batch.source_time_ns[start], batch.source_time_ns[stop - 1]
    blocks = [_figures(batch, start[runs], stop[runs]) for runs in _blocks(stop)]
    columns: tuple[NDArray[Any], ...] = tuple(map(np.concatenate, zip(*blocks, strict=True)))
    least, most, quality, step_ns, least_step_ns, back_ns, lag_ns, ahead_ns = columns
    is_plain = (quality < UNCERTAIN) & ~np.isnan(least)
    is_plain &= (least_step_ns > 0) & (first_ns >= EARLIEST_BELIEVED_NS)
    return Digest(
        start=start,
        stop=stop,
        point=point[start].astype(np.int64),
        least=least,
        most=most,
        first_ns=first_ns,
        last_ns=last_ns,
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
