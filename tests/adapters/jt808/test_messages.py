"""Bodies: what is written is what is read, for every message and every item."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808.codec import (
    EDITION_2011,
    EDITION_2013,
    EDITION_2019,
    Authentication,
    BulkLocation,
    Frame,
    FrameReader,
    Heartbeat,
    Item,
    Location,
    LogOut,
    Message,
    PlatformReply,
    RawMessage,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    TerminalResendRequest,
    TimeReply,
    TimeRequest,
    decode_message,
    encode_message,
    header_for,
    item_values,
    items,
    make_item,
)
from adapters.jt808.wire.items import encode_items, parse_items
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

EDITIONS = st.sampled_from([EDITION_2011, EDITION_2013, EDITION_2019])
WORD = st.integers(0, 0xFFFF)
BYTE = st.integers(0, 0xFF)
DWORD = st.integers(0, 0xFFFFFFFF)
ASCII = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
PLATE = st.text(st.one_of(ASCII, st.sampled_from("川渝京沪粤测试")), max_size=5)


def read_back(message: Message, edition: int) -> Message:
    wire = encode_message(message, "13800001234", 7, edition)
    (frame,) = FrameReader().feed(wire)
    assert isinstance(frame, Frame)
    return decode_message(frame.header, frame.body)


raw_items = st.builds(Item, st.integers(1, 255), st.binary(max_size=12))
locations = st.builds(
    Location,
    alarm_bits=DWORD,
    status_bits=DWORD,
    latitude=DWORD,
    longitude=DWORD,
    altitude=st.integers(-0x8000, 0x7FFF),
    speed=WORD,
    heading=WORD,
    time_bcd=st.binary(min_size=6, max_size=6),
    items=st.lists(raw_items, max_size=6).map(tuple),
)
messages = st.one_of(
    st.just(Heartbeat()),
    st.just(LogOut()),
    st.just(TimeRequest()),
    st.builds(TerminalReply, WORD, WORD, BYTE),
    st.builds(PlatformReply, WORD, WORD, BYTE),
    st.builds(TimeReply, st.binary(min_size=6, max_size=6)),
    st.builds(ResendRequest, WORD, st.lists(WORD, max_size=255).map(tuple)),
    st.builds(TerminalResendRequest, WORD, st.lists(WORD, max_size=255).map(tuple)),
    st.builds(RegistrationReply, WORD, st.just(0), st.text(ASCII, max_size=40)),
    st.builds(RegistrationReply, WORD, st.integers(1, 4)),
    st.builds(RawMessage, st.just(0x0900), st.binary(max_size=100)),
    locations,
    st.builds(BulkLocation, BYTE, st.lists(locations, max_size=5).map(tuple)),
)


@given(messages, EDITIONS)
def test_a_message_read_back_is_the_message_written(message: Message, edition: int) -> None:
    assert read_back(message, edition) == message


def registrations(edition: int) -> st.SearchStrategy[Registration]:
    maker, model, terminal = {2011: (5, 8, 7), 2013: (5, 20, 7), 2019: (11, 30, 30)}[edition]
    return st.builds(
        Registration,
        edition=st.just(edition),
        province=WORD,
        city=WORD,
        maker=st.text(ASCII, max_size=maker),
        model=st.text(ASCII, max_size=model),
        terminal_id=st.text(ASCII, max_size=terminal),
        plate_colour=st.sampled_from([0, 1, 2, 3, 4, 9, 5, 93, 94]),
        plate=PLATE,
    )


@given(st.sampled_from([2011, 2013, 2019]).flatmap(registrations), EDITIONS)
def test_a_registration_is_read_by_its_length_under_any_header(
    message: Registration, edition: int
) -> None:
    assert read_back(message, edition) == message


@pytest.mark.parametrize("edition", [2011, 2013, 2019])
def test_a_vehicle_without_a_plate_is_named_by_its_vin(edition: int) -> None:
    vin = "LTEST000000000017"
    message = Registration(edition, 51, 100, "ABCDE", "MODEL-X", "T000001", 0, vin)
    assert read_back(message, EDITION_2013) == message


@given(
    st.text(ASCII, min_size=1, max_size=60),
    st.text(ASCII, max_size=15),
    st.text(ASCII, max_size=20),
)
def test_an_authentication_of_2019_carries_imei_and_version(
    code: str, imei: str, version: str
) -> None:
    message = Authentication(code, imei, version)
    assert read_back(message, EDITION_2019) == message
    for older in (EDITION_2011, EDITION_2013):
        assert read_back(message, older) == Authentication(code)


def test_an_older_authentication_body_under_a_2019_header_is_read_as_a_code() -> None:
    header = header_for(0x0102, "1", 0, EDITION_2019)
    for code in ("0123456789abcdef0123456789abcdef", "f" * 32, "7"):
        assert decode_message(header, code.encode()) == Authentication(code)


def test_strings_of_2011_end_with_one_nul() -> None:
    assert RegistrationReply(1, 0, "abc").encode(EDITION_2011) == b"\x00\x01\x00abc\x00"
    assert RegistrationReply(1, 0, "abc").encode(EDITION_2013) == b"\x00\x01\x00abc"
    assert RegistrationReply(1, 3, "abc").encode(EDITION_2013) == b"\x00\x01\x03"
    assert Authentication("abc").encode(EDITION_2011) == b"abc\x00"


def test_the_resend_count_is_a_byte_in_2013_and_a_word_in_2019() -> None:
    request = ResendRequest(100, (2, 3))
    assert request.encode(EDITION_2013).hex() == "00640200020003"
    assert request.encode(EDITION_2019).hex() == "0064000200020003"
    header = header_for(0x8003, "1", 0, EDITION_2013)
    assert decode_message(header, request.encode(EDITION_2019)) == request
    with pytest.raises(LocalProtocolError):
        ResendRequest(1, tuple(range(256))).encode(EDITION_2013)
    with pytest.raises(RemoteProtocolError):
        decode_message(header, bytes.fromhex("00640200"))


SHORT = [(0x0001, 4), (0x0100, 24), (0x0102, 0), (0x0200, 27), (0x0704, 2), (0x8001, 4), (0x8003, 2),
         (0x8004, 5), (0x8100, 2), (0x0005, 2)]  # fmt: skip


@pytest.mark.parametrize(("message_id", "size"), SHORT)
def test_a_body_too_short_to_say_it_is_a_body_error(message_id: int, size: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(header_for(message_id, "1", 0), bytes(size))
    assert caught.value.code == "body"


@given(st.integers(0, 0xFFFF), st.binary(max_size=120), st.sampled_from([2013, 2019]))
def test_any_body_is_a_message_or_a_body_error(message_id: int, body: bytes, edition: int) -> None:
    for wanted in (message_id, 0x0100, 0x0102, 0x0200, 0x0704, 0x0005):
        code = ""
        try:
            decode_message(header_for(wanted, "1", 0, edition), body)
        except RemoteProtocolError as error:
            code = error.code
        assert code in {"", "body"}


def test_an_encrypted_body_is_not_decoded_even_if_its_id_is_known() -> None:
    header = header_for(0x0200, "1", 0)._replace(encryption=1)
    assert decode_message(header, bytes(28)) == RawMessage(0x0200, bytes(28))


# --- bulk

ONE = Location(1, 2, 3, 4, 5, 6, 7, bytes.fromhex("260731235959"))
BULK = [
    ("two whole ones", "0002 01 001C{one} 001C{one}", 2, 0),
    ("one announced too many", "0003 01 001C{one} 001C{one}", 2, 1),
    ("one more than announced", "0001 01 001C{one} 001C{one}", 2, 0),
    ("the second cut off", "0002 01 001C{one} 001C0000", 1, 1),
    ("the second half a length", "0002 01 001C{one} 00", 1, 1),
    ("the first too short to be one", "0002 01 0003AABBCC 001C{one}", 1, 1),
    ("nothing at all", "0000 00", 0, 0),
    ("nothing readable", "0001 00 0005AABB", 0, 1),
]


@pytest.mark.parametrize(("name", "body", "good", "damaged"), BULK)
def test_bulk_positions_that_can_be_read_are_kept(
    name: str, body: str, good: int, damaged: int
) -> None:
    wire = bytes.fromhex(body.format(one=ONE.encode(EDITION_2013).hex()))
    message = decode_message(header_for(0x0704, "1", 0), wire)
    assert isinstance(message, BulkLocation)
    assert message.locations == (ONE,) * good, name
    assert message.damaged_count == damaged, name


# --- items

ITEM_TABLE: list[tuple[int, Any, str]] = [
    (0x01, 123456.7, "0012D687"),
    (0x02, 45.3, "01C5"),
    (0x03, 59.8, "0256"),
    (0x04, 513, "0201"),
    (0x05, [0, 230, None] + [None] * 27, "00E6" + "FF" * 28),
    (0x06, 10, "000A"),
    (0x06, -10, "800A"),
    (0x11, {"kind": 0, "area_id": 0}, "00"),
    (0x11, {"kind": 4, "area_id": 77}, "040000004D"),
    (0x12, {"kind": 2, "area_id": 1, "direction": 1}, "020000000101"),
    (0x13, {"segment_id": 9, "time_s": 600, "result": 1}, "00000009025801"),
    (0x14, 1, "00000001"),
    (0x15, 0x80000000, "80000000"),
    (0x16, 2, "00000002"),
    (0x17, 4, "0004"),
    (0x18, {"bits": 3, "fatigue": 7}, "000307"),
    (0x25, 1, "00000001"),  # low beam is the lowest bit
    (0x25, 1 << 14, "00004000"),  # clutch
    (0x2A, 2, "0002"),  # sleep
    (0x2B, {"ad0": 1, "ad1": 2}, "00020001"),  # AD0 is the low word
    (0x30, 31, "1F"),
    (0x31, 14, "0E"),
]


@pytest.mark.parametrize(("item_id", "value", "data"), ITEM_TABLE)
def test_an_item_says_its_value(item_id: int, value: Any, data: str) -> None:
    item = make_item(item_id, value)
    assert item == Item(item_id, bytes.fromhex(data))
    assert item_values([item]).values == {item_id: value}


def test_every_kind_of_item_is_in_the_table() -> None:
    assert {item_id for item_id, *_ in ITEM_TABLE} == set(items.ITEM_KINDS)


SIZES = {0x01: 4, 0x02: 2, 0x03: 2, 0x04: 2, 0x05: 30, 0x06: 2, 0x12: 6, 0x13: 7, 0x14: 4, 0x15: 4,
         0x16: 4, 0x17: 2, 0x18: 3, 0x25: 4, 0x2A: 2, 0x2B: 4, 0x30: 1, 0x31: 1}  # fmt: skip


@given(st.sampled_from(sorted(SIZES)), st.binary(min_size=30, max_size=30))
def test_any_value_of_the_right_size_is_read_and_written_back(item_id: int, data: bytes) -> None:
    item = Item(item_id, data[: SIZES[item_id]])
    value = item_values([item]).values[item_id]
    minus_zero = item_id == 0x06 and item.data == b"\x80\x00"
    assert minus_zero or make_item(item_id, value) == item


@given(st.sampled_from(sorted(items.ITEM_KINDS)), st.binary(max_size=40))
def test_a_value_of_the_wrong_size_is_kept_raw(item_id: int, data: bytes) -> None:
    item = Item(item_id, data)
    said = item_values([item])
    right = len(data) in ({1, 5} if item_id == 0x11 else {SIZES.get(item_id)})
    assert not (said.values and not right)
    assert said.malformed == (() if said.values else (item,))


def test_unknown_items_and_duplicates_are_listed_and_the_first_one_holds() -> None:
    said = item_values(
        [Item(0xE3, b"vendor"), make_item(0x30, 5), make_item(0x30, 6), Item(0xE3, b"again")]
    )
    assert said.values == {0x30: 5}
    assert said.unknown == (Item(0xE3, b"vendor"),)
    assert said.duplicates == (make_item(0x30, 6), Item(0xE3, b"again"))


@given(st.lists(raw_items, max_size=6), st.integers(0, 5))
def test_a_run_of_zeros_is_padding(listed: list[Item], pairs: int) -> None:
    data = encode_items(listed) + bytes(2 * pairs)
    found, tail = parse_items(data)
    assert [item for item in found if not item.is_padding] == listed
    assert tail == b""
    assert encode_items(found) == data


@given(locations, st.integers(1, 11))
def test_an_overrun_keeps_the_basic_part_and_the_items_before_it(
    location: Location, missing: int
) -> None:
    body = location.encode(EDITION_2013) + bytes((0xE0, 12)) + bytes(12 - missing)
    message = decode_message(header_for(0x0200, "1", 0), body)
    assert isinstance(message, Location)
    assert message.items == location.items
    assert message.is_overrun
    assert message.encode(EDITION_2013) == body


def test_one_zero_at_the_end_is_padding_and_not_an_overrun() -> None:
    message = decode_message(header_for(0x0200, "1", 0), ONE.encode(EDITION_2013) + b"\0")
    assert isinstance(message, Location)
    assert not message.is_overrun


@given(st.binary(max_size=60))
def test_items_written_back_are_the_bytes_they_came_from(data: bytes) -> None:
    found, tail = parse_items(data)
    assert encode_items(found) + tail == data


@pytest.mark.parametrize(("item_id", "value"), [(0x01, -1), (0x02, 1e9), (0x77, 1), (0x30, 256)])
def test_an_item_that_cannot_be_said_is_our_own_error(item_id: int, value: float) -> None:
    with pytest.raises(LocalProtocolError):
        make_item(item_id, value)


def test_a_location_that_cannot_be_said_is_our_own_error() -> None:
    with pytest.raises(LocalProtocolError):
        Location(0, 0, -1, 0, 0, 0, 0, bytes(6)).encode(EDITION_2013)
    with pytest.raises(LocalProtocolError):
        Registration(2013, 0, 0, "TOOLONG", "", "", 0, "").encode(EDITION_2013)
    with pytest.raises(LocalProtocolError):
        RegistrationReply(0, 0, "\U0001f600").encode(EDITION_2013)
