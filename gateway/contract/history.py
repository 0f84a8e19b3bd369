"""Looking back: what a store that can be read offers.

Points are named by id or by index, whichever the caller has; an id never declared is a KeyError.
Times are UTC nanoseconds, ranges half-open `[from_ns, to_ns)`. Rows of a slice are ordered by
point, then source time, then time of receipt; two samples of one point with one time and different
values are two rows. Reading never waits for writing and never delays it.

`gateway.history` re-exports all of this; it stands here because sinks implement it and may not
import their sibling package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import COLUMNS, Batch

BUCKETS_MAX = 10_000
"""No screen has more pixels; more buckets are a mistake."""


PointName = str | int
"""A point's id, or its index in the point table."""


@dataclass(frozen=True, slots=True, eq=False)
class HistorySlice:
    """Stored samples as columns, in order. `truncated` when `rows_max` cut more rows off."""

    point_index: NDArray[np.int32]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    source_time_ns: NDArray[np.int64]
    received_time_ns: NDArray[np.int64]  # equals source_time_ns where the store does not keep it
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.point_index)

    @property
    def batch(self) -> Batch:
        """The same columns as a batch: replay and back-test hand it on as it is."""
        return Batch(*(getattr(self, name) for name, _ in COLUMNS))

    @classmethod
    def of(cls, batch: Batch, *, truncated: bool = False) -> HistorySlice:
        return cls(
            point_index=batch.point_index,
            value=batch.value,
            quality=batch.quality,
            source_time_ns=batch.source_time_ns,
            received_time_ns=batch.received_time_ns,
            truncated=truncated,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """A trend: `count` equal spans of time, the empty ones too (n = 0, values NaN).

    `n` counts samples that have a value and are not of bad quality; only those enter min, max, mean
    and last. `n_bad` counts the others, so that a screen can tell "bad" from "no data".
    """

    start_ns: NDArray[np.int64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mean: NDArray[np.float64]
    last: NDArray[np.float64]
    n: NDArray[np.int64]
    n_bad: NDArray[np.int64]
    width_ns: int

    def __len__(self) -> int:
        return len(self.start_ns)

    @classmethod
    def empty(cls, from_ns: int, to_ns: int, count: int) -> Buckets:
        """All spans, nothing in them. The last one may reach past `to_ns` by less than `count`."""
        assert from_ns < to_ns, f"an empty range: {from_ns} .. {to_ns}"
        assert 0 < count <= BUCKETS_MAX, f"{count} buckets"
        width = -(-(to_ns - from_ns) // count)
        return cls(
            start_ns=from_ns + width * np.arange(count, dtype=np.int64),
            min=np.full(count, np.nan),
            max=np.full(count, np.nan),
            mean=np.full(count, np.nan),
            last=np.full(count, np.nan),
            n=np.zeros(count, np.int64),
            n_bad=np.zeros(count, np.int64),
            width_ns=width,
        )


@runtime_checkable
class History(Protocol):
    """A store one can read back. Every method raises Unavailable when it cannot answer now."""

    async def read(
        self, points: Sequence[PointName] | None, from_ns: int, to_ns: int, *, rows_max: int
    ) -> HistorySlice:
        """Samples of `points` (None = all) with from_ns <= source time < to_ns."""
        ...

    async def buckets(self, point: PointName, from_ns: int, to_ns: int, count: int) -> Buckets:
        """The trend of one point in `count` spans."""
        ...

    async def latest(self, points: Sequence[PointName]) -> HistorySlice:
        """The sample of newest source time of each point that has any; of equals the last received.

        Bad samples count: the newest word of a broken sensor is that it is broken.
        """
        ...

    async def count(self) -> int:
        """How many samples are held."""
        ...


class Scan(Protocol):
    """A store read from end to end by a process of its own: back-test, explain. Blocks; read only.

    In order of **receipt**, as the gateway got to know the samples, in which its own judging went.
    A store that keeps no time of receipt answers with the source time in its place.
    """

    def span(self) -> tuple[int, int] | None:
        """First and last time of receipt; None for an empty store."""
        ...

    def batches(
        self, from_ns: int, to_ns: int, points: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Samples received in [from_ns, to_ns), of some points or all, in batches of about a
        million rows: all of one before all of the next, in any order within.

        Raises Unavailable when the store cannot be read on.
        """
        ...

    def close(self) -> None: ...
