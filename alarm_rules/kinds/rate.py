"""How fast a value changes: gas that rises, a slope that moves, a level that falls.

    value                            ╭───●  t             two_point      (v(t) - v(s)) / (t - s)
                     ╭───────────────╯                    change          v(t) - v(s)
             ●───────╯                                    least_squares   slope of the line through
             s                                                            every ● of the window
        ├──────────── window_s ──────────┤

At every usable sample the window is `[t - window_s, t]`, both ends included; `s` is the oldest
sample in it. The number is compared with the levels as in `limit`: H levels watch a rise, L levels
(negative limits) a fall; with `absolute` its magnitude, so that H watches both.

Sets, resets: as `limit`, by that number. **Not judged**, so levels hold: while less than
`coverage_min` of the window lies between s and t, or fewer than `samples_min` samples are in it.
Bad values and NaN are left out of the window. Silence says nothing: what was rising goes on being
in alarm until samples show that it does not. A point that was silent for a window begins anew.

Unit: `least_squares` and `two_point` in the point's unit per `per`; `change` in the point's unit,
without a division, or with `relative` as a share of the oldest value's magnitude (0.2 is 20 %; not
judged where that is 0). The alarm's value is the number.

**Memory and thinning.** A point keeps at most 256 samples of a window, fewer where its stated
interval says that fewer will come. Time is cut into cells a little shorter than window / 254, fixed
to the clock, and a sample is kept if it is the first usable one of its cell. So with one sample or
fewer in a cell (10 s at a window of 40 min) nothing is left out; of a faster point `s` is up to one
cell (0.4 % of the window) younger than it could be, and the line goes through the first sample of
each cell. The newest sample always takes part. What is kept depends on the clock and the samples
alone: any cut, order or restart keeps the same.

Sums run from the oldest to the newest sample, of differences to the newest: no cancellation, and
the same bits for the same window whatever else is judged beside it.

As parameters (NCMSA 26 of 2023: methane changed by more than 0.2 percentage points; the hour is
ours; a working pit slope moving 5 mm/h):

    method = "change", window_s = 3600, absolute = true, decimals = 3
    levels = { H = { limit = 0.2, operator = ">" } }

    method = "least_squares", window_s = 21600, per = "h", levels = { H = 5.0 }
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import (
    DECIMALS_MAX,
    NS_PER_S,
    KindEvaluator,
    Seconds,
    input_slots,
    place_of,
    point_only,
    remember,
    rounded,
    to_ns,
    what_is_new,
)
from alarm_rules.kinds._levels import (
    LevelSet,
    LevelsParameters,
    bound_columns,
    compare,
    level_count,
    loosens_levels,
    write_bounds,
)
from gateway.contract.rule_kind import (
    NEVER,
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Planning,
    PointTimes,
    Rows,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.point import Point
from gateway.model.rule import Rule

T = TypeVar("T", bound=np.generic)

KEPT_MAX = 256
"""Samples kept of a window: 4 kB a point. A slope's error falls with the root of their number, so
more buy little."""
_KEPT_MIN = 8
_SPARE = 2  # a window of n cells touches n + 1 of them, and the oldest is kept until it is outside
_CHUNK = 1 << 18  # numbers of a table of windows worked on at a time: stays in the cache
METHODS = ("least_squares", "two_point", "change")
_LEAST_SQUARES, _TWO_POINT, _CHANGE = range(3)
_PER_NS = {"s": NS_PER_S, "min": 60 * NS_PER_S, "h": 3600 * NS_PER_S, "d": 86_400 * NS_PER_S}


class RateParameters(LevelsParameters):
    """Levels of the rate, and how it is made."""

    window_s: Seconds = Field(gt=0)
    method: Literal["least_squares", "two_point", "change"] = "least_squares"
    per: Literal["s", "min", "h", "d"] = "s"  # of least_squares and two_point
    absolute: bool = False
    relative: bool = False  # of change
    coverage_min: float = Field(default=0.5, ge=0, le=1)  # share of the window between s and t
    samples_min: int = Field(default=3, ge=2, le=KEPT_MAX - _SPARE)
    decimals: int | None = Field(default=None, ge=0, le=DECIMALS_MAX)

    @model_validator(mode="after")
    def _fits_the_method(self) -> RateParameters:
        if self.method == "change" and "per" in self.model_fields_set:
            raise ValueError("change is not divided by a time: leave per out")
        if self.relative and self.method != "change":
            raise ValueError("relative is for the method change")
        if self.window_s * NS_PER_S < KEPT_MAX:
            raise ValueError("window_s is shorter than any clock can tell")
        return self

    @cached_property
    def settings(self) -> dict[tuple[int, float | None], _Setting]:
        """Those made so far."""
        return {}

    def setting(self, levels: LevelSet, interval_s: float | None) -> _Setting:
        """What the arrays need; one object for all points of a rule with one interval."""
        key = (id(levels), interval_s)
        found = self.settings.get(key)
        if found is None:
            window_ns, kept = to_ns(self.window_s), self._kept(interval_s)
            found = self.settings[key] = _Setting(
                bounds=levels.bounds,
                numbers={
                    "kept": kept,
                    "window_ns": window_ns,
                    "cell_ns": -(-window_ns // (kept - _SPARE)),
                    "method": METHODS.index(self.method),
                    "per_ns": _PER_NS[self.per],
                    "absolute": self.absolute,
                    "relative": self.relative,
                    "covered_ns": max(1, round(self.coverage_min * window_ns)),
                    "samples_min": self.samples_min,
                    "decimals": -1 if self.decimals is None else self.decimals,
                },
            )
        return found

    def _kept(self, interval_s: float | None) -> int:
        """Twice what the interval promises: a sample that comes early finds a cell of its own."""
        if not interval_s or interval_s <= 0:
            return KEPT_MAX
        expected = min(2 * self.window_s / interval_s, KEPT_MAX) + 2 * _SPARE
        return min(KEPT_MAX, max(int(expected), _KEPT_MIN, self.samples_min + _SPARE))


class _Setting(NamedTuple):
    bounds: tuple[tuple[float, float, float], ...]
    numbers: dict[str, int | bool]


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point, parameters = planning.points[index], planning.parameters
    shared = parameters.level_set(planning.rule)
    instance = InstancePlan(
        target=point.id,
        setting=parameters.setting(shared, point.interval_s),
        **shared.planned(),
        **{**place_of(planning, point), "unit": _unit(parameters, point)},
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


def _unit(parameters: RateParameters, point: Point) -> str:
    if parameters.method == "change":
        return "" if parameters.relative else point.unit
    return f"{point.unit}/{parameters.per}"


class RateEvaluator(KindEvaluator):
    """A ring of kept samples for every point, and a window for each new sample.

    Kept samples of a point are numbered from its first; number n stands at n modulo the point's own
    `kept`, whatever the width of the table.
    """

    latest_wins = True

    def __init__(self, width: int) -> None:
        settings = {
            "kept": (np.int64, _KEPT_MIN),
            "window_ns": (np.int64, 1),
            "cell_ns": (np.int64, 1),
            "method": (np.int64, _LEAST_SQUARES),
            "per_ns": (np.int64, NS_PER_S),
            "absolute": (np.bool_, False),
            "relative": (np.bool_, False),
            "covered_ns": (np.int64, 1),
            "samples_min": (np.int64, 2),
            "decimals": (np.int64, -1),
        }
        super().__init__(Columns(settings={**bound_columns(width), **settings}), _memory())

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        write_bounds(self.instances, rows, setting.bounds)
        for name, value in setting.numbers.items():
            self.instances[name][rows] = value
        if setting.numbers["kept"] > self.slots["kept_ns"].shape[1]:
            for name in _RINGS:
                self.slots.widen(name, int(setting.numbers["kept"]))

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        chosen = self._asked[rows.point]
        chosen &= rows.usable
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = what_is_new(feed.take(feed.usable), self.slots)
        if len(feed) == 0:
            return Verdict()
        table, instance = self.instances, self.layout.group_instance[feed.group]
        rings = self._rings(feed, instance)
        windows = _windows(feed, rings, table["window_ns"][instance])
        number, judged = self._numbers(windows, instance)
        rings.keep(self.slots)
        remember(feed, self.slots)
        sets, resets = compare(table, instance, number, judged)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=sets,
                reset=resets,
                value=number,
                quality=feed.quality,
            )
        )

    def _rings(self, feed: Feed, instance: NDArray[np.int64]) -> _Rings:
        """The rings of the points in the feed, and which of its rows will be kept in them."""
        table, slots = self.instances, self.slots
        head = seg.heads(feed.slot)
        first = np.flatnonzero(head)
        slot, room = feed.slot[first], table["kept"][instance[first]]
        _fit(slots, slot, room)
        total = slots["kept_total"][slot]
        newest_ns = np.where(total > 0, slots["kept_ns"][slot, (total - 1) % room], NEVER)
        # A better value of the very same time takes the place of the one that was kept.
        total -= newest_ns == feed.time_ns[first]
        newest_ns = np.where(total > 0, slots["kept_ns"][slot, (total - 1) % room], NEVER)
        before_ns = np.append(NEVER, feed.time_ns[:-1])
        before_ns[first] = newest_ns
        cell_ns = table["cell_ns"][instance]
        kept = feed.time_ns // cell_ns != before_ns // cell_ns
        return _Rings(
            slot=slot,
            room=room,
            total=total,
            ring_ns=slots["kept_ns"],
            ring_value=slots["kept_value"],
            owner=np.cumsum(head) - 1,
            kept=kept,
            begin=(np.cumsum(kept) - kept)[first],
            new_ns=feed.time_ns[kept],
            new_value=feed.value[kept],
        )

    def _numbers(
        self, windows: _Windows, instance: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The number of every window, and whether the window is full enough to have one."""
        table = self.instances
        span_ns, oldest = windows.oldest()
        judged = span_ns >= table["covered_ns"][instance]
        judged &= windows.end - windows.begin + 1 >= table["samples_min"][instance]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            change = windows.value - oldest
            share = change / np.abs(oldest)
            slope = change / (span_ns / table["per_ns"][instance])
            method = table["method"][instance]
            number = np.where(table["relative"][instance], share, change)
            number = np.where(method == _TWO_POINT, slope, number)
            lines = np.flatnonzero(judged & (method == _LEAST_SQUARES))
            number[lines] = windows.slopes(lines, table["per_ns"][instance[lines]])
            number = np.where(table["absolute"][instance], np.abs(number), number)
        number = rounded(number, table["decimals"][instance])
        return number, judged & np.isfinite(number)


