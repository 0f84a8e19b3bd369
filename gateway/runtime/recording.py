"""Recorded samples in a file: CSV, Parquet or Arrow in, batches out, every refused row by name.

    point,time,value,quality                        any order of columns, others are left alone
    001A01,2026-03-01T08:00:00.5+08:00,0.42,good    RFC 3339 with any offset, up to nanoseconds
    001A01,1772323201000000000,,bad_sensor_fault    or integer nanoseconds since 1970, UTC

What a file is, its first bytes say (gzip, `PAR1`, `ARROW1`, an Arrow stream's 0xFFFFFFFF); what
says none of these is CSV. Quality is optional: a name of `gateway.model.quality.Quality` in any
case, or its number. An empty value is a sample without a value, of bad quality unless the row says
worse. A recording carries no time of receipt: it counts as received when it was measured.

The file's rows are somebody's data, ours is to say which of them could not be used and why: a row
is refused, counted by its reason, and the next one goes on. Only a file that is no recording at all
(no `point`, `time`, `value`) raises.

Not here: the order of time (timesort.py), judging (replay.py).
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch
from gateway.model.errors import ConfigError, Fault
from gateway.model.quality import Quality
from gateway.runtime.instants import TIME_MAX, TIME_MIN, time_ns_of

PART_ROWS = 50_000
EXAMPLES_MAX = 5  # refused rows named for each reason; the rest is counted
POINTS_NAMED_MAX = 20
_REQUIRED = ("point", "time", "value")
_CACHE_MAX = 200_000  # texts of times remembered: many points share one
_QUALITIES = {quality.name.lower(): int(quality) for quality in Quality}
_QUALITY_CODES = frozenset(int(quality) for quality in Quality)
_NO_VALUE = frozenset({"", "nan", "null"})

KnownPoint = Callable[[str], int | None]
"""The point_index of an id; None for one the site does not know."""


@dataclass
class Refusals:
    """What could not be used and why, as the person who recorded it can find it again."""

    total: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unknown_points: dict[str, tuple[int, int]] = field(default_factory=dict)  # first line, rows

    def add(self, line: int, reason: str, detail: str = "") -> None:
        """`reason` is counted, `detail` is shown for the first few."""
        self.total += 1
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES_MAX:
            shown.append(f"{line}: {detail or reason}")

    def add_unknown(self, line: int, point: str, rows: int = 1) -> None:
        first, count = self.unknown_points.get(point, (line, 0))
        self.unknown_points[point] = (min(first, line), count + rows)
        self.total += rows

    def lines(self, name: str) -> Iterator[str]:
        """For stderr: `file:line: reason`, then how many more."""
        for reason, count in self.by_reason.items():
            shown = self.examples[reason]
            yield from (f"{name}:{each}" for each in shown)
            if count > len(shown):
                yield f"{name}: {reason}: {count - len(shown)} more rows"
        named = sorted(self.unknown_points.items(), key=lambda item: item[1])
        for point, (line, count) in named[:POINTS_NAMED_MAX]:
            yield f"{name}:{line}: point {point!r} is not known to this site: {count} rows"
        left = named[POINTS_NAMED_MAX:]
        if left:
            rows = sum(count for _, (_, count) in left)
            yield f"{name}: {len(left)} more points are not known: {rows} rows"


@dataclass
class Recording:
    """One reading of one file; `refusals`, `notes` and `row_count` are whole when it has ended."""

    path: Path | None  # None: standard input
    known: KnownPoint
    refusals: Refusals = field(default_factory=Refusals)
    notes: list[str] = field(default_factory=list)
    row_count: int = 0

    @property
    def name(self) -> str:
        return str(self.path) if self.path else "standard input"

    def batches(self) -> Iterator[Batch]:
        """The usable rows in the order of the file. Raises ConfigError for no recording at all."""
        try:
            with self._opened() as file:
                yield from self._parts(file)
        except OSError as error:
            raise self._fault(f"a readable file ({error.strerror or error})") from error
        except (EOFError, zlib.error, UnicodeDecodeError, MemoryError) as error:
            # the last two: what a damaged Arrow file says of its names and of its own size
            raise self._fault(f"a whole file ({error or type(error).__name__})") from error

    def _opened(self) -> IO[bytes]:
        if self.path is None:
            return io.BufferedReader(_Unclosed(sys.stdin.buffer))
        return self.path.open("rb")

    def _parts(self, file: Any) -> Iterator[Batch]:
        head = file.peek(8)[:8]
        if head[:2] == b"\x1f\x8b":
            with gzip.open(file, "rb") as inner:
                yield from self._parts(inner)
        elif head[:4] == b"PAR1":
            yield from self._columnar(_parquet(_seekable(file), self._fault))
        elif head[:6] == b"ARROW1":
            yield from self._columnar(_arrow(_seekable(file), "open_file", self._fault))
        elif head[:4] == b"\xff\xff\xff\xff":
            yield from self._columnar(_arrow(file, "open_stream", self._fault))
        else:
            yield from self._csv(file)

    def _fault(self, expected: str, line: int = 0) -> ConfigError:
        return ConfigError([Fault(self.name, line, "", expected)])

    def _columns(self, names: Sequence[str]) -> dict[str, int]:
        """Where each column stands. Notes those that are not ours, once."""
        found: dict[str, int] = {}
        extra = []
        for at, name in enumerate(names):
            word = name.strip().lower()
            if word in found:
                raise self._fault(f"column {word} only once", 1)
            if word in (*_REQUIRED, "quality"):
                found[word] = at
            else:
                extra.append(name.strip())
        missing = [name for name in _REQUIRED if name not in found]
        if missing:
            has = ", ".join(names) or "none"
            raise self._fault(f"columns point, time, value[, quality]; it has {has[:200]}", 1)
        if extra:
            self.notes.append(f"{self.name}: columns left alone: {', '.join(extra)[:200]}")
        return found

    # ------------------------------------------------------------------ CSV

    def _csv(self, file: IO[bytes]) -> Iterator[Batch]:
        with io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            first = text.readline()
            if not first.strip():
                raise self._fault("columns point, time, value[, quality]; it is empty", 1)
            delimiter = _delimiter(first)
            at = self._columns(next(csv.reader([first], delimiter=delimiter)))
            part = _CsvPart(self, at, max(at.values()) + 1)
            for row, line in self._rows(csv.reader(text, delimiter=delimiter, strict=True)):
                part.add(row, line)
                if len(part) >= PART_ROWS:
                    yield part.take()
            if len(part):
                yield part.take()

    def _rows(self, reader: Any) -> Iterator[tuple[list[str], int]]:
        """Rows with the line they end on, behind the heading; blank ones are none."""
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.row_count += 1
                self.refusals.add(1 + reader.line_num, "not CSV", f"not CSV: {error}")
                continue
            if row:
                yield row, 1 + reader.line_num

    # ------------------------------------------------------------------ Parquet and Arrow

    def _columnar(self, tables: Iterable[Any]) -> Iterator[Batch]:
        at: dict[str, int] | None = None
        for table in tables:
            if at is None:
                at = self._columns(table.schema.names)
            if table.num_rows:
                yield self._batch_of({name: table.column(i) for name, i in at.items()})
        if at is None:
            raise self._fault("columns point, time, value[, quality]; it has none", 1)

    def _batch_of(self, columns: dict[str, Any]) -> Batch:
        size = len(columns["point"])
        row = np.arange(self.row_count + 1, self.row_count + size + 1)
        self.row_count += size
        keep = np.ones(size, np.bool_)
        quality = np.zeros(size, np.uint8)
        if "quality" in columns:
            quality = self._converted("quality", columns["quality"], row, keep).astype(np.uint8)
        time_ns = self._converted("time", columns["time"], row, keep).astype(np.int64)
        value = self._converted("value", columns["value"], row, keep).astype(np.float64)
        point = self._points(columns["point"], row, keep)
        return _finished(point[keep], time_ns[keep], value[keep], quality[keep])

    def _points(self, column: Any, row: NDArray[np.int64], keep: NDArray[np.bool_]) -> Any:
        code, names = _encoded(column)
        index = np.array(
            [-1 if (i := self.known(str(name))) is None else i for name in names], np.int32
        )
        missing = keep & (code < 0)
        for line in row[missing]:
            self.refusals.add(int(line), "no point")
        point = np.append(index, np.int32(-1))[code]
        unknown = keep & (code >= 0) & (point < 0)
        for number in np.unique(code[unknown]):
            lines = row[unknown & (code == number)]
            self.refusals.add_unknown(int(lines[0]), str(names[number]), len(lines))
        keep &= point >= 0
        return point

    def _converted(
        self, what: str, column: Any, row: NDArray[np.int64], keep: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """A column of numbers or times as it is; a column of text by its distinct values."""
        plain = _plain(what, column)
        if plain is not None:
            found, good, reason = plain
        else:
            convert = {"time": time_ns_of, "value": _value_of, "quality": _quality_of}[what]
            code, texts = _encoded(column)
            found, good, reason = _by_text(convert, texts, code)
            if what != "time":
                found = np.where(code < 0, _ABSENT[what], found)
                good |= code < 0
        for line, why in zip(row[keep & ~good], reason(keep & ~good), strict=True):
            self.refusals.add(int(line), f"no {what}" if not why else f"{what} not usable", why)
        keep &= good
        return found


_ABSENT: dict[str, float] = {"value": np.nan, "quality": 0}
Reasons = Callable[[NDArray[np.bool_]], list[str]]
Plain = tuple[NDArray[Any], NDArray[np.bool_], Reasons]


class _CsvPart:
    """Rows of a CSV file on their way into a batch."""

    def __init__(self, recording: Recording, at: dict[str, int], width: int) -> None:
        self._recording = recording
        self._at = tuple(at[name] for name in _REQUIRED)
        self._quality_at = at.get("quality")
        self._width = width
        self._times: dict[str, int] = {}
        self._points: dict[str, int | None] = {}
        self._rows: list[tuple[int, int, float, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: list[str], line: int) -> None:
        """One row; refused with its line when it cannot be used."""
        self._recording.row_count += 1
        refusals = self._recording.refusals
        if len(row) < self._width:
            refusals.add(line, "too few fields", f"{len(row)} fields, {self._width} are needed")
            return
        point_at, time_at, value_at = self._at
        name = row[point_at].strip()
        if not name:
            refusals.add(line, "no point")
            return
        try:
            time_ns = self._time(row[time_at])
            value = _value_of(row[value_at])
            quality = 0 if self._quality_at is None else _quality_of(row[self._quality_at])
        except ValueError as error:
            refusals.add(line, str(error).split(" ", 1)[0] + " not usable", str(error))
            return
        point = self._point(name)
        if point is None:
            refusals.add_unknown(line, name)
            return
        self._rows.append((point, time_ns, value, quality))

    def _time(self, text: str) -> int:
        known = self._times.get(text)
        if known is None:
            if len(self._times) >= _CACHE_MAX:
                self._times.clear()
            known = self._times[text] = time_ns_of(text)
        return known

    def _point(self, name: str) -> int | None:
        if name not in self._points:
            self._points[name] = self._recording.known(name)
        return self._points[name]

    def take(self) -> Batch:
        point, time_ns, value, quality = zip(*self._rows, strict=True)
        self._rows.clear()
        return _finished(
            np.array(point, np.int32),
            np.array(time_ns, np.int64),
            np.array(value, np.float64),
            np.array(quality, np.uint8),
        )


def _finished(
    point: NDArray[np.int32],
    time_ns: NDArray[np.int64],
    value: NDArray[np.float64],
    quality: NDArray[np.uint8],
) -> Batch:
    """No value and no reason for it is a quality of its own."""
    quality = np.where(np.isnan(value) & (quality < Quality.BAD), Quality.BAD_NO_VALUE, quality)
    return Batch(point, value, quality.astype(np.uint8), time_ns, time_ns.copy())


def _value_of(text: str) -> float:
    word = text.strip()
    if word.lower() in _NO_VALUE:
        return float("nan")
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"value {text!r} is no number") from None
    if value in (float("inf"), float("-inf")) or "_" in word:
        raise ValueError(f"value {text!r} is no finite number")
    return value


def _quality_of(text: str) -> int:
    word = text.strip().lower()
    if not word:
        return 0
    code = _QUALITIES.get(word)
    if code is None and word.isascii() and word.isdigit() and int(word) in _QUALITY_CODES:
        code = int(word)
    if code is None:
        raise ValueError(f"quality {text!r} is neither good, uncertain, bad nor a reason's name")
    return code


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)  # the first of equals


# ---------------------------------------------------------------------- pyarrow, loaded when needed


def _pyarrow(module: str, fault: Callable[[str], ConfigError]) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise fault("CSV, or pyarrow to be installed: pip install pyarrow") from error


def _seekable(file: Any) -> Any:
    """Such files are read from their end: what is packed or piped comes into memory whole."""
    is_plain = isinstance(file, io.BufferedReader) and file.seekable()
    return file if is_plain else io.BytesIO(file.read())


def _parquet(file: Any, fault: Callable[[str], ConfigError]) -> Iterator[Any]:
    parquet = _pyarrow("pyarrow.parquet", fault)
    errors = _pyarrow("pyarrow", fault).ArrowException
    try:
        source = parquet.ParquetFile(file)
        yield source.schema_arrow.empty_table().combine_chunks()
        yield from map(_sound, source.iter_batches(batch_size=PART_ROWS))
    except (errors, OSError) as error:
        raise fault(f"a whole Parquet file ({error})") from error


def _arrow(file: Any, opener: str, fault: Callable[[str], ConfigError]) -> Iterator[Any]:
    ipc = _pyarrow("pyarrow.ipc", fault)
    pa = _pyarrow("pyarrow", fault)
    try:
        reader = getattr(ipc, opener)(file)
        yield reader.schema.empty_table()
        if opener == "open_stream":
            yield from map(_sound, reader)
        else:
            yield from (_sound(reader.get_batch(i)) for i in range(reader.num_record_batches))
    except (pa.ArrowException, OSError) as error:
        raise fault(f"a whole Arrow file or stream ({error})") from error


def _sound(batch: Any) -> Any:
    """The batch, looked through: the library believes a file's offsets, and a wrong one would end
    this process. Raises ArrowException."""
    batch.validate(full=True)
    return batch


def _encoded(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """(code of each row, -1 for null; the distinct texts)."""
    pa = importlib.import_module("pyarrow")
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    code = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return code, ["" if name is None else str(name) for name in column.dictionary.to_pylist()]


def _plain(what: str, column: Any) -> Plain | None:
    """Numbers and times as they stand, and which of them are usable; None for text."""
    pa = importlib.import_module("pyarrow")
    kind, types = column.type, pa.types
    if types.is_dictionary(kind) or types.is_string(kind) or types.is_large_string(kind):
        return None
    null = column.is_null().to_numpy(zero_copy_only=False)
    if what == "value":
        if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
            column = column.cast(pa.float64(), safe=False)
        found = column.cast(pa.float64(), safe=False).fill_null(float("nan"))
        value = found.to_numpy(zero_copy_only=False)
        return value, ~np.isinf(value), _says("value is no finite number")
    if what == "quality":
        code = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        known = np.isin(code, np.array(sorted(_QUALITY_CODES)))
        return np.where(known, code, 0), known, _says("quality is a number without a meaning")
    if types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ns", tz=kind.tz)).cast(pa.int64())
    elif not types.is_integer(kind):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    time_ns = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    good = ~null & (time_ns > TIME_MIN) & (time_ns < TIME_MAX)
    return time_ns, good, _says("time is missing or beyond what can be told apart")


def _says(text: str) -> Reasons:
    return lambda rows: [text] * int(np.count_nonzero(rows))


def _by_text(
    convert: Callable[[str], float], texts: Sequence[str], code: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_], Reasons]:
    """Each distinct text converted once."""
    values: list[float] = []
    whys: list[str] = []
    for text in texts:
        try:
            values.append(convert(text))
            whys.append("")
        except ValueError as error:
            values.append(0)
            whys.append(str(error))
    table = np.array([*values, 0], dtype=np.int64 if convert is time_ns_of else np.float64)
    good = np.array([*(not why for why in whys), False], np.bool_)
    reasons = [*whys, ""]
    return table[code], good[code], lambda rows: [reasons[at] for at in code[rows]]


class _Unclosed(io.RawIOBase):
    """Standard input as a raw stream that closing leaves open."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read1(len(buffer))  # type: ignore[attr-defined]
        buffer[: len(data)] = data
        return len(data)
