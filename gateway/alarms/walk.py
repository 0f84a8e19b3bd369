"""One walk over the events of a journal, beside its anchors: what was changed, and where.

    row        the event's place by the chain, and what the record, prev and hash say together
    place      where the event was chained, which after a renumbering is not where it stands

A row whose hash is right for another number was moved; from the numbers a run of moved rows had
follows whether something before it was taken out, put in, or put in another order.

Surprising: an anchor that does not fit is explained away by a finding that already says why; only
what no finding explains is called rewritten.

Not here: whether an anchor is to be believed (vouching.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from gateway.alarms.chain import GENESIS, Anchor, StoredRow, is_whole, link
from gateway.alarms.findings import Finding, Findings
from gateway.alarms.vouching import StoredAnchor

UNVOUCHED_MAX_NS = 180_000_000_000
"""Three of the gateway's minutes: events over a longer time without an anchor are a finding."""
_LOOK_BACK = 256
"""Events an insertion may have and still be told from a change."""


class Vouched(NamedTuple):
    """How far the anchors of one origin reach."""

    anchors: int = 0  # read, signed and believed
    gseq: int = 0  # up to here the journal is what they say
    time_ns: int = 0  # when the newest of them that fits was signed


class Content(NamedTuple):
    """What a record itself says of the columns beside it."""

    gseq: int
    time_ns: int
    alarm_key: str
    transition: str
    rule_kind: str
    late: int
    recorded_time_ns: int


@dataclass(slots=True)
class _Moved:
    """A run of neighbouring rows that were chained under other numbers."""

    first: int
    last: int
    low: int  # smallest and greatest number they were chained under
    high: int
    shift: int
    before: Anchor  # the place before the first
    is_even: bool  # the same shift for all
    is_copy: bool  # the events stand where they belong as well


@dataclass(slots=True)
class _Origin:
    """What the anchors of one origin have said so far. Those outside are not overruled by those
    beside the journal, which somebody with the key can sign anew."""

    reach: Vouched = field(default_factory=Vouched)
    fitted: int = 0  # the last place one vouched for
    is_vouched: bool = False  # one of at least one event fitted
    unfit: tuple[int, int] | None = None  # first and last since then that does not fit

    def note_unfit(self, gseq: int) -> None:
        self.unfit = (self.unfit[0] if self.unfit else gseq, gseq)


