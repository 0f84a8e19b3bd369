"""`hazard-gateway bench alarms`: ten thousand activations in one second, from verdict to disk.

    10,000 points over their limit ─evaluate─▶ conditions ─apply─▶ events ─append─▶ journal, synced

Every round is a new book and a new journal. `raw_write_s` is one write and fdatasync of the bytes
the journal was given (records and live rows, no index, no log): what this disk takes for them at
best.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alarm_rules.ruleset import RuleSet
from gateway.alarms.book import AlarmBook
from gateway.alarms.journal import Journal
from gateway.alarms.record import encode
from gateway.model.alarm import AlarmEvent
from gateway.model.batch import Batch
from gateway.model.condition import Conditions
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, Rule, Selector
from gateway.runtime.collector import prepared_collector
from gateway.runtime.plugins import load_plugins

ACTIVATIONS = 10_000  # the flood of the alarm standard's stress case, all within one second
_SECOND_NS = 1_000_000_000
_START_NS = 1_790_000_000 * _SECOND_NS


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Rounds until `seconds` are over, three at least; medians, and the fastest."""
    rules, conditions = _flood(ACTIVATIONS)
    rounds: list[dict[str, float]] = []
    started = time.perf_counter()
    with prepared_collector():  # as in the gateway's process
        while len(rounds) < 3 or time.perf_counter() - started < seconds:
            rounds.append(_round(folder / "round", rules, conditions))
    figures = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {
        "activations": ACTIVATIONS,
        "rounds": len(rounds),
        **figures,
        "fastest_total_s": min(each["total_s"] for each in rounds),
        "aim_total_s": 2.0,
    }


def _round(folder: Path, rules: RuleSet, conditions: Conditions) -> dict[str, float]:
    journal = Journal.open(folder, reserve_bytes=0)
    try:
        book = AlarmBook(journal.epoch)
        marks = [time.perf_counter()]
        cpu = [time.process_time()]
        events = book.apply(conditions, rules.instances, _START_NS + 5 * _SECOND_NS)
        marks.append(time.perf_counter())
        cpu.append(time.process_time())
        journal.append(events)
        marks.append(time.perf_counter())
        cpu.append(time.process_time())
        assert journal.head == ACTIVATIONS, f"{journal.head} events"
        raw_s, size = _raw(folder / "raw", events)
    finally:
        journal.close()
        shutil.rmtree(folder)
    return {
        "total_s": marks[2] - marks[0],
        "apply_s": marks[1] - marks[0],
        "append_s": marks[2] - marks[1],
        "apply_cpu_s": cpu[1] - cpu[0],
        "append_cpu_s": cpu[2] - cpu[1],
        "raw_write_s": raw_s,
        "raw_mb": size / 1e6,
    }


def _raw(path: Path, events: Sequence[AlarmEvent]) -> tuple[float, int]:
    body = b"".join(part for event in events for part in encode(event))
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        file.write(body)
        os.fdatasync(file.fileno())
    return time.perf_counter() - began, len(body)


def _flood(count: int) -> tuple[RuleSet, Conditions]:
    """What the rule core says when every point crosses its limit within one second."""
    points = PointTable()
    for number in range(count):
        name = f"p{number:05d}"
        points.put(Point(id=name, quantity="methane", unit="%CH4", device=f"s{number // 16}"))
    levels = {"H": {"limit": 1.0, "reset": 0.9}, "HH": {"limit": 1.5, "reset": 1.0}}
    rule = Rule(
        id="methane",
        kind="limit",
        inputs={"value": Selector(quantity="methane")},
        parameters={"levels": levels},
        priority=Priority.HIGH,
        name={"en": "Methane high", "zh": "甲烷超限"},
    )
    rules = RuleSet([rule], load_plugins().rule_kinds, points)
    at = np.arange(count)
    time_ns = _START_NS + at * (_SECOND_NS // count)
    batch = Batch.of(at, np.where(at % 3, 1.2, 1.7), time_ns, received_time_ns=_START_NS)
    return rules, rules.evaluate(batch, _START_NS + 5 * _SECOND_NS).conditions


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """For a person."""
    yield f"{figures['activations']:,} activations in one second, {figures['rounds']} rounds"
    yield f"  lived through (apply)       {figures['apply_s']:.2f} s"
    yield f"  journalled (append, synced) {figures['append_s']:.2f} s"
    aim = f"the aim is under {figures['aim_total_s']:.0f} s"
    yield f"  together                    {figures['total_s']:.2f} s, {aim}"
    raw = f"{figures['raw_write_s']:.3f} s for {figures['raw_mb']:.1f} MB"
    yield f"  the disk alone              {raw} (write + fdatasync)"
