"""`emit`: the only door. Every value that reaches a store, an alarm or a screen came through here.

Two things happen to a batch: rows whose device time is absurd are marked (never corrected: the
device's time is evidence), and the spool makes it durable. `emit` returns after that, and only then
may an adapter acknowledge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gateway.contract.adapter import Counters
from gateway.model.batch import Batch
from gateway.model.quality import EARLIEST_BELIEVED_NS, UNCERTAIN, Quality


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


@dataclass
class Intake:
    """Where adapters hand over. One for the whole gateway."""

    spool: Appends
    clock_tolerance_ns: int
    counters: Counters
    durable_count: int = field(default=0, init=False)
    derived_count: int = field(default=0, init=False)
    _pending: dict[object, int] = field(default_factory=dict, init=False)

    @property
    def oldest_pending_ns(self) -> int | None:
        """Receipt of the oldest batch on its way to the disk: no timer may run past it."""
        return min(self._pending.values(), default=None)

    async def emit(self, batch: Batch) -> None:
        """Durable on return. Raises SpoolFull or StorageFault: then nothing may be acknowledged."""
        if not len(batch):
            return
        flagged = flag_clock(batch, self.clock_tolerance_ns)
        if flagged is not batch:
            odd = int(np.count_nonzero(flagged.quality != batch.quality))
            self.counters.count("accepted_with_odd_clock", odd)
        ticket = object()
        self._pending[ticket] = int(flagged.received_time_ns.min())
        try:
            await self.spool.append(flagged)
        finally:
            del self._pending[ticket]
        self.durable_count += len(batch)

    async def emit_derived(self, batch: Batch) -> None:
        """What the rule core computed: judged already, to be stored and shown like the rest."""
        if len(batch):
            await self.spool.append(batch)
            self.derived_count += len(batch)
