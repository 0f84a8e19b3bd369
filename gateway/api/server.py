"""The core's end of the link: a Unix socket that web processes connect to.

    pump (1/s) ── values, status ──┐                       ┌─ peer: newest frame per topic ─> socket
    alarms changed ── alarms ──────┴─ serialise once ──────┤
                                                           └─ peer: …

A web process must never delay the core, so nothing here waits for one: a peer holds one frame per
topic (a newer one replaces it) and a bounded number of requests in work; a peer that takes no bytes
for `SLOW_PEER_S` is cut off and may connect again. Alarm frames leave at once on a change, then at
most every `ALARM_SPACING_S`, the newest always last. Every alarm frame is the whole standing list
and carries `gseq`, so a dropped one costs nothing.

Trust: who may open the socket file may command. It is created with mode 0600.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from gateway.api import link, wire
from gateway.api.completeness import CompletenessQuery, completeness
from gateway.api.link import Frame, FrameDecoder, FrameKind
from gateway.api.provider import CoreProvider
from gateway.model.errors import (
    ProtocolError,
    Refused,
    RemoteProtocolError,
    Unavailable,
)

log = logging.getLogger(__name__)

PUSH_INTERVAL_S = 1.0
ALARM_SPACING_S = 0.2  # a flood of 500 alarms is five lists a second, not 500
ALARM_REST = 4  # times what a list took: ten thousand rows may not take the loop from the judge
HELLO_TIMEOUT_S = 5.0
SLOW_PEER_S = 5.0
PEERS_MAX = 8  # a web process, its successor, and a few tools
REQUESTS_MAX = 32  # in work for one peer; more are answered "busy"
READ_SIZE = 64 * 1024
WRITE_HIGH_WATER = 256 * 1024


class LinkServer:
    """Serves one core to a few web processes. `async with LinkServer(path, core): …`"""

    def __init__(self, path: Path, core: CoreProvider, *, software: str = "") -> None:
        self.path = path
        self.core = core
        self.software = software
        self.slow_peer_count = 0
        self.refused_peer_count = 0
        self._peers: set[_Peer] = set()
        self._callers: set[_Peer] = set()  # those that have not said hello yet as well
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._alarms_changed = asyncio.Event()
        self._points: tuple[int, bytes] = (-1, b"")
        self._encoder = wire.AlarmEncoder()
        core.on_alarms_changed(self._alarms_changed.set)

    @property
    def peer_count(self) -> int:
        return len(self._peers)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen. A socket file left behind by a killed process is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_socket():
            self.path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.path))
        self.path.chmod(0o600)
        self._server = await asyncio.start_unix_server(self._serve, sock=listening)
        self._tasks = [
            asyncio.create_task(self._pump(), name="link-pump"),
            asyncio.create_task(self._pump_alarms(), name="link-alarms"),
        ]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for peer in list(self._peers):
            peer.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    # ----------------------------------------------------------------- topics

    async def topic(self, name: str) -> bytes:
        """A topic's frame as it stands now."""
        if name == "status":
            return self.core.status().encoded()
        if name == "values":
            live = self.core.values()
            return wire.encode_values(
                live.time_ns,
                live.points_version,
                value=live.value,
                quality=live.quality,
                source_time_ns=live.source_time_ns,
            )
        return await self._alarms(wire.PUSHED_ALARMS_MAX, self._encoder)

    async def _alarms(self, limit: int, encoder: wire.AlarmEncoder) -> bytes:
        events = await self.core.events(None, wire.PUSHED_EVENTS_MAX)
        # The book is read after the events, so the list is never older than they are.
        standing = self.core.alarms()
        return encoder.encode(
            standing.epoch, standing.gseq, alarms=standing.alarms, events=events, limit=limit
        )

    async def _push(self, name: str) -> None:
        if not self._peers:
            return  # nobody to see it: no work
        try:
            body = await self.topic(name)
        except Exception:
            # The stream goes on with the other topics, and screens show the age of this one.
            log.exception("nothing to push for %s", name)
            return
        for peer in self._peers:
            peer.offer(name, body)

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._push("values")
            await self._push("status")
            due = max(due + PUSH_INTERVAL_S, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _pump_alarms(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._alarms_changed.wait()
            self._alarms_changed.clear()
            began_s = loop.time()
            await self._push("alarms")
            took_s = loop.time() - began_s
            await asyncio.sleep(max(ALARM_SPACING_S, ALARM_REST * took_s))

    # ----------------------------------------------------------------- peers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(self, reader, writer)
        if len(self._callers) >= PEERS_MAX:
            self.refused_peer_count += 1
            peer.abort()
            return
        self._callers.add(peer)
        try:
            await peer.greet()
            self._peers.add(peer)
            for name in link.TOPICS:
                await self._push(name)
            await peer.run()
        except (EOFError, ConnectionError) as fault:  # it ended, or is being ended
            log.info("web process left: %s: %s", type(fault).__name__, fault)
        except (ProtocolError, OSError, TimeoutError) as fault:
            log.warning("web process left: %s: %s", type(fault).__name__, fault)
        finally:
            self._peers.discard(peer)
            self._callers.discard(peer)
            peer.abort()

    async def answer(self, method: str, body: bytes) -> bytes:
        """Carry out one request. Raises what `_Peer` turns into an error frame."""
        if method == "points":
            return self._encoded_points()
        if method == "alarms":
            alarms_query = wire.AlarmsQuery.model_validate_json(body)
            return await self._alarms(alarms_query.limit, wire.AlarmEncoder())
        if method == "events":
            events_query = wire.EventsQuery.model_validate_json(body)
            events = await self.core.events(events_query.after_gseq, events_query.limit)
            return wire.EventsPage(events=[wire.event_row(event) for event in events]).encoded()
        if method == "history":
            query = wire.HistoryQuery.model_validate_json(body)
            if query.point_id not in self.core.points():
                raise KeyError(query.point_id)
            buckets = await self.core.history(
                query.point_id,
                query.from_ms * wire.NS_PER_MS,
                query.to_ms * wire.NS_PER_MS,
                count=query.count,
            )
            return buckets.encoded()
        if method == "completeness":
            asked = CompletenessQuery.model_validate_json(body).request()
            return completeness(await self.core.completeness(asked)).encoded()
        if method == "command":
            return (await self.core.command(wire.Command.model_validate_json(body))).encoded()
        raise Refused(f"no method {method!r}")

    def _encoded_points(self) -> bytes:
        table = self.core.points()
        if self._points[0] != table.version:
            frame = wire.points_frame(table.version, table, table.devices)
            self._points = (table.version, frame.encoded())
        return self._points[1]


class _Peer:
    """One connected web process: what is to be sent to it, and what it asked."""

    def __init__(
        self, server: LinkServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(link.REQUEST_SIZE_MAX)
        self._early: list[Frame] = []  # frames that came in one read with the hello
        self._newest: dict[str, bytes] = {}
        self._answers: list[Frame] = []  # at most REQUESTS_MAX
        self._requests: set[asyncio.Task[None]] = set()
        self._something_to_send = asyncio.Event()
        writer.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def offer(self, topic: str, body: bytes) -> None:
        """Replace the topic's unsent frame, if any. Never waits."""
        self._newest[topic] = body
        self._something_to_send.set()

    def abort(self) -> None:
        for task in self._requests:
            task.cancel()
        self._writer.transport.abort()

    async def greet(self) -> None:
        self._writer.write(link.encode(link.hello(self._server.software)))
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            while not self._early:
                self._early = self._decoder.feed(await self._read())
        link.check_hello(self._early.pop(0))

    async def run(self) -> None:
        """Until the peer leaves or is too slow. Raises what ended it."""
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            # Both may have ended at once; each one's reason is looked at, the first is told.
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _read(self) -> bytes:
        data = await self._reader.read(READ_SIZE)
        if not data:
            raise EOFError("closed by the peer")
        return data

    async def _send(self) -> None:
        while True:
            await self._something_to_send.wait()
            self._something_to_send.clear()
            answers, self._answers = self._answers, []
            for frame in answers:
                await self._write(link.encode(frame))
            while self._newest:
                topic = next(iter(self._newest))
                body = self._newest.pop(topic)
                await self._write(link.encode(Frame(FrameKind.PUSH, 0, topic, body)))

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            async with asyncio.timeout(SLOW_PEER_S):
                await self._writer.drain()
        except TimeoutError:
            self._server.slow_peer_count += 1
            raise TimeoutError(f"took no bytes for {SLOW_PEER_S} s") from None

    async def _receive(self) -> None:
        frames = self._early
        while True:
            for frame in frames:
                self._start(frame)
            frames = self._decoder.feed(await self._read())

    def _start(self, frame: Frame) -> None:
        if frame.kind is not FrameKind.REQUEST:
            raise RemoteProtocolError("kind", f"{frame.kind.name} from a web process")
        if len(self._requests) + len(self._answers) >= REQUESTS_MAX:
            # Not queued: a peer that floods has to be able to read its refusals.
            if len(self._answers) < 2 * REQUESTS_MAX:
                self._reply(link.error(frame.id, "busy", f"{REQUESTS_MAX} requests in work"))
            return
        task = asyncio.create_task(self._answer(frame), name=f"link-{frame.name}")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _reply(self, frame: Frame) -> None:
        self._answers.append(frame)
        self._something_to_send.set()

    async def _answer(self, frame: Frame) -> None:
        try:
            body = await self._server.answer(frame.name, frame.body)
        except Exception as fault:  # a fault in one request must not cut the live stream
            code, detail = _said(fault)
            if code == "failed":
                log.exception("request %s failed", frame.name)
            self._reply(link.error(frame.id, code, detail))
            return
        if len(body) > link.FRAME_SIZE_MAX - 1024:
            self._reply(link.error(frame.id, "too_large", f"{len(body)} bytes"))
            return
        self._reply(Frame(FrameKind.RESPONSE, frame.id, frame.name, body))


def _said(fault: Exception) -> tuple[str, str]:
    """Code and detail of an error frame."""
    codes: tuple[tuple[type[Exception], str], ...] = (
        (ValidationError, "invalid"),
        (KeyError, "unknown"),
        (Refused, "refused"),
        (Unavailable, "unavailable"),
    )
    for kind, code in codes:
        if isinstance(fault, kind):
            return code, str(fault)
    return "failed", type(fault).__name__
