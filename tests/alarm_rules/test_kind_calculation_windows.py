"""Formulas that look back: rain of a day, rise of a level, what makes a window bad or uncertain."""

from __future__ import annotations

import math
import random

import pytest
from reference_logic import ScalarInput, scalar_window

from alarm_rules.kinds._windows import CELLS
from alarm_rules.kinds.calculation import KIND, CalculationParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, RuleCase, Sample, at_ns, drive

KINDS = {"calculation": KIND}
HOUR, DAY = 3600.0, 86400.0
GOOD, BAD, SURE_NOT = 0, int(Quality.BAD_DERIVED), int(Quality.UNCERTAIN_DERIVED)
FAULT = int(Quality.BAD_SENSOR_FAULT)
POINTS = [Point(id=name, quantity=name, area="n") for name in ("rain", "level", "slope", "top")]


def rule(expression: str, *names: str, **parameters) -> Rule:
    inputs = {name: Selector(quantity=name) for name in names}
    formula = {"expression": expression, "id": "{group}.made", "quantity": "made"}
    return Rule("calc", "calculation", inputs, {**formula, **parameters}, group_by=GroupBy.AREA)


def told(wanted: Rule, samples: list[Sample]) -> list[tuple[float, float | None, int]]:
    found = drive(RuleCase([wanted], POINTS, samples), KINDS).derived
    return [((s.time_ns - at_ns(0)) / NS_PER_S, s.value, s.quality) for s in found]


def rain(*rows: tuple[float, float]) -> list[Sample]:
    return [Sample("rain", hour * HOUR, value) for hour, value in rows]


def test_the_rain_of_a_day_is_the_increments_younger_than_a_day_and_no_older_one() -> None:
    rows = rain(*((hour, 1.0) for hour in range(30)))
    found = told(rule(f"sum_over(rain, {DAY:.0f})", "rain"), rows)
    assert [value for _, value, _ in found] == [min(hour + 1.0, 24.0) for hour in range(30)]


def test_a_sum_is_uncertain_until_the_input_was_heard_for_the_whole_window() -> None:
    rows = rain(*((hour, 1.0) for hour in range(27)))
    found = told(rule(f"sum_over(rain, {DAY:.0f})", "rain"), rows)
    assert [quality for _, _, quality in found] == [SURE_NOT] * 24 + [GOOD] * 3


def test_ten_times_a_tenth_is_one_and_reaches_a_limit_of_one() -> None:
    rows = [Sample("rain", 60.0 * n, 0.1) for n in range(10)]
    found = told(rule(f"sum_over(rain, {DAY:.0f})", "rain"), rows)
    assert found[-1][1] == 1.0
    assert sum([0.1] * 10) < 1.0, "added up as floats it falls short"


def test_many_samples_in_one_cell_count_until_the_newest_of_them_is_too_old() -> None:
    cell = 96.0 / CELLS
    rows = [Sample("rain", t, 1.0) for t in (0.0, 0.3 * cell, 0.6 * cell)]
    last = [Sample("rain", t, 0.0) for t in (96.59, 96.61)]
    found = told(rule("sum_over(rain, 96)", "rain"), [*rows, *last])
    assert [(t, value) for t, value, _ in found[3:]] == [(96.59, 3.0), (96.61, 0.0)]


def test_a_bad_sample_in_the_window_makes_it_bad_until_it_has_left() -> None:
    rows = [Sample("rain", t, 1.0) for t in range(12)]
    rows[3] = Sample("rain", 3, 1.0, FAULT)
    found = told(rule("sum_over(rain, 4)", "rain"), rows)
    assert [(value, quality) for _, value, quality in found] == (
        [(n + 1.0, SURE_NOT) for n in range(3)] + [(None, BAD)] * 4 + [(4.0, GOOD)] * 5
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**40 * 1.001])
def test_what_cannot_be_added_up_makes_the_sum_bad_and_never_wrong(value) -> None:
    rows = [Sample("rain", 0, 1.0), Sample("rain", 1, value)]
    assert told(rule("sum_over(rain, 4)", "rain"), rows)[-1] == (1, None, BAD)


