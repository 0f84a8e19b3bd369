"""A value beyond a limit: levels H, HH, … above and L, LL, … below, most severe wins.

    value   ─────────────╮HH  limit 1.5 ╭────            set    value >= limit   (H sides)
            ────────╮H   limit 1.0      │                reset  not (value >= reset)
            ════════╧════ reset 1.0 ════╧═══             between: as it was

**As written**: `>=` fires at the limit, `>` beyond it; the same comparison against the reset value,
when no longer true, ends the level. So `>= 1.0` with reset 1.0 ends below 1.0, not at it. A strict
comparison is the inclusive one against the next float64: exact, no epsilon.

The fast path is a band for each point: strictly inside it no level of an idle instance can move.

As parameters:

    levels = { H = 1.0, HH = { limit = 1.5, reset = 1.0, priority = "critical" } }
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, field_validator, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import (
    Parameters,
    PriorityName,
    Seconds,
    place_of,
    same_settings,
    to_ns,
)
from gateway.contract.rule_kind import (
    FOREVER,
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
from gateway.model.rule import Rule

_NAME = re.compile(r"H{1,4}|L{1,4}")
_NO_BAND = (math.inf, -math.inf)


class LimitLevel(Parameters):
    """One level. `reset` is the limit itself unless given; delays are the rule's unless given."""

    limit: float
    reset: float | None = None
    operator: Literal[">=", ">", "<=", "<"] | None = None  # by its side: >= for H, <= for L
    priority: PriorityName | None = None
    level: str = ""  # in the words of the rule's scheme
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None


class _Compiled(NamedTuple):
    """What every point of a rule shares, made once."""

    levels: tuple[Level, ...]
    on_delay_ns: tuple[int, ...]
    off_delay_ns: tuple[int, ...]
    resets: tuple[float, ...]
    setting: tuple[tuple[float, float, float], ...]  # side, set at, reset below


class LimitParameters(Parameters):
    """Levels by name: H, HH, HHH, HHHH above, L, LL, LLL, LLLL below; more letters, more severe."""

    levels: dict[str, LimitLevel] = Field(min_length=1)
    _compiled: dict[tuple[Any, ...], _Compiled] = PrivateAttr(default_factory=dict)

    @field_validator("levels", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: {"limit": item} if isinstance(item, int | float) else item
            for name, item in value.items()
        }

    @model_validator(mode="after")
    def _consistent(self) -> LimitParameters:
        for name, level in self.levels.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"levels are named H to HHHH and L to LLLL, not {name!r}")
            side = 1 if name[0] == "H" else -1
            if level.operator and (level.operator[0] == ">") != (side > 0):
                raise ValueError(f"{name}: {level.operator!r} is the other side's comparison")
            if level.reset is not None and side * level.reset > side * level.limit:
                raise ValueError(f"{name}: the reset value lies beyond the limit")
        self._ordered("H", 1)
        self._ordered("L", -1)
        return self

    def _ordered(self, letter: str, side: int) -> None:
        names = sorted((n for n in self.levels if n[0] == letter), key=len)
        limits = [side * self.levels[name].limit for name in names]
        if limits != sorted(limits):
            raise ValueError(f"{' < '.join(names)}: a more severe level lies before a milder one")

    @property
    def ordered(self) -> list[tuple[str, LimitLevel]]:
        """By severity: L, H, LL, HH, …"""
        return sorted(self.levels.items(), key=lambda item: (len(item[0]), item[0][0] == "H"))


def bound(value: float, operator: str) -> float:
    """`value` such that >= (or <=) against it is the comparison written."""
    if operator == ">":
        return math.nextafter(value, math.inf)
    if operator == "<":
        return math.nextafter(value, -math.inf)
    return value


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    shared = _compile(planning.rule, planning.parameters)
    instance = InstancePlan(
        target=point.id,
        levels=shared.levels,
        on_delay_ns=shared.on_delay_ns,
        off_delay_ns=shared.off_delay_ns,
        resets=shared.resets,
        setting=shared.setting,
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


def _compile(rule: Rule, parameters: LimitParameters) -> _Compiled:
    key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s)
    if key not in parameters._compiled:  # noqa: SLF001  our own
        rows = [_compile_level(rule, name, level) for name, level in parameters.ordered]
        parameters._compiled[key] = _Compiled(*zip(*rows, strict=True))  # noqa: SLF001
    return parameters._compiled[key]  # noqa: SLF001


def _compile_level(rule: Rule, name: str, level: LimitLevel) -> tuple[Any, ...]:
    on_s = rule.on_delay_s if level.on_delay_s is None else level.on_delay_s
    off_s = rule.off_delay_s if level.off_delay_s is None else level.off_delay_s
    reset = level.limit if level.reset is None else level.reset
    side = 1.0 if name[0] == "H" else -1.0
    operator = level.operator or (">=" if side > 0 else "<=")
    return (
        Level(name, level.priority or rule.priority, level.limit, level.level or rule.level),
        to_ns(on_s),
        to_ns(off_s),
        reset,
        (side, side * bound(level.limit, operator), side * bound(reset, operator)),
    )


