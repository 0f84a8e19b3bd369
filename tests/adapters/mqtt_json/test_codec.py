"""Payload bytes: the geohazard wrapper, JSON as devices write it, and limits."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt_json import codec
from gateway.model.errors import RemoteProtocolError

# The reference's own vector: wrapper 03 00 67, then 103 bytes of JSON.
BODY = (
    b'{"3200001":{"L1_GP_1":{"2026-03-14T06:00:00.000Z":'
    b'{"gpsTotalX":9.9,"gpsTotalY":0.5,"gpsTotalZ":-3.2}}}}'
)
WRAPPED = bytes.fromhex("030067") + BODY

WRAPPERS = [
    (WRAPPED, BODY),
    (bytes.fromhex("020067") + BODY, BODY),
    (b"\x05\x00\x67" + BODY + b"\x00\x04file", BODY),
    (b"\x05\x00\x67" + BODY + b"\x00\x00", BODY),
    (b"\x10" + WRAPPED, BODY),
    (b"\x10\x05\x00\x67" + BODY + b"\x00\x04file", BODY),
    (b"\x10\x00\x67" + BODY, BODY),
    (BODY, BODY),
    (b" \n" + BODY, b" \n" + BODY),
    (b"\x03\x00\x02{}", b"{}"),
]


@pytest.mark.parametrize(("payload", "expected"), WRAPPERS)
def test_every_wrapper_seen_in_the_field_is_taken_off(payload, expected):
    assert codec.unwrap(payload) == expected


DAMAGED = [
    (WRAPPED[:-1], "wrapper"),
    (WRAPPED + b"}", "wrapper"),
    (b"\x03\x00\x66" + BODY, "wrapper"),  # the length wrong by one
    (b"\x05\x00\x67" + BODY, "wrapper"),  # no file length
    (b"\x05\x00\x67" + BODY + b"\x00\x05file", "wrapper"),
    (b"\x03", "wrapper"),
    (b"\x10", "wrapper"),
    (b"\x10\x05\x00", "wrapper"),
    (b"", "bad_json"),
    (b"\x04\x00\x02{}", "bad_json"),
    (b"\xff\xfe", "bad_utf8"),
    (b'{"header":{"appId":"x"},"bodies":{"body":"AAAA"}}', "encrypted"),
]


@pytest.mark.parametrize(("payload", "code"), DAMAGED)
def test_a_damaged_geohazard_payload_is_named_by_its_damage(payload, code):
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(payload, wrapper="geohazard")
    assert caught.value.code == code


@given(st.binary(max_size=300), st.binary(max_size=50), st.sampled_from([2, 3, 5]), st.booleans())
def test_what_is_wrapped_comes_out_again(body, file, kind, twice):
    payload = codec.wrap(body, kind, file)
    assert codec.unwrap(b"\x10" + payload if twice else payload) == body


def test_the_same_key_twice_with_two_values_is_ambiguous_and_with_one_value_is_not():
    body = codec.decode(b'{"a":{"v":1,"v":900,"w":2},"n":NaN,"n":NaN,"x":1,"x":1.0,"x":1}')
    assert body["a"] == {"v": codec.AMBIGUOUS, "w": 2}
    assert math.isnan(body["n"])
    assert body["x"] is codec.AMBIGUOUS


NUMBERS = [
    (b"9223372036854775807", 9223372036854775807),
    (b"1" + b"0" * 5000, math.inf),  # Python alone refuses more than 4,300 digits
    (b"-1" + b"0" * 400, -math.inf),
    (b"1e999", math.inf),
    (b"123456789012345678901", 1.2345678901234568e20),
    (b"Infinity", math.inf),
    (b"\xef\xbb\xbf[1]", [1]),
]


@pytest.mark.parametrize(("data", "expected"), NUMBERS)
def test_numbers_that_do_not_fit_become_floats(data, expected):
    assert codec.decode(data) == expected


def test_nesting_is_limited_and_brackets_inside_texts_do_not_count():
    deepest = b"[" * codec.NESTING_MAX + b"]" * codec.NESTING_MAX
    assert codec.decode(deepest)
    assert codec.decode(json.dumps({"note": "[" * 5000 + '"{'}).encode())
    for levels in (codec.NESTING_MAX + 1, 100_000):
        with pytest.raises(RemoteProtocolError, match="too_deep"):
            codec.decode(b"[" * levels + b"]" * levels)
    with pytest.raises(RemoteProtocolError, match="too_deep"):
        codec.decode(b'{"a":' * 50_000)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 40 + b'\\"' * 30_000,
        b"[" * 40 + b'"' + b'\\"' * 30_000,
        b"[" * 1_000_000,
        b"[" * 40 + b"\\" * 1_000_000,
    ],
    ids=["quotes outside", "string without end", "brackets", "backslashes"],
)
def test_large_nonsense_is_refused(data):
    with pytest.raises(RemoteProtocolError):  # how long it takes: make fuzz, which asks a clock
        codec.decode(data)


def test_a_payload_over_the_limit_is_refused_before_it_is_read():
    codec.decode(b" " * (codec.PAYLOAD_SIZE_MAX - 2) + b"{}")
    with pytest.raises(RemoteProtocolError, match="too_large"):
        codec.decode(b"\xff" * (codec.PAYLOAD_SIZE_MAX + 1))


@given(st.binary(max_size=200), st.sampled_from(["none", "geohazard"]))
def test_any_bytes_are_a_value_or_a_protocol_error(data, wrapper):
    code = "bad_json"
    try:
        codec.decode(data, wrapper=wrapper)
    except RemoteProtocolError as error:
        code = error.code
    assert code in {"wrapper", "bad_json", "bad_utf8", "too_deep", "encrypted"}


@given(
    st.dictionaries(
        st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False) | st.none()
    ),
    st.integers(0, 2**63 - 1),
)
def test_a_report_reads_back_as_the_same_floats(values, time_ns):
    body = codec.decode(codec.encode_report("dam1", time_ns, values))
    assert body["values"] == values
    assert [math.copysign(1, v) for v in body["values"].values() if v is not None] == [
        math.copysign(1, v) for v in values.values() if v is not None
    ]
