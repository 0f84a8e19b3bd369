"""The few array primitives every rule kind is made of. Pure numpy, no loop over rows.

A *segment* is a run of rows with the same key (a rule instance, a group); rows are ordered by
(key, time). `start[i]` is the first row of the segment row i belongs to.

    key    3 3 3 7 7        start  0 0 0 3 3
    mask   . x . . x        last_true -> -1 1 1 -1 4

The primitive is the *segmented last true*, one running maximum: hysteresis is "what did the last
row that said anything say", forward fill is "the value at the last row that had one", and a delay
is hysteresis over runs instead of rows: the output is the value of the last run that lasted.

Not here: what a row means (kinds/), state between calls (program.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

_RADIX_KEYS = 1 << 16
"""numpy sorts uint16 by counting (radix): 6 times faster than the comparison sort of wider keys."""


def sort_stable(key: NDArray[np.integer[Any]], limit: int) -> Index:
    """The stable order of keys in [0, limit), by one or two counting passes where they fit."""
    if limit <= _RADIX_KEYS:
        return np.argsort(key.astype(np.uint16), kind="stable")
    if limit <= _RADIX_KEYS * _RADIX_KEYS:
        order = np.argsort((key & 0xFFFF).astype(np.uint16), kind="stable")
        high = (key[order] >> 16).astype(np.uint16)
        return order[np.argsort(high, kind="stable")]
    return np.argsort(key, kind="stable")


def is_ascending(key: NDArray[Any], *, strictly: bool = False) -> bool:
    """Whether each is at least (strictly: more than) the one before it."""
    compare = np.greater if strictly else np.greater_equal
    return int(np.count_nonzero(compare(key[1:], key[:-1]))) == max(len(key) - 1, 0)


def as_slice(rows: Index) -> Index | slice:
    """Rows that are a range, as a slice: nothing need be copied."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and is_ascending(rows, strictly=True):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def is_numbering(column: Index) -> bool:
    """Whether it says 0, 1, 2, …"""
    return bool(np.array_equal(column, np.arange(len(column))))


def _sort_by_runs(key: NDArray[np.integer[Any]], limit: int) -> Index:
    """`sort_stable`; where equal keys stand together, runs are sorted instead of rows."""
    head = np.flatnonzero(heads(key))
    if 2 * len(head) > len(key):
        return sort_stable(key, limit)
    order = sort_stable(key.take(head), limit)
    count = np.diff(np.append(head, len(key))).take(order)
    end = np.cumsum(count)
    found = np.arange(len(key))
    found += np.repeat(head.take(order) - (end - count), count)
    return found


def group_sort(key: NDArray[np.integer[Any]], time: NDArray[np.int64], limit: int) -> Index:
    """The order by (key, time), equal ones as they stood. Cheap when the times of each key already
    ascend: numbers of 64 bits are slow to sort."""
    order = _sort_by_runs(key, limit)
    key, sorted_time = key.take(order), time.take(order)
    if bool(((sorted_time[1:] >= sorted_time[:-1]) | (key[1:] != key[:-1])).all()):
        return order
    return order[np.lexsort((sorted_time, key))]


def heads(*keys: NDArray[Any]) -> Mask:
    """True on the first row of each run of equal keys (of all given columns together)."""
    size = len(keys[0])
    first = np.ones(size, dtype=bool)
    if size > 1:
        first[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            first[1:] |= key[1:] != key[:-1]
    return first


def starts_of(first: Mask) -> Index:
    """For each row the index of its segment's first row."""
    return np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))


def picked(table: NDArray[T], rows: Index) -> NDArray[T]:
    """`table[rows]`, in the order in memory the table has."""
    if table.ndim == 2 and table.flags.f_contiguous:  # `take` would copy all of it first
        return table.T.take(rows, axis=1).T
    return table.take(rows, axis=0)


def flat(table: NDArray[T]) -> NDArray[T]:
    """A table that lies column by column as one row, the columns one after another: a view."""
    return table.T.reshape(-1)


def rows_of(table: NDArray[T], rows: Index) -> NDArray[T]:
    """`table[rows]` for strictly ascending rows: the table itself when that is every row of it."""
    return table if len(rows) == len(table) else picked(table, rows)


