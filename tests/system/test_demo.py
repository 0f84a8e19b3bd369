"""The first thing a newcomer runs: everything at once, every promised alarm seen from outside, and
nothing lost."""

from __future__ import annotations

import asyncio
import json
import sys

import aiomqtt
import pytest

from gateway.cli import EXIT_OK
from gateway.testing.servers import free_port

DURATION_S = 25
# What a subscriber and an operator must have seen by then: a part of the key, and the limit.
PROMISED = {
    "coal-gas-2016.methane-t1": 1.5,  # %CH4, the cut-off value of a T1 sensor
    "coal-personnel.over-area": 16,  # people approved for the heading
    "tailings.freeboard-grade-3": 0.7,  # m
    "road-transport.overspeed-hazmat": 80,  # km/h
    "system-health.silent-wind-speed": 10,  # s
}


async def listen(port: int, heard: dict[str, dict]) -> None:
    """The newest active state of every alarm, as any client of the broker sees it."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("hazard/v1/demo/demo-site/alarm/+/state", qos=1)
        async for message in client.messages:
            state = json.loads(message.payload)
            if state.get("active"):
                heard[state["rule"]["id"]] = state


@pytest.mark.system
@pytest.mark.slow
async def test_the_demo_raises_every_promised_alarm_and_loses_nothing(tmp_path) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "demo", "--duration", str(DURATION_S), "--json",
        "--data-dir", str(tmp_path), "--port", "0", "--mqtt-port", str(port),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    heard: dict[str, dict] = {}
    told = b""
    while b"Console" not in told:
        line = await process.stderr.readline()
        assert line, f"the demo ended by itself: {told.decode()}"
        told += line
    listener = asyncio.create_task(listen(port, heard))
    out, errors = await process.communicate()
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    assert process.returncode == EXIT_OK, errors.decode()
    assert b"http://127.0.0.1:" in told

    lines = out.decode().splitlines()
    assert len(lines) == 1, "data on stdout is exactly one JSON line"
    counts = json.loads(lines[0])
    assert counts["lost"] == 0
    assert (
        counts["samples_sent"]
        == counts["samples_durable"]
        == counts["samples_judged"]
        == counts["samples_stored"]
        > 0
    )
    assert counts["spool_depth"] == 0
    assert counts["events_told"] == counts["events_journalled"] > 0

    assert set(PROMISED) <= set(heard)
    for rule, limit in PROMISED.items():
        assert heard[rule]["limit"] == limit
        assert rule.endswith("wind-speed") or heard[rule]["value"] is not None
