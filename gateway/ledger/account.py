"""An account of a span: one row for each point, device, area, adapter or the site.

Rows are worst first: the lowest online rate on top, then the most minutes missed; those of which
nothing was expected come last. Every row balances:

    due = got + the sum of `gaps`            minutes_due = minutes_online + the sum of `dark`
    rows = has + the sum of `missing`, for every consumer

Not here: words for people (the console, the report command), how it travels (gateway.api).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.books import Books, Named
from gateway.ledger.settle import GAP_REASONS, Reason, online_rate
from gateway.ledger.sums import LAST_ON, Sums

Missing: TypeAlias = dict[str, int]
GroupBy = Literal["point", "device", "area", "adapter", "site"]
_GAP_WORDS = tuple(reason.word for reason in GAP_REASONS)
_ALL_WORDS = tuple(reason.word for reason in Reason)
COUNTED = ("good", "bad", "repeat", "delayed", "late", "odd_clock")


@dataclass(frozen=True)
class Request:
    """What is asked for. Minutes since 1970, half open."""

    from_minute: int
    to_minute: int
    by: GroupBy = "point"
    points: str = "*"  # a glob over point ids and names
    bin_count: int = 1
    rows_max: int = 1_000_000


@dataclass(frozen=True)
class ConsumerRow:
    """rows received = has + what is missing and why."""

    name: str
    role: str
    has: int
    missing: dict[str, int]


@dataclass
class Row:
    """One line of the account."""

    key: str
    name: str
    point_count: int
    due: int
    got: int
    minutes_due: int
    minutes_online: int
    counted: dict[str, int]
    gaps: dict[str, int]
    dark: dict[str, int]
    last_online_minute: int  # 0: not in this span
    consumers: list[ConsumerRow]
    strip: list[tuple[int, int, str]] = field(default_factory=list)  # due, got, main reason

    @property
    def online_rate(self) -> float | None:
        pending = self.dark.get(Reason.PENDING.word, 0)
        return online_rate(self.minutes_online, self.minutes_due, pending)

    @property
    def completeness(self) -> float | None:
        """The share of due samples that came, as `online_rate`."""
        return online_rate(self.got, self.due, self.gaps.get(Reason.PENDING.word, 0))

    @property
    def main_reason(self) -> str:
        """Why most of what is missing is missing; "" when nothing is, or all is pending."""
        known = {word: count for word, count in self.gaps.items() if word != Reason.PENDING.word}
        return max(known, key=lambda word: known[word]) if known else ""


@dataclass(frozen=True)
class Account:
    """The answer."""

    from_minute: int
    to_minute: int
    known_minute: int  # minutes before it are counted
    edges: list[int]
    total: Row
    rows: list[Row]
    row_count: int  # before `rows_max`


def account(books: Books, request: Request) -> Account:
    """Read, settle, sum and group."""
    edges = _edges(request)
    names = books.points
    asked = np.array(
        [fnmatchcase(p.id, request.points) or fnmatchcase(p.name, request.points) for p in names],
        np.bool_,
    )
    keys, group = _groups(names, request.by)
    groups = _Groups(group, asked, len(keys))
    total, strips = Sums(books.size), []
    for part in books.sums(edges):
        total.add_all(part)
        if request.bin_count > 1:
            strips.append(groups.strip(part))
    numbers = groups.worst_first(total)
    shown = numbers[: request.rows_max].tolist()
    rows = groups.rows(total, books, keys, shown)
    for number, row in zip(shown, rows, strict=True):
        row.strip = [strip.at(number) for strip in strips]
    everything = _Groups(np.zeros(len(names), np.intp), asked, 1)
    (whole,) = everything.rows(total, books, [("", "")], [0])
    whole.strip = [strip.whole() for strip in strips]
    return Account(
        request.from_minute,
        request.to_minute,
        books.known_minute,
        edges,
        whole,
        rows,
        len(numbers),
    )


def _edges(request: Request) -> list[int]:
    span = request.to_minute - request.from_minute
    count = max(1, min(request.bin_count, span))
    return [request.from_minute + span * step // count for step in range(count + 1)]


def _groups(names: list[Named], by: GroupBy) -> tuple[list[tuple[str, str]], NDArray[np.intp]]:
    """Key and name of each group, and the group of each point."""
    if by == "point":
        return [(p.id, p.name) for p in names], np.arange(len(names))
    found = ["" if by == "site" else str(getattr(p, by)) for p in names]
    keys = sorted(set(found))
    place = {key: number for number, key in enumerate(keys)}
    return [(key, "") for key in keys], np.array([place[key] for key in found], np.intp)


class _Strip:
    """One stretch of time, by group: due, got, and what is missing by reason."""

    def __init__(
        self, due: NDArray[np.int64], got: NDArray[np.int64], gaps: NDArray[np.int64]
    ) -> None:
        self._due, self._got, self._gaps = due, got, gaps  # gaps: [reason, group]
        self._main = np.where(gaps.any(axis=0), gaps.argmax(axis=0), -1)

    def at(self, number: int) -> tuple[int, int, str]:
        """due, got and the main reason of one group."""
        main = int(self._main[number])
        return int(self._due[number]), int(self._got[number]), _GAP_WORDS[main] if main >= 0 else ""

    def whole(self) -> tuple[int, int, str]:
        gaps = self._gaps.sum(axis=1)
        main = _GAP_WORDS[int(gaps.argmax())] if gaps.any() else ""
        return int(self._due.sum()), int(self._got.sum()), main


class _Groups:
    """Sums by point, added up by group."""

    def __init__(self, group: NDArray[np.intp], asked: NDArray[np.bool_], count: int) -> None:
        self._points = np.flatnonzero(asked)
        self._group = group[self._points]
        self._count = count

    def of(self, sums: Sums, name: str) -> NDArray[np.int64]:
        column = sums[name][self._points]
        if name == LAST_ON:
            newest = np.zeros(self._count, np.int64)
            np.maximum.at(newest, self._group, column)
            return newest
        weighed = np.bincount(self._group, weights=column, minlength=self._count)
        return weighed.astype(np.int64)  # exact below 2**53

    def strip(self, sums: Sums) -> _Strip:
        gaps = np.stack([self.of(sums, f"gap.{reason.word}") for reason in GAP_REASONS])
        return _Strip(self.of(sums, "due"), self.of(sums, "got"), gaps)

    def worst_first(self, sums: Sums) -> NDArray[np.intp]:
        """The groups that have anything to show: the lowest online rate, then the most minutes
        missed; those of which nothing was expected last."""
        due, online = self.of(sums, "min_due"), self.of(sums, "min_on")
        due = due - self.of(sums, f"dark.{Reason.PENDING.word}")
        rows = sum(self.of(sums, name) for name in ("good", "bad", "repeat"))
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(due > 0, online / due, 2.0)
        order = np.lexsort((online - due, rate))
        return order[(self.of(sums, "due")[order] > 0) | (np.asarray(rows)[order] > 0)]

    def rows(
        self, sums: Sums, books: Books, keys: list[tuple[str, str]], numbers: list[int]
    ) -> list[Row]:
        columns = {name: self.of(sums, name) for name in sums}
        points = np.bincount(self._group, minlength=self._count).tolist()

        def at(name: str, number: int) -> int:
            return int(columns[name][number]) if name in columns else 0

        def some(prefix: str, words: tuple[str, ...], number: int, suffix: str = "") -> Missing:
            found = ((word, columns.get(prefix + word + suffix)) for word in words)
            counts = {word: int(column[number]) for word, column in found if column is not None}
            return {word: count for word, count in counts.items() if count}

        return [
            Row(
                key=keys[number][0],
                name=keys[number][1],
                point_count=points[number],
                due=at("due", number),
                got=at("got", number),
                minutes_due=at("min_due", number),
                minutes_online=at("min_on", number),
                counted={name: at(name, number) for name in COUNTED},
                gaps=some("gap.", _GAP_WORDS, number),
                dark=some("dark.", _GAP_WORDS, number),
                last_online_minute=at(LAST_ON, number),
                consumers=[
                    ConsumerRow(
                        each.name,
                        each.role,
                        at(f"has|{each.name}", number),
                        some("", _ALL_WORDS, number, f"|{each.name}"),
                    )
                    for each in books.consumers
                ],
            )
            for number in numbers
        ]
