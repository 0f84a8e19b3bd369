"""Keeps tasks alive: decides on restart and back-off by the type of error, for everyone.

    Unavailable          try again after back-off, or after what the other side asked for
    Refused, ConfigError stop this one, loudly: a person must act; everything else goes on
    anything else        our bug or an unforeseen fault: logged whole, counted, restarted with
                         back-off, because the other adapters' alarms must not depend on this one

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
from gateway.model.errors import ConfigError, Refused, Unavailable

log = logging.getLogger(__name__)


@dataclass
class Backoff:
    """Delays between tries. `rng` is passed in so that a test can repeat them."""

    rng: random.Random
    first_s: float = 0.5
    max_s: float = 30.0
    _tries: int = field(default=0, init=False)

    def next_s(self, asked_s: float | None = None) -> float:
        """The next delay; at least what the other side asked for."""
        ceiling = min(self.max_s, self.first_s * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        return max(asked_s or 0.0, self.rng.uniform(ceiling / 2, ceiling))

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

    async def run(self, component: Callable[[], Awaitable[None]]) -> None:
        """Run `component()` again and again until cancelled or refused for good."""
        while True:
            started_s = self.monotonic_s()
            asked_s: float | None = None
            try:
                await component()
                reason, detail = "returned", "ended by itself"
            except Unavailable as error:
                reason, detail, asked_s = "unavailable", str(error), error.retry_after_s
                log.warning("%s: %s", self.name, error)
            except (Refused, ConfigError) as error:
                self.counters.count("stopped", reason="refused")
                self.status("faulty", str(error))
                log.error("%s: stopped for good: %s", self.name, error)  # noqa: TRY400  the message says it all
                return
            except Exception as error:
                reason, detail = "crashed", repr(error)
                log.exception("%s: unexpected failure", self.name)
            self.counters.count("restarted", reason=reason)
            if self.monotonic_s() - started_s >= self.healthy_s:
                self.backoff.reset()
            delay_s = self.backoff.next_s(asked_s)
            self.status("waiting", f"{detail}; next try in {delay_s:.1f} s")
            await self.sleep(delay_s)
