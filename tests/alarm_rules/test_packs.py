"""Packs: what a pack says of itself, and what a site may change. The cases of every single rule are
in test_packs_cases.py."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace

import pytest

import alarm_rules.kinds
import alarm_rules.packs
from alarm_rules.kinds.limit import LimitParameters
from alarm_rules.kinds.limit import loosens as limit_loosens
from alarm_rules.packs import (
    DutyKind,
    Override,
    RulePack,
    apply_overrides,
    check_pack,
    parse_pack,
)
from gateway.config import PackOverride
from gateway.model.errors import ConfigError
from gateway.model.point import Point, is_valid_id
from gateway.model.rule import Confidence, Priority, Rule
from gateway.runtime import checking
from gateway.runtime.checking import check_site
from gateway.runtime.plugins import load_plugins
from gateway.runtime.siterules import site_rules
from gateway.testing.rule_kinds import RuleCase, Sample, drive

KINDS = {
    module.name: importlib.import_module(f"alarm_rules.kinds.{module.name}").KIND
    for module in pkgutil.iter_modules(alarm_rules.kinds.__path__)
    if not module.name.startswith("_")
}
FOLDER = Path(alarm_rules.packs.__file__).parent
PACKS = {path.stem: parse_pack(path.read_bytes(), path.name) for path in FOLDER.glob("*.toml")}
RULES = [rule for pack in PACKS.values() for rule in pack.rules]
DUTIES = [duty for pack in PACKS.values() for duty in pack.duties]
QUANTITIES = Path(__file__).parents[2] / "docs" / "quantities.md"


# ------------------------------------------------------------------ what a pack says of itself


def test_every_pack_the_reference_proposes_is_there() -> None:
    assert set(PACKS) == {
        "coal-gas-2016", "coal-gas-2025", "coal-air-climate", "coal-personnel", "mine-warning-100",
        "noncoal-underground", "tailings", "slope-reference", "hazchem-gas", "hazchem-tank",
        "cold-store-ammonia", "town-gas", "road-transport", "crane", "lift", "fire", "refuge",
        "weather", "system-health", "handling",
    }  # fmt: skip


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_a_pack_has_no_fault_and_cites_every_rule_and_duty(pack: RulePack) -> None:
    assert check_pack(pack, KINDS) == []
    for item in (*pack.rules, *pack.duties):
        cited = item.citation.standard and item.citation.clause
        assert cited or item.citation.confidence == Confidence.ENGINEERING, item.id
        assert set(item.action) == {"zh", "en"}
        assert is_valid_id(item.id)
        if item.citation.confidence in (Confidence.ENGINEERING, Confidence.UNCERTAIN):
            assert item.citation.note, f"{item.id}: why the number is ours, or in doubt"
    for rule in pack.rules:
        assert set(rule.name) == {"zh", "en"}
        assert rule.version == pack.edition
    assert pack.reason.keys() == (set() if pack.status == "complete" else {"zh", "en"})


def test_ids_are_unique_over_all_packs() -> None:
    ids = [item.id for item in (*RULES, *DUTIES)]
    assert len(set(ids)) == len(ids)


def test_the_packs_that_could_not_be_read_are_empty_and_say_why() -> None:
    empty = {name for name, pack in PACKS.items() if pack.status == "empty"}
    assert empty == {"coal-gas-2025", "mine-warning-100"}
    assert all(PACKS[name].reason["zh"] and PACKS[name].reason["en"] for name in empty)


def test_all_packs_together_can_be_compiled() -> None:
    whole = RulePack("all", "1", "CN", {}, "complete", {}, tuple(RULES))
    assert check_pack(whole, KINDS) == []


@pytest.mark.parametrize(
    ("rule_id", "confidence"),
    [
        ("coal-gas-2016.methane-t0", "confirmed"),
        ("coal-gas-2016.methane-t1", "single_source"),
        ("coal-gas-2016.methane-total-return", "unconfirmed"),
        ("coal-gas-2016.methane-belt-shaft", "uncertain"),
        ("coal-gas-2016.carbon-monoxide", "confirmed"),
        ("coal-gas-2016.feed-abnormal", "confirmed"),
        ("coal-air-climate.temperature-face", "confirmed"),
        ("coal-air-climate.dust-any", "unconfirmed"),
        ("coal-air-climate.air-velocity-face", "confirmed"),
        ("coal-personnel.major-hazard-area", "unconfirmed"),
        ("coal-personnel.over-time", "engineering"),
        ("tailings.freeboard-grade-1", "unconfirmed"),
        ("tailings.item-phreatic", "single_source"),
        ("hazchem-gas.toxic-gas", "confirmed"),
        ("hazchem-gas.combustible-gas-path", "unconfirmed"),
        ("cold-store-ammonia.machine-room", "single_source"),
        ("town-gas.gas-kitchen-cut", "uncertain"),
        ("crane.wind-erection", "uncertain"),
        ("road-transport.driving-hazmat", "confirmed"),
        ("road-transport.terminal-offline", "engineering"),
    ],
)
def test_the_marks_of_confidence_are_those_of_the_reference(rule_id, confidence) -> None:
    (rule,) = [rule for rule in RULES if rule.id == rule_id]
    assert rule.citation.confidence == confidence


@pytest.mark.parametrize(
    ("rule_id", "level", "limit", "reset"),
    [
        ("coal-gas-2016.methane-t0", "HH", 1.5, 1.0),  # disputed: the stricter
        ("coal-gas-2016.methane-total-return", "H", 0.75, None),  # disputed: 0.70 in 2007
        ("hazchem-gas.benzene", "H", 0.92, None),  # 3 mg/m³, the newer and lower limit
        ("slope-reference.rate-x-dump", "H", 250.0, None),  # 25 to 50 cm a day
        ("town-gas.tunnel-gas-cut", "HH", 25.0, None),  # not the 35 in circulation
        ("refuge.oxygen", "L", 18.5, None),
    ],
)
def test_of_disputed_numbers_the_stricter_is_shipped(rule_id, level, limit, reset) -> None:
    (rule,) = [rule for rule in RULES if rule.id == rule_id]
    found = rule.parameters["levels"][level]
    assert (found["limit"], found.get("reset")) == (limit, reset)


def test_what_only_a_person_may_reset_latches() -> None:
    wanted = [
        "coal-gas-2016.methane-t*", "coal-gas-2016.methane-over-range*", "*.distress",
        "coal-gas-2016.feed-abnormal", "hazchem-gas.combustible-gas*", "hazchem-gas.toxic-gas",
        "cold-store-ammonia.*", "lift.trapped", "fire.*-fire", "fire.fire-point",
        "road-transport.emergency", "hazchem-tank.level-high-high",
    ]  # fmt: skip
    without_cut = {"coal-gas-2016.methane-total-return"}  # an alarm only: nothing to restore
    for pattern in wanted:
        found = [rule for rule in RULES if fnmatchcase(rule.id, pattern)]
        assert found, pattern
        assert all(latches(rule) for rule in found if rule.id not in without_cut), pattern


def latches(rule) -> bool:
    """All of it, or its most severe level: the cut."""
    levels = rule.parameters.get("levels", {})
    return rule.latching or any(
        isinstance(level, dict) and level.get("latching") for level in levels.values()
    )


def table_of_quantities() -> dict[str, str]:
    """The first column of docs/quantities.md, with the rest of its row."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)$", QUANTITIES.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def test_every_word_a_pack_selects_by_is_explained() -> None:
    text = QUANTITIES.read_text(encoding="utf-8")
    known = table_of_quantities()
    for rule in RULES:
        for selector in rule.inputs.values():
            words = [selector.quantity, selector.location_class, selector.device_kind]
            words += [*selector.attributes]
            for word in filter(None, words):
                assert f"`{word}`" in text, f"{rule.id}: {word}"
        made = rule.parameters.get("quantity", "")
        assert not made or made in known, rule.id
    for quantity, row in known.items():
        used = {rule.id.partition(".")[0] for rule in RULES if _speaks_of(rule, quantity)}
        named = {name for name in PACKS if f"`{name}`" in row}
        assert named == used, f"docs/quantities.md: {quantity}"


