"""The database file: opening, writing exactly once, putting in order, deleting what is too old.

    recent    rows in order of arrival, some more than `settle_rows`
    settled   the same rows, moved in runs sorted by (point, time): reading a point's day touches a
              few row groups instead of all (20 times faster on 20 M rows; a million rows take
              about 0.4 s on a connection of their own, beside the writer)
    point     point_index -> id, so that the file explains itself and notices a foreign registry
    consumed  one row: the spool offset up to which the store holds everything

Durability: a write is one transaction with the offset in it; the engine syncs its log
(`<file>.wal`) at every commit, and folds it into the file when it has grown to `wal_limit_mb`.
Repeats are recognised by what they are, not by the offset (gateway/sinks/repeats.py). The offset
serves to notice that rows are missing: the engine takes a damaged beginning of its log for a torn
tail and drops it without a word.

A value of NaN is stored as NULL (the engine's numpy reader knows no difference).

All methods block; the sink runs each group on a thread of its own. Not here: reading back
(reader.py), what a damaged file means for the sink (sink.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import PointTable
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.repeats import (
    Held,
    Occupied,
    grown,
    sift,
    spans,
)

FORMAT = 1
"""Grows with every change an older program could not read."""

COLUMNS = "point_index, source_time_ns, value, quality, received_time_ns"
HELD = f"(select {COLUMNS} from recent union all select {COLUMNS} from settled)"  # noqa: S608
_SAMPLE_TABLE = """(
    point_index integer not null, source_time_ns bigint not null, value double,
    quality utinyint not null, received_time_ns bigint not null)"""
_SCHEMA = (
    f"create table if not exists recent {_SAMPLE_TABLE}",
    f"create table if not exists settled {_SAMPLE_TABLE}",
    "create table if not exists point(point_index integer not null, id varchar not null)",
    "create table if not exists consumed(end_offset bigint not null, format integer not null)",
    f"insert into consumed select 0, {FORMAT} where not exists (from consumed)",
)
# What the engine says when the file is fine and the surroundings are not. Everything else at open
# is damage (tried with DuckDB 2.0: wrong checksum, not a database, too short, bad log entry).
_SURROUNDINGS = (
    "Could not set lock",
    "Cannot open file",
    "Permission denied",
    "Is a directory",
    "No space left",
    "Input/output error",
    "Read-only file system",
    "Too many open files",
)


class Damaged(Exception):
    """The file cannot be read as a database. Never leaves the sink."""


@dataclass(frozen=True)
class Written:
    """What became of one batch; `gap` offsets before it never arrived here."""

    accepted: int
    duplicate: int
    gap: int


class Store:
    """One open database file."""

    def __init__(self, path: Path, config: DuckdbConfig, points: PointTable) -> None:
        """Raises Unavailable (held by another process, no disk), Refused, Damaged."""
        self._points = points
        self._connection = _connect(path, config)
        self._care = self._connection.cursor()
        self._delete_lock = threading.Lock()  # settling and deleting touch the same rows
        try:
            self._prepare()
        except duckdb.Error as error:
            self.close()
            raise Damaged(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        for statement in _SCHEMA:
            run(statement)
        self.end_offset, found = _row(run("select end_offset, format from consumed"))
        if found > FORMAT:
            raise Refused(f"the history file has format {found}; this program reads {FORMAT}")
        stored = run("select id from point order by point_index").fetchall()
        self._known_points = len(stored)
        known = [self._points[i].id for i in range(min(len(self._points), len(stored)))]
        if known != [point_id for (point_id,) in stored]:
            raise Refused(
                "the history file numbers its points differently from this gateway's registry: "
                "it belongs to another gateway, or the registry was lost; move the file away"
            )
        newest = grown(np.empty(0, np.int64), max(len(self._points), 64))
        held = run(
            f"select point_index, max(source_time_ns) as newest from {HELD} group by 1"  # noqa: S608
        ).fetchnumpy()
        newest[held["point_index"]] = held["newest"]
        self._occupied = Occupied(newest)
        self.recent_rows_at_open = _row(run("select count(*) from recent"))[0]

    @property
    def newest(self) -> NDArray[np.int64]:
        """The newest source time held of each point, NEVER for none."""
        return self._occupied.newest

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same file, for another thread."""
        return self._connection.cursor()

    def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> Written:
        """Store what is new of `batch`, which ends at `offset`, in one synced transaction. Rows
        that run `ahead` leave the stored offset where those behind them are.

        Raises Unavailable: nothing of the batch is stored; the store should be opened anew.
        """
        self._occupied.grow(len(self._points))
        follows = bool(len(batch)) and not ahead
        gap = max(0, offset - len(batch) - self.end_offset) if follows else 0
        try:
            sifted = sift(batch, self._occupied, self._lookup)
            new = batch if len(sifted.rows) == len(batch) else batch.take(sifted.rows)
            # new rows below the stored offset: the spool began again, and its count is followed
            end_offset = offset if len(new) else max(offset, self.end_offset)
            end_offset = self.end_offset if ahead else end_offset
            self._commit(new, end_offset)
        except duckdb.Error as error:
            raise Unavailable(f"history store: {error}") from error
        self.end_offset = end_offset
        self._occupied.note(new, ahead=ahead)
        if not len(batch):
            self._occupied.end_ahead()
        return Written(accepted=len(new), duplicate=len(batch) - len(new), gap=gap)

    def _commit(self, new: Batch, end_offset: int) -> None:
        run = self._connection.execute
        size = len(self._points)
        run("begin")
        try:
            if size > self._known_points:
                named = range(self._known_points, size)
                run(
                    "insert into point select unnest(?), unnest(?)",
                    [list(named), [self._points[i].id for i in named]],
                )
            if len(new):
                _insert(self._connection, new)
            if end_offset != self.end_offset:
                run("update consumed set end_offset = ?", [end_offset])
            run("commit")
        except BaseException:
            _try(run, "rollback")
            raise
        self._known_points = size

    def _lookup(self, points: NDArray[np.int32], times: NDArray[np.int64]) -> Held:
        return _held(lookup(self._connection, points, times))

    def fill(self, batch: Batch) -> None:
        """Rows made elsewhere, straight into `settled`: ordered by (point, source time), none of
        them held, none older than what is held of its point. One transaction."""
        run = self._connection.execute
        run("begin")
        try:
            _insert(self._connection, batch, "settled")
            run("commit")
        except BaseException:
            _try(run, "rollback")
            raise
        self._occupied.note(batch)

    def settle(self) -> int:
        """Move what is in `recent` now into `settled`, sorted. Runs beside writes; returns rows."""
        run = self._care.execute
        with self._delete_lock:
            run("begin")
            try:
                # one snapshot: rows written meanwhile are neither moved nor deleted
                moved = _row(
                    run(
                        f"insert into settled select {COLUMNS} from recent "  # noqa: S608
                        "order by point_index, source_time_ns, received_time_ns"
                    )
                )[0]
                deleted = _row(run("delete from recent"))[0]
                assert moved == deleted, f"{moved} rows copied, {deleted} deleted"
                run("commit")
            except BaseException:
                _try(run, "rollback")
                raise
        return int(moved)

    def delete_before(self, received_ns: int) -> int:
        """Delete samples received earlier. Runs beside writes; returns how many."""
        deleted = 0
        with self._delete_lock:
            for table in ("settled", "recent"):
                deleted += _row(
                    self._care.execute(
                        f"delete from {table} where received_time_ns < ?",  # noqa: S608
                        [received_ns],
                    )
                )[0]
        return deleted

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        for connection in (self._care, self._connection):
            _try(connection.close)


