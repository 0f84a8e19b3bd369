"""Rows of the spool, in order, into cells. Pure: no file, no clock, whatever way rows are cut.

A row belongs to the minute of its device's time, or of its receipt where that time is absurd (the
rule core places it likewise). Against what was heard of its point before, in order of offset:

    repeat   its time is one of the last `RECENT` different times heard of the point
    late     not a repeat, and older than the newest of them
    delayed  received more than `delayed_after_s` after its time, repeat or not

A row of an absurd clock is neither repeat nor late: its own time proves nothing. What is sent again
from further back than `RECENT` samples counts as late and delayed; it fills no gap twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.cells import Array, Cells, Column
from gateway.model.batch import Batch
from gateway.model.quality import BAD, EARLIEST_BELIEVED_NS, Quality

MINUTE_NS = 60_000_000_000
RECENT = 8
"""Engineering: a device repeats what it had in flight, a few messages; each costs 8 bytes a point
in memory and in every flush."""
NEVER_NS = -(2**62)


@dataclass
class Counter:
    """Counts on top of what was heard before; `open_minutes` is what is not in the store yet."""

    clock_tolerance_ns: int
    delayed_after_ns: int
    oldest_minute: int = -(2**40)  # rows older than the books reach are only counted
    open_minutes: dict[int, Cells] = field(default_factory=dict)
    too_old_count: int = 0
    newest_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    recent_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, RECENT), np.int64))
    turn: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    @property
    def size_bytes(self) -> int:
        return sum(cells.size_bytes for cells in self.open_minutes.values())

    def grow(self, size: int) -> None:
        more = size - len(self.newest_ns)
        if more > 0:
            self.newest_ns = np.concatenate([self.newest_ns, np.full(more, NEVER_NS)])
            blank = np.full((more, RECENT), NEVER_NS)
            self.recent_ns = np.concatenate([self.recent_ns, blank])
            self.turn = np.concatenate([self.turn, np.zeros(more, np.uint8)])

    def count(self, batch: Batch, offset: int) -> None:
        """`batch` begins at `offset`. Every row is counted once, whoever calls how often."""
        if not len(batch):
            return
        self.grow(int(batch.point_index.max()) + 1)
        absurd = is_absurd(batch, self.clock_tolerance_ns)
        time_ns = np.where(absurd, batch.received_time_ns, batch.source_time_ns)
        column, late = self._columns(batch, time_ns, absurd)
        minute = time_ns // MINUTE_NS
        offsets = np.arange(offset, offset + len(batch))
        placed = minute >= self.oldest_minute
        self.too_old_count += len(batch) - int(np.count_nonzero(placed))
        order = np.argsort(minute, kind="stable")
        order = order[placed[order]]
        if not len(order):
            return
        edges = np.flatnonzero(np.diff(minute[order])) + 1
        for rows in np.split(order, edges):
            self._place(int(minute[rows[0]]), batch.point_index[rows], column[rows], offsets[rows])
            cells = self.open_minutes[int(minute[rows[0]])]
            for name, mask in ((Column.LATE, late), (Column.ODD_CLOCK, absurd)):
                chosen = rows[mask[rows]]
                if len(chosen):
                    np.add.at(cells.column(name), batch.point_index[chosen], 1)

    def _columns(
        self, batch: Batch, time_ns: NDArray[np.int64], absurd: Array
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The column of each row, and whether it is late."""
        repeat, late = self._remember(batch.point_index, time_ns, ~absurd)
        column = np.where(batch.quality >= BAD, np.uint8(Column.BAD), np.uint8(Column.GOOD))
        column[repeat] = Column.REPEAT
        delayed = batch.received_time_ns - time_ns > self.delayed_after_ns
        column[delayed] += np.uint8(Column.GOOD_DELAYED)
        return column.astype(np.uint8), late

    def _place(self, minute: int, points: Array, column: Array, offsets: Array) -> None:
        cells = self.open_minutes.get(minute)
        if cells is None:
            cells = self.open_minutes[minute] = Cells(len(self.newest_ns))
        cells.grow(len(self.newest_ns))
        for name in np.unique(column).tolist():
            np.add.at(cells.column(Column(name)), points[column == name], 1)
        for span, mask in (
            (cells.in_time, column < Column.GOOD_DELAYED),
            (cells.delayed, column >= Column.GOOD_DELAYED),
        ):
            chosen = offsets[mask]
            if len(chosen):
                span.widen(int(chosen[0]), int(chosen[-1]))

    # ------------------------------------------------------------------ what was heard before

    def _remember(
        self, points: Array, time_ns: Array, timed: Array
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows are repeats, which late. Rows that are not `timed` are neither."""
        repeat = np.zeros(len(points), np.bool_)
        late = np.zeros(len(points), np.bool_)
        rows = np.argsort(points, kind="stable")
        rows = rows[timed[rows]]
        if not len(rows):
            return repeat, late
        point, time = points[rows], time_ns[rows]
        begins = np.concatenate([[True], point[1:] != point[:-1]])
        before = np.where(begins, self.newest_ns[point], np.roll(time, 1))
        odd = np.zeros(len(self.newest_ns), np.bool_)
        odd[point[time <= before]] = True
        in_order = ~odd[point]
        self._push(point[in_order], time[in_order])
        if not in_order.all():
            self._one_by_one(rows[~in_order], points, time_ns, repeat, late)
        return repeat, late

    def _push(self, point: Array, time: Array) -> None:
        """Rows that only go forward, sorted by point: the usual case, a few strokes for all."""
        if not len(point):
            return
        ends = np.concatenate([np.flatnonzero(point[1:] != point[:-1]), [len(point) - 1]])
        self.newest_ns[point[ends]] = time[ends]
        starts = np.concatenate([[0], ends[:-1] + 1])
        for back in range(min(RECENT, int((ends - starts).max()) + 1) - 1, -1, -1):
            at = ends - back
            at = at[at >= starts]
            who = point[at]
            self.recent_ns[who, self.turn[who]] = time[at]
            self.turn[who] = (self.turn[who] + 1) % RECENT

    def _one_by_one(
        self, rows: Array, points: Array, time_ns: Array, repeat: Array, late: Array
    ) -> None:
        """The rows of points that did not only go forward; about two microseconds a row."""
        for row, point, time in zip(
            rows.tolist(), points[rows].tolist(), time_ns[rows].tolist(), strict=True
        ):
            recent, newest = self.recent_ns[point], self.newest_ns[point]
            if time <= newest and (recent == time).any():
                repeat[row] = True
                continue
            late[row] = time < newest
            recent[self.turn[point]] = time
            self.turn[point] = (self.turn[point] + 1) % RECENT
            self.newest_ns[point] = max(newest, time)


def is_absurd(batch: Batch, clock_tolerance_ns: int) -> NDArray[np.bool_]:
    """Rows that are placed by their receipt."""
    source = batch.source_time_ns
    absurd = source > batch.received_time_ns + clock_tolerance_ns
    absurd |= source < EARLIEST_BELIEVED_NS
    absurd |= batch.quality == Quality.UNCERTAIN_CLOCK
    return absurd
