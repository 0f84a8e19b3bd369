"""Two lanes after an outage: live rows first, nothing skipped, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.schema import DeliverySection
from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault, Unavailable
from gateway.model.point import Point, PointTable
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.deliver import SampleDelivery, SetAside
from gateway.runtime.lanes import Lanes, Turns
from gateway.runtime.supervisor import Backoff
from gateway.spool import Spool

NOW = 1_790_000_000_000_000_000
ROWS_MAX = 5
FAR = 20  # rows behind: live first
HANGS_S = 120
POINTS = PointTable()
for number in range(3):
    POINTS.put(Point(f"p{number}"))


class Died(StorageFault):
    """The process ends here: what is durable stays, nothing else."""


class Recorder:
    """A store that notes every row it is given, in order; `away` calls fail first."""

    history = None

    def __init__(self) -> None:
        self.now_s = 0.0
        self.away = 0
        self.writes: list[tuple[int, int, bool]] = []  # start, end, ahead
        self.said: list[int] = []  # offsets before which nothing is to come

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        if not len(batch):
            self.said.append(offset)
            return WriteResult(0)
        assert batch.value.tolist() == list(range(offset - len(batch), offset)), "row = its offset"
        self.now_s += 0.01 * len(batch)
        self.writes.append((offset - len(batch), offset, ahead))
        return WriteResult(accepted=len(batch))


class World:
    """One gateway's spool and store over starts and crashes."""

    def __init__(self, folder, *, share: float = 0.5) -> None:
        self.folder = folder
        self.share = share
        self.store = Recorder()
        self.dropped = 0
        self.sent = 0
        self.arriving = 0  # rows that come in during each back-off
        self.start()

    def start(self) -> None:
        self.spool = Spool.open(self.folder / "spool")
        table = CounterTable()
        counters = table.component("store")
        self.status = StatusCell("store")
        self.table = table
        self.delivery = SampleDelivery(
            name="store",
            lanes=Lanes(self.spool, "store"),
            sink=self.store,
            set_aside=SetAside(self.folder / "rejected.jsonl", POINTS, counters),
            counters=counters,
            status=self.status,
            backoff=Backoff(random.Random(1)),
            limits=DeliverySection(live_first_after_rows=FAR, backlog_share=self.share),
            sleep=self.sleep,
            monotonic_s=lambda: self.store.now_s,
        )

    async def sleep(self, seconds: float) -> None:
        self.store.now_s += seconds
        await self.rows(self.arriving)

    async def rows(self, count: int) -> None:
        if count:
            values = list(range(self.sent, self.sent + count))
            self.sent += count
            await self.spool.append(
                Batch.of([v % 3 for v in values], values, NOW, received_time_ns=NOW)
            )

    def die_at(self, step: int, *, after: bool) -> None:
        """At the `step`-th durable move of a cursor from now on: before or after it is durable."""
        spool, left = self.spool, step
        now, later = spool._set_cursor, spool._set_cursor_async

        def is_it() -> bool:
            nonlocal left
            left -= 1
            return left == 0

        def set_now(name: str, offset: int | None) -> None:
            dies = is_it()
            if dies and not after:
                raise Died
            now(name, offset)
            if dies:
                raise Died

        async def set_later(name: str, offset: int) -> None:
            dies = is_it()
            if dies and not after:
                raise Died
            await later(name, offset)
            if dies:
                raise Died

        spool._set_cursor, spool._set_cursor_async = set_now, set_later

    async def run(self, until: Callable[[], bool]) -> bool:
        """Serve until `until()` or death; whether it died. The time-out ends a test that hangs:
        it is no measure of how long a commit takes on a loaded disk."""
        task = asyncio.create_task(self.delivery.run())
        try:
            async with asyncio.timeout(HANGS_S):
                while not (task.done() or until()):
                    await asyncio.sleep(0)
        finally:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, Died | asyncio.CancelledError), repr(outcome)
        return isinstance(outcome, Died)

    async def again(self) -> None:
        """The next process."""
        self.dropped += self.delivery.dropped_count
        await self.spool.close()
        self.start()

    @property
    def is_done(self) -> bool:
        lanes = self.delivery.lanes
        return lanes.behind == 0 and not lanes.is_split

    def written(self) -> set[int]:
        return {row for start, end, _ in self.store.writes for row in range(start, end)}

    def check_order(self, writes: list[tuple[int, int, bool]]) -> None:
        """Within one life: each lane moves forward only, and never over a row of its own twice."""
        for lane in (False, True):
            ends = [(start, end) for start, end, ahead in writes if ahead == lane]
            for (_, end), (start, _) in pairwise(ends):
                assert start >= end, f"lane ahead={lane}: {start} after {end}"


Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.deliver.WRITE_ROWS_MAX", ROWS_MAX)


