"""The notary: an anchor at the start, for what came since, and at the stop; trouble costs none."""

import asyncio
from pathlib import Path

import pytest

from gateway.alarms.anchors import ANCHORS, parse_anchor
from gateway.alarms.journal import Journal
from gateway.alarms.signing import KEY
from gateway.alarms.verify import verify_journal
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.notary import Notary
from gateway.testing.alarms import S, make_event


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal.open(tmp_path / "j", reserve_bytes=0)
    yield opened
    opened.close()


class Minutes:
    """A sleep that ends when the test says so, and the time it then is."""

    def __init__(self) -> None:
        self.now_s = 0
        self._asleep = asyncio.Event()
        self._wake = asyncio.Event()

    def now_ns(self) -> int:
        return self.now_s * S

    async def sleep(self, seconds: float) -> None:
        self._wake.clear()
        self._asleep.set()
        await self._wake.wait()
        self.now_s += round(seconds)

    async def until_asleep(self) -> None:
        await asyncio.wait_for(self._asleep.wait(), 10)
        self._asleep.clear()

    async def pass_one(self) -> None:
        self._wake.set()
        await self.until_asleep()


async def start(
    journal: Journal, minutes: Minutes
) -> tuple[asyncio.Task, CounterTable, StatusCell]:
    counters, status = CounterTable(), StatusCell("notary")
    notary = Notary(
        journal, counters.component("notary"), status, minutes.now_ns, sleep=minutes.sleep
    )
    task = asyncio.create_task(notary.run())
    await minutes.until_asleep()
    return task, counters, status


async def stop(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def signed(journal: Journal) -> list[tuple[str, int, int]]:
    lines = (journal.directory / ANCHORS).read_bytes().splitlines(keepends=True)
    found = [parse_anchor(line) for line in lines]
    return [(anchor.occasion, anchor.gseq, anchor.time_ns // S) for anchor in found]


async def test_it_signs_at_the_start_when_something_came_and_at_the_stop(journal: Journal) -> None:
    minutes = Minutes()
    task, _, status = await start(journal, minutes)
    await minutes.pass_one()
    journal.append([make_event(1), make_event(2)])
    await minutes.pass_one()
    await minutes.pass_one()
    assert status.state == "signing"
    await stop(task)
    assert signed(journal) == [("start", 0, 0), ("", 2, 100), ("stop", 2, 150)]
    assert journal.newest_anchor.occasion == "stop"
    assert verify_journal(journal.directory).ok


async def test_without_a_key_events_are_stored_and_vouched_for_when_there_is_one_again(
    journal: Journal,
) -> None:
    (journal.directory / KEY).mkdir()  # something that cannot be read, and is not ours to remove
    minutes = Minutes()
    task, counters, status = await start(journal, minutes)
    assert status.state == "faulty"
    journal.append([make_event(1)])
    assert (journal.head, journal.newest_anchor) == (1, None)
    (journal.directory / KEY).rmdir()
    await minutes.pass_one()
    assert status.state == "signing"
    assert signed(journal) == [("start", 1, 50)]
    await stop(task)
    assert counters.of("notary") == {"anchor_fault": 1, "anchors": 2}
