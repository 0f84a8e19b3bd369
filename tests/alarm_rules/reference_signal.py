"""Scalar measures of the kinds that judge one signal: rate, deviation, stuck, discrete, bits,
quality. Plain loops, written from the words of each kind; and what their laws make histories of.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reference import PLANNED, ScalarInstance, ScalarLevel, by_time, settled, shown, usable

from gateway.model.point import Point
from gateway.model.quality import BAD, Quality
from gateway.model.rule import Rule
from gateway.testing.rule_kinds import RuleCase, Sample

NS = 1_000_000_000
SEVERITY = ["L", "H", "LL", "HH", "LLL", "HHH", "LLLL", "HHHH"]
WRITTEN = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
NOTHING = (None, None, 0)
KEPT_MAX, SPARE, KEPT_MIN = 256, 2, 8  # as rate.py promises


@dataclass
class Written:
    """One level of a limit-like rule, as it is written."""

    level: ScalarLevel
    beyond: Callable[[float], bool]
    back: Callable[[float], bool]


def delays_ns(rule: Rule, level: dict) -> tuple[int, int]:
    """On and off: the level's own, else the rule's."""
    return (
        round(level.get("on_delay_s", rule.on_delay_s) * NS),
        round(level.get("off_delay_s", rule.off_delay_s) * NS),
    )


def written_levels(rule: Rule) -> list[Written]:
    found = []
    for name in SEVERITY:
        given = rule.parameters["levels"].get(name)
        if given is None:
            continue
        given = given if isinstance(given, dict) else {"limit": given}
        limit, reset = given["limit"], given.get("reset", given["limit"])
        compare = WRITTEN[given.get("operator", ">=" if name[0] == "H" else "<=")]
        found.append(
            Written(
                ScalarLevel(name, *delays_ns(rule, given), limit, reset),
                lambda v, c=compare, x=limit: c(v, x),
                lambda v, c=compare, x=reset: not c(v, x),
            )
        )
    return found


def say_number(written: Sequence[Written], number: float | None, quality: int) -> list:
    """What a number says of each level; None was not judged."""
    if number is None:
        return [NOTHING] * len(written)
    said = []
    for one in written:
        verdict = True if one.beyond(number) else False if one.back(number) else None
        said.append((verdict, number, quality))
    return said


def usable_in_time(samples: Sequence[Sample]) -> list[tuple[int, Sample]]:
    """Usable samples of one point, one for each time."""
    return [(now, settled(rows)) for now, rows in by_time([s for s in samples if usable(s)])]


def decimals(number: float, digits: int | None) -> float:
    """Half to even, as arrays do it."""
    if digits is None or not math.isfinite(number):
        return number
    return float(round(number * 10.0**digits)) / 10.0**digits


# ---------------------------------------------------------------------- rate


@dataclass
class ScalarRate:
    """The samples kept of one point, and the number of its window."""

    window_ns: int
    kept_max: int = KEPT_MAX
    method: str = "least_squares"
    per_ns: int = NS
    absolute: bool = False
    relative: bool = False
    coverage_min: float = 0.5
    samples_min: int = 3
    digits: int | None = None

    def __post_init__(self) -> None:
        self.cell_ns = math.ceil(self.window_ns / (self.kept_max - SPARE))
        self.kept: list[tuple[int, float]] = []
        self.last_cell: int | None = None

    def take(self, now: int, value: float) -> float | None:
        window = [(t, v) for t, v in self.kept if t >= now - self.window_ns]
        window.append((now, value))
        cell = now // self.cell_ns
        if cell != self.last_cell:
            self.kept.append((now, value))
            self.last_cell = cell
        span = now - window[0][0]
        if span < max(1, round(self.coverage_min * self.window_ns)):
            return None
        if len(window) < self.samples_min:
            return None
        number = getattr(self, self.method)(window)
        if number is None:
            return None
        number = decimals(abs(number) if self.absolute else number, self.digits)
        return number if math.isfinite(number) else None

    def change(self, window: list[tuple[int, float]]) -> float | None:
        change, oldest = window[-1][1] - window[0][1], window[0][1]
        if not self.relative:
            return change
        return change / abs(oldest) if oldest else None

    def two_point(self, window: list[tuple[int, float]]) -> float:
        hours = float(window[-1][0] - window[0][0]) / float(self.per_ns)
        return (window[-1][1] - window[0][1]) / hours

    def least_squares(self, window: list[tuple[int, float]]) -> float:
        now, newest = window[-1]
        times = [float(t - now) / float(self.per_ns) for t, _ in window]
        values = [v - newest for _, v in window]
        mean_time = plain_sum(times) / len(window)
        times = [t - mean_time for t in times]
        products = [t * v for t, v in zip(times, values, strict=True)]
        return plain_sum(products) / plain_sum([t * t for t in times])


def plain_sum(numbers: list[float]) -> float:
    """Oldest first, one after the other: `sum` compensates from Python 3.12 on."""
    total = numbers[0]
    for number in numbers[1:]:
        total += number
    return total


def scalar_rate(
    instance: ScalarInstance,
    written: Sequence[Written],
    rate: ScalarRate,
    samples: Sequence[Sample],
    end_ns: int,
) -> None:
    for now, sample in usable_in_time(samples):
        number = rate.take(now, sample.value)
        instance.step(now, say_number(written, number, sample.quality))
    instance.advance(end_ns)


# ---------------------------------------------------------------------- deviation


def scalar_deviation(
    instance: ScalarInstance,
    written: Sequence[Written],
    parameters: dict,
    *,
    inputs: tuple[str, str],
    samples: Sequence[Sample],
    end_ns: int,
) -> None:
    """`inputs`: the points value and reference."""
    age_s = parameters.get("max_input_age_s")
    known: dict[str, tuple[int, Sample]] = {}
    for now, rows in by_time([s for s in samples if s.point in inputs]):
        for point in inputs:
            own = [s for s in rows if s.point == point]
            if own:
                known[point] = (now, settled(own))
        number, quality = None, 0
        if all(
            point in known
            and usable(known[point][1])
            and (age_s is None or now - known[point][0] <= round(age_s * NS))
            for point in inputs
        ):
            value, reference = (known[point][1] for point in inputs)
            number = value.value - reference.value
            if parameters.get("relative"):
                number = number / abs(reference.value) if reference.value else None
            if number is not None and parameters.get("absolute", True):
                number = abs(number)
            if number is not None:
                number = decimals(number, parameters.get("decimals"))
            both = (value.quality, reference.quality)
            planned = int(Quality.UNCERTAIN_CALIBRATING)
            quality = planned if planned in both else max(both)
        instance.step(now, say_number(written, number, quality))
    instance.advance(end_ns)


# ---------------------------------------------------------------------- stuck


def scalar_stuck(
    instance: ScalarInstance, parameters: dict, samples: Sequence[Sample], end_ns: int
) -> None:
    unchanged_ns = round(parameters["unchanged_s"] * NS)
    band, gap_s = parameters.get("band", 0.0), parameters.get("gap_max_s")
    first, begin, count, before = None, 0, 0, 0
    for now, sample in usable_in_time(samples):
        inside = first is not None and first - band <= sample.value <= first + band
        is_gap = gap_s is not None and now - before > round(gap_s * NS)
        verdict = None
        if not inside or is_gap:
            if first is not None and not inside:
                verdict = False
            first, begin, count = sample.value, now, 1
        else:
            count += 1
            if now - begin >= unchanged_ns and count >= parameters.get("samples_min", 3):
                verdict = True
        before = now
        instance.step(now, [(verdict, sample.value, sample.quality)])
    instance.advance(end_ns)


# ---------------------------------------------------------------------- discrete, bits, quality


def worst_said(rows: list[Sample], is_set: Callable[[Sample], bool | None]) -> tuple:
    """Of samples of one time: what sets wins; then better quality, then the larger value."""
    sets = [s for s in rows if is_set(s) is True]
    resets = [s for s in rows if is_set(s) is False]
    chosen = max(sets or resets, key=shown, default=None)
    return NOTHING if chosen is None else (bool(sets), chosen.value, chosen.quality)


def scalar_discrete(
    instance: ScalarInstance, codes: Sequence[set[float]], samples: Sequence[Sample], end_ns: int
) -> None:
    """`codes`: of each level."""
    for now, rows in by_time(samples):
        said = [
            worst_said(rows, lambda s, c=own: s.value in c if usable(s) else None) for own in codes
        ]
        instance.step(now, said)
    instance.advance(end_ns)


def bit_of(sample: Sample, bit: int) -> int | None:
    """None for what is no word of 52 bits."""
    if not usable(sample) or not 0 <= sample.value < 2**52 or sample.value != int(sample.value):
        return None
    return int(sample.value) >> bit & 1


def scalar_bit(
    instance: ScalarInstance, bit: int, wanted: int, samples: Sequence[Sample], end_ns: int
) -> None:
    def is_set(sample: Sample) -> bool | None:
        found = bit_of(sample, bit)
        return None if found is None else found == wanted

    for now, rows in by_time(samples):
        instance.step(now, [worst_said(rows, is_set)])
    instance.advance(end_ns)


def scalar_quality(
    instance: ScalarInstance, alarms: set[int], samples: Sequence[Sample], end_ns: int
) -> None:
    for now, rows in by_time(samples):
        said = []
        for sample in rows:
            odd = math.isnan(sample.value) and sample.quality < BAD
            quality = int(Quality.BAD_NOT_A_NUMBER) if odd else sample.quality
            said.append((quality in alarms, usable(sample), quality))
        sets = [quality for alarm, _, quality in said if alarm]
        resets = [quality for alarm, fit, quality in said if fit and not alarm]
        verdict = True if sets else False if resets else None
        quality = min(sets or resets, key=lambda q: (q == PLANNED, q), default=0)
        instance.step(now, [(verdict, None, quality)])
    instance.advance(end_ns)


# ---------------------------------------------------------------------- histories

DELAYS_S = [0.0, 0.0, 0.0, 1.0, 2.5, 7.0]
QUALITIES = [0] * 9 + [
    int(Quality.UNCERTAIN),
    int(Quality.UNCERTAIN_CLOCK),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_SENSOR_FAULT),
    int(Quality.BAD_STALE),
]
NO_NUMBER = 0.06  # share of NaN


def random_levels(rng: random.Random, limits: Sequence[float]) -> dict[str, object]:
    """A milder level never lies beyond a severer one; a reset never beyond its limit."""
    levels: dict[str, object] = {}
    for letter, side in (("H", 1), ("L", -1)):
        chosen = sorted(rng.sample(list(limits), rng.choice([0, 1, 1, 2])))
        for count, limit in enumerate(chosen, 1):
            level: dict[str, object] = {"limit": side * limit}
            if rng.random() < 0.4:
                level["reset"] = side * (limit - rng.choice([0.0, 0.5, 1.0]))
            if rng.random() < 0.4:
                level["operator"] = rng.choice([">", ">="] if side > 0 else ["<", "<="])
            level |= random_delays(rng)
            levels[letter * count] = level if len(level) > 1 else side * limit
    return levels or {"H": limits[0]}


def random_delays(rng: random.Random) -> dict[str, float]:
    names = ("on_delay_s", "off_delay_s")
    return {name: rng.choice(DELAYS_S) for name in names if rng.random() < 0.3}


def random_samples(
    rng: random.Random,
    points: Sequence[Point],
    value_of: Callable[[random.Random, float], float],
    *,
    steps_s: Sequence[Sequence[float]] = ((1.0,), (1.0,), (0.0, 1.0), (0.5, 3.0, 9.0)),
    size_max: int = 25,
) -> list[Sample]:
    """Steady, bursting and patchy points; `value_of` makes the next value of the last one."""
    samples = []
    for point in points:
        step, stays = rng.choice(steps_s), rng.choice([0.0, 0.5, 0.9])
        time_s, quality = float(rng.randrange(3)), 0
        value = value_of(rng, 0.0)
        for _ in range(rng.randrange(size_max)):
            if rng.random() >= stays:
                value, quality = value_of(rng, value), rng.choice(QUALITIES)
            told = math.nan if rng.random() < NO_NUMBER else value
            samples.append(Sample(point.id, time_s, told, quality))
            time_s += rng.choice(step)
    rng.shuffle(samples)
    return in_time(samples)


def in_time(samples: list[Sample]) -> list[Sample]:
    """As they arrive; equal times in any order."""
    return sorted(samples, key=lambda s: s.time_s)


def of_point(case: RuleCase, point: Point) -> list[Sample]:
    return [s for s in case.samples if s.point == point.id]


def matching(case: RuleCase, rule: Rule, name: str = "value") -> list[Point]:
    return [point for point in case.points if rule.inputs[name].matches(point)]
