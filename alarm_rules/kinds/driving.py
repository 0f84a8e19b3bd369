"""Driving for too long: without a rest, by night, in a day, or when driving is forbidden.

    speed >= moving_kmh   ██████████▁▁██████████████████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁██████
    continuous driving    0 ─────────────────────── 4 h             │ 0
                                       PREWARN ─┘   └ FATIGUE ──────┘ after rest_min_s standing

    FATIGUE    continuous driving reached drive_max_s              ends with a whole rest
    NIGHT      the part of it within `night` reached its own limit ends with a whole rest
    PREWARN    `pre_warn_s` before either                          ends with a whole rest
    DAILY      driving in the last 24 h reached daily_max_s        ends when a rest's worth has left
    NIGHTBAN   moving within `ban`                                 standing, or the ban is over

Only what is stated is judged. Later in this list is more severe: NIGHTBAN, FATIGUE, NIGHT, DAILY,
PREWARN. Rules of their own keep them apart where people answer to them differently.

**Continuous driving** ends by `rest_min_s` of standing still and by nothing else. A shorter stop is
driving too (`short_stops = "driving"`, the strict reading: it counts once the vehicle moves on) or
does not count at all ("pause"); while standing the clock never raises an alarm. Clocks run without
new samples: a limit is reached at its own nanosecond, found by whoever comes next.

**Silence is neither driving nor rest.** A sample holds for `gap_max_s`; behind that nothing is
known: the clock stands, no rest is taken, a stop that the silence broke begins anew, and no alarm
ends but a ban whose time is over. That is the safe reading; where terminals sleep in parked
vehicles it keeps yesterday's driving. `gap_standing = "standing"` takes a silence between two
samples of standing still for standing still, believed when the second one comes.

Bad values are silence. Times of day are at `utc_offset_h`; a night that passes midnight belongs to
the day it begins on. The 24 hours are looked at in steps of 15 minutes, and never fewer than 24.

The driver is not known: where several share a vehicle, a change is no rest. Values are seconds.

As parameters (the statutory numbers are the pack's):

    moving_kmh = 5                 # engineering: satellite speed of a parked vehicle stays below
    drive_max_s = 14_400
    rest_min_s = 1_200
    daily_max_s = 28_800
    night = { from = "22:00", to = "06:00", drive_max_s = 7_200 }
    ban = { from = "02:00", to = "05:00" }
    utc_offset_h = 8
    pre_warn_s = 1_800
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from alarm_rules.kinds._common import (
    NS_PER_S,
    KindEvaluator,
    Parameters,
    PriorityName,
    input_slots,
    remember,
    to_ns,
    what_is_new,
)
from alarm_rules.kinds._driving import (
    BAN,
    BINS,
    DAILY,
    FATIGUE,
    LEVELS,
    NIGHT,
    PREWARN,
    Course,
    Daily,
    Events,
    Track,
    clock_events,
    follow,
)
from alarm_rules.kinds._place import (
    DAY_NS,
    DayWindow,
    Int,
    Mask,
    UtcOffset,
    described,
    has_one_each,
    into_window,
    milder,
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
from gateway.model.rule import GroupBy, Rule

Span = Annotated[float, Field(gt=0, le=86_400)]


class NightDrive(DayWindow):
    """A window with a limit of its own for continuous driving in it."""

    drive_max_s: Span


class DrivingParameters(Parameters):
    """What is judged, and what counts as driving and as rest."""

    moving_kmh: float = Field(default=5.0, gt=0, le=100)
    drive_max_s: Span | None = None
    rest_min_s: Span = 1200.0
    daily_max_s: Span | None = None
    night: NightDrive | None = None
    ban: DayWindow | None = None
    utc_offset_h: UtcOffset = 8.0
    pre_warn_s: Span | None = None
    pre_warn_priority: PriorityName | None = None
    short_stops: Literal["driving", "pause"] = "driving"
    gap_max_s: float = Field(default=300.0, gt=0, le=21_600)  # three heartbeats of a terminal
    gap_standing: Literal["unknown", "standing"] = "unknown"
    _made: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _judges_something(self) -> DrivingParameters:
        if not self.levels or self.levels == [PREWARN]:
            raise ValueError("drive_max_s, night, daily_max_s or ban must say what is too long")
        continuous = [self.drive_max_s, self.night.drive_max_s if self.night else None]
        limits = [limit for limit in continuous if limit is not None]
        if self.pre_warn_s is not None and not (limits and self.pre_warn_s < min(limits)):
            raise ValueError("pre_warn_s is before, and shorter than, drive_max_s")
        if self.pre_warn_priority is not None and self.pre_warn_s is None:
            raise ValueError("pre_warn_priority without pre_warn_s")
        return self

    @property
    def levels(self) -> list[int]:
        """Of `LEVELS`, those this rule has."""
        has = (self.pre_warn_s, self.daily_max_s, self.night, self.drive_max_s, self.ban)
        return [level for level, given in enumerate(has) if given is not None]

    @property
    def daily_reset_s(self) -> float:
        """A rest's worth, and no less than a bin: else an alarm would come and go with each bin
        of yesterday's driving that today's replaces."""
        return max((self.daily_max_s or 0.0) - max(self.rest_min_s, 900.0), 0.0)


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each vehicle."""
    if not has_one_each(planning, ("speed",)):
        return None
    parameters = planning.parameters
    made = parameters._made  # noqa: SLF001  our own
    if made.get("rule") is not planning.rule:
        made["planned"] = _planned(planning.rule, parameters)
        made["rule"] = planning.rule
    instance = InstancePlan(target=planning.key, **made["planned"], **described(planning, "s"))
    return GroupPlan(inputs=(planning.inputs["speed"],), instances=(instance,))


