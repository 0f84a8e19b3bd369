"""Alarm events on their way into the journal: in order, none dropped, none told before it is there.

    judge ─record─▶ waiting ─append─▶ journal ─▶ tell
                       ▲         └─ StorageFault ─┐
                       └───────── again, in order ┘

While the journal refuses, judging goes on and events wait here. Nothing is told as an alarm event,
since whoever hears one may rely on its record; but it is loud at once: the log has every event, the
heartbeat and the status carry how many wait, why, and which alarms of priority 1 are among them.

In a flood events are written `beside` the judge, which lives through the next ones meanwhile: what
has gathered during one transaction is the next. Whatever else is asked of the recorder waits for
that first.

Full: the oldest stay, and judging waits until there is room. An alarm that was judged is never
dropped, and one left out of the middle would break the order of all that follow.

Not here: what a checkpoint may say meanwhile (judge.py: nothing), the disk (alarms/database.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from gateway.alarms.journal import Journal
from gateway.contract.adapter import Counters, LinkStatus
from gateway.model.alarm import AlarmEvent
from gateway.model.errors import StorageFault
from gateway.model.rule import Priority
from gateway.runtime.threads import to_the_end

log = logging.getLogger(__name__)

WAITING_MAX = 50_000
"""Five floods of 10,000 (engineering), some 100 MB: beyond it judging waits."""
APPEND_MAX = 10_000
"""In one transaction after a fault."""
RETRY_S = 1.0
NAMED_MAX = 20
"""Alarms of priority 1 that are named where somebody looks; more are in the log."""


@dataclass
class Recorder:
    """The only writer of alarm events. One caller at a time, under the judge's lock."""

    journal: Journal
    counters: Counters
    status: Callable[[], LinkStatus]
    tell: Callable[[Sequence[tuple[AlarmEvent, int]]], None]
    cry: Callable[[Sequence[AlarmEvent]], None]
    monotonic_s: Callable[[], float]
    fault: str = field(default="", init=False)  # why the journal refuses; "" while it does not
    _waiting: deque[tuple[AlarmEvent, int]] = field(default_factory=deque, init=False)
    _retry_at_s: float = field(default=0.0, init=False)
    _writing: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def waiting(self) -> list[AlarmEvent]:
        """Judged, and not on record yet."""
        return [event for event, _ in self._waiting]

    @property
    def unrecorded_count(self) -> int:
        """Events that a fault keeps from being recorded."""
        return len(self._waiting) if self.fault else 0

    def unrecorded_critical(self) -> list[str]:
        """Keys of the alarms of priority 1 among them, the first few."""
        if not self.fault:
            return []
        keys = dict.fromkeys(
            event.alarm.alarm_key
            for event, _ in self._waiting
            if event.alarm.priority is Priority.CRITICAL
        )
        return list(islice(keys, NAMED_MAX))

    @property
    def is_writing(self) -> bool:
        """Whether something is being written beside."""
        return self._writing is not None and not self._writing.done()

    async def settle(self) -> None:
        """Until what is being written beside is on record, or waits. Raises what that raised."""
        writing = self._writing
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        finally:
            if writing.done():
                self._writing = None

    async def record(
        self, events: Sequence[AlarmEvent], since_ns: int, *, beside: bool = False
    ) -> None:
        """Into the journal, or into the queue before it. `since_ns`: receipt of what made them.
        `beside`: it goes on when this returns, unless the journal refuses or too many wait."""
        was_faulty = bool(self.fault)
        self._waiting.extend((event, since_ns) for event in events)
        if beside and not was_faulty and len(self._waiting) <= WAITING_MAX:
            if not self.is_writing:
                await self.settle()  # raises what it raised
                self._writing = asyncio.create_task(self._write())
            return
        await self.settle()
        await self._flush(only_if_due=True)
        if was_faulty and self.fault:
            self.cry(events)  # else those of this call were cried out when the fault began
        await self._make_room()

    async def _write(self) -> None:
        await self._flush(only_if_due=True)
        await self._make_room()

    async def _make_room(self) -> None:
        while len(self._waiting) > WAITING_MAX:
            await asyncio.sleep(RETRY_S)
            await self._flush()

    async def flush(self, *, only_if_due: bool = False) -> bool:
        """Record what waits. False if the journal still refuses."""
        await self.settle()
        return await self._flush(only_if_due=only_if_due)

    async def _flush(self, *, only_if_due: bool = False) -> bool:
        if only_if_due and self.fault and self.monotonic_s() < self._retry_at_s:
            return False
        while self._waiting:
            part = list(islice(self._waiting, None if not self.fault else APPEND_MAX))
            try:
                await to_the_end(self.journal.append, [event for event, _ in part])
            except StorageFault as error:
                self._refused(str(error))
                return False
            for _ in part:
                self._waiting.popleft()
            self.tell(part)
        if self.fault:
            log.warning("the alarm journal is written again, every event that waited is recorded")
            self.fault = ""
            self.status()("judging")
        return True

    async def drain(self) -> None:
        """Until everything is recorded."""
        while not await self.flush():  # noqa: ASYNC110  a disk tells nobody when it is back
            await asyncio.sleep(RETRY_S)

    def _refused(self, why: str) -> None:
        self.counters.count("journal_fault")
        self._retry_at_s = self.monotonic_s() + RETRY_S
        if not self.fault:
            log.critical("the alarm journal cannot be written: %s", why)
            self.cry(self.waiting)
        self.fault = why
        detail = f"the alarm journal cannot be written, {len(self._waiting)} events wait: {why}"
        named = ", ".join(self.unrecorded_critical())
        self.status()("faulty", f"{detail}; priority 1: {named}" if named else detail)
