"""What the spool does on this machine, beside what its disk does.

`measure` is what `hazard-gateway bench spool` prints. For each batch size the same number of bytes
is first written to a plain file with one fdatasync a batch: the machine's own limit for any log
that keeps its promises.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gateway.model.batch import Batch
from gateway.spool import record
from gateway.spool.spool import Spool, SpoolOptions

BATCH_SIZES = (1, 10, 100, 1_000, 10_000)
_CALLERS = 32  # devices that wait for their acknowledgement at once
_READ_ROWS = 50_000


@dataclass(frozen=True)
class Figures:
    """One batch size."""

    batch_rows: int
    batches: int
    alone_samples_per_s: float  # one caller, one sync a batch
    raw_samples_per_s: float  # the same bytes, write + fdatasync a batch
    grouped_samples_per_s: float  # 32 callers, group commit
    ack_p50_ms: float  # of those callers
    ack_p99_ms: float
    read_samples_per_s: float  # from disk, in chunks of 50 000


def measure(
    directory: Path, *, seconds: float = 1.0, batch_sizes: Sequence[int] = BATCH_SIZES
) -> dict[str, object]:
    """Figures for each batch size; `seconds` each way. `directory` is used and left empty."""
    figures = []
    for rows in batch_sizes:
        place = directory / f"spool-bench-{rows}"
        place.mkdir(parents=True)
        try:
            figures.append(asdict(_measure_size(place, rows, seconds)))
        finally:
            shutil.rmtree(place)
    best = max(each["grouped_samples_per_s"] for each in figures)
    return {"best_samples_per_s": best, "sizes": figures}


def _measure_size(place: Path, rows: int, seconds: float) -> Figures:
    batch = _sample_batch(rows)
    raw = _raw(place / "raw", record.encode(0, batch), seconds) * rows
    with_options = SpoolOptions(tail_rows_max=1, pending_rows_max=max(200_000, 4 * rows))
    spool = Spool.open(place / "alone", with_options)
    batches, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        spool.append_now([batch])
        batches += 1
    alone = batches * rows / took
    read = _read(spool)
    spool.close_now()
    grouped, waits = asyncio.run(_grouped(place / "grouped", with_options, batch, seconds))
    p50, p99 = np.percentile(np.array(waits), [50, 99]) * 1e3
    return Figures(rows, batches, alone, raw, grouped, float(p50), float(p99), read)


def _sample_batch(rows: int) -> Batch:
    at = np.arange(rows)
    return Batch.of(at % 1000, np.sin(at), 1_700_000_000_000_000_000 + at, received_time_ns=0)


def _raw(path: Path, body: bytes, seconds: float) -> float:
    """Writes of `body` a second, each synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writes, began = 0, time.perf_counter()
    try:
        while (took := time.perf_counter() - began) < seconds:
            os.write(descriptor, body)
            os.fdatasync(descriptor)
            writes += 1
    finally:
        os.close(descriptor)
        path.unlink()
    return writes / took


def _read(spool: Spool) -> float:
    cursor, began = spool.cursor("bench"), time.perf_counter()
    while cursor.read(_READ_ROWS) is not None:
        pass
    return cursor.position / (time.perf_counter() - began)


async def _grouped(
    place: Path, options: SpoolOptions, batch: Batch, seconds: float
) -> tuple[float, list[float]]:
    """Samples a second of 32 callers, and how long each of them waited each time."""
    spool, waits = Spool.open(place, options), []
    began = time.perf_counter()

    async def caller() -> None:
        while (asked := time.perf_counter()) - began < seconds:
            await spool.append(batch)
            waits.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    took = time.perf_counter() - began
    await spool.close()
    return len(waits) * len(batch) / took, waits
