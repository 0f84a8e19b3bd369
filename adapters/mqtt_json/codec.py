"""MQTT payload bytes in, JSON values out; and the bytes the simulator sends. No sockets, no clock.

    plain       {...}                                       any JSON value
    geohazard   | type u8 | size u16 BE | JSON, size bytes |                 type 02 or 03
                | 05 | size u16 | JSON | size u16 | file |                   JSON and a file
                | 10 | one of the above, or size and JSON |                  seen in the field
                or plain JSON without a wrapper

JSON as devices write it, not as it should be. A number that does not fit becomes infinite (the
mapping makes it a bad sample). A key that stands twice with different values becomes `AMBIGUOUS`:
whichever of the two were taken, the other might be the one that should have raised the alarm.

Owns: size, nesting, wrapper. Not here: what the values mean (mapping.py).

The layout after 0x10 is **unconfirmed**: both readings are tried, and the one whose sizes add up to
the payload's is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from gateway.model.errors import RemoteProtocolError

PAYLOAD_SIZE_MAX = 1 << 20
NESTING_MAX = 32  # the deepest profile (geohazard) has five levels

WRAPPED_JSON = (0x02, 0x03)
WRAPPED_JSON_AND_FILE = 0x05
WRAPPED_TWICE = 0x10

_SAFE_INT_DIGITS = 19
_NS = 1_000_000_000


class _Ambiguous:
    """Stands where an object had the same key twice with different values."""

    def __repr__(self) -> str:
        return "AMBIGUOUS"


AMBIGUOUS: Final = _Ambiguous()


def decode(payload: bytes, *, wrapper: str = "none", size_max: int = PAYLOAD_SIZE_MAX) -> Any:
    """The JSON value of one payload.

    Raises RemoteProtocolError with code `too_large`, `wrapper`, `encrypted`, `bad_utf8`, `bad_json`
    or `too_deep`; never anything else, whatever the bytes.
    """
    if len(payload) > size_max:
        raise RemoteProtocolError("too_large", f"{len(payload)} bytes, at most {size_max}")
    if wrapper == "geohazard":
        value = parse_json(unwrap(payload))
        if isinstance(value, dict) and "bodies" in value and "header" in value:
            raise RemoteProtocolError("encrypted", "header and bodies: the key is not ours")
        return value
    return parse_json(payload)


def unwrap(payload: bytes) -> bytes:
    """The JSON bytes inside a geohazard payload, wrapped or plain."""
    first = payload[0] if payload else 0
    if first in WRAPPED_JSON or first == WRAPPED_JSON_AND_FILE:
        found = _wrapped(payload)
    elif first == WRAPPED_TWICE:
        found = _wrapped(payload[1:])
        if found is None:
            found = _sized(payload, 1)
    else:
        return payload
    if found is None:
        detail = f"type {first:#04x}: the sizes do not add up to {len(payload)} bytes"
        raise RemoteProtocolError("wrapper", detail)
    return found


def wrap(body: bytes, kind: int = 0x03, file: bytes = b"") -> bytes:
    """A geohazard payload around JSON bytes, as a device sends it."""
    sized = bytes([kind]) + len(body).to_bytes(2, "big") + body
    return sized + len(file).to_bytes(2, "big") + file if kind == WRAPPED_JSON_AND_FILE else sized


def parse_json(data: bytes) -> Any:
    """A JSON value (RFC 8259, besides: a byte order mark, and NaN and Infinity as devices print
    them)."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("bad_utf8", str(error)) from None
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        raise RemoteProtocolError("bad_json", str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    if _is_deeper(value, NESTING_MAX):
        raise _too_deep()
    return value


def encode_report(device: str, time_ns: int, values: Mapping[str, float | None]) -> bytes:
    """One report in the layout of the tailings-generic profile. A value of None is sent as null:
    the device has no value.

    Floats are written with the shortest digits that read back as the same float.
    """
    body = {"device": device, "time": format_time(time_ns), "values": dict(values)}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC, with as many digits below the second as it takes."""
    seconds, fraction = divmod(time_ns, _NS)
    days, second_of_day = divmod(seconds, 86_400)
    year, month, day = _civil(days)
    hour, minute, second = second_of_day // 3600, second_of_day // 60 % 60, second_of_day % 60
    text = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month, day of a count of days since 1970-01-01 (proleptic Gregorian)."""
    days += 719_468  # days from 0000-03-01, so that the leap day is the last of its year
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def _wrapped(payload: bytes) -> bytes | None:
    if not payload:
        return None
    if payload[0] in WRAPPED_JSON:
        return _sized(payload, 1)
    if payload[0] != WRAPPED_JSON_AND_FILE:
        return None
    end = 3 + int.from_bytes(payload[1:3], "big")
    file_size = int.from_bytes(payload[end : end + 2], "big")
    return payload[3:end] if len(payload) == end + 2 + file_size else None


def _sized(payload: bytes, at: int) -> bytes | None:
    size = int.from_bytes(payload[at : at + 2], "big")
    return payload[at + 2 :] if len(payload) == at + 2 + size else None


def _too_deep() -> RemoteProtocolError:
    return RemoteProtocolError("too_deep", f"more than {NESTING_MAX} levels")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether arrays and objects stand in each other more than `levels` deep. Asked of the value,
    not of its text: looking for brackets outside of strings took hours for some megabytes."""
    nodes = [value]
    for _ in range(levels + 1):
        nodes = [node for node in nodes if isinstance(node, dict | list)]
        if not nodes:
            return False
        nodes = [c for n in nodes for c in (n.values() if isinstance(n, dict) else n)]
    return True


def _integer(digits: str) -> int | float:
    """A float for what float64 cannot hold exactly anyway: Python refuses 4,300 digits, and takes
    its time over somewhat fewer."""
    return int(digits) if len(digits) <= _SAFE_INT_DIGITS else float(digits)


def _constant(word: str) -> float:
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[word]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: dict[str, Any] = {}
        for key, value in pairs:
            twice = key in seen and repr(seen[key]) != repr(value)  # repr: NaN equals NaN
            seen[key] = AMBIGUOUS if twice else value
        return seen
    return found


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_constant, object_pairs_hook=_object)
