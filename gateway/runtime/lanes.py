"""Where one sample sink is in the spool: in one lane, or after an outage in two (decision 0018).

    one lane     committed ……………………………………………………………… head
                    main ─▶
    two lanes    committed ………………… mark ………… committed ………… head
                    main ─▶  backlog  │   done    live ─▶

`main` is the cursor `sink.<name>`. The live lane has two more: `…/live`, how far it is, and
`…/live.from`, the mark where it began. All three are spool cursors: durable, and the spool keeps
every row that one of them still needs. A crash between any two of these steps loses no row and at
worst has some written again:

    begin    mark := head, then live := head        a mark alone is a lane that never began
    again    mark := head, then live := head        live below the mark has done nothing yet; what
                                                    the lane had written becomes backlog once more
    join     main := live, then drop live, drop mark       main at or beyond the mark: join again

Rows of one point keep their order within a lane; the backlog's come after newer ones.

Not here: when to begin, which lane's turn it is, sinks (deliver.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from gateway.model.batch import Batch
from gateway.runtime.threads import to_the_end
from gateway.spool import Cursor, Spool

LIVE, MARK = "/live", "/live.from"  # ends of cursor names; no name of ours holds a slash


@dataclass(frozen=True)
class Portion:
    """Consecutive rows that end at spool offset `end`. `ahead`: of the live lane, while older rows
    are still to come."""

    batch: Batch
    end: int
    ahead: bool = False


class Lanes:
    """The cursors of one sink. Used by one task."""

    def __init__(self, spool: Spool, name: str) -> None:
        """Take up what the last run left. Raises StorageFault."""
        self._spool = spool
        self._live_name, self._mark_name = f"{name}{LIVE}", f"{name}{MARK}"
        self.main = spool.cursor(name)
        self._live: Cursor | None = None
        self._mark: Cursor | None = None
        if {self._live_name, self._mark_name} <= set(spool.cursor_names()):
            self._live, self._mark = spool.cursor(self._live_name), spool.cursor(self._mark_name)
            self._live.position = max(self._live.committed, self._mark.committed)
            self._live.commit_now(self._live.position)
        else:  # one of them alone, if any: begun or ended half
            spool.drop_cursor(self._live_name)
            spool.drop_cursor(self._mark_name)

    @property
    def names(self) -> set[str]:
        """Every cursor this sink may have."""
        return {self.main.name, self._live_name, self._mark_name}

    @property
    def live(self) -> Cursor | None:
        """The live lane's; None while there is one lane."""
        return self._live

    @property
    def done_ahead(self) -> tuple[int, int]:
        """The rows the live lane has done: [mark, committed); empty while there is one lane."""
        if self._mark is None or self._live is None:
            return 0, 0
        return self._mark.committed, max(self._mark.committed, self._live.committed)

    def lane_of(self, portion: Portion) -> str:
        """The name of the cursor the rows came by."""
        return self._live_name if portion.ahead else self.main.name

    @property
    def is_split(self) -> bool:
        return self._live is not None

    @property
    def backlog(self) -> int:
        """Rows before the mark that are not committed; 0 while there is one lane."""
        if self._mark is None or self._live is None:
            return 0
        return max(0, self._mark.committed - self.main.committed)

    @property
    def behind(self) -> int:
        """Durable rows not committed yet, of both lanes."""
        lane = self._live or self.main
        return self.backlog + lane.depth + lane.position - lane.committed

    @property
    def is_drained(self) -> bool:
        """Whether the backlog has reached the mark, and the lanes are to be joined (what is left of
        a join that failed half-way, too)."""
        return self._mark is not None and self.main.committed >= self._mark.committed

    # --- reading

    async def next(self, rows_max: int) -> Portion:
        """While there is one lane: the next rows as soon as there are any."""
        assert not self.is_split, "two lanes: somebody must choose"
        chunk = await self.main.next(rows_max)
        return Portion(chunk.batch, chunk.end)

    async def more(self, portion: Portion, rows_max: int) -> Portion:
        """The same with the rows that follow it, up to `rows_max` in all."""
        parts, end = [portion.batch], portion.end
        cursor, limit = self._cursor(portion), self._limit(portion)
        rows = len(portion.batch)
        while rows < rows_max and end < limit:
            chunk = await to_the_end(cursor.read, min(rows_max - rows, limit - end))
            if chunk is None:
                break
            if chunk.start != end:  # rows between are lost: an offset must not reach across
                cursor.position = end
                break
            parts.append(chunk.batch)
            end, rows = chunk.end, rows + len(chunk.batch)
        return Portion(Batch.concat(parts), end, portion.ahead)

    async def read(self, rows_max: int, *, ahead: bool) -> Portion | None:
        """Of two lanes: what that lane has now, at most `rows_max` rows; None for nothing."""
        portion = Portion(Batch.empty(), 0, ahead)
        cursor, limit = self._cursor(portion), self._limit(portion)
        if cursor.position >= limit:
            return None
        chunk = await to_the_end(cursor.read, min(rows_max, limit - cursor.position))
        if chunk is None or chunk.start >= limit:  # of a backlog: its last rows are lost
            cursor.position = limit
            return None
        size = min(len(chunk.batch), limit - chunk.start)
        cursor.position = chunk.start + size
        batch = chunk.batch.take(slice(0, size))
        return await self.more(Portion(batch, cursor.position, ahead), rows_max)

    def _cursor(self, portion: Portion) -> Cursor:
        if not portion.ahead:
            return self.main
        assert self._live is not None, "rows of a lane that is not there"
        return self._live

    def _limit(self, portion: Portion) -> int:
        """The offset the lane ends at for now."""
        if self._mark is None or self._live is None or portion.ahead:
            return self._spool.head
        return self._mark.committed

    # --- durable steps

    async def commit(self, portion: Portion) -> None:
        """Every row of it was accepted or rejected. Raises StorageFault."""
        await self._cursor(portion).commit(portion.end)

    async def begin(self) -> None:
        """From the newest row on, rows are live; what lies before and is not committed is backlog.
        Raises StorageFault."""
        head = self._spool.head
        if self._mark is None:
            self._mark = await to_the_end(partial(self._spool.cursor, self._mark_name, at=head))
        else:
            await _move(self._mark, head)
        if self._live is None:
            self._live = await to_the_end(partial(self._spool.cursor, self._live_name, at=head))
        await _move(self._live, head)

    async def skip_lost(self) -> None:
        """What the backlog could not read before the mark is lost: nothing to wait for."""
        if self._mark is not None and self.main.position >= self._mark.committed:
            await self.main.commit(self._mark.committed)

    async def join(self) -> None:
        """The backlog is done: one lane again. Raises StorageFault."""
        assert self.is_drained, "the backlog has rows left"
        if self._live is not None:
            await _move(self.main, self._live.committed)
            await to_the_end(self._spool.drop_cursor, self._live_name)
            self._live = None
        await to_the_end(self._spool.drop_cursor, self._mark_name)
        self._mark = None

    async def give_up(self, before: int) -> int:
        """Drop the rows before `before` that are not committed, at most the backlog; how many."""
        limit = self.end_of_backlog(before)
        dropped = max(0, limit - self.main.committed)
        await _move(self.main, limit)
        return dropped

    def end_of_backlog(self, before: int) -> int:
        """How far rows before `before` may be given up: not beyond the mark."""
        return before if self._mark is None else min(before, self._mark.committed)

    def rewind(self) -> None:
        """Back to what is committed."""
        for cursor in (self.main, self._live):
            if cursor is not None:
                cursor.rewind()


