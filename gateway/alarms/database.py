"""The journal's SQLite file: opened whatever its state, written with room to spare.

    write ── full disk ──▶ give up the reserve ────▶ again ──▶ StorageFault
      ├───── damage ─────▶ copy aside, salvage ────▶ again ──▶ StorageFault
      └───── disk error ─▶ poisoned: a new opening ▶ again ──▶ StorageFault, opened anew next time

Owns: the schema, transactions, the reserve, quarantine, what counts as a damaged row, and going on
after damage. Every row is read as bytes that may be anything; a text that is no longer UTF-8 reads
as question marks, so that one flipped bit makes one damaged row and not an exception.

**A connection on which the disk failed is never asked again**: after a failed sync the system has
forgotten which pages were not written, and the next one succeeds without them. It is closed, and
another is opened. That one would take unsynced pages of the log, which it finds in memory, for
durable: so the whole log is first copied into the file and synced there, and begins anew. The
connection for reading stays open meanwhile.

**The log stays until it is on record that the journal was closed.** A start that finds none after
a process that did not close it takes the file for another one and skips numbers. A start that the
disk broke off, or a close that could not be noted, therefore leaves the log (`keep_log`).

Not here: what rows mean and the order they come in (journal.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from gateway.alarms.carve import carve_log
from gateway.alarms.chain import GENESIS, Anchor, StoredRow, columns_of, is_whole
from gateway.alarms.files import sync_directory
from gateway.alarms.record import RecordError, decode_alarm, decode_event, encode
from gateway.alarms.salvage import Salvaged, quarantine, salvage
from gateway.model.alarm import AlarmEvent
from gateway.model.errors import StorageFault

SCHEMA_VERSION = 2
"""2: `urgency`, made and filled on the first start with a journal of version 1."""
DATABASE = "journal.db"
RESERVE_BYTES = 64 * 1024 * 1024
"""Held back for alarms on a full disk: some 30,000 events."""
LOST_SKIP = 1_000_000_000
"""Added to the last known gseq when the head is lost: more than one can have grown since."""
DETAILS_MAX = 100
SYNCHRONOUS = "FULL"
"""Every commit is synced; with NORMAL, which WAL is usually run with, only now and then one is."""
BUSY_TIMEOUT_S = 5.0
"""Only a `sqlite3` shell opened by hand can make us wait."""

log = logging.getLogger(__name__)

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SHORT_READ = 522  # SQLITE_IOERR_SHORT_READ: a file cut off
_REFUSED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CONSTRAINT)
"""Nothing is wrong with the disk."""
_FULL_BELOW_BYTES = 1024 * 1024
_WORK = "salvage-"  # folders a rescue works in
_SUM_SIZE = 16

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE event (gseq INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL,
        alarm_key TEXT NOT NULL, transition TEXT NOT NULL, rule_kind TEXT NOT NULL,
        late INTEGER NOT NULL, record BLOB NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL)""",
    "CREATE INDEX event_by_time ON event (time_ns)",
    "CREATE INDEX event_by_key ON event (alarm_key)",
    "CREATE INDEX event_late ON event (gseq) WHERE late",
    "CREATE TABLE live (alarm_key TEXT PRIMARY KEY, record BLOB NOT NULL, sum BLOB NOT NULL)",
    "CREATE TABLE cursor (name TEXT PRIMARY KEY, gseq INTEGER NOT NULL) WITHOUT ROWID",
    # After the others: a salvage lays the first page of a new file over one grown from version 1,
    # and must find their roots where they are.
    """CREATE TABLE urgency (priority INTEGER NOT NULL, gseq INTEGER NOT NULL,
        PRIMARY KEY (priority, gseq)) WITHOUT ROWID""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_CREATED = {statement for statement in _SCHEMA if statement.startswith("CREATE")}
_URGENCY = _SCHEMA[-2:]  # what version 2 added
_FOR_THE_WRITER = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
"""Why a log cannot be held by a reader though a writer may well go on: a cut while the file was
being made, which a writer must undo first; a log whose file is gone."""
_PUT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_LIVE = """INSERT INTO live VALUES (?, ?, ?)
    ON CONFLICT (alarm_key) DO UPDATE SET record = excluded.record, sum = excluded.sum"""
_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_PUT_URGENCY = "INSERT OR IGNORE INTO urgency VALUES (?, ?)"
_PUT_CURSOR = "INSERT OR REPLACE INTO cursor VALUES (?, ?)"


class _DamagedError(sqlite3.DatabaseError):
    """Readable to SQLite, and yet not what we wrote."""


LiveRow = tuple[str, bytes, bytes]
"""(alarm_key, record, sum of the record)"""


@dataclass
class JournalDamage:
    """What was found damaged since the start; nothing of it stopped anything."""

    rows: int = 0  # event rows that cannot be trusted, left out of what is read
    live_rows: int = 0  # live rows put together again from the events
    lost: int = 0  # gseqs that should be there and are not
    files: int = 0  # whole files: the database, checkpoints
    quarantined: list[Path] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.live_rows or self.lost or self.files)

    def note(
        self, detail: str, *, rows: int = 0, live_rows: int = 0, lost: int = 0, files: int = 0
    ) -> None:
        self.rows += rows
        self.live_rows += live_rows
        self.lost += lost
        self.files += files
        if len(self.details) < DETAILS_MAX:
            self.details.append(detail)


class JournalDatabase:
    """One writing and one reading connection. Any thread may call."""

    def __init__(self, directory: Path, *, reserve_bytes: int) -> None:
        self.damage = JournalDamage()
        self.head = Anchor(0, GENESIS)  # the last event on stable storage
        self.epoch = 0
        self.poisoned_count = 0  # connections left alone because the disk failed under them
        self.write_lock = threading.RLock()
        self._read_lock = threading.RLock()  # taken after write_lock where both are
        self._directory = directory
        self._path = directory / DATABASE
        self._log = directory / f"{DATABASE}-wal"
        self._reserve = directory / "reserve"
        self.reserve_bytes = reserve_bytes
        self._known_bad: set[int] = set()
        self._unsalvaged = ""  # why a rescue began that did not come to its end
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def start(self, *, known_head: int, was_there: bool, was_open: bool) -> None:
        """Open or create; salvage what is damaged. `known_head`: a gseq used for certain;
        `was_open`: the last process did not close it, so that there must be a log.

        Raises: StorageFault if the disk refuses.
        """
        for left in self._directory.glob(f"{_WORK}*"):  # of a rescue that was killed
            shutil.rmtree(left, ignore_errors=True)
        log, has_log = self._read_log(), self._log.exists()
        try:
            self._connect()
            self._put_back(log)
            self._check_live()
            is_ours = self.meta("epoch", None) is not None
            lacks_log = was_open and not has_log
            if (was_there and not is_ours) or self.head.gseq < known_head or lacks_log:
                # Missing, emptied, without its log, or an old copy put in its place.
                self.damage.note(f"{DATABASE} is not the one last used", files=1)
                used = max(known_head, self.head.gseq)
                self._set_head(Anchor(used + LOST_SKIP, self.head.hash))
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise StorageFault(f"{self._path}: {error}") from error
            with self.faults():
                self.rescue(str(error), Anchor(known_head, b""))
        except OSError as error:  # of a directory that cannot be synced
            raise StorageFault(f"{self._path}: {error}") from error

    def _read_log(self) -> bytes:
        """What a dead process left, before SQLite cuts it off at the first bad sum."""
        with contextlib.suppress(OSError):
            return self._log.read_bytes()
        return b""

    def _put_back(self, log: bytes) -> None:
        """Events of the log behind the place where SQLite stopped reading it, each believed for its
        own hash. What was stored for certain is put back beyond a gap too, which then shows in the
        chain; the rest only as far as it follows without one."""
        rows, certain = carve_log(log)
        at = self.head.gseq
        missing: list[StoredRow] = []
        for gseq in sorted(gseq for gseq in rows if gseq > at):
            if gseq > certain and gseq != at + 1:
                break
            missing.append(rows[gseq])
            at = gseq
        if not missing:
            return
        if certain > self.head.gseq:
            lost = at - self.head.gseq - len(missing)
            self.damage.note(
                f"{len(missing)} events put back from a damaged log", files=1, lost=lost
            )
            self._keep_bytes("journal-log", log)
        live = {}
        for row in missing:
            event = self.event_of(row)
            if event is not None:
                record = encode(event)[1]
                live[row.alarm_key] = (row.alarm_key, record, sum_of(record))
        head = Anchor(missing[-1].gseq, missing[-1].hash)

        def work(db: sqlite3.Connection) -> None:
            db.executemany(_PUT_EVENT, missing)
            db.executemany(_PUT_URGENCY, _urgency_of(missing))
            db.executemany(_PUT_LIVE, list(live.values()))
            _put_head(db, head)

        self._transact(work, fenced=False)
        self.head = head

    def close(self, *, keep_log: bool = False) -> None:
        """`keep_log`: leave the log beside the file, as a process that dies does. SQLite takes it
        away with the last connection that may write, so that one must not be the last."""
        order = (self._writer, self._reader) if keep_log else (self._reader, self._writer)
        for connection in order:
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    # --- one transaction

    def write(self, work: Callable[[sqlite3.Connection], object], *, fenced: bool = True) -> None:
        """Do `work` in one synced transaction; tried again once after making room, salvage, or on
        a new connection.

        Raises: StorageFault; nothing of it was done.
        """
        with self.write_lock:
            head = self.head
            try:
                self._transact(work, fenced=fenced)
            except sqlite3.Error as error:
                if not self._can_go_on(error):
                    raise StorageFault(f"{self._path}: {error}") from error
                if self.head != head:  # the log had it after all: given again, it is recognised
                    raise StorageFault(f"{self._path}: stored before the fault") from error
                self._again(work, fenced=fenced)
            else:
                self.fill_reserve()

    def _again(self, work: Callable[[sqlite3.Connection], object], *, fenced: bool) -> None:
        with self.faults():
            try:
                self._transact(work, fenced=fenced)
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in (*_REFUSED, *_DAMAGE, sqlite3.SQLITE_FULL):
                    self._poison(error)
                raise

    def _can_go_on(self, error: sqlite3.Error) -> bool:
        """Whether what stood in the way is out of it."""
        if _is_damage(error):
            with self.faults():
                self.rescue(str(error), self.head)
            return True
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return self._give_up_reserve()
        if code in _REFUSED:
            return False
        if self._is_full():  # SQLite says so only of some calls
            self._give_up_reserve()
        self._poison(error)
        with self.faults():
            self._reopen()
        return True

    def _poison(self, error: sqlite3.Error) -> None:
        self.poisoned_count += 1
        log.critical("%s: the disk failed, it is opened anew: %s", self._path, error)
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(sqlite3.Error):
                writer.close()

    def _reopen(self) -> None:
        """A new connection to write with, everything before it synced by it, and the end of the
        chain where it was. Raises: StorageFault, sqlite3.Error, OSError; there is none then."""
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(contextlib.closing(_connection(self._path)))
            is_busy, *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_busy:
                raise StorageFault(f"{self._path}: the log cannot be copied yet")
            sync_directory(self._directory)
            found = self._stored_head(writer)
            if found.gseq < self.head.gseq or not self._has(writer, self.head):
                raise StorageFault(f"{self._path}: is not the one that was written")
            stack.pop_all()
        self._writer, self.head = writer, found

    def _has(self, db: sqlite3.Connection, anchor: Anchor) -> bool:
        """Whether the chain goes through `anchor`, as far as its event is not lost."""
        row = db.execute("SELECT hash FROM event WHERE gseq = ?", (anchor.gseq,)).fetchone()
        return row is None or row[0] == anchor.hash

    def _transact(self, work: Callable[[sqlite3.Connection], object], *, fenced: bool) -> None:
        if self._writer is None:
            with self.faults():
                if not self._rescue_left():
                    assert self._reader is not None, "the journal is closed"
                    self._reopen()
        db = self._writer
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
            if fenced:
                self._assert_ours()
            work(db)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _assert_ours(self) -> None:
        if self.meta("epoch", 0) != self.epoch:
            raise StorageFault(f"{self._path}: another process took the journal over")

    # --- what may be done in one

    def put_epoch(self, epoch: int) -> None:
        self.write(lambda db: db.execute(_PUT_META, ("epoch", epoch)), fenced=False)
        self.epoch = epoch

    def put_events(
        self, rows: list[StoredRow], live: list[LiveRow], urgency: list[tuple[int, int]]
    ) -> None:
        """Rows, the live rows they leave, (priority, gseq) of each, the head; all or nothing."""
        head = Anchor(rows[-1].gseq, rows[-1].hash)

        def work(db: sqlite3.Connection) -> None:
            db.executemany(_PUT_EVENT, rows)
            db.executemany(_PUT_URGENCY, urgency)
            db.executemany(_PUT_LIVE, live)
            _put_head(db, head)

        self.write(work)
        self.head = head

    def put_anchor(self, pointer: bytes) -> None:
        self.write(lambda db: db.execute(_PUT_META, ("anchor", pointer)))

    def put_cursor(self, name: str, gseq: int) -> None:
        self.write(lambda db: db.execute(_PUT_CURSOR, (name, gseq)))

    def replace_live(self, rows: list[LiveRow]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM live")
            db.executemany(_PUT_LIVE, rows)

        self.write(work)

    def _set_head(self, head: Anchor) -> None:
        """The chain goes on from here although no event stands here."""

        def work(db: sqlite3.Connection) -> None:
            _put_head(db, head)
            db.execute(_PUT_META, ("skip", head.gseq))

        self._transact(work, fenced=False)
        self.head = head

    # --- reading

    def meta(self, name: str, default: Any) -> Any:
        assert self._writer is not None, "the journal is closed"
        row = self._writer.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return default if row is None else row[0]

    def ask(self, question: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Rows of the last committed state. Raises: StorageFault."""
        try:
            if self._unsalvaged:
                with self.faults():
                    self._rescue_left()
            return self._ask(question, values)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise StorageFault(f"{self._path}: {error}") from error
            with self.write_lock, self.faults():
                self.rescue(str(error), self.head)
                return self._ask(question, values)

    def _ask(self, question: str, values: tuple[object, ...]) -> list[Any]:
        with self._read_lock:
            assert self._reader is not None, "the journal is closed"
            return self._reader.execute(question, values).fetchall()

    def events(
        self, where: str, values: tuple[object, ...], *, after: int | None = None
    ) -> list[StoredRow]:
        """Rows that `where` asks for. `after`: it asks for what comes after that gseq, in order;
        anything else is a tree that leads astray, which SQLite does not notice."""
        question = f"SELECT * FROM event {where}"  # noqa: S608 - `where` is ours, values are bound
        rows = [StoredRow(*row) for row in self.ask(question, values)]
        if after is None or _is_in_order(rows, after):
            return rows
        with self.write_lock, self.faults():
            self.rescue("events are out of order", self.head)
            rows = [StoredRow(*row) for row in self._ask(question, values)]
        if not _is_in_order(rows, after):
            raise StorageFault(f"{self._path}: out of order after a salvage")
        return rows

    def event_of(self, row: StoredRow) -> AlarmEvent | None:
        """The event of a row, or None and a copy in quarantine if it is not what was written."""
        if is_whole(row):
            with contextlib.suppress(RecordError):
                event = decode_event(row.record)
                if columns_of(event) == row[:6]:
                    return event
        if row.gseq not in self._known_bad:
            self._known_bad.add(row.gseq)
            self.damage.note(f"event {row.gseq} is damaged", rows=1)
            self._keep_bytes(f"event-{row.gseq}", row.record)
        return None

    # --- opening

    def _connect(self) -> None:
        self._hold_log()
        self._writer = _connection(self._path)
        schema = self._writer.execute("SELECT sql FROM sqlite_master WHERE sql > ''").fetchall()
        found = {sql for (sql,) in schema}
        if not schema:
            _create(self._writer)
        elif found == _CREATED - set(_URGENCY):
            _add_urgency(self._writer)
        elif found != _CREATED:
            raise _DamagedError("the schema is not ours")
        elif self._writer.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            raise _DamagedError("the version is not ours")
        # What a dead process left in the log is copied into the file and synced: pages its failed
        # sync may have left in memory only are written again.
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync_directory(self._directory)
        if self._reader is None:
            self._reader = _reading(self._path)
        self.head = self._stored_head(self._writer)

    def _hold_log(self) -> None:
        """A reader before the writer: a writer that fails and is closed leaves the log then."""
        if not self._log.exists():
            return
        try:
            self._reader = _reading(self._path)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _FOR_THE_WRITER:
                raise

    def _stored_head(self, db: sqlite3.Connection) -> Anchor:
        noted = dict(db.execute("SELECT name, value FROM meta"))
        head = Anchor(noted.get("head", 0), noted.get("head_hash", GENESIS))
        last = db.execute("SELECT gseq, hash FROM event ORDER BY 1 DESC LIMIT 1")
        found = Anchor(*(last.fetchone() or (0, GENESIS)))
        if not _is_anchor(head) or head.gseq <= found.gseq:
            return found
        missing = head.gseq - max(found.gseq, noted.get("skip", 0))
        if missing > 0:
            self.damage.note(f"{missing} events missing at the end", lost=missing)
        return head

    def _check_live(self) -> None:
        """Every live row must be whole; one that is not is put together from its events."""
        assert self._writer is not None
        rows = self._writer.execute("SELECT * FROM live").fetchall()
        bad = [row for row in rows if not _is_sound(row[1], row[2])]
        if not bad:
            return
        healed = []
        for key, record, _ in bad:
            self.damage.note(f"live row of {key} is damaged", live_rows=1)
            self._keep_bytes("live", record)
            newest = self._newest(key)
            if newest is not None:
                healed.append((key, newest, sum_of(newest)))

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM live WHERE alarm_key = ?", [(row[0],) for row in bad])
            db.executemany(_PUT_LIVE, healed)

        self._transact(work, fenced=False)

    def _newest(self, key: str) -> bytes | None:
        """The row of one key as its last whole event left it."""
        assert self._writer is not None
        question = "SELECT * FROM event WHERE alarm_key = ? ORDER BY gseq DESC"
        for row in self._writer.execute(question, (key,)):
            event = self.event_of(StoredRow(*row))
            if event is not None:
                return encode(event)[1]
        return None

    # --- after damage

    def rescue(self, why: str, known: Anchor) -> None:
        """Set the damaged file aside and go on with what can be read of it."""
        with self.write_lock, self._read_lock:
            self._unsalvaged = why
            self.close()
            wal = self._log
            # Nothing is touched before the copies are made: on a full disk this raises here.
            files = [file for file in (self._path, wal) if file.exists()]
            self.damage.quarantined += quarantine(files, self._directory / "quarantine")
            self.damage.note(why, files=1)
            with tempfile.TemporaryDirectory(dir=self._directory, prefix=_WORK) as work:
                fresh = Path(work) / "fresh.db"
                with contextlib.closing(_connection(fresh)) as db:
                    _create(db)
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    found = salvage(self._path, fresh, Path(work))
                    self._refill(db, found, known)
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                wal.unlink(missing_ok=True)
                self._path.with_name(self._path.name + "-shm").unlink(missing_ok=True)
                fresh.replace(self._path)
            self._connect()
            self._unsalvaged = ""

    def _rescue_left(self) -> bool:
        """Do what is left of a rescue the disk broke off. Until it is done nothing is open."""
        with self.write_lock:
            why = self._unsalvaged
            if why:
                self.rescue(why, self.head)
            return bool(why)

    def _refill(self, db: sqlite3.Connection, found: Salvaged, known: Anchor) -> None:
        events = sorted(found.events, key=lambda row: row.gseq)
        live: dict[Any, tuple[bytes, bytes]] = {
            key: (record, total) for key, record, total in found.live if _is_sound(record, total)
        }
        newest = {key: _gseq(record) for key, (record, _) in live.items()}
        for row in events:
            event = self.event_of(row)
            if event is not None and newest.get(row.alarm_key, 0) < row.gseq:
                record = encode(event)[1]
                live[row.alarm_key] = (record, sum_of(record))
        head = _head_after(found, known, max([0, *newest.values()]))
        missing = head.gseq - len(events) - (LOST_SKIP if head.gseq > LOST_SKIP else 0)
        self.damage.note(f"{len(events)} events salvaged", lost=max(0, missing))
        db.execute("BEGIN IMMEDIATE")
        db.executemany(_PUT_EVENT.replace("INSERT", "INSERT OR IGNORE"), events)
        db.executemany(_PUT_URGENCY, _urgency_of(events))
        db.executemany(_PUT_LIVE, [(key, *row) for key, row in live.items()])
        db.executemany(_PUT_CURSOR, found.cursors)
        epoch = found.meta.get("epoch")
        epoch = max(self.epoch, epoch if isinstance(epoch, int) else 0)
        db.executemany(_PUT_META, (("epoch", epoch), ("skip", head.gseq)))
        if isinstance(found.meta.get("anchor"), bytes):
            db.execute(_PUT_META, ("anchor", found.meta["anchor"]))
        _put_head(db, head)
        db.execute("COMMIT")

    def keep_copies(self, files: list[Path], why: str) -> None:
        """Best effort, for files that are then overwritten in their turn anyway."""
        with contextlib.suppress(OSError):
            self.damage.quarantined += quarantine(files, self._directory / "quarantine")
        self.damage.note(why, files=len(files))

    def _keep_bytes(self, name: str, data: object) -> None:
        """Best effort: a full disk does not stop reading around the damage."""
        raw = data if isinstance(data, bytes) else repr(data).encode()
        path = self._directory / "quarantine" / f"{name}-{sum_of(raw).hex()[:8]}.bin"
        if not path.exists():
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                path.write_bytes(raw)
                self.damage.quarantined.append(path)

    # --- reserve

    @property
    def has_reserve(self) -> bool:
        return self._reserve_size() > 0  # a start that was killed may leave an empty file

    def _reserve_size(self) -> int:
        try:
            return self._reserve.stat().st_size
        except OSError:
            return 0

    def resize_reserve(self, size: int) -> None:
        self.reserve_bytes = size
        if self._reserve_size() == size:
            return
        self._give_up_reserve()
        self.fill_reserve()

    def fill_reserve(self) -> None:
        """Take the reserve (again) if that leaves as much free."""
        if not self.reserve_bytes or self.has_reserve:
            return
        space = os.statvfs(self._directory)
        if space.f_bavail * space.f_frsize < 2 * self.reserve_bytes:
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.reserve_bytes)
            except OSError:
                self._reserve.unlink()
            finally:
                os.close(descriptor)

    def _is_full(self) -> bool:
        try:
            space = os.statvfs(self._directory)
        except OSError:
            return False
        return space.f_bavail * space.f_frsize < _FULL_BELOW_BYTES

    def _give_up_reserve(self) -> bool:
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageFault(f"{self._path}: {error}") from error


