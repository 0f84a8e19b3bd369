"""A word of alarm bits: every bit named is an alarm of its own, with a life of its own.

    word       0b000 ── 0b101 ───── 0b001 ── bad ── 0b000
    bit 0 DISTRESS      ┌────────────────────────────┐        target  truck7.alarm.distress
    bit 2 FATIGUE       └───────────┘                         target  truck7.alarm.fatigue

Sets: a usable word in which the bit is 1 (`when = "clear"`: 0). Resets: a usable word in which it
is not. A terminal repeats a held bit in every report: one alarm, since setting what is set changes
nothing. Words are whole numbers below 2 to the power of 52, exact in a float64; anything else, bad
values and NaN hold.

The value of the alarm is the whole word as it came. Bits have no unit. `title` is what the operator
calls the bit: it follows the point's name.

As parameters (bit 0 of the JT/T 808 alarm word):

    bits = { "0" = { name = "DISTRESS", priority = "critical",
                     title = { zh = "紧急报警", en = "Emergency button" } } }
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alarm_rules import segments as seg
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

BITS_MAX = 52
"""A float64 holds every whole number below 2**53 exactly; `PointKind.BITS` promises 52 bits."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_LANGUAGES = ("zh", "en")


class Bit(Parameters):
    """One bit. Delays and priority are the rule's unless given."""

    name: str
    when: Literal["set", "clear"] = "set"
    priority: PriorityName | None = None
    level: str = ""  # in the words of the rule's scheme
    on_delay_s: Seconds | None = None
    off_delay_s: Seconds | None = None
    title: Mapping[str, str] = Field(default_factory=dict)  # language -> text

    @property
    def shown(self) -> str:
        """The title in the first language there is one in."""
        texts = [self.title[language] for language in _LANGUAGES if language in self.title]
        return (texts or list(self.title.values()) or [""])[0]


class BitsParameters(Parameters):
    """Bits by number, 0 the lowest, as TOML keys."""

    bits: dict[str, Bit] = Field(min_length=1, max_length=BITS_MAX)

    @model_validator(mode="after")
    def _consistent(self) -> BitsParameters:
        names: dict[str, str] = {}
        for number, bit in self.bits.items():
            if number not in _NUMBERS:
                raise ValueError(f"bits are numbered 0 to {BITS_MAX - 1}, not {number!r}")
            if not _NAME.fullmatch(bit.name):
                raise ValueError(f"bit {number} is named by a word of an id, not {bit.name!r}")
            if bit.name.lower() in names:
                raise ValueError(f"bits {names[bit.name.lower()]} and {number} have one name")
            names[bit.name.lower()] = number
        return self

    @cached_property
    def made(self) -> dict[tuple[Any, ...], tuple[tuple[Bit, InstancePlan], ...]]:
        """Those compiled so far."""
        return {}

    def compiled(self, rule: Rule) -> tuple[tuple[Bit, InstancePlan], ...]:
        """Of each bit an instance that lacks only its place; made once for all points of a rule."""
        key = (rule.priority, rule.level, rule.on_delay_s, rule.off_delay_s)
        if key not in self.made:
            self.made[key] = tuple(
                (bit, _instance(rule, number, bit)) for number, bit in self.bits.items()
            )
        return self.made[key]


_NUMBERS = {str(number): number for number in range(BITS_MAX)}


def _instance(rule: Rule, number: str, bit: Bit) -> InstancePlan:
    on_s = rule.on_delay_s if bit.on_delay_s is None else bit.on_delay_s
    off_s = rule.off_delay_s if bit.off_delay_s is None else bit.off_delay_s
    level = Level(bit.name, bit.priority or rule.priority, None, bit.level or rule.level)
    return InstancePlan(
        target="",
        levels=(level,),
        on_delay_ns=(to_ns(on_s),),
        off_delay_ns=(to_ns(off_s),),
        setting=(_NUMBERS[number], bit.when == "set"),
    )


