"""The laws of the rule core, for every kind: see laws.py."""

from __future__ import annotations

import os

import pytest
from laws import check_law, law_names

CASES = int(os.environ.get("LAW_CASES", "200"))
SEED = int(os.environ.get("LAW_SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("name", law_names())
def test_any_history_told_any_way_gives_the_events_of_the_scalar_reference(name: str) -> None:
    changes = check_law(name, CASES, SEED)
    print(f"{name}: {CASES} histories, {changes} changes, first seed {SEED}")
    assert changes > CASES // 10, "the histories are too dull to show anything"
