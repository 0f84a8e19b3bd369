"""Timers fire up to the moment up to which everything received is known, and no further."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.model.batch import Batch
from gateway.runtime.known_time import PAUSE_S, STEP_BACK_NS, UNDURABLE_WAIT_MAX_NS, KnownTime

S = 1_000_000_000
NOW = 1_790_000_000 * S
TICK_S = 0.2
SETTLE_S = 5.0


def rows(*received_ns: int) -> Batch:
    count = len(received_ns)
    times = np.array(received_ns, np.int64)
    return Batch.of(np.zeros(count, np.int64), np.zeros(count), times, received_time_ns=times)


def known() -> KnownTime:
    return KnownTime(settle_s=SETTLE_S, tick_interval_s=TICK_S)


@pytest.mark.parametrize(
    ("batch", "pending_ns", "is_behind", "expected"),
    [
        pytest.param(rows(), None, False, NOW, id="nothing waits anywhere: now"),
        pytest.param(rows(NOW - S), None, False, NOW, id="all that came is in hand: now"),
        pytest.param(rows(NOW - S), None, True, NOW - S, id="more to read: as far as it was read"),
        pytest.param(rows(NOW - 2 * S, NOW - S), None, True, NOW - S, id="the newest row counts"),
        pytest.param(rows(NOW + 9 * S), None, True, NOW, id="a row of a time to come: only now"),
        pytest.param(rows(), NOW - S, False, NOW - S, id="a row on its way to the disk holds it"),
        pytest.param(
            rows(), NOW - UNDURABLE_WAIT_MAX_NS - S, False, NOW - UNDURABLE_WAIT_MAX_NS,
            id="a disk that hangs holds it for a while",
        ),
        pytest.param(rows(NOW - 3 * S), NOW - S, True, NOW - 3 * S, id="the earlier of both"),
    ],
)  # fmt: skip
def test_the_clock_counts_as_far_as_all_is_known(batch, pending_ns, is_behind, expected) -> None:
    time = known()
    assert time.take(batch, NOW, 1e3, pending_ns=pending_ns, is_behind=is_behind) == expected


def test_while_behind_what_was_known_before_stays_known() -> None:
    time = known()
    time.take(rows(), NOW, 1e3, pending_ns=None, is_behind=False)
    later = NOW + 9 * S
    assert time.take(rows(NOW - S), later, 1e3, pending_ns=None, is_behind=True) == NOW
    assert time.take(rows(), later, 1e3, pending_ns=None, is_behind=True) == NOW


def test_while_it_settles_time_moves_with_the_data_only() -> None:
    time = known()
    time.take(rows(), NOW, 0.0, pending_ns=None, is_behind=False)
    time.settle(100.0)
    for now_s, expected in ((100.0, NOW), (100.0 + SETTLE_S - 0.1, NOW)):
        silent = time.take(rows(), NOW + 60 * S, now_s, pending_ns=None, is_behind=False)
        assert silent == expected, "nothing came in: our own silence"
    heard = time.take(rows(NOW + S), NOW + 60 * S, 101.0, pending_ns=None, is_behind=False)
    assert heard == NOW + S
    settled = time.take(rows(), NOW + 60 * S, 100.0 + SETTLE_S, pending_ns=None, is_behind=False)
    assert settled == NOW + 60 * S


@pytest.mark.parametrize(
    ("passed_s", "stepped_ns", "expected"),
    [
        pytest.param(TICK_S, 0, (False, False), id="the usual"),
        pytest.param(PAUSE_S, 0, (False, False), id="slow, and no more"),
        pytest.param(PAUSE_S + TICK_S + 0.1, 0, (True, False), id="the process was stopped"),
        pytest.param(TICK_S, -STEP_BACK_NS, (False, False), id="drift"),
        pytest.param(TICK_S, -STEP_BACK_NS - 1, (False, True), id="the clock was set back"),
        pytest.param(TICK_S, 3_600 * S, (False, False), id="the clock was set forward"),
        pytest.param(60.0, -3_600 * S, (True, True), id="both"),
    ],
)
def test_a_stop_and_a_clock_set_back_are_told_apart(passed_s, stepped_ns, expected) -> None:
    time = known()
    assert time.look(NOW, 1e3) == (False, False), "before the first look nothing is known"
    assert time.look(NOW + stepped_ns, 1e3 + passed_s) == expected


def test_after_a_stop_it_settles_again() -> None:
    time = known()
    time.take(rows(), NOW, 0.0, pending_ns=None, is_behind=False)
    time.look(NOW, 0.0)
    time.look(NOW + 60 * S, 60.0)
    assert time.take(rows(), NOW + 60 * S, 60.0, pending_ns=None, is_behind=False) == NOW
    later_s = 60.0 + SETTLE_S
    assert time.take(rows(), NOW + 65 * S, later_s, pending_ns=None, is_behind=False) > NOW


def test_what_was_known_of_a_time_to_come_is_forgotten() -> None:
    time = known()
    time.take(rows(), NOW + 3_600 * S, 1e3, pending_ns=None, is_behind=False)
    time.not_beyond(NOW + 7_200 * S)
    assert time.take(rows(), NOW + 7_200 * S, 1e3, pending_ns=None, is_behind=True) > NOW
    time.not_beyond(NOW)
    assert time.take(rows(), NOW + S, 1e3, pending_ns=None, is_behind=True) == NOW
    time.not_beyond(NOW - S)
    assert time.take(rows(), NOW + S, 1e3, pending_ns=None, is_behind=True) == NOW - S
