"""The console's connections: slow ones are closed, too many are refused, the others are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn

from gateway.api.client import LinkClient
from gateway.console import serve, sockets
from gateway.console.app import build_app

pytestmark = pytest.mark.system
WAIT_S = 20.0
HEAD = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    listening = serve.listen("127.0.0.1", 0)
    app = build_app(LinkClient(tmp_path / "none.sock"))
    server = uvicorn.Server(serve.server_config(app, deflate=False))
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(WAIT_S):
        while not server.started:
            await asyncio.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    await task


async def answer(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"Connection: close\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        said = await reader.read()
    writer.close()
    return said.split(b"\r\n", 1)[0]


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(WAIT_S):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    return True


BEGINNINGS = {
    "nothing at all": b"",
    "half a head": HEAD,
    "a body that does not come": (
        b"POST /api/alarms/a/acknowledge HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    ),
    "half of a second request": HEAD + b"\r\n" + HEAD,
}


@pytest.mark.parametrize("sent", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_a_request_that_does_not_come_to_its_end_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(sockets, "REQUEST_S", 0.1)
    before = sockets.BoundedHttp.late_count
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await ended(reader)
    assert sockets.BoundedHttp.late_count == before + 1
    writer.close()
    assert await answer(port) == b"HTTP/1.1 200 OK"


async def test_connections_beyond_the_limit_are_closed_and_those_inside_are_served(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CONNECTIONS_MAX", 3)
    inside = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    before = sockets.BoundedHttp.refused_count
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await ended(reader)
    writer.close()
    assert sockets.BoundedHttp.refused_count == before + 1
    inside[0][1].write(HEAD + b"Connection: close\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        assert (await inside[0][0].readline()).startswith(b"HTTP/1.1 200")
    for _, each in inside:
        each.close()
