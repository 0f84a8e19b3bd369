"""One seed, run: a gateway that lives and dies, its devices, its database and its broker.

    simulate(seed) ──▶ Outcome: the log, the evidence, what the laws say of it

What starts the gateway again stands in for systemd: after a crash, after a start that failed, after
the power is back. Nothing here looks inside the gateway to judge it; a peek is allowed only to see
that there is nothing left to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from gateway.alarms.journal import Journal
from gateway.config import SiteConfig
from gateway.ledger.ledger import Ledger, LedgerOptions, open_ledger
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.errors import GatewayError, StorageFault
from gateway.runtime.checking import load_site
from gateway.runtime.core import Core, Ports, open_core
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.spool import Spool
from gateway.spool.spool import SpoolOptions
from gateway.testing.sim import devices as sim_devices
from gateway.testing.sim.clock import WallClock
from gateway.testing.sim.devices import Device
from gateway.testing.sim.drive import VirtualDrive
from gateway.testing.sim.files import GatewayDisk, Refusal
from gateway.testing.sim.loop import Domain, Stuck, VirtualLoop, running
from gateway.testing.sim.network import Network
from gateway.testing.sim.peers import Broker, Database, link_of, server_of
from gateway.testing.sim.plan import Fault, Plan

SETTLE_MAX_S = 150.0
"""After the last fault everything must be where it belongs: two turns of the longest back-off
(30 s), the time a dead link takes to be noticed, and the backlog."""
CALM_S = 10.0
"""For so long nothing may be left to wait for. After a start time moves only with the data for five
seconds (`Judge.settle_s`), then the longest delay that may still run ends; with a clock that was
set no data moves it sooner."""
RESTART_S = 1.0  # systemd's RestartSec as our unit has it
RESERVE_BYTES = 65_536
_CUT_AT_LAST_S = 15.0  # a power cut waits no longer for the disk to be busy


Identity = tuple[int, str, int, int]
"""(gseq, alarm_key, occ_no, seq) of an event."""


def identity_of(event: AlarmEvent) -> Identity:
    alarm = event.alarm
    return alarm.gseq, alarm.alarm_key, alarm.occ_no, alarm.seq


@dataclass
class Evidence:
    """What can be seen from outside when all is over."""

    plan: Plan
    devices: list[Device]
    database: Database
    broker: Broker
    events: list[AlarmEvent] = field(default_factory=list)  # the journal, in order
    rows: list[Alarm] = field(default_factory=list)  # its live table
    settled_s: float | None = None  # when; None: not within the bound
    siren: list[tuple[float, Identity]] = field(default_factory=list)  # told on the spot, and when
    deaths: list[tuple[float, set[Identity]]] = field(default_factory=list)
    """When, and what the journal that was left has."""
    notes: list[str] = field(default_factory=list)  # what would have failed at once
    stopped: list[tuple[float, float]] = field(default_factory=list)  # the gateway was not running


@dataclass
class Outcome:
    """What one seed gave."""

    plan: Plan
    log: list[str]
    evidence: Evidence
    virtual_s: float
    steps: int
    lives: int
    refused: dict[str, int]


class World:
    """Everything there is in one simulation."""

    def __init__(
        self,
        plan: Plan,
        root: Path,
        loop: VirtualLoop,
        *,
        watched: bool = True,
        database: type[Database] = Database,
    ) -> None:
        self.plan = plan
        self.loop = loop
        self.lines: list[str] = []
        self.clock = WallClock(loop)
        self.network = Network(loop, self._rng("network"))
        self.network.install()
        self.disk = GatewayDisk(root / "disk", self._rng("disk"), watched=watched)
        self.database = database(loop, self._rng("database"), self.log)
        self.broker = Broker(loop, self._rng("broker"), self.log)
        self.devices = [
            Device(name, [replace(message) for message in messages], self.log)
            for name, messages in plan.devices.items()
        ]
        self.evidence = Evidence(plan, self.devices, self.database, self.broker)
        self.core: Core | None = None
        self.lives = 0
        self._root = root
        self._config = self._load(root)
        self._domain: Domain | None = None
        self._stores: list[Any] = []
        self._death: asyncio.Future[float] | None = None
        self._stop: asyncio.Event | None = None
        self._ended = False
        self._down_for_s = 0.0
        self._down_since_s = 0.0
        loop.after_step = self._after_step

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self.plan.seed}/{what}")  # noqa: S311  a seed, not a secret

    def log(self, text: str) -> None:
        self.lines.append(f"{self.loop.time():.6f} {text}")

    def _load(self, root: Path) -> SiteConfig:
        path = root / "site.toml"
        path.write_text(self.plan.site(), encoding="utf-8")
        return load_site(path, plugins())

    # ------------------------------------------------------------------ the run

    async def run(self) -> None:
        """From power on until everything has settled, or had its time to."""
        keeper = asyncio.create_task(self.keep_alive(), name="systemd")
        sending = [asyncio.create_task(device.run(), name=device.name) for device in self.devices]
        for fault in self.plan.faults:
            self.loop.call_at(fault.at_s, self._begin, fault)
        await asyncio.sleep(self.plan.quiet_from_s)
        self.log("quiet")
        self.disk.refusals.clear()
        await self._settle()
        for task in sending:
            task.cancel()
        for result in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(result, Exception):
                self.evidence.notes.append(f"a device failed: {result!r}")
        await self.end(keeper)

    async def end(self, keeper: asyncio.Task[None]) -> None:
        """Stop the gateway in order, and read what it leaves."""
        self._ended = True
        if self._stop is not None:
            self._stop.set()
        await keeper
        self._read_journal()

    async def _settle(self) -> None:
        calm_from_s = self.loop.time()
        deadline_s = calm_from_s + SETTLE_MAX_S
        while self.loop.time() < deadline_s:
            if not self._is_settled():
                calm_from_s = self.loop.time() + 1.0
            elif self.loop.time() >= calm_from_s + CALM_S:
                self.evidence.settled_s = self.loop.time()
                self.log("settled")
                return
            await asyncio.sleep(1.0)
        self.log("not settled")

    def _is_settled(self) -> bool:
        core = self.core
        if core is None or not all(device.is_done for device in self.devices):
            return False
        if core.judge.recorder.waiting:
            return False
        behind = any(delivery.behind for delivery in core.deliveries.values())
        untold = any(t.cursor.gseq < core.journal.head for t in core.tellers.values())
        return not behind and not untold and not core.judge.cursor.depth

    def _look_at_what_is_left(self) -> None:
        """The journal as the next life will find it; a copy, since opening it mends it."""
        left, copy = self.disk.home / "data" / "journal", self._root / "looked at"
        found: set[Identity] = set()
        if left.is_dir():
            shutil.copytree(left, copy)
            try:
                with contextlib.closing(Journal.open(copy, reserve_bytes=RESERVE_BYTES)) as journal:
                    found = {identity_of(event) for event in events_of(journal)}
            except StorageFault as error:
                self.evidence.notes.append(f"told: the journal that was left: {error}")
            shutil.rmtree(copy)
        self.evidence.deaths.append((self.loop.time(), found))

    def _hear(self, events: Sequence[AlarmEvent]) -> None:
        """What hangs on the gateway itself: a siren, a screen."""
        now_s = self.loop.time()
        self.evidence.siren += [(now_s, identity_of(event)) for event in events]

    def _read_journal(self) -> None:
        journal = Journal.open(self.disk.home / "data" / "journal", reserve_bytes=RESERVE_BYTES)
        try:
            self.evidence.events += events_of(journal)
            self.evidence.rows = journal.live_rows()
            if journal.damage:
                self.evidence.notes.append(f"journal damaged: {journal.damage.details}")
        finally:
            journal.close()

    # ------------------------------------------------------------------ the gateway's lives

    async def keep_alive(self) -> None:
        """Start it, and start it again."""
        while not self._ended:
            self._domain = domain = Domain(f"gateway {self.lives}")
            self._death = self.loop.create_future()
            self._stop = asyncio.Event()
            self.lives += 1
            home = self.disk.begin()
            self.log(f"life {self.lives}")
            life = self.loop.spawn(domain, self._live(home, self._stop), domain.name)
            ends: set[asyncio.Future[Any]] = {life, self._death}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self.core = None
            if self._death.done():
                await asyncio.sleep(self._death.result())
                self._power_is_back(domain)
            else:
                self._look_at(life)
                await asyncio.sleep(0 if self._ended else RESTART_S)

    def _look_at(self, life: asyncio.Task[None]) -> None:
        """It ended by itself: asked to, or because it could not go on."""
        error = life.exception()
        self.log(f"ended: {type(error).__name__ if error else 'by itself'}")
        if error is not None and not isinstance(error, GatewayError):
            self.evidence.notes.append(f"a life ended with {error!r}")
        self._stores.clear()

    async def _live(self, home: Path, stop: asyncio.Event) -> None:
        config = self._config.model_copy(update={"data_dir": home / "data"})
        ports = Ports(self.clock.now_ns, self._open_spool, self._open_journal, self._open_ledger)
        async with open_core(config, plugins(), ports=ports) as core:
            self._stores.append(core.registry)
            core.event_listeners.append(self._hear)
            core.start()
            self.core = core
            waits = [asyncio.create_task(stop.wait()), asyncio.create_task(core.failed.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    def _open_spool(self, directory: Path, options: SpoolOptions) -> Spool:
        drive = VirtualDrive(self.loop, self._rng(f"drive {self.lives}"))
        spool = Spool.open(directory, options, drive=drive)
        self._stores.append(spool)
        return spool

    def _open_journal(self, directory: Path) -> Journal:
        journal = Journal.open(directory, reserve_bytes=RESERVE_BYTES)
        self._stores.append(journal)
        return journal

    def _open_ledger(self, directory: Path, options: LedgerOptions) -> Ledger:
        ledger = open_ledger(directory, options)
        self._stores.append(ledger)
        return ledger

    # ------------------------------------------------------------------ what goes wrong

    def _after_step(self) -> None:
        self.disk.keep_up()
        if self.disk.is_cut:
            self._kill(by_power=True)

    def _kill(self, *, by_power: bool) -> None:
        """No code of the gateway runs any more."""
        domain = self._domain
        if domain is None or domain.is_dead or self._death is None or self._death.done():
            self.disk.cut_at = None
            return
        self.log("power cut" if by_power else "killed")
        self.core = None
        links = self.network.links_of(domain)
        self.loop.kill(domain)
        for link in links:
            if by_power:
                link.go_silent()
            else:
                link.cut()
        self.broker.drop_links()
        if by_power:
            self.disk.power_cut()
        else:
            self.disk.survive()
        self._close_stores()
        self._look_at_what_is_left()
        self._death.set_result(self._down_for_s)

    def _close_stores(self) -> None:
        """Give back what the dead hold open; what they write by it nobody reads."""
        for store in self._stores:
            with contextlib.suppress(Exception):
                (store.close_now if isinstance(store, Spool) else store.close)()
        self._stores.clear()

    def _power_is_back(self, domain: Domain) -> None:
        for link in self.network.links_of(domain):
            link.machine_is_back()

    def _begin(self, fault: Fault) -> None:
        self.log(f"fault {fault}")
        getattr(self, f"_on_{fault.kind}")(fault)

    def _on_power_cut(self, fault: Fault) -> None:
        self._down_for_s = fault.for_s
        self.disk.cut_at = self.disk.note_count + fault.steps
        domain = self._domain

        def at_last() -> None:
            if self._domain is domain and self.disk.cut_at is not None:
                self._kill(by_power=True)

        self.loop.call_later(_CUT_AT_LAST_S, at_last)

    def _on_kill(self, fault: Fault) -> None:
        self._down_for_s = fault.for_s
        self._kill(by_power=False)

    def _on_restart(self, _fault: Fault) -> None:
        if self._stop is not None:
            self._stop.set()

    def _on_pause(self, fault: Fault) -> None:
        domain = self._domain
        if domain is not None and not domain.is_stopped:
            self.loop.stop_domain(domain)
            self.loop.call_later(fault.for_s, self.loop.go_on, domain)

    def _on_disk_error(self, fault: Fault) -> None:
        self.disk.refusals.append(Refusal(fault.code, fault.calls, fault.below, fault.steps))

    def _on_disk_full(self, fault: Fault) -> None:
        refusal = Refusal(fault.code, fault.calls, fault.below, count=1_000_000)
        self.disk.refusals.append(refusal)
        self.loop.call_later(fault.for_s, self._end_refusal, refusal)

    def _end_refusal(self, refusal: Refusal) -> None:
        if refusal in self.disk.refusals:
            self.disk.refusals.remove(refusal)

    def _on_cut(self, _fault: Fault) -> None:
        for link in self.network.links:
            link.cut()

    def _on_silence(self, _fault: Fault) -> None:
        for link in self.network.links:
            link.go_silent()

    def _on_partition(self, fault: Fault) -> None:
        self.network.is_partitioned = True
        for link in self.network.links:
            link.go_silent()
        self.loop.call_later(fault.for_s, self._heal)

    def _heal(self) -> None:
        self.network.is_partitioned = False

    def _on_database(self, fault: Fault) -> None:
        self.database.mode = fault.mode
        self.loop.call_later(fault.for_s, setattr, self.database, "mode", "up")

    def _on_broker(self, fault: Fault) -> None:
        self.broker.mode = fault.mode
        if fault.mode == "down":
            self.broker.drop_links()
        self.loop.call_later(fault.for_s, setattr, self.broker, "mode", "up")

    def _on_broker_empty(self, _fault: Fault) -> None:
        self.broker.restart_empty()

    def _on_clock(self, fault: Fault) -> None:
        self.clock.set_off(fault.offset_s)


def events_of(journal: Journal, page: int = 500) -> Iterator[AlarmEvent]:
    """All of a journal, in its order."""
    gseq = 0  # not how many there are: after damage numbers are missing
    while more := journal.read(gseq, page):
        yield from more
        gseq = more[-1].alarm.gseq


@cache
def plugins() -> Plugins:
    """What is installed, and the simulation's own adapter."""
    found = load_plugins()
    return replace(found, adapters={**found.adapters, "line": sim_devices.KIND})


