"""One simulated terminal: what it sends when, repeats, records, and tells the ledger. No sockets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from adapters.jt808.codec import (
    EDITION_2013,
    EDITION_2019,
    Authentication,
    BulkLocation,
    Frame,
    FrameReader,
    Heartbeat,
    Location,
    Message,
    PlatformReply,
    RawMessage,
    Registration,
    RegistrationReply,
    decode_message,
    encode_message,
)
from gateway.contract.simulator import SentSample
from simulators.jt808.config import Jt808FleetConfig
from simulators.jt808.drive import Drive, samples_of
from simulators.jt808.drive import Path as Route
from simulators.jt808.terminal import BULK_MAX, Outside, Terminal

S = 1_000_000_000
START = 1_785_513_600 * S
PHONE = "13900000001"
SCENARIOS = sorted(Path("simulators/scenarios").resolve().glob("jt808-*.toml"))


class Ledger:
    def __init__(self) -> None:
        self.sent_samples: list[SentSample] = []
        self.acknowledged_samples: list[SentSample] = []

    def sent(self, samples: Any) -> None:
        self.sent_samples += samples

    def acknowledged(self, samples: Any) -> None:
        self.acknowledged_samples += samples


class Bench:
    """A terminal and the platform's pencil."""

    def __init__(self, **options: Any) -> None:
        options = {"vehicle_count": 1, "report_interval_s": 10, **options}
        self.config = Jt808FleetConfig(**options)
        self.ledger = Ledger()
        self.logs: list[str] = []
        outside = Outside(self.ledger, seed=7, start_ns=START, log=self.logs.append)
        self.terminal = Terminal(self.config.fleet()[0], self.config, outside)
        self.wires: list[bytes] = []
        self._reader = FrameReader()

    def out(self) -> list[tuple[int, Message]]:
        """What it wrote since: serial and message."""
        data = self.terminal.take_output()
        frames = self._reader.feed(data)
        said = []
        for frame in frames:
            assert isinstance(frame, Frame)
            self.wires.append(frame.content)
            said.append((frame.header.serial, decode_message(frame.header, frame.body)))
        return said

    def at(self, t_s: float) -> list[tuple[int, Message]]:
        self.terminal.tick(START + int(t_s * S))
        return self.out()

    def reply(self, message: Message, t_s: float = 0.0) -> list[tuple[int, Message]]:
        self.terminal.receive(encode_message(message, PHONE, 0, EDITION_2013), START + int(t_s * S))
        return self.out()

    def connect(self, t_s: float = 0.0) -> list[tuple[int, Message]]:
        self._reader = FrameReader()
        self.terminal.connected(START + int(t_s * S))
        return self.out()

    def login(self) -> None:
        self.connect()
        self.reply(RegistrationReply(0, 0, "secret"))
        self.reply(PlatformReply(1, 0x0102, 0))

    def ok(self, serial: int, message: Message, t_s: float = 0.0) -> list[tuple[int, Message]]:
        return self.reply(PlatformReply(serial, message.message_id, 0), t_s)


def test_it_registers_authenticates_and_then_reports() -> None:
    bench = Bench()
    ((serial, registration),) = bench.connect()
    assert serial == 0
    assert isinstance(registration, Registration)
    assert (registration.plate, registration.terminal_id) == ("测A00001", "T000001")
    assert bench.at(0) == []  # nothing else before authentication succeeded
    ((serial, login),) = bench.reply(RegistrationReply(0, 0, "secret"))
    assert (serial, login) == (1, Authentication("secret"))
    assert bench.ledger.sent_samples == [SentSample("v13900000001.link", 0, 1.0)]
    assert bench.ledger.acknowledged_samples == []
    ((serial, bulk),) = bench.ok(1, login)  # the position of second 0 was recorded meanwhile
    assert bench.ledger.acknowledged_samples == bench.ledger.sent_samples[:1]
    assert isinstance(bulk, BulkLocation)
    bench.ok(serial, bulk)
    ((_, location),) = bench.at(10)
    assert isinstance(location, Location)
    assert location.time_ns(8 * 3600) == START + 10 * S


