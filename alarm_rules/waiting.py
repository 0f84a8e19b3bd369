"""Which open runs take effect when, so that the clock need not look at every level.

    soon    (deadline, key), ascending       told one by one
    many    arrays of keys and deadlines     told many at once

A deadline that stands here may be none any more: its run ended. That is found out when it passes,
by the table of deadlines; so whoever ends a run says nothing here. Where very many wait, or runs
began that were not told, nothing is known, and the next look is at the whole table.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from gateway.contract.rule_kind import FOREVER

Int = NDArray[np.int64]

_SHARE = 8
"""When one of so many levels waits, to look through those is no quicker than through all."""


class Waiting:
    """Keys with a deadline. due_ns: no known one is earlier; FOREVER while nothing is known."""

    def __init__(self) -> None:
        self._is_known = False
        self._soon: list[tuple[int, int]] = []
        self._many: list[tuple[Int, Int]] = []
        self._many_count, self._many_ns = 0, FOREVER

    @property
    def due_ns(self) -> int:
        return min(self._many_ns, self._soon[0][0]) if self._soon else self._many_ns

    def count(self, now_ns: int) -> int:
        """How many end by now, of those that are known; some may have ended already."""
        count = bisect_right(self._soon, (now_ns, FOREVER))
        if self._many_ns <= now_ns:
            count += sum(int(np.count_nonzero(end_ns <= now_ns)) for _, end_ns in self._many)
        return count

    def forget(self) -> None:
        """Runs began that nobody told."""
        if self._is_known:
            self._is_known = False
            self._clear()

    def push(self, waits: list[tuple[int, int]]) -> None:
        """A few runs: (deadline, key)."""
        if self._is_known:
            for one in waits:
                insort(self._soon, one)

    def add(self, key: Int, end_ns: Int, due_ns: int) -> None:
        """Many runs, of which the first that waits takes effect at `due_ns`."""
        if self._is_known and due_ns < FOREVER:
            self._many.append((key, end_ns))
            self._many_count += len(key)
            self._many_ns = min(self._many_ns, due_ns)

    def overdue(self, due_ns: Int, now_ns: int) -> Int:
        """Keys whose delay ends by now, ascending. `due_ns`: the deadline of every key."""
        if self._many_count + len(self._soon) > len(due_ns) // _SHARE:
            self.forget()
        if not self._is_known:
            self._clear()
            key = np.flatnonzero(due_ns < FOREVER)
            self._is_known = True
            self.add(key, due_ns.take(key), 0 if len(key) else FOREVER)
        one_by_one = sorted(self._pop(due_ns.data, now_ns))
        if self._many_ns > now_ns:
            return np.array(one_by_one, np.int64)
        late = self._overdue_of_many(due_ns, now_ns)
        if one_by_one:
            late = np.concatenate([late, np.array(one_by_one, np.int64)])
        late.sort()
        return late[seg.heads(late)]

    def soon(self, due_ns: Any, now_ns: int) -> list[int] | None:
        """The same in any order, where all that end by now are known one by one; None: `overdue` is
        to be asked. `due_ns`: as memory."""
        if not self._is_known or self._many_ns <= now_ns:
            return None
        if self._many_count + len(self._soon) > len(due_ns) // _SHARE:
            return None
        return self._pop(due_ns, now_ns)

    def _pop(self, due_ns: Any, now_ns: int) -> list[int]:
        soon = self._soon
        count = bisect_right(soon, (now_ns, FOREVER))
        past = [key for end_ns, key in soon[:count] if due_ns[key] == end_ns]
        del soon[:count]
        return [*dict.fromkeys(past)] if len(past) > 1 else past

    def _overdue_of_many(self, due_ns: Int, now_ns: int) -> Int:
        key, end_ns = self._many[0]
        if len(self._many) > 1:
            key, end_ns = (np.concatenate(column) for column in zip(*self._many, strict=True))
        is_late = end_ns <= now_ns
        late: Int = key[is_late]
        late = late[due_ns.take(late) == end_ns[is_late]]
        waits = end_ns > now_ns
        waits &= end_ns < FOREVER
        key, end_ns = key[waits], end_ns[waits]
        self._many, self._many_count = [], 0
        self._many_ns = FOREVER
        self.add(key, end_ns, int(np.minimum.reduce(end_ns, initial=FOREVER)))
        return late

    def _clear(self) -> None:
        self._soon, self._many = [], []
        self._many_count, self._many_ns = 0, FOREVER
