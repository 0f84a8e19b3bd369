"""A small plant that stands in for the core behind the link: `FakeCore`.

    mine      3 areas x 20 sensors (methane, carbon monoxide, wind, temperature), 3 head-counts
    dam       pool level, beach length, freeboard, rain, 20 displacement points
    vehicles  20, each lon, lat, speed, heading
    chemical  tank levels and temperatures

Deterministic: every value is a function of the point's index and of `now_ns`. Alarms are set by the
test (`raise_alarm`, `clear_alarm`); acknowledge follows the rules a browser can see (a stale token
is refused). It is not an alarm book: shelving, delays and latches are the real one's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gateway.api import wire
from gateway.api.provider import AlarmSnapshot, LiveValues
from gateway.ledger.account import Account, Request
from gateway.ledger.count import MINUTE_NS
from gateway.model.alarm import Alarm, AlarmEvent, AlarmState, Transition
from gateway.model.errors import Unavailable
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Citation, Confidence, Priority, alarm_key
from gateway.runtime.clock import now_ns
from gateway.testing.completeness import invented

S = 1_000_000_000
AREAS = ("3101工作面", "3203掘进面", "中央变电所")
SENSORS = (
    ("methane", "甲烷", "%CH4", 0.32, 0.11, 4.0),
    ("carbon_monoxide", "一氧化碳", "ppm", 6.0, 2.0, 500.0),
    ("wind_speed", "风速", "m/s", 1.8, 0.4, 15.0),
    ("temperature", "温度", "℃", 22.5, 1.5, 100.0),
)
MIDDLES = {quantity: (middle, swing) for quantity, _, _, middle, swing, _ in SENSORS} | {
    "pool_level": (861.4, 0.3),
    "beach_length": (92.0, 2.0),
    "freeboard": (3.1, 0.06),
    "level": (6.4, 0.2),
}
VEHICLE_COUNT = 20
CENTRE = (112.4380, 37.8120)  # an invented place

CITATIONS = {
    "confirmed": Citation("AQ 1029", "2019", "6.2", Confidence.CONFIRMED),
    "unconfirmed": Citation("GB 51108", "2015", "5.3", Confidence.UNCONFIRMED),
    "site": Citation(),
}


def plant() -> PointTable:
    """The invented plant's points and devices."""
    table = PointTable()
    _add_mine(table)
    _add_dam(table)
    _add_tanks(table)
    _add_vehicles(table)
    return table


def _add_mine(table: PointTable) -> None:
    for area_no, area in enumerate(AREAS):
        device = f"ss-{area_no + 1:02d}"
        table.put_device(Device(device, "substation", f"{area}分站", "mine-files"))
        for number in range(20):
            quantity, name, unit, _, _, top = SENSORS[number % len(SENSORS)]
            table.put(
                Point(
                    id=f"mine.{area_no + 1:02d}.{quantity}.{number:02d}",
                    quantity=quantity,
                    unit=unit,
                    name=f"{name}T{number // len(SENSORS)}",
                    device=device,
                    adapter="mine-files",
                    area=area,
                    location=f"{area}T{number // len(SENSORS)}",
                    location_class=f"T{number // len(SENSORS)}",
                    interval_s=1.0,
                    range_low=0.0,
                    range_high=top,
                )
            )
        table.put(
            Point(
                id=f"mine.{area_no + 1:02d}.fan",
                kind=PointKind.DISCRETE,
                name="局部通风机",
                device=device,
                adapter="mine-files",
                area=area,
                location=f"{area}入口",
                states={0: "停", 1: "运行"},
            )
        )


def _add_dam(table: PointTable) -> None:
    attributes = {"lon": str(CENTRE[0] + 0.012), "lat": str(CENTRE[1] + 0.008)}
    table.put_device(Device("dam-1", "dam", "柳沟尾矿库", "dam-mqtt", attributes))
    shaft = {"lon": str(CENTRE[0] - 0.014), "lat": str(CENTRE[1] - 0.006)}
    table.put_device(Device("shaft-1", "mine", "主斜井", "mine-files", shaft))
    rows = [
        ("pool_level", "库水位", "m", "坝前", 1000.0),
        ("beach_length", "干滩长度", "m", "主坝", 500.0),
        ("freeboard", "安全超高", "m", "主坝", 20.0),
        ("rain", "降雨量", "mm", "坝顶气象站", 200.0),
    ]
    rows += [
        (f"displacement_{axis}", f"表面位移{axis.upper()}", "mm", f"断面{section}", 100.0)
        for section in range(1, 8)
        for axis in "xyz"
    ]
    for number, (quantity, name, unit, location, top) in enumerate(rows):
        table.put(
            Point(
                id=f"dam.{quantity}.{number:02d}",
                quantity=quantity,
                unit=unit,
                name=name,
                device="dam-1",
                adapter="dam-mqtt",
                area="柳沟尾矿库",
                location=location,
                interval_s=60.0,
                range_high=top,
            )
        )


