"""`hazard-gateway demo`: simulators, gateway, embedded broker and console in one command.

Nothing is faked: the simulated mine writes files, the vehicles dial in over TCP, the dam publishes
over MQTT, and everything after that is the gateway as `run` starts it, from a site file that is
written into the data directory and may be read there. Only the broker is one that needs no
installation, and too small for production (gateway/runtime/broker.py says how small).

The stories of the first half minute stand in `simulators/scenarios/demo-*.toml`: methane rises
through alarm and cut-off and comes back, a shift overfills a face, rain raises the pool, a truck
speeds, a sensor falls silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from gateway.contract.simulator import CountingLedger, Simulator
from gateway.model.alarm import Alarm, AlarmEvent, Transition
from gateway.model.errors import ConfigError, Fault
from gateway.model.point import PointTable
from gateway.runtime.broker import EmbeddedBroker
from gateway.runtime.checking import load_site
from gateway.runtime.core import Core
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.service import Service, serve
from gateway.runtime.simulating import build_simulator, read_scenario, stop_simulator

HOST = "127.0.0.1"
SETTLE_TIMEOUT_S = 30.0
ADDRESS_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says."""

    duration_s: float | None = None  # None: until Ctrl-C
    as_json: bool = False
    data_dir: Path | None = None
    port: int = 8808
    mqtt_port: int = 1883
    seed: int = 1


@dataclass
class Ports:
    """Where the parts of one demo meet."""

    console: int
    mqtt: int
    jt808: int


@dataclass
class Telling:
    """Prints alarms as they come and counts them by rule kind."""

    language: str
    quiet: bool
    points: PointTable
    raised: Counter[str] = field(default_factory=Counter)
    cleared: Counter[str] = field(default_factory=Counter)
    _told: int = 0

    def events(self, events: Sequence[AlarmEvent]) -> None:
        for event in events:
            if event.transition in {Transition.ACTIVATED, Transition.ESCALATED}:
                if event.transition is Transition.ACTIVATED:
                    self.raised[event.alarm.rule_kind] += 1
                self._say(event, "ALARM")
            elif event.transition is Transition.RETURNED:
                self.cleared[event.alarm.rule_kind] += 1
                self._say(event, "clear")

    def _name(self, alarm: Alarm) -> str:
        """Of the vehicle or dam where it has one, else of what the alarm is about."""
        point = self.points.get(alarm.point_id)
        device = self.points.device(point.device) if point else None
        return (device.name if device else "") or alarm.display_name or alarm.target

    def _say(self, event: AlarmEvent, word: str) -> None:
        if self.quiet:
            return
        alarm = event.alarm
        name = alarm.name.get(self.language) or alarm.name.get("en") or alarm.rule_id
        value = "" if event.value is None else f" {event.value:g} {alarm.unit}"
        limit = "" if event.limit is None else f" (limit {event.limit:g})"
        place = alarm.location or self._name(alarm)
        print(f"  {word}  P{alarm.priority.value}  {name}{value}{limit}  {place}", flush=True)


def run_demo(options: DemoOptions) -> int:
    """Returns 1 when anything was lost."""
    plugins = load_plugins()
    data_dir = options.data_dir or Path(tempfile.mkdtemp(prefix="hazard-gateway-demo-"))
    data_dir.mkdir(parents=True, exist_ok=True)
    counts = asyncio.run(_demo(options, plugins, data_dir))
    if options.as_json:
        print(json.dumps(counts), flush=True)
    return 0 if counts["lost"] == 0 and counts["settled"] else 1


async def _demo(options: DemoOptions, plugins: Plugins, data_dir: Path) -> dict[str, Any]:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ports = choose_ports(options)
    ledger = CountingLedger()
    async with EmbeddedBroker(HOST, ports.mqtt):
        site = write_site(data_dir, ports)
        config = load_site(site, plugins)
        async with serve(config, plugins, web_log_level="ERROR") as service:
            telling = Telling(config.site.language, options.as_json, service.core.points)
            service.core.event_listeners.append(telling.events)
            await _introduce(service, ports, site)
            await _adapters_ready(service.core)
            before = await service.core.stored_count()  # of an earlier run on the same data
            async with _simulators(options, plugins, ports, data_dir, ledger):
                await _wait(stop, options.duration_s)
            await service.core.end_self_check()
            settled = await service.core.settle(timeout_s=SETTLE_TIMEOUT_S)
            counts = await _counts(service.core, ledger, telling, before=before)
            return {**counts, "settled": settled}


