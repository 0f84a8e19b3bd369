"""Silence: nothing heard of a point, a device or a whole adapter for longer than allowed.

    sample     |        |                                  |
               t0       t1                                 t2
    silent                       ┌─────────────────────────┐
                                 t1 + max_age              t2

Silence is found out by the clock or by the next sample, whichever comes first, and begins at the
same nanosecond either way. What was never heard counts from the moment the rule first judged.

`needs = "good"`: only a sample with a usable value counts as heard; `"any"`: any sample does.

A sample so old that its own silence has already run out does not end the alarm: a device whose
clock is an hour slow would otherwise come and go with every sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import NS_PER_S, Parameters, Seconds, place_of, same_settings, to_ns
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Layout,
    Planning,
    PointsPlanning,
    PointTimes,
    Rows,
    RuleKind,
    Runs,
    Signals,
    Tick,
    Verdict,
)
from gateway.model.condition import Level
from gateway.model.point import Point
from gateway.model.rule import Priority, Rule

_NO_AGE = np.iinfo(np.int64).max  # longer than since NEVER: not even a first sample is looked at


class OfflineParameters(Parameters):
    """How long silence is allowed: a span, or a multiple of the point's own interval."""

    scope: Literal["point", "device", "adapter"] = "point"
    max_age_s: Seconds | None = None  # with a factor: for points that state no interval
    interval_factor: float | None = Field(default=None, gt=0)
    floor_s: Seconds = 0.0  # never less than this, however short the interval
    needs: Literal["good", "any"] = "good"
    priority_of_hidden: Literal["inherit", "own"] = "inherit"

    @model_validator(mode="after")
    def _has_an_age(self) -> OfflineParameters:
        if self.max_age_s is None and self.interval_factor is None:
            raise ValueError("max_age_s or interval_factor must say how long silence is allowed")
        if self.max_age_s == 0:
            raise ValueError("max_age_s must be more than 0")
        return self

    def age_ns(self, points: Sequence[Point]) -> int | None:
        """The span for a group: its fastest point decides. None when nothing says one."""
        return self.age_of([p.interval_s for p in points if p.interval_s])

    def age_of(self, intervals: Sequence[float]) -> int | None:
        """The same, by the intervals that are stated."""
        if self.interval_factor is not None and intervals:
            return max(to_ns(self.interval_factor * min(intervals)), to_ns(self.floor_s), 1)
        if self.max_age_s is None:
            return None
        return max(to_ns(self.max_age_s), to_ns(self.floor_s))


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each point, device or adapter."""
    rule, parameters, key = planning.rule, planning.parameters, planning.key
    members = planning.inputs["value"]
    points = [planning.points[index] for index in members]
    if not key:
        return None  # a point without device or adapter: there is nobody to be silent
    age_ns = parameters.age_ns(points)
    if age_ns is None:
        planning.problem("no max_age_s, and no point here states its interval")
        return None
    priority = rule.priority
    if parameters.priority_of_hidden == "inherit":
        hidden = [p for index in members if (p := planning.urgent(index)) is not None]
        priority = min([priority, *hidden])
    instance = InstancePlan(
        target=key, **_planned(rule, parameters, age_ns, priority), **_described(planning, points)
    )
    return GroupPlan(inputs=(members,), instances=(instance,))


def plan_alike(planning: PointsPlanning) -> Sequence[InstancePlan | None]:
    """Points of one interval that hide the same are judged alike."""
    rule, parameters, points = planning.rule, planning.parameters, planning.points
    inherits = parameters.priority_of_hidden == "inherit"
    known: dict[tuple[float | None, Priority | None], InstancePlan | None] = {}
    found = []
    for index in planning.members:
        key = (points[index].interval_s, planning.urgent(index) if inherits else None)
        if key not in known:
            interval_s, hidden = key
            age_ns = parameters.age_of([interval_s] if interval_s else [])
            priority = rule.priority if hidden is None else min(rule.priority, hidden)
            known[key] = None
            if age_ns is not None:
                planned = _planned(rule, parameters, age_ns, priority)
                known[key] = InstancePlan(target="", unit="s", **planned)
        found.append(known[key])
    return found


def _planned(
    rule: Rule, parameters: OfflineParameters, age_ns: int, priority: Priority
) -> dict[str, Any]:
    """The plan fields that say when it fires."""
    age_s = age_ns / NS_PER_S
    return {
        "levels": (Level("OFFLINE", priority, age_s, rule.level),),
        "on_delay_ns": (to_ns(rule.on_delay_s),),
        "off_delay_ns": (to_ns(rule.off_delay_s),),
        "resets": (age_s,),
        "setting": (age_ns, parameters.needs == "good"),
    }


def _described(planning: Planning, points: Sequence[Point]) -> dict[str, Any]:
    if planning.parameters.scope == "point":
        return {**place_of(planning, points[0]), "unit": "s"}
    device = planning.points.device(planning.key)
    areas = {point.area for point in points}
    locations = {point.location for point in points}
    return {
        "unit": "s",
        "device": planning.key if planning.parameters.scope == "device" else "",
        "area": areas.pop() if len(areas) == 1 else "",
        "location": locations.pop() if len(locations) == 1 else "",
        "display_name": (device.name if device else "") or planning.key,
    }


class OfflineEvaluator:
    """Keeps no time of its own but the birth of each instance: the core knows who was heard."""

    latest_wins = False
    is_by_gateway = True

    def __init__(self, _width: int) -> None:
        self.due_ns = FOREVER
        self.behind_ns: NDArray[np.int64] | None = None
        self.instances = Columns(
            settings={"age_ns": (np.int64, FOREVER), "good": (np.bool_, True)},
            saved={
                "born_ns": (np.int64, NEVER),
                "silent": (np.bool_, False),
                "silent_from_ns": (np.int64, NEVER),
            },
        )
        self.slots = Columns()
        self._layout: Layout | None = None
        self._age_any = np.empty(0, np.int64)  # by point: the shortest span it is judged with
        self._age_good = np.empty(0, np.int64)
        self._marked = np.empty(0, np.bool_)  # by point
        self._least_age_ns = FOREVER  # the shortest of all instances, alive or not
        self._is_any = False  # some instance is content with any sample
        self._least_any = self._least_good = 0  # the shortest of all points; 0: not known
        self._unborn = False
        self._only_point: NDArray[np.int64] | None = None  # by instance, if none has two

    def configure(
        self,
        instances: Sequence[tuple[int, InstancePlan]],
        _groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        self._layout = layout
        for rows, (age_ns, good) in same_settings(instances):
            self.instances["age_ns"][rows], self.instances["good"][rows] = age_ns, good
        self._is_any = not self.instances["good"].all()
        self._least_age_ns = int(self.instances["age_ns"].min(initial=FOREVER))
        self._only_point = None
        only = seg.only_members(layout.group_start, layout.slot_point[layout.group_slots])
        if only is not None and only.min(initial=0) >= 0:
            self._only_point = only[layout.instance_group]
        self._marked = np.zeros(layout.point_count, np.bool_)
        self._shorten(np.arange(layout.point_count))
        self._unborn = True
        self.due_ns = NEVER  # the next call looks at everything once

    def _shorten(self, points: NDArray[np.int64]) -> None:
        """The shortest span of each given point; 0 while one of its instances is silent."""
        layout = self._layout
        assert layout is not None
        if len(self._age_any) != layout.point_count:
            self._age_any = np.full(layout.point_count, _NO_AGE)
            self._age_good = np.full(layout.point_count, _NO_AGE)
        owner, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
        if len(owner) == 0:
            return
        instance = layout.group_instance[layout.slot_group[slots]]
        age = np.where(self.instances["silent"][instance], 0, self.instances["age_ns"][instance])
        good = self.instances["good"][instance]
        head = np.flatnonzero(seg.heads(owner))
        points = points[owner[head]]
        self._age_any[points] = np.minimum.reduceat(np.where(good, _NO_AGE, age), head)
        self._age_good[points] = np.minimum.reduceat(np.where(good, age, _NO_AGE), head)
        self._least_any = self._least_good = 0

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        """Every row of each group that was silent or has a point with a gap: a group is never
        silent for longer than its own point. Never heard is a gap of more than any span."""
        layout = self._layout
        assert layout is not None
        if rows.tick is not None and self.passes(rows.tick):
            return self._marked[rows.span]  # none
        gap = rows.since_usable_ns >= rows.at(self._age_good)
        if self._is_any:
            gap |= rows.since_heard_ns >= rows.at(self._age_any)
        points = rows.point[gap]
        return self._of_their_groups(points, rows.point) if len(points) else gap

    def _of_their_groups(
        self, points: NDArray[np.int64], among: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of `among` are in a group of one of `points`."""
        layout = self._layout
        assert layout is not None
        _, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
        groups = np.unique(layout.slot_group[slots])
        _, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        members = layout.slot_point[slots]
        self._marked[members] = True
        found: NDArray[np.bool_] = self._marked[among]
        self._marked[members] = False
        return found

    def quiet(self, runs: Runs) -> NDArray[np.bool_]:
        """As `select`; a run that is not plain may be a gap, and the rows of the other points of
        its group say that the group was heard meanwhile."""
        gap = ~runs.is_plain
        gap |= runs.unusable_ns >= self._age_good[runs.point]
        gap |= runs.unheard_ns >= self._age_any[runs.point]
        return ~gap & ~self._of_their_groups(runs.point[gap], runs.point)

    def passes(self, tick: Tick) -> bool:
        """No point had been silent for as long as the shortest span of all."""
        if self._least_good == 0:
            self._least_any = int(self._age_any.min(initial=_NO_AGE))
            self._least_good = int(self._age_good.min(initial=_NO_AGE))
        return tick.unusable_ns < self._least_good and tick.unheard_ns < self._least_any

    def judge(self, feed: Feed, times: PointTimes, now_ns: int) -> Verdict:
        """Gaps between the samples of each group, from the last one before this call on."""
        layout, table = self._layout, self.instances
        assert layout is not None
        self._bear(times.now_ns)
        instance = layout.group_instance[feed.group]
        counts = feed.usable | ~table["good"][instance]
        counts &= ~(
            table["silent"][instance]
            & (feed.time_ns < table["silent_from_ns"][instance])
            & (feed.time_ns + table["age_ns"][instance] <= now_ns)
        )
        feed, instance = feed.take(counts), instance[counts]
        if len(feed) == 0:
            return Verdict()
        time_ns, age_ns = feed.time_ns, table["age_ns"][instance]
        head = seg.heads(feed.group)
        first = np.flatnonzero(head)
        carried = self._base(feed.group[first], instance[first], times)
        before = np.append(NEVER, time_ns[:-1])
        before[first] = NEVER
        before = np.maximum(before, np.repeat(carried, np.diff(np.append(first, len(head)))))
        silent = np.where(head, table["silent"][instance], np.zeros(1, np.bool_))
        begins = (time_ns - before >= age_ns) & ~silent
        last = np.append(first[1:], len(head)) - 1
        table["silent"][instance[first]] = False
        self.due_ns = min(self.due_ns, int((time_ns[last] + age_ns[last]).min()))
        return Verdict(
            _signals(
                (instance[begins], (before + age_ns)[begins]),
                (instance[begins | silent], time_ns[begins | silent]),
            )
        )

    def timers(self, now_ns: int, times: PointTimes) -> Signals | None:
        """Everybody whose last sample is too old by now."""
        layout, table = self._layout, self.instances
        assert layout is not None
        self._bear(times.now_ns)
        earliest_ns = times.usable_since_ns + self._least_age_ns
        if earliest_ns > now_ns:  # a polled site: nobody need be looked at
            self.due_ns = earliest_ns
            return None
        waiting = np.flatnonzero(~table["silent"] & layout.instance_live)
        base = self._base(layout.instance_group[waiting], waiting, times)
        deadline = base + table["age_ns"][waiting]
        fired = deadline <= now_ns
        self.due_ns = int(deadline[~fired].min(initial=FOREVER))
        rows, begin = waiting[fired], deadline[fired]
        table["silent"][rows] = True
        table["silent_from_ns"][rows] = begin
        return _signals((rows, begin), (rows[:0], begin[:0]))

    def _bear(self, now_ns: int) -> None:
        if self._unborn:
            layout, born = self._layout, self.instances["born_ns"]
            assert layout is not None
            born[(born == NEVER) & layout.instance_live] = now_ns
            self._unborn = False

    def _base(
        self, groups: NDArray[np.int64], instances: NDArray[np.int64], times: PointTimes
    ) -> NDArray[np.int64]:
        """When each group was last heard; its birth where it never was."""
        layout, table = self._layout, self.instances
        assert layout is not None
        if len(groups) == 0:
            return np.empty(0, np.int64)
        if self._only_point is not None:
            points = seg.as_slice(self._only_point.take(instances))
            heard = times.usable_ns[points]
            if self._is_any:
                good = table["good"].take(instances)
                heard = np.where(good, heard, times.heard_ns[points])
            return np.where(heard == NEVER, table["born_ns"].take(instances), heard)
        owner, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        points = layout.slot_point[slots]
        good = table["good"][instances][owner]
        heard = np.where(good, times.usable_ns[points], times.heard_ns[points])
        newest = np.maximum.reduceat(heard, np.flatnonzero(seg.heads(owner)))
        return np.where(newest == NEVER, table["born_ns"][instances], newest)

    def settled(self, instances: NDArray[np.int64], _busy: NDArray[np.bool_]) -> None:
        layout = self._layout
        if layout is None or len(instances) == 0:
            return
        if len(instances) == len(self.instances):  # after a refresh or a load: look at everything
            self._shorten(np.arange(layout.point_count))
            self.due_ns = NEVER
            return
        groups = layout.instance_group[instances]
        _, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        self._shorten(np.unique(layout.slot_point[slots]))


