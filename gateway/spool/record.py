"""One batch as bytes: the unit of checksum, and so the most that one damaged byte can cost.

    | "HGB1" | crc32 u32 | start i64 | count u32 | left out u32 |        24 bytes, little-endian
    | source_time_ns i64 × count | received_time_ns i64 × count | value f64 × count |
    | point_index i32 × count | quality u8 × count |

The crc covers everything behind itself, the start row included, so a record that turns up at
another row number (a swapped page, a stale copy) is damage too. Eight-byte columns stand first so
that every column is aligned and is read without copying. `left out` is how many rows before this
one were thinned away (thinning.py): they are missing on purpose.

Owns: the byte layout. Not here: where records are kept (segment.py), how they are found again when
the file around them is broken (salvage.py).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from gateway.model.batch import ROW_BYTES, Batch

MAGIC = b"HGB1"
HEADER = struct.Struct("<4sIqII")
_CRC_FROM = 8  # the crc covers what follows it

ROWS_MAX = 65_536
"""Rows of one record; a larger batch becomes several. 1.9 MB: what one damaged byte may cost."""

_LAYOUT: tuple[tuple[str, np.dtype[np.generic]], ...] = (
    ("source_time_ns", np.dtype("<i8")),
    ("received_time_ns", np.dtype("<i8")),
    ("value", np.dtype("<f8")),
    ("point_index", np.dtype("<i4")),
    ("quality", np.dtype("u1")),
)


class DamagedRecord(ValueError):
    """These bytes are not a whole record."""


def size_of(count: int) -> int:
    """Bytes of a record of `count` rows."""
    return HEADER.size + ROW_BYTES * count


def encode(start: int, batch: Batch, left_out: int = 0) -> bytes:
    """`batch` as the record whose first row is number `start`."""
    columns = b"".join(getattr(batch, name).tobytes() for name, _ in _LAYOUT)
    head = HEADER.pack(MAGIC, 0, start, len(batch), left_out)
    crc = zlib.crc32(columns, zlib.crc32(head[_CRC_FROM:]))
    return HEADER.pack(MAGIC, crc, start, len(batch), left_out) + columns


def peek(body: bytes) -> tuple[int, int]:
    """Start and count as the header claims, unchecked. Raises DamagedRecord when it cannot be."""
    if len(body) < HEADER.size:
        raise DamagedRecord("shorter than its header")
    magic, _, start, count, _ = HEADER.unpack_from(body)
    if magic != MAGIC or start < 0 or not 0 < count <= ROWS_MAX:
        raise DamagedRecord("not a record header")
    return start, count


def left_out(body: bytes) -> int:
    """How many rows right before a whole record are missing on purpose."""
    return int(HEADER.unpack_from(body)[4])


def decode(body: bytes) -> tuple[int, Batch]:
    """Start row and batch. Raises DamagedRecord, whatever the bytes are."""
    start, count = peek(body)
    if len(body) != size_of(count):
        raise DamagedRecord("wrong size")
    if zlib.crc32(memoryview(body)[_CRC_FROM:]) != HEADER.unpack_from(body)[1]:
        raise DamagedRecord("checksum")
    columns, offset = {}, HEADER.size
    for name, dtype in _LAYOUT:
        columns[name] = np.frombuffer(body, dtype, count, offset)
        offset += dtype.itemsize * count
    return start, Batch(**columns)
