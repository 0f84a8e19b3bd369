"""Level changes that were judged and are not lived through yet: what a flood leaves for later.

    rule core ─a chunk's changes─▶ put ─▶ [critical] ─┐
                                       └─▶ [in turn] ─┴─take─▶ pieces ─▶ book, journal, told

Ten thousand alarms at once take more than a second to be lived through and recorded. Cut into
pieces, the loop lives on between two of them, rows that come in meanwhile are judged at once, and
what is critical among all of it goes first.

Surprising: a critical alarm goes ahead of others that happened earlier, so it may have the lower
`gseq`. It takes its own earlier changes along; those of one alarm are never out of order. Alarms
that explain others, or are explained by them, stay in turn (`AlarmBook.is_critical`).

Not here: what a change does (alarms/book.py), when there is time for a piece (judge.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.alarms.rows import Change
from gateway.model.batch import Batch

PIECE_MAX = 64
"""Changes lived through in one go: some 5 ms (measured), in which nothing else can be. A row on its
way from its adapter to the journal waits for about ten of them."""


@dataclass(slots=True, eq=False)
class Work:
    """What one judgement leaves to be done."""

    batch: Batch  # the rows judged
    found_ns: int  # what they say counts as found then
    since_ns: int  # receipt of the newest of them
    span: tuple[int, int] | None = None  # their offsets in the spool, if they came from there
    derived: Batch = field(default_factory=Batch.empty)
    judged_count: int = 0
    changes: deque[Change] = field(default_factory=deque)


class Piece(NamedTuple):
    """A few changes of one work; `is_last` when nothing of it remains."""

    work: Work
    changes: Sequence[Change]
    is_ahead: bool
    is_last: bool


class Verdicts:
    """First in, first out, but for what is critical. Limits: none here; whoever puts looks at
    `count` before."""

    def __init__(self) -> None:
        self._works: deque[Work] = deque()
        self._ahead: deque[tuple[Work, Change]] = deque()
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._works)

    def clear(self) -> None:
        """Forget everything: it will be judged again."""
        self._works.clear()
        self._ahead.clear()
        self.count = 0

    def put(self, work: Work, is_critical: Callable[[Change], bool]) -> None:
        """To be done after what is here. A few changes are one piece and need no order."""
        self._works.append(work)
        self.count += len(work.changes)
        if self.count <= PIECE_MAX:
            return
        keys = {c.instance.alarm_key for c in work.changes if is_critical(c)}
        if keys:
            for each in self._works:
                self._take_ahead(each, keys)

    def _take_ahead(self, work: Work, keys: set[str]) -> None:
        stay: deque[Change] = deque()
        for change in work.changes:
            if change.instance.alarm_key in keys and not change.late:  # a late one has no order
                self._ahead.append((work, change))
            else:
                stay.append(change)
        work.changes = stay

    def take(self) -> Piece:
        """The next thing to do; there must be one."""
        if self._ahead:
            return self._piece_ahead()
        work = self._works[0]
        count = min(PIECE_MAX, len(work.changes))
        changes = [work.changes.popleft() for _ in range(count)]
        self.count -= count
        is_last = not work.changes
        if is_last:
            self._works.popleft()
        return Piece(work, changes, is_ahead=False, is_last=is_last)

    def _piece_ahead(self) -> Piece:
        """Of one work: each is lived through as of the moment it was judged at."""
        work = self._ahead[0][0]
        changes: list[Change] = []
        while self._ahead and self._ahead[0][0] is work and len(changes) < PIECE_MAX:
            changes.append(self._ahead.popleft()[1])
        self.count -= len(changes)
        return Piece(work, changes, is_ahead=True, is_last=False)
