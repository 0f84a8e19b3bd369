"""An account for the plant of `FakeCore`: the real settling over invented counts.

Most points are there all the time. A few have a story, by index: silent for the last hours, bad for
a while, filled in late; all of them miss the minutes in which the gateway did not run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from gateway.ledger.account import Account, Request, account
from gateway.ledger.books import Books
from gateway.ledger.cells import Cells, Column, Counts
from gateway.ledger.ledger import Ledger, LedgerOptions, Progress, open_ledger
from gateway.ledger.settle import Reason
from gateway.model.point import PointTable

MINUTE_NS = 60_000_000_000
INVENTED_MINUTES = 26 * 60
UNCOUNTED_MINUTES = 2  # the newest: rows of them may still be on their way
DOWN = range(431, 440)  # minutes before now in which we did not run
STORIES = {3: ("", 190), 8: ("BAD", 75), 14: ("GOOD_DELAYED", 300), 21: ("", 40)}  # since


def invented(points: PointTable, request: Request, now_minute: int) -> Account:
    """Deterministic but for the time it is counted from. Takes a while: not in an event loop."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder), LedgerOptions())
        try:
            _fill(ledger, points, now_minute - UNCOUNTED_MINUTES)
            return account(Books(ledger.store), request)
        finally:
            ledger.close()


def _fill(ledger: Ledger, points: PointTable, now_minute: int) -> None:
    first = now_minute - INVENTED_MINUTES
    ledger.describe(points, (first - 1) * MINUTE_NS)
    samples = np.array([max(1, int(60 / (p.interval_s or 60))) for p in points], np.uint32)
    bodies: dict[tuple[bool, ...], bytes] = {}  # most minutes are like the one before
    rows = []
    for minute in range(first, now_minute):
        ago, offset = now_minute - minute, minute - first
        kind = (ago in DOWN, *(ago <= since for _, since in STORIES.values()))
        if kind not in bodies:
            bodies[kind] = _minute(samples, ago).packed()
        rows.append((minute, offset, offset, offset, offset, bodies[kind]))
    with ledger.store.transaction():
        ledger.store.put("INSERT INTO minute VALUES (?, ?, ?, ?, ?, ?)", rows)
    ledger.offset = INVENTED_MINUTES
    from_ns, to_ns = ((now_minute - ago) * MINUTE_NS for ago in (DOWN[-1], DOWN[0]))
    ledger.outage(Reason.GATEWAY_DOWN, from_ns, to_ns)
    consumers = [
        Progress("judge", "judge", INVENTED_MINUTES),
        Progress("sink.store", "store", INVENTED_MINUTES - 45),
        Progress("sink.broker", "forward", INVENTED_MINUTES - 2),
    ]
    ledger.beat(now_minute * MINUTE_NS, 0, is_read=True, adapters={}, consumers=consumers)
    ledger.flush()


def _minute(samples: Counts, ago: int) -> Cells:
    cells = Cells(len(samples))
    if ago in DOWN:
        return cells
    good = cells.columns[Column.GOOD] = samples.copy()
    for index, (story, since) in STORIES.items():
        if ago > since:
            continue
        good[index] = 0
        if story:
            cells.column(Column[story])[index] = samples[index]
    return cells
