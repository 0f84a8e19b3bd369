"""The few things the spool asks of the operating system, in one place so that a test can refuse.

Owns: how SQLite is opened, and the explicit syncs. Memory mapping stays off: a bad sector under a
mapped page kills the process with SIGBUS, under a read it is an error.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

PAGE_BYTES = 4096  # fixed, so that salvage knows where pages begin when the header is gone
PARTIAL = ".part"  # ends the name of a file that is not yet what its name says
BUSY_TIMEOUT_S = 5.0  # only ever waits for a reader's statement or a checkpoint of ours


class Disk:
    """The real one."""

    def connect(
        self, path: Path, *, read_only: bool = False, immutable: bool = False
    ) -> sqlite3.Connection:
        """A connection in autocommit; transactions are written out where they are meant."""
        mode = "ro" if read_only else "rwc"
        uri = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if immutable else "")
        db = self._open(uri)
        db.text_factory = bytes  # damaged text must not raise a decoding error
        return db

    def _open(self, uri: str) -> sqlite3.Connection:
        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
        )

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` and sync it."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(descriptor)

    def sync_directory(self, directory: Path) -> None:
        """Make the directory's entries durable: a new file is not there after a power cut else."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def free_bytes(self, directory: Path) -> int:
        """What the file system has left for a process without privileges."""
        figures = os.statvfs(directory)
        return figures.f_bavail * figures.f_frsize

    def copy(self, source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
