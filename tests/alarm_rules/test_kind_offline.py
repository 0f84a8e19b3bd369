"""Offline: silence is found out by clock or sample at the same nanosecond, for every scope."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference import ScalarInstance, ScalarLevel, scalar_offline, story

from alarm_rules.kinds import limit
from alarm_rules.kinds.offline import KIND, OfflineParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, check_rule_kind, drive

NS = 1_000_000_000
BAD = int(Quality.BAD_COMMUNICATION)
POINTS = [
    Point(id="a", quantity="q", device="d1", adapter="x", interval_s=1.0),
    Point(id="b", quantity="q", device="d1", adapter="x", interval_s=2.0),
    Point(id="c", quantity="q", device="d2", adapter="x", interval_s=4.0),
]
GROUPS = {
    "point": {"a": "a", "b": "b", "c": "c"},
    "device": {"a": "d1", "b": "d1", "c": "d2"},
    "adapter": {"a": "x", "b": "x", "c": "x"},
}


def rule(**parameters) -> Rule:
    delays = {k: parameters.pop(k) for k in ("on_delay_s", "off_delay_s") if k in parameters}
    return Rule("off", "offline", {"value": Selector(quantity="q")}, parameters, **delays)


def case_of(samples, *, end_s=25.0, **parameters) -> RuleCase:
    return RuleCase([rule(**parameters)], POINTS, samples, end_s=end_s)


def reference_for(scope: str, needs: str, on_s: float, off_s: float, age_s: int):
    def reference(case: RuleCase):
        instances = []
        for key in sorted(set(GROUPS[scope].values())):
            own = [s for s in case.samples if GROUPS[scope][s.point] == key]
            level = ScalarLevel("OFFLINE", round(on_s * NS), round(off_s * NS), age_s, age_s)
            instance = ScalarInstance(f"{key}:off", [level])
            scalar_offline(instance, own, age_ns=age_s * NS, needs=needs, end_ns=case.end_ns)
            instances.append(instance)
        return story(instances)

    return reference


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 20).map(float),
        st.sampled_from([1.0, 1.0, math.nan]),
        st.sampled_from([0, 0, int(Quality.UNCERTAIN), BAD]),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    SAMPLES,
    st.sampled_from([(s, n) for s in ("point", "device", "adapter") for n in ("good", "any")]),
    st.sampled_from([(0.0, 0.0), (2.0, 0.0), (0.0, 3.0)]),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_any_history_told_any_way_gives_the_silences_of_the_scalar_reference(
    samples, kind, delays, age_s, seed
) -> None:
    scope, needs = kind
    on_s, off_s = delays
    case = case_of(
        samples, scope=scope, needs=needs, max_age_s=age_s, on_delay_s=on_s, off_delay_s=off_s
    )
    if off_s and age_s <= off_s:
        return  # silence begins again before it could end: the next test says what happens
    reference = reference_for(scope, needs, on_s, off_s, age_s)
    check_rule_kind(KIND, case, reference=reference, seed=seed)


def changes(samples, **parameters) -> list[tuple[float, str, str]]:
    found = drive(case_of(samples, **parameters), {"offline": KIND}).changes
    return [((c.time_ns - at_ns(0)) / NS, c.alarm_key, c.level) for c in found]


def test_a_silence_in_the_middle_begins_at_the_last_sample_plus_the_age_and_ends_with_the_next() -> (
    None
):
    samples = [Sample("a", 2, 1.0), Sample("a", 9, 1.0), Sample("b", 1, 1.0)]
    told = changes(samples, scope="device", max_age_s=5, end_s=12)
    assert told == [(5, "d2:off", "OFFLINE"), (7, "d1:off", "OFFLINE"), (9, "d1:off", "")]


def test_what_was_never_heard_counts_from_the_first_call() -> None:
    assert changes([], max_age_s=5, end_s=5) == [(5, f"{p}:off", "OFFLINE") for p in "abc"]
    assert changes([], max_age_s=5, end_s=4.999) == []


def test_a_bad_sample_is_heard_only_where_any_sample_will_do() -> None:
    samples = [Sample("a", t, 1.0, BAD) for t in range(1, 20)]
    ends = {"max_age_s": 5, "end_s": 19}
    assert (5, "a:off", "OFFLINE") in changes(samples, needs="good", **ends)
    assert not [c for c in changes(samples, needs="any", **ends) if c[1] == "a:off"]


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [
        ({"max_age_s": 7.5}, 7.5),
        ({"interval_factor": 3}, 3.0),
        ({"interval_factor": 3, "floor_s": 10}, 10.0),
        ({"interval_factor": 3, "scope": "device"}, 3.0),
    ],
)
def test_the_allowed_age_is_a_span_or_a_multiple_of_the_fastest_interval(
    parameters, seconds
) -> None:
    table = PointTable()
    for point in POINTS[:2]:
        table.put(point)
    (first, *_) = RuleSet([rule(**parameters)], {"offline": KIND}, table).instances
    assert first.levels[0].limit == seconds


def test_a_point_without_interval_and_without_age_is_reported_and_not_judged() -> None:
    table = PointTable()
    table.put(Point(id="a", quantity="q"))
    rules = RuleSet([rule(interval_factor=3)], {"offline": KIND}, table)
    assert not rules.instances
    assert "states its interval" in rules.problems[0]


def test_an_offline_alarm_inherits_the_priority_of_what_its_silence_hides() -> None:
    table = PointTable()
    table.put_device(Device(id="d1", kind="substation", name="Substation 1"))
    for point in POINTS[:2]:
        table.put(point)
    high = Rule(
        "gas", "limit", {"value": Selector(ids=("b",))}, {"levels": {"H": 1.0}},
        priority=Priority.CRITICAL,
    )  # fmt: skip
    kinds = {"offline": KIND, "limit": limit.KIND}
    low = Priority.LOW
    rules = [rule(max_age_s=5, scope="device"), high]
    (off,) = [i for i in RuleSet(rules, kinds, table).instances if i.rule.id == "off"]
    assert (off.levels[0].priority, off.display_name) == (Priority.CRITICAL, "Substation 1")
    own = rule(max_age_s=5, scope="device", priority_of_hidden="own")
    (off,) = [i for i in RuleSet([own, high], kinds, table).instances if i.rule.id == "off"]
    assert off.levels[0].priority == Priority.MEDIUM != low


def test_a_device_with_a_slow_clock_stays_offline_instead_of_coming_and_going() -> None:
    table = PointTable()
    table.put(POINTS[0])
    rules = RuleSet([rule(max_age_s=300)], {"offline": KIND}, table)
    found = []
    for second in range(0, 100, 5):
        batch = Batch.of([0], [1.0], at_ns(second - 600), received_time_ns=at_ns(second))
        found += rules.evaluate(batch, at_ns(second)).conditions.level.tolist()
        found += rules.evaluate(Batch.empty(), at_ns(second + 1)).conditions.level.tolist()
    assert found == [1]


@pytest.mark.parametrize(
    "parameters", [{}, {"max_age_s": 0}, {"interval_factor": 0}, {"scope": "x", "max_age_s": 1}]
)
def test_parameters_that_say_no_span_are_refused(parameters) -> None:
    with pytest.raises(ValidationError):
        OfflineParameters.model_validate(parameters)
