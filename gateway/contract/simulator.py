"""Devices made of software: speak the real protocol from outside, over real sockets and files.

A simulator is seeded: the same seed and scenario send the same values. It keeps a ledger of what it
sent and of what was acknowledged **by the protocol's own means** (the terminal's general reply, the
file taken away, the PUBACK), in the words of the gateway's points, so that a test can compare the
store with what devices were promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel


class SentSample(NamedTuple):
    """One sample a simulator sent, as it must come out of the store."""

    point: str
    source_time_ns: int
    value: float  # NaN where the protocol carries "no value"


class Ledger(Protocol):
    """Told by the simulator; counts or records."""

    def sent(self, samples: Sequence[SentSample]) -> None:
        """Handed to the network or the folder for the first time (a resend is not sent again)."""
        ...

    def acknowledged(self, samples: Sequence[SentSample]) -> None:
        """The protocol's own acknowledgement for these arrived."""
        ...


@dataclass
class CountingLedger:
    """Counts only."""

    sent_count: int = 0
    acknowledged_count: int = 0

    def sent(self, samples: Sequence[SentSample]) -> None:
        self.sent_count += len(samples)

    def acknowledged(self, samples: Sequence[SentSample]) -> None:
        self.acknowledged_count += len(samples)


@dataclass(frozen=True)
class SimulatorContext:
    """Everything a simulator may use of the house."""

    name: str
    seed: int
    ledger: Ledger
    now_ns: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]
    log: Callable[[str], None] = field(default=lambda _line: None)


class Simulator(Protocol):
    """One running simulated system (a mine, a fleet, a dam)."""

    async def run(self) -> None:
        """Send until the scenario ends or until cancelled; reconnects by itself."""
        ...

    async def drain(self) -> None:
        """Stop sending new samples, wait until everything sent is acknowledged, disconnect."""
        ...


@dataclass(frozen=True)
class SimulatorKind:
    """What the entry point names.

    `config` includes the target (`host`/`port`, `folder`, broker URL), the scenario's parameters
    (see simulators/scenarios/*.toml) and `speed`: how much faster than the wall clock scenario
    time passes.
    """

    name: str
    summary: str
    config: type[BaseModel]
    build: Callable[[Any, SimulatorContext], Simulator]
    extra: str = ""
