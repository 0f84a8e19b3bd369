"""A value that does not change although samples come: a frozen sensor, a repeated last value.

    value   5.0 ─ 5.1 ─ 5.1 ─ 5.1 ── 5.1 ── 5.1 ── 5.3
    run           ├──── unchanged_s ────┤
    STUCK                                   ┌──────┐
                  begins                    set    reset

A **run** is a row of usable samples none of which lies further than `band` from the run's first
(band 0: all identical). A sample outside begins the next run.

Sets: the first sample at or after `begin + unchanged_s` that still belongs to the run, if the run
has at least `samples_min` samples by then. Resets: a usable sample outside the band.

**Only a sample can say STUCK, never a clock**, though the span may run out between two samples: at
that moment nobody knows whether the next sample repeats the value, differs, or never comes. Silence
is not an unchanged value; it has its own alarm (offline). So the alarm's time is that of the sample
that proves it, at most one interval after the span. A silence longer than `gap_max_s` makes the run
begin anew at the next sample: unchanged *before and after* is not unchanged *meanwhile*. It does
not end an alarm; only another value does. Of samples with one time the largest value counts.

Bad values and NaN hold: they are no repetition and no change, and the time goes on. The value of
the alarm is the value that is stuck, `band` is in its unit.

As parameters:

    unchanged_s = 3600
    band = 0.0          # in the point's unit
    samples_min = 3     # of the run, the first and the proving one included
    gap_max_s = 600     # left out: any silence is bridged
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import (
    KindEvaluator,
    Parameters,
    Seconds,
    input_slots,
    one_level,
    place_of,
    point_only,
    remember,
    to_ns,
    what_is_new,
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
    Rows,
    RuleKind,
    Signals,
    Verdict,
)
from gateway.model.rule import Rule


class StuckParameters(Parameters):
    """How long unchanged is too long."""

    unchanged_s: Seconds
    band: float = Field(default=0.0, ge=0)
    samples_min: int = Field(default=3, ge=2, le=1_000_000)
    gap_max_s: Seconds | None = None

    @field_validator("unchanged_s", "gap_max_s")
    @classmethod
    def _is_a_span(cls, seconds: float | None) -> float | None:
        if seconds == 0:
            raise ValueError("a span of more than 0 s")
        return seconds

    @property
    def setting(self) -> _Setting:
        gap_s = self.gap_max_s
        return _Setting(
            to_ns(self.unchanged_s),
            self.band,
            self.samples_min,
            FOREVER if gap_s is None else to_ns(gap_s),
        )


class _Setting(NamedTuple):
    unchanged_ns: int
    band: float
    samples_min: int
    gap_max_ns: int


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    instance = InstancePlan(
        target=point.id,
        setting=planning.parameters,
        **one_level(planning.rule, "STUCK"),
        **place_of(planning, point),
    )
    return GroupPlan(inputs=((index,),), instances=(instance,))


class StuckEvaluator(KindEvaluator):
    """The open run of every point: its first value, its begin, its length."""

    latest_wins = True

    def __init__(self, _width: int) -> None:
        super().__init__(
            Columns(
                settings={
                    "unchanged_ns": (np.int64, FOREVER),
                    "band": (np.float64, 0.0),
                    "samples_min": (np.int64, 2),
                    "gap_max_ns": (np.int64, FOREVER),
                }
            ),
            input_slots(
                {
                    "anchor": (np.float64, np.nan),
                    "begin_ns": (np.int64, NEVER),
                    "count": (np.int64, 0),
                }
            ),
        )

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        for name, value in setting.setting._asdict().items():
            self.instances[name][rows] = value

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        chosen = self._asked[rows.point]
        chosen &= rows.usable
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        feed = what_is_new(feed.take(feed.usable), self.slots)
        if len(feed) == 0:
            return Verdict()
        table, instance = self.instances, self.layout.group_instance[feed.group]
        found = self._runs(feed, instance)
        unchanged = feed.time_ns - found.begin_ns >= table["unchanged_ns"][instance]
        stuck = unchanged & (found.length >= table["samples_min"][instance]) & ~found.changed
        last = np.append(feed.slot[1:] != feed.slot[:-1], True)
        slot, slots = feed.slot[last], self.slots
        slots["anchor"][slot] = found.anchor[last]
        slots["begin_ns"][slot] = found.begin_ns[last]
        slots["count"][slot] = found.length[last]
        remember(feed, slots)
        return Verdict(
            Signals(
                instance=instance,
                time_ns=feed.time_ns,
                set=stuck[:, None],
                reset=found.changed[:, None],
                value=feed.value,
                quality=feed.quality,
            )
        )

    def _runs(self, feed: Feed, instance: NDArray[np.int64]) -> _Runs:
        """The run every row belongs to. What is open before the first row of a slot stands in
        front of it as a row of its own, the anchor."""
        table, slots = self.instances, self.slots
        head = seg.heads(feed.slot)
        first = np.flatnonzero(head)
        slot, size = feed.slot[first], len(feed) + len(first)
        mine = np.arange(len(feed)) + np.cumsum(head)  # of every row; the anchors' are before
        anchors = mine[first] - 1
        value, band = np.empty(size), np.empty(size)
        value[mine], value[anchors] = feed.value, slots["anchor"][slot]
        band[mine], band[anchors] = table["band"][instance], table["band"][instance[first]]
        before_ns = np.append(NEVER, feed.time_ns[:-1])
        before_ns[first] = slots["time_ns"][slot]
        begins = np.ones(size, np.bool_)
        begins[mine] = feed.time_ns - before_ns > table["gap_max_ns"][instance]
        begins[mine[first]] |= slots["count"][slot] == 0
        run = seg.starts_of(run_starts(value, band, begins))
        # Outside the band of the run before it; a run begun by a gap alone is no other value.
        previous = run[mine - 1]
        changed = ~_within(feed.value, value[previous], band[previous])
        changed[first] &= slots["count"][slot] > 0
        time_ns, count = np.empty(size, np.int64), np.zeros(size, np.int64)
        time_ns[mine], time_ns[anchors] = feed.time_ns, slots["begin_ns"][slot]
        count[anchors] = slots["count"][slot] - 1
        run = run[mine]
        return _Runs(
            anchor=value[run],
            begin_ns=time_ns[run],
            length=count[run] + mine - run + 1,
            changed=changed,
        )


class _Runs(NamedTuple):
    """Of every row."""

    anchor: NDArray[np.float64]
    begin_ns: NDArray[np.int64]
    length: NDArray[np.int64]  # samples of the run up to and with this one
    changed: NDArray[np.bool_]  # outside the band of what was before


def _within(
    value: NDArray[np.float64], anchor: NDArray[np.float64], band: NDArray[np.float64]
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (value >= anchor - band) & (value <= anchor + band)
    return inside


def run_starts(
    value: NDArray[np.float64], band: NDArray[np.float64], begins: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where a run begins: where `begins` says so, and at the first value outside the band of the
    run's own first one, again and again.

    Where a run ends depends on where it began, which is a chain; it is followed by doubling. From
    every row, `after` is where the next run would begin if one began here; rows reached from a
    given beginning in 1, 2, 4, … such steps are the beginnings. No loop over rows.
    """
    if not band.any():
        found: NDArray[np.bool_] = begins | np.append(True, value[1:] != value[:-1])
        return found
    size = len(value)
    segment = np.cumsum(begins) - 1
    end = np.append(np.flatnonzero(begins)[1:], size)[segment]
    after = _first_outside(value, band, end)
    starts = np.append(begins, True)  # one more row to be the end of everything
    jump = np.append(np.where(after == end, size, after), size)
    for _ in range(int((end - np.arange(size)).max()).bit_length()):
        starts[jump[starts]] = True
        jump = jump[jump]
    return starts[:-1]


