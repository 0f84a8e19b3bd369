"""Points whose samples come in long after they were measured, and how long after.

    measured   10:00:00  beyond      10:00:02  back
    came in    10:07:30  beyond      10:07:31  back       behind by 7 min 30 s, then by 7 min 29 s

A device that sends its backlog message by message, or whose clock is slow, is **behind**. Up to now
nothing is known of it: up to its newest sample it is, and as much longer as has passed since that
came in. So an on-delay of 5 s has not ended at 10:07:30, and never does here. Judged by the clock
of the gateway every crossing of a moment in a backlog would raise an alarm, if the sample that
ended it is in the next message, and a delay would mean nothing to a device whose clock is slow.

No alarm waits for longer than its own delay, counted from receipt: samples that came in meanwhile
say by their times that it is over.

Not here: what a program does with it (program.py, `fall_behind`); samples older than what was
judged of their point (lane.py, `LateLane`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alarm_rules.backlog import Backlog
from gateway.contract.rule_kind import FOREVER, NEVER, Rows

BEHIND_MIN_NS = 1_000_000_000
"""A sample that came in so soon after it was measured is as good as one that came in at once
(engineering: a poll and a network; the shortest delays of the statutes are seconds)."""


class Behind:
    """by_point: how much later its newest sample came in than it was measured; 0 for one that is
    not behind."""

    def __init__(self) -> None:
        self.by_point = np.empty(0, np.int64)
        self._is_any = False

    def grow(self, size: int) -> None:
        extra = np.zeros(size - len(self.by_point), np.int64)
        self.by_point = np.concatenate([self.by_point, extra])

    def note(self, rows: Rows | Backlog, lateness_ns: int) -> bool:
        """How long the newest row of each point took to come in, for the first time. What waits for
        a lateness anyway is behind by the rest. Returns whether anything may have changed."""
        if not len(rows):
            return False
        if isinstance(rows, Backlog):
            took_ns = rows.lasts(rows.batch.received_time_ns) - rows.newest_ns
            return self.put(rows.points, took_ns - lateness_ns)
        if not self._is_any:  # mostly one look says that nobody is
            tick, came_ns = rows.tick, int(np.maximum.reduce(rows.received_ns))
            oldest_ns = int(np.minimum.reduce(rows.time_ns)) if tick is None else tick.oldest_ns
            if came_ns - oldest_ns <= BEHIND_MIN_NS:
                return False
        point, took_ns = rows.point, rows.received_ns - rows.time_ns
        is_new = rows.time_ns > rows.heard_ns
        if rows.span is None:  # of one point the newest row is the last one
            order = np.lexsort((-took_ns, rows.time_ns))
            point, took_ns, is_new = point.take(order), took_ns.take(order), is_new.take(order)
        if np.count_nonzero(is_new) < len(is_new):
            point, took_ns = point[is_new], took_ns[is_new]
        return self.put(point, took_ns - lateness_ns)

    def put(self, point: NDArray[np.int64], took_ns: NDArray[np.int64]) -> bool:
        """Of one point that is named twice the last counts."""
        if not self._is_any and np.maximum.reduce(took_ns, initial=0) <= BEHIND_MIN_NS:
            return False
        self.by_point[point] = np.where(took_ns > BEHIND_MIN_NS, took_ns, 0)
        return True

    def of_heard(self, heard_ns: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """By point, FOREVER for one that was never heard; None: none is behind."""
        self._is_any = bool(np.count_nonzero(self.by_point))
        if not self._is_any:
            return None
        is_unheard = (heard_ns == NEVER) & (self.by_point == 0)
        return np.where(is_unheard, FOREVER, self.by_point)
