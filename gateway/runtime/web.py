"""The web process, started and watched from here. The core runs without it.

It is started as `python -m gateway.console`, told where the core's socket is, and started again
with back-off when it ends: a console that crashes costs nobody an alarm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.contract.adapter import LinkStatus
from gateway.model.errors import Unavailable

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
START_TIMEOUT_S = 30.0


@dataclass
class WebProcess:
    """One console. `run` is a component for the supervisor."""

    link_path: Path
    host: str
    port: int
    status: LinkStatus
    options: Sequence[str] = ()  # further arguments of `python -m gateway.console`
    url: asyncio.Future[str] = field(default_factory=asyncio.Future)

    async def run(self) -> None:
        """Start it, wait until it ends, and say so. Raises Unavailable to be started again."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.console",
            *("--link", str(self.link_path), "--host", self.host, "--port", str(self.port)),
            *("--parent", str(os.getpid())),
            *self.options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; the child is told by us
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._read_address(process)
            self.status("listening", self.url.result())
            code = await process.wait()
            raise Unavailable(f"the web process ended with code {code}")
        except TimeoutError as error:
            raise Unavailable("the web process does not start") from error
        finally:
            await _stop(process)

    async def _read_address(self, process: asyncio.subprocess.Process) -> None:
        """The child prints its address once it listens."""
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode().strip()
        if not line:
            raise Unavailable(f"the console could not listen on {self.host}:{self.port}")
        if not self.url.done():
            self.url.set_result(line)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
