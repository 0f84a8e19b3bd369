"""One gateway, assembled: the road of ARCHITECTURE.md, started and stopped in order.

Start: point table, spool, journal, rules (restored from the last checkpoint), judge, deliveries,
adapters last. Stop: the other way round, so that what an adapter acknowledged is judged and stored
or stays in the spool for the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alarm_rules.ruleset import RuleSet
from gateway.alarms.database import RESERVE_BYTES
from gateway.alarms.flood import WINDOW_S, Announcer, FloodConfig, Line, LineKind
from gateway.alarms.journal import Journal
from gateway.config import PluginConfig, SiteConfig
from gateway.contract.adapter import AdapterContext
from gateway.contract.sink import SinkContext
from gateway.ledger.ledger import Ledger, LedgerOptions, Progress, open_ledger
from gateway.ledger.settle import Reason
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState
from gateway.model.errors import StorageFault
from gateway.model.point import PointTable
from gateway.runtime.clock import NowNs, now_ns
from gateway.runtime.counters import CounterTable, StatusCell
from gateway.runtime.deliver import SampleDelivery, SetAside
from gateway.runtime.intake import Intake
from gateway.runtime.judge import Judge
from gateway.runtime.lanes import Lanes
from gateway.runtime.latency import LatencyMeter
from gateway.runtime.ledger_keeper import CURSOR as LEDGER_CURSOR
from gateway.runtime.ledger_keeper import LedgerKeeper, World
from gateway.runtime.live import LiveTable
from gateway.runtime.notary import Notary
from gateway.runtime.plugins import Plugins
from gateway.runtime.room import RoomMaker, WhenFull
from gateway.runtime.selfcheck import NAMES, SELF_CHECK, SelfCheck, point_id, self_check_of
from gateway.runtime.siterules import SiteRules, book_config, site_rules
from gateway.runtime.supervisor import Backoff, Supervisor
from gateway.runtime.telling import AlarmDelivery
from gateway.spool import Spool, SpoolOptions
from gateway.spool.registry import Registry

JUDGE_CURSOR = "judge"
RULE_SECTIONS = ("packs", "pack_overrides", "rules")
"""Of the configuration: what can be exchanged while the gateway runs."""
ADAPTER_DOWN = {"starting", "connecting", "waiting", "faulty"}  # no sample can come in
_COUNT_ROWS_MAX = 10_000_000
NS_PER_S = 1_000_000_000
GUARD_INTERVAL_S = 1.0
CALLS_KEPT = 40  # for a screen that has just been opened
FLOOD_WINDOW_NS = WINDOW_S * NS_PER_S
FLOOD_RECALL_MAX = (
    1_000  # newest events; far beyond what makes a flood, and read in a quarter second
)
TELL_RETRY_MAX_S = 5.0  # a broker that is back hears of it within ten seconds
DRAIN_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ports:
    """What a core takes from outside: the clock and its two durable stores. A simulation hands in
    its own; everything else of time is the event loop's."""

    now_ns: NowNs = now_ns
    open_spool: Callable[[Path, SpoolOptions], Spool] = Spool.open
    open_journal: Callable[[Path], Journal] = Journal.open
    open_ledger: Callable[[Path, LedgerOptions], Ledger] = open_ledger


SYSTEM = Ports()


