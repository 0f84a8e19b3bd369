"""The far side of the sinks: a database and a broker, each with the faults such things have.

    up          answers within some milliseconds
    down        refuses the connection
    slow        does what is asked, and answers after seconds: some answers come too late
    half_open   takes the connection and never answers
    refuses     answers, and says no: credentials, too many requests, 503 with Retry-After
    garbage     answers what no such server would say
    cuts        does some of what is asked, and ends the connection before the answer
    + `restart_empty` of the broker: sessions and retained rows are gone

The database stands below the real InfluxDB sink, in place of one HTTP request; the broker stands
below the real MQTT sink, in place of the link (gateway/contract/mqtt_link.py). Both keep what they
took, with what came twice: that is the evidence the laws are checked against.

A broker hands an event to its subscriber before it acknowledges it to the gateway. One that does
the two the other way round can lose an event nobody is to blame for: MQTT promises a hop at a time.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

import orjson
import urllib3

from gateway.contract.mqtt_link import Outgoing
from gateway.model.errors import Refused, Unavailable
from gateway.sinks.influxdb.server import Server
from gateway.testing.sim.loop import VirtualLoop

Mode = Literal["up", "down", "slow", "half_open", "refuses", "garbage", "cuts"]
MODES: tuple[Mode, ...] = ("down", "slow", "half_open", "refuses", "garbage", "cuts")
SLOW_S = (1.0, 15.0)  # around the 10 s after which the sinks give up
QUICK_S = (0.001, 0.02)

LINE = re.compile(
    r"^[^,]+(?:,dup=(?P<dup>\d+))?,point=(?P<point>(?:\\.|[^,\s])+),site=\S+ "
    r"(?:value=(?P<value>[^,]+),)?quality=(?P<quality>\d+)i\S* (?P<time>-?\d+)$"
)


@dataclass(frozen=True)
class StoredRow:
    """What the database holds at one point and time."""

    value: str
    quality: int


@dataclass
class Database:
    """An InfluxDB, as far as a writer can tell."""

    loop: VirtualLoop
    rng: random.Random
    log: Callable[[str], None]
    mode: Mode = "up"
    rows: dict[tuple[str, int, int], StoredRow] = field(default_factory=dict)
    arrived: dict[str, list[int]] = field(default_factory=dict)  # point -> times, as they came
    overwritten: list[str] = field(default_factory=list)  # with another value
    request_count: int = 0

    def answer(self, body: bytes, timeout_s: float) -> SimpleNamespace:
        """One POST of lines, on the gateway's writer thread."""
        self.request_count += 1
        mode = self.mode
        self.loop.hold(self.rng.uniform(*QUICK_S))
        if mode == "down":
            raise ConnectionRefusedError(111, "connection refused")
        if mode == "half_open":
            self.loop.hold(timeout_s)
            raise TimeoutError("read timed out")
        if mode == "refuses":
            return self._refusal()
        lines = body.decode().split("\n")
        if mode == "garbage":
            self._take(lines[: self.rng.randrange(len(lines) + 1)])
            return _response(200, b"<html>It works!</html>")
        if mode == "cuts":
            self._take(lines[: self.rng.randrange(len(lines) + 1)])
            raise ConnectionResetError(104, "connection reset by peer")
        self._take(lines)
        if mode == "slow":
            self._be_slow(timeout_s)
        return _response(204, b"")

    def _be_slow(self, timeout_s: float) -> None:
        takes_s = self.rng.uniform(*SLOW_S)
        self.loop.hold(min(takes_s, timeout_s))
        if takes_s > timeout_s:
            raise TimeoutError("read timed out")

    def _refusal(self) -> SimpleNamespace:
        status = self.rng.choice((401, 429, 503))
        headers = {"Retry-After": "3"} if status != 401 else {}
        return _response(status, b'{"error": "not now"}', headers)

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            found = LINE.match(line)
            assert found is not None, f"not a line of ours: {line!r}"
            point, time_ns = found["point"], int(found["time"])
            key = (point, time_ns, int(found["dup"] or 0))
            row = StoredRow(found["value"] or "", int(found["quality"]))
            if key not in self.rows:
                self.arrived.setdefault(point, []).append(time_ns)
            elif self.rows[key] != row:
                self.overwritten.append(f"{key}: {self.rows[key]} by {row}")
            self.rows[key] = row
        self.log(f"database took {len(lines)} lines")


def _response(
    status: int, data: bytes, headers: Mapping[str, str] | None = None
) -> SimpleNamespace:
    return SimpleNamespace(status=status, data=data, headers=headers or {})


