"""`python -m gateway.testing.sim --seeds 1000 --seed 0`: seed after seed, until one breaks a law.

A failure prints its seed, its faults, the laws that were broken, and the command that plays it
again; exit code 1. `--log` prints what happened. `--outage HOURS` is a scenario of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

from gateway.testing.sim.check import violations
from gateway.testing.sim.plan import plan_of
from gateway.testing.sim.verdicts import play
from gateway.testing.sim.world import run_plan


def main() -> int:
    arguments = _parser().parse_args()
    logging.disable(logging.CRITICAL)  # what the gateway says of its faults is not the question
    if arguments.outage:
        return play(arguments.outage, out=_say)
    began_s, virtual_s, failed = time.process_time(), 0.0, 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        outcome = run_plan(plan_of(seed))
        virtual_s += outcome.virtual_s
        found = violations(outcome.evidence)
        if arguments.log:
            _say("\n".join(outcome.log))
        if found:
            failed += 1
            _say(f"seed {seed}: {', '.join(map(str, outcome.plan.faults)) or 'no fault'}")
            _say("\n".join(f"    {text}" for text in found))
            _say(f"    again: python -m gateway.testing.sim --seeds 1 --seed {seed} --log")
    spent_s = max(time.process_time() - began_s, 1e-9)
    _say(
        f"{arguments.seeds} seeds from {arguments.seed}, {failed} failed; "
        f"{arguments.seeds / spent_s:.2f} seeds/s, "
        f"{virtual_s / spent_s:.0f} virtual s a CPU second"
    )
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--log", action="store_true", help="print every log")
    parser.add_argument(
        "--outage", type=float, default=0.0, help="hours without broker and database, instead"
    )
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
