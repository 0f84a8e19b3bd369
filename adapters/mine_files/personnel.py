"""Personnel positioning: the lists RYQY, RYJZ, RYXX and the snapshot RYSS. Pure.

    RYSS record ─▶ {card}.area   device_index of the area someone is in, -1 out of the mine
                └▶ {card}.sos    1 while help is called for
    RYSS file   ─▶ {mine}.underground   how many are down there

Surprising: an unknown place never takes a person off the head-count. Underground without an area,
one is in the area of the nearest base station, and failing that in the mine as a whole.

Owns: people, areas, base stations. Not here: station states (safety.py).
"""

from __future__ import annotations

import math

from adapters.mine_files.codec import Record
from adapters.mine_files.plan import COORDINATES, Work, given, number, whole_number
from gateway.model.point import NO_AREA, Point, PointKind, is_valid_id
from gateway.model.quality import Quality

_STATION_AREA_CHARS = 16  # a base station code begins with the code of its area
_SOS = frozenset({"求救", "呼救", "SOS"})
_WELL = frozenset({"正常"})


# ------------------------------------------------------------------------------ RYQY, RYJZ, RYXX


def map_areas(work: Work) -> None:
    for record in work.latest_records():
        if not work.admits(record, work.id(record.get("code"))):
            continue
        attributes = {
            "mine": work.message.mine_code,
            "area_type": given(record.get("area_type")),
            "capacity": whole_number(record.get("capacity")),
        }
        code = record.get("code")
        work.declare_device("area", code, given(record.get("name")) or code, attributes)


def map_stations(work: Work) -> None:
    for record in work.latest_records():
        code = record.get("code")
        if not work.admits(record, work.id(code)):
            continue
        attributes = {
            "mine": work.message.mine_code,
            "area": code[:_STATION_AREA_CHARS] if len(code) > _STATION_AREA_CHARS else "",
            "area_type": given(record.get("area_type")),
            "location": given(record.get("location")),
        }
        for name in COORDINATES:
            if number(work, record, name) is not None:
                attributes[name] = record.get(name).strip()
        name = given(record.get("name")) or given(record.get("location")) or code
        work.declare_device("station", code, name, attributes)


def map_people(work: Work) -> None:
    """Birth and education stay behind: nobody needs them to act, and they are personal."""
    for record in work.latest_records():
        if not work.admits(record, work.id(record.get("card"))):
            continue
        attributes = {
            "mine": work.message.mine_code,
            **{key: given(record.get(key)) for key in ("job", "post", "team")},
            **{key: given(record.get(key)) for key in ("leader", "special")},
        }
        card, name = record.get("card"), given(record.get("name"))
        work.declare_device("person", card, name, attributes)
        _declare_person_points(work, card, name)


def _declare_person_points(work: Work, card: str, name: str) -> None:
    """No expected interval: who goes home stops being in the snapshots, which is no fault. The
    mine's head-count point watches the snapshots themselves."""
    card_id = work.id(card)
    for suffix, kind, quantity in (
        ("area", PointKind.AREA, "personnel_area"),
        ("sos", PointKind.DISCRETE, "personnel_sos"),
    ):
        work.declare(
            Point(
                id=f"{card_id}.{suffix}",
                kind=kind,
                quantity=quantity,
                name=name,
                device=card_id,
                adapter=work.options.adapter,
                states={0: "正常", 1: "求救"} if suffix == "sos" else {},
                attributes={"mine": work.message.mine_code},
            )
        )


# ------------------------------------------------------------------------------------------- RYSS


