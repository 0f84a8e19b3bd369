"""What rule kinds share: parameter models, seconds to nanoseconds, where a point is.

Not a kind itself: the underscore keeps it out of the registry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from alarm_rules import segments as seg
from gateway.contract.rule_kind import NEVER, Columns, Feed, InstancePlan, Planning
from gateway.model.point import Point
from gateway.model.rule import Priority

NS_PER_S = 1_000_000_000


class Parameters(BaseModel):
    """Base of every kind's parameters: unknown keys refused, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _priority(value: Any) -> Any:
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    return value


PriorityName = Annotated[Priority, BeforeValidator(_priority)]
"""A priority by its name (`critical`, `high`, …) or its number."""

Seconds = Annotated[float, Field(ge=0, le=366 * 86_400)]
"""A span: nothing longer than a year is a delay."""


def to_ns(seconds: float) -> int:
    """Nanoseconds, exact for every span written with up to nine decimals."""
    return round(seconds * NS_PER_S)


def place_of(planning: Planning, point: Point) -> dict[str, str]:
    """The descriptive fields of an instance that is about one point."""
    device = planning.points.device(point.device) if point.device else None
    name = point.name or (device.name if device else "") or point.id
    return {
        "point_id": point.id,
        "unit": point.unit,
        "device": point.device,
        "area": point.area,
        "location": point.location,
        "display_name": name,
    }


def same_settings(
    instances: Sequence[tuple[int, InstancePlan]],
) -> list[tuple[NDArray[np.int64], Any]]:
    """Rows by setting: the points of a rule share one object, so a rule is written at once."""
    rows: dict[int, list[int]] = defaultdict(list)
    settings: dict[int, Any] = {}
    for row, plan in instances:
        rows[id(plan.setting)].append(row)
        settings[id(plan.setting)] = plan.setting
    return [(np.array(rows[key], dtype=np.int64), settings[key]) for key in rows]


def input_slots() -> Columns:
    """The slot table of a kind that remembers the last value of each of its inputs."""
    return Columns(
        saved={
            "value": (np.float64, np.nan),
            "quality": (np.uint8, 0),
            "usable": (np.bool_, False),
            "time_ns": (np.int64, NEVER),
        }
    )


def what_is_new(feed: Feed, slots: Columns) -> Feed:
    """The rows that change what is known of an input; at most one for each (slot, time).

    Of several values of one input at one time the usable one counts, then the largest, then the one
    of better quality: an arbitrary order, but one that repeats and permutations cannot change.
    """
    value = np.where(feed.usable, feed.value, np.nan)
    order = np.lexsort((~feed.quality, value, feed.usable, feed.time_ns, feed.slot))
    slot, time_ns = feed.slot[order], feed.time_ns[order]
    last = np.append(seg.heads(slot, time_ns)[1:], True)
    rows = order[last]
    slot, known_ns = feed.slot[rows], slots["time_ns"][feed.slot[rows]]
    usable, was_usable = feed.usable[rows], slots["usable"][slot]
    new, old = value[rows], slots["value"][slot]
    better = usable & ~was_usable
    better |= (usable & was_usable) & (new > old)
    same = (usable == was_usable) & ((new == old) | ~usable)
    better |= same & (feed.quality[rows] < slots["quality"][slot])
    fresh = (feed.time_ns[rows] > known_ns) | ((feed.time_ns[rows] == known_ns) & better)
    return feed.take(np.sort(rows[fresh]))


def remember(feed: Feed, slots: Columns) -> None:
    """Keep the newest row of each slot; `feed` is ordered by time within a slot."""
    slots["value"][feed.slot] = np.where(feed.usable, feed.value, np.nan)
    slots["quality"][feed.slot] = feed.quality
    slots["usable"][feed.slot] = feed.usable
    slots["time_ns"][feed.slot] = feed.time_ns
