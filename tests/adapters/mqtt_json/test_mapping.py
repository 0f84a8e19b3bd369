"""Messages to samples: what is a good value, what is a bad one, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt_json import codec
from adapters.mqtt_json.config import MappingConfig, MqttJsonConfig
from adapters.mqtt_json.mapping import Message, Translator
from adapters.mqtt_json.profiles import mappings_of
from gateway.model.point import PointKind
from gateway.model.quality import Quality

T0 = 1_773_468_000_000_000_000  # 2026-03-14T06:00:00Z
RECEIVED = T0 + 5_000_000_000

ONE = {
    "topic": "t/{s}",
    "device": "{s}",
    "point": "{s}.v",
    "value": "@.v",
    "time": "$.t",
    "time_format": "unix_ms",
}


def translator(**changes) -> Translator:
    return Translator([MappingConfig.model_validate({**ONE, **changes})], adapter="m1")


def profile(name: str) -> Translator:
    return Translator(mappings_of(MqttJsonConfig(profile=name)), adapter="m1")


def check_rows(found, expected) -> None:
    """Rows as (point, value, quality, time), NaN equal to NaN."""
    assert [(r.point_id, r.quality, r.source_time_ns) for r in found.rows] == [
        (point, quality, time_ns) for point, _value, quality, time_ns in expected
    ]
    for row, (_point, value, _quality, _time_ns) in zip(found.rows, expected, strict=True):
        assert row.value == value or (math.isnan(row.value) and math.isnan(value)), row


NAN = math.nan
VALUES = [
    ({}, b"12.5", 12.5, Quality.GOOD),
    ({}, b"-0.0", -0.0, Quality.GOOD),
    ({}, b"null", NAN, Quality.BAD_NO_VALUE),
    ({}, b'""', NAN, Quality.BAD_NO_VALUE),
    ({}, b'"12.5"', NAN, Quality.BAD_NOT_A_NUMBER),
    ({"numbers": "text_allowed"}, b'"12.5"', 12.5, Quality.GOOD),
    ({"numbers": "text_allowed"}, b'"1_0"', NAN, Quality.BAD_NOT_A_NUMBER),
    ({"numbers": "text_allowed"}, b'"nan"', NAN, Quality.BAD_NOT_A_NUMBER),
    ({"numbers": "text_allowed"}, b'"--"', NAN, Quality.BAD_NOT_A_NUMBER),
    ({}, b"NaN", NAN, Quality.BAD_NOT_A_NUMBER),
    ({}, b"Infinity", NAN, Quality.BAD_OVER_RANGE),
    ({}, b"1e400", NAN, Quality.BAD_OVER_RANGE),
    ({}, b"9" * 400, NAN, Quality.BAD_OVER_RANGE),
    ({}, b"true", NAN, Quality.BAD_NOT_A_NUMBER),
    ({"kind": "discrete"}, b"true", 1.0, Quality.GOOD),
    ({}, b"[1]", NAN, Quality.BAD_NOT_A_NUMBER),
    ({}, b'{"a":1}', NAN, Quality.BAD_NOT_A_NUMBER),
    ({}, b'1,"v":900', NAN, Quality.BAD_NOT_A_NUMBER),  # the key twice: neither is believed
    ({"scale": 0.001, "offset": -2.0}, b"2500", 0.5, Quality.GOOD),
    ({"scale": 1e300}, b"1e300", NAN, Quality.BAD_OVER_RANGE),
    ({"no_value": [-9999, 9999.999]}, b"-9999", NAN, Quality.BAD_NO_VALUE),
    ({"no_value": [-9999, 9999.999]}, b"9999.999", NAN, Quality.BAD_NO_VALUE),
    ({"kind": "bits"}, b"5", 5.0, Quality.GOOD),
    ({"kind": "bits"}, b"4503599627370495", 4503599627370495.0, Quality.GOOD),
    ({"kind": "bits"}, b"4503599627370496", NAN, Quality.BAD_OVER_RANGE),
    ({"kind": "bits"}, b"-1", NAN, Quality.BAD_OVER_RANGE),
    ({"kind": "bits"}, b"0.5", NAN, Quality.BAD_OVER_RANGE),
]


@pytest.mark.parametrize(("changes", "raw", "value", "quality"), VALUES)
def test_a_value_is_a_number_or_a_sample_that_says_why_not(changes, raw, value, quality):
    body = codec.decode(b'{"t":1773468000000,"v":' + raw + b"}")
    found = translator(**changes).translate(Message("t/s1", body, RECEIVED))
    check_rows(found, [("s1.v", value, quality, T0)])
    assert not found.refused


def test_a_missing_value_is_a_sample_without_value_at_the_time_of_the_message():
    found = translator().translate(Message("t/s1", {"t": 1773468000000}, RECEIVED))
    check_rows(found, [("s1.v", NAN, Quality.BAD_NO_VALUE, T0)])


CLOCKS = [
    ({"v": 1.0}, False, Quality.UNCERTAIN_CLOCK, RECEIVED),
    ({"v": 1.0, "t": "noon"}, False, Quality.UNCERTAIN_CLOCK, RECEIVED),
    ({"v": 1.0, "t": None}, False, Quality.UNCERTAIN_CLOCK, RECEIVED),
    ({"v": 1.0, "t": 1773468000000}, True, Quality.GOOD, T0),
    ({"v": 1.0, "t": "noon"}, True, Quality.BAD_STALE, RECEIVED),
    ({"t": "noon"}, False, Quality.BAD_NO_VALUE, RECEIVED),
]


@pytest.mark.parametrize(("body", "retained", "quality", "time_ns"), CLOCKS)
def test_a_bad_time_is_the_time_of_receipt_and_an_uncertain_clock(body, retained, quality, time_ns):
    found = translator().translate(Message("t/s1", body, RECEIVED, retained))
    assert [(r.quality, r.source_time_ns) for r in found.rows] == [(quality, time_ns)]


def test_a_retained_message_without_a_time_of_its_own_is_stale_not_fresh():
    """Nobody knows how old it is; taken as new it could hide a sensor dead for weeks."""
    tr = translator(time="received")
    assert tr.translate(Message("t/s1", {"v": 1}, RECEIVED)).rows[0].quality == Quality.GOOD
    stale = tr.translate(Message("t/s1", {"v": 1}, RECEIVED, retained=True)).rows[0]
    assert stale.quality == Quality.BAD_STALE


QUALITIES = [
    ({}, Quality.GOOD),
    ({"q": 0}, Quality.GOOD),
    ({"q": "1"}, Quality.BAD_SENSOR_FAULT),
    ({"q": 7}, Quality.UNCERTAIN_STATE),
    ({"q": True}, Quality.UNCERTAIN_CALIBRATING),
    ({"q": [0]}, Quality.UNCERTAIN_STATE),
    ({"q": codec.AMBIGUOUS}, Quality.UNCERTAIN_STATE),
]


@pytest.mark.parametrize(("said", "quality"), QUALITIES)
def test_a_devices_word_for_quality_is_taken_from_the_map(said, quality):
    tr = translator(
        quality="@.q",
        quality_map={"0": "good", "1": "bad_sensor_fault", "true": "uncertain_calibrating"},
    )
    body = {"t": 1773468000000, "v": 2.0, **said}
    check_rows(tr.translate(Message("t/s1", body, RECEIVED)), [("s1.v", 2.0, quality, T0)])


def test_the_geohazard_vector_gives_three_displacements_in_utc():
    body = codec.decode(
        bytes.fromhex("030067")
        + b'{"3200001":{"L1_GP_1":{"2026-03-14T06:00:00.000Z":'
        + b'{"gpsTotalX":9.9,"gpsTotalY":0.5,"gpsTotalZ":-3.2}}}}',
        wrapper="geohazard",
    )
    found = profile("geohazard").translate(Message("$dp", body, RECEIVED))
    check_rows(
        found,
        [
            ("3200001.L1_GP_1.gpsTotalX", 9.9, Quality.GOOD, T0),
            ("3200001.L1_GP_1.gpsTotalY", 0.5, Quality.GOOD, T0),
            ("3200001.L1_GP_1.gpsTotalZ", -3.2, Quality.GOOD, T0),
        ],
    )
    assert [(p.quantity, p.unit, p.device, p.adapter) for p in found.points] == [
        ("displacement_x", "mm", "3200001", "m1"),
        ("displacement_y", "mm", "3200001", "m1"),
        ("displacement_z", "mm", "3200001", "m1"),
    ]


def test_one_geohazard_message_may_carry_several_times_contents_and_states():
    t1, t2 = "2026-03-14T06:00:00Z", "2026-03-14T06:10:00Z"
    body = {
        "3200001": {
            "L3_YL_1": {
                t1: {"value": 0.2, "totalValue": 31.4},
                t2: {"value": 0.4, "totalValue": 31.8},
            },
            "L3_SY_12": {t1: {"temp": 11.0, "value": 52.5}},
            "S1_ZT_1": {
                t1: {"sw_version": "2.4", "battery_volt": 12.6, "sensor_state": {"L3_SY_12": 1}}
            },
        }
    }
    found = profile("geohazard").translate(Message("$dp", body, RECEIVED))
    rows = {(r.point_id.split(".", 1)[1], r.source_time_ns): r.value for r in found.rows}
    assert rows == {
        ("L3_YL_1.value", T0): 0.2,
        ("L3_YL_1.totalValue", T0): 31.4,
        ("L3_YL_1.value", T0 + 600 * 10**9): 0.4,
        ("L3_YL_1.totalValue", T0 + 600 * 10**9): 31.8,
        ("L3_SY_12.value", T0): 52.5,
        ("S1_ZT_1.battery_volt", T0): 12.6,
        ("L3_SY_12.sensor_state", T0): 1.0,
    }
    assert found.skipped == 3  # temp, sw_version, and sensor_state as a field of its own
    state = next(p for p in found.points if p.quantity == "sensor_state")
    assert state.kind is PointKind.DISCRETE
    assert state.states == {0: "正常", 1: "故障"}


def test_a_tailings_report_gives_points_of_one_dam_in_one_area():
    body = codec.decode(
        codec.encode_report("dam1", T0, {"pool_level": 128.014, "beach_top": 131.0, "rain": None})
    )
    found = profile("tailings-generic").translate(
        Message("tailings/north/telemetry", body, RECEIVED)
    )
    check_rows(
        found,
        [
            ("dam1.pool_level", 128.014, Quality.GOOD, T0),
            ("dam1.beach_top", 131.0, Quality.GOOD, T0),
            ("dam1.rain", NAN, Quality.BAD_NO_VALUE, T0),
        ],
    )
    assert {(p.area, p.device) for p in found.points} == {("north", "dam1")}
    assert [p.quantity for p in found.points] == ["pool_level", "beach_top", "rain"]
    assert [p.unit for p in found.points] == ["m", "m", "mm"]
    assert [d.id for d in found.devices] == ["dam1"]


def test_a_quantity_the_profile_does_not_know_becomes_a_point_of_its_own_name():
    body = {"device": "dam1", "time": "2026-03-14T06:00:00Z", "values": {"wind_speed": 3.0}}
    found = profile("tailings-generic").translate(Message("tailings/d/telemetry", body, RECEIVED))
    assert [(p.id, p.quantity, p.unit) for p in found.points] == [
        ("dam1.wind_speed", "wind_speed", "")
    ]


def test_points_and_devices_are_named_once():
    tr = profile("tailings-generic")
    body = {"device": "dam1", "time": "2026-03-14T06:00:00Z", "values": {"rain": 1.0}}
    message = Message("tailings/d/telemetry", body, RECEIVED)
    assert len(tr.translate(message).points) == 1
    again = tr.translate(message)
    assert (len(again.rows), again.points, again.devices) == (1, [], [])


def test_the_same_device_name_on_another_dam_is_refused_not_merged():
    tr = profile("tailings-generic")
    body = {"device": "J1", "time": "2026-03-14T06:00:00Z", "values": {"phreatic_depth": 9.0}}
    assert len(tr.translate(Message("tailings/north/telemetry", body, RECEIVED)).rows) == 1
    other = tr.translate(Message("tailings/south/telemetry", body, RECEIVED))
    assert other.rows == []
    assert [reason for reason, _ in other.refused] == ["identity_conflict"]


REFUSED = [
    ({"device": "a/b", "values": {"rain": 1}}, "bad_id"),
    ({"device": "a b", "values": {"rain": 1}}, "bad_id"),
    ({"device": "", "values": {"rain": 1}}, "bad_id"),
    ({"device": "x" * 200, "values": {"rain": 1}}, "bad_id"),
    ({"device": "d", "values": {"a b": 1}}, "bad_id"),
    ({"values": {"rain": 1}}, "no_identity"),
    ({"device": None, "values": {"rain": 1}}, "no_identity"),
    ({"device": "\ud800", "values": {"rain": 1}}, "no_identity"),
    ({"device": "d", "values": {"\udfff": 1}}, "no_identity"),
    ({"device": {"id": 1}, "values": {"rain": 1}}, "no_identity"),
    ({"device": codec.AMBIGUOUS, "values": {"rain": 1}}, "no_identity"),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED)
def test_a_value_without_a_usable_name_is_refused_with_its_reason(body, reason):
    found = profile("tailings-generic").translate(Message("tailings/d/telemetry", body, RECEIVED))
    assert found.rows == []
    assert [r for r, _ in found.refused] == [reason]


def test_one_bad_name_does_not_cost_the_good_ones_beside_it():
    body = {"device": "d", "time": "2026-03-14T06:00:00Z", "values": {"a b": 1, "rain": 2.0}}
    found = profile("tailings-generic").translate(Message("tailings/d/telemetry", body, RECEIVED))
    check_rows(found, [("d.rain", 2.0, Quality.GOOD, T0)])
    assert len(found.refused) == 1


def test_invented_names_stop_at_the_configured_number_of_points():
    tr = Translator(mappings_of(MqttJsonConfig(profile="tailings-generic")), points_max=3)
    body = {
        "device": "d",
        "time": "2026-03-14T06:00:00Z",
        "values": {f"q{n}": 1.0 for n in range(5)},
    }
    found = tr.translate(Message("tailings/d/telemetry", body, RECEIVED))
    assert len(found.rows) == 3
    assert [r for r, _ in found.refused] == ["points_max", "points_max"]
    again = tr.translate(Message("tailings/d/telemetry", body, RECEIVED))
    assert len(again.rows) == 3  # those that are known go on


def test_a_message_with_too_many_elements_is_refused_whole():
    body = {
        "device": "d",
        "time": "2026-03-14T06:00:00Z",
        "values": {f"q{n}": 1.0 for n in range(10_001)},
    }
    tr = Translator(mappings_of(MqttJsonConfig(profile="tailings-generic")), points_max=20_000)
    found = tr.translate(Message("tailings/d/telemetry", body, RECEIVED))
    assert (found.rows, [r for r, _ in found.refused]) == ([], ["too_many"])


BLANK = [
    ("other/topic", {"device": "d", "values": {"rain": 1}}),
    ("tailings/d/telemetry", {"device": "d"}),
    ("tailings/d/telemetry", {"device": "d", "values": {}}),
    ("tailings/d/telemetry", {"device": "d", "values": 3}),
    ("tailings/d/telemetry", [1, 2]),
    ("tailings/d/telemetry", None),
]


@pytest.mark.parametrize(("topic", "body"), BLANK)
def test_a_message_that_meets_no_mapping_is_blank(topic, body):
    assert profile("tailings-generic").translate(Message(topic, body, RECEIVED)).is_blank


def test_a_field_of_the_table_overrides_the_mapping_and_inherits_the_rest():
    tr = translator(
        each="$.v.{f}",
        point="{s}.{f}",
        value="@",
        field="{f}",
        unit="m",
        scale=2.0,
        quantity="{f}",
        fields={"a": {"scale": 10.0, "name": "甲 {f}"}, "b": {"unit": "mm", "kind": "counter"}},
    )
    body = {"t": 1773468000000, "v": {"a": 1, "b": 1, "c": 1}}
    found = tr.translate(Message("t/s1", body, RECEIVED))
    assert [(r.point_id, r.value) for r in found.rows] == [
        ("s1.a", 10.0),
        ("s1.b", 2.0),
        ("s1.c", 2.0),
    ]
    assert [(p.unit, p.name, p.kind, p.quantity) for p in found.points] == [
        ("m", "甲 a", PointKind.ANALOG, "a"),
        ("mm", "", PointKind.COUNTER, "b"),
        ("m", "", PointKind.ANALOG, "c"),
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.just(codec.AMBIGUOUS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["device", "time", "values", "L1_GP_1", "S1_ZT_1", "sensor_state", "rain"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def check_lawful(found) -> None:
    """What the house relies on, whatever came in."""
    for row in found.rows:
        assert math.isfinite(row.value) or row.quality.is_bad
        assert 0 <= row.source_time_ns < 2**63
        row.point_id.encode()
    assert len({p.id for p in found.points}) == len(found.points)


@given(json_values, st.sampled_from(["geohazard", "tailings-generic"]), st.booleans())
def test_no_message_makes_the_mapping_raise(body, name, retained):
    topic = "$dp" if name == "geohazard" else "tailings/d/telemetry"
    tr = profile(name)
    for _ in range(2):
        check_lawful(tr.translate(Message(topic, body, RECEIVED, retained)))


@given(
    st.dictionaries(st.sampled_from(["rain", "pool_level", "x"]), json_values, max_size=3),
    json_values,
)
def test_no_value_or_time_makes_a_report_raise_and_each_value_gives_one_row(values, time):
    body = {"device": "d", "time": time, "values": values}
    found = profile("tailings-generic").translate(Message("tailings/d/telemetry", body, RECEIVED))
    check_lawful(found)
    assert [r.point_id for r in found.rows] == [f"d.{name}" for name in values]
