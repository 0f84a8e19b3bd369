"""What a store or a broker may do to us, and what must come of it: nothing lost, nobody delayed."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.journal import Journal
from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import Point, PointTable
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.deliver import AlarmDelivery, SampleDelivery, SetAside
from gateway.runtime.latency import LatencyMeter
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

    async def write(self, batch: Batch, offset: int) -> WriteResult:
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
        cursor=spool.cursor("store"),
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


# --------------------------------------------------------------------------- alarms


class Channel:
    """An alarm sink that is away for a while."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.told: list[int] = []
        self.snapshots = 0
        self.beats = 0
        self.quiet = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, events) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("broker gone")
        self.told += [event.alarm.gseq for event in events]

    async def snapshot(self, alarms) -> None:
        self.snapshots += 1

    async def heartbeat(self, status) -> None:
        self.beats += 1
        self.quiet.set()


def events(count: int):
    from gateway.alarms.book import AlarmBook
    from gateway.testing.alarms import make_conditions, make_instance

    instances = [make_instance(f"p{number}") for number in range(count)]
    rows = [(number, "H", NOW + number) for number in range(count)]
    conditions = make_conditions(*rows, instances=instances)
    return AlarmBook(epoch=1).apply(conditions, instances, NOW + count)


def teller(journal: Journal, channel: Channel) -> AlarmDelivery:
    return AlarmDelivery(
        name="mqtt",
        journal=journal,
        cursor=journal.cursor("mqtt"),
        sink=channel,
        standing=list,
        heartbeat=dict,
        latency=LatencyMeter(),
        counters=CounterTable().component("mqtt"),
        status=StatusCell("mqtt"),
        now_ns=lambda: NOW,
    )


async def test_events_are_told_in_order_and_committed_after(tmp_path) -> None:
    journal, channel = Journal.open(tmp_path), Channel()
    journal.append(events(5))
    delivery = teller(journal, channel)
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        await channel.quiet.wait()
    assert channel.told == [1, 2, 3, 4, 5]
    assert journal.cursor("mqtt").gseq == 5
    assert channel.snapshots == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()


async def test_a_broker_that_was_away_misses_nothing_and_gets_the_standing_state_again(
    tmp_path,
) -> None:
    journal, channel = Journal.open(tmp_path), Channel(failures=1)
    journal.append(events(3))
    delivery = teller(journal, channel)
    with pytest.raises(Unavailable):  # the supervisor's business
        await delivery.run()
    assert channel.told == []
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        await channel.quiet.wait()
    assert channel.told == [1, 2, 3]
    assert channel.snapshots == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()


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


async def test_a_flood_does_not_keep_the_heartbeat_waiting(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._EVENTS_MAX", 2)
    monkeypatch.setattr("gateway.runtime.deliver.HEARTBEAT_INTERVAL_S", 0.0)
    journal, channel = Journal.open(tmp_path), Channel()
    journal.append(events(9))
    delivery = teller(journal, channel)
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        while len(channel.told) < 9:
            await asyncio.sleep(0)
    assert channel.beats >= 4
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()


URGENT = "p7:ch4.limit"


def backlog(count: int, *, urgent_at: int):
    """`count` activations and returns of twenty alarms; p7 is of priority 1 from `urgent_at` on."""
    from dataclasses import replace

    from gateway.model.rule import Priority
    from gateway.testing.alarms import make_event

    made = []
    for gseq in range(1, count + 1):
        event = make_event(gseq, key=f"p{gseq % 20}:ch4.limit", time_ns=NOW + gseq, seq=gseq)
        if event.alarm.alarm_key == URGENT and gseq >= urgent_at:
            event = replace(event, alarm=replace(event.alarm, priority=Priority.CRITICAL))
        made.append(event)
    return made


class Listener(Channel):
    """Remembers whole events, and what it was told in one go."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = []

    async def write(self, events) -> None:
        await super().write(events)
        self.heard += events


async def tell_all(journal: Journal, channel: Channel, count: int) -> None:
    """Until everything is told and committed, and nothing is remembered as told ahead."""
    delivery = teller(journal, channel)
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(20):
        while delivery.cursor.gseq < count or delivery._ahead:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_backlog_tells_everything_of_an_alarm_of_priority_one_first(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._EVENTS_MAX", 50)
    journal, channel = Journal.open(tmp_path), Listener()
    journal.append(backlog(400, urgent_at=350))
    await tell_all(journal, channel, 400)
    mine = [gseq for gseq in range(1, 401) if gseq % 20 == 7]
    assert channel.told[: len(mine)] == mine
    others = [gseq for gseq in range(1, 401) if gseq % 20 != 7]
    assert channel.told[len(mine) :] == others
    assert sorted(channel.told) == list(range(1, 401))
    journal.close()


async def test_what_becomes_urgent_while_a_backlog_is_told_goes_before_the_rest_of_it(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._EVENTS_MAX", 50)
    events = backlog(600, urgent_at=450)
    journal = Journal.open(tmp_path)
    journal.append(events[:400])

    class Growing(Listener):
        async def write(self, told) -> None:
            await super().write(told)
            if journal.head == 400:
                journal.append(events[400:])

    channel = Growing()
    await tell_all(journal, channel, 600)
    urgent = [gseq for gseq in range(51, 601) if gseq % 20 == 7]
    at = channel.told.index(urgent[0])
    assert channel.told[at : at + len(urgent)] == urgent
    assert at <= 150
    by_key: dict[str, list[int]] = {}
    for event in channel.heard:
        by_key.setdefault(event.alarm.alarm_key, []).append(event.alarm.seq)
    assert all(seqs == sorted(seqs) and len(set(seqs)) == len(seqs) for seqs in by_key.values())
    journal.close()


async def test_without_a_backlog_the_order_is_that_of_the_journal(tmp_path) -> None:
    journal, channel = Journal.open(tmp_path), Listener()
    journal.append(backlog(400, urgent_at=350))
    await tell_all(journal, channel, 400)
    assert channel.told == list(range(1, 401))
    journal.close()


async def test_told_ahead_has_a_limit_and_then_the_journal_s_order_is_kept(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.deliver._EVENTS_MAX", 50)
    monkeypatch.setattr("gateway.runtime.deliver._AHEAD_MAX", 10)
    journal, channel = Journal.open(tmp_path), Listener()
    journal.append(backlog(2_000, urgent_at=1))
    await tell_all(journal, channel, 2_000)
    assert sorted(channel.told) == list(range(1, 2_001))
    journal.close()
