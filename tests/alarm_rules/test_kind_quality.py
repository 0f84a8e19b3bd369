"""Instrument alarms: raised by quality alone, ended by a usable sample."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from signal_cases import levels, rule, told

from alarm_rules.kinds.quality import KIND, QualityParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy

FAULT, LINE, RANGE = (
    int(Quality.BAD_SENSOR_FAULT),
    int(Quality.BAD_COMMUNICATION),
    int(Quality.BAD_OVER_RANGE),
)
CLOCK, CAL = int(Quality.UNCERTAIN_CLOCK), int(Quality.UNCERTAIN_CALIBRATING)
ANY_BAD = {"categories": ["bad"]}
SENSOR = {"reasons": ["BAD_SENSOR_FAULT", "BAD_OVER_RANGE"]}


@pytest.mark.parametrize(
    ("parameters", "values", "expected"),
    [
        (ANY_BAD, [(1, 1.0)], []),
        (ANY_BAD, [(1, 1.0, FAULT)], [(1, "BADQ")]),
        (ANY_BAD, [(1, 1.0, FAULT), (2, 1.0)], [(1, "BADQ"), (2, "")]),
        (ANY_BAD, [(1, 1.0, FAULT), (2, 1.0, CLOCK)], [(1, "BADQ"), (2, "")]),
        (ANY_BAD, [(1, 1.0, FAULT), (2, 1.0, LINE), (3, 1.0)], [(1, "BADQ"), (3, "")]),
        (ANY_BAD, [(1, math.nan)], [(1, "BADQ")]),
        (ANY_BAD, [(1, 1.0, 0x80 + 50)], [(1, "BADQ")]),
        (ANY_BAD, [(1, 1.0, CLOCK)], []),
        (SENSOR, [(1, 1.0, LINE)], []),
        (SENSOR, [(1, 1.0, FAULT), (2, 1.0, LINE)], [(1, "BADQ")]),
        (SENSOR, [(1, 1.0, FAULT), (2, math.nan)], [(1, "BADQ")]),
        (SENSOR, [(1, 1.0, RANGE), (2, 1.0, CAL)], [(1, "BADQ"), (2, "")]),
        ({"categories": ["uncertain"]}, [(1, 1.0, CLOCK), (2, 1.0, FAULT), (3, 1.0)], [(1, "BADQ"), (3, "")]),
        ({**SENSOR, "name": "SENSOR"}, [(1, 1.0, FAULT)], [(1, "SENSOR")]),
        (ANY_BAD, [(1, 1.0), (1, 1.0, FAULT)], [(1, "BADQ")]),
    ],
)  # fmt: skip
def test_a_quality_asked_for_sets_and_a_usable_sample_of_another_ends_it(
    parameters, values, expected
) -> None:
    assert levels(KIND, parameters, values) == expected


def test_silence_holds_and_delays_are_exact() -> None:
    values = [(1, 1.0, FAULT), (4, 1.0), (5, 1.0, FAULT)]
    assert levels(KIND, ANY_BAD, values, on_delay_s=3, end_s=30) == [(4, "BADQ"), (4, ""), (8, "BADQ")]  # fmt: skip


def test_the_alarm_says_why_in_its_quality_and_shows_no_value() -> None:
    (change,) = told(KIND, ANY_BAD, [(1, 7.0, RANGE)])
    assert (change.value, change.quality) == (None, RANGE)
    (change,) = told(KIND, ANY_BAD, [(1, math.nan)])
    assert change.quality == Quality.BAD_NOT_A_NUMBER


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "reasons or categories"),
        ({"reasons": ["BROKEN"]}, "no quality"),
        ({"reasons": ["GOOD"]}, "what ends"),
        ({"categories": ["good"]}, "'bad' or 'uncertain'"),
        ({"categories": ["bad"], "name": "a|b"}, "named by a word"),
        ({"categories": ["bad"], "limit": 1}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        QualityParameters.model_validate(given)


def test_quality_grouped_by_anything_but_the_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(KIND, ANY_BAD, group_by=GroupBy.SITE)], {"quality": KIND}, PointTable())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (SENSOR, ANY_BAD, []),
        (SENSOR, {"reasons": ["BAD_SENSOR_FAULT"]}, ["BAD_OVER_RANGE is no alarm now"]),
        ({"reasons": ["BAD_STALE"]}, {"categories": ["uncertain"]}, ["BAD_STALE is no alarm now"]),
    ],
)
def test_what_a_change_loosens_is_told(old, new, expected) -> None:
    old, new = (QualityParameters.model_validate(given) for given in (old, new))
    assert list(KIND.loosens(old, new)) == expected
