"""Heads counted by area: how many people are where, against how many may be.

    person A   area 3 ─────────── area 5 ───── out
    person B        area 3 ──────────────
    count(3)   1    2             1
    count(5)                      1            0
    mine       1    2                          1

An input is an `area` point of a person: the device_index of the area he is in, negative for none.
One instance for each area device that states a capacity (`scope = "area"`), or one for everybody
who is anywhere (`scope = "mine"`, against the mine device's). Over means *more than* capacity times
factor. Changes with one time are applied together: a shift that walks from one area into the next
is never counted in both.

Bad values hold: a lost card is still where it was last seen. No data is not *out*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from alarm_rules import segments as seg
from alarm_rules.kinds._common import Parameters, input_slots, remember, to_ns, what_is_new
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Layout,
    Planning,
    PointTimes,
    Rows,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.condition import Level
from gateway.model.point import Device
from gateway.model.rule import GroupBy, Rule

AREA_KIND, MINE_KIND = "area", "mine"
CAPACITY = "capacity"
"""Device attribute: how many people are approved for the area or the mine, as text."""
_EVERYWHERE = -2  # area code of an instance that counts everybody
_NOWHERE = -1
_AREA_SPAN = 1 << 31


class CountParameters(Parameters):
    """What is counted against what."""

    scope: Literal["area", "mine"] = "area"
    capacity: float | None = Field(default=None, ge=0)  # None: the device's attribute
    factor: float = Field(default=1.0, gt=0)
    areas: tuple[str, ...] = ()  # device ids; empty: every area


def plan(planning: Planning) -> GroupPlan | None:
    """All matching people are one group; its instances are the areas, or the mine."""
    parameters = planning.parameters
    kind = AREA_KIND if parameters.scope == "area" else MINE_KIND
    devices = [d for d in planning.points.devices if d.kind == kind]
    if parameters.areas:
        devices = [d for d in devices if d.id in parameters.areas]
    if parameters.scope == "mine":
        if len(devices) > 1:
            planning.problem("several mines: one rule for each, told apart by its selector")
            return None
        devices = devices or [Device(id="site", kind=MINE_KIND)]
    silent = [device.id for device in devices if _capacity(parameters, device) is None]
    if silent:
        planning.problem(f"no capacity known for {', '.join(silent[:5])}, {len(silent)} in all")
    instances = [
        _instance(planning, device, capacity)
        for device in devices
        if (capacity := _capacity(parameters, device)) is not None
    ]
    return GroupPlan(inputs=(planning.inputs["value"],), instances=tuple(instances))


def _capacity(parameters: CountParameters, device: Device) -> float | None:
    if parameters.capacity is not None:
        return parameters.capacity
    try:
        found = float(device.attributes.get(CAPACITY, ""))
    except ValueError:
        return None
    return found if 0 <= found < np.inf else None


def _instance(planning: Planning, device: Device, capacity: float) -> InstancePlan:
    rule, parameters = planning.rule, planning.parameters
    limit = capacity * parameters.factor
    is_area = parameters.scope == "area"
    return InstancePlan(
        target=device.id,
        levels=(Level("OVER", rule.priority, limit, rule.level),),
        on_delay_ns=(to_ns(rule.on_delay_s),),
        off_delay_ns=(to_ns(rule.off_delay_s),),
        resets=(limit,),
        unit="人",
        device=device.id,
        area=device.id if is_area else "",
        display_name=device.name or device.id,
        setting=(planning.points.device_index(device.id) if is_area else _EVERYWHERE, limit),
    )


class CountEvaluator:
    """Where everybody is, and the sum for each area."""

    latest_wins = True
    is_by_gateway = True

    def __init__(self, _width: int) -> None:
        self.due_ns = FOREVER
        self.behind_ns: NDArray[np.int64] | None = None
        self.instances = Columns(
            settings={
                "area": (np.int64, _NOWHERE),
                "limit": (np.float64, np.inf),
            },
            saved={"count": (np.int64, 0), "over": (np.bool_, False)},
        )
        self.slots = input_slots()
        self._layout: Layout | None = None
        self._asked = np.empty(0, np.bool_)
        self._keys = np.empty(0, np.int64)  # (group, area) of the live instances, ascending
        self._rows = np.empty(0, np.int64)

    def configure(
        self,
        instances: Sequence[tuple[int, InstancePlan]],
        _groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        self._layout = layout
        table = self.instances
        for row, plan_ in instances:
            table["area"][row], table["limit"][row] = plan_.setting
        live = np.flatnonzero(layout.instance_live)
        keys = _key(layout.instance_group[live], table["area"][live])
        order = np.argsort(keys)
        self._keys, self._rows = keys[order], live[order]
        self._asked = np.zeros(layout.point_count, np.bool_)
        self._asked[layout.slot_point[layout.slot_live]] = True

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        chosen = self._asked[rows.point]
        chosen &= rows.usable
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = what_is_new(feed, self.slots)
        if len(feed) == 0:
            return Verdict()
        group, time_ns, before, after = self._moves(feed)
        remember(feed, self.slots)
        was_in, is_in = before >= 0, after >= 0
        moved = before != after
        parts = [
            (moved & was_in, before, -1),
            (moved & is_in, after, 1),
            (was_in & ~is_in, np.full_like(before, _EVERYWHERE), -1),
            (is_in & ~was_in, np.full_like(before, _EVERYWHERE), 1),
        ]
        rows = np.concatenate([np.flatnonzero(mask) for mask, _, _ in parts])
        areas = np.concatenate([area[mask] for mask, area, _ in parts])
        step = np.concatenate([np.full(np.count_nonzero(mask), by) for mask, _, by in parts])
        instance, found = self._find(group[rows], areas)
        return Verdict(self._sums(instance[found], time_ns[rows[found]], step[found]))

    def _moves(self, feed: Feed) -> tuple[NDArray[np.int64], ...]:
        """(group, time, area before, area after) of every sample, by person and time."""
        order = seg.group_sort(feed.slot, feed.time_ns, len(self.slots))
        slot, after = feed.slot[order], _area_of(feed.value[order])
        before = np.append(np.int64(_NOWHERE), after[:-1])
        first = seg.heads(slot)
        before[first] = _area_of(self.slots["value"][slot[first]])
        return feed.group[order], feed.time_ns[order], before, after

    def _find(
        self, group: NDArray[np.int64], area: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if len(self._keys) == 0:
            return np.zeros(len(group), np.int64), np.zeros(len(group), np.bool_)
        keys = _key(group, area)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._rows[at], self._keys[at] == keys

    def _sums(
        self, instance: NDArray[np.int64], time_ns: NDArray[np.int64], step: NDArray[np.int64]
    ) -> Signals | None:
        if len(instance) == 0:
            return None
        table = self.instances
        order = np.lexsort((time_ns, instance))
        instance, time_ns, step = instance[order], time_ns[order], step[order]
        running = np.cumsum(step)
        first = seg.heads(instance)
        base = np.where(first, running - step, 0)[seg.starts_of(first)]
        count = running - base + table["count"][instance]
        last = np.append(seg.heads(instance, time_ns)[1:], True)
        instance, time_ns, count = instance[last], time_ns[last], count[last]
        table["count"][instance] = count
        table["over"][instance] = count > table["limit"][instance]
        return self._told(instance, time_ns, count, timed=False)

    def _told(
        self,
        instance: NDArray[np.int64],
        time_ns: NDArray[np.int64],
        count: NDArray[np.int64],
        *,
        timed: bool,
    ) -> Signals:
        over = count > self.instances["limit"][instance]
        return Signals(
            instance=instance,
            time_ns=time_ns,
            set=over[:, None],
            reset=~over[:, None],
            value=count.astype(np.float64),
            quality=np.zeros(len(count), np.uint8),
            timed=np.full(len(count), timed),
        )

    def timers(self, now_ns: int, _times: PointTimes) -> Signals | None:
        """Areas that are new, or whose limit is: people may be in them already."""
        table, layout = self.instances, self._layout
        assert layout is not None
        self.due_ns = FOREVER
        rows = np.flatnonzero(self._misjudged())
        table["over"][rows] = ~table["over"][rows]
        return self._told(rows, np.full(len(rows), now_ns), table["count"][rows], timed=True)

    def _misjudged(self) -> NDArray[np.bool_]:
        table, layout = self.instances, self._layout
        assert layout is not None
        over = table["count"] > table["limit"]
        wrong: NDArray[np.bool_] = (over != table["over"]) & layout.instance_live
        return wrong

    def settled(self, instances: NDArray[np.int64], _busy: NDArray[np.bool_]) -> None:
        """After a refresh or a load: count everybody anew, from where each was last seen."""
        layout, table = self._layout, self.instances
        if layout is None or len(table) == 0 or len(instances) < len(table):
            return
        slots = np.flatnonzero(layout.slot_live)
        area = _area_of(self.slots["value"][slots])
        slots, area = slots[area >= 0], area[area >= 0]
        group = layout.slot_group[slots]
        found, is_known = self._find(
            np.append(group, group), np.append(area, np.full_like(area, _EVERYWHERE))
        )
        table["count"][:] = np.bincount(found[is_known], minlength=len(table))
        if self._misjudged().any():
            self.due_ns = NEVER


def _area_of(value: NDArray[np.float64]) -> NDArray[np.int64]:
    """The area's device_index; -1 for none, for never heard, and for what no area can be."""
    valid = (value >= 0) & (value < _AREA_SPAN)
    return np.where(valid, value, _NOWHERE).astype(np.int64)