def _add_tanks(table: PointTable) -> None:
    for number in range(1, 13):
        table.put_device(Device(f"tank-{number:02d}", "tank", f"{number}号储罐", "dam-mqtt"))
        for quantity, name, unit in (("level", "液位", "m"), ("temperature", "温度", "℃")):
            table.put(
                Point(
                    id=f"tank.{number:02d}.{quantity}",
                    quantity=quantity,
                    unit=unit,
                    name=name,
                    device=f"tank-{number:02d}",
                    adapter="dam-mqtt",
                    area="罐区",
                    location=f"{number}号储罐",
                )
            )


def _add_vehicles(table: PointTable) -> None:
    kinds = (
        (PointKind.LON, "lon", "经度", "°"),
        (PointKind.LAT, "lat", "纬度", "°"),
        (PointKind.SPEED, "vehicle_speed", "车速", "km/h"),
        (PointKind.HEADING, "heading", "方向", "°"),
    )
    for number in range(1, VEHICLE_COUNT + 1):
        device = f"veh-{number:02d}"
        plate = f"测A·D{number:04d}"
        table.put_device(Device(device, "vehicle", plate, "jt808", {"cargo": "液氨"}))
        for kind, quantity, name, unit in kinds:
            table.put(
                Point(
                    id=f"{device}.{quantity}",
                    kind=kind,
                    quantity=quantity,
                    unit=unit,
                    name=name,
                    device=device,
                    adapter="jt808",
                    area="危货车队",
                    location=plate,
                )
            )


def value_of(index: int, point: Point, second: float) -> float:
    """The plant's law: slow waves, a different phase for every point."""
    wave = math.sin(second / 37.0 + index) + 0.3 * math.sin(second / 5.0 + 2.1 * index)
    if point.kind is PointKind.LON:
        return round(CENTRE[0] + 0.02 * math.sin(second / 400.0 + index), 6)
    if point.kind is PointKind.LAT:
        return round(CENTRE[1] + 0.012 * math.cos(second / 300.0 + 1.7 * index), 6)
    if point.kind is PointKind.SPEED:
        return round(0.0 if index % 5 == 0 else max(0.0, 42.0 + 18.0 * wave), 1)
    if point.kind is PointKind.HEADING:
        return round((second * 3.0 + index * 40.0) % 360.0, 0)
    if point.kind is PointKind.DISCRETE:
        return float(index % 3 != 0)
    middle, swing = MIDDLES.get(point.quantity, (4.0, 0.08))
    return round(middle + swing * wave, 2)


