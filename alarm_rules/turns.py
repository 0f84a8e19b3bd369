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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import Columns


class Changes(NamedTuple):
    """Changes of level of one program's instances, ordered by (instance, time); or, if they say so,
    by (time, place of the instance in the rule set), as they are told."""

    instance: NDArray[np.int64]
    level: NDArray[np.uint8]
    time_ns: NDArray[np.int64]
    began_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    limit: NDArray[np.float64]
    quality: NDArray[np.uint8]
    is_told_in_order: bool = False


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
    turn, now, earlier = decided(turns.instance, turns.level, state)
    return _told(turns, turn, now, state, earlier)


def decided(
    instance: NDArray[np.int64], level: NDArray[np.int64], state: Columns
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(turn that decides, level after it, level before) of each instance that has another level
    now. Instances ascend; all turns of an instance are at one time, and no level turns twice."""
    first = seg.heads(instance)
    head = first.nonzero()[0]
    is_one = len(head) == len(level)
    of = instance if is_one else instance.take(head)
    before = bits_of(seg.picked(state["output"], of))
    bit = np.left_shift(1, level)
    after = before ^ (bit if is_one else np.bitwise_or.reduceat(bit, head))
    if state["output"].shape[1] <= _BYTE:
        now, earlier = _SEVERE.take(after), _SEVERE.take(before)
    else:
        now, earlier = most_severe(after), most_severe(before)
    decides = np.maximum(now, earlier)
    decides -= 1
    owner = decides if is_one else decides.take(first.cumsum() - 1)
    # the level that decides turned, unless the change is none: then it stands as before
    turn = (level == owner).nonzero()[0]
    if len(turn) == len(now):
        return turn, now, earlier
    moved = (now != earlier).nonzero()[0]
    return turn, now.take(moved), earlier.take(moved)


def _told(
    turns: Turns,
    turn: NDArray[np.int64],
    now: NDArray[np.int64],
    state: Columns,
    earlier: NDArray[np.int64],
) -> Changes:
    """Changes to level `now`, each decided by one turn; what ended has the level it had before."""
    instance = turns.instance[turn]
    return Changes(
        instance=instance,
        level=now.astype(np.uint8),
        time_ns=turns.time_ns[turn],
        began_ns=turns.began_ns[turn],
        value=turns.cause[turn],
        limit=limit_of(state, instance, now, earlier),
        quality=turns.quality[turn],
    )


def limit_of(
    state: Columns,
    instance: NDArray[np.int64],
    now: NDArray[np.int64],
    earlier: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Of the level that stands now, or the value that ended the one before."""
    key = (np.where(now > 0, now, earlier) - 1) * len(state)
    key += instance
    limit, reset = (seg.flat(state[name]).take(key) for name in ("limit", "reset"))
    found: NDArray[np.float64] = np.where(now > 0, limit, reset)
    return found


def joined(one: Turns, other: Turns) -> Turns:
    names = [name for name in Turns.__slots__ if name != "each_once"]
    columns: Any = (np.concatenate([getattr(one, name), getattr(other, name)]) for name in names)
    return Turns(*columns)


def chained(parts: list[Changes]) -> Changes | None:
    """Changes of one range of instances after another."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    columns: Any = zip(*(part[:-1] for part in parts), strict=True)
    whole: Any = map(np.concatenate, columns)
    return Changes(*whole)


def bits_of(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One number for each row, bit n for column n."""
    if flags.shape[1] == 1:
        return flags[:, 0].astype(np.int64)
    small: Any = np.uint8 if flags.shape[1] <= _BYTE else np.int64  # quick to join
    bits: NDArray[Any] = flags[:, 0].astype(small)
    for column in range(1, flags.shape[1]):
        bits |= flags[:, column].astype(small) << small(column)
    return bits.astype(np.int64)


def most_severe(mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """The highest set bit's position + 1; 0 for none."""
    return np.frexp(mask.astype(np.float64))[1].astype(np.int64)


_BYTE = 8
_SEVERE = np.array([number.bit_length() for number in range(1 << _BYTE)])
"""`most_severe` of a byte."""
