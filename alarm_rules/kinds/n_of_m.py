"""N of M sensors agree: one that lies neither trips nor holds back a trip (2oo3 and the like).

    A  ────╭───────────────  yes         good samples vote, each sensor with its own hysteresis
    B  ────────╭────╳ bad    yes, then gone: no vote, but not taken for a no either
    C  ────────────────────  no
    2oo3       ╰─ VOTE ───── stays

Sets when the *yes* votes of sensors that are there reach the number needed. Resets when even the
last known votes of all sensors stay below it: a sensor that falls silent or turns bad after a *yes*
holds the alarm (no data is not normal). A sensor is **missing** while its newest sample is bad,
uncertain (calibrating too) or no number, is older than `max_input_age_s`, or never came.

When sensors are missing, `strict` still needs n votes (2oo3 becomes 2oo2: fewer false trips);
`proportional` needs n in proportion, rounded down and at least one (2oo3 becomes 1oo2, then 1oo1:
no trip is lost). Either way it is flagged: the quality of the vote is *uncertain (derived)*, and a
second alarm, `<target>.missing`, says how many are left.

Values: VOTE shows the number of yes votes, its limit is n; MISSING shows how many vote, its limit
is m. Fewer sensors than `m` (or than n) found on the site is told as a problem too.

As parameters (`group_by` device, area, adapter or site):

    n = 2              m = 3            # m: as many as match unless given
    limit = 20.0       reset = 15.0     operator = ">="
    degrade = "proportional"            max_input_age_s = 60
    missing_priority = "low"            missing_delay_s = 60
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

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
    one_level,
    remember,
    to_ns,
    what_is_new,
)
from alarm_rules.kinds._levels import bound
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
from gateway.model.rule import GroupBy, Priority, Rule

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
MISSING_DELAY_S = 60.0
"""Engineering: sensors of one place report within a minute of each other, after a start too."""


class NOfMParameters(Parameters):
    """How many of how many, and what a vote is."""

    n: int = Field(ge=1)
    m: int | None = Field(default=None, ge=1)
    limit: float
    reset: float | None = None  # the limit itself unless given
    operator: Literal[">=", ">", "<=", "<"] = ">="
    degrade: Literal["strict", "proportional"] = "strict"
    max_input_age_s: Seconds | None = None  # None: the last vote holds for ever
    missing_alarm: bool = True
    missing_priority: PriorityName = Priority.LOW
    missing_delay_s: Seconds = MISSING_DELAY_S
    _shared: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> NOfMParameters:
        if self.m is not None and self.n > self.m:
            raise ValueError(f"{self.n} of {self.m} can never agree")
        if self.reset is not None and self.side * self.reset > self.side * self.limit:
            raise ValueError("the reset value lies beyond the limit")
        return self

    @property
    def side(self) -> float:
        return 1.0 if self.operator[0] == ">" else -1.0

    def shared(self, rule: Rule, expected: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plan fields of a vote and of missing sensors; one object for all groups alike."""
        key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s, expected)
        if key not in self._shared:
            missing = {
                "levels": (Level("MISSING", self.missing_priority, float(expected)),),
                "on_delay_ns": (to_ns(self.missing_delay_s),),
                "off_delay_ns": (0,),
                "resets": (float(expected),),
            }
            self._shared[key] = (one_level(rule, "VOTE", float(self.n)), missing)
        return self._shared[key]


class _Setting(NamedTuple):
    """What every group of a rule shares, but for m."""

    n: int
    is_proportional: bool
    side: float
    set_at: float
    reset_below: float
    age_ns: int
    m: int


