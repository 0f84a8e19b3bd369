"""`decode jt808`: the golden frames, and every way one byte of them can go wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808 import KIND
from adapters.jt808.codec import (
    EDITION_2013,
    Authentication,
    Heartbeat,
    Item,
    Location,
    Package,
    RawMessage,
    ResendRequest,
    TimeReply,
    encode_frame,
    encode_message,
    encode_packages,
    header_for,
)
from adapters.jt808.decoder import Jt808Decoder
from gateway.contract.adapter import Decoded
from gateway.model.errors import RemoteProtocolError

GOLDEN = tomllib.loads(Path(__file__).with_name("golden.toml").read_text("utf-8"))["frame"]
FRAMES = [
    pytest.param(bytes.fromhex(part), id=f"{case['name']}/{number}")
    for case in GOLDEN
    for number, part in enumerate(case["wire"].split())
]
CODES = {"framing", "length", "checksum", "escape", "header", "package"}


def check_decoded(lines: list[str], case: dict[str, Any]) -> None:
    decoder = Jt808Decoder()
    *before, last = [decoder.feed(line) for line in lines]
    assert all(not decoded for decoded in before)
    (decoded,) = last
    assert json.loads(json.dumps(decoded.message)) == decoded.message
    assert {key: decoded.message[key] for key in case["message"]} == case["message"]
    said = {str(s["point"]).removeprefix("v13800001234."): s["value"] for s in decoded.samples}
    assert said == case["samples"]
    assert {s["time"] for s in decoded.samples} <= {case.get("time")}
    assert {s["quality"] for s in decoded.samples} <= {"good"}
    if "items" in case:
        assert decoded.message["items"] == case["items"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_a_golden_frame_says_what_its_table_says(case: dict[str, Any]) -> None:
    check_decoded(case["wire"].split(), case)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_blanks_and_small_letters_change_nothing(case: dict[str, Any]) -> None:
    check_decoded(
        [f"  {part.lower()[:2]} {part.lower()[2:]}\t" for part in case["wire"].split()], case
    )


def test_all_packets_on_one_line_give_the_same_message() -> None:
    case = next(case for case in GOLDEN if case["name"].startswith("V8"))
    check_decoded([case["wire"]], case)


def test_packets_of_two_terminals_with_the_same_serials_are_never_joined() -> None:
    def packet(phone: str, number: int, body: bytes) -> str:
        header = header_for(0x0900, phone, number, EDITION_2013)
        return encode_frame(header._replace(package=Package(2, number)), body).hex()

    lines = [
        packet("13800000001", 1, b"A1"),
        packet("13800000002", 1, b"B1"),
        packet("13800000002", 2, b"B2"),
        packet("13800000001", 2, b"A2"),
    ]
    decoder = Jt808Decoder()
    said = [(d.message["phone"], d.message["body"]) for line in lines for d in decoder.feed(line)]
    assert said == [
        ("13800000002", b"B1B2".hex().upper()),
        ("13800000001", b"A1A2".hex().upper()),
    ]


def test_no_unfinished_message_is_given_up_for_another() -> None:
    parts = [
        encode_packages(header_for(0x0900, "13800000001", 10 * n, EDITION_2013), bytes([n]) * 4, 2)
        for n in range(20)
    ]
    decoder = Jt808Decoder()
    assert [decoder.feed(first.hex()) for first, _ in parts] == [[]] * 20
    whole = [decoder.feed(second.hex())[0].message["body"] for _, second in parts]
    assert whole == [bytes([n]).hex().upper() * 4 for n in range(20)]


def content(decoded: list[Decoded]) -> Any:
    """What was said, without the note of how it was read."""
    return [({**d.message, "flags": []}, list(d.samples)) for d in decoded]


def feed(decoder: Jt808Decoder, line: str) -> tuple[str, list[Decoded]]:
    """The error's code, or "" and what was decoded; any other exception fails the test."""
    try:
        return "", decoder.feed(line)
    except RemoteProtocolError as error:
        return error.code or "an error without a code", []


