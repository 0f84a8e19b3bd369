"""What was counted of one minute: a few columns over all points, and which offsets they came from.

    good · bad · repeat                           came in time
    good_delayed · bad_delayed · repeat_delayed   came later than `delayed_after_s`
    late · odd_clock                              of the above: out of order; placed by receipt

The first six part the rows: each row is in exactly one of them. Packed, a column that is all zero
is absent and the others take the narrowest integer they fit, so a minute of ten thousand points
that report as they should costs a hundred bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.uint32]
Array: TypeAlias = NDArray[Any]

NO_OFFSET = -1
_LEVEL = 6  # zlib; 9 gains two in a hundred and costs three times as much (measured)
_HEAD = struct.Struct("<160s4sI")  # name, dtype, size; names repeat, so they pack to nothing


class Column(IntEnum):
    """What is counted for each point and minute."""

    GOOD = 0  # not bad: good or uncertain
    BAD = 1
    REPEAT = 2
    GOOD_DELAYED = 3
    BAD_DELAYED = 4
    REPEAT_DELAYED = 5
    LATE = 6
    ODD_CLOCK = 7


IN_TIME = (Column.GOOD, Column.BAD, Column.REPEAT)
DELAYED = (Column.GOOD_DELAYED, Column.BAD_DELAYED, Column.REPEAT_DELAYED)


class Span:
    """First and last offset of some rows; empty while `first` is NO_OFFSET."""

    __slots__ = ("first", "last")

    def __init__(self, first: int = NO_OFFSET, last: int = NO_OFFSET) -> None:
        self.first = first
        self.last = last

    def widen(self, first: int, last: int) -> None:
        if first == NO_OFFSET:
            return
        self.first = first if self.first == NO_OFFSET else min(self.first, first)
        self.last = max(self.last, last)


class Cells:
    """One minute. Columns appear when something is counted in them."""

    __slots__ = ("columns", "delayed", "in_time", "size")

    def __init__(self, size: int) -> None:
        self.size = size  # points
        self.columns: dict[Column, Counts] = {}
        self.in_time = Span()  # the offsets of rows that came in time
        self.delayed = Span()

    def column(self, column: Column) -> Counts:
        """The column, made if it is not there."""
        found = self.columns.get(column)
        if found is None:
            found = self.columns[column] = np.zeros(self.size, np.uint32)
        return found

    def grow(self, size: int) -> None:
        if size > self.size:
            for name, column in self.columns.items():
                self.columns[name] = np.concatenate([column, np.zeros(size - self.size, np.uint32)])
            self.size = size

    def add(self, other: Cells) -> None:
        """Count what `other` counted too."""
        self.grow(other.size)
        for name, column in other.columns.items():
            self.column(name)[: len(column)] += column
        self.in_time.widen(other.in_time.first, other.in_time.last)
        self.delayed.widen(other.delayed.first, other.delayed.last)

    @property
    def size_bytes(self) -> int:
        return 4 * self.size * len(self.columns)

    def packed(self) -> bytes:
        return pack({str(int(name)): column for name, column in self.columns.items()})

    @classmethod
    def unpacked(cls, body: bytes, in_time: Span, delayed: Span) -> Cells:
        """Raises ValueError for bytes that are none of ours."""
        arrays = unpack(body)
        cells = cls(max((len(column) for column in arrays.values()), default=0))
        cells.in_time, cells.delayed = in_time, delayed
        for name, column in arrays.items():
            cells.column(Column(int(name)))[: len(column)] = column
        return cells


def pack(arrays: Mapping[str, Array], *, level: int = _LEVEL) -> bytes:
    """Named one-dimensional arrays; integers are narrowed, arrays of zeros left out."""
    parts = []
    for name, array in arrays.items():
        if not array.any():
            continue
        narrow = _narrowed(array)
        parts += [_HEAD.pack(name.encode(), narrow.dtype.str.encode(), narrow.size)]
        parts += [narrow.tobytes()]
    return zlib.compress(b"".join(parts), level)


def unpack(body: bytes) -> dict[str, Array]:
    """What `pack` was given, less what was all zero. Raises ValueError for anything else."""
    try:
        data = zlib.decompress(body)
        arrays, at = {}, 0
        while at < len(data):
            name, dtype, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            kind = np.dtype(dtype.rstrip(b"\0").decode())
            arrays[name.rstrip(b"\0").decode()] = np.frombuffer(data, kind, size, at)
            at += size * kind.itemsize
    except (zlib.error, struct.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not packed arrays: {error}") from error
    return arrays


def _narrowed(array: Array) -> Array:
    if array.dtype.kind not in "iu":
        return array
    low, high = int(array.min()), int(array.max())
    signed = low < 0
    for name in ("i1", "i2", "i4") if signed else ("u1", "u2", "u4"):
        info = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return array.astype("<" + name if name[1] != "1" else name)
    return array.astype("<i8" if signed else "<u8")
