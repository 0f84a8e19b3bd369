"""The consumers that store: samples from the spool to the sample sinks. One task and one connection
for each sink, so that none can delay another.

Nothing is committed before every row was accepted or rejected. `Unavailable` means the same rows
again after back-off; `Refused` means that some row is poison: the batch is halved until the poison
stands alone, which is set aside with its reason while its neighbours go on. p poison rows among n
cost about 2 p log2(n / p) further writes, 2 n - 1 at the very most.

A sink that is far behind gets live rows first and its backlog behind them (lanes.py). A write that
does not return is cut after a while and tried again in halves: one that is only slow gets through.

Not here: alarms (telling.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from gateway.config.schema import DeliverySection
from gateway.contract.adapter import Counters
from gateway.contract.sink import SampleSink, WriteResult
from gateway.model.batch import COLUMNS, Batch
from gateway.model.errors import Refused, Unavailable
from gateway.model.point import PointTable
from gateway.runtime.counters import StatusCell
from gateway.runtime.lanes import Lanes, Portion, Turns
from gateway.runtime.supervisor import Backoff
from gateway.spool import Cursor, Window

log = logging.getLogger(__name__)

WRITE_ROWS_MAX = 10_000
_SET_ASIDE_BYTES_MAX = 64 << 20  # beyond it rejected rows are counted and logged, no longer kept
_OPEN_TIMEOUTS = 10  # a store may read itself whole when it is opened: so many write time-outs
_CLOSE_TIMEOUT_S = 8.0  # shorter than what stopping waits for a task; engineering


class SetAside:
    """Rejected rows with their reason, one JSON line each, for a person to look at."""

    def __init__(self, path: Path, points: PointTable, counters: Counters) -> None:
        self._path = path
        self._points = points
        self._counters = counters

    def put(self, batch: Batch, rows: Sequence[int], reasons: Sequence[str]) -> None:
        for reason in reasons:
            self._counters.count("rejected", reason=reason.partition(":")[0])
        log.error("%d samples refused for good, the first: %s", len(rows), reasons[0])
        if self._path.exists() and self._path.stat().st_size > _SET_ASIDE_BYTES_MAX:
            self._counters.count("set_aside_full", len(rows))
            return
        with self._path.open("a", encoding="utf-8") as file:
            for row, reason in zip(rows, reasons, strict=True):
                line = {name: getattr(batch, name)[row].item() for name, _ in COLUMNS}
                line["point"] = self._points[line["point_index"]].id
                line["value"] = None if line["value"] != line["value"] else line["value"]
                file.write(json.dumps({**line, "reason": reason}, ensure_ascii=False) + "\n")


class Verdicts(Protocol):
    """Whoever keeps account of what a sink will never have. Neither call raises, and both return
    before the sink commits."""

    async def refused(self, lane: str, offsets: Sequence[int], batch: Batch) -> None:
        """Rows of `lane` (the name of a cursor), at these offsets."""
        ...

    async def gave_up(self, lane: str, first: int, end: int) -> None:
        """Rows [first, end)."""
        ...


@dataclass
class SampleDelivery:
    """Feeds one sample sink."""

    name: str
    lanes: Lanes
    sink: SampleSink
    set_aside: SetAside
    counters: Counters
    status: StatusCell
    backoff: Backoff
    limits: DeliverySection = field(default_factory=DeliverySection)
    verdicts: Verdicts | None = None
    linger_s: float = 0.5  # how long to wait for a fuller batch; a store likes few large writes
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic_s: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    stored_count: int = field(default=0, init=False)
    duplicate_count: int = field(default=0, init=False)
    rejected_count: int = field(default=0, init=False)
    dropped_count: int = field(default=0, init=False)
    thinned_count: int = field(default=0, init=False)
    turns: Turns = field(init=False)
    _forget_to: int = field(default=0, init=False)
    _thinned: dict[tuple[int, int], int] = field(default_factory=dict, init=False)  # [first, end)
    # of a window -> the first of its rows that is there
    _is_up: bool = field(default=False, init=False)  # the last write was answered
    _away_since: int | None = field(default=None, init=False)  # where the head was then
    _live_at_s: float = field(default=0.0, init=False)  # when live rows were written last

    def __post_init__(self) -> None:
        self.turns = Turns(self.limits.backlog_share)
        self._away_since = self._lane.committed  # what an earlier process left behind counts

    @property
    def cursor(self) -> Cursor:
        """The one that everything before is done at."""
        return self.lanes.main

    @property
    def behind(self) -> int:
        """Durable rows not committed yet."""
        return self.lanes.behind

    def forget(self, offset: int) -> None:
        """Give up the rows before `offset`: the spool's budget is spent on what this sink is
        behind. Taken up by the running task, which counts what it drops."""
        self._forget_to = max(self._forget_to, offset)

    def count_thinned(self, rows: int, windows: Sequence[Window]) -> None:
        """So many rows fewer will come: the spool was full (room.py). They are counted now, so not
        again where what is left of their windows is dropped."""
        self.counters.count("thinned", rows, reason="spool_budget")
        self.thinned_count += rows
        committed = self.cursor.committed
        self._thinned = {span: end for span, end in self._thinned.items() if span[1] > committed}
        self._thinned |= {(w.first, w.end): w.end - w.kept for w in windows if w.end > committed}

    async def _drop_forgotten(self) -> None:
        if self.cursor.committed >= self._forget_to:
            return
        if self.verdicts is not None:
            end = self.lanes.end_of_backlog(self._forget_to)
            await self.verdicts.gave_up(self.cursor.name, self.cursor.committed, end)
        first = self.cursor.committed
        dropped = await self.lanes.give_up(self._forget_to)
        dropped -= _thinned_away(self._thinned, first, first + dropped)
        self.counters.count("dropped", dropped, reason="spool_budget")
        self.dropped_count += dropped
        log.error("%s: %d samples dropped, the spool is full", self.name, dropped)

    # --- life

    async def run(self) -> None:
        """Serve until cancelled. Raises what the supervisor must decide on."""
        self.status("connecting")
        self._goes_away()
        await self._drop_forgotten()
        try:
            await self._open()
            self._say_connected()
            while True:
                await self._drop_forgotten()
                await self._look_at_lanes()
                portion = await self._choose()
                if portion is not None:
                    await self._serve(portion)
        finally:
            self.lanes.rewind()
            await self._close()

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUTS * self.limits.write_timeout_s):
                await self.sink.open()
        except TimeoutError as error:
            raise Unavailable(f"the store does not open: {error}") from error

    async def _close(self) -> None:
        """Within reason: a store that hangs must not keep the others from stopping."""
        closing = asyncio.ensure_future(self.sink.close())
        await asyncio.wait({closing}, timeout=_CLOSE_TIMEOUT_S)
        if closing.done():
            closing.result()
            return
        closing.cancel()
        self.counters.count("abandoned", reason="close")
        log.error("%s: the store does not close within %.0f s", self.name, _CLOSE_TIMEOUT_S)

    def _say_connected(self) -> None:
        """Unless the sink has said something worse of itself (a store set aside as damaged)."""
        if self.status.state not in {"connecting", "waiting", "connected"}:
            return
        self.status("connected", self._progress() if self.lanes.is_split else "")

    def _progress(self) -> str:
        share, rows_per_s = self.turns.measured()
        return (
            f"live first; backlog {self.lanes.backlog} rows, {rows_per_s:.0f} rows/s, "
            f"{100 * share:.0f} % of the write time"
        )

    # --- lanes

    async def _look_at_lanes(self) -> None:
        """Join what is drained; begin a live lane once a store that is far behind answers."""
        lanes = self.lanes
        if lanes.is_drained:
            await self._join()
        if not self._is_up:
            return
        missed = lanes.behind
        if lanes.is_split:  # again only after an outage, not because the store is slow
            missed = 0 if self._away_since is None else self._head - self._away_since
        self._away_since = None
        if missed > self.limits.live_first_after_rows:
            self.turns.reset()
            await lanes.begin()
            self.counters.count("live_first")
            log.warning("%s: %d rows behind; live rows go first", self.name, lanes.backlog)

    def _goes_away(self) -> None:
        self._is_up = False
        if self._away_since is None:
            self._away_since = self._head

    @property
    def _lane(self) -> Cursor:
        """The one that newest rows come in by."""
        return self.lanes.live or self.lanes.main

    @property
    def _head(self) -> int:
        return self._lane.position + self._lane.depth

    async def _join(self) -> None:
        """One lane again. The sink is told that nothing older comes, so that it takes what the
        live lane wrote for no gap."""
        live = self.lanes.live
        if live is not None:
            with contextlib.suppress(Unavailable):  # at worst it counts rows missing that it has
                await self._bounded(Portion(Batch.empty(), live.committed))
        await self.lanes.join()
        self._say_connected()
        log.info("%s: the backlog is stored", self.name)

    async def _choose(self) -> Portion | None:
        """The rows to write next. None: a lane ended, look again."""
        lanes = self.lanes
        if not lanes.is_split:
            return await self._gather()
        if not self.turns.is_backlogs(live_waits=self._live_waits()):
            return await lanes.read(WRITE_ROWS_MAX, ahead=True)
        portion = await lanes.read(WRITE_ROWS_MAX, ahead=False)
        if portion is None:
            await lanes.skip_lost()
        return portion

    def _live_waits(self) -> bool:
        """Whether the live lane has a full batch, or has had rows for `linger_s`."""
        live = self.lanes.live
        if live is None or not live.depth:
            return False
        is_due = self.monotonic_s() - self._live_at_s >= self.linger_s
        return is_due or live.depth >= WRITE_ROWS_MAX

    async def _gather(self) -> Portion:
        """The next rows: at once when there are many, after `linger_s` when there are few."""
        portion = await self.lanes.next(WRITE_ROWS_MAX)
        if len(portion.batch) >= WRITE_ROWS_MAX:
            return portion
        await self.sleep(self.linger_s)
        return await self.lanes.more(portion, WRITE_ROWS_MAX)

    async def _serve(self, portion: Portion) -> None:
        is_split, live_waited = self.lanes.is_split, self._live_waits()
        began_s = self.monotonic_s()
        await self._write(portion)
        if self._forget_to >= portion.end:
            return  # given up meanwhile; `_drop_forgotten` counts them
        await self.lanes.commit(portion)
        if not is_split:
            return
        now_s, rows = self.monotonic_s(), len(portion.batch)
        self.counters.count("written", rows, reason="live" if portion.ahead else "backlog")
        self.turns.took(now_s, now_s - began_s, rows, ahead=portion.ahead, live_waited=live_waited)
        if portion.ahead:
            self._live_at_s = now_s
        self._say_connected()

    # --- writing

    async def _write(self, portion: Portion) -> None:
        """Until every row is accepted or rejected; Unavailable is waited out here, so that the rows
        in hand are not read again."""
        while True:
            try:
                result = await self._bounded(portion)
            except Unavailable as error:
                await self._wait(error)
                if self._forget_to >= portion.end:
                    return
                if isinstance(error, _TooSlow) and len(portion.batch) > 1:
                    await self._halves(portion)
                    return
                continue
            except Refused as error:
                if len(portion.batch) > 1:
                    await self._halves(portion)
                else:
                    await self._reject(portion, [0], [str(error)])
                return
            self.backoff.reset()
            self._is_up = True
            self._say_connected()
            self.stored_count += result.accepted
            self.duplicate_count += result.duplicate
            if len(result.rejected):
                await self._reject(portion, result.rejected.tolist(), result.reasons)
            return

    async def _bounded(self, portion: Portion) -> WriteResult:
        """One write. Raises Unavailable when it does not return: the store may still have it."""
        limit = asyncio.timeout(self.limits.write_timeout_s)
        try:
            async with limit:
                if portion.ahead:
                    return await self.sink.write(portion.batch, portion.end, ahead=True)
                return await self.sink.write(portion.batch, portion.end)
        except TimeoutError as error:
            if not limit.expired():
                raise Unavailable(f"timed out: {error}") from error
            self.counters.count("abandoned", reason="write")
            raise _TooSlow(
                f"a write did not return within {self.limits.write_timeout_s:g} s"
            ) from None

    async def _wait(self, error: Unavailable) -> None:
        self._goes_away()
        delay_s = self.backoff.next_s(error.retry_after_s)
        self.counters.count("retried")
        self.status("waiting", f"{error}; next try in {delay_s:.1f} s")
        await self.sleep(delay_s)

    async def _halves(self, portion: Portion) -> None:
        batch, half = portion.batch, len(portion.batch) // 2
        behind = len(batch) - half
        await self._write(Portion(batch.take(slice(0, half)), portion.end - behind, portion.ahead))
        await self._write(Portion(batch.take(slice(half, None)), portion.end, portion.ahead))

    async def _reject(self, portion: Portion, rows: Sequence[int], reasons: Sequence[str]) -> None:
        self.rejected_count += len(rows)
        self.set_aside.put(portion.batch, rows, reasons)
        if self.verdicts is not None:
            first, ascending = portion.end - len(portion.batch), sorted(rows)
            await self.verdicts.refused(
                self.lanes.lane_of(portion),
                [first + row for row in ascending],
                portion.batch.take(np.array(ascending, np.int64)),
            )


def _thinned_away(thinned: Mapping[tuple[int, int], int], begin: int, end: int) -> int:
    """How many of the rows [begin, end) are not there: the oldest of each window went."""
    return sum(max(0, min(end, there) - max(begin, first)) for (first, _), there in thinned.items())


class _TooSlow(Unavailable):
    """A write was cut. Fewer rows at a time may get through."""
