"""Everything at once for as long as asked: load on three wires, alarms, and faults from the table
in a seeded order; then all settles and every law is checked.

    0 ............ 60 % ............ 90 %  100 %
    | all faults       | no kill of the |  calm, then the checks
    |                  | gateway itself |

In the second part one gateway lives long enough for growth to mean something: its memory and its
descriptors at the end are compared with those when it had settled.

Each line of the report is of the time since the last one. The answer time is the longest a question
over the local link had to wait: what the event loop let others wait, seen from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.runtime.clock import now_ns
from gateway.runtime.plugins import load_plugins
from gateway.testing.faults import checks, evidence
from gateway.testing.faults.proxy import MODES
from gateway.testing.faults.rig import Plan, Rig
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.wires import PACKS, Wires

RSS_GROWTH_MAX_MB = 50.0
FD_GROWTH_MAX = 16  # connections being made again, a segment beside another
_REPORT_S = 60.0
_CALM_S = (1.0, 5.0)  # between one fault and the next
_LASTING_S = (0.5, 6.0)
_PROBE_S = 0.25
_SETTLES_S = 10.0  # a new life's memory is that of its load after so long


@dataclass(eq=False)
class Soak:
    """One run."""

    run: Run
    rig: Rig
    wires: Wires
    seconds: float
    fault_counts: dict[str, int] = field(default_factory=dict)
    answer_ms: float = 0.0
    settled: tuple[int, int] | None = None  # memory and descriptors
    _reported_ns: int = 0
    _stored: int = 0
    _sent: int = 0
    _told: int = 0

    async def go(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        helpers = [asyncio.create_task(self._report()), asyncio.create_task(self._probe())]
        try:
            await self._hurt_until(began_s + 0.6 * self.seconds, kills=True)
            settles_s = loop.time() + min(_SETTLES_S, 0.1 * self.seconds)
            await self._hurt_until(settles_s, kills=False)
            self.settled = self._use()
            await self._hurt_until(began_s + 0.9 * self.seconds, kills=False)
            await asyncio.sleep(max(0.0, began_s + self.seconds - loop.time()))
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        await self._line()

    def _use(self) -> tuple[int, int]:
        gateway = self.rig.gateway
        assert gateway is not None, "started"
        return gateway.rss_bytes, gateway.fd_count

    async def _hurt_until(self, until_s: float, *, kills: bool) -> None:
        loop, rng = asyncio.get_running_loop(), self.run.rng
        faults = self._faults(kills=kills)
        while loop.time() < until_s:
            await asyncio.sleep(rng.uniform(*_CALM_S))
            name = rng.choice(sorted(faults))
            self.fault_counts[name] = self.fault_counts.get(name, 0) + 1
            await faults[name](min(rng.uniform(*_LASTING_S), max(0.1, until_s - loop.time())))
            gateway = self.rig.gateway
            if not self.run.found.require(
                gateway is not None and gateway.is_running, f"the gateway ended after {name}"
            ):
                await self.rig.start()

    def _faults(self, *, kills: bool) -> dict[str, Callable[[float], Awaitable[None]]]:
        faults: dict[str, Callable[[float], Awaitable[None]]] = {
            "told wire": lambda s: self._wire("told", s),
            "store wire": lambda s: self._wire("store", s),
            "told broker killed": self._kill_broker,
            "database killed": self._kill_database,
            "told broker frozen": lambda s: self._freeze("told", s),
            "database frozen": lambda s: self._freeze("store", s),
            "gateway frozen": lambda s: self._freeze("gateway", s),
        }
        if kills:
            faults |= {
                "gateway killed": self._kill_gateway,
                "gateway killed twice": self._kill_twice,
            }
        return faults

    async def _wire(self, name: str, seconds: float) -> None:
        await self.rig.proxies[name].set(self.run.rng.choice(MODES[1:]))
        await asyncio.sleep(seconds)
        await self.rig.proxies[name].set("pass")

    async def _kill_broker(self, seconds: float) -> None:
        broker = self.rig.told_broker
        await broker.kill()
        await asyncio.sleep(seconds)
        if self.run.rng.random() < 0.5:
            broker.empty()
        await broker.start()

    async def _kill_database(self, seconds: float) -> None:
        await self.rig.influxd.kill()
        await asyncio.sleep(seconds)
        await self.rig.influxd.start()

    async def _freeze(self, what: str, seconds: float) -> None:
        rig = self.rig
        process = {
            "told": rig.told_broker.process,
            "store": rig.influxd.process,
            "gateway": rig.gateway,
        }[what]
        assert process is not None, "started"
        process.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            process.resume()

    async def _kill_gateway(self, _seconds: float) -> None:
        await self.rig.kill()
        await self.rig.start(cold=self.run.rng.random() < 0.1)

    async def _kill_twice(self, _seconds: float) -> None:
        await self.rig.kill()
        await self.rig.start(ready=False)
        await asyncio.sleep(self.run.rng.uniform(0.0, 0.5))
        await self._kill_gateway(0.0)

    # ------------------------------------------------------------------ looking on

    async def _probe(self) -> None:
        while True:
            asked_s = time.monotonic()
            if await self.rig.link.ask("events", limit=1) is not None:
                self.answer_ms = max(self.answer_ms, (time.monotonic() - asked_s) * 1000)
            await asyncio.sleep(_PROBE_S)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(min(_REPORT_S, self.seconds / 4))
            await self._line()

    async def _line(self) -> None:
        feeder, rig, now = self.rig.feeder, self.rig, now_ns()
        edges = [edge for edge in feeder.edges if self._reported_ns <= edge.time_ns]
        heard = evidence.latencies_ms(rig.near, edges)
        rig.far.read()
        sent = feeder.sent_count + self.wires.ledger.sent_count
        acked = len(feeder.acknowledged) + len(self.wires.ledger.promised)
        stored = await self._stored_count()
        told = len(rig.far.events)
        rss, fds = self._use() if rig.gateway else (0, 0)
        self.run.say(
            f"rows sent +{sent - self._sent} acked {acked} stored {stored}; alarms told "
            f"+{told - self._told}; rss {rss >> 20} MiB fds {fds}; answer max "
            f"{self.answer_ms:.0f} ms; alarm p50 {evidence.percentile(heard, 50):.0f} p99 "
            f"{evidence.percentile(heard, 99):.0f} ms of {len(heard)}"
        )
        self._reported_ns, self._sent, self._told, self.answer_ms = now, sent, told, 0.0

    async def _stored_count(self) -> int:
        """The newest the database could be asked; it may be down just now."""
        try:
            async with asyncio.timeout(2.0):
                series = await self.rig.influxd.query('SELECT count("quality") FROM "sample"')
        except (OSError, TimeoutError, ValueError):
            return self._stored
        self._stored = int(series[0]["values"][0][1]) if series else 0
        return self._stored


async def soak(run: Run, seconds: float) -> None:
    """Scenario function of `make soak`."""
    wires = Wires(run.folder, load_plugins(), run.seed)
    plan = Plan(store="influxdb", told=True, extra=wires.adapters, top=PACKS)
    found = run.found
    async with run.rig(plan) as rig:
        await rig.first_start()
        rig.link.open()
        rig.feeder.start()
        wires.start()
        soaking = Soak(run, rig, wires, seconds)
        try:
            await soaking.go()
            ended = soaking._use()  # noqa: SLF001  its own module
            await wires.stop()
        finally:
            await wires.cancel()
        found.figure(", ".join(f"{n} {name}" for name, n in sorted(soaking.fault_counts.items())))
        _check_growth(run, soaking.settled, ended)
        await checks.check_all(run, rig)
        held = await rig.stored()
        lost = wires.lost(held)
        found.require(not lost, f"{len(lost)} promised over the other wires lost: {lost[:3]}")
        found.figure(
            f"over the other wires {len(wires.ledger.promised)} promised, {len(lost)} lost"
        )
        heard = evidence.latencies_ms(rig.near, rig.feeder.edges)
        found.figure(f"alarm p50 {evidence.percentile(heard, 50):.0f} ms, kills included")


def _check_growth(run: Run, before: tuple[int, int] | None, after: tuple[int, int]) -> None:
    if not run.found.require(before is not None, "growth was not measured"):
        return
    assert before is not None, "required"
    grown_mb, grown_fds = (after[0] - before[0]) / 2**20, after[1] - before[1]
    run.found.figure(f"memory {grown_mb:+.0f} MiB, descriptors {grown_fds:+d} in the last life")
    run.found.require(grown_mb <= RSS_GROWTH_MAX_MB, f"memory grew {grown_mb:.0f} MiB")
    run.found.require(grown_fds <= FD_GROWTH_MAX, f"{grown_fds} more descriptors")
