"""Rows told as runs, and ticks told by ranges, give what they give told in order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from alarm_rules import backlog as backlog_module
from alarm_rules import broad as broad_module
from alarm_rules import program as program_module
from alarm_rules.kinds import limit, offline
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
POINTS = 30
KINDS = {"limit": limit.KIND, "offline": offline.KIND}
LEVELS = {
    "H": {"limit": 1.0, "reset": 0.5, "on_delay_s": 2.0, "off_delay_s": 1.0},
    "HH": {"limit": 2.0, "on_delay_s": 0.5, "off_delay_s": 3.0},
    "HHH": {"limit": 3.0, "on_delay_s": 0.0, "off_delay_s": 0.0},
    "L": {"limit": -1.0, "reset": -0.5},
}
NEVER_A_BACKLOG = 1 << 60


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant for many rows is done for these few, and in more pieces than one."""
    monkeypatch.setattr(program_module, "_FEW", 1)
    monkeypatch.setattr(program_module, "PIECE", 7)
    monkeypatch.setattr(broad_module, "PIECE", 7)
    monkeypatch.setattr(backlog_module, "_ROWS_AT_ONCE", 5)
    monkeypatch.setattr(backlog_module, "_TURNED_AT_ONCE", 3)


def _rules(lateness_s: int = 0) -> RuleSet:
    table = PointTable()
    for number in range(POINTS):
        table.put(Point(id=f"p{number}", quantity="q" if number % 3 else "r"))
    rules = [
        Rule("all", "limit", {"value": Selector(quantity="q")}, {"levels": LEVELS}),
        Rule("off", "offline", {"value": Selector()}, {"max_age_s": 9.0}, on_delay_s=1.0),
    ]
    found = RuleSet(rules, KINDS, table, lateness_ns=lateness_s * NS)
    found.evaluate(Batch.empty(), START_NS)
    return found


def _in_order(rules: RuleSet) -> RuleSet:
    for program in rules._programs.all:
        program.is_dense_allowed = False
    return rules


def _bursts(rng: np.random.Generator, *, calm: float, planned: float):
    """(batch, now): some points with some samples each, in any order of points; the last samples
    may be ahead of the clock or far behind it, and now and then some came in long after."""
    second = 0.0
    while True:
        points = rng.permutation(POINTS)[: int(rng.integers(1, POINTS + 1))]
        each = rng.integers(1, 7, len(points)) if rng.random() < 0.5 else np.full(len(points), 4)
        point = np.repeat(points, each)
        step = np.concatenate([np.arange(1, count + 1) for count in each])
        at_ns = START_NS + round(second * NS) + step * NS - rng.integers(0, 2, POINTS)[point]
        value = rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, np.inf], len(point))
        value[rng.random(len(point)) < calm] = 0.0
        if rng.random() < 0.1:
            value[rng.random(len(point)) < 0.1] = np.nan
        quality = np.where(rng.random(len(point)) < planned, int(Quality.UNCERTAIN_CALIBRATING), 0)
        second += float(rng.choice([6.0, 6.5, 12.0]))
        now_ns = START_NS + round((second + float(rng.choice([-4.0, 0.0, 3.0]))) * NS)
        took_s = np.where(rng.random(POINTS) < 0.2 * (rng.random() < 0.2), 5, 0)[point]
        came_ns = at_ns + took_s * NS
        yield Batch.of(point, value, at_ns, quality=quality, received_time_ns=came_ns), now_ns


def _check_same(found, expected) -> None:
    for name in ("time_ns", "instance", "level", "began_ns", "value", "limit", "quality"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("calm", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("planned", [0.0, 0.002])
@pytest.mark.parametrize("seed", range(3))
def test_a_backlog_told_by_what_happens_in_it_tells_what_it_tells_row_by_row(
    calm: float, planned: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "_OTHERS_SHARE", 0 if seed % 2 else 8)
    one, other = _rules(), _in_order(_rules())
    taken = []
    real = program_module.Program._judge_backlog
    monkeypatch.setattr(
        program_module.Program,
        "_judge_backlog",
        lambda *args: taken.append(real(*args)) or taken[-1],
    )
    rng = np.random.default_rng([seed, round(calm * 100)])
    changes = 0
    for batch, now_ns in itertools.islice(_bursts(rng, calm=calm, planned=planned), 40):
        monkeypatch.setattr(backlog_module, "SIZE_MIN", 2)
        found = one.evaluate(batch, now_ns)
        monkeypatch.setattr(backlog_module, "SIZE_MIN", NEVER_A_BACKLOG)
        expected = other.evaluate(batch, now_ns)
        for name in ("judged_count", "late_count", "history_count"):
            assert getattr(found, name) == getattr(expected, name), name
        _check_same(found.conditions, expected.conditions)
        changes += len(found.conditions)
    np.testing.assert_array_equal(one.current_levels(), other.current_levels())
    saved, wanted = one.save(), other.save()
    for name in ("points/heard_ns", "points/usable_ns", "points/gap_end_ns"):
        np.testing.assert_array_equal(saved[name], wanted[name], err_msg=name)
    for name in wanted:
        if name.rpartition("/")[2] in {"condition", "output", "since_ns", "cause", "quality"}:
            np.testing.assert_array_equal(saved[name], wanted[name], err_msg=name)
    assert changes > 15
    assert sum(taken) > 10, "the path in question was hardly taken"


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_tick_told_by_ranges_tells_what_it_tells_in_order(
    share: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all points, or of a stretch of them while the others are silent."""
    one, other = _rules(), _in_order(_rules())
    taken = []
    real = program_module.tick_range
    monkeypatch.setattr(
        program_module, "tick_range", lambda *args, **more: taken.append(1) or real(*args, **more)
    )
    rng = np.random.default_rng(seed)
    second, changes = 0.0, 0
    for _ in range(60):
        second += float(rng.choice([0.5, 1.0, 1.0, 4.0]))
        now_ns = START_NS + round(second * NS)
        first = int(rng.integers(0, round((1 - share) * POINTS) + 1))
        point = np.arange(first, first + round((0.7 + 0.3 * share) * POINTS) - first)
        value = rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0], len(point))
        behind_ns = rng.choice([-NS // 4, 0, 0, NS // 4], len(point))
        times = {"source_time_ns": now_ns - behind_ns, "received_time_ns": now_ns}
        batch = Batch.of(point, value, **times)
        found, expected = (rules.evaluate(batch, now_ns) for rules in (one, other))
        _check_same(found.conditions, expected.conditions)
        changes += len(found.conditions)
    saved, wanted = one.save(), other.save()
    for name in wanted:
        if not name.endswith(("judged_ns", "set_at", "step_ns", "floor_ns")):
            np.testing.assert_array_equal(saved[name], wanted[name], err_msg=name)
    assert changes > 100
    assert len(taken) > 8, "the path in question was hardly taken"
