"""Rules that judge other rules: which rule instances each of them listens to.

    instances ─rule id, selector, live?─▶ (rule, group) ─ plan ─▶ slots, one for each instance
    changes of level ─────────────────────────────────── rows ─▶ the level-judging program

The same shape as points and slots, with the position of a rule instance where a point stands:
what such a rule hears is that an instance changed its level.

Not here: which points a rule matches (matching.py), what the levels add up to (kinds/combination).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules.lane import Found
from alarm_rules.matching import SITE_KEY, CompiledRule, means
from gateway.contract.rule_kind import Rows
from gateway.model.condition import RuleInstance
from gateway.model.point import PointTable
from gateway.model.rule import GroupBy, Selector


class Listening:
    """Instances matched to the rules that judge them, incrementally."""

    def __init__(self, rules: Sequence[CompiledRule], points: PointTable) -> None:
        self._points = points
        self._rules = {
            number: rule for number, rule in enumerate(rules) if rule.kind.judges is not None
        }
        self._wanted: dict[str, tuple[int, ...]] = {}  # rule id -> numbers of who judges it
        for rule in rules if self._rules else ():
            self.hear_of(rule)
        self._members: dict[tuple[int, str], set[int]] = {}
        self._places: dict[int, list[tuple[int, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def hear_of(self, rule: CompiledRule) -> None:
        """A rule that may be judged."""
        self._wanted[rule.rule.id] = tuple(
            number
            for number, judge in self._rules.items()
            if number != rule.number and means(rule.rule.id, judge.judged)
        )

    def members(self, number: int, key: str) -> tuple[int, ...]:
        """Positions of the instances in a group of a rule."""
        return tuple(sorted(self._members.get((number, key), ())))

    def update(
        self, positions: Iterable[int], instances: Sequence[RuleInstance], live: NDArray[np.bool_]
    ) -> set[tuple[int, str]]:
        """Look at these instances again; returns the (rule, group key) that changed with them."""
        dirty: set[tuple[int, str]] = set()
        for position in positions:
            wanted = self._wanted.get(instances[position].rule.id)
            if not wanted:
                continue
            for place in self._places.pop(position, ()):
                self._members[place].discard(position)
                dirty.add(place)
            if not live[position]:
                continue
            for number in wanted:
                rule = self._rules[number]
                if self._selects(rule.rule.inputs["value"], instances[position]):
                    place = (number, group_of(rule.group_by, instances[position], self._points))
                    self._members.setdefault(place, set()).add(position)
                    self._places.setdefault(position, []).append(place)
                    dirty.add(place)
        return dirty

    def _selects(self, selector: Selector, instance: RuleInstance) -> bool:
        """By the point the instance is about; one about no point has only area and device."""
        if selector == Selector():
            return True
        if instance.point_id in self._points:
            point = self._points[self._points.index(instance.point_id)]
            device = self._points.device(point.device) if point.device else None
            kind, attributes = (device.kind, device.attributes) if device else ("", None)
            return selector.matches(point, kind, attributes)
        about = Selector(area=instance.area, device=instance.device)
        return selector == Selector(
            area=selector.area and about.area, device=selector.device and about.device
        )


def group_of(group_by: str, instance: RuleInstance, points: PointTable) -> str:
    """What the instance is grouped under; "" when it has no such thing."""
    if group_by == GroupBy.SITE:
        return SITE_KEY
    if group_by == GroupBy.POINT:
        return instance.point_id or instance.target
    if group_by == GroupBy.ADAPTER:
        known = instance.point_id in points
        return points[points.index(instance.point_id)].adapter if known else ""
    return str(getattr(instance, group_by))


class Stands(NamedTuple):
    """How an instance stands that a rule begins to listen to."""

    position: int
    level: int
    time_ns: int
    quality: int


def rows_of(found: Sequence[Found], joined: Sequence[Stands]) -> Rows:
    """Changes of level as rows: the position of the instance for a point, the level for a value.

    `joined`: how those stand that are newly listened to. Of several changes of one instance at one
    time the last holds.
    """
    # In one table of whole numbers: a list alone would be one of floats, where it is empty, and a
    # time as a float is a hundred nanoseconds wide.
    stands = np.array(joined, np.int64).reshape(-1, len(Stands._fields))
    position, level, time_ns, quality = (
        np.concatenate([stands[:, column], *told]).astype(np.int64)
        for column, told in enumerate(
            (
                [program.state["position"][changes.instance] for program, changes in found],
                [changes.level for _, changes in found],
                [changes.time_ns for _, changes in found],
                [changes.quality for _, changes in found],
            )
        )
    )
    order = np.lexsort((time_ns, position))
    same = (position[order][1:] == position[order][:-1]) & (
        time_ns[order][1:] == time_ns[order][:-1]
    )
    order = np.sort(order[np.append(~same, True)]) if len(order) else order
    size = len(order)
    return Rows(
        point=position[order],
        value=level[order].astype(np.float64),
        quality=quality[order].astype(np.uint8),
        time_ns=time_ns[order],
        received_ns=time_ns[order],
        usable=np.ones(size, np.bool_),
        heard_ns=time_ns[order],
        usable_ns=time_ns[order],
    )
