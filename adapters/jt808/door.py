"""The listening sockets: accept at the pace that admission allows, outlive a lack of descriptors.

    readable -> a few accepts -> admission -- in: handed to `welcome` / reason: closed, counted
        ^---- waits out of the loop's sight while the pace or the descriptors say so ----'

What is not accepted yet waits in the kernel's queue, which holds what is accepted in `BACKLOG_S`;
beyond that TCP makes the terminal try again. The last `DESCRIPTORS_KEPT` descriptors of the process
are never given to a terminal: the spool, the journal and the console need them more. Running out of
descriptors altogether pauses the accepting for `PAUSE_S` instead of spinning on a socket that stays
readable.

Surprising: Linux gives the lowest free number to a new descriptor, so the number of an accepted
socket tells how many are in use; nothing is counted. Not here: what a connection says (client.py).
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Callable

from gateway.contract.adapter import Counters
from gateway.model.errors import Refused, Unavailable

from .admission import Admission, address_key

BACKLOG_S = 5.0  # engineering: less than a terminal waits for an answer before it gives up
BACKLOG_MIN, BACKLOG_MAX = 128, 4096  # net.core.somaxconn is 4096 since Linux 5.4
ACCEPTS_PER_TURN = 4  # some 0.2 ms each, measured; then the other tasks have a turn
DESCRIPTORS_KEPT = 128  # engineering: spool, journal, stores, console and tools use some sixty
PAUSE_S = 0.5  # out of descriptors
SOCKET_BUFFER_BYTES = 64 * 1024  # in the kernel, each way: a second of the fastest terminal
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Door:
    """Listens from `open` to `close`; tells `welcome` of each socket that may come in."""

    def __init__(
        self,
        admission: Admission,
        counters: Counters,
        *,
        welcome: Callable[[socket.socket, str], None],
        steady_ns: Callable[[], int],
    ) -> None:
        self._admission = admission
        self._counters = counters
        self._welcome = welcome
        self._steady_ns = steady_ns
        self._sockets: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None
        self._descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_KEPT

    async def open(self, host: str, port: int, *, backlog: int) -> int:
        """Listen; the port, which is a free one when 0 was asked for.

        Raises Unavailable (taken), Refused (not allowed).
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, address in dict.fromkeys(found):
                self._sockets.append(_listening(family, address, backlog))
        except PermissionError as error:
            self.close()
            raise Refused(f"{host}:{port}: {error}") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"{host}:{port}: {error}") from error
        self._watch()
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for listening in self._sockets:
            loop.add_reader(listening.fileno(), self._accept, listening)

    def _unwatch(self) -> None:
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())

    def _rest(self, wait_s: float) -> None:
        """Leave newcomers in the kernel's queue for so long."""
        if self._timer is None:
            self._unwatch()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._watch)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            wait_s = self._admission.wait_s(self._steady_ns())
            if wait_s > 0:
                self._counters.count("paced")
                self._rest(wait_s)
                return
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # accept(2) also passes on what befell the newcomer's network
                is_full = error.errno in _OUT_OF_DESCRIPTORS
                self._counters.count("paused", reason="descriptors" if is_full else "accept")
                self._rest(PAUSE_S)
                return
            self._admit(accepted, address_key(peer[0]))

    def _admit(self, accepted: socket.socket, address: str) -> None:
        reason = self._admission.refusal(address, self._steady_ns())
        if not reason and accepted.fileno() >= self._descriptors_max:
            reason = "descriptors"
        if reason:
            self._counters.count("rejected", reason=reason)
            accepted.close()
            return
        accepted.setblocking(False)  # noqa: FBT003  the standard library's own signature
        self._welcome(accepted, address)


def backlog_for(accepts_per_s: float) -> int:
    """How long the kernel's queue is to be."""
    return int(min(max(accepts_per_s * BACKLOG_S, BACKLOG_MIN), BACKLOG_MAX))


def _listening(family: int, address: object, backlog: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # accepted sockets inherit them
            listening.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        listening.setblocking(False)  # noqa: FBT003
        listening.bind(address)  # type: ignore[arg-type]
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening
