"""What leaves the core: wire types of the JSON API, of the link and of the live stream.

The model knows no JSON; here it is turned into rows. Two things would surprise:

- Times are **milliseconds** since 1970, UTC, named `*_ms`: a browser's number holds 53 bits, and
  nanoseconds need 61. The journal and the exports carry the nanoseconds.
- A value that is not a number is `null`. JSON has no NaN.

`ValuesFrame` is columns: row i is the point with index i of the points table of the same
`points_version`. A reader that sees another version fetches the points again.

Not here: where the facts come from (provider.py), how they travel (link.py, routes.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gateway.model.alarm import Alarm, AlarmEvent, AlarmState
from gateway.model.point import Device, Point
from gateway.model.rule import Citation

NS_PER_MS = 1_000_000
PUSHED_ALARMS_MAX = 200
"""Rows in the live alarm frame, most urgent first; the rest are fetched. Nobody reads 200 rows."""
PUSHED_EVENTS_MAX = 40
NEVER_MS = -1
"""Age of a point that has no sample yet."""

HIDDEN_STATES = frozenset(
    {AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE, AlarmState.DISABLED}
)


class Wire(BaseModel):
    """Frozen; an unknown field in what comes in is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def encoded(self) -> bytes:
        """JSON. A float that is not a number becomes null."""
        return self.model_dump_json().encode()


# --------------------------------------------------------------------------- points and values


class PointRow(Wire):
    """A point as declared, with its index."""

    index: int
    id: str
    kind: str
    quantity: str
    unit: str
    name: str
    device: str
    adapter: str
    area: str
    location: str
    location_class: str
    interval_s: float | None
    range_low: float | None
    range_high: float | None
    states: dict[str, str]


class DeviceRow(Wire):
    """A device as declared, with its index."""

    index: int
    id: str
    kind: str
    name: str
    adapter: str
    attributes: dict[str, str]


class PointsFrame(Wire):
    """Every point and device of one version of the table, in order of index."""

    version: int
    points: list[PointRow]
    devices: list[DeviceRow]


class ValuesFrame(Wire):
    """The newest sample of every point, as columns."""

    time_ms: int
    points_version: int
    value: list[float | None]
    quality: list[int]
    age_ms: list[int] = Field(description="time_ms less the source time; never below 0; -1 = none")


class ValueRow(Wire):
    """The newest sample of one point."""

    point: PointRow
    value: float | None
    quality: int
    grade: str
    reason: str
    source_time_ms: int | None
    time_ms: int


class HistoryBuckets(Wire):
    """One point's past in equal buckets, as columns.

    A bucket without samples has count 0 and nulls, or is left out.
    """

    point_id: str
    from_ms: int
    to_ms: int
    bucket_ms: int
    time_ms: list[int] = Field(description="start of each bucket")
    mean: list[float | None]
    minimum: list[float | None]
    maximum: list[float | None]
    count: list[int]


# --------------------------------------------------------------------------- alarms


class CitationRow(Wire):
    """Where a rule comes from and how sure we are of it."""

    standard: str
    edition: str
    clause: str
    confidence: str
    note: str


class AlarmRow(Wire):
    """The live row of one alarm."""

    key: str
    token: str = Field(description="occurrence and sequence as seen; a command must bring it back")
    rule_id: str
    rule_kind: str
    target: str
    point_id: str
    priority: int
    state: str
    active: bool
    acknowledged: bool
    latched: bool
    hidden: bool = Field(description="shelved, suppressed, out of service or disabled")
    suppressed_by: list[str]
    hidden_note: str = Field(description="who hid it and why")
    planned: bool = Field(description="the sensor is under calibration: nobody is called")
    level: str
    scheme: str
    scheme_level: str
    value: float | None
    peak: float | None
    limit: float | None
    unit: str
    quality: int
    name: dict[str, str]
    action: dict[str, str]
    location: str
    area: str
    display_name: str = Field(default="", description="of the point, device or area it is about")
    citation: CitationRow
    rule_version: str
    occ_no: int
    seq: int
    epoch: int
    gseq: int
    condition_ms: int | None
    active_ms: int | None
    return_ms: int | None
    acknowledged_ms: int | None
    acknowledged_by: str
    comment: str
    shelved_until_ms: int | None
    reactivation_count: int
    initial_value: float | None = Field(default=None, description="at activation")
    first_out: list[str] = Field(default=[], description="groups in which it came first")
    confirmed_by: str = Field(default="", description="who stated that the action is done")
    confirmed_ms: int | None = None
    overdue_step: int = Field(default=0, description="escalation steps told, nobody answered")


