"""Telling new samples from repeats: the one definition every store here uses. Pure.

A sample is the same sample as another when point, source time, value and quality are equal. Values
are compared bit for bit, but every NaN is the one "no value" and the two zeros are one (JSON loses
the sign). The time of receipt is not looked at: a device that sends again is received again. Equal
point and time with another value is **another sample**, and both are kept: `rank` counts such
neighbours (0 the first, 1 the next, …).

    free for its point     and no neighbour in the batch:  new for sure   (nearly every row: arrays)
    otherwise                                              asked          (few rows: a dictionary)

    held of one point:  ▒▒▒▒▒▒▒▒▒▒▒▒ low          high ▒▒▒▒▒▒▒▒ newest
                                        free                         free

After an outage live rows run ahead of the backlog: `high` is the oldest of those, `low` the newest
of all others. While nothing runs ahead `low` is `newest` and all that is newer is free. The bounds
may be too wide, never too narrow: too wide only asks about a row that needed no asking. The store
is asked with `lookup` for what it holds at those (point, time); nothing is assumed from offsets, so
a spool that begins again at 0 costs look-ups and no sample.

Not here: how a store looks up, and where it finds the newest at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch

NEVER = np.iinfo(np.int64).min
"""The newest time of a point that has no sample."""

_EVER = np.iinfo(np.int64).max
"""The oldest time run ahead of a point that nothing ran ahead of."""

SPAN_GAP_NS = 3_600_000_000_000  # 1 h: nearer times are looked up by one scan, further ones apart
SPANS_MAX = 8  # one device at 1970 must not make the scan of today's repeats read all years between

# 64-bit odd multipliers of SplitMix64's output function; a collision only asks a needless question
_MIX = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What the store has at the (point, time) asked for; more than asked does no harm."""

    point_index: NDArray[np.int32]
    source_time_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    rank: NDArray[np.int64]


class Occupied:
    """Between which times of each point the store holds rows. `newest` is too high at worst."""

    def __init__(self, newest: NDArray[np.int64]) -> None:
        self.newest = newest
        self.end_ahead()

    def end_ahead(self) -> None:
        """Nothing older is to come any more: what ran ahead is what there is."""
        self._low = self.newest.copy()
        self._high = np.full(len(self.newest), _EVER, np.int64)

    def grow(self, size: int) -> None:
        """Make room for `size` points."""
        self.newest = grown(self.newest, size)
        more = len(self.newest) - len(self._low)
        if more:
            self._low = np.concatenate([self._low, np.full(more, NEVER, np.int64)])
            self._high = np.concatenate([self._high, np.full(more, _EVER, np.int64)])

    def is_free(self, batch: Batch) -> NDArray[np.bool_]:
        """Rows at whose time the store holds nothing of their point, for sure."""
        point, time_ns = batch.point_index, batch.source_time_ns
        free: NDArray[np.bool_] = time_ns > self.newest[point]
        free |= (time_ns > self._low[point]) & (time_ns < self._high[point])
        return free

    def note(self, batch: Batch, *, ahead: bool = False) -> None:
        """The rows of `batch` are stored; `ahead`: older ones of their points may follow."""
        point, time_ns = batch.point_index, batch.source_time_ns
        np.maximum.at(self.newest, point, time_ns)
        if ahead:
            np.minimum.at(self._high, point, time_ns)
        else:
            np.maximum.at(self._low, point, time_ns)


Lookup = Callable[[NDArray[np.int32], NDArray[np.int64]], Held]
"""(point_index, source_time_ns) of the rows asked about -> what is held there."""


@dataclass(frozen=True, slots=True, eq=False)
class Sifted:
    """`rows` of the batch to store, in order, and the rank of each among its neighbours."""

    rows: NDArray[np.int64]
    rank: NDArray[np.int64]


def value_bits(value: NDArray[np.float64]) -> NDArray[np.int64]:
    """The value as an integer that is equal exactly when the value is the same.

    Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
    """
    bits: NDArray[np.int64] = np.where(np.isnan(value), np.nan, value + 0.0).view(np.int64)
    return bits