def _speaks_of(rule: Rule, quantity: str) -> bool:
    selected = {selector.quantity for selector in rule.inputs.values()}
    return quantity in selected | {rule.parameters.get("quantity")}


def test_a_pond_with_too_little_freeboard_is_found_from_its_two_levels_and_colours_the_pond() -> (
    None
):
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
        ("dam1:tailings.pond", "red"),
        ("dam1.freeboard:tailings.freeboard-any", "LL"),
    ]


# ------------------------------------------------------------------ the file

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
[[duty]]
name = "d"
kind = "respond"
title = { zh = "甲", en = "A" }
who = { zh = "甲", en = "A" }
action = { zh = "甲", en = "A" }
rules = ["x.*"]
within_s = 60
citation = { standard = "S", clause = "1", confidence = "confirmed" }
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ('name = "x"', "name = ", 2, "TOML"),
        ('edition = "1"', 'edition = ""', 3, "edition"),
        ('status = "complete"', 'status = "partial"', 6, "says why"),
        ('status = "complete"', 'status = "empty"', 6, "says why"),
        ('status = "complete"', 'status = "full"', 6, "status"),
        ('priority = "high"', 'priority = "severe"', 12, "rule.0.priority"),
        ('priority = "high"', 'priority = "high"\nlevel = "red"', 7, "scheme"),
        ('priority = "high"', 'priority = "high"\ncolour = "red"', 13, "Extra inputs"),
        ('priority = "high"\n', "", 7, "rule.0.priority: Field required"),
        ('clause = "1", ', "", 15, "names its standard and clause"),
        ('"confirmed"', '"site"', 15, "never the site's own"),
        ('"confirmed"', '"sure"', 15, "citation.confidence"),
        ('name = "r"', 'name = "a b"', 8, "fit to stand in an id"),
        ('name = "d"', 'name = "r"', 8, "each name once"),
        ("title = { zh", "title = { de", 5, "title"),
        ('kind = "respond"', 'kind = "obey"', 18, "duty.0.kind"),
        ("within_s = 60", "every_s = 60", 16, "a duty to respond carries within_s"),
        ("within_s = 60", "within_s = 60\nfor_s = 1", 16, "a duty to respond carries within_s"),
        ("within_s = 60", "within_s = -1", 23, "duty.0.within_s"),
        ("within_s = 60\n", "", 16, "has a number, or says why"),
        ("within_s = 60", "within_s = 60\nunread = { zh = '甲', en = 'A' }", 16, "has been read"),
        ("within_s = 60", "within_s = 60\nunit = 'h'", 16, "times have none"),
    ],
)
def test_a_pack_that_hides_where_it_comes_from_is_refused_at_its_line(old, new, line, word) -> None:
    parse_pack(VALID, "x.toml")
    with pytest.raises(ConfigError, match=re.escape(word)) as refused:
        parse_pack(VALID.replace(old, new, 1), "x.toml")
    first = refused.value.faults[0]
    assert (first.file, first.line) == ("x.toml", line)


