"""Formulas and windows over random histories, bit for bit: see laws.py.

Sums of 0.1, 0.2, 1e-9 and 1e12 in any cut; samples many to a cell and one in many cells; gaps, bad
samples, numbers too large to be summed; a calculation over a calculation.
"""

from __future__ import annotations

import math
import random

from laws import Law
from reference import story
from reference_logic import scalar_formula

from alarm_rules.kinds.calculation import KIND
from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import GroupBy, Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, RuleCase, Sample, Story, at_ns

SPANS_S = [0.5, 1.0, 1.0, 2.0, 5.0, 7.5]
QUALITIES = [0] * 12 + [
    int(Quality.UNCERTAIN),
    int(Quality.UNCERTAIN_CALIBRATING),
    int(Quality.BAD_SENSOR_FAULT),
]
VALUES = [0.1, 0.2, 0.2, 0.3, 0.7, 1.0, 2.5, -0.1, -4.0, 0.0, -0.0, 1e-9, 1e9 + 0.1, 1e12]


def _guarded_root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


# text with {s}, {t} for spans; names whose newest value is used; the same in Python
FORMULAS = [
    ("a - b", "ab", lambda v, w, s, t: v["a"] - v["b"]),
    ("a / b + 1", "ab", lambda v, w, s, t: v["a"] / v["b"] + 1),
    ("where(a > b, a - b, sqrt(b)) * 2", "ab",
     lambda v, w, s, t: (v["a"] - v["b"] if v["a"] > v["b"] else _guarded_root(v["b"])) * 2),
    ("2 * (1.5 * a / 10 + b / 50)", "ab", lambda v, w, s, t: 2 * (1.5 * v["a"] / 10 + v["b"] / 50)),
    ("sum_over(a, {s}) + 0 * b", "b", lambda v, w, s, t: w("sum", "a", s) + 0 * v["b"]),
    ("sum_over(a, {s}) + sum_over(b, {s})", "",
     lambda v, w, s, t: w("sum", "a", s) + w("sum", "b", s)),
    ("mean_over(a, {s}) - mean_over(a, {t}) + 0 * b", "b",
     lambda v, w, s, t: w("mean", "a", s) - w("mean", "a", t) + 0 * v["b"]),
    ("max_over(a, {s}) - min_over(a, {s}) + max_over(b, {t})", "",
     lambda v, w, s, t: w("max", "a", s) - w("min", "a", s) + w("max", "b", t)),
    ("change_over(a, {s}) + change_over(b, {t})", "",
     lambda v, w, s, t: w("change", "a", s) + w("change", "b", t)),
    ("increase_over(a, {s}) + sum_over(a, {s}) * b", "b",
     lambda v, w, s, t: w("increase", "a", s) + w("sum", "a", s) * v["b"]),
    ("a + change_over(a, {s}) + increase_over(b, {t})", "a",
     lambda v, w, s, t: v["a"] + w("change", "a", s) + w("increase", "b", t)),
]  # fmt: skip
AGAIN = ("max_over(c, {s}) + c", "c", lambda v, w, s, t: w("max", "c", s) + v["c"])


def _rule(rng: random.Random, number: int, formula, inputs: dict[str, Selector]) -> Rule:
    parameters: dict[str, object] = {
        "expression": formula[0].format(s=rng.choice(SPANS_S), t=rng.choice(SPANS_S)),
        "id": f"{{group}}.r{number}",
        "quantity": f"made{number}",
        "bad_share_max": rng.choice([0.0, 0.0, 0.3]),
    }
    if rng.random() < 0.5:
        parameters["max_input_age_s"] = rng.choice([0.5, 2.0, 5.0, 20.0])
    return Rule(f"r{number}", "calculation", inputs, parameters, group_by=GroupBy.DEVICE)


def make(rng: random.Random, histories: int) -> RuleCase:
    """The points share their moments, so that a case has few cuts and many histories."""
    inputs = {name: Selector(quantity=name) for name in "ab"}
    chosen = rng.sample(FORMULAS, 2)
    rules = [_rule(rng, n, formula, inputs) for n, formula in enumerate(chosen)]
    rules.append(_rule(rng, 2, AGAIN, {"c": Selector(quantity="made0")}))
    moments = _moments(rng)
    points, samples = [], []
    for number in range(histories // 2):
        for name in "ab":
            point = Point(id=f"d{number}.{name}", quantity=name, device=f"d{number}")
            points.append(point)
            samples += _history(rng, point.id, moments)
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 30.0]))


def _moments(rng: random.Random) -> list[float]:
    """Sparse, dense, or in clusters a span apart that share a cell: of 1 s it is 10.4 ms long."""
    steps = rng.choice(
        [[1.0], [0.5, 3.0], [0.004, 0.01], [0.01, 0.3, 9.0], [0.001, 0.002, 0.498, 0.5]]
    )
    found = [float(rng.randrange(3))]
    while len(found) < 18:
        found.append(round(found[-1] + rng.choice(steps), 3))
    return found


def _history(rng: random.Random, point: str, moments: list[float]) -> list[Sample]:
    often = rng.choice([0.3, 0.7, 1.0])
    found = []
    for time_s in moments:
        while rng.random() < often:
            value = rng.choice(VALUES)
            if rng.random() < 0.05:
                value = rng.choice([math.nan, math.inf, 2.0**41])
            found.append(Sample(point, time_s, value, rng.choice(QUALITIES)))
            if rng.random() < 0.9:
                break
    return found


def _spans(rule: Rule, formula) -> dict[str, float]:
    """The spans that were written into the rule's expression."""
    for s in SPANS_S:
        for t in SPANS_S:
            if formula[0].format(s=s, t=t) == rule.parameters["expression"]:
                return {"s": s, "t": t}
    raise AssertionError(rule)


def reference(case: RuleCase) -> Story:
    devices = sorted({point.device for point in case.points})
    formulas = {}
    for rule in case.rules:
        for formula in [*FORMULAS, AGAIN]:
            try:
                formulas[rule.id] = (formula, _spans(rule, formula))
            except AssertionError:
                continue
    found = []
    for device in devices:
        samples = [s for s in case.samples if s.point.startswith(f"{device}.")]
        made: list = []
        for rule in case.rules:
            formula, spans = formulas[rule.id]
            own = samples
            names = {name: f"{device}.{name}" for name in "ab"}
            if rule.id == "r2":
                names = {"c": f"{device}.r0"}
                own = [
                    Sample(
                        s.point,
                        (s.time_ns - at_ns(0)) / NS_PER_S,
                        math.nan if s.value is None else s.value,
                        s.quality,
                    )
                    for s in made
                    if s.point == f"{device}.r0"
                ]
            if rule.id == "r2" and not any(p.device == device for p in case.points):
                continue
            age_s = rule.parameters.get("max_input_age_s")
            made += scalar_formula(
                f"{device}.{rule.id}",
                names,
                lambda v, w, f=formula[2], k=spans: f(v, w, k["s"], k["t"]),
                own,
                direct=formula[1],
                max_age_ns=None if age_s is None else round(age_s * NS_PER_S),
                bad_share_max=rule.parameters["bad_share_max"],
            )
        found += made
    return story([], found)


LAW = Law(KIND, make, reference, behind="alike")
