"""The rule instances of a rule set by position, each made when it is first asked for.

    position   0      1      2      3
    made       RuleInstance  -      -        made: kept, it stays the same object
    columns    .      .      key, rule, point, plan, name: what is needed to make one

A site has a hundred thousand of them and wants them up in a second; a change of level asks for one.
What may change later, the point and its device's name, is taken down when the instance is planned.

Not here: rows of state (roster.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

from gateway.contract.rule_kind import InstancePlan
from gateway.model.condition import RuleInstance
from gateway.model.point import Point
from gateway.model.rule import Rule


class Instances(Sequence[RuleInstance]):
    """Grows; a position never means another instance. Described anew, it is another object."""

    def __init__(self) -> None:
        self._made: list[RuleInstance | None] = []
        self._key: list[str] = []
        self._rule: list[Rule] = []
        self._point: list[Point | None] = []  # None: the plan itself says what it is about
        self._plan: list[InstancePlan] = []
        self._name: list[str] = []  # of the point or its device

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, position: int) -> RuleInstance: ...

    @overload
    def __getitem__(self, position: slice) -> list[RuleInstance]: ...

    def __getitem__(self, position: int | slice) -> RuleInstance | list[RuleInstance]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        return self._made[position] or self._make(position)

    def __iter__(self) -> Iterator[RuleInstance]:
        """Those there are when it is asked for the next one, as of a list."""
        for position, made in enumerate(self._made):
            yield made or self._make(position)

    def key(self, position: int) -> str:
        """The alarm key alone: nothing is made."""
        return self._key[position]

    def plan(self, position: int) -> InstancePlan:
        return self._plan[position]

    def add(
        self,
        rules: Sequence[Rule],
        keys: Sequence[str],
        points: Sequence[Point | None],
        plans: Sequence[InstancePlan],
        names: Sequence[str],
    ) -> None:
        """New instances, one for each alarm key."""
        self._made.extend(repeat(None, len(keys)))
        self._key.extend(keys)
        self._rule.extend(rules)
        self._point.extend(points)
        self._plan.extend(plans)
        self._name.extend(names)

    def describe(
        self, position: int, rule: Rule, point: Point | None, plan: InstancePlan, name: str
    ) -> None:
        """What stands there is another one from now on, by the same key."""
        self._rule[position], self._point[position] = rule, point
        self._plan[position] = plan
        self._name[position], self._made[position] = name, None

    def _make(self, position: int) -> RuleInstance:
        key, rule, plan = self._key[position], self._rule[position], self._plan[position]
        point = self._point[position]
        if point is None:
            made = RuleInstance(
                key, rule, plan.target, plan.point_id, plan.levels, plan.unit,
                plan.device, plan.area, plan.location, plan.display_name, plan.measures,
            )  # fmt: skip
        else:
            made = RuleInstance(
                key, rule, point.id, point.id, plan.levels, plan.unit or point.unit,
                point.device, point.area, point.location, self._name[position], plan.measures,
            )  # fmt: skip
        self._made[position] = made
        return made
