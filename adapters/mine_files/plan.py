"""The plan of one file under way: what to declare, emit, count and remember. Pure.

`Work` is what a mapper (safety.py, personnel.py) is given: the message, the `View` of what is known
from earlier files, and the `Plan` to fill. A mapper never changes the view, so a file whose emit
failed is planned again and says the same again: same points, same times, same values.

Owns: the shapes, reading of plain fields. Not here: what the kinds mean.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adapters.mine_files.codec import FileMessage, Record, RecordFault
from gateway.model.batch import Batch
from gateway.model.point import Device, Point
from gateway.model.quality import Quality

COORDINATES = ("x", "y", "z")
TEXT_CHARS_MAX = 500
"""Of any name, place or attribute: longer is no text for a person, and the registry keeps it."""
_NOT_SET = frozenset({"", "未设置", "null", "NULL", "None"})
NO_VALUE_TEXTS = _NOT_SET | {"X", "xxxx-xx-xx xx:xx:xx"}
_NO_VALUE_NUMBERS = frozenset({-9999.0, -999999.0})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class LocationClass:
    """`pattern` found in a location's text gives its class, which may use the pattern's groups."""

    pattern: re.Pattern[str]
    location_class: str


@dataclass(frozen=True, slots=True)
class Options:
    """The part of the configuration that changes what files mean."""

    adapter: str = ""
    prefix: str = ""
    sensor_interval_s: float = 20.0
    snapshot_interval_s: float = 30.0
    state_interval_s: float = 60.0
    location_classes: Sequence[LocationClass] = ()
    points_max: int = 100_000  # points and devices together


@dataclass(slots=True)
class View:
    """What is known from files taken earlier."""

    points: dict[str, Point] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    newest_ns: dict[str, int] = field(default_factory=dict)  # series -> newest header time
    present: dict[str, frozenset[str]] = field(default_factory=dict)  # mine -> cards underground


@dataclass(slots=True)
class Rows:
    """Samples by point id, as columns. `area` names the device an area value stands for."""

    record: list[int] = field(default_factory=list)  # 0: inferred from the file as a whole
    point: list[str] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)
    time_ns: list[int] = field(default_factory=list)
    area: dict[int, str] = field(default_factory=dict)  # row -> device id

    def add(self, record: int, point: str, value: float, quality: int, time_ns: int) -> None:
        self.record.append(record)
        self.point.append(point)
        self.value.append(value)
        self.quality.append(quality)
        self.time_ns.append(time_ns)

    def __len__(self) -> int:
        return len(self.point)


@dataclass(slots=True)
class Plan:
    """Everything one file asks for. Only what is new or changed is declared."""

    devices: dict[str, Device] = field(default_factory=dict)
    points: dict[str, Point] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)
    faults: list[RecordFault] = field(default_factory=list)  # the codec's and ours, for the note
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (name, reason)
    newest: tuple[str, int] | None = None
    present: tuple[str, frozenset[str]] | None = None

    def reject(self, record: Record, field_name: str, expected: str, reason: str) -> None:
        raw = ";".join(record.values)
        self.faults.append(RecordFault(record.number, field_name, expected, raw))
        self.counts["records_rejected", reason] += 1


def apply(plan_: Plan, view: View) -> None:
    """Remember what was declared and emitted."""
    view.devices.update(plan_.devices)
    view.points.update(plan_.points)
    if plan_.newest is not None:
        view.newest_ns[plan_.newest[0]] = plan_.newest[1]
    if plan_.present is not None:
        view.present[plan_.present[0]] = plan_.present[1]


def to_batches(
    rows: Rows,
    point_index: Mapping[str, int],
    device_index: Mapping[str, int],
    *,
    received_time_ns: int,
    rows_max: int,
) -> Iterator[Batch]:
    """The rows as batches of at most `rows_max`, in order."""
    for row, device_id in rows.area.items():
        rows.value[row] = float(device_index[device_id])
    for start in range(0, len(rows), rows_max):
        part = slice(start, start + rows_max)
        yield Batch.of(
            np.fromiter((point_index[point] for point in rows.point[part]), np.int32),
            rows.value[part],
            rows.time_ns[part],
            received_time_ns=received_time_ns,
            quality=rows.quality[part],
        )


@dataclass(slots=True)
class Work:
    """The mapping of one file under way."""

    message: FileMessage
    view: View
    options: Options
    plan: Plan
    is_old: bool = False
    fresh_count: int = 0  # points and devices nobody knew before this file

    @property
    def newest_key(self) -> str:
        """Lists of two systems of one mine (gas, drainage) are two series."""
        system = self.message.header.get("system", "")
        return f"{self.message.mine_code} {self.message.kind.name} {system}".strip()

    @property
    def mine_id(self) -> str:
        return self.id(self.message.mine_code)

    def id(self, code: str) -> str:
        return self.options.prefix + code

    def point(self, point_id: str) -> Point | None:
        return self.plan.points.get(point_id) or self.view.points.get(point_id)

    def device(self, device_id: str) -> Device | None:
        return self.plan.devices.get(device_id) or self.view.devices.get(device_id)

    def admits(self, record: Record, id_: str) -> bool:
        """Whether a record may speak of this point or device: it is known, or there is room for
        one more. A sender that invents codes must not fill the registry, which forgets nothing."""
        if self.point(id_) is not None or self.device(id_) is not None or self.has_room:
            return True
        expected = f"no more than {self.options.points_max} points and devices"
        self.plan.reject(record, record.layout.fields[0], expected, "points_full")
        return False

    @property
    def has_room(self) -> bool:
        known = len(self.view.points) + len(self.view.devices)
        return known + self.fresh_count < self.options.points_max

    def declare(self, point: Point) -> None:
        if self.point(point.id) is None:
            self.fresh_count += 1
        if self.view.points.get(point.id) != point:
            self.plan.points[point.id] = point

    def declare_device(self, kind: str, code: str, name: str, attributes: dict[str, str]) -> str:
        device = Device(
            id=self.id(code),
            kind=kind,
            name=name[:TEXT_CHARS_MAX],
            adapter=self.options.adapter,
            attributes=filled(attributes),
        )
        if self.device(device.id) is None:
            self.fresh_count += 1
        if self.view.devices.get(device.id) != device:
            self.plan.devices[device.id] = device
        return device.id

    def provide_device(self, kind: str, code: str, name: str, attributes: dict[str, str]) -> str:
        """Declare a device only if nothing is known of it: its own list has not come yet."""
        device_id = self.id(code)
        if self.device(device_id) is None:
            extra = {"mine": self.message.mine_code, "provisional": "1"}
            self.declare_device(kind, code, name, {**attributes, **extra})
        return device_id

    def declare_mine(self) -> None:
        known = self.device(self.mine_id)
        attributes = dict(known.attributes) if known else {}
        capacity = whole_number(self.message.header.get("capacity", ""))
        if capacity:
            attributes["capacity"] = capacity
        name = self.message.header.get("mine_name", "") or (known.name if known else "")
        self.declare_device("mine", self.message.mine_code, name, attributes)

    def latest_records(self) -> Sequence[Record]:
        """One record a key, the last one, each where its last one stood."""
        key = self.message.kind.key
        latest = {record.get(key): record for record in self.message.records}
        repeats = len(self.message.records) - len(latest)
        if repeats:
            self.plan.counts["records_warned", "duplicate_key"] += repeats
        return list(latest.values())


def filled(attributes: Mapping[str, str]) -> dict[str, str]:
    """Those that say something, at a length a person may want to read."""
    return {key: value[:TEXT_CHARS_MAX] for key, value in attributes.items() if value}


def whole_number(text: str) -> str:
    """The digits, "" when it is not a plain whole number."""
    text = text.strip()
    return text if re.fullmatch(r"[0-9]{1,9}", text) else ""


def given(text: str) -> str:
    """The text, "" for the ways in which vendors write nothing."""
    text = text.strip()
    return "" if text in _NOT_SET else text


def place(location: str, options: Options) -> tuple[str, str]:
    """(location class, area): `3101工作面T1` is class T1 of the area 3101工作面."""
    for rule in options.location_classes:
        match = rule.pattern.search(location)
        if match is not None:
            return match.expand(rule.location_class), location[: match.start()].strip(" -_（(")
    return "", ""


def read_value(text: str) -> tuple[float, Quality]:
    """A number, or NaN and why there is none."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value in _NO_VALUE_NUMBERS:
            return math.nan, Quality.BAD_NO_VALUE
        if math.isfinite(value):
            return value, Quality.GOOD
    if text in NO_VALUE_TEXTS:
        return math.nan, Quality.BAD_NO_VALUE
    return math.nan, Quality.BAD_NOT_A_NUMBER


def number(work: Work, record: Record, name: str) -> float | None:
    """A limit or coordinate. One that cannot be read is left out and counted: a point is worth more
    than one of its limits, and the mine's own limits are shown, not judged by."""
    text = record.get(name)
    if not text:
        return None
    value, _ = read_value(text)
    if math.isnan(value):
        work.plan.counts["records_warned", "unreadable_number"] += 1
        return None
    return value
