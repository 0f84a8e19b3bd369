"""Samples that come too late: history where they fill a hole, repeats elsewhere, never the present."""

from __future__ import annotations

import random

import numpy as np
import pytest

from alarm_rules.kinds import calculation, limit, offline
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, START_NS, at_ns

KINDS = {kind.name: kind for kind in (limit.KIND, offline.KIND, calculation.KIND)}
SELECT = {"value": Selector(quantity="methane")}
GAS = Rule("gas", "limit", SELECT, {"levels": {"H": {"limit": 1.0, "reset": 0.8}}})
SLOW = Rule("slow", "limit", SELECT, {"levels": {"H": 1.0}}, on_delay_s=30)
SILENT = Rule("off", "offline", SELECT, {"max_age_s": 30})


def table_of(*ids: str, interval_s: float | None = None) -> PointTable:
    table = PointTable()
    for name in ids:
        table.put(Point(id=name, quantity="methane", interval_s=interval_s))
    return table


def batch_of(*rows: tuple[int, float, float]) -> Batch:
    """(point, second, value)"""
    times = [at_ns(second) for _, second, _ in rows]
    return Batch.of([p for p, _, _ in rows], [v for _, _, v in rows], times, received_time_ns=times)


def told(rules: RuleSet, batch: Batch, now_s: float) -> list[tuple[str, int, float, bool]]:
    """(alarm key, level, second, late)"""
    rows = rules.evaluate(batch, at_ns(now_s)).conditions
    return [
        (
            rules.instances[rows.instance[i]].alarm_key,
            int(rows.level[i]),
            (int(rows.time_ns[i]) - START_NS) / NS_PER_S,
            bool(rows.late[i]),
        )
        for i in range(len(rows))
    ]


def after_a_hole(*rules: Rule, hole_s: float = 600) -> RuleSet:
    """A point judged at 0 s and then again after a hole."""
    made = RuleSet(rules or [GAS], KINDS, table_of("a"))
    told(made, batch_of((0, 0, 0.1)), 0)
    told(made, batch_of((0, hole_s, 0.1)), hole_s)
    return made


def test_a_backlog_is_judged_exactly_and_changes_nothing_that_stands() -> None:
    rules = after_a_hole()
    backlog = batch_of((0, 100, 2.0), (0, 200, 0.9), (0, 300, 0.1))
    assert told(rules, backlog, 601) == [("a:gas", 1, 100.0, True), ("a:gas", 0, 300.0, True)]
    assert rules.current_levels().tolist() == [0]
    assert told(rules, batch_of((0, 602, 2.0)), 602) == [("a:gas", 1, 602.0, False)]


def test_a_backlog_never_clears_what_stands() -> None:
    rules = after_a_hole()
    told(rules, batch_of((0, 602, 2.0)), 602)
    assert told(rules, batch_of((0, 100, 0.1), (0, 200, 0.1)), 603) == []
    assert rules.current_levels().tolist() == [1]


def test_it_goes_on_where_it_was_from_call_to_call() -> None:
    rules = after_a_hole()
    assert told(rules, batch_of((0, 100, 2.0)), 601) == [("a:gas", 1, 100.0, True)]
    assert told(rules, batch_of((0, 110, 2.0)), 602) == []
    assert told(rules, batch_of((0, 120, 0.1)), 603) == [("a:gas", 0, 120.0, True)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 100, 2.0), (0, 120, 2.0)], []),
        ([(0, 100, 2.0), (0, 130, 2.0)], [("a:slow", 1, 130.0, True)]),
        ([(0, 100, 2.0), (0, 129, 0.1), (0, 140, 2.0)], []),
    ],
)
def test_a_delay_elapses_only_when_a_later_sample_of_the_backlog_says_so(rows, expected) -> None:
    rules = after_a_hole(SLOW)
    assert told(rules, batch_of(*rows), 9_000) == expected


def test_silence_is_no_matter_of_history() -> None:
    rules = after_a_hole(SILENT, GAS)
    said = told(rules, batch_of((0, 100, 2.0), (0, 300, 2.0)), 601)
    assert [key for key, _, _, late in said if late] == ["a:gas"]


def test_rows_judged_before_are_repeats() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    rows = [(0, float(t), 2.0 if 10 < t < 20 else 0.1) for t in range(60)]
    assert len(told(rules, batch_of(*rows), 60)) == 2
    found = rules.evaluate(batch_of(*rows), at_ns(61))
    assert (found.late_count, found.history_count, len(found.conditions)) == (59, 0, 0)


def test_a_backlog_told_twice_is_a_repeat_the_second_time() -> None:
    rules = after_a_hole()
    backlog = batch_of((0, 100, 2.0), (0, 200, 2.0), (0, 300, 0.1))
    assert len(told(rules, backlog, 601)) == 2
    found = rules.evaluate(backlog, at_ns(602))
    assert (found.history_count, len(found.conditions)) == (1, 0)  # the newest may say more


def test_an_older_piece_of_the_same_hole_is_judged_from_its_own_first_row_on() -> None:
    rules = after_a_hole()
    assert told(rules, batch_of((0, 300, 2.0)), 601) == [("a:gas", 1, 300.0, True)]
    assert told(rules, batch_of((0, 100, 2.0), (0, 200, 0.1)), 602) == [
        ("a:gas", 1, 100.0, True),
        ("a:gas", 0, 200.0, True),
    ]


