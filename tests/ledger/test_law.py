"""The law: however it is cut, crashed and restarted, the ledger is what a plain count says."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import plain_count as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_count import MINUTE_NS, Row

from gateway.ledger.books import Books
from gateway.ledger.cells import Column
from gateway.ledger.ledger import Ledger, LedgerOptions, Progress, open_ledger
from gateway.ledger.settle import GAP_REASONS, Reason
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.model.point import Point, PointTable

START_MINUTE = 29_000_000
START_NS = START_MINUTE * MINUTE_NS
S = 10**9
INTERVALS = (10.0, 30.0, 45.0, 150.0, None, 7.0)
ADAPTERS = ("a", "a", "b", "b", "b", "b")
JUDGE, STORE = "judge", "sink.store"
MEMORY = Path("/dev/shm")  # thousands of syncs; what is asked is what was counted
CASES = int(os.environ.get("LEDGER_CASES", "25"))


def table() -> PointTable:
    points = PointTable()
    for index, (interval_s, adapter) in enumerate(zip(INTERVALS, ADAPTERS, strict=True)):
        points.put(Point(f"p{index}", interval_s=interval_s, adapter=adapter, area=f"x{index % 2}"))
    return points


@st.composite
def histories(draw) -> tuple[list[Row], list[tuple]]:
    """Rows in the order they became durable, and what befell us between them."""
    rows: list[Row] = []
    acts: list[tuple] = []
    now = START_NS + 5 * 60 * S
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.integers(1, 150)) * S
        for _ in range(draw(st.integers(0, 12))):
            point = draw(st.integers(0, len(INTERVALS) - 1))
            fate = draw(st.sampled_from("nnnnnnnnrdbol"))
            quality = {"b": 0x84}.get(fate, 0)
            source = now - draw(st.integers(0, 30)) * S
            if fate == "r" and rows:
                again = draw(st.sampled_from(rows[-20:]))
                rows.append(Row(again.point, again.source_ns, now, again.quality))
                continue
            if fate == "d":
                source -= draw(st.integers(60, 900)) * S
            if fate == "o":
                source = draw(st.sampled_from([0, now + 3600 * S]))
            if fate == "l":
                source -= draw(st.integers(1, 100)) * S
            rows.append(Row(point, source, now, quality))
        acts.append(
            (draw(st.sampled_from(["count", "beat", "beat", "crash", "torn"])), now, len(rows))
        )
    acts.append(("beat", now, len(rows)))
    return rows, acts


def batch_of(rows: list[Row]) -> Batch:
    return Batch.of(
        [r.point for r in rows],
        np.zeros(len(rows)),
        np.array([r.source_ns for r in rows], np.int64),
        received_time_ns=np.array([r.received_ns for r in rows], np.int64),
        quality=[r.quality for r in rows],
    )


class Life:
    """A ledger that is killed and opened again, beside a spool that is a list."""

    def __init__(self, folder: Path, rows: list[Row], cuts) -> None:
        self.folder, self.rows, self.cuts = folder, rows, cuts
        self.points = table()
        self.consumers: list[Progress] = []
        self.ledger = self.open()
        self.since: dict[str, int] = {}
        self.outages: dict[tuple, int] = {}  # as on record
        self.beat_ns = 0

    def open(self) -> Ledger:
        self.fresh = True
        return open_ledger(self.folder, LedgerOptions())

    def read(self, upto: int) -> None:
        """Count what is durable, cut anywhere, sometimes beginning before what was counted."""
        at = self.ledger.offset or 0
        at = max(0, at - self.cuts(0, 2))
        while at < upto:
            end = min(upto, at + self.cuts(1, 9))
            self.ledger.count(at, batch_of(self.rows[at:end]))
            at = end

    def beat(self, now: int, up: dict[str, bool]) -> None:
        self.ledger.describe(self.points, START_NS)
        self.ledger.beat(now, now, is_read=True, adapters=up, consumers=self.consumers)

    def booked(self, now: int, up: dict[str, bool]) -> None:
        """What a flush after such a beat leaves on record, in plain words."""
        if (self.fresh and self.beat_ns) or (self.beat_ns and now - self.beat_ns > 60 * S):
            self.outages["gateway_down", "", self.beat_ns] = now
        for name, is_up in up.items():
            if not is_up or name in self.since:
                since = self.since.setdefault(name, now)
                self.outages["adapter_down", name, since] = now
            if is_up:
                self.since.pop(name, None)
        self.fresh, self.beat_ns = False, now

    def crash(self) -> None:
        self.ledger.close()
        self.ledger = self.open()
        self.since = {}

    def torn(self, at: int) -> None:
        """The flush dies at its n-th statement; so do we."""
        store = self.ledger.store
        put, left = store.put, [at]

        def dying(statement, rows) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise sqlite3.OperationalError("power")
            put(statement, rows)

        store.put = dying
        with pytest.raises(StorageFault):
            self.ledger.flush()
        self.crash()


def live(folder: Path, rows: list[Row], acts: list[tuple], draw) -> Life:
    life = Life(folder, rows, lambda low, high: draw(st.integers(low, high)))
    for act, now, upto in acts:
        up = {"a": draw(st.booleans()), "b": True}
        life.read(upto)
        if act == "crash":
            life.crash()
        elif act == "torn":
            life.beat(now, up)
            life.torn(draw(st.integers(0, 3)))
        elif act == "beat":
            life.beat(now, up)
            assert life.ledger.flush() == (life.ledger.offset if rows[:upto] else None)
            life.booked(now, up)
    return life


def span_of(rows: list[Row], acts: list[tuple]) -> tuple[int, int]:
    first = min([START_MINUTE, *(row.minute for row in rows)])
    last = max([acts[-1][1] // MINUTE_NS, *(row.minute for row in rows)])
    return first, last + 1


@given(history=histories(), data=st.data())
@settings(max_examples=CASES, deadline=None)
@pytest.mark.slow
def test_the_ledger_equals_a_plain_count_of_the_whole_history(history, data) -> None:
    rows, acts = history
    folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        life = live(folder, rows, acts, data.draw)
        book = reference.count(rows)
        assert counted(life) == {key: n for key, n in book.counts.items() if n}
        first, end = span_of(rows, acts)
        world = {
            "interval_s": INTERVALS,
            "since": [START_MINUTE + 1] * len(INTERVALS),
            "adapter": ADAPTERS,
            "closed_ns": acts[-1][1] - reference.DELAYED_NS,
            "outages": [
                (kind, name, a // MINUTE_NS, b // MINUTE_NS)
                for (kind, name, a), b in life.outages.items()
            ],
        }
        edges = list(range(first, end + 1))
        for minute, sums in zip(edges, Books(life.ledger.store).sums(edges), strict=False):
            for point in range(len(INTERVALS)):
                due, got, reason = reference.settle(book, minute=minute, point=point, world=world)
                if minute > acts[-1][1] // MINUTE_NS:
                    due, got, reason = 0, 0, "none"
                seen = (int(sums["due"][point]), int(sums["got"][point]), reason_of(sums, point))
                assert seen == (due, got, reason), (minute - START_MINUTE, point)
    finally:
        life.ledger.close()
        shutil.rmtree(folder)


def counted(life: Life) -> dict:
    found = Counter()
    for minute, cells in life.ledger.store.minutes(-(2**60), 2**60).items():
        for column, counts in cells.columns.items():
            for point in np.flatnonzero(counts).tolist():
                found[Column(column).name, minute, point] += int(counts[point])
    return dict(found)


def reason_of(sums, point: int) -> str:
    found = [r.word for r in GAP_REASONS if sums[f"gap.{r.word}"][point]]
    assert len(found) <= 1, "a minute of a point has one reason"
    return found[0] if found else "none"


@given(history=histories(), data=st.data())
@settings(max_examples=CASES, deadline=None)
@pytest.mark.slow
def test_the_books_balance_and_never_claim_what_a_consumer_has_not(history, data) -> None:
    rows, acts = history
    folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        life = live(folder, rows, acts, data.draw)
        ledger, head = life.ledger, len(rows)
        committed = data.draw(st.integers(0, head))
        live_from = data.draw(st.integers(committed, head))
        live_to = data.draw(st.integers(live_from, head))
        done = {*range(committed), *range(live_from, live_to)}
        refused = sorted(
            data.draw(st.sets(st.sampled_from(sorted(done)), max_size=5)) if done else ()
        )
        dropped = range(0)
        if committed and data.draw(st.booleans()):
            begin = data.draw(st.integers(0, committed - 1))
            dropped = range(begin, data.draw(st.integers(begin + 1, committed)))
            ledger.gave_up(STORE, dropped.start, dropped.stop, Reason.DROPPED_BUDGET, acts[-1][1])
        refused = [offset for offset in refused if offset not in dropped]
        for lane, part in ((STORE, range(committed)), (STORE + "/live", range(live_from, live_to))):
            mine = [offset for offset in refused if offset in part]
            for _ in range(2):  # told again after a crash
                ledger.refused(lane, mine, batch_of([rows[offset] for offset in mine]))
        ledger._begins = {JUDGE: 0, STORE: 0}
        life.consumers = [
            Progress(JUDGE, "judge", head),
            Progress(STORE, "store", committed, live_from, live_to),
        ]
        life.beat(acts[-1][1], {"a": True, "b": True})
        ledger.flush()
        first, end = span_of(rows, acts)
        (sums,) = Books(ledger.store).sums([first, end])
        for point in range(len(INTERVALS)):
            known = [o for o, r in enumerate(rows) if r.point == point and r.minute <= end - 1]
            known = [o for o in known if rows[o].minute <= acts[-1][1] // MINUTE_NS]
            check_balance(sums, point, len(known))
            has = int(sums[f"has|{STORE}"][point])
            truly = [o for o in known if o in done and o not in refused and o not in dropped]
            assert has <= len(truly)
            assert int(sums[f"rejected|{STORE}"][point]) <= sum(o in refused for o in known)
            if committed == head and not dropped:
                assert has == len(truly)
                assert int(sums[f"rejected|{STORE}"][point]) == sum(o in refused for o in known)
    finally:
        life.ledger.close()
        shutil.rmtree(folder)


def check_balance(sums, point: int, row_count: int) -> None:
    """due = got + reasons; rows = what each consumer has + reasons."""
    gaps = sum(int(sums[f"gap.{reason.word}"][point]) for reason in GAP_REASONS)
    assert sums["due"][point] == sums["got"][point] + gaps
    dark = sum(int(sums[f"dark.{reason.word}"][point]) for reason in GAP_REASONS)
    assert sums["min_due"][point] == sums["min_on"][point] + dark
    assert sums["good"][point] + sums["bad"][point] + sums["repeat"][point] == row_count
    for consumer in (JUDGE, STORE):
        names = [name for name in sums if name.endswith("|" + consumer)]
        assert sum(int(sums[name][point]) for name in names) == row_count
