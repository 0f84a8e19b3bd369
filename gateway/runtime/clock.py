"""The system clock: the only module that reads it. Everyone else is handed `now_ns`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

NowNs: TypeAlias = Callable[[], int]


def now_ns() -> int:
    """UTC in nanoseconds since 1970."""
    return time.time_ns()
