"""The web process: one listening socket, one link, until told to stop or left alone.

Once it listens it says its address on standard output, one line, so that port 0 may be asked for:

    http://127.0.0.1:41234

Nothing else is ever written there; logs go to standard error. The core's absence is no reason to
end, the screens say it. The end of the process that started this one is: an orphan would hold the
port its successor wants.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from gateway.api.client import LinkClient
from gateway.console.app import build_app
from gateway.console.settings import ConsoleSettings
from gateway.console.sockets import BoundedHttp

log = logging.getLogger(__name__)

GRACE_S = 2  # uvicorn waits for open sockets without end otherwise
PING_S = 20.0
PARENT_CHECK_S = 1.0


@dataclass(frozen=True)
class Address:
    """Where to listen, and for how long."""

    host: str = "127.0.0.1"
    port: int = 0
    stay: bool = False  # go on when the process that started this one is gone
    parent: int = 0  # that process, which may be gone before this one reads a line; 0: unknown


def serve(link_path: Path, address: Address, settings: ConsoleSettings) -> None:
    """Serve until SIGTERM, SIGINT or the parent's end. Raises OSError when the port is taken."""
    address = replace(address, parent=address.parent or os.getppid())
    if _is_left_alone(address):
        return
    listening = listen(address.host, address.port)
    config = server_config(build_app(LinkClient(link_path), settings), deflate=settings.deflate)
    asyncio.run(_run(uvicorn.Server(config), listening, address))


def server_config(app: FastAPI, *, deflate: bool) -> uvicorn.Config:
    """How the application is served: quietly, with dead browsers noticed and a bounded goodbye."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=BoundedHttp,
        ws="websockets-sansio",
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        ws_max_size=4096,  # browsers say nothing
        ws_per_message_deflate=deflate,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """The address a browser on this box can open."""
    port = listening.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


async def _run(server: uvicorn.Server, listening: socket.socket, address: Address) -> None:
    watcher = asyncio.create_task(_watch(server, listening, address))
    try:
        await server.serve(sockets=[listening])
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def _watch(server: uvicorn.Server, listening: socket.socket, address: Address) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    url = url_of(address.host, listening)
    log.info("console at %s", url)
    sys.stdout.write(url + "\n")
    sys.stdout.flush()
    while not _is_left_alone(address):  # noqa: ASYNC110 - the system offers no event
        await asyncio.sleep(PARENT_CHECK_S)
    server.should_exit = True


def _is_left_alone(address: Address) -> bool:
    if address.stay or address.parent <= 1 or os.getppid() == address.parent:
        return False
    log.warning("the parent process is gone: ending")
    return True
