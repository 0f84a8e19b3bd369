"""Reading the whole store from another process: columns as arrays, span by span of receipt.

    settled   |run 1: point 0 … n|run 2: point 0 … n| …       every run covers a span of receipt,
    receipt    ╰── zone maps ──╯   ╰── zone maps ──╯          so a span reads its own runs only

**While the gateway runs** it holds the file: the engine lets one process in. Then a copy is read:
database and log are copied as they stand, and again if the engine folded its log meanwhile (its
header says so). A copy costs the file's size on disk, beside the file or wherever TMPDIR points,
and is gone when the scan is closed. Nothing the running gateway does is waited for or delayed.

The spans are cut so that about `ROWS` rows come at once, whatever the density; the width follows
what the last span held.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from gateway.contract.sink import SinkContext
from gateway.model.batch import COLUMNS as BATCH_COLUMNS
from gateway.model.batch import Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import PointTable
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.duckdb.store import COLUMNS, FORMAT, HELD

ROWS = 1_500_000
ROWS_MAX = 4 * ROWS  # of one span, 220 MB; more of them are read as two spans
_PIECE_ROWS = 61_440  # half a row group of the engine; half a megabyte of a column
_RUN_ROWS_MIN = 20_000  # of a run on average; fewer and spans need not end where they do
_FIRST_WIDTH_NS = 600 * 1_000_000_000
_LONG_NS = 10 * 366 * 86_400 * 1_000_000_000
_COPY_TRIES = 5
_HEADER_BYTES = 3 * 4096  # the engine's main header and its two database headers


class DuckdbScan:
    """gateway.contract.history.Scan over one file."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, copy: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        """Use `open`."""
        self._connection = connection
        self._copy = copy
        self._rows_read = 0  # by the last span: about as many as by the next

    @property
    def is_copy(self) -> bool:
        """The gateway is running: what it has stored since the copy is not seen."""
        return self._copy is not None

    @classmethod
    def open(cls, config: DuckdbConfig, context: SinkContext) -> DuckdbScan:
        """Raises Refused when there is no store, it is another gateway's or a newer program's;
        Unavailable when it can be neither opened nor copied."""
        path = config.path or context.state_dir / "history.duckdb"
        if not path.is_file():
            raise Refused(f"{path}: no history is stored here")
        copy = None
        try:
            try:
                connection = _connected(path, config)
            except duckdb.Error as error:
                if "Could not set lock" not in str(error):
                    raise
                copy = _copied(path)
                context.status("copied", f"the gateway has {path} open: a copy is read")
                connection = _connected(Path(copy.name) / path.name, config)
        except duckdb.Error as error:
            if copy is not None:
                copy.cleanup()
            raise Unavailable(f"history store {path.name}: {error}") from error
        scan = cls(connection, copy)
        try:
            scan._check(context.points, path)
        except BaseException:
            scan.close()
            raise
        return scan

    def _check(self, points: PointTable, path: Path) -> None:
        (found,) = self._connection.execute("select format from consumed").fetchone() or (0,)
        if found > FORMAT:
            raise Refused(f"{path}: the history file has format {found}; this reads {FORMAT}")
        stored = self._connection.execute("select id from point order by point_index").fetchall()
        known = [point.id for point in points][: len(stored)]
        if known != [point_id for (point_id,) in stored]:
            raise Refused(
                f"{path}: numbers its points differently from this site's registry (data_dir)"
            )

    def close(self) -> None:
        with suppress(duckdb.Error):
            self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()

    def span(self) -> tuple[int, int] | None:
        row = self._run(
            f"select min(received_time_ns), max(received_time_ns) from {HELD}"  # noqa: S608
        ).fetchone()
        return None if row is None or row[0] is None else (int(row[0]), int(row[1]))

    def batches(
        self, from_ns: int, to_ns: int, points: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        at_ns, end_ns = from_ns, to_ns
        if to_ns - from_ns > _LONG_NS:  # else asking costs more than passing over what is empty
            span = self.span()
            if span is None:
                return
            at_ns, end_ns = max(from_ns, span[0]), min(to_ns, span[1] + 1)
        width_ns = _FIRST_WIDTH_NS
        runs = _RunStarts()
        while at_ns < end_ns:
            next_ns = min(runs.end_of(at_ns, width_ns), end_ns)
            batch = self._read(_clause(at_ns, next_ns, points))
            size = len(batch)
            if size > ROWS_MAX and next_ns - at_ns > 1:
                width_ns = max(1, (next_ns - at_ns) // 2)
                runs = _RunStarts()
                continue
            if size:
                runs.note(batch)
                yield batch
            # towards ROWS, at most eight times wider at once: the next hour may be a busy one
            factor = min(8.0, ROWS / max(size, 1))
            width_ns = max(1, int((next_ns - at_ns) * max(factor, 0.125)))
            at_ns = next_ns

    def _read(self, where: str) -> Batch:
        """Through Arrow in pieces, each copied while it is near the core: a third of the time of
        `fetchnumpy`. The megabytes of one piece for all would be given by the system anew, page
        by page, every time."""
        query = f"select {COLUMNS} from {HELD} where {where} limit {ROWS_MAX + 1}"  # noqa: S608
        taken = _Columns(self._rows_read)
        try:
            for rows in self._connection.cursor().sql(query).to_arrow_reader(_PIECE_ROWS):
                taken.add(rows)
        except (duckdb.Error, pa.ArrowException) as error:
            raise Unavailable(f"history store: {error}") from error
        self._rows_read = taken.size
        return taken.batch()

    def _run(
        self, statement: str, values: Sequence[object] | None = None
    ) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(statement, list(values or ()))
        except duckdb.Error as error:
            raise Unavailable(f"history store: {error}") from error


class _Columns:
    """The columns of a batch while they are filled."""

    def __init__(self, rows_expected: int) -> None:
        rows = rows_expected + rows_expected // 8 + _PIECE_ROWS
        self._columns = [np.empty(rows, dtype) for _, dtype in BATCH_COLUMNS]
        self.size = 0

    def add(self, rows: pa.RecordBatch) -> None:
        start, stop = self.size, self.size + len(rows)
        if stop > len(self._columns[0]):
            self._columns = [np.resize(column, 2 * stop) for column in self._columns]
        for (name, _), column in zip(BATCH_COLUMNS, self._columns, strict=True):
            found = rows.column(name)
            if found.null_count:  # NULL is NaN here
                found = found.fill_null(np.nan)
            column[start:stop] = found.to_numpy()
        self.size = stop

    def batch(self) -> Batch:
        return Batch(*(column[: self.size] for column in self._columns))


class _RunStarts:
    """When runs of the store begin, as far as they were seen: a span that ends where a run does
    reads one run, any other two of them. A guess about what comes: it moves no row."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._period_ns = 0

    def note(self, batch: Batch) -> None:
        point, received_ns = batch.point_index, batch.received_time_ns
        begins = np.flatnonzero(point[1:] < point[:-1]) + 1
        if not len(begins) or len(begins) * _RUN_ROWS_MIN > len(batch):
            return
        last_ns = int(received_ns[begins[-1] :].min())
        if self._last_ns is not None and len(begins) == 1:
            self._period_ns = last_ns - self._last_ns
        elif len(begins) > 1:
            self._period_ns = last_ns - int(received_ns[begins[-2] : begins[-1]].min())
        self._last_ns = last_ns

    def end_of(self, at_ns: int, width_ns: int) -> int:
        """Where a span of about this width ends: a little wider or narrower, if a run does."""
        end_ns = at_ns + width_ns
        if self._last_ns is None or self._period_ns <= 0:
            return end_ns
        ahead = (at_ns + width_ns + width_ns // 8 - self._last_ns) // self._period_ns
        found_ns = self._last_ns + ahead * self._period_ns
        return found_ns if found_ns > at_ns + width_ns // 8 else end_ns


def _clause(from_ns: int, to_ns: int, points: Sequence[int] | None) -> str:
    """Literals, not parameters: the engine skips row groups by them."""
    clause = f"received_time_ns >= {int(from_ns)} and received_time_ns < {int(to_ns)}"
    if points is not None:
        chosen = ", ".join(str(int(point)) for point in sorted(set(points)))
        clause += f" and point_index in ({chosen or 'null'})"
    return clause


def _connected(path: Path, config: DuckdbConfig) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        path,
        read_only=True,
        config={
            "threads": config.threads,
            "memory_limit": f"{config.memory_limit_mb}MB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
        },
    )


def _copied(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Database and log as of one moment. Raises Unavailable: no room, or it is folded all the
    time."""
    log = path.with_name(path.name + ".wal")
    need = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    if shutil.disk_usage(tempfile.gettempdir()).free < need + (256 << 20):
        raise Unavailable(
            f"{path} is open in the running gateway and {need >> 20} MB for a copy are not free in "
            f"{tempfile.gettempdir()}: stop the gateway, or set TMPDIR to a larger disk"
        )
    for _ in range(_COPY_TRIES):
        folder = tempfile.TemporaryDirectory(prefix="hazard-gateway-history-")
        try:
            before = _header(path)
            shutil.copyfile(path, Path(folder.name) / path.name)
            if log.exists():
                shutil.copyfile(log, Path(folder.name) / log.name)
            if _header(path) == before:
                return folder
        except FileNotFoundError:  # the log was folded between the two
            folder.cleanup()
            continue
        except OSError as error:
            folder.cleanup()
            raise Unavailable(f"{path}: cannot be copied ({error.strerror})") from error
        folder.cleanup()
    raise Unavailable(f"{path}: the gateway writes too fast to copy it; try again, or stop it")


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)
