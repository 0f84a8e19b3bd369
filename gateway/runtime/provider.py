"""The core as the link sees it: `gateway.api.provider.CoreProvider` over the running parts.

Everything here answers at once from memory, except history and events, which go to their stores in
threads of their own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from gateway.alarms.commands import Action, Refusal, Role
from gateway.alarms.commands import Command as BookCommand
from gateway.alarms.commands import CommandResult as BookResult
from gateway.alarms.flood import Line
from gateway.api import wire
from gateway.api.provider import AlarmSnapshot, LiveValues
from gateway.ledger.account import Account, Request
from gateway.model.alarm import AlarmEvent
from gateway.model.errors import Unavailable
from gateway.model.point import PointTable
from gateway.model.rule import Confidence
from gateway.runtime.clock import now_ns
from gateway.runtime.core import JUDGE_CURSOR, Core
from gateway.runtime.lanes import MARK
from gateway.runtime.room import BUDGET_SHARE_MAX
from gateway.runtime.threads import to_the_end
from gateway.spool import SpoolStats

NS_PER_MS = 1_000_000
_RATE_WINDOW_S = 10.0
_LOOK_S = 5.0  # the link looks once a second while a console is there


@dataclass
class RateMeter:
    """Samples a second over the last ten seconds, from a growing total."""

    _seen: deque[tuple[int, int]] = field(default_factory=deque)

    def rate(self, time_ns: int, total: int) -> float:
        self._seen.append((time_ns, total))
        while time_ns - self._seen[0][0] > _RATE_WINDOW_S * 1e9 and len(self._seen) > 2:
            self._seen.popleft()
        (t0, n0), (t1, n1) = self._seen[0], self._seen[-1]
        return round((n1 - n0) / (t1 - t0) * 1e9, 1) if t1 > t0 else 0.0


@dataclass
class ChangeWatch:
    """Since when each component is in its state, and when its count last grew.

    Known only as well as somebody looks: what changed between two looks that lie further apart than
    `_LOOK_S` has no time, rather than a wrong one.
    """

    _held: dict[str, tuple[object, int, int | None]] = field(default_factory=dict)

    def since_ns(self, name: str, held: object, time_ns: int, *, born_ns: int = 0) -> int | None:
        """When `name` began to hold `held`; `born_ns` is when everything began."""
        before, looked_ns, since_ns = self._held.get(name, (None, born_ns, None))
        if before is None or before != held:
            since_ns = time_ns if time_ns - looked_ns <= _LOOK_S * 1e9 else None
        self._held[name] = (held, time_ns, since_ns)
        return since_ns


class CoreView:
    """Satisfies `CoreProvider`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # Threads are shared with the judge's journal: a wall of consoles may use two of them.
        self._reads = asyncio.Semaphore(2)
        self._rates: dict[str, RateMeter] = {}
        self._watch = ChangeWatch()
        self._adapter_points: tuple[int, dict[str, NDArray[np.int64]]] = (-1, {})

    # ------------------------------------------------------------------ from memory

    def points(self) -> PointTable:
        return self._core.points

    def values(self) -> LiveValues:
        live, points = self._core.live, self._core.points
        size = len(points)
        held = min(size, len(live))
        value = np.full(size, np.nan)
        quality = np.zeros(size, np.uint8)
        time_ns = np.zeros(size, np.int64)
        value[:held], quality[:held] = live.value[:held], live.quality[:held]
        time_ns[:held] = live.time_ns[:held]
        return LiveValues(now_ns(), points.version, value, quality, time_ns)

    def alarms(self) -> AlarmSnapshot:
        core = self._core
        head = core.journal.head
        return AlarmSnapshot(core.journal.epoch, head, core.standing_at(head))

    def on_alarms_changed(self, wake: Callable[[], None]) -> None:
        self._core.listeners.append(wake)

    # ------------------------------------------------------------------ from the stores

    async def events(self, after_gseq: int | None, limit: int) -> Sequence[AlarmEvent]:
        journal = self._core.journal
        start = max(0, journal.head - limit) if after_gseq is None else after_gseq
        async with self._reads:
            return await to_the_end(journal.read, start, limit)

    async def history(
        self, point_id: str, from_ns: int, to_ns: int, *, count: int
    ) -> wire.HistoryBuckets:
        if point_id not in self._core.points:
            raise KeyError(point_id)
        history = self._core.history
        if history is None:
            raise Unavailable("no history store is configured")
        found = await history.buckets(point_id, from_ns, to_ns, count)
        filled = np.flatnonzero(found.n + found.n_bad)
        return wire.HistoryBuckets(
            point_id=point_id,
            from_ms=from_ns // NS_PER_MS,
            to_ms=to_ns // NS_PER_MS,
            bucket_ms=max(1, found.width_ns // NS_PER_MS),
            time_ms=(found.start_ns[filled] // NS_PER_MS).tolist(),
            mean=[wire.number(v) for v in found.mean[filled].tolist()],
            minimum=[wire.number(v) for v in found.min[filled].tolist()],
            maximum=[wire.number(v) for v in found.max[filled].tolist()],
            count=(found.n + found.n_bad)[filled].tolist(),
        )

    async def completeness(self, request: Request) -> Account:
        if self._core.keeper is None:
            raise Unavailable("the completeness ledger is not enabled")
        return await self._core.keeper.account(request)

    async def command(self, command: wire.Command) -> wire.CommandResult:
        result = await self._core.judge.command(book_command(command, now_ns()))
        return wire_result(result, self._core.journal.head)

    # ------------------------------------------------------------------ status

    def status(self) -> wire.Status:
        core, time_ns = self._core, now_ns()
        config = core.config
        return wire.Status(
            time_ms=time_ns // NS_PER_MS,
            started_ms=core.started_ns // NS_PER_MS,
            version=version("hazard-gateway"),
            tenant=config.site.tenant,
            site=config.site.id,
            site_name=config.site.name.get(config.site.language, config.site.id),
            site_names=dict(config.site.name),
            time_zone=config.site.time_zone,
            pid=os.getpid(),
            rss_bytes=_rss_bytes(),
            cpu_percent=round(self._rate("cpu", time_ns, time.process_time_ns()) / 1e7, 1),
            points_version=core.points.version,
            point_count=len(core.points),
            device_count=len(core.points.devices),
            adapters=self._adapters(time_ns),
            spool=self._spool(),
            sinks=self._sinks(time_ns),
            rules=self._rules(),
            road=self._road(),
            latency=wire.LatencyRow(
                count=core.latency.count,
                p50_ms=core.latency.percentile_ms(50),
                p99_ms=core.latency.percentile_ms(99),
                max_ms=core.latency.percentile_ms(100),
            ),
            flood=self._flood(),
            rate_per_s=self._rate("durable", time_ns, core.intake.durable_count),
        )

    def _flood(self) -> wire.FloodRow:
        detector, announcer = self._core.announcer.detector, self._core.announcer
        state = announcer.state()
        return wire.FloodRow(
            active=detector.since_ns is not None,
            since_ms=wire.ms(detector.since_ns),
            count_10min=detector.count,
            folded_count=announcer.folded_count,
            queued_count=int(state["queued_count"] or 0),
            calls=[_call(line) for line in self._core.calls],
        )

    def _rate(self, name: str, time_ns: int, total: int) -> float:
        return self._rates.setdefault(name, RateMeter()).rate(time_ns, total)

    def _since_ms(self, component: str, held: object, time_ns: int) -> int | None:
        return wire.ms(
            self._watch.since_ns(component, held, time_ns, born_ns=self._core.started_ns)
        )

    def _last_write_ms(self, component: str, accepted: int, time_ns: int) -> int | None:
        grew_ms = self._since_ms(f"{component} writes", accepted, time_ns)
        return grew_ms if accepted else None

    def _counts(self, component: str) -> wire.Counts:
        table = self._core.counters
        return wire.Counts(
            received=table.total(component, "received"),
            accepted=table.total(component, "accepted"),
            rejected=table.total(component, "rejected"),
            dropped=table.total(component, "dropped"),
        )

    def _adapters(self, time_ns: int) -> list[wire.AdapterRow]:
        core = self._core
        by_adapter, none = self._points_by_adapter(), np.empty(0, np.int64)
        rows = []
        for adapter in core.config.adapters:
            component = f"adapter {adapter.name}"
            own = by_adapter.get(adapter.name, none)
            indices = own[own < len(core.live)]
            newest = int(core.live.time_ns[indices].max()) if len(indices) else 0
            counts = self._counts(component)
            status = core.status(component)
            rows.append(
                wire.AdapterRow(
                    name=adapter.name,
                    kind=adapter.kind,
                    state=status.state,
                    detail=status.detail,
                    since_ms=self._since_ms(component, status.state, time_ns),
                    last_sample_ms=newest // NS_PER_MS if newest else None,
                    point_count=len(own),
                    rate_per_s=self._rate(component, time_ns, counts.accepted),
                    counts=counts,
                )
            )
        return rows

    def _points_by_adapter(self) -> dict[str, NDArray[np.int64]]:
        """Sorted out anew when there are new points: the status is asked for every second."""
        points = self._core.points
        version, found = self._adapter_points
        if version != points.version:
            lists: dict[str, list[int]] = {}
            for index, point in enumerate(points):
                lists.setdefault(point.adapter, []).append(index)
            found = {name: np.array(indices, np.int64) for name, indices in lists.items()}
            self._adapter_points = (points.version, found)
        return found

    def _spool(self) -> wire.SpoolRow:
        core, stats = self._core, self._core.spool.stats()
        # The judge commits with its checkpoint, every few seconds; what it has read is judged.
        is_full = core.spool.is_tight(BUDGET_SHARE_MAX)
        given_up = sum(
            delivery.dropped_count + delivery.thinned_count for delivery in core.deliveries.values()
        )
        depth = {**stats.depth, JUDGE_CURSOR: stats.head - core.judge.cursor.position}
        return wire.SpoolRow(
            state="faulty" if stats.fault else "full" if is_full else "ok",
            detail=self._spool_detail(stats),
            size_bytes=stats.bytes_on_disk,
            size_bytes_max=core.config.spool.bytes_max_mb << 20,
            segment_count=stats.segments,
            head_offset=stats.head,
            quarantined_count=stats.quarantined_files,
            dropped_count=stats.lost_rows + given_up,
            commit_window_ms=core.config.spool.commit_window_ms,
            cursors=[
                wire.CursorRow(name=name, offset=stats.head - behind, behind_records=behind)
                for name, behind in depth.items()
                if not name.endswith(MARK)  # where a live lane began: nobody's progress
            ],
        )

    def _spool_detail(self, stats: SpoolStats) -> str:
        """Why nothing is acknowledged, since when, and what became of the rows."""
        if not stats.fault:
            return ""
        judged = self._core.judge.from_memory_count
        return (
            f"{stats.fault_kind} for {stats.faulty_for_s:.0f} s: {stats.fault}; "
            f"{stats.refused_rows} samples not acknowledged, {judged} judged from memory"
        )

    def _sinks(self, time_ns: int) -> list[wire.SinkRow]:
        core, rows = self._core, [self._journal(time_ns)]
        for sink in core.config.sinks:
            delivery, teller = core.deliveries.get(sink.name), core.tellers.get(sink.name)
            behind, counts = 0, wire.Counts()
            if delivery is not None:
                behind = delivery.behind
                counts = wire.Counts(
                    received=delivery.cursor.committed,
                    accepted=delivery.stored_count,
                    rejected=delivery.rejected_count,
                )
            if teller is not None:
                behind += core.journal.head - teller.cursor.gseq
                counts = wire.Counts(received=teller.told_count, accepted=teller.told_count)
            component = f"sink {sink.name}"
            status = core.status(component)
            rows.append(
                wire.SinkRow(
                    name=sink.name,
                    kind=sink.kind,
                    state=status.state,
                    detail=status.detail,
                    since_ms=self._since_ms(component, status.state, time_ns),
                    last_write_ms=self._last_write_ms(component, counts.accepted, time_ns),
                    behind_records=behind,
                    counts=counts,
                )
            )
        return rows

    def _journal(self, time_ns: int) -> wire.SinkRow:
        """The judge and its journal, first of all ways out: while it is faulty nobody is told."""
        core, status = self._core, self._core.status("judge")
        return wire.SinkRow(
            name="judge",
            kind="journal",
            state=status.state,
            detail=status.detail,
            since_ms=self._since_ms("judge", status.state, time_ns),
            behind_records=core.spool.head - core.judge.cursor.position,
            counts=wire.Counts(received=core.judge.judged_count, accepted=core.journal.head),
        )

    def _rules(self) -> wire.RulesRow:
        rules, reload = self._core.rules, self._core.statuses.get("rules")
        known = {Confidence.CONFIRMED, Confidence.SITE}
        return wire.RulesRow(
            rule_count=len(rules.rules),
            instance_count=len(self._core.judge.rules.instances),
            unconfirmed_count=sum(r.citation.confidence not in known for r in rules.rules),
            reloaded=reload.detail if reload else "",
            is_reload_refused=reload is not None and reload.state == "faulty",
            packs=[
                wire.PackRow(
                    name=pack.name,
                    edition=pack.edition,
                    rule_count=len(pack.rules),
                    unconfirmed_count=sum(r.citation.confidence not in known for r in pack.rules),
                )
                for pack in rules.packs
            ],
        )

    def _road(self) -> wire.RoadCounts:
        core = self._core
        stored = core.deliveries.get(core.config.history.sink)
        derived = core.intake.derived_count
        return wire.RoadCounts(
            received=core.intake.durable_count,
            derived=derived,
            durable=core.intake.durable_count + derived,
            judged=core.judge.judged_count + derived,  # these were made by judging
            stored=stored.stored_count if stored else 0,
            rejected=stored.rejected_count if stored else 0,
            lost=core.spool.stats().lost_rows,
        )


_ACTIONS = {
    "acknowledge": Action.ACKNOWLEDGE,
    "comment": Action.COMMENT,
    "shelve": Action.SHELVE,
    "unshelve": Action.UNSHELVE,
    "reset": Action.RESET,
    "confirm": Action.CONFIRM,
}


def _call(line: Line) -> wire.CallRow:
    worst = line.worst.alarm
    return wire.CallRow(
        kind=line.kind.value,
        time_ms=line.time_ns // NS_PER_MS,
        count=line.count,
        area=worst.area,
        rule_kind=worst.rule_kind,
        priority=int(worst.priority),
        key=worst.alarm_key,
        name=dict(worst.name),
        gseq=line.first.alarm.gseq,
    )


def book_command(command: wire.Command, time_ns: int) -> BookCommand:
    """The wire's words in the book's. Whoever reaches the console is an operator: it listens on
    loopback, and people with roles are a later chapter."""
    until_ns = None if command.duration_s is None else time_ns + int(command.duration_s * 1e9)
    return BookCommand(
        action=_ACTIONS[command.name],
        alarm_key=command.alarm_key,
        actor=command.operator,
        role=Role.OPERATOR,
        text=command.comment,
        token=command.token,
        until_ns=until_ns,
    )


def wire_result(result: BookResult, head: int) -> wire.CommandResult:
    if result.accepted:
        return wire.CommandResult(code="done", gseq=head)
    codes = {Refusal.UNKNOWN_ALARM: "unknown", Refusal.STALE_TOKEN: "stale"}
    assert result.refusal is not None
    return wire.CommandResult.model_validate(
        {"code": codes.get(result.refusal, "refused"), "detail": result.reason, "gseq": head}
    )


def _rss_bytes() -> int:
    """Resident memory now (Linux), else the peak."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  a kernel file
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
