"""Counts by component, name and reason: what the status page, the demo and the tests read.

Names are the same everywhere: `received`, `accepted`, `rejected`, `dropped`, `duplicate`, …; a
rejection or a drop has a reason. Plain integers in a dictionary: the loop is one thread, and a
count that is one behind for a moment is no harm.

A reason is a word of ours. Should one ever be made of what a device said, it costs no memory:
beyond `REASONS_MAX` of one name the rest is counted together as `other`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


class CounterTable:
    """All counts of one process."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()

    def component(self, name: str) -> ComponentCounters:
        return ComponentCounters(self, name)

    def add(self, component: str, name: str, n: int, reason: str) -> None:
        key = (component, name, reason)
        if reason and key not in self._counts:
            held = self._reasons[component, name]
            if held >= REASONS_MAX:
                key = (component, name, OTHER)
            else:
                self._reasons[component, name] = held + 1
        self._counts[key] += n

    def total(self, component: str, name: str) -> int:
        """Over all reasons."""
        return sum(
            n for (where, what, _), n in self._counts.items() if where == component and what == name
        )

    def of(self, component: str) -> dict[str, int]:
        """`name` or `name.reason` → count, sorted."""
        found = {
            f"{name}.{reason}" if reason else name: n
            for (where, name, reason), n in self._counts.items()
            if where == component
        }
        return dict(sorted(found.items()))


REASONS_MAX = 100  # engineering: the most any component has is some thirty
OTHER = "other"


@dataclass(frozen=True)
class ComponentCounters:
    """The counting hand of one component; satisfies `gateway.contract.adapter.Counters`."""

    table: CounterTable
    component: str

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        self.table.add(self.component, name, n, reason)


@dataclass
class StatusCell:
    """The last word of one component about itself; satisfies `LinkStatus`."""

    component: str
    state: str = "starting"
    detail: str = ""

    def __call__(self, state: str, detail: str = "") -> None:
        self.state = state
        self.detail = detail
