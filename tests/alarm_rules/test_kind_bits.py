"""Alarm words: one alarm for each named bit."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from signal_cases import BAD, NS, POINT, rule, samples

from alarm_rules.kinds.bits import KIND, BitsParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError
from gateway.model.point import PointTable
from gateway.model.rule import GroupBy, Priority
from gateway.testing.rule_kinds import RuleCase, at_ns, drive

WORD = {  # JT/T 808-2013 and -2019 0x0200: bits 0, 2, 31; status bit 1 is "fix valid"
    "bits": {
        "0": {
            "name": "DISTRESS",
            "priority": "critical",
            "title": {"zh": "紧急报警", "en": "Help"},
        },
        "2": {"name": "FATIGUE", "on_delay_s": 2, "title": {"en": "Fatigue"}},
        "51": {"name": "TOP"},
    }
}
FIX = {"bits": {"1": {"name": "NO_FIX", "when": "clear"}}}


def told(parameters, values, **extra) -> list[tuple]:
    case = RuleCase([rule(KIND, parameters, **extra)], [POINT], samples(values), end_s=20)
    return [
        ((c.time_ns - at_ns(0)) / NS, c.alarm_key, c.level)
        for c in drive(case, {"bits": KIND}).changes
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1, 0.0)], []),
        ([(1, 1.0)], [(1, "a.distress:r", "DISTRESS")]),
        ([(1, 2.0)], []),
        ([(1, 1.0), (2, 1.0), (3, 3.0)], [(1, "a.distress:r", "DISTRESS")]),
        (
            [(1, 5.0), (2, 4.0), (9, 0.0)],
            [
                (1, "a.distress:r", "DISTRESS"),
                (2, "a.distress:r", ""),
                (3, "a.fatigue:r", "FATIGUE"),
                (9, "a.fatigue:r", ""),
            ],
        ),
        ([(1, 2.0**51)], [(1, "a.top:r", "TOP")]),
        ([(1, 2.0**51 + 1)], [(1, "a.distress:r", "DISTRESS"), (1, "a.top:r", "TOP")]),
        ([(1, 1.0, BAD)], []),
    ],
)
def test_every_named_bit_is_an_alarm_of_its_own(values, expected) -> None:
    assert told(WORD, values) == expected


@pytest.mark.parametrize("odd", [2.0**52, 2.0**52 + 2, -1.0, 1.5, math.inf, -math.inf, math.nan])
def test_what_is_no_word_neither_raises_nor_clears(odd) -> None:
    assert told(WORD, [(1, odd)]) == []
    assert told(WORD, [(1, 1.0), (2, odd)]) == [(1, "a.distress:r", "DISTRESS")]


def test_a_bit_may_alarm_when_it_is_clear() -> None:
    assert told(FIX, [(1, 2.0), (2, 0.0), (3, 1.0), (4, 3.0)]) == [
        (2, "a.no_fix:r", "NO_FIX"),
        (4, "a.no_fix:r", ""),
    ]


def test_of_two_words_at_one_time_a_set_bit_wins_whatever_their_order() -> None:
    pair = [(1, 0.0), (1, 1.0)]
    assert told(WORD, pair) == told(WORD, pair[::-1]) == [(1, "a.distress:r", "DISTRESS")]


def test_instances_say_which_bit_of_which_point_they_are() -> None:
    table = PointTable()
    table.put(POINT)
    found = RuleSet([rule(KIND, WORD, priority=Priority.LOW)], {"bits": KIND}, table).instances
    assert [(i.target, i.display_name, i.levels[0].priority, i.point_id) for i in found] == [
        ("a.distress", "Crack 3 紧急报警", Priority.CRITICAL, "a"),
        ("a.fatigue", "Crack 3 Fatigue", Priority.LOW, "a"),
        ("a.top", "Crack 3", Priority.LOW, "a"),
    ]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "at least 1"),
        ({"52": {"name": "X"}}, "numbered 0 to 51"),
        ({"-1": {"name": "X"}}, "numbered"),
        ({"01": {"name": "X"}}, "numbered"),
        ({"1": {"name": "a b"}}, "word of an id"),
        ({"1": {"name": "X"}, "2": {"name": "x"}}, "1 and 2 have one name"),
        ({"1": {"name": "X", "when": "toggled"}}, "'set' or 'clear'"),
        ({"1": {"name": "X", "limit": 1}}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_with_a_reason(given, word) -> None:
    with pytest.raises(ValidationError, match=word):
        BitsParameters.model_validate({"bits": given})


def test_bits_grouped_by_anything_but_the_point_are_refused() -> None:
    with pytest.raises(ConfigError, match="each point by itself"):
        RuleSet([rule(KIND, WORD, group_by=GroupBy.DEVICE)], {"bits": KIND}, PointTable())


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (WORD["bits"], []),
        ({"0": WORD["bits"]["0"], "2": {"name": "FATIGUE"}}, ["bit 51 TOP is gone", "bit 2 FATIGUE.on_delay_s is less strict"]),
        ({**WORD["bits"], "51": {"name": "TOP", "when": "clear"}}, ["bit 51 TOP alarms when clear"]),
        ({**WORD["bits"], "2": {"name": "FATIGUE", "on_delay_s": 1}, "3": {"name": "NEW"}}, []),
    ],
)  # fmt: skip
def test_what_a_change_loosens_is_told(bits, expected) -> None:
    old, new = (BitsParameters.model_validate({"bits": given}) for given in (WORD["bits"], bits))
    assert sorted(KIND.loosens(old, new)) == sorted(expected)
