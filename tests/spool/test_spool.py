"""The spool's everyday: contract, group commit, back-pressure, budget, tail and disk, forgetting."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest

from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.spool.disk import Disk
from gateway.spool.record import ROWS_MAX
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import check_chunk, check_spool, drain, numbered

SMALL = SpoolOptions(segment_rows_max=10, segment_bytes_max=1 << 20, tail_rows_max=4)


class HeldDisk(Disk):
    """A disk whose next syncs wait until let go: what is pending stays pending."""

    def __init__(self):
        self.free = threading.Event()
        self.free.set()
        self.waiting = threading.Event()

    def _open(self, uri):
        disk = self

        class Held(sqlite3.Connection):
            def execute(self, sql, *rest):
                if sql == "COMMIT" and not disk.free.is_set():
                    disk.waiting.set()
                    disk.free.wait(10)
                return super().execute(sql, *rest)

        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=Held
        )


@contextlib.contextmanager
def opened(path, options=None):
    spool = Spool.open(path, options)
    yield spool
    spool.close_now()


async def until(condition, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def spool(tmp_path):
    spool = Spool.open(tmp_path, SMALL)
    yield spool
    spool.close_now()


@pytest.mark.parametrize(
    "options",
    [
        SpoolOptions(),
        SMALL,
        SpoolOptions(segment_rows_max=1, tail_rows_max=1),
        SpoolOptions(commit_window_s=0.002),
        SpoolOptions(pending_rows_max=1),
    ],
    ids=["default", "small", "tiny", "window", "no room"],
)
async def test_a_spool_of_any_size_keeps_the_contract(tmp_path, options):
    await check_spool(lambda: Spool.open(tmp_path, options))


@pytest.mark.parametrize("rows_max", [1, 3, 10, 1000])
def test_every_row_comes_once_and_in_order_across_tail_disk_and_segments(spool, rows_max):
    sizes = [3, 1, 7, 20, 2, 2, 5]
    first = 0
    for size in sizes:
        spool.append_now([numbered(first, size)])
        first += size
    assert spool.stats().tail_rows <= 5  # the rest has to come from the disk
    assert spool.stats().segments > 2
    assert drain(spool.cursor("one"), rows_max) == list(range(first))


def test_a_reader_that_keeps_up_never_opens_a_file(tmp_path):
    class Watched(Disk):
        read_only = 0

        def connect(self, path, *, read_only=False, immutable=False):
            self.read_only += read_only
            return super().connect(path, read_only=read_only, immutable=immutable)

    disk = Watched()
    spool = Spool.open(tmp_path, SpoolOptions(tail_rows_max=100), disk=disk)
    cursor = spool.cursor("live")
    for first in range(0, 300, 10):
        spool.append_now([numbered(first, 10)])
        check_chunk(cursor.read(100))
    assert disk.read_only == 0
    spool.close_now()


async def test_concurrent_callers_share_commits_and_each_gets_its_own_end(tmp_path):
    spool = Spool.open(tmp_path, SpoolOptions())
    ends = await asyncio.gather(
        *(spool.append(Batch.of([i], [i], 0, received_time_ns=0)) for i in range(200))
    )
    assert sorted(ends) == list(range(1, 201))
    assert spool.stats().commits < 100
    cursor, values = spool.cursor("one"), {}
    while chunk := cursor.read(64):
        values.update(zip(range(chunk.start, chunk.end), chunk.batch.value, strict=True))
    assert all(values[end - 1] == i for i, end in enumerate(ends))
    await spool.close()


async def test_a_commit_window_gathers_what_comes_within_it(tmp_path):
    spool = Spool.open(tmp_path, SpoolOptions(commit_window_s=5.0, pending_rows_max=8))
    tasks = [asyncio.create_task(spool.append(numbered(i, 1))) for i in range(4)]
    await asyncio.gather(*tasks)  # half of the pending room ends a window early
    assert spool.stats().commits == 1
    await spool.close()


async def test_append_waits_for_room_in_the_order_of_arrival(tmp_path):
    disk = HeldDisk()
    spool = Spool.open(tmp_path, SpoolOptions(pending_rows_max=4), disk=disk)
    spool.append_now([numbered(0, 1)])
    disk.free.clear()
    order = []

    async def caller(first, rows):
        end = await spool.append(numbered(first, rows))
        order.append((first, end))

    tasks = [asyncio.create_task(caller(1 + 2 * i, 2)) for i in range(6)]
    await until(disk.waiting.is_set)
    await asyncio.sleep(0)
    assert spool.stats().pending_rows <= 4
    assert not order
    disk.free.set()
    await asyncio.gather(*tasks)
    assert order == [(1 + 2 * i, 3 + 2 * i) for i in range(6)]
    assert drain(spool.cursor("one")) == list(range(13))
    assert spool.stats().pending_rows == 0
    await spool.close()


async def test_a_cancelled_wait_for_room_gives_its_place_to_the_next(tmp_path):
    disk = HeldDisk()
    spool = Spool.open(tmp_path, SpoolOptions(pending_rows_max=1), disk=disk)
    spool.append_now([numbered(0, 1)])
    disk.free.clear()
    tasks = [asyncio.create_task(spool.append(numbered(1, 1))) for _ in range(3)]
    await until(disk.waiting.is_set)
    tasks[1].cancel()
    await asyncio.sleep(0)
    disk.free.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [2, 3]
    assert spool.head == 3
    assert spool.stats().pending_rows == 0
    await spool.close()


async def test_close_makes_durable_what_was_accepted_and_refuses_who_waits_for_room(tmp_path):
    disk = HeldDisk()
    spool = Spool.open(tmp_path, SpoolOptions(pending_rows_max=2), disk=disk)
    spool.append_now([numbered(0, 1)])
    disk.free.clear()
    accepted = asyncio.create_task(spool.append(numbered(1, 2)))
    refused = asyncio.create_task(spool.append(numbered(3, 1)))
    await until(disk.waiting.is_set)
    closing = asyncio.create_task(spool.close())
    with pytest.raises(StorageFault, match="closed"):
        await refused
    disk.free.set()
    assert await accepted == 3
    await closing
    with opened(tmp_path) as again:
        assert drain(again.cursor("one")) == [0, 1, 2]


def test_a_thread_waits_for_room_as_well_and_a_close_refuses_it(tmp_path):
    disk = HeldDisk()
    spool = Spool.open(tmp_path, SpoolOptions(pending_rows_max=2), disk=disk)
    spool.append_now([numbered(0, 1)])
    disk.free.clear()
    outcomes = []

    def caller(first):
        try:
            outcomes.append(spool.append_now([numbered(first, 2)]))
        except StorageFault as fault:
            outcomes.append(fault)

    first = threading.Thread(target=caller, args=(1,))
    first.start()
    assert disk.waiting.wait(5)
    second = threading.Thread(target=caller, args=(3,))
    second.start()
    closing = threading.Thread(target=spool.close_now)
    closing.start()
    second.join(5)
    assert [type(each) for each in outcomes] == [StorageFault]
    disk.free.set()
    for thread in (first, closing):
        thread.join(5)
    assert outcomes[1:] == [3]
    with opened(tmp_path) as again:
        assert again.head == 3


async def test_next_waits_for_rows_and_ends_with_the_spool(tmp_path):
    spool = Spool.open(tmp_path, SMALL)
    cursor = spool.cursor("one")
    waiting = asyncio.create_task(cursor.next(10))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await spool.append(numbered(0, 2))
    check_chunk(await waiting)
    ending = asyncio.create_task(cursor.next(10))
    await asyncio.sleep(0)
    await spool.close()
    with pytest.raises(StorageFault):
        await ending


async def test_next_hears_of_rows_appended_from_a_thread(tmp_path):
    spool = Spool.open(tmp_path, SMALL)
    waiting = asyncio.create_task(spool.cursor("one").next(10))
    await asyncio.sleep(0)
    await asyncio.to_thread(spool.append_now, [numbered(0, 3)])
    chunk = await asyncio.wait_for(waiting, 5)
    assert (chunk.start, chunk.end) == (0, 3)
    await spool.close()


async def test_a_cancelled_next_loses_no_row(tmp_path):
    spool = Spool.open(tmp_path, SMALL)
    spool.append_now([numbered(0, 100)])  # far beyond the tail: next goes to a thread
    cursor = spool.cursor("one")
    for _ in range(20):
        task = asyncio.create_task(cursor.next(7))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert drain(cursor) == list(range(100))
    await spool.close()


def test_segments_are_forgotten_once_every_consumer_is_done_with_their_last_row(spool):
    slow, fast = spool.cursor("slow"), spool.cursor("fast")
    for first in range(0, 40, 5):
        spool.append_now([numbered(first, 5)])
    drain(fast), drain(slow)
    fast.commit_now(40)
    assert spool.oldest == 0
    slow.commit_now(19)
    assert (
        spool.oldest == 10
    )  # row 19 stands in the segment of rows 10 to 19: 19 itself is not done
    slow.commit_now(20)
    assert spool.oldest == 20
    slow.commit_now(40)
    assert spool.oldest == 40 == spool.head
    assert list(spool.directory.glob("*.segment*")) == []
    spool.append_now([numbered(40, 1)])
    assert drain(slow) == [40]


def test_a_consumer_that_has_not_come_back_yet_keeps_its_rows(tmp_path):
    with opened(tmp_path, SMALL) as spool:
        spool.cursor("absent")
        spool.append_now([numbered(0, 30)])
    with opened(tmp_path, SMALL) as spool:
        present = spool.cursor("present")
        drain(present)
        present.commit_now(30)
        assert drain(spool.cursor("absent")) == list(range(30))
        spool.drop_cursor("absent")
        spool.append_now([numbered(30, 10)])
        drain(present)
        present.commit_now(40)
        assert spool.oldest == 40


def test_rows_keep_their_numbers_after_everything_was_forgotten_and_reopened(tmp_path):
    for round_no in range(3):
        with opened(tmp_path, SMALL) as spool:
            assert spool.head == spool.oldest == round_no * 12
            cursor = spool.cursor("one")
            spool.append_now([numbered(round_no * 12, 12)])
            assert drain(cursor) == list(range(round_no * 12, round_no * 12 + 12))
            cursor.commit_now(spool.head)


def test_a_spent_budget_refuses_and_accepts_again_once_rows_are_committed(tmp_path):
    options = SpoolOptions(segment_bytes_max=64 << 10, bytes_max=256 << 10, tail_rows_max=10)
    spool = Spool.open(tmp_path, options)
    cursor, first = spool.cursor("one"), 0
    with contextlib.suppress(SpoolFull):
        for first in range(0, 20_000, 100):
            spool.append_now([numbered(first, 100)])
    assert first == spool.head < 19_000
    assert spool.stats().bytes_on_disk <= options.bytes_max + options.segment_bytes_max
    assert spool.fault is None
    assert drain(cursor) == list(range(first))
    cursor.commit_now(first)
    spool.append_now([numbered(first, 100)])
    assert drain(cursor) == list(range(first, first + 100))
    spool.close_now()


async def test_a_spent_budget_refuses_those_who_wait_for_room_too(tmp_path):
    options = SpoolOptions(segment_bytes_max=64 << 10, bytes_max=128 << 10, pending_rows_max=500)
    spool = Spool.open(tmp_path, options)
    spool.cursor("one")
    calls = [spool.append(numbered(0, 400)) for _ in range(30)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    accepted = [each for each in outcomes if isinstance(each, int)]
    assert accepted == [400 * (i + 1) for i in range(len(accepted))]
    assert {type(each) for each in outcomes[len(accepted) :]} == {SpoolFull}
    assert spool.stats().pending_rows == 0
    await spool.close()


def test_a_batch_larger_than_a_record_comes_back_whole(tmp_path):
    with opened(tmp_path, SpoolOptions(tail_rows_max=1)) as spool:
        rows = 2 * ROWS_MAX + 17
        assert spool.append_now([numbered(0, rows)]) == rows
        chunk = spool.cursor("one").read(rows)
        check_chunk(chunk)
        assert chunk.end == rows


def test_a_second_opener_is_refused_and_the_first_goes_on(spool):
    with pytest.raises(StorageFault, match="open in another process"):
        Spool.open(spool.directory)
    assert spool.append_now([numbered(0, 1)]) == 1


def test_opening_a_directory_that_cannot_be_made_is_a_storage_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFault):
        Spool.open(tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    "bad",
    [
        {"segment_rows_max": 0},
        {"pending_rows_max": 0},
        {"tail_rows_max": 0},
        {"commit_window_s": -1},
        {"bytes_max": 1 << 20},
    ],
)
def test_limits_that_could_not_work_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SpoolOptions(**bad)


async def test_seek_stays_between_what_is_committed_and_the_head(spool):
    spool.append_now([numbered(0, 10)])
    cursor = spool.cursor("one")
    await cursor.seek(5)
    cursor.commit_now(5)
    for bad in (4, 11):
        with pytest.raises(ValueError, match="is not between"):
            await cursor.seek(bad)
    with pytest.raises(AssertionError):
        cursor.commit_now(6)  # not read yet
