"""A span of the ledger, settled and summed: from the store's minutes to figures by point.

    minutes ─┐                          ┌─ sums by point
    plan ────┼─ Facts ─ settle ─ Sums ──┤
    outages ─┤   an hour at a time      └─ bins, for a strip over time
    consumers┘

An hour that is settled (over for two hours, every consumer past it) is kept as its sums; a row that
comes for it later, or a verdict upon it, throws the sums away while its minutes are kept.

**What a consumer has.** The rows of a minute that came in time lie in one short stretch of offsets,
those that were delayed in another. A stretch that lies wholly behind the consumer's cursor is had,
less the rows it refused; one that it gave up any of counts as given up whole; any other is pending
whole. So the ledger may for a moment claim too little, never too much.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.cells import DELAYED, IN_TIME, NO_OFFSET, Array, Cells, Column, Span, unpack
from gateway.ledger.count import MINUTE_NS
from gateway.ledger.ledger import plan_of
from gateway.ledger.settle import (
    GAP_REASONS,
    LONG_AGO,
    OUTAGES,
    Facts,
    Reason,
    Settled,
    due_of,
    last_seen,
    last_touched,
    settle,
)
from gateway.ledger.store import Store
from gateway.ledger.sums import LAST_ON, Sums

SETTLED_AFTER_MINUTES = 120
CHUNK_MINUTES = 60
LIVE_LANE = "/live"  # what a sink's second lane adds to its cursor's name
_SEEN = ("good", "bad", "delayed")
_ROWS = {
    "good": (Column.GOOD, Column.GOOD_DELAYED),
    "bad": (Column.BAD, Column.BAD_DELAYED),
    "repeat": (Column.REPEAT, Column.REPEAT_DELAYED),
    "delayed": (Column.GOOD_DELAYED, Column.BAD_DELAYED),
    "late": (Column.LATE,),
    "odd_clock": (Column.ODD_CLOCK,),
}


@dataclass(frozen=True)
class Consumer:
    """A row of the store."""

    name: str
    role: str
    begins: int
    committed: int
    live_from: int
    live_to: int


@dataclass(frozen=True)
class Named:
    """What a point was called."""

    index: int
    id: str
    name: str
    device: str
    adapter: str
    area: str


@dataclass
class Books:
    """Reads one state of a store. Use inside `store.snapshot()` when the store is being written."""

    store: Store
    points: list[Named] = field(init=False)
    consumers: list[Consumer] = field(init=False)
    state: dict[str, Any] = field(init=False)
    _plans: list[tuple[int, dict[str, Array]]] = field(init=False)
    _outages: dict[Reason, list[tuple[int, int]]] = field(init=False)
    _adapter_outages: dict[str, list[tuple[int, int]]] = field(init=False)
    _dropped: dict[str, list[tuple[int, int, Reason]]] = field(init=False)
    _adapters: list[str] = field(init=False)
    _adapter_of: NDArray[np.intp] = field(init=False)  # a point's place among them

    def __post_init__(self) -> None:
        self.state = self.store.state()
        self.points = [Named(*row) for row in self.store.ask("SELECT * FROM point ORDER BY idx")]
        self.consumers = [Consumer(*row) for row in self.store.ask("SELECT * FROM consumer")]
        self._adapters = sorted({"", *(p.adapter for p in self.points)})
        place = {name: number for number, name in enumerate(self._adapters)}
        self._adapter_of = np.array([place[p.adapter] for p in self.points], np.intp)
        self._plans = [
            (minute, plan_of(body))
            for minute, body in self.store.ask("SELECT * FROM plan ORDER BY minute")
        ]
        self._outages, self._adapter_outages = {}, {}
        for kind, name, from_ns, to_ns in self.store.ask("SELECT * FROM outage ORDER BY from_ns"):
            stretch = (from_ns // MINUTE_NS, to_ns // MINUTE_NS)
            reason = Reason(kind)
            if reason == Reason.ADAPTER_DOWN:
                _extend(self._adapter_outages.setdefault(name, []), stretch)
            else:
                _extend(self._outages.setdefault(reason, []), stretch)
        self._dropped = {}
        for lane, first, end, reason_code in self.store.ask(
            "SELECT lane, first, last, reason FROM dropped ORDER BY first"
        ):
            name = lane.removesuffix(LIVE_LANE)
            self._dropped.setdefault(name, []).append((first, end, Reason(reason_code)))

    @property
    def size(self) -> int:
        """Points known."""
        return max(len(self.points), *(len(p["since"]) for _, p in self._plans), 0)

    @property
    def known_minute(self) -> int:
        """Minutes before it are known, but for what is still on its way."""
        return int(self.state.get("known_ns", 0)) // MINUTE_NS

    def sums(self, edges: Sequence[int]) -> Iterator[Sums]:
        """Of each [edges[i], edges[i + 1]) in minutes. What is not known yet is left out."""
        before: dict[str, Array] | None = None
        at = LONG_AGO
        for first, end in itertools.pairwise(edges):
            total = Sums(self.size)
            for low, high in _hours(first, min(end, self.known_minute + 1)):
                kept = self._kept_hour(low) if high - low == CHUNK_MINUTES else None
                if kept is not None:
                    total.add_all(kept)
                    continue
                if before is None or at != low:
                    before = self._seen_before(low)
                part, before = self._settled(low, high, before)
                at = high
                total.add_all(part)
            yield total

    # ------------------------------------------------------------------ hours

    def _kept_hour(self, minute: int) -> Sums | None:
        if minute % CHUNK_MINUTES:
            return None
        for (body,) in self.store.ask(
            "SELECT body FROM hour WHERE hour = ?", (minute // CHUNK_MINUTES,)
        ):
            try:
                return Sums.unpacked(body)
            except ValueError:
                return None
        return None

    def hours_to_settle(
        self, count_max: int, *, forced_before: int = 0
    ) -> Iterator[tuple[int, bytes]]:
        """Sums of the oldest hours that nothing ordinary will change any more, silent ones too.
        Those before the minute `forced_before` are settled as they stand: their minutes go."""
        if not self._plans and not self.store.ask("SELECT 1 FROM minute LIMIT 1"):
            return
        begun = [minute for minute, _ in self._plans[:1]]
        begun += [row[0] for row in self.store.ask("SELECT min(minute) FROM minute") if row[0]]
        kept = {hour for (hour,) in self.store.ask("SELECT hour FROM hour")}
        last = (self.known_minute - SETTLED_AFTER_MINUTES) // CHUNK_MINUTES
        open_hours = (h for h in range(min(begun) // CHUNK_MINUTES, last) if h not in kept)
        for hour in itertools.islice(open_hours, count_max):
            low = hour * CHUNK_MINUTES
            sums, _ = self._settled(low, low + CHUNK_MINUTES, self._seen_before(low))
            is_moving = any(name.startswith(Reason.PENDING.word + "|") for name in sums)
            if not is_moving or low < forced_before:
                yield hour, sums.packed()

    # ------------------------------------------------------------------ minutes

    def _settled(
        self, first: int, end: int, before: dict[str, Array]
    ) -> tuple[Sums, dict[str, Array]]:
        minutes = self.store.minutes(first, end)
        size = max([self.size, *(cells.size for cells in minutes.values())])
        facts = self._facts(first, end, minutes, _fit(before, size))
        settled = settle(facts)
        sums = Sums(size)
        _sum_gaps(sums, settled)
        minute = first + np.arange(end - first)[:, None]
        on = (settled.got > 0) & (settled.due > 0)
        sums.add(LAST_ON, np.where(on | (facts.good > 0), minute, 0).max(axis=0))
        for name, columns in _ROWS.items():
            sums.add(name, _matrix(minutes, first, end, columns=columns, size=size).sum(axis=0))
        for consumer in self.consumers:
            self._sum_rows(sums, consumer, minutes, (first, end))
        return sums, {name: last_seen(facts, name)[-1] for name in _SEEN}

    def _facts(
        self, first: int, end: int, minutes: dict[int, Cells], before: dict[str, Array]
    ) -> Facts:
        size, count = len(before["good"]), end - first
        due, reach = self._expected(first, end, size)
        touched = np.stack(
            [last_touched(self._adapter_outages.get(a, []), first, count) for a in self._adapters]
        )
        which = np.zeros(size, np.intp)  # a point nobody has described has no adapter
        which[: len(self._adapter_of)] = self._adapter_of[:size]
        closed_ns = self.state.get("known_ns", 0) - self.state.get("delayed_after_ns", 0)
        return Facts(
            first=first,
            good=_matrix(minutes, first, end, columns=(Column.GOOD,), size=size),
            bad=_matrix(minutes, first, end, columns=(Column.BAD, Column.BAD_DELAYED), size=size),
            delayed=_matrix(minutes, first, end, columns=(Column.GOOD_DELAYED,), size=size),
            due=due,
            reach=reach,
            before=before,
            closed=(first + np.arange(count) + 1) * MINUTE_NS <= closed_ns,
            outage={
                reason: last_touched(self._outages[reason], first, count)
                for reason in OUTAGES
                if reason in self._outages
            },
            adapter_outage=touched[which].T,
        )

    def _expected(self, first: int, end: int, size: int) -> tuple[Array, Array]:
        """By the plan that was in force in each minute."""
        due = np.zeros((end - first, size), np.int32)
        reach = np.zeros((end - first, size), np.int32)
        ends = [minute for minute, _ in self._plans[1:]] + [2**62]
        for (since, plan), until in zip(self._plans, ends, strict=True):
            low, high = max(since, first), min(until, end)
            if low >= high:
                continue
            many, back = due_of(plan["interval_s"])
            rows, points = slice(low - first, high - first), slice(0, len(many))
            minute = np.arange(low, high)[:, None]
            is_begun = minute >= plan["since"] + back  # a slow point has its first interval
            due[rows, points] = np.where(is_begun, many, 0)
            reach[rows, points] = back
        return due, reach

    def _seen_before(self, minute: int) -> dict[str, Array]:
        """The last minute before in which each point was seen, as far back as anybody asks."""
        size, before = self.size, {name: np.full(self.size, LONG_AGO) for name in _SEEN}
        back = max(
            (int(due_of(p["interval_s"])[1].max(initial=0)) for _, p in self._plans), default=0
        )
        for low, high in _hours(minute - back, minute):
            minutes = self.store.minutes(low, high)
            size = max([size, *(cells.size for cells in minutes.values())])
            before = _fit(before, size)
            for at, cells in minutes.items():
                for name, columns in (
                    ("good", (Column.GOOD,)),
                    ("bad", (Column.BAD, Column.BAD_DELAYED)),
                    ("delayed", (Column.GOOD_DELAYED,)),
                ):
                    for column in columns:
                        seen = cells.columns.get(column)
                        if seen is not None:
                            before[name][: len(seen)][seen > 0] = at
        return before

    # ------------------------------------------------------------------ consumers

    def _sum_rows(
        self, sums: Sums, consumer: Consumer, minutes: dict[int, Cells], span: tuple[int, int]
    ) -> None:
        """Rows = had + refused + given up + pending + not asked, for every point."""
        size = sums.size
        refused = self._refused(consumer.name, span, size)
        for minute, cells in minutes.items():
            verdicts = refused.get(minute, {})
            parts = (
                (_added(cells, IN_TIME, size), cells.in_time),
                (_added(cells, DELAYED, size), cells.delayed),
            )
            for rows, offsets in parts:
                if not rows.any():
                    continue
                state = self._state_of(consumer, offsets)
                if state in {Reason.NONE, Reason.PENDING}:
                    for reason, counts in verdicts.items():
                        taken = np.minimum(counts, rows)
                        counts -= taken
                        rows = rows - taken
                        sums.add(f"{reason.word}|{consumer.name}", taken)
                word = "has" if state == Reason.NONE else state.word
                sums.add(f"{word}|{consumer.name}", rows)

    def _state_of(self, consumer: Consumer, offsets: Span) -> Reason:
        if offsets.first == NO_OFFSET or offsets.first < consumer.begins:
            return Reason.NOT_ASKED
        for first, end, reason in self._dropped.get(consumer.name, ()):
            if offsets.first < end and offsets.last >= first:
                return reason
        if offsets.last < consumer.committed:
            return Reason.NONE
        if consumer.live_from <= offsets.first and offsets.last < consumer.live_to:
            return Reason.NONE
        return Reason.PENDING

    def _refused(
        self, name: str, span: tuple[int, int], size: int
    ) -> dict[int, dict[Reason, NDArray[np.int64]]]:
        """Minute -> reason -> rows by point."""
        found: dict[int, dict[Reason, NDArray[np.int64]]] = {}
        for code, body in self.store.ask(
            "SELECT reason, body FROM verdict WHERE lane IN (?, ?)"
            " AND to_minute >= ? AND from_minute < ?",
            (name, name + LIVE_LANE, *span),
        ):
            arrays = unpack(body)
            minute = arrays["minute"].astype(np.int64)
            point = arrays.get("point", np.zeros(len(minute), np.int64)).astype(np.int64)
            for at in np.unique(minute[(minute >= span[0]) & (minute < span[1])]).tolist():
                counts = found.setdefault(at, {}).setdefault(Reason(code), np.zeros(size, np.int64))
                chosen = point[(minute == at) & (point < size)]
                counts += np.bincount(chosen, minlength=size)
        return found


def _sum_gaps(sums: Sums, settled: Settled) -> None:
    gap, dark = settled.due - settled.got, (settled.got == 0) & (settled.due > 0)
    sums.add("due", settled.due.sum(axis=0))
    sums.add("got", settled.got.sum(axis=0))
    sums.add("min_due", (settled.due > 0).sum(axis=0))
    sums.add("min_on", ((settled.due > 0) & ~dark).sum(axis=0))
    for reason in GAP_REASONS:
        because = settled.reason == reason
        if because.any():
            sums.add(f"gap.{reason.word}", np.where(because, gap, 0).sum(axis=0))
            sums.add(f"dark.{reason.word}", (because & dark).sum(axis=0))


def _hours(first: int, end: int) -> Iterator[tuple[int, int]]:
    """[first, end) cut where hours begin."""
    while first < end:
        high = min(end, (first // CHUNK_MINUTES + 1) * CHUNK_MINUTES)
        yield first, high
        first = high


def _extend(stretches: list[tuple[int, int]], stretch: tuple[int, int]) -> None:
    """Append, joined to the last one where they touch: an adapter that flaps makes one stretch."""
    if stretches and stretch[0] <= stretches[-1][1] + 1:
        stretches[-1] = (stretches[-1][0], max(stretches[-1][1], stretch[1]))
    else:
        stretches.append(stretch)


def _added(cells: Cells, columns: Sequence[Column], size: int) -> NDArray[np.int64]:
    total = np.zeros(size, np.int64)
    for column in columns:
        counts = cells.columns.get(column)
        if counts is not None:
            total[: len(counts)] += counts
    return total


def _matrix(
    minutes: dict[int, Cells], first: int, end: int, *, columns: Sequence[Column], size: int
) -> NDArray[np.int64]:
    matrix = np.zeros((end - first, size), np.int64)
    for minute, cells in minutes.items():
        for column in columns:
            counts = cells.columns.get(column)
            if counts is not None:
                matrix[minute - first, : len(counts)] += counts
    return matrix


def _fit(before: dict[str, Array], size: int) -> dict[str, Array]:
    return {
        name: np.concatenate([seen, np.full(size - len(seen), LONG_AGO)])
        if len(seen) < size
        else seen
        for name, seen in before.items()
    }
