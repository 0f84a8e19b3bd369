"""One gateway, opened, started and stopped as `run` does it, on real files."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools

import pytest

from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault, Unavailable
from gateway.runtime.checking import load_site
from gateway.runtime.clock import now_ns
from gateway.runtime.core import Ports, open_core
from gateway.runtime.plugins import load_plugins
from gateway.runtime.provider import CoreView
from gateway.runtime.service import SOCKET_PATH_MAX, socket_path
from gateway.spool import Spool, SpoolOptions
from gateway.testing.spool import MoodyDisk
from gateway.testing.tape import recording

PLUGINS = load_plugins()
SITE = """
[site]
tenant = "t"
id = "s"
[judging]
tick_interval_s = 0.01
[spool]
bytes_max_mb = 16
when_full = "WHEN_FULL"
segment_bytes_max_mb = 1
[history]
sink = "store"
[[point]]
id = "g1"
quantity = "methane"
[[sink]]
name = "store"
kind = "duckdb"
[[rule]]
id = "methane"
kind = "limit"
value = { quantity = "methane" }
parameters = { levels = { H = { limit = 1.0 } } }
"""


def site(folder, when_full="thin"):
    path = folder / "site.toml"
    path.write_text(SITE.replace("WHEN_FULL", when_full), encoding="utf-8")
    return load_site(path, PLUGINS)


def batch(values: list[float]) -> Batch:
    time_ns = now_ns()
    times = [time_ns - len(values) + row for row in range(len(values))]
    return Batch.of([0] * len(values), values, times, received_time_ns=time_ns)


async def test_what_was_acknowledged_before_the_stop_is_judged_and_recorded(tmp_path) -> None:
    async with open_core(site(tmp_path), PLUGINS) as core:
        core.start()
        await core.intake.emit(batch([0.5, 1.5]))
    async with open_core(site(tmp_path), PLUGINS) as core:  # a slow machine judges it only now
        core.start()
        assert await core.settle(timeout_s=10)
        (event,) = core.journal.read(0, 10)
        assert event.alarm.alarm_key == "g1:methane"
        assert await core.stored_count() == 2


async def test_a_second_process_on_the_same_data_is_refused_by_name(tmp_path) -> None:
    async with open_core(site(tmp_path), PLUGINS):
        with pytest.raises(StorageFault, match="another process"):
            async with open_core(site(tmp_path), PLUGINS):
                pass
    async with open_core(site(tmp_path), PLUGINS):  # and nothing was left locked
        pass


async def hand_over(core, values: list[float]) -> None:
    """As an adapter does it: what a full spool refuses is handed over again, not acknowledged."""
    while True:
        try:
            await core.intake.emit(batch(values))
        except SpoolFull:
            await asyncio.sleep(0.01)
        else:
            return


class DeadStore:
    history = None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, batch: Batch, offset: int) -> WriteResult:
        raise Unavailable("no route to host")


async def test_a_dead_database_costs_its_own_rows_and_never_an_alarm(tmp_path, monkeypatch) -> None:
    """The spool's budget is spent on what the store is behind: intake and judging go on."""
    monkeypatch.setattr("gateway.runtime.core.GUARD_INTERVAL_S", 0.01)
    dropping = site(tmp_path, when_full="drop_oldest")
    async with open_core(dropping, PLUGINS) as core:
        delivery = core.deliveries["store"]
        delivery.sink = DeadStore()
        delivery.sleep = lambda _seconds: asyncio.sleep(0.001)
        core.start()
        quiet = [0.5] * 50_000
        async with asyncio.timeout(60):
            while not delivery.dropped_count:
                await hand_over(core, quiet)
            await hand_over(core, [1.5])
            while not core.journal.head:
                await asyncio.sleep(0.01)
        assert core.counters.of("sink store")["dropped.spool_budget"] == delivery.dropped_count


class RevivedStore(DeadStore):
    """Dead until told otherwise; then it counts."""

    def __init__(self) -> None:
        self.is_dead, self.rows, self.ends = True, 0, []

    async def write(self, batch: Batch, offset: int) -> WriteResult:
        if self.is_dead:
            raise Unavailable("no route to host")
        self.rows += len(batch)
        if len(batch):  # an empty one says that nothing older comes
            self.ends.append(batch.value[[0, -1]].tolist())
        return WriteResult(accepted=len(batch))


