"""From turns of single levels to changes of an instance's level: the most severe one speaks.

    H    ╭────────────────────╮           a turn: one level's output changed, at an exact time
    HH        ╭──────╮                    a change: the most severe level is another one than before
         H    HH     H        normal

Turns of one instance at one time are one change, but what a delay or a clock found stands before
what a sample of that time says. A level that says itself again (real values after calibration) is a
change too, if it is the one that speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import Columns


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of level of one program's instances, ordered by (instance, time)."""

    instance: NDArray[np.int64]
    level: NDArray[np.uint8]
    time_ns: NDArray[np.int64]
    began_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    limit: NDArray[np.float64]
    quality: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Turns:
    """Outputs of single levels that changed, or said themselves again; in any order."""

    instance: NDArray[np.int64]
    level: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    sampled: NDArray[np.bool_]  # by a sample of that time, not by a delay or a clock
    changed: NDArray[np.bool_]  # false: said again
    began_ns: NDArray[np.int64]
    cause: NDArray[np.float64]
    quality: NDArray[np.uint8]

    each_once: bool = False  # no level twice, and instances ascend

    def __len__(self) -> int:
        return len(self.instance)

    @property
    def one_time_each(self) -> bool:
        """Whether all an instance has to tell is one change; instances ascend."""
        same = self.instance[1:] == self.instance[:-1]
        same &= (self.time_ns[1:] != self.time_ns[:-1]) | (self.sampled[1:] != self.sampled[:-1])
        return not same.any()


def changes_of(turns: Turns, state: Columns) -> Changes:
    """`state` still holds the outputs as they were before the turns."""
    if turns.each_once and turns.one_time_each:
        return _changes_at_once(turns, state)
    order: NDArray[np.int64] | slice = slice(None)
    if not seg.is_ascending(turns.instance, strictly=True):
        order = np.lexsort((turns.sampled, turns.time_ns, turns.instance))
    instance, time_ns = turns.instance[order], turns.time_ns[order]
    level, sampled = turns.level[order], turns.sampled[order]
    bit = np.where(turns.changed[order], np.int64(1) << level, np.int64(0))
    first = seg.heads(instance)
    before = bits_of(seg.picked(state["output"], instance))
    running = np.bitwise_xor.accumulate(bit)
    base = np.where(first, running ^ bit, 0)[seg.starts_of(first)]
    last = np.append(seg.heads(instance, time_ns, sampled)[1:], True)
    ends = np.flatnonzero(last)
    now = most_severe((before ^ running ^ base)[ends])
    earlier = np.append(0, now[:-1])
    head = seg.heads(instance[ends])
    earlier[head] = most_severe(before[ends[head]])
    group = np.cumsum(np.append(0, last[:-1]))
    decides = (np.maximum(now, earlier) - 1)[group]
    begins = np.append(0, ends[:-1] + 1)
    chosen = np.maximum.reduceat(np.where(level == decides, np.arange(len(level)), -1), begins)
    keep = (now != earlier) | ((chosen >= 0) & (bit[chosen] == 0) & (now > 0))
    now, earlier, chosen, ends = now[keep], earlier[keep], chosen[keep], ends[keep]
    assert (chosen >= 0).all(), "a level changed without a turn"
    instance = instance[ends]
    turn = chosen if isinstance(order, slice) else order[chosen]
    return _told(turns, turn, now, state, earlier)


def _changes_at_once(turns: Turns, state: Columns) -> Changes:
    """Every level turned once at most, and all those of an instance at one time."""
    first = seg.heads(turns.instance)
    head = np.flatnonzero(first)
    before = bits_of(seg.picked(state["output"], turns.instance[head]))
    bit = np.left_shift(1, turns.level)
    after = before ^ (bit if len(head) == len(bit) else np.bitwise_or.reduceat(bit, head))
    now, earlier = most_severe(after), most_severe(before)
    decides = np.maximum(now, earlier) - 1
    owner = decides if len(head) == len(bit) else decides[np.cumsum(first) - 1]
    # the level that decides turned, unless the change is none: then it stands as before
    turn = np.flatnonzero(turns.level == owner)
    moved = now != earlier
    return _told(turns, turn, now[moved], state, earlier[moved])


def _told(
    turns: Turns,
    turn: NDArray[np.int64],
    now: NDArray[np.int64],
    state: Columns,
    earlier: NDArray[np.int64],
) -> Changes:
    """Changes to level `now`, each decided by one turn; what ended has the level it had before."""
    instance = turns.instance[turn]
    limit = np.where(
        now > 0, state["limit"][instance, now - 1], state["reset"][instance, earlier - 1]
    )
    return Changes(
        instance=instance,
        level=now.astype(np.uint8),
        time_ns=turns.time_ns[turn],
        began_ns=turns.began_ns[turn],
        value=turns.cause[turn],
        limit=limit,
        quality=turns.quality[turn],
    )


def joined(one: Turns, other: Turns) -> Turns:
    names = [name for name in Turns.__slots__ if name != "each_once"]
    columns: Any = (np.concatenate([getattr(one, name), getattr(other, name)]) for name in names)
    return Turns(*columns)


def chained(parts: list[Changes]) -> Changes | None:
    """Changes of one range of instances after another."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    names = Changes.__slots__
    return Changes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def bits_of(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One number for each row, bit n for column n."""
    if flags.shape[1] == 1:
        return flags[:, 0].astype(np.int64)
    small: Any = np.uint8 if flags.shape[1] <= 8 else np.int64  # small numbers are quick to join
    bits: NDArray[Any] = flags[:, 0].astype(small)
    for column in range(1, flags.shape[1]):
        bits |= flags[:, column].astype(small) << small(column)
    return bits.astype(np.int64)


def most_severe(mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """The highest set bit's position + 1; 0 for none."""
    return np.frexp(mask.astype(np.float64))[1].astype(np.int64)
