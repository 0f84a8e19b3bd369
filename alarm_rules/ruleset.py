"""All rules of a site, compiled to arrays: batches in, changes of level out. Pure.

    batch ─known? derived?─▶ effective time ─▶ reorder buffer ─▶ late? ─▶ layer 0 programs ─┐
                                                             ┌─── derived samples ◀─────────┘
                                                             └──▶ layer 1 programs … ─▶ Conditions
                          (the stream through the programs: lane.py)

**Effective time** is the device's own, except where its clock is absurd (flagged, or further ahead
of receipt than the tolerance): then it is the time of receipt.

**Lateness.** Everything up to `now_ns - lateness_ns` is taken as known: rows wait in the reorder
buffer until then and are judged in order of time, and timers fire up to then. With 0 a row is
judged at once. A row older than the newest judged row *of its point* is late: if it fills a hole it
is judged in a lane of its own, and what it gives is history (`Conditions.late`).
The same history therefore gives the same conditions however it is cut, mixed within the lateness,
repeated, interrupted by ticks or by save and load. With lateness 0 this needs one thing of the
cuts: samples of one group with equal times come in one batch.

The buffer is bounded: beyond `held_rows_max` its oldest rows are judged before their time.

Not here: the algorithms (kinds/), exact delays (program.py), life cycles (lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules import state as st
from alarm_rules.backlog import Backlog
from alarm_rules.exchange import InForce
from alarm_rules.gaps import SHORTEST_NS, Gaps
from alarm_rules.lane import Bounds, Found, Lane, LateLane
from alarm_rules.levels import Stands, rows_of
from alarm_rules.matching import Matching, check_rules_again, compile_rules, uncollected
from alarm_rules.outline import Outline
from alarm_rules.program import Changes, Program
from alarm_rules.programs import Programs
from alarm_rules.turns import chained
from gateway.contract.rule_kind import FOREVER, NEVER, Columns, Rows, RuleKind, Runs
from gateway.model.batch import Batch
from gateway.model.condition import Conditions, RuleInstance
from gateway.model.errors import ConfigError, Fault
from gateway.model.point import Point, PointTable
from gateway.model.quality import EARLIEST_BELIEVED_NS, Quality
from gateway.model.rule import Rule

CLOCK_TOLERANCE_NS = 5_000_000_000
"""A device's clock may be this far ahead of ours before it is not believed (5 s, engineering)."""
HELD_ROWS_MAX = 1_000_000
"""30 MB of reorder buffer: ten seconds of lateness at 100,000 samples a second."""
_CLOCK = int(Quality.UNCERTAIN_CLOCK)
_SPANS_MAX = 256
"""Ranges of points remembered to be asked for: of each poller one, and of its partial answers."""
_NO_CONDITIONS = Conditions.empty()
_NO_ROWS = Batch.empty()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one call of `evaluate` found. Counts are of rows of this call's batch, but for
    `judged_count` and `late_count`, which count rows when they leave the reorder buffer."""

    conditions: Conditions
    derived: Batch  # samples of calculated points, to be stored; already judged
    judged_count: int = 0
    late_count: int = 0
    history_count: int = 0  # of the late ones: judged as history, the others were repeats
    ignored_count: int = 0  # no rule asks for the point, or the table does not know it
    derived_seen_count: int = 0  # our own derived samples on their second pass
    clock_count: int = 0  # judged at the time of receipt
    held_count: int = 0  # in the reorder buffer now
    released_count: int = 0  # judged before their time because the buffer was full


class _History(NamedTuple):
    """What late rows gave."""

    found: list[Found]
    derived: list[Batch]
    judged: int


_NO_HISTORY = _History([], [], 0)  # never written


class _Quiet(NamedTuple):
    """Rows that say nothing but that their points were heard."""

    rest: Batch  # the others
    point: NDArray[np.int64]
    last_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]  # of the last one
    row_count: int


def _joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _conditions(program: Program, changes: Changes) -> Conditions:
    """Of changes that stand in order already."""
    return Conditions(
        instance=program.state["position"].take(changes.instance),
        level=changes.level,
        time_ns=changes.time_ns,
        began_ns=changes.began_ns,
        value=changes.value,
        limit=changes.limit,
        quality=changes.quality,
        late=np.zeros(len(changes.instance), np.bool_),
    )


def check_rules(rules: Sequence[Rule], kinds: Mapping[str, RuleKind]) -> list[Fault]:
    """Everything wrong with the rules themselves; `Fault.key` is `rule id.field`."""
    return compile_rules(rules, kinds)[1]


class RuleSet:
    """Rules over a point table. One per site; not for use by two threads."""

    def __init__(
        self,
        rules: Sequence[Rule],
        kinds: Mapping[str, RuleKind],
        points: PointTable,
        *,
        lateness_ns: int = 0,
        clock_tolerance_ns: int = CLOCK_TOLERANCE_NS,
        held_rows_max: int = HELD_ROWS_MAX,
    ) -> None:
        """Raises ConfigError with every fault of the rules."""
        assert lateness_ns >= 0, "lateness is a span"
        with uncollected():
            compiled, faults = compile_rules(rules, kinds)
            if faults:
                raise ConfigError(faults)
            self._matching = Matching(compiled, points)
            self._programs = Programs(compiled, self._matching, points)
        self._kinds = dict(kinds)
        self._in_force = InForce(compiled)
        self.lateness_ns = lateness_ns
        self._tolerance_ns = clock_tolerance_ns
        self._held_rows_max = held_rows_max
        self._points = points
        self._now = Lane(self._programs.sampled, {})
        self._late: LateLane | None = None  # made when something comes too late
        self._gaps = Gaps()
        self._known_to_ns = NEVER
        self._afresh: set[int] = set()  # listened to before, and without their memory since
        self._asked = np.empty(0, np.bool_)  # some rule asks for the point
        self._derived = np.empty(0, np.bool_)  # one of our own points
        self._is_all_asked = False  # and none of them is our own
        self._asked_spans: dict[tuple[int, int], bool] = {}  # the same of a range of points
        self._held = Batch.empty()
        self._names = st.Names()
        self._point_ids: list[str] = []
        self._offered: dict[str, Point] = {}
        self.refresh()

    # ------------------------------------------------------------------ the set of rules

    @property
    def instances(self) -> Sequence[RuleInstance]:
        """By the numbers in `Conditions.instance`; grows, never renumbers. One that no longer
        matches anything stays and falls silent."""
        return self._programs.instances

    @property
    def live(self) -> NDArray[np.bool_]:
        """By the numbers of `instances`: whether its rule still matches what it is about."""
        live = np.zeros(len(self.instances), np.bool_)
        for program in self._programs.all:
            live[program.state["position"]] = program.layout.instance_live
        return live

    @property
    def problems(self) -> Sequence[str]:
        """Why something a rule asks for cannot be judged: text for `check` and the status page."""
        return [self._programs.problems[key] for key in sorted(self._programs.problems)]

    def derived_points(self) -> list[Point]:
        """Calculated points not given out yet, or changed since. A site may have configured one
        (its name, its attributes) before any rule computed it, so standing in the table says
        nothing. Declare them, `refresh`, and ask again until there are none: a calculation over
        calculated points needs those declared first."""
        wanted = self._programs.wanted
        new = [point for point in wanted.values() if self._offered.get(point.id) != point]
        self._offered = dict(wanted)
        return new

    @property
    def derived_ids(self) -> list[str]:
        """The points rules compute."""
        return sorted(self._programs.wanted)

    def refresh(self) -> None:
        """Take in what changed in the point table. Nothing changed: costs one comparison."""
        if self._matching.is_current:
            return
        with uncollected():
            self._programs.refresh(*self._matching.update())
        self._take_in()

    def exchange(self, rules: Sequence[Rule]) -> bool:
        """Judge by these rules from now on, and go on as a new set of them would that was loaded
        with what this one saves; only that what stays as it was is not made again. False, and
        nothing is done, where that cannot be done in place: then make that new set.

        In place: what is added, edited or gone is of a kind and layer the set has already, has no
        more levels than that holds, computes no points and judges no other rules, and not most of
        the rows are of rules that are gone. Raises
        ConfigError with every fault of the rules; then nothing is done either."""
        wanted, layers, faults = check_rules_again(rules, self._kinds, self._in_force.by_id)
        if faults:
            raise ConfigError(faults)
        exchange = self._in_force.exchange(wanted, layers)
        if (
            exchange is None
            or self._programs.is_worn
            or not all(map(self._programs.has_place_for, exchange.rules()))
        ):
            return False
        if not exchange:
            self.refresh()
            return True
        with uncollected():
            changed = self._matching.update()
            self._in_force.take(exchange)
            self._programs.exchange(exchange, *changed)
        self._take_in()
        return True

    def _take_in(self) -> None:
        """The programs have changed: what follows from them."""
        self._afresh |= self._programs.forgotten()
        size = len(self._points)
        self._point_ids += [self._points[n].id for n in range(len(self._point_ids), size)]
        self._now.grow(size)
        self._now.derived = dict(self._programs.derived)
        self._gaps.grow(self._points)
        if self._late is not None:
            self._late = self._late.renewed(self._now)
            for program, emptied in self._programs.emptied.items():
                if program in self._late.twin:
                    emptied.apply(self._late.twin[program])
                    self._late.twin[program].settle_all()
        self._asked = np.zeros(size, np.bool_)
        self._derived = np.zeros(size, np.bool_)
        for program in self._programs.sampled:
            self._asked[program.layout.slot_point[program.layout.slot_live]] = True
        for point_id in self._programs.wanted:
            if point_id in self._points:
                self._derived[self._points.index(point_id)] = True
        self._is_all_asked = bool(self._asked.all()) and not self._derived.any()
        self._asked_spans.clear()

    def current_levels(self) -> NDArray[np.uint8]:
        """The level of every instance now, in the order of `instances`."""
        levels = np.zeros(len(self.instances), np.uint8)
        for program in self._programs.all:
            levels[program.state["position"]] = program.levels()
        return levels

    def adopt(self, levels: NDArray[np.uint8]) -> None:
        """Levels, by the numbers of `instances`, that are known to be in force from elsewhere: an
        instance that starts afresh (its rule was edited, its state was lost) takes them over. Its
        next sample then holds or resets the level, and nothing is normal only because it was
        forgotten."""
        for program in self._programs.all:
            state = program.state
            level = levels[state["position"]].astype(np.int64)
            fresh = (state["floor_ns"] == NEVER) & ~state["output"].any(axis=1)
            rows = np.flatnonzero(fresh & (level > 0) & program.layout.instance_live)
            if len(rows):
                state["condition"][rows, level[rows] - 1] = True
                state["output"][rows, level[rows] - 1] = True
                program.settle_all()

    def take_word(self, levels: NDArray[np.uint8], time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """What was told of instances before a restart, though the same rows, judged again at one
        go, do not say it: a delay had ended on a value whose end came in later. Whoever was told is
        not told otherwise by our forgetting, so the core stands by the word, from its time on.
        `levels` and `time_ns` by the numbers of `instances`; which of them were changed.

        A level taken up again holds until the next sample, and of a rule that judges other rules
        until it has heard how those stand. One that was said to be over and lasts begins its delay
        anew; but where the sample that ended it is nowhere (the disk had not taken it), it is over
        until the next."""
        changed: list[NDArray[np.int64]] = []
        for program in self._programs.all:
            position, state = program.state["position"], program.state
            word, own = levels[position].astype(np.int64), program.levels()
            rows = np.flatnonzero((word != own) & program.layout.instance_live)
            if not len(rows):
                continue
            told_ns = time_ns[position[rows]]
            heard_ns = (
                told_ns if program in self._programs.judging else self._heard_of(program, rows)
            )
            _take_word(state, rows, word[rows], told_ns, heard_ns)
            program.settle_all()
            changed.append(position[rows].astype(np.int64))
        if not changed:
            return np.empty(0, np.int64)
        found = np.concatenate(changed)
        for program in self._programs.judging:  # who listens to them hears how they stand
            listened, is_own = program.layout.slot_point, np.isin(program.state["position"], found)
            heard = listened if is_own.any() else listened[np.isin(listened, found)]
            self._afresh.update(heard.tolist())
        return found

    def _heard_of(self, program: Program, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When any point of each of these instances was last heard."""
        layout = program.layout
        owner, slots = seg.gather_lists(
            layout.group_start, layout.group_slots, layout.instance_group[rows]
        )
        heard_ns = np.full(len(rows), NEVER)
        np.maximum.at(heard_ns, owner, self._now.heard_ns[layout.slot_point[slots]])
        return heard_ns

    def newest_heard_ns(self) -> int:
        """The newest time any point was heard at; NEVER before the first row."""
        return int(self._now.heard_ns.max(initial=NEVER))

    def came_by(self, now_ns: int) -> None:
        """Nothing came in after `now_ns`: what was noted of how long samples took by a clock that
        was ahead is no more than that. After a start, and when the clock was set back."""
        self._now.came_by(now_ns)

    def forget_after(self, now_ns: int) -> None:
        """The clock was set back to `now_ns`. A time remembered beyond it becomes `now_ns`: left as
        it is, every row until then would be late and no delay would end."""
        arrays = self.save()
        for name in arrays:
            if name.endswith("_ns"):
                column = arrays[name].astype(np.int64)
                ahead = (column > now_ns) & (column != FOREVER)
                arrays[name] = np.where(ahead, now_ns, column)
        self.load(arrays)

    # ------------------------------------------------------------------ judging

    def evaluate(self, batch: Batch, now_ns: int, outline: Outline | None = None) -> Evaluation:
        """Judge a batch; an empty one is a tick. With an outline of it, or of some of its rows
        (then those are judged), most of history need not be looked at."""
        quiet = None
        if outline is not None:
            quiet = self._quiet(batch, outline)
            batch = outline.taken(batch) if quiet is None else quiet.rest
        known, ignored, seen = self._known(batch)
        time_ns, clock_count = self._effective(known)
        known_to_ns = now_ns - self.lateness_ns
        known, time_ns, released = self._release(known, time_ns, known_to_ns)
        rows: Rows | Backlog | None = self._now.backlog(known, time_ns)
        late = None
        if rows is None:
            rows, late = self._now.rows(known, time_ns)
        old = _NO_HISTORY
        if late is not None:
            old = self._judge_late(known.take(late), time_ns[late])
        joined = self._joined(known_to_ns) if self._programs.joined or self._afresh else []
        if not isinstance(rows, Backlog):
            self._gaps.note(rows)
        elif rows.tick.unheard_ns > SHORTEST_NS:
            self._gaps.note(rows.rows)
        derived = self._now.judge(rows, now_ns, known_to_ns)
        if quiet is not None:
            self._now.note_quiet(quiet.point, quiet.last_ns, quiet.received_ns, now_ns)
        found = self._now.finish(now_ns, known_to_ns)
        self._judge_levels(found, joined, now_ns, known_to_ns)
        self._known_to_ns = max(self._known_to_ns, known_to_ns)
        return Evaluation(
            conditions=self._collect(found, old.found),
            derived=Batch.concat([*old.derived, *derived]) if old.derived or derived else _NO_ROWS,
            judged_count=len(rows) + (quiet.row_count if quiet is not None else 0),
            late_count=len(known) - len(rows),
            history_count=old.judged,
            ignored_count=ignored,
            derived_seen_count=seen,
            clock_count=clock_count,
            held_count=len(self._held),
            released_count=released,
        )

    def _quiet(self, batch: Batch, outline: Outline) -> _Quiet | None:
        """What none of the rules minds, and the rest of the rows; None: there is no such thing, or
        not enough of it to be worth the cut."""
        if self.lateness_ns or len(self._held):
            return None
        point = outline.point
        if int(point.min()) < 0 or int(point.max()) >= len(self._asked):
            return None
        heard_ns, usable_ns = self._now.heard_ns[point], self._now.usable_ns[point]
        is_plain = outline.is_plain & (outline.first_ns > heard_ns)
        is_plain &= (outline.ahead_ns <= self._tolerance_ns) & self._asked[point]
        is_plain &= ~self._derived[point]
        unheard_ns = np.maximum(outline.step_ns, outline.first_ns - heard_ns)
        is_plain &= ~self._gaps.ends_one(point, unheard_ns)
        unusable_ns = np.maximum(outline.step_ns, outline.first_ns - usable_ns)
        is_quiet = self._now.quiet(
            Runs(point, is_plain, outline.least, outline.most, unheard_ns, unusable_ns)
        )
        if len(np.unique(point)) < len(point):
            return None
        rest = outline.rows(~is_quiet)
        count = outline.row_count - len(rest)
        if count < len(rest):
            return None
        last = outline.last_ns[is_quiet], outline.last_received_ns[is_quiet]
        return _Quiet(batch.take(rest), point[is_quiet], *last, count)

    def _judge_late(self, batch: Batch, time_ns: NDArray[np.int64]) -> _History:
        """What fills a hole is a piece of history, judged by itself."""
        hole_ns = self._gaps.hole(batch, time_ns)
        fills = hole_ns > NEVER
        if not fills.any():
            return _History([], [], 0)
        if self._late is None:
            self._late = LateLane(self._now)
        return _History(*self._late.evaluate(batch.take(fills), time_ns[fills], hole_ns[fills]))

    def _joined(self, known_to_ns: int) -> list[Stands]:
        """Instances a rule listens to from now on that are in condition already; and those it
        listened to that began afresh, whatever they are."""
        joined, self._programs.joined = self._programs.joined, set()
        afresh, self._afresh = self._afresh, set()
        if not joined and not afresh:
            return []
        levels = self.current_levels()
        quality = np.zeros(len(levels), np.uint8)
        for program in self._programs.all:
            quality[program.state["position"]] = program.standing_quality()
        time_ns = self._known_to_ns if self._known_to_ns > NEVER else known_to_ns
        return [
            Stands(p, int(levels[p]), time_ns, int(quality[p]))
            for p in sorted(joined | afresh)
            if levels[p] or p in afresh
        ]

    def _judge_levels(
        self,
        found: list[Found],
        joined: Sequence[Stands],
        now_ns: int,
        known_to_ns: int,
    ) -> None:
        """Rules that judge other rules: each layer hears what those before it found."""
        if not self._programs.judging:
            return
        times = self._now.times(now_ns)
        for program in self._programs.judging:
            width = program.layout.point_count  # beyond it stand rules that come later
            heard = [stands for stands in joined if stands.position < width]
            program.judge(rows_of(found, heard), times, known_to_ns)
            changes = program.finish(times, known_to_ns)
            if changes is not None:
                found.append((program, changes))

    def _known(self, batch: Batch) -> tuple[Batch, int, int]:
        """The rows some rule asks for; how many none does; how many are our own derived ones."""
        point = batch.point_index
        if len(point) == 0:
            return batch, 0, 0
        span = self._now.span(point)
        if span is not None and self._is_asked(span):
            return batch, 0, 0
        if int(point.min()) < 0 or int(point.max()) >= len(self._asked):
            inside = (point >= 0) & (point < len(self._asked))
            batch = batch.take(inside)
            point = batch.point_index
            outside = int(len(inside) - inside.sum())
        else:
            outside = 0
        if self._is_all_asked:
            return batch, outside, 0
        wanted = self._asked[point]
        seen = 0
        if self._programs.wanted:
            own = self._derived[point]
            seen = int(np.count_nonzero(own))
            wanted &= ~own
        kept = int(np.count_nonzero(wanted))
        if kept < len(point):
            outside += len(point) - kept - seen
            batch = batch.take(wanted)
        return batch, outside, seen

    def _is_asked(self, span: slice) -> bool:
        """Whether some rule asks for each point of a range, and none of them is our own."""
        if self._is_all_asked:
            return True
        key = (span.start, span.stop)
        if key not in self._asked_spans:
            if len(self._asked_spans) >= _SPANS_MAX:
                self._asked_spans.clear()
            is_asked = self._asked[span].all() and not self._derived[span].any()
            self._asked_spans[key] = bool(is_asked)
        return self._asked_spans[key]

    def _effective(self, batch: Batch) -> tuple[NDArray[np.int64], int]:
        source, received = batch.source_time_ns, batch.received_time_ns
        if len(source) == 0:
            return source, 0
        oldest_ns, newest_ns = int(np.minimum.reduce(source)), int(np.maximum.reduce(source))
        worst = self._now.worst(batch.quality)
        self._now.bounds = Bounds(source, oldest_ns, newest_ns, worst)
        if (
            newest_ns <= int(np.minimum.reduce(received)) + self._tolerance_ns
            and oldest_ns >= EARLIEST_BELIEVED_NS
            and worst < _CLOCK
        ):
            return source, 0
        absurd = source > received + self._tolerance_ns
        if source.min(initial=FOREVER) < EARLIEST_BELIEVED_NS:
            absurd |= source < EARLIEST_BELIEVED_NS
        if batch.quality.any():
            absurd |= batch.quality == _CLOCK
        count = int(np.count_nonzero(absurd))
        return (np.where(absurd, received, source) if count else source), count

    def _release(
        self, batch: Batch, time_ns: NDArray[np.int64], known_to_ns: int
    ) -> tuple[Batch, NDArray[np.int64], int]:
        """The rows whose time has come; the others wait."""
        if self.lateness_ns == 0:
            return batch, time_ns, 0
        if len(self._held):
            time_ns = np.concatenate([self._effective(self._held)[0], time_ns])
            batch = Batch.concat([self._held, batch])
        ready = time_ns <= known_to_ns
        released = 0
        if np.count_nonzero(ready) == len(ready):
            self._held = _NO_ROWS
            return batch, time_ns, 0
        over = len(ready) - int(np.count_nonzero(ready)) - self._held_rows_max
        if over > 0:
            waiting = np.flatnonzero(~ready)
            oldest = waiting[np.argsort(time_ns[waiting], kind="stable")[:over]]
            ready[oldest] = True
            released = over
        self._held = batch.take(~ready)
        return batch.take(ready), time_ns[ready], released

    def _collect(self, found: Sequence[Found], old: Sequence[Found]) -> Conditions:
        """Every program's changes in one table, in order of (time, instance); of one instance at
        one time history stands before the present."""
        parts = [*old, *found]
        if not parts:
            return _NO_CONDITIONS
        if len(parts) == 1 and parts[0][1].is_told_in_order and not old:
            return _conditions(*parts[0])
        told = chained([changes for _, changes in parts])
        assert told is not None, "there are parts"
        instance = _joined(
            [program.state["position"].take(changes.instance) for program, changes in parts]
        )
        late = np.zeros(len(instance), np.bool_)
        if old:
            late[: sum(len(changes.instance) for _, changes in old)] = True
        order = np.lexsort((instance, told.time_ns))
        return Conditions(
            instance=instance.take(order),
            level=told.level.take(order),
            time_ns=told.time_ns.take(order),
            began_ns=told.began_ns.take(order),
            value=told.value.take(order),
            limit=told.limit.take(order),
            quality=told.quality.take(order),
            late=late.take(order),
        )

    # ------------------------------------------------------------------ state

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Everything a restart needs, by stable names; `load` of it goes on where this stands."""
        heard = np.flatnonzero(self._now.heard_ns > NEVER)
        held = self._held
        arrays: st.Arrays = {
            "version": np.array([st.STATE_VERSION]),
            "known_to_ns": np.array([self._known_to_ns]),
            "points/id": self._names.of("points", self._point_ids)[heard],
            "held/id": st.as_names(self._points[int(p)].id for p in held.point_index),
            "afresh/key": st.as_names(self._programs.instances.key(p) for p in self._afresh),
        }
        for prefix, columns in self._point_columns():
            for name, column in columns.items():
                arrays[f"points/{prefix}{name}"] = column[heard]
        for name in st.HELD_COLUMNS:
            arrays[f"held/{name}"] = getattr(held, name).copy()
        for number, program in enumerate(self._programs.all):
            prefix = f"{number}:{program.kind.name}"
            names = self._programs.roster[program].names()
            for name, text in zip(st.NAME_COLUMNS, names, strict=True):
                arrays[f"{prefix}/{name}"] = text
            arrays[f"{prefix}/instance/live"] = program.layout.instance_live.copy()
            arrays[f"{prefix}/slot/live"] = self._listened(program)
            for what, own in self._memories(program):
                st.save_columns(arrays, f"{prefix}/{what}instance", own.state)
                st.save_columns(arrays, f"{prefix}/{what}own", own.evaluator.instances)
                st.save_columns(arrays, f"{prefix}/{what}slot", own.evaluator.slots)
        return arrays

    def _listened(self, program: Program) -> NDArray[np.bool_]:
        """Slots that are live and, where they listen to another rule's levels, know how that one
        stands. One that was not told yet is saved as one that is new."""
        layout, joined = program.layout, self._programs.joined
        if program.kind.judges is None or not joined:
            return layout.slot_live.copy()
        waits = np.isin(layout.slot_point, np.fromiter(joined, np.int64, len(joined)))
        return layout.slot_live & ~waits

    def _point_columns(self) -> list[tuple[str, dict[str, NDArray[np.int64]]]]:
        """What is remembered of each point."""
        gaps = {"gap_begin_ns": self._gaps.begin_ns, "gap_end_ns": self._gaps.end_ns}
        found = [("", {name: getattr(self._now, name) for name in Lane.MEMORY} | gaps)]
        if self._late is not None:
            found.append(("late_", {name: getattr(self._late, name) for name in LateLane.MEMORY}))
        return found

    def _memories(self, program: Program) -> list[tuple[str, Program]]:
        """The program itself, and the one that judges what comes too late."""
        late = self._late.twin.get(program) if self._late else None
        return [("", program)] + ([("late-", late)] if late else [])

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over a saved state. Raises ConfigError for one of another version."""
        version = int(arrays["version"][0])
        if version != st.STATE_VERSION:
            wanted = f"rule state of version {st.STATE_VERSION}, not {version}"
            raise ConfigError([Fault("rule state", 0, "version", wanted)])
        self.refresh()
        self._known_to_ns = int(arrays["known_to_ns"][0])
        if "points/late_heard_ns" in arrays:
            self._late = LateLane(self._now)
        rows, index = st.matched([arrays["points/id"]], [self._names.of("points", self._point_ids)])
        for prefix, columns in self._point_columns():
            for name, column in columns.items():
                saved = arrays.get(f"points/{prefix}{name}")
                if saved is not None:  # else it was not kept yet by whoever saved it
                    column[index] = saved[rows]
        self._now.forget_bounds()
        if self._late is not None:
            self._late.forget_bounds()
        self._held = st.load_held(arrays, self._points)
        forgotten, listened, anew = set[int](), set[int](), set[int]()
        for program in self._programs.all:
            is_known, is_heard = self._load_into(program, arrays)
            forgotten.update(program.state["position"][~is_known].tolist())
            if program.kind.judges is not None:
                listened.update(program.layout.slot_point[is_heard].tolist())
                anew.update(program.layout.slot_point[~is_heard].tolist())
        self._now.tell_behind()
        self._programs.joined -= listened - anew
        untold = {name.decode() for name in arrays.get("afresh/key", np.empty(0, "S1")).tolist()}
        if untold:
            key = self._programs.instances.key
            forgotten.update(position for position in listened if key(position) in untold)
        self._afresh = listened & forgotten

    def _load_into(
        self, program: Program, arrays: Mapping[str, NDArray[np.generic]]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of its instances and of its slots, which were judged or listened to when that was
        saved."""
        names, layout = self._programs.roster[program].names(), program.layout
        is_known = np.zeros(len(program.state), np.bool_)
        is_heard = np.zeros(len(layout.slot_point), np.bool_)
        for prefix in st.prefixes(arrays, program.kind.name):
            saved = [arrays[f"{prefix}/{name}"] for name in st.NAME_COLUMNS]
            same = st.that_are(layout.instance_live, st.matched(saved[:2], names[:2]))
            slots = st.that_are(layout.slot_live, st.matched(saved[2:], names[2:]))
            is_known[st.that_lived(arrays, f"{prefix}/instance", same)] = True
            is_heard[st.that_lived(arrays, f"{prefix}/slot", slots)] = True
            for what, own in self._memories(program):
                st.load_columns(arrays, f"{prefix}/{what}instance", own.state, same)
                st.load_columns(arrays, f"{prefix}/{what}own", own.evaluator.instances, same)
                st.load_columns(arrays, f"{prefix}/{what}slot", own.evaluator.slots, slots)
        for _, own in self._memories(program):
            own.settle_all()
        return is_known, is_heard


def _take_word(
    state: Columns,
    rows: NDArray[np.int64],
    word: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    heard_ns: NDArray[np.int64],
) -> None:
    """The output becomes the word: its level holds, none above it does. A level that is told holds
    in condition too: what made it may have been lost with whoever told it."""
    width = state["output"].shape[1]
    for level in range(1, width + 1):
        held = state["output"][rows, level - 1]
        wanted = (word == level) | (held & (level < word))
        differs = held != wanted
        at = rows[differs]
        state["output"][at, level - 1] = wanted[differs]
        state["planned"][at, level - 1] = False
        off_ns = state["off_ns"][at, level - 1]
        is_lost = held[differs] & (heard_ns[differs] < time_ns[differs] - off_ns)
        state["condition"][at, level - 1] &= ~is_lost
        since_ns = state["since_ns"][at, level - 1]
        state["since_ns"][at, level - 1] = np.maximum(since_ns, time_ns[differs])
    raised, column = rows[word > 0], word[word > 0] - 1
    state["quality"][raised, column] *= state["condition"][raised, column]
    state["condition"][raised, column] = True
    state["floor_ns"][rows] = np.maximum(state["floor_ns"][rows], time_ns)
