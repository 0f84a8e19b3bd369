"""The demo's broker: what it can do for the real clients, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from adapters.mqtt_json import KIND as ADAPTER
from adapters.mqtt_json.config import MqttJsonConfig
from gateway.contract.adapter import AdapterContext
from gateway.contract.mqtt import MqttTarget
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.contract.simulator import SimulatorContext
from gateway.model.errors import Unavailable
from gateway.runtime.broker import EmbeddedBroker
from gateway.testing.servers import mosquitto_sub, until
from simulators.mqtt_json import KIND as SIMULATOR
from simulators.mqtt_json.config import TailingsConfig

T0 = 1_773_468_000_000_000_000

pytestmark = pytest.mark.system


async def listener(port: int, name: str, *filters: str, session: bool = False, ack: bool = True):
    heard: list[tuple[str, bytes, bool]] = []
    link = MqttLink(MqttTarget(port=port), name, session=session)

    def on_message(message) -> None:
        heard.append((message.topic, bytes(message.payload), message.retain))
        if ack and message.qos:
            link.acknowledge(message.mid)

    link.on_message = on_message
    await link.open()
    await link.subscribe(filters)
    return link, heard


async def publish(port: int, *messages: Outgoing) -> None:
    link = MqttLink(MqttTarget(port=port), "sender")
    await link.open()
    await link.publish(messages)
    await link.close()


async def test_what_is_published_arrives_and_a_retained_message_stays():
    async with EmbeddedBroker() as broker:
        link, heard = await listener(broker.port, "here", "a/#")
        await publish(broker.port, Outgoing("a/b", b"1", retain=True), Outgoing("a/c", b"2"))
        await until(lambda: len(heard) == 2)
        assert sorted(heard) == [("a/b", b"1", False), ("a/c", b"2", False)]
        late, standing = await listener(broker.port, "late", "a/#")
        await until(lambda: standing)
        assert set(standing) == {("a/b", b"1", True)}  # amqtt gives it out twice
        await link.close()
        await late.close()


async def test_an_absent_clients_messages_are_kept_for_its_session():
    async with EmbeddedBroker() as broker:
        link, _ = await listener(broker.port, "dams", "a/#", session=True)
        await link.close()
        await publish(broker.port, *(Outgoing("a/b", b"%d" % n) for n in range(20)))
        again, heard = await listener(broker.port, "dams", "a/#", session=True)
        assert again.session_present
        await until(lambda: len(heard) == 20)
        assert sorted(int(payload) for _, payload, _ in heard) == list(range(20))
        await again.close()


async def test_the_last_will_is_told_and_retained_when_a_client_vanishes():
    async with EmbeddedBroker() as broker:
        link, heard = await listener(broker.port, "here", "status")
        dying = MqttLink(
            MqttTarget(port=broker.port), "dying", will=Outgoing("status", b"gone", retain=True)
        )
        await dying.open()
        dying.abort()
        await until(lambda: heard)
        assert heard[0][:2] == ("status", b"gone")
        await dying.close()
        await link.close()


async def test_mosquitto_sub_hears_it(tmp_path):
    async with EmbeddedBroker() as broker:

        def listen():
            return mosquitto_sub(broker.port, tmp_path, "alarm/#")

        manager = await asyncio.to_thread(listen)
        live = await asyncio.to_thread(manager.__enter__)
        try:
            await publish(broker.port, Outgoing("alarm/x", "报警".encode()))
            await until(lambda: live.heard)
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)
        assert [(m.topic, m.payload) for m in live.heard] == [("alarm/x", "报警")]


async def test_stopping_drops_the_clients_and_leaves_no_task_and_no_listener():
    tasks = asyncio.all_tasks()
    broker = EmbeddedBroker()
    port = await broker.start()
    link, _ = await listener(port, "here", "a/#")
    await broker.stop()
    await asyncio.wait_for(link.lost.wait(), 5)
    await link.close()
    with pytest.raises(Unavailable):
        await MqttLink(MqttTarget(port=port), "late").open()
    await until(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()})
    await broker.stop()  # a second time is nothing


async def test_it_starts_again_on_the_same_port_and_a_taken_port_is_an_error():
    async with EmbeddedBroker() as first:
        port = first.port
        with pytest.raises(OSError, match=str(port)):
            await EmbeddedBroker(port=port).start()
    async with EmbeddedBroker(port=port) as again:
        assert again.port == port


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_it_listens_on_the_loopback_interface_only(host):
    with pytest.raises(ValueError, match="loopback"):
        EmbeddedBroker(host)


async def test_five_hundred_messages_pass_in_a_moment():
    async with EmbeddedBroker() as broker:
        link, heard = await listener(broker.port, "here", "a/#")
        await publish(broker.port, *(Outgoing("a/b", b"%d" % n) for n in range(500)))
        await until(lambda: len(heard) == 500)
        assert {int(payload) for _, payload, _ in heard} == set(range(500))
        await link.close()


class _Store:
    """Emit, declare and counters of an adapter, and the ledger of a simulator."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.stored: set[tuple[str, int, float]] = set()
        self.promised: set[tuple[str, int, float]] = set()

    async def points(self, points):
        self.ids += [point.id for point in points]
        return [self.ids.index(point.id) for point in points]

    async def devices(self, devices):
        return [0] * len(devices)

    async def __call__(self, batch) -> None:
        for index, time_ns, value in zip(
            batch.point_index.tolist(),
            batch.source_time_ns.tolist(),
            batch.value.tolist(),
            strict=True,
        ):
            self.stored.add((self.ids[index], time_ns, value))

    def count(self, *_args, **_kwargs) -> None:
        return

    def sent(self, _samples) -> None:
        return

    def acknowledged(self, samples) -> None:
        self.promised.update(tuple(sample) for sample in samples)


async def test_the_simulated_dams_and_the_adapter_meet_over_it_without_a_loss(tmp_path):
    async with EmbeddedBroker() as broker:
        store, connected = _Store(), asyncio.Event()

        def status(state: str, _detail: str = "") -> None:
            if state == "connected":
                connected.set()

        context = AdapterContext("dams", lambda: T0, store, status, tmp_path, lambda: ())
        config = MqttJsonConfig(profile="tailings-generic", port=broker.port)
        serving = asyncio.create_task(ADAPTER.build(config, context).run(store, store))
        await asyncio.wait_for(connected.wait(), 10)
        dams = TailingsConfig(port=broker.port, dams=("a", "b"), interval_s=1, duration_s=50)
        sim_context = SimulatorContext("sim", 1, store, lambda: T0, lambda _s: asyncio.sleep(0))
        await SIMULATOR.build(dams, sim_context).run()
        assert len(store.promised) == 2 * 50 * 9
        await until(lambda: store.stored >= store.promised)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert store.stored == store.promised