def _planned(rule: Rule, parameters: DrivingParameters) -> dict[str, Any]:
    """The plan fields all vehicles share."""
    pre_warn = parameters.pre_warn_priority or milder(rule.priority)
    night_s = parameters.night.drive_max_s if parameters.night else None
    drive_s = parameters.drive_max_s
    limits = {PREWARN: drive_s or night_s, DAILY: parameters.daily_max_s, NIGHT: night_s}
    limits |= {FATIGUE: drive_s, BAN: None}
    limits[PREWARN] = (limits[PREWARN] or 0) - (parameters.pre_warn_s or 0)
    count = len(parameters.levels)
    return {
        "levels": tuple(
            Level(LEVELS[n], pre_warn, limits[n])
            if n == PREWARN
            else Level(LEVELS[n], rule.priority, limits[n], rule.level)
            for n in parameters.levels
        ),
        "on_delay_ns": (to_ns(rule.on_delay_s),) * count,
        "off_delay_ns": (to_ns(rule.off_delay_s),) * count,
        "resets": tuple(
            parameters.daily_reset_s if n == DAILY else math.nan for n in parameters.levels
        ),
        "setting": parameters,
    }


def _table() -> Columns:
    return Columns(
        settings={
            "moving_kmh": (np.float64, np.inf),
            "gap_ns": (np.int64, 1),
            "rest_ns": (np.int64, FOREVER),
            "short": (np.bool_, True),
            "stays": (np.bool_, False),
            "drive_ns": (np.int64, FOREVER),
            "pre_warn_ns": (np.int64, 0),
            "night_max_ns": (np.int64, FOREVER),
            "night_phase": (np.int64, 0),
            "night_length": (np.int64, 0),
            "ban_phase": (np.int64, 0),
            "ban_length": (np.int64, 0),
            "daily_ns": (np.int64, FOREVER),
            "daily_reset_ns": (np.int64, 0),
            "column": (np.int64, -1, len(LEVELS)),  # of each level; -1: not of this rule
            "due_ns": (np.int64, NEVER),  # the next event if nothing more is heard
        },
        saved={
            "at_ns": (np.int64, NEVER),  # the last usable sample, and what was known then:
            "moving": (np.bool_, False),
            "quality": (np.uint8, 0),
            "since_ns": (np.int64, NEVER),
            "clock_ns": (np.int64, 0),
            "night_ns": (np.int64, 0),
            "bins": (np.int64, 0, BINS),
            "told_ns": (np.int64, NEVER),  # the clock has said everything up to then
        },
    )