class LimitEvaluator:
    """Compares; low sides are mirrored, so that there is one comparison for all levels."""

    latest_wins = False

    def __init__(self, width: int) -> None:
        self.due_ns = FOREVER
        self.instances = Columns(
            settings={
                "side": (np.float64, 1.0, width),
                "set_at": (np.float64, np.inf, width),  # side * value at or above: set
                "reset_below": (np.float64, -np.inf, width),  # side * value below: reset
                "low": (np.float64, -np.inf),
                "high": (np.float64, np.inf),
                "busy": (np.bool_, False),
            }
        )
        self.slots = Columns()
        self._layout: Layout | None = None
        self._low = np.empty(0)
        self._high = np.empty(0)
        self._marked = np.empty(0, np.bool_)

    def configure(
        self,
        instances: Sequence[tuple[int, InstancePlan]],
        _groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        self._layout = layout
        table = self.instances
        for rows, setting in same_settings(instances):
            sides, sets, resets = (np.array(column) for column in zip(*setting, strict=True))
            table["side"][rows, : len(setting)] = sides
            table["set_at"][rows, : len(setting)] = sets
            table["reset_below"][rows, : len(setting)] = resets
            table["high"][rows] = np.min(sets[sides > 0], initial=np.inf)
            table["low"][rows] = np.max(-sets[sides < 0], initial=-np.inf)
        self._low = np.full(layout.point_count, -np.inf)
        self._high = np.full(layout.point_count, np.inf)
        self._marked = np.zeros(layout.point_count, np.bool_)

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        """Every row of each point that has one outside its band: what follows an alarm matters."""
        point, value = rows.point, rows.value
        inside = value > self._low[point]
        inside &= value < self._high[point]
        np.logical_not(inside, out=inside)
        marked = point[inside]
        if len(marked) == 0:
            return inside
        self._marked[marked] = True
        chosen: NDArray[np.bool_] = self._marked[point]
        self._marked[marked] = False
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        assert self._layout is not None
        instance = self._layout.group_instance[feed.group]
        usable = feed.usable[:, None]
        value = feed.value[:, None] * self.instances["side"][instance]
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=(value >= self.instances["set_at"][instance]) & usable,
                reset=(value < self.instances["reset_below"][instance]) & usable,
                value=feed.value,
                quality=feed.quality,
            )
        )

    def timers(self, _now_ns: int, _times: PointTimes) -> Signals | None:
        return None

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        """No band for a point with a busy instance; else the narrowest of its instances."""
        layout = self._layout
        if layout is None or len(instances) == 0:
            return
        table = self.instances
        table["busy"][instances] = busy
        groups = layout.instance_group[instances]
        _, slots = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        points = np.unique(layout.slot_point[slots])
        owner, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
        if len(owner) == 0:
            return
        every = layout.group_instance[layout.slot_group[slots]]
        head = np.flatnonzero(seg.heads(owner))
        low = np.where(table["busy"][every], _NO_BAND[0], table["low"][every])
        high = np.where(table["busy"][every], _NO_BAND[1], table["high"][every])
        self._low[points] = np.maximum.reduceat(low, head)
        self._high[points] = np.minimum.reduceat(high, head)


def check(rule: Rule, _parameters: LimitParameters) -> Sequence[str]:
    return () if rule.group_by == "point" else ("a limit is judged for each point by itself",)


def loosens(old: LimitParameters, new: LimitParameters) -> Sequence[str]:
    """Later to fire, earlier to end, slower, less urgent, or gone."""
    found = []
    for name, was in old.levels.items():
        now = new.levels.get(name)
        if now is None:
            found.append(f"level {name} is gone")
            continue
        side = 1.0 if name[0] == "H" else -1.0
        operator = ">=" if side > 0 else "<="
        for what, before, after in (
            ("limit", was.limit, now.limit),
            (
                "reset",
                was.limit if was.reset is None else was.reset,
                now.limit if now.reset is None else now.reset,
            ),
        ):
            before = side * bound(before, was.operator or operator)
            after = side * bound(after, now.operator or operator)
            if after > before:
                found.append(f"{name}.{what} is less strict")
        found += [
            f"{name}.{what} is less strict"
            for what in ("on_delay_s", "off_delay_s", "priority")
            if getattr(was, what) != getattr(now, what) and not _is_stricter(was, now, what)
        ]
    return found


def _is_stricter(was: LimitLevel, now: LimitLevel, what: str) -> bool:
    """Of two stated values: sooner on, later off, more urgent. An unstated one is the rule's."""
    before, after = getattr(was, what), getattr(now, what)
    if after is None or (before is None and what != "priority"):
        return what == "on_delay_s" and after == 0
    if before is None:
        return False
    return bool(after > before if what == "off_delay_s" else after < before)


KIND = RuleKind(
    name="limit",
    summary="value beyond a limit, levels H to HHHH and L to LLLL with reset values",
    parameters=LimitParameters,
    plan=plan,
    build=LimitEvaluator,
    level_count=lambda parameters: len(parameters.levels),
    check=check,
    loosens=loosens,
)
