"""One segment: a SQLite file that holds the records of a run of rows, and is deleted as a whole.

    <first row, 20 digits>.segment      application_id "HGSP", user_version 1, pages of 4096 bytes
      meta   (body BLOB)                one row: "HGM1" | crc32 | JSON {format, spool_id, first,
                                        previous_end, thinned_s}
      record (start INTEGER PRIMARY KEY, count INTEGER, body BLOB)     body: see record.py

Written through the write-ahead log with synchronous=FULL: a commit returns after the log is synced.
SQLite's own automatic checkpoint is off, because it swallows a failed sync of the main file and
would later throw the log away; ours runs between commits and its error reaches the writer.

A segment is appended to by the process that made it and by no other. After a crash the file is
checkpointed and left alone, and new rows go to a new file: pages a failed sync marked clean are
never built upon. When sealed, the log is folded in and the file never changes again.

`previous_end` is where the segment before it ended, so that rows that are missing between two files
can be told from rows that never were.

Owns: SQL. Not here: which segment (catalog.py), threads (writer.py), damage (salvage.py).
"""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.model.batch import Batch
from gateway.spool import record
from gateway.spool.disk import PAGE_BYTES, Disk
from gateway.spool.salvage import wal_path

SUFFIX = ".segment"
FORMAT = 1
APPLICATION_ID = 0x48475350  # "HGSP"
CHECKPOINT_BYTES = 8 << 20  # of the log; 8 MiB: a checkpoint every few dozen large batches

_META = struct.Struct("<4sI")
_META_MAGIC = b"HGM1"
_BUSY_CODES = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    )
)


class DamagedSegment(Exception):
    """The file does not hold what it should. Not an error to the outside: salvage follows."""


class NewerFormat(Exception):
    """The file is whole and was written by a newer version of this program."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a segment says of itself."""

    spool_id: str
    first: int
    previous_end: int
    thinned_s: int = 0  # by what interval its rows were thinned, see thinning.py


def file_name(first: int, again: int = 0) -> str:
    return f"{first:020d}{f'-{again}' if again else ''}{SUFFIX}"


