"""Who may register, what a code is worth, and what survives a restart."""

from __future__ import annotations

import dataclasses
import json
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.jt808 import files
from adapters.jt808.codec import EDITION_2013, Registration
from adapters.jt808.config import VehicleEntry
from adapters.jt808.files import REGISTRATIONS, RegistrationLog, read_vehicles
from adapters.jt808.roster import Recent, Record, Roster, Vehicle
from gateway.model.errors import ConfigError, StorageFault
from gateway.model.rate import TokenBucket

LISTED = [
    Vehicle("1001", plate="测A00001", terminal_id="T1", vehicle_class="hazmat", name="一号车"),
    Vehicle("1002", plate="测A00002", terminal_id="T2", vehicle_class="coach"),
    Vehicle("1003"),  # any plate, any terminal
]


def roster(
    records: list[Record] | None = None,
    *,
    known: bool = True,
    most: int = 10,
    pace: TokenBucket | None = None,
) -> Roster:
    numbers = count()
    return Roster(
        LISTED,
        known_only=known,
        vehicles_max=most,
        new_code=lambda: f"code-{next(numbers)}",
        records=records or [],
        pace=pace,
    )


def wanted(plate: str, terminal_id: str) -> Registration:
    return Registration(EDITION_2013, 0, 0, "M", "M", terminal_id, 2, plate)


IN_USE_1, IN_USE_2 = Record("1001", "a", "T1", "测A00001"), Record("1002", "b", "T2", "测A00002")
ANSWERS = [
    ("as listed", [], "1001", "测A00001", "T1", 0),
    ("as listed, again", [IN_USE_1], "1001", "测A00001", "T1", 0),
    ("blanks in the plate", [], "1001", "测A 00001", "T1", 0),
    ("nothing but the phone is listed", [], "1003", "测Z99999", "T9", 0),
    ("a plate nobody listed", [], "1001", "测Z99999", "T1", 2),
    ("no plate at all", [], "1001", "", "T1", 2),
    ("a phone nobody listed", [], "1009", "测A00001", "T1", 4),
    ("neither listed", [], "1009", "测Z99999", "T1", 2),
    ("another phone for a vehicle in use", [IN_USE_1], "1009", "测A00001", "T9", 1),
    ("the other's vehicle, which is in use", [IN_USE_2], "1001", "测A00002", "T1", 1),
    ("the other's vehicle, this one in use", [IN_USE_1], "1001", "测A00002", "T1", 3),
    ("the other's vehicle, none in use", [], "1001", "测A00002", "T1", 4),
    ("an unknown terminal", [], "1001", "测A00001", "T9", 4),
    ("the other's terminal, in use", [IN_USE_2], "1001", "测A00001", "T2", 3),
    ("the other's terminal, not in use", [], "1001", "测A00001", "T2", 4),
]


@pytest.mark.parametrize(("why", "records", "phone", "plate", "terminal", "result"), ANSWERS)
def test_known_registration_answers_one_to_four_precisely(  # noqa: PLR0917
    why: str, records: list[Record], phone: str, plate: str, terminal: str, result: int
) -> None:
    found, code = roster(records).register(phone, wanted(plate, terminal))
    assert found == result, why
    assert bool(code) == (result == 0)


def test_open_registration_takes_anybody_with_a_code_that_is_not_the_phone() -> None:
    open_roster = roster(known=False)
    assert open_roster.register("7777", wanted("", "")) == (0, "code-0")
    assert open_roster.authenticate("7777", "code-0")
    assert not open_roster.authenticate("7777", "7777")
    assert not open_roster.authenticate("7777", "")
    assert not open_roster.authenticate("8888", "code-0")
    assert not open_roster.authenticate("8888", "\0")


def test_the_same_terminal_gets_the_same_code_and_another_one_a_new_code() -> None:
    book = roster(known=False)
    assert book.register("7", wanted("测A00001", "T1")) == (0, "code-0")
    assert book.register("7", wanted("测A00001", "T1")) == (0, "code-0")
    assert len(book.take_changed()) == 1
    assert book.register("7", wanted("测A00001", "T2")) == (0, "code-1")
    assert not book.authenticate("7", "code-0")
    assert len(book.take_changed()) == 1
    assert book.take_changed() == []


