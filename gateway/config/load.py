"""Reading a site file: every fault at once, or a `SiteConfig`.

    bytes ─▶ TOML ─▶ ${env:…} ─▶ Document ─▶ plugins' own classes ─▶ point table ─▶ cross checks
    every step adds its faults; none stops the next where it can go on

`check` and `load` do exactly the same; `load` raises what `check` returns. Neither builds, connects
or creates anything.

The caller says what kinds there are (`Kinds`): this package knows no plugin and no rule pack.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.faults import FaultList, KeyPath
from gateway.config.point_table import read_table
from gateway.config.schema import (
    Document,
    PluginConfig,
    PointSection,
    RuleSection,
    SiteConfig,
)
from gateway.config.secret import Environment
from gateway.model.errors import ConfigError, Fault
from gateway.model.lines import Lines
from gateway.model.point import Point
from gateway.model.rule import Rule, Selector

_SYNTAX_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_SINGLE_INPUT = ("value",)
_UNIQUE = (
    ("adapter", "name"),
    ("sink", "name"),
    ("rule", "id"),
    ("alarm_group", "name"),
    ("escalation", "priority"),
)
_TOP_KEYS = ("packs", "points_file", "points_sheet")


@dataclass(frozen=True)
class Kinds:
    """What may be named in a site file, and the class that knows its keys.

    rule_inputs: names of the inputs of a rule kind; None where the rule names them itself. A kind
        that is not here has the one input `value`.
    rule_checks: what a kind has to say about a rule beyond its parameters' types.
    packs: names of the rule packs there are; None: not checked here.
    """

    adapters: Mapping[str, type[BaseModel]]
    sinks: Mapping[str, type[BaseModel]]
    rule_kinds: Mapping[str, type[BaseModel]]
    rule_inputs: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    rule_checks: Mapping[str, Callable[[Rule, Any], Sequence[str]]] = field(default_factory=dict)
    packs: Collection[str] | None = None


def load(path: Path, kinds: Kinds, *, environment: Mapping[str, str] | None = None) -> SiteConfig:
    """The site's configuration. Raises ConfigError with every fault; `environment` is os.environ
    unless given."""
    reading = _Reading(path, kinds, os.environ if environment is None else environment)
    config = reading.read()
    if reading.faults:
        raise ConfigError(reading.faults)
    assert config is not None, "no configuration and no fault"
    return config


def check(path: Path, kinds: Kinds, *, environment: Mapping[str, str] | None = None) -> list[Fault]:
    """Every fault of the file and of the point table it names; empty when `load` would succeed."""
    reading = _Reading(path, kinds, os.environ if environment is None else environment)
    reading.read()
    return reading.faults


def warnings(config: SiteConfig) -> list[str]:
    """What is allowed and probably not meant: rules none of the configured points match.

    Silent for a site that configures no points: its adapters declare them while running.
    """
    if not config.points:
        return []
    return [
        f"{config.path}: rule {rule.id}: input {name} matches none of the configured points"
        for rule in config.rules
        for name, selector in rule.inputs.items()
        if not any(_may_match(selector, point) for point in config.points)
    ]


def _may_match(selector: Selector, point: Point) -> bool:
    """As far as the table says: what a protocol may still declare does not speak against it."""
    asked = {
        name: getattr(selector, name)
        for name in ("quantity", "location_class", "area", "device", "adapter")
        if getattr(point, name)
    }
    return Selector(ids=selector.ids, **asked).matches(point)


class _Reading:
    """One reading of one file."""

    def __init__(self, path: Path, kinds: Kinds, environment: Mapping[str, str]) -> None:
        self._path = path.absolute()
        self._shown = path
        self._kinds = kinds
        self._environment = Environment(environment)
        self._lines = Lines("")
        self._list = FaultList(path, self._lines, self._environment)
        self._syntax: list[Fault] = []

    @property
    def faults(self) -> list[Fault]:
        return self._syntax or self._list.sorted()

    def read(self) -> SiteConfig | None:
        """The configuration as far as it goes; meaningless when there are faults."""
        raw = self._parse()
        if raw is None:
            return None
        try:
            return self._read(raw)
        except RecursionError:  # dotted keys nest as deep as someone cares to write
            self._unreadable(0, "tables nested less deeply")
            return None

    def _read(self, raw: dict[str, Any]) -> SiteConfig | None:
        data = self._environment.resolve(raw)
        for path, name in self._environment.missing:
            self._list.add(path, f"the environment variable {name} to be set")
        document = self._document(data)
        adapters = self._plugins(data, "adapter", self._kinds.adapters)
        sinks = self._plugins(data, "sink", self._kinds.sinks)
        rules = self._rules(data)
        points = self._points(data)
        self._cross_check(data)
        if document is None or len(self._list):
            return None
        return SiteConfig(
            path=self._path,
            site=document.site,
            spool=document.spool,
            judging=document.judging,
            delivery=document.delivery,
            ledger=document.ledger,
            alarms=document.alarms,
            alarm_groups=document.alarm_group,
            escalations=document.escalation,
            history=document.history,
            console=document.console,
            data_dir=self._beside(document.site.data_dir),
            points=tuple(points),
            adapters=adapters,
            sinks=sinks,
            packs=document.packs,
            pack_overrides=document.pack_override,
            rules=rules,
        )

    # --- the file

    def _parse(self) -> dict[str, Any] | None:
        try:
            data = self._path.read_bytes()
        except OSError as error:
            return self._unreadable(0, f"a file that can be read ({error.strerror})")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return self._unreadable(data.count(b"\n", 0, error.start) + 1, "text in UTF-8")
        text = text.replace("\r\n", "\n")
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            place = _SYNTAX_PLACE.search(message)
            line = int(place.group(1)) if place else text.count("\n") + 1
            what = _SYNTAX_PLACE.sub("", message).removesuffix(" (at end of document)")
            return self._unreadable(line, f"valid TOML ({what})")
        except (ValueError, RecursionError) as error:  # a number of 5000 digits, 500 brackets
            return self._unreadable(0, f"valid TOML ({type(error).__name__})")
        self._lines = Lines(text)
        self._list = FaultList(self._shown, self._lines, self._environment, _TOP_KEYS)
        return raw

    def _unreadable(self, line: int, expected: str) -> dict[str, Any] | None:
        self._syntax = [Fault(str(self._shown), line, "", expected)]
        return None

    def _beside(self, name: str) -> Path:
        """A path of the file, relative to the folder the file is in."""
        return Path(os.path.normpath(self._path.parent / Path(name).expanduser()))

    # --- the sections

    def _document(self, data: dict[str, Any]) -> Document | None:
        try:
            return Document.model_validate(data)
        except ValidationError as error:
            self._list.add_validation(error, (), data, Document)
            return None

    def _plugins(
        self, data: dict[str, Any], section: str, kinds: Mapping[str, type[BaseModel]]
    ) -> tuple[PluginConfig, ...]:
        configs = []
        for number, raw in enumerate(_tables(data, section)):
            base = (section, number)
            name, kind = raw.get("name"), raw.get("kind")
            if not isinstance(kind, str):
                continue  # said already
            if kind not in kinds:
                self._list.add((*base, "kind"), f"one of {_listed(kinds)}")
                continue
            own = {key: value for key, value in raw.items() if key not in {"name", "kind"}}
            settings = self._validated(kinds[kind], own, base)
            if settings is not None and isinstance(name, str):
                configs.append(
                    PluginConfig(name=name, kind=kind, settings=self._with_paths(settings))
                )
        return tuple(configs)

    def _validated(
        self, model: type[BaseModel], data: dict[str, Any], base: KeyPath
    ) -> BaseModel | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            self._list.add_validation(error, base, data, model)
        except Exception as error:  # noqa: BLE001 - a plugin's validator may raise anything
            self._list.add(base, f"settings its kind accepts ({type(error).__name__}: {error})")
        return None

    def _with_paths(self, settings: BaseModel) -> BaseModel:
        """Fields that are paths made absolute: a service has another working directory."""
        changes: dict[str, Any] = {}
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, Path):
                changes[name] = self._beside(str(value))
            elif isinstance(value, BaseModel):
                changes[name] = self._with_paths(value)
        changed = {n: v for n, v in changes.items() if v is not getattr(settings, n)}
        return settings.model_copy(update=changed) if changed else settings

    def _rules(self, data: dict[str, Any]) -> tuple[Rule, ...]:
        rules = []
        for number, raw in enumerate(_tables(data, "rule")):
            base = ("rule", number)
            kind = raw.get("kind")
            if not isinstance(kind, str):
                continue
            if kind not in self._kinds.rule_kinds:
                self._list.add((*base, "kind"), f"one of {_listed(self._kinds.rule_kinds)}")
                continue
            self._check_inputs(kind, raw, base)
            given = raw.get("parameters", {})
            if not isinstance(given, dict):
                continue
            parameters = self._validated(self._kinds.rule_kinds[kind], given, (*base, "parameters"))
            try:
                rule = RuleSection.model_validate(raw).rule()
            except ValidationError:
                continue  # said already, by the document
            if parameters is not None:
                self._ask_kind(rule, parameters, base)
            rules.append(rule)
        return tuple(rules)

    def _check_inputs(self, kind: str, raw: dict[str, Any], base: KeyPath) -> None:
        inputs = raw.get("inputs", {})
        if not isinstance(inputs, dict):
            return
        given = {*inputs, *(("value",) if "value" in raw else ())}
        if "value" in raw and "value" in inputs:
            self._list.add((*base, "inputs", "value"), "value once, not in inputs and beside it")
        wanted = self._kinds.rule_inputs.get(kind, _SINGLE_INPUT)
        if wanted is None:
            if not given:
                self._list.add((*base, "inputs"), "at least one input")
        elif given != set(wanted):
            key = (*base, "inputs") if "inputs" in raw else (*base, "value")
            self._list.add(key, f"exactly the inputs {_listed(wanted)}")

    def _ask_kind(self, rule: Rule, parameters: BaseModel, base: KeyPath) -> None:
        ask = self._kinds.rule_checks.get(rule.kind)
        try:
            answers = ask(rule, parameters) if ask else ()
        except Exception as error:  # noqa: BLE001 - a kind's own check may raise anything
            answers = (f"a rule its kind accepts ({type(error).__name__}: {error})",)
        for answer in answers:
            self._list.add((*base, "parameters"), answer)

    def _points(self, data: dict[str, Any]) -> list[Point]:
        """Of the file and of the table it names; ids once in both together."""
        points, places = [], Counter[str]()
        names = (raw.get("name") for raw in _tables(data, "adapter"))
        adapters = {name for name in names if isinstance(name, str)}
        for number, raw in enumerate(_tables(data, "point")):
            self._once(places, raw.get("id"), ("point", number, "id"), "this point id")
            adapter = raw.get("adapter")
            if isinstance(adapter, str) and adapter and adapter not in adapters:
                self._list.add(("point", number, "adapter"), f"one of {_listed(adapters)}")
            try:
                points.append(PointSection.model_validate(raw).point())
            except ValidationError:
                continue  # said already, by the document
        name = data.get("points_file", "")
        if isinstance(name, str) and name:
            points += self._table_points(name, str(data.get("points_sheet", "")), places, adapters)
        return points

    def _table_points(
        self, name: str, sheet: str, places: Counter[str], adapters: set[Any]
    ) -> list[Point]:
        path = self._beside(name)
        if not path.is_file():
            self._list.add(("points_file",), f"a file; {path} is none")
            return []
        table = read_table(path, sheet)
        shown = str(self._shown.parent / name)
        points = []
        for line, heading, expected in table.faults:
            self._list.add_in(shown, line, heading, expected)
        for row in table.rows:
            point_id = row.fields["id"]
            places[point_id] += 1
            if places[point_id] > 1:
                self._list.add_in(shown, row.line, row.headings["id"], "this point id only once")
            adapter = row.fields.get("adapter", "")
            if adapter and adapter not in adapters:
                self._list.add_in(
                    shown, row.line, row.headings["adapter"], f"one of {_listed(adapters)}"
                )
            try:
                points.append(PointSection.model_validate(row.fields).point())
            except ValidationError as error:
                for each in error.errors(include_url=False, include_input=False):
                    key = str(each["loc"][0]) if each["loc"] else ""
                    expected = each["msg"].removeprefix("Value error, ")
                    self._list.add_in(shown, row.line, row.headings.get(key, key), expected)
        return points

    # --- what only the whole can tell

    def _cross_check(self, data: dict[str, Any]) -> None:
        for section, key in _UNIQUE:
            seen = Counter[str]()
            for number, raw in enumerate(_tables(data, section)):
                self._once(seen, raw.get(key), (section, number, key), f"this {section} {key}")
        self._check_history(data)
        self._check_packs(data)
        self._check_spool(data)

    def _once(self, seen: Counter[str], value: object, path: KeyPath, what: str) -> None:
        if isinstance(value, str):
            seen[value] += 1
            if seen[value] > 1:
                self._list.add(path, f"{what} only once")

    def _check_history(self, data: dict[str, Any]) -> None:
        history = data.get("history", {})
        name = history.get("sink", "") if isinstance(history, dict) else ""
        sinks = [raw.get("name") for raw in _tables(data, "sink")]
        if isinstance(name, str) and name and name not in sinks:
            self._list.add(("history", "sink"), f"one of {_listed(sinks)}")

    def _check_packs(self, data: dict[str, Any]) -> None:
        packs = data.get("packs", [])
        if not isinstance(packs, list):
            return
        names = [name for name in packs if isinstance(name, str)]
        seen, known = Counter[str](), self._kinds.packs
        for number, name in enumerate(packs):
            self._once(seen, name, ("packs", number), "this pack")
            if isinstance(name, str) and known is not None and name not in known:
                self._list.add(("packs", number), f"one of {_listed(known)}")
        overridden = Counter[str]()
        for number, raw in enumerate(_tables(data, "pack_override")):
            rule = raw.get("rule")
            self._once(overridden, rule, ("pack_override", number, "rule"), "this rule")
            if isinstance(rule, str) and not any(rule.startswith(f"{name}.") for name in names):
                self._list.add(
                    ("pack_override", number, "rule"),
                    f"a rule of one of the packs {_listed(names)}, written pack.rule",
                )

    def _check_spool(self, data: dict[str, Any]) -> None:
        spool = data.get("spool", {})
        if not isinstance(spool, dict):
            return
        segment, budget = spool.get("segment_bytes_max_mb", 64), spool.get("bytes_max_mb", 8192)
        if isinstance(segment, int) and isinstance(budget, int) and budget < 2 * segment:
            self._list.add(
                ("spool", "bytes_max_mb"), f"at least twice segment_bytes_max_mb ({segment})"
            )


def _tables(data: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """The tables of an array of tables; what is none of it has been said by the document."""
    found = data.get(section, [])
    if not isinstance(found, list):
        return []
    return [each if isinstance(each, dict) else {} for each in found]


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(str(name) for name in names if name)) or "none (there are none)"
