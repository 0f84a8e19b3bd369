"""Cases of rules about people and vehicles, and of what several points say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pack_case_tools import (
    TICK_S,
    PackCase,
    Story,
    at,
    before,
    beyond,
    people,
    place,
)

from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule, Selector
from gateway.testing.rule_kinds import NS_PER_S, START_NS, Sample

# ---------------------------------------------------------------------- people


def count_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    capacity = 10
    scope, allowed = parameters.scope, math.floor(capacity * parameters.factor + 1e-9)
    home = Device("place", scope, attributes={"capacity": str(capacity)})
    crowd = people(rule, allowed + 2)
    on_s, off_s = rule.on_delay_s, rule.off_delay_s

    def case(name: str, size: int, told: Story, *more: Sample, end_s: float) -> PackCase:
        rows = [Sample(person.id, 0.0, 0.0) for person in crowd[:size]]
        return PackCase(name, [*rows, *more], told, crowd, [home], end_s)

    over = [(on_s, "OVER")]
    yield case("boundary: as many as may be", allowed, [], end_s=on_s + 1)
    yield case("positive: one more", allowed + 1, over, end_s=on_s + 1)
    yield case("negative: nobody", 0, [], Sample(crowd[0].id, 0.0, -1.0), end_s=on_s + 1)
    leaves = Sample(crowd[0].id, on_s + 1, -1.0)
    ended = [*over, (on_s + 1 + off_s, "")]
    yield case("boundary: one leaves", allowed + 1, ended, leaves, end_s=on_s + 1 + off_s)
    yield case("boundary: ends not before its off-delay", allowed + 1, over, leaves,
               end_s=on_s + 1 + off_s - TICK_S)  # fmt: skip
    if on_s:
        soon = Sample(crowd[0].id, on_s - TICK_S, -1.0)
        yield case("negative: gone within the on-delay", allowed + 1, [], soon, end_s=on_s + 1)
    nobody_knows = PackCase(
        "negative: no approved number is known", [Sample(p.id, 0.0, 0.0) for p in crowd], [],
        crowd, [Device("place", scope)], on_s + 1,
    )  # fmt: skip
    yield nobody_knows


def _areas(parameters: Any) -> tuple[list[Device], float]:
    """An area the rule speaks of and one it does not; the code of the first."""
    by = parameters.areas_by
    inside = {by.attribute: by.values[0]} if by else {}
    devices = [Device("elsewhere", "area"), Device("here", "area", attributes=inside)]
    return devices, 1.0


def dwell_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    devices, here = _areas(parameters)
    (person,) = people(rule)
    listed = bool(parameters.areas or parameters.areas_by)
    ladder = [(parameters.limit_s + rule.on_delay_s, "OVERTIME")]
    if parameters.warn_s is not None:
        ladder.insert(0, (parameters.warn_s + rule.on_delay_s, "WARN"))
    last_s = ladder[-1][0]

    def case(name: str, rows: list[tuple[float, float]], told: Story, end_s: float) -> PackCase:
        return PackCase(name, at(person.id, *rows), told, [person], devices, end_s)

    yield case("positive: stays", [(0, here)], ladder, last_s + 1)
    for number, (time_s, level) in enumerate(ladder):
        told = ladder[: number + 1]
        yield case(f"boundary: {level} exactly then", [(0, here)], told, time_s)
        yield case(f"negative: {level} not before", [(0, here)], told[:-1], time_s - TICK_S)
    first_s, gone_s = ladder[0][0], parameters.leave_min_s
    leaves = [(0, here), (first_s - gone_s - TICK_S, -1.0)]
    yield case("negative: leaves in time", leaves, [], 2 * last_s)
    out = [(0, here), (last_s + 1, -1.0)]
    ended = [*ladder, (last_s + 1 + gone_s + rule.off_delay_s, "")]
    yield case("boundary: out for long enough ends it", out, ended, ended[-1][0])
    brief = [(0, here), (1.0, -1.0), (1.0 + gone_s - TICK_S, here)]
    if gone_s:
        yield case("boundary: missed for less than that", brief, ladder, last_s)
    if listed:
        yield case("negative: somewhere else", [(0, 0.0)], [], 2 * last_s)


def area_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    devices, here = _areas(parameters)
    (person,) = people(rule)
    there = 0.0
    if parameters.mode == "permit":
        here, there = there, here
    on_s, off_s = rule.on_delay_s, rule.off_delay_s
    gap = on_s + off_s + 1

    def case(name: str, told: Story, *rows: tuple[float, float], **changes: Any) -> PackCase:
        made = PackCase(name, at(person.id, *rows), told, [person], devices, rows[-1][0] + gap)
        return replace(made, **changes)

    told = [(on_s, "FORBIDDEN"), (gap + off_s, "")]
    yield case("positive: goes in and out", told, (0, here), (gap, there))
    yield case("positive: leaves the mine", told, (0, here), (gap, -1.0))
    yield case("negative: where he may be", [], (0, there))
    yield case("negative: nowhere", [], (0, -1.0))
    yield case("boundary: exactly after the on-delay", told[:1], (0, here), end_s=on_s)
    if on_s:
        brief = ((0, here), (on_s - TICK_S, there))
        yield case("boundary: out again within the on-delay", [], *brief)
    if parameters.allowed_attribute and parameters.mode == "forbid":
        allowed = Device(person.device, "person", attributes={parameters.allowed_attribute: "here"})
        yield case("negative: he is allowed", [], (0, here), devices=[*devices, allowed])


# ---------------------------------------------------------------------- calculation


def calculation_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    """The formula as Python reads it, over inputs that stand still."""
    made = {name: place(selector, name) for name, selector in rule.inputs.items()}
    points = [point for point, _ in made.values()]
    devices = next(iter(made.values()))[1]
    key = {"device": "d", "area": "a", "adapter": "x", "site": "site"}.get(
        str(rule.group_by), points[0].id
    )
    target = parameters.id.replace("{group}", key)
    values = {name: 3.0 + 2.0 * n for n, name in enumerate(made)}
    spans = [
        s
        for s in (3600.0 * h for h in (3, 6, 12, 24))
        if str(int(s)) in rule.parameters["expression"]
    ]

    def answer(**windows: float) -> float:
        functions = {name: (lambda *_, value=value: value) for name, value in windows.items()}
        scope = {**values, **functions, "abs": abs, "min": min, "max": max}
        found = eval(rule.parameters["expression"], {"__builtins__": {}}, scope)
        return found if parameters.decimals is None else round(found, parameters.decimals)

    def case(name: str, samples: list[Sample], *rows: tuple[str, float, float | None]) -> PackCase:
        return PackCase(name, samples, [], points, devices, derived=rows)

    if spans:
        (name,), (span_s,) = made, spans
        x = values[name]
        rows = at(name, (0, x), (span_s - 1, x), (span_s, x))
        yield case(
            "positive: both within the span", rows, (target, span_s - 1, answer(sum_over=2 * x))
        )
        yield case("boundary: the first is out when the span is over", rows,
                   (target, span_s, answer(sum_over=2 * x)))  # fmt: skip
        bad = [Sample(name, 0.0, x, int(Quality.BAD_SENSOR_FAULT)), Sample(name, 1.0, x)]
        yield case("negative: a bad sample makes no sum", bad, (target, 1.0, None))
        return
    every = [Sample(name, 0.0, value) for name, value in values.items()]
    yield case("positive: all inputs", every, (target, 0.0, answer()))
    for name in values if len(values) > 1 else ():
        missing = [sample for sample in every if sample.point != name]
        yield case(f"negative: without {name}", missing, (target, 0.0, None))
    yield from _aged(parameters, case, values, (target, answer()))


def _aged(
    parameters: Any,
    case: Callable[..., PackCase],
    values: Mapping[str, float],
    result: tuple[str, float],
) -> Iterator[PackCase]:
    first, *others = values
    age_s = parameters.max_input_age_s or 86_400.0
    early = [Sample(first, 0.0, values[first])]
    late = [Sample(name, age_s, values[name]) for name in others]
    yield case("boundary: an input as old as allowed", early + late, (result[0], age_s, result[1]))
    if parameters.max_input_age_s is not None:
        later = [Sample(s.point, age_s + TICK_S, s.value) for s in late]
        yield case("boundary: an input older than that", early + later,
                   (result[0], age_s + TICK_S, None))  # fmt: skip


# ---------------------------------------------------------------------- vehicles


def until(text: str, utc_offset_h: float) -> float:
    """Seconds from the start of a case to the next such time of day."""
    hours, minutes = text.split(":")
    started_s = START_NS // NS_PER_S + round(utc_offset_h * 3600)
    return float((int(hours) * 3600 + int(minutes) * 60 - started_s) % 86_400)


def vehicle(rule: Rule) -> tuple[list[Point], list[Device]]:
    point, _ = place(rule.inputs["speed"], kind=PointKind.SPEED, device="v", unit="km/h")
    return [point], [Device("v", "vehicle", adapter="x")]


def overspeed_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    points, devices = vehicle(rule)
    on_s, off_s = rule.on_delay_s, rule.off_delay_s
    gap = on_s + off_s + 1
    day_kmh = parameters.limit_kmh + parameters.tolerance_kmh
    times = [(until("12:00", parameters.utc_offset_h), day_kmh, "by day")]
    if parameters.night_factor is not None:
        window = rule.parameters["night"]
        night_kmh = parameters.limit_kmh * parameters.night_factor + parameters.tolerance_kmh
        begins = until(window["from"], parameters.utc_offset_h)
        times.append((begins, night_kmh, "by night"))
        ends = until(window["to"], parameters.utc_offset_h)
        rows = at("p", (begins - 1, day_kmh), (ends + 86_400, day_kmh))
        yield PackCase("boundary: neither before nor after the night", rows, [], points, devices)

    def case(name: str, start_s: float, told: Story, *rows: tuple[float, float]) -> PackCase:
        samples = at("p", *((start_s + t, speed) for t, speed in rows))
        story = [(start_s + t, level) for t, level in told]
        return PackCase(name, samples, story, points, devices, start_s + 3 * gap)

    for start_s, limit, when in times:
        over = beyond(limit, True)
        ends = limit - parameters.hysteresis_kmh
        told = [(on_s, "OVERSPEED"), (gap + off_s, "")]
        yield case(f"positive: {when}", start_s, told, (0, limit + 20), (gap, 0.0))
        yield case(f"boundary: just over, until at the limit, {when}", start_s, told,
                   (0, over), (gap, ends))  # fmt: skip
        yield case(f"negative: at the limit, {when}", start_s, [], (0, limit))
        if on_s:
            brief = ((0, limit + 20), (on_s - TICK_S, 0.0))
            yield case(f"negative: for less than the on-delay, {when}", start_s, [], *brief)
    yield from _other_class(rule, [200.0])


def _other_class(rule: Rule, speeds: Sequence[float]) -> Iterator[PackCase]:
    (point,), devices = vehicle(rule)
    other = replace(point, attributes={"vehicle_class": "another"})
    rows = at("p", *((60.0 * n, speed) for n, speed in enumerate(speeds)))
    yield PackCase("negative: a vehicle of another class", rows, [], [other], devices, 1e5)


def driving_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    fast, slow = parameters.moving_kmh, before(parameters.moving_kmh, True)
    limits = []
    warn_s = parameters.pre_warn_s
    if parameters.drive_max_s is not None:
        limits.append(("FATIGUE", parameters.drive_max_s, "08:00"))
    if parameters.night is not None:
        limits.append(("NIGHT", parameters.night.drive_max_s, rule.parameters["night"]["from"]))
    if parameters.daily_max_s is not None:
        limits.append(("DAILY", parameters.daily_max_s, "08:00"))
    for level, limit_s, clock in limits:
        start_s = until(clock, parameters.utc_offset_h)
        warned = [] if warn_s is None or level == "DAILY" else [(limit_s - warn_s, "PREWARN")]
        case = _drive(rule, parameters, start_s)
        told = [*warned, (limit_s, level)]
        yield case(f"boundary: {level} at its time", told, [(limit_s + 1, fast)], limit_s)
        yield case(f"negative: {level} a second before", warned, [(limit_s, fast)], limit_s - 1)
        yield case(f"negative: {level} too slow to be moving", [], [(2 * limit_s, slow)])
        if level == "DAILY":
            continue
        rest_s = parameters.rest_min_s
        rested = [(limit_s / 2, fast), (rest_s, 0.0), (limit_s / 2, fast)]
        yield case(f"negative: {level} with a rest half-way", [], rested, limit_s + rest_s - 1)
        short = [(limit_s / 2, fast), (rest_s - 1, 0.0), (limit_s / 2 + 1, fast)]
        late_s = 0.0 if parameters.short_stops == "driving" else rest_s - 1
        told = [(limit_s + late_s, level)]
        yield case(f"positive: {level}, a rest too short", told, short, limit_s + late_s, last=1)
        whole = [(limit_s, fast), (rest_s + 1, 0.0)]
        told = [*warned, (limit_s, level), (limit_s + rest_s, "")]
        yield case(f"positive: {level} until a whole rest", told, whole)
    if parameters.daily_max_s is not None:
        half_s = parameters.daily_max_s / 2
        yield _drive(rule, parameters, until("08:00", parameters.utc_offset_h))(
            "positive: DAILY over two stretches", [(parameters.daily_max_s + 3600, "DAILY")],
            [(half_s, fast), (3600, 0.0), (half_s + 1, fast)],
        )  # fmt: skip
    if parameters.ban is not None:
        yield from _ban_cases(rule, parameters, fast, slow)
    yield from _other_class(rule, [80.0] * 300)


def _ban_cases(rule: Rule, parameters: Any, fast: float, slow: float) -> Iterator[PackCase]:
    begins = until(rule.parameters["ban"]["from"], parameters.utc_offset_h)
    length_s = parameters.ban.length_ns / NS_PER_S
    on_s = rule.on_delay_s
    case = _drive(rule, parameters, begins - 600)
    through = [(600 + on_s, "NIGHTBAN"), (600 + length_s, "")]
    yield case("boundary: NIGHTBAN from its beginning to its end", through,
               [(length_s + 1200, fast)])  # fmt: skip
    stops = [(600 + on_s, "NIGHTBAN"), (1500, "")]
    yield case("positive: NIGHTBAN until it stands", stops, [(1500, fast), (600, 0.0)])
    yield case("negative: stands before NIGHTBAN", [], [(599, fast), (2400, 0.0)])
    yield case("negative: NIGHTBAN too slow to be moving", [], [(length_s, slow)])


def _drive(rule: Rule, parameters: Any, start_s: float) -> Callable[..., PackCase]:
    """Stretches of (seconds, speed), with samples often enough that nothing is unknown."""
    points, devices = vehicle(rule)

    def case(
        name: str, told: Story, stretches: list[tuple[float, float]], end_s: float | None = None,
        *, last: int = 0,
    ) -> PackCase:  # fmt: skip
        rows, begin = [], 0.0
        step = parameters.gap_max_s * 0.8
        for length_s, speed in stretches:
            rows += [(begin + step * k, speed) for k in range(math.ceil(length_s / step))]
            begin += length_s
        rows.append((begin, stretches[-1][1]))
        end = begin if end_s is None else end_s
        samples = at("p", *((start_s + t, speed) for t, speed in rows if t <= end))
        story = [(start_s + t, level) for t, level in told]
        made = PackCase(name, samples, story, points, devices, start_s + end)
        return replace(made, only_last=last)

    return case


# ---------------------------------------------------------------------- several points


def n_of_m_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    count = max(parameters.m or 0, parameters.n) + (parameters.m is None)
    made = [place(rule.inputs["value"], f"p{k}") for k in range(count)]
    points, devices = [point for point, _ in made], made[0][1]
    up = parameters.operator[0] == ">"
    inclusive = parameters.operator.endswith("=")
    yes = parameters.limit if inclusive else beyond(parameters.limit, up)
    no = before(parameters.limit, up) if inclusive else parameters.limit
    gap = rule.on_delay_s + rule.off_delay_s + 1

    def case(name: str, told: Story, *ayes: int) -> PackCase:
        rows = [
            Sample(f"p{k}", n * gap, yes if k < aye else no)
            for n, aye in enumerate(ayes)
            for k in range(count)
        ]
        return PackCase(name, rows, told, points, devices, len(ayes) * gap)

    told = [(rule.on_delay_s, "VOTE"), (gap + rule.off_delay_s, "")]
    yield case("positive: all", told, count, 0)
    yield case("boundary: just as many as are needed", told, parameters.n, parameters.n - 1)
    yield case("negative: one too few", [], parameters.n - 1)


def combination_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    """Members are limits of the scheme, one value a colour, with the ids the rule asks for."""
    colours = parameters.colours
    selector = replace(rule.inputs["value"], quantity=rule.inputs["value"].quantity or "member")
    helpers = [
        _member(pattern.replace("*", "member"), replace(selector, quantity=quantity), parameters)
        for pattern, quantity in zip(
            parameters.rules, [selector.quantity, "other1", "other2", "other3"], strict=False
        )
    ]
    gap = rule.on_delay_s + rule.off_delay_s + 1
    most = max(step.count for step in parameters.steps)
    made = [place(selector, f"p{k}") for k in range(most)]
    points, devices = [point for point, _ in made], made[0][1]

    def case(name: str, told: list[str], *moments: tuple[int, str]) -> PackCase:
        """So many members of a colour at each moment; a second word for another colour."""
        rows = [
            Sample(f"p{k}", n * gap, colours.index(colour) + 1.0 if k < size else 0.0)
            for n, (size, colour) in enumerate(moments)
            for k in range(most)
        ]
        story = [
            (n * gap + (rule.on_delay_s if level else rule.off_delay_s), level)
            for n, level in enumerate(told)
        ]
        changed = [row for row, was in zip(story, ["", *told], strict=False) if row[1] != was]
        return PackCase(name, rows, changed, points, devices, len(moments) * gap, helpers)

    for step in parameters.steps:
        alone = step.of if parameters.include_members else ""
        text = f"{step.count} {step.of}"
        yield case(f"positive: {text}", [step.makes], (step.count, step.of))
        yield case(f"boundary: {text}, one goes", [step.makes, alone],
                   (step.count, step.of), (step.count - 1, step.of))  # fmt: skip
        yield case(f"negative: one less than {text}", [alone], (step.count - 1, step.of))
    yield case("negative: nobody", [], (0, colours[0]))
    strangers = [replace(helper, scheme="another") for helper in helpers]
    many = case("negative: colours of another scheme", [], (most, colours[-1]))
    yield replace(many, helpers=[*strangers, _member("plain", selector, parameters)])


def _member(rule_id: str, selector: Selector, parameters: Any) -> Rule:
    """A limit whose levels are the colours: 1.0 is the mildest."""
    levels = {
        "H" * (n + 1): {"limit": n + 1.0, "level": colour}
        for n, colour in enumerate(parameters.colours)
    }
    return Rule(rule_id, "limit", {"value": selector}, {"levels": levels}, scheme=parameters.scheme)


CASES = {
    "area": area_cases,
    "calculation": calculation_cases,
    "combination": combination_cases,
    "count": count_cases,
    "driving": driving_cases,
    "dwell": dwell_cases,
    "n_of_m": n_of_m_cases,
    "overspeed": overspeed_cases,
}
