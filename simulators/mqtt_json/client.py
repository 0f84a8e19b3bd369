"""Publishes the dams' reports at QoS 1 and keeps them until the broker has acknowledged.

    due --report--> unacknowledged --publish--> broker
                          ^                        |
                          `-- again, byte for byte, after a lost connection
                       removed by PUBACK -> ledger.acknowledged

A report is entered in the ledger as sent when it is first handed to the client. The surprising
thing: a full queue drops no report; the scenario's clock stands still instead, because a dam's
logger would have kept it too, and because a ledger with gaps proves nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import NamedTuple

from adapters.mqtt_json.codec import encode_report
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.contract.simulator import SentSample, SimulatorContext
from gateway.model.errors import Refused, Unavailable
from simulators.mqtt_json.config import TailingsConfig
from simulators.mqtt_json.dam import Dam

_RETRY_S = 0.5
_NS = 1_000_000_000


class _Report(NamedTuple):
    message: Outgoing
    samples: tuple[SentSample, ...]


class TailingsSimulator:
    """All dams of one configuration over one connection."""

    def __init__(self, config: TailingsConfig, context: SimulatorContext) -> None:
        self._config = config
        self._context = context
        self._dams = {dam: Dam(config, dam, context.seed) for dam in config.dams}
        self._unacknowledged: dict[int, _Report] = {}  # by number, in order of sending
        self._next_number = 0
        self._entered = 0  # reports below this number stand in the ledger as sent
        self._last_time_ns = 0
        self._more = asyncio.Event()  # something new to publish, or an acknowledgement
        self._draining = False
        self._sending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Publish until the scenario ends and all is acknowledged, or until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._sending = tasks.create_task(self._send())
                await self._play()
                self._stop()
        finally:
            self._sending = None

    async def drain(self) -> None:
        """Nothing new; wait for the acknowledgements; disconnect. Also after a cancelled run."""
        self._stop()
        if self._sending is not None:
            await asyncio.wait([self._sending])
        else:
            await self._send()

    async def _play(self) -> None:
        config, context = self._config, self._context
        began_ns, t_s = context.now_ns(), 0.0
        while config.duration_s is None or t_s < config.duration_s:
            await self._room()
            if self._draining:
                return
            self._report_all(t_s)
            t_s += config.interval_s
            due_ns = began_ns + round(t_s / config.speed * _NS)
            await context.sleep(max(0.0, (due_ns - context.now_ns()) / _NS))

    def _stop(self) -> None:
        self._draining = True
        self._more.set()

    def _report_all(self, t_s: float) -> None:
        for dam, plant in self._dams.items():
            time_ns = max(self._context.now_ns(), self._last_time_ns + 1)
            self._last_time_ns = time_ns  # two reports never share an instant, however fast
            values = plant.report(t_s)
            self._unacknowledged[self._next_number] = _Report(
                Outgoing(
                    f"{self._config.root}/{dam}/telemetry", encode_report(dam, time_ns, values)
                ),
                _samples(dam, time_ns, values),
            )
            self._next_number += 1
        self._more.set()

    async def _room(self) -> None:
        while len(self._unacknowledged) >= self._config.unacknowledged_max and not self._draining:
            self._more.clear()
            await self._more.wait()

    async def _send(self) -> None:
        """Connection after connection until drained."""
        while not (self._draining and not self._unacknowledged):
            link = MqttLink(self._config, client_id=self._client_id())
            try:
                await link.open()
                await self._serve(link)
            except (Unavailable, Refused) as error:
                self._context.log(f"{self._context.name}: {error}")
                await self._context.sleep(_RETRY_S)
            finally:
                await link.close()

    async def _serve(self, link: MqttLink) -> None:
        """Publish what is there and what comes, in order, until drained. Raises Unavailable."""
        published = -1  # the newest number handed to this connection
        while True:
            ready = [number for number in self._unacknowledged if number > published]
            if ready:
                published = ready[-1]
                await self._publish(link, ready)
            elif self._draining:
                return
            else:
                self._more.clear()
                await self._wait(link)

    async def _publish(self, link: MqttLink, numbers: list[int]) -> None:
        reports = [self._unacknowledged[number] for number in numbers]
        for number, report in zip(numbers, reports, strict=True):
            if number >= self._entered:
                self._context.ledger.sent(report.samples)
                self._entered = number + 1
        await link.publish([report.message for report in reports], lambda i: self._done(numbers[i]))

    async def _wait(self, link: MqttLink) -> None:
        """Until there is something to publish. Raises Unavailable on a lost connection."""
        tasks = [asyncio.ensure_future(event.wait()) for event in (self._more, link.lost)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if link.lost.is_set():
            raise Unavailable("the broker connection is lost")

    def _done(self, number: int) -> None:
        report = self._unacknowledged.pop(number, None)
        if report is not None:
            self._context.ledger.acknowledged(report.samples)
            self._more.set()

    def _client_id(self) -> str:
        if self._config.client_id:
            return self._config.client_id
        plain = "".join(c for c in self._context.name if c.isascii() and c.isalnum())
        return f"sim{plain[:14]}{self._context.seed % 1_000_000}"


def _samples(dam: str, time_ns: int, values: Mapping[str, float | None]) -> tuple[SentSample, ...]:
    return tuple(
        SentSample(f"{dam}.{name}", time_ns, math.nan if value is None else value)
        for name, value in values.items()
    )
