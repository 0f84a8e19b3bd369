"""One SQLite file: what was counted, and the offset it reaches, in one transaction.

    directory/ledger.db    minute   a row a minute: offsets and packed columns (cells.py)
                           hour     sums of settled hours; a cache while their minutes are kept
                           plan     from which minute on which points were expected how often
                           point    what each index was called, so that a copy can be read alone
                           outage   stretches of time that explain gaps, by kind and name
                           verdict  rows a consumer refused, packed; dropped: ranges it gave up
                           consumer how far each has come
                           state    offset, beat, what was heard last of each point

Either a whole flush is in the file or none of it; rows behind the offset are counted again. A file
that cannot be read is set aside (`ledger.db.damaged-N`) and a new one begun: the start never fails
for it.

Not here: what the numbers mean (settle.py), when to flush (ledger.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway.ledger.cells import Cells, Span
from gateway.model.errors import ConfigError, Fault, StorageFault

DATABASE = "ledger.db"
FORMAT = 1
ASIDE_MAX = 3  # damaged files kept; the oldest goes
BUSY_TIMEOUT_S = 5.0  # only ever waits for a reader's statement
_SCHEMA = (
    "CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    (
        "CREATE TABLE minute (minute INTEGER PRIMARY KEY, first INTEGER, last INTEGER,"
        " delayed_first INTEGER, delayed_last INTEGER, body BLOB)"
    ),
    "CREATE TABLE hour (hour INTEGER PRIMARY KEY, body BLOB)",
    "CREATE TABLE plan (minute INTEGER PRIMARY KEY, body BLOB)",
    (
        "CREATE TABLE point (idx INTEGER PRIMARY KEY, id TEXT, name TEXT, device TEXT,"
        " adapter TEXT, area TEXT)"
    ),
    (
        "CREATE TABLE outage (kind INTEGER, name TEXT, from_ns INTEGER, to_ns INTEGER,"
        " PRIMARY KEY (kind, name, from_ns)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE verdict (lane TEXT, first INTEGER, last INTEGER, reason INTEGER,"
        " from_minute INTEGER, to_minute INTEGER, body BLOB,"
        " PRIMARY KEY (lane, first, reason)) WITHOUT ROWID"
    ),
    "CREATE INDEX verdict_minute ON verdict (to_minute)",
    (
        "CREATE TABLE dropped (lane TEXT, first INTEGER, last INTEGER, reason INTEGER,"
        " at_ns INTEGER, PRIMARY KEY (lane, first)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE consumer (name TEXT PRIMARY KEY, role TEXT, begins INTEGER,"
        " committed INTEGER, live_from INTEGER, live_to INTEGER) WITHOUT ROWID"
    ),
)
_PUT_MINUTE = "INSERT OR REPLACE INTO minute VALUES (?, ?, ?, ?, ?, ?)"
_PUT_STATE = "INSERT OR REPLACE INTO state VALUES (?, ?)"


class Store:
    """One connection; used under its owner's lock."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, set_aside: str = "") -> None:
        """Use `open` or `open_read_only`."""
        self.path = path
        self.set_aside = set_aside  # name of the damaged file this start found
        self.is_damaged = False  # SQLite said so while it was used
        self._db = db

    @classmethod
    def open(cls, directory: Path) -> Store:
        """Open or begin. Raises StorageFault when the directory cannot be written."""
        path = directory / DATABASE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            aside = ""
            try:
                db = _connection(path)
            except (sqlite3.DatabaseError, ValueError, TypeError) as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                    raise
                aside = put_aside(path)
                db = _connection(path)
            return cls(path, db, set_aside=aside)
        except (OSError, sqlite3.Error) as error:
            raise StorageFault(f"{path}: {error}") from error

    @classmethod
    def open_read_only(cls, directory: Path) -> Store:
        """A copy, or one that is being written. Raises ConfigError if there is none."""
        path = directory / DATABASE
        if not path.is_file():
            raise ConfigError([Fault(str(path), 0, "", "a ledger; there is no such file")])
        how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
        try:
            db = sqlite3.connect(
                f"{path.absolute().as_uri()}?{how}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise StorageFault(f"{path}: {error}") from error
        return cls(path, db)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end. Raises StorageFault."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise self._fault(error) from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """One state for several questions."""
        self.ask("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        """Raises StorageFault."""
        try:
            return self._db.execute(question, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> StorageFault:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        self.is_damaged |= code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        return StorageFault(f"{self.path}: {error}")

    def put(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Inside a transaction."""
        self._db.executemany(statement, rows)

    # ------------------------------------------------------------------ state and minutes

    def state(self) -> dict[str, Any]:
        return dict(self.ask("SELECT name, value FROM state"))

    def put_state(self, **values: Any) -> None:
        self.put(_PUT_STATE, list(values.items()))

    def minutes(self, first: int, end: int) -> dict[int, Cells]:
        """Those of [first, end) there are. One that cannot be unpacked is left out."""
        found = {}
        for minute, *offsets, body in self.ask(
            "SELECT * FROM minute WHERE minute >= ? AND minute < ? ORDER BY minute", (first, end)
        ):
            with contextlib.suppress(ValueError):
                found[minute] = Cells.unpacked(body, Span(*offsets[:2]), Span(*offsets[2:]))
        return found

    def add_minute(self, minute: int, counted: Cells) -> None:
        """Inside a transaction: what was counted on top of what is there."""
        before = self.minutes(minute, minute + 1).get(minute)
        if before is not None:
            before.add(counted)
            counted = before
        self.put(
            _PUT_MINUTE,
            [
                (
                    *(minute, counted.in_time.first, counted.in_time.last),
                    *(counted.delayed.first, counted.delayed.last, counted.packed()),
                )
            ],
        )

    @property
    def size_bytes(self) -> int:
        (pages,), (page_bytes,) = self.ask("PRAGMA page_count")[0], self.ask("PRAGMA page_size")[0]
        return int(pages) * int(page_bytes)


def _connection(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error, ValueError for a file that is not a ledger of ours."""
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
    )
    try:
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(_PUT_STATE, ("format", FORMAT))
            db.execute("COMMIT")
        _check_format(db)
    except BaseException:
        db.close()
        raise
    return db


def _check_format(db: sqlite3.Connection) -> None:
    found = db.execute("SELECT value FROM state WHERE name = 'format'").fetchone()
    if found is None or found[0] != FORMAT:
        raise ValueError(f"format {found}")


def put_aside(path: Path) -> str:
    """Out of the way, kept for a person to look at; the name it has now."""
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*"), key=lambda p: int(p.suffix[9:]))
    number = int(kept[-1].suffix[9:]) + 1 if kept else 1
    for old in kept[: max(0, len(kept) + 1 - ASIDE_MAX)]:
        old.unlink(missing_ok=True)
    aside = path.with_name(f"{path.name}.damaged-{number}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside.name


def _is_damage(error: sqlite3.Error) -> bool:
    """A file that is none of ours or lacks a table, rather than a disk that refuses."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
