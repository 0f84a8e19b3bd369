"""Keeps tasks alive: decides on restart and back-off by the type of error, for everyone.

    Unavailable    try again after back-off, or after what the other side asked for
    SpoolFull,     as Unavailable: one line, and the same again
    StorageFault
    Refused        faulty, loudly, until a person acts; tried again every `refused_retry_s`, because
                   the person may act at the other end (a password, an access list)
    ConfigError    stopped: only a new configuration, and so a new start, can help
    anything else  our bug or an unforeseen fault: logged whole, counted, restarted with back-off,
                   because the other adapters' alarms must not depend on this one

Back-off doubles from `first_s` to `max_s` with full jitter, and starts afresh after a run that
lasted `healthy_s`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.contract.adapter import Counters, LinkStatus
from gateway.model.errors import ConfigError, Refused, SpoolFull, StorageFault, Unavailable

log = logging.getLogger(__name__)


@dataclass
class Backoff:
    """Delays between tries. `rng` is passed in so that a test can repeat them."""

    rng: random.Random
    first_s: float = 0.5
    max_s: float = 30.0
    _tries: int = field(default=0, init=False)

    def next_s(self, asked_s: float | None = None) -> float:
        """The next delay: anything up to the ceiling, so that a hundred gateways that lost one
        server do not come back in one second, and all of it after what the other side asked for."""
        ceiling = min(self.max_s, self.first_s * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        return (asked_s or 0.0) + self.rng.uniform(0.0, ceiling)

    def reset(self) -> None:
        self._tries = 0


@dataclass(frozen=True)
class Supervisor:
    """Runs one component for ever."""

    name: str
    counters: Counters
    status: LinkStatus
    backoff: Backoff
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic_s: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    healthy_s: float = 30.0
    refused_retry_s: float = 30.0

    async def run(self, component: Callable[[], Awaitable[None]]) -> None:
        """Run `component()` again and again until cancelled or refused for good."""
        while True:
            started_s = self.monotonic_s()
            try:
                await component()
                failure: Exception = Unavailable("ended by itself")
            except Exception as error:  # noqa: BLE001  sorted by `_judge`
                failure = error
            self._end_if_cancelled()
            if isinstance(failure, ConfigError):
                self.counters.count("stopped", reason="config")
                self.status("faulty", str(failure))
                log.error("%s: stopped for good: %s", self.name, failure)
                return
            if self.monotonic_s() - started_s >= self.healthy_s:
                self.backoff.reset()
            state, delay_s = self._take(failure)
            self.status(state, f"{failure}; next try in {delay_s:.1f} s")
            await self.sleep(delay_s)

    @staticmethod
    def _end_if_cancelled() -> None:
        """A component whose clean-up failed while it was being cancelled is cancelled all the same:
        else stopping would wait for it for ever."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError

    def _take(self, failure: Exception) -> tuple[str, float]:
        """Count and log it; the state to show and how long to wait."""
        if isinstance(failure, Refused):
            self.counters.count("restarted", reason="refused")
            log.error("%s: refused, a person must act: %s", self.name, failure)
            return "faulty", self.refused_retry_s
        if isinstance(failure, Unavailable | SpoolFull | StorageFault):
            self.counters.count("restarted", reason="unavailable")
            log.warning("%s: %s", self.name, failure)
            asked_s = failure.retry_after_s if isinstance(failure, Unavailable) else None
            return "waiting", self.backoff.next_s(asked_s)
        self.counters.count("restarted", reason="crashed")
        log.error("%s: unexpected failure", self.name, exc_info=failure)
        return "waiting", self.backoff.next_s()