@dataclass
class Core:
    """Every part of a running gateway. Build with `open_core`."""

    config: SiteConfig
    plugins: Plugins
    ports: Ports
    spool: Spool
    registry: Registry
    journal: Journal
    rules: SiteRules
    judge: Judge
    intake: Intake
    live: LiveTable
    latency: LatencyMeter
    counters: CounterTable
    started_ns: int
    statuses: dict[str, StatusCell] = field(default_factory=dict)
    deliveries: dict[str, SampleDelivery] = field(default_factory=dict)
    keeper: LedgerKeeper | None = None
    self_check: SelfCheck | None = None
    tellers: dict[str, AlarmDelivery] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)  # only a new start can help
    event_listeners: list[Callable[[Sequence[AlarmEvent]], None]] = field(default_factory=list)
    call_listeners: list[Callable[[Sequence[Line]], None]] = field(default_factory=list)
    calls: deque[Line] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))
    announcer: Announcer = field(init=False)
    _room: RoomMaker = field(init=False)
    _is_spool_faulty: bool = field(default=False, init=False)
    _recorded: dict[str, Alarm] = field(default_factory=dict)  # each row as the journal has it
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def points(self) -> PointTable:
        return self.registry.table

    @property
    def history(self) -> Any:
        """What the configured history store answers with; None when there is none."""
        delivery = self.deliveries.get(self.config.history.sink)
        return getattr(delivery.sink, "history", None) if delivery else None

    def status(self, component: str) -> StatusCell:
        return self.statuses.setdefault(component, StatusCell(component))

    def on_events(self, events: Sequence[AlarmEvent]) -> None:
        """The journal has `events`: wake whoever tells them. A listener that fails is dropped:
        none of them may cost the judge a step."""
        for teller in self.tellers.values():
            teller.wake()
        self._recorded.update((event.alarm.alarm_key, event.alarm) for event in events)
        self._announce(lambda now: self.announcer.take(events, now))
        for wake in self.listeners:
            wake()
        for listener in list(self.event_listeners):
            try:
                listener(events)
            except Exception:
                log.exception("a listener of alarm events failed and is dropped")
                self.event_listeners.remove(listener)

    def recall_rows(self) -> None:
        """At the start every row is as the journal has it."""
        self._recorded = {row.alarm_key: row for row in self.judge.book.snapshot()}

    def standing_at(self, head: int) -> list[Alarm]:
        """Every row as it stood at that head of the journal. One that has changed since, and waits
        for the journal, is shown as it was: it stands, and leaving it out would clear it on every
        screen for as long as the disk refuses."""
        rows = (
            row if row.gseq <= head else self._recorded.get(row.alarm_key)
            for row in self.judge.book.snapshot()
        )
        return [row for row in rows if row is not None and not row.removed]

    def _announce(self, lines_at: Callable[[int], list[Line]]) -> None:
        """Calls to people, for screens and for whoever listens. A fault of ours in what is only
        presentation costs neither the judge nor the guard a step."""
        try:
            lines = lines_at(self.judge.now_ns())
        except Exception:
            log.exception("alarm calls could not be made out; every event is on record")
            return
        self.calls.extend(lines)
        for line in lines:
            if line.kind is LineKind.HISTORY:
                log.warning(
                    "late data held %d alarms, the first %s", line.count, line.first.time_ns
                )
        for listener in list(self.call_listeners) if lines else ():
            try:
                listener(lines)
            except Exception:
                log.exception("a listener of alarm calls failed and is dropped")
                self.call_listeners.remove(listener)

    def recall_flood(self) -> None:
        """What was annunciated before the restart counts: a flood does not end by one. Of a great
        flood only its newest part: a start must not wait for ten thousand records to be read, and
        the oldest would be the wrong ones."""
        now, oldest = self.judge.now_ns(), self.journal.head - FLOOD_RECALL_MAX
        recent = self.journal.query(
            now - 2 * FLOOD_WINDOW_NS, now, after_gseq=max(0, oldest), limit=FLOOD_RECALL_MAX
        )
        times = (e.recorded_time_ns for e in recent if e.annunciate)
        self.announcer.recall(sorted(t for t in times if t > now - FLOOD_WINDOW_NS))

    def on_unrecorded(self, events: Sequence[AlarmEvent]) -> None:
        """The journal refuses: nothing may be told, so at least the log has it."""
        for event in events:
            log.critical(
                "UNRECORDED ALARM %s %s %s value=%s",
                *(event.transition.value, event.alarm.alarm_key, event.alarm.level, event.value),
            )

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start every task. Adapters last: nothing comes in before there is where to put it."""
        notary = Notary(
            self.journal,
            self.counters.component("notary"),
            self.status("notary"),
            self.ports.now_ns,
        )
        self._supervise("notary", notary.run)
        if self.keeper is not None:
            self._supervise("ledger", self.keeper.run)
        self._supervise("judge", self.judge.run, first_s=0.1, max_s=1.0)
        for name, delivery in self.deliveries.items():
            self._supervise(f"sink {name}", delivery.run)
        for name, teller in self.tellers.items():
            self._supervise(f"sink {name}", teller.run, max_s=TELL_RETRY_MAX_S)
        if self.self_check is not None:
            self._supervise(SELF_CHECK, self.self_check.run, max_s=5.0)
        for adapter in self.config.adapters:
            self._start_adapter(adapter)
        self._tasks.append(asyncio.create_task(self._guard(), name="guard"))

    async def _guard(self) -> None:
        """What no single part can see: a spool that fails, a budget about to be spent."""
        room = self._room
        while True:
            self._watch_spool()
            if self.spool.has_failed_for_good:
                self.failed.set()
                return
            self._announce(self.announcer.due)
            await room.make_room()
            await asyncio.sleep(GUARD_INTERVAL_S)

    def _watch_spool(self) -> None:
        """One line when the disk fails and one when it is back; counts are exact, whatever this
        misses in between."""
        stats = self.spool.stats()
        if stats.fault and not self._is_spool_faulty:
            log.critical(
                "the spool cannot be written, nothing is acknowledged, judging goes on from memory:"
                " %s",
                stats.fault,
            )
        elif self._is_spool_faulty and not stats.fault:
            log.warning(
                "the spool is written again: %d rows were refused, %d judged from memory so far",
                *(stats.refused_rows, self.judge.from_memory_count),
            )
        self._is_spool_faulty = bool(stats.fault)
        self.spool.nudge()

    def read_by(self) -> int:
        """Every row before it was read by those whose reading must be whole."""
        committed = self.judge.cursor.committed
        ledger = self.spool.committed(LEDGER_CURSOR)
        return committed if ledger is None else min(committed, ledger)

    async def let_go(self) -> None:
        """The spool is nearly full: nobody but the sinks holds rows that are done."""
        if self.keeper is not None:
            await self.keeper.let_go()
        await self.judge.checkpoint()

    def _start_adapter(self, config: PluginConfig) -> None:
        status = self.status(f"adapter {config.name}")
        context = AdapterContext(
            name=config.name,
            now_ns=self.ports.now_ns,
            counters=self.counters.component(f"adapter {config.name}"),
            status=status,
            state_dir=_folder(self.config.data_dir / "adapters" / config.name),
            known_points=lambda: [p for p in self.points if p.adapter == config.name],
        )
        kind = self.plugins.adapters[config.kind]
        declare = self.registry.for_adapter(config.name)

        async def component() -> None:
            await kind.build(config.settings, context).run(self.intake.emit, declare)

        self._supervise(f"adapter {config.name}", component)

    def _supervise(
        self, name: str, component: Any, *, first_s: float = 0.5, max_s: float = 30.0
    ) -> None:
        supervisor = Supervisor(
            name,
            self.counters.component(name),
            self.status(name),
            Backoff(random.Random(name), first_s=first_s, max_s=max_s),  # noqa: S311  jitter, not a secret
        )
        self._tasks.append(asyncio.create_task(supervisor.run(component), name=name))

    async def take_rules(self, config: SiteConfig) -> bool:
        """Judge by the rules of this configuration; all else of it stays as it is. Returns whether
        that was done in place. Raises ConfigError for their faults: then nothing has changed."""
        rules = site_rules(config, self.plugins.rule_kinds)
        in_place = await self.judge.take_rules(
            rules.rules,
            lambda: build_rule_set(self.config, self.plugins, rules, self.registry),
        )
        self.rules = rules
        named = {name: getattr(config, name) for name in RULE_SECTIONS}
        self.config = self.config.model_copy(update=named)
        if self.self_check is None:  # what the gateway says of itself may be asked for only now
            self.self_check = self_check_of(self)
            if self.self_check is not None:
                self._supervise(SELF_CHECK, self.self_check.run, max_s=5.0)
        return in_place

    async def stop(self) -> None:
        """Adapters first; then what is in hand is judged and told, within reason; then the rest.
        What was acknowledged and not judged stays in the spool for the next start."""
        running = {task.get_name(): task for task in self._tasks}
        await _end([task for name, task in running.items() if name.startswith("adapter ")])
        await self._drained(timeout_s=DRAIN_TIMEOUT_S)
        await _end([task for name, task in running.items() if name == "judge"])
        await _end([task for task in self._tasks if not task.done()])
        self._tasks.clear()
        await self._room.stop()

    async def _drained(self, *, timeout_s: float) -> None:
        """Wait until every row is judged and every event told, if the parts can."""

        def is_behind() -> bool:
            told = all(t.cursor.gseq >= self.journal.head for t in self.tellers.values())
            return bool(self.judge.cursor.depth) or not told

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.spool.fault is None and is_behind():  # noqa: ASYNC110  several stores
                    await asyncio.sleep(0.02)

    async def end_self_check(self) -> None:
        """Before samples are counted: nothing more comes in that nobody sent."""
        await _end([task for task in self._tasks if task.get_name() == SELF_CHECK])

    async def stored_count(self) -> int:
        """Rows of received samples in the history store: those derived, and those the gateway says
        of itself, are not counted."""
        if self.history is None:
            return 0
        ours = [*self.judge.rules.derived_ids]
        if self.self_check is not None:
            ours += map(point_id, NAMES)
        rows = await self.history.read(ours, 0, 2**62, rows_max=_COUNT_ROWS_MAX)
        return int(await self.history.count()) - len(rows)

    async def settle(self, *, timeout_s: float) -> bool:
        """Wait until everything durable is judged and stored and every event is told."""

        def behind() -> bool:
            head = self.spool.head
            return (
                self.judge.cursor.position < head
                or any(d.cursor.committed < head for d in self.deliveries.values())
                or any(t.cursor.gseq < self.journal.head for t in self.tellers.values())
            )

        try:
            async with asyncio.timeout(timeout_s):
                while behind():  # noqa: ASYNC110  several stores, none of which tells of it
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel and wait, each for so long: one that does not end must not keep the others."""
    for task in tasks:
        task.cancel()
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in left:
            log.error("%s does not end", task.get_name())


