"""Instants as people and files write them: RFC 3339 or integer nanoseconds, both ways. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

NS_PER_S = 1_000_000_000
TIME_MIN, TIME_MAX = -(1 << 62), 1 << 62  # beyond it the rule core's NEVER and FOREVER
_EPOCH_DAY = 719_163  # datetime's ordinal of 1970-01-01
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?"
    r"(?:([Zz])|([+-])(\d\d):([0-5]\d))"
)


def time_ns_of(text: str) -> int:
    """UTC nanoseconds. Raises ValueError saying what the text is not.

    A second of 60 (a leap second) is the first one of the next minute, as POSIX has it; digits
    beyond the ninth are cut off.
    """
    text = text.strip()
    if text.isascii() and text.removeprefix("-").isdigit():
        time_ns = int(text)
    else:
        time_ns = _rfc3339_ns(text)
    if not TIME_MIN < time_ns < TIME_MAX:
        raise ValueError(f"time {text} is beyond what can be told apart")
    return time_ns


def _rfc3339_ns(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    if found is None or not text.isascii():
        raise ValueError(f"time {text!r} is neither RFC 3339 with an offset nor integer ns")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, _, sign, hours, minutes = found.groups()[6:]
    try:
        at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"time {text!r}: {error}") from None
    if second > 60:
        raise ValueError(f"time {text!r}: second must be in 0..60")
    seconds = (at.toordinal() - _EPOCH_DAY) * 86_400 + hour * 3_600 + minute * 60 + second
    if sign:
        offset = int(hours) * 3_600 + int(minutes) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * NS_PER_S + int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_ns: int) -> str:
    """UTC, always with nine digits: texts then sort as times do. An integer where the calendar
    ends."""
    seconds, fraction = divmod(time_ns, NS_PER_S)
    try:
        return f"{_second(seconds)}.{fraction:09d}Z"
    except (ValueError, OverflowError, OSError):
        return str(time_ns)


def span(seconds: float) -> str:
    """A length of time for a person: the two largest units."""
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit, next_size, next_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if left >= size:
            rest = int(left % size // next_size)
            return f"{sign}{int(left // size)} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{sign}{left:.3g} s"
