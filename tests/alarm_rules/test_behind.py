"""Points whose samples come in long after they were measured: their delays end by their own clock.

The laws tell whole histories so (`behind` of a law); here are the cases by name.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alarm_rules.behind import BEHIND_MIN_NS, Behind
from alarm_rules.kinds import deviation, limit, offline
from alarm_rules.program import Program
from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import FOREVER, NEVER
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, at_ns

KINDS = {k.KIND.name: k.KIND for k in (deviation, limit, offline)}
GAS = Rule(
    "gas", "limit", {"value": Selector(quantity="methane")}, {"levels": {"H": 1.0}},
    on_delay_s=5.0, off_delay_s=3.0,
)  # fmt: skip
BOTH = Rule(
    "both", "deviation", {"value": Selector(ids=("p0",)), "reference": Selector(ids=("p1",))},
    {"levels": {"H": 1.0}}, on_delay_s=5.0, group_by=GroupBy.SITE,
)  # fmt: skip
BEYOND, BACK = 2.0, 0.0


def rules_of(*rules: Rule, points: int = 2, **options) -> RuleSet:
    table = PointTable()
    for number in range(points):
        table.put(Point(id=f"p{number}", quantity="methane"))
    return RuleSet(rules or [GAS], KINDS, table, **options)


def told(rules: RuleSet, now_s: float, *rows: tuple[int, float, float, float]) -> list[tuple]:
    """Rows: (point, measured, came in, value). What was said: (point, level, when)."""
    point, measured_s, came_s, value = zip(*rows, strict=True) if rows else ((), (), (), ())
    batch = Batch.of(
        point, value, [at_ns(s) for s in measured_s], received_time_ns=[at_ns(s) for s in came_s]
    )
    found = rules.evaluate(batch, at_ns(now_s)).conditions
    return [
        (rules.instances[i].target, int(level), (int(t) - at_ns(0)) / NS_PER_S)
        for i, level, t in zip(found.instance, found.level, found.time_ns, strict=True)
    ]


@pytest.mark.parametrize("late_s", [0.0, 0.9, 30.0, 86_400.0])
def test_a_delay_is_as_long_for_a_device_that_is_behind_and_ends_at_its_own_time(late_s) -> None:
    """To a second less, if it is hardly behind."""
    rules, slack_s = rules_of(), 0.9 if late_s == 0.9 else 0.0
    assert told(rules, late_s, (0, 0.0, late_s, BEYOND)) == []
    assert told(rules, late_s + 4.99 - slack_s) == []
    assert told(rules, late_s + 5.0) == [("p0", 1, 5.0)]
    assert told(rules, late_s + 10, (0, 10.0, late_s + 10, BACK)) == []
    assert told(rules, late_s + 12.99 - slack_s) == []
    assert told(rules, late_s + 13.0) == [("p0", 0, 13.0)]


def test_a_crossing_of_a_moment_in_a_backlog_raises_nothing_however_it_comes_in() -> None:
    rules, said = rules_of(), []
    said += told(rules, 0, (0, 0.0, 0.0, BACK))
    for second in range(1, 600):  # ten minutes at one go a second, hours later
        value = BEYOND if second % 10 in {3, 4} else BACK
        now_s = 3_600 + second / 50
        said += told(rules, now_s, (0, float(second), now_s, value))
        said += told(rules, now_s + 0.01)
    assert said == []
    assert told(rules, 3_700) == []


def test_a_crossing_that_lasts_is_found_by_the_samples_before_their_clock_would_find_it() -> None:
    rules = rules_of()
    assert told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND)) == []
    assert told(rules, 1_000.1, (0, 4.0, 1_000.1, BEYOND)) == []
    assert told(rules, 1_000.2, (0, 6.0, 1_000.2, BEYOND)) == [("p0", 1, 5.0)]


def test_who_catches_up_has_the_clock_of_the_others_again() -> None:
    rules = rules_of()
    assert told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND)) == []
    assert told(rules, 1_002, (0, 1_001.5, 1_002.0, BEYOND)) == [("p0", 1, 5.0)]
    assert told(rules, 1_003, (0, 1_003.0, 1_003.0, BACK)) == []
    assert told(rules, 1_006) == [("p0", 0, 1_006.0)]


def test_others_wait_for_nobody_who_is_behind() -> None:
    rules = rules_of()
    told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND), (1, 1_000.0, 1_000.0, BEYOND))
    assert told(rules, 1_004.9) == []
    assert sorted(told(rules, 1_005)) == [("p0", 1, 5.0), ("p1", 1, 1_005.0)]


@pytest.mark.parametrize(
    ("other_late_s", "found_s"), [(0.0, 1_000.0), (10.0, 1_000.0), (997.0, 1_002.0), (1_000, 1_005)]
)
def test_an_instance_is_no_further_behind_than_any_of_its_points(other_late_s, found_s) -> None:
    rules = rules_of(BOTH)
    assert told(rules, 1_000, (1, 0.0, other_late_s, BACK)) == []
    found = told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND))
    if found_s > 1_000:
        assert not found
        assert told(rules, found_s - 0.01) == []
        found = told(rules, found_s)
    assert [when_s for _, _, when_s in found] == [5.0]


def test_a_sample_told_again_does_not_put_its_point_further_behind() -> None:
    rules = rules_of()
    assert told(rules, 0, (0, 0.0, 0.0, BEYOND)) == []
    assert told(rules, 4, (0, 0.0, 4.0, BEYOND)) == []
    assert told(rules, 5) == [("p0", 1, 5.0)]


def test_of_two_receipts_of_one_sample_in_one_call_the_first_counts() -> None:
    rules = rules_of(points=3)
    rows = [(0, 0.0, 30.0, BEYOND), (1, 0.0, 30.0, BACK), (0, 0.0, 31.0, BEYOND)]
    assert told(rules, 31, *rows) == []
    assert told(rules, 35) == [("p0", 1, 5.0)]


def test_the_lateness_everybody_is_given_counts_once() -> None:
    rules = rules_of(lateness_ns=10 * NS_PER_S)
    assert told(rules, 8, (0, 0.0, 8.0, BEYOND)) == []
    assert told(rules, 14.9) == []
    assert told(rules, 15) == [("p0", 1, 5.0)]
    rules = rules_of(lateness_ns=10 * NS_PER_S)
    assert told(rules, 30, (0, 0.0, 30.0, BEYOND)) == []
    assert told(rules, 34.9) == []
    assert told(rules, 35) == [("p0", 1, 5.0)]


def test_silence_is_counted_from_the_measurement_whoever_is_behind() -> None:
    """Old data are no news of a place, however fresh they came in."""
    silent = Rule(
        "silent", "offline", GAS.inputs, {"scope": "point", "max_age_s": 60.0}, on_delay_s=0.0
    )
    rules = rules_of(silent)
    assert told(rules, 50, (0, 0.0, 50.0, BACK), (1, 50.0, 50.0, BACK)) == []
    assert told(rules, 61) == [("p0", 1, 60.0)]


@pytest.mark.parametrize("has_it", [True, False])
def test_a_restart_in_the_middle_keeps_whose_clock_is_behind(has_it) -> None:
    """State saved before there was such a thing has none: then the delay ends by the clock."""
    rules = rules_of()
    assert told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND)) == []
    saved = rules.save()
    if not has_it:
        del saved["points/behind_ns"]
    again = rules_of()
    again.load(saved)
    assert told(again, 1_004.9) == ([] if has_it else [("p0", 1, 5.0)])
    assert told(again, 1_005) == ([("p0", 1, 5.0)] if has_it else [])


def test_a_point_that_joins_meanwhile_and_a_rule_that_is_edited_change_nothing_in_it() -> None:
    table = PointTable()
    table.put(Point(id="p0", quantity="methane"))
    rules = RuleSet([GAS], KINDS, table)
    assert told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND)) == []
    table.put(Point(id="p1", quantity="methane"))
    rules.refresh()
    assert rules.exchange([GAS, replace(GAS, id="second", on_delay_s=4.0)])
    assert told(rules, 1_001, (1, 1_001.0, 1_001.0, BEYOND)) == []
    assert told(rules, 1_004.9) == []
    assert told(rules, 1_005) == [("p0", 1, 5.0), ("p1", 1, 1_005.0)]


def test_history_that_is_skipped_as_quiet_says_who_is_behind_too() -> None:
    behind, heard_ns, now_ns = Behind(), np.full(3, NEVER), at_ns(100)
    behind.grow(3)

    def put(*took_ns: int) -> list[int]:
        received_ns = np.full(2, now_ns)
        return behind.put(np.array([0, 1]), received_ns - took_ns, received_ns, now_ns).tolist()

    assert put(BEHIND_MIN_NS, BEHIND_MIN_NS) == []
    assert put(3 * NS_PER_S, 0) == [0, 1]
    assert behind.of(np.arange(3), heard_ns).tolist() == [3 * NS_PER_S, 0, FOREVER]
    assert put(3 * NS_PER_S, 0) == [], "nothing new"
    assert put(0, 0) == [0]
    assert not behind.is_any


@pytest.mark.parametrize("through", ["came_by", "restart", "judged after it"])
def test_a_clock_that_was_ahead_puts_nobody_behind_for_longer_than_since_the_sample(
    through,
) -> None:
    """It was set back from 3,600 s to 0.5 s, and the point says nothing more."""
    rules, slack_s = rules_of(), 0.0
    if through == "judged after it":
        slack_s = 60.0  # so much later than what is known it may well have come in
        assert told(rules, 0.5, (0, 0.0, 3_600.0, BEYOND)) == []
    else:
        assert told(rules, 3_600, (0, 0.0, 3_600.0, BEYOND)) == []
    if through == "restart":
        saved, rules = rules.save(), rules_of()
        rules.load(saved)
    if through != "judged after it":
        rules.came_by(at_ns(0.5))
    assert told(rules, 5.4 + slack_s) == []
    assert told(rules, 5.5 + slack_s) == [("p0", 1, 5.0)]


@pytest.mark.parametrize("other_is_behind", [False, True])
def test_who_has_caught_up_waits_no_longer_whoever_else_is_behind(other_is_behind) -> None:
    rules = rules_of(replace(GAS, on_delay_s=100.0))
    told(rules, 30, (0, 0.0, 30.0, BEYOND), (1, 0.0 if other_is_behind else 30.0, 30.0, BACK))
    assert told(rules, 50, (0, 50.0, 50.0, BEYOND)) == []
    assert told(rules, 90, (0, 60.0, 90.0, BEYOND)) == []
    assert told(rules, 100) == [("p0", 1, 100.0)]


@pytest.mark.parametrize("step_s", [0.001, 0.1, 0.9])
def test_whoever_falls_further_behind_is_waited_for_no_longer_than_the_delay(step_s) -> None:
    """What it measures comes in more slowly than it is measured: a thin link, a clock that creeps."""
    rules = rules_of()
    found = told(rules, 1_000, (0, 0.0, 1_000.0, BEYOND))
    for second in range(1, 5):
        found += told(rules, 1_000 + second, (0, step_s * second, 1_000.0 + second, BEYOND))
        found += told(rules, 1_000.9 + second)
    assert found == []
    assert told(rules, 1_005) == [("p0", 1, 5.0)]


def test_what_began_later_than_it_was_measured_is_waited_for_from_its_receipt_too() -> None:
    """The off-delay began at the alarm, which came after the sample that ended it."""
    rules = rules_of()
    assert told(rules, 0, (0, 0.0, 0.0, BEYOND)) == []
    assert told(rules, 8) == [("p0", 1, 5.0)]
    assert told(rules, 9, (0, 1.0, 9.0, BACK)) == []
    assert told(rules, 11.9) == []
    assert told(rules, 12) == [("p0", 0, 8.0)]


@pytest.mark.parametrize("together", [True, False])
def test_a_point_heard_for_the_first_time_keeps_its_instance_with_the_others(together) -> None:
    rules = rules_of(BOTH)
    rows = [(0, 0.0, 1_000.0, BEYOND), (1, 1_000.0, 1_000.0, BACK)]
    if together:
        assert told(rules, 1_000, *rows) == []
    else:
        assert told(rules, 1_000, rows[0]) == []
        assert told(rules, 1_000, rows[1]) == []
    assert told(rules, 1_004.9) == []
    assert told(rules, 1_005) == [("p0", 1, 1_005.0)]


@pytest.mark.parametrize(
    ("late_s", "found_s"), [(0.0, 3_605.0), (3_500.0, 3_605.0), (3_604.0, 3_605.0)]
)
def test_what_the_clock_of_the_gateway_says_is_delayed_by_that_clock(late_s, found_s) -> None:
    silent = Rule(
        "silent", "offline", GAS.inputs, {"scope": "point", "max_age_s": 3_600.0}, on_delay_s=5.0
    )
    rules = rules_of(silent, points=1)
    assert told(rules, late_s, (0, 0.0, late_s, BACK)) == []
    assert told(rules, found_s - 0.1) == []
    assert told(rules, found_s) == [("p0", 1, 3_605.0)]


def test_others_are_judged_at_one_go_beside_one_that_is_behind(monkeypatch) -> None:
    """Only what waits for whoever is behind, and what is behind, is judged in order."""
    in_order = []
    monkeypatch.setattr(
        Program,
        "_in_order",
        lambda *a, _do=Program._in_order, **k: in_order.append(1) or _do(*a, **k),
    )
    rules = rules_of(replace(GAS, on_delay_s=0.0, off_delay_s=0.0), points=400)
    told(rules, 10, (7, 0.0, 10.0, BACK))
    ticks = [
        [(p, s + p / 1e3, s + 0.5, BACK if s % 2 else BEYOND) for p in range(400)] for s in (11, 12)
    ]
    for rows in ticks:
        told(rules, rows[0][2], *[row for row in rows if row[0] != 7])
    assert not in_order
    told(rules, 13, (7, 3.0, 13.0, BEYOND))
    assert in_order


@pytest.mark.parametrize("counts", [(3, 3), (3, 4)], ids=["alike", "of any length"])
def test_of_a_backlog_the_last_row_of_each_point_decides(counts, monkeypatch) -> None:
    """Old rows that came in together with new ones put nobody behind."""
    monkeypatch.setattr("alarm_rules.backlog.SIZE_MIN", 2)

    def rows(value: float, newest_s: float, came_s: float) -> list[tuple]:
        return [
            (point, newest_s - n, came_s, value if n == 0 else BEYOND - value)
            for point, count in enumerate(counts)
            for n in reversed(range(count))
        ]

    rules = rules_of()
    assert told(rules, 100, *rows(BEYOND, 100.0, 100.0)) == []
    assert sorted(told(rules, 105)) == [("p0", 1, 105.0), ("p1", 1, 105.0)]
    assert told(rules, 300, *rows(BACK, 150.0, 300.0)) == []
    assert told(rules, 302.9) == []
    assert sorted(told(rules, 303)) == [("p0", 0, 153.0), ("p1", 0, 153.0)]
