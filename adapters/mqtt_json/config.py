"""Configuration of the MQTT/JSON adapter: where the broker is, and what its messages mean.

A mapping is checked when it is loaded, down to its paths and templates (`paths.py`), so that a
mistyped one is a fault of the configuration with its key, never a surprise at the first message.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adapters.mqtt_json.paths import Each, Source, Template, TopicFilter
from gateway.contract.mqtt import MqttTarget
from gateway.model.point import PointKind
from gateway.model.quality import Quality

QUALITY_BY_WORD = {quality.name.lower(): quality for quality in Quality}
PROFILE_NAMES = ("geohazard", "tailings-generic")

_ZONE = re.compile(r"Z|[+-](?:0\d|1[0-4]):[0-5]\d")


def _quality_word(word: object) -> object:
    if word not in QUALITY_BY_WORD:
        raise ValueError(f"one of {', '.join(sorted(QUALITY_BY_WORD))}")
    return word


def _topic(text: object) -> object:
    TopicFilter.parse(str(text))
    return text


def _each(text: object) -> object:
    Each.parse(str(text))
    return text


def _source(text: object) -> object:
    Source.parse(str(text))
    return text


def _template(text: object) -> object:
    Template.parse(str(text))
    return text


QualityWord = Annotated[str, BeforeValidator(_quality_word)]
TopicText = Annotated[str, BeforeValidator(_topic)]
EachText = Annotated[str, BeforeValidator(_each)]
SourceText = Annotated[str, BeforeValidator(_source)]
TemplateText = Annotated[str, BeforeValidator(_template)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldConfig(_Frozen):
    """What one value is. In a mapping's own keys it holds for every value of the mapping; in its
    `fields` table for one; what the table leaves out is the mapping's."""

    quantity: TemplateText = ""
    unit: str = ""
    name: TemplateText = ""
    kind: PointKind = PointKind.ANALOG
    location_class: str = ""
    scale: float = Field(default=1.0, allow_inf_nan=False)  # value = number * scale + offset
    offset: float = Field(default=0.0, allow_inf_nan=False)
    no_value: tuple[float, ...] = ()  # numbers by which the device says "no value": -9999, …
    range_low: float | None = None
    range_high: float | None = None
    interval_s: float | None = Field(default=None, gt=0)
    states: dict[int, str] = Field(default_factory=dict)


class MappingConfig(FieldConfig):
    """How the messages of one topic filter become samples. README.md explains the language."""

    topic: TopicText
    each: EachText = "@"  # which parts of the message are a value each
    device: TemplateText
    device_kind: str = "sensor"
    device_name: TemplateText = ""
    point: TemplateText
    area: TemplateText = ""
    location: TemplateText = ""
    value: SourceText = "@"
    numbers: Literal["strict", "text_allowed"] = "strict"  # whether "1.5" in quotes is a number
    time: SourceText = "received"
    time_format: str = "rfc3339"  # rfc3339, unix_s, unix_ms, or a strptime pattern with %
    time_zone: str = ""  # +08:00: of times that do not say it themselves; "": such are refused
    quality: SourceText | None = None
    quality_map: dict[str, QualityWord] = Field(default_factory=dict)
    quality_unknown: QualityWord = "uncertain_state"  # for what quality_map does not name
    field: TemplateText = ""  # the key into `fields`
    fields: dict[str, FieldConfig] = Field(default_factory=dict)
    unknown_fields: Literal["skip", "map"] = "map"  # values whose key is not in `fields`

    @model_validator(mode="after")
    def _consistent(self) -> MappingConfig:
        if self.time_format not in ("rfc3339", "unix_s", "unix_ms") and "%" not in self.time_format:
            raise ValueError("time_format: rfc3339, unix_s, unix_ms or a strptime pattern")
        if self.time_zone and not _ZONE.fullmatch(self.time_zone):
            raise ValueError("time_zone: Z or an offset such as +08:00")
        if "%" in self.time_format and "%z" not in self.time_format and not self.time_zone:
            raise ValueError("time_zone: needed, the time_format has no %z")
        if self.fields and not self.field:
            raise ValueError("field: needed, there is a table of fields")
        if self.quality_map and self.quality is None:
            raise ValueError("quality: needed, there is a quality_map")
        names = TopicFilter.parse(self.topic).names | Each.parse(self.each).names
        templates = [Template.parse(str(getattr(self, key))) for key in _TEMPLATES]
        wanted = {name for template in templates for name in template.names}
        sources = (self.value, self.time, self.quality or "received")
        wanted |= {name for text in sources for name in Source.parse(text).names}
        for extra in self.fields.values():
            wanted |= Template.parse(extra.quantity).names | Template.parse(extra.name).names
        if wanted - names:
            unknown = ", ".join(sorted(wanted - names))
            raise ValueError(f"captured by neither topic nor each: {unknown}")
        return self


_TEMPLATES = (
    "device", "device_name", "point", "area", "location", "field", "quantity", "name",
)  # fmt: skip


class MqttJsonConfig(MqttTarget):
    """One broker and what its messages mean."""

    profile: Literal["", "geohazard", "tailings-generic"] = ""
    root: str = Field(default="tailings", min_length=1)  # first topic level of tailings-generic
    wrapper: Literal["none", "geohazard"] = "none"  # what stands around the JSON; a profile's wins
    mappings: tuple[MappingConfig, ...] = ()  # tried besides those of the profile

    gather_ms: float = Field(
        default=10.0, ge=0, le=1000
    )  # wait this long to make one batch of many
    receive_max: int = Field(default=1000, ge=1, le=65535)  # messages taken in, unacknowledged
    pending_size_max_bytes: int = Field(default=32 << 20, ge=1 << 20)  # of these, together
    messages_per_s_max: float = Field(default=20_000.0, gt=0)  # beyond it reading waits
    payload_size_max_bytes: int = Field(default=1 << 20, ge=64)  # larger ones go to quarantine
    points_max: int = Field(default=10_000, ge=1)  # a device that invents names fills no registry
    quarantine_size_max_bytes: int = Field(default=16 << 20, ge=4096)  # two files of half of it

    @model_validator(mode="after")
    def _has_mappings(self) -> MqttJsonConfig:
        if not self.profile and not self.mappings:
            raise ValueError("a profile or at least one mapping is needed")
        if any(symbol in self.root for symbol in "/+#{}"):
            raise ValueError("root: one topic level, without / + # and braces")
        return self
