"""Reading back by InfluxQL, which 1.x answers, 2.x for mapped databases, and 3.x.

Rows come grouped by `point` and `dup`, each group in order of time. A slice is planned first (one
count for each point) and then fetched for just the points that fit `rows_max`, so that no answer is
larger than what was asked for, give or take one point. Points of the store that this gateway's
registry does not know are not read.

Not here: what a failed request means (server.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.contract.history import Buckets, HistorySlice, PointName
from gateway.contract.sink import SinkContext
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.model.point import PointTable
from gateway.model.quality import BAD
from gateway.sinks.influxdb.config import InfluxdbConfig
from gateway.sinks.influxdb.lines import id_of, tag_of
from gateway.sinks.influxdb.server import Server
from gateway.sinks.one_thread import OneThread
from gateway.sinks.repeats import Held, spans

_POINTS_PER_QUERY = 200  # longer alternatives of tag values make the parser the slowest part
# 1.x keeps times between these (int64 without the two smallest and the largest value)
_TIME_MIN, _TIME_MAX = -9_223_372_036_854_775_806, 9_223_372_036_854_775_806

T = TypeVar("T")
_Rows = list[tuple[int, int, int, int, int, float]]
"""point, source time, received time, rank, quality, value: sorted, it is in a slice's order."""