def test_a_share_of_bad_samples_may_be_allowed_and_leaves_the_result_uncertain() -> None:
    rows = [Sample("rain", t, 1.0, FAULT if t in (6, 10, 11) else 0) for t in range(12)]
    found = told(rule("sum_over(rain, 4)", "rain", bad_share_max=0.25), rows)
    assert [(value, quality) for _, value, quality in found[5:]] == [
        (4.0, GOOD),
        (3.0, SURE_NOT),
        (3.0, SURE_NOT),
        (3.0, SURE_NOT),
        (3.0, SURE_NOT),
        (3.0, SURE_NOT),
        (None, BAD),
    ]


def test_an_uncertain_sample_in_the_window_makes_it_uncertain() -> None:
    rows = [Sample("rain", t, 1.0, 0x40 if t == 6 else 0) for t in range(12)]
    found = told(rule("mean_over(rain, 3)", "rain"), rows)
    assert [quality for _, _, quality in found] == [SURE_NOT] * 3 + [GOOD] * 3 + [SURE_NOT] * 3 + [
        GOOD
    ] * 3


def test_a_silence_longer_than_allowed_leaves_a_hole_and_a_shorter_one_does_not() -> None:
    rows = [Sample("rain", t, 1.0) for t in (0, 5, 10, 15, 20, 26, 31, 36, 37)]
    found = told(rule("sum_over(rain, 10)", "rain", max_input_age_s=5), rows)
    assert [(t, value, quality) for t, value, quality in found[2:]] == [
        (10, 2.0, GOOD),
        (15, 2.0, GOOD),
        (20, 2.0, GOOD),
        (26, 2.0, SURE_NOT),
        (31, 2.0, SURE_NOT),
        (36, 2.0, GOOD),
        (37, 3.0, GOOD),
    ]


def test_an_input_that_was_silent_for_the_whole_window_says_nothing() -> None:
    rows = [Sample("rain", 0, 1.0), Sample("level", 5, 1.0), Sample("level", 11, 1.0)]
    found = told(rule("sum_over(rain, 10) + 0 * level", "rain", "level"), rows)
    assert found == [(0, None, BAD), (5, 1.0, SURE_NOT), (11, None, BAD)]


LEVEL = [(0, 7.0), (2, 9.0), (4, 4.0), (6, 5.0), (8, 6.0)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("sum_over", [7.0, 16.0, 13.0, 9.0, 11.0]),
        ("mean_over", [7.0, 8.0, 6.5, 4.5, 5.5]),
        ("min_over", [7.0, 7.0, 4.0, 4.0, 5.0]),
        ("max_over", [7.0, 9.0, 9.0, 5.0, 6.0]),
        # newest minus what stood when the window began; before that was heard, minus the first
        ("change_over", [0.0, 2.0, -3.0, -4.0, 2.0]),
        # 9 -> 4 is a counter that began anew at zero and stands at 4
        ("increase_over", [0.0, 2.0, 6.0, 5.0, 2.0]),
    ],
)
def test_each_window_function_says_what_it_says(function, expected) -> None:
    rows = [Sample("level", t, v) for t, v in LEVEL]
    found = told(rule(f"{function}(level, 4)", "level"), rows)
    assert [value for _, value, _ in found] == expected
    assert [quality for _, _, quality in found] == [SURE_NOT] * 2 + [GOOD] * 3


def test_a_change_needs_its_two_ends_and_a_bad_sample_between_them_loses_nothing() -> None:
    rows = [Sample("level", t, float(t), FAULT if t == 3 else 0) for t in range(9)]
    found = told(rule("change_over(level, 2)", "level"), rows)
    assert [value for _, value, _ in found] == [0.0, 1.0, 2.0, None, 2.0, None, 2.0, 2.0, 2.0]
    found = told(rule("increase_over(level, 2)", "level"), rows)
    assert [value for _, value, _ in found] == [0.0, 1.0, 2.0, None, 2.0, 3.0, 2.0, 2.0, 2.0]


def test_a_dry_beach_is_level_difference_over_slope_and_nothing_without_a_slope() -> None:
    beach = rule("where(slope > 0, (top - level) / slope, 0)", "top", "level", "slope", decimals=1)
    rows = [Sample("top", 1, 131.0), Sample("level", 1, 130.0), Sample("slope", 1, 0.01)]
    assert told(beach, rows) == [(1, 100.0, GOOD)]
    assert told(beach, [*rows, Sample("slope", 2, 0.0)])[-1] == (2, 0.0, GOOD)


