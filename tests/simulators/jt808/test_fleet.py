"""The fleet against the real gateway adapter over loopback: the ledger is what was stored."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from adapters.jt808 import KIND as ADAPTER
from gateway.contract.adapter import AdapterContext
from gateway.contract.simulator import SentSample, SimulatorContext
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.model.point import Device, Point, PointTable
from simulators.jt808 import KIND

pytestmark = [pytest.mark.system, pytest.mark.slow]
POLL_S = 0.005
START = 1_785_513_600_000_000_000
FAST = 50.0  # how much faster than real time these tests' clock runs


class Clock:
    """Wall time made fast, from a literal start."""

    def __init__(self) -> None:
        self._began = time.monotonic_ns()

    def now_ns(self) -> int:
        return START + int((time.monotonic_ns() - self._began) * FAST)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / FAST)


class Ledger:
    def __init__(self) -> None:
        self.sent_counts: Counter[SentSample] = Counter()
        self.acknowledged_counts: Counter[SentSample] = Counter()

    def sent(self, samples: Sequence[SentSample]) -> None:
        self.sent_counts.update(samples)

    def acknowledged(self, samples: Sequence[SentSample]) -> None:
        self.acknowledged_counts.update(samples)


class Gateway:
    """The real adapter in a house that records; can be killed and started again."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self.table = PointTable()
        self.batches: list[Batch] = []
        self.port = 0
        self.fault: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._clock = clock
        self.context = AdapterContext(
            name="fleet",
            now_ns=clock.now_ns,
            counters=self,
            status=lambda _state, _detail="": None,
            state_dir=state_dir,
            known_points=lambda: iter(()),
        )
        self.counts: Counter[str] = Counter()

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        self.counts[f"{name} {reason}".strip()] += n

    async def points(self, points: Sequence[Point]) -> list[int]:
        return [self.table.put(point) for point in points]

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        return [self.table.put_device(device) for device in devices]

    async def emit(self, batch: Batch) -> None:
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch)

    async def start(self) -> None:
        config = ADAPTER.config(host="127.0.0.1", port=self.port, flush_interval_s=0.001)
        adapter: Any = ADAPTER.build(config, self.context)
        self._task = asyncio.create_task(adapter.run(self.emit, self))
        await until(lambda: adapter.port or self._task.done())
        self.port = adapter.port

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def stored(self) -> Counter[SentSample]:
        """What was stored, in the ledger's words: a link sample's time is the gateway's own."""
        whole = Batch.concat(self.batches)
        found: Counter[SentSample] = Counter()
        columns = (whole.point_index, whole.source_time_ns, whole.value)
        for index, time_ns, value in zip(*(column.tolist() for column in columns), strict=True):
            point = self.table[index].id
            found[SentSample(point, 0 if point.endswith(".link") else time_ns, value)] += 1
        return found


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(POLL_S)


class Scene:
    def __init__(self, state_dir: Path) -> None:
        self.clock = Clock()
        self.gateway = Gateway(state_dir, self.clock)
        self.ledger = Ledger()
        self.logs: list[str] = []
        self.fleet: Any = None
        self.task: asyncio.Task[None] | None = None

    def begin(self, **options: Any) -> None:
        options = {"vehicle_count": 3, "report_interval_s": 5, "heartbeat_interval_s": 20} | options
        config = KIND.config(port=self.gateway.port, reconnect_interval_s=1, **options)
        context = SimulatorContext(
            name="fleet",
            seed=808,
            ledger=self.ledger,
            now_ns=self.clock.now_ns,
            sleep=self.clock.sleep,
            log=self.logs.append,
        )
        self.fleet = KIND.build(config, context)
        self.task = asyncio.create_task(self.fleet.run())

    async def passed(self, seconds: float) -> None:
        await until(lambda: self.clock.now_ns() - START >= seconds * 1_000_000_000)

    def sent_positions(self) -> int:
        return sum(n for s, n in self.ledger.sent_counts.items() if s.point.endswith(".lon"))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    it = Scene(tmp_path)
    await it.gateway.start()
    yield it
    if it.task is not None:
        it.task.cancel()
        with suppress(asyncio.CancelledError):
            await it.task
    await it.gateway.kill()


