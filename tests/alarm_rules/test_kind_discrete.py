"""Codes: which set, which reset, which hold."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from signal_cases import BAD, CAL, levels, rule, told

from alarm_rules.kinds.discrete import KIND, DiscreteParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import PointTable
from gateway.model.rule import GroupBy, Priority

FAN = {
    "levels": {
        "STOPPED": {"values": [0], "priority": "high"},
        "FAULT": {"values": [2, 9], "priority": "critical"},
    }
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1, 1.0)], []),
        ([(1, 0.0)], [(1, "STOPPED")]),
        ([(1, -0.0)], [(1, "STOPPED")]),
        ([(1, 0.0), (2, 1.0)], [(1, "STOPPED"), (2, "")]),
        ([(1, 0.0), (2, 7.0)], [(1, "STOPPED"), (2, "")]),
        ([(1, 0.0), (2, 9.0), (3, 0.0)], [(1, "STOPPED"), (2, "FAULT"), (3, "STOPPED")]),
        ([(1, 2.0), (2, 9.0)], [(1, "FAULT")]),
        ([(1, 2.0000000000000004)], []),
        ([(1, 0.0, BAD)], []),
        ([(1, 0.0), (2, 1.0, BAD), (3, math.nan)], [(1, "STOPPED")]),
        ([(1, 1.0), (1, 0.0)], [(1, "STOPPED")]),
    ],
)
def test_a_code_of_a_level_sets_it_and_any_other_usable_value_ends_it(values, expected) -> None:
    assert levels(KIND, FAN, values) == expected


def test_delays_of_a_level_and_of_the_rule_are_exact() -> None:
    parameters = {"levels": {"OPEN": {"values": [1], "on_delay_s": 3}}}
    values = [(1, 1.0), (3.9, 0.0), (5, 1.0), (9, 0.0)]
    assert levels(KIND, parameters, values, end_s=30, off_delay_s=2) == [(8, "OPEN"), (11, "")]


def test_the_more_severe_level_is_shown_while_its_off_delay_runs() -> None:
    parameters = {
        "levels": {"STOPPED": {"values": [0]}, "FAULT": {"values": [2], "off_delay_s": 5}}
    }
    assert levels(KIND, parameters, [(1, 2.0), (2, 0.0)], end_s=9) == [(1, "FAULT"), (7, "STOPPED")]


def test_the_alarm_carries_the_code_and_the_quality_it_came_with() -> None:
    (change,) = told(KIND, FAN, [(1, 9.0, CAL)])
    assert (change.value, change.limit, change.quality) == (9.0, None, CAL)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "at least 1"),
        ({"OPEN": {"values": []}}, "at least 1"),
        ({"OPEN": {"values": [1]}, "SHUT": {"values": [1]}}, "stands in OPEN and again in SHUT"),
        ({"OPEN": {"values": [1, 1]}}, "again"),
        ({"a|b": {"values": [1]}}, "named by a word"),
        ({"OPEN": {"values": [math.nan]}}, "finite"),
        ({"OPEN": {"values": [1], "delay": 1}}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        DiscreteParameters.model_validate({"levels": given})


def test_a_code_grouped_by_anything_but_the_point_is_refused() -> None:
    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(KIND, FAN, group_by=GroupBy.AREA)], {"discrete": KIND}, PointTable())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"STOPPED": {"values": [0, 5]}}, []),
        ({"FAULT": {"values": [2]}}, ["FAULT: code 9 is no alarm now"]),
        ({"FAULT": {"values": [2, 9, 0]}, "STOPPED": None}, ["level STOPPED is gone"]),
        ({"STOPPED": {"values": [0, 9]}, "FAULT": {"values": [2]}}, ["FAULT: code 9 is a milder level now"]),
        ({"STOPPED": {"values": [0], "on_delay_s": 1}}, ["STOPPED.on_delay_s is less strict"]),
        ({"STOPPED": {"values": [0], "priority": "low"}}, ["STOPPED.priority is less strict"]),
        ({"STOPPED": {"values": [0], "priority": "critical"}}, []),
    ],
)  # fmt: skip
def test_what_a_change_loosens_is_told(change, expected) -> None:
    base = {
        "STOPPED": {"values": [0], "priority": "high"},
        "FAULT": {"values": [2, 9]},
    }
    changed = {n: v for n in base if (v := change.get(n, base[n])) is not None}
    if "priority" not in changed.get("STOPPED", {"priority": 1}):
        changed["STOPPED"] = {**changed["STOPPED"], "priority": "high"}
    old, new = (DiscreteParameters.model_validate({"levels": given}) for given in (base, changed))
    assert list(KIND.loosens(old, new)) == expected


def test_levels_keep_the_order_they_are_written_in() -> None:
    shown = DiscreteParameters.model_validate(FAN).compiled(rule(KIND, FAN)).levels
    assert [(level.name, level.priority) for level in shown] == [
        ("STOPPED", Priority.HIGH),
        ("FAULT", Priority.CRITICAL),
    ]
