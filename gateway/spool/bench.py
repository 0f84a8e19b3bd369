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
    raw_p50_ms: float  # of one write + fdatasync of the same bytes, nothing else
    raw_p99_ms: float
    alone_p50_ms: float  # acknowledgement of one caller at a time
    alone_p99_ms: float
    alone_samples_per_s: float  # one caller, one sync a batch
    raw_samples_per_s: float  # the same bytes, write + fdatasync a batch
    grouped_samples_per_s: float  # 32 callers, group commit
    ack_p50_ms: float  # of those callers, all waiting at once
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
    raw_waits = _raw(place / "raw", record.encode(0, batch), seconds)
    with_options = SpoolOptions(tail_rows_max=1, pending_rows_max=max(200_000, 4 * rows))
    spool = Spool.open(place / "alone", with_options)
    alone_waits, began = list[float](), time.perf_counter()
    while (asked := time.perf_counter()) - began < seconds:
        spool.append_now([batch])
        alone_waits.append(time.perf_counter() - asked)
    read = _read(spool)
    spool.close_now()
    grouped, waits = asyncio.run(_grouped(place / "grouped", with_options, batch, seconds))
    return Figures(
        batch_rows=rows,
        batches=len(alone_waits),
        raw_p50_ms=_ms(raw_waits, 50),
        raw_p99_ms=_ms(raw_waits, 99),
        alone_p50_ms=_ms(alone_waits, 50),
        alone_p99_ms=_ms(alone_waits, 99),
        alone_samples_per_s=len(alone_waits) * rows / sum(alone_waits),
        raw_samples_per_s=len(raw_waits) * rows / sum(raw_waits),
        grouped_samples_per_s=grouped,
        ack_p50_ms=_ms(waits, 50),
        ack_p99_ms=_ms(waits, 99),
        read_samples_per_s=read,
    )


def _ms(waits_s: Sequence[float], percentile: float) -> float:
    return float(np.percentile(np.array(waits_s), percentile) * 1e3)


def _sample_batch(rows: int) -> Batch:
    at = np.arange(rows)
    return Batch.of(at % 1000, np.sin(at), 1_700_000_000_000_000_000 + at, received_time_ns=0)


def _raw(path: Path, body: bytes, seconds: float) -> list[float]:
    """How long each of many writes of `body` took, each synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    waits, began = list[float](), time.perf_counter()
    try:
        while (asked := time.perf_counter()) - began < seconds:
            os.write(descriptor, body)
            os.fdatasync(descriptor)
            waits.append(time.perf_counter() - asked)
    finally:
        os.close(descriptor)
        path.unlink()
    return waits


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
