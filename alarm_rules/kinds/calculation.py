"""A point computed from others: freeboard = beach_top - pool_level.

    beach_top   12.0 ─────────────────────────────────────
    pool_level       11.0 ───── 11.2 ─────────────────────
    freeboard        1.0        0.8        one sample whenever an input has a new one

Inputs of one group that come with equal times are applied together, otherwise the last value holds.
The result is as good as its worst input: *uncertain (derived)* or *bad (derived)*; an input that
was never heard, is bad, or is older than `max_input_age_s` makes it bad, and so does arithmetic
without an answer. A bad result has no number. Only where every input is under calibration is the
result *calibrating* and what follows from it a planned alarm: one real input among them may be why.

Window functions (expression.py, `_windows.py`) look back over an input: sum_over, mean_over,
min_over, max_over, change_over, increase_over. Until an input was heard for the whole span, and
after a silence longer than `max_input_age_s` in it, the result is *uncertain*; a bad sample inside
the window makes it *bad* until it has left, but for the share `bad_share_max` allows.

Its samples go through the same evaluation to the rules that select the derived point. When all
inputs fall silent so does the result, windows too: put an `offline` rule on it.

As parameters:

    expression = "beach_top - pool_level"      # names are the rule's inputs
                 "sum_over(rain, 86400)"       # mm of the last day, of increments
                 "where(slope > 0, (beach_top - pool_level) / slope, 0)"      # dry beach, m
                 "1.5 * (4 * chlorine / 5 + 2 * ammonia / 10)"   # R of GB 18218-2018 4.3
    id = "{group}.freeboard"                   # {group}: the device, area or adapter
    quantity = "freeboard"
    unit = "m"
    decimals = 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, field_validator

from alarm_rules import segments as seg
from alarm_rules.expression import RESERVED, Expression, Window, parse
from alarm_rules.kinds._common import (
    KindEvaluator,
    Parameters,
    Seconds,
    input_slots,
    remember,
    to_ns,
    what_is_new,
)
from alarm_rules.kinds._windows import History, Track, Tracks, window_fields
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Derived,
    Feed,
    GroupPlan,
    Planning,
    PointTimes,
    RuleKind,
    Verdict,
)
from gateway.model.point import Point, PointKind, PointTable, is_valid_id
from gateway.model.quality import UNCERTAIN, Quality
from gateway.model.rule import GroupBy, Rule

_GROUP = "{group}"


@dataclass(frozen=True, eq=False)
class _Formula:
    """What every group of a rule computes; one object for all of them."""

    expression: Expression
    names: tuple[str, ...]  # input names in the order of the slots' ordinals
    max_age_ns: int
    decimals: int | None
    bad_share_max: float
    tracks: tuple[tuple[Track, ...], ...]  # by input: each span once, rises apart
    windows: tuple[tuple[Window, int, int], ...]  # window, its input, which of the input's tracks


def _track(window: Window) -> Track:
    return Track(to_ns(window.seconds), window.function == "increase_over")


class CalculationParameters(Parameters):
    """The formula and the point it makes."""

    expression: str
    id: str
    quantity: str
    unit: str = ""
    name: str = ""  # as the operator knows it; the rule's own unless given
    max_input_age_s: Seconds | None = None  # None: the last value holds for ever
    bad_share_max: float = Field(default=0.0, ge=0, lt=1)
    """Share of a window's samples that may be bad: the result is uncertain then."""
    decimals: int | None = Field(default=None, ge=0, le=9)
    """Round the result: 131.0 - 130.3 is 0.7 to whoever reads the gauges, not 0.69999999999999."""
    _formula: _Formula | None = PrivateAttr(default=None)

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

    @cached_property
    def parsed(self) -> Expression:
        return parse(self.expression)

    def formula(self, names: tuple[str, ...]) -> _Formula:
        """The expression over inputs of these names, made once."""
        if self._formula is None or self._formula.names != names:
            self._formula = self._compile(names)
        return self._formula

    def _compile(self, names: tuple[str, ...]) -> _Formula:
        windows = self.parsed.windows
        tracks = tuple(
            tuple(dict.fromkeys(_track(window) for window in windows if window.name == name))
            for name in names
        )
        places = tuple(
            (window, i, tracks[i].index(_track(window)))
            for window in windows
            for i in (names.index(window.name),)
        )
        age_s = self.max_input_age_s
        max_age_ns = FOREVER if age_s is None else to_ns(age_s)
        return _Formula(
            self.parsed, names, max_age_ns, self.decimals, self.bad_share_max, tracks, places
        )


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
    return GroupPlan(
        inputs=tuple(planning.inputs.values()),
        derived=_derived_point(planning, point_id, inputs),
        setting=parameters.formula(tuple(planning.inputs)),
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


@dataclass(frozen=True, slots=True)
class _Moments:
    """The steps of one call: moments at which a group has something new."""

    group: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    newest: NDArray[np.int64]  # (moment, input): feed row of the newest sample, -1: before the call
    slot: NDArray[np.int64]  # (moment, input), -1 where the formula has fewer inputs


class CalculationEvaluator(KindEvaluator):
    """The last sample of every input, the tracks of its windows, and a formula for each group.

    `width` is one more than the tracks an input has at most: a calculation has no levels.
    """

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(Columns(), input_slots(window_fields(width - 1)))
        self._width = width - 1
        self._formulas: list[_Formula] = []
        self._of_group = np.empty(0, np.int64)  # row in _formulas, -1 for none
        self._slot_of = np.empty((0, 1), np.int64)  # (group, input) -> slot, -1 for none

    def configured(self, groups: Sequence[tuple[int, GroupPlan]]) -> None:
        layout = self.layout
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

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        layout, slots = self.layout, self.slots
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
        moments = _Moments(group, time_ns[head], newest, self._slot_of[group])
        value, quality = self._compute(feed, moments)
        remember(feed, slots)
        return Verdict(
            derived=Derived(
                group=group,
                time_ns=time_ns[head],
                value=value,
                quality=quality,
                received_ns=np.maximum.reduceat(feed.received_ns, head),
            )
        )

    def _compute(
        self, feed: Feed, moments: _Moments
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """One pass for each formula in use; groups of a rule share one."""
        value, usable, grade, young = self._inputs(feed, moments)
        history = self._history(feed, moments.group) if self._width else None
        result = np.full(len(moments.group), np.nan)
        sure, planned = np.ones(len(result), np.bool_), np.zeros(len(result), np.bool_)
        which = self._of_group[moments.group]
        for number in np.unique(which):
            formula = self._formulas[number]
            rows = np.flatnonzero(which == number)
            columns: dict[str | Window, NDArray[np.float64]] = {}
            good, certainly = np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_)
            calibrated = np.full(len(rows), bool(formula.expression.direct))
            for i, name in enumerate(formula.names):
                columns[name] = value[rows, i]
                good &= young[rows, i] <= formula.max_age_ns
                if name in formula.expression.direct:
                    good &= usable[rows, i]
                    certainly &= grade[rows, i] < UNCERTAIN
                    calibrated &= grade[rows, i] == Quality.UNCERTAIN_CALIBRATING
            for window, i, place in formula.windows:
                assert history is not None, "windows have their columns"
                track = history.find(moments.slot[rows, i], place)
                newest = history.newest(track, moments.newest[rows, i])
                found = history.ask(
                    window.function, track, newest, moments.time_ns[rows], formula.bad_share_max
                )
                columns[window] = np.where(found.good, found.value, np.nan)
                good &= found.good
                certainly &= found.sure
            answer = formula.expression.evaluate(columns)
            if formula.decimals is not None:
                answer = np.round(answer, formula.decimals)
            result[rows] = np.where(good, answer, np.nan)
            sure[rows] = certainly
            planned[rows] = calibrated
        if history is not None:
            history.keep()
        quality = np.where(sure, Quality.GOOD, Quality.UNCERTAIN_DERIVED)
        quality[planned] = Quality.UNCERTAIN_CALIBRATING  # what follows from it is a test alarm
        good = np.isfinite(result)
        result[~good] = np.nan
        return result, np.where(good, quality, Quality.BAD_DERIVED).astype(np.uint8)

    def _inputs(self, feed: Feed, moments: _Moments) -> tuple[NDArray[Any], ...]:
        """Of each moment's inputs: value, whether usable, quality, how old."""
        slots, slot = self.slots, moments.slot
        here, row = moments.newest >= 0, np.maximum(moments.newest, 0)
        value = np.where(here, feed.value[row], slots["value"][slot])
        usable = np.where(here, feed.usable[row], slots["usable"][slot])
        quality = np.where(here, feed.quality[row], slots["quality"][slot])
        since_ns = np.where(here, feed.time_ns[row], slots["time_ns"][slot])
        return value, usable, quality, moments.time_ns[:, None] - since_ns

    def _history(self, feed: Feed, group: NDArray[np.int64]) -> History:
        """The tracks of every group that has something new."""
        rows: list[tuple[NDArray[np.int64], int, Track, int]] = []
        groups = np.unique(group)
        which = self._of_group[groups]
        for number in np.unique(which):
            formula = self._formulas[number]
            own = groups[which == number]
            for i, tracks in enumerate(formula.tracks):
                rows += [
                    (self._slot_of[own, i], place, track, formula.max_age_ns)
                    for place, track in enumerate(tracks)
                ]
        if not rows:
            none = np.empty(0, np.int64)
            return History(self.slots, Tracks(none, none, none, none > 0, none), feed)
        counts = [len(slot) for slot, *_ in rows]
        slot = np.concatenate([slot for slot, *_ in rows])
        place = np.repeat([place for _, place, *_ in rows], counts)
        order = np.lexsort((place, slot))
        return History(
            self.slots,
            Tracks(
                slot[order],
                place[order],
                np.repeat([track.span_ns for *_, track, _ in rows], counts)[order],
                np.repeat([track.of_rises for *_, track, _ in rows], counts)[order],
                np.repeat([age_ns for *_, age_ns in rows], counts)[order],
            ),
            feed,
        )


def check(rule: Rule, parameters: CalculationParameters) -> Sequence[str]:
    faults = []
    needed, given = set(parameters.parsed.names), set(rule.inputs)
    if needed != given:
        odd = ", ".join(sorted(needed ^ given))
        faults.append(f"the names in the expression and the inputs must be the same; odd: {odd}")
    if reserved := sorted(given & RESERVED):
        faults.append(f"inputs with names the formula language does not use: {reserved}")
    if rule.group_by != GroupBy.SITE and _GROUP not in parameters.id:
        faults.append(f"id must contain {_GROUP}: there is one result for each group")
    if rule.group_by == GroupBy.POINT and len(rule.inputs) > 1:
        faults.append("several inputs are grouped by device, area, adapter or site")
    return faults


def _tracks_max(parameters: CalculationParameters) -> int:
    """Tracks of the input that has most of them."""
    return max(map(len, parameters.formula(parameters.parsed.names).tracks), default=0)


def produces(_rule: Rule, parameters: CalculationParameters) -> Point:
    return Point(id=parameters.id.replace(_GROUP, "*"), quantity=parameters.quantity)


KIND = RuleKind(
    name="calculation",
    summary="a point computed from others by a formula",
    parameters=CalculationParameters,
    plan=plan,
    build=CalculationEvaluator,
    level_count=lambda parameters: 1 + _tracks_max(parameters),  # no levels: see the evaluator
    inputs=None,
    produces=produces,
    check=check,
)
