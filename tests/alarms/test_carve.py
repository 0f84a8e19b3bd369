"""Rows out of bare pages: all that are whole, none that are not, whatever the bytes."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alarms.carve import PAGE_SIZE, _rows, _varint, carve
from gateway.alarms.chain import StoredRow
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal
from gateway.testing.alarms import S, make_event


def test_every_row_sqlite_sees_is_carved_from_the_bare_file(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, reserve_bytes=0)
    # Numbers of every width a value can have on disk.
    times = [0, 1, -1, 127, 2**15, 2**23, 2**31, 2**47, 1_790_000_000 * S, -(2**62)]
    journal.append([make_event(gseq, time_ns=at) for gseq, at in enumerate(times * 20, 1)])
    journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        rows = [StoredRow(*row) for row in db.execute("SELECT * FROM event")]
    assert len(rows) == 200
    assert carve(tmp_path / DATABASE) == {row.gseq: row for row in rows}


@pytest.mark.parametrize(
    ("wire", "value", "size"),
    [
        ("00", 0, 1),
        ("7f", 127, 1),
        ("8100", 128, 2),
        ("ff7f", 16383, 2),
        ("ffffffffffffffffff", 2**64 - 1, 9),
    ],
)
def test_a_varint_is_read_as_the_file_format_says(wire: str, value: int, size: int) -> None:
    assert _varint(bytes.fromhex(wire), 0) == (value, size)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_leaf_header_give_rows_or_nothing(data: bytes) -> None:
    page = b"\x0d\x00\x00\x00\x20" + data
    for row in _rows(page.ljust(PAGE_SIZE, b"\x01")):
        assert len(row) == len(StoredRow._fields)
    list(_rows(page))