class EventRow(Wire):
    """One transition as journalled."""

    key: str
    occ_no: int
    seq: int
    gseq: int
    transition: str
    time_ms: int
    recorded_ms: int
    from_state: str
    state: str
    annunciate: bool
    late: bool
    priority: int
    level: str
    value: float | None
    limit: float | None
    unit: str
    name: dict[str, str]
    target: str
    location: str
    display_name: str = Field(default="", description="of the point, device or area it is about")
    actor: str
    comment: str
    rule_kind: str = Field(default="", description="what the value is: a code, a slope, a sample")
    step: int = Field(default=0, description="of OVD: the escalation step")
    recipients: list[str] = Field(default=[], description="of OVD: who is to be told")


class PriorityCount(Wire):
    """How many visible alarms of one priority stand."""

    priority: int
    standing: int
    unacknowledged: int


class AlarmsFrame(Wire):
    """The standing alarms, most urgent first, and the newest events, newest last."""

    epoch: int
    gseq: int
    counts: list[PriorityCount]
    hidden_count: int
    planned_count: int = Field(default=0, description="visible, of calibrations; not in counts")
    total_count: int
    alarms: list[AlarmRow] = Field(description="at most as many as asked; total_count tells")
    events: list[EventRow]


class EventsPage(Wire):
    """Journalled events, oldest first."""

    events: list[EventRow]


# --------------------------------------------------------------------------- state of the core


class Counts(Wire):
    """What became of what came in; everywhere the same four words."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0


class AdapterRow(Wire):
    """One way in: its state and its counts."""

    name: str
    kind: str
    state: str = Field(description="the adapter's word: listening, connected, waiting, faulty, …")
    detail: str = ""
    since_ms: int | None = None
    last_sample_ms: int | None = None
    point_count: int = 0
    rate_per_s: float = Field(default=0.0, description="messages or files taken in a second")
    counts: Counts = Field(default=Counts(), description="messages or files, not samples")


class CursorRow(Wire):
    """One consumer of the spool and how far behind it is."""

    name: str
    offset: int
    behind_records: int = Field(description="samples it has not read yet")


class SpoolRow(Wire):
    """The durable log between intake and everything else."""

    state: str = "ok"
    detail: str = ""
    size_bytes: int = 0
    size_bytes_max: int = 0
    segment_count: int = 0
    head_offset: int = 0
    oldest_ms: int | None = None
    quarantined_count: int = 0
    dropped_count: int = 0
    commit_window_ms: float = 0.0
    cursors: list[CursorRow] = []


class SinkRow(Wire):
    """One way out: its state and how far behind it is."""

    name: str
    kind: str
    state: str
    detail: str = ""
    since_ms: int | None = None
    last_write_ms: int | None = None
    behind_records: int = 0
    counts: Counts = Counts()


class PackRow(Wire):
    """One rule pack in force."""

    name: str
    edition: str = ""
    version: str = ""
    rule_count: int = 0
    unconfirmed_count: int = 0


class RulesRow(Wire):
    """The rule set in force."""

    rule_count: int = 0
    instance_count: int = 0
    unconfirmed_count: int = 0
    fingerprint: str = ""
    reloaded: str = ""  # what came of reading the site file again; "" while it was not
    is_reload_refused: bool = False
    packs: list[PackRow] = []


class RoadCounts(Wire):
    """Samples at each step of the one road, since the core started.

    What rules calculate joins the road at `durable`: durable = received + derived.
    """

    received: int = Field(default=0, description="from adapters")
    derived: int = Field(default=0, description="calculated by rules from those")
    durable: int = 0
    judged: int = 0
    stored: int = 0
    rejected: int = 0
    lost: int = 0


class LatencyRow(Wire):
    """From a sample's receipt to its alarm event in the journal, over the last window."""

    count: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None


