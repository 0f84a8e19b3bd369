"""How many connections the console takes, and how long one may take to ask.

    connected ──── whole request within REQUEST_S ────> answered, then kept for KEEP_ALIVE_S
        `- else closed. More than CONNECTIONS_MAX at a time: closed at once, the others go on

uvicorn waits for a request without end: a few thousand sockets that send a byte a minute would take
every descriptor of the process. A WebSocket leaves this protocol when it is opened and has its own
limits (hub.py, and pings that a peer which reads nothing does not answer).

Not here: what may be asked (guard.py).
"""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 500  # a hundred screens with the few connections a browser keeps open
REQUEST_S = 10.0  # engineering: head and body of at most 16 KiB over a bad wireless link


class BoundedHttp(H11Protocol):
    """One HTTP connection of the console."""

    refused_count = 0  # of all
    late_count = 0
    _timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= CONNECTIONS_MAX:
            if BoundedHttp.refused_count % CONNECTIONS_MAX == 0:
                log.warning("%d connections are open: newcomers are closed", CONNECTIONS_MAX)
            BoundedHttp.refused_count += 1
            self._is_refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and self._is_waiting():
            self._start_timer()  # the next request on a connection that was kept
        super().data_received(data)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(REQUEST_S, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_waiting(self) -> bool:
        """Whether the request is not wholly here."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def _look(self) -> None:
        self._timer = None
        is_ours = self.transport.get_protocol() is self  # else it has become a WebSocket
        is_idle = self.cycle is not None and self.cycle.response_complete and not self._has_begun()
        if is_ours and self._is_waiting() and not is_idle:
            BoundedHttp.late_count += 1
            self.transport.abort()

    def _has_begun(self) -> bool:
        """Whether a part of a request is here; between two requests uvicorn's own timer runs."""
        return bool(self.conn.trailing_data[0])