def map_snapshot(work: Work) -> None:
    """Who is where, as of the header's time.

    Every sample carries the snapshot's time: it says "at this moment", while the times in a record
    say since when, which the history of the samples shows by itself. An older snapshot than the
    newest taken is history: its samples go out under their own time, but it says nothing about who
    is missing now.
    """
    time_ns, rows = work.message.time_ns, work.plan.rows
    present: set[str] = set()
    mentioned: set[str] = set()
    for record in work.latest_records():
        card = record.get("card")
        mentioned.add(card)
        is_in = record.get("flag") == "1"
        if is_in:
            present.add(card)
        if not work.admits(record, work.id(card)):
            continue
        _provide_person(work, record)
        if is_in:
            area_id, quality = _area_of(work, record)
            rows.area[len(rows)] = area_id
            rows.add(record.number, f"{work.id(card)}.area", 0.0, quality, time_ns)
        else:
            rows.add(record.number, f"{work.id(card)}.area", NO_AREA, Quality.GOOD, time_ns)
        value, quality = _sos(record.get("work_state"))
        rows.add(record.number, f"{work.id(card)}.sos", value, quality, time_ns)
    _count_underground(work, len(present))
    if work.is_old:
        work.plan.counts["old_snapshot", ""] += 1
        return
    if work.plan.newest is None:  # the same moment once more: nobody new can be missing
        return
    mine = work.message.mine_code
    for card in sorted(work.view.present.get(mine, frozenset()) - mentioned):
        if work.message.fault_count and _may_be_in_a_bad_record(work, card):
            present.add(card)
            continue
        rows.add(0, f"{work.id(card)}.area", NO_AREA, Quality.GOOD, time_ns)
        work.plan.counts["inferred", "left"] += 1
    work.plan.present = (mine, frozenset(present))


def _may_be_in_a_bad_record(work: Work, card: str) -> bool:
    """A person whose record could not be read has not left the mine for that."""
    if work.message.fault_count > len(work.message.faults):
        return True  # faults beyond those kept: anybody's record may be among them
    return any(card in fault.raw for fault in work.message.faults)


def _provide_person(work: Work, record: Record) -> None:
    card, name = record.get("card"), given(record.get("name"))
    attributes = {key: given(record.get(key)) for key in ("leader", "special")}
    device_id = work.provide_device("person", card, name, attributes)
    if work.point(f"{device_id}.area") is None or work.point(f"{device_id}.sos") is None:
        _declare_person_points(work, card, name)


def _area_of(work: Work, record: Record) -> tuple[str, Quality]:
    """The area someone underground is in. Without one the station's own, and failing that the mine
    as a whole: an unknown place must not take a person off the head-count."""
    code = record.get("area").strip()
    station = record.get("station").strip()
    if not code and len(station) > _STATION_AREA_CHARS:
        code = station[:_STATION_AREA_CHARS]
    if not is_valid_id(work.id(code)) or not code:
        work.plan.counts["records_warned", "no_area"] += 1
        return work.mine_id, Quality.UNCERTAIN_POSITION
    if work.device(work.id(code)) is None and not work.has_room:
        work.plan.counts["records_warned", "points_full"] += 1
        return work.mine_id, Quality.UNCERTAIN_POSITION
    return work.provide_device("area", code, code, {}), Quality.GOOD


def _sos(text: str) -> tuple[float, Quality]:
    """1 for a call for help. A word we do not know is neither a call nor its absence."""
    text = text.strip()
    if text in _SOS:
        return 1.0, Quality.GOOD
    if text in _WELL:
        return 0.0, Quality.GOOD
    return math.nan, Quality.BAD_NOT_A_NUMBER if text else Quality.BAD_NO_VALUE


def _count_underground(work: Work, count: int) -> None:
    """The head-count of the snapshot: also the one point whose silence says that snapshots stopped,
    and the only thing an empty snapshot has to say."""
    point = Point(
        id=f"{work.mine_id}.underground",
        kind=PointKind.ANALOG,
        quantity="personnel_count",
        unit="人",
        name="井下人数",
        device=work.mine_id,
        adapter=work.options.adapter,
        interval_s=work.options.snapshot_interval_s,
        attributes={"mine": work.message.mine_code},
    )
    work.declare(point)
    # With unreadable records among them the count is only a lower bound.
    quality = Quality.UNCERTAIN_DERIVED if work.message.fault_count else Quality.GOOD
    work.plan.rows.add(0, point.id, float(count), quality, work.message.time_ns)
