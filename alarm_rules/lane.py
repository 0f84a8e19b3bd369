"""One stream of samples through the programs of a rule set, with what is known of each point.

    rows ─▶ layer 0 programs ─▶ derived samples ─▶ layer 1 programs … ─▶ changes of level
                                                                        └▶ rules that judge levels

A rule set has one lane for what happens now. Rows that come too late for it, a backlog after an
outage or a file found a week later, go through a lane of their own: the same programs with state
of their own, so that **late data can neither raise nor clear what stands now**, and is still judged
exactly, delays and all. What it finds is history.

    now    10:00 ──────────────── 10:20 10:21 10:22      heard up to 10:22
    late             10:03 10:04 … 10:19                 judged by themselves, from 10:03 on

In the late lane no clock runs: a delay has elapsed when a later sample of the same backlog says so.
Rules whose verdict is about silence or about other rules stay out of it. Only what fills a hole in
what was judged is history (gaps.py). Each hole is judged by itself, and anew when a piece of it
comes that is older than the pieces before: what stands in between is unknown.

Not here: which rows are late, the reorder buffer (ruleset.py), what a program does (program.py),
points whose samples take long to come in (behind.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.backlog import Backlog, runs_of, silence_bounds
from alarm_rules.behind import Behind
from alarm_rules.program import Changes, Program
from gateway.contract.rule_kind import (
    FOREVER,
    NEVER,
    Columns,
    Derived,
    PointTimes,
    Rows,
    Runs,
    Tick,
)
from gateway.model.batch import Batch
from gateway.model.quality import BAD, Quality

NO_CLOCK = NEVER - 1
"""A time at which no timer is due, not even one that is due at once."""

_STRETCHES_MAX = 64
"""Ranges of points remembered: one for each poller that hands over its own points at a time."""

_PLANNED = int(Quality.UNCERTAIN_CALIBRATING)
Found = tuple[Program, Changes]


class Bounds(NamedTuple):
    """Of the rows of these times, what was looked up before."""

    time_ns: NDArray[np.int64]
    oldest_ns: int
    newest_ns: int
    worst: int  # quality


class _Newest(NamedTuple):
    """A range of points that was heard as one tick, all of it usable."""

    span: slice
    time_ns: NDArray[np.int64]


class _Times(NamedTuple):
    """`PointTimes` of a lane, looked up when asked for."""

    lane: Lane
    now_ns: int

    @property
    def heard_ns(self) -> NDArray[np.int64]:
        return self.lane.heard_ns

    @property
    def usable_ns(self) -> NDArray[np.int64]:
        return self.lane.usable_ns

    @property
    def usable_since_ns(self) -> int:
        return self.lane.usable_since_ns()


class _Stretch(NamedTuple):
    """A range of points that was heard as one tick: bounds of `heard_ns` there."""

    oldest_ns: int
    newest_ns: int
    is_usable: bool  # `usable_ns` is the same as `heard_ns` there


class Lane:
    """Programs in order of their layers, and when each point was last heard by them.

    programs: those that judge samples, by layer.
    derived: for each program the point index its groups compute, -1 for none.
    """

    MEMORY: ClassVar[Sequence[str]] = ("heard_ns", "usable_ns", "behind_ns")
    _has_clock: ClassVar[bool] = True

    def __init__(
        self, programs: Sequence[Program], derived: Mapping[Program, NDArray[np.int64]]
    ) -> None:
        self.programs = programs
        self.derived = dict(derived)
        self._heard_ns = np.empty(0, np.int64)
        self._usable_ns = np.empty(0, np.int64)
        self._newest: _Newest | None = None  # not in these two yet
        self._behind = Behind()
        self._every = np.empty(0, np.int64)  # 0, 1, 2, …: the points of a range
        self._every32 = b""  # the same as batches have it in memory, to know a range by
        self._all_true = np.empty(0, np.bool_)  # never written
        self._all_good = b""  # qualities, as memory
        self._views: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}
        self._spanned: tuple[NDArray[np.int32] | None, slice | None] = None, None
        self.bounds = Bounds(self._every, 0, 0, 0)
        self._stretches: dict[tuple[int, int], _Stretch] = {}  # no two of them overlap

    def grow(self, size: int) -> None:
        self._every = np.arange(size)
        self._every32 = np.arange(size, dtype=np.int32).tobytes()
        self._all_true = np.ones(size, np.bool_)
        self._all_good = bytes(size)
        self._views = {}
        self.forget_bounds()
        extra = np.full(size - len(self.heard_ns), NEVER)
        self._heard_ns = np.concatenate([self.heard_ns, extra])
        self._usable_ns = np.concatenate([self.usable_ns, extra])
        self._behind.grow(size)
        self.tell_behind()

    @property
    def heard_ns(self) -> NDArray[np.int64]:
        """When each point was last heard: to be written into, and not kept. A tick after a tick of
        the same points needs none of it, so what the last one said is written when it is asked
        for."""
        self._write_newest()
        return self._heard_ns

    @property
    def usable_ns(self) -> NDArray[np.int64]:
        """… with a value that is a number and not bad."""
        self._write_newest()
        return self._usable_ns

    @property
    def behind_ns(self) -> NDArray[np.int64]:
        """How much later its newest sample came in than others do: to be written into, and then
        told."""
        return self._behind.by_point

    def usable_since_ns(self) -> int:
        """Known where every point was last heard in a tick of usable values."""
        since_ns, count = FOREVER, 0
        for (first, stop), stretch in self._stretches.items():
            if not stretch.is_usable:
                return NEVER
            since_ns, count = min(since_ns, stretch.oldest_ns), count + stop - first
        return since_ns if count == len(self._every) else NEVER

    def _write_newest(self) -> None:
        if self._newest is not None:
            span, time_ns = self._newest
            self._newest = None
            self._heard_ns[span] = self._usable_ns[span] = time_ns

    def rows(
        self, batch: Batch, time_ns: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.bool_] | None]:
        """Rows with what every kind asks about them, late ones left out; and which are late: older
        than what was judged of their point. None: none is."""
        span = self.span(batch.point_index)
        if span is not None:
            rows = self._tick(batch, time_ns, span)
            if rows is not None:
                return rows, None
        point = batch.point_index.astype(np.int64)
        heard_ns, late = self.heard_ns[point], None
        is_late = time_ns < heard_ns
        if is_late.any():
            late, kept = is_late, np.flatnonzero(~is_late)
            batch, time_ns, heard_ns = batch.take(kept), time_ns[kept], heard_ns[kept]
            point = point[kept]
        usable = _usable(batch)
        heard_ns, usable_ns = _since_the_row_before(
            point, time_ns, usable, (heard_ns, self.usable_ns[point])
        )
        return Rows(
            point=point,
            value=batch.value,
            quality=batch.quality,
            time_ns=time_ns,
            received_ns=batch.received_time_ns,
            usable=usable,
            heard_ns=heard_ns,
            usable_ns=usable_ns,
        ), late

    def backlog(self, batch: Batch, time_ns: NDArray[np.int64]) -> Backlog | None:
        """The rows as runs, one for each point, if they are that and nothing else is to be asked of
        them: all usable, each later than what was heard of its point before."""
        if self.span(batch.point_index) is not None:
            return None
        found = runs_of(batch.point_index)
        if found is None:
            return None
        head, each = found
        points = batch.point_index.take(head).astype(np.int64)
        seen = np.zeros(len(self.heard_ns), np.bool_)
        seen[points] = True
        if np.count_nonzero(seen) < len(points):  # one comes back
            return None
        known_ns, _, newest_ns, worst = self.bounds
        if known_ns is not time_ns:
            newest_ns, worst = int(np.maximum.reduce(time_ns)), self.worst(batch.quality)
        if worst >= BAD or (worst and (batch.quality == _PLANNED).any()):
            return None
        first_ns = time_ns.take(head)
        least_ns, unheard_ns = silence_bounds(time_ns, head, first_ns - self.heard_ns.take(points))
        least = float(np.minimum.reduce(batch.value))
        if least_ns <= 0 or math.isnan(least):
            return None
        unusable_ns = int(np.maximum.reduce(first_ns - self.usable_ns.take(points)))
        oldest_ns = int(np.minimum.reduce(first_ns))
        bounds = (oldest_ns, newest_ns, True, unheard_ns, max(unheard_ns, unusable_ns))
        return Backlog(
            batch=batch,
            time_ns=time_ns,
            points=points,
            head=head,
            each=each,
            tick=Tick(*bounds, is_later=True, least=least),
            told=lambda: self.rows(batch, time_ns)[0],
        )

    def quiet(self, runs: Runs) -> NDArray[np.bool_]:
        """Which runs no program minds: they change nothing but when their points were heard."""
        found = runs.is_plain
        for program in self.programs:
            evaluator: Any = program.evaluator
            if hasattr(evaluator, "quiet"):
                found = found & evaluator.quiet(runs)
            else:  # only what it does not ask for
                start = program.layout.point_start
                found = found & (start[runs.point] == start[runs.point + 1])
        return found

    def note_quiet(
        self,
        point: NDArray[np.int64],
        last_ns: NDArray[np.int64],
        received_ns: NDArray[np.int64],
        now_ns: int,
    ) -> None:
        """These were heard up to then, later than ever before, and had nothing to say."""
        self._stretches.clear()
        self.heard_ns[point] = self.usable_ns[point] = last_ns
        self._tell_behind(self._behind.put(point, last_ns, received_ns, now_ns))

    def worst(self, quality: NDArray[np.uint8]) -> int:
        """Of one or more. Mostly all are good, which is seen quickest as memory."""
        if quality.flags.c_contiguous and self._all_good.startswith(quality.data):
            return 0
        return int(np.maximum.reduce(quality))

    def span(self, point: NDArray[np.int32]) -> slice | None:
        """The points as a range of known ones, if they are one, each once and in order."""
        known, span = self._spanned
        if point is known:
            return span
        size, span = len(point), None
        if size:
            first = int(point[0])
            if first >= 0 and point.flags.c_contiguous:
                at = first * point.itemsize
                if self._every32.startswith(point.data, at):  # as memory: a third of a look at each
                    span = slice(first, first + size)
        self._spanned = point, span
        return span

    def forget_bounds(self) -> None:
        """What was heard when is changed by other ways than `judge`."""
        self._stretches.clear()
        self._spanned = None, None

    def _tick(self, batch: Batch, time_ns: NDArray[np.int64], span: slice) -> Rows | None:
        """Rows without a copy of what is known; None when some are late.

        A range that is heard as one tick again and again needs no look at each point: the oldest
        sample of this tick is no older than the newest of the one before, and the newest of this
        less the oldest of the one before bounds every silence.
        """
        value = batch.value
        if self._newest is not None and self._newest.span == span:
            heard_ns = usable_ns = self._newest.time_ns
        else:
            heard_ns, usable_ns = self.heard_ns[span], self.usable_ns[span]
        known_ns, oldest_ns, newest_ns, worst = self.bounds
        if known_ns is not time_ns:
            oldest_ns, newest_ns = int(np.minimum.reduce(time_ns)), int(np.maximum.reduce(time_ns))
            worst = self.worst(batch.quality)
        before = self._stretches.get((span.start, span.stop))
        if before is not None and before.newest_ns <= oldest_ns:
            is_later = before.newest_ns < oldest_ns
            unheard_ns = newest_ns - before.oldest_ns
        else:
            silence_ns = time_ns - heard_ns
            least_ns = int(np.minimum.reduce(silence_ns))
            if least_ns < 0:
                return None
            is_later = least_ns > 0
            unheard_ns = int(np.maximum.reduce(silence_ns))
        unusable_ns = unheard_ns
        if before is None or not before.is_usable:
            unusable_ns = int(np.maximum.reduce(time_ns - usable_ns))
        least = float(np.minimum.reduce(value))  # a NaN wins
        is_usable = worst < BAD and not math.isnan(least)
        every, all_true = self._views_of(span)
        return Rows(
            point=every,
            value=value,
            quality=batch.quality,
            time_ns=time_ns,
            received_ns=batch.received_time_ns,
            usable=all_true if is_usable else _usable(batch),
            heard_ns=heard_ns,
            usable_ns=usable_ns,
            span=span,
            tick=Tick(oldest_ns, newest_ns, is_usable, unheard_ns, unusable_ns, is_later, least),
        )

    def _views_of(self, span: slice) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The points of a range, and that all of them are usable."""
        key, known = (span.start, span.stop), self._views
        if key not in known:
            if len(known) >= _STRETCHES_MAX:
                known.clear()
            known[key] = self._every[span], self._all_true[span]
        return known[key]

    def judge(self, rows: Rows | Backlog, now_ns: int, known_to_ns: int) -> list[Batch]:
        """Programs in order of their layers; what one derives the next layer sees. Returns the
        derived samples."""
        found: list[Batch] = []
        times, lateness_ns = self.times(now_ns), now_ns - known_to_ns
        stream, waiting, layer = rows, list[Rows](), 0
        self._note_behind(rows, now_ns, lateness_ns)
        for program in self.programs:
            if program.layer != layer:
                layer = program.layer
                stream, waiting = _with(stream, waiting), []
            derived = program.judge(stream, times, known_to_ns)
            if derived is not None:
                batch = self._derived_batch(program, derived)
                found.append(batch)
                waiting.append(self.rows(batch, batch.source_time_ns)[0])
                self._note_behind(waiting[-1], now_ns, lateness_ns)
        self._note_heard(_with(stream, waiting))
        return found

    def finish(self, now_ns: int, known_to_ns: int) -> list[Found]:
        """What every program found; with the timers due up to `known_to_ns`."""
        times = self.times(now_ns)
        found = [(program, program.finish(times, known_to_ns)) for program in self.programs]
        return [(program, changes) for program, changes in found if changes is not None]

    def times(self, now_ns: int) -> PointTimes:
        return _Times(self, now_ns)

    def _derived_batch(self, program: Program, derived: Derived) -> Batch:
        point = self.derived[program][derived.group]
        declared = point >= 0
        return Batch(
            point_index=point[declared].astype(np.int32),
            value=derived.value[declared],
            quality=derived.quality[declared],
            source_time_ns=derived.time_ns[declared],
            received_time_ns=derived.received_ns[declared],
        )

    def _note_behind(self, rows: Rows | Backlog, now_ns: int, lateness_ns: int) -> None:
        if self._has_clock:
            self._tell_behind(self._behind.note(rows, now_ns, lateness_ns))

    def _tell_behind(self, points: NDArray[np.int64]) -> None:
        if len(points):
            for program in self.programs:
                program.fall_behind(points, self._behind, self.heard_ns)

    def tell_behind(self) -> None:
        """Every program, which points are behind: after a change of programs, or of `behind_ns`."""
        self._behind.loaded()
        points = self._behind.by_point.nonzero()[0]
        for program in self.programs:
            program.fall_behind(points, self._behind, self.heard_ns, anew=True)

    def came_by(self, now_ns: int) -> None:
        """Nothing came in after now, whatever was noted by a clock that was ahead."""
        if self._behind.is_any:
            self._behind.came_by(now_ns, self.heard_ns)
            self.tell_behind()
        for program in self.programs:
            program.came_by(now_ns)

    def _note_heard(self, rows: Rows | Backlog) -> None:
        """No row is older than what is known of its point."""
        if isinstance(rows, Backlog):
            self._stretches.clear()
            self.heard_ns[rows.points] = self.usable_ns[rows.points] = rows.newest_ns
            return
        if rows.span is not None and rows.tick is not None:
            self._note_tick(rows, rows.span, rows.tick)
            return
        if len(rows) == 0:
            return
        self._stretches.clear()
        np.maximum.at(self.heard_ns, rows.point, rows.time_ns)
        point, time_ns = rows.point, rows.time_ns
        if not rows.usable.all():
            point, time_ns = point[rows.usable], time_ns[rows.usable]
        np.maximum.at(self.usable_ns, point, time_ns)

    def _note_tick(self, rows: Rows, span: slice, tick: Tick) -> None:
        if tick.is_usable:
            if self._newest is not None and self._newest.span != span:
                self._write_newest()
            self._newest = _Newest(span, rows.time_ns)
        else:
            self.heard_ns[span] = rows.time_ns
            np.copyto(self.usable_ns[span], rows.time_ns, where=rows.usable)
        key, known = (span.start, span.stop), self._stretches
        if key not in known:
            for first, stop in [*known]:
                if (first < span.stop and span.start < stop) or len(known) >= _STRETCHES_MAX:
                    del known[first, stop]
        known[key] = _Stretch(tick.oldest_ns, tick.newest_ns, tick.is_usable)


