"""Finds whole records in a segment that SQLite can no longer read, page by page.

    page 4096:  … | cell: payload size, start, record header | "HGB1" body … | overflow page u32 | …
    overflow:   | next page u32 | 4092 bytes of body |
    write-ahead log: 32 bytes, then frames | page number u32 … 24 bytes | page |

Nothing of the b-tree is believed: every page image, in the file and in its write-ahead log, is
searched for the record magic; the record's own header says how long it is, the file format says
how much of it stands in the page and where the rest begins, and the record's checksum decides. So
a damaged byte costs the records whose bytes it hit, and a broken index, root page, file header or
log frame costs none.

The surprising part: all images of a page are tried, stale ones too. Records are written once and
never changed, so whatever passes its checksum is true.

Owns: reading damaged files. Never writes. Memory: the places of records, not their contents.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.model.batch import Batch
from gateway.spool import record
from gateway.spool.disk import PAGE_BYTES

# SQLite file format, section "B-tree pages" and "Cell payload overflow"; no reserved bytes
_LOCAL_MAX = PAGE_BYTES - 35
_LOCAL_MIN = (PAGE_BYTES - 12) * 32 // 255 - 23
_OVERFLOW_BYTES = PAGE_BYTES - 4
_WAL_HEADER = 32
_FRAME_HEADER = 24


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def frames_in(path: Path) -> int:
    """Whole or partial frames a write-ahead log has room for."""
    try:
        size = wal_path(path).stat().st_size
    except FileNotFoundError:
        return 0
    return max(0, -(-(size - _WAL_HEADER) // (_FRAME_HEADER + PAGE_BYTES)))


class Salvage:
    """The records that can still be read of one segment, in row order.

    `above` leaves out records that start below it: they are known to be readable otherwise.
    """

    def __init__(self, path: Path, above: int = 0) -> None:
        self._path = path
        self._pages: dict[int, list[tuple[int, int]]] = {}  # page number -> images, newest last
        self._places: dict[int, tuple[int, int, int]] = {}  # start -> file, image, offset in it
        self._counts: dict[int, int] = {}
        self._left_out: dict[int, int] = {}  # rows missing on purpose before a start
        with _opened(path) as files:
            for file, image, page in _images(files):
                self._pages.setdefault(page, []).append((file, image))
            self._search(files, above)
        self.starts = self._without_overlap()

    @property
    def first(self) -> int:
        """The first row found, or of those left out right before it; 0 when there is none."""
        return self.starts[0] - self._left_out.get(self.starts[0], 0) if self.starts else 0

    @property
    def end(self) -> int:
        """The row behind the last one found; 0 when there is none."""
        return self.starts[-1] + self._counts[self.starts[-1]] if self.starts else 0

    def holes(self, first: int, end: int) -> list[tuple[int, int]]:
        """Row ranges of [first, end) that are gone."""
        holes, at = [], first
        for start in self.starts:
            begins = start - self._left_out.get(start, 0)
            if begins > at:
                holes.append((at, min(begins, end)))
            at = max(at, start + self._counts[start])
        if at < end:
            holes.append((at, end))
        return [(low, high) for low, high in holes if low < high]

    def records(self, position: int) -> Iterator[tuple[int, Batch]]:
        """Records from the one that holds `position`, or the next behind it, on."""
        at = bisect_right(self.starts, position) - 1
        if at < 0 or self.starts[at] + self._counts[self.starts[at]] <= position:
            at += 1
        with _opened(self._path) as files:
            for start in self.starts[at:]:
                file, image, offset = self._places[start]
                page = _read(files[file], image, PAGE_BYTES)
                found = self._load(files, page, offset)
                if found is not None:  # None: gone since, on a disk that gets worse
                    yield found

    def _search(self, files: Sequence[int], above: int) -> None:
        for file, image, _ in _images(files):
            page = _read(files[file], image, PAGE_BYTES)
            offset = page.find(record.MAGIC)
            while offset >= 0:
                found = self._new_record(files, page, offset, above)
                if found is not None:
                    start, batch = found
                    self._places[start] = (file, image, offset)
                    self._counts[start] = len(batch)
                    left_out = record.left_out(page[offset : offset + record.HEADER.size])
                    if left_out:
                        self._left_out[start] = left_out
                offset = page.find(record.MAGIC, offset + 1)

    def _new_record(
        self, files: Sequence[int], page: bytes, offset: int, above: int
    ) -> tuple[int, Batch] | None:
        try:
            start, _ = record.peek(page[offset : offset + record.HEADER.size])
        except record.DamagedRecord:
            return None
        known = start < above or start in self._places
        return None if known else self._load(files, page, offset)

    def _load(self, files: Sequence[int], page: bytes, offset: int) -> tuple[int, Batch] | None:
        """The record whose body begins at `offset` of the page image, if it is whole."""
        for newest in (True, False):
            try:
                return record.decode(self._body(files, page, offset, newest=newest))
            except record.DamagedRecord:
                continue
        return None

    def _body(self, files: Sequence[int], page: bytes, offset: int, *, newest: bool) -> bytes:
        _, count = record.peek(page[offset : offset + record.HEADER.size])
        size = record.size_of(count)
        local = _local_bytes(size, count)
        parts = [page[offset : offset + local]]
        missing = size - local
        number = int.from_bytes(page[offset + local : offset + local + 4], "big")
        while missing > 0:
            images = self._pages.get(number)
            if not images:
                raise record.DamagedRecord("overflow page is gone")
            file, image = images[-1 if newest else 0]
            overflow = _read(files[file], image, PAGE_BYTES)
            parts.append(overflow[4 : 4 + min(missing, _OVERFLOW_BYTES)])
            if len(parts[-1]) == 0:
                raise record.DamagedRecord("overflow page is short")
            missing -= len(parts[-1])
            number = int.from_bytes(overflow[:4], "big")
        return b"".join(parts)

    def _without_overlap(self) -> list[int]:
        starts, at = [], -1
        for start in sorted(self._places):
            if start >= at:
                starts.append(start)
                at = start + self._counts[start]
        return starts


def _local_bytes(size: int, count: int) -> int:
    """How many bytes of a body of `size` stand in the leaf page itself."""
    # payload = header size, type of start (NULL), type of count, type of body | count | body
    count_bytes = 0 if count == 1 else 1 if count < 1 << 7 else 2 if count < 1 << 15 else 3
    lead = 3 + len(_varint(size * 2 + 12)) + count_bytes
    payload = lead + size
    if payload <= _LOCAL_MAX:
        return size
    local = _LOCAL_MIN + (payload - _LOCAL_MIN) % _OVERFLOW_BYTES
    return (local if local <= _LOCAL_MAX else _LOCAL_MIN) - lead


def _varint(number: int) -> bytes:
    """SQLite's variable-length integer; here only for its length."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Descriptors of the file and of its write-ahead log; an absent one reads as empty."""
    descriptors: list[int] = []
    try:
        for each in (path, wal_path(path)):
            name = each if each.exists() else Path(os.devnull)
            descriptors.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
        yield descriptors[0], descriptors[1]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _images(files: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(file, where the page image begins, page number) of every image, oldest first."""
    main, log = files
    for number in range(1, -(-os.fstat(main).st_size // PAGE_BYTES) + 1):
        yield 0, (number - 1) * PAGE_BYTES, number
    frame, size = _WAL_HEADER, os.fstat(log).st_size
    while frame + _FRAME_HEADER < size:
        number = int.from_bytes(_read(log, frame, 4), "big")
        yield 1, frame + _FRAME_HEADER, number
        frame += _FRAME_HEADER + PAGE_BYTES


def _read(descriptor: int, offset: int, size: int) -> bytes:
    """What can be read there; empty for a bad sector."""
    try:
        return os.pread(descriptor, size, offset)
    except OSError:
        return b""
