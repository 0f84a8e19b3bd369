"""Fences on the map: circle, polygon, corridor. Which positions lie in one, how far from its edge.

      ┌─────────────── bounding box, widened by the margin: most positions end here
      │   ╭──╮ edge       in       exact: integers of 1e-7 degree, a position on the edge is in
      │   ╰──╯            near     within `margin_m` outside the edge
      │                   deep     at least `margin_m` inside it

**Exact.** Vertices and positions are rounded to 1e-7 degree (11 mm) and a polygon is asked by
crossing number in int64: the same answer on every machine, an edge is a straight line of the map
(constant slope in longitude and latitude), and a position on it is inside.

**Metres** are those of a plane laid at the position: longitude shrunk by the cosine of latitude,
and the ellipsoid's (WGS 84) two radii of curvature at the fence. Against the geodesic the error of
a distance d is below d²·tan(latitude)/(2·6371 km): 0.1 m at 1 km and 7 m at 10 km in mid latitudes.
That holds for the width of a corridor and for margins. A circle is measured at the mean latitude,
which leaves less than 0.01 % up to 100 km.

Surprising: the coordinates must be those the devices send. JT/T 808 is WGS 84; most maps in China
draw GCJ-02, which lies 100 to 700 m beside it.

Refused: holes, edges that cross, a fence across ±180°, beyond 80° of latitude, wider than 90°.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, field_validator, model_validator

from alarm_rules.kinds._common import Parameters

GRID_PER_DEGREE = 10_000_000
"""1e-7 degree: ten times finer than JT/T 808 sends, and any two differences within 90 degrees
multiply within int64."""
SPAN_MAX_DEG = 90.0
LATITUDE_MAX_DEG = 80.0
VERTICES_MAX = 2_000
"""Crossing edges are looked for between all pairs: 4 million at most."""
_CELLS_MAX = 1 << 18
"""Rows times edges worked on at once: some eight arrays of 2 MB each."""
_EQUATOR_M = 6_378_137.0  # WGS 84
_ECCENTRICITY_2 = 6.694_379_990_14e-3

Grid = NDArray[np.int64]
Mask = NDArray[np.bool_]

Longitude = Annotated[float, Field(ge=-180, le=180)]
Latitude = Annotated[float, Field(ge=-LATITUDE_MAX_DEG, le=LATITUDE_MAX_DEG)]
Position = tuple[Longitude, Latitude]


class Circle(Parameters):
    """Everything within `radius_m` of a place."""

    lon: Longitude
    lat: Latitude
    radius_m: float = Field(gt=0, le=500_000)


class Corridor(Parameters):
    """Everything within half of `width_m` of a line: a road, a conveyor, a mining boundary."""

    line: tuple[Position, ...] = Field(min_length=2, max_length=VERTICES_MAX)
    width_m: float = Field(gt=0, le=100_000)


class Shape(Parameters):
    """One of circle, polygon, corridor. A polygon closes itself."""

    circle: Circle | None = None
    polygon: tuple[Position, ...] | None = Field(default=None, max_length=VERTICES_MAX)
    corridor: Corridor | None = None
    _fence: Fence = PrivateAttr()

    @field_validator("polygon", mode="before")
    @classmethod
    def _has_no_hole(cls, value: Any) -> Any:
        try:
            nested = isinstance(value[0][0], Sequence)
        except (TypeError, IndexError, KeyError):
            return value
        if nested:
            raise ValueError("one ring of [lon, lat]: holes are not supported")
        return value

    @model_validator(mode="after")
    def _is_one_shape(self) -> Shape:
        given = [s for s in (self.circle, self.polygon, self.corridor) if s is not None]
        if len(given) != 1:
            raise ValueError("exactly one of circle, polygon, corridor")
        self._fence = _fence_of(self)
        return self

    @property
    def fence(self) -> Fence:
        """The shape as arrays."""
        return self._fence


@dataclass(frozen=True, slots=True, eq=False)
class Fence:
    """A shape ready to be asked. Positions are grid integers, see `to_grid`."""

    west: int
    south: int
    east: int
    north: int
    a_lon: Grid  # edges from a to b; a circle is one edge of length 0
    a_lat: Grid
    b_lon: Grid
    b_lat: Grid
    half_width_m: float  # 0 for a polygon
    is_area: bool  # a polygon: the edges enclose it
    is_circle: bool
    middle_lat: int
    m_per_lon: float  # metres of a grid step at middle_lat
    m_per_lat: float

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fence):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return all(np.array_equal(mine, its) for mine, its in pairs)

    __hash__ = None  # type: ignore[assignment]

    def contains(self, lon: Grid, lat: Grid) -> Mask:
        """In the fence; on the edge is in."""
        found = np.zeros(len(lon), np.bool_)
        rows = np.flatnonzero(self._in_box(lon, lat, 0.0))
        if self.is_area:
            found[rows] = self._by_chunks(self._crossings, lon[rows], lat[rows])
        else:
            found[rows] = self._distance_m(lon[rows], lat[rows]) <= self.half_width_m
        return found

    def near(self, lon: Grid, lat: Grid, margin_m: float) -> Mask:
        """In the fence or within `margin_m` of it."""
        found = self.contains(lon, lat)
        if margin_m > 0:
            rows = np.flatnonzero(self._in_box(lon, lat, margin_m) & ~found)
            distance = self._distance_m(lon[rows], lat[rows])
            found[rows] = distance <= self.half_width_m + margin_m
        return found

    def deep(self, lon: Grid, lat: Grid, margin_m: float) -> Mask:
        """In the fence, at least `margin_m` from its edge."""
        found = self.contains(lon, lat)
        if margin_m > 0:
            rows = np.flatnonzero(found)
            distance = self._distance_m(lon[rows], lat[rows])
            if self.is_area:
                found[rows] = distance >= margin_m
            else:
                found[rows] = distance <= self.half_width_m - margin_m
        return found

    def _in_box(self, lon: Grid, lat: Grid, margin_m: float) -> Mask:
        """A little more than the margin: longitude steps are shortest on the side of the pole."""
        up = math.ceil(margin_m / self.m_per_lat * 1.01) if margin_m else 0
        least = min(_shrink(self.middle_lat, side) for side in (self.south - up, self.north + up))
        wide = math.ceil(margin_m / (self.m_per_lon * least) * 1.01) if margin_m else 0
        inside: Mask = (lon >= self.west - wide) & (lon <= self.east + wide)
        inside &= (lat >= self.south - up) & (lat <= self.north + up)
        return inside

    def _distance_m(self, lon: Grid, lat: Grid) -> NDArray[np.float64]:
        """To the nearest edge (of a circle: to its middle), on the plane at each position."""
        return self._by_chunks(self._nearest, lon, lat)

    def _by_chunks(
        self, ask: Callable[[Grid, Grid], NDArray[Any]], lon: Grid, lat: Grid
    ) -> NDArray[Any]:
        size = max(_CELLS_MAX // len(self.a_lon), 1)
        parts = [ask(lon[i : i + size], lat[i : i + size]) for i in range(0, len(lon), size)]
        return np.concatenate(parts) if parts else ask(lon, lat)

    def _crossings(self, lon: Grid, lat: Grid) -> Mask:
        """Even-odd: the edges a ray eastwards crosses; an edge the position lies on decides."""
        lon, lat = lon[:, None], lat[:, None]
        side = (self.b_lon - self.a_lon) * (lat - self.a_lat) - (lon - self.a_lon) * (
            self.b_lat - self.a_lat
        )
        straddles = (self.a_lat > lat) != (self.b_lat > lat)
        east = np.where(self.b_lat > self.a_lat, side > 0, side < 0)
        on = (side == 0) & (lat >= np.minimum(self.a_lat, self.b_lat))
        on &= lat <= np.maximum(self.a_lat, self.b_lat)
        on &= lon >= np.minimum(self.a_lon, self.b_lon)
        on &= lon <= np.maximum(self.a_lon, self.b_lon)
        odd = np.count_nonzero(straddles & east, axis=1) % 2 == 1
        inside: Mask = odd | on.any(axis=1)
        return inside

    def _nearest(self, lon: Grid, lat: Grid) -> NDArray[np.float64]:
        at = (lat + self.middle_lat) / 2 if self.is_circle else lat.astype(np.float64)
        scale = (self.m_per_lon * _shrink(self.middle_lat, at))[:, None]
        ax = (self.a_lon - lon[:, None]) * scale
        ay = (self.a_lat - lat[:, None]) * self.m_per_lat
        dx = (self.b_lon - self.a_lon) * scale
        dy = (self.b_lat - self.a_lat) * self.m_per_lat
        length_2 = dx * dx + dy * dy
        along = -(ax * dx + ay * dy) / np.where(length_2 > 0, length_2, 1.0)
        along = np.clip(along, 0.0, 1.0)
        x, y = ax + along * dx, ay + along * dy
        nearest: NDArray[np.float64] = np.sqrt((x * x + y * y).min(axis=1, initial=np.inf))
        return nearest


def to_grid(degrees: NDArray[np.float64]) -> Grid:
    """Positions in whole steps; they must be finite."""
    return np.rint(degrees * GRID_PER_DEGREE).astype(np.int64)


def _fence_of(shape: Shape) -> Fence:
    """Raises ValueError for a shape that cannot be judged."""
    if shape.circle is not None:
        circle = shape.circle
        lon, lat = _vertices([(circle.lon, circle.lat)])
        return _fence(lon, lat, half_width_m=circle.radius_m, closed=False)
    if shape.corridor is not None:
        lon, lat = _vertices(shape.corridor.line)
        if len(lon) < 2:
            raise ValueError("a corridor's line needs two places")
        return _fence(lon, lat, half_width_m=shape.corridor.width_m / 2, closed=False)
    lon, lat = _vertices(shape.polygon or ())
    if len(lon) > 1 and lon[0] == lon[-1] and lat[0] == lat[-1]:
        lon, lat = lon[:-1], lat[:-1]
    if len(lon) < 3:
        raise ValueError("a polygon needs three corners")
    fence = _fence(lon, lat, half_width_m=0.0, closed=True)
    _refuse_crossing_edges(fence)
    return fence


def _vertices(places: Sequence[tuple[float, float]]) -> tuple[Grid, Grid]:
    """On the grid, without repetitions in a row."""
    table = to_grid(np.array(places, np.float64).reshape(-1, 2))
    fresh = np.ones(len(table), np.bool_)
    fresh[1:] = (table[1:] != table[:-1]).any(axis=1)
    return table[fresh, 0], table[fresh, 1]


def _fence(lon: Grid, lat: Grid, *, half_width_m: float, closed: bool) -> Fence:
    is_circle = len(lon) == 1
    south, north = int(lat.min()), int(lat.max())
    middle = (south + north) // 2
    radians = math.radians(middle / GRID_PER_DEGREE)
    squash = 1 - _ECCENTRICITY_2 * math.sin(radians) ** 2
    step = math.radians(1 / GRID_PER_DEGREE)
    m_per_lat = _EQUATOR_M * (1 - _ECCENTRICITY_2) / squash**1.5 * step
    m_per_lon = _EQUATOR_M / math.sqrt(squash) * math.cos(radians) * step
    up = math.ceil(half_width_m / m_per_lat * 1.01)
    south, north = south - up, north + up
    least = min(_shrink(middle, south), _shrink(middle, north))
    wide = math.ceil(half_width_m / (m_per_lon * least) * 1.01)
    west, east = int(lon.min()) - wide, int(lon.max()) + wide
    if west < -180 * GRID_PER_DEGREE or east > 180 * GRID_PER_DEGREE:
        raise ValueError("a fence across ±180° of longitude is not supported")
    if max(-south, north) > LATITUDE_MAX_DEG * GRID_PER_DEGREE:
        raise ValueError(f"a fence reaches at most {LATITUDE_MAX_DEG:.0f}° of latitude")
    if max(east - west, north - south) > SPAN_MAX_DEG * GRID_PER_DEGREE:
        raise ValueError(f"a fence spans at most {SPAN_MAX_DEG:.0f}°")
    return Fence(
        west,
        south,
        east,
        north,
        a_lon=lon if closed or is_circle else lon[:-1],
        a_lat=lat if closed or is_circle else lat[:-1],
        b_lon=lon if is_circle else np.roll(lon, -1) if closed else lon[1:],
        b_lat=lat if is_circle else np.roll(lat, -1) if closed else lat[1:],
        half_width_m=half_width_m,
        is_area=closed,
        is_circle=is_circle,
        middle_lat=middle,
        m_per_lon=m_per_lon,
        m_per_lat=m_per_lat,
    )


def _shrink(middle_lat: int, lat: Any) -> Any:
    """cos(lat) / cos(middle_lat), of rows by sums and products alone.

    numpy's cosine of an array differs in the last bit between processors, and a replay elsewhere
    would with it. The series leaves 2e-10 at the 45 degrees a fence may reach from its middle.
    """
    middle = math.radians(middle_lat / GRID_PER_DEGREE)
    d = (lat - middle_lat) * math.radians(1 / GRID_PER_DEGREE)
    q = d * d
    cosine = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90))))
    sine = d * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72 * (1 - q / 110)))))
    return cosine - math.tan(middle) * sine


def _refuse_crossing_edges(fence: Fence) -> None:
    """Edges of a ring touch only their neighbours, and those only at the shared corner."""
    corner = (fence.a_lon[0], fence.a_lat[0])
    next_corner = (fence.b_lon[0], fence.b_lat[0])
    if not _side(corner, next_corner, (fence.a_lon, fence.a_lat)).any():
        raise ValueError("a polygon encloses an area: all corners stand on one line")
    west, east = np.minimum(fence.a_lon, fence.b_lon), np.maximum(fence.a_lon, fence.b_lon)
    south, north = np.minimum(fence.a_lat, fence.b_lat), np.maximum(fence.a_lat, fence.b_lat)
    for i in range(len(west)):
        close = (west <= east[i]) & (east >= west[i]) & (south <= north[i]) & (north >= south[i])
        others = np.flatnonzero(close[i + 1 :]) + i + 1
        if _touching(fence, i, others).any():
            raise ValueError(f"the polygon's edges cross: edge {i + 1} meets another one")


def _touching(fence: Fence, i: int, others: NDArray[np.int64]) -> Mask:
    """Which edges meet edge i where a ring must not."""
    count = len(fence.a_lon)
    a = (fence.a_lon[i], fence.a_lat[i])
    b = (fence.b_lon[i], fence.b_lat[i])
    c = (fence.a_lon[others], fence.a_lat[others])
    d = (fence.b_lon[others], fence.b_lat[others])
    c_side, d_side = _side(a, b, c), _side(a, b, d)
    a_side, b_side = _side(c, d, a), _side(c, d, b)
    meets: Mask = (c_side * d_side < 0) & (a_side * b_side < 0)
    next_one, previous = others == i + 1, (others + 1) % count == i
    meets |= (c_side == 0) & _between(a, b, c) & ~next_one
    meets |= (d_side == 0) & _between(a, b, d) & ~previous
    meets |= (a_side == 0) & _between(c, d, a) & ~previous
    meets |= (b_side == 0) & _between(c, d, b) & ~next_one
    return meets


def _side(a: Any, b: Any, p: Any) -> Any:
    return np.sign((b[0] - a[0]) * (p[1] - a[1]) - (p[0] - a[0]) * (b[1] - a[1]))


def _between(a: Any, b: Any, p: Any) -> Any:
    inside = (p[0] >= np.minimum(a[0], b[0])) & (p[0] <= np.maximum(a[0], b[0]))
    inside &= (p[1] >= np.minimum(a[1], b[1])) & (p[1] <= np.maximum(a[1], b[1]))
    return inside
