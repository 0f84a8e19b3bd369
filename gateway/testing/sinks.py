"""The contract check every sample sink must pass, and what a sink needs to run outside a gateway.

    context = sink_context(tmp_path)
    await check_sample_sink(lambda: DuckdbSink(config, context), context)

`make` is called several times and must give a sink on **the same** store each time: that is how a
restart looks. Every check uses points of its own, so one store serves them all. Where the sink
offers `history` the content is read through it and the history itself is checked against numpy;
otherwise the test says with `rows` how to look into the store.

Not here: real servers (stores.py), error answers (scripted in the sink's own tests).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gateway.contract.history import History
from gateway.contract.sink import SampleSink, SinkContext, WriteResult
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.quality import BAD, Quality

S = 1_000_000_000
NOON = 1_700_000_000 * S
ALWAYS = (-(1 << 62), 1 << 62)


class Row(NamedTuple):
    """One stored sample, comparable: the value as text, so that NaN equals NaN; -0.0 is 0.0."""

    point: str
    source_time_ns: int
    value: str
    quality: int


Rows = Callable[[Sequence[str]], Awaitable[list[Row]]]
"""Point ids -> every sample the store holds of them, repeats included."""


@dataclass
class CountingCounters:
    """Counters that can be looked at."""

    counts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        self.counts[f"{name}:{reason}" if reason else name] += n


@dataclass
class StatusLog:
    """Link status that remembers."""

    states: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, state: str, detail: str = "") -> None:
        self.states.append((state, detail))


def sink_context(
    state_dir: Path, *, points: PointTable | None = None, now_ns: int = NOON
) -> SinkContext:
    """A context with a clock that stands still, counters and a status that can be read."""
    return SinkContext(
        name="store",
        tenant="north",
        site="mine-1",
        points=PointTable() if points is None else points,
        now_ns=lambda: now_ns,
        counters=CountingCounters(),
        status=StatusLog(),
        state_dir=state_dir,
    )


def rows_of(batch: Batch, points: PointTable) -> list[Row]:
    columns = (
        [points[i].id for i in batch.point_index.tolist()],
        batch.source_time_ns.tolist(),
        [repr(value) for value in (batch.value + 0.0).tolist()],
        batch.quality.tolist(),
    )
    return [Row(*row) for row in zip(*columns, strict=True)]


async def check_sample_sink(
    make: Callable[[], SampleSink],
    context: SinkContext,
    *,
    rows: Rows | None = None,
    exact: bool = True,
) -> None:
    """Raises AssertionError naming the first promise the sink does not keep.

    `exact=False` for a store that cannot be asked what it holds: it may hold a repeat twice, its
    counts of accepted and duplicate rows are not looked at, and values stay in a modest range.
    """
    for number, check in enumerate(_CHECKS):
        rig = _Rig(make, context, rows, exact, f"check{number}")
        await check(rig)


@dataclass
class _Rig:
    make: Callable[[], SampleSink]
    context: SinkContext
    rows: Rows | None
    exact: bool
    prefix: str

    def points(self, count: int) -> list[int]:
        return [self.context.points.put(Point(f"{self.prefix}.p{i}")) for i in range(count)]

    async def write(self, *cuts: tuple[Batch, int]) -> list[WriteResult]:
        """Write in one session and check that every row is accounted for."""
        sink = self.make()
        await sink.open()
        try:
            results = []
            for batch, offset in cuts:
                result = await sink.write(batch, offset)
                total = result.accepted + result.duplicate + len(result.rejected)
                assert total == len(batch), f"{total} of {len(batch)} rows accounted for"
                results.append(result)
            return results
        finally:
            await sink.close()

    async def held(self) -> list[Row]:
        ids = [p.id for p in self.context.points if p.id.startswith(self.prefix + ".")]
        if self.rows is not None:
            found = await self.rows(ids)
        else:
            found = await self.with_history(lambda history: _read_all(history, ids, self.context))
        return sorted(set(found)) if not self.exact else sorted(found)

    async def with_history(self, ask: Callable[[History], Awaitable[list[Row]]]) -> list[Row]:
        sink = self.make()
        await sink.open()
        try:
            assert sink.history is not None, "no history and no `rows`: the content is unknown"
            return await ask(sink.history)
        finally:
            await sink.close()

    async def expect(self, batches: Iterable[Batch], what: str) -> None:
        expected = {row for batch in batches for row in rows_of(batch, self.context.points)}
        found = await self.held()
        assert found == sorted(expected), f"{what}: {_difference(found, expected)}"

    def counted(self, result: WriteResult, accepted: int, duplicate: int, what: str) -> None:
        if self.exact:
            found = (result.accepted, result.duplicate)
            assert found == (accepted, duplicate), f"{what}: accepted, duplicate = {found}"


async def _an_empty_batch_is_nothing(rig: _Rig) -> None:
    rig.points(1)
    (result,) = await rig.write((Batch.empty(), 0))
    rig.counted(result, 0, 0, "an empty batch")
    await rig.expect([], "an empty batch")


async def _a_batch_is_held_as_it_was_given(rig: _Rig) -> None:
    points = rig.points(3)
    values = [0.1, -2.5, 1e-300, 1.7976931348623157e308, 5e-324, 52.0, -0.5, 2.0**52 - 1, -0.0]
    if not rig.exact:  # VictoriaMetrics keeps decimals of one exponent for a block of values
        values = [0.1, -2.5, 0.25, 99.5, 3.0, 52.0, -0.5, 400.0, 3.125]
    batch = Batch.of(
        [points[i % 3] for i in range(9)],
        values,
        [NOON + i // 3 * S for i in range(9)],
        received_time_ns=NOON + 10 * S,
        quality=[0, Quality.UNCERTAIN_CLOCK, 0, 0, 0, 0, Quality.BAD_OVER_RANGE, 0, 0],
    )
    (result,) = await rig.write((batch, 9))
    rig.counted(result, 9, 0, "nine new rows")
    await rig.expect([batch], "nine new rows")


async def _no_value_is_kept_with_its_quality(rig: _Rig) -> None:
    (point,) = rig.points(1)
    batch = Batch.of(
        [point] * 3,
        [np.nan, 1.0, np.nan],
        [NOON, NOON + S, NOON + 2 * S],
        received_time_ns=NOON,
        quality=[Quality.BAD_NO_VALUE, 0, Quality.BAD_SENSOR_FAULT],
    )
    await rig.write((batch, 3), (batch, 3))
    await rig.expect([batch], "samples without a value")


async def _writing_again_changes_nothing(rig: _Rig) -> None:
    batch = _steps(rig.points(2), 10)
    first, second = await rig.write((batch, 10), (batch, 10))
    rig.counted(first, 10, 0, "a new batch")
    rig.counted(second, 0, 10, "the same batch again")
    (third,) = await rig.write((batch, 10))
    rig.counted(third, 0, 10, "the same batch after a restart")
    await rig.expect([batch], "the same batch three times")


async def _a_batch_that_overlaps_adds_only_what_is_new(rig: _Rig) -> None:
    batch = _steps(rig.points(2), 12)
    await rig.write((batch.take(slice(0, 8)), 8))
    (result,) = await rig.write((batch.take(slice(5, 12)), 12))
    rig.counted(result, 4, 3, "a batch that begins among stored rows")
    await rig.expect([batch], "two overlapping batches")


async def _a_device_that_repeats_itself_is_stored_once(rig: _Rig) -> None:
    points = rig.points(2)
    first = _steps(points, 6)
    again = Batch.of(  # the same samples, received later, at offsets of their own
        first.point_index,
        first.value,
        first.source_time_ns,
        received_time_ns=NOON + 99 * S,
    )
    _, result = await rig.write((first, 6), (Batch.concat([again, again]), 18))
    rig.counted(result, 0, 12, "a device's repeats")
    await rig.expect([first], "a device's repeats")


async def _two_values_at_one_time_are_two_samples(rig: _Rig) -> None:
    (point,) = rig.points(1)
    tied = Batch.of([point] * 4, [1.0, 2.0, 2.0, 3.0], [NOON] * 4, received_time_ns=NOON)
    results = await rig.write((tied, 4), (tied, 4))
    rig.counted(results[0], 3, 1, "three values at one time, one of them twice")
    rig.counted(results[1], 0, 4, "the same again")
    if rig.exact:  # only a store that can be asked keeps ties apart across batches
        more = Batch.of([point] * 2, [2.0, 4.0], [NOON] * 2, received_time_ns=NOON + S)
        (result,) = await rig.write((more, 6))
        rig.counted(result, 1, 1, "a fourth value at that time, in another session")
        tied = Batch.concat([tied, more])
    await rig.expect([tied], "values at one time")


async def _late_samples_are_stored(rig: _Rig) -> None:
    points = rig.points(2)
    now, before = _steps(points, 4), _steps(points, 4, begin=NOON - 86_400 * S)
    results = await rig.write((now, 4), (before, 8))
    rig.counted(results[1], 4, 0, "samples of the day before")
    await rig.expect([now, before], "samples of the day before")


async def _a_spool_that_begins_again_loses_nothing(rig: _Rig) -> None:
    points = rig.points(2)
    first, second = _steps(points, 6), _steps(points, 6, begin=NOON + 60 * S)
    await rig.write((first, 1_000_006))
    (result,) = await rig.write((second, 6))
    rig.counted(result, 6, 0, "new rows at offsets seen before")
    await rig.expect([first, second], "new rows at offsets seen before")


async def _history_equals_what_was_written(rig: _Rig) -> None:
    points = rig.points(3)
    batch = Batch.of(
        [points[i % 3] for i in range(60)],
        [float(i % 7) if i % 11 else np.nan for i in range(60)],
        [NOON + (i * 37 % 60) * S for i in range(60)],
        received_time_ns=[NOON + 100 * S + i for i in range(60)],
        quality=[Quality.BAD_NO_VALUE if i % 11 == 0 else (i % 5 == 0) * BAD for i in range(60)],
    )
    sink = rig.make()
    await sink.open()
    try:
        await sink.write(batch, 60)
        if sink.history is not None:
            await check_history(sink.history, batch, rig.context.points)
    finally:
        await sink.close()


_CHECKS: tuple[Callable[[_Rig], Awaitable[None]], ...] = (
    _an_empty_batch_is_nothing,
    _a_batch_is_held_as_it_was_given,
    _no_value_is_kept_with_its_quality,
    _writing_again_changes_nothing,
    _a_batch_that_overlaps_adds_only_what_is_new,
    _a_device_that_repeats_itself_is_stored_once,
    _two_values_at_one_time_are_two_samples,
    _late_samples_are_stored,
    _a_spool_that_begins_again_loses_nothing,
    _history_equals_what_was_written,
)


async def check_history(history: History, written: Batch, points: PointTable) -> None:
    """`written`: all samples ever stored of its points, without repeats and without ties."""
    await _check_read(history, written)
    for point in np.unique(written.point_index).tolist():
        await _check_buckets(history, written, point)
    chosen = np.unique(written.point_index).tolist()
    latest = await history.latest([points[i].id for i in chosen])
    order = np.lexsort((written.source_time_ns, written.point_index))
    last = {int(written.point_index[i]): int(i) for i in order}
    assert latest.batch == written.take(np.array([last[i] for i in chosen])), "latest"
    assert await history.count() >= len(written), "count"


async def _check_read(history: History, written: Batch) -> None:
    chosen = np.unique(written.point_index).tolist()
    times = np.sort(written.source_time_ns)
    low, high = int(times[len(times) // 4]), int(times[-len(times) // 4])
    order = np.lexsort((written.received_time_ns, written.source_time_ns, written.point_index))
    ordered = written.take(order)
    for from_ns, to_ns in ((low, high), ALWAYS, (low, low)):
        inside = (ordered.source_time_ns >= from_ns) & (ordered.source_time_ns < to_ns)
        expected = ordered.take(inside)
        for cut in {1, max(1, len(expected) - 1), len(expected) + 1}:
            found = await history.read(chosen, from_ns, to_ns, rows_max=cut)
            assert found.batch == expected.take(slice(0, cut)), f"read {from_ns} {to_ns} {cut}"
            assert found.truncated == (cut < len(expected)), f"truncated at {cut}"
    assert len(await history.read([], *ALWAYS, rows_max=9)) == 0, "no point, no rows"


async def _check_buckets(history: History, written: Batch, point: int) -> None:
    of_point = written.take(written.point_index == point)
    from_ns = int(of_point.source_time_ns.min())
    to_ns = int(of_point.source_time_ns.max())  # half-open: the newest sample is outside
    found = await history.buckets(point, from_ns, to_ns, 7)
    assert len(found) == 7, "as many buckets as asked for"
    order = np.argsort(of_point.source_time_ns, kind="stable")
    of_point = of_point.take(order)
    usable = ~np.isnan(of_point.value) & (of_point.quality < BAD)
    for i, start in enumerate(found.start_ns.tolist()):
        end = min(start + found.width_ns, to_ns)
        inside = (of_point.source_time_ns >= start) & (of_point.source_time_ns < end)
        values = of_point.value[inside & usable]
        assert (found.n[i], found.n_bad[i]) == (len(values), inside.sum() - len(values)), "counts"
        if len(values):
            expected = [values.min(), values.max(), values.mean(), values[-1]]
        else:
            expected = [np.nan] * 4
        columns = (found.min, found.max, found.mean, found.last)
        np.testing.assert_allclose([column[i] for column in columns], expected, rtol=1e-12)


async def _read_all(history: History, ids: Sequence[str], context: SinkContext) -> list[Row]:
    found = await history.read(ids, *ALWAYS, rows_max=1_000_000)
    return rows_of(found.batch, context.points)


def _steps(points: Sequence[int], count: int, begin: int = NOON) -> Batch:
    """One sample a second, points taking turns."""
    return Batch.of(
        [points[i % len(points)] for i in range(count)],
        [i / 4 for i in range(count)],
        [begin + i * S for i in range(count)],
        received_time_ns=[begin + i * S + 5 for i in range(count)],
    )


def _difference(found: list[Row], expected: set[Row]) -> str:
    counts = Counter(found)
    twice = [row for row, n in counts.items() if n > 1]
    missing = sorted(expected - set(found))
    extra = sorted(set(found) - expected)
    return f"missing {missing[:3]}, not expected {extra[:3]}, more than once {twice[:3]}"