def first_of_name(path: Path) -> int | None:
    """The first row as the file's name claims."""
    digits = path.name.removesuffix(SUFFIX).split("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 20 else None


UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises on a file; the second where its own message quotes damaged text."""


def is_damage(error: Exception) -> bool:
    """Whether the file is at fault, rather than a lock, the memory or the descriptors."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _BUSY_CODES


class SegmentWriter:
    """The segment being appended to. Used by the writer thread only.

    Raises sqlite3.Error and OSError.
    """

    def __init__(self, disk: Disk, path: Path, meta: Meta) -> None:
        self._disk = disk
        self.path = path
        self.meta = meta
        self.end = meta.first
        self._left_out = 0
        self._db = disk.connect(path)
        try:
            self._create()
            disk.sync_directory(path.parent)
        except BaseException:
            self._db.close()
            raise

    def _create(self) -> None:
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            "mmap_size=0",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        text = json.dumps(
            {
                "format": FORMAT,
                "spool_id": self.meta.spool_id,
                "first": self.meta.first,
                "previous_end": self.meta.previous_end,
                "thinned_s": self.meta.thinned_s,
            }
        ).encode()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version={FORMAT}")
        self._db.execute("CREATE TABLE meta (body BLOB NOT NULL)")
        self._db.execute(
            "CREATE TABLE record"
            " (start INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        body = _META.pack(_META_MAGIC, zlib.crc32(text)) + text
        self._db.execute("INSERT INTO meta VALUES (?)", (body,))
        self._db.execute("COMMIT")

    def append(self, batches: Sequence[Batch]) -> list[tuple[int, Batch]]:
        """Write all as one transaction; durable on return. The records with their start rows."""
        parts = list(number(self.end, batches))
        left_out, self._left_out = self._left_out, 0
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "INSERT INTO record VALUES (?, ?, ?)",
            (
                (start, len(part), record.encode(start, part, 0 if at else left_out))
                for at, (start, part) in enumerate(parts)
            ),
        )
        self._db.execute("COMMIT")
        if parts:
            self.end = parts[-1][0] + len(parts[-1][1])
        return parts

    def leave_out(self, rows: int) -> None:
        """The next record says that so many rows before it are missing on purpose."""
        self.end += rows
        self._left_out += rows

    def size_bytes(self) -> int:
        return segment_bytes(self.path)

    def checkpoint_if_due(self) -> None:
        """Fold the log into the file when it has grown; a reader at work only postpones it."""
        if wal_path(self.path).stat().st_size >= CHECKPOINT_BYTES:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def seal(self) -> None:
        """Fold the whole log in and let go of the file. When that fails: `poison`."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def discard(self) -> None:
        """Let go of a file nobody will miss."""
        self._db.close()

    def poison(self) -> sqlite3.Connection:
        """Let go after an error without another byte written. What was committed stays readable as
        long as the connection that is returned is open.

        SQLite folds the log in when the last connection closes, and that would build upon pages
        whose sync failed. One that can only read cannot fold; opened before the writer closes, it
        is the last one.
        """
        try:
            guard = self._disk.connect(self.path, read_only=True)
            try:
                guard.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            except BaseException:
                guard.close()
                raise
        except sqlite3.Error:  # no descriptor is left, say: then the writer itself is kept, unused
            return self._db
        self._db.close()
        return guard


def number(start: int, batches: Sequence[Batch]) -> Iterator[tuple[int, Batch]]:
    """The batches as (start row, part) with no part larger than a record may be."""
    for batch in batches:
        for at in range(0, len(batch), record.ROWS_MAX):
            whole = at == 0 and len(batch) <= record.ROWS_MAX
            part = batch if whole else batch.take(slice(at, at + record.ROWS_MAX))
            yield start, part
            start += len(part)


def segment_bytes(path: Path) -> int:
    """Bytes of the file and of its log."""
    total = 0
    for each in (path, wal_path(path)):
        try:
            total += each.stat().st_size
        except FileNotFoundError:
            continue
    return total


class SegmentReader:
    """Reads one segment in row order; keeps the last record, of which a caller may want a slice.

    Raises DamagedSegment when anything is not as it should be, sqlite3.Error for what is no fault
    of the file.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        log = wal_path(path)
        settled = not log.exists() or log.stat().st_size == 0
        try:
            self._db = disk.connect(path, read_only=True, immutable=settled)
            self._db.execute("PRAGMA cell_size_check=ON").fetchall()
        except UNREADABLE as error:
            raise _sorted_out(error) from error

    def close(self) -> None:
        self._db.close()

    def records(self, position: int, limit: int) -> Iterator[tuple[int, Batch]]:
        """Records from the one that holds `position` up to row `limit`, without a gap but where
        rows were thinned away."""
        at, rows = -1, self._db.cursor()
        try:
            rows.execute(
                "SELECT start, body FROM record WHERE start < ?2 AND start >= coalesce("
                "(SELECT start FROM record WHERE start <= ?1 ORDER BY start DESC LIMIT 1), ?1)"
                " ORDER BY start",
                (position, limit),
            )
            for key, body in rows:
                start, batch = _decoded(key, body)
                begins = start - record.left_out(body)
                if begins != at and (at >= 0 or begins > position):
                    raise DamagedSegment(f"row {max(at, position)} is missing")
                at = start + len(batch)
                if at > position:
                    yield start, batch
        except UNREADABLE as error:
            raise _sorted_out(error) from error
        finally:
            rows.close()  # an open statement would hold up the checkpoint
        if at < limit:
            raise DamagedSegment(f"row {max(at, position)} is missing")

    def meta(self) -> Meta | None:
        """What the segment says of itself; None when the file was never finished (no tables)."""
        try:
            if self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
                return None
            rows = self._db.execute("SELECT body FROM meta").fetchall()
        except UNREADABLE as error:
            raise _sorted_out(error) from error
        return _meta_of(rows)

    def last(self) -> tuple[int, int]:
        """Start and end of the last record; reads its header, not its columns. (0, 0) for none."""
        try:
            row = self._db.execute(
                "SELECT start, count, length(body) FROM record ORDER BY start DESC LIMIT 1"
            ).fetchone()
            # Through a handle: what SQL says of a part of a blob reads the whole of it first.
            head = b"" if row is None else self._head_of(_whole(row[0]))
        except UNREADABLE as error:
            raise _sorted_out(error) from error
        if row is None:
            return 0, 0
        key, count, size = row
        try:
            start, counted = record.peek(head)
        except (record.DamagedRecord, TypeError) as error:
            raise DamagedSegment("last record") from error
        if (start, counted, record.size_of(counted)) != (key, count, size):
            raise DamagedSegment("last record")
        return start, start + count

    def _head_of(self, key: int) -> bytes:
        with self._db.blobopen("record", "body", key, readonly=True) as blob:
            return blob.read(record.HEADER.size)


def _whole(key: object) -> int:
    """A row number: where the schema's text is damaged the column may hold anything."""
    if not isinstance(key, int):
        raise DamagedSegment(f"a record's number is {key!r}")
    return key


def _decoded(key: object, body: object) -> tuple[int, Batch]:
    if not isinstance(body, bytes):
        raise DamagedSegment("a record is no blob")
    try:
        start, batch = record.decode(body)
    except record.DamagedRecord as error:
        raise DamagedSegment(f"record {key}: {error}") from error
    if start != key:
        raise DamagedSegment(f"record {key} says it is {start}")
    return start, batch


def _meta_of(rows: list[tuple[object]]) -> Meta:
    body = rows[0][0] if len(rows) == 1 else None
    if not isinstance(body, bytes) or len(body) < _META.size:
        raise DamagedSegment("meta")
    magic, crc = _META.unpack_from(body)
    text = body[_META.size :]
    if magic != _META_MAGIC or crc != zlib.crc32(text):
        raise DamagedSegment("meta checksum")
    said = json.loads(text)
    if said["format"] > FORMAT:
        raise NewerFormat(f"format {said['format']}")
    return Meta(said["spool_id"], said["first"], said["previous_end"], said.get("thinned_s", 0))


def _sorted_out(error: Exception) -> Exception:
    return DamagedSegment(str(error)) if is_damage(error) else error
