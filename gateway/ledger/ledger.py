"""The ledger as the runtime holds it: counts rows, hears beats and verdicts, flushes.

    rows ─count─▶ open minutes ─┐
    beat: we run, who is down ──┼─flush─▶ one transaction with the offset counted to
    how far each consumer is ───┘
    refused · gave_up ─────────────────▶ a transaction of their own, before the consumer commits

What is counted twice for a crash is counted once: rows since the last flush are read again from the
spool, which keeps them until the cursor is committed, and that is after the flush. A verdict is
durable before the consumer's own commit; a consumer that repeats itself after a crash repeats
offsets, and offsets below the last one on record of its lane are passed over.

Down is what nobody can write down while it lasts: at the first beat after a start, the time since
the last beat on record is booked as our own. Not here: waiting, reading, the clock itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.ledger.cells import NO_OFFSET, Array, pack, unpack
from gateway.ledger.count import MINUTE_NS, NEVER_NS, RECENT, Counter, is_absurd
from gateway.ledger.settle import MINUTE_S, Reason, due_of
from gateway.ledger.store import Store
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.model.point import PointTable

NS_PER_S = 1_000_000_000
STEP_NS = 30 * NS_PER_S  # a wall clock that moved so much against the other was set (engineering)
PAUSE_NS = 60 * NS_PER_S  # no beat for a whole minute: we did not run
OPEN_BYTES_MAX = 32 << 20  # of minutes not flushed yet; then they are
MINUTES_PER_DAY = 1440


@dataclass(frozen=True)
class LedgerOptions:
    """What `[ledger]` says."""

    delayed_after_s: float = 120.0
    clock_tolerance_s: float = 5.0
    keep_minutes_days: int = 35
    keep_days: int = 400


@dataclass(frozen=True)
class Progress:
    """How far a consumer is: it is done with every row before `committed`, and with those of
    [live_from, live_to) where it serves live rows before its backlog."""

    name: str  # of its cursor
    role: str  # judge, store, forward
    committed: int
    live_from: int = 0
    live_to: int = 0


@dataclass
class _Clock:
    """The last beat."""

    wall_ns: int = 0  # 0: none on record
    monotonic_ns: int | None = None  # None: not since the start


@dataclass
class Ledger:
    """Open with `open_ledger`. Calls may come from any thread."""

    store: Store
    options: LedgerOptions
    counter: Counter
    offset: int | None  # rows before it are counted; None: the books are new
    skipped_rows: int = 0  # offsets that were never seen: lost rows, and numbers left out
    known_ns: int = 0  # everything received before it is counted
    last_received_ns: int = 0
    _beat: _Clock = field(default_factory=_Clock)
    _down: dict[tuple[Reason, str], int] = field(default_factory=dict)  # -> since
    _outages: dict[tuple[Reason, str, int], int] = field(default_factory=dict)  # -> until
    _progress: dict[str, Progress] = field(default_factory=dict)
    _begins: dict[str, int] = field(default_factory=dict)
    _plan: dict[str, Array] = field(default_factory=dict)
    _plan_minutes: dict[int, bytes] = field(default_factory=dict)  # to be written
    _points_version: int = -1
    _names: list[tuple[Any, ...]] = field(default_factory=list)  # to be written
    _named: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _seen_to: dict[str, int] = field(default_factory=dict)  # lane -> last offset judged upon
    _rows_since_flush: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # ------------------------------------------------------------------ rows

    def count(self, start: int, batch: Batch) -> None:
        """Rows [start, start + len) of the spool; those counted before are passed over."""
        with self._lock:
            end = start + len(batch)
            if self.offset is not None:
                if start > self.offset:
                    self._lost(start, int(batch.received_time_ns[0]))
                elif start < self.offset:
                    batch = batch.take(slice(min(self.offset - start, len(batch)), None))
                    start = self.offset
            if not len(batch):
                return
            self.counter.count(batch, start)
            self.offset = end
            self.last_received_ns = int(batch.received_time_ns.max())
            self._rows_since_flush += len(batch)

    def _lost(self, start: int, received_ns: int) -> None:
        assert self.offset is not None
        self.skipped_rows += start - self.offset
        since = self.last_received_ns or received_ns
        self._outages[Reason.LOST_DAMAGE, "", min(since, received_ns)] = max(since, received_ns)

    @property
    def is_full(self) -> bool:
        return self.counter.size_bytes > OPEN_BYTES_MAX

    def begin_anew_at(self, offset: int) -> None:
        """The spool is not the one that was counted: its offsets mean other rows. What was counted
        stays; which consumer has it, nobody can say any more. Raises StorageFault."""
        with self._lock, self.store.transaction():
            self.store.put(
                "UPDATE minute SET first = ?, last = ?, delayed_first = ?, delayed_last = ?",
                [(NO_OFFSET,) * 4],
            )
            for table in ("verdict", "dropped", "consumer"):
                self.store.put(f"DELETE FROM {table}", [()])  # noqa: S608  words of ours
            self.store.put_state(offset=offset)
            self.offset = offset
            self._seen_to, self._begins = {}, {}

    # ------------------------------------------------------------------ who is there

    def describe(self, points: PointTable, now_ns: int) -> None:
        """Take in what is expected, if it changed: it holds from the next minute on."""
        with self._lock:
            if points.version == self._points_version:
                return
            listed, self._points_version = list(points), points.version
            interval_s = np.array([p.interval_s or 0.0 for p in listed], np.float64)
            self.counter.grow(len(listed))
            minute = now_ns // MINUTE_NS + 1
            old = self._plan.get("interval_s", np.empty(0))
            if not np.array_equal(old, interval_s):
                since = np.full(len(listed), minute, np.int64)
                kept = np.flatnonzero(old == interval_s[: len(old)])
                since[kept] = self._plan["since"][kept] if len(kept) else since[kept]
                self._plan = {"interval_s": interval_s, "since": since}
                self._plan_minutes[minute] = pack(self._plan)
            for index, point in enumerate(listed):
                name = (index, point.id, point.name, point.device, point.adapter, point.area)
                if self._named.get(index) != name:
                    self._named[index] = name
                    self._names.append(name)

    def beat(
        self,
        now_ns: int,
        monotonic_ns: int,
        *,
        is_read: bool,
        adapters: Mapping[str, bool],
        consumers: Sequence[Progress],
    ) -> None:
        """We run. `is_read`: every durable row has been counted. `adapters`: name -> is it up."""
        with self._lock:
            self._mark_time(now_ns, monotonic_ns)
            for name, is_up in adapters.items():
                key = (Reason.ADAPTER_DOWN, name)
                if not is_up:
                    since = self._down.setdefault(key, now_ns)
                    self._outages[*key, since] = max(now_ns, since)
                elif key in self._down:
                    since = self._down.pop(key)
                    self._outages[*key, since] = max(now_ns, since)
            for gone in set(self._down) - {(Reason.ADAPTER_DOWN, name) for name in adapters}:
                del self._down[gone]
            is_new = not self._begins
            for each in consumers:
                self._begins.setdefault(each.name, 0 if is_new else each.committed)
            self._progress = {each.name: each for each in consumers}
            known_ns = now_ns if is_read else min(now_ns, self.last_received_ns)
            self.known_ns = known_ns if now_ns < self.known_ns else max(self.known_ns, known_ns)

    def _mark_time(self, now_ns: int, monotonic_ns: int) -> None:
        last = self._beat
        if last.monotonic_ns is None:
            if 0 < last.wall_ns < now_ns:
                self._outages[Reason.GATEWAY_DOWN, "", last.wall_ns] = now_ns
        else:
            lived_ns, shown_ns = monotonic_ns - last.monotonic_ns, now_ns - last.wall_ns
            if abs(shown_ns - lived_ns) > STEP_NS:
                first, until = sorted((last.wall_ns, now_ns))
                self._outages[Reason.CLOCK, "", first] = until
            elif lived_ns > PAUSE_NS:
                self._outages[Reason.GATEWAY_DOWN, "", last.wall_ns] = now_ns
        self._beat = _Clock(now_ns, monotonic_ns)

    def outage(self, reason: Reason, from_ns: int, to_ns: int, name: str = "") -> None:
        """Something of ours kept rows out between two moments: intake that refused or thinned."""
        with self._lock:
            key = (reason, name, from_ns)
            self._outages[key] = max(to_ns, self._outages.get(key, to_ns))

    # ------------------------------------------------------------------ verdicts

    def refused(
        self, lane: str, offsets: Sequence[int], batch: Batch, reason: Reason = Reason.REJECTED
    ) -> int:
        """A consumer will never take these rows. Durable on return; how many were new.

        `offsets` ascend, one a row. Raises StorageFault.
        """
        with self._lock:
            at = np.asarray(offsets, np.int64)
            new = at > self._seen_to.get(lane, -1)
            at, rows = at[new], batch.take(new)
            if not len(at):
                return 0
            absurd = is_absurd(rows, self.counter.clock_tolerance_ns)
            time_ns = np.where(absurd, rows.received_time_ns, rows.source_time_ns)
            minute = time_ns // MINUTE_NS
            body = pack(
                {"offset": at - at[0], "minute": minute, "point": rows.point_index.astype("<i4")}
            )
            first, last = int(at[0]), int(at[-1])
            span = int(minute.min()), int(minute.max())
            with self.store.transaction():
                self.store.put(
                    "INSERT OR IGNORE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(lane, first, last, int(reason), *span, body)],
                )
                self._forget_hours(span[0], span[1])
            self._seen_to[lane] = last
            return len(at)

    def gave_up(self, lane: str, first: int, end: int, reason: Reason, now_ns: int) -> None:
        """A consumer passes over rows [first, end). Durable on return. Raises StorageFault."""
        if end <= first:
            return
        with self._lock, self.store.transaction():
            self.store.put(
                "INSERT OR REPLACE INTO dropped VALUES (?, ?, ?, ?, ?)",
                [(lane, first, end, int(reason), now_ns)],
            )

    # ------------------------------------------------------------------ to disk

    def flush(self) -> int | None:
        """Everything into the store; the offset that may be committed. Raises StorageFault, after
        which what was counted is still held and the next flush tries again."""
        with self._lock:
            with self.store.transaction():
                for minute, cells in self.counter.open_minutes.items():
                    self.store.add_minute(minute, cells)
                for minute in self.counter.open_minutes:
                    self._forget_hours(minute, minute)
                self._put_plan()
                self._put_outages()
                self._put_progress()
                self._put_state()
            self.counter.open_minutes = {}
            self._plan_minutes, self._names = {}, []
            open_keys = {(*key, since) for key, since in self._down.items()}
            self._outages = {key: end for key, end in self._outages.items() if key in open_keys}
            self._rows_since_flush = 0
            return self.offset

    def _put_plan(self) -> None:
        self.store.put(
            "INSERT OR REPLACE INTO plan VALUES (?, ?)", list(self._plan_minutes.items())
        )
        self.store.put("INSERT OR REPLACE INTO point VALUES (?, ?, ?, ?, ?, ?)", self._names)

    def _put_outages(self) -> None:
        rows = [(int(kind), name, a, b) for (kind, name, a), b in self._outages.items()]
        self.store.put("INSERT OR REPLACE INTO outage VALUES (?, ?, ?, ?)", rows)

    def _put_progress(self) -> None:
        if self._progress:
            self.store.put("DELETE FROM consumer", [()])
        rows = [
            (each.name, each.role, self._begins[each.name], *_reach(each))
            for each in self._progress.values()
        ]
        self.store.put("INSERT INTO consumer VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _put_state(self) -> None:
        self.store.put_state(
            offset=self.offset,
            beat_ns=self._beat.wall_ns,
            known_ns=self.known_ns,
            last_received_ns=self.last_received_ns,
            skipped_rows=self.skipped_rows,
            too_old=self.counter.too_old_count,
            delayed_after_ns=self.counter.delayed_after_ns,
        )
        if self._rows_since_flush:
            self.store.put_state(recent=_packed_recent(self.counter))

    def _forget_hours(self, first: int, last: int) -> None:
        """Sums in which these minutes count, or may count as the last sample of a slow point."""
        reach = int(due_of(self._plan["interval_s"])[1].max(initial=0)) if self._plan else 0
        self.store.put(
            "DELETE FROM hour WHERE hour BETWEEN ? AND ?",
            [(first // MINUTE_S, (last + reach) // MINUTE_S)],
        )

    def keep_hours(self, settled: Iterable[tuple[int, bytes]]) -> int:
        """Keep the sums of settled hours; how many. Raises StorageFault."""
        rows = list(settled)
        with self._lock, self.store.transaction():
            self.store.put("INSERT OR REPLACE INTO hour VALUES (?, ?)", rows)
        return len(rows)

    def minutes_from(self, now_ns: int) -> int:
        """The oldest minute that is kept as such."""
        return now_ns // MINUTE_NS - self.options.keep_minutes_days * MINUTES_PER_DAY

    def prune(self, now_ns: int) -> None:
        """Forget what the books no longer have to show. Raises StorageFault."""
        minute = now_ns // MINUTE_NS
        minutes_from = self.minutes_from(now_ns)
        hours_from = minute - self.options.keep_days * MINUTES_PER_DAY
        with self._lock, self.store.transaction():
            self.counter.oldest_minute = minutes_from
            for statement, before in (
                ("DELETE FROM minute WHERE minute < ?", minutes_from),
                ("DELETE FROM verdict WHERE to_minute < ?", minutes_from),
                ("DELETE FROM dropped WHERE at_ns < ?", hours_from * MINUTE_NS),
                ("DELETE FROM outage WHERE to_ns < ?", minutes_from * MINUTE_NS),
                ("DELETE FROM hour WHERE hour < ?", hours_from // MINUTE_S),
            ):
                self.store.put(statement, [(before,)])
            self.store.put(
                "DELETE FROM plan WHERE minute < (SELECT max(minute) FROM plan WHERE minute <= ?)",
                [(minutes_from,)],
            )
        self.store.ask("PRAGMA incremental_vacuum")

    def close(self) -> None:
        with self._lock:
            self.store.close()


def open_ledger(directory: Path, options: LedgerOptions) -> Ledger:
    """Open, go on where the last flush ended. Raises StorageFault when the disk refuses; a damaged
    file is set aside and `store.set_aside` names it."""
    store = Store.open(directory)
    counter = Counter(
        int(options.clock_tolerance_s * NS_PER_S), int(options.delayed_after_s * NS_PER_S)
    )
    try:
        state = store.state()
        ledger = Ledger(
            store,
            options,
            counter,
            state.get("offset"),
            skipped_rows=state.get("skipped_rows", 0),
            known_ns=state.get("known_ns", 0),
            last_received_ns=state.get("last_received_ns", 0),
        )
        ledger._beat = _Clock(state.get("beat_ns", 0))  # noqa: SLF001  its builder
        counter.too_old_count = state.get("too_old", 0)
        if state.get("recent"):
            _unpack_recent(counter, state["recent"])
        _restore(ledger)
    except (ValueError, KeyError, StorageFault):
        store.close()
        raise
    return ledger


def _restore(ledger: Ledger) -> None:
    store = ledger.store
    for _, body in store.ask("SELECT * FROM plan ORDER BY minute DESC LIMIT 1"):
        ledger._plan = plan_of(body)  # noqa: SLF001
    ledger._named = {row[0]: row for row in store.ask("SELECT * FROM point")}  # noqa: SLF001
    ledger._begins = dict(store.ask("SELECT name, begins FROM consumer"))  # noqa: SLF001
    ledger._seen_to = dict(store.ask("SELECT lane, max(last) FROM verdict GROUP BY lane"))  # noqa: SLF001


def plan_of(body: bytes) -> dict[str, Array]:
    """What was expected from a minute on: `interval_s` of every point, 0 for none, and `since`."""
    found = unpack(body)
    size = max((len(each) for each in found.values()), default=0)
    return {
        "interval_s": found.get("interval_s", np.zeros(size)),
        "since": found.get("since", np.zeros(size, np.int64)).astype(np.int64),
    }


def _reach(each: Progress) -> tuple[int, int, int]:
    return each.committed, each.live_from, each.live_to


def _packed_recent(counter: Counter) -> bytes:
    arrays: dict[str, Array] = {"newest": counter.newest_ns, "turn": counter.turn}
    for turn in range(RECENT):
        arrays[f"recent{turn}"] = counter.newest_ns - counter.recent_ns[:, turn]
    return pack(arrays, level=1)


def _unpack_recent(counter: Counter, body: bytes) -> None:
    found = unpack(body)
    newest = found["newest"].astype(np.int64)
    counter.newest_ns = newest
    counter.turn = found.get("turn", np.zeros(len(newest))).astype(np.uint8)
    counter.recent_ns = np.full((len(newest), RECENT), NEVER_NS)
    for turn in range(RECENT):
        back = found.get(f"recent{turn}", np.zeros(len(newest), np.int64)).astype(np.int64)
        counter.recent_ns[:, turn] = newest - back
