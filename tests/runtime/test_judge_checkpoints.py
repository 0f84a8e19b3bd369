"""How soon after a start a checkpoint is taken: power that comes and goes must not leave more to be
judged again each time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from test_judge import House

from gateway.model.errors import StorageFault
from gateway.runtime.judge import SOONER_MAX, UNFINISHED_MAX_S

INTERVAL_S = 1000.0  # of House


async def _lives(house: House, seconds: float, *, steps: int = 400) -> list[float]:
    """Runs the judge for so long by a clock that goes on with every step of it, then takes the
    power away; when checkpoints were taken."""
    passed, taken, save = 0.0, [], house.journal.save_checkpoint

    def monotonic_s() -> float:
        return passed

    def noted(*args) -> None:
        taken.append(passed)
        save(*args)

    ended = asyncio.Event()
    step = house.judge._step

    async def step_and_time() -> None:
        nonlocal passed
        if passed >= seconds:
            ended.set()
            await asyncio.Event().wait()  # power is gone: nothing more is done
        await step()
        passed += seconds / steps
        await house.send([("g1", 0.5, 1000.0 * house.life + passed)])  # so there is always news

    house.judge.monotonic_s, house.judge._step = monotonic_s, step_and_time
    house.journal.save_checkpoint = noted
    task = asyncio.create_task(house.judge.run())
    await asyncio.wait_for(ended.wait(), 60)
    house.judge.checkpoint = _no_checkpoint
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return taken


async def _no_checkpoint() -> None:
    return None


async def test_the_first_checkpoints_come_soon_then_at_the_distance_they_always_have(
    tmp_path,
) -> None:
    house = House(tmp_path)
    house.life = 0
    async with house.open():
        taken = await _lives(house, 4 * INTERVAL_S)
    first = INTERVAL_S / SOONER_MAX
    distances = [b - a for a, b in zip([0.0, *taken], taken, strict=False)]
    wanted = [first, 2 * first, 4 * first, 8 * first, INTERVAL_S, INTERVAL_S]
    assert distances[: len(wanted)] == pytest.approx(wanted, abs=2 * 4 * INTERVAL_S / 400)


async def test_power_that_comes_and_goes_leaves_no_more_to_be_judged_again_each_time(
    tmp_path,
) -> None:
    house, left = House(tmp_path), []
    for house.life in range(6):
        async with house.open():
            left.append(house.spool.head - house.judge._done)
            await _lives(house, INTERVAL_S / 10, steps=20)  # too short for a checkpoint as before
    assert left[0] == 0
    assert max(left[1:]) <= 20, "what one life took in at most"


async def test_where_none_can_be_taken_the_next_is_tried_as_soon(tmp_path) -> None:
    """As while a flood is being recorded."""
    house, asked = House(tmp_path), []
    house.life = 0
    async with house.open():
        whole = iter([False, False, False, True, True, True])

        async def checkpoint() -> bool:
            asked.append(house.judge.monotonic_s())
            return next(whole, True)

        house.judge.checkpoint = checkpoint
        await _lives(house, INTERVAL_S)
    first = INTERVAL_S / SOONER_MAX
    distances = [b - a for a, b in zip([0.0, *asked], asked, strict=False)]
    wanted = [first, first, first, first, 2 * first, 4 * first]
    assert distances[: len(wanted)] == pytest.approx(wanted, abs=2 * INTERVAL_S / 400)


@pytest.mark.parametrize(("sooner", "waited_s", "has_room"), [
    (1, UNFINISHED_MAX_S - 0.1, True),
    (1, UNFINISHED_MAX_S + 0.1, False),
    (SOONER_MAX, UNFINISHED_MAX_S / SOONER_MAX - 0.1, True),
    (SOONER_MAX, UNFINISHED_MAX_S / SOONER_MAX + 0.1, False),
])  # fmt: skip
async def test_reading_stops_as_much_sooner_for_one_to_be_possible(
    tmp_path, sooner, waited_s, has_room
) -> None:
    house = House(tmp_path)
    async with house.open():
        judge = house.judge
        judge.verdicts = SimpleNamespace(count=1)
        judge.monotonic_s = lambda: judge._whole_s + waited_s
        judge._sooner = sooner
        assert judge._has_room() is has_room


async def test_a_disk_that_refuses_one_is_not_asked_sooner(tmp_path) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 0.5, 1)])
        await house.judge_all(save=False)
        del house.judge.checkpoint  # the real one again

        def refuses(*_) -> None:
            raise StorageFault("no room")

        house.journal.save_checkpoint = refuses
        assert await house.judge.checkpoint() is True
