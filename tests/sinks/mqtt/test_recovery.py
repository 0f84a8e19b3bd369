"""Whatever the broker does, ten seconds after it is well again a subscriber knows what stands.

A real broker that dies, forgets, refuses or falls silent; in the meantime more happens than one
chunk of events holds. The subscriber is told by retained states alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.alarms.journal import Journal
from gateway.model.alarm import Alarm, Transition
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.supervisor import Backoff, Supervisor
from gateway.runtime.telling import AlarmDelivery
from gateway.sinks.mqtt import KIND
from gateway.sinks.mqtt.config import MqttSinkConfig
from gateway.testing.alarms import make_event
from gateway.testing.servers import Mosquitto, mosquitto_sub, until

pytestmark = [pytest.mark.system, pytest.mark.slow]

STATES = "hazard/v1/mine-a/north/alarm/+/state"
KEYS = [f"p{number}:rule" for number in range(20)]
NOW = 1_790_000_000_000_000_000
POLL_S = 0.02
RECOVERY_S = 10.0  # promised; here the waits are shorter than a gateway's


class House:
    """A journal that grows, and who tells it."""

    def __init__(self, folder, port: int, context) -> None:
        self.loop = asyncio.get_running_loop()
        self.journal = Journal.open(folder)
        self.rows: dict[str, Alarm] = {}
        self.gseq = 0
        status = StatusCell("mqtt")
        counters = CounterTable().component("mqtt")
        config = MqttSinkConfig(port=port, connect_timeout_s=1.0, ack_timeout_s=0.5)
        self.teller = AlarmDelivery(
            name="mqtt",
            journal=self.journal,
            cursor=self.journal.cursor("mqtt"),
            sink=KIND.build_alarms(config, replace(context, now_ns=lambda: NOW)),
            standing=lambda: [row for row in self.rows.values() if not row.removed],
            heartbeat=dict,
            latency=LatencyMeter(),
            counters=counters,
            status=status,
            now_ns=lambda: NOW,
        )
        backoff = Backoff(random.Random(1), first_s=0.05, max_s=0.2)
        self.supervisor = Supervisor("mqtt", counters, status, backoff, refused_retry_s=0.2)

    def happen(self, count: int) -> None:
        """So many transitions, alarms taking turns; one alarm loses its rule half-way."""
        events = []
        for number in range(count):
            self.gseq += 1
            key = KEYS[self.gseq % (len(KEYS) - 1)]
            if number == count // 2:
                key = KEYS[-1]
            event = make_event(self.gseq, key=key, time_ns=NOW + self.gseq, seq=self.gseq)
            if key == KEYS[-1]:
                event = replace(event, transition=Transition.ACTIVATED)
            events.append(event)
            self.rows[key] = event.alarm
        self.gseq += 1
        gone = make_event(self.gseq, key=KEYS[-1], time_ns=NOW + self.gseq, seq=self.gseq)
        gone = replace(gone, transition=Transition.REMOVED, alarm=replace(gone.alarm, removed=True))
        self.rows[KEYS[-1]] = gone.alarm
        self.journal.append([*events, gone])
        self.loop.call_soon_threadsafe(self.teller.wake)  # a broker is broken in a thread

    @property
    def standing(self) -> dict[str, int]:
        return {key: row.seq for key, row in self.rows.items() if not row.removed}

    @asynccontextmanager
    async def telling(self):
        task = asyncio.create_task(self.supervisor.run(self.teller.run))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.journal.close()


def restarts_empty(broker: Mosquitto, house: House) -> None:
    broker.stop(kill=True)
    house.happen(1_200)
    shutil.rmtree(broker.folder)
    broker.start()


def comes_back(broker: Mosquitto, house: House) -> None:
    broker.stop()
    house.happen(1_200)
    broker.start()


def refuses_for_a_while(broker: Mosquitto, house: House) -> None:
    broker.stop()
    broker.extra = "allow_anonymous false"
    broker.start()
    house.happen(1_200)
    broker.stop()
    broker.extra = ""
    broker.start()


def accepts_and_never_acknowledges(broker: Mosquitto, house: House) -> None:
    broker._process.send_signal(signal.SIGSTOP)
    house.happen(1_200)
    while house.teller.status.state == "connected":
        time.sleep(POLL_S)
    broker._process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "fault", [restarts_empty, comes_back, refuses_for_a_while, accepts_and_never_acknowledges]
)
async def test_a_new_subscriber_knows_what_stands_and_no_state_goes_back(
    broker, context, tmp_path, fault
) -> None:
    house = House(tmp_path / "journal", broker.port, context)
    house.happen(40)
    async with house.telling():
        await until(lambda: house.teller.cursor.gseq == house.gseq)

        await asyncio.to_thread(fault, broker, house)
        with mosquitto_sub(broker.port, tmp_path, STATES) as live:

            def known() -> dict[str, int]:
                newest = {}
                for message in live.heard:
                    key = message.topic.split("/")[-2]
                    newest[key] = json.loads(message.payload)["seq"] if message.payload else None
                return {key: seq for key, seq in newest.items() if seq is not None}

            await until(lambda: known() == house.standing, RECOVERY_S)
            await until(lambda: house.teller.cursor.gseq == house.gseq, RECOVERY_S)
            told: dict[str, list[int]] = {}
            for message in live.heard:
                if message.payload:
                    row = json.loads(message.payload)
                    told.setdefault(row["alarm_key"], []).append(row["seq"])
            assert all(seqs == sorted(seqs) for seqs in told.values()), "a state went back"
            assert KEYS[-1] not in told, "an alarm that is gone was shown again"
        with mosquitto_sub(broker.port, tmp_path, STATES) as later:
            await until(lambda: len(later.heard) == len(house.standing), RECOVERY_S)
