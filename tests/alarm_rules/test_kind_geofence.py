"""Fences: exact edges, bands around them, and shapes that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference_place import Site

from alarm_rules.kinds._fence import Shape, to_grid
from alarm_rules.kinds.geofence import KIND, GeofenceParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
DEVICES = [Device(id="v", kind="vehicle", name="鲁Z00001")]
POINTS = [
    Point(id="v.lon", kind=PointKind.LON, quantity="lon", device="v"),
    Point(id="v.lat", kind=PointKind.LAT, quantity="lat", device="v"),
]
SELECT = {"lon": Selector(quantity="lon"), "lat": Selector(quantity="lat")}
SQUARE = {"polygon": [[116.0, 39.0], [116.01, 39.0], [116.01, 39.01], [116.0, 39.01]]}
ARROW = {"polygon": [[0.0, 1.0], [4.0, 0.0], [2.0, 1.0], [4.0, 2.0], [0.0, 1.0]]}


def check_places(places, expected, **given) -> None:
    """One position a second, as (lon, lat) or (lon, lat, quality); `expected`: (second, level)."""
    samples = []
    for second, (lon, lat, *quality) in enumerate(places):
        samples += [Sample("v.lon", second, lon, *quality), Sample("v.lat", second, lat, *quality)]
    case = RuleCase([Rule("r", "geofence", SELECT, given)], POINTS, samples, DEVICES)
    found = drive(case, {"geofence": KIND}).changes
    assert [((c.time_ns - at_ns(0)) / NS, c.level) for c in found] == expected


@pytest.mark.parametrize(
    ("shape", "lon", "lat", "inside"),
    [
        (SQUARE, 116.005, 39.005, True),
        (SQUARE, 116.0, 39.0, True),  # a corner
        (SQUARE, 116.01, 39.005, True),  # an edge
        (SQUARE, 116.0100001, 39.005, False),  # 9 mm beside it
        (SQUARE, 115.9, 39.01, False),  # in line with an edge
        (ARROW, 2.0, 1.0, True),  # the inner corner
        (ARROW, 3.0, 1.0, False),  # in its mouth
        (ARROW, 3.0, 0.5, True),  # exactly on a slanted edge
        (ARROW, 3.0000001, 0.5, False),  # a step beside that edge, in the mouth
        (ARROW, 0.5, 1.0, True),  # the ray passes through a corner
        (ARROW, -1.0, 1.0, False),
        (ARROW, -1.0, 2.0, False),
        ({"circle": {"lon": 116, "lat": 39, "radius_m": 112}}, 116.0, 39.001, True),
        ({"circle": {"lon": 116, "lat": 39, "radius_m": 112}}, 116.0, 39.0011, False),
        ({"circle": {"lon": 116, "lat": 60, "radius_m": 56}}, 116.001, 60.0, True),
        ({"circle": {"lon": 116, "lat": 60, "radius_m": 55}}, 116.001, 60.0, False),
        ({"corridor": {"line": [[116, 39], [116.1, 39]], "width_m": 40}}, 116.05, 39.00017, True),
        ({"corridor": {"line": [[116, 39], [116.1, 39]], "width_m": 40}}, 116.05, 39.0002, False),
        ({"corridor": {"line": [[116, 39], [116.1, 39]], "width_m": 40}}, 116.1002, 39.0, True),
        ({"corridor": {"line": [[116, 39], [116.1, 39]], "width_m": 40}}, 116.1003, 39.0, False),
    ],
)
def test_a_place_is_in_the_fence_it_is_in_and_the_edge_belongs_to_it(
    shape, lon, lat, inside
) -> None:
    fence = Shape.model_validate(shape).fence
    assert fence.contains(to_grid(np.array([lon])), to_grid(np.array([lat]))).tolist() == [inside]


CELL = st.tuples(st.integers(-4, 4), st.integers(-4, 4))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(CELL, min_size=3, max_size=7, unique=True), st.booleans())
def test_any_polygon_the_schema_takes_contains_what_its_winding_number_says(corners, shut) -> None:
    ring = [[x / 10 + 100, y / 10 + 30] for x, y in corners]
    drawn = {"polygon": [*ring, ring[0]] if shut else ring}
    try:
        fence = Shape.model_validate(drawn).fence
    except ValidationError:
        return
    places = [(x / 20 + 100, y / 20 + 30) for x in range(-9, 10, 2) for y in range(-10, 11, 2)]
    lon, lat = to_grid(np.array(places)).T
    site = Site(drawn)
    assert fence.contains(lon, lat).tolist() == [site.contains(*place) for place in places]
    for band_m in (800.0, 6000.0):
        assert fence.near(lon, lat, band_m).tolist() == [site.near(*p, band_m) for p in places]
        assert fence.deep(lon, lat, band_m).tolist() == [site.deep(*p, band_m) for p in places]


@pytest.mark.slow
def test_many_positions_and_edges_are_worked_on_in_parts_without_a_difference() -> None:
    turns = np.linspace(0, 2 * math.pi, 500, endpoint=False)
    ring = [[float(110 + math.cos(a)), float(30 + math.sin(a))] for a in turns]
    fence = Shape.model_validate({"polygon": ring}).fence
    places = np.random.default_rng(7).uniform(-1.2, 1.2, (900, 2)) + np.array([110, 30])
    lon, lat = to_grid(places).T
    radius = np.hypot(*(places - [110, 30]).T)
    sure = abs(radius - 1) > 1e-4
    assert (fence.contains(lon, lat) == (radius < 1))[sure].all()
    one_by_one = [bool(fence.contains(lon[i : i + 1], lat[i : i + 1])[0]) for i in range(60)]
    assert fence.contains(lon, lat)[:60].tolist() == one_by_one


@pytest.mark.parametrize("lat", [0.0, 35.0, 55.0])
@pytest.mark.parametrize("bearing", [0, 45, 90, 200])
def test_a_circle_of_ten_kilometres_is_round_on_the_ellipsoid_to_a_few_metres(lat, bearing) -> None:
    """The radii of curvature and a step of a metre at a time: an independent way to walk 10 km."""
    fence = Shape.model_validate({"circle": {"lon": 110, "lat": lat, "radius_m": 10_000}}).fence
    east, north = math.sin(math.radians(bearing)), math.cos(math.radians(bearing))
    at_lon, at_lat, e2 = 110.0, lat, 0.00669437999014
    for step in range(10_020):
        if step == 9_980:
            assert fence.contains(*(to_grid(np.array([v])) for v in (at_lon, at_lat)))[0]
        squash = 1 - e2 * math.sin(math.radians(at_lat)) ** 2
        at_lon += math.degrees(
            east * math.sqrt(squash) / 6_378_137 / math.cos(math.radians(at_lat))
        )
        at_lat += math.degrees(north * squash**1.5 / (6_378_137 * (1 - e2)))
    assert not fence.contains(*(to_grid(np.array([v])) for v in (at_lon, at_lat)))[0]


IN, EDGE = (116.005, 39.005), (116.01, 39.005)
NEAR, FAR = (116.0101, 39.005), (116.0105, 39.005)  # 8.6 m and 43 m outside


@pytest.mark.parametrize(
    ("places", "expected", "band"),
    [
        ([FAR, EDGE, NEAR, FAR], [(1, "INSIDE"), (2, "")], {}),
        ([FAR, EDGE, NEAR, FAR], [(1, "INSIDE"), (3, "")], {"hysteresis_m": 20}),
        ([FAR, NEAR, FAR], [], {"hysteresis_m": 20}),
        ([IN, NEAR], [(0, "INSIDE"), (1, "")], {"hysteresis_m": 8}),
        ([IN, NEAR], [(0, "INSIDE")], {"hysteresis_m": 8, "accuracy_m": 1}),
        ([IN, (0.0, 0.0), FAR], [(0, "INSIDE"), (2, "")], {}),
        ([IN, (*FAR, int(Quality.BAD)), (math.nan, 39.0)], [(0, "INSIDE")], {}),
        ([IN, (181.0, 39.0), (116.0, 91.0)], [(0, "INSIDE")], {}),
        ([(*IN, int(Quality.UNCERTAIN_POSITION))], [(0, "INSIDE")], {}),
    ],
)
def test_an_alarm_inside_begins_at_the_edge_and_ends_beyond_the_band(
    places, expected, band
) -> None:
    check_places(places, expected, shape=SQUARE, alarm_when="inside", **band)


@pytest.mark.parametrize(
    ("places", "expected", "band"),
    [
        ([IN, EDGE, NEAR, EDGE], [(2, "OUTSIDE"), (3, "")], {}),
        ([NEAR, EDGE, (116.0099, 39.005), IN], [(0, "OUTSIDE"), (3, "")], {"hysteresis_m": 20}),
        ([(0.0, 0.0), IN], [], {}),
    ],
)
def test_an_alarm_outside_begins_beyond_the_edge_and_ends_deep_enough_inside(
    places, expected, band
) -> None:
    check_places(places, expected, shape=SQUARE, alarm_when="outside", **band)


def test_a_position_is_judged_with_both_halves_of_one_time() -> None:
    """From west of the square to north of it: longitude alone would put it inside for a moment."""
    west, north = (115.99, 39.005), (116.005, 39.02)
    check_places([west, north], [], shape=SQUARE, alarm_when="inside")


def test_half_a_position_goes_with_the_last_other_half() -> None:
    samples = [Sample("v.lon", 0, 115.99), Sample("v.lat", 0, 39.005), Sample("v.lon", 1, 116.005)]
    given = {"shape": SQUARE, "alarm_when": "inside"}
    case = RuleCase([Rule("r", "geofence", SELECT, given)], POINTS, samples, DEVICES)
    assert [c.level for c in drive(case, {"geofence": KIND}).changes] == ["INSIDE"]


def test_devices_without_a_whole_position_are_reported() -> None:
    table = PointTable()
    table.put(POINTS[0])
    table.put(Point(id="lost.lat", quantity="lat"))
    given = {"shape": SQUARE, "alarm_when": "inside"}
    rules = RuleSet([Rule("r", "geofence", SELECT, given)], {"geofence": KIND}, table)
    assert not rules.instances
    assert rules.problems == [
        "r: -: points without a device cannot be judged together",
        "r: v: input lat needs one point, found none",
    ]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ({}, "exactly one"),
        ({**SQUARE, "circle": {"lon": 1, "lat": 1, "radius_m": 1}}, "exactly one"),
        ({"polygon": [[1, 1], [2, 1]]}, "three corners"),
        ({"polygon": [[1, 1], [2, 2], [3, 3]]}, "one line"),
        ({"polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}, "cross"),
        ({"polygon": [[0, 0], [4, 0], [2, 0], [2, 2]]}, "cross"),  # folds back on itself
        ({"polygon": [[0, 0], [2, 2], [4, 0], [4, 4], [2, 2], [0, 4]]}, "cross"),  # touches itself
        ({"polygon": [[[0, 0], [1, 0], [1, 1]], [[0, 0], [0, 0], [0, 0]]]}, "holes"),
        ({"polygon": [[179, 1], [-179, 1], [-179, 2], [179, 2]]}, "spans"),
        ({"circle": {"lon": 179.999, "lat": 1, "radius_m": 5000}}, "180"),
        ({"circle": {"lon": 1, "lat": 79.99, "radius_m": 50_000}}, "latitude"),
        ({"circle": {"lon": 1, "lat": 1, "radius_m": 0}}, "greater than 0"),
        ({"circle": {"lon": 181, "lat": 1, "radius_m": 5}}, "less than or equal to 180"),
        ({"corridor": {"line": [[1, 1]], "width_m": 5}}, "at least 2"),
        ({"corridor": {"line": [[1, 1], [1, 1]], "width_m": 5}}, "two places"),
        ({"polygon": [[1, 1], [2, math.inf], [3, 1]]}, "finite"),
    ],
)
def test_a_shape_that_cannot_be_judged_is_refused_and_says_why(shape, wanted) -> None:
    with pytest.raises(ValidationError, match=wanted):
        GeofenceParameters.model_validate({"shape": shape, "alarm_when": "inside"})


def test_an_alarm_outside_that_could_never_end_is_refused() -> None:
    wide = {"shape": SQUARE, "alarm_when": "outside", "hysteresis_m": 600}
    with pytest.raises(ValidationError, match="leave no place"):
        GeofenceParameters.model_validate(wide)
    assert GeofenceParameters.model_validate({**wide, "alarm_when": "inside"}).band_m == 600


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        ({}, {"hysteresis_m": 5}, False),
        ({"hysteresis_m": 5}, {"accuracy_m": 5}, False),
        ({"hysteresis_m": 5}, {"hysteresis_m": 4}, True),
        ({}, {"alarm_when": "outside"}, True),
        ({}, {"shape": {"circle": {"lon": 1, "lat": 1, "radius_m": 1}}}, True),
    ],
)
def test_a_narrower_band_and_another_shape_are_looser(old, new, looser) -> None:
    base = {"shape": SQUARE, "alarm_when": "inside"}
    pair = [GeofenceParameters.model_validate({**base, **given}) for given in (old, new)]
    assert bool(KIND.loosens(*pair)) == looser
