"""Who is who in one program: groups, slots and instances as rows, given once and kept.

    group     (rule, group key)                one set of inputs judged together
    slot      (group, input, point)            one input of one group
    instance  alarm key                        one alarm a group can raise

A row is never taken away or reused while the process lives, so state stays where it is. What no
longer matches is marked dead, and its memory is emptied (programs.py).

Nearly every group has one slot and one instance, so these stand in columns by group and only what
is beyond the first stands in a dict: no object for each point, however many there are. Plain
bookkeeping in Python, done when the point table changes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.state import Names, as_names
from gateway.contract.rule_kind import GroupPlan, Layout

SEPARATOR = "\x1f"  # between the parts of a slot's key; never part of an id
_NONE = -1


class Roster:
    """The rows of one program.

    rule_ids: by rule number. name_of: the id of what a slot hears, a point or a rule instance.
    """

    def __init__(self, rule_ids: Sequence[str], name_of: Callable[[int], str]) -> None:
        self.instance_keys: list[str] = []
        self.derived_ids: dict[int, str] = {}  # group -> id of the point it computes
        self._rule_ids = rule_ids
        self._name_of = name_of
        self._levels: list[str] = []  # by instance: names of its levels, joined
        self._row_of: dict[str, int] = {}  # text of (rule, group key) -> group
        self._group_rule = array("q")
        self._group_key: list[str] = []
        self._first_instance = array("q")  # by group
        self._more_instances: dict[int, list[int]] = {}
        self._first_slot = array("q")  # by group
        self._more_slots: dict[int, dict[tuple[int, int], int]] = {}  # (input, point) -> slot
        self._instance_row: dict[str, int] = {}
        self._instance_group = array("q")
        self._instance_live = bytearray()
        self._slot_group = array("q")
        self._slot_input = array("q")
        self._slot_point = array("q")
        self._slot_live = bytearray()
        self._renamed: list[int] = []  # instances whose levels have other names since
        self._names = Names()
        self._slot_names = as_names([])

    @property
    def slot_count(self) -> int:
        return len(self._slot_group)

    def knows(self, number: int, key: str) -> bool:
        return _group_name(number, key) in self._row_of

    def group(self, number: int, key: str) -> int:
        """The row of a rule's group, a new one if need be."""
        name = _group_name(number, key)
        row = self._row_of.get(name)
        if row is None:
            row = self._row_of[name] = len(self._group_key)
            self._group_rule.append(number)
            self._group_key.append(key)
            self._first_instance.append(_NONE)
            self._first_slot.append(_NONE)
        return row

    def instances_of(self, number: int, key: str) -> list[int]:
        """Those that are judged, of a rule's group."""
        row = self._row_of.get(_group_name(number, key))
        if row is None or self._first_instance[row] < 0:
            return []
        every = (self._first_instance[row], *self._more_instances.get(row, ()))
        return [n for n in every if self._instance_live[n] and self._instance_group[n] == row]

    def retire(self, row: int) -> None:
        """Nothing of the group is judged until it is placed again."""
        if self._first_instance[row] >= 0:
            for instance in (self._first_instance[row], *self._more_instances.get(row, ())):
                if self._instance_group[instance] == row:  # else another group has it now
                    self._instance_live[instance] = False
        if self._first_slot[row] >= 0:
            self._slot_live[self._first_slot[row]] = False
            for slot in self._more_slots.get(row, {}).values():
                self._slot_live[slot] = False
        self.derived_ids.pop(row, None)

    def place_inputs(self, row: int, plan: GroupPlan) -> None:
        """Give every input point of the group its slot."""
        for ordinal, members in enumerate(plan.inputs):
            for point in members:
                self.place_input(row, ordinal, point)
        if plan.derived is not None:
            self.derived_ids[row] = plan.derived.id

    def place_input(self, row: int, ordinal: int, point: int) -> None:
        first = self._first_slot[row]
        if first < 0:
            self._first_slot[row] = self._new_slot(row, ordinal, point)
        elif self._slot_input[first] == ordinal and self._slot_point[first] == point:
            self._slot_live[first] = True
        else:
            more = self._more_slots.setdefault(row, {})
            slot = more.get((ordinal, point))
            if slot is None:
                slot = more[ordinal, point] = self._new_slot(row, ordinal, point)
            self._slot_live[slot] = True

    def _new_slot(self, row: int, ordinal: int, point: int) -> int:
        self._slot_group.append(row)
        self._slot_input.append(ordinal)
        self._slot_point.append(point)
        self._slot_live.append(True)
        return len(self._slot_live) - 1

    def place_instance(self, row: int, key: str, levels: str) -> tuple[int, bool] | None:
        """(instance row, whether it is new); None when another live group already has the key."""
        instance = self._instance_row.get(key)
        is_new = instance is None
        if instance is None:
            instance = self._instance_row[key] = len(self.instance_keys)
            self.instance_keys.append(key)
            self._levels.append(levels)
            self._instance_group.append(row)
            self._instance_live.append(True)
        elif self._instance_live[instance]:
            return None
        elif self._levels[instance] != levels:
            self._levels[instance] = levels
            self._names.forget("levels")
            self._renamed.append(instance)
        self._instance_live[instance] = True
        self._instance_group[instance] = row
        first = self._first_instance[row]
        if first < 0:
            self._first_instance[row] = instance
        elif first != instance:
            more = self._more_instances.setdefault(row, [])
            if instance not in more:
                more.append(instance)
        return instance, is_new

    def place_new(
        self,
        numbers: Sequence[int],
        keys: Sequence[str],
        points: Sequence[int],
        alarm_keys: Sequence[str],
        levels: Iterable[str],
    ) -> range | None:
        """Many new groups, each of one point and one instance: the rows of the instances. None, and
        nothing is done, when one of the groups or alarm keys is known: place each by itself."""
        names = list(map(_group_name, numbers, keys))
        if self._row_of and not self._row_of.keys().isdisjoint(names):
            return None
        instances = dict.fromkeys(alarm_keys)
        if len(instances) < len(keys) or not self._instance_row.keys().isdisjoint(instances):
            return None
        count, slot = len(keys), len(self._slot_live)
        groups = range(len(self._group_key), len(self._group_key) + count)
        found = range(len(self.instance_keys), len(self.instance_keys) + count)
        self._row_of.update(zip(names, groups, strict=True))
        self._group_rule.extend(numbers)
        self._group_key.extend(keys)
        self._first_instance.extend(found)
        self._first_slot.extend(range(slot, slot + count))
        self._instance_row.update(zip(alarm_keys, found, strict=True))
        self.instance_keys.extend(alarm_keys)
        self._levels.extend(levels)
        self._instance_group.extend(groups)
        self._instance_live.extend(repeat(1, count))
        self._slot_group.extend(groups)
        self._slot_input.extend(repeat(0, count))
        self._slot_point.extend(points)
        self._slot_live.extend(repeat(1, count))
        return found

    def take_renamed(self) -> list[int]:
        """Instances whose levels are called otherwise than before; each is told once."""
        renamed, self._renamed = self._renamed, []
        return renamed

    def names(self) -> tuple[NDArray[np.bytes_], ...]:
        """In the order of `NAME_COLUMNS`: what the state is saved under."""
        known = len(self._slot_names)
        if known < self.slot_count:
            new = as_names(self._slot_key(slot) for slot in range(known, self.slot_count))
            self._slot_names = np.concatenate([self._slot_names, new]) if known else new
        return (
            self._names.of("instances", self.instance_keys),
            self._names.of("levels", self._levels),
            self._slot_names,
        )

    def _slot_key(self, slot: int) -> str:
        group = self._slot_group[slot]
        rule_id = self._rule_ids[self._group_rule[group]]
        name = self._name_of(self._slot_point[slot])
        key, ordinal = self._group_key[group], self._slot_input[slot]
        return f"{rule_id}{SEPARATOR}{key}{SEPARATOR}{ordinal}{SEPARATOR}{name}"

    def layout_into(self, layout: Layout, point_count: int) -> None:
        """Rewrite the cross-references as arrays."""
        layout.slot_group = np.array(self._slot_group, dtype=np.int64)
        layout.slot_input = np.array(self._slot_input, dtype=np.int64)
        layout.slot_point = np.array(self._slot_point, dtype=np.int64)
        layout.slot_live = np.array(self._slot_live, dtype=np.bool_)
        rows = np.flatnonzero(layout.slot_live)
        groups = len(self._group_key)
        layout.group_start, layout.group_slots = seg.compress_lists(
            layout.slot_group[rows], groups, rows
        )
        layout.point_start, layout.point_slots = seg.compress_lists(
            layout.slot_point[rows], point_count, rows
        )
        layout.instance_group = np.array(self._instance_group, dtype=np.int64)
        layout.instance_live = np.array(self._instance_live, dtype=np.bool_)
        layout.group_instance = _first_live(layout.instance_group, layout.instance_live, groups)
        layout.point_count = point_count

    def derived_index(self, index_of: Callable[[str], int]) -> NDArray[np.int64]:
        """By group, the index of the point it computes; -1 for none."""
        found = np.full(len(self._group_key), _NONE, dtype=np.int64)
        for row, point_id in self.derived_ids.items():
            found[row] = index_of(point_id)
        return found


def _group_name(number: int, key: str) -> str:
    """Text, not a pair: a hundred thousand pairs are what the garbage collector walks."""
    return f"{number}{SEPARATOR}{key}"


def _first_live(
    instance_group: NDArray[np.int64], live: NDArray[np.bool_], groups: int
) -> NDArray[np.int64]:
    first = np.full(groups, _NONE, dtype=np.int64)
    rows = np.flatnonzero(live)[::-1]
    first[instance_group[rows]] = rows
    return first
