"""The one thread that writes: group commit, sealing, positions, forgetting.

    callers ──append──▶ ┌ queue ┐ ──all at once──▶ one transaction ──▶ synced ──▶ every caller told
    cursors ──commit──▶ └───────┘ ──all at once──▶ one slot written ──▶ synced ──▶ segments deleted

While one group is being synced the next one gathers, so the rate rises with the load and a single
caller waits for one sync. A window, where configured, lets a group gather longer.

**After any failed write or sync nothing more is written.** Everyone waiting gets StorageFault, and
so does everyone who comes later, until the spool is opened again: what the disk still holds of the
failed group is unknown, and only a fresh start reads it back.

Owns: the thread and the order of durable steps. Not here: waiting for room (spool.py), SQL
(segment.py). Who runs it is a port (`Drive`): a thread of its own, or a simulation in its own time.
"""

from __future__ import annotations

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
from gateway.spool.options import SpoolOptions
from gateway.spool.positions import Positions
from gateway.spool.recovery import Recovered, remove_segment
from gateway.spool.segment import Meta, SegmentWriter, file_name
from gateway.spool.tail import Tail


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


Job = AppendJob | CursorJob | SealJob


@dataclass(slots=True)
class Progress:
    """What the writer tells everyone else. Written by the writer thread only."""

    head: int
    commits: int = 0
    last_commit_s: float = 0.0
    longest_commit_s: float = 0.0
    fault: StorageFault | None = None
    active_bytes: int = 0
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
        on_group: Callable[[Sequence[Job], Sequence[tuple[Waiter, int | Exception]]], None],
    ) -> None:
        self._directory = directory
        self._options = options
        self._disk = disk
        self._catalog = catalog
        self._positions = positions
        self._spool_id = recovered.spool_id
        self._ended = recovered.head
        self._skip = recovered.skip
        self._tail = tail
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
        """Queue a job. Raises StorageFault when the writer has failed or is stopping."""
        with self._changed:
            if self.progress.fault is not None:
                raise StorageFault(str(self.progress.fault))
            if self._stopping:
                raise StorageFault("the spool is closed")
            if not self._queue:
                self._first_queued_s = time.monotonic()
            self._queue.append(job)
            if isinstance(job, AppendJob):
                self._queued_rows += job.rows
            self._changed.notify()
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
            self._group(jobs)
        if self.progress.fault is None:
            self._guard(self._finish)
        if self._active is not None:
            self._active.abandon()

    def turn(self) -> None:
        """One group of what is queued now, without waiting for more."""
        with self._changed:
            jobs, self._queue, self._queued_rows = self._queue, [], 0
        if jobs:
            self._group(jobs)

    def _take(self) -> list[Job] | None:
        """The next group; None when stopping and nothing is left."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
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
        if appends:
            self._guard(lambda: self._append(appends))
        if cursors:
            self._guard(lambda: self._move(cursors))
        if seals:
            self._guard(self._seal)
            self._tell([job.waiter for job in seals], 0)
        fault = self.progress.fault
        if fault is not None:
            heard = {id(waiter) for waiter, _ in told}
            late = [job.waiter for job in jobs if id(job.waiter) not in heard]
            self._tell(late, StorageFault(str(fault)))
        self._on_group(jobs, told)

    def _guard(self, step: Callable[[], None]) -> None:
        """Run one durable step unless an earlier one failed; remember if this one does."""
        if self.progress.fault is not None:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a broken invariant must not leave callers waiting
            fault = StorageFault(f"{self._directory}: {type(error).__name__}: {error}")
            with self._changed:
                self.progress.fault = fault

    def _tell(self, waiters: Sequence[Waiter], outcome: int | Exception) -> None:
        self.progress.told.extend((waiter, outcome) for waiter in waiters)

    def _append(self, jobs: Sequence[AppendJob]) -> None:
        active, segment = self._active, self._active_segment
        if active is None or segment is None:
            active, segment = self._create()
        offset, began = active.end, time.monotonic()
        records = active.append([batch for job in jobs for batch in job.batches])
        took = time.monotonic() - began
        # durable from here on
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
        first, again = self.progress.head + self._skip, 0
        self._skip = 0
        while (path := self._directory / file_name(first, again)).exists():
            again += 1
        meta = Meta(self._spool_id, first, self._ended)
        active = self._active = SegmentWriter(self._disk, path, meta)
        segment = self._active_segment = Segment(
            path, first, first, active.size_bytes(), sealed=False
        )
        self._catalog.add(segment)
        return active, segment

    def _seal(self) -> None:
        active, segment = self._active, self._active_segment
        if active is None or segment is None:
            return
        self._active = self._active_segment = None
        self._ended = active.end
        active.seal()
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

    def _forget(self) -> None:
        """Delete segments every consumer is done with; the positions are durable before that."""
        cursors = self._positions.state.cursors
        if not cursors:
            return
        gone = self._catalog.pop_below(min(cursors.values()))
        if not gone:
            return
        self._positions.write_twice(forgotten=gone[-1].end)
        for segment in gone:
            remove_segment(segment.path, self._disk)

    def _finish(self) -> None:
        self._seal()
        self._positions.write(replace(self._positions.state, head=self.progress.head))
