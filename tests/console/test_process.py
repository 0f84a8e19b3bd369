"""The web process as the core starts it: its address, its silence, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.api.server import LinkServer
from gateway.console import serve
from gateway.testing.core import FakeCore

pytestmark = [pytest.mark.system, pytest.mark.slow]
WAIT_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def link_path():
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        yield Path(folder) / "core.sock"


@asynccontextmanager
async def web(link_path: Path, *options: str):
    """A started web process and the address it told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.console", "--link", str(link_path), *options,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WAIT_S):
            line = await process.stdout.readline()
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_tells_a_free_port_serves_without_a_core_finds_it_later_and_ends_politely(
    link_path,
):
    async with web(link_path) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.get("/api/status")).status_code == 503
            async with LinkServer(link_path, FakeCore()), asyncio.timeout(WAIT_S):
                while (await client.get("/api/status")).status_code != 200:
                    await asyncio.sleep(0.05)
            assert (await client.get("/")).status_code == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            rest, log = await process.communicate()
        assert rest == b""  # standard output held one line: the address
        assert b"console at http" in log
        assert process.returncode in (0, -signal.SIGTERM)


async def test_a_port_in_use_is_said_in_one_line_and_ends_it(link_path):
    taken = serve.listen("127.0.0.1", 0)
    taken.listen()
    port = str(taken.getsockname()[1])
    async with web(link_path, "--port", port) as (process, line):
        assert line == ""
        _, log = await process.communicate()
        assert process.returncode == 1
        assert "in use" in log.decode()
    taken.close()


async def test_it_ends_with_the_process_that_started_it(link_path):
    # A parent of its own, which starts the console and is then killed without a word.
    script = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'gateway.console', '--link', {str(link_path)!r}],"
        " stdout=subprocess.PIPE)\n"
        "print(p.pid, p.stdout.readline().decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_S):
        child = int((await parent.stdout.readline()).split()[0])
        parent.kill()
        await parent.wait()
        while _runs(child):
            await asyncio.sleep(0.05)


async def test_started_by_a_process_that_is_gone_already_it_never_takes_the_port(link_path):
    """The core may be killed while the console still imports; it asks who its parent is too late
    then, and would hold the port of the next one for ever."""
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    async with web(link_path, "--parent", str(gone.pid)) as (process, line):
        assert line == ""
        _, log = await process.communicate()
        assert process.returncode == 0
        assert "the parent process is gone" in log.decode()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


ADDRESSES = [
    ("127.0.0.1", "http://127.0.0.1:"),
    ("0.0.0.0", "http://127.0.0.1:"),
    ("::1", "http://[::1]:"),
    ("::", "http://[::1]:"),
]


@pytest.mark.parametrize(("host", "start"), ADDRESSES)
def test_the_told_address_is_one_a_browser_can_open(host, start):
    with serve.listen("127.0.0.1", 0) as listening:
        assert serve.url_of(host, listening).startswith(start)
