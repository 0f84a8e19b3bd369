"""The rules in force at a site: its packs with its overrides laid over them, then its own rules.

A site may tighten a statutory rule, never loosen it, except by an override that says who signed it,
when and why; what deviates from the pack in either direction is told by `check` and on the screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alarm_rules.packs import Override, RulePack, apply_overrides
from gateway.alarms.policy import AlarmGroup, BookConfig, EscalationStep, GroupMode
from gateway.config import PackOverride, SiteConfig
from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import Fault
from gateway.model.rule import Rule
from gateway.runtime.packs import read_pack


@dataclass(frozen=True)
class SiteRules:
    """Everything that is judged, and where it departs from the law's text."""

    rules: Sequence[Rule]
    packs: Sequence[RulePack]
    deviations: Sequence[str]
    faults: Sequence[Fault]


def site_rules(config: SiteConfig, kinds: Mapping[str, RuleKind]) -> SiteRules:
    """Packs in the order they are named, overridden, then the site's own rules."""
    packs = [read_pack(name) for name in config.packs]
    overrides = [_override(each) for each in config.pack_overrides]
    rules, texts = apply_overrides(packs, overrides, kinds)
    changed = {override.rule for override in overrides}
    return SiteRules(
        rules=[*rules, *config.rules],
        packs=packs,
        deviations=[f"{rule.id}: {rule.citation.note}" for rule in rules if rule.id in changed],
        faults=[Fault(str(config.path), 0, "pack_override", text) for text in texts],
    )


def book_config(config: SiteConfig, kinds: Mapping[str, RuleKind]) -> BookConfig:
    """What the site says of its alarms, as the book takes it."""
    alarms = config.alarms
    return BookConfig(
        rejoin_window_s=alarms.rejoin_window_s,
        realarm_after_s=alarms.realarm_after_s,
        realarm_max=alarms.realarm_max,
        shelf_max_s=alarms.shelf_max_s,
        escalation={
            each.priority: tuple(
                EscalationStep(step.after_s, step.recipients) for step in each.steps
            )
            for each in config.escalations
        },
        groups=tuple(
            AlarmGroup(
                name=group.name,
                rules=group.rules,
                areas=group.areas,
                devices=group.devices,
                mode=GroupMode(group.mode),
            )
            for group in config.alarm_groups
        ),
        silence_kinds=frozenset(name for name, kind in kinds.items() if kind.hides),
        parent_release_s=alarms.parent_release_s,
    )


def _override(section: PackOverride) -> Override:
    return Override(
        rule=section.rule,
        parameters=section.parameters,
        priority=section.priority,
        on_delay_s=section.on_delay_s,
        off_delay_s=section.off_delay_s,
        latching=section.latching,
        reason=section.reason,
        signed_by=section.signed_by,
        signed_on=section.signed_on.isoformat() if section.signed_on else "",
    )
