"""The gateway's wall clock: true time, and how far somebody set it off."""

from __future__ import annotations

from asyncio import AbstractEventLoop

START_NS = 1_767_225_600_000_000_000
"""Virtual time 0 is 2026-01-01T00:00:00Z: any instant after `EARLIEST_BELIEVED_NS` would do."""
NS_PER_S = 1_000_000_000


class WallClock:
    """What `now_ns` is on one machine."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self.offset_ns = 0

    def true_ns(self) -> int:
        """What a radio clock beside the machine would show."""
        return START_NS + round(self._loop.time() * NS_PER_S)

    def now_ns(self) -> int:
        return self.true_ns() + self.offset_ns

    def set_off(self, seconds: float) -> None:
        """A step: forwards, or back."""
        self.offset_ns += round(seconds * NS_PER_S)
