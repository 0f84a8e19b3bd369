"""What time alone does to an alarm: shelves run out, acknowledged alarms ask again, unanswered
ones are told to further people.

    shelved            ─ until ────────────▶ EXP
    ACKED              ─ re-alarm after ───▶ REA   at most `realarm_max` times an occurrence
    UNACK RTNUN LATCU  ─ step 1, 2, … ─────▶ OVD   counted from `attention_time_ns`

Every deadline is computed from what stands in the row, so a restart changes none of them. Nobody is
called to a planned alarm, so it is never overdue.

Owns: the one next deadline of each row, in a heap whose outdated entries are skipped. Not here:
what then happens (book.py), notification (a sink's).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from gateway.alarms.policy import SECOND_NS, BookConfig, EscalationStep
from gateway.model.alarm import Alarm, AlarmState, Transition
from gateway.model.rule import Priority

WAITING = frozenset(
    {
        AlarmState.UNACKNOWLEDGED,
        AlarmState.RETURNED_UNACKNOWLEDGED,
        AlarmState.LATCHED_UNACKNOWLEDGED,
    }
)
"""In sight, and nobody has acknowledged it."""
_GARBAGE_MIN = 1000


class Timers:
    """The next deadline of every row that has one."""

    def __init__(self, config: BookConfig) -> None:
        self._realarm_ns: Mapping[Priority, int] = {
            priority: round(after_s * SECOND_NS)
            for priority, after_s in config.realarm_after_s.items()
        }
        self._realarm_max = config.realarm_max
        self._steps = config.escalation
        self._next: dict[str, tuple[int, Transition]] = {}
        self._heap: list[tuple[int, str]] = []

    def put(self, row: Alarm) -> None:
        """The row as it stands now."""
        wanted = self._wanted(row)
        key = row.alarm_key
        if wanted is None:
            self._next.pop(key, None)
            return
        if self._next.get(key) == wanted:
            return
        self._next[key] = wanted
        heapq.heappush(self._heap, (wanted[0], key))
        if len(self._heap) > _GARBAGE_MIN + 4 * len(self._next):
            self._heap = [(due_ns, key) for key, (due_ns, _) in self._next.items()]
            heapq.heapify(self._heap)

    def is_due(self, now_ns: int) -> bool:
        """Whether `due` is worth asking."""
        return bool(self._heap) and self._heap[0][0] <= now_ns

    def due(self, now_ns: int) -> list[tuple[int, str, Transition]]:
        """Deadlines reached, each once; a row that is put again gets its next one."""
        found = []
        while self._heap and self._heap[0][0] <= now_ns:
            due_ns, key = heapq.heappop(self._heap)
            wanted = self._next.get(key)
            if wanted is not None and wanted[0] == due_ns:
                del self._next[key]
                found.append((due_ns, key, wanted[1]))
        return found

    def due_of(self, key: str, now_ns: int) -> tuple[int, Transition] | None:
        """The deadline of one row, if it is reached; its entry in the heap is outdated then."""
        wanted = self._next.get(key)
        if wanted is None or wanted[0] > now_ns:
            return None
        return self._next.pop(key)

    def step(self, row: Alarm) -> EscalationStep:
        """The escalation step that is due of a row."""
        return self._steps[row.priority][row.overdue_step]

    def _wanted(self, row: Alarm) -> tuple[int, Transition] | None:
        if row.shelved_until_ns is not None:
            return row.shelved_until_ns, Transition.SHELF_EXPIRED
        if row.state is AlarmState.ACKNOWLEDGED:
            after_ns, since_ns = self._realarm_ns.get(row.priority), row.acknowledged_time_ns
            if after_ns is None or since_ns is None or row.realarm_count >= self._realarm_max:
                return None
            return since_ns + after_ns, Transition.REALARMED
        if row.state in WAITING and row.attention_time_ns is not None:
            steps = self._steps.get(row.priority, ())
            if row.overdue_step < len(steps):
                after_s = steps[row.overdue_step].after_s
                return row.attention_time_ns + round(after_s * SECOND_NS), Transition.OVERDUE
        return None
