"""What a calculation remembers of the last minutes, hours or days of an input, in bounded memory.

    span  ├──────────────────────── 24 h ────────────────────────┤ t
    cells │▒▒▒▒│    │▒▒▒▒│▒▒▒▒│    │▒▒▒▒│ …  96 parts of the span, fixed to the clock
           ▲ counts whole while its newest sample is younger than the span

A **track** is one span over one input of one group. Time is cut into cells of span / 96, and a
cell keeps sums, extremes and its first and last value: a fixed number of bytes, whatever the rate.
The window at t is every cell whose newest sample is younger than t - span. With at most one sample
in a cell (interval of 15 min or more for 24 h) that is exactly the samples in (t - span, t]; with
more it reaches back up to one cell further, so never less than the span.

**Sums are exact**: each value is taken to 2**-60 as three integers, so that no order, cut or
restart can change a bit, and two hundred and fifty times 0.2 is 50. Only the result is rounded.

    value = whole + middle / 2**30 + low / 2**60          |value| <= 2**40, beyond it is bad

What makes a window **bad**: a sample in it that is bad or no number (unless `bad_share_max` allows
some), or no sample at all: silence is not zero. **Uncertain**: one of its samples is, or it is not
covered: the input was first heard less than a span ago, or was silent for longer than
`max_input_age_s` since. `change_over` asks only for its two ends, the newest sample and the last
one before the window; `increase_over` sums the rises of a counter and takes a fall for a restart at
zero, so bad samples between two good ones lose nothing.

Not here: the formula (expression.py), which inputs a group has (calculation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import FOREVER, NEVER, Columns, Feed
from gateway.model.quality import UNCERTAIN

CELLS = 96
"""Parts of a span: a quarter of an hour of a day. 7.4 kB for each track."""
KEPT = CELLS + 2
"""The cells a window may reach into, and one before: its last value is what stood at the start."""
VALUE_MAX = float(1 << 40)
"""Eight million samples of this size still sum up within 64 bits."""
_STEP = 30  # bits of a limb below the point

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CELL_FIELDS: dict[str, tuple[Any, Any]] = {
    "time": (np.int64, NEVER),  # of the cell's newest sample; NEVER: an unused cell
    "whole": (np.int64, 0),
    "middle": (np.int64, 0),
    "low": (np.int64, 0),
    "count": (np.int64, 0),  # samples that are usable
    "bad": (np.int64, 0),
    "unsure": (np.int64, 0),
    "least": (np.float64, np.inf),
    "most": (np.float64, -np.inf),
    "first": (np.float64, np.nan),  # NaN: was bad
    "last": (np.float64, np.nan),
}
_SUMMED = ("whole", "middle", "low", "count", "bad", "unsure")


class Track(NamedTuple):
    """A span over an input: of its values, or of the rises of a counter."""

    span_ns: int
    of_rises: bool


def window_fields(width: int) -> dict[str, tuple[Any, ...]]:
    """Saved columns of a slot table for up to `width` tracks of an input."""
    if width == 0:
        return {}
    cells = {
        f"cell_{name}" + ("_ns" if name == "time" else ""): (dtype, fill, width * KEPT)
        for name, (dtype, fill) in _CELL_FIELDS.items()
    }
    return {
        **cells,
        "track_code": (np.int64, 0, width),
        "covered_since_ns": (np.int64, FOREVER, width),  # heard without a gap since
        "counter": (np.float64, np.nan, width),  # last usable value
        "followed_ns": (np.int64, NEVER, width),  # newest sample taken
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What one window says at each asked moment."""

    value: Floats
    good: NDArray[np.bool_]
    sure: NDArray[np.bool_]


class Tracks(NamedTuple):
    """The tracks one call is about, one row each, ordered by (slot, place)."""

    slot: Ints
    place: Ints  # which of the slot's tracks
    span_ns: Ints
    of_rises: NDArray[np.bool_]
    age_ns: Ints  # the longest silence that leaves no gap

    @property
    def code(self) -> Ints:
        """What the memory in a place is about; another code there belongs to another formula."""
        return self.span_ns * 2 + self.of_rises