def test_every_fault_of_a_pack_is_told_at_once_with_its_line() -> None:
    text = VALID.replace('edition = "1"', 'edition = ""').replace('"high"', '"severe"')
    with pytest.raises(ConfigError) as refused:
        parse_pack(text, "x.toml")
    assert [fault.line for fault in refused.value.faults] == [3, 12]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = [", 2), (b"a = 1\n\nb = {", 3), (b'a = "\xff"', 0), ("a = 1\na = 2\n", 2)],
)
def test_text_that_is_no_toml_is_refused_at_its_line(text, line) -> None:
    with pytest.raises(ConfigError, match="TOML in UTF-8") as refused:
        parse_pack(text, "x.toml")
    assert refused.value.faults[0].line == line


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ('kind = "limit"', 'kind = "linit"', 9, "x.r.kind"),
        ("levels.H = 1.0", "levels.X = 1.0", 14, "x.r.parameters"),
        ("levels.H = 1.0", "levels.H = { limit = 1, op = 2 }", 14, "x.r.parameters.levels.H.op"),
        ("inputs.value", "inputs.speed", 13, "x.r.inputs"),
        ('priority = "high"', 'priority = "high"\ngroup_by = "area"', 15, "x.r.parameters"),
    ],
)
def test_what_a_kind_says_against_a_rule_is_told_with_the_line_of_the_pack(
    old, new, line, key
) -> None:
    pack = parse_pack(VALID.replace(old, new, 1), "x.toml")
    (fault,) = check_pack(pack, KINDS)
    assert (fault.file, fault.line, fault.key) == ("x.toml", line, key)


