"""F24: screens and the web process are lost and come back. What a screen shows is compared with the
journal, frame by frame.

Every `alarms` frame says up to which gseq it was made. The rows it shows must be those the journal
had after exactly that event: no row of later, none of before, none missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway.runtime.clock import now_ns
from gateway.testing.faults import checks
from gateway.testing.faults.evidence import JournalRecord
from gateway.testing.faults.process import Process
from gateway.testing.faults.rig import Plan
from gateway.testing.faults.scenario import Run

_WEB_BACK_S = 30.0
_FRAMES_MAX = 12  # of one screen before it is lost


@dataclass(eq=False)
class Screens:
    """Browsers, one after the other, each lost at a random message."""

    port: int
    rng: random.Random
    frames: list[dict[str, Any]] = field(default_factory=list)
    lost_count: int = 0

    async def watch(self) -> None:
        """Until cancelled."""
        origin = f"http://127.0.0.1:{self.port}"
        while True:
            try:
                async with connect(f"ws://127.0.0.1:{self.port}/ws", origin=origin) as socket:  # type: ignore[arg-type]
                    for _ in range(self.rng.randint(1, _FRAMES_MAX)):
                        said = json.loads(await socket.recv())
                        if said["topic"] == "alarms":
                            self.frames.append(said["data"])
                    socket.transport.abort()
                self.lost_count += 1
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(0.1)


def web_process(gateway: Process) -> int | None:
    """The pid of the gateway's own child that serves the console."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = int((entry / "stat").read_text("ascii").rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes()
        except (OSError, ValueError, UnicodeDecodeError):
            continue
        if parent == gateway.pid and b"gateway.console" in line:
            return int(entry.name)
    return None


async def lost_screens(run: Run) -> None:
    """F24."""
    async with run.rig(Plan(console=True)) as rig:
        await rig.first_start()
        gateway = rig.gateway
        assert gateway is not None, "started"
        address = f"http://127.0.0.1:{rig.console_port}/api/alarms"
        run.found.require(await _answers(address, run.limit(_WEB_BACK_S)), "no console")
        rig.feeder.start()
        began_ns = now_ns()
        screens = Screens(rig.console_port, run.rng)
        watching = asyncio.create_task(screens.watch())
        try:
            for _ in range(run.pick(1, 10)):
                await asyncio.sleep(3.0)
                pid = web_process(gateway)
                if run.found.require(pid is not None, "the web process did not come back"):
                    assert pid is not None, "required"
                    os.kill(pid, signal.SIGKILL)
                back = await _answers(address, run.limit(_WEB_BACK_S))
                run.found.require(back, "the console did not come back")
            await asyncio.sleep(2.0)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await asyncio.sleep(1.0)
        checks.check_latency(run, rig, began_ns, now_ns() - 10**9)
        await rig.feeder.stop()
        run.found.require(await rig.drained(run.limit(checks.DRAIN_S)), "not everything drained")
        records = await checks.check_journal(run, rig)
        last = json.loads(await asyncio.to_thread(_get, address))
    wrong = [fault for frame in [*screens.frames, last] for fault in frame_faults(frame, records)]
    run.found.none_of(wrong[:3], "screen")
    run.found.require(len(screens.frames) >= 5, f"only {len(screens.frames)} frames seen")
    run.found.figure(
        f"{len(screens.frames)} frames over {screens.lost_count} lost screens, {len(wrong)} unlike "
        "the journal"
    )


def frame_faults(frame: dict[str, Any], records: Sequence[JournalRecord]) -> list[str]:
    """Where it differs from the journal up to its gseq."""
    wanted = {}
    for record in records:
        if record.gseq > frame["gseq"]:
            break
        wanted[record.alarm_key] = record
    standing = {k: r.seq for k, r in wanted.items() if r.state != "NORM"}
    shown = {row["key"]: row["seq"] for row in frame["alarms"]}
    return (
        [] if shown == standing else [f"gseq {frame['gseq']}: {shown} shown, {standing} recorded"]
    )


async def _answers(url: str, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while loop.time() < until_s:
        try:
            await asyncio.to_thread(_get, url)
        except (urllib.error.URLError, OSError):
            await asyncio.sleep(0.1)
        else:
            return True
    return False


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  loopback
        data: bytes = answer.read()
        return data
