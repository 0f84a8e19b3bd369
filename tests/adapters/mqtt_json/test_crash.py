"""kill -9 in the middle of a stream, several times: nothing acknowledged is missing.

The victim is a process that runs the real adapter and whose `emit` appends to a file and syncs it,
as the spool does. What the broker got a PUBACK for must stand in the file; what it did not must come
again. Together that is: every report the device was promised stands in the file at least once.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys

import pytest

from adapters.mqtt_json.codec import encode_report
from gateway.contract.mqtt import MqttTarget
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.testing.servers import until

pytestmark = [pytest.mark.system, pytest.mark.slow]

T0 = 1_773_468_000_000_000_000
REPORTS = 1500
KILLS = 2
SEED = 20260314

VICTIM = """
import asyncio, os, sys
from pathlib import Path
from adapters.mqtt_json import KIND
from adapters.mqtt_json.config import MqttJsonConfig
from gateway.contract.adapter import AdapterContext

folder = Path(sys.argv[2])

class House:
    def count(self, *a, **k): pass
    async def points(self, points): return list(range(len(points)))
    async def devices(self, devices): return list(range(len(devices)))
    async def __call__(self, batch):
        with (folder / "durable").open("ab") as file:
            for t in batch.source_time_ns.tolist():
                file.write(b"%d\\n" % t)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())

async def main():
    house = House()
    context = AdapterContext("victim", lambda: 1, house, lambda *a: None, folder, lambda: ())
    config = MqttJsonConfig(profile="tailings-generic", port=int(sys.argv[1]))
    await KIND.build(config, context).run(house, house)

asyncio.run(main())
"""


def durable(folder) -> list[int]:
    path = folder / "durable"
    data = path.read_bytes() if path.exists() else b""
    return [int(line) for line in data.split(b"\n")[:-1]]


async def test_no_report_is_lost_when_the_adapter_is_killed_again_and_again(broker, tmp_path):
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    expected = [T0 + n for n in range(REPORTS)]

    async def send() -> None:
        link = MqttLink(MqttTarget(port=broker.port), "device")
        await link.open()
        for start in range(0, REPORTS, 50):
            chunk = expected[start : start + 50]
            await link.publish(
                [
                    Outgoing("tailings/n/telemetry", encode_report("d", t, {"rain": 0.1}))
                    for t in chunk
                ]
            )
            await asyncio.sleep(0.01)
        await link.close()

    def spawn() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", VICTIM, str(broker.port), str(tmp_path)])

    process, sending, kills = spawn(), None, 0
    try:
        await until(lambda: "tailings/+/telemetry" in _log(broker), 20)
        sending = asyncio.create_task(send())
        for _ in range(KILLS):
            goal = len(durable(tmp_path)) + rng.randrange(50, 250)
            await until(lambda goal=goal: len(durable(tmp_path)) >= goal, 20)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            process = spawn()
        await sending
        await until(lambda: set(durable(tmp_path)) >= set(expected), 30)
    finally:
        process.kill()
        process.wait()
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    found = durable(tmp_path)
    assert kills == KILLS
    assert set(found) == set(expected)
    # What came twice was in flight when a process died: at most what may be in flight, per kill.
    assert len(found) - REPORTS <= kills * 1000


def _log(broker) -> str:
    return (broker.folder / "mosquitto.log").read_text(encoding="utf-8", errors="replace")
