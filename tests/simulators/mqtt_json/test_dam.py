"""The simulated dam: physics, seeds, scenarios."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulators.mqtt_json.config import QUIET, RainStorm, TailingsConfig
from simulators.mqtt_json.dam import Dam
from simulators.plant import Broken, Freeze, Ramp, SignalConfig, Silence

STORM = RainStorm(at_s=100, for_s=3600, rain_mm_per_h=50, catchment_ratio=10, drain_m_per_h=0.1)


def scenario(name: str) -> TailingsConfig:
    table = tomllib.loads((files("simulators") / "scenarios" / f"{name}.toml").read_text("utf-8"))
    assert set(table) == {"summary", "config"}
    return TailingsConfig.model_validate(table["config"])


@given(st.floats(0, 20_000), st.integers(0, 5))
def test_the_beach_always_follows_from_level_crest_and_slope(t_s, seed):
    config = TailingsConfig(rain_storm=(STORM,), beach_slope=0.02)
    values = Dam(config, "dam1", seed).report(t_s)
    expected = max(0.0, (values["beach_top"] - values["pool_level"]) / 0.02)
    assert values["beach_length"] == pytest.approx(expected, abs=0.005)


def test_heavy_rain_raises_the_pool_and_shrinks_the_beach_and_both_recover():
    dam = Dam(scenario("tailings-rain"), "dam1", 1)
    before, during, after = dam.report(60), dam.report(1920), dam.report(9000)
    assert during["pool_level"] - before["pool_level"] == pytest.approx(1.2, abs=0.05)
    assert before["beach_length"] - during["beach_length"] == pytest.approx(60, abs=3)
    assert abs(after["pool_level"] - before["pool_level"]) < 0.05
    assert dam.report(1000)["rain"] > 0
    assert (before["rain"], after["rain"]) == (0.0, 0.0)


@given(st.floats(0.1, 900), st.integers(2, 200))
def test_the_rain_of_all_reports_adds_up_to_what_fell(interval_s, count):
    dam = Dam(TailingsConfig(rain_storm=(STORM,), interval_s=interval_s), "dam1", 1)
    total = sum(dam.rain_mm(n * interval_s, (n + 1) * interval_s) for n in range(count))
    fallen = min(max(0.0, count * interval_s - 100), 3600) / 3600 * 50
    assert total == pytest.approx(fallen, abs=0.11)  # one tip of the bucket is still on its way


def test_the_same_seed_sends_the_same_values_and_another_seed_or_dam_does_not():
    config = TailingsConfig(dams=("dam1", "dam2"))
    assert Dam(config, "dam1", 1).report(33) == Dam(config, "dam1", 1).report(33)
    assert Dam(config, "dam1", 1).report(33) != Dam(config, "dam1", 2).report(33)
    assert Dam(config, "dam1", 1).report(33) != Dam(config, "dam2", 1).report(33)


EVENTS = [
    ("pool_level", Silence(at_s=10, for_s=10), {"pool_level": "absent", "beach_length": "absent"}),
    ("pool_level", Broken(at_s=10, for_s=10), {"pool_level": None, "beach_length": None}),
    ("beach_top", Broken(at_s=10, for_s=10), {"beach_top": None, "beach_length": None}),
    (
        "pool_level",
        Ramp(at_s=0, to=130.0, over_s=1, hold_s=60),
        {"pool_level": 130.0, "beach_length": 50.0},
    ),
    ("seepage_flow", Silence(at_s=10, for_s=10), {"seepage_flow": "absent"}),
]


@pytest.mark.parametrize(("quantity", "event", "expected"), EVENTS)
def test_an_event_of_a_signal_reaches_what_follows_from_it(quantity, event, expected):
    signal = QUIET[quantity].model_copy(update={"wander": 0.0, "events": (event,)})
    values = Dam(TailingsConfig(signals={quantity: signal}), "dam1", 1).report(15)
    assert {name: values.get(name, "absent") for name in expected} == expected


def test_a_frozen_sensor_repeats_its_value_while_it_rains():
    signal = QUIET["displacement_x"].model_copy(update={"events": (Freeze(at_s=0, for_s=50),)})
    dam = Dam(TailingsConfig(signals={"displacement_x": signal}), "dam1", 1)
    assert dam.report(0)["displacement_x"] == dam.report(49)["displacement_x"]


@pytest.mark.parametrize("name", ["tailings-normal", "tailings-rain"])
def test_a_shipped_scenario_loads_and_has_no_target(name):
    config = scenario(name)
    assert not {"host", "port"} & config.model_fields_set
    assert config.dams


FAULTS = [
    {"dams": ["a/b"]},
    {"dams": []},
    {"dams": ["a", "a"]},
    {"root": "x/y"},
    {"signals": {"rain": {"base": 1}}},
    {"signals": {"beach_length": {"base": 1}}},
    {"interval_s": 0},
    {"unknown": 1},
]


@pytest.mark.parametrize("settings", FAULTS)
def test_a_dam_that_cannot_be_is_refused(settings):
    with pytest.raises(ValidationError):
        TailingsConfig.model_validate(settings)


def test_a_quantity_of_ones_own_is_sent_beside_the_others():
    config = TailingsConfig(signals={"pore_pressure": SignalConfig(base=52.0)})
    assert Dam(config, "dam1", 1).report(0)["pore_pressure"] == 52.0
