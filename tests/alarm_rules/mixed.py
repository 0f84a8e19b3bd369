"""Rules of many kinds over the same few points, and one that counts the alarms of all others: what
one kind says changes what another one plans or hears. For the law of exchange alone: it has no
scalar reference.

An id is of one kind whatever the seed, so that a rule can be exchanged for another form of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from laws import Law

from alarm_rules.kinds import combination, deviation, limit, n_of_m, offline, rate, stuck
from gateway.model.point import Point
from gateway.model.rule import GroupBy, Priority, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample

POINTS_MAX = 6
"""More of them, and rules that judge groups would hardly ever speak."""
GROUPS = (GroupBy.AREA, GroupBy.DEVICE, GroupBy.SITE)


def _selector(rng: random.Random) -> Selector:
    return rng.choice(
        [
            Selector(quantity=rng.choice("gq")),
            Selector(area=rng.choice(["a0", "a1"])),
            Selector(quantity=rng.choice("gq"), area=rng.choice(["a0", "a1"])),
            Selector(ids=tuple(rng.sample([f"p{n}" for n in range(POINTS_MAX)], 2))),
            Selector(),
        ]
    )


def _limit(rng: random.Random) -> dict[str, object]:
    names = rng.choice([("H",), ("H", "HH"), ("HH",), ("L",)])
    return {"levels": {name: {
        "limit": 1.0 + n + rng.choice([0.0, 0.5]),
        **({"reset": 0.5 + n} if name[0] == "H" else {}),
        "priority": rng.choice(["critical", "high", "low"]),
    } for n, name in enumerate(names)}}  # fmt: skip


def _offline(rng: random.Random) -> dict[str, object]:
    return {
        "max_age_s": rng.choice([2.0, 4.0]),
        "scope": rng.choice(["point", "device"]),
        "priority_of_hidden": rng.choice(["inherit", "own"]),
    }


def _deviation(_rng: random.Random) -> dict[str, object]:
    return {"levels": {"H": {"limit": 1.0}}, "absolute": True}


def _votes(rng: random.Random) -> dict[str, object]:
    ages = {"missing_delay_s": 1.0, "max_input_age_s": 3.0}
    return {"n": rng.choice([1, 2]), "limit": 1.5, "operator": ">=", **ages}


def _rate(rng: random.Random) -> dict[str, object]:
    return {
        "window_s": rng.choice([3.0, 5.0]),
        "method": "two_point",
        "absolute": True,
        "levels": {"H": {"limit": 0.2}, "HH": {"limit": 0.5}},
    }


def _stuck(rng: random.Random) -> dict[str, object]:
    return {"unchanged_s": rng.choice([3.0, 5.0]), "band": rng.choice([0.0, 0.1])}


FORMS: dict[str, Callable[[random.Random], dict[str, object]]] = {
    "limit": _limit, "offline": _offline, "deviation": _deviation,
    "n_of_m": _votes, "rate": _rate, "stuck": _stuck,
}  # fmt: skip
KIND_OF = {
    f"r{n}": kind
    for n, kind in enumerate(["limit", "limit", "limit", *FORMS, "limit", "n_of_m", "offline"])
}


def _rule(rng: random.Random, rule_id: str) -> Rule:
    kind = KIND_OF[rule_id]
    inputs, group_by = {"value": _selector(rng)}, GroupBy.POINT
    if kind == "deviation":
        inputs = {"value": Selector(quantity="g"), "reference": Selector(quantity="q")}
        group_by = rng.choice(GROUPS[:2])
    if kind == "n_of_m":
        group_by = rng.choice(GROUPS)
    return Rule(
        rule_id, kind, inputs, FORMS[kind](rng),
        level="blue", priority=rng.choice([*Priority]), group_by=group_by,
        on_delay_s=rng.choice([0.0, 0.0, 1.0, 3.0]), off_delay_s=rng.choice([0.0, 0.0, 2.0]),
    )  # fmt: skip


def _judge(rng: random.Random) -> Rule:
    steps = [{"of": "blue", "count": rng.choice([2, 2, 3]), "makes": "red"}]
    return Rule(
        "judge", "combination", {"value": rng.choice([Selector(), Selector(area="a0")])},
        {"rules": ["r*"], "steps": steps, "colours": ["blue", "red"]},
        group_by=rng.choice(GROUPS), on_delay_s=rng.choice([0.0, 0.0, 1.0]),
    )  # fmt: skip


def make(rng: random.Random, _histories: int) -> RuleCase:
    points = [
        Point(
            id=f"p{n}",
            quantity=rng.choice("gq"),
            area=rng.choice(["a0", "a1"]),
            device=rng.choice(["d0", "d1", "d2"]),
            interval_s=rng.choice([1.0, 1.0, None]),
        )
        for n in range(POINTS_MAX)
    ]
    samples = []
    for point in points:
        time_s = float(rng.randrange(3))
        for _ in range(rng.randrange(3, 25)):
            samples.append(
                Sample(point.id, time_s, rng.choice([0.0, 0.3, 0.8, 1.2, 1.7, 2.2, 3.0]))
            )
            time_s += rng.choice([0.5, 1.0, 1.0, 2.0, 5.0])
    first = rng.sample(list(KIND_OF), rng.randrange(5, len(KIND_OF)))
    rules = [_rule(rng, rule_id) for rule_id in first]
    kinds = {module.KIND.name: module.KIND for module in (limit, offline, deviation, n_of_m, rate)}
    kinds["stuck"] = stuck.KIND
    return RuleCase(
        [*rules, _judge(rng)], points, samples, kinds=kinds, end_s=rng.choice([0.0, 40.0])
    )


LAW = Law(combination.KIND, make, None)