_RINGS = ("kept_ns", "kept_value")


def _memory() -> Columns:
    """As wide as the longest ring there was: one that is written with another length is read by the
    length it was written with."""
    return input_slots(
        {
            "kept_ns": (np.int64, NEVER, 0),
            "kept_value": (np.float64, np.nan, 0),
            "kept_total": (np.int64, 0),  # numbers given so far
            "kept_room": (np.int64, 0),  # the ring's length when it was written
        },
        rings=_RINGS,
    )


def _fit(slots: Columns, slot: NDArray[np.int64], room: NDArray[np.int64]) -> None:
    """Move rings that were written with another length, since the rule or the interval was edited:
    the newest samples stay. A ring longer than the table was cut off by a version before this one,
    when it was loaded: it begins anew.
    """
    had = slots["kept_room"][slot]
    if (had == room).all():
        return
    odd = np.flatnonzero(had != room)
    slot, room, had = slot[odd], room[odd], had[odd]
    width = slots["kept_ns"].shape[1]
    total = np.where((had > width) | (had == 0), 0, slots["kept_total"][slot])
    slots["kept_total"][slot], slots["kept_room"][slot] = total, room
    number = total[:, None] - 1 - np.arange(width)
    row, column = np.nonzero((number >= 0) & (np.arange(width) < np.minimum(had, room)[:, None]))
    number = number[row, column]
    for name, blank in (("kept_ns", NEVER), ("kept_value", np.nan)):
        found = slots[name][slot[row], number % had[row]]
        slots[name][slot] = blank
        slots[name][slot[row], number % room[row]] = found


