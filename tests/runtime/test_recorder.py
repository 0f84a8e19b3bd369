"""While the journal refuses: judging goes on, nothing is told, it is loud; then all of it, in order."""

import asyncio
from contextlib import suppress

import pytest

from gateway.alarms.journal import Journal
from gateway.contract.adapter import Counters
from gateway.model.errors import StorageFault
from gateway.model.rule import Priority
from gateway.runtime import recorder as module
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.recorder import Recorder
from gateway.testing.alarms import make_event


class Desk:
    """A recorder on a real journal that refuses on demand, and what it told and cried out."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.table, self.status = journal, CounterTable(), StatusCell("judge")
        self.told: list[int] = []
        self.cried: list[int] = []
        self.now_s = 0.0
        self.refuses = False
        append = journal.append

        def or_not(events):
            if self.refuses:
                raise StorageFault("EIO")
            return append(events)

        journal.append = or_not
        self.recorder = Recorder(
            journal,
            self.counters,
            lambda: self.status,
            self._tell,
            lambda events: self.cried.extend(e.alarm.gseq for e in events),
            lambda: self.now_s,
        )

    @property
    def counters(self) -> Counters:
        return self.table.component("judge")

    def _tell(self, recorded) -> None:
        gseqs = [event.alarm.gseq for event, _ in recorded]
        assert gseqs[-1] <= self.journal.head, "told before it was recorded"
        self.told += gseqs


@pytest.fixture
def desk(tmp_path):
    journal = Journal.open(tmp_path / "j", reserve_bytes=0)
    yield Desk(journal)
    journal.close()


async def test_events_wait_in_order_are_cried_out_once_and_told_when_they_are_recorded(
    desk,
) -> None:
    await desk.recorder.record([make_event(1)], 0)
    desk.refuses = True
    for gseq in (2, 3, 4):
        await desk.recorder.record([make_event(gseq)], 0)
    assert (desk.told, desk.cried) == ([1], [2, 3, 4])
    assert (desk.recorder.unrecorded_count, desk.recorder.fault) == (3, "EIO")
    assert desk.status.state == "faulty"
    desk.refuses = False
    await desk.recorder.record([make_event(5)], 0)  # too soon to try again
    assert desk.told == [1]
    desk.now_s += module.RETRY_S
    await desk.recorder.record([make_event(6)], 0)
    assert desk.told == [1, 2, 3, 4, 5, 6]
    assert desk.cried == [2, 3, 4, 5], "what is recorded at once is not cried out"
    assert [e.alarm.gseq for e in desk.journal.read(0, 10)] == desk.told
    assert (desk.recorder.unrecorded_count, desk.recorder.fault) == (0, "")
    assert desk.status.state == "judging"
    assert desk.table.of("judge") == {"journal_fault": 1}


async def test_what_waits_and_is_most_urgent_is_named(desk) -> None:
    desk.refuses = True
    event = make_event(1, key="g1:r")
    urgent = make_event(2, key="gas:r")
    object.__setattr__(urgent.alarm, "priority", Priority.CRITICAL)
    await desk.recorder.record([event, urgent], 0)
    assert desk.recorder.unrecorded_critical() == ["gas:r"]
    assert "priority 1: gas:r" in desk.status.detail
    assert "2 events wait" in desk.status.detail


async def test_a_full_queue_lets_judging_wait_and_drops_nothing(desk, monkeypatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    desk.refuses = True
    await desk.recorder.record([make_event(1), make_event(2)], 0)
    waits = asyncio.create_task(desk.recorder.record([make_event(3)], 0))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waits.done()
    desk.refuses = False
    await asyncio.wait_for(waits, 5)
    assert desk.told == [1, 2, 3]


async def test_a_flood_that_waited_is_recorded_in_parts_and_in_order(desk, monkeypatch) -> None:
    monkeypatch.setattr(module, "APPEND_MAX", 3)
    desk.refuses = True
    await desk.recorder.record([make_event(gseq) for gseq in range(1, 9)], 0)
    desk.refuses = False
    assert await desk.recorder.flush()
    assert desk.told == list(range(1, 9))


async def test_what_was_stored_when_the_call_was_cancelled_is_told_once(desk) -> None:
    record = asyncio.create_task(desk.recorder.record([make_event(1)], 0))
    await asyncio.sleep(0)
    record.cancel()
    with suppress(asyncio.CancelledError):
        await record
    assert await desk.recorder.flush()
    assert desk.told == [1]
    assert desk.journal.head == 1


# ------------------------------------------------------------------ beside the judge


async def test_what_is_written_beside_is_on_record_before_anything_else_is_done(desk) -> None:
    await desk.recorder.record([make_event(1)], 0, beside=True)
    assert (desk.recorder.is_writing, desk.told) == (True, [])
    await desk.recorder.record([make_event(2)], 0, beside=True)
    await desk.recorder.record([make_event(3)], 0)
    assert (desk.recorder.is_writing, desk.told) == (False, [1, 2, 3])
    await desk.recorder.record([make_event(4)], 0, beside=True)
    assert await desk.recorder.flush()
    assert desk.told == [1, 2, 3, 4]


async def test_what_is_refused_beside_waits_like_any_other(desk) -> None:
    desk.refuses = True
    await desk.recorder.record([make_event(1)], 0, beside=True)
    await desk.recorder.settle()
    assert (desk.recorder.fault, desk.cried, desk.told) == ("EIO", [1], [])
    await desk.recorder.record([make_event(2)], 0, beside=True)
    desk.refuses = False
    desk.now_s += module.RETRY_S
    assert await desk.recorder.flush()
    assert desk.told == [1, 2]


async def test_a_caller_that_is_cancelled_leaves_what_is_written_beside_whole(desk) -> None:
    await desk.recorder.record([make_event(1)], 0, beside=True)
    waits = asyncio.create_task(desk.recorder.settle())
    await asyncio.sleep(0)
    waits.cancel()
    with suppress(asyncio.CancelledError):
        await waits
    await desk.recorder.settle()
    assert desk.told == [1]


async def test_a_failure_of_our_own_beside_is_raised_once(desk) -> None:
    def fail(_recorded) -> None:
        raise AssertionError("a bug")

    tell, desk.recorder.tell = desk.recorder.tell, fail
    await desk.recorder.record([make_event(1)], 0, beside=True)
    with pytest.raises(AssertionError, match="a bug"):
        await desk.recorder.settle()
    desk.recorder.tell = tell
    await desk.recorder.record([make_event(2)], 0)
    assert [e.alarm.gseq for e in desk.journal.read(0, 10)] == [1, 2]
