"""The simulated dams against a real broker, and into the real adapter."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from adapters.mqtt_json import KIND as ADAPTER
from adapters.mqtt_json.config import MqttJsonConfig
from gateway.contract.adapter import AdapterContext
from gateway.contract.simulator import SentSample, SimulatorContext
from gateway.testing.servers import mosquitto_server, mosquitto_sub, until
from simulators.mqtt_json import KIND
from simulators.mqtt_json.config import TailingsConfig

pytestmark = pytest.mark.system

T0 = 1_773_468_000_000_000_000


class Recording:
    def __init__(self) -> None:
        self.sent_samples: list[SentSample] = []
        self.acknowledged_samples: list[SentSample] = []

    def sent(self, samples) -> None:
        self.sent_samples.extend(samples)

    def acknowledged(self, samples) -> None:
        self.acknowledged_samples.extend(samples)


class Clock:
    """Time that passes only by sleeping; a sleep lets the event loop work."""

    def __init__(self) -> None:
        self.ns = T0

    def now_ns(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)
        await asyncio.sleep(0.001)


@pytest.fixture
def broker(tmp_path: Path):
    with mosquitto_server(tmp_path) as running:
        yield running


def simulator(port: int, ledger: Recording, clock: Clock | None = None, **settings):
    clock = clock or Clock()
    context = SimulatorContext("tailings", 7, ledger, clock.now_ns, clock.sleep)
    return KIND.build(TailingsConfig(port=port, connect_timeout_s=3.0, **settings), context)


def counted(samples) -> Counter:
    return Counter(
        (s.point, s.source_time_ns, None if math.isnan(s.value) else s.value) for s in samples
    )


async def test_a_scenario_ends_with_everything_acknowledged_once(broker, tmp_path):
    ledger = Recording()
    with mosquitto_sub(broker.port, tmp_path, "tailings/#") as live:
        await simulator(
            broker.port, ledger, dams=("dam1", "dam2"), interval_s=10, duration_s=100
        ).run()
        await until(lambda: len(live.heard) == 20)
    assert counted(ledger.sent_samples) == counted(ledger.acknowledged_samples)
    assert len(ledger.sent_samples) == 20 * 9
    first = json.loads(live.heard[0].payload)
    assert live.heard[0].topic == "tailings/dam1/telemetry"
    assert (first["device"], first["time"]) == ("dam1", "2026-03-14T06:00:00Z")
    assert live.heard[0].qos == 1


async def test_two_reports_never_share_an_instant_however_fast_the_scenario(broker):
    ledger, clock = Recording(), Clock()
    clock.sleep = lambda _s: asyncio.sleep(0)  # the clock stands still
    await simulator(broker.port, ledger, clock, dams=("a", "b"), interval_s=1, duration_s=20).run()
    times = [s.source_time_ns for s in ledger.sent_samples if s.point.endswith(".pool_level")]
    assert len(times) == len(set(times)) == 40


async def test_what_was_not_acknowledged_is_sent_again_byte_for_byte(tmp_path):
    """The broker is frozen while a report is under way, then killed: sent, not acknowledged."""
    ledger = Recording()
    with (
        mosquitto_server(tmp_path) as broker,
        mosquitto_sub(broker.port, tmp_path, "tailings/#") as live,
    ):
        sim = simulator(broker.port, ledger, dams=("dam1",), interval_s=10, keepalive_s=5)
        running = asyncio.create_task(sim.run())
        await until(lambda: len(live.heard) >= 5)
        os.kill(broker._process.pid, signal.SIGSTOP)
        await until(lambda: len(ledger.sent_samples) > len(ledger.acknowledged_samples))
        before = list(ledger.sent_samples)
        broker.stop(kill=True)
        broker.start()
        with mosquitto_sub(broker.port, tmp_path, "tailings/#") as later:
            await until(lambda: len(later.heard) >= 5)
            await sim.drain()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            payloads = [json.loads(m.payload) for m in (*live.heard, *later.heard)]
    assert counted(ledger.sent_samples) == counted(ledger.acknowledged_samples)
    assert max(counted(ledger.sent_samples).values()) == 1
    by_time: dict[str, set[str]] = {}
    for payload in payloads:
        by_time.setdefault(payload["time"], set()).add(json.dumps(payload))
    assert all(len(bodies) == 1 for bodies in by_time.values())
    assert {s.source_time_ns for s in before} <= {
        s.source_time_ns for s in ledger.acknowledged_samples
    }


async def test_an_absent_broker_stops_the_scenario_at_the_limit_and_loses_nothing(tmp_path):
    with mosquitto_server(tmp_path) as broker:
        broker.stop()
        ledger = Recording()
        sim = simulator(broker.port, ledger, interval_s=10, duration_s=400, unacknowledged_max=8)
        running = asyncio.create_task(sim.run())
        await asyncio.sleep(0.1)
        assert len(sim._unacknowledged) == 8
        assert ledger.sent_samples == []
        broker.start()
        await running
    assert counted(ledger.sent_samples) == counted(ledger.acknowledged_samples)
    assert len({s.source_time_ns for s in ledger.sent_samples}) == 40


async def test_drain_after_a_cancelled_run_sends_what_is_left(broker):
    ledger = Recording()
    sim = simulator(broker.port, ledger, interval_s=10)
    running = asyncio.create_task(sim.run())
    await until(lambda: len(ledger.sent_samples) > 90)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await sim.drain()
    assert counted(ledger.sent_samples) == counted(ledger.acknowledged_samples)


class Store:
    """Emit and declare; keeps each sample under its point's name."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.rows: Counter = Counter()

    async def points(self, points):
        self.ids += [p.id for p in points if p.id not in self.ids]
        return [self.ids.index(p.id) for p in points]

    async def devices(self, devices):
        return list(range(len(devices)))

    async def __call__(self, batch) -> None:
        columns = (batch.point_index, batch.source_time_ns, batch.value)
        for index, time_ns, value in zip(*(c.tolist() for c in columns), strict=True):
            self.rows[self.ids[index], time_ns, None if math.isnan(value) else value] += 1

    def count(self, *_args, **_kwargs) -> None:
        return


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_the_store_holds_exactly_what_the_ledger_says_was_acknowledged(
    broker, tmp_path, protocol
):
    """Across a restart of the broker in the middle; samples bit for bit, by point and time."""
    store, ledger, states = Store(), Recording(), []
    context = AdapterContext(
        "dams", lambda: T0, store, lambda state, _d="": states.append(state), tmp_path, lambda: ()
    )
    config = MqttJsonConfig(profile="tailings-generic", port=broker.port, protocol=protocol)
    adapter = ADAPTER.build(config, context)

    async def supervised() -> None:
        from gateway.model.errors import Unavailable

        while True:
            try:
                await adapter.run(store, store)
            except Unavailable:
                await asyncio.sleep(0.05)

    serving = asyncio.create_task(supervised())
    await until(lambda: "connected" in states)
    settings = {
        "dams": ("dam1", "dam2"),
        "rain_storm": ({"at_s": 50, "for_s": 600, "rain_mm_per_h": 60},),
        "signals": {
            "seepage_flow": {"base": 3.5, "events": [{"kind": "fault", "at_s": 100, "for_s": 50}]}
        },
    }
    sim = simulator(
        broker.port, ledger, interval_s=5, duration_s=500, protocol=protocol, **settings
    )
    running = asyncio.create_task(sim.run())
    await until(lambda: len(store.rows) > 300)
    broker.stop()
    broker.start()
    await running
    promised = counted(ledger.acknowledged_samples)
    await until(lambda: store.rows.keys() >= promised.keys(), 20)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert store.rows.keys() == promised.keys()
    assert any(value is None for _, _, value in promised)
    assert len(promised) == 2 * 100 * 9
