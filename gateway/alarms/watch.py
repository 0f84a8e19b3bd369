"""Values while an alarm is active: which samples of a batch belong to one, and its peak.

    Batch ──parts──▶ (alarm key, its point's samples in order) ──▶ peak · end of a calibration

Owns: which alarms are active at which point, and when each peak last moved. A peak between two
events lives in memory only and is found again in the samples after a restart.

Limits: one entry for each active alarm. Not here: rows and events (book.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.alarms.policy import SECOND_NS
from gateway.alarms.rows import further, is_down
from gateway.model.alarm import Alarm
from gateway.model.batch import Batch
from gateway.model.point import PointTable
from gateway.model.quality import BAD, Quality

PEAK_INTERVAL_NS = 1 * SECOND_NS
"""A row's peak moves at most this often."""


class Part(NamedTuple):
    """Usable samples of one point, by time. Plain numbers: in a flood there is one sample for each
    of ten thousand points, and an array of one costs more than all that is done with it."""

    time_ns: Sequence[int]
    value: Sequence[float]
    quality: Sequence[int]


class Watch:
    """Told of every row written."""

    def __init__(self) -> None:
        self._active_at: dict[str, set[str]] = {}  # point id -> keys of its active alarms
        self._indices: tuple[int, NDArray[np.int32]] | None = None  # of those points, by version
        self._peak_moved_ns: dict[str, int] = {}

    def put(self, row: Alarm) -> None:
        """The row as it stands now."""
        point_id, key = row.point_id, row.alarm_key
        if not point_id:
            return
        keys = self._active_at.get(point_id)
        if row.active:
            if keys is None:
                self._active_at[point_id] = {key}
                self._indices = None
            else:
                keys.add(key)
        elif keys is not None and key in keys:
            keys.discard(key)
            if not keys:
                del self._active_at[point_id]
                self._indices = None
            self._peak_moved_ns.pop(key, None)

    def parts(self, batch: Batch, points: PointTable) -> Iterator[tuple[str, Part]]:
        """The usable samples of every point with an active alarm, by time, for each of those."""
        if not len(batch) or not self._active_at:
            return
        rows = np.flatnonzero(np.isin(batch.point_index, self._watched_in(points)))
        rows = rows[(batch.quality[rows] < BAD) & np.isfinite(batch.value[rows])]
        if not len(rows):
            return
        rows = rows[np.lexsort((batch.source_time_ns[rows], batch.point_index[rows]))]
        point = batch.point_index[rows]
        times, values = batch.source_time_ns[rows].tolist(), batch.value[rows].tolist()
        qualities, start = batch.quality[rows].tolist(), 0
        edges = np.flatnonzero(np.diff(point)) + 1
        for index, end in zip(
            point[np.append(0, edges)].tolist(), [*edges.tolist(), len(rows)], strict=True
        ):
            part = Part(times[start:end], values[start:end], qualities[start:end])
            for key in sorted(self._active_at[points[index].id]):
                yield key, part
            start = end

    def peak_of(self, row: Alarm, part: Part) -> float | None:
        """The row's peak after these samples, if it moved and is not to wait a little."""
        key, since_ns = row.alarm_key, row.active_time_ns or 0
        newest_ns = part.time_ns[-1]
        if newest_ns - self._peak_moved_ns.get(key, since_ns - PEAK_INTERVAL_NS) < PEAK_INTERVAL_NS:
            return None
        if row.value is None:
            return None
        values = [v for t, v in zip(part.time_ns, part.value, strict=True) if t >= since_ns]
        if not values:
            return None
        down = is_down(row)
        peak = further(row.peak, min(values) if down else max(values), down)
        if peak == row.peak:
            return None
        self._peak_moved_ns[key] = newest_ns
        return peak

    def _watched_in(self, points: PointTable) -> NDArray[np.int32]:
        """The indices of the points that have an active alarm."""
        if self._indices is None or self._indices[0] != points.version:
            indices = [points.index(p) for p in self._active_at if p in points]
            self._indices = (points.version, np.array(indices, np.int32))
        return self._indices[1]


def meant_from(row: Alarm, part: Part) -> int | None:
    """Position of the first sample since the activation that no calibration made."""
    since_ns = row.active_time_ns or 0
    sound = (
        at
        for at, (time_ns, quality) in enumerate(zip(part.time_ns, part.quality, strict=True))
        if quality != Quality.UNCERTAIN_CALIBRATING and time_ns > since_ns
    )
    return next(sound, None)
