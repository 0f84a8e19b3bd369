"""Levels H, HH, … above and L, LL, … below, for every kind that compares a number with limits.

    number  ─────────────╮HH  limit 1.5 ╭────            set    number >= limit   (H sides)
            ────────╮H   limit 1.0      │                reset  not (number >= reset)
            ════════╧════ reset 1.0 ════╧═══             between: as it was

**As written**: `>=` fires at the limit, `>` beyond it; the same comparison against the reset value,
when no longer true, ends the level. A strict comparison is the inclusive one against the next
float64: exact, no epsilon. Low sides are mirrored, so that there is one comparison for all levels.

The number is the sample itself (limit), or what a kind makes of samples (rate, deviation, …). A
number that is no number, or that the kind says was not judged, neither sets nor resets.

As parameters:

    levels = { H = 1.0, HH = { limit = 1.5, reset = 1.0, priority = "critical" } }
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import Parameters, PriorityName, Seconds, is_stricter, to_ns
from gateway.contract.rule_kind import Columns
from gateway.model.condition import Level
from gateway.model.rule import Rule

SIDES = {letter * count: side for letter, side in (("H", 1), ("L", -1)) for count in range(1, 5)}
"""By name of a level: 1 above, -1 below."""


class LimitLevel(Parameters):
    """One level. `reset` is the limit itself unless given; delays are the rule's unless given."""

    limit: float
    reset: float | None = None
    operator: Literal[">=", ">", "<=", "<"] | None = None  # by its side: >= for H, <= for L
    priority: PriorityName | None = None
    level: str = ""  # in the words of the rule's scheme
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None
    latching: bool | None = None  # only from this level on a person has to reset it


class LevelSet(NamedTuple):
    """What every instance of a rule shares, made once. The first four go into `InstancePlan`."""

    levels: tuple[Level, ...]
    on_delay_ns: tuple[int, ...]
    off_delay_ns: tuple[int, ...]
    resets: tuple[float, ...]
    bounds: tuple[tuple[float, float, float], ...]  # side, set at, reset below: for `write_bounds`

    def planned(self) -> dict[str, Any]:
        """The fields of an InstancePlan that say when and how it fires."""
        return {
            "levels": self.levels,
            "on_delay_ns": self.on_delay_ns,
            "off_delay_ns": self.off_delay_ns,
            "resets": self.resets,
        }


class LevelsParameters(Parameters):
    """Levels by name: H, HH, HHH, HHHH above, L, LL, LLL, LLLL below; more letters, more severe."""

    levels: dict[str, LimitLevel] = Field(min_length=1)

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
    def _consistent(self) -> LevelsParameters:
        for name, level in self.levels.items():
            side = SIDES.get(name)
            if side is None:
                raise ValueError(f"levels are named H to HHHH and L to LLLL, not {name!r}")
            if level.operator and (level.operator[0] == ">") != (side > 0):
                raise ValueError(f"{name}: {level.operator!r} is the other side's comparison")
            if level.reset is not None and side * level.reset > side * level.limit:
                raise ValueError(f"{name}: the reset value lies beyond the limit")
        for letter, side in (("H", 1), ("L", -1)):
            names = [name for name in self.levels if name[0] == letter]
            if len(names) > 1:
                self._ordered(sorted(names, key=len), side)
        return self

    def _ordered(self, names: Sequence[str], side: int) -> None:
        limits = [side * self.levels[name].limit for name in names]
        if limits != sorted(limits):
            raise ValueError(f"{' < '.join(names)}: a more severe level lies before a milder one")

    @property
    def ordered(self) -> list[tuple[str, LimitLevel]]:
        """By severity: L, H, LL, HH, …"""
        return sorted(self.levels.items(), key=_severity)

    @cached_property
    def level_sets(self) -> dict[tuple[Any, ...], LevelSet]:
        """Those made so far. (A private attribute of pydantic costs 5 us to look at.)"""
        return {}

    def level_set(self, rule: Rule) -> LevelSet:
        """The levels as the core and the arrays want them; one object for all points of a rule."""
        key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s)
        found = self.level_sets.get(key)
        if found is None:
            rows = [_compile_level(rule, name, level) for name, level in self.ordered]
            found = self.level_sets[key] = LevelSet(*zip(*rows, strict=True))
        return found


