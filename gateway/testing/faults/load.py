"""Numbered load over MQTT, and what must come of it.

Every report of a device carries its number and a level; levels jump over the limit and back at
seeded moments. What the broker has acknowledged must be in the store, exactly once; every jump must
be in the journal as ACT or RTN **with the time of the sample that jumped**, and nothing else.

The broker between this feeder and the gateway is never hurt: it is the device's, and what it says
it has is what the gateway is held to.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.contract.mqtt import MqttTarget
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.model.errors import Refused, Unavailable
from gateway.runtime.clock import now_ns
from gateway.sinks.mqtt.wire import rfc3339

NUMBERS = 4  # numbered points of each device, besides its level
LOW, LIMIT, HIGH = 10.0, 50.0, 90.0
RULE_ID = "high"
_RETRY_S = 0.2

MAPPING = """
[[adapter.mappings]]
topic = "numbered/{device}"
each = "$.values.{field}"
device = "{device}"
point = "{device}.{field}"
quantity = "{field}"
time = "$.time"
"""
RULE = f"""
[[rule]]
id = "{RULE_ID}"
kind = "limit"
value = {{ quantity = "level" }}
parameters = {{ levels = {{ H = {{ limit = {LIMIT}, reset = {LIMIT - 5} }} }} }}
priority = "high"
"""


class Sample(NamedTuple):
    """As the store must hold it."""

    point: str
    time_ns: int
    value: float


class Edge(NamedTuple):
    """A jump over the limit or back, as the journal must hold it."""

    alarm_key: str
    transition: str
    time_ns: int


@dataclass(eq=False)
class Feeder:
    """Devices that report in turn, `reports_per_s` together."""

    port: int
    seed: int
    host: str = "127.0.0.1"
    device_count: int = 8
    reports_per_s: float = 20.0
    jump_share: float = 0.3  # of the reports, so many jump
    acknowledged: list[Sample] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)  # acknowledged too
    sent_count: int = 0
    jumping: bool = True
    _levels: dict[str, float] = field(default_factory=dict)
    _waiting: dict[int, tuple[Outgoing, list[Sample], Edge | None]] = field(default_factory=dict)
    _number: int = 0
    _last_ns: int = 0
    _task: asyncio.Task[None] | None = None
    _ending: bool = False

    def __post_init__(self) -> None:
        self._rng = random.Random(f"feeder {self.seed}")
        self._more = asyncio.Event()

    @property
    def devices(self) -> list[str]:
        return [f"d{number}" for number in range(self.device_count)]

    def start(self) -> None:
        self._ending = False
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Bring every level down, and wait until the broker has everything."""
        for device in self.devices:
            if self._levels.get(device) == HIGH:
                self._report(device, LOW)
        self._ending = True
        self._more.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def cancel(self) -> None:
        """At once; for the way out after a failure."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def burst(self, count: int, *, jump: bool = False) -> None:
        """So many more reports, as fast as they go; returns when they are acknowledged."""
        for number in range(count):
            device = self.devices[number % self.device_count]
            self._report(device, self._other(device) if jump else self._levels.get(device, LOW))
        self._more.set()
        while self._waiting:
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            making = tasks.create_task(self._make())
            await self._send_all(lambda: self._ending and not self._waiting)
            making.cancel()

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while not self._ending:
            device = self.devices[self._number % self.device_count]
            level = self._levels.get(device, LOW)
            if self.jumping and self._rng.random() < self.jump_share:
                level = self._other(device)
            self._report(device, level)
            self._more.set()
            due_s += 1 / self.reports_per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    def _other(self, device: str) -> float:
        return LOW if self._levels.get(device, LOW) == HIGH else HIGH

    def _report(self, device: str, level: float) -> None:
        time_ns = self._last_ns = max(now_ns(), self._last_ns + 1)
        values = {f"n{number}": self._number + number / 8 for number in range(NUMBERS)}
        values["level"] = level
        edge = None
        if level != self._levels.get(device, LOW):
            transition = "ACT" if level == HIGH else "RTN"
            edge = Edge(f"{device}.level:{RULE_ID}", transition, time_ns)
        self._levels[device] = level
        message = {"time": rfc3339(time_ns), "values": values}
        samples = [Sample(f"{device}.{name}", time_ns, value) for name, value in values.items()]
        self._waiting[self._number] = (
            Outgoing(f"numbered/{device}", json.dumps(message).encode()),
            samples,
            edge,
        )
        self._number += 1
        self.sent_count += len(samples)

    async def _send_all(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            link = MqttLink(MqttTarget(host=self.host, port=self.port), f"feeder{self.seed}")
            try:
                await link.open()
                await self._serve(link, is_done)
            except (Unavailable, Refused):
                await asyncio.sleep(_RETRY_S)
            finally:
                await link.close()

    async def _serve(self, link: MqttLink, is_done: Callable[[], bool]) -> None:
        published = -1
        while not is_done():
            ready = [number for number in self._waiting if number > published]
            if not ready:
                self._more.clear()
                if not is_done():
                    await asyncio.wait_for(self._more.wait(), None)
                continue
            published = ready[-1]
            messages = [self._waiting[number][0] for number in ready]
            await link.publish(messages, lambda i, ready=ready: self._done(ready[i]))  # type: ignore[misc]

    def _done(self, number: int) -> None:
        taken = self._waiting.pop(number, None)
        if taken is None:
            return
        _, samples, edge = taken
        self.acknowledged.extend(samples)
        if edge is not None:
            self.edges.append(edge)
        if not self._waiting:
            self._more.set()

    @property
    def expected(self) -> Counter[Sample]:
        return Counter(self.acknowledged)
