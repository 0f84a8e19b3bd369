"""Limits over random histories: see laws.py. Values stand on the limits and one float beside."""

from __future__ import annotations

import math
import operator
import random
from collections import defaultdict

from laws import Law
from reference import ScalarInstance, ScalarLevel, scalar_limit, story

from alarm_rules.kinds.limit import KIND
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

NS = 1_000_000_000
SEVERITY = ["L", "H", "LL", "HH", "LLL", "HHH"]
WRITTEN = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
DELAYS_S = [0.0, 0.0, 1.0, 2.0, 2.5, 7.0]
QUALITIES = [0] * 8 + [
    int(Quality.UNCERTAIN),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.UNCERTAIN_POSITION),
    int(Quality.BAD_SENSOR_FAULT),
]


def _rule(rng: random.Random, number: int, *, selector: Selector) -> Rule:
    """A milder level never lies beyond a severer one; a reset never beyond its limit."""
    levels: dict[str, object] = {}
    for letter, side in (("H", 1), ("L", -1)):
        limit = 0.0
        for count in range(1, rng.choice([1, 2, 2, 3, 4])):
            limit += rng.choice([0.0, 1.0, 1.0, 2.0])
            level: dict[str, object] = {"limit": side * limit}
            if rng.random() < 0.6:
                level["reset"] = side * (limit - rng.choice([0.0, 0.5, 1.0]))
            if rng.random() < 0.5:
                level["operator"] = (">", ">=")[rng.random() < 0.5].replace(">", "><"[side < 0])
            for name in ("on_delay_s", "off_delay_s"):
                if rng.random() < 0.4:
                    level[name] = rng.choice(DELAYS_S)
            levels[letter * count] = level if len(level) > 1 else side * limit
    return Rule(
        f"r{number}",
        "limit",
        {"value": selector},
        {"levels": levels or {"H": 1.0}},
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def _value(rng: random.Random) -> float:
    if rng.random() < 0.06:
        return math.nan
    value = rng.choice([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
    if rng.random() < 0.2:
        value = math.nextafter(value, rng.choice([-math.inf, math.inf]))
    return value


def make(rng: random.Random, histories: int) -> RuleCase:
    """Two rules over all points, one over half of them; steady, jumping and bursting points."""
    points = [Point(id=f"p{n}", quantity=rng.choice("qr"), area="here") for n in range(histories)]
    samples = []
    for point in points:
        step = rng.choice([[1.0], [1.0], [0.0, 1.0], [0.5, 3.0, 9.0]])
        stays = rng.choice([0.0, 0.5, 0.9])
        time_s, value, quality = float(rng.randrange(3)), _value(rng), 0
        for _ in range(rng.randrange(0, 25)):
            if rng.random() >= stays:
                value, quality = _value(rng), rng.choice(QUALITIES)
            samples.append(Sample(point.id, time_s, value, quality))
            time_s += rng.choice(step)
    rules = [
        _rule(rng, 0, selector=Selector(quantity="q")),
        _rule(rng, 1, selector=Selector(ids=tuple(p.id for p in points))),
        _rule(rng, 2, selector=Selector(area="here")),
    ]
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def _levels(rule: Rule) -> list[tuple[ScalarLevel, tuple]]:
    found = []
    for name in SEVERITY:
        given = rule.parameters["levels"].get(name)
        if given is None:
            continue
        given = given if isinstance(given, dict) else {"limit": given}
        limit, reset = given["limit"], given.get("reset", given["limit"])
        beyond = WRITTEN[given.get("operator", ">=" if name[0] == "H" else "<=")]
        level = ScalarLevel(
            name,
            round(given.get("on_delay_s", rule.on_delay_s) * NS),
            round(given.get("off_delay_s", rule.off_delay_s) * NS),
            limit,
            reset,
        )
        tests = (
            lambda v, c=beyond, x=limit: c(v, x),
            lambda v, c=beyond, x=reset: not c(v, x),
        )
        found.append((level, tests))
    return found


def reference(case: RuleCase) -> Story:
    of_point = defaultdict(list)
    for sample in case.samples:
        of_point[sample.point].append(sample)
    instances = []
    for rule in case.rules:
        for point in case.points:
            if rule.inputs["value"].matches(point):
                levels = _levels(rule)
                instance = ScalarInstance(f"{point.id}:{rule.id}", [level for level, _ in levels])
                tests = [test for _, test in levels]
                scalar_limit(instance, tests, of_point[point.id], case.end_ns)
                instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
