"""What the core must be able to tell: the one interface between the runtime and the link.

The runtime implements `CoreProvider` over its own objects (points table, newest values, alarm book,
journal, history) in the words of the model; turning them into JSON is the link's business. All
methods are called on the core's event loop. The plain ones must return at once from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.api.wire import Command, CommandResult, HistoryBuckets, Status
from gateway.ledger.account import Account, Request
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.point import PointTable


@dataclass(frozen=True, slots=True)
class LiveValues:
    """The newest sample of every point. Row i belongs to the point with index i."""

    time_ns: int  # when this picture was taken
    points_version: int  # PointTable.version
    value: NDArray[np.float64]  # NaN = no value
    quality: NDArray[np.uint8]
    source_time_ns: NDArray[np.int64]  # 0 = no sample yet


@dataclass(frozen=True, slots=True)
class AlarmSnapshot:
    """The alarm book as it stands; rows in state NORM may be among `alarms`."""

    epoch: int
    gseq: int  # of the newest event contained
    alarms: Sequence[Alarm]


class CoreProvider(Protocol):
    """Everything the web process can ask."""

    def status(self) -> Status: ...

    def points(self) -> PointTable: ...

    def values(self) -> LiveValues: ...

    def alarms(self) -> AlarmSnapshot: ...

    async def events(self, after_gseq: int | None, limit: int) -> Sequence[AlarmEvent]:
        """At most `limit` journalled events, oldest first: those right behind `after_gseq`, or the
        newest ones when it is None."""
        ...

    async def history(
        self, point_id: str, from_ns: int, to_ns: int, *, count: int
    ) -> HistoryBuckets:
        """At most `count` buckets of the half-open span. Raises KeyError for an unknown point,
        Unavailable when the store cannot answer now."""
        ...

    async def completeness(self, request: Request) -> Account:
        """What was expected, received, judged, stored and forwarded. Raises Unavailable."""
        ...

    async def command(self, command: Command) -> CommandResult:
        """Carry out or refuse. On `done` the event is in the journal."""
        ...

    def on_alarms_changed(self, wake: Callable[[], None]) -> None:
        """Call `wake` after every change of the alarm book. It only sets a flag."""
        ...
