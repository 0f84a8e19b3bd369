"""Rules exchanged in place: when it is done, when it is refused, and what it costs. That it judges
as a new set would is a law (test_laws.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alarm_rules.exchange import _GONE_MAX
from alarm_rules.kinds import calculation, combination, deviation, limit, offline
from alarm_rules.kinds import rate as rate_kind
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Point, PointTable
from gateway.model.rule import GroupBy, Priority, Rule, Selector
from gateway.testing.effort import calls_of

KINDS = {
    kind.name: kind
    for kind in (m.KIND for m in (calculation, combination, deviation, limit, offline))
}
NS = 1_000_000_000
START = 1_790_000_000 * NS
GAS = {"value": Selector(quantity="gas")}


def limited(rule_id: str, *names: str, at: float = 1.0, selector=GAS, **more) -> Rule:
    levels = {name: at * len(name) for name in names or ("H", "HH")}
    return Rule(rule_id, "limit", selector, {"levels": levels}, **more)


HIGH = limited("high")
SILENT = Rule("silent", "offline", GAS, {"max_age_s": 60.0})
TWICE = Rule(
    "twice", "calculation", {"a": Selector(quantity="gas")},
    {"expression": "a * 2", "id": "{group}.twice", "quantity": "twice"},
)  # fmt: skip
BOTH = Rule(
    "both", "combination", {"value": Selector()},
    {"rules": ["high"], "steps": [{"of": "blue", "count": 2, "makes": "red"}],
     "colours": ["blue", "red"]},
    group_by=GroupBy.SITE,
)  # fmt: skip


def table(count: int = 3) -> PointTable:
    points = PointTable()
    for number in range(count):
        points.put(Point(id=f"p{number}", quantity="gas", area=f"a{number % 2}", interval_s=1.0))
    return points


def keys(rules: RuleSet) -> list[str]:
    """Of the instances that are judged."""
    return sorted(rules.instances[n].alarm_key for n in np.flatnonzero(rules.live))


def tell(rules: RuleSet, second: int, *values: float) -> list[tuple[str, str]]:
    at = [START + second * NS] * len(values)
    found = rules.evaluate(Batch.of(range(len(values)), values, at, received_time_ns=at), at[0])
    rows = found.conditions
    told = [rules.instances[n] for n in rows.instance.tolist()]
    return [
        (one.alarm_key, one.levels[level - 1].name if level else "")
        for one, level in zip(told, rows.level.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("before", "after", "in_place"),
    [
        ([HIGH], [limited("high", at=2.0)], True),
        ([HIGH], [HIGH, limited("more")], True),
        ([HIGH, limited("more")], [HIGH], True),
        ([HIGH], [limited("high", "H")], True),
        ([HIGH], [limited("high", selector={"value": Selector(ids=("p1",))})], True),
        ([HIGH, SILENT], [SILENT, limited("high", at=2.0)], True),
        ([HIGH, TWICE], [TWICE, limited("high", at=2.0)], True),
        ([HIGH, BOTH], [BOTH, limited("high", at=2.0)], True),
        ([HIGH], [limited("high", "H", "HH", "HHH")], False),
        ([HIGH], [replace(SILENT, id="high")], False),
        ([HIGH], [HIGH, SILENT], False),
        ([HIGH, TWICE], [HIGH], False),
        ([HIGH, BOTH], [HIGH, replace(BOTH, on_delay_s=1.0)], False),
    ],
    ids=[
        "a limit", "a new rule", "one is gone", "fewer levels", "other points", "beside offline",
        "beside a calculation", "listened to", "more levels than there is room for",
        "another kind", "the first of its kind", "a calculation", "a judge of rules",
    ],
)  # fmt: skip
def test_it_is_done_in_place_where_nothing_grows_but_rows(before, after, in_place) -> None:
    points = table()
    rules = RuleSet(before, KINDS, points)
    while derived := rules.derived_points():
        for point in derived:
            points.put(point)
        rules.refresh()
    was = keys(rules)
    assert rules.exchange(after) is in_place
    assert keys(rules) == (keys(RuleSet(after, KINDS, points)) if in_place else was)


def test_faults_of_the_rules_are_all_told_and_nothing_is_done() -> None:
    rules = RuleSet([HIGH], KINDS, table())
    with pytest.raises(ConfigError) as caught:
        rules.exchange([limited("high", "HIGH"), replace(HIGH, id="x", kind="none"), SILENT])
    assert [fault.key for fault in caught.value.faults] == ["high.parameters.", "x.kind"]
    assert tell(rules, 1, 1.5, 0.0, 0.0) == [("p0:high", "H")]


def test_what_is_edited_judges_the_next_sample_and_what_stays_does_not_notice() -> None:
    slow = limited("slow", on_delay_s=3.0)
    rules = RuleSet([HIGH, slow], KINDS, table())
    assert tell(rules, 0, 1.5, 0.5, 0.5) == [("p0:high", "H")]
    assert rules.exchange([limited("high", at=1.6), slow])
    assert tell(rules, 2, 1.5, 1.5, 0.5) == [("p0:high", "")]
    assert tell(rules, 4, 1.5, 1.5, 0.5) == [("p0:slow", "H")]
    assert rules.exchange([slow])
    assert rules.exchange([slow, HIGH])
    assert tell(rules, 5, 1.5, 1.5, 0.5) == [("p0:high", "H"), ("p1:high", "H"), ("p1:slow", "H")]


def test_points_that_come_later_are_judged_by_the_rules_as_they_are_now() -> None:
    points = table(1)
    rules = RuleSet([HIGH, limited("old")], KINDS, points)
    assert rules.exchange([limited("high", at=3.0), limited("new")])
    points.put(Point(id="p1", quantity="gas"))
    rules.refresh()
    assert keys(rules) == ["p0:high", "p0:new", "p1:high", "p1:new"]
    assert tell(rules, 1, 0.0, 2.5) == [("p1:new", "HH")]


def test_a_rule_among_many_costs_a_glance_at_each_of_the_others() -> None:
    """Measured: 5 calls for each; to make them again takes about 80."""
    costs = []
    for count in (200, 400):
        rules = [
            limited(f"r{n}", selector={"value": Selector(ids=(f"p{n}",))}) for n in range(count)
        ]
        running = RuleSet(rules, KINDS, table(count))
        edited = [*rules[:7], limited("r7", at=2.0, selector=rules[7].inputs), *rules[8:]]
        costs.append(calls_of(lambda running=running, edited=edited: running.exchange(edited)))
    assert costs[1] - costs[0] < 200 * 12, costs


def test_rules_that_come_and_go_under_ever_new_names_end_in_a_new_set() -> None:
    rules = RuleSet([HIGH], KINDS, table(1))
    done = 0
    while rules.exchange([HIGH, *(limited(f"x{done}.{n}") for n in range(300))]):
        done += 1
        assert done < 2 * _GONE_MAX / 300 + 2
    assert done * 300 > _GONE_MAX / 2


def test_a_rate_that_looks_further_back_is_taken_while_late_samples_are_remembered() -> None:
    """Its ring of samples grows, and so does that of the lane of what comes too late."""

    def rate(window_s: float) -> Rule:
        parameters = {"per": "min", "window_s": window_s, "levels": {"H": 5.0}}
        return Rule("fast", "rate", GAS, parameters)

    rules = RuleSet([rate(4.0)], {"rate": rate_kind.KIND}, table(1))
    for second in (0, 100, 40):  # the last one fills a hole
        tell(rules, second, 1.0)
    assert rules.exchange([rate(60.0)])
    assert tell(rules, 130, 1.0) == []


# ---------------------------------------------------------------------- and points change too


def test_a_level_that_is_gone_is_silent_when_its_point_comes_back_by_the_table() -> None:
    here, away = Point(id="p0", quantity="gas", area="a"), Point(id="p0", quantity="gas", area="b")
    in_a = {"value": Selector(area="a")}
    points = PointTable()
    points.put(here)
    points.put(Point(id="p1", quantity="gas", area="a"))
    rules = RuleSet([limited("lim", "H", "HH", selector=in_a)], KINDS, points)
    points.put(away)
    rules.refresh()
    assert rules.exchange([limited("lim", "H", selector=in_a)])
    points.put(here)
    rules.refresh()
    assert tell(rules, 1, 9.0, 0.0) == [("p0:lim", "H")]
    assert int(rules.current_levels().max()) == 1


def test_a_point_that_moves_between_two_groups_is_judged_in_the_other() -> None:
    def reference(number: int, **more) -> Point:
        return Point(id=f"ref{number}", quantity="base", area=f"a{number}", **more)

    differs = Rule(
        "dev", "deviation",
        {"value": Selector(quantity="gas"), "reference": Selector(quantity="base")},
        {"levels": {"H": 1.0}, "absolute": True}, group_by=GroupBy.AREA,
    )  # fmt: skip
    points = PointTable()
    for point in (reference(1), reference(0)):
        points.put(point)
    for number in (0, 1):
        points.put(Point(id=f"p{number}", quantity="gas", area=f"a{number}"))
    rules = RuleSet([differs], KINDS, points)
    for number in (0, 1):
        points.put(Point(id=f"p{number}", quantity="gas", area=f"a{1 - number}"))
    rules.refresh()
    assert keys(rules) == keys(RuleSet([differs], KINDS, points)) == ["p0:dev", "p1:dev"]
    assert not rules.problems


def test_a_silence_is_as_urgent_as_what_it_hides_now() -> None:
    urgent = limited("urgent", priority=Priority.CRITICAL)
    silent = replace(
        SILENT,
        inputs={"value": Selector()},
        parameters={"max_age_s": 60.0, "priority_of_hidden": "inherit"},
        priority=Priority.LOW,
    )
    points = table(1)
    rules = RuleSet([urgent, silent], KINDS, points)

    def priority() -> Priority:
        return next(one for one in rules.instances if one.rule.id == "silent").levels[0].priority

    assert priority() is Priority.CRITICAL
    points.put(Point(id="p0", quantity="other", interval_s=1.0))
    rules.refresh()
    assert priority() is Priority.LOW
    points.put(Point(id="p0", quantity="gas", interval_s=1.0))
    rules.refresh()
    assert priority() is Priority.CRITICAL
    assert rules.exchange([silent, replace(urgent, priority=Priority.MEDIUM)])
    assert priority() is Priority.MEDIUM


def test_a_silence_is_less_urgent_when_another_point_leaves_its_group() -> None:
    """The deviation of p0 is critical, and is judged no more when what it is compared with goes."""
    differs = Rule(
        "dev", "deviation", {**GAS, "reference": Selector(quantity="base")},
        {"levels": {"H": 1.0}}, group_by=GroupBy.AREA, priority=Priority.CRITICAL,
    )  # fmt: skip
    silent = replace(
        SILENT,
        parameters={"max_age_s": 60.0, "priority_of_hidden": "inherit"},
        priority=Priority.LOW,
    )
    points = table(1)
    points.put(Point(id="ref", quantity="base", area="a0"))
    wanted = [differs, silent, limited("high", priority=Priority.HIGH)]
    rules = RuleSet(wanted, KINDS, points)

    def priority(judged: RuleSet) -> Priority:
        return next(one for one in judged.instances if one.rule.id == "silent").levels[0].priority

    assert priority(rules) is Priority.CRITICAL
    points.put(Point(id="ref", quantity="base", area="a1"))
    rules.refresh()
    assert priority(rules) is priority(RuleSet(wanted, KINDS, points)) is Priority.HIGH
    points.put(Point(id="ref", quantity="base", area="a0"))
    rules.refresh()
    assert priority(rules) is Priority.CRITICAL


def test_a_rule_of_many_points_under_ever_new_names_ends_in_a_new_set() -> None:
    rules = RuleSet([limited("x0")], KINDS, table(600))
    done = 0
    while rules.exchange([limited(f"x{done + 1}")]):
        done += 1
        assert done < 5, "rows of what is gone pile up"
    assert done == 2  # 1,200 dead rows beside 600


# ---------------------------------------------------------------------- in place and as a new set

TWO = replace(BOTH, parameters={**BOTH.parameters, "rules": ["lim"]})  # two of lim are blue: red


def blue(*names: str, **more) -> Rule:
    return limited("lim", *names, level="blue", **more)


def with_others(rules: RuleSet, wanted: list[Rule], points: PointTable, *, in_place) -> RuleSet:
    """The rules exchanged, in place or as a new set that takes over what was saved."""
    if in_place:
        assert rules.exchange(wanted)
        return rules
    made = RuleSet(wanted, KINDS, points)
    made.load(rules.save())
    return made


@pytest.mark.parametrize("in_place", [True, False])
def test_who_stands_at_a_level_its_rule_no_longer_has_is_counted_by_none(in_place) -> None:
    """Their second level is gone; one of them speaks of a moment before the exchange."""
    points = table(2)
    rules = RuleSet([blue("H", "HH"), TWO], KINDS, points)
    assert ("site:both", "red") in tell(rules, 1, 2.5, 2.5)
    rules.evaluate(Batch.empty(), START + 10 * NS)
    rules = with_others(rules, [blue("HHH", at=1.0), TWO], points, in_place=in_place)
    at = START + 3 * NS
    batch = Batch.of([0], [3.5], [at], received_time_ns=[at])
    told = rules.evaluate(batch, START + 11 * NS).conditions
    about = [rules.instances[n].alarm_key for n in told.instance.tolist()]
    assert sorted(zip(about, told.time_ns.tolist(), told.value.tolist(), strict=True)) == [
        ("p0:lim", at, 3.5), ("site:both", at, 1.0)
    ]  # fmt: skip


@pytest.mark.parametrize("in_place", [True, False])
def test_who_is_listened_to_since_a_moment_ago_counts_after_an_exchange(in_place) -> None:
    """p1 stands above its limit in another area, moves here, and the rules are exchanged before
    anything was judged."""
    points = table(2)
    here = replace(TWO, inputs={"value": Selector(area="a0")})
    rules = RuleSet([blue("H"), here], KINDS, points)
    assert tell(rules, 1, 1.5, 1.5) == [("p0:lim", "H"), ("p1:lim", "H")]
    points.put(Point(id="p1", quantity="gas", area="a0", interval_s=1.0))
    rules.refresh()
    rules = with_others(rules, [blue("H"), here, limited("more", "H")], points, in_place=in_place)
    assert ("site:both", "red") in tell(rules, 2, 1.5, 1.5)


@pytest.mark.parametrize("in_place", [True, False])
def test_who_began_afresh_a_moment_ago_counts_no_longer_after_an_exchange(in_place) -> None:
    points = table(2)
    rules = RuleSet([blue("H"), TWO], KINDS, points)
    assert ("site:both", "red") in tell(rules, 1, 1.5, 1.5)
    assert rules.exchange([blue("HH", at=5.0), TWO])
    rules = with_others(
        rules, [blue("HH", at=5.0), TWO, limited("more", "H", at=9.0)], points, in_place=in_place
    )
    assert tell(rules, 2, 1.5, 1.5) == [("site:both", "")]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_window_that_is_made_shorter_keeps_its_newest_samples(in_place) -> None:
    def rate(window_s: float) -> Rule:
        return Rule("fast", "rate", GAS, {"window_s": window_s, "levels": {"H": 0.9}})

    points = table(1)
    kinds = {"rate": rate_kind.KIND}
    rules = RuleSet([rate(20.0)], kinds, points)
    for second in range(9):
        assert tell(rules, second, float(second)) == []
    if in_place:
        assert rules.exchange([rate(4.0)])
    else:
        saved, rules = rules.save(), RuleSet([rate(4.0)], kinds, points)
        rules.load(saved)
    assert tell(rules, 9, 9.0) == [("p0:fast", "H")]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_delay_goes_on_where_point_and_rule_change_at_one_moment(in_place) -> None:
    """The rule in force would let go of the point, the one that takes its place does not."""
    points = table(1)
    here, there = ({"value": Selector(area=area)} for area in ("a0", "a1"))
    rules = RuleSet([blue("H", selector=here, on_delay_s=3.0)], KINDS, points)
    assert tell(rules, 1, 1.5) == []
    points.put(Point(id="p0", quantity="gas", area="a1", interval_s=1.0))
    rules = with_others(
        rules, [blue("H", selector=there, on_delay_s=3.0)], points, in_place=in_place
    )
    assert tell(rules, 4, 1.5) == [("p0:lim", "H")]


@pytest.mark.parametrize("in_place", [True, False])
def test_no_delay_ends_for_a_point_that_moved_away_just_before_the_same_rules_are_taken(
    in_place,
) -> None:
    points = table(1)
    rules = [blue("H", selector={"value": Selector(area="a0")}, on_delay_s=3.0)]
    running = RuleSet(rules, KINDS, points)
    assert tell(running, 1, 1.5) == []
    made = RuleSet(rules, KINDS, points)  # while it was made the point moved
    points.put(Point(id="p0", quantity="gas", area="a1", interval_s=1.0))
    if in_place:
        assert running.exchange(rules)
    else:
        made.load(running.save())
        running = made
    assert tell(running, 9, 1.5) == []


def test_what_judges_rules_keeps_their_times_to_the_nanosecond() -> None:
    both = replace(BOTH, parameters={**BOTH.parameters, "rules": ["lim"]})
    lim = limited("lim", "H", level="blue")
    rules = RuleSet([lim, both], KINDS, table(2))
    at = [START + NS + 123] * 2
    found = rules.evaluate(Batch.of([0, 1], [2.0, 2.0], at, received_time_ns=at), at[0]).conditions
    assert found.time_ns.tolist() == [at[0]] * 3
