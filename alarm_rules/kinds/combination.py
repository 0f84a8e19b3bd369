"""Several alarms of one colour make the next: 4 blue points of an item, and the item is yellow.

    point 1  blue ──────────────────────      of    count  makes
    point 2  ── blue ───────────────────      blue    4    yellow     GB 39496-2020 5.5.4, for the
    point 3  ───── blue ── yellow ──────      yellow  3    orange     points of one item of a
    point 4  ──────────── blue ── normal      orange  2    red        tailings pond
    item     ──────────── yellow ─ normal

It judges the levels of other rules' instances, by the `scheme_level` (colour) of each level; those
may be combinations themselves: points to items, items to the pond. Levels of no colour in
`colours`, and instances of another `scheme`, do not count.

**A worse member counts as a milder one too**: three blue and one red are four that are blue or
worse. So a member that gets worse never makes the result better. With `carry = true` members are
counted like coins instead, as the pond's items are: 4 blue count as one yellow more, and with two
that are yellow anyway that is an orange.

The result is the most severe colour a step makes; with `include_members` it is at least that of the
worst member. Sets and resets with every change of a member; delays are the rule's. **A member whose
level stands on calibration values does not count**; one of uncertain quality does, and makes the
result uncertain. A member that is silent or bad keeps its level, as its own rule does. Members come
and go with the points; who joins counts with the level it has.

The alarm's value is how many members decided, its limit is the step's count.

As parameters (`group_by` device, area, site, …; input `value` selects by what the members are
about, `{}` for all):

    rules = ["tailings.*"]       scheme = "tailings"
    steps = [ { of = "blue", count = 4, makes = "yellow" }, … ]
    colours = ["blue", "yellow", "orange", "red"]      # mild to severe, the default
    priorities = { red = "critical" }                  # the rule's own unless given
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alarm_rules import segments as seg
from alarm_rules.kinds._common import KindEvaluator, Parameters, PriorityName, is_stricter, to_ns
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
from gateway.model.condition import Level, RuleInstance
from gateway.model.quality import UNCERTAIN, Quality
from gateway.model.rule import GroupBy

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
COLOURS = ("blue", "yellow", "orange", "red")
COLOURS_MAX = 8
"""Every level is a column of the core's state; no scheme known has more than four."""


class Step(Parameters):
    """So many of one colour make another."""

    of: str
    count: int = Field(ge=1)
    makes: str


