"""The path of an ordinary tick: every instance spoke at most once, so nothing needs an order.

    rows x levels   condition ─set, reset─▶ condition'     an edge where they differ
                    due ≤ t ──────────────▶ old turns      runs that lasted take effect first
                    edge, delay over ─────▶ new turns      then what begins now

Segments, sorting and runs (program.py) are for what is said of one instance several times in a
call. Here everything is by element, on the state's arrays read as one row; what moved is picked out
once and the rest is done on it alone, since numpy's masked copies cost more than picking.

**Same events as the general path, to the bit**: a test tells random ticks both ways. It steps in
only where no calibration plays a part, nothing was found by a clock, and each time is past the last
word of its instance. Delays that run out are known by their keys, and need no row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.turns import Changes, Turns, changes_of, decided, limit_of
from gateway.contract.rule_kind import FOREVER, Columns, Signals

Int = NDArray[np.int64]
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Tick:
    """What became of a tick: changes, runs that began and that lasted, the next deadline."""

    changes: Changes | None
    begun: Int  # keys, ascending
    lasted: Int  # keys
    due_ns: int


@dataclass(frozen=True, slots=True)
class _Cells:
    """Turns by element: where in the flat table, and when."""

    key: Int
    time_ns: Int

    def __len__(self) -> int:
        return len(self.key)


class Told(NamedTuple):
    """Levels that turned, each with the run that did it."""

    key: Int
    time_ns: Int
    sampled: NDArray[np.bool_]  # by a sample of that time
    began_ns: Int
    cause: NDArray[np.float64]
    quality: NDArray[np.uint8]


def is_dense(signals: Signals, state: Columns) -> bool:
    """Whether each instance speaks once, by a sample, and after its last word."""
    instance = signals.instance
    if signals.timed is not None or not seg.is_ascending(instance, strictly=True):
        return False
    return bool((signals.time_ns > seg.rows_of(state["floor_ns"], instance)).all())


def tick(state: Columns, signals: Signals, now_ns: int, *, late: Int | None) -> Tick:
    """Take the signals in. `late`: keys whose delay ends by `now_ns`, ascending; None: no clock is
    asked, a delay ends by the samples alone."""
    if len(signals) == 0:
        return _tick_of_silent(state, signals, _NONE if late is None else late)
    instance, wide, size = signals.instance, state["condition"].shape[1], len(state)
    key = _keys(instance, wide, size)
    condition, output = _by_cell(state, "condition", key), _by_cell(state, "output", key)
    time_ns = np.concatenate([signals.time_ns] * wide) if wide > 1 else signals.time_ns
    now = np.greater(condition, seg.flat(signals.reset))  # stood and was not reset
    now |= seg.flat(signals.set)
    edge = now != condition
    waits = (condition != output).nonzero()[0]  # no others have a deadline
    end_ns = time_ns.take(waits)
    if late is not None:
        end_ns = np.where(edge.take(waits), end_ns, np.maximum(end_ns, now_ns))
    lasted = waits[_flat(state, "due_ns").take(_picked(key, waits)) <= end_ns]
    old_key = _picked(key, lasted)
    if len(lasted):
        output = output.copy()
        output[lasted] ^= True
    if late is not None and len(late):
        old_key = _joined(old_key, _of_silent(late, instance, size))
    old = _lasted(state, old_key)
    begun = edge.nonzero()[0]
    key, value = _picked(key, begun), now.take(begun)
    time_ns = time_ns.take(begun)
    effect_ns = time_ns + _delay(state, key, value)
    moves = value != output.take(begun)
    at_once = effect_ns <= np.maximum(time_ns, now_ns)
    at_once &= moves
    turned = at_once.nonzero()[0]
    row = _row(begun, signals) if wide > 1 else begun
    new = _Cells(key.take(turned), effect_ns.take(turned))
    changes = None
    if len(old) or len(new):
        changes = changes_by(state, _told(state, signals, old, new, row.take(turned)))
    _write(state, key, value, time_ns, signals.value.take(row), signals.quality.take(row))
    moves ^= at_once  # what moves, but later
    np.logical_not(moves, out=moves)
    effect_ns[moves] = FOREVER
    due_ns = _flat(state, "due_ns")
    due_ns[old.key] = FOREVER
    due_ns[key] = effect_ns
    _turn_outputs(state, old, new)
    _note_words(state, signals, old, new)
    return Tick(changes, key, old.key, int(effect_ns.min(initial=FOREVER)))


def _tick_of_silent(state: Columns, signals: Signals, late: Int) -> Tick:
    """Nobody says anything; delays end."""
    old = _lasted(state, late)
    if len(old) == 0:
        return Tick(None, _NONE, _NONE, FOREVER)
    new = _Cells(_NONE, _NONE)
    changes = changes_by(state, _told(state, signals, old, new, _NONE))
    _flat(state, "due_ns")[late] = FOREVER
    _turn_outputs(state, old, new)
    _note_words(state, signals, old, new)
    return Tick(changes, _NONE, late, FOREVER)


def _of_silent(late: Int, instance: Int, size: int) -> Int:
    """Those keys whose instance says nothing."""
    if len(instance) == 0:
        return late
    if len(instance) == size:
        return late[:0]
    of = late % size
    at = instance.searchsorted(of)
    at[at == len(instance)] = 0
    silent: Int = late[instance.take(at) != of]
    return silent


def _lasted(state: Columns, key: Int) -> _Cells:
    """The turns of runs that lasted, at their deadline or the last word after it."""
    if len(key) == 0:
        return _Cells(key, key)
    floor_ns = state["floor_ns"].take(key % len(state))
    return _Cells(key, np.maximum(_flat(state, "due_ns").take(key), floor_ns))


def _write(  # noqa: PLR0917  the columns of an open run
    state: Columns,
    key: Int,
    value: NDArray[np.bool_],
    time_ns: Int,
    cause: NDArray[np.float64],
    quality: NDArray[np.uint8],
) -> None:
    """The runs that begin."""
    if len(key) == 0:
        return
    _flat(state, "condition")[key] = value
    _flat(state, "since_ns")[key] = time_ns
    _flat(state, "cause")[key] = cause
    _flat(state, "quality")[key] = quality


def _turn_outputs(state: Columns, old: _Cells, new: _Cells) -> None:
    output = _flat(state, "output")
    for cells in (old, new):  # one after the other: a level may turn twice
        if len(cells):
            output[cells.key] ^= True


def _keys(instance: Int, wide: int, size: int) -> Int | None:
    """The cells of the rows in the flat table, level by level; None: all there are, in order."""
    if len(instance) == size:
        return None
    if wide == 1:
        return instance
    return (np.arange(0, wide * size, size)[:, None] + instance).reshape(-1)


def _row(cell: Int, signals: Signals) -> Int:
    return cell % max(len(signals), 1)


def _flat(state: Columns, name: str) -> NDArray[Any]:
    """A column as one row: a view, to write into."""
    return seg.flat(state[name])


def _by_cell(state: Columns, name: str, key: Int | None) -> NDArray[Any]:
    flat = _flat(state, name)
    return flat if key is None else flat.take(key)


def _picked(table: Int | None, rows: Int) -> Int:
    return rows if table is None else table.take(rows)


def _delay(state: Columns, key: Int, value: NDArray[np.bool_]) -> Int:
    """By arithmetic: a choice by a mask that is true now and then is ten times slower."""
    off_ns: Int = _flat(state, "off_ns").take(key)
    on_ns: Int = _flat(state, "on_ns").take(key)
    on_ns -= off_ns
    on_ns *= value
    on_ns += off_ns
    return on_ns


def _note_words(state: Columns, signals: Signals, old: _Cells, new: _Cells) -> None:
    """A sample is a last word, and so is what a delay said after it."""
    floor_ns = state["floor_ns"]
    if len(signals):
        seg.write_rows(floor_ns, signals.instance, signals.time_ns)
    for cells in (old, new):
        if len(cells):
            np.maximum.at(floor_ns, cells.key % len(state), cells.time_ns)


def _told(state: Columns, signals: Signals, old: _Cells, new: _Cells, row: Int) -> list[Told]:
    """`state` is as it was before; `row`: the signals that made the new ones."""
    found = []
    if len(old):
        columns = (seg.flat(state[name]).take(old.key) for name in ("since_ns", "cause", "quality"))
        found.append(Told(old.key, old.time_ns, np.zeros(len(old), np.bool_), *columns))
    if len(new):
        began_ns = signals.time_ns.take(row)
        cause, quality = signals.value.take(row), signals.quality.take(row)
        found.append(Told(new.key, new.time_ns, new.time_ns == began_ns, began_ns, cause, quality))
    return found


def changes_by(state: Columns, told: list[Told]) -> Changes:
    """Turns of levels into changes of the most severe one. Of one level the older turn stands
    first."""
    columns: list[Any] = [*told[0]]
    if len(told) > 1:
        columns = [np.concatenate(column) for column in zip(*told, strict=True)]
    key, *columns = columns
    level = key // len(state)
    instance = key - level * len(state)
    order = None
    if len(key) > 1 and np.minimum.reduce(step := instance[1:] - instance[:-1]) <= 0:
        order = instance.argsort(kind="stable")
        instance, level = instance.take(order), level.take(order)
        step = instance[1:] - instance[:-1]
        same = (step == 0).nonzero()[0]
        if len(same) and not _is_at_once(columns, order.take(same), order.take(same + 1)):
            columns = [column.take(order) for column in columns]
            time_ns, sampled, *run = columns
            changed = np.ones(len(key), np.bool_)
            return changes_of(Turns(instance, level, time_ns, sampled, changed, *run), state)
    turn, now, earlier = decided(instance, level, state)
    instance = instance.take(turn)
    if order is not None:
        turn = order.take(turn)
    time_ns, _, began_ns, cause, quality = (column.take(turn) for column in columns)
    limit = limit_of(state, instance, now, earlier)
    return Changes(instance, now.astype(np.uint8), time_ns, began_ns, cause, limit, quality)


def _is_at_once(columns: list[NDArray[Any]], one: Int, other: Int) -> bool:
    """Whether turns stand at the same times as those others."""
    time_ns, sampled, *_ = columns
    differs = time_ns.take(one) != time_ns.take(other)
    differs |= sampled.take(one) != sampled.take(other)
    return not np.count_nonzero(differs)


def _joined(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Mostly one of the two is empty."""
    if len(one) == 0:
        return other
    return one if len(other) == 0 else np.concatenate([one, other])
