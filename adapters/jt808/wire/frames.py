"""Frames of JT/T 808: bytes in, checked headers and bodies out. Fed any cut of the stream.

    7E | id W | attributes W | [version B, 2019] | phone BCD[6] or [10] | serial W
       | [total W, index W when attribute bit 13] | body | XOR B | 7E
         `------ 7E -> 7D 02 and 7D -> 7D 01, checksum included ------'

    attributes: 0-9 body length, 10-12 encryption, 13 sub-packaged, 14 version mark (2019), 15 -

Every 7E is a delimiter and none belongs to anybody: a lost or shared flag never costs the frame
behind it. Which edition a frame is of is told by its length, which must fit one of the two
headers; bit 14 lies in the field (2013 bodies with the bit, 2019 headers without) and only earns
a note. Two more things met in the field are accepted, with a note, when length and XOR then fit:
a checksum 7D or 7E sent without escaping (reference frames V17, V18).

Surprising: the 7E form of that looks like a frame one byte short followed by an empty one, so such
a segment is held until the next byte tells. Not here: what a body says (messages.py), joining
sub-packages (subpackages.py).
"""

from __future__ import annotations

import struct
from functools import reduce
from operator import xor
from typing import NamedTuple

from gateway.model.errors import LocalProtocolError, RemoteProtocolError

from .fields import phone_bcd, phone_key

FLAG = b"\x7e"
BODY_MAX = 1023  # ten bits of length
EDITION_2011, EDITION_2013, EDITION_2019 = 2011, 2013, 2019
BUFFER_MAX = 4096  # the longest legal frame is 2092 bytes with every byte escaped
NOTE_UNESCAPED_CHECKSUM = "unescaped_checksum"
NOTE_VERSION_BIT = "version_bit"

_PLAIN = 12  # header bytes of 2011 and 2013
_LONG = 17  # header bytes of 2019
_ENCRYPTION = 0x1C00
_SUBPACKAGED = 0x2000
_VERSION_MARK = 0x4000
_WORD = struct.Struct(">H")
_TWO_WORDS = struct.Struct(">HH")
PHONE_SIZE = {EDITION_2011: 6, EDITION_2013: 6, EDITION_2019: 10}


class Package(NamedTuple):
    """Which part of a message a frame is; `number` (the standards' packet index) counts from 1."""

    total: int
    number: int


class Header(NamedTuple):
    """A frame's header. `edition` is the header's form: 2013 stands for 2011 too."""

    message_id: int
    phone_bcd: bytes
    serial: int
    edition: int = EDITION_2013
    protocol_version: int = 1  # 2019 only
    encryption: int = 0  # attribute bits 10-12, 0 for none
    package: Package | None = None

    @property
    def phone(self) -> str:
        """The identity: digits with leading zeros removed."""
        return phone_key(self.phone_bcd)


class Frame(NamedTuple):
    """One frame whose length and checksum fit. `content` is all of it, unescaped."""

    header: Header
    body: bytes
    content: bytes
    notes: tuple[str, ...] = ()


class Damage(NamedTuple):
    """Bytes that are no frame, and why: `framing`, `oversize`, `escape`, `header`, `length`,
    `checksum`."""

    code: str
    detail: str


def header_for(message_id: int, phone: str, serial: int, edition: int = EDITION_2013) -> Header:
    """A plain header with the phone padded as `edition` wants it."""
    long = edition == EDITION_2019
    return Header(
        message_id,
        phone_bcd(phone, PHONE_SIZE[edition]),
        serial,
        EDITION_2019 if long else EDITION_2013,
    )


def checksum(data: bytes) -> int:
    return reduce(xor, data, 0)


def escape(data: bytes) -> bytes:
    """7D first: the other order would escape its own work."""
    return data.replace(b"\x7d", b"\x7d\x01").replace(b"\x7e", b"\x7d\x02")


def unescape(data: bytes) -> bytes:
    """Undo `escape`. Raises RemoteProtocolError("escape") for a 7D followed by anything else."""
    marks = data.count(b"\x7d")
    if not marks:
        return data
    if data.count(b"\x7d\x01") + data.count(b"\x7d\x02") != marks:
        raise RemoteProtocolError("escape", "7D followed by something other than 01 or 02")
    # 02 first: `7D 01 02` on the wire is the two bytes 7D 02, not 7E
    return data.replace(b"\x7d\x02", b"\x7e").replace(b"\x7d\x01", b"\x7d")


def encode_frame(header: Header, body: bytes) -> bytes:
    """The frame as it goes to the wire. Raises LocalProtocolError for what does not fit."""
    if len(body) > BODY_MAX:
        raise LocalProtocolError("length", f"body of {len(body)} bytes; at most {BODY_MAX}")
    if len(header.phone_bcd) != PHONE_SIZE[header.edition]:
        raise LocalProtocolError("phone", f"{len(header.phone_bcd)} bytes of BCD")
    attributes = len(body) | header.encryption << 10
    attributes |= _SUBPACKAGED if header.package else 0
    attributes |= _VERSION_MARK if header.edition == EDITION_2019 else 0
    version = bytes((header.protocol_version,)) if header.edition == EDITION_2019 else b""
    package = _TWO_WORDS.pack(*header.package) if header.package else b""
    start = _TWO_WORDS.pack(header.message_id, attributes) + version + header.phone_bcd
    content = start + _WORD.pack(header.serial) + package + body
    return FLAG + escape(content + bytes((checksum(content),))) + FLAG


