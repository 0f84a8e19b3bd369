"""Messages → declared devices and points, and the columns of a batch. Pure.

    Location (wire integers) --units, signs, quality--> Sample(name, value, quality, source time)
        `{device}.{name}`: lon lat alt speed heading alarm status, and what the items carry
    Authentication, Heartbeat --> link = 1 at the time of receipt, for they carry no time

Every sample comes from something the device sent. A value the device cannot mean is a sample of
bad quality, a time that is none gives the time of receipt with *uncertain (clock)*, and no fix
makes the position *uncertain (position)*; each is named in `notes`, to be counted.

Surprising: latitude and longitude are divided, not multiplied, by 1e6, so that 29563215 becomes
exactly the double of 29.563215. Not here: who the vehicle is (roster.py), point indices
(intake.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality

from .codec import (
    EDITION_2019,
    STATUS_ENCRYPTED,
    STATUS_FIX,
    Authentication,
    BulkLocation,
    Heartbeat,
    Location,
    Message,
    item_values,
    items,
)
from .roster import Record, Vehicle

SPEED_MAX_KM_H = 300.0  # engineering: beyond it a fault, not a truck; FFFF would be 6553.5
LINK = "link"
NOTE_TIME, NOTE_RANGE, NOTE_TLV = "time", "range", "tlv"


class Sample(NamedTuple):
    """One value of one point of a vehicle; `name` is the point's last part."""

    name: str
    value: float
    quality: Quality
    source_time_ns: int


class PointForm(NamedTuple):
    """What is declared for a point name."""

    kind: PointKind
    quantity: str
    unit: str
    label: str


POINT_FORMS: Mapping[str, PointForm] = {
    "lon": PointForm(PointKind.LON, "lon", "°", "经度"),
    "lat": PointForm(PointKind.LAT, "lat", "°", "纬度"),
    "alt": PointForm(PointKind.ALT, "alt", "m", "高程"),
    "speed": PointForm(PointKind.SPEED, "vehicle_speed", "km/h", "车速"),
    "heading": PointForm(PointKind.HEADING, "heading", "°", "方向"),
    "alarm": PointForm(PointKind.BITS, "vehicle_alarm_bits", "bits", "报警位"),
    "status": PointForm(PointKind.BITS, "vehicle_status_bits", "bits", "状态位"),
    "odometer": PointForm(PointKind.COUNTER, "odometer", "km", "里程"),
    "fuel": PointForm(PointKind.ANALOG, "fuel", "L", "油量"),
    "recorder_speed": PointForm(PointKind.ANALOG, "recorder_speed", "km/h", "记录仪速度"),
    "cabin_temperature": PointForm(PointKind.ANALOG, "cabin_temperature", "℃", "车厢温度"),
    "signals": PointForm(PointKind.BITS, "vehicle_signal_bits", "bits", "车辆信号"),
    "io": PointForm(PointKind.BITS, "vehicle_io_bits", "bits", "IO状态"),
    "ad0": PointForm(PointKind.ANALOG, "analogue", "", "模拟量AD0"),
    "ad1": PointForm(PointKind.ANALOG, "analogue", "", "模拟量AD1"),
    "signal": PointForm(PointKind.ANALOG, "mobile_signal", "", "无线信号强度"),
    "satellites": PointForm(PointKind.ANALOG, "satellites", "", "卫星数"),
    LINK: PointForm(PointKind.DISCRETE, "link", "", "通信状态"),
}

# Items 04, 05, 11-13 are records, not quantities; 14-18 clash with vendors' own uses: decode only.
_SCALAR_ITEMS = {
    items.ODOMETER: "odometer",
    items.FUEL: "fuel",
    items.RECORDER_SPEED: "recorder_speed",
    items.CABIN: "cabin_temperature",
    items.SIGNALS: "signals",
    items.IO_STATE: "io",
    items.MOBILE_SIGNAL: "signal",
    items.SATELLITES: "satellites",
}


def device_id(prefix: str, phone: str) -> str:
    return f"{prefix}{phone}"


def samples_of(
    message: Message, received_time_ns: int, utc_offset_s: int
) -> tuple[list[Sample], list[str]]:
    """The samples of a message, and a note for each thing wrong in it (to be counted)."""
    samples: list[Sample] = []
    notes: list[str] = []
    if isinstance(message, Location):
        _location_samples(message, received_time_ns, utc_offset_s, into=(samples, notes))
    elif isinstance(message, BulkLocation):
        for location in message.locations:
            _location_samples(location, received_time_ns, utc_offset_s, into=(samples, notes))
        notes += ["body"] * min(message.damaged_count, 1)
    elif isinstance(message, Authentication | Heartbeat):
        samples.append(Sample(LINK, 1.0, Quality.GOOD, received_time_ns))
    return samples, notes


