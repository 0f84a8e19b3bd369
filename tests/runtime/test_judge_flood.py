"""A flood through the judge in pieces: nothing lost by a stop in its midst, the critical one first,
and people are answered meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from test_judge import START, House

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Action, Command, Role
from gateway.model.point import Point
from gateway.model.rule import Priority, Rule, Selector
from gateway.runtime import judge as judging
from gateway.runtime import verdicts

COUNT = 120
PIECE = 10
GAS = [Point(id=f"f{n:03d}", quantity="flood") for n in range(COUNT)]
DANGER = Point(id="danger", quantity="danger")
LIMITS = [
    Rule(
        id=quantity,
        kind="limit",
        inputs={"value": Selector(quantity=quantity)},
        parameters={"levels": {"H": 1.0}},
        priority=priority,
    )
    for quantity, priority in (("flood", Priority.HIGH), ("danger", Priority.CRITICAL))
]


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    for module in (verdicts, judging):
        monkeypatch.setattr(module, "PIECE_MAX", PIECE)
    monkeypatch.setattr("test_judge.POINTS", [*GAS, DANGER])
    monkeypatch.setattr("test_judge.RULES", LIMITS)


async def flood(house: House, value: float, second: int, *, danger: float | None = None) -> None:
    rows = [(point.id, value, second) for point in GAS]
    await house.send(rows if danger is None else [*rows, ("danger", danger, second)])


def keys(house: House) -> list[str]:
    return [event.alarm.alarm_key for event in house.journal.read(0, 1000)]


def begun(house: House) -> asyncio.Event:
    """Set when a flood is judged and none of it is lived through. Whoever asks for the judge's lock
    then has it after a piece or two, however slow the disk is."""
    event, put = asyncio.Event(), house.judge.verdicts.put

    def noting(work, is_critical):
        put(work, is_critical)
        if len(work.changes) > PIECE:
            event.set()

    house.judge.verdicts.put = noting
    return event


async def until(ready) -> None:
    async with asyncio.timeout(60):
        while not ready():
            await asyncio.sleep(0)


async def test_a_critical_alarm_is_recorded_first_though_it_came_with_the_last_row(tmp_path):
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 1, danger=2.0)
        await house.judge_all(save=True)
        assert keys(house)[0] == "danger:danger"
        assert sorted(keys(house)) == sorted([f"{p.id}:flood" for p in GAS] + ["danger:danger"])
        assert house.told[0] == [1], "it was told together with others"


async def test_a_critical_alarm_of_rows_that_came_in_the_flood_is_ahead_of_its_rest(tmp_path):
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 1)
        judged = begun(house)
        task = asyncio.create_task(house.judge.run())
        await asyncio.wait_for(judged.wait(), 60)
        async with house.judge._lock:  # however long the disk takes for the row
            await house.send([("danger", 2.0, 2)])
        await until(lambda: house.judge._done == house.spool.head)
        at = keys(house).index("danger:danger")
        assert at <= 3 * PIECE, "the flood was recorded first"
        found_ns = [event.recorded_time_ns for event in house.journal.read(0, 1000)]
        assert found_ns == sorted(found_ns), "the last word is the latest: the next start asks"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_point_that_is_new_in_the_flood_does_not_wait_for_its_rest(tmp_path):
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 1)
        judged = begun(house)
        task = asyncio.create_task(house.judge.run())
        await asyncio.wait_for(judged.wait(), 60)
        async with house.judge._lock:
            await house.registry.points([Point(id="newcomer", quantity="danger")])
            await house.send([("newcomer", 2.0, 2)])
        await until(lambda: house.judge._done == house.spool.head)
        assert keys(house).index("newcomer:danger") <= 3 * PIECE
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_person_is_answered_in_the_midst_of_a_flood(tmp_path):
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 1, danger=2.0)
        task = asyncio.create_task(house.judge.run())
        await until(lambda: house.told)
        row = house.judge.book.get("danger:danger")
        command = Command(
            action=Action.ACKNOWLEDGE,
            alarm_key=row.alarm_key,
            actor="op",
            role=Role.OPERATOR,
            token=f"{row.occ_no}:{row.seq}",
        )
        result = await house.judge.command(command)
        assert result.refusal is None
        assert len(keys(house)) < COUNT, "it waited for the whole flood"
        await until(lambda: house.judge._done == house.spool.head)
        assert len(keys(house)) == COUNT + 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_ended_in_the_midst_of_a_flood_the_rest_is_judged_by_the_next_start(tmp_path, how):
    house = House(tmp_path)
    async with house.open():
        await flood(house, 0.0, 0)
        await house.judge_all(save=True)
        await flood(house, 2.0, 1, danger=2.0)
        task = asyncio.create_task(house.judge.run())
        await until(lambda: house.told)
        if how == "failed":
            house.judge.book.live = None  # our own fault, in the next piece
        else:
            task.cancel()
        with pytest.raises((asyncio.CancelledError, TypeError)):
            await task
        assert 0 < len(keys(house)) < COUNT
        assert house.judge._saved_at < house.spool.head, "a checkpoint beyond what is recorded"
    async with house.open():
        await house.judge_all(save=True)
        assert sorted(keys(house)) == sorted([f"{p.id}:flood" for p in GAS] + ["danger:danger"])


async def test_a_failure_in_a_piece_is_blamed_on_the_rows_it_came_from(tmp_path, monkeypatch):
    live = AlarmBook.live

    def failing(book, changes, now_ns, **more):
        changes = list(changes)
        if any(change.instance.target == "f100" for change in changes):
            raise AssertionError("a bug")
        return live(book, changes, now_ns, **more)

    monkeypatch.setattr(AlarmBook, "live", failing)
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 1)
        passed_over: list[int] = []
        house.judge.on_passed_over = lambda offset, _batch: passed_over.append(offset)
        failures = 0
        while not passed_over:
            with pytest.raises(AssertionError, match="a bug"):
                await house.judge.run()
            failures += 1
            assert failures < 10, "it is not halved"
            task = asyncio.create_task(house.judge.run())
            await until(lambda: task.done() or house.judge._done == house.spool.head)  # noqa: B023
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert passed_over == [100]
        assert sorted(keys(house)) == [f"{p.id}:flood" for p in GAS if p.id != "f100"]


@pytest.mark.parametrize(
    ("limit", "value", "most"),
    [
        ("UNFINISHED_MAX_S", 0.0, 0),  # reading stops until a checkpoint may be taken
        ("VERDICTS_MAX", 50, 49),  # and when too much waits
    ],
)
async def test_a_flood_without_end_has_its_limits(tmp_path, monkeypatch, limit, value, most):
    monkeypatch.setattr(judging, limit, value)
    waiting: list[int] = []
    async with House(tmp_path).open() as house:
        put = house.judge.verdicts.put

        def watched(work, is_critical):
            if len(work.batch):
                waiting.append(house.judge.verdicts.count)
            put(work, is_critical)

        house.judge.verdicts.put = watched
        await flood(house, 2.0, 1)
        task = asyncio.create_task(house.judge.run())
        await until(lambda: house.told)
        for second in (2, 3):
            await flood(house, 2.0 * (second % 2), second)
        await until(lambda: house.judge._done == house.spool.head)
        assert len(waiting) > 1
        assert max(waiting) <= most
        assert len(keys(house)) == 3 * COUNT
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_clock_set_back_in_a_flood_waits_for_what_was_judged(tmp_path):
    async with House(tmp_path).open() as house:
        await flood(house, 2.0, 3600)
        task = asyncio.create_task(house.judge.run())
        await until(lambda: house.told)
        house.now_ns = START
        await until(lambda: house.table.total("judge", "clock_set_back"))
        assert len(keys(house)) == COUNT
        assert house.judge.book.newest_judged_ns() <= START
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
