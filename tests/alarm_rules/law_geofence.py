"""Fences over random histories: see laws.py. Positions on edges and corners, halves of positions."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, story
from reference_place import scalar_geofence

from alarm_rules.kinds.geofence import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

QUALITIES = [0] * 10 + [
    int(Quality.UNCERTAIN_POSITION),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_OVER_RANGE),
]
SHAPES = [
    {"circle": {"lon": 116.0, "lat": 39.0, "radius_m": 250.3}},
    {"circle": {"lon": -70.001, "lat": -33.002, "radius_m": 120.7}},
    {"polygon": [[116.0, 39.0], [116.004, 39.0], [116.004, 39.004], [116.0, 39.004]]},
    {"polygon": [[0.0, 0.0], [0.003, 0.0], [0.001, 0.001], [0.0, 0.003]]},
    {
        "polygon": [
            [116.0, 39.0],
            [116.003, 39.003],
            [116.001, 39.002],
            [116.0, 39.004],
            [115.999, 39.002],
            [116.0, 39.0],
        ]
    },
    {"corridor": {"line": [[116.0, 39.0], [116.003, 39.001], [116.003, 39.004]], "width_m": 91.3}},
]


def _middle(shape: dict) -> tuple[float, float]:
    ((kind, drawn),) = shape.items()
    if kind == "circle":
        return drawn["lon"], drawn["lat"]
    lon, lat = (drawn["line"] if kind == "corridor" else drawn)[0]
    return lon, lat


def _rule(rng: random.Random, number: int, shape: dict) -> Rule:
    given: dict[str, object] = {"shape": shape, "alarm_when": rng.choice(["inside", "outside"])}
    if rng.random() < 0.7:
        given["hysteresis_m"] = rng.choice([13.7, 31.1])
    if rng.random() < 0.4:
        given["accuracy_m"] = 9.9
    return Rule(
        f"r{number}",
        "geofence",
        {"lon": Selector(quantity="lon"), "lat": Selector(quantity="lat")},
        given,
        on_delay_s=rng.choice([0.0, 0.0, 2.0]),
        off_delay_s=rng.choice([0.0, 0.0, 1.0]),
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    shapes = rng.sample(SHAPES, 2)
    points, samples, devices = [], [], []
    for n in range(histories):
        devices.append(Device(id=f"v{n}", kind="vehicle"))
        for kind in (PointKind.LON, PointKind.LAT):
            points.append(Point(id=f"v{n}.{kind}", kind=kind, quantity=str(kind), device=f"v{n}"))
        base, time_s = _middle(rng.choice(shapes)), float(rng.randrange(3))
        step = rng.choice([0.001, 0.001, 0.0001])
        for _ in range(rng.choice([0, 3, 8, 16])):
            place = [b + rng.randrange(-5, 9) * step for b in base]
            if rng.random() < 0.1:
                place = rng.choice([[0.0, 0.0], [181.0, 39.0], [116.0, 91.0], [math.nan, 39.0]])
            halves = rng.choice([(0, 1), (0, 1), (0, 1), (0, 1), (0,), (1,)])
            for half in halves:
                point = f"v{n}.{('lon', 'lat')[half]}"
                samples.append(Sample(point, time_s, place[half], rng.choice(QUALITIES)))
            time_s += rng.choice([0.0, 1.0, 1.0, 1.0, 3.0])
    rules = [_rule(rng, number, shape) for number, shape in enumerate(shapes)]
    return RuleCase(rules, points, samples, devices, end_s=rng.choice([0.0, 60.0]))


def reference(case: RuleCase) -> Story:
    of_device = defaultdict(list)
    for sample in case.samples:
        of_device[sample.point.partition(".")[0]].append(sample)
    instances = []
    for rule in case.rules:
        for device in case.devices:
            delays = round(rule.on_delay_s * NS), round(rule.off_delay_s * NS)
            level = ScalarLevel(rule.parameters["alarm_when"].upper(), *delays, None, None)
            instance = ScalarInstance(f"{device.id}:{rule.id}", [level])
            inputs = {name: f"{device.id}.{name}" for name in ("lon", "lat")}
            scalar_geofence(instance, inputs, rule.parameters, of_device[device.id], case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="alike")
