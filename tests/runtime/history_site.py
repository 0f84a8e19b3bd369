"""A small site for what is judged again: its file, its samples, and the live core with a test clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from gateway.model.batch import Batch
from gateway.model.quality import Quality
from gateway.runtime.checking import load_site
from gateway.runtime.core import open_core
from gateway.runtime.plugins import load_plugins
from gateway.runtime.replay import event_row
from gateway.runtime.year_live import ESSENCE

S = 1_000_000_000
T0 = 1_767_225_600 * S  # 2026-01-01T00:00:00Z
PLUGINS = load_plugins()

SITE = """
packs = ["coal-gas-2016"]

[site]
tenant = "t"
id = "s"

[console]
enabled = false

[history]
sink = "store"

[[sink]]
name = "store"
kind = "duckdb"

[[point]]
id = "g1"
quantity = "methane"
unit = "%CH4"
location_class = "T1"
interval_s = 10.0

[[point]]
id = "g2"
quantity = "methane"
unit = "%CH4"
interval_s = 10.0

[[point]]
id = "top"
quantity = "beach_top"
area = "dam1"

[[point]]
id = "pool"
quantity = "pool_level"
area = "dam1"

[[rule]]
id = "methane"
kind = "limit"
value = { quantity = "methane" }
parameters = { levels = { H = { limit = 1.0, reset = 0.9 }, HH = { limit = 1.5, reset = 1.0 } } }
priority = "high"
on_delay_s = 15
off_delay_s = 30

[[rule]]
id = "silent"
kind = "offline"
value = { quantity = "methane" }
parameters = { max_age_s = 60, priority_of_hidden = "own" }
priority = "high"

[[rule]]
id = "freeboard"
kind = "calculation"
inputs = { top = { quantity = "beach_top" }, pool = { quantity = "pool_level" } }
parameters = { expression = "top - pool", id = "{group}.freeboard", quantity = "freeboard" }
group_by = "area"

[[rule]]
id = "low"
kind = "limit"
value = { quantity = "freeboard" }
parameters = { levels = { LL = { limit = 0.7, operator = "<" } } }
priority = "critical"
off_delay_s = 20
"""


def site_file(folder: Path, text: str = SITE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.toml"
    path.write_text(text)
    return path


def site(folder: Path, text: str = SITE):
    return load_site(site_file(folder, text), PLUGINS)


def history(seed: int, minutes: int = 20) -> list[tuple[int, str, float, int]]:
    """(time, point, value, quality) as a live gateway would get them: rises, hovering, silence,
    bad samples, repeats, equal times."""
    rng = np.random.default_rng(seed)
    rows = []
    for point in ("g1", "g2", "top", "pool"):
        base = {"g1": 0.5, "g2": 0.5, "top": 10.0, "pool": 9.2}[point]
        shift, until, silent = 0.0, 0, 0
        for second in range(0, minutes * 60, 10):
            if second >= until:
                shift = float(rng.choice([0.0, 0.45, 0.55, 1.2]))
                until = second + int(rng.integers(1, 12)) * 10
                silent = int(rng.random() < 0.15)
            if silent:
                continue
            quality = int(rng.choice([0, 0, 0, 0, Quality.BAD_SENSOR_FAULT, Quality.UNCERTAIN]))
            value = round(base + shift + float(rng.normal(0, 0.03)), 2)
            if point in ("g1", "g2"):
                value = round(max(value, 0.0), 2)
            at = T0 + second * S + int(rng.integers(0, 3)) * S // 2
            rows.append((at, point, value, quality))
            if rng.random() < 0.05:
                rows.append((at, point, value, quality))
    rows.sort(key=lambda row: row[0])
    return rows


def as_csv(rows) -> str:
    lines = [f"{point},{time},{value},{quality}" for time, point, value, quality in rows]
    return "point,time,value,quality\n" + "\n".join(lines) + "\n"


class LiveClock:
    def __init__(self) -> None:
        self.now_ns = T0


async def run_live(
    config, rows, *, step_ns: int = S, sinks: bool = False, until_ns: int | None = None
):
    """What a running gateway raises: rows come in as they are measured, the clock ticks between.
    The row dictionaries of all events; with `sinks` the history is stored too."""
    clock, events = LiveClock(), []
    if not sinks:
        config = config.model_copy(update={"sinks": ()})
    async with open_core(config, PLUGINS, clock=lambda: clock.now_ns) as core:
        core.event_listeners.append(lambda found: events.extend(map(event_row, found)))
        await core.judge.refresh()
        deliveries = [asyncio.create_task(each.run()) for each in core.deliveries.values()]
        position, end_ns = 0, max(rows[-1][0], until_ns or 0)
        clock.now_ns = rows[0][0]
        await core.judge.judge_all(clock.now_ns)
        while position < len(rows) or clock.now_ns < end_ns:
            batch = []
            while position < len(rows) and rows[position][0] <= clock.now_ns:
                batch.append(rows[position])
                position += 1
            if batch:
                time, point, value, quality = zip(*batch, strict=True)
                index = [core.points.index(each) for each in point]
                await core.intake.emit(
                    Batch.of(index, value, time, received_time_ns=time, quality=quality)
                )
            await core.judge.judge_all(clock.now_ns)
            clock.now_ns = min(clock.now_ns + step_ns, max(end_ns, clock.now_ns))
            if position < len(rows):
                clock.now_ns = max(clock.now_ns, min(rows[position][0], clock.now_ns + step_ns))
        await core.judge.judge_all(end_ns)
        if deliveries:
            assert await core.settle(timeout_s=10)
            for task in deliveries:
                task.cancel()
            await asyncio.gather(*deliveries, return_exceptions=True)
    return events


def essence(events) -> list[tuple]:
    """What must not differ between live and judged again, in one order."""
    return sorted(tuple(str(row[key]) for key in ESSENCE) for row in events)
