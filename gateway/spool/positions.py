"""Where each consumer is: a small file of two slots, written in turn and synced each time.

    slot 0 at 0, slot 1 at 32 KiB, each:
    | "HGP1" | crc32 u32 | generation u64 | size u32 | JSON, `size` bytes |    crc: all behind it

The valid slot of the higher generation counts; a torn write costs the newest generation only, and
an older position means rows come twice, never that they are missed. Before rows are forgotten the
state is written into **both** slots, so that falling back never points at rows already gone.

When no slot is valid although the spool holds rows, every consumer begins at the oldest row again
(`reset`): twice rather than never.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from gateway.spool.disk import PARTIAL, Disk
from gateway.spool.fault import Fenced

SLOT_BYTES = 32_768
_HEAD = struct.Struct("<4sIQI")
_MAGIC = b"HGP1"
_CRC_FROM = 8


@dataclass(frozen=True, slots=True)
class State:
    """What must be known to start without reading a payload."""

    spool_id: str = ""
    head: int = 0  # durable rows when this was written: at least so many were given out
    forgotten: int = 0  # rows below this were committed by every consumer and deleted
    cursors: dict[str, int] = field(default_factory=dict)
    epoch: int = 0  # one more with every start: who finds a newer one has been overtaken


class Positions:
    """The file, open. Used by one thread at a time (the writer's)."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._disk = disk
        self._path = path
        self.is_poisoned = False  # a write failed: this file is not written again, see `renew`
        existed = path.exists() and path.stat().st_size > 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        found = [self._read(slot) for slot in (0, 1)] if existed else []
        valid = [pair for pair in found if pair is not None]
        self.damaged = existed and not valid
        self.missing = not existed
        self._generation, self.state = max(valid, default=(0, State()), key=lambda pair: pair[0])

    def write(self, state: State) -> None:
        """Durable on return. Raises OSError; nothing more is then written before `renew`."""
        assert not self.is_poisoned, "the file failed before"
        generation = self._generation + 1
        slot = _slot(state, generation)
        try:
            self._disk.write_at(self._descriptor, slot, SLOT_BYTES * (generation % 2))
        except BaseException:
            self.is_poisoned = True
            raise
        self._generation, self.state = generation, state

    def write_twice(self, **changes: object) -> None:
        """Into both slots: neither of them knows less afterwards."""
        state = replace(self.state, **changes)  # type: ignore[arg-type]
        self.write(state)
        self.write(state)

    def check_ours(self) -> None:
        """Raises Fenced when another process has opened the spool since, OSError when the file has
        gone from under its name: it is then made anew as after a failed write."""
        held = os.fstat(self._descriptor)
        try:
            found = self._path.stat()
        except OSError:
            self.is_poisoned = True
            raise
        if (found.st_ino, found.st_dev) != (held.st_ino, held.st_dev):
            raise Fenced(f"{self._path}: another process has put its own there")
        if any(self._generation_of(slot) > self._generation for slot in (0, 1)):
            for newer in (self._read(0), self._read(1)):
                if newer is not None and newer[1].epoch > self.state.epoch:
                    raise Fenced(f"{self._path}: another process opened the spool after this one")

    def _generation_of(self, slot: int) -> int:
        """As its head claims, unchecked: this is asked twice for every group of rows."""
        head = os.pread(self._descriptor, _HEAD.size, SLOT_BYTES * slot)
        return int(_HEAD.unpack(head)[2]) if len(head) == _HEAD.size else -1

    def renew(self) -> None:
        """A new file in the place of the one that failed. Raises OSError: the old one is then
        there as it was."""
        partial = self._path.with_name(self._path.name + PARTIAL)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o640)
        try:
            for generation in (self._generation + 1, self._generation + 2):
                slot = _slot(self.state, generation)
                self._disk.write_at(descriptor, slot, SLOT_BYTES * (generation % 2))
            self._disk.rename(partial, self._path)
            self._disk.sync_directory(self._path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._generation = descriptor, self._generation + 2
        self.is_poisoned = False

    def close(self) -> None:
        os.close(self._descriptor)

    def _read(self, slot: int) -> tuple[int, State] | None:
        """Generation and state of one slot, None when it is not whole."""
        try:
            data = os.pread(self._descriptor, SLOT_BYTES, SLOT_BYTES * slot)
            magic, crc, generation, size = _HEAD.unpack_from(data)
            text = data[_HEAD.size : _HEAD.size + size]
            if magic != _MAGIC or crc != zlib.crc32(data[_CRC_FROM : _HEAD.size] + text):
                return None
            return generation, State(**json.loads(text))
        except (OSError, struct.error, ValueError, TypeError):
            return None


def _slot(state: State, generation: int) -> bytes:
    text = json.dumps(asdict(state)).encode()
    head = _HEAD.pack(_MAGIC, 0, generation, len(text))
    crc = zlib.crc32(head[_CRC_FROM:] + text)
    slot = _HEAD.pack(_MAGIC, crc, generation, len(text)) + text
    assert len(slot) <= SLOT_BYTES, f"{len(state.cursors)} consumers do not fit in a slot"
    return slot
