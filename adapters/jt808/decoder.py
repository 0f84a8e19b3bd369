"""`hazard-gateway decode jt808`: hexadecimal frames in, what they say out. Pure.

One frame a line, blanks allowed; several whole frames on a line are decoded in turn. Sub-packages
are joined across lines, for each phone by itself, as a capture may hold many terminals. Samples are
the ones the gateway would store, named with the default device prefix; a message without a time of
its own has `time: null`, the gateway's time of receipt. An authentication has none here: whether it
succeeds is not in the frame.

Strict where the stream reader is forgiving: bytes outside the flags are an error and not noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from gateway.contract.adapter import Decoded
from gateway.model.errors import RemoteProtocolError

from .codec import (
    GMT8_S,
    Authentication,
    BulkLocation,
    Damage,
    Frame,
    FrameReader,
    Header,
    ItemValues,
    Location,
    Message,
    PackageLimits,
    RawMessage,
    Reassembler,
    decode_message,
    item_values,
    items,
)
from .config import Jt808Config
from .mapping import device_id, samples_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME = -1  # stands for the time of receipt, which a file of frames does not have
NAMES: Mapping[int, str] = {
    0x0001: "terminal general reply",
    0x0002: "heartbeat",
    0x0003: "log-out",
    0x0004: "time request",
    0x0005: "terminal resend request",
    0x0100: "registration",
    0x0102: "authentication",
    0x0200: "position",
    0x0704: "positions in bulk",
    0x0900: "transparent data",
    0x8001: "platform general reply",
    0x8003: "resend request",
    0x8004: "time reply",
    0x8100: "registration reply",
}


_LIMITS = PackageLimits(messages_max=2**16)  # a file is finite: nothing is given up unsaid


class Jt808Decoder:
    """Keeps unfinished sub-packages between lines and nothing else."""

    def __init__(self) -> None:
        self._packages: dict[str, Reassembler] = {}  # by phone: serials are a terminal's own
        self._prefix = Jt808Config().device_prefix

    def feed(self, data: str) -> list[Decoded]:
        """What one line says. Raises RemoteProtocolError and nothing else."""
        text = "".join(data.split())
        if not text:
            return []
        try:
            wire = bytes.fromhex(text)
        except ValueError:
            raise RemoteProtocolError("hex", "pairs of hexadecimal digits expected") from None
        if wire[:1] != b"\x7e" or wire[-1:] != b"\x7e":
            raise RemoteProtocolError("framing", "a frame begins and ends with 7E")
        reader = FrameReader(buffer_max=len(wire))
        found = [*reader.feed(wire), *reader.finish()]
        for item in found:
            if isinstance(item, Damage):
                raise RemoteProtocolError(item.code, item.detail)
        if not found:
            raise RemoteProtocolError("framing", "nothing between the flags")
        decoded = (self._decode(item) for item in found if isinstance(item, Frame))
        return [item for item in decoded if item is not None]

    def _decode(self, frame: Frame) -> Decoded | None:
        header, body = frame.header, frame.body
        if header.package is not None:
            packages = self._packages.setdefault(header.phone, Reassembler(_LIMITS))
            whole = packages.add(frame, 0)
            if not len(packages):
                del self._packages[header.phone]
            if whole is None:
                return None
            header, body = whole.header, whole.body
        message = decode_message(header, body)
        said = _header_fields(frame, header) | _message_fields(message)
        return Decoded(said, self._samples(header, message))

    def _samples(self, header: Header, message: Message) -> Sequence[Mapping[str, Any]]:
        if isinstance(message, Authentication):
            return ()
        samples, _ = samples_of(message, _NO_TIME, GMT8_S)
        device = device_id(self._prefix, header.phone)
        return [
            {
                "point": f"{device}.{sample.name}",
                "time": _iso(sample.source_time_ns),
                "value": sample.value,
                "quality": sample.quality.name.lower(),
            }
            for sample in samples
        ]


def _iso(time_ns: int) -> str | None:
    if time_ns == _NO_TIME:
        return None
    moment = _EPOCH + timedelta(seconds=time_ns // 1_000_000_000)
    return moment.isoformat().replace("+00:00", "Z")


def _header_fields(frame: Frame, header: Header) -> dict[str, Any]:
    return {
        "message_id": f"0x{header.message_id:04X}",
        "name": NAMES.get(header.message_id, "not decoded"),
        "phone": header.phone,
        "phone_bcd": header.phone_bcd.hex().upper(),
        "serial": header.serial,
        "edition": str(header.edition),
        "encryption": header.encryption,
        "packages": frame.header.package.total if frame.header.package else 1,
        "checksum": f"{frame.content[-1]:02X}",
        "flags": list(frame.notes),
    }


def _message_fields(message: Message) -> dict[str, Any]:
    if isinstance(message, RawMessage):
        return {"body": message.body.hex().upper()}
    if isinstance(message, Location):
        return _location_fields(message)
    if isinstance(message, BulkLocation):
        return {
            "kind": message.kind,
            "count": len(message.locations),
            "damaged_count": message.damaged_count,
            "locations": [_location_fields(location) for location in message.locations],
        }
    names = [entry.name for entry in fields(cast("Any", message))]  # every message is a dataclass
    said = {name: _json(getattr(message, name)) for name in names}
    if "edition" in said:  # of the registration's body; the header has one of its own
        said["body_edition"] = str(said.pop("edition"))
    if "reply_id" in said:
        said["reply_id"] = f"0x{said['reply_id']:04X}"
    return said


def _location_fields(location: Location) -> dict[str, Any]:
    said = item_values(location.items)
    time_ns = location.time_ns(GMT8_S)
    return {
        "alarm_bits": f"0x{location.alarm_bits:08X}",
        "status_bits": f"0x{location.status_bits:08X}",
        "alarms": _bits(location.alarm_bits),
        "statuses": _bits(location.status_bits),
        "lat": location.lat_deg,
        "lon": location.lon_deg,
        "alt_m": location.altitude,
        "speed_km_h": location.speed / 10,
        "heading_deg": location.heading,
        "time_bcd": location.time_bcd.hex().upper(),
        "time": None if time_ns is None else _iso(time_ns),
        "items": _item_fields(location, said),
        "overrun": location.tail.hex().upper() if location.is_overrun else "",
    }


def _item_fields(location: Location, said: ItemValues) -> list[dict[str, Any]]:
    """Every item in wire order; what is known with its name and value."""
    listed: list[dict[str, Any]] = []
    seen: set[int] = set()
    for item in location.items:
        if item.is_padding:
            continue
        entry: dict[str, Any] = {"id": f"0x{item.id:02X}", "raw": item.data.hex().upper()}
        kind = items.ITEM_KINDS.get(item.id)
        value = kind.decode(item.data) if kind is not None else None
        if kind is not None and value is not None:
            entry |= {"name": kind.name, "value": value}
        elif item in said.malformed:
            entry["note"] = "malformed"
        if item.id in seen:
            entry["note"] = "duplicate"
        seen.add(item.id)
        listed.append(entry)
    return listed


def _bits(word: int) -> list[int]:
    return [bit for bit in range(32) if word >> bit & 1]


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex().upper()
    return list(value) if isinstance(value, tuple) else value
