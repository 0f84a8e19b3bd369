"""The sink over the store: threads, housekeeping, and going on after damage.

    writer thread   open, write, close            one at a time, never in the loop
    care thread     settle, delete what is old    beside the writer, on its own connection
    reader thread   history                       reader.py

A damaged file must not stop anything. What cannot be opened is moved aside, never deleted
(`history.duckdb.damaged-<time>`), first only the engine's log, then file and log; a new file is
begun, and it is said loudly: an error in the log, the counter `quarantined`, link status `faulty`
and the `damage` text until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from gateway.contract.sink import SinkContext, WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.duckdb.reader import DuckdbHistory
from gateway.sinks.duckdb.store import Damaged, Store
from gateway.sinks.one_thread import OneThread

log = logging.getLogger(__name__)

DELETE_INTERVAL_NS = 3_600_000_000_000  # 1 h: retention is a matter of days
_DAY_NS = 86_400_000_000_000

T = TypeVar("T")


class DuckdbSink:
    """gateway.contract.sink.SampleSink on one file."""

    def __init__(self, config: DuckdbConfig, context: SinkContext) -> None:
        self._config = config
        self._context = context
        self.path: Path = config.path or context.state_dir / "history.duckdb"
        self.damage = ""  # what was found damaged and where it was put, "" for nothing
        self._store: Store | None = None
        self._history = DuckdbHistory(context.points)
        self._writer: OneThread | None = None
        self._care: asyncio.Task[None] | None = None
        self._recent_rows = 0
        self._deleted_ns = 0

    @property
    def history(self) -> DuckdbHistory:
        return self._history

    async def open(self) -> None:
        """Open or create the file. Raises Unavailable (held by another process, no disk) and
        Refused (another gateway's file, or a newer program's)."""
        if self._writer is None:
            self._writer = OneThread("history-write")
        if self._store is None:
            self._store = await self._write_thread(self._open_file)
            self._recent_rows = self._store.recent_rows_at_open
            self._history.attach(self._store)

    async def write(self, batch: Batch, offset: int, *, ahead: bool = False) -> WriteResult:
        """Store what is new. Raises Unavailable: nothing was stored, the next write opens anew."""
        await self.open()
        store = self._store
        assert store is not None, "open left no store"
        stored_offset = store.end_offset
        try:
            written = await self._write_thread(lambda: store.write(batch, offset, ahead=ahead))
        except Unavailable:
            await self._close_store()
            raise
        if written.gap and stored_offset:
            self._context.counters.count("missing", written.gap, reason="offset_gap")
            log.warning(
                "%s: offsets %d to %d never arrived: dropped by the spool, or lost by a damaged "
                "log of the store",
                self._context.name,
                stored_offset,
                stored_offset + written.gap,
            )
        self._recent_rows += written.accepted
        self._start_care(store)
        return WriteResult(accepted=written.accepted, duplicate=written.duplicate)

    async def close(self) -> None:
        await self._close_store()
        if self._writer is not None:
            await self._writer.end()
            self._writer = None

    async def settled(self) -> None:
        """Wait for the housekeeping under way, if any."""
        if self._care is not None:
            await asyncio.shield(self._care)

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        await self.settled()
        await self._history.detach()
        await self._write_thread(store.close)

    async def _write_thread(self, call: Callable[[], T]) -> T:
        assert self._writer is not None, "the sink is not open"
        return await self._writer.run(call)

    # --- housekeeping

    def _start_care(self, store: Store) -> None:
        if self._care is not None and not self._care.done():
            return
        now_ns = self._context.now_ns()
        too_old = self._config.keep_days is not None and (
            now_ns - self._deleted_ns >= DELETE_INTERVAL_NS
        )
        if too_old or self._recent_rows >= self._config.settle_rows:
            self._care = asyncio.create_task(self._take_care(store, now_ns, delete=too_old))

    async def _take_care(self, store: Store, now_ns: int, *, delete: bool) -> None:
        """Never raises: history that is out of order or too long is better than none."""
        try:
            if delete and self._config.keep_days:
                self._deleted_ns = now_ns
                before_ns = now_ns - int(self._config.keep_days * _DAY_NS)
                deleted = await asyncio.to_thread(store.delete_before, before_ns)
                self._context.counters.count("deleted", deleted, reason="keep_days")
            if self._recent_rows >= self._config.settle_rows:
                self._recent_rows -= await asyncio.to_thread(store.settle)
        except duckdb.Error:
            self._context.counters.count("care_failed")
            log.exception("%s: housekeeping failed; tried again later", self._context.name)

    # --- damage

    def _open_file(self) -> Store:
        """The store, in a new file if need be. Runs on the writer thread."""
        try:
            return self._try_file()
        except Damaged as error:
            damage = error
        wal = self.path.with_name(self.path.name + ".wal")
        for aside in ([wal], [self.path, wal]):
            moved = self._quarantine(aside, damage)
            if not moved:
                continue
            try:
                return self._try_file()
            except Damaged as error:
                damage = error
        raise Unavailable(f"history store {self.path.name}: {damage}")

    def _try_file(self) -> Store:
        return Store(self.path, self._config, self._context.points)

    def _quarantine(self, files: list[Path], damage: Damaged) -> list[Path]:
        """Move those that exist aside; says so everywhere."""
        stamp = self._context.now_ns()
        moved = []
        for file in files:
            if file.exists():
                target = file.with_name(f"{file.name}.damaged-{stamp}")
                file.replace(target)
                moved.append(target)
        if moved:
            names = ", ".join(path.name for path in moved)
            self.damage = f"{damage}; kept as {names}"
            self._context.counters.count("quarantined", len(moved), reason="damaged_file")
            self._context.status("faulty", self.damage)
            log.error("%s: the history file was damaged: %s", self._context.name, self.damage)
        return moved
