"""One consumer's place in the log: reading on, and saying durably what is done.

Rows come from memory while the consumer keeps up (tail.py) and from the segments when it is behind.
Rows that are lost or were thinned away are passed over: a chunk never reaches across them.

Owns: reading. Not here: what a commit makes durable (writer.py), which rows a new consumer gets
(spool.py).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool.catalog import Segment
from gateway.spool.segment import DamagedSegment, SegmentReader

if TYPE_CHECKING:
    from gateway.spool.spool import Spool


@dataclass(frozen=True)
class Chunk:
    """Rows [start, end) of the log."""

    start: int
    end: int
    batch: Batch


class Cursor:
    """One consumer's place in the log. Used by one task at a time.

    committed ≤ position ≤ head: `read` and `next` move the position, `commit` makes it durable.
    """

    def __init__(self, spool: Spool, name: str, committed: int) -> None:
        """Use `Spool.cursor`."""
        self.name = name
        self.position = committed
        self.committed = committed
        self._spool = spool
        self._lock = threading.Lock()  # a cancelled `next` leaves its thread reading
        self._segment: Segment | None = None
        self._reader: SegmentReader | None = None
        # The record read last, and of which segment: often only a part of it fits.
        self._last: tuple[Segment, int, Batch] | None = None

    @property
    def depth(self) -> int:
        """Durable rows not read yet; lost ones among them are skipped without being read."""
        return self._spool.head - self.position

    def read(self, rows_max: int) -> Chunk | None:
        """The next rows, at most `rows_max`; None when nothing is new. May read the disk.

        Raises StorageFault when the disk cannot be read for a reason that is no damage.
        """
        chunk = self._fetch(self.position, rows_max)
        if chunk is not None:
            self.position = chunk.end
        return chunk

    async def next(self, rows_max: int) -> Chunk:
        """The next rows as soon as there are any; never blocks the loop on the disk.

        Raises StorageFault when the spool closes, or as `read` does. Cancelling moves nothing.
        """
        while True:
            head, position = self._spool.head, self.position
            chunk = self._from_tail(position, rows_max)
            if chunk is None and position < head:
                chunk = await asyncio.to_thread(self._fetch, position, rows_max)
            if chunk is not None:
                self.position = chunk.end
                return chunk
            await self._spool._news(head)  # noqa: SLF001 - one object in two classes

    async def commit(self, offset: int) -> None:
        """Durably done with every row before `offset`. Raises StorageFault."""
        if self._is_new(offset):
            await self._spool._set_cursor_async(self.name, offset)  # noqa: SLF001
            self.committed = max(self.committed, offset)

    def commit_now(self, offset: int) -> None:
        """As `commit`, blocking."""
        if self._is_new(offset):
            self._spool._set_cursor(self.name, offset)  # noqa: SLF001
            self.committed = max(self.committed, offset)

    def _is_new(self, offset: int) -> bool:
        assert offset <= self.position, f"commit of {offset}, read up to {self.position}"
        assert offset >= self.committed, f"commit of {offset}, behind {self.committed}"
        return offset > self.committed

    def rewind(self) -> None:
        """Back to what is committed: the consumer failed and wants the same again."""
        self.position = self.committed

    async def seek(self, offset: int) -> None:
        """Read on from `offset`, between what is committed and the head. Not durable by itself."""
        if not self.committed <= offset <= self._spool.head:
            raise ValueError(f"{offset} is not between {self.committed} and {self._spool.head}")
        self.position = offset

    def close(self) -> None:
        """Let go of files."""
        with self._lock:
            self._use(None)

    def _from_tail(self, position: int, rows_max: int) -> Chunk | None:
        batch = self._spool._tail.read(position, rows_max)  # noqa: SLF001
        return None if batch is None else Chunk(position, position + len(batch), batch)

    def _fetch(self, position: int, rows_max: int) -> Chunk | None:
        """Rows from `position` or the first that can be had behind it. Moves nothing."""
        assert rows_max > 0, "a chunk has rows"
        spool = self._spool
        while (head := spool.head) > position:
            chunk = self._from_tail(position, rows_max)
            if chunk is not None:
                return chunk
            segment = spool._catalog.at(position)  # noqa: SLF001
            if segment is None:
                return None
            position = max(position, segment.first)
            limit = min(segment.end, head)
            if position < limit:
                with self._lock:
                    chunk = self._from_disk(segment, position, limit, rows_max)
            if chunk is not None:
                return chunk
            position = segment.end
        return None

    def _from_disk(
        self, segment: Segment, position: int, limit: int, rows_max: int
    ) -> Chunk | None:
        """Rows of one segment; None when all from `position` on are lost."""
        try:
            if segment.salvage is None:
                try:
                    return self._gather(segment, position, limit, rows_max)
                except DamagedSegment:
                    self._use(None)
                    self._spool._mark_damaged(segment)  # noqa: SLF001
            return self._gather(segment, position, limit, rows_max)
        except (sqlite3.Error, OSError) as error:
            self._use(None)
            raise StorageFault(f"{segment.path}: {error}") from error

    def _gather(self, segment: Segment, position: int, limit: int, rows_max: int) -> Chunk | None:
        """Records joined until `rows_max`, a hole, or the segment's end."""
        start, at, parts = -1, position, []
        for first, batch in self._records(segment, position, limit):
            low = max(position - first, 0)
            if start < 0:
                start = at = first + low
            if first + low != at:
                break  # behind a hole
            high = min(len(batch), low + rows_max - (at - start))
            parts.append(batch if (low, high) == (0, len(batch)) else batch.take(slice(low, high)))
            at += high - low
            self._last = (segment, first, batch)
            if at - start >= rows_max:
                break
        return Chunk(start, at, Batch.concat(parts)) if parts else None

    def _records(self, segment: Segment, position: int, limit: int) -> Iterator[tuple[int, Batch]]:
        """Whole records from the one with `position` on; the one read last is at hand."""
        if self._last is not None:
            of, first, batch = self._last
            if of is segment and first <= position < first + len(batch):
                yield first, batch
                position = first + len(batch)
        if position >= limit:
            return
        if segment.salvage is not None:
            self._use(None)
            yield from segment.salvage.records(position)
        else:
            reader = self._use(segment)
            assert reader is not None
            yield from reader.records(position, limit)

    def _use(self, segment: Segment | None) -> SegmentReader | None:
        """The reader of `segment`; the one before is closed."""
        if self._segment is not segment and self._reader is not None:
            self._reader.close()
            self._reader = None
        self._segment = segment
        if segment is not None and self._reader is None:
            if self._spool._closed:  # noqa: SLF001
                raise StorageFault(f"{segment.path}: the spool is closed")
            self._reader = SegmentReader(self._spool._disk, segment.path)  # noqa: SLF001
        return self._reader
