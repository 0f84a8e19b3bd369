"""Conditions: what the rule core says, and the instances it says it about.

The core's output is a table of **changes**, not of states: one row whenever the level of a rule
instance changed after hysteresis and delays. `time_ns` is exact: a condition that began at
`began_ns` with on-delay `d` changes at `began_ns + d`, whichever sample or tick found it out.

Array convention: every column has one row per change, ordered by (time_ns, instance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model.rule import Priority, Rule

NORMAL = 0
"""The level code of an instance that is not in condition."""


class Level(NamedTuple):
    """One level an instance can be in. Code in `Conditions.level` = position in the tuple + 1;
    a later position is more severe. (A tuple: a site of a hundred thousand rules makes three of
    them for each, and a frozen dataclass takes two to five times as long to make: decision 14.)"""

    name: str  # H, HH, L, LL, OFFLINE, OVER, …
    priority: Priority
    limit: float | None = None
    scheme_level: str = ""
    latching: bool | None = None  # None: as the rule says


@dataclass(frozen=True, slots=True)
class RuleInstance:
    """One rule applied to one point or one group of points. `alarm_key` is its stable identity;
    its position in the rule set is not."""

    alarm_key: str
    rule: Rule
    target: str  # point id, device id, area, adapter: what the alarm is about
    point_id: str  # the point whose value is shown; "" if there is none
    levels: tuple[Level, ...]
    unit: str = ""
    device: str = ""
    area: str = ""
    location: str = ""
    display_name: str = ""  # name of the point or device
    measures: bool = False  # its value is the point's own sample, not a number made of several


@dataclass(frozen=True, slots=True)
class Conditions:
    """Changes of level, as columns."""

    instance: NDArray[np.int32]
    level: NDArray[np.uint8]  # NORMAL or 1 + position in RuleInstance.levels
    time_ns: NDArray[np.int64]  # when the change took effect, event time
    began_ns: NDArray[np.int64]  # when the raw condition began (before the delay)
    value: NDArray[np.float64]  # the input's value that began it; NaN where there is none
    limit: NDArray[np.float64]  # the limit that decided; NaN where there is none
    quality: NDArray[np.uint8]
    late: NDArray[np.bool_]  # found in data older than what was judged: historical, no siren

    def __len__(self) -> int:
        return len(self.instance)

    @classmethod
    def empty(cls) -> Conditions:
        return cls(
            instance=np.empty(0, np.int32),
            level=np.empty(0, np.uint8),
            time_ns=np.empty(0, np.int64),
            began_ns=np.empty(0, np.int64),
            value=np.empty(0, np.float64),
            limit=np.empty(0, np.float64),
            quality=np.empty(0, np.uint8),
            late=np.empty(0, np.bool_),
        )
