"""One gateway, opened, started and stopped as `run` does it, on real files."""

from __future__ import annotations

import asyncio
import functools

import pytest

from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault, Unavailable
from gateway.runtime.checking import load_site
from gateway.runtime.clock import now_ns
from gateway.runtime.core import Ports, open_core
from gateway.runtime.plugins import load_plugins
from gateway.runtime.service import SOCKET_PATH_MAX, socket_path
from gateway.spool import Spool
from gateway.testing.spool import FailingDisk

PLUGINS = load_plugins()
SITE = """
[site]
tenant = "t"
id = "s"
[judging]
tick_interval_s = 0.01
[spool]
bytes_max_mb = 16
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


def site(folder):
    path = folder / "site.toml"
    path.write_text(SITE, encoding="utf-8")
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
    async with open_core(site(tmp_path), PLUGINS) as core:
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


async def test_a_spool_that_fails_for_good_asks_for_a_new_start(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.core.GUARD_INTERVAL_S", 0.01)
    opened = functools.partial(Spool.open, disk=FailingDisk(40, "before"))
    async with open_core(site(tmp_path), PLUGINS, ports=Ports(open_spool=opened)) as core:
        core.start()
        with pytest.raises(StorageFault):
            for _ in range(100):
                await core.intake.emit(batch([0.5]))
        await asyncio.wait_for(core.failed.wait(), 5)


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
