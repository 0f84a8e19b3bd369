"""Packs: every statutory rule fires at its number, not before it, and ends where the law says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import alarm_rules.packs
from alarm_rules.kinds import calculation, count, limit, offline
from alarm_rules.kinds.limit import LimitParameters
from alarm_rules.packs import Override, apply_overrides, parse_pack
from alarm_rules.ruleset import check_rules
from gateway.model.errors import ConfigError
from gateway.model.point import Device, Point, PointKind
from gateway.model.rule import Confidence, Priority, Rule
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
KINDS = {k.KIND.name: k.KIND for k in (calculation, count, limit, offline)}
FOLDER = Path(alarm_rules.packs.__file__).parent
PACKS = {path.stem: parse_pack(path.read_bytes(), path.name) for path in FOLDER.glob("*.toml")}
RULES = [rule for pack in PACKS.values() for rule in pack.rules]


def of_kind(kind: str) -> list[Rule]:
    return [rule for rule in RULES if rule.kind == kind]


def names(rules: list[Rule]) -> list[str]:
    return [rule.id for rule in rules]


# ------------------------------------------------------------------ every rule, from the data itself

LEVELS = [
    pytest.param(rule, name, level, id=f"{rule.id}-{name}")
    for rule in of_kind("limit")
    for name, level in LimitParameters.model_validate(rule.parameters).levels.items()
]


def point_for(rule: Rule) -> Point:
    wanted = rule.inputs["value"]
    return Point(
        id="p",
        quantity=wanted.quantity,
        location_class=wanted.location_class,
        attributes=wanted.attributes,
    )


def levels_told(rule: Rule, values: list[float], *, point: Point | None = None) -> list[str]:
    """The levels in force after each value, with time enough for every delay."""
    gap = rule.on_delay_s + rule.off_delay_s + 1
    samples = [Sample("p", n * gap, value) for n, value in enumerate(values)]
    case = RuleCase([rule], [point or point_for(rule)], samples, end_s=len(values) * gap)
    changes = drive(case, KINDS).changes
    ends = [at_ns((n + 1) * gap) for n in range(len(values))]
    return [([""] + [c.level for c in changes if c.time_ns < end])[-1] for end in ends]


@pytest.mark.parametrize(("rule", "name", "level"), LEVELS)
def test_every_statutory_limit_fires_as_written_and_not_one_float_before(rule, name, level) -> None:
    up = name[0] == "H"
    worse, better = (math.inf, -math.inf) if up else (-math.inf, math.inf)
    operator = level.operator or (">=" if up else "<=")
    at, beyond = level.limit, math.nextafter(level.limit, worse)
    inclusive = operator.endswith("=")
    order = [n for n, _ in LimitParameters.model_validate(rule.parameters).ordered]
    rank = order.index(name)

    def reaches(value: float) -> bool:
        (told,) = levels_told(rule, [value])
        return told != "" and order.index(told) >= rank

    assert reaches(beyond)
    assert reaches(level.limit * (2 if up else 0.5))
    assert reaches(at) == inclusive
    assert not reaches(math.nextafter(at, better))


@pytest.mark.parametrize(("rule", "name", "level"), LEVELS)
def test_every_statutory_limit_ends_only_behind_its_reset_value(rule, name, level) -> None:
    up = name[0] == "H"
    better = -math.inf if up else math.inf
    reset = level.limit if level.reset is None else level.reset
    operator = level.operator or (">=" if up else "<=")
    behind = math.nextafter(reset, better) if operator.endswith("=") else reset
    still = reset if operator.endswith("=") else math.nextafter(reset, -better)
    far = level.limit + (1000 if up else -1000)
    order = ["", *(n for n, _ in LimitParameters.model_validate(rule.parameters).ordered)]
    first, held, ended = map(order.index, levels_told(rule, [far, still, behind]))
    assert first >= held >= order.index(name) > ended


@pytest.mark.parametrize("rule", of_kind("limit"), ids=names(of_kind("limit")))
def test_a_limit_of_one_place_says_nothing_about_another(rule) -> None:
    wanted = rule.inputs["value"]
    other = Point(id="p", quantity=wanted.quantity, location_class="elsewhere")
    if wanted.location_class or wanted.attributes:
        assert levels_told(rule, [1e6], point=other) == [""]
    stranger = Point(id="p", quantity="wind_direction", location_class=wanted.location_class)
    assert levels_told(rule, [1e6], point=stranger) == [""]


@pytest.mark.parametrize("rule", of_kind("count"), ids=names(of_kind("count")))
def test_every_head_count_allows_the_limit_and_refuses_one_more(rule) -> None:
    scope, factor = rule.parameters["scope"], rule.parameters.get("factor", 1.0)
    device = Device(id="place", kind=scope, attributes={"capacity": "10"})
    people = [Point(id=f"m{n}", kind=PointKind.AREA, quantity="personnel_area") for n in range(20)]
    allowed = math.floor(10 * factor)

    def fires(size: int) -> list[tuple[int, str]]:
        samples = [Sample(person.id, 0, 0.0) for person in people[:size]]
        case = RuleCase([rule], people, samples, [device], end_s=rule.on_delay_s)
        return [(c.time_ns, c.level) for c in drive(case, KINDS).changes]

    assert fires(allowed) == []
    assert fires(allowed + 1) == [(at_ns(rule.on_delay_s), "OVER")]


@pytest.mark.parametrize("rule", of_kind("offline"), ids=names(of_kind("offline")))
def test_every_silence_begins_exactly_when_allowed_and_ends_with_a_sample(rule) -> None:
    wanted, parameters = rule.inputs["value"], rule.parameters
    point = Point(
        id="p", quantity=wanted.quantity or "methane", device="d", adapter="a", interval_s=60.0
    )
    device = Device(id="d", kind=wanted.device_kind or "sensor", adapter="a")
    age_s = max(parameters.get("floor_s", 0.0), 60.0 * parameters.get("interval_factor", 0.0))
    age_s = age_s or parameters["max_age_s"]
    case = RuleCase([rule], [point], [Sample("p", 1, 0.5), Sample("p", 2 + age_s, 0.5)], [device])
    told = [(c.time_ns, c.level) for c in drive(case, KINDS).changes]
    assert told == [(at_ns(1 + age_s), "OFFLINE"), (at_ns(2 + age_s), "")]
    early = RuleCase(
        [rule], [point], [Sample("p", 1, 0.5), Sample("p", 0.5 + age_s, 0.5)], [device]
    )
    assert drive(early, KINDS).changes == []


def test_a_pond_with_too_little_freeboard_is_found_from_its_two_levels() -> None:
    dam = [
        Point(id="d.top", quantity="beach_top", area="dam1", attributes={"pond_grade": "3"}),
        Point(id="d.pool", quantity="pool_level", area="dam1", attributes={"pond_grade": "3"}),
    ]
    levels = [(0, 130.0), (60, 130.3), (120, 130.31), (180, 130.7)]
    samples = [Sample("d.top", 0, 131.0), *(Sample("d.pool", t, v) for t, v in levels)]
    rules = PACKS["tailings"].rules
    told = [(c.alarm_key, c.level) for c in drive(RuleCase(rules, dam, samples), KINDS).changes]
    assert told == [
        ("dam1.freeboard:tailings.freeboard-grade-3", "LL"),
        ("dam1.freeboard:tailings.freeboard-any", "LL"),
    ]


# ------------------------------------------------------------------ what a pack says of itself


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_a_pack_has_no_fault_and_cites_every_rule(pack) -> None:
    assert check_rules(pack.rules, KINDS) == []
    for rule in pack.rules:
        cited = rule.citation.standard and rule.citation.clause
        assert cited or rule.citation.confidence == Confidence.ENGINEERING, rule.id
        assert set(rule.name) == set(rule.action) == {"zh", "en"}
        assert rule.version == pack.edition


def test_the_packs_that_could_not_be_read_are_empty_and_say_why() -> None:
    empty = {name for name, pack in PACKS.items() if pack.status == "empty"}
    assert empty == {"coal-gas-2025", "mine-warning-100"}
    assert all(PACKS[name].reason["zh"] and PACKS[name].reason["en"] for name in empty)


@pytest.mark.parametrize(
    ("rule_id", "confidence"),
    [
        ("coal-gas-2016.methane-t0", "confirmed"),
        ("coal-gas-2016.methane-t1", "single_source"),
        ("coal-gas-2016.methane-total-return", "unconfirmed"),
        ("coal-gas-2016.carbon-monoxide", "confirmed"),
        ("coal-personnel.major-hazard-area", "unconfirmed"),
        ("tailings.freeboard-grade-1", "unconfirmed"),
        ("road-transport.terminal-offline", "engineering"),
    ],
)
def test_the_marks_of_confidence_are_those_of_the_reference(rule_id, confidence) -> None:
    (rule,) = [rule for rule in RULES if rule.id == rule_id]
    assert rule.citation.confidence == confidence


VALID = """
name = "x"
edition = "1"
jurisdiction = "CN"
title = { zh = "甲", en = "A" }
status = "complete"
[[rule]]
name = "r"
kind = "limit"
title = { zh = "甲", en = "A" }
action = { zh = "甲", en = "A" }
priority = "high"
inputs.value = { quantity = "methane" }
parameters.levels.H = 1.0
citation = { standard = "S", clause = "1", confidence = "confirmed" }
"""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('name = "x"', "name = ", "TOML"),
        ('edition = "1"', 'edition = ""', "edition"),
        ('status = "complete"', 'status = "partial"', "says why"),
        ('status = "complete"', 'status = "empty"', "says why"),
        ('priority = "high"', 'priority = "severe"', "priority"),
        ('priority = "high"', 'priority = "high"\nlevel = "red"', "scheme"),
        ('priority = "high"', 'priority = "high"\ncolour = "red"', "Extra inputs"),
        ('clause = "1", ', "", "names its standard and clause"),
        ('"confirmed"', '"site"', "never the site's own"),
        ('"confirmed"', '"sure"', "confidence"),
        ('name = "r"', 'name = "a b"', "fit to stand in an id"),
        ("title = { zh", "title = { de", "title"),
    ],
)
def test_a_pack_that_hides_where_it_comes_from_is_refused(old, new, word) -> None:
    parse_pack(VALID, "x.toml")
    with pytest.raises(ConfigError, match=word):
        parse_pack(VALID.replace(old, new, 1), "x.toml")


# ------------------------------------------------------------------ a site's changes

T1 = "coal-gas-2016.methane-t1"
FREE = "tailings.freeboard-grade-3"
OVER = "coal-personnel.over-area"
OFF = "system-health.silent-adapter"


def changed(rule_id: str, **change) -> tuple[Rule, list[str]]:
    rules, faults = apply_overrides(PACKS.values(), [Override(rule=rule_id, **change)], KINDS)
    return next(rule for rule in rules if rule.id == rule_id), faults


@pytest.mark.parametrize(
    ("rule_id", "change"),
    [
        (T1, {"parameters": {"levels": {"H": {"limit": 0.8}}}}),
        (T1, {"parameters": {"levels": {"H": 0.8, "HH": 1.2}}}),
        (T1, {"parameters": {"levels": {"HH": {"reset": 0.9}}}}),
        (T1, {"parameters": {"levels": {"HHH": 2.0}}}),
        (T1, {"parameters": {"levels": {"L": {"limit": -0.1}}}}),
        (T1, {"priority": Priority.CRITICAL, "latching": True, "off_delay_s": 30.0}),
        (FREE, {"parameters": {"levels": {"LL": {"limit": 0.9}}}}),
        (FREE, {"parameters": {"levels": {"LL": {"operator": "<="}}}}),
        (OVER, {"parameters": {"factor": 0.9}, "on_delay_s": 0.0}),
        (OFF, {"parameters": {"interval_factor": 2.0, "max_age_s": 100.0, "needs": "good"}}),
    ],
)
def test_a_site_may_tighten_a_rule_and_the_citation_says_so(rule_id, change) -> None:
    rule, faults = changed(rule_id, **change)
    assert faults == []
    assert "tightened by the site" in rule.citation.note
    assert rule.version.endswith("+site")
    assert check_rules([rule], KINDS) == []


LOOSE = [
    (T1, {"parameters": {"levels": {"H": {"limit": 1.01}}}}, "H.limit is less strict"),
    (T1, {"parameters": {"levels": {"H": {"operator": ">"}}}}, "H.limit is less strict"),
    (T1, {"parameters": {"levels": {"HH": {"reset": 1.2}}}}, "HH.reset is less strict"),
    (T1, {"parameters": {"levels": {"HH": {"priority": "low"}}}}, "HH.priority"),
    (T1, {"parameters": {"levels": {"H": {"on_delay_s": 5}}}}, "H.on_delay_s"),
    (T1, {"on_delay_s": 0.1}, "on_delay_s is longer"),
    (T1, {"priority": Priority.LOW}, "priority is less urgent"),
    ("coal-personnel.distress", {"latching": False}, "no longer latches"),
    (FREE, {"parameters": {"levels": {"LL": {"limit": 0.69}}}}, "LL.limit is less strict"),
    (OVER, {"parameters": {"factor": 1.1}}, "factor is less strict"),
    (OVER, {"parameters": {"capacity": 500}}, "capacity may be less strict"),
    (OVER, {"parameters": {"areas": ["face"]}}, "areas are left out"),
    (OVER, {"off_delay_s": 10.0}, "off_delay_s is shorter"),
    (OFF, {"parameters": {"interval_factor": 9.0}}, "interval_factor is less strict"),
    (OFF, {"parameters": {"floor_s": 900.0}}, "floor_s is less strict"),
    ("system-health.silent-methane", {"parameters": {"needs": "any"}}, "needs is less strict"),
    ("tailings.freeboard", {"parameters": {"max_input_age_s": 1.0}}, "cannot be shown"),
]


@pytest.mark.parametrize(("rule_id", "change", "word"), LOOSE)
def test_loosening_is_refused_without_a_signature_and_the_law_stays_in_force(
    rule_id, change, word
) -> None:
    rule, faults = changed(rule_id, **change)
    assert word in faults[0]
    assert rule in RULES


@pytest.mark.parametrize(("rule_id", "change", "word"), LOOSE)
def test_loosening_with_a_full_signature_is_taken_and_stays_on_record(
    rule_id, change, word
) -> None:
    signed = {"reason": "trial", "signed_by": "Chief Engineer", "signed_on": "2026-01-15"}
    rule, faults = changed(rule_id, **change, **signed)
    assert faults == []
    assert "loosened by the site by Chief Engineer on 2026-01-15: trial" in rule.citation.note
    for missing in signed:
        _, faults = changed(rule_id, **change, **{**signed, missing: ""})
        assert faults, f"without {missing} it is no signature"


def test_an_override_of_a_rule_that_is_not_there_is_a_fault() -> None:
    _, faults = apply_overrides(PACKS["tailings"], [Override(rule=T1)], KINDS)
    assert faults == [f"{T1}: no pack in use has this rule"]


def test_a_level_may_not_be_taken_out_of_a_rule() -> None:
    was = LimitParameters.model_validate({"levels": {"H": 1.0, "HH": 2.0}})
    now = LimitParameters.model_validate({"levels": {"H": 1.0}})
    assert limit.loosens(was, now) == ["level HH is gone"]
