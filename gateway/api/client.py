"""The web's end of the link: connects, reconnects by itself, knows how old its data is.

    connecting ──hello──> connected ──error, EOF──> waiting 0.2 … 2 s ──> connecting

A socket that looks open may be dead, and a core that hangs keeps its socket open: what counts is
the age of the last values, never the state of the socket. Nothing received is thrown away on a
disconnect; screens show it greyed with its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from pathlib import Path

from gateway.api import link
from gateway.api.link import Frame, FrameDecoder, FrameKind
from gateway.api.wire import LinkState
from gateway.model.errors import (
    GatewayError,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    Unavailable,
)

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0  # a history query over a slow store; an operator waits no longer
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 2.0
READ_SIZE = 256 * 1024
PENDING_MAX = 24  # below the server's limit for one peer


class LinkError(GatewayError):
    """The core answered with an error. `code` as in the error frame."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class LinkClient:
    """One connection to the core, for as long as `run` runs."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.connected = False
        self.detail = "not connected yet"
        self.core_software = ""
        self.connect_count = 0
        self.newest: dict[str, bytes] = {}
        self.on_push: Callable[[str, bytes], None] = lambda _topic, _body: None
        self.on_state: Callable[[], None] = lambda: None
        self._monotonic = monotonic
        self._values_at: float | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._ids = itertools.count(1)

    @property
    def state(self) -> LinkState:
        age_ms = None
        if self._values_at is not None:
            age_ms = int((self._monotonic() - self._values_at) * 1000)
        return LinkState(connected=self.connected, age_ms=age_ms, detail=self.detail)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            before = self.connect_count
            try:
                await self._session()
            except (OSError, EOFError, TimeoutError, ProtocolError) as fault:
                self._lost(f"{type(fault).__name__}: {fault}")
            except asyncio.CancelledError:
                self._lost("closed")
                raise
            except Exception as fault:
                # Ours, not the core's. A screen that reconnects beats one that is blank for good.
                log.exception("the link failed")
                self._lost(f"internal: {type(fault).__name__}")
            if self.connect_count != before:
                backoff_s = BACKOFF_FIRST_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def request(self, method: str, body: bytes = b"{}") -> bytes:
        """The core's answer. Raises Unavailable (not connected, no answer in time, busy, store
        away), KeyError (unknown point), Refused (a command or query it will never take)."""
        if self._writer is None:
            raise Unavailable("no link to the core")
        if len(self._pending) >= PENDING_MAX:
            raise Unavailable(f"{PENDING_MAX} requests are waiting for the core already")
        request_id = next(self._ids) & 0xFFFFFFFF
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = answer
        try:
            self._writer.write(link.encode(Frame(FrameKind.REQUEST, request_id, method, body)))
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise Unavailable(f"no answer within {REQUEST_TIMEOUT_S:g} s") from None
        except LinkError as fault:
            raise _as_ours(fault) from None
        finally:
            self._pending.pop(request_id, None)

    async def _session(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            writer.write(link.encode(link.hello("console")))
            decoder = FrameDecoder()
            frames: list[Frame] = []
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                while not frames:
                    frames = decoder.feed(await _read(reader))
            self.core_software = link.check_hello(frames.pop(0))
            self._writer = writer
            self.connected, self.detail = True, ""
            self.connect_count += 1
            self.on_state()
            while True:
                for frame in frames:
                    self._take(frame)
                frames = decoder.feed(await _read(reader))
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.PUSH:
            self.newest[frame.name] = frame.body
            if frame.name == "values":
                self._values_at = self._monotonic()
            self.on_push(frame.name, frame.body)
            return
        waiting = self._pending.get(frame.id)
        if waiting is None or waiting.done():
            return  # its asker gave up
        if frame.kind is FrameKind.RESPONSE:
            waiting.set_result(frame.body)
        elif frame.kind is FrameKind.ERROR:
            said = link.parse_object(frame.body)
            waiting.set_exception(LinkError(str(said.get("code")), str(said.get("detail", ""))))
        else:
            raise RemoteProtocolError("kind", f"{frame.kind.name} from the core")

    def _lost(self, detail: str) -> None:
        if self.connected:
            log.warning("link to the core lost: %s", detail)
        self.connected, self.detail, self._writer = False, detail, None
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(LinkError("unavailable", "the link to the core was lost"))
        self.on_state()


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(READ_SIZE)
    if not data:
        raise EOFError("closed by the core")
    return data


def _as_ours(fault: LinkError) -> Exception:
    if fault.code in {"refused", "invalid", "too_large"}:
        return Refused(fault.detail)
    if fault.code == "unknown":
        return KeyError(fault.detail)
    return Unavailable(str(fault))
