"""Power cuts at any moment of a recorded life of the journal: what was told is there, and no more is
claimed than is there.

The normal run takes POWER_CUTS cuts (default 150); `make powercuts CUTS=20000` takes that many.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.alarms import checkpoint, database, files
from gateway.alarms import journal as journal_module
from gateway.alarms.journal import Journal
from gateway.model.point import Point
from gateway.spool.disk import Disk
from gateway.spool.registry import Registry
from gateway.testing.alarms import S, make_event
from gateway.testing.powercut import cuts
from gateway.testing.tape import recording

CUTS = int(os.environ.get("POWER_CUTS", "150"))
SEED = int(os.environ.get("POWER_SEED", "0"))
CUTS_PER_LIFE = 50
MUTANT_CUTS = 600


@pytest.fixture
def place():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="power-", dir=memory) as name:
        yield Path(name)


class Order:
    """What a life does first. The mutants turn it round."""

    tell_first = False
    checkpoint_first = False


def events(first: int, last: int):
    return [
        make_event(gseq, key=f"p{gseq % 5}:r", time_ns=gseq * S) for gseq in range(first, last + 1)
    ]


def live(directory: Path, rng: random.Random, tape, order: type[Order]) -> None:
    """Appends, commits, checkpoints, anchors and restarts; every promise is marked when made."""
    journal = Journal.open(directory, reserve_bytes=0)
    head = 0
    for _ in range(rng.randrange(4, 16)):
        act = rng.random()
        if act < 0.45:
            wanted = events(head + 1, head + rng.randrange(1, 6))
            head = wanted[-1].alarm.gseq
            save = rng.random() < 0.4
            if order.checkpoint_first and save:
                journal.save_checkpoint(head, {"rows": np.arange(head)})
            if order.tell_first:
                tape.mark("told", head)
            journal.append(wanted)
            tape.mark("told", head)
            if save:
                journal.save_checkpoint(head, {"rows": np.arange(head)})
                tape.mark("checkpoint", head)
        elif act < 0.65:
            cursor = journal.cursor("mqtt")
            cursor.commit(rng.randrange(cursor.gseq, head + 1))
            tape.mark("cursor", cursor.gseq)
        elif act < 0.8:
            journal.sign(head * S)
        else:
            journal.close()
            journal = Journal.open(directory, reserve_bytes=0)
    journal.close()


def check(directory: Path, promised: dict) -> None:
    """What a start after the cut finds."""
    journal = Journal.open(directory, reserve_bytes=0)
    try:
        told = promised.get("told", 0)
        found = [event.alarm.gseq for event in journal.read(0, 10_000)]
        assert found[:told] == list(range(1, told + 1)), f"{told} were told, {found} are there"
        assert found == list(range(1, len(found) + 1)), "a gap"
        assert journal.head == len(found), "numbers that were used for nothing"
        assert not journal.damage, f"a power cut is no damage: {journal.damage.details}"
        assert journal.verify().ok
        saved = journal.load_checkpoint()
        offset = saved[0] if saved else 0
        assert offset >= promised.get("checkpoint", 0), "the checkpoint went back"
        assert offset <= journal.head, "a checkpoint newer than the events it depends on"
        assert saved is None or len(saved[1]["rows"]) == offset
        assert promised.get("cursor", 0) <= journal.cursor("mqtt").gseq <= journal.head
        live_rows = {row.alarm_key: row.gseq for row in journal.live_rows()}
        newest = {f"p{gseq % 5}:r": gseq for gseq in found}
        assert live_rows == newest, "a live row is not what its last event left"
        head = journal.head
        assert journal.append(events(head + 1, head + 2)) == head + 2
    finally:
        journal.close()


def check_lives(
    place: Path, count: int, *, order: type[Order] = Order, life: Callable = live, law=check
) -> int:
    done = 0
    while done < count:
        rng = random.Random(f"{SEED} {done}")
        home = place / "live"
        with recording(home) as tape:
            life(home / "j", rng, tape, order)
        wanted = min(CUTS_PER_LIFE, count - done)
        for moment, directory, promised in cuts(tape, rng, wanted, lambda n: place / str(n)):
            try:
                law(directory / "j", promised)
            except BaseException as error:
                raise AssertionError(
                    f"POWER_SEED={SEED}, life {done}, after {moment} of {len(tape.notes)} notes: "
                    f"{promised}: {error!r}"
                ) from error
            shutil.rmtree(directory)
            done += 1
        shutil.rmtree(home)
    return done


@pytest.mark.slow
def test_a_power_cut_at_any_moment_loses_nothing_that_was_told(place) -> None:
    assert check_lives(place, CUTS) >= CUTS


# --- mutants: each line that keeps the promise, left out in turn


def no_full_sync(monkeypatch) -> None:
    monkeypatch.setattr(database, "SYNCHRONOUS", "NORMAL")


def no_file_sync(monkeypatch) -> None:
    monkeypatch.setattr(files, "sync_file", lambda _descriptor: None)


def no_directory_sync(monkeypatch) -> None:
    monkeypatch.setattr(files, "sync_directory", lambda _directory: None)


def written_in_place(monkeypatch) -> None:
    def write(path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)

    monkeypatch.setattr(journal_module, "write_whole", write)
    monkeypatch.setattr(checkpoint, "write_whole", write)


def told_before_it_is_recorded(monkeypatch) -> None:
    monkeypatch.setattr(Order, "tell_first", True)


def checkpoint_before_its_events(monkeypatch) -> None:
    monkeypatch.setattr(Order, "checkpoint_first", True)


def log_gone_before_it_is_said(monkeypatch) -> None:
    def close(self: Journal) -> None:
        if self._lock >= 0:
            self._database.close()
            files.write_whole(self.directory / "epoch", self._hint("closed"))
            os.close(self._lock)
            self._lock = -1

    monkeypatch.setattr(Journal, "close", close)


def head_outside_the_transaction(monkeypatch) -> None:
    real = database.JournalDatabase.put_events

    def apart(self, rows, live_rows, urgency) -> None:
        for row, *rest in zip(rows, urgency, strict=True):
            real(self, [row], [], rest)
        self.write(lambda db: db.executemany(database._PUT_LIVE, live_rows))

    monkeypatch.setattr(database.JournalDatabase, "put_events", apart)


MUTANTS = [
    no_full_sync, no_file_sync, no_directory_sync, written_in_place, told_before_it_is_recorded,
    checkpoint_before_its_events, log_gone_before_it_is_said, head_outside_the_transaction,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_every_line_that_keeps_the_promise_is_missed_when_it_is_left_out(
    place, monkeypatch, mutant
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match="POWER_SEED"):
        check_lives(place, MUTANT_CUTS)


# --- the point table


def live_registry(
    directory: Path, rng: random.Random, tape, _order: type[Order], disk: Disk | None = None
) -> None:
    registry, count = Registry.open(directory / "points", disk=disk), 0
    for _ in range(rng.randrange(3, 12)):
        if rng.random() < 0.7:
            more = rng.randrange(1, 8)
            points = [Point(id=f"p{number}") for number in range(count, count + more)]
            assert registry.declare_now(points) == list(range(count, count + more))
            count += more
            tape.mark("declared", count)
        else:
            registry.close()
            registry = Registry.open(directory / "points", disk=disk)
    registry.close()


def check_registry(directory: Path, promised: dict) -> None:
    registry = Registry.open(directory / "points")
    try:
        found = [point.id for point in registry.table]
        declared = promised.get("declared", 0)
        assert len(found) >= declared, f"{declared} were declared, {found} are known"
        assert found == [f"p{number}" for number in range(len(found))], "an index changed hands"
        assert registry.declare_now([Point(id="new")]) == [len(found)]
    finally:
        registry.close()


@pytest.mark.slow
def test_a_power_cut_leaves_every_declared_point_its_index(place) -> None:
    assert check_lives(place, CUTS, life=live_registry, law=check_registry) >= CUTS
