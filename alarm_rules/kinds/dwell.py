"""Too long in one place: over-time underground, staying in a key area.

    area point   out ── in ───────────── out ─ in ────────────────── out ─────────
                        entered          └ shorter than leave_min_s   └ left after leave_min_s
    time since          0 ─────────────────────── warn_s ── limit_s ──┐
    level                                         WARN ──── OVERTIME ──┴─ normal

**Inside** is any of the listed areas, taken together, or anywhere at all (code >= 0) where none is
listed; to time areas apart, give each a rule. The time counts from the first sample inside after
one outside; the first sample ever counts too if it is inside: an earlier entry is not known.

**Sets**: by the clock, at exactly entry + limit, with or without new samples; a person whose card
falls silent underground comes up in time. **Resets**: when he was outside for `leave_min_s`. A
reader that misses him once must not start the twelve hours anew; 0 believes every sample. Bad
values, and with listed areas the mine as a whole (nobody knows where), change nothing. Calibration
makes no stay planned and restarts none: it is uncertain here.

The rule's own on-delay adds to both limits. Alarms have no value but the time they began at. Of two
values at one time the larger area code counts.

As parameters (12 h and 10 h are engineering defaults, there is no statutory number):

    limit_s = 43_200
    warn_s = 36_000
    warn_priority = "low"          # one below the rule's, unless given
    leave_min_s = 60
    areas = ["face-3101"]          # or none
    areas_by = { attribute = "area_type", values = ["重点区域"] }
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import (
    KindEvaluator,
    Parameters,
    PriorityName,
    Seconds,
    input_slots,
    place_of,
    point_only,
    remember,
    to_ns,
    what_is_new,
)
from alarm_rules.kinds._place import (
    AREA_KIND,
    MINE_KIND,
    NO,
    UNKNOWN,
    YES,
    AreaRules,
    AreaSet,
    ByAttribute,
    Int,
    Mask,
    chosen_areas,
    milder,
    mine_codes,
)
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
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
from gateway.model.quality import UNCERTAIN, Quality
from gateway.model.rule import Rule

Told = tuple[Int, Int, NDArray[np.uint8]]
"""(instance, time, quality) of what is said."""


class DwellParameters(Parameters):
    """How long, and where."""

    limit_s: Seconds = Field(gt=0)
    warn_s: Seconds | None = Field(default=None, gt=0)
    warn_priority: PriorityName | None = None
    leave_min_s: Seconds = 0.0
    areas: tuple[str, ...] = ()
    areas_by: ByAttribute | None = None
    _made: dict[str, Any] = PrivateAttr(default_factory=dict)
    _made_for: tuple[Any, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _warns_before(self) -> DwellParameters:
        if self.warn_s is not None and self.warn_s >= self.limit_s:
            raise ValueError("warn_s comes before limit_s")
        if self.warn_s is None and self.warn_priority is not None:
            raise ValueError("warn_priority without warn_s")
        return self


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each person's area point."""
    (index,) = planning.inputs["value"]
    point, parameters, table = planning.points[index], planning.parameters, planning.points
    key = (id(table), table.version, planning.rule)
    made = parameters._made  # noqa: SLF001  our own
    if parameters._made_for != key:  # noqa: SLF001
        made.update(_shared(planning))
        parameters._made_for = key  # noqa: SLF001
    instance = InstancePlan(target=point.id, **made, **{**place_of(planning, point), "unit": "s"})
    return GroupPlan(inputs=((index,),), instances=(instance,))


def _shared(planning: Planning) -> dict[str, Any]:
    """The plan fields that are alike for everybody."""
    rule, parameters = planning.rule, planning.parameters
    levels = [Level("OVERTIME", rule.priority, parameters.limit_s, rule.level)]
    if parameters.warn_s is not None:
        priority = parameters.warn_priority or milder(rule.priority)
        levels.insert(0, Level("WARN", priority, parameters.warn_s))
    return {
        "levels": tuple(levels),
        "on_delay_ns": tuple(to_ns(rule.on_delay_s) + to_ns(lv.limit or 0) for lv in levels),
        "off_delay_ns": (to_ns(rule.off_delay_s),) * len(levels),
        "setting": (_area_set(planning), to_ns(parameters.leave_min_s), len(levels)),
    }


def _area_set(planning: Planning) -> AreaSet:
    parameters = planning.parameters
    if not parameters.areas and parameters.areas_by is None:
        return AreaSet(frozenset(), YES, YES)
    codes, unknown = chosen_areas(planning, parameters.areas, parameters.areas_by)
    if unknown:
        planning.problem(f"no such area: {', '.join(unknown)}")
    return AreaSet(codes, YES, NO, mine_codes(planning) - codes)


