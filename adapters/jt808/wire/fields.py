"""The small types of the wire: BCD digits, GBK text, device time. No frames, no messages.

    phone  BCD, padded on the left with 0: 6 bytes (2011, 2013) or 10 bytes (2019)
    text   GBK; 2011 closes every string with one NUL, later editions with nothing
    time   BCD[6] YYMMDDhhmmss in GMT+8, whole seconds

Surprising: a phone may hold nibbles above 9 (garbled SIM numbers in the field), so its digits are
kept as hexadecimal text and compared with leading zeros removed: the same SIM is 12 digits before
and 20 digits after a firmware update. Not here: what an unusable time means (mapping.py).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from gateway.model.errors import LocalProtocolError

GMT8_S = 8 * 3600  # every device time of JT/T 808 except 0x8004
NS = 1_000_000_000
_DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TWO_DIGITS = [
    (byte >> 4) * 10 + (byte & 15) if byte >> 4 < 10 and byte & 15 < 10 else -1
    for byte in range(256)
]


def phone_key(phone_bcd: bytes) -> str:
    """The identity in a header: its digits with leading zeros removed, "0" for none at all."""
    return phone_bcd.hex().upper().lstrip("0") or "0"


def phone_bcd(phone: str, size: int) -> bytes:
    """`phone` as `size` bytes of BCD.

    Raises LocalProtocolError when it does not fit or is not digits.
    """
    try:
        packed = bytes.fromhex(phone.zfill(size * 2))
    except ValueError:
        raise LocalProtocolError("phone", f"not digits: {phone!r}") from None
    if len(packed) != size:
        raise LocalProtocolError("phone", f"{phone!r} does not fit {size} bytes")
    return packed


def decode_text(data: bytes) -> str:
    """GBK text without padding on either side; what is not GBK becomes U+FFFD."""
    return data.strip(b"\x00 ").decode("gbk", "replace")


def encode_text(text: str) -> bytes:
    """GBK; raises LocalProtocolError for what GBK cannot say."""
    try:
        return text.encode("gbk")
    except UnicodeEncodeError:
        raise LocalProtocolError("text", f"not in GBK: {text!r}") from None


def encode_padded(text: str, size: int, *, in_front: bool = False) -> bytes:
    """`text` in exactly `size` bytes, filled with 00 behind, or in front (2019 text)."""
    data = encode_text(text)
    if len(data) > size:
        raise LocalProtocolError("text", f"{text!r} does not fit {size} bytes")
    return data.rjust(size, b"\0") if in_front else data.ljust(size, b"\0")


@lru_cache(maxsize=4096)  # a device sends few different days
def _epoch_day(year_month_day: bytes) -> int | None:
    year, month, day = (_TWO_DIGITS[byte] for byte in year_month_day)
    if year < 0:
        return None
    try:
        return date(2000 + year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None


def time_ns(bcd: bytes, utc_offset_s: int = GMT8_S) -> int | None:
    """UTC nanoseconds of a device time, None when it is not a time (all zeros, month 13, …)."""
    day = _epoch_day(bcd[:3])
    hour, minute, second = _TWO_DIGITS[bcd[3]], _TWO_DIGITS[bcd[4]], _TWO_DIGITS[bcd[5]]
    if day is None or not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return None
    return (day * _DAY_S + hour * 3600 + minute * 60 + second - utc_offset_s) * NS


def time_bcd(utc_ns: int, utc_offset_s: int = GMT8_S) -> bytes:
    """The device time of a moment, cut to whole seconds; years 2000 to 2099 can be said."""
    moment = _EPOCH + timedelta(seconds=utc_ns // NS + utc_offset_s)
    if not 2000 <= moment.year <= 2099:
        raise LocalProtocolError("time", f"year {moment.year} has no two-digit form")
    return bytes.fromhex(moment.strftime("%y%m%d%H%M%S"))
