"""Rates over random histories: see laws.py. Values on a grid, so that slopes stand on the limits;
windows in which samples are thinned, and points that state an interval."""

from __future__ import annotations

import random

from laws import Law
from reference import ScalarInstance, story
from reference_signal import (
    DELAYS_S,
    NS,
    ScalarRate,
    matching,
    of_point,
    random_levels,
    random_samples,
    scalar_rate,
    written_levels,
)

from alarm_rules.kinds.rate import KIND
from gateway.model.point import Point
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Story

LIMITS = [0.1, 0.25, 0.5, 1.0, 2.0]
PER_NS = {"s": NS, "min": 60 * NS, "h": 3600 * NS, "d": 86_400 * NS}


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    method = rng.choice(["least_squares", "two_point", "change"])
    parameters: dict[str, object] = {
        "window_s": rng.choice([2.0, 3.0, 5.0, 5.5, 20.0]),
        "method": method,
        "absolute": rng.random() < 0.3,
        "coverage_min": rng.choice([0.0, 0.5, 0.5, 1.0]),
        "samples_min": rng.choice([2, 2, 2, 3, 5]),
    }
    scale = 1.0
    if method == "change":
        parameters["relative"] = rng.random() < 0.3
    elif rng.random() < 0.5:
        parameters["per"] = rng.choice(list(PER_NS))
        scale = PER_NS[parameters["per"]] / NS
    if rng.random() < 0.3:
        parameters["decimals"] = rng.choice([0, 1, 3])
    parameters["levels"] = random_levels(rng, [scale * limit for limit in LIMITS])
    return Rule(
        f"r{number}",
        "rate",
        {"value": selector},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def _next(rng: random.Random, value: float) -> float:
    if rng.random() < 0.1:
        return rng.choice([0.0, -0.0, 1e9, 0.1, -7.3])
    return value + rng.choice([-2.0, -1.0, -1.0, 0.0, 0.5, 1.0, 1.0, 2.0, 0.1, 8.0, -8.0])


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [
        Point(
            id=f"p{n}",
            quantity=rng.choice("qr"),
            area="here",
            interval_s=rng.choice([None, 1.0, 3.0, 60.0]),
        )
        for n in range(histories)
    ]
    dense = ((1.0,), (0.0, 1.0), (0.5, 3.0, 9.0), (0.2,), (0.1, 0.7))
    rules = [
        _rule(rng, 0, Selector(quantity="q")),
        _rule(rng, 1, Selector(area="here")),
    ]
    samples = random_samples(rng, points, _next, steps_s=dense, size_max=32)
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 60.0]))


def kept_of(rule: Rule, point: Point) -> int:
    """256 samples of a window, or twice what the interval promises and four, at least eight."""
    if not point.interval_s:
        return 256
    expected = int(2 * rule.parameters["window_s"] / point.interval_s + 4)
    return min(256, max(expected, 8, rule.parameters["samples_min"] + 2))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        own = rule.parameters
        for point in matching(case, rule):
            written = written_levels(rule)
            instance = ScalarInstance(f"{point.id}:{rule.id}", [one.level for one in written])
            rate = ScalarRate(
                round(own["window_s"] * NS),
                kept_max=kept_of(rule, point),
                method=own["method"],
                per_ns=PER_NS[own.get("per", "s")],
                absolute=own["absolute"],
                relative=own.get("relative", False),
                coverage_min=own["coverage_min"],
                samples_min=own["samples_min"],
                digits=own.get("decimals"),
            )
            scalar_rate(instance, written, rate, of_point(case, point), case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
