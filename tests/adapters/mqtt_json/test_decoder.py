"""`decode mqtt_json`: one message a line."""

from __future__ import annotations

import json

import pytest

from adapters.mqtt_json import KIND, codec
from gateway.model.errors import RemoteProtocolError

T0 = 1_773_468_000_000_000_000
GEO = '{"3200001":{"L1_GP_1":{"2026-03-14T06:00:00.000Z":{"gpsTotalX":9.9}}}}'
REPORT = codec.encode_report("dam1", T0, {"rain": 0.2}).decode()


def feed(line: str):
    assert KIND.decoder is not None
    return KIND.decoder().feed(line)


@pytest.mark.parametrize(
    ("line", "samples"),
    [
        (f"$dp\t{GEO}", [("3200001.L1_GP_1.gpsTotalX", 9.9)]),
        (f"$dp hex:{codec.wrap(GEO.encode()).hex()}", [("3200001.L1_GP_1.gpsTotalX", 9.9)]),
        (f"tailings/d1/telemetry {REPORT}\r\n", [("dam1.rain", 0.2)]),
        (f"elsewhere/d1/telemetry {REPORT}", [("dam1.rain", 0.2)]),
    ],
)
def test_a_line_says_what_the_message_said(line, samples):
    (decoded,) = feed(line)
    assert [(s["point"], s["value"]) for s in decoded.samples] == samples
    assert {s["time"] for s in decoded.samples} == {"2026-03-14T06:00:00Z"}
    json.dumps(decoded.message, allow_nan=False)
    json.dumps(decoded.samples, allow_nan=False)


def test_a_sample_without_a_time_or_a_value_says_so():
    (decoded,) = feed('tailings/d1/telemetry {"device":"d","values":{"rain":NaN}}')
    assert decoded.samples == [
        {"point": "d.rain", "value": None, "time": None, "quality": "bad_not_a_number"}
    ]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("tailings/d1/telemetry", "line"),
        ("$dp hex:0g", "line"),
        ("$dp hex:03ffff", "wrapper"),
        ("tailings/d1/telemetry {", "bad_json"),
        ("tailings/d1/telemetry \udcff", "bad_utf8"),
        ("some/other/topic 1", "no_match"),
        ('tailings/d1/telemetry {"device":"a b","values":{"rain":1}}', "bad_id"),
        ("{x}/d1/telemetry 1", "no_match"),
        ('a\x00b/d1/telemetry {"device":"d","values":{"rain":1}}', "no_match"),
        ('\udcff/d1/telemetry {"device":"d","values":{"rain":1}}', "no_match"),
        ("x" * 2000 + '/d1/telemetry {"device":"d","values":{"rain":1}}', "no_match"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line, code):
    with pytest.raises(RemoteProtocolError) as caught:
        feed(line)
    assert caught.value.code == code


def test_an_empty_line_says_nothing():
    assert feed("\n") == []
