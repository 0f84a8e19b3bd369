"""Hours without broker and database, in virtual time: one scenario, judged from outside.

    ── an hour with both ──│── HOURS without ──│── both are back: live first, backlog behind ──
         latency, before        latency, during     how fast it drains

100 points at 60 s. Now and then one is beyond its limit for two minutes: every three minutes in the
hours around the outage, every ten in it. The scenario is played twice, with the outage and without,
each in a process of its own; what must hold of the two is in verdicts.py.

**Virtual time counts waiting, not work**: computing takes none. Where a speed is asked for, the CPU
seconds of the drain (those of the modelled database among them) are added to its virtual ones.

Values are computed, not kept, and the database keeps one byte a row, so that memory is the
gateway's. Not here: real processes, sockets and disks (gateway/testing/outage does those).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import orjson

from gateway.model.alarm import AlarmEvent, Transition
from gateway.testing.sim.clock import NS_PER_S, START_NS
from gateway.testing.sim.devices import PORT
from gateway.testing.sim.peers import LINE, Database, Mode
from gateway.testing.sim.plan import RULES, SILENT_S, SITE, Plan
from gateway.testing.sim.world import World, world_of

POINTS = 100
INTERVAL_S = 60.0
"""100 points at 10 s, 2.6 million rows in 72 h, cost 9 minutes of CPU a run, at 60 s two: what is
done by second and by interval costs more than rows do. The hours are not shortened."""
RARELY_S, CHECKPOINT_S = 10.0, 60.0
"""The spool is watched and the ledger counts every ten seconds, not every one; a checkpoint is
taken every 60 s, not 5: a third of the CPU, and nothing that is asked here hangs on it."""
AROUND_S = 3_600.0
CROSSING_LASTS = 2  # intervals
OFTEN, SELDOM = 3, 10  # intervals between crossings
REQUEST_S, LINE_S = 0.02, 20e-6
"""What a write takes the database: 20 ms and 20 us a line, 25,000 rows/s at most (engineering: a
small InfluxDB)."""
DRAIN_MIN = 10.0
_SETTLE_S = 20.0  # shorter than the silence that is alarmed
_TICK_S = 10.0  # of the judge: the longest a site may have


@dataclass(frozen=True)
class Times:
    """When what happens, on the virtual clock."""

    hours: float
    around_s: float = AROUND_S

    @property
    def away_s(self) -> float:
        return self.around_s

    @property
    def back_s(self) -> float:
        return self.around_s + self.hours * 3_600.0

    @property
    def drained_by_s(self) -> float:
        """At the slowest that is allowed; a start of half a minute, as the back-off has it."""
        return self.back_s + self.hours * 3_600.0 / DRAIN_MIN + 30.0

    def value_of(self, number: int, point: int) -> float:
        """What `point` measures in interval `number`."""
        is_out = self.away_s + 600.0 <= number * INTERVAL_S < self.back_s - 600.0
        turn, within = divmod(number, SELDOM if is_out else OFTEN)
        beyond = turn > 0 and within < CROSSING_LASTS and point == turn % POINTS
        return (1.5 if beyond else 0.5) + (number * 31 + point) % 1000 / 10_000


@dataclass
class CountingDatabase(Database):
    """Which rows came, as bits; a row that is not what was sent is a fault."""

    times: Times = field(default_factory=lambda: Times(0.0))
    seen: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(POINTS)])
    faults: list[str] = field(default_factory=list)
    first_count: int = 0
    repeat_count: int = 0
    lanes: list[list[int]] = field(default_factory=lambda: [[-1, -1] for _ in range(POINTS)])

    def answer(self, body: bytes, timeout_s: float) -> SimpleNamespace:
        if self.mode == "up":
            self.loop.hold(REQUEST_S + LINE_S * (body.count(b"\n") + 1))
        return super().answer(body, timeout_s)

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            found = LINE.match(line)
            assert found is not None, f"not a line of ours: {line!r}"
            point, number = int(found["point"][1:]), _number_of(int(found["time"]))
            if found["value"] != repr(self.times.value_of(number, point)) or found["dup"]:
                self.faults.append(line)
            self._mark(point, number)

    def _mark(self, point: int, number: int) -> None:
        seen = self.seen[point]
        if number >= len(seen):
            seen.extend(bytes(number + 1 - len(seen)))
        if seen[number]:
            self.repeat_count += 1
            return
        seen[number] = 1
        self.first_count += 1
        lanes = self.lanes[point]
        if number > lanes[0]:
            lanes[0] = number
        elif number > lanes[1]:
            lanes[1] = number
        else:
            self.faults.append(f"p{point}: {number} after {lanes[1]}")


@dataclass
class Meter:
    """The device: one message an interval, and how long an alarm took that it caused."""

    world: World
    times: Times
    sent: int = 0
    acknowledged: int = 0
    latencies: list[Latency] = field(default_factory=list)
    is_ending: bool = False
    _sent_at: dict[int, tuple[float, float]] = field(default_factory=dict)

    async def run(self) -> None:
        loop = self.world.loop
        await asyncio.sleep(1.0)
        reader, writer = await asyncio.open_connection("gateway", PORT, limit=1 << 20)
        while not self.is_ending:
            number = self.sent + 1  # the gateway starts in interval 0
            await asyncio.sleep(max(0.0, number * INTERVAL_S - loop.time()))
            time_ns = _time_of(number)
            samples = [(f"p{p}", time_ns, self.times.value_of(number, p)) for p in range(POINTS)]
            self._sent_at = {time_ns: (loop.time(), time.process_time())}
            writer.write(orjson.dumps({"n": number, "samples": samples}) + b"\n")
            self.sent = number
            self.acknowledged = int(await reader.readline())

    def heard(self, events: Sequence[AlarmEvent]) -> None:
        """The judge told its listeners: what a screen and a siren hang on."""
        now_s, spent_s = self.world.loop.time(), time.process_time()
        for event in events:
            sent = self._sent_at.get(event.time_ns)
            if is_crossing(event) and sent is not None:
                self.latencies.append(Latency(now_s, now_s - sent[0], spent_s - sent[1]))


@dataclass(frozen=True)
class Latency:
    """From the device's send to the judge's listeners."""

    at_s: float
    virtual_s: float
    cpu_s: float


@dataclass
class Run:
    """One of the two runs, and what it left behind."""

    times: Times
    has_outage: bool
    ends_ns: int = 0
    sent: int = 0
    acknowledged: int = 0
    first_count: int = 0
    repeat_count: int = 0
    faults: list[str] = field(default_factory=list)
    events: list[AlarmEvent] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: dict[int, float] = field(default_factory=dict)  # gseq -> when the subscriber had it
    latencies: list[Latency] = field(default_factory=list)
    backlog_rows: int = 0
    drained_s: float | None = None
    drain_cpu_s: float = 0.0
    begun_bytes: int = 0
    peak_bytes: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0


def both_of(times: Times, seed: int) -> list[Run]:
    """With the outage and without, side by side."""
    spawn = multiprocessing.get_context("spawn")  # nothing inherited: memory is the run's own
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        return list(pool.map(partial(run_of, times, seed=seed), (True, False)))


def run_of(times: Times, has_outage: bool, *, seed: int) -> Run:
    """One run of the scenario."""
    logging.disable(logging.CRITICAL)  # what the gateway says of its faults is not the question
    run = Run(times, has_outage)
    began_s = time.process_time()
    plan = OutagePlan(seed, [], {}, [])
    rarely = mock.patch("gateway.runtime.core.GUARD_INTERVAL_S", RARELY_S)
    with rarely, world_of(plan, watched=False, database=CountingDatabase) as world:
        world.loop.run_until_complete(_Scenario(world, run).play())
        run.virtual_s = world.loop.time()
        run.events, run.notes = world.evidence.events, world.evidence.notes
        run.notes += [str(each) for each in world.loop.failures]
        for each in world.broker.heard:
            run.told.setdefault(orjson.loads(each.payload)["gseq"], each.at_s)
    run.cpu_s = time.process_time() - began_s
    return run


@dataclass
class OutagePlan(Plan):
    """The site of `plan.py` as a site has it: its own segments, larger requests, fewer ticks."""

    def site(self) -> str:
        points = "".join(
            f'[[point]]\nid = "p{p}"\nquantity = "gas"\nadapter = "line"\n' for p in range(POINTS)
        )
        site = SITE.replace("segment_rows_max = 300\ntail_rows_max = 60", "tail_rows_max = 2000")
        site = site.replace("lines_per_request = 50", "lines_per_request = 1000")
        site = site.replace("tick_interval_s = 0.5", f"tick_interval_s = {_TICK_S}")
        silent = RULES.replace(f"max_age_s = {SILENT_S}", f"max_age_s = {3.5 * INTERVAL_S}")
        return site + points + silent


@dataclass
class _Scenario:
    world: World
    run: Run

    async def play(self) -> None:
        world, run = self.world, self.run
        database = world.database
        assert isinstance(database, CountingDatabase), "world_of was told which one"
        database.times = run.times
        meter = Meter(world, run.times, latencies=run.latencies)
        keeper = asyncio.create_task(world.keep_alive())
        device = asyncio.create_task(meter.run())
        await asyncio.sleep(2.0)
        assert world.core is not None, "the gateway is up"
        world.core.event_listeners.append(meter.heard)
        world.core.judge.checkpoint_interval_s = CHECKPOINT_S
        assert world.core.keeper is not None, "the ledger is kept by default"
        world.core.keeper.count_interval_s = RARELY_S
        await self._until(run.times.away_s)
        run.begun_bytes = _status_bytes("VmRSS")
        self._peers("down")
        await self._until(run.times.back_s)
        self._peers("up")
        run.backlog_rows = meter.acknowledged * POINTS - database.first_count
        began_s = time.process_time()
        while meter.acknowledged * POINTS - database.first_count > 2 * POINTS:
            if world.loop.time() > run.times.drained_by_s:
                break
            await asyncio.sleep(0.5)
        else:
            run.drained_s = world.loop.time() - run.times.back_s
        run.drain_cpu_s = time.process_time() - began_s
        run.peak_bytes = _status_bytes("VmHWM")
        await self._until(run.times.back_s + run.times.around_s)
        run.ends_ns = START_NS + round(world.loop.time() * NS_PER_S)
        meter.is_ending = True
        await device
        await asyncio.sleep(_SETTLE_S)
        await world.end(keeper)
        run.sent, run.acknowledged = meter.sent, meter.acknowledged
        run.first_count, run.repeat_count = database.first_count, database.repeat_count
        run.faults = database.faults

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.world.loop.time()))

    def _peers(self, mode: Mode) -> None:
        if self.run.has_outage:
            self.world.database.mode = self.world.broker.mode = mode
            if mode == "down":
                self.world.broker.drop_links()


def _number_of(time_ns: int) -> int:
    return round((time_ns - START_NS) / NS_PER_S / INTERVAL_S)


def _time_of(number: int) -> int:
    return START_NS + round(number * INTERVAL_S * NS_PER_S)


def is_crossing(event: AlarmEvent) -> bool:
    return event.alarm.rule_id == "now" and event.transition is Transition.ACTIVATED


def _status_bytes(name: str) -> int:
    """VmRSS: resident now; VmHWM: at most, so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"Linux says no {name}")
