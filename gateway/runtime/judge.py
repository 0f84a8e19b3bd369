"""The rule consumer: reads the spool, judges, lives through, records. One task, one cursor.

    spool ─read─▶ RuleSet.evaluate ─conditions─▶ AlarmBook.apply ─events─▶ Journal.append
                       └─derived samples─▶ intake.emit_derived

An event is told to anyone only after the journal has it; while that refuses, judging goes on and
events wait in order (recorder.py). The state of the rule core is saved with
the spool offset it belongs to; the cursor is committed after that. A restart loads the last
checkpoint and judges the rows since again: the same history gives the same conditions, and the book
drops those it has already lived through, so nothing is raised twice and no timer starts afresh.

**A flood** is lived through in pieces (verdicts.py): between two of them rows that came in
meanwhile are judged, the loop lives on, and what is critical goes first.

**Rows the disk did not take** come from the intake by memory (intake.py), after what the spool held
before them. They move no offset: once the disk takes rows again everything is as if a device had
sent them early. A spool that cannot be read does not stop them either.

A checkpoint is only ever taken when all that was read is judged and recorded whole, and while no
event waits for the journal: cancelled or failed in the middle, none is taken, and the next start
judges it again. In a flood without end reading stops now and then for one to be taken.

**What was told stays told.** A delay may end on a value whose end comes in later. The same rows,
judged again at one go after a restart, do not say it, and without more the book would have an alarm
for ever that the core never ends, or as over one that lasts. So where the rows of before the last
event are judged again, the levels of both are compared and the core takes the book's word.

Timers fire up to the moment up to which everything received has been read, which is not always now
(known_time.py). Other rules are taken between two steps (exchanging.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alarm_rules.ruleset import RuleSet
from gateway.alarms.book import AlarmBook, BookConfig
from gateway.alarms.commands import Command, CommandResult
from gateway.alarms.journal import Journal
from gateway.alarms.relations import above_in
from gateway.contract.adapter import Counters, LinkStatus
from gateway.contract.rule_kind import FOREVER
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import Batch
from gateway.model.condition import Conditions
from gateway.model.errors import (
    GatewayError,
    SpoolFull,
    StorageFault,
    Unavailable,
)
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule
from gateway.runtime.clock import NowNs
from gateway.runtime.exchanging import Exchanging, WantedRules
from gateway.runtime.intake import Intake
from gateway.runtime.known_time import UNDURABLE_WAIT_MAX_NS, KnownTime
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.live import LiveTable
from gateway.runtime.recorder import Recorder
from gateway.runtime.threads import to_the_end
from gateway.runtime.verdicts import PIECE_MAX, Verdicts, Work
from gateway.spool import Chunk, Cursor

log = logging.getLogger(__name__)

READ_ROWS_MAX = 20_000
DERIVED_TIMEOUT_S = 2.0  # what is stored may wait; what is judged may not
VERDICTS_MAX = 20_000  # judged and not lived through: beyond it nothing more is read
UNFINISHED_MAX_S = 15.0  # without a moment in which a checkpoint could be taken
SOONER_MAX = 16
"""The first checkpoint after a start comes so many times sooner than others do, the next ones at
twice the distance each; and so much sooner reading stops for one to be possible. Power that comes
and goes every second must not leave more to be judged again each time (engineering)."""


@dataclass
class Poison:
    """Rows on which judging failed; halved until one row stands alone, which is passed over."""

    start: int
    end: int


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
    settle_s: float = 5.0
    clock_tolerance_ns: int = 5_000_000_000
    alarms: BookConfig = field(default_factory=BookConfig)
    on_events: Callable[[Sequence[AlarmEvent]], None] = lambda _events: None
    on_unrecorded: Callable[[Sequence[AlarmEvent]], None] = lambda _events: None
    on_passed_over: Callable[[int, Batch], None] = lambda _offset, _batch: None
    monotonic_s: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    rules: RuleSet = field(init=False)
    book: AlarmBook = field(init=False)
    judged_count: int = field(default=0, init=False)
    recorder: Recorder = field(init=False)
    verdicts: Verdicts = field(default_factory=Verdicts, init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    from_memory_count: int = field(default=0, init=False)
    _reading: asyncio.Task[Chunk] | None = field(default=None, init=False)
    _newest_read_ns: int = field(default=0, init=False)
    _cannot_read: bool = field(default=False, init=False)
    _told_to_ns: int | None = field(default=None, init=False)  # an earlier life's last word, while
    # the rows before it are being judged again
    _told_ns: int = field(default=0, init=False)  # the latest anything was found that was told
    _is_ahead: bool = field(default=False, init=False)  # what is remembered lies in the future
    _done: int = field(default=0, init=False)  # every row before it is judged and recorded
    _judged_to: int = field(default=0, init=False)  # every row before it is judged
    _saved_at: int = field(default=-1, init=False)
    _is_whole: bool = field(default=True, init=False)  # nothing is judged and not recorded
    _whole_s: float = field(default=0.0, init=False)  # when that was so
    _ticked_s: float = field(default=0.0, init=False)
    _sooner: int = field(default=1, init=False)  # than later on a checkpoint is taken
    _failed: bool = field(default=False, init=False)
    _poison: Poison | None = field(default=None, init=False)
    _exchanging: Exchanging = field(default_factory=Exchanging, init=False)
    _points_version: int = field(default=-1, init=False)
    _known: KnownTime = field(init=False)
    _at_event_time: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._known = KnownTime(settle_s=self.settle_s, tick_interval_s=self.tick_interval_s)
        self.recorder = Recorder(
            self.journal,
            self.counters,
            lambda: self.status,
            self._tell,
            lambda events: self.on_unrecorded(events),  # noqa: PLW0108  it is set later
            self.monotonic_s,
        )

    # ------------------------------------------------------------------ start and end

    async def restore(self) -> None:
        """Take up where the last checkpoint left off: at the start, and after a failure of our own
        that left core and book in a state nobody can vouch for."""
        await self.recorder.settle()
        self.rules = self.make_rules()
        self.book = AlarmBook(
            self.journal.epoch,
            gseq=self.journal.head,
            config=self.alarms,
            above=above_in(self.points),
        )
        # What the journal has refused so far is not lost with a failure of ours.
        self.journal.restore_into(self.book, waiting=self.recorder.waiting)
        self._points_version = -1
        offset = self._load_checkpoint()
        self.rules.adopt(self.book.levels(self.rules.instances))
        await self.cursor.seek(offset)
        self._done = self._judged_to = self._saved_at = offset
        self.verdicts.clear()
        self._told_to_ns = self._newest_told_ns()
        self._is_whole, self._whole_s = True, self.monotonic_s()
        self._known.settle(self.monotonic_s())
        self._is_ahead = self._newest_ns() > self.now_ns() + self.clock_tolerance_ns

    def _newest_told_ns(self) -> int | None:
        """When the last event of all was found; None if there is none, and after all that comes if
        it cannot be read."""
        head, waiting = self.journal.head, self.recorder.waiting
        if not head and not waiting:
            return None
        events = [*self.journal.read(head - 1, 1), *waiting]
        return events[-1].recorded_time_ns if events else FOREVER

    def _load_checkpoint(self) -> int:
        """The offset to go on from; what cannot be used is counted and never stops the start."""
        committed, head = self.cursor.committed, self.cursor.committed + self.cursor.depth
        checkpoint = self.journal.load_checkpoint()
        if checkpoint is None:
            return committed
        offset, arrays = checkpoint
        try:
            self.rules.load(arrays)
            self.rules.came_by(self.now_ns())
        except (GatewayError, KeyError, ValueError, IndexError) as error:
            self.counters.count("checkpoint_unusable")
            log.warning("the saved rule state cannot be used, timers start afresh: %s", error)
            self.rules = self.make_rules()
            return committed
        if offset > head:  # of a spool that is no more: what this one holds is all new
            self.counters.count("checkpoint_of_another_spool")
            return committed
        # Only when the newest checkpoint is damaged is the older one behind the commit: the rows
        # between were judged and may be gone.
        return max(offset, committed)

    def standing(self) -> Sequence[Alarm]:
        """Every row of the live table that the journal has: what may be told to anyone."""
        head = self.journal.head
        return [row for row in self.book.snapshot() if row.gseq <= head and not row.removed]

    def unrecorded(self) -> set[str]:
        """Keys of rows that changed and are not in the journal yet: they stand, but as what is
        nobody's to tell. Ask before `standing`: the journal goes on in a thread."""
        head = self.journal.head
        return {r.alarm_key for r in self.book.snapshot() if r.gseq > head and not r.removed}

    async def run(self) -> None:
        """Judge until cancelled; the last act is a checkpoint."""
        if self._failed or not self._is_whole:  # cancelled in the middle: what was left is unknown
            await self.restore()
            self._failed = False
        self.status("judging")
        self._sooner = SOONER_MAX
        next_checkpoint_s = self.monotonic_s() + self.checkpoint_interval_s / self._sooner
        try:
            while True:
                await self._step()
                if self.monotonic_s() >= next_checkpoint_s:
                    if await self.checkpoint():
                        self._sooner = max(1, self._sooner // 2)
                    next_checkpoint_s = (
                        self.monotonic_s() + self.checkpoint_interval_s / self._sooner
                    )
        except asyncio.CancelledError:
            await self.checkpoint()
            raise
        except Exception:
            self._failed = True
            raise
        finally:
            await self._stop_reading()
            with contextlib.suppress(Exception):  # its own failure is not why this ends
                await self.recorder.settle()

    async def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # ------------------------------------------------------------------ one step

    async def _step(self) -> None:
        """Judge what there is, or tick when there is nothing. A read that is slower than the tick
        goes on; it is not begun again."""
        if self._reading is None:
            self._reading = asyncio.create_task(self.cursor.next(self._rows_max()))
        unsaved = self.intake.unsaved
        waits: set[asyncio.Future[Any]] = set()
        if unsaved.oldest_ns is None or self._is_turn_of(unsaved.oldest_ns):
            waits.add(unsaved.arrival())  # else it is done already: no wait at all
        if not self._cannot_read:
            waits.add(self._reading)
        timeout_s = 0 if self.verdicts else self.tick_interval_s
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        chunk = self._read() if self._reading.done() and self._has_room() else None
        self.intake.judge_stuck(self.now_ns() - UNDURABLE_WAIT_MAX_NS)
        async with self._lock:
            if not self.recorder.is_writing:
                await self.recorder.flush(only_if_due=True)
            if chunk is not None:
                await self._judge_chunk(chunk)
            oldest_ns = unsaved.oldest_ns
            if oldest_ns is not None and self._is_turn_of(oldest_ns):
                await self._judge_unsaved()
            elif chunk is None and not self.cursor.depth:  # no tick overtakes rows that are there
                await self._tick()
            if self.verdicts:
                await self._live_piece()
            # What waits was judged by the rules as they were, and so was what an earlier life said.
            if self._exchanging.is_wanted and not self.verdicts and self._told_to_ns is None:
                await self._exchanging.answer(self._judge_by)

    def _has_room(self) -> bool:
        """Whether more may be judged: not too much waits, and not for too long."""
        waits = self.verdicts.count
        unfinished_s = self.monotonic_s() - self._whole_s
        may_wait_s = UNFINISHED_MAX_S / self._sooner
        return not waits or (waits < VERDICTS_MAX and unfinished_s < may_wait_s)

    async def _tick(self) -> None:
        """What time alone does; in a flood not between any two pieces."""
        now_s = self.monotonic_s()
        if self.verdicts and now_s - self._ticked_s < self.tick_interval_s:
            return
        self._ticked_s = now_s
        await self._stand_by_the_word()
        if self._is_ahead:
            self._forget_the_future(self.now_ns())
        known_ns = await self._known_to_ns(Batch.empty())
        if known_ns > 0:  # else nothing was heard since the start: too soon to miss it
            await self._judge(Batch.empty(), known_ns)

    def _is_turn_of(self, unsaved_ns: int) -> bool:
        """Rows that are durable nowhere are judged after those on the disk that came before."""
        is_read = not self.cursor.depth or self._cannot_read
        return is_read or unsaved_ns <= self._newest_read_ns

    def _read(self) -> Chunk | None:
        """What the finished read says; None for a disk that cannot be read, which is tried again at
        the next tick."""
        assert self._reading is not None
        reading, self._reading = self._reading, None
        try:
            chunk = reading.result()
        except StorageFault as error:
            self.counters.count("read_fault")
            if not self._cannot_read:
                log.critical("the spool cannot be read: %s", error)
            self.status("faulty", f"the spool cannot be read: {error}")
            self._cannot_read = True
            return None
        if self._cannot_read:
            self.status("judging")
        self._cannot_read = False
        self._newest_read_ns = int(chunk.batch.received_time_ns.max())
        return chunk

    async def _judge_unsaved(self) -> None:
        """The oldest batch the disk did not take. One that fails is halved, as any other, until
        its poison stands alone."""
        await self._live_through()  # a failure in it would not be these rows'
        unsaved = self.intake.unsaved
        batch = unsaved.take()
        assert batch is not None
        try:
            await self._judge_rows(batch, None, at_once=True)
        except Exception:
            if len(batch) == 1:
                self._say_not_judged(batch, "held in memory")
            else:
                half = len(batch) // 2
                unsaved.put_back(batch.take(slice(half, None)))
                unsaved.put_back(batch.take(slice(0, half)))
            raise
        self.judged_count -= len(batch)  # a road of its own: nothing durable was judged
        self.from_memory_count += len(batch)

    async def _judge_chunk(self, chunk: Chunk) -> None:
        span = (chunk.start, chunk.end)
        if self._poison == Poison(*span) and len(chunk.batch) == 1:
            await self._live_through()
            self._pass_over(chunk)
        else:
            await self._judge_rows(chunk.batch, span, at_once=self._poison is not None)
            if self._poison is not None and chunk.end >= self._poison.end:
                self._poison = None
        self._judged_to = chunk.end
        self._notice_whole()

    async def _judge_rows(
        self, batch: Batch, span: tuple[int, int] | None, *, at_once: bool
    ) -> None:
        """Rows that came in before the clock was set back, while nobody judged, tell of a time to
        come: they are judged by it, and then it is forgotten, or everything after would be late
        and call nobody. Forgotten up to the receipt of the next row, not up to now: that row may
        have waited too."""
        batch = await self._judge_again(batch, span)
        now_ns = self.now_ns()
        ahead = np.flatnonzero(batch.received_time_ns > now_ns + self.clock_tolerance_ns)
        if len(ahead):
            before = batch.take(slice(0, int(ahead[-1]) + 1))
            await self._judge(before, await self._known_to_ns(before), span=span, at_once=True)
            self._is_ahead = True
            batch = batch.take(slice(int(ahead[-1]) + 1, None))
            if not len(batch):
                return
        if self._is_ahead:
            came_ns = min(now_ns, int(batch.received_time_ns.min()))
            # its device may be slow
            self._forget_the_future(came_ns - self.clock_tolerance_ns, came_ns=came_ns)
        known_ns = await self._known_to_ns(batch)
        await self._judge(batch, known_ns, span=span, at_once=at_once)

    async def _judge_again(self, batch: Batch, span: tuple[int, int] | None) -> Batch:
        """The rows an earlier life had before it said its last word, if some of these are the
        first that came after it: then what was told and is not said again is looked at. The others
        are returned."""
        if self._told_to_ns is None or span is None:
            return batch
        later = np.flatnonzero(batch.received_time_ns > self._told_to_ns)
        if not len(later):
            return batch
        first = int(later[0])
        if first:
            before = batch.take(slice(0, first))
            await self._judge(before, await self._known_to_ns(before), span=span, at_once=True)
        await self._stand_by_the_word()
        return batch.take(slice(first, None))

    async def _stand_by_the_word(self) -> None:
        """What was told stays told. An earlier life may have said that an alarm came, or that it is
        over, by a delay that ended before it had rows which say otherwise. With those rows the
        core does not say so now: the alarm would stand for ever, or be over while it lasts, and
        nobody be called by the next one."""
        told_to_ns, self._told_to_ns = self._told_to_ns, None
        if told_to_ns is None:
            return
        await self._live_through()
        events = await self._refresh()
        if events:
            await self._record(events, 0)
        instances = self.rules.instances
        words_ns = self.book.last_words(instances)
        differs = self.rules.current_levels() != self.book.levels(instances)
        if not differs.any():
            return
        # As far as was known when it was said: then the core may say it by itself.
        known_ns = min(int(words_ns[differs].max()) + self.rules.lateness_ns, told_to_ns)
        if known_ns > 0:
            await self._judge(Batch.empty(), min(known_ns, self.now_ns()), at_once=True)
        changed = self.rules.take_word(self.book.levels(instances), words_ns)
        self.book.expect_no_repeats(instances[n].alarm_key for n in changed.tolist())
        self.counters.count("told_before", len(changed))

    async def judge_all(self, known_ns: int, *, at_event_time: bool = False) -> None:
        """Judge every row there is, then the clock up to `known_ns`: what a replay does instead of
        `run`, in the time of its data. Rows of one time must be there together. `at_event_time`:
        everything counts as found out when it happened, whatever the size of the step."""
        chunks = []
        while (chunk := self.cursor.read(READ_ROWS_MAX)) is not None:
            chunks.append(chunk)
        async with self._lock:
            self._at_event_time = at_event_time
            batch = Batch.concat([chunk.batch for chunk in chunks])
            await self._judge(batch, known_ns, at_once=True)
            await self.recorder.drain()
            if chunks:
                self._done = self._judged_to = chunks[-1].end

    def _rows_max(self) -> int:
        """All there is; but up to rows that failed, then half of them at a time."""
        poison, position = self._poison, self.cursor.position
        if poison is None or position >= poison.end:
            return READ_ROWS_MAX
        if position < poison.start:
            return min(READ_ROWS_MAX, poison.start - position)
        return max(1, (poison.end - poison.start) // 2)

    def _pass_over(self, chunk: Chunk) -> None:
        """One row that the core cannot judge must not end all judging: it is in the store, it is
        told loudly, and the next row goes on."""
        self._say_not_judged(chunk.batch, f"at offset {chunk.start}")
        self.on_passed_over(chunk.start, chunk.batch)
        self._poison = None

    def _say_not_judged(self, batch: Batch, where: str) -> None:
        self.counters.count("not_judged", len(batch), reason="failed_alone")
        point = int(batch.point_index[0])
        name = self.points[point].id if point < len(self.points) else str(point)
        log.critical("NOT JUDGED: one sample of %s %s fails alone", name, where)

    async def _known_to_ns(self, batch: Batch) -> int:
        """Up to when everything that was received has been read."""
        now_ns, now_s = self.now_ns(), self.monotonic_s()
        was_stopped, was_set_back = self._known.look(now_ns, now_s)
        if was_stopped:
            self.counters.count("paused")
        if was_set_back:
            await self._live_through()  # else its times would come after
            self._forget_the_future(now_ns)
        return self._known.take(
            batch,
            now_ns,
            now_s,
            pending_ns=self.intake.oldest_pending_ns,
            is_behind=bool(self.cursor.depth),
        )

    def _newest_ns(self) -> int:
        """The latest moment anything remembered tells of."""
        return max(self.book.newest_judged_ns(), self.rules.newest_heard_ns())

    def _forget_the_future(self, now_ns: int, *, came_ns: int | None = None) -> None:
        """Nothing remembered may lie in the future: every row from now on would be late, and
        nothing would alarm until the clock has caught up. `came_ns`: by when all came in, if that
        is not now."""
        self._is_ahead = False
        self._told_ns = 0
        self._known.not_beyond(now_ns)
        self.rules.came_by(now_ns if came_ns is None else came_ns)
        believed_ns = now_ns + self.clock_tolerance_ns  # so far ahead a device's clock may be
        if self._newest_ns() <= believed_ns:
            return
        self.counters.count("clock_set_back")
        log.error("the clock was set back: timers that ran ahead of it begin at the present")
        self.rules.forget_after(now_ns)
        self.book.forget_after(now_ns)
        self.live.forget_after(now_ns)

    async def _judge(
        self,
        batch: Batch,
        known_ns: int,
        *,
        span: tuple[int, int] | None = None,
        at_once: bool = False,
    ) -> None:
        """Judge, and live through what comes of it: now if it is little, else piece by piece in the
        steps to come. `span`: the rows' offsets."""
        self._is_whole = False
        try:
            work = await self._evaluate(batch, known_ns)
        except Exception:
            self._blame(span)
            raise
        work.span = span
        self._is_whole = False  # new points may have let all that waited be lived through
        self.live.update(batch)
        self.verdicts.put(work, self.book.is_critical)
        if at_once or self.verdicts.count <= PIECE_MAX:
            await self._live_through()

    async def _evaluate(self, batch: Batch, known_ns: int) -> Work:
        since_ns = self._since_ns(batch)
        events = await self._refresh()
        result, instances = self.rules.evaluate(batch, known_ns), self.rules.instances
        work = Work(batch, self._found_ns(known_ns, since_ns), since_ns, derived=result.derived)
        work.judged_count = len(batch) - result.derived_seen_count
        if self._at_event_time:
            for at_ns, part in by_time(result.conditions):
                events += self.book.apply(part, instances, at_ns)
        else:
            work.changes.extend(self.book.in_turn(result.conditions, instances))
        if events:
            await self._record(events, since_ns)
        if result.late_count:
            self.counters.count("late", result.late_count)
        return work

    def _found_ns(self, known_ns: int, since_ns: int) -> int:
        """By a row nothing is found before it came in, though the clock may not count so far yet:
        the next start asks when the last word was said to know whose rows were judged by then."""
        return max(known_ns, min(since_ns, self.now_ns()))

    def _blame(self, span: tuple[int, int] | None) -> None:
        """Rows on which judging failed, if the spool has them: fewer of them at a time."""
        if span is not None:
            self._poison = Poison(*span)

    async def _live_through(self) -> None:
        """All that waits."""
        while self.verdicts:
            await self._live_piece()

    async def _live_piece(self) -> None:
        """Live through a few changes and record them; with the last of a work, what is to be done
        after it."""
        piece = self.verdicts.take()
        work = piece.work
        self._is_whole = False
        # Nor before what went ahead of it: the last word is the latest.
        found_ns = self._told_ns = max(self._told_ns, work.found_ns)
        try:
            if piece.is_ahead:
                events = self.book.live_ahead(piece.changes, found_ns)
            else:
                events = self.book.live(piece.changes, found_ns, is_last=piece.is_last)
            if piece.is_last:
                events += self.book.observe(work.batch, self.points, found_ns)
                if not self.verdicts:
                    events += self.book.tick(self.now_ns())
            if events:
                beside = bool(self.verdicts) and not piece.is_ahead  # else somebody waits for it
                await self.recorder.record(events, work.since_ns, beside=beside)
            if not self.verdicts:
                await self.recorder.settle()
            if piece.is_last:
                await self._store_derived(work.derived)
        except Exception:
            self._blame(work.span)
            raise
        if piece.is_last:
            self.judged_count += work.judged_count
        self._notice_whole()

    def _notice_whole(self) -> None:
        if not self.verdicts:
            self._is_whole, self._whole_s = True, self.monotonic_s()
            self._done = self._judged_to

    async def _store_derived(self, derived: Batch) -> None:
        """Judged already: a full or faulty spool costs their history, never the next alarm."""
        try:
            timeout_s = 0.0 if self.intake.is_stuck else DERIVED_TIMEOUT_S
            async with asyncio.timeout(timeout_s):
                await self.intake.emit_derived(derived)
        except (SpoolFull, StorageFault, TimeoutError) as error:
            self.counters.count("dropped", len(derived), reason=f"derived_{type(error).__name__}")

    async def refresh(self) -> None:
        """Take in new points now, before any of their rows."""
        async with self._lock:
            events = await self._refresh()
            if events:
                await self._record(events, 0)

    async def _refresh(self) -> list[AlarmEvent]:
        """Take in new points; make the points that calculations produce known and durable. A
        calculation over calculated points needs those first, hence the loop. The events are of
        alarms that nothing judges any more, and of those whose rule was edited: what waits to be
        lived through was judged by the rules as they were, and comes before those."""
        if self.points.version == self._points_version:
            return []
        matched = self.rules.live
        self.rules.refresh()
        while derived := self.rules.derived_points():
            await self.declare(derived)
            self.rules.refresh()
        self._points_version = self.points.version
        rules = self.rules
        # What began afresh (its levels have other names, its rule was edited) goes on by the book.
        rules.adopt(self.book.levels(rules.instances))
        if self.verdicts and not np.array_equal(rules.live[: len(matched)], matched):
            await self._live_through()
        return self.book.follow(
            rules.instances, rules.live, self.now_ns(), levels=rules.current_levels()
        )

    # ------------------------------------------------------------------ other rules

    async def take_rules(self, rules: Sequence[Rule], make_rules: Callable[[], RuleSet]) -> bool:
        """Judge by these rules from the next row on; every timer goes on that still has a meaning,
        and alarms whose rule was edited or is gone say so. Returns whether it was done in place;
        else a new set was made meanwhile, by `make_rules`, which also makes it after a failure.
        Waits until what is in hand is judged. Raises ConfigError for every fault of the rules, and
        Unavailable where no moment comes: those in force stay."""
        return await self._exchanging.ask(rules, make_rules)

    async def _judge_by(self, wanted: WantedRules) -> bool:
        """A failure of ours on the way begins the judge anew, with the rules that were in force."""
        before_s = self.monotonic_s()
        in_place: bool = self.rules.exchange(wanted.rules)
        self._is_whole = False
        if not in_place:
            made = wanted.make_rules()
            made.load(self.rules.save())
            self.rules = made
        self._points_version = -1
        events = await self._refresh()
        if events:
            await self._record(events, 0)
        self.make_rules = wanted.make_rules
        self._notice_whole()
        self.counters.count("rules_exchanged")
        log.info("judging by other rules after %.2f s", self.monotonic_s() - before_s)
        return in_place

    # ------------------------------------------------------------------ people and the journal

    async def command(self, command: Command) -> CommandResult:
        """An operator's act: into the journal before anyone sees it. Raises Unavailable while the
        journal cannot be written: an act that is answered must be on record."""
        async with self._lock:
            if not await self.recorder.flush(only_if_due=True):
                raise Unavailable(f"the alarm journal cannot be written: {self.recorder.fault}")
            result = self.book.command(command, self.now_ns())
            if result.events:
                await self._record(result.events, 0)
                if self.recorder.fault:
                    fault = f"taken, and not recorded yet: {self.recorder.fault}"
                    raise Unavailable(fault)
        return result

    async def _record(self, events: Sequence[AlarmEvent], since_ns: int) -> None:
        await self.recorder.record(events, since_ns)

    def _tell(self, recorded: Sequence[tuple[AlarmEvent, int]]) -> None:
        """The journal has them: they may be told."""
        for event, since_ns in recorded:
            self.latency.start(event.alarm.gseq, max(event.time_ns, since_ns))
        self.on_events([event for event, _ in recorded])

    @staticmethod
    def _since_ns(batch: Batch) -> int:
        return int(batch.received_time_ns.max()) if len(batch) else 0

    async def checkpoint(self) -> bool:
        """Save the core's state with its offset, then let the spool forget the rows before it.
        False in the middle of a chunk, and while an event waits for the journal: not the moment."""
        async with self._lock:
            offset = self._done
            if not self._is_whole or not await self.recorder.flush(only_if_due=True):
                return False  # what it would let go of makes the events that wait for the journal
            if offset == self._saved_at:
                return True
            arrays: dict[str, np.ndarray[Any, Any]] = self.rules.save()
            try:
                await to_the_end(self.journal.save_checkpoint, offset, arrays)
                await self.cursor.commit(offset)
            except StorageFault as error:
                self.counters.count("checkpoint_fault")
                log.warning("rule state not saved, will try again: %s", error)
                return True  # no sooner
            self._saved_at = offset
            return True


def by_time(conditions: Conditions) -> Iterator[tuple[int, Conditions]]:
    """The changes of each instant: what time alone does to an alarm falls between two of them."""
    time_ns = conditions.time_ns
    if not len(time_ns):
        return
    edges = np.append(np.flatnonzero(time_ns[1:] != time_ns[:-1]) + 1, len(time_ns))
    start = 0
    for end in edges.tolist():
        yield (
            int(time_ns[start]),
            Conditions(*(getattr(conditions, name)[start:end] for name in Conditions.__slots__)),
        )
        start = end
