"""Every rule of every pack in the real rule core: a positive, a negative and a boundary case."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
from pack_case_tools import check_pack_cases
from pack_cases import GENERATORS, cases_of

import alarm_rules.kinds
import alarm_rules.packs
from alarm_rules.packs import parse_pack
from gateway.model.rule import Rule

KINDS = {
    module.name: importlib.import_module(f"alarm_rules.kinds.{module.name}").KIND
    for module in pkgutil.iter_modules(alarm_rules.kinds.__path__)
    if not module.name.startswith("_")
}
FOLDER = Path(alarm_rules.packs.__file__).parent
RULES = [
    rule
    for path in sorted(FOLDER.glob("*.toml"))
    for rule in parse_pack(path.read_bytes(), path.name).rules
]


@pytest.mark.parametrize("rule", RULES, ids=[rule.id for rule in RULES])
def test_a_rule_of_a_pack_says_what_its_numbers_say_and_nothing_else(rule: Rule) -> None:
    cases = cases_of(rule, KINDS)
    kinds_of_case = {case.name.partition(":")[0] for case in cases}
    assert kinds_of_case == {"positive", "negative", "boundary"}
    check_pack_cases(rule, cases, KINDS)


def test_every_kind_a_pack_uses_has_its_cases() -> None:
    assert {rule.kind for rule in RULES} <= set(GENERATORS)
