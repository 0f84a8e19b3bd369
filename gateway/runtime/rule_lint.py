"""`hazard-gateway lint`: what a limit rule would do to the people on watch, before it is on.

    last days of a point ─▶ p: share of samples that set, c: share that reset ─▶ formulas ─┐
                         └▶ the rule core itself ─▶ activations counted ───────────────────┴▶ beside

Formulas: alarms a day and detection delay of a run-length rule, as in EEMUA 191 and ISA-TR18.2
style designs (raise after n samples in a row, clear after m), widened to a deadband. With p the
probability that a sample sets the condition, c that it resets it (c < 1 - p with a deadband):

    pairs of runs a sample      1 / (1/p + 1/c)
    an on-run lasts n samples   a = (1 - c)^(n-1)      n = on-delay / interval, rounded up, >= 1
    an off-run lasts m          b = (1 - p)^(m-1)
    activations a sample        a*b / (a + b - a*b) / (1/p + 1/c)
    share of time in alarm      b' / (a' + b')        = FAR of the reference where c = 1 - p
    detection, in samples       1/r + (1 - s^(n-1)) / u, all over s^(n-1)
                                r sets, u resets, s = 1 - u while the place is abnormal

**Assumed**: samples of a normal place are independent of each other and the last days were normal.
Noise that wanders (temperature, gas behind a fan) makes runs longer than this says; the activations
of judging the same days again stand beside for that reason, and where the two differ the second is
to be believed. Where no sample of those days was beyond the limit, p is the tail of a normal
distribution with their mean and spread, and said to be.

Not here: other kinds than `limit`; a verdict of its own (rerun.py asks the core).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alarm_rules.matching import Matching, compile_rules
from gateway.config import SiteConfig
from gateway.contract.rule_kind import Planning
from gateway.model.alarm import Transition
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError, Fault, Refused
from gateway.model.point import Point, PointTable
from gateway.model.quality import BAD
from gateway.model.rule import Rule
from gateway.runtime.backtest import other_site
from gateway.runtime.checking import load_site
from gateway.runtime.core import NS_PER_S
from gateway.runtime.instants import span
from gateway.runtime.plugins import Plugins, load_plugins
from gateway.runtime.replay import Progress
from gateway.runtime.rerun import Judging, LateFilter, open_points, open_scan, steps
from gateway.runtime.siterules import site_rules

DAYS = 7.0
DAY_S = 86_400.0
DAYS_MAX = 3_660.0
SAMPLES_MAX = 40_000_000  # 1.2 GB of them; 1,000 points a minute for four weeks
SAMPLES_MIN = 100  # fewer say nothing about a share
TAIL_COUNT = 10  # with fewer samples beyond the limit the normal tail is shown beside
SHIFTS = (1.0, 2.0, 3.0)  # abnormal means so many spreads beyond the limit
NUISANCE_PER_DAY = 1.0  # of one point: more is a rule to think about (reference grid: 144 a day
# for a whole console with some hundred points)


@dataclass(frozen=True)
class Advice:
    """A deadband and a delay to begin with, by what is measured."""

    deadband_share: float | None  # of the span; None: from the noise
    on_delay_s: float | None
    off_delay_s: float
    note: str


# Starting values by kind of signal, widely reproduced from the tables of ISA-TR18.2 and EEMUA 191;
# for gas no delay of activation: whoever breathes it has no sixty seconds.
_GAS = Advice(0.0, 0.0, 30.0, "gas: never delay activation; a fixed clear threshold and latching")
_ADVICE: dict[str, Advice] = {
    "methane": _GAS,
    "carbon_monoxide": _GAS,
    "hydrogen_sulfide": _GAS,
    "combustible_gas": _GAS,
    "toxic_gas": _GAS,
    "oxygen": _GAS,
    "flow": Advice(0.05, 15.0, 15.0, "flow"),
    "wind_speed": Advice(0.05, 15.0, 15.0, "flow"),
    "level": Advice(0.05, 60.0, 60.0, "level; for a tank's HH no on-delay, 60 s off-delay"),
    "pool_level": Advice(0.05, 60.0, 60.0, "level"),
    "pressure": Advice(0.02, 15.0, 15.0, "pressure"),
    "temperature": Advice(0.01, 60.0, 60.0, "temperature"),
    "displacement": Advice(None, None, 0.0, "displacement: two samples in a row"),
    "seepage_flow": Advice(None, None, 0.0, "seepage: two samples in a row"),
}
_UNKNOWN = Advice(None, None, 0.0, "no table value for this quantity: from the noise")


@dataclass(frozen=True)
class LintOptions:
    """What the command line says."""

    config: Path
    rules: Path | None = None  # None: the site's own
    days: float = DAYS
    to_ns: int | None = None  # None: the newest sample
    as_json: bool = False


@dataclass
class LevelLint:
    """One level of one rule on one point."""

    rule: str
    point: str
    level: str
    limit: float
    reset: float
    on_delay_s: float
    off_delay_s: float
    interval_s: float
    samples: int
    n: int  # samples in a row to raise
    m: int  # to clear
    set_share: float
    reset_share: float
    is_tail: bool  # the share is the tail of a normal distribution
    predicted_per_day: float
    predicted_share: float  # of the time in alarm
    replayed_per_day: float = 0.0
    detection_s: dict[str, float] = field(default_factory=dict)  # by spreads beyond the limit
    spread: float = 0.0
    lag1: float = 0.0  # correlation of neighbours: near 0 where the assumption holds
    advice: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------- the formulas


def samples_in_a_row(delay_s: float, interval_s: float) -> int:
    """How many samples a run must have to last the delay: it ends with the first other one."""
    return max(1, math.ceil(delay_s / interval_s - 1e-9))


def activations(p: float, c: float, n: int, m: int) -> float:
    """A sample, where samples are independent; see the module's head."""
    if p <= 0 or c <= 0:
        return 0.0
    a, b = (1 - c) ** (n - 1), (1 - p) ** (m - 1)
    if a + b - a * b <= 0:
        return 0.0
    return a * b / (a + b - a * b) / (1 / p + 1 / c)


