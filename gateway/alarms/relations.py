"""Which alarms explain others: first-out groups, and dead links with everything behind them. Pure.

    group     first A ──▶ B, C follow     B, C suppressed by `first-out:<group>` (mode suppress)
    link      adapter ─ device ─ point    silence of what is below, suppressed by `parent:<key>`

A group's episode lasts from its first activation until none of its alarms is active; one alarm of
it is marked as the first. It explains the others while it is active and in sight: a first alarm
that somebody shelves must not take the rest out of sight with it. A link explains as long as its
silence lasts, whoever has hidden it: who knows of the dead link knows of its points.

Only silence is explained by silence: a value over its limit is never hidden by a parent. Nothing
more urgent than its parent is hidden, and nothing of priority 1 by a first-out group. Planned
alarms (a calibration) explain nothing and are not counted.

Surprising: an explanation is taken back not at once but when `due` says so, because what returns
together with its parent, in the same nanosecond or one polling cycle later, needs nobody.

Owns: who is active where, who follows whom. All of it is rebuilt from the rows after a restart. Not
here: rows and events (book.py). Limits: one entry for each alarm in a group or of a silence kind.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gateway.alarms.policy import AlarmGroup, GroupMode
from gateway.model.alarm import Alarm, AlarmState
from gateway.model.condition import RuleInstance
from gateway.model.point import PointTable
from gateway.model.rule import Priority

FIRST_OUT = "first-out:"
PARENT = "parent:"
CHAIN_MAX = 8
"""Devices above a device: beyond it the attribute `parent` runs in a circle."""

Node = tuple[str, str]
"""("point" | "device" | "adapter", id): a place a silence can be about."""
Above = Callable[[RuleInstance], Sequence[Node]]

_IN_SIGHT = (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED)


def is_automatic(source: str) -> bool:
    """Whether the gateway itself suppressed by `source`, and will take it back."""
    return source.startswith((FIRST_OUT, PARENT))


def node_of(instance: RuleInstance) -> Node:
    """What a silence alarm is about."""
    if instance.point_id and instance.point_id == instance.target:
        return ("point", instance.target)
    if instance.device and instance.device == instance.target:
        return ("device", instance.target)
    return ("adapter", instance.target)


def above_in(points: PointTable) -> Above:
    """What lies between an instance and the gateway: its device, the devices that one names as
    `parent`, its adapter."""

    def above(instance: RuleInstance) -> list[Node]:
        kind, name = node_of(instance)
        if kind == "adapter":
            return []
        point = points.get(name) if kind == "point" else None
        nodes: list[Node] = []
        device_id = (point.device if point else instance.device) if kind == "point" else name
        adapter = point.adapter if point else ""
        for _ in range(CHAIN_MAX):
            if not device_id:
                break
            if ("device", device_id) != (kind, name):
                nodes.append(("device", device_id))
            device = points.device(device_id)
            adapter = adapter or (device.adapter if device else "")
            device_id = device.attributes.get("parent", "") if device else ""
        return [*nodes, ("adapter", adapter)] if adapter else nodes

    return above


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one alarm stands among the others."""

    groups: tuple[AlarmGroup, ...]
    node: Node | None  # of a silence alarm
    above: tuple[Node, ...]


