"""How fast the rule core judges, beside what this machine can do at all.

One **evaluation** is one sample judged by one rule instance. Each point has two: a limit with three
levels, reset values and on and off delays, and an offline rule.

    traffic   normal     1 % of the points are abnormal at any moment: each point for 60 s, once in
                         100 minutes, beginning at a second of its own; its value stays where it is
                         but for the noise of its sensor
              restless   the same 1 %, but all of them others every five seconds at one tick: 2 % of
                         the site changes at once, a flood after every flood
              crossing   every sample crosses the limit the other way: the worst there is
    form      tick       every point once, in order: what a poller hands over
              burst      ten samples of a point at once, the points in any order: a backlog

`measure` takes the clock as an argument: this package reads none. It should count the process's own
time, not the wall's, where other processes share the machine. The mean over all batches is told,
with what is due only now and then; `best` is the fastest batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import RuleKind
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule, Selector

NS_PER_S = 1_000_000_000
START_NS = 1_700_000_000 * NS_PER_S
SIZES = (1_000, 10_000, 100_000, 1_000_000)
ABNORMAL_SHARE = 0.01
NOISE = 0.02
"""Of the limit: a methane sensor of 0 to 4 % is good to 0.1 (AQ 6203-2006), its noise is less."""
BURST = 10
RULES_PER_POINT = 2
DEFINITION = "one evaluation = one sample judged by one rule instance"
_LIMIT = {"levels": {"L": 0.0, "H": {"limit": 1.0, "reset": 0.9}, "HH": {"limit": 1.5, "reset": 1}}}
TRAFFICS = ("normal", "restless", "crossing")
EXCURSION_S = 60
"""How long a point is abnormal at a time in normal traffic. Engineering: a gas excursion that
ventilation clears takes a minute to many; shorter ones are more work."""
_PERIOD_S = round(EXCURSION_S / ABNORMAL_SHARE)
RESTLESS_S = 5
_WARM_UP = 2

Clock = Callable[[], float]


def measure(
    kinds: Mapping[str, RuleKind],
    clock: Clock,
    *,
    seconds: float = 2.0,
    sizes: Sequence[int] = SIZES,
    seed: int = 1,
) -> dict[str, Any]:
    """Figures as plain numbers, about `seconds` of judging for each size. `clock` counts seconds
    (time.process_time). `sizes` are numbers of rule instances."""
    return {
        "definition": DEFINITION,
        "abnormal_share": ABNORMAL_SHARE,
        "excursion_s": EXCURSION_S,
        "restless_s": RESTLESS_S,
        "burst": BURST,
        "sizes": [_measure_size(kinds, clock, size, seconds, seed) for size in sizes],
    }


def _measure_size(
    kinds: Mapping[str, RuleKind], clock: Clock, size: int, seconds: float, seed: int
) -> dict[str, Any]:
    points = max(1, size // RULES_PER_POINT)
    table = _table(points)
    began = clock()
    rules = _rules(kinds, table)
    load_s = clock() - began
    began = clock()
    saved = rules.save()
    first_save_s = clock() - began
    began = clock()
    rules.save()
    save_s = clock() - began
    began = clock()
    rules.load(saved)
    load_state_s = clock() - began
    return {
        "instances": len(rules.instances),
        "load_s": round(load_s, 3),
        "load_state_s": round(load_state_s, 3),
        "first_save_ms": round(first_save_s * 1e3, 1),
        "save_ms": round(save_s * 1e3, 1),
        "machine": machine_limits(clock, points),
        "rows": [
            _measure_traffic(rules, clock, points, seconds / 6, (traffic, form, seed))
            for traffic in TRAFFICS
            for form in ("tick", "burst")
        ],
    }


def _measure_traffic(
    rules: RuleSet, clock: Clock, points: int, seconds: float, case: tuple[str, str, int]
) -> dict[str, Any]:
    traffic, form, seed = case
    spans: list[float] = []
    rows = changes = 0
    for batch, now_ns in batches_of(points, traffic, form, seed=seed, from_s=_quiet(rules, points)):
        began = clock()
        found = rules.evaluate(batch, now_ns)
        spans.append(clock() - began)
        changes += len(found.conditions)
        rows = len(batch)
        if sum(spans[_WARM_UP:]) >= seconds and len(spans) >= 3 * _WARM_UP:
            break
    spans = spans[_WARM_UP:]
    mean, best = float(np.mean(spans)), min(spans)
    evaluations = rows * RULES_PER_POINT
    return {
        "traffic": traffic,
        "form": form,
        "evaluations_per_s": round(evaluations / max(mean, 1e-9)),
        "best_per_s": round(evaluations / max(best, 1e-9)),
        "ns_per_sample": round(mean / rows * 1e9, 1),
        "batches": len(spans),
        "changes": changes,
    }


def _quiet(rules: RuleSet, points: int) -> int:
    """Let every alarm of the case before end; returns the second to go on from."""
    now_s = max(0, rules.newest_heard_ns() // NS_PER_S - START_NS // NS_PER_S) + 1
    at_ns = START_NS + now_s * NS_PER_S
    calm = Batch.of(np.arange(points), np.full(points, 0.5), at_ns, received_time_ns=at_ns)
    rules.evaluate(calm, at_ns)
    rules.evaluate(Batch.empty(), at_ns + 10 * NS_PER_S)
    return now_s + 10


def machine_limits(clock: Clock, size: int) -> dict[str, int]:
    """What numpy itself copies and gathers here, values a second, over as many rows."""
    rng = np.random.default_rng(1)
    value, index = rng.random(size), rng.permutation(size)
    out = np.empty_like(value)
    return {
        "copies_per_s": round(_rate(clock, size, lambda: np.copyto(out, value))),
        "gathers_per_s": round(_rate(clock, size, lambda: value[index])),
    }


def _rate(clock: Clock, size: int, work: Callable[[], object]) -> float:
    """Many calls by one reading of the clock: it may be coarse."""
    calls = max(1, 2_000_000 // size)
    spans = []
    for _ in range(10):
        began = clock()
        for _ in range(calls):
            work()
        spans.append((clock() - began) / calls)
    return size / max(float(np.median(spans)), 1e-9)


def _table(points: int) -> PointTable:
    table = PointTable()
    for number in range(points):
        table.put(Point(id=f"p{number}", quantity="methane", interval_s=1.0))
    return table


def _rules(kinds: Mapping[str, RuleKind], table: PointTable) -> RuleSet:
    selector = {"value": Selector(quantity="methane")}
    rules = RuleSet(
        [
            Rule("gas", "limit", selector, _LIMIT, on_delay_s=2.0, off_delay_s=5.0),
            Rule("off", "offline", selector, {"interval_factor": 30.0}),
        ],
        kinds,
        table,
    )
    rules.evaluate(Batch.empty(), START_NS)
    return rules


def batches_of(
    points: int, traffic: str, form: str, *, seed: int, from_s: int
) -> Iterator[tuple[Batch, int]]:
    """Batches without end, with the time each is judged at."""
    rng = np.random.default_rng(seed)
    each = 1 if form == "tick" else BURST
    begins_s = np.random.default_rng(seed).integers(0, _PERIOD_S, points)
    abnormal = np.zeros(points, bool)
    second = from_s
    while True:
        order = np.arange(points) if form == "tick" else rng.permutation(points)
        point = np.repeat(order, each)
        step = np.tile(np.arange(1, each + 1), points) + second
        if traffic == "restless" and (second - from_s) % RESTLESS_S < each:
            abnormal = rng.random(points) < ABNORMAL_SHARE
        value = _usual_values(rng, point, len(step))
        if traffic == "crossing":
            value += step % 2 == 0
        elif traffic == "restless":
            value += abnormal[point]
        else:
            value += (step - begins_s[point]) % _PERIOD_S < EXCURSION_S
        jitter = rng.integers(1, NS_PER_S // 2, points)[point]
        time_ns = START_NS + step * NS_PER_S - jitter
        second += each
        now_ns = START_NS + second * NS_PER_S
        yield Batch.of(point, value, time_ns, received_time_ns=now_ns), now_ns


def _usual_values(
    rng: np.random.Generator, point: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    base = np.random.default_rng(seed).uniform(0.1, 0.8, int(point.max()) + 1)
    return np.asarray(base[point] + rng.normal(0.0, NOISE, len(point)))


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures as a table for a person."""
    yield f"{figures['definition']}; M = million; mean of all batches, best batch beside it"
    yield (
        f"normal: {figures['abnormal_share']:.0%} abnormal, each for {figures['excursion_s']} s "
        f"from a second of its own; restless: all at once, others every {figures['restless_s']} s; "
        "crossing: every sample crosses"
    )
    yield f"tick: each point once; burst: {figures['burst']} samples a point, points in any order"
    for size in figures["sizes"]:
        machine = size["machine"]
        yield ""
        yield (
            f"{size['instances']:>9,} instances   load {size['load_s']:.2f} s"
            f"   state: load {size['load_state_s']:.2f} s, save {size['save_ms']:.1f} ms"
            f" (first {size['first_save_ms']:.1f})"
        )
        for row in size["rows"]:
            yield (
                f"  {row['traffic']:<9}{row['form']:<6}{row['evaluations_per_s'] / 1e6:8.1f} M/s"
                f"   best {row['best_per_s'] / 1e6:7.1f} M/s   {row['ns_per_sample']:8.1f} ns a "
                f"sample   {row['changes']:,} changes in {row['batches']} batches"
            )
        yield (
            f"  numpy itself   copies {machine['copies_per_s'] / 1e6:,.0f} M/s"
            f"   gathers {machine['gathers_per_s'] / 1e6:,.0f} M/s"
        )