def time_in_alarm(p: float, c: float, n: int, m: int) -> float:
    """The share of samples at which the alarm stands. With c = 1 - p it is the formula of the
    reference: p^n * sum(q^i, i < m) / (p^n * sum(q^i, i < m) + q^m * sum(p^j, j < n))."""
    if p <= 0:
        return 0.0
    if c <= 0:
        return 1.0
    raised, cleared = _wait(p, c, n), _wait(c, p, m)
    return cleared / (raised + cleared)


def detection_samples(r: float, u: float, n: int) -> float:
    """Samples from the onset of an abnormal state until the alarm; inf where it never comes."""
    return _wait(r, u, n) if r > 0 else math.inf


def _wait(enter: float, leave: float, length: int) -> float:
    """Expected samples until a run of `length` is complete, from outside of one."""
    stay = (1 - leave) ** (length - 1)
    if stay <= 0:
        return math.inf
    middle = (1 - stay) / leave if leave > 0 else float(length - 1)
    return (1 / enter + middle) / stay


# ---------------------------------------------------------------------- the command


def run_lint(options: LintOptions) -> int:
    """Prints a table. Raises ConfigError, Unavailable, Refused."""
    plugins = load_plugins()
    config = load_site(options.config, plugins)
    if options.rules is not None:
        config = other_site(config, plugins, options.rules)
    rows, notes = lint(config, plugins, options)
    for note in notes:
        sys.stderr.write(note + "\n")
    if options.as_json:
        sys.stdout.write(json.dumps({"levels": [_json_row(row) for row in rows]}) + "\n")
    else:
        for line in _text(rows):
            sys.stdout.write(line + "\n")
    return 0


def lint(
    config: SiteConfig, plugins: Plugins, options: LintOptions
) -> tuple[list[LevelLint], list[str]]:
    """Every level of every limit rule on every point with history. Blocks."""
    if not 0 < options.days <= DAYS_MAX:
        raise ConfigError([Fault("--days", 0, "", f"more than 0 and at most {DAYS_MAX:g}")])
    rules = site_rules(config, plugins.rule_kinds).rules
    limits = [rule for rule in rules if rule.kind == "limit"]
    notes = []
    if len(limits) < len(rules):
        notes.append(f"{len(rules) - len(limits)} rules of other kinds than limit are left out")
    if not limits:
        raise Refused("there is no limit rule to look at")
    with open_points(config, limits) as points, open_scan(config, plugins, points) as scan:
        newest = scan.span()
        if options.to_ns is None and newest is None:
            raise Refused("no history is stored yet")
        to_ns = options.to_ns if options.to_ns is not None else (newest or (0, 0))[1] + 1
        judging = Judging(config, plugins, limits, points)
        plans = _plans(limits, plugins, judging.points)
        found = _Collected(points)
        progress = Progress("lint")
        from_ns = to_ns - int(options.days * DAY_S * NS_PER_S)
        late = LateFilter(len(points))
        counts: dict[tuple[str, str], int] = {}
        wanted = sorted({points.index(each.point.id) for each in plans if each.point.id in points})
        for step in steps(
            scan.batches(from_ns, to_ns, wanted), round(config.judging.lateness_s * NS_PER_S), late
        ):
            found.add(step.batch)
            for event in judging.judge(step.batch, step.known_ns):
                if event.transition in {Transition.ACTIVATED, Transition.ESCALATED}:
                    key = (event.alarm.alarm_key, event.level or event.alarm.level)
                    counts[key] = counts.get(key, 0) + 1
            progress.show((step.known_ns - from_ns) / max(to_ns - from_ns, 1), sum(counts.values()))
        progress.end()
    rows = [row for plan in plans for row in _linted(plan, found, counts)]
    short = len({each.point.id for each in plans}) - len({row.point for row in rows})
    if short:
        notes.append(f"{short} points have fewer than {SAMPLES_MIN} usable samples: left out")
    return rows, notes


