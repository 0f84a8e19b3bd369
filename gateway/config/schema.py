"""What a site file may say: the document as it is written, and `SiteConfig` as it is used.

The models named `…Section` mirror the TOML file key by key, refuse unknown keys and hold defaults;
`docs/decisions/0003-configuration.md` shows the file. Plugin sections carry keys of their own,
which only the plugin's class knows (load.py puts the two together).

Every option has its unit in its name. Times are seconds unless the name says otherwise.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    field_validator,
    model_validator,
)

from gateway.model.alarm import SHELF_MAX_S
from gateway.model.point import ID_PATTERN, Point, PointKind, is_valid_id
from gateway.model.rule import Citation, Confidence, GroupBy, Priority, Rule, Selector


class Frozen(BaseModel):
    """Base of all: unknown keys refused, unchangeable, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _is_id(text: str) -> str:
    if not is_valid_id(text):
        raise ValueError("1 to 128 characters without blanks and without / + #")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("a time zone name such as Asia/Shanghai") from None
    return name


def _priority(value: Any) -> Any:
    if isinstance(value, str):
        if value.upper() not in Priority.__members__:
            raise ValueError("critical, high, medium or low")
        return Priority[value.upper()]
    return value


def _in_both(value: Any) -> Any:
    """One text for every language."""
    return {"zh": value, "en": value} if isinstance(value, str) else value


Id = Annotated[str, AfterValidator(_is_id)]
Texts = Annotated[dict[str, str], BeforeValidator(_in_both)]
PriorityName = Annotated[Priority, BeforeValidator(_priority)]
Delay = Annotated[float, Field(ge=0, le=366 * 86_400)]  # nothing longer than a year is a delay


class SiteSection(Frozen):
    """Who this is. `tenant` and `id` are levels of every topic."""

    tenant: Id
    id: Id
    name: Texts = Field(default_factory=dict)
    time_zone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"
    data_dir: str = Field(default="data", min_length=1)  # relative to the file
    language: Literal["zh", "en"] = "zh"


class SpoolSection(Frozen):
    """Limits of the durable log; see gateway/spool/options.py for what happens at each."""

    commit_window_ms: float = Field(default=0.0, ge=0, le=10_000)
    segment_rows_max: int = Field(default=2_000_000, ge=1)
    segment_bytes_max_mb: int = Field(default=64, ge=1, le=1024)
    pending_rows_max: int = Field(default=200_000, ge=1)
    bytes_max_mb: int = Field(default=8192, ge=16)
    tail_rows_max: int = Field(default=200_000, ge=1)
    disk_free_min_mb: int = Field(default=256, ge=0)  # for the alarm journal, above all
    when_full: Literal["thin", "drop_oldest", "refuse"] = "thin"  # gateway/runtime/room.py


class DeliverySection(Frozen):
    """How sample sinks are fed (decision 0018). The numbers are engineering: a sink that is less
    than a few seconds behind is not worth two lanes, and 10 000 rows take a healthy store well
    under a second."""

    live_first_after_rows: int = Field(default=100_000, ge=1)  # so far behind: live rows go first
    backlog_share: float = Field(default=0.5, ge=0.05, le=0.9)  # of the write time, live waiting
    write_timeout_s: float = Field(default=60.0, gt=0, le=3600)  # then the sink counts as away


class LedgerSection(Frozen):
    """The completeness ledger (decision 0019). A month by the minute shows any gap a monthly report
    asks about; 400 days let a year be compared with the one before."""

    enabled: bool = True
    delayed_after_s: float = Field(default=120.0, ge=1, le=86_400)  # later it is no longer online
    keep_minutes_days: int = Field(default=35, ge=2, le=3660)
    keep_days: int = Field(default=400, ge=2, le=36_600)  # by the hour

    @model_validator(mode="after")
    def _hours_outlive_minutes(self) -> LedgerSection:
        if self.keep_days < self.keep_minutes_days:
            raise ValueError("keep_days at least keep_minutes_days")
        return self


class JudgingSection(Frozen):
    """How rules treat time."""

    lateness_s: float = Field(default=0.0, ge=0, le=86_400)
    tick_interval_s: float = Field(default=0.2, gt=0, le=10)
    clock_tolerance_s: float = Field(default=5.0, ge=0, le=86_400)


