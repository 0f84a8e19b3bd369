"""Servers a scenario may kill, freeze, restart and empty: mosquitto, InfluxDB 1.x, a listener.

A port is chosen once and kept over restarts, because the gateway's configuration names it. Unlike
gateway/testing/servers.py nothing here knows pytest: these run from the command line.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.testing.faults.process import Missing, Process, start, until

HOST = "127.0.0.1"
_START_TIMEOUT_S = 30.0
_HTTP_TIMEOUT_S = 30.0

_MOSQUITTO = """
listener {port} {host}
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 1000
log_type error
log_type warning
log_type notice
log_type information
log_type subscribe
{user}
"""

_INFLUXD = """
reporting-disabled = true
bind-address = "127.0.0.1:{backup_port}"
[meta]
  dir = "{folder}/meta"
  logging-enabled = false
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[subscriber]
  enabled = false
[logging]
  level = "warn"
"""


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def program(name: str) -> str:
    """Its path. Raises Missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


@dataclass(eq=False)
class Mosquitto:
    """A broker that keeps sessions and retained messages in `folder`. `prefix` is put before the
    command: `ip netns exec …`."""

    folder: Path
    host: str = HOST
    port: int = field(default_factory=free_port)
    prefix: tuple[str, ...] = ()
    process: Process | None = None

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Started by root, mosquitto would go on as a user who may not enter our folder.
        user = "user root" if os.geteuid() == 0 else ""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            _MOSQUITTO.format(port=self.port, host=self.host, folder=self.folder, user=user),
            encoding="utf-8",
        )
        log = self.folder / "mosquitto.log"
        before = _size(log)
        command = [*self.prefix, program("mosquitto"), "-c", str(config)]
        self.process = process = start(command, log)

        def is_up() -> bool:
            return b" running" in log.read_bytes()[before:] or not process.is_running

        if not await until(is_up, _START_TIMEOUT_S) or not process.is_running:
            raise RuntimeError(f"mosquitto does not start: {process.said()}")

    async def kill(self) -> None:
        """SIGKILL: what it had not saved is gone."""
        if self.process is not None:
            await self.process.kill()

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.stop()

    def empty(self) -> None:
        """Forget everything; to be called while it is down."""
        (self.folder / "mosquitto.db").unlink(missing_ok=True)


@dataclass(eq=False)
class Influxd:
    """An InfluxDB 1.x with one database, `samples`."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: Process | None = None
    database: str = "samples"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self, *, create: bool = True) -> None:
        """With its database, unless somebody is to make that later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "influxdb.conf"
        config.write_text(
            _INFLUXD.format(folder=self.folder, port=self.port, backup_port=free_port()),
            encoding="utf-8",
        )
        self.process = process = start(
            [program("influxd"), "run", "-config", str(config)], self.folder / "influxd.log"
        )
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _START_TIMEOUT_S
        while not await asyncio.to_thread(_answers, self.url + "/ping"):
            if loop.time() > until_s or not process.is_running:
                raise RuntimeError(f"influxd does not start: {process.said()}")
            await asyncio.sleep(0.1)
        if create:
            await self.create()

    async def create(self) -> None:
        await self.query(f'CREATE DATABASE "{self.database}"')

    async def kill(self) -> None:
        if self.process is not None:
            await self.process.kill()

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.stop()

    def empty(self) -> None:
        """Forget everything; to be called while it is down."""
        for name in ("meta", "data", "wal"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    async def query(self, text: str) -> list[dict[str, Any]]:
        """The series of one InfluxQL query, by the server's own HTTP."""
        body = urllib.parse.urlencode({"q": text, "db": self.database, "epoch": "ns"}).encode()
        answer = await asyncio.to_thread(_post, self.url + "/query", body)
        series: list[dict[str, Any]] = json.loads(answer)["results"][0].get("series", [])
        return series

    async def samples(self) -> Counter[tuple[str, int, float]]:
        """What it holds: point, time, value."""
        held: Counter[tuple[str, int, float]] = Counter()
        everything = 'SELECT "value", "quality" FROM "sample" GROUP BY "point", "dup"'
        for series in await self.query(everything):
            point = series["tags"]["point"]
            held.update(
                (point, int(t), math.nan if v is None else float(v)) for t, v, _ in series["values"]
            )
        return held


@dataclass(eq=False)
class Subscriber:
    """A real mosquitto_sub with a session of its own: what an outside reader of the topics has."""

    port: int
    output: Path
    host: str = HOST
    topics: tuple[str, ...] = ("hazard/#",)
    prefix: tuple[str, ...] = ()
    states: dict[str, dict[str, Any]] = field(default_factory=dict)  # alarm key -> newest row
    events: dict[int, dict[str, Any]] = field(default_factory=dict)  # gseq -> event
    heard_ns: dict[int, int] = field(default_factory=dict)  # gseq -> first arrival
    repeat_count: int = 0
    went_back_count: int = 0  # a state topic that fell behind what it had said before
    heartbeat: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    process: Process | None = None
    _read_to: int = 0

    async def start(self) -> None:
        """Returns when the broker has its subscription."""
        topics = [part for topic in (*self.topics, "probe/#") for part in ("-t", topic)]
        self.process = start(
            [
                *(*self.prefix, program("mosquitto_sub"), "-h", self.host, "-p", str(self.port)),
                *("-q", "1", "-c", "-i", f"sub{self.output.stem}", "-k", "5"),
                *("-F", "%U %r %t %p"),
                *topics,
            ],
            self.output,
        )
        publish = [*self.prefix, program("mosquitto_pub"), "-h", self.host, "-p", str(self.port)]
        probe = [*publish, "-t", "probe/here", "-m", "here", "-r", "-q", "1"]
        ended = await asyncio.create_subprocess_exec(*probe)
        await ended.wait()
        if not await until(lambda: b"probe/here" in self.output.read_bytes(), _START_TIMEOUT_S):
            raise RuntimeError(f"mosquitto_sub does not hear: {self.process.said()}")

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.kill()

    def read(self) -> None:
        """Take in what came since the last call."""
        with self.output.open("rb") as file:
            file.seek(self._read_to)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            parts = line.split(b" ", 3)
            if len(parts) == 4 and parts[1] in {b"0", b"1"}:
                seconds, _, fraction = parts[0].partition(b".")
                arrival_ns = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, b"0")[:9] or 0)
                self._take(arrival_ns, parts[2].decode(), parts[3])

    def _take(self, arrival_ns: int, topic: str, payload: bytes) -> None:
        if topic.endswith("/state"):
            if payload:
                row = json.loads(payload)
                before = self.states.get(row["alarm_key"])
                self.went_back_count += bool(before) and row["gseq"] < before["gseq"]  # type: ignore[index]
                self.states[row["alarm_key"]] = row
        elif topic.endswith("/alarm/event"):
            event = json.loads(payload)
            self.repeat_count += event["gseq"] in self.events
            self.events.setdefault(event["gseq"], event)
            self.heard_ns.setdefault(event["gseq"], arrival_ns)
        elif topic.endswith("/heartbeat"):
            self.heartbeat = json.loads(payload)
        elif topic.endswith("/gateway/status"):
            self.status = json.loads(payload)

    def missing(self, wanted: Iterable[int]) -> list[int]:
        """Which of these events were never heard."""
        return [gseq for gseq in wanted if gseq not in self.events]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310  loopback
            return True
    except (urllib.error.URLError, OSError):
        return False


def _post(url: str, body: bytes) -> bytes:
    with urllib.request.urlopen(url, body, timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310
        data: bytes = answer.read()
        return data
