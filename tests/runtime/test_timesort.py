"""Rows come out in order of time, equal ones as they stood, and no instant is cut in two."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.runtime.timesort import TimeSort

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60)


@given(
    parts=st.lists(rows, max_size=6),
    run_rows=st.integers(1, 40),
    batch_rows=st.integers(1, 20),
)
def test_runs_of_any_size_merge_into_one_stable_order(
    parts, run_rows, batch_rows, tmp_path_factory
) -> None:
    whole = TimeSort(tmp_path_factory.mktemp("runs"), run_rows=run_rows)
    every, number = [], 0
    for part in parts:
        values = np.arange(number, number + len(part), dtype=float)
        number += len(part)
        times = [time for _, time in part]
        whole.add(Batch.of([point for point, _ in part], values, times, received_time_ns=times))
        every += [(time, value) for time, value in zip(times, values.tolist(), strict=True)]
    batches = list(whole.batches(batch_rows))
    found = [
        (time, value)
        for batch in batches
        for time, value in zip(batch.source_time_ns.tolist(), batch.value.tolist(), strict=True)
    ]
    assert found == sorted(every)  # values number the rows: equal times keep their order
    for before, after in pairwise(batches):
        assert before.source_time_ns[-1] < after.source_time_ns[0]
    assert whole.row_count == number
