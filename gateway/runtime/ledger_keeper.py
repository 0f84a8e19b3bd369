"""Keeps the completeness ledger: a consumer of the spool like any other, with a beat.

    spool ─cursor `ledger`─▶ Ledger.count      every `count_interval_s`, on a thread
    statuses, cursors, clock ─▶ Ledger.beat    likewise
    Ledger.flush, then cursor.commit           every `flush_interval_s`, and at the end

Nothing here is on the way of an alarm: whatever may wait for the ledger's disk is on a thread and
nobody but sinks waits for it; the ledger opens when it runs, its faults are the
supervisor's to retry, a damaged file is set aside and the books are begun anew from what the spool
still has. A verdict that cannot be written down is counted and the sink goes on.

Not here: what is counted and why something is missing (gateway.ledger).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.contract.adapter import Counters, LinkStatus
from gateway.ledger.account import Account, Request, account
from gateway.ledger.books import Books
from gateway.ledger.ledger import Ledger, LedgerOptions, Progress, open_ledger
from gateway.ledger.settle import Reason
from gateway.ledger.store import Store, put_aside
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault, Unavailable
from gateway.model.point import PointTable
from gateway.runtime.clock import NowNs
from gateway.runtime.threads import to_the_end
from gateway.spool import Cursor, Spool

CURSOR = "ledger"
READ_ROWS_MAX = 20_000
READS_MAX = 25  # chunks before the beat has its turn: half a million rows
TIDY_HOURS = 2  # settled at a time: two tenths of a second of a thread at 10 000 points
NS_PER_S = 1_000_000_000
NOT_OPEN = "the completeness ledger is not open"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """What the ledger looks at, from the core: all of it from memory, at once."""

    adapters: Callable[[], dict[str, bool]]  # name -> is it up
    consumers: Callable[[], list[Progress]]
    refusals: Callable[[], dict[Reason, int]]  # rows our own disk or budget refused, so far


@dataclass
class LedgerKeeper:
    """One task. The verdict methods are called by deliveries and by the judge."""

    directory: Path
    spool: Spool
    points: PointTable
    options: LedgerOptions
    world: World
    counters: Counters
    status: LinkStatus
    now_ns: NowNs
    open_ledger: Callable[[Path, LedgerOptions], Ledger] = open_ledger
    count_interval_s: float = 1.0
    flush_interval_s: float = 15.0  # so much is counted again after a crash
    tidy_interval_s: float = 60.0
    monotonic_s: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    _ledger: Ledger | None = field(default=None, init=False)
    _cursor: Cursor | None = field(default=None, init=False)
    _refused: dict[Reason, int] = field(default_factory=dict, init=False)
    _beat_ns: int = field(default=0, init=False)
    _verdicts: set[asyncio.Future[None]] = field(default_factory=set, init=False)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def run(self) -> None:
        """Count until cancelled. Raises StorageFault for the supervisor."""
        ledger, cursor = await to_the_end(self._open)
        self.status("counting")
        flush_at_s = tidy_at_s = self.monotonic_s()
        try:
            while True:
                await self._step(ledger, cursor)
                now_s = self.monotonic_s()
                if now_s >= flush_at_s or ledger.is_full:
                    await self._flush(ledger, cursor)
                    flush_at_s = now_s + self.flush_interval_s
                if now_s >= tidy_at_s:
                    await to_the_end(self._tidy, ledger)
                    tidy_at_s = now_s + self.tidy_interval_s
                await asyncio.sleep(self.count_interval_s)
        except asyncio.CancelledError:
            await self._step(ledger, cursor)
            await self._flush(ledger, cursor)
            raise
        finally:
            self._ledger = None
            await to_the_end(self._close, ledger)

    # ------------------------------------------------------------------ the task

    def _open(self) -> tuple[Ledger, Cursor]:
        ledger = self.open_ledger(self.directory, self.options)
        if ledger.store.set_aside:
            self.counters.count("set_aside")
            log.error("the ledger was damaged, it is kept as %s", ledger.store.set_aside)
        cursor = self.spool.cursor(CURSOR)
        if ledger.offset is None and cursor.committed > self.spool.oldest:
            # Books that are new, of a spool that was counted: what it still has is counted again.
            self.spool.drop_cursor(CURSOR)
            cursor = self.spool.cursor(CURSOR)
        if ledger.offset is not None and ledger.offset > self.spool.head:
            self.counters.count("of_another_spool")
            ledger.begin_anew_at(cursor.committed)
        cursor.position = max(cursor.committed, ledger.offset or 0)
        self._ledger, self._cursor = ledger, cursor
        return ledger, cursor

    def _close(self, ledger: Ledger) -> None:
        ledger.close()
        if ledger.store.is_damaged:
            self.counters.count("set_aside")
            log.error("the ledger is damaged, it is kept as %s", put_aside(ledger.store.path))

    async def _step(self, ledger: Ledger, cursor: Cursor) -> None:
        for _ in range(READS_MAX):
            if not cursor.depth or not await to_the_end(self._count, ledger, cursor):
                break
        now_ns = self.now_ns()
        beat = partial(
            ledger.beat,
            now_ns,
            int(self.monotonic_s() * NS_PER_S),
            is_read=not cursor.depth,
            adapters=self.world.adapters(),
            consumers=self.world.consumers(),
        )
        await to_the_end(self._say, ledger, beat, now_ns, self.world.refusals())
        self._beat_ns = now_ns

    def _say(
        self, ledger: Ledger, beat: Callable[[], None], now_ns: int, refused: dict[Reason, int]
    ) -> None:
        """On a thread: the ledger's lock is held while its disk is written, and a disk may hang."""
        ledger.describe(self.points, now_ns)
        self._note_refusals(ledger, now_ns, refused)
        beat()

    def _count(self, ledger: Ledger, cursor: Cursor) -> bool:
        chunk = cursor.read(READ_ROWS_MAX)
        if chunk is None:
            return False
        ledger.count(chunk.start, chunk.batch)
        self.counters.count("accepted", len(chunk.batch))
        return True

    def _note_refusals(self, ledger: Ledger, now_ns: int, refused: dict[Reason, int]) -> None:
        for reason, count in refused.items():
            if count > self._refused.get(reason, 0) and self._refused:
                ledger.outage(reason, min(self._beat_ns or now_ns, now_ns), now_ns)
        self._refused = refused

    async def let_go(self) -> None:
        """The spool is nearly full: if it is the ledger that cannot keep up, its rows go. They are
        counted as lost; what is more, they hold up nobody."""
        cursor = self._cursor
        if self._ledger is None or cursor is None:
            if CURSOR in self.spool.cursor_names():
                self.counters.count("dropped", reason="spool_budget")
                await to_the_end(self.spool.drop_cursor, CURSOR)
        elif cursor.position > cursor.committed:
            await cursor.commit(cursor.position)

    async def _flush(self, ledger: Ledger, cursor: Cursor) -> None:
        offset = await to_the_end(ledger.flush)
        if offset is not None and cursor.committed < offset <= cursor.position:
            await cursor.commit(offset)

    def _tidy(self, ledger: Ledger) -> None:
        """A few hours are summed, what is too old goes."""
        now_ns = self.now_ns()
        reader = Store.open_read_only(self.directory)
        try:
            books = Books(reader)
            forced = ledger.minutes_from(now_ns) + 24 * 60
            settled = list(books.hours_to_settle(TIDY_HOURS, forced_before=forced))
        finally:
            reader.close()
        if settled:
            ledger.keep_hours(settled)
        ledger.prune(now_ns)

    # ------------------------------------------------------------------ verdicts of consumers

    async def refused(self, lane: str, offsets: Sequence[int], batch: Batch) -> None:
        """`lane` will never have these rows. Durable on return, unless the ledger cannot write."""
        ledger = self._ledger
        await self._note(
            None if ledger is None else partial(ledger.refused, lane, offsets, batch), len(batch)
        )

    async def thinned(self, lane: str, first: int, end: int) -> None:
        """As `gave_up`: the rows were thinned away."""
        await self.gave_up(lane, first, end, Reason.THINNED)

    async def gave_up(
        self, lane: str, first: int, end: int, reason: Reason = Reason.DROPPED_BUDGET
    ) -> None:
        """`lane` passes over rows [first, end): the budget is spent."""
        ledger = self._ledger
        call = None
        if ledger is not None:
            call = partial(ledger.gave_up, lane, first, end, reason, self.now_ns())
        await self._note(call, end - first)

    def refused_soon(self, lane: str, offset: int, batch: Batch) -> None:
        """As `refused`, of the judge, which waits for nobody: a ledger whose disk hangs must not
        delay an alarm."""
        task = asyncio.ensure_future(self.refused(lane, [offset], batch))
        self._verdicts.add(task)
        task.add_done_callback(self._verdicts.discard)

    async def _note(self, call: Callable[[], object] | None, rows: int) -> None:
        if call is None:
            self._lost_verdict(rows, NOT_OPEN)
            return
        try:
            await to_the_end(call)
        except StorageFault as error:
            self._lost_verdict(rows, str(error))

    def _lost_verdict(self, rows: int, why: str) -> None:
        self.counters.count("verdict_lost", rows)
        log.error("%d rows refused or dropped are not in the ledger: %s", rows, why)

    # ------------------------------------------------------------------ questions

    async def account(self, request: Request) -> Account:
        """Raises Unavailable when the books cannot be read now."""
        ledger = self._ledger
        if ledger is None:
            raise Unavailable(NOT_OPEN)
        try:
            async with self._one_at_a_time:  # an account may take a core for a second
                await to_the_end(ledger.flush)
                return await to_the_end(read_account, self.directory, request)
        except StorageFault as error:
            raise Unavailable(str(error)) from error


def read_account(directory: Path, request: Request) -> Account:
    """From the file, whoever is writing it. Raises ConfigError, StorageFault."""
    store = Store.open_read_only(directory)
    try:
        with store.snapshot():
            return account(Books(store), request)
    finally:
        store.close()
