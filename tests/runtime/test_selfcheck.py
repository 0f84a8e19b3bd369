"""The gateway's own health: said through emit, at once when it changes, judged into alarms."""

import asyncio
import errno
from pathlib import Path

import pytest

from gateway.model.alarm import Transition
from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.runtime.checking import load_site
from gateway.runtime.core import open_core
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.packs import read_pack
from gateway.runtime.plugins import load_plugins
from gateway.runtime.selfcheck import NAMES, PENDING_MAX, SelfCheck
from gateway.testing.tape import recording

PLUGINS = load_plugins()


class Declared:
    """Takes points as the registry does."""

    def __init__(self) -> None:
        self.points_seen: list[str] = []

    async def points(self, points) -> list[int]:
        self.points_seen = [point.id for point in points]
        return list(range(len(points)))

    async def devices(self, devices) -> list[int]:
        return list(range(len(devices)))


class Looks:
    """A self-check whose looks are counted instead of waited for."""

    def __init__(self, figures: list[dict[str, float]], emit) -> None:
        self.left, self.declared = list(figures), Declared()
        self.table = CounterTable()
        self.check = SelfCheck(
            figures=lambda: self.left[0],
            emit=emit,
            declare=self.declared,
            counters=self.table.component("selfcheck"),
            status=StatusCell("selfcheck"),
            now_ns=lambda: 1_700_000_000_000_000_000,
            sleep=self._next,
        )

    async def _next(self, _seconds: float) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.left.pop(0)
        if not self.left:
            raise asyncio.CancelledError

    async def run(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await self.check.run()


def figures(**changed: float) -> dict[str, float]:
    return {**dict.fromkeys(NAMES, 0.0), **changed}


async def test_everything_is_said_first_then_what_changed_at_once_then_everything_again() -> None:
    said: list[int] = []

    async def emit(batch: Batch) -> None:
        said.append(len(batch))

    quiet, fault = figures(), figures(gateway_spool_fault=1.0, gateway_poisoned=1.0)
    looks = Looks([quiet] * 3 + [fault] * 9, emit)
    await looks.run()
    assert said == [len(NAMES), 2, len(NAMES)]
    assert looks.check.durable_count == sum(said)
    assert looks.declared.points_seen[0] == "gateway.spool_fault"


async def test_what_the_disk_refuses_is_said_again_and_a_disk_that_hangs_gathers_nothing() -> None:
    async def refuse(_batch: Batch) -> None:
        raise StorageFault("EIO")

    looks = Looks([figures(gateway_spool_fault=1.0)] * 2, refuse)
    await looks.run()
    assert looks.table.of("selfcheck")["rejected.not_durable"] == len(NAMES)

    async def hang(_batch: Batch) -> None:
        await asyncio.Event().wait()

    changing = [figures(gateway_lost_rows=float(number)) for number in range(PENDING_MAX + 4)]
    looks = Looks(changing, hang)
    await looks.run()
    # Four looks too many, one of them the tenth after the first, which says everything.
    assert looks.table.of("selfcheck")["dropped.disk_hangs"] == 3 + len(NAMES)
    assert not looks.check._emitting


def test_every_figure_has_a_rule() -> None:
    rules = read_pack("system-health").rules
    asked = {s.quantity for rule in rules for s in rule.inputs.values()}
    assert set(NAMES) <= asked


def site(folder: Path, *, packs: str = '["system-health"]'):
    path = folder / "site.toml"
    path.write_text(
        f'packs = {packs}\n[site]\ntenant = "t"\nid = "s"\n'
        "[judging]\ntick_interval_s = 0.01\n[alarms]\njournal_reserve_mb = 1\n",
        encoding="utf-8",
    )
    return load_site(path, PLUGINS)


async def raised(core) -> set[str]:
    """Rules of the alarms that are on record, once there are any."""
    async with asyncio.timeout(20):
        while not core.journal.head:
            await asyncio.sleep(0.01)
    found = core.journal.read(0, 100)
    return {
        e.alarm.rule_id.partition(".")[2] for e in found if e.transition is Transition.ACTIVATED
    }


async def test_all_well_is_no_alarm_and_no_rule_is_no_word(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.selfcheck.LOOK_INTERVAL_S", 0.01)
    async with open_core(site(tmp_path), PLUGINS) as core:
        core.start()
        async with asyncio.timeout(20):
            while core.judge.judged_count < len(NAMES):
                await asyncio.sleep(0.01)
        await core.end_self_check()
        assert core.self_check.durable_count == core.intake.durable_count
        assert core.journal.head == 0
    (tmp_path / "other").mkdir()
    async with open_core(site(tmp_path / "other", packs="[]"), PLUGINS) as core:
        core.start()
        assert core.self_check is None
        assert len(core.points) == 0


async def test_damage_found_at_the_start_is_an_alarm(tmp_path) -> None:
    async with open_core(site(tmp_path), PLUGINS):
        pass
    (tmp_path / "data" / "journal" / "epoch").write_bytes(b"\x00" * 40)
    async with open_core(site(tmp_path), PLUGINS) as core:
        core.start()
        assert await raised(core) == {"gateway-damage"}


async def test_a_spool_that_cannot_be_written_is_an_alarm_of_priority_one(tmp_path) -> None:
    with recording(tmp_path) as tape:
        async with open_core(site(tmp_path), PLUGINS) as core:
            core.start()
            async with asyncio.timeout(20):
                while not core.judge.judged_count:
                    await asyncio.sleep(0.01)
            tape.refuse = lambda _kind, path: errno.EIO if "/spool/" in f"/{path}" else 0
            with pytest.raises(StorageFault):
                now = core.ports.now_ns()
                await core.intake.emit(Batch.of([8], [0.0], [now], received_time_ns=now))
            assert "gateway-spool-fault" in await raised(core)
            (row,) = [r for r in core.judge.standing() if r.rule_id.endswith("spool-fault")]
            assert row.priority == 1
            tape.refuse = lambda _kind, _path: 0


async def test_a_failed_sync_of_the_journal_is_an_alarm_once_it_goes_on(tmp_path) -> None:
    failures = iter([errno.EIO])
    with recording(tmp_path) as tape:
        async with open_core(site(tmp_path), PLUGINS) as core:
            tape.refuse = lambda kind, path: (
                next(failures, 0) if kind == "sync" and "journal.db" in path else 0
            )
            core.journal.cursor("one that writes")
            core.start()
            assert await raised(core) == {"gateway-disk-error"}
            assert core.journal.poisoned_count == 1
