"""One thread for blocking calls, with a short queue. What stores use to stay out of the loop.

The thread is a daemon, and waiting for it takes no other thread: a call that never returns (a disk
that hangs in the kernel, a library that waits for ever) costs this store and nobody else. It keeps
neither the process from ending nor the threads that the alarm journal uses.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from gateway.model.errors import Unavailable

WAITING_MAX = 16
"""Further calls are told Unavailable: a screen can ask again, memory is not given back."""

T = TypeVar("T")


class OneThread:
    """Runs calls one after another on a thread of its own. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._waiting = 0

    async def run(self, call: Callable[[], T], *, on_cancel: Callable[[], None] | None = None) -> T:
        """The call's result. Cancelled while it runs, `on_cancel` is called and the call goes on.

        Raises Unavailable when WAITING_MAX calls wait, or the thread has ended.
        """
        if self._waiting >= WAITING_MAX:
            raise Unavailable(f"{self._name}: {self._waiting} calls are waiting")
        if self._closed:
            raise Unavailable(f"{self._name} is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: Future[T] = Future()
        self._waiting += 1
        future.add_done_callback(lambda _: _soon(loop, self._done))
        self._calls.put((future, call))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and on_cancel is not None:
                on_cancel()
            raise

    async def end(self) -> None:
        """Drop what waits, wait for what runs. Cancelled, it has ended nothing but the queue."""
        self._closed = True
        with suppress(Empty):
            while (entry := self._calls.get_nowait()) is not None:
                entry[0].cancel()
        self._calls.put(None)
        if self._thread is not None:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _serve(self) -> None:
        while (entry := self._calls.get()) is not None:
            future, call = entry
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  whoever asked is told
                future.set_exception(error)
            del entry, future, call  # nothing of the last call is held while waiting for the next
        self._ended.set_result(None)

    def _done(self) -> None:
        self._waiting -= 1


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        with suppress(RuntimeError):  # closed between the question and the call
            loop.call_soon_threadsafe(call)
