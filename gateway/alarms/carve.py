"""Event rows out of the bare pages of a SQLite file, when the way to them is lost.

    leaf page:  0x0D | freeblock u16 | cells u16 | content u16 | fragments u8 | cell offset u16 …
    cell:       payload size varint | rowid varint | header size varint | types varint … | values

SQLite finds a row from the page above it. With that page gone the row is whole and unreachable:
here every page is looked at by itself, and a row is believed only if its own hash says so. Format:
sqlite.org/fileformat2.html, sections 1.6 and 2.1.

Surprising: pages SQLite freed or copied may give a row twice; the hash makes both the same row.

Not here: rows longer than a page (a record is about 1 kB, a page takes four), other tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.alarms.chain import StoredRow, is_whole

PAGE_SIZE = 4096
_LOG_HEADER = 32
_FRAME_HEADER = 24
_LEAF = 0x0D
_COLUMNS = len(StoredRow._fields)


def carve(path: Path) -> dict[int, StoredRow]:
    """Every whole event row of any leaf page, by gseq."""
    found: dict[int, StoredRow] = {}
    with path.open("rb") as file:
        while page := file.read(PAGE_SIZE):
            if page[0] == _LEAF:
                found |= {row.gseq: row for row in _rows(page) if is_whole(row)}
    return found


def carve_log(data: bytes) -> tuple[dict[int, StoredRow], int]:
    """The same of the pages in a write-ahead log, section 4.1 there, whatever its sums say; and the
    greatest gseq that was stored for certain: something was written after its transaction, which
    nobody does before that is synced. What lies beyond may be a transaction that a cut interrupted.
    """
    frames = range(
        _LOG_HEADER, len(data) - _FRAME_HEADER - PAGE_SIZE + 1, _FRAME_HEADER + PAGE_SIZE
    )
    # Of this generation of the log, even if a whole page at its beginning is damaged: the header
    # and the first frame lie on one. Older frames lie behind, and hold what the file has already.
    salts = {data[16:24], *(data[at + 8 : at + 16] for at in frames[:2])}
    found: dict[int, StoredRow] = {}
    certain = newest = 0
    is_committed = False
    for at in frames:
        if data[at + 8 : at + 16] not in salts:
            continue
        if is_committed:
            certain = newest
        is_committed = data[at + 4 : at + 8] != bytes(4)  # pages in the file after a commit
        page = data[at + _FRAME_HEADER : at + _FRAME_HEADER + PAGE_SIZE]
        if page[0] == _LEAF:
            rows = {row.gseq: row for row in _rows(page) if is_whole(row)}
            found |= rows
            newest = max([newest, *rows])
    return found, certain


def _rows(page: bytes) -> Iterator[StoredRow]:
    count = int.from_bytes(page[3:5], "big")
    for at in range(8, 8 + 2 * count, 2):
        try:
            row = _cell(page, int.from_bytes(page[at : at + 2], "big"))
        except (IndexError, ValueError):  # damaged bytes point anywhere
            continue
        if row is not None:
            yield row


def _cell(page: bytes, at: int) -> StoredRow | None:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if at + size > len(page):
        return None
    body = at
    header_size, at = _varint(page, at)
    types = []
    while at < body + header_size:
        kind, at = _varint(page, at)
        types.append(kind)
    if len(types) != _COLUMNS or types[0] != 0:  # the integer key itself is stored as NULL
        return None
    values: list[object] = []
    for kind in types[1:]:
        value, at = _value(page, at, kind)
        values.append(value)
    return StoredRow(rowid, *values)  # type: ignore[arg-type]


def _value(page: bytes, at: int, kind: int) -> tuple[object, int]:
    if kind >= 12:
        end = at + (kind - 12) // 2
        raw = page[at:end]
        return (raw.decode("utf-8") if kind % 2 else raw), end
    if kind in (8, 9):
        return kind - 8, at
    size = (0, 1, 2, 3, 4, 6, 8)[kind]
    return int.from_bytes(page[at : at + size], "big", signed=True), at + size


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for used in range(8):
        byte = page[at + used]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + used + 1
    return value << 8 | page[at + 8], at + 9