def _signals(
    begins: tuple[NDArray[np.int64], NDArray[np.int64]],
    ends: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Signals:
    """(instance, time) of silences found and of samples that end one, in order."""
    instance, time_ns = (np.concatenate(pair) for pair in zip(begins, ends, strict=True))
    size = len(instance)
    timed = np.arange(size) < len(begins[0])
    order = np.lexsort((~timed, time_ns, instance))
    timed = timed[order]
    return Signals(
        instance=instance[order],
        time_ns=time_ns[order],
        set=timed[:, None],
        reset=~timed[:, None],
        value=np.full(size, np.nan),
        quality=np.zeros(size, np.uint8),
        timed=timed,
    )


def _group_by(_rule: Rule, parameters: OfflineParameters) -> str:
    return parameters.scope


def loosens(old: OfflineParameters, new: OfflineParameters) -> Sequence[str]:
    """A longer silence allowed, or less asked of a sample."""
    found = [
        f"{name} is less strict"
        for name in ("max_age_s", "interval_factor")
        if (was := getattr(old, name)) is not None
        and ((now := getattr(new, name)) is None or now > was)
    ]
    if old.max_age_s is None and new.max_age_s is not None and new.interval_factor is None:
        found.append("max_age_s replaces a multiple of the interval")
    if new.floor_s > old.floor_s:
        found.append("floor_s is less strict")
    for name, strict in (("needs", "good"), ("priority_of_hidden", "inherit")):
        if getattr(new, name) != getattr(old, name) and getattr(new, name) != strict:
            found.append(f"{name} is less strict")
    if new.scope != old.scope:
        found.append("scope is another one")
    return found


KIND = RuleKind(
    name="offline",
    summary="nothing heard of a point, a device or an adapter for too long",
    parameters=OfflineParameters,
    plan=plan,
    build=OfflineEvaluator,
    level_count=lambda _parameters: 1,
    group_by=_group_by,
    hides=True,
    loosens=loosens,
    plan_alike=plan_alike,
)
