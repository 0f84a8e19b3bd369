"""Limits over random histories of a polled site: see laws.py. Every point of it speaks at every
second, in order, so that calls of one second are ticks: what takes whole ticks in, few or many, is
measured against the same scalar reference as single rows are."""

from __future__ import annotations

import random

from law_limit import KIND, reference
from laws import Law

from gateway.model.point import Point
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample

DELAYS_S = [0.0, 0.5, 1.0, 2.0, 3.0]
VALUES = [-2.0, -1.0, -0.5, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0]
WILD = [-2.0, -1.0, 0.5, 1.0, 2.0]
RARE = [int(Quality.UNCERTAIN_CALIBRATING), int(Quality.UNCERTAIN), int(Quality.BAD)]


def _rule(rng: random.Random, number: int, selector: Selector) -> Rule:
    levels: dict[str, object] = {
        "H": {"limit": 1.0, "reset": rng.choice([1.0, 0.5]), "on_delay_s": rng.choice(DELAYS_S)},
        "HH": {"limit": rng.choice([1.0, 2.0]), "off_delay_s": rng.choice(DELAYS_S)},
    }
    if rng.random() < 0.5:
        levels["L"] = {"limit": -1.0, "reset": rng.choice([-1.0, -0.5])}
    delays = {name: rng.choice(DELAYS_S) for name in ("on_delay_s", "off_delay_s")}
    return Rule(f"r{number}", "limit", {"value": selector}, {"levels": levels}, **delays)


def make(rng: random.Random, histories: int) -> RuleCase:
    """One rule for all, or one for each half."""
    points = [Point(id=f"p{n}", quantity="qr"[n % 2], area="here") for n in range(histories)]
    stays, rare = rng.choice([0.0, 0.3, 0.8, 0.95]), rng.choice([0.0, 0.0, 0.01])
    values = rng.choice([VALUES, VALUES, WILD])
    value = dict.fromkeys((point.id for point in points), 0.0)
    samples = []
    for second in range(rng.choice([8, 16])):
        early_s = rng.choice([0.0, 0.0, 0.25])
        for point in points:
            if rng.random() > stays:
                value[point.id] = rng.choice(values)
            quality = rng.choice(RARE) if rng.random() < rare else 0
            samples.append(Sample(point.id, 1.0 + second - early_s, value[point.id], quality))
    selectors = [Selector(quantity=name) for name in "qr"]
    if rng.random() < 0.5:
        selectors = [Selector(area="here")]
    rules = [_rule(rng, number, selector) for number, selector in enumerate(selectors)]
    return RuleCase(rules, points, samples, end_s=rng.choice([0.0, 30.0]))


LAW = Law(KIND, make, reference, behind="each")