@pytest.mark.slow
async def test_what_a_dead_database_is_behind_is_thinned_and_every_row_is_accounted_for(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.core.GUARD_INTERVAL_S", 0.01)
    async with open_core(site(tmp_path), PLUGINS) as core:
        delivery = core.deliveries["store"]
        store = delivery.sink = RevivedStore()
        delivery.sleep = lambda _seconds: asyncio.sleep(0.001)
        core.start()
        async with asyncio.timeout(60):
            while not delivery.thinned_count:
                await hand_over(core, [0.5] * 50_000)
            await hand_over(core, [1.5])
            while not core.journal.head:
                await asyncio.sleep(0.01)
            while core.spool.is_tight(0.9):
                await asyncio.sleep(0.01)
            store.is_dead = False
            while delivery.cursor.committed < core.spool.head:
                await asyncio.sleep(0.01)
        durable = core.intake.durable_count
        assert store.rows + delivery.thinned_count + delivery.dropped_count == durable
        assert delivery.dropped_count == 0
        assert core.counters.of("sink store")["thinned.spool_budget"] == delivery.thinned_count
        assert store.ends[-1][1] == 1.5
        assert CoreView(core)._spool().dropped_count == delivery.thinned_count


@pytest.mark.slow
async def test_a_spool_that_refuses_when_full_keeps_every_row_and_judges_from_memory(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.core.GUARD_INTERVAL_S", 0.01)
    async with open_core(site(tmp_path, "refuse"), PLUGINS) as core:
        delivery = core.deliveries["store"]
        delivery.sink = DeadStore()
        delivery.sleep = lambda _seconds: asyncio.sleep(0.001)
        core.start()
        async with asyncio.timeout(60):
            with pytest.raises(SpoolFull):
                while True:
                    await core.intake.emit(batch([0.5] * 50_000))
            with pytest.raises(SpoolFull):
                await core.intake.emit(batch([1.5] * 50_000))
            while not core.journal.head:
                await asyncio.sleep(0.01)
        assert delivery.behind == core.intake.durable_count == core.spool.head
        assert delivery.dropped_count == delivery.thinned_count == 0
        assert CoreView(core)._spool().state == "full"


def on_disk(disk, monkeypatch) -> Ports:
    monkeypatch.setattr("gateway.runtime.core.GUARD_INTERVAL_S", 0.01)
    return Ports(open_spool=functools.partial(Spool.open, disk=disk))


async def test_an_inconsistency_of_ours_in_the_spool_asks_for_a_new_start(
    tmp_path, monkeypatch
) -> None:
    disk = MoodyDisk()
    async with open_core(site(tmp_path), PLUGINS, ports=on_disk(disk, monkeypatch)) as core:
        core.start()
        disk.error = AssertionError("cannot be")
        with pytest.raises(StorageFault):
            await core.intake.emit(batch([0.5]))
        await asyncio.wait_for(core.failed.wait(), 5)


@pytest.mark.slow
async def test_a_disk_that_fails_while_running_costs_no_alarm_and_no_new_start(
    tmp_path, monkeypatch, caplog
) -> None:
    disk = MoodyDisk()
    async with open_core(site(tmp_path), PLUGINS, ports=on_disk(disk, monkeypatch)) as core:
        core.start()
        await core.intake.emit(batch([0.5]))
        assert await core.settle(timeout_s=10)
        disk.error = OSError(errno.EIO, "Input/output error")
        alarming = batch([1.5])
        with pytest.raises(StorageFault):
            await core.intake.emit(alarming)
        async with asyncio.timeout(10):
            while not core.judge.from_memory_count:
                await asyncio.sleep(0.001)
        assert core.journal.head == 1, "raised while not a byte of it can be kept"
        row = CoreView(core)._spool()
        assert row.state == "faulty"
        assert "1 samples not acknowledged, 1 judged from memory" in row.detail
        disk.error = None
        await asyncio.to_thread(core.spool.try_again_now)
        await core.intake.emit(alarming)  # the device was not acknowledged: it says it again
        assert await core.settle(timeout_s=20)
        assert core.journal.head == 1, "a repeat raises nothing"
        assert not core.failed.is_set()
        assert await core.stored_count() == 2
        async with asyncio.timeout(5):
            while "is written again" not in caplog.text:
                await asyncio.sleep(0.001)
    assert "the spool cannot be written" in caplog.text


@pytest.mark.slow
async def test_whichever_call_of_the_spool_fails_the_judge_sees_every_row(
    tmp_path, monkeypatch
) -> None:
    """And of what was acknowledged nothing is missing in the store."""
    monkeypatch.setattr(
        "gateway.runtime.core.spool_options",
        lambda _config: SpoolOptions(retry_first_s=0.005, retry_max_s=0.01),
    )
    for n in range(1, 120, 17):
        folder, seen, count, started = tmp_path / str(n), [], itertools.count(1), asyncio.Event()

        def refuse(_what, _path, count=count, n=n, started=started) -> int:
            return errno.EIO if started.is_set() and n <= next(count) < n + 9 else 0

        with recording(folder / "data" / "spool") as tape:
            tape.refuse = refuse
            async with open_core(site(folder), PLUGINS) as core:
                evaluate = core.judge.rules.evaluate

                def watching(rows, now_ns, evaluate=evaluate, seen=seen):
                    seen += rows.value.tolist()
                    return evaluate(rows, now_ns)

                core.judge.rules.evaluate = watching
                core.judge.checkpoint_interval_s = 0.05
                core.start()
                started.set()
                for step in range(20):
                    await until_durable(core, batch([0.01 * step]))
                assert await core.settle(timeout_s=20), n
                assert set(seen) >= {0.01 * step for step in range(20)}, n
                assert await core.stored_count() == 20, n


async def until_durable(core, rows: Batch) -> None:
    """As a device does it: until it is acknowledged."""
    while True:
        try:
            await core.intake.emit(rows)
        except StorageFault:
            await asyncio.sleep(0.001)
        else:
            return


async def test_a_listener_that_fails_is_dropped_and_the_judge_goes_on(tmp_path, caplog) -> None:
    async with open_core(site(tmp_path), PLUGINS) as core:
        told = []

        def broken(_events) -> None:
            raise BrokenPipeError

        core.event_listeners += [broken, told.append]
        core.start()
        await core.intake.emit(batch([1.5]))
        await core.intake.emit(batch([0.5]))
        async with asyncio.timeout(10):
            while len(told) < 2:
                await asyncio.sleep(0.01)
        assert core.event_listeners == [told.append]
        assert "is dropped" in caplog.text


def test_a_deep_data_folder_still_gets_a_socket(tmp_path) -> None:
    deep = tmp_path / ("x" * 120)
    assert socket_path(tmp_path) == tmp_path / "core.sock"
    assert len(str(socket_path(deep))) < SOCKET_PATH_MAX