def _key(group: NDArray[np.int64], area: NDArray[np.int64]) -> NDArray[np.int64]:
    return group * (_AREA_SPAN * 2) + area - _EVERYWHERE


def check(_rule: Rule, parameters: CountParameters) -> Sequence[str]:
    if parameters.scope == "mine" and parameters.areas:
        return ("areas are chosen for scope area only",)
    return ()


def loosens(old: CountParameters, new: CountParameters) -> Sequence[str]:
    """More people allowed, or fewer places watched. A capacity instead of the approved one cannot
    be compared, so it counts as more."""
    found = []
    if new.capacity != old.capacity and (
        new.capacity is None or old.capacity is None or new.capacity > old.capacity
    ):
        found.append("capacity may be less strict than the approved one")
    if new.factor > old.factor:
        found.append("factor is less strict")
    if new.scope != old.scope:
        found.append("scope is another one")
    if new.areas and not set(new.areas) >= set(old.areas or ("every",)):
        found.append("areas are left out")
    return found


KIND = RuleKind(
    name="count",
    summary="heads in an area or a mine, more than its capacity",
    parameters=CountParameters,
    plan=plan,
    build=CountEvaluator,
    level_count=lambda _parameters: 1,
    group_by=lambda _rule, _parameters: str(GroupBy.SITE.value),
    per_device=(AREA_KIND, MINE_KIND),
    check=check,
    loosens=loosens,
)
