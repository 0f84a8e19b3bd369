"""What the tests of the single-signal kinds say in one line: a rule, some values, what came of it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contract.rule_kind import RuleKind
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import Change, RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
CAL = int(Quality.UNCERTAIN_CALIBRATING)
BAD = int(Quality.BAD_SENSOR_FAULT)
POINT = Point(id="a", quantity="q", unit="mm", name="Crack 3")


def rule(kind: RuleKind, parameters: dict, **extra) -> Rule:
    return Rule("r", kind.name, {"value": Selector(quantity="q")}, parameters, **extra)


def samples(values: Sequence[tuple]) -> list[Sample]:
    """(seconds, value) or (seconds, value, quality) of point `a`."""
    return [Sample("a", *value) for value in values]


def told(
    kind: RuleKind,
    parameters: dict,
    values: Sequence[tuple],
    *,
    point: Point = POINT,
    end_s: float = 0.0,
    **extra,
) -> list[Change]:
    case = RuleCase([rule(kind, parameters, **extra)], [point], samples(values), end_s=end_s)
    return drive(case, {kind.name: kind}).changes


def levels(kind: RuleKind, parameters: dict, values: Sequence[tuple], **options) -> list[tuple]:
    """(seconds, level) of every change."""
    found = told(kind, parameters, values, **options)
    return [((change.time_ns - at_ns(0)) / NS, change.level) for change in found]
