"""Framing: any cut of the stream, noise, lost and shared flags, and every checksum."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808.codec import (
    BODY_MAX,
    EDITION_2013,
    EDITION_2019,
    Damage,
    Frame,
    FrameReader,
    Header,
    Package,
    checksum,
    encode_frame,
    encode_packages,
    escape,
    header_for,
    phone_bcd,
    phone_key,
    time_bcd,
    time_ns,
    unescape,
)
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

GOLDEN = [
    bytes.fromhex(part)
    for case in tomllib.loads(Path(__file__).with_name("golden.toml").read_text("utf-8"))["frame"]
    for part in case["wire"].split()
]
NEIGHBOUR = encode_frame(header_for(0x0002, "139", 9), b"")
GOOD_NEIGHBOUR = ("139", 9)


def frames_of(found: list[Frame | Damage]) -> list[Frame]:
    return [item for item in found if isinstance(item, Frame)]


def codes_of(found: list[Frame | Damage]) -> list[str]:
    return [item.code for item in found if isinstance(item, Damage)]


def check_stream(wire: bytes, expected: list[Frame | Damage]) -> None:
    """Whole, byte by byte, in two parts at every place, and with a neighbour behind."""
    assert FrameReader().feed(wire) == expected
    dripping = FrameReader()
    assert [f for at in range(len(wire)) for f in dripping.feed(wire[at : at + 1])] == expected
    for cut in range(len(wire) + 1):
        reader = FrameReader()
        assert reader.feed(wire[:cut]) + reader.feed(wire[cut:]) == expected
    *before, last = FrameReader().feed(wire + NEIGHBOUR)
    assert before == expected
    assert isinstance(last, Frame)
    assert (last.header.phone, last.header.serial) == GOOD_NEIGHBOUR


@pytest.mark.parametrize("wire", GOLDEN, ids=lambda wire: wire.hex()[:30])
def test_a_golden_frame_is_one_frame_however_the_stream_is_cut(wire: bytes) -> None:
    found = FrameReader().feed(wire)
    assert len(found) == 1
    assert isinstance(found[0], Frame)
    check_stream(wire, found)


def test_the_example_of_the_standard_is_escaped_as_printed() -> None:
    assert escape(bytes.fromhex("307E087D55")) == bytes.fromhex("307D02087D0155")
    assert unescape(bytes.fromhex("307D02087D0155")) == bytes.fromhex("307E087D55")


@given(st.binary(max_size=200))
def test_unescape_undoes_escape_and_no_flag_is_left(data: bytes) -> None:
    assert unescape(escape(data)) == data
    assert b"\x7e" not in escape(data)


@pytest.mark.parametrize("data", ["7D", "7D7D01", "007D03", "7D007D02", "7D7E"])
def test_7d_in_front_of_anything_else_is_an_escape_error(data: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        unescape(bytes.fromhex(data))
    assert caught.value.code == "escape"


headers = st.one_of(
    st.builds(
        Header,
        message_id=st.integers(0, 0xFFFF),
        phone_bcd=st.binary(min_size=6, max_size=6),
        serial=st.integers(0, 0xFFFF),
        edition=st.just(EDITION_2013),
        protocol_version=st.just(1),
        encryption=st.integers(0, 7),
        package=st.none() | st.builds(Package, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    ),
    st.builds(
        Header,
        message_id=st.integers(0, 0xFFFF),
        phone_bcd=st.binary(min_size=10, max_size=10),
        serial=st.integers(0, 0xFFFF),
        edition=st.just(EDITION_2019),
        protocol_version=st.integers(0, 255),
        encryption=st.integers(0, 7),
        package=st.none() | st.builds(Package, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    ),
)


@given(headers, st.one_of(st.binary(max_size=80), st.binary(min_size=1000, max_size=BODY_MAX)))
def test_a_frame_read_back_is_the_frame_written(header: Header, body: bytes) -> None:
    (frame,) = FrameReader().feed(encode_frame(header, body))
    assert isinstance(frame, Frame)
    assert (frame.header, frame.body, frame.notes) == (header, body, ())


def test_every_checksum_value_escaped_and_not_is_read() -> None:
    seen = set()
    for serial in range(256):
        header = header_for(0x0002, "1", serial)
        wire = encode_frame(header, b"")
        found = FrameReader().feed(wire + NEIGHBOUR)
        (frame, _) = frames_of(found)
        seen.add(frame.content[-1])
        assert not codes_of(found)
        plain = b"\x7e" + escape(frame.content[:-1]) + frame.content[-1:] + b"\x7e"
        again = FrameReader().feed(plain + NEIGHBOUR)
        assert [f.content for f in frames_of(again)] == [f.content for f in frames_of(found)]
        assert frames_of(again)[0].notes == (("unescaped_checksum",) if plain != wire else ())
    assert seen == set(range(256))


def test_fifty_frames_in_one_segment_are_fifty_frames() -> None:
    wires = [encode_frame(header_for(0x0002, "13800001234", n), b"") for n in range(50)]
    found = FrameReader().feed(b"".join(wires))
    assert [f.header.serial for f in frames_of(found)] == list(range(50))
    assert not codes_of(found)


def test_a_flag_may_be_shared_by_two_frames() -> None:
    wires = [encode_frame(header_for(0x0002, "13800001234", n), b"") for n in range(5)]
    shared = wires[0] + b"".join(wire[1:] for wire in wires[1:])
    check_stream(shared, FrameReader().feed(b"".join(wires)))


def test_an_unescaped_checksum_7e_does_not_swallow_a_frame_that_shares_its_flag() -> None:
    v18 = bytes.fromhex("7E0002000001380000123400637E7E")
    for wire in (v18 + NEIGHBOUR, v18 + NEIGHBOUR[1:]):
        serials = [f.header.serial for f in frames_of(FrameReader().feed(wire))]
        assert serials == [99, 9]


def test_a_missing_checksum_is_reported_as_soon_as_the_next_byte_tells() -> None:
    reader = FrameReader()
    assert reader.feed(bytes.fromhex("7E0002000001380000123400637E")) == []
    assert codes_of(reader.feed(b"\x00")) == ["length"]
    assert reader.feed(b"") == []


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12), st.randoms())
def test_noise_between_frames_never_costs_a_frame(noises: list[bytes], rng: random.Random) -> None:
    wires = [encode_frame(header_for(0x0002, "77", n), b"") for n in range(len(noises))]
    stream = b"".join(noise + wire for noise, wire in zip(noises, wires, strict=True))
    reader = FrameReader()
    found: list[Frame | Damage] = []
    while stream:
        size = rng.randint(1, 30)
        found += reader.feed(stream[:size])
        stream = stream[size:]
    serials = [f.header.serial for f in frames_of(found) if f.header.phone == "77"]
    assert serials == list(range(len(noises)))


def test_bytes_before_the_first_flag_are_reported_once() -> None:
    check_stream(b"\x01\x02\x03" + NEIGHBOUR, FrameReader().feed(b"\x01\x02\x03" + NEIGHBOUR))
    assert codes_of(FrameReader().feed(b"\x01\x02" + NEIGHBOUR)) == ["framing"]


def test_a_run_without_a_flag_is_dropped_at_the_limit_and_the_next_frame_is_read() -> None:
    reader = FrameReader()
    found: list[Frame | Damage] = []
    for number in range(100):
        found += reader.feed(b"\x7e" * (number == 0) + b"x" * 100)
    assert codes_of(found) == ["oversize"]
    assert [f.header.serial for f in frames_of(reader.feed(NEIGHBOUR))] == [9]


def test_the_longest_legal_frame_fits_the_buffer_with_every_byte_escaped() -> None:
    header = Header(0x7E7D, b"\x7e" * 10, 0x7D7E, EDITION_2019, 0x7E, 0, Package(0x7E7E, 0x7D7D))
    wire = encode_frame(header, b"\x7e" * BODY_MAX)
    assert 2000 < len(wire) <= 2092
    reader = FrameReader()
    found = [f for at in range(len(wire)) for f in reader.feed(wire[at : at + 1])]
    assert [f.header for f in frames_of(found)] == [header]


def lying(wire: bytes) -> bytes:
    """The frame with bit 14 turned and the checksum right for it."""
    content = bytearray(FrameReader().feed(wire)[0].content)  # type: ignore[union-attr]
    content[2] ^= 0x40
    content[-1] ^= 0x40
    return b"\x7e" + escape(bytes(content)) + b"\x7e"


@pytest.mark.parametrize("edition", [EDITION_2013, EDITION_2019])
@pytest.mark.parametrize("package", [None, Package(3, 2)])
def test_a_version_bit_that_lies_is_noted_and_the_length_believed(
    edition: int, package: Package | None
) -> None:
    header = header_for(0x0200, "13800001234", 5, edition)._replace(package=package)
    (frame,) = FrameReader().feed(lying(encode_frame(header, bytes(28))))
    assert isinstance(frame, Frame)
    assert frame.notes == ("version_bit",)
    assert frame.header == header


def test_what_does_not_fit_a_frame_is_our_own_error() -> None:
    header = header_for(0x0200, "1", 0)
    with pytest.raises(LocalProtocolError):
        encode_frame(header, bytes(BODY_MAX + 1))
    with pytest.raises(LocalProtocolError):
        encode_frame(header._replace(phone_bcd=b"\x01"), b"")
    for phone in ("1" * 13, "x"):
        with pytest.raises(LocalProtocolError):
            header_for(0x0200, phone, 0)


def test_packets_of_a_message_carry_consecutive_serials_across_the_wrap() -> None:
    wires = encode_packages(header_for(0x0900, "1", 0xFFFF), bytes(25), 10)
    headers_read = [frames_of(FrameReader().feed(wire))[0].header for wire in wires]
    assert [(h.serial, h.package) for h in headers_read] == [
        (0xFFFF, (3, 1)),
        (0, (3, 2)),
        (1, (3, 3)),
    ]


def test_phones_compare_with_leading_zeros_removed_and_keep_odd_nibbles() -> None:
    assert phone_key(bytes.fromhex("013800001234")) == "13800001234"
    assert phone_key(bytes.fromhex("00000000013800001234")) == "13800001234"
    assert phone_key(bytes(6)) == "0"
    assert phone_key(bytes.fromhex("01380000abcd")) == "1380000ABCD"
    assert phone_bcd("1380000ABCD", 6) == bytes.fromhex("01380000abcd")


TIMES = [
    ("260731235959", 1785513599, "reference V5"),
    ("260101000000", 1767196800, "reference V7, the turn of the year"),
    ("240229120000", 1709179200, "a leap day"),
    ("000101000000", 946656000, "the first that can be said"),
    ("991231235959", 4102415999, "the last that can be said"),
    ("000000000000", None, "never set"),
    ("261301000000", None, "month 13"),
    ("230229000000", None, "no leap year"),
    ("260731240000", None, "hour 24"),
    ("260731006000", None, "minute 60"),
    ("260731000060", None, "second 60"),
    ("2607310000AA", None, "nibbles above 9"),
    ("FFFFFFFFFFFF", None, "erased memory"),
]


@pytest.mark.parametrize(("bcd", "seconds", "why"), TIMES)
def test_a_device_time_is_gmt8_or_none(bcd: str, seconds: int | None, why: str) -> None:
    expected = None if seconds is None else seconds * 1_000_000_000
    assert time_ns(bytes.fromhex(bcd)) == expected, why


@given(st.integers(946656000, 4102415999), st.integers(-12 * 3600, 14 * 3600))
def test_a_time_written_is_the_time_read(seconds: int, offset_s: int) -> None:
    ns = seconds * 1_000_000_000
    try:
        bcd = time_bcd(ns, offset_s)
    except LocalProtocolError:
        assert not 946684800 <= seconds + offset_s < 4102444800
    else:
        assert time_ns(bcd, offset_s) == ns


def test_the_checksum_is_the_xor_of_all_bytes() -> None:
    assert checksum(bytes.fromhex("00020000013800001234000" + "7")) == 0x1A


ENDINGS = [
    ("", []),
    ("7E", []),
    ("7E0002", ["framing"]),
    ("7E000200000138000012340063", ["framing"]),
    ("7E0002000001380000123400637E", ["length"]),  # the second flag of V18 never came
    ("7E0002000001380000123400071A7E", []),
]


@pytest.mark.parametrize(("wire", "codes"), ENDINGS)
def test_what_the_end_of_a_stream_cuts_off_is_reported(wire: str, codes: list[str]) -> None:
    reader = FrameReader()
    assert not codes_of(reader.feed(bytes.fromhex(wire)))
    assert [damage.code for damage in reader.finish()] == codes
    assert reader.finish() == []
