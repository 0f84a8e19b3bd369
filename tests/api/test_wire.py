"""Model to wire: what a browser sees of an alarm, a value, a point."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import wire
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.point import Device, Point, PointKind
from gateway.model.rule import Citation, Confidence, Priority

T = 1_700_000_000_123_456_789
ALARM = Alarm(
    alarm_key="p1:demo.hh",
    rule_id="demo.hh",
    rule_kind="limit",
    target="p1",
    point_id="p1",
    display_name="3101工作面T1 甲烷",
    priority=Priority.CRITICAL,
    active=True,
    acknowledged=False,
    state=AlarmState.UNACKNOWLEDGED,
    value=math.nan,
    limit=1.5,
    citation=Citation("AQ 1029", "2019", "6.2", Confidence.UNCONFIRMED),
    occ_no=3,
    seq=17,
    active_time_ns=T,
)


def encode(value: list[float], quality: list[int], source: list[int], now_ns: int = T) -> dict:
    raw = wire.encode_values(
        now_ns,
        4,
        value=np.array(value),
        quality=np.array(quality, np.uint8),
        source_time_ns=np.array(source, np.int64),
    )
    wire.ValuesFrame.model_validate_json(raw)
    return json.loads(raw)


def standing(epoch: int, gseq: int, **facts) -> wire.AlarmsFrame:
    """Through bytes and back: the encoder writes what the type describes."""
    return wire.AlarmsFrame.model_validate_json(wire.AlarmEncoder().encode(epoch, gseq, **facts))


def test_values_are_columns_and_no_number_is_null():
    got = encode([1.5, math.nan, math.inf], [0, 129, 64], [T - 2_000_000_000, 0, T])
    assert got == {
        "time_ms": 1_700_000_000_123,
        "points_version": 4,
        "value": [1.5, None, None],
        "quality": [0, 129, 64],
        "age_ms": [2000, wire.NEVER_MS, 0],
    }


def test_a_time_in_the_future_has_age_zero_and_an_empty_plant_has_empty_columns():
    assert encode([1.0], [0], [T + 10**12])["age_ms"] == [0]
    assert encode([], [], [])["value"] == []


@given(st.lists(st.floats(), max_size=50))
def test_every_float_there_is_becomes_itself_or_null(values: list[float]):
    got = encode(values, [0] * len(values), [T] * len(values))["value"]
    assert got == [v if math.isfinite(v) else None for v in values]


def test_an_alarm_row_carries_its_citation_its_token_and_times_a_browser_can_hold():
    row = wire.alarm_row(ALARM)
    assert row.token == "3:17"
    assert row.citation.confidence == "unconfirmed"
    assert (row.value, row.limit) == (None, 1.5)
    assert row.active_ms == 1_700_000_000_123
    assert row.return_ms is None
    assert row.display_name == "3101工作面T1 甲烷"
    assert wire.AlarmRow.model_validate_json(row.encoded()) == row


def test_every_state_of_the_model_is_either_standing_hidden_or_left_out():
    alarms = [
        replace(ALARM, alarm_key=f"p{n}:r", state=state) for n, state in enumerate(AlarmState)
    ]
    frame = standing(1, 9, alarms=alarms)
    states = {row.state: row.hidden for row in frame.alarms}
    assert "NORM" not in states
    assert {state for state, hidden in states.items() if hidden} == {
        "SHLVD",
        "DSUPR",
        "OOSRV",
        "DISAB",
    }
    assert frame.hidden_count == 4
    assert frame.counts[0].standing == 5


def test_the_list_is_by_priority_unacknowledged_active_then_newest_and_hidden_last():
    def alarm(key: str, priority: int, acknowledged: bool, at: int, state=AlarmState.ACKNOWLEDGED):
        return replace(
            ALARM, alarm_key=key, priority=Priority(priority), acknowledged=acknowledged,
            active_time_ns=at, state=state,
        )  # fmt: skip

    alarms = [
        alarm("p3", 3, False, 9),
        alarm("hidden", 1, False, 9, AlarmState.SHELVED),
        alarm("p1-acked-new", 1, True, 8),
        alarm("p1-old", 1, False, 1),
        alarm("p1-new", 1, False, 5),
        replace(alarm("p1-back", 1, False, 9), active=False),
    ]
    frame = standing(1, 1, alarms=alarms)
    assert [row.key for row in frame.alarms] == [
        "p1-new", "p1-old", "p1-back", "p1-acked-new", "p3", "hidden",
    ]  # fmt: skip


def test_a_cut_list_keeps_the_urgent_and_counts_everything():
    alarms = [replace(ALARM, alarm_key=f"p{n}", priority=Priority(1 + n % 4)) for n in range(400)]
    frame = standing(1, 1, alarms=alarms, limit=100)
    assert {row.priority for row in frame.alarms} == {1}
    assert frame.total_count == 400
    assert [count.unacknowledged for count in frame.counts] == [100] * 4


def test_an_event_row_keeps_both_times_and_who_did_it():
    event = AlarmEvent(
        transition=Transition.ACKNOWLEDGED, alarm=ALARM, time_ns=T, recorded_time_ns=T + 5_000_000,
        from_state=AlarmState.UNACKNOWLEDGED, annunciate=False, value=math.inf, actor="王芳",
    )  # fmt: skip
    row = wire.event_row(event)
    assert (row.transition, row.actor, row.value) == ("ACK", "王芳", None)
    assert row.display_name == "3101工作面T1 甲烷"
    assert (row.time_ms, row.recorded_ms) == (1_700_000_000_123, 1_700_000_000_128)


def test_points_and_devices_keep_their_index_and_their_states():
    point = Point("p1", kind=PointKind.DISCRETE, states={0: "停", 1: "运行"}, range_high=math.inf)
    frame = wire.points_frame(3, [Point("p0"), point], [Device("d0", "dam", "坝")])
    assert [row.index for row in frame.points] == [0, 1]
    assert frame.points[1].states == {"0": "停", "1": "运行"}
    assert frame.points[1].range_high is None
    assert frame.devices[0].name == "坝"


COMMANDS = [
    '{"name":"acknowledge","alarm_key":"a","operator":""}',
    '{"name":"launch","alarm_key":"a","operator":"x"}',
    '{"name":"acknowledge","alarm_key":"","operator":"x"}',
    '{"name":"acknowledge","alarm_key":"a","operator":"x","role":"admin"}',
    '{"name":"shelve","alarm_key":"a","operator":"x","duration_s":-1}',
]


@pytest.mark.parametrize("body", COMMANDS)
def test_a_command_without_a_name_a_target_or_with_more_is_refused(body: str):
    with pytest.raises(ValueError):
        wire.Command.model_validate_json(body)


an_alarm = st.builds(
    replace,
    st.just(ALARM),
    alarm_key=st.sampled_from(["p1", "p2", "p3", "p4"]),
    priority=st.sampled_from(Priority),
    state=st.sampled_from(AlarmState),
    acknowledged=st.booleans(),
    peak=st.sampled_from([None, 1.0, 2.0]),
    seq=st.integers(0, 3),
)
a_book = st.lists(an_alarm, max_size=4, unique_by=lambda alarm: alarm.alarm_key)


@given(st.lists(st.tuples(a_book, st.integers(0, 4)), max_size=5))
def test_what_was_encoded_before_never_shows_in_a_later_frame(frames):
    kept = wire.AlarmEncoder()
    for gseq, (alarms, limit) in enumerate(frames):
        events = [
            AlarmEvent(Transition.ACTIVATED, replace(a, gseq=gseq), T, T, a.state, annunciate=True)
            for a in alarms
        ]
        facts = {"alarms": alarms, "events": events, "limit": limit}
        assert kept.encode(1, gseq, **facts) == wire.AlarmEncoder().encode(1, gseq, **facts)