# ------------------------------------------------------------------ duties


def test_the_duties_of_the_law_follow_rules_that_exist() -> None:
    waiting = {"mine-warning-100.*"}  # the pack is empty until its annex is read
    for duty in DUTIES:
        for pattern in set(duty.rules) - waiting:
            assert any(fnmatchcase(rule.id, pattern) for rule in RULES), (duty.id, pattern)


@pytest.mark.parametrize(
    ("duty_id", "kind", "number", "unit"),
    [
        ("handling.coal-centre-to-dispatch", DutyKind.RESPOND, 0.0, "s"),
        ("handling.accident-report-county", DutyKind.RESPOND, 3600.0, "s"),
        ("handling.calibrate-catalytic", DutyKind.REPEAT, 15 * 86_400.0, "s"),
        ("handling.keep-hazchem", DutyKind.KEEP, 30 * 86_400.0, "s"),
        ("handling.centre-ups", DutyKind.HAVE, 4.0, "h"),
        ("handling.mine-warning-loop", DutyKind.RESPOND, None, ""),
    ],
)
def test_a_duty_carries_the_number_of_the_law_or_none(duty_id, kind, number, unit) -> None:
    (duty,) = [duty for duty in DUTIES if duty.id == duty_id]
    assert (duty.kind, duty.number, duty.unit) == (kind, number, unit)
    assert bool(duty.unread) == (number is None)


def test_an_alarm_finds_the_duties_that_follow_from_it() -> None:
    def following(rule_id: str) -> set[str]:
        return {duty.id for duty in DUTIES if duty.follows(rule_id)}

    assert "handling.lift-rescue-city" in following("lift.trapped")
    assert following("lift.power-lost") == set()
    assert "handling.coal-dispatch-withdraw" in following("coal-gas-2016.methane-t1")


SITE = """
packs = ["{pack}"]
[site]
tenant = "t"
id = "s"
"""


def test_check_prints_every_duty_with_its_number_and_its_source(tmp_path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(pack="handling"), encoding="utf-8")
    notes = [note for note in check_site(site).notes if note.startswith("duty: ")]
    assert len(notes) == len(PACKS["handling"].duties) > 40
    for words in (
        "duty: handling.coal-centre-to-dispatch: duty officer of the centre: Tell dispatch at once",
        "by procedure [respond, at once] (AQ 1029-2019 9.2, confirmed)",
        "[respond, within 3600 s] (国务院令第493号 第9条, unconfirmed)",
        "[have, at least 4 h] (AQ 1029-2019 9.1, confirmed)",
        "[respond, the grading and the minutes were not read]",
        "[have] (总局令第40号 第13条, single_source)",
    ):
        assert any(words in note for note in notes), words


