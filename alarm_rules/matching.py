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

import gc
import marshal
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

from pydantic import BaseModel, ValidationError

from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import Fault
from gateway.model.point import Device, Point, PointTable
from gateway.model.rule import GroupBy, Rule, Selector

SITE_KEY = "site"
_NO_GROUPS: dict[str, dict[str, dict[int, None]]] = {}  # never written

Dirty = dict[int, dict[str, None]]
"""Rule -> group keys to be planned again, in order of their first points."""


@dataclass(slots=True, eq=False)
class CompiledRule:
    """A rule with its kind and its parameters checked. Layer and number are known last."""

    rule: Rule
    kind: RuleKind
    parameters: Any
    group_by: str
    layer: int = 0  # judged after every rule of a lower layer
    number: int = 0  # among the rules
    judged: Sequence[str] = ()  # ids of the rules whose levels it judges
    is_quick: bool = False  # the parameters are what `kind.quick` made of them


class RuleGroups:
    """The groups of one rule: group key -> input -> points in the order they were found.

    A rule with one input that judges each point by itself (nearly all of them) has one number for
    each group and no more: `only`, by group key; None for all other rules.
    """

    __slots__ = ("_groups", "inputs", "only")

    def __init__(self, inputs: tuple[str, ...], *, is_by_point: bool) -> None:
        self.inputs = inputs
        self.only: dict[str, int] | None = {} if is_by_point and len(inputs) == 1 else None
        self._groups = _NO_GROUPS if self.only is not None else {}

    @property
    def groups(self) -> Mapping[str, Mapping[str, Iterable[int]]]:
        if self.only is None:
            return self._groups
        (name,) = self.inputs
        return {key: {name: (point,)} for key, point in self.only.items()}

    def keys(self) -> Iterable[str]:
        return self._groups if self.only is None else self.only

    def points(self) -> Iterator[int]:
        """Every point of every group; one that is in two of them twice."""
        if self.only is not None:
            yield from self.only.values()
        for inputs in self._groups.values():
            for members in inputs.values():
                yield from members

    def members(self, key: str) -> Mapping[str, tuple[int, ...]]:
        if self.only is not None:
            point = self.only.get(key)
            return {self.inputs[0]: () if point is None else (point,)}
        group = self._groups.get(key, {})
        return {name: tuple(sorted(group.get(name, ()))) for name in self.inputs}

    def add(self, key: str, name: str, point: int) -> None:
        if self.only is not None:
            self.only[key] = point
        else:
            self._groups.setdefault(key, {}).setdefault(name, {})[point] = None

    def discard(self, key: str, name: str, point: int) -> None:
        if self.only is not None:
            self.only.pop(key, None)
        else:
            self._groups[key][name].pop(point, None)


@dataclass(slots=True, eq=False)
class _Candidate:
    """One input of one rule, and what a point found by the index must still be."""

    number: int
    name: str
    group_by: str
    hides: bool
    fields: tuple[tuple[str, str], ...]  # of the point
    device_kind: str
    attributes: tuple[tuple[str, str], ...]  # of the point, else of its device
    is_any: bool  # it need be nothing more

    @classmethod
    def of(cls, number: int, name: str, rule: CompiledRule, selector: Selector) -> _Candidate:
        wanted, fields = _of_fields(selector), _NO_FIELDS
        if wanted != _UNSTATED:
            fields = tuple(pair for pair in zip(_FIELDS, wanted, strict=True) if pair[1])
        attributes = tuple(selector.attributes.items()) if selector.attributes else ()
        kind = selector.device_kind
        is_any = not (fields or kind or attributes)
        hides = rule.kind.hides
        return cls(number, name, rule.group_by, hides, fields, kind, attributes, is_any)

    def matches(self, point: Point, device: Device | None) -> bool:
        for name, wanted in self.fields:
            if getattr(point, name) != wanted:
                return False
        if self.device_kind and (device is None or device.kind != self.device_kind):
            return False
        if not self.attributes:
            return True
        inherited: Mapping[str, str] = device.attributes if device else {}
        return all(
            point.attributes.get(key, inherited.get(key)) == value for key, value in self.attributes
        )


