"""Makes a sealed segment smaller when the spool has no room: fewer rows, the story kept.

    rows [first, end) of a segment, some hundred thousand at a time:

    | r r r r r r r r r r r r r r r r |         before: 16 rows
    | left out: 12            | k k k k |       after: 4, numbered anew at the end of their span

Kept of each point, in each interval and for each quality it had in it: the first and the last row,
the lowest and the highest value; every row where the quality changed; and of points whose every
value counts (codes, status words) every change. Rows of one device's position are kept together, so
that a place is never half a place.

The surprising part: what is kept moves to the **end** of its span, so that it stays one run of rows
and a cursor stays valid. A row never moves to a smaller number, so a consumer in the middle of the
span misses none that was kept; it may see some again, as after a crash.

A crash at any moment leaves the old segment or the new one: the new one is written beside it,
synced, and renamed over it.

Owns: which rows are kept, and the new file. Not here: when, and who loses by it (the runtime), the
exchange of the files (writer.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool.catalog import Catalog, Segment
from gateway.spool.disk import PARTIAL, Disk
from gateway.spool.recovery import remove_segment
from gateway.spool.salvage import frames_in
from gateway.spool.segment import DamagedSegment, SegmentReader, SegmentWriter, segment_bytes

WINDOW_ROWS = 500_000
"""Rows thinned at a time: 15 MB of columns and about 60 MB of sorting (measured)."""

INTERVALS_S = (60, 600, 3600)
"""Thinned again and again as room runs out: a minute still shows every alarm's shape, an hour still
shows the day (engineering)."""

SAVED_SHARE_MIN = 0.1  # a thinned segment that saves less is not worth its writing (engineering)


@dataclass(frozen=True)
class PointTraits:
    """What thinning must know of points, by `point_index`; points beyond the arrays are plain."""

    every_change: NDArray[np.bool_]  # codes and status words: a change of value is an event
    together: NDArray[np.int64]  # rows of one number and one time are kept together; -1: alone

    @classmethod
    def plain(cls) -> PointTraits:
        return cls(np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [first, end), of which `before` were there and `kept` are, at the end."""

    first: int
    end: int
    before: int
    kept: int

    def fewer_for(self, committed: int) -> int:
        """How many rows fewer a consumer gets that has committed so far."""
        return min(self.before, max(0, self.end - committed)) - min(
            self.kept, max(0, self.end - committed)
        )


@dataclass(frozen=True)
class Thinned:
    """What one segment gave up."""

    freed_bytes: int
    windows: Sequence[Window]

    def fewer_for(self, committed: int) -> int:
        """How many rows fewer a consumer gets that has committed so far."""
        return sum(window.fewer_for(committed) for window in self.windows)


InHand = Callable[[], Sequence[tuple[int, int]]]
"""The rows consumers have read and not committed, as ranges, now: they leave these segments alone,
so that what a consumer loses can be counted exactly."""


class Thinner:
    """Chooses the next segment and has it exchanged. Any thread; one at a time."""

    def __init__(self, disk: Disk, catalog: Catalog) -> None:
        self._disk = disk
        self._catalog = catalog
        self._lock = threading.Lock()

    def thin(
        self,
        below: int,
        traits: PointTraits,
        in_hand: InHand,
        exchange: Callable[[Segment, Segment, Path], bool],
        mark_damaged: Callable[[Segment], None],
    ) -> Thinned | None:
        """See `Spool.thin`."""
        with self._lock:
            chosen = self._choose(below, in_hand())
            if chosen is None:
                return None
            segment, interval_s = chosen
            partial = segment.path.with_name(segment.path.name + PARTIAL)
            try:
                new, windows = self._thin(segment, partial, interval_s, traits)
                saved = segment.size_bytes - new.size_bytes
                if saved < SAVED_SHARE_MIN * segment.size_bytes:
                    segment.thinned_s = interval_s  # not worth it: on to the next
                elif not _overlaps(segment, in_hand()) and exchange(segment, new, partial):
                    return Thinned(saved, windows)
                return Thinned(0, ())
            except DamagedSegment:
                mark_damaged(segment)
                return Thinned(0, ())
            except (sqlite3.Error, OSError) as error:
                raise StorageFault(f"{partial}: {error}") from error
            finally:
                with contextlib.suppress(OSError):  # else the next start does
                    remove_segment(partial, self._disk)

    def _choose(self, below: int, taken: Sequence[tuple[int, int]]) -> tuple[Segment, int] | None:
        """The oldest of those thinned least, and the interval that comes next."""
        for interval_s in INTERVALS_S:
            for segment in self._catalog.all():
                if segment.end > below:
                    break
                if segment.thinned_s >= interval_s or _overlaps(segment, taken):
                    continue
                is_whole = segment.sealed and segment.salvage is None and segment.guard is None
                if is_whole and frames_in(segment.path) == 0:
                    return segment, interval_s
        return None

    def _thin(
        self, old: Segment, partial: Path, interval_s: int, traits: PointTraits
    ) -> tuple[Segment, list[Window]]:
        windows = _rewrite(self._disk, old, partial, interval_s, traits)
        return replace(old, size_bytes=segment_bytes(partial), thinned_s=interval_s), windows


