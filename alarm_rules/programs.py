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
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from alarm_rules.levels import Listening
from alarm_rules.matching import CompiledRule, Dirty, Matching
from alarm_rules.program import Program
from alarm_rules.roster import Roster
from gateway.contract.rule_kind import GroupPlan, InstancePlan, Planning
from gateway.model.condition import RuleInstance
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, Rule

_BY_RULE = itemgetter(0)


@dataclass(slots=True)
class _Changed:
    """What one refresh has to write into one program."""

    instances: list[tuple[int, InstancePlan]] = field(default_factory=list)
    groups: list[tuple[int, GroupPlan]] = field(default_factory=list)
    new: list[int] = field(default_factory=list)  # instance rows
    is_any: bool = False  # a group came, changed or went


class Programs:
    """Every program of a rule set and what stands in it."""

    def __init__(
        self, rules: Sequence[CompiledRule], matching: Matching, points: PointTable
    ) -> None:
        self._rules = rules
        self._matching = matching
        self._points = points
        self._urgent: dict[int, Priority] = {}
        self._keys: dict[str, Program] = {}
        self.instances: list[RuleInstance] = []
        self.problems: dict[tuple[int, str], str] = {}
        self.wanted: dict[str, Point] = {}  # derived points as they should be declared
        widths: dict[str, int] = {}
        for rule in rules:
            count = rule.kind.level_count(rule.parameters)
            widths[rule.kind.name] = max(widths.get(rule.kind.name, 1), count)
        by_key: dict[tuple[int, str], Program] = {}
        self._program_of: list[Program] = []
        for rule in rules:
            key = (rule.layer, rule.kind.name)
            if key not in by_key:
                by_key[key] = Program(rule.kind, rule.layer, widths[rule.kind.name])
            self._program_of.append(by_key[key])
        self.all = sorted(by_key.values(), key=lambda program: program.layer)
        self.sampled = [program for program in self.all if program.kind.judges is None]
        self.judging = [program for program in self.all if program.kind.judges is not None]
        self.live = np.empty(0, np.bool_)  # by position: whether anything judges it now
        self.joined: set[int] = set()  # positions a rule listens to since the last `joined.clear`
        self._listening = Listening(rules, points)
        self._waiting: dict[Program, set[tuple[int, str]]] = defaultdict(set)
        self.roster = {program: Roster() for program in self.all}
        self.derived: dict[Program, NDArray[np.int64]] = {}  # point index per group, -1 for none

    def refresh(self, dirty: Dirty) -> None:
        """Plan the groups that changed; bring every program up to the size of the point table."""
        changed = {program: _Changed() for program in self.all}
        plain = [item for item in dirty if not self._rules[item[0]].kind.hides]
        plain.sort(key=_BY_RULE)
        for number, key in plain:
            members = self._matching.of_rule[number].members(key)
            self._plan(number, key, members, changed[self._program_of[number]])
        hiding = dict.fromkeys(item for item in dirty if self._rules[item[0]].kind.hides)
        hiding |= dict.fromkeys(self._hiding(plain))
        for number, key in sorted(hiding, key=_BY_RULE):
            members = self._matching.of_rule[number].members(key)
            self._plan(number, key, members, changed[self._program_of[number]])
        for program in self.sampled:
            self._fill(program, changed[program])
        if self._listening:
            self._refresh_judging(changed)

    def _refresh_judging(self, changed: Mapping[Program, _Changed]) -> None:
        """Plan who listens to whom: every layer may listen to those before it."""
        touched = self._touched(self.sampled, changed)
        for program in self.judging:
            dirty = self._listening.update(sorted(touched), self.instances, self.live)
            for item in dirty:
                self._waiting[self._program_of[item[0]]].add(item)
            for number, key in sorted(self._waiting.pop(program, ())):
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

    def _hiding(self, items: Iterable[tuple[int, str]]) -> Iterable[tuple[int, str]]:
        for number, key in items:
            for members in self._matching.of_rule[number].members(key).values():
                for point in members:
                    for other, place, _ in self._matching.places(point):
                        if self._rules[other].kind.hides:
                            yield other, place

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
        rule, program = self._rules[number].rule, self._program_of[number]
        roster = self.roster[program]
        members = [member for group in plan.inputs for member in group]
        if program.kind.judges is None:
            names = [self._points[point].id for point in members]
        else:
            names = [self.instances[position].alarm_key for position in members]
            self.joined.update(members)
        roster.place_inputs(row, plan, rule, names)
        changed.groups.append((row, plan))
        if plan.derived is not None:
            self.wanted[plan.derived.id] = plan.derived
        for wanted in plan.instances:
            placed = roster.place_instance(row, wanted, rule)
            if placed is None:
                self._problem(number, wanted.target)("two groups with one target; one is judged")
                continue
            instance, is_new = placed
            changed.instances.append((instance, wanted))
            if is_new:
                changed.new.append(instance)
            if program.kind.judges is None and not program.kind.hides:
                self._note_urgency(wanted, members)

    def _note_urgency(self, plan: InstancePlan, points: Iterable[int]) -> None:
        most = min((level.priority for level in plan.levels), default=Priority.LOW)
        for point in points:
            self._urgent[point] = min(self._urgent.get(point, most), most)

    def _fill(self, program: Program, changed: _Changed) -> None:
        """Write settings and layout; rows first, so that everything has its place."""
        roster, state, layout = self.roster[program], program.state, program.layout
        is_sampled = program.kind.judges is None
        width = len(self._points) if is_sampled else len(self.instances)
        if not changed.is_any and layout.point_count == width:
            return
        size = len(roster.instance_keys)
        state.grow(size)
        for instance in changed.new:
            state["position"][instance] = len(self.instances)
            self.instances.append(_NO_INSTANCE)
        roster.layout_into(layout, width)
        program.evaluator.instances.grow(size)
        program.evaluator.slots.grow(len(roster.slot_keys))
        _write_levels(program, changed.instances)
        for instance, plan in changed.instances:
            number = roster.group_keys[layout.instance_group[instance]][0]
            self.instances[state["position"][instance]] = _described(
                roster.instance_keys[instance], self._rules[number].rule, plan
            )
        known = self._points
        index = [known.index(i) if i and i in known else -1 for i in roster.derived_ids]
        self.derived[program] = np.array(index, dtype=np.int64)
        program.evaluator.configure(changed.instances, changed.groups, layout)
        program.settle_all()


