"""Judging stored history again: what back-test, explain and lint share. The core's own code only.

    Scan ─batches by receipt─▶ late rows last ─▶ RuleSet.evaluate ─▶ AlarmBook.apply ─▶ events
                                                 one of each per rule set, no journal

**In order of receipt**, because that is what the live judge saw: a backlog that came in hours late
met alarms of silence that had been raised meanwhile. Within a batch the rule core sorts by time
itself, so a batch may be large; it is cut into seconds only where rows came in later than
`LAG_NORMAL_NS` (or than the site's lateness). A row that newer ones overtook on the way was late
for the live judge; it is handed over after them here, and the core makes of it what it did then.

The clock follows the data `LAG_NORMAL_NS` behind the newest receipt, so that no timer fires before
samples of its time that are still to come; what a timer says carries its own exact time all the
same. Everything is settled at the end.

A store that cannot be scanned (another process's network database) is read through `History`, in
order of source time.

Not here: what is made of the events (backtest.py, explain.py, rule_lint.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alarm_rules.outline import Outline, outline_of
from alarm_rules.ruleset import RuleSet
from gateway.alarms.book import AlarmBook
from gateway.alarms.relations import above_in
from gateway.config import SiteConfig
from gateway.contract.history import History, Scan
from gateway.contract.sink import SampleSink, SinkContext
from gateway.model.alarm import AlarmEvent
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError, Fault, Refused
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule
from gateway.runtime.clock import now_ns
from gateway.runtime.core import NS_PER_S
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.judge import by_time
from gateway.runtime.live import effective_time_ns
from gateway.runtime.plugins import Plugins
from gateway.runtime.replay import copy_registry, named_points
from gateway.runtime.siterules import book_config
from gateway.spool.registry import Registry

LAG_NORMAL_NS = 60 * NS_PER_S
"""Between measurement and receipt: longer is a backlog, met as the live judge met it."""
RUNS_MAX = 256  # sorted runs of a store in one batch; more is data in order of arrival
RUN_ROWS_MIN = 20_000  # fewer are not worth a call of their own
BLOCK_ROWS = 1 << 16  # half a megabyte of a column: stays near the core
FINE_NS = NS_PER_S  # the width of a step through a backlog
HISTORY_ROWS_MAX = 1_000_000


# ---------------------------------------------------------------------- where history comes from


@contextlib.contextmanager
def open_points(config: SiteConfig, rules: Sequence[Rule]) -> Iterator[PointTable]:
    """The site's point table from a copy of its registry, which a running gateway may have open,
    with the points that only rules name behind it."""
    with tempfile.TemporaryDirectory(prefix="hazard-gateway-points-") as name:
        copy_registry(config.data_dir, Path(name))
        registry = Registry.open(Path(name) / "points", configured=config.points)
        try:
            table = copy_table(registry.table)
        finally:
            registry.close()
    for point_id in named_points(rules):
        if point_id not in table:
            table.put(Point(id=point_id))
    yield table


def copy_table(table: PointTable) -> PointTable:
    """The same points and devices under the same indices; each rule set adds its own behind."""
    copied = PointTable()
    for point in table:
        copied.put(point)
    for device in table.devices:
        copied.put_device(device)
    return copied


@contextlib.contextmanager
def open_scan(config: SiteConfig, plugins: Plugins, points: PointTable) -> Iterator[Scan]:
    """The site's history store. Raises ConfigError for a site that names none; Refused and
    Unavailable as the store does."""
    chosen = next((sink for sink in config.sinks if sink.name == config.history.sink), None)
    if chosen is None:
        expected = "the name of a sink that stores samples: there is no history without one"
        raise ConfigError([Fault(str(config.path), 0, "history.sink", expected)])
    kind = plugins.sinks[chosen.kind]
    context = SinkContext(
        name=chosen.name,
        tenant=config.site.tenant,
        site=config.site.id,
        points=points,
        now_ns=now_ns,
        counters=CounterTable().component(chosen.name),
        status=StatusCell(chosen.name),
        state_dir=config.data_dir / "sinks" / chosen.name,
    )
    scan: Scan
    if kind.open_scan is not None:
        scan = kind.open_scan(chosen.settings, context)
    else:
        sink = kind.build_samples(chosen.settings, context) if kind.build_samples else None
        if sink is None:
            raise Refused(f"sink {chosen.name}: stores no samples, so there is nothing to read")
        scan = HistoryScan(sink)
    try:
        yield scan
    finally:
        scan.close()


class HistoryScan:
    """A `Scan` over `History.read`, for stores that answer over the network. In order of source
    time: what a store across a network keeps of the time of receipt cannot be asked for."""

    def __init__(self, sink: SampleSink) -> None:
        self._sink = sink
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(sink.open())
        history = sink.history
        if history is None:
            self.close()
            raise Refused("the history sink cannot be read back")
        self._history: History = history

    def close(self) -> None:
        self._loop.run_until_complete(self._sink.close())
        self._loop.close()

    def span(self) -> tuple[int, int] | None:
        """Unknown until asked for: everything there may be."""
        return 0, 1 << 62

    def batches(
        self, from_ns: int, to_ns: int, points: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        at_ns, width_ns = from_ns, 3600 * NS_PER_S
        while at_ns < to_ns:
            next_ns = min(at_ns + width_ns, to_ns)
            found = self._loop.run_until_complete(
                self._history.read(points, at_ns, next_ns, rows_max=HISTORY_ROWS_MAX)
            )
            if found.truncated and width_ns > 1:
                width_ns = max(1, (next_ns - at_ns) // 2)
                continue
            if len(found):
                batch = found.batch
                time_ns = batch.source_time_ns
                yield Batch(batch.point_index, batch.value, batch.quality, time_ns, time_ns.copy())
            at_ns = next_ns
            width_ns = min(2 * width_ns, 86_400 * NS_PER_S)


# ---------------------------------------------------------------------- what a live judge met


@dataclass(frozen=True, slots=True)
class Step:
    """Rows to judge, and up to when everything is known after them."""

    batch: Batch
    known_ns: int
    outline: Outline | None = None  # of the batch; there is one only if nothing came late

    def pieces(self) -> Iterator[tuple[int, Outline | None]]:
        """(up to when everything is known, of which rows): the step by pieces of time."""
        if self.outline is None:
            yield self.known_ns, None
            return
        for outline, end_ns in self.outline.pieces():
            yield self.known_ns if end_ns is None else min(end_ns - 1, self.known_ns), outline


def steps(batches: Iterator[Batch], lateness_ns: int, late: LateFilter) -> Iterator[Step]:
    """Batches as one hands them to a rule set: run by run of the store, late rows last, backlogs
    second by second."""
    allowed_ns = lateness_ns or LAG_NORMAL_NS
    for batch in batches:
        outline = outline_of(batch)
        is_flagged = bool((batch.quality == Quality.UNCERTAIN_CLOCK).any())
        if outline is not None and (is_flagged or not outline.is_own_time):
            outline = outline.uncut()
        slack_ns = allowed_ns - _lag_max_ns(batch, outline, is_flagged=is_flagged)
        is_prompt = slack_ns >= 0
        behind_ns = allowed_ns - lateness_ns if is_prompt else 0
        parts = _runs(batch, outline, slack_ns) if is_prompt else _by_second(batch)
        for part, of_part in parts:
            known_ns = int(part.received_time_ns.max()) - behind_ns
            if not lateness_ns and late.is_in_order(of_part):
                yield Step(part, known_ns, of_part)
                continue
            for rows in [part] if lateness_ns else late.split(part):
                yield Step(rows, known_ns)


def _lag_max_ns(batch: Batch, outline: Outline | None, *, is_flagged: bool) -> int:
    """The longest time between measurement and receipt. `is_flagged`: a clock was wrong."""
    if is_flagged:
        return int((batch.received_time_ns - effective_time_ns(batch)).max())
    if outline is not None:
        return int(outline.lag_ns.max())
    received, source = batch.received_time_ns, batch.source_time_ns
    return max(
        int((received[at : at + BLOCK_ROWS] - source[at : at + BLOCK_ROWS]).max())
        for at in range(0, len(batch), BLOCK_ROWS)
    )


_Part = tuple[Batch, Outline | None]


def _runs(batch: Batch, outline: Outline | None, slack_ns: int) -> Iterator[_Part]:
    """What a store settled together: every point's rows in order of time, all of one run received
    before those of the next, give or take what the clock stays behind anyway. A batch that is not
    made of such runs stays whole."""
    point = batch.point_index if outline is None else outline.point
    edges = np.flatnonzero(point[1:] < point[:-1]) + 1
    if not 0 < len(edges) <= RUNS_MAX or len(batch) < RUN_ROWS_MIN * len(edges):
        yield batch, outline
        return
    spans = list(pairwise([0, *edges.tolist(), len(point)]))
    parts: list[_Part] = []
    for first, end in spans:
        if outline is None:
            parts.append((batch.take(slice(first, end)), None))
        else:
            rows = slice(int(outline.start[first]), int(outline.stop[end - 1]))
            parts.append((batch.take(rows), outline.part(slice(first, end))))
    ends = [(int(p.received_time_ns.min()), int(p.received_time_ns.max())) for p, _ in parts]
    is_ordered = all(before[1] - after[0] <= slack_ns for before, after in pairwise(ends))
    yield from parts if is_ordered else [(batch, outline)]


def _by_second(batch: Batch) -> Iterator[_Part]:
    batch = batch.take(np.argsort(batch.received_time_ns, kind="stable"))
    second = batch.received_time_ns // FINE_NS
    edges = np.flatnonzero(second[1:] != second[:-1]) + 1
    for rows in np.split(np.arange(len(batch)), edges):
        yield batch.take(slice(int(rows[0]), int(rows[-1]) + 1)), None


class LateFilter:
    """Finds rows that a newer sample of their point overtook: received after it, measured before.

    Cheap where nothing did: a store keeps a point's samples together in order of time, and then two
    comparisons of neighbours tell that the order of receipt is the same.
    """

    def __init__(self, point_count: int) -> None:
        self._newest = np.full(point_count, -(1 << 62), np.int64)
        self.late_count = 0

    def is_in_order(self, outline: Outline | None) -> bool:
        """Whether an outline shows that nothing overtook anything; then the newest are noted."""
        if outline is None or not outline.is_in_order.all():
            return False
        point = outline.point
        if (point[1:] <= point[:-1]).any() or (outline.first_ns < self._newest[point]).any():
            return False
        self._newest[point] = outline.last_ns
        return True

    def split(self, batch: Batch) -> list[Batch]:
        """The batch, or what came in order and then what came late."""
        late = self._late(batch)
        if late is None or not late.any():
            return [batch]
        self.late_count += int(np.count_nonzero(late))
        return [batch.take(~late), batch.take(late)]

    def _late(self, batch: Batch) -> NDArray[np.bool_] | None:
        if not len(batch):
            return None
        before = self._newest.copy()
        if self._is_plain(batch):
            return None
        self._newest = before
        return self._search(batch)

    def _is_plain(self, batch: Batch) -> bool:
        """Whether nothing overtook anything; notes the newest of every point on the way. Block by
        block: a comparison of a million rows at once costs more in memory than in thought."""
        point, time_ns, received = (
            batch.point_index,
            batch.source_time_ns,
            batch.received_time_ns,
        )
        heads = [np.zeros(1, np.int64)]
        for start in range(0, len(point) - 1, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, len(point) - 1)
            here, behind = slice(start, end), slice(start + 1, end + 1)
            other = point[behind] != point[here]
            back = time_ns[behind] < time_ns[here]
            back |= received[behind] < received[here]
            if (back & ~other).any():
                return False
            heads.append(np.flatnonzero(other) + (start + 1))
        head = np.concatenate(heads)
        tail = np.append(head[1:], len(point)) - 1
        of_head = point[head]
        runs = np.append(np.flatnonzero(of_head[1:] < of_head[:-1]) + 1, len(head))
        if len(runs) > RUNS_MAX:
            return False
        start = 0
        for end in runs.tolist():  # each run has every point once, in ascending order
            points = of_head[start:end]
            if (time_ns[head[start:end]] < self._newest[points]).any():
                return False
            self._newest[points] = time_ns[tail[start:end]]
            start = end
        return True

    def _search(self, batch: Batch) -> NDArray[np.bool_]:
        """In the order of receipt of each point: older than the newest received before it."""
        point, time_ns, received = (
            batch.point_index,
            batch.source_time_ns,
            batch.received_time_ns,
        )
        order = np.lexsort((time_ns, received, point))
        point, time_ns, received = point[order], time_ns[order], received[order]
        size = len(order)
        head = np.append(True, point[1:] != point[:-1])
        moment = head | np.append(True, received[1:] != received[:-1])
        # Ranks instead of times, so that a running maximum can be kept apart for each point.
        rank = np.empty(size, np.int64)
        rank[np.argsort(time_ns, kind="stable")] = np.arange(size)
        group = np.cumsum(head) - 1
        newest = np.maximum.accumulate(rank + group * size) - group * size
        before = np.append(-1, newest[:-1])
        before[head] = -1
        start = np.maximum.accumulate(np.where(moment, np.arange(size), 0))
        before = before[start]  # of everything received strictly earlier
        times = np.append(np.sort(time_ns), -(1 << 62))
        bar = np.maximum(times[before], self._newest[point])
        late = np.empty(size, np.bool_)
        late[order] = time_ns < bar
        np.maximum.at(self._newest, point, time_ns)
        return late


# ---------------------------------------------------------------------- judging


class Judging:
    """One rule set with its own point table and book."""

    def __init__(
        self,
        config: SiteConfig,
        plugins: Plugins,
        rules: Sequence[Rule],
        points: PointTable,
    ) -> None:
        """Raises ConfigError with every fault of the rules."""
        self.points = copy_table(points)
        self.rules = RuleSet(
            rules,
            plugins.rule_kinds,
            self.points,
            lateness_ns=int(config.judging.lateness_s * NS_PER_S),
            clock_tolerance_ns=int(config.judging.clock_tolerance_s * NS_PER_S),
        )
        while derived := self.rules.derived_points():
            for point in derived:
                self.points.put(point)
            self.rules.refresh()
        self.book = AlarmBook(
            1,
            config=book_config(config, plugins.rule_kinds),
            above=above_in(self.points),
        )
        self.book.declare(self.rules.instances)

    def begin(self, at_ns: int) -> None:
        """What was never heard counts from here on, as from the start of a gateway."""
        self.rules.evaluate(Batch.empty(), at_ns)

    def judge(
        self, batch: Batch, known_ns: int, outline: Outline | None = None
    ) -> list[AlarmEvent]:
        """Every event the rows and the clock up to `known_ns` make, in order; each recorded when
        it happened, since nobody was waiting for it."""
        result = self.rules.evaluate(batch, known_ns, outline)
        events: list[AlarmEvent] = []
        for at_ns, part in by_time(result.conditions):
            events += self.book.tick(at_ns)
            events += self.book.apply(part, self.rules.instances, at_ns)
        events += self.book.tick(known_ns)
        return events

    def settle(self, to_ns: int) -> list[AlarmEvent]:
        """The end of history: the clock up to `to_ns`, and what waited for the lateness."""
        return self.judge(Batch.empty(), to_ns + self.rules.lateness_ns)


def derived_mask(points: PointTable, judgings: Sequence[Judging]) -> NDArray[np.bool_]:
    """By point: computed by a rule of any of the sets, so its stored samples are no input."""
    mask = np.zeros(len(points), np.bool_)
    for judging in judgings:
        for point_id in judging.rules.derived_ids:
            if point_id in points:
                mask[points.index(point_id)] = True
    return mask
