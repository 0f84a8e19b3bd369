"""Samples over MQTT, and the configuration of both sinks."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import gateway.sinks.mqtt
from gateway.contract.mqtt import is_refusal
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.sinks.mqtt import KIND
from gateway.sinks.mqtt.config import MqttSinkConfig, client_id
from gateway.testing.servers import mosquitto_sub, until

T0 = 1_773_468_000_123_456_789
TOPIC = "hazard/v1/mine-a/north/telemetry"
BATCH = Batch.of(
    [0, 1, 0],
    [128.25, math.nan, 0.1],
    [T0, T0 + 1, T0 + 2],
    received_time_ns=T0 + 9,
    quality=[0, 0x81, 0x41],
)


def sink_for(port: int, context, **settings):
    assert KIND.build_samples is not None
    return KIND.build_samples(MqttSinkConfig(port=port, connect_timeout_s=3.0, **settings), context)


@pytest.mark.system
async def test_every_sample_is_told_and_a_repeat_is_the_same_bytes(port, context, tmp_path):
    sink = sink_for(port, context, telemetry="on", telemetry_batch_size=2)
    with mosquitto_sub(port, tmp_path, TOPIC) as live:
        await sink.open()
        assert (await sink.write(BATCH, 103)).accepted == 3
        await sink.write(BATCH, 103)
        await until(lambda: len(live.heard) == 4)
    await sink.close()
    assert [m.payload for m in live.heard[:2]] == [m.payload for m in live.heard[2:]]
    parts = [json.loads(m.payload) for m in live.heard[:2]]
    assert [p["end_offset"] for p in parts] == [102, 103]
    samples = [s for p in parts for s in p["samples"]]
    assert [(s["point"], s["value"], s["quality"], s["time_ns"]) for s in samples] == [
        ("dam1.pool_level", 128.25, "good", T0),
        ("dam1.rain", None, "bad_no_value", T0 + 1),
        ("dam1.pool_level", 0.1, "uncertain_clock", T0 + 2),
    ]


@pytest.mark.system
async def test_it_connects_again_by_itself_after_a_loss(broker, context, tmp_path):
    sink = sink_for(broker.port, context, telemetry="on")
    await sink.open()
    broker.stop()
    await until(sink._link.lost.is_set)
    with pytest.raises(Unavailable):
        await sink.write(BATCH, 3)
    broker.start()
    with mosquitto_sub(broker.port, tmp_path, TOPIC) as live:
        await sink.write(BATCH, 3)
        await until(lambda: live.heard)
    await sink.close()


def test_switched_off_no_sink_is_built_and_so_no_cursor_kept(context):
    assert KIND.build_samples(MqttSinkConfig(), context) is None


def test_the_sample_shows_every_option_with_its_default():
    path = Path(gateway.sinks.mqtt.__file__).with_name("sample.toml")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(table) == set(MqttSinkConfig.model_fields)
    assert MqttSinkConfig.model_validate(table) == MqttSinkConfig()


@pytest.mark.parametrize("root", ["", "a+", "#", "/a", "$a"])
def test_a_root_that_cannot_be_published_to_is_refused(root):
    with pytest.raises(ValidationError):
        MqttSinkConfig(root=root)


def test_the_two_connections_of_a_sink_and_two_sites_have_different_client_ids():
    config = MqttSinkConfig()
    ids = {client_id(config, part, "mqtt", "t", site) for part in "at" for site in ("s1", "s2")}
    assert len(ids) == 4
    assert all(len(i) <= 23 for i in ids)
    assert client_id(MqttSinkConfig(client_id="edge7"), "a", "mqtt", "t", "s") == "edge7-a"


@pytest.mark.parametrize(
    ("code", "forever"),
    [
        (0x86, True),
        (0x87, True),
        (0x84, True),
        (0x88, False),
        (0x89, False),
        (0x97, False),
        (0x80, False),
    ],
)
def test_only_what_a_retry_cannot_change_is_a_refusal(code, forever):
    assert is_refusal(code) == forever
