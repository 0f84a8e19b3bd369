"""What must hold of hours without broker and database, and the figures: two runs of outage.py.

rows       what was acknowledged is in the database, once after repetitions are dropped, equal,
each point in order within each lane; without an outage too
alarms     every crossing was called, and nothing began or ended because of the outage
told       the subscriber has every event of the journal, gseq by gseq
drain      at `DRAIN_MIN` times real time or more
memory     what was resident before the outage against the most ever: the growth
latency    a live alarm as quick as without an outage
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway.model.alarm import AlarmEvent, Transition
from gateway.testing.sim.clock import NS_PER_S, START_NS
from gateway.testing.sim.drive import STALL_S
from gateway.testing.sim.outage import (
    AROUND_S,
    DRAIN_MIN,
    POINTS,
    Latency,
    Run,
    Times,
    both_of,
    is_crossing,
)

GROWTH_MAX_BYTES = 50 << 20
LATER_MAX_S = 0.05  # how much later a live alarm may be than without an outage (virtual)
FEW = 10  # alarms: beyond it a median says something


def play(
    hours: float, *, out: Callable[[str], None], around_s: float = AROUND_S, seed: int = 0
) -> int:
    """Play both, print the figures; 1 if something does not hold."""
    runs = both_of(Times(hours, around_s), seed)
    for run in runs:
        out(
            f"{'with' if run.has_outage else 'without'} {hours:g} h of outage: "
            f"{run.virtual_s / 3600:.1f} virtual hours in {run.cpu_s:.0f} s of CPU"
        )
    found = list(Verdicts(*runs).all())
    for holds, name, text in found:
        out(f"{'ok  ' if holds else 'FAIL'} {name}: {text}")
    return 0 if all(holds for holds, _, _ in found) else 1


@dataclass
class Verdicts:
    """What must hold of the run with the outage, beside the one without."""

    run: Run
    plain: Run

    def all(self) -> Iterator[tuple[bool, str, str]]:
        """(holds, name, figures), one after another."""
        yield self._rows(self.run, "rows")
        yield self._rows(self.plain, "rows, no outage")
        yield self._events()
        yield self._told()
        yield self._drain()
        grown_bytes = self.run.peak_bytes - self.run.begun_bytes
        text = f"{_mb(self.run.begun_bytes)} before, at most {_mb(self.run.peak_bytes)}"
        yield grown_bytes < GROWTH_MAX_BYTES, "memory", f"{text}: grew by {_mb(grown_bytes)}"
        yield from self._latency()
        yield from self._subscriber()

    @staticmethod
    def _rows(run: Run, name: str) -> tuple[bool, str, str]:
        wanted = run.acknowledged * POINTS
        holds = run.first_count == wanted and run.sent == run.acknowledged
        faults = run.faults + run.notes
        text = (
            f"{wanted} acknowledged, {run.first_count} stored, {run.repeat_count} repeated, "
            f"{len(faults)} with another value, out of order or otherwise wrong {faults[:2] or ''}"
        )
        return holds and not faults, name, text.rstrip()

    def _events(self) -> tuple[bool, str, str]:
        """Nothing was raised, and nothing ended, because of the outage."""
        ends_ns = min(self.run.ends_ns, self.plain.ends_ns)  # a slow drain may go on for longer
        ours, theirs = (
            sorted(_what(event) for event in run.events if event.time_ns < ends_ns)
            for run in (self.run, self.plain)
        )
        wanted = sum(
            self.run.times.value_of(number, point) >= 1.0
            and self.run.times.value_of(number - 1, point) < 1.0
            for number in range(1, self.run.sent + 1)
            for point in range(POINTS)
        )
        calls = [event for event in self.run.events if event.transition is Transition.ACTIVATED]
        counts = {
            rule: sum(event.alarm.rule_id == rule for event in calls)
            for rule in ("now", "held", "silent")
        }
        holds = ours == theirs and counts == {"now": wanted, "held": wanted, "silent": 0}
        text = f"{wanted} crossings, called {counts}; {len(ours)} events, {len(theirs)} without"
        return holds, "alarms", text

    def _told(self) -> tuple[bool, str, str]:
        gseqs = [event.alarm.gseq for event in self.run.events]
        holds = sorted(self.run.told) == gseqs == list(range(1, len(gseqs) + 1))
        return holds, "told", f"{len(self.run.told)} of {len(gseqs)} events, gseq without a gap"

    def _drain(self) -> tuple[bool, str, str]:
        rows, cpu_s = self.run.backlog_rows, self.run.drain_cpu_s
        if self.run.drained_s is None:
            return False, "drain", f"{rows} rows, not drained"
        took_s = self.run.drained_s + cpu_s
        speed = self.run.times.hours * 3_600.0 / took_s
        text = (
            f"{rows} rows in {self.run.drained_s:.1f} virtual s and {cpu_s:.1f} s of CPU: "
            f"{speed:.0f} x real time, {rows / took_s:.0f} rows/s"
        )
        return speed >= DRAIN_MIN, "drain", text

    def _latency(self) -> Iterator[tuple[bool, str, str]]:
        for name, begin_s, end_s in self._phases():
            ours, theirs = (
                [each for each in run.latencies if begin_s <= each.at_s < end_s]
                for run in (self.run, self.plain)
            )
            if not ours or not theirs:
                yield bool(ours) == bool(theirs), f"latency {name}", "no alarm to measure"
                continue
            text = f"{_figures(ours)}; without an outage {_figures(theirs)}"
            yield _is_as_quick(ours, theirs), f"latency {name}", f"{len(ours)} alarms, {text}"

    def _phases(self) -> list[tuple[str, float, float]]:
        times, drained_s = self.run.times, self.run.drained_s or 0.0
        edges = (0.0, times.away_s, times.back_s, times.back_s + drained_s, float("inf"))
        names = ("before", "during", "draining", "after")
        return list(zip(names, edges, edges[1:], strict=False))

    def _subscriber(self) -> Iterator[tuple[bool, str, str]]:
        """How late the subscriber heard of crossings, while there was a broker."""
        for name, begin_s, end_s in self._phases():
            waits = [
                self.run.told[event.alarm.gseq] - (event.time_ns - START_NS) / NS_PER_S
                for event in self.run.events
                if is_crossing(event)
                and event.alarm.gseq in self.run.told
                and begin_s <= (event.time_ns - START_NS) / NS_PER_S < end_s
            ]
            if waits and name != "during":
                text = f"p50 {_ms(_at(waits, 0.5))}, p99 {_ms(_at(waits, 0.99))} virtual"
                yield True, f"at the subscriber {name}", f"{len(waits)} alarms, {text}"


def _what(event: AlarmEvent) -> tuple[str, int, int, str, int]:
    """What an event says, but for when it was found."""
    alarm = event.alarm
    return alarm.alarm_key, alarm.occ_no, alarm.seq, event.transition.value, event.time_ns


def _is_as_quick(ours: Sequence[Latency], theirs: Sequence[Latency]) -> bool:
    """In virtual time. One turn in five of the modelled disk takes up to `STALL_S` (drive.py), so
    of few alarms the slowest says no more than that."""
    (mid, late), (their_mid, their_late) = (
        [_at([each.virtual_s for each in some], share) for share in (0.5, 0.99)]
        for some in (ours, theirs)
    )
    is_late = late > max(their_late, STALL_S) + LATER_MAX_S
    return not is_late and (len(ours) < FEW or mid < their_mid + LATER_MAX_S)


def _figures(some: Sequence[Latency]) -> str:
    virtual, cpu = [each.virtual_s for each in some], [each.cpu_s for each in some]
    return (
        f"p50 {_ms(_at(virtual, 0.5))} p99 {_ms(_at(virtual, 0.99))} virtual, "
        f"p50 {_ms(_at(cpu, 0.5))} p99 {_ms(_at(cpu, 0.99))} CPU"
    )


def _at(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _mb(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
