"""Who may come in, and how fast: connections in all, for each address, strangers. Pure.

    waiting in the kernel --pace--> enter -- "" in | reason: closed at once --.
         (accept queue)               `-- strangers full: the most crowded address gives one up

A stranger is a connection that has not logged in. Strangers have a limit of their own, so that
whoever merely connects can never take the places of those who report. When it is reached, the
address with the most strangers loses its oldest, unless the newcomer comes from that very address:
then the newcomer is refused, because those before it are about to finish. A connection that has
logged in is never closed for a newcomer.

Surprising: an IPv6 address counts by its first 64 bits, which is what one subscriber is given.
Not here: sockets (door.py), who may log in (roster.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from dataclasses import dataclass

from gateway.model.rate import TokenBucket

PACE_BURST_S = 0.1  # engineering: a crowd comes in evenly, so that nobody waits for a lump of it
IPV6_PREFIX_BITS = 64  # RFC 6177: a site is given no less


class RateLimit:
    """One connection's frames and bytes; says how long to pause, never drops."""

    __slots__ = ("_bytes", "_frames")

    def __init__(
        self, frames_per_s: float, bytes_per_s: float, *, burst_s: float, now_ns: int
    ) -> None:
        self._frames = TokenBucket(frames_per_s, frames_per_s * burst_s, now_ns)
        self._bytes = TokenBucket(bytes_per_s, bytes_per_s * burst_s, now_ns)

    def pause_s(self, frame_count: int, byte_count: int, now_ns: int) -> float:
        return max(self._frames.take(frame_count, now_ns), self._bytes.take(byte_count, now_ns))


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many at a time, and how many a second."""

    connections_max: int
    connections_per_address_max: int
    strangers_max: int
    accepts_per_s_max: float


class Admission:
    """The book of the door. A connection is any hashable thing."""

    def __init__(self, limits: AdmissionLimits, now_ns: int) -> None:
        self._limits = limits
        rate = limits.accepts_per_s_max
        self._pace = TokenBucket(rate, max(1.0, rate * PACE_BURST_S), now_ns)
        self._addresses: dict[Hashable, str] = {}  # of every connection that is in
        self._counts: dict[str, int] = {}  # by address
        self._strangers: dict[str, dict[Hashable, None]] = {}  # by address, oldest first
        self._stranger_count = 0

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def stranger_count(self) -> int:
        return self._stranger_count

    def wait_s(self, now_ns: int) -> float:
        """How long newcomers are to be left in the kernel's queue."""
        return self._pace.wait_s(now_ns)

    def refusal(self, address: str, now_ns: int) -> str:
        """Why a newcomer from there is turned away, "" when it may `enter`. Costs a token."""
        self._pace.take(1, now_ns)
        limits, count = self._limits, self._counts.get(address, 0)
        if len(self._addresses) >= limits.connections_max:
            return "connections"
        if count >= limits.connections_per_address_max:
            return "address"
        if self._stranger_count >= limits.strangers_max and self._is_most_crowded(address):
            return "strangers"
        return ""

    def enter(self, connection: Hashable, address: str) -> Hashable | None:
        """It is in, as a stranger; the stranger that must go for it, if one must."""
        gone = None
        if self._stranger_count >= self._limits.strangers_max:
            crowd = max(self._strangers.values(), key=len)
            gone = next(iter(crowd))
            self.leave(gone)
        self._addresses[connection] = address
        self._counts[address] = self._counts.get(address, 0) + 1
        self._strangers.setdefault(address, {})[connection] = None
        self._stranger_count += 1
        return gone

    def logged_in(self, connection: Hashable) -> None:
        """No stranger any more. One that is no longer in is passed by."""
        address = self._addresses.get(connection)
        if address is not None:
            self._forget_stranger(connection, address)

    def logged_out(self, connection: Hashable) -> None:
        """A stranger again."""
        address = self._addresses.get(connection)
        if address is not None and connection not in self._strangers.get(address, {}):
            self._strangers.setdefault(address, {})[connection] = None
            self._stranger_count += 1

    def leave(self, connection: Hashable) -> None:
        """It is gone; may be told twice."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._forget_stranger(connection, address)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _forget_stranger(self, connection: Hashable, address: str) -> None:
        crowd = self._strangers.get(address)
        if crowd is None or connection not in crowd:
            return
        del crowd[connection]
        self._stranger_count -= 1
        if not crowd:
            del self._strangers[address]

    def _is_most_crowded(self, address: str) -> bool:
        mine = len(self._strangers.get(address, ())) + 1  # with the newcomer
        return mine > max(map(len, self._strangers.values()), default=0)


def address_key(host: str) -> str:
    """What an address counts as: itself, or its IPv6 network; an IPv4 address mapped into IPv6 is
    the IPv4 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX_BITS), strict=False))
