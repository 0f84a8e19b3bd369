"""Where a simulated vehicle is and what its sensors say: scenario seconds in, positions out. Pure.

    speed signal --sum over reports--> distance --along the route, in a circle--> lon, lat, heading

`Drive.position(t_s, device_s)` must be called with growing times; the distance is the sum over the
calls. Values are cut to what the wire can say before they are put in the ledger, by the same
division as the gateway's, so that both come to the same double.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from adapters.jt808.codec import (
    EDITION_2019,
    STATUS_ACC,
    STATUS_FIX,
    STATUS_SOUTH,
    STATUS_WEST,
    Location,
    items,
    make_item,
    time_bcd,
)
from gateway.contract.simulator import SentSample
from simulators.plant import Signal

from .config import Route, SimulatedVehicle

NS = 1_000_000_000
EARTH_RADIUS_M = 6_371_000.0
ALARM_OVERSPEED, ALARM_GNSS_FAULT = 1 << 1, 1 << 4
STATUS_GPS, STATUS_BEIDOU, STATUS_MOVING = 1 << 18, 1 << 19, 1 << 22
FUEL_FULL_L, FUEL_L_PER_KM = 200.0, 0.3
ODOMETER_START_KM = 120_000.0


class Place(NamedTuple):
    """Where and which way, in degrees."""

    lon: float
    lat: float
    heading: float


class Path:
    """A closed route, walked by distance."""

    def __init__(self, route: Route) -> None:
        self._points = route
        self._legs = [
            (start, end, _distance_m(start, end))
            for start, end in zip(route, (*route[1:], route[0]), strict=True)
        ]
        self.length_m = sum(leg for *_, leg in self._legs)

    def at(self, distance_m: float) -> Place:
        left = distance_m % self.length_m if self.length_m else 0.0
        for start, end, length in self._legs:
            if left <= length and length > 0:
                share = left / length
                lon = start[0] + share * (end[0] - start[0])
                lat = start[1] + share * (end[1] - start[1])
                return Place(lon, lat, _heading(start, end))
            left -= length
        return Place(*self._points[0], 0.0)


class Drive:
    """One vehicle under way."""

    def __init__(self, vehicle: SimulatedVehicle, *, seed: int, edition: int, limit: float) -> None:
        assert vehicle.vehicle_speed is not None, "the fleet fills the speed in"
        self.signal = Signal(vehicle.vehicle_speed, f"{seed}/{vehicle.phone}/speed")
        self._path = Path(vehicle.route)
        self._edition = edition
        self._limit = limit
        # vehicles of one route do not drive on top of each other
        self._start_m = self._path.length_m * (int(vehicle.phone) % 97) / 97
        self._distance_m = 0.0
        self._then_s: float | None = None

    def position(self, t_s: float, device_s: int) -> Location:
        """The report of scenario second `t_s`, stamped with the device's own time."""
        speed_km_h = max(0.0, self.signal.at(t_s))
        if self._then_s is not None:
            self._distance_m += speed_km_h / 3.6 * (t_s - self._then_s)
        self._then_s = t_s
        place = self._path.at(self._start_m + self._distance_m)
        return Location(
            alarm_bits=self._alarms(t_s, speed_km_h),
            status_bits=self._status(t_s, place, speed_km_h),
            latitude=round(abs(place.lat) * 1e6),
            longitude=round(abs(place.lon) * 1e6),
            altitude=240,
            speed=round(speed_km_h * 10),
            heading=round(place.heading) % 360,
            time_bcd=time_bcd(device_s * NS),
            items=self._items(speed_km_h),
        )

    def _alarms(self, t_s: float, speed_km_h: float) -> int:
        alarms = ALARM_GNSS_FAULT if self.signal.is_broken(t_s) else 0
        if self._limit and speed_km_h > self._limit:
            alarms |= ALARM_OVERSPEED
        return alarms

    def _status(self, t_s: float, place: Place, speed_km_h: float) -> int:
        status = STATUS_ACC
        if not self.signal.is_broken(t_s):
            status |= STATUS_FIX | STATUS_GPS | STATUS_BEIDOU
        status |= STATUS_SOUTH if place.lat < 0 else 0
        status |= STATUS_WEST if place.lon < 0 else 0
        if self._edition == EDITION_2019 and speed_km_h > 0:
            status |= STATUS_MOVING
        return status

    def _items(self, speed_km_h: float) -> tuple[items.Item, ...]:
        km = self._distance_m / 1000
        said = [
            make_item(items.ODOMETER, ODOMETER_START_KM + km),
            make_item(items.FUEL, max(0.0, FUEL_FULL_L - km * FUEL_L_PER_KM)),
            make_item(items.RECORDER_SPEED, speed_km_h),
            make_item(items.MOBILE_SIGNAL, 28),
            make_item(items.SATELLITES, 12),
        ]
        if self._edition == EDITION_2019:
            said.append(make_item(items.CABIN, -5 if speed_km_h < 1 else 4))
        return tuple(said)


def samples_of(location: Location, device: str, device_s: int) -> tuple[SentSample, ...]:
    """What the gateway must store of `location`, in its words."""
    values = {
        "lon": location.longitude / 1e6 * (-1 if location.status_bits & STATUS_WEST else 1),
        "lat": location.latitude / 1e6 * (-1 if location.status_bits & STATUS_SOUTH else 1),
        "alt": location.altitude,
        "speed": location.speed / 10,
        "heading": location.heading,
        "alarm": location.alarm_bits,
        "status": location.status_bits,
    }
    names = {
        items.ODOMETER: "odometer",
        items.FUEL: "fuel",
        items.RECORDER_SPEED: "recorder_speed",
        items.MOBILE_SIGNAL: "signal",
        items.SATELLITES: "satellites",
        items.CABIN: "cabin_temperature",
    }
    for item in location.items:
        values[names[item.id]] = items.ITEM_KINDS[item.id].decode(item.data)
    return tuple(
        SentSample(f"{device}.{name}", device_s * NS, float(value))
        for name, value in values.items()
    )


def _distance_m(start: tuple[float, float], end: tuple[float, float]) -> float:
    """Equirectangular: good to a metre over the few kilometres of a leg."""
    x = math.radians(end[0] - start[0]) * math.cos(math.radians((start[1] + end[1]) / 2))
    y = math.radians(end[1] - start[1])
    return EARTH_RADIUS_M * math.hypot(x, y)


def _heading(start: tuple[float, float], end: tuple[float, float]) -> float:
    x = (end[0] - start[0]) * math.cos(math.radians((start[1] + end[1]) / 2))
    return math.degrees(math.atan2(x, end[1] - start[1])) % 360
