"""Additional items of a position report: id B, length B, value, as many as there are.

    | id | len | value ... | id | len | value ... | 00 00 00 00 | cut off
      known: decoded         unknown: kept raw      padding       `tail`

Nothing an item says can cost the report it stands in: an unknown id or a value of the wrong size is
kept as bytes, a second item of one id is listed beside the first, pairs of 00 are padding, and at
the first item that runs over the end the rest is kept as `tail`.

Surprising: cabin temperature (06) is sign and magnitude, not two's complement. Vendors use 06 and
14-18 for meanings of their own; the declared size tells some of them apart, nothing tells all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.model.errors import LocalProtocolError

ODOMETER, FUEL, RECORDER_SPEED, MANUAL_EVENT, TYRES, CABIN = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
OVERSPEED, AREA, SEGMENT = 0x11, 0x12, 0x13
VIDEO_ALARM, VIDEO_LOSS, VIDEO_BLOCKED, STORAGE_FAULT, ABNORMAL = 0x14, 0x15, 0x16, 0x17, 0x18
SIGNALS, IO_STATE, ANALOGUE, MOBILE_SIGNAL, SATELLITES = 0x25, 0x2A, 0x2B, 0x30, 0x31


class Item(NamedTuple):
    """One item as it stood on the wire. Id 00 without data is padding."""

    id: int
    data: bytes

    @property
    def is_padding(self) -> bool:
        return self.id == 0 and not self.data


class ItemKind(NamedTuple):
    """How one item is read and written; `decode` returns None for a value it cannot be."""

    name: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class ItemValues:
    """What the items of one report say."""

    values: Mapping[int, Any]  # by item id, first of each
    unknown: tuple[Item, ...] = ()
    duplicates: tuple[Item, ...] = ()  # further items of an id already seen
    malformed: tuple[Item, ...] = ()  # known id, impossible value


def _unsigned(size: int) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    def decode(data: bytes) -> int | None:
        return int.from_bytes(data, "big") if len(data) == size else None

    def encode(value: int) -> bytes:
        return value.to_bytes(size, "big")

    return decode, encode


def _tenths(size: int) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    def decode(data: bytes) -> float | None:
        return int.from_bytes(data, "big") / 10 if len(data) == size else None

    def encode(value: float) -> bytes:
        return round(value * 10).to_bytes(size, "big")

    return decode, encode


def _packed(layout: str, *names: str) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    packer = struct.Struct(layout)

    def decode(data: bytes) -> dict[str, int] | None:
        if len(data) != packer.size:
            return None
        return dict(zip(names, packer.unpack(data), strict=True))

    def encode(value: Mapping[str, int]) -> bytes:
        return packer.pack(*(value[name] for name in names))

    return decode, encode


def _decode_tyres(data: bytes) -> list[int | None] | None:
    """Pressure of each tyre in Pa as the 2019 text prints it (sic); None where there is none."""
    return [None if byte == 0xFF else byte for byte in data] if len(data) == 30 else None


def _encode_tyres(value: Iterable[int | None]) -> bytes:
    return bytes(0xFF if pressure is None else pressure for pressure in value)


def _decode_cabin(data: bytes) -> int | None:
    if len(data) != 2:
        return None
    word = int.from_bytes(data, "big")
    return -(word & 0x7FFF) if word & 0x8000 else word


def _encode_cabin(value: int) -> bytes:
    return (abs(value) | (0x8000 if value < 0 else 0)).to_bytes(2, "big")


_OVERSPEED_KINDS = range(5)  # 0 no area, 1 circle, 2 rectangle, 3 polygon, 4 segment


def _decode_overspeed(data: bytes) -> dict[str, int] | None:
    if not data or data[0] not in _OVERSPEED_KINDS:
        return None
    if data[0] == 0:  # some devices send the four bytes of an id all the same
        return {"kind": 0, "area_id": 0} if len(data) in (1, 5) else None
    return {"kind": data[0], "area_id": int.from_bytes(data[1:], "big")} if len(data) == 5 else None


def _encode_overspeed(value: Mapping[str, int]) -> bytes:
    area = value["area_id"].to_bytes(4, "big") if value["kind"] else b""
    return bytes((value["kind"],)) + area


ITEM_KINDS: Mapping[int, ItemKind] = {
    ODOMETER: ItemKind("odometer_km", *_tenths(4)),
    FUEL: ItemKind("fuel_l", *_tenths(2)),
    RECORDER_SPEED: ItemKind("recorder_speed_km_h", *_tenths(2)),
    MANUAL_EVENT: ItemKind("manual_event_id", *_unsigned(2)),
    TYRES: ItemKind("tyre_pressures_pa", _decode_tyres, _encode_tyres),
    CABIN: ItemKind("cabin_temperature_c", _decode_cabin, _encode_cabin),
    OVERSPEED: ItemKind("overspeed", _decode_overspeed, _encode_overspeed),
    AREA: ItemKind("area", *_packed(">BIB", "kind", "area_id", "direction")),
    SEGMENT: ItemKind("segment", *_packed(">IHB", "segment_id", "time_s", "result")),
    VIDEO_ALARM: ItemKind("video_alarm_bits", *_unsigned(4)),
    VIDEO_LOSS: ItemKind("video_loss_bits", *_unsigned(4)),
    VIDEO_BLOCKED: ItemKind("video_occlusion_bits", *_unsigned(4)),
    STORAGE_FAULT: ItemKind("storage_fault_bits", *_unsigned(2)),
    ABNORMAL: ItemKind("abnormal_driving", *_packed(">HB", "bits", "fatigue")),
    SIGNALS: ItemKind("signal_bits", *_unsigned(4)),
    IO_STATE: ItemKind("io_bits", *_unsigned(2)),
    ANALOGUE: ItemKind("analogue", *_packed(">HH", "ad1", "ad0")),  # AD0 is the low word
    MOBILE_SIGNAL: ItemKind("mobile_signal", *_unsigned(1)),
    SATELLITES: ItemKind("satellites", *_unsigned(1)),
}


def parse_items(data: bytes) -> tuple[tuple[Item, ...], bytes]:
    """The items, padding included, and the bytes from the first one that overruns."""
    items: list[Item] = []
    at, size = 0, len(data)
    while at + 2 <= size:
        end = at + 2 + data[at + 1]
        if end > size:
            break
        items.append(Item(data[at], data[at + 2 : end]))
        at = end
    return tuple(items), data[at:]


def encode_items(items: Iterable[Item]) -> bytes:
    return b"".join(bytes((item.id, len(item.data))) + item.data for item in items)


def make_item(item_id: int, value: Any) -> Item:
    """The item that says `value`. Raises LocalProtocolError when it cannot be said."""
    try:
        data = ITEM_KINDS[item_id].encode(value)
    except (OverflowError, ValueError, KeyError, struct.error, TypeError) as error:
        raise LocalProtocolError("item", f"{item_id:02X} = {value!r}: {error}") from None
    return Item(item_id, data)


def item_values(items: Iterable[Item]) -> ItemValues:
    """Decode what is known; the rest is handed back as it came."""
    values: dict[int, Any] = {}
    seen: set[int] = set()
    unknown: list[Item] = []
    duplicates: list[Item] = []
    malformed: list[Item] = []
    for item in items:
        item_id, data = item
        if item_id in seen:
            duplicates.append(item)
            continue
        if not item_id and not data:  # padding
            continue
        seen.add(item_id)
        kind = ITEM_KINDS.get(item_id)
        if kind is None:
            unknown.append(item)
        elif (value := kind.decode(data)) is None:
            malformed.append(item)
        else:
            values[item_id] = value
    return ItemValues(values, tuple(unknown), tuple(duplicates), tuple(malformed))
