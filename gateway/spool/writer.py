"""The one thread that writes: group commit, sealing, positions, forgetting.

    callers ──append──▶ ┌ queue ┐ ──all at once──▶ one transaction ──▶ synced ──▶ every caller told
    cursors ──commit──▶ └───────┘ ──all at once──▶ one slot written ──▶ synced ──▶ segments deleted

While one group is being synced the next one gathers, so the rate rises with the load and a single
caller waits for one sync. A window, where configured, lets a group gather longer.

**After any failed write or sync the file it happened to is never written again.** Everyone waiting
gets StorageFault, and so does everyone who comes while the fault lasts. After a pause the writer
tries a new segment, and a new positions file where that one failed; when the disk takes them the
fault is over and appends are taken again. What the disk holds of the failed group is unknown, so
its row numbers are given to nobody else, and no row of it was acknowledged.

Owns: the thread and the order of durable steps. Not here: waiting for room (spool.py), SQL
(segment.py), kinds of failure and the pause (fault.py). Who runs it is a port (`Drive`): a thread
of its own, or a simulation in its own time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool.catalog import Catalog, Segment
from gateway.spool.disk import Disk
from gateway.spool.fault import Pause, SpoolFault, kind_of
from gateway.spool.options import SpoolOptions
from gateway.spool.positions import Positions
from gateway.spool.recovery import Recovered, remove_segment
from gateway.spool.segment import Meta, SegmentWriter, file_name
from gateway.spool.tail import Tail

RETRY_FREE_BYTES = 16 << 20
"""What must be free before a full disk is tried again: the log of a new segment may take 8 MiB
until its first checkpoint, and the file as much (engineering)."""


class Waiter(Protocol):
    """Whoever waits for a job: told once, from the writer thread."""

    def done(self, outcome: int | Exception) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class AppendJob:
    """Batches that become durable together."""

    batches: Sequence[Batch]
    rows: int
    size_bytes: int
    waiter: Waiter


@dataclass(frozen=True, slots=True, eq=False)
class CursorJob:
    """Set the durable position of a consumer; None removes the consumer."""

    name: str
    offset: int | None
    waiter: Waiter


@dataclass(frozen=True, slots=True, eq=False)
class SealJob:
    """Close the segment being written, so that it can be read whole."""

    waiter: Waiter


@dataclass(frozen=True, slots=True, eq=False)
class RetryJob:
    """Try the failed disk now instead of after the pause."""

    waiter: Waiter


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeJob:
    """Put a thinned segment, written under another name, in the place of the old one. Answers 0
    when the old one has been forgotten meanwhile."""

    old: Segment
    new: Segment
    partial: Path
    waiter: Waiter


Job = AppendJob | CursorJob | SealJob | RetryJob | ExchangeJob


@dataclass(slots=True)
class Progress:
    """What the writer tells everyone else. Written by the writer thread only."""

    head: int
    commits: int = 0
    last_commit_s: float = 0.0
    longest_commit_s: float = 0.0
    fault: SpoolFault | None = None
    fault_count: int = 0
    poisoned_segments: int = 0
    undeleted: list[Segment] = field(default_factory=list)  # forgotten; their files would not go
    told: list[tuple[Waiter, int | Exception]] = field(default_factory=list)


class Drive(Protocol):
    """Who gives the writer its turns."""

    def start(self, writer: Writer) -> None:
        """From now on see to it that `writer.run` or, group by group, `writer.turn` is called."""
        ...

    def queued(self) -> None:
        """There is a job. The caller may be any thread, and holds no lock."""
        ...

    def wait(self, event: threading.Event) -> None:
        """Block the calling thread until the job that sets `event` is done."""
        ...

    def end(self) -> None:
        """The writer was told to stop: return when `writer.run` has."""
        ...


class ThreadDrive:
    """A thread of its own, which waits for jobs by itself."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, writer: Writer) -> None:
        self._thread = threading.Thread(target=writer.run, name="spool-writer", daemon=True)
        self._thread.start()

    def queued(self) -> None:
        """`Writer.put` woke it already."""

    def wait(self, event: threading.Event) -> None:
        event.wait()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join()


