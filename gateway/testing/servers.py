"""Real servers for tests: a mosquitto broker on a free loopback port and a mosquitto_sub that
listens to it, each ended by its own pid.

Tests that need it are skipped, loudly, where it is not installed; on a build machine (environment
variable CI=true) its absence fails them, so that a green run there means they ran. Not here: the
stores (gateway/testing/stores.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

_START_TIMEOUT_S = 10.0
_POLL_S = 0.02


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_program(name: str) -> str:
    """The path of an installed program. Skips the test where it is absent; fails it in CI."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        message = f"{name} is not installed: this test ran nothing"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@dataclass
class Mosquitto:
    """A running broker that keeps sessions and retained messages in `folder` over restarts."""

    folder: Path
    port: int
    extra: str = ""  # further lines of mosquitto.conf
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        program = require_program("mosquitto")
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        # Started by root, mosquitto would go on as a user who may not enter a test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"listener {self.port} 127.0.0.1\n{self.extra}\n{user}"
            f"{'' if 'allow_anonymous' in self.extra else 'allow_anonymous true'}\n"
            f"persistence true\npersistence_location {self.folder}/\n"
            "set_tcp_nodelay true\nmax_queued_messages 0\nlog_type error\nlog_type warning\n"
            "log_type notice\nlog_type subscribe\n"
            f"{'' if 'max_inflight_messages' in self.extra else 'max_inflight_messages 1000'}\n",
            encoding="utf-8",
        )
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  a fixed program and our own file
                [program, "-c", str(config)], stdout=log, stderr=log
            )
        self._wait_listening()

    def stop(self, *, kill: bool = False) -> None:
        """End the broker; `kill` gives it no time to save."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a test may have frozen it
        process.wait(timeout=10)

    def _wait_listening(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            process = self._process
            if process is None or process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(_POLL_S)
            else:
                return
        log = (self.folder / "mosquitto.log").read_text(encoding="utf-8", errors="replace")
        self.stop(kill=True)
        pytest.fail(f"mosquitto did not start:\n{log[-2000:]}")


@contextmanager
def mosquitto_server(folder: Path, extra: str = "") -> Iterator[Mosquitto]:
    """A broker that a test may stop and start again; ends with the test."""
    broker = Mosquitto(folder / "mosquitto", free_port(), extra)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def mosquitto(folder: Path, extra: str = "") -> Iterator[int]:
    """A broker on a free loopback port, which it yields."""
    with mosquitto_server(folder, extra) as broker:
        yield broker.port


async def until(reached: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something another process does. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110  the other process has no event to wait for
            await asyncio.sleep(_POLL_S)


class Heard(NamedTuple):
    """One message as mosquitto_sub saw it."""

    topic: str
    payload: str
    qos: int
    retained: bool


@dataclass
class Listener:
    """A running mosquitto_sub."""

    _output: Path
    _probe: str

    @property
    def heard(self) -> list[Heard]:
        """What came so far, in order."""
        found = []
        for line in self._output.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                payload = row.get("payload", "")
                found.append(Heard(row["topic"], payload, row["qos"], bool(row["retain"])))
        return [message for message in found if message.topic != self._probe]

    def on(self, ending: str) -> list[Heard]:
        """Those whose topic ends so."""
        return [message for message in self.heard if message.topic.endswith(ending)]


@contextmanager
def mosquitto_sub(port: int, folder: Path, *filters: str) -> Iterator[Listener]:
    """Listen with a real client at QoS 1; yields when it is subscribed."""
    program, publish = require_program("mosquitto_sub"), require_program("mosquitto_pub")
    probe = f"probe/{uuid.uuid4().hex}"
    here = ["-h", "127.0.0.1", "-p", str(port)]
    subprocess.run([publish, *here, "-t", probe, "-m", "here", "-r", "-q", "1"], check=True)  # noqa: S603
    topics = [part for topic in (*filters, probe) for part in ("-t", topic)]
    output = folder / f"{probe[6:]}.jsonl"
    with output.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  a fixed program
            [program, *here, "-q", "1", "-F", "%j", *topics], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while b"here" not in output.read_bytes():
            if time.monotonic() > deadline_s or process.poll() is not None:
                pytest.fail(f"mosquitto_sub: {output.read_text(encoding='utf-8')}")
            time.sleep(_POLL_S)
        yield Listener(output, probe)
    finally:
        process.terminate()
        process.wait(timeout=10)
