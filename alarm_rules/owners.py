"""What many rows share, once: a rule of a hundred thousand points has one set of levels for all of
them, a hundred thousand rules have one each, and both fill their columns at the same price.

    by_width([a, a, b, c], [2, 2, 2, 3])     widths 2: a and b, rows 0 1 2, of whom 0 0 1
                                             width 3: c, row 3, of whom 0

Shared means the same object: to compare a hundred thousand sets of levels costs more than it
spares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Owned(NamedTuple, Generic[T]):
    """Things of one width, each once, and who has which."""

    width: int
    things: list[T]  # in the order in which they came first
    rows: NDArray[np.int64]  # places in what was given, ascending
    owner: NDArray[np.int64]  # of each of those rows, its place in `things`


def by_width(given: Sequence[T], widths: Iterable[int]) -> Iterator[Owned[T]]:
    """The things of one width at a time, the narrowest first."""
    count = len(given)
    width_of = np.fromiter(widths, np.int64, count)
    ids = np.fromiter(map(id, given), np.int64, count)
    _, first, number = np.unique(ids, return_index=True, return_inverse=True)
    for width in np.unique(width_of).tolist():
        rows = np.flatnonzero(width_of == width)
        used, owner = np.unique(first[number[rows]], return_inverse=True)
        yield Owned(width, [given[place] for place in used.tolist()], rows, owner)
