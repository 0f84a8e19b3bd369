"""The consumers that tell others: samples from the spool to stores, events from the journal to
alarm sinks. One task, one cursor and one connection each, so that none can delay another.

A cursor is committed only after every row was accepted or rejected. `Unavailable` means the same
rows again after back-off; `Refused` means that some row is poison: the batch is halved until the
poison stands alone, which is set aside with its reason while its neighbours go on.

Alarm events are told in the order of the journal, except where a sink is behind: then everything
about alarms that have an event of priority 1 waiting goes first. The order of one alarm's events is
never changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gateway.alarms.journal import Journal, JournalCursor
from gateway.contract.adapter import Counters, LinkStatus
from gateway.contract.sink import AlarmSink, SampleSink
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import COLUMNS, Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import PointTable
from gateway.model.rule import Priority
from gateway.runtime.clock import NowNs
from gateway.runtime.counters import StatusCell
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.supervisor import Backoff
from gateway.runtime.threads import to_the_end
from gateway.spool import Cursor

log = logging.getLogger(__name__)

WRITE_ROWS_MAX = 10_000
_SET_ASIDE_BYTES_MAX = 64 << 20  # beyond it rejected rows are counted and logged, no longer kept
_EVENTS_MAX = 500  # about a tenth of a second of telling: a heartbeat is never far
_AHEAD_MAX = 20_000  # gseqs told before their turn; beyond it the journal's order is kept
HEARTBEAT_INTERVAL_S = 5.0


class SetAside:
    """Rejected rows with their reason, one JSON line each, for a person to look at."""

    def __init__(self, path: Path, points: PointTable, counters: Counters) -> None:
        self._path = path
        self._points = points
        self._counters = counters

    def put(self, batch: Batch, rows: Sequence[int], reasons: Sequence[str]) -> None:
        for reason in reasons:
            self._counters.count("rejected", reason=reason.partition(":")[0])
        log.error("%d samples refused for good, the first: %s", len(rows), reasons[0])
        if self._path.exists() and self._path.stat().st_size > _SET_ASIDE_BYTES_MAX:
            self._counters.count("set_aside_full", len(rows))
            return
        with self._path.open("a", encoding="utf-8") as file:
            for row, reason in zip(rows, reasons, strict=True):
                line = {name: getattr(batch, name)[row].item() for name, _ in COLUMNS}
                line["point"] = self._points[line["point_index"]].id
                line["value"] = None if line["value"] != line["value"] else line["value"]
                file.write(json.dumps({**line, "reason": reason}, ensure_ascii=False) + "\n")


@dataclass
class SampleDelivery:
    """Feeds one sample sink."""

    name: str
    cursor: Cursor
    sink: SampleSink
    set_aside: SetAside
    counters: Counters
    status: StatusCell
    backoff: Backoff
    linger_s: float = 0.5  # how long to wait for a fuller batch; a store likes few large writes
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    stored_count: int = field(default=0, init=False)
    duplicate_count: int = field(default=0, init=False)
    rejected_count: int = field(default=0, init=False)
    dropped_count: int = field(default=0, init=False)
    _forget_to: int = field(default=0, init=False)

    @property
    def behind(self) -> int:
        """Durable rows not committed yet."""
        return self.cursor.depth + self.cursor.position - self.cursor.committed

    def forget(self, offset: int) -> None:
        """Give up the rows before `offset`: the spool's budget is spent on what this sink is
        behind. Taken up by the running task, which counts what it drops."""
        self._forget_to = max(self._forget_to, offset)

    async def _drop_forgotten(self) -> None:
        position, target = self.cursor.committed, self._forget_to
        if position >= target:
            return
        self.counters.count("dropped", target - position, reason="spool_budget")
        self.dropped_count += target - position
        log.error("%s: %d samples dropped, the spool is full", self.name, target - position)
        await self.cursor.seek(max(target, self.cursor.position))
        await self.cursor.commit(target)

    async def run(self) -> None:
        """Serve until cancelled. Raises what the supervisor must decide on."""
        self.status("connecting")
        await self._drop_forgotten()
        await self.sink.open()
        self._say_connected()
        try:
            while True:
                await self._drop_forgotten()
                batch, end = await self._gather()
                await self._write(batch, end)
                if self._forget_to < end:
                    await self.cursor.commit(end)
        finally:
            self.cursor.rewind()
            await self.sink.close()

    def _say_connected(self) -> None:
        """Unless the sink has said something worse of itself (a store set aside as damaged)."""
        if self.status.state in {"connecting", "waiting"}:
            self.status("connected")

    async def _gather(self) -> tuple[Batch, int]:
        """The next rows: at once when there are many, after `linger_s` when there are few."""
        chunk = await self.cursor.next(WRITE_ROWS_MAX)
        if len(chunk.batch) >= WRITE_ROWS_MAX:
            return chunk.batch, chunk.end
        await self.sleep(self.linger_s)
        parts, end, rows = [chunk.batch], chunk.end, len(chunk.batch)
        while rows < WRITE_ROWS_MAX:
            more = await to_the_end(self.cursor.read, WRITE_ROWS_MAX - rows)
            if more is None:
                break
            if more.start != end:  # rows between are lost: an offset must not reach across
                self.cursor.position = end
                break
            parts.append(more.batch)
            end, rows = more.end, rows + len(more.batch)
        return Batch.concat(parts), end

    async def _write(self, batch: Batch, end: int) -> None:
        """Until every row is accepted or rejected; Unavailable is waited out here, so that the rows
        in hand are not read again."""
        while True:
            try:
                result = await self.sink.write(batch, end)
            except Unavailable as error:
                delay_s = self.backoff.next_s(error.retry_after_s)
                self.counters.count("retried")
                self.status("waiting", f"{error}; next try in {delay_s:.1f} s")
                await self.sleep(delay_s)
                if self._forget_to >= end:
                    return  # given up meanwhile; `_drop_forgotten` counts them
                continue
            except Refused as error:
                await self._bisect(batch, end, error)
                return
            self.backoff.reset()
            self._say_connected()
            self.stored_count += result.accepted
            self.duplicate_count += result.duplicate
            if len(result.rejected):
                self.rejected_count += len(result.rejected)
                self.set_aside.put(batch, result.rejected.tolist(), result.reasons)
            return

    async def _bisect(self, batch: Batch, end: int, error: Refused) -> None:
        if len(batch) == 1:
            self.rejected_count += 1
            self.set_aside.put(batch, [0], [str(error)])
            return
        half = len(batch) // 2
        await self._write(batch.take(slice(0, half)), end - (len(batch) - half))
        await self._write(batch.take(slice(half, None)), end)


@dataclass
class AlarmDelivery:
    """Feeds one alarm sink."""

    name: str
    journal: Journal
    cursor: JournalCursor
    sink: AlarmSink
    standing: Callable[[], Sequence[Alarm]]
    heartbeat: Callable[[], dict[str, Any]]
    latency: LatencyMeter
    counters: Counters
    status: LinkStatus
    now_ns: NowNs
    told_count: int = field(default=0, init=False)
    _ahead: set[int] = field(default_factory=set, init=False)  # told, and not committed yet
    _scan_at: int | None = field(default=None, init=False)  # how far the urgent ones are told
    _scan_to: int = field(default=0, init=False)  # the head when looking for them began
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def wake(self) -> None:
        """The journal has grown."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled. After every (re)connection the standing state is told again: the
        broker may have lost it."""
        self.status("connecting")
        await self.sink.open()
        try:
            await self.sink.snapshot(self.standing())
            self.status("connected")
            next_beat_s = 0.0
            loop = asyncio.get_running_loop()
            while True:
                told_some = await self._tell()
                if loop.time() >= next_beat_s:  # in the middle of a flood too
                    await self.sink.heartbeat(self.heartbeat())
                    next_beat_s = loop.time() + HEARTBEAT_INTERVAL_S
                if not told_some:
                    await self._wait(next_beat_s - loop.time())
        finally:
            await self.sink.close()

    async def _tell(self) -> bool:
        """One chunk of events, if there are any."""
        self._wake.clear()
        urgent = await self._urgent()
        if urgent:
            await self._write(urgent)
            self._ahead.update(event.alarm.gseq for event in urgent)
            return True
        events = await to_the_end(self.cursor.read, _EVENTS_MAX)
        if not events:
            return False
        await self._write([event for event in events if event.alarm.gseq not in self._ahead])
        await to_the_end(self.cursor.commit, events[-1].alarm.gseq)
        self._ahead = {gseq for gseq in self._ahead if gseq > self.cursor.gseq}
        return True

    async def _write(self, events: Sequence[AlarmEvent]) -> None:
        if not events:
            return
        await self.sink.write(events)
        told_ns = self.now_ns()
        for event in events:
            self.latency.stop(event.alarm.gseq, told_ns)
        self.told_count += len(events)

    async def _urgent(self) -> list[AlarmEvent]:
        """Of a backlog, the next events of alarms that have one of priority 1 waiting. Looked for
        from the cursor on: an earlier, less urgent event of the same alarm goes before it."""
        head, start = self.journal.head, self.cursor.gseq
        if head - start <= _EVENTS_MAX or len(self._ahead) >= _AHEAD_MAX:
            return []
        if self._scan_at is None:
            since, self._scan_to = max(self._scan_to, start), head
            if not await to_the_end(self.journal.read_urgent, since, Priority.CRITICAL, 1):
                return []
            self._scan_at = start
        found: list[AlarmEvent] = []
        while not found:
            after = max(self._scan_at, start)
            read = partial(self.journal.read_urgent, until_gseq=self._scan_to)
            page = await to_the_end(read, after, Priority.CRITICAL, _EVENTS_MAX)
            if not page:
                self._scan_at = None
                return []
            self._scan_at = page[-1].alarm.gseq
            found = [event for event in page if event.alarm.gseq not in self._ahead]
        return found

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._wake.wait()
        except TimeoutError:
            return