def _add_urgency(db: sqlite3.Connection) -> None:
    """Version 1 to 2. Only what some sink has not been told yet is looked up by urgency."""
    told = db.execute("SELECT min(gseq) FROM cursor").fetchone()[0] or 0
    rows = (StoredRow(*row) for row in db.execute("SELECT * FROM event WHERE gseq > ?", (told,)))
    urgency = list(_urgency_of(rows))
    db.execute("BEGIN IMMEDIATE")
    for statement in _URGENCY:
        db.execute(statement)
    db.executemany(_PUT_URGENCY, urgency)
    db.execute("COMMIT")


def _urgency_of(rows: Iterable[StoredRow]) -> Iterator[tuple[int, int]]:
    for row in rows:
        with contextlib.suppress(ValueError, TypeError, KeyError):  # damaged: left out when read
            yield int(orjson.loads(row.record)["alarm"]["priority"]), row.gseq


def read_only(path: Path) -> sqlite3.Connection:
    """For looking at a journal nobody has open, or a copy. Raises: sqlite3.Error."""
    # Without a log there is nothing to share with a writer, and no helper file need be made.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    db.text_factory = _text
    return db


def sum_of(record: bytes) -> bytes:
    return hashlib.sha256(record).digest()[:_SUM_SIZE]


def _connection(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
    )
    db.text_factory = _text
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    return db


