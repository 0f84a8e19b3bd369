"""Safety monitoring: CDDY, CDSS, and the run states FZSS and JZSS. Pure.

    CDSS record ─▶ {code}        the value, with the quality the state bits leave it
                └▶ {code}.state  the state word itself

Surprising: "over range" (state bit 8) is *uncertain*, not bad. A methane sensor beyond its range is
to be treated as power-cut level and never hidden (AQ 6203-2006), and rules skip bad values. Alarm
and cut bits leave a value good: they are the source's verdict on a sound measurement.

Owns: points of sensors and stations, their samples. Not here: people (personnel.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from adapters.mine_files.codec import Record, parse_time
from adapters.mine_files.plan import (
    COORDINATES,
    NO_VALUE_TEXTS,
    TEXT_CHARS_MAX,
    Work,
    filled,
    given,
    number,
    place,
    read_value,
)
from adapters.mine_files.vocabulary import (
    POWER_STATES,
    RUN_STATES,
    UNKNOWN_STATE,
    SensorType,
    normal_unit,
    sensor_type,
)
from gateway.model.point import Point, PointKind, is_valid_id
from gateway.model.quality import BAD, Quality

LIMIT_FIELDS = (
    *("alarm_high", "alarm_high_release", "alarm_low", "alarm_low_release"),
    *("cut_high", "restore_high", "cut_low", "restore_low"),
)
_POINT_CODE = re.compile(r"([0-9]{2})(MN|KG|LJ|DT)([0-9]{4})(.{1,16})")
_POINT_KINDS = {
    "MN": PointKind.ANALOG,
    "KG": PointKind.DISCRETE,
    "DT": PointKind.DISCRETE,
    "LJ": PointKind.COUNTER,
}

# ------------------------------------------------------------------------------------ point state

STATE_ALARM, STATE_CUT, STATE_CALIBRATING, STATE_OVER_RANGE = 1, 2, 4, 8
STATE_SUBSTATION_FAULT, STATE_NOT_POLLED, STATE_PAUSED, STATE_SENSOR_FAULT = 16, 32, 64, 128
_STATE_BITS_MAX = 2**52


def state_quality(state: int) -> Quality:
    """What the state bits make of a value: the worst bit decides.

    Unknown bits come before calibration: a value we cannot place is judged like any other, one
    under calibration is kept from people. Calibration comes before over-range, because calibration
    gas drives a low-range sensor over its range every time.
    """
    if not 0 <= state < 256:
        return Quality.UNCERTAIN_STATE
    for bits, quality in (
        (STATE_SENSOR_FAULT, Quality.BAD_SENSOR_FAULT),
        (STATE_SUBSTATION_FAULT, Quality.BAD_COMMUNICATION),
        (STATE_NOT_POLLED | STATE_PAUSED, Quality.BAD_NOT_POLLED),
        (STATE_CALIBRATING, Quality.UNCERTAIN_CALIBRATING),
        (STATE_OVER_RANGE, Quality.UNCERTAIN),  # not bad: see the module's text
    ):
        if state & bits:
            return quality
    return Quality.GOOD


_STATES: Mapping[str, tuple[float, Quality, Quality]] = {
    str(state): (float(state), Quality.GOOD, state_quality(state)) for state in range(256)
}


def read_state(text: str) -> tuple[float, Quality, Quality]:
    """The state sample's value and quality, and what it does to the measured value's quality.

    A state nobody can read leaves the measured value in place, uncertain.
    """
    known = _STATES.get(text)
    if known is not None:
        return known
    text = text.strip()
    if text in NO_VALUE_TEXTS:
        return math.nan, Quality.BAD_NO_VALUE, Quality.UNCERTAIN_STATE
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) >= _STATE_BITS_MAX:
        return math.nan, Quality.BAD_NOT_A_NUMBER, Quality.UNCERTAIN_STATE
    state = int(text)
    known_well = Quality.GOOD if state < 256 else Quality.UNCERTAIN_STATE
    return float(state), known_well, state_quality(state)


# ------------------------------------------------------------------------------------------- CDDY


def map_points(work: Work) -> None:
    systems: set[str] = set()
    listed: set[str] = set()
    for record in work.latest_records():
        systems.add(record.get("system"))
        if not work.admits(record, work.id(record.get("code"))):
            continue
        point = _declared_point(work, record)
        listed.add(point.id)
        work.declare(point)
        work.declare(_state_point(point))
    # A record we could not read may be the definition of any point: then nothing is known missing.
    if not work.message.fault_count:
        _withdraw_missing(work, systems, listed)


def _declared_point(work: Work, record: Record) -> Point:
    get = record.get
    code, system = get("code"), get("system")
    location = get("location").strip()[:TEXT_CHARS_MAX]
    kind = sensor_type(get("sensor_type"), system)
    substation = get("substation").strip()
    if is_valid_id(substation) and len(substation) <= 64:
        device = work.provide_device("substation", substation, substation, {})
    else:
        device, substation = work.mine_id, ""
    location_class, area = place(location, work.options)
    attributes = {
        "declared_by": "CDDY",
        "mine": work.message.mine_code,
        "system": system,
        "substation": substation,
        "sensor_type": get("sensor_type"),
        "value_type": get("value_type"),
        "relation": get("relation"),
        "defined_time": get("time"),
    }
    for name in (*LIMIT_FIELDS, *COORDINATES):
        if number(work, record, name) is not None:
            attributes[name] = get(name).strip()
    low, high = number(work, record, "range_low"), number(work, record, "range_high")
    if low is not None and high is not None and low >= high:
        work.plan.counts["records_warned", "range"] += 1
        low = high = None
    is_switch = get("value_type") in ("KG", "DT")
    return Point(
        id=work.id(code),
        kind=_POINT_KINDS[get("value_type")],
        quantity=kind.quantity,
        unit="" if is_switch else normal_unit(get("unit"), kind),
        name=f"{location} {kind.name}".strip(),
        device=device,
        adapter=work.options.adapter,
        area=area,
        location=location,
        location_class=location_class,
        interval_s=work.options.sensor_interval_s,
        range_low=low,
        range_high=high,
        states=_states(record, kind) if is_switch else {},
        attributes=filled(attributes),
    )


def _states(record: Record, kind: SensorType) -> Mapping[int, str]:
    """What the mine calls on (1) and off (0). Some write the digits there: those say nothing."""
    on_text, off_text = given(record.get("on_text")), given(record.get("off_text"))
    if (on_text or off_text) and not {on_text, off_text} & {"0", "1"}:
        return {0: off_text or kind.states.get(0, "0"), 1: on_text or kind.states.get(1, "1")}
    return dict(kind.states)


def _state_point(point: Point) -> Point:
    """The raw state word beside a measured value. It has no interval of its own: one silent sensor
    is one offline alarm."""
    return replace(
        point,
        id=f"{point.id}.state",
        kind=PointKind.BITS,
        quantity="sensor_state",
        unit="",
        name=f"{point.name} 状态",
        interval_s=None,
        range_low=None,
        range_high=None,
        states={},
        attributes={"mine": point.attributes["mine"], "state_of": point.id},
    )


def _withdraw_missing(work: Work, systems: set[str], listed: set[str]) -> None:
    """Mark points a newer full list no longer has. Only of the systems this list speaks for: gas
    drainage sends a list of its own. An empty list withdraws nothing."""
    for point in work.view.points.values():
        attributes = point.attributes
        if (
            point.id not in listed
            and attributes.get("mine") == work.message.mine_code
            and attributes.get("declared_by") in ("CDDY", "CDSS")
            and attributes.get("system") in systems
            and attributes.get("withdrawn") != "1"
        ):
            work.declare(replace(point, attributes={**attributes, "withdrawn": "1"}))
            work.plan.counts["points_withdrawn", ""] += 1


# ------------------------------------------------------------------------------------------- CDSS


def map_values(work: Work) -> None:
    rows = work.plan.rows
    latest: dict[tuple[str, str], Record] = {}
    for record in work.message.records:
        latest[record.values[0], record.values[6]] = record
    repeats = len(work.message.records) - len(latest)
    if repeats:
        work.plan.counts["records_warned", "duplicate_key"] += repeats
    prefix, points, declared = work.options.prefix, work.view.points, work.plan.points
    for record in latest.values():
        code, _type_name, _location, value_text, _unit, state_text, time_text = record.values
        point_id = prefix + code
        if point_id not in points and point_id not in declared:
            if not work.admits(record, point_id):
                continue
            provisional = _provisional_point(work, record)
            if provisional is None:
                work.plan.reject(record, "code", "a point of a CDDY file", "unknown_point")
                continue
            work.declare(provisional)
            work.declare(_state_point(provisional))
        time_ns = parse_time(time_text)
        assert time_ns is not None, "the codec checked it"
        value, value_quality = read_value(value_text)
        state, state_quality_, effect = read_state(state_text)
        quality = effect if effect >= BAD or value_quality < BAD else value_quality
        rows.add(record.number, point_id, value, quality, time_ns)
        rows.add(record.number, f"{point_id}.state", state, state_quality_, time_ns)


def _provisional_point(work: Work, record: Record) -> Point | None:
    """A point whose definition has not come, from what its code itself says. None when the code
    does not take apart, or belongs to another mine."""
    code, mine = record.get("code"), work.message.mine_code
    match = _POINT_CODE.fullmatch(code[len(mine) :]) if code.startswith(mine) else None
    if match is None:
        return None
    system, value_type, type_code, _ = match.groups()
    kind = sensor_type(type_code, system)
    location = record.get("location").strip()[:TEXT_CHARS_MAX]
    location_class, area = place(location, work.options)
    is_switch = value_type in ("KG", "DT")
    work.plan.counts["points_provisional", ""] += 1
    return Point(
        id=work.id(code),
        kind=_POINT_KINDS[value_type],
        quantity=kind.quantity,
        unit="" if is_switch else normal_unit(record.get("unit"), kind),
        name=f"{location} {kind.name}".strip(),
        device=work.mine_id,
        adapter=work.options.adapter,
        area=area,
        location=location,
        location_class=location_class,
        interval_s=work.options.sensor_interval_s,
        states=dict(kind.states) if is_switch else {},
        attributes={
            "declared_by": "CDSS",
            "mine": mine,
            "system": system,
            "sensor_type": type_code,
            "value_type": value_type,
            "provisional": "1",
        },
    )


# ------------------------------------------------------------------------------------ FZSS, JZSS


def map_substations(work: Work) -> None:
    _map_run_states(work, "substation")


def map_stations_state(work: Work) -> None:
    _map_run_states(work, "station")


def _map_run_states(work: Work, device_kind: str) -> None:
    for record in work.latest_records():
        code = record.get("code")
        if not work.admits(record, work.id(code)):
            continue
        device_id = work.provide_device(device_kind, code, code, {})
        device = work.device(device_id)
        name = device.name if device else code
        time_ns = parse_time(record.get("time"))
        assert time_ns is not None, "the codec checked it"
        for field_name, quantity, states, what in (
            ("run", "run_state", RUN_STATES, "运行状态"),
            ("power", "power_state", POWER_STATES, "供电状态"),
        ):
            point = Point(
                id=f"{device_id}.{field_name}",
                kind=PointKind.DISCRETE,
                quantity=quantity,
                name=f"{name} {what}",
                device=device_id,
                adapter=work.options.adapter,
                interval_s=work.options.state_interval_s if field_name == "run" else None,
                states=states,
                attributes={"mine": work.message.mine_code},
            )
            work.declare(point)
            value, quality = read_value(record.get(field_name))
            if quality < BAD and (value not in states or value == UNKNOWN_STATE):
                quality = Quality.UNCERTAIN_STATE
            work.plan.rows.add(record.number, point.id, value, quality, time_ns)
