"""Windows, votes and combinations as plain loops over single samples: the measure of the arrays.

Like reference.py: written from the words of the design and of the modules' docstrings.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

from reference import NS, PLANNED, ScalarInstance, by_time, settled, usable

from gateway.model.quality import UNCERTAIN, Quality
from gateway.testing.rule_kinds import Change, DerivedSample, Sample

CELLS = 96
TOO_LARGE = 2.0**40


class Bad(Exception):
    """A window that says nothing."""


@dataclass
class ScalarInput:
    """Everything an input ever said, oldest first."""

    rows: list[tuple[int, float | None, bool]] = field(default_factory=list)  # time, value, sure
    since: int | None = None  # heard without a gap since

    def add(self, now: int, sample: Sample, max_age_ns: int | None) -> None:
        value = sample.value if usable(sample) and abs(sample.value) <= TOO_LARGE else None
        if self.since is None or (max_age_ns is not None and now - self.rows[-1][0] > max_age_ns):
            self.since = now
        self.rows.append((now, value, sample.quality < UNCERTAIN))


def exact(values: list[float]) -> float:
    total = sum(round(Fraction(value) * 2**60) for value in values)
    return float(total >> 60) + float(total & (2**60 - 1)) / 2**60


def scalar_window(
    function: str, given: ScalarInput, span_s: float, now: int, bad_share_max: float
) -> tuple[float, bool]:
    """(value, whether it is certain), or Bad."""
    span = round(span_s * NS)
    cell = -(-span // CELLS)
    newest = {time // cell: time for time, _, _ in given.rows}
    inside = [i for i, row in enumerate(given.rows) if newest[row[0] // cell] > now - span]
    if not inside:
        raise Bad
    sure = given.since <= now - span and all(given.rows[i][2] for i in inside)
    last = given.rows[-1][1]
    values = [given.rows[i][1] for i in inside if given.rows[i][1] is not None]
    if function == "change":
        if inside[0] == 0:
            start = given.rows[0][1]
        else:
            start = given.rows[inside[0] - 1][1]
            place = given.rows[inside[0] - 1][0] // cell
            sure = sure and all(s for t, _, s in given.rows[: inside[0]] if t // cell == place)
        if last is None or start is None:
            raise Bad
        return last - start, sure
    if function == "increase":
        if last is None:
            raise Bad
        return exact(_rises(given, inside[0])), sure
    bad = len(inside) - len(values)
    if not values or bad > bad_share_max * len(inside):
        raise Bad
    found = {
        "sum": lambda: exact(values),
        "mean": lambda: exact(values) / len(values),
        "min": lambda: min(values),
        "max": lambda: max(values),
    }[function]()
    return found, sure and not bad


def _rises(given: ScalarInput, first: int) -> list[float]:
    rises, before = [], None
    for number, (_, value, _) in enumerate(given.rows):
        if value is None:
            continue
        rise = 0.0
        if before is not None:
            rise = value - before if value >= before else max(value, 0.0)
        if number >= first:
            rises.append(rise)
        before = value
    return rises


def scalar_formula(
    point: str,
    inputs: dict[str, str],
    formula,
    samples: list[Sample],
    *,
    direct: str,
    max_age_ns: int | None,
    bad_share_max: float,
) -> list[DerivedSample]:
    """`formula(value, window)`: value by name, window(function, name, seconds) -> number.
    `direct`: the names whose newest value it uses."""
    known: dict[str, tuple[int, Sample]] = {}
    heard: dict[str, ScalarInput] = defaultdict(ScalarInput)

    def result(now: int) -> tuple[float | None, Quality]:
        for name in inputs:
            if name not in known:
                raise Bad
            time, sample = known[name]
            if max_age_ns is not None and now - time > max_age_ns:
                raise Bad
            if name in direct and not usable(sample):
                raise Bad
        doubts = [known[name][1].quality >= UNCERTAIN for name in direct]

        def window(function: str, name: str, seconds: float) -> float:
            value, sure = scalar_window(function, heard[name], seconds, now, bad_share_max)
            doubts.append(not sure)
            return value

        value = formula({name: known[name][1].value for name in inputs}, window)
        if not math.isfinite(value):
            raise Bad
        grades = [known[name][1].quality for name in direct]
        if grades and all(grade == Quality.UNCERTAIN_CALIBRATING for grade in grades):
            return float(value), Quality.UNCERTAIN_CALIBRATING
        return float(value), Quality.UNCERTAIN_DERIVED if any(doubts) else Quality.GOOD

    found = []
    for now, rows in by_time([s for s in samples if s.point in inputs.values()]):
        for name, source in inputs.items():
            own = [s for s in rows if s.point == source]
            if own:
                known[name] = (now, settled(own))
                heard[name].add(now, known[name][1], max_age_ns)
        try:
            value, quality = result(now)
        except (Bad, ZeroDivisionError, ValueError, OverflowError):
            value, quality = None, Quality.BAD_DERIVED
        found.append(DerivedSample(point, now, value, int(quality)))
    return found


# ---------------------------------------------------------------------- votes


@dataclass
class Sensor:
    vote: bool = False
    there: bool = False
    heard_ns: int | None = None


def scalar_vote(
    vote: ScalarInstance,
    missing: ScalarInstance | None,
    sensors: list[str],
    samples: list[Sample],
    *,
    needed,
    tests: tuple,
    age_ns: int | None,
    m: int,
    end_ns: int,
) -> None:
    """`needed(there)`: how many votes; `tests`: (beyond, back) of a value."""
    known = {name: Sensor() for name in sensors}

    def told(now: int, *, by_clock: bool = False) -> None:
        there = sum(s.there for s in known.values())
        yes = sum(s.there and s.vote for s in known.values())
        held = sum(s.vote for s in known.values())
        verdict = None
        if there:
            verdict = True if yes >= needed(there) else False if held < needed(there) else None
        quality = Quality.GOOD if there >= m else Quality.UNCERTAIN_DERIVED
        vote.step(now, [(verdict, float(yes), int(quality))], by_clock=by_clock)
        if missing is not None:
            gone = [(there < m, float(there) if there else None, 0)]
            missing.step(now, gone, by_clock=by_clock)

    def expire(until: int) -> None:
        while True:
            due = [
                s.heard_ns + age_ns + 1
                for s in known.values()
                if s.there and age_ns is not None and s.heard_ns + age_ns + 1 <= until
            ]
            if not due:
                return
            for sensor in known.values():
                if sensor.there and sensor.heard_ns + age_ns + 1 == min(due):
                    sensor.there = False
            told(min(due), by_clock=True)

    for now, rows in by_time([s for s in samples if s.point in known]):
        expire(now)
        for name, sensor in known.items():
            own = [s for s in rows if s.point == name]
            if not own:
                continue
            sample = settled(own)
            sensor.heard_ns = now
            sensor.there = usable(sample) and sample.quality < UNCERTAIN
            if sensor.there and tests[0](sample.value):
                sensor.vote = True
            elif sensor.there and tests[1](sample.value):
                sensor.vote = False
        told(now)
    expire(end_ns)
    for instance in (vote, missing):
        if instance is not None:
            instance.advance(end_ns)


# ---------------------------------------------------------------------- combinations


def scalar_combination(
    instance: ScalarInstance,
    members: dict[str, dict[str, int]],
    changes: list[Change],
    *,
    add_up,
    results: list[int],
    end_ns: int,
) -> None:
    """`members`: alarm key -> level name -> colour rank. `add_up`: list of ranks -> (rank, how many
    decided)."""
    standing: dict[str, tuple[int, int]] = {}
    rows = sorted((c for c in changes if c.alarm_key in members), key=lambda c: c.time_ns)
    for now in sorted({c.time_ns for c in rows}):
        for change in rows:
            if change.time_ns == now:
                rank = members[change.alarm_key].get(change.level, 0)
                counts = rank if change.quality != PLANNED else 0
                standing[change.alarm_key] = (counts, change.quality)
        ranks = [(rank, quality) for rank, quality in standing.values() if rank]
        result, decided = add_up([rank for rank, _ in ranks])
        doubt = any(quality >= UNCERTAIN for _, quality in ranks)
        quality = int(Quality.UNCERTAIN_DERIVED if doubt else Quality.GOOD)
        instance.step(now, [(result >= rank, float(decided), quality) for rank in results])
    instance.advance(end_ns)


def adding(steps: list[tuple[int, int, int]], *, carry: bool, include: bool):
    """Steps as (of, count, makes), mild to severe."""

    def add_up(ranks: list[int]) -> tuple[int, int]:
        rank, decided = 0, len(ranks)
        coins = {number: ranks.count(number) for number in range(1, 10)}
        for of, count, makes in sorted(steps):
            found = coins[of] if carry else sum(1 for r in ranks if r >= of)
            if carry:
                coins[makes] += found // count
            if found >= count and makes > rank:
                rank, decided = makes, found
        if include and ranks and max(ranks) > rank:
            rank, decided = max(ranks), ranks.count(max(ranks))
        return rank, decided

    return add_up
