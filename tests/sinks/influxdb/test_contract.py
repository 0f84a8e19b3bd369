"""The contract over real servers."""

from __future__ import annotations

import json
import urllib.request
from urllib.parse import urlencode

import pytest

from gateway.sinks.influxdb import KIND
from gateway.testing.sinks import Row, check_sample_sink, sink_context
from gateway.testing.stores import create_database, influxd, victoria_metrics

pytestmark = pytest.mark.system


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_influxdb_1_keeps_every_promise_of_a_sample_sink(tmp_path, compression) -> None:
    context = sink_context(tmp_path)
    with influxd(tmp_path) as url:
        config = KIND.config(
            url=url, api="v1", database=create_database(url, "mine"), compression=compression
        )
        await check_sample_sink(lambda: KIND.build_samples(config, context), context)


async def test_a_v2_server_that_cannot_be_asked_holds_every_sample(tmp_path) -> None:
    context = sink_context(tmp_path)
    with victoria_metrics(tmp_path) as url:
        config = KIND.config(url=url, api="v2", bucket="mine", token="t", read_back="none")

        async def rows(ids):
            return exported(url, ids)

        await check_sample_sink(
            lambda: KIND.build_samples(config, context), context, rows=rows, exact=False
        )


def exported(url: str, ids) -> list[Row]:
    """What VictoriaMetrics holds: one series for each field, times in milliseconds."""
    urllib.request.urlopen(url + "/internal/force_flush", timeout=10).close()
    query = urlencode({"match[]": '{__name__=~"sample_.*"}'})
    with urllib.request.urlopen(f"{url}/api/v1/export?{query}", timeout=10) as answer:
        series = [json.loads(line) for line in answer.read().splitlines()]
    fields: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for one in series:
        labels = one["metric"]
        field = labels["__name__"].removeprefix("sample_")
        for time_ms, value in zip(one["timestamps"], one["values"], strict=True):
            at = (labels["point"], labels.get("dup", ""), time_ms * 1_000_000)
            fields.setdefault(at, {}).setdefault(field, []).append(value)
    return [
        Row(point, time_ns, repr(float(value)), int(found["quality"][0]))
        for (point, _, time_ns), found in fields.items()
        if point in ids
        for value in found.get("value", [float("nan")])
    ]
