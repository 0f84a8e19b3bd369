"""The door marks absurd clocks, makes durable, and counts; it never corrects and never drops."""

from __future__ import annotations

import asyncio

import pytest

from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.quality import Quality
from gateway.runtime.counters import CounterTable
from gateway.runtime.intake import Intake, Unsaved, flag_clock

NOW = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("source_time_ns", "quality", "expected"),
    [
        (NOW, Quality.GOOD, Quality.GOOD),
        (NOW - 3600 * SECOND, Quality.GOOD, Quality.GOOD),  # backfill is not an odd clock
        (NOW + 5 * SECOND, Quality.GOOD, Quality.GOOD),  # at the tolerance
        (NOW + 5 * SECOND + 1, Quality.GOOD, Quality.UNCERTAIN_CLOCK),
        (0, Quality.GOOD, Quality.UNCERTAIN_CLOCK),  # 1970
        (946_684_800 * SECOND - 1, Quality.GOOD, Quality.UNCERTAIN_CLOCK),
        (946_684_800 * SECOND, Quality.GOOD, Quality.GOOD),
        (NOW + 3600 * SECOND, Quality.BAD_SENSOR_FAULT, Quality.BAD_SENSOR_FAULT),
    ],
)
def test_an_absurd_time_is_marked_and_kept(source_time_ns, quality, expected) -> None:
    batch = Batch.of([0], [1.0], source_time_ns, received_time_ns=NOW, quality=quality)
    flagged = flag_clock(batch, 5 * SECOND)
    assert flagged.quality.tolist() == [expected]
    assert flagged.source_time_ns.tolist() == [source_time_ns]


class Gate:
    """A spool that is durable when told to be."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.batches: list[Batch] = []

    async def append(self, batch: Batch) -> int:
        await self.open.wait()
        self.batches.append(batch)
        return sum(len(b) for b in self.batches)


def make(spool: object) -> tuple[Intake, CounterTable]:
    table = CounterTable()
    return Intake(spool, 5 * SECOND, table.component("intake")), table


async def test_emit_returns_only_when_the_spool_says_durable() -> None:
    gate = Gate()
    intake, _ = make(gate)
    task = asyncio.create_task(intake.emit(Batch.of([0], [1.0], NOW, received_time_ns=NOW)))
    await asyncio.sleep(0)
    assert not task.done()
    assert intake.durable_count == 0
    gate.open.set()
    await task
    assert intake.durable_count == 1


async def test_a_refusing_spool_reaches_the_adapter_and_counts_nothing_durable() -> None:
    class Full:
        async def append(self, batch: Batch) -> int:
            raise SpoolFull("budget spent")

    intake, _ = make(Full())
    with pytest.raises(SpoolFull):
        await intake.emit(Batch.of([0], [1.0], NOW, received_time_ns=NOW))
    assert intake.durable_count == 0


async def test_odd_clocks_are_counted_and_empty_batches_cost_nothing() -> None:
    gate = Gate()
    gate.open.set()
    intake, table = make(gate)
    await intake.emit(Batch.empty())
    await intake.emit(Batch.of([0, 1], [1.0, 2.0], [NOW, 0], received_time_ns=NOW))
    assert table.of("intake") == {"accepted_with_odd_clock": 1}
    assert [len(batch) for batch in gate.batches] == [2]


# --------------------------------------------------------------------------- a disk that does not take


def row(second: int) -> Batch:
    return Batch.of([0], [float(second)], NOW, received_time_ns=NOW + second * SECOND)


class Refusing:
    async def append(self, batch: Batch) -> int:
        raise StorageFault("EIO")


async def test_what_the_disk_refuses_is_not_acknowledged_and_goes_to_the_judge() -> None:
    intake, table = make(Refusing())
    for second in (1, 2):
        with pytest.raises(StorageFault):
            await intake.emit(row(second))
    assert intake.oldest_pending_ns == NOW + SECOND, "no timer may run past it"
    taken = [intake.unsaved.take() for _ in range(3)]
    assert [b.value.tolist() for b in taken if b] == [[1.0], [2.0]]
    assert intake.oldest_pending_ns is None
    assert table.of("intake") == {"unsaved.StorageFault": 2}
    assert intake.durable_count == 0


async def test_a_judge_that_takes_nothing_costs_the_oldest_unsaved_rows_and_they_are_counted() -> (
    None
):
    intake, table = make(Refusing())
    intake.unsaved = Unsaved(rows_max=3)
    for second in range(5):
        with pytest.raises(StorageFault):
            await intake.emit(row(second))
    assert intake.unsaved.rows == 3
    assert intake.unsaved.take().value.tolist() == [2.0]
    assert table.of("intake")["not_judged.memory_full"] == 2


async def test_rows_on_a_disk_that_hangs_are_judged_once_from_memory_and_acknowledged_later() -> (
    None
):
    gate = Gate()
    intake, table = make(gate)
    tasks = [asyncio.create_task(intake.emit(row(second))) for second in (1, 9)]
    await asyncio.sleep(0)
    for _ in range(2):
        intake.judge_stuck(NOW + 5 * SECOND)
    assert intake.is_stuck
    assert intake.unsaved.take().value.tolist() == [1.0]
    assert intake.unsaved.take() is None, "once"
    assert intake.oldest_pending_ns == NOW + 9 * SECOND
    assert not tasks[0].done()
    gate.open.set()
    await asyncio.gather(*tasks)
    assert not intake.is_stuck
    assert intake.durable_count == 2
    assert table.of("intake") == {"unsaved.stuck": 1}


async def test_who_waits_for_unsaved_rows_hears_of_each_arrival() -> None:
    unsaved = Unsaved()
    arrival = unsaved.arrival()
    assert arrival is unsaved.arrival()
    assert not arrival.done()
    unsaved.put(row(1))
    assert arrival.done()
    assert unsaved.arrival().done(), "there still is one"
    unsaved.take()
    assert not unsaved.arrival().done()
    unsaved.put_back(row(1))
    assert unsaved.oldest_ns == NOW + SECOND
