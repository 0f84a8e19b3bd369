"""Whether a journal is what was written: every event, in its order, to its end.

    anchors kept outside ─┐            ┌─ signatures, numbers, chain of the anchors themselves
    anchors.jsonl ────────┼─▶ verify ──┼─ every event: content, place, chain; against every anchor
    journal.db ───────────┘            └─ live table against the last event of each key

What is found, with the gseq range it concerns:

    edit             the content is not what was chained, or a column differs from it
    insert, delete   an event nobody chained here; events that were and are gone
    reorder          events under numbers that are not theirs
    truncate         the end is missing
    rewritten        whole and chained, and not what the anchors vouch for: changed and chained anew
    regenesis        the same from the first event on: another journal stands here
    live             the table a restart begins from is not where the events end
    anchors_missing, anchors_cut, anchors_edited, key    the anchors themselves
    outside          what was given as kept outside is not signed
    unreadable       SQLite cannot read on

**What it proves.** The bare chain: only that nobody careless was here. The anchors beside it: that
nobody without the key was. Anchors and public key kept elsewhere (`--anchors`, `--public-key`):
that up to the newest of them nobody was, root or not. What came after the newest anchor is chained
and not vouched for; the report says how much that is.

Works on a copy and on a journal being written: notes, then anchors, then events are read, and each
was written after the next. Bounded: a page of events in memory; anchors lie sorted in a temporary
SQLite table that goes to disk by itself.

Surprising: numbers the gateway itself skipped after a lost disk are no finding when the chain goes
on across them and no anchor says that there was anything.

Not here: mending (database.py), keys (signing.py), the command line (gateway/runtime).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.alarms.anchors import ANCHORS, AnchorPointer
from gateway.alarms.chain import GENESIS, Anchor
from gateway.alarms.findings import Finding, Findings
from gateway.alarms.reader import JournalReader, pages_by_gseq
from gateway.alarms.record import RecordError, decode_alarm, decode_event
from gateway.alarms.signing import PublicKey
from gateway.alarms.vouching import (
    AnchorTable,
    Keys,
    compare_origins,
    read_local,
    read_outside,
)
from gateway.alarms.walk import Vouched, Walk
from gateway.model.errors import StorageFault

_LIVE_PAGE = 500


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The verdict. `ok`: nothing was found, with what was given to find it by."""

    event_count: int
    head: Anchor
    local: Vouched
    outside: Vouched
    keys: tuple[str, ...]  # ids of the keys that were believed
    key_is_given: bool  # by the caller, not taken from the folder itself
    finding_count: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.finding_count

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "events": self.event_count,
            "head": {"gseq": self.head.gseq, "hash": self.head.hash.hex()},
            "anchors": self.local._asdict(),
            "outside": self.outside._asdict(),
            "keys": list(self.keys),
            "key_is_given": self.key_is_given,
            "finding_count": self.finding_count,
            "findings": [finding._asdict() for finding in self.findings],
            "notes": list(self.notes),
        }


def verify_journal(
    directory: Path, *, outside: Path | None = None, public_keys: Sequence[PublicKey] = ()
) -> VerifyReport:
    """Look for everything above. `outside`: lines with anchors that were kept elsewhere (anchors,
    or heartbeats that carry them); `public_keys`: the only ones to believe.

    Raises: ConfigError if there is no journal; StorageFault if SQLite cannot open it; OSError.
    """
    findings = Findings()
    with JournalReader.open(directory) as reader, AnchorTable() as table:
        try:
            noted = reader.meta()
        except StorageFault as error:
            noted = {}
            findings.add("unreadable", 1, 1, str(error))
        keys = Keys(public_keys)
        if outside is not None:
            read_outside(outside, table, keys, findings)
        pointer = AnchorPointer.unpack(noted.get("anchor"))
        read_local(directory / ANCHORS, table, keys, findings, noted=pointer)
        compare_origins(table, findings)
        walk = Walk(table.in_order(), findings, hash_at=lambda gseq: _hash_at(reader, gseq))
        if not findings.has("unreadable"):
            _walk(reader, walk, noted, findings)
        return VerifyReport(
            event_count=walk.count,
            head=walk.place,
            local=walk.reach[0]._replace(anchors=table.count(0)),
            outside=walk.reach[1]._replace(anchors=table.count(1)),
            keys=tuple(key.id for key in keys.believed),
            key_is_given=bool(public_keys),
            finding_count=findings.total,
            findings=tuple(findings.kept),
            notes=tuple(findings.notes),
        )


def _walk(reader: JournalReader, walk: Walk, noted: Mapping[str, Any], findings: Findings) -> None:
    try:
        for page in pages_by_gseq(reader.ask):
            for row in page:
                walk.row(row)
        walk.end(_noted_head(noted), _noted_head(reader.meta()))
        _check_live(reader, findings)
    except StorageFault as error:
        findings.add("unreadable", walk.last_gseq + 1, walk.last_gseq + 1, str(error))


def _hash_at(reader: JournalReader, gseq: int) -> object:
    rows = reader.ask("SELECT hash FROM event WHERE gseq = ?", (gseq,))
    return rows[0][0] if rows else None


def _noted_head(noted: Mapping[str, Any]) -> Anchor:
    gseq, head = noted.get("head"), noted.get("head_hash")
    if isinstance(gseq, int) and isinstance(head, bytes):
        return Anchor(gseq, head)
    return Anchor(0, GENESIS)


# --- the live table


def _check_live(reader: JournalReader, findings: Findings) -> None:
    """Each row of the live table must be the row its newest event carries; one read for both."""
    question = (
        "SELECT l.alarm_key, l.record, e.gseq, e.record FROM live l LEFT JOIN event e ON e.gseq ="
        " (SELECT max(gseq) FROM event WHERE alarm_key = l.alarm_key)"
        " WHERE l.alarm_key > ? ORDER BY l.alarm_key LIMIT ?"
    )
    after = ""
    while rows := reader.ask(question, (after, _LIVE_PAGE)):
        for key, live, gseq, record in rows:
            if not _is_live_row(live, record):
                at = gseq or 0
                findings.add("live", at, at, f"the live row of {key} is not what event {at} left")
        after = rows[-1][0]
    question = (
        "SELECT alarm_key, max(gseq) FROM event WHERE alarm_key > ?"
        " AND alarm_key NOT IN (SELECT alarm_key FROM live) GROUP BY 1 ORDER BY 1 LIMIT ?"
    )
    after = ""
    while rows := reader.ask(question, (after, _LIVE_PAGE)):
        for key, gseq in rows:
            findings.add("live", gseq, gseq, f"the live row of {key} is gone")
        after = rows[-1][0]


def _is_live_row(live: object, record: object) -> bool:
    if not isinstance(live, bytes) or not isinstance(record, bytes):
        return False
    if b'"alarm":' + live in record:
        return True
    try:  # put together again by a newer version, which may write it otherwise
        return decode_alarm(live) == decode_event(record).alarm
    except RecordError:
        return False
