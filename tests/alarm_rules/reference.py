"""The rule kinds as plain loops over single samples: slow, obvious, and the measure of the arrays.

Written from the words of the design, not from the array code: one sample after the other, one level
after the other. Histories are given whole and in any order; rows are sorted by time here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby

from gateway.model.quality import BAD, UNCERTAIN, Quality
from gateway.testing.rule_kinds import START_NS, Change, DerivedSample, Sample, Story, at_ns

PLANNED = int(Quality.UNCERTAIN_CALIBRATING)
NS = 1_000_000_000


def usable(sample: Sample) -> bool:
    return sample.quality < BAD and not math.isnan(sample.value)


def shown(sample: Sample) -> tuple[bool, int, float]:
    """Of several samples that say the same at one time, the largest of these is shown: calibration
    only where nothing else was said."""
    return (sample.quality != PLANNED, -sample.quality, sample.value)


Run = tuple[int, float | None, int]
"""When the condition began that a level is in, by which value, of what quality."""


@dataclass
class ScalarLevel:
    name: str
    on_ns: int
    off_ns: int
    limit: float | None
    reset: float | None
    condition: bool = False
    output: bool = False
    since_ns: int = 0
    cause: float | None = None
    quality: int = 0
    output_planned: bool = False

    def run(self) -> Run:
        return self.since_ns, self.cause, self.quality

    def deadline(self) -> int | None:
        """When the running condition takes effect; None when it already has."""
        waits = self.condition != self.output or (
            self.condition and self.output_planned and self.quality != PLANNED
        )
        return self.since_ns + (self.on_ns if self.condition else self.off_ns) if waits else None


@dataclass
class ScalarInstance:
    """One alarm, lived through sample by sample."""

    key: str
    levels: list[ScalarLevel]
    changes: list[Change] = field(default_factory=list)
    fired_at: int = 0

    def current(self) -> int:
        return max((n + 1 for n, level in enumerate(self.levels) if level.output), default=0)

    def advance(self, until_ns: int) -> None:
        """Fire every delay that ends up to `until_ns`, in order of time."""
        while True:
            due = [d for level in self.levels if (d := level.deadline()) is not None]
            if not due or min(due) > until_ns:
                return
            now = min(due)
            self._take_effect(now, [lv for lv in self.levels if lv.deadline() == now])

    def _take_effect(self, now: int, levels: list[ScalarLevel]) -> None:
        before = self.current()
        again = self._output(levels)
        self._announce(now, before, again, {})

    def _output(self, levels: list[ScalarLevel]) -> list[ScalarLevel]:
        """The outputs become the conditions; returns those that stood on calibration until now."""
        again = []
        for level in levels:
            if level.condition and level.output and level.output_planned:
                again.append(level)
            level.output = level.condition
            level.output_planned = level.condition and level.quality == PLANNED
        return again

    def _announce(
        self, now: int, before: int, again: list[ScalarLevel], ended: dict[str, Run]
    ) -> None:
        """`ended`: by level, the run that ended now, where another one began."""
        after = self.current()
        top = self.levels[after - 1] if after else None
        if after != before or (top is not None and any(level is top for level in again)):
            decides = self.levels[max(before, after) - 1]
            since_ns, cause, quality = ended.get(decides.name, decides.run())
            limit = top.limit if top else decides.reset
            name = top.name if top else ""
            self.changes.append(Change(now, self.key, name, since_ns, cause, limit, quality))

    def step(
        self,
        now: int,
        said: list[tuple[bool | None, float | None, int]],
        *,
        by_clock: bool = False,
    ) -> None:
        """What the inputs say of each level at `now`: True, False or nothing. What a clock finds
        and the delays that end at that moment are one change; a sample speaks after them."""
        self.advance(now - by_clock)
        before = self.current()
        due = [level for level in self.levels if level.deadline() == now]
        ended = {level.name: level.run() for level in due}
        again, moved = self._output(due), []
        for level, (verdict, value, quality) in zip(self.levels, said, strict=True):
            if verdict is None:
                continue
            real_after_planned = (
                verdict and level.condition and level.quality == PLANNED and quality != PLANNED
            )
            if verdict != level.condition or real_after_planned:
                level.condition = verdict
                level.since_ns, level.cause, level.quality = now, value, quality
                if level.deadline() == now:
                    moved.append(level)
                    ended.pop(level.name, None)
        self._announce(now, before, again + self._output(moved), ended)


def by_time(samples: list[Sample]) -> list[tuple[int, list[Sample]]]:
    ordered = sorted(samples, key=lambda s: s.time_s)
    return [(at_ns(t), list(rows)) for t, rows in groupby(ordered, key=lambda s: s.time_s)]


def scalar_limit(instance: ScalarInstance, tests: list, samples: list[Sample], end_ns: int) -> None:
    """`tests`: for each level (beyond, back): functions of a value."""
    for now, rows in by_time(samples):
        said = []
        for beyond, back in tests:
            sets = [s for s in rows if usable(s) and beyond(s.value)]
            resets = [s for s in rows if usable(s) and back(s.value)]
            chosen = max(sets or resets, key=shown, default=None)
            if chosen is None:
                said.append((None, None, 0))
            else:
                said.append((bool(sets), chosen.value, chosen.quality))
        instance.step(now, said)
    instance.advance(end_ns)


def scalar_offline(
    instance: ScalarInstance, samples: list[Sample], *, age_ns: int, needs: str, end_ns: int
) -> None:
    last, silent = START_NS, False
    heard = [s for s in samples if needs == "any" or usable(s)]
    for now, _ in [*by_time(heard), (end_ns, [])]:
        if not silent and now - last >= age_ns:
            instance.step(last + age_ns, [(True, None, 0)], by_clock=True)
            silent = True
        if now == end_ns and not any(at_ns(s.time_s) == end_ns for s in heard):
            break
        if silent:
            instance.step(now, [(False, None, 0)])
            silent = False
        last = now
    instance.advance(end_ns)


def settled(rows: list[Sample]) -> Sample:
    """Of several samples of one input at one time, the one that counts."""
    return max(rows, key=lambda s: (usable(s), s.value if usable(s) else -math.inf, -s.quality))


def scalar_count(
    instances: dict[int, ScalarInstance],
    limits: dict[int, float],
    samples: list[Sample],
    end_ns: int,
) -> None:
    """Instances by area code; code -2 counts everybody."""
    where: dict[str, int] = {}
    counts: dict[int, int] = defaultdict(int)
    for now, rows in by_time([s for s in samples if usable(s)]):
        touched = set()
        for person in {s.point for s in rows}:
            area = int(settled([s for s in rows if s.point == person]).value)
            area = area if 0 <= area < 2**31 else -1  # what no device index can be is nowhere
            old = where.get(person, -1)
            where[person] = area
            if area != old:
                touched |= {area, old, -2}
        counts = defaultdict(int)
        for area in where.values():
            if area >= 0:
                counts[area] += 1
                counts[-2] += 1
        for code in touched & set(instances):
            over = counts[code] > limits[code]
            instances[code].step(now, [(over, float(counts[code]), 0)])
    for instance in instances.values():
        instance.advance(end_ns)


def scalar_calculation(
    point: str, inputs: dict[str, str], formula, samples: list[Sample], max_age_ns: int | None
) -> list[DerivedSample]:
    """`inputs`: name -> point id; `formula`: name -> value mapping to a number."""
    known: dict[str, tuple[int, Sample]] = {}
    found = []
    for now, rows in by_time([s for s in samples if s.point in inputs.values()]):
        for name, source in inputs.items():
            own = [s for s in rows if s.point == source]
            if own:
                known[name] = (now, settled(own))
        bad = False
        for name in inputs:
            if (
                name not in known
                or not usable(known[name][1])
                or (max_age_ns is not None and now - known[name][0] > max_age_ns)
            ):
                bad = True
        value = math.nan
        if not bad:
            try:
                value = formula({name: known[name][1].value for name in inputs})
            except (ZeroDivisionError, ValueError):
                value = math.nan
        if not math.isfinite(value):
            found.append(DerivedSample(point, now, None, int(Quality.BAD_DERIVED)))
            continue
        doubt = any(known[name][1].quality >= UNCERTAIN for name in inputs)
        quality = Quality.UNCERTAIN_DERIVED if doubt else Quality.GOOD
        if all(known[name][1].quality == PLANNED for name in inputs):
            quality = Quality.UNCERTAIN_CALIBRATING
        found.append(DerivedSample(point, now, value, int(quality)))
    return found


def story(instances: list[ScalarInstance], derived: list[DerivedSample] = ()) -> Story:
    changes = [change for instance in instances for change in instance.changes]
    changes.sort(key=lambda change: (change.time_ns, change.alarm_key))
    return Story(changes, sorted(derived, key=lambda s: (s.time_ns, s.point)))
