"""What a broker may do to us, and what must come of it: every event told, in the order it happened."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.alarms.journal import Journal
from gateway.model.alarm import AlarmState
from gateway.model.errors import Unavailable
from gateway.model.rule import Priority
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.telling import AlarmDelivery
from gateway.testing.alarms import make_event

NOW = 1_790_000_000_000_000_000


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

    async def snapshot(self, alarms, *, head_gseq=0, unrecorded=()) -> None:
        self.snapshots += 1
        self.shown = [alarm.alarm_key for alarm in alarms]

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


async def test_a_flood_does_not_keep_the_heartbeat_waiting(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.telling._EVENTS_MAX", 2)
    monkeypatch.setattr("gateway.runtime.telling.HEARTBEAT_INTERVAL_S", 0.0)
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
    monkeypatch.setattr("gateway.runtime.telling._EVENTS_MAX", 50)
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
    monkeypatch.setattr("gateway.runtime.telling._EVENTS_MAX", 50)
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
    monkeypatch.setattr("gateway.runtime.telling._EVENTS_MAX", 50)
    monkeypatch.setattr("gateway.runtime.telling._AHEAD_MAX", 10)
    journal, channel = Journal.open(tmp_path), Listener()
    journal.append(backlog(2_000, urgent_at=1))
    await tell_all(journal, channel, 2_000)
    assert sorted(channel.told) == list(range(1, 2_001))
    journal.close()


async def test_while_a_flood_is_recorded_only_what_is_critical_is_told(tmp_path) -> None:
    journal, channel = Journal.open(tmp_path), Channel()
    flooded = True
    delivery = teller(journal, channel)
    delivery.is_flooded = lambda: flooded
    many = [make_event(n, key=f"p{n}:r", seq=1) for n in range(1, 10)]
    alarm = replace(many[6].alarm, priority=Priority.CRITICAL)
    journal.append([*many[:6], replace(many[6], alarm=alarm), *many[7:]])
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        while not channel.told:
            await asyncio.sleep(0)
        for _ in range(50):  # it could tell the others now
            await asyncio.sleep(0)
        assert channel.told == [7]
        flooded = False  # and nothing more is recorded that would wake it
        while len(channel.told) < 9:
            await asyncio.sleep(0.001)
    assert channel.told == [7, 1, 2, 3, 4, 5, 6, 8, 9]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()


async def test_a_flood_without_end_is_told_all_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.telling.HOLD_MAX_S", 0.0)
    journal, channel = Journal.open(tmp_path), Channel()
    delivery = teller(journal, channel)
    delivery.is_flooded = lambda: True
    journal.append(events(5))
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        await channel.quiet.wait()
    assert channel.told == [1, 2, 3, 4, 5]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()


ROWS = [  # key, state, priority
    ("a", AlarmState.NORMAL, Priority.CRITICAL),
    ("b", AlarmState.UNACKNOWLEDGED, Priority.LOW),
    ("c", AlarmState.ACKNOWLEDGED, Priority.CRITICAL),
    ("d", AlarmState.UNACKNOWLEDGED, Priority.CRITICAL),
    ("e", AlarmState.NORMAL, Priority.LOW),
]


async def test_a_connection_begins_with_what_stands_and_is_most_urgent(tmp_path) -> None:
    journal, channel = Journal.open(tmp_path), Channel()
    delivery = teller(journal, channel)
    row = events(1)[0].alarm
    delivery.standing = lambda: [
        replace(
            row,
            alarm_key=key,
            state=state,
            priority=priority,
            acknowledged=state is not AlarmState.UNACKNOWLEDGED,
        )
        for key, state, priority in ROWS
    ]
    task = asyncio.create_task(delivery.run())
    async with asyncio.timeout(10):
        await channel.quiet.wait()
    assert channel.shown == ["d", "c", "b", "a", "e"], "as the console has them, normal ones last"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    journal.close()
