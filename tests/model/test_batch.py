"""Batches are columns that cannot be changed and compare bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import COLUMNS, Batch

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**31 - 1),
        st.floats(allow_nan=True),
        st.integers(0, 2**62),
        st.integers(0, 255),
    ),
    max_size=30,
)


def batch_of(rows: list[tuple[int, float, int, int]]) -> Batch:
    points, values, times, qualities = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Batch.of(points, values, times, received_time_ns=times, quality=qualities)


@given(ROWS, st.integers(0, 30))
def test_a_batch_cut_anywhere_and_joined_again_is_the_same_batch(rows, cut) -> None:
    batch = batch_of(rows)
    parts = [batch.take(slice(0, cut)), batch.take(slice(cut, None))]
    assert Batch.concat(parts) == batch


def test_nan_equals_nan_and_minus_zero_differs_from_zero() -> None:
    make = lambda value: Batch.of([1], [value], 5, received_time_ns=6)  # noqa: E731
    assert make(float("nan")) == make(float("nan"))
    assert make(0.0) != make(-0.0)


def test_a_column_cannot_be_written_to() -> None:
    batch = Batch.of([1], [2.0], 5, received_time_ns=6)
    for name, _ in COLUMNS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(batch, name)[0] = 0


@pytest.mark.parametrize(
    ("column", "data"),
    [
        ("value", np.array([1.0, 2.0])),  # one row too many
        ("value", np.array([1.0], np.float32)),  # wrong type
        ("quality", np.array([[0]], np.uint8)),  # two dimensions
    ],
)
def test_a_batch_with_a_wrong_column_is_refused(column: str, data: np.ndarray) -> None:
    columns = {name: np.zeros(1, dtype) for name, dtype in COLUMNS}
    columns[column] = data
    with pytest.raises(AssertionError, match=column):
        Batch(**columns)


def test_joining_nothing_gives_an_empty_batch() -> None:
    assert len(Batch.concat([])) == 0
