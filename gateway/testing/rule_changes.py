"""What changes while a history is told: rules are exchanged, points join, move and are described
anew, devices too.

    rules   of each id one of its forms, or none; some with other delays; sometimes the same again
    points  some are not there at first and join; one takes place, quantity, … of another one, and
            may have its own again later

Random, from a generator that is handed in: two tellings with the same one change the same.

Not here: what is told and compared (rule_kinds.py).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from alarm_rules.ruleset import check_rules
from gateway.contract.rule_kind import RuleKind
from gateway.model.point import Device, Point, PointTable
from gateway.model.rule import Rule

_TAKEN = (
    *("kind", "quantity", "unit", "device", "area", "location_class", "interval_s"),
    *("states", "attributes"),
)
"""What a point may take from another one: all that a selector, a group or a plan looks at."""


class Exchanges(NamedTuple):
    """Rules that are exchanged while the history is told. `done`: all, and those in place."""

    others: tuple[Rule, ...]
    in_place: bool
    done: list[int]


def other_rules(
    rules: Sequence[Rule],
    others: Sequence[Rule],
    kinds: Mapping[str, RuleKind],
    rng: random.Random,
) -> Sequence[Rule]:
    """Of each rule id one of its forms, or none; some with other delays. Rules that judge rules
    mostly stay: they cannot be exchanged in place, and what they listen to can."""
    stay = rng.random() < 0.8
    forms: dict[str, list[Rule]] = {}
    for rule in (*rules, *others):
        forms.setdefault(rule.id, []).append(rule)
    found = []
    for same in forms.values():
        rule = rng.choice(same)
        if stay and kinds[rule.kind].judges is not None:
            found.append(same[0])
            continue
        if rng.random() < 0.2:
            rule = replace(rule, on_delay_s=rng.choice([0.0, 1.0, 3.0]))
        if rng.random() > 0.15:
            found.append(rule)
    rng.shuffle(found)
    return rules if check_rules(found, kinds) else found


def that_join(points: Sequence[Point], rng: random.Random) -> list[Point]:
    """Those that are not there at first; never all of them."""
    return [point for point in points[1:] if rng.random() < 0.15]


def change_points(
    table: PointTable,
    points: Sequence[Point],
    devices: Sequence[Device],
    joining: list[Point],
    rng: random.Random,
) -> None:
    """Some of the points join, move or are where they were at first; a device is another one."""
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        if joining and rng.random() < 0.4:
            table.put(joining.pop())
            continue
        point, other = rng.choice(points), rng.choice(points)
        if point.id in table:
            taken = {name: getattr(other, name) for name in _TAKEN if rng.random() < 0.3}
            table.put(replace(point, **taken))
    if devices and rng.random() < 0.2:
        device, like = rng.choice(devices), rng.choice(devices)
        table.put_device(replace(like, id=device.id))