@dataclass(frozen=True)
class _Plan:
    """A rule on a point, as the kind itself plans it."""

    rule: Rule
    point: Point
    index: int
    alarm_key: str
    levels: Sequence[tuple[str, float, float, float, float]]  # name, limit, reset, on_s, off_s


def _plans(rules: Sequence[Rule], plugins: Plugins, points: PointTable) -> list[_Plan]:
    compiled, _ = compile_rules(rules, plugins.rule_kinds)
    matching = Matching(compiled, points)
    matching.update()
    found = []
    for number, each in enumerate(compiled):
        for key, inputs in matching.of_rule[number].groups.items():
            members = {name: tuple(sorted(chosen)) for name, chosen in inputs.items()}
            if not any(members.values()):
                continue
            plan = each.kind.plan(
                Planning(
                    each.rule, each.parameters, key, members, points,
                    urgent=lambda _point: None, problem=lambda _text: None,
                )
            )  # fmt: skip
            if plan is None or not plan.instances:
                continue
            (instance,) = plan.instances
            levels = [
                (
                    level.name,
                    float(level.limit if level.limit is not None else math.nan),
                    float(instance.resets[at]),
                    instance.on_delay_ns[at] / NS_PER_S,
                    instance.off_delay_ns[at] / NS_PER_S,
                )
                for at, level in enumerate(instance.levels)
            ]
            index = plan.inputs[0][0]
            name = f"{instance.target}:{each.rule.id}"
            found.append(_Plan(each.rule, points[index], index, name, levels))
    return found


