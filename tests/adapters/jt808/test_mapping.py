"""Messages to samples: each field at its place, signs, quality, time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808.codec import (
    GMT8_S,
    Authentication,
    BulkLocation,
    Heartbeat,
    Item,
    Location,
    RawMessage,
    make_item,
    time_bcd,
)
from adapters.jt808.mapping import (
    POINT_FORMS,
    Sample,
    samples_of,
    to_batch,
    vehicle_device,
    vehicle_point,
)
from adapters.jt808.roster import Record, Vehicle
from gateway.model.point import PointKind
from gateway.model.quality import Quality

S = 1_000_000_000
NOW = 1_785_513_700 * S
SOURCE = 1_785_513_599 * S  # 2026-07-31 15:59:59 UTC
BCD = bytes.fromhex("260731235959")
FIX = 2


def place(**changes: object) -> Location:
    fields = {
        "alarm_bits": 0,
        "status_bits": FIX,
        "latitude": 29_563_215,
        "longitude": 106_551_234,
        "altitude": 245,
        "speed": 605,
        "heading": 271,
        "time_bcd": BCD,
    }
    return Location(**(fields | changes))  # type: ignore[arg-type]


def said(location: Location, offset_s: int = GMT8_S) -> dict[str, Sample]:
    samples, _ = samples_of(location, NOW, offset_s)
    assert len({sample.name for sample in samples}) == len(samples)
    return {sample.name: sample for sample in samples}


@given(
    alarm=st.integers(0, 0xFFFFFFFF),
    status=st.integers(0, 0xFFFFFFFF),
    lat=st.integers(0, 90_000_000),
    lon=st.integers(0, 180_000_000),
    alt=st.integers(-0x8000, 0x7FFF),
    speed=st.integers(0, 3000),
    heading=st.integers(0, 359),
    seconds=st.integers(946_656_000, 4_102_415_999),
)
def test_each_field_comes_out_at_its_own_point(  # noqa: PLR0917
    alarm: int, status: int, lat: int, lon: int, alt: int, speed: int, heading: int, seconds: int
) -> None:
    location = Location(alarm, status, lat, lon, alt, speed, heading, time_bcd(seconds * S))
    found = said(location)
    assert {name: sample.value for name, sample in found.items()} == {
        "lat": lat / 1e6 * (-1 if status & 4 else 1),
        "lon": lon / 1e6 * (-1 if status & 8 else 1),
        "alt": alt,
        "speed": speed / 10,
        "heading": heading,
        "alarm": alarm,
        "status": status,
    }
    assert {sample.source_time_ns for sample in found.values()} == {seconds * S}
    fixed = status & FIX and not status & 32
    wanted = Quality.GOOD if fixed else Quality.UNCERTAIN_POSITION
    for name, sample in found.items():
        assert sample.quality == (Quality.GOOD if name in {"alarm", "status"} else wanted)


QUALITIES = [
    ("a fix", {}, {}, []),
    ("no fix", {"status_bits": 0}, dict.fromkeys(("lon", "lat", "alt", "speed", "heading"), "UNCERTAIN_POSITION"), []),
    ("an offset datum", {"status_bits": FIX | 32}, dict.fromkeys(("lon", "lat", "alt", "speed", "heading"), "UNCERTAIN_POSITION"), []),
    ("beyond the pole", {"latitude": 90_000_001}, {"lat": "BAD_OVER_RANGE"}, ["range"]),
    ("beyond the date line", {"longitude": 180_000_001}, {"lon": "BAD_OVER_RANGE"}, ["range"]),
    ("no vehicle is so fast", {"speed": 3001}, {"speed": "BAD_OVER_RANGE"}, ["range"]),
    ("speed FFFF", {"speed": 0xFFFF}, {"speed": "BAD_OVER_RANGE"}, ["range"]),
    ("north as 360", {"heading": 360}, {}, []),
    ("no such direction", {"heading": 361}, {"heading": "BAD_OVER_RANGE"}, ["range"]),
    ("the poles and the edge", {"latitude": 90_000_000, "longitude": 180_000_000}, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("why", "changes", "qualities", "notes"), QUALITIES)
def test_a_value_is_as_good_as_the_report_says(
    why: str, changes: dict[str, int], qualities: dict[str, str], notes: list[str]
) -> None:
    location = place(**changes)
    found = said(location)
    assert {
        n: s.quality.name for n, s in found.items() if s.quality != Quality.GOOD
    } == qualities, why
    assert samples_of(location, NOW, GMT8_S)[1] == notes


@pytest.mark.parametrize("bcd", ["000000000000", "261331000000", "2607310000AA", "FFFFFFFFFFFF"])
def test_a_time_that_is_none_gives_the_time_of_receipt_and_says_so(bcd: str) -> None:
    location = place(time_bcd=bytes.fromhex(bcd), status_bits=0)
    found = said(location)
    assert {s.source_time_ns for s in found.values()} == {NOW}
    assert {s.quality for s in found.values()} == {Quality.UNCERTAIN_CLOCK}
    assert samples_of(location, NOW, GMT8_S)[1] == ["time"]


def test_a_clock_in_utc_is_read_with_its_own_offset() -> None:
    assert said(place(), 0)["lon"].source_time_ns == SOURCE + 8 * 3600 * S
    assert said(place(), GMT8_S)["lon"].source_time_ns == SOURCE


ITEM_POINTS = [
    (make_item(0x01, 123456.7), {"odometer": 123456.7}),
    (make_item(0x02, 45.3), {"fuel": 45.3}),
    (make_item(0x03, 59.8), {"recorder_speed": 59.8}),
    (make_item(0x06, -10), {"cabin_temperature": -10.0}),
    (make_item(0x25, 5), {"signals": 5.0}),
    (make_item(0x2A, 1), {"io": 1.0}),
    (make_item(0x2B, {"ad0": 3, "ad1": 4}), {"ad0": 3.0, "ad1": 4.0}),
    (make_item(0x30, 31), {"signal": 31.0}),
    (make_item(0x31, 14), {"satellites": 14.0}),
    (make_item(0x14, 1), {}),  # clashes with vendors' own uses: never a sample
    (make_item(0x12, {"kind": 1, "area_id": 7, "direction": 0}), {}),
    (Item(0xE4, b"vendor"), {}),
]
BASIC = {"lon", "lat", "alt", "speed", "heading", "alarm", "status"}


@pytest.mark.parametrize(("item", "points"), ITEM_POINTS, ids=lambda v: str(v)[:20])
def test_an_item_is_a_sample_only_when_the_report_carries_it(
    item: Item, points: dict[str, float]
) -> None:
    found = said(place(items=(item,)))
    assert {n: s.value for n, s in found.items() if n not in BASIC} == points
    assert {s.source_time_ns for s in found.values()} == {SOURCE}


def test_an_item_doubled_malformed_or_cut_off_never_costs_the_rest() -> None:
    location = place(
        items=(make_item(0x30, 5), make_item(0x30, 6), Item(0x01, b"x")), tail=b"\x31\x05"
    )
    found = said(location)
    assert found["signal"].value == 5.0
    assert "odometer" not in found
    assert samples_of(location, NOW, GMT8_S)[1] == ["tlv"]


def test_positions_of_a_dead_zone_keep_their_old_times_in_order() -> None:
    bulk = BulkLocation(1, tuple(place(time_bcd=time_bcd(SOURCE + n * 30 * S)) for n in range(3)))
    samples, notes = samples_of(bulk, NOW, GMT8_S)
    lons = [sample for sample in samples if sample.name == "lon"]
    assert [sample.source_time_ns for sample in lons] == [SOURCE + n * 30 * S for n in range(3)]
    assert notes == []
    assert samples_of(BulkLocation(1, (), damaged_count=3), NOW, GMT8_S) == ([], ["body"])


def test_a_login_and_a_heartbeat_are_heard_from_now_and_other_messages_say_nothing() -> None:
    for message in (Heartbeat(), Authentication("code")):
        assert samples_of(message, NOW, GMT8_S) == ([Sample("link", 1.0, Quality.GOOD, NOW)], [])
    assert samples_of(RawMessage(0x0900, b"x"), NOW, GMT8_S) == ([], [])


def test_the_columns_stand_in_the_order_of_the_samples() -> None:
    samples = [Sample("lon", 1.5, Quality.GOOD, 7), Sample("lat", 2.5, Quality.UNCERTAIN_CLOCK, 8)]
    batch = to_batch(samples, [4, 3], [10, 11])
    assert batch.point_index.tolist() == [4, 3]
    assert batch.value.tolist() == [1.5, 2.5]
    assert batch.quality.tolist() == [0, int(Quality.UNCERTAIN_CLOCK)]
    assert batch.source_time_ns.tolist() == [7, 8]
    assert batch.received_time_ns.tolist() == [10, 11]


VEHICLE = Vehicle("13900000001", "测A00001", 2, "T1", "hazmat", "一号车")


def test_a_vehicle_is_declared_with_what_is_known_of_it() -> None:
    record = Record("13900000001", "secret", maker="MAKER", model="MODEL", edition=2011)
    device = vehicle_device(
        VEHICLE, record, phone_bcd=bytes.fromhex("013900000001"), prefix="v", adapter="fleet"
    )
    assert (device.id, device.kind, device.name, device.adapter) == (
        "v13900000001",
        "vehicle",
        "一号车",
        "fleet",
    )
    assert device.attributes == {
        "phone": "13900000001",
        "phone_bcd": "013900000001",
        "plate": "测A00001",
        "plate_colour": "2",
        "vehicle_class": "hazmat",
        "terminal_id": "T1",
        "maker": "MAKER",
        "model": "MODEL",
        "edition": "2011",
    }
    assert "secret" not in str(device)


def test_nothing_known_leaves_no_empty_attribute() -> None:
    device = vehicle_device(Vehicle("7"), None, phone_bcd=bytes(10), prefix="", adapter="a")
    assert (device.id, device.name) == ("7", "7")
    assert device.attributes == {"phone": "7", "phone_bcd": "0" * 20, "edition": "2019"}


@pytest.mark.parametrize("name", sorted(POINT_FORMS))
def test_a_point_is_declared_in_the_words_of_the_glossary(name: str) -> None:
    device = vehicle_device(VEHICLE, None, phone_bcd=bytes(6), prefix="v", adapter="fleet")
    point = vehicle_point(device, name, report_interval_s=30, heartbeat_interval_s=60)
    assert point.id == f"v13900000001.{name}"
    assert (point.device, point.adapter) == (device.id, "fleet")
    assert point.attributes == {"vehicle_class": "hazmat"}
    assert point.interval_s == (60 if name == "link" else 30)
    words = {
        "speed": "vehicle_speed",
        "alarm": "vehicle_alarm_bits",
        "status": "vehicle_status_bits",
    }
    if name in BASIC | {"link"}:
        assert point.quantity == words.get(name, name)
    units = {"lon": "°", "lat": "°", "alt": "m", "speed": "km/h", "odometer": "km", "fuel": "L"}
    if name in units:
        assert point.unit == units[name]
    if name in {"alarm", "status"}:
        assert point.kind is PointKind.BITS
