"""The rule core's state on disk: how far it had read, and its arrays. Two generations.

    | HGCP0001 | generation u64 | offset i64 | gseq i64 | size u64 | SHA-256 | payload |
      `--------------- header, big-endian ---------------------'    `-- of header and payload
    payload: names as one line of JSON, then the arrays as npy, in that order

The older generation is overwritten, never the newer, so a crash while writing, or a damaged newest
file, costs one generation: the rules then read a little further back and repeat conditions, which
the book drops. `gseq` is the journal's head at that time: where numbers went on from, at least, if
the journal is lost.

Surprising: losing both is not an error. The rules start from nothing, as on the first day.

Not here: when to save (the runtime; after the events of everything before `offset` are journalled),
what the arrays mean (alarm_rules).
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.alarms.files import write_whole

_MAGIC = b"HGCP0001"
_HEADER = struct.Struct(">8sQqqQ")
_SUM_SIZE = hashlib.sha256().digest_size
NAMES = ("checkpoint-0", "checkpoint-1")


class Checkpoint(NamedTuple):
    """One generation."""

    generation: int
    offset: int
    gseq: int
    arrays: dict[str, NDArray[Any]]


class _Whole(NamedTuple):
    """One generation whose bytes are what was written."""

    generation: int
    offset: int
    gseq: int
    payload: bytes


class CheckpointFiles:
    """The two files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._paths = [directory / name for name in NAMES]
        self.damaged: list[Path] = []  # found unreadable by the last `load_all`

    def save(self, offset: int, arrays: Mapping[str, NDArray[Any]], *, gseq: int) -> None:
        """Raises: StorageFault; the earlier generations are then untouched."""
        found = self._verified()
        generation = found[0][1].generation + 1 if found else 1
        target = next(path for path in self._paths if not found or path != found[0][0])
        write_whole(target, _pack(Checkpoint(generation, offset, gseq, dict(arrays))))

    def load_all(self) -> list[tuple[Path, Checkpoint]]:
        """Every readable generation, newest first."""
        return [
            (path, Checkpoint(*whole[:3], _arrays(whole.payload)))
            for path, whole in self._verified()
        ]

    def _verified(self) -> list[tuple[Path, _Whole]]:
        """The same, its arrays not looked at: for numpy each has a header to be parsed."""
        found: list[tuple[Path, _Whole]] = []
        self.damaged = []
        for path in self._paths:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError:
                self.damaged.append(path)
                continue
            whole = _verify(data)
            if whole is None:
                self.damaged.append(path)
            else:
                found.append((path, whole))
        return sorted(found, key=lambda pair: -pair[1].generation)


def _pack(checkpoint: Checkpoint) -> bytes:
    body = io.BytesIO()
    body.write(orjson.dumps(list(checkpoint.arrays)) + b"\n")
    for name, array in checkpoint.arrays.items():
        assert not array.dtype.hasobject, f"{name} holds Python objects"
        np.lib.format.write_array(body, np.asarray(array), allow_pickle=False)
    payload = body.getvalue()
    header = _HEADER.pack(_MAGIC, *checkpoint[:3], len(payload))
    return header + hashlib.sha256(header + payload).digest() + payload


def _verify(data: bytes) -> _Whole | None:
    start = _HEADER.size + _SUM_SIZE
    if len(data) < start:
        return None
    magic, generation, offset, gseq, size = _HEADER.unpack_from(data)
    header, payload = data[: _HEADER.size], data[start:]
    found = data[_HEADER.size : start]
    if magic != _MAGIC or len(payload) != size:
        return None
    if hashlib.sha256(header + payload).digest() != found:
        return None
    return _Whole(generation, offset, gseq, payload)


def _arrays(payload: bytes) -> dict[str, NDArray[Any]]:
    body = io.BytesIO(payload)
    names = orjson.loads(body.readline())
    return {name: np.lib.format.read_array(body, allow_pickle=False) for name in names}