def sift(batch: Batch, occupied: Occupied, lookup: Lookup | None) -> Sifted:
    """Which rows the store lacks. Without `lookup` only repeats inside the batch are found.

    `occupied` needs room for every point of the batch.
    """
    hard = _crowded(batch)
    free = occupied.is_free(batch)
    if lookup is not None:
        hard |= ~free
    rank = np.zeros(len(batch), np.int64)
    rows = np.flatnonzero(hard)
    if not len(rows):
        return Sifted(np.arange(len(batch), dtype=np.int64), rank)
    known = _Known()
    old = rows[~free[rows]]
    if lookup is not None and len(old):
        known.learn(lookup(batch.point_index[old], batch.source_time_ns[old]))
    asked = batch.take(rows)
    ranks = np.array(known.place(asked), dtype=np.int64)
    rank[rows] = ranks
    keep = np.ones(len(batch), np.bool_)
    keep[rows[ranks < 0]] = False
    kept = np.flatnonzero(keep)
    return Sifted(kept, rank[kept])


def grown(newest: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The same array, with room for `size` points."""
    if size <= len(newest):
        return newest
    more = np.full(max(size, 2 * len(newest)) - len(newest), NEVER, np.int64)
    return np.concatenate([newest, more])


def spans(times: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Closed spans that cover all `times`, cut at the widest gaps, SPANS_MAX at most."""
    ordered = np.unique(times)
    if not len(ordered):
        return []
    gaps = ordered[1:].astype(np.float64) - ordered[:-1].astype(np.float64)  # int64 could overflow
    wide = np.flatnonzero(gaps > SPAN_GAP_NS)
    if len(wide) > SPANS_MAX - 1:
        wide = np.sort(wide[np.argsort(gaps[wide])[-(SPANS_MAX - 1) :]])
    starts = np.concatenate([[0], wide + 1])
    ends = np.concatenate([wide, [len(ordered) - 1]])
    return list(zip(ordered[starts].tolist(), ordered[ends].tolist(), strict=True))


def _crowded(batch: Batch) -> NDArray[np.bool_]:
    """Rows that share point and time with another row of the batch (or, rarely, seem to)."""
    with np.errstate(over="ignore"):
        key = batch.source_time_ns.view(np.uint64) * _MIX[0]
        key ^= key >> np.uint64(31)
        key += batch.point_index.astype(np.uint64) * _MIX[1]
    crowded = np.zeros(len(batch), np.bool_)
    ordered = np.sort(key)
    if not (ordered[1:] == ordered[:-1]).any():
        return crowded
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    crowded[order[1:][same]] = True
    crowded[order[:-1][same]] = True
    return crowded


class _Known:
    """(point, time) -> the samples there and the rank of each."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], dict[tuple[int, int], int]] = {}

    def learn(self, held: Held) -> None:
        columns = (
            held.point_index.tolist(),
            held.source_time_ns.tolist(),
            value_bits(held.value).tolist(),
            held.quality.tolist(),
            held.rank.tolist(),
        )
        for point, time_ns, bits, quality, rank in zip(*columns, strict=True):
            self._held.setdefault((point, time_ns), {})[bits, quality] = rank

    def place(self, batch: Batch) -> list[int]:
        """The rank each row gets: the lowest that is free; -1 for a repeat."""
        ranks = []
        columns = (
            batch.point_index.tolist(),
            batch.source_time_ns.tolist(),
            value_bits(batch.value).tolist(),
            batch.quality.tolist(),
        )
        for point, time_ns, bits, quality in zip(*columns, strict=True):
            here = self._held.setdefault((point, time_ns), {})
            if (bits, quality) in here:
                ranks.append(-1)
                continue
            taken = set(here.values())
            rank = next(k for k in range(len(taken) + 1) if k not in taken)
            here[bits, quality] = rank
            ranks.append(rank)
        return ranks
