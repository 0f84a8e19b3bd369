"""Calculated points: inputs applied together, worst quality, judged in the same breath."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ScalarInstance, ScalarLevel, scalar_calculation, scalar_limit, story

from alarm_rules.kinds import limit
from alarm_rules.kinds.calculation import KIND
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, check_rule_kind, drive

NS = 1_000_000_000
KINDS = {"calculation": KIND, "limit": limit.KIND}
INPUTS = {"top": Selector(quantity="beach_top"), "pool": Selector(quantity="pool_level")}
FORMULA = {
    "expression": "top - pool",
    "id": "{group}.freeboard",
    "quantity": "freeboard",
    "unit": "m",
}


def rule(group_by=GroupBy.AREA, inputs=None, **parameters) -> Rule:
    return Rule("fb", "calculation", inputs or INPUTS, {**FORMULA, **parameters}, group_by=group_by)


LOW = Rule("low", "limit", {"value": Selector(quantity="freeboard")}, {"levels": {"L": 1.0}})
RATIO = rule(expression="top / pool", max_input_age_s=4)
POINTS = [
    Point(id=f"{dam}.{name}", quantity=quantity, area=dam)
    for dam in ("north", "south")
    for name, quantity in (("top", "beach_top"), ("pool", "pool_level"))
]
SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from([point.id for point in POINTS]),
        st.integers(0, 15).map(float),
        st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan]),
        st.sampled_from([0, 0, 0, int(Quality.UNCERTAIN_CLOCK), int(Quality.BAD_STALE)]),
    ),
    max_size=25,
)


def reference(case: RuleCase):
    derived, instances = [], []
    for dam in ("north", "south"):
        found = scalar_calculation(
            f"{dam}.freeboard",
            {"top": f"{dam}.top", "pool": f"{dam}.pool"},
            lambda v: v["top"] / v["pool"],
            list(case.samples),
            4 * NS,
        )
        derived += found
        instance = ScalarInstance(f"{dam}.freeboard:low", [ScalarLevel("L", 0, 0, 1.0, 1.0)])
        samples = [
            Sample(
                s.point,
                (s.time_ns - at_ns(0)) / NS,
                math.nan if s.value is None else s.value,
                s.quality,
            )
            for s in found
        ]
        tests = [(lambda v: v <= 1, lambda v: v > 1)]
        scalar_limit(instance, tests, samples, case.end_ns)
        instances.append(instance)
    return story(instances, derived)


@pytest.mark.slow
@settings(max_examples=15)
@given(SAMPLES, st.integers(0, 2**32))
def test_any_history_told_any_way_gives_the_samples_of_the_scalar_reference(samples, seed) -> None:
    case = RuleCase([RATIO, LOW], POINTS, samples, kinds=KINDS, end_s=20)
    check_rule_kind(KIND, case, reference=reference, seed=seed)


def told(samples, rules) -> list[tuple[float, float | None, int]]:
    case = RuleCase(rules, POINTS[:2], samples, kinds=KINDS)
    return [((s.time_ns - at_ns(0)) / NS, s.value, s.quality) for s in drive(case, KINDS).derived]


def test_inputs_of_one_time_are_applied_together_and_otherwise_the_last_value_holds() -> None:
    rows = [
        Sample("north.top", 1, 12.0),
        Sample("north.pool", 1, 11.0),
        Sample("north.pool", 2, 11.5),
    ]
    assert told(rows, [rule()]) == [(1, 1.0, 0), (2, 0.5, 0)]


@pytest.mark.parametrize(
    ("quality", "expected", "value"),
    [
        (Quality.GOOD_LOCAL_OVERRIDE, Quality.GOOD, 1.0),
        (Quality.UNCERTAIN_CLOCK, Quality.UNCERTAIN_DERIVED, 1.0),
        (Quality.UNCERTAIN_CALIBRATING, Quality.UNCERTAIN_DERIVED, 1.0),
        (Quality.BAD_OVER_RANGE, Quality.BAD_DERIVED, None),
    ],
)
def test_a_result_is_as_good_as_its_worst_input(quality, expected, value) -> None:
    rows = [Sample("north.top", 1, 12.0), Sample("north.pool", 1, 11.0, int(quality))]
    assert told(rows, [rule()]) == [(1, value, int(expected))]


def test_an_input_older_than_allowed_makes_the_result_bad_and_one_just_as_old_does_not() -> None:
    rows = [
        Sample("north.top", 1, 12.0),
        Sample("north.pool", 6, 11.0),
        Sample("north.pool", 6.5, 11.0),
    ]
    found = told(rows, [rule(max_input_age_s=5)])
    assert [quality for _, _, quality in found] == [Quality.BAD_DERIVED, 0, Quality.BAD_DERIVED]


def test_arithmetic_without_an_answer_is_bad_quality_not_a_number_and_not_an_exception() -> None:
    rows = [Sample("north.top", 1, 12.0), Sample("north.pool", 1, 0.0)]
    assert told(rows, [rule(expression="top / pool")]) == [(1, None, int(Quality.BAD_DERIVED))]


def table_with(*points: Point, devices=()) -> PointTable:
    table = PointTable()
    for device in devices:
        table.put_device(device)
    for point in points:
        table.put(point)
    return table


def declare(rules: RuleSet, table: PointTable) -> None:
    while points := rules.derived_points():
        for point in points:
            table.put(point)
        rules.refresh()


def test_the_derived_point_carries_what_its_inputs_have_in_common() -> None:
    dam = Device(id="dam", kind="dam", attributes={"pond_grade": "3"})
    points = [
        Point(id="t", quantity="beach_top", device="dam", area="n", location="crest"),
        Point(id="p", quantity="pool_level", device="dam", area="n", attributes={"x": "1"}),
    ]
    table = table_with(*points, devices=[dam])
    (point,) = RuleSet([rule(GroupBy.DEVICE)], KINDS, table).derived_points()
    assert (point.id, point.device, point.area, point.location) == ("dam.freeboard", "dam", "n", "")
    assert (point.attributes, point.unit) == ({"pond_grade": "3"}, "m")


def test_derived_samples_coming_back_through_the_spool_are_counted_and_ignored() -> None:
    table = table_with(*POINTS[:2])
    rules = RuleSet([rule(), LOW], KINDS, table)
    declare(rules, table)
    first = rules.evaluate(
        Batch.of([0, 1], [12.0, 11.5], at_ns(1), received_time_ns=at_ns(1)), at_ns(1)
    )
    assert (len(first.derived), first.conditions.level.tolist()) == (1, [1])
    again = rules.evaluate(first.derived, at_ns(2))
    assert (again.derived_seen_count, again.judged_count, len(again.conditions)) == (1, 0, 0)


def test_a_calculation_over_a_calculation_is_judged_after_it_in_the_same_call() -> None:
    twice = Rule(
        "twice", "calculation", {"value": Selector(quantity="freeboard")},
        {"expression": "2 * value", "id": "{group}.twice", "quantity": "double"},
        group_by=GroupBy.AREA,
    )  # fmt: skip
    low = Rule("low2", "limit", {"value": Selector(quantity="double")}, {"levels": {"L": 1.0}})
    table = table_with(*POINTS[:2])
    rules = RuleSet([low, twice, rule()], KINDS, table)
    declare(rules, table)
    found = rules.evaluate(
        Batch.of([0, 1], [12.0, 11.5], at_ns(1), received_time_ns=at_ns(1)), at_ns(1)
    )
    assert found.derived.value.tolist() == [0.5, 1.0]
    assert [rules.instances[i].alarm_key for i in found.conditions.instance] == ["north.twice:low2"]


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ([rule(expression="top - poo")], "the same"),
        ([rule(expression="top -")], "expected"),
        ([rule(id="freeboard")], "must contain"),
        (
            [rule(expression="top - min", inputs={"top": INPUTS["top"], "min": INPUTS["pool"]})],
            "behind the function min",
        ),
        (
            [rule(inputs={**INPUTS, "where": Selector(quantity="x")})],
            "names the formula language does not use",
        ),
        ([rule(bad_share_max=1.0)], "less than 1"),
        ([rule(id="a b {group}")], "no blanks"),
        ([rule(GroupBy.POINT)], "several inputs"),
        (
            [rule(inputs={"top": Selector(quantity="freeboard"), "pool": INPUTS["pool"]})],
            "fb -> fb",
        ),
    ],
)
def test_a_calculation_that_cannot_work_is_refused_before_anything_runs(rules, word) -> None:
    with pytest.raises(ConfigError, match=word):
        RuleSet(rules, KINDS, PointTable())


def test_two_calculations_that_need_each_other_are_refused_by_name() -> None:
    def step(name: str, needs: str) -> Rule:
        return Rule(
            name, "calculation", {"v": Selector(quantity=needs)},
            {"expression": "v", "id": f"{{group}}.{name}", "quantity": name}, group_by=GroupBy.AREA,
        )  # fmt: skip

    with pytest.raises(ConfigError, match="one -> two -> one"):
        RuleSet([step("one", "two"), step("two", "one")], KINDS, PointTable())


@pytest.mark.parametrize(
    ("points", "word"),
    [
        (POINTS[:1], "input pool needs one point, found none"),
        (
            [*POINTS[:2], Point(id="pool2", quantity="pool_level", area="north")],
            "found north.pool, pool2",
        ),
        ([Point(id="t", quantity="beach_top")], "points without area"),
        (
            [*POINTS[:2], Point(id="north.freeboard", adapter="x")],
            "a measured point of x already",
        ),
    ],
)
def test_a_group_that_cannot_be_computed_is_reported_and_the_rest_goes_on(points, word) -> None:
    rules = RuleSet([rule()], KINDS, table_with(*points, *POINTS[2:]))
    assert word in rules.problems[0]
    assert "south.freeboard" in {point.id for point in rules.derived_points()}


def test_a_rounded_result_is_what_the_gauges_say_to_the_last_digit() -> None:
    rows = [Sample("north.top", 1, 131.0), Sample("north.pool", 1, 130.3)]
    assert told(rows, [rule()])[0][1] < 0.7
    assert told(rows, [rule(decimals=3)]) == [(1, 0.7, 0)]
