"""How long alarms take, from the sample that caused them to the broker's acknowledgement.

The clock starts when the sample was received or, for an alarm that a delay or a silence made, when
the alarm became due: waiting out a legal delay is not latency. It stops when the broker has
acknowledged the event. Kept: the last `size` figures.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import numpy as np

_PENDING_MAX = (
    100_000  # events told to nobody yet; beyond this the oldest start times are forgotten
)


class LatencyMeter:
    """p50 and p99 over the last events."""

    def __init__(self, size: int = 10_000) -> None:
        self._started_ns: OrderedDict[int, int] = OrderedDict()
        self._taken_ns: deque[int] = deque(maxlen=size)

    def start(self, gseq: int, since_ns: int) -> None:
        self._started_ns[gseq] = since_ns
        if len(self._started_ns) > _PENDING_MAX:
            self._started_ns.popitem(last=False)

    def stop(self, gseq: int, now_ns: int) -> None:
        """Events from before a restart have no start and are not counted."""
        since_ns = self._started_ns.pop(gseq, None)
        if since_ns is not None:
            self._taken_ns.append(max(0, now_ns - since_ns))

    @property
    def count(self) -> int:
        return len(self._taken_ns)

    def percentile_ms(self, percent: float) -> float | None:
        """In milliseconds; None before the first event."""
        if not self._taken_ns:
            return None
        return round(float(np.percentile(np.array(self._taken_ns), percent)) / 1e6, 3)