class AlarmsSection(Frozen):
    """How alarms live; by priority where people are concerned."""

    rejoin_window_s: Delay = 60.0  # back within this time: the same occurrence
    parent_release_s: Delay = 30.0  # a link is back: one polling cycle until its points count again
    realarm_after_s: dict[PriorityName, Annotated[float, Field(ge=10)]] = Field(
        default_factory=dict
    )
    realarm_max: int = Field(default=10, ge=1, le=1000)
    shelf_max_s: dict[PriorityName, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    flood_start: int = Field(default=10, ge=2)  # annunciations in ten minutes
    flood_end: int = Field(default=5, ge=1)
    # Held back beside the journal, and given up when the disk is full. 0: nothing.
    journal_reserve_mb: int = Field(default=64, ge=0, le=10_000)

    @field_validator("shelf_max_s")
    @classmethod
    def _only_shorter(cls, limits: dict[Priority, float]) -> dict[Priority, float]:
        for priority, limit_s in limits.items():
            longest_s = SHELF_MAX_S.get(priority)
            if longest_s is None:
                raise ValueError(f"{priority.name.lower()} is never shelved")
            if limit_s > longest_s:
                raise ValueError(f"{priority.name.lower()} at most {longest_s} s: only shorter")
        return limits

    @model_validator(mode="after")
    def _ends_below(self) -> AlarmsSection:
        if self.flood_end >= self.flood_start:
            raise ValueError("flood_end below flood_start")
        return self


class AlarmGroupSection(Frozen):
    """Alarms of one cause, of which the first tells most. What is left out is any."""

    name: Id
    rules: tuple[str, ...] = ()  # ids, * stands for any part
    areas: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mode: Literal["mark", "suppress"] = "mark"

    @model_validator(mode="after")
    def _selects(self) -> AlarmGroupSection:
        if not (self.rules or self.areas or self.devices):
            raise ValueError("rules, areas or devices: a group of everything explains nothing")
        return self


class EscalationStepSection(Frozen):
    """Who is told when nobody has acknowledged for so long."""

    after_s: float = Field(gt=0, le=7 * 86_400)
    recipients: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(
        min_length=1, max_length=32
    )


class EscalationSection(Frozen):
    """The steps of one priority, each later than the one before."""

    priority: PriorityName
    steps: tuple[EscalationStepSection, ...] = Field(min_length=1, max_length=8)

    @field_validator("steps")
    @classmethod
    def _later(cls, steps: tuple[EscalationStepSection, ...]) -> tuple[EscalationStepSection, ...]:
        if any(after.after_s <= before.after_s for before, after in pairwise(steps)):
            raise ValueError("every after_s longer than the one before")
        return steps


class HistorySection(Frozen):
    """Which sink answers questions about the past; empty for none."""

    sink: str = ""


class ConsoleSection(Frozen):
    """Where the operator's screens are served."""

    enabled: bool = True
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8808, ge=0, le=65_535)  # 0: any free one


class PointSection(Frozen):
    """One line of a point table (测点表). What is left out stays as the protocol declares it."""

    id: Id
    kind: PointKind = PointKind.ANALOG
    quantity: str = ""
    unit: str = ""
    name: str = ""
    device: Annotated[str, Field(pattern=rf"^({ID_PATTERN.pattern})?$")] = ""
    adapter: str = ""
    area: str = ""
    location: str = ""
    location_class: str = ""
    interval_s: float | None = Field(default=None, gt=0)
    range_low: float | None = None
    range_high: float | None = None
    states: dict[int, str] = Field(default_factory=dict)
    attributes: dict[str, str] = Field(default_factory=dict)

    def point(self) -> Point:
        return Point(**{name: getattr(self, name) for name in type(self).model_fields})


