"""A made-up year: sensors at one sample a minute, written straight into the embedded store.

    python -m gateway.runtime.year FOLDER [--points N] [--days D] [--seed S]

makes FOLDER/site.toml, the point registry and the history store a gateway of that site would have
after a year, so that `backtest`, `explain` and `lint` have something to chew on. A thousand points
for 365 days are 525.6 million samples, a few minutes and a few gigabytes.

Each point has noise of its own around 0.4 %CH4 and a phase of its own in the minute. Every day some
points rise above the alarm limit for a while, some hover about it, some fall silent, some report a
broken sensor. A day is a pure function of (seed, day): any day can be made again by itself.

Writes through the store's own code, in its own order (by point and time, a day a run), and not
through the spool: half a billion samples that nobody acknowledged need no durability.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.sinks.duckdb.config import DuckdbConfig
from gateway.sinks.duckdb.store import Store
from gateway.spool.registry import Registry

BEGIN_NS = 1_767_225_600 * 1_000_000_000  # 2026-01-01T00:00:00Z
MINUTES = 1_440
_MINUTE_NS = 60_000_000_000
_MS_NS = 1_000_000

SITE = """# A made-up site of {points} methane sensors, for back-tests. See gateway/runtime/year.py.

[site]
tenant = "made-up"
id = "year"
data_dir = "."

[console]
enabled = false

[history]
sink = "store"

[[sink]]
name = "store"
kind = "duckdb"

[[rule]]
id = "methane"
kind = "limit"
value = {{ quantity = "methane" }}
priority = "high"
off_delay_s = 30

[rule.parameters.levels]
H = {{ limit = 1.0, reset = 0.9 }}
HH = {{ limit = 1.5, reset = 1.0, priority = "critical" }}

[[rule]]
id = "silent"
kind = "offline"
value = {{ quantity = "methane" }}
parameters = {{ max_age_s = 300 }}
"""
OTHER_RULES = """# The same with a lower limit and an on-delay, for `backtest --rules`.

[[rule]]
id = "methane"
kind = "limit"
value = { quantity = "methane" }
priority = "high"
on_delay_s = 60
off_delay_s = 30

[rule.parameters.levels]
H = { limit = 0.9, reset = 0.8 }
HH = { limit = 1.5, reset = 1.0, priority = "critical" }

[[rule]]
id = "silent"
kind = "offline"
value = { quantity = "methane" }
parameters = { max_age_s = 600 }
"""


@dataclass(frozen=True)
class Year:
    """What is made."""

    points: int = 1_000
    days: int = 365
    seed: int = 1
    rises: float = 0.06  # a day, of the points: above the limit for 3 to 60 minutes
    hovers: float = 0.01  # about the limit for 20 to 120 minutes
    silences: float = 0.02  # nothing for 2 to 90 minutes
    faults: float = 0.01  # a broken sensor for 5 to 240 minutes

    @property
    def rows_about(self) -> int:
        return self.points * self.days * MINUTES

    @property
    def end_ns(self) -> int:
        return BEGIN_NS + self.days * MINUTES * _MINUTE_NS

    def table(self) -> list[Point]:
        return [
            Point(
                id=f"m{number:04d}",
                quantity="methane",
                unit="%CH4",
                device=f"ss-{number // 16:03d}",
                area=f"face-{number // 100:02d}",
                interval_s=60.0,
            )
            for number in range(self.points)
        ]

    def devices(self) -> list[Device]:
        return [Device(f"ss-{number:03d}", "substation") for number in range(-(-self.points // 16))]

    def day(self, day: int) -> Batch:
        """All samples of one day, by point and time."""
        rng = np.random.default_rng([self.seed, day])
        shape = (self.points, MINUTES)
        value = rng.normal(0.4, 0.05, shape)
        quality = np.zeros(shape, np.uint8)
        sent = np.ones(shape, np.bool_)
        for point, span in self._spans(rng, self.rises, (3, 60)):
            value[point, span] += rng.uniform(0.5, 1.4)
        for point, span in self._spans(rng, self.hovers, (20, 120)):
            value[point, span] += 0.58
        for point, span in self._spans(rng, self.faults, (5, 240)):
            value[point, span], quality[point, span] = np.nan, Quality.BAD_SENSOR_FAULT
        for point, span in self._spans(rng, self.silences, (2, 90)):
            sent[point, span] = False
        return self._batch(day, np.round(value, 2), quality, sent)

    def _spans(
        self, rng: np.random.Generator, share: float, minutes: tuple[int, int]
    ) -> Iterator[tuple[int, slice]]:
        for _ in range(rng.poisson(share * self.points)):
            start, width = int(rng.integers(0, MINUTES)), int(rng.integers(*minutes))
            yield int(rng.integers(0, self.points)), slice(start, start + width)

    def _batch(
        self,
        day: int,
        value: NDArray[np.float64],
        quality: NDArray[np.uint8],
        sent: NDArray[np.bool_],
    ) -> Batch:
        number = np.arange(self.points, dtype=np.int64)
        phase_ns = number * 7_919 % 60_000 * _MS_NS
        lag_ns = (20 + number * 104_729 % 880) * _MS_NS
        minute = BEGIN_NS + (day * MINUTES + np.arange(MINUTES, dtype=np.int64)) * _MINUTE_NS
        time_ns = minute[None, :] + phase_ns[:, None]
        index = np.broadcast_to(number.astype(np.int32)[:, None], sent.shape)
        received_ns = time_ns + lag_ns[:, None]
        return Batch(index[sent], value[sent], quality[sent], time_ns[sent], received_ns[sent])


def make_year(
    folder: Path, year: Year, *, progress: Callable[[int], None] = lambda _day: None
) -> int:
    """Site file, registry and store; returns the number of samples. The folder must be new."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.toml").write_text(SITE.format(points=year.points), encoding="utf-8")
    (folder / "other.toml").write_text(OTHER_RULES, encoding="utf-8")
    registry = Registry.open(folder / "points")
    try:
        registry.declare_now(year.table(), year.devices())
        return _fill(folder, year, registry.table, progress)
    finally:
        registry.close()


def _fill(folder: Path, year: Year, table: PointTable, progress: Callable[[int], None]) -> int:
    store = Store(
        folder / "sinks" / "store" / "history.duckdb",
        DuckdbConfig(memory_limit_mb=1024, wal_limit_mb=1024),
        table,
    )
    rows = 0
    try:
        store.write(Batch.empty(), 0)  # the store's own table of points
        for day in range(year.days):
            batch = year.day(day)
            store.fill(batch)
            rows += len(batch)
            progress(day)
    finally:
        store.close()
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a year of history.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=Year.points)
    parser.add_argument("--days", type=int, default=Year.days)
    parser.add_argument("--seed", type=int, default=Year.seed)
    options = parser.parse_args(arguments)
    year = Year(options.points, options.days, options.seed)
    started_s = time.monotonic()

    def progress(day: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{day + 1} of {year.days} days")

    rows = make_year(options.folder, year, progress=progress)
    spent_s = time.monotonic() - started_s
    size = (options.folder / "sinks" / "store" / "history.duckdb").stat().st_size
    sys.stderr.write(f"\r{rows} samples, {size >> 20} MB, {spent_s:.0f} s, seed {year.seed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
