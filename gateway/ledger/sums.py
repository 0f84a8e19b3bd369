"""Figures of a span by point, that add up: named columns over all points.

due got min_due min_on                        what was owed and met; point-minutes
good bad repeat delayed late odd_clock        rows, as counted
gap.<reason> dark.<reason>                    samples missing; minutes without any
has|<consumer> <reason>|<consumer>            rows it has, rows it has not and why
last_on                                       the newest minute it was seen (not a sum)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.cells import Array, pack, unpack

LAST_ON = "last_on"


class Sums:
    """Columns by name; absent is zero. They grow with the points."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._columns: dict[str, NDArray[np.int64]] = {}

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        found = self._columns.get(name)
        return np.zeros(self.size, np.int64) if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._columns))

    def add(self, name: str, values: Array) -> None:
        if not values.any():
            return
        self._grow(len(values))
        column = self._columns.setdefault(name, np.zeros(self.size, np.int64))
        part = column[: len(values)]
        np.maximum(part, values, out=part) if name == LAST_ON else np.add(part, values, out=part)

    def add_all(self, other: Sums) -> None:
        self._grow(other.size)
        for name in other:
            self.add(name, other[name])

    def _grow(self, size: int) -> None:
        if size > self.size:
            for name, column in self._columns.items():
                self._columns[name] = np.pad(column, (0, size - self.size))
            self.size = size

    def packed(self) -> bytes:
        return pack(self._columns)

    @classmethod
    def unpacked(cls, body: bytes) -> Sums:
        """Raises ValueError."""
        sums = cls()
        for name, column in unpack(body).items():
            sums.add(name, column.astype(np.int64))
        return sums
