"""What one seed means: the site, the devices' histories, and what goes wrong when.

    history   every point is quiet, and now and then beyond its limit for some seconds; quiet at the
              end, so that every alarm has its end too. Some devices measure twenty times a second
              now and then, and what they find then comes and goes between two turns of the disk
    rules     `now`     value >= 1, at once           every limit crossing, to the nanosecond
              `held`    the same for 4.5 s, ends after 2.5 s of quiet
              `silent`  nothing heard of a point for 20 s
    faults    up to FAULTS_MAX, of the kinds the seed chose; all of them end before `quiet_s`

Delays are no multiple of the intervals, so that no delay ends in the instant of a sample.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from math import ceil
from typing import Literal

from gateway.testing.sim.clock import START_NS
from gateway.testing.sim.devices import Message, Sample
from gateway.testing.sim.peers import MODES, Mode

LIMIT = 1.0
ON_DELAY_S = 4.5
OFF_DELAY_S = 2.5
SILENT_S = 20.0
DURATION_S = 150.0
QUIET_S = 20.0  # the last of the history: nothing is beyond a limit
FLURRY_SHARE = 0.4  # of devices
FLURRY_EVERY_S = 8.0  # about so long between two
FLURRY_S, FLURRY_INTERVAL_S = 1.0, 0.05  # how long, and how often it measures meanwhile
FAULTS_MAX = 6
NS = 1_000_000_000

FaultKind = Literal[
    "power_cut", "kill", "restart", "pause",
    "disk_error", "disk_full",
    "cut", "silence", "partition",
    "database", "broker", "broker_empty",
    "clock",
]  # fmt: skip
FAULT_KINDS: tuple[FaultKind, ...] = (
    "power_cut", "power_cut", "kill", "restart", "pause",
    "disk_error", "disk_full",
    "cut", "silence", "partition",
    "database", "broker", "broker_empty",
)  # fmt: skip
CLOCK_FAULT_KINDS: tuple[FaultKind, ...] = ("clock", "clock", "restart", "kill")
CLOCK_SHARE = 0.15
CLOCK_STEPS_S = (3_600.0, -3_600.0, 31_536_000.0, -31_536_000.0, 1.0, -0.5, 90.0, -90.0)

SITE = """
[site]
tenant = "t"
id = "s"
data_dir = "data"
[console]
enabled = false
[spool]
segment_rows_max = 300
tail_rows_max = 60
[judging]
tick_interval_s = 0.5
[[adapter]]
name = "line"
kind = "line"
[[sink]]
name = "store"
kind = "influxdb"
url = "http://database:8086"
api = "v1"
database = "d"
read_back = "none"
compression = "none"
lines_per_request = 50
[[sink]]
name = "told"
kind = "mqtt"
host = "broker"
"""
RULES = f"""
[[rule]]
id = "now"
kind = "limit"
value = {{ quantity = "gas" }}
priority = "critical"
parameters = {{ levels = {{ H = {{ limit = {LIMIT} }} }} }}
[[rule]]
id = "held"
kind = "limit"
value = {{ quantity = "gas" }}
priority = "high"
on_delay_s = {ON_DELAY_S}
off_delay_s = {OFF_DELAY_S}
parameters = {{ levels = {{ H = {{ limit = {LIMIT} }} }} }}
[[rule]]
id = "silent"
kind = "offline"
value = {{ quantity = "gas" }}
priority = "low"
parameters = {{ scope = "point", max_age_s = {SILENT_S}, priority_of_hidden = "own" }}
"""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    kind: FaultKind
    for_s: float = 0.0
    mode: Mode = "up"  # of a peer
    steps: int = 0  # a power cut or a disk error comes after so many things done to the disk
    below: str = ""  # which part of the disk
    code: int = 0
    calls: frozenset[str] = frozenset()
    offset_s: float = 0.0  # of a clock step

    def __str__(self) -> str:
        parts = [f"{self.at_s:.1f} {self.kind}"]
        parts += [f"{self.for_s:.1f} s"] if self.for_s else []
        parts += [self.mode] if self.mode != "up" else []
        parts += [f"after {self.steps}"] if self.steps else []
        parts += [f"{errno.errorcode[self.code]} {sorted(self.calls)}"] if self.code else []
        parts += [f"in {self.below}"] if self.below else []
        parts += [f"{self.offset_s:+g} s"] if self.offset_s else []
        return " ".join(parts)


@dataclass
class Plan:
    """One seed, spelled out."""

    seed: int
    points: list[str]
    devices: dict[str, list[Message]]
    faults: list[Fault]
    duration_s: float = DURATION_S

    @property
    def quiet_from_s(self) -> float:
        """All faults are over."""
        return max([self.duration_s, *(fault.at_s + fault.for_s for fault in self.faults)])

    @property
    def has(self) -> set[str]:
        return {fault.kind for fault in self.faults}

    def site(self) -> str:
        points = "".join(
            f'[[point]]\nid = "{name}"\nquantity = "gas"\nadapter = "line"\n'
            for name in self.points
        )
        return SITE + points + RULES


def plan_of(
    seed: int,
    *,
    kinds: tuple[FaultKind, ...] | None = None,
    duration_s: float = DURATION_S,
) -> Plan:
    """The plan of a seed. `kinds`: only such faults, in place of those the seed would choose."""
    rng = random.Random(f"{seed}/plan")  # noqa: S311  a seed, not a secret
    devices, points = {}, []
    for number in range(rng.randrange(2, 5)):
        name = f"dev{number}"
        own = [f"{name}.p{index}" for index in range(rng.randrange(1, 4))]
        devices[name] = history(rng, own, duration_s)
        points += own
    return Plan(seed, points, devices, _faults(rng, kinds, duration_s), duration_s)


def history(rng: random.Random, points: list[str], duration_s: float) -> list[Message]:
    """One device's measurements: all its points at once, at its own interval."""
    interval_s = rng.choice((1.0, 1.0, 2.0))
    phase_s = rng.uniform(0.1, 0.9)
    crossings = {point: _crossings(rng, duration_s - QUIET_S) for point in points}
    times_s = _times(phase_s, interval_s, duration_s)
    if rng.random() < FLURRY_SHARE:
        for begin_s in _flurries(rng, duration_s - QUIET_S):
            times_s += _times(begin_s, FLURRY_INTERVAL_S, begin_s + FLURRY_S)
            from_s = begin_s + rng.uniform(0.0, FLURRY_S / 2)
            crossings[rng.choice(points)].append((from_s, from_s + rng.uniform(0.05, 0.3)))
    messages = []
    for at_s in sorted(times_s):
        time_ns = START_NS + round(at_s * NS)
        samples = []
        for point in points:
            beyond = any(a <= at_s < b for a, b in crossings[point])
            low, high = (1.1, 1.9) if beyond else (0.1, 0.9)
            samples.append(Sample(point, time_ns, rng.uniform(low, high)))
        messages.append(Message(at_s + rng.uniform(0, 0.05), samples))
    return messages


