"""What rule kinds share: parameter models, single levels, evaluator set-up, inputs side by side.

    KindEvaluator    layout, which points are asked for, settings written once for each rule
    ├── select: every row of an asked point (subclass says less where it can)
    ├── timers, settled: nothing, unless a subclass has a use for them
    └── BusyPoints   the fast path of kinds that judge every row by itself

    one_level()      the plan fields of a kind with a single level
    Snapshot         inputs of a group applied together at equal times, otherwise the last holds

Levels H, HH, L, LL with limits are in `_levels`. Not a kind itself: the underscore keeps it out of
the registry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from alarm_rules import segments as seg
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
    Signals,
)
from gateway.model.condition import Level
from gateway.model.point import Point
from gateway.model.rule import Priority, Rule

NS_PER_S = 1_000_000_000
DECIMALS_MAX = 9
_SCALES = np.array([float(10**digits) for digits in range(DECIMALS_MAX + 1)])


class Parameters(BaseModel):
    """Base of every kind's parameters: unknown keys refused, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _priority(value: Any) -> Any:
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    return value


PriorityName = Annotated[Priority, BeforeValidator(_priority)]
"""A priority by its name (`critical`, `high`, …) or its number."""

Seconds = Annotated[float, Field(ge=0, le=366 * 86_400)]
"""A span: nothing longer than a year is a delay."""


def to_ns(seconds: float) -> int:
    """Nanoseconds, exact for every span written with up to nine decimals."""
    return round(seconds * NS_PER_S)


def is_stricter(what: str, before: Any, after: Any) -> bool:
    """Of two stated `on_delay_s`, `off_delay_s` or `priority`: the same, sooner on, later off, more
    urgent. An unstated one (None) is the rule's, which is not known here: never stricter, but for
    no delay at all."""
    if before == after:
        return True
    if after is None or before is None:
        return what == "on_delay_s" and after == 0
    return bool(after > before if what == "off_delay_s" else after < before)


def one_level(rule: Rule, name: str, limit: float | None = None) -> dict[str, Any]:
    """The plan fields of an instance with one level, all of it as the rule says."""
    return {
        "levels": (Level(name, rule.priority, limit, rule.level),),
        "on_delay_ns": (to_ns(rule.on_delay_s),),
        "off_delay_ns": (to_ns(rule.off_delay_s),),
        "resets": (np.nan if limit is None else limit,),
    }


def point_only(rule: Rule) -> Sequence[str]:
    """The fault of a rule whose kind judges each point by itself, if it groups otherwise."""
    if rule.group_by == "point":
        return ()
    return (f"a rule of kind {rule.kind} is judged for each point by itself: group_by point",)


def place_of(planning: Planning, point: Point) -> dict[str, Any]:
    """The descriptive fields of an instance that is about one point."""
    device = planning.points.device(point.device) if point.device else None
    name = point.name or (device.name if device else "") or point.id
    return {
        "point_id": point.id,
        "unit": point.unit,
        "device": point.device,
        "area": point.area,
        "location": point.location,
        "display_name": name,
    }


def same_settings(
    instances: Sequence[tuple[int, InstancePlan]],
) -> list[tuple[NDArray[np.int64], Any]]:
    """Rows by setting: the points of a rule share one object, so a rule is written at once."""
    rows: dict[int, list[int]] = defaultdict(list)
    settings: dict[int, Any] = {}
    for row, plan in instances:
        setting = plan.setting
        rows[id(setting)].append(row)
        settings[id(setting)] = setting
    return [(np.array(rows[key], dtype=np.int64), settings[key]) for key in rows]


