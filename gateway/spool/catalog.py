"""Which segment holds which rows, in order, and what has been lost between and inside them.

One list, kept in memory and made again from the files at every start. Shared between the writer
thread, which adds and forgets, and readers, which look up and find damage; every method takes the
lock for as long as a list operation lasts.

Lost rows are counted as ranges, once, however many consumers come across them.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from gateway.spool.salvage import Salvage


@dataclass(slots=True, eq=False)
class Segment:
    """One file and the rows [first, end) that were written into it."""

    path: Path
    first: int
    end: int
    size_bytes: int
    sealed: bool = True
    salvage: Salvage | None = None  # read through this instead of SQLite: the file is damaged
    thinned_s: int = 0  # by what interval, see thinning.py
    guard: sqlite3.Connection | None = None  # of a poisoned one, see SegmentWriter.poison


@dataclass(slots=True)
class Damage:
    """Counts since the spool was opened."""

    lost_rows: int = 0
    damaged_segments: int = 0
    foreign_files: int = 0
    quarantined_files: int = 0
    cursors_reset: int = 0


class Catalog:
    """The segments in row order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        self._lost: set[tuple[int, int]] = set()
        self.damage = Damage()

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return sum(segment.size_bytes for segment in self._segments)

    @property
    def oldest(self) -> int | None:
        """The first row kept; None when no segment is."""
        with self._lock:
            return self._segments[0].first if self._segments else None

    def all(self) -> list[Segment]:
        with self._lock:
            return list(self._segments)

    def add(self, segment: Segment) -> None:
        with self._lock:
            assert not self._segments or segment.first >= self._segments[-1].first
            self._segments.append(segment)

    def at(self, position: int) -> Segment | None:
        """The segment with that row, or the next one behind it that has any row."""
        with self._lock:
            index = bisect_right(self._segments, position, key=lambda each: each.first) - 1
            for segment in self._segments[max(index, 0) :]:
                if segment.end > position:
                    return segment
        return None

    def below(self, position: int) -> list[Segment]:
        """The oldest sealed segments, those whose rows all lie below `position`."""
        with self._lock:
            gone = []
            for segment in self._segments:
                if not segment.sealed or segment.end > position:
                    break
                gone.append(segment)
        return gone

    def drop(self, gone: list[Segment]) -> None:
        """Take out what `below` named."""
        with self._lock:
            assert self._segments[: len(gone)] == gone
            del self._segments[: len(gone)]

    def replace(self, old: Segment, new: Segment) -> bool:
        """Put `new` in the place of `old`, unless that has gone meanwhile."""
        with self._lock:
            for at, segment in enumerate(self._segments):
                if segment is old:
                    self._segments[at] = new
                    return True
        return False

    def lose(self, first: int, end: int) -> None:
        """Note that rows [first, end) cannot be had any more."""
        with self._lock:
            if first < end and (first, end) not in self._lost:
                self._lost.add((first, end))
                self.damage.lost_rows += end - first
