"""A disk that refuses: at whichever call, nothing is told that is not durable, and then it goes on.

Every write and sync SQLite makes for the journal is refused in turn, once or for a while.
"""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from gateway.alarms.journal import Journal
from gateway.model.errors import StorageFault
from gateway.testing.alarms import S, make_event
from gateway.testing.powercut import DiskModel
from gateway.testing.tape import recording

APPENDS, PER_APPEND = 3, 3


@pytest.fixture
def place():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fault-", dir=memory) as name:
        yield Path(name)


def events(first: int, last: int):
    return [
        make_event(gseq, key=f"p{gseq % 5}:r", time_ns=gseq * S) for gseq in range(first, last + 1)
    ]


class Refusing:
    """Refuses the calls of one kind from the n-th on, so many of them."""

    def __init__(self, kind: str, code: int, first: int, count: int) -> None:
        self.kind, self.code, self.first, self.count = kind, code, first, count
        self.seen = 0

    def __call__(self, kind: str, path: str) -> int:
        if kind != self.kind or not Path(path).name.startswith("journal.db"):
            return 0
        self.seen += 1
        return self.code if self.first <= self.seen < self.first + self.count else 0


def live(directory: Path, tape, refusing: Refusing) -> int:
    """Appends, each given again until it is stored; how often it was refused. Marks what may be
    told."""
    journal, refused = Journal.open(directory, reserve_bytes=1 << 16), 0
    tape.refuse = refusing
    try:
        for number in range(APPENDS):
            first = 1 + number * PER_APPEND
            wanted = events(first, first + PER_APPEND - 1)
            for _ in range(10):
                try:
                    journal.append(wanted)
                    break
                except StorageFault:
                    refused += 1
                    found = [e.alarm.gseq for e in journal.read(0, 100)]
                    assert found == list(range(1, first)), "readable, and it was refused"
            tape.mark("told", journal.head)
        assert [e.alarm.gseq for e in journal.read(0, 100)] == list(range(1, journal.head + 1))
        assert journal.head == APPENDS * PER_APPEND
        assert journal.verify().ok
        if refusing.code == errno.EIO and refusing.seen >= refusing.first:
            assert journal.poisoned_count >= 1
    finally:
        tape.refuse = lambda _kind, _path: 0
        journal.close()
    return refused


