from __future__ import annotations

import pytest

from gateway.sinks.duckdb.bench import bench
from gateway.sinks.duckdb.config import DuckdbConfig


@pytest.mark.slow
async def test_the_bench_measures_every_row_it_wrote() -> None:
    """The rate asserted is a tenth of what one core of a shared machine does: a fall by an order of
    magnitude is a defect, less is the neighbours."""
    figures = await bench(100_000, DuckdbConfig(settle_rows=50_000))
    assert figures["rows"] == 100_000
    assert figures["day_rows"] == 100
    assert figures["samples_per_s"] > 50_000
    assert figures["day_read_ms"] < 500
