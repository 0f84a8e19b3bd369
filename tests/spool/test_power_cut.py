"""Power cuts at any moment of a recorded life of the spool: what was promised is there.

The normal run takes POWER_CUTS cuts (default 300); `make powercuts CUTS=20000` takes that many.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from gateway.spool.disk import Disk
from gateway.spool.recovery import remove_segment
from gateway.spool.spool import Cursor, Spool, SpoolOptions
from gateway.spool.writer import AppendJob, CursorJob, Writer
from gateway.testing.powercut import cuts
from gateway.testing.spool import check_chunk, numbered
from gateway.testing.tape import recording

CUTS = int(os.environ.get("POWER_CUTS", "300"))
SEED = int(os.environ.get("POWER_SEED", "0"))
CUTS_PER_LIFE = 60
SMALL = SpoolOptions(segment_rows_max=40, tail_rows_max=10)


@pytest.fixture
def place():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="power-", dir=memory) as name:
        yield Path(name)


def live(directory: Path, rng: random.Random, tape, disk: Disk | None = None) -> None:
    """A life of appends, commits and restarts; every promise is marked when it was made."""
    rows, opened = 0, Spool.open(directory, SMALL, disk=disk)
    for _ in range(rng.randrange(5, 30)):
        act = rng.random()
        if act < 0.6:
            sizes = [rng.randrange(1, 12) for _ in range(rng.randrange(1, 4))]
            batches = []
            for size in sizes:
                batches.append(numbered(rows, size))
                rows += size
            opened.append_now(batches)
            tape.mark("rows", rows)
        elif act < 0.9:
            cursor = opened.cursor(rng.choice("ab"))
            cursor.read(rng.randrange(1, 30))
            cursor.commit_now(cursor.position)
            tape.mark(f"cursor {cursor.name}", cursor.position)
        else:
            opened.close_now()
            opened = Spool.open(directory, SMALL, disk=disk)
    opened.close_now()


def check(directory: Path, promised: dict) -> None:
    """What a start after the cut finds."""
    spool = Spool.open(directory, SMALL)
    try:
        rows = promised.get("rows", 0)
        assert spool.head >= rows, f"{rows} rows were acknowledged, {spool.head} are there"
        if spool.head == rows:  # else the torn end of what nobody was promised may count as lost
            assert spool.stats().lost_rows == 0
        for name in "ab":
            committed = promised.get(f"cursor {name}", 0)
            cursor = spool.cursor(name)
            assert committed <= cursor.committed, f"{name} goes back behind its commit"
            seen = cursor.committed
            while (chunk := cursor.read(100)) is not None:
                check_chunk(chunk)
                assert chunk.start == seen or seen >= rows, "a hole in what was promised"
                seen = chunk.end
            assert seen >= rows
        end = spool.append_now([numbered(spool.head, 3)])
        assert end == spool.head
    finally:
        spool.close_now()


def check_lives(place: Path, count: int, seed: int, disk_of=lambda: None, **how) -> int:
    """`count` cuts over as many lives as it takes; returns how many were checked."""
    done = 0
    while done < count:
        rng = random.Random(f"{seed} {done}")
        home = place / "live"
        with recording(home, **how) as tape:
            live(home / "spool", rng, tape, disk_of())
        for moment, directory, promised in cuts(
            tape, rng, min(CUTS_PER_LIFE, count - done), lambda n: place / str(n)
        ):
            try:
                check(directory / "spool", promised)
            except BaseException as error:
                raise AssertionError(
                    f"POWER_SEED={seed}, life {done}, after {moment} of {len(tape.notes)} notes "
                    f"({brief(tape.notes[max(0, moment - 3) : moment + 1])}): {promised}: {error!r}"
                ) from error
            shutil.rmtree(directory)
            done += 1
        shutil.rmtree(home)
        if done % 300 == 0:  # for who waits for a long run
            print(f"{done} power cuts", flush=True)
    return done


def brief(notes) -> list[str]:
    return [f"{note.kind} {note.path} {len(note.data or b'')}@{note.offset}" for note in notes
            if note.kind != "mark"]  # fmt: skip


@pytest.mark.slow
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(place) -> None:
    assert check_lives(place, CUTS, SEED) >= CUTS


# ------------------------------------------------------------------------------- mutants


class NoFileSync(Disk):
    """Writes positions, and does not wait for them."""

    def write_at(self, descriptor, data, offset):
        os.pwrite(descriptor, data, offset)


class NoDirectorySync(Disk):
    def sync_directory(self, directory):
        pass


def sqlite_with(change):
    """A disk whose SQLite hears other words than were said: `change(sql)` gives them."""

    class Deaf(Disk):
        def _open(self, uri):
            class Hasty(sqlite3.Connection):
                def execute(self, sql, *rest):
                    *before, last = change(sql)
                    for each in before:
                        super().execute(each)
                    return super().execute(last, *rest)

            return sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, factory=Hasty
            )

    return Deaf


def as_most_programs(sql):
    """A commit is not synced."""
    return [sql.replace("synchronous=FULL", "synchronous=NORMAL")]


def hasty_folding(how):
    """The log is thrown away before what was folded in is synced."""

    def change(sql):
        if how not in sql:
            return [sql]
        return ["PRAGMA synchronous=OFF", sql]

    return change


def unlink_first(monkeypatch):
    """Segments are deleted before the positions say so."""

    def forget(self):
        cursors = self._positions.state.cursors
        gone = self._catalog.below(min(cursors.values())) if cursors else []
        if gone:
            for segment in gone:
                remove_segment(segment.path, self._disk)
            self._positions.write_twice(forgotten=gone[-1].end)
            self._catalog.drop(gone)

    monkeypatch.setattr(Writer, "_forget", forget)


def one_slot(monkeypatch):
    """A torn write of the positions takes the older state along."""
    monkeypatch.setattr("gateway.spool.positions.SLOT_BYTES", 0)


def acknowledged_at_once(monkeypatch):
    """The caller is told before the group is on the disk."""

    def append_now(self, batches):
        class Nobody:
            def done(self, outcome):
                pass

        rows = sum(map(len, batches))
        self._submit(AppendJob(tuple(batches), rows, 0, Nobody()))
        return self.head + rows

    monkeypatch.setattr(Spool, "_append_now", append_now)
    monkeypatch.setattr(Spool, "_reserve", lambda *_: True)
    monkeypatch.setattr(Spool, "_release", lambda *_: None)


def committed_at_once(monkeypatch):
    """The consumer is told before the positions are on the disk."""

    def commit_now(self, offset):
        class Nobody:
            def done(self, outcome):
                pass

        self._spool._writer.put(CursorJob(self.name, offset, Nobody()))
        self.committed = offset

    monkeypatch.setattr(Cursor, "commit_now", commit_now)


def patched(_monkeypatch):
    """Nothing but the disk is another."""


MUTANTS = {
    "positions not synced": (patched, NoFileSync, {}),
    "commits not synced": (patched, sqlite_with(as_most_programs), {}),
    "directory not synced": (patched, NoDirectorySync, {"sqlite_syncs_directories": False}),
    "log folded in without a sync": (patched, sqlite_with(hasty_folding("TRUNCATE")), {}),
    "unlink before the positions": (unlink_first, Disk, {}),
    "one slot instead of two": (one_slot, Disk, {}),
    "acknowledged before the sync": (acknowledged_at_once, Disk, {}),
    "committed before the sync": (committed_at_once, Disk, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_every_line_that_durability_hangs_on_is_missed_when_it_is_gone(
    place, monkeypatch, name
) -> None:
    mutate, disk, how = MUTANTS[name]
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check_lives(place, 2_000, SEED, disk, **how)


@pytest.mark.slow
def test_new_segments_do_not_lean_on_sqlite_syncing_their_directory(place) -> None:
    check_lives(place, CUTS // 3, SEED, sqlite_syncs_directories=False)


def test_a_tape_notes_what_both_doors_do(place) -> None:
    with recording(place / "x") as tape:
        with contextlib.closing(sqlite3.connect(place / "x" / "a.db")) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE t (x)")
            db.commit()
        (place / "x" / "b").write_bytes(b"not through os")
        with (place / "x" / "c").open("wb", buffering=0):
            pass
    kinds = {note.kind for note in tape.notes}
    assert {"create", "write", "sync", "sync_directory", "unlink"} <= kinds
