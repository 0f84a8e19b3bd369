"""Plain limits checked quickly are what the model makes of them, or are left to the model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from alarm_rules import matching
from alarm_rules.kinds import limit
from alarm_rules.kinds._plain import PlainLevels, plain_levels
from alarm_rules.matching import compile_rules
from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import PointsPlanning
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, Rule, Selector

KINDS = {"limit": limit.KIND}
NAMES = ["H", "HH", "HHH", "HHHH", "L", "LL", "LLL", "LLLL"]
NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1.7e308, 5e-324]),
    st.sampled_from([2**53, 2**53 + 1, 10**400, True, False, None, "1.0", "x"]),
)
ITEMS = st.one_of(
    NUMBERS,
    st.fixed_dictionaries({"limit": NUMBERS}, optional={"reset": NUMBERS}),
    st.fixed_dictionaries(
        {}, optional={"limit": NUMBERS, "reset": NUMBERS, "priority": st.just("high"), "x": NUMBERS}
    ),
)
STATED = st.one_of(
    st.fixed_dictionaries(
        {"levels": st.dictionaries(st.sampled_from([*NAMES, "h", "HHHHH", ""]), ITEMS, max_size=4)}
    ),
    st.fixed_dictionaries(
        {"levels": st.dictionaries(st.sampled_from(NAMES), st.integers(-2, 2), max_size=3)},
        optional={"more": st.just(1)},
    ),
    st.sampled_from([{}, {"levels": None}, {"levels": []}, {"levels": {}}, {"levels": {1: 2.0}}]),
)


def rule(parameters: Any, **more: Any) -> Rule:
    return Rule("r", "limit", {"value": Selector(ids=("p",))}, parameters, **more)


def modelled(parameters: Any) -> limit.LimitParameters | None:
    try:
        return limit.LimitParameters.model_validate(parameters)
    except ValidationError:
        return None


@settings(max_examples=1_500, deadline=None)
@given(
    STATED,
    st.sampled_from([*Priority]),
    st.sampled_from(["", "red"]),
    st.sampled_from([0.0, 0.1, 2, 30.0]),
)
def test_plain_levels_say_what_the_model_says_or_nothing(stated, priority, level, delay_s) -> None:
    found, expected = plain_levels(stated), modelled(stated)
    if found is None:
        return
    assert expected is not None, "the model refuses it"
    assert len(found) == limit.level_count(found) == limit.level_count(expected)
    about = rule(stated, priority=priority, level=level, on_delay_s=delay_s, off_delay_s=1.0)
    # text, so that 0.0 is not -0.0
    assert repr(found.level_set(about)) == repr(expected.level_set(about))
    assert found.plan(about) is found.plan(about), "what all points share, once"
    assert found.level_set(about).levels is found.level_set(about).levels
    asked = [PointsPlanning(about, each, [0], PointTable(), lambda _: None)
             for each in (found, expected)]  # fmt: skip
    assert repr(limit.plan_alike(asked[0])) == repr(limit.plan_alike(asked[1]))


@pytest.mark.parametrize(
    "stated",
    [
        {"levels": {"H": 1}},
        {"levels": {"H": {"limit": 1.0}}},
        {"levels": {"HH": 2.0, "L": {"limit": -1, "reset": 0.5}, "H": 1.5}},
        {"levels": {"LL": -2.0, "L": -2.0}},
    ],
)
def test_what_is_plain_is_not_left_to_the_model(stated) -> None:
    assert isinstance(plain_levels(stated), PlainLevels)


@pytest.mark.parametrize(
    "stated",
    [
        {"levels": {"H": {"limit": 1.0, "reset": 1.1}}},
        {"levels": {"L": {"limit": 1.0, "reset": 0.9}}},
        {"levels": {"H": 2.0, "HH": 1.0}},
        {"levels": {"LL": 2.0, "L": 1.0}},
        {"levels": {"H": {"limit": 1.0, "reset": None}}},
        {"levels": {"H": True}},
        {"levels": {"H": 2**53 + 1}},
        {"levels": {"H": {"reset": 1.0}}},
    ],
)
def test_what_is_not_plain_or_not_valid_is_left_to_the_model(stated) -> None:
    assert plain_levels(stated) is None
    _, faults = compile_rules([rule(stated)], KINDS)
    assert bool(faults) is (modelled(stated) is None)


def test_rules_that_state_the_same_share_their_parameters_and_keep_their_own_priority() -> None:
    stated = {"levels": {"H": 1.0}}
    rules = [
        Rule(f"r{n}", "limit", {"value": Selector(ids=("p",))}, dict(stated), priority=priority)
        for n, priority in enumerate([Priority.HIGH, Priority.LOW, Priority.HIGH, Priority.LOW])
    ]
    compiled, _ = compile_rules(rules, KINDS)
    assert len({id(each.parameters) for each in compiled}) == 1
    table = PointTable()
    table.put(Point(id="p"))
    found = RuleSet(rules, KINDS, table)
    assert [each.levels[0].priority for each in found.instances] == [
        each.priority for each in rules
    ]
    assert found.instances[0].levels is found.instances[2].levels


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["one each", "one for all"])
def test_whether_parameters_are_looked_up_or_made_anew_they_say_the_same(
    share, monkeypatch
) -> None:
    """Where hardly any two state the same, nobody looks whether two do; what is not plain, or not
    valid, is the model's affair all the same."""
    monkeypatch.setattr(matching, "_ASKED_MIN", 20)
    limits = [1.0 + number * (1 - share) for number in range(40)]
    stated: list[Any] = [{"levels": {"H": limit_}} for limit_ in limits]
    stated[30] = {"levels": {"H": {"limit": 7.0, "priority": "high"}}}
    rules = [replace(rule(each), id=f"r{number}") for number, each in enumerate(stated)]
    compiled, faults = compile_rules(rules, KINDS)
    assert not faults
    assert len({id(one.parameters) for one in compiled}) == (40 if share == 0 else 2)
    assert [one.is_quick for one in compiled] == [number != 30 for number in range(40)]
    assert [one.parameters.levels["H"].limit for one in compiled[:30]] == limits[:30]
    rules[35] = replace(rules[35], parameters={"levels": {"H": "high"}})
    _, faults = compile_rules(rules, KINDS)
    assert {fault.key.partition(".")[0] for fault in faults} == {"r35"}


def test_the_levels_of_plain_parameters_can_be_read_as_the_models() -> None:
    stated = {"levels": {"HH": 2, "H": {"limit": 1.0, "reset": 0.9}}}
    plain, model = plain_levels(stated), modelled(stated)
    assert plain is not None
    assert model is not None
    assert {n: (e.limit, e.reset) for n, e in plain.levels.items()} == {
        "H": (1.0, 0.9), "HH": (2.0, 2.0)
    }  # fmt: skip
    assert plain.levels.keys() == model.levels.keys()
