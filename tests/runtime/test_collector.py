"""Garbage is looked for seldom in a gateway, and as ever elsewhere."""

from __future__ import annotations

import gc

import pytest

from gateway.runtime.collector import YOUNG_OBJECTS_MAX, prepared_collector


def test_a_measurement_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="in the middle"), prepared_collector():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS_MAX
        raise ValueError("in the middle")
    assert gc.get_threshold() == before


def test_a_cycle_is_still_found() -> None:
    class Knot:
        found = 0

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            Knot.found += 1

    with prepared_collector():
        for _ in range(2 * YOUNG_OBJECTS_MAX):
            Knot()
    assert Knot.found > 0
