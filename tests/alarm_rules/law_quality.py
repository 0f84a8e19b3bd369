"""Instrument alarms over random histories: see laws.py."""

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
    scalar_quality,
)

from alarm_rules.kinds.quality import KIND
from gateway.model.point import Point
from gateway.model.quality import BAD, UNCERTAIN, Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

REASONS = [quality.name for quality in Quality if quality is not Quality.GOOD]
TOLD = [0, 0, 0, *(int(quality) for quality in Quality)]


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    parameters: dict[str, object] = {}
    if rng.random() < 0.5:
        parameters["categories"] = rng.choice([["bad"], ["uncertain"], ["bad", "uncertain"]])
    if rng.random() < 0.7 or not parameters:
        parameters["reasons"] = rng.sample(REASONS, rng.choice([1, 2, 5]))
    if rng.random() < 0.3:
        parameters["name"] = "SENSOR"
    return Rule(
        f"r{number}",
        "quality",
        {"value": selector},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    points = [Point(id=f"p{n}", quantity=rng.choice("qr"), area="here") for n in range(histories)]
    rules = [_rule(rng, 0, Selector(quantity="q")), _rule(rng, 1, Selector(area="here"))]
    samples = [
        Sample(s.point, s.time_s, s.value, rng.choice(TOLD))
        for s in random_samples(rng, points, lambda r, _: r.choice([0.0, 1.0]))
    ]
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        alarms = {int(Quality[name]) for name in rule.parameters.get("reasons", ())}
        for category in rule.parameters.get("categories", ()):
            alarms |= {
                quality for quality in Quality if (quality >= BAD) == (category == "bad")
                and quality >= UNCERTAIN
            }  # fmt: skip
        for point in matching(case, rule):
            level = ScalarLevel(
                rule.parameters.get("name", "BADQ"), *delays_ns(rule, {}), None, None
            )
            instance = ScalarInstance(f"{point.id}:{rule.id}", [level])
            scalar_quality(instance, alarms, of_point(case, point), case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
