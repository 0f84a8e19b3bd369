"""Blocking calls on a thread, waited for to the end.

A cancelled task leaves its thread running. What the thread works on, an SQLite connection say, may
be closed in the meantime, and that is a crash of the whole process. So a cancelled caller waits for
its thread first; the calls made through here are short.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(call: Callable[..., T], *arguments: object) -> T:
    """The call's result or exception; CancelledError only after the call has ended."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise
