"""Who is restarted, when, and who is not."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.model.errors import (
    ConfigError,
    Fault,
    Refused,
    SpoolFull,
    StorageFault,
    Unavailable,
)
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.supervisor import Backoff, Supervisor


class Stopped(BaseException):
    """Ends a supervised loop from inside its sleep."""


class Stage:
    """A component that fails as told, under a clock that only sleeping moves."""

    def __init__(self, outcomes: list[BaseException | None], run_s: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.run_s = run_s
        self.clock_s = 0.0
        self.slept: list[float] = []
        self.counters = CounterTable()
        self.status = StatusCell("x")

    async def component(self) -> None:
        self.clock_s += self.run_s
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.outcomes:
            raise Stopped

    async def run(self) -> None:
        supervisor = Supervisor(
            "x",
            self.counters.component("x"),
            self.status,
            Backoff(random.Random(1), first_s=1, max_s=8),
            sleep=self.sleep,
            monotonic_s=lambda: self.clock_s,
        )
        await supervisor.run(self.component)


async def test_unavailable_is_tried_again_with_growing_jittered_delays() -> None:
    stage = Stage([Unavailable("down")] * 6)
    with pytest.raises(Stopped):
        await stage.run()
    ceilings = [1, 2, 4, 8, 8, 8]
    assert all(0 <= s <= c for s, c in zip(stage.slept, ceilings, strict=True))
    assert any(s < c / 2 for s, c in zip(stage.slept, ceilings, strict=True)), "full jitter"
    assert stage.counters.of("x") == {"restarted.unavailable": 6}
    assert stage.status.state == "waiting"


async def test_the_other_side_may_ask_for_a_longer_wait() -> None:
    stage = Stage([Unavailable("busy", retry_after_s=60)])
    with pytest.raises(Stopped):
        await stage.run()
    assert 60 <= stage.slept[0] <= 61, "no sooner than asked, and not all at once"


async def test_a_wrong_configuration_stops_this_component_loudly(caplog) -> None:
    stage = Stage([ConfigError([Fault("f", 1, "k", "x")])])
    await stage.run()
    assert stage.status.state == "faulty"
    assert "stopped for good" in caplog.text


async def test_a_refusal_is_shown_as_a_fault_and_tried_again_after_a_while(caplog) -> None:
    """The password may be put right at the other end."""
    stage = Stage([Refused("wrong password")])
    with pytest.raises(Stopped):
        await stage.run()
    assert stage.slept == [30.0]
    assert stage.status.state == "faulty"
    assert "a person must act" in caplog.text


@pytest.mark.parametrize("error", [SpoolFull("budget spent"), StorageFault("EIO")])
async def test_a_full_or_faulty_spool_is_one_line_and_another_try(error, caplog) -> None:
    stage = Stage([error])
    with pytest.raises(Stopped):
        await stage.run()
    assert "Traceback" not in caplog.text
    assert stage.counters.of("x") == {"restarted.unavailable": 1}


async def test_a_component_whose_clean_up_fails_is_cancelled_all_the_same() -> None:
    stage = Stage([None])

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise StorageFault("cannot commit")

    stage.component = stubborn
    task = asyncio.create_task(stage.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert stage.slept == []


async def test_our_own_bug_is_logged_whole_and_restarted(caplog) -> None:
    stage = Stage([AssertionError("broken invariant")])
    with pytest.raises(Stopped):
        await stage.run()
    assert "broken invariant" in caplog.text
    assert stage.counters.of("x") == {"restarted.crashed": 1}


async def test_a_long_healthy_run_starts_the_delays_afresh() -> None:
    stage = Stage([Unavailable("down")] * 4, run_s=31)
    with pytest.raises(Stopped):
        await stage.run()
    assert all(s <= 1 for s in stage.slept)


async def test_cancelling_ends_it() -> None:
    stage = Stage([None])

    async def forever() -> None:
        await asyncio.Event().wait()

    stage.component = forever
    task = asyncio.create_task(stage.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
