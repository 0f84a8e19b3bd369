"""A tick told by elements, or level by level in plain numbers, gives to the bit what it gives in
order: random ticks, every way."""

from __future__ import annotations

import numpy as np
import pytest

from alarm_rules import program as program_module
from alarm_rules.kinds import limit, offline
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
POINTS = 40
KINDS = {"limit": limit.KIND, "offline": offline.KIND}
LEVELS = {
    "H": {"limit": 1.0, "reset": 0.5, "on_delay_s": 2.0, "off_delay_s": 1.0},
    "HH": {"limit": 2.0, "on_delay_s": 0.5, "off_delay_s": 3.0},
    "HHH": {"limit": 3.0, "on_delay_s": 0.0, "off_delay_s": 0.0},
    "L": {"limit": -1.0, "reset": -0.5},
}


def _rules(*, dense: bool, straight: bool = False) -> RuleSet:
    table = PointTable()
    for number in range(POINTS):
        table.put(Point(id=f"p{number}", quantity="q" if number % 3 else "r"))
    rules = [
        Rule("all", "limit", {"value": Selector()}, {"levels": LEVELS}),
        Rule("some", "limit", {"value": Selector(quantity="q")}, {"levels": {"H": 1.0, "HH": 2.0}}),
        Rule("off", "offline", {"value": Selector()}, {"max_age_s": 6.0}, on_delay_s=1.0),
    ]
    if straight:
        del rules[1]
    found = RuleSet(rules, KINDS, table)
    found.evaluate(Batch.empty(), START_NS)
    for program in found._programs.all:
        program.is_dense_allowed = dense
    return found


def _ticks(rng: np.random.Generator, count: int, *, share: float, planned: float):
    """(batch, now): times may stand on a deadline, ahead of the clock or far behind it."""
    second = 0.0
    for _ in range(count):
        second += float(rng.choice([0.5, 1.0, 1.0, 1.0, 4.0]))
        now_ns = START_NS + round(second * NS)
        point = np.flatnonzero(rng.random(POINTS) < share)
        value = rng.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, np.nan], len(point))
        quality = np.where(rng.random(len(point)) < planned, int(Quality.UNCERTAIN_CALIBRATING), 0)
        behind_ns = rng.choice([-NS, 0, 0, 0, NS // 4, NS // 2], len(point))
        times = {"source_time_ns": now_ns - behind_ns, "received_time_ns": now_ns}
        yield Batch.of(point, value, quality=quality, **times), now_ns


@pytest.mark.parametrize("straight", [True, False])
@pytest.mark.parametrize("way", ["tick", "TickOfFew"])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.2])
@pytest.mark.parametrize("planned", [0.0, 0.02])
@pytest.mark.parametrize("seed", range(2))
def test_a_tick_by_elements_tells_what_it_tells_in_order(  # noqa: PLR0917  every way
    straight: bool,
    way: str,
    share: float,
    planned: float,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`straight`: one rule for every point, so that chosen rows are told without a look around."""
    taken = []
    real = getattr(program_module, way)
    monkeypatch.setattr(
        program_module, way, lambda *args, **more: taken.append(1) or real(*args, **more)
    )
    monkeypatch.setattr(program_module, "ONE_BY_ONE_MAX", -1 if way == "tick" else 1 << 30)
    one, other = (_rules(dense=dense, straight=straight) for dense in (True, False))
    rng = np.random.default_rng([seed, round(share * 10)])
    changes = 0
    for batch, now_ns in _ticks(rng, 40, share=share, planned=planned):
        found, expected = one.evaluate(batch, now_ns), other.evaluate(batch, now_ns)
        _check_same(found.conditions, expected.conditions)
        changes += len(found.conditions)
    saved, wanted = one.save(), other.save()
    for name, column in wanted.items():
        np.testing.assert_array_equal(saved[name], column, err_msg=name)
    assert changes > 100
    assert len(taken) > (8 if planned == 0.0 else 0), "the path in question was hardly taken"


def _check_same(found, expected) -> None:
    for name in ("time_ns", "instance", "level", "began_ns", "value", "limit", "quality"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_next_deadline_is_the_least_of_all_open_runs_after_every_tick() -> None:
    rules = _rules(dense=True)
    rng = np.random.default_rng(7)
    for batch, now_ns in _ticks(rng, 30, share=0.5, planned=0.0):
        rules.evaluate(batch, now_ns)
        for program in rules._programs.all:
            kept = program.state["due_ns"].copy()
            known = program.due_ns
            assert known <= kept.min()
            program.settle_all()
            np.testing.assert_array_equal(program.state["due_ns"], kept)


def test_at_one_time_a_calibrating_sample_never_hides_another_uncertain_one() -> None:
    """66 is the smaller number; were it shown, a repeat of the other one would say it again."""
    table = PointTable()
    table.put(Point(id="p", quantity="q"))
    rule = Rule("gas", "limit", {"value": Selector()}, {"levels": {"H": 1.0}})
    rules = RuleSet([rule], KINDS, table)
    rules.evaluate(Batch.empty(), START_NS)
    at_ns = START_NS + NS
    calibrating, doubtful = int(Quality.UNCERTAIN_CALIBRATING), int(Quality.UNCERTAIN_DERIVED)
    assert calibrating < doubtful
    times = {"source_time_ns": at_ns, "received_time_ns": at_ns}
    batch = Batch.of([0, 0], [2.0, 2.0], quality=[calibrating, doubtful], **times)
    assert rules.evaluate(batch, at_ns).conditions.quality.tolist() == [doubtful]
    again = Batch.of([0], [2.0], quality=[doubtful], **times)
    assert len(rules.evaluate(again, at_ns + NS).conditions) == 0


@pytest.mark.parametrize("planned", [0.0, 0.05])
def test_bursts_told_by_pieces_tell_what_they_tell_at_once(
    planned: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _rules(dense=True), _rules(dense=True)
    rng = np.random.default_rng(11)
    ticks = list(_ticks(rng, 40, share=0.6, planned=planned))
    changes = 0
    for number in range(0, 40, 4):
        batch = Batch.concat([batch for batch, _ in ticks[number : number + 4]])
        now_ns = ticks[number + 3][1]
        monkeypatch.setattr(program_module, "_PIECE", 7)
        found = one.evaluate(batch, now_ns).conditions
        monkeypatch.setattr(program_module, "_PIECE", 1 << 14)
        _check_same(found, other.evaluate(batch, now_ns).conditions)
        changes += len(found)
    assert changes > 50
