"""`emit`: the only door. Every value that reaches a store, an alarm or a screen came through here.

Two things happen to a batch: rows whose device time is absurd are marked (never corrected: the
device's time is evidence), and the spool makes it durable. `emit` returns after that, and only then
may an adapter acknowledge.

    emit ──▶ spool ──durable──▶ every consumer, the judge among them
               └─refused, or stuck──▶ Unsaved ──▶ the judge alone

A disk that fails or is full must not silence an alarm: rows it did not take are judged from memory.
They have no offset, nothing acknowledges them, and a restart forgets them; when the device hands
them over again they are repeats, which change nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gateway.contract.adapter import Counters
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.quality import EARLIEST_BELIEVED_NS, UNCERTAIN, Quality

UNSAVED_ROWS_MAX = 200_000
"""Twenty seconds of 10 000 samples a second, 6 MB (engineering): the judge takes them within
milliseconds, so only a judge that waits for its journal lets them gather."""


class Appends(Protocol):
    """The one thing the intake needs of the spool."""

    async def append(self, batch: Batch) -> int: ...


def flag_clock(batch: Batch, tolerance_ns: int) -> Batch:
    """Mark good rows whose source time lies beyond receipt + tolerance, or before 2000.

    They are judged at the time of receipt (`Quality.UNCERTAIN_CLOCK`). Rows that are already
    uncertain or bad keep their own reason.
    """
    absurd = batch.source_time_ns > batch.received_time_ns + tolerance_ns
    absurd |= batch.source_time_ns < EARLIEST_BELIEVED_NS
    absurd &= batch.quality < UNCERTAIN
    if not absurd.any():
        return batch
    quality = batch.quality.copy()
    quality[absurd] = Quality.UNCERTAIN_CLOCK
    return Batch(
        batch.point_index, batch.value, quality, batch.source_time_ns, batch.received_time_ns
    )


class Unsaved:
    """Rows that are durable nowhere, on their way to the judge. Full: the oldest leave, counted."""

    def __init__(self, rows_max: int = UNSAVED_ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._batches: deque[Batch] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self.rows = 0

    @property
    def oldest_ns(self) -> int | None:
        """Receipt of the first row; None when there is none."""
        return int(self._batches[0].received_time_ns.min()) if self._batches else None

    def put(self, batch: Batch) -> int:
        """How many of the oldest rows had to leave for it."""
        self._batches.append(batch)
        self.rows += len(batch)
        left = 0
        while self.rows > self._rows_max:
            oldest = self._batches.popleft()
            left += len(oldest)
            self.rows -= len(oldest)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        return left

    def put_back(self, batch: Batch) -> None:
        """In front again: it was taken, and not judged."""
        self._batches.appendleft(batch)
        self.rows += len(batch)

    def take(self) -> Batch | None:
        """The oldest batch."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self.rows -= len(batch)
        return batch

    def arrival(self) -> asyncio.Future[None]:
        """Done when there are rows."""
        if self._arrival is None or (self._arrival.done() and not self._batches):
            self._arrival = asyncio.get_running_loop().create_future()
            if self._batches:
                self._arrival.set_result(None)
        return self._arrival


@dataclass(slots=True)
class _Pending:
    """A batch on its way to the disk."""

    batch: Batch
    received_ns: int
    is_judged: bool = False  # handed to the judge from memory already


@dataclass
class Intake:
    """Where adapters hand over. One for the whole gateway."""

    spool: Appends
    clock_tolerance_ns: int
    counters: Counters
    durable_count: int = field(default=0, init=False)
    derived_count: int = field(default=0, init=False)
    unsaved: Unsaved = field(default_factory=Unsaved)
    _pending: dict[int, _Pending] = field(default_factory=dict, init=False)
    _ticket: int = field(default=0, init=False)

    @property
    def oldest_pending_ns(self) -> int | None:
        """Receipt of the oldest batch that no one has judged: no timer may run past it."""
        waiting = (each.received_ns for each in self._pending.values() if not each.is_judged)
        oldest_ns, unsaved_ns = min(waiting, default=None), self.unsaved.oldest_ns
        if oldest_ns is None or unsaved_ns is None:
            return unsaved_ns if oldest_ns is None else oldest_ns
        return min(oldest_ns, unsaved_ns)

    @property
    def is_stuck(self) -> bool:
        """Whether the disk has hung for longer than anyone waits."""
        return any(each.is_judged for each in self._pending.values())

    async def emit(self, batch: Batch) -> None:
        """Durable on return. Raises SpoolFull or StorageFault: then nothing may be acknowledged,
        and the rows are judged all the same."""
        if not len(batch):
            return
        flagged = flag_clock(batch, self.clock_tolerance_ns)
        if flagged is not batch:
            odd = int(np.count_nonzero(flagged.quality != batch.quality))
            self.counters.count("accepted_with_odd_clock", odd)
        self._ticket += 1
        ticket = self._ticket
        pending = _Pending(flagged, int(flagged.received_time_ns.min()))
        self._pending[ticket] = pending
        try:
            await self.spool.append(flagged)
        except (SpoolFull, StorageFault) as error:
            if not pending.is_judged:
                self._judge_unsaved(flagged, type(error).__name__)
            raise
        finally:
            del self._pending[ticket]
        self.durable_count += len(batch)

    def judge_stuck(self, before_ns: int) -> None:
        """A disk that hangs answers nothing: what came in before `before_ns` and is still on its
        way is judged from memory too. Once it is durable the judge reads it again, as a repeat."""
        for pending in self._pending.values():
            if pending.received_ns >= before_ns:
                break
            if not pending.is_judged:
                pending.is_judged = True
                self._judge_unsaved(pending.batch, "stuck")

    def _judge_unsaved(self, batch: Batch, reason: str) -> None:
        self.counters.count("unsaved", len(batch), reason=reason)
        left = self.unsaved.put(batch)
        if left:
            self.counters.count("not_judged", left, reason="memory_full")

    async def emit_derived(self, batch: Batch) -> None:
        """What the rule core computed: judged already, to be stored and shown like the rest."""
        if len(batch):
            await self.spool.append(batch)
            self.derived_count += len(batch)