def plan(planning: Planning) -> GroupPlan | None:
    """One vote, and one alarm for missing sensors, over all matching points of the group."""
    parameters, key = planning.parameters, planning.key
    members = planning.inputs["value"]
    if not key:
        planning.problem(f"points without {planning.rule.group_by.value} cannot vote by it")
        return None
    expected = max(parameters.m or 0, len(members), parameters.n)
    if len(members) < expected:
        planning.problem(f"{len(members)} of {expected} sensors found")
    elif parameters.m is not None and len(members) > parameters.m:
        planning.problem(f"{len(members)} sensors found, not {parameters.m}: all of them vote")
    reset = parameters.limit if parameters.reset is None else parameters.reset
    setting = _Setting(
        parameters.n,
        parameters.degrade == "proportional",
        parameters.side,
        parameters.side * bound(parameters.limit, parameters.operator),
        parameters.side * bound(reset, parameters.operator),
        FOREVER if parameters.max_input_age_s is None else to_ns(parameters.max_input_age_s),
        expected,
    )
    return GroupPlan(
        inputs=(members,),
        instances=_instances(planning, expected),
        setting=setting,
    )


def _instances(planning: Planning, expected: int) -> tuple[InstancePlan, ...]:
    rule, parameters, key = planning.rule, planning.parameters, planning.key
    device = planning.points.device(key) if rule.group_by == GroupBy.DEVICE else None
    place: dict[str, Any] = {
        "device": key if rule.group_by == GroupBy.DEVICE else "",
        "area": key if rule.group_by == GroupBy.AREA else "",
        "display_name": (device.name if device else "") or key,
    }
    vote, missing = parameters.shared(rule, expected)
    plans = [InstancePlan(target=key, setting=False, **vote, **place)]
    if parameters.missing_alarm:
        plans.append(InstancePlan(target=f"{key}.missing", setting=True, **missing, **place))
    return tuple(plans)


class _Counts(NamedTuple):
    """Of one group at one moment: sensors there, their yes votes, last known yes votes of all."""

    there: Ints
    yes: Ints
    held: Ints


class _Events(NamedTuple):
    """What moves the counts: samples, and sensors that become too old. One row each."""

    group: Ints
    time_ns: Ints
    by_clock: Mask
    moves: _Counts


