"""The gateway of the proof: a process of its own, looked at from outside.

What is asked of it goes through the link that its console uses: how far each sink is behind, and
what the status says. Memory is the kernel's word.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Self

import psutil

from gateway.api.client import LinkClient
from gateway.api.wire import Status
from gateway.testing.servers import Mosquitto, until

READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 600.0
_END_TIMEOUT_S = 60.0
_LOOK_INTERVAL_S = 0.5


class Gateway:
    """`hazard-gateway run` in a process of its own, looked at from outside."""

    def __init__(self, path: Path, folder: Path, onsite: Mosquitto) -> None:
        self.onsite = onsite
        self.peak_mb = 0.0
        self.shares: list[str] = []
        self._path = path
        self._log = folder / "gateway.log"
        self._link = folder / "data" / "core.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._behind: dict[str, int] = {}
        self._looked = asyncio.Event()

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.cli", "run", "-c", str(self._path),
                stdout=log, stderr=log,
            )  # fmt: skip
        said = self.onsite.folder / "mosquitto.log"
        try:
            # A broker keeps nothing for a subscriber it has never seen.
            await until(
                lambda: b"tailings/" in said.read_bytes() and b"probe/" in said.read_bytes(),
                READY_TIMEOUT_S,
            )
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def rss_mb(self) -> float:
        assert self._process is not None, "the gateway is not running"
        return round(psutil.Process(self._process.pid).memory_info().rss / 1e6, 1)

    async def look(self) -> None:
        """Watch memory, and what the status page says, until cancelled."""
        client = LinkClient(self._link)
        session = asyncio.create_task(client.run())
        try:
            while True:
                await asyncio.sleep(_LOOK_INTERVAL_S)
                assert self._process is not None, "looked at after its end"
                assert self._process.returncode is None, "the gateway ended by itself"
                self.peak_mb = max(self.peak_mb, self.rss_mb())
                body = client.newest.get("status")
                if body is None:
                    continue
                status = Status.model_validate_json(body)
                client.newest.pop("status", None)
                self._behind = {row.name: row.behind_records for row in status.sinks}
                self._looked.set()
                said = {row.name: row.detail for row in status.sinks}.get("store", "")
                if "backlog" in said and said not in self.shares[-1:]:
                    self.shares.append(said)
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def until_caught_up(self, *, within_rows: int) -> None:
        """No sink is further behind. Raises TimeoutError."""
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            for _ in range(2):  # the first look may be from before
                await self._look_again()
            while not self._behind or max(self._behind.values()) > within_rows:
                await self._look_again()

    async def _look_again(self) -> None:
        self._looked.clear()
        await self._looked.wait()
