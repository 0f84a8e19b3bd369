"""Ten thousand terminals in one process, for storm.py: as thin as they can be. Sockets inside.

    enrol    register, log in, one position; then hang up: a fleet that is known
    storm    all at once: log in, one position; one that is refused or lost tries again
    steady   log in and report every second; every acknowledgement is timed
    slow     hostile: a third drip a byte at a time, a third say nothing, a third never read

A process prints one JSON line a milestone and ends when its standard input does. The time in a
position is the gateway's own, asked for with 0004: nothing here reads a clock but the monotonic.

Surprising: a retry is delayed by one to five seconds with jitter, as a terminal's firmware does;
a crowd that tried again at once would measure itself. Not here: who starts whom (storm.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapters.jt808.codec import (
    STATUS_FIX,
    Authentication,
    Frame,
    FrameReader,
    Heartbeat,
    Location,
    Message,
    PlatformReply,
    Registration,
    RegistrationReply,
    TimeReply,
    TimeRequest,
    decode_message,
    encode_message,
    time_bcd,
)
from adapters.jt808.codec import time_ns as bcd_time_ns

NS = 1_000_000_000
EDITION = 2013
RETRY_S = (1.0, 5.0)
CONNECT_TIMEOUT_S = 20.0
REPLY_TIMEOUT_S = 20.0
REPORT_S = 1.0
DRIP_S = 5.0
ENROLLED_AT_A_TIME = 200


@dataclass
class Crowd:
    """What the devices of one process share."""

    port: int
    addresses: int  # how many loopback addresses they come from
    first: int  # the first phone
    rng: random.Random
    codes: dict[str, str] = field(default_factory=dict)
    base_ns: int = 0  # the gateway's time when the monotonic clock stood at 0
    retried_count: int = 0
    lost_count: int = 0

    def now_ns(self) -> int:
        return self.base_ns + time.perf_counter_ns()

    def address(self, number: int) -> str:
        place = number % self.addresses
        return f"127.{1 + self.first // 100_000 % 250}.{1 + place // 200}.{1 + place % 200}"

    def phone(self, number: int) -> str:
        return str(13_000_000_000 + self.first + number)


class Device(asyncio.Protocol):
    """One connection of one terminal. `step` is done when what it was asked for was answered."""

    def __init__(self, crowd: Crowd, phone: str) -> None:
        self.phone = phone
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.timings: list[tuple[float, float]] = []  # sent at, answered after
        self._crowd = crowd
        self._serial = 0
        self._reader = FrameReader()
        self._sent_s: dict[int, float] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        code = self._crowd.codes.get(self.phone)
        self.send(Authentication(code) if code else _registration(self.phone))

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            if isinstance(frame, Frame):
                self._hear(decode_message(frame.header, frame.body))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("closed by the gateway"))

    def send(self, message: Message) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._sent_s[self._serial] = time.perf_counter()
        self._transport.write(encode_message(message, self.phone, self._serial, EDITION))
        self._serial = (self._serial + 1) % 0x10000

    def report(self) -> None:
        self.send(_position(self._crowd.now_ns()))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hear(self, said: Message) -> None:
        if isinstance(said, RegistrationReply) and said.result == 0:
            self._crowd.codes[self.phone] = said.code
            self.send(Authentication(said.code))
        elif isinstance(said, PlatformReply) and said.result == 0:
            sent_s = self._sent_s.pop(said.reply_serial, None)
            if said.reply_id == Authentication.message_id:
                self.report()
            elif said.reply_id == Location.message_id and sent_s is not None:
                self.timings.append((sent_s, time.perf_counter() - sent_s))
                if not self.done.done():
                    self.done.set_result(time.perf_counter())
        elif not self.done.done():
            self.done.set_exception(ConnectionRefusedError(repr(said)))


def step_aside() -> None:
    """The crowd stands for ten thousand other machines: it may not take the processor from the
    gateway, nor from the process that times it."""
    os.nice(19)


def _registration(phone: str) -> Registration:
    return Registration(EDITION, 50, 100, "SIM", "STORM", phone[-7:], 2, f"测{phone[-6:]}")


def _position(time_ns: int) -> Location:
    return Location(0, STATUS_FIX | 1, 29_500_000, 106_500_000, 240, 555, 90, time_bcd(time_ns))


def ask_time(port: int) -> int:
    """The gateway's time less the monotonic clock. Raises OSError."""
    reader = FrameReader()
    with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S) as link:
        link.sendall(encode_message(TimeRequest(), "13000000000", 0, EDITION))
        while data := link.recv(4096):
            for frame in reader.feed(data):
                if isinstance(frame, Frame):
                    said = decode_message(frame.header, frame.body)
                    assert isinstance(said, TimeReply), said
                    time_ns = bcd_time_ns(said.time_bcd, 0)
                    assert time_ns is not None, said
                    return time_ns - time.perf_counter_ns()
    raise ConnectionResetError("the gateway told no time")