_FIELDS = ("quantity", "location_class", "area", "device", "adapter")
_UNSTATED = ("",) * len(_FIELDS)
_NO_FIELDS: tuple[tuple[str, str], ...] = ()
_of_fields = attrgetter(*_FIELDS)
_Place = tuple[_Candidate, ...]


class _Asked:
    """The candidates for one quantity ("": for any), and which of them match a point.

    Points that are alike in all that some candidate asks about are looked at once: a rule for all
    the methane of a mine costs one comparison, a rule for one class of place one for each class.
    """

    def __init__(self) -> None:
        self.candidates: list[_Candidate] = []
        self._fields: tuple[str, ...] = ()
        self._attributes: tuple[str, ...] = ()
        self._known: dict[Any, _Place] = {}

    def begin(self) -> None:
        """Forget what was found: kept for one update, so that it cannot grow."""
        self._known = {}
        asked = self.candidates
        self._fields = tuple({name: None for one in asked for name, _ in one.fields})
        self._attributes = tuple({name: None for one in asked for name, _ in one.attributes})

    def matching(self, point: Point, device: Device | None) -> _Place:
        key: Any = tuple([getattr(point, name) for name in self._fields])
        if self._attributes:
            inherited: Mapping[str, str] = device.attributes if device else {}
            own = [point.attributes.get(name, inherited.get(name)) for name in self._attributes]
            key = (key, *own)
        key = (key, device.kind if device else None)
        found = self._known.get(key)
        if found is None:
            found = tuple(one for one in self.candidates if one.matches(point, device))
            self._known[key] = found
        return found


