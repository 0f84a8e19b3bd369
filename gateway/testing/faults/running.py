"""Runs one scenario and puts its verdict in words."""

from __future__ import annotations

import asyncio
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from gateway.testing.faults.process import Missing, Nursery
from gateway.testing.faults.scenario import Run, Scenario, check_needs

Word = Literal["PASS", "FAIL", "SKIPPED"]
_SHOWN = 6  # faults of one scenario that are printed


class Options(Protocol):
    """How to run: see `run --help`."""

    seed: int
    quick: bool
    patience: float
    cycles: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """One line of the report."""

    scenario: Scenario
    verdict: Word
    figures: str
    reasons: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        scenario = self.scenario
        lines = [f"{self.verdict:<7} {scenario.id:<10} {scenario.fault}"]
        if scenario.function is not None:
            lines.append(f"{'':<18} criterion: {scenario.criterion}")
        if self.figures:
            lines.append(f"{'':<18} {self.figures} ({self.seconds:.0f} s)")
        lines += [f"{'':<18} {self.verdict}: {reason}" for reason in self.reasons[:_SHOWN]]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.scenario.id,
            "fault": self.scenario.fault,
            "criterion": self.scenario.criterion,
            "verdict": self.verdict,
            "figures": self.figures,
            "reasons": list(self.reasons),
            "seconds": round(self.seconds, 1),
        }


def _progress(name: str, line: str) -> None:
    print(f"  {name}: {line}", file=sys.stderr, flush=True)


async def run_scenario(
    scenario: Scenario, folder: Path, nursery: Nursery, options: Options
) -> Outcome:
    """PASS only when something was judged and nothing was wrong. Never raises for a fault."""
    if scenario.function is None:
        return Outcome(scenario, "SKIPPED", "", (scenario.shown,), 0.0)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    own = folder / scenario.id
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    run = Run(
        scenario.id, own, nursery, options.seed, quick=options.quick, patience=options.patience,
        cycles=options.cycles,
        seconds=options.seconds, say=lambda line: _progress(scenario.id, line),
    )  # fmt: skip
    reasons: list[str] = []
    verdict: Word = "FAIL"
    try:
        check_needs(scenario.needs)
        await scenario.function(run)
        reasons = run.found.faults
        if not run.found.judged_count:
            reasons = ["nothing was judged"]
        verdict = "FAIL" if reasons else "PASS"
    except Missing as missing:
        verdict, reasons = "SKIPPED", [str(missing)]
    except Exception as error:  # noqa: BLE001  whatever it is, the scenario has not passed
        reasons = [*run.found.faults, f"{type(error).__name__}: {error}", traceback.format_exc()]
    if verdict == "FAIL":
        reasons.append(f"seed {options.seed}; repeat: run {scenario.id} --seed {options.seed}")
    figures = "; ".join(run.found.figures)
    return Outcome(scenario, verdict, figures, tuple(reasons), loop.time() - began_s)
