"""`hazard-gateway run`: the core, the link and the web process, until SIGTERM or SIGINT. SIGHUP has
the rules read again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.api.server import LinkServer
from gateway.config import SiteConfig
from gateway.model.alarm import AlarmEvent
from gateway.model.rule import Priority
from gateway.runtime.checking import load_site
from gateway.runtime.collector import prepare_collector, settle_collector
from gateway.runtime.core import Core, open_core
from gateway.runtime.descriptors import raise_descriptor_limit
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.provider import CoreView
from gateway.runtime.reloading import reload_when
from gateway.runtime.supervisor import Backoff, Supervisor
from gateway.runtime.threads import prepare_threads
from gateway.runtime.web import WebProcess

log = logging.getLogger(__name__)

LOGGED_MAX = 20
"""Alarms of one recording that have a line each: what a screen of a terminal holds."""

SOCKET_PATH_MAX = 104


@dataclass(frozen=True)
class Service:
    """A running gateway with its console."""

    core: Core
    web: WebProcess | None


@contextlib.asynccontextmanager
async def serve(
    config: SiteConfig, plugins: Plugins, *, web_log_level: str = "WARNING"
) -> AsyncIterator[Service]:
    """Everything `run` starts; the body runs while it serves."""
    async with open_core(config, plugins) as core:
        link_path = socket_path(config.data_dir)
        async with LinkServer(link_path, CoreView(core)):
            core.start()
            if not config.console.enabled:
                yield Service(core, None)
                return
            web = WebProcess(
                link_path,
                config.console.host,
                config.console.port,
                core.status("console"),
                [*_console_options(config), "--log-level", web_log_level],
            )
            task = asyncio.create_task(_watch(core, web), name="web")
            try:
                yield Service(core, web)
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def _console_options(config: SiteConfig) -> list[str]:
    language = {"zh": "zh_CN"}.get(config.site.language, config.site.language)
    return ["--language", language, "--time-zone", config.site.time_zone]


async def _watch(core: Core, web: WebProcess) -> None:
    supervisor = Supervisor(
        "console",
        core.counters.component("console"),
        core.status("console"),
        Backoff(random.Random("console")),  # noqa: S311  jitter, not a secret
    )
    await supervisor.run(web.run)


def socket_path(data_dir: Path) -> Path:
    """Beside the data; in a temporary folder where that would be longer than a socket's address
    may be (108 bytes on Linux, unix(7))."""
    beside = data_dir / "core.sock"
    if len(str(beside).encode()) < SOCKET_PATH_MAX:
        return beside
    return Path(tempfile.mkdtemp(prefix="hazard-gateway-")) / "core.sock"


def run_service(path: Path) -> int:
    """Raises ConfigError with every fault of the site file. Returns 1 when the disk failed and only
    a new start can help: the service manager starts it again."""
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    raise_descriptor_limit()
    prepare_collector()
    plugins = load_plugins()
    config = load_site(path, plugins)
    return asyncio.run(_run(config, plugins, path, early))


async def _run(config: SiteConfig, plugins: Plugins, path: Path, early: Sequence[int]) -> int:
    """`early`: SIGHUPs since before the file was read."""
    stop, reload = asyncio.Event(), asyncio.Event()
    prepare_threads()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    if early:
        reload.set()
    async with serve(config, plugins) as service:
        service.core.event_listeners.append(log_alarms)
        settle_collector()
        log.info("site %s: running, data in %s", config.site.id, config.data_dir)
        besides = [asyncio.create_task(reload_when(reload, service.core, path), name="reload")]
        if service.web is not None:
            besides.append(asyncio.create_task(_announce(service.web)))
        waiting = [asyncio.create_task(event.wait()) for event in (stop, service.core.failed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (*waiting, *besides):
            task.cancel()
        log.info("stopping")
        return 1 if service.core.failed.is_set() else 0


def log_alarms(events: Sequence[AlarmEvent]) -> None:
    """One line for each alarm that calls a person: the log of a box without a screen. In a flood
    the critical ones and a few more; nobody reads a thousand lines, and they cost the judge."""
    calling = [event for event in events if event.annunciate]
    left_out = 0
    for at, event in enumerate(calling):
        alarm = event.alarm
        if at >= LOGGED_MAX and alarm.priority is not Priority.CRITICAL:
            left_out += 1
            continue
        log.warning(
            "ALARM %s P%d %s %s value=%s limit=%s",
            *(event.transition.value, alarm.priority, alarm.alarm_key, alarm.level),
            *(event.value, event.limit),
        )
    if left_out:
        log.warning("ALARM ... and %d more at once: see the standing list", left_out)


async def _announce(web: WebProcess) -> None:
    log.info("console: %s", await asyncio.shield(web.url))