def test_a_sample_is_sent_once_and_acknowledged_by_its_own_reply() -> None:
    bench = Bench()
    bench.login()
    ((serial, location),) = bench.at(0) or [(0, Heartbeat())]
    before = len(bench.ledger.acknowledged_samples)
    bench.reply(PlatformReply(serial, 0x0002, 0))  # the wrong id
    bench.reply(PlatformReply(serial + 1, 0x0200, 0))  # the wrong serial
    assert len(bench.ledger.acknowledged_samples) == before
    assert bench.at(10.1)
    bench.ok(serial, location)
    assert len(bench.ledger.acknowledged_samples) == before + 12
    bench.ok(serial, location)  # a second reply says nothing new
    assert len(bench.ledger.acknowledged_samples) == before + 12


def test_the_ledger_names_what_the_wire_carries() -> None:
    bench = Bench(edition="2019", route=[[-58.4, -34.6], [-58.39, -34.61]])
    bench.login()
    ((_, location),) = bench.at(0)
    assert isinstance(location, Location)
    said = {s.point.removeprefix("v13900000001."): s for s in bench.ledger.sent_samples[1:]}
    assert said["lon"].value == location.lon_deg < 0
    assert said["lat"].value == location.lat_deg < 0
    assert said["speed"].value == location.speed / 10
    assert said["odometer"].value == 120000.0
    assert said["cabin_temperature"].value == 4
    assert {s.source_time_ns for s in said.values()} == {START}


def test_unanswered_messages_are_repeated_byte_for_byte_after_growing_times() -> None:
    bench = Bench(reply_timeout_s=10, reply_timeout_max_s=1000, resend_count_max=3, duration_s=5,
                  heartbeat_interval_s=1000)  # fmt: skip
    bench.login()
    bench.at(0)
    wire = bench.wires[-1]
    due = [t for t in range(1, 400) if bench.at(t)]
    assert due == [10, 30, 90]  # T, 2T, 6T = T(n) * (n+1)
    assert bench.wires[-3:] == [wire] * 3
    assert len([s for s in bench.ledger.sent_samples if s.point.endswith(".lon")]) == 1
    assert not bench.terminal.wants_link(START + 400 * S)  # dead: to be connected anew


def test_a_wait_is_never_longer_than_its_limit() -> None:
    bench = Bench(reply_timeout_s=10, reply_timeout_max_s=15, resend_count_max=5, duration_s=5,
                  heartbeat_interval_s=1000)  # fmt: skip
    bench.login()
    bench.at(0)
    assert [t for t in range(1, 100) if bench.at(t)] == [10, 25, 40, 55, 70]


def test_after_a_reconnect_it_logs_in_with_its_code_and_repeats_what_is_unanswered() -> None:
    bench = Bench(reply_timeout_s=1000)
    bench.login()
    bench.at(0)
    bench.at(10)
    unanswered = bench.wires[-2:]
    bench.terminal.lost()
    assert bench.at(20) == []  # recorded
    ((serial, login),) = bench.connect(21)
    assert login == Authentication("secret")
    said = bench.ok(serial, login, 21)
    assert bench.wires[-len(said) :][:2] == unanswered
    assert isinstance(said[2][1], BulkLocation)
    points = [s for s in bench.ledger.sent_samples if s.point.endswith(".lon")]
    assert [s.source_time_ns for s in points] == [START, START + 10 * S, START + 20 * S]


def test_a_refused_code_makes_it_register_again_and_a_failed_position_is_kept() -> None:
    bench = Bench()
    bench.login()
    ((serial, location),) = bench.at(0)
    bench.reply(PlatformReply(serial, 0x0200, 1))
    assert not bench.terminal.wants_link(START)
    bench.terminal.lost()
    ((again, _),) = bench.connect(5)
    ((registering, registration),) = bench.reply(PlatformReply(again, 0x0102, 1), 5)
    assert isinstance(registration, Registration)
    ((login, _),) = bench.reply(RegistrationReply(registering, 0, "other"), 5)
    assert (serial, location) in bench.reply(PlatformReply(login, 0x0102, 0), 5)


def test_positions_of_a_lost_link_go_out_in_bulk_in_order() -> None:
    bench = Bench(link_loss=[{"at_s": 5, "for_s": 300}], heartbeat_interval_s=1000)
    bench.login()
    ((serial, location),) = bench.at(0)
    bench.ok(serial, location)
    assert bench.terminal.wants_link(START + 4 * S)
    assert not bench.terminal.wants_link(START + 5 * S)
    bench.terminal.lost()
    for t in range(10, 310, 10):
        assert bench.at(t) == []
    assert bench.terminal.wants_link(START + 305 * S)
    ((serial, login),) = bench.connect(305)
    said = bench.ok(serial, login, 305)
    assert [type(message) for _, message in said] == [BulkLocation] * 3
    assert [len(m.locations) for _, m in said] == [BULK_MAX, BULK_MAX, 10]  # type: ignore[union-attr]
    times = [loc.time_ns(8 * 3600) for _, m in said for loc in m.locations]  # type: ignore[union-attr]
    assert times == [START + t * S for t in range(10, 310, 10)]
    assert not bench.terminal.is_done(START + 310 * S)


