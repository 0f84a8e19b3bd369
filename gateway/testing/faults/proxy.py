"""A TCP proxy that misbehaves on order: between the gateway and what it talks to.

    client ──> Proxy ──> server          what each mode does
    ------------------------------------------------------------------------------------------
    pass         hands everything on
    refuse       nobody listens; standing connections are reset
    blackhole    accepts, reads, answers nothing, and says nothing to the server
    deaf         hands on what the client says; the server's answers are dropped: "accepts and
                 never acknowledges", "the connection died after the body was sent"
    half_close   as soon as the client has spoken, the server's side is ended (FIN); the client's
                 side stays open
    delay        every chunk waits `delay_s`
    chop         every chunk is cut into pieces of one to `chop_bytes` bytes, handed on one by one
    throttle     at most `rate_bytes_s` each way
    cut          resets the connection after `cut_bytes` of the client's bytes were handed on
    garbage      the server's answers are replaced by seeded noise of the same length

Changing the mode ends what stands unless the new mode leaves bytes whole (pass, delay, chop,
throttle) and the old one did too. TCP knows no reordering and no repeats: what a network does to
packets, a kernel mends below the program; those two belong to UDP and to the simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field

MODES = (
    "pass", "refuse", "blackhole", "deaf", "half_close", "delay", "chop", "throttle", "cut",
    "garbage",
)  # fmt: skip
_HARMLESS = frozenset(("pass", "delay", "chop", "throttle"))
_READ_BYTES = 65_536
_LINGER_OFF = struct.pack("ii", 1, 0)  # close sends RST


@dataclass(eq=False)
class Proxy:
    """One listening port and the server behind it."""

    server_port: int
    server_host: str = "127.0.0.1"
    seed: int = 1
    mode: str = "pass"
    delay_s: float = 0.3
    chop_bytes: int = 7
    rate_bytes_s: int = 20_000
    cut_bytes: int = 900
    port: int = 0
    connection_count: int = 0
    _listening: asyncio.Server | None = None
    _standing: set[_Connection] = field(default_factory=set)

    async def open(self) -> None:
        """Listen; the first call chooses the port."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self._close_listening()
        self._reset_all()

    async def set(self, mode: str) -> None:
        """From now on."""
        assert mode in MODES, mode
        before, self.mode = self.mode, mode
        if mode == "refuse":
            await self._close_listening()
        elif self._listening is None:
            await self.open()
        if not (mode in _HARMLESS and before in _HARMLESS):
            self._reset_all()

    async def _close_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    def _reset_all(self) -> None:
        for connection in list(self._standing):
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        rng = random.Random(f"{self.seed}/{self.connection_count}")
        connection = _Connection(self, reader, writer, rng)
        self._standing.add(connection)
        try:
            await connection.run()
        finally:
            self._standing.discard(connection)


@dataclass(eq=False)
class _Connection:
    """One client and its server."""

    proxy: Proxy
    client_reader: asyncio.StreamReader
    client_writer: asyncio.StreamWriter
    rng: random.Random
    server_writer: asyncio.StreamWriter | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _client_bytes: int = 0

    async def run(self) -> None:
        try:
            if self.proxy.mode == "blackhole":
                await self._swallow()
            else:
                await self._join()
        except OSError:
            pass
        finally:
            self.reset()

    async def _join(self) -> None:
        proxy = self.proxy
        reader, self.server_writer = await asyncio.open_connection(
            proxy.server_host, proxy.server_port
        )
        self._tasks = [
            asyncio.create_task(self._up(self.server_writer)),
            asyncio.create_task(self._down(reader)),
        ]
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if proxy.mode == "half_close" and self._tasks[1] in done and self._tasks[0] not in done:
            await self._swallow()  # the server hung up; the client is not told
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _swallow(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while await self.client_reader.read(_READ_BYTES):
            pass

    async def _up(self, server: asyncio.StreamWriter) -> None:
        """From the client to the server."""
        proxy = self.proxy
        while data := await self.client_reader.read(_READ_BYTES):
            if proxy.mode == "cut":
                left = proxy.cut_bytes - self._client_bytes
                self._client_bytes += len(data)
                server.write(data[: max(0, left)])
                await server.drain()
                if left <= len(data):
                    return
                continue
            await self._hand_on(data, server)
            if proxy.mode == "half_close":
                server.write_eof()
                await asyncio.Event().wait()  # until the other direction ends

    async def _down(self, reader: asyncio.StreamReader) -> None:
        """From the server to the client."""
        while data := await reader.read(_READ_BYTES):
            if self.proxy.mode == "deaf":
                continue
            if self.proxy.mode == "garbage":
                data = self.rng.randbytes(len(data))
            await self._hand_on(data, self.client_writer)

    async def _hand_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        proxy = self.proxy
        if proxy.mode == "delay":
            await asyncio.sleep(proxy.delay_s)
        if proxy.mode == "throttle":
            await asyncio.sleep(len(data) / proxy.rate_bytes_s)
        if proxy.mode == "chop":
            while data:
                size = self.rng.randint(1, proxy.chop_bytes)
                writer.write(data[:size])
                await writer.drain()
                data = data[size:]
                await asyncio.sleep(0)
            return
        writer.write(data)
        await writer.drain()

    def reset(self) -> None:
        """RST both ways."""
        for task in self._tasks:
            task.cancel()
        for writer in (self.client_writer, self.server_writer):
            if writer is None:
                continue
            with contextlib.suppress(OSError, AttributeError):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
            writer.transport.abort()