class DrivingEvaluator(KindEvaluator):
    """Follows every vehicle from sample to sample; between them the clock says what happens."""

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(_table(), input_slots())
        self._width = width

    def configure_rows(self, rows: Any, setting: DrivingParameters) -> None:
        table = self.instances
        table["moving_kmh"][rows] = setting.moving_kmh
        table["gap_ns"][rows] = to_ns(setting.gap_max_s)
        table["rest_ns"][rows] = to_ns(setting.rest_min_s)
        table["short"][rows] = setting.short_stops == "driving"
        table["stays"][rows] = setting.gap_standing == "standing"
        table["pre_warn_ns"][rows] = to_ns(setting.pre_warn_s or 0.0)
        night, ban = setting.night, setting.ban
        for name, span_s in (
            ("drive_ns", setting.drive_max_s),
            ("night_max_ns", night.drive_max_s if night else None),
            ("daily_ns", setting.daily_max_s),
        ):
            table[name][rows] = FOREVER if span_s is None else to_ns(span_s)
        for name, window in (("night", night), ("ban", ban)):
            table[f"{name}_phase"][rows] = window.phase_ns(setting.utc_offset_h) if window else 0
            table[f"{name}_length"][rows] = window.length_ns if window else 0
        table["daily_reset_ns"][rows] = to_ns(setting.daily_reset_s)
        column = np.full(len(LEVELS), -1)
        column[setting.levels] = np.arange(len(setting.levels))
        table["column"][rows] = column

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = what_is_new(feed, self.slots)
        remember(feed, self.slots)
        feed = feed.take(feed.usable)
        if len(feed) == 0:
            return Verdict()
        table = self.instances
        instance = self.layout.group_instance[feed.group]
        touched = np.unique(instance)
        track = self._track(feed, instance, touched)
        course = follow(track, table)
        daily = Daily(track, course, table)
        sums = daily.sums()
        said = [
            self._between(track, Events.join([clock_events(track, course, table), daily.events()])),
            self._at_samples(track, course, (daily.rows, sums)),
        ]
        daily.keep()
        last = np.flatnonzero(np.append(track.first[1:], True))
        table["at_ns"][touched] = track.time_ns[last]
        table["moving"][touched] = track.moving[last]
        table["quality"][touched] = track.quality[last]
        table["since_ns"][touched] = course.since_ns[last]
        table["clock_ns"][touched] = course.clock_ns[last]
        table["night_ns"][touched] = course.night_ns[last]
        ahead, events = self._ahead(touched)
        self._set_due(touched, ahead, events)
        self.due_ns = min(self.due_ns, int(table["due_ns"][touched].min()))
        return Verdict(_ordered(said))

    def _track(self, feed: Feed, instance: Int, touched: Int) -> Track:
        """What was known of each vehicle, then its samples."""
        table = self.instances
        known = touched[table["at_ns"][touched] > NEVER]
        rows = np.concatenate([known, instance])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        time_ns = np.concatenate([table["at_ns"][known], feed.time_ns])[order]
        moving = feed.value >= table["moving_kmh"][instance]
        first = np.append(True, rows[1:] != rows[:-1])
        last = np.append(first[1:], True)
        return Track(
            instance=rows,
            time_ns=time_ns,
            next_ns=np.where(last, time_ns, np.append(time_ns[1:], 0)),
            moving=np.concatenate([table["moving"][known], moving])[order],
            quality=np.concatenate([table["quality"][known], feed.quality])[order],
            first=first,
            carried=order < len(known),
        )

    def _ahead(self, instances: Int) -> tuple[Track, Events]:
        """What will happen if nothing more is heard."""
        table = self.instances
        every = np.ones(len(instances), np.bool_)
        at_ns = table["at_ns"][instances]
        track = Track(
            instance=instances,
            time_ns=at_ns,
            next_ns=at_ns + table["gap_ns"][instances] + 2 * DAY_NS,
            moving=table["moving"][instances],
            quality=table["quality"][instances],
            first=every,
            carried=every,
        )
        course = follow(track, table)
        events = Events.join(
            [clock_events(track, course, table), Daily(track, course, table).events()]
        )
        return track, events

    def _set_due(self, instances: Int, track: Track, events: Events) -> None:
        """The first event the clock has not told yet."""
        table = self.instances
        due_ns = np.full(len(instances), FOREVER)
        instance = track.instance[events.row]
        later = events.time_ns > table["told_ns"][instance]
        later &= table["column"][instance, events.level] >= 0
        np.minimum.at(due_ns, events.row[later], events.time_ns[later])
        table["due_ns"][instances] = due_ns

    def timers(self, now_ns: int, _times: PointTimes) -> Signals | None:
        """Everything up to now that no sample has told."""
        table = self.instances
        live = self.layout.instance_live & (table["at_ns"] > NEVER)
        rows = np.flatnonzero(live & (table["due_ns"] <= self.clock(now_ns, slice(None))))
        said = None
        if len(rows):
            track, events = self._ahead(rows)
            until_ns = np.broadcast_to(self.clock(now_ns, rows), len(rows))
            said = _ordered([self._between(track, events, until_ns=until_ns[events.row])])
            table["told_ns"][rows] = np.maximum(table["told_ns"][rows], until_ns)
            self._set_due(rows, track, events)
        self.due_ns = int(table["due_ns"][live].min(initial=FOREVER))
        return said

    def settled(self, instances: Int, _busy: Mask) -> None:
        if len(instances) == len(self.instances):  # after a refresh or a load: look at everything
            self.instances["due_ns"][:] = NEVER
            self.due_ns = NEVER

    def _between(self, track: Track, events: Events, until_ns: Int | int = FOREVER) -> Signals:
        """Events of levels the rules have, but for those the clock has told before."""
        table = self.instances
        instance = track.instance[events.row]
        column = table["column"][instance, events.level]
        wanted = (column >= 0) & (events.time_ns <= until_ns)
        wanted &= events.time_ns > table["told_ns"][instance]
        at = np.flatnonzero(wanted)
        mask = column[at, None] == np.arange(self._width)
        return Signals(
            instance=instance[at],
            time_ns=events.time_ns[at],
            set=mask & events.is_set[at, None],
            reset=mask & ~events.is_set[at, None],
            value=events.value[at],
            quality=track.quality[events.row[at]],
            timed=np.ones(len(at), np.bool_),
        )

    def _at_samples(self, track: Track, course: Course, daily: tuple[Int, Int]) -> Signals:
        """What each sample finds: every level, so that nothing said before can stay wrong."""
        instance, table = track.instance, self.instances
        clock, night = course.clock_ns, course.night_ns
        drive, night_max = table["drive_ns"][instance], table["night_max_ns"][instance]
        before = table["pre_warn_ns"][instance]
        warns = clock >= drive - before
        warns_night = night >= night_max - before
        banned = into_window(track.time_ns, table["ban_phase"][instance])
        nothing = np.full(len(instance), np.nan)
        is_daily = np.zeros((2, len(instance)), np.bool_)
        rows, sums = daily
        driven = np.zeros(len(instance))
        driven[rows] = sums / NS_PER_S
        is_daily[0, rows] = sums >= table["daily_ns"][instance[rows]]
        is_daily[1, rows] = sums <= table["daily_reset_ns"][instance[rows]]
        found = {
            PREWARN: (warns | warns_night, np.where(warns_night & ~warns, night, clock) / NS_PER_S),
            NIGHT: (night >= night_max, night / NS_PER_S),
            FATIGUE: (clock >= drive, clock / NS_PER_S),
            BAN: (track.moving & (banned < table["ban_length"][instance]), nothing),
        }
        said = [(level, is_set, ~is_set, value) for level, (is_set, value) in found.items()]
        said.append((DAILY, is_daily[0], is_daily[1], driven))
        parts = [self._said(track, *one) for one in said]
        return _joined(parts)

    def _said(
        self,
        track: Track,
        level: int,
        is_set: Mask,
        is_reset: Mask,
        value: NDArray[np.float64],
    ) -> Signals:
        column = self.instances["column"][track.instance, level]
        at = np.flatnonzero((column >= 0) & ~track.carried)
        mask = column[at, None] == np.arange(self._width)
        return Signals(
            instance=track.instance[at],
            time_ns=track.time_ns[at],
            set=mask & is_set[at, None],
            reset=mask & is_reset[at, None],
            value=value[at],
            quality=track.quality[at],
            timed=np.zeros(len(at), np.bool_),
        )


