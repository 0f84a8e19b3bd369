"""A pack's file: TOML text → `RulePack`, or every fault with its file, line and key.

    name, edition, jurisdiction, title, status, [reason]     the pack
    [[rule]]   name, kind, inputs, parameters, … citation    what samples are judged by
    [[duty]]   name, kind, who, action, a number, citation   what no sample shows: who acts within
                                                             what time, what is repeated, kept, had

A duty is here, and not a rule, when nothing a device sends could prove it done. It carries at most
one number; where the law has one that could not be read, `unread` says so in its place.

Surprising: a rule is cited even when it is ours. `engineering` is a confidence like any other, so
that nobody takes our defaults for the law's.

Owns: the schema. Not here: what a site changes (overrides.py), finding files (the runtime's).
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from alarm_rules.ruleset import check_rules
from gateway.contract.rule_kind import RuleKind
from gateway.model.errors import ConfigError, Fault
from gateway.model.lines import Lines
from gateway.model.point import is_valid_id
from gateway.model.rule import Citation, Confidence, GroupBy, Priority, Rule, Selector

_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class DutyKind(StrEnum):
    """What a duty asks for, and which number it may carry."""

    RESPOND = "respond"  # act within_s after one of `rules` raised an alarm; 0 is at once
    REPEAT = "repeat"  # do again every_s
    KEEP = "keep"  # records, for_s
    HAVE = "have"  # equipment, people or a function: at_least or at_most, in `unit`


_NUMBERS_OF = {
    DutyKind.RESPOND: {"within_s"},
    DutyKind.REPEAT: {"every_s"},
    DutyKind.KEEP: {"for_s"},
    DutyKind.HAVE: {"at_least", "at_most"},
}
_NUMBERS = ("within_s", "every_s", "for_s", "at_least", "at_most")


@dataclass(frozen=True, slots=True)
class Duty:
    """What the law asks of people. Ids are `pack name.duty name`, beside those of rules."""

    id: str
    kind: DutyKind
    title: Mapping[str, str]
    who: Mapping[str, str]
    action: Mapping[str, str]
    citation: Citation
    number: float | None = None  # in `unit`; None: none is stated, or `unread` says why not
    bound: str = ""  # which number it is: within_s, every_s, for_s, at_least, at_most
    unit: str = ""
    rules: tuple[str, ...] = ()  # ids of the rules it follows; `*` stands for any part
    unread: Mapping[str, str] = field(default_factory=dict)

    def follows(self, rule_id: str) -> bool:
        """Whether an alarm of this rule calls for it."""
        return any(fnmatchcase(rule_id, pattern) for pattern in self.rules)


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
    duties: tuple[Duty, ...] = ()
    source: str = ""  # the file, for faults
    lines: Lines | None = field(default=None, compare=False, repr=False)


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


class _Item(_Table):
    """What a rule and a duty have in common."""

    name: str  # unique in the pack; the id's second half


class _RuleTable(_Item):
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


class _DutyTable(_Item):
    kind: DutyKind
    title: _Texts
    who: _Texts
    action: _Texts
    rules: tuple[str, ...] = ()
    within_s: float | None = Field(default=None, ge=0)
    every_s: float | None = Field(default=None, gt=0)
    for_s: float | None = Field(default=None, gt=0)
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    unread: _Texts | None = None
    citation: _Citation

    @model_validator(mode="after")
    def _says_one_thing(self) -> _DutyTable:
        stated = {name for name in _NUMBERS if getattr(self, name) is not None}
        if not stated <= _NUMBERS_OF[self.kind] or len(stated) > 1:
            allowed = " or ".join(sorted(_NUMBERS_OF[self.kind]))
            raise ValueError(f"a duty to {self.kind} carries {allowed}, not {sorted(stated)}")
        if stated and self.unread:
            raise ValueError("a number that is stated has been read")
        if not stated and not self.unread and self.kind != DutyKind.HAVE:
            raise ValueError(f"a duty to {self.kind} has a number, or says why none was read")
        if bool(self.unit) != bool(stated & _NUMBERS_OF[DutyKind.HAVE]):
            raise ValueError("at_least and at_most have a unit, times have none")
        return self

    def duty(self, pack: str) -> Duty:
        bound = next((name for name in _NUMBERS if getattr(self, name) is not None), "")
        return Duty(
            id=f"{pack}.{self.name}",
            kind=self.kind,
            title=self.title.model_dump(),
            who=self.who.model_dump(),
            action=self.action.model_dump(),
            citation=Citation(**self.citation.model_dump()),
            number=getattr(self, bound) if bound else None,
            bound=bound,
            unit=self.unit or ("s" if bound else ""),
            rules=self.rules,
            unread=self.unread.model_dump() if self.unread else {},
        )


class _PackTable(_Table):
    name: str
    edition: str = Field(min_length=1)
    jurisdiction: str = Field(min_length=1)
    title: _Texts
    status: Literal["complete", "partial", "empty"]
    reason: _Texts | None = None
    rule: tuple[_RuleTable, ...] = ()
    duty: tuple[_DutyTable, ...] = ()


def parse_pack(text: str | bytes, source_name: str) -> RulePack:
    """Raises ConfigError with every fault: `source_name`, line, key, what was expected."""
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        document = tomllib.loads(plain)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line = _toml_line(str(error), text)
        raise ConfigError([Fault(source_name, line, "", f"TOML in UTF-8: {error}")]) from error
    lines = Lines(plain)
    try:
        table = _PackTable.model_validate(document)
    except ValidationError as error:
        faults = [_fault(source_name, lines, item["loc"], item["msg"]) for item in error.errors()]
        raise ConfigError(faults) from error
    faults = [_fault(source_name, lines, path, text) for path, text in _dishonest(table)]
    if faults:
        raise ConfigError(faults)
    return RulePack(
        name=table.name,
        edition=table.edition,
        jurisdiction=table.jurisdiction,
        title=table.title.model_dump(),
        status=table.status,
        reason=table.reason.model_dump() if table.reason else {},
        rules=tuple(rule.rule(table.name, table.edition) for rule in table.rule),
        duties=tuple(duty.duty(table.name) for duty in table.duty),
        source=source_name,
        lines=lines,
    )


def check_pack(pack: RulePack, kinds: Mapping[str, RuleKind]) -> list[Fault]:
    """What the rule kinds say against the pack's rules, each where it stands in the pack's file."""
    found = []
    for fault in check_rules(pack.rules, kinds):
        for number, rule in enumerate(pack.rules):
            if fault.key.startswith(f"{rule.id}."):
                keys = fault.key.removeprefix(f"{rule.id}.").split(".")
                path: list[str | int] = ["rule", number, *keys]
                line = pack.lines.of(path) if pack.lines else 0
                fault = Fault(pack.source, line, fault.key.rstrip("."), fault.expected)
                break
        found.append(fault)
    return found


def _dishonest(table: _PackTable) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What no single table can know: (path, what was expected)."""
    if table.status != "complete" and table.reason is None:
        yield ("status",), f"a pack that is {table.status} says why, in [reason]"
    if (table.status == "empty") != (not table.rule and not table.duty):
        yield ("status",), "a pack without rules and duties is empty, and only that one"
    both: dict[str, tuple[_Item, ...]] = {"rule": table.rule, "duty": table.duty}
    names = Counter(item.name for items in both.values() for item in items)
    for kind, items in both.items():
        for number, item in enumerate(items):
            if names[item.name] > 1 or not is_valid_id(f"{table.name}.{item.name}"):
                expected = f"{item.name!r}: each name once, and fit to stand in an id"
                yield (kind, number, "name"), expected


def _fault(source: str, lines: Lines, path: Sequence[str | int], expected: str) -> Fault:
    return Fault(source, lines.of(path), ".".join(str(part) for part in path), expected)


def _toml_line(message: str, text: str | bytes) -> int:
    """The line the parser names; it says so in words only. At the end of the text: the last."""
    found = _TOML_LINE.search(message)
    if found:
        return int(found.group(1))
    if "end of document" not in message:
        return 0
    return 1 + (text.count("\n") if isinstance(text, str) else text.count(b"\n"))