def test_the_memory_of_a_lost_link_is_bounded_and_says_so() -> None:
    bench = Bench(recorded_max=3)
    for t in range(0, 60, 10):
        bench.at(t)
    assert len(bench.logs) == 3


def test_too_many_unanswered_messages_make_positions_wait() -> None:
    bench = Bench(unanswered_max=2, reply_timeout_s=1000, heartbeat_interval_s=10_000)
    bench.login()
    first = [bench.at(t) for t in range(0, 60, 10)]
    assert [len(said) for said in first] == [1, 1, 0, 0, 0, 0]
    ((serial, location),) = first[0]
    ((_, bulk),) = bench.ok(serial, location)
    assert len(bulk.locations) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("interval", "speed", "reports"), [(1.0, 1.0, 100), (1.0, 20.0, 5), (7.5, 3.0, 14), (40, 20, 3)]
)
def test_each_position_bears_a_second_of_its_own_and_of_the_wall_clock(
    interval: float, speed: float, reports: int
) -> None:
    bench = Bench(report_interval_s=interval, speed=speed, duration_s=100, reply_timeout_s=1000)
    bench.login()
    times = []
    for step in range(2100):
        t_s = step * 0.05
        for serial, message in bench.at(t_s):
            if isinstance(message, Location):
                times.append(message.time_ns(8 * 3600))
                assert times[-1] <= START + int(t_s * S)
            bench.ok(serial, message)
    assert len(times) == len(set(times)) == reports
    assert times == sorted(times)


def test_the_same_seed_drives_the_same_way_and_another_does_not() -> None:
    def drive(seed: int) -> list[Location]:
        vehicle = Jt808FleetConfig().fleet()[0]
        it = Drive(vehicle, seed=seed, edition=EDITION_2019, limit=0)
        return [it.position(t, 1_785_513_600 + t) for t in range(0, 300, 10)]

    assert drive(1) == drive(1)
    assert drive(1) != drive(2)


def test_a_silent_signal_sends_nothing_and_a_broken_one_has_no_fix() -> None:
    events = [
        {"kind": "silence", "at_s": 5, "for_s": 20},
        {"kind": "fault", "at_s": 28, "for_s": 5},
    ]
    bench = Bench(
        vehicle_speed={"base": 50, "events": events}, heartbeat_interval_s=15, reply_timeout_s=1000
    )
    bench.login()
    assert bench.at(0)
    assert bench.at(10) == bench.at(15) == bench.at(20) == []
    assert [type(m) for _, m in bench.at(30)] == [Location, Heartbeat]
    location = bench.ledger.sent_samples
    status = [s.value for s in location if s.point.endswith(".status")]
    assert [int(value) >> 1 & 1 for value in status] == [1, 0]


def test_the_terminals_own_overspeed_alarm_holds_while_it_is_too_fast() -> None:
    speed = {"base": 60, "events": [{"kind": "ramp", "at_s": 5, "to": 100, "hold_s": 30}]}
    bench = Bench(vehicle_speed=speed, speed_limit_km_h=80, reply_timeout_s=1000)
    bench.login()
    alarms = {}
    for t in range(0, 70, 10):
        ((_, location),) = [(n, m) for n, m in bench.at(t) if isinstance(m, Location)]
        alarms[t] = location.alarm_bits
    assert alarms == {0: 0, 10: 2, 20: 2, 30: 2, 40: 2, 50: 0, 60: 0}


def test_a_drained_terminal_sends_nothing_new_and_is_done_when_all_is_answered() -> None:
    bench = Bench(link_loss=[{"at_s": 0, "for_s": 1000}])
    bench.login()
    ((serial, location),) = bench.at(0)
    now = START + 500 * S
    bench.terminal.drain()
    assert bench.terminal.wants_link(now)
    assert bench.at(500) != []  # only the repeat
    assert not bench.terminal.is_done(now)
    bench.ok(serial, location)
    assert bench.terminal.is_done(now)


