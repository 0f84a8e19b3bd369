"""The other two wires: the shipped simulators of vehicle terminals and of a mine's files.

What they count as acknowledged is the gateway's own word (the terminal's general reply, the file
taken away), so a kill -9 between that word and the disk would show here.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.contract.simulator import SentSample, Simulator
from gateway.runtime.plugins import Plugins
from gateway.runtime.simulating import build_simulator, read_scenario, stop_simulator
from gateway.testing.faults.servers import free_port

PACKS = 'packs = ["coal-gas-2016"]\n'


@dataclass(eq=False)
class Ledger:
    """Every sample a device was told is safe."""

    sent_count: int = 0
    promised: list[SentSample] = field(default_factory=list)

    def sent(self, samples: Sequence[SentSample]) -> None:
        self.sent_count += len(samples)

    def acknowledged(self, samples: Sequence[SentSample]) -> None:
        self.promised.extend(samples)


@dataclass(eq=False)
class Wires:
    """A fleet and a mine."""

    folder: Path
    plugins: Plugins
    seed: int
    ledger: Ledger = field(default_factory=Ledger)
    jt808_port: int = field(default_factory=free_port)
    _running: list[tuple[Simulator, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    @property
    def adapters(self) -> str:
        """For the site file."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        return (
            f'[[adapter]]\nname = "mine"\nkind = "mine_files"\nfolder = "{self.inbox}"\n'
            "poll_interval_s = 0.05\n"
            f'[[adapter]]\nname = "fleet"\nkind = "jt808"\nhost = "127.0.0.1"\n'
            f"port = {self.jt808_port}\n"
        )

    def start(self) -> None:
        targets = {"jt808": f"127.0.0.1:{self.jt808_port}", "mine_files": str(self.inbox)}
        for name, target in targets.items():
            settings = read_scenario(f"demo-{name}")
            if name == "jt808":
                settings |= {"reconnect_interval_s": 0.1, "reply_timeout_s": 2.0}
            simulator = build_simulator(
                self.plugins.simulators[name],
                name=name, target=target, settings=settings, seed=self.seed,
                ledger=self.ledger, log=_nothing,
            )  # fmt: skip
            self._running.append((simulator, asyncio.create_task(simulator.run())))

    async def stop(self) -> None:
        """Let them hand over what they hold; the gateway must be up."""
        running, self._running = self._running, []
        await asyncio.gather(*(stop_simulator(simulator, task) for simulator, task in running))

    async def cancel(self) -> None:
        for _, task in self._running:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._running), return_exceptions=True)

    def lost(self, held: Counter[tuple[str, int, float]]) -> list[SentSample]:
        """Promised and not held. A time of 0 means any (the protocol carries none), an infinite
        value any (the gateway's own index of an area)."""
        points = {point for point, _, _ in held}
        times = {(point, time_ns) for point, time_ns, _ in held}
        return [
            sample
            for sample in self.ledger.promised
            if not (
                sample.point in points
                if sample.source_time_ns == 0
                else (sample.point, sample.source_time_ns) in times
                if not math.isfinite(sample.value)
                else (sample.point, sample.source_time_ns, float(sample.value)) in held
            )
        ]


def _nothing(_line: str) -> None:
    """Simulators report every lost connection; here they are the point."""
