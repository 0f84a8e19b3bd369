"""Points (测点) and devices: what is measured, of what, where.

A point is one quantity of one device. A vehicle, a person, an area, a sensor are devices; a
position is five points (`lon`, `lat`, `alt`, `speed`, `heading`) of one device. Text that does not
change with every sample (plate, name, maker) is a device attribute, never a sample.

Ids are stable text without blanks and without `/ + #`, so that they can stand as one level of an
MQTT topic and as one field of a file. Indices (`point_index`, `device_index`) are small integers
given once by the registry, durable, never reused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

ID_PATTERN = re.compile(r"[^\s/+#\x00-\x1f]{1,128}")


def is_valid_id(text: str) -> bool:
    """Whether `text` may name a point or a device."""
    return ID_PATTERN.fullmatch(text) is not None


class PointKind(StrEnum):
    """The closed list of what a float64 value may mean."""

    ANALOG = "analog"
    DISCRETE = "discrete"  # an enumerated code; `states` names them
    COUNTER = "counter"  # only grows, wraps or restarts
    BITS = "bits"  # an alarm or status word of at most 52 bits
    LON = "lon"
    LAT = "lat"
    ALT = "alt"
    SPEED = "speed"
    HEADING = "heading"
    AREA = "area"  # the device_index of the area a person or vehicle is in; -1 = in none


NO_AREA = -1.0
"""Value of an `area` point of a device that is in no area (out of the mine)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A thing that has points, or an area that others are in."""

    id: str
    kind: str  # "vehicle", "person", "area", "substation", "sensor", "dam", …
    name: str = ""
    adapter: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert is_valid_id(self.id), f"not a device id: {self.id!r}"


@dataclass(frozen=True, slots=True)
class Point:
    """One quantity of one device.

    `quantity` is the standard word rules select by (GLOSSARY.md): `methane`, `carbon_monoxide`,
    `wind_speed`, `pool_level`, `beach_length`, `freeboard`, `vehicle_speed`, `personnel_area`, …
    """

    id: str
    kind: PointKind = PointKind.ANALOG
    quantity: str = ""
    unit: str = ""
    name: str = ""  # as the operator knows it, in the site's language
    device: str = ""  # Device.id
    adapter: str = ""
    area: str = ""  # where it is, as the site divides itself
    location: str = ""  # free text: 3101工作面T1
    location_class: str = ""  # the law's class of place: T0, T1, T2, …
    interval_s: float | None = None  # expected time between samples
    range_low: float | None = None
    range_high: float | None = None
    states: Mapping[int, str] = field(default_factory=dict)  # DISCRETE: code -> meaning
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert is_valid_id(self.id), f"not a point id: {self.id!r}"


class PointTable:
    """Every known point and device with its index, in memory. Grows; never renumbers.

    Plain bookkeeping: durability is `gateway.spool.registry`'s, which fills one of these.
    """

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._index: dict[str, int] = {}
        self._devices: list[Device] = []
        self._device_index: dict[str, int] = {}
        self.version = 0  # grows with every change; readers compare it to notice one

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __contains__(self, point_id: object) -> bool:
        return point_id in self._index

    def __getitem__(self, point_index: int) -> Point:
        return self._points[point_index]

    def index(self, point_id: str) -> int:
        """The point's index. Raises KeyError for an id never declared."""
        return self._index[point_id]

    def get(self, point_id: str) -> Point | None:
        index = self._index.get(point_id)
        return None if index is None else self._points[index]

    @property
    def devices(self) -> Sequence[Device]:
        return self._devices

    def device(self, device_id: str) -> Device | None:
        index = self._device_index.get(device_id)
        return None if index is None else self._devices[index]

    def device_index(self, device_id: str) -> int:
        """The device's index. Raises KeyError for an id never declared."""
        return self._device_index[device_id]

    def changed(self, points: Iterable[Point]) -> list[Point]:
        """Those of `points` that are new here or differ from what stands here, last one winning."""
        latest = {point.id: point for point in points}
        return [point for point in latest.values() if self.get(point.id) != point]

    def changed_devices(self, devices: Iterable[Device]) -> list[Device]:
        latest = {device.id: device for device in devices}
        return [device for device in latest.values() if self.device(device.id) != device]

    def put(self, point: Point) -> int:
        """Add the point, or replace the one of the same id; returns its index."""
        self.version += 1
        index = self._index.get(point.id)
        if index is None:
            index = self._index[point.id] = len(self._points)
            self._points.append(point)
        else:
            self._points[index] = point
        return index

    def put_device(self, device: Device) -> int:
        self.version += 1
        index = self._device_index.get(device.id)
        if index is None:
            index = self._device_index[device.id] = len(self._devices)
            self._devices.append(device)
        else:
            self._devices[index] = device
        return index


def overlay(declared: Point, configured: Point) -> Point:
    """What a site's point table says, laid over what a protocol declared by itself.

    Every field the table fills wins; what it leaves at its default stays as declared.
    """
    blank = Point(id=declared.id)
    filled = {
        name: getattr(configured, name)
        for name in configured.__dataclass_fields__
        if name != "id" and getattr(configured, name) != getattr(blank, name)
    }
    return replace(declared, **filled)
