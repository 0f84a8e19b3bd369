"""Deviations over random histories: see laws.py. Pairs by device; inputs bad, old, never heard."""

from __future__ import annotations

import random

from laws import Law
from reference import ScalarInstance, story
from reference_signal import (
    DELAYS_S,
    random_levels,
    random_samples,
    scalar_deviation,
    written_levels,
)

from alarm_rules.kinds.deviation import KIND
from gateway.model.point import Point
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Story


def _rule(rng: random.Random, number: int) -> Rule:
    parameters: dict[str, object] = {"levels": random_levels(rng, [0.5, 1.0, 2.0, 3.0])}
    for name, choices in (
        ("absolute", [True, False]),
        ("relative", [True, False]),
        ("max_input_age_s", [0.0, 1.0, 3.0, 10.0]),
        ("decimals", [0, 1, 6]),
    ):
        if rng.random() < 0.5:
            parameters[name] = rng.choice(choices)
    return Rule(
        f"r{number}",
        "deviation",
        {"value": Selector(quantity="value"), "reference": Selector(quantity="setpoint")},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
        group_by=GroupBy.AREA,
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [
        Point(id=f"{name}{n}", quantity=name, area=f"a{n}")
        for n in range(histories)
        for name in ("value", "setpoint")
        if name == "value" or rng.random() < 0.95
    ]
    rules = [_rule(rng, number) for number in range(2)]
    samples = random_samples(
        rng, points, lambda r, _: r.choice([-2.0, -1.0, 0.0, 0.5, 0.6, 0.8, 1.0, 2.0, 4.0])
    )
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    instances, ids = [], {point.id for point in case.points}
    for rule in case.rules:
        for point in case.points:
            pair = (point.id, point.id.replace("value", "setpoint"))
            if point.quantity != "value" or pair[1] not in ids:
                continue
            written = written_levels(rule)
            instance = ScalarInstance(f"{point.id}:{rule.id}", [one.level for one in written])
            samples = [s for s in case.samples if s.point in pair]
            scalar_deviation(
                instance,
                written,
                rule.parameters,
                inputs=pair,
                samples=samples,
                end_ns=case.end_ns,
            )
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="alike")
