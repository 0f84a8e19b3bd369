"""A call that never returns costs its own store and nobody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from gateway.model.errors import Unavailable
from gateway.sinks.one_thread import WAITING_MAX, OneThread


async def test_calls_run_one_after_another_and_their_errors_come_back() -> None:
    thread, order = OneThread("t"), []
    results = await asyncio.gather(
        *(thread.run(lambda i=i: order.append(i) or i) for i in range(9))
    )
    assert results == order == list(range(9))
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    await thread.end()
    with pytest.raises(Unavailable, match="closed"):
        await thread.run(lambda: 1)


async def test_an_end_that_is_given_up_leaves_the_call_alone_and_frees_the_rest() -> None:
    thread, let_go, started = OneThread("t"), threading.Event(), threading.Event()

    def hang() -> str:
        started.set()
        let_go.wait(10)
        return "late"

    running = asyncio.create_task(thread.run(hang))
    await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.create_task(thread.run(lambda: 1))
    await asyncio.sleep(0)
    ending = asyncio.create_task(thread.end())
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    let_go.set()
    assert await running == "late"


async def test_calls_that_were_given_up_make_room_for_others() -> None:
    thread, let_go, started = OneThread("t"), threading.Event(), threading.Event()
    running = asyncio.create_task(thread.run(lambda: (started.set(), let_go.wait(10))))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(2 * WAITING_MAX):
        waiting = asyncio.create_task(thread.run(lambda: 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
    let_go.set()
    await running
    assert await thread.run(lambda: 7) == 7
    await thread.end()


HANGS = """
import asyncio, threading
from gateway.sinks.one_thread import OneThread

async def main():
    thread = OneThread("hung")
    started = threading.Event()
    asyncio.ensure_future(thread.run(lambda: (started.set(), threading.Event().wait())))
    await asyncio.to_thread(started.wait)
    try:
        await asyncio.wait_for(thread.end(), 0.05)
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_hung_call_does_not_keep_the_process_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "given up\n"
