"""What a case of a pack's rule is, how it is told to the rule core, and how one is made up.

    PackCase ─check_pack_cases─▶ the real RuleSet ─▶ changes, compared second by second

Not here: which cases a kind of rule has (pack_cases_*.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from gateway.contract.rule_kind import RuleKind
from gateway.model.point import Device, Point, PointKind
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, START_NS, RuleCase, Sample, drive

TICK_S = 1e-3  # just before a time that counts
Story = list[tuple[float, str]]  # (second, level); "" is normal


@dataclass(frozen=True)
class PackCase:
    """One small history of one rule and what the rule must say of it."""

    name: str  # begins with positive, negative or boundary
    samples: Sequence[Sample]
    expected: Story
    points: Sequence[Point] = ()
    devices: Sequence[Device] = ()
    end_s: float = 0.0
    helpers: Sequence[Rule] = ()  # rules it judges
    derived: Sequence[tuple[str, float, float | None]] = ()  # (point, second, value) it computes
    only_last: int = 0  # compare this many of the last changes; 0: all
    prefix: str = ""  # of its points, where several cases are told together


APART = frozenset({"bits", "deviation", "discrete", "limit", "quality", "rate", "stuck"})
"""Kinds whose groups know nothing of each other: their cases are told together, side by side."""


def check_pack_cases(rule: Rule, cases: Sequence[PackCase], kinds: Mapping[str, RuleKind]) -> None:
    """The rule says exactly what each case expects, in the real rule core."""
    if rule.kind not in APART:
        for case in cases:
            _compare(rule, [case], kinds)
        return
    _compare(rule, [_renamed(case, f"{number}.") for number, case in enumerate(cases)], kinds)


def _renamed(case: PackCase, prefix: str) -> PackCase:
    """The case with points and devices of its own, so that it can stand beside others."""
    return replace(
        case,
        points=[
            replace(point, id=prefix + point.id, device=prefix + point.device)
            for point in case.points
        ],
        devices=[replace(device, id=prefix + device.id) for device in case.devices],
        samples=[sample._replace(point=prefix + sample.point) for sample in case.samples],
        prefix=prefix,
    )


def _compare(rule: Rule, cases: Sequence[PackCase], kinds: Mapping[str, RuleKind]) -> None:
    site = RuleCase(
        [*(helper for case in cases for helper in case.helpers), rule],
        [point for case in cases for point in case.points],
        [sample for case in cases for sample in case.samples],
        [device for case in cases for device in case.devices],
        end_s=max(case.end_s for case in cases),
    )
    found = drive(site, kinds)
    told = [
        (change.alarm_key, seconds(change.time_ns), change.level)
        for change in found.changes
        if change.alarm_key.endswith(f":{rule.id}") and ".missing:" not in change.alarm_key
    ]
    computed = [(row.point, seconds(row.time_ns), row.value) for row in found.derived]
    for case in cases:
        end_s = max([case.end_s, *(sample.time_s for sample in case.samples)])
        own = [(t, level) for key, t, level in told if key.startswith(case.prefix) and t <= end_s]
        own = own[-case.only_last :] if case.only_last else own
        expected = [(round(t, 6), level) for t, level in case.expected]
        assert own == expected, f"{rule.id}: {case.name}"
        for row in case.derived:
            assert row in computed, f"{rule.id}: {case.name}: {computed}"


def seconds(time_ns: int) -> float:
    return round((time_ns - START_NS) / NS_PER_S, 6)


# ---------------------------------------------------------------------- sites


def place(selector: Selector, point_id: str = "p", **changes: Any) -> tuple[Point, list[Device]]:
    """A point the selector asks for, and the device it must have for that."""
    point = Point(
        id=point_id,
        quantity=selector.quantity or "methane",
        location_class=selector.location_class,
        area=selector.area or "a",
        device=selector.device or "d",
        adapter=selector.adapter or "x",
        attributes=selector.attributes,
    )
    return replace(point, **changes), [Device("d", selector.device_kind or "thing", adapter="x")]


def at(point_id: str, *rows: tuple[float, float]) -> list[Sample]:
    return [Sample(point_id, time_s, value) for time_s, value in rows]


def people(rule: Rule, count: int = 1) -> list[Point]:
    return [
        place(rule.inputs["value"], f"m{n}", device=f"m{n}", area="", kind=PointKind.AREA)[0]
        for n in range(count)
    ]


# ---------------------------------------------------------------------- what must follow


@dataclass(frozen=True)
class Rung:
    """One level of a rule, by severity."""

    name: str
    on_s: float
    off_s: float
    sets: Callable[[float], bool] = bool
    resets: Callable[[float], bool] = bool


def follow(ladder: Sequence[Rung], steps: Iterable[tuple[float, float]]) -> Story:
    """What follows from numbers that stand for longer than any delay."""
    moves = []
    for time_s, number in steps:
        for rung in ladder:
            if rung.sets(number):
                moves.append((time_s + rung.on_s, rung.name, True))
            elif rung.resets(number):
                moves.append((time_s + rung.off_s, rung.name, False))
    active: set[str] = set()
    shown, story = "", []
    for time_s, together in groupby(sorted(moves), key=lambda move: move[0]):
        for _, name, is_on in together:
            (active.add if is_on else active.discard)(name)
        now = next((rung.name for rung in reversed(ladder) if rung.name in active), "")
        if now != shown:
            story.append((time_s, now))
            shown = now
    return story


_MEETS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda number, limit: number >= limit,
    ">": lambda number, limit: number > limit,
    "<=": lambda number, limit: number <= limit,
    "<": lambda number, limit: number < limit,
}


@dataclass(frozen=True)
class Marks:
    """The numbers that matter of one level: of the H side upward, of the L side downward."""

    name: str
    limit: float
    reset: float
    inclusive: bool
    up: bool


def ladder_of(rule: Rule, levels: Mapping[str, Any]) -> tuple[list[Rung], list[Marks]]:
    """Levels H, L, HH, … of a kind that compares a number, from their parameters."""
    names = sorted(levels, key=lambda name: (len(name), name[0] == "H"))
    rungs, marks = [], []
    for name in names:
        level = levels[name]
        if not isinstance(level, Mapping):
            level = {"limit": level}
        up = name[0] == "H"
        operator = level.get("operator") or (">=" if up else "<=")
        limit, reset = level["limit"], level.get("reset", level["limit"])
        meets = _MEETS[operator]
        rungs.append(
            Rung(
                name,
                level.get("on_delay_s", rule.on_delay_s),
                level.get("off_delay_s", rule.off_delay_s),
                lambda number, meets=meets, limit=limit: meets(number, limit),
                lambda number, meets=meets, reset=reset: not meets(number, reset),
            )
        )
        marks.append(Marks(name, limit, reset, operator.endswith("="), up))
    return rungs, marks


def gap_of(ladder: Sequence[Rung]) -> float:
    return max(rung.on_s + rung.off_s for rung in ladder) + 1.0


def before(limit: float, up: bool) -> float:
    """The float next to it, on the side where all is well."""
    return math.nextafter(limit, -math.inf if up else math.inf)


def beyond(limit: float, up: bool) -> float:
    return math.nextafter(limit, math.inf if up else -math.inf)
