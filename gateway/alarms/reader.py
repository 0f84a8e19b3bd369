"""Reading a journal without its process: a copy, or one that is being written this moment.

    with JournalReader.open(directory) as reader:
        for page in pages_by_gseq(reader.ask): …

Changes nothing in `journal.db`. Every page is a read of its own, so a long reader never holds up
the writer's log; rows are only ever added, so pages fit together all the same. (SQLite may leave an
empty `journal.db-shm` beside a copy that was made together with its `-wal`.)

Bounded: a page of rows at a time, whatever the size of the journal.

Not here: what is looked for (verify.py, kpi.py), damaged files (salvage.py: only the owner mends).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.alarms.chain import StoredRow
from gateway.alarms.database import DATABASE, read_only
from gateway.model.errors import ConfigError, Fault, StorageFault

PAGE_ROWS = 2000
"""About 3 MB of records: enough that the question costs nothing, little enough to hold."""

Ask = Callable[[str, tuple[Any, ...]], list[Any]]
"""A question in SQL and its values -> rows. `JournalReader.ask`, `Journal.ask`."""


class JournalReader:
    """One read-only connection."""

    def __init__(self, directory: Path, db: sqlite3.Connection) -> None:
        """Use `JournalReader.open`."""
        self.directory = directory
        self._db = db

    @classmethod
    def open(cls, directory: Path) -> JournalReader:
        """Raises: ConfigError if there is no journal; StorageFault if SQLite cannot read it."""
        path = directory / DATABASE
        if not path.is_file():
            raise ConfigError([Fault(str(path), 0, "", "a journal; there is no such file")])
        try:
            return cls(directory, read_only(path))
        except sqlite3.Error as error:
            raise StorageFault(f"{path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def ask(self, question: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Raises: StorageFault."""
        try:
            with contextlib.closing(self._db.execute(question, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise StorageFault(f"{self.directory / DATABASE}: {error}") from error

    def meta(self) -> dict[str, Any]:
        """What the journal notes about itself."""
        return dict(self.ask("SELECT name, value FROM meta"))


def pages_by_gseq(ask: Ask, *, after: int = -(2**63)) -> Iterator[list[StoredRow]]:
    """Every row, in the order it was stored."""
    question = "SELECT * FROM event WHERE gseq > ? ORDER BY gseq LIMIT ?"
    while rows := [StoredRow(*row) for row in ask(question, (after, PAGE_ROWS))]:
        yield rows
        after = rows[-1].gseq


def pages_by_time(ask: Ask, from_ns: int, to_ns: int) -> Iterator[list[StoredRow]]:
    """Every row of what happened in [from_ns, to_ns), in the order it happened."""
    question = (
        "SELECT * FROM event WHERE (time_ns, gseq) > (?, ?) AND time_ns < ?"
        " ORDER BY time_ns, gseq LIMIT ?"
    )
    at: tuple[int, int] = (from_ns - 1, 2**63 - 1)
    while rows := [StoredRow(*row) for row in ask(question, (*at, to_ns, PAGE_ROWS))]:
        yield rows
        at = (rows[-1].time_ns, rows[-1].gseq)
