"""The rule consumer: reads the spool, judges, lives through, records. One task, one cursor.

    spool ─read─▶ RuleSet.evaluate ─conditions─▶ AlarmBook.apply ─events─▶ Journal.append
                       └─derived samples─▶ intake.emit_derived

An event is told to anyone only after the journal has it. The state of the rule core is saved with
the spool offset it belongs to; the cursor is committed after that. A restart loads the last
checkpoint and judges the rows since again: the same history gives the same conditions, and the book
drops those it has already lived through, so nothing is raised twice and no timer starts afresh.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alarm_rules.ruleset import RuleSet
from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Command, CommandResult
from gateway.alarms.journal import Journal
from gateway.contract.adapter import Counters, LinkStatus
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.model.point import Point, PointTable
from gateway.runtime.clock import NowNs
from gateway.runtime.intake import Intake
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.live import LiveTable
from gateway.spool import Cursor

log = logging.getLogger(__name__)

READ_ROWS_MAX = 20_000
_JOURNAL_RETRY_S = 1.0


@dataclass
class Judge:
    """Owns the rule set, the book and the live table; the only writer of the journal."""

    cursor: Cursor
    points: PointTable
    make_rules: Callable[[], RuleSet]
    journal: Journal
    intake: Intake
    live: LiveTable
    latency: LatencyMeter
    counters: Counters
    status: LinkStatus
    now_ns: NowNs
    declare: Callable[[Sequence[Point]], Awaitable[object]]
    tick_interval_s: float = 0.2
    checkpoint_interval_s: float = 5.0
    on_events: Callable[[Sequence[AlarmEvent]], None] = lambda _events: None

    rules: RuleSet = field(init=False)
    book: AlarmBook = field(init=False)
    judged_count: int = field(default=0, init=False)
    busy_s: float = field(default=0.0, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _failed: bool = field(default=False, init=False)
    _points_version: int = field(default=-1, init=False)
    _saved_at: int = field(default=-1, init=False)

    async def restore(self) -> None:
        """Take up where the last checkpoint left off: at the start, and after a failure of our own
        that left core and book in a state nobody can vouch for."""
        self.rules = self.make_rules()
        self.book = AlarmBook(self.journal.epoch, gseq=self.journal.head)
        self.journal.restore_into(self.book)
        self._points_version = -1
        checkpoint = self.journal.load_checkpoint()
        offset = self.cursor.committed
        if checkpoint is not None:
            # Only when the newest checkpoint is damaged is the older one behind the commit: the
            # rows between were judged and may be gone.
            offset = max(offset, checkpoint[0])
            self.rules.load(checkpoint[1])
        await self.cursor.seek(offset)
        self._saved_at = offset

    def standing(self) -> Sequence[Alarm]:
        """Every row of the book in force now; a restart of the judge makes a new book."""
        return self.book.snapshot()

    async def run(self) -> None:
        """Judge until cancelled; the last act is a checkpoint."""
        if self._failed:
            await self.restore()
            self._failed = False
        self.status("judging")
        loop = asyncio.get_running_loop()
        next_checkpoint_s = loop.time() + self.checkpoint_interval_s
        try:
            while True:
                await self._step()
                if loop.time() >= next_checkpoint_s:
                    await self.checkpoint()
                    next_checkpoint_s = loop.time() + self.checkpoint_interval_s
        except asyncio.CancelledError:
            await self.checkpoint()
            raise
        except Exception:
            self._failed = True
            raise

    async def _step(self) -> None:
        try:
            async with asyncio.timeout(self.tick_interval_s):
                chunk = await self.cursor.next(READ_ROWS_MAX)
            batch = chunk.batch
        except TimeoutError:
            if self.cursor.depth:
                return  # rows are there and the disk is slow: no tick may overtake them
            batch = Batch.empty()
        async with self._lock:
            await self._judge(batch, self._known_to_ns(batch))

    def _known_to_ns(self, batch: Batch) -> int:
        """Up to when everything that was received has been read.

        With rows still to read, that is when the last row in hand came in: timers that ran on to
        the wall clock would fire on a history that is not known yet, and a restart with a backlog
        would raise alarms that the next rows deny.
        """
        now_ns = self.now_ns()
        if not self.cursor.depth:
            return now_ns
        return min(now_ns, int(batch.received_time_ns.max()))

    async def _judge(self, batch: Batch, now_ns: int) -> None:
        started_s = asyncio.get_running_loop().time()
        await self._refresh()
        result = self.rules.evaluate(batch, now_ns)
        events = self.book.apply(result.conditions, self.rules.instances, now_ns)
        events += self.book.observe(batch, self.points, now_ns)
        events += self.book.tick(now_ns)
        self.live.update(batch)
        self.busy_s += asyncio.get_running_loop().time() - started_s
        if events:
            await self._record(events, self._since_ns(batch))
        await self.intake.emit_derived(result.derived)
        self.judged_count += len(batch) - result.derived_seen_count
        if result.late_count:
            self.counters.count("late", result.late_count)

    async def _refresh(self) -> None:
        """Take in new points; make the points that calculations produce known and durable. A
        calculation over calculated points needs those first, hence the loop."""
        if self.points.version == self._points_version:
            return
        self.rules.refresh()
        while derived := self.rules.derived_points():
            await self.declare(derived)
            self.rules.refresh()
        self.book.declare(self.rules.instances)
        self._points_version = self.points.version

    async def command(self, command: Command) -> CommandResult:
        """An operator's act: into the journal before anyone sees it."""
        async with self._lock:
            result = self.book.command(command, self.now_ns())
            if result.events:
                await self._record(result.events, 0)
        return result

    async def _record(self, events: Sequence[AlarmEvent], since_ns: int) -> None:
        """Into the journal, whatever it takes: an alarm that was judged is never dropped.

        While the disk refuses, judging waits here and intake goes on into the spool.
        """
        while True:
            try:
                await asyncio.to_thread(self.journal.append, events)
                break
            except StorageFault as error:
                self.status("faulty", f"the alarm journal cannot be written: {error}")
                self.counters.count("journal_fault")
                log.exception("alarm journal")
                await asyncio.sleep(_JOURNAL_RETRY_S)
        self.status("judging")
        for event in events:
            self.latency.start(event.alarm.gseq, max(event.time_ns, since_ns))
        self.on_events(events)

    @staticmethod
    def _since_ns(batch: Batch) -> int:
        return int(batch.received_time_ns.max()) if len(batch) else 0

    async def checkpoint(self) -> None:
        """Save the core's state with its offset, then let the spool forget the rows before it."""
        async with self._lock:
            offset = self.cursor.position
            if offset == self._saved_at:
                return
            arrays: dict[str, np.ndarray[Any, Any]] = self.rules.save()
            try:
                await asyncio.to_thread(self.journal.save_checkpoint, offset, arrays)
            except StorageFault as error:
                self.counters.count("checkpoint_fault")
                log.warning("rule state not saved, will try again: %s", error)
                return
            await self.cursor.commit(offset)
            self._saved_at = offset
