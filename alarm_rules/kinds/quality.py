"""Instrument alarms (BADQ): samples come, and say themselves that they are worth nothing.

    quality  good ── sensor_fault ── communication ── sensor_fault ── good
    BADQ             ┌──────────────────────────────────────────────┐      reasons = SENSOR_FAULT
                     set             holds: no word on the sensor    reset

Sets: a sample of one of the listed qualities, or of a whole category. Resets: a usable sample (not
bad, a number) that is none of them. A bad sample for another reason holds: a line that is down does
not mend the sensor behind it. Silence holds too, and has an alarm of its own (offline).

A value that is no number under a good quality counts as BAD_NOT_A_NUMBER. The alarm has no value
and no unit; its quality says the reason. A rule that asks for several reasons is one alarm; for one
alarm each, write one rule each (`name` tells them apart).

As parameters:

    categories = ["bad"]                                # or "uncertain"; and / or
    reasons = ["BAD_SENSOR_FAULT", "BAD_OVER_RANGE"]    # names of gateway.model.quality.Quality
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from alarm_rules.kinds._common import (
    BusyPoints,
    KindEvaluator,
    Parameters,
    one_level,
    place_of,
    point_only,
)
from gateway.contract.rule_kind import (
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Planning,
    PointTimes,
    Rows,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.quality import BAD, UNCERTAIN, Quality
from gateway.model.rule import Rule

_CODES = 256
_NAME = re.compile(r"[^\W\d][\w-]{0,39}")
_FROM = {"bad": (BAD, _CODES), "uncertain": (UNCERTAIN, BAD)}


class QualityParameters(Parameters):
    """Which qualities are an alarm."""

    reasons: tuple[str, ...] = ()
    categories: tuple[Literal["bad", "uncertain"], ...] = ()
    name: str = "BADQ"  # of the level

    @field_validator("reasons")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in Quality.__members__:
                raise ValueError(f"{name!r} is no quality: {', '.join(Quality.__members__)}")
            if name == Quality.GOOD.name:
                raise ValueError("GOOD is what ends the alarm")
        return names

    @model_validator(mode="after")
    def _asks_for_something(self) -> QualityParameters:
        if not self.reasons and not self.categories:
            raise ValueError("reasons or categories must say which qualities are an alarm")
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a level is named by a word, not {self.name!r}")
        return self

    @property
    def codes(self) -> frozenset[int]:
        """Every quality byte that is an alarm; codes no one has named yet belong to a category."""
        found = {int(Quality[name]) for name in self.reasons}
        for category in self.categories:
            found |= set(range(*_FROM[category]))
        return frozenset(found)


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    parameters = planning.parameters
    instance = InstancePlan(
        target=point.id,
        setting=parameters,
        **one_level(planning.rule, parameters.name),
        **{**place_of(planning, point), "unit": ""},
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


class QualityEvaluator(KindEvaluator):
    """One row of 256 flags for each different set of qualities."""

    def __init__(self, _width: int) -> None:
        super().__init__(Columns(settings={"book": (np.int64, 0)}))
        self._books: dict[frozenset[int], int] = {}
        self._is_alarm = np.zeros((0, _CODES), np.bool_)
        self._any: NDArray[np.bool_] = np.zeros(_CODES, np.bool_)
        self._busy = BusyPoints()

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        self.instances["book"][rows] = self._books.setdefault(setting.codes, len(self._books))

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._is_alarm = np.zeros((len(self._books), _CODES), np.bool_)
        for codes, number in self._books.items():
            self._is_alarm[number, list(codes)] = True
        self._any = np.logical_or.reduce(self._is_alarm, axis=0)
        self._busy.configure(self.layout)

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        return self._busy.choose(rows, self._any[_said(rows)] & self._asked[rows.point])

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        instance = self.layout.group_instance[feed.group]
        said = _said(feed)
        alarm = self._is_alarm[self.instances["book"][instance], said]
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=alarm[:, None],
                reset=(feed.usable & ~alarm)[:, None],
                value=np.full(len(feed), np.nan),
                quality=said,
            )
        )

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        if len(instances):
            self._busy.settled(self.layout, instances, busy)


def _said(rows: Rows | Feed) -> NDArray[np.uint8]:
    """The quality, or BAD_NOT_A_NUMBER for what is not bad and still no number."""
    odd = ~rows.usable & (rows.quality < BAD)
    return np.where(odd, np.uint8(Quality.BAD_NOT_A_NUMBER), rows.quality)


def check(rule: Rule, _parameters: QualityParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: QualityParameters, new: QualityParameters) -> Sequence[str]:
    """A quality that is no alarm any more."""
    gone = old.codes - new.codes
    named = [quality.name for quality in Quality if quality in gone]
    return [f"{name} is no alarm now" for name in named or ["a quality"] if gone]


KIND = RuleKind(
    name="quality",
    summary="instrument alarms from bad or uncertain samples, by reason",
    parameters=QualityParameters,
    plan=plan,
    build=QualityEvaluator,
    level_count=lambda _parameters: 1,
    check=check,
    loosens=loosens,
)