async def arrive(crowd: Crowd, number: int) -> Device:
    """One device, until it is in and its first position is acknowledged, however often it tries."""
    loop = asyncio.get_running_loop()
    while True:
        device = Device(crowd, crowd.phone(number))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda device=device: device,  # type: ignore[misc]
                    "127.0.0.1",
                    crowd.port,
                    local_addr=(crowd.address(number), 0),
                )
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await device.done
        except (OSError, TimeoutError):
            device.abort()
            if device.done.done() and not device.done.cancelled():
                device.done.exception()  # taken note of
            crowd.retried_count += 1
            await asyncio.sleep(crowd.rng.uniform(*RETRY_S))
        else:
            return device


async def enrol(crowd: Crowd, count: int) -> None:
    gate = asyncio.Semaphore(ENROLLED_AT_A_TIME)

    async def one(number: int) -> None:
        async with gate:
            (await arrive(crowd, number)).abort()

    await asyncio.gather(*(one(number) for number in range(count)))
    _tell({"enrolled": len(crowd.codes)})


async def storm(crowd: Crowd, count: int) -> None:
    await _ended_line()  # "go"
    began_s = time.perf_counter()
    devices = await asyncio.gather(*(arrive(crowd, number) for number in range(count)))
    arrived = sorted(device.done.result() - began_s for device in devices)
    _tell(
        {
            "began_s": began_s,
            "in": len(devices),
            "half_in_s": arrived[len(arrived) // 2],
            "all_in_s": arrived[-1],
            "retried": crowd.retried_count,
        }
    )
    await _ended_line()


async def steady(crowd: Crowd, count: int) -> None:
    devices = await asyncio.gather(*(arrive(crowd, number) for number in range(count)))
    _tell({"in": len(devices)})
    ended = asyncio.ensure_future(_ended_line())
    for device in _rounds(devices):
        if ended.done():
            break
        await asyncio.sleep(REPORT_S / count)
        device.report()
    timings = sorted(timing for device in devices for timing in device.timings)
    lost = sum(device._transport is None for device in devices)  # noqa: SLF001  our own class
    _tell({"timings": timings, "lost": lost})


def _rounds(devices: list[Device]) -> Iterator[Device]:
    while True:
        yield from devices


async def slow(crowd: Crowd, count: int) -> None:
    ended = asyncio.ensure_future(_ended_line())
    ways = (_drip, _stay_silent, _never_read)
    tasks = [
        asyncio.create_task(_again(ways[number % len(ways)], crowd, number))
        for number in range(count)
    ]
    _tell({"started": count})
    await ended
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    _tell({"closed_by_gateway": crowd.lost_count})


async def _again(way: object, crowd: Crowd, number: int) -> None:
    """One hostile socket after the other: as soon as it is thrown out it is back."""
    loop = asyncio.get_running_loop()
    while True:
        link = socket.socket()
        link.setblocking(False)  # noqa: FBT003  the standard library's own signature
        try:
            link.bind((crowd.address(number), 0))
            await loop.sock_connect(link, ("127.0.0.1", crowd.port))
            await way(crowd, number, link)  # type: ignore[operator]
        except OSError:
            crowd.lost_count += 1
        finally:
            link.close()
        await asyncio.sleep(crowd.rng.uniform(*RETRY_S))


async def _drip(crowd: Crowd, number: int, link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for byte in encode_message(_registration(crowd.phone(number)), crowd.phone(number), 0, EDITION):
        await loop.sock_sendall(link, bytes((byte,)))
        await asyncio.sleep(DRIP_S)


async def _stay_silent(_crowd: Crowd, _number: int, link: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(link, 4096):
        pass


async def _never_read(crowd: Crowd, number: int, link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire = encode_message(Heartbeat(), crowd.phone(number), 0, EDITION) * 20
    while True:
        await asyncio.get_running_loop().sock_sendall(link, wire)
        await asyncio.sleep(REPORT_S)


def _tell(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def _ended_line() -> str:
    """The next line of standard input; empty at its end."""
    return await asyncio.to_thread(sys.stdin.readline)


MODES = {"enrol": enrol, "storm": storm, "steady": steady, "slow": slow}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=sorted(MODES))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--addresses", type=int, default=200)
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    codes = json.loads(asked.codes.read_text()) if asked.codes.exists() else {}
    crowd = Crowd(asked.port, asked.addresses, asked.first, random.Random(asked.seed), codes)
    crowd.base_ns = ask_time(asked.port)
    if asked.mode in ("storm", "slow"):
        step_aside()
    asyncio.run(MODES[asked.mode](crowd, asked.count))
    if asked.mode == "enrol":
        asked.codes.write_text(json.dumps(crowd.codes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