class _Collected:
    """The usable samples of each point, in order of time; all in memory, SAMPLES_MAX of them."""

    def __init__(self, points: PointTable) -> None:
        self._parts: list[Batch] = []
        self._size = 0
        self._sorted: Batch | None = None
        self._start = np.zeros(len(points) + 1, np.int64)

    def add(self, batch: Batch) -> None:
        part = batch.take((batch.quality < BAD) & ~np.isnan(batch.value))
        self._parts.append(part)
        self._size += len(part)
        if self._size > SAMPLES_MAX:
            raise Refused(
                f"more than {SAMPLES_MAX // 1_000_000} M samples: look at fewer days (--days)"
            )

    def of(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(values, times)."""
        if self._sorted is None:
            whole = Batch.concat(self._parts)
            self._parts = []
            self._sorted = whole.take(np.lexsort((whole.source_time_ns, whole.point_index)))
            size = len(self._start) - 1
            counts = np.bincount(self._sorted.point_index, minlength=size)[:size]
            self._start[1:] = np.cumsum(counts)
        if index >= len(self._start) - 1:
            return np.empty(0), np.empty(0, np.int64)
        rows = slice(int(self._start[index]), int(self._start[index + 1]))
        return self._sorted.value[rows], self._sorted.source_time_ns[rows]


def _linted(
    plan: _Plan, found: _Collected, counts: dict[tuple[str, str], int]
) -> Iterator[LevelLint]:
    value, time_ns = found.of(plan.index)
    if len(value) < SAMPLES_MIN:
        return
    interval_s = float(np.median(np.diff(time_ns))) / NS_PER_S or 1.0
    days = len(value) * interval_s / DAY_S  # of data: gaps raise nothing
    mean, spread = float(value.mean()), float(value.std())
    lag1 = _lag1(value)
    for name, limit, reset, on_s, off_s in plan.levels:
        side = 1.0 if name[0] == "H" else -1.0
        beyond = side * value >= side * limit
        back = side * value < side * reset
        p, c = float(beyond.mean()), float(back.mean())
        is_tail = bool(beyond.sum() < TAIL_COUNT) and spread > 0
        if is_tail:
            p = NormalDist(side * mean, spread).cdf(2 * side * mean - side * limit)
        n, m = samples_in_a_row(on_s, interval_s), samples_in_a_row(off_s, interval_s)
        row = LevelLint(
            plan.rule.id, plan.point.id, name, limit, reset, on_s, off_s, interval_s, len(value),
            n, m, p, c, is_tail,
            predicted_per_day=activations(p, c, n, m) * DAY_S / interval_s,
            predicted_share=time_in_alarm(p, c, n, m),
            replayed_per_day=counts.get((plan.alarm_key, name), 0) / days,
            spread=spread,
            lag1=lag1,
        )  # fmt: skip
        row.detection_s = _detection(row, value - mean, side)
        row.advice = list(_advise(row, plan))
        yield row


def _detection(row: LevelLint, noise: NDArray[np.float64], side: float) -> dict[str, float]:
    """Seconds from the onset to the alarm where the mean moves to the limit and some spreads on."""
    found = {}
    for shift in SHIFTS:
        value = row.limit + side * shift * row.spread + noise
        r = float((side * value >= side * row.limit).mean())
        u = float((side * value < side * row.reset).mean())
        samples = detection_samples(r, u, row.n)
        # The run that counts begins n - 1 samples before it is complete; the alarm is due its
        # delay after that, and the first sample comes half an interval after the onset.
        seconds = (0.5 + samples - row.n) * row.interval_s + row.on_delay_s
        found[f"{shift:g}"] = round(seconds, 3) if math.isfinite(seconds) else math.inf
    return found


def _lag1(value: NDArray[np.float64]) -> float:
    centred = value - value.mean()
    power = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0


def _advise(row: LevelLint, plan: _Plan) -> Iterator[str]:
    """Where the rule is quieter or quicker than it need be; starting values, never orders."""
    point, side = plan.point, 1.0 if row.level[0] == "H" else -1.0
    advice = _ADVICE.get(point.quantity, _UNKNOWN)
    deadband = side * (row.limit - row.reset)
    low, high = point.range_low, point.range_high
    wanted = 3 * row.spread
    if advice.deadband_share is not None and low is not None and high is not None:
        wanted = advice.deadband_share * (high - low)
    per_day = max(row.predicted_per_day, row.replayed_per_day)
    is_nuisance = per_day > NUISANCE_PER_DAY
    if advice.deadband_share == 0.0:
        if row.on_delay_s > 0:
            yield f"{advice.note}: on_delay_s = 0 (it is {row.on_delay_s:g})"
        if row.off_delay_s < advice.off_delay_s:
            yield f"off_delay_s of at least {advice.off_delay_s:g} (it is {row.off_delay_s:g})"
    elif is_nuisance:
        on_s = 2 * row.interval_s if advice.on_delay_s is None else advice.on_delay_s
        if deadband < wanted:
            yield (
                f"deadband {wanted:.3g}: reset at {row.limit - side * wanted:.4g} "
                f"(it is {row.reset:g}); {advice.note}"
            )
        if row.on_delay_s < on_s:
            yield (
                f"on_delay_s = {on_s:g} where a brief excursion needs no action, "
                "an off-delay where each one does"
            )
    if is_nuisance:
        yield f"{per_day:.3g} alarms a day from this point alone"
    if abs(row.lag1) > 0.2:
        yield (
            f"neighbouring samples are alike (correlation {row.lag1:.2f}): believe the replayed "
            "figure, the predicted one takes them for independent"
        )


# ---------------------------------------------------------------------- telling


def _json_row(row: LevelLint) -> dict[str, Any]:
    found = asdict(row)
    found["detection_s"] = {
        name: (value if math.isfinite(value) else None) for name, value in row.detection_s.items()
    }
    return found


def _text(rows: Sequence[LevelLint]) -> Iterator[str]:
    """Noisiest first."""
    yield (
        f"{'rule':<28}{'point':<20}{'level':<6}{'predicted/d':>12}{'replayed/d':>12}"
        f"{'detected in':>14}"
    )
    for row in sorted(rows, key=lambda r: (-r.predicted_per_day, r.rule, r.point, r.level)):
        seconds = row.detection_s["1"]
        detected = span(seconds) if math.isfinite(seconds) else "never"
        tail = "~" if row.is_tail else ""
        yield (
            f"{row.rule:<28}{row.point:<20}{row.level:<6}"
            f"{tail + format(row.predicted_per_day, '.3g'):>12}{row.replayed_per_day:>12.3g}"
            f"{detected:>14}"
        )
        yield from (f"    {line}" for line in row.advice)
    yield ""
    yield "predicted: for independent samples of a normal place; ~ from the tail of a normal"
    yield "distribution. replayed: the rule core on the same days. detected in: where the mean"
    yield "moves to one spread beyond the limit."
