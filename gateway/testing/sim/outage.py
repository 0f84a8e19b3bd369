"""Hours without broker and database, in virtual time: one scenario, judged from outside.

    ── an hour with both ──│── HOURS without ──│── both are back: live first, backlog behind ──
         latency, before        latency, during     how fast it drains

100 points at 10 s; every ten minutes one of them is beyond its limit for 30 s. What must hold:
every row is in the database once, in order in each lane; every crossing was alarmed and nothing
else; the backlog drains at ten times real time or more; memory grows by less than 50 MB; a live
alarm is as quick as before. Values are computed, not kept, so that the figures are the gateway's.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import orjson

from gateway.model.alarm import AlarmEvent, Transition
from gateway.testing.sim.clock import NS_PER_S, START_NS
from gateway.testing.sim.devices import PORT
from gateway.testing.sim.peers import LINE, Database
from gateway.testing.sim.plan import RULES, SITE, Plan
from gateway.testing.sim.world import World, world_of

POINTS = 100
INTERVAL_S = 10.0
BEFORE_S = 3_600.0
CROSSING_EVERY = 60  # intervals: ten minutes
CROSSING_LASTS = 3
GROWTH_MAX_BYTES = 50 << 20
DRAIN_MIN = 10.0
_DRAIN_MAX_S = 86_400.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def value_of(number: int, point: int) -> float:
    """What point `point` measures in interval `number`."""
    turn, within = divmod(number, CROSSING_EVERY)
    beyond = turn > 0 and within < CROSSING_LASTS and point == turn % POINTS
    return (1.5 if beyond else 0.5) + (number * 31 + point) % 1000 / 10_000


@dataclass
class CountingDatabase(Database):
    """Which rows came, as bits; a row that is not what was sent is a fault."""

    seen: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(POINTS)])
    faults: list[str] = field(default_factory=list)
    first_count: int = 0
    repeat_count: int = 0
    lanes: list[list[int]] = field(default_factory=lambda: [[-1, -1] for _ in range(POINTS)])

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            found = LINE.match(line)
            assert found is not None, line
            point = int(found["point"][1:])
            number = round((int(found["time"]) - START_NS) / NS_PER_S / INTERVAL_S)
            if found["value"] != repr(value_of(number, point)) or found["dup"]:
                self.faults.append(line)
            seen = self.seen[point]
            if number >= len(seen):
                seen.extend(bytes(number + 1 - len(seen)))
            if seen[number]:
                self.repeat_count += 1
                continue
            seen[number] = 1
            self.first_count += 1
            live, backlog = self.lanes[point]
            if number > live:
                self.lanes[point][0] = number
            elif number > backlog:
                self.lanes[point][1] = number
            else:
                self.faults.append(f"p{point}: {number} after {backlog}")


@dataclass
class Meter:
    """The device: one message an interval, and how long an alarm took that it caused."""

    world: World
    sent: int = 0
    acknowledged: int = 0
    latencies: list[tuple[float, float, float]] = field(default_factory=list)  # at, virtual, CPU
    _sent_at: dict[int, tuple[float, float]] = field(default_factory=dict)
    is_ending: bool = False

    async def run(self) -> None:
        loop = self.world.loop
        await asyncio.sleep(1.0)
        reader, writer = await asyncio.open_connection("gateway", PORT, limit=1 << 20)
        while not self.is_ending:
            number, due_s = self.sent, (self.sent + 1) * INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            time_ns = START_NS + round(number * INTERVAL_S * NS_PER_S)
            samples = [(f"p{p}", time_ns, value_of(number, p)) for p in range(POINTS)]
            self._sent_at[time_ns] = (loop.time(), time.process_time())
            self._sent_at.pop(time_ns - 10 * round(INTERVAL_S * NS_PER_S), None)
            writer.write(orjson.dumps({"n": number, "samples": samples}) + b"\n")
            self.sent += 1
            self.acknowledged = int(await reader.readline()) + 1

    def heard(self, events: Sequence[AlarmEvent]) -> None:
        """The judge told its listeners: what a screen and a siren hang on."""
        for event in events:
            sent = self._sent_at.get(event.time_ns)
            if event.alarm.rule_id == "now" and event.transition is Transition.ACTIVATED and sent:
                now_s = self.world.loop.time()
                self.latencies.append((now_s, now_s - sent[0], time.process_time() - sent[1]))


def play(hours: float, *, out: Callable[[str], None], seed: int = 0) -> int:
    """Run it, print the figures; 1 if something does not hold."""
    points = "".join(
        f'[[point]]\nid = "p{p}"\nquantity = "gas"\nadapter = "line"\n' for p in range(POINTS)
    )
    site = SITE.replace("segment_rows_max = 300\ntail_rows_max = 60", "tail_rows_max = 2000")
    site = site.replace("lines_per_request = 50", "lines_per_request = 5000")
    site = site.replace("tick_interval_s = 0.5", "tick_interval_s = 5.0") + points + RULES
    plan = _OutagePlan(seed, [], {}, [], 0.0, site)
    with world_of(plan, watched=False, database=CountingDatabase) as world:
        scenario = _Scenario(world, Meter(world), hours * 3_600.0)
        began_s = time.process_time()
        world.loop.run_until_complete(scenario.run())
        spent_s = time.process_time() - began_s
        out(f"{world.loop.time() / 3600:.1f} virtual hours in {spent_s:.0f} s of CPU")
        for name, (text, holds) in scenario.verdicts().items():
            out(f"{'ok  ' if holds else 'FAIL'} {name}: {text}")
        return 0 if all(holds for _, holds in scenario.verdicts().values()) else 1


@dataclass
class _OutagePlan(Plan):
    text: str = ""

    def site(self) -> str:
        return self.text


@dataclass
class _Scenario:
    world: World
    meter: Meter
    outage_s: float
    backlog_rows: int = 0
    drained_s: float = 0.0
    grown_bytes: int = 0
    is_drained: bool = False

    async def run(self) -> None:
        world, meter = self.world, self.meter
        keeper = asyncio.create_task(world.keep_alive())
        device = asyncio.create_task(meter.run())
        await asyncio.sleep(2.0)
        assert world.core is not None, "the gateway is up"
        world.core.event_listeners.append(meter.heard)
        await asyncio.sleep(BEFORE_S)
        world.database.mode = world.broker.mode = "down"
        world.broker.drop_links()
        begun_bytes = _rss_bytes()
        await self._pass(self.outage_s, begun_bytes)
        self.backlog_rows = self._behind()
        world.database.mode = world.broker.mode = "up"
        back_s = world.loop.time()
        while self._behind() > 2 * POINTS and world.loop.time() < back_s + _DRAIN_MAX_S:
            await self._pass(1.0, begun_bytes)
        self.is_drained = self._behind() <= 2 * POINTS
        self.drained_s = world.loop.time() - back_s
        await self._pass(BEFORE_S, begun_bytes)
        meter.is_ending = True
        await device
        await asyncio.sleep(60.0)
        await world.end(keeper)

    async def _pass(self, seconds: float, begun_bytes: int) -> None:
        """Let time pass, and look at the memory every half hour."""
        until_s = self.world.loop.time() + seconds
        while (left_s := until_s - self.world.loop.time()) > 0:
            await asyncio.sleep(min(left_s, 1_800.0))
            self.grown_bytes = max(self.grown_bytes, _rss_bytes() - begun_bytes)

    def _behind(self) -> int:
        core = self.world.core
        return sum(each.behind for each in core.deliveries.values()) if core else 0

    def verdicts(self) -> dict[str, tuple[str, bool]]:
        found, database = self.world.evidence, self.world.database
        assert isinstance(database, CountingDatabase), "world_of was told which one"
        rows = self.meter.acknowledged * POINTS
        speed = self.backlog_rows / POINTS * INTERVAL_S / max(self.drained_s, 1e-9)
        wanted = sum(
            1 for n in range(self.meter.sent) for p in (n // CROSSING_EVERY % POINTS,)
            if n % CROSSING_EVERY == 0 and value_of(n, p) >= 1
        )  # fmt: skip
        counts: dict[tuple[str, str], int] = {}
        for event in found.events:
            key = (event.alarm.rule_id, event.transition.value)
            counts[key] = counts.get(key, 0) + 1
        told = {orjson.loads(each.payload)["gseq"] for each in self.world.broker.heard}
        return {
            "rows": (
                self._rows(rows, database),
                database.first_count == rows and not database.faults,
            ),
            "alarms": (
                f"{wanted} crossings, {counts}",
                counts.get(("now", "ACT")) == wanted == counts.get(("held", "ACT"))
                and not any(rule == "silent" for rule, _ in counts),
            ),
            "told": (
                f"{len(told)} of {len(found.events)}",
                told == {event.alarm.gseq for event in found.events},
            ),
            "drain": (
                f"{self.backlog_rows} rows in {self.drained_s:.0f} s, {speed:.0f} x real time",
                self.is_drained and speed >= DRAIN_MIN,
            ),
            "memory": (
                f"grew by {self.grown_bytes / 2**20:.1f} MB",
                self.grown_bytes < GROWTH_MAX_BYTES,
            ),
            "latency": self._latency(),
        }

    @staticmethod
    def _rows(rows: int, database: CountingDatabase) -> str:
        stored, repeated = database.first_count, database.repeat_count
        wrong = len(database.faults)
        return f"{rows} acknowledged, {stored} stored, {repeated} repeated, {wrong} wrong"

    def _latency(self) -> tuple[str, bool]:
        edges = (0.0, BEFORE_S, BEFORE_S + self.outage_s, float("inf"))
        names, parts, middles = ("before", "during", "after"), [], []
        for name, (begin_s, end_s) in zip(names, pairwise(edges), strict=True):
            some = [each for each in self.meter.latencies if begin_s <= each[0] < end_s]
            if not some:
                return f"{name}: no alarm to measure", False
            virtual, spent = sorted(e[1] for e in some), sorted(e[2] for e in some)
            middles.append(statistics.median(virtual))
            parts.append(
                f"{name} p50 {_at(virtual, 0.5)} p99 {_at(virtual, 0.99)} virtual, "
                f"p50 {_at(spent, 0.5)} p99 {_at(spent, 0.99)} CPU"
            )
        return "; ".join(parts), max(middles) < 2 * middles[0] + 0.05


def _at(values: Sequence[float], share: float) -> str:
    return f"{values[min(len(values) - 1, int(share * len(values)))] * 1000:.1f} ms"


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
