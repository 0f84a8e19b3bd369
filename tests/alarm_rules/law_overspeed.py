"""Speeds over random histories: see laws.py. Classes, places and nights, speeds on the limit."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from laws import Law
from reference import NS, ScalarInstance, ScalarLevel, story
from reference_place import scalar_overspeed

from alarm_rules.kinds.overspeed import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

QUALITIES = [0] * 10 + [
    int(Quality.UNCERTAIN_POSITION),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_OVER_RANGE),
]
AREAS = {"yard": 0, "pit": 1}  # device indices
SQUARE = {"polygon": [[116.0, 39.0], [116.01, 39.0], [116.01, 39.01], [116.0, 39.01]]}
ROAD = {"corridor": {"line": [[116.0, 39.0], [116.02, 39.02]], "width_m": 333.3}}
INPUTS = ("speed", "lon", "lat", "area")


def _rule(rng: random.Random, number: int) -> Rule:
    given: dict[str, object] = {"utc_offset_h": 0}
    if rng.random() < 0.6:
        given["limit_kmh"] = rng.choice([60.0, 80.0])
    if rng.random() < 0.6:
        values = {"hazmat": 60.0, "coach": 100.0}
        given["limits_by"] = {"attribute": "vehicle_class", "values": values}
    names = ["speed"]
    areas: list[dict] = []
    if rng.random() < 0.6:
        areas += [{"shape": rng.choice([SQUARE, ROAD]), "limit_kmh": rng.choice([30.0, 70.0])}]
        names += ["lon", "lat"]
    if rng.random() < 0.5:
        areas += [{"area": rng.choice([*AREAS, "yard"]), "limit_kmh": 20.5}]
        names += ["area"]
    if areas:
        given["areas"] = areas
    elif "limit_kmh" not in given and "limits_by" not in given:
        given["limit_kmh"] = 60.0
    if rng.random() < 0.5:
        given["night_factor"] = rng.choice([0.8, 0.5])
        if rng.random() < 0.8:
            given["night"] = {"from": "22:14", "to": rng.choice(["22:13", "22:15"])}
    for name, values in (
        ("tolerance_kmh", [5.0]),
        ("hysteresis_kmh", [2.5]),
        ("pre_warn_kmh", [4]),
    ):
        if rng.random() < 0.4:
            given[name] = rng.choice(values)
    return Rule(
        f"r{number}",
        "overspeed",
        {name: Selector(quantity=name) for name in names},
        given,
        on_delay_s=rng.choice([0.0, 0.0, 2.0]),
        off_delay_s=rng.choice([0.0, 0.0, 3.0]),
    )


def _speed(rng: random.Random) -> float:
    value = rng.choice([0.0, 20.5, 30.0, 48.0, 60.0, 62.5, 64.0, 70.0, 80.0, 85.0, 100.0, 120.0])
    return math.nextafter(value, rng.choice([0, math.inf])) if rng.random() < 0.3 else value


def make(rng: random.Random, histories: int) -> RuleCase:
    devices = [Device(id=name, kind="area") for name in AREAS]
    points, samples = [], []
    for n in range(histories):
        vehicle_class = rng.choice(["hazmat", "coach", "coach", "tractor"])
        devices.append(
            Device(id=f"v{n}", kind="vehicle", attributes={"vehicle_class": vehicle_class})
        )
        for name in INPUTS:
            points.append(
                Point(id=f"v{n}.{name}", kind=PointKind(name), quantity=name, device=f"v{n}")
            )
        time_s = float(rng.randrange(3))
        for _ in range(rng.choice([0, 2, 6, 10])):
            told = {"speed": _speed(rng)}
            told["lon"] = 116.0 + rng.randrange(-2, 14) / 1000
            told["lat"] = 39.0 + rng.randrange(-2, 14) / 1000
            told["area"] = rng.choice([-1.0, 0.0, 1.0, 9.0, math.nan])
            if rng.random() < 0.1:
                told["lon"] = told["lat"] = 0.0
            for name, value in told.items():
                if rng.random() < 0.6:
                    samples.append(Sample(f"v{n}.{name}", time_s, value, rng.choice(QUALITIES)))
            time_s += rng.choice([0.0, 1.0, 1.0, 3.0, 20.0])
    rules = [_rule(rng, number) for number in range(2)]
    return RuleCase(rules, points, samples, devices, end_s=rng.choice([0.0, 60.0]))


def _base(given: dict, vehicle: Device) -> float | None:
    limits = [given["limit_kmh"]] if "limit_kmh" in given else []
    if "limits_by" in given:
        limits.append(
            given["limits_by"]["values"].get(vehicle.attributes["vehicle_class"], math.inf)
        )
    return min(limits, default=math.inf)


def reference(case: RuleCase) -> Story:
    of_device = defaultdict(list)
    for sample in case.samples:
        of_device[sample.point.partition(".")[0]].append(sample)
    instances = []
    for rule in case.rules:
        given = rule.parameters
        for vehicle in (d for d in case.devices if d.kind == "vehicle"):
            base = _base(given, vehicle)
            if base == math.inf and "areas" not in given:
                continue
            shown = None if "areas" in given or "night_factor" in given else base
            delays = round(rule.on_delay_s * NS), round(rule.off_delay_s * NS)
            levels = [ScalarLevel("OVERSPEED", *delays, shown, shown)]
            if "pre_warn_kmh" in given:
                before = None if shown is None else shown - given["pre_warn_kmh"]
                levels.insert(0, ScalarLevel("PREWARN", *delays, before, before))
            instance = ScalarInstance(f"{vehicle.id}:{rule.id}", levels)
            inputs = {name: f"{vehicle.id}.{name}" for name in rule.inputs}
            own = [s for s in of_device[vehicle.id] if s.point in inputs.values()]
            scalar_overspeed(
                instance, inputs, given, base=base, codes=AREAS, samples=own, end_ns=case.end_ns
            )
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="alike")
