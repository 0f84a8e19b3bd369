"""The alarm sink against a real broker, seen by a real subscriber."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.model.alarm import AlarmState, Transition
from gateway.model.errors import Refused, Unavailable
from gateway.sinks.mqtt import KIND
from gateway.sinks.mqtt.alarms import MqttAlarmSink
from gateway.sinks.mqtt.config import MqttSinkConfig
from gateway.testing.servers import free_port, mosquitto_server, mosquitto_sub, until

pytestmark = pytest.mark.system

PREFIX = "hazard/v1/mine-a/north"
STATE = f"{PREFIX}/alarm/dam1:tailings.beach/state"


def sink_for(port: int, context, **settings) -> MqttAlarmSink:
    assert KIND.build_alarms is not None
    config = MqttSinkConfig(port=port, connect_timeout_s=3.0, **settings)
    sink = KIND.build_alarms(config, context)
    assert isinstance(sink, MqttAlarmSink)
    return sink


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_an_event_is_told_and_its_row_is_retained(
    port, context, make_alarm, make_event, protocol
):
    tmp_path = context.state_dir
    sink = sink_for(port, context, protocol=protocol)
    with mosquitto_sub(port, tmp_path, "hazard/#") as live:
        await sink.open()
        await sink.write([make_event(make_alarm())])
        await sink.heartbeat({"epoch": 3, "head_gseq": 41, "standing": 1, "unacknowledged": 1})
        await until(lambda: live.on("heartbeat"))
    (event,) = live.on("/alarm/event")
    assert (event.qos, event.retained) == (1, False)
    said = json.loads(event.payload)
    assert (said["event"], said["annunciate"], said["alarm_key"]) == (
        "ACT",
        True,
        "dam1:tailings.beach",
    )
    assert said["alarm"] == json.loads(live.on("/state")[0].payload)
    assert json.loads(live.on("heartbeat")[0].payload)["head_gseq"] == 41
    with mosquitto_sub(port, tmp_path, "hazard/#") as later:
        await until(lambda: len(later.heard) >= 2)
    rows = {message.topic: json.loads(message.payload) for message in later.heard}
    assert all(message.retained for message in later.heard)
    assert set(rows) == {STATE, f"{PREFIX}/gateway/status"}
    assert rows[STATE]["name"]["zh"] == "干滩长度过短"
    assert rows[STATE]["active_time"] == "2026-03-14T06:00:00.123456789Z"
    assert rows[f"{PREFIX}/gateway/status"]["epoch"] == 3
    await sink.close()


async def test_events_keep_the_order_of_the_journal_and_the_last_row_stays(
    port, context, tmp_path, make_alarm, make_event
):
    sink = sink_for(port, context)
    events = [
        make_event(
            make_alarm(
                f"p{n % 7}:r",
                gseq=n,
                seq=n // 7 + 1,
                state=AlarmState.ACKNOWLEDGED if n > 300 else AlarmState.UNACKNOWLEDGED,
            )
        )
        for n in range(700)
    ]
    with mosquitto_sub(port, tmp_path, "hazard/#") as live:
        await sink.open()
        await sink.write(events)
        await until(lambda: len(live.on("/state")) == 7 and len(live.on("/event")) == 700)
    assert [json.loads(m.payload)["gseq"] for m in live.on("/event")] == list(range(700))
    assert sorted(json.loads(m.payload)["gseq"] for m in live.on("/state")) == list(range(693, 700))
    await sink.close()


async def test_a_closed_occurrence_keeps_a_normal_row_and_a_removed_rule_loses_its_row(
    port, context, tmp_path, make_alarm, make_event
):
    normal = make_alarm(
        "dam1:kept", state=AlarmState.NORMAL, active=False, acknowledged=True, open=False
    )
    sink = sink_for(port, context)
    await sink.open()
    await sink.write(
        [make_event(normal, transition=Transition.RETURNED), make_event(make_alarm("dam1:removed"))]
    )
    await sink.close()
    again = sink_for(port, context)  # another process: only the file knows what was retained
    await again.open()
    await again.snapshot([normal])
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/alarm/+/state") as later:
        await until(lambda: later.heard)
    assert [m.topic for m in later.heard] == [f"{PREFIX}/alarm/dam1:kept/state"]
    assert json.loads(later.heard[0].payload)["state"] == "NORM"
    await again.snapshot([normal])
    assert context.counters["removed:rule_removed"] == 1
    await again.close()


async def test_a_goodbye_and_a_last_will_are_told_apart(port, context, tmp_path, make_alarm):
    sink = sink_for(port, context)
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/gateway/status") as live:
        await sink.open()
        await sink.close()
        await until(lambda: len(live.heard) == 2)
        await sink.open()
        await sink.snapshot([make_alarm()])
        assert sink._link is not None
        sink._link.abort()
        await until(lambda: len(live.heard) == 5)
        with pytest.raises(Unavailable):
            await sink.heartbeat({})
        await sink.close()
    said = [json.loads(message.payload) for message in live.heard]
    assert [(s["status"], s["reason"], s["epoch"]) for s in said] == [
        ("online", "", None),
        ("offline", "closed", None),
        ("online", "", None),
        ("online", "", 3),
        ("offline", "connection lost", None),
    ]


VICTIM = """
import asyncio, sys
from pathlib import Path
from gateway.contract.sink import SinkContext
from gateway.model.point import PointTable
from gateway.sinks.mqtt import KIND
from gateway.sinks.mqtt.config import MqttSinkConfig

