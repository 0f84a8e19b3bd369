"""The consumers that tell: alarm events from the journal to the alarm sinks. One task, one cursor
and one connection each, so that none can delay another.

Alarm events are told in the order of the journal, except where a sink is behind: then everything
about alarms that have an event of priority 1 waiting goes first. The order of one alarm's events is
never changed. While a flood is being recorded only those are told, and the rest once it is on
record, or after `HOLD_MAX_S`: telling and recording share a processor, and the record comes first.
A connection begins with the newest state of every alarm, the most urgent first (ten thousand take a
slow link a minute), so what stands is right at once, however long the backlog of events behind it;
a state never goes back in time.

Not here: samples (deliver.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway.alarms.journal import Journal, JournalCursor
from gateway.api.wire import urgency
from gateway.contract.adapter import Counters, LinkStatus
from gateway.contract.sink import AlarmSink
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState
from gateway.model.rule import Priority
from gateway.runtime.clock import NowNs
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.threads import to_the_end

_EVENTS_MAX = 500  # about a tenth of a second of telling: a heartbeat is never far
_AHEAD_MAX = 20_000  # gseqs told before their turn; beyond it the journal's order is kept
HEARTBEAT_INTERVAL_S = 5.0
HOLD_MAX_S = 2.0
"""In which ten thousand alarms are to be on record (the flood of the fault table)."""
_HELD_WAIT_S = 0.05


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
    unrecorded: Callable[[], Collection[str]] = frozenset
    is_flooded: Callable[[], bool] = lambda: False  # more is to be recorded at once
    told_count: int = field(default=0, init=False)
    _held_from_s: float | None = field(default=None, init=False)
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
            await self._snapshot()
            self.status("connected")
            next_beat_s = 0.0
            loop = asyncio.get_running_loop()
            while True:
                told_some = await self._tell()
                if loop.time() >= next_beat_s:  # in the middle of a flood too
                    await self.sink.heartbeat(self.heartbeat())
                    next_beat_s = loop.time() + HEARTBEAT_INTERVAL_S
                if not told_some:
                    rest_s = next_beat_s - loop.time()
                    held = self._held_from_s is not None
                    await self._wait(min(rest_s, _HELD_WAIT_S) if held else rest_s)
        finally:
            await self.sink.close()

    async def _snapshot(self) -> None:
        head, unrecorded = self.journal.head, self.unrecorded()  # both before what stands
        rows = sorted(self.standing(), key=lambda a: (a.state is AlarmState.NORMAL, urgency(a)))
        await self.sink.snapshot(rows, head_gseq=head, unrecorded=unrecorded)

    async def _tell(self) -> bool:
        """One chunk of events, if there are any."""
        self._wake.clear()
        holds = self._holds()
        urgent = await self._urgent(at_once=holds)
        if urgent:
            await self._write(urgent)
            self._ahead.update(event.alarm.gseq for event in urgent)
            return True
        if holds:
            return False
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

    def _holds(self) -> bool:
        """Whether what is not urgent waits for the flood to be on record."""
        if not self.is_flooded():
            self._held_from_s = None
            return False
        now_s = asyncio.get_running_loop().time()
        if self._held_from_s is None:
            self._held_from_s = now_s
        return now_s - self._held_from_s < HOLD_MAX_S

    async def _urgent(self, *, at_once: bool) -> list[AlarmEvent]:
        """Of a backlog, or `at_once`, the next events of alarms that have one of priority 1
        waiting. Looked for from the cursor on: an earlier, less urgent event of the same alarm
        goes before it."""
        head, start = self.journal.head, self.cursor.gseq
        if (not at_once and head - start <= _EVENTS_MAX) or len(self._ahead) >= _AHEAD_MAX:
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
