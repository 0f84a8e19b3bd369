"""Does a back-test of a made-up year say what live running would have said? Every event compared.

    python -m gateway.runtime.year_live FOLDER [--days D] [--json]

FOLDER is what year.py made. Live here is: the samples made again from the seed (not read from the
store), in order of receipt, a batch a minute, judged as the gateway's judge does it, rule set and
book, up to the newest receipt, with a tick of the clock between two batches. The back-test reads
the store and judges some million samples at once. The two must agree in every event: alarm,
occurrence, sequence number, transition, level, priority, event time, value and limit.

Both are told with their time on one core, of the processor and on the wall: other processes of a
shared machine slow the wall.
Not here: spool and journal, which change no event (tests/runtime/test_backtest.py runs those too).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gateway.config import SiteConfig
from gateway.model.alarm import AlarmEvent
from gateway.model.batch import Batch
from gateway.runtime.backtest import BacktestOptions, backtest, other_site
from gateway.runtime.checking import load_site
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.replay import Progress, event_row
from gateway.runtime.rerun import Judging, open_points
from gateway.runtime.siterules import site_rules
from gateway.runtime.year import BEGIN_NS, Year

MINUTE_NS = 60_000_000_000
_TICK_NS = 1_000_000_000
ESSENCE = (
    "t_ns",
    "alarm_key",
    "seq",
    "occ_no",
    "event",
    "level",
    "priority",
    "value",
    "limit",
    "began_ns",
)


def essence(event: AlarmEvent) -> tuple[str, ...]:
    """What must not differ between live and judged again; text, so that NaN equals NaN."""
    row = event_row(event)
    return tuple(str(row[name]) for name in ESSENCE)


def minutes(year: Year) -> Iterator[Batch]:
    """The year's samples in order of receipt, a batch for each minute of receipt."""
    rest = Batch.empty()
    for day in range(year.days):
        whole = Batch.concat([rest, year.day(day)])
        whole = whole.take(np.argsort(whole.received_time_ns, kind="stable"))
        minute = whole.received_time_ns // MINUTE_NS
        edges = [0, *(np.flatnonzero(minute[1:] != minute[:-1]) + 1).tolist(), len(whole)]
        # The last minute of a day may go on with what the next day begins with.
        if day < year.days - 1:
            end = edges.pop()
            rest = whole.take(slice(edges[-1], end))
        for start, stop in pairwise(edges):
            yield whole.take(slice(start, stop))


def judged_live(config: SiteConfig, plugins: Plugins, year: Year) -> Iterator[AlarmEvent]:
    """Every event of judging the year as it comes in."""
    rules = site_rules(config, plugins.rule_kinds).rules
    with open_points(config, rules) as points:
        judging = Judging(config, plugins, rules, points)
    progress = Progress("live")
    is_first = True
    for batch in minutes(year):
        if is_first:
            judging.begin(int(batch.source_time_ns.min()))
            is_first = False
        known_ns = int(batch.received_time_ns[-1])
        for rows, at_ns in ((batch, known_ns), (Batch.empty(), known_ns + _TICK_NS)):
            found = judging.rules.evaluate(rows, at_ns)
            yield from judging.book.apply(found.conditions, judging.rules.instances, at_ns)
            yield from judging.book.observe(rows, judging.points, at_ns)
            yield from judging.book.tick(at_ns)
        progress.show((known_ns - BEGIN_NS) / (year.end_ns - BEGIN_NS), 0)
    progress.end()
    yield from judging.settle(year.end_ns)


def compare(folder: Path, year: Year, plugins: Plugins) -> dict[str, Any]:
    """Figures of both ways for both rule sets of `folder`; `different` must be 0."""
    path, rules = folder / "site.toml", folder / "other.toml"
    config = load_site(path, plugins)
    other = other_site(config, plugins, rules)
    options = BacktestOptions(path, rules, BEGIN_NS, year.end_ns)
    began = _Clocks()
    result = backtest(config, other, plugins, options)
    figures: dict[str, Any] = {
        "samples": result.rows,
        "backtest": began.spent()
        | {"stage_s": {name: round(s, 1) for name, s in result.spent_s.items()}},
    }
    for name, its in (("site", config), ("other", other)):
        again = sorted(map(essence, result.raised[name].events))
        began = _Clocks()
        live = sorted(map(essence, judged_live(its, plugins, year)))
        figures[name] = began.spent() | {
            "events_live": len(live),
            "events_backtest": len(again),
            "different": len(set(live) ^ set(again)) + abs(len(live) - len(again)),
        }
    return figures


class _Clocks:
    """Processor and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def spent(self) -> dict[str, float]:
        return {
            "cpu_s": round(time.process_time() - self._cpu_s, 1),
            "wall_s": round(time.monotonic() - self._wall_s, 1),
        }


def main(arguments: Sequence[str]) -> int:
    """Returns 1 when an event differs."""
    parser = argparse.ArgumentParser(description="Compare a back-test with live judging.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=Year.points)
    parser.add_argument("--days", type=int, default=Year.days)
    parser.add_argument("--seed", type=int, default=Year.seed)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    year = Year(options.points, options.days, options.seed)
    figures = compare(options.folder, year, load_plugins())
    text = json.dumps(figures, indent=None if options.json else 2)
    sys.stdout.write(f"{text}\n")
    return int(any(figures[name]["different"] for name in ("site", "other")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