async def test_after_an_outage_live_rows_go_first_and_the_backlog_behind_them(tmp_path) -> None:
    world = World(tmp_path)
    await world.rows(3)
    world.store.away, world.arriving = 10, 10
    await world.run(lambda: world.delivery.lanes.is_split)
    world.arriving = 0
    mark = world.sent
    await world.rows(7)
    await world.run(lambda: world.is_done)
    first_live = next(i for i, (_, _, ahead) in enumerate(world.store.writes) if ahead)
    backlog_before = [end for _, end, ahead in world.store.writes[:first_live] if not ahead]
    assert max(backlog_before) <= 2 * ROWS_MAX, "the batch in hand, and one at most"
    assert world.store.writes[first_live][0] == mark
    assert world.written() == set(range(world.sent))
    assert world.store.said == [mark + 7], "told that nothing older comes"
    assert world.spool.cursor_names() == ["store"], "the lanes are gone"
    assert world.delivery.cursor.committed == world.sent
    await world.spool.close()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_the_backlog_gets_its_share_of_the_write_time_while_live_rows_wait(
    tmp_path, share
) -> None:
    world = World(tmp_path, share=share)
    await world.rows(3_000)
    await world.run(lambda: world.delivery.lanes.is_split)
    await world.rows(3_000)  # live rows wait from now on, always
    begin = len(world.store.writes)
    await world.run(lambda: len(world.store.writes) >= begin + 200)
    writes = world.store.writes[begin : begin + 200]
    backlog = sum(end - start for start, end, ahead in writes if not ahead)
    assert backlog / sum(end - start for start, end, _ in writes) == pytest.approx(share, abs=0.02)
    measured, rows_per_s = world.delivery.turns.measured()
    assert measured == pytest.approx(share, abs=0.05)
    assert rows_per_s == pytest.approx(100 * share, rel=0.2), "a row takes 10 ms"
    assert f"{100 * measured:.0f} % of the write time" in world.status.detail
    assert world.table.of("store")["written.backlog"] > 0
    await world.spool.close()


async def test_without_live_rows_the_backlog_has_all_of_the_write_time(tmp_path) -> None:
    world = World(tmp_path, share=0.1)
    await world.rows(300)
    await world.run(lambda: world.is_done and not world.status.detail)
    assert [ahead for _, _, ahead in world.store.writes] == [False] * 60
    assert world.status.detail == ""
    await world.spool.close()


async def test_a_second_outage_puts_live_rows_first_again(tmp_path) -> None:
    world = World(tmp_path)
    await world.rows(100)
    await world.run(lambda: world.delivery.lanes.is_split)
    await world.rows(10)
    await world.run(lambda: world.store.writes[-1][2])
    world.store.away, world.arriving = 5, 30
    await world.run(lambda: world.table.of("store").get("live_first") == 2)
    world.arriving = 0
    mark = world.delivery.lanes._mark
    assert mark is not None
    assert mark.committed >= 110 + 3 * 30, "what came in during the second outage is backlog too"
    await world.run(lambda: world.is_done)
    assert world.written() == set(range(world.sent))
    await world.spool.close()


async def test_a_store_that_is_only_slow_does_not_write_its_live_rows_twice(tmp_path) -> None:
    world = World(tmp_path)
    await world.rows(200)
    await world.run(lambda: world.delivery.lanes.is_split)
    await world.rows(400)  # the live lane is far behind as well, without an outage
    await world.run(lambda: world.is_done)
    rows = [row for start, end, _ in world.store.writes for row in range(start, end)]
    assert len(rows) == len(set(rows)) == 600
    await world.spool.close()


async def test_given_up_rows_are_the_backlogs_first_and_counted_once(tmp_path) -> None:
    world = World(tmp_path)
    await world.rows(100)
    await world.run(lambda: world.delivery.lanes.is_split)
    await world.rows(10)
    await world.run(lambda: world.store.writes[-1][2])
    before = world.delivery.cursor.committed
    world.delivery.forget(100)
    await world.run(lambda: world.is_done)
    assert world.delivery.dropped_count == 100 - before
    assert world.written() == set(range(before)) | set(range(100, 110))
    await world.spool.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 9))