class History:
    """The cells and the new samples of some tracks as one sequence, oldest first, track by track.

    Built for one call of `judge`; `keep` writes the cells back.
    """

    def __init__(self, slots: Columns, tracks: Tracks, feed: Feed) -> None:
        self._slots = slots
        self._tracks = tracks
        self._known = slots["track_code"][tracks.slot, tracks.place] == tracks.code
        self._width = slots["track_code"].shape[1]
        self._key = tracks.slot * self._width + tracks.place
        assert (np.diff(self._key) > 0).all(), "tracks are ordered by slot and place"
        self._feed_size = len(feed)
        carried_track, cells = self._carried()
        owner, row = self._expanded(feed)
        new = _samples(feed, row, owner, tracks, self._counter())
        self._track = np.concatenate([carried_track, owner])
        data = {name: np.concatenate([cells[name], new[name]]) for name in _CELL_FIELDS}
        is_new = np.concatenate([np.zeros(len(carried_track), np.bool_), np.ones(len(row), bool)])
        origin = np.concatenate([np.full(len(carried_track), -1), row])
        order = np.lexsort((is_new, data["time"], self._track))
        self._track, self._is_new = self._track[order], is_new[order]
        self._data = {name: column[order] for name, column in data.items()}
        self._origin = origin[order]
        self._index()

    # ------------------------------------------------------------------ the sequence

    def _carried(self) -> tuple[Ints, dict[str, NDArray[Any]]]:
        """The cells in use of every track, as elements."""
        tracks = self._tracks
        columns = tracks.place[:, None] * KEPT + np.arange(KEPT)
        slot = tracks.slot[:, None]
        used = (self._slots["cell_time_ns"][slot, columns] > NEVER) & self._known[:, None]
        at, cell = np.nonzero(used)
        place = (tracks.slot[at], columns[at, cell])
        return at, {name: self._slots[_column(name)][place] for name in _CELL_FIELDS}

    def _expanded(self, feed: Feed) -> tuple[Ints, Ints]:
        """(track, feed row) for every track of every new sample. One that only replaces a sample of
        the same time is left out: nothing is counted twice."""
        tracks = self._tracks
        begin = np.searchsorted(tracks.slot, feed.slot, "left")
        row, ordinal = seg.expand(np.searchsorted(tracks.slot, feed.slot, "right") - begin)
        track = begin[row] + ordinal
        followed = self._slots["followed_ns"][tracks.slot[track], tracks.place[track]]
        fresh = (feed.time_ns[row] > followed) | ~self._known[track]
        track, row = track[fresh], row[fresh]
        by_track = np.argsort(track, kind="stable")
        return track[by_track], row[by_track]

    def _counter(self) -> Floats:
        tracks = self._tracks
        stands: Floats = self._slots["counter"][tracks.slot, tracks.place]
        return np.where(self._known, stands, np.nan)

    def _index(self) -> None:
        """Cells, prefix sums, and where each track and each sample stands in the sequence."""
        tracks, time = self._tracks, self._data["time"]
        cell_ns = -(-tracks.span_ns // CELLS)
        self._cell = time // cell_ns[self._track]
        self._cell_head = seg.heads(self._track, self._cell)
        self._cell_start = seg.starts_of(self._cell_head)
        size = len(tracks.slot)
        self._begin = np.searchsorted(self._track, np.arange(size), "left")
        self._end = np.searchsorted(self._track, np.arange(size), "right")
        zero = np.zeros((1, len(_SUMMED)), np.int64)
        rows = np.stack([self._data[name] for name in _SUMMED], axis=1)
        self._prefix = np.concatenate([zero, np.cumsum(rows, axis=0)])
        self._moments, rank = np.unique(time, return_inverse=True)
        self._order = self._track * (len(self._moments) + 1) + rank
        self._since = self._covered_since()
        new = np.flatnonzero(self._is_new)
        key = self._track[new] * (self._feed_size + 1) + self._origin[new]
        by_key = np.argsort(key)
        self._new_key, self._new_at = key[by_key], new[by_key]

    def _covered_since(self) -> Ints:
        """For each element: since when the input was heard without a gap."""
        tracks, time = self._tracks, self._data["time"]
        if len(time) == 0:
            return np.empty(0, np.int64)
        head = seg.heads(self._track)
        before = np.append(np.int64(NEVER), time[:-1])
        gap = self._is_new & (time - before > tracks.age_ns[self._track]) & ~head
        start = seg.starts_of(head)
        stood = self._slots["covered_since_ns"][tracks.slot, tracks.place][self._track]
        stood = np.where(self._known[self._track], stood, FOREVER)
        first_new = head & self._is_new
        begins = gap | first_new
        return seg.forward_fill(time, begins, start, stood)

    # ------------------------------------------------------------------ questions

    def newest(self, track: Ints, row: Ints) -> Ints:
        """The element of a feed row in a track; for -1 the newest of before this call, -1 where
        there is none."""
        key = track * (self._feed_size + 1) + row
        at = np.minimum(np.searchsorted(self._new_key, key), max(len(self._new_key) - 1, 0))
        found = np.full(len(track), -1)
        if len(self._new_key):
            hit = (self._new_key[at] == key) & (row >= 0)
            found[hit] = self._new_at[at[hit]]
        carried = self._begin + np.bincount(
            self._track[~self._is_new], minlength=len(self._begin)
        ).astype(np.int64)
        missing = found < 0
        last = carried[track[missing]] - 1
        found[missing] = np.where(last >= self._begin[track[missing]], last, -1)
        return found

    def find(self, slot: Ints, place: int) -> Ints:
        """The row of a slot's track among the tracks of this call."""
        rows: Ints = np.searchsorted(self._key, slot * self._width + place)
        return rows

    def ask(
        self, function: str, track: Ints, newest: Ints, moment_ns: Ints, bad_share_max: float
    ) -> Answer:
        """The window that ends at each moment, with `newest` as its last element."""
        size = len(track)
        if len(self._track) == 0:
            nothing = np.zeros(size, np.bool_)
            return Answer(np.full(size, np.nan), nothing, nothing)
        limit = moment_ns - self._tracks.span_ns[track]
        rank = np.searchsorted(self._moments, limit, "right")
        wanted = track * (len(self._moments) + 1) + rank
        young = np.searchsorted(self._order, wanted, "left")
        heard = (newest >= 0) & (young <= newest)
        high = np.where(heard, newest, 0)
        low = self._cell_start[np.where(heard, young, 0)]
        sums = self._prefix[high + 1] - self._prefix[low]
        whole, middle, fine, count, bad, unsure = sums.T
        covered = self._since[high] <= limit
        last = self._data["last"][high]
        if function == "change_over":
            value, at_start, start_sure = self._change(track, low, last)
            good = heard & at_start & np.isfinite(last)
            return Answer(value, good, covered & (unsure == 0) & start_sure)
        if function == "increase_over":
            good = heard & np.isfinite(last)
            return Answer(_number(whole, middle, fine), good, covered & (unsure == 0))
        good = heard & (count > 0) & (bad <= bad_share_max * (bad + count))
        sure = covered & (unsure == 0) & (bad == 0)
        if function == "min_over":
            return Answer(_extreme(self._data["least"], low, high, np.minimum), good, sure)
        if function == "max_over":
            return Answer(_extreme(self._data["most"], low, high, np.maximum), good, sure)
        value = _number(whole, middle, fine)
        if function == "mean_over":
            value /= np.maximum(count, 1)
        return Answer(value, good, sure)

    def _change(
        self, track: Ints, low: Ints, last: Floats
    ) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Newest minus what stood at the start: the last value before the window, or its first one
        where nothing is remembered from before."""
        before = low - 1
        has_before = before >= self._begin[track]
        safe = np.maximum(before, 0)
        start = np.where(has_before, self._data["last"][safe], self._data["first"][low])
        unsure = self._prefix[safe + 1, -1] - self._prefix[self._cell_start[safe], -1]
        return last - start, np.isfinite(start), ~has_before | (unsure == 0)

    # ------------------------------------------------------------------ memory

    def keep(self) -> None:
        """The newest cells of every track back into the slot table."""
        slots, tracks = self._slots, self._tracks
        every = (tracks.slot, tracks.place)
        slots["track_code"][every] = tracks.code
        columns = tracks.place[:, None] * KEPT + np.arange(KEPT)
        for name, (_, fill) in _CELL_FIELDS.items():
            slots[_column(name)][tracks.slot[:, None], columns] = fill
        if len(self._track) == 0:
            return
        head = np.flatnonzero(self._cell_head)
        tail = np.append(head[1:], len(self._track)) - 1
        track = self._track[head]
        last_cell = np.searchsorted(track, track, "right") - 1
        back = last_cell - np.arange(len(track))
        kept = back < KEPT
        place = (
            tracks.slot[track[kept]],
            tracks.place[track[kept]] * KEPT + KEPT - 1 - back[kept],
        )
        for name, column in self._cells(head, tail).items():
            slots[_column(name)][place] = column[kept]
        self._keep_newest()

    def _cells(self, head: Ints, tail: Ints) -> dict[str, NDArray[Any]]:
        data = self._data
        cells = {name: np.add.reduceat(data[name], head) for name in _SUMMED}
        cells["time"] = data["time"][tail]
        cells["least"] = np.minimum.reduceat(data["least"], head)
        cells["most"] = np.maximum.reduceat(data["most"], head)
        cells["first"] = data["first"][head]
        cells["last"] = data["last"][tail]
        return cells

    def _keep_newest(self) -> None:
        tracks, slots = self._tracks, self._slots
        filled = np.flatnonzero(self._end > self._begin)
        newest = self._end[filled] - 1
        place = (tracks.slot[filled], tracks.place[filled])
        slots["covered_since_ns"][place] = self._since[newest]
        slots["followed_ns"][place] = self._data["time"][newest]
        value = self._data["last"]
        start = seg.starts_of(seg.heads(self._track))
        usable = np.isfinite(value) & self._is_new
        held = seg.forward_fill(value, usable, start, self._counter()[self._track])
        slots["counter"][place] = held[newest]


def _column(name: str) -> str:
    return "cell_time_ns" if name == "time" else f"cell_{name}"


def _samples(
    feed: Feed, row: Ints, track: Ints, tracks: Tracks, counter: Floats
) -> dict[str, NDArray[Any]]:
    """Single samples as elements, ordered by (track, time)."""
    usable = feed.usable[row] & (np.abs(feed.value[row]) <= VALUE_MAX)
    value = np.where(usable, feed.value[row] + 0.0, np.nan)  # + 0.0: -0.0 and 0.0 are one number
    summed = np.where(usable, value, 0.0)
    rises = tracks.of_rises[track]
    if rises.any():
        start = seg.starts_of(seg.heads(track))
        held = seg.forward_fill(value, usable, start, counter[track])
        before = np.where(start == np.arange(len(start)), counter[track], np.roll(held, 1))
        with np.errstate(invalid="ignore"):
            rise = np.where(value >= before, value - before, value)  # else: began anew at zero
        rise = np.where(usable & np.isfinite(before), np.maximum(rise, 0.0), 0.0)
        summed = np.where(rises, rise, summed)
    whole, middle, low = _limbs(summed)
    return {
        "time": feed.time_ns[row],
        "whole": whole,
        "middle": middle,
        "low": low,
        "count": usable.astype(np.int64),
        "bad": (~usable).astype(np.int64),
        "unsure": (feed.quality[row] >= UNCERTAIN).astype(np.int64),
        "least": np.where(usable, value, np.inf),
        "most": np.where(usable, value, -np.inf),
        "first": value,
        "last": value,
    }


def _limbs(value: Floats) -> tuple[Ints, Ints, Ints]:
    """Whole part and two pieces of 30 bits below the point, all of the value's sign."""
    whole = np.trunc(value)
    scaled = (value - whole) * float(1 << _STEP)
    middle = np.trunc(scaled)
    low = np.rint((scaled - middle) * float(1 << _STEP))
    return whole.astype(np.int64), middle.astype(np.int64), low.astype(np.int64)


def _number(whole: Ints, middle: Ints, low: Ints) -> Floats:
    """The sum as the nearest float64 of its whole part plus that of the rest."""
    mask = (1 << _STEP) - 1
    middle = middle + (low >> _STEP)
    whole = whole + (middle >> _STEP)
    rest = ((middle & mask) << _STEP) + (low & mask)
    value: Floats = whole.astype(np.float64) + rest.astype(np.float64) * 2.0 ** (-2 * _STEP)
    return value


def _extreme(values: Floats, low: Ints, high: Ints, better: np.ufunc) -> Floats:
    """The best of values[low..high] for each pair, by tables of doubling reach."""
    reach = np.frexp((high - low + 1).astype(np.float64))[1] - 1
    result = np.full(len(low), np.nan)
    for power in range(int(reach.max(initial=-1)) + 1):
        rows = np.flatnonzero(reach == power)
        result[rows] = better(values[low[rows]], values[high[rows] - (1 << power) + 1])
        size = 1 << power
        values = better(values[:-size], values[size:]) if len(values) > size else values
    return result
