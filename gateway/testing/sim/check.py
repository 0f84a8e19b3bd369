"""The laws, checked against what can be seen from outside when all is over.

    stored      what a device was told is safe is in the database, once, with its value; nothing is
                there that nobody sent; the samples of one point arrived in their order
    told        the subscriber has every event of the journal, gseq by gseq, with equal content; no
                identity (alarm_key, occ_no, seq) with two contents; the retained rows are the live
                table. So nothing was told that the journal does not have, and nothing was kept back
    on record   what a subscriber or a siren has heard is in the journal that a power cut or a kill
                leaves. Later it would not show: the next life judges again and says the same
    judged      `now`: exactly the crossings of the history, to the nanosecond
                `held`: whatever held long enough; nothing else, as far as anybody could know
                `silent`: only where nothing was heard; silence cleared nothing
    settled     within the bound

**As far as anybody could know.** A value holds until the next sample. A device that was cut off may
have measured that a crossing ended; the gateway learns of it later, and has called by then. So an
alarm that never truly held is a violation only if the sample that ended it was acknowledged before
the gateway found the alarm (`recorded_time_ns`): what is acknowledged must be judged first. The
delay after such an event counts from the event.

With a clock that was set, only what must hold in spite of it is asked: see `_clock_laws`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from gateway.model.alarm import AlarmEvent, Transition
from gateway.model.quality import Quality
from gateway.sinks.mqtt import wire
from gateway.sinks.mqtt.topics import Topics
from gateway.testing.sim.clock import START_NS
from gateway.testing.sim.plan import LIMIT, NS, OFF_DELAY_S, ON_DELAY_S, SILENT_S
from gateway.testing.sim.world import Evidence, identity_of

_ON_NS, _OFF_NS = round(ON_DELAY_S * NS), round(OFF_DELAY_S * NS)
_SILENT_NS = round(SILENT_S * NS)
_SHOWN_MAX = 5
_AWAY = frozenset({"kill", "restart", "power_cut", "pause"})  # then it is not there for a while
_FOUND_WITHIN_S = 12.0  # of a lasting crossing while the clock is being set: delay, tick, a pause


@dataclass(frozen=True)
class Known:
    """One sample of a point, and when its device heard that it is safe."""

    time_ns: int
    is_beyond: bool
    value: float
    acknowledged_ns: int | None


def violations(evidence: Evidence) -> list[str]:
    """What broke which law; empty if none did."""
    history = _history(evidence)
    found = list(evidence.notes)
    found += _first(_stored(evidence, history))
    found += _first(_told(evidence))
    found += _first(_on_record(evidence))
    found += _first(_retained(evidence))
    if "clock" in evidence.plan.has:
        found += _first(_clock_laws(evidence, history))
    else:
        found += _first(_judged_now(evidence, history))
        found += _first(_judged_held(evidence, history))
        found += _first(_judged_silent(evidence, history))
    if evidence.settled_s is None:
        found.append("settled: not everything was delivered within the bound")
    return found


def _first(found: Iterator[str]) -> list[str]:
    """Some of them: one bug breaks a law a hundred times."""
    some: list[str] = []
    for text in found:
        if len(some) == _SHOWN_MAX:
            return [*some, "… and more"]
        some.append(text)
    return some


def _history(evidence: Evidence) -> dict[str, list[Known]]:
    found: dict[str, list[Known]] = defaultdict(list)
    for device in evidence.devices:
        for message in device.messages:
            at_s = message.acknowledged_s
            known_ns = None if at_s is None else START_NS + round(at_s * NS)
            for point, time_ns, value in message.samples:
                found[point].append(Known(time_ns, value >= LIMIT, value, known_ns))
    return found


# ---------------------------------------------------------------------- stored


def _stored(evidence: Evidence, history: dict[str, list[Known]]) -> Iterator[str]:
    rows = dict(evidence.database.rows)
    odd = {str(int(Quality.UNCERTAIN_CLOCK))} if "clock" in evidence.plan.has else set()
    for point, samples in history.items():
        for sample in samples:
            row = rows.pop((point, sample.time_ns, 0), None)
            where = f"stored: {point} at {_s(sample.time_ns)}"
            if row is None:
                if sample.acknowledged_ns is not None:
                    yield f"{where} was acknowledged and is not there"
            elif row.value != repr(sample.value) or str(row.quality) not in {"0", *odd}:
                yield f"{where} is {row}, was {sample.value!r}"
    for point, time_ns, dup in rows:
        yield f"stored: {point} at {_s(time_ns)} dup {dup} is more than was sent"
    for text in evidence.database.overwritten:
        yield f"stored: {text}"
    for point, times in evidence.database.arrived.items():
        yield from _ordered(point, times)


def _ordered(point: str, times: Sequence[int]) -> Iterator[str]:
    """In order in each of two lanes: after an outage live rows come between the backlog's."""
    live_ns = backlog_ns = 0
    for time_ns in times:
        if time_ns >= live_ns:
            live_ns = time_ns
        elif time_ns >= backlog_ns:
            backlog_ns = time_ns
        else:
            yield f"stored: {point}: {_s(time_ns)} arrived after {_s(backlog_ns)}"


