"""Stays over random histories: see laws.py. Stays and absences of exactly the limit."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from law_area import AREAS, MINE, QUALITIES, VALUES, listed_areas
from laws import Law
from reference import NS, ScalarLevel, story
from reference_place import TimedInstance, scalar_dwell, verdict_of

from alarm_rules.kinds.dwell import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story


def _rule(rng: random.Random, number: int) -> Rule:
    given: dict[str, object] = {"limit_s": rng.choice([3.0, 5.0, 10.0])}
    if rng.random() < 0.5:
        given["warn_s"] = rng.choice([1.0, 2.0, 2.999999999])
    if rng.random() < 0.7:
        given["leave_min_s"] = rng.choice([1.0, 2.0, 4.0])
    if rng.random() < 0.6:
        given["areas"] = rng.sample([*AREAS, "mine", "unheard-of"], rng.randrange(1, 4))
    if rng.random() < 0.3:
        given["areas_by"] = {"attribute": "area_type", "values": ["重点区域"]}
    return Rule(
        f"r{number}",
        "dwell",
        {"value": Selector(quantity="personnel_area")},
        given,
        on_delay_s=rng.choice([0.0, 0.0, 1.0]),
        off_delay_s=rng.choice([0.0, 0.0, 1.0, 2.0]),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    devices = [
        Device(id=a, kind="area", attributes={"area_type": rng.choice(["重点区域", "其它区域"])})
        for a in AREAS
    ]
    devices.append(Device(id="mine", kind="mine"))
    points, samples = [], []
    for n in range(histories):
        point = Point(id=f"p{n}.area", kind=PointKind.AREA, quantity="personnel_area")
        points.append(point)
        time_s, stays, value = float(rng.randrange(3)), rng.choice([0.2, 0.6, 0.9]), 0.0
        for _ in range(rng.choice([0, 3, 8, 20])):
            if rng.random() > stays:
                value = math.nan if rng.random() < 0.05 else rng.choice(VALUES)
            samples.append(Sample(point.id, time_s, value, rng.choice(QUALITIES)))
            time_s += rng.choice([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 1.999999999, 7.0])
    rules = [_rule(rng, number) for number in range(2)]
    return RuleCase(rules, points, samples, devices, end_s=rng.choice([0.0, 60.0]))


def _verdict(given: dict, case: RuleCase):
    if not given.get("areas") and "areas_by" not in given:
        return lambda value: verdict_of(value, listed=set(), unknown=set(), mode="others")
    codes = {device.id: code for code, device in enumerate(case.devices)}
    listed = {codes[a] for a in listed_areas(given, case)}
    unknown = {MINE} - listed
    return lambda value: verdict_of(value, listed=listed, unknown=unknown, mode="listed")


def reference(case: RuleCase) -> Story:
    of_point = defaultdict(list)
    for sample in case.samples:
        of_point[sample.point].append(sample)
    instances = []
    for rule in case.rules:
        given = rule.parameters
        off_ns = round(rule.off_delay_s * NS)
        for point in case.points:
            levels = [
                ScalarLevel(
                    name,
                    round(rule.on_delay_s * NS) + round(given[key] * NS),
                    off_ns,
                    given[key],
                    None,
                )
                for name, key in (("WARN", "warn_s"), ("OVERTIME", "limit_s"))
                if key in given
            ]
            instance = TimedInstance(f"{point.id}:{rule.id}", levels)
            leave_ns = round(given.get("leave_min_s", 0.0) * NS)
            verdict = _verdict(given, case)
            scalar_dwell(instance, verdict, leave_ns, of_point[point.id], case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="each")