def test_two_holes_are_two_histories_even_in_one_batch() -> None:
    rules = after_a_hole()
    told(rules, batch_of((0, 1_200, 0.1)), 1_200)
    backlog = batch_of((0, 100, 2.0), (0, 700, 0.9), (0, 800, 2.0))
    assert told(rules, backlog, 1_201) == [("a:gas", 1, 100.0, True), ("a:gas", 1, 800.0, True)]


def test_what_is_older_than_the_first_sample_ever_is_history() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a", "b"))
    told(rules, batch_of((0, 1_000, 0.1)), 1_000)
    assert told(rules, batch_of((0, 10, 2.0), (1, 10, 2.0)), 1_001) == [
        ("a:gas", 1, 10.0, True),
        ("b:gas", 1, 10.0, False),
    ]


@pytest.mark.parametrize(
    ("interval_s", "between_s", "is_history"),
    [(None, 60, False), (None, 61, True), (30, 90, False), (30, 91, True), (3600, 7200, False)],
)
def test_a_hole_is_a_silence_of_more_than_three_intervals_and_a_minute(
    interval_s, between_s, is_history
) -> None:
    rules = RuleSet([GAS], KINDS, table_of("a", interval_s=interval_s))
    told(rules, batch_of((0, 0, 0.1)), 0)
    told(rules, batch_of((0, between_s, 0.1)), between_s)
    assert bool(told(rules, batch_of((0, between_s / 2, 2.0)), between_s + 1)) is is_history


def test_the_last_four_holes_are_remembered_also_when_they_come_in_one_batch() -> None:
    times = [float(100 * n) for n in range(8)]
    at_once = RuleSet([GAS], KINDS, table_of("a"))
    told(at_once, batch_of(*[(0, t, 0.1) for t in times]), 800)
    bit_by_bit = RuleSet([GAS], KINDS, table_of("a"))
    for t in times:
        told(bit_by_bit, batch_of((0, t, 0.1)), t)
    late = batch_of(*[(0, t + 50, 2.0) for t in times[:7]])
    expected = [("a:gas", 1, t + 50, True) for t in times[3:7]]
    assert told(at_once, late, 801) == told(bit_by_bit, late, 801) == expected


def test_history_goes_on_after_a_restart_and_after_new_points() -> None:
    rules = after_a_hole()
    told(rules, batch_of((0, 100, 2.0)), 601)
    after = RuleSet([GAS], KINDS, table_of("x", "a"))
    after.load(rules.save())
    after._points.put(Point(id="y", quantity="methane"))
    after.refresh()
    assert told(after, batch_of((1, 200, 0.1)), 602) == [("a:gas", 0, 200.0, True)]
    assert told(after, batch_of((2, 603, 2.0)), 603) == [("y:gas", 1, 603.0, False)]


def test_a_calculation_over_late_inputs_gives_late_samples_and_history() -> None:
    total = Rule(
        "sum", "calculation", {"a": Selector(ids=("a",)), "b": Selector(ids=("b",))},
        {"expression": "a + b", "id": "total", "quantity": "total"}, group_by=GroupBy.SITE,
    )  # fmt: skip
    high = Rule("high", "limit", {"value": Selector(ids=("total",))}, {"levels": {"H": 3.0}})
    table = table_of("a", "b")
    rules = RuleSet([total, high], KINDS, table)
    (point,) = rules.derived_points()
    table.put(point)
    rules.refresh()
    for t in (0, 600):
        told(rules, batch_of((0, t, 0.1), (1, t, 0.1)), t)
    found = rules.evaluate(batch_of((0, 100, 2.0), (1, 100, 2.0)), at_ns(601))
    assert found.derived.value.tolist() == [4.0]
    assert (found.conditions.level.tolist(), found.conditions.late.tolist()) == ([1], [True])


@pytest.mark.parametrize("seed", range(20))
def test_a_hole_filled_piece_by_piece_gives_what_live_judging_would_have_given(seed) -> None:
    rng = random.Random(seed)
    rows = [(0, 100.0 + n, rng.choice([0.1, 0.9, 2.0])) for n in range(80)]
    live = RuleSet([GAS, SLOW], KINDS, table_of("a"))
    expected = [
        (key, level, at)
        for key, level, at, _ in told(live, batch_of(*rows), 100 + 79)
        if at <= 100 + 79
    ]
    late = after_a_hole(GAS, SLOW)
    found, begin = [], 0
    while begin < len(rows):
        end = begin + rng.randrange(1, 20)
        piece = rows[begin:end]
        rng.shuffle(piece)
        found += told(late, batch_of(*piece), 601)
        begin = end
    assert all(is_late for *_, is_late in found)
    assert sorted((k, v, t) for k, v, t, _ in found) == sorted(expected), f"seed {seed}"


def test_a_clock_from_before_2000_is_judged_at_the_time_of_receipt_whatever_its_quality() -> None:
    rules = RuleSet([GAS], KINDS, table_of("a"))
    batch = Batch.of([0], [2.0], [1_000], quality=[0x45], received_time_ns=[at_ns(5)])
    found = rules.evaluate(batch, at_ns(5))
    assert (found.clock_count, found.conditions.time_ns.tolist()) == (1, [at_ns(5)])
    assert not np.any(found.conditions.late)
