"""Rows of any order into the order of time, in bounded memory, never cutting one instant in two.

    batches ─▶ runs of RUN_ROWS, each sorted ─▶ merged by time ─▶ batches of about `batch_rows`
               (memory; from the second run on, files)

Rows of equal time keep the order they came in, and stand in one batch: the rule core takes them as
one step. The bound is RUN_ROWS rows of 21 bytes, several times over while they are sorted (about
250 MB); beyond one run the rest waits in `folder`, 21 bytes a row.

Not here: reading files (recording.py), rows that carry a time of receipt (receipt and measurement
are one here).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch

RUN_ROWS = 2_000_000
_COLUMNS = ("source_time_ns", "point_index", "value", "quality")

Run = tuple[NDArray[Any], ...]
"""The columns of one sorted run, in the order of _COLUMNS."""


class TimeSort:
    """Takes batches in, gives them back in order. Use once."""

    def __init__(self, folder: Path, *, run_rows: int = RUN_ROWS) -> None:
        """`folder` exists and takes the runs that do not fit."""
        self._folder = folder
        self._run_rows = run_rows
        self._pending: list[Batch] = []
        self._pending_rows = 0
        self._runs: list[Run] = []
        self.row_count = 0

    def add(self, batch: Batch) -> None:
        self._pending.append(batch)
        self._pending_rows += len(batch)
        self.row_count += len(batch)
        if self._pending_rows >= self._run_rows:
            self._runs.append(self._written(self._sorted_run()))

    def batches(self, batch_rows: int) -> Iterator[Batch]:
        """Everything in order of time, in batches that end between two instants."""
        if self._pending:
            self._runs.append(self._sorted_run())
        for block in _merged(self._runs, max(batch_rows, self._run_rows // 4)):
            yield from _cut(block, batch_rows)

    def _sorted_run(self) -> Run:
        batch = Batch.concat(self._pending)
        self._pending, self._pending_rows = [], 0
        order = np.argsort(batch.source_time_ns, kind="stable")
        return tuple(getattr(batch, name)[order] for name in _COLUMNS)

    def _written(self, run: Run) -> Run:
        files = []
        for name, column in zip(_COLUMNS, run, strict=True):
            path = self._folder / f"run-{len(self._runs):05d}-{name}.npy"
            np.save(path, column)
            files.append(np.load(path, mmap_mode="r"))
        return tuple(files)


def _merged(runs: Sequence[Run], rows: int) -> Iterator[Run]:
    """Blocks of about `rows` rows; each ends at an instant that no later block has rows of."""
    at = [0] * len(runs)
    share = max(1, rows // max(len(runs), 1))
    while any(at[i] < len(run[0]) for i, run in enumerate(runs)):
        beyond = [
            run[0][at[i] + share] for i, run in enumerate(runs) if at[i] + share < len(run[0])
        ]
        parts = []
        for i, run in enumerate(runs):
            end = len(run[0])
            if beyond:
                end = at[i] + int(np.searchsorted(run[0][at[i] :], min(beyond), side="right"))
            parts.append([column[at[i] : end] for column in run])
            at[i] = end
        columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        yield tuple(column[order] for column in columns)


def _cut(block: Run, rows: int) -> Iterator[Batch]:
    time_ns = block[0]
    start = 0
    while start < len(time_ns):
        end = start + rows
        if end < len(time_ns):
            end = start + int(np.searchsorted(time_ns[start:], time_ns[end - 1], side="right"))
        time, point, value, quality = (np.array(column[start:end]) for column in block)
        yield Batch(point, value, quality, time, time.copy())
        start = end


def sort_by_time(batches: Iterable[Batch], folder: Path) -> TimeSort:
    """All of `batches` taken in."""
    whole = TimeSort(folder)
    for batch in batches:
        whole.add(batch)
    return whole
