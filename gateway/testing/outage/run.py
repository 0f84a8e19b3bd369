"""The phases of the proof: calm, outage, drain, calm again; then what the evidence says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt

from gateway.alarms.journal import Journal
from gateway.contract.simulator import Simulator
from gateway.model.alarm import Transition
from gateway.runtime.clock import now_ns
from gateway.runtime.plugins import load_plugins
from gateway.runtime.simulating import build_simulator, stop_simulator
from gateway.testing.outage import site
from gateway.testing.outage.again import Raised, raised_without_outage
from gateway.testing.outage.evidence import (
    Promises,
    StoreCheck,
    WriteCheck,
    check_store,
    check_writes,
)
from gateway.testing.outage.probe import Probe
from gateway.testing.outage.process import Gateway
from gateway.testing.outage.recorder import Recorder
from gateway.testing.servers import Mosquitto, free_port, mosquitto_server
from gateway.testing.stores import Influxd, create_database, influxd_server

_EVENTS_MAX = 1_000_000
_SAID_MAX = 10
_PREFIX = f"hazard/v1/{site.TENANT}/{site.SITE}"


@dataclass(frozen=True)
class Plan:
    """How long each phase is, and how much comes in."""

    outage_s: float
    calm_s: float
    after_s: float
    dams: int = 25
    vehicles: int = 10
    seed: int = 1
    live_first_after_rows: int = 1_000


@dataclass
class Memory:
    """The gateway's resident memory, in MB."""

    before_mb: float = 0.0
    outage_end_mb: float = 0.0
    peak_mb: float = 0.0


@dataclass
class Report:
    """What came of it. `passes` names each criterion."""

    plan: Plan
    acknowledged: int = 0
    rate_per_s: float = 0.0
    store: StoreCheck = field(default_factory=StoreCheck)
    writes: WriteCheck = field(default_factory=WriteCheck)
    drain_s: float = 0.0
    drain_multiple: float = 0.0
    first_write_after_s: float = 0.0
    states_after_s: float = 0.0
    standing: int = 0
    memory: Memory = field(default_factory=Memory)
    latency: dict[str, dict[str, float]] = field(default_factory=dict)
    probes_unheard: int = 0
    alarms_unexpected: list[str] = field(default_factory=list)
    events: int = 0
    shares: list[str] = field(default_factory=list)  # what the status said of the two lanes

    def passes(self) -> dict[str, bool]:
        return {
            "missing rows 0": self.acknowledged > 0 and self.store.missing == 0,
            "duplicates after identity 0": self.store.duplicates == 0,
            "order violations per point 0": self.writes.violations == 0,
            "alarms raised by the backlog 0": not self.alarms_unexpected,
            "every live alarm heard by the siren": self.probes_unheard == 0,
            "supervision's states equal within 10 s": 0 <= self.states_after_s <= 10,
            "drained at 10 times real time": self.drain_multiple >= 10,
            "memory growth under 50 MB": self.memory.peak_mb - self.memory.before_mb < 50,
        }

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "passes": self.passes()}, ensure_ascii=False)


Say = Callable[[str], None]


