"""How fast is too fast: a token bucket. Pure; the caller brings the time, of a clock without steps.

Not here: what happens to who is too fast. Slowing down loses nothing and is preferred to dropping.
"""

from __future__ import annotations

_NS = 1_000_000_000


class TokenBucket:
    """`rate_per_s` on the long run, `burst` at once. May go into debt, which is told as a wait."""

    __slots__ = ("_burst", "_rate", "_then_ns", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, now_ns: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._then_ns = now_ns

    def wait_s(self, now_ns: int) -> float:
        """How long until there is a whole token; 0 when there is one."""
        self._fill(now_ns)
        return max(0.0, (1 - self._tokens) / self._rate)

    def take(self, count: float, now_ns: int) -> float:
        """Spend, and how long to pause until the debt is paid; 0 when there is none."""
        self._fill(now_ns)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)

    def _fill(self, now_ns: int) -> None:
        elapsed_s = max(0, now_ns - self._then_ns) / _NS
        self._then_ns = max(self._then_ns, now_ns)
        self._tokens = min(self._tokens + elapsed_s * self._rate, self._burst)
