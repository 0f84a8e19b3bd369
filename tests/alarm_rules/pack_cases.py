"""What every rule of every pack must say and must not say, made from its own parameters.

    rule of a pack ─GENERATORS[kind]─▶ PackCase…   positive, negative, boundary: a small site, a
                                                   history, and the changes of level it must give

What is expected is worked out from the words of the rule (operator, reset, delays, counts), in
seconds and names, without any of the core's code. A kind without a generator fails
test_packs_cases.py, so that no rule of a pack can stand there untested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pack_cases_place
import pack_cases_signal
from pack_case_tools import PackCase

from gateway.contract.rule_kind import RuleKind
from gateway.model.rule import Rule

Generator = Callable[[Rule, Any], Iterator[PackCase]]
GENERATORS: dict[str, Generator] = {**pack_cases_place.CASES, **pack_cases_signal.CASES}


def cases_of(rule: Rule, kinds: Mapping[str, RuleKind]) -> list[PackCase]:
    """Every case of a rule. Raises KeyError for a kind nobody wrote a generator for."""
    parameters = kinds[rule.kind].parameters.model_validate(dict(rule.parameters))
    return list(GENERATORS[rule.kind](rule, parameters))
