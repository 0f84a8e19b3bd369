"""A device inside a fence, or outside of one: circle, polygon, corridor.

    alarm_when = "inside"                       alarm_when = "outside"

    ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ reset beyond here           ═══════════════ edge: set beyond it
      hysteresis_m + accuracy_m                   hysteresis_m + accuracy_m
    ═══════════════ edge: set on and in it      ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ reset here and deeper
         fence                                       fence

**Sets** at the edge as it is drawn: a position on it is inside. Accuracy never delays an alarm; it
only widens the band in which the alarm stays. Draw the fence with the margin people need.
**Resets** beyond the band. In it everything stays as it was.

A position is a `lon` and a `lat` of one device, in degrees; equal times are applied together,
otherwise the last one holds. Bad values, exactly (0, 0) and what lies not on earth are no position:
they hold. The last known place of a receiver without a fix (uncertain) is judged, and says so.
Alarms carry no value: the place is in the two points.

As parameters; see `_fence` for what is refused, how exact it is, and which coordinates these are:

    shape = { circle = { lon = 116.39, lat = 39.91, radius_m = 500 } }
    shape = { polygon = [[116.0, 39.0], [116.2, 39.0], [116.1, 39.2]] }
    shape = { corridor = { line = [[116.0, 39.0], [116.2, 39.1]], width_m = 50 } }   # full width
    alarm_when = "outside"
    hysteresis_m = 20
    accuracy_m = 15                # of a position: JT/T 794-2019 asks for 15 m or better
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from alarm_rules.kinds._common import (
    KindEvaluator,
    Parameters,
    input_slots,
    one_level,
    slots_by_input,
    snapshots,
)
from alarm_rules.kinds._fence import Fence, Shape, to_grid
from alarm_rules.kinds._place import described, has_one_each, is_position
from gateway.contract.rule_kind import (
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Planning,
    PointTimes,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.rule import GroupBy, Rule

_LON, _LAT = 0, 1


class GeofenceParameters(Parameters):
    """The fence, on which side of it the alarm is, and how wide its edge."""

    shape: Shape
    alarm_when: Literal["inside", "outside"]
    hysteresis_m: float = Field(default=0.0, ge=0, le=10_000)
    accuracy_m: float = Field(default=0.0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _can_be_left(self) -> GeofenceParameters:
        fence, band_m = self.shape.fence, self.band_m
        if self.alarm_when == "outside":
            least_m = fence.half_width_m or _half_height_m(fence)
            if band_m > least_m:
                raise ValueError("hysteresis and accuracy leave no place inside where it ends")
        return self

    @property
    def band_m(self) -> float:
        return self.hysteresis_m + self.accuracy_m


def _half_height_m(fence: Fence) -> float:
    """Half the smaller side of the box: no place in the fence is deeper."""
    high = (fence.north - fence.south) * fence.m_per_lat
    return min(high, (fence.east - fence.west) * fence.m_per_lon) / 2


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each device that has a position."""
    if not has_one_each(planning, ("lon", "lat")):
        return None
    parameters = planning.parameters
    instance = InstancePlan(
        target=planning.key,
        setting=parameters,
        **one_level(planning.rule, parameters.alarm_when.upper()),
        **described(planning),
    )
    return GroupPlan(inputs=(planning.inputs["lon"], planning.inputs["lat"]), instances=(instance,))


class GeofenceEvaluator(KindEvaluator):
    """Positions against fences: one pass for each fence somebody has moved for."""

    latest_wins = True

    def __init__(self, _width: int) -> None:
        super().__init__(Columns(settings={"fence": (np.int64, -1)}), input_slots())
        self._fences: list[GeofenceParameters] = []
        self._slot_of = np.empty((0, 2), np.int64)

    def configure_rows(self, rows: Any, setting: GeofenceParameters) -> None:
        known = [number for number, other in enumerate(self._fences) if other is setting]
        if not known:
            known = [len(self._fences)]
            self._fences.append(setting)
        self.instances["fence"][rows] = known[0]

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._slot_of = slots_by_input(self.layout, 2)

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        found = snapshots(feed, self.slots, self._slot_of, self.layout)
        if found is None:
            return Verdict()
        lon, lat = found.value[:, _LON], found.value[:, _LAT]
        both = found.usable[:, _LON] & found.usable[:, _LAT]
        rows = np.flatnonzero(is_position(lon, lat, both))
        instance = self.layout.group_instance[found.group[rows]]
        east, north = to_grid(lon[rows]), to_grid(lat[rows])
        is_set, is_reset = np.zeros((2, len(rows)), np.bool_)
        number = self.instances["fence"][instance]
        for n in np.unique(number):
            at, wanted = np.flatnonzero(number == n), self._fences[n]
            fence = wanted.shape.fence
            if wanted.alarm_when == "inside":
                is_set[at] = fence.contains(east[at], north[at])
                is_reset[at] = ~fence.near(east[at], north[at], wanted.band_m)
            else:
                is_set[at] = ~fence.contains(east[at], north[at])
                is_reset[at] = fence.deep(east[at], north[at], wanted.band_m)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=found.time_ns[rows],
                set=is_set[:, None],
                reset=is_reset[:, None],
                value=np.full(len(rows), np.nan),
                quality=found.quality[rows].max(axis=1, initial=0),
            )
        )


def check(rule: Rule, _parameters: GeofenceParameters) -> Sequence[str]:
    """Grouping is by device whatever the rule says."""
    return () if rule.group_by in {GroupBy.POINT, GroupBy.DEVICE} else ("group_by device",)


def loosens(old: GeofenceParameters, new: GeofenceParameters) -> Sequence[str]:
    """Another shape may be smaller or larger: that is for a person to judge."""
    found = [
        f"{name} is another one" for name in ("shape", "alarm_when") if _differs(old, new, name)
    ]
    if new.band_m < old.band_m:
        found.append("hysteresis_m and accuracy_m are less strict")
    return found


def _differs(old: GeofenceParameters, new: GeofenceParameters, name: str) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


KIND = RuleKind(
    name="geofence",
    summary="a position inside or outside of a circle, polygon or corridor",
    parameters=GeofenceParameters,
    plan=plan,
    build=GeofenceEvaluator,
    level_count=lambda _parameters: 1,
    inputs=("lat", "lon"),
    group_by=lambda _rule, _parameters: str(GroupBy.DEVICE.value),
    check=check,
    loosens=loosens,
)
