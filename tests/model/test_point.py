"""Points keep their index for ever; what a site says is laid over what a protocol says."""

from __future__ import annotations

import pytest

from gateway.model.point import Device, Point, PointKind, PointTable, is_valid_id, overlay
from gateway.model.rule import Selector


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("99990100012301MN0001001A01", True),
        ("v13800001234.lon", True),
        ("3101工作面T1", True),
        ("", False),
        ("a b", False),
        ("a/b", False),
        ("a+b", False),
        ("a#b", False),
        ("a\x00b", False),
        ("x" * 129, False),
    ],
)
def test_an_id_can_stand_as_one_level_of_a_topic(text: str, valid: bool) -> None:
    assert is_valid_id(text) is valid


def test_a_point_put_again_keeps_its_index_and_the_table_notices() -> None:
    table = PointTable()
    first = table.put(Point(id="a"))
    table.put(Point(id="b"))
    before = table.version
    assert table.put(Point(id="a", unit="m")) == first
    assert table["a" in table and first].unit == "m"
    assert table.version > before
    assert [point.id for point in table] == ["a", "b"]


def test_only_what_differs_counts_as_changed_and_the_last_word_wins() -> None:
    table = PointTable()
    table.put(Point(id="a", unit="m"))
    table.put_device(Device(id="d", kind="dam"))
    changed = table.changed([Point(id="a", unit="km"), Point(id="a", unit="m"), Point(id="c")])
    assert [point.id for point in changed] == ["c"]
    assert table.changed_devices([Device(id="d", kind="dam")]) == []


def test_what_the_site_fills_in_wins_and_what_it_leaves_out_stays_as_declared() -> None:
    declared = Point(id="p", kind=PointKind.ANALOG, unit="ppm", location="3101", interval_s=20)
    configured = Point(id="p", location="3101工作面T1", location_class="T1")
    assert overlay(declared, configured) == Point(
        id="p", unit="ppm", location="3101工作面T1", location_class="T1", interval_s=20
    )


POINT = Point(
    id="p1", quantity="methane", location_class="T1", area="n1", device="d1", adapter="gas",
    attributes={"grade": "2"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (Selector(), True),
        (Selector(quantity="methane"), True),
        (Selector(quantity="methane", location_class="T2"), False),
        (Selector(ids=("p0", "p1")), True),
        (Selector(ids=("p0",)), False),
        (Selector(device_kind="sensor"), True),
        (Selector(device_kind="vehicle"), False),
        (Selector(attributes={"grade": "2"}), True),
        (Selector(attributes={"grade": "3"}), False),
        (Selector(attributes={"class": "hazmat"}), True),  # the device's attribute
        (Selector(attributes={"missing": "x"}), False),
    ],
)
def test_every_filled_field_of_a_selector_must_match(selector: Selector, matches: bool) -> None:
    assert selector.matches(POINT, "sensor", {"class": "hazmat", "grade": "9"}) is matches
