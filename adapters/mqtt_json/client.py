"""The MQTT side of the adapter: subscribe, gather, hand over, and only then acknowledge.

    broker --PUBLISH--> inbox --≤ 10 ms--> one batch --emit, durable--> PUBACK for each, in order
                                   `-- unreadable --> quarantine, synced --'

The session is persistent and the client id stable: what was not acknowledged when the link, this
process or the machine went down is sent again by the broker. When `emit` raises (disk, budget) the
error ends the run with nothing acknowledged, and the same messages come again after the
supervisor's back-off.

When the inbox is full (messages or bytes) the socket is no longer read until a batch is done; when
messages come faster than `messages_per_s_max` the next batch waits, and then the inbox fills. A
message too large to be held arrives cut off, goes to quarantine and is acknowledged.

The surprising thing: a duplicate is normal. A crash between emit and PUBACK stores a message twice,
byte for byte the same; the stores drop it. Not here: what messages mean (codec.py, mapping.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from typing import NamedTuple

from paho.mqtt.client import MQTTMessage

from adapters.mqtt_json import codec
from adapters.mqtt_json.config import MqttJsonConfig
from adapters.mqtt_json.mapping import Message, Row, Translation, Translator
from adapters.mqtt_json.profiles import mappings_of, wrapper_of
from adapters.mqtt_json.quarantine import Poison, Quarantine
from gateway.contract.adapter import AdapterContext, Declare, Emit
from gateway.contract.mqtt_link import MqttLink
from gateway.model.batch import Batch
from gateway.model.errors import RemoteProtocolError, Unavailable
from gateway.model.point import Device, Point
from gateway.model.rate import TokenBucket

_QUIET_S = 0.001  # no message for this long: the sender has finished its burst
_BATCH_MESSAGES_MAX = 250  # small beside what is in flight, so that the broker sends meanwhile
_AROUND_PAYLOAD_BYTES = 2 + 65_535 + 2 + 4096  # topic, packet identifier, MQTT 5 properties
_PAUSE_MAX_S = 1.0
_NS = 1_000_000_000
_CLIENT_ID_SIZE_MAX = 23  # MQTT 3.1.1, 3.1.3.1: what every broker accepts


class _Arrived(NamedTuple):
    mid: int  # 0 for QoS 0, which is never acknowledged
    topic: str
    payload: bytes
    retained: bool
    received_time_ns: int
    cut_size_bytes: int = 0  # of the whole packet, when it was too large to be held


class MqttJsonAdapter:
    """One subscription to one broker."""

    def __init__(self, config: MqttJsonConfig, context: AdapterContext) -> None:
        self._config = config
        self._context = context
        self._wrapper = wrapper_of(config)
        self._quarantine = Quarantine(context.state_dir, config.quarantine_size_max_bytes)
        self._translator = Translator(
            mappings_of(config), adapter=context.name, points_max=config.points_max
        )
        self._index: dict[str, int] = {}
        self._new_points: list[Point] = []  # named, not yet declared
        self._new_devices: list[Device] = []
        self._inbox: deque[_Arrived] = deque()
        self._inbox_size_bytes = 0
        self._arrived = asyncio.Event()
        self._link: MqttLink | None = None
        self._pace: TokenBucket | None = None  # made when there is a clock

    async def run(self, emit: Emit, declare: Declare) -> None:
        """Serve until cancelled. Raises Unavailable when the connection is lost."""
        self._inbox.clear()  # of an earlier connection: the broker sends them again
        self._inbox_size_bytes = 0
        self._link = link = MqttLink(
            self._config,
            client_id=self._config.client_id or client_id(self._context.name),
            session=True,
            receive_max=self._config.receive_max,
            size_max=self._config.payload_size_max_bytes + _AROUND_PAYLOAD_BYTES,
            on_message=self._on_message,
        )
        self._context.status("connecting")
        await link.open()
        subscribing = asyncio.create_task(self._subscribe(link))
        try:
            while True:
                arrived = await self._gather(link, subscribing)
                await self._serve(arrived, link, emit, declare)
                await self._keep_pace(len(arrived))
        finally:
            subscribing.cancel()
            await asyncio.gather(subscribing, return_exceptions=True)
            await link.close()

    async def _subscribe(self, link: MqttLink) -> None:
        """Beside the serving, not before it: the backlog of a resumed session comes first, and may
        fill the inbox before the broker's answer can be read."""
        await link.subscribe(self._translator.subscriptions)
        known = "resumed" if link.session_present else "new"
        self._context.status("connected", f"session {known}")

    def _on_message(self, message: MQTTMessage) -> None:
        """Runs inside the read: takes the message in and returns."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "\ufffd"  # matches no mapping: counted and kept as any other stranger
        link = self._link
        is_cut = link is not None and link.packet_size > link.size_max
        self._inbox.append(
            _Arrived(
                message.mid if message.qos else 0,
                topic,
                bytes(message.payload),
                message.retain,
                self._context.now_ns(),
                link.packet_size if link is not None and is_cut else 0,
            )
        )
        self._inbox_size_bytes += len(message.payload)
        self._arrived.set()
        if self._is_full() and self._link is not None:
            self._link.pause()

    async def _keep_pace(self, count: int) -> None:
        """Let the next batch wait if messages come too fast: a second at most, so that the
        keep-alive is answered."""
        now_ns = int(asyncio.get_running_loop().time() * _NS)
        if self._pace is None:
            rate = self._config.messages_per_s_max
            self._pace = TokenBucket(rate, rate, now_ns)
        pause_s = self._pace.take(count, now_ns)
        if pause_s > 0:
            self._context.counters.count("throttled")
            await asyncio.sleep(min(pause_s, _PAUSE_MAX_S))

    def _is_full(self) -> bool:
        config = self._config
        return (
            len(self._inbox) >= config.receive_max
            or self._inbox_size_bytes >= config.pending_size_max_bytes
        )

    async def _gather(self, link: MqttLink, subscribing: asyncio.Task[None]) -> list[_Arrived]:
        """At least one message; more if they come within the gathering time. Raises Unavailable
        when the connection is lost: what is left in the inbox the broker sends again."""
        while not self._inbox and not link.lost.is_set():
            self._arrived.clear()
            waits = {asyncio.ensure_future(e.wait()) for e in (self._arrived, link.lost)}
            try:
                asked = set() if subscribing.done() else {subscribing}
                await asyncio.wait(waits | asked, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if subscribing.done():
                subscribing.result()
        waited_s, seen = 0.0, 0
        while waited_s < self._config.gather_ms / 1000 and len(self._inbox) != seen:
            if len(self._inbox) >= _BATCH_MESSAGES_MAX or self._is_full() or link.lost.is_set():
                break
            seen = len(self._inbox)
            await asyncio.sleep(_QUIET_S)
            waited_s += _QUIET_S
        if link.lost.is_set():
            raise Unavailable("the broker connection is lost")
        if subscribing.done():
            subscribing.result()
        size = min(len(self._inbox), _BATCH_MESSAGES_MAX)
        return [self._inbox.popleft() for _ in range(size)]

    async def _serve(
        self, arrived: list[_Arrived], link: MqttLink, emit: Emit, declare: Declare
    ) -> None:
        """Make one gathering durable, then acknowledge it."""
        counters = self._context.counters
        counters.count("received", len(arrived))
        rows: list[tuple[Row, int]] = []
        poison: list[Poison] = []
        for message in arrived:
            said = self._read(message, poison)
            rows.extend((row, message.received_time_ns) for row in said.rows)
            self._new_points += said.points
            self._new_devices += said.devices
        await self._declare(declare)
        if rows:
            await emit(self._batch(rows))
        if poison:
            await asyncio.to_thread(self._quarantine.keep, poison)
        for message in arrived:
            if message.mid:
                link.acknowledge(message.mid)
            self._inbox_size_bytes -= len(message.payload)
        link.resume()

    async def _declare(self, declare: Declare) -> None:
        """Make new names known. What a failed call left stays for the next run: the translator
        names a point once only."""
        if self._new_devices:
            await declare.devices(self._new_devices)
            self._new_devices = []
        if self._new_points:
            indices = await declare.points(self._new_points)
            names = (point.id for point in self._new_points)
            self._index.update(zip(names, indices, strict=True))
            self._new_points = []

    def _read(self, arrived: _Arrived, poison: list[Poison]) -> Translation:
        """What one message says; adds it to `poison` if it is not, or not wholly, understood."""
        counters = self._context.counters
        size_max = self._config.payload_size_max_bytes
        try:
            _check_whole(arrived)
            body = codec.decode(arrived.payload, wrapper=self._wrapper, size_max=size_max)
        except RemoteProtocolError as error:
            said = Translation(refused=[(error.code, error.detail)])
        else:
            message = Message(arrived.topic, body, arrived.received_time_ns, arrived.retained)
            said = self._translator.translate(message)
            if said.is_blank:
                said.refused.append(("no_match", f"nothing in it met a mapping: {arrived.topic}"))
        if said.refused:
            reason, detail = said.refused[0]
            poison.append(
                Poison(arrived.received_time_ns, arrived.topic, arrived.payload, reason, detail)
            )
            counters.count("rejected", reason=reason)
        else:
            counters.count("accepted")
        if said.skipped:
            counters.count("skipped", said.skipped, reason="not_in_table")
        for row in said.rows:
            if not row.quality.is_good:
                counters.count("doubtful", reason=row.quality.reason or row.quality.grade)
        return said

    def _batch(self, rows: list[tuple[Row, int]]) -> Batch:
        return Batch.of(
            [self._index[row.point_id] for row, _ in rows],
            [row.value for row, _ in rows],
            [row.source_time_ns for row, _ in rows],
            received_time_ns=[received_ns for _, received_ns in rows],
            quality=[int(row.quality) for row, _ in rows],
        )


def _check_whole(arrived: _Arrived) -> None:
    """Raises RemoteProtocolError for a message of which only the beginning was held."""
    if arrived.cut_size_bytes:
        detail = f"a packet of {arrived.cut_size_bytes} bytes, cut off"
        raise RemoteProtocolError("too_large", detail)


def client_id(name: str) -> str:
    """A stable id from the instance's name, of a length and alphabet every broker accepts."""
    plain = "".join(symbol for symbol in name if symbol.isascii() and symbol.isalnum())
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"hg{plain[: _CLIENT_ID_SIZE_MAX - 10]}{digest}"
