"""`hazard-gateway bench`: what this machine does, with its own limit beside every figure.

Machines are shared and noisy: compare figures of one run with each other, never with another day's.
`pipeline` takes one core (the process pins itself to it) and pushes the same batches through the
spool, the rule core with book and journal, and the embedded store, one stage after the other, so
that the shares of time add up to the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alarm_rules import bench as rules_bench
from alarm_rules import bench_load as load_bench
from alarm_rules.ruleset import RuleSet
from gateway.alarms.book import AlarmBook
from gateway.alarms.journal import Journal
from gateway.contract.adapter import FrameDecoder
from gateway.contract.sink import SampleSink, SinkContext
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, Rule, Selector
from gateway.runtime import alarm_bench, backtest_bench
from gateway.runtime.clock import now_ns
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.plugins import load_plugins
from gateway.spool import Spool, SpoolOptions, bench_start
from gateway.spool import bench as spool_bench

BATCH_ROWS = 10_000
POINTS = 10_000
ABNORMAL_SHARE = 0.01  # of samples beyond the limit: a bad day, not a quiet one
AIM_SAMPLES_PER_S = 200_000
SPOOL_START = "spool-start"  # measured by a size, not for a time
_SECOND_NS = 1_000_000_000


def run_bench(what: str, *, seconds: float, as_json: bool, gb: float = 1.0) -> Iterator[str]:
    """The figures of one bench, as one JSON line or as lines for a person. `gb`: how large a
    backlog `spool-start` makes."""
    with tempfile.TemporaryDirectory(prefix="hazard-gateway-bench-") as folder:
        if what == SPOOL_START:
            figures = dict(bench_start.measure(Path(folder), gb=gb))
        else:
            figures = BENCHES[what](Path(folder), seconds)
    if as_json:
        yield json.dumps(figures)
        return
    yield from LINES.get(what, _lines)(figures)


def _lines(figures: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}"
            for row in value:
                yield indent + "  " + "  ".join(f"{k}={_text(v)}" for k, v in row.items())
        else:
            yield f"{indent}{name:<32} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# --------------------------------------------------------------------------- pipeline


@dataclass
class Stages:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass
class Line:
    """One core's worth of gateway."""

    spool: Spool
    rules: RuleSet
    book: AlarmBook
    journal: Journal
    sink: SampleSink


def _pipeline(folder: Path, seconds: float) -> dict[str, Any]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return asyncio.run(_run_pipeline(folder, seconds))
    finally:
        os.sched_setaffinity(0, cores)


async def _run_pipeline(folder: Path, seconds: float) -> dict[str, Any]:
    points = _points(POINTS)
    line = _assemble(folder, points)
    await line.sink.open()
    stages = Stages()
    batches = _batches(seed=1)
    try:
        await _push(line, next(batches), Stages())  # the first batch pays for opening things
        rows, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            batch = next(batches)
            await _push(line, batch, stages)
            rows += len(batch)
        total_s = sum(stages.seconds.values())
    finally:
        await line.sink.close()
        await line.spool.close()
        line.journal.close()
    rate = rows / total_s
    return {
        "samples_per_s": round(rate),
        "aim_samples_per_s": AIM_SAMPLES_PER_S,
        "samples": rows,
        "points": POINTS,
        "rule_instances": len(line.rules.instances),
        "batch_rows": BATCH_ROWS,
        "events": line.journal.head,
        "share_percent": {k: round(100 * v / total_s, 1) for k, v in stages.seconds.items()},
        "stage_samples_per_s": {k: round(rows / v) for k, v in stages.seconds.items()},
        "machine_limit": _machine_limit(folder),
    }


def _assemble(folder: Path, points: PointTable) -> Line:
    plugins = load_plugins()
    journal = Journal.open(_made(folder / "journal"))
    kind = plugins.sinks["duckdb"]
    assert kind.build_samples is not None
    context = SinkContext(
        name="bench",
        tenant="bench",
        site="bench",
        points=points,
        now_ns=now_ns,
        counters=CounterTable().component("bench"),
        status=StatusCell("bench"),
        state_dir=_made(folder / "store"),
    )
    sink = kind.build_samples(kind.config(), context)
    assert sink is not None
    return Line(
        spool=Spool.open(_made(folder / "spool"), SpoolOptions()),
        rules=RuleSet(_rules(), plugins.rule_kinds, points),
        book=AlarmBook(epoch=journal.epoch),
        journal=journal,
        sink=sink,
    )


async def _push(line: Line, batch: Batch, stages: Stages) -> None:
    """One batch down the whole road; every stage durable where it promises to be."""
    with stages.time("spool_write"):
        line.spool.append_now([batch])
    cursor = line.spool.cursor("bench")
    with stages.time("spool_read"):
        chunk = cursor.read(len(batch))
    assert chunk is not None
    at_ns = int(batch.received_time_ns[-1])
    with stages.time("rules"):
        evaluation = line.rules.evaluate(chunk.batch, at_ns)
    with stages.time("alarms"):
        events = line.book.apply(evaluation.conditions, line.rules.instances, at_ns)
        if events:
            line.journal.append(events)
    with stages.time("store"):
        await line.sink.write(chunk.batch, chunk.end)
    with stages.time("commit"):
        cursor.commit_now(chunk.end)


