"""How far the clock counts: timers fire up to the moment up to which all that came in is known.

    now ──▶ not beyond the oldest row still on its way to the disk (for a while: it may hang)
        ──▶ with a backlog, or while settling: not beyond the newest row that was in hand

A silence that is ours is not a silence of the devices: with a backlog time is when the last row in
hand came in, and for `settle_s` after the start, and after the process was stopped for a while, it
moves only with the data.

Reads no clock: both times are handed in. Not here: what must be forgotten when the clock was set
back (judge.py).
"""

from __future__ import annotations

from gateway.model.batch import Batch

UNDURABLE_WAIT_MAX_NS = 5_000_000_000  # a disk that hangs longer no longer holds the timers
PAUSE_S = 2.0  # between two looks, beside the tick: longer means that the process was stopped
STEP_BACK_NS = 1_000_000_000  # a clock that went back further is not drift


class KnownTime:
    """Of one judge. `now_ns` is the system's clock, `now_s` a monotonic one."""

    def __init__(self, *, settle_s: float, tick_interval_s: float) -> None:
        self._settle_s, self._pause_s = settle_s, PAUSE_S + tick_interval_s
        self._settle_until_s = 0.0
        self._last_s: float | None = None
        self._last_ns = 0
        self._known_ns = 0

    def settle(self, now_s: float) -> None:
        """Devices need a while to be heard again."""
        self._settle_until_s = now_s + self._settle_s

    def look(self, now_ns: int, now_s: float) -> tuple[bool, bool]:
        """Since the last look: whether the process was stopped (then it settles again), whether the
        clock was set back."""
        last_s, last_ns = self._last_s, self._last_ns
        self._last_s, self._last_ns = now_s, now_ns
        if last_s is None:
            return False, False
        was_stopped = now_s - last_s > self._pause_s
        if was_stopped:
            self.settle(now_s)
        return was_stopped, now_ns < last_ns - STEP_BACK_NS

    def take(
        self, batch: Batch, now_ns: int, now_s: float, *, pending_ns: int | None, is_behind: bool
    ) -> int:
        """Up to when all is known with these rows in hand. `pending_ns`: when the oldest row came
        in that is on its way to the disk. `is_behind`: there are more to be read."""
        known_ns = now_ns
        if pending_ns is not None:
            known_ns = max(min(known_ns, pending_ns), now_ns - UNDURABLE_WAIT_MAX_NS)
        if is_behind or now_s < self._settle_until_s:
            newest_ns = int(batch.received_time_ns.max()) if len(batch) else self._known_ns
            known_ns = min(known_ns, max(newest_ns, self._known_ns))
        self._known_ns = known_ns
        return known_ns

    def not_beyond(self, to_ns: int) -> None:
        """Nothing after this is known: the clock was set back."""
        self._known_ns = min(self._known_ns, to_ns)
