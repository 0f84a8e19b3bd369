"""Copies of damaged files, kept for whoever must find out why. Bounded, and never in the way.

A copy that cannot be made (the disk is full, the limit is reached) is skipped: evidence is worth
less than running on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from gateway.spool.disk import Disk
from gateway.spool.salvage import wal_path

FILES_MAX = 32  # of at most one segment's size each: the oldest evidence is the best, it stays


class Quarantine:
    """The folder `quarantine/` of one spool."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk

    def copy(self, path: Path) -> int:
        """Copy the file and its log, unless they are here already. How many files were copied."""
        copied = 0
        for source in (path, wal_path(path)):
            target = self._directory / source.name
            if not source.exists() or target.exists() or not self._has_room():
                continue
            partial = target.with_name(target.name + ".part")
            try:
                self._disk.copy(source, partial)
                partial.rename(target)
                copied += 1
            except OSError:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
        return copied

    def move(self, path: Path) -> int:
        """Take a file that is not ours out of the way. Raises OSError when even that fails."""
        self._directory.mkdir(exist_ok=True)
        for source in (path, wal_path(path)):
            if source.exists():
                source.rename(self._free_name(source))
        return 1

    def _free_name(self, source: Path) -> Path:
        target, again = self._directory / source.name, 0
        while target.exists():
            again += 1
            target = self._directory / f"{source.name}.{again}"
        return target

    def _has_room(self) -> bool:
        try:
            self._directory.mkdir(exist_ok=True)
            return sum(1 for _ in self._directory.iterdir()) < FILES_MAX
        except OSError:
            return False