class DwellEvaluator(KindEvaluator):
    """Who is inside, and since when somebody may have left. The time itself is the core's delay.

    in ──out──▶ leaving ──leave_min_s──▶ out (told)
     ▲            │ in
     └────────────┘
    """

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    "areas": (np.int64, 0),
                    "leave_ns": (np.int64, 0),
                    "has": (np.bool_, False, width),  # the levels of its rule
                },
                saved={
                    "inside": (np.bool_, False),  # as the newest sample says
                    "leaving": (np.bool_, False),  # outside, and it has not been told
                    "out_since_ns": (np.int64, NEVER),
                    "quality": (np.uint8, 0),  # of the sample he was outside in first
                },
            ),
            input_slots(),
        )
        self._rules = AreaRules()

    def configure_rows(self, rows: Any, setting: tuple[AreaSet, int, int]) -> None:
        area_set, leave_ns, count = setting
        self.instances["areas"][rows] = self._rules.number(area_set)
        self.instances["leave_ns"][rows] = leave_ns
        self.instances["has"][rows] = np.arange(self.instances["has"].shape[1]) < count

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        self._rules.build()

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = what_is_new(feed, self.slots)
        remember(feed, self.slots)
        feed = feed.take(feed.usable)
        instance = self.layout.group_instance[feed.group]
        says = self._rules.ask(self.instances["areas"][instance], feed.value)
        told = np.flatnonzero(says != UNKNOWN)
        if len(told) == 0:
            return Verdict()
        return Verdict(self._follow(feed.take(told), instance[told], says[told] == YES))

    def _follow(self, feed: Feed, instance: Int, inside: Mask) -> Signals:
        """The runs inside and outside, from the one that was open before."""
        table = self.instances
        touched = np.unique(instance)
        rank = np.concatenate([touched, instance])
        order = np.argsort(rank, kind="stable")
        rank = rank[order]
        now_in = np.concatenate([table["inside"][touched], inside])[order]
        time_ns = np.concatenate([table["out_since_ns"][touched], feed.time_ns])[order]
        quality = np.concatenate([table["quality"][touched], feed.quality])[order]
        quality = np.where(quality == Quality.UNCERTAIN_CALIBRATING, UNCERTAIN, quality)
        first = np.flatnonzero(seg.heads(rank, now_in))  # a run begins
        carried = seg.heads(rank)[first]
        last = np.append(first[1:], len(rank)) - 1
        is_open = np.append(carried[1:], True)  # the segment's last run
        end_ns = np.where(is_open, time_ns[last], time_ns[np.minimum(last + 1, len(rank) - 1)])
        who, begin_ns = rank[first], time_ns[first]
        came_out = ~now_in[first] & (~carried | table["leaving"][who])
        left = came_out & (end_ns - begin_ns >= table["leave_ns"][who])
        table["inside"][touched] = now_in[first][is_open]
        table["leaving"][touched] = (came_out & ~left)[is_open]
        table["out_since_ns"][touched] = begin_ns[is_open]
        table["quality"][touched] = quality[first][is_open]
        waiting = touched[table["leaving"][touched]]
        due_ns = table["out_since_ns"][waiting] + table["leave_ns"][waiting]
        self.due_ns = int(due_ns.min(initial=self.due_ns))
        sets, resets = np.flatnonzero(now_in & ~seg.heads(rank)), first[left]
        return self._told(
            (rank[sets], time_ns[sets], quality[sets]),
            (rank[resets], time_ns[resets], quality[resets]),
        )

    def _told(self, entered: Told, out: Told) -> Signals:
        """Samples inside set; having been outside long enough resets, and a clock says so."""
        instance = np.concatenate([entered[0], out[0]])
        time_ns = np.concatenate([entered[1], out[1]])
        quality = np.concatenate([entered[2], out[2]])
        is_reset = np.arange(len(instance)) >= len(entered[0])
        leave_ns = np.where(is_reset, self.instances["leave_ns"][instance], 0)
        timed = leave_ns > 0
        time_ns = time_ns + leave_ns
        order = np.lexsort((~timed, time_ns, instance))
        instance, is_reset = instance[order], is_reset[order, None]
        has = self.instances["has"][instance]
        return Signals(
            instance=instance,
            time_ns=time_ns[order],
            set=has & ~is_reset,
            reset=has & is_reset,
            value=np.full(len(order), np.nan),
            quality=quality[order],
            timed=timed[order],
        )

    def timers(self, now_ns: int, _times: PointTimes) -> Signals | None:
        """Everybody who has been outside long enough by now."""
        table = self.instances
        rows = np.flatnonzero(table["leaving"] & self.layout.instance_live)
        due_ns = table["out_since_ns"][rows] + table["leave_ns"][rows]
        over = due_ns <= self.clock(now_ns, rows)
        self.due_ns = int(due_ns[~over].min(initial=FOREVER))
        rows = rows[over]
        table["leaving"][rows] = False
        none = np.empty(0, np.int64)
        return self._told(
            (none, none, none.astype(np.uint8)),
            (rows, table["out_since_ns"][rows], table["quality"][rows]),
        )

    def settled(self, instances: NDArray[np.int64], _busy: NDArray[np.bool_]) -> None:
        if len(instances) == len(self.instances):  # after a refresh or a load: look at everything
            self.due_ns = NEVER


def check(rule: Rule, _parameters: DwellParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: DwellParameters, new: DwellParameters) -> Sequence[str]:
    """Longer stays, sooner believed to have left, or fewer places."""
    found = [
        f"{name} is less strict"
        for name in ("limit_s", "warn_s")
        if (was := getattr(old, name)) is not None
        and ((now := getattr(new, name)) is None or now > was)
    ]
    if new.leave_min_s < old.leave_min_s:
        found.append("leave_min_s is less strict")
    was_any = not old.areas and old.areas_by is None
    is_any = not new.areas and new.areas_by is None
    if not is_any and (was_any or not set(new.areas) >= set(old.areas)):
        found.append("areas are left out")
    if not is_any and not was_any and old.areas_by not in {None, new.areas_by}:
        found.append("areas_by is another one")
    return found


KIND = RuleKind(
    name="dwell",
    summary="somebody underground, or in an area, for too long",
    parameters=DwellParameters,
    plan=plan,
    build=DwellEvaluator,
    level_count=lambda parameters: 1 if parameters.warn_s is None else 2,
    per_device=(AREA_KIND, MINE_KIND),
    check=check,
    loosens=loosens,
)
