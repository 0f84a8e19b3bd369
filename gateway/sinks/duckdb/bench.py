"""How fast the embedded store is here: durable batches a second, a point's day in milliseconds.

    python -m gateway.sinks.duckdb.bench [rows]

Prints one JSON object, with what the disk alone does beside it (`disk_sync_ms`: writing and syncing
as many bytes as one batch has). The plant: 1,000 points once a second, two decimals, received 50 ms
after they were measured, in batches of 10,000; housekeeping runs as it does in a gateway.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson

from gateway.contract.adapter import Counters
from gateway.contract.sink import SinkContext
from gateway.model.batch import ROW_BYTES, Batch
from gateway.model.point import Point, PointTable
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.duckdb.sink import DuckdbSink

ROWS = 3_000_000
BATCH_ROWS = 10_000
POINTS = 1_000
_S = 1_000_000_000
_BEGIN_NS = 1_700_000_000 * _S
_READS = 9


class _Silent:
    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        """Nobody looks."""


async def bench(rows: int = ROWS, config: DuckdbConfig | None = None) -> dict[str, float]:
    """Run in a temporary folder; see the keys of the result for what was measured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sink = DuckdbSink(config or DuckdbConfig(), _context(folder))
        await sink.open()
        write_ms = await _write_all(sink, rows)
        await sink.settled()
        span = (_BEGIN_NS, _BEGIN_NS + 86_400 * _S)
        read_ms, day_rows = await _time_reads(sink, span)
        bucket_ms = await _time_buckets(sink, span)
        count = await sink.history.count()
        await sink.close()
        assert count == rows, f"{count} of {rows} rows are held"
        began = time.perf_counter()
        await sink.open()
        open_ms = (time.perf_counter() - began) * 1e3
        await sink.close()
        return {
            "samples_per_s": round(rows / write_ms.sum() * 1e3),
            "write_p50_ms": round(float(np.median(write_ms)), 2),
            "write_p99_ms": round(float(np.percentile(write_ms, 99)), 2),
            "write_max_ms": round(float(write_ms.max()), 2),
            "disk_sync_ms": round(_disk_sync_ms(folder), 2),
            "bytes_per_sample": round(sink.path.stat().st_size / rows, 2),
            "day_read_ms": round(read_ms, 2),
            "day_rows": day_rows,
            "day_trend_ms": round(bucket_ms, 2),
            "open_ms": round(open_ms, 1),
            "rows": rows,
        }


async def _write_all(sink: DuckdbSink, rows: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    took = []
    for begin in range(0, rows, BATCH_ROWS):
        batch = _batch(begin)
        began = time.perf_counter()
        await sink.write(batch, begin + BATCH_ROWS)
        took.append((time.perf_counter() - began) * 1e3)
    return np.array(took)


async def _time_reads(sink: DuckdbSink, span: tuple[int, int]) -> tuple[float, int]:
    took, day_rows = [], 0
    for i in range(_READS):
        began = time.perf_counter()
        found = await sink.history.read([i * 97 % POINTS], *span, rows_max=1_000_000)
        took.append((time.perf_counter() - began) * 1e3)
        day_rows = len(found)
    return float(np.median(took)), day_rows


async def _time_buckets(sink: DuckdbSink, span: tuple[int, int]) -> float:
    took = []
    for i in range(_READS):
        began = time.perf_counter()
        await sink.history.buckets(i * 89 % POINTS, *span, 800)
        took.append((time.perf_counter() - began) * 1e3)
    return float(np.median(took))


def _batch(begin: int) -> Batch:
    rng = np.random.default_rng(begin)
    i = np.arange(begin, begin + BATCH_ROWS)
    source = _BEGIN_NS + i // POINTS * _S
    return Batch.of(
        i % POINTS,
        np.round(rng.normal(1.0, 0.2, BATCH_ROWS), 2),
        source,
        received_time_ns=source + 50_000_000,
    )


def _disk_sync_ms(folder: Path) -> float:
    took = []
    data = os.urandom(BATCH_ROWS * ROW_BYTES)
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(20):
            began = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return float(np.median(took))


def _context(folder: Path) -> SinkContext:
    points = PointTable()
    for i in range(POINTS):
        points.put(Point(f"p{i}"))
    silent: Counters = _Silent()
    return SinkContext(
        name="bench",
        tenant="bench",
        site="bench",
        points=points,
        now_ns=lambda: _BEGIN_NS,
        counters=silent,
        status=lambda _state, _detail="": None,
        state_dir=folder,
    )


def main(arguments: list[str]) -> None:
    figures: Mapping[str, float] = asyncio.run(bench(int(arguments[0]) if arguments else ROWS))
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