class CallRow(Wire):
    """One call to a person, as a flood leaves it: an alarm, or a number of them."""

    kind: str = Field(description="alarm, group, or history: found in late data, never sounded")
    time_ms: int
    count: int
    area: str
    rule_kind: str
    priority: int = Field(description="of the most urgent")
    key: str = Field(description="of the most urgent")
    name: dict[str, str]
    gseq: int = Field(description="of the first event")


class FloodRow(Wire):
    """Whether more is annunciated than people can follow. Changes what sounds, nothing else."""

    active: bool = False
    since_ms: int | None = None
    count_10min: int = 0
    folded_count: int = 0
    queued_count: int = 0
    calls: list[CallRow] = Field(default=[], description="the newest, oldest first")


class Status(Wire):
    """The state of the whole core, once a second."""

    time_ms: int
    started_ms: int
    version: str
    tenant: str = ""
    site: str
    site_name: str = Field(default="", description="in the language of the site")
    site_names: dict[str, str] = Field(default={}, description="language -> the site's name")
    time_zone: str = "Asia/Shanghai"
    pid: int = 0
    rss_bytes: int = 0
    cpu_percent: float | None = None
    points_version: int = 0
    point_count: int = 0
    device_count: int = 0
    adapters: list[AdapterRow] = []
    spool: SpoolRow = SpoolRow()
    sinks: list[SinkRow] = []
    rules: RulesRow = RulesRow()
    road: RoadCounts = RoadCounts()
    latency: LatencyRow = LatencyRow()
    flood: FloodRow = FloodRow()
    rate_per_s: float = 0.0


class LinkState(Wire):
    """How the web process stands to the core; made by the web process itself."""

    connected: bool
    age_ms: int | None = Field(description="since the core's last values; null = never heard")
    detail: str = ""


# --------------------------------------------------------------------------- commands


class Command(Wire):
    """One operator's wish. The core decides; the truth comes back over the live stream."""

    name: Literal["acknowledge", "comment", "shelve", "unshelve", "reset", "confirm"]
    alarm_key: str = Field(min_length=1, max_length=400)
    operator: str = Field(min_length=1, max_length=64)
    token: str = Field(default="", max_length=64, description="AlarmRow.token as seen")
    comment: str = Field(default="", max_length=500)
    duration_s: float | None = Field(default=None, gt=0)


class CommandResult(Wire):
    """`done` (also when nothing was left to do), or why not: nothing changed then."""

    code: Literal["done", "stale", "unknown", "refused"]
    detail: str = ""
    gseq: int = 0


class HistoryQuery(Wire):
    """Which past to look at: half-open, at most `count` buckets."""

    point_id: str = Field(min_length=1, max_length=128)
    from_ms: int = Field(ge=0, lt=2**53)
    to_ms: int = Field(ge=0, lt=2**53)
    count: int = Field(default=600, ge=1, le=4000)


class EventsQuery(Wire):
    """Which events to look at."""

    after_gseq: int | None = Field(default=None, description="null = the newest ones")
    limit: int = Field(default=100, ge=1, le=1000)


class AlarmsQuery(Wire):
    """How many rows of the standing list."""

    limit: int = Field(default=PUSHED_ALARMS_MAX, ge=0, le=20_000)


# --------------------------------------------------------------------------- from the model


def ms(time_ns: int | None) -> int | None:
    return None if time_ns is None else time_ns // NS_PER_MS


