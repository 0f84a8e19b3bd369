"""Rates: windows, what fills them, what is kept of them, and the statutory uses."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from pydantic import ValidationError
from signal_cases import BAD, CAL, POINT, levels, rule, told

from alarm_rules.kinds.rate import KEPT_MAX, KIND, RateParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Point, PointTable
from gateway.model.rule import GroupBy
from gateway.testing.rule_kinds import at_ns

MIN, HOUR, DAY = 60, 3600, 86_400
# NCMSA 26 of 2023, 1(1) and 1(5); pit slope 5 mm/h; waste dump 250 mm/d: statutory-rules data.
METHANE = {
    "method": "change",
    "window_s": HOUR,
    "absolute": True,
    "decimals": 3,
    "levels": {"H": {"limit": 0.2, "operator": ">"}},
}
CARBON_MONOXIDE = {**METHANE, "levels": {"H": {"limit": 5.0, "operator": ">"}}}
SLOPE = {"window_s": 6 * HOUR, "per": "h", "levels": {"H": 5.0}}
DUMP = {
    "method": "two_point",
    "window_s": 2 * DAY,
    "per": "d",
    "samples_min": 2,
    "levels": {"H": {"limit": 250.0, "operator": ">"}, "HH": {"limit": 500.0, "operator": ">"}},
}


def ramp(step_s, count, slope_per_step, start=0.0) -> list[tuple]:
    return [(step_s * n, start + slope_per_step * n) for n in range(count)]


@pytest.mark.parametrize(
    ("parameters", "values", "expected"),
    [
        (METHANE, [(0, 0.5), (20 * MIN, 0.6), (40 * MIN, 0.7)], []),
        (METHANE, [(0, 0.5), (20 * MIN, 0.6), (40 * MIN, 0.71)], [(40 * MIN, "H")]),
        (METHANE, [(0, 0.5), (20 * MIN, 0.4), (40 * MIN, 0.29)], [(40 * MIN, "H")]),
        (METHANE, [(0, 0.6), (20 * MIN, 0.7), (40 * MIN, 0.8)], []),
        (METHANE, [(0, 0.5), (20 * MIN, 0.6), (61 * MIN, 0.75), (65 * MIN, 0.75)], []),
        (CARBON_MONOXIDE, [(0, 3.0), (30 * MIN, 5.0), (60 * MIN, 8.0)], []),
        (CARBON_MONOXIDE, [(0, 3.0), (30 * MIN, 5.0), (60 * MIN, 8.1)], [(60 * MIN, "H")]),
        (SLOPE, ramp(HOUR, 7, 5.0), [(3 * HOUR, "H")]),
        (SLOPE, ramp(HOUR, 7, 4.99), []),
        (SLOPE, ramp(HOUR, 7, -9.0), []),
        (SLOPE, [*ramp(HOUR, 5, 6.0), *((HOUR * n, 24.0) for n in range(5, 12))], [(3 * HOUR, "H"), (6 * HOUR, "")]),
        (DUMP, ramp(DAY, 4, 250.0), []),
        (DUMP, ramp(DAY, 4, 250.5), [(DAY, "H")]),
        (DUMP, ramp(DAY, 3, 501.0), [(DAY, "HH")]),
        ({**DUMP, "levels": {"L": -10.0}}, ramp(DAY, 3, -10.0), [(DAY, "L")]),
    ],
)  # fmt: skip
def test_statutory_rates_fire_beyond_their_limit_and_not_at_or_before_it(
    parameters, values, expected
) -> None:
    assert levels(KIND, parameters, values) == expected


FOUR = {"window_s": 4, "levels": {"H": 1.0}}


@pytest.mark.parametrize(
    ("more", "values", "expected"),
    [
        ({}, [(0, 0.0), (1, 1.0)], []),
        ({}, [(0, 0.0), (1, 1.0), (2, 2.0)], [(2, "H")]),
        ({}, [(0, 0.0), (1, 1.0), (1.999999999, 2.0)], []),
        ({"coverage_min": 0.25}, [(0, 0.0), (0.5, 0.5), (1, 1.0)], [(1, "H")]),
        ({"coverage_min": 1.0}, ramp(1, 4, 2.0), []),
        ({"coverage_min": 1.0}, ramp(1, 5, 2.0), [(4, "H")]),
        ({"samples_min": 4}, ramp(1, 4, 2.0), [(3, "H")]),
        ({"samples_min": 2}, [(0, 0.0), (4, 4.0)], [(4, "H")]),
        ({"samples_min": 2}, [(0, 0.0), (4.000000001, 9.0)], []),
        ({}, [(0, 0.0), (1, 9.0, BAD), (1.5, math.nan), (2, 2.0)], []),
        ({}, [(0, 0.0), (1, 9.0, BAD), (1.5, 1.5), (2, 2.0)], [(2, "H")]),
        ({}, [*ramp(1, 3, 1.0), (100, 2.0), (101, 2.0)], [(2, "H")]),
        ({}, [*ramp(1, 3, 1.0), (100, 2.0), (101, 2.0), (102, 2.0)], [(2, "H"), (102, "")]),
        ({}, [(0, 0.0), (0, 0.0), (2, 4.0)], []),
    ],
)
def test_a_window_too_short_or_too_empty_is_not_judged_and_levels_hold(
    more, values, expected
) -> None:
    assert levels(KIND, {**FOUR, **more}, values, end_s=200) == expected


def test_a_change_may_be_a_share_of_where_it_began() -> None:
    # 26 of 2023, 1(3): mine inflow changed by 20 % or more
    inflow = {**METHANE, "relative": True, "levels": {"H": 0.2}}
    assert levels(KIND, inflow, [(0, 50.0), (1800, 55.0), (3600, 59.9)]) == []
    assert levels(KIND, inflow, [(0, 50.0), (1800, 55.0), (3600, 60.0)]) == [(3600, "H")]
    assert levels(KIND, inflow, [(0, 0.0), (1800, 55.0), (3600, 60.0)]) == []


def test_least_squares_sees_the_trend_that_two_noisy_points_miss() -> None:
    values = [(n, n * 1.0 + (3.0 if n % 2 else -3.0)) for n in range(60)]
    trend = {"window_s": 40, "levels": {"H": 0.9, "HH": 1.1}, "coverage_min": 1.0}
    assert levels(KIND, trend, values) == [(40, "H")]
    assert len(levels(KIND, {**trend, "method": "two_point", "window_s": 39}, values)) > 5


def test_the_slope_of_a_small_change_on_a_large_value_is_not_cancelled_away() -> None:
    values = [(60.0 * n, 1e9 + 1e-3 * n) for n in range(100)]
    (change,) = told(KIND, {"window_s": 3000, "per": "h", "levels": {"H": 0.05}}, values)
    stated = np.array([v for _, v in values[:26]])
    exact = np.polyfit(np.arange(26) / 60, stated - 1e9, 1)[0]
    assert change.value == pytest.approx(exact, rel=1e-9)


def test_the_alarm_shows_the_rate_the_limit_and_the_quality_of_the_newest_sample() -> None:
    (change,) = told(KIND, FOUR, [(0, 0.0), (1, 2.0), (2, 4.0, CAL)])
    assert (change.value, change.limit, change.quality) == (2.0, 1.0, CAL)


@pytest.mark.parametrize(
    ("parameters", "unit"),
    [
        ({**FOUR, "per": "h"}, "mm/h"),
        ({**FOUR, "method": "two_point"}, "mm/s"),
        ({**FOUR, "method": "change"}, "mm"),
        ({**FOUR, "method": "change", "relative": True}, ""),
    ],
)
def test_the_unit_is_that_of_what_is_compared(parameters, unit) -> None:
    table = PointTable()
    table.put(POINT)
    (instance,) = RuleSet([rule(KIND, parameters)], {"rate": KIND}, table).instances
    assert (instance.unit, instance.display_name) == (unit, "Crack 3")


# ---------------------------------------------------------------------- memory


def dense(seed: int, count: int, step_s: float) -> list[tuple]:
    """A wave with noise on it."""
    rng = random.Random(seed)
    return [
        (round(step_s * n, 3), 40 * math.sin(n / 40) + rng.choice([-1.0, 0.0, 1.5]))
        for n in range(count)
    ]


def tell(rules: RuleSet, values, seed: int) -> list[tuple]:
    """(time, level, value) of every change; point 0 only, cut anywhere."""
    rng, found, begin = random.Random(seed), [], 0
    while begin < len(values):
        end = begin + rng.choice([1, 7, 90])
        part = values[begin:end]
        times = [at_ns(time_s) for time_s, _ in part]
        batch = Batch.of([0] * len(part), [v for _, v in part], times, received_time_ns=times)
        rows = rules.evaluate(batch, times[-1]).conditions
        columns = (rows.time_ns.tolist(), rows.level.tolist(), rows.value.tolist())
        found += list(zip(*columns, strict=True))
        begin = end
    return found


def rules_of(parameters, *points: Point) -> RuleSet:
    table = PointTable()
    for point in points:
        table.put(point)
    return RuleSet([rule(KIND, parameters)], {"rate": KIND}, table)


@pytest.mark.parametrize("method", ["least_squares", "two_point", "change"])
def test_a_window_with_more_samples_than_are_kept_is_thinned_alike_however_it_is_cut(
    method,
) -> None:
    parameters = {
        "window_s": 30,
        "method": method,
        "absolute": True,
        "levels": {"H": 0.5, "HH": 9.0},
    }
    values = dense(1, 900, 0.05)
    whole = told(KIND, parameters, values)
    assert len(whole) > 3
    names = {"": 0, "H": 1, "HH": 2}
    expected = [(c.time_ns, names[c.level], c.value) for c in whole]
    for seed in (1, 2):
        assert tell(rules_of(parameters, POINT), values, seed) == expected


def memory_of(point: Point, parameters, values) -> np.ndarray:
    """The ring of the point after a history: kept times, newest first."""
    rules = rules_of(parameters, point)
    tell(rules, values, 3)
    (kept,) = next(v for k, v in rules.save().items() if k.endswith("slot/kept_ns"))
    return np.sort(kept)[::-1]


def test_the_memory_of_a_point_is_bounded_and_keeps_the_first_sample_of_each_cell() -> None:
    kept = memory_of(POINT, {"window_s": 254, "levels": {"H": 1.0}}, dense(2, 1500, 0.25))
    assert len(kept) == KEPT_MAX
    assert (np.diff(kept[kept > 0]) == -1_000_000_000).all()


def test_a_point_that_states_its_interval_takes_less_memory_and_loses_nothing() -> None:
    slow = Point(id="a", quantity="q", interval_s=60.0)
    kept = memory_of(slow, {"window_s": 3600, "levels": {"H": 1.0}}, ramp(60, 100, 0.1))
    assert len(kept) == 124
    assert (kept[:61] == [at_ns(60 * n) for n in range(99, 38, -1)]).all()


def test_a_point_that_needs_more_memory_widens_the_table_and_nothing_is_forgotten() -> None:
    table = PointTable()
    table.put(Point(id="a", quantity="q", interval_s=1.0))
    rules = RuleSet([rule(KIND, FOUR)], {"rate": KIND}, table)
    for second in (0, 1):
        now = at_ns(second)
        rules.evaluate(Batch.of([0], [2.0 * second], now, received_time_ns=now), now)
    table.put(Point(id="b", quantity="q"))
    rules.refresh()
    now = at_ns(2)
    found = rules.evaluate(Batch.of([0], [4.0], now, received_time_ns=now), now).conditions
    assert found.level.tolist() == [1]


def at_interval(interval_s) -> Point:
    return Point(id="a", quantity="q", interval_s=interval_s)


HALF_AN_HOUR = {"window_s": 1800, "per": "min", "levels": {"H": 1.0}}


@pytest.mark.parametrize(("before", "after"), [(60.0, 20.0), (20.0, 60.0), (None, 60.0)])
def test_the_window_survives_a_change_of_the_stated_interval_while_running(before, after) -> None:
    table = PointTable()
    table.put(at_interval(before))
    rules = RuleSet([rule(KIND, HALF_AN_HOUR)], {"rate": KIND}, table)
    values = ramp(60, 40, 1.5)
    assert tell(rules, values[:15], 1) == []
    table.put(at_interval(after))
    rules.refresh()
    assert [(t, level) for t, level, _ in tell(rules, values[15:], 1)] == [(at_ns(900), 1)]


@pytest.mark.parametrize(
    ("before", "after", "expected_s"), [(60.0, 20.0, 900), (60.0, 1800.0, 1320), (60.0, 60.0, 900)]
)
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_window_goes_on_after_a_restart_as_without_one_with_the_newest_samples_it_has_room_for(
    before, after, expected_s, is_restarted
) -> None:
    table = PointTable()
    table.put(at_interval(before))
    rules = RuleSet([rule(KIND, HALF_AN_HOUR)], {"rate": KIND}, table)
    values = ramp(60, 40, 1.5)
    assert tell(rules, values[:14], 1) == []
    table.put(at_interval(after))
    if is_restarted:
        saved, rules = rules.save(), rules_of(HALF_AN_HOUR, at_interval(after))
        rules.load(saved)
    rules.refresh()
    assert [(t, level) for t, level, _ in tell(rules, values[14:], 1)] == [(at_ns(expected_s), 1)]


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"levels": {"H": 1.0}}, "Field required"),
        ({**FOUR, "window_s": 0}, "greater than 0"),
        ({**FOUR, "window_s": 1e-8}, "shorter than any clock"),
        ({**FOUR, "method": "spline"}, "'two_point' or 'change'"),
        ({**FOUR, "method": "change", "per": "s"}, "leave per out"),
        ({**FOUR, "relative": True}, "relative is for"),
        ({**FOUR, "per": "week"}, "'h' or 'd'"),
        ({**FOUR, "coverage_min": 1.1}, "less than or equal"),
        ({**FOUR, "samples_min": 1}, "greater than or equal"),
        ({**FOUR, "samples_min": 255}, "less than or equal"),
        ({**FOUR, "levels": {"H": 2.0, "HH": 1.0}}, "milder"),
        ({**FOUR, "limit": 1}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        RateParameters.model_validate(given)


def test_a_rate_grouped_by_anything_but_the_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(KIND, FOUR, group_by=GroupBy.AREA)], {"rate": KIND}, PointTable())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"levels": {"H": 0.5}, "coverage_min": 0.4, "samples_min": 2}, None),
        ({"levels": {"H": {"limit": 2.0, "reset": 1.0}}}, "H.limit"),
        ({"window_s": 5}, "window_s"),
        ({"method": "two_point"}, "method"),
        ({"per": "h"}, "per"),
        ({"absolute": False}, "other side"),
        ({"coverage_min": 0.6}, "coverage_min"),
        ({"samples_min": 4}, "samples_min"),
        ({"decimals": 2}, "decimals"),
    ],
)
def test_what_a_change_loosens_is_told(change, word) -> None:
    old = {**FOUR, "absolute": True}
    old, new = (RateParameters.model_validate(given) for given in (old, {**old, **change}))
    found = list(KIND.loosens(old, new))
    assert all(word in text for text in found) and found if word else found == []
