"""Attacks on the journal show; damage costs what it hit and never the start."""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.alarms.chain import GENESIS, Anchor, check_chain, link
from gateway.alarms.database import DATABASE, LOST_SKIP, JournalDatabase
from gateway.alarms.journal import Journal, verify_directory
from gateway.alarms.record import encode_alarm
from gateway.model.errors import StorageFault
from gateway.testing.alarms import S, make_event

COUNT = 40


def events(first: int, last: int):
    return [
        make_event(gseq, key=f"p{gseq % 5}:r", time_ns=gseq * S) for gseq in range(first, last + 1)
    ]


def gseqs(found) -> list[int]:
    return [event.alarm.gseq for event in found]


@pytest.fixture(scope="module")
def master(tmp_path_factory) -> Path:
    """A closed journal of COUNT events in one file, to be copied and damaged."""
    directory = tmp_path_factory.mktemp("master") / "j"
    journal = Journal.open(directory, reserve_bytes=0)
    for first in range(1, COUNT + 1, 10):
        journal.append(events(first, first + 9))
    journal.cursor("mqtt").commit(7)
    journal.save_checkpoint(3, {})
    journal.close()
    return directory


@pytest.fixture
def where(master: Path, tmp_path: Path) -> Path:
    shutil.copytree(master, tmp_path / "j")
    return tmp_path / "j"


