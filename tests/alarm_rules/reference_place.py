"""Places, fences and driving as plain loops: the measure of the array code, see reference.py.

Written from the words of the design: one sample after the other, overlaps counted day by day, the
moment of a limit found by bisection, polygons by winding number in whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from reference import NS, PLANNED, ScalarInstance, ScalarLevel, by_time, settled, shown, usable

from gateway.model.quality import UNCERTAIN
from gateway.testing.rule_kinds import Change, Sample

DAY = 86_400 * NS
BIN = 900 * NS
AREA_SPAN = 1 << 31
Said = tuple[bool | None, float | None, int]
SILENT: Said = (None, None, 0)


class TimedInstance(ScalarInstance):
    """An alarm of which a clock says something, too."""

    def timed(self, now: int, said: list[Said]) -> None:
        """What clocks find at one time is one step: a delay that ends and a condition that changes
        are told together, and what cancels out is not told."""
        self.advance(now - 1)
        before, moved = self.current(), {}

        def move(level: ScalarLevel) -> None:
            again = level.condition and level.output and level.output_planned
            level.output = level.condition
            level.output_planned = level.condition and level.quality == PLANNED
            moved[level.name] = (level.since_ns, level.cause, level.quality, again)

        for level in self.levels:
            if level.deadline() == now:
                move(level)
        for level, (verdict, value, quality) in zip(self.levels, said, strict=True):
            real = verdict and level.condition and level.quality == PLANNED != quality
            if verdict is None or (verdict == level.condition and not real):
                continue
            level.condition = verdict
            level.since_ns, level.cause, level.quality = now, value, quality
            if level.deadline() == now:
                move(level)
        self._tell(now, before, moved)

    def _tell(self, now: int, before: int, moved: dict) -> None:
        after = self.current()
        top = self.levels[after - 1] if after else None
        if after == before and not (top and moved.get(top.name, (0, 0, 0, False))[3]):
            return
        decides = self.levels[max(before, after) - 1]
        since, cause, quality, _ = moved[decides.name]
        limit = top.limit if top else decides.reset
        name = top.name if top else ""
        self.changes.append(Change(now, self.key, name, since, cause, limit, quality))


# ---------------------------------------------------------------------------- areas


def verdict_of(value: float, *, listed: set[int], unknown: set[int], mode: str) -> bool | None:
    """Whether an area code is one that counts. `mode`: "listed" or "others" count."""
    if value < 0:
        return False
    if value >= AREA_SPAN:
        return None
    code = int(value)
    if code in listed:
        return mode == "listed"
    if code in unknown:
        return None
    return mode != "listed"


def scalar_area(instance: ScalarInstance, verdict, samples: list[Sample], end_ns: int) -> None:
    """At equal times the forbidden place counts; of those the best quality, then the largest.
    Calibration is uncertain like any other doubt."""
    doubted = [s._replace(quality=UNCERTAIN) if s.quality == PLANNED else s for s in samples]
    for now, rows in by_time(doubted):
        known = [(verdict(s.value), s) for s in rows if usable(s)]
        for wanted in (True, False):
            chosen = [s for found, s in known if found is wanted]
            if chosen:
                sample = max(chosen, key=shown)
                instance.step(now, [(wanted, sample.value, sample.quality)])
                break
    instance.advance(end_ns)


def scalar_dwell(
    instance: TimedInstance, verdict, leave_ns: int, samples: list[Sample], end_ns: int
) -> None:
    """In since the first sample inside; out when outside for `leave_ns`."""
    count = len(instance.levels)
    out_since: tuple[int, int] | None = None  # (time, quality), while inside is not over
    inside = False

    def leave(until: int) -> None:
        nonlocal out_since
        if out_since is not None and until - out_since[0] >= leave_ns:
            at, quality = out_since[0] + leave_ns, out_since[1]
            said = [(False, None, quality)] * count
            instance.timed(at, said) if leave_ns else instance.step(at, said)
            out_since = None

    for now, rows in by_time(samples):
        sample = settled(rows)
        found = verdict(sample.value) if usable(sample) else None
        if found is None:
            continue
        quality = UNCERTAIN if sample.quality == PLANNED else sample.quality
        leave(now)
        if found:
            instance.step(now, [(True, None, quality)] * count)
            out_since = None
        elif inside:
            out_since = (now, quality)
            leave(now)
        inside = found
    leave(end_ns)
    instance.advance(end_ns)


# ---------------------------------------------------------------------------- positions


def latest(samples: list[Sample], inputs: dict[str, str]):
    """(time, name -> newest sample of each input) whenever something new came."""
    known: dict[str, Sample] = {}
    for now, rows in by_time(samples):
        for name, point in inputs.items():
            own = [s for s in rows if s.point == point]
            if own:
                known[name] = settled(own)
        yield now, dict(known)


def position(known: dict[str, Sample]) -> tuple[float, float] | None:
    if not all(name in known and usable(known[name]) for name in ("lon", "lat")):
        return None
    lon, lat = known["lon"].value, known["lat"].value
    if (lon, lat) == (0, 0) or abs(lon) > 180 or abs(lat) > 90:
        return None
    return lon, lat


def grid(degrees: float) -> int:
    return round(degrees * 10_000_000)


@dataclass
class Site:
    """A fence as drawn, with metres on the plane at the position asked about."""

    shape: dict
    corners: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        ((self.kind, drawn),) = self.shape.items()
        if self.kind == "circle":
            places = [(drawn["lon"], drawn["lat"])]
            self.half_m = drawn["radius_m"]
        elif self.kind == "corridor":
            places = drawn["line"]
            self.half_m = drawn["width_m"] / 2
        else:
            places, self.half_m = drawn, 0.0
        self.corners = [(grid(lon), grid(lat)) for lon, lat in places]
        lats = [lat for _, lat in self.corners]
        self.middle = (min(lats) + max(lats)) // 2
        sin2 = math.sin(math.radians(self.middle / 1e7)) ** 2
        squash = 1 - 0.00669437999014 * sin2
        self.north_m = 6_378_137 * (1 - 0.00669437999014) / squash**1.5 * math.radians(1e-7)
        self.east_m = 6_378_137 / math.sqrt(squash) * math.radians(1e-7)

    def edges(self):
        if self.kind == "circle":
            return [(self.corners[0], self.corners[0])]
        closing = [self.corners[0]] if self.kind == "polygon" else []
        ring = [*self.corners, *closing]
        return [(a, b) for a, b in pairwise(ring) if a != b]

    def distance_m(self, lon: float, lat: float) -> float:
        x, y = grid(lon), grid(lat)
        at = (y + self.middle) / 2 if self.kind == "circle" else y
        scale = self.east_m * math.cos(math.radians(at / 1e7))
        found = math.inf
        for a, b in self.edges():
            ax, ay = (a[0] - x) * scale, (a[1] - y) * self.north_m
            dx, dy = (b[0] - a[0]) * scale, (b[1] - a[1]) * self.north_m
            square = dx * dx + dy * dy
            along = min(max(-(ax * dx + ay * dy) / square, 0), 1) if square else 0
            found = min(found, math.hypot(ax + along * dx, ay + along * dy))
        return found

    def contains(self, lon: float, lat: float) -> bool:
        if self.kind != "polygon":
            return self.distance_m(lon, lat) <= self.half_m
        x, y = grid(lon), grid(lat)
        turns = 0
        for (ax, ay), (bx, by) in self.edges():
            side = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            if side == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                return True
            if ay <= y < by and side > 0:
                turns += 1
            elif by <= y < ay and side < 0:
                turns -= 1
        return turns != 0

    def near(self, lon: float, lat: float, band_m: float) -> bool:
        inside = self.contains(lon, lat)
        return inside or (band_m > 0 and self.distance_m(lon, lat) <= self.half_m + band_m)

    def deep(self, lon: float, lat: float, band_m: float) -> bool:
        if not self.contains(lon, lat) or band_m == 0:
            return self.contains(lon, lat)
        depth = self.distance_m(lon, lat)
        return depth >= band_m if self.kind == "polygon" else depth <= self.half_m - band_m


def scalar_geofence(
    instance: ScalarInstance,
    inputs: dict[str, str],
    given: dict,
    samples: list[Sample],
    end_ns: int,
) -> None:
    site = Site(given["shape"])
    band_m = given.get("hysteresis_m", 0.0) + given.get("accuracy_m", 0.0)
    for now, known in latest(samples, inputs):
        place = position(known)
        if place is None:
            continue
        if given["alarm_when"] == "inside":
            sets, resets = site.contains(*place), not site.near(*place, band_m)
        else:
            sets, resets = not site.contains(*place), site.deep(*place, band_m)
        quality = max(known[name].quality for name in ("lon", "lat"))
        instance.step(now, [(True if sets else False if resets else None, None, quality)])
    instance.advance(end_ns)


def scalar_overspeed(
    instance: ScalarInstance,
    inputs: dict[str, str],
    given: dict,
    *,
    base: float,
    codes: dict[str, int],
    samples: list[Sample],
    end_ns: int,
) -> None:
    """`base`: the lower of the rule's and the class's limit; `codes`: area id -> code."""
    sites = [(Site(a["shape"]), a["limit_kmh"]) for a in given.get("areas", ()) if "shape" in a]
    areas = [(codes[a["area"]], a["limit_kmh"]) for a in given.get("areas", ()) if "area" in a]
    place = area = None
    for now, known in latest(samples, inputs):
        place = position(known) or place
        if "area" in known and usable(known["area"]):
            area = known["area"].value
        if "speed" not in known or not usable(known["speed"]):
            continue
        limits = [base]
        if place:
            limits += [kmh for site, kmh in sites if site.contains(*place)]
        if area is not None and 0 <= area < AREA_SPAN:
            limits += [kmh for code, kmh in areas if int(area) == code]
        limit, speed = min(limits), known["speed"]
        night = given.get("night", {"from": "22:00", "to": "06:00"})
        if "night_factor" in given and overlap(night, given.get("utc_offset_h", 8), now, now + 1):
            limit *= given["night_factor"]
        said = []
        for level in instance.levels:
            top = limit + given.get("tolerance_kmh", 0.0)
            if level.name == "PREWARN":
                top = limit - given["pre_warn_kmh"]
            back = speed.value <= top - given.get("hysteresis_kmh", 0.0)
            verdict = True if speed.value > top else False if back else None
            said.append((verdict, speed.value, speed.quality))
        instance.step(now, said)
    instance.advance(end_ns)


# ---------------------------------------------------------------------------- driving


def windows(given: dict, offset_h: float, begin: int, end: int):
    """(from, to) in UTC of every day's window that may touch [begin, end]."""
    minutes = [int(given[k][:2]) * 60 + int(given[k][3:]) for k in ("from", "to")]
    length = (minutes[1] - minutes[0]) % 1440 * 60 * NS
    shift = round(offset_h * 3600) * NS
    for day in range((begin + shift) // DAY - 2, (end + shift) // DAY + 2):
        opens = day * DAY + minutes[0] * 60 * NS - shift
        yield opens, opens + length


def overlap(given: dict, offset_h: float, begin: int, end: int) -> int:
    return sum(
        max(0, min(end, closes) - max(begin, opens))
        for opens, closes in windows(given, offset_h, begin, end)
    )


class ScalarDriver:
    """One vehicle, sample by sample."""

    def __init__(self, instance: TimedInstance, given: dict) -> None:
        self.instance, self.given = instance, given
        self.names = [level.name for level in instance.levels]
        self.gap = round(given.get("gap_max_s", 300.0) * NS)
        self.rest = round(given.get("rest_min_s", 1200.0) * NS)
        self.offset = given.get("utc_offset_h", 8)
        self.at: int | None = None
        self.moving, self.quality, self.since = False, 0, 0
        self.clock = self.night = 0
        self.driven: list[tuple[int, int]] = []

    def limit(self, name: str) -> int:
        given = self.given
        night = given.get("night", {}).get("drive_max_s", math.inf)
        seconds = {
            "FATIGUE": given.get("drive_max_s", math.inf),
            "NIGHT": night,
            "DAILY": given.get("daily_max_s", math.inf),
        }[name]
        return round(seconds * NS) if seconds < math.inf else 1 << 62

    def in_24_hours(self, now: int, bin_: int) -> int:
        begin = (bin_ - 96) * BIN
        return sum(max(0, min(b, now) - max(a, begin)) for a, b in self.driven)

    def night_part(self, begin: int, end: int) -> int:
        night = self.given.get("night")
        return overlap(night, self.offset, begin, end) if night else 0

    def hold(self, until: int) -> None:
        """From the last sample to `until`, by what it said."""
        if self.at is None:
            return
        held_to = min(until, self.at + self.gap)
        found: list[tuple[int, str, bool, float | None]] = []
        if self.moving:
            self._drive(held_to, found)
            self._ban(held_to, until, found)
        else:
            self._stand(held_to, found)
        if "DAILY" in self.names:
            self._day(held_to, found)
        if self.moving and held_to > self.at:
            self.clock += held_to - self.at
            self.night += self.night_part(self.at, held_to)
            self.driven.append((self.at, held_to))
        self._tell(found)

    def _drive(self, held_to: int, found: list) -> None:
        at, pre = self.at, round(self.given.get("pre_warn_s", 0) * NS)
        for name, limit in (
            ("FATIGUE", self.limit("FATIGUE")),
            ("PREWARN", self.limit("FATIGUE") - pre),
        ):
            if self.clock < limit <= self.clock + held_to - at:
                found.append((at + limit - self.clock, name, True, limit / NS))
        for name, limit in (("NIGHT", self.limit("NIGHT")), ("PREWARN", self.limit("NIGHT") - pre)):
            if self.night < limit <= self.night + self.night_part(at, held_to):
                low, high = at, held_to
                while low < high:
                    middle = (low + high) // 2
                    if self.night + self.night_part(at, middle) >= limit:
                        high = middle
                    else:
                        low = middle + 1
                found.append((low, name, True, limit / NS))

    def _ban(self, held_to: int, until: int, found: list) -> None:
        ban = self.given.get("ban")
        if ban is None:
            return
        for opens, closes in windows(ban, self.offset, self.at, until):
            if self.at < opens < held_to:
                found.append((opens, "NIGHTBAN", True, None))
            if opens < held_to and self.at < closes <= until:
                found.append((closes, "NIGHTBAN", False, None))

    def _stand(self, held_to: int, found: list) -> None:
        ends = self.since + self.rest
        if self.at < ends <= held_to:
            found += [(ends, name, False, 0.0) for name in ("PREWARN", "NIGHT", "FATIGUE")]
        if ends <= held_to:
            self.clock = self.night = 0

    def _day(self, held_to: int, found: list) -> None:
        limit = self.limit("DAILY")
        back = max(limit - max(self.rest, BIN), 0)
        now = self.at
        while now < held_to:
            stop = min(held_to, (now // BIN + 1) * BIN)
            done = self.in_24_hours(now, now // BIN) + (now - self.at if self.moving else 0)
            if self.moving and done < limit <= done + stop - now:
                found.append((now + limit - done, "DAILY", True, limit / NS))
            if stop % BIN == 0:
                extra = stop - self.at if self.moving else 0
                was = self.in_24_hours(stop, stop // BIN - 1) + extra
                left = self.in_24_hours(stop, stop // BIN) + extra
                if left <= back < was:
                    found.append((stop, "DAILY", False, left / NS))
            now = stop

    def _tell(self, found: list) -> None:
        for now in sorted({event[0] for event in found}):
            said = []
            for name in self.names:
                own = [e for e in found if e[0] == now and e[1] == name]
                own = [e for e in own if e[2]] or own
                chosen = max(own, key=lambda e: e[3] or 0.0, default=None)
                said.append((chosen[2], chosen[3], self.quality) if chosen else SILENT)
            if any(one is not SILENT for one in said):
                self.instance.timed(now, said)

    def sample(self, now: int, row: Sample) -> None:
        self.hold(now)
        moving = row.value >= self.given.get("moving_kmh", 5.0)
        silent = self.at is not None and now - self.at > self.gap
        keeps = self.given.get("gap_standing") == "standing" and not moving and not self.moving
        if self.at is None or moving != self.moving or (silent and not keeps):
            if moving and self.at is not None and not self.moving and not silent:
                self._resume(now)
            self.since = now
        if not moving and now - self.since >= self.rest:
            self.clock = self.night = 0
        self.at, self.moving, self.quality = now, moving, row.quality
        self.instance.step(now, [self._find(name, now) for name in self.names])
        self.driven = [span for span in self.driven if span[1] > now - 30 * 3600 * NS]

    def _resume(self, now: int) -> None:
        """A stop that was no rest was driving, if the strict reading is chosen."""
        if self.given.get("short_stops", "driving") == "driving" and self.clock > 0:
            self.clock += now - self.since
            self.night += self.night_part(self.since, now)
            self.driven.append((self.since, now))

    def _find(self, name: str, now: int) -> Said:
        pre = round(self.given.get("pre_warn_s", 0) * NS)
        drive, night = self.limit("FATIGUE"), self.limit("NIGHT")
        if name == "FATIGUE":
            return self.clock >= drive, self.clock / NS, self.quality
        if name == "NIGHT":
            return self.night >= night, self.night / NS, self.quality
        if name == "PREWARN":
            warns = self.clock >= drive - pre
            by_night = self.night >= night - pre and not warns
            return warns or by_night, (self.night if by_night else self.clock) / NS, self.quality
        if name == "NIGHTBAN":
            banned = overlap(self.given["ban"], self.offset, now, now + 1) > 0
            return self.moving and banned, None, self.quality
        limit, done = self.limit("DAILY"), self.in_24_hours(now, now // BIN)
        back = max(limit - max(self.rest, BIN), 0)
        verdict = True if done >= limit else False if done <= back else None
        return verdict, done / NS, self.quality


def scalar_driving(
    instance: TimedInstance, given: dict, samples: list[Sample], end_ns: int
) -> None:
    driver = ScalarDriver(instance, given)
    for now, rows in by_time(samples):
        row = settled(rows)
        if usable(row):
            driver.sample(now, row)
    driver.hold(end_ns)
    instance.advance(end_ns)
