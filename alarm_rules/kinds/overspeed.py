"""A vehicle faster than it may be: by its class, by where it is, by night.

    the lowest that applies of     limit_kmh                     the rule's own
                                   limits_by                     its class's, a device attribute
                                   areas                         that of the place it is in
    × night_factor                 in the night window
    speed  ─────╮OVERSPEED  > limit + tolerance_kmh ╭────  reset <= that - hysteresis_kmh
           ─────╯PREWARN    > limit - pre_warn_kmh  ╰────  reset <= that - hysteresis_kmh

Speed in km/h, fractions and all; **at** the limit is not over it. How long it must last is the
rule's on-delay, and a second pass within the off-delay is the same alarm: the official count takes
10 s to warn, 30 s to count, and one minute between two (see the pack).

Every sample is judged with the limit in force at its time; a limit that changes by the clock or by
a move applies from the next sample of speed or place. A speed that is bad holds. A place that is
bad or (0, 0) leaves the vehicle where it was last: a lost fix ends no limit. Inputs of equal time
are applied together, otherwise the last value holds.

The alarm's limit is shown where it is one number; with areas or a night it changes from sample to
sample and is left out.

Inputs: `speed`; `lon` and `lat` for areas with a shape, `area` for areas by id. As parameters:

    limit_kmh = 100
    limits_by = { attribute = "vehicle_class", values = { hazmat = 80, coach = 100 } }
    night_factor = 0.8
    night = { from = "22:00", to = "06:00" }      # that is the default
    utc_offset_h = 8
    areas = [
        { shape = { circle = { lon = 116.0, lat = 39.0, radius_m = 300 } }, limit_kmh = 60 },
        { area = "haul-road", limit_kmh = 25 },
    ]
    tolerance_kmh = 0
    hysteresis_kmh = 0
    pre_warn_kmh = 5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import (
    KindEvaluator,
    Parameters,
    PriorityName,
    Snapshots,
    input_slots,
    slots_by_input,
    snapshots,
    to_ns,
)
from alarm_rules.kinds._fence import Fence, Shape, to_grid
from alarm_rules.kinds._place import (
    AREA_KIND,
    DayWindow,
    UtcOffset,
    area_codes,
    attributes_of,
    described,
    has_one_each,
    into_window,
    is_position,
    milder,
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
from gateway.model.condition import Level
from gateway.model.rule import GroupBy, Rule

_INPUTS = ("speed", "lon", "lat", "area")
_SPEED, _LON, _LAT, _AREA = range(4)

Kmh = Annotated[float, Field(gt=0, le=500)]
Margin = Annotated[float, Field(ge=0, le=500)]


class LimitsBy(Parameters):
    """A limit for each value of an attribute."""

    attribute: str = Field(min_length=1)
    values: dict[str, Kmh] = Field(min_length=1)


class SpeedArea(Parameters):
    """A place with a limit of its own: a shape, or an area device."""

    shape: Shape | None = None
    area: str = ""
    limit_kmh: Kmh

    @model_validator(mode="after")
    def _is_one_place(self) -> SpeedArea:
        if (self.shape is None) == (not self.area):
            raise ValueError("exactly one of shape, area")
        return self


class OverspeedParameters(Parameters):
    """Limits and margins, in km/h."""

    limit_kmh: Kmh | None = None
    limits_by: LimitsBy | None = None
    night_factor: float | None = Field(default=None, gt=0, le=1)
    night: DayWindow | None = None  # with a factor: 22:00 to 06:00 unless given
    utc_offset_h: UtcOffset = 8.0
    areas: tuple[SpeedArea, ...] = ()
    tolerance_kmh: Margin = 0.0
    hysteresis_kmh: Margin = 0.0
    pre_warn_kmh: Margin | None = None
    pre_warn_priority: PriorityName | None = None
    _made: dict[str, Any] = PrivateAttr(default_factory=dict)
    _made_for: tuple[Any, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _has_a_limit(self) -> OverspeedParameters:
        if self.limit_kmh is None and self.limits_by is None and not self.areas:
            raise ValueError("limit_kmh, limits_by or areas must say how fast is too fast")
        if self.night is not None and self.night_factor is None:
            raise ValueError("night without night_factor")
        if self.pre_warn_priority is not None and self.pre_warn_kmh is None:
            raise ValueError("pre_warn_priority without pre_warn_kmh")
        return self

    @property
    def night_window(self) -> DayWindow | None:
        if self.night_factor is None:
            return None
        return self.night or DayWindow.model_validate({"from": "22:00", "to": "06:00"})


class _Setting(NamedTuple):
    """What one vehicle is judged by."""

    base_kmh: float
    rule: _OfRule


class _OfRule(NamedTuple):
    """What all vehicles of a rule share."""

    parameters: OverspeedParameters
    fences: tuple[tuple[Fence, float], ...]
    areas: tuple[tuple[int, float], ...]  # code, limit


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each vehicle that has a speed and a limit."""
    if not has_one_each(planning, [name for name in _INPUTS if name in planning.inputs]):
        return None
    parameters, table = planning.parameters, planning.points
    (speed,) = planning.inputs["speed"]
    base = _base_kmh(planning, attributes_of(planning, table[speed]))
    if base is None and not parameters.areas:
        return None
    key = (id(table), table.version, planning.rule)
    if parameters._made_for != key:  # noqa: SLF001  our own
        parameters._made = {}  # noqa: SLF001
        parameters._made_for = key  # noqa: SLF001
    made = parameters._made  # noqa: SLF001
    shared = made.get("shared") or made.setdefault("shared", _of_rule(planning))
    limit = base if not parameters.areas and parameters.night_factor is None else None
    setting = made.setdefault(f"{base}", _Setting(math.inf if base is None else base, shared))
    planned = made.setdefault(f"levels {limit}", _planned(planning.rule, parameters, limit))
    instance = InstancePlan(
        target=planning.key,
        setting=setting,
        measures=True,
        **planned,
        **{**described(planning, table[speed].unit), "point_id": table[speed].id},
    )
    return GroupPlan(
        inputs=tuple(planning.inputs.get(name, ()) for name in _INPUTS), instances=(instance,)
    )


