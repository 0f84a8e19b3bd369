"""Codes over random histories: see laws.py."""

from __future__ import annotations

import random

from laws import Law
from reference import ScalarInstance, ScalarLevel, story
from reference_signal import (
    DELAYS_S,
    delays_ns,
    matching,
    of_point,
    random_delays,
    random_samples,
    scalar_discrete,
)

from alarm_rules.kinds.discrete import KIND
from gateway.model.point import Point, PointKind
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Story

CODES = [0.0, 1.0, 2.0, 3.0, 9.0, -1.0]


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    free, levels = rng.sample(CODES, len(CODES)), {}
    for name in ("STOPPED", "OPEN", "FAULT")[: rng.choice([1, 2, 3])]:
        values = [free.pop() for _ in range(rng.choice([1, 1, 2]))]
        levels[name] = {"values": values, **random_delays(rng)}
    return Rule(
        f"r{number}",
        "discrete",
        {"value": selector},
        {"levels": levels},
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [
        Point(id=f"p{n}", kind=PointKind.DISCRETE, quantity=rng.choice("qr"), area="here")
        for n in range(histories)
    ]
    rules = [
        _rule(rng, 0, Selector(quantity="q")),
        _rule(rng, 1, Selector(area="here")),
    ]
    samples = random_samples(rng, points, lambda r, _: r.choice([*CODES, -0.0, 1.5, 1e300]))
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        given = rule.parameters["levels"]
        for point in matching(case, rule):
            levels = [
                ScalarLevel(name, *delays_ns(rule, level), None, None)
                for name, level in given.items()
            ]
            instance = ScalarInstance(f"{point.id}:{rule.id}", levels)
            codes = [set(level["values"]) for level in given.values()]
            scalar_discrete(instance, codes, of_point(case, point), case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