async def _move(cursor: Cursor, offset: int) -> None:
    """Commit `offset`, read or not."""
    if offset > cursor.committed:
        await cursor.seek(max(offset, cursor.position))
        await cursor.commit(offset)


@dataclass
class Turns:
    """Whose turn it is, by the time the writes took.

    While live rows wait, each second of writing them earns the backlog `share / (1 - share)`
    seconds; a backlog write while none wait costs nothing. So the backlog has at most `share` of
    the write time when there are live rows to write, and all of it when there are none.
    """

    share: float
    window_s: float = 30.0  # of what is shown
    _earned_s: float = field(default=0.0, init=False)
    _writes: deque[tuple[float, float, int, bool]] = field(default_factory=deque, init=False)

    def is_backlogs(self, *, live_waits: bool) -> bool:
        return not live_waits or self._earned_s > 0

    def took(
        self, now_s: float, seconds: float, rows: int, *, ahead: bool, live_waited: bool
    ) -> None:
        """Note one write that ended at `now_s`."""
        if ahead:
            self._earned_s += seconds * self.share / (1 - self.share)
        elif live_waited:
            self._earned_s -= seconds
        self._earned_s = max(-self.window_s, min(self.window_s, self._earned_s))
        self._writes.append((now_s, seconds, rows, ahead))
        while self._writes and now_s - self._writes[0][0] > self.window_s:
            self._writes.popleft()

    def measured(self) -> tuple[float, float]:
        """Over the last `window_s`: the backlog's part of the write time, and its rows a second."""
        if not self._writes:
            return 0.0, 0.0
        busy_s = sum(seconds for _, seconds, _, _ in self._writes)
        backlog_s = sum(seconds for _, seconds, _, ahead in self._writes if not ahead)
        rows = sum(rows for _, _, rows, ahead in self._writes if not ahead)
        first_s, took_s, _, _ = self._writes[0]
        lasted_s = self._writes[-1][0] - first_s + took_s
        return (
            backlog_s / busy_s if busy_s else 0.0,
            rows / lasted_s if lasted_s > 0 else 0.0,
        )

    def reset(self) -> None:
        self._earned_s = 0.0
        self._writes.clear()