def test_a_pack_whose_kind_is_not_installed_is_a_fault_at_its_line(tmp_path, monkeypatch) -> None:
    plugins = load_plugins()
    few = replace(plugins, rule_kinds={"limit": KINDS["limit"]})
    monkeypatch.setattr(checking, "load_plugins", lambda: few)
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(pack="crane"), encoding="utf-8")
    faults = check_site(site).faults
    text = (FOLDER / "crane.toml").read_text(encoding="utf-8").splitlines()
    assert len(faults) == text.count('kind = "discrete"') > 0
    for fault in faults:
        assert fault.file.endswith("crane.toml")
        assert text[fault.line - 1] == 'kind = "discrete"'


# ------------------------------------------------------------------ a site's changes

T1 = "coal-gas-2016.methane-t1"
FREE = "tailings.freeboard-grade-3"
OVER = "coal-personnel.over-area"
OFF = "system-health.silent-adapter"
CHANGE = "coal-gas-2016.methane-change-report"
PORTABLE = "coal-gas-2016.methane-portable-difference"
STUCK = "system-health.stuck-wind-speed"
SMOKE = "coal-air-climate.smoke"
BITS = "road-transport.terminal-driving"
LOCK = "coal-gas-2016.methane-fault-lock"
DOORS = "coal-air-climate.air-doors-both-open"
ITEM = "tailings.item-phreatic"
AREA = "coal-personnel.restricted-area"
TIME = "coal-personnel.over-time"
DRIVE = "road-transport.driving-hazmat"
COACH = "road-transport.overspeed-coach"
JOB = {"attribute": "job", "values": ["电工"]}


def steps(blue: int) -> list[dict[str, object]]:
    return [
        {"of": "blue", "count": blue, "makes": "yellow"},
        {"of": "yellow", "count": 3, "makes": "orange"},
        {"of": "orange", "count": 2, "makes": "red"},
    ]


def changed(rule_id: str, **change) -> tuple[Rule, list[str]]:
    rules, faults = apply_overrides(PACKS.values(), [Override(rule=rule_id, **change)], KINDS)
    return next(rule for rule in rules if rule.id == rule_id), faults


TIGHT = [
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
    (CHANGE, {"parameters": {"levels": {"H": {"limit": 0.1}}}}),
    (PORTABLE, {"parameters": {"levels": {"H": 0.05}}}),
    (STUCK, {"parameters": {"unchanged_s": 3600.0}}),
    (SMOKE, {"parameters": {"levels": {"SMOKE": {"values": [1, 2]}}}}),
    (BITS, {"parameters": {"bits": {"13": {"priority": "high"}}}}),
    (LOCK, {"parameters": {"categories": ["bad"]}}),
    (DOORS, {"parameters": {"n": 1}}),
    (ITEM, {"parameters": {"steps": steps(3)}}),
    (AREA, {"parameters": {"areas": ["goaf"]}}),
    (TIME, {"parameters": {"limit_s": 39_600.0, "warn_s": 35_000.0}}),
    (DRIVE, {"parameters": {"drive_max_s": 12_600.0}}),
    (DRIVE, {"parameters": {"gap_standing": "unknown"}}),
    (COACH, {"parameters": {"limit_kmh": 90.0}}),
]
LOOSE = [
    (T1, {"parameters": {"levels": {"H": {"limit": 1.01}}}}, "H.limit is less strict"),
    (T1, {"parameters": {"levels": {"H": {"operator": ">"}}}}, "H.limit is less strict"),
    (T1, {"parameters": {"levels": {"HH": {"reset": 1.2}}}}, "HH.reset is less strict"),
    (T1, {"parameters": {"levels": {"HH": {"priority": "low"}}}}, "HH.priority"),
    (T1, {"parameters": {"levels": {"H": {"on_delay_s": 5}}}}, "H.on_delay_s"),
    (T1, {"on_delay_s": 0.1}, "on_delay_s is longer"),
    (T1, {"priority": Priority.LOW}, "priority is less urgent"),
    (T1, {"parameters": {"levels": {"HH": {"latching": False}}}}, "HH.latching is less strict"),
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
    (CHANGE, {"parameters": {"levels": {"H": {"limit": 0.3}}}}, "H.limit is less strict"),
    (CHANGE, {"parameters": {"window_s": 60.0}}, "window_s makes another number"),
    (PORTABLE, {"parameters": {"levels": {"H": 0.2}}}, "H.limit is less strict"),
    (STUCK, {"parameters": {"unchanged_s": 90_000.0}}, "unchanged_s is less strict"),
    (SMOKE, {"parameters": {"levels": {"SMOKE": {"values": [2]}}}}, "code 1 is no alarm now"),
    (BITS, {"parameters": {"bits": {"2": {"priority": "low"}}}}, "FATIGUE.priority"),
    (LOCK, {"parameters": {"reasons": ["BAD_SENSOR_FAULT"]}}, "is no alarm now"),
    (DOORS, {"parameters": {"limit": 2.0}}, "limit is less strict"),
    (ITEM, {"parameters": {"steps": steps(5)}}, "4 blue no longer make yellow"),
    (AREA, {"parameters": {"allowed_by": JOB}}, "lets more people in"),
    (TIME, {"parameters": {"limit_s": 50_000.0}}, "limit_s is less strict"),
    (DRIVE, {"parameters": {"drive_max_s": 18_000.0}}, "drive_max_s is less strict"),
    (COACH, {"parameters": {"limit_kmh": 110.0}}, "limit_kmh is less strict"),
]
KIND_OF = {rule.id: rule.kind for rule in RULES}


