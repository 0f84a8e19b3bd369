"""The numbers of the law, written down a second time: a slip in a pack shows here.

Read from the sources beside the packs, not from the packs. What a number does in the rule core is
test_packs_cases.py's.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import alarm_rules.packs
from alarm_rules.packs import parse_pack

FOLDER = Path(alarm_rules.packs.__file__).parent
RULES = {
    rule.id: rule
    for path in FOLDER.glob("*.toml")
    for rule in parse_pack(path.read_bytes(), path.name).rules
}


def levels(rule_id: str) -> str:
    """`H>=1.0 HH>=1.5/1.0`: name, operator, limit, and the reset where it is another."""
    words = []
    for name, level in RULES[rule_id].parameters["levels"].items():
        operator = level.get("operator", ">=" if name[0] == "H" else "<=")
        reset = level.get("reset", level["limit"])
        tail = f"/{reset:g}" if reset != level["limit"] else ""
        words.append(f"{name}{operator}{level['limit']:g}{tail}")
    return " ".join(words)


@pytest.mark.parametrize(
    ("place", "expected"),
    [  # 煤矿安全规程 第498条 表18: alarm, cut, reset in %CH4
        ("t0", "H>=1 HH>=1.5/1"),
        ("t1", "H>=1 HH>=1.5/1"),
        ("t2", "H>=1 HH>=1"),
        ("t3", "H>=0.5 HH>=0.5"),
        ("t3-series", "H>=0.5 HH>=0.5 HHH>=1.5/0.5"),
        ("t4", "H>=0.5 HH>=0.5"),
        ("t5", "H>=1 HH>=1.5/1"),
        ("t6", "H>=1 HH>=1"),
        ("return-middle", "H>=1 HH>=1"),
        ("twin-return", "H>=1 HH>=1"),
        ("heading-middle", "H>=1 HH>=1"),
        ("machine", "H>=1 HH>=1.5/1"),
        ("district-return", "H>=1 HH>=1"),
        ("total-return", "H>=0.75"),
        ("trolley-loading", "H>=0.5 HH>=0.5"),
        ("locomotive", "H>=0.5 HH>=0.5"),
        ("bunker", "H>=1.5 HH>=1.5"),
        ("surface-enclosed", "H>=1.5 HH>=1.5"),
        ("pump-house", "H>=0.5"),
        ("drainage-station", "H>=1 HH>=1"),
        ("belt-shaft", "H>=0.5 HH>=0.7"),
        ("workplace", "H>=1 HH>=1.5/1"),
        ("pocket", "HH>=2"),
        ("fan-start", "H>0.5"),
        ("stopped-zone", "H>1 HH>=3"),
        ("over-range", "HH>4"),
        ("report", "H>=0.75"),
        ("change-report", "H>0.2"),
    ],
)
def test_methane(place, expected) -> None:
    assert levels(f"coal-gas-2016.methane-{place}") == expected


@pytest.mark.parametrize(
    ("place", "expected"),
    [  # 第136条 表5, m/s
        ("return-shaft", "H>15"),
        ("material-shaft", "H>12"),
        ("air-crossing", "H>10"),
        ("man-shaft", "H>8"),
        ("main-intake", "H>8"),
        ("total-return", "H>8"),
        ("trolley-roadway", "L<1 H>8"),
        ("conveyor-roadway", "L<0.25 H>6"),
        ("district-intake", "L<0.25 H>6"),
        ("district-return", "L<0.25 H>6"),
        ("face", "L<0.25 H>4"),
        ("heading-coal", "L<0.25 H>4"),
        ("heading-rock", "L<0.15 H>4"),
        ("walkway", "L<0.15"),
        ("mechanised-face", "L<0.25 H>5"),
    ],
)
def test_air_velocity(place, expected) -> None:
    assert levels(f"coal-air-climate.air-velocity-{place}") == expected


@pytest.mark.parametrize(
    ("rule_id", "expected"),
    [
        ("coal-gas-2016.carbon-monoxide", "H>=24"),
        ("coal-gas-2016.carbon-monoxide-change-report", "H>5"),
        ("coal-gas-2016.fan-lock", "HH>3/1.5"),
        ("coal-air-climate.nitrogen-dioxide", "H>2.5"),
        ("coal-air-climate.sulfur-dioxide", "H>5"),
        ("coal-air-climate.hydrogen-sulfide", "H>6.6"),
        ("coal-air-climate.ammonia", "H>40"),
        ("coal-air-climate.oxygen-face-intake", "L<20"),
        ("coal-air-climate.carbon-dioxide-face-intake", "H>0.5"),
        ("coal-air-climate.carbon-dioxide-total-return", "H>0.75"),
        ("coal-air-climate.hydrogen-charging-room", "H>5000"),
        ("coal-air-climate.temperature-face", "H>26 HH>=30"),
        ("coal-air-climate.temperature-machine-room", "H>30 HH>=34"),
        ("coal-air-climate.temperature-intake-shaft", "L<2"),
        ("coal-air-climate.temperature-air-compressor", "H>=90 HH>=100/99"),
        ("coal-air-climate.dust-any", "H>4"),
        ("coal-air-climate.dust-10-to-50", "H>1"),
        ("coal-air-climate.dust-50-to-80", "H>0.7"),
        ("coal-air-climate.dust-over-80", "H>0.5"),
        ("coal-air-climate.respirable-dust-any", "H>2.5"),
        ("coal-air-climate.respirable-dust-10-to-50", "H>0.7"),
        ("coal-air-climate.respirable-dust-50-to-80", "H>0.3"),
        ("coal-air-climate.respirable-dust-over-80", "H>0.2"),
        ("tailings.freeboard-grade-1", "LL<1.5"),
        ("tailings.freeboard-grade-2", "LL<1"),
        ("tailings.freeboard-grade-3", "LL<0.7"),
        ("tailings.freeboard-grade-4", "LL<0.5"),
        ("tailings.freeboard-any", "LL<0.4"),
        ("tailings.beach-grade-1", "LL<150"),
        ("tailings.beach-grade-2", "LL<100"),
        ("tailings.beach-grade-3", "LL<70"),
        ("tailings.beach-grade-4", "LL<50"),
        ("tailings.beach-any", "LL<40"),
        ("tailings.phreatic-depth", "L<2.2 LL<2"),
        ("tailings.phreatic-depth-over-150", "L<11 LL<10"),
        ("tailings.rain-24h", "H>=50"),
        ("slope-reference.rate-x-day", "H>10"),
        ("slope-reference.rate-z-hour", "H>=5"),
        ("slope-reference.crack-pit-slope", "H>50"),
        ("hazchem-gas.combustible-gas", "H>=25 HH>=50"),
        ("hazchem-gas.combustible-gas-path", "H>=1 HH>=2"),
        ("hazchem-gas.toxic-gas", "H>=100 HH>=200"),
        ("hazchem-gas.toxic-gas-idlh", "H>=5 HH>=10"),
        ("hazchem-gas.oxygen", "L<=19.5 H>=23.5"),
        ("hazchem-gas.carbon-dioxide", "H>=0.49 HH>=0.98"),
        ("hazchem-tank.hazard-grade", "H>=10 HH>=50 HHH>=100"),
        ("hazchem-tank.pressure-design", "HH>=80"),
        ("hazchem-tank.wind-tank-farm", "H>=13.8"),
        ("cold-store-ammonia.machine-room", "H>=150"),
        ("cold-store-ammonia.machine-room-lel", "HH>=25"),
        ("cold-store-ammonia.valve-room", "H>=150"),
        ("town-gas.tunnel-gas", "H>=20"),
        ("town-gas.gas-store", "H>=20"),
        ("town-gas.gas-store-cut", "HH>=50"),
        ("crane.load", "H>=90 HH>=100"),
        ("crane.load-cut", "HH>100"),
        ("crane.overload-bridge", "HH>=110"),
        ("crane.wind-lifting", "H>=10.8 HH>=12"),
        ("crane.tilt-free", "H>4"),
        ("crane.tilt-tied", "H>2"),
        ("lift.escalator-overspeed", "H>=120 HH>=140"),
        ("refuge.oxygen", "L<18.5 H>23"),
        ("refuge.temperature", "H>35"),
        ("refuge.over-pressure", "L<100"),
        ("weather.rain-3h", "H>=50 HH>=100"),
        ("weather.gale-mean", "H>=10.8 HH>=17.2 HHH>=24.5 HHHH>=32.7"),
        ("weather.heat", "H>=37 HH>=40"),
        ("weather.fog", "L<500 LL<200 LLL<50"),
        ("noncoal-underground.carbon-monoxide", "H>=24"),
        ("noncoal-underground.temperature", "H>28"),
        ("noncoal-underground.air-velocity-stope", "L<0.15"),
        ("road-transport.overspeed-hazmat", "H>80"),
    ],
)
def test_other_limits(rule_id, expected) -> None:
    assert levels(rule_id) == expected


@pytest.mark.parametrize(
    ("gas", "molar_mass", "first", "second"),
    [  # mg/m³ of GB/T 50493-2019; in the pack as ppm at 20 ℃
        ("hydrogen-sulfide", 34.08, 10, 20),
        ("carbon-monoxide", 28.01, 20, 40),
        ("ammonia", 17.03, 20, 40),
        ("chlorine", 70.91, 1, 2),
        ("sulfur-dioxide", 64.06, 5, 10),
        ("nitrogen-dioxide", 46.01, 5, 10),
        ("hydrogen-fluoride", 20.01, 2, 4),
        ("hydrogen-cyanide", 27.03, 1, 2),
        ("hydrogen-chloride", 36.46, 7.5, 15),
        ("phosgene", 98.92, 0.5, 1),
        ("ozone", 48.00, 0.3, 0.6),
        ("methanol", 32.04, 25, 50),
        ("benzene", 78.11, 3, 6),
        ("toluene", 92.14, 50, 100),
        ("xylene", 106.17, 50, 100),
        ("phenol", 94.11, 10, 20),
        ("acrylonitrile", 53.06, 1, 2),
        ("vinyl-chloride", 62.50, 10, 20),
    ],
)
def test_toxic_gases_are_the_limits_of_the_table_in_ppm_rounded_down(
    gas, molar_mass, first, second
) -> None:
    found = RULES[f"hazchem-gas.{gas}"].parameters["levels"]
    for level, limit in (("H", first), ("HH", second)):
        ppm = limit * 24.04 / molar_mass
        shipped = found[level]["limit"]
        assert shipped <= ppm + 1e-6, "never above the law"
        assert math.isclose(shipped, ppm, rel_tol=0.06), "and not far below it"


@pytest.mark.parametrize(
    ("rule_id", "key", "expected"),
    [
        ("coal-personnel.major-hazard-area", "factor", 1.2),
        ("coal-personnel.over-time", "limit_s", 12 * 3600),
        ("road-transport.driving-hazmat", "drive_max_s", 4 * 3600),
        ("road-transport.driving-hazmat", "rest_min_s", 20 * 60),
        ("road-transport.driving-coach", "drive_max_s", 4 * 3600),
        ("road-transport.driving-coach-day-total", "daily_max_s", 8 * 3600),
        ("road-transport.driving-coach-ban", "ban", {"from": "02:00", "to": "05:00"}),
        ("road-transport.overspeed-coach", "night_factor", 0.8),
        ("fire.link-inspection", "max_age_s", 2 * 3600),
        ("tailings.daily-rain", "max_age_s", 24 * 3600),
    ],
)
def test_times_and_shares(rule_id, key, expected) -> None:
    assert RULES[rule_id].parameters[key] == expected


def test_a_pond_adds_up_by_four_three_and_two() -> None:
    wanted = [("blue", 4, "yellow"), ("yellow", 3, "orange"), ("orange", 2, "red")]
    for rule_id in ("tailings.item-phreatic", "tailings.pond"):
        steps = RULES[rule_id].parameters["steps"]
        assert [(s["of"], s["count"], s["makes"]) for s in steps] == wanted
