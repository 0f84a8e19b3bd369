"""Values that stay where they are although samples come."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from pydantic import ValidationError
from signal_cases import BAD, CAL, levels, rule, told

from alarm_rules.kinds.stuck import KIND, StuckParameters, run_starts
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import PointTable
from gateway.model.rule import GroupBy

TEN = {"unchanged_s": 10}


def every(step_s, values, start_s=0) -> list[tuple]:
    return [(start_s + step_s * n, value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("parameters", "values", "expected"),
    [
        (TEN, every(5, [1.0, 1.0, 1.0]), [(10, "STUCK")]),
        (TEN, every(4.999999999, [1.0, 1.0, 1.0]), []),
        (TEN, every(4, [1.0] * 4), [(12, "STUCK")]),
        (TEN, every(4, [1.0, 1.0, 1.0, 1.1]), []),
        (TEN, every(5, [1.0, 1.0, 1.0, 1.0, 2.0]), [(10, "STUCK"), (20, "")]),
        (TEN, every(5, [0.0, 1.0, 1.0, 1.0]), [(15, "STUCK")]),
        (TEN, every(5, [1.0, 2.0, 1.0, 2.0, 1.0]), []),
        (TEN, every(5, [0.0, -0.0, 0.0]), [(10, "STUCK")]),
        ({**TEN, "band": 0.5}, every(5, [1.0, 1.5, 0.5]), [(10, "STUCK")]),
        ({**TEN, "band": 0.5}, every(5, [1.0, 1.5, 0.49]), []),
        ({**TEN, "band": 0.5}, every(5, [1.0, 1.4, 1.8, 2.2, 2.6]), []),
        ({**TEN, "samples_min": 4}, every(5, [1.0] * 4), [(15, "STUCK")]),
        ({**TEN, "samples_min": 2}, every(10, [1.0] * 2), [(10, "STUCK")]),
    ],
)
def test_a_value_is_stuck_from_the_sample_that_repeats_it_after_the_span(
    parameters, values, expected
) -> None:
    assert levels(KIND, parameters, values) == expected


def test_silence_alone_never_makes_a_value_stuck() -> None:
    assert levels(KIND, TEN, every(1, [1.0] * 9), end_s=10_000) == []


def test_two_equal_values_around_a_silence_are_too_few_by_default() -> None:
    assert levels(KIND, TEN, [(0, 1.0), (60, 1.0)], end_s=100) == []


@pytest.mark.parametrize(
    ("gap_max_s", "expected"), [(None, [(60, "STUCK")]), (56, [(60, "STUCK")]), (55.9, [])]
)
def test_a_silence_longer_than_allowed_begins_the_run_anew(gap_max_s, expected) -> None:
    values = [*every(1, [1.0] * 5), (60, 1.0), (61, 1.0), (62, 1.0)]
    assert levels(KIND, {**TEN, "gap_max_s": gap_max_s}, values) == expected


def test_a_silence_does_not_end_a_stuck_alarm_but_another_value_does() -> None:
    values = [*every(5, [1.0] * 3), (60, 1.0), (61, 1.2)]
    assert levels(KIND, {**TEN, "gap_max_s": 8}, values) == [(10, "STUCK"), (61, "")]


def test_bad_values_are_neither_a_change_nor_a_repetition() -> None:
    bad = [(0, 1.0), (5, 2.0, BAD), (6, math.nan), (10, 1.0)]
    assert levels(KIND, TEN, bad) == []
    assert levels(KIND, TEN, [*bad, (11, 1.0)]) == [(11, "STUCK")]
    stuck = [*every(5, [1.0] * 3), (16, 9.0, BAD), (17, 1.0)]
    assert levels(KIND, TEN, stuck) == [(10, "STUCK")]


def test_repeats_of_one_sample_are_one_sample() -> None:
    assert levels(KIND, TEN, [(0, 1.0), (10, 1.0), (10, 1.0), (10, 1.0)]) == []


def test_the_alarm_shows_the_value_that_is_stuck_and_its_quality() -> None:
    (change,) = told(KIND, TEN, [(0, 3.5), (5, 3.5), (10, 3.5, CAL)])
    assert (change.value, change.limit, change.quality) == (3.5, None, CAL)


def chain(value, band, begins) -> list[bool]:
    """The beginnings of runs, one sample after the other."""
    found, anchor = [], 0
    for row, one in enumerate(value):
        inside = value[anchor] - band[anchor] <= one <= value[anchor] + band[anchor]
        is_start = bool(begins[row]) or not inside
        anchor = row if is_start else anchor
        found.append(is_start)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_runs_found_by_doubling_are_those_of_the_chain(seed) -> None:
    rng = random.Random(seed)
    size = rng.choice([1, 2, 3, 17, 64, 300])
    steps = rng.choice([[0.0, 0.25], [-1.0, 1.0], [-0.25, 0.0, 0.25, 5.0]])
    value = np.cumsum([rng.choice(steps) for _ in range(size)])
    begins = np.array([row == 0 or rng.random() < 0.05 for row in range(size)])
    owner = np.cumsum(begins)
    band = np.array([rng.choice([0.0, 0.5, 2.0]) for _ in range(size + 1)])[owner]
    assert run_starts(value, band, begins).tolist() == chain(value, band, begins)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "Field required"),
        ({"unchanged_s": 0}, "more than 0"),
        ({"unchanged_s": 1, "gap_max_s": 0}, "more than 0"),
        ({"unchanged_s": 1, "band": -1}, "greater than or equal"),
        ({"unchanged_s": 1, "samples_min": 1}, "greater than or equal"),
        ({"unchanged_s": 1, "limit": 1}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        StuckParameters.model_validate(given)


def test_stuck_grouped_by_anything_but_the_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(KIND, TEN, group_by=GroupBy.AREA)], {"stuck": KIND}, PointTable())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"unchanged_s": 9, "band": 0.6, "samples_min": 2, "gap_max_s": None}, None),
        ({"unchanged_s": 11}, "unchanged_s"),
        ({"band": 0.4}, "band"),
        ({"samples_min": 4}, "samples_min"),
        ({"gap_max_s": 50}, "gap_max_s"),
        ({"gap_max_s": 70}, None),
    ],
)
def test_what_a_change_loosens_is_told(change, word) -> None:
    old = {"unchanged_s": 10, "band": 0.5, "gap_max_s": 60}
    old, new = (StuckParameters.model_validate(given) for given in (old, {**old, **change}))
    found = list(KIND.loosens(old, new))
    assert all(word in text for text in found) and found if word else found == []