def _joined(parts: Sequence[Signals]) -> Signals:
    return Signals(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Signals.__slots__)
    )


def _ordered(parts: Sequence[Signals]) -> Signals:
    whole = _joined(parts)
    assert whole.timed is not None
    order = np.lexsort((~whole.timed, whole.time_ns, whole.instance))
    return Signals(*(getattr(whole, name)[order] for name in Signals.__slots__))


def loosens(old: DrivingParameters, new: DrivingParameters) -> Sequence[str]:
    """Longer driving, shorter rests, less that counts as driving, windows moved."""
    found = [
        f"{name} is less strict"
        for name in ("drive_max_s", "daily_max_s")
        if (was := getattr(old, name)) is not None
        and ((now := getattr(new, name)) is None or now > was)
    ]
    if old.pre_warn_s is not None and (new.pre_warn_s or 0) < old.pre_warn_s:
        found.append("pre_warn_s is less strict")
    for name, stricter in (("moving_kmh", -1), ("rest_min_s", 1), ("gap_max_s", 1)):
        if stricter * getattr(new, name) < stricter * getattr(old, name):
            found.append(f"{name} is less strict")
    for name, strict in (("short_stops", "driving"), ("gap_standing", "unknown")):
        if getattr(new, name) not in {getattr(old, name), strict}:
            found.append(f"{name} is less strict")
    was, now = old.night, new.night
    if was is not None and (
        now is None
        or (now.from_, now.to) != (was.from_, was.to)
        or now.drive_max_s > was.drive_max_s
    ):
        found.append("night is less strict")
    if old.ban is not None and new.ban != old.ban:
        found.append("ban is another one")
    if new.utc_offset_h != old.utc_offset_h and (old.night or old.ban):
        found.append("utc_offset_h is another one")
    return found


KIND = RuleKind(
    name="driving",
    summary="driving too long without rest, by night or in a day, or when it is forbidden",
    parameters=DrivingParameters,
    plan=plan,
    build=DrivingEvaluator,
    level_count=lambda parameters: len(parameters.levels),
    inputs=("speed",),
    group_by=lambda _rule, _parameters: str(GroupBy.DEVICE.value),
    loosens=loosens,
)
