"""What is published, held against the published schema by an independent checker."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.model.alarm import AlarmState, Transition
from gateway.model.quality import Quality
from gateway.model.rule import Citation, Confidence, Priority
from gateway.sinks.mqtt import wire
from gateway.sinks.mqtt.topics import Topics, level

SPEC = yaml.safe_load(
    (Path(__file__).parents[3] / "docs" / "alarm-mqtt.asyncapi.yaml").read_text(encoding="utf-8")
)
T0 = 1_773_468_000_123_456_789


def check_payload(payload: bytes, schema: str) -> dict:
    """The payload is JSON without NaN and what the schema of that name says."""
    row = json.loads(payload, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    validator = jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]}
    )
    errors = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(row)]
    assert not errors, errors
    return row


def test_the_schema_refuses_what_it_should():
    """A checker that accepts everything would make every test below pass."""
    good = json.loads(wire.gateway_status("online", epoch=1, since_ns=T0))
    check_payload(json.dumps(good).encode(), "Status")
    for key, value in (
        ("status", "on"),
        ("since", "yesterday"),
        ("v", 2),
        ("more", 1),
        ("epoch", 1.5),
    ):
        with pytest.raises(AssertionError):
            check_payload(json.dumps({**good, key: value}).encode(), "Status")


def test_every_word_of_the_life_cycle_is_in_the_schema():
    schemas = SPEC["components"]["schemas"]
    assert set(schemas["State"]["enum"]) == {state.value for state in AlarmState}
    assert set(schemas["Transition"]["enum"]) == {transition.value for transition in Transition}
    confidence = schemas["Citation"]["properties"]["confidence"]["enum"]
    assert set(confidence) == {word.value for word in Confidence}


def test_the_channels_of_the_schema_are_the_topics_of_the_sink():
    topics = Topics.of("{root}", "t", "s")
    addresses = {name: channel["address"] for name, channel in SPEC["channels"].items()}
    prefix = topics.prefix.replace("/t/s", "/{tenant}/{site}")
    assert addresses == {
        "state": f"{prefix}/alarm/{{key}}/state",
        "event": topics.event.replace(topics.prefix, prefix),
        "heartbeat": topics.heartbeat.replace(topics.prefix, prefix),
        "status": topics.status.replace(topics.prefix, prefix),
        "telemetry": topics.telemetry.replace(topics.prefix, prefix),
    }


def test_a_row_says_value_limit_law_place_and_times(make_alarm):
    row = check_payload(wire.alarm_row(make_alarm()), "Alarm")
    assert (row["value"], row["limit"], row["unit"], row["level"]) == (68.5, 70.0, "m", "LL")
    assert (row["priority"], row["scheme"], row["scheme_level"]) == (1, "tailings", "red")
    assert row["citation"]["confidence"] == "unconfirmed"
    assert (row["active_time"], row["active_time_ns"]) == ("2026-03-14T06:00:00.123456789Z", T0)
    assert (row["return_time"], row["return_time_ns"]) == (None, None)
    assert (row["alarm_key"], row["occ_no"], row["seq"], row["gseq"], row["epoch"]) == (
        "dam1:tailings.beach",
        1,
        1,
        41,
        3,
    )


numbers = st.none() | st.floats()
texts = st.text(max_size=12)
times = st.none() | st.integers(0, 4_102_444_800 * 10**9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "alarm_key": st.text(min_size=1, max_size=12),
            "state": st.sampled_from(AlarmState),
            "priority": st.sampled_from(Priority),
            "value": numbers,
            "peak": numbers,
            "limit": numbers,
            "quality": st.sampled_from([int(q) for q in Quality] + [63, 200, 255]),
            "name": st.dictionaries(st.sampled_from(["zh", "en"]), texts),
            "location": texts,
            "suppressed_by": st.lists(texts, max_size=2).map(tuple),
            "shelved": st.sampled_from(["", "timed", "oneshot"]),
            "citation": st.builds(
                Citation, texts, texts, texts, st.sampled_from(Confidence), texts
            ),
            "return_time_ns": times,
            "shelved_until_ns": times,
            "gseq": st.integers(0, 2**62),
        }
    ),
    st.sampled_from(Transition),
    numbers,
)
def test_any_alarm_and_event_are_lawful_payloads(
    make_alarm, make_event, changes, transition, value
):
    alarm = make_alarm(**changes)
    row = wire.alarm_row(alarm)
    said = check_payload(row, "Alarm")
    event = make_event(alarm, transition=transition, value=value)
    told = check_payload(wire.event(event, row), "Event")
    assert told["alarm"] == said
    assert told["value"] == (value if value is not None and math.isfinite(value) else None)


def test_half_a_surrogate_in_a_name_does_not_stop_an_alarm(make_alarm, make_event):
    alarm = make_alarm(location="北\ud800坝")
    row = wire.alarm_row(alarm)
    assert check_payload(row, "Alarm")["location"] == "北?坝"
    check_payload(wire.event(make_event(alarm, comment="\udfff"), row), "Event")


def test_heartbeat_status_and_telemetry_are_lawful_payloads():
    beat = {"time_ns": T0, "epoch": 3, "head_gseq": 41, "standing": 1, "unacknowledged": 0}
    assert check_payload(wire.heartbeat(beat, T0), "Heartbeat")["time"].startswith("2026-03-14T06")
    for state, epoch, reason in (
        ("online", None, ""),
        ("offline", 3, "closed"),
        ("offline", 3, "connection lost"),
    ):
        check_payload(wire.gateway_status(state, epoch=epoch, since_ns=T0, reason=reason), "Status")
    columns = {
        "value": [1.5, math.nan],
        "quality": [0, 0x81],
        "source_time_ns": [T0, T0 + 1],
        "received_time_ns": [T0, T0],
    }
    row = check_payload(wire.telemetry(["a", "b"], columns, 7), "Telemetry")
    assert [(s["point"], s["value"], s["quality"]) for s in row["samples"]] == [
        ("a", 1.5, "good"),
        ("b", None, "bad_no_value"),
    ]


LEVELS = [
    ("dam1:tailings.beach", "dam1:tailings.beach"),
    ("北坝:r", "北坝:r"),
    ("a/b+c#d", "a%2Fb%2Bc%23d"),
    ("100%", "100%25"),
    ("a\x00\n", "a%00%0A"),
    ("", "%"),
    ("\ud800", "%uD800"),
]


@pytest.mark.parametrize(("name", "expected"), LEVELS)
def test_a_name_is_one_level_of_a_topic(name, expected):
    assert level(name) == expected


@given(st.text(max_size=30), st.text(max_size=30))
def test_different_names_are_different_levels_that_mqtt_allows(one, other):
    assert (level(one) == level(other)) == (one == other)
    assert not set(level(one)) & set("/+#\x00")
    level(one).encode()