@contextlib.asynccontextmanager
async def open_core(
    config: SiteConfig, plugins: Plugins, *, clock: NowNs | None = None, ports: Ports = SYSTEM
) -> AsyncIterator[Core]:
    """Open every store, build everything, and on the way out stop and close it all. `clock` is what
    is judged by: `ports.now_ns` but for replays, which judge in the time of their data.

    Raises ConfigError for what `check` would have said, StorageFault when another process holds the
    data directory or it cannot be written.
    """
    rules = site_rules(config, plugins.rule_kinds)
    async with contextlib.AsyncExitStack() as stack:
        data = _folder(config.data_dir)
        spool = ports.open_spool(_folder(data / "spool"), spool_options(config))
        stack.push_async_callback(spool.close)
        journal = ports.open_journal(_folder(data / "journal"))
        stack.callback(journal.close)
        reserve_bytes = config.alarms.journal_reserve_mb << 20
        if reserve_bytes != RESERVE_BYTES:  # else it is as whoever opened it says
            journal.keep_reserve(reserve_bytes)
        registry = Registry.open(data / "points", configured=config.points)
        stack.callback(registry.close)
        stores = Stores(spool, journal, registry)
        core = _assemble(config, plugins, rules, stores, ports, clock or ports.now_ns)
        stack.push_async_callback(core.stop)
        await core.judge.restore()
        core.recall_rows()
        core.recall_flood()
        yield core


