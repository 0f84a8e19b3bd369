"""One thread for blocking calls, with a short queue. What stores use to stay out of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.model.errors import Unavailable

WAITING_MAX = 16
"""Further calls are told Unavailable: a screen can ask again, memory is not given back."""

T = TypeVar("T")


class OneThread:
    """Runs calls one after another on a thread of its own. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting = 0

    async def run(self, call: Callable[[], T], *, on_cancel: Callable[[], None] | None = None) -> T:
        """The call's result. Cancelled while it runs, `on_cancel` is called and the call goes on.

        Raises Unavailable when WAITING_MAX calls wait, or the thread has ended.
        """
        if self._waiting >= WAITING_MAX:
            raise Unavailable(f"{self._name}: {self._waiting} calls are waiting")
        loop = asyncio.get_running_loop()
        try:
            future = self._executor.submit(call)
        except RuntimeError as error:  # shut down
            raise Unavailable(f"{self._name} is closed") from error
        self._waiting += 1
        future.add_done_callback(lambda _: _soon(loop, self._done))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and on_cancel is not None:
                on_cancel()
            raise

    async def end(self) -> None:
        """Drop what waits, wait for what runs."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _done(self) -> None:
        self._waiting -= 1


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
