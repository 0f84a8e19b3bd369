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
    first_out=WORDS,
    initial_value=st.none() | NUMBER,
    shelvings=st.lists(WHOLE, max_size=3).map(tuple),
    removed=st.booleans(),
    **dict.fromkeys(("overdue_step", "realarm_count"), COUNT),
    **dict.fromkeys(("level_time_ns", "confirmed_time_ns", "attention_time_ns"), OPTIONAL_TIME),
    **dict.fromkeys(("confirmed_by", "rule_digest"), TEXT),
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
    step=COUNT,
    recipients=WORDS,
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


# Written by the code of the first journals (an escalation, then its acknowledgement).
FIRST_JOURNALS = [
    (
        '{"alarm":{"acknowledged":false,"action":{"en":"Stop work, withdraw people"},"active"'
        ':true,"active_time_ns":10000000000,"alarm_key":"ch4.001:ch4.limit","area":"3101","at'
        'tention_seq":2,"citation":{"clause":"6.1","confidence":"unconfirmed","edition":"2019'
        '","standard":"AQ 1029-2019"},"condition_time_ns":9000000000,"display_name":"ch4.001"'
        ',"epoch":3,"gseq":2,"judged":["HH"],"judged_time_ns":20000000000,"level":"HH","limit'
        '":2.0,"location":"3101 T1","name":{"en":"Methane high","zh":"甲烷超限"},"occ_no":1,"open'
        '":true,"peak":2.5,"point_id":"ch4.001","priority":2,"rule_id":"ch4.limit","rule_kind'
        '":"limit","rule_version":"1","seq":2,"shown":true,"state":"UNACK","target":"ch4.001"'
        ',"top_priority":2,"unacknowledged_from":1,"unit":"%CH4","v":1,"value":1.5},"annuncia'
        'te":true,"from_state":"UNACK","level":"HH","recorded_time_ns":21000000000,"time_ns":'
        '20000000000,"transition":"ESC","v":1,"value":2.5}'
    ).encode(),
    (
        '{"actor":"li","alarm":{"acknowledged_by":"li","acknowledged_time_ns":30000000000,"ac'
        'tion":{"en":"Stop work, withdraw people"},"active":true,"active_time_ns":10000000000'
        ',"alarm_key":"ch4.001:ch4.limit","area":"3101","attention_seq":2,"citation":{"clause'
        '":"6.1","confidence":"unconfirmed","edition":"2019","standard":"AQ 1029-2019"},"comm'
        'ent":"seen","condition_time_ns":9000000000,"display_name":"ch4.001","epoch":3,"gseq"'
        ':3,"judged":["HH"],"judged_time_ns":20000000000,"level":"HH","limit":2.0,"location":'
        '"3101 T1","name":{"en":"Methane high","zh":"甲烷超限"},"occ_no":1,"open":true,"peak":2.5'
        ',"point_id":"ch4.001","priority":2,"rule_id":"ch4.limit","rule_kind":"limit","rule_v'
        'ersion":"1","seq":3,"shown":true,"state":"ACKED","target":"ch4.001","top_priority":2'
        ',"unit":"%CH4","v":1,"value":1.5},"annunciate":false,"comment":"seen","from_state":"'
        'UNACK","recorded_time_ns":30000000000,"time_ns":30000000000,"transition":"ACK","v":1'
        "}"
    ).encode(),
]


@pytest.mark.parametrize("stored", FIRST_JOURNALS, ids=["ESC", "ACK"])
def test_records_of_the_first_journals_are_read_and_written_again_byte_for_byte(stored) -> None:
    event = decode_event(stored)
    assert encode(event)[0] == stored
    assert (event.alarm.value, event.alarm.initial_value, event.step) == (1.5, None, 0)
    assert (event.alarm.confirmed_by, event.alarm.rule_digest, event.alarm.removed) == (
        *("", "", False),
    )


def test_a_record_with_a_field_nobody_here_knows_is_refused_rather_than_read_in_part() -> None:
    body = orjson.loads(FIRST_JOURNALS[0])
    body["alarm"]["severity_of_tomorrow"] = 3
    with pytest.raises(RecordError, match="severity_of_tomorrow"):
        decode_event(orjson.dumps(body))
