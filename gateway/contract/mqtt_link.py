"""One connection to an MQTT broker, as the adapter, the sinks and the simulators need it: aiomqtt
keeps the connection, and three things are done on the paho client below it.

    PUBACK out    manual: nothing is acknowledged until `acknowledge(mid)`. A message that was not
                  is sent again by the broker when the same client id comes back to its session.
    PUBACK in     `publish` keeps a window of messages in flight and returns when the broker has
                  acknowledged all of them; aiomqtt's own publish waits for each and is some twenty
                  times slower in an alarm flood.
    reading       can be paused, which lets the broker's sending stall at the TCP window: MQTT 3.1.1
                  gives a subscriber no other way to say "enough".

A PUBLISH larger than `size_max` is not held whole, whatever the broker allows: the beginning is
kept, the rest is read and forgotten, and `packet_size` tells whoever takes the message what it was.
(It cannot be refused: MQTT 3.1.1 has no word for it, and a session sends again what was not
acknowledged. An MQTT 5 broker is told not to send such at all.)

A link is used once: after `lost` or `close` make another. Packet identifiers mean nothing on the
next connection, and a PUBACK sent for the wrong one would lose a message.

The surprising thing: paho numbers messages with 16 bits and refuses a number still in flight, so
the window stays far below 65,535. Not here: retry and back-off (the supervisor's), topics, JSON.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.contract.mqtt import MqttTarget, is_refusal
from gateway.model.errors import Refused, Unavailable

PACKET_SIZE_MAX = 268_435_455  # of a packet behind its fixed header (MQTT 5.0, 1.5.5 and 2.1.4)
SESSION_EXPIRY_S = 7 * 24 * 3600  # how long an MQTT 5 broker keeps our queue while we are away
_WINDOW = 1000  # PUBLISH in flight; above some hundred the throughput no longer grows
_BURST = 64  # packets read in one turn, so that a flood does not starve the other tasks
_QOS_1 = 1
_HEAD_SIZE = 2 + 65_535 + 2  # topic with its length, packet identifier: kept of an oversize PUBLISH
_RECEIVE_SIZE = 64 * 1024  # of one read: paho asks for all that is missing, and gets room for it
_SUBACK_FAILURE = 0x80

OnMessage = Callable[[MQTTMessage], None]


class Outgoing(NamedTuple):
    """One message to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(eq=False)
class _Flight:
    """One call of `publish`: how many of its messages the broker has not acknowledged."""

    acknowledged: Callable[[int], None] | None
    left: int = 0
    failure: int = 0  # the first reason code of 0x80 or above