CASES = [
    ("write", errno.EIO, 1),
    ("write", errno.ENOSPC, 3),
    ("sync", errno.EIO, 1),
    ("sync", errno.EIO, 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code", "count"), CASES)
def test_whichever_call_fails_what_was_told_is_durable_and_the_rest_follows(
    place, kind: str, code: int, count: int
) -> None:
    """Told is durable: a power cut after the last mark finds it, whatever the failed sync lost."""
    number, refused = 0, 0
    while True:
        number += 1
        home = place / str(number)
        refusing = Refusing(kind, code, number, count)
        with recording(home) as tape:
            refused += live(home / "j", tape, refusing)
        if refusing.seen < number:
            break
        rng = random.Random(f"{kind} {code} {number}")
        model, told = DiskModel(rng), 0
        marks = [at for at, note in enumerate(tape.notes) if note.kind == "mark"]
        cut = rng.choice(marks) + 1
        for note in tape.notes[:cut]:
            model.take(note)
            told = note.data if note.kind == "mark" else told
        model.image(rng, place / "after")
        journal = Journal.open(place / "after" / "j", reserve_bytes=0)
        found = [e.alarm.gseq for e in journal.read(0, 100)]
        assert found[:told] == list(range(1, told + 1)), f"call {number}: {told} told, {found}"
        assert found == list(range(1, len(found) + 1)), f"call {number}: a gap"
        journal.close()
        shutil.rmtree(place / "after")
        shutil.rmtree(home)
    assert number > APPENDS
    assert refused or count == 1 or code == errno.ENOSPC


def test_a_failed_sync_is_never_asked_for_again_on_the_same_connection(place) -> None:
    with recording(place / "x") as tape:
        journal = Journal.open(place / "x" / "j", reserve_bytes=0)
        writer = journal._database._writer
        refusing = tape.refuse = Refusing("sync", errno.EIO, 1, 1)
        assert journal.append(events(1, 3)) == 3
        assert refusing.seen > 1
        assert journal._database._writer is not writer
        assert journal.poisoned_count == 1
        tape.refuse = lambda _kind, _path: 0
        assert journal.append(events(4, 5)) == 5
        assert journal.verify().ok
        journal.close()


def test_a_full_disk_gives_up_the_reserve_and_it_is_made_again(place) -> None:
    with recording(place / "x") as tape:
        journal = Journal.open(place / "x" / "j", reserve_bytes=1 << 16)
        reserve = place / "x" / "j" / "reserve"
        assert reserve.stat().st_size == 1 << 16

        def full(kind: str, path: str) -> int:
            wanted = kind == "write" and Path(path).name.startswith("journal.db")
            return errno.ENOSPC if wanted and reserve.exists() else 0

        tape.refuse = full
        assert journal.append(events(1, 3)) == 3
        assert not journal.has_reserve
        tape.refuse = lambda _kind, _path: 0
        assert journal.append(events(4, 5)) == 5
        assert journal.has_reserve
        assert journal.poisoned_count == 0
        journal.close()


CALLS = [("create", 4), ("write", 12), ("sync", 8), ("truncate", 2), ("rename", 1), ("unlink", 2)]


@pytest.mark.parametrize(("kind", "most"), CALLS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_start_the_disk_breaks_off_skips_no_number(place, kind: str, most: int, count) -> None:
    """Whatever call of a start is refused, and of the closing after it: what a killed process left
    is whole, so the next start must take it for that."""
    with killed_with(place / "alive", events(1, 7)) as left:
        broken_off = 0
        for first in range(1, most + 1):
            target = place / f"{kind}-{first}"
            shutil.copytree(left, target)
            with recording(target) as tape:
                tape.refuse = AnyFile(kind, first, count)
                for _ in range(count + 2):
                    try:
                        Journal.open(target, reserve_bytes=1 << 16).close()
                        break
                    except StorageFault:
                        broken_off += 1
            follows(target, 7, f"{kind} {first}")
    assert broken_off or kind not in {"create", "sync", "rename"}, "the disk was never felt"


def test_a_close_that_could_not_be_noted_skips_no_number(place) -> None:
    directory = place / "j"
    with recording(directory) as tape:
        journal = Journal.open(directory, reserve_bytes=0)
        journal.append(events(1, 4))
        tape.refuse = lambda kind, _path: errno.EIO if kind == "rename" else 0
        journal.close()
        tape.refuse = lambda _kind, _path: 0
    assert (directory / "journal.db-wal").exists(), "a start that misses it takes the file for lost"
    follows(directory, 4, "after the close")


@contextlib.contextmanager
def killed_with(directory: Path, stored):
    """What a process leaves that is killed: everything, the log too."""
    journal, left = Journal.open(directory, reserve_bytes=1 << 16), directory.with_name("left")
    try:
        journal.append(stored)
        shutil.copytree(directory, left)
    finally:
        journal.close()
    yield left


def follows(directory: Path, head: int, where: str) -> None:
    """The journal is whole up to `head`, and the next event has the next number."""
    journal = Journal.open(directory, reserve_bytes=0)
    try:
        assert not journal.damage, (where, journal.damage.details)
        assert journal.head == head, where
        journal.append(events(head + 1, head + 1))
        assert journal.verify().ok, where
    finally:
        journal.close()


class AnyFile:
    """Refuses the calls of one kind from the n-th on, so many of them, whatever the file."""

    def __init__(self, kind: str, first: int, count: int) -> None:
        self.kind, self.first, self.count, self.seen = kind, first, count, 0

    def __call__(self, kind: str, _path: str) -> int:
        if kind != self.kind:
            return 0
        self.seen += 1
        return errno.EIO if self.first <= self.seen < self.first + self.count else 0
