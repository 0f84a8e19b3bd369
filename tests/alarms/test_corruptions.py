"""Random corruptions of every file of a journal: the start succeeds, and loses what was hit.

The normal run takes CORRUPTIONS of them (default 120); `make corruptions CORRUPTIONS=5000`
takes that many.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.alarms.database import DATABASE, LOST_SKIP
from gateway.alarms.journal import Journal
from gateway.alarms.verify import verify_journal
from gateway.testing.alarms import S, make_event

CORRUPTIONS = int(os.environ.get("CORRUPTIONS", "120"))
SEED = int(os.environ.get("CORRUPT_SEED", "0"))
COUNT = 60
PAGE = 4096
ROWS_ON_A_PAGE = 6  # of about 700 bytes each, less what the page needs itself
LOG = DATABASE + "-wal"


def events(first: int, last: int, *, word: str = "p"):
    return [
        make_event(gseq, key=f"{word}{gseq % 7}:r", time_ns=gseq * S)
        for gseq in range(first, last + 1)
    ]


def write(directory: Path, count: int, *, word: str = "p") -> Journal:
    """A journal with everything in it that a journal has; a part of it in the file, a part in the
    log only."""
    journal = Journal.open(directory, reserve_bytes=0)
    for first in range(1, count + 1, 5):
        journal.append(events(first, min(first + 4, count), word=word))
        if first == count // 3:
            journal._database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if first % 10 == 1:
            journal.sign(first * S)
            journal.save_checkpoint(first, {"a": np.arange(first)})
            journal.cursor("mqtt").commit(first)
    return journal


class Masters:
    """Whole journals to be damaged: one closed, one whose process was killed; and others to swap
    files with."""

    def __init__(self, place: Path) -> None:
        self.closed, self.killed = place / "closed", place / "killed"
        self.stale, self.foreign = place / "stale", place / "foreign"
        write(self.closed, COUNT).close()
        running = write(place / "running", COUNT)
        shutil.copytree(place / "running", self.killed)
        running.close()
        write(self.stale, COUNT // 2).close()
        write(self.foreign, COUNT, word="foreign").close()
        with contextlib.closing(sqlite3.connect(self.closed / DATABASE)) as db:
            rows = db.execute("SELECT gseq, record, prev, hash FROM event").fetchall()
        self.bytes_of = {gseq: record + prev + own for gseq, record, prev, own in rows}


@pytest.fixture(scope="module")
def masters():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="corrupt-", dir=memory) as name:
        yield Masters(Path(name))


# --- what can happen to a file


def flip_a_bit(path: Path, rng: random.Random, _masters: Masters) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _page(path: Path, rng: random.Random, content: Callable[[int], bytes]) -> None:
    data = bytearray(path.read_bytes())
    at = PAGE * rng.randrange(1 + len(data) // PAGE)
    part = len(data[at : at + PAGE])
    data[at : at + PAGE] = content(part)
    path.write_bytes(data)


def zero_a_page(path: Path, rng: random.Random, _masters: Masters) -> None:
    _page(path, rng, bytes)


def scramble_a_page(path: Path, rng: random.Random, _masters: Masters) -> None:
    _page(path, rng, rng.randbytes)


def cut_off(path: Path, rng: random.Random, _masters: Masters) -> None:
    os.truncate(path, rng.randrange(1 + path.stat().st_size))


def add_nonsense(path: Path, rng: random.Random, _masters: Masters) -> None:
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 3 * PAGE)))


def take_away(path: Path, _rng: random.Random, _masters: Masters) -> None:
    path.unlink()


def put_an_old_one(path: Path, _rng: random.Random, masters: Masters) -> None:
    _put(path, masters.stale / path.name)


def put_a_foreign_one(path: Path, _rng: random.Random, masters: Masters) -> None:
    _put(path, masters.foreign / path.name)


def _put(path: Path, other: Path) -> None:
    if other.exists():
        shutil.copyfile(other, path)
    else:
        path.write_bytes(b"")


def swap(path: Path, rng: random.Random, _masters: Masters) -> None:
    other = rng.choice(files_of(path.parent))
    data, others = path.read_bytes(), other.read_bytes()
    path.write_bytes(others)
    other.write_bytes(data)


def double(path: Path, rng: random.Random, _masters: Masters) -> None:
    shutil.copyfile(path, other) if (other := rng.choice(files_of(path.parent))) != path else None


LOCAL = (flip_a_bit, zero_a_page, scramble_a_page, add_nonsense)
WHOLE = (cut_off, take_away, put_an_old_one, put_a_foreign_one, swap, double)


def files_of(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.is_file() and not p.name.endswith("-shm"))


def left_in(directory: Path, masters: Masters) -> set[int]:
    """The events whose bytes are still whole in one of the two files that hold events."""
    names = [directory / DATABASE, directory / LOG]
    data = b"".join(path.read_bytes() for path in names if path.exists())
    return {gseq for gseq, wanted in masters.bytes_of.items() if wanted in data}


def check_one(masters: Masters, place: Path, rng: random.Random) -> None:
    shutil.copytree(rng.choice((masters.closed, masters.killed)), place)
    path = rng.choice(files_of(place))
    harm = rng.choice((*LOCAL, *LOCAL, *WHOLE))
    before = {each.name: each.read_bytes() for each in files_of(place)}
    harm(path, rng, masters)
    changed = {
        name for name, data in before.items()
        if not (place / name).exists() or (place / name).read_bytes() != data
    }  # fmt: skip
    left = left_in(place, masters)
    what = f"{harm.__name__} of {path.name}"

    journal = Journal.open(place, reserve_bytes=0)
    try:
        found = [e.alarm.gseq for e in journal.read(0, 1000) if e.alarm.rule_id == "r"]
        own = {e.alarm.gseq for e in journal.read(0, 1000) if e.alarm.alarm_key.startswith("p")}
        assert found == sorted(set(found)), what
        lost = set(range(1, COUNT + 1)) - own
        if not changed & {DATABASE, LOG}:
            assert not lost, f"{what} cost the events {lost}"
        elif harm in LOCAL and path.name == DATABASE:
            assert len(lost) <= ROWS_ON_A_PAGE, f"{what} cost the events {lost}"
        elif path.name == LOG and changed == {LOG}:
            # What is hit lies on two pages of the log at most, and a page without its head is lost
            # as a whole: its rows may still be there as bytes.
            spoilt = 0 if harm in WHOLE and harm is not cut_off else 2 * ROWS_ON_A_PAGE
            assert len(left & lost) <= spoilt, f"{what}: {left & lost} are there and not read"
        if lost:
            # Nothing tells a hit on the last transaction from one that a power cut interrupted.
            is_end = harm is cut_off or lost <= set(range(COUNT - 4, COUNT + 1))
            told = bool(journal.damage) or not verify_journal(place).ok
            assert told or (path.name == LOG and is_end), f"{what} cost {lost}, untold"
        if journal.damage:
            assert journal.damage.details, what
        head = journal.head
        assert head >= max(found, default=0), what
        assert journal.append(events(head + 1, head + 3)) == head + 3
        assert journal.save_checkpoint(99, {}) is None
    finally:
        journal.close()
    journal = Journal.open(place, reserve_bytes=0)
    try:
        assert journal.head == head + 3, what
        assert [e.alarm.gseq for e in journal.read(head, 10)] == [head + 1, head + 2, head + 3]
        assert journal.load_checkpoint() is not None
        assert head < COUNT + 3 * LOST_SKIP
    finally:
        journal.close()


@pytest.mark.slow
def test_any_corruption_of_any_file_costs_at_most_what_it_hit(masters, tmp_path: Path) -> None:
    home = masters.closed.parent / "damaged"
    for number in range(CORRUPTIONS):
        try:
            check_one(masters, home, random.Random(f"{SEED} {number}"))
        except BaseException as error:
            raise AssertionError(f"CORRUPT_SEED={SEED}, number {number}: {error!r}") from error
        shutil.rmtree(home)
