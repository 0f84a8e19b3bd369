"""Speeds: the lowest limit that applies, to the fraction."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from alarm_rules.kinds.overspeed import KIND, OverspeedParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.testing.rule_kinds import START_NS, RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
TOWN = {"polygon": [[116.0, 39.0], [116.01, 39.0], [116.01, 39.01], [116.0, 39.01]]}
IN_TOWN, ELSEWHERE = (116.005, 39.005), (116.1, 39.1)
BY_CLASS = {"attribute": "vehicle_class", "values": {"hazmat": 80, "coach": 100}}
NAMES = ("speed", "lon", "lat", "area")
YARD = 0.0


def site(**attributes: str) -> tuple[list[Device], list[Point]]:
    devices = [
        Device(id="yard", kind="area"),
        Device(id="v", kind="vehicle", attributes=attributes),
    ]
    points = [
        Point(id=f"v.{name}", kind=PointKind(name), quantity=name, unit="km/h", device="v")
        for name in NAMES
    ]
    return devices, points


def rule(inputs=NAMES, **given) -> Rule:
    select = {name: Selector(quantity=name) for name in inputs}
    return Rule("r", "overspeed", select, given, priority=Priority.HIGH, level="red")


def check_story(told, expected, *, vehicle_class="coach", inputs=("speed",), **given) -> None:
    """`told`: (second, {input: value}); `expected`: (second, level, value)."""
    devices, points = site(vehicle_class=vehicle_class)
    samples = [
        Sample(f"v.{name}", second, *(value if isinstance(value, tuple) else (value,)))
        for second, values in told
        for name, value in values.items()
    ]
    case = RuleCase([rule(inputs, **given)], points, samples, devices)
    found = drive(case, {"overspeed": KIND}).changes
    assert [((c.time_ns - at_ns(0)) / NS, c.level, c.value) for c in found] == expected


@pytest.mark.parametrize(
    ("speeds", "expected", "given"),
    [
        ([80.0, 80.1, 80.0], [(1, "OVERSPEED", 80.1), (2, "", 80.0)], {}),
        ([79.99999, 80.0], [], {}),
        ([85.0, 85.1], [(1, "OVERSPEED", 85.1)], {"tolerance_kmh": 5}),
        ([81.0, 79.0, 78.0], [(0, "OVERSPEED", 81.0), (2, "", 78.0)], {"hysteresis_kmh": 2}),
        (
            [75.0, 75.5, 80.5, 76.0, 75.0],
            [(1, "PREWARN", 75.5), (2, "OVERSPEED", 80.5), (3, "PREWARN", 76.0), (4, "", 75.0)],
            {"pre_warn_kmh": 5},
        ),
        ([90.0, math.nan, (0.0, int(Quality.BAD))], [(0, "OVERSPEED", 90.0)], {}),
    ],
)
def test_faster_than_the_limit_is_over_it_and_as_fast_is_not(speeds, expected, given) -> None:
    told = [(second, {"speed": speed}) for second, speed in enumerate(speeds)]
    # a level that goes down shows the value that ended the higher one
    check_story(told, expected, limit_kmh=80, **given)


@pytest.mark.parametrize(
    ("vehicle_class", "limit_kmh", "over"),
    [("hazmat", 90, 80.5), ("coach", 90, 90.5), ("tractor", 90, 90.5), ("coach", 120, 100.5)],
)
def test_the_lower_of_the_class_and_the_rule_applies(vehicle_class, limit_kmh, over) -> None:
    told = [(0, {"speed": over - 0.5}), (1, {"speed": over})]
    check_story(
        told,
        [(1, "OVERSPEED", over)],
        vehicle_class=vehicle_class,
        limit_kmh=limit_kmh,
        limits_by=BY_CLASS,
    )


def test_a_slower_place_counts_while_the_vehicle_is_in_it() -> None:
    town = {"areas": [{"shape": TOWN, "limit_kmh": 30}], "limit_kmh": 80}
    lon, lat = IN_TOWN
    away_lon, away_lat = ELSEWHERE
    told = [
        (0, {"speed": 50.0, "lon": away_lon, "lat": away_lat}),
        (1, {"lon": lon, "lat": lat}),  # no new speed: the last one holds
        (2, {"speed": 50.0, "lon": 0.0, "lat": 0.0}),  # no fix: still in town
        (3, {"speed": 55.0, "lon": (away_lon, int(Quality.BAD)), "lat": away_lat}),
        (4, {"speed": 55.0, "lon": away_lon, "lat": away_lat}),
    ]
    expected = [(1, "OVERSPEED", 50.0), (4, "", 55.0)]
    check_story(told, expected, inputs=("speed", "lon", "lat"), **town)


def test_a_limit_of_an_area_counts_for_who_is_in_it() -> None:
    yard = {"areas": [{"area": "yard", "limit_kmh": 15.5}], "limit_kmh": 80}
    told = [
        (0, {"speed": 20.0, "area": -1.0}),
        (1, {"area": YARD}),
        (2, {"area": math.nan}),
        (3, {"speed": 15.5}),
        (4, {"speed": 20.0, "area": 7.0}),
    ]
    check_story(told, [(1, "OVERSPEED", 20.0), (3, "", 15.5)], inputs=("speed", "area"), **yard)


def test_by_night_the_limit_is_a_share_from_the_first_sample_in_the_window_on() -> None:
    assert START_NS == 1_700_000_000 * NS  # 22:13:20 UTC, 06:13:20 in China
    told = [(39.9, {"speed": 65.0}), (40.0, {"speed": 65.0}), (100.0, {"speed": 65.0})]
    window = {"night": {"from": "22:14", "to": "22:15"}, "utc_offset_h": 0}
    check_story(
        told, [(40, "OVERSPEED", 65.0), (100, "", 65.0)], limit_kmh=80, night_factor=0.8, **window
    )
    check_story(told, [], limit_kmh=80, night_factor=0.8)  # 22:00 to 06:00, and it is past six
    check_story(
        told[:1], [(39.9, "OVERSPEED", 65.0)], limit_kmh=80, night_factor=0.8, utc_offset_h=0
    )


def test_the_alarm_shows_its_limit_where_it_is_one_number() -> None:
    def levels(**given) -> list[tuple[str, int, float | None, str]]:
        table = PointTable()
        devices, points = site(vehicle_class="hazmat")
        for device in devices:
            table.put_device(device)
        for point in points:
            table.put(point)
        (instance,) = RuleSet([rule(("speed",), **given)], {"overspeed": KIND}, table).instances
        assert (instance.target, instance.unit) == ("v", "km/h")
        return [(lv.name, lv.priority, lv.limit, lv.scheme_level) for lv in instance.levels]

    assert levels(limits_by=BY_CLASS, pre_warn_kmh=5) == [
        ("PREWARN", Priority.MEDIUM, 75, ""),
        ("OVERSPEED", Priority.HIGH, 80, "red"),
    ]
    assert levels(limit_kmh=60, night_factor=0.8) == [("OVERSPEED", Priority.HIGH, None, "red")]


def test_a_vehicle_without_a_limit_is_reported_and_not_judged() -> None:
    table = PointTable()
    devices, points = site(vehicle_class="tractor")
    for device in devices:
        table.put_device(device)
    for point in points:
        table.put(point)
    rules = RuleSet([rule(("speed",), limits_by=BY_CLASS)], {"overspeed": KIND}, table)
    assert not rules.instances
    assert rules.problems == ["r: v: no limit for vehicle_class 'tractor'"]
    areas = [{"area": "attic", "limit_kmh": 9}]
    rules = RuleSet([rule(("speed", "area"), areas=areas)], {"overspeed": KIND}, table)
    assert rules.problems == ["r: v: no such area: attic"]


def test_rules_of_different_shape_stand_in_one_program() -> None:
    devices, points = site(vehicle_class="coach")
    rules = [
        rule(("speed",), limit_kmh=80),
        Rule("s", "overspeed", {"speed": Selector(quantity="speed")}, {"limit_kmh": 60, "pre_warn_kmh": 10}),
    ]  # fmt: skip
    samples = [Sample("v.speed", 0, 55.0), Sample("v.speed", 1, 85.0)]
    found = drive(RuleCase(rules, points, samples, devices), {"overspeed": KIND}).changes
    assert [(c.alarm_key, c.level) for c in found] == [
        ("v:s", "PREWARN"),
        ("v:r", "OVERSPEED"),
        ("v:s", "OVERSPEED"),
    ]


@pytest.mark.parametrize(
    ("inputs", "given", "wanted"),
    [
        (("lon", "lat"), {"limit_kmh": 1}, "inputs: speed"),
        (("speed", "heading"), {"limit_kmh": 1}, "inputs: speed"),
        (("speed", "lon"), {"limit_kmh": 1}, "come together"),
        (("speed",), {"areas": [{"shape": TOWN, "limit_kmh": 1}]}, "need the inputs lon and lat"),
        (("speed",), {"areas": [{"area": "yard", "limit_kmh": 1}]}, "need the input area"),
    ],
)
def test_areas_without_the_inputs_they_need_are_refused(inputs, given, wanted) -> None:
    with pytest.raises(ConfigError, match=wanted):
        RuleSet([rule(inputs, **given)], {"overspeed": KIND}, PointTable())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"limit_kmh": 0},
        {"limit_kmh": 80, "night_factor": 1.2},
        {"limit_kmh": 80, "night": {"from": "22:00", "to": "06:00"}},
        {"limit_kmh": 80, "night_factor": 0.8, "night": {"from": "22:00", "to": "22:00"}},
        {"limit_kmh": 80, "night_factor": 0.8, "night": {"from": "24:00", "to": "06:00"}},
        {"limit_kmh": 80, "night_factor": 0.8, "night": {"from": "6:00", "to": "08:00"}},
        {"limit_kmh": 80, "night_factor": 0.8, "night": {"from": 22, "to": "06:00"}},
        {"limit_kmh": 80, "pre_warn_priority": "low"},
        {"limits_by": {"attribute": "x", "values": {}}},
        {"areas": [{"limit_kmh": 5}]},
        {"areas": [{"limit_kmh": 5, "area": "a", "shape": TOWN}]},
        {"limit_kmh": 80, "speed": 1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(given) -> None:
    with pytest.raises(ValidationError):
        OverspeedParameters.model_validate(given)


NIGHT = {"limit_kmh": 80, "night_factor": 0.8}
SLOWER = {**BY_CLASS, "values": {"hazmat": 70, "coach": 100, "truck": 80}}


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        ({"limit_kmh": 80}, {"limit_kmh": 70}, False),
        ({"limit_kmh": 80}, {"limit_kmh": 81}, True),
        ({"limit_kmh": 80}, NIGHT, False),
        (NIGHT, {"limit_kmh": 80}, True),
        (NIGHT, {**NIGHT, "night_factor": 0.9}, True),
        (NIGHT, {**NIGHT, "night": {"from": "23:00", "to": "06:00"}}, True),
        (NIGHT, {**NIGHT, "night": {"from": "22:00", "to": "06:00"}}, False),
        ({"limit_kmh": 80}, {"limit_kmh": 80, "tolerance_kmh": 1}, True),
        ({"limit_kmh": 80}, {"limit_kmh": 80, "hysteresis_kmh": 1}, False),
        ({"limit_kmh": 80, "pre_warn_kmh": 5}, {"limit_kmh": 80, "pre_warn_kmh": 4}, True),
        ({"limits_by": BY_CLASS}, {"limits_by": SLOWER}, False),
        ({"limits_by": SLOWER}, {"limits_by": BY_CLASS}, True),
        ({"areas": [{"shape": TOWN, "limit_kmh": 30}]}, {"areas": [{"shape": TOWN, "limit_kmh": 20}]}, False),
        ({"areas": [{"shape": TOWN, "limit_kmh": 30}]}, {"limit_kmh": 30}, True),
    ],
)  # fmt: skip
def test_higher_limits_and_wider_margins_are_looser(old, new, looser) -> None:
    pair = [OverspeedParameters.model_validate(given) for given in (old, new)]
    assert bool(KIND.loosens(*pair)) == looser


def test_the_alarm_follows_the_speed_it_was_judged_by() -> None:
    devices, points = site(vehicle_class="coach")
    table = PointTable()
    for device in devices:
        table.put_device(device)
    for point in points:
        table.put(point)
    (instance,) = RuleSet([rule(limit_kmh=80)], {"overspeed": KIND}, table).instances
    assert (instance.point_id, instance.measures, instance.unit) == ("v.speed", True, "km/h")