class _Rings(NamedTuple):
    """What is kept of the points of a call: their rings as they were, and what is new."""

    slot: NDArray[np.int64]
    room: NDArray[np.int64]
    total: NDArray[np.int64]  # numbers given before this call
    ring_ns: NDArray[np.int64]
    ring_value: NDArray[np.float64]
    owner: NDArray[np.int64]  # of each row of the feed: which of the points
    kept: NDArray[np.bool_]  # … and whether it gets a number
    begin: NDArray[np.int64]  # of each point: its first one among the new ones kept
    new_ns: NDArray[np.int64]
    new_value: NDArray[np.float64]

    def find(
        self, owner: NDArray[np.int64], number: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(place in the rings, place among the new ones or -1)."""
        later = number - self.total[owner]
        place = self.slot[owner] * self.ring_ns.shape[1] + number % self.room[owner]
        return place, np.where(later >= 0, self.begin[owner] + later, -1)

    def times(self, found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.int64]:
        return _picked(self.ring_ns, self.new_ns, found)

    def values(self, found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.float64]:
        return _picked(self.ring_value, self.new_value, found)

    def keep(self, slots: Columns) -> None:
        """Write the new ones into their places; of more than a ring holds, the newest."""
        owner = self.owner[self.kept]
        count = np.bincount(owner, minlength=len(self.slot))
        total = self.total + count
        slots["kept_total"][self.slot] = total
        number = self.total[owner] + np.arange(len(owner)) - self.begin[owner]
        last = number >= (total - self.room)[owner]
        owner, number = owner[last], number[last]
        place = (self.slot[owner], number % self.room[owner])
        slots["kept_ns"][place] = self.new_ns[last]
        slots["kept_value"][place] = self.new_value[last]


def _picked(
    ring: NDArray[T], new: NDArray[T], found: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[T]:
    place, at = found
    picked: NDArray[T] = ring.ravel()[place]
    is_new = at >= 0
    if is_new.any():
        picked = np.where(is_new, new[at], picked)
    return picked


def _windows(feed: Feed, rings: _Rings, window_ns: NDArray[np.int64]) -> _Windows:
    """By binary search, all windows at once: the first number whose sample is not too old."""
    owner, since_ns = rings.owner, feed.time_ns - window_ns
    end = rings.total[owner] + np.cumsum(rings.kept) - rings.kept - rings.begin[owner]
    low = np.maximum(rings.total - rings.room + 1, 0)[owner]  # no window holds a whole ring
    high = end.copy()
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        open_ = low < high
        found = rings.find(owner, np.where(open_, middle, low))
        old = open_ & (rings.times(found) < since_ns)
        low = np.where(old, middle + 1, low)
        high = np.where(open_ & ~old, middle, high)
    return _Windows(feed.time_ns, feed.value, rings, low, end)


class _Windows(NamedTuple):
    """One for each new sample: kept samples numbered `begin` to before `end`, then the sample."""

    time_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    rings: _Rings
    begin: NDArray[np.int64]
    end: NDArray[np.int64]

    def oldest(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(how long before the newest one, value) of each window's oldest sample."""
        alone = self.begin >= self.end
        found = self.rings.find(self.rings.owner, self.begin)
        span_ns = np.where(alone, 0, self.time_ns - self.rings.times(found))
        return span_ns, np.where(alone, self.value, self.rings.values(found))

    def slopes(self, rows: NDArray[np.int64], per_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Least squares of the chosen windows, a cache full of them at a time."""
        found = np.empty(len(rows))
        size = self.end[rows] - self.begin[rows] + 1
        step = max(1, _CHUNK // int(size.max(initial=1)))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            found[part] = self._slopes(rows[part], size[part], per_ns[part])
        return found

    def _slopes(
        self, rows: NDArray[np.int64], size: NDArray[np.int64], per_ns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """A column for each window, oldest sample first. Running sums, not `sum`: numpy adds those
        in an order that depends on the shape of the table."""
        place = np.arange(int(size.max()))[:, None]
        inside = place < size
        is_kept = place < size - 1
        number = np.where(is_kept, self.begin[rows] + place, self.begin[rows])
        owner = self.rings.owner[rows]
        found = self.rings.find(np.broadcast_to(owner, inside.shape), number)
        time_ns = self.rings.times(found) - self.time_ns[rows]
        time = np.where(is_kept, time_ns, 0) / per_ns  # 0: the newest itself, and what is not there
        time = np.where(inside, time - _total(time) / size, 0.0)
        value = np.where(is_kept, self.rings.values(found) - self.value[rows], 0.0)
        slope: NDArray[np.float64] = _total(time * value) / _total(time * time)
        return slope


def _total(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.add.accumulate(columns, axis=0)[-1]
    return total


def check(rule: Rule, _parameters: RateParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: RateParameters, new: RateParameters) -> Sequence[str]:
    """The levels', another number compared with them, or a window that takes longer to fill."""
    found = loosens_levels(old, new)
    found += [
        f"{name} makes another number than before"
        for name in ("window_s", "method", "per", "relative", "decimals")
        if getattr(old, name) != getattr(new, name)
    ]
    if old.absolute and not new.absolute:
        found.append("absolute is less strict: the other side is not watched")
    found += [
        f"{name} is less strict"
        for name in ("coverage_min", "samples_min")
        if getattr(new, name) > getattr(old, name)
    ]
    return found


KIND = RuleKind(
    name="rate",
    summary="how fast a value changes over a window: slope, two points or plain change",
    parameters=RateParameters,
    plan=plan,
    build=RateEvaluator,
    level_count=level_count,
    check=check,
    loosens=loosens,
)
