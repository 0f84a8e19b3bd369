"""Two points that should agree: a value against its setpoint, its twin, its portable check.

    reference   50 ─────────────────────── 60 ─────────────────
    value       50 ── 53 ───────────────── 53 ─────────────────
    deviation    0    3  (H: limit 3)      7  (HH: limit 5)

Sets and resets: the number `value - reference` against the levels, as in `limit`. `absolute` (the
default) takes its magnitude, so that H alone watches both sides; without it L levels watch below.
`relative` makes it a share of the reference's magnitude: 0.05 is 5 %. A share of 0 is no number:
while the reference is 0 nothing is judged.

Judged whenever either input has something new. Samples of equal source time are applied together,
otherwise the last value of the other one holds. While an input is bad, no number or was never
heard, nothing is judged: levels hold, they do not clear. The same while an input's last sample is
older than `max_input_age_s` (a setpoint nobody sends any more says nothing).

The alarm is about the point `value`; its value is the deviation, in that point's unit (relative: a
share, no unit). Its quality is the worse of the two; under calibration it is planned.

As parameters (`decimals` as the gauges read: 0.8 - 0.6 is 0.2, not 0.20000000000000007):

    relative = true
    levels = { H = 0.05, HH = { limit = 0.1, reset = 0.08, priority = "high" } }
    max_input_age_s = 600
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from alarm_rules.kinds._common import (
    DECIMALS_MAX,
    KindEvaluator,
    Seconds,
    input_slots,
    place_of,
    rounded,
    slots_by_input,
    snapshots,
    to_ns,
)
from alarm_rules.kinds._levels import (
    LevelSet,
    LevelsParameters,
    bound_columns,
    compare,
    level_count,
    loosens_levels,
    write_bounds,
)
from gateway.contract.rule_kind import (
    FOREVER,
    Columns,
    Feed,
    GroupPlan,
    InstancePlan,
    Planning,
    PointTimes,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule

INPUTS = ("reference", "value")
"""In the order of the slots: input names are sorted."""
_REFERENCE, _VALUE = range(2)
_PLANNED = int(Quality.UNCERTAIN_CALIBRATING)


class DeviationParameters(LevelsParameters):
    """Levels of the deviation, and how it is made."""

    absolute: bool = True
    relative: bool = False
    max_input_age_s: Seconds | None = None  # None: the last value holds for ever
    decimals: int | None = Field(default=None, ge=0, le=DECIMALS_MAX)

    @cached_property
    def settings(self) -> dict[int, _Setting]:
        """Those made so far."""
        return {}

    def setting(self, levels: LevelSet) -> _Setting:
        """What the arrays need; one object for all groups of a rule."""
        found = self.settings.get(id(levels))
        if found is None:
            age_s = self.max_input_age_s
            found = self.settings[id(levels)] = _Setting(
                bounds=levels.bounds,
                absolute=self.absolute,
                relative=self.relative,
                max_age_ns=FOREVER if age_s is None else to_ns(age_s),
                decimals=-1 if self.decimals is None else self.decimals,
            )
        return found


class _Setting(NamedTuple):
    bounds: tuple[tuple[float, float, float], ...]
    absolute: bool
    relative: bool
    max_age_ns: int
    decimals: int


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each group that has one value and one reference."""
    rule, parameters = planning.rule, planning.parameters
    if not planning.key:
        planning.problem(f"points without {rule.group_by.value} cannot be grouped by it")
        return None
    for name in INPUTS:
        members = planning.inputs[name]
        if len(members) != 1:
            found = ", ".join(planning.points[index].id for index in members) or "none"
            planning.problem(f"input {name} needs one point, found {found}")
            return None
    point = planning.points[planning.inputs["value"][0]]
    shared = parameters.level_set(rule)
    place = place_of(planning, point)
    instance = InstancePlan(
        target=point.id,
        setting=parameters.setting(shared),
        **shared.planned(),
        **({**place, "unit": ""} if parameters.relative else place),
    )
    return GroupPlan(inputs=tuple(planning.inputs[name] for name in INPUTS), instances=(instance,))


class DeviationEvaluator(KindEvaluator):
    """The last sample of both inputs, and a comparison for each group."""

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    **bound_columns(width),
                    "absolute": (np.bool_, True),
                    "relative": (np.bool_, False),
                    "max_age_ns": (np.int64, FOREVER),
                    "decimals": (np.int64, -1),
                }
            ),
            input_slots(),
        )
        self._slot_of = np.empty((0, len(INPUTS)), np.int64)

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        write_bounds(self.instances, rows, setting.bounds)
        for name in ("absolute", "relative", "max_age_ns", "decimals"):
            self.instances[name][rows] = getattr(setting, name)

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._slot_of = slots_by_input(self.layout, len(INPUTS))

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        found = snapshots(feed, self.slots, self._slot_of, self.layout)
        if found is None:
            return Verdict()
        table, instance = self.instances, self.layout.group_instance[found.group]
        age_ns = found.time_ns[:, None] - found.since_ns
        judged = np.all(found.usable & (age_ns <= table["max_age_ns"][instance, None]), axis=1)
        number = self._number(instance, found.value)
        judged &= np.isfinite(number)
        sets, resets = compare(table, instance, number, judged)
        planned = (found.quality == _PLANNED).any(axis=1)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=found.time_ns,
                set=sets,
                reset=resets,
                value=number,
                quality=np.where(planned, _PLANNED, found.quality.max(axis=1)).astype(np.uint8),
            )
        )

    def _number(
        self, instance: NDArray[np.int64], value: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The deviation; NaN or infinite where it has none."""
        table, reference = self.instances, value[:, _REFERENCE]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            number = value[:, _VALUE] - reference
            share = number / np.abs(reference)
            number = np.where(table["relative"][instance], share, number)
            number = np.where(table["absolute"][instance], np.abs(number), number)
            return rounded(number, table["decimals"][instance])


def check(rule: Rule, _parameters: DeviationParameters) -> Sequence[str]:
    if rule.group_by == GroupBy.POINT:
        return ("value and reference are two points: group by device, area, adapter or site",)
    return ()


def loosens(old: DeviationParameters, new: DeviationParameters) -> Sequence[str]:
    """The levels', or another number compared with them, or fewer moments at which it is judged."""
    found = loosens_levels(old, new)
    if old.relative != new.relative:
        found.append("relative is another number than before")
    if old.absolute and not new.absolute:
        found.append("absolute is less strict: the other side is not watched")
    if new.max_input_age_s is not None and (
        old.max_input_age_s is None or new.max_input_age_s < old.max_input_age_s
    ):
        found.append("max_input_age_s is less strict: old inputs are not judged")
    if old.decimals != new.decimals:
        found.append("decimals round otherwise than before")
    return found


KIND = RuleKind(
    name="deviation",
    summary="a value away from its setpoint or its twin, in units or as a share",
    parameters=DeviationParameters,
    plan=plan,
    build=DeviationEvaluator,
    level_count=level_count,
    inputs=INPUTS,
    check=check,
    loosens=loosens,
)
