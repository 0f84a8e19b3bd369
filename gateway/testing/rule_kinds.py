"""`check_rule_kind`: what every rule kind must hold, whatever it judges.

Give it a case (rules, a point table, a history of samples) and it drives the real rule core
through it in many ways that must not matter: cut, mixed within the lateness, repeated, interrupted
by ticks, saved and loaded, with points renumbered, with strangers in between. A scalar reference,
where the test has one, is compared with the plainest drive.

Histories obey the one condition the core states: with a call `now`, everything up to
`now - lateness` has arrived; or, of a point that is behind, everything up to its newest sample and
as much later as has passed since that arrived. Random choices come from a seed, which is printed on
failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from alarm_rules.behind import BEHIND_MIN_NS
from alarm_rules.ruleset import Evaluation, RuleSet
from gateway.contract.rule_kind import RuleKind
from gateway.model.batch import Batch
from gateway.model.condition import Level
from gateway.model.point import Device, Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Rule
from gateway.testing.rule_changes import Exchanges, change_points, other_rules, that_join

NS_PER_S = 1_000_000_000
START_NS = 1_700_000_000 * NS_PER_S
CUTS_MAX = 60
"""Of one telling: among the samples of twenty histories that is a cut at every time there is."""
RESTARTS_MAX = 12
_BEHIND_MAX_S = 20.0
_STRANGER = "stranger.that.no.rule.asks.for"


class Sample(NamedTuple):
    """One row of a history; `time_s` counts from the start of the case."""

    point: str
    time_s: float
    value: float
    quality: int = 0


class Change(NamedTuple):
    """One change of level, by names instead of numbers. NaN is None, so that equality works."""

    time_ns: int
    alarm_key: str
    level: str  # "" for normal
    began_ns: int
    value: float | None
    limit: float | None
    quality: int


class DerivedSample(NamedTuple):
    """One sample of a calculated point, by name."""

    point: str
    time_ns: int
    value: float | None
    quality: int


class Story(NamedTuple):
    """Everything the core said about a history."""

    changes: list[Change]
    derived: list[DerivedSample]


@dataclass(frozen=True)
class RuleCase:
    """One site and what happened there."""

    rules: Sequence[Rule]
    points: Sequence[Point]
    samples: Sequence[Sample]
    devices: Sequence[Device] = ()
    kinds: Mapping[str, RuleKind] = field(default_factory=dict)  # those the rules need besides
    end_s: float = 0.0  # ticks go on until then; at least the last sample

    @property
    def end_ns(self) -> int:
        newest = max((sample.time_s for sample in self.samples), default=0.0)
        return at_ns(max(self.end_s, newest))


Reference = Callable[[RuleCase], Story]

Behind = Literal["", "alike", "each"]
"""How late samples may come in without another story: all points by one span (else those that are
judged together would be told in another order), or each by its own."""


def at_ns(time_s: float) -> int:
    return START_NS + round(time_s * NS_PER_S)


def check_rule_kind(
    kind: RuleKind,
    case: RuleCase,
    *,
    reference: Reference | None = None,
    behind: Behind = "",
    seed: int = 0,
) -> Story:
    """Every law over one case; returns what the core said. `behind`: of a kind that looks at no
    clock but for its delays."""
    kinds = {**case.kinds, kind.name: kind}
    plain = drive(case, kinds)
    if reference is not None:
        expected = reference(case)
        assert plain.changes == expected.changes, _differ("the reference", plain, expected)
        assert plain.derived == expected.derived, _differ("the reference", plain, expected)
    rng = random.Random(seed)  # noqa: S311  a seeded test, not a secret
    ways = {
        "cut anywhere, with ticks": Way(cuts=True),
        "saved and loaded between cuts": Way(cuts=True, restarts=True),
        "repeated": Way(cuts=True, repeats=True),
        "mixed within the lateness": Way(cuts=True, lateness_s=3.0, repeats=True),
        "mixed, repeated and restarted": Way(
            cuts=True, restarts=True, repeats=True, lateness_s=3.0
        ),
        "with points renumbered": Way(renumbered=True),
        "among strangers": Way(strangers=True),
    }
    for name, way in ways.items():
        told = drive(case, kinds, way=way, rng=rng)
        known = plain if not way.lateness_s else drive(case, kinds, way=Way(lateness_s=3.0))
        assert told == known, f"seed {seed}: " + _differ(name, told, known)
    if behind:
        _check_behind(case, kinds, behind, rng, seed)
    check_nothing_happens_without_samples(case, kinds)
    return plain


def _check_behind(
    case: RuleCase, kinds: Mapping[str, RuleKind], behind: Behind, rng: random.Random, seed: int
) -> None:
    """Samples that come in late, by devices whose clocks are believed."""
    believed = [each for each in case.samples if each.quality != Quality.UNCERTAIN_CLOCK]
    case = replace(case, samples=believed, end_s=max(each.time_s for each in case.samples))
    known = drive(case, kinds)
    for restarts in (False, True):
        way = Way(cuts=True, repeats=True, restarts=restarts, behind=behind)
        told = drive(case, kinds, way=way, rng=rng)
        name = f"from devices that are behind{', restarted' * restarts}"
        assert told == known, f"seed {seed}: " + _differ(name, told, known)


def check_exchange(
    kind: RuleKind, case: RuleCase, others: Sequence[Rule], *, seed: int = 0
) -> tuple[int, int]:
    """The law of `RuleSet.exchange`: rules that are edited, added, dropped and brought back, and
    points that join and move at the same time, while a history is told, give in place what new rule
    sets give that are loaded with the state of the one before; and what is judged then is what a
    new set judges. `others`: more rules over the same points. Returns how many exchanges there
    were, and how many of them were done in place."""
    kinds = {**case.kinds, kind.name: kind}
    done = [0, 0]
    for way in (
        Way(cuts=True, repeats=True),
        Way(cuts=True, repeats=True, restarts=True),
        Way(cuts=True, lateness_s=3.0, repeats=True),
    ):
        told = [
            drive(
                case,
                kinds,
                way=replace(way, exchanges=Exchanges(tuple(others), in_place, done)),
                rng=random.Random(f"{seed} {way}"),  # noqa: S311  a seeded test, not a secret
            )
            for in_place in (True, False)
        ]
        assert told[0] == told[1], f"seed {seed}: " + _differ(f"in place, {way}", *told)
    return done[0], done[1]


@dataclass(frozen=True)
class Way:
    """How a history is told."""

    cuts: bool = False
    restarts: bool = False
    repeats: bool = False
    lateness_s: float = 0.0
    renumbered: bool = False
    strangers: bool = False
    behind: Behind = ""
    exchanges: Exchanges | None = None


class _Arrival(NamedTuple):
    arrival_ns: int
    order: int
    sample: Sample


def drive(
    case: RuleCase,
    kinds: Mapping[str, RuleKind],
    *,
    way: Way = Way(),
    rng: random.Random | None = None,
) -> Story:
    """Tell the history to a fresh rule set and note what it says, up to the end of the case."""
    rng = rng or random.Random(0)  # noqa: S311  a seeded test, not a secret
    joining = [] if way.exchanges is None else that_join(case.points, rng)
    table = _table(case, way, rng, without=joining)
    lateness_ns = round(way.lateness_s * NS_PER_S)

    def settled(rules: RuleSet) -> RuleSet:
        rules.refresh()
        while points := rules.derived_points():
            for point in points:
                table.put(point)
            rules.refresh()
        return rules

    def fresh() -> RuleSet:
        return settled(RuleSet(stated, kinds, table, lateness_ns=lateness_ns))

    stated = case.rules
    rules = fresh()
    story = Story([], [])
    _note(story, rules, rules.evaluate(Batch.empty(), START_NS), table)
    calls = _calls(case, way, rng)
    for now_ns, arrived in calls:
        _note(story, rules, rules.evaluate(_batch(arrived, table, way), now_ns), table)
        if way.restarts and rng.random() < min(0.5, RESTARTS_MAX / len(calls)):
            saved, rules = rules.save(), fresh()
            rules.load(saved)
        if way.exchanges is not None and rng.random() < min(0.5, RESTARTS_MAX / len(calls)):
            change_points(table, case.points, case.devices, joining, rng)
            if rng.random() < 0.5:
                settled(rules)
            if rng.random() < 0.85:  # else the same rules again
                stated = other_rules(case.rules, way.exchanges.others, kinds, rng)
            if not (way.exchanges.in_place and rules.exchange(stated)):
                saved, rules = rules.save(), fresh()
                rules.load(saved)
            else:
                differs = _judged(settled(rules)) ^ _judged(fresh())
                assert not differs, f"judged in place or by a new set, not by both: {differs}"
                way.exchanges.done[1] += 1
            way.exchanges.done[0] += way.exchanges.in_place
    if way.behind:  # who is behind less was told of more
        end_ns = case.end_ns
        story.changes[:] = [change for change in story.changes if change.time_ns <= end_ns]
    story.changes.sort(key=lambda change: (change.time_ns, change.alarm_key))
    story.derived.sort(key=lambda sample: (sample.time_ns, sample.point))
    return story


def _judged(rules: RuleSet) -> set[tuple[str, tuple[Level, ...]]]:
    """What a set judges, and by which levels."""
    judged = [rules.instances[int(n)] for n in np.flatnonzero(rules.live)]
    return {(one.alarm_key, one.levels) for one in judged}


def _table(
    case: RuleCase, way: Way, rng: random.Random, *, without: Sequence[Point] = ()
) -> PointTable:
    table = PointTable()
    for device in case.devices:
        table.put_device(device)
    points = [point for point in case.points if point not in without]
    if way.renumbered:
        points += [Point(id=f"filler.{number}") for number in range(5)]
        rng.shuffle(points)
    for point in points:
        table.put(point)
    if way.strangers:
        table.put(Point(id=_STRANGER))
    return table


def _calls(case: RuleCase, way: Way, rng: random.Random) -> list[tuple[int, list[_Arrival]]]:
    """(now, rows) of each call. A row is handed over by the first call at or after its arrival."""
    lateness_ns = round(way.lateness_s * NS_PER_S)
    end_ns = case.end_ns + lateness_ns
    took_ns = [0] * len(case.samples)
    if way.behind:
        took_ns = _behind(case, rng, each=way.behind == "each")
        end_ns += max(took_ns, default=0)
    arrivals = [
        _Arrival(at_ns(s.time_s) + took_ns[n] + rng.randrange(lateness_ns or 1), n, s)
        for n, s in enumerate(case.samples)
    ]
    if way.repeats:
        again = [a for a in arrivals if rng.random() < 0.4]
        arrivals += [
            _Arrival(min(end_ns, a.arrival_ns + rng.randrange(1, 20 * NS_PER_S)), a.order, a.sample)
            for a in again
        ]
    arrivals.sort()
    nows = {end_ns}
    if way.cuts:
        wanted = sorted({a.arrival_ns for a in arrivals if rng.random() < 0.5})
        nows |= set(rng.sample(wanted, min(CUTS_MAX, len(wanted))))
        nows |= {rng.randrange(START_NS, end_ns + 1) for _ in range(6)}
    calls, begin = [], 0
    for now_ns in sorted(nows):
        end = begin
        while end < len(arrivals) and arrivals[end].arrival_ns <= now_ns:
            end += 1
        calls.append((now_ns, arrivals[begin:end]))
        begin = end
    return calls


def _behind(case: RuleCase, rng: random.Random, *, each: bool) -> list[int]:
    """How long each sample takes to come in. Each point has a span of its own, which becomes
    shorter as it catches up, and nothing overtakes; or all have the same."""
    longest_ns = rng.randrange(BEHIND_MIN_NS + 1, round(_BEHIND_MAX_S * NS_PER_S))
    found = [longest_ns] * len(case.samples)
    if not each:
        return found
    newest: dict[str, _Arrival] = {}
    for n, sample in sorted(enumerate(case.samples), key=lambda one: one[1].time_s):
        time_ns, before = at_ns(sample.time_s), newest.get(sample.point)
        took_ns = rng.choice((0, longest_ns, rng.randrange(longest_ns)))
        least_ns = 0
        if before is not None:
            took_ns = before.arrival_ns - at_ns(before.sample.time_s)
            least_ns = before.arrival_ns - time_ns
            if time_ns > at_ns(before.sample.time_s):
                took_ns -= min(took_ns, rng.choice((0, 0, 1, 3)) * NS_PER_S)
        took_ns = max(took_ns, least_ns)
        if took_ns <= BEHIND_MIN_NS:  # so much counts as nothing, and must be that here
            took_ns = 0 if least_ns <= 0 else BEHIND_MIN_NS + 1
        found[n] = took_ns
        newest[sample.point] = _Arrival(time_ns + took_ns, n, sample)
    return found


def _batch(arrived: Sequence[_Arrival], table: PointTable, way: Way) -> Batch:
    rows = [each for each in arrived if each.sample.point in table]  # some join later
    if way.strangers:
        rows += [each._replace(sample=each.sample._replace(point=_STRANGER)) for each in arrived]
    samples = [each.sample for each in rows]
    batch = Batch.of(
        [table.index(s.point) for s in samples],
        [1e9 if s.point == _STRANGER else s.value for s in samples],
        [at_ns(s.time_s) for s in samples],
        quality=[s.quality for s in samples],
        received_time_ns=[_received_ns(each) for each in rows],
    )
    assert not batch.value.flags.writeable, "the core is handed read-only input"
    return batch


def _received_ns(arrived: _Arrival) -> int:
    """Of a clock that is not believed the receipt is the time, whenever it is told again."""
    sample = arrived.sample
    by_receipt = sample.quality == Quality.UNCERTAIN_CLOCK
    return at_ns(sample.time_s) if by_receipt else arrived.arrival_ns


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _note(story: Story, rules: RuleSet, found: Evaluation, table: PointTable) -> None:
    """Add what one call said; rows of one call must stand in order of time and instance."""
    rows = found.conditions
    order = list(zip(rows.time_ns.tolist(), rows.instance.tolist(), strict=True))
    assert order == sorted(order), "conditions are ordered by (time, instance)"
    for i in range(len(rows)):
        instance = rules.instances[rows.instance[i]]
        level = int(rows.level[i])
        story.changes.append(
            Change(
                time_ns=int(rows.time_ns[i]),
                alarm_key=instance.alarm_key,
                level=instance.levels[level - 1].name if level else "",
                began_ns=int(rows.began_ns[i]),
                value=_number(rows.value[i]),
                limit=_number(rows.limit[i]),
                quality=int(rows.quality[i]),
            )
        )
    derived = found.derived
    story.derived.extend(
        DerivedSample(
            table[int(derived.point_index[i])].id,
            int(derived.source_time_ns[i]),
            _number(derived.value[i]),
            int(derived.quality[i]),
        )
        for i in range(len(derived))
    )


def check_nothing_happens_without_samples(case: RuleCase, kinds: Mapping[str, RuleKind]) -> None:
    """Empty batches at one time over and over, and bad values alone, raise no value alarm."""
    silent = RuleCase(case.rules, case.points, (), case.devices, case.kinds, 0.0)
    assert drive(silent, kinds) == Story([], []), "a tick at the start said something"
    hold = [
        Sample(s.point, s.time_s, s.value if n % 2 else float("nan"), int(Quality.BAD) * (n % 2))
        for n, s in enumerate(case.samples)
    ]
    told = drive(RuleCase(case.rules, case.points, hold, case.devices, case.kinds), kinds)
    spoken = [change for change in told.changes if change.value is not None]
    assert not spoken, f"values that are bad or no number were judged: {spoken}"


def _differ(name: str, told: Story, expected: Story) -> str:
    lines = [f"{name} told another story"]
    for what, left, right in (
        ("change", told.changes, expected.changes),
        ("derived", told.derived, expected.derived),
    ):
        lines += [f"  only here, {what}: {row}" for row in left if row not in right]
        lines += [f"  missing, {what}: {row}" for row in right if row not in left]
    return "\n".join(lines)
