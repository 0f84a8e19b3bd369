"""The live table shows the newest sample of every point, whatever order rows come in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.model.quality import Quality
from gateway.runtime.live import LiveTable

ROW = st.tuples(st.integers(0, 5), st.integers(1, 20), st.floats(-5, 5))


@given(st.lists(st.lists(ROW, max_size=12), max_size=6))
def test_it_equals_a_dictionary_that_keeps_the_last_of_the_newest(batches) -> None:
    table, expected = LiveTable(), {}
    for rows in batches:
        if not rows:
            table.update(Batch.empty())
            continue
        points, times, values = zip(*rows, strict=True)
        table.update(Batch.of(points, values, times, received_time_ns=1))
        for point, time_ns, value in rows:
            if time_ns >= expected.get(point, (0, 0))[0]:
                expected[point] = (time_ns, value)
    found = {
        int(p): (int(table.time_ns[p]), float(table.value[p]))
        for p in np.flatnonzero(table.time_ns)
    }
    assert found == expected


def test_a_backfilled_sample_never_replaces_a_newer_one() -> None:
    table = LiveTable()
    table.update(Batch.of([3], [9.0], 100, received_time_ns=100))
    table.update(Batch.of([3], [1.0], 50, received_time_ns=200))
    assert table.value[3] == 9.0


def test_a_sample_with_an_absurd_clock_counts_as_of_its_receipt() -> None:
    table = LiveTable()
    far = 10**18
    table.update(Batch.of([0], [1.0], far, received_time_ns=100, quality=Quality.UNCERTAIN_CLOCK))
    table.update(Batch.of([0], [2.0], 150, received_time_ns=150))
    assert table.value[0] == 2.0
