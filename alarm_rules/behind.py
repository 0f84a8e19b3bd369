"""Points whose samples come in long after they were measured, and how long after.

    measured   10:00:00  beyond      10:00:02  back
    came in    10:07:30  beyond      10:07:31  back       behind by 7 min 30 s, then by 7 min 29 s

A device that sends its backlog message by message, or whose clock is slow, is **behind**. Up to now
nothing is known of it: up to its newest sample it is, and as much longer as has passed since that
came in. So an on-delay of 5 s has not ended at 10:07:30, and never does here. Judged by the clock
of the gateway every crossing of a moment in a backlog would raise an alarm, if the sample that
ended it is in the next message, and a delay would mean nothing to a device whose clock is slow.

**No on- or off-delay takes longer than it says, counted from the receipt of the sample that began
it** (of the newest one judged together with that), whatever comes in meanwhile: a run keeps how far
behind its instance was when it began, and is never behind by more.

`Behind` knows it of the points, `Lag` of the instances of one program.

Not here: how runs go by it (runs.py); samples older than what was judged of their point (lane.py,
`LateLane`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.backlog import Backlog
from gateway.contract.rule_kind import FOREVER, NEVER, Columns, Layout, Rows

BEHIND_MIN_NS = 1_000_000_000
"""A sample that came in so soon after it was measured is as good as one that came in at once
(engineering: a poll and a network; the shortest delay in the packs is 5 s)."""

_NOBODY = np.empty(0, np.int64)
_MANY_SHARE = 8
"""Where one of so many points changed, to look at all is no slower than to look them up."""
_CAME_AFTER_MAX_NS = 60_000_000_000
"""Rows in hand came in no longer after the time up to which all is known: a row on its way to the
disk may hold the clock for 5 s, a back-test stays a minute behind (engineering, both). A receipt
beyond it is of a clock that was ahead."""


class Behind:
    """by_point: how much later its newest sample came in than it was measured; 0 for one that is
    not behind."""

    def __init__(self) -> None:
        self.by_point = np.empty(0, np.int64)
        self._is_spoken = np.empty(0, np.bool_)  # heard since somebody was behind
        self.is_any = False

    def grow(self, size: int) -> None:
        extra = size - len(self.by_point)
        self.by_point = np.concatenate([self.by_point, np.zeros(extra, np.int64)])
        self._is_spoken = np.concatenate([self._is_spoken, np.zeros(extra, np.bool_)])

    def note(self, rows: Rows | Backlog, now_ns: int, lateness_ns: int) -> NDArray[np.int64]:
        """How long the newest row of each point took to come in, for the first time. What waits for
        a lateness anyway is behind by the rest. Returns the points of which something changed."""
        if not len(rows):
            return _NOBODY
        if isinstance(rows, Backlog):
            received_ns = rows.lasts(rows.batch.received_time_ns)
            return self.put(rows.points, rows.newest_ns + lateness_ns, received_ns, now_ns)
        if not self.is_any:  # mostly one look says that nobody is
            tick, came_ns = rows.tick, int(np.maximum.reduce(rows.received_ns))
            oldest_ns = int(np.minimum.reduce(rows.time_ns)) if tick is None else tick.oldest_ns
            if came_ns - oldest_ns <= BEHIND_MIN_NS:
                return _NOBODY
        point, time_ns, received_ns = rows.point, rows.time_ns, rows.received_ns
        is_new = time_ns > rows.heard_ns
        if rows.span is None:  # of one point the newest row is the last one
            order = np.lexsort((-received_ns, time_ns))
            point, time_ns = point.take(order), time_ns.take(order)
            received_ns, is_new = received_ns.take(order), is_new.take(order)
        if np.count_nonzero(is_new) < len(is_new):
            point, time_ns, received_ns = point[is_new], time_ns[is_new], received_ns[is_new]
        return self.put(point, time_ns + lateness_ns, received_ns, now_ns)

    def put(
        self,
        point: NDArray[np.int64],
        time_ns: NDArray[np.int64],
        received_ns: NDArray[np.int64],
        now_ns: int,
    ) -> NDArray[np.int64]:
        """Of one point that is named twice the last counts."""
        took_ns = np.minimum(received_ns, now_ns + _CAME_AFTER_MAX_NS)
        took_ns -= time_ns
        if not self.is_any and np.maximum.reduce(took_ns, initial=0) <= BEHIND_MIN_NS:
            return _NOBODY
        before, is_first = self.by_point.take(point), ~self._is_spoken.take(point)
        self._is_spoken[point] = True
        self.by_point[point] = np.where(took_ns > BEHIND_MIN_NS, took_ns, 0)
        changed = is_first | (self.by_point.take(point) != before)
        self.is_any = bool(np.count_nonzero(self.by_point))
        found = np.sort(point[changed])
        return found[seg.heads(found)] if len(found) else found

    def of(self, points: NDArray[np.int64], heard_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """By point; FOREVER for one that was never heard: it keeps nobody with the others."""
        behind_ns = self.by_point.take(points)
        is_heard = self._is_spoken.take(points) | (heard_ns.take(points) > NEVER)
        return np.where(is_heard | (behind_ns > 0), behind_ns, FOREVER)

    def loaded(self) -> None:
        self.is_any = bool(np.count_nonzero(self.by_point))

    def came_by(self, now_ns: int, heard_ns: NDArray[np.int64]) -> None:
        """Nothing came in after now: whoever seems to have was noted by a clock that was ahead."""
        at = self.by_point.nonzero()[0]
        self.by_point[at] = np.minimum(self.by_point[at], np.maximum(now_ns - heard_ns[at], 0))
        self.loaded()


class Lag:
    """How far the instances of one program are behind, and the open runs that wait for it.

    by_group: the least of its points that were heard, so that no alarm waits for one of several
    devices; None: nobody is behind. What waits stands in the column `behind_ns` of the state.
    is_waited_for: some open run has not taken effect and began behind.
    """

    def __init__(self, state: Columns, layout: Layout) -> None:
        self.by_group: NDArray[np.int64] | None = None
        self.is_waited_for = False
        self._state, self._layout = state, layout

    @property
    def is_any(self) -> bool:
        return self.by_group is not None

    def by_instance(self) -> NDArray[np.int64] | None:
        return None if self.by_group is None else self.by_group.take(self._layout.instance_group)

    def is_of_none(self, instance: NDArray[np.int64]) -> bool:
        """Whether none of these instances (-1: none) is behind."""
        if self.by_group is None:
            return True
        behind_ns = self.by_group.take(self._layout.instance_group.take(instance))
        return not np.count_nonzero(behind_ns[instance >= 0])

    def look(self) -> None:
        """Runs began or ended."""
        self.is_waited_for = bool(np.count_nonzero(self._state["behind_ns"]))

    def note(self, points: NDArray[np.int64], behind: Behind, heard_ns: NDArray[np.int64]) -> None:
        """Of these points something changed. Who has caught up is waited for no longer, whoever
        else is behind."""
        if len(points):
            self._put(*self._groups_of(points), behind, heard_ns)
        if self.by_group is None or not np.count_nonzero(self.by_group):
            self.keep_up()
        elif self.is_waited_for:
            caught = self.by_group.take(self._layout.instance_group) == 0
            self._state["behind_ns"][caught] = 0

    def _groups_of(
        self, points: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Groups with a slot of these points, and all of their slots: where each begins."""
        layout = self._layout
        if _MANY_SHARE * len(points) > layout.point_count:
            groups = np.flatnonzero(layout.group_start[1:] > layout.group_start[:-1])
            return groups, layout.group_slots, layout.group_start.take(groups)
        _, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
        groups = np.sort(layout.slot_group.take(slots))
        if len(groups) == 0:
            return groups, slots, groups
        groups = groups[seg.heads(groups)]
        owner, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        return groups, slots, np.flatnonzero(seg.heads(owner))

    def _put(
        self,
        groups: NDArray[np.int64],
        slots: NDArray[np.int64],
        head: NDArray[np.int64],
        behind: Behind,
        heard_ns: NDArray[np.int64],
    ) -> None:
        if len(groups) == 0:
            return
        points = self._layout.slot_point.take(slots)
        least_ns = np.minimum.reduceat(behind.of(points, heard_ns), head)
        least_ns[least_ns == FOREVER] = 0
        if self.by_group is None:
            self.by_group = np.zeros(len(self._layout.group_instance), np.int64)
        self.by_group[groups] = least_ns

    def keep_up(self) -> None:
        """Nobody is behind."""
        self.by_group = None
        if self.is_waited_for:
            self.is_waited_for = False
            self._state["behind_ns"][:] = 0

    def came_by(self, now_ns: int) -> None:
        """Nothing came in after now, nor what an open run began with."""
        behind_ns = self._state["behind_ns"]
        if np.count_nonzero(behind_ns):
            at = behind_ns.nonzero()
            took_ns = np.maximum(now_ns - self._state["since_ns"][at], 0)
            behind_ns[at] = np.minimum(behind_ns[at], took_ns)