class Matching:
    """Points matched to rules, incrementally."""

    def __init__(self, rules: Sequence[CompiledRule], points: PointTable) -> None:
        self._rules = rules
        self._points = points
        self.of_rule = [_no_groups(rule) for rule in rules]
        self._by_id: dict[str, _Place] = {}
        self._any = _Asked()
        self._by_quantity: dict[str, _Asked] = {"": self._any}
        for number, rule in enumerate(rules):
            self._ask(number, rule)
        self._seen_points: list[Point] = []
        self._seen_devices: list[Device] = []
        self._points_of: dict[str, set[int]] = defaultdict(set)
        self._places: list[_Place] = []  # by point
        self._matched: list[Point] = []  # by point: as it was when it was matched
        self._version = -1

    def _ask(self, number: int, rule: CompiledRule) -> list[_Candidate]:
        """Look for the rule's points from now on."""
        if rule.kind.judges is not None:
            return []  # of other rules' levels, not of points
        candidates = []
        for name, selector in rule.rule.inputs.items():
            candidate = _Candidate.of(number, name, rule, selector)
            candidates.append(candidate)
            for point_id in selector.ids if len(selector.ids) < 2 else {*selector.ids}:
                before = self._by_id.get(point_id)
                self._by_id[point_id] = (*before, candidate) if before else (candidate,)
            if not selector.ids:
                asked = self._by_quantity.setdefault(selector.quantity, _Asked())
                asked.candidates.append(candidate)
        return candidates

    def _ask_no_more(self, rules: Mapping[int, CompiledRule]) -> None:
        """Look for the points of these no longer."""
        for rule in rules.values():
            for selector in rule.rule.inputs.values():
                for point_id in selector.ids:
                    left = [c for c in self._by_id.get(point_id, ()) if c.number not in rules]
                    self._by_id[point_id] = tuple(left)
        for asked in self._by_quantity.values():
            if any(one.number in rules for one in asked.candidates):
                asked.candidates = [c for c in asked.candidates if c.number not in rules]

    @property
    def is_current(self) -> bool:
        return self._version == self._points.version

    def places(self, point: int) -> Sequence[tuple[int, str, str]]:
        """(rule, group key, input) of everything the point is in."""
        if point >= len(self._places):
            return ()
        was = self._matched[point]
        return [(c.number, group_key(c.group_by, was), c.name) for c in self._places[point]]

    def hiding(self, points: Iterable[int]) -> Dirty:
        """The groups the points have in rules that plan after others."""
        found: Dirty = {}
        places, matched = self._places, self._matched
        for point in points:
            for one in places[point]:
                if one.hides:
                    key = group_key(one.group_by, matched[point])
                    found.setdefault(one.number, {})[key] = None
        return found

    def update(self) -> tuple[Sequence[int], Dirty]:
        """Look at what changed in the table; returns the points that did, ascending, and all of
        their groups, in order of their points."""
        if self.is_current:
            return (), {}
        self._version = self._points.version
        devices, kinds = self._changed_devices()
        changed = self._changed_points()
        if any(device.id in self._points_of for device in devices):
            every = set(changed)
            every.update(*(self._points_of.get(device.id, ()) for device in devices))
            changed = sorted(every)
        dirty: Dirty = {}
        self._match(changed, dirty)
        for number, rule in enumerate(self._rules):
            if rule.kind.per_device and not kinds.isdisjoint(rule.kind.per_device):
                dirty.setdefault(number, {}).update(dict.fromkeys(self.of_rule[number].keys()))
        return changed, dirty

    def _changed_points(self) -> list[int]:
        """Indices of points that are new or differ, ascending."""
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

    def _changed_devices(self) -> tuple[list[Device], set[str]]:
        """Those that are new or differ, and of what kinds they are, or were."""
        seen, changed, kinds = self._seen_devices, list[Device](), set[str]()
        for index, device in enumerate(self._points.devices):
            if index >= len(seen):
                seen.append(device)
            elif seen[index] is device:
                continue
            else:
                kinds.add(seen[index].kind)
                seen[index] = device
            changed.append(device)
            kinds.add(device.kind)
        return changed, kinds

    def exchange(
        self, before: Mapping[int, CompiledRule], after: Mapping[int, CompiledRule]
    ) -> tuple[list[int], Dirty]:
        """Rules by number as they were and as they are; in only one of the two: new, or gone.
        Returns the points any of them is about, ascending, and the groups to be planned again:
        all of those points, whatever the rule. The point table must not have changed since the last
        `update`."""
        assert self.is_current, "first what the points have become"
        dirty: Dirty = {}
        touched = {point for number in before for point in self.of_rule[number].points()}
        for index in sorted(touched):
            self._take_out(index, dirty)
        self._ask_no_more(before)
        for number, rule in before.items():
            dirty.setdefault(number, {}).update(dict.fromkeys(self.of_rule[number].keys()))
            self.of_rule[number] = _no_groups(rule)
        for number in sorted(after):
            if number == len(self.of_rule):
                self.of_rule.append(_no_groups(after[number]))
            self.of_rule[number] = _no_groups(after[number])
            candidates = self._ask(number, after[number])
            selectors = [*after[number].rule.inputs.values()]
            touched.update(self._matching(candidates, selectors))
        self._match(sorted(touched), dirty)
        return sorted(touched), dirty

    def _matching(
        self, candidates: Sequence[_Candidate], selectors: Sequence[Selector]
    ) -> Iterator[int]:
        for one, selector in zip(candidates, selectors, strict=True):
            known = [self._points.index(each) for each in selector.ids if each in self._points]
            for index in known if selector.ids else range(len(self._points)):
                point = self._points[index]
                device = self._points.device(point.device) if point.device else None
                if one.matches(point, device):
                    yield index

    def _take_out(self, index: int, dirty: Dirty) -> None:
        """Out of every group it is in."""
        for number, key, name in self.places(index):
            self.of_rule[number].discard(key, name, index)
            dirty.setdefault(number, {})[key] = None
        self._places[index] = ()

    def _match(self, changed: Sequence[int], dirty: Dirty) -> None:
        """Take the points out of where they were and put them where they belong."""
        for asked in self._by_quantity.values():
            asked.begin()
        places, matched, of_rule = self._places, self._matched, self.of_rule
        for index in changed:
            point = self._points[index]
            if index < len(places):
                self._take_out(index, dirty)
                matched[index] = point
                place = places[index] = self._place_of(point)
            else:  # points are never taken away: the next one
                matched.append(point)
                place = self._place_of(point)
                places.append(place)
            for one in place:
                number, key = one.number, group_key(one.group_by, point)
                of_rule[number].add(key, one.name, index)
                keys = dirty.get(number)
                if keys is None:
                    keys = dirty[number] = {}
                keys[key] = None

    def _place_of(self, point: Point) -> _Place:
        device = self._points.device(point.device) if point.device else None
        place = self._any.matching(point, device) if self._any.candidates else ()
        by_id = self._by_id.get(point.id)
        if by_id is not None:
            found = by_id
            if len(by_id) != 1 or not by_id[0].is_any:
                found = tuple([one for one in by_id if one.matches(point, device)])
            place = place + found if place else found
        if point.quantity:
            asked = self._by_quantity.get(point.quantity)
            if asked is not None:
                found = asked.matching(point, device)
                place = place + found if place else found
        return place


