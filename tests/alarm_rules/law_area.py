"""Restricted and permitted areas over random histories: see laws.py."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, story
from reference_place import scalar_area, verdict_of

from alarm_rules.kinds.area import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

AREAS = ["face", "goaf", "road", "hall"]  # device indices 0 to 3; the mine is 4
MINE = 4
QUALITIES = [0] * 6 + [
    int(Quality.UNCERTAIN_POSITION),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_COMMUNICATION),
]
VALUES = [0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 4.0, -1.0, -1.0, 77.0, 1.5, float(1 << 31), math.inf]


def _rule(rng: random.Random, number: int) -> Rule:
    given: dict[str, object] = {
        "mode": rng.choice(["forbid", "permit"]),
        "areas": rng.sample([*AREAS, "mine", "unheard-of"], rng.randrange(0, 4)),
    }
    if rng.random() < 0.4 or not given["areas"]:
        given["areas_by"] = {"attribute": "area_type", "values": ["限制区域"]}
    if rng.random() < 0.5:
        given["allowed_attribute"] = "may_enter"
    if rng.random() < 0.3:
        given["allowed_by"] = {"attribute": "job", "values": ["inspector"]}
    return Rule(
        f"r{number}",
        "area",
        {"value": Selector(quantity="personnel_area")},
        given,
        on_delay_s=rng.choice([0.0, 0.0, 2.0]),
        off_delay_s=rng.choice([0.0, 0.0, 1.0, 3.0]),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    devices = [
        Device(id=a, kind="area", attributes={"area_type": rng.choice(["限制区域", "其它区域"])})
        for a in AREAS
    ]
    devices.append(Device(id="mine", kind="mine"))
    points, samples = [], []
    for n in range(histories):
        attributes = {"job": rng.choice(["inspector", "driller"])}
        attributes["may_enter"] = rng.choice(
            ["", "goaf", "goaf，face", "road;hall unheard-of", "*"]
        )
        devices.append(Device(id=f"p{n}", kind="person", attributes=attributes))
        point = Point(
            id=f"p{n}.area", kind=PointKind.AREA, quantity="personnel_area", device=f"p{n}"
        )
        points.append(point)
        time_s = float(rng.randrange(3))
        for _ in range(rng.randrange(0, 18)):
            value = math.nan if rng.random() < 0.05 else rng.choice(VALUES)
            samples.append(Sample(point.id, time_s, value, rng.choice(QUALITIES)))
            time_s += rng.choice([0.0, 1.0, 1.0, 2.0, 5.0])
    rules = [_rule(rng, number) for number in range(2)]
    return RuleCase(rules, points, samples, devices, end_s=rng.choice([0.0, 60.0]))


def listed_areas(given: dict, case: RuleCase) -> set[str]:
    found = {a for a in given.get("areas", ()) if a in {d.id for d in case.devices}}
    by = given.get("areas_by")
    if by:
        found |= {
            d.id
            for d in case.devices
            if d.kind == "area" and d.attributes.get(by["attribute"]) in by["values"]
        }
    return found


def _verdict(given: dict, person: Device, case: RuleCase):
    codes = {device.id: code for code, device in enumerate(case.devices)}
    allowed = person.attributes.get(given.get("allowed_attribute", ""), "")
    by = given.get("allowed_by")
    if allowed == "*" or (by and person.attributes.get(by["attribute"]) in by["values"]):
        return lambda value: False if value < 1 << 31 else None
    listed = listed_areas(given, case)
    may = set(allowed.replace("，", " ").replace(";", " ").split()) & set(codes)
    unknown = {MINE} - {codes[a] for a in listed}
    if given["mode"] == "forbid":
        wrong = {codes[a] for a in listed - may}
        return lambda value: verdict_of(value, listed=wrong, unknown=unknown, mode="listed")
    right = {codes[a] for a in listed | may}
    return lambda value: verdict_of(value, listed=right, unknown=unknown, mode="others")


def reference(case: RuleCase) -> Story:
    of_point = defaultdict(list)
    for sample in case.samples:
        of_point[sample.point].append(sample)
    devices = {device.id: device for device in case.devices}
    instances = []
    for rule in case.rules:
        for point in case.points:
            delays = round(rule.on_delay_s * NS), round(rule.off_delay_s * NS)
            level = ScalarLevel("FORBIDDEN", *delays, None, None)
            instance = ScalarInstance(f"{point.id}:{rule.id}", [level])
            verdict = _verdict(rule.parameters, devices[point.device], case)
            scalar_area(instance, verdict, of_point[point.id], case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="alike")
