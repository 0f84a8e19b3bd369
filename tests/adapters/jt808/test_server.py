"""The server over real loopback sockets: durable before answered, limits, logins, restarts."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.jt808 import KIND
from adapters.jt808.admission import RateLimit
from adapters.jt808.client import Jt808Server
from adapters.jt808.codec import (
    Authentication,
    BulkLocation,
    Heartbeat,
    Location,
    PlatformReply,
    Registration,
    RegistrationReply,
    time_bcd,
)
from adapters.jt808.config import Jt808Config
from gateway.model.errors import ConfigError, Refused, SpoolFull, StorageFault, Unavailable

pytestmark = pytest.mark.system
S = 1_000_000_000
SOURCE = 1_785_513_599 * S
PHONE = "13900000001"


def position(second: int = 0) -> Location:
    return Location(0, 3, 29_500_000, 106_500_000, 240, 555, 90, time_bcd(SOURCE + second * S))


async def test_a_terminal_registers_reports_and_is_stored_under_declared_points(site: Any) -> None:
    await site.start(
        vehicles=[{"phone": "013900000001", "vehicle_class": "hazmat", "name": "一号车"}],
        report_interval_s=10,
    )
    caller = await site.call()
    await caller.login(PHONE)
    caller.send(position(), PHONE)
    assert await caller.hear() == PlatformReply(2, 0x0200, 0)
    caller.send(Heartbeat(), PHONE)
    assert await caller.hear() == PlatformReply(3, 0x0002, 0)
    assert [row for row in site.house.rows() if row[0].endswith((".lon", ".speed", ".link"))] == [
        ("v13900000001.link", 1.0, site.house.now_ns),
        ("v13900000001.lon", 106.5, SOURCE),
        ("v13900000001.speed", 55.5, SOURCE),
        ("v13900000001.link", 1.0, site.house.now_ns),
    ]
    device = site.house.table.device("v13900000001")
    assert (device.kind, device.name, device.adapter) == ("vehicle", "一号车", "fleet")
    assert device.attributes["plate"] == "测A00001"
    point = site.house.table.get("v13900000001.speed")
    assert (point.quantity, point.interval_s) == ("vehicle_speed", 10)
    assert point.attributes == {"vehicle_class": "hazmat"}
    assert site.house.counts["received"] == site.house.counts["accepted"] == 4


async def test_nothing_is_answered_while_emit_waits(site: Any) -> None:
    await site.start()
    caller = await site.call()
    await caller.login(PHONE)
    site.house.open.clear()
    caller.send(position(), PHONE)
    await site.until(lambda: site.house.emit_count == 2)
    for second in range(1, 4):
        caller.send(position(second), PHONE)
    await site.until(lambda: site.house.counts["received"] == 6)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.reader.read(1), 0.05)
    site.house.open.set()
    await site.until(lambda: site.house.counts["accepted"] == 6)
    assert len([row for row in site.house.rows() if row[0].endswith(".lon")]) == 4


async def test_one_emit_serves_many_terminals(site: Any) -> None:
    await site.start()
    callers = [await site.call() for _ in range(20)]
    for number, caller in enumerate(callers):
        await caller.login(str(1000 + number))
    site.house.open.clear()
    before = site.house.emit_count
    for number, caller in enumerate(callers):
        caller.send(position(), str(1000 + number))
    await site.until(lambda: site.house.counts["received"] == 60)
    site.house.open.set()
    for caller in callers:
        assert await caller.hear() == PlatformReply(2, 0x0200, 0)
    assert site.house.emit_count - before <= 3
    assert len({row[0] for row in site.house.rows() if row[0].endswith(".lon")}) == 20


@pytest.mark.parametrize("fault", [SpoolFull("full"), StorageFault("disk")])
async def test_a_message_that_is_not_durable_is_not_answered_and_its_repeat_is_stored(
    site: Any, fault: Exception
) -> None:
    await site.start()
    caller = await site.call()
    code = await caller.login(PHONE)
    site.house.fault = fault
    wire = caller.send(position(), PHONE)
    assert await caller.hear() is None
    assert site.house.states[-1][0] == "faulty"
    assert site.house.counts["dropped not_durable"] == 1
    site.house.fault = None
    again = await site.call()
    await again.authenticate(PHONE, code)
    again.writer.write(wire)
    assert await again.hear() == PlatformReply(2, 0x0200, 0)
    assert len([row for row in site.house.rows() if row[0].endswith(".lon")]) == 1
    assert site.house.states[-1][0] == "listening"


async def test_noise_is_answered_with_nothing_and_costs_no_frame_behind_it(site: Any) -> None:
    await site.start()
    caller = await site.call()
    rng = random.Random(808)
    caller.writer.write(rng.randbytes(3000))
    await caller.login(PHONE)  # the first answers are the login's
    for _ in range(20):
        caller.writer.write(rng.randbytes(rng.randint(1, 200)))
        serial = caller.serial
        caller.send(Heartbeat(), PHONE)
        assert await caller.hear() == PlatformReply(serial, 0x0002, 0)
    assert site.house.counts["rejected framing"] >= 1


async def test_a_second_login_closes_the_first_and_is_itself_served(site: Any) -> None:
    await site.start()
    first = await site.call()
    code = await first.login(PHONE)
    second = await site.call()
    await second.authenticate(PHONE, code)
    assert await first.hear() is None
    second.send(Heartbeat(), PHONE)
    assert await second.hear() == PlatformReply(1, 0x0002, 0)
    assert site.house.counts["closed replaced"] == 1
    await site.until(lambda: "1 terminals, 1 connections" in site.house.states[-1][1])


async def test_connections_beyond_the_limit_are_closed_at_once(site: Any) -> None:
    await site.start(connections_max=2)
    kept = [await site.call() for _ in range(2)]
    for number, caller in enumerate(kept):
        await caller.login(str(1000 + number))
    refused = await site.call()
    assert await refused.hear() is None
    assert site.house.counts["rejected connections"] == 1
    kept[0].writer.close()
    await site.until(lambda: "1 connections" in site.house.states[-1][1])
    await (await site.call()).login("1000")


async def test_a_silent_connection_and_one_that_never_logs_in_are_closed(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jt808.client.TICK_S", 0.01)
    monkeypatch.setattr(Jt808Server, "_steady_ns", lambda _self: site.house.now_ns)
    await site.start(silence_timeout_s=180, login_timeout_s=60)
    known, unknown = await site.call(), await site.call()
    await known.login(PHONE)
    unknown.send(Heartbeat(), "7")
    await unknown.hear()
    site.house.now_ns += 60 * S
    assert await unknown.hear() is None
    site.house.now_ns += 120 * S
    assert await known.hear() is None
    assert site.house.counts["closed login"] == site.house.counts["closed silent"] == 1
    assert not [row for row in site.house.rows() if row[2] > 1_785_513_700 * S]


async def test_wrong_codes_are_refused_and_then_the_connection_is_closed(site: Any) -> None:
    await site.start(auth_failures_max=2)
    caller = await site.call()
    for serial in range(2):
        caller.send(Authentication("guess"), PHONE)
        assert await caller.hear() == PlatformReply(serial, 0x0102, 1)
    assert await caller.hear() is None
    assert site.house.batches == []


async def test_codes_survive_a_restart(site: Any) -> None:
    await site.start()
    caller = await site.call()
    code = await caller.login(PHONE)
    assert PHONE not in code
    assert len(code) == 32
    await site.stop()
    await site.start()
    again = await site.call()
    await again.authenticate(PHONE, code)
    device = site.house.table.device("v13900000001")
    assert device.attributes["plate"] == "测A00001"  # as registered before the restart


async def test_a_code_that_cannot_be_kept_is_not_told(site: Any, tmp_path: Path) -> None:
    await site.start()
    (tmp_path / "registrations.jsonl").unlink()
    (tmp_path / "registrations.jsonl").mkdir()
    caller = await site.call()
    caller.send(Registration(2013, 0, 0, "M", "M", "T1", 2, "测A00001"), PHONE)
    assert await caller.hear() is None
    assert site.house.states[-1][0] == "faulty"
    (tmp_path / "registrations.jsonl").rmdir()
    code = await (await site.call()).login(PHONE)
    assert code in (tmp_path / "registrations.jsonl").read_text("utf-8")


async def test_known_vehicles_come_from_a_file_and_others_are_refused(
    site: Any, tmp_path: Path
) -> None:
    path = tmp_path / "vehicles.csv"
    path.write_text("phone,plate,vehicle_class\n13900000001,测A00001,coach\n", "utf-8")
    await site.start(registration="known", vehicles_file=str(path))
    caller = await site.call()
    caller.send(Registration(2013, 0, 0, "M", "M", "T1", 2, "测A00009"), PHONE)
    assert await caller.hear() == RegistrationReply(0, 2)
    await caller.login(PHONE)
    assert site.house.table.get("v13900000001.link").attributes == {"vehicle_class": "coach"}


async def test_a_vehicle_with_a_clock_of_its_own_is_read_by_it_and_oddities_are_counted(
    site: Any,
) -> None:
    await site.start(vehicles=[{"phone": PHONE, "utc_offset_h": 0}])
    caller = await site.call()
    await caller.login(PHONE)
    caller.send(replace(position(), speed=0xFFFF, tail=b"\x01\x09"), PHONE)
    await caller.hear()
    times = [row[2] for row in site.house.rows() if row[0].endswith(".lon")]
    assert times == [SOURCE + 8 * 3600 * S]
    assert site.house.counts["flagged range"] == site.house.counts["flagged tlv"] == 1


async def test_positions_of_a_dead_zone_are_stored_with_their_old_times(site: Any) -> None:
    await site.start()
    caller = await site.call()
    await caller.login(PHONE)
    bulk = BulkLocation(1, tuple(position(30 * number) for number in range(3)))
    caller.send(bulk, PHONE)
    assert await caller.hear() == PlatformReply(2, 0x0704, 0)
    times = [row[2] for row in site.house.rows() if row[0].endswith(".lon")]
    assert times == [SOURCE, SOURCE + 30 * S, SOURCE + 60 * S]


async def test_a_terminal_that_sends_too_fast_is_slowed_and_loses_nothing(site: Any) -> None:
    await site.start(frames_per_s_max=50)
    caller = await site.call()
    await caller.login(PHONE)
    for second in range(220):  # the burst allows 200 frames, the login was two
        caller.send(position(second), PHONE)
    for _ in range(220):
        reply = await caller.hear()
        assert isinstance(reply, PlatformReply)
        assert reply.result == 0
    assert site.house.counts["throttled"] >= 1
    assert len([row for row in site.house.rows() if row[0].endswith(".lon")]) == 220


def test_the_pause_is_what_the_rate_asks_for() -> None:
    limit = RateLimit(10, 1000, burst_s=4, now_ns=0)
    assert limit.pause_s(40, 0, 0) == 0
    assert limit.pause_s(10, 0, 0) == 1.0
    assert limit.pause_s(0, 0, S) == 0
    assert limit.pause_s(0, 6000, S) == 2.0
    assert limit.pause_s(0, 0, 100 * S) == 0


async def test_too_much_that_is_not_durable_stops_the_reading_until_it_is(site: Any) -> None:
    await site.start(pending_messages_max=5)
    caller = await site.call()
    await caller.login(PHONE)
    site.house.open.clear()
    for second in range(3):
        for number in range(40):
            caller.send(position(second * 40 + number), PHONE)
        await caller.writer.drain()
    await site.until(lambda: site.house.emit_count == 2)
    site.house.open.set()
    for _ in range(120):
        assert isinstance(await caller.hear(), PlatformReply)
    assert len({row for row in site.house.rows() if row[0].endswith(".lon")}) == 120


async def test_vehicles_that_are_new_wait_for_each_other_and_not_those_that_are_known(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jt808.intake.COMMIT_FRESH_MAX", 1)
    await site.start()
    known = await site.call()
    await known.login(PHONE)
    known.send(position(), PHONE)
    await known.hear()
    fresh, codes = [await site.call() for _ in range(5)], []
    for number, caller in enumerate(fresh):
        caller.send(Registration(2013, 0, 0, "M", "M", "T1", 2, "测A00001"), str(2000 + number))
        reply = await caller.hear()
        assert isinstance(reply, RegistrationReply)
        codes.append(reply.code)
    site.house.declare_gate.clear()  # new vehicles hang in their declarations
    for number, (caller, code) in enumerate(zip(fresh, codes, strict=True)):
        caller.send(Authentication(code), str(2000 + number))
    await site.until(lambda: site.house.declare_waiting)
    for second in range(1, 4):
        known.send(position(second), PHONE)
        assert await known.hear() == PlatformReply(2 + second, 0x0200, 0)
    site.house.declare_gate.set()
    for caller in fresh:
        assert isinstance(await caller.hear(), PlatformReply)


async def test_what_does_not_fit_one_commit_follows_in_the_next(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.jt808.intake.COMMIT_MESSAGES_MAX", 3)
    await site.start()
    caller = await site.call()
    await caller.login(PHONE)
    for second in range(10):
        caller.send(position(second), PHONE)
    for serial in range(2, 12):
        assert await caller.hear() == PlatformReply(serial, 0x0200, 0)
    assert max(len(batch) for batch in site.house.batches) <= 3 * 7
    times = [row[2] for row in site.house.rows() if row[0].endswith(".lon")]
    assert times == [SOURCE + second * S for second in range(10)]


async def test_a_taken_port_is_worth_a_retry_and_a_bad_list_is_not(
    site: Any, tmp_path: Path
) -> None:
    await site.start()
    taken = Jt808Server(Jt808Config(host="127.0.0.1", port=site.server.port), site.house.context)
    with pytest.raises(Unavailable):
        await taken.run(site.house.emit, site.house)
    config = Jt808Config(port=0, vehicles_file=str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError):
        await Jt808Server(config, site.house.context).run(site.house.emit, site.house)
    twice = Jt808Config(port=0, vehicles=({"phone": "1"}, {"phone": "01"}))
    with pytest.raises(ConfigError):
        await Jt808Server(twice, site.house.context).run(site.house.emit, site.house)


async def test_a_port_that_is_not_allowed_is_refused(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("adapters.jt808.door._listening", denied)
    server = Jt808Server(Jt808Config(host="127.0.0.1", port=80), site.house.context)
    with pytest.raises(Refused):
        await server.run(site.house.emit, site.house)


async def test_an_unexpected_error_ends_the_adapter_with_its_own_type(site: Any) -> None:
    await site.start()
    caller = await site.call()
    site.house.fault = Unavailable("the house is gone")
    caller.send(Registration(2013, 0, 0, "M", "M", "T1", 2, "测A00001"), PHONE)
    reply = await caller.hear()
    assert isinstance(reply, RegistrationReply)  # nothing to emit yet
    caller.send(Authentication(reply.code), PHONE)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(site.task, 20)
    site.task = None
    assert await caller.hear() is None


async def test_the_kind_builds_this_server_without_touching_anything(site: Any) -> None:
    adapter = KIND.build(KIND.config(port=0), site.house.context)
    assert isinstance(adapter, Jt808Server)
    assert adapter.port == 0