def encode_packages(header: Header, body: bytes, part_size: int = BODY_MAX) -> list[bytes]:
    """`body` as sub-packages of at most `part_size` bytes, with consecutive serials."""
    parts = [body[at : at + part_size] for at in range(0, len(body), part_size)] or [b""]
    return [
        encode_frame(
            header._replace(
                serial=(header.serial + number) % 0x10000, package=Package(len(parts), number + 1)
            ),
            part,
        )
        for number, part in enumerate(parts)
    ]


def parse_content(content: bytes, notes: tuple[str, ...] = ()) -> Frame:
    """The frame whose unescaped bytes, checksum included, are `content`.

    Raises RemoteProtocolError: `header` (too short for one), `length`, `checksum`.
    """
    size = len(content)
    if size < _PLAIN + 1:
        raise RemoteProtocolError("header", f"{size} bytes are too few for a header")
    message_id, attributes = _TWO_WORDS.unpack_from(content)
    head_size = size - 1 - (attributes & BODY_MAX) - (4 if attributes & _SUBPACKAGED else 0)
    if head_size not in (_PLAIN, _LONG):
        declared = attributes & BODY_MAX
        raise RemoteProtocolError("length", f"{size} bytes do not fit a body of {declared}")
    if checksum(content):
        raise RemoteProtocolError("checksum", f"XOR is off by {checksum(content):02X}")
    long = head_size == _LONG
    if long != bool(attributes & _VERSION_MARK):
        notes = (*notes, NOTE_VERSION_BIT)
    package = None
    at = head_size
    if attributes & _SUBPACKAGED:
        package = Package(*_TWO_WORDS.unpack_from(content, at))
        at += 4
    header = Header(
        message_id,
        content[5:15] if long else content[4:10],
        content[head_size - 2] << 8 | content[head_size - 1],
        EDITION_2019 if long else EDITION_2013,
        content[4] if long else 1,
        (attributes & _ENCRYPTION) >> 10,
        package,
    )
    return Frame(header, content[at:-1], content, notes)


def parse_segment(segment: bytes) -> Frame:
    """The frame between two flags. Raises RemoteProtocolError."""
    if segment[-1:] != b"\x7d":
        return parse_content(unescape(segment))
    # A lone 7D in front of the flag can only be a checksum sent without escaping (V17).
    try:
        return parse_content(unescape(segment[:-1]) + b"\x7d", (NOTE_UNESCAPED_CHECKSUM,))
    except RemoteProtocolError as error:
        raise RemoteProtocolError("escape", f"7D in front of the flag, and {error}") from None


def _lacks_checksum_7e(segment: bytes) -> bytes | None:
    """The content of a segment that is a whole frame if a 7E checksum stood behind it (V18)."""
    try:
        content = unescape(segment) + FLAG
        parse_content(content)
    except RemoteProtocolError:
        return None
    return content


class FrameReader:
    """Cuts a stream into frames; keeps less than `buffer_max` bytes between calls."""

    def __init__(self, buffer_max: int = BUFFER_MAX) -> None:
        self._buffer_max = buffer_max
        self._tail = b""
        self._synced = False  # a flag has been seen
        self._skipping = False  # inside a run that was too long; already reported
        self._held = b""  # content of a V18 candidate; the next byte tells

    def feed(self, data: bytes) -> list[Frame | Damage]:
        """What the bytes so far say, in order; the unfinished rest is kept."""
        segments = (self._tail + data).split(FLAG)
        self._tail = segments.pop()
        found: list[Frame | Damage] = []
        for segment in segments:
            self._take(segment, found)
        if self._tail:
            self._release_held(found)
        if self._skipping:
            self._tail = b""
        elif len(self._tail) > self._buffer_max:
            found.append(Damage("oversize", f"{len(self._tail)} bytes without a flag"))
            self._tail, self._skipping = b"", True
        return found

    def finish(self) -> list[Damage]:
        """What the end of the stream cuts off."""
        found: list[Frame | Damage] = []
        self._release_held(found)
        if self._tail or self._skipping:
            found.append(Damage("framing", "the stream ends inside a frame"))
        self._tail, self._skipping, self._synced = b"", False, False
        return [item for item in found if isinstance(item, Damage)]

    def _take(self, segment: bytes, found: list[Frame | Damage]) -> None:
        if self._skipping or not self._synced:
            if segment and not self._skipping:
                found.append(Damage("framing", f"{len(segment)} bytes before the first flag"))
            self._skipping, self._synced = False, True
            return
        if not segment:
            if self._held:
                found.append(parse_content(self._held, (NOTE_UNESCAPED_CHECKSUM,)))
                self._held = b""
            return
        self._release_held(found)
        try:
            found.append(parse_segment(segment))
        except RemoteProtocolError as error:
            self._held = _lacks_checksum_7e(segment) or b""
            if not self._held:
                found.append(Damage(error.code, error.detail))

    def _release_held(self, found: list[Frame | Damage]) -> None:
        if self._held:
            found.append(Damage("length", "one byte short: the checksum is missing"))
            self._held = b""
