"""What every rule kind must hold, over many random histories: one `law_<kind>.py` for each kind.

    law_<kind>.py: LAW = Law(KIND, make, reference)
    make(rng, histories) -> RuleCase      random rules; that many copies of the points they judge,
                                          each with random samples of its own
    reference(case) -> Story              one sample after the other, in plain Python

`test_laws.py` tells each case in every way of `check_rule_kind` and compares. The normal run takes
LAW_CASES histories a kind (default 200); `make laws CASES=10000` takes that many.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from alarm_rules import program
from alarm_rules.kinds import combination, limit
from gateway.contract.rule_kind import RuleKind
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import Behind, Reference, RuleCase, check_exchange, check_rule_kind

T = TypeVar("T")
HISTORIES_PER_CASE = 20
HISTORIES_PER_LARGE_CASE = 100
"""Histories told together: one rule set judges them all, so that ten thousand take minutes."""
LARGE_RUN = 1_000


@dataclass(frozen=True)
class Law:
    """One kind with a way to make up histories and the measure to compare with."""

    kind: RuleKind
    make: Callable[[random.Random, int], RuleCase]
    reference: Reference | None
    behind: Behind = ""
    together_max: int = HISTORIES_PER_LARGE_CASE  # fewer where many histories make few events


SWITCHES: tuple[Mapping[tuple[ModuleType, str], int], ...] = (
    {(program, "ONE_BY_ONE_MAX"): 1 << 30, (program, "_FEW"): 1, (limit, "_OTHERS_SHARE"): 0},
    {
        (program, "ONE_BY_ONE_MAX"): -1,
        (program, "_FEW"): 1 << 30,
        (limit, "_OTHERS_SHARE"): 1 << 30,
    },
    {(program, "ONE_BY_ONE_MAX"): 4, (program, "_FEW"): 2, (limit, "_OTHERS_SHARE"): 4},
)
"""Where one way to take rows in ends and the next begins: histories are short, and each way is to
be taken. One after the other, by seed."""


def _switch(switches: Mapping[tuple[ModuleType, str], int]) -> None:
    for (module, name), value in switches.items():
        setattr(module, name, value)


def law_names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("law_*.py"))


def check_law(name: str, cases: int, base_seed: int) -> int:
    """Check at least `cases` histories; returns how many level changes they gave."""

    def check(law: Law, case: RuleCase, seed: int) -> int:
        story = check_rule_kind(
            law.kind, case, reference=law.reference, behind=law.behind, seed=seed
        )
        return len(story.changes) + len(story.derived)

    return sum(_each_case(name, cases, base_seed, check))


def check_exchanges(name: str, cases: int, base_seed: int) -> tuple[int, int]:
    """Check at least `cases` histories during which rules are exchanged and points change, with a
    rule that judges all the others; returns how often that was, and how often it was done in
    place."""

    def check(law: Law, case: RuleCase, seed: int) -> tuple[int, int]:
        others = law.make(random.Random(f"{name} {seed} others"), len(case.points)).rules
        if law.kind is not combination.KIND:
            case, others = _judged(case, seed), [_coloured(rule) for rule in others]
        return check_exchange(law.kind, case, others, seed=seed)

    found = _each_case(name, cases, base_seed, check)
    return sum(all_ for all_, _ in found), sum(in_place for _, in_place in found)


def _coloured(rule: Rule) -> Rule:
    return replace(rule, level=rule.level or "blue")


def _judged(case: RuleCase, seed: int) -> RuleCase:
    """With a rule that counts what is blue, of the site or of each area."""
    judge = Rule(
        "judge",
        "combination",
        {"value": Selector()},
        {
            "rules": ["*"],
            "steps": [{"of": "blue", "count": 2 + seed % 3, "makes": "red"}],
            "colours": ["blue", "red"],
        },
        group_by=(GroupBy.SITE, GroupBy.AREA)[seed % 2],
    )
    kinds = {**case.kinds, "combination": combination.KIND}
    return replace(case, rules=[*map(_coloured, case.rules), judge], kinds=kinds)


def _each_case(
    name: str, cases: int, base_seed: int, check: Callable[[Law, RuleCase, int], T]
) -> list[T]:
    """Case after case, each with switches of its own; what fails says how to see it again."""
    law: Law = importlib.import_module(name).LAW
    known = {switch: getattr(*switch) for switch in SWITCHES[0]}
    together = HISTORIES_PER_CASE if cases < LARGE_RUN else law.together_max
    found = []
    for number in range(-(-cases // together)):
        seed = base_seed + number
        case = law.make(random.Random(f"{name} {seed}"), together)
        try:
            _switch(SWITCHES[seed % len(SWITCHES)])
            found.append(check(law, case, seed))
        except AssertionError as error:
            raise AssertionError(f"{name}: LAW_SEED={seed} LAW_CASES={cases}: {error}") from error
        finally:
            _switch(known)
    return found
