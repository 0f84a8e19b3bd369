"""Samples of one point with one time and different values: all kept, in every store, however the
rows were cut, repeated or sent in two lanes."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.sinks.duckdb import KIND as DUCKDB
from gateway.sinks.influxdb import KIND as INFLUXDB
from gateway.testing.sinks import ALWAYS, NOON, S, rows_of, sink_context
from gateway.testing.stores import create_database, influxd

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.sampled_from([1.0, 2.0, 2.5]), st.just(0)),
    min_size=1,
    max_size=24,
)
WRITES = st.lists(
    st.tuples(st.integers(0, 24), st.integers(1, 24), st.booleans(), st.booleans()), max_size=6
)
FEW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_numbers = itertools.count()


def batch_of(rows, offset: int) -> Batch:
    return Batch.of(
        [offset + point for point, *_ in rows],
        [value for _, _, value, _ in rows],
        [NOON + second * S for _, second, _, _ in rows],
        received_time_ns=NOON + 10 * S,
    )


async def keep_all(make, points: PointTable, rows, writes) -> None:
    """Any slices in any lane and over restarts, then everything twice: the set of what was given."""
    number = next(_numbers)
    first = points.put(Point(f"e{number}.p0"))
    points.put(Point(f"e{number}.p1"))
    whole = batch_of(rows, first)
    sink = make()
    await sink.open()
    for start, size, ahead, restarts in writes:
        part = whole.take(slice(start, start + size))
        if len(part):
            await sink.write(part, start + len(part), ahead=ahead)
        if restarts:
            await sink.close()
            sink = make()
            await sink.open()
    await sink.write(whole, len(whole))
    again = await sink.write(whole, len(whole))
    assert (again.accepted, again.duplicate) == (0, len(whole)), "the same again changes nothing"
    ids = [f"e{number}.p0", f"e{number}.p1"]
    found = rows_of((await sink.history.read(ids, *ALWAYS, rows_max=999)).batch, points)
    await sink.close()
    assert sorted(found) == sorted(set(rows_of(whole, points)))


def test_duckdb_keeps_every_value_of_one_time(tmp_path) -> None:
    points = PointTable()
    context = sink_context(tmp_path, points=points)

    @FEW
    @given(rows=ROWS, writes=WRITES)
    def law(rows, writes) -> None:
        make = lambda: DUCKDB.build_samples(DUCKDB.config(), context)  # noqa: E731
        asyncio.run(keep_all(make, points, rows, writes))

    law()


def test_influxdb_keeps_every_value_of_one_time(tmp_path) -> None:
    points = PointTable()
    context = sink_context(tmp_path, points=points)
    with influxd(tmp_path) as url:
        config = INFLUXDB.config(url=url, api="v1", database=create_database(url, "ties"))

        @FEW
        @given(rows=ROWS, writes=WRITES)
        def law(rows, writes) -> None:
            make = lambda: INFLUXDB.build_samples(config, context)  # noqa: E731
            asyncio.run(keep_all(make, points, rows, writes))

        law()
