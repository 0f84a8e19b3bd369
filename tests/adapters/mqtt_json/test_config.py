"""The configuration: defaults, sample file, and faults found before start."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import adapters.mqtt_json
from adapters.mqtt_json import KIND
from adapters.mqtt_json.config import MappingConfig, MqttJsonConfig
from adapters.mqtt_json.mapping import Message, Translator
from adapters.mqtt_json.profiles import mappings_of, wrapper_of

SAMPLE = Path(adapters.mqtt_json.__file__).with_name("sample.toml")


def test_the_sample_shows_every_option_with_its_default():
    table = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    mappings = table.pop("mappings")
    assert table.pop("profile") == "tailings-generic"
    loaded = MqttJsonConfig(profile="tailings-generic", **table)
    assert set(table) == set(MqttJsonConfig.model_fields) - {"profile", "mappings"}
    assert loaded == MqttJsonConfig(profile="tailings-generic")
    assert len(mappings) == 1


def test_the_mapping_of_the_sample_works():
    table = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    config = MqttJsonConfig.model_validate(table)
    body = {"ts": 1773468000000, "data": {"lvl": {"v": 1250, "q": 0}, "spare": {"v": 1}}}
    found = Translator(mappings_of(config)).translate(Message("plant/p1/s9/data", body, 1))
    assert [(r.point_id, r.value, r.source_time_ns) for r in found.rows] == [
        ("s9.lvl", 1.25, 1_773_468_000_000_000_000)
    ]
    assert found.points[0].area == "p1"


FAULTS = [
    ({}, "a profile or at least one mapping"),
    ({"profile": "national"}, "profile"),
    ({"profile": "geohazard", "unknown": 1}, "unknown"),
    ({"profile": "geohazard", "root": "a/b"}, "root"),
    ({"profile": "geohazard", "tls": "on", "cert_file": "x"}, "come together"),
    ({"profile": "geohazard", "ca_file": "x"}, 'tls = "off"'),
    ({"profile": "geohazard", "password": "x"}, "username"),
    ({"profile": "geohazard", "port": 0}, "port"),
    ({"profile": "geohazard", "receive_max": 70_000}, "receive_max"),
]


@pytest.mark.parametrize(("settings", "said"), FAULTS)
def test_a_configuration_that_cannot_work_is_refused_with_its_key(settings, said):
    with pytest.raises(ValidationError, match=said):
        MqttJsonConfig.model_validate(settings)


ONE = {"topic": "t/{s}", "device": "{s}", "point": "{s}.v"}
MAPPING_FAULTS = [
    ({"topic": "t/{s"}, "topic"),
    ({"point": "{other}.v"}, "other"),
    ({"name": "{other}"}, "other"),
    ({"fields": {"a": {"name": "{other}"}}, "field": "{s}"}, "other"),
    ({"value": "{other}"}, "other"),
    ({"value": "$.{x}"}, "belong in"),
    ({"time_format": "iso"}, "time_format"),
    ({"time_format": "%Y"}, "time_zone"),
    ({"time_zone": "Asia/Shanghai"}, "time_zone"),
    ({"quality_map": {"0": "good"}}, "quality"),
    ({"quality": "q", "quality_map": {"0": "fine"}}, "bad_sensor_fault"),
    ({"fields": {"a": {}}}, "field"),
    ({"scale": float("inf")}, "scale"),
    ({"unkown": 1}, "unkown"),
]


@pytest.mark.parametrize(("changes", "said"), MAPPING_FAULTS)
def test_a_mapping_that_cannot_work_is_refused_when_it_is_loaded(changes, said):
    MappingConfig.model_validate(ONE)
    with pytest.raises(ValidationError, match=said):
        MappingConfig.model_validate({**ONE, **changes})


def test_the_password_is_not_shown():
    config = MqttJsonConfig(profile="geohazard", username="u", password="opensesame")
    assert "opensesame" not in repr(config) + str(config.model_dump()) + config.model_dump_json()


def test_a_profiles_wrapper_wins_over_the_setting():
    assert wrapper_of(MqttJsonConfig(profile="geohazard")) == "geohazard"
    assert wrapper_of(MqttJsonConfig(profile="tailings-generic")) == "none"


def test_the_root_of_the_tailings_profile_is_part_of_its_topic():
    config = MqttJsonConfig(profile="tailings-generic", root="矿区")
    assert Translator(mappings_of(config)).subscriptions == ["矿区/+/telemetry"]


def test_listing_the_plug_in_needs_no_mqtt_library():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['paho'] = None; sys.modules['aiomqtt'] = None;"
        "import adapters.mqtt_json, gateway.sinks.mqtt, simulators.mqtt_json;"
        "print(adapters.mqtt_json.KIND.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KIND.name
