"""What a scenario is, what it is given, and what it has to answer.

A scenario starts real things, hurts them, and puts down what it found. It has passed only when it
found something to judge and nothing wrong: a run that compared nothing is a failure, and what this
machine lacks makes it SKIPPED with the reason, never PASS.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.testing.faults.process import Missing, Nursery
from gateway.testing.faults.rig import Plan, Rig

Needs = tuple[str, ...]  # "root", or a program


@dataclass(eq=False)
class Findings:
    """Figures and faults of one run."""

    figures: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    judged_count: int = 0
    damage_count: int = 0  # what is gone, where some may be

    def figure(self, text: str) -> None:
        self.figures.append(text)

    def require(self, holds: bool, otherwise: str) -> bool:
        """One part of the criterion; returns whether it holds."""
        self.judged_count += 1
        if not holds:
            self.faults.append(otherwise)
        return holds

    def none_of(self, faults: Sequence[str], where: str = "") -> None:
        """Each of `faults` is a failure."""
        self.judged_count += 1
        self.faults += [f"{where}: {fault}" if where else fault for fault in faults]


@dataclass(eq=False)
class Run:
    """What one scenario is given. `patience` multiplies every time limit: for machines that do
    other work at the same time."""

    id: str
    folder: Path
    nursery: Nursery
    seed: int
    quick: bool = False
    patience: float = 1.0
    cycles: int = 0  # 0: the scenario's own number
    seconds: float = 0.0  # 0: as long as it takes; else no further cycle is begun after so long
    found: Findings = field(default_factory=Findings)
    say: Callable[[str], None] = lambda _line: None

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.id} {self.seed}")
        self._began_s = time.monotonic()

    @property
    def is_time_up(self) -> bool:
        return 0 < self.seconds < time.monotonic() - self._began_s

    def limit(self, seconds: float) -> float:
        return seconds * self.patience

    def pick(self, quick: int, full: int) -> int:
        return self.cycles or (quick if self.quick else full)

    def rig(self, plan: Plan, name: str = "rig") -> Rig:
        return Rig(self.folder / name, self.nursery, self.seed, plan)


Function = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One line of the table. Without a function it says where the fault is shown instead."""

    id: str
    fault: str
    promise: str
    criterion: str
    function: Function | None = None
    needs: Needs = ()
    shown: str = ""

    @property
    def group(self) -> str:
        """F5 of F5-inodes."""
        return self.id.partition("-")[0]


def check_needs(needs: Needs) -> None:
    """Raises Missing."""
    for need in needs:
        if need == "root":
            if os.geteuid() != 0:
                raise Missing("needs root: mounts and network namespaces")
        elif not any(
            shutil.which(need, path=path) for path in (None, "/usr/sbin:/usr/local/sbin:/sbin")
        ):
            raise Missing(f"{need} is not installed")
