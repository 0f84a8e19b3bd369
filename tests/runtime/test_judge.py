"""The judge records before it tells, survives a restart at any point, and waits for its disk."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alarm_rules.ruleset import RuleSet
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.alarms.journal import Journal
from gateway.model.alarm import AlarmState
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault, Unavailable
from gateway.model.point import Point
from gateway.model.rule import GroupBy, Priority, Rule, Selector
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.intake import Intake
from gateway.runtime.judge import Judge
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.live import LiveTable
from gateway.runtime.plugins import load_plugins
from gateway.spool import Spool
from gateway.spool.registry import Registry

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
HANGS_S = 60  # ends a test that hangs: no measure of how long a loaded disk takes

RULES = [
    Rule(
        id="methane",
        kind="limit",
        inputs={"value": Selector(quantity="methane")},
        parameters={"levels": {"H": {"limit": 1.0, "reset": 0.9}}},
        priority=Priority.HIGH,
        on_delay_s=2.0,
        off_delay_s=3.0,
    ),
    Rule(
        id="freeboard",
        kind="calculation",
        inputs={"top": Selector(quantity="beach_top"), "pool": Selector(quantity="pool_level")},
        parameters={"expression": "top - pool", "id": "{group}.freeboard", "quantity": "freeboard"},
        group_by=GroupBy.AREA,
    ),
    Rule(
        id="low",
        kind="limit",
        inputs={"value": Selector(quantity="freeboard")},
        parameters={"levels": {"LL": {"limit": 0.7, "operator": "<"}}},
        priority=Priority.CRITICAL,
    ),
]
POINTS = [
    Point(id="g1", quantity="methane"),
    Point(id="g2", quantity="methane"),
    Point(id="top", quantity="beach_top", area="dam1"),
    Point(id="pool", quantity="pool_level", area="dam1"),
]


KINDS = load_plugins().rule_kinds


def scratch(tmp_path_factory) -> Path:
    """In memory where there is such a place: a restart is seven opened stores, each with syncs."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return tmp_path_factory.mktemp("judge")
    return Path(tempfile.mkdtemp(prefix="judge-", dir=memory))