def check_ledger(scene: Scene, *, repeats: bool = False) -> None:
    """Everything sent was acknowledged and stored, with just these values; nothing else was."""
    sent, stored = scene.ledger.sent_counts, scene.gateway.stored()
    assert scene.ledger.acknowledged_counts == sent
    if not repeats:
        assert stored == sent
    assert set(stored) == set(sent)
    positions = {s: n for s, n in stored.items() if not s.point.endswith(".link")}
    if not repeats:
        assert set(positions.values()) == {1}


@pytest.mark.parametrize("edition", ["2013", "2019"])
async def test_the_ledger_is_what_was_stored(scene: Scene, edition: str) -> None:
    scene.begin(edition=edition, duration_s=50)
    await asyncio.wait_for(scene.task, 30)
    check_ledger(scene)
    assert scene.sent_positions() == 3 * 10
    heartbeats = [s for s in scene.ledger.sent_counts if s.point.endswith(".link")]
    assert len(heartbeats) == 3
    assert scene.gateway.counts["rejected"] == 0


async def test_draining_stops_what_is_new_and_waits_for_what_is_sent(scene: Scene) -> None:
    scene.begin()
    await until(lambda: scene.sent_positions() >= 9)
    await asyncio.wait_for(scene.fleet.drain(), 30)
    check_ledger(scene)
    await asyncio.wait_for(scene.task, 30)
    await asyncio.wait_for(scene.fleet.drain(), 30)  # again: nothing left to do


async def test_a_lost_link_is_backfilled_with_its_old_times(scene: Scene) -> None:
    scene.begin(link_loss=[{"at_s": 12, "for_s": 25}], duration_s=60)
    await asyncio.wait_for(scene.task, 30)
    check_ledger(scene)
    assert scene.sent_positions() == 3 * 12
    stored = scene.gateway.stored()
    times = sorted(s.source_time_ns for s in stored if s.point == "v13900000001.lon")
    assert [later - time for time, later in pairwise(times)] == [5_000_000_000] * 11


async def test_a_killed_gateway_costs_no_position(scene: Scene) -> None:
    scene.begin()
    await until(lambda: scene.sent_positions() >= 9)
    await scene.gateway.kill()
    before = scene.clock.now_ns()
    await until(lambda: scene.clock.now_ns() - before > 15_000_000_000)
    await scene.gateway.start()
    await until(lambda: scene.sent_positions() >= 24)
    await asyncio.wait_for(scene.fleet.drain(), 30)
    check_ledger(scene, repeats=True)
    assert any("no link" in line or "link lost" in line for line in scene.logs)


async def test_a_gateway_whose_disk_fails_acknowledges_nothing_and_gets_all_of_it_later(
    scene: Scene,
) -> None:
    scene.begin()
    await until(lambda: scene.sent_positions() >= 6)
    scene.gateway.fault = StorageFault("disk")
    acknowledged = scene.ledger.acknowledged_counts.copy()
    await until(lambda: scene.gateway.counts["dropped not_durable"] >= 3)
    assert scene.ledger.acknowledged_counts - acknowledged <= scene.gateway.stored()
    scene.gateway.fault = None
    await until(lambda: scene.sent_positions() >= 24)
    await asyncio.wait_for(scene.fleet.drain(), 30)
    check_ledger(scene, repeats=True)
    counts = {n for s, n in scene.gateway.stored().items() if not s.point.endswith(".link")}
    assert counts == {1}  # nothing was stored twice: what failed was never stored


async def test_a_cancelled_run_is_finished_by_drain(scene: Scene) -> None:
    scene.begin()
    await until(lambda: scene.sent_positions() >= 6)
    scene.task.cancel()
    with suppress(asyncio.CancelledError):
        await scene.task
    await asyncio.wait_for(scene.fleet.drain(), 30)
    check_ledger(scene, repeats=True)


async def test_draining_a_fleet_that_never_ran_returns(scene: Scene) -> None:
    scene.begin()
    scene.task.cancel()
    await asyncio.wait_for(scene.fleet.drain(), 30)
    assert scene.ledger.sent_counts == Counter()
