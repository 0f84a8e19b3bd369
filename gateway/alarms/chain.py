"""The hash chain over journal records: what makes an edited journal show.

    hash(n) = SHA-256( hash(n-1) | gseq u64 big-endian | record ),  hash(0) = GENESIS

Each stored row carries prev and hash. An edit, an insertion, a deletion or a reordering anywhere
before the end breaks the chain at that place, and the report names it.

What a bare chain cannot show: rows cut off at the end, or a whole journal written anew. Both need
an anchor kept elsewhere: `check_chain(…, anchor=…)` compares with one. Signed anchors that leave
the box are in anchors.py, and the search for everything that can have been done in verify.py; this
is the quick look of the process itself.

Not here: where rows are kept (journal.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.alarms.record import RecordError, decode_event
from gateway.model.alarm import AlarmEvent

GENESIS = hashlib.sha256(b"hazard-gateway journal 1").digest()
FAULTS_KEPT = 1000
"""Faults named in a report; more are only counted."""


class StoredRow(NamedTuple):
    """One row of the journal as it lies on disk: the record, and columns copied out of it."""

    gseq: int
    time_ns: int
    alarm_key: str
    transition: str
    rule_kind: str
    late: int
    record: bytes
    prev: bytes
    hash: bytes


class Anchor(NamedTuple):
    """A place in the chain to be kept off the box: the journal holds `hash` at `gseq`."""

    gseq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class ChainFault:
    """One place where the chain does not hold. `kind`: gap, prev, hash, record, column, anchor."""

    gseq: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What `verify` found; `count` rows were read."""

    count: int = 0
    head: Anchor = Anchor(0, GENESIS)
    fault_count: int = 0
    faults: list[ChainFault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.fault_count


def link(prev: bytes, gseq: int, record: bytes) -> bytes:
    return hashlib.sha256(prev + gseq.to_bytes(8, "big") + record).digest()


def is_whole(row: StoredRow) -> bool:
    """Whether the row's own bytes are what was written, whatever came before it."""
    if not (isinstance(row.record, bytes) and isinstance(row.prev, bytes) and row.gseq >= 0):
        return False  # SQLite keeps any type in any column: a flipped bit may change it
    return link(row.prev, row.gseq, row.record) == row.hash


def columns_of(event: AlarmEvent) -> tuple[int, int, str, str, str, int]:
    """The columns copied out of an event, in the order of StoredRow."""
    alarm = event.alarm
    return (
        alarm.gseq,
        event.time_ns,
        _storable(alarm.alarm_key),
        event.transition.value,
        _storable(alarm.rule_kind),
        int(event.late),
    )


def _storable(text: str) -> str:
    """Text with lone surrogates as the record has it, with question marks: SQLite takes no other,
    and an alarm is stored under a strange name rather than not at all."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def check_chain(rows: Iterable[StoredRow], *, anchor: Anchor | None = None) -> ChainReport:
    """Walk the whole chain, rows by gseq; every fault found, not just the first."""
    faults: list[ChainFault] = []
    count = fault_count = 0
    at = Anchor(0, GENESIS)
    for row in rows:
        for fault in _faults_of(row, at):
            fault_count += 1
            if len(faults) < FAULTS_KEPT:
                faults.append(fault)
        count += 1
        at = Anchor(row.gseq, row.hash)
        if anchor is not None and anchor.gseq == at.gseq and anchor.hash != at.hash:
            fault_count += 1
            faults.append(ChainFault(at.gseq, "anchor", "not the chain that was anchored"))
    if anchor is not None and anchor.gseq > at.gseq:
        fault_count += 1
        faults.append(ChainFault(at.gseq, "anchor", f"ends before the anchor {anchor.gseq}"))
    return ChainReport(count, at, fault_count, faults)


def _faults_of(row: StoredRow, before: Anchor) -> list[ChainFault]:
    found = []
    if row.gseq != before.gseq + 1:
        found.append(ChainFault(row.gseq, "gap", f"follows {before.gseq}"))
    if row.prev != before.hash:
        found.append(ChainFault(row.gseq, "prev", f"does not continue {before.gseq}"))
    if not is_whole(row):
        return [*found, ChainFault(row.gseq, "hash", "record is not what was written")]
    try:
        columns = columns_of(decode_event(row.record))
    except RecordError as error:
        return [*found, ChainFault(row.gseq, "record", str(error))]
    if columns != tuple(row[: len(columns)]):
        found.append(ChainFault(row.gseq, "column", "a column differs from the record"))
    return found
