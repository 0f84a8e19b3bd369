"""Head-count: people are counted where they are, moves of one time together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference import ScalarInstance, ScalarLevel, scalar_count, story

from alarm_rules.kinds.count import KIND, CountParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, check_rule_kind, drive

NS = 1_000_000_000
PEOPLE = ["ann", "ben", "cy", "dee"]
POINTS = [Point(id=p, kind=PointKind.AREA, quantity="personnel_area") for p in PEOPLE]
DEVICES = [
    Device(id="mine1", kind="mine", attributes={"capacity": "3"}),
    Device(id="face", kind="area", name="3101 face", attributes={"capacity": "1"}),
    Device(id="lamp", kind="sensor"),
    Device(id="road", kind="area", attributes={"capacity": "2"}),
    Device(id="hall", kind="area", attributes={"capacity": ""}),
]
FACE, ROAD, HALL = 1.0, 3.0, 4.0
SELECT = {"value": Selector(quantity="personnel_area")}
AREAS = Rule("over", "count", SELECT, {}, off_delay_s=2.0)
MINE = Rule("mine", "count", SELECT, {"scope": "mine"}, on_delay_s=1.0)


def case_of(samples, rules=(AREAS, MINE), end_s=25.0) -> RuleCase:
    return RuleCase(rules, POINTS, samples, DEVICES, end_s=end_s)


def reference(case: RuleCase):
    def instance(key: str, on_s: int, off_s: int, limit: float) -> ScalarInstance:
        return ScalarInstance(key, [ScalarLevel("OVER", on_s * NS, off_s * NS, limit, limit)])

    instances = {
        1: instance("face:over", 0, 2, 1.0),
        3: instance("road:over", 0, 2, 2.0),
        -2: instance("mine1:mine", 1, 0, 3.0),
    }
    scalar_count(instances, {1: 1, 3: 2, -2: 3}, list(case.samples), case.end_ns)
    return story(list(instances.values()))


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from(PEOPLE),
        st.integers(0, 15).map(float),
        st.sampled_from([-1.0, FACE, FACE, ROAD, HALL, 99.0, math.nan]),
        st.sampled_from([0, 0, 0, int(Quality.BAD)]),
    ),
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=15)
@given(SAMPLES, st.integers(0, 2**32))
def test_any_history_told_any_way_gives_the_counts_of_the_scalar_reference(samples, seed) -> None:
    check_rule_kind(KIND, case_of(samples), reference=reference, seed=seed)


def changes(samples, **options) -> list[tuple[float, str, str, float | None]]:
    found = drive(case_of(samples, **options), {"count": KIND}).changes
    return [((c.time_ns - at_ns(0)) / NS, c.alarm_key, c.level, c.value) for c in found]


def test_as_many_as_approved_is_not_over_and_one_more_is() -> None:
    one = [Sample("ann", 1, FACE)]
    assert changes(one) == []
    assert changes([*one, Sample("ben", 2, FACE)]) == [(2, "face:over", "OVER", 2.0)]


def test_a_shift_that_changes_places_at_one_time_is_never_counted_twice() -> None:
    swap = [
        Sample("ann", 1, FACE),
        Sample("ben", 1, ROAD),
        Sample("ann", 2, ROAD),
        Sample("ben", 2, FACE),
    ]
    assert changes(swap) == []


def test_people_whose_values_turn_bad_stay_where_they_were() -> None:
    inside = [Sample("ann", 1, FACE), Sample("ben", 1, FACE)]
    lost = [Sample("ann", 2, -1.0, int(Quality.BAD)), Sample("ben", 3, math.nan)]
    assert changes([*inside, *lost]) == [(1, "face:over", "OVER", 2.0)]


def test_the_mine_counts_everybody_who_is_anywhere() -> None:
    rows = [Sample(p, 1, a) for p, a in zip(PEOPLE, [FACE, ROAD, HALL, 99.0], strict=True)]
    assert (2, "mine1:mine", "OVER", 4.0) in changes(rows)
    assert changes([*rows[:3], Sample("dee", 1, -1.0)]) == []


def test_a_factor_moves_the_limit_and_a_parameter_replaces_the_attribute() -> None:
    everybody = [Sample(p, 1, FACE) for p in PEOPLE]
    half = Rule("r", "count", SELECT, {"capacity": 2, "factor": 1.5, "areas": ["face"]})
    assert changes(everybody, rules=[half]) == [(1, "face:r", "OVER", 4.0)]
    assert changes(everybody[:3], rules=[half]) == []


def site() -> PointTable:
    table = PointTable()
    for device in DEVICES:
        table.put_device(device)
    for point in POINTS:
        table.put(point)
    return table


def test_an_area_without_a_capacity_is_reported_and_not_judged() -> None:
    rules = RuleSet([AREAS], {"count": KIND}, site())
    assert [i.alarm_key for i in rules.instances] == ["face:over", "road:over"]
    assert rules.problems == ["over: site: no capacity known for hall, 1 in all"]


def enter(rules: RuleSet, second: int, *people: int):
    batch = Batch.of(people, [HALL] * len(people), at_ns(second), received_time_ns=at_ns(second))
    return rules.evaluate(batch, at_ns(second)).conditions


def test_an_area_that_becomes_known_is_judged_with_the_people_already_in_it() -> None:
    table = site()
    rules = RuleSet([AREAS], {"count": KIND}, table)
    assert len(enter(rules, 1, 0, 1, 2)) == 0
    table.put_device(Device(id="hall", kind="area", attributes={"capacity": "2"}))
    rules.refresh()
    found = rules.evaluate(Batch.empty(), at_ns(2)).conditions
    assert (found.level.tolist(), found.value.tolist()) == ([1], [3.0])
    assert rules.instances[found.instance[0]].alarm_key == "hall:over"


def test_a_raised_capacity_ends_the_alarm_without_a_new_sample() -> None:
    table = site()
    table.put_device(Device(id="hall", kind="area", attributes={"capacity": "2"}))
    rules = RuleSet([AREAS], {"count": KIND}, table)
    assert enter(rules, 1, 0, 1, 2).level.tolist() == [1]
    table.put_device(Device(id="hall", kind="area", attributes={"capacity": "3"}))
    rules.refresh()
    assert rules.evaluate(Batch.empty(), at_ns(5)).conditions.level.tolist() == []
    found = rules.evaluate(Batch.empty(), at_ns(9)).conditions
    assert (found.level.tolist(), found.time_ns.tolist()) == ([0], [at_ns(7)])  # off-delay 2 s


def test_several_mines_under_one_rule_are_refused_as_ambiguous() -> None:
    table = site()
    table.put_device(Device(id="mine2", kind="mine", attributes={"capacity": "9"}))
    rules = RuleSet([MINE], {"count": KIND}, table)
    assert not rules.instances
    assert "several mines" in rules.problems[0]


@pytest.mark.parametrize(
    "parameters", [{"capacity": -1}, {"factor": 0}, {"scope": "x"}, {"size": 1}]
)
def test_parameters_that_make_no_sense_are_refused(parameters) -> None:
    with pytest.raises(ValidationError):
        CountParameters.model_validate(parameters)