async def prove(plan: Plan, folder: Path, say: Say) -> Report:
    """Run it all in `folder`; every process it starts has ended when it returns."""
    report = Report(plan)
    with ExitStack() as servers:
        onsite = servers.enter_context(mosquitto_server(folder / "onsite"))
        supervision = servers.enter_context(mosquitto_server(folder / "supervision"))
        influx = servers.enter_context(influxd_server(folder))
        create_database(influx.url, site.DATABASE)
        recorder = Recorder(folder / "writes", free_port(), influx.port)
        recorder.open()
        servers.callback(recorder.close)
        away = Away(supervision, influx, recorder)
        jt808 = free_port()
        (folder / "inbox").mkdir()
        path = folder / "site.toml"
        path.write_text(
            site.site_text(
                jt808=jt808,
                onsite=onsite.port,
                supervision=supervision.port,
                influx=recorder.port,
                live_first_after_rows=plan.live_first_after_rows,
            ),
            encoding="utf-8",
        )
        targets = {
            "jt808": f"127.0.0.1:{jt808}",
            "mine_files": str(folder / "inbox"),
            "mqtt_json": f"127.0.0.1:{onsite.port}",
        }
        promises = Promises()
        async with Gateway(path, folder, onsite) as gateway:
            await _live(report, gateway, away, targets=targets, promises=promises, say=say)
        say("reading the evidence")
        report.store = check_store(influx.url, site.DATABASE, promises)
    report.acknowledged = promises.acknowledged_count
    report.writes = check_writes(recorder.runs(), away.back_ns)
    _drain_figures(report, away)
    say("judging the same rows without an outage")
    expected, to_ns = raised_without_outage(path, recorder.runs())
    report.events, report.alarms_unexpected = _alarms(folder / "data" / "journal", expected, to_ns)
    return report


async def _live(
    report: Report,
    gateway: Gateway,
    away: Away,
    *,
    targets: dict[str, str],
    promises: Promises,
    say: Say,
) -> None:
    plan = report.plan
    probe = Probe(gateway.onsite.port, f"{_PREFIX}/alarm/event")
    async with AsyncExitStack() as running:
        await _beside(running, probe.listen(), gateway.look())
        await probe.listening.wait()
        simulators = await _simulators(running, plan, targets, promises)
        await _beside(running, probe.knock())
        say(f"calm for {plan.calm_s:g} s")
        began_s, began = time.monotonic(), promises.acknowledged_count
        await asyncio.sleep(plan.calm_s)
        report.memory.before_mb = gateway.peak_mb = gateway.rss_mb()
        probe.phase = "during"
        await away.begin()
        say(f"broker and database are gone for {plan.outage_s:g} s")
        await asyncio.sleep(plan.outage_s)
        report.memory.outage_end_mb = gateway.rss_mb()
        await away.end()
        probe.phase = "drain"
        say("broker and database are back")
        report.states_after_s, report.standing = await _states_equal(gateway.onsite, away)
        await gateway.until_caught_up(within_rows=5_000)  # what a few seconds bring in
        probe.phase = "after"
        say(f"drained; calm for {plan.after_s:g} s")
        await asyncio.sleep(plan.after_s)
        lasted_s = time.monotonic() - began_s
        report.rate_per_s = round((promises.acknowledged_count - began) / lasted_s, 1)
        await asyncio.gather(*(stop_simulator(sim, task) for sim, task in simulators))
        await gateway.until_caught_up(within_rows=20)  # the probe goes on
        report.memory.peak_mb = gateway.peak_mb
        report.probes_unheard = probe.missing(now_ns())
        report.latency = probe.figures()
        report.shares = gateway.shares[:: max(1, len(gateway.shares) // _SAID_MAX)]


async def _beside(running: AsyncExitStack, *work: Awaitable[None]) -> None:
    """Tasks that are cancelled on the way out; one that failed fails the proof then."""
    for one in work:
        task = asyncio.ensure_future(one)

        async def end(task: asyncio.Future[None] = task) -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        running.push_async_callback(end)


async def _simulators(
    running: AsyncExitStack, plan: Plan, targets: dict[str, str], promises: Promises
) -> list[tuple[Simulator, asyncio.Task[None]]]:
    settings: dict[str, dict[str, Any]] = {
        "jt808": {"vehicle_count": plan.vehicles, "report_interval_s": 1.0},
        "mine_files": {
            "cdss_interval_s": 2.0,
            "ryss_interval_s": 5.0,
            "state_interval_s": 30.0,
        },
        "mqtt_json": {
            "dams": [f"dam{number}" for number in range(1, plan.dams + 1)],
            "interval_s": 1.0,
            "unacknowledged_max": 10_000,
        },
    }
    plugins, begun = load_plugins(), []
    for number, (name, target) in enumerate(targets.items()):
        simulator = build_simulator(
            plugins.simulators[name],
            name=name,
            target=target,
            settings=settings[name],
            seed=plan.seed + number,
            ledger=promises,
            log=lambda _line: None,
        )
        begun.append((simulator, asyncio.create_task(simulator.run())))

    async def end() -> None:
        for _, task in begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in begun), return_exceptions=True)

    running.push_async_callback(end)
    return begun