class KindEvaluator:
    """What most evaluators do alike. A subclass hands over its tables, writes its settings in
    `configure_rows` and judges.

    `judge` of a subclass may rely on `self.layout`.
    """

    latest_wins = False
    is_by_gateway = False

    def __init__(self, instances: Columns, slots: Columns | None = None) -> None:
        self.due_ns = FOREVER
        self.behind_ns: NDArray[np.int64] | None = None
        self.instances = instances
        self.slots = Columns() if slots is None else slots
        self._layout: Layout | None = None
        self._asked = np.empty(0, np.bool_)  # by point: an input of some live group

    @property
    def layout(self) -> Layout:
        assert self._layout is not None, "judged before it was configured"
        return self._layout

    def configure(
        self,
        instances: Sequence[tuple[int, InstancePlan]],
        groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        self._layout = layout
        self._asked = np.zeros(layout.point_count, np.bool_)
        self._asked[layout.slot_point[layout.slot_live]] = True
        self.configure_instances(instances)
        self.configured(groups)

    def configure_instances(self, instances: Sequence[tuple[int, InstancePlan]]) -> None:
        """Write every setting into the instances that have it."""
        for rows, setting in same_settings(instances):
            self.configure_rows(rows, setting)

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        """Write one `InstancePlan.setting` into every instance that has it."""

    def configured(self, groups: Sequence[tuple[int, GroupPlan]]) -> None:
        """All instances are written: whatever else follows from the layout."""

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        return rows.at(self._asked)

    def timers(self, _now_ns: int, _times: PointTimes) -> Signals | None:
        return None

    def clock(self, now_ns: int, instances: NDArray[np.int64] | slice) -> NDArray[np.int64] | int:
        """Up to when each of these instances is known."""
        if self.behind_ns is None:
            return now_ns
        return now_ns - self.behind_ns[self.layout.instance_group[instances]]

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        """Nothing follows from an alarm, unless a subclass says so."""


class BusyPoints:
    """Which points have an instance in condition or on its way: there every row matters.

        rows that may set something ──┐
        points with a busy instance ──┴─▶ every row of those points

    The fast path of a kind that judges every row by itself, whatever came before it. The counts
    follow from what the core tells in `settled`; they are no state.
    """

    def __init__(self) -> None:
        self._is_busy = np.empty(0, np.bool_)  # by instance
        self._count = np.empty(0, np.int64)  # by point: its busy instances
        self._marked = np.empty(0, np.bool_)  # by point: scratch

    def configure(self, layout: Layout) -> None:
        known = self._is_busy
        self._is_busy = np.zeros(len(layout.instance_group), np.bool_)
        self._count = np.zeros(layout.point_count, np.int64)
        self._marked = np.zeros(layout.point_count, np.bool_)
        rows = np.flatnonzero(known)
        self.settled(layout, rows, np.ones(len(rows), np.bool_))

    def settled(
        self, layout: Layout, instances: NDArray[np.int64], busy: NDArray[np.bool_]
    ) -> None:
        step = busy.astype(np.int64) - self._is_busy[instances]
        moved = np.flatnonzero(step)
        if len(moved) == 0:
            return
        self._is_busy[instances[moved]] = busy[moved]
        groups = layout.instance_group[instances[moved]]
        owner, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        np.add.at(self._count, layout.slot_point[slots], step[moved][owner])

    def choose(self, rows: Rows, may_set: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Every row of each point that is busy or has a row that may set something: what follows
        an alarm in the same call matters too."""
        chosen: NDArray[np.bool_] = rows.at(self._count) > 0
        points = rows.point[may_set]
        if len(points):
            self._marked[points] = True
            chosen |= rows.at(self._marked)
            self._marked[points] = False
        return chosen


def rounded(value: NDArray[np.float64], decimals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each value to its own number of decimals, half to even; -1 leaves it as it is.

    What is compared with a limit as written should be what the gauges read: 0.8 - 0.6 is 0.2, not
    0.20000000000000007, and no change of *more than* 0.2.
    """
    scale = _SCALES[np.maximum(decimals, 0)]
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = np.rint(value * scale) / scale
    return np.where((decimals >= 0) & np.isfinite(shifted), shifted, value)


def input_slots(
    more: Mapping[str, tuple[Any, ...]] | None = None, *, rings: Sequence[str] = ()
) -> Columns:
    """The slot table of a kind that remembers the last value of each of its inputs, and `more`."""
    return Columns(
        saved={
            "value": (np.float64, np.nan),
            "quality": (np.uint8, 0),
            "usable": (np.bool_, False),
            "time_ns": (np.int64, NEVER),
            **(more or {}),
        },
        rings=rings,
    )


def what_is_new(feed: Feed, slots: Columns) -> Feed:
    """The rows that change what is known of an input; at most one for each (slot, time).

    Of several values of one input at one time the usable one counts, then the largest, then the one
    of better quality: an arbitrary order, but one that repeats and permutations cannot change.
    """
    value = np.where(feed.usable, feed.value, np.nan)
    order = np.lexsort((~feed.quality, value, feed.usable, feed.time_ns, feed.slot))
    slot, time_ns = feed.slot[order], feed.time_ns[order]
    last = np.append(seg.heads(slot, time_ns)[1:], True)
    rows = order[last]
    slot, known_ns = feed.slot[rows], slots["time_ns"][feed.slot[rows]]
    usable, was_usable = feed.usable[rows], slots["usable"][slot]
    new, old = value[rows], slots["value"][slot]
    better = usable & ~was_usable
    better |= (usable & was_usable) & (new > old)
    same = (usable == was_usable) & ((new == old) | ~usable)
    better |= same & (feed.quality[rows] < slots["quality"][slot])
    fresh = (feed.time_ns[rows] > known_ns) | ((feed.time_ns[rows] == known_ns) & better)
    return feed.take(np.sort(rows[fresh]))


def remember(feed: Feed, slots: Columns) -> None:
    """Keep the newest row of each slot; `feed` is ordered by time within a slot."""
    slots["value"][feed.slot] = np.where(feed.usable, feed.value, np.nan)
    slots["quality"][feed.slot] = feed.quality
    slots["usable"][feed.slot] = feed.usable
    slots["time_ns"][feed.slot] = feed.time_ns


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The inputs of a group side by side: one row for each (group, time) with something new, one
    column for each input; what was not new then is the last that was known."""

    group: NDArray[np.int64]
    time_ns: NDArray[np.int64]  # never before what the group's other inputs have said
    value: NDArray[np.float64]
    usable: NDArray[np.bool_]  # false for an input never heard
    quality: NDArray[np.uint8]
    since_ns: NDArray[np.int64]  # the input's own time, for its age

    def __len__(self) -> int:
        return len(self.group)


def slots_by_input(layout: Layout, width: int) -> NDArray[np.int64]:
    """(group, input) -> slot, -1 for none; of kinds whose inputs have one point each."""
    live = np.flatnonzero(layout.slot_live)
    found = np.full((len(layout.group_instance), width), -1, np.int64)
    found[layout.slot_group[live], layout.slot_input[live]] = live
    return found


def snapshots(
    feed: Feed, slots: Columns, slot_of: NDArray[np.int64], layout: Layout
) -> Snapshots | None:
    """What every group knew after each time something new came; remembers it in `slots` (made by
    `input_slots`). None when nothing is new. `slot_of`: from `slots_by_input`."""
    feed = what_is_new(feed, slots)
    if len(feed) == 0:
        return None
    known_ns = np.where(slot_of >= 0, slots["time_ns"][slot_of], NEVER).max(axis=1)
    time_ns = np.maximum(feed.time_ns, known_ns[feed.group])
    first = seg.heads(feed.group, time_ns)
    head = np.flatnonzero(first)
    group = feed.group[head]
    row = np.full((len(head), slot_of.shape[1]), -1, np.int64)
    row[np.cumsum(first) - 1, layout.slot_input[feed.slot]] = np.arange(len(feed))
    start = seg.starts_of(seg.heads(group))
    newest = seg.forward_fill(row, row >= 0, start, np.full_like(row, -1))
    slot, is_new, at = slot_of[group], newest >= 0, np.maximum(newest, 0)
    exists = slot >= 0
    found = Snapshots(
        group=group,
        time_ns=time_ns[head],
        value=np.where(is_new, feed.value[at], slots["value"][slot]),
        usable=np.where(is_new, feed.usable[at], slots["usable"][slot]) & exists,
        quality=np.where(is_new, feed.quality[at], slots["quality"][slot]),
        since_ns=np.where(is_new, feed.time_ns[at], slots["time_ns"][slot]),
    )
    remember(feed, slots)
    return found
