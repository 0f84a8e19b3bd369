"""One gateway with everything around it, for one scenario.

    Feeder ──> field broker ──> gateway ──> field broker ──> Subscriber `near`
                  (never hurt)     ├──> proxy ──> told broker ──> Subscriber `far`
                                   └──> proxy ──> influxd, or DuckDB in the data folder

The latency of alarms is what `near` hears: whatever is done to the others must not show there.

All is on loopback and in one folder; everything ends with `async with`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from gateway.runtime.clock import now_ns
from gateway.testing.faults import evidence
from gateway.testing.faults.evidence import Link
from gateway.testing.faults.load import MAPPING, RULE, Feeder
from gateway.testing.faults.process import Nursery, Process, cold_start, until
from gateway.testing.faults.proxy import Proxy
from gateway.testing.faults.servers import Influxd, Mosquitto, Subscriber, free_port

READY_TIMEOUT_S = 60.0
NS = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """What a scenario wants around its gateway."""

    store: Literal["duckdb", "influxdb", "none"] = "duckdb"
    told: bool = False  # a second broker, behind a proxy
    console: bool = False
    field_wire: bool = False  # the adapter reaches its broker through a proxy
    extra: str = ""  # further TOML: adapters, rules
    adapter: str = ""  # further keys of the field adapter
    mappings: str = ""  # of it
    top: str = ""  # further keys of the file's top
    spool: str = ""  # lines of [spool]
    data_dir: Path | None = None
    told_host: str = "127.0.0.1"
    told_prefix: tuple[str, ...] = ()
    devices: int = 8
    reports_per_s: float = 20.0


@dataclass(eq=False)
class Rig:
    """`async with Rig(folder, nursery, seed, plan) as rig`: servers, subscribers and feeder are up;
    the gateway is not, see `start`."""

    folder: Path
    nursery: Nursery
    seed: int
    plan: Plan = field(default_factory=Plan)
    gateway: Process | None = None
    started_ns: int = 0
    start_count: int = 0
    proxies: dict[str, Proxy] = field(default_factory=dict)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _enter(self) -> None:
        plan, stack = self.plan, self._stack
        self.folder.mkdir(parents=True, exist_ok=True)
        self.field_broker = Mosquitto(self.folder / "field")
        await self._up(self.field_broker)
        self.near = Subscriber(self.field_broker.port, self.folder / "near.txt")
        await self._up(self.near)
        if plan.field_wire:
            await self._proxy("field", self.field_broker.port)
        if plan.told:
            self.told_broker = Mosquitto(
                self.folder / "told", host=plan.told_host, prefix=plan.told_prefix
            )
            await self._up(self.told_broker)
            self.far = Subscriber(
                self.told_broker.port, self.folder / "far.txt",
                host=plan.told_host, prefix=plan.told_prefix,
            )  # fmt: skip
            await self._up(self.far)
            if plan.told_host == "127.0.0.1":
                await self._proxy("told", self.told_broker.port)
        if plan.store == "influxdb":
            self.influxd = Influxd(self.folder / "influxd")
            await self._up(self.influxd)
            await self._proxy("store", self.influxd.port)
        self.feeder = Feeder(
            self.field_broker.port, self.seed,
            device_count=plan.devices, reports_per_s=plan.reports_per_s,
        )  # fmt: skip
        stack.push_async_callback(self.feeder.cancel)
        self.console_port = free_port()
        self.site = self.folder / "site.toml"
        self.site.write_text(self._site(), encoding="utf-8")
        self.link = Link(self.data_dir / "core.sock")
        stack.push_async_callback(self.link.close)
        stack.push_async_callback(self.kill)

    async def _up(self, server: Mosquitto | Influxd | Subscriber) -> None:
        self._stack.push_async_callback(_end, server)
        await server.start()

    async def _proxy(self, name: str, port: int) -> None:
        proxy = self.proxies[name] = Proxy(port, seed=self.seed)
        await proxy.open()
        self._stack.push_async_callback(proxy.close)

    @property
    def data_dir(self) -> Path:
        return self.plan.data_dir or self.folder / "data"

    @property
    def journal(self) -> Path:
        return self.data_dir / "journal"

    def _site(self) -> str:
        plan = self.plan
        wire = self.proxies.get("field")
        field_port = wire.port if wire else self.field_broker.port
        parts = [
            plan.top,
            '[site]\ntenant = "t"\nid = "s"\nname = { en = "faults" }',
            f'data_dir = "{self.data_dir}"\n',
            f"[console]\nenabled = {str(plan.console).lower()}\nport = {self.console_port}\n",
            "[alarms]\nrejoin_window_s = 0.0\n",
            f"[spool]\n{plan.spool}\n" if plan.spool else "",
            '[[adapter]]\nname = "field"\nkind = "mqtt_json"\nhost = "127.0.0.1"',
            f"port = {field_port}\nkeepalive_s = 5\nconnect_timeout_s = 3.0",
            *(plan.adapter, MAPPING, plan.mappings, RULE),
            '[[sink]]\nname = "near"\nkind = "mqtt"\nhost = "127.0.0.1"',
            f"port = {self.field_broker.port}",
        ]
        if plan.told:
            port = self.proxies["told"].port if "told" in self.proxies else self.told_broker.port
            parts.append(
                f'[[sink]]\nname = "told"\nkind = "mqtt"\nhost = "{plan.told_host}"\n'
                f"port = {port}\nkeepalive_s = 5\nack_timeout_s = 3.0\nconnect_timeout_s = 3.0\n"
            )
        if plan.store == "influxdb":
            parts.append(
                f'[[sink]]\nname = "store"\nkind = "influxdb"\napi = "v1"\ndatabase = "samples"\n'
                f'url = "http://127.0.0.1:{self.proxies["store"].port}"\nrequest_timeout_s = 3.0\n'
            )
        elif plan.store == "duckdb":
            parts.append('[[sink]]\nname = "store"\nkind = "duckdb"\n')
        if plan.store != "none":
            parts.insert(1, '[history]\nsink = "store"\n')
        return "\n".join([*parts, plan.extra])

    # ------------------------------------------------------------------ the gateway

    async def start(self, *, cold: bool = False, ready: bool = True) -> Process:
        """Start it; with `ready` wait until its link answers. Raises RuntimeError when it ends."""
        self.start_count += 1
        log = self.folder / "gateway.log"
        self.link.forget()
        self.started_ns = now_ns()
        if cold:
            self.gateway = cold_start(self.site, log)
        else:
            self.gateway = await self.nursery.start(self.site, log)
        if ready:
            await self.wait_ready()
        return self.gateway

    async def wait_ready(self) -> None:
        process, path = self.gateway, self.link.path
        assert process is not None, "started"

        async def connects() -> bool:
            try:
                _, writer = await asyncio.open_unix_connection(str(path))
            except OSError:
                return False
            writer.close()
            return True

        loop = asyncio.get_running_loop()
        until_s = loop.time() + READY_TIMEOUT_S
        while not await connects():
            if not process.is_running or loop.time() > until_s:
                raise RuntimeError(f"the gateway does not start:\n{process.said()}")
            await asyncio.sleep(0.01)

    async def first_start(self) -> None:
        """Start, and wait until the field broker keeps the gateway's messages while it is away, so
        that from here on nothing the feeder sends can miss it."""
        await self.start()
        log = self.field_broker.folder / "mosquitto.log"
        if not await until(lambda: b" numbered/" in log.read_bytes(), READY_TIMEOUT_S):
            assert self.gateway is not None, "started"
            raise RuntimeError(f"the gateway does not subscribe:\n{self.gateway.said()}")

    async def kill(self) -> None:
        """SIGKILL, if it runs."""
        process, self.gateway = self.gateway, None
        if process is not None:
            await process.kill()

    async def stop(self) -> bool:
        """SIGTERM; whether it went by itself."""
        process, self.gateway = self.gateway, None
        return process is None or await process.stop()

    # ------------------------------------------------------------------ looking

    async def drained(self, timeout_s: float) -> bool:
        """Whether the core says that all the feeder was promised is judged, stored and told."""
        return await self.link_drained(timeout_s, len(self.feeder.acknowledged))

    async def link_drained(self, timeout_s: float, rows: int) -> bool:
        """The same, of the first `rows` samples that were ever made durable."""
        self.link.open()

        def is_through() -> bool:
            status = self.link.status
            if not status:
                return False
            head = status["spool"]["head_offset"]
            cursors = status["spool"]["cursors"]
            behind = [row["behind_records"] for row in status["sinks"]]
            return (
                not any(behind)
                and all(row["behind_records"] == 0 and row["offset"] >= head for row in cursors)
                and head + dropped_count(status) >= rows
            )

        return await until(is_through, timeout_s)

    async def stored(self) -> Counter[tuple[str, int, float]]:
        """What the store holds. DuckDB: the gateway must be down."""
        if self.plan.store == "influxdb":
            return await self.influxd.samples()
        assert self.gateway is None, "the gateway holds the file"
        path = self.data_dir / "sinks" / "store" / "history.duckdb"
        return await asyncio.to_thread(evidence.duckdb_samples, path)

    async def records(self) -> list[evidence.JournalRecord]:
        return await evidence.journal_records(self.journal)

    async def told_within(self, timeout_s: float) -> float | None:
        """Seconds until the far subscriber has everything that is on record now; None: too late."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        wanted = evidence.newest_rows(await self.records())

        def has_all() -> bool:
            self.far.read()
            states = self.far.states
            return all(states.get(k, _NO_ROW)["gseq"] >= r.gseq for k, r in wanted.items())

        if not await until(has_all, timeout_s):
            return None
        return loop.time() - began_s


def dropped_count(status: dict[str, Any]) -> int:
    """What the status page says was given up."""
    return int(status["spool"]["dropped_count"])


_NO_ROW: dict[str, Any] = {"gseq": -1}


async def _end(server: Mosquitto | Influxd | Subscriber) -> None:
    if server.process is not None:
        await server.process.kill()