def _base_kmh(planning: Planning, attributes: dict[str, str]) -> float | None:
    """The lower of the rule's and the class's limit; None when there is neither."""
    parameters, limits = planning.parameters, []
    if parameters.limit_kmh is not None:
        limits.append(parameters.limit_kmh)
    by = parameters.limits_by
    if by is not None:
        text = attributes.get(by.attribute, "")
        if text in by.values:
            limits.append(by.values[text])
        elif not limits:
            planning.problem(f"no limit for {by.attribute} {text!r}")
    return min(limits, default=None)


def _planned(rule: Rule, parameters: OverspeedParameters, limit: float | None) -> dict[str, Any]:
    """The plan fields that vehicles with one limit share."""
    levels: tuple[Level, ...] = (Level("OVERSPEED", rule.priority, limit, rule.level),)
    if parameters.pre_warn_kmh is not None:
        priority = parameters.pre_warn_priority or milder(rule.priority)
        before = None if limit is None else limit - parameters.pre_warn_kmh
        levels = (Level("PREWARN", priority, before), *levels)
    return {
        "levels": levels,
        "on_delay_ns": (to_ns(rule.on_delay_s),) * len(levels),
        "off_delay_ns": (to_ns(rule.off_delay_s),) * len(levels),
        "resets": tuple(math.nan if level.limit is None else level.limit for level in levels),
    }


def _of_rule(planning: Planning) -> _OfRule:
    parameters, table = planning.parameters, planning.points
    unknown = [a.area for a in parameters.areas if a.area and table.device(a.area) is None]
    if unknown:
        planning.problem(f"no such area: {', '.join(unknown)}")
    return _OfRule(
        parameters,
        tuple((a.shape.fence, a.limit_kmh) for a in parameters.areas if a.shape is not None),
        tuple(
            (table.device_index(a.area), a.limit_kmh)
            for a in parameters.areas
            if a.area and a.area not in unknown
        ),
    )


