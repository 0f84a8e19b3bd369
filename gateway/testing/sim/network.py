"""TCP between domains: asyncio's own streams and servers over transports that are lists of bytes.

    create_server / create_connection ──▶ two ends ──write──▶ in flight ──▶ data_received

What TCP promises holds: bytes arrive in order, once, or the connection ends. What it does not
promise is drawn by the seed: how long they take, how they are cut into pieces, and whether an end
hears that the other is gone. Faults are of a `Link`: `cut` (both ends hear a reset), `go_silent`
(half-open: nothing arrives any more, and nobody is told), of a `Network`: `partition` (no new
connection either; a SYN gets no answer).

A domain that is killed has its sockets closed by its kernel: the far ends hear a reset. After a
power cut there is no kernel: they hear nothing, until they write to the machine when it is back.

Limits: what an end has not read counts as its peer's write buffer beyond `WINDOW_BYTES`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gateway.testing.sim.loop import DOMAIN, Domain, VirtualLoop

DELAY_MAX_S = 0.02  # a site's own network, or a mobile one on a good day (engineering)
CONNECT_TIMEOUT_S = 20.0  # asyncio leaves it to the kernel, which gives up after some minutes
WINDOW_BYTES = 65_536
PIECES_MAX = 3  # a message may arrive in as many pieces


class End(asyncio.Transport):
    """One side of a connection."""

    def __init__(self, link: Link, context: Context) -> None:
        super().__init__()
        self._link = link
        self._context = context
        self.domain: Domain | None = context.get(DOMAIN)
        self._protocol: Any = None
        self.peer: End
        self._closing = False
        self._lost = False
        self._reading = True
        self._waiting: list[bytes | None] = []  # arrived, not read; None: the end of the stream
        self._arrives_s = 0.0  # of what was sent last: what follows arrives no earlier

    # --- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in {"peername", "sockname"}:
            return ("10.0.0.1", 40_000)
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._give()

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self._link.carry(self, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._link.carry(self, None)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return max(0, self.peer.unread - WINDOW_BYTES)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nobody is told to pause here; who wants to know asks for the size."""

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._link.carry(self, None)
            self._soon(self._tell_lost, None)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._link.carry_reset(self)
            self._soon(self._tell_lost, None)

    # --- what the link does

    def begin(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def arrive(self, piece: bytes | None) -> None:
        """In this end's own context."""
        if not self._closing:
            self._waiting.append(piece)
            self._give()

    def reset(self) -> None:
        self._closing = True
        self._tell_lost(ConnectionResetError("reset by peer"))

    def when(self, delay_s: float) -> float:
        """When something sent now arrives: not before what was sent earlier."""
        earliest_s = math.nextafter(self._arrives_s, math.inf)  # timers of one time have no order
        self._arrives_s = max(earliest_s, self._link.loop.time() + delay_s)
        return self._arrives_s

    @property
    def context(self) -> Context:
        return self._context

    @property
    def unread(self) -> int:
        return sum(len(piece) for piece in self._waiting if piece)

    def _give(self) -> None:
        while self._reading and self._waiting and not self._closing:
            piece = self._waiting.pop(0)
            if piece is not None:
                self._protocol.data_received(piece)
            elif not self._protocol.eof_received():
                self.close()

    def _soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._link.loop.call_soon(call, *arguments, context=self._context)

    def _tell_lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._waiting.clear()
            self._protocol.connection_lost(error)


class Link:
    """One connection."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self._rng = rng
        self._silent = False
        self._ended = False
        self.ends: tuple[End, End]

    @property
    def is_open(self) -> bool:
        return not self._ended

    def carry(self, sender: End, data: bytes | None) -> None:
        if self._silent or self._ended:
            return
        receiver = sender.peer
        for piece in self._pieces(data):
            at_s = sender.when(self._rng.uniform(0.0002, DELAY_MAX_S))
            self.loop.call_at(at_s, self._arrive, receiver, piece, context=receiver.context)

    def _arrive(self, receiver: End, piece: bytes | None) -> None:
        if not self._silent and not self._ended:
            receiver.arrive(piece)

    def carry_reset(self, sender: End) -> None:
        if self._silent or self._ended:
            return
        receiver = sender.peer
        at_s = sender.when(self._rng.uniform(0.0002, DELAY_MAX_S))
        self.loop.call_at(at_s, self._reset_one, receiver, context=receiver.context)

    def _reset_one(self, receiver: End) -> None:
        if not self._silent:
            self._ended = True
            receiver.reset()

    def cut(self) -> None:
        """Both ends hear of it; what was on its way is lost."""
        if self._ended:
            return
        self._ended = True
        for end in self.ends:
            self.loop.call_soon(end.reset, context=end.context)

    def go_silent(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self._silent = True

    def machine_is_back(self) -> None:
        """A machine that lost its memory answers what still comes for the connection by a reset."""
        if self._silent:
            self._silent = False
            self.cut()

    def _pieces(self, data: bytes | None) -> Sequence[bytes | None]:
        if data is None or len(data) < 2 or self._rng.random() < 0.7:
            return (data,)
        cuts = sorted(self._rng.randrange(1, len(data)) for _ in range(PIECES_MAX - 1))
        edges = [0, *cuts, len(data)]
        return [data[a:b] for a, b in pairwise(edges) if a < b]


@dataclass
class _Listener:
    factory: Callable[[], Any]
    context: Context
    server: Server


@dataclass
class Network:
    """All of it."""

    loop: VirtualLoop
    rng: random.Random
    is_partitioned: bool = False
    links: list[Link] = field(default_factory=list)
    _listeners: dict[int, _Listener] = field(default_factory=dict)
    _ports: int = 50_000

    def install(self) -> None:
        """The loop's sockets are of this network from now on."""
        self.loop.create_server = self.listen  # type: ignore[method-assign, assignment]
        self.loop.create_connection = self.connect  # type: ignore[method-assign, assignment]

    async def listen(
        self, factory: Callable[[], Any], _host: Any = None, port: int = 0, **_options: Any
    ) -> Server:
        if port == 0:
            self._ports += 1
            port = self._ports
        if port in self._listeners:
            raise OSError(98, f"port {port} is in use")
        context = copy_context()
        server = Server(self, port)
        self._listeners[port] = _Listener(factory, context, server)
        domain = context.get(DOMAIN)
        if domain is not None:
            domain.on_kill.append(lambda: self.forget(port, server))
        return server

    def forget(self, port: int, server: Server) -> None:
        listener = self._listeners.get(port)
        if listener is not None and listener.server is server:
            del self._listeners[port]

    async def connect(
        self, factory: Callable[[], Any], _host: Any = None, port: int = 0, **_options: Any
    ) -> tuple[End, Any]:
        if self.is_partitioned:
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise TimeoutError(110, "connection timed out")
        await asyncio.sleep(self.rng.uniform(0.0004, 2 * DELAY_MAX_S))
        listener = self._listeners.get(port)
        if listener is None:
            raise ConnectionRefusedError(111, f"nobody listens at {port}")
        link = Link(self.loop, self.rng)
        here, there = End(link, copy_context()), End(link, listener.context)
        here.peer, there.peer = there, here
        link.ends = (here, there)
        self.links = [each for each in self.links if each.is_open]
        self.links.append(link)
        self.loop.call_soon(lambda: there.begin(listener.factory()), context=listener.context)
        protocol = factory()
        here.begin(protocol)
        return here, protocol

    def links_of(self, domain: Domain) -> list[Link]:
        return [
            link
            for link in self.links
            if link.is_open and any(end.domain is domain for end in link.ends)
        ]


class Server(asyncio.AbstractServer):
    """What `create_server` gives."""

    def __init__(self, network: Network, port: int) -> None:
        self._network = network
        self._port = port
        self._serving = True

    @property
    def sockets(self) -> tuple[Any, ...]:
        return (self,) if self._serving else ()

    def getsockname(self) -> tuple[str, int]:
        return ("0.0.0.0", self._port)  # noqa: S104  what the adapter is told it listens at

    def close(self) -> None:
        self._serving = False
        self._network.forget(self._port, self)

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None: ...

    async def wait_closed(self) -> None: ...

    async def serve_forever(self) -> None:
        await asyncio.get_running_loop().create_future()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    def close_clients(self) -> None: ...

    def abort_clients(self) -> None: ...
