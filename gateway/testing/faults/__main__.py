"""Arguments and printing. One line for each fault: what was done, the criterion, figures, verdict.

Exit code 0 when nothing failed (what was skipped is said loudly), 1 on a failure, 2 on wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gateway.testing.faults.process import Nursery
from gateway.testing.faults.running import Outcome, run_scenario
from gateway.testing.faults.scenario import Scenario
from gateway.testing.faults.soak import soak
from gateway.testing.faults.table import MOSQUITTO, TABLE

DEFAULT_SEED = 20261127


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.CRITICAL)  # a lost link is what is being made here
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.faults", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the fault table")
    listing.set_defaults(run=_list)
    run = commands.add_parser("run", help="faults by id (F5 means F5-…, too); default: all")
    run.add_argument("ids", nargs="*", metavar="F1")
    run.add_argument("--quick", action="store_true", help="the short form the tests run")
    run.add_argument("--cycles", type=int, default=0, metavar="N", help="kills, flaps, … of each")
    run.set_defaults(run=_run)
    run.add_argument(
        "--seconds", type=float, default=0.0, help="begin no further cycle after so long"
    )
    soaking = commands.add_parser("soak", help="everything at once, then every law")
    soaking.add_argument("--seconds", type=float, default=600.0)
    soaking.set_defaults(run=_soak, ids=["soak"], quick=False, cycles=0)
    for command in (run, soaking):
        command.add_argument("--seed", type=int, default=DEFAULT_SEED)
        command.add_argument(
            "--patience", type=float, default=1.0, help="multiplies every time limit"
        )
        command.add_argument("--json", action="store_true", help="one JSON line for each fault")
        command.add_argument("--dir", type=Path, help="keep everything here (default: temporary)")
    return parser


def _list(_arguments: argparse.Namespace) -> int:
    for scenario in TABLE:
        print(f"{scenario.id:<12} {scenario.fault}")
        print(f"{'':<12}   promise   {scenario.promise}")
        if scenario.function is None:
            print(f"{'':<12}   shown     {scenario.shown}")
        else:
            print(f"{'':<12}   criterion {scenario.criterion}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    wanted = {name.upper() for name in arguments.ids}
    chosen = [s for s in TABLE if not wanted or s.id.upper() in wanted or s.group.upper() in wanted]
    unknown = wanted - {s.id.upper() for s in chosen} - {s.group.upper() for s in chosen}
    if unknown:
        print(f"no such fault: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    return _report(arguments, chosen)


def _soak(arguments: argparse.Namespace) -> int:
    scenario = Scenario(
        "soak",
        f"everything at once for {arguments.seconds:g} s",
        "nothing acknowledged is lost, whatever comes together",
        "store = what was promised over three wires; transitions at their own times; gseq without "
        "a gap; the subscriber's state = journal; memory <= +50 MiB and descriptors <= +16 in the "
        "last life",
        partial(soak, seconds=arguments.seconds),
        ("influxd", *MOSQUITTO),
    )
    return _report(arguments, [scenario])


def _report(arguments: argparse.Namespace, chosen: Sequence[Scenario]) -> int:
    with tempfile.TemporaryDirectory(prefix="hazard-faults-") as temporary:
        folder = arguments.dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcomes = asyncio.run(_run_all(arguments, chosen, folder))
        except asyncio.CancelledError:
            print("interrupted: what was started is ended, nothing further is judged")
            return 1
    failed = [outcome for outcome in outcomes if outcome.verdict == "FAIL"]
    if not arguments.json:
        counts = {v: sum(o.verdict == v for o in outcomes) for v in ("PASS", "FAIL", "SKIPPED")}
        print(f"seed {arguments.seed}: " + ", ".join(f"{n} {v}" for v, n in counts.items()))
    return 1 if failed else 0


async def _run_all(
    arguments: argparse.Namespace, chosen: Sequence[Scenario], folder: Path
) -> list[Outcome]:
    """One after the other; SIGTERM and SIGINT unwind what stands, mounts and namespaces too."""
    task = asyncio.current_task()
    assert task is not None, "inside a task"
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    nursery = Nursery(folder)
    nursery.open()
    outcomes = []
    try:
        for scenario in chosen:
            outcome = await run_scenario(scenario, folder, nursery, arguments)
            outcomes.append(outcome)
            print(json.dumps(outcome.as_json(), ensure_ascii=False) if arguments.json else outcome)
            sys.stdout.flush()
    finally:
        nursery.close()
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
