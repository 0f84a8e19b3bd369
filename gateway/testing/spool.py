"""The spool's contract as a check, and a disk that fails on order.

`check_spool` drives any object with the spool's interface through one life: append, read, commit,
close, open again. `FailingDisk` is a real disk until its n-th durable operation, which fails before
or after having been done; everything later fails too, as on a disk that has gone. `MoodyDisk`
fails while it is told to.

Row numbers are made visible: row i carries value i, so what comes back can be checked by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool.disk import BUSY_TIMEOUT_S, Disk
from gateway.spool.spool import Chunk, Cursor, Spool

EPOCH_NS = 1_700_000_000_000_000_000


def numbered(first: int, rows: int) -> Batch:
    """A batch whose rows carry the numbers [first, first + rows) in every column."""
    at = np.arange(first, first + rows)
    return Batch.of(
        at % 1000,
        at.astype(float),
        EPOCH_NS + at,
        received_time_ns=EPOCH_NS + 2 * at,
        quality=at % 256,
    )


def check_chunk(chunk: Chunk) -> None:
    """Every column of `chunk` carries its row numbers."""
    assert chunk.start < chunk.end
    assert chunk.batch == numbered(chunk.start, chunk.end - chunk.start), chunk.start


def drain(cursor: Cursor, rows_max: int = 100) -> list[int]:
    """Read what there is, checked; the row numbers that came."""
    rows: list[int] = []
    while (chunk := cursor.read(rows_max)) is not None:
        assert len(chunk.batch) <= rows_max
        check_chunk(chunk)
        assert not rows or chunk.start > rows[-1], "order"
        rows.extend(range(chunk.start, chunk.end))
    return rows


async def check_spool(factory: Callable[[], Spool]) -> None:
    """The contract. `factory` opens the same, at first empty, directory each time."""
    spool = factory()
    assert (spool.head, spool.oldest) == (0, 0)
    early = spool.cursor("early")
    assert early.read(10) is None

    ends = [await spool.append(numbered(0, 3)), spool.append_now(list(_sized(3, [1, 0, 6])))]
    assert ends == [3, 10] == [3, spool.head]
    assert await spool.append(Batch.empty()) == 10

    while early.position < 4:  # a chunk may be shorter than asked for, never longer
        at = early.position
        chunk = await early.next(4 - at)
        check_chunk(chunk)
        assert at == chunk.start < chunk.end == early.position <= 4
    assert drain(early) == list(range(4, 10))
    late = spool.cursor("late")
    await early.commit(7)
    early.rewind()
    assert early.position == 7
    await early.seek(9)
    assert drain(early) == [9]
    _refuses(lambda: early.commit_now(6), AssertionError)

    assert drain(late) == list(range(10)), "a new consumer begins at the oldest row kept"
    assert spool.stats().depth == {"early": 3, "late": 10}
    _refuses(factory, StorageFault)
    await spool.close()
    _refuses(lambda: spool.append_now([numbered(10, 1)]), StorageFault)

    again = factory()
    try:
        assert again.head == 10
        assert again.cursor("early").committed == 7
        assert drain(again.cursor("early"), 2) == [7, 8, 9]
        assert drain(again.cursor("late")) == list(range(10))
        assert await again.append(numbered(10, 1)) == 11
        assert drain(again.cursor("late")) == [10]
        again.drop_cursor("late")
        assert again.cursor_names() == ["early"]
    finally:
        await again.close()


def _sized(first: int, sizes: Iterable[int]) -> Iterable[Batch]:
    for size in sizes:
        yield numbered(first, size)
        first += size


def _refuses(call: Callable[[], object], error: type[BaseException]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")


class FailingDisk(Disk):
    """Fails the n-th durable operation (1-based) and all after it.

    `when` says whether the n-th itself was still done before the error came back: a sync that
    failed after its bytes had reached the disk looks the same from here.
    """

    def __init__(self, fail_at: int, when: Literal["before", "after"] = "before") -> None:
        self.fail_at = fail_at
        self.when = when
        self.count = 0

    def step(self, do: Callable[[], Any], error: Exception) -> Any:
        """One durable operation."""
        self.count += 1
        if self.count < self.fail_at:
            return do()
        if self.count == self.fail_at and self.when == "after":
            do()
        raise error

    def _open(self, uri: str) -> sqlite3.Connection:
        disk = self

        class Failing(sqlite3.Connection):
            def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                durable = sql == "COMMIT" or "wal_checkpoint" in sql
                result = (
                    disk.step(lambda: super(Failing, self).execute(sql, *rest), _io_error())
                    if durable
                    else super().execute(sql, *rest)
                )
                assert isinstance(result, sqlite3.Cursor)
                return result

            def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
                result = disk.step(lambda: super(Failing, self).executemany(sql, rows), _io_error())
                assert isinstance(result, sqlite3.Cursor)
                return result

        return sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_S,
            factory=Failing,
        )

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        self.step(lambda: super(FailingDisk, self).write_at(descriptor, data, offset), _os_error())

    def sync_directory(self, directory: Path) -> None:
        self.step(lambda: super(FailingDisk, self).sync_directory(directory), _os_error())

    def unlink(self, path: Path) -> None:
        self.step(lambda: super(FailingDisk, self).unlink(path), _os_error())


class MoodyDisk(FailingDisk):
    """Fails durable operations with `error` while that is set; has as much room as `free` says."""

    def __init__(self) -> None:
        super().__init__(0)
        self.error: Exception | None = None
        self.free = 1 << 40

    def step(self, do: Callable[[], Any], error: Exception) -> Any:
        """One durable operation; which error it would have been does not matter."""
        del error
        if self.error is not None:
            raise self.error
        return do()

    def free_bytes(self, directory: Path) -> int:
        del directory
        return self.free


def _io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


def _os_error() -> OSError:
    return OSError(5, "Input/output error")