@dataclass(eq=False)
class MqttLink:
    """One connection. `on_message` runs inside the read and must neither block nor raise."""

    target: MqttTarget
    client_id: str
    session: bool = False  # keep the broker's queue for us between connections
    receive_max: int = 1000  # MQTT 5: how many unacknowledged messages the broker may send
    size_max: int = PACKET_SIZE_MAX  # of a packet; what is larger arrives cut off
    will: Outgoing | None = None
    on_message: OnMessage | None = None
    ack_timeout_s: float = 10.0  # without a single PUBACK for this long the broker counts as away

    packet_size: int = field(default=0, init=False)  # as sent, of the message being taken
    session_present: bool = field(default=False, init=False)
    lost: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _client: aiomqtt.Client | None = field(default=None, init=False)
    _flights: dict[int, tuple[_Flight, int]] = field(default_factory=dict, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _window: int = field(default=_WINDOW, init=False)
    _read_count: int = field(default=0, init=False)
    _paused: bool = field(default=False, init=False)

    async def open(self) -> None:
        """Connect. Raises Unavailable, or Refused when the broker would say no again."""
        assert self._client is None, "a link is used once"
        try:
            self._client = client = self._build(await asyncio.to_thread(self.target.ssl_context))
        except (OSError, ValueError) as error:
            raise Refused(f"certificate files: {error}") from error
        paho = client._client  # noqa: SLF001  aiomqtt offers no other way to the paho client
        self._hook(paho, client)
        where = f"{self.target.host}:{self.target.port}"
        try:
            await client.__aenter__()
        except MqttConnectError as error:
            self._force_closed(paho)
            kind = Refused if is_refusal(_number(error.rc)) else Unavailable
            raise kind(f"broker {where} refused the connection: {error}") from error
        except aiomqtt.MqttError as error:
            self._force_closed(paho)
            raise Unavailable(f"broker {where}: {error}") from error
        except BaseException:
            self._force_closed(paho)
            raise
        client._disconnected.add_done_callback(self._on_lost)  # noqa: SLF001

    async def subscribe(self, filters: Sequence[str]) -> None:
        """At QoS 1. Raises Refused when the broker denies a filter, Unavailable on a lost link.

        A session that is resumed may bring its whole backlog before the answer: whoever pauses the
        reading must go on serving meanwhile, or waits for ever.
        """
        topics = [(topic, _QOS_1) for topic in filters]
        asking = asyncio.ensure_future(self._connected().subscribe(topics, timeout=math.inf))
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Unavailable("the broker connection is lost")
            granted = asking.result()
        except aiomqtt.MqttError as error:
            raise Unavailable(f"subscribe: {error}") from error
        finally:
            asking.cancel()
            lost.cancel()
        for topic, code in zip(filters, granted, strict=True):
            if _number(code) >= _SUBACK_FAILURE:
                raise Refused(f"the broker denies the subscription to {topic}: {code}")

    def acknowledge(self, mid: int) -> None:
        """Send the PUBACK of one received message. Nothing happens on a lost connection: the
        broker will send the message again."""
        if not self.lost.is_set():
            self._connected()._client.ack(mid, _QOS_1)  # noqa: SLF001

    async def publish(
        self, messages: Sequence[Outgoing], acknowledged: Callable[[int], None] | None = None
    ) -> None:
        """Publish all, in order; returns when the broker has acknowledged every one.

        `acknowledged(i)` is told of each PUBACK as it arrives. Raises Unavailable when the
        connection is lost or the broker falls silent, Refused when an MQTT 5 broker says it will
        not take a message: which of them arrived is then unknown, and all must be sent again.
        """
        flight = _Flight(acknowledged)
        try:
            await self._fly(flight, messages)
        except Unavailable:
            if not flight.failure:
                raise  # otherwise the broker hung up over a refusal, which is what there is to tell
        if flight.failure:
            kind = Refused if is_refusal(flight.failure) else Unavailable
            raise kind(f"the broker refused a message: reason code {flight.failure:#04x}")

    async def _fly(self, flight: _Flight, messages: Sequence[Outgoing]) -> None:
        paho = self._connected()._client  # noqa: SLF001
        for number, message in enumerate(messages):
            while len(self._flights) >= self._window:
                await self._progress()
            info = paho.publish(message.topic, message.payload, _QOS_1, message.retain)
            if self.lost.is_set() or info.rc != 0:
                raise Unavailable(f"the broker connection is lost (code {int(info.rc)})")
            flight.left += 1
            self._flights[info.mid] = (flight, number)
        while flight.left:
            await self._progress()

    def pause(self) -> None:
        """Stop reading until `resume`. The connection outlives about one keep-alive of it."""
        paho = self._connected()._client  # noqa: SLF001
        sock = paho.socket()
        if not self._paused and sock is not None and sock.fileno() >= 0:
            self._paused = True
            asyncio.get_running_loop().remove_reader(sock.fileno())

    def resume(self) -> None:
        paho = self._connected()._client  # noqa: SLF001
        sock = paho.socket()
        if self._paused and sock is not None and sock.fileno() >= 0:
            self._paused = False
            loop = asyncio.get_running_loop()
            loop.add_reader(sock.fileno(), self._read)
            loop.call_soon(self._read)  # TLS may hold decoded bytes that no longer wake the reader

    async def close(self) -> None:
        """Say goodbye (no last will) and disconnect; on a lost connection only tidy up."""
        client = self._client
        if client is None:
            return
        paho = client._client  # noqa: SLF001
        try:
            if not self.lost.is_set():
                await client.__aexit__(None, None, None)
        except aiomqtt.MqttError:
            pass  # the goodbye did not get through; the broker will notice by itself
        finally:
            self._force_closed(paho)
            gone = client._disconnected  # noqa: SLF001
            if gone.done() and not gone.cancelled():
                gone.exception()  # taken note of, so that asyncio does not report it as forgotten

    def abort(self) -> None:
        """Drop the connection without a goodbye, as a power cut does: the last will is told."""
        if self._client is not None:
            self._force_closed(self._client._client, graceful=False)  # noqa: SLF001
        self._on_lost(None)

    def _build(self, tls: Any) -> aiomqtt.Client:
        target, will = self.target, self.will
        if target.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = self.receive_max
            properties.MaximumPacketSize = min(self.size_max, PACKET_SIZE_MAX)
            if self.session:
                properties.SessionExpiryInterval = SESSION_EXPIRY_S
            version: dict[str, Any] = {
                "protocol": aiomqtt.ProtocolVersion.V5,
                "clean_start": not self.session,
                "properties": properties,
            }
        else:
            version = {
                "protocol": aiomqtt.ProtocolVersion.V311,
                "clean_session": not self.session,
            }
        return aiomqtt.Client(
            target.host,
            target.port,
            identifier=self.client_id,
            username=target.username or None,
            password=target.password.get_secret_value() or None,
            will=aiomqtt.Will(will.topic, will.payload, _QOS_1, will.retain) if will else None,
            timeout=target.connect_timeout_s,
            keepalive=target.keepalive_s,
            tls_context=tls,
            max_inflight_messages=0,  # the window here is the only one
            **version,
        )

    def _hook(self, paho: PahoClient, client: aiomqtt.Client) -> None:
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        paho.disable_logger()  # three log calls a message, and the counters say more
        paho.connect_timeout = self.target.connect_timeout_s
        paho.manual_ack_set(on=True)
        paho.on_message = self._on_message
        paho.on_publish = self._on_publish
        self._cut_oversize(paho)

        def on_connect(
            a: Any, b: Any, flags: Any, code: Any, properties: Properties | None = None
        ) -> None:
            self.session_present = flags.session_present
            self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
            client._on_connect(a, b, flags, code, properties)  # noqa: SLF001

        def on_socket_open(a: Any, b: Any, sock: Any) -> None:
            client._on_socket_open(a, b, sock)  # noqa: SLF001  starts the keep-alive task
            loop.call_soon_threadsafe(loop.add_reader, sock.fileno(), self._read)

        def on_want_write(_a: Any, _b: Any, sock: Any) -> None:
            # aiomqtt registers the file number in a later turn, when it may be somebody else's.
            def add() -> None:
                current: Any = paho.socket()
                if current is sock:
                    loop.add_writer(sock.fileno(), self._write)

            if threading.get_ident() == here:
                add()
            else:  # inside connect, which runs in a thread of its own
                loop.call_soon_threadsafe(add)

        paho.on_socket_register_write = on_want_write
        paho.on_connect = on_connect
        if self.target.protocol == "3.1.1":
            self._shorten_puback(paho)
        paho.on_socket_open = on_socket_open

    def _cut_oversize(self, paho: Any) -> None:
        """Bound what one packet may hold while it arrives. A paho without these names holds it
        whole, as large as MQTT allows (256 MiB)."""
        usual = getattr(paho, "_sock_recv", None)
        if usual is None or not hasattr(paho, "_in_packet"):
            return

        def receive(size: int) -> bytes:
            packet = paho._in_packet  # noqa: SLF001
            if packet["remaining_length"] > self.size_max and len(packet["packet"]) > _HEAD_SIZE:
                del packet["packet"][_HEAD_SIZE:]
            data: bytes = usual(min(size, _RECEIVE_SIZE))
            return data

        paho._sock_recv = receive  # noqa: SLF001

    def _shorten_puback(self, paho: Any) -> None:
        """Take the PUBACKs of MQTT 3.1.1, which are a packet identifier and nothing else, before
        paho builds MQTT 5 properties and a reason code for each: a third of the time of a flood.
        A paho without these names keeps its own way, which ends in `_on_publish` as well."""
        usual = getattr(paho, "_handle_pubackcomp", None)
        names = ("_in_packet", "_out_messages", "_inflight_messages")
        if usual is None or not all(hasattr(paho, name) for name in names):
            return

        def handle(kind: str) -> Any:
            packet = paho._in_packet["packet"]  # noqa: SLF001
            if kind != "PUBACK" or len(packet) != 2:
                return usual(kind)
            mid = int.from_bytes(packet, "big")
            if paho._out_messages.pop(mid, None) is not None:  # noqa: SLF001
                paho._inflight_messages -= 1  # noqa: SLF001
                self._acknowledged(mid, 0)
            return MQTTErrorCode.MQTT_ERR_SUCCESS

        paho._handle_pubackcomp = handle  # noqa: SLF001

    def _connected(self) -> aiomqtt.Client:
        assert self._client is not None, "open the link first"
        return self._client

    def _read(self) -> None:
        client = self._connected()
        paho = client._client  # noqa: SLF001
        try:
            for _ in range(_BURST):
                seen = self._read_count
                paho.loop_read()
                sock: Any = paho.socket()
                if sock is None or self._paused:
                    return
                more_decoded = hasattr(sock, "pending") and sock.pending() > 0
                if seen == self._read_count and not more_decoded:
                    return
            asyncio.get_running_loop().call_soon(self._read)
        except Exception as error:  # noqa: BLE001  paho raises whatever the socket raised
            if not client._disconnected.done():  # noqa: SLF001
                client._disconnected.set_exception(error)  # noqa: SLF001

    def _write(self) -> None:
        client = self._connected()
        try:
            client._client.loop_write()  # noqa: SLF001
        except Exception as error:  # noqa: BLE001  paho raises whatever the socket raised
            if not client._disconnected.done():  # noqa: SLF001
                client._disconnected.set_exception(error)  # noqa: SLF001

    def _on_message(self, _client: Any, _userdata: Any, message: MQTTMessage) -> None:
        self._read_count += 1
        received = getattr(_client, "_in_packet", None)
        self.packet_size = received["remaining_length"] if received else len(message.payload)
        if self.on_message is not None:
            self.on_message(message)

    def _on_publish(
        self, _client: Any, _userdata: Any, mid: int, code: Any, _properties: Any
    ) -> None:
        self._acknowledged(mid, code.value)

    def _acknowledged(self, mid: int, code: int) -> None:
        entry = self._flights.pop(mid, None)
        if entry is None:
            return
        flight, number = entry
        flight.left -= 1
        if code >= _SUBACK_FAILURE:
            flight.failure = flight.failure or code
        elif flight.acknowledged is not None:
            flight.acknowledged(number)
        if not flight.left or len(self._flights) <= self._window // 2:
            self._wake.set()

    async def _progress(self) -> None:
        """Wait until acknowledgements made room. Raises Unavailable when there are none."""
        before = len(self._flights)
        self._wake.clear()
        if self.lost.is_set():
            raise Unavailable("the broker connection is lost")
        try:
            async with asyncio.timeout(self.ack_timeout_s):
                await self._wake.wait()
        except TimeoutError:
            if len(self._flights) < before:
                return
            self.abort()
            raise Unavailable(
                f"the broker acknowledged nothing for {self.ack_timeout_s:g} s"
            ) from None
        if self.lost.is_set():
            raise Unavailable("the broker connection is lost")

    def _on_lost(self, _future: Any) -> None:
        self.lost.set()
        self._wake.set()

    @staticmethod
    def _force_closed(paho: PahoClient, *, graceful: bool = True) -> None:
        """Close the socket if it is still open: aiomqtt leaves it when a connection attempt fails
        half-way."""
        if paho.socket() is None:
            return
        if graceful:
            paho.disconnect()
            paho.loop_write()
        if paho.socket() is not None:
            paho._sock_close()  # noqa: SLF001  no public way to drop a socket without a goodbye


def _number(code: Any) -> int:
    """A reason code as a number, whether paho made an object of it or not."""
    return int(getattr(code, "value", code))
