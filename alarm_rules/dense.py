"""The path of an ordinary tick: every instance spoke at most once, so nothing needs an order.

    rows x levels   condition ─set, reset─▶ condition'     an edge where they differ
                    due ≤ t ──────────────▶ old turns      runs that lasted take effect first
                    edge, delay over ─────▶ new turns      then what begins now

Segments, sorting and runs (program.py) are for what is said of one instance several times in a
call. Here everything is by element, on the state's arrays read as one row; what moved is picked out
once and the rest is done on it alone, since numpy's masked copies cost more than picking.

**Same events as the general path, to the bit**: a test tells random ticks both ways. It steps in
only where no calibration plays a part, nothing was found by a clock, and each time is past the last
word of its instance. Instances whose delay has run out come along as rows that say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.turns import Changes, Turns, changes_of
from gateway.contract.rule_kind import FOREVER, Columns, Signals

Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tick:
    """What became of a tick: changes, the instances touched, and the next deadline among them."""

    changes: Changes | None
    instance: Int
    due_ns: int


@dataclass(frozen=True, slots=True)
class _Cells:
    """Turns by element: where in the flat table, where in the rows read as one, and when."""

    key: Int
    at: Int
    time_ns: Int


def is_dense(signals: Signals, state: Columns) -> bool:
    """Whether each instance speaks once, by a sample, and after its last word."""
    instance = signals.instance
    if signals.timed is not None or not seg.is_ascending(instance, strictly=True):
        return False
    return bool((signals.time_ns > seg.rows_of(state["floor_ns"], instance)).all())


def with_silent(signals: Signals, instances: Int, state: Columns) -> Signals:
    """The signals and, where not among them, `instances` (ascending) that say nothing."""
    if len(instances) == 0 or len(signals) == len(state):
        return signals
    at = np.searchsorted(signals.instance, instances)
    known = np.append(signals.instance, -1)[at] == instances
    at, instances = at[~known], instances[~known]
    if len(instances) == 0:
        return signals
    size = len(signals) + len(instances)
    silent = at + np.arange(len(at))
    rows = np.ones(size, np.bool_)
    rows[silent] = False
    row = np.flatnonzero(rows)

    def spread(said: NDArray[Any], silence: Any) -> NDArray[Any]:
        found = np.empty((size, *said.shape[1:]), said.dtype)
        found[row], found[silent] = said, silence
        return found

    return Signals(
        instance=spread(signals.instance, instances),
        time_ns=spread(signals.time_ns, state["floor_ns"].take(instances)),
        set=spread(signals.set, 0),
        reset=spread(signals.reset, 0),
        value=spread(signals.value, np.nan),
        quality=spread(signals.quality, 0),
    )


def tick(state: Columns, signals: Signals, now_ns: int, *, swept: bool) -> Tick:
    """Take the signals in. `swept`: a deadline may have passed by `now_ns`."""
    instance, wide = signals.instance, state["condition"].shape[1]
    key = _keys(instance, wide, len(state))
    condition, output, due_ns = (_by_cell(state, n, key) for n in ("condition", "output", "due_ns"))
    time_ns = np.repeat(signals.time_ns, wide) if wide > 1 else signals.time_ns
    now = np.greater(condition, signals.reset.reshape(-1))  # stood and was not reset
    now |= signals.set.reshape(-1)
    edge = now != condition
    end_ns = time_ns
    if swept:
        end_ns = np.where(edge, time_ns, np.maximum(time_ns, now_ns))
    lasted = np.flatnonzero(due_ns <= end_ns)
    old = _Cells(_picked(key, lasted), lasted, due_ns.take(lasted))
    if len(lasted):
        floor_ns = state["floor_ns"].take(_picked(instance, lasted // wide))
        np.maximum(old.time_ns, floor_ns, out=old.time_ns)
        output = output.copy()
        output[lasted] ^= True
    begun = np.flatnonzero(edge)
    key, value = _picked(key, begun), now.take(begun)
    time_ns = time_ns.take(begun)
    effect_ns = time_ns + _delay(state, key, value)
    moves = value != output.take(begun)
    at_once = effect_ns <= np.maximum(time_ns, now_ns)
    turned = np.flatnonzero(moves & at_once)
    new = _Cells(key.take(turned), begun.take(turned), effect_ns.take(turned))
    changes = None
    if len(lasted) or len(turned):
        changes = _changes(state, signals, old, new)
    row = begun // wide if wide > 1 else begun
    _flat(state, "condition")[key] = value
    _flat(state, "since_ns")[key] = time_ns
    _flat(state, "cause")[key] = signals.value.take(row)
    _flat(state, "quality")[key] = signals.quality.take(row)
    _flat(state, "due_ns")[old.key] = FOREVER
    effect_ns[~(moves & ~at_once)] = FOREVER
    _flat(state, "due_ns")[key] = effect_ns
    _flat(state, "output")[old.key] ^= True
    _flat(state, "output")[new.key] ^= True
    _note_words(state, signals, old, new, wide)
    return Tick(changes, instance, int(effect_ns.min(initial=FOREVER)))


def _keys(instance: Int, wide: int, size: int) -> Int | None:
    """The cells of the rows in the flat table; None: all there are, in order."""
    if len(instance) == size:
        return None
    if wide == 1:
        return instance
    return (np.repeat(instance * wide, wide).reshape(-1, wide) + np.arange(wide)).reshape(-1)


def _flat(state: Columns, name: str) -> NDArray[Any]:
    """A column as one row: a view, to write into."""
    return state[name].reshape(-1)


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


def _note_words(state: Columns, signals: Signals, old: _Cells, new: _Cells, wide: int) -> None:
    """A sample is a last word, and so is what a delay said after it."""
    floor_ns = state["floor_ns"]
    seg.write_rows(floor_ns, signals.instance, signals.time_ns)
    for cells in (old, new):
        if len(cells.key):
            np.maximum.at(floor_ns, cells.key // wide, cells.time_ns)


def _changes(state: Columns, signals: Signals, old: _Cells, new: _Cells) -> Changes:
    """Turns of levels into changes of the most severe one. `state` is as it was before."""
    wide = state["condition"].shape[1]
    row = new.at // wide
    spoken_ns = signals.time_ns.take(row)
    key = np.concatenate([old.key, new.key])
    instance = key // wide
    columns: list[Any] = [
        instance,
        key - instance * wide,
        np.concatenate([old.time_ns, new.time_ns]),
        np.concatenate([np.zeros(len(old.key), np.bool_), new.time_ns == spoken_ns]),
        np.ones(len(key), np.bool_),
        np.concatenate([_flat(state, "since_ns").take(old.key), spoken_ns]),
        np.concatenate([_flat(state, "cause").take(old.key), signals.value.take(row)]),
        np.concatenate([_flat(state, "quality").take(old.key), signals.quality.take(row)]),
    ]
    if len(old.key) and len(new.key):
        order = np.argsort(key, kind="stable")
        columns = [column.take(order) for column in columns]
    columns.append(True)  # no level twice, instances ascend
    return changes_of(Turns(*columns), state)
