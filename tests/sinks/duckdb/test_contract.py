from __future__ import annotations

from gateway.sinks.duckdb import KIND
from gateway.testing.sinks import check_sample_sink, sink_context


async def test_the_embedded_store_keeps_every_promise_of_a_sample_sink(tmp_path) -> None:
    context = sink_context(tmp_path)
    await check_sample_sink(lambda: KIND.build_samples(KIND.config(), context), context)