def check_damaged(wire: bytes, original: bytes) -> None:
    """A damaged frame is the same message or a named error, never another message."""
    code, decoded = feed(Jt808Decoder(), wire.hex())
    if code:
        assert code in CODES, wire.hex()
    else:
        assert content(decoded) == content(Jt808Decoder().feed(original.hex())), wire.hex()


@pytest.mark.parametrize("wire", FRAMES)
def test_one_changed_byte_never_gives_another_message(wire: bytes) -> None:
    for at, byte in enumerate(wire):
        changes = {byte ^ 1 << bit for bit in range(8)} | {0x00, 0xFF, 0x7D, 0x7E, 0x01, 0x02}
        for change in changes - {byte}:
            check_damaged(wire[:at] + bytes((change,)) + wire[at + 1 :], wire)


@pytest.mark.parametrize("wire", FRAMES)
def test_one_lost_byte_never_gives_another_message(wire: bytes) -> None:
    for at in range(len(wire)):
        check_damaged(wire[:at] + wire[at + 1 :], wire)


@pytest.mark.parametrize("wire", FRAMES)
def test_one_doubled_byte_never_gives_another_message(wire: bytes) -> None:
    for at in range(len(wire)):
        check_damaged(wire[: at + 1] + wire[at:], wire)


@pytest.mark.parametrize("wire", FRAMES)
def test_a_truncated_frame_is_an_error_or_the_same_message(wire: bytes) -> None:
    for size in range(1, len(wire)):
        check_damaged(wire[:size], wire)


@pytest.mark.parametrize("wire", FRAMES)
def test_a_wrong_flag_is_called_framing(wire: bytes) -> None:
    for damaged in (b"\x7f" + wire[1:], wire[:-1] + b"\x7f", wire[1:]):
        with pytest.raises(RemoteProtocolError) as caught:
            Jt808Decoder().feed(damaged.hex())
        assert caught.value.code == "framing"


DAMAGE = [
    ("not hexadecimal", "7E00 zz 7E", "hex"),
    ("half a digit pair", "7E0", "hex"),
    ("flags around nothing", "7E7E", "framing"),
    ("one flag", "7E", "framing"),
    ("no flags", "0002000001380000123400071A", "framing"),
    ("too short for a header", "7E00027E", "header"),
    ("a wrong checksum", "7E0002000001380000123400071B7E", "checksum"),
    ("a length that does not fit", "7E0002000101380000123400071B7E", "length"),
    ("7D in front of something else", "7E0002000001380000127D3400071A7E", "escape"),
    ("part 0 of 2", "", "package"),
    ("a position of 27 bytes", "", "body"),
    ("part 3 of 2", "", "package"),
    ("part 0 of 0", "", "package"),
]


def test_damage_is_named() -> None:
    short = encode_message(RawMessage(0x0200, bytes(27)), "1", 0, EDITION_2013)
    header = header_for(0x0900, "1", 0)
    made = {
        "a position of 27 bytes": short.hex(),
        "part 3 of 2": encode_frame(header._replace(package=Package(2, 3)), b"").hex(),
        "part 0 of 2": encode_frame(header._replace(package=Package(2, 0)), b"").hex(),
        "part 0 of 0": encode_frame(header._replace(package=Package(0, 0)), b"").hex(),
    }
    for name, line, code in DAMAGE:
        with pytest.raises(RemoteProtocolError) as caught:
            Jt808Decoder().feed(line or made[name])
        assert caught.value.code == code, name


def test_an_empty_line_says_nothing() -> None:
    assert Jt808Decoder().feed("  \t") == []


def test_a_time_that_is_none_is_null_and_uncertain() -> None:
    location = Location(0, 2, 0, 0, 0, 0, 0, bytes(6))
    (decoded,) = Jt808Decoder().feed(encode_message(location, "1", 0, EDITION_2013).hex())
    assert decoded.message["time"] is None
    assert {(s["time"], s["quality"]) for s in decoded.samples} == {(None, "uncertain_clock")}