def _overlaps(segment: Segment, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first < segment.end and segment.first < end for first, end in ranges)


def kept_rows(batch: Batch, interval_ns: int, traits: PointTraits) -> NDArray[np.bool_]:
    """The rows that stay."""
    rows = len(batch)
    kept = np.zeros(rows, dtype=bool)
    if not rows:
        return kept
    bucket = batch.source_time_ns // interval_ns
    groups = np.lexsort((batch.quality, bucket, batch.point_index))  # stable: as received within
    edges = _edges(groups, batch.point_index, bucket, batch.quality)
    kept[groups[edges]] = True
    kept[groups[np.append(edges[1:], rows) - 1]] = True
    by_value = np.lexsort((batch.value, batch.quality, bucket, batch.point_index))  # NaN last
    kept[by_value[edges]] = True
    kept[_highest(by_value, batch.value, edges)] = True

    by_point = np.argsort(batch.point_index, kind="stable")
    is_same = np.diff(batch.point_index[by_point]) == 0
    changed = is_same & (np.diff(batch.quality[by_point].astype(np.int16)) != 0)
    counts = _of(traits.every_change, batch.point_index, default=False)[by_point[1:]]
    value = batch.value[by_point]
    changed |= is_same & counts & (value[1:] != value[:-1])
    kept[by_point[1:][changed]] = True
    kept[by_point[:-1][changed]] = True  # and what it was until then

    together = _of(traits.together, batch.point_index, default=-1)
    # Two that meet by chance keep a row too many, never one too few.
    moment = batch.source_time_ns * 1_000_003 + together
    kept |= (together >= 0) & np.isin(moment, moment[kept & (together >= 0)])
    return kept


def _edges(order: NDArray[np.intp], *columns: NDArray[np.integer]) -> NDArray[np.intp]:
    """Where a new group begins among rows in `order`."""
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = False
    for column in columns:
        begins[1:] |= np.diff(column[order]) != 0
    return np.flatnonzero(begins)


def _highest(
    by_value: NDArray[np.intp], value: NDArray[np.float64], edges: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The row of each group with its highest value, NaN aside where there is another."""
    last = np.append(edges[1:], len(by_value)) - 1
    is_nan = np.isnan(value[by_value])
    nan_count = np.add.reduceat(is_nan, edges, dtype=np.int64)
    found: NDArray[np.intp] = by_value[np.maximum(last - nan_count, edges)]
    return found


def _of(traits: NDArray[np.generic], point: NDArray[np.int32], *, default: int) -> NDArray:  # type: ignore[type-arg]
    known = point < len(traits)
    found = np.full(len(point), default, dtype=traits.dtype)
    found[known] = traits[point[known]]
    return found


def _rewrite(
    disk: Disk, old: Segment, target: Path, interval_s: int, traits: PointTraits
) -> list[Window]:
    """Write what is kept of `old` to `target`, durably but for its name.

    Raises DamagedSegment, sqlite3.Error and OSError.
    """
    windows = []
    reader = SegmentReader(disk, old.path)
    try:
        meta = reader.meta()
        if meta is None or meta.first != old.first:
            raise DamagedSegment("meta")
        writer = SegmentWriter(disk, target, replace(meta, thinned_s=interval_s))
        try:
            for first, until, batch in _windows(reader, old.first, old.end):
                rows = np.flatnonzero(kept_rows(batch, interval_s * 1_000_000_000, traits))
                writer.leave_out(until - first - len(rows))
                writer.append([batch.take(rows)])
                writer.checkpoint_if_due()
                windows.append(Window(first, until, len(batch), len(rows)))
            writer.seal()
        except BaseException:
            writer.discard()
            raise
    finally:
        reader.close()
    return windows


def _windows(reader: SegmentReader, first: int, end: int) -> Iterator[tuple[int, int, Batch]]:
    """The segment in spans of rows: (first, end, what is left of them)."""
    at, parts, rows, until = first, list[Batch](), 0, first
    for start, batch in reader.records(first, end):
        parts.append(batch)
        rows, until = rows + len(batch), start + len(batch)
        if rows >= WINDOW_ROWS:
            yield at, until, Batch.concat(parts)
            at, parts, rows = until, [], 0
    if parts:
        yield at, until, Batch.concat(parts)
