"""Blocking calls on a thread, waited for to the end.

A cancelled task leaves its thread running. What the thread works on, an SQLite connection say, may
be closed in the meantime, and that is a crash of the whole process. So a cancelled caller waits for
its thread first; the calls made through here are short.

The threads are the house's own. The loop's default ones are used by libraries for what may take
seconds (looking up a name, connecting to a broker behind a firewall that swallows everything), and
a handful of those would keep the alarm journal waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_OURS = ThreadPoolExecutor(8, thread_name_prefix="house")  # more than there are callers at a time

# What libraries connect and look names up with; made as they are needed. Python's own few (six on
# two cores) are all taken when as many brokers are behind a firewall that swallows everything, and
# the spool reads its backlog with them.
_THREADS_MAX = 64
# How long a thread that computes (a store making lines of ten thousand rows) may keep the others
# from running. Python's 5 ms are waited for at every step of an alarm's way while a backlog drains.
_SWITCH_INTERVAL_S = 0.001


def prepare_threads() -> None:
    """Once in a process that runs a gateway, inside its loop."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="pool")
    asyncio.get_running_loop().set_default_executor(pool)


async def to_the_end(call: Callable[..., T], *arguments: object) -> T:
    """The call's result or exception; CancelledError only after the call has ended."""
    task = asyncio.get_running_loop().run_in_executor(_OURS, partial(call, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise
