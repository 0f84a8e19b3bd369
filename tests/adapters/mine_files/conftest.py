"""A house to hand over to, and a mine to write files for. Nothing here reads the clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.mine_files import KIND
from adapters.mine_files.codec import encode_file, format_time, parse_time
from adapters.mine_files.config import MineFilesConfig
from gateway.contract.adapter import AdapterContext
from gateway.model.point import PointTable

POLL_S = 0.002
MINE = "999901000123"
T0 = parse_time("2026-01-15 08:00:00")
SECOND = 1_000_000_000


async def until(condition, *, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(POLL_S)


@dataclass
class House:
    """Records what an adapter hands over. `gate` closed: emit waits, as a full house does."""

    table: PointTable = field(default_factory=PointTable)
    samples: list = field(default_factory=list)  # (point id, value, quality, source time)
    batch_sizes: list = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    says: list = field(default_factory=list)
    clock_ns: int = T0 + 10 * SECOND
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    fails: Exception | None = None

    def __post_init__(self):
        self.gate.set()

    async def emit(self, batch):
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.fails is not None:
            raise self.fails
        self.batch_sizes.append(len(batch))
        for row in range(len(batch)):
            point = self.table[int(batch.point_index[row])].id
            self.samples.append(
                (
                    point,
                    float(batch.value[row]),
                    int(batch.quality[row]),
                    int(batch.source_time_ns[row]),
                )
            )

    async def points(self, points):
        return [self.table.put(point) for point in points]

    async def devices(self, devices):
        return [self.table.put_device(device) for device in devices]

    def count(self, name, n=1, *, reason=""):
        self.counts[f"{name}.{reason}" if reason else name] += n

    def of(self, point):
        return [
            (value, quality, time) for id_, value, quality, time in self.samples if id_ == point
        ]

    def area_names(self, point):
        """The values of an area point in words."""
        return [
            "out" if value == -1 else self.table.devices[int(value)].id
            for value, _, _ in self.of(point)
        ]


@dataclass
class Site:
    """One adapter on a folder of its own; `restart` is a new process on the same disk."""

    folder: Path
    state_dir: Path
    house: House = field(default_factory=House)
    options: dict = field(default_factory=dict)
    adapter: object = None
    scans: int = 0

    def __post_init__(self):
        self.folder.mkdir()
        self.state_dir.mkdir()
        self.restart()

    def restart(self, **options):
        self.options.update(options)
        config = MineFilesConfig(folder=self.folder, **({"poll_interval_s": POLL_S} | self.options))
        context = AdapterContext(
            name="mine",
            now_ns=lambda: self.house.clock_ns,
            counters=self.house,
            status=lambda state, detail="": self.house.says.append((state, detail)),
            state_dir=self.state_dir,
            known_points=lambda: list(self.house.table),
        )
        self.adapter = KIND.build(config, context)
        scan = self.adapter._folder.scan

        def counted(is_held=lambda *_: False):
            self.scans += 1
            return scan(is_held)

        self.adapter._folder.scan = counted

    def put(self, name, data, folder=""):
        target = self.folder / folder
        target.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
        return target / name

    def file(self, kind, records, *, at_s=0, header=None, folder=""):
        """Write a good file whose header says `at_s` seconds after T0."""
        name = name_at(kind, at_s)
        return self.put(name, content(kind, records, at_s=at_s, header=header), folder)

    def left(self):
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def side(self, name):
        folder = self.state_dir / name
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @asynccontextmanager
    async def running(self):
        """Run the adapter meanwhile; end it at rest, between two looks at the folder."""
        task = asyncio.create_task(self.adapter.run(self.house.emit, self.house))
        try:
            yield task
            await self.looks(task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def looks(self, task, times=1):
        """Wait for whole looks at the folder; what the adapter raises comes out here."""
        seen = self.scans
        await until(lambda: task.done() or self.scans > seen + times - 1)
        if task.done():
            task.result()

    async def run_until(self, condition: Callable[[], bool], *, timeout_s=10.0):
        async with self.running() as task:
            await until(lambda: condition() or task.done(), timeout_s=timeout_s)

    async def run_until_taken(self):
        await self.run_until(lambda: not self.left())

    async def run_rounds(self):
        """Let it look twice at everything that is there."""
        async with self.running() as task:
            await self.looks(task, times=2)


def name_at(kind, at_s=0, mine=MINE):
    stamp = format_time(T0 + at_s * SECOND)
    return f"{mine}_{kind}_{''.join(c for c in stamp if c.isdigit())}.txt"


def content(kind, records, *, at_s=0, header=None):
    fields = {"mine_code": MINE, "mine_name": "示例煤矿", "time": format_time(T0 + at_s * SECOND)}
    return encode_file(kind, {**fields, **(header or {})}, records)


def reading(tail="MN0001001A01", value="0.32", state="0", *, at_s=0, **more):
    return {
        "code": f"{MINE}01{tail}",
        "type_name": "环境瓦斯",
        "location": "3101工作面T1",
        "value": value,
        "unit": "%CH4",
        "state": state,
        "time": format_time(T0 + at_s * SECOND),
        **more,
    }


def definition(tail="MN0001001A01", **more):
    return {
        "code": f"{MINE}01{tail}",
        "system": "01",
        "substation": f"{MINE}00001",
        "sensor_type": tail[2:6],
        "value_type": tail[:2],
        "unit": "%CH4" if tail.startswith("MN") else "",
        "location": "3101工作面T1",
        "time": "2026-01-15 08:00:00",
        **more,
    }


def person(number=42, flag="1", area="0007", **more):
    full = f"{MINE}{area}" if area else ""
    return {
        "card": f"{MINE}{10000 + number}",
        "name": f"测试{number}",
        "flag": flag,
        "area": full,
        "station": f"{full}000120" if full else "",
        "work_state": "正常",
        "leader": "0",
        "special": "1",
        **more,
    }


def card(number=42):
    return f"{MINE}{10000 + number}"


@pytest.fixture
def mine():
    """The writers of files, as one name to use in tests."""
    from types import SimpleNamespace

    return SimpleNamespace(
        code=MINE,
        t0=T0,
        second=SECOND,
        name_at=name_at,
        content=content,
        reading=reading,
        definition=definition,
        person=person,
        card=card,
        until=until,
    )


@pytest.fixture
async def site(tmp_path):
    return Site(tmp_path / "in", tmp_path / "state")


@pytest.fixture
def make_house():
    return House
