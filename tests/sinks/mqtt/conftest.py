"""A real broker for each test that asks for one, and alarms to tell it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.contract.sink import SinkContext
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.point import Point, PointTable
from gateway.model.rule import Citation, Confidence, Priority
from gateway.testing.servers import Mosquitto, mosquitto_server

T0 = 1_773_468_000_123_456_789  # 2026-03-14T06:00:00.123456789Z


class Counts(dict):
    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        key = f"{name}:{reason}" if reason else name
        self[key] = self.get(key, 0) + n


class Said(list):
    def __call__(self, state: str, detail: str = "") -> None:
        self.append(state)


@pytest.fixture
def broker(tmp_path: Path):
    with mosquitto_server(tmp_path) as running:
        yield running


@pytest.fixture
def context(tmp_path: Path) -> SinkContext:
    points = PointTable()
    for name in ("dam1.pool_level", "dam1.rain"):
        points.put(Point(id=name))
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    return SinkContext(
        name="centre",
        tenant="mine-a",
        site="north",
        points=points,
        now_ns=lambda: T0,
        counters=Counts(),
        status=Said(),
        state_dir=state_dir,
    )


def _alarm(key: str = "dam1:tailings.beach", **changes) -> Alarm:
    alarm = Alarm(
        alarm_key=key,
        rule_id="tailings.beach",
        rule_kind="limit",
        target="dam1",
        point_id="dam1.beach_length",
        priority=Priority.CRITICAL,
        active=True,
        acknowledged=False,
        open=True,
        shown=True,
        state=AlarmState.UNACKNOWLEDGED,
        level="LL",
        scheme="tailings",
        scheme_level="red",
        value=68.5,
        peak=68.5,
        limit=70.0,
        unit="m",
        name={"zh": "干滩长度过短", "en": "dry beach too short"},
        action={"zh": "立即停止排放", "en": "stop discharging"},
        location="北坝",
        area="north",
        citation=Citation("GB 50863", "2013", "3.4.1", Confidence.UNCONFIRMED),
        occ_no=1,
        seq=1,
        epoch=3,
        gseq=41,
        condition_time_ns=T0 - 60_000_000_000,
        active_time_ns=T0,
    )
    return replace(alarm, **changes)


def _event(alarm: Alarm, **changes) -> AlarmEvent:
    event = AlarmEvent(
        transition=Transition.ACTIVATED,
        alarm=alarm,
        time_ns=T0,
        recorded_time_ns=T0 + 1_000_000,
        from_state=AlarmState.NORMAL,
        annunciate=True,
        value=alarm.value,
        limit=alarm.limit,
    )
    return replace(event, **changes)


@pytest.fixture
def make_alarm():
    return _alarm


@pytest.fixture
def make_event():
    return _event


@pytest.fixture
def port(broker: Mosquitto) -> int:
    return broker.port
