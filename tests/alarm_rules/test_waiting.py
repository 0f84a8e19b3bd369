"""What is known of deadlines is what a look at the whole table finds."""

from __future__ import annotations

import numpy as np
import pytest

from alarm_rules.waiting import Waiting
from gateway.contract.rule_kind import FOREVER

KEYS = 200


@pytest.mark.parametrize("seed", range(5))
def test_overdue_runs_are_those_the_table_of_deadlines_says(seed: int) -> None:
    """Runs begin one by one and many at once, and end without a word."""
    rng = np.random.default_rng(seed)
    due_ns = np.full(KEYS, FOREVER)
    due_ns[:5] = 3
    waiting = Waiting()  # the five began before it was asked: nobody told
    found = 0
    for now_ns in range(0, 400, 2):
        key = rng.permutation(KEYS)[: int(rng.integers(0, 12))]
        ends_ns = np.where(rng.random(len(key)) < 0.2, FOREVER, now_ns + rng.integers(1, 30))
        due_ns[key] = ends_ns
        waits = [(int(ns), int(k)) for k, ns in zip(key, ends_ns, strict=True) if ns < FOREVER]
        if rng.random() < 0.05:
            waiting.forget()  # as if nobody had told
        elif rng.random() < 0.5:
            waiting.push(waits)
        else:
            waiting.add(key, ends_ns, int(ends_ns.min(initial=FOREVER)))
        due_ns[rng.permutation(KEYS)[:2]] = FOREVER  # some end without a word
        late = waiting.overdue(due_ns, now_ns)
        np.testing.assert_array_equal(late, np.flatnonzero(due_ns <= now_ns))
        due_ns[late] = FOREVER
        assert waiting.due_ns <= due_ns.min(), "a deadline would be slept through"
        found += len(late)
    assert found > 100


def test_while_nothing_is_known_nothing_is_kept() -> None:
    """The lane of what came late has no clock and never asks."""
    waiting = Waiting()
    for number in range(1_000):
        waiting.push([(number, number)])
        waiting.add(np.arange(9), np.arange(9), 0)
    assert waiting.due_ns == FOREVER
    assert waiting.overdue(np.full(10, FOREVER), 2_000).tolist() == []