def _no_groups(rule: CompiledRule) -> RuleGroups:
    inputs = tuple(rule.rule.inputs)
    if len(inputs) > 1:
        inputs = tuple(sorted(inputs))
    return RuleGroups(inputs, is_by_point=rule.group_by == GroupBy.POINT)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, while what is made is made to stay: a hundred thousand rules
    are a million objects, and to look through all of them again and again is half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # to the oldest at once: the first look is at all of it
                gc.freeze()
                gc.unfreeze()
            gc.enable()


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
    compiled, layers, faults = check_rules_again(rules, kinds, {})
    for number, (one, layer) in enumerate(zip(compiled, layers, strict=True)):
        one.number, one.layer = number, layer
    return compiled, faults


def check_rules_again(
    rules: Sequence[Rule], kinds: Mapping[str, RuleKind], in_force: Mapping[str, CompiledRule]
) -> tuple[list[CompiledRule], list[int], list[Fault]]:
    """Every rule compiled, its layer, and every fault; with a fault none at all. Of those that are
    `in_force`, by id, the ones that state the same are taken as they are, and not written to."""
    faults: list[Fault] = []
    compiled: list[CompiledRule] = []
    seen: set[str] = set()
    shared = _Shared()
    for rule in rules:
        if rule.id in seen:
            faults.append(_fault(rule, "id", "each rule id once; this one stands twice"))
            continue
        seen.add(rule.id)
        same = in_force.get(rule.id)
        if same is not None and (same.rule is rule or same.rule == rule):
            compiled.append(same)
            continue
        kind = kinds.get(rule.kind)
        if kind is None:
            known = ", ".join(sorted(kinds))
            faults.append(_fault(rule, "kind", f"one of {known}; not {rule.kind!r}"))
            continue
        one, found = _compile(rule, kind, shared)
        faults += found
        if one is not None:
            compiled.append(one)
    faults += _judging_nothing(compiled)
    if faults:
        return [], [], faults
    layers, circle = _layers(compiled)
    if circle:
        names = " -> ".join(circle)
        fault = Fault("rules", 0, circle[0], f"rules that do not need themselves: {names}")
        return [], [], [fault]
    return compiled, layers, []


_known: WeakValueDictionary[tuple[str, bytes], BaseModel] = WeakValueDictionary()
"""(kind, parameters as bytes) -> the parameters, checked, as long as some rule set has them: where
one rule of a hundred thousand was edited, the others need not be checked again."""


