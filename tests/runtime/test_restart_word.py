"""What was told before a kill stays told, and nothing of it is told twice, whatever stood between
the disk and the judge when it was told."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from test_judge import RULES, SECOND, START, House

from gateway.runtime.intake import Intake

AT_ONCE = [replace(RULES[0], on_delay_s=0.0, off_delay_s=0.0), *RULES[1:]]


@pytest.fixture
def at_once(monkeypatch):
    """Alarms come and go with their sample."""
    monkeypatch.setattr(sys.modules[House.__module__], "RULES", AT_ONCE)


async def test_rows_in_hand_that_came_in_after_one_still_on_its_way_are_not_told_twice(
    tmp_path, at_once, monkeypatch
) -> None:
    """The clock counts up to the oldest row that is not known to be durable. What a later row said
    was found when that row came in, not before: else the next start takes the row for one nobody
    had judged, believes the word of it first, and says once more what had ended."""
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 1)])
        await house.judge_all(save=True)
    async with house.open():
        with monkeypatch.context() as still:
            still.setattr(Intake, "oldest_pending_ns", property(lambda _: START + 2 * SECOND))
            await house.send([("g2", 0.5, 2), ("g1", 1.2, 2.5)])
            await house.send([("g1", 0.5, 3)])
            await house.judge_all(save=False)
        (returned,) = house.journal.read(1, 10)
        assert returned.recorded_time_ns >= START + 3 * SECOND
    async with house.open():
        await house.send([("g1", 0.5, 5)])
        await house.judge_all(save=True)
        assert house.history() == [
            ("g1:methane", 1, 1, "ACT", SECOND),
            ("g1:methane", 1, 2, "RTN", 3 * SECOND),
        ]