def number(value: float | None) -> float | None:
    """`value`, or None where it is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def point_row(index: int, point: Point) -> PointRow:
    return PointRow(
        index=index,
        id=point.id,
        kind=point.kind.value,
        quantity=point.quantity,
        unit=point.unit,
        name=point.name,
        device=point.device,
        adapter=point.adapter,
        area=point.area,
        location=point.location,
        location_class=point.location_class,
        interval_s=number(point.interval_s),
        range_low=number(point.range_low),
        range_high=number(point.range_high),
        states={str(code): text for code, text in point.states.items()},
    )


def device_row(index: int, device: Device) -> DeviceRow:
    return DeviceRow(
        index=index,
        id=device.id,
        kind=device.kind,
        name=device.name,
        adapter=device.adapter,
        attributes=dict(device.attributes),
    )


def points_frame(version: int, points: Iterable[Point], devices: Iterable[Device]) -> PointsFrame:
    return PointsFrame(
        version=version,
        points=[point_row(index, point) for index, point in enumerate(points)],
        devices=[device_row(index, device) for index, device in enumerate(devices)],
    )


def encode_values(
    time_ns: int,
    points_version: int,
    *,
    value: NDArray[np.float64],
    quality: NDArray[np.uint8],
    source_time_ns: NDArray[np.int64],
) -> bytes:
    """A `ValuesFrame` as JSON, straight from the columns. A source time of 0 means no sample."""
    age_ms = np.maximum((time_ns - source_time_ns) // NS_PER_MS, 0)
    age_ms[source_time_ns == 0] = NEVER_MS
    columns: Mapping[str, Any] = {
        "time_ms": time_ns // NS_PER_MS,
        "points_version": points_version,
        "value": np.ascontiguousarray(value),
        "quality": np.ascontiguousarray(quality),
        "age_ms": age_ms,
    }
    return orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)


def citation_row(citation: Citation) -> CitationRow:
    return CitationRow(
        standard=citation.standard,
        edition=citation.edition,
        clause=citation.clause,
        confidence=citation.confidence.value,
        note=citation.note,
    )


def token(alarm: Alarm) -> str:
    """What a command must bring back: a newer occurrence or level was not seen by the operator."""
    return f"{alarm.occ_no}:{alarm.seq}"


def alarm_row(alarm: Alarm) -> AlarmRow:
    return AlarmRow(
        key=alarm.alarm_key,
        token=token(alarm),
        rule_id=alarm.rule_id,
        rule_kind=alarm.rule_kind,
        target=alarm.target,
        point_id=alarm.point_id,
        priority=int(alarm.priority),
        state=alarm.state.value,
        active=alarm.active,
        acknowledged=alarm.acknowledged,
        latched=alarm.latched,
        hidden=alarm.state in HIDDEN_STATES,
        suppressed_by=list(alarm.suppressed_by),
        hidden_note=alarm.hidden_note,
        planned=alarm.planned,
        level=alarm.level,
        scheme=alarm.scheme,
        scheme_level=alarm.scheme_level,
        value=number(alarm.value),
        peak=number(alarm.peak),
        limit=number(alarm.limit),
        unit=alarm.unit,
        quality=int(alarm.quality),
        name=dict(alarm.name),
        action=dict(alarm.action),
        location=alarm.location,
        area=alarm.area,
        display_name=alarm.display_name,
        citation=citation_row(alarm.citation),
        rule_version=alarm.rule_version,
        occ_no=alarm.occ_no,
        seq=alarm.seq,
        epoch=alarm.epoch,
        gseq=alarm.gseq,
        condition_ms=ms(alarm.condition_time_ns),
        active_ms=ms(alarm.active_time_ns),
        return_ms=ms(alarm.return_time_ns),
        acknowledged_ms=ms(alarm.acknowledged_time_ns),
        acknowledged_by=alarm.acknowledged_by,
        comment=alarm.comment,
        shelved_until_ms=ms(alarm.shelved_until_ns),
        reactivation_count=alarm.reactivation_count,
        initial_value=number(alarm.initial_value),
        first_out=list(alarm.first_out),
        confirmed_by=alarm.confirmed_by,
        confirmed_ms=ms(alarm.confirmed_time_ns),
        overdue_step=alarm.overdue_step,
    )


def event_row(event: AlarmEvent) -> EventRow:
    alarm = event.alarm
    return EventRow(
        key=alarm.alarm_key,
        occ_no=alarm.occ_no,
        seq=alarm.seq,
        gseq=alarm.gseq,
        transition=event.transition.value,
        time_ms=event.time_ns // NS_PER_MS,
        recorded_ms=event.recorded_time_ns // NS_PER_MS,
        from_state=event.from_state.value,
        state=alarm.state.value,
        annunciate=event.annunciate,
        late=event.late,
        priority=int(alarm.priority),
        level=event.level or alarm.level,
        value=number(event.value),
        limit=number(event.limit),
        unit=alarm.unit,
        name=dict(alarm.name),
        target=alarm.target,
        location=alarm.location,
        display_name=alarm.display_name,
        actor=event.actor,
        comment=event.comment,
        step=event.step,
        recipients=list(event.recipients),
        rule_kind=alarm.rule_kind,
    )


def urgency(alarm: Alarm) -> tuple[bool, int, bool, bool, int, str]:
    """Sort key: what may be hidden last; then priority; not acknowledged first; what goes on before
    what is back; newest first."""
    return (
        alarm.state in HIDDEN_STATES,
        int(alarm.priority),
        alarm.acknowledged,
        not alarm.active,
        -(alarm.active_time_ns or 0),
        alarm.alarm_key,
    )


class AlarmEncoder:
    """Encodes `AlarmsFrame`s one after the other; a row that has not changed is not encoded again.

    In a flood the list is sent five times a second, and nearly all of it is what was sent before:
    for 190 rows 1 ms in place of 12, on the loop that also judges. Holds what the last frame held.
    """

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Alarm, bytes]] = {}
        self._events: dict[tuple[int, int, str], bytes] = {}

    def encode(
        self,
        epoch: int,
        gseq: int,
        *,
        alarms: Sequence[Alarm],
        events: Sequence[AlarmEvent] = (),
        limit: int = PUSHED_ALARMS_MAX,
    ) -> bytes:
        """The standing list as JSON. Alarms in state NORM are nobody's business and left out."""
        shown = sorted((a for a in alarms if a.state is not AlarmState.NORMAL), key=urgency)
        visible = [a for a in shown if a.state not in HIDDEN_STATES]
        meant = [a for a in visible if not a.planned]
        self._rows = {alarm.alarm_key: self._row(alarm) for alarm in shown[:limit]}
        self._events = {_event_key(event): self._event(event) for event in events}
        frame = {
            "epoch": epoch,
            "gseq": gseq,
            "counts": [_count(priority, meant) for priority in (1, 2, 3, 4)],
            "hidden_count": len(shown) - len(visible),
            "planned_count": len(visible) - len(meant),
            "total_count": len(shown),
            "alarms": [orjson.Fragment(encoded) for _, encoded in self._rows.values()],
            "events": [orjson.Fragment(encoded) for encoded in self._events.values()],
        }
        return orjson.dumps(frame, default=BaseModel.model_dump)

    def _row(self, alarm: Alarm) -> tuple[Alarm, bytes]:
        kept = self._rows.get(alarm.alarm_key)
        return kept if kept and kept[0] == alarm else (alarm, alarm_row(alarm).encoded())

    def _event(self, event: AlarmEvent) -> bytes:
        kept = self._events.get(_event_key(event))
        return kept or event_row(event).encoded()


def _event_key(event: AlarmEvent) -> tuple[int, int, str]:
    # gseq alone names a journalled event; the rest keeps two of one gseq apart all the same.
    return (event.alarm.gseq, event.alarm.seq, event.alarm.alarm_key)


def _count(priority: int, visible: Sequence[Alarm]) -> PriorityCount:
    mine = [alarm for alarm in visible if alarm.priority == priority]
    return PriorityCount(
        priority=priority,
        standing=len(mine),
        unacknowledged=sum(not alarm.acknowledged for alarm in mine),
    )
