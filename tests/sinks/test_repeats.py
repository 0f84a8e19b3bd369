from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.sinks.repeats import (
    NEVER,
    SPAN_GAP_NS,
    SPANS_MAX,
    Held,
    Occupied,
    grown,
    sift,
    spans,
    value_bits,
)

POINTS = 4
VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), float("inf")])
ROWS = st.lists(
    st.tuples(st.integers(0, POINTS - 1), st.integers(-3, 3), VALUES, st.sampled_from([0, 129])),
    max_size=40,
)


class SetStore:
    """The reference: a dictionary of what is held, asked one row at a time."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], dict[tuple[str, int], int]] = {}
        self.occupied = Occupied(np.full(POINTS, NEVER, np.int64))
        self.asked = 0

    def lookup(self, points, times) -> Held:
        self.asked += len(points)
        rows = [
            (point, time_ns, float(value), quality, rank)
            for point, time_ns in dict.fromkeys(zip(points.tolist(), times.tolist(), strict=True))
            for (value, quality), rank in self.held.get((point, time_ns), {}).items()
        ]
        columns = list(zip(*rows, strict=True)) or [()] * 5
        dtypes = (np.int32, np.int64, np.float64, np.uint8, np.int64)
        return Held(*(np.array(c, d) for c, d in zip(columns, dtypes, strict=True)))

    def write(self, batch: Batch, *, ahead: bool = False) -> int:
        sifted = sift(batch, self.occupied, self.lookup)
        for row, rank in zip(sifted.rows.tolist(), sifted.rank.tolist(), strict=True):
            here = self.held.setdefault(
                (int(batch.point_index[row]), int(batch.source_time_ns[row])), {}
            )
            content = (repr(float(batch.value[row]) + 0.0), int(batch.quality[row]))
            assert content not in here, "a repeat was let through"
            assert rank not in here.values(), "two samples got one rank"
            here[content] = rank
        self.occupied.note(batch, ahead=ahead)
        return len(sifted.rows)


def make_batch(rows) -> Batch:
    point, time_ns, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Batch.of(point, value, time_ns, received_time_ns=0, quality=quality)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 40)), again=st.integers(0, 40))
def test_what_is_held_is_the_set_of_what_was_given_for_any_cut_and_any_repeated_suffix(
    rows, cuts, again
) -> None:
    store = SetStore()
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut <= len(rows))})
    new = sum(store.write(make_batch(rows[a:b])) for a, b in itertools.pairwise(edges))
    assert store.write(make_batch(rows[max(0, len(rows) - again) :])) == 0
    expected = {(p, t, repr(v + 0.0), q) for p, t, v, q in rows}
    held = {(p, t, v, q) for (p, t), here in store.held.items() for v, q in here}
    assert held == expected
    assert new == len(expected)
    for here in store.held.values():
        assert sorted(here.values()) == list(range(len(here))), "ranks have no holes"


def test_samples_newer_than_everything_held_are_never_asked_about() -> None:
    store = SetStore()
    for begin in range(0, 100, 10):
        rows = [(p, begin + i, 1.0, 0) for i in range(10) for p in range(POINTS)]
        assert store.write(make_batch(rows)) == 40
    assert store.asked == 0


LANES = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), max_size=12)


@given(rows=ROWS, mark=st.integers(0, 40), turns=LANES, ends=st.booleans())
def test_rows_that_run_ahead_hide_no_row_and_let_no_repeat_through(rows, mark, turns, ends) -> None:
    """Backlog before the mark, live rows behind it, in any turns and with any repeats."""
    store, lanes = SetStore(), {False: rows[:mark], True: rows[mark:]}
    for ahead, start, size in turns:
        store.write(make_batch(lanes[ahead][start : start + size]), ahead=ahead)
    store.write(make_batch(lanes[True]), ahead=True)
    store.write(make_batch(lanes[False]))
    if ends:
        store.occupied.end_ahead()
    assert store.write(make_batch(rows)) == 0
    held = {(p, t, v, q) for (p, t), here in store.held.items() for v, q in here}
    assert held == {(p, t, repr(v + 0.0), q) for p, t, v, q in rows}


def test_a_backlog_behind_live_rows_is_not_asked_about() -> None:
    store = SetStore()
    store.write(make_batch([(p, 0, 1.0, 0) for p in range(POINTS)]))
    store.write(
        make_batch([(p, 100 + i, 1.0, 0) for i in range(10) for p in range(POINTS)]), ahead=True
    )
    for begin in range(1, 91, 10):
        rows = [(p, begin + i, 1.0, 0) for i in range(10) for p in range(POINTS)]
        assert store.write(make_batch(rows)) == 40
    assert store.asked == 0
    store.write(make_batch([(0, 100, 1.0, 0)]))
    assert store.asked == 1


def test_without_a_store_to_ask_repeats_inside_the_batch_are_still_found() -> None:
    newest = Occupied(np.full(POINTS, 100, np.int64))  # everything is older, nothing is known
    batch = make_batch([(0, 1, 5.0, 0), (0, 1, 5.0, 0), (0, 1, 6.0, 0), (1, 1, 5.0, 0)])
    sifted = sift(batch, newest, None)
    assert sifted.rows.tolist() == [0, 2, 3]
    assert sifted.rank.tolist() == [0, 1, 0]


def test_a_row_takes_the_lowest_free_rank_so_that_half_a_write_repeated_ends_the_same() -> None:
    held = Held(
        np.array([0], np.int32),
        np.array([1], np.int64),
        np.array([6.0]),
        np.array([0], np.uint8),
        np.array([1], np.int64),
    )
    batch = make_batch([(0, 1, 5.0, 0), (0, 1, 6.0, 0), (0, 1, 7.0, 0)])
    sifted = sift(batch, Occupied(np.full(POINTS, 1, np.int64)), lambda _p, _t: held)
    assert sifted.rows.tolist() == [0, 2]
    assert sifted.rank.tolist() == [0, 2]


H = SPAN_GAP_NS
FAR = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([5, 5, 5 + H], [(5, 5 + H)]),
        ([5, 6 + H], [(5, 5), (6 + H, 6 + H)]),
        ([-FAR, 0, 1, FAR], [(-FAR, -FAR), (0, 1), (FAR, FAR)]),
    ],
)
def test_times_are_looked_up_in_spans_cut_at_gaps_of_more_than_an_hour(times, expected) -> None:
    assert spans(np.array(times, np.int64)) == expected


@given(st.lists(st.integers(-FAR, FAR), min_size=1, max_size=60))
def test_spans_cover_every_time_in_few_disjoint_pieces(times) -> None:
    found = spans(np.array(times, np.int64))
    assert len(found) <= SPANS_MAX
    assert all(sum(low <= t <= high for low, high in found) == 1 for t in times)
    assert all(low <= high for low, high in found)


def test_every_nan_is_one_value_and_so_are_the_two_zeros() -> None:
    odd_nan = np.array([0x7FF8_0000_0000_0001, -1], dtype=np.int64).view(np.float64)
    bits = value_bits(np.array([np.nan, *odd_nan, 0.0, -0.0, 1.0]))
    assert len(set(bits[:3].tolist())) == 1
    assert bits[3] == bits[4] != bits[5]


def test_the_newest_times_grow_with_the_point_table_and_keep_what_they_know() -> None:
    newest = np.array([7], np.int64)
    more = grown(newest, 3)
    assert more[0] == 7
    assert len(more) >= 3
    assert set(more[1:].tolist()) == {NEVER}
    assert grown(more, 2) is more
