"""Restricted and permitted areas: who may be where."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from alarm_rules.kinds.area import KIND, AreaParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
OUT, FACE, GOAF, MINE = -1.0, 0.0, 1.0, 2.0
DEVICES = [
    Device(id="face", kind="area", attributes={"area_type": "重点区域"}),
    Device(id="goaf", kind="area", attributes={"area_type": "限制区域"}),
    Device(id="mine", kind="mine"),
    Device(id="ann", kind="person", name="甲", attributes={"job": "采煤机司机"}),
]
POINTS = [Point(id="ann.area", kind=PointKind.AREA, quantity="personnel_area", device="ann")]


def rule(**given) -> Rule:
    return Rule("r", "area", {"value": Selector(quantity="personnel_area")}, given)


def site(**attributes) -> PointTable:
    table = PointTable()
    for device in DEVICES:
        table.put_device(device)
    if attributes:
        table.put_device(Device(id="ann", kind="person", attributes=attributes))
    for point in POINTS:
        table.put(point)
    return table


def check_levels(values, expected, *, attributes=None, **given) -> None:
    """One value a second; `expected`: (second, level) of every change."""
    devices = [*DEVICES[:3], Device(id="ann", kind="person", attributes=attributes or {})]
    samples = [
        Sample("ann.area", second, *(value if isinstance(value, tuple) else (value, 0)))
        for second, value in enumerate(values)
    ]
    found = drive(RuleCase([rule(**given)], POINTS, samples, devices), {"area": KIND}).changes
    assert [((c.time_ns - at_ns(0)) / NS, c.level) for c in found] == expected


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("forbid", [FACE, GOAF, FACE], [(1, "FORBIDDEN"), (2, "")]),
        ("forbid", [GOAF, OUT], [(0, "FORBIDDEN"), (1, "")]),
        ("forbid", [OUT, FACE, MINE, 99.0], []),
        ("permit", [FACE, GOAF, FACE], [(0, "FORBIDDEN"), (1, ""), (2, "FORBIDDEN")]),
        ("permit", [OUT, GOAF, OUT], []),
        ("permit", [99.0, OUT], [(0, "FORBIDDEN"), (1, "")]),
    ],
)
def test_forbid_means_the_listed_areas_and_permit_all_others(mode, values, expected) -> None:
    check_levels(values, expected, areas=["goaf"], mode=mode)


@pytest.mark.parametrize(
    "unknown", [(math.nan, 0), (OUT, int(Quality.BAD)), MINE, float(1 << 31), math.inf]
)
def test_an_unknown_place_neither_raises_nor_ends_an_alarm(unknown) -> None:
    check_levels([GOAF, unknown, unknown], [(0, "FORBIDDEN")], areas=["goaf"])
    check_levels([unknown, OUT], [], areas=["goaf"], mode="permit")


def test_the_mine_as_a_whole_counts_where_it_is_named() -> None:
    check_levels([MINE, FACE], [(0, "FORBIDDEN"), (1, "")], areas=["mine"])


@pytest.mark.parametrize(
    ("attributes", "enters"),
    [
        ({}, True),
        ({"may": "face"}, True),
        ({"may": "face, goaf"}, False),
        ({"may": "*"}, False),
        ({"job": "瓦斯检查工"}, False),
        ({"job": "采煤机司机"}, True),
    ],
)
def test_people_with_a_permission_raise_no_alarm(attributes, enters) -> None:
    check_levels(
        [GOAF],
        [(0, "FORBIDDEN")] if enters else [],
        attributes=attributes,
        areas=["goaf"],
        allowed_attribute="may",
        allowed_by={"attribute": "job", "values": ["瓦斯检查工"]},
    )


def test_areas_are_found_by_their_own_attribute_too() -> None:
    by = {"attribute": "area_type", "values": ["限制区域"]}
    check_levels([FACE, GOAF], [(1, "FORBIDDEN")], areas_by=by)


def test_of_two_places_at_one_time_the_forbidden_one_counts() -> None:
    samples = [Sample("ann.area", 1, FACE), Sample("ann.area", 1, GOAF), Sample("ann.area", 1, OUT)]
    case = RuleCase([rule(areas=["goaf"])], POINTS, samples, DEVICES)
    assert [c.level for c in drive(case, {"area": KIND}).changes] == ["FORBIDDEN"]


def test_an_area_that_becomes_something_else_is_forbidden_no_longer() -> None:
    table, by = site(), {"attribute": "area_type", "values": ["限制区域"]}
    rules = RuleSet([rule(areas_by=by)], {"area": KIND}, table)
    was = table.device("goaf")
    assert was is not None
    table.put_device(replace(was, kind="store"))
    rules.refresh()
    batch = Batch.of([0], [GOAF], at_ns(1), received_time_ns=at_ns(1))
    assert len(rules.evaluate(batch, at_ns(1)).conditions) == 0


def test_a_permission_given_later_holds_from_the_next_sample_on() -> None:
    table = site()
    rules = RuleSet([rule(areas=["goaf"], allowed_attribute="may")], {"area": KIND}, table)

    def levels(second: int) -> list[int]:
        batch = Batch.of([0], [GOAF], at_ns(second), received_time_ns=at_ns(second))
        return rules.evaluate(batch, at_ns(second)).conditions.level.tolist()

    assert levels(1) == [1]
    table.put_device(Device(id="ann", kind="person", attributes={"may": "goaf"}))
    rules.refresh()
    assert levels(2) == [0]


def test_an_area_nobody_declared_is_reported() -> None:
    rules = RuleSet([rule(areas=["goaf", "attic"])], {"area": KIND}, site())
    assert rules.problems == ["r: ann.area: no such area: attic"]
    (instance,) = rules.instances
    assert (instance.alarm_key, instance.device, instance.display_name) == (
        "ann.area:r",
        "ann",
        "甲",
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"areas": []},
        {"areas": ["a"], "mode": "maybe"},
        {"areas": ["a"], "size": 1},
        {"areas_by": {"attribute": "x", "values": []}},
    ],
)
def test_parameters_that_make_no_sense_are_refused(given) -> None:
    with pytest.raises(ValidationError):
        AreaParameters.model_validate(given)


def test_grouping_people_is_refused() -> None:
    grouped = Rule(
        "r",
        "area",
        {"value": Selector(quantity="personnel_area")},
        {"areas": ["a"]},
        group_by=GroupBy.DEVICE,
    )
    with pytest.raises(ConfigError, match="for each point by itself"):
        RuleSet([grouped], {"area": KIND}, site())


BY = {"attribute": "area_type", "values": ["x"]}


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        ({"areas": ["a"]}, {"areas": ["a", "b"]}, False),
        ({"areas": ["a", "b"]}, {"areas": ["a"]}, True),
        ({"areas": ["a", "b"], "mode": "permit"}, {"areas": ["a"], "mode": "permit"}, False),
        ({"areas": ["a"], "mode": "permit"}, {"areas": ["a", "b"], "mode": "permit"}, True),
        ({"areas": ["a"]}, {"areas": ["a"], "mode": "permit"}, True),
        ({"areas": ["a"]}, {"areas": ["a"], "allowed_attribute": "may"}, True),
        ({"areas": ["a"], "allowed_attribute": "may"}, {"areas": ["a"]}, False),
        ({"areas": ["a"], "areas_by": BY}, {"areas": ["a"]}, True),
        ({"areas": ["a"]}, {"areas": ["a"], "areas_by": BY}, False),
    ],
)
def test_fewer_forbidden_and_more_permitted_areas_are_looser(old, new, looser) -> None:
    found = KIND.loosens(AreaParameters.model_validate(old), AreaParameters.model_validate(new))
    assert bool(found) == looser
