"""Where a point's history has holes: what a late sample may fill.

    judged   10:00 10:01 ·················· 10:20 10:21        hole (10:00, 10:20)
    late                 10:03 … 10:19                         new: judged, as history
    again    10:00 10:01                                       a repeat: counted, not judged

A sample that comes too late is news only where nothing was judged before: a terminal that sends its
last hundred positions again after every reconnection must not make history of what was live. A hole
is a silence longer than three of the point's intervals, a minute at least; before the first sample
everything is one. The last few holes of each point are remembered.

Not here: what becomes of the samples that fill a hole (lane.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import NEVER, Rows
from gateway.model.batch import Batch
from gateway.model.point import PointTable

KEPT = 4
"""Holes remembered for each point; the one that ended first goes."""
SHORTEST_NS = 60_000_000_000
"""One minute (engineering): twice the 30 s inspection cycle of the mine systems spoken here."""
INTERVALS = 3


class Gaps:
    """Holes by point: columns `begin_ns`, `end_ns` of KEPT each, open at both ends."""

    def __init__(self) -> None:
        self.begin_ns = np.empty((0, KEPT), np.int64)
        self.end_ns = np.empty((0, KEPT), np.int64)
        self._silence_ns = np.empty(0, np.int64)  # longer than this is a hole

    def grow(self, points: PointTable) -> None:
        extra = np.full((len(points) - len(self.end_ns), KEPT), NEVER)
        self.begin_ns = np.concatenate([self.begin_ns, extra])
        self.end_ns = np.concatenate([self.end_ns, extra])
        every = np.array([point.interval_s or 0.0 for point in points])
        self._silence_ns = np.maximum(SHORTEST_NS, (INTERVALS * 1e9 * every).astype(np.int64))

    def hole(self, batch: Batch, time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each row the end of the hole it lies in; NEVER for none."""
        point, time_ns = batch.point_index, time_ns[:, None]
        inside = (self.begin_ns[point] < time_ns) & (time_ns < self.end_ns[point])
        found: NDArray[np.int64] = np.where(inside, self.end_ns[point], NEVER).max(
            axis=1, initial=NEVER
        )
        return found

    def ends_one(
        self, point: NDArray[np.int64], silence_ns: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether such a silence of each point is a hole."""
        found: NDArray[np.bool_] = silence_ns > self._silence_ns[point]
        return found

    def note(self, rows: Rows) -> None:
        """Remember the holes these rows end; `rows.since_heard_ns` is that before them."""
        if rows.tick is not None and rows.tick.unheard_ns <= SHORTEST_NS:
            return
        # Few rows end a silence at all: what every row would cost is paid for these alone.
        after = np.flatnonzero(rows.since_heard_ns > SHORTEST_NS)
        point = rows.point[after]
        point = point[rows.time_ns[after] - rows.heard_ns[after] > self._silence_ns[point]]
        if not len(point):
            return
        is_mine = np.zeros(len(self._silence_ns), np.bool_)
        is_mine[point] = True
        mine = np.flatnonzero(is_mine[rows.point])
        order = mine[seg.group_sort(rows.point[mine], rows.time_ns[mine], len(is_mine))]
        point, end_ns = rows.point[order], rows.time_ns[order]
        first = seg.heads(point)
        begin_ns = np.append(NEVER, end_ns[:-1])
        heard_ns = rows.heard_ns[order]
        begin_ns[first] = heard_ns[first]
        is_hole = (end_ns - begin_ns) > self._silence_ns[point]
        point, begin_ns, end_ns = point[is_hole], begin_ns[is_hole], end_ns[is_hole]
        newest = _last_of_each(point, KEPT)
        point, begin_ns, end_ns = point[newest], begin_ns[newest], end_ns[newest]
        while len(point):  # one hole of each point a round, oldest first: KEPT rounds at most
            one = seg.heads(point)
            rows_, place = point[one], self.end_ns[point[one]].argmin(axis=1)
            self.begin_ns[rows_, place] = begin_ns[one]
            self.end_ns[rows_, place] = end_ns[one]
            point, begin_ns, end_ns = point[~one], begin_ns[~one], end_ns[~one]


def _last_of_each(key: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """True for the last `count` rows of each run of equal keys."""
    position = np.arange(len(key))
    ends = np.append(np.flatnonzero(seg.heads(key))[1:], len(key))
    last = ends[np.cumsum(seg.heads(key)) - 1] if len(key) else position
    kept: NDArray[np.bool_] = last - position <= count
    return kept