def _points(count: int) -> PointTable:
    table = PointTable()
    for number in range(count):
        table.put(
            Point(id=f"p{number:05d}", quantity="methane", unit="%CH4", device=f"s{number // 16}")
        )
    return table


def _rules() -> list[Rule]:
    """What a mine has on each methane sensor: alarm and cut-off with delays, and silence."""
    methane = {"value": Selector(quantity="methane")}
    levels = {"H": {"limit": 1.0, "reset": 0.9}, "HH": {"limit": 1.5, "reset": 1.0}}
    return [
        Rule(
            id="methane",
            kind="limit",
            inputs=methane,
            parameters={"levels": levels},
            priority=Priority.HIGH,
            on_delay_s=2.0,
            off_delay_s=30.0,
        ),
        Rule(
            id="silent",
            kind="offline",
            inputs=methane,
            parameters={"max_age_s": 60.0},
            priority=Priority.MEDIUM,
        ),
    ]


def _batches(seed: int) -> Iterator[Batch]:
    """Every point once a second: a slow wave with noise, one sample in a hundred beyond 1.0."""
    rng = np.random.default_rng(seed)
    indices = np.arange(POINTS, dtype=np.int32)
    at_ns = 1_790_000_000 * _SECOND_NS
    while True:
        for start in range(0, POINTS, BATCH_ROWS):
            rows = indices[start : start + BATCH_ROWS]
            value = np.round(rng.normal(0.4, 0.1, len(rows)), 2)
            value[rng.random(len(rows)) < ABNORMAL_SHARE] = 1.2
            yield Batch.of(rows, value, at_ns, received_time_ns=at_ns + 50_000_000)
        at_ns += _SECOND_NS


def _machine_limit(folder: Path) -> dict[str, Any]:
    """What this core and this disk do at best with the same bytes."""
    batch = next(_batches(seed=2))
    body = b"".join(
        getattr(batch, name).tobytes() for name in ("point_index", "value", "source_time_ns")
    )
    with (folder / "raw").open("wb", buffering=0) as file:

        def write() -> None:
            file.write(body)
            os.fdatasync(file.fileno())

        writes_per_s = _rate(write)
    copies_per_s = _rate(batch.value.copy)
    return {
        "write_fdatasync_samples_per_s": round(writes_per_s * len(batch)),
        "numpy_copy_samples_per_s": round(copies_per_s * len(batch)),
    }


def _rate(call: Callable[[], object], seconds: float = 0.5) -> float:
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        call()
        count += 1
    return count / spent


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


# --------------------------------------------------------------------------- the others


def _spool(folder: Path, seconds: float) -> dict[str, Any]:
    return dict(spool_bench.measure(folder, seconds=max(0.2, seconds / 10)))


def _rule_core(_folder: Path, seconds: float) -> dict[str, Any]:
    plugins = load_plugins()
    kinds, clock = plugins.rule_kinds, time.process_time
    figures = dict(rules_bench.measure(kinds, clock, seconds=seconds))
    return figures | {"load": load_bench.measure(kinds, clock)}


def _rule_lines(figures: dict[str, Any]) -> Iterator[str]:
    yield from rules_bench.lines(figures)
    yield from load_bench.lines(figures["load"])


def _decode(_folder: Path, seconds: float) -> dict[str, Any]:
    """Whole decoders as `decode` uses them, one message at a time: JSON-ready fields included."""
    kinds = [kind for kind in load_plugins().adapters.values() if kind.decoder and kind.examples]
    figures: dict[str, Any] = {}
    for kind in kinds:
        assert kind.decoder is not None
        decoder = kind.decoder()
        size = sum(len(text.encode()) for text in kind.examples)

        def once(decoder: FrameDecoder = decoder, texts: Sequence[str] = kind.examples) -> None:
            for text in texts:
                decoder.feed(text)

        rounds_per_s = _rate(once, seconds / len(kinds))
        figures[kind.name] = {
            "messages_per_s": round(rounds_per_s * len(kind.examples)),
            "mb_per_s": round(rounds_per_s * size / 1e6, 2),
        }
    text = "".join(text for kind in kinds for text in kind.examples)
    copies_per_s = _rate(lambda: bytearray(text.encode()))
    figures["machine_limit"] = {"encode_and_copy_mb_per_s": round(copies_per_s * len(text) / 1e6)}
    return figures


BENCHES: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "pipeline": _pipeline,
    "rules": _rule_core,
    "spool": _spool,
    "decode": _decode,
    "backtest": backtest_bench.measure,
    "alarms": alarm_bench.measure,
}

LINES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "rules": _rule_lines,
    "alarms": alarm_bench.lines,
}
"""Benches that lay out their figures themselves."""
