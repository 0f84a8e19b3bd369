"""What bodies say: one frozen dataclass for each message understood, both directions.

    up    0001 reply  0002 heartbeat  0003 log-out  0004 time?  0100 register  0102 authenticate
          0200 position  0704 positions in bulk  0005 send again
    down  8001 reply  8004 time  8100 registered  8003 send again
    `RawMessage`: every other id, 0900 included, and every body that is encrypted

Fields are found by their order and length; the "start byte" columns printed in the standards are
wrong in several tables. The form of a registration is told by its length (plate at 25, 37 or 76),
because devices mix editions.

Surprising: a position's time is GMT+8 but 8004's is UTC. Positions keep the wire's integers, so
that encoding what was decoded gives the same bytes. Not here: units and quality (mapping.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from gateway.model.errors import LocalProtocolError, RemoteProtocolError

from .fields import decode_text, encode_padded, encode_text
from .fields import time_ns as bcd_time_ns
from .frames import EDITION_2011, EDITION_2013, EDITION_2019, Header
from .items import Item, encode_items, parse_items

RESULT_OK, RESULT_FAILED, RESULT_BAD_MESSAGE, RESULT_UNSUPPORTED = 0, 1, 2, 3
BULK_NORMAL, BULK_BLIND_ZONE = 0, 1
STATUS_ACC, STATUS_FIX, STATUS_SOUTH, STATUS_WEST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
STATUS_ENCRYPTED = 1 << 5  # coordinates went through the security plug-in: an offset datum

_REPLY = struct.Struct(">HHB")
_BASIC = struct.Struct(">IIIIhHH6s")
BASIC_SIZE = _BASIC.size
_REGION = struct.Struct(">HH")


class Message(Protocol):
    """Every message knows its id and writes its body."""

    @property
    def message_id(self) -> int: ...

    def encode(self, edition: int) -> bytes:
        """The body. Raises LocalProtocolError for what the wire cannot say."""
        ...


def _need(body: bytes, size: int, what: str) -> None:
    if len(body) < size:
        raise RemoteProtocolError("body", f"{what}: {len(body)} bytes, at least {size} wanted")


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A body that is not decoded: an id we do not know, or encrypted."""

    message_id: int
    body: bytes

    def encode(self, edition: int) -> bytes:  # noqa: ARG002  (one signature for all messages)
        return self.body


@dataclass(frozen=True, slots=True)
class _Empty:
    message_id: ClassVar[int]

    def encode(self, edition: int) -> bytes:  # noqa: ARG002
        return b""


@dataclass(frozen=True, slots=True)
class Heartbeat(_Empty):
    """0002."""

    message_id: ClassVar[int] = 0x0002


@dataclass(frozen=True, slots=True)
class LogOut(_Empty):
    """0003."""

    message_id: ClassVar[int] = 0x0003


@dataclass(frozen=True, slots=True)
class TimeRequest(_Empty):
    """0004 (2019)."""

    message_id: ClassVar[int] = 0x0004


@dataclass(frozen=True, slots=True)
class _Reply:
    message_id: ClassVar[int]
    reply_serial: int
    reply_id: int
    result: int

    def encode(self, edition: int) -> bytes:  # noqa: ARG002
        return _REPLY.pack(self.reply_serial, self.reply_id, self.result)


@dataclass(frozen=True, slots=True)
class TerminalReply(_Reply):
    """0001: the terminal's general reply."""

    message_id: ClassVar[int] = 0x0001


@dataclass(frozen=True, slots=True)
class PlatformReply(_Reply):
    """8001: the platform's general reply."""

    message_id: ClassVar[int] = 0x8001


@dataclass(frozen=True, slots=True)
class TimeReply:
    """8004 (2019): BCD[6] in **UTC**, the only UTC field of JT/T 808."""

    message_id: ClassVar[int] = 0x8004
    time_bcd: bytes

    def encode(self, edition: int) -> bytes:  # noqa: ARG002
        return self.time_bcd


@dataclass(frozen=True, slots=True)
class _Resend:
    message_id: ClassVar[int]
    first_serial: int  # of the first packet of the message
    indices: tuple[int, ...]

    def encode(self, edition: int) -> bytes:
        """The count is a byte in 2013, a word in 2019."""
        width = "H" if edition == EDITION_2019 else "B"
        if len(self.indices) > (0xFF if width == "B" else 0xFFFF):
            raise LocalProtocolError("resend", f"{len(self.indices)} packets do not fit the count")
        layout = f">H{width}{len(self.indices)}H"
        return struct.pack(layout, self.first_serial, len(self.indices), *self.indices)


@dataclass(frozen=True, slots=True)
class ResendRequest(_Resend):
    """8003: the platform wants packets again."""

    message_id: ClassVar[int] = 0x8003


@dataclass(frozen=True, slots=True)
class TerminalResendRequest(_Resend):
    """0005 (2019): the terminal wants packets again."""

    message_id: ClassVar[int] = 0x0005


