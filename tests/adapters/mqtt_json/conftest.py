"""A real broker, and a house in which every `emit` can be held back or made to fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.mqtt_json import KIND
from adapters.mqtt_json.client import MqttJsonAdapter
from adapters.mqtt_json.config import MqttJsonConfig
from gateway.contract.adapter import AdapterContext
from gateway.model.batch import Batch
from gateway.model.point import Device, Point
from gateway.testing.servers import mosquitto_server

NOW = 1_773_468_100_000_000_000


@dataclass
class House:
    """Emit, declare, counters and status of one adapter."""

    state_dir: Path
    points: list[Point] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # emit returns while it is set
    waiting: int = 0
    error: Exception | None = None
    declare_error: Exception | None = None
    _index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, batch: Batch) -> None:
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        key = f"{name}:{reason}" if reason else name
        self.counts[key] = self.counts.get(key, 0) + n

    @property
    def rows(self) -> list[tuple[str, float, int]]:
        names = {index: name for name, index in self._index.items()}
        return [
            (names[i], v, t)
            for b in self.batches
            for i, v, t in zip(
                b.point_index.tolist(), b.value.tolist(), b.source_time_ns.tolist(), strict=True
            )
        ]

    def context(self) -> AdapterContext:
        return AdapterContext(
            name="dams",
            now_ns=lambda: NOW,
            counters=self,
            status=lambda state, _detail="": self.states.append(state),
            state_dir=self.state_dir,
            known_points=lambda: self.points,
        )


class Declare:
    def __init__(self, house: House) -> None:
        self._house = house

    async def points(self, points: list[Point]) -> list[int]:
        house = self._house
        if house.declare_error is not None:
            raise house.declare_error
        for point in points:
            house._index.setdefault(point.id, len(house._index))
            house.points.append(point)
        return [house._index[point.id] for point in points]

    async def devices(self, devices: list[Device]) -> list[int]:
        self._house.devices.extend(devices)
        return [0] * len(devices)


@pytest.fixture
def broker(tmp_path: Path):
    with mosquitto_server(tmp_path) as running:
        yield running


@pytest.fixture
def house(tmp_path: Path) -> House:
    folder = tmp_path / "state"
    folder.mkdir()
    return House(folder)


@pytest.fixture
async def start(house: House):
    """Start an adapter: `task = start(port=…)`; whatever still runs is cancelled."""
    tasks: list[asyncio.Task] = []

    def run(*, whole: bool = False, **settings):
        settings.setdefault("profile", "tailings-generic")
        config = MqttJsonConfig(connect_timeout_s=3.0, **settings)
        adapter = KIND.build(config, house.context())
        assert isinstance(adapter, MqttJsonAdapter)
        declare = Declare(house)
        task = asyncio.create_task(adapter.run(house, declare))
        tasks.append(task)
        return (task, adapter, declare) if whole else task

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