class Stores(NamedTuple):
    """What is open and durable."""

    spool: Spool
    journal: Journal
    registry: Registry


def _assemble(  # noqa: PLR0917  each a thing of its own
    config: SiteConfig,
    plugins: Plugins,
    rules: SiteRules,
    stores: Stores,
    ports: Ports,
    clock: NowNs,
) -> Core:
    spool, journal, registry = stores
    counters = CounterTable()
    intake = Intake(
        spool,
        clock_tolerance_ns=int(config.judging.clock_tolerance_s * NS_PER_S),
        counters=counters.component("intake"),
    )
    live, latency = LiveTable(), LatencyMeter()
    judge = Judge(
        cursor=spool.cursor(JUDGE_CURSOR),
        points=registry.table,
        make_rules=lambda: build_rule_set(config, plugins, rules, registry),
        journal=journal,
        intake=intake,
        live=live,
        latency=latency,
        counters=counters.component("judge"),
        status=StatusCell("judge"),
        now_ns=clock,
        declare=registry.points,
        tick_interval_s=config.judging.tick_interval_s,
        clock_tolerance_ns=int(config.judging.clock_tolerance_s * NS_PER_S),
        alarms=book_config(config, plugins.rule_kinds),
    )
    core = Core(
        config, plugins, ports, spool, registry, journal, rules, judge, intake, live, latency,
        counters, started_ns=clock(),
    )  # fmt: skip
    core.announcer = Announcer(
        lambda key: judge.book.get(key),  # noqa: PLW0108  the book changes when the judge restarts
        FloodConfig(start=config.alarms.flood_start, end=config.alarms.flood_end),
    )
    core._room = RoomMaker(  # noqa: SLF001  assembled here, as the rest of it
        spool=spool,
        when_full=WhenFull(config.spool.when_full),
        deliveries=core.deliveries,
        read_by=core.read_by,
        let_go=core.let_go,
        points=registry.table,
        counters=counters.component("spool"),
    )
    core.self_check = self_check_of(core)
    judge.status = core.status("judge")
    judge.on_events = core.on_events
    judge.on_unrecorded = core.on_unrecorded
    if config.ledger.enabled:
        core.keeper = keeper_of(core)
        core._room.gave_up = core.keeper.thinned  # noqa: SLF001
        judge.on_passed_over = partial(core.keeper.refused_soon, JUDGE_CURSOR)
    for sink in config.sinks:
        _add_sink(core, sink)
    wanted = {JUDGE_CURSOR, *([LEDGER_CURSOR] if core.keeper else [])}.union(
        *(each.lanes.names for each in core.deliveries.values())
    )
    for name in spool.cursor_names():
        if name not in wanted:  # of a sink that is gone: it would hold its rows for ever
            depth = spool.stats().depth.get(name, 0)
            log.warning("%s is no longer configured: %d rows it had not taken go", name, depth)
            spool.drop_cursor(name)
    return core


