"""A point computed from others: freeboard = beach_top - pool_level.

    beach_top   12.0 ─────────────────────────────────────
    pool_level       11.0 ───── 11.2 ─────────────────────
    freeboard        1.0        0.8        one sample whenever an input has a new one

Inputs of one group that come with equal times are applied together, otherwise the last value holds.
The result is as good as its worst input: *uncertain (derived)* or *bad (derived)*; an input that
was never heard, is bad, or is older than `max_input_age_s` makes it bad, and so does arithmetic
without an answer. A bad result has no number.

Its samples go through the same evaluation to the rules that select the derived point. When all
inputs fall silent so does the result: put an `offline` rule on it.

As parameters:

    expression = "beach_top - pool_level"      # names are the rule's inputs
    id = "{group}.freeboard"                   # {group}: the device, area or adapter
    quantity = "freeboard"
    unit = "m"
    decimals = 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from alarm_rules import segments as seg
from alarm_rules.expression import Expression, parse
from alarm_rules.kinds._common import (
    Parameters,
    Seconds,
    input_slots,
    remember,
    to_ns,
    what_is_new,
)
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Derived,
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
from gateway.model.point import Point, PointKind, PointTable, is_valid_id
from gateway.model.quality import UNCERTAIN, Quality
from gateway.model.rule import GroupBy, Rule

_GROUP = "{group}"


class CalculationParameters(Parameters):
    """The formula and the point it makes."""

    expression: str
    id: str
    quantity: str
    unit: str = ""
    name: str = ""  # as the operator knows it; the rule's own unless given
    max_input_age_s: Seconds | None = None  # None: the last value holds for ever
    decimals: int | None = Field(default=None, ge=0, le=9)
    """Round the result: 131.0 - 130.3 is 0.7 to whoever reads the gauges, not 0.69999999999999."""

    @field_validator("expression")
    @classmethod
    def _is_an_expression(cls, text: str) -> str:
        parse(text)
        return text

    @field_validator("id")
    @classmethod
    def _is_an_id(cls, text: str) -> str:
        if not is_valid_id(text.replace(_GROUP, "x")):
            raise ValueError("a point id: no blanks, none of / + #")
        return text


@dataclass(frozen=True, slots=True)
class _Formula:
    """What one group computes."""

    expression: Expression
    names: tuple[str, ...]  # input names in the order of the slots' ordinals
    max_age_ns: int
    decimals: int | None


def plan(planning: Planning) -> GroupPlan | None:
    """One derived point for each group that has every input exactly once."""
    parameters, key = planning.parameters, planning.key
    if not key:
        planning.problem(f"points without {planning.rule.group_by.value} cannot be grouped by it")
        return None
    for name, members in planning.inputs.items():
        if len(members) != 1:
            found = ", ".join(planning.points[index].id for index in members) or "none"
            planning.problem(f"input {name} needs one point, found {found}")
            return None
    point_id = parameters.id.replace(_GROUP, key)
    standing = planning.points.get(point_id)
    if standing is not None and standing.adapter:
        planning.problem(f"{point_id} is a measured point of {standing.adapter} already")
        return None
    inputs = [planning.points[members[0]] for members in planning.inputs.values()]
    names = tuple(planning.inputs)
    age_s = parameters.max_input_age_s
    setting = _Formula(
        parse(parameters.expression),
        names,
        FOREVER if age_s is None else to_ns(age_s),
        parameters.decimals,
    )
    return GroupPlan(
        inputs=tuple(planning.inputs.values()),
        derived=_derived_point(planning, point_id, inputs),
        setting=setting,
    )


def _derived_point(planning: Planning, point_id: str, inputs: Sequence[Point]) -> Point:
    """What all inputs have in common, so that rules select the result by the same attributes."""
    parameters, rule = planning.parameters, planning.rule
    every = [_attributes(point, planning.points) for point in inputs]
    shared = {
        name: text
        for name, text in every[0].items()
        if all(attributes.get(name) == text for attributes in every)
    }

    def common(name: str) -> str:
        found = {getattr(point, name) for point in inputs}
        return str(found.pop()) if len(found) == 1 else ""

    return Point(
        id=point_id,
        kind=PointKind.ANALOG,
        quantity=parameters.quantity,
        unit=parameters.unit,
        name=parameters.name or rule.name.get("zh", "") or rule.name.get("en", ""),
        device=common("device"),
        area=common("area"),
        location=common("location"),
        location_class=common("location_class"),
        attributes=shared,
    )


def _attributes(point: Point, points: PointTable) -> dict[str, str]:
    device = points.device(point.device) if point.device else None
    return {**(device.attributes if device else {}), **point.attributes}


class CalculationEvaluator:
    """The last sample of every input, and a formula for each group."""

    latest_wins = True

    def __init__(self, _width: int) -> None:
        self.due_ns = FOREVER
        self.instances = Columns()
        self.slots = input_slots()
        self._layout: Layout | None = None
        self._formulas: list[_Formula] = []
        self._of_group = np.empty(0, np.int64)  # row in _formulas, -1 for none
        self._slot_of = np.empty((0, 1), np.int64)  # (group, input) -> slot, -1 for none
        self._asked = np.empty(0, np.bool_)

    def configure(
        self,
        _instances: Sequence[tuple[int, InstancePlan]],
        groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        self._layout = layout
        count = len(layout.group_instance)
        grown = np.full(count, -1, np.int64)
        grown[: len(self._of_group)] = self._of_group
        self._of_group = grown
        for row, plan_ in groups:
            if plan_.setting not in self._formulas:
                self._formulas.append(plan_.setting)
            self._of_group[row] = self._formulas.index(plan_.setting)
        width = max((len(formula.names) for formula in self._formulas), default=1)
        live = np.flatnonzero(layout.slot_live)
        self._slot_of = np.full((count, width), -1, np.int64)
        self._slot_of[layout.slot_group[live], layout.slot_input[live]] = live
        self._asked = np.zeros(layout.point_count, np.bool_)
        self._asked[layout.slot_point[live]] = True

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        chosen: NDArray[np.bool_] = self._asked[rows.point]
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        layout, slots = self._layout, self.slots
        assert layout is not None
        feed = what_is_new(feed, slots)
        if len(feed) == 0:
            return Verdict()
        known_ns = np.where(self._slot_of >= 0, slots["time_ns"][self._slot_of], NEVER).max(axis=1)
        time_ns = np.maximum(feed.time_ns, known_ns[feed.group])
        first = seg.heads(feed.group, time_ns)
        head = np.flatnonzero(first)
        step = np.cumsum(first) - 1
        group = feed.group[head]
        row = np.full((len(head), self._slot_of.shape[1]), -1, np.int64)
        row[step, layout.slot_input[feed.slot]] = np.arange(len(feed))
        start = seg.starts_of(seg.heads(group))
        newest = seg.forward_fill(row, row >= 0, start, np.full_like(row, -1))
        value, good, sure = self._inputs(feed, newest, group, time_ns[head])
        result = self._compute(group, value)
        good &= np.isfinite(result)
        quality = np.where(sure, Quality.GOOD, Quality.UNCERTAIN_DERIVED)
        remember(feed, slots)
        return Verdict(
            derived=Derived(
                group=group,
                time_ns=time_ns[head],
                value=np.where(good, result, np.nan),
                quality=np.where(good, quality, Quality.BAD_DERIVED).astype(np.uint8),
                received_ns=np.maximum.reduceat(feed.received_ns, head),
            )
        )

    def _inputs(
        self,
        feed: Feed,
        newest: NDArray[np.int64],
        group: NDArray[np.int64],
        time_ns: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each step: the inputs' values, whether all are usable, whether all are certain."""
        slots, slot = self.slots, self._slot_of[group]
        exists, here, row = slot >= 0, newest >= 0, np.maximum(newest, 0)
        value = np.where(here, feed.value[row], slots["value"][slot])
        usable = np.where(here, feed.usable[row], slots["usable"][slot])
        quality = np.where(here, feed.quality[row], slots["quality"][slot])
        since_ns = np.where(here, feed.time_ns[row], slots["time_ns"][slot])
        max_age_ns = np.array([formula.max_age_ns for formula in self._formulas])
        young = time_ns[:, None] - since_ns <= max_age_ns[self._of_group[group]][:, None]
        good: NDArray[np.bool_] = np.all((usable & young) | ~exists, axis=1)
        sure: NDArray[np.bool_] = np.all((quality < UNCERTAIN) | ~exists, axis=1)
        return value, good, sure

    def _compute(self, group: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.float64]:
        """One pass for each formula in use; groups of a rule share one."""
        result = np.full(len(group), np.nan)
        which = self._of_group[group]
        for number in np.unique(which):
            formula = self._formulas[number]
            rows = np.flatnonzero(which == number)
            columns = {name: value[rows, i] for i, name in enumerate(formula.names)}
            found = formula.expression.evaluate(columns)
            result[rows] = found if formula.decimals is None else np.round(found, formula.decimals)
        return result

    def timers(self, _now_ns: int, _times: PointTimes) -> Signals | None:
        return None

    def settled(self, _instances: NDArray[np.int64], _busy: NDArray[np.bool_]) -> None:
        """There are no instances: a calculation raises nothing by itself."""


def check(rule: Rule, parameters: CalculationParameters) -> Sequence[str]:
    faults = []
    needed, given = set(parse(parameters.expression).names), set(rule.inputs)
    if needed != given:
        odd = ", ".join(sorted(needed ^ given))
        faults.append(f"the names in the expression and the inputs must be the same; odd: {odd}")
    if rule.group_by != GroupBy.SITE and _GROUP not in parameters.id:
        faults.append(f"id must contain {_GROUP}: there is one result for each group")
    if rule.group_by == GroupBy.POINT and len(rule.inputs) > 1:
        faults.append("several inputs are grouped by device, area, adapter or site")
    return faults


def produces(_rule: Rule, parameters: CalculationParameters) -> Point:
    return Point(id=parameters.id.replace(_GROUP, "*"), quantity=parameters.quantity)


KIND = RuleKind(
    name="calculation",
    summary="a point computed from others by a formula",
    parameters=CalculationParameters,
    plan=plan,
    build=CalculationEvaluator,
    level_count=lambda _parameters: 0,
    inputs=None,
    produces=produces,
    check=check,
)
