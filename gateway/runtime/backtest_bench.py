"""`hazard-gateway bench backtest`: samples a second through two rule sets, and reading alone.

Makes a year as short as the time allows (year.py), judges it with both of its rule sets on one
core, and reads the same rows once more without judging: what the machine's disk and the store's
engine allow at best. The full size, 1,000 points for 365 days, is `python -m gateway.runtime.year`
and `backtest` by hand; the year it would take at the measured rate stands in the figures.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from gateway.runtime.backtest import BacktestOptions, backtest, other_site
from gateway.runtime.checking import load_site
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.rerun import open_points, open_scan
from gateway.runtime.siterules import site_rules
from gateway.runtime.year import BEGIN_NS, Year, make_year

FULL = Year()
AIM_S = 120.0
_DAYS_PER_S = 0.5  # of the time wanted: making a day costs about as much as judging it


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """Figures; the process is pinned to one core meanwhile."""
    year = Year(days=max(1, min(FULL.days, int(seconds * _DAYS_PER_S))))
    make_year(folder, year)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return _measured(folder, year, load_plugins())
    finally:
        os.sched_setaffinity(0, cores)


def _measured(folder: Path, year: Year, plugins: Plugins) -> dict[str, Any]:
    path, rules = folder / "site.toml", folder / "other.toml"
    config = load_site(path, plugins)
    other = other_site(config, plugins, rules)
    read_rows, read_s = _read(config, plugins)
    started_s = time.perf_counter()
    result = backtest(config, other, plugins, BacktestOptions(path, rules, BEGIN_NS, year.end_ns))
    spent_s = time.perf_counter() - started_s
    rate = result.rows / spent_s
    return {
        "samples_per_s": round(rate),
        "samples": result.rows,
        "points": year.points,
        "days": year.days,
        "rule_sets": 2,
        "events": {name: len(raised.events) for name, raised in result.raised.items()},
        "stage_s": {name: round(value, 2) for name, value in result.spent_s.items()},
        "full_year_s": round(FULL.rows_about / rate, 1),
        "aim_full_year_s": AIM_S,
        "machine_limit": {"read_samples_per_s": round(read_rows / read_s)},
    }


def _read(config: Any, plugins: Plugins) -> tuple[int, float]:
    rules = site_rules(config, plugins.rule_kinds).rules
    started_s = time.perf_counter()
    with open_points(config, rules) as points, open_scan(config, plugins, points) as scan:
        rows = sum(len(batch) for batch in scan.batches(0, 1 << 62))
    return rows, time.perf_counter() - started_s