class FakeCore:
    """A `CoreProvider` with a plant of about 190 points."""

    def __init__(self, now_ns: Callable[[], int] = now_ns) -> None:
        self.now_ns = now_ns
        self.started_ns = now_ns()
        self.table = plant()
        self.book: dict[str, Alarm] = {}
        self.journal: list[AlarmEvent] = []
        self.commands: list[wire.Command] = []
        self.history_down = False
        self.ledger_down = False
        self.bad: dict[str, Quality] = {
            "mine.02.methane.08": Quality.BAD_SENSOR_FAULT,
            "dam.rain.03": Quality.BAD_COMMUNICATION,
            "mine.01.temperature.07": Quality.UNCERTAIN_CALIBRATING,
        }
        self._wake: Callable[[], None] = lambda: None

    # ----------------------------------------------------------------- CoreProvider

    def points(self) -> PointTable:
        return self.table

    def values(self) -> LiveValues:
        now_ns = self.now_ns()
        value = np.array([value_of(i, p, now_ns / S) for i, p in enumerate(self.table)])
        quality = np.zeros(len(value), np.uint8)
        source_time_ns = np.full(len(value), now_ns - S // 2, np.int64)
        for point_id, why in self.bad.items():
            row = self.table.index(point_id)
            quality[row] = why
            if why.is_bad:
                value[row] = math.nan
                source_time_ns[row] = now_ns - 400 * S
        never = self.table.index("tank.12.level")
        value[never], quality[never], source_time_ns[never] = math.nan, Quality.BAD_NO_VALUE, 0
        return LiveValues(
            time_ns=now_ns,
            points_version=self.table.version,
            value=value,
            quality=quality,
            source_time_ns=source_time_ns,
        )

    def alarms(self) -> AlarmSnapshot:
        return AlarmSnapshot(epoch=1, gseq=len(self.journal), alarms=list(self.book.values()))

    async def events(self, after_gseq: int | None, limit: int) -> Sequence[AlarmEvent]:
        if after_gseq is None:
            return self.journal[-limit:]
        return self.journal[max(after_gseq, 0) :][:limit]

    async def history(
        self, point_id: str, from_ns: int, to_ns: int, *, count: int
    ) -> wire.HistoryBuckets:
        if self.history_down:
            raise Unavailable("the store does not answer")
        index = self.table.index(point_id)
        bucket_ms = max((to_ns - from_ns) // count // 1_000_000, 1000)
        begin_ms = from_ns // 1_000_000
        times = range(begin_ms, min(to_ns, self.now_ns()) // 1_000_000, bucket_ms)
        mean = [value_of(index, self.table[index], t / 1000) for t in times]
        return wire.HistoryBuckets(
            point_id=point_id,
            from_ms=begin_ms,
            to_ms=to_ns // 1_000_000,
            bucket_ms=bucket_ms,
            time_ms=list(times),
            mean=list(mean),
            minimum=[v * 0.98 for v in mean],
            maximum=[v * 1.02 for v in mean],
            count=[bucket_ms // 1000] * len(mean),
        )

    async def completeness(self, request: Request) -> Account:
        if self.ledger_down:
            raise Unavailable("the completeness ledger is not open")
        return await asyncio.to_thread(invented, self.table, request, self.now_ns() // MINUTE_NS)

    async def command(self, command: wire.Command) -> wire.CommandResult:
        self.commands.append(command)
        alarm = self.book.get(command.alarm_key)
        if alarm is None:
            return wire.CommandResult(code="unknown", detail=command.alarm_key)
        if command.name != "acknowledge":
            return wire.CommandResult(code="refused", detail="only acknowledge is played here")
        if command.token != wire.token(alarm):
            return wire.CommandResult(code="stale", detail="the alarm has changed since")
        if not alarm.acknowledged:
            state = AlarmState.ACKNOWLEDGED if alarm.active else AlarmState.NORMAL
            changed = replace(
                alarm,
                acknowledged=True,
                state=state,
                open=alarm.active,
                acknowledged_by=command.operator,
                acknowledged_time_ns=self.now_ns(),
                comment=command.comment,
            )
            self._record(Transition.ACKNOWLEDGED, changed, alarm.state, actor=command.operator)
        return wire.CommandResult(code="done", gseq=len(self.journal))

    def on_alarms_changed(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def status(self) -> wire.Status:
        now_ms = self.now_ns() // 1_000_000
        received = 190 * (now_ms - self.started_ns // 1_000_000) // 1000 + 48_211
        return wire.Status(
            time_ms=now_ms,
            started_ms=self.started_ns // 1_000_000 - 3_600_000,
            version="0.1.0",
            tenant="demo",
            site="liugou",
            site_name="柳沟矿业",
            pid=4242,
            rss_bytes=148 * 2**20,
            cpu_percent=6.4,
            points_version=self.table.version,
            point_count=len(self.table),
            device_count=len(self.table.devices),
            adapters=_adapters(now_ms, received),
            spool=_spool(now_ms, received),
            sinks=_sinks(now_ms, received),
            rules=_rules(),
            road=wire.RoadCounts(
                received=received, durable=received, judged=received - 12, stored=received - 190
            ),
            latency=wire.LatencyRow(count=57, p50_ms=41.0, p99_ms=88.5, max_ms=131.0),
            rate_per_s=190.0,
        )

    # ----------------------------------------------------------------- the test's hands

    def raise_alarm(
        self,
        point_id: str,
        *,
        priority: Priority = Priority.CRITICAL,
        level: str = "HH",
        value: float | None = 1.72,
        limit: float | None = 1.5,
        citation: str = "confirmed",
        age_s: float = 0.0,
    ) -> Alarm:
        """The condition of `point_id` became true `age_s` ago; announced at once."""
        point = self.table[self.table.index(point_id)]
        key = alarm_key(point.id, f"demo.{level.lower()}")
        before = self.book.get(key)
        begun_ns = self.now_ns() - int(age_s * S)
        alarm = Alarm(
            alarm_key=key,
            rule_id=f"demo.{level.lower()}",
            rule_kind="limit",
            target=point.id,
            point_id=point.id,
            priority=priority,
            active=True,
            acknowledged=False,
            open=True,
            shown=True,
            state=AlarmState.UNACKNOWLEDGED,
            level=level,
            value=value,
            peak=value,
            limit=limit,
            unit=point.unit,
            name={"zh": f"{point.name}超限", "en": f"{point.quantity.replace('_', ' ')} limit"},
            action={
                "zh": "切断该区域非本质安全电源，撤出人员，通知调度室。",
                "en": "Cut the area's power, withdraw people, call the control room.",
            },
            location=point.location,
            area=point.area,
            citation=CITATIONS[citation],
            rule_version="1",
            occ_no=(before.occ_no + 1) if before else 1,
            seq=before.seq if before else 0,
            epoch=1,
            condition_time_ns=begun_ns,
            active_time_ns=begun_ns,
        )
        came_from = before.state if before else AlarmState.NORMAL
        return self._record(Transition.ACTIVATED, alarm, came_from, time_ns=begun_ns)

    def clear_alarm(self, key: str) -> Alarm:
        """The condition is gone."""
        alarm = self.book[key]
        state = AlarmState.NORMAL if alarm.acknowledged else AlarmState.RETURNED_UNACKNOWLEDGED
        back = replace(
            alarm,
            active=False,
            state=state,
            open=not alarm.acknowledged,
            return_time_ns=self.now_ns(),
        )
        return self._record(Transition.RETURNED, back, alarm.state)

    def escalate_alarm(self, key: str) -> Alarm:
        """A worse level: whoever acknowledged the old one has not seen this."""
        alarm = self.book[key]
        worse = replace(
            alarm, acknowledged=False, state=AlarmState.UNACKNOWLEDGED, level=alarm.level + "H"
        )
        return self._record(Transition.ESCALATED, worse, alarm.state)

    def _record(
        self,
        transition: Transition,
        alarm: Alarm,
        from_state: AlarmState,
        *,
        time_ns: int | None = None,
        actor: str = "",
    ) -> Alarm:
        alarm = replace(alarm, seq=alarm.seq + 1, gseq=len(self.journal) + 1)
        self.book[alarm.alarm_key] = alarm
        now_ns = self.now_ns()
        self.journal.append(
            AlarmEvent(
                transition=transition,
                alarm=alarm,
                time_ns=now_ns if time_ns is None else time_ns,
                recorded_time_ns=now_ns,
                from_state=from_state,
                annunciate=transition in {Transition.ACTIVATED, Transition.ESCALATED},
                value=alarm.value,
                limit=alarm.limit,
                actor=actor,
            )
        )
        self._wake()
        return alarm


def _adapters(now_ms: int, received: int) -> list[wire.AdapterRow]:
    counts = wire.Counts(received=received // 2, accepted=received // 2 - 3, rejected=3)
    return [
        wire.AdapterRow(
            name="mine-files",
            kind="mine_files",
            state="watching",
            detail="/srv/mine/in",
            since_ms=now_ms - 3_600_000,
            last_sample_ms=now_ms - 800,
            point_count=63,
            rate_per_s=63.0,
            counts=counts,
        ),
        wire.AdapterRow(
            name="jt808",
            kind="jt808",
            state="listening",
            detail="0.0.0.0:7611, 20 terminals",
            since_ms=now_ms - 3_600_000,
            last_sample_ms=now_ms - 400,
            point_count=80,
            rate_per_s=80.0,
            counts=counts,
        ),
        wire.AdapterRow(
            name="dam-mqtt",
            kind="mqtt_json",
            state="faulty",
            detail="broker 10.0.8.5:1883: connection refused",
            since_ms=now_ms - 95_000,
            last_sample_ms=now_ms - 96_000,
            point_count=49,
            counts=wire.Counts(received=9120, accepted=9120),
        ),
    ]


def _spool(now_ms: int, received: int) -> wire.SpoolRow:
    return wire.SpoolRow(
        size_bytes=46 * 2**20,
        size_bytes_max=2 * 2**30,
        segment_count=6,
        head_offset=received,
        oldest_ms=now_ms - 210_000,
        commit_window_ms=20.0,
        cursors=[
            wire.CursorRow(name="rules", offset=received - 12, behind_records=12),
            wire.CursorRow(name="duckdb", offset=received - 190, behind_records=190),
            wire.CursorRow(name="centre-mqtt", offset=received - 8412, behind_records=8412),
        ],
    )


def _sinks(now_ms: int, received: int) -> list[wire.SinkRow]:
    return [
        wire.SinkRow(
            name="duckdb",
            kind="duckdb",
            state="open",
            since_ms=now_ms - 3_600_000,
            last_write_ms=now_ms - 700,
            behind_records=190,
            counts=wire.Counts(received=received - 190, accepted=received - 190),
        ),
        wire.SinkRow(
            name="centre-mqtt",
            kind="mqtt",
            state="waiting",
            detail="retry in 4 s: network is unreachable",
            since_ms=now_ms - 44_000,
            last_write_ms=now_ms - 44_500,
            behind_records=8412,
            counts=wire.Counts(received=received - 8412, accepted=received - 8412),
        ),
    ]


def _rules() -> wire.RulesRow:
    return wire.RulesRow(
        rule_count=34,
        instance_count=241,
        unconfirmed_count=5,
        fingerprint="9f2c61d0a4be",
        packs=[
            wire.PackRow(
                name="coal-mine-safety", edition="AQ 1029-2019", version="1", rule_count=14
            ),
            wire.PackRow(
                name="tailings",
                edition="GB 51108-2015",
                version="1",
                rule_count=16,
                unconfirmed_count=5,
            ),
        ],
    )