def tamper(where: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def edit_and_hash_again(where: Path) -> None:
    """An attacker who knows the format: changes a record and its own hash, not what follows."""
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        record, prev = db.execute("SELECT record, prev FROM event WHERE gseq = 20").fetchone()
        record = record.replace(b'"limit":1.0', b'"limit":9.0')
        db.execute("UPDATE event SET record = ? WHERE gseq = 20", (record,))
        db.execute("UPDATE event SET hash = ? WHERE gseq = 20", (link(prev, 20, record),))
        db.commit()


SWAP = (
    "UPDATE event SET gseq = -1 WHERE gseq = 20",
    "UPDATE event SET gseq = 20 WHERE gseq = 21",
    "UPDATE event SET gseq = 21 WHERE gseq = -1",
)
ATTACKS = [
    ("edit", ["UPDATE event SET record = replace(record, 'UNACK', 'ACKED') WHERE gseq = 20"], {"hash"}),
    ("edit a column only", ["UPDATE event SET time_ns = 1 WHERE gseq = 20"], {"column"}),
    ("insert", ["INSERT INTO event SELECT 41, time_ns, alarm_key, transition, rule_kind, late, record, prev, hash FROM event WHERE gseq = 40"], {"prev", "hash"}),
    ("insert before the first", ["INSERT INTO event SELECT 0, time_ns, alarm_key, transition, rule_kind, late, record, prev, hash FROM event WHERE gseq = 1"], {"gap", "hash", "prev"}),
    ("delete", ["DELETE FROM event WHERE gseq = 20"], {"gap", "prev"}),
    ("cut out the middle", ["DELETE FROM event WHERE gseq BETWEEN 10 AND 30"], {"gap", "prev"}),
    ("cut off the beginning", ["DELETE FROM event WHERE gseq <= 10"], {"gap", "prev"}),
    ("reorder", SWAP, {"prev", "hash"}),
    ("delete and close the gap", ["DELETE FROM event WHERE gseq = 20", "UPDATE event SET gseq = gseq - 1 WHERE gseq > 20"], {"prev", "hash"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "statements", "kinds"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_an_attack_on_the_journal_breaks_the_chain(where: Path, name, statements, kinds) -> None:
    assert verify_directory(where).ok
    tamper(where, *statements)
    report = verify_directory(where)
    assert not report.ok
    assert {fault.kind for fault in report.faults} == kinds


def test_an_edited_record_hashed_again_breaks_the_chain_at_the_next(where: Path) -> None:
    edit_and_hash_again(where)
    report = verify_directory(where)
    assert [(fault.gseq, fault.kind) for fault in report.faults] == [(21, "prev")]


def test_a_cut_off_end_does_not_show_in_a_bare_chain_and_shows_against_an_anchor(
    where: Path,
) -> None:
    anchor = verify_directory(where).head
    tamper(where, "DELETE FROM event WHERE gseq > 30")
    assert verify_directory(where).ok
    report = verify_directory(where, anchor=anchor)
    assert [(fault.gseq, fault.kind) for fault in report.faults] == [(30, "anchor")]


def test_a_journal_written_anew_does_not_show_in_a_bare_chain_and_shows_against_an_anchor(
    where: Path, tmp_path: Path
) -> None:
    anchor = verify_directory(where).head
    forged = Journal.open(tmp_path / "forged", reserve_bytes=0)
    forged.append([make_event(gseq, key="harmless:r") for gseq in range(1, COUNT + 2)])
    assert forged.verify().ok
    report = forged.verify(anchor=anchor)
    assert [(fault.gseq, fault.kind) for fault in report.faults] == [(COUNT, "anchor")]
    forged.close()


def test_the_chain_of_nothing_is_whole_and_ends_at_the_beginning() -> None:
    report = check_chain([])
    assert (report.ok, report.count, report.head) == (True, 0, Anchor(0, GENESIS))
    assert not check_chain([], anchor=Anchor(5, b"")).ok


# --- damaged rows


def test_a_damaged_row_is_left_out_counted_once_and_kept_in_quarantine(where: Path) -> None:
    tamper(where, "UPDATE event SET record = x'00ff' WHERE gseq IN (20, 21)")
    journal = Journal.open(where, reserve_bytes=0)
    expected = [gseq for gseq in range(1, COUNT + 1) if gseq not in (20, 21)]
    for _ in range(2):
        assert gseqs(journal.read(0, 100)) == expected
    assert gseqs(journal.read(19, 2)) == [22, 23]
    assert journal.damage.rows == 2
    names = sorted(path.name[:8] for path in (where / "quarantine").iterdir())
    assert names == ["event-20", "event-21"]
    assert (where / "quarantine").joinpath(journal.damage.quarantined[0]).read_bytes() == b"\0\xff"
    journal.append(events(COUNT + 1, COUNT + 1))
    journal.close()


WRONG_TYPES = [
    "UPDATE event SET record = NULL WHERE gseq = 20",
    "UPDATE event SET prev = 'text' WHERE gseq = 20",
    "UPDATE event SET hash = 5 WHERE gseq = 20",
    "UPDATE event SET time_ns = 'soon' WHERE gseq = 20",
    "UPDATE event SET alarm_key = x'ff00' WHERE gseq = 20",
    "UPDATE event SET alarm_key = CAST(x'ff00' AS TEXT) WHERE gseq = 20",
]


def schema_without(where: Path, words: str) -> str:
    """Let the event table take anything; what was declared, to put back."""
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        (declared,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'event'").fetchone()
    put_schema(where, declared.replace(words, ""))
    return declared


def put_schema(where: Path, declared: str) -> None:
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        db.execute("PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'event'", (declared,))
        db.commit()


@pytest.mark.parametrize("statement", WRONG_TYPES)
def test_a_column_of_the_wrong_type_is_a_damaged_row_and_no_exception(where, statement) -> None:
    declared = schema_without(where, " NOT NULL")
    tamper(where, statement)
    put_schema(where, declared)
    assert not verify_directory(where).ok
    journal = Journal.open(where, reserve_bytes=0)
    assert len(journal.read(0, 100)) == COUNT - 1
    assert journal.damage.rows == 1
    journal.close()


def test_a_damaged_live_row_is_put_together_from_its_events(where: Path) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    before = [encode_alarm(row) for row in journal.live_rows()]
    journal.close()
    tamper(where, "UPDATE live SET record = x'7b7d' WHERE alarm_key IN ('p0:r', 'p3:r')")
    journal = Journal.open(where, reserve_bytes=0)
    assert journal.damage.live_rows == 2
    assert [encode_alarm(row) for row in journal.live_rows()] == before
    journal = reopen(journal)
    assert not journal.damage
    journal.close()


def reopen(journal: Journal) -> Journal:
    journal.close()
    return Journal.open(journal.directory, reserve_bytes=0)


def test_a_damaged_live_row_falls_back_on_the_last_whole_event_of_its_key(where: Path) -> None:
    tamper(
        where,
        "UPDATE live SET sum = x'00' WHERE alarm_key = 'p0:r'",
        f"UPDATE event SET hash = x'00' WHERE gseq = {COUNT}",
    )
    journal = Journal.open(where, reserve_bytes=0)
    row = next(row for row in journal.live_rows() if row.alarm_key == "p0:r")
    assert row.gseq == COUNT - 5
    assert journal.head == COUNT
    journal.close()


def test_numbers_are_not_used_twice_when_the_end_is_missing(where: Path) -> None:
    tamper(where, "DELETE FROM event WHERE gseq > 35")
    journal = Journal.open(where, reserve_bytes=0)
    assert (journal.head, journal.damage.lost) == (COUNT, 5)
    journal.append(events(COUNT + 1, COUNT + 1))
    journal = reopen(journal)
    assert (journal.head, journal.damage.lost) == (COUNT + 1, 0)
    assert [(fault.gseq, fault.kind) for fault in journal.verify().faults] == [
        (COUNT + 1, "gap"),
        (COUNT + 1, "prev"),
    ]
    journal.close()


# --- damaged files


def check_usable(where: Path) -> Journal:
    """Opens, reads, writes, and is found again: whatever was done to it."""
    journal = Journal.open(where, reserve_bytes=0)
    found = journal.read(0, 1000)
    originals = {event.alarm.gseq: event for event in events(1, COUNT)}
    assert all(originals[event.alarm.gseq] == event for event in found)
    journal.live_rows()
    assert journal.head >= COUNT
    head = journal.append([make_event(journal.head + 1)])
    journal = reopen(journal)
    assert journal.head == head
    assert gseqs(journal.read(head - 1)) == [head]
    return journal


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_destroyed_file_header_costs_no_event_at_all(where: Path) -> None:
    overwrite(where / DATABASE, 0, bytes(100))
    journal = check_usable(where)
    assert len(journal.read(0, 1000)) == COUNT + 1
    assert journal.cursor("mqtt").gseq == 7
    assert journal.verify().ok
    journal.close()
    assert (where / "quarantine" / "0001-journal.db").stat().st_size > 4096


def test_a_destroyed_first_page_costs_no_event_at_all(where: Path) -> None:
    overwrite(where / DATABASE, 0, random.Random(1).randbytes(4096))
    journal = check_usable(where)
    assert len(journal.read(0, 1000)) == COUNT + 1
    journal.close()


KILLED_IN_A_RESCUE = """
import os, sys
from pathlib import Path
from gateway.alarms import database
from gateway.alarms.journal import Journal

database.salvage = lambda *_: os._exit(9)
Journal.open(Path(sys.argv[1]), reserve_bytes=0)
"""


def test_a_rescue_that_is_killed_again_and_again_keeps_one_copy_and_leaves_nothing(
    where: Path,
) -> None:
    overwrite(where / DATABASE, 0, bytes(4096))
    damaged = (where / DATABASE).read_bytes()
    (where / "quarantine").mkdir()
    (where / "quarantine" / f"{DATABASE}.part").write_bytes(b"of a copy that was killed")
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", KILLED_IN_A_RESCUE, str(where)], check=False, timeout=60
        )
        assert ended.returncode == 9
    journal = Journal.open(where, reserve_bytes=0)
    assert len(journal.read(0, 1000)) == COUNT
    (kept,) = (where / "quarantine").iterdir()
    assert journal.damage.quarantined == [kept]
    assert kept.read_bytes() == damaged
    assert not list(where.glob("salvage-*"))
    journal.close()


def test_a_checkpoint_that_stays_damaged_is_copied_once(where: Path) -> None:
    overwrite(where / "checkpoint-0", 50, b"?")
    for _ in range(3):
        journal = Journal.open(where, reserve_bytes=0)
        assert [path.name for path in journal.damage.quarantined] == ["0001-checkpoint-0"]
        journal.close()
    assert len(list((where / "quarantine").iterdir())) == 1


def test_what_happened_is_told_by_the_journal_that_was_opened(where: Path) -> None:
    overwrite(where / DATABASE, 0, bytes(4096))
    journal = Journal.open(where, reserve_bytes=0)
    damage = journal.damage
    assert (damage.files, damage.lost) == (1, 0)
    assert "40 events salvaged" in damage.details
    assert damage.quarantined[0].read_bytes()[:4096] == bytes(4096)
    journal.close()


@pytest.mark.parametrize("left", [0, 1, 50, 4096, 5000])
def test_a_database_cut_off_anywhere_is_no_obstacle_and_no_number_is_used_twice(
    where: Path, left: int
) -> None:
    with (where / DATABASE).open("r+b") as file:
        file.truncate(left)
    check_usable(where).close()


def test_a_lost_database_starts_again_far_above_any_number_used(where: Path) -> None:
    (where / DATABASE).unlink()
    journal = Journal.open(where, reserve_bytes=0)
    assert (journal.epoch, journal.head) == (2, COUNT + LOST_SKIP)
    assert journal.damage.files == 1
    assert journal.append([make_event(COUNT + LOST_SKIP + 1)])
    journal = reopen(journal)
    assert (journal.epoch, journal.damage.lost) == (3, 0)
    journal.close()


def test_a_log_that_has_lost_its_first_page_costs_what_was_on_it(
    where: Path, tmp_path: Path
) -> None:
    """The header of the log and of its first frame with it: all that names the generation."""
    journal = Journal.open(where, reserve_bytes=0)
    for gseq in range(COUNT + 1, COUNT + 21):
        journal.append(events(gseq, gseq))
    shutil.copytree(where, tmp_path / "killed")
    journal.close()
    log = tmp_path / "killed" / (DATABASE + "-wal")
    data = bytearray(log.read_bytes())
    data[:4096] = random.Random(1).randbytes(4096)
    log.write_bytes(data)
    journal = Journal.open(tmp_path / "killed", reserve_bytes=0)
    found = set(gseqs(journal.read(0, 1000)))
    assert len(set(range(1, COUNT + 21)) - found) <= 6, "a page holds no more"
    assert journal.damage.files >= 1
    journal.close()


def test_a_log_whose_database_is_gone_is_no_obstacle(where: Path, tmp_path: Path) -> None:
    """As a process that was killed leaves it; then somebody loses the one file."""
    journal = Journal.open(where, reserve_bytes=0)
    journal.append(events(COUNT + 1, COUNT + 5))
    shutil.copytree(where, tmp_path / "killed")
    journal.close()
    (tmp_path / "killed" / DATABASE).unlink()
    journal = Journal.open(tmp_path / "killed", reserve_bytes=0)
    head = journal.head
    assert head > COUNT
    assert journal.damage.files >= 1
    assert journal.append([make_event(head + 1)]) == head + 1
    journal.close()


def test_with_the_epoch_file_lost_too_the_database_tells_the_epoch(where: Path) -> None:
    (where / "epoch").write_bytes(b"\xff nonsense")
    journal = Journal.open(where, reserve_bytes=0)
    assert (journal.epoch, journal.head) == (2, COUNT)
    journal.close()


@pytest.mark.slow
def test_any_page_destroyed_costs_at_most_what_was_on_it(where: Path, tmp_path: Path) -> None:
    pages = (where / DATABASE).stat().st_size // 4096
    kept = []
    for page in range(pages):
        copy = tmp_path / f"page-{page}"
        shutil.copytree(where, copy)
        overwrite(copy / DATABASE, page * 4096, random.Random(page).randbytes(4096))
        journal = check_usable(copy)
        kept.append(len(journal.read(0, 1000)) - 1)
        journal.close()
    # A leaf holds four or five records; what is below another page is carved out.
    assert len(kept) == pages > 10
    assert min(kept) >= COUNT - 6, kept
    assert kept.count(COUNT) >= 7, kept


@pytest.mark.slow
def test_any_bits_flipped_anywhere_leave_a_journal_that_starts_and_tells_no_lies(
    where: Path, tmp_path: Path
) -> None:
    size = (where / DATABASE).stat().st_size
    for seed in range(25):
        rng = random.Random(seed)
        copy = tmp_path / str(seed)
        shutil.copytree(where, copy)
        for _ in range(rng.choice([1, 1, 5])):
            offset = rng.randrange(size)
            byte = (copy / DATABASE).read_bytes()[offset]
            overwrite(copy / DATABASE, offset, bytes([byte ^ (1 << rng.randrange(8))]))
        try:
            check_usable(copy).close()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(copy)


def test_damage_found_while_running_is_salvaged_and_the_append_goes_through(where: Path) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    database: JournalDatabase = journal._database
    before = journal.live_rows()
    database.close()
    overwrite(where / DATABASE, 0, bytes(100))
    database._writer = sqlite3.connect(where / DATABASE, isolation_level=None)
    assert journal.append(events(COUNT + 1, COUNT + 3)) == COUNT + 3
    assert gseqs(journal.read(0, 100)) == list(range(1, COUNT + 4))
    assert journal.verify().ok
    assert journal.damage.files == 1
    after = {row.alarm_key: row.gseq for row in journal.live_rows()}
    changed = {"p1:r": COUNT + 1, "p2:r": COUNT + 2, "p3:r": COUNT + 3}
    assert after == {row.alarm_key: row.gseq for row in before} | changed
    journal.close()


def test_damage_found_by_a_reader_is_salvaged_and_the_reader_goes_on(where: Path) -> None:
    journal = Journal.open(where, reserve_bytes=0)
    database: JournalDatabase = journal._database
    database._reader.close()
    overwrite(where / DATABASE, 0, bytes(100))
    database._reader = sqlite3.connect(where / DATABASE, check_same_thread=False)
    assert gseqs(journal.read(0, 100)) == list(range(1, COUNT + 1))
    assert journal.damage.files == 1
    assert journal.append(events(COUNT + 1, COUNT + 1)) == COUNT + 1
    journal.close()


@pytest.mark.parametrize("first_asked", ["append", "read"])
def test_a_salvage_the_disk_breaks_off_while_running_is_done_as_soon_as_it_can_be(
    where: Path, monkeypatch, first_asked: str
) -> None:
    """Until then the same is answered as by any disk that refuses: it will be tried again."""
    journal = Journal.open(where, reserve_bytes=0)
    database: JournalDatabase = journal._database
    database.close()
    overwrite(where / DATABASE, 0, bytes(100))
    database._writer = sqlite3.connect(where / DATABASE, isolation_level=None)
    database._reader = sqlite3.connect(where / DATABASE, check_same_thread=False)
    ask = {
        "append": lambda: journal.append(events(COUNT + 1, COUNT + 1)),
        "read": lambda: journal.read(0, 100),
    }

    def refuses(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("gateway.alarms.database.quarantine", refuses)
    for what in (first_asked, "append", "read", first_asked):
        with pytest.raises(StorageFault, match="Input/output"):
            ask[what]()
    monkeypatch.undo()
    ask[first_asked]()
    assert journal.append(events(COUNT + 1, COUNT + 1)) == COUNT + 1
    assert gseqs(journal.read(0, 100)) == list(range(1, COUNT + 2))
    assert journal.verify().ok
    journal.close()


def test_a_salvage_without_room_raises_and_touches_nothing(where: Path, monkeypatch) -> None:
    overwrite(where / DATABASE, 0, bytes(100))
    before = (where / DATABASE).read_bytes()

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.alarms.database.quarantine", no_room)
    with pytest.raises(StorageFault, match="No space"):
        Journal.open(where, reserve_bytes=0)
    assert (where / DATABASE).read_bytes() == before
    monkeypatch.undo()
    check_usable(where).close()
