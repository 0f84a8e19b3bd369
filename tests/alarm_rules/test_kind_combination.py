"""Colours that add up: points to items, items to the pond, and members that come and go."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from alarm_rules.kinds import limit
from alarm_rules.kinds.combination import COLOURS, KIND, CombinationParameters, loosens
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Priority, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, RuleCase, Sample, at_ns, drive

KINDS = {"limit": limit.KIND, "combination": KIND}
CALIBRATING = int(Quality.UNCERTAIN_CALIBRATING)
GB_39496 = [  # 5.5.4: points of one item
    {"of": "blue", "count": 4, "makes": "yellow"},
    {"of": "yellow", "count": 3, "makes": "orange"},
    {"of": "orange", "count": 2, "makes": "red"},
]
N, B, Y, O, R = 0.0, 1.0, 2.0, 3.0, 4.0  # noqa: E741  the colours as values of a point
POINTS = [Point(id=f"p{n}", quantity="q", area="item1") for n in range(12)]
PLAIN = Rule(
    "p",
    "limit",
    {"value": Selector(quantity="q")},
    {
        "levels": {
            name: {"limit": float(n + 1), "level": colour}
            for n, (name, colour) in enumerate(
                zip(["H", "HH", "HHH", "HHHH"], COLOURS, strict=True)
            )
        }
    },
    scheme="tailings",
)


def item(group_by=GroupBy.AREA, rule_id="item", on_delay_s=0.0, **parameters) -> Rule:
    given = {"rules": ["p"], "steps": GB_39496, **parameters}
    return Rule(
        rule_id,
        "combination",
        {"value": Selector()},
        given,
        priority=Priority.HIGH,
        scheme="tailings",
        on_delay_s=on_delay_s,
        group_by=group_by,
    )


def told(
    samples, *rules: Rule, points=POINTS, end_s=0.0
) -> list[tuple[float, str, str, float | None]]:
    """Changes of the combinations alone."""
    found = drive(RuleCase([PLAIN, *rules], points, samples, end_s=end_s), KINDS).changes
    names = {rule.id for rule in rules}
    return [
        ((c.time_ns - at_ns(0)) / NS_PER_S, c.alarm_key, c.level, c.value)
        for c in found
        if c.alarm_key.split(":")[1] in names
    ]


def colours(*values: float, time_s: float = 1.0) -> list[Sample]:
    return [Sample(f"p{n}", time_s, value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "level", "value"),
    [
        ([B, B, B], "", None),
        ([B, B, B, B], "yellow", 4.0),
        ([B, B, B, B, B, B, B, B], "yellow", 8.0),
        ([Y, Y], "", None),
        ([Y, Y, Y], "orange", 3.0),
        ([O], "", None),
        ([O, O], "red", 2.0),
        ([B, B, B, Y], "yellow", 4.0),  # a yellow is a blue and worse
        ([Y, Y, O], "orange", 3.0),
        ([O, R], "red", 2.0),
        ([B, B, B, N, R], "yellow", 4.0),
        ([R], "", None),  # alone it makes nothing: include_members does
    ],
)
def test_points_of_one_item_add_up_as_the_standard_says(values, level, value) -> None:
    expected = [(1, "item1:item", level, value)] if level else []
    assert told(colours(*values), item()) == expected


@pytest.mark.parametrize(
    ("values", "level", "value"),
    [
        ([N, N], "", None),
        ([B], "blue", 1.0),
        ([B, B, R], "red", 1.0),
        ([O, O, R], "red", 3.0),
        ([B, B, B, B], "yellow", 4.0),
        ([O, B, B, B], "orange", 1.0),
    ],
)
def test_with_its_members_an_item_is_at_least_as_bad_as_its_worst_one(values, level, value) -> None:
    expected = [(1, "item1:item", level, value)] if level else []
    assert told(colours(*values), item(include_members=True)) == expected


@pytest.mark.parametrize(
    ("values", "level", "value"),
    [
        ([B, B, B, B], "yellow", 4.0),
        ([B, B, B, Y], "", None),  # coins: three blue and one yellow are one yellow
        ([B, B, B, B, Y, Y], "orange", 3.0),
        ([B] * 12, "orange", 3.0),
        ([B] * 8 + [Y, O], "red", 2.0),
    ],
)
def test_with_carry_four_blue_items_count_as_one_yellow_more(values, level, value) -> None:
    expected = [(1, "item1:item", level, value)] if level else []
    assert told(colours(*values), item(carry=True)) == expected


def test_the_item_follows_its_points_up_and_down_and_says_who_decided() -> None:
    rows = [
        *colours(B, B, B, B, B, time_s=1),
        Sample("p0", 2, N),
        Sample("p1", 3, N),
        *[Sample(f"p{n}", 4, Y) for n in range(3)],
        *colours(N, N, N, N, N, time_s=5),
    ]
    assert told(rows, item()) == [
        (1, "item1:item", "yellow", 5.0),
        (3, "item1:item", "", 3.0),
        (4, "item1:item", "orange", 3.0),
        (5, "item1:item", "", 0.0),
    ]


def test_changes_of_one_time_are_applied_together() -> None:
    rows = [*colours(B, B, B, B, N, time_s=1), Sample("p0", 2, N), Sample("p4", 2, B)]
    assert told(rows, item()) == [(1, "item1:item", "yellow", 4.0)]


def test_points_to_items_and_items_to_the_pond() -> None:
    points = [Point(id=f"i{i}.{n}", quantity="q", area=f"i{i}") for i in range(3) for n in range(4)]
    rows = [Sample(point.id, 1 + int(point.area[1]), B) for point in points]
    pond = item(GroupBy.SITE, "pond", rules=["item"], carry=True, include_members=True)
    assert told(rows, item(), pond, points=points) == [
        (1, "i0:item", "yellow", 4.0),
        (1, "site:pond", "yellow", 1.0),
        (2, "i1:item", "yellow", 4.0),
        (3, "i2:item", "yellow", 4.0),
        (3, "site:pond", "orange", 3.0),
    ]


def test_a_delayed_combination_lasts_before_it_is_told() -> None:
    rows = [*colours(B, B, B, B), Sample("p0", 5, N)]
    assert told(rows, item(on_delay_s=4)) == [
        (5, "item1:item", "yellow", 4.0),
        (5, "item1:item", "", 3.0),
    ]
    assert told(rows, item(on_delay_s=4.5)) == []


def test_a_member_on_calibration_values_does_not_count_until_it_is_real() -> None:
    rows = [*colours(B, B, B), Sample("p3", 1, B, CALIBRATING)]
    assert told(rows, item()) == []
    assert told([*rows, Sample("p3", 2, B)], item()) == [(2, "item1:item", "yellow", 4.0)]


def test_a_member_of_uncertain_quality_counts_and_is_said_to_be() -> None:
    rows = [*colours(B, B, B), Sample("p3", 1, B, int(Quality.UNCERTAIN))]
    case = RuleCase([PLAIN, item()], POINTS, rows)
    (found,) = [c for c in drive(case, KINDS).changes if c.level == "yellow"]
    assert (found.quality, found.limit) == (int(Quality.UNCERTAIN_DERIVED), 4.0)


def test_a_member_that_turns_bad_keeps_its_colour() -> None:
    rows = [*colours(B, B, B, B), Sample("p0", 2, N, int(Quality.BAD_SENSOR_FAULT))]
    assert told(rows, item()) == [(1, "item1:item", "yellow", 4.0)]


def test_rules_of_another_scheme_do_not_count() -> None:
    assert told(colours(B, B, B, B), item(scheme="mine")) == []
    assert len(told(colours(B, B, B, B), item(scheme="tailings"))) == 1


def site(points=POINTS) -> PointTable:
    table = PointTable()
    for point in points:
        table.put(point)
    return table


def step(rules: RuleSet, second: float, rows: dict[int, float]) -> list[tuple[str, str]]:
    at = at_ns(second)
    batch = Batch.of(list(rows), list(rows.values()), at, received_time_ns=at)
    found = rules.evaluate(batch, at).conditions
    told = []
    for i, level in zip(found.instance, found.level, strict=True):
        instance = rules.instances[i]
        if instance.rule.kind == "combination":
            told.append((instance.alarm_key, instance.levels[level - 1].name if level else ""))
    return told


def test_each_level_is_called_by_its_colour() -> None:
    wanted = item(priorities={"red": "critical"})
    rules = RuleSet([PLAIN, wanted], KINDS, site())
    (found,) = [i for i in rules.instances if i.rule.id == "item"]
    assert [(v.name, v.scheme_level, v.priority, v.limit) for v in found.levels] == [
        ("yellow", "yellow", Priority.HIGH, 4.0),
        ("orange", "orange", Priority.HIGH, 3.0),
        ("red", "red", Priority.CRITICAL, 2.0),
    ]
    assert (found.target, found.area, found.alarm_key) == ("item1", "item1", "item1:item")


def test_a_point_that_joins_counts_and_one_that_leaves_no_longer_does() -> None:
    table = site(POINTS[:4])
    rules = RuleSet([PLAIN, item()], KINDS, table)
    assert step(rules, 1, {0: B, 1: B, 2: B}) == []
    table.put(Point(id="new", quantity="q", area="item1"))
    rules.refresh()
    assert step(rules, 2, {4: B}) == [("item1:item", "yellow")]
    table.put(Point(id="new", quantity="q", area="elsewhere"))
    rules.refresh()
    assert step(rules, 3, {}) == [("item1:item", "")]


def test_a_point_that_comes_back_counts_with_the_level_it_has_by_then() -> None:
    table = site(POINTS[:5])
    rules = RuleSet([PLAIN, item()], KINDS, table)
    assert step(rules, 1, dict.fromkeys(range(4), B)) == [("item1:item", "yellow")]
    table.put(Point(id="p3", quantity="q", area="elsewhere"))
    rules.refresh()
    assert step(rules, 2, {3: N}) == [("item1:item", "")]
    table.put(Point(id="p3", quantity="q", area="item1"))
    rules.refresh()
    assert step(rules, 3, {}) == [], "it is normal meanwhile"
    assert step(rules, 4, {4: B}) == [("item1:item", "yellow")]


def test_a_combination_added_to_a_running_site_counts_the_alarms_that_stand() -> None:
    table = site()
    before = RuleSet([PLAIN], KINDS, table)
    step(before, 1, dict.fromkeys(range(4), B))
    after = RuleSet([PLAIN, item()], KINDS, table)
    after.load(before.save())
    assert step(after, 2, {}) == [("item1:item", "yellow")]


def test_a_rule_edited_while_its_alarm_stands_is_judged_anew() -> None:
    table = site()
    before = RuleSet([PLAIN, item()], KINDS, table)
    assert step(before, 1, dict.fromkeys(range(4), B)) == [("item1:item", "yellow")]
    steps = [{**GB_39496[0], "count": 5}, *GB_39496[1:]]
    after = RuleSet([PLAIN, item(steps=steps)], KINDS, table)
    after.load(before.save())
    assert step(after, 2, {}) == [("item1:item", "")]
    assert step(after, 3, {4: B}) == [("item1:item", "yellow")]


def test_a_restart_says_nothing_again() -> None:
    table = site()
    before = RuleSet([PLAIN, item()], KINDS, table)
    step(before, 1, dict.fromkeys(range(4), B))
    after = RuleSet([PLAIN, item()], KINDS, table)
    after.load(before.save())
    assert step(after, 2, {}) == []
    assert step(after, 3, {0: N}) == [("item1:item", "")]


@pytest.mark.parametrize(
    ("wanted", "points", "word"),
    [
        (item(colours=["grey", "black"], steps=[{"of": "grey", "count": 2, "makes": "black"}]),
         POINTS, "none of 12 alarms has a colour that counts"),
        (item(), [Point(id="x", quantity="q")], "alarms without area cannot be combined"),
    ],
)  # fmt: skip
def test_what_cannot_add_up_is_told_to_the_operator(wanted, points, word) -> None:
    rules = RuleSet([PLAIN, wanted], KINDS, site(points))
    assert any(word in problem for problem in rules.problems), rules.problems


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ([PLAIN, item(rules=["nothing"])], "none is 'nothing'"),
        ([PLAIN, item(rules=["item"])], "item"),
        ([PLAIN, item(rule_id="x", rules=["y"]), item(rule_id="y", rules=["x"])], "x -> y -> x"),
    ],
)
def test_combinations_of_nothing_or_of_themselves_are_refused(rules, word) -> None:
    with pytest.raises(ConfigError, match=word):
        RuleSet(rules, KINDS, site())


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"rules": []}, "at least 1"),
        ({"steps": []}, "steps, or include_members"),
        ({"steps": [{"of": "pink", "count": 1, "makes": "red"}]}, "'pink' is none of blue"),
        ({"steps": [{"of": "red", "count": 1, "makes": "blue"}]}, "not more severe"),
        ({"steps": [{"of": "blue", "count": 1, "makes": "blue"}]}, "not more severe"),
        ({"steps": [{"of": "blue", "count": 0, "makes": "red"}]}, "greater than or equal to 1"),
        ({"steps": [*GB_39496, GB_39496[0]], "carry": True}, "counted once"),
        ({"colours": ["blue", "blue"]}, "each colour once"),
        ({"colours": [f"c{n}" for n in range(9)]}, "at most 8"),
        ({"priorities": {"pink": "low"}}, "'pink' is none"),
        ({"members": 2}, "Extra inputs"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, word) -> None:
    with pytest.raises(ValidationError, match=word):
        CombinationParameters.model_validate({"rules": ["p"], "steps": GB_39496, **parameters})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"rules": ["p", "q"]}, ""),
        ({"include_members": True}, ""),
        ({"priorities": {"red": "critical"}}, "priorities.red"),
        ({"steps": [{"of": "blue", "count": 3, "makes": "orange"}, *GB_39496[1:]]}, ""),
        (
            {"steps": [{"of": "blue", "count": 5, "makes": "yellow"}, *GB_39496[1:]]},
            "4 blue no longer",
        ),
        ({"steps": GB_39496[:2]}, "2 orange no longer make red"),
        ({"rules": ["q"]}, "left out"),
        ({"scheme": "mine"}, "fewer rules"),
        ({"carry": True}, "another way"),
        ({"colours": ["blue", "yellow", "orange", "red", "black"]}, "colours are others"),
    ],
)
def test_what_makes_a_combination_less_strict_is_found(change, word) -> None:
    given = {"rules": ["p"], "steps": GB_39496}
    old = CombinationParameters.model_validate(given)
    found = loosens(old, CombinationParameters.model_validate({**given, **change}))
    assert (word in " ".join(found)) if word else not found, found
