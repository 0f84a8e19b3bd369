"""The journal: stored means stored, again is recognised, a restart finds everything."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.alarms.book import AlarmBook
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal, verify_directory
from gateway.alarms.record import encode_alarm
from gateway.model.alarm import Transition
from gateway.model.errors import Refused, StorageFault, Unavailable
from gateway.testing.alarms import Row, S, make_conditions, make_event, make_instance

RETURNED = Transition.RETURNED


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal.open(tmp_path / "j", reserve_bytes=0)
    yield opened
    opened.close()


def events(first: int, last: int, **more):
    return [make_event(gseq, time_ns=gseq * S, **more) for gseq in range(first, last + 1)]


def reopen(journal: Journal) -> Journal:
    journal.close()
    return Journal.open(journal.directory, reserve_bytes=0)


def gseqs(found) -> list[int]:
    return [event.alarm.gseq for event in found]


def test_a_new_journal_is_empty_in_its_first_epoch(journal: Journal) -> None:
    assert (journal.head, journal.epoch, journal.damage.details) == (0, 1, [])
    assert journal.read(0) == []
    assert journal.live_rows() == []
    assert journal.append([]) == 0
    assert journal.load_checkpoint() is None


def test_events_read_back_are_the_events_appended_in_order_from_anywhere(journal: Journal) -> None:
    written = events(1, 7)
    assert journal.append(written[:3]) == 3
    assert journal.append(written[3:]) == 7
    assert journal.read(0) == written
    assert journal.read(2, 3) == written[2:5]
    assert journal.read(7) == []


def test_the_epoch_grows_with_every_open_and_the_head_does_not_change(journal: Journal) -> None:
    journal.append(events(1, 4))
    for epoch in (2, 3):
        journal = reopen(journal)
        assert (journal.epoch, journal.head) == (epoch, 4)
        assert not journal.damage
    journal.close()


def test_the_same_events_again_are_stored_once_and_new_ones_beside_them_are_kept(
    journal: Journal,
) -> None:
    journal.append(events(1, 4))
    assert journal.append(events(1, 4)) == 4
    assert journal.append(events(3, 6)) == 6
    assert gseqs(journal.read(0)) == [1, 2, 3, 4, 5, 6]


def test_another_event_under_a_number_already_stored_is_our_own_fault(journal: Journal) -> None:
    journal.append(events(1, 4))
    with pytest.raises(AssertionError, match="another event is stored as 4"):
        journal.append([replace(make_event(4), comment="different")])


def test_events_that_skip_what_was_not_stored_are_our_own_fault(journal: Journal) -> None:
    with pytest.raises(AssertionError, match="3 after 0"):
        journal.append(events(3, 4))
    assert journal.head == 0


def test_the_live_table_is_the_row_each_key_was_left_with(journal: Journal) -> None:
    journal.append(events(1, 2, key="b:r") + events(3, 3, key="a:r"))
    journal.append(events(4, 4, key="b:r", transition=RETURNED))
    assert [(row.alarm_key, row.gseq) for row in journal.live_rows()] == [("a:r", 3), ("b:r", 4)]


def test_replaying_the_whole_journal_gives_the_live_table_byte_for_byte(journal: Journal) -> None:
    for first in (1, 11, 21):
        for key in "abc":
            start = first + "abc".index(key) * 3
            journal.append(events(start, start + 2, key=f"{key}:r"))
        journal.append(events(first + 9, first + 9, transition=RETURNED))
    before = [encode_alarm(row) for row in journal.live_rows()]
    assert journal.rebuild() == 4
    assert [encode_alarm(row) for row in journal.live_rows()] == before


def test_a_cursor_survives_a_restart_where_it_was_committed_and_not_where_it_was_read(
    journal: Journal,
) -> None:
    journal.append(events(1, 5))
    cursor = journal.cursor("mqtt")
    assert gseqs(cursor.read(2)) == [1, 2]
    cursor.commit(2)
    assert gseqs(cursor.read(2)) == [3, 4]
    cursor.commit(1)
    assert cursor.gseq == 2
    journal = reopen(journal)
    assert gseqs(journal.cursor("mqtt").read()) == [3, 4, 5]
    assert gseqs(journal.cursor("other").read()) == [1, 2, 3, 4, 5]
    assert journal.cursor("newcomer", from_head=True).read() == []
    assert journal.cursor("newcomer").gseq == 5
    journal.close()


def test_a_cursor_beyond_the_head_is_our_own_fault(journal: Journal) -> None:
    with pytest.raises(AssertionError, match="the head is 0"):
        journal.cursor("mqtt").commit(1)


def test_the_summary_counts_what_began_and_ended_by_kind_of_rule(journal: Journal) -> None:
    journal.append(
        events(1, 3)
        + events(4, 5, transition=RETURNED)
        + events(6, 6, kind="offline")
        + events(7, 7, transition=Transition.ACKNOWLEDGED)
    )
    assert journal.summary(0, 100 * S) == {
        "limit": {"activated": 3, "cleared": 2},
        "offline": {"activated": 1, "cleared": 0},
    }
    assert journal.summary(2 * S, 4 * S) == {"limit": {"activated": 2, "cleared": 0}}
    assert journal.summary(50 * S, 60 * S) == {}


def test_a_query_gives_the_events_of_a_time_and_key_page_by_page(journal: Journal) -> None:
    journal.append(events(1, 3, key="a:r") + events(4, 6, key="b:r") + events(7, 9, key="a:r"))
    assert gseqs(journal.query(2 * S, 8 * S)) == [2, 3, 4, 5, 6, 7]
    assert gseqs(journal.query(2 * S, 8 * S, alarm_key="a:r")) == [2, 3, 7]
    assert gseqs(journal.query(0, 99 * S, alarm_key="a:r", after_gseq=3, limit=2)) == [7, 8]


def test_a_restored_book_goes_on_with_the_numbers_of_the_old_one(journal: Journal) -> None:
    instance = make_instance()
    book = AlarmBook(journal.epoch, gseq=journal.head)
    rows = [Row(0, "H", 10 * S), Row(0, "", 5 * S, late=True)]
    journal.append(book.apply(make_conditions(*rows, instances=[instance]), [instance], 20 * S))
    journal = reopen(journal)
    again = AlarmBook(journal.epoch, gseq=journal.head)
    journal.restore_into(again)
    assert again.snapshot() == book.snapshot()
    assert again.apply(make_conditions(*rows, instances=[instance]), [instance], 30 * S) == []
    more = make_conditions((0, "HH", 40 * S), instances=[instance])
    (event,) = again.apply(more, [instance], 40 * S)
    assert (event.alarm.gseq, event.alarm.seq, event.alarm.epoch) == (3, 3, 2)
    assert journal.append([event]) == 3
    journal.close()


def test_a_second_process_is_refused_while_the_first_has_the_journal(journal: Journal) -> None:
    with pytest.raises(Unavailable, match="another process"):
        Journal.open(journal.directory)


def test_a_writer_that_was_overtaken_cannot_write(journal: Journal) -> None:
    other = sqlite3.connect(journal.directory / DATABASE)
    other.execute("UPDATE meta SET value = 9 WHERE name = 'epoch'")
    other.commit()
    other.close()
    with pytest.raises(StorageFault, match="took the journal over"):
        journal.append(events(1, 1))
    assert (journal.head, journal.read(0)) == (0, [])


def test_a_journal_of_a_newer_version_is_refused_and_left_alone(journal: Journal) -> None:
    journal.append(events(1, 2))
    journal.close()
    path = journal.directory / DATABASE
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    (journal.directory / "epoch").write_text("1 2 99\n")
    before = path.read_bytes()
    with pytest.raises(Refused, match="version 99"):
        Journal.open(journal.directory)
    assert path.read_bytes() == before


def test_a_version_the_start_file_does_not_know_of_is_damage_and_refuses_nothing(
    journal: Journal,
) -> None:
    journal.append(events(1, 2))
    journal.close()
    with contextlib.closing(sqlite3.connect(journal.directory / DATABASE)) as db:
        db.execute("PRAGMA user_version = 3")
    journal = Journal.open(journal.directory, reserve_bytes=0)
    assert (journal.damage.files, journal.read(0)) == (1, events(1, 2))
    journal.close()


def test_a_directory_that_cannot_be_made_is_a_storage_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFault):
        Journal.open(tmp_path / "file")
    with pytest.raises(StorageFault):
        Journal.open(tmp_path / "file" / "below")


# --- a disk that is full: SQLite's own page limit gives the error a full disk gives


def fill_up(journal: Journal, room: int = 0) -> None:
    db = journal._database._writer
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + room}")


def make_room(journal: Journal) -> None:
    journal._database._writer.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_is_a_fault_nothing_is_half_stored_and_the_same_events_go_in_later(
    journal: Journal,
) -> None:
    journal.append(events(1, 10))
    live = journal.live_rows()
    fill_up(journal)
    more = events(11, 60)
    for _ in range(2):
        with pytest.raises(StorageFault, match="full"):
            journal.append(more)
        assert (journal.head, len(journal.read(0))) == (10, 10)
        assert journal.live_rows() == live
    make_room(journal)
    assert journal.append(more + events(61, 61)) == 61
    assert journal.read(0, 100) == events(1, 61)
    assert journal.verify().ok


@pytest.mark.slow
def test_every_write_that_finds_the_disk_full_leaves_a_whole_journal(tmp_path: Path) -> None:
    for room in range(12):
        journal = Journal.open(tmp_path / str(room), reserve_bytes=0)
        fill_up(journal, room)
        stored = 0
        for first in range(1, 60, 6):
            try:
                stored = journal.append(events(first, first + 5))
            except StorageFault:
                break
        journal = reopen(journal)
        assert (journal.head, not journal.damage) == (stored, True)
        assert journal.read(0, 100) == events(1, stored)
        assert journal.verify().ok
        journal.close()


def test_the_reserve_is_given_up_for_alarms_and_taken_again_when_there_is_room(
    tmp_path: Path, monkeypatch
) -> None:
    journal = Journal.open(tmp_path, reserve_bytes=100_000)
    reserve = tmp_path / "reserve"
    assert reserve.stat().st_blocks * 512 >= 100_000
    database = journal._database
    give_up = database._give_up_reserve

    def give_up_and_gain_room() -> bool:
        gained = give_up()
        if gained:
            make_room(journal)
        return gained

    monkeypatch.setattr(database, "_give_up_reserve", give_up_and_gain_room)
    fill_up(journal)
    assert journal.append(events(1, 50)) == 50
    assert not journal.has_reserve
    fill_up(journal)
    with pytest.raises(StorageFault):
        journal.append(events(51, 100))
    make_room(journal)
    journal.append(events(51, 100))
    assert journal.has_reserve
    journal.close()


@pytest.mark.parametrize("left", [0, 50_000, 100_000])
def test_a_reserve_left_by_a_start_that_was_killed_is_filled_and_one_of_its_size_is_kept(
    tmp_path: Path, left: int
) -> None:
    reserve = tmp_path / "reserve"
    reserve.write_bytes(bytes(left))
    number = reserve.stat().st_ino
    journal = Journal.open(tmp_path, reserve_bytes=200_000)
    journal.keep_reserve(100_000)
    assert (journal.has_reserve, reserve.stat().st_size) == (True, 100_000)
    assert left != 100_000 or reserve.stat().st_ino == number
    journal.close()


FULL_DISK = """
import sys
from pathlib import Path
from gateway.alarms.journal import Journal
from gateway.model.errors import StorageFault
from gateway.testing.alarms import make_event

