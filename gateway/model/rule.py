"""Rules as configuration: what is judged, on which points, by which algorithm, by what law.

A rule kind is the algorithm (alarm_rules/kinds); a rule is one use of it; a rule instance is a rule
applied to one point, or to one group of points where the kind takes several inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from gateway.model.point import Point


class Priority(IntEnum):
    """How urgently a person must act. 1 is the most urgent."""

    CRITICAL = 1
    HIGH = 2
    MEDIUM = 3
    LOW = 4


class Confidence(StrEnum):
    """How sure we are of a rule's source; shown on the screen, and by `check` unless confirmed."""

    CONFIRMED = "confirmed"  # read in two or more public documents, or in the text itself
    SINGLE_SOURCE = "single_source"  # read in one public document
    UNCONFIRMED = "unconfirmed"  # widely reproduced, official text not read
    UNCERTAIN = "uncertain"  # must be checked against the official text before use
    ENGINEERING = "engineering"  # no statutory number exists or none was found; our default
    SITE = "site"  # the site's own rule


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a rule comes from. Empty standard for a site's own rule."""

    standard: str = ""
    edition: str = ""
    clause: str = ""
    confidence: Confidence = Confidence.SITE
    note: str = ""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which points: every field that is filled must match; ids match any of the list.

    `attributes` are compared with the point's own attributes, then its device's.
    """

    ids: tuple[str, ...] = ()
    quantity: str = ""
    location_class: str = ""
    area: str = ""
    device: str = ""
    device_kind: str = ""
    adapter: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def matches(
        self,
        point: Point,
        device_kind: str = "",
        device_attributes: Mapping[str, str] | None = None,
    ) -> bool:
        if self.ids and point.id not in self.ids:
            return False
        pairs = (
            (self.quantity, point.quantity),
            (self.location_class, point.location_class),
            (self.area, point.area),
            (self.device, point.device),
            (self.device_kind, device_kind),
            (self.adapter, point.adapter),
        )
        if any(wanted and wanted != found for wanted, found in pairs):
            return False
        inherited = device_attributes or {}
        return all(
            point.attributes.get(key, inherited.get(key)) == value
            for key, value in self.attributes.items()
        )


class GroupBy(StrEnum):
    """What one instance of a rule with several inputs, or of a count, covers."""

    POINT = "point"
    DEVICE = "device"
    AREA = "area"
    ADAPTER = "adapter"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as the site or a pack states it. `parameters` are checked by the kind's schema."""

    id: str  # unique in the site; `pack.name` for a pack's rule; same alphabet as a point id
    kind: str
    inputs: Mapping[str, Selector]  # single-input kinds use the one name "value"
    parameters: Mapping[str, Any]
    name: Mapping[str, str] = field(default_factory=dict)  # language -> text
    priority: Priority = Priority.MEDIUM
    scheme: str = ""  # whose colours `level` speaks: "tailings", "mine", "" for none
    level: str = ""  # blue, yellow, orange, red, or a law's own word
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    latching: bool = False
    group_by: GroupBy = GroupBy.POINT
    citation: Citation = Citation()
    action: Mapping[str, str] = field(
        default_factory=dict
    )  # what the person should do, by language
    version: str = "1"


def alarm_key(target: str, rule_id: str) -> str:
    """The stable key of one rule instance's alarm: what it is about, then which rule."""
    return f"{target}:{rule_id}"
