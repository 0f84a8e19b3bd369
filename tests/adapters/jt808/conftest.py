"""A house that records, and a terminal with a real socket, for the server's tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.jt808.client import Jt808Server
from adapters.jt808.codec import (
    EDITION_2013,
    Authentication,
    Frame,
    FrameReader,
    Message,
    PlatformReply,
    Registration,
    RegistrationReply,
    decode_message,
    encode_message,
)
from adapters.jt808.config import Jt808Config
from gateway.contract.adapter import AdapterContext
from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointTable

POLL_S = 0.005
NOW = 1_785_513_700_000_000_000


class House:
    """Takes what an adapter emits; can be made to wait or to fail."""

    def __init__(self, state_dir: Path) -> None:
        self.table = PointTable()
        self.batches: list[Batch] = []
        self.counts: Counter[str] = Counter()
        self.states: list[tuple[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.declare_gate = asyncio.Event()
        self.declare_gate.set()
        self.declare_waiting = 0
        self.fault: Exception | None = None
        self.emit_count = 0
        self.now_ns = NOW
        self.context = AdapterContext(
            name="fleet",
            now_ns=lambda: self.now_ns,
            counters=self,
            status=lambda state, detail="": self.states.append((state, detail)),
            state_dir=state_dir,
            known_points=lambda: iter(()),
        )

    async def emit(self, batch: Batch) -> None:
        self.emit_count += 1
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch)

    async def points(self, points: Sequence[Point]) -> list[int]:
        return [self.table.put(point) for point in points]

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        self.declare_waiting += 1
        await self.declare_gate.wait()
        self.declare_waiting -= 1
        return [self.table.put_device(device) for device in devices]

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        self.counts[f"{name} {reason}".strip()] += n

    def rows(self) -> list[tuple[str, float, int]]:
        """Every stored sample: point, value, source time."""
        whole = Batch.concat(self.batches)
        names = [self.table[index].id for index in whole.point_index.tolist()]
        return list(zip(names, whole.value.tolist(), whole.source_time_ns.tolist(), strict=True))


class Caller:
    """A terminal's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.serial = 0
        self._frames = FrameReader()
        self._said: list[Message] = []

    def send(self, message: Message, phone: str) -> bytes:
        wire = encode_message(message, phone, self.serial, EDITION_2013)
        self.serial += 1
        self.writer.write(wire)
        return wire

    async def hear(self) -> Message | None:
        """The next reply; None when the gateway closed the connection."""
        while not self._said:
            try:
                data = await asyncio.wait_for(self.reader.read(4096), 20)
            except ConnectionError:
                return None
            if not data:
                return None
            for frame in self._frames.feed(data):
                assert isinstance(frame, Frame)
                self._said.append(decode_message(frame.header, frame.body))
        return self._said.pop(0)

    async def login(self, phone: str) -> str:
        self.send(Registration(EDITION_2013, 0, 0, "M", "M", "T1", 2, "测A00001"), phone)
        reply = await self.hear()
        assert isinstance(reply, RegistrationReply), reply
        await self.authenticate(phone, reply.code)
        return reply.code

    async def authenticate(self, phone: str, code: str) -> None:
        serial = self.serial
        self.send(Authentication(code), phone)
        assert await self.hear() == PlatformReply(serial, 0x0102, 0)


class Site:
    """A server that runs, and whoever calls it."""

    def __init__(self, state_dir: Path) -> None:
        self.house = House(state_dir)
        self.server: Jt808Server | None = None
        self.task: asyncio.Task[None] | None = None
        self.callers: list[Caller] = []

    async def start(self, **options: object) -> None:
        config = Jt808Config(host="127.0.0.1", port=0, **options)
        self.server = Jt808Server(config, self.house.context)
        self.task = asyncio.create_task(self.server.run(self.house.emit, self.house))
        await self.until(lambda: self.server.port or self.task.done())
        if self.task.done():
            self.task.result()

    async def call(self, local_address: str = "127.0.0.1") -> Caller:
        ends = await asyncio.open_connection(
            "127.0.0.1", self.server.port, local_addr=(local_address, 0)
        )
        caller = Caller(*ends)
        self.callers.append(caller)
        return caller

    async def stop(self) -> None:
        for caller in self.callers:
            caller.writer.close()
            with suppress(OSError):
                await caller.writer.wait_closed()
        self.callers.clear()
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
            self.task = None

    @staticmethod
    async def until(is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                await asyncio.sleep(POLL_S)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    it = Site(tmp_path)
    yield it
    await it.stop()
