"""Which rules are others now: what of a running rule set has to be planned again, and nothing else.

    rules in force, by number ──┐
    rules wanted ───────────────┴─ by id ─▶ Exchange: {number: before} {number: after}

A rule keeps its number for as long as the process lives: rows, groups and saved memory hang on it.
One that is gone keeps it too, and has it again when it comes back. A new rule takes the next.

Not here: what the exchange does to points (matching.py) and to rows (programs.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alarm_rules.matching import CompiledRule

_GONE_MAX = 1_000
"""Numbers without a rule, beyond as many as there are rules: then a new set is better."""


class InForce:
    """The rules of a set by number, and which of the numbers are of rules that are gone."""

    def __init__(self, rules: list[CompiledRule]) -> None:
        """`rules` is written into as they change."""
        self.rules = rules
        self.by_id = {one.rule.id: one for one in rules}  # those in force
        self.gone: dict[str, CompiledRule] = {}  # by id

    def exchange(self, wanted: Sequence[CompiledRule], layers: Sequence[int]) -> Exchange | None:
        """What has to change until these are in force; an object that is in force already is a rule
        that stays. None: a rule changes its kind or its layer, or so many are gone that nothing is
        won."""
        before, after = dict[int, CompiledRule](), dict[int, CompiledRule]()
        left, following = dict(self.by_id), len(self.rules)
        for one, layer in zip(wanted, layers, strict=True):
            was = left.pop(one.rule.id, None)
            if was is one and one.layer == layer:
                continue
            number = following
            known = was or self.gone.get(one.rule.id)
            if known is None:
                following += 1
            elif known.kind is not one.kind or known.layer != layer:
                return None
            else:
                number = known.number
            if was is not None:
                before[number] = was
            one.number, one.layer = number, layer
            after[number] = one
        before |= {was.number: was for was in left.values()}
        if following - len(wanted) > max(_GONE_MAX, len(wanted)):
            return None
        return Exchange(before, after)

    def take(self, exchange: Exchange) -> None:
        for number, was in exchange.before.items():
            if number not in exchange.after:
                self.gone[was.rule.id] = self.by_id.pop(was.rule.id)
        for number, one in sorted(exchange.after.items()):
            if number == len(self.rules):
                self.rules.append(one)
            self.rules[number] = self.by_id[one.rule.id] = one
            self.gone.pop(one.rule.id, None)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rules by number; one that stands in `after` alone is new, one in `before` alone is gone."""

    before: dict[int, CompiledRule]
    after: dict[int, CompiledRule]

    def __bool__(self) -> bool:
        return bool(self.before or self.after)

    def rules(self) -> Iterator[CompiledRule]:
        """Every rule as it was and as it is."""
        yield from self.before.values()
        yield from self.after.values()
