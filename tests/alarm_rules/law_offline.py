"""Silences over random histories: see laws.py. Gaps of exactly the age and one nanosecond off."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from laws import Law
from reference import ScalarInstance, ScalarLevel, scalar_offline, story

from alarm_rules.kinds.offline import KIND
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

NS = 1_000_000_000
QUALITIES = [0, 0, 0, int(Quality.UNCERTAIN), int(Quality.BAD_COMMUNICATION)]


def _rule(rng: random.Random, number: int) -> Rule:
    scope = rng.choice(["point", "device", "adapter"])
    parameters: dict[str, object] = {"scope": scope, "needs": rng.choice(["good", "any"])}
    if rng.random() < 0.5:
        parameters["interval_factor"] = rng.choice([1.5, 2.0, 3.0])
        parameters["floor_s"] = rng.choice([0.0, 3.0])
    if rng.random() < 0.7 or "interval_factor" not in parameters:
        parameters["max_age_s"] = rng.choice([1.0, 3.0, 4.0, 6.0])
    return Rule(
        f"o{number}",
        "offline",
        {"value": Selector(quantity=rng.choice(["", "q"]), area="here")},
        parameters,
        on_delay_s=rng.choice([0.0, 0.0, 2.0]),
        off_delay_s=rng.choice([0.0, 0.0, 1.0, 3.0]),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    """Each history is one adapter with two devices of two points and one point without device."""
    points, samples = [], []
    for n in range(histories):
        own = [
            Point(
                id=f"p{n}.{k}",
                quantity=rng.choice("qr"),
                device="" if k == 4 else f"d{n}.{k // 2}",
                adapter=f"x{n}",
                area="here",
                interval_s=rng.choice([None, 1.0, 2.0]),
            )
            for k in range(5)
        ]
        points += own
        for point in own:
            time_s = float(rng.randrange(6))
            for _ in range(rng.choice([0, 1, 4, 8])):
                value = math.nan if rng.random() < 0.15 else 1.0
                samples.append(Sample(point.id, time_s, value, rng.choice(QUALITIES)))
                time_s += rng.choice([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 3.999999999, 4.000000001, 9.0])
    rules = [_rule(rng, number) for number in range(3)]
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 30.0]))


def _age_ns(rule: Rule, points: list[Point]) -> int | None:
    """A multiple of the fastest interval; the fixed age where no interval is stated."""
    given = rule.parameters
    intervals = [point.interval_s for point in points if point.interval_s]
    floor_s = given.get("floor_s", 0.0)
    if "interval_factor" in given and intervals:
        return round(max(given["interval_factor"] * min(intervals), floor_s) * NS)
    if "max_age_s" not in given:
        return None
    return round(max(given["max_age_s"], floor_s) * NS)


def reference(case: RuleCase) -> Story:
    of_point = defaultdict(list)
    for sample in case.samples:
        of_point[sample.point].append(sample)
    instances = []
    for rule in case.rules:
        scope = rule.parameters["scope"]
        groups = defaultdict(list)
        for point in case.points:
            key = point.id if scope == "point" else getattr(point, scope)
            if key and rule.inputs["value"].matches(point):
                groups[key].append(point)
        for key, points in groups.items():
            age_ns = _age_ns(rule, points)
            if age_ns is None:
                continue
            delays = round(rule.on_delay_s * NS), round(rule.off_delay_s * NS)
            level = ScalarLevel("OFFLINE", *delays, age_ns / NS, age_ns / NS)
            instance = ScalarInstance(f"{key}:{rule.id}", [level])
            own = [sample for point in points for sample in of_point[point.id]]
            needs = rule.parameters["needs"]
            scalar_offline(instance, own, age_ns=age_ns, needs=needs, end_ns=case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference)
