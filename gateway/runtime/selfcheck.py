"""The gateway's own health as points of a device `gateway`, so that its faults are alarms.

    spool, journal, disk, judge ─figures─▶ SelfCheck ─emit─▶ spool ─▶ rules of `system-health`

A way in like any adapter, with no other road: values go through `emit`, rules judge them, alarms
have a life cycle, a record and people who answer. Rows that the disk does not take are judged from
memory (intake.py), so the fault of the spool itself is an alarm too. The one fault that cannot be
told as an alarm is that of the journal, since nothing is told that is not on record: the heartbeat
and the status say it at once, and the alarm follows when it is over.

Counts are since the start: an alarm of one stands until the next start, however often it is
acknowledged. Without a rule that asks for them nothing is declared and nothing is emitted.

Surprising: while the disk hangs, `emit` does not answer. New values are given all the same, a few
at a time; what comes beyond them is counted and left out, for the next look says it again.

Not here: the limits (alarm_rules/packs/system-health.toml).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.contract.adapter import Counters, Declare, Emit, LinkStatus
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.point import Device, Point
from gateway.runtime.clock import NowNs

if TYPE_CHECKING:
    from gateway.runtime.core import Core

DEVICE = "gateway"
SELF_CHECK = "adapter selfcheck"
LOOK_INTERVAL_S = 1.0
EMIT_INTERVAL_S = 10.0
"""Everything again, changed or not: a screen and a silence rule want to hear it (engineering)."""
PENDING_MAX = 8
END_TIMEOUT_S = 1.0

NAMES: Mapping[str, tuple[str, str, str]] = {
    # quantity: unit, zh, en
    "gateway_spool_fault": ("", "缓存写入故障", "Spool fault"),
    "gateway_spool_used": ("%", "缓存占用", "Spool used"),
    "gateway_disk_free": ("%", "磁盘剩余", "Disk free"),
    "gateway_lost_rows": ("", "缓存丢失行数", "Rows lost"),
    "gateway_damage": ("", "存储损坏数", "Damage found"),
    "gateway_poisoned": ("", "磁盘错误后弃用的文件", "Files left alone after a disk error"),
    "gateway_reserve_missing": ("", "日志预留空间已释放", "Journal reserve given up"),
    "gateway_unrecorded": ("", "未入日志的报警事件", "Unrecorded alarm events"),
    "gateway_clock_set_back": ("", "时钟回拨次数", "Clock set back"),
}
"""Each has a rule in the pack and a row in docs/quantities.md."""


def point_id(quantity: str) -> str:
    """`gateway.disk_free`, …"""
    return f"{DEVICE}.{quantity.removeprefix('gateway_')}"


@dataclass
class SelfCheck:
    """Looks every second; emits at once what changed. Runs under the supervisor."""

    figures: Callable[[], Mapping[str, float]]
    emit: Emit
    declare: Declare
    counters: Counters
    status: LinkStatus
    now_ns: NowNs
    language: str = "zh"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    durable_count: int = field(default=0, init=False)  # samples
    _emitting: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def run(self) -> None:
        """Look until cancelled. Raises: StorageFault if the points cannot be declared."""
        indices = await self._declare()
        self.status("looking")
        said: dict[str, float] = {}
        waited_s = EMIT_INTERVAL_S
        try:
            while True:
                found = self.figures()
                news = found if waited_s >= EMIT_INTERVAL_S else _changed(found, said)
                if news and self._say(news, indices):
                    said.update(news)
                waited_s = 0.0 if news is found else waited_s + LOOK_INTERVAL_S
                await self.sleep(LOOK_INTERVAL_S)
        finally:
            await self._end()

    async def _end(self) -> None:
        """What is on its way arrives, if the disk answers."""
        if self._emitting:
            await asyncio.wait(self._emitting, timeout=END_TIMEOUT_S)
        left = list(self._emitting)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _declare(self) -> dict[str, int]:
        await self.declare.devices([Device(DEVICE, kind="gateway")])
        points = [
            Point(
                id=point_id(quantity),
                quantity=quantity,
                unit=unit,
                name=zh if self.language == "zh" else en,
                device=DEVICE,
                interval_s=EMIT_INTERVAL_S,
            )
            for quantity, (unit, zh, en) in NAMES.items()
        ]
        return dict(zip(NAMES, await self.declare.points(points), strict=True))

    def _say(self, news: Mapping[str, float], indices: Mapping[str, int]) -> bool:
        if len(self._emitting) >= PENDING_MAX:
            self.counters.count("dropped", len(news), reason="disk_hangs")
            return False
        now_ns = self.now_ns()
        rows = sorted((indices[name], value) for name, value in news.items())
        index, values = zip(*rows, strict=True)
        batch = Batch.of(index, values, now_ns, received_time_ns=now_ns)
        task = asyncio.create_task(self._hand_over(batch))
        self._emitting.add(task)
        task.add_done_callback(self._emitting.discard)
        return True

    async def _hand_over(self, batch: Batch) -> None:
        self.counters.count("received", len(batch))
        try:
            await self.emit(batch)
        except (SpoolFull, StorageFault):  # judged from memory; the next look says it again
            self.counters.count("rejected", len(batch), reason="not_durable")
        else:
            self.durable_count += len(batch)
            self.counters.count("accepted", len(batch))


def _changed(found: Mapping[str, float], said: Mapping[str, float]) -> dict[str, float]:
    """What differs. Shares of a disk are whole percents, or they would never be still."""
    return {name: value for name, value in found.items() if value != said.get(name)}


def self_check_of(core: Core) -> SelfCheck | None:
    """The one of this core; None where no rule asks for what it would say."""
    asked = {selector.quantity for rule in core.rules.rules for selector in rule.inputs.values()}
    if not asked & NAMES.keys():
        return None
    return SelfCheck(
        figures=lambda: figures_of(core),
        emit=core.intake.emit,
        declare=core.registry.for_adapter(DEVICE),
        counters=core.counters.component("selfcheck"),
        status=core.status(SELF_CHECK),
        now_ns=core.ports.now_ns,
        language=core.config.site.language,
    )


def figures_of(core: Core) -> dict[str, float]:
    """What stands in `NAMES`, as of now."""
    stats, journal = core.spool.stats(), core.journal
    damage = journal.damage
    used = 100 * stats.bytes_on_disk / stats.bytes_max if stats.bytes_max else 0.0
    spool_damage = stats.damaged_segments + stats.foreign_files + stats.cursors_reset
    return {
        "gateway_spool_fault": float(bool(stats.fault)),
        "gateway_spool_used": float(int(used)),
        "gateway_disk_free": _free_percent(core),
        "gateway_lost_rows": float(stats.lost_rows),
        "gateway_damage": float(
            spool_damage + damage.rows + damage.live_rows + damage.files + damage.lost
        ),
        "gateway_poisoned": float(stats.poisoned_segments + journal.poisoned_count),
        "gateway_reserve_missing": float(journal.reserve_bytes > 0 and not journal.has_reserve),
        "gateway_unrecorded": float(core.judge.recorder.unrecorded_count),
        "gateway_clock_set_back": float(core.counters.of("judge").get("clock_set_back", 0)),
    }


def _free_percent(core: Core) -> float:
    """Of the disk the data lie on; one that does not even answer that has nothing free."""
    try:
        usage = shutil.disk_usage(core.config.data_dir)
    except OSError:
        return 0.0
    return float(int(100 * usage.free / usage.total)) if usage.total else 0.0