def choose_ports(options: DemoOptions) -> Ports:
    """The wanted ports where they are free. Raises ConfigError for a console port that is not: a
    person has bookmarked it, or another demo is running."""
    console = options.port or free_port()
    if not _is_free(console):
        expected = "a free port; another program listens there (try --port 0)"
        raise ConfigError([Fault("--port", 0, str(console), expected)])
    mqtt = options.mqtt_port if options.mqtt_port and _is_free(options.mqtt_port) else free_port()
    return Ports(console=console, mqtt=mqtt, jt808=free_port())


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError:
        return False


def write_site(data_dir: Path, ports: Ports) -> Path:
    """The demo's site file, for `check`, `run` and curious readers."""
    template = files("gateway.runtime").joinpath("demo_site.toml").read_text(encoding="utf-8")
    inbox = data_dir / "inbox"
    inbox.mkdir(exist_ok=True)
    text = Template(template).substitute(
        console_port=ports.console, mqtt_port=ports.mqtt, jt808_port=ports.jt808, host=HOST
    )
    path = data_dir / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def _simulators(
    options: DemoOptions, plugins: Plugins, ports: Ports, data_dir: Path, ledger: CountingLedger
) -> AsyncIterator[None]:
    targets = {
        "jt808": f"{HOST}:{ports.jt808}",
        "mine_files": str(data_dir / "inbox"),
        "mqtt_json": f"{HOST}:{ports.mqtt}",
    }
    running: list[tuple[Simulator, asyncio.Task[None]]] = []
    for number, (name, target) in enumerate(targets.items()):
        simulator = build_simulator(
            plugins.simulators[name],
            name=name,
            target=target,
            settings=read_scenario(f"demo-{name}"),
            seed=options.seed + number,
            ledger=ledger,
        )
        running.append((simulator, asyncio.create_task(simulator.run(), name=f"simulator {name}")))
    try:
        yield
    finally:
        await asyncio.gather(*(stop_simulator(simulator, task) for simulator, task in running))


async def _introduce(service: Service, ports: Ports, site: Path) -> None:
    assert service.web is not None
    async with asyncio.timeout(ADDRESS_TIMEOUT_S):
        url = await asyncio.shield(service.web.url)
    topic = f"hazard/v1/{service.core.config.site.tenant}/{service.core.config.site.id}"
    lines = (
        "",
        f"  Console   {url}",
        f"  Alarms    mosquitto_sub -h {HOST} -p {ports.mqtt} -v -t '{topic}/alarm/#'",
        f"  Site      {site}",
        "",
        "  A simulated mine, a fleet and a tailings dam are sending. Ctrl-C ends the demo.",
        "",
    )
    print("\n".join(lines), file=sys.stderr, flush=True)


async def _adapters_ready(core: Core) -> None:
    """A broker keeps nothing for a subscriber it has never seen: send only when all listen."""
    names = [f"adapter {adapter.name}" for adapter in core.config.adapters]
    names += [f"sink {sink.name}" for sink in core.config.sinks]
    async with asyncio.timeout(ADDRESS_TIMEOUT_S):
        while any(core.status(name).state in {"starting", "connecting"} for name in names):  # noqa: ASYNC110  three parties, no common event
            await asyncio.sleep(0.02)


async def _wait(stop: asyncio.Event, duration_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration_s):
            await stop.wait()


async def _counts(
    core: Core, ledger: CountingLedger, telling: Telling, *, before: int
) -> dict[str, Any]:
    """What came of every sample. `lost` is what was sent and is not in the store."""
    # The gateway's words about itself are no samples that anyone sent.
    own = core.self_check.durable_count if core.self_check else 0
    stored = await core.stored_count() - before
    return {
        "samples_sent": ledger.sent_count,
        "samples_acknowledged": ledger.acknowledged_count,
        "samples_durable": core.intake.durable_count - own,
        "samples_judged": core.judge.judged_count - own,
        "samples_stored": stored,
        "samples_derived": core.intake.derived_count,
        "lost": max(0, ledger.sent_count - stored),
        "alarms_raised": dict(sorted(telling.raised.items())),
        "alarms_cleared": dict(sorted(telling.cleared.items())),
        "events_journalled": core.journal.head,
        "events_told": sum(teller.told_count for teller in core.tellers.values()),
        "spool_depth": core.spool.head - min(d.cursor.committed for d in core.deliveries.values()),
        "alarm_latency_ms": {
            "p50": core.latency.percentile_ms(50),
            "p99": core.latency.percentile_ms(99),
        },
    }