class House:
    """Everything the judge needs, on real files; the clock stands where the last sample was."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.now_ns = START
        self.settle_s = 0.0

    @asynccontextmanager
    async def open(self):
        spool = Spool.open(self.folder / "spool")
        journal = Journal.open(self.folder / "journal")
        registry = Registry.open(self.folder / "points", configured=POINTS)
        self.spool, self.journal, self.registry = spool, journal, registry
        self.table, self.status = CounterTable(), StatusCell("judge")
        self.intake = Intake(spool, 5 * SECOND, self.table.component("intake"))
        self.told: list[list[int]] = []
        self.judge = Judge(
            cursor=spool.cursor("judge"),
            points=registry.table,
            make_rules=lambda: RuleSet(RULES, KINDS, registry.table),
            journal=journal,
            intake=self.intake,
            live=LiveTable(),
            latency=LatencyMeter(),
            counters=self.table.component("judge"),
            status=self.status,
            now_ns=lambda: self.now_ns,
            declare=registry.points,
            tick_interval_s=0.01,
            checkpoint_interval_s=1000.0,
            settle_s=self.settle_s,
            on_events=self.note,
        )
        await self.judge.restore()
        try:
            yield self
        finally:
            journal.close()
            registry.close()
            await spool.close()

    def note(self, events) -> None:
        assert events[-1].alarm.gseq <= self.journal.head, "told before it was recorded"
        self.told.append([event.alarm.gseq for event in events])

    async def send(self, rows) -> None:
        """`rows` are (point, value, second)."""
        ids, values, seconds = zip(*rows, strict=True)
        index = [self.registry.table.index(point) for point in ids]
        times = [START + round(second * SECOND) for second in seconds]
        self.now_ns = max(self.now_ns, *times)
        await self.intake.emit(Batch.of(index, values, times, received_time_ns=times))

    async def judge_all(self, *, save: bool) -> None:
        """Judge until the spool is read, tick once more, and end: with or without a checkpoint."""
        if not save:
            self.judge.checkpoint = no_checkpoint
        task = asyncio.create_task(self.judge.run())
        async with asyncio.timeout(HANGS_S):
            while self.judge._done < self.spool.head:
                await asyncio.sleep(0)
                if task.done():
                    task.result()  # why it ended: else nobody would ever hear of it
            for _ in range(3):  # derived rows come round, and a tick at the end
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def history(self) -> list[tuple]:
        return [
            (e.alarm.alarm_key, e.alarm.occ_no, e.alarm.seq, e.transition.value, e.time_ns - START)
            for e in self.journal.read(0, 1000)
        ]


async def no_checkpoint() -> None:
    return None


EPISODE = [
    [("g1", 0.5, 0), ("g2", 0.5, 0)],
    [("g1", 1.2, 1), ("top", 131.0, 1), ("pool", 130.0, 1)],
    [("g1", 1.3, 2), ("g2", 1.1, 2)],
    [("g1", 1.3, 4), ("g2", 0.5, 3), ("top", 131.0, 4), ("pool", 130.5, 4)],
    [("g1", 0.8, 6)],
    [("g1", 0.8, 10), ("top", 131.0, 10), ("pool", 130.0, 10)],
]
EXPECTED = [
    ("g1:methane", 1, 1, "ACT", 3 * SECOND),  # began at 1, two seconds on-delay
    ("dam1.freeboard:low", 1, 1, "ACT", 4 * SECOND),
    ("g1:methane", 1, 2, "RTN", 9 * SECOND),  # back at 6, three seconds off-delay
    ("dam1.freeboard:low", 1, 2, "RTN", 10 * SECOND),
]


async def test_an_episode_gives_its_events_at_exact_times_and_derived_points_are_judged(
    tmp_path,
) -> None:
    async with House(tmp_path).open() as house:
        for rows in EPISODE:
            await house.send(rows)
            await house.judge_all(save=True)
        assert house.history() == EXPECTED
        assert [gseq for told in house.told for gseq in told] == [1, 2, 3, 4]
        assert house.judge.judged_count == sum(len(rows) for rows in EPISODE)
        assert house.intake.derived_count > 0


@pytest.mark.slow
@settings(max_examples=5)
@given(st.lists(st.sampled_from(["go", "lost checkpoint", "saved"]), min_size=6, max_size=6))
def test_a_restart_after_any_batch_changes_nothing(tmp_path_factory, ends) -> None:
    folder = scratch(tmp_path_factory)

    async def scenario() -> list[tuple]:
        house = House(folder)
        for rows, end in zip(EPISODE, ends, strict=True):
            async with house.open():
                await house.send(rows)
                await house.judge_all(save=end == "saved")
        async with house.open():
            await house.judge_all(save=True)
            return house.history()

    try:
        assert asyncio.run(scenario()) == EXPECTED
    finally:
        shutil.rmtree(folder)


async def test_a_pending_delay_survives_a_restart(tmp_path) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 1)])
        await house.judge_all(save=True)
        assert house.history() == []
    house.now_ns = START + 10 * SECOND  # the gateway was away when the delay ran out
    async with house.open():
        await house.judge_all(save=True)
        assert house.history() == [("g1:methane", 1, 1, "ACT", 3 * SECOND)]


async def test_an_alarm_waits_for_a_journal_that_cannot_be_written_and_is_not_lost(
    tmp_path, monkeypatch
) -> None:
    async with House(tmp_path).open() as house:
        monkeypatch.setattr("gateway.runtime.recorder.RETRY_S", 0.001)
        append, failures = house.journal.append, [StorageFault("no space")] * 2

        def failing(events):
            if failures:
                assert house.told == [], "told although nothing is recorded"
                raise failures.pop()
            return append(events)

        house.journal.append = failing
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        assert [row[3] for row in house.history()] == ["ACT"]
        assert house.table.of("judge") == {"journal_fault": 2}
        assert house.status.state == "judging"


async def test_judging_goes_on_while_the_journal_refuses_and_commands_do_not(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        append, refuses = house.journal.append, True

        def or_not(events):
            if refuses:
                raise StorageFault("EIO")
            return append(events)

        house.journal.append = or_not
        await house.send([("g1", 1.2, 1), ("g1", 1.2, 5)])
        await house.judge_all(save=True)
        await house.send([("g2", 1.2, 11), ("g2", 1.2, 15)])
        await house.judge_all(save=True)
        standing = [row.alarm_key for row in house.judge.book.standing()]
        assert standing == ["g1:methane", "g2:methane"]
        assert (house.told, house.judge.standing(), house.history()) == ([], [], [])
        assert house.judge.recorder.unrecorded_count == 2
        assert house.judge._saved_at == 0, "a checkpoint beyond what is recorded"
        with pytest.raises(Unavailable, match="cannot be written"):
            await house.judge.command(
                Command(
                    action=Action.ACKNOWLEDGE,
                    alarm_key="g1:methane",
                    actor="one",
                    role=Role.OPERATOR,
                    token="1:1",
                )
            )
        house.judge._failed = True  # a failure of ours meanwhile costs none of it
        await house.judge_all(save=True)
        assert house.judge.recorder.unrecorded_count == 2
        refuses = False
        assert await house.judge.recorder.flush()
        await house.judge_all(save=True)
        assert [row[0] for row in house.history()] == ["g1:methane", "g2:methane"]
        assert [gseq for told in house.told for gseq in told] == [1, 2]


@pytest.mark.parametrize("token_is_current", [True, False])
async def test_an_acknowledgement_is_recorded_or_refused(tmp_path, token_is_current) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        (alarm,) = house.judge.book.standing()
        token = token_of(alarm) if token_is_current else "1:0"
        result = await house.judge.command(
            Command(
                action=Action.ACKNOWLEDGE,
                alarm_key="g1:methane",
                actor="operator one",
                role=Role.OPERATOR,
                token=token,
            )
        )
        assert result.accepted is token_is_current
        (alarm,) = house.judge.book.standing()
        expected = AlarmState.ACKNOWLEDGED if token_is_current else AlarmState.UNACKNOWLEDGED
        assert alarm.state is expected
        assert house.journal.head == (2 if token_is_current else 1)


async def test_a_failure_of_our_own_loses_no_row_and_repeats_no_event(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        live, failures = house.judge.book.live, [AssertionError("a bug")]

        def failing(*arguments, **more):
            events = live(*arguments, **more)
            if events and failures:
                raise failures.pop()
            return events

        house.judge.book.live = failing
        with pytest.raises(AssertionError, match="a bug"):
            await house.judge.run()
        await house.judge_all(save=True)
        assert house.history() == [("g1:methane", 1, 1, "ACT", 3 * SECOND)]


async def test_a_backlog_is_judged_with_the_clock_of_its_receipt(tmp_path) -> None:
    """A limit that was left again after a second must not alarm because the rest of the story is
    still in the spool."""
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 1)])
    async with house.open():  # another segment: read as a chunk of its own
        await house.send([("g1", 0.5, 2)])
    house.now_ns = START + 3600 * SECOND
    async with house.open():
        await house.judge_all(save=True)
        assert house.history() == []


async def arrive(house: House, rows, at: float) -> None:
    """`rows` are (point, value, second); all of them come in at `at`, a second too."""
    ids, values, seconds = zip(*rows, strict=True)
    index = [house.registry.table.index(point) for point in ids]
    times = [START + round(second * SECOND) for second in seconds]
    house.now_ns = START + round(at * SECOND)
    received = [house.now_ns] * len(times)
    await house.intake.emit(Batch.of(index, values, times, received_time_ns=received))


# An alarm that came and went, saved: what never said anything takes the book's word as it is.
EARLIER = [(n, [("g1", value, n)]) for n, value in [(-20, 1.2), (-17, 1.2), (-15, 0.5), (-11, 0.5)]]


async def live(house: House, arrivals, *, saves: bool) -> None:
    """One life, and whether it ends with a checkpoint."""
    async with house.open():
        for at, rows in arrivals:
            await arrive(house, rows, at)
            await house.judge_all(save=saves)


async def of_g1(house: House) -> list[tuple[str, float]]:
    """What was told of its methane after the earlier alarm; in seconds."""
    async with house.open():
        await house.judge_all(save=True)
        found = [row for row in house.history() if row[0] == "g1:methane"]
        return [(row[3], row[4] / SECOND) for row in found][2:]


# Something is said last of all: so an earlier life had judged whatever came in before it.
LAST_WORD = [("top", 131.0, 7.7), ("pool", 130.5, 7.7)]


@pytest.mark.slow
async def test_an_alarm_told_by_a_delay_whose_end_came_later_is_over_after_a_restart_too(
    tmp_path,
) -> None:
    """The rows judged again at one go say that it never held: the core would never end it, and the
    next one would call nobody."""
    rows = [("g1", 1.2, 4)]
    told = [(5.0, rows), (6.2, [("g2", 0.5, 6.2)]), (6.3, [("g1", 0.5, 5)]), (7.7, LAST_WORD)]
    end = [(11.0, [("g1", 0.5, 11)]), (15.0, [("g1", 0.5, 15)])]
    again = [(20.0, [("g1", 1.2, 20)]), (23.0, [("g1", 1.2, 23)])]
    house = House(tmp_path)
    await live(house, EARLIER, saves=True)
    await live(house, told, saves=False)
    await live(house, end, saves=True)
    await live(house, again, saves=True)
    assert await of_g1(house) == [("ACT", 6), ("RTN", 14), ("ACT", 22)]


@pytest.mark.slow
async def test_an_alarm_told_to_be_over_though_it_lasts_is_raised_again_after_a_restart(
    tmp_path,
) -> None:
    """The rows judged again at one go say that it never ended: the core would not say that it is
    there, and the book has it as over."""
    begins = [(1.0, [("g1", 1.2, 0.5)]), (3.0, [("g1", 1.2, 3)])]
    told = [
        (4.0, [("g1", 0.5, 4)]),
        (7.2, [("g2", 0.5, 7)]),
        (7.3, [("g1", 1.3, 5)]),
        (7.7, LAST_WORD),
    ]
    lasts = [(8.0, [("g1", 1.3, 8)]), (12.0, [("g1", 1.3, 12)])]
    house = House(tmp_path)
    await live(house, [*EARLIER, *begins], saves=True)
    await live(house, told, saves=False)
    await live(house, lasts, saves=True)
    assert await of_g1(house) == [("ACT", 2.5), ("RTN", 7), ("ACT", 9)]


@pytest.mark.slow
async def test_what_came_after_an_earlier_lifes_last_word_is_judged_after_it(tmp_path) -> None:
    """All of it lies in the spool at the start: the alarm is over, and comes again."""
    told = [
        (5.0, [("g1", 1.2, 4)]),
        (6.2, [("g2", 0.5, 6)]),
        (6.3, [("g1", 0.5, 5)]),
        (7.7, LAST_WORD),
    ]
    house = House(tmp_path)
    await live(house, EARLIER, saves=True)
    async with house.open():
        for at, rows in told:
            await arrive(house, rows, at)
            await house.judge_all(save=False)
        for second, value in [(8, 0.5), (12, 0.5), (15, 1.2), (18, 1.2)]:
            await arrive(house, [("g1", value, second)], second)
    assert await of_g1(house) == [("ACT", 6), ("RTN", 11), ("ACT", 17)]


# --------------------------------------------------------------------------- stopped in the middle


async def judged_again(house: House) -> list[tuple]:
    """What a start after all this makes of the same spool."""
    async with house.open():
        await house.judge_all(save=True)
        return house.history()


ALARM = [("g1:methane", 1, 1, "ACT", 3 * SECOND)]


@pytest.mark.parametrize("where", ["declare", "journal", "lock"])
async def test_cancelled_in_the_middle_of_a_chunk_no_alarm_is_lost(tmp_path, where) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        blocked, never = asyncio.Event(), asyncio.Event()

        async def block(*_arguments) -> None:
            blocked.set()
            await never.wait()

        if where == "declare":
            house.judge._refresh = block
        elif where == "journal":

            def refuse(_events):
                blocked.set()
                raise StorageFault("no space")

            house.journal.append = refuse
        else:
            await house.judge._lock.acquire()
            asyncio.get_running_loop().call_later(0.05, blocked.set)
        task = asyncio.create_task(house.judge.run())
        await asyncio.wait_for(blocked.wait(), 5)
        task.cancel()
        if where == "lock":
            await asyncio.sleep(0)
            house.judge._lock.release()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert house.history() == []
    assert await judged_again(house) == ALARM


async def test_a_checkpoint_that_cannot_be_committed_does_not_keep_the_judge_from_ending(
    tmp_path,
) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 1)])
        task = asyncio.create_task(house.judge.run())
        async with asyncio.timeout(5):
            while not house.judge._done:
                await asyncio.sleep(0.001)

        async def refuse(_offset: int) -> None:
            raise StorageFault("EIO")

        house.judge.cursor.commit = refuse
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert house.table.of("judge") == {"checkpoint_fault": 1}


async def test_a_read_slower_than_the_tick_goes_on_instead_of_beginning_again(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        read, begun = house.judge.cursor.next, []

        async def slow(rows_max: int):
            begun.append(rows_max)
            await asyncio.sleep(0.05)  # five ticks
            return await read(rows_max)

        house.judge.cursor.next = slow
        await house.judge_all(save=True)
        assert house.history() == ALARM
        assert len(begun) <= 3


# --------------------------------------------------------------------------- bad rows, full spool


async def judging(house: House, until) -> None:
    """Run the judge, again and again if it fails, until `until()`."""
    async with asyncio.timeout(10):
        while not until():
            task = asyncio.create_task(house.judge.run())
            while not until() and not task.done():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_rows_the_disk_did_not_take_raise_their_alarm_and_repeats_raise_none(
    tmp_path,
) -> None:
    async with House(tmp_path).open() as house:
        append = house.spool.append

        async def refuse(_batch):
            raise StorageFault("EIO")

        house.spool.append = refuse
        for rows in ([("g1", 1.2, 1)], [("g1", 1.2, 5)]):
            with pytest.raises(StorageFault):
                await house.send(rows)
        await judging(house, lambda: house.judge.from_memory_count == 2)
        assert house.history() == ALARM
        assert (house.judge.judged_count, house.judge._done) == (0, 0), "no offset was moved"
        house.spool.append = append
        for rows in ([("g1", 1.2, 1)], [("g1", 1.2, 5)]):
            await house.send(rows)
        await house.judge_all(save=True)
        assert house.history() == ALARM
        assert house.judge.judged_count == 2


async def test_rows_held_in_memory_wait_for_what_the_spool_took_before_them(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        seen, evaluate = [], house.judge.rules.evaluate

        def watching(batch, now_ns):
            seen.extend(batch.value.tolist())
            return evaluate(batch, now_ns)

        house.judge.rules.evaluate = watching
        await house.send([("g2", 0.1, 1)])
        house.intake.unsaved.put(
            Batch.of([1], [0.2], START + 2 * SECOND, received_time_ns=START + 2 * SECOND)
        )
        await judging(house, lambda: house.judge.from_memory_count == 1)
        assert seen == [0.1, 0.2]


async def test_a_spool_that_cannot_be_read_does_not_stop_what_is_held_in_memory(
    tmp_path, caplog
) -> None:
    async with House(tmp_path).open() as house:
        read = house.judge.cursor.next

        async def broken(_rows_max):
            raise StorageFault("a bad sector")

        house.judge.cursor.next = broken
        await house.send([("g2", 0.5, 0)])
        for second in (1, 5):
            house.now_ns = times = START + second * SECOND
            house.intake.unsaved.put(Batch.of([0], [1.2], times, received_time_ns=times))
        await judging(house, lambda: house.judge.from_memory_count == 2)
        assert house.history() == ALARM
        assert house.status.state == "faulty"
        house.judge.cursor.next = read
        await judging(house, lambda: house.judge.judged_count == 1)
    assert caplog.text.count("the spool cannot be read") == 1


async def test_a_row_in_memory_that_cannot_be_judged_costs_itself_and_no_other(
    tmp_path, caplog
) -> None:
    async with House(tmp_path).open() as house:
        make = house.judge.make_rules

        def cursed():
            rules = make()
            evaluate = rules.evaluate

            def failing(batch, now_ns):
                if (batch.value == 7.5).any():
                    raise FloatingPointError("a bug for one value")
                return evaluate(batch, now_ns)

            rules.evaluate = failing
            return rules

        house.judge.make_rules = cursed
        await house.judge.restore()
        times = [START + second * SECOND for second in (0, 1, 2, 3)]
        house.intake.unsaved.put(
            Batch.of([1, 1, 1, 1], [0.5, 7.5, 0.5, 0.5], times, received_time_ns=times)
        )
        house.now_ns = times[-1]
        await judging(house, lambda: house.judge.from_memory_count == 3)
        assert house.table.of("judge")["not_judged.failed_alone"] == 1
        assert "NOT JUDGED: one sample of g2 held in memory" in caplog.text


async def test_a_row_that_cannot_be_judged_costs_itself_and_no_other(tmp_path, caplog) -> None:
    poison = 7.5
    async with House(tmp_path).open() as house:
        make = house.judge.make_rules

        def cursed():
            rules = make()
            evaluate = rules.evaluate

            def failing(batch, now_ns):
                if (batch.value == poison).any():
                    raise FloatingPointError("a bug for one value")
                return evaluate(batch, now_ns)

            rules.evaluate = failing
            return rules

        house.judge.make_rules = cursed
        await house.judge.restore()
        good = [("g2", 0.5, s) for s in (0, 0.2, 0.4)]
        await house.send([*good, ("g2", poison, 0.5), ("g1", 1.2, 1), ("g2", 0.5, 2)])
        await house.send([("g1", 1.2, 5)])
        for _ in range(12):
            task = asyncio.create_task(house.judge.run())
            await asyncio.wait({task}, timeout=0.1)
            if not task.done():
                break
            assert isinstance(task.exception(), FloatingPointError)
        async with asyncio.timeout(5):
            while house.judge._done < house.spool.head:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert house.history() == ALARM
        assert house.table.of("judge")["not_judged.failed_alone"] == 1
        assert "NOT JUDGED: one sample of g2" in caplog.text


async def test_a_spool_that_takes_no_derived_rows_does_not_stop_the_alarms(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        for rows in EPISODE[:4]:
            await house.send(rows)

        async def full(_batch) -> None:
            raise SpoolFull("budget spent")

        house.intake.emit_derived = full
        await house.judge_all(save=True)
        assert house.history() == EXPECTED[:2]
        assert house.table.of("judge")["dropped.derived_SpoolFull"] > 0


async def test_a_spool_that_was_deleted_is_judged_from_its_beginning(tmp_path) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 0.5, 0), ("g2", 0.5, 0)])
        await house.judge_all(save=True)
    shutil.rmtree(tmp_path / "spool")
    async with house.open():
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        assert house.history() == ALARM


async def test_a_saved_state_of_another_version_never_stops_the_start(tmp_path) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 0.5, 0)])
        await house.judge_all(save=True)
        offset, arrays = house.journal.load_checkpoint()
        house.journal.save_checkpoint(offset, {**arrays, "version": np.array([999])})
    async with house.open():
        assert house.table.of("judge") == {"checkpoint_unusable": 1}
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        assert house.history() == ALARM


async def test_only_what_is_recorded_is_shown_to_anyone(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        append, seen = house.journal.append, []

        def slow(events):
            seen.append([row.gseq for row in house.judge.standing()])
            return append(events)

        house.journal.append = slow
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        assert seen == [[]]
        assert [row.gseq for row in house.judge.standing()] == [1]


# --------------------------------------------------------------------------- clocks


async def test_a_clock_set_back_does_not_silence_the_alarms(tmp_path) -> None:
    hour = 3600
    async with House(tmp_path).open() as house:
        await house.send([("g1", 0.5, hour), ("g2", 0.5, hour)])
        await house.judge_all(save=True)
        house.now_ns = START
        await house.judge_all(save=True)  # the judge sees the step
        house.now_ns = START
        await house.send([("g1", 1.2, 1)])
        await house.send([("g1", 1.2, 5)])
        await house.judge_all(save=True)
        assert house.history() == ALARM
        assert house.table.of("judge")["clock_set_back"] == 1


async def test_a_clock_set_back_while_the_gateway_was_away_is_noticed_at_the_start(
    tmp_path,
) -> None:
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 3600)])
        await house.send([("g1", 1.2, 3605)])
        await house.judge_all(save=True)
        assert [row[3] for row in house.history()] == ["ACT"]
    house.now_ns = START
    async with house.open():
        await house.send([("g1", 0.5, 1)])
        await house.send([("g1", 0.5, 9)])
        await house.judge_all(save=True)
        assert [row[3] for row in house.history()] == ["ACT", "RTN"]


async def test_after_a_start_a_silence_of_ours_is_not_a_silence_of_the_devices(tmp_path) -> None:
    """While it settles, time moves with the data; then the clock counts again."""
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 1.2, 1)])
        await house.judge_all(save=True)
    house.now_ns = START + 60 * SECOND
    house.settle_s = 1000.0
    async with house.open():
        await house.judge_all(save=True)
        assert house.history() == []
        await house.send([("g2", 0.5, 61)])
        await house.judge_all(save=True)
        assert house.history() == ALARM


async def test_no_timer_overtakes_a_row_on_its_way_to_the_disk(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 1)])
        await house.judge_all(save=True)
        append, gate = house.spool.append, asyncio.Event()

        async def slow(batch):
            await gate.wait()
            return await append(batch)

        house.spool.append = slow
        sending = asyncio.create_task(house.send([("g1", 0.5, 2)]))
        await asyncio.sleep(0)
        house.now_ns = START + 4 * SECOND
        await house.judge_all(save=True)
        assert house.history() == []
        gate.set()
        await sending
        await house.judge_all(save=True)
        assert house.history() == []


# ------------------------------------------------------------------ a clock that went back meanwhile


@pytest.mark.parametrize("back_s", [60, 86_400 * 365])
async def test_rows_of_before_the_clock_was_set_back_do_not_make_later_ones_history(
    tmp_path, back_s
) -> None:
    """The machine comes up with a clock that has lost a year, and rows nobody has judged yet."""
    house = House(tmp_path)
    async with house.open():
        await house.send([("g1", 0.5, back_s)])
    async with house.open():
        house.now_ns = START
        for second in (1, 2, 4, 5):
            await house.send([("g1", 1.2, second)])  # read in one go with the row of before
        await house.judge_all(save=True)
        assert house.history() == [("g1:methane", 1, 1, "ACT", 3 * SECOND)]
        assert house.table.total("judge", "clock_set_back") == 1
        assert house.journal.read(0, 10)[0].annunciate