def write_rows(table: NDArray[T], rows: Index, values: NDArray[T]) -> None:
    """`table[rows] = values` for strictly ascending rows."""
    if len(rows) == len(table):
        table[:] = values
    else:
        table[rows] = values


def last_true(mask: Mask, start: Index) -> Index:
    """For each row the newest row at or before it, in its segment, where `mask` holds; else -1.

    `mask` may have a second axis (levels); every column is its own question.
    """
    row = np.arange(len(mask))
    if mask.ndim == 2:
        row, start = row[:, None], start[:, None]
    newest = np.maximum.accumulate(np.where(mask, row, -1), axis=0)
    return np.where(newest >= start, newest, -1)


def forward_fill(value: NDArray[T], known: Mask, start: Index, carried: NDArray[T]) -> NDArray[T]:
    """Each row's value, or the last known one of its segment, or `carried` (one for each row)."""
    newest = last_true(known, start)
    if value.ndim == 2:
        held = np.take_along_axis(value, np.maximum(newest, 0), axis=0)
    else:
        held = value[np.maximum(newest, 0)]
    return np.where(newest >= 0, held, carried)


def before(after: NDArray[T], start: Index, carried: NDArray[T]) -> NDArray[T]:
    """Each row's predecessor in its segment; of a segment's first row `carried`."""
    found = np.empty_like(after)
    found[1:] = after[:-1]
    first = start == np.arange(len(start))
    found[first] = carried[first]
    return found


def expand(counts: Index) -> tuple[Index, Index]:
    """(owner, ordinal) for each of `counts[i]` things owner i has: [2, 1] -> [0 0 1], [0 1 0]."""
    owner = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    return owner, np.arange(len(owner)) - np.repeat(ends - counts, counts)


def gather_lists(
    start: Index, members: Index, owners: NDArray[np.integer[Any]]
) -> tuple[Index, Index]:
    """Of a compressed list of lists: (position in `owners`, member) for every member of each."""
    counts = start[owners + 1] - start[owners]
    owner, ordinal = expand(counts)
    return owner, members[start[owners[owner]] + ordinal]


def only_members(start: Index, members: Index) -> Index | None:
    """Of a compressed list of lists: the one member of each, -1 for none; None if one has two."""
    counts = np.diff(start)
    if counts.max(initial=0) > 1:
        return None
    only = np.full(len(counts), -1, np.int64)
    only[counts > 0] = members
    return only


def compress_lists(owner: Index, count: int, member: Index) -> tuple[Index, Index]:
    """The compressed list of lists (start, members) from (owner, member) pairs in any order."""
    order = sort_stable(owner, max(count, 1))
    start = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=count), out=start[1:])
    return start, member[order]


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """The condition after every step, and where it changed."""

    state: Mask
    edge: Mask


def hysteresis(set_: Mask, reset: Mask, start: Index, carried: Mask) -> Hysteresis:
    """`set_` raises, `reset` clears, both: raises, neither: holds. `carried` is the state before
    each row's segment, one for each row."""
    newest = last_true(set_ | reset, start)
    said = np.take_along_axis(set_, np.maximum(newest, 0), axis=0)
    state = np.where(newest >= 0, said, carried)
    return Hysteresis(state, state != before(state, start, carried))


@dataclass(frozen=True, slots=True)
class Debounced:
    """Of each run: whether it lasted, and whether the output changed with it."""

    lasted: Mask
    before: Mask  # the output before the run
    changed: Mask
    effect_ns: NDArray[np.int64]  # when the output takes the run's value, exact


def debounce(  # noqa: PLR0917  the columns of one table
    value: Mask,
    begin_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
    delay_ns: NDArray[np.int64],
    start: Index | None,
    carried: Mask,
) -> Debounced:
    """Delays as hysteresis over runs: a run counts once it lasted its delay, from begin + delay on.

    Runs are ordered by (key, begin); `end_ns` is the next run's begin or the time known up to.
    A run that ends exactly when its delay does has lasted. `start` None: no key has two runs.
    """
    effect_ns = begin_ns + delay_ns
    lasted = end_ns >= effect_ns
    output = carried
    if start is not None:
        output = before(forward_fill(value, lasted, start, carried), start, carried)
    return Debounced(lasted, output, lasted & (value != output), effect_ns)
