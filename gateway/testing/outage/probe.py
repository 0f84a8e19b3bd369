"""Live alarm latency from outside: raise a real alarm every second, hear it from the siren.

The value says which probe it was, so that every event finds its own beginning. Latency runs from
just before the device publishes to when the siren hears: on-site broker, intake, sync of the spool,
judging, sync of the journal, telling, and that broker again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiomqtt
import numpy as np

from gateway.runtime.clock import now_ns

HIGH = 1000.0  # the limit; a probe's value is HIGH ± its number / 1000 + 1
INTERVAL_S = 1.0
_MISSING_AFTER_S = 10.0
DEVICE = "probe"
POINT = "probe.probe"
RULE = "probe-high"


@dataclass
class Probe:
    """One device and one siren on the on-site broker at `port`."""

    port: int
    topic: str  # of alarm events
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    phase: str = "before"
    sent: dict[float, tuple[int, str]] = field(
        default_factory=dict
    )  # value -> when, in which phase
    taken_ms: dict[str, list[float]] = field(default_factory=dict)
    heard_count: int = 0
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """Until cancelled."""
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            await client.subscribe(self.topic, qos=1)
            self.listening.set()
            async for message in client.messages:
                heard_ns = now_ns()
                assert isinstance(message.payload, bytes), "a payload is bytes"
                event = json.loads(message.payload)
                sent = self.sent.pop(event["value"], None)
                if sent is not None and event["alarm"]["rule"]["id"] == RULE:
                    self.heard_count += 1
                    self.taken_ms.setdefault(sent[1], []).append((heard_ns - sent[0]) / 1e6)

    async def knock(self) -> None:
        """Above the limit and below it in turn, until cancelled."""
        number = 0
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            while True:
                number += 1
                away = 1 + number / 1000
                value = HIGH + away if number % 2 else HIGH - away
                time_ns = now_ns()
                self.sent[value] = (time_ns, self.phase)
                body = {"device": DEVICE, "time_ns": time_ns, "value": value}
                await client.publish(f"{DEVICE}/1", json.dumps(body), qos=1)
                await self.sleep(INTERVAL_S)

    def missing(self, time_ns: int) -> int:
        """Probes sent long enough ago and never heard."""
        return sum(time_ns - at > _MISSING_AFTER_S * 1e9 for at, _ in self.sent.values())

    def figures(self) -> dict[str, dict[str, float]]:
        """By phase: how many, p50, p99 and the longest, in ms."""
        return {
            phase: {
                "count": len(taken),
                "p50_ms": round(float(np.percentile(taken, 50)), 1),
                "p99_ms": round(float(np.percentile(taken, 99)), 1),
                "max_ms": round(max(taken), 1),
            }
            for phase, taken in self.taken_ms.items()
        }
