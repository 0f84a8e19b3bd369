"""Deliberate faults of the gateway, each of which the laws must find within a few seeds.

A mutant is one promise broken at one seam, by replacing one function of the real code while a
simulation runs. `seed` is one that finds it, so that the test costs one run; `found_in` begins
there. A mutant that no seed finds says that a law or a fault is missing, not that the gateway is
right.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from alarm_rules.behind import Behind
from gateway.alarms import database
from gateway.alarms.database import JournalDatabase
from gateway.alarms.journal import Journal
from gateway.contract.sink import WriteResult
from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault, Unavailable
from gateway.runtime.deliver import SampleDelivery
from gateway.runtime.intake import Intake
from gateway.runtime.judge import Judge
from gateway.runtime.lanes import Portion
from gateway.runtime.recorder import Recorder
from gateway.runtime.telling import AlarmDelivery
from gateway.runtime.threads import to_the_end
from gateway.sinks.mqtt.alarms import MqttAlarmSink
from gateway.spool.disk import Disk
from gateway.spool.writer import Writer
from gateway.testing.sim.check import violations
from gateway.testing.sim.plan import FaultKind, plan_of
from gateway.testing.sim.world import run_plan

SEEDS_MAX = 8
SHORT_S = 60.0


@dataclass(frozen=True)
class Mutant:
    """One promise, broken: `target.name` replaced by what `make` makes of it."""

    promise: str
    target: Any
    name: str
    make: Callable[[Any], Any]
    kinds: tuple[FaultKind, ...]  # of faults that bring it to light
    seed: int = 0


def found_in(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> tuple[int, str] | None:
    """The first seed from `mutant.seed` on that finds it, and how; None if none does."""
    real = getattr(mutant.target, mutant.name)
    for seed in range(mutant.seed, mutant.seed + seeds_max):
        plan = plan_of(seed, kinds=mutant.kinds, duration_s=SHORT_S)
        with mock.patch.object(mutant.target, mutant.name, mutant.make(real)):
            found = violations(run_plan(plan).evidence)
        if found:
            return seed, found[0]
    return None


# ---------------------------------------------------------------------- what they do instead


def _acknowledge_early(real: Any) -> Any:
    async def emit(self: Intake, batch: Batch) -> None:
        task = asyncio.create_task(real(self, batch))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)

    return emit


def _acknowledge_failed(real: Any) -> Any:
    async def emit(self: Intake, batch: Batch) -> None:
        with contextlib.suppress(SpoolFull, StorageFault):
            await real(self, batch)

    return emit


def _commit_first(_real: Any) -> Any:
    async def serve(self: SampleDelivery, portion: Portion) -> None:
        await self.lanes.commit(portion)
        await self._write(portion)

    return serve


def _drop_unavailable(real: Any) -> Any:
    async def bounded(self: SampleDelivery, portion: Portion) -> WriteResult:
        try:
            result: WriteResult = await real(self, portion)
        except Unavailable:
            return WriteResult(accepted=len(portion.batch))
        return result

    return bounded


def _commit_before_puback(_real: Any) -> Any:
    async def tell(self: AlarmDelivery) -> bool:
        self._wake.clear()
        events = self.cursor.read(500)
        if not events:
            return False
        self.cursor.commit(events[-1].alarm.gseq)
        await self._write(events)
        return True

    return tell


def _tell_first(_real: Any) -> Any:
    async def flush(self: Recorder, *, only_if_due: bool = False) -> bool:
        del only_if_due
        part = list(self._waiting)
        self.tell(part)
        try:
            await to_the_end(self.journal.append, [event for event, _ in part])
        except StorageFault as error:
            self._refused(str(error))
            return False
        for _ in part:
            self._waiting.popleft()
        self.fault = ""
        return True

    return flush


def _spool_unsynced(_real: Any) -> Any:
    class Hasty(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *rest)

    def opened(_self: Disk, uri: str) -> sqlite3.Connection:
        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=Hasty
        )

    return opened


def _checkpoint_ahead(real: Any) -> Any:
    def save(self: Journal, offset: int, arrays: Any) -> None:
        real(self, offset + 30, arrays)

    return save


def _forget_for_the_fastest(real: Any) -> Any:
    def forget(self: Writer) -> None:
        state = self._positions.state
        fastest = max(state.cursors.values(), default=0)
        ahead = dict.fromkeys(state.cursors, fastest)
        with mock.patch.object(
            self,
            "_positions",
            SimpleNamespace(
                state=replace(state, cursors=ahead), write_twice=self._positions.write_twice
            ),
        ):
            real(self)

    return forget


def _no_snapshot(_real: Any) -> Any:
    async def snapshot(_self: MqttAlarmSink, _alarms: Sequence[Any], **_rest: Any) -> None:
        return

    return snapshot


def _says_nothing(_real: Any) -> Any:
    async def stand_by(_self: Judge) -> None:
        return None

    return stand_by


def _forget_nothing(_real: Any) -> Any:
    return lambda _self, _now_ns, **_rest: None


def _nobody_is_behind(_real: Any) -> Any:
    return lambda _self, _rows, _now_ns, _lateness_ns: np.empty(0, np.int64)


def _take_the_log_away(real: Any) -> Any:
    def close(self: JournalDatabase, *, keep_log: bool = False) -> None:
        del keep_log
        real(self)

    return close


MUTANTS = (
    Mutant(
        "acknowledged is durable", Intake, "emit", _acknowledge_early,
        ("disk_full", "disk_error"),
    ),
    Mutant(
        "a failed disk acknowledges nothing", Intake, "emit", _acknowledge_failed,
        ("disk_full", "disk_error"),
    ),
    Mutant(
        "the spool's commit is synced", Disk, "_open", _spool_unsynced, ("power_cut",),
        seed=5,
    ),
    Mutant(
        "written, then committed", SampleDelivery, "_serve", _commit_first,
        ("kill", "database"), seed=15,
    ),
    Mutant(
        "Unavailable means the same again", SampleDelivery, "_bounded", _drop_unavailable,
        ("database",),
    ),
    Mutant(
        "told, then committed", AlarmDelivery, "_tell", _commit_before_puback, ("broker",)
    ),
    Mutant(
        "the journal's commit is synced", database, "SYNCHRONOUS", lambda _real: "OFF",
        ("power_cut",),
    ),
    Mutant(
        "in the journal before it is told", Recorder, "_flush", _tell_first, ("power_cut",)
    ),
    Mutant(
        "a checkpoint's offset is what was judged", Journal, "save_checkpoint",
        _checkpoint_ahead, ("kill", "power_cut"), seed=0,
    ),
    Mutant(
        "rows are kept for the slowest", Writer, "_forget", _forget_for_the_fastest,
        ("database",),
    ),
    Mutant(
        "the standing state is told again", MqttAlarmSink, "snapshot", _no_snapshot,
        ("broker_empty",),
    ),
    Mutant(
        "what was told stays told", Judge, "_stand_by_the_word", _says_nothing,
        ("kill", "partition", "kill"), seed=378,
    ),
    Mutant(
        "a start that fails skips no number", JournalDatabase, "close", _take_the_log_away,
        ("disk_error", "kill"), seed=15,
    ),
    Mutant(
        "a backlog in pieces is judged by its own clock", Behind, "note", _nobody_is_behind,
        ("kill",), seed=119,
    ),
    Mutant(
        "a clock set back silences nothing", Judge, "_forget_the_future", _forget_nothing,
        ("clock", "restart"),
    ),
)  # fmt: skip
