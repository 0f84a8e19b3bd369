"""Hours, groups, verdicts, damage: what the law does not walk through."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from gateway.ledger.account import Request, account
from gateway.ledger.books import Books
from gateway.ledger.cells import pack, unpack
from gateway.ledger.ledger import Ledger, LedgerOptions, Progress, open_ledger
from gateway.ledger.settle import Reason
from gateway.ledger.store import DATABASE, Store
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.model.point import Point, PointTable

MINUTE_NS = 60_000_000_000
FIRST = 29_000_040  # an hour begins
S = 10**9


def points() -> PointTable:
    table = PointTable()
    for index, (area, name) in enumerate([("n", "甲烷"), ("n", "风速"), ("s", "水位")]):
        table.put(Point(f"p{index}", interval_s=30.0, adapter="a", area=area, name=name))
    return table


def fed(folder, minutes: int, silent=()) -> Ledger:
    """Three points that report twice a minute, but for `silent` (point, minute)."""
    ledger = open_ledger(folder, LedgerOptions())
    ledger.describe(points(), (FIRST - 1) * MINUTE_NS)
    rows = [
        (point, (FIRST + minute) * MINUTE_NS + half * 30 * S)
        for minute in range(minutes)
        for half in (0, 1)
        for point in range(3)
        if (point, minute) not in silent
    ]
    times = np.array([time for _, time in rows], np.int64)
    ledger.count(
        0, Batch.of([p for p, _ in rows], np.zeros(len(rows)), times, received_time_ns=times)
    )
    beat(ledger, minutes + 10, len(rows))
    ledger.flush()
    return ledger


def beat(ledger: Ledger, minute: int, committed: int) -> None:
    now = (FIRST + minute) * MINUTE_NS
    ledger.beat(
        now, now, is_read=True, adapters={"a": True},
        consumers=[Progress("sink.store", "store", committed)],
    )  # fmt: skip


def ask(ledger: Ledger, minutes: int, **more):
    return account(Books(ledger.store), Request(FIRST, FIRST + minutes, **more))


def settle_hours(ledger: Ledger) -> int:
    return ledger.keep_hours(Books(ledger.store).hours_to_settle(100))


GROUPS = [
    ("point", ["p1", "p0", "p2"]),
    ("area", ["n", "s"]),
    ("adapter", ["a"]),
    ("device", [""]),
    ("site", [""]),
]


@pytest.mark.parametrize(("by", "keys"), GROUPS)
def test_any_grouping_adds_up_to_the_same_whole_the_worst_first(tmp_path, by, keys) -> None:
    ledger = fed(tmp_path, 10, silent={(1, 3), (1, 4), (0, 5)})
    found = ask(ledger, 10, by=by, bin_count=5)
    assert [row.key for row in found.rows] == keys
    assert sum(row.due for row in found.rows) == found.total.due == 60
    assert sum(row.minutes_online for row in found.rows) == 27
    assert found.total.online_rate == 0.9
    for place in range(5):
        assert sum(row.strip[place][1] for row in found.rows) == found.total.strip[place][1]
    ledger.close()


def test_points_are_asked_for_by_id_or_by_name(tmp_path) -> None:
    ledger = fed(tmp_path, 3)
    assert [row.key for row in ask(ledger, 3, points="*风*").rows] == ["p1"]
    assert [row.key for row in ask(ledger, 3, points="p[02]").rows] == ["p0", "p2"]
    assert ask(ledger, 3, points="none").total.due == 0
    ledger.close()


def test_settled_hours_answer_as_their_minutes_did_and_a_late_row_undoes_them(tmp_path) -> None:
    ledger = fed(tmp_path, 300, silent={(2, 30)})
    before = ask(ledger, 120)
    assert settle_hours(ledger) == 3  # those that are over for two hours
    with ledger.store.transaction():
        ledger.store.put("DELETE FROM minute WHERE minute < ?", [(FIRST + 120,)])
    assert ask(ledger, 120).total == before.total
    time = (FIRST + 150) * MINUTE_NS + 5 * S
    ledger.count(
        ledger.offset, Batch.of([0], [0.0], [time], received_time_ns=(FIRST + 310) * MINUTE_NS)
    )
    ledger.flush()
    hours = [hour for (hour,) in ledger.store.ask("SELECT hour FROM hour ORDER BY hour")]
    assert FIRST // 60 + 2 not in hours
    assert FIRST // 60 + 1 in hours
    found = account(Books(ledger.store), Request(FIRST + 120, FIRST + 180))
    assert (found.total.counted["delayed"], found.total.counted["late"]) == (1, 1)
    ledger.close()


def test_an_hour_is_not_settled_while_somebody_has_not_passed_it(tmp_path) -> None:
    ledger = fed(tmp_path, 300)
    beat(ledger, 311, 100)
    ledger.flush()
    assert settle_hours(ledger) == 0
    ledger.close()


def test_pruning_leaves_hours_and_takes_minutes(tmp_path) -> None:
    ledger = fed(tmp_path, 300)
    settle_hours(ledger)
    before = ask(ledger, 120).total
    later = (FIRST + 36 * 1440) * MINUTE_NS
    ledger.prune(later)
    assert ledger.store.ask("SELECT count(*) FROM minute") == [(0,)]
    assert ask(ledger, 120).total.due == before.due
    old = Batch.of([0], [0.0], [FIRST * MINUTE_NS], received_time_ns=later)
    ledger.count(ledger.offset, old)
    assert ledger.counter.too_old_count == 1
    ledger.close()


def test_a_consumer_that_repeats_its_verdicts_in_other_batches_is_heard_once(tmp_path) -> None:
    ledger = fed(tmp_path, 3)
    rows = Batch.of(
        [0, 1, 2], [0.0] * 3, [FIRST * MINUTE_NS] * 3, received_time_ns=FIRST * MINUTE_NS
    )
    assert ledger.refused("sink.store", [0, 1], rows.take(slice(0, 2))) == 2
    ledger.close()
    ledger = open_ledger(tmp_path, LedgerOptions())
    assert ledger.refused("sink.store", [0, 1, 2], rows) == 1
    (store,) = ask(ledger, 3).total.consumers
    assert (store.has, store.missing) == (15, {"rejected": 3})
    ledger.close()


def test_a_range_that_was_given_up_is_not_had_though_the_cursor_is_past_it(tmp_path) -> None:
    ledger = fed(tmp_path, 4)
    ledger.gave_up("sink.store", 6, 12, Reason.DROPPED_BUDGET, FIRST * MINUTE_NS)
    (store,) = ask(ledger, 4).total.consumers
    assert (store.has, store.missing) == (18, {"dropped_budget": 6})
    ledger.close()


def test_rows_of_a_new_sink_begin_where_it_began(tmp_path) -> None:
    ledger = fed(tmp_path, 4)
    now = (FIRST + 14) * MINUTE_NS
    ledger.beat(
        now, now, is_read=True, adapters={}, consumers=[Progress("sink.new", "forward", 12)]
    )
    ledger.flush()
    ledger.beat(
        now, now, is_read=True, adapters={}, consumers=[Progress("sink.new", "forward", 24)]
    )
    ledger.flush()
    (new,) = ask(ledger, 4).total.consumers
    assert (new.has, new.missing) == (12, {"not_asked": 12})
    ledger.close()


def test_offsets_that_were_skipped_explain_the_silence_about_them(tmp_path) -> None:
    ledger = fed(tmp_path, 2)
    time = (FIRST + 5) * MINUTE_NS
    ledger.count(500, Batch.of([0], [0.0], [time], received_time_ns=time))
    beat(ledger, 20, 501)
    ledger.flush()
    assert ledger.skipped_rows == 500 - 12
    found = ask(ledger, 8)
    assert found.total.dark["lost_damage"] == 3 * 3 + 2  # minutes 2 to 4, and 5 but for p0
    ledger.close()


CLOCKS = [  # seconds by the wall, by the other clock; why minutes after it may be empty
    (10, 10, None),
    (3600, 10, Reason.CLOCK),
    (-3600, 10, Reason.CLOCK),
    (90, 90, Reason.GATEWAY_DOWN),
]


@pytest.mark.parametrize(("wall_s", "lived_s", "reason"), CLOCKS)
def test_a_clock_that_was_set_and_a_process_that_stood_still_are_told_apart(
    tmp_path, wall_s, lived_s, reason
) -> None:
    ledger = open_ledger(tmp_path, LedgerOptions())
    start = FIRST * MINUTE_NS
    for now, lived in ((start, 0), (start + wall_s * S, lived_s * S)):
        ledger.beat(now, lived, is_read=True, adapters={}, consumers=[])
    ledger.flush()
    kinds = [kind for (kind,) in ledger.store.ask("SELECT kind FROM outage")]
    assert kinds == ([] if reason is None else [int(reason)])
    ledger.close()


def test_a_damaged_minute_is_left_out_and_a_damaged_file_says_so(tmp_path) -> None:
    ledger = fed(tmp_path, 3)
    with ledger.store.transaction():
        ledger.store.put("UPDATE minute SET body = ? WHERE minute = ?", [(b"\x01", FIRST + 1)])
    assert ask(ledger, 3).total.got == 12
    ledger.close()
    path = tmp_path / DATABASE
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    store = Store.open(tmp_path)
    if not store.set_aside:
        with pytest.raises(StorageFault):
            store.state()
        assert store.is_damaged
    store.close()


def test_a_flush_that_fails_keeps_what_was_counted(tmp_path) -> None:
    ledger = fed(tmp_path, 1)
    time = (FIRST + 1) * MINUTE_NS
    ledger.count(ledger.offset, Batch.of([0], [0.0], [time], received_time_ns=time))
    put = ledger.store.put

    def full(statement, rows):
        raise sqlite3.OperationalError("disk is full")

    ledger.store.put = full
    with pytest.raises(StorageFault):
        ledger.flush()
    ledger.store.put = put
    ledger.flush()
    assert ask(ledger, 2).total.counted["good"] == 7
    ledger.close()


ARRAYS = [
    {},
    {"zero": np.zeros(3, np.int64)},
    {"small": np.array([0, 255]), "long": np.array([2**40, -1])},
    {"float": np.array([0.5, 0.0])},
]


@pytest.mark.parametrize("arrays", ARRAYS)
def test_packed_arrays_come_back_but_for_those_that_are_zero(arrays) -> None:
    found = unpack(pack(arrays))
    assert {name: found[name].tolist() for name in found} == {
        name: array.tolist() for name, array in arrays.items() if array.any()
    }


@pytest.mark.parametrize("body", [b"", b"\x00\x01", pack({"a": np.arange(9)})[:-3]])
def test_what_is_no_packed_array_is_refused(body) -> None:
    with pytest.raises(ValueError, match="not packed"):
        unpack(body)
