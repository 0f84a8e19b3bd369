"""Who is who in one program: groups, slots and instances as rows, given once and kept.

    group     (rule, group key)                one set of inputs judged together
    slot      (group, input, point)            one input of one group
    instance  alarm key                        one alarm a group can raise

A row is never taken away or reused while the process lives, so state stays where it is. What no
longer matches is marked dead. Plain bookkeeping in Python, done when the point table changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.state import Names
from gateway.contract.rule_kind import GroupPlan, InstancePlan, Layout
from gateway.model.rule import Rule, alarm_key

SEPARATOR = "\x1f"  # between the parts of a slot's key; never part of an id


class Roster:
    """The rows of one program."""

    def __init__(self) -> None:
        self.group_keys: list[tuple[int, str]] = []
        self.derived_ids: list[str] = []  # id of the point the group computes, "" for none
        self.instance_keys: list[str] = []
        self.instance_levels: list[str] = []  # names of the levels, joined
        self.slot_keys: list[str] = []
        self._group_row: dict[tuple[int, str], int] = {}
        self._group_instances: list[list[int]] = []
        self._group_slots: list[set[int]] = []
        self._instance_row: dict[str, int] = {}
        self._instance_group: list[int] = []
        self._instance_live: list[bool] = []
        self._slot_row: dict[tuple[int, int, int], int] = {}
        self._slots: list[tuple[int, int, int]] = []
        self._slot_live: list[bool] = []
        self._names = Names()

    def knows(self, number: int, key: str) -> bool:
        return (number, key) in self._group_row

    def group(self, number: int, key: str) -> int:
        """The row of a rule's group, a new one if need be."""
        row = self._group_row.get((number, key))
        if row is None:
            row = self._group_row[(number, key)] = len(self.group_keys)
            self.group_keys.append((number, key))
            self.derived_ids.append("")
            self._group_instances.append([])
            self._group_slots.append(set())
        return row

    def retire(self, row: int) -> None:
        """Nothing of the group is judged until it is placed again."""
        for instance in self._group_instances[row]:
            self._instance_live[instance] = False
        for slot in self._group_slots[row]:
            self._slot_live[slot] = False
        self._group_slots[row] = set()
        self.derived_ids[row] = ""

    def place_inputs(self, row: int, plan: GroupPlan, rule: Rule, name_of: Iterable[str]) -> None:
        """Give every input point of the group its slot. `name_of`: the points' ids, in order."""
        names = iter(name_of)
        key = self.group_keys[row][1]
        for ordinal, members in enumerate(plan.inputs):
            for point in members:
                slot = self._slot_row.get((row, ordinal, point))
                text = SEPARATOR.join((rule.id, key, str(ordinal), next(names)))
                if slot is None:
                    slot = self._slot_row[(row, ordinal, point)] = len(self._slots)
                    self._slots.append((row, ordinal, point))
                    self._slot_live.append(True)
                    self.slot_keys.append(text)
                self._slot_live[slot] = True
                self._group_slots[row].add(slot)
        self.derived_ids[row] = plan.derived.id if plan.derived else ""

    def place_instance(self, row: int, plan: InstancePlan, rule: Rule) -> tuple[int, bool] | None:
        """(instance row, whether it is new); None when another live group already has the key."""
        key = alarm_key(plan.target, rule.id)
        instance = self._instance_row.get(key)
        is_new = instance is None
        if instance is None:
            instance = self._instance_row[key] = len(self.instance_keys)
            self.instance_keys.append(key)
            self.instance_levels.append("")
            self._instance_group.append(row)
            self._instance_live.append(True)
        elif self._instance_live[instance]:
            return None
        levels = "|".join([level.name for level in plan.levels])
        if self.instance_levels[instance] != levels:
            self.instance_levels[instance] = levels
            if not is_new:
                self._names.forget("levels")
        self._instance_live[instance] = True
        self._instance_group[instance] = row
        if instance not in self._group_instances[row]:
            self._group_instances[row].append(instance)
        return instance, is_new

    def names(self) -> tuple[NDArray[np.bytes_], ...]:
        """In the order of `NAME_COLUMNS`: what the state is saved under."""
        return (
            self._names.of("instances", self.instance_keys),
            self._names.of("levels", self.instance_levels),
            self._names.of("slots", self.slot_keys),
        )

    def layout_into(self, layout: Layout, point_count: int) -> None:
        """Rewrite the cross-references as arrays."""
        slots = np.array(self._slots, dtype=np.int64).reshape(-1, 3)
        live = np.array(self._slot_live, dtype=np.bool_)
        layout.slot_group, layout.slot_input, layout.slot_point = (
            np.ascontiguousarray(slots[:, column]) for column in range(3)
        )
        layout.slot_live = live
        rows = np.flatnonzero(live)
        groups = len(self.group_keys)
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


def _first_live(
    instance_group: NDArray[np.int64], live: NDArray[np.bool_], groups: int
) -> NDArray[np.int64]:
    first = np.full(groups, -1, dtype=np.int64)
    rows = np.flatnonzero(live)[::-1]
    first[instance_group[rows]] = rows
    return first
