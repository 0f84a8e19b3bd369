"""A disk that fails while the spool runs: below SQLite, at the n-th call, for every n.

Fewer lives in the normal run (every call once); FAULT_LIVES=all takes every call with every errno,
for one call and for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool import fault, writer
from gateway.spool.disk import Disk
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.powercut import cuts
from gateway.testing.spool import MoodyDisk, drain, numbered
from gateway.testing.tape import recording

NEVER_S = 1e6  # no try by itself: the test says when
SMALL = SpoolOptions(
    segment_rows_max=24, tail_rows_max=4, retry_first_s=NEVER_S, retry_max_s=NEVER_S
)
ERRNOS = (errno.EIO, errno.ENOSPC, errno.EROFS)
WHILE = 9  # calls that fail in a row: more than one try


@pytest.fixture
def place():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fault-", dir=memory) as name:
        yield Path(name)


class Plan:
    """Refuses the calls from the n-th on, so many of them. Reading is not refused: that is another
    fault, which costs no acknowledgement."""

    def __init__(self, fail_at, length, code):
        self.fail_at, self.length, self.code = fail_at, length, code
        self.count = 0

    def __call__(self, what, path):
        self.count += 1
        return self.code if 0 <= self.count - self.fail_at < self.length else 0


class Life:
    """Appends, commits, rotations and one restart; whatever fails is tried again."""

    def __init__(self, directory, tape):
        self.directory, self.tape = directory, tape
        self.serial = 0
        self.acked = {}  # offset -> what the row says
        self.faults = 0
        self.spool = self.opened()

    def opened(self):
        for _ in range(3 * WHILE):
            with contextlib.suppress(StorageFault):
                return Spool.open(self.directory, SMALL)
        raise AssertionError("the start never succeeds")

    def until_it_works(self, do):
        for _ in range(3 * WHILE):
            try:
                return do()
            except StorageFault:
                self.faults += 1
                assert not self.spool.has_failed_for_good
                with contextlib.suppress(StorageFault):
                    if self.spool.fault is not None:
                        self.spool.try_again_now()
        raise AssertionError(f"never again: {self.spool.fault}")

    def append(self, sizes):
        batches = []
        for size in sizes:
            said = range(self.serial, self.serial + size)
            batches.append(Batch.of([1] * size, list(said), 5, received_time_ns=6))
            self.serial += size
        rows = sum(sizes)
        end = self.until_it_works(lambda: self.spool.append_now(batches))
        assert end == self.spool.head
        for offset, says in zip(
            range(end - rows, end), range(self.serial - rows, self.serial), strict=True
        ):
            assert offset not in self.acked, "an offset was given twice"
            self.acked[offset] = says
        self.tape.mark("acked", dict(self.acked))

    def consume(self, share):
        cursor = self.until_it_works(lambda: self.spool.cursor("one"))
        while self.until_it_works(lambda: cursor.read(7)) is not None:
            pass
        target = cursor.committed + int((cursor.position - cursor.committed) * share)
        self.until_it_works(lambda: cursor.commit_now(target))
        self.tape.mark("committed", target)

    def live(self):
        self.until_it_works(lambda: self.spool.cursor("keeper"))  # keeps every row
        for step in range(9):
            self.append([3, 4] if step % 2 else [2])
            if step % 3 == 1:
                self.consume(0.6)
            if step == 5:
                self.until_it_works(lambda: check_rows(self.spool, self.acked))
                self.spool.close_now()
                self.spool = self.opened()
        self.until_it_works(lambda: self.spool.drop_cursor("keeper"))
        self.consume(1.0)
        self.append([2])
        kept = {at: says for at, says in self.acked.items() if at >= self.spool.oldest}
        self.until_it_works(lambda: check_rows(self.spool, kept))
        assert self.spool.fault is None
        self.spool.close_now()


def check_rows(spool, acked):
    """Every row that was acknowledged is there, at its offset, and says what it said."""
    cursor, found = spool.cursor("one"), {}
    cursor.rewind()
    for name in spool.cursor_names():
        cursor = spool.cursor(name)
        cursor.rewind()
        while (chunk := cursor.read(50)) is not None:
            found.update(zip(range(chunk.start, chunk.end), chunk.batch.value, strict=True))
        cursor.rewind()
    missing = {at: says for at, says in acked.items() if found.get(at) != says}
    oldest = min(spool.cursor(name).committed for name in spool.cursor_names())
    assert not {at for at in missing if at >= oldest}, missing
    assert spool.stats().lost_rows == 0


def lives_with(place, plan, cut_count, seed):
    """One life under a plan, then power cuts into it."""
    home = place / "live"
    rng = random.Random(f"{seed}")
    with recording(home) as tape:
        tape.refuse = plan
        life = Life(home / "spool", tape)
        life.live()
    for moment, directory, promised in cuts(tape, rng, cut_count, lambda n: place / str(n)):
        try:
            spool = Spool.open(directory / "spool", SMALL)
            acked = promised.get("acked", {})
            spool.cursor("one")
            check_rows(spool, acked)
            assert spool.cursor("one").committed >= promised.get("committed", 0)
            assert spool.head > max(acked, default=-1)
            spool.close_now()
        except BaseException as error:
            raise AssertionError(f"power cut after note {moment}: {error!r}") from error
        shutil.rmtree(directory)
    shutil.rmtree(home)
    return life


def calls_of_a_life(place):
    plan = Plan(0, 0, 0)
    assert lives_with(place, plan, 0, 0).faults == 0
    return plan.count


@pytest.mark.slow
def test_whichever_call_fails_no_row_is_lost_and_the_spool_accepts_again(place):
    total = calls_of_a_life(place)
    assert total > 80
    everything = os.environ.get("FAULT_LIVES") == "all"
    failed = 0
    for n in range(1, total + 1):
        for number, code in enumerate(ERRNOS):
            for length in (1, WHILE):
                if not everything and (n + number + (length > 1)) % 6:
                    continue
                try:
                    failed += lives_with(place, Plan(n, length, code), 3, n).faults > 0
                except BaseException as error:
                    raise AssertionError(
                        f"call {n}, {errno.errorcode[code]}, {length} times: {error!r}"
                    ) from error
    assert failed > total / 8


def test_nothing_more_is_written_to_a_segment_that_failed(tmp_path):
    disk = MoodyDisk()
    spool = Spool.open(tmp_path, SMALL, disk=disk)
    cursor = spool.cursor("one")
    spool.append_now([numbered(0, 5)])
    poisoned = sorted(tmp_path.glob("*.segment*"))
    before = {path: path.read_bytes() for path in poisoned if not path.name.endswith("-shm")}
    disk.error = OSError(errno.EIO, "gone bad")
    with pytest.raises(StorageFault, match="gone bad"):
        spool.append_now([numbered(5, 2)])
    disk.error = None
    spool.try_again_now()
    assert spool.append_now([numbered(7, 3)]) == 10  # rows 5 and 6 are given to nobody
    assert drain(cursor) == [0, 1, 2, 3, 4, 7, 8, 9]
    stats = spool.stats()
    assert (stats.poisoned_segments, stats.fault_count, stats.lost_rows) == (1, 1, 0)
    assert (stats.fault, stats.fault_kind, stats.faulty_for_s) == ("", "", 0.0)
    spool.close_now()
    assert {path: path.read_bytes() for path in before} == before
    again = Spool.open(tmp_path, SMALL)
    assert drain(again.cursor("one")) == [0, 1, 2, 3, 4, 7, 8, 9]
    again.close_now()


def test_a_poisoned_segment_goes_with_the_others_once_everyone_is_done(tmp_path):
    disk = MoodyDisk()
    spool = Spool.open(tmp_path, SMALL, disk=disk)
    cursor = spool.cursor("one")
    spool.append_now([numbered(0, 5)])
    disk.error = OSError(errno.EIO, "gone bad")
    with pytest.raises(StorageFault):
        spool.append_now([numbered(5, 2)])
    disk.error = None
    spool.try_again_now()
    spool.append_now([numbered(7, 24)])
    drain(cursor)
    cursor.commit_now(cursor.position)
    assert list(tmp_path.glob("*.segment*")) == []
    spool.close_now()


def test_a_full_disk_is_tried_again_when_there_is_room_and_not_before(tmp_path):
    disk = MoodyDisk()
    spool = Spool.open(tmp_path, SMALL, disk=disk)
    spool.cursor("one")
    disk.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageFault):
        spool.append_now([numbered(0, 2)])
    assert spool.stats().fault_kind == "full"
    disk.error, disk.free = None, writer.RETRY_FREE_BYTES - 1
    files = sorted(path.name for path in tmp_path.iterdir())
    for _ in range(3):
        with pytest.raises(StorageFault, match="No space left"):
            spool.try_again_now()
        assert sorted(path.name for path in tmp_path.iterdir()) == files, "a try leaves nothing"
    stats = spool.stats()
    assert stats.refused_rows == 2
    assert stats.faulty_for_s > 0
    disk.free = writer.RETRY_FREE_BYTES
    spool.try_again_now()
    spool.append_now([numbered(0, 2)])
    assert drain(spool.cursor("one")) == [0, 1]
    spool.close_now()


async def test_the_spool_recovers_by_itself_and_refuses_at_once_until_then(tmp_path):
    disk = MoodyDisk()
    options = SpoolOptions(retry_first_s=0.001, retry_max_s=0.002)
    spool = Spool.open(tmp_path, options, disk=disk)
    assert await spool.append(numbered(0, 3)) == 3
    disk.error = OSError(errno.EROFS, "Read-only file system")
    for _ in range(50):
        with pytest.raises(StorageFault):
            await spool.append(numbered(3, 1))
    assert spool.stats().fault_kind == "read_only"
    disk.error = None
    end = None
    async with asyncio.timeout(10):
        while end is None:
            with contextlib.suppress(StorageFault):
                end = await spool.append(numbered(spool.head + 1, 1))
            await asyncio.sleep(0)
    assert end == spool.head > 3
    assert spool.stats().pending_rows == 0
    await spool.close()


def test_an_inconsistency_of_ours_is_for_good(tmp_path):
    disk = MoodyDisk()
    spool = Spool.open(tmp_path, SMALL, disk=disk)
    disk.error = AssertionError("cannot be")
    with pytest.raises(StorageFault, match="cannot be"):
        spool.append_now([numbered(0, 2)])
    disk.error = None
    assert spool.has_failed_for_good
    with pytest.raises(StorageFault):
        spool.try_again_now()
    spool.close_now()


def test_a_file_that_cannot_be_deleted_is_counted_and_tried_again(tmp_path):
    class Keeping(Disk):
        keeps = True

        def unlink(self, path):
            if self.keeps:
                raise OSError(errno.EIO, "Input/output error")
            super().unlink(path)

    disk = Keeping()
    spool = Spool.open(tmp_path, SMALL, disk=disk)
    cursor = spool.cursor("one")
    spool.append_now([numbered(0, 24)])
    drain(cursor)
    cursor.commit_now(24)
    stats = spool.stats()
    assert (stats.undeleted_segments, stats.fault, stats.segments) == (1, "", 0)
    assert stats.bytes_on_disk > 0
    disk.keeps = False
    spool.append_now([numbered(24, 24)])
    drain(cursor)
    cursor.commit_now(48)
    stats = spool.stats()
    assert (stats.undeleted_segments, stats.bytes_on_disk) == (0, 0)
    spool.close_now()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, ""), "io"),
        (OSError(errno.ENOSPC, ""), "full"),
        (OSError(errno.EDQUOT, ""), "full"),
        (OSError(errno.EROFS, ""), "read_only"),
        (sqlite3.OperationalError("no code"), "io"),
        (fault.Fenced(), "fenced"),
        (ZeroDivisionError(), "broken"),
    ],
)
def test_kinds_of_failure_are_told_apart(error, kind):
    assert fault.kind_of(error) == kind


def test_the_pause_doubles_up_to_its_limit_and_begins_again_after_success():
    pause = fault.Pause(0.5, 3.0)
    assert [pause.take() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    pause.reset()
    assert pause.take() == 0.5
