"""Crashes of every kind: the model beside the spool, the n-th write failing, kill -9, torn logs."""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.model.errors import StorageFault
from gateway.spool.salvage import wal_path
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import FailingDisk, check_chunk, drain, numbered

TINY = SpoolOptions(segment_rows_max=12, tail_rows_max=6)
NAMES = ("a", "b", "c")


class SpoolBesideAList(RuleBasedStateMachine):
    """The model: how many rows were acknowledged, and where each consumer is. A crash is a copy of
    the directory as the kernel has it, opened while the first process still holds its own."""

    def __init__(self):
        super().__init__()
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="spool-machine-", dir=memory))
        self.lives = 0
        self.rows = 0
        self.committed = {}
        self.position = {}
        self.directory = self.root / "0"
        self.spool = Spool.open(self.directory, TINY)

    @initialize(first=st.integers(0, 5))
    def begin(self, first):
        for _ in range(first):
            self.append([1])

    @rule(sizes=st.lists(st.integers(0, 9), max_size=5))
    def append(self, sizes):
        batches = []
        for size in sizes:
            batches.append(numbered(self.rows, size))
            self.rows += size
        assert self.spool.append_now(batches) == self.rows

    @rule(name=st.sampled_from(NAMES), rows_max=st.integers(1, 40))
    def read(self, name, rows_max):
        cursor = self._cursor(name)
        chunk = cursor.read(rows_max)
        if chunk is None:
            assert self.position[name] == self.rows
        else:
            check_chunk(chunk)
            assert chunk.start == self.position[name]
            assert chunk.end <= min(self.rows, chunk.start + rows_max)
            self.position[name] = chunk.end

    @rule(name=st.sampled_from(NAMES), share=st.floats(0, 1))
    def commit(self, name, share):
        cursor = self._cursor(name)
        span = self.position[name] - self.committed[name]
        self.committed[name] += int(span * share)
        cursor.commit_now(self.committed[name])

    @rule(name=st.sampled_from(NAMES))
    def rewind(self, name):
        self._cursor(name).rewind()
        self.position[name] = self.committed[name]

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name):
        self.spool.drop_cursor(name)
        self.committed.pop(name, None)
        self.position.pop(name, None)

    @rule()
    def crash(self):
        self.lives += 1
        copy = self.root / str(self.lives)
        shutil.copytree(self.directory, copy)
        self.spool.close_now()
        shutil.rmtree(self.directory)
        self.directory = copy
        self._open()

    @rule()
    def reopen(self):
        self.spool.close_now()
        self._open()

    @invariant()
    def figures_agree(self):
        stats = self.spool.stats()
        assert stats.head == self.rows
        assert stats.oldest <= min(self.committed.values(), default=self.rows)
        assert stats.depth == {n: self.rows - at for n, at in self.committed.items()}
        assert (stats.lost_rows, stats.damaged_segments, stats.fault) == (0, 0, "")
        assert (stats.foreign_files, stats.cursors_reset) == (0, 0)

    def teardown(self):
        for name in NAMES:
            at = self._cursor(name).position
            assert drain(self.spool.cursor(name)) == list(range(at, self.rows))
        self.spool.close_now()
        shutil.rmtree(self.root)

    def _open(self):
        self.spool = Spool.open(self.directory, TINY)
        self.position = dict(self.committed)

    def _cursor(self, name):
        cursor = self.spool.cursor(name)
        if name not in self.committed:
            self.committed[name] = self.position[name] = self.spool.oldest
        assert (cursor.committed, cursor.position) == (self.committed[name], self.position[name])
        return cursor


TestSpoolBesideAList = pytest.mark.slow(SpoolBesideAList.TestCase)
TestSpoolBesideAList.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, print_blob=True
)


def one_life(directory, disk):
    """Appends, commits, rotations, closing: what was acknowledged before the disk gave out."""
    acked, committed = 0, 0
    try:
        spool = Spool.open(directory, TINY, disk=disk)
    except StorageFault:
        return acked, committed
    try:
        cursor = spool.cursor("one")
        for step in range(7):
            acked = spool.append_now([numbered(acked, 2), numbered(acked + 2, 3)])
            if step % 3 == 2:
                drain(cursor)
                cursor.commit_now(cursor.position - 4)
                committed = cursor.committed
    except StorageFault:
        assert spool.fault is not None
        with pytest.raises(StorageFault):
            spool.append_now([numbered(acked, 1)])
        assert spool.stats().fault
    finally:
        spool.close_now()
    return acked, committed


def operations_of_a_life(tmp_path):
    disk = FailingDisk(fail_at=10**9)
    one_life(tmp_path / "count", disk)
    return disk.count


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_whichever_durable_operation_fails_nothing_acknowledged_is_lost(tmp_path, when):
    total = operations_of_a_life(tmp_path)
    assert total > 30
    for n in range(1, total + 1):
        place = tmp_path / f"{n}"
        acked, committed = one_life(place, FailingDisk(n, when))
        spool = Spool.open(place, TINY)
        cursor = spool.cursor("one")
        assert committed <= cursor.committed, n
        rows = drain(cursor)
        assert rows == list(range(cursor.committed, spool.head)), n
        assert spool.head >= acked, n
        assert spool.stats().lost_rows == 0, n
        assert spool.append_now([numbered(spool.head, 3)]) == spool.head
        spool.close_now()
        shutil.rmtree(place)


