"""The way out: what sinks offer. Two shapes: samples from the spool, alarm events from the journal.

A sink consumes with a cursor of its own that is committed only after every row was accepted or
rejected, so a sink may be slow, down or restarted without anything being lost and without anyone
else noticing. Retry and back-off are the runtime's: a sink raises Unavailable (try the same again)
or Refused (it never will; the runtime bisects until the poison rows stand alone).

**Writes are idempotent.** After a crash the last batch comes again, byte for byte, and perhaps some
before it. Rows of one point come in the order they were received, but after an outage in two lanes:
live rows first and the backlog, which is older, between them (decision 0018).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from gateway.contract.adapter import Counters, LinkStatus
from gateway.contract.history import History, Scan
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import Batch
from gateway.model.point import PointTable

NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class WriteResult:
    """What became of a batch. Rows not named were accepted.

    accepted: rows the store now holds that it did not hold before.
    duplicate: rows it already held (a repeat after a crash or by the device).
    rejected: row numbers refused for good, with one reason each; the runtime sets them aside.
    """

    accepted: int
    duplicate: int = 0
    rejected: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class SinkContext:
    """Everything a sink may use of the house."""

    name: str
    tenant: str
    site: str
    points: PointTable  # shared, grows while running; read only
    now_ns: Callable[[], int]
    counters: Counters
    status: LinkStatus
    state_dir: Path


class SampleSink(Protocol):
    """Takes batches from the spool."""

    @property
    def history(self) -> History | None:
        """Reading back from the same store, usable between open and close; None if it cannot."""
        ...

    async def open(self) -> None:
        """Connect or create. Raises Unavailable, Refused or ConfigError."""
        ...

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        """Write `batch`, which ends at spool offset `offset`.

        On return every row is on the far side's stable storage, as far as the far side can say.
        `ahead`: rows from before this batch are still to come (live rows go first after an outage).
        An empty batch says that nothing from before `offset` is still to come.
        """
        ...

    async def close(self) -> None: ...


class AlarmSink(Protocol):
    """Takes alarm events from the journal: those of one alarm in gseq order, all of them in gseq
    order unless the sink is behind; then alarms of priority 1 come first."""

    async def open(self) -> None: ...

    async def write(self, events: Sequence[AlarmEvent]) -> None:
        """Tell all of `events`. Raises Unavailable to get the same again."""
        ...

    async def snapshot(
        self, alarms: Sequence[Alarm], *, head_gseq: int = 0, unrecorded: Collection[str] = ()
    ) -> None:
        """The standing state of every alarm, most urgent first, after a connection is (re)made:
        retained topics.

        What events up to `head_gseq` did is in it, so their rows are older and are not to be shown
        again. `unrecorded`: keys of alarms that stand as well, but what they are now is not in the
        journal yet; it comes as an event.
        """
        ...

    async def heartbeat(self, status: Mapping[str, Any]) -> None:
        """Called every few seconds with epoch, head gseq, standing and unacknowledged counts."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class SinkKind:
    """What the entry point names. One of the two builders may be absent; `build_samples` may answer
    None where the configuration asks for no samples: then no cursor is kept for it."""

    name: str
    summary: str
    config: type[BaseModel]
    build_samples: Callable[[Any, SinkContext], SampleSink | None] | None = None
    build_alarms: Callable[[Any, SinkContext], AlarmSink] | None = None
    open_scan: Callable[[Any, SinkContext], Scan] | None = None
    """Open the store for reading only, by another process than the gateway. Raises Unavailable and
    Refused with what to do about it. None: it is read through `History` instead."""
    extra: str = ""
