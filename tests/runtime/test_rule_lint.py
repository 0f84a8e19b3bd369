"""The lint's formulas are those of run-length alarms, and agree with the core within ten percent."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from history_site import PLUGINS, T0, S, site
from hypothesis import given
from hypothesis import strategies as st
from test_backtest import SITE_OF_ONE, store_of

from gateway.cli import main
from gateway.model.batch import Batch
from gateway.model.point import PointTable
from gateway.runtime.rerun import Judging
from gateway.runtime.rule_lint import (
    LintOptions,
    activations,
    detection_samples,
    lint,
    samples_in_a_row,
    time_in_alarm,
)

probability = st.floats(0.01, 0.6)
length = st.integers(1, 5)


@given(probability, length, length)
def test_without_a_deadband_the_share_in_alarm_is_the_references_formula(p, n, m) -> None:
    q = 1 - p
    up = p**n * sum(q**i for i in range(m))
    down = q**m * sum(p**j for j in range(n))
    assert time_in_alarm(p, q, n, m) == pytest.approx(up / (up + down))


@given(probability, length)
def test_without_a_deadband_detection_is_the_references_formula(r, n) -> None:
    assert detection_samples(r, 1 - r, n) == pytest.approx((1 - r**n) / ((1 - r) * r**n))


@given(probability, st.floats(0.2, 1.0), length, length)
def test_activations_and_share_follow_from_one_cycle(p, keep, n, m) -> None:
    """One alarm a cycle, which is a wait to raise and a wait to clear."""
    c = (1 - p) * keep
    share = time_in_alarm(p, c, n, m)
    cycle = 1 / activations(p, c, n, m)
    assert detection_samples(p, c, n) == pytest.approx(cycle * (1 - share))
    assert detection_samples(c, p, m) == pytest.approx(cycle * share)


@pytest.mark.parametrize(
    ("p", "c", "n", "m", "rate"),
    [(0.0, 1.0, 1, 1, 0.0), (0.1, 0.9, 1, 1, 0.09), (0.5, 0.5, 2, 1, 0.125), (1.0, 0.0, 1, 1, 0.0)],
)
def test_the_rate_at_its_corners(p, c, n, m, rate) -> None:
    assert activations(p, c, n, m) == pytest.approx(rate)


@pytest.mark.parametrize(("delay_s", "n"), [(0, 1), (0.5, 1), (10, 1), (10.1, 2), (20, 2), (30, 3)])
def test_a_delay_takes_so_many_samples_in_a_row(delay_s, n) -> None:
    assert samples_in_a_row(delay_s, 10.0) == n


def test_what_never_sets_is_never_detected() -> None:
    assert detection_samples(0.0, 1.0, 3) == math.inf


RULE = """
[[rule]]
id = "noise"
kind = "limit"
value = {{ quantity = "methane" }}
parameters = {{ levels = {{ H = {{ limit = {limit}, reset = {reset} }} }} }}
on_delay_s = {on}
off_delay_s = {off}
"""
SIMULATED = [
    # limit, reset, on, off: in spreads of noise around 0
    (1.5, 1.5, 0, 0), (1.0, 0.5, 0, 0), (1.0, 1.0, 20, 0), (1.0, 1.0, 0, 30), (0.8, 0.2, 20, 20),
    (0.6, 0.0, 30, 25),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "reset", "on", "off"), SIMULATED)
def test_predicted_alarms_are_within_ten_percent_of_replayed_ones(
    limit, reset, on, off, tmp_path
) -> None:
    """Independent noise, as assumed: 30,000 samples ten seconds apart."""
    config = site(tmp_path, SITE_OF_ONE + RULE.format(limit=limit, reset=reset, on=on, off=off))
    size = 30_000
    value = np.random.default_rng(11).normal(0, 1, size)
    time = (T0 + np.arange(size) * 10 * S).tolist()
    store_of(config, list(zip(["g1"] * size, time, time, value.tolist(), strict=True)))
    (row,), notes = lint(config, PLUGINS, LintOptions(tmp_path / "site.toml"))
    assert notes == []
    assert (row.samples, row.interval_s, row.is_tail) == (size, 10.0, False)
    assert row.replayed_per_day > 50
    assert row.predicted_per_day == pytest.approx(row.replayed_per_day, rel=0.10)
    assert abs(row.lag1) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("reset", "on"), [(2.0, 0.0), (1.0, 20.0), (2.0, 35.0)])
def test_predicted_detection_is_that_of_the_core(reset, on, tmp_path) -> None:
    """Many onsets of a mean one spread beyond the limit, each timed by replaying it."""
    config = site(tmp_path, SITE_OF_ONE + RULE.format(limit=2.0, reset=reset, on=on, off=0))
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, 3_000)
    time = (T0 - 300_000 * S + np.arange(len(noise)) * 10 * S).tolist()
    store_of(config, list(zip(["g1"] * len(noise), time, time, noise.tolist(), strict=True)))
    (row,), _ = lint(config, PLUGINS, LintOptions(tmp_path / "site.toml"))
    onsets, calm, step_s = 250, 4, 10
    value = rng.normal(3.0, 1, (onsets, 64))
    value[:, :calm] = -5.0
    time = T0 + np.arange(value.size) * step_s * S
    judging = Judging(config, PLUGINS, config.rules, points_of(config))
    batch = Batch.of(np.zeros(value.size, int), value.ravel(), time, received_time_ns=time)
    events = judging.judge(batch, int(time[-1]))
    begins = np.array([e.time_ns for e in events if e.transition.value == "ACT"])
    onset = time.reshape(onsets, -1)[:, calm]
    first = begins[np.searchsorted(begins, onset)] - onset
    assert (first < 60 * step_s * S).all(), "an onset was never found: too short to judge by"
    mean_s = float(first.mean()) / S + step_s / 2  # the onset lies anywhere in the interval
    assert row.detection_s["1"] == pytest.approx(mean_s, rel=0.10)


def points_of(config) -> PointTable:
    table = PointTable()
    for point in config.points:
        table.put(point)
    return table


def test_a_limit_never_reached_is_predicted_from_the_tail(tmp_path, capsys) -> None:
    config = site(tmp_path, SITE_OF_ONE + RULE.format(limit=4.0, reset=4.0, on=0, off=0))
    value = np.clip(np.random.default_rng(1).normal(0, 1, 5_000), -3.3, 3.3)
    time = (T0 + np.arange(len(value)) * 10 * S).tolist()
    store_of(config, list(zip(["g1"] * len(value), time, time, value.tolist(), strict=True)))
    assert main(["lint", "-c", str(tmp_path / "site.toml"), "--days", "3", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["levels"]
    assert row["is_tail"] is True
    assert row["replayed_per_day"] == 0
    assert row["set_share"] == pytest.approx(3.17e-5, rel=0.25)  # the normal tail at 4
    assert main(["lint", "-c", str(tmp_path / "site.toml"), "--days", "3"]) == 0
    assert "~0." in capsys.readouterr().out


def advice_of(tmp_path, quantity: str, rule: str, value) -> str:
    text = SITE_OF_ONE.replace('"methane"', f'"{quantity}"') + rule.replace(
        '"methane"', f'"{quantity}"'
    )
    config = site(tmp_path, text)
    time = (T0 + np.arange(len(value)) * 10 * S).tolist()
    store_of(config, list(zip(["g1"] * len(value), time, time, list(value), strict=True)))
    (row,), _ = lint(config, PLUGINS, LintOptions(tmp_path / "site.toml"))
    return "; ".join(row.advice)


def test_gas_is_never_advised_to_wait_and_other_signals_get_a_deadband(tmp_path) -> None:
    noise = np.random.default_rng(2).normal(0, 1, 3_000)
    rule = RULE.format(limit=1.5, reset=1.5, on=20, off=0)
    gas = advice_of(tmp_path / "gas", "methane", rule, noise)
    assert "on_delay_s = 0 (it is 20)" in gas
    assert "off_delay_s of at least 30" in gas
    assert "deadband" not in gas
    heat = advice_of(
        tmp_path / "heat", "temperature", RULE.format(limit=1.5, reset=1.5, on=0, off=0), noise
    )
    assert "deadband" in heat
    assert "on_delay_s = 60" in heat


def test_noise_that_wanders_is_said_to_break_the_assumption(tmp_path) -> None:
    steps = np.random.default_rng(3).normal(0, 0.1, 3_000).cumsum()
    advice = advice_of(tmp_path, "methane", RULE.format(limit=1.5, reset=1.5, on=0, off=30), steps)
    assert "believe the replayed figure" in advice


def test_days_that_are_none_and_sites_without_limits_are_refused(tmp_path, capsys) -> None:
    site(tmp_path, SITE_OF_ONE + RULE.format(limit=1, reset=1, on=0, off=0))
    assert main(["lint", "-c", str(tmp_path / "site.toml"), "--days", "0"]) == 2
    site(tmp_path, SITE_OF_ONE)
    assert main(["lint", "-c", str(tmp_path / "site.toml")]) == 1
    assert "no limit rule" in capsys.readouterr().err