def keeper_of(core: Core) -> LedgerKeeper:
    """The completeness ledger over this core. It opens its file when it runs."""
    section = core.config.ledger
    options = LedgerOptions(
        delayed_after_s=section.delayed_after_s,
        clock_tolerance_s=core.config.judging.clock_tolerance_s,
        keep_minutes_days=section.keep_minutes_days,
        keep_days=section.keep_days,
    )
    return LedgerKeeper(
        core.config.data_dir / "ledger",
        core.spool,
        core.points,
        options,
        World(lambda: _adapters_up(core), lambda: _progress(core), lambda: _refusals(core)),
        core.counters.component("ledger"),
        core.status("ledger"),
        core.ports.now_ns,
        open_ledger=core.ports.open_ledger,
    )


def _adapters_up(core: Core) -> dict[str, bool]:
    names = [adapter.name for adapter in core.config.adapters]
    return {name: core.status(f"adapter {name}").state not in ADAPTER_DOWN for name in names}


def _progress(core: Core) -> list[Progress]:
    found = [Progress(JUDGE_CURSOR, "judge", core.judge.cursor.committed)]
    for name, delivery in core.deliveries.items():
        role = "store" if name == core.config.history.sink else "forward"
        lanes = delivery.lanes
        found.append(Progress(lanes.main.name, role, lanes.main.committed, *lanes.done_ahead))
    return found


