"""Stays: timed from entering, ended by leaving, found out by the clock."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from alarm_rules.kinds.dwell import KIND, DwellParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
HOUR = 3600.0
OUT, FACE, ROAD, MINE = -1.0, 0.0, 1.0, 2.0
DEVICES = [
    Device(id="face", kind="area", attributes={"area_type": "重点区域"}),
    Device(id="road", kind="area"),
    Device(id="mine", kind="mine"),
]
POINTS = [Point(id="ann.area", kind=PointKind.AREA, quantity="personnel_area")]
TWELVE = {"limit_s": 12 * HOUR, "warn_s": 10 * HOUR}


def rule(**given) -> Rule:
    select = {"value": Selector(quantity="personnel_area")}
    return Rule("r", "dwell", select, given, priority=Priority.HIGH)


def check_story(samples, expected, *, end_h=48.0, **given) -> None:
    """Samples as (hour, value) or (hour, value, quality); `expected`: (hour, level, began)."""
    rows = [Sample("ann.area", s[0] * HOUR, *s[1:]) for s in samples]
    case = RuleCase([rule(**given)], POINTS, rows, DEVICES, end_s=end_h * HOUR)
    found = [
        ((c.time_ns - at_ns(0)) / NS / HOUR, c.level, (c.began_ns - at_ns(0)) / NS / HOUR)
        for c in drive(case, {"dwell": KIND}).changes
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(0, OUT), (1, FACE)], [(11, "WARN", 1), (13, "OVERTIME", 1)]),  # silent ever since
        ([(1, FACE)], [(11, "WARN", 1), (13, "OVERTIME", 1)]),  # entered before we listened
        ([(0, FACE), (9, OUT)], []),
        ([(0, FACE), (11, OUT)], [(10, "WARN", 0), (11, "", 11)]),
        ([(0, FACE), (9, OUT), (9.5, FACE)], [(19.5, "WARN", 9.5), (21.5, "OVERTIME", 9.5)]),
        ([(0, FACE), (6, ROAD), (20, OUT)], [(10, "WARN", 0), (12, "OVERTIME", 0), (20, "", 20)]),
        (
            [(0, FACE), (5, math.nan), (6, OUT, int(Quality.BAD))],
            [(10, "WARN", 0), (12, "OVERTIME", 0)],
        ),
        ([(0, MINE)], [(10, "WARN", 0), (12, "OVERTIME", 0)]),
    ],
)
def test_over_time_is_counted_from_the_first_sample_inside_to_the_nanosecond(
    samples, expected
) -> None:
    check_story(samples, expected, **TWELVE)


def test_one_missed_reading_does_not_start_the_shift_anew() -> None:
    missed = [(0, FACE), (9, OUT), (9.001, FACE)]
    check_story(missed, [(19.001, "WARN", 9.001), (21.001, "OVERTIME", 9.001)], **TWELVE)
    check_story(missed, [(10, "WARN", 0), (12, "OVERTIME", 0)], **TWELVE, leave_min_s=60)


def test_leaving_counts_from_when_it_lasted_and_is_found_by_the_clock() -> None:
    left = [(0, FACE), (13, OUT)]
    expected = [(10, "WARN", 0), (12, "OVERTIME", 0), (13.25, "", 13.25)]
    check_story(left, expected, **TWELVE, leave_min_s=900)
    check_story([*left, (13.25, FACE)], [*expected, (23.25, "WARN", 13.25), (25.25, "OVERTIME", 13.25)],
                **TWELVE, leave_min_s=900)  # fmt: skip


def test_listed_areas_are_timed_together_and_the_mine_as_a_whole_is_no_way_out() -> None:
    both = {"limit_s": 2 * HOUR, "areas": ["face", "road"]}
    check_story([(0, FACE), (1, ROAD)], [(2, "OVERTIME", 0)], **both)
    face = {"limit_s": 2 * HOUR, "areas": ["face"]}
    check_story([(0, FACE), (1, ROAD)], [], **face)
    check_story([(0, FACE), (1, MINE)], [(2, "OVERTIME", 0)], **face)
    by = {"limit_s": 2 * HOUR, "areas_by": {"attribute": "area_type", "values": ["重点区域"]}}
    check_story([(0, ROAD), (5, FACE)], [(7, "OVERTIME", 5)], **by)


def test_the_warning_is_milder_and_may_be_given_its_own_priority() -> None:
    def priorities(**given) -> list[Priority]:
        table = PointTable()
        table.put(POINTS[0])
        (instance,) = RuleSet([rule(**given)], {"dwell": KIND}, table).instances
        return [level.priority for level in instance.levels]

    assert priorities(**TWELVE) == [Priority.MEDIUM, Priority.HIGH]
    assert priorities(**TWELVE, warn_priority="low") == [Priority.LOW, Priority.HIGH]
    assert priorities(limit_s=60) == [Priority.HIGH]


def test_a_restart_in_the_middle_of_a_shift_changes_nothing() -> None:
    table = PointTable()
    table.put(POINTS[0])

    def fresh() -> RuleSet:
        return RuleSet([rule(**TWELVE, leave_min_s=60)], {"dwell": KIND}, table)

    rules = fresh()
    entered = Batch.of([0], [0.0], at_ns(0), received_time_ns=at_ns(0))
    rules.evaluate(entered, at_ns(0))
    saved, rules = rules.save(), fresh()
    rules.load(saved)
    assert len(rules.evaluate(Batch.empty(), at_ns(10 * HOUR) - 1).conditions) == 0
    found = rules.evaluate(Batch.empty(), at_ns(12 * HOUR)).conditions
    assert found.time_ns.tolist() == [at_ns(10 * HOUR), at_ns(12 * HOUR)]
    assert found.limit.tolist() == [10 * HOUR, 12 * HOUR]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"limit_s": 0},
        {"limit_s": 60, "warn_s": 60},
        {"limit_s": 60, "warn_priority": "low"},
        {"limit_s": 60, "leave_min_s": -1},
        {"limit_s": 60, "hours": 1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(given) -> None:
    with pytest.raises(ValidationError):
        DwellParameters.model_validate(given)


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        ({"limit_s": 60}, {"limit_s": 50}, False),
        ({"limit_s": 60}, {"limit_s": 61}, True),
        ({"limit_s": 60, "warn_s": 30}, {"limit_s": 60}, True),
        ({"limit_s": 60}, {"limit_s": 60, "warn_s": 30}, False),
        ({"limit_s": 60, "leave_min_s": 9}, {"limit_s": 60}, True),
        ({"limit_s": 60}, {"limit_s": 60, "areas": ["a"]}, True),
        ({"limit_s": 60, "areas": ["a"]}, {"limit_s": 60}, False),
        ({"limit_s": 60, "areas": ["a"]}, {"limit_s": 60, "areas": ["a", "b"]}, False),
    ],
)
def test_longer_stays_and_fewer_places_are_looser(old, new, looser) -> None:
    found = KIND.loosens(DwellParameters.model_validate(old), DwellParameters.model_validate(new))
    assert bool(found) == looser
