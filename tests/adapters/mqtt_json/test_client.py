"""The adapter against a real broker: durable before acknowledged, bounded, and back after a loss."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time

import pytest

from adapters.mqtt_json.client import client_id
from adapters.mqtt_json.codec import encode_report, wrap
from adapters.mqtt_json.quarantine import Poison, Quarantine
from gateway.contract.mqtt import MqttTarget
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.model.errors import Refused, SpoolFull, StorageFault, Unavailable
from gateway.testing.servers import free_port, mosquitto_server, until

pytestmark = pytest.mark.system

T0 = 1_773_468_000_000_000_000
TOPIC = "tailings/north/telemetry"


async def publish(port: int, messages: list[tuple[str, bytes]], *, retain: bool = False) -> None:
    link = MqttLink(MqttTarget(port=port), "device")
    await link.open()
    try:
        await link.publish([Outgoing(topic, payload, retain) for topic, payload in messages])
    finally:
        await link.close()


def report(number: int, **values) -> tuple[str, bytes]:
    return TOPIC, encode_report("dam1", T0 + number * 10**9, values or {"rain": number / 10})


async def unacknowledged(port: int, name: str) -> list[bytes]:
    """What the broker still holds for a client id: what comes when somebody takes its session."""
    held: list[bytes] = []
    link = MqttLink(
        MqttTarget(port=port), name, session=True, on_message=lambda m: held.append(m.payload)
    )
    await link.open()
    await link.subscribe(["drained"])
    await link.publish([Outgoing("drained", b"end")])
    await until(lambda: b"end" in held)
    await link.close()
    return held[:-1]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_reports_become_rows_with_their_points_declared(broker, house, start, protocol):
    start(port=broker.port, protocol=protocol)
    await until(lambda: "connected" in house.states)
    await publish(
        broker.port, [report(1, pool_level=128.014, beach_top=131.0), report(2, rain=None)]
    )
    await until(lambda: len(house.rows) == 3)
    assert house.rows[:2] == [
        ("dam1.pool_level", 128.014, T0 + 10**9),
        ("dam1.beach_top", 131.0, T0 + 10**9),
    ]
    assert math.isnan(house.rows[2][1])
    assert [p.area for p in house.points] == ["north"] * 3
    assert house.counts == {"received": 2, "accepted": 2, "doubtful:no_value": 1}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_nothing_is_acknowledged_before_emit_returned(broker, house, start, protocol):
    """The broker itself is the witness: it gives the messages out again."""
    house.gate.clear()
    task = start(port=broker.port, protocol=protocol)
    await until(lambda: "connected" in house.states)
    sent = [report(n) for n in range(20)]
    await publish(broker.port, sent)
    await until(lambda: house.waiting)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    house.gate.set()
    start(port=broker.port, protocol=protocol)
    await until(lambda: len(house.rows) == 20)
    assert [t for _, _, t in house.rows] == [T0 + n * 10**9 for n in range(20)]


async def test_what_emit_returned_for_is_acknowledged(broker, house, start):
    task = start(port=broker.port)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [report(n) for n in range(50)])
    await until(lambda: len(house.rows) == 50)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await unacknowledged(broker.port, client_id("dams")) == []


@pytest.mark.parametrize("error", [SpoolFull("no room"), StorageFault("disk")])
async def test_a_batch_the_house_refuses_is_not_acknowledged_and_ends_the_run(
    broker, house, start, error
):
    house.error = error
    task = start(port=broker.port)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [report(n) for n in range(5)])
    with pytest.raises(type(error)):
        await task
    assert await unacknowledged(broker.port, client_id("dams")) == [
        payload for _, payload in map(report, range(5))
    ]


async def test_the_same_adapter_runs_again_after_a_declaration_failed(broker, house, start):
    """The names are remembered as seen; they must not be taken for declared."""
    house.declare_error = StorageFault("registry")
    task, adapter, declare = start(port=broker.port, whole=True)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [report(1)])
    with pytest.raises(StorageFault):
        await task
    house.declare_error = None
    again = asyncio.create_task(adapter.run(house, declare))
    await until(lambda: len(house.rows) == 1)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


POISON = [
    (TOPIC, b"{", "bad_json"),
    (TOPIC, b"\xff", "bad_utf8"),
    (TOPIC, b"[" * 1000, "too_deep"),
    (TOPIC, b'{"device":"dam1"}', "no_match"),
    (TOPIC, b'{"device":"a b","values":{"rain":1}}', "bad_id"),
    (TOPIC, b'"' + b"x" * 2000 + b'"', "too_large"),
    (TOPIC, b"", "bad_json"),
]


async def test_poison_is_counted_kept_and_acknowledged_while_its_neighbours_go_on(
    broker, house, start
):
    task = start(port=broker.port, payload_size_max_bytes=1500)
    await until(lambda: "connected" in house.states)
    await publish(
        broker.port, [report(1), *((topic, payload) for topic, payload, _ in POISON), report(2)]
    )
    await until(lambda: len(house.rows) == 2 and house.counts.get("received") == 9)
    await until(lambda: len(_quarantined(house)) == len(POISON))
    assert [(q["reason"], q["size_bytes"]) for q in _quarantined(house)] == [
        (reason, len(payload)) for _, payload, reason in POISON
    ]
    assert base64.b64decode(_quarantined(house)[0]["payload_base64"]) == b"{"
    rejected = {k: n for k, n in house.counts.items() if k.startswith("rejected")}
    assert sum(rejected.values()) == len(POISON)
    assert house.counts["accepted"] == 2
    await publish(broker.port, [report(3)])
    await until(lambda: len(house.rows) == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await unacknowledged(broker.port, client_id("dams")) == []


def _quarantined(house) -> list[dict]:
    path = house.state_dir / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def test_poison_is_not_acknowledged_when_it_cannot_be_kept(broker, house, start):
    (house.state_dir / "quarantine.jsonl").mkdir()
    task = start(port=broker.port)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [(TOPIC, b"{")])
    with pytest.raises(StorageFault):
        await task
    assert await unacknowledged(broker.port, client_id("dams")) == [b"{"]


def test_the_quarantine_never_grows_beyond_its_budget(tmp_path):
    quarantine = Quarantine(tmp_path, 8192)
    for number in range(100):
        quarantine.keep([Poison(T0, "t", bytes(300), "bad_json", str(number))])
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["quarantine.1.jsonl", "quarantine.jsonl"]
    assert sum(f.stat().st_size for f in files) <= 8192
    assert json.loads(files[1].read_bytes().splitlines()[-1])["detail"] == "99"


@pytest.mark.parametrize("budget", [4096, 8192, 1 << 20])
def test_one_burst_of_large_strangers_does_not_overrun_the_quarantine(tmp_path, budget):
    quarantine = Quarantine(tmp_path, budget)
    burst = [Poison(T0, "é" * 30_000, bytes(70_000), "x", f"{n} " + "é" * 900) for n in range(50)]
    quarantine.keep(burst)
    files = sorted(tmp_path.iterdir())
    assert sum(f.stat().st_size for f in files) <= budget
    last = json.loads(files[-1].read_bytes().splitlines()[-1])
    assert last["detail"].startswith("49 ")
    assert last["size_bytes"] == 70_000


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_a_full_inbox_stops_reading_and_nothing_is_lost(tmp_path, house, start, protocol):
    """mosquitto is told not to limit what is in flight, so the limit is the adapter's alone."""
    with mosquitto_server(tmp_path, "max_inflight_messages 0") as broker:
        house.gate.clear()
        start(port=broker.port, protocol=protocol, receive_max=10)
        await until(lambda: "connected" in house.states)
        sent = [report(n) for n in range(300)]
        await publish(broker.port, sent)
        await until(lambda: house.waiting)
        await asyncio.sleep(0.05)
        house.gate.set()
        await until(lambda: len(house.rows) == 300)
        assert max(len(batch) for batch in house.batches) <= 10
        assert [t for _, _, t in house.rows] == [T0 + n * 10**9 for n in range(300)]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_a_backlog_larger_than_the_inbox_is_served_after_a_restart(
    broker, house, start, protocol
):
    """The backlog comes before the answer to the subscription: waiting for that first would wait
    for ever."""
    task = start(port=broker.port, protocol=protocol, receive_max=10)
    await until(lambda: "connected" in house.states)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await publish(broker.port, [report(n) for n in range(200)])
    house.states.clear()
    start(port=broker.port, protocol=protocol, receive_max=10)
    await until(lambda: len(house.rows) == 200)
    await until(lambda: "connected" in house.states)


