"""Stuck values over random histories: see laws.py. Values that stay, creep and jump by the band."""

from __future__ import annotations

import random

from laws import Law
from reference import ScalarInstance, ScalarLevel, story
from reference_signal import (
    DELAYS_S,
    delays_ns,
    matching,
    of_point,
    random_samples,
    scalar_stuck,
)

from alarm_rules.kinds.stuck import KIND
from gateway.model.point import Point
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Story


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    parameters: dict[str, object] = {"unchanged_s": rng.choice([0.5, 1.0, 2.0, 3.0, 6.0])}
    for name, choices in (
        ("band", [0.0, 0.1, 0.5, 1.0, 2.5]),
        ("samples_min", [2, 3, 5]),
        ("gap_max_s", [0.5, 1.0, 3.0]),
    ):
        if rng.random() < 0.5:
            parameters[name] = rng.choice(choices)
    return Rule(
        f"r{number}",
        "stuck",
        {"value": selector},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def _next(rng: random.Random, value: float) -> float:
    return value + rng.choice([0.0, 0.0, 0.0, 0.1, -0.1, 0.4, -0.5, 1.0, -0.0, 5.0])


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [Point(id=f"p{n}", quantity=rng.choice("qr"), area="here") for n in range(histories)]
    rules = [
        _rule(rng, 0, Selector(quantity="q")),
        _rule(rng, 1, Selector(area="here")),
    ]
    samples = random_samples(rng, points, _next, size_max=28)
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 50.0]))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        for point in matching(case, rule):
            level = ScalarLevel("STUCK", *delays_ns(rule, {}), None, None)
            instance = ScalarInstance(f"{point.id}:{rule.id}", [level])
            scalar_stuck(instance, rule.parameters, of_point(case, point), case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
