"""The laws of the rule core, for every kind: see laws.py."""

from __future__ import annotations

import os

import pytest
from laws import check_exchanges, check_law, law_names

CASES = int(os.environ.get("LAW_CASES", "200"))
SEED = int(os.environ.get("LAW_SEED", "0"))

NEVER_IN_PLACE = {"law_calculation"}  # it makes points of its own


@pytest.mark.slow
@pytest.mark.parametrize("name", law_names())
def test_any_history_told_any_way_gives_the_events_of_the_scalar_reference(name: str) -> None:
    changes = check_law(name, CASES, SEED)
    print(f"{name}: {CASES} histories, {changes} changes, first seed {SEED}")
    assert changes > CASES // 10, "the histories are too dull to show anything"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*law_names(), "mixed"])
def test_rules_exchanged_in_place_judge_as_a_new_set_would_with_the_same_state(name: str) -> None:
    count, in_place = check_exchanges(name, CASES // (2 if name == "mixed" else 4), SEED)
    print(f"{name}: {count} exchanges, {in_place} in place, first seed {SEED}")
    assert count > CASES // 10, "too few exchanges to show anything"
    if name not in NEVER_IN_PLACE:
        assert in_place > count // 4, "nothing was exchanged in place"
