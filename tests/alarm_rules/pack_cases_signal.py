"""Cases of rules about one point's values, codes, bits, quality or silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pack_case_tools import (
    TICK_S,
    PackCase,
    Rung,
    Story,
    at,
    before,
    beyond,
    follow,
    gap_of,
    ladder_of,
    place,
)

from gateway.model.point import PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Rule
from gateway.testing.rule_kinds import Sample

# ---------------------------------------------------------------------- limit


def limit_cases(rule: Rule, _parameters: Any) -> Iterator[PackCase]:
    point, devices = place(rule.inputs["value"])
    ladder, marks = ladder_of(rule, rule.parameters["levels"])
    gap = gap_of(ladder)

    def case(name: str, *numbers: float) -> PackCase:
        steps = [(n * gap, number) for n, number in enumerate(numbers)]
        end_s = len(numbers) * gap
        return PackCase(name, at("p", *steps), follow(ladder, steps), [point], devices, end_s)

    for rung, mark in zip(ladder, marks, strict=True):
        sign = 1 if mark.up else -1
        far = mark.limit + sign * (abs(mark.limit) + 1)
        ends = before(mark.reset, mark.up) if mark.inclusive else mark.reset
        holds = mark.reset if mark.inclusive else beyond(mark.reset, mark.up)
        yield case(f"positive: far beyond {mark.name}", far)
        yield case(f"positive: just beyond {mark.name}", beyond(mark.limit, mark.up))
        yield case(f"negative: just short of {mark.name}", before(mark.limit, mark.up))
        yield case(f"boundary: at {mark.name}", mark.limit)
        yield case(f"boundary: {mark.name} ends behind its reset", far, holds, ends)
        yield case(f"boundary: {mark.name} ends and comes again", far, ends, far)
        if rung.on_s:
            mildest = next(m for m in marks if m.up == mark.up)
            brief = at("p", (0, far), (rung.on_s - TICK_S, before(mildest.reset, mark.up)))
            name = f"negative: {mark.name} ends within its on-delay"
            yield PackCase(name, brief, [], [point], devices, gap)
            early = follow(ladder, [(0, far)])
            told = [(t, level) for t, level in early if t < rung.on_s]
            name = f"negative: {mark.name} not before its on-delay"
            yield PackCase(name, at("p", (0, far)), told, [point], devices, rung.on_s - TICK_S)
    yield from _elsewhere(rule, [1e6, -1e6])


def _elsewhere(rule: Rule, values: Sequence[float]) -> Iterator[PackCase]:
    """A rule of one place, class or kind of device says nothing about another."""
    wanted = rule.inputs["value"]
    point, devices = place(wanted)
    others = {"another quantity": replace(point, quantity="stranger")} if wanted.quantity else {}
    if wanted.location_class:
        others["another class of place"] = replace(point, location_class="elsewhere")
    if wanted.attributes:
        others["without its attributes"] = replace(point, attributes={})
    for name, other in others.items():
        for value in values:
            yield PackCase(
                f"negative: {name}", at("p", (0, value)), [], [other], devices, rule.on_delay_s + 1
            )


# ---------------------------------------------------------------------- rate, deviation


def rate_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    """A straight line with as few samples as are judged: the last one decides, at window_s."""
    point, devices = place(rule.inputs["value"])
    ladder, marks = ladder_of(rule, rule.parameters["levels"])
    window_s, count = parameters.window_s, parameters.samples_min
    spans = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
    is_change = parameters.method == "change"
    per_window = 1.0 if is_change else window_s / spans[parameters.per]
    base = 100.0 if parameters.relative else 0.0
    ends_s = ladder[0].off_s

    def line(rate: float, length: int = count) -> list[Sample]:
        rise = rate * per_window * (base or 1.0)
        rows = [(window_s * k / (count - 1), base + rise * k / (count - 1)) for k in range(length)]
        return at("p", *rows)

    def case(name: str, rate: float, **changes: Any) -> PackCase:
        story = follow(ladder, [(window_s, rate)])
        made = PackCase(name, line(rate), story, [point], devices, window_s + gap_of(ladder))
        return replace(made, **changes)

    for mark in marks:
        sign = 1 if mark.up else -1
        step = 10.0**-parameters.decimals if parameters.decimals else abs(mark.limit) * 1e-9
        yield case(f"positive: faster than {mark.name}", mark.limit + sign * step)
        yield case(f"negative: slower than {mark.name}", mark.limit - sign * step)
        yield case(f"boundary: as fast as {mark.name}", mark.limit)
        fast = 2 * mark.limit
        yield case("negative: too few samples", fast, samples=line(fast, count - 1), expected=[])
        if parameters.absolute:
            fall = follow(ladder, [(window_s, fast)])
            yield case("positive: falling counts as rising", -fast, expected=fall)
        else:
            yield case("negative: the other direction", -fast, expected=[])
        # Half of the way the window still shows half of the rise, so three times the limit holds.
        rows = line(3 * mark.limit)
        stays = rows[-1].value
        rows += [Sample("p", window_s * (1 + k / (count - 1)), stays) for k in range(1, count)]
        ended = [*follow(ladder, [(window_s, 3 * mark.limit)]), (2 * window_s + ends_s, "")]
        yield case("boundary: flat for a window ends it", 0.0, samples=rows, expected=ended,
                   end_s=ended[-1][0])  # fmt: skip
    yield from _elsewhere(rule, [1e6])


def deviation_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    value, devices = place(rule.inputs["value"], "v")
    reference, _ = place(rule.inputs["reference"], "r")
    ladder, marks = ladder_of(rule, rule.parameters["levels"])
    gap, scale = gap_of(ladder), 1.0 if not parameters.relative else 10.0
    level = scale if parameters.relative else 1.0

    def case(name: str, *numbers: float) -> PackCase:
        steps = [(n * gap, number) for n, number in enumerate(numbers)]
        rows = at("r", (0, level)) + [Sample("v", t, level + x * scale) for t, x in steps]
        told = follow(ladder, [(t, abs(x) if parameters.absolute else x) for t, x in steps])
        return PackCase(name, rows, told, [value, reference], devices, len(numbers) * gap)

    for mark in marks:
        step = 10.0**-parameters.decimals if parameters.decimals else abs(mark.limit) * 1e-6
        step *= 1 if mark.up else -1
        yield case(f"positive: further than {mark.name}", mark.limit + step)
        yield case(f"negative: nearer than {mark.name}", mark.limit - step)
        yield case(f"boundary: as far as {mark.name}", mark.limit)
        yield case(f"boundary: {mark.name} comes, goes and comes below", 3 * mark.limit, 0.0,
                   -3 * mark.limit)  # fmt: skip
    alone = at("v", (0, 1e6))
    yield PackCase("negative: nothing to compare with", alone, [], [value, reference], devices, gap)


# ---------------------------------------------------------------------- stuck


def stuck_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    point, devices = place(rule.inputs["value"])
    span_s, count = parameters.unchanged_s, parameters.samples_min

    def run(length_s: float, samples: int) -> list[tuple[float, float]]:
        return [(length_s * k / (samples - 1), 5.0) for k in range(samples)]

    def case(name: str, rows: list[tuple[float, float]], told: Story) -> PackCase:
        return PackCase(name, at("p", *rows), told, [point], devices, 2 * span_s)

    other = 5.0 + 2 * parameters.band + 1.0
    stuck = [(span_s + rule.on_delay_s, "STUCK")]
    yield case("boundary: unchanged for exactly the span", run(span_s, count), stuck)
    later = span_s + rule.on_delay_s + 60.0
    ended = [*stuck, (later + rule.off_delay_s, "")]
    yield case("positive: until another value", [*run(span_s, count), (later, other)], ended)
    yield case("negative: a moment short of the span", run(span_s - TICK_S, count), [])
    yield case("negative: too few samples", run(span_s, count - 1), [])
    moved = [*run(span_s, count)[:-1], (span_s, other)]
    yield case("negative: the last value differs", moved, [])


# ---------------------------------------------------------------------- discrete, bits, quality


def discrete_cases(rule: Rule, _parameters: Any) -> Iterator[PackCase]:
    point, devices = place(rule.inputs["value"])
    levels = rule.parameters["levels"]
    ladder = [
        Rung(
            name,
            level.get("on_delay_s", rule.on_delay_s),
            level.get("off_delay_s", rule.off_delay_s),
            lambda code, values=level["values"]: code in values,
            lambda code, values=level["values"]: code not in values,
        )
        for name, level in levels.items()
    ]
    gap = gap_of(ladder)
    codes = sorted({code for level in levels.values() for code in level["values"]})
    fine = next(code for code in (0, 1, *range(-1, -9, -1)) if code not in codes)

    def case(name: str, *values: float) -> PackCase:
        steps = [(n * gap, value) for n, value in enumerate(values)]
        told = follow(ladder, steps)
        return PackCase(name, at("p", *steps), told, [point], devices, len(values) * gap)

    for code in codes:
        yield case(f"positive: code {code} and back", fine, code, fine)
        yield case(f"boundary: next to code {code}", code + 1e-9, code - 1e-9)
    for code in {fine, max(codes) + 1, min(codes) - 1} - set(codes):
        yield case(f"negative: code {code}", code)
    for rung in ladder:
        if rung.on_s:
            code = levels[rung.name]["values"][0]
            brief = at("p", (0, code), (rung.on_s - TICK_S, fine))
            name = f"boundary: {rung.name} ends within its on-delay"
            yield PackCase(name, brief, [], [point], devices, gap)
    yield from _elsewhere(rule, codes)


def bits_cases(rule: Rule, _parameters: Any) -> Iterator[PackCase]:
    point, devices = place(rule.inputs["value"], kind=PointKind.BITS)
    bits = {int(number): bit for number, bit in rule.parameters["bits"].items()}
    every = sum(1 << number for number in range(32))
    gap = 2 * (rule.on_delay_s + rule.off_delay_s) + 1
    quiet = sum(1 << n for n, bit in bits.items() if bit.get("when") == "clear")

    def case(name: str, told: Story, *words: int) -> PackCase:
        rows = [(n * gap, float(word)) for n, word in enumerate(words)]
        return PackCase(name, at("p", *rows), told, [point], devices, len(words) * gap)

    for number, bit in bits.items():
        on_s = bit.get("on_delay_s", rule.on_delay_s)
        off_s = bit.get("off_delay_s", rule.off_delay_s)
        alone = quiet ^ (1 << number)
        told = [(gap + on_s, bit["name"]), (2 * gap + off_s, "")]
        yield case(f"positive: bit {number} alone", told, quiet, alone, quiet)
        again = [(on_s, bit["name"]), (3 * gap + off_s, "")]
        yield case(f"boundary: bit {number} held is one alarm", again, alone, alone, alone, quiet)
    others = every & ~sum(1 << number for number in bits)
    yield case("negative: every other bit", [], quiet, others | quiet, quiet)
    if rule.on_delay_s:
        word = float(quiet ^ (1 << min(bits)))
        brief = at("p", (0, word), (rule.on_delay_s - TICK_S, float(quiet)))
        yield PackCase("negative: ends within its on-delay", brief, [], [point], devices, gap)


def quality_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    point, devices = place(rule.inputs["value"])
    wanted = {Quality[name] for name in parameters.reasons}
    wanted |= {q for q in Quality if q.grade in parameters.categories}
    on_s, off_s, name = rule.on_delay_s, rule.off_delay_s, parameters.name
    gap = on_s + off_s + 1

    def case(text: str, told: Story, *rows: tuple[float, Quality]) -> PackCase:
        samples = [Sample("p", t, 0.5, int(quality)) for t, quality in rows]
        return PackCase(text, samples, told, [point], devices, rows[-1][0] + gap)

    for quality in sorted(wanted):
        told = [(gap + on_s, name), (2 * gap + off_s, "")]
        rows = [(0.0, Quality.GOOD), (gap, quality), (2 * gap, Quality.GOOD)]
        yield case(f"positive: {quality.name}", told, *rows)
    one = min(wanted)
    for quality in [q for q in Quality if q not in wanted]:
        yield case(f"negative: {quality.name}", [], (0.0, quality))
        if quality.is_bad and quality != Quality.BAD_NOT_A_NUMBER:
            rows = [(0.0, one), (gap, quality)]
            yield case(f"boundary: {quality.name} does not end it", [(on_s, name)], *rows)
    if on_s:
        rows = [(0.0, one), (on_s - TICK_S, Quality.GOOD)]
        yield case("boundary: ends within its on-delay", [], *rows)
    else:
        yield case("boundary: at once, and for one sample", [(0.0, name)], (0.0, one))


# ---------------------------------------------------------------------- offline


def offline_cases(rule: Rule, parameters: Any) -> Iterator[PackCase]:
    wanted = rule.inputs["value"]
    point, devices = place(wanted, interval_s=60.0)
    age_s = parameters.max_age_s
    if parameters.interval_factor is not None:
        age_s = max(parameters.floor_s, 60.0 * parameters.interval_factor)
    begins = 1 + age_s + rule.on_delay_s

    def case(name: str, samples: list[Sample], told: Story, end_s: float = 0.0) -> PackCase:
        return PackCase(name, samples, told, [point], devices, end_s)

    heard = Sample("p", 1.0, 0.5)
    yield case("boundary: silent for exactly as long as allowed", [heard], [(begins, "OFFLINE")],
               begins)  # fmt: skip
    yield case("negative: a moment before that", [heard], [], begins - TICK_S)
    back = Sample("p", begins + 5, 0.5)
    told = [(begins, "OFFLINE"), (begins + 5 + rule.off_delay_s, "")]
    yield case("positive: until a sample comes", [heard, back], told, begins + 5 + rule.off_delay_s)
    in_time = Sample("p", age_s, 0.5)
    yield case("negative: a sample in time", [heard, in_time], [], begins)
    bad = Sample("p", age_s, 0.5, int(Quality.BAD_SENSOR_FAULT))
    counts = parameters.needs == "any"
    told = [] if counts else [(begins, "OFFLINE")]
    yield case("negative: a bad sample counts only where any does", [heard, bad], told, begins)
    slow = replace(point, interval_s=None)
    if parameters.max_age_s is not None:
        allowed = max(parameters.max_age_s, parameters.floor_s)
        told = [(1 + allowed + rule.on_delay_s, "OFFLINE")]
        made = case("boundary: without a stated interval", [heard], told, told[0][0])
        yield replace(made, points=[slow])


CASES = {
    "bits": bits_cases,
    "deviation": deviation_cases,
    "discrete": discrete_cases,
    "limit": limit_cases,
    "offline": offline_cases,
    "quality": quality_cases,
    "rate": rate_cases,
    "stuck": stuck_cases,
}