def server_of(database: Database) -> type[Server]:
    """The sink's connection, with the network below it replaced."""

    class VirtualServer(Server):
        def _request(
            self, path: str, headers: Mapping[str, str], body: bytes
        ) -> urllib3.BaseHTTPResponse:
            assert path.startswith("/write"), f"only writes are played: {path}"
            del headers
            try:
                found = database.answer(body, self._config.request_timeout_s)
            except OSError as error:
                raise Unavailable(f"no answer: {error}") from None
            return cast("urllib3.BaseHTTPResponse", found)

    return VirtualServer


# ---------------------------------------------------------------------- the broker


@dataclass
class Heard:
    """One event as the broker's subscriber got it."""

    at_s: float
    payload: bytes


@dataclass
class Broker:
    """A broker with one subscriber that is always there."""

    loop: VirtualLoop
    rng: random.Random
    log: Callable[[str], None]
    mode: Mode = "up"
    heard: list[Heard] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    links: list[VirtualLink] = field(default_factory=list)
    beats: int = 0

    def restart_empty(self) -> None:
        """Nothing is remembered, and every connection ends."""
        self.retained.clear()
        self.drop_links()

    def drop_links(self) -> None:
        for link in self.links:
            link.lose()
        self.links.clear()

    def take(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            if message.retain:
                self.retained[message.topic] = message.payload
            elif message.topic.endswith("/alarm/event"):
                self._hand_on(message.payload)
            else:
                self.beats += 1

    def _hand_on(self, payload: bytes) -> None:
        copies = 2 if self.rng.random() < 0.02 else 1  # QoS 1: at least once
        for _ in range(copies):
            self.heard.append(Heard(self.loop.time(), payload))
        said = orjson.loads(payload)
        self.log(f"broker told {said['gseq']} {said['event']} {said['alarm_key']}")


class VirtualLink:
    """gateway.contract.mqtt_link.MqttLink over nothing. Use `link_of` to make the class."""

    broker: Broker

    def __init__(
        self, target: Any, *, client_id: str, will: Outgoing | None, ack_timeout_s: float
    ) -> None:
        del client_id
        self.lost = asyncio.Event()
        self._target = target
        self._will = will
        self._ack_timeout_s = ack_timeout_s
        self._said_goodbye = False

    async def open(self) -> None:
        broker = self.broker
        await asyncio.sleep(broker.rng.uniform(*QUICK_S))
        mode = broker.mode
        if mode == "refuses":
            if broker.rng.random() < 0.5:
                raise Refused("broker: not authorised")
            raise Unavailable("broker: server unavailable")
        if mode in {"down", "garbage"}:
            raise Unavailable("broker: connection refused, or what came was no CONNACK")
        if mode == "half_open" and broker.rng.random() < 0.5:
            await asyncio.sleep(self._target.connect_timeout_s)
            raise Unavailable("broker: no answer")
        broker.links.append(self)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        broker = self.broker
        await asyncio.sleep(broker.rng.uniform(*QUICK_S))
        if self.lost.is_set():
            raise Unavailable("the broker connection is lost")
        mode = broker.mode
        if mode == "half_open":
            await self._no_answer()
        if mode in {"cuts", "garbage", "down", "refuses"}:
            broker.take(messages[: broker.rng.randrange(len(messages) + 1)])
            self.lose()
            raise Unavailable("the broker connection is lost")
        broker.take(messages)
        takes_s = broker.rng.uniform(*(SLOW_S if mode == "slow" else QUICK_S))
        if takes_s > self._ack_timeout_s:
            await self._no_answer()
        await asyncio.sleep(takes_s)
        if self.lost.is_set():
            raise Unavailable("the broker connection is lost")

    async def _no_answer(self) -> None:
        await asyncio.sleep(self._ack_timeout_s)
        self.abort()
        raise Unavailable(f"the broker acknowledged nothing for {self._ack_timeout_s:g} s")

    def lose(self) -> None:
        """The connection ends without a goodbye: the last will is told."""
        if not self.lost.is_set():
            self.lost.set()
            if self._will is not None:
                self.broker.take([self._will])

    def abort(self) -> None:
        self.lose()

    async def close(self) -> None:
        if not self.lost.is_set():
            self.lost.set()
        if self in self.broker.links:
            self.broker.links.remove(self)


def link_of(broker: Broker) -> type[VirtualLink]:
    """The sink's connection, to this broker."""

    class Link(VirtualLink):
        pass

    Link.broker = broker
    return Link
