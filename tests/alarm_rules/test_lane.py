"""When each point was heard, by ticks that are written down only when somebody asks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alarm_rules.kinds import limit, offline
from alarm_rules.ruleset import RuleSet
from gateway.contract.rule_kind import NEVER
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule, Selector

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
POINTS = 12


def _rules() -> RuleSet:
    table = PointTable()
    for number in range(POINTS):
        table.put(Point(id=f"p{number}"))
    rules = [
        Rule("gas", "limit", {"value": Selector()}, {"levels": {"H": 1.0}}),
        Rule("off", "offline", {"value": Selector()}, {"max_age_s": 600.0}),
    ]
    return RuleSet(rules, {"limit": limit.KIND, "offline": offline.KIND}, table)


@pytest.mark.parametrize("asked", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_point_was_heard_when_its_newest_sample_says(asked: float, seed: int) -> None:
    """Whole ticks, ranges and single rows after one another, some without a value."""
    rng = np.random.default_rng(seed)
    rules = _rules()
    heard_ns, usable_ns = np.full(POINTS, NEVER), np.full(POINTS, NEVER)
    for second in range(1, 51):
        first, stop = sorted(rng.integers(0, POINTS + 1, 2).tolist())
        kind = rng.integers(4)
        point = np.arange(POINTS) if kind < 2 else np.arange(first, stop)
        if kind == 3:
            point = rng.permutation(point)
        value = rng.choice([0.0, 2.0], len(point))
        if rng.random() < 0.2:
            value[rng.random(len(point)) < 0.5] = math.nan
        time_ns = START_NS + second * NS - rng.integers(0, NS // 2, len(point))
        now_ns = START_NS + second * NS
        rules.evaluate(Batch.of(point, value, time_ns, received_time_ns=now_ns), now_ns)
        heard_ns[point] = time_ns
        is_number = ~np.isnan(value)
        usable_ns[point[is_number]] = time_ns[is_number]
        if rng.random() < asked or second == 50:
            np.testing.assert_array_equal(rules._now.heard_ns, heard_ns)
            np.testing.assert_array_equal(rules._now.usable_ns, usable_ns)
    assert rules.newest_heard_ns() == heard_ns.max()


@pytest.mark.parametrize("each", [True, False])
def test_a_whole_tick_after_a_range_of_it_keeps_what_the_others_said(each: bool) -> None:
    rules = _rules()
    at = [START_NS + number * NS for number in range(4)]
    rules.evaluate(
        Batch.of(np.arange(POINTS), np.zeros(POINTS), at[1], received_time_ns=at[1]), at[1]
    )
    if each:
        assert rules._now.heard_ns.min() == at[1]
    part = Batch.of(np.arange(3, 6), np.zeros(3), at[2], received_time_ns=at[2])
    rules.evaluate(part, at[2])
    expected = np.full(POINTS, at[1])
    expected[3:6] = at[2]
    np.testing.assert_array_equal(rules.save()["points/heard_ns"], expected)


def test_what_no_point_was_last_usable_before_is_known_while_ticks_cover_them_all() -> None:
    """A value that is none, or a single row, and each point has to be looked at again."""
    rules = _rules()
    lane = rules._now

    def hear(point: list[int], value: float, second: int, early_ns: int = 0) -> None:
        at_ns = START_NS + second * NS
        times_ns = [at_ns - early_ns * number for number in range(len(point))]
        batch = Batch.of(point, [value] * len(point), times_ns, received_time_ns=at_ns)
        rules.evaluate(batch, at_ns)
        known, least = lane.usable_since_ns(), int(lane.usable_ns.min())
        assert known <= least, "a silence would be slept through"

    every = list(range(POINTS))
    assert lane.usable_since_ns() == NEVER
    hear(every[:5], 0.0, 1)
    assert lane.usable_since_ns() == NEVER
    hear(every[5:], 0.0, 2)
    assert lane.usable_since_ns() == START_NS + NS
    hear(every[:5], 0.0, 3, early_ns=7)
    assert lane.usable_since_ns() == START_NS + 2 * NS
    hear(every[5:], 0.0, 4)
    assert lane.usable_since_ns() == START_NS + 3 * NS - 28
    hear(every[:5], math.nan, 5)
    assert lane.usable_since_ns() == NEVER
    hear(every[:5], 0.0, 6)
    hear([3], 0.0, 7)
    assert lane.usable_since_ns() == NEVER
    hear(every, 0.0, 8)
    assert lane.usable_since_ns() == START_NS + 8 * NS
