"""Real time-series servers for tests: on free loopback ports, in folders of their own, ended by
their own process id.

    with influxd(tmp_path) as url: …            InfluxDB 1.x
    with victoria_metrics(tmp_path) as url: …   answers influxdb-client's v2 write

Where the program is not installed the test is skipped, loudly; with CI=true it fails. Not here: the
broker (servers.py).
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from gateway.testing.servers import free_port, require_program

_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 10.0
POLL_S = 0.05

_INFLUXD_CONFIG = """
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
  auth-enabled = {auth}
[subscriber]
  enabled = false
[logging]
  level = "warn"
"""


@dataclass
class Influxd:
    """An InfluxDB 1.x server that a test may stop and start again; its data stays in `folder`."""

    folder: Path
    port: int
    auth: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        program = require_program("influxd")
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "influxdb.conf"
        text = _INFLUXD_CONFIG.format(
            folder=self.folder,
            port=self.port,
            backup_port=free_port(),
            auth=str(self.auth).lower(),
        )
        config.write_text(text, encoding="utf-8")
        self._process = _start([program, "run", "-config", str(config)], self.folder)
        _wait_ready(self._process, self.url + "/ping", self.folder / "log")

    def stop(self, *, kill: bool = False) -> None:
        """End it; `kill` gives it no time to save."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        _end(process)


@contextmanager
def influxd_server(tmp_path: Path, *, auth: bool = False) -> Iterator[Influxd]:
    """An empty server, running; ends with the test."""
    server = Influxd(tmp_path / "influxd", free_port(), auth)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def influxd(tmp_path: Path, *, auth: bool = False) -> Iterator[str]:
    """The URL of an empty InfluxDB 1.x server without databases."""
    with influxd_server(tmp_path, auth=auth) as server:
        yield server.url


@contextmanager
def victoria_metrics(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty VictoriaMetrics that keeps samples however old they are."""
    program = require_program("victoria-metrics")
    folder = tmp_path / "victoria-metrics"
    folder.mkdir()
    port = free_port()
    command = [
        program,
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-loggerLevel=ERROR",
        "-memory.allowedBytes=64MB",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder, url + "/health"):
        yield url


def create_database(url: str, name: str) -> str:
    """An InfluxDB 1.x database; returns its name."""
    body = urlencode({"q": f'CREATE DATABASE "{name}"'}).encode()
    with urllib.request.urlopen(url + "/query", body, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.status == 200, f"CREATE DATABASE answered {answer.status}"
    return name


@contextmanager
def _running(command: Sequence[str], folder: Path, ready_url: str) -> Iterator[None]:
    process = _start(command, folder)
    try:
        _wait_ready(process, ready_url, folder / "log")
        yield
    finally:
        _end(process)


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)  # noqa: S603


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_TIMEOUT_S)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=1),  # noqa: S310 - loopback
        ):
            return
        time.sleep(POLL_S)
    text = log.read_text(errors="replace")[-2000:]
    raise AssertionError(f"{process.args!r} did not answer at {url}:\n{text}")