async def test_a_crash_at_any_durable_step_of_the_lanes_loses_nothing(
    tmp_path, step, after
) -> None:
    """Every step from the first commit with two lanes in sight to the last drop."""
    world = World(tmp_path)
    await world.rows(30)
    world.die_at(step, after=after)
    died = await world.run(lambda: world.is_done)
    assert died, "there are at least so many steps"
    await world.again()
    await world.rows(4)
    await world.run(lambda: world.is_done)
    assert world.written() == set(range(world.sent))
    assert world.spool.cursor_names() == ["store"]
    await world.spool.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 6))
async def test_a_crash_while_the_mark_is_moved_loses_nothing(tmp_path, step, after) -> None:
    """The steps of a second outage: the write in hand, the mark, the live lane."""
    world = World(tmp_path)
    await world.rows(100)
    await world.run(lambda: world.delivery.lanes.is_split)
    await world.rows(10)
    await world.run(lambda: world.store.writes[-1][2])
    world.store.away, world.arriving = 5, 30
    world.die_at(step, after=after)
    assert await world.run(lambda: world.is_done)
    world.store.away = world.arriving = 0
    await world.again()
    await world.run(lambda: world.is_done)
    assert world.written() == set(range(world.sent))
    await world.spool.close()


@pytest.mark.parametrize("step", range(1, 9))
async def test_a_fault_at_any_durable_step_is_got_over_without_a_new_start(tmp_path, step) -> None:
    """The spool may refuse a step that the disk did not bear; the task is run again."""
    world = World(tmp_path)
    await world.rows(30)
    world.die_at(step, after=False)
    assert await world.run(lambda: world.is_done)
    await world.rows(4)
    await world.run(lambda: world.is_done)
    assert world.written() == set(range(world.sent))
    assert world.spool.cursor_names() == ["store"]
    await world.spool.close()


ACTS = st.one_of(
    st.tuples(st.just("rows"), st.integers(1, 60)),
    st.tuples(st.just("away"), st.integers(1, 6), st.integers(0, 15)),
    st.tuples(st.just("serve"), st.integers(1, 12)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("die"), st.integers(1, 14), st.booleans()),
    st.tuples(st.just("forget"), st.floats(0, 1)),
)


async def _act(world: World, act: tuple) -> None:
    kind, *arguments = act
    writes = len(world.store.writes)
    if kind == "rows":
        await world.rows(arguments[0])
    elif kind == "away":
        world.store.away, world.arriving = arguments
        await world.run(lambda: world.store.away == 0 or world.is_done)
        world.store.away = world.arriving = 0
    elif kind == "serve":
        enough = writes + arguments[0]
        await world.run(lambda: len(world.store.writes) >= enough or world.is_done)
    elif kind == "restart":
        await world.again()
    elif kind == "die":
        world.die_at(arguments[0], after=arguments[1])
        await world.run(lambda: world.is_done)
        await world.again()
    else:
        cursor = world.delivery.cursor
        world.delivery.forget(
            cursor.committed + int(arguments[0] * (world.sent - cursor.committed))
        )
        await world.run(lambda: cursor.committed >= world.delivery._forget_to)
    world.check_order(world.store.writes[writes:])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(acts=st.lists(ACTS, max_size=12), share=st.sampled_from([0.1, 0.5, 0.9]))
def test_every_row_is_written_in_the_order_of_its_lane_or_counted_as_dropped(
    tmp_path_factory, acts, share
) -> None:
    async def scenario() -> None:
        world = World(tmp_path_factory.mktemp("lanes"), share=share)
        for act in acts:
            await _act(world, act)
        await world.rows(1)
        assert not await world.run(lambda: world.is_done)
        assert world.is_done, "the end is reached"
        missing = set(range(world.sent)) - world.written()
        dropped = world.dropped + world.delivery.dropped_count
        assert len(missing) <= dropped, f"never written: {sorted(missing)[:9]}"
        if not any(act[0] == "forget" for act in acts):
            assert dropped == 0
        # A run that is cut while lanes begin or join may leave a mark: the next process drops it.
        await world.again()
        assert not await world.run(lambda: world.is_done)
        assert world.spool.cursor_names() == ["store"]
        await world.spool.close()

    asyncio.run(scenario())


def test_turns_without_live_rows_cost_the_backlog_nothing() -> None:
    turns = Turns(0.5)
    for second in range(100):
        turns.took(second, 1.0, 10, ahead=False, live_waited=False)
    assert not turns.is_backlogs(live_waits=True), "a live row that comes now goes first"
    turns.took(101, 1.0, 10, ahead=True, live_waited=True)
    assert turns.is_backlogs(live_waits=True)
