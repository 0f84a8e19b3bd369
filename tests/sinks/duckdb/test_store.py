"""The embedded store: order, threads, retention, foreign files. Damage and kill -9 stand apart."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading

import duckdb
import numpy as np
import pytest

from gateway.contract.history import BUCKETS_MAX
from gateway.model.batch import Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import Point, PointTable
from gateway.sinks.duckdb import KIND
from gateway.sinks.duckdb.sink import DELETE_INTERVAL_NS
from gateway.sinks.one_thread import WAITING_MAX
from gateway.testing.sinks import ALWAYS, NOON, S, sink_context

DAY = 86_400 * S
POLL_S = 0.05


def table(count: int) -> PointTable:
    points = PointTable()
    for i in range(count):
        points.put(Point(f"p{i}"))
    return points


def steps(begin: int, count: int, points: int = 4) -> Batch:
    """Sample i of all: one a second, points taking turns; its value says which it is."""
    i = np.arange(begin, begin + count)
    return Batch.of(i % points, i * 0.5, NOON + i * S, received_time_ns=NOON + i * S)


async def opened(tmp_path, points=4, *, now_ns=NOON, **options):
    context = sink_context(tmp_path, points=table(points), now_ns=now_ns)
    sink = KIND.build_samples(KIND.config(**options), context)
    await sink.open()
    return sink, context


def check_holds(batch: Batch, found) -> None:
    order = np.lexsort((batch.source_time_ns, batch.point_index))
    assert found.batch == batch.take(order)


async def test_moving_rows_into_order_changes_nothing_that_can_be_read(tmp_path) -> None:
    sink, _ = await opened(tmp_path, settle_rows=1_000)
    whole = steps(0, 3_000)
    for cut in range(0, 3_000, 500):
        await sink.write(whole.take(slice(cut, cut + 500)), cut + 500)
        await sink.settled()
    check_holds(whole, await sink.history.read(None, *ALWAYS, rows_max=9_999))
    assert await sink.history.count() == 3_000
    again = await sink.write(whole.take(slice(0, 500)), 500)
    assert (again.accepted, again.duplicate) == (0, 500)
    await sink.close()

    with duckdb.connect(sink.path) as file:
        assert file.execute("select count(*) from recent").fetchone() == (0,)
        runs = file.execute("select point_index, source_time_ns from settled").fetchall()
    assert len(runs) == 3_000
    assert sum(a > b for a, b in itertools.pairwise(runs)) == 2, "three sorted runs"


async def test_readers_see_whole_batches_while_rows_are_written_and_put_in_order(tmp_path) -> None:
    sink, _ = await opened(tmp_path, settle_rows=1_000)
    seen = []

    async def look() -> None:
        while len(seen) < 10_000 and (not seen or seen[-1] < 6_000):
            seen.append(await sink.history.count())

    looking = asyncio.create_task(look())
    for cut in range(0, 6_000, 200):
        await sink.write(steps(cut, 200), cut + 200)
    await looking
    await sink.close()
    assert [n % 200 for n in seen] == [0] * len(seen)
    assert seen == sorted(seen)


async def test_samples_received_too_long_ago_are_deleted_and_younger_ones_kept(tmp_path) -> None:
    sink, context = await opened(tmp_path, keep_days=2, settle_rows=1_000, now_ns=NOON + 3 * DAY)
    days = [
        Batch.of([0, 1], [1.0, 2.0], NOON + k * DAY, received_time_ns=NOON + k * DAY)
        for k in range(4)
    ]
    for k, batch in enumerate(days):
        await sink.write(batch, 2 * k + 2)
        await sink.settled()
    await sink.close()
    assert context.counters.counts["deleted:keep_days"] == 2, "once an hour, not at every write"

    later = NOON + 4 * DAY + DELETE_INTERVAL_NS
    sink, context = await opened(tmp_path, keep_days=2, now_ns=later)
    await sink.write(Batch.of([2], [5.0], later, received_time_ns=later), 9)
    await sink.settled()
    found = await sink.history.read(None, *ALWAYS, rows_max=99)
    assert sorted(set(found.received_time_ns.tolist())) == [NOON + 3 * DAY, later]
    await sink.close()


async def test_offsets_that_never_arrived_are_counted(tmp_path) -> None:
    sink, context = await opened(tmp_path)
    await sink.write(steps(0, 10), 110)
    assert context.counters.counts["missing:offset_gap"] == 0, "a new file misses nothing"
    await sink.write(steps(10, 10), 125)
    assert context.counters.counts["missing:offset_gap"] == 5
    await sink.write(steps(20, 10), 135)
    assert context.counters.counts["missing:offset_gap"] == 5
    await sink.close()


async def test_a_file_that_numbers_its_points_differently_is_refused_and_left_alone(
    tmp_path,
) -> None:
    sink, _ = await opened(tmp_path)
    await sink.write(steps(0, 10), 10)
    await sink.close()
    points = PointTable()
    for name in ("p1", "p0", "p2", "p3"):
        points.put(Point(name))
    for foreign in (points, table(2)):
        context = sink_context(tmp_path, points=foreign)
        other = KIND.build_samples(KIND.config(), context)
        with pytest.raises(Refused, match="registry"):
            await other.open()
        await other.close()
    assert [p.name for p in tmp_path.iterdir() if "damaged" in p.name] == []
    sink, _ = await opened(tmp_path)
    assert await sink.history.count() == 10
    await sink.close()


async def test_the_file_names_its_points_for_whoever_reads_it_without_the_gateway(
    tmp_path,
) -> None:
    sink, context = await opened(tmp_path, points=1)
    await sink.write(Batch.of([0], [1.0], NOON, received_time_ns=NOON), 1)
    context.points.put(Point("later"))
    await sink.write(Batch.of([1], [2.0], NOON, received_time_ns=NOON), 2)
    await sink.close()
    with duckdb.connect(sink.path) as file:
        rows = file.execute(
            "select id, value from recent join point using (point_index) order by 1"
        ).fetchall()
    assert rows == [("later", 2.0), ("p0", 1.0)]


@pytest.mark.system
async def test_a_file_held_by_another_process_is_waited_for_and_not_called_damaged(
    tmp_path,
) -> None:
    sink, _ = await opened(tmp_path)
    await sink.close()
    hold = (
        f"import duckdb; c = duckdb.connect({str(sink.path)!r}); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable, match="lock"):
            await sink.open()
        holder.communicate(b"\n")
    await sink.open()
    await sink.close()
    assert sink.damage == ""


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    context = sink_context(tmp_path)
    sink = KIND.build_samples(KIND.config(path=tmp_path / "file" / "h.duckdb"), context)
    with pytest.raises(Unavailable):
        await sink.open()
    await sink.close()


async def test_history_of_a_closed_store_is_unavailable_and_an_unknown_point_a_key_error(
    tmp_path,
) -> None:
    sink, _ = await opened(tmp_path)
    with pytest.raises(KeyError):
        await sink.history.read(["nobody"], 0, 1, rows_max=1)
    await sink.close()
    with pytest.raises(Unavailable):
        await sink.history.count()
    with pytest.raises(Unavailable):
        await sink.history.latest([0])


async def test_more_queries_than_may_wait_are_told_so_and_a_cancelled_one_ends(tmp_path) -> None:
    sink, _ = await opened(tmp_path)
    await sink.write(steps(0, 2_000), 2_000)
    asked = [asyncio.create_task(sink.history.count()) for _ in range(WAITING_MAX + 3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(a, Unavailable) for a in answers) == 3
    assert sum(a == 2_000 for a in answers) == WAITING_MAX

    begun = threading.Event()

    def for_ever(connection):
        begun.set()
        connection.execute("select sum(a.range * b.range) from range(1000000) a, range(1000000) b")

    slow = asyncio.create_task(sink.history._ask(for_ever))
    assert await asyncio.to_thread(begun.wait, 5)
    await asyncio.sleep(POLL_S)  # the engine can be interrupted once it runs
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    async with asyncio.timeout(5):
        assert await sink.history.count() == 2_000, "the thread is free again"
    await sink.close()


async def test_a_trend_over_ten_years_has_as_many_buckets_as_asked_for(tmp_path) -> None:
    sink, _ = await opened(tmp_path)
    batch = Batch.of(
        [0, 0, 0],
        [1.0, 2.0, 3.0],
        [NOON, NOON, NOON + 3_650 * DAY - 1],
        received_time_ns=[1, 2, 3],
    )
    await sink.write(batch, 3)
    found = await sink.history.buckets("p0", NOON, NOON + 3_650 * DAY, BUCKETS_MAX)
    assert len(found) == BUCKETS_MAX
    assert (found.n[0], found.last[0], found.n[-1], found.max[-1]) == (2, 2.0, 1, 3.0)
    assert found.n.sum() == 3
    await sink.close()


async def test_the_latest_of_equal_times_is_the_last_received(tmp_path) -> None:
    sink, _ = await opened(tmp_path)
    batch = Batch.of(
        [2, 1, 1, 1],
        [9.0, 1.0, 2.0, 3.0],
        [NOON - 900 * DAY, NOON, NOON, NOON - S],
        received_time_ns=[7, 5, 6, 9],
    )
    await sink.write(batch, 4)
    found = await sink.history.latest(["p1", "p0", "p2"])
    assert found.point_index.tolist() == [1, 2]
    assert found.value.tolist() == [2.0, 9.0]
    await sink.close()


async def test_rows_that_run_ahead_are_no_gap_and_leave_none_behind(tmp_path) -> None:
    points = PointTable()
    points.put(Point("p0"))
    context = sink_context(tmp_path, points=points)
    counts = context.counters.counts

    def rows(start: int, end: int) -> Batch:
        times = [NOON + n * S for n in range(start, end)]
        return Batch.of([0] * len(times), range(start, end), times, received_time_ns=NOON)

    for cuts in (
        [(0, 10, False), (50, 60, True), (10, 20, False)],
        [(60, 70, True), (20, 50, False), (70, 70, False), (70, 80, False)],
        [(80, 90, False)],
    ):
        sink = KIND.build_samples(KIND.config(), context)  # as after a restart
        await sink.open()
        for start, end, ahead in cuts:
            await sink.write(rows(start, end), end, ahead=ahead)
            assert counts["missing:offset_gap"] == 0
        await sink.close()
    sink = KIND.build_samples(KIND.config(), context)
    await sink.open()
    assert await sink.history.count() == 90
    await sink.write(rows(95, 96), 96)
    assert counts["missing:offset_gap"] == 5
    await sink.close()