class Reader:
    """Queries over one site's measurement. Blocking methods take the server of their thread."""

    def __init__(self, config: InfluxdbConfig, context: SinkContext) -> None:
        self.points: PointTable = context.points
        self._measurement = _identifier(config.measurement)
        self._site = f"site = {_literal(tag_of(context.site))}"
        self._server: Server | None = None
        self._thread: OneThread | None = None

    def attach(self, server: Server) -> None:
        self._server = server
        self._thread = OneThread("influxdb-read")

    async def detach(self) -> None:
        server, self._server = self._server, None
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.end()
        if server is not None:
            await asyncio.to_thread(server.close)

    async def ask(self, call: Callable[[Server], T]) -> T:
        """Run on the reading thread. Raises Unavailable."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            raise Unavailable("the history store is not open")
        return await thread.run(lambda: call(server))

    def newest(
        self, server: Server, points: Sequence[int] | None = None
    ) -> Iterator[tuple[int, int]]:
        """(point_index, newest time) of every point the store holds, or of those asked for."""
        for part in _parts(points):
            where = self._where(part, None)
            for series in self._select(server, "last(quality)", where, "group by point"):
                index = self._index(series)
                if index is not None:
                    yield index, series["values"][0][0]

    def held(self, server: Server, points: NDArray[np.int32], times: NDArray[np.int64]) -> Held:
        """Everything at those (point, time), and what lies between them."""
        rows: _Rows = []
        for low, high in spans(times):
            inside = (times >= low) & (times <= high)
            chosen = np.unique(points[inside]).tolist()
            rows += self.rows(server, chosen, (low, high + 1))
        columns = list(zip(*rows, strict=True)) or [()] * 6
        return Held(
            point_index=np.array(columns[0], np.int32),
            source_time_ns=np.array(columns[1], np.int64),
            rank=np.array(columns[3], np.int64),
            quality=np.array(columns[4], np.uint8),
            value=np.array(columns[5], np.float64),
        )

    def rows(
        self, server: Server, points: Sequence[int], span: tuple[int, int], limit: int = 0
    ) -> _Rows:
        """Rows of the points, unordered; `limit` for each point and rank, 0 for none."""
        found: _Rows = []
        for part in _parts(points):
            series_of = self._select(
                server,
                "value, quality, received",
                self._where(part, span),
                "group by point, dup" + (f" limit {limit}" if limit else ""),
            )
            for series in series_of:
                index = self._index(series)
                if index is None:
                    continue
                rank = int(series["tags"].get("dup") or 0)
                found += [
                    (
                        index,
                        time_ns,
                        time_ns if received is None else received,
                        rank,
                        quality or 0,
                        np.nan if value is None else value,
                    )
                    for time_ns, value, quality, received in series["values"]
                ]
        return found

    def counts(
        self, server: Server, points: Sequence[int] | None, span: tuple[int, int]
    ) -> dict[int, int]:
        """Rows of each point that has any."""
        counts: dict[int, int] = {}
        for part in _parts(points):
            where = self._where(part, span)
            for series in self._select(server, "count(quality)", where, "group by point"):
                index = self._index(series)
                if index is not None:
                    counts[index] = series["values"][0][1]
        return counts

    def trend(self, server: Server, point: int, span: tuple[int, int], buckets: Buckets) -> None:
        """Fill the buckets."""
        width = buckets.width_ns
        every = f"group by time({width}ns, {span[0] % width}ns) fill(none)"
        usable = f"{self._where([point], span)} and quality < {BAD}"
        what = "min(value), max(value), mean(value), last(value), count(value)"
        columns: tuple[NDArray[Any], ...] = (
            buckets.min, buckets.max, buckets.mean, buckets.last, buckets.n,
        )  # fmt: skip
        for series in self._select(server, what, usable, every):
            for time_ns, *found in series["values"]:
                for column, value in zip(columns, found, strict=True):
                    if value is not None:
                        column[(time_ns - span[0]) // width] = value
        where = self._where([point], span)
        for series in self._select(server, "count(quality)", where, every):
            for time_ns, total in series["values"]:
                at = (time_ns - span[0]) // width
                buckets.n_bad[at] = total - buckets.n[at]

    def _select(self, server: Server, what: str, where: str, tail: str) -> list[dict[str, Any]]:
        return server.query(f"select {what} from {self._measurement} where {where} {tail}")  # noqa: S608 - quoted above

    def _where(self, points: Sequence[int] | None, span: tuple[int, int] | None) -> str:
        terms = [self._site]
        if points is not None:
            tags = [_literal(tag_of(self.points[i].id)) for i in points]
            terms.append("(" + " or ".join(f"point = {tag}" for tag in tags) + ")")
        if span is not None:
            low, high = max(span[0], _TIME_MIN), min(span[1], _TIME_MAX)
            terms.append(f"time >= {low} and time < {high}")
        return " and ".join(terms)

    def _index(self, series: dict[str, Any]) -> int | None:
        point_id = id_of(series["tags"]["point"])
        return self.points.index(point_id) if point_id in self.points else None


class InfluxdbHistory:
    """gateway.contract.history.History over InfluxQL."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def read(
        self, points: Sequence[PointName] | None, from_ns: int, to_ns: int, *, rows_max: int
    ) -> HistorySlice:
        assert rows_max > 0, f"rows_max {rows_max}"
        span = (from_ns, to_ns)
        wanted = None if points is None else self._indices(points)

        def plan_and_fetch(server: Server) -> tuple[_Rows, bool]:
            counts = self._reader.counts(server, wanted, span)
            chosen, planned = [], 0
            for index in sorted(counts):
                if planned >= rows_max:
                    break
                chosen.append(index)
                planned += counts[index]
            more = sum(counts.values()) > rows_max
            return self._reader.rows(server, chosen, span, rows_max), more

        if from_ns >= to_ns:
            return HistorySlice.of(Batch.empty())
        rows, truncated = await self._reader.ask(plan_and_fetch)
        rows.sort()
        return HistorySlice.of(_batch(rows[:rows_max]), truncated=truncated)

    async def buckets(self, point: PointName, from_ns: int, to_ns: int, count: int) -> Buckets:
        buckets = Buckets.empty(from_ns, to_ns, count)
        (index,) = self._indices([point])
        span = (from_ns, to_ns)
        await self._reader.ask(lambda server: self._reader.trend(server, index, span, buckets))
        return buckets

    async def latest(self, points: Sequence[PointName]) -> HistorySlice:
        wanted = self._indices(points)

        def fetch(server: Server) -> _Rows:
            newest = dict(self._reader.newest(server, wanted))
            times = np.fromiter(newest.values(), np.int64, len(newest))
            rows: _Rows = []
            for low, high in spans(times):
                there = [i for i, t in newest.items() if low <= t <= high]
                rows += self._reader.rows(server, there, (low, high + 1))
            return [row for row in rows if row[1] == newest[row[0]]]

        last = {row[0]: row for row in sorted(await self._reader.ask(fetch))}
        return HistorySlice.of(_batch(list(last.values())))

    async def count(self) -> int:
        span = (_TIME_MIN, _TIME_MAX)
        counts = await self._reader.ask(lambda server: self._reader.counts(server, None, span))
        return sum(counts.values())

    def _indices(self, points: Iterable[PointName]) -> list[int]:
        table = self._reader.points
        named = {table.index(point) if isinstance(point, str) else point for point in points}
        return sorted(named)


def _parts(points: Sequence[int] | None) -> Iterator[Sequence[int] | None]:
    if points is None:
        yield None
        return
    for begin in range(0, len(points), _POINTS_PER_QUERY):
        yield points[begin : begin + _POINTS_PER_QUERY]


def _batch(rows: _Rows) -> Batch:
    point, time_ns, received, _, quality, value = list(zip(*rows, strict=True)) or [()] * 6
    return Batch.of(point, value, time_ns, received_time_ns=received, quality=quality)


def _identifier(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