def test_the_grade_of_a_major_hazard_is_the_weighted_sum_of_its_stocks() -> None:
    """GB 18218-2018: R = alpha (beta1 q1 / Q1 + beta2 q2 / Q2), here 1.5 (4*10/5 + 2*10/10)."""
    stock = rule("1.5 * (4 * rain / 5 + 2 * level / 10)", "rain", "level")
    rows = [Sample("rain", 1, 10.0), Sample("level", 1, 10.0)]
    assert told(stock, rows) == [(1, 15.0, GOOD)]


def table() -> PointTable:
    known = PointTable()
    for point in [*POINTS, Point(id="n.made", quantity="made", area="n")]:
        known.put(point)
    return known


def feed(rules: RuleSet, *rows: tuple[float, float]) -> list[tuple[float | None, int]]:
    found = []
    for second, value in rows:
        at = at_ns(second)
        derived = rules.evaluate(Batch.of([0], [value], at, received_time_ns=at), at).derived
        found += zip(derived.value.tolist(), derived.quality.tolist(), strict=True)
    return found


def test_a_window_whose_span_was_edited_starts_anew_and_the_others_go_on() -> None:
    before = rule("sum_over(rain, 4) + max_over(rain, 6)", "rain")
    first = RuleSet([before], KINDS, table())
    feed(first, *((t, 1.0) for t in range(10)))
    same = RuleSet([before], KINDS, table())
    same.load(first.save())
    assert feed(same, (10, 1.0)) == [(5.0, GOOD)]
    edited = RuleSet([rule("sum_over(rain, 5) + max_over(rain, 6)", "rain")], KINDS, table())
    edited.load(first.save())
    assert feed(edited, (10, 1.0)) == [(2.0, SURE_NOT)]


@pytest.mark.slow
def test_memory_is_the_same_after_a_hundred_thousand_samples_as_after_one() -> None:
    rules = RuleSet([rule("sum_over(rain, 3600)", "rain")], KINDS, table())
    feed(rules, (0, 1.0))
    before = {name: array.nbytes for name, array in rules.save().items()}
    times = [at_ns(1 + n * 0.01) for n in range(100_000)]
    batch = Batch.of([0] * len(times), [1.0] * len(times), times, received_time_ns=times)
    rules.evaluate(batch, times[-1])
    assert {name: array.nbytes for name, array in rules.save().items()} == before


@pytest.mark.slow
@pytest.mark.parametrize("function", ["sum", "change", "increase", "max"])
def test_a_memory_that_is_full_says_the_same_sample_by_sample_at_once_and_as_the_reference(
    function,
) -> None:
    """About one sample in a cell, so that every cell is in use and the oldest drop out."""
    rng = random.Random(function)
    second, rows = 0.0, []
    for _ in range(260):
        second = round(second + rng.choice([0.5, 0.7, 0.9, 0.99]), 3)
        rows.append((second, rng.choice([0.1, 0.2, 5.0, -3.0])))
    wanted = rule(f"{function}_over(rain, 96)", "rain")
    single = feed(RuleSet([wanted], KINDS, table()), *rows)
    times = [at_ns(t) for t, _ in rows]
    batch = Batch.of([0] * len(rows), [v for _, v in rows], times, received_time_ns=times)
    whole = RuleSet([wanted], KINDS, table()).evaluate(batch, times[-1]).derived
    assert single == list(zip(whole.value.tolist(), whole.quality.tolist(), strict=True))
    heard, expected = ScalarInput(), []
    for t, value in rows:
        heard.add(at_ns(t), Sample("rain", t, value), None)
        number, sure = scalar_window(function, heard, 96.0, at_ns(t), 0.0)
        expected.append((number, GOOD if sure else SURE_NOT))
    assert single == expected


@pytest.mark.parametrize(
    "parameters", [{"bad_share_max": 1.0}, {"bad_share_max": -0.1}, {"windows": 3}]
)
def test_parameters_that_make_no_sense_are_refused(parameters) -> None:
    formula = {"expression": "a", "id": "x", "quantity": "q"}
    with pytest.raises(ValueError, match="validation error"):
        CalculationParameters.model_validate({**formula, **parameters})
