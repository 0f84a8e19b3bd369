"""Alarm figures of a time: how many a person was asked to look at, how fast, and what was hidden.

    AlarmColumns ──kpi(from_ns, to_ns)──▶ AlarmKpi ──to_json──▶ report, back-test

Pure numpy over columns of events (`columns.py` makes them, from a journal or from a list). The
figures and their targets are those of the public digests of ISA-18.2-2016 16.4, EEMUA 191 and
IEC 62682 (designed after them; the texts themselves were not read). Report of at least 30 days, for
one operator's position, is what they are meant for.

**What counts.** Annunciations: what was sounded to a person. Not operators' acts, not what was
found late, not what was raised by a sensor under calibration (`planned`, counted apart). Times are
event times, so that a replay gives the same figures; but a person hears an alarm when the gateway
found out (`recorded_ns`), and from there the time to acknowledge runs.

Events before `from_ns` say only how things stood at the beginning: what was standing, shelved,
waiting. What began before them is not known of.

Unauthorised hiding, of which the journal can tell (a refused command is not in it):
    nobody            shelved, taken out of service or disabled with nobody's name on it
    no_reason         without a reason
    critical          shelved although of the highest priority
    too_long          shelved for longer than its priority allows
    no_permit         out of service without the number of a permit
    no_second_person  critical suppressed or disabled by one person alone

Surprising: `rubber_stamps` are acknowledgements in a bulk of more than five, each within two
seconds of its annunciation: nobody has looked.

Not here: alarm link availability (the consoles count heartbeats), grades by console, HTML.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model.alarm import AlarmState, Transition
from gateway.model.rule import Priority

SECOND_NS = 1_000_000_000
WINDOW_NS = 600 * SECOND_NS
FLOOD_START, FLOOD_END = 10, 5  # annunciations in the last ten minutes: at least; fewer than
PEAK_WINDOW = 10  # a window with more is a peak
CHATTER_COUNT, CHATTER_NS = 3, 60 * SECOND_NS
PSI_MAX = 0.05  # 1/s; Kondaveeti et al.
FLEETING_NS, FLEETING_ALONE_NS = 10 * SECOND_NS, 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
STALE_NS = DAY_NS
PAST_LIMIT_NS = 60 * SECOND_NS  # a shelf ends by the gateway's tick, not on the nanosecond
FAST_ACK_NS, BULK_GAP_NS, BULK_MIN = 2 * SECOND_NS, SECOND_NS, 6
LIST_MAX = 100
"""Names in any list of the report; the counts are of all."""

TRANSITIONS = tuple(Transition)
STATES = tuple(AlarmState)
BREACHES = ("", "nobody", "no_reason", "critical", "too_long", "no_permit", "no_second_person")
MIX = {Priority.LOW: 0.80, Priority.MEDIUM: 0.15, Priority.HIGH: 0.05}  # high with critical

_STANDING = (
    AlarmState.UNACKNOWLEDGED,
    AlarmState.ACKNOWLEDGED,
    AlarmState.RETURNED_UNACKNOWLEDGED,
    AlarmState.LATCHED_UNACKNOWLEDGED,
    AlarmState.LATCHED_ACKNOWLEDGED,
)
_SEEN = (
    AlarmState.ACKNOWLEDGED,
    AlarmState.LATCHED_ACKNOWLEDGED,
    AlarmState.NORMAL,
    AlarmState.DISABLED,
)

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AlarmColumns:
    """Events as columns, in the order they were journalled."""

    time_ns: _Ints
    recorded_ns: _Ints
    key: NDArray[np.int32]  # into keys
    transition: NDArray[np.uint8]  # into TRANSITIONS
    state: NDArray[np.uint8]  # after it, into STATES
    priority: NDArray[np.uint8]
    annunciate: _Bools
    planned: _Bools
    late: _Bools  # or found while disabled: history either way
    until_ns: _Ints  # of the shelf; 0: not shelved
    actor: NDArray[np.int32]  # into actors
    breach: NDArray[np.uint8]  # into BREACHES
    keys: Sequence[str]
    actors: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in COLUMNS}
        assert len(lengths) == 1, f"columns of different lengths: {sorted(lengths)}"

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: _Bools | NDArray[np.intp]) -> AlarmColumns:
        taken = {name: getattr(self, name)[rows] for name in COLUMNS}
        return AlarmColumns(**taken, keys=self.keys, actors=self.actors)


COLUMNS = tuple(f.name for f in fields(AlarmColumns) if f.name not in ("keys", "actors"))


class Flood(NamedTuple):
    """From ten in ten minutes until fewer than five."""

    start_ns: int
    end_ns: int
    annunciations: int


class KeyCount(NamedTuple):
    """One of those that call most."""

    alarm_key: str
    annunciations: int


class Waiting(NamedTuple):
    """Seconds from the annunciation to the acknowledgement."""

    acks: int
    median_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class AlarmKpi:
    """The figures of [from_ns, to_ns). Shares are 0 to 1; None where there is nothing to judge."""

    from_ns: int
    to_ns: int
    annunciations: int
    planned: int
    late: int
    windows: int  # aligned ten minutes that the time touches
    average_per_10min: float
    peak_share: float
    max_per_10min: int
    flood_count: int
    flood_share: float
    floods: tuple[Flood, ...]
    top10_share: float | None
    top10: tuple[KeyCount, ...]
    chattering_count: int
    chattering: tuple[str, ...]  # three within a minute
    psi: float | None  # of all gaps together
    psi_over_count: int
    psi_over: tuple[str, ...]  # keys whose own index is above PSI_MAX
    fleeting: int
    stale_max: int  # on the worst day
    stale_now: tuple[str, ...]  # at the end
    by_priority: Mapping[str, int]
    mix_deviation: float | None  # greatest distance from 80 / 15 / 5
    highest_share: float | None
    unauthorised: Mapping[str, int]
    attribute_changes: int  # the rule was edited under an alarm
    shelvings: int
    shelved_mean_age_s: float | None
    reshelved_share: float | None
    shelved_past_limit: int
    time_to_ack: Mapping[str, Waiting]  # by priority
    acks: int
    rubber_stamp_share: float | None
    detection_p50_ms: float | None
    detection_p99_ms: float | None
    detection_max_ms: float | None

    def grades(self) -> list[dict[str, Any]]:
        """Each graded figure with its target and action level: good, watch or act."""
        return [_grade(self, *row) for row in _TARGETS]

    def to_json(self) -> dict[str, Any]:
        body = asdict(self)
        body["floods"] = [flood._asdict() for flood in self.floods]
        body["top10"] = [item._asdict() for item in self.top10]
        body["time_to_ack"] = {name: w._asdict() for name, w in self.time_to_ack.items()}
        body["grades"] = self.grades()
        return body


_TARGETS: tuple[tuple[str, float, float], ...] = (
    # figure, good up to, act above
    ("average_per_10min", 1, 2),
    ("peak_share", 0.01, 0.05),
    ("max_per_10min", 10, 10),
    ("flood_share", 0.01, 0.05),
    ("top10_share", 0.05, 0.15),
    ("chattering_count", 0, 0),
    ("psi", PSI_MAX, PSI_MAX),
    ("fleeting", 0, 0),
    ("stale_max", 4, 4),
    ("mix_deviation", 0.15, 0.15),
    ("highest_share", 0.01, 0.01),
    ("unauthorised", 0, 0),
    ("shelved_past_limit", 0, 0),
    ("rubber_stamp_share", 0, 0),
    ("detection_p99_ms", 250, 1000),
)


def _grade(kpi: AlarmKpi, name: str, target: float, action: float) -> dict[str, Any]:
    value = getattr(kpi, name)
    if isinstance(value, Mapping):
        value = sum(value.values())
    if value is None:
        verdict = "nothing to judge"
    else:
        verdict = "good" if value <= target else "act" if value > action else "watch"
    return {"name": name, "value": value, "target": target, "action": action, "verdict": verdict}


def kpi(events: AlarmColumns, *, from_ns: int, to_ns: int) -> AlarmKpi:
    """The figures of [from_ns, to_ns); events outside only say how things stood before."""
    assert from_ns < to_ns, "a time of nothing has no figures"
    known = events.time_ns < to_ns
    late = int(np.count_nonzero(known & events.late & (events.time_ns >= from_ns)))
    lived = events.take(_by_key(events, np.flatnonzero(known & ~events.late)))
    inside = lived.time_ns >= from_ns
    heard = lived.take(inside & lived.annunciate & ~lived.planned)
    windows, per_window = _windows(heard.time_ns, from_ns, to_ns)
    floods = _floods(heard.time_ns, to_ns)
    top10 = _top(heard)
    chatter = _chatter(heard)
    stale_max, stale_now = _stale(lived, from_ns, to_ns)
    shelved = _shelved(lived, from_ns, to_ns)
    waits, acks, stamped = _acknowledged(lived, from_ns)
    detection = (heard.recorded_ns - heard.time_ns)[_is(heard, "ACT", "ESC")] / 1e6
    by_priority = {p.name.lower(): int(np.count_nonzero(heard.priority == p)) for p in Priority}
    return AlarmKpi(
        from_ns=from_ns,
        to_ns=to_ns,
        annunciations=len(heard),
        planned=int(np.count_nonzero(inside & lived.planned & _is(lived, "ACT", "ESC"))),
        late=late,
        windows=windows,
        average_per_10min=len(heard) / windows,
        peak_share=int(np.count_nonzero(per_window > PEAK_WINDOW)) / windows,
        max_per_10min=int(per_window.max()),
        flood_count=len(floods),
        flood_share=sum(flood.end_ns - flood.start_ns for flood in floods) / (to_ns - from_ns),
        floods=tuple(floods[:LIST_MAX]),
        top10_share=_share(sum(item.annunciations for item in top10), len(heard)),
        top10=top10,
        **chatter,
        fleeting=_fleeting(lived, from_ns),
        stale_max=stale_max,
        stale_now=stale_now,
        by_priority=by_priority,
        mix_deviation=_mix_deviation(by_priority, len(heard)),
        highest_share=_share(by_priority["critical"], len(heard)),
        unauthorised={
            name: int(np.count_nonzero(inside & (lived.breach == code)))
            for code, name in enumerate(BREACHES)
            if code
        },
        attribute_changes=int(np.count_nonzero(inside & _is(lived, "EDT"))),
        **shelved,
        time_to_ack=waits,
        acks=acks,
        rubber_stamp_share=_share(stamped, acks),
        detection_p50_ms=_rank(detection, 0.50),
        detection_p99_ms=_rank(detection, 0.99),
        detection_max_ms=_rank(detection, 1.0),
    )


# --- how many


def _windows(time_ns: _Ints, from_ns: int, to_ns: int) -> tuple[int, _Ints]:
    first = from_ns // WINDOW_NS
    windows = (to_ns - 1) // WINDOW_NS - first + 1
    return windows, np.bincount(time_ns // WINDOW_NS - first, minlength=windows)


def _floods(time_ns: _Ints, to_ns: int) -> list[Flood]:
    """An annunciation at t counts in [t, t + 10 min): the count steps up there and down again."""
    ordered = np.sort(time_ns)
    times = np.concatenate([ordered, ordered + WINDOW_NS])
    order = np.argsort(times, kind="stable")
    times = times[order]
    count = np.cumsum(np.where(order < len(ordered), 1, -1))
    settled = np.append(times[1:] != times[:-1], True) if len(times) else np.empty(0, np.bool_)
    times, count = times[settled], count[settled]
    decides = (count >= FLOOD_START) | (count < FLOOD_END)
    last = np.maximum.accumulate(np.where(decides, np.arange(len(count)), -1))
    on = (last >= 0) & (count[last] >= FLOOD_START)
    edges = np.diff(np.concatenate([[False], on]).astype(np.int8))
    starts, ends = times[edges == 1], np.minimum(times[edges == -1], to_ns)
    inside = np.searchsorted(ordered, ends) - np.searchsorted(ordered, starts)
    # The first annunciations of a flood came before it was one: those of its first ten minutes.
    before = np.searchsorted(ordered, starts) - np.searchsorted(
        ordered, starts - WINDOW_NS, side="right"
    )
    return [
        Flood(*row)
        for row in zip(starts.tolist(), ends.tolist(), (inside + before).tolist(), strict=True)
    ]


def _top(heard: AlarmColumns) -> tuple[KeyCount, ...]:
    counts = np.bincount(heard.key, minlength=1)
    calling = np.flatnonzero(counts).tolist()
    most = heapq.nsmallest(10, calling, key=lambda key: (-counts[key], heard.keys[key]))
    return tuple(KeyCount(heard.keys[key], int(counts[key])) for key in most)


def _chatter(heard: AlarmColumns) -> dict[str, Any]:
    order = np.lexsort((heard.time_ns, heard.key))
    key, time_ns = heard.key[order], heard.time_ns[order]
    reach = CHATTER_COUNT - 1
    often = (key[reach:] == key[:-reach]) & (time_ns[reach:] - time_ns[:-reach] < CHATTER_NS)
    chattering = np.unique(key[reach:][often])
    same = key[1:] == key[:-1]
    # Gaps are counted in whole samples of a second where the index comes from: none is shorter.
    inverse = 1.0 / np.maximum(np.diff(time_ns)[same] / SECOND_NS, 1.0)
    gaps = np.bincount(key[1:][same], minlength=len(heard.keys))
    with np.errstate(invalid="ignore"):
        psi = np.bincount(key[1:][same], weights=inverse, minlength=len(heard.keys)) / gaps
    over = np.flatnonzero(psi > PSI_MAX)
    return {
        "chattering_count": len(chattering),
        "chattering": _names(heard.keys, chattering),
        "psi": float(inverse.mean()) if len(inverse) else None,
        "psi_over_count": len(over),
        "psi_over": _names(heard.keys, over),
    }


def _mix_deviation(by_priority: Mapping[str, int], total: int) -> float | None:
    if not total:
        return None
    counts = {p: by_priority[p.name.lower()] for p in Priority}
    counts[Priority.HIGH] += counts[Priority.CRITICAL]
    return max(abs(counts[p] / total - share) for p, share in MIX.items())


# --- how they ended


def _fleeting(lived: AlarmColumns, from_ns: int) -> int:
    """Annunciated, back within ten seconds, and the only one of its key within a minute."""
    heard = np.flatnonzero(lived.annunciate & ~lived.planned)
    order = heard[np.lexsort((lived.time_ns[heard], lived.key[heard]))]
    key, time_ns = lived.key[order], lived.time_ns[order]
    near = (key[1:] == key[:-1]) & (np.diff(time_ns) <= FLEETING_ALONE_NS)
    alone = ~(np.append(near, False) | np.insert(near, 0, False)) if len(order) else near
    begins = order[alone & (time_ns >= from_ns)]
    begins = begins[_is(lived.take(begins), "ACT")]
    back = _next(_is(lived, "RTN"), len(lived))[begins]
    begins, back = begins[back < len(lived)], back[back < len(lived)]
    same = lived.key[begins] == lived.key[back]
    return int(
        np.count_nonzero(same & (lived.time_ns[back] - lived.time_ns[begins] <= FLEETING_NS))
    )


def _stale(lived: AlarmColumns, from_ns: int, to_ns: int) -> tuple[int, tuple[str, ...]]:
    standing = np.isin(lived.state, [STATES.index(state) for state in _STANDING])
    rows, start, end = _runs(lived, standing, to_ns)
    stale_from, stale_to = np.maximum(start + STALE_NS, from_ns), end
    stale = stale_from < stale_to
    days = -(-(to_ns - from_ns) // DAY_NS)
    change = np.zeros(days + 1, np.int64)
    np.add.at(change, (stale_from[stale] - from_ns) // DAY_NS, 1)
    np.add.at(change, (stale_to[stale] - 1 - from_ns) // DAY_NS + 1, -1)
    now = lived.key[rows[stale & (end == to_ns)]]
    return int(np.cumsum(change)[:days].max()), _names(lived.keys, np.unique(now))


def _shelved(lived: AlarmColumns, from_ns: int, to_ns: int) -> dict[str, Any]:
    asked = (lived.time_ns >= from_ns) & _is(lived, "SHV", "SH1")
    count, keys = int(np.count_nonzero(asked)), len(np.unique(lived.key[asked]))
    _, start, end = _runs(lived, lived.until_ns > 0, to_ns)
    ours = end > from_ns
    last = _last_of_run(lived, lived.until_ns > 0)
    until = lived.until_ns[last]
    ages = (end - start)[ours] / SECOND_NS
    return {
        "shelvings": count,
        "shelved_mean_age_s": float(ages.mean()) if len(ages) else None,
        "reshelved_share": _share(count - keys, count),
        "shelved_past_limit": int(np.count_nonzero((end - until > PAST_LIMIT_NS)[ours])),
    }


def _acknowledged(lived: AlarmColumns, from_ns: int) -> tuple[dict[str, Waiting], int, int]:
    """How long each waited, from the first annunciation nobody had seen; acks; rubber stamps."""
    acks = np.flatnonzero((lived.time_ns >= from_ns) & _is(lived, "ACK"))
    seen = np.isin(lived.state, [STATES.index(state) for state in _SEEN])
    if not len(acks):
        return {}, 0, 0
    # A part ends with the row by which the alarm was seen; the next begins after it.
    begins = _key_begins(lived) | np.insert(seen[:-1], 0, True)
    part = np.cumsum(begins) - 1
    calls = np.where(lived.annunciate & ~lived.planned, np.arange(len(lived)), len(lived))
    first_call = np.minimum.reduceat(calls, np.flatnonzero(begins))[part[acks]]
    has_call = first_call < acks
    acked = acks[has_call]
    wait_ns = lived.time_ns[acked] - lived.recorded_ns[first_call[has_call]]
    waits = {}
    for priority in Priority:
        seconds = np.sort(wait_ns[lived.priority[acked] == priority]) / SECOND_NS
        if len(seconds):
            p95 = _rank(seconds, 0.95)
            assert p95 is not None
            waits[priority.name.lower()] = Waiting(len(seconds), float(np.median(seconds)), p95)
    is_fast = np.zeros(len(lived), np.bool_)
    is_fast[acked[wait_ns < FAST_ACK_NS]] = True
    stamped = int(np.count_nonzero(is_fast[acks] & _in_bulk(lived.take(acks))))
    return waits, len(acks), stamped


def _in_bulk(acks: AlarmColumns) -> _Bools:
    """Whether each is one of more than five by one person, each within a second of the next."""
    order = np.lexsort((acks.time_ns, acks.actor))
    actor, time_ns = acks.actor[order], acks.time_ns[order]
    breaks = (actor[1:] != actor[:-1]) | (np.diff(time_ns) > BULK_GAP_NS)
    bulk = np.cumsum(np.insert(breaks, 0, False))
    found = np.empty(len(acks), np.bool_)
    found[order] = np.bincount(bulk)[bulk] >= BULK_MIN
    return found


# --- leaves, over rows sorted by key and in order of life within one


def _is(rows: AlarmColumns, *transitions: str) -> _Bools:
    codes = [TRANSITIONS.index(Transition(name)) for name in transitions]
    return np.isin(rows.transition, codes)


def _by_key(events: AlarmColumns, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    key = events.key[rows]
    if len(events.keys) <= np.iinfo(np.uint16).max:
        key = key.astype(np.uint16)  # numpy sorts 16 bits by counting: five times as fast
    return rows[np.argsort(key, kind="stable")]


def _key_begins(lived: AlarmColumns) -> _Bools:
    return np.insert(lived.key[1:] != lived.key[:-1], 0, True) if len(lived) else _NONE


_NONE = np.empty(0, np.bool_)


def _runs(lived: AlarmColumns, flag: _Bools, to_ns: int) -> tuple[NDArray[np.intp], _Ints, _Ints]:
    """Stretches of one key with `flag`: first row, when it began, when it ended or `to_ns`."""
    begins = _key_begins(lived)
    starts = np.flatnonzero(flag & (begins | ~np.insert(flag[:-1], 0, False)[: len(flag)]))
    end = _last_of_run(lived, flag) + 1
    time_ns = np.append(lived.time_ns, to_ns)
    key = np.append(lived.key, -1)
    goes_on = key[end] != lived.key[starts]
    return starts, lived.time_ns[starts], np.where(goes_on, to_ns, time_ns[end])


def _last_of_run(lived: AlarmColumns, flag: _Bools) -> NDArray[np.intp]:
    ends = np.append(_key_begins(lived)[1:], True)[: len(flag)]
    return np.flatnonzero(flag & (ends | ~np.append(flag[1:], False)[: len(flag)]))


def _next(flag: _Bools, none: int) -> _Ints:
    """For each row, the first at or after it with `flag`, whatever its key."""
    at = np.where(flag, np.arange(len(flag)), none)
    return np.minimum.accumulate(at[::-1])[::-1]


def _names(keys: Sequence[str], codes: NDArray[Any]) -> tuple[str, ...]:
    return tuple(heapq.nsmallest(LIST_MAX, (keys[code] for code in codes.tolist())))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rank(values: NDArray[np.float64], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed."""
    if not len(values):
        return None
    return float(np.partition(values, at := math.ceil(share * len(values)) - 1)[at])