async def test_many_messages_share_one_emit(broker, house, start):
    start(port=broker.port)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [report(n) for n in range(500)])
    await until(lambda: len(house.rows) == 500)
    assert len(house.batches) < 250


async def test_a_broker_that_goes_away_is_unavailable_and_its_queue_is_there_afterwards(
    broker, house, start
):
    task = start(port=broker.port)
    await until(lambda: "connected" in house.states)
    broker.stop()
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable):
        await start(port=broker.port)
    broker.start()
    await publish(broker.port, [report(1)])  # while the adapter is away
    start(port=broker.port)
    await until(lambda: len(house.rows) == 1)


async def test_no_broker_is_unavailable_and_a_denied_subscription_is_refused(
    tmp_path, house, start
):
    with pytest.raises(Unavailable):
        await start(port=free_port())
    (tmp_path / "passwords").write_text("")
    passwords = f"allow_anonymous false\npassword_file {tmp_path}/passwords"
    with mosquitto_server(tmp_path, passwords) as broker, pytest.raises(Refused):
        await start(port=broker.port, username="u", password="p")


async def test_binary_geohazard_payloads_arrive_over_the_dollar_topic(broker, house, start):
    start(port=broker.port, profile="geohazard")
    await until(lambda: "connected" in house.states)
    body = b'{"3200001":{"L1_GP_1":{"2026-03-14T06:00:00.000Z":{"gpsTotalZ":-3.2}}}}'
    await publish(broker.port, [("$dp", wrap(body)), ("$dp", wrap(body)[:-1])])
    await until(lambda: house.rows and house.counts.get("rejected:wrapper"))
    assert house.rows == [("3200001.L1_GP_1.gpsTotalZ", -3.2, T0)]


