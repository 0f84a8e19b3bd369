"""Two points that should agree."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from signal_cases import BAD, CAL, NS

from alarm_rules.kinds.deviation import KIND, DeviationParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

VALUE = Point(id="v", quantity="flow", unit="m3/h", device="pump", name="Flow")
SETPOINT = Point(id="s", quantity="flow_setpoint", unit="m3/h", device="pump")
H3 = {"levels": {"H": 3.0, "HH": {"limit": 5.0, "reset": 4.0}}}


def rule(parameters, group_by=GroupBy.DEVICE) -> Rule:
    inputs = {
        "value": Selector(quantity="flow"),
        "reference": Selector(quantity="flow_setpoint"),
    }
    return Rule("r", "deviation", inputs, parameters, group_by=group_by)


def changes(parameters, rows):
    samples = [Sample(*row) for row in rows]
    return drive(
        RuleCase([rule(parameters)], [VALUE, SETPOINT], samples), {"deviation": KIND}
    ).changes


def levels(parameters, rows) -> list[tuple]:
    return [((c.time_ns - at_ns(0)) / NS, c.level) for c in changes(parameters, rows)]


@pytest.mark.parametrize(
    ("more", "rows", "expected"),
    [
        ({}, [("v", 1, 53.0)], []),
        ({}, [("s", 1, 50.0)], []),
        ({}, [("s", 1, 50.0), ("v", 2, 52.999)], []),
        ({}, [("s", 1, 50.0), ("v", 2, 53.0)], [(2, "H")]),
        ({}, [("s", 1, 50.0), ("v", 2, 47.0)], [(2, "H")]),
        ({"absolute": False}, [("s", 1, 50.0), ("v", 2, 40.0)], []),
        ({"absolute": False, "levels": {"L": -3.0}}, [("s", 1, 50.0), ("v", 2, 47.0)], [(2, "L")]),
        ({}, [("v", 1, 53.0), ("s", 2, 50.0), ("s", 3, 60.0), ("s", 4, 51.0)], [(2, "H"), (3, "HH"), (4, "")]),
        ({}, [("s", 1, 50.0), ("v", 1, 50.0), ("s", 2, 60.0), ("v", 2, 60.0)], []),
        ({}, [("v", 2, 60.0), ("s", 1, 50.0), ("v", 1, 50.0), ("s", 2, 60.0)], []),
    ],
)  # fmt: skip
def test_inputs_of_one_time_are_compared_together_and_otherwise_the_last_value_holds(
    more, rows, expected
) -> None:
    assert levels({**H3, **more}, rows) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("s", 1, 50.0), ("v", 2, 53.0), ("s", 3, 53.0, BAD), ("v", 4, 50.0)], [(2, "H")]),
        ([("s", 1, 50.0), ("v", 2, 53.0), ("v", 3, math.nan), ("s", 4, 53.0)], [(2, "H")]),
        ([("s", 1, 50.0, BAD), ("v", 2, 60.0)], []),
        ([("s", 1, 50.0), ("v", 2, 60.0, BAD), ("v", 3, 60.0)], [(3, "HH")]),
    ],
)
def test_while_an_input_is_bad_nothing_is_judged_and_levels_hold(rows, expected) -> None:
    assert levels(H3, rows) == expected


@pytest.mark.parametrize(("time_s", "expected"), [(11, [(11, "H")]), (11.000000001, []), (60, [])])
def test_a_setpoint_older_than_allowed_is_not_judged_against(time_s, expected) -> None:
    rows = [("s", 1, 50.0), ("v", time_s, 53.0)]
    assert levels({**H3, "max_input_age_s": 10}, rows) == expected


@pytest.mark.parametrize(
    ("reference", "value", "expected"),
    [
        (200.0, 209.9, []),
        (200.0, 210.0, [(1, "H")]),
        (200.0, 190.0, [(1, "H")]),
        (-200.0, -190.0, [(1, "H")]),
        (0.0, 5.0, []),
        (0.0, 0.0, []),
    ],
)
def test_a_relative_deviation_is_a_share_of_the_reference(reference, value, expected) -> None:
    rows = [("s", 1, reference), ("v", 1, value)]
    assert levels({"relative": True, "levels": {"H": 0.05}}, rows) == expected


def test_a_deviation_is_compared_as_the_gauges_read_it() -> None:
    rows = [("s", 1, 0.6), ("v", 1, 0.8)]  # 0.20000000000000007 in binary
    more_than = {"levels": {"H": {"limit": 0.2, "operator": ">"}}}
    assert levels(more_than, rows) == [(1, "H")]
    assert levels({**more_than, "decimals": 3}, rows) == []


def test_the_alarm_shows_the_deviation_and_the_worse_quality() -> None:
    (change,) = changes(H3, [("s", 1, 50.0, int(Quality.UNCERTAIN_STATE)), ("v", 1, 54.0)])
    assert (change.alarm_key, change.value, change.limit) == ("v:r", 4.0, 3.0)
    assert change.quality == Quality.UNCERTAIN_STATE
    (change,) = changes(H3, [("s", 1, 50.0, int(Quality.UNCERTAIN_POSITION)), ("v", 1, 54.0, CAL)])
    assert change.quality == CAL


def test_the_instance_is_about_the_value_and_a_share_has_no_unit() -> None:
    table = PointTable()
    table.put_device(Device(id="pump", kind="pump"))
    for point in (VALUE, SETPOINT):
        table.put(point)
    for relative, unit in ((False, "m3/h"), (True, "")):
        rules = RuleSet([rule({**H3, "relative": relative})], {"deviation": KIND}, table)
        (found,) = rules.instances
        assert (found.target, found.unit, found.display_name) == ("v", unit, "Flow")


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ([VALUE], "input reference needs one point, found none"),
        ([VALUE, SETPOINT, Point(id="s2", quantity="flow_setpoint", device="pump")], "found s, s2"),
        ([Point(id="x", quantity="flow")], "points without device"),
    ],
)
def test_a_group_without_exactly_one_of_each_is_reported(points, word) -> None:
    table = PointTable()
    for point in points:
        table.put(point)
    (problem,) = RuleSet([rule(H3)], {"deviation": KIND}, table).problems
    assert word in problem


def test_a_deviation_grouped_by_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="two points"):
        RuleSet([rule(H3, GroupBy.POINT)], {"deviation": KIND}, PointTable())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "Field required"),
        ({"levels": {"H": 1.0}, "max_input_age_s": -1}, "greater than or equal"),
        ({"levels": {"H": 1.0}, "decimals": 10}, "less than or equal"),
        ({"levels": {"X": 1.0}}, "named"),
        ({"levels": {"H": 1.0}, "window_s": 1}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        DeviationParameters.model_validate(given)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"levels": {"H": 2.0}}, None),
        ({"levels": {"H": {"limit": 4.0, "reset": 3.0}}}, "H.limit"),
        ({"relative": True}, "relative"),
        ({"absolute": False}, "other side"),
        ({"max_input_age_s": 30}, "max_input_age_s"),
        ({"max_input_age_s": 90}, None),
        ({"decimals": 1}, "decimals"),
    ],
)
def test_what_a_change_loosens_is_told(change, word) -> None:
    old = {"levels": {"H": 3.0}, "max_input_age_s": 60}
    old, new = (DeviationParameters.model_validate(given) for given in (old, {**old, **change}))
    found = list(KIND.loosens(old, new))
    assert all(word in text for text in found) and found if word else found == []
