"""The newest rows in memory, so that a consumer that keeps up never reads the disk.

A bounded list of batches in row order without gaps. Filled by the writer thread after the commit,
read by any thread. When it is full the oldest batches leave: a slow consumer then reads the disk.

A batch costs a thousand bytes before its first row, and many devices send a few rows at a time: so
many small ones in a row are joined into one, each row once.
"""

from __future__ import annotations

import threading
from bisect import bisect_right

from gateway.model.batch import Batch

_SMALL_ROWS = 64
_JOINED = 64  # so many small batches in a row become one


class Tail:
    """Rows [first, end) in memory."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._batches: list[Batch] = []
        self._dropped = 0  # entries at the front of the lists that have left already
        self._small = 0  # entries at the end that are small
        self.end = -1

    @property
    def first(self) -> int:
        """The oldest row here; equal to `end` when empty."""
        return self._starts[self._dropped] if self._dropped < len(self._starts) else self.end

    def put(self, start: int, batch: Batch) -> None:
        with self._lock:
            if start != self.end:  # rows in between were never seen here: start afresh
                self._starts, self._batches, self._dropped, self._small = [], [], 0, 0
            self._starts.append(start)
            self._batches.append(batch)
            self.end = start + len(batch)
            self._small = self._small + 1 if len(batch) <= _SMALL_ROWS else 0
            if self._small == _JOINED:
                self._join()
            while self._dropped < len(self._starts) and self.end - self.first > self._rows_max:
                self._batches[self._dropped] = Batch.empty()
                self._dropped += 1
            if self._dropped > 64 and self._dropped * 2 > len(self._starts):
                del self._starts[: self._dropped], self._batches[: self._dropped]
                self._dropped = 0

    def _join(self) -> None:
        """The small batches at the end as one; what has left stays out."""
        self._small = 0
        first = max(self._dropped, len(self._batches) - _JOINED)
        if len(self._batches) - first > 1:
            self._batches[first:] = [Batch.concat(self._batches[first:])]
            del self._starts[first + 1 :]

    def read(self, position: int, rows_max: int) -> Batch | None:
        """Up to `rows_max` rows from `position` on; None when `position` is not here."""
        with self._lock:
            if not self.first <= position < self.end:
                return None
            at = bisect_right(self._starts, position) - 1
            parts, rows, skip = [], 0, position - self._starts[at]
            while at < len(self._batches) and rows < rows_max:
                batch = self._batches[at]
                if skip or rows + len(batch) > rows_max:
                    batch = batch.take(slice(skip, skip + rows_max - rows))
                parts.append(batch)
                rows, skip, at = rows + len(batch), 0, at + 1
        return Batch.concat(parts)
