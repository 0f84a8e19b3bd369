"""What a sick sink does to an alarm: nothing. A command that shows it, beside a healthy one.

    python -m gateway.testing.slow_sinks --rows 10000000 --seconds 20

A whole core in this process, with a backlog of `--rows` for its one store. Every 50 ms a sample
that raises or clears an alarm is handed to the intake; the latency runs until the event has been
recorded and is announced. Beside it a task that only sleeps measures how long the event loop was
held up.

    none       no store at all: the figure to compare with
    duckdb     the embedded store, draining
    dead       every write is Unavailable
    slow       every write takes 30 s, on a thread
    open       hangs in open
    close      writes fail and close hangs
    nonsense   writes raise what no sink should
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from gateway.contract.sink import SampleSink, SinkContext, SinkKind, WriteResult
from gateway.model.alarm import AlarmEvent
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.runtime.checking import load_site
from gateway.runtime.clock import now_ns
from gateway.runtime.core import Core, open_core
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.threads import prepare_threads
from gateway.sinks.one_thread import OneThread
from gateway.spool import Spool

MODES = ("none", "duckdb", "dead", "slow", "open", "close", "nonsense")
INTERVAL_S = 0.05
SLOW_S = 30.0
_STALL_LOOK_S = 0.005
_PRELOAD_ROWS = 100_000
_SITE = """
[site]
tenant = "t"
id = "s"
data_dir = "data"
[console]
enabled = false
{sink}
[[point]]
id = "probe"
quantity = "probe"
{points}
[[rule]]
id = "high"
kind = "limit"
value = {{ quantity = "probe" }}
parameters = {{ levels = {{ H = 1.0 }} }}
"""
_POINTS = 200


@dataclass(frozen=True)
class Figures:
    """Of one mode."""

    mode: str
    alarms: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    stall_p99_ms: float
    stall_max_ms: float
    drained_rows: int


class SickSink:
    """One of the modes. Its thread waits where a real library would compute or block."""

    history = None

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._thread = OneThread("sick")
        self._never = threading.Event()

    async def open(self) -> None:
        if self._mode == "open":
            await self._thread.run(self._never.wait)

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        if self._mode == "dead":
            raise Unavailable("no route to host")
        if self._mode == "slow":
            await self._thread.run(lambda: self._never.wait(SLOW_S))
            return WriteResult(len(batch))
        raise RuntimeError(f"nonsense at {offset}, ahead {ahead}")

    async def close(self) -> None:
        if self._mode == "close":
            await self._thread.run(self._never.wait)


def with_sick_sinks(plugins: Plugins) -> Plugins:
    """`plugins` and one sink kind for each mode that is not real."""

    def kind(mode: str) -> SinkKind:
        def build(_config: Any, _context: SinkContext) -> SampleSink:
            return SickSink(mode)

        return SinkKind(mode, "", _Nothing, build_samples=build)

    sick = {mode: kind(mode) for mode in MODES if mode not in {"none", "duckdb"}}
    return replace(plugins, sinks={**plugins.sinks, **sick})


class _Nothing(BaseModel):
    """No options."""


async def measure(mode: str, folder: Path, *, rows: int, seconds: float) -> Figures:
    """Figures of `mode` with a backlog of `rows`."""
    prepare_threads()
    plugins = with_sick_sinks(load_plugins())
    path = folder / "site.toml"
    sink = "" if mode == "none" else f'[[sink]]\nname = "store"\nkind = "{mode}"'
    points = "\n".join(f'[[point]]\nid = "p{number}"' for number in range(_POINTS))
    path.write_text(_SITE.format(sink=sink, points=points), encoding="utf-8")
    config = load_site(path, plugins)
    async with open_core(config, plugins) as core:
        probe = core.points.index("probe")
        before = now_ns()
        await asyncio.to_thread(_preload, core.spool, core.points.index("p0"), rows, before)
        await core.judge.cursor.seek(core.spool.head)  # a backlog of the store alone
        await core.judge.cursor.commit(core.spool.head)
        core.judge._done = core.spool.head  # noqa: SLF001  as after a restart that restored it
        core.start()
        taken, stalls = await _probe(core, probe, seconds)
        delivery = core.deliveries.get("store")
        drained = rows - min(rows, delivery.behind) if delivery else 0
    return Figures(
        mode=mode,
        alarms=len(taken),
        p50_ms=_percentile(taken, 50),
        p99_ms=_percentile(taken, 99),
        max_ms=_percentile(taken, 100),
        stall_p99_ms=_percentile(stalls, 99),
        stall_max_ms=_percentile(stalls, 100),
        drained_rows=drained,
    )


def _preload(spool: Spool, first: int, rows: int, time_ns: int) -> None:
    for begin in range(0, rows, _PRELOAD_ROWS):
        number = np.arange(begin, min(rows, begin + _PRELOAD_ROWS))
        spool.append_now(
            [
                Batch.of(
                    first + number % _POINTS,
                    number.astype(np.float64),
                    time_ns - (rows - number) * 1_000_000,
                    received_time_ns=time_ns,
                )
            ]
        )


async def _probe(core: Core, probe: int, seconds: float) -> tuple[list[float], list[float]]:
    sent: dict[float, int] = {}
    taken: list[float] = []

    def hear(events: Sequence[AlarmEvent]) -> None:
        heard_ns = now_ns()
        for event in events:
            at_ns = sent.pop(event.value or 0.0, None)
            if at_ns is not None:
                taken.append((heard_ns - at_ns) / 1e6)

    core.event_listeners.append(hear)
    async with _stalls() as stalls:
        end_s = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end_s:
            number += 1
            value = (2.0 if number % 2 else 0.5) + number / 1e6
            sent[value] = time_ns = now_ns()
            await core.intake.emit(
                Batch.of([probe], [value], [time_ns], received_time_ns=[time_ns])
            )
            await asyncio.sleep(INTERVAL_S)
    return taken, stalls


@contextlib.asynccontextmanager
async def _stalls() -> AsyncIterator[list[float]]:
    """How much longer than asked for a task slept, in ms."""
    found: list[float] = []

    async def look() -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_STALL_LOOK_S)
            found.append((time.monotonic() - began_s - _STALL_LOOK_S) * 1e3)

    task = asyncio.create_task(look())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _percentile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 1) if values else -1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.slow_sinks")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of backlog (1000000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each mode (10)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for mode in arguments.modes:
        with tempfile.TemporaryDirectory(prefix="slow-sinks-") as folder:
            figures = asyncio.run(
                measure(mode, Path(folder), rows=arguments.rows, seconds=arguments.seconds)
            )
        if arguments.json:
            print(json.dumps(asdict(figures)), flush=True)  # noqa: T201
            continue
        print(  # noqa: T201
            f"{mode:9} alarms p50 {figures.p50_ms:g} ms, p99 {figures.p99_ms:g} ms, longest "
            f"{figures.max_ms:g} ms; loop held up p99 {figures.stall_p99_ms:g} ms, longest "
            f"{figures.stall_max_ms:g} ms; {figures.drained_rows} rows drained",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
