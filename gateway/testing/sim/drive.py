"""Gives the spool's writer its turns in the loop, a seeded moment after there is a job."""

from __future__ import annotations

import random
import threading

from gateway.spool.writer import Writer
from gateway.testing.sim.loop import VirtualLoop

TURN_DELAY_S = 0.003
"""Up to this long until the writer takes what is queued: how groups come about (engineering: a
flash disk's sync)."""


STALL_SHARE, STALL_S = 0.2, 0.3
"""So often a turn waits up to so long: a card that tidies up (engineering). Without it nobody would
be told too early for long enough to be found out."""
RETRY_S = 1.0  # how often a failed disk is tried again (engineering: as the thread at first)


class VirtualDrive:
    """gateway.spool.writer.Drive without a thread."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._writer: Writer | None = None
        self._due = False

    def start(self, writer: Writer) -> None:
        self._writer = writer

    def queued(self) -> None:
        if not self._due:
            self._due = True
            stalls = self._rng.random() < STALL_SHARE
            longest_s = STALL_S if stalls else TURN_DELAY_S
            self._loop.call_later(self._rng.uniform(0, longest_s), self._turn)

    def _turn(self) -> None:
        self._due = False
        writer = self._writer
        if writer is not None:
            writer.turn()
            if writer.progress.fault is not None and not self._due:
                self._due = True  # nothing comes from outside while the disk fails
                self._loop.call_later(RETRY_S, self._turn)

    def wait(self, event: threading.Event) -> None:
        """The caller blocks the loop, as it blocks a thread: the writer has its turn at once."""
        while not event.is_set():
            assert self._writer is not None, "waits for a writer that was never started"
            self._writer.turn()

    def end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.run()
