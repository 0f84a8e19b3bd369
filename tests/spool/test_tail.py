from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.spool.tail import Tail

SIZES = st.lists(st.sampled_from([1, 2, 3, 64, 65, 300]), min_size=1, max_size=400)


def rows(start: int, count: int) -> Batch:
    values = range(start, start + count)
    return Batch.of([0] * count, values, list(values), received_time_ns=0)


@given(
    sizes=SIZES, rows_max=st.integers(1, 5_000), reads=st.lists(st.integers(1, 400), max_size=20)
)
def test_what_is_read_is_what_was_put_however_it_was_joined(sizes, rows_max, reads) -> None:
    tail, end = Tail(rows_max), 0
    tail.put(0, rows(0, 0))
    for size in sizes:
        tail.put(end, rows(end, size))
        end += size
    assert tail.end == end
    assert end - tail.first <= rows_max or end - tail.first <= max(sizes)
    position = tail.first
    for count in reads:
        found = tail.read(position, count)
        expected = range(position, min(position + count, end))
        if not expected:
            assert found is None
            break
        assert found.value.tolist() == list(expected)
        position += len(found)
    assert tail.read(tail.first - 1, 1) is None


def test_many_small_batches_take_the_memory_of_few_large_ones() -> None:
    tail = Tail(100_000)
    for at in range(0, 50_000, 5):
        tail.put(at, rows(at, 5))
    assert len(tail._batches) < 10_000 / 64 + 64
    assert tail.first == 0
    assert len(tail.read(0, 50_000)) == 50_000