# ---------------------------------------------------------------------- told


def _told(evidence: Evidence) -> Iterator[str]:
    written = {e.alarm.gseq: wire.event(e, wire.alarm_row(e.alarm)) for e in evidence.events}
    if sorted(written) != list(range(1, len(written) + 1)):
        yield f"told: the journal's own numbers have a gap: {sorted(written)[:5]} …"
    heard: dict[int, bytes] = {}
    identities: dict[tuple[str, int, int], bytes] = {}
    for each in evidence.broker.heard:
        said = orjson.loads(each.payload)
        gseq, identity = said["gseq"], (said["alarm_key"], said["occ_no"], said["seq"])
        if heard.setdefault(gseq, each.payload) != each.payload:
            yield f"told: gseq {gseq} was told with two contents"
        if identities.setdefault(identity, each.payload) != each.payload:
            yield f"told: {identity} was told with two contents"
        if gseq not in written:
            yield f"told: {gseq} ({said['event']} {said['alarm_key']}) is not in the journal"
        elif written[gseq] != each.payload:
            yield f"told: {gseq} is not what the journal has"
    for gseq in sorted(written.keys() - heard.keys()):
        yield f"told: {gseq} of the journal was never told"


def _on_record(evidence: Evidence) -> Iterator[str]:
    heard = [(at_s, identity, "the siren") for at_s, identity in evidence.siren]
    for each in evidence.broker.heard:
        said = orjson.loads(each.payload)
        identity = said["gseq"], said["alarm_key"], said["occ_no"], said["seq"]
        heard.append((each.at_s, identity, "the subscriber"))
    last = (float("inf"), {identity_of(event) for event in evidence.events})
    for death_s, left in (*evidence.deaths, last):
        for at_s, identity, who in heard:
            if at_s <= death_s and identity not in left:
                when = "at the end" if death_s == last[0] else f"after {death_s:.6f}"
                yield f"on record: {identity}, heard by {who} at {at_s:.6f}, is gone {when}"


def _retained(evidence: Evidence) -> Iterator[str]:
    topics = Topics.of("hazard", "t", "s")
    for row in evidence.rows:
        kept = evidence.broker.retained.get(topics.state(row.alarm_key))
        if kept is None:
            yield f"told: no retained row of {row.alarm_key}"
            continue
        said = orjson.loads(kept)
        if (said["gseq"], said["seq"], said["state"]) != (row.gseq, row.seq, row.state.value):
            yield f"told: the retained row of {row.alarm_key} is {said['gseq']}, not {row.gseq}"


# ---------------------------------------------------------------------- judged


def _changes(evidence: Evidence, rule: str) -> dict[str, list[AlarmEvent]]:
    """The activations and returns of one rule, by point, in the order of the journal."""
    found: dict[str, list[AlarmEvent]] = defaultdict(list)
    for event in evidence.events:
        moves = event.transition in {Transition.ACTIVATED, Transition.RETURNED}
        if event.alarm.rule_id == rule and (moves or event.late):
            found[event.alarm.target].append(event)
    return found