class Nothing:
    def count(self, *a, **k): pass

async def main():
    context = SinkContext("centre", "mine-a", "north", PointTable(), lambda: 1, Nothing(),
                          lambda *a: None, Path(sys.argv[2]))
    sink = KIND.build_alarms(MqttSinkConfig(port=int(sys.argv[1])), context)
    await sink.open()
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_last_will_speaks_for_a_gateway_that_was_killed(port, context, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", VICTIM, str(port), str(context.state_dir)])
    try:
        with mosquitto_sub(port, tmp_path, f"{PREFIX}/gateway/status") as live:
            await until(lambda: live.heard)
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: len(live.heard) == 2)
    finally:
        process.kill()
        process.wait()
    said = [json.loads(message.payload) for message in live.heard]
    assert [s["status"] for s in said] == ["online", "offline"]
    assert said[0]["since_ns"] == said[1]["since_ns"]


async def test_a_broker_that_restarts_without_its_memory_gets_every_row_again(
    tmp_path, context, make_alarm, make_event
):
    with mosquitto_server(tmp_path) as broker:
        sink = sink_for(broker.port, context)
        await sink.open()
        await sink.write([make_event(make_alarm())])
        broker.stop(kill=True)
        with pytest.raises(Unavailable):
            await sink.write([make_event(make_alarm(seq=2, gseq=42))])
        await sink.close()
        with pytest.raises(Unavailable):
            await sink.open()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        await sink.open()
        await sink.snapshot([make_alarm(seq=2, gseq=42)])
        await sink.write([make_event(make_alarm(seq=2, gseq=42))])
        with mosquitto_sub(broker.port, tmp_path, STATE) as later:
            await until(lambda: later.heard)
        assert json.loads(later.heard[0].payload)["seq"] == 2
        await sink.close()


async def test_a_loss_in_the_middle_of_a_flood_is_unavailable_and_nothing_is_missing_after_the_repeat(
    tmp_path, context, make_alarm, make_event
):
    events = [make_event(make_alarm(f"p{n}:r", gseq=n)) for n in range(1000)]
    with (
        mosquitto_server(tmp_path) as broker,
        mosquitto_sub(broker.port, tmp_path, "hazard/#") as live,
    ):
        sink = sink_for(broker.port, context)
        await sink.open()
        writing = asyncio.create_task(sink.write(events))
        await until(lambda: live.on("/event"))
        assert sink._link is not None
        sink._link.abort()
        with pytest.raises(Unavailable):
            await writing
        await sink.open()
        await sink.write(events)
        await until(lambda: len(live.on("/state")) >= 1000)
        await sink.close()
    assert {json.loads(m.payload)["gseq"] for m in live.on("/event")} == set(range(1000))


async def test_a_broker_that_falls_silent_is_unavailable_within_the_timeout(
    port, context, make_alarm, make_event, broker
):
    sink = sink_for(port, context, ack_timeout_s=0.2)
    await sink.open()
    process = broker._process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable, match="acknowledged nothing"):
            await sink.write([make_event(make_alarm())])
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await sink.close()


async def test_wrong_credentials_are_refused_and_no_broker_is_unavailable(tmp_path, context):
    (tmp_path / "passwords").write_text("")
    extra = f"allow_anonymous false\npassword_file {tmp_path}/passwords"
    with mosquitto_server(tmp_path, extra) as broker:
        for protocol in ("3.1.1", "5"):
            sink = sink_for(broker.port, context, protocol=protocol, username="u", password="p")
            with pytest.raises(Refused, match="refused the connection"):
                await sink.open()
            await sink.close()
    with pytest.raises(Unavailable):
        await sink_for(free_port(), context).open()


async def test_a_broker_that_denies_a_topic_says_so_over_mqtt_5(
    tmp_path, context, make_alarm, make_event
):
    (tmp_path / "acl").write_text(f"topic write {PREFIX}/gateway/status\n")
    with mosquitto_server(tmp_path, f"acl_file {tmp_path}/acl") as broker:
        sink = sink_for(broker.port, context, protocol="5")
        await sink.open()
        with pytest.raises(Refused, match="0x87"):
            await sink.write([make_event(make_alarm())])
        await sink.close()


