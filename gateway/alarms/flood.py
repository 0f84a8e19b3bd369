"""Floods: when more is annunciated than people can follow, and how it is then presented. Pure.

    events ──take──▶ history  ─────────────────────▶ one line a batch, never a sound
                     priority 1 ───────────────────▶ at once, always
                     shelves run out ─ bucket ─▶ queue ─▶ one after the other
                     the rest  ─ quiet time ───────▶ at once
                               └ flood ─ bucket ───▶ at once while it lasts
                                            └ empty ▶ folded ──due──▶ a line per area and rule kind

A flood begins when the last ten minutes hold ten annunciations and ends below five (EEMUA 191 and
ISA-18.2 as public digests restate them). It changes **presentation only**: every event is in the
journal and on the event topic with its own `annunciate`, in a flood as before. Who makes sounds
takes lines; who keeps records takes events.

`AlarmEvent.annunciate` says that the alarm asks for a person now. A line says that a person is to
be called now: one event, or a number of them that are one sound.

A line of a queued or folded alarm is dropped if somebody has meanwhile acknowledged or hidden all
of it: nobody need be called to what has been seen to.

Surprising: time here is when the gateway found out, not event time: what is limited is how fast
people are called. A clock set back refills no bucket and empties no window.

Limits: QUEUE_MAX queued shelf ends and GROUPS_MAX folded groups, then one group takes the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.alarms.policy import SECOND_NS
from gateway.alarms.timers import WAITING
from gateway.model.alarm import Alarm, AlarmEvent, Transition
from gateway.model.rule import Priority

WINDOW_S = 600
FOLD_INTERVAL_NS = 5 * SECOND_NS
"""A group line comes at most this often: a sound every few seconds is what a person can take in."""
QUEUE_MAX = 200
GROUPS_MAX = 64
_REST = ("", "")


class LineKind(StrEnum):
    """What one call is about."""

    ALARM = "alarm"
    GROUP = "group"
    HISTORY = "history"  # found in late data: told, never sounded


@dataclass(frozen=True, slots=True)
class Line:
    """One call to a person, or one note of what late data held."""

    kind: LineKind
    time_ns: int
    count: int
    first: AlarmEvent
    worst: AlarmEvent  # the most urgent of them, the earliest among equals

    @property
    def sounds(self) -> bool:
        return self.kind is not LineKind.HISTORY


@dataclass(frozen=True, slots=True)
class FloodConfig:
    """When it is one, and how many calls a person is given in it: (a second, at once)."""

    start: int = 10
    end: int = 5
    # Engineering values: one a minute for low is what a person can still act on between others.
    rates: Mapping[Priority, tuple[float, int]] = field(
        default_factory=lambda: {
            Priority.HIGH: (0.5, 5),
            Priority.MEDIUM: (0.1, 3),
            Priority.LOW: (1 / 60, 1),
        }
    )
    shelf_end_rate: tuple[float, int] = (1.0, 3)


class FloodDetector:
    """Annunciations of the last ten minutes, in one-second buckets."""

    def __init__(self, config: FloodConfig) -> None:
        self._config = config
        self._buckets = [0] * WINDOW_S
        self._second: int | None = None
        self.count = 0
        self.since_ns: int | None = None  # of the flood; None: there is none

    def note(self, now_ns: int) -> None:
        self.look(now_ns)
        assert self._second is not None
        self._buckets[self._second % WINDOW_S] += 1
        self.count += 1
        if self.since_ns is None and self.count >= self._config.start:
            self.since_ns = now_ns

    def look(self, now_ns: int) -> bool:
        """Whether there is a flood now."""
        second = now_ns // SECOND_NS
        if self._second is None:
            self._second = second
        for passed in range(self._second + 1, min(second, self._second + WINDOW_S) + 1):
            self.count -= self._buckets[passed % WINDOW_S]
            self._buckets[passed % WINDOW_S] = 0
        self._second = max(self._second, second)
        if self.since_ns is not None and self.count < self._config.end:
            self.since_ns = None
        return self.since_ns is not None


class TokenBucket:
    """At most `burst` at once and `rate` a second in the long run."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate = rate_per_s / SECOND_NS
        self._burst = burst
        self._tokens = float(burst)
        self._at_ns: int | None = None

    def take(self, now_ns: int) -> bool:
        if self._at_ns is None:
            self._at_ns = now_ns
        passed_ns = max(0, now_ns - self._at_ns)
        self._tokens = min(self._burst, self._tokens + passed_ns * self._rate)
        self._at_ns = now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class _Folded:
    """What one group line will say."""

    events: int = 0
    first: AlarmEvent | None = None
    worst: AlarmEvent | None = None
    keys: dict[str, int] = field(default_factory=dict)  # key -> occurrence, for "seen meanwhile?"


