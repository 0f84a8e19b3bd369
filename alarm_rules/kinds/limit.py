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
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.kinds._common import KindEvaluator, place_of, point_only
from alarm_rules.kinds._levels import (
    LevelsParameters,
    bound_columns,
    compare,
    level_count,
    write_bounds,
)
from alarm_rules.kinds._levels import (
    loosens_levels as loosens,
)
from gateway.contract.rule_kind import (
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
from gateway.model.rule import Rule

_NO_BAND = (math.inf, -math.inf)


class LimitParameters(LevelsParameters):
    """Levels, and nothing else."""


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    shared = planning.parameters.level_set(planning.rule)
    instance = InstancePlan(
        target=point.id,
        setting=shared.bounds,
        **shared.planned(),
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


class LimitEvaluator(KindEvaluator):
    """Compares the samples themselves."""

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    **bound_columns(width),
                    "ends_at": (np.float64, np.nan, width),  # side * value at or below: reset
                    "low": (np.float64, -np.inf),  # of the band in which no level moves
                    "high": (np.float64, np.inf),
                }
            )
        )
        self._low = np.empty(0)
        self._high = np.empty(0)
        self._marked = np.empty(0, np.bool_)
        self._only_point: NDArray[np.int64] | None = None  # by instance, if no point has two

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        write_bounds(self.instances, rows, setting)
        ends_at = [math.nextafter(reset_below, -math.inf) for _, _, reset_below in setting]
        self.instances["ends_at"][rows, : len(setting)] = ends_at

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        layout, count = self.layout, self.layout.point_count
        self._only_point = None
        if seg.only_members(layout.point_start, layout.point_slots) is not None:
            point = seg.only_members(layout.group_start, layout.slot_point[layout.group_slots])
            if point is not None and point.min(initial=0) >= 0:
                self._only_point = point[layout.instance_group]
        self._low = np.full(count, -np.inf)
        self._high = np.full(count, np.inf)
        self._marked = np.zeros(count, np.bool_)

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        """Every row of each point that has one outside its band: what follows an alarm matters."""
        outside = rows.value >= rows.at(self._high)
        outside |= rows.value <= rows.at(self._low)
        if rows.span is not None:  # no point has another row
            return outside
        marked = rows.point[outside]
        if len(marked) == 0:
            return outside
        self._marked[marked] = True
        chosen = rows.at(self._marked)
        self._marked[marked] = False
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        instance = self.layout.group_instance[feed.group]
        sets, resets = compare(self.instances, instance, feed.value, feed.usable)
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

    def stands(
        self,
        instances: NDArray[np.int64],
        condition: NDArray[np.bool_],
        planned: NDArray[np.bool_] | None,
    ) -> None:
        """The band of a point is the narrowest of its instances."""
        if len(instances) == 0:
            return
        low, high = self._bands(instances, condition)
        if planned is not None:
            low[planned], high[planned] = _NO_BAND
        if self._only_point is not None:
            points = seg.rows_of(self._only_point, instances)
            self._low[points], self._high[points] = low, high
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
        self._low[points] = np.maximum.reduceat(table["low"][every], head)
        self._high[points] = np.minimum.reduceat(table["high"][every], head)

    def _bands(
        self, instances: NDArray[np.int64], condition: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(low, high): at or below low, at or above high, some level of the instance moves. A level
        that stands moves where it resets, another one where it is set."""
        side, set_at, ends_at = (
            seg.rows_of(self.instances[name], instances) for name in ("side", "set_at", "ends_at")
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
)