def test_a_vehicle_taken_off_the_list_cannot_log_in_any_more() -> None:
    record = Record("1009", "secret")
    assert not roster([record]).authenticate("1009", "secret")
    assert roster([record], known=False).authenticate("1009", "secret")


def test_registrations_end_at_the_limit_but_known_ones_may_come_again() -> None:
    book = roster(known=False, most=2)
    for phone in "01":
        result, code = book.register(phone, wanted("", ""))
        assert (result, book.authenticate(phone, code)) == (0, True)
    assert book.is_full
    assert book.register("2", wanted("", ""))[0] == 4
    assert book.register("1", wanted("", ""))[0] == 0


def test_at_the_limit_the_oldest_registration_never_used_makes_room_and_stays_forgotten(
    tmp_path: Path,
) -> None:
    log = RegistrationLog(tmp_path)
    book = roster(known=False, most=3)
    codes = {phone: book.register(phone, wanted("", ""))[1] for phone in ("1", "2", "3")}
    assert book.authenticate("1", codes["1"])
    for number in range(10, 30):  # a flood of phones nobody will ever use
        assert book.register(str(number), wanted("", ""))[0] == 0
    assert book.record("1") is not None  # it was used: no newcomer can turn it out
    assert book.record("2") is None
    assert not book.authenticate("2", codes["2"])
    log.append(book.take_changed())
    assert {record.phone for record in RegistrationLog(tmp_path).load()} == {"1", "28", "29"}
    after = roster(RegistrationLog(tmp_path).load(), known=False, most=3)
    assert after.authenticate("1", codes["1"])
    assert after.register("4", wanted("", ""))[0] == 0
    assert after.record("28") is None


def test_new_phones_are_taken_at_a_pace_and_known_ones_at_any_time() -> None:
    book = roster(known=False, pace=TokenBucket(2, 2, 0))
    assert [book.register(str(n), wanted("", ""), 0)[0] for n in range(3)] == [0, 0, 4]
    assert book.register("0", wanted("", ""), 0)[0] == 0
    assert book.register("2", wanted("", ""), 500_000_000)[0] == 0
    assert book.register("3", wanted("", ""), 500_000_000)[0] == 4


def test_a_registration_of_an_earlier_release_counts_as_used(tmp_path: Path) -> None:
    (tmp_path / REGISTRATIONS).write_text('{"phone": "1", "code": "c"}\n', "utf-8")
    book = roster(RegistrationLog(tmp_path).load(), known=False, most=1)
    assert book.register("2", wanted("", ""))[0] == 4


def test_what_is_listed_comes_before_what_was_registered() -> None:
    book = roster([Record("1003", "c", "T33", "测A00033", 2)])
    assert book.vehicle("1001").name == "一号车"
    assert (book.vehicle("1003").plate, book.vehicle("1003").terminal_id) == ("测A00033", "T33")
    assert book.vehicle("nobody").utc_offset_s == 8 * 3600


def test_registrations_not_stored_yet_come_back_in_order() -> None:
    book = roster(known=False)
    book.register("1", wanted("", ""))
    first = book.take_changed()
    book.register("2", wanted("", ""))
    book.put_back(first)
    assert [record.phone for record in book.take_changed()] == ["1", "2"]


@given(st.lists(st.integers(0, 30)))
def test_what_is_remembered_is_bounded_and_the_newest(numbers: list[int]) -> None:
    recent = Recent(size_max=5)
    for number in numbers:
        recent.add(number, number % 3)
    kept = [n for n in range(31) if recent.result(n) is not None]
    assert len(kept) <= 5
    if numbers:
        assert recent.result(numbers[-1]) == numbers[-1] % 3


# --- the file of registrations