def plan(planning: Planning) -> GroupPlan | None:
    """One instance for each bit of each matching point."""
    (index,) = planning.inputs["value"]
    point = planning.points[index]
    place = place_of(planning, point)
    name = place.pop("display_name")
    instances = tuple(
        instance._replace(
            target=f"{point.id}.{bit.name.lower()}",
            display_name=f"{name} {bit.shown}".rstrip(),
            **place,
        )
        for bit, instance in planning.parameters.compiled(planning.rule)
    )
    return GroupPlan(inputs=((index,),), instances=instances)


class BitsEvaluator(KindEvaluator):
    """Shifts and masks; a point whose wanted bits are at rest is skipped."""

    def __init__(self, _width: int) -> None:
        super().__init__(
            Columns(settings={"bit": (np.int64, 0), "when": (np.int64, 1)}),
        )
        self._busy = BusyPoints()
        self._start = np.zeros(1, np.int64)  # group -> its live instances, compressed
        self._members = np.empty(0, np.int64)
        self._if_set = np.empty(0, np.int64)  # by point: bits that some rule alarms on when set
        self._if_clear = np.empty(0, np.int64)

    def configure_rows(self, rows: NDArray[np.int64], setting: Any) -> None:
        self.instances["bit"][rows], self.instances["when"][rows] = setting

    def configured(self, _groups: Sequence[tuple[int, GroupPlan]]) -> None:
        layout, table = self.layout, self.instances
        live = np.flatnonzero(layout.instance_live)
        group = layout.instance_group[live]
        self._start, self._members = seg.compress_lists(group, len(layout.group_instance), live)
        owner, slots = seg.gather_lists(layout.group_start, layout.group_slots, group)
        point, one = layout.slot_point[slots], np.int64(1) << table["bit"][live][owner]
        when_set = table["when"][live][owner] == 1
        self._if_set = np.zeros(layout.point_count, np.int64)
        self._if_clear = np.zeros(layout.point_count, np.int64)
        np.bitwise_or.at(self._if_set, point, np.where(when_set, one, 0))
        np.bitwise_or.at(self._if_clear, point, np.where(when_set, 0, one))
        self._busy.configure(layout)

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        word, valid = _words(rows.value)
        may_set = (word & self._if_set[rows.point]) != 0
        may_set |= (~word & self._if_clear[rows.point]) != 0
        return self._busy.choose(rows, may_set & valid & rows.usable)

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        owner, instance = seg.gather_lists(self._start, self._members, feed.group)
        time_ns = feed.time_ns[owner]
        order = seg.group_sort(instance, time_ns, len(self.instances))
        owner, instance, time_ns = owner[order], instance[order], time_ns[order]
        word, valid = _words(feed.value)
        valid &= feed.usable
        table = self.instances
        is_set = ((word[owner] >> table["bit"][instance]) & 1) == table["when"][instance]
        judged = valid[owner]
        return Verdict(
            Signals(
                instance=instance,
                time_ns=time_ns,
                set=(is_set & judged)[:, None],
                reset=(~is_set & judged)[:, None],
                value=feed.value[owner],
                quality=feed.quality[owner],
            )
        )

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        if len(instances):
            self._busy.settled(self.layout, instances, busy)


def _words(value: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(word, whether it is one)."""
    valid = (value >= 0) & (value < 2.0**BITS_MAX)
    word = np.where(valid, value, 0).astype(np.int64)
    valid &= word == value
    return word, valid


def check(rule: Rule, _parameters: BitsParameters) -> Sequence[str]:
    return point_only(rule)


def loosens(old: BitsParameters, new: BitsParameters) -> Sequence[str]:
    """A bit that is gone, means the other state, or alarms slower or less urgently."""
    found = []
    for number, was in old.bits.items():
        now = new.bits.get(number)
        if now is None:
            found.append(f"bit {number} {was.name} is gone")
            continue
        if now.when != was.when:
            found.append(f"bit {number} {was.name} alarms when {now.when}")
        found += loosens_timing(f"bit {number} {was.name}", was, now)
    return found


KIND = RuleKind(
    name="bits",
    summary="every named bit of an alarm or status word, an alarm of its own",
    parameters=BitsParameters,
    plan=plan,
    build=BitsEvaluator,
    level_count=lambda _parameters: 1,
    check=check,
    loosens=loosens,
)