class Announcer:
    """From events to calls. `row_of` is the book's: what has become of an alarm meanwhile."""

    def __init__(
        self, row_of: Callable[[str], Alarm | None], config: FloodConfig | None = None
    ) -> None:
        self._config = config or FloodConfig()
        self._row_of = row_of
        self.detector = FloodDetector(self._config)
        self.folded_count = 0  # annunciations that did not become a line of their own
        self._buckets = {
            priority: TokenBucket(*rate) for priority, rate in self._config.rates.items()
        }
        self._shelf_ends = TokenBucket(*self._config.shelf_end_rate)
        self._queue: deque[AlarmEvent] = deque()
        self._folded: dict[tuple[str, str], _Folded] = {}
        self._fold_at_ns: int | None = None  # when the last group lines went out

    def recall(self, times_ns: Iterable[int]) -> None:
        """Annunciations of before a restart, in order: a flood goes on over it."""
        for time_ns in times_ns:
            self.detector.note(time_ns)

    def take(self, events: Sequence[AlarmEvent], now_ns: int) -> list[Line]:
        """The calls to be made at once; the others come with `due`."""
        lines = []
        late = [event for event in events if event.transition is Transition.HISTORICAL]
        begun = [event for event in late if event.late and event.level]
        if begun:
            lines.append(_line(LineKind.HISTORY, begun, now_ns))
        for event in events:
            if event.annunciate:
                self.detector.note(now_ns)
                if self._goes_out(event, now_ns):
                    lines.append(_line(LineKind.ALARM, [event], now_ns))
        return lines

    def due(self, now_ns: int) -> list[Line]:
        """Calls whose time has come; ask once a second."""
        flooded = self.detector.look(now_ns)
        lines = []
        while self._queue and self._shelf_ends.take(now_ns):
            event = self._queue.popleft()
            if self._still_waits(event.alarm.alarm_key, event.alarm.occ_no):
                lines.append(_line(LineKind.ALARM, [event], now_ns))
        last_ns = self._fold_at_ns
        if last_ns is not None and flooded and 0 <= now_ns - last_ns < FOLD_INTERVAL_NS:
            return lines
        folded, self._folded = self._folded, {}
        if folded:
            self._fold_at_ns = now_ns
        for group in folded.values():
            assert group.first is not None
            assert group.worst is not None
            if any(self._still_waits(key, occ_no) for key, occ_no in group.keys.items()):
                line = Line(LineKind.GROUP, now_ns, group.events, group.first, group.worst)
                lines.append(line)
        return sorted(lines, key=lambda line: line.worst.alarm.priority)

    def state(self) -> dict[str, int | bool | None]:
        """What heartbeat and screens say of it."""
        return {
            "flood": self.detector.since_ns is not None,
            "flood_since_ns": self.detector.since_ns,
            "annunciations_10min": self.detector.count,
            "folded_count": self.folded_count,
            "queued_count": len(self._queue),
        }

    def _goes_out(self, event: AlarmEvent, now_ns: int) -> bool:
        priority = event.alarm.priority
        if priority is Priority.CRITICAL:
            return True
        if event.transition is Transition.SHELF_EXPIRED:
            if not self._queue and self._shelf_ends.take(now_ns):
                return True
            if len(self._queue) < QUEUE_MAX:
                self._queue.append(event)
                return False
        elif self.detector.since_ns is None or self._buckets[priority].take(now_ns):
            return True
        self._fold(event)
        return False

    def _fold(self, event: AlarmEvent) -> None:
        self.folded_count += 1
        place = (event.alarm.area, event.alarm.rule_kind)
        if place not in self._folded and len(self._folded) >= GROUPS_MAX:
            place = _REST
        group = self._folded.setdefault(place, _Folded())
        group.events += 1
        group.first = group.first or event
        if group.worst is None or event.alarm.priority < group.worst.alarm.priority:
            group.worst = event
        if len(group.keys) < QUEUE_MAX:
            group.keys[event.alarm.alarm_key] = event.alarm.occ_no

    def _still_waits(self, key: str, occ_no: int) -> bool:
        row = self._row_of(key)
        return row is not None and row.occ_no == occ_no and row.state in WAITING


def _line(kind: LineKind, events: Sequence[AlarmEvent], now_ns: int) -> Line:
    first = min(events, key=lambda event: (event.time_ns, event.alarm.gseq))
    worst = min(events, key=lambda event: (event.alarm.priority, event.time_ns))
    return Line(kind, now_ns, len(events), first, worst)
