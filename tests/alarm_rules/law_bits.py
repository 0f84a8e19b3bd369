"""Alarm words over random histories: see laws.py. Low and high bits, and words that are none."""

from __future__ import annotations

import math
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
    scalar_bit,
)

from alarm_rules.kinds.bits import KIND
from gateway.model.point import Point, PointKind
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Story

BITS = [0, 1, 2, 31, 51]
ODD = [-1.0, 0.5, 2.0**52, 2.0**60, math.inf, -0.0]


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    bits = {
        str(bit): {
            "name": f"B{bit}",
            **({"when": rng.choice(["set", "clear"])} if rng.random() < 0.4 else {}),
            **random_delays(rng),
        }
        for bit in rng.sample(BITS, rng.choice([1, 2, 4]))
    }
    return Rule(
        f"r{number}",
        "bits",
        {"value": selector},
        {"bits": bits},
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def _word(rng: random.Random, _: float) -> float:
    if rng.random() < 0.1:
        return rng.choice(ODD)
    return float(sum(1 << bit for bit in BITS if rng.random() < 0.3))


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [
        Point(id=f"p{n}", kind=PointKind.BITS, quantity=rng.choice("qr"), area="here")
        for n in range(histories)
    ]
    rules = [_rule(rng, 0, Selector(quantity="q")), _rule(rng, 1, Selector(area="here"))]
    samples = random_samples(rng, points, _word)
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        for point in matching(case, rule):
            samples = of_point(case, point)
            for bit, given in rule.parameters["bits"].items():
                level = ScalarLevel(given["name"], *delays_ns(rule, given), None, None)
                key = f"{point.id}.{given['name'].lower()}:{rule.id}"
                instance = ScalarInstance(key, [level])
                wanted = 0 if given.get("when") == "clear" else 1
                scalar_bit(instance, int(bit), wanted, samples, case.end_ns)
                instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
