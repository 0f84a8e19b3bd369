"""Votes over random histories: random n and m, sensors that turn bad, fall silent, come back."""

from __future__ import annotations

import math
import operator
import random

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, story
from reference_logic import scalar_vote

from alarm_rules.kinds.n_of_m import KIND
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

WRITTEN = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
DELAYS_S = [0.0, 0.0, 1.0, 2.5]
QUALITIES = [0] * 8 + [
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_SENSOR_FAULT),
    int(Quality.BAD_COMMUNICATION),
]
ZONE_SIZES = [1, 2, 3, 3, 4]


def _rule(rng: random.Random, number: int) -> Rule:
    written = rng.choice(list(WRITTEN))
    side = 1 if written[0] == ">" else -1
    parameters: dict[str, object] = {
        "n": rng.choice([1, 2, 2, 3]),
        "limit": 2.0,
        "operator": written,
    }
    if rng.random() < 0.5:
        parameters["reset"] = 2.0 - side
    if parameters["n"] > 1:
        parameters["degrade"] = rng.choice(["strict", "proportional"])
    if rng.random() < 0.5:
        parameters["max_input_age_s"] = rng.choice([1.0, 2.0, 3.5])
    if rng.random() < 0.3:
        parameters["m"] = rng.choice([3, 4])
    if rng.random() < 0.3:
        parameters["missing_alarm"] = False
    parameters["missing_delay_s"] = rng.choice(DELAYS_S)
    return Rule(
        f"r{number}",
        "n_of_m",
        {"value": Selector(quantity="q")},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
        group_by=GroupBy.AREA,
    )


def _value(rng: random.Random) -> float:
    if rng.random() < 0.06:
        return math.nan
    value = rng.choice([0.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0])
    return math.nextafter(value, 9.0) if rng.random() < 0.1 else value


def make(rng: random.Random, histories: int) -> RuleCase:
    points, samples = [], []
    for zone in range(histories):
        steps = rng.choice([[1.0], [0.0, 1.0], [0.5, 4.0]])
        for number in range(rng.choice(ZONE_SIZES)):
            point = Point(id=f"z{zone}.s{number}", quantity="q", area=f"z{zone}")
            points.append(point)
            # 1 ns late: exactly when a sensor with a sample on the grid becomes too old
            time_s = rng.randrange(4) + rng.choice([0.0, 0.0, 1e-9])
            for _ in range(rng.randrange(0, 10)):
                samples.append(Sample(point.id, time_s, _value(rng), rng.choice(QUALITIES)))
                time_s += rng.choice(steps)
    rules = [_rule(rng, number) for number in range(2)]
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    instances = []
    for rule in case.rules:
        for zone in sorted({point.area for point in case.points}):
            sensors = [point.id for point in case.points if point.area == zone]
            instances += _zone(case, rule, zone, sensors)
    return story(instances)


def _zone(case: RuleCase, rule: Rule, zone: str, sensors: list[str]) -> list[ScalarInstance]:
    given = rule.parameters
    n, m = given["n"], max(given.get("m", 0), len(sensors), given["n"])
    vote = ScalarInstance(
        f"{zone}:{rule.id}",
        [ScalarLevel("VOTE", round(rule.on_delay_s * NS), round(rule.off_delay_s * NS), n, n)],
    )
    missing = ScalarInstance(
        f"{zone}.missing:{rule.id}",
        [ScalarLevel("MISSING", round(given["missing_delay_s"] * NS), 0, m, m)],
    )
    if not given.get("missing_alarm", True):
        missing = None
    compare = WRITTEN[given["operator"]]
    age_s = given.get("max_input_age_s")

    def needed(there: int) -> int:
        return max(n * there // m, 1) if given.get("degrade") == "proportional" else n

    scalar_vote(
        vote,
        missing,
        sensors,
        list(case.samples),
        needed=needed,
        tests=(
            lambda value: compare(value, given["limit"]),
            lambda value: not compare(value, given.get("reset", given["limit"])),
        ),
        age_ns=None if age_s is None else round(age_s * NS),
        m=m,
        end_ns=case.end_ns,
    )
    return [vote] + ([missing] if missing else [])


LAW = Law(KIND, make, reference)
