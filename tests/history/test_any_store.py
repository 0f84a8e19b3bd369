"""One law over every store: in the end it holds the input without repeats, whatever the cuts."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.history import History
from gateway.model.batch import Batch
from gateway.model.point import Point
from gateway.sinks.duckdb import KIND as DUCKDB
from gateway.sinks.influxdb import KIND as INFLUXDB
from gateway.testing.sinks import ALWAYS, NOON, Row, S, rows_of, sink_context
from gateway.testing.stores import create_database, influxd, victoria_metrics

pytestmark = [pytest.mark.system, pytest.mark.slow]

VALUES = st.sampled_from([0.0, 0.5, -1.25, 99.0, float("nan")])
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), VALUES, st.sampled_from([0, 65, 129])),
    min_size=1,
    max_size=30,
)


class Store:
    """A store under test: fresh points each time, so that one server serves all examples."""

    exact = True

    def __init__(self, kind, config, folder: Path) -> None:
        self.kind, self.config, self.folder = kind, config, folder
        self.context = sink_context(folder)

    def make(self):
        return self.kind.build_samples(self.config, self.context)

    async def rows(self, sink, ids) -> list[Row]:
        assert isinstance(sink.history, History)
        found = await sink.history.read(ids, *ALWAYS, rows_max=100_000)
        return rows_of(found.batch, self.context.points)


class Exported(Store):
    """VictoriaMetrics: looked into by its export; repeats and ties across batches are its own."""

    exact = False

    async def rows(self, sink, ids) -> list[Row]:
        urllib.request.urlopen(self.config.url + "/internal/force_flush", timeout=10).close()
        pattern = "|".join(ids)
        query = urlencode({"match[]": f'{{__name__=~"sample_(value|quality)",point=~"{pattern}"}}'})
        url = f"{self.config.url}/api/v1/export?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
        fields: dict = {}
        for line in lines:
            labels = line["metric"]
            name = labels["__name__"].removeprefix("sample_")
            for time_ms, value in zip(line["timestamps"], line["values"], strict=True):
                at = (labels["point"], labels.get("dup", ""), time_ms * 1_000_000)
                fields.setdefault(at, {})[name] = value
        return [
            Row(point, time_ns, repr(float(found.get("value", "nan"))), int(found["quality"]))
            for (point, _, time_ns), found in fields.items()
        ]


@contextmanager
def duckdb_store(folder: Path):
    yield Store(DUCKDB, DUCKDB.config(settle_rows=1_000), folder)


@contextmanager
def influxdb_store(folder: Path):
    with influxd(folder) as url:
        database = create_database(url, "mine")
        config = INFLUXDB.config(url=url, api="v1", database=database, lines_per_request=7)
        yield Store(INFLUXDB, config, folder)


@contextmanager
def victoria_store(folder: Path):
    with victoria_metrics(folder) as url:
        config = INFLUXDB.config(
            url=url, api="v2", bucket="mine", token="t", read_back="none", lines_per_request=7
        )
        yield Exported(INFLUXDB, config, folder)


STORES = {
    "duckdb": duckdb_store,
    "influxdb-1.x": influxdb_store,
    "v2-victoria-metrics": victoria_store,
}


@pytest.fixture(scope="module", params=STORES)
def store(request):
    with (
        tempfile.TemporaryDirectory() as folder,
        STORES[request.param](Path(folder)) as store,
    ):
        yield store


def make_batch(rows, base: int) -> Batch:
    point, second, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Batch.of(
        [base + p for p in point],
        value,
        [NOON + s * S for s in second],
        received_time_ns=NOON + 60 * S,
        quality=quality,
    )


@settings(max_examples=20)
@given(
    rows=ROWS,
    cuts=st.lists(st.integers(1, 29), max_size=4),
    again=st.integers(0, 30),
    restart=st.booleans(),
)
def test_a_store_ends_with_the_input_without_repeats_for_any_cut_and_any_repeated_suffix(
    store, rows, cuts, again, restart
) -> None:
    if not store.exact:  # one row for each point and time: ties need a store that can be asked
        rows = list({(p, s): (p, s, v, q) for p, s, v, q in rows}.values())
    prefix = uuid.uuid4().hex
    ids = [f"{prefix}.{i}" for i in range(3)]
    base, *_ = [store.context.points.put(Point(i)) for i in ids]
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut <= len(rows))})

    async def drive() -> list[Row]:
        sink = store.make()
        await sink.open()
        for a, b in itertools.pairwise(edges):
            await sink.write(make_batch(rows[a:b], base), b)
        if restart:
            await sink.close()
            sink = store.make()
            await sink.open()
        await sink.write(make_batch(rows[max(0, len(rows) - again) :], base), len(rows))
        found = await store.rows(sink, ids)
        await sink.close()
        return found

    found = asyncio.run(drive())
    assert sorted(found) == sorted(set(rows_of(make_batch(rows, base), store.context.points)))
