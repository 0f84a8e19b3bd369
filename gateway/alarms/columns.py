"""Alarm events as columns for the figures: from a journal, page by page, or from a list.

Of each event a dozen numbers are kept, some 60 bytes; the records themselves are held a page at a
time. From a journal come, besides the events of the time asked for, the last event of each key
before it: how things stood at the beginning.

Surprising: a damaged row is left out, as everywhere; how many, `JournalColumns.damaged_count` says.

Not here: the figures (kpi.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from gateway.alarms.chain import StoredRow, is_whole
from gateway.alarms.kpi import BREACHES, STATES, TRANSITIONS, AlarmColumns
from gateway.alarms.reader import pages_by_time
from gateway.alarms.record import encode
from gateway.model.alarm import SHELF_MAX_S, AlarmEvent, AlarmState, Transition
from gateway.model.rule import Priority

_KEYS_AT_ONCE = 2000
_SHELVINGS = (Transition.SHELVED.value, Transition.SHELVED_ONCE.value)
_BY_A_PERSON = (*_SHELVINGS, Transition.OUT_OF_SERVICE.value, Transition.DISABLED.value)
_ALONE = (Transition.SUPPRESSED.value, Transition.DISABLED.value)
_TRANSITION = {transition.value: code for code, transition in enumerate(TRANSITIONS)}
_STATE = {state.value: code for code, state in enumerate(STATES)}
_BREACH = {name: code for code, name in enumerate(BREACHES)}
_TYPES: Mapping[str, Any] = {
    "gseq": np.int64,
    "time_ns": np.int64,
    "recorded_ns": np.int64,
    "key": np.int32,
    "transition": np.uint8,
    "state": np.uint8,
    "priority": np.uint8,
    "annunciate": np.bool_,
    "planned": np.bool_,
    "late": np.bool_,
    "until_ns": np.int64,
    "actor": np.int32,
    "breach": np.uint8,
}


class CanAsk(Protocol):
    """A journal that is open, or a reader of one."""

    def ask(self, question: str, values: tuple[Any, ...] = ()) -> list[Any]: ...


class JournalColumns(NamedTuple):
    """What a journal gave."""

    events: AlarmColumns
    damaged_count: int


def journal_columns(journal: CanAsk, from_ns: int, to_ns: int) -> JournalColumns:
    """The events of [from_ns, to_ns), and the last one before it of each key.

    Raises: StorageFault.
    """
    builder = _Builder()
    for row in _last_before(journal, from_ns):
        builder.add(row)
    for page in pages_by_time(journal.ask, from_ns, to_ns):
        for row in page:
            builder.add(row)
    return JournalColumns(builder.columns(), builder.damaged_count)


def event_columns(events: Iterable[AlarmEvent]) -> AlarmColumns:
    """The same of events at hand, as a back-test has them; in the order they happened."""
    builder = _Builder()
    for event in events:
        builder.put(event.alarm.gseq, orjson.loads(encode(event)[0]))
    return builder.columns()


def _last_before(journal: CanAsk, from_ns: int) -> Iterable[StoredRow]:
    """Key by key through the index of keys: from the newest event back to the first old enough."""
    keys = "SELECT alarm_key FROM live WHERE alarm_key > ? ORDER BY alarm_key LIMIT ?"
    newest = (
        "SELECT * FROM event INDEXED BY event_by_key WHERE alarm_key = ? AND time_ns < ?"
        " AND NOT late ORDER BY gseq DESC LIMIT 1"
    )
    after = ""
    while page := journal.ask(keys, (after, _KEYS_AT_ONCE)):
        for (key,) in page:
            yield from (StoredRow(*row) for row in journal.ask(newest, (key, from_ns)))
        after = page[-1][0]


class _Builder:
    """Gathers rows in compact arrays, in any order; gives them in order of gseq."""

    def __init__(self) -> None:
        self.damaged_count = 0
        self._done: list[dict[str, np.ndarray[Any, Any]]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._keys: dict[str, int] = {}
        self._actors: dict[str, int] = {"": 0}

    def add(self, row: StoredRow) -> None:
        if not is_whole(row):
            self.damaged_count += 1
            return
        self.put(row.gseq, orjson.loads(row.record))

    def put(self, gseq: int, body: Mapping[str, Any]) -> None:
        """A record as it is written: what has its default is not in it (record.py)."""
        alarm = body["alarm"]
        actor = body.get("actor", "")
        late = body.get("late", False) or body["transition"] == Transition.HISTORICAL.value
        self._rows.append(
            (
                gseq,
                body["time_ns"],
                body["recorded_time_ns"],
                self._keys.setdefault(alarm["alarm_key"], len(self._keys)),
                _TRANSITION[body["transition"]],
                _STATE[alarm.get("state", AlarmState.NORMAL.value)],
                alarm["priority"],
                body["annunciate"],
                alarm.get("planned", False),
                late,
                alarm.get("shelved_until_ns") or 0,
                self._actors.setdefault(actor, len(self._actors)),
                _BREACH[breach_of(body)],
            )
        )
        if len(self._rows) >= 10_000:
            self._pack()

    def columns(self) -> AlarmColumns:
        self._pack()
        whole = {name: np.concatenate([part[name] for part in self._done]) for name in _TYPES}
        order = np.argsort(whole.pop("gseq"), kind="stable")
        return AlarmColumns(
            **{name: column[order] for name, column in whole.items()},
            keys=tuple(self._keys),
            actors=tuple(self._actors),
        )

    def _pack(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(_TYPES)
        packed = zip(_TYPES.items(), columns, strict=True)
        self._done.append({name: np.array(column, kind) for (name, kind), column in packed})
        self._rows = []


def breach_of(body: Mapping[str, Any]) -> str:
    """What is unauthorised about an act of hiding, the first of BREACHES that applies; "" if
    nothing is, or it is another event. The gateway's own suppression by design has no actor."""
    transition, actor = body["transition"], body.get("actor", "")
    if transition not in _BY_A_PERSON and not (transition in _ALONE and actor):
        return ""
    if not actor:
        return "nobody"
    comment = body.get("comment", "")
    permit, _, reason = comment.partition("] ") if comment.startswith("[") else ("", "", comment)
    if transition == Transition.OUT_OF_SERVICE.value and not permit:
        return "no_permit"
    if not reason:
        return "no_reason"
    return _limit_breach(body)


def _limit_breach(body: Mapping[str, Any]) -> str:
    transition, alarm = body["transition"], body["alarm"]
    top = alarm.get("top_priority") or alarm["priority"]
    if transition in _SHELVINGS:
        return _shelf_breach(top, alarm.get("shelved_until_ns"), body["time_ns"])
    together = alarm.get("hidden_note", "").startswith(f"{body['actor']} + ")
    if transition in _ALONE and top == Priority.CRITICAL and not together:
        return "no_second_person"
    return ""


def _shelf_breach(top: int, until_ns: int | None, time_ns: int) -> str:
    longest_s = SHELF_MAX_S.get(Priority(top))
    if longest_s is None:
        return "critical"
    if until_ns is not None and until_ns - time_ns > longest_s * 1_000_000_000:
        return "too_long"
    return ""