def test_one_changed_byte_of_a_packet_never_gives_another_whole() -> None:
    first, second = (
        bytes.fromhex(part)
        for case in GOLDEN
        if case["name"].startswith("V8")
        for part in case["wire"].split()
    )
    for at in range(len(first)):
        for damaged in (
            first[:at] + bytes((first[at] ^ 0x01,)) + first[at + 1 :],
            first[:at] + b"\x7e" + first[at + 1 :],
            first[:at] + first[at + 1 :],
            first[: at + 1] + first[at:],
        ):
            decoder = Jt808Decoder()
            code, _ = feed(decoder, damaged.hex())
            assert code in {"", *CODES}
            for decoded in decoder.feed(second.hex()):
                assert decoded.message["body"] == "F0303132333435363738393A3B3C3D3E3F40414243"


@given(st.one_of(st.text(max_size=200), st.from_regex(r"\A7E([0-9A-F]{2}|7E|7D| ){0,80}7E\Z")))
def test_any_text_is_decoded_or_a_remote_protocol_error(text: str) -> None:
    code, decoded = feed(Jt808Decoder(), text)
    assert code in {"", "hex", "body", *CODES}
    assert not (code and decoded)


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_any_body_with_a_right_frame_is_decoded_or_a_remote_protocol_error(
    bodies: list[bytes], message_id: int, attributes: int
) -> None:
    decoder = Jt808Decoder()
    for body in bodies:
        for wanted in (message_id, 0x0100, 0x0102, 0x0200, 0x0704, 0x8003, 0x0005, 0x8100):
            wire = encode_message(RawMessage(wanted, body), "13", attributes, EDITION_2013)
            code, found = feed(decoder, wire.hex())
            assert code in {"", "body"}
            for decoded in found:
                json.dumps(decoded.message)
                json.dumps(list(decoded.samples))


def test_the_kind_offers_this_decoder_for_hexadecimal_lines() -> None:
    assert KIND.decodes == "hex"
    assert KIND.decoder is not None
    wire = encode_message(Heartbeat(), "13800001234", 7, EDITION_2013)
    assert wire.hex().upper() == GOLDEN[0]["wire"]
    assert KIND.decoder().feed(wire.hex())[0].message["name"] == "heartbeat"


def test_every_item_is_listed_with_what_is_odd_about_it() -> None:
    location = Location(
        alarm_bits=0,
        status_bits=2,
        latitude=0,
        longitude=0,
        altitude=0,
        speed=0,
        heading=0,
        time_bcd=bytes.fromhex("260731235959"),
        items=(
            Item(0x30, b"\x05"),
            Item(0, b""),
            Item(0x30, b"\x06"),
            Item(1, b"x"),
            Item(0xE9, b"?"),
        ),
        tail=b"\x31\x09",
    )
    (decoded,) = Jt808Decoder().feed(encode_message(location, "1", 0, EDITION_2013).hex())
    assert decoded.message["items"] == [
        {"id": "0x30", "raw": "05", "name": "mobile_signal", "value": 5},
        {"id": "0x30", "raw": "06", "name": "mobile_signal", "value": 6, "note": "duplicate"},
        {"id": "0x01", "raw": "78", "note": "malformed"},
        {"id": "0xE9", "raw": "3F"},
    ]
    assert decoded.message["overrun"] == "3109"
    assert [s["value"] for s in decoded.samples if s["point"] == "v1.signal"] == [5.0]


def test_times_and_lists_of_a_message_are_plain_json() -> None:
    for message, field, value in (
        (TimeReply(bytes.fromhex("260731160000")), "time_bcd", "260731160000"),
        (ResendRequest(7, (2, 3)), "indices", [2, 3]),
        (Authentication("code"), "code", "code"),
    ):
        (decoded,) = Jt808Decoder().feed(encode_message(message, "1", 0, EDITION_2013).hex())
        assert decoded.message[field] == value
        assert list(decoded.samples) == []