class _Shared:
    """Parameters checked so far, one object for all rules that state the same. Where hardly any do,
    to look is a fifth of the work and finds nothing: then it is left alone (`is_vain`)."""

    __slots__ = ("_asked", "_known", "is_vain")

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Any] = {}
        self._asked = 0
        self.is_vain = False

    def get(self, content: tuple[str, bytes]) -> Any:
        self._asked += 1
        return self._known.get(content)

    def put(self, content: tuple[str, bytes], parameters: Any) -> None:
        self._known[content] = parameters
        self.is_vain = self._asked >= _ASKED_MIN and 4 * len(self._known) > 3 * self._asked


_ASKED_MIN = 1_000


def _parameters(rule: Rule, kind: RuleKind, shared: _Shared) -> Any:
    """The rule's parameters as its kind's model; one object for all rules of a kind that state the
    same, where the kind can share it: to check is most of the work for a rule of one point."""
    stated: Any = rule.parameters
    if type(stated) is not dict:
        stated = dict(stated)
    if kind.plan_alike is None:
        return kind.parameters.model_validate(stated)
    if kind.quick is not None and shared.is_vain:
        found = kind.quick(stated)
        if found is not None:
            return found
    try:
        # Version 2 has no references: equal bytes are equal values of equal types (1 is not 1.0).
        content = (kind.name, marshal.dumps(stated, 2))
    except ValueError:  # something else than plain values
        return kind.parameters.model_validate(stated)
    if kind.quick is not None:
        found = shared.get(content)
        if found is None:
            found = kind.quick(stated)
        if found is not None:
            shared.put(content, found)
            return found
    found = _known.get(content)
    if type(found) is not kind.parameters:  # not known, or of another kind of this name
        found = _known[content] = kind.parameters.model_validate(stated)
    return found


def _compile(
    rule: Rule, kind: RuleKind, shared: _Shared
) -> tuple[CompiledRule | None, list[Fault]]:
    """`shared`: parameters of the rules before it."""
    faults: list[Fault] = []
    try:
        parameters = _parameters(rule, kind, shared)
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            faults.append(_fault(rule, f"parameters.{where}", item["msg"]))
        return None, faults
    if not rule.inputs:
        faults.append(_fault(rule, "inputs", "at least one selector of points"))
    if (
        kind.inputs is not None
        and tuple(rule.inputs) != kind.inputs
        and set(rule.inputs) != set(kind.inputs)
    ):
        faults.append(_fault(rule, "inputs", f"exactly {', '.join(kind.inputs)}"))
    if rule.on_delay_s < 0 or rule.off_delay_s < 0:
        faults.append(_fault(rule, "on_delay_s", "a delay of 0 s or more"))
    texts = kind.check(rule, parameters)
    if texts:
        faults += [_fault(rule, "parameters", text) for text in texts]
    group_by = kind.group_by(rule, parameters) if kind.group_by else str(rule.group_by)
    judged = tuple(kind.judges(parameters)) if kind.judges else ()
    is_quick = kind.quick is not None and type(parameters) is not kind.parameters
    return CompiledRule(rule, kind, parameters, group_by, 0, 0, judged, is_quick), faults


def _fault(rule: Rule, key: str, expected: str) -> Fault:
    return Fault(file="rules", line=0, key=f"{rule.id}.{key}", expected=expected)


def _layers(rules: Sequence[CompiledRule]) -> tuple[list[int], list[str]]:
    """The layer of each rule, or the names along a circle."""
    produced = {
        number: point
        for number, rule in enumerate(rules)
        if rule.kind.produces is not None
        and (point := rule.kind.produces(rule.rule, rule.parameters)) is not None
    }
    if not produced and not any(rule.kind.judges for rule in rules):
        return [0] * len(rules), []
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