class NOfMEvaluator(KindEvaluator):
    """The last vote of every sensor, and the counts of each group."""

    latest_wins = True
    is_by_gateway = True

    def __init__(self, _width: int) -> None:
        super().__init__(
            Columns(
                settings={"of_missing": (np.bool_, False)},
                saved={"said": (np.int8, 0)},  # 1 set, -1 reset: what was last said
            ),
            input_slots({"there": (np.bool_, False), "vote": (np.bool_, False)}),
        )
        self._settings = np.zeros(0, dtype=_SETTING)  # by group
        self._vote = np.empty(0, np.int64)  # group -> instance, -1 for none
        self._missing = np.empty(0, np.int64)

    def configure_rows(self, rows: Ints, setting: Any) -> None:
        self.instances["of_missing"][rows] = setting

    def configured(self, groups: Sequence[tuple[int, GroupPlan]]) -> None:
        layout, count = self.layout, len(self.layout.group_instance)
        grown = np.zeros(count, dtype=_SETTING)
        grown[: len(self._settings)] = self._settings
        self._settings = grown
        for row, plan_ in groups:
            self._settings[row] = tuple(plan_.setting)
        self._vote = np.full(count, -1)
        self._missing = np.full(count, -1)
        live = np.flatnonzero(layout.instance_live)
        of_missing = self.instances["of_missing"][live]
        for table, rows in ((self._vote, live[~of_missing]), (self._missing, live[of_missing])):
            table[layout.instance_group[rows]] = rows

    # ------------------------------------------------------------------ judging

    def judge(self, feed: Feed, _times: PointTimes, now_ns: int) -> Verdict:
        feed = what_is_new(feed, self.slots)
        if len(feed) == 0:
            return Verdict()
        return Verdict(self._follow(feed, np.unique(feed.group), now_ns, None))

    def timers(self, now_ns: int, _times: PointTimes) -> Signals | None:
        """Sensors that became too old, and groups whose sensors are others now."""
        due = np.unique(self.layout.slot_group[self._expiry() <= now_ns])
        misjudged = self._misjudged()
        groups = np.union1d(due, misjudged)
        signals = self._follow(_NO_FEED, groups, now_ns, misjudged) if len(groups) else None
        self.due_ns = self._next_due()
        return signals

    def settled(self, instances: Ints, _busy: Mask) -> None:
        """After a refresh or a load: the sensors may be others than those last counted."""
        if self._layout is not None and len(instances) == len(self.instances):
            self.due_ns = NEVER if len(self._misjudged()) else self._next_due()

    def _follow(self, feed: Feed, groups: Ints, until_ns: int, again: Ints | None) -> Signals:
        """Every step of the given groups up to `until_ns`; groups `again` say so then anyhow."""
        owner, slot = self._members(groups)
        before = self._counts(owner, slot, len(groups))
        events = self._events(feed, groups, slot, until_ns)
        if again is not None:
            events = _with_ticks(events, again, until_ns)
        order = np.lexsort((~events.by_clock, events.time_ns, events.group))
        group, time_ns = events.group[order], events.time_ns[order]
        by_clock = events.by_clock[order]
        last = np.flatnonzero(np.append(seg.heads(group, time_ns, by_clock)[1:], True))
        at = np.searchsorted(groups, group)
        counts = _Counts(
            *(
                _running(moves[order], at) + base[at]
                for moves, base in zip(events.moves, before, strict=True)
            )
        )
        if len(order) == 0:
            last = np.empty(0, np.int64)
        counts = _Counts(*(column[last] for column in counts))
        self.due_ns = min(self.due_ns, int(self._expiry(slot).min(initial=FOREVER)))
        return self._told(group[last], time_ns[last], by_clock[last], counts)

    def _members(self, groups: Ints) -> tuple[Ints, Ints]:
        return seg.gather_lists(self.layout.group_start, self.layout.group_slots, groups)

    def _counts(self, owner: Ints, slot: Ints, size: int) -> _Counts:
        there, vote = self.slots["there"][slot], self.slots["vote"][slot]
        return _Counts(
            *(np.bincount(owner[mask], minlength=size) for mask in (there, there & vote, vote))
        )

    def _events(self, feed: Feed, groups: Ints, slot: Ints, until_ns: int) -> _Events:
        """Samples and expiries of the given sensors as moves of the counts; remembers the end."""
        slots, layout = self.slots, self.layout
        setting = self._settings[feed.group]
        good = feed.usable & (feed.quality < UNCERTAIN)
        mirrored = feed.value * setting["side"]
        yes, no = good & (mirrored >= setting["set_at"]), good & (mirrored < setting["reset_below"])
        carried = np.ones(len(slot), np.bool_)
        who = np.concatenate([slot, feed.slot])
        time_ns = np.concatenate([slots["time_ns"][slot], feed.time_ns])
        is_carried = np.concatenate([carried, np.zeros(len(feed), np.bool_)])
        there = np.concatenate([slots["there"][slot], good])
        vote = np.concatenate([slots["vote"][slot], yes])
        says = np.concatenate([carried, yes | no])
        order = np.lexsort((~is_carried, time_ns, who))
        who, time_ns, is_carried = who[order], time_ns[order], is_carried[order]
        there, vote, says = there[order], vote[order], says[order]
        start = seg.starts_of(seg.heads(who))
        vote = seg.forward_fill(vote, says, start, np.zeros(len(who), np.bool_))
        group = layout.slot_group[who]
        ends_ns = self._ends(group, time_ns, there)
        last = np.append(who[1:] != who[:-1], True)[: len(who)]
        next_ns = np.where(last, FOREVER, np.append(time_ns[1:], FOREVER)[: len(who)])
        horizon = np.full(len(groups), until_ns)
        if until_ns < NEVER and len(feed):  # no clock runs: the newest sample says how late it is
            np.maximum.at(horizon, np.searchsorted(groups, feed.group), feed.time_ns)
        expires = ends_ns <= np.minimum(next_ns, horizon[np.searchsorted(groups, group)])
        remember(feed, slots)
        slots["there"][who[last]] = (there & ~expires)[last]
        slots["vote"][who[last]] = vote[last]
        new, old = np.flatnonzero(~is_carried), np.flatnonzero(expires)
        was_there, was_vote = (there & ~expires)[new - 1], vote[new - 1]
        gone, none = -np.ones(len(old), np.int64), np.zeros(len(old), np.int64)
        return _Events(
            group=np.concatenate([group[new], group[old]]),
            time_ns=np.concatenate([time_ns[new], ends_ns[old]]),
            by_clock=np.concatenate([np.zeros(len(new), np.bool_), np.ones(len(old), np.bool_)]),
            moves=_Counts(
                np.concatenate([there[new].astype(np.int64) - was_there, gone]),
                np.concatenate(
                    [
                        (there & vote)[new].astype(np.int64) - (was_there & was_vote),
                        gone * vote[old],
                    ]
                ),
                np.concatenate([vote[new].astype(np.int64) - was_vote, none]),
            ),
        )

    def _verdicts(
        self, group: Ints, counts: _Counts
    ) -> tuple[tuple[Ints, Mask, Mask], tuple[Ints, Mask, Mask]]:
        """(instance, set, reset) of the vote and of the missing sensors; instance -1 for none."""
        setting = self._settings[group]
        m = np.maximum(setting["m"], 1)
        in_proportion = np.maximum(setting["n"] * counts.there // m, 1)
        needed = np.where(setting["is_proportional"], in_proportion, setting["n"])
        anybody = counts.there > 0
        yes, no = anybody & (counts.yes >= needed), anybody & (counts.held < needed)
        complete = counts.there >= m
        return (self._vote[group], yes, no), (self._missing[group], ~complete, complete)

    def _told(self, group: Ints, time_ns: Ints, by_clock: Mask, counts: _Counts) -> Signals:
        """Vote and missing sensors as signals, ordered by (instance, time)."""
        vote, missing = self._verdicts(group, counts)
        quality = np.where(missing[1], Quality.UNCERTAIN_DERIVED, Quality.GOOD)
        left = np.where(counts.there > 0, counts.there, np.nan)
        instance = np.append(vote[0], missing[0])
        twice_ns, clock = np.tile(time_ns, 2), np.tile(by_clock, 2)
        order = np.lexsort((~clock, twice_ns, instance))
        order = order[instance[order] >= 0]
        signals = Signals(
            instance=instance[order],
            time_ns=twice_ns[order],
            set=np.append(vote[1], missing[1])[order][:, None],
            reset=np.append(vote[2], missing[2])[order][:, None],
            value=np.append(counts.yes.astype(np.float64), left)[order],
            quality=np.append(quality, np.zeros_like(quality)).astype(np.uint8)[order],
            timed=clock[order],
        )
        self._note(signals)
        return signals

    def _note(self, signals: Signals) -> None:
        """Remember what was said last, to know what a change of sensors makes wrong."""
        rows = np.flatnonzero((signals.set | signals.reset)[:, 0])
        self.instances["said"][signals.instance[rows]] = np.where(signals.set[rows, 0], 1, -1)

    # ------------------------------------------------------------------ the clock, other sensors

    def _misjudged(self) -> Ints:
        """Groups that were heard of and whose verdict is another one than was said."""
        layout = self.layout
        slot = np.flatnonzero(layout.slot_live & (self.slots["time_ns"] > NEVER))
        groups = np.unique(layout.slot_group[slot])
        if len(groups) == 0:
            return groups
        owner, slot = self._members(groups)
        told = self._verdicts(groups, self._counts(owner, slot, len(groups)))
        wrong = np.zeros(len(groups), np.bool_)
        for instance, sets, resets in told:
            is_there = instance >= 0
            said = self.instances["said"][np.maximum(instance, 0)]
            wrong |= is_there & ((sets & (said != 1)) | (resets & (said != -1)))
        return groups[wrong]

    def _expiry(self, slot: Ints | slice = slice(None)) -> Ints:
        """When each sensor becomes too old; FOREVER for those that do not or are not there."""
        layout = self.layout
        there = self.slots["there"][slot] & layout.slot_live[slot]
        return self._ends(layout.slot_group[slot], self.slots["time_ns"][slot], there)

    def _ends(self, group: Ints, time_ns: Ints, there: Mask) -> Ints:
        """*Older than* the age is the first nanosecond beyond it."""
        age_ns = self._settings["age_ns"][group]
        return np.where(there & (age_ns < FOREVER), time_ns + age_ns + 1, FOREVER)

    def _next_due(self) -> int:
        return int(self._expiry().min(initial=FOREVER))


def _running(moves: Ints, owner: Ints) -> Ints:
    """The sum so far, of each owner by itself; rows of one owner stand together."""
    if len(moves) == 0:
        return moves
    total = np.cumsum(moves)
    start = seg.starts_of(seg.heads(owner))
    return total - (total - moves)[start]


def _with_ticks(events: _Events, groups: Ints, now_ns: int) -> _Events:
    """A step of each group at `now_ns` that moves nothing."""
    none = np.zeros(len(groups), np.int64)
    return _Events(
        np.append(events.group, groups),
        np.append(events.time_ns, np.full(len(groups), now_ns)),
        np.append(events.by_clock, np.ones(len(groups), np.bool_)),
        _Counts(*(np.append(moves, none) for moves in events.moves)),
    )


def check(rule: Rule, parameters: NOfMParameters) -> Sequence[str]:
    if rule.group_by == GroupBy.POINT:
        return ("sensors vote by device, area, adapter or site: group_by",)
    if parameters.n == 1 and parameters.degrade == "proportional":
        return ("one vote is enough already: degrade strict",)
    return ()


def loosens(old: NOfMParameters, new: NOfMParameters) -> Sequence[str]:
    """More votes needed, a limit farther off, an earlier end, or a vote that counts shorter."""
    found = []
    if new.n > old.n:
        found.append("n is less strict")
    if new.side != old.side:
        return [*found, "operator looks the other way"]
    for name in ("limit", "reset"):
        before, after = _stated(old, name), _stated(new, name)
        if after > before:
            found.append(f"{name} is less strict")
    if old.degrade == "proportional" and new.degrade == "strict":
        found.append("degrade is less strict: n votes of the sensors that are left")
    if new.max_input_age_s != old.max_input_age_s:
        found.append("max_input_age_s: what counts as a vote has changed")
    if old.missing_alarm and not new.missing_alarm:
        found.append("missing_alarm is gone")
    if old.missing_alarm and new.missing_alarm:
        if new.missing_priority > old.missing_priority:
            found.append("missing_priority is less strict")
        if new.missing_delay_s > old.missing_delay_s:
            found.append("missing_delay_s is less strict")
    return found


def _stated(parameters: NOfMParameters, name: str) -> float:
    given = getattr(parameters, name)
    value = parameters.limit if given is None else given
    return parameters.side * bound(value, parameters.operator)


_SETTING = np.dtype(
    [
        ("n", np.int64),
        ("is_proportional", np.bool_),
        ("side", np.float64),
        ("set_at", np.float64),
        ("reset_below", np.float64),
        ("age_ns", np.int64),
        ("m", np.int64),
    ]
)
_NONE = np.empty(0, np.int64)
_NO_FEED = Feed(
    _NONE, _NONE, np.empty(0), np.empty(0, np.uint8), _NONE, _NONE, np.empty(0, np.bool_)
)

KIND = RuleKind(
    name="n_of_m",
    summary="n of m sensors agree; missing sensors are flagged and lower the vote if so wished",
    parameters=NOfMParameters,
    plan=plan,
    build=NOfMEvaluator,
    level_count=lambda _parameters: 1,
    check=check,
    loosens=loosens,
)
