"""A gateway whose clock was ahead, and is put right: nobody is waited for longer because of it."""

from __future__ import annotations

import pytest
from test_judge import SECOND, START, House

from gateway.model.batch import Batch

HOUR = 3_600


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_delay_that_runs_while_the_clock_is_put_right_ends_in_time(
    restarted, tmp_path
) -> None:
    """The device's own clock was right: nothing remembered lies ahead. It says nothing more."""
    house = House(tmp_path)
    async with house.open():
        house.now_ns = START + HOUR * SECOND
        index = house.registry.table.index("g1")
        sample = Batch.of([index], [1.2], [START], received_time_ns=house.now_ns)
        await house.intake.emit(sample)
        await house.judge_all(save=True)
        assert house.history() == []
        house.now_ns = START + 1 * SECOND
        if not restarted:
            await house.judge_all(save=True)  # it sees the step
            house.now_ns = START + 10 * SECOND
            await house.judge_all(save=True)
            assert [row[3:] for row in house.history()] == [("ACT", 2 * SECOND)]
    if restarted:
        async with house.open():
            house.now_ns = START + 10 * SECOND
            await house.judge_all(save=True)
            assert [row[3:] for row in house.history()] == [("ACT", 2 * SECOND)]
