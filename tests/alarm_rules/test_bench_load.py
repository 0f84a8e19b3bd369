"""The bench of loading times what it says."""

from __future__ import annotations

import itertools

from alarm_rules.bench_load import lines, measure
from alarm_rules.kinds import limit


def test_every_form_loads_every_point_and_the_figures_can_be_read() -> None:
    ticks = itertools.count()
    found = measure({"limit": limit.KIND}, lambda: float(next(ticks)), size=50)
    assert [found[f"{form}_instances"] for form in ("one", "equal", "different")] == [50, 50, 50]
    assert [found[f"{form}_s"] for form in ("one", "equal", "different")] == [1.0, 1.0, 1.0]
    assert found["restart_s"] >= found["restart_state_s"] >= 0
    assert found["reload_s"] == 1.0
    assert any("50 points" in line for line in lines(found))
