"""Rule packs (规则包): statutory rules as cited data. Text in, rules out; no file is opened here.

    pack.toml ─parse_pack─▶ RulePack ─apply_overrides─▶ rules of the site + faults

A pack says what law it speaks for, how much of it (`complete`, `partial`, `empty`, with the reason)
and, for each rule, where the number stands and how sure we are of it. A site may tighten a rule.
Loosening needs a signature, which becomes part of the rule's citation; what cannot be shown to be
stricter counts as looser.

Owns: the schema of a pack file and the comparison. Not here: reading files (the runtime's).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import ConfigError, Fault
from gateway.model.point import is_valid_id
from gateway.model.rule import Citation, Confidence, GroupBy, Priority, Rule, Selector

LANGUAGES = ("zh", "en")


@dataclass(frozen=True, slots=True)
class RulePack:
    """One pack as loaded. Rule ids are `pack name.rule name`."""

    name: str
    edition: str
    jurisdiction: str
    title: Mapping[str, str]
    status: str  # complete, partial or empty
    reason: Mapping[str, str]  # what is left out and why; empty when complete
    rules: tuple[Rule, ...]


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


# ---------------------------------------------------------------------- the file


def _priority(value: Any) -> Any:
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    return value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Texts(_Table):
    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)


class _Selector(_Table):
    ids: tuple[str, ...] = ()
    quantity: str = ""
    location_class: str = ""
    area: str = ""
    device: str = ""
    device_kind: str = ""
    adapter: str = ""
    attributes: dict[str, str] = Field(default_factory=dict)


class _Citation(_Table):
    """Engineering rules have no standard; all others name it and the clause."""

    standard: str = ""
    edition: str = ""
    clause: str = ""
    confidence: Confidence
    note: str = ""

    @model_validator(mode="after")
    def _is_cited(self) -> _Citation:
        if self.confidence == Confidence.SITE:
            raise ValueError("a pack's rule is never the site's own")
        if self.confidence != Confidence.ENGINEERING and not (self.standard and self.clause):
            raise ValueError("a statutory rule names its standard and clause")
        return self


class _RuleTable(_Table):
    name: str  # unique in the pack; the id's second half
    kind: str
    inputs: dict[str, _Selector] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    title: _Texts
    action: _Texts
    priority: Annotated[Priority, BeforeValidator(_priority)]
    scheme: str = ""
    level: str = ""
    on_delay_s: float = Field(default=0.0, ge=0)
    off_delay_s: float = Field(default=0.0, ge=0)
    latching: bool = False
    group_by: GroupBy = GroupBy.POINT
    citation: _Citation

    @model_validator(mode="after")
    def _has_a_scheme(self) -> _RuleTable:
        if self.level and not self.scheme:
            raise ValueError("a colour means nothing without its scheme")
        return self

    def rule(self, pack: str, edition: str) -> Rule:
        return Rule(
            id=f"{pack}.{self.name}",
            kind=self.kind,
            inputs={
                name: Selector(**selector.model_dump()) for name, selector in self.inputs.items()
            },
            parameters=self.parameters,
            name=self.title.model_dump(),
            priority=self.priority,
            scheme=self.scheme,
            level=self.level,
            on_delay_s=self.on_delay_s,
            off_delay_s=self.off_delay_s,
            latching=self.latching,
            group_by=self.group_by,
            citation=Citation(**self.citation.model_dump()),
            action=self.action.model_dump(),
            version=edition,
        )


class _PackTable(_Table):
    name: str
    edition: str = Field(min_length=1)
    jurisdiction: str = Field(min_length=1)
    title: _Texts
    status: Literal["complete", "partial", "empty"]
    reason: _Texts | None = None
    rule: tuple[_RuleTable, ...] = ()

    @model_validator(mode="after")
    def _is_honest(self) -> _PackTable:
        if self.status != "complete" and self.reason is None:
            raise ValueError(f"a pack that is {self.status} says why")
        if (self.status == "empty") != (not self.rule):
            raise ValueError("a pack without rules is empty, and only that one")
        names = [rule.name for rule in self.rule]
        for name in names:
            if names.count(name) > 1 or not is_valid_id(f"{self.name}.{name}"):
                raise ValueError(f"rule {name!r}: each name once, and fit to stand in an id")
        return self


def parse_pack(text: str | bytes, source_name: str) -> RulePack:
    """Raises ConfigError naming `source_name`, with every fault."""
    try:
        document = tomllib.loads(text if isinstance(text, str) else text.decode("utf-8"))
        table = _PackTable.model_validate(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(source_name, 0, "", f"TOML in UTF-8: {error}")]) from error
    except ValidationError as error:
        faults = [
            Fault(source_name, 0, ".".join(str(part) for part in item["loc"]), item["msg"])
            for item in error.errors()
        ]
        raise ConfigError(faults) from error
    return RulePack(
        name=table.name,
        edition=table.edition,
        jurisdiction=table.jurisdiction,
        title=table.title.model_dump(),
        status=table.status,
        reason=table.reason.model_dump() if table.reason else {},
        rules=tuple(rule.rule(table.name, table.edition) for rule in table.rule),
    )


# ---------------------------------------------------------------------- a site's changes


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
