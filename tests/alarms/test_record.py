"""Stored records: what goes in comes out, the same value gives the same bytes."""

import contextlib
import math
from dataclasses import fields, replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alarms import record
from gateway.alarms.record import RecordError, decode_alarm, decode_event, encode, encode_event
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.rule import Citation, Confidence, Priority
from gateway.testing.alarms import make_event

TEXT = st.text(max_size=8)
WHOLE = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**53)
NUMBER = st.floats(allow_nan=False)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=2)
WORDS = st.lists(TEXT, max_size=3).map(tuple)
OPTIONAL_TIME = st.none() | WHOLE

ALARMS = st.builds(
    Alarm,
    **dict.fromkeys(("alarm_key", "rule_id", "rule_kind", "target", "point_id"), TEXT),
    **dict.fromkeys(("shelved", "level", "scheme", "scheme_level", "unit", "location"), TEXT),
    **dict.fromkeys(("area", "display_name", "rule_version"), TEXT),
    **dict.fromkeys(("acknowledged_by", "comment", "hidden_note"), TEXT),
    **{name: st.booleans() for name in ("active", "acknowledged", "latched", "out_of_service")},
    **{name: st.booleans() for name in ("enabled", "open", "shown", "planned")},
    **{name: st.none() | NUMBER for name in ("value", "peak", "limit")},
    **dict.fromkeys(("occ_no", "seq", "epoch", "gseq", "reactivation_count"), COUNT),
    **dict.fromkeys(("attention_seq", "unacknowledged_from", "quality"), COUNT),
    **dict.fromkeys(("condition_time_ns", "active_time_ns", "return_time_ns"), OPTIONAL_TIME),
    **dict.fromkeys(("acknowledged_time_ns", "shelved_until_ns"), OPTIONAL_TIME),
    judged_time_ns=OPTIONAL_TIME,
    priority=st.sampled_from(Priority),
    top_priority=st.none() | st.sampled_from(Priority),
    suppressed_by=WORDS,
    judged=WORDS,
    state=st.sampled_from(AlarmState),
    name=TEXTS,
    action=TEXTS,
    citation=st.builds(Citation, TEXT, TEXT, TEXT, st.sampled_from(Confidence), TEXT),
)  # fmt: skip
EVENTS = st.builds(
    AlarmEvent,
    transition=st.sampled_from(Transition),
    alarm=ALARMS,
    time_ns=WHOLE,
    recorded_time_ns=WHOLE,
    from_state=st.sampled_from(AlarmState),
    annunciate=st.booleans(),
    value=st.none() | NUMBER,
    limit=st.none() | NUMBER,
    actor=TEXT,
    comment=TEXT,
    late=st.booleans(),
    level=TEXT,
)


@pytest.mark.slow
@given(event=EVENTS)
def test_an_event_read_back_is_the_event_written(event: AlarmEvent) -> None:
    data, alarm = encode(event)
    assert decode_event(data) == event
    assert decode_alarm(alarm) == event.alarm
    assert encode(decode_event(data)) == (data, alarm)


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        (record._ALARM_FIELDS, Alarm),
        (record._EVENT_FIELDS, AlarmEvent),
        (record._CITATION_FIELDS, Citation),
    ],
)
def test_every_field_of_the_model_has_a_place_in_the_record(schema, kind) -> None:
    assert set(schema) == {field.name for field in fields(kind)}


@pytest.mark.slow
def test_the_strategy_of_these_tests_fills_every_field() -> None:
    drawn = [set(), set()]

    @given(event=EVENTS)
    def fill(event: AlarmEvent) -> None:
        for found, value in zip(drawn, (event, event.alarm), strict=True):
            for field in fields(value):
                if getattr(value, field.name) != field.default:
                    found.add(field.name)

    fill()
    assert drawn[0] == {field.name for field in fields(AlarmEvent)}
    assert drawn[1] == {field.name for field in fields(Alarm)}


@pytest.mark.parametrize(
    ("value", "stored"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN")]
)
def test_what_json_has_no_number_for_is_stored_as_a_word_and_not_as_null(value, stored) -> None:
    event = replace(make_event(1), value=value)
    data = encode_event(event)
    assert orjson.loads(data)["value"] == stored
    assert str(decode_event(data).value) == str(value)


def test_a_value_that_is_not_there_stays_apart_from_one_that_is_not_a_number() -> None:
    assert decode_event(encode_event(replace(make_event(1), value=None))).value is None


def test_a_text_that_is_not_unicode_is_recorded_with_question_marks_rather_than_not_at_all() -> (
    None
):
    event = replace(make_event(1), comment="gas \udc80 alarm")
    assert decode_event(encode_event(event)).comment == "gas ? alarm"
    alarm = replace(event.alarm, name={"zh": "\ud800"})
    assert decode_event(encode_event(replace(event, alarm=alarm))).alarm.name == {"zh": "?"}


def test_a_field_left_out_reads_as_its_default_so_that_old_records_stay_readable() -> None:
    body = orjson.loads(encode_event(make_event(3)))
    assert "planned" not in body["alarm"]
    assert decode_event(orjson.dumps(body)).alarm.planned is False


def changed(**change) -> bytes:
    return orjson.dumps({**orjson.loads(encode_event(make_event(1))), **change})


UNREADABLE = [
    (b"", "not JSON"),
    (b"[]", "not an object"),
    (b"{}", "version None"),
    (changed(v=2), "version 2"),
    (changed(v=True), "version True"),
    (changed(colour="red"), "unknown field 'colour'"),
    (changed(transition="BOOM"), "'transition'"),
    (changed(time_ns=1.5), "'time_ns'"),
    (changed(annunciate=1), "'annunciate'"),
    (changed(value="many"), "'value'"),
    (changed(alarm={"v": 1}), "'alarm'"),
    (changed(alarm={}), "'alarm'"),
    (orjson.dumps({"v": 1}), "lacks"),
]


@pytest.mark.parametrize(("data", "why"), UNREADABLE)
def test_what_is_not_a_record_is_a_record_error_that_says_why(data: bytes, why: str) -> None:
    with pytest.raises(RecordError, match=why):
        decode_event(data)


@pytest.mark.slow
@given(st.data())
def test_a_record_with_a_byte_changed_is_read_or_refused_but_never_anything_else(data) -> None:
    raw = bytearray(encode_event(make_event(1)))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RecordError):
        decode_event(bytes(raw))
