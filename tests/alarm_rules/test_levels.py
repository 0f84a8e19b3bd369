"""Rules that judge other rules: who listens to whom, in what order, across restarts and changes."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from alarm_rules.kinds import limit, offline
from alarm_rules.ruleset import RuleSet, check_rules
from gateway.contract.rule_kind import (
    FOREVER,
    Columns,
    GroupPlan,
    InstancePlan,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.batch import Batch
from gateway.model.condition import Level
from gateway.model.errors import ConfigError
from gateway.model.point import Point, PointTable
from gateway.model.rule import GroupBy, Priority, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, START_NS, at_ns


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rules: tuple[str, ...]
    count: int = 2


class Several:
    """In condition while `count` members are: the smallest kind that judges levels."""

    latest_wins = True

    def __init__(self, _width):
        self.due_ns = FOREVER
        self.instances = Columns(settings={"count": (np.int64, 0)}, saved={"in": (np.int64, 0)})
        self.slots = Columns(saved={"level": (np.int64, 0)})

    def configure(self, instances, _groups, layout):
        self.layout = layout
        for row, plan in instances:
            self.instances["count"][row] = plan.setting

    def select(self, rows):
        return np.ones(len(rows), bool)

    def judge(self, feed, _times, _now_ns):
        said = []
        for n in range(len(feed)):
            self.slots["level"][feed.slot[n]] = feed.value[n]
            instance = self.layout.group_instance[feed.group[n]]
            mine = self.layout.slot_live & (self.layout.slot_group == feed.group[n])
            total = int(np.count_nonzero(self.slots["level"][mine]))
            said.append(
                (instance, feed.time_ns[n], total >= self.instances["count"][instance], total)
            )
        instance, time_ns, on, total = (np.array(column) for column in zip(*said, strict=True))
        on = on[:, None].astype(bool)
        zero = np.zeros(len(said), np.uint8)
        return Verdict(Signals(instance, time_ns, on, ~on, total.astype(float), zero))

    def timers(self, _now_ns, _times):
        return None

    def settled(self, _instances, _busy):
        pass


def plan(planning):
    assert all(planning.instances[p].alarm_key for p in planning.inputs["value"])
    rule = planning.rule
    instance = InstancePlan(
        target=planning.key, levels=(Level("SEVERAL", Priority.HIGH),), on_delay_ns=(0,),
        off_delay_ns=(0,), area=planning.key, setting=planning.parameters.count,
    )  # fmt: skip
    return GroupPlan(inputs=(planning.inputs["value"],), instances=(instance,), setting=rule.id)


SEVERAL = RuleKind(
    name="several", summary="", parameters=Parameters, plan=plan, build=Several,
    level_count=lambda _: 1, judges=lambda parameters: parameters.rules,
)  # fmt: skip
KINDS = {kind.name: kind for kind in (limit.KIND, offline.KIND, SEVERAL)}
EVERY = Selector()
SELECT = {"value": Selector(quantity="methane")}
GAS = Rule("gas", "limit", SELECT, {"levels": {"H": 1.0}})
SLOW = Rule("slow", "limit", SELECT, {"levels": {"H": 2.0}}, on_delay_s=10)


def several(rule_id="two", rules=("gas",), select=EVERY, by=GroupBy.AREA, **more) -> Rule:
    return Rule(
        rule_id, "several", {"value": select}, {"rules": rules, **more}, group_by=by
    )  # fmt: skip


def table_of(**areas: str) -> PointTable:
    table = PointTable()
    for name, area in areas.items():
        table.put(Point(id=name, quantity="methane", area=area))
    return table


def batch_of(*rows: tuple[int, float, float]) -> Batch:
    times = [at_ns(second) for _, second, _ in rows]
    return Batch.of([p for p, _, _ in rows], [v for _, _, v in rows], times, received_time_ns=times)


def told(rules, batch, now_s):
    rows = rules.evaluate(batch, at_ns(now_s)).conditions
    return [
        (rules.instances[i].alarm_key, int(level), (int(t) - START_NS) / NS_PER_S)
        for i, level, t in zip(rows.instance, rows.level, rows.time_ns, strict=True)
    ]


FOUR = {"a": "face", "b": "face", "c": "road", "d": "road"}


def test_members_of_one_area_make_its_alarm_at_the_time_of_the_last_one() -> None:
    rules = RuleSet([several(), GAS], KINDS, table_of(**FOUR))
    rows = batch_of((0, 1, 5.0), (2, 2, 5.0), (1, 3, 5.0), (0, 4, 0.1))
    said = sorted(told(rules, rows, 5), key=lambda row: (row[2], row[0]))
    assert said == [
        ("a:gas", 1, 1.0), ("c:gas", 1, 2.0), ("b:gas", 1, 3.0), ("face:two", 1, 3.0),
        ("a:gas", 0, 4.0), ("face:two", 0, 4.0),
    ]  # fmt: skip
    assert told(rules, Batch.empty(), 6) == []
    assert rules.current_levels().sum() == 2


def test_a_delay_that_ends_by_the_clock_is_heard_at_its_own_time() -> None:
    rules = RuleSet([several(rules=("slow",)), SLOW], KINDS, table_of(**FOUR))
    assert told(rules, batch_of((0, 1, 5.0), (1, 3, 5.0)), 4) == []
    said = told(rules, Batch.empty(), 60)
    assert [row for row in said if "two" in row[0]] == [("face:two", 1, 13.0)]


def test_rules_that_judge_rules_that_judge_rules() -> None:
    site = several("site", rules=("two",), by=GroupBy.SITE)
    rules = RuleSet([site, several(), GAS], KINDS, table_of(**FOUR))
    rows = batch_of(*[(p, 1.0 + p, 5.0) for p in range(4)])
    assert ("site:site", 1, 4.0) in told(rules, rows, 5)
    table = rules._points
    table.put(Point(id="e", quantity="methane", area="shaft"))
    rules.refresh()
    assert told(rules, batch_of((4, 6, 5.0)), 6) == [("e:gas", 1, 6.0)]
    table.put(Point(id="f", quantity="methane", area="shaft"))
    rules.refresh()
    assert ("shaft:two", 1, 7.0) in told(rules, batch_of((5, 7, 5.0)), 7)


def test_a_star_stands_for_any_part_and_the_selector_narrows_by_the_point() -> None:
    rule = several(rules=("g*",), select=Selector(area="road"), by=GroupBy.SITE)
    rules = RuleSet([rule, GAS, SLOW], KINDS, table_of(**FOUR))
    rows = batch_of((0, 1, 5.0), (1, 1, 5.0), (2, 1, 5.0))
    assert not [row for row in told(rules, rows, 30) if "two" in row[0]]
    assert ("site:two", 1, 31.0) in told(rules, batch_of((3, 31, 5.0)), 31)


def test_after_a_restart_the_members_are_known() -> None:
    first = RuleSet([several(), GAS], KINDS, table_of(**FOUR))
    told(first, batch_of((0, 1, 5.0)), 1)
    after = RuleSet([GAS, several()], KINDS, table_of(d="road", b="face", a="face"))
    after.load(first.save())
    assert ("face:two", 1, 2.0) in told(after, batch_of((1, 2, 5.0)), 2)


def test_a_rule_added_later_hears_what_stands_already() -> None:
    first = RuleSet([GAS], KINDS, table_of(**FOUR))
    told(first, batch_of((0, 1, 5.0), (1, 2, 5.0)), 10)
    after = RuleSet([GAS, several()], KINDS, table_of(**FOUR))
    after.load(first.save())
    assert told(after, Batch.empty(), 11) == [("face:two", 1, 10.0)]
    assert told(after, Batch.empty(), 12) == []


def test_a_member_whose_levels_are_others_now_is_heard_as_it_stands() -> None:
    first = RuleSet([GAS, several()], KINDS, table_of(**FOUR))
    told(first, batch_of((0, 1, 5.0), (1, 2, 5.0)), 10)
    edited = Rule("gas", "limit", SELECT, {"levels": {"H": 1.0, "HH": 9.0}})
    after = RuleSet([edited, several()], KINDS, table_of(**FOUR))
    after.load(first.save())
    assert told(after, Batch.empty(), 11) == [("face:two", 0, 10.0)]
    assert after.current_levels().sum() == 0


def test_a_point_that_moves_to_another_area_takes_its_level_with_it() -> None:
    table = table_of(**FOUR)
    rules = RuleSet([GAS, several()], KINDS, table)
    told(rules, batch_of((0, 1, 5.0), (2, 1, 5.0)), 2)
    table.put(Point(id="a", quantity="methane", area="road"))
    rules.refresh()
    assert told(rules, Batch.empty(), 3) == [("road:two", 1, 2.0)]


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ([several(rules=("nothing",)), GAS], "none is 'nothing'"),
        ([several("x", rules=("y",)), several("y", rules=("x",))], "x -> y -> x"),
        ([several("x", rules=("x",)), GAS], "x"),
    ],
)
def test_judging_nothing_or_oneself_is_refused(rules, word) -> None:
    with pytest.raises(ConfigError, match=word):
        RuleSet(rules, KINDS, PointTable())
    assert check_rules(rules, KINDS)


def test_history_is_not_heard() -> None:
    rules = RuleSet([several(), GAS], KINDS, table_of(**FOUR))
    for t in (0, 600):
        told(rules, batch_of((0, t, 0.1), (1, t, 0.1)), t)
    said = told(rules, batch_of((0, 100, 5.0), (1, 100, 5.0)), 601)
    assert said == [("a:gas", 1, 100.0), ("b:gas", 1, 100.0)]


# (levels of a:gas, b:gas and face:two by the word, what is told next)
WORDS = [
    ((1, 1, 1), []),
    ((0, 0, 1), [("face:two", 0, 5.0)]),  # it was never heard that they are over
    ((1, 1, 0), [("face:two", 1, 5.0)]),
]


@pytest.mark.parametrize(("word", "expected"), WORDS)
def test_after_a_word_is_taken_a_rule_hears_how_those_stand_that_it_judges(word, expected) -> None:
    rules = RuleSet([several(), GAS], KINDS, table_of(a="face", b="face"))
    assert told(rules, batch_of((0, 4, 0.1), (1, 4, 0.1)), 5) == []
    by_key = dict(zip(("a:gas", "b:gas", "face:two"), word, strict=True))
    levels = np.array([by_key[each.alarm_key] for each in rules.instances], np.uint8)
    rules.take_word(levels, np.full(3, at_ns(3)))
    assert rules.current_levels().tolist() == levels.tolist()
    assert told(rules, Batch.empty(), 6) == expected
    assert told(rules, Batch.empty(), 7) == []
