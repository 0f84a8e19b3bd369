"""Limits: the arrays say what one sample after the other says, and what the words promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference import ScalarInstance, ScalarLevel, scalar_limit, story

from alarm_rules.kinds.limit import KIND, LimitParameters
from gateway.model.errors import ConfigError
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, check_rule_kind, drive

NS = 1_000_000_000
CAL = int(Quality.UNCERTAIN_CALIBRATING)
BAD = int(Quality.BAD_SENSOR_FAULT)
LEVELS = {
    "H": {"limit": 3.0, "reset": 2.0, "off_delay_s": 2.0},
    "HH": {"limit": 4.0, "reset": 3.0, "operator": ">", "on_delay_s": 2.0, "priority": "critical"},
    "L": -1.0,
    "LL": {"limit": -2.0, "operator": "<", "on_delay_s": 1.0},
}


def rule(levels=None, **extra) -> Rule:
    return Rule(
        id="r",
        kind="limit",
        inputs={"value": Selector(quantity="q")},
        parameters={"levels": LEVELS if levels is None else levels},
        **extra,
    )


def case_of(samples, *, levels=None, points=("a", "b"), end_s=30.0, **extra) -> RuleCase:
    return RuleCase(
        rules=[rule(levels, **extra)],
        points=[Point(id=name, quantity="q") for name in points],
        samples=samples,
        end_s=end_s,
    )


def reference(case: RuleCase):
    tests = [
        (lambda v: v <= -1, lambda v: v > -1),
        (lambda v: v >= 3, lambda v: v < 2),
        (lambda v: v < -2, lambda v: v >= -2),
        (lambda v: v > 4, lambda v: v <= 3),
    ]
    instances = []
    for point in case.points:
        levels = [
            ScalarLevel("L", 0, 0, -1.0, -1.0),
            ScalarLevel("H", 0, 2 * NS, 3.0, 2.0),
            ScalarLevel("LL", 1 * NS, 0, -2.0, -2.0),
            ScalarLevel("HH", 2 * NS, 0, 4.0, 3.0),
        ]
        instance = ScalarInstance(f"{point.id}:r", levels)
        scalar_limit(instance, tests, [s for s in case.samples if s.point == point.id], case.end_ns)
        instances.append(instance)
    return story(instances)


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from(["a", "b"]),
        st.integers(0, 20).map(float),
        st.sampled_from([-3.0, -2.0, -1.5, -1.0, 0.0, 1.9, 2.0, 2.5, 3.0, 4.0, 4.5, math.nan]),
        st.sampled_from([0, 0, 0, 0, CAL, int(Quality.UNCERTAIN), BAD]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=15)
@given(SAMPLES, st.integers(0, 2**32))
@example([Sample("a", 0.0, 3.0), Sample("a", 1.0, 0.0), Sample("a", 3.0, 3.0)], 0)
@example([Sample("a", 0.0, 4.5, CAL), Sample("a", 1.0, 4.5), Sample("a", 4.0, 0.0)], 1)
@example([Sample("a", 0.0, -3.0, CAL), Sample("a", 1.0, -3.0)], 0)
def test_any_history_told_any_way_gives_the_conditions_of_the_scalar_reference(
    samples, seed
) -> None:
    check_rule_kind(KIND, case_of(samples), reference=reference, seed=seed)


def changes(samples, **options) -> list[tuple[float, str]]:
    found = drive(case_of(samples, points=("a",), **options), {"limit": KIND}).changes
    return [((c.time_ns - at_ns(0)) / NS, c.level) for c in found]


H = {"H": {"limit": 1.0, "reset": 0.8}}


@pytest.mark.parametrize(
    ("values", "delays", "expected"),
    [
        ([(1, 1.0)], {}, [(1, "H")]),
        ([(1, 0.999)], {}, []),
        ([(1, 1.0), (2, 0.8), (3, 0.79)], {}, [(1, "H"), (3, "")]),
        ([(1, 1.2)], {"on_delay_s": 5}, [(6, "H")]),
        ([(1, 1.2), (6, 0.0)], {"on_delay_s": 5}, [(6, "H"), (6, "")]),
        ([(1, 1.2), (5.999999999, 0.0)], {"on_delay_s": 5}, []),
        ([(1, 1.2), (2, math.nan), (3, 0.9)], {"on_delay_s": 5}, [(6, "H")]),
        ([(1, 1.2), (2, 0.1), (4, 1.2), (5, 0.1)], {"off_delay_s": 3}, [(1, "H"), (8, "")]),
        ([(1, 1.2), (2, 0.1)], {"off_delay_s": 28}, [(1, "H"), (30, "")]),
        ([(1, 1.2), (2, 0.1)], {"off_delay_s": 28.000000001}, [(1, "H")]),
    ],
)
def test_a_level_begins_and_ends_at_the_exact_nanosecond_its_delay_says(
    values, delays, expected
) -> None:
    assert changes([Sample("a", t, v) for t, v in values], levels=H, **delays) == expected


def test_the_most_severe_level_wins_and_a_lower_one_returns_when_it_ends() -> None:
    levels = {"H": 1.0, "HH": {"limit": 1.5, "reset": 1.2}}
    values = [(1, 1.1), (2, 1.6), (3, 1.3), (4, 1.1), (5, 0.5)]
    assert changes([Sample("a", t, v) for t, v in values], levels=levels) == [
        (1, "H"), (2, "HH"), (4, "H"), (5, ""),
    ]  # fmt: skip


def test_a_bad_sample_neither_raises_nor_clears_however_its_value_looks() -> None:
    values = [Sample("a", 1, 9.0, BAD), Sample("a", 2, 1.5), Sample("a", 3, 0.0, BAD)]
    assert changes(values, levels=H) == [(2, "H")]


def test_a_condition_found_under_calibration_says_so_and_again_when_the_values_are_real() -> None:
    samples = [Sample("a", 1, 1.5, CAL), Sample("a", 2, 1.5, CAL), Sample("a", 5, 1.4)]
    found = drive(case_of(samples, levels=H, points=("a",)), {"limit": KIND}).changes
    assert [(c.level, c.quality, c.value) for c in found] == [("H", CAL, 1.5), ("H", 0, 1.4)]


def test_of_two_values_at_one_time_the_one_beyond_the_limit_counts_in_either_order() -> None:
    pair = [Sample("a", 1, 0.0), Sample("a", 1, 1.5)]
    assert changes(pair, levels=H) == changes(pair[::-1], levels=H) == [(1, "H")]


def test_each_level_carries_its_own_priority_limit_and_word_of_the_scheme() -> None:
    from alarm_rules.ruleset import RuleSet
    from gateway.model.point import PointTable

    table = PointTable()
    table.put(Point(id="a", quantity="q", unit="%", name="Gas", area="north", location="T1"))
    levels = {"H": {"limit": 1.0, "level": "yellow"}, "HH": {"limit": 2, "priority": "critical"}}
    (instance,) = RuleSet(
        [rule(levels, priority=Priority.LOW, level="blue")], {"limit": KIND}, table
    ).instances
    assert [(v.name, v.priority, v.limit, v.scheme_level) for v in instance.levels] == [
        ("H", Priority.LOW, 1.0, "yellow"),
        ("HH", Priority.CRITICAL, 2.0, "blue"),
    ]
    assert (instance.alarm_key, instance.unit, instance.display_name) == ("a:r", "%", "Gas")
    assert (instance.area, instance.location, instance.point_id) == ("north", "T1", "a")


@pytest.mark.parametrize(
    ("levels", "word"),
    [
        ({}, "at least 1"),
        ({"X": 1.0}, "named"),
        ({"H": {"limit": 1.0, "reset": 1.1}}, "beyond the limit"),
        ({"L": {"limit": 1.0, "reset": 0.9}}, "beyond the limit"),
        ({"H": {"limit": 1.0, "operator": "<"}}, "other side"),
        ({"H": 2.0, "HH": 1.0}, "milder"),
        ({"L": 1.0, "LL": 2.0}, "milder"),
        ({"H": {"limit": 1.0, "delay": 1}}, "Extra inputs"),
        ({"H": math.nan}, "finite"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(levels, word) -> None:
    with pytest.raises(ValidationError, match=word):
        LimitParameters.model_validate({"levels": levels})


def test_a_limit_grouped_by_anything_but_the_point_is_refused() -> None:
    from alarm_rules.ruleset import RuleSet
    from gateway.model.point import PointTable
    from gateway.model.rule import GroupBy

    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(H, group_by=GroupBy.AREA)], {"limit": KIND}, PointTable())
