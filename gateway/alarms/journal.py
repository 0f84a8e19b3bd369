"""The journal: every alarm event, durable before it is told to anyone. Append-only.

    journal.db    SQLite, WAL, synchronous=FULL: one sync for each append
      event       gseq | columns to search by | record | prev | hash     never updated or deleted
      live        the row of each alarm key as its last event left it, in the same transaction
      cursor      how far each alarm sink has committed
      urgency     priority and gseq: what is told first
      meta        epoch, head, head_hash, anchor
    anchors.jsonl signed anchors of the chain (anchors.py), anchor.key and .pub (signing.py)
    epoch         epoch, head, version and whether it was closed, in case journal.db is lost
    checkpoint-*  the rule core's state (checkpoint.py)
    reserve       bytes held back: given up when the disk is full, so that alarms still fit
    journal.lock  one process at a time
    quarantine/   untouched copies of whatever was found damaged

`append` returns when the events are on stable storage; only then may they be published or a command
be answered. If it raises StorageFault nothing was stored, and the same events are to be given again
before later ones: an event already stored is recognised by its gseq and skipped.

Damage never refuses the start. A damaged row is copied to quarantine, counted and left out of what
is read; a file SQLite cannot use is salvaged row by row. `damage` says what happened. After a total
loss gseq goes on far above anything that can have been used.

Surprising: losing a sink's cursor tells that sink everything again. Twice is better than never.

Not here: what the events are (book.py), the bytes of a record (record.py), the chain (chain.py),
the file itself (database.py), whether somebody changed it (verify.py), pruning (there is none:
evidence is kept).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.alarms.anchors import ANCHORS, AnchorLog, AnchorPointer, SignedAnchor
from gateway.alarms.book import LATE_KEPT, AlarmBook, LateIdentity
from gateway.alarms.chain import (
    Anchor,
    ChainReport,
    StoredRow,
    check_chain,
    columns_of,
    is_whole,
    link,
)
from gateway.alarms.checkpoint import CheckpointFiles
from gateway.alarms.database import (
    DATABASE,
    RESERVE_BYTES,
    SCHEMA_VERSION,
    JournalDamage,
    JournalDatabase,
    read_only,
    sum_of,
)
from gateway.alarms.files import write_whole
from gateway.alarms.record import decode_alarm, encode
from gateway.alarms.signing import KEY, PUBLIC_KEY, SigningKey, write_public
from gateway.model.alarm import Alarm, AlarmEvent, Transition
from gateway.model.errors import Refused, StorageFault, Unavailable

# The keys come from the few urgent rows, their events from the index by key: what a backlog of
# less urgent events costs is nothing.
_URGENT = """WHERE gseq IN (
    SELECT gseq FROM event INDEXED BY event_by_key WHERE gseq > ? AND alarm_key IN (
        SELECT alarm_key FROM urgency JOIN event USING (gseq)
        WHERE urgency.priority IN ({}) AND urgency.gseq > ? AND urgency.gseq <= ?)
    ORDER BY gseq LIMIT ?)
    ORDER BY gseq"""


HINT = "epoch"
_NO_END = 2**62


class JournalCursor:
    """How far one alarm sink is, durably."""

    def __init__(self, journal: Journal, name: str, gseq: int) -> None:
        self.name = name
        self.gseq = gseq  # everything up to here is told
        self._journal = journal

    def read(self, limit: int = 500) -> list[AlarmEvent]:
        """Up to `limit` events after the committed one; empty when there are none yet."""
        return self._journal.read(self.gseq, limit)

    def commit(self, gseq: int) -> None:
        """Everything up to `gseq` is told. Raises: StorageFault; it will then be told again."""
        if gseq > self.gseq:
            self._journal.commit_cursor(self.name, gseq)
            self.gseq = gseq


class Journal:
    """One open journal. Any thread may call; a reader never waits for a sync, or a sync for it."""

    def __init__(
        self, directory: Path, lock: int, database: JournalDatabase, *, key_path: Path | None
    ) -> None:
        """Use `Journal.open`."""
        self.directory = directory
        self._lock = lock
        self._database = database
        self._checkpoints = CheckpointFiles(directory)
        self._anchors = AnchorLog(directory)
        self._anchor_lock = threading.Lock()  # taken before write_lock where both are
        self._key_path = key_path
        self._key: SigningKey | None = None
        self._is_started = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        key_path: Path | None = None,
    ) -> Journal:
        """Open or create, in a new epoch. `key_path`: of the key that signs, if not in here.

        Raises: Unavailable if another process has it; Refused if a newer version wrote it;
        StorageFault if the disk cannot be written. Damage is not raised: see `damage`.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory / "journal.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageFault(f"{directory}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Unavailable(f"{directory}: another process has this journal open") from error
        database = JournalDatabase(directory, reserve_bytes=reserve_bytes)
        journal = cls(directory, lock, database, key_path=key_path)
        try:
            journal._start()
        except BaseException:
            journal.close()
            raise
        return journal

    def close(self) -> None:
        """Give the files back. Nothing is flushed: what was appended is stored already."""
        if self._lock >= 0:
            is_noted = False
            if self._is_started:
                # Before SQLite takes its log away: a start after a cut in between must not miss it.
                with contextlib.suppress(StorageFault):
                    write_whole(self.directory / HINT, self._hint("closed"))
                    is_noted = True
            self._database.close(keep_log=not is_noted)
            os.close(self._lock)
            self._lock = -1

    def _start(self) -> None:
        database = self._database
        epoch, head, version, state = self._read_hint()
        if version > SCHEMA_VERSION:
            found = f"version {version}, this program reads {SCHEMA_VERSION}"
            raise Refused(f"{self.directory}: {found}")
        checkpoints = self._checkpoints.load_all()
        if self._checkpoints.damaged:
            database.keep_copies(self._checkpoints.damaged, "a rule checkpoint is unreadable")
        known = max([head, *(checkpoint.gseq for _, checkpoint in checkpoints)])
        database.start(known_head=known, was_there=epoch > 0, was_open=state == "open")
        stored = database.meta("epoch", 0)
        database.put_epoch(1 + max(epoch, stored if isinstance(stored, int) else 0))
        write_whole(self.directory / HINT, self._hint("open"))
        self._is_started = True
        database.fill_reserve()

    def _hint(self, state: str) -> bytes:
        body = f"{self.epoch} {self.head} {SCHEMA_VERSION} {state}"
        return f"{body} {_sum_of_hint(body)}\n".encode()

    def _read_hint(self) -> tuple[int, int, int, str]:
        """(epoch, head, version, state); zeros for a file that is not what was written. A flipped
        bit in a version would else refuse the start, and one in a head skip numbers."""
        path = self.directory / HINT
        try:
            return _parsed_hint(path.read_text("ascii"))
        except FileNotFoundError:
            return 0, 0, 0, ""
        except (OSError, ValueError):
            pass
        self._database.keep_copies([path], f"{HINT} is unreadable")
        return 0, 0, 0, ""

    # --- writing

    @property
    def epoch(self) -> int:
        """Grows with every open."""
        return self._database.epoch

    @property
    def head(self) -> int:
        """The gseq of the last event on stable storage."""
        return self._database.head.gseq

    @property
    def anchor(self) -> Anchor:
        """The end of the chain; signed, and to be kept off the box, it is `newest_anchor`."""
        return self._database.head

    @property
    def damage(self) -> JournalDamage:
        """What was found damaged since the start; false if nothing was."""
        return self._database.damage

    @property
    def poisoned_count(self) -> int:
        """How often the disk failed so that the file was opened anew."""
        return self._database.poisoned_count

    @property
    def reserve_bytes(self) -> int:
        """How much is to be held back; 0 for nothing."""
        return self._database.reserve_bytes

    def keep_reserve(self, size: int) -> None:
        """Hold back so much from now on."""
        with self._database.write_lock:
            if size != self.reserve_bytes:
                self._database.resize_reserve(size)

    @property
    def has_reserve(self) -> bool:
        """False once the disk was full: make room, or the next full disk stops the journal."""
        return self._database.has_reserve

    def append(self, events: Sequence[AlarmEvent]) -> int:
        """Store `events`, on stable storage when this returns; gseq of the last.

        Raises: StorageFault, and nothing is stored; give the same events again.
        """
        with self._database.write_lock:
            new = [event for event in events if event.alarm.gseq > self.head]
            if len(new) < len(events):
                self._assert_stored(event for event in events if event.alarm.gseq <= self.head)
            if new:
                urgency = [(int(event.alarm.priority), event.alarm.gseq) for event in new]
                self._database.put_events(*self._rows_of(new), urgency)
            return self.head

    def _rows_of(
        self, events: Sequence[AlarmEvent]
    ) -> tuple[list[StoredRow], list[tuple[str, bytes, bytes]]]:
        rows = []
        live: dict[str, bytes] = {}
        at = self._database.head
        for event in events:
            assert event.alarm.gseq == at.gseq + 1, (
                f"{event.alarm.gseq} after {at.gseq}: give again first what could not be stored"
            )
            columns = columns_of(event)
            record, live[columns[2]] = encode(event)
            total = link(at.hash, event.alarm.gseq, record)
            rows.append(StoredRow(*columns, record, at.hash, total))
            at = Anchor(event.alarm.gseq, total)
        return rows, [(key, record, sum_of(record)) for key, record in live.items()]

    def _assert_stored(self, events: Iterator[AlarmEvent]) -> None:
        """What comes again must be what is there; a row lost to damage cannot be compared."""
        for event in events:
            for row in self._database.events("WHERE gseq = ?", (event.alarm.gseq,)):
                same = row.record == encode(event)[0]
                assert same, f"another event is stored as {event.alarm.gseq}"

    # --- signed anchors

    @property
    def newest_anchor(self) -> SignedAnchor | None:
        """The newest one, of an earlier run too: for whoever keeps it off the box."""
        return self._anchors.newest

    def sign(self, now_ns: int, *, occasion: str = "") -> SignedAnchor | None:
        """Vouch for everything stored so far. None if the newest anchor does so already; an
        occasion ("start", "stop") is signed in any case.

        Raises: StorageFault; events go on being stored, and a later anchor vouches for them too.
        """
        with self._anchor_lock:
            end = self._end_of_anchors()
            head, epoch, newest = self._database.head, self.epoch, self._anchors.newest
            is_new = newest is None or (newest.epoch, newest.gseq) != (epoch, head.gseq)
            if not is_new and not occasion:
                return None
            key = self._signing_key()
            anchor = SignedAnchor(
                *(end.no + 1, end.digest, epoch, head.gseq, head.hash, now_ns, occasion),
                key=key.public,
            ).signed_by(key)
            self._anchors.append(anchor)
            self._database.put_anchor(anchor.pointer.pack())
            return anchor

    def _end_of_anchors(self) -> AnchorPointer:
        if self._anchors.end is not None:
            return self._anchors.end
        rows = self._database.ask("SELECT value FROM meta WHERE name = 'anchor'")
        noted = AnchorPointer.unpack(rows[0][0] if rows else None)
        end = self._anchors.find_end(noted)
        newest = self._anchors.newest
        if noted.no > (newest.no if newest else 0):
            self.damage.note(f"{ANCHORS} has lost its end: {noted.no} were signed", files=1)
        return end

    def _signing_key(self) -> SigningKey:
        """Made when there is none. One that cannot be read is replaced only in our own folder, and
        kept aside: everybody who trusts the old one must be told. Raises: StorageFault."""
        if self._key is not None:
            return self._key
        path = self._key_path or self.directory / KEY
        try:
            self._key = SigningKey.load(path)
        except FileNotFoundError:
            self._key = SigningKey.create(path)
        except (OSError, ValueError, TypeError) as error:
            if self._key_path is not None or isinstance(error, OSError):
                raise StorageFault(f"{path}: {error}") from error
            self._database.keep_copies([path], f"{KEY} is unreadable, there is a new one")
            path.unlink()
            self._key = SigningKey.create(path)
        write_public(self.directory / PUBLIC_KEY, self._key.public)
        return self._key

    def commit_cursor(self, name: str, gseq: int) -> None:
        with self._database.write_lock:
            assert gseq <= self.head, f"{name} commits {gseq}, the head is {self.head}"
            self._database.put_cursor(name, gseq)

    def rebuild(self) -> int:
        """Make the live table anew from the whole journal; how many rows it has."""
        with self._database.write_lock:
            live: dict[str, bytes] = {}
            for row in self._rows():
                event = self._database.event_of(row)
                if event is not None:
                    live[row.alarm_key] = encode(event)[1]
            rows = [(key, record, sum_of(record)) for key, record in sorted(live.items())]
            self._database.replace_live(rows)
        return len(rows)

    # --- reading

    def read(self, after_gseq: int, limit: int = 500) -> list[AlarmEvent]:
        """Up to `limit` events after `after_gseq`, in order; damaged ones are left out."""
        where = "WHERE gseq > ? ORDER BY gseq LIMIT ?"
        return self._read_up_to(limit, after_gseq, lambda at, left: (where, (at, left)))

    def read_urgent(
        self, after_gseq: int, priority_max: int, limit: int = 500, *, until_gseq: int = _NO_END
    ) -> list[AlarmEvent]:
        """Up to `limit` events after `after_gseq`, in order, of every alarm key that has one there
        at least as urgent as `priority_max` (1 is the most urgent): all of such a key's events, so
        that whoever tells these first tells each alarm's story in order. Page by page that holds
        only with one `until_gseq`: an event up to it makes its key urgent, none that comes later.
        """
        priorities = ",".join(str(priority) for priority in range(1, priority_max + 1))
        where = _URGENT.format(priorities)
        return self._read_up_to(
            limit, after_gseq, lambda at, left: (where, (at, after_gseq, until_gseq, left))
        )

    def _read_up_to(
        self,
        limit: int,
        after_gseq: int,
        question: Callable[[int, int], tuple[str, tuple[int, ...]]],
    ) -> list[AlarmEvent]:
        """Page by page, around damaged events; `question` of the gseq reached and what is left."""
        events: list[AlarmEvent] = []
        while len(events) < limit:
            asked = question(after_gseq, limit - len(events))
            rows = self._database.events(*asked, after=after_gseq)
            if not rows:
                break
            after_gseq = rows[-1].gseq
            events.extend(self._events_of(rows))
        return events

    def query(
        self,
        from_ns: int,
        to_ns: int,
        *,
        alarm_key: str = "",
        after_gseq: int = 0,
        limit: int = 500,
    ) -> list[AlarmEvent]:
        """Events that happened in [from_ns, to_ns), of one key or all, by gseq, page by page."""
        where = "WHERE time_ns >= ? AND time_ns < ? AND gseq > ?"
        values: tuple[object, ...] = (from_ns, to_ns, after_gseq)
        if alarm_key:
            where += " AND alarm_key = ?"
            values += (alarm_key,)
        asked = f"{where} ORDER BY gseq LIMIT ?", (*values, limit)
        rows = self._database.events(*asked, after=after_gseq)
        return list(self._events_of(rows))

    def ask(self, question: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Rows of the last committed state, for who reads in bulk (columns.py, reader.py).

        Raises: StorageFault."""
        return self._database.ask(question, values)

    def summary(self, from_ns: int, to_ns: int) -> dict[str, dict[str, int]]:
        """`{rule kind: {"activated": n, "cleared": n}}` of what happened in [from_ns, to_ns)."""
        rows = self._database.ask(
            "SELECT rule_kind, transition, count(*) FROM event WHERE time_ns >= ?"
            " AND time_ns < ? AND transition IN ('ACT', 'RTN') GROUP BY 1, 2",
            (from_ns, to_ns),
        )
        found: dict[str, dict[str, int]] = {}
        for kind, transition, count in rows:
            word = "activated" if transition == Transition.ACTIVATED else "cleared"
            found.setdefault(kind, {"activated": 0, "cleared": 0})[word] = count
        return found

    def cursor(self, name: str, *, from_head: bool = False) -> JournalCursor:
        """The cursor of one sink; a new one stands before the first event, or at the head."""
        rows = self._database.ask("SELECT gseq FROM cursor WHERE name = ?", (name,))
        if rows and isinstance(rows[0][0], int):
            return JournalCursor(self, name, min(rows[0][0], self.head))
        start = self.head if from_head else 0
        self.commit_cursor(name, start)
        return JournalCursor(self, name, start)

    def live_rows(self) -> list[Alarm]:
        """The live table by key, as the last event of each left it."""
        rows = self._database.ask("SELECT record FROM live ORDER BY alarm_key")
        return [decode_alarm(record) for (record,) in rows]

    def restore_into(self, book: AlarmBook, *, waiting: Sequence[AlarmEvent] = ()) -> None:
        """Give a new book everything it had: rows, gseq, and late rows that may come again.
        `waiting`: events that follow and could not be stored yet."""
        rows = {row.alarm_key: row for row in self.live_rows()}
        rows |= {event.alarm.alarm_key: event.alarm for event in waiting}
        gseq = max([self.head, *(event.alarm.gseq for event in waiting)])
        late = self._late_identities()
        late += [
            (event.alarm.alarm_key, event.time_ns, event.level) for event in waiting if event.late
        ]
        book.restore(rows.values(), gseq=gseq, late=late)

    def verify(self, *, anchor: Anchor | None = None) -> ChainReport:
        """Walk the whole chain. Without an anchor a cut-off end does not show."""
        return check_chain(self._rows(), anchor=anchor)

    def _rows(self) -> Iterator[StoredRow]:
        after = -1
        page = "WHERE gseq > ? ORDER BY gseq LIMIT 1000"
        while rows := self._database.events(page, (after,), after=after):
            yield from rows
            after = rows[-1].gseq

    def _events_of(self, rows: list[StoredRow]) -> Iterator[AlarmEvent]:
        for row in rows:
            event = self._database.event_of(row)
            if event is not None:
                yield event

    def _late_identities(self) -> list[LateIdentity]:
        """The newest late events: the rules may find them again, or a device send them again.

        Only the level is read out of each record: there may be a hundred thousand.
        """
        rows = self._database.events("WHERE late ORDER BY gseq DESC LIMIT ?", (LATE_KEPT,))
        return [
            (row.alarm_key, row.time_ns, orjson.loads(row.record).get("level", ""))
            for row in reversed(rows)
            if is_whole(row)
        ]

    # --- rule checkpoint

    def save_checkpoint(self, offset: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Keep the rule core's state at spool `offset`.

        Only after the events of everything before `offset` are appended. Raises: StorageFault.
        """
        self._checkpoints.save(offset, arrays, gseq=self.head)

    def load_checkpoint(self) -> tuple[int, dict[str, NDArray[Any]]] | None:
        """The newest readable one; None on the first day, or if both are damaged."""
        found = self._checkpoints.load_all()
        return (found[0][1].offset, found[0][1].arrays) if found else None


def _sum_of_hint(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def verify_directory(directory: Path, *, anchor: Anchor | None = None) -> ChainReport:
    """Walk the chain of a journal nobody has open, or a copy of one. Changes nothing.

    Raises: StorageFault if SQLite cannot read it.
    """
    try:
        with contextlib.closing(read_only(directory / DATABASE)) as db:
            rows = db.execute("SELECT * FROM event ORDER BY gseq")
            return check_chain((StoredRow(*row) for row in rows), anchor=anchor)
    except sqlite3.Error as error:
        raise StorageFault(f"{directory / DATABASE}: {error}") from error


def _parsed_hint(text: str) -> tuple[int, int, int, str]:
    """Raises ValueError for anything but what `Journal._hint` writes."""
    body, _, total = text.rstrip("\n").rpartition(" ")
    if text.count(" ") == 2:  # an older version wrote three words and no sum
        body, total = text, f"{zlib.crc32(text.encode()):x}"
    if int(total, 16) != zlib.crc32(body.encode()):
        raise ValueError(f"the sum of {text!r} is not {total}")
    epoch, head, version, *state = body.split()
    return int(epoch), int(head), int(version), state[0] if state else ""
