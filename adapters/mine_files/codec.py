"""Mine hand-over files: bytes in, one message out, and back. No files, no clock.

    <mine>_<KIND>_<yyyyMMddHHmmss>.txt

    [BOM] ["] mine;name;…;time ~ field;field;… ~ field;field;… ~ || ["]
              `-- header        `-- record 1    `-- record 2     `-- end mark: tells the family

Nothing before the end mark is trusted: a file without one is still being written. Line breaks are
no part of the format and are dropped wherever they stand. Records are checked one by one; a bad one
is a `RecordFault` with its number and text and costs none of its neighbours.

Surprising: whether a file is complete is asked of its text, not of its bytes, because in GB 18030
the bytes of `|` and `~` are also second halves of characters.

Owns: names, framing, encoding, field order, times. Not here: what a field means (mapping.py), which
fields exist (kinds.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from adapters.mine_files.kinds import COAL, KINDS, METAL, PROFILES, Check, Kind, Layout, Profile
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

RECORDS_MAX = 100_000
"""More than fifty of the largest mines have points; a file beyond it is not one of ours, and
holding it would take hundreds of megabytes."""
FAULTS_KEPT_MAX = 1_000
"""Faults kept with their text; further ones are only counted."""
RAW_KEPT_CHARS = 500
SECOND_NS = 1_000_000_000
CHINA_OFFSET_S = 8 * 3600  # UTC+8 the year round since 1992
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_YEAR_MAX = 2200  # int64 nanoseconds end in 2262

# No check of the length: one live platform sees names of 42 characters where the text says 36.
_NAME = re.compile(
    r"(?P<mine>[0-9A-Z]{9,22})_(?P<kind>[A-Z]{3,10})_(?P<stamp>[0-9]{14,17})(?P<suffix>_\w+)?"
    r"\.(?:txt|TXT)",
    re.ASCII,
)
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ /]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,3}))?"
)
_CODE = re.compile(r"[^\s/+#\x00-\x1f]{1,64}")
_VALUE_TYPES = frozenset({"MN", "KG", "LJ", "DT"})
_FLAGS = frozenset({"0", "1", "2"})
_FULL_WIDTH = "；"
_AROUND = " \t\r\n\v\f\ufeff"
_END_MARKS = tuple(
    mark.encode(encoding)
    for profile in PROFILES
    for mark in profile.end_marks
    for encoding in ("utf-8", "gb18030")
)


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name says."""

    mine_code: str
    kind: str
    stamp: str  # yyyyMMddHHmmss, perhaps with milliseconds
    text: str  # the whole name


class Record(NamedTuple):
    """One record: the values in the order of its layout. `extras` are fields beyond it."""

    number: int  # 1-based, the header not counted
    layout: Layout
    values: Sequence[str]
    extras: Sequence[str] = ()

    def get(self, name: str) -> str:
        """The field of that name, "" where this layout has none."""
        position = self.layout.index.get(name)
        return "" if position is None or position >= len(self.values) else self.values[position]

    def named(self) -> dict[str, str]:
        return dict(zip(self.layout.fields, self.values, strict=False))


class RecordFault(NamedTuple):
    """Why one record was not taken, or what was odd about it."""

    number: int
    field: str  # "" when the record as a whole is at fault
    expected: str
    raw: str

    def __str__(self) -> str:
        where = f"record {self.number}"
        return f"{where}: {self.field or '-'}: expected {self.expected}: {self.raw}"


@dataclass(frozen=True, slots=True)
class FileMessage:
    """What one complete file says."""

    kind: Kind
    mine_code: str
    header: Mapping[str, str]
    time_ns: int  # the header's time, UTC
    records: Sequence[Record]
    faults: Sequence[RecordFault] = ()
    fault_count: int = 0
    warnings: Mapping[str, int] = field(default_factory=dict)  # reason -> records
    encoding: str = "utf-8"
    name: FileName | None = None

    @property
    def bad_share(self) -> float:
        """Records not taken, as a share of all."""
        total = len(self.records) + self.fault_count
        return self.fault_count / total if total else 0.0


# ------------------------------------------------------------------------------------------ names


def parse_name(text: str) -> FileName | None:
    """The parts of a file name, None when it is not one of this protocol."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    return FileName(match["mine"], match["kind"], match["stamp"], text)


def encode_name(mine_code: str, kind: str, time_ns: int) -> str:
    stamp = re.sub(r"[^0-9]", "", format_time(time_ns))
    return f"{mine_code}_{kind}_{stamp}.txt"


# ------------------------------------------------------------------------------------------ times


@lru_cache(maxsize=8192)
def parse_time(text: str) -> int | None:
    """UTC nanoseconds of a China-local time, None when it is not one."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1970 < year <= _YEAR_MAX and hour < 24 and minute < 60 and second < 60):
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - CHINA_OFFSET_S
    fraction = (match[7] or "").ljust(3, "0")
    return seconds * SECOND_NS + int(fraction) * 1_000_000


