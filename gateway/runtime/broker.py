"""The MQTT broker of the demo: amqtt inside our own process, on the loopback interface.

    async with EmbeddedBroker() as broker:
        ...  # broker.port

So that `hazard-gateway demo` shows devices, gateway and alarm subscribers over real MQTT with
nothing installed. It is **not** for a site:

- MQTT 3.1.1 only (the settings here say `protocol = "3.1.1"`), no TLS, everybody is let in; it
  therefore refuses to listen anywhere but on the loopback interface;
- about a thousand messages a second, in Python, on the event loop of whoever runs it;
- sessions, queues and retained messages live in memory and die with it; a queue has no limit;
- a publisher's PUBACK comes before subscribers have the message, and a message that was on its way
  to a subscriber when that one died may be lost: the gateway's promise begins at the gateway's own
  acknowledgement, so the demo's counts still add up, but a device behind this broker has less;
- topics that begin with `$` (the geohazard profile's `$dp`) are refused, and end the connection.

The surprising thing: amqtt's own anonymous plug-in marks sessions so that nothing is queued for an
absent client. `OpenDoor` lets everybody in without that mark.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from types import TracebackType
from typing import Any, Self

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

_QUIET = ("amqtt", "transitions")  # these log every message and state change as information


class OpenDoor(BaseAuthPlugin):  # type: ignore[misc]
    """Lets everybody in; amqtt loads it by its dotted name."""

    async def authenticate(self, *, session: Session) -> bool | None:  # noqa: ARG002
        return True


class EmbeddedBroker:
    """One broker; `start` and `stop`, or `async with`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host}: the embedded broker lets everybody in: loopback only")
        self._host = host
        self._port = port
        self._broker: Any = None

    @property
    def port(self) -> int:
        """Where it listens; the number chosen by the system when 0 was asked for."""
        assert self._broker is not None, "the broker is not running"
        server = self._broker._servers["default"].instance  # noqa: SLF001  not told otherwise
        return int(server.sockets[0].getsockname()[1])

    async def start(self) -> int:
        """Listen; returns the port. Raises OSError when the port is taken."""
        assert self._broker is None, "already running"
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        host = f"[{self._host}]" if ":" in self._host else self._host
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{host}:{self._port}"}},
                "plugins": {f"{__name__}.{OpenDoor.__name__}": {}},
            }
        )
        try:
            await broker.start()
        except Exception as error:
            raise OSError(f"the embedded broker cannot listen on {host}:{self._port}") from error
        self._broker = broker
        return self.port

    async def stop(self) -> None:
        """End every session and listener. Clients that are still connected are dropped."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.shutdown()
            await asyncio.sleep(0)  # let the dropped connections' callbacks run

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.stop()
