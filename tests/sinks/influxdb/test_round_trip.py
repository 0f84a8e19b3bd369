"""Ids, values and poison through a real InfluxDB: what is written is what is read."""

from __future__ import annotations

import asyncio
import re
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.model.point import ID_PATTERN, Point
from gateway.sinks.influxdb import KIND
from gateway.testing.sinks import ALWAYS, NOON, S, rows_of, sink_context
from gateway.testing.stores import create_database, influxd

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with influxd(tmp_path_factory.mktemp("influxdb")) as url:
        create_database(url, "mine")
        yield url


AWKWARD = st.text(st.sampled_from("\\%25C,=\"'a瓦.:|*$(é"), min_size=1, max_size=10)
IDS = AWKWARD | st.from_regex(ID_PATTERN, fullmatch=True).filter(
    lambda text: re.search("[\ud800-\udfff]", text) is None
)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    ids=st.lists(IDS, min_size=1, max_size=5, unique=True),
    values=st.lists(st.floats(allow_infinity=False), min_size=1, max_size=10),
    site=st.sampled_from(["mine-1", "三号 矿", "a=b,c", "tail\\"]),
)
def test_every_id_and_every_value_comes_back_as_it_went(
    url, tmp_path_factory, ids, values, site
) -> None:
    from dataclasses import replace

    context = replace(sink_context(tmp_path_factory.getbasetemp()), site=site)
    points = [context.points.put(Point(point_id)) for point_id in ids]
    # a measurement of its own for each example; content decides, so a shrunk one is new as well
    name = f"m{abs(hash((tuple(ids), repr(values), site)))}"
    config = KIND.config(url=url, api="v1", database="mine", measurement=name)
    batch = Batch.of(
        [points[i % len(points)] for i in range(len(values))],
        values,
        [NOON + i * S for i in range(len(values))],
        received_time_ns=[NOON + i for i in range(len(values))],
        quality=[i % 3 for i in range(len(values))],
    )

    async def drive():
        sink = KIND.build_samples(config, context)
        await sink.open()
        result = await sink.write(batch, len(batch))
        found = await sink.history.read(ids, *ALWAYS, rows_max=1_000)
        latest = await sink.history.latest(ids)
        await sink.close()
        return result, found, latest

    result, found, latest = asyncio.run(drive())
    assert len(result.rejected) == 0, result.reasons
    assert sorted(rows_of(found.batch, context.points)) == sorted(rows_of(batch, context.points))
    assert set(found.received_time_ns.tolist()) == set(batch.received_time_ns.tolist())
    assert set(latest.point_index.tolist()) == set(batch.point_index.tolist())


def lines_to(url: str, body: str) -> None:
    request = urllib.request.Request(
        f"{url}/write?db=mine&precision=ns", body.encode(), method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()


async def test_a_field_of_another_type_is_named_and_all_other_rows_are_stored(
    url, tmp_path
) -> None:
    # a shard whose `value` is an integer, as another program left it
    lines_to(url, f"typed,point=old,site=mine-1 value=1i {NOON}")
    context = sink_context(tmp_path)
    point = context.points.put(Point("p"))
    sink = KIND.build_samples(
        KIND.config(url=url, api="v1", database="mine", measurement="typed"), context
    )
    await sink.open()
    nan = float("nan")
    batch = Batch.of(
        [point] * 3, [1.5, nan, nan], [NOON, NOON + S, NOON + 2 * S], received_time_ns=NOON
    )
    result = await sink.write(batch, 3)
    assert result.rejected.tolist() == [0]
    assert result.reasons[0].startswith("field_type_conflict: ")
    assert len(await sink.history.read(["p"], *ALWAYS, rows_max=9)) == 2
    await sink.close()


async def test_a_database_that_is_not_there_is_waited_for(url, tmp_path) -> None:
    context = sink_context(tmp_path)
    point = context.points.put(Point("p"))
    batch = Batch.of([point], [1.0], [NOON], received_time_ns=NOON)
    for read_back in ("influxql", "none"):
        config = KIND.config(url=url, api="v1", database=f"late_{read_back}", read_back=read_back)
        sink = KIND.build_samples(config, context)
        await sink.open()
        with pytest.raises(Unavailable, match="not found"):
            await sink.write(batch, 1)
        create_database(url, f"late_{read_back}")
        assert (await sink.write(batch, 1)).accepted == 1
        await sink.close()


async def test_a_slice_is_cut_at_rows_max_in_order_of_points(url, tmp_path) -> None:
    context = sink_context(tmp_path)
    points = [context.points.put(Point(f"p{i}")) for i in range(300)]
    config = KIND.config(url=url, api="v1", database="mine", measurement="many")
    sink = KIND.build_samples(config, context)
    await sink.open()
    batch = Batch.of(
        points * 2, [1.0] * 600, [NOON] * 300 + [NOON + S] * 300, received_time_ns=NOON
    )
    await sink.write(batch, 600)
    found = await sink.history.read(None, *ALWAYS, rows_max=501)
    assert found.truncated
    assert found.point_index.tolist() == [i // 2 for i in range(501)]
    assert await sink.history.count() == 600
    assert len(await sink.history.latest([f"p{i}" for i in range(300)])) == 300
    await sink.close()
