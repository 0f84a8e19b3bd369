"""A person where he may not be: restricted areas, or all but the permitted ones.

    mode = "forbid"     areas listed: alarm        others: fine
    mode = "permit"     areas listed: fine         anywhere else inside: alarm
    outside (-1): fine in both

The input is an `area` point: the device_index of the area someone is in. **Sets**: a sample that
says he is where he may not be. **Resets**: a sample that says he is elsewhere or out. Bad values
and the mine as a whole (underground, nobody knows where) hold: unknown is neither in nor out. Of
two values at one time the forbidden place counts. Calibration makes no alarm about people planned:
it is uncertain here.

Who may: a device attribute of the person lists the areas he may enter besides (`*` for all), or he
is one of those with an attribute such as a job. Both are read again when the device changes.

As parameters:

    areas = ["goaf-2"]                                             # device ids
    areas_by = { attribute = "area_type", values = ["限制区域"] }    # and every area like this
    mode = "forbid"
    allowed_attribute = "allowed_areas"                            # of the person: "goaf-2 goaf-3"
    allowed_by = { attribute = "job", values = ["瓦斯检查工"] }
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import PrivateAttr, model_validator

from alarm_rules.kinds._common import KindEvaluator, Parameters, one_level, place_of, point_only
from alarm_rules.kinds._place import (
    AREA_KIND,
    MINE_KIND,
    NO,
    YES,
    AreaRules,
    AreaSet,
    ByAttribute,
    attributes_of,
    chosen_areas,
    mine_codes,
    split_names,
)
from gateway.contract.rule_kind import (
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
from gateway.model.quality import UNCERTAIN, Quality
from gateway.model.rule import Rule

EVERY = "*"


class AreaParameters(Parameters):
    """Which areas, and for whom they are open."""

    areas: tuple[str, ...] = ()
    areas_by: ByAttribute | None = None
    mode: Literal["forbid", "permit"] = "forbid"
    allowed_attribute: str = ""
    allowed_by: ByAttribute | None = None
    _made: dict[Any, AreaSet] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_areas(self) -> AreaParameters:
        if not self.areas and self.areas_by is None:
            raise ValueError("areas or areas_by must say which areas")
        return self


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each person's area point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    instance = InstancePlan(
        target=point.id,
        setting=_areas_of(planning, attributes_of(planning, point)),
        **one_level(planning.rule, "FORBIDDEN"),
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


def _areas_of(planning: Planning, attributes: dict[str, str]) -> AreaSet:
    """People with the same permissions share one set, and a pass over thousands makes it once."""
    parameters, table = planning.parameters, planning.points
    is_exempt = parameters.allowed_by is not None and parameters.allowed_by.chooses(attributes)
    allowed = EVERY if is_exempt else attributes.get(parameters.allowed_attribute, "")
    key = (id(table), table.version, allowed)
    made: dict[Any, AreaSet] = parameters._made  # noqa: SLF001  our own
    if key not in made:
        if any(known[:2] != key[:2] for known in made):
            made.clear()
        made[key] = _area_set(planning, split_names(allowed))
    return made[key]


def _area_set(planning: Planning, allowed: Sequence[str]) -> AreaSet:
    parameters = planning.parameters
    codes, unknown = chosen_areas(planning, parameters.areas, parameters.areas_by)
    if unknown:
        planning.problem(f"no such area: {', '.join(unknown)}")
    if EVERY in allowed:
        return AreaSet(frozenset(), NO, NO)
    open_too, _ = chosen_areas(planning, allowed, None)
    vague = mine_codes(planning) - codes
    if parameters.mode == "forbid":
        return AreaSet(codes - open_too, YES, NO, vague)
    return AreaSet(codes | open_too, NO, YES, vague)


class AreaEvaluator(KindEvaluator):
    """Looks every sample up; remembers nothing."""

    def __init__(self, _width: int) -> None:
        super().__init__(Columns(settings={"areas": (np.int64, 0)}))
        self._rules = AreaRules()

    def configure_rows(self, rows: Any, setting: AreaSet) -> None:
        self.instances["areas"][rows] = self._rules.number(setting)

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._rules.build()

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = feed.take(feed.usable)
        instance = self.layout.group_instance[feed.group]
        says = self._rules.ask(self.instances["areas"][instance], feed.value)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=(says == YES)[:, None],
                reset=(says == NO)[:, None],
                value=feed.value,
                quality=np.where(
                    feed.quality == Quality.UNCERTAIN_CALIBRATING, UNCERTAIN, feed.quality
                ),
            )
        )


def check(rule: Rule, _parameters: AreaParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: AreaParameters, new: AreaParameters) -> Sequence[str]:
    """Fewer forbidden or more permitted areas, or more people exempt."""
    found = []
    if new.mode != old.mode:
        found.append("mode is another one")
    strict, loose = (new, old) if old.mode == "forbid" else (old, new)
    if not set(strict.areas) >= set(loose.areas):
        found.append("areas are less strict")
    if new.areas_by != old.areas_by and not (old.areas_by is None and old.mode == "forbid"):
        found.append("areas_by is another one")
    for name, nothing in (("allowed_attribute", ""), ("allowed_by", None)):
        if getattr(new, name) not in {getattr(old, name), nothing}:
            found.append(f"{name} lets more people in")
    return found


KIND = RuleKind(
    name="area",
    summary="somebody in a restricted area, or outside the permitted ones",
    parameters=AreaParameters,
    plan=plan,
    build=AreaEvaluator,
    level_count=lambda _parameters: 1,
    per_device=(AREA_KIND, MINE_KIND),
    check=check,
    loosens=loosens,
)