@dataclass(frozen=True, slots=True)
class Registration:
    """0100. `edition` is the form of the body: 2011, 2013 or 2019."""

    message_id: ClassVar[int] = 0x0100
    edition: int
    province: int
    city: int
    maker: str
    model: str
    terminal_id: str
    plate_colour: int  # 0 = no plate, and `plate` is the VIN; 1 blue, 2 yellow, 3 black, …
    plate: str

    def encode(self, edition: int) -> bytes:  # noqa: ARG002  (the form is a field here)
        sizes = _REGISTRATION_SIZES[self.edition]
        front = self.edition == EDITION_2019  # the 2019 text pads in front
        texts = (self.maker, self.model, self.terminal_id)
        fixed = b"".join(
            encode_padded(text, size, in_front=front)
            for text, size in zip(texts, sizes, strict=True)
        )
        end = b"\0" if self.edition == EDITION_2011 else b""
        region = _REGION.pack(self.province, self.city)
        return region + fixed + bytes((self.plate_colour,)) + encode_text(self.plate) + end


@dataclass(frozen=True, slots=True)
class RegistrationReply:
    """8100: 0 done, 1 vehicle already registered, 2 no such vehicle, 3 terminal already
    registered, 4 no such terminal. The code follows only when it is 0."""

    message_id: ClassVar[int] = 0x8100
    reply_serial: int
    result: int
    code: str = ""

    def encode(self, edition: int) -> bytes:
        code = encode_text(self.code) if self.result == RESULT_OK else b""
        end = b"\0" if edition == EDITION_2011 and code else b""
        return struct.pack(">HB", self.reply_serial, self.result) + code + end


@dataclass(frozen=True, slots=True)
class Authentication:
    """0102. IMEI and software version exist from 2019 on."""

    message_id: ClassVar[int] = 0x0102
    code: str
    imei: str = ""
    software_version: str = ""

    def encode(self, edition: int) -> bytes:
        code = encode_text(self.code)
        if edition != EDITION_2019:
            return code + (b"\0" if edition == EDITION_2011 else b"")
        if len(code) > 0xFF:
            raise LocalProtocolError("text", "the code does not fit its length byte")
        version = encode_padded(self.software_version, 20)
        return bytes((len(code),)) + code + encode_padded(self.imei, 15) + version


@dataclass(frozen=True, slots=True)
class Location:
    """0200: the basic part in the wire's integers, and the items."""

    message_id: ClassVar[int] = 0x0200
    alarm_bits: int
    status_bits: int
    latitude: int  # 1e-6 degree, without sign
    longitude: int
    altitude: int  # m
    speed: int  # 0.1 km/h
    heading: int  # degree, clockwise from north
    time_bcd: bytes  # YYMMDDhhmmss, GMT+8
    items: tuple[Item, ...] = ()
    tail: bytes = b""  # from the first item that overran

    @property
    def lat_deg(self) -> float:
        degrees = self.latitude / 1e6
        return -degrees if self.status_bits & STATUS_SOUTH else degrees

    @property
    def lon_deg(self) -> float:
        degrees = self.longitude / 1e6
        return -degrees if self.status_bits & STATUS_WEST else degrees

    @property
    def is_overrun(self) -> bool:
        """Whether an item was cut off; trailing zeros are padding, not an item."""
        return any(self.tail)

    def time_ns(self, utc_offset_s: int) -> int | None:
        return bcd_time_ns(self.time_bcd, utc_offset_s)

    def encode(self, edition: int) -> bytes:  # noqa: ARG002
        try:
            basic = _BASIC.pack(
                self.alarm_bits,
                self.status_bits,
                self.latitude,
                self.longitude,
                self.altitude,
                self.speed,
                self.heading,
                self.time_bcd,
            )
        except struct.error as error:
            raise LocalProtocolError("range", str(error)) from None
        return basic + encode_items(self.items) + self.tail


@dataclass(frozen=True, slots=True)
class BulkLocation:
    """0704: several positions; `BULK_BLIND_ZONE` ones were taken while the link was down."""

    message_id: ClassVar[int] = 0x0704
    kind: int
    locations: tuple[Location, ...]
    damaged_count: int = 0  # items announced or begun that are no position

    def encode(self, edition: int) -> bytes:
        parts = [location.encode(edition) for location in self.locations]
        items = b"".join(struct.pack(">H", len(part)) + part for part in parts)
        return struct.pack(">HB", len(parts), self.kind) + items


_REGISTRATION_SIZES = {  # maker, model, terminal id
    EDITION_2011: (5, 8, 7),
    EDITION_2013: (5, 20, 7),
    EDITION_2019: (11, 30, 30),
}
_PLATE_AT = {edition: 5 + sum(sizes) for edition, sizes in _REGISTRATION_SIZES.items()}
_VIN_BYTES = range(0x30, 0x5B)  # digits and capitals; no colour code lies there


