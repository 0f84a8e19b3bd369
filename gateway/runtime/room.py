"""Makes room in the spool when its budget, or the disk under it, is nearly spent.

    thin         of what the sinks are behind, keep the shape (gateway/spool/thinning.py), then drop
    drop_oldest  the sink that is furthest behind gives up its oldest rows
    refuse       nobody gives up anything: what comes in is refused, and judged from memory

The only losers are sample sinks, by what they have not taken, and every row is counted by sink and
reason. The judge and the ledger lose nothing: only what they have read is touched. Alarms are not
in the spool.

Owns: the policy. Not here: what is refused meanwhile (intake.py), how a sink drops (deliver.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import numpy as np

from gateway.contract.adapter import Counters
from gateway.model.errors import StorageFault
from gateway.model.point import Point, PointKind, PointTable
from gateway.runtime.deliver import SampleDelivery
from gateway.runtime.threads import to_the_end
from gateway.spool import PointTraits, Spool, Thinned, Window

BUDGET_SHARE_MAX = 0.9  # of the spool's bytes; what is left takes the writes until room is made
DROPPED_SHARE = 5  # the oldest fifth of what a sink is behind (engineering)
_EVERY_CHANGE = frozenset((PointKind.DISCRETE, PointKind.BITS, PointKind.AREA))
_POSITION = frozenset(
    (PointKind.LON, PointKind.LAT, PointKind.ALT, PointKind.SPEED, PointKind.HEADING)
)

log = logging.getLogger(__name__)


GaveUp = Callable[[str, int, int], Awaitable[None]]
"""A lane will not get rows [first, end): for the ledger."""


class WhenFull(StrEnum):
    """The declared policy."""

    THIN = "thin"
    DROP_OLDEST = "drop_oldest"
    REFUSE = "refuse"


@dataclass
class RoomMaker:
    """Looks at the spool now and then."""

    spool: Spool
    when_full: WhenFull
    deliveries: Mapping[str, SampleDelivery]
    read_by: Callable[[], int]  # every row before it was judged and counted: it may be touched
    let_go: Callable[[], Awaitable[None]]  # who judges and counts commits what is done, at once
    points: PointTable
    counters: Counters
    gave_up: GaveUp | None = None
    _thinning: asyncio.Task[None] | None = field(default=None, init=False)

    async def make_room(self) -> None:
        """One step. Thinning goes on beside: a segment takes a second or two to write."""
        if not self.spool.is_tight(BUDGET_SHARE_MAX) or not self.deliveries:
            return
        if self._thinning is not None and not self._thinning.done():
            return
        try:
            await self.let_go()
        except StorageFault as error:  # the disk takes no cursor: giving rows up would free nothing
            self.counters.count("cannot_let_go")
            log.warning("no room is made, the spool cannot be written: %s", error)
            return
        if self.when_full is WhenFull.REFUSE:
            return
        self._thinning = None
        if self.when_full is WhenFull.DROP_OLDEST:
            self._drop_oldest()
        else:
            self._thinning = asyncio.create_task(self._thin(), name="thinning")

    async def stop(self) -> None:
        """A segment that is being written is finished: its thread cannot be told to stop."""
        if self._thinning is not None:
            await asyncio.gather(self._thinning, return_exceptions=True)

    async def _thin(self) -> None:
        """Until there is room, or nothing is left to thin: then the oldest go. Not while much has
        yet to be judged: it can be thinned in a moment, and what is refused till then is sent
        again."""
        while self.spool.is_tight(BUDGET_SHARE_MAX):
            call = partial(self.spool.thin, self.read_by(), self._traits(), self._in_hand)
            try:
                thinned = await to_the_end(call)
            except StorageFault as error:
                log.error("the spool cannot be thinned: %s", error)  # noqa: TRY400  one line
                self._drop_oldest()
                return
            if thinned is None:
                if not self._is_much_unread():
                    self._drop_oldest()
                return
            if thinned.freed_bytes:
                await self._count(thinned)

    def _is_much_unread(self) -> bool:
        most = max(delivery.behind for delivery in self.deliveries.values())
        return self.spool.head - self.read_by() > most // DROPPED_SHARE

    async def _count(self, thinned: Thinned) -> None:
        """By sink: what each will get fewer. The ledger is told a run of as many rows, the oldest
        of their span: exact by number, and by minute as near as the span is short."""
        self.counters.count("thinned_segments")
        for name, delivery in self.deliveries.items():
            fewer = 0
            for window in thinned.windows:
                lane, committed = _lane_of(delivery, window)
                rows = window.fewer_for(committed)
                fewer += rows
                if rows and self.gave_up is not None:
                    first = max(committed, window.end - window.before)
                    await self.gave_up(lane, first, first + rows)
            if fewer:
                delivery.count_thinned(fewer, thinned.windows)
                log.error("%s: %d samples thinned away, the spool is full", name, fewer)

    def _in_hand(self) -> list[tuple[int, int]]:
        """What sinks are at, and the mark between two lanes: a row must not move across it."""
        ranges = []
        for delivery in self.deliveries.values():
            lanes = delivery.lanes
            ranges += [(each.committed, each.position) for each in (lanes.main, lanes.live) if each]
            mark, _ = lanes.done_ahead
            ranges.append((mark, mark))
        return ranges

    def _drop_oldest(self) -> None:
        laggard = max(self.deliveries.values(), key=lambda each: each.behind)
        if laggard.behind:
            oldest = max(1, laggard.behind // DROPPED_SHARE)
            laggard.forget(laggard.cursor.committed + oldest)

    def _traits(self) -> PointTraits:
        points = list(self.points)
        devices: dict[str, int] = {}
        return PointTraits(
            every_change=np.array([point.kind in _EVERY_CHANGE for point in points], dtype=bool),
            together=np.array([_family(point, devices) for point in points], dtype=np.int64),
        )


def _lane_of(delivery: SampleDelivery, window: Window) -> tuple[str, int]:
    """The cursor by which the sink gets the rows of the window, and how far that is."""
    lanes = delivery.lanes
    mark, _ = lanes.done_ahead
    lane = lanes.live if lanes.live is not None and window.first >= mark else lanes.main
    return lane.name, lane.committed


def _family(point: Point, devices: dict[str, int]) -> int:
    """A number for the device whose position the point is a part of."""
    if point.kind not in _POSITION or not point.device:
        return -1
    return devices.setdefault(point.device, len(devices))
