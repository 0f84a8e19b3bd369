"""From matched groups to arrays: programs filled, grown and re-filled as points come and go.

    (rule, group key) ─kind.plan─▶ GroupPlan ─▶ rows of the roster ─▶ settings and layout arrays

Rules that inherit the priority of what they hide (offline) are planned after the others, and again
when a more urgent rule appears on one of their points. Rules that judge other rules are planned
last, layer by layer, when it is known which instances there are.

Not here: which points match (matching.py), row numbers (roster.py), judging (program.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules.exchange import Exchange
from alarm_rules.instances import Instances
from alarm_rules.levels import Listening
from alarm_rules.matching import CompiledRule, Dirty, Matching
from alarm_rules.owners import by_width
from alarm_rules.program import Program
from alarm_rules.roster import Roster
from gateway.contract.rule_kind import GroupPlan, InstancePlan, Planning, PointsPlanning
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, alarm_key

_DEAD_MAX = 1_000
"""Rows of what is gone that are worth no thought, as `exchange._GONE_MAX` of numbers (engineering).
"""


@dataclass(slots=True, eq=False)
class _Part:
    """Instances that were placed together, side by side."""

    numbers: Sequence[int]  # of the rules
    rows: Sequence[int]
    is_new: bool
    keys: Sequence[str]
    points: Sequence[Point | None]  # None: the plan itself says what it is about
    plans: Sequence[InstancePlan]
    names: Sequence[str]  # of the points


@dataclass(slots=True, eq=False)
class _Alike:
    """Groups of one point each, planned and not placed yet."""

    numbers: list[int] = field(default_factory=list)  # of the rules
    keys: list[str] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    plans: list[InstancePlan] = field(default_factory=list)


@dataclass(slots=True)
class _Changed:
    """What one refresh has to write into one program."""

    instances: list[tuple[int, InstancePlan]] = field(default_factory=list)
    groups: list[tuple[int, GroupPlan]] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    alike: _Alike = field(default_factory=_Alike)
    is_any: bool = False  # a group came, changed or went

    def add(self, part: _Part) -> None:
        self.parts.append(part)
        self.instances.extend(zip(part.rows, part.plans, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Emptied:
    """Rows of a program that lost their memory."""

    instances: NDArray[np.int64]
    slots: NDArray[np.int64]

    def apply(self, program: Program) -> None:
        own = program.evaluator
        if len(self.instances):
            program.state.clear(self.instances)
            if len(own.instances):
                own.instances.clear(self.instances)
        if len(self.slots) and len(own.slots):
            own.slots.clear(self.slots)


class Programs:
    """Every program of a rule set and what stands in it."""

    def __init__(
        self, rules: Sequence[CompiledRule], matching: Matching, points: PointTable
    ) -> None:
        self._rules = rules  # by number; `exchange` writes into it
        self._matching = matching
        self._points = points
        self._urgent: dict[int, Priority] = {}
        self._is_any_hiding = any(rule.kind.hides for rule in rules)
        self._keys: dict[str, Program] = {}
        self.instances = Instances()
        self.problems: dict[tuple[int, str], str] = {}
        self.wanted: dict[str, Point] = {}  # derived points as they should be declared
        widths: dict[str, int] = {}
        for rule in rules:
            name, count = rule.kind.name, rule.kind.level_count(rule.parameters)
            if count > widths.get(name, 0):
                widths[name] = count
        self._by_key = by_key = dict[tuple[int, str], Program]()
        self._program_of: list[Program] = []
        for rule in rules:
            key = (rule.layer, rule.kind.name)
            if key not in by_key:
                by_key[key] = Program(rule.kind, rule.layer, widths.get(rule.kind.name, 1))
            self._program_of.append(by_key[key])
        self.all = sorted(by_key.values(), key=lambda program: program.layer)
        self.sampled = [program for program in self.all if program.kind.judges is None]
        self.judging = [program for program in self.all if program.kind.judges is not None]
        self.live = np.empty(0, np.bool_)  # by position: whether anything judges it now
        self.joined: set[int] = set()  # positions a rule listens to since the last `joined.clear`
        self._listening = Listening(rules, points)
        self._waiting: dict[Program, set[tuple[int, str]]] = defaultdict(set)
        rule_ids = self._rule_ids = [rule.rule.id for rule in rules]
        names = {False: self._point_id, True: self.instances.key}
        self.roster = {
            program: Roster(rule_ids, names[program.kind.judges is not None])
            for program in self.all
        }
        self._heard_before: set[int] = set()  # positions listened to before the last `refresh`
        self.emptied: dict[Program, Emptied] = {}  # by the last `refresh`
        self.derived: dict[Program, NDArray[np.int64]] = {}  # point index per group, -1 for none

    def refresh(self, points: Iterable[int], dirty: Dirty) -> None:
        """Plan the groups that changed; bring every program up to the size of the point table.
        `points` changed, or the rules about them did: all of their groups are among the dirty."""
        changed = {program: _Changed() for program in self.all}
        heard = {program: program.layout.slot_live for program in self.judging}
        self.emptied, self._heard_before = {}, self._listened()
        beside = self._beside(points, dirty) if self._urgent else ()
        if self._urgent:
            for point in (*points, *beside):
                self._urgent.pop(point, None)
        hiding = {n: dict(keys) for n, keys in dirty.items() if self._rules[n].kind.hides}
        others = [number for number in sorted(dirty) if number not in hiding]
        hidden: dict[int, None] = {}  # points of groups that others may hide
        for number in others:
            if self.roster[self._program_of[number]].instance_keys:  # else there was nobody yet
                self._retire(number, dirty[number])
            self._plan_rule(number, dirty[number], changed)
            if self._is_any_hiding:
                hidden.update(dict.fromkeys(self._members(number, dirty[number])))
        self._note_again(beside, dirty)
        for number, keys in self._matching.hiding(hidden).items():
            hiding.setdefault(number, {}).update(keys)
        for number in sorted(hiding):
            self._retire(number, hiding[number])
            self._plan_rule(number, hiding[number], changed)
        for program in self.sampled:
            self._place_alike(program, changed[program])
            self._fill(program, changed[program])
        if self._listening:
            self._refresh_judging(changed)
        for program, before in heard.items():  # who is listened to anew tells how it stands
            layout = program.layout
            is_new = layout.slot_live.copy()
            is_new[: len(before)] &= ~before
            self.joined.update(layout.slot_point[is_new].tolist())

    def _retire(self, number: int, keys: Iterable[str]) -> None:
        """Every group of a rule that is about to be planned, before the first one is: an alarm may
        go from one of them to another."""
        roster = self.roster[self._program_of[number]]
        for key in keys:
            if roster.knows(number, key):
                roster.retire(roster.group(number, key))

    def has_place_for(self, rule: CompiledRule) -> bool:
        """Whether such a rule can come or go among what there is: others need not be judged in
        another order, and nothing grows but rows."""
        program = self._by_key.get((rule.layer, rule.kind.name))
        if program is None or rule.kind.level_count(rule.parameters) > program.width:
            return False
        produces = rule.kind.produces
        if rule.kind.judges is not None or (produces and produces(rule.rule, rule.parameters)):
            return False
        return self._is_any_hiding or not rule.kind.hides

    def exchange(self, exchange: Exchange, points: Iterable[int], dirty: Dirty) -> None:
        """Plan by these rules from now on. `points` changed, and `dirty` are their groups: planned
        at one go with what the exchange is about, as a new set would."""
        before, after = exchange.before, exchange.after
        for number in sorted(after):
            if number == len(self._program_of):
                rule = after[number]
                self._program_of.append(self._by_key[rule.layer, rule.kind.name])
                self._rule_ids.append(rule.rule.id)
            self._listening.hear_of(after[number])
        changed = before.keys() | after.keys()
        self.problems = {at: text for at, text in self.problems.items() if at[0] not in changed}
        touched, others = self._matching.exchange(before, after)
        for number, keys in others.items():
            dirty.setdefault(number, {}).update(keys)
        self.refresh({*points, *touched}, dirty)

    @property
    def is_worn(self) -> bool:
        """Whether more rows are of what is gone than of what is judged: they cost as much."""
        live = sum(int(np.count_nonzero(p.layout.instance_live)) for p in self.all)
        return len(self.instances) - live > max(live, _DEAD_MAX)

    def _listened(self) -> set[int]:
        """Positions some rule listens to."""
        found: set[int] = set()
        for program in self.judging:
            layout = program.layout
            found.update(layout.slot_point[layout.slot_live].tolist())
        return found

    def forgotten(self) -> set[int]:
        """Positions whose memory the last `refresh` took, and that are judged on, and were and are
        listened to."""
        found: set[int] = set()
        for program, emptied in self.emptied.items():
            rows = emptied.instances[program.layout.instance_live[emptied.instances]]
            found.update(program.state["position"][rows].tolist())
        return found & self._heard_before & self._listened() if found else found

    def _members(self, number: int, keys: Iterable[str]) -> Iterable[int]:
        groups = self._matching.of_rule[number]
        if groups.only is not None:
            return [groups.only[key] for key in keys if key in groups.only]
        return [
            point for key in keys for members in groups.members(key).values() for point in members
        ]

    def _plan_rule(
        self, number: int, keys: Mapping[str, None], changed: Mapping[Program, _Changed]
    ) -> None:
        into, groups = changed[self._program_of[number]], self._matching.of_rule[number]
        if self._rules[number].kind.plan_alike is not None and groups.only is not None:
            if len(keys) == 1 and self._plan_one(number, next(iter(keys)), groups.only, into):
                return
            self._plan_alike(number, keys, groups.only, into)
            return
        for key in keys:
            self._plan(number, key, groups.members(key), into)

    def _refresh_judging(self, changed: Mapping[Program, _Changed]) -> None:
        """Plan who listens to whom: every layer may listen to those before it."""
        touched = self._touched(self.sampled, changed)
        for program in self.judging:
            dirty = self._listening.update(sorted(touched), self.instances, self.live)
            for item in dirty:
                self._waiting[self._program_of[item[0]]].add(item)
            waiting = sorted(self._waiting.pop(program, ()))
            for number, key in waiting:
                self._retire(number, (key,))
            for number, key in waiting:
                members = {"value": self._listening.members(number, key)}
                self._plan(number, key, members, changed[program])
            self._fill(program, changed[program])
            touched = self._touched([program], changed)
        assert not self._waiting, "a rule listens to one that is judged after it"

    def _touched(
        self, programs: Iterable[Program], changed: Mapping[Program, _Changed]
    ) -> set[int]:
        """Positions that are new, described anew, or whose being judged has changed."""
        live = np.zeros(len(self.instances), np.bool_)
        live[: len(self.live)] = self.live
        found: set[int] = set()
        for program in programs:
            position = program.state["position"]
            is_live = program.layout.instance_live
            found.update(position[live[position] != is_live].tolist())
            found.update(int(position[row]) for row, _ in changed[program].instances)
            live[position] = is_live
        self.live = live
        return found

    def _plan_alike(
        self, number: int, keys: Mapping[str, None], only: Mapping[str, int], changed: _Changed
    ) -> None:
        """The groups of a rule that have one point each, all at once."""
        compiled, table = self._rules[number], self._points
        kind, rule = compiled.kind, compiled.rule
        assert kind.plan_alike is not None
        chosen = [key for key in keys if key in only]
        members = [only[key] for key in chosen]
        plans = kind.plan_alike(
            PointsPlanning(rule, compiled.parameters, members, table, self._urgent.get)
        )
        judged = [plan for plan in plans if plan is not None]
        if len(judged) < len(keys):  # one is gone, or not judged
            planned = dict(zip(chosen, plans, strict=True))
            for key in keys:
                if planned.get(key) is None:
                    self._plan(number, key, self._matching.of_rule[number].members(key), changed)
            chosen = [key for key, plan in planned.items() if plan is not None]
            members = [only[key] for key in chosen]
        if not chosen:
            return
        if self.problems:
            for key in chosen:
                self.problems.pop((number, key), None)
        if not kind.hides:
            self._note_urgency(zip(members, judged, strict=True))
        alike = changed.alike
        alike.numbers.extend(repeat(number, len(chosen)))
        alike.keys.extend(chosen)
        alike.members.extend(members)
        alike.plans.extend(judged)

    def _plan_one(self, number: int, key: str, only: Mapping[str, int], changed: _Changed) -> bool:
        """The one group of a rule, quickly: a site may state a rule for each of its points. False:
        nothing was done."""
        point = only.get(key)
        compiled = self._rules[number]
        kind = compiled.kind
        if point is None or kind.plan_alike is None or self.problems:
            return False
        plan: InstancePlan | None
        if compiled.is_quick:
            plan = compiled.parameters.plan(compiled.rule)
        else:
            asked = PointsPlanning(
                compiled.rule, compiled.parameters, (point,), self._points, self._urgent.get
            )
            (plan,) = kind.plan_alike(asked)
        if plan is None:
            return False
        if self._is_any_hiding and not kind.hides:
            self._note_urgency(((point, plan),))
        alike = changed.alike
        alike.numbers.append(number)
        alike.keys.append(key)
        alike.members.append(point)
        alike.plans.append(plan)
        return True

    def _device_name(self, point: Point) -> str:
        device = self._points.device(point.device) if point.device else None
        return (device.name if device else "") or point.id

    def _place_alike(self, program: Program, changed: _Changed) -> None:
        """Place what was planned alike so far: rules of one point each cost no more than one rule
        of many points."""
        alike, changed.alike = changed.alike, _Alike()
        if not alike.keys:
            return
        changed.is_any = True
        roster, numbers = self.roster[program], alike.numbers
        points = list(map(self._points.__getitem__, alike.members))
        part = _Part(
            numbers=numbers,
            rows=(),
            is_new=True,
            keys=list(map(alarm_key, alike.keys, map(self._rule_ids.__getitem__, numbers))),
            points=points,
            plans=alike.plans,
            names=[
                point.name or (self._device_name(point) if point.device else point.id)
                for point in points
            ],
        )
        levels = _level_names(alike.plans)
        rows = roster.place_new(numbers, alike.keys, alike.members, part.keys, levels)
        if rows is not None:
            part.rows = rows
            changed.add(part)
            return
        for at, (number, key) in enumerate(zip(numbers, alike.keys, strict=True)):
            row = roster.group(number, key)
            roster.retire(row)
            roster.place_input(row, 0, alike.members[at])
            about = part.points[at], part.names[at]
            if not self._place_instance(row, number, key, alike.plans[at], changed, about):
                roster.retire(row)

    def _plan(
        self, number: int, key: str, members: Mapping[str, tuple[int, ...]], changed: _Changed
    ) -> None:
        compiled = self._rules[number]
        roster = self.roster[self._program_of[number]]
        self.problems.pop((number, key), None)
        plan = None
        if any(members.values()):
            planning = Planning(
                rule=compiled.rule,
                parameters=compiled.parameters,
                key=key,
                inputs=members,
                points=self._points,
                urgent=self._urgent.get,
                problem=self._problem(number, key),
                instances=self.instances,
            )
            plan = compiled.kind.plan(planning)
        self._place_alike(self._program_of[number], changed)  # in the order of their planning
        if plan is None and not roster.knows(number, key):
            return
        row = roster.group(number, key)
        roster.retire(row)
        changed.is_any = True
        if plan is not None:
            self._place(number, row, plan, changed)

    def _problem(self, number: int, key: str) -> Callable[[str], None]:
        def note(text: str) -> None:
            self.problems[(number, key)] = f"{self._rules[number].rule.id}: {key or '-'}: {text}"

        return note

    def _place(self, number: int, row: int, plan: GroupPlan, changed: _Changed) -> None:
        program = self._program_of[number]
        members = [member for group in plan.inputs for member in group]
        self.roster[program].place_inputs(row, plan)
        changed.groups.append((row, plan))
        if plan.derived is not None:
            self.wanted[plan.derived.id] = plan.derived
        placed = 0
        for wanted in plan.instances:
            is_placed = self._place_instance(row, number, wanted.target, wanted, changed)
            placed += is_placed
            if is_placed and program.kind.judges is None and not program.kind.hides:
                self._note_urgency((point, wanted) for point in members)
        if plan.instances and not placed:  # nobody its samples could speak for
            self.roster[program].retire(row)

    def _place_instance(  # noqa: PLR0917  what stands in one row
        self,
        row: int,
        number: int,
        target: str,
        plan: InstancePlan,
        changed: _Changed,
        about: tuple[Point | None, str] = (None, ""),
    ) -> bool:
        """`about`: the point and its name, where the plan does not say them."""
        roster = self.roster[self._program_of[number]]
        key = alarm_key(target, self._rules[number].rule.id)
        (levels,) = _level_names((plan,))
        placed = roster.place_instance(row, key, levels)
        if placed is None:
            self._problem(number, target)("two groups with one target; one is judged")
            return False
        instance, is_new = placed
        changed.add(_Part((number,), (instance,), is_new, (key,), about[:1], (plan,), about[1:]))
        return True

    def _beside(self, points: Iterable[int], dirty: Dirty) -> set[int]:
        """Points that did not change, in a group with one that did: what the group makes of them
        may be less urgent from now on."""
        found: set[int] = set()
        for number, keys in dirty.items():
            if self._matching.of_rule[number].only is None and not self._rules[number].kind.hides:
                found.update(self._members(number, keys))
        return found.difference(points)

    def _note_again(self, points: Iterable[int], dirty: Dirty) -> None:
        """How urgent these are by their groups that stay as they are."""
        for point in points:
            for number, key, _ in self._matching.places(point):
                program = self._program_of[number]
                if program.kind.hides or key in dirty.get(number, ()):
                    continue
                position = program.state["position"]
                for row in self.roster[program].instances_of(number, key):
                    self._note_urgency([(point, self.instances.plan(int(position[row])))])

    def _note_urgency(self, planned: Iterable[tuple[int, InstancePlan]]) -> None:
        """For those who hide: nobody else asks."""
        urgent = self._urgent
        last, most = None, Priority.LOW
        if not self._is_any_hiding:
            return
        for point, plan in planned:
            if plan is not last:
                last = plan
                most = min((level.priority for level in plan.levels), default=Priority.LOW)
            known = urgent.get(point)
            if known is None or most < known:
                urgent[point] = most

    def _fill(self, program: Program, changed: _Changed) -> None:
        """Write settings and layout; rows first, so that everything has its place."""
        roster, state, layout = self.roster[program], program.state, program.layout
        is_sampled = program.kind.judges is None
        width = len(self._points) if is_sampled else len(self.instances)
        if not changed.is_any and layout.point_count == width:
            return
        size = len(roster.instance_keys)
        state.grow(size)
        self._describe(state["position"], changed.parts)
        roster.layout_into(layout, width)
        program.evaluator.instances.grow(size)
        program.evaluator.slots.grow(roster.slot_count)
        self._empty(program)
        _write_levels(program, changed.instances)
        self.derived[program] = roster.derived_index(self._point_index)
        program.evaluator.configure(changed.instances, changed.groups, layout)
        program.settle_all()

    def _empty(self, program: Program) -> None:
        """What nothing judges any more has no memory, as after a restart: no delay of it may end.
        Nor has an instance whose levels have other names: its bits would mean something else."""
        renamed, layout = np.array(self.roster[program].take_renamed(), np.int64), program.layout
        gone = np.union1d(np.flatnonzero(~layout.instance_live), renamed)
        emptied = Emptied(gone, np.flatnonzero(~layout.slot_live))
        emptied.apply(program)
        if len(renamed):  # it may have fewer levels: none beyond them may speak
            program.state.unset(renamed, but=("position",))
            if len(program.evaluator.instances):
                program.evaluator.instances.unset(renamed)
        self.emptied[program] = emptied

    def _describe(self, position: NDArray[np.int32], parts: Iterable[_Part]) -> None:
        """Positions for the new ones, in order; what is known of each anew."""
        rows: list[int] = []
        known = len(self.instances)
        again = []
        for part in parts:
            if part.is_new:
                rows.extend(part.rows)
                rules = [self._rules[number].rule for number in part.numbers]
                self.instances.add(rules, part.keys, part.points, part.plans, part.names)
            else:
                again.append(part)
        position[rows] = np.arange(known, known + len(rows))
        for part in again:
            numbers = part.numbers
            described = zip(part.rows, numbers, part.points, part.plans, part.names, strict=True)
            for row, number, point, plan, name in described:
                rule = self._rules[number].rule
                self.instances.describe(int(position[row]), rule, point, plan, name)

    def _point_id(self, index: int) -> str:
        return self._points[index].id

    def _point_index(self, point_id: str) -> int:
        """-1 for one that is not declared yet."""
        return self._points.index(point_id) if point_id in self._points else -1


def _level_names(plans: Iterable[InstancePlan]) -> list[str]:
    """The names of each one's levels, joined: what its saved bits mean."""
    found, last, names = [], None, ""
    for plan in plans:
        if plan.levels is not last:
            last = plan.levels
            names = "|".join([level.name for level in last])
        found.append(names)
    return found


def _write_levels(program: Program, instances: Sequence[tuple[int, InstancePlan]]) -> None:
    """Delays and limits: those of each plan once, then all with equally many levels at once."""
    rows = np.array([row for row, _ in instances], np.int64)
    plans = [plan for _, plan in instances]
    state = program.state
    for width, same, members, owner in by_width(plans, [len(plan.levels) for plan in plans]):
        limits = [level.limit for plan in same for level in plan.levels]
        if None in limits:
            limits = [np.nan if limit is None else limit for limit in limits]
        unstated = (np.nan,) * width
        values: Iterable[Any]
        for name, values in (
            ("on_ns", chain.from_iterable([plan.on_delay_ns for plan in same])),
            ("off_ns", chain.from_iterable([plan.off_delay_ns for plan in same])),
            ("limit", limits),
            ("reset", chain.from_iterable([plan.resets or unstated for plan in same])),
        ):
            flat = np.fromiter(values, state[name].dtype, len(limits))
            state[name][rows[members], :width] = flat.reshape(len(same), width)[owner]
