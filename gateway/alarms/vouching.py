"""Anchors read for a verification: those beside the journal, those kept outside, whom to believe.

Owns: what is wrong with anchors by themselves (signatures, numbers, their own chain, the journal's
note of the newest, the two origins beside each other). Believed ones lie in a temporary SQLite
table, which goes to disk by itself when there are many.

Not here: what the anchors say of the events (walk.py).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from gateway.alarms.anchors import (
    LINE_BYTES_MAX,
    NO_DIGEST,
    AnchorPointer,
    SignedAnchor,
    parse_anchor,
)
from gateway.alarms.findings import Findings
from gateway.alarms.signing import PublicKey


class StoredAnchor(NamedTuple):
    """An anchor as the table keeps it."""

    gseq: int
    no: int
    head: bytes
    origin: int  # 0 beside the journal, 1 outside
    time_ns: int


class AnchorTable:
    """Anchors that are signed by a believed key, to be read in order of gseq."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # on disk when it grows, then gone
        self._db.execute(
            "CREATE TABLE anchor (origin INTEGER, no INTEGER, gseq INTEGER, head BLOB,"
            " digest BLOB, time_ns INTEGER, PRIMARY KEY (origin, no, digest)) WITHOUT ROWID"
        )
        self._db.execute("CREATE INDEX anchor_by_gseq ON anchor (gseq, no)")
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def put(self, anchor: SignedAnchor, digest: bytes, *, origin: int) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO anchor VALUES (?, ?, ?, ?, ?, ?)",
            (origin, anchor.no, anchor.gseq, anchor.head, digest, anchor.time_ns),
        )

    def ask(self, question: str, *values: object) -> list[Any]:
        with closing(self._db.execute(question, values)) as cursor:
            return cursor.fetchall()

    def count(self, origin: int) -> int:
        (row,) = self.ask("SELECT count(*) FROM anchor WHERE origin = ?", origin)
        return int(row[0])

    def in_order(self) -> Iterator[StoredAnchor]:
        question = "SELECT gseq, no, head, origin, time_ns FROM anchor ORDER BY gseq, no"
        return (StoredAnchor(*row) for row in self._db.execute(question))


@dataclass
class Keys:
    """Whom to believe: the given keys; else whoever signed the anchors kept outside; else, and
    that proves less, whoever signed the first anchor beside the journal."""

    given: Sequence[PublicKey]
    believed: list[PublicKey] = field(default_factory=list)
    is_settled: bool = False

    def __post_init__(self) -> None:
        self.believed = list(self.given)
        self.is_settled = bool(self.given)

    def believes(self, key: PublicKey) -> bool:
        if not self.is_settled and key not in self.believed:
            self.believed.append(key)
        return key in self.believed


def read_outside(path: Path, table: AnchorTable, keys: Keys, findings: Findings) -> None:
    """What somebody else kept; where it came from, a topic before it, does not matter."""
    seen = b""
    strange = 0
    for line in _lines(path):
        text = line[max(0, line.find(b"{")) :]
        anchor = parse_anchor(text)
        if anchor is None:
            strange += bool(text.strip())
        elif anchor.digest != seen:  # a heartbeat says the same many times
            seen = anchor.digest
            if not anchor.is_signed():
                detail = f"anchor {anchor.no} of {path.name} is not signed by the key it names"
                findings.add("outside", anchor.gseq, anchor.gseq, detail)
            elif keys.believes(anchor.key):
                table.put(anchor, anchor.digest, origin=1)
            else:
                detail = f"of {path.name} signed by key {anchor.key.id}, which is not the one given"
                findings.add("key", anchor.gseq, anchor.gseq, f"anchor {anchor.no} {detail}")
    if strange:
        findings.notes.append(f"{strange} lines of {path.name} carry no anchor")
    keys.is_settled = keys.is_settled or bool(keys.believed)


class _Before(NamedTuple):
    """The line before."""

    no: int
    digest: bytes
    key: PublicKey | None


_BEFORE_THE_FIRST = _Before(0, NO_DIGEST, None)


def read_local(
    path: Path, table: AnchorTable, keys: Keys, findings: Findings, *, noted: AnchorPointer
) -> None:
    """The file beside the journal: each line by itself, the chain they are, and the anchor which
    the journal noted as its newest."""
    before, gseq, number = _BEFORE_THE_FIRST, 0, 0
    for number, line in enumerate(_lines(path), 1):
        if not line.endswith(b"\n"):
            findings.notes.append(f"{path.name} ends in the middle of a line")
            break
        anchor = parse_anchor(line)
        digest = hashlib.sha256(line).digest()
        if anchor is None or anchor.line != line:
            detail = f"line {number} of {path.name} is not as an anchor is written"
            findings.add("anchors_edited", gseq + 1, gseq + 1, detail)
            before = _Before(before.no + 1, digest, before.key)
        else:
            first = min(gseq + 1, anchor.gseq)
            for kind, detail in _anchor_faults(anchor, before, keys):
                findings.add(kind, first, max(gseq, anchor.gseq), detail)
            if anchor.is_signed() and keys.believes(anchor.key):
                table.put(anchor, digest, origin=0)
            before, gseq = _Before(anchor.no, digest, anchor.key), anchor.gseq
            keys.is_settled = True
        if before.no == noted.no and digest != noted.digest:
            detail = f"anchor {noted.no} is not the one the journal noted"
            findings.add("anchors_edited", gseq, gseq, detail)
    if before.no < noted.no:
        detail = f"anchors {before.no + 1} to {noted.no} are gone, by the journal's own note"
        findings.add("anchors_cut", gseq + 1, gseq + 1, detail)
    if not number:
        detail = "there is no anchor beside the journal: a bare chain proves little"
        findings.add("anchors_missing", 1, 1, detail)


def _anchor_faults(anchor: SignedAnchor, before: _Before, keys: Keys) -> Iterator[tuple[str, str]]:
    no = before.no + 1
    if not anchor.is_signed():
        yield "anchors_edited", f"anchor {anchor.no} is not signed by the key it names"
    elif anchor.key != before.key and not keys.believes(anchor.key):
        yield "key", f"from anchor {anchor.no} on they are signed by key {anchor.key.id}"
    if anchor.no > no:
        yield "anchors_cut", f"anchors {no} to {anchor.no - 1} are gone"
    elif anchor.no < no:
        yield "anchors_edited", f"anchor {anchor.no} stands where {no} belongs"
    elif anchor.prev != before.digest:
        yield "anchors_edited", f"anchor {anchor.no} does not follow the one before it"


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file that may be anything, or not there."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(LINE_BYTES_MAX):
            yield line


def compare_origins(table: AnchorTable, findings: Findings) -> None:
    """Every anchor kept outside must lie beside the journal too, the very same."""
    question = (
        "SELECT o.no, o.gseq, max(i.digest IS o.digest), count(i.no) FROM anchor o"
        " LEFT JOIN anchor i ON i.origin = 0 AND i.no = o.no WHERE o.origin = 1"
        " GROUP BY o.no, o.digest ORDER BY o.gseq, o.no"
    )
    for no, gseq, is_same, there in table.ask(question):
        if not there:
            findings.add("anchors_cut", gseq, gseq, f"anchor {no}, kept outside, is gone here")
        elif not is_same:
            findings.add("anchors_edited", gseq, gseq, f"anchor {no} is not the one kept outside")
