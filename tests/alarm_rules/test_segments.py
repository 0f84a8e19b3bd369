"""The array primitives against one-line loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alarm_rules import segments as seg

KEYS = st.lists(st.integers(0, 3), min_size=1, max_size=30).map(lambda keys: np.array(sorted(keys)))


def bools(size: int):
    return st.lists(st.booleans(), min_size=size, max_size=size).map(np.array)


@given(st.data())
@settings(max_examples=60)
def test_last_true_is_the_newest_row_of_the_own_segment_that_said_so(data) -> None:
    key = data.draw(KEYS)
    mask = data.draw(bools(len(key)))
    found = seg.last_true(mask, seg.starts_of(seg.heads(key)))
    for i in range(len(key)):
        said = [j for j in range(i + 1) if key[j] == key[i] and mask[j]]
        assert found[i] == (said[-1] if said else -1)


@given(st.data())
@settings(max_examples=60)
def test_hysteresis_is_what_the_last_row_that_said_anything_said(data) -> None:
    key = data.draw(KEYS)
    size = len(key)
    set_, reset = data.draw(bools(size)), data.draw(bools(size))
    carried = data.draw(bools(4))
    start = seg.starts_of(seg.heads(key))
    found = seg.hysteresis(set_[:, None], reset[:, None], start, carried[key][:, None])
    state = dict(enumerate(carried))
    for i in range(size):
        before = state[key[i]]
        if set_[i] or reset[i]:
            state[key[i]] = set_[i]
        assert found.state[i, 0] == state[key[i]]
        assert found.edge[i, 0] == (state[key[i]] != before)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=20), st.booleans()
)
@settings(max_examples=60)
def test_a_run_counts_from_begin_plus_delay_on_when_it_lasted_that_long(runs, carried) -> None:
    value = np.array([v for v, _ in runs])
    begin = np.cumsum([0, *(length for _, length in runs[:-1])])
    end = begin + [length for _, length in runs]
    delay = np.where(value, 3, 2)
    start = np.zeros(len(runs), np.int64)
    found = seg.debounce(value, begin, end, delay, start, np.full(len(runs), carried))
    output = carried
    for i, (wanted, length) in enumerate(runs):
        lasted = length >= (3 if wanted else 2)
        assert (found.before[i], found.lasted[i]) == (output, lasted)
        assert found.changed[i] == (lasted and wanted != output)
        assert found.effect_ns[i] == begin[i] + (3 if wanted else 2)
        output = wanted if lasted else output


@pytest.mark.parametrize("limit", [4, 1 << 16, (1 << 16) + 1, 1 << 32, (1 << 32) + 1])
def test_sorting_is_stable_for_every_width_of_key(limit) -> None:
    rng = np.random.default_rng(7)
    key = rng.integers(0, min(limit, 1 << 40), 500) // max(1, limit // 50) * max(1, limit // 50)
    assert seg.sort_stable(key, limit).tolist() == sorted(range(500), key=lambda i: key[i])


@pytest.mark.parametrize("ascending", [True, False])
def test_grouping_orders_by_key_then_time_then_arrival(ascending) -> None:
    rng = np.random.default_rng(3)
    key, time = rng.integers(0, 70_000, 300), rng.integers(0, 5, 300)
    time = np.sort(time) if ascending else time
    wanted = sorted(range(300), key=lambda i: (key[i], time[i], i))
    assert seg.group_sort(key, time, 70_000).tolist() == wanted


def test_times_that_ascend_within_each_key_need_no_second_sort() -> None:
    key, time = np.array([9, 9, 2, 2, 5]), np.array([7, 8, 1, 2, 0])
    assert seg.group_sort(key, time, 10).tolist() == [2, 3, 4, 0, 1]


def test_rows_of_a_whole_table_are_the_table_itself_and_of_a_part_are_not() -> None:
    table = np.array([[1, 2], [3, 4], [5, 6]])
    assert seg.rows_of(table, np.arange(3)) is table
    assert seg.rows_of(table, np.array([0, 2])).tolist() == [[1, 2], [5, 6]]
    seg.write_rows(table, np.array([1]), np.array([[7, 7]]))
    seg.write_rows(table[:, 0], np.arange(3), np.array([0, 0, 9]))
    assert table.tolist() == [[0, 2], [0, 7], [9, 6]]


@pytest.mark.parametrize(
    ("counts", "expected"), [([1, 0, 1], [4, -1, 5]), ([0, 0], [-1, -1]), ([2, 0], None)]
)
def test_only_members_are_told_where_no_list_has_two(counts, expected) -> None:
    start, members = np.append(0, np.cumsum(counts)), np.arange(4, 4 + sum(counts))
    found = seg.only_members(start, members)
    assert (found if found is None else found.tolist()) == expected


def test_before_is_the_row_above_or_what_was_carried_in() -> None:
    start = seg.starts_of(seg.heads(np.array([0, 0, 1])))
    found = seg.before(np.array([1, 2, 3]), start, np.array([9, 9, 8]))
    assert found.tolist() == [9, 1, 8]


def test_forward_fill_takes_the_carried_value_until_one_is_known() -> None:
    key = np.array([0, 0, 0, 1, 1])
    known = np.array([False, True, False, False, True])
    start = seg.starts_of(seg.heads(key))
    value, carried = np.array([0, 5, 0, 0, 7]), np.array([1, 1, 1, 2, 2])
    assert seg.forward_fill(value, known, start, carried).tolist() == [1, 5, 5, 2, 7]


def test_lists_of_lists_survive_being_compressed() -> None:
    owner, member = np.array([2, 0, 2, 2]), np.array([10, 11, 12, 13])
    start, members = seg.compress_lists(owner, 4, member)
    assert start.tolist() == [0, 1, 1, 4, 4]
    found = seg.gather_lists(start, members, np.array([2, 1, 0]))
    assert (found[0].tolist(), found[1].tolist()) == ([0, 0, 0, 2], [10, 12, 13, 11])
