"""`python -m gateway.testing.outage --minutes N`: prints each figure and whether it passes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from gateway.testing.outage.run import Plan, Report, prove


def main() -> int:
    """0 when every criterion holds."""
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.outage")
    parser.add_argument("--minutes", type=float, default=30.0, help="of outage (30)")
    parser.add_argument("--calm", type=float, default=60.0, metavar="S", help="before and after")
    parser.add_argument("--dams", type=int, default=Plan.dams, help="eleven samples a second each")
    parser.add_argument(
        "--vehicles", type=int, default=Plan.vehicles, help="six samples a second each"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--folder", type=Path, help="keep everything here (default: removed)")
    arguments = parser.parse_args()
    plan = Plan(
        outage_s=60 * arguments.minutes,
        calm_s=arguments.calm,
        after_s=arguments.calm,
        dams=arguments.dams,
        vehicles=arguments.vehicles,
        seed=arguments.seed,
    )
    with contextlib.ExitStack() as stack:
        folder = arguments.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outage-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(_until_ended(plan, folder))
    for line in describe(report):
        print(line)  # noqa: T201
    if arguments.json:
        print(report.as_json())  # noqa: T201
    return 0 if all(report.passes().values()) else 1


async def _until_ended(plan: Plan, folder: Path) -> Report:
    """A signal ends the proof and everything it started."""
    proof = asyncio.ensure_future(
        prove(plan, folder, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, proof.cancel)
    return await proof


def describe(report: Report) -> list[str]:
    """The report for people."""
    store, writes, memory = report.store, report.writes, report.memory
    rows = (
        f"rows acknowledged     {report.acknowledged}  ({report.rate_per_s:g} a second)",
        f"rows in the store     {store.rows}",
        f"missing, duplicates   {store.missing}, {store.duplicates}",
        f"order per point       {writes.violations} violations in {writes.lines} lines",
        f"lines written again   {writes.rewritten}",
        f"backlog               {writes.backlog_rows} rows in {report.drain_s:g} s",
        f"drain rate            {report.drain_multiple:g} times real time",
        f"first write           {report.first_write_after_s:g} s after the return",
        f"a live row waited     {writes.live_behind_s:.1f} s at most",
        f"alarm events          {report.events}",
        f"raised by the backlog {len(report.alarms_unexpected)}",
        f"supervision's states  {report.standing} equal {report.states_after_s:g} s after",
        f"memory before         {memory.before_mb:g} MB",
        f"memory at its end     {memory.outage_end_mb:g} MB",
        f"memory at most        {memory.peak_mb:g} MB",
    )
    lines = list(rows)
    for phase, figures in report.latency.items():
        lines.append(
            f"alarm latency {phase:7} p50 {figures['p50_ms']:g} ms, p99 {figures['p99_ms']:g} ms, "
            f"longest {figures['max_ms']:g} ms ({figures['count']:g} alarms)"
        )
    lines += [f"status said: {said}" for said in report.shares]
    lines += [f"  {text}" for text in (*store.examples[:5], *writes.examples[:5])]
    lines += [f"  {text}" for text in report.alarms_unexpected[:9]]
    lines += [f"{'ok  ' if ok else 'FAIL'}  {name}" for name, ok in report.passes().items()]
    return lines


if __name__ == "__main__":
    sys.exit(main())
