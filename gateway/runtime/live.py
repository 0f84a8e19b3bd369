"""The newest sample of every point, as columns: what the live page shows.

Newest by effective time: a backfilled sample of an hour ago never replaces the one of now, and a
sample whose device clock is absurd counts as of its receipt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch
from gateway.model.quality import Quality

_GROWTH = 1024


class LiveTable:
    """Arrays by point_index; a point never heard from has time 0."""

    def __init__(self) -> None:
        self.value: NDArray[np.float64] = np.empty(0, np.float64)
        self.quality: NDArray[np.uint8] = np.empty(0, np.uint8)
        self.time_ns: NDArray[np.int64] = np.empty(0, np.int64)
        self._newest: NDArray[np.int64] = np.empty(0, np.int64)  # scratch: the row of each point

    def __len__(self) -> int:
        return len(self.time_ns)

    def update(self, batch: Batch) -> None:
        """Take in the rows that are newer than what stands here; of equal times the last row."""
        if not len(batch):
            return
        self._grow(int(batch.point_index.max()) + 1)
        time_ns = effective_time_ns(batch)
        order = np.argsort(time_ns, kind="stable")
        point = batch.point_index[order]
        # Assigning through an index array keeps the last row of a repeated index. What stands there
        # of other points is of earlier batches, and is not looked at.
        self._newest[point] = order
        is_newest = self._newest[point] == order
        points, rows = point[is_newest], order[is_newest]
        fresh = time_ns[rows] >= self.time_ns[points]
        points, rows = points[fresh], rows[fresh]
        self.value[points] = batch.value[rows]
        self.quality[points] = batch.quality[rows]
        self.time_ns[points] = time_ns[rows]

    def forget_after(self, now_ns: int) -> None:
        """The clock was set back: what comes now is newer than what stands here."""
        np.minimum(self.time_ns, now_ns, out=self.time_ns)

    def _grow(self, size: int) -> None:
        missing = size - len(self.time_ns)
        if missing <= 0:
            return
        missing = max(missing, _GROWTH)
        self.value = np.concatenate([self.value, np.full(missing, np.nan)])
        self.quality = np.concatenate([self.quality, np.zeros(missing, np.uint8)])
        self.time_ns = np.concatenate([self.time_ns, np.zeros(missing, np.int64)])
        self._newest = np.zeros(len(self.time_ns), np.int64)


def effective_time_ns(batch: Batch) -> NDArray[np.int64]:
    """The time a row is judged at: the device's, or that of receipt where the clock is absurd."""
    return np.where(
        batch.quality == Quality.UNCERTAIN_CLOCK, batch.received_time_ns, batch.source_time_ns
    )