async def test_a_failed_sync_fails_everyone_who_waits_and_everyone_after(tmp_path):
    spool = Spool.open(tmp_path, SpoolOptions(pending_rows_max=4), disk=FailingDisk(10))
    while spool.fault is None:
        outcomes = await asyncio.gather(
            *(spool.append(numbered(0, 2)) for _ in range(5)), return_exceptions=True
        )
    assert any(isinstance(each, StorageFault) for each in outcomes)
    assert all(isinstance(each, int | StorageFault) for each in outcomes)
    with pytest.raises(StorageFault):
        await spool.append(numbered(0, 1))
    with pytest.raises(StorageFault):
        spool.cursor("new")
    assert spool.stats().pending_rows == 0
    await spool.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import numbered
from gateway.model.batch import Batch

async def main():
    spool = Spool.open(Path(sys.argv[1]), SpoolOptions(segment_rows_max=400, tail_rows_max=50))
    cursor = spool.cursor("killed")
    async def caller(mark):
        seq = 0
        while True:
            batch = Batch.of([mark] * (mark + 1), [seq] * (mark + 1), 0, received_time_ns=0)
            end = await spool.append(batch)
            print(mark, seq, end, flush=True)
            seq += 1
    async def consumer():
        while True:
            chunk = await cursor.next(60)
            await cursor.commit(chunk.end)
            print("c", chunk.end, 0, flush=True)
    await asyncio.gather(consumer(), *(caller(mark) for mark in range(5)))

asyncio.run(main())
"""


@pytest.mark.system
@pytest.mark.slow
def test_kill_9_at_any_instant_loses_no_acknowledged_row(tmp_path):
    seed = 20_240_501
    rng = random.Random(seed)
    keeper = Spool.open(tmp_path, TINY)
    keeper.cursor("check")  # keeps every row, so that all can be looked at afterwards
    keeper.close_now()
    acks, committed = [], 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline() for _ in range(rng.randrange(1, 200))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        for line in lines:
            if not line.endswith("\n"):
                continue  # cut in the middle
            who, what, end = line.split()
            if who == "c":
                committed = max(committed, int(what))
            else:
                acks.append((int(who), int(what), int(end)))
    spool = Spool.open(tmp_path, TINY)
    assert spool.cursor("killed").committed >= committed, seed
    cursor, found = spool.cursor("check"), {}
    while chunk := cursor.read(500):
        for at, who, what in zip(
            range(chunk.start, chunk.end), chunk.batch.point_index, chunk.batch.value, strict=True
        ):
            found[at] = (who, what)
    assert sorted(found) == list(range(spool.head)), "gap-free"
    assert spool.stats().lost_rows == 0
    assert len(acks) > 200
    for who, what, end in acks:  # each at its own offset: so order is kept as well
        for at in range(end - who - 1, end):
            assert found[at] == (who, what), (seed, at)
    spool.close_now()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 40, 500])
def test_a_log_torn_anywhere_in_the_unsynced_commit_keeps_every_commit_before(tmp_path, rows):
    live = tmp_path / "live"
    spool = Spool.open(live, SpoolOptions())
    spool.cursor("one")
    for first in range(0, 3 * rows, rows):
        spool.append_now([numbered(first, rows)])
    (segment,) = live.glob("*.segment")
    before = wal_path(segment).stat().st_size
    spool.append_now([numbered(3 * rows, rows)])
    whole = wal_path(segment).read_bytes()
    rng = random.Random(rows)
    for case in range(16):
        copy = tmp_path / f"torn-{case}"
        shutil.copytree(live, copy)
        cut = rng.randrange(before, len(whole))
        torn = whole[:cut]
        if case % 2:  # the file has its length already, the bytes have not arrived
            torn += bytes(len(whole) - cut)
        wal_path(copy / segment.name).write_bytes(torn)
        again = Spool.open(copy, SpoolOptions())
        got = drain(again.cursor("one"))
        assert got == list(range(again.head))
        assert again.head in (3 * rows, 4 * rows)
        assert again.stats().lost_rows == 0
        again.close_now()
        shutil.rmtree(copy)
    spool.close_now()


@pytest.mark.system
def test_a_second_process_is_refused(tmp_path):
    spool = Spool.open(tmp_path)
    code = (
        "import sys; from pathlib import Path; from gateway.spool.spool import Spool\n"
        "from gateway.model.errors import StorageFault\n"
        "try: Spool.open(Path(sys.argv[1]))\n"
        "except StorageFault as fault: print(fault)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "open in another process" in done.stdout
    spool.close_now()