def test_registrations_survive_a_restart(tmp_path: Path) -> None:
    log = RegistrationLog(tmp_path)
    assert log.load() == []
    log.append([IN_USE_1, IN_USE_2])
    newer = dataclasses.replace(IN_USE_1, code="newer")
    log.append([newer])
    assert sorted(RegistrationLog(tmp_path).load(), key=lambda r: r.phone) == [newer, IN_USE_2]
    assert (tmp_path / REGISTRATIONS).stat().st_mode & 0o077 == 0  # codes are secrets
    assert len((tmp_path / REGISTRATIONS).read_text("utf-8").splitlines()) == 2


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    log = RegistrationLog(tmp_path)
    log.append([IN_USE_1])
    log.append([IN_USE_2])
    path = tmp_path / REGISTRATIONS
    path.write_bytes(path.read_bytes()[:-cut])
    found = RegistrationLog(tmp_path).load()
    assert found == ([IN_USE_1, IN_USE_2] if cut == 1 else [IN_USE_1])
    log.append([IN_USE_2])
    assert RegistrationLog(tmp_path).load() == [IN_USE_1, IN_USE_2]


@given(st.binary(max_size=200))
def test_any_bytes_in_the_file_never_stop_the_start(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / REGISTRATIONS).write_bytes(
        data + b"\n" + json.dumps({"phone": "1", "code": "c"}).encode() + b"\n"
    )
    assert Record("1", "c") in RegistrationLog(folder).load()


def test_a_disk_that_fails_is_a_storage_fault(tmp_path: Path) -> None:
    (tmp_path / REGISTRATIONS).mkdir()
    log = RegistrationLog(tmp_path)
    with pytest.raises(StorageFault):
        log.load()
    with pytest.raises(StorageFault):
        log.append([IN_USE_1])


# --- the list of vehicles


def test_a_list_is_read_from_csv_with_empty_cells_left_out(tmp_path: Path) -> None:
    path = tmp_path / "vehicles.csv"
    path.write_text(
        "phone,plate,plate_colour,terminal_id,vehicle_class,name,utc_offset_h\n"
        "013900000001,测A00001,2,T000001,hazmat,一号车,\n"
        "13900000002,,,,coach,,0\n",
        "utf-8-sig",
    )
    assert read_vehicles(path) == [
        VehicleEntry(
            phone="13900000001",
            plate="测A00001",
            plate_colour=2,
            terminal_id="T000001",
            vehicle_class="hazmat",
            name="一号车",
        ),
        VehicleEntry(phone="13900000002", vehicle_class="coach", utc_offset_h=0),
    ]


def test_every_faulty_line_of_a_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vehicles.csv"
    path.write_text("phone,colour\n139,2\nabcxyz,\n,\n140,,extra\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_vehicles(path)
    assert [(fault.line, fault.key) for fault in caught.value.faults] == [
        (2, "colour"),
        (3, "phone"),
        (4, "phone"),
        (5, ""),
    ]


def test_a_list_that_is_not_there_is_a_configuration_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_vehicles(tmp_path / "none.csv")
    path = tmp_path / "gbk.csv"
    path.write_bytes("phone,plate\n1,测A00001\n".encode("gbk"))
    with pytest.raises(ConfigError):
        read_vehicles(path)


def test_a_terminal_that_registers_as_another_every_time_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "REPLACED_LINES_MAX", 20)
    log = RegistrationLog(tmp_path)
    log.load()
    log.append([IN_USE_2])
    most = 0
    for number in range(200):
        last = dataclasses.replace(IN_USE_1, terminal_id=f"T{number:06}")
        log.append([last])
        most = max(most, len((tmp_path / REGISTRATIONS).read_bytes().splitlines()))
    assert most <= 25
    assert RegistrationLog(tmp_path).load() == [IN_USE_2, last]


def test_the_file_of_registrations_is_replaced_in_one_step(tmp_path: Path) -> None:
    log = RegistrationLog(tmp_path)
    log.append([IN_USE_1, IN_USE_1])
    log.load()
    assert [path.name for path in tmp_path.iterdir()] == [REGISTRATIONS]
