"""Processes we start, hurt and end, each by its own pidfd: never by name, never a stranger's.

    Nursery     a process that has imported the gateway once and forks a child for every start: the
                child runs `hazard-gateway run` as it is, minus some 1.5 s of importing. kill -9
                does not know the difference; 500 cycles do
    cold_start  the program from its beginning, as a service manager would

Both set PR_SET_PDEATHSIG: when the checker dies, however it dies, so does what it started.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_S = 0.02
_END_TIMEOUT_S = 20.0
_NURSERY_TIMEOUT_S = 60.0
_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Missing(Exception):
    """Something this machine lacks: the scenario is skipped with this as its reason."""


def die_with_parent() -> None:
    """To be run in the child."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@dataclass(eq=False)
class Process:
    """One running process."""

    pid: int
    log: Path
    _popen: subprocess.Popen[bytes] | None = None
    _fd: int = field(init=False)

    def __post_init__(self) -> None:
        self._fd = os.pidfd_open(self.pid)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if self._fd >= 0 and self.is_running:
            signal.pidfd_send_signal(self._fd, number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._fd >= 0 and not select.select([self._fd], [], [], 0)[0]

    async def ended(self, timeout_s: float = _END_TIMEOUT_S) -> bool:
        """Whether it ended in time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while self.is_running:
            if loop.time() > until_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()
        self._close()

    async def stop(self, timeout_s: float = _END_TIMEOUT_S) -> bool:
        """SIGTERM; kill -9 for what does not go. Whether it went by itself."""
        self.send(signal.SIGTERM)
        self.resume()
        went = await self.ended(timeout_s)
        await self.kill()
        return went

    def _close(self) -> None:
        if self._popen is not None:
            self._popen.wait(_END_TIMEOUT_S)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def rss_bytes(self) -> int:
        """0 when it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    @property
    def fd_count(self) -> int:
        try:
            return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        except OSError:
            return 0

    @property
    def cpu_s(self) -> float:
        """User and system time so far."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def said(self, size: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", errors="replace")[-size:] if self.log.exists() else ""


def start(command: Sequence[str], log: Path, *, cwd: Path | None = None) -> Process:
    """Any program, its output appended to `log`."""
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            preexec_fn=die_with_parent,  # noqa: PLW1509  the child does nothing else before exec
        )
    return Process(popen.pid, log, popen)


def cold_start(site: Path, log: Path) -> Process:
    """`hazard-gateway run -c site.toml`."""
    return start([sys.executable, "-m", "gateway.cli", "run", "-c", str(site)], log)


@dataclass(eq=False)
class Nursery:
    """Forks gateways. Start it before the first use; ends with `close`."""

    folder: Path
    _process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Start it; it imports in the background."""
        if self._process is not None:
            return
        with (self.folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.testing.faults.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    async def start(self, site: Path, log: Path) -> Process:
        """A new `hazard-gateway run`."""
        self.open()
        order = {"site": str(site), "log": str(log)}
        pid = await asyncio.wait_for(
            asyncio.to_thread(self._ask, json.dumps(order)), _NURSERY_TIMEOUT_S
        )
        return Process(pid, log)

    def _ask(self, order: str) -> int:
        process = self._process
        assert process is not None, "opened"
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        process.stdin.write(order + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer.strip():
            raise RuntimeError(f"the nursery ended: see {self.folder / 'nursery.log'}")
        return int(answer)

    def close(self) -> None:
        """Its children go with it."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None, "a pipe"
            pipe.close()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_TIMEOUT_S)


async def until(reached: Any, timeout_s: float) -> bool:
    """Whether `reached()` came true in time."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while not reached():
        if loop.time() > until_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