# --------------------------------------------------------------------------- what is taken away


@dataclass
class Away:
    """Broker and database of the supervision side."""

    supervision: Mosquitto
    influx: Influxd
    recorder: Recorder
    gone_ns: int = 0
    back_ns: int = 0

    async def begin(self) -> None:
        self.gone_ns = now_ns()
        await asyncio.to_thread(self.supervision.stop, kill=True)
        await asyncio.to_thread(self.influx.stop, kill=True)
        await asyncio.to_thread(self.recorder.close)

    async def end(self) -> None:
        """The broker without sessions and retained messages; the database with what it had."""
        shutil.rmtree(self.supervision.folder)
        await asyncio.to_thread(self.influx.start)
        await asyncio.to_thread(self.supervision.start)
        self.recorder.open()
        self.back_ns = now_ns()


async def _states_equal(onsite: Mosquitto, away: Away) -> tuple[float, int]:
    """Seconds after its return until a subscriber of the supervision broker, told nothing but
    retained states, knows what the on-site broker's subscriber knew at the return; and how many
    alarms that are. -1: not within half a minute."""
    wanted = await _retained(onsite.port)
    for _ in range(60):
        found = await _retained(away.supervision.port)
        if wanted and all(found.get(key, (0, 0)) >= state for key, state in wanted.items()):
            return round((now_ns() - away.back_ns) / 1e9, 1), len(wanted)
        await asyncio.sleep(0.2)
    return -1.0, len(wanted)


async def _retained(port: int) -> dict[str, tuple[int, int]]:
    """Alarm key -> (occurrence, seq) of every retained state, as a new subscriber sees them."""
    found: dict[str, tuple[int, int]] = {}
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(f"{_PREFIX}/alarm/+/state", qos=1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                async for message in client.messages:
                    assert isinstance(message.payload, bytes), "a payload is bytes"
                    row = json.loads(message.payload)
                    found[row["alarm_key"]] = (row["occ_no"], row["seq"])
    return found


# --------------------------------------------------------------------------- afterwards


def _drain_figures(report: Report, away: Away) -> None:
    writes = report.writes
    if not writes.last_ns:
        return
    report.first_write_after_s = round((writes.first_ns - away.back_ns) / 1e9, 2)
    report.drain_s = round(max(writes.last_ns - writes.first_ns, 1) / 1e9, 2)
    gone_s = (away.back_ns - away.gone_ns) / 1e9
    report.drain_multiple = round(gone_s / max(report.drain_s, 0.01), 1)


def _alarms(folder: Path, expected: set[Raised], to_ns: int) -> tuple[int, list[str]]:
    """Events in the journal, and the activations up to `to_ns` that the same rows do not raise
    without an outage, or not so often."""
    journal = Journal.open(folder)
    try:
        events = journal.read(0, _EVENTS_MAX)
    finally:
        journal.close()
    raised = [event for event in events if event.transition is Transition.ACTIVATED]
    found = [(event.alarm.alarm_key, event.time_ns) for event in raised]
    others = (each for each in found if each not in expected and each[1] <= to_ns)
    unexpected = [*others, *_twice(found)]
    standing = {e.alarm.point_id for e in raised if e.alarm.rule_id == site.STANDING_RULE}
    missed = sorted({f"{dam}.seepage_flow" for dam in site.STANDING} - standing)
    return len(events), [
        *(f"{key} at {time_ns}" for key, time_ns in unexpected),
        *(f"{point} not raised" for point in missed),
    ]


def _twice(found: Sequence[Raised]) -> list[Raised]:
    return [each for each, count in Counter(found).items() if count > 1]