class Walk:
    """The events in order of gseq, beside the anchors in order of gseq."""

    def __init__(
        self,
        anchors: Iterator[StoredAnchor],
        findings: Findings,
        *,
        hash_at: Callable[[int], object],
    ) -> None:
        """`hash_at` answers what hash stands at a number, for rows that are not where they were."""
        self.count = 0
        self.last_gseq = 0
        self.place = Anchor(0, GENESIS)  # the last event by the chain
        self._origins = (_Origin(), _Origin())  # beside the journal, outside
        self._findings = findings
        self._hash_at = hash_at
        self._anchors = anchors
        self._next = next(anchors, None)
        self._recent: deque[Anchor] = deque([self.place], _LOOK_BACK)
        self._moved: _Moved | None = None
        self._since: tuple[int, int] | None = None  # recorded first and last since an anchor

    @property
    def reach(self) -> tuple[Vouched, Vouched]:
        """How far the anchors beside the journal reach, and those outside."""
        return self._origins[0].reach, self._origins[1].reach

    @property
    def _fitted(self) -> int:
        return max(origin.fitted for origin in self._origins)

    def row(self, row: StoredRow) -> None:
        """The next event."""
        content = _content(row.record)
        whole = is_whole(row)
        was = None if whole or content is None else _chained_as(row, content)
        if was is not None:
            self._take_moved(row, was)
        else:
            self._end_moved(row.gseq)
            self._take_in_place(row, whole)
            if not whole:
                detail = "the content is not what was chained"
                self._findings.add("edit", row.gseq, row.gseq, detail)
            elif content is None or row[:6] != content[:6]:
                detail = "a column differs from the record"
                self._findings.add("edit", row.gseq, row.gseq, detail)
        self.count += 1
        self.last_gseq = row.gseq
        if content is not None and self._fitted < self.place.gseq:
            first = self._since[0] if self._since else content.recorded_time_ns
            self._since = (first, content.recorded_time_ns)

    def end(self, noted: Anchor, noted_after: Anchor) -> None:
        """After the last event; the head by the journal's own note, read before and after."""
        self._end_moved()
        beyond = 0
        while self._next is not None:
            if self._next.head == self.place.hash:
                self._fit(self._next)
            elif self._next.gseq > self.place.gseq:
                beyond = max(beyond, self._next.gseq)
            else:
                self._origins[self._next.origin].note_unfit(self._next.gseq)
            self._next = next(self._anchors, None)
        if noted.gseq > self.place.gseq and noted.hash != self.place.hash:
            beyond = max(beyond, noted.gseq)
        if beyond:
            self._end_missing(beyond)
        elif 0 < noted_after.gseq < self.place.gseq:
            detail = f"the journal's own note says that it ends with {noted_after.gseq}"
            self._findings.add("insert", noted_after.gseq + 1, self.place.gseq, detail)
        for origin in self._origins:
            self._tell_unfit(origin)
        self._tell_unvouched()

    def _end_missing(self, beyond: int) -> None:
        detail = "the end is missing"
        if self._fitted < self.place.gseq:
            detail += f"; what stands after {self._fitted} is not vouched for either"
        self._findings.add("truncate", self.place.gseq + 1, beyond, detail)

    def _tell_unfit(self, origin: _Origin) -> None:
        """Whole and chained, but not as anchored, from somewhere after the last place that fits."""
        if origin.unfit is None:
            return
        if origin.is_vouched:
            detail = f"not what was anchored at {origin.unfit[0]}: changed and chained anew"
            finding = Finding("rewritten", origin.fitted + 1, self.last_gseq, detail)
        else:
            detail = (
                "no anchor fits: another journal stands here, or this one changed from early on"
            )
            finding = Finding("regenesis", 1, self.last_gseq, detail)
        if finding not in self._findings.kept:
            self._findings.add(*finding)

    def _tell_unvouched(self) -> None:
        if self._since and self._since[1] - self._since[0] > UNVOUCHED_MAX_NS:
            seconds = (self._since[1] - self._since[0]) // 1_000_000_000
            detail = f"{seconds} s of events have no anchor, and one a minute is signed"
            self._findings.add("anchors_missing", self._fitted + 1, self.last_gseq, detail)
        elif self._since:
            chained = self.place.gseq - self._fitted
            self._findings.notes.append(f"{chained} events since the newest anchor: chained only")

    # --- against the anchors

    def _advance(self, place: Anchor) -> bool:
        """The chain goes on to `place`. True if an anchor speaks of events on the way that are
        not there."""
        speaks = False
        while self._next is not None and self._next.gseq < place.gseq:
            # Not of an event that is here; the gateway's own skip leaves the chain as it was.
            if self._next.head == self.place.hash:
                self._fit(self._next)
            else:
                speaks = True
            self._next = next(self._anchors, None)
        self.place = place
        self._recent.append(place)
        while self._next is not None and self._next.gseq == place.gseq:
            if self._next.head == place.hash:
                self._fit(self._next)
            else:
                self._origins[self._next.origin].note_unfit(place.gseq)
            self._next = next(self._anchors, None)
        return speaks

    def _fit(self, anchor: StoredAnchor) -> None:
        origin = self._origins[anchor.origin]
        if origin.unfit is not None:
            detail = "signed, and not of this chain, which is vouched for before and after"
            self._findings.add("anchors_edited", *origin.unfit, detail)
            origin.unfit = None
        origin.fitted = self.place.gseq
        origin.is_vouched = origin.is_vouched or self.place.gseq > 0
        origin.reach = Vouched(0, self.place.gseq, anchor.time_ns)
        self._since = None

    def _found(self, kind: str, first: int, last: int, detail: str) -> None:
        """A finding which explains why anchors of these events do not fit."""
        self._findings.add(kind, first, last, detail)
        for origin in self._origins:
            if origin.unfit and first <= origin.unfit[0] and origin.unfit[1] <= last:
                origin.unfit = None

    # --- where it stands

    def _take_in_place(self, row: StoredRow, whole: bool) -> None:
        before = self.place
        follows = row.prev == before.hash
        if row.gseq <= before.gseq:
            detail = "no event has this number" if row.gseq < 1 else f"{before.gseq} was before it"
            self._findings.add("insert", row.gseq, row.gseq, detail)
            return
        inserted = None if follows or row.gseq != before.gseq + 1 else self._continues(row)
        if inserted is not None:
            detail = f"{row.gseq} continues {inserted - 1}: what stands between was not there"
            self._found("insert", inserted, before.gseq, detail)
        elif not follows and row.gseq == before.gseq + 1 and whole:
            first = min(self._fitted + 1, before.gseq)
            detail = f"{row.gseq} was chained to something else: changed and hashed again"
            self._found("edit", first, before.gseq, detail)
        speaks = self._advance(Anchor(row.gseq, row.hash))
        if row.gseq > before.gseq + 1:
            self._tell_gap(before.gseq + 1, row.gseq - 1, is_skip=follows and not speaks)

    def _tell_gap(self, first: int, last: int, *, is_skip: bool) -> None:
        if is_skip:
            note = f"numbers {first} to {last} were skipped: after damage the gateway went on there"
            self._findings.notes.append(note)
        else:
            self._findings.add("delete", first, last, "chained once, and gone")

    def _continues(self, row: StoredRow) -> int | None:
        """The first event put in, if the row continues one a little further back."""
        return next((at.gseq + 1 for at in self._recent if at.hash == row.prev), None)

    # --- where it does not belong

    def _take_moved(self, row: StoredRow, was: int) -> None:
        run = self._moved
        shift = was - row.gseq
        if run is None or run.is_copy:
            is_copy = self._hash_at(was) == row.hash
            if run is not None and not is_copy:
                self._end_moved()
            if run is None or not is_copy:
                self._moved = run = _Moved(
                    *(row.gseq, row.gseq, was, was, shift, self.place),
                    is_even=True,
                    is_copy=is_copy,
                )
        assert run is not None
        run.last = row.gseq
        run.low, run.high = min(run.low, was), max(run.high, was)
        run.is_even = run.is_even and shift == run.shift
        if not run.is_copy and was > self.place.gseq:
            self._advance(Anchor(was, row.hash))

    def _end_moved(self, next_gseq: int | None = None) -> None:
        """Say what happened to the rows that were moved: the numbers they had tell, and whether
        the next row, which was not moved, has its place after theirs."""
        run, self._moved = self._moved, None
        if run is None:
            return
        if run.is_copy:
            what = f"of {run.low}" if run.low == run.high else f"of {run.low}..{run.high}"
            self._found("insert", run.first, run.last, f"a copy {what}")
        elif next_gseq is not None and next_gseq <= self.place.gseq:
            # Taken from further on and put here; where they are missing shows as a gap.
            detail = f"put here from where they were chained, {run.low}..{run.high}"
            self._found("reorder", run.first, run.last, detail)
            self.place = run.before
        elif run.first < 1:  # where no event was ever put
            detail = f"stand here, chained as {run.low}..{run.high}"
            self._found("reorder", run.first, run.high, detail)
        elif run.is_even and run.shift > 0:
            detail = f"gone; what followed was renumbered from {run.first} on to close the gap"
            self._found("delete", run.first, run.low - 1, detail)
        elif run.is_even:
            detail = f"put in; {run.low}..{run.high} were renumbered to make room"
            self._found("insert", run.low, run.first - 1, detail)
        else:
            detail = f"in another order: chained as {run.low}..{run.high}"
            self._found("reorder", run.first, run.last, detail)


def _content(record: object) -> Content | None:
    """None if the record is none. Read lightly: who wrote it has looked at all of it."""
    try:
        body = orjson.loads(record)  # type: ignore[arg-type]  # whatever it is
        alarm = body["alarm"]
        found = Content(
            alarm["gseq"],
            body["time_ns"],
            alarm["alarm_key"],
            body["transition"],
            alarm["rule_kind"],
            int(body.get("late", False)),
            body["recorded_time_ns"],
        )
    except (ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found.recorded_time_ns, int) else None


def _chained_as(row: StoredRow, content: Content) -> int | None:
    """The number the row was chained under, if it is another and everything else is right."""
    number: object = content.gseq
    if not isinstance(number, int) or not 0 <= number < 2**63 or number == row.gseq:
        return None
    if not all(isinstance(part, bytes) for part in (row.prev, row.record)):
        return None
    return number if link(row.prev, number, row.record) == row.hash else None
