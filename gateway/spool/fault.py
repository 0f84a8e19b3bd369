"""A disk that fails: what kind of failure it is, and when it is worth another try.

After any failed write or sync the file it happened to is poisoned: what the disk holds of the
failed group is unknown, and a second sync of the same file may call clean what never arrived. So
nothing is ever written to that file again. The writer goes on with a **new** file once the disk
takes one; until then every append is refused at once.

Two failures are for good: an inconsistency of ours, and another process that took the spool over.

Owns: kinds and pauses. Not here: what is poisoned and made anew (writer.py).
"""

from __future__ import annotations

import enum
import errno
import sqlite3
from dataclasses import dataclass

from gateway.model.errors import StorageFault


class FaultKind(enum.StrEnum):
    """Why nothing is accepted."""

    FULL = "full"  # no space, no inode, or the quota is spent
    READ_ONLY = "read_only"  # remounted so, which is what ext4 does after an error of its own
    IO = "io"  # a write or a sync failed
    FENCED = "fenced"  # another process has the spool: for good
    BROKEN = "broken"  # an invariant of ours does not hold: for good


class Fenced(Exception):
    """Another process opened the spool after this one."""


_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_PERMANENT = frozenset((FaultKind.FENCED, FaultKind.BROKEN))


def kind_of(error: Exception) -> FaultKind:
    """SQLite's codes and the system's, sorted by what can be done about it."""
    if isinstance(error, Fenced):
        return FaultKind.FENCED
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        by_code = {
            sqlite3.SQLITE_FULL: FaultKind.FULL,
            sqlite3.SQLITE_READONLY: FaultKind.READ_ONLY,
        }
        return by_code.get(code, FaultKind.IO)
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return FaultKind.FULL
        return FaultKind.READ_ONLY if error.errno == errno.EROFS else FaultKind.IO
    return FaultKind.BROKEN


@dataclass(frozen=True, slots=True)
class SpoolFault:
    """One failure that has not been overcome yet."""

    kind: FaultKind
    error: StorageFault
    began_s: float  # monotonic

    @property
    def is_permanent(self) -> bool:
        return self.kind in _PERMANENT


class Pause:
    """How long to leave a failed disk alone: doubled with every try that fails."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def take(self) -> float:
        """The pause before the next try."""
        pause_s = self._next_s
        self._next_s = min(self._max_s, 2 * pause_s)
        return pause_s

    def reset(self) -> None:
        """The disk has kept a group of rows."""
        self._next_s = self._first_s