where = Path(sys.argv[1])
journal = Journal.open(where / "j", reserve_bytes=1_000_000)
assert journal.has_reserve
filler = (where / "telemetry").open("wb", buffering=0)
try:
    while True:
        filler.write(bytes(65536))
except OSError:
    pass
head = 0
lost_reserve_at = None
try:
    while True:
        head = journal.append([make_event(g) for g in range(head + 1, head + 11)])
        if lost_reserve_at is None and not journal.has_reserve:
            lost_reserve_at = head
except StorageFault:
    pass
assert head == journal.head
filler.truncate(0)
journal.append([make_event(g) for g in range(head + 1, head + 11)])
journal.close()
journal = Journal.open(where / "j")
assert journal.verify().ok and journal.head == head + 10 and not journal.damage
print(head - lost_reserve_at)
"""


@pytest.mark.system
@pytest.mark.slow
def test_on_a_disk_really_full_the_reserve_takes_alarms_and_room_made_is_used(tmp_path) -> None:
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=4m none {tmp_path}"
    if subprocess.run([*mounted, mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system of its own")
    program = f"{mount} && exec {sys.executable} -c '{FULL_DISK}' {tmp_path}"
    done = subprocess.run([*mounted, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100, "a reserve of 1 MB must take some hundreds of alarms"


# --- many threads


@pytest.mark.slow
def test_readers_in_other_threads_see_whole_appends_only(journal: Journal) -> None:
    stop = threading.Event()

    def read() -> set[int]:
        seen = set()
        while not stop.is_set():
            seen.add(len(journal.read(0, 10_000)))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writer = pool.submit(
            lambda: [journal.append(events(first, first + 9)) for first in range(1, 200, 10)]
        )
        writer.result()
        stop.set()
        for reader in readers:
            assert all(count % 10 == 0 for count in reader.result())


@pytest.mark.slow
def test_ten_thousand_activations_are_stored_in_one_go(journal: Journal) -> None:
    many = [make_event(gseq, key=f"p{gseq}:r", seq=1) for gseq in range(1, 10_001)]
    journal.append(many)
    assert (journal.head, len(journal.live_rows())) == (10_000, 10_000)


# --- the rules' checkpoint beside it


def test_the_rules_find_their_state_again_and_an_older_one_when_the_newest_is_damaged(
    journal: Journal,
) -> None:
    for offset in (10, 20):
        journal.save_checkpoint(offset, {"state": np.arange(offset)})
    journal = reopen(journal)
    offset, arrays = journal.load_checkpoint()
    assert (offset, arrays["state"].tolist()) == (20, list(range(20)))
    journal.close()
    newest = journal.directory / "checkpoint-1"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    journal = Journal.open(journal.directory, reserve_bytes=0)
    assert journal.load_checkpoint()[0] == 10
    assert journal.damage.files == 1
    assert [path.name for path in journal.damage.quarantined] == ["0001-checkpoint-1"]
    journal.close()


def test_a_journal_nobody_has_open_is_verified_without_being_changed(journal: Journal) -> None:
    journal.append(events(1, 5))
    anchor = journal.anchor
    journal.close()
    before = sorted((p.name, p.read_bytes()) for p in journal.directory.iterdir())
    report = verify_directory(journal.directory, anchor=anchor)
    assert (report.ok, report.count, report.head) == (True, 5, anchor)
    assert sorted((p.name, p.read_bytes()) for p in journal.directory.iterdir()) == before
    with pytest.raises(StorageFault):
        verify_directory(journal.directory / "nowhere")
