"""Which points each rule is about, in which groups; kept up to date as the point table grows.

    point ─index by id, by quantity─▶ (rule, input) that matches ─group_by─▶ group of the rule
                                                                             └─ marked changed

Only points and devices that are new or differ are looked at again, so a table that grows by one
vehicle costs one vehicle. Which rules depend on which derived points is decided once, from the
rules alone: a rule that *could* select what a calculation produces is judged after it, and a circle
is refused before anything runs.

Not here: what a group means (kinds/), arrays (program.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import Fault
from gateway.model.point import Device, Point, PointTable
from gateway.model.rule import GroupBy, Rule, Selector

SITE_KEY = "site"

Dirty = dict[tuple[int, str], None]
"""(rule, group key) to be planned again, in order of their first points."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with its kind and its parameters checked."""

    rule: Rule
    kind: RuleKind
    parameters: Any
    group_by: str
    layer: int = 0  # judged after every rule of a lower layer
    number: int = 0  # among the rules
    judged: Sequence[str] = ()  # ids of the rules whose levels it judges


@dataclass(slots=True)
class RuleGroups:
    """The groups of one rule: group key -> input -> points in the order they were found."""

    inputs: tuple[str, ...]
    groups: dict[str, dict[str, dict[int, None]]] = field(default_factory=dict)

    def members(self, key: str) -> Mapping[str, tuple[int, ...]]:
        group = self.groups.get(key, {})
        return {name: tuple(sorted(group.get(name, ()))) for name in self.inputs}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One input of one rule, and what a point found by the index must still be."""

    number: int
    name: str
    group_by: str
    fields: tuple[tuple[str, str], ...]  # of the point
    device_kind: str
    attributes: tuple[tuple[str, str], ...]  # of the point, else of its device

    @classmethod
    def of(cls, number: int, name: str, group_by: str, selector: Selector) -> _Candidate:
        names = ("quantity", "location_class", "area", "device", "adapter")
        wanted = ((name, getattr(selector, name)) for name in names)
        fields = tuple(pair for pair in wanted if pair[1])
        attributes = tuple(selector.attributes.items())
        return cls(number, name, group_by, fields, selector.device_kind, attributes)

    def matches(self, point: Point, device: Device | None) -> bool:
        for name, wanted in self.fields:
            if getattr(point, name) != wanted:
                return False
        if self.device_kind and (device is None or device.kind != self.device_kind):
            return False
        inherited: Mapping[str, str] = device.attributes if device else {}
        return all(
            point.attributes.get(key, inherited.get(key)) == value for key, value in self.attributes
        )


class Matching:
    """Points matched to rules, incrementally."""

    def __init__(self, rules: Sequence[CompiledRule], points: PointTable) -> None:
        self._rules = rules
        self._points = points
        self.of_rule = [RuleGroups(tuple(sorted(rule.rule.inputs))) for rule in rules]
        self._by_id: dict[str, list[_Candidate]] = defaultdict(list)
        self._by_quantity: dict[str, list[_Candidate]] = defaultdict(list)
        for number, rule in enumerate(rules):
            if rule.kind.judges is not None:
                continue  # of other rules' levels, not of points
            for name, selector in rule.rule.inputs.items():
                candidate = _Candidate.of(number, name, rule.group_by, selector)
                for point_id in set(selector.ids):
                    self._by_id[point_id].append(candidate)
                if not selector.ids:
                    self._by_quantity[selector.quantity].append(candidate)
        self._seen_points: list[Point] = []
        self._seen_devices: list[Device] = []
        self._points_of: dict[str, set[int]] = defaultdict(set)
        self._places: dict[int, list[tuple[int, str, str]]] = {}
        self._version = -1

    @property
    def is_current(self) -> bool:
        return self._version == self._points.version

    def places(self, point: int) -> Sequence[tuple[int, str, str]]:
        """(rule, group key, input) of everything the point is in."""
        return self._places.get(point, ())

    def update(self) -> Dirty:
        """Look at what changed in the table; returns the (rule, group key) that did with it, in
        order of their points."""
        if self.is_current:
            return {}
        self._version = self._points.version
        devices = self._changed_devices()
        changed = set(self._changed_points())
        for device in devices:
            changed |= self._points_of.get(device.id, set())
        dirty: Dirty = {}
        for index in sorted(changed):
            self._match(index, dirty)
        kinds = {device.kind for device in devices}
        for number, rule in enumerate(self._rules):
            if rule.kind.per_device and not kinds.isdisjoint(rule.kind.per_device):
                dirty |= {(number, key): None for key in self.of_rule[number].groups}
        return dirty

    def _changed_points(self) -> list[int]:
        seen, changed = self._seen_points, []
        for index, point in enumerate(self._points):
            if index >= len(seen):
                seen.append(point)
            elif seen[index] is point:
                continue
            else:
                self._points_of[seen[index].device].discard(index)
                seen[index] = point
            self._points_of[point.device].add(index)
            changed.append(index)
        return changed

    def _changed_devices(self) -> list[Device]:
        seen, changed = self._seen_devices, []
        for index, device in enumerate(self._points.devices):
            if index >= len(seen):
                seen.append(device)
            elif seen[index] is device:
                continue
            else:
                seen[index] = device
            changed.append(device)
        return changed

    def _match(self, index: int, dirty: Dirty) -> None:
        for number, key, name in self._places.pop(index, ()):
            self.of_rule[number].groups[key][name].pop(index, None)
            dirty[(number, key)] = None
        point = self._points[index]
        device = self._points.device(point.device) if point.device else None
        candidates = [*self._by_quantity.get("", ()), *self._by_id.get(point.id, ())]
        if point.quantity:
            candidates += self._by_quantity.get(point.quantity, ())
        places = []
        for candidate in candidates:
            if candidate.matches(point, device):
                number, name = candidate.number, candidate.name
                key = group_key(candidate.group_by, point)
                group = self.of_rule[number].groups.setdefault(key, {})
                group.setdefault(name, {})[index] = None
                places.append((number, key, name))
                dirty[(number, key)] = None
        if places:
            self._places[index] = places


def group_key(group_by: str, point: Point) -> str:
    """What the point is grouped under; "" when it has no such thing."""
    if group_by == GroupBy.POINT:
        return point.id
    if group_by == GroupBy.SITE:
        return SITE_KEY
    return str(getattr(point, group_by))


def compile_rules(
    rules: Sequence[Rule], kinds: Mapping[str, RuleKind]
) -> tuple[list[CompiledRule], list[Fault]]:
    """Every rule with its kind and parameters, and every fault found on the way."""
    faults: list[Fault] = []
    compiled: list[CompiledRule] = []
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            faults.append(_fault(rule, "id", "each rule id once; this one stands twice"))
            continue
        seen.add(rule.id)
        kind = kinds.get(rule.kind)
        if kind is None:
            known = ", ".join(sorted(kinds))
            faults.append(_fault(rule, "kind", f"one of {known}; not {rule.kind!r}"))
            continue
        one, found = _compile(rule, kind)
        faults += found
        if one is not None:
            compiled.append(one)
    faults += _judging_nothing(compiled)
    if faults:
        return [], faults
    layers, circle = _layers(compiled)
    if circle:
        names = " -> ".join(circle)
        fault = Fault("rules", 0, circle[0], f"rules that do not need themselves: {names}")
        return [], [fault]
    return [
        replace(one, layer=layer, number=number)
        for number, (one, layer) in enumerate(zip(compiled, layers, strict=True))
    ], []


def _compile(rule: Rule, kind: RuleKind) -> tuple[CompiledRule | None, list[Fault]]:
    faults = []
    try:
        parameters = kind.parameters.model_validate(dict(rule.parameters))
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            faults.append(_fault(rule, f"parameters.{where}", item["msg"]))
        return None, faults
    if not rule.inputs:
        faults.append(_fault(rule, "inputs", "at least one selector of points"))
    if kind.inputs is not None and set(rule.inputs) != set(kind.inputs):
        faults.append(_fault(rule, "inputs", f"exactly {', '.join(kind.inputs)}"))
    if rule.on_delay_s < 0 or rule.off_delay_s < 0:
        faults.append(_fault(rule, "on_delay_s", "a delay of 0 s or more"))
    faults += [_fault(rule, "parameters", text) for text in kind.check(rule, parameters)]
    group_by = kind.group_by(rule, parameters) if kind.group_by else str(rule.group_by.value)
    judged = tuple(kind.judges(parameters)) if kind.judges else ()
    return CompiledRule(rule, kind, parameters, group_by, judged=judged), faults


def _fault(rule: Rule, key: str, expected: str) -> Fault:
    return Fault(file="rules", line=0, key=f"{rule.id}.{key}", expected=expected)


def _layers(rules: Sequence[CompiledRule]) -> tuple[list[int], list[str]]:
    """The layer of each rule, or the names along a circle."""
    produced = {
        number: point
        for number, rule in enumerate(rules)
        if (point := rule.kind.produces(rule.rule, rule.parameters)) is not None
    }
    needs = [
        _judged_by(rule, rules)
        if rule.kind.judges
        else [
            source
            for source, point in produced.items()
            if any(_could_select(selector, point) for selector in rule.rule.inputs.values())
        ]
        for rule in rules
    ]
    layers: list[int | None] = [None] * len(rules)

    def visit(number: int, path: list[int]) -> list[int]:
        if number in path:
            return [*path[path.index(number) :], number]
        if layers[number] is None:
            for source in needs[number]:
                circle = visit(source, [*path, number])
                if circle:
                    return circle
            layers[number] = max((1 + (layers[s] or 0) for s in needs[number]), default=0)
        return []

    for number in range(len(rules)):
        circle = visit(number, [])
        if circle:
            return [], [rules[n].rule.id for n in circle]
    return [layer or 0 for layer in layers], []


def _judged_by(judge: CompiledRule, rules: Sequence[CompiledRule]) -> list[int]:
    """Numbers of the rules whose levels it judges. One that names itself is a circle; one that
    only could mean itself by a `*` does not."""
    return [
        number
        for number, rule in enumerate(rules)
        if rule.rule.id in judge.judged or (rule is not judge and means(rule.rule.id, judge.judged))
    ]


def _judging_nothing(rules: Sequence[CompiledRule]) -> list[Fault]:
    """Ids a rule wants to judge and no rule has."""
    return [
        _fault(judge.rule, "parameters", f"ids of rules of the site; none is {wanted!r}")
        for judge in rules
        for wanted in judge.judged
        if not any(means(rule.rule.id, (wanted,)) for rule in rules if rule is not judge)
    ]


def means(rule_id: str, patterns: Iterable[str]) -> bool:
    """Whether one of the ids means the rule; `*` stands for any part."""
    return any(re.fullmatch(re.escape(p).replace(r"\*", ".*"), rule_id) for p in patterns)


def _could_select(selector: Selector, produced: Point) -> bool:
    """Whether the selector may match what a calculation produces. Place, device and attributes are
    not known before there are points, so they count as matching; `*` in the id stands for them."""
    if selector.ids:
        pattern = ".*".join(re.escape(part) for part in produced.id.split("*"))
        if not any(re.fullmatch(pattern, wanted) for wanted in selector.ids):
            return False
    return not selector.quantity or selector.quantity == produced.quantity