def lookup(
    connection: duckdb.DuckDBPyConnection,
    points: NDArray[np.int32],
    times: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """All columns of every row held at one of the (point, time) pairs, in order of receipt."""
    parts = []
    for low, high in spans(times):
        inside = (times >= low) & (times <= high)
        wanted = {"p": points[inside], "t": times[inside]}
        parts.append(
            connection.execute(
                f"""select {COLUMNS} from {HELD} held semi join wanted
                    on held.point_index = wanted.p and held.source_time_ns = wanted.t
                    where held.source_time_ns between ? and ?
                    order by point_index, source_time_ns, received_time_ns""",  # noqa: S608
                [low, high],
            ).fetchnumpy()
        )
        del wanted  # the engine finds it by name in this frame
    if not parts:
        parts.append(connection.execute(f"select {COLUMNS} from recent limit 0").fetchnumpy())  # noqa: S608
    return {
        name: np.concatenate([filled(part[name]) for part in parts]) for name in COLUMNS.split(", ")
    }


def filled(column: Any) -> NDArray[Any]:
    """A fetched column as a plain array: NULL becomes NaN."""
    if isinstance(column, np.ma.MaskedArray):
        return np.asarray(column.filled(np.nan))
    return np.asarray(column)


def _held(rows: dict[str, NDArray[Any]]) -> Held:
    return Held(
        point_index=rows["point_index"],
        source_time_ns=rows["source_time_ns"],
        value=rows["value"],
        quality=rows["quality"],
        rank=np.arange(len(rows["quality"]), dtype=np.int64),  # only needs to be ≥ 0 here
    )


def _insert(connection: duckdb.DuckDBPyConnection, new: Batch, table: str = "recent") -> None:
    arrived = {
        "point_index": new.point_index,
        "source_time_ns": new.source_time_ns,
        "value": new.value,
        "quality": new.quality,
        "received_time_ns": new.received_time_ns,
    }
    connection.execute(f"insert into {table} select {COLUMNS} from arrived")  # noqa: S608
    del arrived  # the engine finds it by name in this frame


def _connect(path: Path, config: DuckdbConfig) -> duckdb.DuckDBPyConnection:
    options: dict[str, str | bool | int | float | list[str]] = {
        "threads": config.threads,
        "memory_limit": f"{config.memory_limit_mb}MB",
        "temp_directory": str(path.with_name(path.name + ".tmp")),
        "wal_autocheckpoint": f"{config.wal_limit_mb}MB",
        "autoinstall_known_extensions": "false",  # a gateway never fetches code by itself
        "autoload_known_extensions": "false",
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return duckdb.connect(path, config=options)
    except OSError as error:
        raise Unavailable(f"history store {path.name}: {error.strerror}") from error
    except duckdb.OutOfMemoryException as error:
        raise Unavailable(f"history store {path.name}: {error}") from error
    except duckdb.Error as error:
        if any(sign in str(error) for sign in _SURROUNDINGS):
            raise Unavailable(f"history store {path.name}: {error}") from error
        if "version number" in str(error):  # written by a newer engine
            raise Refused(f"history store {path.name}: {error}") from error
        raise Damaged(str(error)) from error


def _row(connection: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    row = connection.fetchone()
    assert row is not None, "the statement returned no row"
    return row


def _try(call: Callable[..., object], *arguments: object) -> None:
    """Call, whatever the engine says: used on the way out, where the first error counts."""
    try:
        call(*arguments)
    except duckdb.Error:
        return
