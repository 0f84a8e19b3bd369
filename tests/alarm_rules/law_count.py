"""Head-counts over random histories: people who walk, stand, lose their card; areas and the mine."""

from __future__ import annotations

import math
import random

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, scalar_count, story

from alarm_rules.kinds.count import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

DELAYS_S = [0.0, 0.0, 1.0, 2.5]
QUALITIES = [0] * 8 + [
    int(Quality.UNCERTAIN_POSITION),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_COMMUNICATION),
]


def _rule(rng: random.Random, name: str, **parameters: object) -> Rule:
    if rng.random() < 0.4:
        parameters["factor"] = rng.choice([0.5, 1.2, 1.5])
    if rng.random() < 0.3:
        parameters["capacity"] = rng.choice([0, 1, 2.5, 3])
    return Rule(
        name,
        "count",
        {"value": Selector(quantity="personnel_area")},
        parameters,
        on_delay_s=rng.choice(DELAYS_S),
        off_delay_s=rng.choice(DELAYS_S),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    """As many people as histories, in a few areas of which one states no capacity."""
    capacities = [str(rng.randrange(1, 5)) for _ in range(4)] + [""]
    devices = [Device(id="mine", kind="mine", attributes={"capacity": str(histories // 2 + 2)})]
    devices += [
        Device(id=f"area{n}", kind="area", attributes={"capacity": text} if text else {})
        for n, text in enumerate(capacities)
    ]
    points = [
        Point(id=f"p{n}", kind=PointKind.AREA, quantity="personnel_area") for n in range(histories)
    ]
    places = [-1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 99.0, -7.0, 1e12, math.nan]
    samples = []
    for point in points:
        time_s, stays = float(rng.randrange(3)), rng.choice([0.0, 0.6])
        area = rng.choice(places)
        for _ in range(rng.randrange(0, 12)):
            if rng.random() >= stays:
                area = rng.choice(places)
            samples.append(Sample(point.id, time_s, area, rng.choice(QUALITIES)))
            time_s += rng.choice([0.0, 1.0, 1.0, 2.5])
    some = [f"area{n}" for n in sorted(rng.sample(range(5), 3))]
    rules = [
        _rule(rng, "areas"),
        _rule(rng, "some", areas=some),
        _rule(rng, "all", scope="mine"),
    ]
    return RuleCase(rules, points, samples, devices, end_s=rng.choice([0.0, 40.0]))


def reference(case: RuleCase) -> Story:
    index = {device.id: n for n, device in enumerate(case.devices)}
    told = []
    for rule in case.rules:
        given = rule.parameters
        instances, limits = {}, {}
        for device in case.devices:
            is_mine = device.kind == "mine"
            if is_mine != (given.get("scope") == "mine") or (
                device.id not in given.get("areas", index)
            ):
                continue
            stated = given.get("capacity", device.attributes.get("capacity"))
            if stated is None:
                continue
            code = -2 if is_mine else index[device.id]
            limits[code] = float(stated) * given.get("factor", 1.0)
            on_ns, off_ns = round(rule.on_delay_s * NS), round(rule.off_delay_s * NS)
            level = ScalarLevel("OVER", on_ns, off_ns, limits[code], limits[code])
            instances[code] = ScalarInstance(f"{device.id}:{rule.id}", [level])
        scalar_count(instances, limits, list(case.samples), case.end_ns)
        told += instances.values()
    return story(told)


LAW = Law(KIND, make, reference, together_max=20)
