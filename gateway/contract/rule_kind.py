"""An algorithm that judges: what a rule kind offers and what the rule core does for it.

    points matching the rule's selectors
       └─ plan() ─> GroupPlan (inputs together) ─> InstancePlan (levels, delays)      Python, once
    samples ─> select() ─> judge() ─> Signals (set / reset per level) or Derived      arrays, always
               timers() ─────────────┘    └─ the core: hysteresis, exact delays, most severe level

A kind never sees a batch, a delay, a late row, a duplicate's history or the operator: the core
sorts, holds back and deduplicates, and turns set / reset into changes of level at exact times.

Arrays only: `select`, `judge` and `timers` are called with everything there is of one kind, and
have no loop over samples or points. **They are pure but for the evaluator's own `Columns`**, which
the core grows, saves and loads: a kind that keeps its memory there survives a restart unasked.

**At equal times** rows of one instance are one step: `set` wins over `reset`, whatever the order,
so that a duplicate, another cut or another order cannot change the verdict. A kind that keeps a
snapshot of several inputs says `latest_wins` instead: its newest signal knows more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from gateway.model.condition import Level, RuleInstance
from gateway.model.point import Point, PointTable
from gateway.model.rule import Priority, Rule

T = TypeVar("T", bound=np.generic)

NEVER = -(1 << 62)
"""A time before every time: the point was never heard. Far enough from the ends of int64 that a
difference with a real time (1.8e18 ns now) does not wrap."""
FOREVER = 1 << 62
"""A time after every time: no timer is set."""


class Columns:
    """Equal-length arrays by name that grow together. `saved` ones are state, others are setting.

    A field is (dtype, fill) or (dtype, fill, width) for one row of `width` values per member.
    `by_column`: such a field lies in memory column by column (Fortran order), for who works on one
    column of all members at a time.
    `rings`: saved fields of this kind that take whatever width they were saved with; of all others
    what is wider than the table has no meaning any more and is dropped.
    """

    def __init__(
        self,
        settings: Mapping[str, tuple[Any, ...]] | None = None,
        saved: Mapping[str, tuple[Any, ...]] | None = None,
        *,
        by_column: bool = False,
        rings: Sequence[str] = (),
    ) -> None:
        self._is_by_column = by_column
        self.rings = tuple(rings)
        self._fields = {**(settings or {}), **(saved or {})}
        self.saved = tuple(saved or {})
        self._arrays = {name: self._blank(name) for name in self._fields}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The live array: write into it. Fetch it anew after the set of rules was refreshed."""
        return self._arrays[name]

    def grow(self, size: int) -> None:
        extra = size - self._size
        assert extra >= 0, "rule instances are never taken away"
        if extra:
            for name, array in self._arrays.items():
                grown = np.empty((size, *array.shape[1:]), array.dtype, order=self._order)
                grown[: self._size], grown[self._size :] = array, self._fields[name][1]
                self._arrays[name] = grown
            self._size = size

    def widen(self, name: str, width: int) -> None:
        """More room in a field of rows of values; what stands there stays at its place."""
        dtype, fill, *_ = self._fields[name]
        array = self._arrays[name]
        self._fields[name] = (dtype, fill, width)
        wider = np.full((self._size, width), fill, dtype, order=self._order)
        wider[:, : array.shape[1]] = array
        self._arrays[name] = wider

    def clear(self, row: int | slice | NDArray[np.int64]) -> None:
        """Back to the fill: the member is another one now."""
        for name in self.saved:
            self._arrays[name][row] = self._fields[name][1]

    def unset(self, row: NDArray[np.int64], *, but: Sequence[str] = ()) -> None:
        """Settings back to the fill: others are about to be written."""
        for name, (_dtype, fill, *_width) in self._fields.items():
            if name not in self.saved and name not in but:
                self._arrays[name][row] = fill

    @property
    def _order(self) -> Literal["C", "F"]:
        return "F" if self._is_by_column else "C"

    def _blank(self, name: str) -> NDArray[Any]:
        dtype, _fill, *width = self._fields[name]
        return np.empty((0, *width), dtype=dtype, order=self._order)