def _with(rows: Rows | Backlog, more: list[Rows]) -> Rows | Backlog:
    if not more:
        return rows
    return Rows.joined([rows.rows if isinstance(rows, Backlog) else rows, *more])


def _usable(batch: Batch) -> NDArray[np.bool_]:
    """Neither bad nor NaN."""
    usable: NDArray[np.bool_] = batch.value == batch.value  # false for NaN
    if np.count_nonzero(batch.quality):
        usable &= batch.quality < BAD
    return usable


def _since_the_row_before(
    point: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    usable: NDArray[np.bool_],
    known: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each row's point was heard, and usable, last: by the row before it where a point's rows
    stand together in order of time, as history comes out of a store; else before this call.

    Without it a day at once would look as if every point had been silent since the day before.
    """
    heard_ns, usable_ns = known
    same = point[1:] == point[:-1]
    if 2 * np.count_nonzero(same) <= len(point):
        return known
    if ((time_ns[1:] < time_ns[:-1]) & same).any():
        return known
    np.copyto(heard_ns[1:], time_ns[:-1], where=same)
    np.copyto(usable_ns[1:], time_ns[:-1], where=same)
    bad = np.flatnonzero(~usable)
    if len(bad):  # what was usable before a run of bad rows is so up to the row behind it
        begins = np.append(True, (np.diff(bad) > 1) | ~same[bad[1:] - 1])
        first = bad[seg.starts_of(begins)]
        bad, first = bad[bad < len(same)], first[bad < len(same)]
        inside = same[bad]
        usable_ns[bad[inside] + 1] = usable_ns[first[inside]]
    return heard_ns, usable_ns


class LateLane(Lane):
    """The lane of what came too late: a copy of the live one without its memory.

    twin: the program of this lane for each one of the live lane.
    hole_ns: the end of the hole each point is being judged in. first_ns: where that began.
    No clock runs here, so nobody is behind.
    """

    MEMORY: ClassVar[Sequence[str]] = ("heard_ns", "usable_ns", "hole_ns", "first_ns")
    _has_clock: ClassVar[bool] = False

    def __init__(self, live: Lane) -> None:
        """Of the same programs as `live` has now."""
        self.twin = {p: _emptied(p) for p in live.programs if not p.kind.hides}
        super().__init__(
            list(self.twin.values()), {mine: live.derived[its] for its, mine in self.twin.items()}
        )
        self.hole_ns = np.empty(0, np.int64)
        self.first_ns = np.empty(0, np.int64)
        self.grow(len(live.heard_ns))

    def grow(self, size: int) -> None:
        extra = np.full(size - len(self.heard_ns), NEVER)
        self.hole_ns = np.concatenate([self.hole_ns, extra])
        self.first_ns = np.concatenate([self.first_ns, extra])
        super().grow(size)

    def renewed(self, live: Lane) -> LateLane:
        """After a change of the programs: rows are never renumbered, so what this lane remembers
        stays where it was."""
        lane = LateLane(live)
        for name in self.MEMORY:
            getattr(lane, name)[: len(self.heard_ns)] = getattr(self, name)
        lane.forget_bounds()
        for mine, its in zip(lane.programs, self.programs, strict=True):
            for new, old in zip(_tables(mine), _tables(its), strict=True):
                for name in old.saved:
                    was, now = old[name], new[name]
                    if was.ndim == 1:
                        now[: len(old)] = was
                    else:  # a rule that was edited may look further back
                        now[: len(old), : was.shape[1]] = was[:, : now.shape[1]]
            mine.settle_all()
        return lane

    def evaluate(
        self, batch: Batch, time_ns: NDArray[np.int64], hole_ns: NDArray[np.int64]
    ) -> tuple[list[Found], list[Batch], int]:
        """Judge rows that fill holes; `hole_ns` is the end of each row's. Returns changes, derived
        samples and how many rows were judged: what came before is a repeat."""
        found: list[Found] = []
        derived: list[Batch] = []
        judged = 0
        left = np.ones(len(batch), np.bool_)
        while left.any():  # one hole of each point a round: at most as many as are remembered
            point = batch.point_index
            next_ns = np.full(len(self.heard_ns), FOREVER)
            np.minimum.at(next_ns, point[left], hole_ns[left])
            turn = left & (hole_ns == next_ns[point])
            left &= ~turn
            piece, at_ns = batch.take(turn), time_ns[turn]
            fresh = self._fresh(piece.point_index, at_ns, hole_ns[turn])
            piece, at_ns = piece.take(fresh), at_ns[fresh]
            judged += len(piece)
            derived += self.judge(self.rows(piece, at_ns)[0], NO_CLOCK, NO_CLOCK)
            found += self.finish(NO_CLOCK, NO_CLOCK)
        return found, derived, judged

    def _fresh(
        self, point: NDArray[np.int32], time_ns: NDArray[np.int64], hole_ns: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which rows are no repeats; points in another hole, or further back in theirs, begin
        anew."""
        anew = (hole_ns != self.hole_ns[point]) | (time_ns < self.first_ns[point])
        if anew.any():
            fresh = np.unique(point[anew]).astype(np.int64)
            self._begin_anew(fresh)
            self.first_ns[fresh] = FOREVER
            np.minimum.at(self.first_ns, point, time_ns)
            self.hole_ns[point] = hole_ns
        is_new: NDArray[np.bool_] = time_ns >= self.heard_ns[point]
        return is_new

    def _begin_anew(self, points: NDArray[np.int64]) -> None:
        """Forget these points, and what was concluded from them."""
        self.heard_ns[points] = self.usable_ns[points] = NEVER
        self.forget_bounds()
        for program in self.programs:
            layout = program.layout
            _, slots = seg.gather_lists(layout.point_start, layout.point_slots, points)
            if len(slots) == 0:
                continue
            groups = np.unique(layout.slot_group[slots])
            instances = np.flatnonzero(np.isin(layout.instance_group, groups))
            _, members = seg.gather_lists(layout.group_start, layout.group_slots, groups)
            for table in (program.state, program.evaluator.instances):
                _clear(table, instances)
            _clear(program.evaluator.slots, members)
            program.settle_all()
            made = self.derived[program][groups]
            made = made[(made >= 0) & (self.heard_ns[made] > NEVER)]
            if len(made):
                self._begin_anew(made)


def _emptied(program: Program) -> Program:
    """The same settings, no memory."""
    own = copy.deepcopy(program, {id(program.kind): program.kind})
    for table in _tables(own):
        _clear(table, slice(None))
    own.due_ns = own.evaluator.due_ns = FOREVER
    own.keep_up()
    own.settle_all()
    return own


def _tables(program: Program) -> tuple[Columns, Columns, Columns]:
    return (program.state, program.evaluator.instances, program.evaluator.slots)


def _clear(table: Columns, rows: NDArray[np.int64] | slice) -> None:
    if len(table):
        table.clear(rows)
