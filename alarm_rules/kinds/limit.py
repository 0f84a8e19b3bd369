"""A value beyond a limit: levels H, HH, … above and L, LL, … below, most severe wins.

    value   ─────────────╮HH  limit 1.5 ╭────            set    value >= limit   (H sides)
            ────────╮H   limit 1.0      │                reset  not (value >= reset)
            ════════╧════ reset 1.0 ════╧═══             between: as it was

**As written**: `>=` fires at the limit, `>` beyond it; the same comparison against the reset value,
when no longer true, ends the level. So `>= 1.0` with reset 1.0 ends below 1.0, not at it. A strict
comparison is the inclusive one against the next float64: exact, no epsilon.

The fast path is a band for each point: strictly inside it no level moves. It follows the levels
that stand, so an alarm that goes on costs no more than none:

    no level stands   -inf ······························ H limit
    H stands                     just below H reset ···················· HH limit

As parameters:

    levels = { H = 1.0, HH = { limit = 1.5, reset = 1.0, priority = "critical" } }
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.kinds._common import KindEvaluator, place_of, point_only
from alarm_rules.kinds._levels import (
    LevelsParameters,
    bound_columns,
    compare,
)
from alarm_rules.kinds._levels import (
    loosens_levels as loosens,
)
from alarm_rules.kinds._plain import PlainLevels, plain_levels
from alarm_rules.owners import by_width
from alarm_rules.turns import bits_of
from gateway.contract.rule_kind import (
    NEVER,
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Planning,
    PointsPlanning,
    PointTimes,
    Rows,
    RuleKind,
    Runs,
    Signals,
    Verdict,
)
from gateway.model.rule import Rule

_NO_BAND = (math.inf, -math.inf)
_BANDS_MAX = 1 << 16
"""Bands kept ready: 1 MB."""
_SETTINGS_MAX = 1 << 14
_OTHERS_SHARE = 8
"""Of so many points one has a band of its own: then it is quicker to look at all of them."""
_BANDS_READ_MAX = 1 << 15
"""Rows whose bands are quicker to read, from a cache, than to do without them (measured: a third of
the time at 10,000 rows; at 100,000 a fifth more than with one number for all)."""
_OTHERS_SPARE = 64
"""So many more than twice the points with a band of their own are looked at, then they are looked
up anew."""


class LimitParameters(LevelsParameters):
    """Levels, and nothing else."""

    @cached_property
    def plans(self) -> dict[int, InstancePlan]:
        """What the points of rules with the same level set share; the set lives as long."""
        return {}


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    shared = planning.parameters.level_set(planning.rule)
    instance = InstancePlan(
        target=point.id,
        setting=shared.bounds,
        measures=True,
        **shared.planned(),
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


def plan_alike(planning: PointsPlanning) -> Sequence[InstancePlan]:
    """All points of the rule are judged alike."""
    if type(planning.parameters) is PlainLevels:
        return [planning.parameters.plan(planning.rule)] * len(planning.members)
    shared = planning.parameters.level_set(planning.rule)
    plans = planning.parameters.plans
    plan_ = plans.get(id(shared))
    if plan_ is None:
        plan_ = InstancePlan(target="", setting=shared.bounds, measures=True, **shared.planned())
        plans[id(shared)] = plan_
    return [plan_] * len(planning.members)


_Steps = tuple[list[float], list[tuple[int, int]]]
"""What values say, from one value on to the next: the values, and (levels set, levels reset) below
the first of them and from each on."""


def _steps_of(bounds: Sequence[tuple[float, float, float]]) -> _Steps:
    """One look for all levels, in place of two comparisons for each; a value above which something
    is said is the next one, from which it is."""
    starts = set[float]()
    for side, *at in bounds:
        starts.update(value if side > 0 else math.nextafter(-value, math.inf) for value in at)
    ascending = sorted(starts)
    return ascending, [_said_by(bounds, value) for value in (-math.inf, *ascending)]


def _said_by(bounds: Sequence[tuple[float, float, float]], value: float) -> tuple[int, int]:
    sets, resets, bit = 0, 0, 1
    for side, set_at, reset_below in bounds:
        number = value if side > 0 else -value
        if number >= set_at:
            sets |= bit
        elif number < reset_below:
            resets |= bit
        bit += bit
    return sets, resets


class LimitEvaluator(KindEvaluator):
    """Compares the samples themselves."""

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    **bound_columns(width),
                    "ends_at": (np.float64, np.nan, width),  # side * value at or below: reset
                    "setting": (np.int64, 0),  # same number, same levels
                    "low": (np.float64, -np.inf),  # of the band in which no level moves
                    "high": (np.float64, np.inf),
                },
                saved={"judged_ns": (np.int64, NEVER)},  # time of the last row not skipped
                by_column=True,
            )
        )
        self._low = np.empty(0)
        self._high = np.empty(0)
        self._marked = np.empty(0, np.bool_)
        self._common: tuple[float, float] | None = None  # the band while no level stands
        self._is_other = np.empty(0, np.bool_)  # by point: whether its band is not that one
        self._others = np.empty(0, np.int64)  # all such points, and some that were: …
        self._others_count = -1  # … the first so many here; fewer than none: not known
        self._settings: dict[Any, int] | None = {}  # of levels, to their number; None: too many
        self._band_of = np.empty((2, 0))  # low and high by setting and the levels that stand
        self._steps: list[_Steps] = []  # by setting
        self._known_bands: dict[tuple[int, int], tuple[float, float, bool]] = {}  # looked up
        self._one_set: list[tuple[float, float, float]] | None = None  # all are judged with it
        self._is_straight = False  # groups have the numbers of their instances
        self._only_point: NDArray[np.int64] | None = None  # by instance, if no point has two
        self._every_point: NDArray[np.int64] | slice = slice(0)  # the same, as a range if it is one

    def configure_instances(self, instances: Sequence[tuple[int, InstancePlan]]) -> None:
        """Rules with equally many levels at once: a site may state a rule for each point."""
        planned = [plan_.setting for _, plan_ in instances]
        of_all = np.array([row for row, _ in instances], np.int64)
        for width, same, members, owner in by_width(planned, map(len, planned)):
            rows = of_all[members]
            numbers = chain.from_iterable(chain.from_iterable(same))
            shape = len(same), width, 3
            bounds = np.fromiter(numbers, np.float64, math.prod(shape)).reshape(shape)
            for column, name in enumerate(("side", "set_at", "reset_below")):
                self.instances[name][rows, :width] = bounds[owner, :, column]
            ends_at = np.nextafter(bounds[:, :, 2], -np.inf)
            self.instances["ends_at"][rows, :width] = ends_at[owner]
            self._number(same, rows, owner)

    def _number(self, same: Sequence[Any], rows: seg.Index, owner: seg.Index) -> None:
        """Give each set of levels a number, while there are few."""
        known = self._settings
        if known is None or len(known) + len(same) > _SETTINGS_MAX:
            self._settings = None
            return
        numbers = [known.setdefault(setting, len(known)) for setting in same]
        self.instances["setting"][rows] = np.array(numbers)[owner]

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._work_out_bands()
        layout, count = self.layout, self.layout.point_count
        self._is_straight = seg.is_numbering(layout.group_instance)
        self._only_point = None
        if seg.only_members(layout.point_start, layout.point_slots) is not None:
            point = seg.only_members(layout.group_start, layout.slot_point[layout.group_slots])
            if point is not None and point.min(initial=0) >= 0:
                self._only_point = point[layout.instance_group]
                self._every_point = seg.as_slice(self._only_point)
        self._low = np.full(count, -np.inf)
        self._high = np.full(count, np.inf)
        self._marked = np.zeros(count, np.bool_)
        self._is_other = np.ones(count, np.bool_)
        self._known_bands = {}
        self._others_count = -1
        self._common = None
        if self._one_set is not None and self._band_of.size:
            self._common = self._band_of.item(0, 0, 0), self._band_of.item(1, 0, 0)

    def _work_out_bands(self) -> None:
        """Every combination of levels that may stand, of every setting: looking a band up is far
        cheaper than working it out. Where each point has limits of its own they would be too
        many, and are worked out as they are needed."""
        wide = self.instances["side"].shape[1]
        self._one_set = None
        self._steps = []
        if self._settings and len(self._settings) == 1:
            (bounds,) = self._settings
            unused = [(1.0, math.nan, math.nan)] * (wide - len(bounds))
            self._one_set = [*bounds, *unused]
        self._band_of = np.empty((2, 0))
        if not self._settings or len(self._settings) << wide > _BANDS_MAX:
            return
        self._steps = [_steps_of(bounds) for bounds in self._settings]
        number, row = np.unique(self.instances["setting"], return_index=True)
        stands = (np.arange(1 << wide)[:, None] >> np.arange(wide)) & 1 > 0
        bands = self._bands(np.repeat(row, 1 << wide), np.tile(stands, (len(row), 1)))
        self._band_of = np.zeros((2, len(self._settings), 1 << wide))
        self._band_of[:, number] = np.reshape(bands, (2, len(row), -1))

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        """Every row of each point that has one outside its band: what follows an alarm matters."""
        if rows.span is not None:  # no point has another row
            return self._outside_of_tick(rows, rows.span)
        outside = self._outside(rows)
        marked = rows.point[outside]
        if len(marked) == 0:
            return outside
        self._marked[marked] = True
        chosen = rows.at(self._marked)
        self._marked[marked] = False
        return chosen

    def _outside_of_tick(self, rows: Rows, span: slice) -> NDArray[np.bool_]:
        """Which samples are outside the band of their point, by one look at every value where most
        points are judged alike: the lower ends that are not the common one are few."""
        value, low, others = rows.value, self._low[span], None
        if self._common and rows.tick is not None and rows.tick.least > self._common[0]:
            others = self._others_of(span)
        if others is not None and len(others) * _OTHERS_SHARE <= len(value):
            if len(value) > _BANDS_READ_MAX:
                return self._outside_common(rows, others)
            outside: NDArray[np.bool_] = value >= self._high[span]
            below = (value.take(others) <= low.take(others)).nonzero()[0]
            if len(below):
                outside[others.take(below)] = True
            return outside
        outside = value >= self._high[span]
        outside |= value <= low
        return outside

    def _outside(self, rows: Rows) -> NDArray[np.bool_]:
        """The same of rows in any order, where to ask for the band of each is to gather it: one
        band for all, and a look at each point's own for the others."""
        if self._common is not None:
            at = rows.at(self._is_other).nonzero()[0]
            if len(at) * _OTHERS_SHARE <= len(rows):
                return self._outside_common(rows, at)
        outside = rows.value >= rows.at(self._high)
        outside |= rows.value <= rows.at(self._low)
        return outside

    def _outside_common(self, rows: Rows, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """By the common band, but for those `others`."""
        assert self._common is not None, "asked for by those who know it"
        low, high = self._common
        value = rows.value
        outside: NDArray[np.bool_] = value >= high
        if rows.tick is None or not rows.tick.least > low:
            outside |= value <= low
        if len(others):
            value, point = value.take(others), rows.point.take(others)
            outside[others] = (value >= self._high.take(point)) | (value <= self._low.take(point))
        return outside

    def _others_of(self, span: slice) -> NDArray[np.int64] | None:
        """Places in a range of points with a band of their own; one that had it may be among
        them. None: not looked up, they are many."""
        if span.stop - span.start != len(self._is_other):
            return self._is_other[span].nonzero()[0]
        if self._others_count < 0:
            if np.count_nonzero(self._is_other) * _OTHERS_SHARE > len(self._is_other):
                return None
            others = self._is_other.nonzero()[0]
            self._others_count = len(others)
            self._others = np.append(others, np.zeros(len(others) + _OTHERS_SPARE, np.int64))
        return self._others[: self._others_count]

    def bands(self, points: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._low.take(points), self._high.take(points)

    def common_band(
        self, points: NDArray[np.int64]
    ) -> tuple[float, float, NDArray[np.int64]] | None:
        if self._common is None:
            return None
        others = self._is_other.take(points).nonzero()[0]
        return None if len(others) * _OTHERS_SHARE > len(points) else (*self._common, others)

    def quiet(self, runs: Runs) -> NDArray[np.bool_]:
        low, high = self.bands(runs.point)
        return runs.is_plain & (runs.least > low) & (runs.most < high)

    def said(
        self, instances: NDArray[np.int64] | slice, value: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if self._one_set is None:
            return compare(self.instances, instances, value, None)
        shape = (len(value), len(self._one_set))
        sets, resets = np.empty(shape, np.bool_, order="F"), np.empty(shape, np.bool_, order="F")
        mirrored = None
        for level, (side, set_at, reset_below) in enumerate(self._one_set):
            number = value
            if side < 0:
                number = mirrored = -value if mirrored is None else mirrored
            np.greater_equal(number, set_at, out=sets[:, level])
            np.less(number, reset_below, out=resets[:, level])
        return sets, resets

    def note(self, instances: NDArray[np.int64] | slice, time_ns: NDArray[np.int64]) -> None:
        self.instances["judged_ns"][instances] = time_ns

    def judge(self, feed: Feed, times: PointTimes, _now_ns: int) -> Verdict:
        instance = feed.group
        if not self._is_straight:
            instance = self.layout.group_instance[feed.group]
        if self._one_set is not None and np.count_nonzero(feed.usable) == len(feed):
            sets, resets = self.said(instance, feed.value)
        else:
            sets, resets = compare(self.instances, instance, feed.value, feed.usable)
        self._hold_at_once(feed, instance, resets, times)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=sets,
                reset=resets,
                value=feed.value,
                quality=feed.quality,
            )
        )

    def _hold_at_once(
        self,
        feed: Feed,
        instance: NDArray[np.int64],
        resets: NDArray[np.bool_],
        times: PointTimes,
    ) -> None:
        """A row as old as the last usable one of its point, which the band let pass unseen in an
        earlier call, ends no level: that one may have set it, and set wins at equal times. A later
        row will."""
        judged_ns = self.instances["judged_ns"]
        if feed.is_later:
            judged_ns[seg.as_slice(instance)] = feed.time_ns
            return
        point = self.layout.slot_point[feed.slot]
        unseen = (times.usable_ns[point] == feed.time_ns) & (judged_ns[instance] < feed.time_ns)
        if not np.count_nonzero(unseen):
            judged_ns[instance] = feed.time_ns
            return
        resets[unseen] = False
        judged_ns[instance[~unseen]] = feed.time_ns[~unseen]

    def stands(
        self,
        instances: NDArray[np.int64],
        condition: NDArray[np.bool_],
        planned: NDArray[np.bool_] | None,
    ) -> None:
        """The band of a point is the narrowest of its instances."""
        if len(instances) == 0:
            return
        if self._band_of.size:
            key = bits_of(condition)
            if self._band_of.shape[1] > 1:
                key |= seg.rows_of(self.instances["setting"], instances) << condition.shape[1]
            low, high = (bands.reshape(-1).take(key) for bands in self._band_of)
        else:
            low, high = self._bands(instances, condition)
        if planned is not None:
            low[planned], high[planned] = _NO_BAND
        if self._only_point is not None:
            points: NDArray[np.int64] | slice = self._every_point
            if len(instances) < len(self._only_point):
                points = seg.as_slice(self._only_point.take(instances))
            self._set_bands(points, low, high)
            return
        layout, table = self.layout, self.instances
        table["low"][instances], table["high"][instances] = low, high
        _, slots = seg.gather_lists(
            layout.group_start, layout.group_slots, layout.instance_group[instances]
        )
        points = np.unique(layout.slot_point[slots])
        owner, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
        if len(owner) == 0:
            return
        every = layout.group_instance[layout.slot_group[slots]]
        head = np.flatnonzero(seg.heads(owner))
        low = np.maximum.reduceat(table["low"][every], head)
        self._set_bands(points, low, np.minimum.reduceat(table["high"][every], head))

    def _set_bands(
        self,
        points: NDArray[np.int64] | slice,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        self._low[points], self._high[points] = low, high
        if self._common is not None:
            is_other = low != self._common[0]
            is_other |= high != self._common[1]
            self._is_other[points] = is_other
            self._others_count = -1

    @property
    def judges_few(self) -> bool:
        """Whether a few can be asked one by one, in plain numbers."""
        return self._only_point is not None and self._band_of.size > 0

    def said_of_few(self, instances: list[int], values: list[float]) -> list[tuple[int, int]]:
        """As `said`, a bit for each level."""
        if len(self._steps) == 1:
            starts, said = self._steps[0]
            return [said[bisect_right(starts, value)] for value in values]
        found, setting = [], self.instances["setting"]
        for instance, value in zip(instances, values, strict=True):
            starts, said = self._steps[setting.item(instance)]
            found.append(said[bisect_right(starts, value)])
        return found

    def note_few(self, instances: list[int], times_ns: list[int]) -> None:
        judged_ns = self.instances["judged_ns"].data
        for instance, time_ns in zip(instances, times_ns, strict=True):
            judged_ns[instance] = time_ns

    def stands_of_few(self, stands: list[tuple[int, int]]) -> None:
        """As `stands`: (instance, bits of the levels that stand)."""
        setting, point = self.instances["setting"].data, self._only_point
        assert point is not None
        known, point_of = self._known_bands, point.data
        columns: Any = (self._low, self._high, self._is_other)
        low, high, is_other = (column.data for column in columns)
        for instance, mask in stands:
            band = known.get((setting[instance], mask))
            if band is None:
                band = self._know_band(setting[instance], mask)
            of = point_of[instance]
            low[of], high[of], is_other[of] = band
            if band[2] and self._others_count >= 0:
                self._note_other(of)

    def _know_band(self, setting: int, mask: int) -> tuple[float, float, bool]:
        low, high = self._band_of[:, setting, mask].tolist()
        found = self._known_bands[setting, mask] = low, high, (low, high) != self._common
        return found

    def _note_other(self, point: int) -> None:
        """One more; too many, and they are looked up anew when they are asked for."""
        count = self._others_count
        if count == len(self._others):
            self._others_count = -1
            return
        self._others[count] = point
        self._others_count = count + 1

    def _bands(
        self, instances: NDArray[np.int64], condition: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(low, high): at or below low, at or above high, some level of the instance moves. A level
        that stands moves where it resets, another one where it is set."""
        side, set_at, ends_at = (
            seg.picked(self.instances[name], instances) for name in ("side", "set_at", "ends_at")
        )
        low = np.full(len(instances), -np.inf)
        high = np.full(len(instances), np.inf)
        for level in range(side.shape[1]):
            stands, upper = condition[:, level], side[:, level] > 0
            moves_at = side[:, level] * np.where(stands, ends_at[:, level], set_at[:, level])
            above = stands != upper
            np.fmin(high, moves_at, out=high, where=above)
            np.fmax(low, moves_at, out=low, where=~above)
        return low, high


def level_count(parameters: LimitParameters | PlainLevels) -> int:
    return len(parameters if type(parameters) is PlainLevels else parameters.levels)


def check(rule: Rule, _parameters: LimitParameters) -> Sequence[str]:
    return point_only(rule)


KIND = RuleKind(
    name="limit",
    summary="value beyond a limit, levels H to HHHH and L to LLLL with reset values",
    parameters=LimitParameters,
    plan=plan,
    build=LimitEvaluator,
    level_count=level_count,
    check=check,
    loosens=loosens,
    plan_alike=plan_alike,
    quick=plain_levels,
)