@pytest.mark.parametrize("table", [TIGHT, LOOSE], ids=["tight", "loose"])
def test_every_kind_of_rule_in_a_pack_is_tried(table) -> None:
    comparable = {name for name, kind in KINDS.items() if kind.loosens is not None}
    wanted = {kind for kind in KIND_OF.values() if kind in comparable}
    assert wanted <= {KIND_OF[row[0]] for row in table}


@pytest.mark.parametrize(("rule_id", "change"), TIGHT)
def test_a_site_may_tighten_a_rule_and_the_citation_says_so(rule_id, change) -> None:
    rule, faults = changed(rule_id, **change)
    assert faults == []
    assert "tightened by the site" in rule.citation.note
    assert rule.version.endswith("+site")
    pack = PACKS[rule_id.partition(".")[0]]
    others = [each for each in pack.rules if each.id != rule_id]
    whole = RulePack(pack.name, "1", "CN", {}, "complete", {}, (rule, *others))
    assert check_pack(whole, KINDS) == []


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


@pytest.mark.parametrize(
    ("rule_id", "change", "how"),
    [(rule_id, change, "tightened") for rule_id, change in TIGHT]
    + [(rule_id, change, "loosened") for rule_id, change, _ in LOOSE],
)
def test_check_tells_every_deviation_from_a_pack_in_either_direction(rule_id, change, how) -> None:
    """What `check` prints as notes are the deviations of `site_rules`."""
    signed = {"reason": "trial", "signed_by": "Chief Engineer", "signed_on": "2026-01-15"}
    override = PackOverride(rule=rule_id, **change, **signed)
    site = SimpleNamespace(
        path="site.toml", packs=[rule_id.partition(".")[0]], pack_overrides=[override], rules=()
    )
    found = site_rules(site, KINDS)
    assert found.faults == []
    (line,) = found.deviations
    assert line.startswith(f"{rule_id}: ")
    assert f"{how} by the site by Chief Engineer on 2026-01-15: trial" in line


def test_an_override_of_a_rule_that_is_not_there_is_a_fault() -> None:
    _, faults = apply_overrides(PACKS["tailings"], [Override(rule=T1)], KINDS)
    assert faults == [f"{T1}: no pack in use has this rule"]


def test_a_level_may_not_be_taken_out_of_a_rule() -> None:
    was = LimitParameters.model_validate({"levels": {"H": 1.0, "HH": 2.0}})
    now = LimitParameters.model_validate({"levels": {"H": 1.0}})
    assert limit_loosens(was, now) == ["level HH is gone"]
