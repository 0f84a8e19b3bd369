"""The ledger counted by hand: one row, one minute, one point at a time, from the whole history."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

MINUTE_NS = 60_000_000_000
EARLIEST_NS = 946_684_800 * 10**9
TOLERANCE_NS = 5 * 10**9
DELAYED_NS = 120 * 10**9
BAD, ODD = 0x80, 0x41


@dataclass(frozen=True)
class Row:
    point: int
    source_ns: int
    received_ns: int
    quality: int = 0

    @property
    def is_absurd(self) -> bool:
        beyond = self.source_ns > self.received_ns + TOLERANCE_NS
        return beyond or self.source_ns < EARLIEST_NS or self.quality == ODD

    @property
    def time_ns(self) -> int:
        return self.received_ns if self.is_absurd else self.source_ns

    @property
    def minute(self) -> int:
        return self.time_ns // MINUTE_NS

    @property
    def is_delayed(self) -> bool:
        return self.received_ns - self.time_ns > DELAYED_NS


@dataclass
class Book:
    """What the whole history says."""

    counts: Counter = field(default_factory=Counter)  # (column, minute, point)
    offsets: dict = field(default_factory=lambda: defaultdict(list))  # (minute, delayed) -> offsets


def count(rows: list[Row]) -> Book:
    book = Book()
    heard: dict[int, list[int]] = defaultdict(list)
    for offset, row in enumerate(rows):
        times = heard[row.point]
        kind = "BAD" if row.quality >= BAD else "GOOD"
        if not row.is_absurd:
            if row.time_ns in times[-8:]:
                kind = "REPEAT"
            else:
                if times and row.time_ns < max(times):
                    book.counts["LATE", row.minute, row.point] += 1
                times.append(row.time_ns)
        else:
            book.counts["ODD_CLOCK", row.minute, row.point] += 1
        name = kind + ("_DELAYED" if row.is_delayed else "")
        book.counts[name, row.minute, row.point] += 1
        book.offsets[row.minute, row.is_delayed].append(offset)
    return book


def settle(  # noqa: PLR0911  a list of answers, read from the top
    book: Book, *, minute: int, point: int, world: dict
) -> tuple[int, int, str]:
    """(due, got, reason) of one minute of one point. `world`: interval_s and since by point,
    closed_ns, outages [(reason, adapter, from_minute, to_minute)], adapter by point."""
    interval_s = world["interval_s"][point]
    if not interval_s or interval_s > 86_400:
        return 0, 0, "none"
    is_fast = interval_s <= 30
    due = math.floor(60 / interval_s) if is_fast else 1
    reach = 0 if is_fast else math.ceil(interval_s / 60)
    if minute < world["since"][point] + reach:
        return 0, 0, "none"
    window = range(minute - reach, minute + 1)

    def any_of(*columns: str) -> bool:
        return any(book.counts[column, m, point] for column in columns for m in window)

    good = book.counts["GOOD", minute, point]
    if is_fast:
        got = due if good >= due - 1 else good
    else:
        got = 1 if any_of("GOOD") else 0
    if got == due:
        return due, got, "none"
    if (minute + 1) * MINUTE_NS > world["closed_ns"]:
        return due, got, "pending"
    for reason in ("gateway_down", "clock", "lost_damage", "adapter_down"):
        for kind, adapter, first, last in world["outages"]:
            mine = adapter in ("", world["adapter"][point])
            if kind == reason and mine and any(first <= m <= last for m in window):
                return due, got, reason
    if any_of("BAD", "BAD_DELAYED"):
        return due, got, "bad_quality"
    if any_of("GOOD_DELAYED"):
        return due, got, "late"
    return due, got, "device_silent"