def _reading(path: Path) -> sqlite3.Connection:
    """One that cannot write, and so leaves the log where it is when it is closed."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_S,
    )
    db.text_factory = _text
    try:
        db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()  # holds the log from here on
    except BaseException:
        db.close()
        raise
    return db


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        db.execute(statement)
    db.execute("COMMIT")


def _put_head(db: sqlite3.Connection, head: Anchor) -> None:
    db.executemany(_PUT_META, (("head", head.gseq), ("head_hash", head.hash)))


def _head_after(found: Salvaged, known: Anchor, live_gseq: int) -> Anchor:
    """Where the chain goes on: as known, as on record, or far above anything used."""
    last = max(found.events, key=lambda row: row.gseq, default=None)
    at = Anchor(last.gseq, last.hash) if last else Anchor(0, GENESIS)
    if known.hash:
        return known
    recorded = Anchor(found.meta.get("head"), found.meta.get("head_hash"))  # type: ignore[arg-type]
    used = max(known.gseq, at.gseq, live_gseq)
    if _is_anchor(recorded) and recorded.gseq >= used:
        return recorded
    return Anchor(used + LOST_SKIP, at.hash if isinstance(at.hash, bytes) else GENESIS)


def _is_in_order(rows: list[StoredRow], after: int) -> bool:
    return all(a < b for a, b in pairwise([after, *(row.gseq for row in rows)]))


def _is_anchor(anchor: Anchor) -> bool:
    return isinstance(anchor.gseq, int) and isinstance(anchor.hash, bytes)


def _is_sound(record: object, total: object) -> bool:
    return isinstance(record, bytes) and sum_of(record) == total


def _gseq(record: bytes) -> int:
    return decode_alarm(record).gseq


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    if isinstance(error, _DamagedError):
        return True
    return code & 0xFF in _DAMAGE or code == _SHORT_READ