class PluginSection(BaseModel):
    """The two keys every adapter and sink has; the rest is the plugin's own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Id
    kind: str


class SelectorSection(Frozen):
    """Which points: every key that is given must match."""

    ids: tuple[str, ...] = ()
    quantity: str = ""
    location_class: str = ""
    area: str = ""
    device: str = ""
    device_kind: str = ""
    adapter: str = ""
    attributes: dict[str, str] = Field(default_factory=dict)

    def selector(self) -> Selector:
        return Selector(**{name: getattr(self, name) for name in type(self).model_fields})


class CitationSection(Frozen):
    """Where a rule comes from; a site's own needs none."""

    standard: str = ""
    edition: str = ""
    clause: str = ""
    confidence: Confidence = Confidence.SITE
    note: str = ""

    def citation(self) -> Citation:
        return Citation(**{name: getattr(self, name) for name in type(self).model_fields})


class RuleSection(Frozen):
    """One rule of the site. `value = {…}` is short for `inputs = { value = {…} }`."""

    id: Id
    kind: str
    value: SelectorSection | None = None
    inputs: dict[str, SelectorSection] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    name: Texts = Field(default_factory=dict)
    priority: PriorityName = Priority.MEDIUM
    scheme: str = ""
    level: str = ""
    on_delay_s: Delay = 0.0
    off_delay_s: Delay = 0.0
    latching: bool = False
    group_by: GroupBy = GroupBy.POINT
    citation: CitationSection = CitationSection()
    action: Texts = Field(default_factory=dict)
    version: str = "1"

    def rule(self) -> Rule:
        inputs = dict(self.inputs)
        if self.value is not None:
            inputs["value"] = self.value
        return Rule(
            inputs={name: section.selector() for name, section in inputs.items()},
            citation=self.citation.citation(),
            **{
                name: getattr(self, name)
                for name in type(self).model_fields
                if name not in {"value", "inputs", "citation"}
            },
        )


class PackOverride(Frozen):
    """What a site changes in a rule of a pack. `parameters` are laid over the pack's.

    Tightening needs no name under it. Loosening does: `signed_by`, `signed_on` and `reason` are the
    record of who answers for it. Which of the two it is, the reader of packs decides.
    """

    rule: Id
    parameters: dict[str, Any] = Field(default_factory=dict)
    priority: PriorityName | None = None
    on_delay_s: Delay | None = None
    off_delay_s: Delay | None = None
    latching: bool | None = None
    reason: str = ""
    signed_by: str = ""
    signed_on: date | None = None


class Document(Frozen):
    """The whole file."""

    site: SiteSection
    spool: SpoolSection = SpoolSection()
    judging: JudgingSection = JudgingSection()
    delivery: DeliverySection = DeliverySection()
    ledger: LedgerSection = LedgerSection()
    alarms: AlarmsSection = AlarmsSection()
    alarm_group: tuple[AlarmGroupSection, ...] = ()
    escalation: tuple[EscalationSection, ...] = ()
    history: HistorySection = HistorySection()
    console: ConsoleSection = ConsoleSection()
    points_file: str = ""
    points_sheet: str = ""  # of a workbook; "": the first one with a heading row
    point: tuple[PointSection, ...] = ()
    adapter: tuple[PluginSection, ...] = ()
    sink: tuple[PluginSection, ...] = ()
    packs: tuple[Id, ...] = ()
    pack_override: tuple[PackOverride, ...] = ()
    rule: tuple[RuleSection, ...] = ()


class PluginConfig(Frozen):
    """One adapter or sink: its name, its kind, and the plugin's own validated configuration, which
    stays out of `repr` because secrets were resolved into it."""

    name: str
    kind: str
    settings: InstanceOf[BaseModel] = Field(repr=False)


class SiteConfig(Frozen):
    """Everything the gateway is told, checked. Relative paths have become absolute."""

    path: Path  # the site file
    site: SiteSection
    spool: SpoolSection
    judging: JudgingSection
    delivery: DeliverySection = DeliverySection()
    ledger: LedgerSection = LedgerSection()
    alarms: AlarmsSection = AlarmsSection()
    alarm_groups: tuple[AlarmGroupSection, ...] = ()
    escalations: tuple[EscalationSection, ...] = ()
    history: HistorySection
    console: ConsoleSection
    data_dir: Path
    points: tuple[InstanceOf[Point], ...]
    adapters: tuple[PluginConfig, ...]
    sinks: tuple[PluginConfig, ...]
    packs: tuple[str, ...]
    pack_overrides: tuple[PackOverride, ...]
    rules: tuple[InstanceOf[Rule], ...]
