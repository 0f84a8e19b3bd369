"""Votes of sensors: who counts, what a missing one changes, and who is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from alarm_rules.kinds.n_of_m import KIND, NOfMParameters, loosens
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, RuleCase, Sample, at_ns, drive

KINDS = {"n_of_m": KIND}
FAULT, CALIBRATING = int(Quality.BAD_SENSOR_FAULT), int(Quality.UNCERTAIN_CALIBRATING)
DERIVED = int(Quality.UNCERTAIN_DERIVED)
TWO = {"n": 2, "limit": 20.0, "reset": 15.0, "missing_alarm": False}
POINTS = [Point(id=name, quantity="gas", area="tank", device="d1") for name in ("a", "b", "c")]


def rule(group_by=GroupBy.AREA, on_delay_s=0.0, **parameters) -> Rule:
    return Rule(
        "vote",
        "n_of_m",
        {"value": Selector(quantity="gas")},
        {**TWO, **parameters},
        on_delay_s=on_delay_s,
        group_by=group_by,
    )


def told(
    samples, wanted=None, points=POINTS, end_s=0.0
) -> list[tuple[float, str, float | None, int]]:
    found = drive(RuleCase([wanted or rule()], points, samples, end_s=end_s), KINDS).changes
    return [((c.time_ns - at_ns(0)) / NS_PER_S, c.level, c.value, c.quality) for c in found]


def all_at(time_s: float, *values: float) -> list[Sample]:
    return [Sample(name, time_s, value) for name, value in zip("abc", values, strict=True)]


NORMAL = all_at(0, 1.0, 1.0, 1.0)


def test_two_of_three_beyond_the_limit_trip_and_one_alone_does_not() -> None:
    assert told([*NORMAL, Sample("a", 1, 99.0), Sample("a", 2, 99.0)]) == []
    assert told([*NORMAL, Sample("a", 1, 20.0), Sample("b", 2, 20.0)]) == [(2, "VOTE", 2.0, 0)]


def test_a_value_just_below_the_limit_is_no_vote() -> None:
    assert told([*NORMAL, *all_at(1, 20.0, math.nextafter(20.0, 0), 1.0)]) == []


def test_a_vote_stands_between_limit_and_reset_and_ends_below_the_reset() -> None:
    rows = [*all_at(1, 20.0, 20.0, 1.0), *all_at(2, 15.0, 15.0, 1.0)]
    assert told(rows) == [(1, "VOTE", 2.0, 0)]
    assert told([*rows, Sample("a", 3, 14.9)]) == [(1, "VOTE", 2.0, 0), (3, "", 1.0, 0)]


def test_samples_of_one_time_are_counted_together() -> None:
    rows = [*all_at(1, 20.0, 20.0, 1.0), *all_at(2, 1.0, 20.0, 20.0)]
    assert told(rows) == [(1, "VOTE", 2.0, 0)]


def test_a_vote_that_ends_and_begins_by_the_clock_at_one_moment_never_ended() -> None:
    """c keeps the vote from two of three; when it is too old, one of two is enough."""
    wanted = replace(rule(degrade="proportional", max_input_age_s=2.0, reset=20.0), off_delay_s=1.0)
    too_old_s = 2.0 + 1e-9
    rows = [
        *all_at(0, 99.0, 99.0, 1.0),
        Sample("a", too_old_s - 1, 1.0),
        Sample("b", too_old_s - 1, 99.0),
    ]
    alone = [*rows, Sample("c", 1, 1.0)]  # heard of again in time: the delay ends by itself
    assert [change[:2] for change in told(rows, wanted)] == [(0, "VOTE")]
    assert [change[:2] for change in told(alone, wanted, end_s=2.5)] == [
        (0, "VOTE"),
        (too_old_s, ""),
    ]


@pytest.mark.parametrize("quality", [FAULT, CALIBRATING, int(Quality.UNCERTAIN)])
def test_only_good_samples_vote(quality) -> None:
    assert told([*NORMAL, Sample("a", 1, 99.0), Sample("b", 1, 99.0, quality)]) == []


@pytest.mark.parametrize(
    ("gone", "quality"), [(99.0, FAULT), (1.0, FAULT), (math.nan, 0), (1.0, CALIBRATING)]
)
def test_a_sensor_that_fails_after_its_vote_holds_the_alarm_and_does_not_clear_it(
    gone, quality
) -> None:
    rows = [*all_at(1, 20.0, 20.0, 1.0), Sample("b", 2, gone, quality), Sample("c", 3, 1.0)]
    assert told(rows) == [(1, "VOTE", 2.0, 0)]
    assert told([*rows, Sample("a", 4, 1.0)])[1:] == [(4, "", 0.0, DERIVED)]


@pytest.mark.parametrize(
    ("degrade", "expected"),
    [("strict", []), ("proportional", [(2, "VOTE", 1.0, DERIVED)])],
)
def test_with_one_of_three_missing_strict_needs_two_and_proportional_one(degrade, expected) -> None:
    rows = [*NORMAL, Sample("c", 1, 1.0, FAULT), Sample("a", 2, 20.0)]
    assert told(rows, rule(degrade=degrade)) == expected


@pytest.mark.parametrize(
    ("n", "m", "there", "trips"),
    [
        (2, 3, 3, 2), (2, 3, 2, 1), (2, 3, 1, 1),
        (3, 4, 3, 2), (3, 4, 2, 1), (2, 4, 3, 1),
    ],
)  # fmt: skip
def test_proportion_is_rounded_down_and_never_to_nothing(n, m, there, trips) -> None:
    names = [f"s{number}" for number in range(m)]
    points = [Point(id=name, quantity="gas", area="x") for name in names]
    rows = [Sample(name, 0, 1.0, 0 if k < there else FAULT) for k, name in enumerate(names)]
    rows += [Sample(name, k + 1.0, 30.0) for k, name in enumerate(names[:there])]
    found = told(rows, rule(n=n, degrade="proportional"), points)
    assert found == [(float(trips), "VOTE", float(trips), 0 if there == m else DERIVED)]


def test_the_last_sensor_gone_leaves_everything_as_it_was() -> None:
    rows = [*all_at(1, 20.0, 20.0, 1.0), *(Sample(name, 2, 1.0, FAULT) for name in "abc")]
    assert told(rows, rule(degrade="proportional"), end_s=99) == [(1, "VOTE", 2.0, 0)]


def test_a_sensor_becomes_missing_just_beyond_its_age_and_the_vote_moves_without_a_sample() -> None:
    wanted = rule(degrade="proportional", max_input_age_s=5)
    rows = [*all_at(0, 1.0, 1.0, 1.0), Sample("a", 4, 20.0), Sample("b", 4, 1.0)]
    assert told(rows, wanted, end_s=5.0) == []
    assert told(rows, wanted, end_s=9.0) == [(5.000000001, "VOTE", 1.0, DERIVED)]
    assert told([*rows, Sample("c", 5, 1.0)], wanted, end_s=9.0) == []


def test_missing_sensors_are_an_alarm_of_their_own_with_how_many_are_left() -> None:
    wanted = rule(missing_alarm=True, missing_delay_s=10)
    rows = [*NORMAL, Sample("c", 1, 1.0, FAULT), Sample("c", 30, 1.0)]
    case = RuleCase([wanted], POINTS, rows, end_s=60)
    found = [
        (c.time_ns - at_ns(0), c.alarm_key, c.level, c.value, c.limit)
        for c in drive(case, KINDS).changes
    ]
    assert found == [
        (11 * NS_PER_S, "tank.missing:vote", "MISSING", 2.0, 3.0),
        (30 * NS_PER_S, "tank.missing:vote", "", 3.0, 3.0),
    ]


def test_a_vote_counts_by_the_delay_of_its_rule() -> None:
    rows = [*NORMAL, *all_at(1, 20.0, 20.0, 1.0), *all_at(4, 1.0, 1.0, 1.0)]
    assert told(rows, rule(on_delay_s=5)) == []
    assert told(rows, rule(on_delay_s=3)) == [(4, "VOTE", 2.0, 0), (4, "", 0.0, 0)]


def test_low_sides_vote_when_they_fall() -> None:
    wanted = rule(operator="<", limit=5.0, reset=6.0)
    rows = [*all_at(1, 5.0, 5.0, 9.0), *all_at(2, 4.9, 4.9, 9.0), *all_at(3, 5.9, 6.0, 9.0)]
    assert told(rows, wanted) == [(2, "VOTE", 2.0, 0), (3, "", 1.0, 0)]


def site(*points: Point) -> PointTable:
    table = PointTable()
    table.put_device(Device(id="d1", kind="tank", name="Tank 1"))
    for point in points:
        table.put(point)
    return table


def test_an_alarm_is_about_the_group() -> None:
    rules = RuleSet([rule(GroupBy.DEVICE, missing_alarm=True)], KINDS, site(*POINTS))
    vote, missing = rules.instances
    assert (vote.alarm_key, vote.device, vote.display_name) == ("d1:vote", "d1", "Tank 1")
    assert (missing.alarm_key, missing.levels[0].limit) == ("d1.missing:vote", 3.0)
    assert vote.levels[0].limit == 2.0


@pytest.mark.parametrize(
    ("wanted", "points", "word"),
    [
        (rule(m=4), POINTS, "tank: 3 of 4 sensors found"),
        (rule(), POINTS[:1], "tank: 1 of 2 sensors found"),
        (rule(m=2), POINTS, "3 sensors found, not 2: all of them vote"),
        (rule(), [Point(id="a", quantity="gas")], "points without area cannot vote"),
    ],
)
def test_sensors_that_are_not_there_are_a_problem_told_to_the_operator(
    wanted, points, word
) -> None:
    assert word in RuleSet([wanted], KINDS, site(*points)).problems[0]


def test_a_sensor_expected_and_never_found_counts_as_missing() -> None:
    wanted = rule(m=4, missing_alarm=True, missing_delay_s=0)
    case = RuleCase([wanted], POINTS, NORMAL)
    found = [(c.level, c.value, c.limit) for c in drive(case, KINDS).changes]
    assert found == [("MISSING", 3.0, 4.0)]


def test_a_sensor_that_is_taken_away_takes_its_vote_along() -> None:
    table = site(*POINTS)
    rules = RuleSet([rule(n=3)], KINDS, table)
    at = at_ns(1)
    batch = Batch.of([0, 1, 2], [20.0, 20.0, 1.0], at, received_time_ns=at)
    assert len(rules.evaluate(batch, at).conditions) == 0
    table.put(Point(id="c", quantity="other"))
    rules.refresh()
    assert len(rules.evaluate(Batch.empty(), at_ns(2)).conditions) == 0, "three are needed still"
    batch = Batch.of([0], [1.0], at_ns(3), received_time_ns=at_ns(3))
    rules.evaluate(batch, at_ns(3))
    table.put(Point(id="c", quantity="gas", area="tank"))
    rules.refresh()
    batch = Batch.of([0, 2], [20.0, 20.0], at_ns(4), received_time_ns=at_ns(4))
    assert rules.evaluate(batch, at_ns(4)).conditions.value.tolist() == [3.0]


def test_a_vote_that_no_longer_stands_after_a_change_of_sensors_ends_at_the_next_tick() -> None:
    table = site(*POINTS)
    rules = RuleSet([rule()], KINDS, table)
    batch = Batch.of([0, 1, 2], [20.0, 1.0, 20.0], at_ns(1), received_time_ns=at_ns(1))
    assert rules.evaluate(batch, at_ns(1)).conditions.level.tolist() == [1]
    table.put(Point(id="c", quantity="other"))
    rules.refresh()
    found = rules.evaluate(Batch.empty(), at_ns(2)).conditions
    assert (found.level.tolist(), found.time_ns.tolist()) == ([0], [at_ns(2)])


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 0},
        {"m": 1},
        {"reset": 21.0},
        {"operator": "<", "reset": 19.0},
        {"degrade": "maybe"},
        {"limit": math.nan},
        {"votes": 2},
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters) -> None:
    with pytest.raises(ValidationError):
        NOfMParameters.model_validate({**TWO, **parameters})


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (rule(GroupBy.POINT), "sensors vote by device"),
        (rule(n=1, degrade="proportional"), "one vote is enough"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wanted, word) -> None:
    with pytest.raises(ConfigError, match=word):
        RuleSet([wanted], KINDS, site(*POINTS))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"n": 1}, ""),
        ({"limit": 19.0}, ""),
        ({"reset": 10.0}, ""),
        ({"degrade": "proportional"}, ""),
        ({"missing_alarm": True}, ""),
        ({"n": 3}, "n is less strict"),
        ({"limit": 21.0}, "limit is less strict"),
        ({"operator": ">"}, "limit is less strict"),
        ({"reset": 16.0}, "reset is less strict"),
        ({"operator": "<", "reset": 20.0}, "looks the other way"),
        ({"max_input_age_s": 5}, "max_input_age_s"),
    ],
)
def test_what_makes_a_vote_less_strict_is_found(change, word) -> None:
    old = NOfMParameters.model_validate(TWO)
    found = loosens(old, NOfMParameters.model_validate({**TWO, **change}))
    assert (word in " ".join(found)) if word else not found, found


def test_taking_the_alarm_for_missing_sensors_back_is_less_strict() -> None:
    old = NOfMParameters.model_validate({**TWO, "missing_alarm": True})
    for change, word in (
        ({"missing_alarm": False}, "gone"),
        ({"missing_priority": "low", "missing_delay_s": 61}, "missing_delay_s"),
    ):
        new = NOfMParameters.model_validate({**TWO, "missing_alarm": True, **change})
        assert word in " ".join(loosens(old, new))
