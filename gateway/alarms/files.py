"""Small durable files: written whole or not at all.

    temporary file -> fsync -> rename over the old one -> fsync of the directory

Leave out one of the two syncs and a power cut leaves an empty file under the right name.

Not here: anything appended to.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gateway.model.errors import StorageFault


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, on stable storage when this returns.

    Raises: StorageFault; the old content is then still there.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageFault(f"{path}: {error}") from error


def sync_file(descriptor: int) -> None:
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