async def test_a_retained_report_keeps_the_time_it_was_made(broker, house, start):
    await publish(broker.port, [report(7)], retain=True)
    start(port=broker.port)
    await until(lambda: house.rows)
    assert house.rows == [("dam1.rain", 0.7, T0 + 7 * 10**9)]


def test_a_client_id_is_stable_short_and_different_for_different_names():
    ids = {client_id(name) for name in ("dams", "dams 2", "坝", "dams/2", "x" * 100, "x" * 101)}
    assert len(ids) == 6
    assert all(len(i) <= 23 and i.isascii() and i.isalnum() for i in ids)
    assert client_id("dams") == "hgdams61d86ae0"


@pytest.mark.slow
async def test_throughput_of_the_adapter_is_printed(broker, house, start):
    start(port=broker.port)
    await until(lambda: "connected" in house.states)
    values = {"pool_level": 128.0, "beach_top": 131.0, "rain": 0.2, "displacement_x": 1.25}
    messages = [report(n, **values) for n in range(5000)]
    began_s = time.perf_counter()
    sending = asyncio.create_task(publish(broker.port, messages))
    await until(lambda: sum(map(len, house.batches)) == 20_000, 30)
    took_s = time.perf_counter() - began_s
    await sending
    print(
        f"{5000 / took_s:.0f} messages/s, {20_000 / took_s:.0f} samples/s, {len(house.batches)} emits"
    )
    assert took_s < 20


async def test_a_message_too_large_to_hold_is_cut_off_set_aside_and_acknowledged(
    broker, house, start
):
    task = start(port=broker.port, payload_size_max_bytes=1000)
    await until(lambda: "connected" in house.states)
    huge = b'{"device":"' + b"x" * 5_000_000 + b'"}'
    await publish(broker.port, [(TOPIC, huge), report(1)])
    await until(lambda: len(house.rows) == 1)
    await publish(broker.port, [report(2)])
    await until(lambda: len(house.rows) == 2)  # what came before is acknowledged
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert house.counts["rejected:too_large"] == 1
    (line,) = (house.state_dir / "quarantine.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["size_bytes"] < 140_000  # what was held of it
    assert int(entry["detail"].split()[3]) > 5_000_000
    assert huge not in await unacknowledged(broker.port, client_id("dams"))


async def test_an_mqtt_5_broker_is_told_what_is_too_large(broker, house, start):
    start(port=broker.port, protocol="5", payload_size_max_bytes=1000)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [(TOPIC, b'{"device":"' + b"x" * 200_000 + b'"}'), report(1)])
    await until(lambda: len(house.rows) == 1)
    assert house.counts["received"] == 1


async def test_messages_that_come_too_fast_wait_and_none_is_lost(broker, house, start):
    start(port=broker.port, messages_per_s_max=100)
    await until(lambda: "connected" in house.states)
    await publish(broker.port, [report(n) for n in range(130)])
    await until(lambda: len(house.rows) == 130)
    assert house.counts["throttled"] >= 1