def _crossings(samples: Sequence[Known]) -> list[tuple[int, int]]:
    """(first sample beyond, first sample back) of each crossing; every history ends back."""
    found, begun = [], None
    for sample in samples:
        if sample.is_beyond and begun is None:
            begun = sample.time_ns
        elif not sample.is_beyond and begun is not None:
            found.append((begun, sample.time_ns))
            begun = None
    return found


def _judged_now(evidence: Evidence, history: dict[str, list[Known]]) -> Iterator[str]:
    changes = _changes(evidence, "now")
    for point, samples in history.items():
        events = changes.get(point, [])
        found = [(event.transition.value, event.time_ns) for event in events]
        wanted: list[tuple[str, int]] = []
        for begun, ended in _crossings(samples):
            wanted += [("ACT", begun), ("RTN", ended)]
        if found != wanted:
            where = next(
                (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
                min(len(found), len(wanted)),
            )
            has, should = found[where : where + 1], wanted[where : where + 1]
            yield f"judged: {point}:now: {_pairs(has)}, should be {_pairs(should)}"
        yield from _called(point, events)


def _called(point: str, events: Sequence[AlarmEvent]) -> Iterator[str]:
    """Whoever is beyond for the first time in an occurrence is called, unless that is hidden."""
    occurrence = 0
    for event in events:
        if event.transition is not Transition.ACTIVATED:
            continue
        is_new = event.alarm.occ_no != occurrence
        occurrence = event.alarm.occ_no
        if is_new and not event.annunciate and not event.alarm.suppressed_by:
            yield f"judged: {point}:{event.alarm.rule_id} at {_s(event.time_ns)} called nobody"


def _judged_held(evidence: Evidence, history: dict[str, list[Known]]) -> Iterator[str]:
    changes = _changes(evidence, "held")
    for point, samples in history.items():
        events = changes.get(point, [])
        at = {sample.time_ns: sample for sample in samples}
        before_ns = 0
        for event in events:
            is_on = event.transition is Transition.ACTIVATED
            begun_ns = event.time_ns - (_ON_NS if is_on else _OFF_NS)
            begin, follows = at.get(begun_ns), begun_ns == before_ns
            before_ns = event.time_ns
            what = f"judged: {point}:held {event.transition.value} at {_s(event.time_ns)}"
            if not follows and (begin is None or begin.is_beyond is not is_on):
                yield f"{what} without a sample that began it"
                continue
            for sample in samples:
                between = begun_ns < sample.time_ns < event.time_ns
                if between and sample.is_beyond is not is_on and _was_known(sample, event):
                    yield f"{what}, though {_s(sample.time_ns)} was acknowledged before"
        for begun, ended in _crossings(samples):
            held_ns = max([begun, *_returns(events, begun, begun + _ON_NS)])
            if ended - held_ns > _ON_NS and not _is_active(events, held_ns + _ON_NS):
                yield f"judged: {point}:held since {_s(begun)} was not called"
        yield from _stands_too_long(point, samples, events)
        if events and events[-1].transition is Transition.ACTIVATED:
            yield f"judged: {point}:held is active at the end"
        yield from _called(point, events)


def _stands_too_long(
    point: str, samples: Sequence[Known], events: Sequence[AlarmEvent]
) -> Iterator[str]:
    """Whoever was back for as long as the off-delay before the next crossing was over by then."""
    for (_, ended), (begun, _) in pairwise(_crossings(samples)):
        words = [event.time_ns for event in events if event.time_ns < begun]
        if max([ended, *words]) + _OFF_NS < begun and _is_active(events, begun - 1):
            yield f"judged: {point}:held stands at {_s(begun)}, though back since {_s(ended)}"


def _judged_silent(evidence: Evidence, history: dict[str, list[Known]]) -> Iterator[str]:
    for point, events in _changes(evidence, "silent").items():
        for event in events:
            if event.transition is not Transition.ACTIVATED:
                continue
            for sample in history[point]:
                between = event.time_ns - _SILENT_NS < sample.time_ns < event.time_ns
                if between and _was_known(sample, event):
                    at = _s(event.time_ns)
                    yield f"judged: {point}:silent at {at}: {_s(sample.time_ns)} was acknowledged"


def _was_known(sample: Known, event: AlarmEvent) -> bool:
    """The gateway had the sample on its disk before it found the event."""
    known = sample.acknowledged_ns
    return known is not None and known < event.recorded_time_ns


def _returns(events: Sequence[AlarmEvent], from_ns: int, to_ns: int) -> list[int]:
    """Returns in the middle of a crossing, of whose samples nobody knew yet."""
    return [
        event.time_ns
        for event in events
        if event.transition is Transition.RETURNED and from_ns < event.time_ns < to_ns
    ]


def _is_active(events: Sequence[AlarmEvent], at_ns: int) -> bool:
    newest = [event for event in events if event.time_ns <= at_ns]
    return bool(newest) and newest[-1].transition is Transition.ACTIVATED


# ---------------------------------------------------------------------- clocks


def _clock_laws(evidence: Evidence, history: dict[str, list[Known]]) -> Iterator[str]:
    """The gateway's clock was set. A gateway whose clock is ahead of its devices' cannot tell that
    from devices whose clocks are slow: points then count as silent, which is the safe side. What
    must hold: a lasting crossing is called while it lasts (heard by the true time, at the
    subscriber), one that is over is over, and nothing stands at the end."""
    steps = [fault.at_s for fault in evidence.plan.faults if fault.kind == "clock"]
    # With a clock that is wrong a backlog is judged by its receipt: what began and ended while the
    # gateway was away leaves no trace in it.
    away = [(f.at_s, f.at_s + f.for_s) for f in evidence.plan.faults if f.kind in _AWAY]
    told: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for each in evidence.broker.heard:
        said: dict[str, Any] = orjson.loads(each.payload)
        told[said["alarm_key"]].append((each.at_s, said["alarm"]["active"]))
    for point, samples in history.items():
        for begun_ns, ended_ns in _crossings(samples):
            begun_s, ended_s = (begun_ns - START_NS) / NS, (ended_ns - START_NS) / NS
            there_s = ended_s - begun_s - _overlap_s(away, begun_s, ended_s)
            lasting = there_s > _FOUND_WITHIN_S
            if lasting and not any(begun_s - 30 < step_s < ended_s for step_s in steps):
                for rule in ("now", "held"):
                    until_s = ended_s + _FOUND_WITHIN_S
                    if not _was_called(told.get(f"{point}:{rule}", []), begun_s, until_s):
                        yield f"judged: {point}:{rule} since {begun_s:.3f} was not called"
    for rule in ("now", "held"):
        for point, events in _changes(evidence, rule).items():
            moves = [event for event in events if not event.late]
            if moves and moves[-1].transition is Transition.ACTIVATED:
                yield f"judged: {point}:{rule} is active at the end"


def _was_called(told: Sequence[tuple[float, bool]], from_s: float, to_s: float) -> bool:
    """The subscriber was told in this span that the alarm is active, or knew it: one that is beyond
    again before the off-delay ended still stands, and nobody is called a second time."""
    before = [(at_s, is_active) for at_s, is_active in told if at_s < from_s]
    is_known = bool(before) and max(before)[1]
    return is_known or any(is_active for at_s, is_active in told if from_s <= at_s <= to_s)


def _overlap_s(spans: Sequence[tuple[float, float]], from_s: float, to_s: float) -> float:
    """How much of `from_s` to `to_s` the spans cover, overlaps counted once."""
    covered_s, end_s = 0.0, from_s
    for begin_s, until_s in sorted(spans):
        begin_s, until_s = max(begin_s, end_s), min(until_s, to_s)
        if until_s > begin_s:
            covered_s += until_s - begin_s
            end_s = until_s
    return covered_s


def _s(time_ns: int) -> str:
    return f"{(time_ns - START_NS) / NS:.6f}"


def _pairs(found: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{what} {_s(at)}" for what, at in found) or "nothing"