def _write_levels(program: Program, instances: Sequence[tuple[int, InstancePlan]]) -> None:
    """Delays and limits; all instances of a rule that share their levels at once."""
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    plans: dict[tuple[int, ...], InstancePlan] = {}
    for instance, plan in instances:
        key = (id(plan.levels), id(plan.on_delay_ns), id(plan.off_delay_ns), id(plan.resets))
        rows[key].append(instance)
        plans[key] = plan
    state = program.state
    for same, plan in plans.items():
        place = (np.array(rows[same]), slice(len(plan.levels)))
        state["on_ns"][place] = plan.on_delay_ns
        state["off_ns"][place] = plan.off_delay_ns
        state["limit"][place] = [_number(level.limit) for level in plan.levels]
        state["reset"][place] = plan.resets or np.nan


def _number(limit: float | None) -> float:
    return np.nan if limit is None else limit


def _described(key: str, rule: Rule, plan: InstancePlan) -> RuleInstance:
    return RuleInstance(
        alarm_key=key,
        rule=rule,
        target=plan.target,
        point_id=plan.point_id,
        levels=plan.levels,
        unit=plan.unit,
        device=plan.device,
        area=plan.area,
        location=plan.location,
        display_name=plan.display_name,
    )


_NO_INSTANCE = RuleInstance(
    alarm_key="",
    rule=Rule(id="", kind="", inputs={}, parameters={}),
    target="",
    point_id="",
    levels=(),
)
