"""The door marks absurd clocks, makes durable, and counts; it never corrects and never drops."""

from __future__ import annotations

import asyncio

import pytest

from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull
from gateway.model.quality import Quality
from gateway.runtime.counters import CounterTable
from gateway.runtime.intake import Intake, flag_clock

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