class OverspeedEvaluator(KindEvaluator):
    """Compares the speed with the lowest limit that applies."""

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    "rule": (np.int64, -1),
                    "base": (np.float64, np.inf),
                    "night_factor": (np.float64, 1.0),
                    "night_phase": (np.int64, 0),
                    "night_length": (np.int64, 0),
                    "tolerance": (np.float64, 0.0),
                    "hysteresis": (np.float64, 0.0),
                    "before": (np.float64, 0.0),
                    "has": (np.bool_, False, 2),  # PREWARN, OVERSPEED
                },
                saved={
                    "place": (np.float64, np.nan, 3),  # lon, lat and area, each as last known
                },
            ),
            input_slots(),
        )
        self._width = width
        self._rules: list[_OfRule] = []
        self._slot_of = np.empty((0, 4), np.int64)

    def configure_rows(self, rows: Any, setting: _Setting) -> None:
        table, parameters = self.instances, setting.rule.parameters
        known = [number for number, other in enumerate(self._rules) if other is setting.rule]
        if not known:
            known = [len(self._rules)]
            self._rules.append(setting.rule)
        table["rule"][rows] = known[0]
        table["base"][rows] = setting.base_kmh
        window = parameters.night_window
        table["night_factor"][rows] = parameters.night_factor or 1.0
        table["night_phase"][rows] = window.phase_ns(parameters.utc_offset_h) if window else 0
        table["night_length"][rows] = window.length_ns if window else 0
        table["tolerance"][rows] = parameters.tolerance_kmh
        table["hysteresis"][rows] = parameters.hysteresis_kmh
        table["before"][rows] = parameters.pre_warn_kmh or 0.0
        table["has"][rows] = (parameters.pre_warn_kmh is not None, True)

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._slot_of = slots_by_input(self.layout, len(_INPUTS))

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        found = snapshots(feed, self.slots, self._slot_of, self.layout)
        if found is None:
            return Verdict()
        instance = self.layout.group_instance[found.group]
        place = self._places(found, instance)
        usable = found.usable[:, _SPEED]
        found_rows = np.flatnonzero(usable)
        instance, time_ns = instance[found_rows], found.time_ns[found_rows]
        speed = found.value[found_rows, _SPEED]
        limit = self._limits(instance, time_ns, place[found_rows])
        is_set, is_reset = self._compare(instance, speed, limit)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=time_ns,
                set=is_set,
                reset=is_reset,
                value=speed,
                quality=found.quality[found_rows, _SPEED],
            )
        )

    def _places(self, found: Snapshots, instance: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where each was last known to be, up to each row: lon, lat, area."""
        fix = is_position(
            found.value[:, _LON],
            found.value[:, _LAT],
            found.usable[:, _LON] & found.usable[:, _LAT],
        )
        known = np.column_stack([fix, fix, found.usable[:, _AREA]])
        first = seg.heads(found.group)
        table = self.instances["place"]
        place = seg.forward_fill(
            found.value[:, _LON:], known, seg.starts_of(first), table[instance]
        )
        last = np.append(first[1:], True)
        table[instance[last]] = place[last]
        return place

    def _limits(
        self,
        instance: NDArray[np.int64],
        time_ns: NDArray[np.int64],
        place: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        table = self.instances
        limit = table["base"][instance].copy()
        number = table["rule"][instance]
        located = ~np.isnan(place[:, 0])
        for n in np.unique(number):
            of_rule = self._rules[n]
            if of_rule.fences:
                at = np.flatnonzero((number == n) & located)
                lon, lat = to_grid(place[at, 0]), to_grid(place[at, 1])
                for fence, kmh in of_rule.fences:
                    inside = at[fence.contains(lon, lat)]
                    limit[inside] = np.minimum(limit[inside], kmh)
            if of_rule.areas:
                at = np.flatnonzero(number == n)
                code = area_codes(place[at, 2])
                for area, kmh in of_rule.areas:
                    inside = at[code == area]
                    limit[inside] = np.minimum(limit[inside], kmh)
        into_night = into_window(time_ns, table["night_phase"][instance])
        is_night = into_night < table["night_length"][instance]
        return np.where(is_night, limit * table["night_factor"][instance], limit)

    def _compare(
        self,
        instance: NDArray[np.int64],
        speed: NDArray[np.float64],
        limit: NDArray[np.float64],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """PREWARN and OVERSPEED in the columns of each one's rule."""
        table = self.instances
        bound = np.column_stack(
            [limit - table["before"][instance], limit + table["tolerance"][instance]]
        )
        over = speed[:, None] > bound
        back = speed[:, None] <= bound - table["hysteresis"][instance][:, None]
        has = table["has"][instance]
        only = ~has[:, :1]  # OVERSPEED alone stands in the first column
        is_set = np.where(only, over[:, ::-1], over) & np.where(only, has[:, ::-1], has)
        is_reset = np.where(only, back[:, ::-1], back) & np.where(only, has[:, ::-1], has)
        return is_set[:, : self._width], is_reset[:, : self._width]


def check(rule: Rule, parameters: OverspeedParameters) -> Sequence[str]:
    found = []
    names = set(rule.inputs)
    if "speed" not in names or not names <= set(_INPUTS):
        found.append(f"inputs: speed, and as needed {', '.join(_INPUTS[1:])}")
    if ("lon" in names) != ("lat" in names):
        found.append("inputs lon and lat come together")
    if any(a.shape for a in parameters.areas) and not {"lon", "lat"} <= names:
        found.append("areas with a shape need the inputs lon and lat")
    if any(a.area for a in parameters.areas) and "area" not in names:
        found.append("areas by id need the input area")
    return found


def loosens(old: OverspeedParameters, new: OverspeedParameters) -> Sequence[str]:
    """A higher limit, a wider margin, or a limit gone."""
    found = [
        f"{name} is less strict"
        for name in ("limit_kmh", "night_factor")
        if (was := getattr(old, name)) is not None
        and ((now := getattr(new, name)) is None or now > was)
    ]
    found += [
        f"{name} is less strict"
        for name, wider in (("tolerance_kmh", 1), ("hysteresis_kmh", -1))
        if wider * getattr(new, name) > wider * getattr(old, name)
    ]
    if old.pre_warn_kmh is not None and (new.pre_warn_kmh or 0) < old.pre_warn_kmh:
        found.append("pre_warn_kmh is less strict")
    if old.limits_by is not None and not _is_stricter(old.limits_by, new.limits_by):
        found.append("limits_by is less strict")
    if old.night_factor is not None and (
        (old.night_window, old.utc_offset_h) != (new.night_window, new.utc_offset_h)
    ):
        found.append("night is another one")
    kept = {(repr(a.shape), a.area): a.limit_kmh for a in new.areas}
    if any(kept.get((repr(a.shape), a.area), math.inf) > a.limit_kmh for a in old.areas):
        found.append("areas are less strict")
    return found


def _is_stricter(old: LimitsBy, new: LimitsBy | None) -> bool:
    if new is None or new.attribute != old.attribute:
        return False
    return all(new.values.get(name, math.inf) <= kmh for name, kmh in old.values.items())


KIND = RuleKind(
    name="overspeed",
    summary="faster than the class, the place or the night allows",
    parameters=OverspeedParameters,
    plan=plan,
    build=OverspeedEvaluator,
    level_count=lambda parameters: 1 if parameters.pre_warn_kmh is None else 2,
    inputs=None,
    group_by=lambda _rule, _parameters: str(GroupBy.DEVICE.value),
    per_device=(AREA_KIND,),
    check=check,
    loosens=loosens,
)
