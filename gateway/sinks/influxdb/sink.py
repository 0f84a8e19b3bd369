"""The sink: what is new, cut into requests, poison rows set apart.

    batch -> sift (repeats.py; asks the store only about rows it might hold already)
          -> lines (lines.py) -> requests of `lines_per_request` -> accepted, or bisected

Of a refused request the lines that the answer names (answers.py) are taken out and the rest is sent
again; where it names none the request is halved until the refused lines stand alone. They are
reported by row with the server's reason. p of n lines cost about 2 p log2(n / p) requests, 2 n - 1
at the very most. When the server says it dropped exactly as many lines as it was sent, all are
reported without asking again. A store that cannot be asked (`read_back = "none"`) gets every row:
equal rows overwrite themselves there, and ties are told apart only inside one batch.

Rows already sent when a later request finds the server away are sent again with the whole batch:
same point, time and tags, so nothing changes. What is held is noted only after the whole batch.

Not here: back-off (the runtime's).
"""

from __future__ import annotations

import asyncio
import re
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gateway.contract.sink import SinkContext, WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.sinks.influxdb.answers import named_lines
from gateway.sinks.influxdb.config import InfluxdbConfig
from gateway.sinks.influxdb.lines import LineWriter
from gateway.sinks.influxdb.reader import InfluxdbHistory, Reader
from gateway.sinks.influxdb.server import RowsRefused, Server
from gateway.sinks.one_thread import OneThread
from gateway.sinks.repeats import NEVER, Occupied, sift

_DROPPED = re.compile(r"dropped=(\d+)\s*$")


class InfluxdbSink:
    """gateway.contract.sink.SampleSink on an InfluxDB."""

    def __init__(self, config: InfluxdbConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self._server: Server | None = None
        self._writer: OneThread | None = None
        self._reader = Reader(config, context)
        self._occupied: Occupied | None = None
        self._history = InfluxdbHistory(self._reader) if config.read_back == "influxql" else None
        self._lines = LineWriter(
            measurement=config.measurement,
            site=context.site,
            points=context.points,
            with_received=config.received_time == "field",
        )

    @property
    def history(self) -> InfluxdbHistory | None:
        return self._history

    async def open(self) -> None:
        """Connects lazily: a server that is away is noticed, and waited for, at the first write."""
        if self._server is None:
            self._server = Server(self._config, self._context.now_ns)
            self._writer = OneThread("influxdb-write")
            self._reader.attach(Server(self._config, self._context.now_ns))
            self._occupied = None

    async def write(
        self,
        batch: Batch,
        offset: int,  # noqa: ARG002 - a row is known by what it is
        *,
        ahead: bool = False,
    ) -> WriteResult:
        """Store what is new. Raises Unavailable: send the same again."""
        server, writer = self._server, self._writer
        if server is None or writer is None:
            raise Unavailable("the sink is not open")
        return await writer.run(lambda: self._write(server, batch, ahead=ahead))

    async def close(self) -> None:
        server, self._server = self._server, None
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.end()
        if server is not None:
            await asyncio.to_thread(server.close)
        await self._reader.detach()

    # --- on the writer thread

    def _write(self, server: Server, batch: Batch, *, ahead: bool) -> WriteResult:
        if not len(batch):  # nothing older is to come
            if self._occupied is not None:
                self._occupied.end_ahead()
            return WriteResult(accepted=0)
        if self._occupied is None:
            self._occupied = Occupied(self._newest_stored(server))
        self._occupied.grow(len(self._context.points))
        asks = self._config.read_back == "influxql"
        lookup = partial(self._reader.held, server) if asks else None
        sifted = sift(batch, self._occupied, lookup)
        lines, refused = self._lines.lines(batch, sifted)
        rows = sifted.rows.tolist()
        sendable = [i for i, line in enumerate(lines) if line]
        size = self._config.lines_per_request
        for begin in range(0, len(sendable), size):
            chunk = sendable[begin : begin + size]
            for i, reason in _send(server, [lines[i] for i in chunk]):
                refused.append((rows[chunk[i]], reason))
        self._occupied.note(batch, ahead=ahead)
        refused.sort()
        return WriteResult(
            accepted=len(rows) - len(refused),
            duplicate=len(batch) - len(rows),
            rejected=np.array([row for row, _ in refused], dtype=np.int64),
            reasons=[reason for _, reason in refused],
        )

    def _newest_stored(self, server: Server) -> NDArray[np.int64]:
        newest = np.full(max(64, len(self._context.points)), NEVER, np.int64)
        if self._config.read_back == "influxql":
            for index, time_ns in self._reader.newest(server):
                newest[index] = time_ns
        return newest


def _send(server: Server, lines: list[str]) -> list[tuple[int, str]]:
    """Send, singling out what is refused; returns (line number, reason) of the poison lines."""
    try:
        server.write("\n".join(lines).encode())
    except RowsRefused as error:
        if len(lines) == 1 or _all_dropped(error.message, len(lines)):
            return [(i, _reason(error, error.message)) for i in range(len(lines))]
        named = {} if error.status == 413 else named_lines(error.body, lines)
        if named:
            poison = [(i, _reason(error, why)) for i, why in named.items()]
            rest = [i for i in range(len(lines)) if i not in named]
            more = _send(server, [lines[i] for i in rest]) if rest else []
            return poison + [(rest[i], reason) for i, reason in more]
        half = len(lines) // 2
        behind = [(half + i, reason) for i, reason in _send(server, lines[half:])]
        return _send(server, lines[:half]) + behind
    return []


def _all_dropped(message: str, count: int) -> bool:
    found = _DROPPED.search(message)
    return found is not None and int(found[1]) == count


def _reason(error: RowsRefused, text: str) -> str:
    """`word: the server's text`; the word is what is counted by."""
    lowered = f"{text} {error.message}".lower()
    for word, sign in _REASONS:
        if sign in lowered:
            return f"{word}: {text}"
    return f"refused_{error.status}: {text}"


_REASONS = (
    ("field_type_conflict", "type conflict"),
    ("field_type_conflict", "invalid column type"),
    ("beyond_retention", "retention policy"),
    ("tag_limit", "max-values-per-tag"),
    ("series_limit", "max-series-per-database"),
    ("not_parsed", "unable to parse"),
    ("too_large", "too large"),
)
