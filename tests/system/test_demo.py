"""The first thing a newcomer runs: everything at once, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from gateway.cli import EXIT_OK

DURATION_S = 25


@pytest.mark.system
@pytest.mark.slow
async def test_the_demo_raises_every_promised_alarm_and_loses_nothing(tmp_path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "demo", "--duration", str(DURATION_S), "--json",
        "--data-dir", str(tmp_path), "--port", "0", "--mqtt-port", "0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == EXIT_OK, errors.decode()
    assert "Console   http://127.0.0.1:" in errors.decode()
    lines = out.decode().splitlines()
    assert len(lines) == 1, "data on stdout is exactly one JSON line"
    counts = json.loads(lines[0])
    assert counts["lost"] == 0
    assert (
        counts["samples_sent"]
        == counts["samples_durable"]
        == counts["samples_judged"]
        == counts["samples_stored"]
        > 0
    )
    assert counts["spool_depth"] == 0
    assert counts["events_told"] == counts["events_journalled"] > 0
    assert {"limit", "count", "offline"} <= set(counts["alarms_raised"])