@contextlib.contextmanager
def world_of(
    plan: Plan, *, watched: bool = True, database: type[Database] = Database
) -> Iterator[World]:
    """A world, and nothing left of it afterwards."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  a real disk only wears
    root = Path(tempfile.mkdtemp(prefix="sim-", dir=memory))
    rng = random.Random(f"{plan.seed}/loop")  # noqa: S311  a seed, not a secret
    try:
        with running(rng) as loop:
            asyncio.set_event_loop(loop)
            world = World(plan, root, loop, watched=watched, database=database)
            influx = mock.patch("gateway.sinks.influxdb.sink.Server", server_of(world.database))
            mqtt = mock.patch("gateway.sinks.mqtt.alarms.MqttLink", link_of(world.broker))
            with influx, mqtt:
                try:
                    yield world
                finally:
                    world.disk.end()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def run_plan(plan: Plan) -> Outcome:
    """Run it to its end."""
    with world_of(plan) as world:
        try:
            world.loop.run_until_complete(world.run())
        except Stuck as error:
            world.evidence.notes.append(f"settled: stuck, {error}")
        for failure in world.loop.failures:
            world.evidence.notes.append(f"loop: {failure.get('message')} {failure!r}"[:500])
        return Outcome(
            plan=plan,
            log=world.lines,
            evidence=world.evidence,
            virtual_s=world.loop.time(),
            steps=world.loop.steps,
            lives=world.lives,
            refused=world.disk.refused,
        )
