"""The durable log of batches, with a cursor for each consumer.

    directory/
      spool.lock                      one process at a time; says whose directory this is
      positions                       where every consumer is (positions.py)
      00000000000000000000.segment    rows [0, …), see segment.py; -wal and -shm beside the newest
      00000000000001048576.segment
      quarantine/                     copies of damaged files, and files that are not ours

    rows:   forgotten | oldest ……… committed ……… position ……… head | pending
                        └ kept until every cursor committed ┘        └ not acknowledged yet

An offset is a row number, int64, given once and never to another row. `append` returns when its
rows are synced; a crash at any instant loses nothing that was acknowledged. After a crash a
consumer gets what it had not committed again, in the same order.

Damage costs the records it hits. They are skipped, counted in `stats()`, and a copy of the file is
kept; the start is refused only for a second process, a newer format, or a directory that cannot be
written. The surprising part: after damage to the newest segment the next row's number is far ahead,
because numbers handed out for rows nobody can see any more must not come again.

A cursor that exists keeps its rows: a consumer that is gone for good is removed with `drop_cursor`,
and until the first cursor exists nothing is ever forgotten.

Not here: what to do when full, retries, alarms (the journal has its own file).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.spool import record
from gateway.spool.catalog import Catalog, Segment
from gateway.spool.cursor import Chunk, Cursor
from gateway.spool.disk import Disk
from gateway.spool.fault import Fenced
from gateway.spool.options import SpoolOptions
from gateway.spool.positions import Positions
from gateway.spool.quarantine import Quarantine
from gateway.spool.recovery import Recovered, open_salvage, recover
from gateway.spool.tail import Tail
from gateway.spool.thinning import InHand, PointTraits, Thinned, Thinner
from gateway.spool.writer import (
    AppendJob,
    CursorJob,
    Drive,
    ExchangeJob,
    Job,
    RetryJob,
    SealJob,
    ThreadDrive,
    Waiter,
    Writer,
)

__all__ = ["Chunk", "Cursor", "PointTraits", "Spool", "SpoolOptions", "SpoolStats", "Thinned"]

LOCK = "spool.lock"
FREE_ASKED_EVERY_S = 0.1  # how old the figure of the file system's free room may be (engineering)
_ROW_OVERHEAD_BYTES = 64  # SQLite's own for one row, generously


@dataclass(frozen=True)
class SpoolStats:
    """Figures for the status page. Counts are since the spool was opened."""

    head: int
    oldest: int
    depth: Mapping[str, int]  # rows not committed yet, by consumer
    pending_rows: int  # accepted, not durable yet
    bytes_on_disk: int
    bytes_max: int
    disk_free_bytes: int  # of the file system, as asked last
    disk_free_min_bytes: int
    segments: int
    tail_rows: int
    commits: int
    last_commit_s: float
    longest_commit_s: float
    commit_window_s: float
    fault: str  # "" while healthy; else why nothing is accepted
    fault_kind: str  # "" while healthy; else a FaultKind
    faulty_for_s: float  # since the fault began; 0 while healthy
    fault_count: int  # faults, overcome or not
    poisoned_segments: int  # files never written again after a failure; what they keep is readable
    refused_rows: int  # handed over while the disk failed: durable nowhere, acknowledged to nobody
    undeleted_segments: int  # forgotten, but the disk did not let them be deleted
    lost_rows: int
    damaged_segments: int
    foreign_files: int
    quarantined_files: int
    cursors_reset: int


class _LoopWaiter:
    """Someone who awaits. `done` is called in the writer thread; the loop is told by the spool."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[int]) -> None:
        self.future = future

    def done(self, outcome: int | Exception) -> None:
        """In the loop's thread."""
        if self.future.done():
            return  # cancelled meanwhile; the rows are written all the same
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _ThreadWaiter:
    """Someone who blocks a thread."""

    __slots__ = ("_drive", "_event", "_outcome")

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._event = threading.Event()
        self._outcome: int | Exception = 0

    def done(self, outcome: int | Exception) -> None:
        self._outcome = outcome
        self._event.set()

    def wait(self) -> int:
        self._drive.wait(self._event)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class Spool:
    """One open spool. Appends come from one event loop, or from threads through `append_now`."""

    def __init__(
        self,
        directory: Path,
        options: SpoolOptions,
        disk: Disk,
        lock_descriptor: int,
        *,
        drive: Drive,
    ) -> None:
        """Use `open`."""
        self.directory = directory
        self.options = options
        self._disk = disk
        self._drive = drive
        self._lock_descriptor = lock_descriptor
        self._catalog = Catalog()
        self._quarantine = Quarantine(directory / "quarantine", disk)
        self._positions = Positions(directory / "positions", disk)
        try:
            # Before anything is read: whoever still writes finds out, and what it acknowledged
            # until then is on the disk and is read below.
            self._positions.write_twice(epoch=self._positions.state.epoch + 1)
            recovered = self._recover()
        except BaseException:
            self._positions.close()
            raise
        self._tail = Tail(options.tail_rows_max)
        self._cursors: dict[str, Cursor] = {}
        self._room = threading.Condition()  # guards the two figures below
        self._pending_rows = 0
        self._pending_bytes = 0
        self._refused_rows = 0
        self._free_bytes = 1 << 62
        self._free_asked_s = -FREE_ASKED_EVERY_S
        self._thinner = Thinner(disk, self._catalog)
        self._queue_for_room: deque[tuple[asyncio.Future[None], int, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sleepers: set[asyncio.Future[None]] = set()
        self._damage_lock = threading.Lock()
        self._closed = False
        self._writer = Writer(
            directory,
            options,
            disk=disk,
            catalog=self._catalog,
            positions=self._positions,
            recovered=recovered,
            tail=self._tail,
            drive=drive,
            check_ours=self._check_ours,
            on_group=self._after_group,
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        options: SpoolOptions | None = None,
        *,
        disk: Disk | None = None,
        drive: Drive | None = None,
    ) -> Spool:
        """Open, recover, and lock. `drive` gives the writer its turns: a thread of its own if
        nothing else is given. Raises StorageFault when another process has it open, when a newer
        version wrote it, or when the directory cannot be written."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StorageFault(f"{directory}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            how = drive or ThreadDrive()
            return cls(directory, options or SpoolOptions(), disk or Disk(), descriptor, drive=how)
        except BlockingIOError:
            os.close(descriptor)
            raise StorageFault(f"{directory}: open in another process or twice in this") from None
        except (OSError, sqlite3.Error) as error:
            os.close(descriptor)
            raise StorageFault(f"{directory}: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise

    def _named(self) -> str:
        """The spool's id as its lock's file has it: when the positions are lost, the segments of
        this spool can still be told from a stranger's."""
        text = os.pread(self._lock_descriptor, 64, 0)
        return text.decode() if re.fullmatch(rb"[0-9a-f]{32}", text) else ""

    def _check_ours(self) -> None:
        """Raises Fenced when another process has the spool: it got past the lock because the lock's
        file was deleted, or because the file system does not honour locks."""
        self._positions.check_ours()
        held = os.fstat(self._lock_descriptor)
        with contextlib.suppress(FileNotFoundError):
            found = (self.directory / LOCK).stat()
            if (found.st_ino, found.st_dev) != (held.st_ino, held.st_dev):
                raise Fenced(f"{self.directory}: another process holds a lock of its own")

    def _recover(self) -> Recovered:
        positions = self._positions
        recovered = recover(
            self.directory,
            positions.state,
            named=self._named(),
            disk=self._disk,
            catalog=self._catalog,
            quarantine=self._quarantine,
        )
        if positions.damaged or (positions.missing and len(self._catalog)):
            self._catalog.damage.cursors_reset += 1
        if not recovered.spool_id:
            recovered = replace(recovered, spool_id=uuid.uuid4().hex)
        if self._named() != recovered.spool_id:
            self._disk.write_at(self._lock_descriptor, recovered.spool_id.encode(), 0)
        oldest = self._catalog.oldest
        forgotten = max(positions.state.forgotten, oldest or 0)
        positions.write_twice(spool_id=recovered.spool_id, head=recovered.head, forgotten=forgotten)
        self._disk.sync_directory(self.directory)
        return recovered

    # --- figures

    @property
    def head(self) -> int:
        """The row number behind the newest durable row."""
        return self._writer.progress.head

    @property
    def oldest(self) -> int:
        """The oldest row kept; `head` when there is none."""
        oldest = self._catalog.oldest
        return self.head if oldest is None else oldest

    @property
    def fault(self) -> StorageFault | None:
        """Why nothing is accepted; None again when the disk has taken a new segment."""
        fault = self._writer.progress.fault
        return fault.error if fault else None

    @property
    def has_failed_for_good(self) -> bool:
        """Whether only a new start can help."""
        fault = self._writer.progress.fault
        return fault is not None and fault.is_permanent

    def stats(self) -> SpoolStats:
        """Figures as of now; no I/O."""
        progress, damage, head = self._writer.progress, self._catalog.damage, self.head
        committed = self._positions.state.cursors
        fault, now_s = progress.fault, time.monotonic()
        return SpoolStats(
            head=head,
            oldest=self.oldest,
            depth={name: head - max(at, self.oldest) for name, at in committed.items()},
            pending_rows=self._pending_rows,
            bytes_on_disk=self._bytes_on_disk(),
            bytes_max=self.options.bytes_max,
            disk_free_bytes=self._free_bytes,
            disk_free_min_bytes=self.options.disk_free_min_bytes,
            segments=len(self._catalog),
            tail_rows=self._tail.end - self._tail.first,
            commits=progress.commits,
            last_commit_s=progress.last_commit_s,
            longest_commit_s=progress.longest_commit_s,
            commit_window_s=self.options.commit_window_s,
            fault=str(fault.error) if fault else "",
            fault_kind=fault.kind if fault else "",
            faulty_for_s=now_s - fault.began_s if fault else 0.0,
            fault_count=progress.fault_count,
            poisoned_segments=progress.poisoned_segments,
            refused_rows=self._refused_rows,
            undeleted_segments=len(progress.undeleted),
            lost_rows=damage.lost_rows,
            damaged_segments=damage.damaged_segments,
            foreign_files=damage.foreign_files,
            quarantined_files=damage.quarantined_files,
            cursors_reset=damage.cursors_reset,
        )

    def _bytes_on_disk(self) -> int:
        undeleted = self._writer.progress.undeleted
        return self._catalog.size_bytes + sum(segment.size_bytes for segment in undeleted)

    # --- appending

    async def append(self, batch: Batch) -> int:
        """Make `batch` durable; its end offset. Waits for room, in the order of arrival.

        Raises SpoolFull when the byte budget is spent, StorageFault while the disk fails or when
        the spool is closed: at once, and the same batch may be tried again later. In both cases the
        rows may not be acknowledged to anyone. When the call is cancelled the rows may or may not
        be written.
        """
        try:
            return await self._append(batch)
        except StorageFault:
            self._refused_rows += len(batch)
            raise

    async def _append(self, batch: Batch) -> int:
        self._check_usable()
        rows, size = len(batch), _disk_bytes(batch)
        if rows == 0:
            return self.head
        loop = self._loop = asyncio.get_running_loop()
        if self._queue_for_room or not self._reserve(rows, size):
            await self._wait_for_room(rows, size)
        future: asyncio.Future[int] = loop.create_future()
        self._submit(AppendJob((batch,), rows, size, _LoopWaiter(future)))
        return await future

    def append_now(self, batches: Sequence[Batch]) -> int:
        """Make all of `batches` durable with one commit; their end offset. Blocks the thread.

        Raises SpoolFull and StorageFault as `append` does.
        """
        try:
            return self._append_now(batches)
        except StorageFault:
            self._refused_rows += sum(map(len, batches))
            raise

    def _append_now(self, batches: Sequence[Batch]) -> int:
        self._check_usable()
        filled = tuple(batch for batch in batches if len(batch))
        rows, size = sum(map(len, filled)), sum(map(_disk_bytes, filled))
        if rows == 0:
            return self.head
        with self._room:
            while not self._reserve(rows, size):
                self._room.wait()
                self._check_usable()
        waiter = _ThreadWaiter(self._drive)
        self._submit(AppendJob(filled, rows, size, waiter))
        return waiter.wait()

    def _submit(self, job: AppendJob) -> None:
        try:
            self._writer.put(job)
        except StorageFault:
            self._release(job.rows, job.size_bytes)
            raise

    def _reserve(self, rows: int, size: int) -> bool:
        """Take room for `rows` if there is some. Raises SpoolFull when the budget is spent."""
        with self._room:
            spent = self._bytes_on_disk() + self._pending_bytes
            if spent + size > self.options.bytes_max:
                raise SpoolFull(
                    f"{self.directory}: {spent} of {self.options.bytes_max} bytes are in use"
                )
            if not self._is_disk_roomy(self._pending_bytes + size):
                raise SpoolFull(
                    f"{self.directory}: the file system has {self._free_bytes} bytes left, of which"
                    f" {self.options.disk_free_min_bytes} stay free"
                )
            if self._pending_rows and self._pending_rows + rows > self.options.pending_rows_max:
                return False
            self._pending_rows += rows
            self._pending_bytes += size
            return True

    def _is_disk_roomy(self, size: int) -> bool:
        """Whether `size` bytes more leave what must stay free."""
        now_s = time.monotonic()
        if now_s >= self._free_asked_s + FREE_ASKED_EVERY_S:
            self._free_asked_s = now_s
            with contextlib.suppress(OSError):  # not to be known: a write will tell
                self._free_bytes = self._disk.free_bytes(self.directory)
        return self._free_bytes - size >= self.options.disk_free_min_bytes

    def is_tight(self, share_max: float) -> bool:
        """Whether more than `share_max` of the byte budget is spent, or the file system is about to
        have too little left: room for two segments is needed to make room."""
        spare = 2 * self.options.segment_bytes_max if self.options.disk_free_min_bytes else 0
        is_spent = self._bytes_on_disk() >= share_max * self.options.bytes_max
        return is_spent or not self._is_disk_roomy(spare)

    def _release(self, rows: int, size: int) -> None:
        with self._room:
            self._pending_rows -= rows
            self._pending_bytes -= size
            self._room.notify_all()

    async def _wait_for_room(self, rows: int, size: int) -> None:
        """Returns with the room reserved."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = (turn, rows, size)
        self._queue_for_room.append(ticket)
        try:
            await turn
        except asyncio.CancelledError:
            if ticket in self._queue_for_room:
                self._queue_for_room.remove(ticket)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(rows, size)
            self._give_room()
            raise

    def _give_room(self) -> None:
        """In the loop: let in whoever waits, in order, as far as there is room."""
        while self._queue_for_room:
            turn, rows, size = self._queue_for_room[0]
            if not turn.done():
                try:
                    self._check_usable()
                    if not self._reserve(rows, size):
                        return
                    turn.set_result(None)
                except (StorageFault, SpoolFull) as error:
                    turn.set_exception(error)
            self._queue_for_room.popleft()

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageFault(f"{self.directory}: the spool is closed")
        fault = self._writer.progress.fault
        if fault is not None:
            raise StorageFault(str(fault.error))

    def try_again_now(self) -> None:
        """Have a failed disk tried at once instead of after the pause; blocks. Raises StorageFault
        when it still fails."""
        waiter = _ThreadWaiter(self._drive)
        self._writer.put(RetryJob(waiter))
        waiter.wait()

    def nudge(self) -> None:
        """Now and then, from who keeps the time: see `Writer.nudge`."""
        self._writer.nudge()

    # --- after a group, in the writer thread

    def _after_group(
        self, jobs: Sequence[Job], told: Sequence[tuple[Waiter, int | Exception]]
    ) -> None:
        appends = [job for job in jobs if isinstance(job, AppendJob)]
        self._release(sum(j.rows for j in appends), sum(j.size_bytes for j in appends))
        in_loop = []
        for waiter, outcome in told:
            if isinstance(waiter, _LoopWaiter):
                in_loop.append((waiter, outcome))
            else:
                waiter.done(outcome)
        self._call_loop(in_loop)

    def _call_loop(self, told: Sequence[tuple[_LoopWaiter, int | Exception]]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed between the question and the call
                loop.call_soon_threadsafe(self._in_loop, told)

    def _in_loop(self, told: Sequence[tuple[_LoopWaiter, int | Exception]]) -> None:
        for waiter, outcome in told:
            waiter.done(outcome)
        self._give_room()
        sleepers, self._sleepers = self._sleepers, set()
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def _news(self, beyond: int) -> None:
        """Returns when rows beyond `beyond` may have become durable. Raises StorageFault."""
        self._loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = self._loop.create_future()
        self._sleepers.add(sleeper)
        try:
            if self.head > beyond:  # asked after being on the list, so that none is missed
                return
            if self._closed:
                raise StorageFault(f"{self.directory}: the spool is closed")
            await sleeper
        finally:
            self._sleepers.discard(sleeper)

    # --- consumers

    def cursor(self, name: str, *, at: int | None = None) -> Cursor:
        """The consumer's cursor; a new consumer begins, durably, at `at` or the oldest row kept.

        Raises StorageFault when that cannot be written.
        """
        cursor = self._cursors.get(name)
        if cursor is None:
            self._check_usable()
            committed = self._positions.state.cursors.get(name)
            if committed is None:
                committed = self.oldest if at is None else at
                self._set_cursor(name, committed)
            cursor = self._cursors[name] = Cursor(self, name, max(committed, self.oldest))
        return cursor

    def drop_cursor(self, name: str) -> None:
        """Forget a consumer for good: its rows are kept for it no longer. Raises StorageFault."""
        cursor = self._cursors.pop(name, None)
        if cursor is not None:
            cursor.close()
        if name in self._positions.state.cursors:
            self._set_cursor(name, None)

    def committed(self, name: str) -> int | None:
        """How far a consumer is, durably; None for one that is not known."""
        return self._positions.state.cursors.get(name)

    def cursor_names(self) -> list[str]:
        """Every consumer whose position is kept, in use or not."""
        return sorted(self._positions.state.cursors)

    def _set_cursor(self, name: str, offset: int | None) -> None:
        waiter = _ThreadWaiter(self._drive)
        self._writer.put(CursorJob(name, offset, waiter))
        waiter.wait()

    async def _set_cursor_async(self, name: str, offset: int) -> None:
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._writer.put(CursorJob(name, offset, _LoopWaiter(future)))
        await future

    def _mark_damaged(self, segment: Segment) -> None:
        """Have `segment` read by salvage from now on. Raises StorageFault when it cannot be."""
        if not segment.sealed and segment.salvage is None:
            waiter = _ThreadWaiter(self._drive)
            self._writer.put(SealJob(waiter))
            waiter.wait()
        with self._damage_lock:
            try:
                open_salvage(segment, self._catalog, self._quarantine)
            except OSError as error:
                raise StorageFault(f"{segment.path}: {error}") from error

    # --- making room

    def thin(self, below: int, traits: PointTraits, in_hand: InHand = lambda: ()) -> Thinned | None:
        """Make the oldest segment smaller whose rows all lie below `below`, and of which nobody
        has rows in hand; see thinning.py. None when there is nothing left to thin. Blocks for as
        long as a segment takes to write.

        Raises StorageFault when the disk cannot do it; the old segment is then as it was.
        """
        return self._thinner.thin(
            below, traits, in_hand, exchange=self._exchange, mark_damaged=self._mark_damaged
        )

    def _exchange(self, old: Segment, new: Segment, partial: Path) -> bool:
        waiter = _ThreadWaiter(self._drive)
        self._writer.put(ExchangeJob(old, new, partial, waiter))
        return bool(waiter.wait())

    # --- closing

    async def close(self) -> None:
        """Write what was accepted, seal, and let go. Callers still waiting for room are refused."""
        self._closed = True
        self._give_room()
        await asyncio.to_thread(self.close_now)
        self._in_loop(())

    def close_now(self) -> None:
        """As `close`, blocking. Never raises for a spool that has failed."""
        self._closed = True
        if self._lock_descriptor < 0:
            return
        with self._room:
            self._room.notify_all()
        self._writer.stop()
        for cursor in self._cursors.values():
            cursor.close()
        self._positions.close()
        descriptor, self._lock_descriptor = self._lock_descriptor, -1
        os.close(descriptor)


def _disk_bytes(batch: Batch) -> int:
    """What a batch will take on the disk, roughly; the files themselves are measured after."""
    return record.size_of(len(batch)) + _ROW_OVERHEAD_BYTES
