"""Times as devices write them, to UTC nanoseconds. Pure; None for what is no time.

RFC 3339 keeps nine digits below the second. Unix seconds with a fraction are a float64, good to a
fraction of a microsecond, and are taken to the microsecond. Offsets are fixed (`+08:00`): China has
no daylight saving time, and a device that changes its clock twice a year cannot be read exactly.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

_NS = 1_000_000_000
_RANGE_NS = (0, 2**63 - 1)  # 1970 to 2262: a batch's int64; before 1970 nothing was measured
_TEXT_SIZE_MAX = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,18}))?\s?(Z|z|[+-]\d\d:?\d\d)?"
)


class TimeReader:
    """Reads one format."""

    def __init__(self, time_format: str, time_zone: str = "") -> None:
        self._format = time_format
        self._exact = set(re.findall(r"%(.)", time_format)) <= set("YmdHMS%")
        self._last: tuple[str, int | None] = ("", None)
        self._zone_s = None if not time_zone else _offset_s(time_zone)

    def read(self, raw: Any) -> int | None:
        """UTC nanoseconds, or None. The values of one message mostly share one text."""
        if isinstance(raw, str):
            if raw != self._last[0]:
                self._last = (raw, self._read(raw))
            return self._last[1]
        return self._read(raw)

    def _read(self, raw: Any) -> int | None:
        if isinstance(raw, bool):
            return None
        if self._format == "unix_s":
            time_ns = _unix(raw, 1)
        elif self._format == "unix_ms":
            time_ns = _unix(raw, 1000)
        elif not isinstance(raw, str) or len(raw) > _TEXT_SIZE_MAX or not raw.isascii():
            return None
        elif self._format == "rfc3339":
            time_ns = self._rfc3339(raw)
        else:
            time_ns = self._strptime(raw)
        if time_ns is None or not _RANGE_NS[0] <= time_ns <= _RANGE_NS[1]:
            return None
        return time_ns

    def _rfc3339(self, text: str) -> int | None:
        found = _RFC3339.fullmatch(text.strip())
        if found is None:
            return None
        zone_s = _offset_s(found[8]) if found[8] else self._zone_s
        second = int(found[6])
        if zone_s is None or second > 60:  # 60 is a leap second: the first of the next minute
            return None
        try:
            minute = datetime(
                int(found[1]),
                int(found[2]),
                int(found[3]),
                int(found[4]),
                int(found[5]),
                tzinfo=UTC,
            )
        except ValueError:
            return None
        seconds = _seconds(minute) + second - zone_s
        return seconds * _NS + int((found[7] or "0").ljust(9, "0")[:9])

    def _strptime(self, text: str) -> int | None:
        try:
            found = datetime.strptime(text, self._format)  # noqa: DTZ007  the zone is added below
        except ValueError:
            return None
        if self._exact and found.strftime(self._format) != text:
            return None  # strptime reads 2026031414 as the 1st, four o'clock, one minute, four
        if found.tzinfo is None:
            assert self._zone_s is not None, "the configuration asks for a zone"
            found = found.replace(tzinfo=timezone(timedelta(seconds=self._zone_s)))
        try:
            return _seconds(found.replace(microsecond=0)) * _NS + found.microsecond * 1000
        except OverflowError:
            return None


def _seconds(moment: datetime) -> int:
    gone = moment - _EPOCH
    return gone.days * 86_400 + gone.seconds


def _offset_s(zone: str) -> int:
    if zone in ("Z", "z"):
        return 0
    digits = zone[1:].replace(":", "")
    size_s = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -size_s if zone[0] == "-" else size_s


def _unix(raw: Any, per_second: int) -> int | None:
    if isinstance(raw, str):
        text = raw.strip()
        if re.fullmatch(r"\d{1,19}(\.\d{1,9})?", text, re.ASCII) is None:
            return None
        raw = float(text) if "." in text else int(text)
    if isinstance(raw, int):
        return raw * (_NS // per_second)
    if not isinstance(raw, float) or not math.isfinite(raw) or abs(raw) > 1e15:
        return None
    return round(raw * (1_000_000 // per_second)) * 1000