class CombinationParameters(Parameters):
    """Whose levels, and what they add up to."""

    rules: tuple[str, ...] = Field(min_length=1)  # ids; * stands for any part
    scheme: str = ""  # count only rules of this scheme
    colours: tuple[str, ...] = Field(default=COLOURS, min_length=1, max_length=COLOURS_MAX)
    steps: tuple[Step, ...] = ()
    carry: bool = False
    include_members: bool = False
    priorities: dict[str, PriorityName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> CombinationParameters:
        if len(set(self.colours)) < len(self.colours) or "" in self.colours:
            raise ValueError("each colour once, and none without a name")
        for colour in self.priorities:
            self.rank(colour)
        for step in self.steps:
            if self.rank(step.makes) <= self.rank(step.of):
                raise ValueError(f"{step.makes} is not more severe than {step.of}")
        starts = [step.of for step in self.steps]
        if self.carry and len(set(starts)) < len(starts):
            raise ValueError("with carry a colour is the start of one step: it is counted once")
        if not self.steps and not self.include_members:
            raise ValueError("steps, or include_members: nothing could ever result")
        return self

    def rank(self, colour: str) -> int:
        """1 for the mildest; raises ValueError for a colour there is not."""
        if colour not in self.colours:
            raise ValueError(f"{colour!r} is none of {', '.join(self.colours)}")
        return self.colours.index(colour) + 1

    @property
    def results(self) -> tuple[int, ...]:
        """Ranks that may result, mild to severe."""
        if self.include_members:
            return tuple(range(1, len(self.colours) + 1))
        return tuple(sorted({self.rank(step.makes) for step in self.steps}))


class _Sum(NamedTuple):
    """How a group adds up; the same for all groups of a rule."""

    steps: tuple[tuple[int, int, int], ...]  # of, count, makes: by the severity of `of`
    carry: bool
    include_members: bool
    results: tuple[int, ...]


class _Setting(NamedTuple):
    sum_: _Sum
    ranks: tuple[tuple[int, ...], ...]  # of each member: the colour's rank by level code


def plan(planning: Planning) -> GroupPlan | None:
    """One alarm for each group of instances that has any level of our colours."""
    parameters, key = planning.parameters, planning.key
    members = planning.inputs["value"]
    if not key:
        planning.problem(f"alarms without {planning.rule.group_by.value} cannot be combined by it")
        return None
    instances = [planning.instances[position] for position in members]
    ranks = tuple(_ranks(parameters, instance) for instance in instances)
    if not any(map(any, ranks)):
        planning.problem(f"none of {len(members)} alarms has a colour that counts")
        return None
    steps = [(parameters.rank(s.of), s.count, parameters.rank(s.makes)) for s in parameters.steps]
    sum_ = _Sum(
        tuple(sorted(steps)), parameters.carry, parameters.include_members, parameters.results
    )
    return GroupPlan(
        inputs=(members,),
        instances=(_instance(planning),),
        setting=_Setting(sum_, ranks),
    )


def _ranks(parameters: CombinationParameters, instance: RuleInstance) -> tuple[int, ...]:
    """The rank of the colour of each level code of a member; 0 for what does not count."""
    counts = parameters.scheme in ("", instance.rule.scheme)
    known = parameters.colours
    return (
        0,
        *(
            known.index(level.scheme_level) + 1 if counts and level.scheme_level in known else 0
            for level in instance.levels
        ),
    )


def _instance(planning: Planning) -> InstancePlan:
    rule, parameters, key = planning.rule, planning.parameters, planning.key
    levels = tuple(_level(planning, parameters.colours[rank - 1]) for rank in parameters.results)
    device = planning.points.device(key) if rule.group_by == GroupBy.DEVICE else None
    return InstancePlan(
        target=key,
        levels=levels,
        on_delay_ns=(to_ns(rule.on_delay_s),) * len(levels),
        off_delay_ns=(to_ns(rule.off_delay_s),) * len(levels),
        point_id=key if rule.group_by == GroupBy.POINT and key in planning.points else "",
        device=key if rule.group_by == GroupBy.DEVICE else "",
        area=key if rule.group_by == GroupBy.AREA else "",
        display_name=(device.name if device else "") or key,
    )


def _level(planning: Planning, colour: str) -> Level:
    parameters = planning.parameters
    counts = {step.count for step in parameters.steps if step.makes == colour}
    return Level(
        name=colour,
        priority=parameters.priorities.get(colour, planning.rule.priority),
        limit=float(counts.pop()) if len(counts) == 1 else None,
        scheme_level=colour,
    )


class CombinationEvaluator(KindEvaluator):
    """The level of every member, and how many there are of each colour."""

    latest_wins = True

    def __init__(self, width: int) -> None:
        super().__init__(
            Columns(saved={"said": (np.int64, 0)}),  # rank that was last said
            Columns(saved={"code": (np.int64, 0), "quality": (np.uint8, 0)}),
        )
        self._width = width
        self._rank = np.zeros((0, 1), np.int64)  # (slot, level code) -> rank
        self._sums: list[_Sum] = []
        self._of_group = np.empty(0, np.int64)  # row in _sums, -1 for none

    def configured(self, groups: Sequence[tuple[int, GroupPlan]]) -> None:
        layout = self.layout
        grown = np.full(len(layout.group_instance), -1)
        grown[: len(self._of_group)] = self._of_group
        self._of_group = grown
        codes = max((len(r) for _, p in groups for r in p.setting.ranks), default=1)
        shape = (len(layout.slot_group), max(codes, self._rank.shape[1]))
        rank = np.zeros(shape, np.int64)
        rank[: len(self._rank), : self._rank.shape[1]] = self._rank
        for row, plan_ in groups:
            if plan_.setting.sum_ not in self._sums:
                self._sums.append(plan_.setting.sum_)
            self._of_group[row] = self._sums.index(plan_.setting.sum_)
            ranks = dict(zip(plan_.inputs[0], plan_.setting.ranks, strict=True))
            for slot in layout.group_slots[layout.group_start[row] : layout.group_start[row + 1]]:
                own = ranks[int(layout.slot_point[slot])]
                rank[slot] = 0
                rank[slot, : len(own)] = own
        self._rank = rank
        gone = np.flatnonzero(~layout.slot_live)  # what it does meanwhile is not heard here
        if len(gone):
            self.slots.clear(gone)

    def select(self, rows: Rows) -> Mask:
        chosen: Mask = self._asked[rows.point]
        return chosen

    def judge(self, feed: Feed, _times: PointTimes, _now_ns: int) -> Verdict:
        """Changes of one time are applied together."""
        groups = np.unique(feed.group)
        base = self._standing(groups)
        moves = self._moves(feed)
        first = seg.starts_of(seg.heads(feed.group))
        total = np.cumsum(moves, axis=0)
        counts = base[np.searchsorted(groups, feed.group)] + total - (total - moves)[first]
        last = np.append(seg.heads(feed.group, feed.time_ns)[1:], True)
        return Verdict(
            self._told(feed.group[last], feed.time_ns[last], counts[last], by_clock=False)
        )

    def _coloured(self, slot: Ints, code: Ints, quality: NDArray[np.uint8]) -> Ints:
        """How a member counts, one column for each rank and one for those that are uncertain."""
        width = self._rank.shape[1]
        rank = self._rank[slot, np.minimum(code, width - 1)]
        rank = np.where(code < width, rank, 0)  # else a level its rule had before it was edited
        rank = np.where(quality == Quality.UNCERTAIN_CALIBRATING, 0, rank)
        table = np.zeros((len(slot), COLOURS_MAX + 2), np.int64)
        row = np.flatnonzero(rank)
        table[row, rank[row]] = 1
        table[row, -1] = quality[row] >= UNCERTAIN
        return table

    def _standing(self, groups: Ints) -> Ints:
        """What the live members of each group add up to before this call."""
        layout, slots = self.layout, self.slots
        owner, slot = seg.gather_lists(layout.group_start, layout.group_slots, groups)
        counts = np.zeros((len(groups), COLOURS_MAX + 2), np.int64)
        np.add.at(counts, owner, self._coloured(slot, slots["code"][slot], slots["quality"][slot]))
        return counts

    def _moves(self, feed: Feed) -> Ints:
        """How each change moves the counts of its group; remembers where every member stands."""
        slots = self.slots
        order = np.lexsort((feed.time_ns, feed.slot))
        slot, code, quality = (
            feed.slot[order],
            feed.value[order].astype(np.int64),
            feed.quality[order],
        )
        after = self._coloured(slot, code, quality)
        first = seg.heads(slot)
        before = np.roll(after, 1, axis=0)
        head = slot[first]
        before[first] = self._coloured(head, slots["code"][head], slots["quality"][head])
        last = np.append(first[1:], True)
        slots["code"][slot[last]], slots["quality"][slot[last]] = code[last], quality[last]
        moves = np.empty_like(after)
        moves[order] = after - before
        return moves

    def _added(self, group: Ints, counts: Ints) -> tuple[Ints, Ints]:
        """(rank that results, how many members decided) for each row of counts."""
        rank, decided = np.zeros(len(group), np.int64), np.zeros(len(group), np.int64)
        which = self._of_group[group]
        for number in np.unique(which[which >= 0]):
            rows = np.flatnonzero(which == number)
            rank[rows], decided[rows] = _add_up(self._sums[number], counts[rows, : COLOURS_MAX + 1])
        return rank, decided

    def _told(self, group: Ints, time_ns: Ints, counts: Ints, *, by_clock: bool) -> Signals:
        rank, decided = self._added(group, counts)
        instance = self.layout.group_instance[group]
        self.instances["said"][instance] = rank  # of several rows the last stays
        sets = np.zeros((len(group), self._width), np.bool_)
        has = np.zeros((len(group), self._width), np.bool_)
        which = self._of_group[group]
        for number in np.unique(which):
            rows = np.flatnonzero(which == number)
            results = self._sums[number].results
            sets[rows, : len(results)] = rank[rows, None] >= np.array(results)
            has[rows, : len(results)] = True
        order = np.lexsort((time_ns, instance))
        quality = np.where(counts[:, -1] > 0, Quality.UNCERTAIN_DERIVED, Quality.GOOD)
        return Signals(
            instance=instance[order],
            time_ns=time_ns[order],
            set=sets[order],
            reset=(has & ~sets)[order],
            value=decided[order].astype(np.float64),
            quality=quality.astype(np.uint8)[order],
            timed=np.full(len(group), by_clock),
        )

    # ------------------------------------------------------------------ members come and go

    def _misjudged(self) -> tuple[Ints, Ints]:
        """Groups whose members add up to something else than was said, and their counts."""
        groups = np.flatnonzero((self._of_group >= 0) & (self.layout.group_instance >= 0))
        counts = self._standing(groups)
        rank, _ = self._added(groups, counts)
        wrong = rank != self.instances["said"][self.layout.group_instance[groups]]
        return groups[wrong], counts[wrong]

    def timers(self, now_ns: int, _times: PointTimes) -> Signals | None:
        """Groups that lost a member, or whose rule was changed."""
        groups, counts = self._misjudged()
        self.due_ns = FOREVER
        return self._told(groups, np.full(len(groups), now_ns), counts, by_clock=True)

    def settled(self, instances: Ints, _busy: Mask) -> None:
        if self._layout is None or len(instances) < len(self.instances):
            return
        self.due_ns = NEVER if len(self._misjudged()[0]) else FOREVER


def _add_up(sum_: _Sum, counts: Ints) -> tuple[Ints, Ints]:
    """Of counts by rank (column 0 unused): the rank that results and how many decided it."""
    total = counts[:, 1:].sum(axis=1)
    rank, decided = np.zeros(len(counts), np.int64), total
    units = counts.copy()
    for of, count, makes in sum_.steps:
        if sum_.carry:
            found = units[:, of].copy()
            units[:, makes] += found // count
        else:
            found = counts[:, of:].sum(axis=1)
        better = (found >= count) & (makes > rank)
        rank, decided = np.where(better, makes, rank), np.where(better, found, decided)
    if sum_.include_members:
        columns = np.arange(counts.shape[1])
        worst = np.where(counts > 0, columns, 0).max(axis=1)
        better = worst > rank
        many = np.take_along_axis(counts, worst[:, None], axis=1)[:, 0]
        rank, decided = np.where(better, worst, rank), np.where(better, many, decided)
    return rank, decided


def loosens(old: CombinationParameters, new: CombinationParameters) -> Sequence[str]:
    """More members needed, fewer counted, a result gone or less urgent."""
    found = []
    if set(old.rules) - set(new.rules):
        found.append("rules are left out")
    if new.scheme not in ("", old.scheme):
        found.append("scheme counts fewer rules")
    if old.colours != new.colours:
        found.append("colours are others")
        return found
    if old.carry != new.carry:
        found.append("carry counts another way")
    for step in old.steps:
        kept = any(
            s.of == step.of and s.count <= step.count and new.rank(s.makes) >= old.rank(step.makes)
            for s in new.steps
        )
        if not kept:
            found.append(f"{step.count} {step.of} no longer make {step.makes}")
    if old.include_members and not new.include_members:
        found.append("include_members: a member's own colour no longer counts")
    return found + [
        f"priorities.{colour} is less strict"
        for colour in old.colours
        if not is_stricter("priority", old.priorities.get(colour), new.priorities.get(colour))
    ]


KIND = RuleKind(
    name="combination",
    summary="several alarms of one colour make the next colour: points, items, the whole site",
    parameters=CombinationParameters,
    plan=plan,
    build=CombinationEvaluator,
    level_count=lambda parameters: len(parameters.results),
    judges=lambda parameters: parameters.rules,
    loosens=loosens,
)