class Writer:
    """Runs until `stop`; `on_group` is called where it runs, after every group of jobs."""

    def __init__(
        self,
        directory: Path,
        options: SpoolOptions,
        *,
        disk: Disk,
        catalog: Catalog,
        positions: Positions,
        recovered: Recovered,
        tail: Tail,
        drive: Drive,
        check_ours: Callable[[], None],
        on_group: Callable[[Sequence[Job], Sequence[tuple[Waiter, int | Exception]]], None],
    ) -> None:
        self._directory = directory
        self._options = options
        self._disk = disk
        self._catalog = catalog
        self._positions = positions
        self._spool_id = recovered.spool_id
        self._ended = recovered.head
        self._next = recovered.head + recovered.skip  # no row was ever tried there or behind
        self._pause = Pause(options.retry_first_s, options.retry_max_s)
        self._retry_at_s = 0.0
        self._debris: list[Path] = []  # files of tries that failed
        self._tail = tail
        self._check_ours = check_ours
        self._on_group = on_group
        self._active: SegmentWriter | None = None
        self._active_segment: Segment | None = None
        self.progress = Progress(head=recovered.head)
        self._changed = threading.Condition()
        self._queue: list[Job] = []
        self._queued_rows = 0
        self._first_queued_s = 0.0
        self._stopping = False
        self._drive = drive
        drive.start(self)

    def put(self, job: Job) -> None:
        """Queue a job. Raises StorageFault while the disk fails and when the writer is stopping."""
        with self._changed:
            fault = self.progress.fault
            if fault is not None and not isinstance(job, RetryJob):
                raise StorageFault(str(fault.error))
            if self._stopping:
                raise StorageFault("the spool is closed")
            if not self._queue:
                self._first_queued_s = time.monotonic()
            self._queue.append(job)
            if isinstance(job, AppendJob):
                self._queued_rows += job.rows
            self._changed.notify()
        self._drive.queued()

    def nudge(self) -> None:
        """For a drive that waits for no clock: while the disk fails, now is another moment to try
        it again. A thread does so by itself."""
        if self.progress.fault is not None:
            self._drive.queued()

    def stop(self) -> None:
        """Write what is queued, seal, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._drive.end()

    def run(self) -> None:
        """Group after group until told to stop: the life of a thread."""
        while (jobs := self._take()) is not None:
            if jobs:
                self._group(jobs)
            else:
                self._try_again()
        self._guard(self._finish)
        for segment in [*self._catalog.all(), *self.progress.undeleted]:
            _let_go(segment)

    def turn(self) -> None:
        """One group of what is queued now, without waiting for more; a failed disk is tried again
        when there is none."""
        with self._changed:
            jobs, self._queue, self._queued_rows = self._queue, [], 0
        if jobs:
            self._group(jobs)
        else:
            self._try_again()

    def _take(self) -> list[Job] | None:
        """The next group; empty when the disk is to be tried again; None when stopping and nothing
        is left."""
        with self._changed:
            while not self._queue and not self._stopping:
                fault = self.progress.fault
                if fault is None or fault.is_permanent:
                    self._changed.wait()
                elif (pause_s := self._retry_at_s - time.monotonic()) > 0:
                    self._changed.wait(pause_s)
                else:
                    return []
            if not self._queue:
                return None
            due = self._first_queued_s + self._options.commit_window_s
            enough = self._options.pending_rows_max // 2
            while (
                not self._stopping
                and self._queued_rows < enough
                and (left := due - time.monotonic()) > 0
            ):
                self._changed.wait(left)
            jobs, self._queue, self._queued_rows = self._queue, [], 0
        return jobs

    def _group(self, jobs: list[Job]) -> None:
        told = self.progress.told = []
        appends = [job for job in jobs if isinstance(job, AppendJob)]
        cursors = [job for job in jobs if isinstance(job, CursorJob)]
        seals = [job for job in jobs if isinstance(job, SealJob)]
        retries = [job for job in jobs if isinstance(job, RetryJob)]
        self._guard(self._check_ours)
        if retries and self.progress.fault is not None:
            self._try_again()
        if self.progress.fault is None:
            self._tell([job.waiter for job in retries], self.progress.head)
        if appends:
            self._guard(lambda: self._append(appends))
        if cursors:
            self._guard(lambda: self._move(cursors))
        if seals:
            self._guard(self._seal)
            self._tell([job.waiter for job in seals], 0)
        for job in jobs:
            if isinstance(job, ExchangeJob) and self.progress.fault is None:
                self._tell([job.waiter], self._exchanged(job))
        fault = self.progress.fault
        if fault is not None:
            heard = {id(waiter) for waiter, _ in told}
            late = [job.waiter for job in jobs if id(job.waiter) not in heard]
            self._tell(late, StorageFault(str(fault.error)))
        self._on_group(jobs, told)

    def _guard(self, step: Callable[[], None]) -> None:
        """Run one durable step unless an earlier one failed; remember if this one does."""
        if self.progress.fault is not None:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a broken invariant must not leave callers waiting
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The segment being written is poisoned, whichever file failed: it is the same disk."""
        now_s = time.monotonic()
        fault = SpoolFault(
            kind_of(error),
            StorageFault(f"{self._directory}: {type(error).__name__}: {error}"),
            now_s,
        )
        active, segment = self._active, self._active_segment
        self._active = self._active_segment = None
        if active is not None and segment is not None:
            segment.guard = active.poison()
            segment.sealed = True
            self.progress.poisoned_segments += 1
        self._retry_at_s = now_s + self._pause.take()
        with self._changed:
            self.progress.fault = fault
            self.progress.fault_count += 1

    def _try_again(self) -> None:
        """A new segment, and new positions where they failed; then the fault is over."""
        fault = self.progress.fault
        if fault is None or fault.is_permanent:
            return
        try:
            self._begin_anew()
        except Exception as error:  # noqa: BLE001 - as in `_guard`
            self._retry_at_s = time.monotonic() + self._pause.take()
            said = StorageFault(f"{self._directory}: {type(error).__name__}: {error}")
            with self._changed:
                self.progress.fault = replace(fault, kind=kind_of(error), error=said)
        else:
            with self._changed:
                self.progress.fault = None

    def _begin_anew(self) -> None:
        if self._disk.free_bytes(self._directory) < RETRY_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._directory))
        while self._debris:
            remove_segment(self._debris[-1], self._disk)
            self._debris.pop()
        if self._positions.is_poisoned:
            self._positions.renew()
        self._create()

    def _tell(self, waiters: Sequence[Waiter], outcome: int | Exception) -> None:
        self.progress.told.extend((waiter, outcome) for waiter in waiters)

    def _append(self, jobs: Sequence[AppendJob]) -> None:
        active, segment = self._active, self._active_segment
        if active is None or segment is None:
            active, segment = self._create()
        offset, began = active.end, time.monotonic()
        self._next = offset + sum(job.rows for job in jobs)
        records = active.append([batch for job in jobs for batch in job.batches])
        took = time.monotonic() - began
        self._check_ours()  # after the rows are on the disk, where whoever comes now sees them
        # durable from here on
        self._pause.reset()
        self._ended = active.end
        segment.end = active.end
        segment.size_bytes = active.size_bytes()
        for start, batch in records:
            self._tail.put(start, batch)
        progress = self.progress
        for job in jobs:
            offset += job.rows
            progress.told.append((job.waiter, offset))
        assert offset == active.end, f"{offset} rows acknowledged, {active.end} written"
        progress.head = offset
        progress.commits += 1
        progress.last_commit_s = took
        progress.longest_commit_s = max(progress.longest_commit_s, took)
        if self._is_full(segment):
            self._seal()
        else:
            active.checkpoint_if_due()

    def _is_full(self, segment: Segment) -> bool:
        return (
            segment.end - segment.first >= self._options.segment_rows_max
            or segment.size_bytes >= self._options.segment_bytes_max
        )

    def _create(self) -> tuple[SegmentWriter, Segment]:
        first, again = self._next, 0
        while (path := self._directory / file_name(first, again)).exists():
            again += 1
        try:
            active = SegmentWriter(self._disk, path, Meta(self._spool_id, first, self._ended))
        except BaseException:
            self._debris.append(path)
            raise
        segment = Segment(path, first, first, active.size_bytes(), sealed=False)
        self._active, self._active_segment = active, segment
        self._catalog.add(segment)
        return active, segment

    def _seal(self) -> None:
        active, segment = self._active, self._active_segment
        if active is None or segment is None:
            return
        active.seal()
        self._active = self._active_segment = None
        segment.size_bytes = active.size_bytes()
        segment.sealed = True
        self._forget()

    def _move(self, jobs: Sequence[CursorJob]) -> None:
        cursors = dict(self._positions.state.cursors)
        for job in jobs:
            if job.offset is None:
                cursors.pop(job.name, None)
            else:
                cursors[job.name] = job.offset
        state = replace(self._positions.state, cursors=cursors, head=self.progress.head)
        self._positions.write(state)
        for job in jobs:
            self.progress.told.append((job.waiter, job.offset or 0))
        self._forget()

    def _exchanged(self, job: ExchangeJob) -> int | Exception:
        """What went wrong leaves one of the two files, and either will do."""
        if not self._catalog.replace(job.old, job.new):
            return 0
        try:
            self._disk.rename(job.partial, job.new.path)
        except OSError as error:
            self._catalog.replace(job.new, job.old)
            return StorageFault(f"{job.partial}: {error}")
        try:
            self._disk.sync_directory(self._directory)
        except OSError as error:
            return StorageFault(f"{self._directory}: {error}")
        return 1

    def _forget(self) -> None:
        """Delete segments every consumer is done with; the positions are durable before that.

        A file that cannot be deleted costs nothing but its room: it is tried again with the next.
        """
        cursors = self._positions.state.cursors
        if not cursors:
            return
        gone = self._catalog.below(min(cursors.values()))
        if gone:
            self._positions.write_twice(forgotten=gone[-1].end)
            self._catalog.drop(gone)
        left = []
        for segment in [*self.progress.undeleted, *gone]:
            _let_go(segment)
            try:
                remove_segment(segment.path, self._disk)
            except OSError:
                left.append(segment)
        self.progress.undeleted = left

    def _finish(self) -> None:
        self._seal()
        self._positions.write(replace(self._positions.state, head=self.progress.head))


def _let_go(segment: Segment) -> None:
    guard, segment.guard = segment.guard, None
    if guard is not None:
        with contextlib.suppress(sqlite3.Error):
            guard.close()
