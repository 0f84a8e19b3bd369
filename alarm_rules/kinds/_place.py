"""Where and when: areas people are in, positions, hours of the day.

    AreaRules    area codes -> yes, no, unknown; one table for every set of areas in use
    DayWindow    22:00 to 06:00 at a fixed offset from UTC, as arithmetic on int64 nanoseconds
    is_position  what a receiver without a fix sends is none

An area code is the value of an `area` point: the device_index of an area device, negative for
nowhere. Codes that no device can have say nothing at all.

A window that passes midnight belongs to the day it begins on. There is one offset and no daylight
saving: China has none.

Not here: fences (_fence.py), what follows from a place (the kinds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from alarm_rules.kinds._common import NS_PER_S, Parameters
from gateway.contract.rule_kind import Planning
from gateway.model.point import Point
from gateway.model.rule import Priority

Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

DAY_NS = 86_400 * NS_PER_S
AREA_KIND, MINE_KIND = "area", "mine"
AREA_SPAN = 1 << 31
NOWHERE = -1
YES, NO, UNKNOWN = 1, 0, -1

# ---------------------------------------------------------------------------- areas


class ByAttribute(Parameters):
    """Devices whose attribute has one of the values."""

    attribute: str = Field(min_length=1)
    values: tuple[str, ...] = Field(min_length=1)

    def chooses(self, attributes: Mapping[str, str]) -> bool:
        return attributes.get(self.attribute) in self.values


@dataclass(frozen=True, slots=True)
class AreaSet:
    """What each area code means to one instance: `codes` say `listed`, others `otherwise`."""

    codes: frozenset[int]
    listed: int
    otherwise: int
    unknown: frozenset[int] = frozenset()  # somewhere inside, nobody knows where


class AreaRules:
    """Area sets as one sorted table of (set, code)."""

    def __init__(self) -> None:
        self._number: dict[AreaSet, int] = {}
        self._keys = np.empty(0, np.int64)
        self._says = np.empty(0, np.int8)
        self._otherwise = np.empty(0, np.int8)

    def number(self, area_set: AreaSet) -> int:
        """The set's row; call `build` before asking."""
        return self._number.setdefault(area_set, len(self._number))

    def build(self) -> None:
        said: dict[int, int] = {}
        for area_set, number in self._number.items():
            base = number * AREA_SPAN
            said |= {base + code: UNKNOWN for code in area_set.unknown}
            said |= {base + code: area_set.listed for code in area_set.codes}
        self._keys = np.array(sorted(said), np.int64)
        self._says = np.array([said[int(key)] for key in self._keys], np.int8)
        self._otherwise = np.array([s.otherwise for s in self._number], np.int8)

    def ask(self, number: Int, value: NDArray[np.float64]) -> NDArray[np.int8]:
        """YES, NO or UNKNOWN for each row. Nowhere is NO."""
        code = area_codes(value)
        says = self._otherwise[number]
        if len(self._keys):
            wanted = number * AREA_SPAN + code
            at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            says = np.where(self._keys[at] == wanted, self._says[at], says)
        says = np.where(code < 0, NO, says)
        found: NDArray[np.int8] = np.where(value < AREA_SPAN, says, UNKNOWN).astype(np.int8)
        return found


def area_codes(value: NDArray[np.float64]) -> Int:
    """The device index; NOWHERE for negative values and for what no device can have."""
    valid = (value >= 0) & (value < AREA_SPAN)
    return np.where(valid, value, NOWHERE).astype(np.int64)


def chosen_areas(
    planning: Planning, ids: Iterable[str], by: ByAttribute | None
) -> tuple[frozenset[int], list[str]]:
    """Codes of the named areas and of those with the attribute; names nobody has declared."""
    table, unknown = planning.points, []
    codes = set()
    for name in ids:
        if table.device(name) is None:
            unknown.append(name)
        else:
            codes.add(table.device_index(name))
    if by is not None:
        codes |= {
            table.device_index(device.id)
            for device in table.devices
            if device.kind == AREA_KIND and by.chooses(device.attributes)
        }
    return frozenset(codes), unknown


def mine_codes(planning: Planning) -> frozenset[int]:
    """Codes that say "underground" and not where: the mine as a whole."""
    table = planning.points
    return frozenset(table.device_index(d.id) for d in table.devices if d.kind == MINE_KIND)


