"""Levels stated as plain numbers, checked without the model of the kind: a site may state a limit
rule for each of a hundred thousand points, each with numbers of its own, and wants them in seconds.

    levels = { H = 1.0, HH = { limit = 1.5, reset = 1.0 } }       plain: limits and resets only
    levels = { H = { limit = 1.0, priority = "high" } }           not plain: left to the model
    levels = { H = 1.0, HH = 0.5 }                                not valid: left to the model

**Never an opinion of its own**: what is not plain, or not valid, is None here, and the model says
what it is and what is wrong with it. What is plain gives the level sets the model gives, to the
last bit; a law compares them over random statements.

Not here: what levels mean (_levels.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from alarm_rules.kinds._common import to_ns
from alarm_rules.kinds._levels import SIDES, LevelSet, LevelsParameters, severity_of
from gateway.contract.rule_kind import InstancePlan
from gateway.model.condition import Level
from gateway.model.rule import Priority, Rule

_EXACT_MAX = 2**53  # a larger whole number may not be a float64 exactly: the model's affair
_MAX = 1.7976931348623157e308  # the largest finite float64
_FLOAT, _NUMBER = {float}, {float, int}
_new = tuple.__new__  # what a NamedTuple's own does, at half the price (measured)
_UNSAID = tuple(InstancePlan("", (), (), ()))[5:11]  # what the point says: id, unit, place, name
_FORMS_MAX = 1_024  # of names, priorities and delays: a site has a handful


class _Order(NamedTuple):
    """Names of levels by severity."""

    names: tuple[str, ...]
    sides: tuple[float, ...]
    place: tuple[int, ...] | None  # of each in the order they were stated in; None: the same


class PlainLevels:
    """Stands in for the parameters of rules that state the same plain numbers."""

    __slots__ = ("_first", "_more", "_order", "limits", "resets")

    def __init__(self, order: _Order, limits: tuple[float, ...], resets: tuple[float, ...]) -> None:
        self._order = order
        self.limits, self.resets = limits, resets  # by severity
        self._first: tuple[Any, InstancePlan] | None = None
        self._more: dict[Any, InstancePlan] | None = None

    def __len__(self) -> int:
        return len(self.limits)

    @property
    def levels(self) -> Mapping[str, Any]:
        """As the model has them."""
        stated = {
            name: {"limit": limit, "reset": reset}
            for name, limit, reset in zip(self._order.names, self.limits, self.resets, strict=True)
        }
        return LevelsParameters.model_validate({"levels": stated}).levels

    def level_set(self, rule: Rule) -> LevelSet:
        plan = self.plan(rule)
        return LevelSet(plan.levels, plan.on_delay_ns, plan.off_delay_ns, plan.resets, plan.setting)

    def plan(self, rule: Rule) -> InstancePlan:
        """What all points of rules that say the same beside their parameters share."""
        key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s)
        first = self._first
        if first is None:
            self._first = made = key, self._make(key)
            return made[1]
        if first[0] == key:
            return first[1]
        if self._more is None:
            self._more = {}
        if key not in self._more:
            self._more[key] = self._make(key)
        return self._more[key]

    def _make(self, key: tuple[Priority, str, float, float]) -> InstancePlan:
        priority, text, on_s, off_s = key
        names, sides, _ = self._order
        limits, resets = self.limits, self.resets
        on_ns, off_ns = _delays(len(names), on_s, off_s)
        levels = tuple(
            [
                _new(Level, (name, priority, at, text, None))
                for name, at in zip(names, limits, strict=True)
            ]
        )
        bounds = tuple([(s, s * a, s * r) for s, a, r in zip(sides, limits, resets, strict=True)])
        return _new(InstancePlan, ("", levels, on_ns, off_ns, resets, *_UNSAID, bounds, True))


def plain_levels(stated: Mapping[str, Any]) -> PlainLevels | None:
    """None where the statement is not plain, or not valid."""
    levels: Any = stated.get("levels")
    order = _order_of(tuple(levels)) if type(levels) is dict and len(stated) == 1 else None
    if order is None:
        return None
    limits: list[Any] = []
    resets: list[Any] = []
    for item in levels.values():
        limit = reset = item
        if type(item) is dict:
            limit = reset = item.get("limit")
            if len(item) > 1:
                reset = item.get("reset")
                if len(item) > 2:
                    return None
        limits.append(limit)
        resets.append(reset)
    types = set(map(type, limits + resets))
    if types != _FLOAT:
        if not types <= _NUMBER or not all(
            -_EXACT_MAX <= number <= _EXACT_MAX for number in limits + resets
        ):
            return None
        limits, resets = list(map(float, limits)), list(map(float, resets))
    if not -_MAX <= sum(limits) + sum(resets) <= _MAX:  # one is NaN or infinite, or they are huge
        return None
    if order.place is not None:
        limits, resets = ([each[at] for at in order.place] for each in (limits, resets))
    return _consistent(order, tuple(limits), tuple(resets))


def _consistent(
    order: _Order, limits: tuple[float, ...], resets: tuple[float, ...]
) -> PlainLevels | None:
    """None where a reset lies beyond its limit, or a more severe level before a milder one."""
    above = below = -_MAX
    for side, limit, reset in zip(order.sides, limits, resets, strict=True):
        if side > 0:
            if reset > limit or limit < above:
                return None
            above = limit
        else:
            if reset < limit or -limit < below:
                return None
            below = -limit
    return PlainLevels(order, limits, resets)


@lru_cache(maxsize=_FORMS_MAX)
def _order_of(names: tuple[str, ...]) -> _Order | None:
    if not names or any(name not in SIDES for name in names):
        return None
    place = sorted(range(len(names)), key=lambda at: severity_of(names[at]))
    ordered = tuple(names[at] for at in place)
    sides = tuple(float(SIDES[name]) for name in ordered)
    return _Order(ordered, sides, None if ordered == names else tuple(place))


@lru_cache(maxsize=_FORMS_MAX)
def _delays(count: int, on_s: float, off_s: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (to_ns(on_s),) * count, (to_ns(off_s),) * count