class InstancePlan(NamedTuple):
    """One alarm a group can raise. Delays are per level, in the order of `levels`."""

    target: str  # what the alarm is about; with the rule's id its stable key
    levels: tuple[Level, ...]
    on_delay_ns: tuple[int, ...]
    off_delay_ns: tuple[int, ...]
    resets: tuple[float, ...] = ()  # the value that decided when the level ends; NaN for none
    point_id: str = ""
    unit: str = ""
    device: str = ""
    area: str = ""
    location: str = ""
    display_name: str = ""
    setting: Any = None  # the kind's own, read back in `configure`
    measures: bool = False  # the alarm's value is the point's sample: the worst one is followed


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Points that are judged together, and what may come of it."""

    inputs: tuple[tuple[int, ...], ...]  # point indices of each input, as in `Planning.inputs`
    instances: tuple[InstancePlan, ...] = ()
    derived: Point | None = None  # the point this group computes, if it computes one
    setting: Any = None


@dataclass(frozen=True, slots=True)
class Planning:
    """Everything `plan` may look at for one group of one rule."""

    rule: Rule
    parameters: Any  # the kind's own model, validated
    key: str  # point id, device id, area, adapter or "site"
    inputs: Mapping[str, tuple[int, ...]]  # input name -> indices of the matching points
    # (of a kind that `judges` other rules: positions in `instances`)
    points: PointTable
    urgent: Callable[[int], Priority | None]  # most urgent level planned on a point so far
    problem: Callable[[str], None]  # say why nothing can be judged here; shown to the operator
    instances: Sequence[RuleInstance] = ()  # of all rules planned so far, by position


class Tick(NamedTuple):
    """What is known of all rows of a tick together: bounds that spare a look at every row."""

    oldest_ns: int
    newest_ns: int
    is_usable: bool  # every row is
    unheard_ns: int  # no point had been silent for longer; FOREVER when one was never heard
    unusable_ns: int  # … without a usable value
    is_later: bool = False  # every row is later than what was heard of its point before
    least: float = -math.inf  # no value is less


class PointsPlanning(NamedTuple):
    """What `plan_alike` may look at: many groups of one rule, each of one point."""

    rule: Rule
    parameters: Any
    members: Sequence[int]  # indices of the matching points
    points: PointTable
    urgent: Callable[[int], Priority | None]


class Runs(NamedTuple):
    """What is known of many samples of each of some points, by point, none twice: bounds that spare
    a look at them."""

    point: NDArray[np.int64]
    is_plain: NDArray[np.bool_]  # all good, numbers, each later than what was heard of the point
    # before it; where not, the bounds mean nothing
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    unheard_ns: NDArray[np.int64]  # the point had never been silent for longer before one of them
    unusable_ns: NDArray[np.int64]  # … without a usable value


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples that are judged now, in order of arrival; none is late. Effective times.

    A tick, every point of a range once and in order, says so in `span`: what is known by point then
    stands as it is needed, and `at` copies nothing.
    """

    point: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    time_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    usable: NDArray[np.bool_]  # not bad and a number
    heard_ns: NDArray[np.int64]  # when the point was last heard: before this call, or, where its
    # rows stand together in order of time, by the row before
    usable_ns: NDArray[np.int64]  # … with a usable value
    span: slice | None = None  # the points are these, each once, in order
    tick: Tick | None = None  # stands only beside `span`

    def __len__(self) -> int:
        return len(self.point)

    @property
    def since_heard_ns(self) -> NDArray[np.int64]:
        """Since the point was last heard; never less than since its sample before this one."""
        return self.time_ns - self.heard_ns

    @property
    def since_usable_ns(self) -> NDArray[np.int64]:
        return self.time_ns - self.usable_ns

    def at(self, column: NDArray[T]) -> NDArray[T]:
        """What a column by point says for each row. Not to be written into."""
        return column[self.point] if self.span is None else column[self.span]

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        names = [name for name in cls.__slots__ if name not in {"span", "tick"}]
        columns: Any = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return cls(*columns)


@dataclass(frozen=True, slots=True)
class Feed:
    """The chosen samples, once for each group they belong to, ordered by (group, time)."""

    group: NDArray[np.int64]
    slot: NDArray[np.int64]  # which input of the group, as a row of the evaluator's slot table
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    time_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    usable: NDArray[np.bool_]
    is_later: bool = False  # known: each once, and later than what was heard of its point before

    def __len__(self) -> int:
        return len(self.group)

    def take(self, rows: NDArray[Any]) -> Feed:
        columns: Any = [getattr(self, n)[rows] for n in self.__slots__ if n != "is_later"]
        columns.append(self.is_later)
        return Feed(*columns)


