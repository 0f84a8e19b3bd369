"""How long a start takes on a backlog, and what memory: beside a small backlog in the same run.

The spool is made by the real writer, in large batches, and opened in a process of its own, so that
the peak memory is that of the start alone. `ready` is opened, a row appended and durable, and the
oldest rows read.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gateway.model.batch import Batch
from gateway.spool.record import ROWS_MAX, size_of
from gateway.spool.spool import Spool, SpoolOptions

SMALL_GB = 0.1
_BATCHES = 8  # a group commit of 15 MB

_OPEN = """
import json, resource, sys, time
began, cpu = time.perf_counter(), time.process_time
from pathlib import Path
from gateway.model.batch import Batch
from gateway.spool.spool import Spool, SpoolOptions
imported, before = time.perf_counter(), cpu()
spool = Spool.open(Path(sys.argv[1]), SpoolOptions(bytes_max=1 << 50))
opened = time.perf_counter()
head = spool.append_now([Batch.of([0], [0.0], 0, received_time_ns=0)])
chunk = spool.cursor("bench").read(20_000)
ready, after = time.perf_counter(), cpu()
stats = spool.stats()
print(json.dumps({
    "import_s": imported - began,
    "open_s": opened - imported,
    "ready_s": ready - imported,
    "ready_cpu_s": after - before,
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "rows": head, "segments": stats.segments, "lost_rows": stats.lost_rows,
    "first_rows_read": len(chunk.batch),
}))
spool.close_now()
"""


def measure(directory: Path, *, gb: float) -> dict[str, object]:
    """`directory` needs `gb` and a little free; it is left empty."""
    free_gb = shutil.disk_usage(directory).free / 1e9
    if free_gb < gb + 1:
        raise OSError(f"{directory}: {free_gb:.1f} GB free, {gb + 1:.1f} needed")
    return {
        f"{size_gb:g}_gb": _one(directory / f"{size_gb:g}", size_gb) for size_gb in (SMALL_GB, gb)
    }


def _one(place: Path, size_gb: float) -> dict[str, object]:
    try:
        began = time.perf_counter()
        _fill(place, round(size_gb * 1e9))
        filled_s = time.perf_counter() - began
        done = subprocess.run(  # noqa: S603  this interpreter, our own text
            [sys.executable, "-c", _OPEN, str(place)], capture_output=True, text=True, check=True
        )
        figures: dict[str, object] = json.loads(done.stdout)
        return {**figures, "filled_s": filled_s}
    finally:
        shutil.rmtree(place)


def _fill(place: Path, size_bytes: int) -> None:
    at = np.arange(ROWS_MAX)
    batch = Batch.of(at % 1000, np.sin(at), 1_700_000_000_000_000_000 + at, received_time_ns=0)
    options = SpoolOptions(bytes_max=1 << 50, tail_rows_max=1, pending_rows_max=ROWS_MAX)
    spool = Spool.open(place, options)
    spool.cursor("bench")
    for _ in range(-(-size_bytes // (_BATCHES * size_of(ROWS_MAX)))):
        spool.append_now([batch] * _BATCHES)
    spool.close_now()