def _times(from_s: float, interval_s: float, to_s: float) -> list[float]:
    return [from_s + number * interval_s for number in range(ceil((to_s - from_s) / interval_s))]


def _flurries(rng: random.Random, until_s: float) -> list[float]:
    found, at_s = list[float](), rng.expovariate(1 / FLURRY_EVERY_S)
    while at_s + FLURRY_S < until_s:
        found.append(at_s)
        at_s += FLURRY_S + rng.expovariate(1 / FLURRY_EVERY_S)
    return found


def _crossings(rng: random.Random, until_s: float) -> list[tuple[float, float]]:
    """When a point is beyond its limit."""
    found: list[tuple[float, float]] = []
    at_s = 0.0
    while True:
        at_s += rng.expovariate(1 / 25.0) + 1.0
        lasts_s = rng.choice((rng.uniform(0.5, 4.0), rng.uniform(6.0, 20.0)))
        if at_s + lasts_s > until_s:
            return found
        found.append((at_s, at_s + lasts_s))
        at_s += lasts_s


def _faults(
    rng: random.Random, kinds: tuple[FaultKind, ...] | None, duration_s: float
) -> list[Fault]:
    if kinds is None:
        chosen: tuple[FaultKind, ...] = FAULT_KINDS
        if rng.random() < CLOCK_SHARE:
            chosen = CLOCK_FAULT_KINDS
    else:
        chosen = kinds
    if not chosen:
        return []
    count = rng.randrange(FAULTS_MAX + 1) if kinds is None else rng.randrange(1, FAULTS_MAX + 1)
    span_s = duration_s - QUIET_S
    faults = [_fault(rng, rng.choice(chosen), span_s) for _ in range(count)]
    return sorted(faults, key=lambda fault: fault.at_s)


def _fault(rng: random.Random, kind: FaultKind, span_s: float) -> Fault:
    at_s = rng.uniform(0.5, span_s)
    for_s = rng.choice((rng.uniform(0.5, 5.0), rng.uniform(5.0, 40.0)))
    if kind in {"database", "broker"}:
        return Fault(at_s, kind, for_s, mode=rng.choice(MODES))
    if kind == "power_cut":
        return Fault(at_s, kind, for_s, steps=rng.randrange(80))
    if kind in {"kill", "partition", "pause"}:
        return Fault(at_s, kind, for_s)
    if kind == "clock":
        return Fault(at_s, kind, offset_s=rng.choice(CLOCK_STEPS_S))
    if kind in {"disk_error", "disk_full"}:
        return _disk_fault(rng, at_s, for_s, kind)
    return Fault(at_s, kind)


def _disk_fault(rng: random.Random, at_s: float, for_s: float, kind: FaultKind) -> Fault:
    below = rng.choice(("data/spool", "data/journal", ""))
    if kind == "disk_full":
        calls = frozenset(("write", "create"))
        return Fault(at_s, kind, for_s, below=below, code=errno.ENOSPC, calls=calls)
    call = rng.choice(("write", "sync", "sync", "truncate", "rename", "create"))
    steps = rng.randrange(20)
    return Fault(at_s, kind, steps=steps, below=below, code=errno.EIO, calls=frozenset((call,)))
