"""The journal alone is enough: replayed from zero it gives the book it came from, byte for byte,
and a book that goes on in the same way. Over random books; with a flood, and most urgent first."""

import contextlib
import random
import sqlite3
import tempfile
from pathlib import Path

import pytest

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal
from gateway.alarms.record import encode_alarm, encode_event
from gateway.alarms.verify import verify_journal
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_event, make_instance
from gateway.testing.effort import calls_of

NAN, INF = float("nan"), float("inf")
INSTANCES = [
    make_instance("plain", levels=("H", "HH", "HHH")),
    make_instance("latching", latching=True),
    make_instance("甲烷 T1", "井下.限值", levels=("L", "LL"), kind="rate"),
    make_instance("odd\x00'\"", levels=("OFFLINE",), kind="offline"),
]
VALUES = [0.0, -0.0, 1.5, 1e-320, 1e308, INF, -INF, NAN]


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal.open(tmp_path / "j", reserve_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def memory(tmp_path: Path):
    """A folder in memory where there is one: thousands of syncs are not what is tested here."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


class Life:
    """Random things that happen to a book; the same seed, the same life."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000 * S

    def happen(self, book: AlarmBook) -> list:
        """One thing, and the events it made."""
        rng = self.rng
        self.now += rng.choice([0, 1, S // 3, 20 * S, 4_000 * S])
        what = rng.random()
        if what < 0.6:
            rows = [self.row(rng.randrange(len(INSTANCES))) for _ in range(rng.randrange(1, 5))]
            return book.apply(make_conditions(*rows, instances=INSTANCES), INSTANCES, self.now)
        if what < 0.7:
            return book.tick(self.now)
        return list(book.command(self.command(book), self.now).events)

    def row(self, which: int) -> Row:
        rng = self.rng
        names = ["", *(level.name for level in INSTANCES[which].levels)]
        return Row(
            which,
            rng.choice(names),
            self.now - rng.choice([0, 0, S, 50 * S]),
            rng.choice(VALUES),
            self.now - 100 * S,
            rng.choice(VALUES),
            rng.choice([0, 0, 0x40, 0x42]),
            late=rng.random() < 0.1,
        )

    def command(self, book: AlarmBook) -> Command:
        rng = self.rng
        key = rng.choice(INSTANCES).alarm_key
        row = book.get(key)
        return Command(
            action=rng.choice(list(Action)),
            alarm_key=key,
            actor=rng.choice(["李", "wang"]),
            role=rng.choice([Role.SHIFT_LEAD, Role.ENGINEER]),
            text=rng.choice(["why", "因为 \ud800"]),
            token=token_of(row) if row else "",
            until_ns=self.now + 600 * S if rng.random() < 0.5 else None,
            source=rng.choice(["shift", "logic"]),
            permit="P 7",
            approved_by="zhao",
        )


def replayed(journal: Journal, epoch: int) -> AlarmBook:
    """A book from nothing but the events, one by one from the first."""
    rows = {}
    late = []
    after = 0
    while events := journal.read(after, 50):
        for event in events:
            rows[event.alarm.alarm_key] = event.alarm
            if event.late:
                late.append((event.alarm.alarm_key, event.time_ns, event.level))
        after = events[-1].alarm.gseq
    book = AlarmBook(epoch)
    book.declare(INSTANCES)
    book.restore(rows.values(), gseq=after, late=late)
    return book


def bytes_of(book: AlarmBook) -> list[bytes]:
    return [encode_alarm(row) for row in book.snapshot()]


@pytest.mark.slow
@pytest.mark.parametrize("block", range(6))
def test_replaying_the_journal_from_zero_gives_the_book_byte_for_byte_and_it_goes_on_alike(
    memory: Path, block: int
) -> None:
    for seed in range(block * 5, block * 5 + 5):
        journal = Journal.open(memory / str(seed), reserve_bytes=0)
        life, book = Life(seed), AlarmBook(journal.epoch)
        book.declare(INSTANCES)
        for _ in range(life.rng.randrange(60)):
            events = life.happen(book)
            journal.append(events)
        again = replayed(journal, journal.epoch)
        assert bytes_of(again) == bytes_of(book), f"seed {seed}"
        live = [encode_alarm(row) for row in journal.live_rows()]
        assert live == bytes_of(book), f"seed {seed}"
        book.expect_repeats()
        for step in range(20):
            twin = Life(seed * 1000 + step)
            twin.now = life.now + step * 30 * S
            one = [encode_event(event) for event in twin.happen(book)]
            twin = Life(seed * 1000 + step)
            twin.now = life.now + step * 30 * S
            assert [encode_event(event) for event in twin.happen(again)] == one, f"seed {seed}"
        journal.close()


def test_an_alarm_with_a_name_that_is_no_text_is_stored_with_question_marks(
    journal: Journal,
) -> None:
    journal.append([make_event(1, key="odd\ud800:r", kind="\udfff")])
    journal.append([make_event(1, key="odd\ud800:r", kind="\udfff")])
    (event,) = journal.read(0)
    assert (event.alarm.alarm_key, event.alarm.rule_kind) == ("odd?:r", "?")
    assert [row.alarm_key for row in journal.live_rows()] == ["odd?:r"]
    journal.sign(1 * S)
    assert verify_journal(journal.directory).ok
    assert not journal.damage


# --- most urgent first


def urgent(gseq: int, key: str, priority: int):
    event = make_event(gseq, key=key, time_ns=gseq * S)
    alarm = event.alarm
    object.__setattr__(alarm, "priority", Priority(priority))
    return event


def gseqs(found) -> list[int]:
    return [event.alarm.gseq for event in found]


STORY = [  # gseq from 1: key, priority
    ("a", 3), ("b", 4), ("a", 1), ("c", 2), ("b", 4), ("a", 3), ("c", 4), ("d", 4), ("d", 1),
]  # fmt: skip
URGENT = [
    # after, priority_max, limit, expected
    (0, 1, 500, [1, 3, 6, 8, 9]),
    (0, 2, 500, [1, 3, 4, 6, 7, 8, 9]),
    (0, 4, 500, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    (0, 1, 2, [1, 3]),
    (3, 1, 500, [8, 9]),
    (3, 2, 500, [4, 7, 8, 9]),
    (9, 4, 500, []),
    (0, 0, 500, []),
]


@pytest.mark.parametrize(("after", "priority_max", "limit", "expected"), URGENT)
def test_urgent_reading_gives_every_event_of_the_keys_that_have_an_urgent_one(
    journal: Journal, after, priority_max, limit, expected
) -> None:
    journal.append([urgent(at, f"{key}:r", p) for at, (key, p) in enumerate(STORY, 1)])
    assert gseqs(journal.read_urgent(after, priority_max, limit)) == expected


def test_urgent_reading_agrees_with_reading_everything(journal: Journal) -> None:
    rng = random.Random(5)
    events = [urgent(at, f"{rng.randrange(20)}:r", rng.choice([1, 2, 3, 3, 4, 4, 4, 4])) for at in range(1, 301)]  # fmt: skip
    journal.append(events)
    for _ in range(60):
        after, most, limit = rng.randrange(300), rng.randrange(5), rng.choice([1, 7, 500])
        keys = {e.alarm.alarm_key for e in events[after:] if e.alarm.priority <= most}
        expected = [e.alarm.gseq for e in events[after:] if e.alarm.alarm_key in keys]
        assert gseqs(journal.read_urgent(after, most, limit)) == expected[:limit]


def test_urgent_reading_goes_around_a_damaged_event(journal: Journal) -> None:
    journal.append([urgent(at, f"{key}:r", p) for at, (key, p) in enumerate(STORY, 1)])
    journal._database._writer.execute("UPDATE event SET record = x'00' WHERE gseq = 3")
    assert gseqs(journal.read_urgent(0, 1, 3)) == [1, 6, 8]


def as_version_1(where: Path) -> None:
    with contextlib.closing(sqlite3.connect(where / DATABASE)) as db:
        db.execute("DROP TABLE urgency")
        db.execute("PRAGMA user_version = 1")
        db.execute("DELETE FROM meta WHERE name = 'anchor'")
        db.commit()


def test_a_journal_of_version_1_is_taken_over_with_all_that_is_not_told_yet(
    journal: Journal,
) -> None:
    journal.append([urgent(at, f"{key}:r", p) for at, (key, p) in enumerate(STORY, 1)])
    journal.cursor("mqtt").commit(3)
    journal.close()
    as_version_1(journal.directory)
    journal = Journal.open(journal.directory, reserve_bytes=0)
    assert not journal.damage
    assert gseqs(journal.read(0)) == list(range(1, 10))
    assert gseqs(journal.read_urgent(3, 1)) == [8, 9]
    assert gseqs(journal.read_urgent(0, 1)) == [8, 9], "told long ago"
    journal.append([urgent(10, "b:r", 1)])
    journal.sign(1 * S, occasion="start")
    assert gseqs(journal.read_urgent(4, 1)) == [5, 8, 9, 10]
    assert verify_journal(journal.directory).ok
    journal.close()
    again = Journal.open(journal.directory, reserve_bytes=0)
    assert not again.damage
    again.close()


def test_a_salvaged_journal_of_version_1_still_knows_what_is_urgent(journal: Journal) -> None:
    journal.append([urgent(at, f"{key}:r", p) for at, (key, p) in enumerate(STORY, 1)])
    journal.close()
    as_version_1(journal.directory)
    Journal.open(journal.directory, reserve_bytes=0).close()
    with (journal.directory / DATABASE).open("r+b") as file:
        file.write(bytes(4096))
    journal = Journal.open(journal.directory, reserve_bytes=0)
    assert journal.damage.files == 1
    assert gseqs(journal.read_urgent(0, 1)) == [1, 3, 6, 8, 9]
    journal.close()


# --- a flood


@pytest.mark.slow
def test_ten_thousand_events_are_stored_whole_in_one_go_and_the_urgent_ones_found_at_once(
    journal: Journal,
) -> None:
    events = [urgent(at, f"p{at}:r", 1 if at % 100 == 0 else 4) for at in range(1, 10_001)]
    journal.append(events)
    assert journal.head == 10_000
    looks = calls_of(lambda: journal.read_urgent(0, 1, 50))
    assert looks < 50 * 500, f"{looks} calls: not found by priority"
    assert gseqs(journal.read_urgent(0, 1, 50)) == list(range(100, 5_001, 100))
    assert journal.ask("SELECT count(*) FROM event") == [(10_000,)]