def attributes_of(planning: Planning, point: Point) -> dict[str, str]:
    """The device's attributes, those of the point laid over them, as selectors see them."""
    device = planning.points.device(point.device) if point.device else None
    return {**(device.attributes if device else {}), **point.attributes}


def described(planning: Planning, unit: str = "") -> dict[str, Any]:
    """The descriptive fields of an instance that is about a device; the key is its id."""
    device = planning.points.device(planning.key)
    points = [planning.points[i] for members in planning.inputs.values() for i in members]
    areas, locations = {p.area for p in points}, {p.location for p in points}
    return {
        "unit": unit,
        "device": planning.key,
        "area": areas.pop() if len(areas) == 1 else "",
        "location": locations.pop() if len(locations) == 1 else "",
        "display_name": (device.name if device else "") or planning.key,
    }


def has_one_each(planning: Planning, names: Iterable[str]) -> bool:
    """Whether the device has each input exactly once; says what it lacks."""
    if not planning.key:
        planning.problem("points without a device cannot be judged together")
        return False
    for name in names:
        members = planning.inputs[name]
        if len(members) != 1:
            found = ", ".join(planning.points[index].id for index in members) or "none"
            planning.problem(f"input {name} needs one point, found {found}")
            return False
    return True


def milder(priority: Priority) -> Priority:
    """One step less urgent: what a warning before the alarm is worth."""
    return Priority(min(priority + 1, Priority.LOW))


# ---------------------------------------------------------------------------- hours


def _time_of_day(value: Any) -> Any:
    """22:00 as minutes of the day."""
    if not isinstance(value, str):
        raise ValueError('a time of day as text, such as "22:00"')  # noqa: TRY004  pydantic's
    hours, colon, minutes = value.partition(":")
    if not (colon and len(hours) == 2 and len(minutes) == 2 and (hours + minutes).isdecimal()):
        raise ValueError('a time of day as "HH:MM"')
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("a time of day from 00:00 to 23:59")
    return int(hours) * 60 + int(minutes)


TimeOfDay = Annotated[int, BeforeValidator(_time_of_day)]

UtcOffset = Annotated[float, Field(ge=-12, le=14)]


class DayWindow(Parameters):
    """Every day from one time to another, past midnight if `to` is the earlier one."""

    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay

    @model_validator(mode="after")
    def _lasts(self) -> DayWindow:
        if self.from_ == self.to:
            raise ValueError("from and to are the same time: leave the window out instead")
        return self

    @property
    def length_ns(self) -> int:
        return (self.to - self.from_) % 1440 * 60 * NS_PER_S

    def phase_ns(self, utc_offset_h: float) -> int:
        """Added to a UTC time, the window begins at multiples of a day."""
        return round(utc_offset_h * 3600) * NS_PER_S - self.from_ * 60 * NS_PER_S


def into_window(time_ns: Int, phase_ns: Int) -> Int:
    """Since the window last began: below its length while inside."""
    return (time_ns + phase_ns) % DAY_NS


def window_time(time_ns: Int, phase_ns: Int, length_ns: Int) -> Int:
    """All time inside the window up to then, on a scale of its own: differences are spans."""
    day, rest = np.divmod(time_ns + phase_ns, DAY_NS)
    return day * length_ns + np.minimum(rest, length_ns)


def after_window_time(time_ns: Int, phase_ns: Int, length_ns: Int, span_ns: Int) -> Int:
    """When `span_ns` (more than 0) of the window have passed since `time_ns`."""
    wanted = window_time(time_ns, phase_ns, length_ns) + span_ns
    day, rest = np.divmod(wanted - 1, np.maximum(length_ns, 1))
    return day * DAY_NS + rest + 1 - phase_ns


# ---------------------------------------------------------------------------- positions


def is_position(lon: NDArray[np.float64], lat: NDArray[np.float64], usable: Mask) -> Mask:
    """A place on earth. Exactly (0, 0) is what a receiver without a fix sends."""
    place: Mask = usable & (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
    place &= (lon != 0) | (lat != 0)
    return place


def split_names(text: str) -> Sequence[str]:
    """Names separated by blanks, commas or semicolons, in Chinese punctuation too."""
    for mark in ",;，；、":
        text = text.replace(mark, " ")
    return text.split()
