"""kill -9 at random moments while every simulator runs: what a device saw acknowledged is in the
store afterwards, once.

The checker looks at outside evidence only: what the simulators saw over the real protocols, and the
rows of the store. `KILLS=100 make kill` for the long form; the seed is printed and can be set.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gateway.contract.simulator import SentSample
from gateway.model.alarm import Transition
from gateway.runtime.checking import load_site
from gateway.runtime.core import open_core
from gateway.runtime.demo import free_port
from gateway.runtime.plugins import load_plugins
from gateway.runtime.simulating import build_simulator, read_scenario, stop_simulator
from gateway.testing.servers import Mosquitto, mosquitto_server, until

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "20261122"))
SPOOL_COUNT_MIN = 100  # fewer samples than this would prove nothing

SITE = """
packs = ["coal-gas-2016", "system-health"]
[site]
tenant = "t"
id = "s"
name = {{ en = "kill test" }}
data_dir = "data"
[console]
enabled = false
[history]
sink = "store"
[[adapter]]
name = "mine"
kind = "mine_files"
folder = "inbox"
poll_interval_s = 0.05
[[adapter]]
name = "fleet"
kind = "jt808"
host = "127.0.0.1"
port = {jt808}
[[adapter]]
name = "dam"
kind = "mqtt_json"
host = "127.0.0.1"
port = {mqtt}
profile = "tailings-generic"
[[sink]]
name = "store"
kind = "duckdb"
"""


class RecordingLedger:
    """Every sample a device was told is safe."""

    def __init__(self) -> None:
        self.sent_count = 0
        self.promised: list[SentSample] = []

    def sent(self, samples) -> None:
        self.sent_count += len(samples)

    def acknowledged(self, samples) -> None:
        self.promised.extend(samples)


async def subscribe_once(site: Path, broker: Mosquitto) -> None:
    """A broker keeps nothing for a subscriber it has never seen: be seen, then die."""
    log = broker.folder / "mosquitto.log"
    run = asyncio.create_task(run_until_killed(site, 30.0))
    try:
        await until(lambda: b"tailings/" in log.read_bytes(), 30.0)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def run_until_killed(site: Path, after_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "run", "-c", str(site),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await asyncio.wait_for(process.wait(), after_s)
        _, errors = await process.communicate()
        pytest.fail(f"the gateway ended by itself:\n{errors.decode()}")
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.communicate()


def check_journal(events) -> None:
    """The evidence of the alarms: nothing missing, nothing twice, in order, for every key."""
    assert [event.alarm.gseq for event in events] == list(range(1, len(events) + 1))
    last: dict[str, tuple[int, bool]] = {}
    for event in events:
        key, seq = event.alarm.alarm_key, event.alarm.seq
        before, was_active = last.get(key, (0, False))
        assert seq == before + 1, f"{key}: {seq} after {before}"
        if event.transition is Transition.ACTIVATED:
            assert not was_active, f"{key} was raised twice"
        last[key] = (seq, event.alarm.active)


async def read_store(site: Path) -> Counter[tuple[str, int, str]]:
    """Start once more without adapters, let the spool drain, and read everything back."""
    plugins = load_plugins()
    config = load_site(site, plugins).model_copy(update={"adapters": ()})
    async with open_core(config, plugins) as core:
        core.start()
        assert await core.settle(timeout_s=60), "the spool did not drain"
        assert core.journal.verify().ok, "the chain of the journal is broken"
        check_journal(core.journal.read(0, 100_000))
        ids = [point.id for point in core.points]
        rows = await core.history.read(ids, 0, 2**62, rows_max=5_000_000)
        return Counter(
            (core.points[int(p)].id, int(t), repr(float(v)))
            for p, t, v in zip(rows.point_index, rows.source_time_ns, rows.value, strict=True)
        )


def missing(promised: list[SentSample], stored: Counter) -> list[SentSample]:
    """Promised samples that are not in the store. A time of 0 means any (the protocol carries
    none), an infinite value any (the gateway's own index of an area)."""
    by_point: Counter[str] = Counter()
    by_time: set[tuple[str, int]] = set()
    for point, time_ns, _ in stored:
        by_point[point] += 1
        by_time.add((point, time_ns))
    lost = []
    for sample in promised:
        point, time_ns, value = sample
        if time_ns == 0:
            found = by_point[point] > 0
        elif math.isinf(value):
            found = (point, time_ns) in by_time
        else:
            found = (point, time_ns, repr(float(value))) in stored
        if not found:
            lost.append(sample)
    return lost


@pytest.mark.system
@pytest.mark.slow
async def test_what_a_device_saw_acknowledged_is_in_the_store_once(tmp_path) -> None:
    print(f"\nkill -9 x {KILLS}, SEED={SEED}")
    rng = random.Random(SEED)
    plugins, ledger = load_plugins(), RecordingLedger()
    (tmp_path / "inbox").mkdir()
    with mosquitto_server(tmp_path) as broker:
        mqtt_port, jt808_port = broker.port, free_port()
        site = tmp_path / "site.toml"
        site.write_text(SITE.format(jt808=jt808_port, mqtt=mqtt_port), encoding="utf-8")
        targets = {
            "jt808": f"127.0.0.1:{jt808_port}",
            "mine_files": str(tmp_path / "inbox"),
            "mqtt_json": f"127.0.0.1:{mqtt_port}",
        }
        await subscribe_once(site, broker)
        running = []
        for name, target in targets.items():
            simulator = build_simulator(
                plugins.simulators[name],
                name=name, target=target, settings=read_scenario(f"demo-{name}"),
                seed=SEED, ledger=ledger, log=lambda _line: None,
            )  # fmt: skip
            running.append((simulator, asyncio.create_task(simulator.run())))
        try:
            for _ in range(KILLS):
                await run_until_killed(site, rng.uniform(0.9, 2.5))
            # One calm run, so that the devices can hand over what they still hold.
            calm = asyncio.create_task(run_until_killed(site, 20.0))
            for simulator, task in running:
                await stop_simulator(simulator, task)
            calm.cancel()
            await asyncio.gather(calm, return_exceptions=True)
        finally:
            for _, task in running:
                task.cancel()
    stored = await read_store(site)
    lost = missing(ledger.promised, stored)
    repeated = [key for key, count in stored.items() if count > 1]
    print(
        f"sent {ledger.sent_count}, promised {len(ledger.promised)}, "
        f"stored {int(np.sum(list(stored.values())))}, lost {len(lost)}, repeated {len(repeated)}"
    )
    assert len(ledger.promised) > SPOOL_COUNT_MIN
    assert not lost, f"SEED={SEED}: {lost[:5]}"
    assert not repeated, f"SEED={SEED}: {repeated[:5]}"
