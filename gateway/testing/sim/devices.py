"""Devices with a history of their own, and the adapter they speak to.

    device ── {"n": 7, "at": […], "samples": [[point, value, quality], …]} ──▶ adapter ── emit
           ◀── 7 ───────────────────────────────────────────────────────────── durable

A device keeps every message until it is acknowledged, has a few in flight, and begins again at the
first unacknowledged one after a lost connection. It notices a link that is dead by itself. What it
sends when is decided before the run begins, so faults of the gateway cannot change the history.

The adapter is as plain as one can be: what the protocols do is tested with the real ones; here it
stands for all that keep the contract of gateway/contract/adapter.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.contract.adapter import Adapter, AdapterContext, AdapterKind, Declare, Emit
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault, Unavailable

PORT = 7_700
WINDOW = 4  # messages in flight
ACK_TIMEOUT_S = 8.0  # the link counts as dead
RECONNECT_S = 1.0
LINE_BYTES_MAX = 1 << 20


class Sample(NamedTuple):
    """One value a device measured."""

    point: str
    time_ns: int
    value: float


@dataclass
class Message:
    """What a device sends at once."""

    due_s: float
    samples: Sequence[Sample]
    sent_s: float | None = None  # for the first time
    acknowledged_s: float | None = None


@dataclass
class Device:
    """One device. `messages` in the order they are sent."""

    name: str
    messages: list[Message]
    log: Callable[[str], None]
    port: int = PORT
    done: int = field(default=0, init=False)  # messages acknowledged

    @property
    def is_done(self) -> bool:
        return self.done == len(self.messages)

    async def run(self) -> None:
        """Until everything is acknowledged."""
        while not self.is_done:
            try:
                reader, writer = await asyncio.open_connection(
                    "gateway", self.port, limit=LINE_BYTES_MAX
                )
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._talk(reader, writer)
            except OSError as error:
                self.log(f"{self.name} lost: {error}")
            finally:
                writer.transport.abort()
            if not self.is_done:
                await asyncio.sleep(RECONNECT_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        sent, progress_s = self.done, now()
        while not self.is_done:
            while sent < len(self.messages) and sent - self.done < WINDOW:
                message = self.messages[sent]
                if message.due_s > now():
                    break
                if sent == self.done:
                    progress_s = now()
                message.sent_s = now() if message.sent_s is None else message.sent_s
                writer.write(_line(sent, message))
                sent += 1
            line = await self._answer(reader, self._patience_s(sent, progress_s, now()))
            if line is None:
                if sent > self.done and now() >= progress_s + ACK_TIMEOUT_S:
                    raise TimeoutError(110, "no acknowledgement")
                continue
            if not line.endswith(b"\n"):
                raise ConnectionResetError(104, "end of stream")
            self._acknowledged(int(line), now())
            progress_s = now()

    def _patience_s(self, sent: int, progress_s: float, now_s: float) -> float:
        """Until something is due, or the link counts as dead."""
        waits = []
        if sent > self.done:
            waits.append(progress_s + ACK_TIMEOUT_S - now_s)
        if sent < len(self.messages) and sent - self.done < WINDOW:
            waits.append(self.messages[sent].due_s - now_s)
        return max(min(waits), 1e-6)  # a difference that rounds to nothing is no pause

    @staticmethod
    async def _answer(reader: asyncio.StreamReader, timeout_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.readline()
        except TimeoutError:
            return None

    def _acknowledged(self, number: int, now_s: float) -> None:
        assert number <= len(self.messages), f"{self.name}: {number} was never sent"
        while self.done <= number:
            self.messages[self.done].acknowledged_s = now_s
            self.log(f"{self.name} acknowledged {self.done}")
            self.done += 1


def _line(number: int, message: Message) -> bytes:
    return orjson.dumps({"n": number, "samples": [tuple(s) for s in message.samples]}) + b"\n"


# ---------------------------------------------------------------------- the gateway's side


class LineConfig(BaseModel):
    """Where to listen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int = PORT


class LineAdapter:
    """gateway.contract.adapter.Adapter for the devices above."""

    def __init__(self, config: LineConfig, context: AdapterContext) -> None:
        self._config = config
        self._context = context
        self._index: dict[str, int] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, emit: Emit, declare: Declare) -> None:
        points = list(self._context.known_points())
        self._index = dict(
            zip((point.id for point in points), await declare.points(points), strict=True)
        )

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "streams run this in a task"
            self._connections.add(task)
            try:
                await self._serve(reader, writer, emit)
            except asyncio.CancelledError:
                pass  # the adapter ends
            finally:
                self._connections.discard(task)
                writer.close()

        try:
            server = await asyncio.start_server(
                serve,
                "gateway",
                self._config.port,
                limit=LINE_BYTES_MAX,
            )
        except OSError as error:
            raise Unavailable(str(error)) from error
        self._context.status("listening")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, emit: Emit
    ) -> None:
        with suppress(OSError):
            while (line := await reader.readline()).endswith(b"\n"):
                said = orjson.loads(line)
                samples = [Sample(*each) for each in said["samples"]]
                batch = Batch.of(
                    [self._index[sample.point] for sample in samples],
                    [sample.value for sample in samples],
                    [sample.time_ns for sample in samples],
                    received_time_ns=self._context.now_ns(),
                )
                try:
                    await emit(batch)
                except (SpoolFull, StorageFault) as error:
                    self._context.status("faulty", str(error))
                    return  # not acknowledged: the device comes again
                writer.write(b"%d\n" % said["n"])


def _build(config: LineConfig, context: AdapterContext) -> Adapter:
    return LineAdapter(config, context)


KIND = AdapterKind(
    name="line",
    summary="the simulation's own devices",
    config=LineConfig,
    build=_build,
)