class Relations:
    """Kept up to date with every row the book writes."""

    def __init__(
        self,
        groups: Sequence[AlarmGroup],
        silence_kinds: Collection[str],
        *,
        above: Above,
        release_ns: int,
    ) -> None:
        self._groups = tuple(groups)
        self._silence_kinds = frozenset(silence_kinds)
        self._above = above
        self._release_ns = release_ns
        self._places: dict[str, _Place] = {}
        self._active_in: dict[str, set[str]] = defaultdict(set)  # group -> keys
        self._first: dict[str, Alarm] = {}  # group -> its first alarm, while active
        self._links: dict[str, Alarm] = {}  # silence alarms that are active
        self._silent_at: dict[Node, set[str]] = defaultdict(set)
        self._silent_below: dict[Node, set[str]] = defaultdict(set)
        self._explained: dict[str, set[str]] = defaultdict(set)  # source -> keys
        self._pending: list[tuple[int, str]] = []  # heap of (due, source)
        self._ended: dict[str, int] = {}  # source -> its due; an older entry of the heap is void
        self.is_used = bool(self._groups or self._silence_kinds)

    # --- bookkeeping

    def learn(self, instance: RuleInstance, row: Alarm | None) -> None:
        """Where an alarm stands; `row` is what the book has of it."""
        if not self.is_used:
            return
        key = instance.alarm_key
        groups = tuple(group for group in self._groups if group.has(instance))
        silent = instance.rule.kind in self._silence_kinds
        above = tuple(self._above(instance)) if silent else ()
        place = _Place(groups, node_of(instance) if silent else None, above)
        if self._places.get(key) == place:
            return
        self._take_out(key)
        if groups or silent:
            self._places[key] = place
            if row is not None:
                self._take_in(row)

    def put(self, before: Alarm | None, row: Alarm, time_ns: int) -> None:
        """The book has written `row`; at `time_ns` it may have stopped explaining others."""
        if before is not None and before.suppressed_by:
            for source in before.suppressed_by:
                self._explained[source].discard(row.alarm_key)
        for source in row.suppressed_by:
            if is_automatic(source):
                self._explained[source].add(row.alarm_key)
        if row.alarm_key not in self._places:
            return
        stood = [source for source in self._by(row.alarm_key) if self.stands(source)]
        self._take_out(row.alarm_key, forget=False)
        self._take_in(row)
        for source in stood:
            if self._explained.get(source) and not self.stands(source):
                # The link is back: its points follow. Disabled or removed, it explains nothing.
                is_back = source.startswith(PARENT) and row.return_time_ns is not None
                delay_ns = self._release_ns if is_back else 0
                self._end(source, time_ns + delay_ns)

    def recover(self, row_of: Callable[[str], Alarm | None], now_ns: int) -> None:
        """After a restart: what was explained by something that no longer stands is let go, when
        it would have been without the restart, as far as the rows tell."""
        for source, keys in self._explained.items():
            if keys and not self.stands(source):
                parent = row_of(source.removeprefix(PARENT)) if source.startswith(PARENT) else None
                ended_ns = parent.return_time_ns if parent is not None else None
                due_ns = now_ns if ended_ns is None else ended_ns + self._release_ns
                self._end(source, min(due_ns, now_ns + self._release_ns))

    def _end(self, source: str, due_ns: int) -> None:
        self._ended[source] = due_ns
        heapq.heappush(self._pending, (due_ns, source))

    def _take_in(self, row: Alarm) -> None:
        place = self._places[row.alarm_key]
        if not row.active or row.planned:
            return
        for group in place.groups:
            self._active_in[group.name].add(row.alarm_key)
            if group.name in row.first_out:
                self._first[group.name] = row
        if place.node is not None:
            self._links[row.alarm_key] = row
            self._silent_at[place.node].add(row.alarm_key)
            for node in place.above:
                self._silent_below[node].add(row.alarm_key)

    def _take_out(self, key: str, *, forget: bool = True) -> None:
        place = self._places.get(key)
        if place is None:
            return
        for group in place.groups:
            self._active_in[group.name].discard(key)
            first = self._first.get(group.name)
            if first is not None and first.alarm_key == key:
                del self._first[group.name]
        if place.node is not None:
            self._links.pop(key, None)
            self._silent_at[place.node].discard(key)
            for node in place.above:
                self._silent_below[node].discard(key)
        if forget:
            del self._places[key]

    def _by(self, key: str) -> list[str]:
        """The sources one alarm can be."""
        place = self._places[key]
        firsts = [
            FIRST_OUT + group.name
            for group in place.groups
            if (first := self._first.get(group.name)) is not None and first.alarm_key == key
        ]
        return firsts + ([PARENT + key] if place.node is not None else [])

    # --- answers

    def stands_alone(self, instance: RuleInstance) -> bool:
        """Whether its alarm can neither explain another nor be explained."""
        silent = instance.rule.kind in self._silence_kinds
        return not silent and not any(group.has(instance) for group in self._groups)

    def depth(self, key: str) -> int:
        """Links before what is behind them, where one instant brings the silence of both."""
        place = self._places.get(key)
        if place is None or place.node is None:
            return 0
        return ("adapter", "device", "point").index(place.node[0])

    def firsts(self, key: str) -> tuple[str, ...]:
        """The groups in which an activation of `key` is the first."""
        place = self._places.get(key)
        if place is None:
            return ()
        return tuple(
            group.name for group in place.groups if not self._active_in[group.name] - {key}
        )

    def sources(self, key: str, priority: Priority) -> list[str]:
        """What explains an activation of `key` at this priority."""
        place = self._places.get(key)
        if place is None:
            return []
        found = [
            FIRST_OUT + group.name
            for group in place.groups
            if group.mode is GroupMode.SUPPRESS
            and priority is not Priority.CRITICAL
            and (first := self._first.get(group.name)) is not None
            and first.alarm_key != key
            and first.state in _IN_SIGHT
        ]
        return found + [
            PARENT + parent
            for node in (place.above if place.node is not None else ())
            for parent in sorted(self._silent_at[node])
            if parent != key and self._links[parent].priority <= priority
        ]

    def explains(self, key: str) -> list[str]:
        """The silence alarms below an active one that it explains, most urgent first."""
        place, parent = self._places.get(key), self._links.get(key)
        if place is None or place.node is None or parent is None:
            return []
        below = [self._links[child] for child in self._silent_below[place.node] if child != key]
        below = [child for child in below if child.priority >= parent.priority]
        return [child.alarm_key for child in sorted(below, key=lambda a: (a.priority, a.alarm_key))]

    def stands(self, source: str) -> bool:
        """Whether what `source` names still explains."""
        if source.startswith(PARENT):
            return source.removeprefix(PARENT) in self._links
        first = self._first.get(source.removeprefix(FIRST_OUT))
        return first is not None and first.state in _IN_SIGHT

    def due(self, before_ns: int) -> list[tuple[int, str, list[str]]]:
        """Explanations to take back, as (when, source, alarms), of before `before_ns`."""
        found: list[tuple[int, str, list[str]]] = []
        while self._pending and self._pending[0][0] < before_ns:
            due_ns, source = heapq.heappop(self._pending)
            if self._ended.get(source) != due_ns:
                continue  # it stood again meanwhile, and ended later
            del self._ended[source]
            if self._explained.get(source) and not self.stands(source):
                found.append((due_ns, source, sorted(self._explained[source])))
        return found

    @property
    def due_ns(self) -> int | None:
        return self._pending[0][0] if self._pending else None
