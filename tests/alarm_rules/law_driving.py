"""Driving over random histories: see laws.py. Seconds to days; limits met exactly and missed."""

from __future__ import annotations

import math
import random
from collections import defaultdict

from laws import Law
from reference import NS, ScalarLevel, story
from reference_place import TimedInstance, scalar_driving

from alarm_rules.kinds.driving import KIND
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, Story

ORDER = ["PREWARN", "DAILY", "NIGHT", "FATIGUE", "NIGHTBAN"]
QUALITIES = [0] * 9 + [int(Quality.UNCERTAIN_CALIBRATING), int(Quality.BAD), int(Quality.UNCERTAIN)]


def _time_of_day(rng: random.Random, unit_s: float) -> str:
    """The histories begin at 22:13:20 UTC; the short ones need windows close to it."""
    if unit_s < 60:
        return f"22:{rng.choice([13, 14, 14, 15, 16]):02}"
    return f"{rng.randrange(24):02}:{rng.choice([0, 30]):02}"


def _window(rng: random.Random, unit_s: float) -> dict[str, object]:
    while True:
        window: dict[str, object] = {k: _time_of_day(rng, unit_s) for k in ("from", "to")}
        if window["from"] != window["to"]:
            return window


def _rule(rng: random.Random, number: int, unit_s: float) -> Rule:
    given: dict[str, object] = {
        "rest_min_s": rng.choice([2, 3, 5]) * unit_s,
        "gap_max_s": min(rng.choice([1, 2, 4, 8, 30]) * unit_s, 21_600.0),
        "utc_offset_h": 0 if unit_s < 60 else rng.choice([0, 8, 8, 5.5]),
    }
    if rng.random() < 0.7:
        given["drive_max_s"] = rng.choice([4, 8, 12]) * unit_s
    if rng.random() < 0.5:
        drive_max_s = rng.choice([3, 6]) * unit_s
        given["night"] = {**_window(rng, unit_s), "drive_max_s": drive_max_s}
    if rng.random() < 0.5 or not {"drive_max_s", "night"} & set(given):
        given["daily_max_s"] = rng.choice([4, 10, 20]) * unit_s
    if rng.random() < 0.5:
        given["ban"] = _window(rng, unit_s)
    if {"drive_max_s", "night"} & set(given) and rng.random() < 0.5:
        given["pre_warn_s"] = rng.choice([1, 2.5]) * unit_s
    if rng.random() < 0.5:
        given["short_stops"] = rng.choice(["driving", "pause"])
    if rng.random() < 0.4:
        given["gap_standing"] = "standing"
    return Rule(
        f"r{number}",
        "driving",
        {"speed": Selector(quantity="vehicle_speed")},
        given,
        on_delay_s=rng.choice([0, 0, 0, 1]) * unit_s,
        off_delay_s=rng.choice([0, 0, 0, 1]) * unit_s,
    )


def make(rng: random.Random, histories: int) -> RuleCase:
    unit_s = rng.choice([1.0, 1.0, 60.0, 1200.0, 1200.0])
    points, samples, devices = [], [], []
    steps = [0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.000000001, 3.999999999, 9.0]
    for n in range(histories):
        devices.append(Device(id=f"v{n}", kind="vehicle"))
        point = Point(
            id=f"v{n}.speed", kind=PointKind.SPEED, quantity="vehicle_speed", device=f"v{n}"
        )
        points.append(point)
        time_s, speed = rng.randrange(3) * unit_s, 60.0
        stays = rng.choice([0.3, 0.7, 0.9])
        rare, scale = rng.choice([steps, steps[:7]]), rng.choice([1.0, 1.0, 4.0])
        for _ in range(rng.choice([0, 3, 8, 24])):
            if rng.random() > stays:
                speed = rng.choice([0.0, 0.0, 60.0, 5.0, math.nextafter(5.0, 0), math.nan])
            samples.append(Sample(point.id, time_s, speed, rng.choice(QUALITIES)))
            time_s += rng.choice(rare) * scale * unit_s
    rules = [_rule(rng, number, unit_s) for number in range(2)]
    newest = max((s.time_s for s in samples), default=0.0)
    return RuleCase(
        rules, points, samples, devices, end_s=newest + rng.choice([0.0, 10.0, 80.0]) * unit_s
    )


def _levels(rule: Rule) -> list[ScalarLevel]:
    given = rule.parameters
    night_s = given["night"]["drive_max_s"] if "night" in given else None
    drive_s = given.get("drive_max_s")
    limits: dict[str, float | None] = {}
    if "pre_warn_s" in given:
        limits["PREWARN"] = (drive_s or night_s) - given["pre_warn_s"]
    if "daily_max_s" in given:
        limits["DAILY"] = given["daily_max_s"]
    if night_s:
        limits["NIGHT"] = night_s
    if drive_s:
        limits["FATIGUE"] = drive_s
    if "ban" in given:
        limits["NIGHTBAN"] = None
    back = max(given.get("daily_max_s", 0) - max(given["rest_min_s"], 900), 0.0)
    return [
        ScalarLevel(
            name,
            round(rule.on_delay_s * NS),
            round(rule.off_delay_s * NS),
            limits[name],
            back if name == "DAILY" else None,
        )
        for name in ORDER
        if name in limits
    ]


def reference(case: RuleCase) -> Story:
    of_point = defaultdict(list)
    for sample in case.samples:
        of_point[sample.point].append(sample)
    instances = []
    for rule in case.rules:
        for point in case.points:
            instance = TimedInstance(f"{point.device}:{rule.id}", _levels(rule))
            scalar_driving(instance, rule.parameters, of_point[point.id], case.end_ns)
            instances.append(instance)
    return story(instances)


LAW = Law(KIND, make, reference, behind="alike")
