"""A code that means an alarm: fan stopped, door open, feed state wrong.

    code     1 ────── 0 ─────────── 2 ──── 9 ──── bad ──── 1
    STOPPED           ┌─────────────┐                               values = [0]
    FAULT                           └─────────────┐                 values = [2, 9]
                      set           set           holds    reset

Sets: a usable sample whose value is one of the level's codes, exactly. Resets: a usable sample with
any other value, be it another level's code or one that no level names. Levels stand in order of
severity: of several that are still in condition (off-delays) the later one is shown.

Bad values and NaN hold: a substation that no longer answers has not closed the door. Codes have no
unit; the value of the alarm is the code.

As parameters:

    levels = { STOPPED = { values = [0], priority = "high" },
               FAULT = { values = [2, 9], priority = "critical", on_delay_s = 3 } }
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alarm_rules.kinds._common import (
    BusyPoints,
    KindEvaluator,
    Parameters,
    PriorityName,
    Seconds,
    place_of,
    point_only,
    to_ns,
)
from alarm_rules.kinds._levels import loosens_timing
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
from gateway.model.condition import Level
from gateway.model.rule import Rule

LEVELS_MAX = 16
_NAME = re.compile(r"[^\W\d][\w-]{0,39}")
_NONE = -1  # the level of a code that no level names


class DiscreteLevel(Parameters):
    """One level and the codes that mean it. Delays are the rule's unless given."""

    values: tuple[float, ...] = Field(min_length=1)
    priority: PriorityName | None = None
    level: str = ""  # in the words of the rule's scheme
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None


class _Compiled(NamedTuple):
    """What every point of a rule shares, made once."""

    levels: tuple[Level, ...]
    on_delay_ns: tuple[int, ...]
    off_delay_ns: tuple[int, ...]
    codes: tuple[tuple[float, int], ...]  # (code, level)


class DiscreteParameters(Parameters):
    """Levels by name, the more severe ones later."""

    levels: dict[str, DiscreteLevel] = Field(min_length=1, max_length=LEVELS_MAX)

    @model_validator(mode="after")
    def _consistent(self) -> DiscreteParameters:
        owner: dict[float, str] = {}
        for name, level in self.levels.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"a level is named by a word, not {name!r}")
            for code in level.values:
                if code in owner:
                    raise ValueError(f"code {code:g} stands in {owner[code]} and again in {name}")
                owner[code] = name
        return self

    @cached_property
    def made(self) -> dict[tuple[Any, ...], _Compiled]:
        """Those compiled so far."""
        return {}

    def compiled(self, rule: Rule) -> _Compiled:
        key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s)
        if key not in self.made:
            rows = []
            codes: list[tuple[float, int]] = []
            for number, (name, level) in enumerate(self.levels.items()):
                on_s = rule.on_delay_s if level.on_delay_s is None else level.on_delay_s
                off_s = rule.off_delay_s if level.off_delay_s is None else level.off_delay_s
                shown = Level(
                    name, level.priority or rule.priority, None, level.level or rule.level
                )
                rows.append((shown, to_ns(on_s), to_ns(off_s)))
                codes += [(code, number) for code in level.values]
            levels, on_ns, off_ns = zip(*rows, strict=True)
            self.made[key] = _Compiled(levels, on_ns, off_ns, tuple(codes))
        return self.made[key]


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    shared = planning.parameters.compiled(planning.rule)
    instance = InstancePlan(
        target=point.id,
        levels=shared.levels,
        on_delay_ns=shared.on_delay_ns,
        off_delay_ns=shared.off_delay_ns,
        setting=shared.codes,
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


class DiscreteEvaluator(KindEvaluator):
    """A table from (rule, code) to level; codes of all rules stand in one sorted column."""

    def __init__(self, width: int) -> None:
        super().__init__(Columns(settings={"book": (np.int64, 0)}))
        self._width = width
        self._books: dict[tuple[tuple[float, int], ...], int] = {}
        self._codes = np.empty(0)
        self._level = np.empty((0, 0), np.int64)  # (book, code) -> level
        self._busy = BusyPoints()

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        self.instances["book"][rows] = self._books.setdefault(setting, len(self._books))

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._codes = np.unique(np.array([code for book in self._books for code, _ in book]))
        self._level = np.full((len(self._books), len(self._codes)), _NONE, np.int64)
        for book, number in self._books.items():
            codes, levels = zip(*book, strict=True)
            self._level[number, np.searchsorted(self._codes, codes)] = levels
        self._busy.configure(self.layout)

    def _find(self, value: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(position among the codes, whether it is one)."""
        at = np.minimum(np.searchsorted(self._codes, value), len(self._codes) - 1)
        return at, self._codes[at] == value

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        if len(self._codes) == 0:
            return np.zeros(len(rows), np.bool_)
        may_set = self._find(rows.value)[1] & self._asked[rows.point] & rows.usable
        return self._busy.choose(rows, may_set)

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        instance = self.layout.group_instance[feed.group]
        at, known = self._find(feed.value)
        level = np.where(known, self._level[self.instances["book"][instance], at], _NONE)
        here = level[:, None] == np.arange(self._width)
        usable = feed.usable[:, None]
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=here & usable,
                reset=~here & usable,
                value=feed.value,
                quality=feed.quality,
            )
        )

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        if len(instances):
            self._busy.settled(self.layout, instances, busy)


def check(rule: Rule, _parameters: DiscreteParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: DiscreteParameters, new: DiscreteParameters) -> Sequence[str]:
    """A code that no longer alarms or alarms at a milder place; a level slower or less urgent."""
    found = []
    place = {code: n for n, level in enumerate(new.levels.values()) for code in level.values}
    for number, (name, was) in enumerate(old.levels.items()):
        found += [f"{name}: code {c:g} is no alarm now" for c in was.values if c not in place]
        found += [
            f"{name}: code {c:g} is a milder level now"
            for c in was.values
            if len(new.levels) - place.get(c, len(new.levels)) > len(old.levels) - number
        ]
        if name in new.levels:
            found += loosens_timing(name, was, new.levels[name])
        else:
            found.append(f"level {name} is gone")
    return found


KIND = RuleKind(
    name="discrete",
    summary="a code that means an alarm: stopped, open, feed state wrong",
    parameters=DiscreteParameters,
    plan=plan,
    build=DiscreteEvaluator,
    level_count=lambda parameters: len(parameters.levels),
    check=check,
    loosens=loosens,
)
