"""What a site changes in the rules of its packs: tighter freely, looser over a signature.

    rule of a pack ─Override─▶ changed rule ─kind.loosens─▶ tightened   taken, noted in the citation
                                                        └▶ loosened    taken if signed, else refused

What cannot be shown to be stricter counts as looser. A refused change leaves the rule as the law
has it; a signed one becomes part of the rule's citation, so that whoever sees the alarm sees it.

Owns: the comparison. Not here: the pack's file (schema.py), reading the site's (gateway/config).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from alarm_rules.packs.schema import RulePack
from gateway.contract.rule_kind import RuleKind
from gateway.model.rule import Priority, Rule


@dataclass(frozen=True, slots=True)
class Override:
    """What a site changes in one rule of a pack. None: as in the pack.

    `parameters` are laid over the pack's, table by table. The last three are the record of who
    answers for a looser rule; all three are needed.
    """

    rule: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority | None = None
    on_delay_s: float | None = None
    off_delay_s: float | None = None
    latching: bool | None = None
    reason: str = ""
    signed_by: str = ""
    signed_on: str = ""

    @property
    def is_signed(self) -> bool:
        return bool(self.reason and self.signed_by and self.signed_on)


def apply_overrides(
    packs: RulePack | Iterable[RulePack],
    overrides: Iterable[Override],
    kinds: Mapping[str, RuleKind],
) -> tuple[list[Rule], list[str]]:
    """The packs' rules with the site's changes, and a text for each change that is refused.

    A refused change leaves the rule as the pack has it: judging goes on with the law's numbers.
    """
    given = [packs] if isinstance(packs, RulePack) else packs
    rules = {rule.id: rule for pack in given for rule in pack.rules}
    faults: list[str] = []
    for override in overrides:
        rule = rules.get(override.rule)
        if rule is None:
            faults.append(f"{override.rule}: no pack in use has this rule")
            continue
        changed = _changed(rule, override)
        loose = _loosened(rule, changed, kinds[rule.kind]) if rule.kind in kinds else ["kind"]
        if loose and not override.is_signed:
            faults.append(
                f"{rule.id}: {'; '.join(loose)}: a statutory rule may be tightened; loosening it "
                "needs reason, signed_by and signed_on"
            )
            continue
        rules[rule.id] = _noted(changed, override, is_loose=bool(loose))
    return list(rules.values()), faults


def _changed(rule: Rule, override: Override) -> Rule:
    def chosen(name: str) -> Any:
        wanted = getattr(override, name)
        return getattr(rule, name) if wanted is None else wanted

    return replace(
        rule,
        parameters=_laid_over(rule.parameters, override.parameters),
        priority=chosen("priority"),
        on_delay_s=chosen("on_delay_s"),
        off_delay_s=chosen("off_delay_s"),
        latching=chosen("latching"),
    )


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins key by key; tables are laid over tables, a plain limit over a level's table."""
    result = dict(under)
    for key, value in over.items():
        below = under.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = _laid_over(below, value)
        elif isinstance(below, Mapping) and "limit" in below:
            result[key] = {**below, "limit": value}
        else:
            result[key] = value
    return result


def _loosened(old: Rule, new: Rule, kind: RuleKind) -> Sequence[str]:
    loose = []
    try:
        was = kind.parameters.model_validate(dict(old.parameters))
        now = kind.parameters.model_validate(dict(new.parameters))
    except ValidationError as error:
        return [f"parameters.{item['loc']}: {item['msg']}" for item in error.errors()]
    if was != now:
        if kind.loosens is None:
            loose.append("the parameters cannot be shown to be stricter")
        else:
            loose += kind.loosens(was, now)
    if new.priority > old.priority:
        loose.append("priority is less urgent")
    if new.on_delay_s > old.on_delay_s:
        loose.append("on_delay_s is longer")
    if new.off_delay_s < old.off_delay_s:
        loose.append("off_delay_s is shorter")
    if old.latching and not new.latching:
        loose.append("it no longer latches")
    return loose


def _noted(rule: Rule, override: Override, *, is_loose: bool) -> Rule:
    """The change as part of the citation: whoever sees the alarm sees who changed the rule."""
    how = "loosened" if is_loose else "tightened"
    signature = f" by {override.signed_by} on {override.signed_on}" if override.is_signed else ""
    reason = f": {override.reason}" if override.reason else ""
    note = f"{how} by the site{signature}{reason}"
    citation = replace(rule.citation, note="; ".join(filter(None, (rule.citation.note, note))))
    return replace(rule, citation=citation, version=f"{rule.version}+site")
