"""Messages → devices, points and samples: the state table, sentinels, lists, snapshots."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mine_files.codec import decode_file, parse_name
from adapters.mine_files.config import MineFilesConfig
from adapters.mine_files.mapping import (
    View,
    apply,
    bad_share_fault,
    plan,
    to_batches,
)
from adapters.mine_files.plan import read_value
from adapters.mine_files.safety import read_state, state_quality
from adapters.mine_files.vocabulary import SENSOR_TYPES, normal_unit, sensor_type
from gateway.model.errors import RemoteProtocolError
from gateway.model.point import PointKind, is_valid_id
from gateway.model.quality import Quality

OPTIONS = MineFilesConfig(folder="in").options("mine")


@pytest.fixture
def check(mine):
    """Plan one file against a view, apply it as if emitted, and give the plan back."""

    def run(view, kind, records, *, at_s=0, header=None, data=None, options=OPTIONS):
        data = data or mine.content(kind, records, at_s=at_s, header=header)
        message = decode_file(data, parse_name(mine.name_at(kind, at_s)))
        result = plan(message, view, options)
        again = plan(message, view, options)
        assert again == result, "planning changes nothing, so a file may be planned twice"
        apply(result, view)
        return result

    return run


def rows(result, point=None):
    return [
        (p, v, q, t)
        for p, v, q, t in zip(
            result.rows.point,
            result.rows.value,
            result.rows.quality,
            result.rows.time_ns,
            strict=True,
        )
        if point in (None, p)
    ]


# ----------------------------------------------------------------------------------- point state


def expected_quality(state: int) -> Quality:
    """The table in words, bit by bit, as the reference has it."""
    if state & 128:
        return Quality.BAD_SENSOR_FAULT
    if state & 16:
        return Quality.BAD_COMMUNICATION
    if state & 32 or state & 64:
        return Quality.BAD_NOT_POLLED
    if state & 4:
        return Quality.UNCERTAIN_CALIBRATING
    if state & 8:
        return Quality.UNCERTAIN
    return Quality.GOOD


def test_every_state_of_the_eight_bits_gives_its_quality() -> None:
    for state in range(256):
        assert state_quality(state) == expected_quality(state), state
        assert read_state(str(state)) == (float(state), Quality.GOOD, expected_quality(state))


def test_alarm_and_cut_never_spoil_a_value_and_over_range_is_never_hidden() -> None:
    assert {state_quality(state) for state in (0, 1, 2, 3)} == {Quality.GOOD}
    for state in (8, 9, 10, 11):
        assert not state_quality(state).is_bad


STATES = [
    ("256", 256.0, Quality.UNCERTAIN_STATE, Quality.UNCERTAIN_STATE),
    ("4097", 4097.0, Quality.UNCERTAIN_STATE, Quality.UNCERTAIN_STATE),
    (" 5 ", 5.0, Quality.GOOD, Quality.UNCERTAIN_CALIBRATING),
    ("005", 5.0, Quality.GOOD, Quality.UNCERTAIN_CALIBRATING),
    ("", math.nan, Quality.BAD_NO_VALUE, Quality.UNCERTAIN_STATE),
    ("正常", math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE),
    ("-1", math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE),
    ("1.5", math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE),
    ("４", math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE),
    ("9007199254740993", math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE),
]


@pytest.mark.parametrize(("text", "value", "quality", "effect"), STATES)
def test_a_state_beyond_the_table_leaves_the_value_uncertain(text, value, quality, effect) -> None:
    got = read_state(text)
    assert got[0] == pytest.approx(value, nan_ok=True)
    assert got[1:] == (quality, effect)


VALUES = [
    ("0.32", 0.32, Quality.GOOD),
    (" -3.50 ", -3.5, Quality.GOOD),
    ("+.5", 0.5, Quality.GOOD),
    ("1e2", 100.0, Quality.GOOD),
    ("-9999", math.nan, Quality.BAD_NO_VALUE),
    ("-9999.00", math.nan, Quality.BAD_NO_VALUE),
    ("-999999", math.nan, Quality.BAD_NO_VALUE),
    ("", math.nan, Quality.BAD_NO_VALUE),
    ("未设置", math.nan, Quality.BAD_NO_VALUE),
    ("X", math.nan, Quality.BAD_NO_VALUE),
    ("xxxx-xx-xx xx:xx:xx", math.nan, Quality.BAD_NO_VALUE),
    ("null", math.nan, Quality.BAD_NO_VALUE),
    ("断线", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("nan", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("inf", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("1e999", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("1_000", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("１.5", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("0x10", math.nan, Quality.BAD_NOT_A_NUMBER),
    ("-9998", -9998.0, Quality.GOOD),
]


@pytest.mark.parametrize(("text", "value", "quality"), VALUES)
def test_a_value_is_a_number_or_says_why_not(text: str, value: float, quality: Quality) -> None:
    got = read_value(text)
    assert got[0] == pytest.approx(value, nan_ok=True)
    assert got[1] == quality


@given(st.text(max_size=20))
def test_a_value_that_is_bad_is_not_a_number_and_the_other_way_round(text: str) -> None:
    value, quality = read_value(text)
    assert math.isnan(value) == quality.is_bad
    assert math.isfinite(value) or quality.is_bad


# ------------------------------------------------------------------------------------ vocabulary


def test_every_sensor_type_has_a_stable_word_of_its_own_kind() -> None:
    assert len(SENSOR_TYPES) == 53 + 15 + 5 + 2
    for code, kind in SENSOR_TYPES.items():
        assert is_valid_id(kind.quantity), code
        assert kind.quantity.isascii(), code
        assert kind.name
        if code.startswith(("1", "4")):
            assert len(kind.states) >= 2, code


def test_gas_in_a_pipe_is_never_gas_in_the_air() -> None:
    breathed = {code for code, kind in SENSOR_TYPES.items() if kind.quantity == "methane"}
    assert breathed == {"0001", "0011", "0043"}
    assert SENSOR_TYPES["0022"].quantity == "pipe_methane"
    assert SENSOR_TYPES["0038"].quantity == "pipe_carbon_monoxide"


def test_an_unknown_type_gets_a_word_of_its_own_and_water_codes_hold_in_their_system() -> None:
    assert sensor_type("0999").quantity == "sensor_0999"
    assert sensor_type("0503", "05").quantity == "water_inflow"
    assert sensor_type("0503", "01").quantity == "sensor_0503"


UNITS = [
    ("%", "0001", "%CH4"),
    ("CH4%", "0001", "%CH4"),
    ("%ch4", "0001", "%CH4"),
    ("%", "0012", "%"),
    ("PPM", "0004", "ppm"),
    ("KPa", "0006", "kPa"),
    ("Mpa", "0032", "MPa"),
    ("mPa", "0032", "mPa"),
    ("mg/m3", "0014", "mg/m³"),
    ("M/S", "0002", "m/s"),
    ("m3/min", "0019", "m³/min"),
    ("°C", "0003", "℃"),
    ("furlong", "0002", "furlong"),
    ("", "0002", "m/s"),
    ("", "0005", ""),
]


@pytest.mark.parametrize(("text", "code", "expected"), UNITS)
def test_units_have_one_spelling(text: str, code: str, expected: str) -> None:
    assert normal_unit(text, sensor_type(code)) == expected


# ------------------------------------------------------------------------------------------ CDDY


def test_a_definition_becomes_a_point_with_the_mines_own_limits(check, mine) -> None:
    view = View()
    record = mine.definition(
        range_high="4",
        range_low="0",
        alarm_high="1.00",
        alarm_high_release="0.99",
        cut_high="1.50",
        restore_high="0.99",
        x="1.5",
        relation="D-123",
    )
    result = check(view, "CDDY", [record])
    point = view.points[record["code"]]
    assert point.kind is PointKind.ANALOG
    assert (point.quantity, point.unit) == ("methane", "%CH4")
    assert (point.range_low, point.range_high) == (0.0, 4.0)
    assert (point.location, point.location_class, point.area) == (
        "3101工作面T1",
        "T1",
        "3101工作面",
    )
    assert (point.adapter, point.interval_s) == ("mine", 20.0)
    assert point.device == f"{mine.code}00001"
    assert view.devices[point.device].kind == "substation"
    limits = {
        key: point.attributes.get(key)
        for key in ("alarm_high", "cut_high", "restore_high", "alarm_low")
    }
    assert limits == {
        "alarm_high": "1.00",
        "cut_high": "1.50",
        "restore_high": "0.99",
        "alarm_low": None,
    }
    assert point.attributes["substation"] == f"{mine.code}00001"
    assert point.attributes["relation"] == "D-123"
    state = view.points[f"{record['code']}.state"]
    assert (state.kind, state.quantity, state.interval_s) == (PointKind.BITS, "sensor_state", None)
    assert (state.location_class, state.device) == ("T1", point.device)
    assert len(result.rows) == 0
    assert view.devices[mine.code].name == "示例煤矿"


SWITCHES = [
    ({"on_text": "风筒有风", "off_text": "风筒无风"}, {0: "风筒无风", 1: "风筒有风"}),
    ({}, {0: "无风", 1: "有风"}),
    ({"on_text": "1", "off_text": "0"}, {0: "无风", 1: "有风"}),
    ({"on_text": "有风了"}, {0: "无风", 1: "有风了"}),
]


@pytest.mark.parametrize(("texts", "states"), SWITCHES)
def test_a_switch_takes_the_mines_words_or_the_code_tables(texts, states, check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition("KG1003001D05", **texts)])
    point = view.points[f"{mine.code}01KG1003001D05"]
    assert point.kind is PointKind.DISCRETE
    assert (point.quantity, point.unit, dict(point.states)) == ("air_duct", "", states)


def test_accumulated_and_multi_state_points_keep_their_kind(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition("LJ3002001"), mine.definition("DT4002001")])
    assert view.points[f"{mine.code}01LJ3002001"].kind is PointKind.COUNTER
    power = view.points[f"{mine.code}01DT4002001"]
    assert (power.kind, power.quantity) == (PointKind.DISCRETE, "power_supply")
    assert dict(power.states) == {0: "无", 1: "交流", 2: "直流"}


def test_a_limit_nobody_can_read_costs_the_limit_and_not_the_point(check, mine) -> None:
    view = View()
    result = check(
        view,
        "CDDY",
        [mine.definition(alarm_high="一", cut_high="1.5", range_high="1", range_low="2")],
    )
    point = view.points[mine.definition()["code"]]
    assert "alarm_high" not in point.attributes
    assert point.attributes["cut_high"] == "1.5"
    assert point.range_high is None
    assert result.counts["records_warned", "unreadable_number"] == 1
    assert result.counts["records_warned", "range"] == 1


LOCATIONS = [
    ("3101工作面T1", "T1", "3101工作面"),
    ("3101工作面(T2)", "T2", "3101工作面"),
    ("T0", "T0", ""),
    ("3101T9回风", "T9", "3101"),
    ("3101工作面T10", "", ""),
    ("AT1", "", ""),
    ("3101回风巷", "", ""),
]


@pytest.mark.parametrize(("location", "location_class", "area"), LOCATIONS)
def test_the_location_class_is_read_from_the_location(
    location, location_class, area, check, mine
) -> None:
    view = View()
    check(view, "CDDY", [mine.definition(location=location)])
    point = view.points[mine.definition()["code"]]
    assert (point.location_class, point.area) == (location_class, area)


def test_a_site_may_read_location_classes_its_own_way(check, mine) -> None:
    config = MineFilesConfig(
        folder="in",
        location_classes=[
            {"pattern": "上隅角", "location_class": "T0"},
            {"pattern": r"回风(流)?", "location_class": "T2"},
        ],
    )
    view = View()
    check(view, "CDDY", [mine.definition(location="3101上隅角")], options=config.options("mine"))
    assert view.points[mine.definition()["code"]].location_class == "T0"


def test_a_point_missing_from_a_newer_full_list_is_withdrawn_and_comes_back(check, mine) -> None:
    view = View()
    one, two = mine.definition("MN0001001A01"), mine.definition("MN0001001A02")
    check(view, "CDDY", [one, two])
    result = check(view, "CDDY", [one], at_s=60)
    assert list(result.points) == [two["code"]]
    assert view.points[two["code"]].attributes["withdrawn"] == "1"
    assert "withdrawn" not in view.points[one["code"]].attributes
    check(view, "CDDY", [one, two], at_s=120)
    assert "withdrawn" not in view.points[two["code"]].attributes


def test_nothing_is_withdrawn_by_an_empty_a_damaged_or_another_systems_list(check, mine) -> None:
    view = View()
    one, two = mine.definition("MN0001001A01"), mine.definition("MN0001001A02")
    check(view, "CDDY", [one, two])
    check(view, "CDDY", [], at_s=60)
    damaged = mine.content("CDDY", [one], at_s=120).replace(b"||", b"x;y~||")
    check(view, "CDDY", [], at_s=120, data=damaged)
    drainage = mine.definition("MN0022002A01", code=f"{mine.code}02MN0022002A01", system="02")
    check(view, "CDDY", [drainage], at_s=180)
    assert not [p for p in view.points.values() if "withdrawn" in p.attributes]


def test_an_older_list_after_a_newer_one_declares_nothing(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition(location="new")], at_s=60)
    result = check(view, "CDDY", [mine.definition(location="old")], at_s=0)
    assert not result.points
    assert not result.devices
    assert result.counts["dropped", "old_list"] == 1
    assert view.points[mine.definition()["code"]].location == "new"


def test_lists_of_two_systems_of_one_mine_do_not_make_each_other_old(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition()], at_s=60, header={"system": "安全监控"})
    other = mine.definition("MN0022002A01", code=f"{mine.code}02MN0022002A01", system="02")
    check(view, "CDDY", [other], at_s=0, header={"system": "瓦斯抽放"})
    assert other["code"] in view.points


def test_of_two_definitions_of_one_point_the_last_holds(check, mine) -> None:
    view = View()
    result = check(view, "CDDY", [mine.definition(location="a"), mine.definition(location="b")])
    assert view.points[mine.definition()["code"]].location == "b"
    assert result.counts["records_warned", "duplicate_key"] == 1


# ------------------------------------------------------------------------------------------ CDSS


def test_a_record_gives_its_value_and_its_state_at_its_own_time(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition()])
    result = check(view, "CDSS", [mine.reading(value="0.32", state="1", at_s=-10)])
    code, time_ns = mine.reading()["code"], mine.t0 - 10 * mine.second
    assert rows(result) == [
        (code, 0.32, Quality.GOOD, time_ns),
        (f"{code}.state", 1.0, Quality.GOOD, time_ns),
    ]
    assert not result.points


COMBINED = [
    # value, state -> quality of the value
    ("0.32", "0", Quality.GOOD),
    ("4.10", "11", Quality.UNCERTAIN),
    ("2.00", "5", Quality.UNCERTAIN_CALIBRATING),
    ("0.32", "128", Quality.BAD_SENSOR_FAULT),
    ("-9999", "128", Quality.BAD_SENSOR_FAULT),
    ("-9999", "16", Quality.BAD_COMMUNICATION),
    ("-9999", "0", Quality.BAD_NO_VALUE),
    ("断线", "4", Quality.BAD_NOT_A_NUMBER),
    ("0.32", "", Quality.UNCERTAIN_STATE),
    ("", "512", Quality.BAD_NO_VALUE),
]


@pytest.mark.parametrize(("value", "state", "quality"), COMBINED)
def test_the_worse_of_value_and_state_decides(value, state, quality, check, mine) -> None:
    result = check(View(), "CDSS", [mine.reading(value=value, state=state)])
    assert result.rows.quality[0] == quality


def test_a_point_without_definition_is_declared_from_its_code(check, mine) -> None:
    view = View()
    result = check(
        view, "CDSS", [mine.reading("MN0004001A02", "36", unit="ppm", location="3101工作面T2")]
    )
    point = view.points[f"{mine.code}01MN0004001A02"]
    assert (point.quantity, point.unit, point.location_class) == ("carbon_monoxide", "ppm", "T2")
    assert point.attributes["provisional"] == "1"
    assert point.device == mine.code
    assert len(result.rows) == 2
    check(
        view,
        "CDDY",
        [mine.definition("MN0004001A02", unit="ppm", location="3101工作面T2")],
        at_s=60,
    )
    assert "provisional" not in view.points[f"{mine.code}01MN0004001A02"].attributes


STRANGERS = [
    "99990200099901MN0001001A01",
    "999901000123ZZ",
    "999901000123",
    "0001",
    "99990100012301AB0001001A01",
]


@pytest.mark.parametrize("code", STRANGERS)
def test_a_code_that_does_not_take_apart_is_rejected_with_its_record(
    code: str, check, mine
) -> None:
    result = check(View(), "CDSS", [mine.reading(), mine.reading(code=code)])
    assert len(result.rows) == 2
    assert result.counts["records_rejected", "unknown_point"] == 1
    assert (result.faults[0].number, result.faults[0].field) == (2, "code")
    assert code in str(result.faults[0])


def test_a_code_that_does_not_take_apart_is_taken_once_a_list_defines_it(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition(code="0001")])
    assert len(check(view, "CDSS", [mine.reading(code="0001")]).rows) == 2


def test_two_records_of_one_point_are_two_samples_at_two_times_and_one_at_one(check, mine) -> None:
    two = [
        mine.reading(value="1", at_s=-20),
        mine.reading(value="2", at_s=0),
        mine.reading(value="3", at_s=0),
    ]
    result = check(View(), "CDSS", two)
    assert [value for _, value, _, _ in rows(result, mine.reading()["code"])] == [1.0, 3.0]
    assert result.counts["records_warned", "duplicate_key"] == 1


def test_a_prefix_stands_before_every_point_and_device(check, mine) -> None:
    options = MineFilesConfig(folder="in", point_prefix="A-").options("mine")
    view = View()
    for kind, records in [
        ("CDDY", [mine.definition()]),
        ("CDSS", [mine.reading()]),
        ("RYSS", [mine.person()]),
        ("FZSS", [{"code": "S1", "run": "0", "power": "1", "time": "2026-01-15 08:00:00"}]),
    ]:
        result = check(view, kind, records, options=options)
        assert all(point.startswith("A-") for point in result.rows.point)
    assert all(id_.startswith("A-") for id_ in (*view.points, *view.devices))
    assert all(p.device.startswith("A-") for p in view.points.values())


# ------------------------------------------------------------------------------------ FZSS, JZSS

RUN_STATES = [
    ("0", "1", [(0.0, Quality.GOOD), (1.0, Quality.GOOD)]),
    ("2", "2", [(2.0, Quality.GOOD), (2.0, Quality.GOOD)]),
    ("9", "0", [(9.0, Quality.UNCERTAIN_STATE), (0.0, Quality.GOOD)]),
    ("7", "9", [(7.0, Quality.UNCERTAIN_STATE), (9.0, Quality.UNCERTAIN_STATE)]),
    ("", "x", [(math.nan, Quality.BAD_NO_VALUE), (math.nan, Quality.BAD_NOT_A_NUMBER)]),
]


@pytest.mark.parametrize(("kind", "device_kind"), [("FZSS", "substation"), ("JZSS", "station")])
def test_stations_are_devices_with_a_run_state_that_is_expected_and_a_power_state(
    kind, device_kind, check
) -> None:
    view = View()
    check(view, kind, [{"code": "S1", "run": "0", "power": "1", "time": "2026-01-15 07:59:55"}])
    assert view.devices["S1"].kind == device_kind
    assert view.points["S1.run"].interval_s == 60.0
    assert view.points["S1.power"].interval_s is None
    assert view.points["S1.run"].states[1] == "通信中断"


@pytest.mark.parametrize(("run", "power", "samples"), RUN_STATES)
def test_station_states_are_two_samples(run, power, samples, check) -> None:
    record = {"code": "S1", "run": run, "power": power, "time": "2026-01-15 07:59:55"}
    result = check(View(), "FZSS", [record])
    assert [(row[0], row[2]) for row in rows(result)] == [
        ("S1.run", samples[0][1]),
        ("S1.power", samples[1][1]),
    ]
    assert result.rows.value == pytest.approx([v for v, _ in samples], nan_ok=True)


# ------------------------------------------------------------------------------------- personnel


def test_the_lists_of_areas_stations_and_people_become_devices(check, mine) -> None:
    view = View()
    area, station, who = f"{mine.code}0007", f"{mine.code}0007000120", mine.card(42)
    check(view, "RYQY", [{"area_type": "重点区域", "code": area, "capacity": "30", "name": "面"}])
    check(
        view,
        "RYJZ",
        [{"code": station, "name": "1号", "x": "0", "y": "0", "z": "0", "location": "口"}],
    )
    check(
        view,
        "RYXX",
        [
            {
                "card": who,
                "name": "测试甲",
                "job": "未设置",
                "post": "班长",
                "team": "综采一队",
                "birth": "1990-01-01",
                "leader": "1",
                "special": "0",
            }
        ],
        header={"capacity": "500"},
    )
    assert dict(view.devices[area].attributes) == {
        "mine": mine.code,
        "area_type": "重点区域",
        "capacity": "30",
    }
    assert view.devices[area].kind == "area"
    assert view.devices[area].name == "面"
    assert view.devices[station].kind == "station"
    assert view.devices[station].attributes["area"] == area
    assert view.devices[mine.code].attributes["capacity"] == "500"
    person = view.devices[who]
    assert (person.kind, person.name) == ("person", "测试甲")
    assert dict(person.attributes) == {
        "mine": mine.code,
        "post": "班长",
        "team": "综采一队",
        "leader": "1",
        "special": "0",
    }
    assert view.points[f"{who}.area"].kind is PointKind.AREA
    assert view.points[f"{who}.area"].interval_s is None


def test_of_two_people_with_one_card_the_last_holds_and_it_is_counted(check, mine) -> None:
    view = View()
    two = [{"card": mine.card(1), "name": name} for name in ("测试甲", "测试乙")]
    result = check(view, "RYXX", two)
    assert view.devices[mine.card(1)].name == "测试乙"
    assert result.counts["records_warned", "duplicate_key"] == 1


def test_a_snapshot_never_overwrites_what_the_list_of_people_said(check, mine) -> None:
    view = View()
    check(view, "RYXX", [{"card": mine.card(42), "name": "测试甲", "job": "电工"}])
    before = view.devices[mine.card(42)]
    check(view, "RYSS", [mine.person(42)])
    assert view.devices[mine.card(42)] is before
    check(view, "RYSS", [mine.person(43)], at_s=30)
    assert view.devices[mine.card(43)].attributes["provisional"] == "1"
    check(view, "RYXX", [{"card": mine.card(43), "name": "测试乙"}], at_s=60)
    assert "provisional" not in view.devices[mine.card(43)].attributes


def test_a_snapshot_says_where_everybody_is_at_the_time_of_its_header(check, mine) -> None:
    people = [
        mine.person(1),
        mine.person(2, flag="2"),
        mine.person(3, flag="0"),
        mine.person(4, work_state="求救"),
    ]
    result = check(View(), "RYSS", people)
    got = {point: (value, time) for point, value, _, time in rows(result)}
    assert {time for _, time in got.values()} == {mine.t0}
    assert result.rows.area == {0: f"{mine.code}0007", 6: f"{mine.code}0007"}
    assert [got[f"{mine.card(n)}.area"][0] for n in (2, 3)] == [-1.0, -1.0]
    assert [got[f"{mine.card(n)}.sos"][0] for n in (1, 4)] == [0.0, 1.0]
    assert got[f"{mine.code}.underground"][0] == 2.0


WORDS = [
    ("正常", 0.0, Quality.GOOD),
    ("求救", 1.0, Quality.GOOD),
    ("", math.nan, Quality.BAD_NO_VALUE),
    ("3", math.nan, Quality.BAD_NOT_A_NUMBER),
]


@pytest.mark.parametrize(("word", "value", "quality"), WORDS)
def test_a_word_nobody_knows_is_neither_a_call_for_help_nor_its_absence(
    word, value, quality, check, mine
) -> None:
    result = check(View(), "RYSS", [mine.person(1, work_state=word)])
    row = rows(result, f"{mine.card(1)}.sos")[0]
    assert row[1] == pytest.approx(value, nan_ok=True)
    assert row[2] == quality


PLACES = [
    ({"area": "", "station": "9999010001230009000001"}, "9999010001230009", Quality.GOOD),
    ({"area": "", "station": ""}, "999901000123", Quality.UNCERTAIN_POSITION),
    ({"area": "a b", "station": ""}, "999901000123", Quality.UNCERTAIN_POSITION),
]


@pytest.mark.parametrize(("fields", "area", "quality"), PLACES)
def test_somebody_underground_at_an_unknown_place_is_still_underground(
    fields, area, quality, check, mine
) -> None:
    view = View()
    result = check(view, "RYSS", [mine.person(1, **fields)])
    assert result.rows.area == {0: area}
    assert result.rows.quality[0] == quality
    assert view.devices[area].kind in ("area", "mine")
    assert rows(result, f"{mine.code}.underground")[0][1] == 1.0


def test_who_is_missing_from_a_newer_snapshot_has_left(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(1), mine.person(2)])
    result = check(view, "RYSS", [mine.person(1)], at_s=30)
    assert rows(result, f"{mine.card(2)}.area") == [
        (f"{mine.card(2)}.area", -1.0, Quality.GOOD, mine.t0 + 30 * mine.second)
    ]
    assert rows(result, f"{mine.card(2)}.sos") == []
    assert result.counts["inferred", "left"] == 1
    assert rows(check(view, "RYSS", [], at_s=60), f"{mine.card(2)}.area") == []


def test_an_empty_snapshot_empties_the_mine(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(1), mine.person(2)])
    result = check(view, "RYSS", [], at_s=30)
    assert result.counts["inferred", "left"] == 2
    assert rows(result, f"{mine.code}.underground")[0][1] == 0.0


def test_who_was_said_to_have_left_is_not_inferred_again(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(1)])
    check(view, "RYSS", [mine.person(1, flag="2")], at_s=30)
    assert not check(view, "RYSS", [], at_s=60).counts["inferred", "left"]


def test_an_older_snapshot_is_history_and_says_nothing_about_anybody_missing(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(1), mine.person(2)], at_s=60)
    result = check(view, "RYSS", [mine.person(1, area="0009")], at_s=30)
    assert {time for _, _, _, time in rows(result)} == {mine.t0 + 30 * mine.second}
    assert not result.counts["inferred", "left"]
    assert result.counts["old_snapshot", ""] == 1
    assert view.present[mine.code] == {mine.card(1), mine.card(2)}
    assert check(view, "RYSS", [mine.person(1)], at_s=90).counts["inferred", "left"] == 1


def test_who_is_missing_because_a_record_is_damaged_has_not_left(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(n) for n in range(8)])
    data = mine.content("RYSS", [mine.person(n) for n in range(7)], at_s=30)
    damaged = data.replace(b"||", f"{mine.card(7)};cut~||".encode())
    result = check(view, "RYSS", [], at_s=30, data=damaged)
    assert not result.counts["inferred", "left"]
    assert mine.card(7) in view.present[mine.code]
    count = rows(result, f"{mine.code}.underground")[0]
    assert (count[1], count[2]) == (7.0, Quality.UNCERTAIN_DERIVED)


@given(st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from("012"), max_size=5), max_size=6))
def test_after_any_snapshots_the_last_word_on_everybody_is_the_newest_snapshot(history) -> None:
    from gateway.model.point import NO_AREA

    view, last = View(), {}
    for step, flags in enumerate(history):
        records = "~".join(f"P{n};x;{f};;;A1;;;;;;正常;0;0;" for n, f in flags.items())
        text = f"999901000123;x;2026-01-15 08:00:{step:02d}~{records}~||"
        name = parse_name("999901000123_RYSS_20260115080000.txt")
        result = plan(decode_file(text.encode(), name), view, OPTIONS)
        apply(result, view)
        for row, point in enumerate(result.rows.point):
            if point.endswith(".area"):
                last[point] = "in" if row in result.rows.area else result.rows.value[row]
    newest = history[-1] if history else {}
    for n in range(6):
        expected = "in" if newest.get(n) == "1" else NO_AREA
        assert last.get(f"P{n}.area", NO_AREA) == expected


# --------------------------------------------------------------------------------------- limits


def test_a_sender_that_invents_codes_does_not_fill_the_registry(check, mine) -> None:
    options = MineFilesConfig(folder="in", points_max=8).options("mine")
    view = View()
    check(view, "CDDY", [mine.definition()], options=options)  # mine, substation, two points
    invented = [mine.reading(f"MN0001{n:06d}") for n in range(20)]
    result = check(view, "CDSS", [mine.reading(), *invented], options=options)
    assert len(result.rows) == 2 * (1 + 2)
    assert result.counts["records_rejected", "points_full"] == 18
    assert len(view.points) + len(view.devices) == 8
    again = check(view, "CDSS", [mine.reading(), *invented], at_s=20, options=options)
    assert len(again.rows) == 2 * (1 + 2), "what is known goes on"


@pytest.mark.parametrize("kind", ["CDDY", "RYQY", "RYJZ", "RYXX", "RYSS", "FZSS"])
def test_every_list_stops_at_the_limit(kind, check, mine) -> None:
    records = {
        "CDDY": lambda n: mine.definition(f"MN0001{n:06d}"),
        "RYQY": lambda n: {"code": f"A{n}", "name": "x"},
        "RYJZ": lambda n: {"code": f"S{n}", "name": "x", "location": "x"},
        "RYXX": lambda n: {"card": f"P{n}", "name": "x", "special": "0"},
        "RYSS": mine.person,
        "FZSS": lambda n: {
            "code": f"F{n}",
            "run": "0",
            "power": "0",
            "time": "2026-01-15 08:00:00",
        },
    }[kind]
    options = MineFilesConfig(folder="in", points_max=10).options("mine")
    view = View()
    result = check(view, kind, [records(n) for n in range(30)], options=options)
    assert len(view.points) + len(view.devices) <= 10 + 4  # one record is never half taken
    assert result.counts["records_rejected", "points_full"] > 15
    if kind == "RYSS":
        assert rows(result, f"{mine.code}.underground")[0][1] == 30.0, "still all are counted"


def test_somebody_in_an_area_beyond_the_limit_is_still_underground(check, mine) -> None:
    view = View()
    check(view, "RYSS", [mine.person(1)])
    options = MineFilesConfig(folder="in", points_max=1).options("mine")
    result = check(view, "RYSS", [mine.person(1, area="0099")], at_s=30, options=options)
    assert result.rows.area == {0: mine.code}
    assert result.rows.quality[0] == Quality.UNCERTAIN_POSITION


def test_a_text_no_person_would_read_is_cut(check, mine) -> None:
    view = View()
    check(view, "CDDY", [mine.definition(location="x" * 10_000, relation="y" * 10_000)])
    point = view.points[mine.definition()["code"]]
    assert len(point.location) == len(point.attributes["relation"]) == 500


# --------------------------------------------------------------------------------- whole files


def test_a_fifth_of_bad_records_is_taken_and_more_is_not(mine) -> None:
    def message(bad):
        data = mine.content("CDSS", [mine.reading(f"MN0001{n:06d}") for n in range(8)])
        return decode_file(
            data.replace(b"||", b"x~" * bad + b"||"), parse_name(mine.name_at("CDSS"))
        )

    assert bad_share_fault(message(2), 0.20) == ""
    assert "3 of 11" in bad_share_fault(message(3), 0.20)


def test_a_kind_without_a_mapper_cannot_be_planned(mine) -> None:
    data = mine.content("FZDY", [{"code": "S1", "location": "x"}])
    with pytest.raises(RemoteProtocolError):
        plan(decode_file(data, parse_name(mine.name_at("FZDY"))), View(), OPTIONS)


@given(st.lists(st.sampled_from("AB"), max_size=20), st.integers(1, 7))
def test_batches_are_bounded_and_lose_nothing(points: list[str], rows_max: int) -> None:
    from adapters.mine_files.mapping import Rows

    made = Rows()
    for number, point in enumerate(points):
        made.add(number, point, float(number), 0, number)
    if points:
        made.area[0] = "area"
    batches = list(
        to_batches(made, {"A": 3, "B": 4}, {"area": 77}, received_time_ns=9, rows_max=rows_max)
    )
    assert all(0 < len(batch) <= rows_max for batch in batches)
    values = [value for batch in batches for value in batch.value]
    assert values == [77.0 if n == 0 else float(n) for n in range(len(points))]
    assert [i for b in batches for i in b.point_index] == [3 if p == "A" else 4 for p in points]
