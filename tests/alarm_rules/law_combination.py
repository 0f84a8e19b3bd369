"""Combinations over random histories: points to items, items to the pond; planned members."""

from __future__ import annotations

import math
import random

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, scalar_limit, story
from reference_logic import adding, scalar_combination

from alarm_rules.kinds import limit
from alarm_rules.kinds.combination import COLOURS, KIND
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import Change, RuleCase, Sample, Story

DELAYS_S = [0.0, 0.0, 1.0, 2.5]
NAMES = ["H", "HH", "HHH", "HHHH"]
QUALITIES = [0] * 8 + [
    int(Quality.UNCERTAIN),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_SENSOR_FAULT),
]


def _points_rule(rng: random.Random, number: int) -> Rule:
    """Four limits 1 to 4, each of some colour or of none."""
    levels = {
        name: {
            "limit": float(n + 1),
            "level": rng.choice([COLOURS[n], COLOURS[n], rng.choice(COLOURS), "grey"]),
        }
        for n, name in enumerate(NAMES)
    }
    return Rule(
        f"points.{number}",
        "limit",
        {"value": Selector(quantity="q")},
        {"levels": levels},
        scheme=rng.choice(["pond", "pond", "other"]),
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def _combination(rng: random.Random, name: str, rules: list[str], group_by: GroupBy) -> Rule:
    colours = list(COLOURS) if rng.random() < 0.8 else ["blue", "red"]
    steps = []
    for of in colours[:-1]:
        if rng.random() < 0.8 or not steps:
            makes = rng.choice(colours[colours.index(of) + 1 :])
            steps.append({"of": of, "count": rng.choice([1, 2, 2, 3, 4]), "makes": makes})
    return Rule(
        name,
        "combination",
        {"value": Selector()},
        {
            "rules": rules,
            "steps": steps,
            "colours": colours,
            "scheme": rng.choice(["", "pond"]),
            "carry": rng.random() < 0.4,
            "include_members": rng.random() < 0.4,
        },
        scheme="pond",
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
        group_by=group_by,
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    """Items of one to six points; the pond is the sum of the items."""
    points: list[Point] = []
    samples = []
    while len(points) < histories:
        area = f"item{len(points)}"
        for _ in range(rng.choice([1, 2, 4, 4, 6])):
            points.append(Point(id=f"p{len(points)}", quantity="q", area=area))
    for point in points:
        time_s, steps = float(rng.randrange(3)), rng.choice([[1.0], [0.0, 1.0], [0.5, 3.0]])
        for _ in range(rng.randrange(0, 12)):
            value = rng.choice([0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, math.nan])
            samples.append(Sample(point.id, time_s, value, rng.choice(QUALITIES)))
            time_s += rng.choice(steps)
    rules = [
        _points_rule(rng, 0),
        _points_rule(rng, 1),
        _combination(rng, "item", ["points.*"], GroupBy.AREA),
        _combination(rng, "pond", ["item"], GroupBy.SITE),
        _combination(rng, "every", ["*"], GroupBy.SITE),
    ]
    rng.shuffle(rules)
    kinds = {"limit": limit.KIND}
    return RuleCase(rules, points, samples, kinds=kinds, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    told: dict[str, list[ScalarInstance]] = {}
    order = sorted(
        case.rules, key=lambda r: ["points.0", "points.1", "item", "pond", "every"].index(r.id)
    )
    for rule in order:
        told[rule.id] = _points(case, rule) if rule.kind == "limit" else _combined(case, rule, told)
    return story([instance for found in told.values() for instance in found])


def _points(case: RuleCase, rule: Rule) -> list[ScalarInstance]:
    found = []
    for point in case.points:
        levels = [
            ScalarLevel(
                name,
                round(rule.on_delay_s * NS),
                round(rule.off_delay_s * NS),
                given["limit"],
                given["limit"],
            )
            for name, given in rule.parameters["levels"].items()
        ]
        tests = [(lambda v, x=lv.limit: v >= x, lambda v, x=lv.limit: v < x) for lv in levels]
        instance = ScalarInstance(f"{point.id}:{rule.id}", levels)
        own = [s for s in case.samples if s.point == point.id]
        scalar_limit(instance, tests, own, case.end_ns)
        found.append(instance)
    return found


def _combined(
    case: RuleCase, rule: Rule, told: dict[str, list[ScalarInstance]]
) -> list[ScalarInstance]:
    given = rule.parameters
    colours = given["colours"]
    rank = {colour: n + 1 for n, colour in enumerate(colours)}
    steps = [(rank[s["of"]], s["count"], rank[s["makes"]]) for s in given["steps"]]
    judged = {"item": ["points.0", "points.1"], "pond": ["item"], "every": list(told)}[rule.id]
    members: dict[str, dict[str, dict[str, int]]] = {}
    changes: list[Change] = []
    area_of = {point.id: point.area for point in case.points}
    for other in case.rules:
        if other.id not in judged:
            continue
        for instance in told[other.id]:
            target = instance.key.split(":")[0]
            key = area_of[target] if rule.group_by == GroupBy.AREA else "site"
            members.setdefault(key, {})[instance.key] = _ranks(
                other, instance, rank, given["scheme"]
            )
            changes += instance.changes
    results = (
        list(rank.values())
        if given["include_members"]
        else sorted({makes for _, _, makes in steps})
    )
    found = []
    for key, group in members.items():
        if not any(any(ranks.values()) for ranks in group.values()):
            continue
        levels = []
        for result in results:
            counts = {count for _, count, makes in steps if makes == result}
            levels.append(
                ScalarLevel(
                    colours[result - 1],
                    round(rule.on_delay_s * NS),
                    round(rule.off_delay_s * NS),
                    float(counts.pop()) if len(counts) == 1 else None,
                    None,
                )
            )
        instance = ScalarInstance(f"{key}:{rule.id}", levels)
        scalar_combination(
            instance,
            group,
            changes,
            add_up=adding(steps, carry=given["carry"], include=given["include_members"]),
            results=results,
            end_ns=case.end_ns,
        )
        found.append(instance)
    return found


def _ranks(
    other: Rule, instance: ScalarInstance, rank: dict[str, int], scheme: str
) -> dict[str, int]:
    if scheme not in ("", other.scheme):
        return {}
    if other.kind == "combination":
        return {level.name: rank.get(level.name, 0) for level in instance.levels}
    return {name: rank.get(given["level"], 0) for name, given in other.parameters["levels"].items()}


LAW = Law(KIND, make, reference)
