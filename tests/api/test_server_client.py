"""Core and web over a real Unix socket: push, requests, loss, slow peers, garbage."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.api import client as client_module
from gateway.api import link, server, wire
from gateway.api.client import LinkClient
from gateway.api.link import Frame, FrameDecoder, FrameKind
from gateway.api.server import LinkServer
from gateway.model.errors import Refused, Unavailable
from gateway.testing.core import FakeCore

pytestmark = pytest.mark.system
WAIT_S = 3.0


async def until(true, what: str = "") -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)


@pytest.fixture
def path():
    # Not tmp_path: a Unix socket's path holds about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        yield Path(folder) / "core.sock"


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@asynccontextmanager
async def linked(path: Path) -> AsyncIterator[LinkClient]:
    client = LinkClient(path)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def both(path: Path, core: FakeCore) -> AsyncIterator[tuple[LinkServer, LinkClient]]:
    async with LinkServer(path, core, software="test") as served, linked(path) as client:
        await until(lambda: len(client.newest) == len(link.TOPICS))
        yield served, client


async def raw(path: Path, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    return reader, writer


async def check_cut_off(path: Path, data: bytes) -> None:
    """What is sent ends the connection: the stream comes to its end."""
    reader, writer = await raw(path, data)
    async with asyncio.timeout(WAIT_S):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    writer.transport.abort()


async def test_a_new_web_process_gets_every_topic_at_once(path, core):
    core.raise_alarm("mine.01.methane.00")
    async with both(path, core) as (_, client):
        status = wire.Status.model_validate_json(client.newest["status"])
        values = wire.ValuesFrame.model_validate_json(client.newest["values"])
        alarms = wire.AlarmsFrame.model_validate_json(client.newest["alarms"])
        assert status.site == "liugou"
        assert len(values.value) == len(core.table) == status.point_count
        assert [row.key for row in alarms.alarms] == ["mine.01.methane.00:demo.hh"]
        assert alarms.gseq == alarms.events[-1].gseq == 1
        assert client.core_software == "test"
        assert client.state.connected


async def test_values_come_again_by_themselves_and_an_alarm_at_once(path, core, monkeypatch):
    monkeypatch.setattr(server, "PUSH_INTERVAL_S", 0.05)
    async with both(path, core) as (_, client):
        pushed: list[str] = []
        client.on_push = lambda topic, _body: pushed.append(topic)
        await until(lambda: pushed.count("values") >= 3)
        assert "alarms" not in pushed
        core.raise_alarm("mine.01.methane.00")
        await until(lambda: "alarms" in pushed)


async def test_a_flood_of_alarms_is_a_few_frames_and_the_last_one_is_complete(path, core):
    async with both(path, core) as (_, client):
        frames: list[bytes] = []
        client.on_push = lambda topic, body: frames.append(body) if topic == "alarms" else None
        for point in list(core.table)[:150]:
            core.raise_alarm(point.id)
            await asyncio.sleep(0)
        await until(lambda: frames and json.loads(frames[-1])["gseq"] == 150)
        assert len(frames) <= 5
        assert json.loads(frames[-1])["total_count"] == 150


async def test_requests_are_answered_by_id_in_any_order(path, core):
    async with both(path, core) as (_, client):
        points, events, history = await asyncio.gather(
            client.request("points"),
            client.request("events", b'{"limit":5}'),
            client.request(
                "history",
                wire.HistoryQuery(
                    point_id="dam.pool_level.00", from_ms=1_700_000_000_000,
                    to_ms=1_700_000_600_000, count=10,
                ).encoded(),
            ),
        )  # fmt: skip
        assert len(wire.PointsFrame.model_validate_json(points).points) == len(core.table)
        assert wire.EventsPage.model_validate_json(events).events == []
        assert len(wire.HistoryBuckets.model_validate_json(history).mean) == 10


async def test_a_command_is_carried_out_and_comes_back_as_an_alarm_frame(path, core):
    alarm = core.raise_alarm("mine.01.methane.00")
    async with both(path, core) as (_, client):
        command = wire.Command(
            name="acknowledge", alarm_key=alarm.alarm_key, operator="王芳", token=wire.token(alarm)
        )
        result = wire.CommandResult.model_validate_json(
            await client.request("command", command.encoded())
        )
        assert result.code == "done"
        await until(lambda: json.loads(client.newest["alarms"])["gseq"] == 2)
        assert json.loads(client.newest["alarms"])["alarms"][0]["acknowledged_by"] == "王芳"


ERRORS = [
    ("no_such_method", b"{}", Refused),
    ("events", b'{"limit":0}', Refused),
    ("events", b"not json", Refused),
    ("history", b'{"point_id":"nobody","from_ms":0,"to_ms":1}', KeyError),
]


@pytest.mark.parametrize(("method", "body", "error"), ERRORS)
async def test_a_wrong_request_is_an_error_of_its_kind_and_the_link_lives_on(
    path, core, method, body, error
):
    async with both(path, core) as (_, client):
        with pytest.raises(error):
            await client.request(method, body)
        assert client.connected
        await client.request("points")


async def test_a_store_that_is_away_is_unavailable_not_an_end_of_the_link(path, core):
    core.history_down = True
    async with both(path, core) as (_, client):
        with pytest.raises(Unavailable):
            await client.request("history", b'{"point_id":"dam.rain.03","from_ms":0,"to_ms":1000}')
        assert client.connected


async def test_a_fault_in_the_core_is_answered_and_costs_no_live_frames(path, core, caplog):
    async def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    core.command = broken
    async with both(path, core) as (_, client):
        command = wire.Command(name="acknowledge", alarm_key="a", operator="b").encoded()
        with pytest.raises(Unavailable, match="failed"):
            await client.request("command", command)
        assert client.connected
        assert "request command failed" in caplog.text


async def test_requests_without_a_link_or_beyond_the_limit_are_refused_at_once(path, core):
    lonely = LinkClient(path)
    with pytest.raises(Unavailable):
        await lonely.request("points")
    async with both(path, core) as (_, client):
        never = asyncio.Event()

        async def stuck(*_args):
            await never.wait()

        core.events = stuck
        waiting = [
            asyncio.create_task(client.request("events")) for _ in range(client_module.PENDING_MAX)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="waiting"):
            await client.request("points")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_no_answer_in_time_is_unavailable(path, core, monkeypatch):
    monkeypatch.setattr(client_module, "REQUEST_TIMEOUT_S", 0.05)
    async with both(path, core) as (_, client):

        async def stuck(*_args):
            await asyncio.Event().wait()

        core.events = stuck
        with pytest.raises(Unavailable, match="no answer"):
            await client.request("events")
        monkeypatch.undo()
        await client.request("points")


async def test_a_flood_of_requests_is_answered_busy_and_bounded(path, core):
    never = asyncio.Event()

    async def stuck(*_args, **_kwargs):
        await never.wait()

    async with LinkServer(path, core):
        core.history = stuck
        query = b'{"point_id":"dam.rain.03","from_ms":0,"to_ms":1000}'
        requests = [
            link.encode(Frame(FrameKind.REQUEST, n, "history", query))
            for n in range(server.REQUESTS_MAX + 5)
        ]
        reader, writer = await raw(path, link.encode(link.hello("x")) + b"".join(requests))
        decoder = FrameDecoder()
        busy: list[Frame] = []
        async with asyncio.timeout(WAIT_S):
            while len(busy) < 5:
                frames = decoder.feed(await reader.read(65536))
                busy += [f for f in frames if f.kind is FrameKind.ERROR]
        assert [f.id for f in busy] == [server.REQUESTS_MAX + n for n in range(5)]
        assert all(json.loads(f.body)["code"] == "busy" for f in busy)
        writer.transport.abort()


async def test_a_core_that_goes_and_comes_back_is_found_again_and_its_age_is_told(path, core):
    clock = [100.0]
    client = LinkClient(path, monotonic=lambda: clock[0])
    task = asyncio.create_task(client.run())
    assert client.state.age_ms is None
    async with LinkServer(path, core):
        await until(lambda: "values" in client.newest)
        clock[0] += 7.25
        assert client.state.age_ms == 7250
    await until(lambda: not client.connected)
    assert "values" in client.newest  # kept: the screen greys it, it does not lose it
    with pytest.raises(Unavailable):
        await client.request("points")
    async with LinkServer(path, core):
        await until(lambda: client.connected and client.connect_count == 2)
        await until(lambda: client.state.age_ms == 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not client.connected


async def test_a_request_in_flight_when_the_link_breaks_fails_at_once(path, core):
    async with both(path, core) as (served, client):

        async def stuck(*_args):
            await asyncio.Event().wait()

        core.events = stuck
        request = asyncio.create_task(client.request("events"))
        await asyncio.sleep(0.01)
        await served.close()
        with pytest.raises(Unavailable, match="lost"):
            await request


GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    link.encode(Frame(FrameKind.PUSH, 0, "values", b"{}")),
    link.encode(Frame(FrameKind.HELLO, 0, "", b'{"protocol":99}')),
    link.encode(link.hello("x")) + link.encode(Frame(FrameKind.PUSH, 0, "values", b"{}")),
    link.encode(link.hello("x")) + b"\xff" * 64,
]


@pytest.mark.parametrize("data", GARBAGE)
async def test_who_does_not_speak_the_protocol_is_cut_off_and_others_notice_nothing(
    path, core, data
):
    async with both(path, core) as (served, client):
        await check_cut_off(path, data)
        await until(lambda: served.peer_count == 1)
        await client.request("points")


async def test_a_silent_guest_is_cut_off(path, core, monkeypatch):
    monkeypatch.setattr(server, "HELLO_TIMEOUT_S", 0.05)
    async with LinkServer(path, core):
        await check_cut_off(path, b"")


async def test_callers_that_say_nothing_take_no_more_places_than_there_are(path, core, monkeypatch):
    monkeypatch.setattr(server, "PEERS_MAX", 2)
    async with LinkServer(path, core) as served:
        silent = [await raw(path, b"") for _ in range(2)]
        for reader, _ in silent:
            await reader.readexactly(1)  # greeted: it has its place
        await check_cut_off(path, b"")
        assert served.refused_peer_count == 1
        for _, writer in silent:
            writer.transport.abort()


async def test_a_request_larger_than_any_command_is_cut_off(path, core):
    hello = link.encode(link.hello("x"))
    large = link.encode(Frame(FrameKind.REQUEST, 1, "command", bytes(link.REQUEST_SIZE_MAX)))
    async with LinkServer(path, core):
        await check_cut_off(path, hello + large[:8])


async def test_a_peer_that_reads_nothing_is_cut_off_and_never_delays_the_others(
    path, core, monkeypatch
):
    monkeypatch.setattr(server, "SLOW_PEER_S", 0.1)
    monkeypatch.setattr(server, "PUSH_INTERVAL_S", 0.002)
    monkeypatch.setattr(server, "WRITE_HIGH_WATER", 4096)
    async with both(path, core) as (served, client):
        received = []
        client.on_push = lambda topic, _body: received.append(topic)
        _reader, writer = await raw(path, link.encode(link.hello("asleep")))
        writer.transport.pause_reading()
        await until(lambda: served.peer_count == 2)
        await until(lambda: served.slow_peer_count == 1)
        await until(lambda: served.peer_count == 1)
        assert received.count("values") > 10
        assert client.connect_count == 1
        writer.transport.abort()


async def test_more_peers_than_allowed_are_turned_away(path, core, monkeypatch):
    monkeypatch.setattr(server, "PEERS_MAX", 1)
    async with both(path, core) as (served, client):
        await check_cut_off(path, link.encode(link.hello("one too many")))
        assert served.refused_peer_count == 1
        assert client.connected


async def test_the_socket_is_private_and_a_leftover_file_does_not_stop_the_start(path, core):
    first = LinkServer(path, core)
    await first.start()
    assert path.stat().st_mode & 0o777 == 0o600
    for task in first._tasks:
        task.cancel()
    first._server.close()  # as after a kill: the file stays
    assert path.is_socket()
    async with both(path, core):
        pass
    assert not path.exists()


async def test_points_are_serialised_again_only_when_the_table_changed(path, core):
    async with both(path, core) as (served, client):
        first = await client.request("points")
        kept = served._points[1]
        assert await client.request("points") == first
        assert served._points[1] is kept
        core.table.put(core.table[0].__class__("new.point"))
        assert json.loads(await client.request("points"))["points"][-1]["id"] == "new.point"