def format_time(time_ns: int) -> str:
    """`yyyy-MM-dd HH:mm:ss` in China, whole seconds."""
    seconds = time_ns // SECOND_NS + CHINA_OFFSET_S
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{date.fromordinal(_EPOCH_DAY + days).isoformat()} {clock}"


def stamp_time(stamp: str) -> int | None:
    """UTC nanoseconds of the time in a file name."""
    if len(stamp) < 14:
        return None
    y, mo, d, h, mi, s = stamp[:4], stamp[4:6], stamp[6:8], stamp[8:10], stamp[10:12], stamp[12:14]
    return parse_time(f"{y}-{mo}-{d} {h}:{mi}:{s}")


def peek_time(head: bytes) -> int | None:
    """The header's time from the first bytes of a file, whatever its encoding; None if not there.

    For ordering only: separators, digits and the time are ASCII in every encoding in use.
    """
    for profile in PROFILES:
        segment, found, _ = head.partition(profile.record_mark.encode())
        if found:
            last = segment.rsplit(profile.field_mark.encode(), 1)[-1]
            time_ns = parse_time(last.decode("ascii", "replace").strip(_AROUND))
            if time_ns is not None:
                return time_ns
    return None


# ---------------------------------------------------------------------------------------- framing


def has_end_mark(tail: bytes) -> bool:
    """Whether the last bytes of a file are those of a finished one, as far as bytes can tell."""
    return tail.rstrip(b' \t\r\n"').endswith(_END_MARKS)


def decode_file(
    data: bytes, name: FileName, *, encodings: Sequence[str] = ("utf-8",)
) -> FileMessage:
    """One whole file.

    Raises:
        RemoteProtocolError: `incomplete` (wait for the rest), `encoding`, `kind` (known or not,
            its field order is not in the tables), `header`, `too_many_records`.
    """
    text, encoding = decode_bytes(data, encodings)
    return decode_text(text, name.kind, name=name, encoding=encoding)


def decode_text(
    text: str, kind_name: str, *, name: FileName | None = None, encoding: str = "utf-8"
) -> FileMessage:
    """The text of one whole file of a known kind. Raises as `decode_file` does."""
    body, profile = _frame(text)
    kind = KINDS.get(kind_name)
    if kind is None or not kind.layouts:
        raise RemoteProtocolError("kind", f"the field order of {kind_name!r} is not known")
    if body.count(profile.record_mark) > RECORDS_MAX + 1:
        raise RemoteProtocolError("too_many_records", f"more than {RECORDS_MAX}")
    body = body.replace("\r", "").replace("\n", "")
    segments = body.split(profile.record_mark)
    header, time_ns = _header(segments[0], kind, profile)
    if name is not None and header["mine_code"] != name.mine_code:
        detail = f"mine {header['mine_code']!r} in the header, {name.mine_code!r} in the name"
        raise RemoteProtocolError("header", detail)
    reader = _RecordReader(kind, profile, has_full_width=_FULL_WIDTH in body)
    for segment in segments[1:]:
        stripped = segment.strip(_AROUND)
        if stripped:
            reader.read(stripped)
    return FileMessage(
        kind=kind,
        mine_code=header["mine_code"],
        header=header,
        time_ns=time_ns,
        records=reader.records,
        faults=reader.faults,
        fault_count=reader.fault_count,
        warnings=reader.warnings,
        encoding=encoding,
        name=name,
    )


def decode_bytes(data: bytes, encodings: Sequence[str]) -> tuple[str, str]:
    """The text of a file and its encoding, the first that fits.

    Raises RemoteProtocolError: `encoding`, `incomplete`.
    """
    for encoding in encodings:
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    # A file cut inside a character cannot be decoded either: it is unfinished, not foreign.
    if has_end_mark(data):
        raise RemoteProtocolError("encoding", f"not {' or '.join(encodings)}")
    raise RemoteProtocolError("incomplete", "no end mark")


def _frame(text: str) -> tuple[str, Profile]:
    """Strip BOM, blanks and one pair of quotes; find the end mark and take it off."""
    text = text.strip(_AROUND)
    if text.startswith('"') and text.endswith('"'):  # a generator that writes a JSON string
        text = text[1:-1].strip(_AROUND)
    for profile in PROFILES:
        for mark in profile.end_marks:
            if text.endswith(mark):
                return text[: -len(mark)], profile
    raise RemoteProtocolError("incomplete", "no end mark")