async def test_a_disk_that_refuses_the_note_does_not_stop_the_alarm(
    port, context, tmp_path, make_alarm, make_event
):
    (context.state_dir / "retained-keys.jsonl").mkdir()  # a file cannot be opened there
    sink = sink_for(port, context)
    with mosquitto_sub(port, tmp_path, "hazard/#") as live:
        await sink.open()
        await sink.write([make_event(make_alarm())])
        await until(lambda: live.on("/state"))
    assert context.counters["rejected:retained_keys"] == 1
    await sink.close()


@pytest.mark.slow
async def test_ten_thousand_events_reach_a_subscriber_in_order(
    port, context, tmp_path: Path, make_alarm, make_event
):
    events = [make_event(make_alarm(f"point{n}:rule", gseq=n)) for n in range(10_000)]
    sink = sink_for(port, context)
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/alarm/event") as live:
        await sink.open()
        for start in range(0, len(events), 2000):
            await sink.write(events[start : start + 2000])
        await sink.close()
        await until(lambda: len(live.heard) >= len(events), timeout_s=60)
    assert [json.loads(m.payload)["gseq"] for m in live.heard] == list(range(10_000))


@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket.*:pytest.PytestUnraisableExceptionWarning")
async def test_tls_is_verified_against_the_given_authority(
    tmp_path: Path, context, make_alarm, make_event
):
    key, cert, other = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "other.pem"
    for name in (cert, other):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", str(key if name == cert else tmp_path / "k2.pem"), "-out", str(name), "-days", "2",
             "-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
    with mosquitto_server(tmp_path, f"certfile {cert}\nkeyfile {key}") as broker:
        sink = sink_for(broker.port, context, tls="on", ca_file=str(cert))
        await sink.open()
        await sink.write([make_event(make_alarm(f"p{n}:r", gseq=n)) for n in range(500)])
        await sink.close()
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await sink_for(broker.port, context, tls="on", ca_file=str(other)).open()
        gc.collect()  # paho leaves the socket of a failed handshake to the collector
        with pytest.raises(Refused, match="certificate"):
            await sink_for(
                broker.port, context, tls="on", ca_file=str(tmp_path / "nowhere.pem")
            ).open()


async def test_a_state_topic_never_goes_back_to_a_row_from_before_the_snapshot(
    port, context, tmp_path, make_alarm, make_event
):
    sink = sink_for(port, context)
    newest = make_alarm(state=AlarmState.ACKNOWLEDGED, seq=9, gseq=90)
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/#") as live:
        await sink.open()
        await sink.snapshot([newest])
        old = [make_event(make_alarm(seq=n, gseq=80 + n)) for n in range(5, 10)]
        await sink.write(old)
        await sink.write([make_event(make_alarm(seq=10, gseq=95))])
        await until(lambda: len(live.on("/alarm/event")) == 6 and len(live.on("/state")) >= 2)
    told = [json.loads(message.payload)["gseq"] for message in live.on("/state")]
    assert told == [90, 95]
    await sink.close()


async def test_an_alarm_that_is_not_recorded_yet_keeps_the_row_it_has(
    port, context, tmp_path, make_alarm, make_event
):
    """While the journal's disk refuses, a connection that is made anew hides nothing."""
    sink = sink_for(port, context)
    await sink.open()
    await sink.write([make_event(make_alarm()), make_event(make_alarm("p2:r", gseq=42))])
    await sink.snapshot(
        [make_alarm("p2:r", gseq=42)], head_gseq=42, unrecorded={STATE.split("/")[-2]}
    )
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/alarm/+/state") as later:
        await until(lambda: len(later.heard) == 2)
    await sink.write([make_event(make_alarm(seq=2, gseq=43))])
    with mosquitto_sub(port, tmp_path, STATE) as later:
        await until(lambda: later.heard)
        assert json.loads(later.heard[0].payload)["gseq"] == 43
    await sink.close()


async def test_the_row_of_a_removed_rule_is_taken_away_with_its_event(
    port, context, tmp_path, make_alarm, make_event
):
    sink = sink_for(port, context)
    await sink.open()
    await sink.write([make_event(make_alarm())])
    gone = make_alarm(state=AlarmState.NORMAL, active=False, removed=True, seq=2, gseq=42)
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/alarm/#") as live:
        await sink.write([make_event(gone, transition=Transition.REMOVED, annunciate=False)])
        await until(lambda: live.on("/alarm/event"))
    assert json.loads(live.on("/alarm/event")[0].payload)["event"] == "REM"
    with mosquitto_sub(port, tmp_path, f"{PREFIX}/#") as later:
        await until(lambda: later.heard)
    assert [message.topic for message in later.heard] == [f"{PREFIX}/gateway/status"]
    await sink.close()
