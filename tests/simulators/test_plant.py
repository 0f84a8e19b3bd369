"""Signals are pure functions of time, bounded, and do what the scenario says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.plant import Broken, Freeze, Ramp, Signal, SignalConfig, Silence


@given(st.floats(0, 1e6), st.text(max_size=8), st.floats(0, 100))
def test_without_events_a_signal_stays_within_its_wander(t_s, seed, wander) -> None:
    signal = Signal(SignalConfig(base=50, wander=wander, decimals=6), seed)
    assert abs(signal.at(t_s) - 50) <= wander + 1e-6


@given(st.floats(0, 1e5), st.text(max_size=8))
def test_the_same_seed_gives_the_same_value(t_s, seed) -> None:
    config = SignalConfig(base=1, wander=0.5)
    assert Signal(config, seed).at(t_s) == Signal(config, seed).at(t_s)


RAMP = SignalConfig(
    base=0.3, events=(Ramp(at_s=10, to=1.6, over_s=5, hold_s=10, back_s=5),), decimals=3
)


@pytest.mark.parametrize(
    ("t_s", "value"),
    [(0, 0.3), (10, 0.3), (12.5, 0.95), (15, 1.6), (25, 1.6), (27.5, 0.95), (30, 0.3), (99, 0.3)],
)
def test_a_ramp_rises_holds_and_comes_back(t_s: float, value: float) -> None:
    assert Signal(RAMP, "s").at(t_s) == pytest.approx(value)


def test_a_frozen_signal_repeats_itself_and_then_moves_on() -> None:
    config = SignalConfig(base=5, wander=2, decimals=6, events=(Freeze(at_s=10, for_s=5),))
    free = Signal(SignalConfig(base=5, wander=2, decimals=6), "s")
    frozen = Signal(config, "s")
    assert frozen.at(14.9) == frozen.at(10) == free.at(10)
    assert frozen.at(15) == free.at(15)


@pytest.mark.parametrize(("t_s", "inside"), [(9.9, False), (10, True), (14.9, True), (15, False)])
def test_silence_and_fault_hold_exactly_for_their_window(t_s: float, inside: bool) -> None:
    events = (Silence(at_s=10, for_s=5), Broken(at_s=10, for_s=5))
    signal = Signal(SignalConfig(base=5, events=events), "s")
    assert signal.is_silent(t_s) is inside
    assert signal.is_broken(t_s) is inside
