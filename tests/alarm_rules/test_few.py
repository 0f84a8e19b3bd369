"""Points with a band of their own, known by name, are all there are: nothing outside is let pass."""

from __future__ import annotations

import numpy as np
import pytest

from alarm_rules.kinds import limit
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.rule import Rule, Selector

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
POINTS = 300


@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_by_the_common_band_is_what_every_own_band_chooses(seed: int) -> None:
    """Few points move a second, sometimes only some are told, sometimes very many move."""
    table = PointTable()
    for number in range(POINTS):
        table.put(Point(id=f"p{number}"))
    levels = {"H": {"limit": 1.0, "reset": 0.5}, "L": -1.0}
    rule = Rule("gas", "limit", {"value": Selector()}, {"levels": levels}, on_delay_s=1.0)
    rules = RuleSet([rule], {"limit": limit.KIND}, table)
    (program,) = rules._programs.all
    evaluator = program.evaluator
    rng = np.random.default_rng(seed)
    value, outside, most = np.zeros(POINTS), 0, 0
    for second in range(1, 160):
        now_ns = START_NS + second * NS
        moved = rng.random(POINTS) < (0.2 if second % 40 == 0 else 0.005)
        value = np.where(moved, rng.choice([-1.5, -1.0, 0.0, 0.6, 1.0, 2.0], POINTS), value * 0.99)
        point = np.arange(POINTS) if second % 7 else np.arange(50, 250)
        rows = rules._now.rows(*_batch(point, value, now_ns))[0]
        chosen = evaluator.select(rows)
        low, high = evaluator.bands(point)
        np.testing.assert_array_equal(chosen, (value[point] >= high) | (value[point] <= low))
        outside += int(chosen.sum())
        rules.evaluate(_batch(point, value, now_ns)[0], now_ns)
        most = max(most, evaluator._others_count)
    assert outside > 100
    assert most < POINTS + 100, "names are kept without end"


def _batch(point: np.ndarray, value: np.ndarray, now_ns: int) -> tuple[Batch, np.ndarray]:
    batch = Batch.of(point, value[point], now_ns, received_time_ns=now_ns)
    return batch, batch.source_time_ns
