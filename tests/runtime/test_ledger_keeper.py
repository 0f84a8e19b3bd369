"""The ledger as a consumer of a running gateway: real files, real spool, crashes and damage."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from gateway.contract.sink import WriteResult
from gateway.ledger.account import Request
from gateway.ledger.cells import Column
from gateway.ledger.ledger import LedgerOptions, open_ledger
from gateway.ledger.store import DATABASE
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault, Unavailable
from gateway.model.point import PointTable
from gateway.runtime.checking import load_site
from gateway.runtime.core import Ports, open_core
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.ledger_keeper import CURSOR, LedgerKeeper, World, read_account
from gateway.runtime.plugins import load_plugins
from gateway.spool import Spool

PLUGINS = load_plugins()
MINUTE_NS = 60_000_000_000
START_NS = 29_000_000 * MINUTE_NS
S = 10**9
SITE = """
[site]
tenant = "t"
id = "s"
[history]
sink = "store"
[[point]]
id = "g1"
interval_s = 10
[[point]]
id = "g2"
interval_s = 10
area = "north"
[[sink]]
name = "store"
kind = "duckdb"
"""


class Clock:
    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


def site(folder):
    path = folder / "site.toml"
    path.write_text(SITE, encoding="utf-8")
    return load_site(path, PLUGINS)


def minute_of(point: int, minute: int) -> Batch:
    times = [START_NS + minute * MINUTE_NS + k * 10 * S for k in range(6)]
    return Batch.of([point] * 6, [0.0] * 6, times, received_time_ns=times)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def running(folder, clock, **ports):
    """A core whose keeper counts at once."""

    class Running:
        async def __aenter__(self):
            self._open = open_core(site(folder), PLUGINS, ports=Ports(now_ns=clock, **ports))
            core = await self._open.__aenter__()
            assert core.keeper is not None
            core.keeper.count_interval_s, core.keeper.flush_interval_s = 0.01, 0.0
            core.keeper.monotonic_s = lambda: clock.now_ns / S
            core.start()
            return core

        async def __aexit__(self, *why):
            await self._open.__aexit__(*why)

    return Running()


async def settled(core, clock, minute: int, count: int) -> None:
    """Everything stored and counted, and `minute` known."""
    await until(lambda: core.counters.total("ledger", "accepted") >= count)
    assert await core.settle(timeout_s=20)
    await core.judge.checkpoint()
    while clock.now_ns < START_NS + minute * MINUTE_NS:
        clock.now_ns += 30 * S  # a beat every half minute
        await until(lambda: core.keeper._beat_ns == clock.now_ns)


ASK = Request(START_NS // MINUTE_NS, START_NS // MINUTE_NS + 8)


@pytest.mark.slow
async def test_a_gateway_knows_what_it_received_judged_and_stored_and_who_was_silent(
    tmp_path,
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        for minute in range(1, 4):
            await core.intake.emit(minute_of(0, minute))
        await core.intake.emit(minute_of(1, 1))
        await settled(core, clock, 12, 24)
        account = await core.keeper.account(ASK)
    one, two = sorted(account.rows, key=lambda row: row.key)
    assert (one.key, one.due, one.got, one.gaps) == ("g1", 42, 18, {"device_silent": 24})
    assert (two.key, two.minutes_due, two.minutes_online) == ("g2", 7, 1)
    assert one.counted["good"] == 18
    has = {each.name: (each.role, each.has, each.missing) for each in one.consumers}
    assert has == {"judge": ("judge", 18, {}), "sink.store": ("store", 18, {})}
    # The file says the same when nobody has it open.
    assert read_account(tmp_path / "data" / "ledger", ASK).total.due == 84


@pytest.mark.slow
async def test_our_own_down_time_is_ours_and_rows_counted_before_a_kill_are_counted_once(
    tmp_path,
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        await core.intake.emit(minute_of(0, 1))
        await settled(core, clock, 2, 6)
    # As after a kill: the spool's cursor is behind what the ledger has on record.
    clock.now_ns = START_NS + 5 * MINUTE_NS
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        await core.intake.emit(minute_of(0, 6))
        await settled(core, clock, 12, 6)
        account = await core.keeper.account(ASK)
    (one,) = [row for row in account.rows if row.key == "g1"]
    assert one.counted["good"] == 12
    assert one.gaps == {"gateway_down": 24, "device_silent": 6}  # minutes 2 to 5, and 7


@pytest.mark.slow
async def test_a_damaged_ledger_is_set_aside_and_begun_anew_from_what_the_spool_has(
    tmp_path,
) -> None:
    clock, counters = Clock(), CounterTable()
    spool = Spool.open(tmp_path / "spool")
    spool.cursor("slow store")  # has taken nothing: every row is still there
    keeper = LedgerKeeper(
        tmp_path / "ledger",
        spool,
        PointTable(),
        LedgerOptions(),
        World(dict, list, dict),
        counters.component("ledger"),
        StatusCell("ledger"),
        clock,
        count_interval_s=0.01,
        flush_interval_s=0.0,
    )
    await spool.append(minute_of(0, 1))
    for _ in range(2):
        before = counters.total("ledger", "accepted")
        task = asyncio.create_task(keeper.run())
        await until(lambda: counters.total("ledger", "accepted") == before + 6)  # noqa: B023
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert spool.cursor(CURSOR).committed == 6
        path = tmp_path / "ledger" / DATABASE
        book = open_ledger(tmp_path / "ledger", LedgerOptions())
        cells = book.store.minutes(0, 2**60)
        assert {m: c.columns[Column.GOOD].tolist() for m, c in cells.items()} == {29_000_001: [6]}
        book.close()
        path.write_bytes(b"no ledger at all" * 300)
    assert path.with_name(DATABASE + ".damaged-1").read_bytes().startswith(b"no ledger")
    await spool.close()


@pytest.mark.slow
async def test_a_ledger_that_cannot_be_opened_holds_up_nobody(tmp_path) -> None:
    clock = Clock()

    def refuses(folder, options):
        raise StorageFault("no room")

    async with running(tmp_path, clock, open_ledger=refuses) as core:
        await core.intake.emit(minute_of(0, 1))
        assert await core.settle(timeout_s=20)
        await until(lambda: core.status("ledger").state == "waiting")
        with pytest.raises(Unavailable):
            await core.keeper.account(ASK)
        await core.keeper.refused("sink.store", [0], minute_of(0, 1).take(slice(0, 1)))
        assert core.counters.of("ledger")["verdict_lost"] == 1
        assert core.judge.judged_count == 6


@pytest.mark.slow
async def test_a_row_the_store_refuses_is_missing_there_and_nowhere_else(tmp_path) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        sink = core.deliveries["store"].sink
        write = sink.write

        async def picky(batch, offset, **more):
            result = await write(batch, offset, **more)
            return WriteResult(
                result.accepted - 1,
                0,
                (batch.source_time_ns == START_NS + MINUTE_NS).nonzero()[0],
                ["no"],
            )

        sink.write = picky
        await core.intake.emit(minute_of(0, 1))
        await settled(core, clock, 12, 6)
        account = await core.keeper.account(ASK)
    has = {each.name: (each.has, each.missing) for each in account.total.consumers}
    assert has == {"judge": (6, {}), "sink.store": (5, {"rejected": 1})}


@pytest.mark.slow
async def test_books_of_another_spool_do_not_take_its_offsets_for_their_own(tmp_path) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        for minute in (1, 2):
            await core.intake.emit(minute_of(0, minute))
        await settled(core, clock, 3, 12)
    (tmp_path / "data" / "spool").rename(tmp_path / "data" / "spool.old")
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        await core.intake.emit(minute_of(0, 3))
        await settled(core, clock, 12, 6)
        account = await core.keeper.account(ASK)
        assert core.spool.cursor(CURSOR).committed <= core.spool.head
    (store,) = [c for c in account.total.consumers if c.role == "store"]
    assert account.total.counted["good"] == 18
    assert (store.has, store.missing) == (6, {"not_asked": 12})


def test_a_ledger_of_a_newer_format_is_kept_aside(tmp_path) -> None:
    ledger = open_ledger(tmp_path, LedgerOptions())
    with ledger.store.transaction():
        ledger.store.put_state(format=99)
    ledger.close()
    ledger = open_ledger(tmp_path, LedgerOptions())
    assert ledger.store.set_aside == DATABASE + ".damaged-1"
    ledger.close()


@pytest.mark.slow
async def test_a_row_the_judge_passes_over_is_missing_there_alone_and_a_stuck_ledger_delays_nobody(
    tmp_path,
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as core:
        await until(lambda: core.status("ledger").state == "counting")
        ledger = core.keeper._ledger
        with held(ledger._lock):  # as while its disk hangs
            await core.intake.emit(minute_of(0, 1))
            await until(lambda: core.judge.judged_count == 6)
            core.judge.on_passed_over(2, minute_of(0, 1).take(slice(2, 3)))
        await until(lambda: not core.keeper._verdicts)
        await settled(core, clock, 12, 6)
        account = await core.keeper.account(ASK)
    has = {each.name: (each.has, each.missing) for each in account.total.consumers}
    assert has == {"judge": (5, {"rejected": 1}), "sink.store": (6, {})}


@contextlib.contextmanager
def held(lock):
    """By another thread."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    yield
    done.set()
    thread.join()
