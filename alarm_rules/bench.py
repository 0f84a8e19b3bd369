"""How fast the rule core judges, beside what this machine can do at all.

`measure` takes the clock as an argument: this package reads none. Traffic is tick-like: every point
once in each batch, a share of them beyond the limit for a while. One *evaluation* is one sample
judged by one rule instance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import RuleKind
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule, Selector

NS_PER_S = 1_000_000_000
START_NS = 1_700_000_000 * NS_PER_S
_BATCHES = 20
_LIMIT = {"levels": {"L": 0.0, "H": {"limit": 1.0, "reset": 0.9}, "HH": {"limit": 1.5, "reset": 1}}}


def measure(
    kinds: Mapping[str, RuleKind],
    clock: Callable[[], float],
    *,
    seconds: float = 2.0,
    point_count: int = 20_000,
    abnormal_share: float = 0.01,
    seed: int = 1,
) -> dict[str, Any]:
    """Figures as plain numbers, over at least `seconds` of judging. `clock` counts seconds
    (time.perf_counter)."""
    began = clock()
    rules = _rules(kinds, point_count)
    build_s = clock() - began
    batches = _batches(point_count, abnormal_share, seed)
    rules.evaluate(Batch.empty(), START_NS)
    spans: list[float] = []
    changes = second = 0
    while sum(spans) < seconds or second < _BATCHES:
        cycle, number = divmod(second, _BATCHES)
        batch = _later(batches[number], cycle * _BATCHES)
        second += 1
        began = clock()
        found = rules.evaluate(batch, START_NS + second * NS_PER_S)
        spans.append(clock() - began)
        changes += len(found.conditions)
    span = float(np.median(spans))
    return {
        "points": point_count,
        "instances": len(rules.instances),
        "abnormal_share": abnormal_share,
        "build_s": round(build_s, 3),
        "batches": len(spans),
        "changes": changes,
        "batch_ms": round(span * 1e3, 3),
        "samples_per_s": round(point_count / span),
        "evaluations_per_s": round(len(rules.instances) / span),
        "ns_per_sample": round(span / point_count * 1e9, 1),
        "machine": machine_limits(clock, point_count),
    }


def machine_limits(clock: Callable[[], float], size: int) -> dict[str, int]:
    """What numpy itself copies and gathers here, values a second, over as many rows."""
    value = np.random.default_rng(1).random(size)
    index = np.arange(size, dtype=np.int32)
    out = np.empty_like(value)
    return {
        "copies_per_s": round(size / _best(clock, lambda: np.copyto(out, value))),
        "gathers_per_s": round(size / _best(clock, lambda: value[index])),
    }


def _best(clock: Callable[[], float], work: Callable[[], object]) -> float:
    spans = []
    for _ in range(30):
        began = clock()
        work()
        spans.append(clock() - began)
    return max(float(np.median(spans)), 1e-9)


def _rules(kinds: Mapping[str, RuleKind], point_count: int) -> RuleSet:
    table = PointTable()
    for number in range(point_count):
        table.put(Point(id=f"p{number}", quantity="methane", interval_s=1.0))
    selector = {"value": Selector(quantity="methane")}
    return RuleSet(
        [
            Rule("gas", "limit", selector, _LIMIT, on_delay_s=2.0),
            Rule("off", "offline", selector, {"interval_factor": 30.0}),
        ],
        kinds,
        table,
    )


def _later(batch: Batch, by_s: int) -> Batch:
    """The same values, `by_s` seconds on."""
    return Batch(
        batch.point_index,
        batch.value,
        batch.quality,
        batch.source_time_ns + by_s * NS_PER_S,
        batch.received_time_ns + by_s * NS_PER_S,
    )


def _batches(point_count: int, abnormal_share: float, seed: int) -> list[Batch]:
    """One batch a second; an abnormal point stays so for five of them."""
    rng = np.random.default_rng(seed)
    point = np.arange(point_count)
    batches = []
    abnormal = np.zeros(point_count, bool)
    for second in range(1, _BATCHES + 1):
        if second % 5 == 1:
            abnormal = rng.random(point_count) < abnormal_share
        value = rng.uniform(0.1, 0.9, point_count)
        value[abnormal] += 1.0
        time_ns = START_NS + second * NS_PER_S - rng.integers(1, NS_PER_S // 2, point_count)
        batches.append(Batch.of(point, value, time_ns, received_time_ns=time_ns + 1_000_000))
    return batches
