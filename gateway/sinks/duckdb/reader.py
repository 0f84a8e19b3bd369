"""Reading back from the embedded store, on a thread and a connection of its own.

Readers see one committed state (a single statement over `recent` and `settled`), never half a
batch, and never hold the writer up. A few queries may wait, one more is told Unavailable
(one_thread.py).

A slice's rows come out of the engine ordered; `rows_max` bounds what reaches Python, the engine's
own memory limit bounds the sort (it spills to its temporary directory). Cancelling the awaiting
task interrupts the query.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.contract.history import Buckets, HistorySlice, PointName
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.model.point import PointTable
from gateway.model.quality import BAD
from gateway.sinks.duckdb.store import COLUMNS, HELD, Store, filled, lookup
from gateway.sinks.one_thread import OneThread
from gateway.sinks.repeats import NEVER

T = TypeVar("T")
_Run = Callable[[duckdb.DuckDBPyConnection], T]


class DuckdbHistory:
    """gateway.contract.history.History over the store that is open at the moment."""

    def __init__(self, points: PointTable) -> None:
        self._points = points
        self._store: Store | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._thread: OneThread | None = None

    def attach(self, store: Store) -> None:
        self._store = store
        self._connection = store.cursor()
        self._thread = OneThread("history-read")

    async def detach(self) -> None:
        """Interrupt what runs and let go of the connection."""
        connection, thread = self._connection, self._thread
        self._store = self._connection = self._thread = None
        if connection is None or thread is None:
            return
        _interrupt(connection)
        await thread.end()
        connection.close()

    async def read(
        self, points: Sequence[PointName] | None, from_ns: int, to_ns: int, *, rows_max: int
    ) -> HistorySlice:
        assert rows_max > 0, f"rows_max {rows_max}"
        wanted = None if points is None else self._indices(points)
        rows = await self._ask(
            lambda connection: _select(connection, wanted, (from_ns, to_ns), rows_max + 1)
        )
        batch = _batch(rows)
        if len(batch) > rows_max:
            return HistorySlice.of(batch.take(slice(0, rows_max)), truncated=True)
        return HistorySlice.of(batch)

    async def buckets(self, point: PointName, from_ns: int, to_ns: int, count: int) -> Buckets:
        buckets = Buckets.empty(from_ns, to_ns, count)
        index = int(self._indices([point])[0])
        rows = await self._ask(
            lambda connection: connection.execute(
                f"""select (source_time_ns - ?) // ? as bucket,
                        min(value) filter (usable) as low, max(value) filter (usable) as high,
                        avg(value) filter (usable) as mean,
                        arg_max(value, (source_time_ns, received_time_ns)) filter (usable) as last,
                        count(*) filter (usable) as n, count(*) as total
                    from (select *, value is not null and quality < {BAD} as usable from {HELD}
                          where point_index = ? and source_time_ns >= ? and source_time_ns < ?)
                    group by bucket""",  # noqa: S608 - only constants of ours are put in
                [from_ns, buckets.width_ns, index, from_ns, to_ns],
            ).fetchnumpy()
        )
        at = filled(rows["bucket"]).astype(np.int64)
        for name, column in (("min", "low"), ("max", "high"), ("mean", "mean"), ("last", "last")):
            getattr(buckets, name)[at] = filled(rows[column])
        buckets.n[at] = rows["n"]
        buckets.n_bad[at] = rows["total"] - rows["n"]
        return buckets

    async def latest(self, points: Sequence[PointName]) -> HistorySlice:
        store = self._open_store()
        wanted = np.unique(self._indices(points))
        wanted = wanted[wanted < len(store.newest)]
        newest = store.newest[wanted]
        some = newest != NEVER
        rows = await self._ask(lambda connection: lookup(connection, wanted[some], newest[some]))
        batch = _batch(rows)
        batch = batch.take(np.argsort(batch.point_index, kind="stable"))  # spans come one by one
        last = np.append(batch.point_index[1:] != batch.point_index[:-1], np.True_)[: len(batch)]
        return HistorySlice.of(batch.take(last))

    async def count(self) -> int:
        rows = await self._ask(
            lambda connection: connection.execute(
                f"select count(*) from {HELD}"  # noqa: S608
            ).fetchone()
        )
        return int(rows[0]) if rows else 0

    def _indices(self, points: Sequence[PointName]) -> NDArray[np.int32]:
        named = [self._points.index(point) if isinstance(point, str) else point for point in points]
        return np.array(named, dtype=np.int32)

    def _open_store(self) -> Store:
        if self._store is None:
            raise Unavailable("the history store is not open")
        return self._store

    async def _ask(self, run: _Run[T]) -> T:
        """Run on the reading thread. Raises Unavailable when closed, crowded or damaged."""
        connection, thread = self._connection, self._thread
        if connection is None or thread is None:
            raise Unavailable("the history store is not open")
        try:
            return await thread.run(
                lambda: run(connection), on_cancel=lambda: _interrupt(connection)
            )
        except duckdb.Error as error:
            raise Unavailable(f"history store: {error}") from error


def _interrupt(connection: duckdb.DuckDBPyConnection) -> None:
    with contextlib.suppress(duckdb.Error):  # closed already, with the store
        connection.interrupt()


def _select(
    connection: duckdb.DuckDBPyConnection,
    wanted: NDArray[np.int32] | None,
    span: tuple[int, int],
    limit: int,
) -> dict[str, NDArray[Any]]:
    clause = "source_time_ns >= ? and source_time_ns < ?"
    if wanted is not None:
        # literals: the engine skips row groups by them
        chosen = ", ".join(map(str, np.unique(wanted).tolist()))
        clause += f" and point_index in ({chosen or 'null'})"
    rows = connection.execute(
        f"""select {COLUMNS} from {HELD} where {clause}
            order by point_index, source_time_ns, received_time_ns limit {limit}""",  # noqa: S608
        list(span),
    ).fetchnumpy()
    return {name: filled(column) for name, column in rows.items()}


def _batch(rows: dict[str, NDArray[Any]]) -> Batch:
    return Batch.of(
        rows["point_index"],
        rows["value"],
        rows["source_time_ns"],
        received_time_ns=rows["received_time_ns"],
        quality=rows["quality"],
    )
