"""What is published, as JSON: pure. The schema is docs/alarm-mqtt.asyncapi.yaml, and a test holds
every payload made here against it.

Every time stands twice: RFC 3339 in UTC with nine digits for people and for readers whose numbers
are float64, and `*_ns`, the integer. A value that is not there is null; NaN does not exist in JSON.

A row is encoded once and stands in its event and in its state, byte for byte the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.quality import Quality

VERSION = 1
_NS = 1_000_000_000


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_ns: int) -> str:
    """UTC, always with nine digits: texts then sort as times do."""
    seconds, fraction = divmod(time_ns, _NS)
    return f"{_second(seconds)}.{fraction:09d}Z"


def number(value: float | None) -> float | None:
    """The value if JSON can say it."""
    return value if value is not None and math.isfinite(value) else None


def alarm_row(alarm: Alarm) -> bytes:
    """The full row of one alarm."""
    row: dict[str, Any] = {
        "v": VERSION,
        "alarm_key": alarm.alarm_key,
        "occ_no": alarm.occ_no,
        "seq": alarm.seq,
        "gseq": alarm.gseq,
        "epoch": alarm.epoch,
        "state": alarm.state.value,
        "priority": int(alarm.priority),
        "level": alarm.level,
        "scheme": alarm.scheme,
        "scheme_level": alarm.scheme_level,
        "target": alarm.target,
        "point": alarm.point_id,
        "area": alarm.area,
        "location": alarm.location,
        "display_name": alarm.display_name,
        "name": dict(alarm.name),
        "action": dict(alarm.action),
        "value": number(alarm.value),
        "peak": number(alarm.peak),
        "limit": number(alarm.limit),
        "unit": alarm.unit,
        "quality": _quality(alarm.quality),
        "active": alarm.active,
        "acknowledged": alarm.acknowledged,
        "latched": alarm.latched,
        "shelved": alarm.shelved,
        "suppressed_by": list(alarm.suppressed_by),
        "out_of_service": alarm.out_of_service,
        "enabled": alarm.enabled,
        "planned": alarm.planned,
        "open": alarm.open,
        "shown": alarm.shown,
        "attention_seq": alarm.attention_seq,
        "unacknowledged_from": alarm.unacknowledged_from,
        "reactivation_count": alarm.reactivation_count,
        "acknowledged_by": alarm.acknowledged_by,
        "comment": alarm.comment,
        "hidden_note": alarm.hidden_note,
        "initial_value": number(alarm.initial_value),
        "first_out": list(alarm.first_out),
        "confirmed_by": alarm.confirmed_by,
        "overdue_step": alarm.overdue_step,
        "realarm_count": alarm.realarm_count,
        "removed": alarm.removed,
        "rule": {"id": alarm.rule_id, "kind": alarm.rule_kind, "version": alarm.rule_version},
        "citation": {
            "standard": alarm.citation.standard,
            "edition": alarm.citation.edition,
            "clause": alarm.citation.clause,
            "confidence": alarm.citation.confidence.value,
            "note": alarm.citation.note,
        },
    }
    for name in ("condition", "active", "level", "return", "acknowledged", "confirmed"):
        _time(row, f"{name}_time", getattr(alarm, f"{name}_time_ns"))
    _time(row, "shelved_until", alarm.shelved_until_ns)
    return dumps(row)


def event(event: AlarmEvent, row: bytes) -> bytes:
    """One transition, with the row as it stood right after it."""
    alarm = event.alarm
    out: dict[str, Any] = {
        "v": VERSION,
        "alarm_key": alarm.alarm_key,
        "occ_no": alarm.occ_no,
        "seq": alarm.seq,
        "gseq": alarm.gseq,
        "epoch": alarm.epoch,
        "event": event.transition.value,
        "from_state": event.from_state.value,
        "state": alarm.state.value,
        "level": event.level or alarm.level,
        "annunciate": event.annunciate,
        "late": event.late,
        "value": number(event.value),
        "limit": number(event.limit),
        "unit": alarm.unit,
        "actor": event.actor,
        "comment": event.comment,
        "step": event.step,
        "recipients": list(event.recipients),
    }
    _time(out, "time", event.time_ns)
    _time(out, "recorded_time", event.recorded_time_ns)
    out["alarm"] = orjson.Fragment(row)
    return dumps(out)


def heartbeat(status: Mapping[str, Any], now_ns: int) -> bytes:
    """What a subscriber compares with what it has: a gap in gseq means a snapshot is due."""
    row = {"v": VERSION, **status}
    _time(row, "time", now_ns)
    return dumps(row)


def gateway_status(state: str, *, epoch: int | None, since_ns: int, reason: str = "") -> bytes:
    """`online` or `offline`. `since` is when this connection was begun, in both: an `offline` with
    an older `since` than the last `online` is the will of a connection that was replaced."""
    row: dict[str, Any] = {"v": VERSION, "status": state, "epoch": epoch, "reason": reason}
    _time(row, "since", since_ns)
    return dumps(row)


def telemetry(names: Sequence[str], columns: Mapping[str, Sequence[Any]], end_offset: int) -> bytes:
    """Some samples, as an array of objects."""
    samples = [
        {
            "point": name,
            "value": number(value),
            "quality": _quality(quality),
            "time": rfc3339(source_ns),
            "time_ns": source_ns,
            "received_time_ns": received_ns,
        }
        for name, value, quality, source_ns, received_ns in zip(
            names,
            columns["value"],
            columns["quality"],
            columns["source_time_ns"],
            columns["received_time_ns"],
            strict=True,
        )
    ]
    return dumps({"v": VERSION, "end_offset": end_offset, "samples": samples})


def dumps(row: Mapping[str, Any] | str) -> bytes:
    """JSON. Text with half a surrogate pair, which only a damaged name can hold, gets a question
    mark in its place rather than stopping an alarm."""
    try:
        return orjson.dumps(row)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(row))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(child) for child in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


@lru_cache(maxsize=256)
def _quality(code: int) -> str:
    """`good`, `bad_sensor_fault`, …; the grade alone for a code of a later version."""
    try:
        return Quality(code).name.lower()
    except ValueError:
        return ("good", "uncertain", "bad", "bad")[(code >> 6) & 3]


def _time(row: dict[str, Any], name: str, time_ns: int | None) -> None:
    row[name] = None if time_ns is None else rfc3339(time_ns)
    row[f"{name}_ns"] = time_ns