def _refusals(core: Core) -> dict[Reason, int]:
    counts = core.counters.of("intake")
    disk = ("unsaved.StorageFault", "unsaved.stuck")
    return {
        Reason.DISK_DOWN: sum(counts.get(name, 0) for name in disk),
        Reason.DROPPED_BUDGET: counts.get("unsaved.SpoolFull", 0),
    }


def build_rule_set(
    config: SiteConfig, plugins: Plugins, rules: SiteRules, registry: Registry
) -> RuleSet:
    """The rule set over the durable point table."""
    return RuleSet(
        rules.rules,
        plugins.rule_kinds,
        registry.table,
        lateness_ns=int(config.judging.lateness_s * NS_PER_S),
        clock_tolerance_ns=int(config.judging.clock_tolerance_s * NS_PER_S),
    )


def spool_options(config: SiteConfig) -> SpoolOptions:
    return SpoolOptions(
        commit_window_s=config.spool.commit_window_ms / 1000,
        segment_rows_max=config.spool.segment_rows_max,
        segment_bytes_max=config.spool.segment_bytes_max_mb << 20,
        pending_rows_max=config.spool.pending_rows_max,
        bytes_max=config.spool.bytes_max_mb << 20,
        disk_free_min_bytes=config.spool.disk_free_min_mb << 20,
        tail_rows_max=config.spool.tail_rows_max,
    )


def _add_sink(core: Core, config: PluginConfig) -> None:
    kind = core.plugins.sinks[config.kind]
    status = core.status(f"sink {config.name}")
    counters = core.counters.component(f"sink {config.name}")
    context = SinkContext(
        name=config.name,
        tenant=core.config.site.tenant,
        site=core.config.site.id,
        points=core.points,
        now_ns=core.ports.now_ns,
        counters=counters,
        status=status,
        state_dir=_folder(core.config.data_dir / "sinks" / config.name),
    )
    backoff = Backoff(random.Random(config.name))  # noqa: S311  jitter, not a secret
    if kind.build_samples is not None:
        sink = kind.build_samples(config.settings, context)
        if sink is not None:
            core.deliveries[config.name] = SampleDelivery(
                name=config.name,
                lanes=Lanes(core.spool, f"sink.{config.name}"),
                sink=sink,
                set_aside=SetAside(context.state_dir / "rejected.jsonl", core.points, counters),
                counters=counters,
                status=status,
                backoff=backoff,
                verdicts=core.keeper,
                limits=core.config.delivery,
            )
    if kind.build_alarms is not None:
        core.tellers[config.name] = AlarmDelivery(
            name=config.name,
            journal=core.journal,
            # A sink that is new is told the standing state, not years of events.
            cursor=core.journal.cursor(config.name, from_head=True),
            sink=kind.build_alarms(config.settings, context),
            standing=core.judge.standing,
            unrecorded=core.judge.unrecorded,
            is_flooded=lambda: bool(core.judge.verdicts),
            heartbeat=lambda: heartbeat(core),
            latency=core.latency,
            counters=counters,
            status=status,
            now_ns=core.ports.now_ns,
        )


def heartbeat(core: Core) -> dict[str, Any]:
    """What a subscriber needs to notice that it missed something."""
    book = core.judge.book
    counts = book.counts()
    time_ns = core.judge.now_ns()
    anchor = core.journal.newest_anchor
    return {
        "time_ns": core.ports.now_ns(),
        "epoch": core.journal.epoch,
        "head_gseq": core.journal.head,
        "standing": counts["standing"],
        "unacknowledged": counts["unacknowledged"],
        "planned": counts["planned"],
        "shelved": counts[AlarmState.SHELVED],
        "shelvings_week": book.shelvings(time_ns),
        **core.announcer.state(),
        # What cannot be told as events, because it is not on record: how much, why, and what of it
        # is most urgent.
        "unrecorded": core.judge.recorder.unrecorded_count,
        "journal_fault": core.judge.recorder.fault,
        "unrecorded_critical": core.judge.recorder.unrecorded_critical(),
        # Kept by whoever hears it, it proves later that what went before was not rewritten.
        "anchor": anchor.as_json() if anchor else None,
    }


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFault(f"{path}: {error.strerror}") from error
    return path