def test_a_vehicle_goes_round_its_route() -> None:
    path = Route(((0.0, 0.0), (0.0, 0.1), (0.1, 0.1)))
    assert path.at(0)[:2] == (0.0, 0.0)
    leg = path.length_m / (2 + 2**0.5)
    middle = path.at(leg / 2)
    assert middle.lat == pytest.approx(0.05, abs=1e-4)
    assert middle.heading == pytest.approx(0)
    assert path.at(leg * 1.5).heading == pytest.approx(90)
    assert path.at(path.length_m + 5)[:2] == pytest.approx(path.at(5)[:2])
    assert Route(((5.0, 6.0),)).at(100) == (5.0, 6.0, 0.0)


def test_samples_are_what_the_gateway_must_store() -> None:
    location = Location(1, 12, 29_563_215, 106_551_234, -12, 605, 271, bytes(6))
    found = {s.point: s.value for s in samples_of(location, "v1", 77)}
    assert found == {
        "v1.lon": -106.551234,
        "v1.lat": -29.563215,
        "v1.alt": -12.0,
        "v1.speed": 60.5,
        "v1.heading": 271.0,
        "v1.alarm": 1.0,
        "v1.status": 12.0,
    }


def test_there_are_three_scenarios() -> None:
    names = [path.stem for path in SCENARIOS]
    assert names == ["jt808-link-loss", "jt808-normal", "jt808-speeding"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_file_is_a_configuration_without_a_target(path: Path) -> None:
    scenario = tomllib.loads(path.read_text("utf-8"))
    assert set(scenario) == {"summary", "config"}
    assert not {"host", "port"} & set(scenario["config"])
    config = Jt808FleetConfig(**scenario["config"])
    assert all(vehicle.vehicle_speed and vehicle.route for vehicle in config.fleet())
    if path.stem == "jt808-speeding":
        fast, slow = (
            Drive(vehicle, seed=1, edition=EDITION_2019, limit=80) for vehicle in config.fleet()
        )
        assert max(fast.position(t, t + START // S).speed for t in range(90)) == 960
        assert max(slow.position(t, t + START // S).speed for t in range(90)) < 700


def test_a_fleet_that_makes_no_sense_is_refused() -> None:
    for options in (
        {"vehicles": [{"phone": "1"}, {"phone": "01"}]},
        {"vehicles": [{"phone": "x"}]},
        {"route": []},
        {"report_interval_s": 0.5},
        {"vehicle_speeed": {}},
    ):
        with pytest.raises(ValueError):
            Jt808FleetConfig(**options)


def test_a_refused_registration_is_said_and_tried_again_on_a_new_link() -> None:
    bench = Bench()
    bench.connect()
    assert bench.reply(RegistrationReply(0, 2)) == []
    assert "registration refused with 2" in bench.logs[0]
    assert not bench.terminal.wants_link(START)
    bench.terminal.lost()
    ((serial, message),) = bench.connect(5)
    assert (serial, type(message)) == (1, Registration)
    assert bench.reply(RegistrationReply(0, 0, "late"), 5) == []  # answers the first one


def test_a_position_called_bad_is_given_up_and_never_called_acknowledged() -> None:
    bench = Bench(duration_s=5)
    bench.login()
    ((serial, _),) = bench.at(0)
    bench.reply(PlatformReply(serial, 0x0200, 2))
    assert "0200 refused with 2" in bench.logs[0]
    assert [s.point for s in bench.ledger.acknowledged_samples] == ["v13900000001.link"]
    assert bench.terminal.is_done(START + 5 * S)


def test_nonsense_from_the_platform_is_said_and_survived() -> None:
    bench = Bench()
    bench.login()
    bench.terminal.receive(b"\x7e\x01\x02\x7e", START)
    bench.terminal.receive(encode_message(RawMessage(0x8001, b"x"), PHONE, 0, EDITION_2013), START)
    bench.terminal.receive(encode_message(RawMessage(0x8300, b"x"), PHONE, 0, EDITION_2013), START)
    assert len(bench.logs) == 2
    assert bench.at(0)


def test_before_the_login_is_answered_only_the_login_is_repeated() -> None:
    bench = Bench(reply_timeout_s=10, heartbeat_interval_s=1000)
    bench.login()
    bench.at(0)
    bench.terminal.lost()
    bench.connect(1)
    said = [bench.at(t) for t in range(2, 35)]
    repeats = [type(message) for at in said for _, message in at]
    assert repeats == [Authentication, Authentication]