def _header(segment: str, kind: Kind, profile: Profile) -> tuple[dict[str, str], int]:
    """Header fields by name. The time is read from the end: it is last in every version."""
    parts = [part.strip(_AROUND) for part in segment.split(profile.field_mark)]
    if len(parts) > 2 and not parts[-1]:
        parts.pop()
    time_ns = parse_time(parts[-1])
    if len(parts) < 2 or time_ns is None or not _CODE.fullmatch(parts[0]):
        expected = f"mine code{profile.field_mark}…{profile.field_mark}yyyy-MM-dd HH:mm:ss"
        raise RemoteProtocolError("header", f"expected {expected}, got {segment[:120]!r}")
    names = kind.headers.get(len(parts))
    if names is None:  # a version we have not seen: only what its position makes certain
        return {"mine_code": parts[0], "mine_name": parts[1], "time": parts[-1]}, time_ns
    return dict(zip(names, parts, strict=True)), time_ns


class _RecordReader:
    """Checks and collects the records of one file."""

    def __init__(self, kind: Kind, profile: Profile, *, has_full_width: bool) -> None:
        self.records: list[Record] = []
        self.faults: list[RecordFault] = []
        self.fault_count = 0
        self.warnings: dict[str, int] = {}
        self._kind = kind
        self._mark = profile.field_mark
        self._has_full_width = has_full_width
        self._number = 0

    def read(self, segment: str) -> None:
        self._number += 1
        if self._has_full_width and _FULL_WIDTH in segment:
            self._fault("", "ASCII ; between fields, not the full-width one", segment)
            return
        values = segment.split(self._mark)
        layout = self._layout(values)
        if layout is None:
            counts = " or ".join(str(count) for count in sorted(self._kind.layouts))
            self._fault("", f"{counts} fields, not {len(values)}", segment)
            return
        for position, check in layout.checks:
            if position < len(values) and not _PASSES[check](values[position]):
                self._fault(layout.fields[position], check.value, segment)
                return
        size = len(layout.fields)
        if len(values) <= size:
            self.records.append(Record(self._number, layout, values))
            return
        extras = values[size:]
        if any(extras):
            self.warnings["extra_fields"] = self.warnings.get("extra_fields", 0) + 1
        self.records.append(Record(self._number, layout, values[:size], extras))

    def _layout(self, values: list[str]) -> Layout | None:
        """By field count; failing that one empty field more, absent trailing fields, or more fields
        than we know (kept raw). An empty last field speaks for the shorter of two neighbours: in
        the longer RYJZ it is a time, never empty."""
        layouts, count = self._kind.layouts, len(values)
        if not values[-1] and count - 1 in layouts:
            return layouts[count - 1]
        if count in layouts:
            return layouts[count]
        longest = layouts[max(layouts)]
        if count > len(longest.fields):
            return longest
        return longest if count >= longest.shortest else None

    def _fault(self, field_name: str, expected: str, segment: str) -> None:
        self.fault_count += 1
        if len(self.faults) < FAULTS_KEPT_MAX:
            raw = segment[:RAW_KEPT_CHARS]
            self.faults.append(RecordFault(self._number, field_name, expected, raw))


_PASSES: Mapping[Check, Callable[[str], object]] = {
    Check.ID: _CODE.fullmatch,
    Check.TIME: parse_time,
    Check.VALUE_TYPE: _VALUE_TYPES.__contains__,
    Check.FLAG: _FLAGS.__contains__,
}
"""Truthy when the field is what it must be. No time is zero: the first year taken is 1971."""


# --------------------------------------------------------------------------------------- encoding


def encode_file(
    kind_name: str,
    header: Mapping[str, str],
    records: Iterable[Mapping[str, str]],
    *,
    encoding: str = "utf-8",
) -> bytes:
    """The bytes of one file: the kind's longest header that `header` fills, its first layout that
    has all of a record's fields.

    Raises:
        LocalProtocolError: a field the kind does not have, or text the format cannot carry.
    """
    kind = KINDS.get(kind_name)
    if kind is None or not kind.layouts:
        raise LocalProtocolError("kind", kind_name)
    profile = METAL if kind_name.startswith("N") else COAL
    headers = sorted(kind.headers.values(), key=len)
    names = next((names for names in headers if set(header) <= set(names)), headers[-1])
    body = (_join(_layout_for(kind, record).fields, record, profile) for record in records)
    segments = [_join(names, header, profile), *body, profile.end_marks[0]]
    text = profile.record_mark.join(segments)
    return text.encode(encoding)


def _layout_for(kind: Kind, record: Mapping[str, str]) -> Layout:
    for layout in kind.layouts.values():
        if record.keys() <= set(layout.fields):
            return layout
    raise LocalProtocolError("field", f"{kind.name} has not all of {sorted(record)}")


def _join(names: Sequence[str], values: Mapping[str, str], profile: Profile) -> str:
    unknown = set(values) - set(names)
    if unknown:
        raise LocalProtocolError("field", f"not in this layout: {sorted(unknown)}")
    parts = [values.get(name, "") for name in names]
    banned = (profile.field_mark, profile.record_mark, _FULL_WIDTH, "\r", "\n")
    for part in parts:
        if any(mark in part for mark in (*banned, *profile.end_marks)):
            raise LocalProtocolError("text", f"the format cannot carry {part!r}")
    return profile.field_mark.join(parts)