def _registration_edition(body: bytes) -> int:
    size = len(body)
    if size < _PLATE_AT[EDITION_2013]:
        return EDITION_2011
    if size >= _PLATE_AT[EDITION_2019]:
        return EDITION_2019
    # A 2011 body that names a VIN (colour 0) reaches past 37; its 2013 colour would be a letter.
    if body[24] == 0 and body[36] in _VIN_BYTES and body.endswith(b"\0"):
        return EDITION_2011
    return EDITION_2013


def _decode_registration(body: bytes, _edition: int) -> Registration:
    _need(body, _PLATE_AT[EDITION_2011], "registration")
    edition = _registration_edition(body)
    texts: list[str] = []
    at = _REGION.size
    for size in _REGISTRATION_SIZES[edition]:
        texts.append(decode_text(body[at : at + size]))
        at += size
    province, city = _REGION.unpack_from(body)
    maker, model, terminal_id = texts
    plate = decode_text(body[at + 1 :])
    return Registration(edition, province, city, maker, model, terminal_id, body[at], plate)


def _decode_registration_reply(body: bytes, _edition: int) -> RegistrationReply:
    _need(body, 3, "registration reply")
    serial, result = struct.unpack_from(">HB", body)
    return RegistrationReply(serial, result, decode_text(body[3:]) if result == RESULT_OK else "")


def _decode_authentication(body: bytes, edition: int) -> Authentication:
    """2019 puts a length in front; firmware that kept the older body under the newer header is
    known, and is told by the length not fitting."""
    _need(body, 1, "authentication")
    end = 1 + body[0]
    if edition == EDITION_2019 and len(body) >= end + 15:
        imei, version = body[end : end + 15], body[end + 15 :]
        return Authentication(decode_text(body[1:end]), decode_text(imei), decode_text(version))
    if edition == EDITION_2019 and len(body) == end:
        return Authentication(decode_text(body[1:end]))
    return Authentication(decode_text(body))


def _decode_location(body: bytes, _edition: int) -> Location:
    _need(body, BASIC_SIZE, "position")
    alarm, status, lat, lon, alt, speed, heading, time = _BASIC.unpack_from(body)
    items, tail = parse_items(body[BASIC_SIZE:])
    return Location(alarm, status, lat, lon, alt, speed, heading, time, items, tail)


def _decode_bulk(body: bytes, edition: int) -> BulkLocation:
    """Every position that can be read; the rest is counted, the frame as a whole never refused."""
    _need(body, 3, "bulk positions")
    announced, kind = struct.unpack_from(">HB", body)
    locations: list[Location] = []
    seen, at = 0, 3
    while at + 2 <= len(body):
        size = body[at] << 8 | body[at + 1]
        part = body[at + 2 : at + 2 + size]
        at += 2 + size
        seen += 1
        if len(part) == size and size >= BASIC_SIZE:
            locations.append(_decode_location(part, edition))
    seen += at + 1 == len(body)  # one byte of a length is an item begun
    return BulkLocation(kind, tuple(locations), max(announced, seen) - len(locations))


def _decode_resend(body: bytes, edition: int) -> tuple[int, tuple[int, ...]]:
    """2019 counts in a word, 2013 in a byte; the length tells, as both occur under both."""
    _need(body, 3, "resend request")
    first: int = struct.unpack_from(">H", body)[0]
    widths = (2, 1) if edition == EDITION_2019 else (1, 2)
    for width in widths:
        count = int.from_bytes(body[2 : 2 + width], "big")
        if len(body) == 2 + width + 2 * count:
            return first, struct.unpack_from(f">{count}H", body, 2 + width)
    raise RemoteProtocolError("body", f"resend request: {len(body)} bytes fit no count")


def _decode_reply(body: bytes) -> tuple[int, int, int]:
    _need(body, 5, "general reply")
    serial, message_id, result = _REPLY.unpack_from(body)
    return serial, message_id, result


def _decode_time_reply(body: bytes, _edition: int) -> TimeReply:
    _need(body, 6, "time reply")
    return TimeReply(body[:6])


_DECODERS: dict[int, Callable[[bytes, int], Message]] = {
    0x0001: lambda body, _edition: TerminalReply(*_decode_reply(body)),
    0x0002: lambda _body, _edition: Heartbeat(),
    0x0003: lambda _body, _edition: LogOut(),
    0x0004: lambda _body, _edition: TimeRequest(),
    0x0005: lambda body, edition: TerminalResendRequest(*_decode_resend(body, edition)),
    0x0100: _decode_registration,
    0x0102: _decode_authentication,
    0x0200: _decode_location,
    0x0704: _decode_bulk,
    0x8001: lambda body, _edition: PlatformReply(*_decode_reply(body)),
    0x8003: lambda body, edition: ResendRequest(*_decode_resend(body, edition)),
    0x8004: _decode_time_reply,
    0x8100: _decode_registration_reply,
}
KNOWN_IDS = frozenset(_DECODERS)


def decode_message(header: Header, body: bytes) -> Message:
    """What `body` says. Raises RemoteProtocolError("body") when it is too short to say it."""
    decoder = _DECODERS.get(header.message_id)
    if decoder is None or header.encryption:
        return RawMessage(header.message_id, body)
    return decoder(body, header.edition)