def _first_outside(
    value: NDArray[np.float64], band: NDArray[np.float64], end: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each row the first later one, before `end`, whose value is outside its band; else `end`.

    Extremes over 1, 2, 4, … rows from each; then the longest stretch that stays inside is put
    together from the longest down.
    """
    size = len(value)
    levels = int((end - np.arange(size)).max()).bit_length()
    least, most = [value], [value]
    for power in range(levels - 1):
        reach = 1 << power
        for tables, best in ((least, np.minimum), (most, np.maximum)):
            table = tables[-1].copy()
            table[:-reach] = best(table[:-reach], table[reach:])
            tables.append(table)
    at = np.arange(size) + 1
    low, high = value - band, value + band
    for power in reversed(range(levels)):
        room = at + (1 << power) <= end
        safe = np.where(room, at, 0)
        inside = room & (least[power][safe] >= low) & (most[power][safe] <= high)
        at = np.where(inside, at + (1 << power), at)
    return at


def check(rule: Rule, _parameters: StuckParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: StuckParameters, new: StuckParameters) -> Sequence[str]:
    """Longer, narrower, more samples asked, or runs broken by shorter silences."""
    found = []
    if new.unchanged_s > old.unchanged_s:
        found.append("unchanged_s is less strict")
    if new.band < old.band:
        found.append("band is less strict")
    if new.samples_min > old.samples_min:
        found.append("samples_min is less strict")
    if new.gap_max_s is not None and (old.gap_max_s is None or new.gap_max_s < old.gap_max_s):
        found.append("gap_max_s is less strict")
    return found


KIND = RuleKind(
    name="stuck",
    summary="a value that does not change although samples come",
    parameters=StuckParameters,
    plan=plan,
    build=StuckEvaluator,
    level_count=lambda _parameters: 1,
    check=check,
    loosens=loosens,
)