@dataclass(frozen=True, slots=True)
class Signals:
    """What the samples say of each level, before delays; ordered by (instance, time)."""

    instance: NDArray[np.int64]  # of this evaluator
    time_ns: NDArray[np.int64]
    set: NDArray[np.bool_]  # (rows, levels): beyond the limit
    reset: NDArray[np.bool_]  # (rows, levels): back; neither = hold
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    timed: NDArray[np.bool_] | None = None  # found by a clock, before any sample of that time; one
    # change with the delays that end at that time

    def __len__(self) -> int:
        return len(self.instance)


@dataclass(frozen=True, slots=True)
class Derived:
    """Samples of the groups' own points, ordered by (group, time)."""

    group: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    received_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind says of a feed; a calculation says samples, all others signals."""

    signals: Signals | None = None
    derived: Derived | None = None


@dataclass(slots=True)
class Layout:
    """How points, slots, groups and instances of one evaluator hang together; kept by the core.

    The core replaces the arrays when points were added: read them from here every time.
    """

    slot_group: NDArray[np.int64]
    slot_point: NDArray[np.int64]
    slot_input: NDArray[np.int64]  # ordinal of the input in GroupPlan.inputs
    slot_live: NDArray[np.bool_]  # a point that no longer matches leaves its slot behind
    group_instance: NDArray[np.int64]  # the group's first instance, -1 for none
    group_slots: NDArray[np.int64]  # live slots ordered by group, …
    group_start: NDArray[np.int64]  # … those of group g from group_start[g] to group_start[g + 1]
    point_slots: NDArray[np.int64]  # live slots ordered by point, …
    point_start: NDArray[np.int64]
    instance_group: NDArray[np.int64]
    instance_live: NDArray[np.bool_]
    point_count: int = 0


class PointTimes(Protocol):
    """When each point was last heard, by point index; NEVER where it was not. Not to be kept."""

    @property
    def heard_ns(self) -> NDArray[np.int64]: ...

    @property
    def usable_ns(self) -> NDArray[np.int64]:
        """With a value that is a number and not bad."""
        ...

    @property
    def usable_since_ns(self) -> int:
        """No point was last heard, with such a value, before this; NEVER where that is not known
        without a look at each."""
        ...

    @property
    def now_ns(self) -> int:
        """Of this call: a clock for what has no sample yet."""
        ...


class Evaluator(Protocol):
    """All rules of one kind, as arrays.

    instances, slots: the evaluator's tables, one row per instance and per (group, input, point).
    due_ns: the next time `timers` has something to say; FOREVER for none.
    behind_ns: by group, how much later than others its samples come in; None: nobody's do.
    Written by the core; `timers` that conclude from what was not heard go by that clock.
    is_by_gateway: `timers` speak at the time of the gateway, and all delays go by it too.
    """

    instances: Columns
    slots: Columns
    due_ns: int
    behind_ns: NDArray[np.int64] | None
    is_by_gateway: bool
    latest_wins: bool

    def configure(
        self,
        instances: Sequence[tuple[int, InstancePlan]],
        groups: Sequence[tuple[int, GroupPlan]],
        layout: Layout,
    ) -> None:
        """New or changed instances and groups. Called after the tables have grown."""
        ...

    def select(self, rows: Rows) -> NDArray[np.bool_]:
        """The fast path: which rows can make a difference. Cheap, and true when in doubt."""
        ...

    def judge(self, feed: Feed, times: PointTimes, now_ns: int) -> Verdict:
        """What the chosen rows say. `times` are those before this call, `now_ns` the time up to
        which everything is known."""
        ...

    def timers(self, now_ns: int, times: PointTimes) -> Signals | None:
        """What the clock says by itself up to `now_ns`; `times` include the rows just judged."""
        ...

    def settled(self, instances: NDArray[np.int64], busy: NDArray[np.bool_]) -> None:
        """Told which of the touched instances are in condition or on their way in or out, by the
        core after a change, a refresh or a load. Instances ascend, none twice."""
        ...


class Standing(Protocol):
    """An evaluator may have this in place of a `settled` that does anything: a fast path that knows
    which levels stand can skip what an alarm that goes on says."""

    def stands(
        self,
        instances: NDArray[np.int64],
        condition: NDArray[np.bool_],
        planned: NDArray[np.bool_] | None,
    ) -> None:
        """Told the raw condition of every level of the touched instances, and in which of them
        calibration plays a part, so that every row matters; None: in none."""
        ...


class Banded(Protocol):
    """An evaluator with `stands` may have this too, if it judges every usable row by itself and no
    row strictly inside the band of its point makes a difference: many rows of a point at once then
    cost what happens in them."""

    def bands(self, points: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(low, high) of points: at or below low, at or above high, something may move."""
        ...

    def common_band(
        self, points: NDArray[np.int64]
    ) -> tuple[float, float, NDArray[np.int64]] | None:
        """(low, high) of most of these points, and the places among them of all that have another
        band; None where there is none that most have."""
        ...

    def said(
        self, instances: NDArray[np.int64] | slice, value: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(set, reset) of every level by usable values, one for each of the instances; laid out
        level by level."""
        ...

    def note(self, instances: NDArray[np.int64] | slice, time_ns: NDArray[np.int64]) -> None:
        """These were told what their points said up to then."""
        ...


class OneByOne(Protocol):
    """A `Banded` may have this too: what it says of a few rows in plain numbers, where calls of
    numpy would cost more than the rows. `judges_few` is asked after every refresh. Levels are bits,
    bit n for level n."""

    judges_few: bool

    def said_of_few(self, instances: list[int], values: list[float]) -> list[tuple[int, int]]:
        """As `said`: (levels set, levels reset) by each value."""
        ...

    def note_few(self, instances: list[int], times_ns: list[int]) -> None:
        """As `note`."""
        ...

    def stands_of_few(self, stands: list[tuple[int, int]]) -> None:
        """As `stands`, where calibration plays no part: (instance, levels whose raw condition
        stands)."""
        ...


class Passing(Protocol):
    """An evaluator may have this: it spares a look at every row."""

    def passes(self, tick: Tick) -> bool:
        """Whether no row of those this is known of can make a difference."""
        ...


class Quiet(Protocol):
    """An evaluator may have this: whole days of a point then cost one look."""

    def quiet(self, runs: Runs) -> NDArray[np.bool_]:
        """Of which runs no row can make a difference, whichever of the others are judged: where a
        group has several points, of all of its runs or of none. Only plain ones."""
        ...


@dataclass(frozen=True)
class RuleKind:
    """What the entry point names."""

    name: str
    summary: str  # one line for `hazard-gateway plugins`
    parameters: type[BaseModel]  # unknown keys refused; every option has a unit in its name
    plan: Callable[[Planning], GroupPlan | None]  # None: nothing to judge in this group
    build: Callable[[int], Evaluator]  # how many levels the largest rule of this kind has
    level_count: Callable[[Any], int]  # parameters -> levels
    inputs: Sequence[str] | None = ("value",)  # None: the rule names them itself
    group_by: Callable[[Rule, Any], str] | None = None  # a GroupBy's value; None: the rule's own
    produces: Callable[[Rule, Any], Point | None] | None = None
    """(rule, parameters) -> the point it computes, `*` in its id for what is known later."""
    check: Callable[[Rule, Any], Sequence[str]] = field(default=lambda _rule, _parameters: ())
    loosens: Callable[[Any, Any], Sequence[str]] | None = None
    """(parameters, changed parameters) -> what became less strict; None: every change may have."""
    judges: Callable[[Any], Sequence[str]] | None = None
    """parameters -> ids of the rules whose levels are its samples (`*` stands for any part). Such a
    kind is judged after all others: its rows carry the position of a rule instance where others
    carry a point, and as value the level code the instance changed to. Its one input `value`
    selects among those instances by what they are about."""
    plan_alike: Callable[[PointsPlanning], Sequence[InstancePlan | None]] | None = None
    """What `plan` says of each point of a rule with one input that groups by point, all at once: a
    site has a hundred thousand of them. Points that are judged alike share one object without a
    target; the core adds it, and says of the point what `_common.place_of` does (a unit that is
    stated stays). None: `plan` is asked. The groups are not told to `configure`. Parameters of such
    a kind are one object for all rules that state the same, so nothing in them is of one rule."""
    quick: Callable[[Mapping[str, Any]], Any | None] | None = None
    """Stated parameters -> what stands in for them everywhere in the kind, quicker than its model
    and equal in all it says; None: ask the model. Of kinds with `plan_alike`, for which it also has
    `plan(rule)`: the one plan of every point of such a rule."""
    per_device: Sequence[str] = ()  # replan a rule when a device of one of these kinds changes
    hides: bool = False  # plans last: inherits the priority of what its silence hides
