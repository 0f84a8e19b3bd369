from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.runtime.threads import to_the_end


async def test_libraries_that_take_every_thread_of_the_loop_do_not_keep_the_journal_waiting() -> (
    None
):
    let_go = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    hung = [asyncio.create_task(asyncio.to_thread(let_go.wait)) for _ in range(4)]
    try:
        async with asyncio.timeout(10):
            assert await to_the_end(max, 3, 5) == 5
    finally:
        let_go.set()
        await asyncio.gather(*hung)


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    started, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        let_go.wait(10)
        ended.set()

    task = asyncio.create_task(to_the_end(call))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