def _location_samples(
    location: Location,
    received_time_ns: int,
    utc_offset_s: int,
    *,
    into: tuple[list[Sample], list[str]],
) -> None:
    samples, notes = into
    time_ns = location.time_ns(utc_offset_s)
    base = Quality.GOOD
    if time_ns is None:
        time_ns, base = received_time_ns, Quality.UNCERTAIN_CLOCK
        notes.append(NOTE_TIME)
    status = location.status_bits
    place = base
    if base is Quality.GOOD and (not status & STATUS_FIX or status & STATUS_ENCRYPTED):
        place = Quality.UNCERTAIN_POSITION
    speed = location.speed / 10
    judged = (
        ("lon", location.lon_deg, location.longitude <= 180_000_000),
        ("lat", location.lat_deg, location.latitude <= 90_000_000),
        ("alt", float(location.altitude), True),
        ("speed", speed, speed <= SPEED_MAX_KM_H),
        ("heading", float(location.heading), location.heading <= 360),  # 360 for north is met
    )
    for name, value, possible in judged:
        samples.append(Sample(name, value, place if possible else Quality.BAD_OVER_RANGE, time_ns))
        if not possible:
            notes.append(NOTE_RANGE)
    samples.append(Sample("alarm", float(location.alarm_bits), base, time_ns))
    samples.append(Sample("status", float(status), base, time_ns))
    if location.items or location.tail:
        _item_samples(location, base, time_ns, into=into)


def _item_samples(
    location: Location,
    quality: Quality,
    time_ns: int,
    *,
    into: tuple[list[Sample], list[str]],
) -> None:
    samples, notes = into
    said = item_values(location.items)
    for item_id, value in said.values.items():
        if (name := _SCALAR_ITEMS.get(item_id)) is not None:
            samples.append(Sample(name, float(value), quality, time_ns))
        elif item_id == items.ANALOGUE:
            samples.append(Sample("ad0", float(value["ad0"]), quality, time_ns))
            samples.append(Sample("ad1", float(value["ad1"]), quality, time_ns))
    if location.is_overrun or said.malformed:
        notes.append(NOTE_TLV)


def to_batch(
    samples: Sequence[Sample], point_index: Sequence[int], received_time_ns: Sequence[int]
) -> Batch:
    """The columns, in the order given."""
    return Batch.of(
        point_index,
        [sample.value for sample in samples],
        [sample.source_time_ns for sample in samples],
        received_time_ns=received_time_ns,
        quality=[int(sample.quality) for sample in samples],
    )


def vehicle_device(
    vehicle: Vehicle, record: Record | None, *, phone_bcd: bytes, prefix: str, adapter: str
) -> Device:
    """The vehicle with everything that is known of it as attributes; empty ones are left out."""
    colour = vehicle.plate_colour
    attributes = {
        "phone": vehicle.phone,
        "phone_bcd": phone_bcd.hex().upper(),
        "plate": vehicle.plate,
        "plate_colour": str(colour) if colour else "",
        "vehicle_class": vehicle.vehicle_class,
        "terminal_id": vehicle.terminal_id,
        "maker": record.maker if record else "",
        "model": record.model if record else "",
        "edition": str(EDITION_2019 if len(phone_bcd) == 10 else (record and record.edition) or ""),
    }
    return Device(
        id=device_id(prefix, vehicle.phone),
        kind="vehicle",
        name=vehicle.name or vehicle.plate or vehicle.phone,
        adapter=adapter,
        attributes={key: value for key, value in attributes.items() if value},
    )


def vehicle_point(
    device: Device, name: str, *, report_interval_s: float, heartbeat_interval_s: float
) -> Point:
    """The point `{device}.{name}`, with the `vehicle_class` that rules select by."""
    form = POINT_FORMS[name]
    vehicle_class = device.attributes.get("vehicle_class", "")
    return Point(
        id=f"{device.id}.{name}",
        kind=form.kind,
        quantity=form.quantity,
        unit=form.unit,
        name=form.label,
        device=device.id,
        adapter=device.adapter,
        interval_s=heartbeat_interval_s if name == LINK else report_interval_s,
        states={1: "已联系"} if name == LINK else {},
        attributes={"vehicle_class": vehicle_class} if vehicle_class else {},
    )
