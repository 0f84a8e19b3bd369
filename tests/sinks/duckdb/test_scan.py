"""A scan reads every row once, in order of receipt, and never from another gateway's file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.sink import SinkContext
from gateway.model.batch import Batch
from gateway.model.errors import Refused
from gateway.model.point import Point, PointTable
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.sinks.duckdb import scan as module
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.duckdb.scan import DuckdbScan
from gateway.sinks.duckdb.store import Store

S = 1_000_000_000
T0 = 1_767_225_600 * S
CONFIG = DuckdbConfig()


def context(folder, names=("a", "b", "c")) -> SinkContext:
    table = PointTable()
    for name in names:
        table.put(Point(id=name))
    return SinkContext(
        name="store", tenant="t", site="s", points=table, now_ns=lambda: T0,
        counters=CounterTable().component("store"), status=StatusCell("store"), state_dir=folder,
    )  # fmt: skip


def rows_of(batches) -> list[tuple]:
    return [
        row
        for batch in batches
        for row in zip(
            batch.point_index.tolist(), batch.source_time_ns.tolist(),
            [str(v) for v in batch.value.tolist()], batch.quality.tolist(),
            batch.received_time_ns.tolist(), strict=True,
        )
    ]  # fmt: skip


def stored(folder, parts, *, settle=False) -> Batch:
    """Each part written, and settled where asked for."""
    made = context(folder)
    store = Store(folder / "history.duckdb", CONFIG, made.points)
    end = 0
    for part in parts:
        end += len(part)
        store.write(part, end)
        if settle:
            store.settle()
    store.close()
    return Batch.concat(parts)


def part(*rows) -> Batch:
    point, time, value, received = zip(*rows, strict=True)
    return Batch.of(
        point, value, [T0 + t * S for t in time], received_time_ns=[T0 + r * S for r in received]
    )


PARTS = [
    part((0, 0, 1.0, 0), (1, 0, np.nan, 1), (0, 1, 2.0, 2)),
    part((2, 0, 5.0, 900), (0, 2, 3.0, 901), (0, 3, 3.0, 5_000)),
]


@pytest.mark.parametrize("settle", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 1_000])
def test_spans_of_any_width_hold_every_row_once_in_order_of_receipt(
    settle, rows, tmp_path, monkeypatch
) -> None:
    whole = stored(tmp_path, PARTS, settle=settle)
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "ROWS_MAX", 8 * rows)
    scan = DuckdbScan.open(CONFIG, context(tmp_path))
    assert scan.span() == (T0, T0 + 5_000 * S)
    batches = list(scan.batches(0, 1 << 62))
    assert sorted(rows_of(batches)) == sorted(rows_of([whole]))
    for before, after in zip(batches, batches[1:], strict=False):  # noqa: RUF007
        assert before.received_time_ns.max() < after.received_time_ns.min()
    assert rows_of(scan.batches(T0 + 2 * S, T0 + 901 * S, [0, 2])) == [
        row for row in rows_of(scan.batches(T0 + 2 * S, T0 + 901 * S)) if row[0] in {0, 2}
    ]
    assert rows_of(scan.batches(0, 1 << 62, [])) == []
    scan.close()


def runs_of(lengths, points=4) -> list[Batch]:
    """One part for each run: every point once a second, for so many seconds; the last row of a run
    is received after the first ones of the next."""
    parts, second = [], 0
    for length in lengths:
        rows = [(p, second + i, float(i), second + i) for i in range(length) for p in range(points)]
        parts.append(part(*rows[:-1], (*rows[-1][:3], rows[-1][3] + 2)))
        second += length
    return parts


@pytest.mark.parametrize(
    "lengths", [[20] * 8, [20, 20, 3, 40, 20, 1, 1, 60, 20, 20], [1] * 30, [150]]
)
def test_spans_that_follow_the_runs_of_the_store_hold_every_row_once(
    lengths, tmp_path, monkeypatch
) -> None:
    whole = stored(tmp_path, runs_of(lengths), settle=True)
    for name, value in (("ROWS", 90), ("ROWS_MAX", 200), ("_RUN_ROWS_MIN", 1), ("_PIECE_ROWS", 7)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_FIRST_WIDTH_NS", 25 * S)
    scan = DuckdbScan.open(CONFIG, context(tmp_path))
    batches = list(scan.batches(0, 1 << 62))
    scan.close()
    assert sorted(rows_of(batches)) == sorted(rows_of([whole]))
    for before, after in zip(batches, batches[1:], strict=False):  # noqa: RUF007
        assert before.received_time_ns.max() < after.received_time_ns.min()
    assert all(len(batch) <= 200 for batch in batches)


def test_spans_end_where_runs_of_one_length_begin(tmp_path, monkeypatch) -> None:
    stored(tmp_path, runs_of([20] * 10), settle=True)
    for name, value in (("ROWS", 90), ("ROWS_MAX", 400), ("_RUN_ROWS_MIN", 1)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_FIRST_WIDTH_NS", 25 * S)
    scan = DuckdbScan.open(CONFIG, context(tmp_path))
    begins = [int(batch.received_time_ns.min() - T0) // S for batch in scan.batches(0, 1 << 62)]
    scan.close()
    learnt = begins[4:-1]  # behind the last run its late row is left
    assert [begin % 20 for begin in learnt] == [0] * len(learnt)
    assert len(learnt) >= 2


@settings(max_examples=20)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(0, 30)),
        min_size=1,
        max_size=40,
    ),
    low=st.integers(0, 60),
    width=st.integers(0, 60),
)
def test_a_range_holds_what_was_received_in_it(rows, low, width, tmp_path_factory) -> None:
    rows = sorted(
        {(p, t): (p, t, float(lag), t + lag) for p, t, lag in rows}.values(), key=lambda r: r[3]
    )
    folder = tmp_path_factory.mktemp("store")
    whole = stored(folder, [part(*rows)], settle=len(rows) % 2 == 0)
    scan = DuckdbScan.open(CONFIG, context(folder))
    span = (T0 + low * S, T0 + (low + width) * S)
    wanted = [row for row in rows_of([whole]) if span[0] <= row[4] < span[1]]
    assert sorted(rows_of(scan.batches(*span))) == sorted(wanted)
    scan.close()


def test_filling_gives_the_rows_that_writing_gives(tmp_path) -> None:
    made = context(tmp_path)
    store = Store(tmp_path / "history.duckdb", CONFIG, made.points)
    store.write(Batch.empty(), 0)
    first = part((0, 0, 1.0, 0), (0, 1, 2.0, 1), (1, 0, 3.0, 1))
    store.fill(first)
    assert store.newest[:2].tolist() == [T0 + S, T0]
    again = store.write(first, 3)  # the store knows what it holds
    assert (again.accepted, again.duplicate) == (0, 3)
    store.close()
    scan = DuckdbScan.open(CONFIG, made)
    assert sorted(rows_of(scan.batches(0, 1 << 62))) == sorted(rows_of([first]))
    scan.close()


def test_a_scan_is_refused_where_points_mean_something_else_or_nothing_is_stored(tmp_path) -> None:
    with pytest.raises(Refused, match="no history is stored"):
        DuckdbScan.open(CONFIG, context(tmp_path))
    stored(tmp_path, PARTS)
    with pytest.raises(Refused, match="numbers its points differently"):
        DuckdbScan.open(CONFIG, context(tmp_path, names=("b", "a", "c")))
    DuckdbScan.open(CONFIG, context(tmp_path, names=("a", "b", "c", "new"))).close()


def test_an_empty_store_has_no_span_and_no_batches(tmp_path) -> None:
    Store(tmp_path / "history.duckdb", CONFIG, context(tmp_path).points).close()
    scan = DuckdbScan.open(CONFIG, context(tmp_path))
    assert scan.span() is None
    assert list(scan.batches(0, 1 << 62)) == []
    scan.close()


def test_scanning_changes_nothing_in_the_file(tmp_path) -> None:
    stored(tmp_path, PARTS)
    before = (tmp_path / "history.duckdb").read_bytes()
    scan = DuckdbScan.open(CONFIG, context(tmp_path))
    list(scan.batches(0, 1 << 62))
    scan.close()
    assert (tmp_path / "history.duckdb").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.duckdb"]
