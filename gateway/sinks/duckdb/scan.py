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
        while at_ns < end_ns:
            next_ns = min(at_ns + width_ns, end_ns)
            batch = self._read(_clause(at_ns, next_ns, points))
            size = len(batch)
            if size > ROWS_MAX and width_ns > 1:
                width_ns = max(1, (next_ns - at_ns) // 2)
                continue
            if size:
                yield batch
            at_ns = next_ns
            # towards ROWS, at most eight times wider at once: the next hour may be a busy one
            factor = min(8.0, ROWS / max(size, 1))
            width_ns = max(1, int(width_ns * max(factor, 0.125)))

    def _read(self, where: str) -> Batch:
        """Through Arrow, whose buffers are the batch's columns: half the time of `fetchnumpy`,
        which copies each of them once more."""
        query = f"select {COLUMNS} from {HELD} where {where} limit {ROWS_MAX + 1}"  # noqa: S608
        try:
            # A size above the limit: one record batch for all of them.
            found = self._connection.cursor().sql(query).to_arrow_reader(ROWS_MAX + 1)
            return Batch.concat([_batch(rows) for rows in found])
        except (duckdb.Error, pa.ArrowException) as error:
            raise Unavailable(f"history store: {error}") from error

    def _run(
        self, statement: str, values: Sequence[object] | None = None
    ) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(statement, list(values or ()))
        except duckdb.Error as error:
            raise Unavailable(f"history store: {error}") from error


def _batch(rows: pa.RecordBatch) -> Batch:
    columns = {name: rows.column(name) for name, _ in BATCH_COLUMNS}
    value = columns["value"]
    # NULL is NaN here; where there is none, the usual case, nothing is copied.
    columns["value"] = value.fill_null(np.nan) if value.null_count else value
    return Batch(
        **{
            name: columns[name].to_numpy().astype(dtype, copy=False)
            for name, dtype in BATCH_COLUMNS
        }
    )


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
