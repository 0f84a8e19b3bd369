"""What a store or a broker may do to us, and what must come of it: nothing lost, nobody delayed."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.schema import DeliverySection
from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import Point, PointTable
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.deliver import SampleDelivery, SetAside, _thinned_away
from gateway.runtime.lanes import Lanes
from gateway.runtime.supervisor import Backoff
from gateway.spool import Spool

NOW = 1_790_000_000_000_000_000


class Store:
    """A store that fails as told and refuses poison (negative values)."""

    history = None

    def __init__(self, failures: list[Exception] | None = None, *, refuses: str = "rows") -> None:
        self.failures = list(failures or [])
        self.refuses = refuses
        self.values: list[float] = []
        self.done = asyncio.Event()
        self.expected = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        if self.failures:
            raise self.failures.pop(0)
        poison = [row for row, value in enumerate(batch.value.tolist()) if value < 0]
        if poison and self.refuses == "batch":
            raise Refused("bad value: negative")
        self.values += [value for value in batch.value.tolist() if value >= 0]
        if len(self.values) >= self.expected:
            self.done.set()
        import numpy as np

        return WriteResult(
            accepted=len(batch) - len(poison),
            rejected=np.array(poison, np.int64),
            reasons=["bad value: negative"] * len(poison),
        )


def points(count: int = 3) -> PointTable:
    table = PointTable()
    for number in range(count):
        table.put(Point(id=f"p{number}"))
    return table


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


def deliver(spool: Spool, store: Store, folder) -> tuple[SampleDelivery, CounterTable, StatusCell]:
    table, status = CounterTable(), StatusCell("store")
    counters = table.component("store")
    delivery = SampleDelivery(
        name="store",
        lanes=Lanes(spool, "store"),
        sink=store,
        set_aside=SetAside(folder / "rejected.jsonl", points(), counters),
        counters=counters,
        status=status,
        backoff=Backoff(random.Random(1)),
        sleep=no_sleep,
    )
    return delivery, table, status


async def run_until_done(delivery: SampleDelivery, store: Store, expected: int) -> None:
    store.expected = expected
    task = asyncio.create_task(delivery.run())
    try:
        async with asyncio.timeout(10):
            await store.done.wait()
            while delivery.cursor.committed < delivery.cursor.position:
                await asyncio.sleep(0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def batch_of(values: list[float]) -> Batch:
    return Batch.of([0] * len(values), values, NOW, received_time_ns=NOW)


async def test_a_store_that_is_away_gets_the_same_rows_again(tmp_path) -> None:
    spool = Spool.open(tmp_path / "spool")
    await spool.append(batch_of([1.0, 2.0, 3.0]))
    store = Store([Unavailable("down"), Unavailable("busy", retry_after_s=3)])
    delivery, table, status = deliver(spool, store, tmp_path)
    await run_until_done(delivery, store, 3)
    assert store.values == [1.0, 2.0, 3.0]
    assert table.of("store") == {"retried": 2}
    assert status.state == "connected"
    assert delivery.cursor.committed == 3
    await spool.close()


@pytest.mark.parametrize("refuses", ["rows", "batch"])
async def test_poison_rows_are_set_aside_with_their_reason_and_the_others_go_on(
    tmp_path, refuses
) -> None:
    spool = Spool.open(tmp_path / "spool")
    values = [1.0, -1.0, 2.0, 3.0, -2.0, 4.0, 5.0]
    await spool.append(batch_of(values))
    store = Store(refuses=refuses)
    delivery, table, _ = deliver(spool, store, tmp_path)
    await run_until_done(delivery, store, 5)
    assert store.values == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (delivery.stored_count, delivery.rejected_count) == (5, 2)
    assert table.of("store") == {"rejected.bad value": 2}
    lines = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["point"], row["value"]) for row in rows] == [("p0", -1.0), ("p0", -2.0)]
    assert delivery.cursor.committed == 7
    await spool.close()


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    poison=st.sets(st.integers(0, 120)),
    outages=st.integers(0, 3),
)
def test_every_row_is_accepted_or_set_aside_exactly_once(
    tmp_path_factory, sizes, poison, outages
) -> None:
    folder = tmp_path_factory.mktemp("deliver")
    values = [float(-n - 1 if n in poison else n) for n in range(sum(sizes))]
    good = [value for value in values if value >= 0]

    async def scenario() -> SampleDelivery:
        spool = Spool.open(folder / "spool")
        at = 0
        for size in sizes:
            await spool.append(batch_of(values[at : at + size]))
            at += size
        store = Store([Unavailable("down")] * outages, refuses="batch")
        delivery, _, _ = deliver(spool, store, folder)
        if good:
            await run_until_done(delivery, store, len(good))
            assert store.values == good
        await spool.close()
        return delivery

    delivery = asyncio.run(scenario())
    assert delivery.stored_count == len(good)


async def test_a_restart_reads_from_the_last_commit(tmp_path) -> None:
    spool = Spool.open(tmp_path / "spool")
    await spool.append(batch_of([1.0]))
    store = Store()
    delivery, _, _ = deliver(spool, store, tmp_path)
    await run_until_done(delivery, store, 1)
    await spool.append(batch_of([2.0]))
    store.done.clear()
    await run_until_done(delivery, store, 2)
    assert store.values == [1.0, 2.0]
    await spool.close()


async def test_rows_given_up_for_the_budget_are_counted_and_the_newer_ones_go_on(tmp_path) -> None:
    spool = Spool.open(tmp_path / "spool")
    await spool.append(batch_of([1.0, 2.0, 3.0, 4.0]))
    store = Store([Unavailable("down")])
    delivery, table, _ = deliver(spool, store, tmp_path)
    delivery.forget(3)
    await run_until_done(delivery, store, 1)
    assert store.values == [4.0]
    assert delivery.dropped_count == 3
    assert table.of("store")["dropped.spool_budget"] == 3
    await spool.close()


class Hanging(Store):
    """Writes of more than `rows` rows never return, nor does closing while `stuck`."""

    def __init__(self, *, rows: int, stuck: bool = False) -> None:
        super().__init__()
        self.rows = rows
        self.stuck = stuck

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        if len(batch) > self.rows:
            await asyncio.Event().wait()
        return await super().write(batch, offset, ahead=ahead)

    async def close(self) -> None:
        if self.stuck:
            await asyncio.Event().wait()


async def test_a_write_that_does_not_return_is_cut_and_tried_with_fewer_rows(tmp_path) -> None:
    spool = Spool.open(tmp_path / "spool")
    await spool.append(batch_of([float(n) for n in range(8)]))
    store = Hanging(rows=2)
    delivery, table, status = deliver(spool, store, tmp_path)
    delivery.limits = DeliverySection(write_timeout_s=0.02)
    await run_until_done(delivery, store, 8)
    assert store.values == [float(n) for n in range(8)]
    assert table.of("store")["abandoned.write"] == 3, "eight rows at once, and four, twice"
    assert status.state == "connected"
    await spool.close()


async def test_a_store_that_hangs_for_good_says_so_and_can_be_stopped(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._CLOSE_TIMEOUT_S", 0.02)
    spool = Spool.open(tmp_path / "spool")
    await spool.append(batch_of([1.0]))
    delivery, table, status = deliver(spool, Hanging(rows=0, stuck=True), tmp_path)
    delivery.limits = DeliverySection(write_timeout_s=0.02)
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        while table.of("store").get("retried", 0) < 3:
            await asyncio.sleep(0)
        assert status.state == "waiting"
        assert "did not return within" in status.detail
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert delivery.cursor.committed == 0, "nothing is done with that was not answered"
    assert table.of("store")["abandoned.close"] == 1
    await spool.close()


async def test_the_cost_of_finding_poison_is_bounded(tmp_path) -> None:
    """One row of ten thousand: about two writes for each halving."""
    spool = Spool.open(tmp_path / "spool")
    values = [float(n) for n in range(10_000)]
    values[6_789] = -1.0
    await spool.append(batch_of(values))

    class Counting(Store):
        writes = 0

        async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
            self.writes += 1
            return await super().write(batch, offset, ahead=ahead)

    store = Counting(refuses="batch")
    delivery, _, _ = deliver(spool, store, tmp_path)
    await run_until_done(delivery, store, 9_999)
    assert (delivery.stored_count, delivery.rejected_count) == (9_999, 1)
    assert store.writes <= 2 * 14 + 1
    (line,) = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reason"] == "bad value: negative"
    await spool.close()


@pytest.mark.parametrize(
    ("begin", "end", "away"),
    [
        (0, 100, 50),
        (0, 10, 0),
        (10, 20, 10),
        (15, 45, 30),
        (60, 100, 10),
        (70, 90, 10),
        (90, 95, 0),
    ],
)
def test_rows_that_were_thinned_away_are_not_counted_again_when_their_rest_is_dropped(
    begin, end, away
) -> None:
    """Of [10, 60) rows are left from 50 on, of [80, 90) nothing is."""
    assert _thinned_away({(10, 60): 50, (80, 90): 90}, begin, end) == away