def _severity(item: tuple[str, LimitLevel]) -> int:
    return severity_of(item[0])


def severity_of(name: str) -> int:
    """Grows with severity."""
    return 2 * len(name) + (name[0] == "H")


def bound(value: float, operator: str) -> float:
    """`value` such that >= (or <=) against it is the comparison written."""
    if operator == ">":
        return math.nextafter(value, math.inf)
    if operator == "<":
        return math.nextafter(value, -math.inf)
    return value


def _compile_level(rule: Rule, name: str, level: LimitLevel) -> tuple[Any, ...]:
    on_s = rule.on_delay_s if level.on_delay_s is None else level.on_delay_s
    off_s = rule.off_delay_s if level.off_delay_s is None else level.off_delay_s
    reset = level.limit if level.reset is None else level.reset
    side = 1.0 if name[0] == "H" else -1.0
    operator = level.operator or (">=" if side > 0 else "<=")
    return (
        Level(
            name,
            level.priority or rule.priority,
            level.limit,
            level.level or rule.level,
            level.latching,
        ),
        to_ns(on_s),
        to_ns(off_s),
        reset,
        (side, side * bound(level.limit, operator), side * bound(reset, operator)),
    )


def level_count(parameters: LevelsParameters) -> int:
    return len(parameters.levels)


# ---------------------------------------------------------------------- as arrays


def bound_columns(width: int) -> dict[str, tuple[Any, ...]]:
    """Settings of an instance table that hold `LevelSet.bounds`. A level not used is compared with
    NaN: even an infinite number does not set it."""
    return {
        "side": (np.float64, 1.0, width),
        "set_at": (np.float64, np.nan, width),  # side * number at or above: set
        "reset_below": (np.float64, np.nan, width),  # side * number below: reset
    }


def write_bounds(
    table: Columns, rows: NDArray[np.int64], bounds: Sequence[tuple[float, float, float]]
) -> None:
    """The same levels into every given row."""
    columns = zip(*bounds, strict=True)
    for name, values in zip(("side", "set_at", "reset_below"), columns, strict=True):
        table[name][rows, : len(values)] = values


def compare(
    table: Columns,
    instance: NDArray[np.int64] | slice,
    number: NDArray[np.float64],
    judged: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(set, reset) of every level: one row for each number; both false where it was not judged.
    `judged` None: all were. `instance`: a range of them costs least as a slice."""
    side, set_at, reset_below = (table[name] for name in ("side", "set_at", "reset_below"))
    if not isinstance(instance, slice) and len(instance) <= _FEW:
        mirrored = number[:, None] * seg.picked(side, instance)
        sets = mirrored >= seg.picked(set_at, instance)
        resets = mirrored < seg.picked(reset_below, instance)
        return _where(judged, sets, resets)
    rows = instance if isinstance(instance, slice) else seg.as_slice(instance)
    shape = (len(number), side.shape[1])
    sets, resets = np.empty(shape, np.bool_, order="F"), np.empty(shape, np.bool_, order="F")
    for level in range(shape[1]):  # numpy is slow along so short an axis, and takes short rows ill
        mirrored = number * side[:, level][rows]
        np.greater_equal(mirrored, set_at[:, level][rows], out=sets[:, level])
        np.less(mirrored, reset_below[:, level][rows], out=resets[:, level])
    return _where(judged, sets, resets)


_FEW = 1 << 10
"""So few numbers cost less than the calls that compare them."""


def _where(
    judged: NDArray[np.bool_] | None, sets: NDArray[np.bool_], resets: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if judged is not None and np.count_nonzero(judged) < len(judged):
        sets &= judged[:, None]
        resets &= judged[:, None]
    return sets, resets


# ---------------------------------------------------------------------- tighter or looser


def loosens_levels(old: LevelsParameters, new: LevelsParameters) -> list[str]:
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
        found += loosens_timing(name, was, now)
        if was.latching is not now.latching and not now.latching:
            found.append(f"{name}.latching is less strict")
    return found


def loosens_timing(name: str, was: Any, now: Any) -> list[str]:
    """Of two levels of any kind that state `on_delay_s`, `off_delay_s` and `priority`."""
    return [
        f"{name}.{what} is less strict"
        for what in ("on_delay_s", "off_delay_s", "priority")
        if not is_stricter(what, getattr(was, what), getattr(now, what))
    ]
