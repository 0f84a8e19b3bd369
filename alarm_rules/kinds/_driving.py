"""Driving time as arithmetic over spans: continuous, by night, in any 24 hours. All int64 ns.

    samples    D────────D──────S──S────D───·····silence·····D────
    driven     ████████████████        ▓▓▓▓                 ████      ▓ up to gap_max
    stop                       └─short─┘ counts, if so chosen, once the vehicle moves on
    clock      0 ─────────────▶ held ──▶ + stop ──▶ held ───▶         0 after rest_min standing

A **track** is one row for each sample and one for what was carried over, by (instance, time); each
row says "moving" or "standing" until the next one, or for `gap_max` if that is sooner. Everything
below is cumulative sums with resets over it, and exact: cutting a history anywhere gives the same.

**In any 24 hours** the driven time is kept in a ring of 97 bins of 15 minutes: the bin that is
running and the 96 before it. The span looked back over is so 24 h to 24 h 15 min, never less.

Not here: what a level is, what is said when (driving.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alarm_rules import segments as seg
from alarm_rules.kinds._common import NS_PER_S
from alarm_rules.kinds._place import (
    DAY_NS,
    Int,
    Mask,
    after_window_time,
    into_window,
    window_time,
)
from gateway.contract.rule_kind import FOREVER, Columns

BIN_NS = 900 * NS_PER_S
BINS_BACK = DAY_NS // BIN_NS  # 96
BINS = BINS_BACK + 1
_BIN_SPAN = 1 << 32  # more bins than there will be: 1.8e18 ns are 2 million

PREWARN, DAILY, NIGHT, FATIGUE, BAN = range(5)
T = TypeVar("T", bound=np.generic)

LEVELS = ("PREWARN", "DAILY", "NIGHT", "FATIGUE", "NIGHTBAN")


@dataclass(frozen=True, slots=True)
class Track:
    """Rows by (instance, time). `first`: of its instance; a first row that is `carried` goes on
    with what the table holds, and says nothing itself."""

    instance: Int
    time_ns: Int
    next_ns: Int  # the next row's time, or up to when the last one is looked at
    moving: Mask
    quality: NDArray[np.uint8]
    first: Mask
    carried: Mask


@dataclass(frozen=True, slots=True)
class Course:
    """What follows for each row of a track, at its time."""

    cover_ns: Int  # how long the row holds
    since_ns: Int  # the stop (or drive) it belongs to began
    rested: Mask  # a whole rest lies behind it
    rests: Mask  # a whole rest ends while it holds
    driven_ns: Int  # while it holds
    night_driven_ns: Int
    stop_ns: Int  # the short stop before it that counts as driving now
    clock_ns: Int  # continuous driving so far
    night_ns: Int  # of that, within the night window


@dataclass(frozen=True, slots=True)
class Events:
    """What happens between samples, at exact times. `row`: of the track."""

    row: Int
    level: Int
    time_ns: Int
    is_set: Mask
    value: NDArray[np.float64]

    @classmethod
    def join(cls, parts: list[Events]) -> Events:
        parts = [part for part in parts if len(part.row)] or parts[:1]
        columns = (np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__)
        return cls(*columns)


def follow(track: Track, table: Columns) -> Course:
    """Sums with resets, from the carried clocks on."""
    instance, time_ns, moving = track.instance, track.time_ns, track.moving
    span_ns = track.next_ns - time_ns
    cover_ns = np.minimum(span_ns, table["gap_ns"][instance])
    silent_before = _before(span_ns > cover_ns)
    moving_before = _before(moving)
    stays = table["stays"][instance] & ~moving & ~moving_before
    begins = track.first | (moving != moving_before) | (silent_before & ~stays)
    begun_ns = np.where(track.carried, table["since_ns"][instance], time_ns)
    since_ns = begun_ns[seg.starts_of(begins)]
    stood_ns = time_ns - since_ns
    rest_ns = table["rest_ns"][instance]
    rested = ~moving & (stood_ns >= rest_ns)
    rests = ~moving & (stood_ns + cover_ns >= rest_ns)
    start = seg.starts_of(track.first)
    reset = _before(seg.last_true(rests, start))
    reset[track.first] = -1

    def since_reset(added: Int, carried: Int) -> Int:
        total = np.cumsum(added)
        base = np.where(reset >= 0, total[reset], (total - added)[start] - carried)
        found: Int = total - added - base
        return found

    driven_ns = np.where(moving, cover_ns, 0)
    clock_ns = since_reset(driven_ns, table["clock_ns"][instance])
    resumes = moving & ~moving_before & ~silent_before & ~track.first
    resumes &= table["short"][instance] & (clock_ns > 0)
    stop_ns = np.where(resumes, time_ns - _before(since_ns), 0)
    phase, length = table["night_phase"][instance], table["night_length"][instance]
    until = window_time(time_ns, phase, length)
    night_driven_ns = window_time(time_ns + driven_ns, phase, length) - until
    night_stop_ns = until - window_time(time_ns - stop_ns, phase, length)
    clock_ns = since_reset(driven_ns + stop_ns, table["clock_ns"][instance]) + stop_ns
    night_ns = since_reset(night_driven_ns + night_stop_ns, table["night_ns"][instance])
    night_ns += night_stop_ns
    return Course(
        cover_ns=cover_ns,
        since_ns=since_ns,
        rested=rested,
        rests=rests,
        driven_ns=driven_ns,
        night_driven_ns=night_driven_ns,
        stop_ns=stop_ns,
        clock_ns=np.where(rested, 0, clock_ns),
        night_ns=np.where(rested, 0, night_ns),
    )


def _before(column: NDArray[T]) -> NDArray[T]:
    """Each row's value one row earlier; the first row's is its own."""
    return np.concatenate([column[:1], column[:-1]])


def clock_events(track: Track, course: Course, table: Columns) -> Events:
    """Limits of continuous driving reached, rests taken, bans that begin and end."""
    instance = track.instance
    drive, night = table["drive_ns"][instance], table["night_max_ns"][instance]
    before = table["pre_warn_ns"][instance]
    parts = [
        _drive_limit(track, course, FATIGUE, drive),
        _drive_limit(track, course, PREWARN, drive - before),
    ]
    if (night < FOREVER).any():
        parts.append(_night_limit(track, course, NIGHT, night, table))
        parts.append(_night_limit(track, course, PREWARN, night - before, table))
    rests = np.flatnonzero(course.rests & ~course.rested)
    ends_ns = course.since_ns[rests] + table["rest_ns"][instance[rests]]
    if len(rests):
        ended = (PREWARN, NIGHT, FATIGUE)
        parts += [_events(rests, level, ends_ns, is_set=False) for level in ended]
    if (table["ban_length"][instance] > 0).any():
        parts += _ban_events(track, course, table)
    return Events.join(parts)


def _events(
    row: Int, level: int, time_ns: Int, *, is_set: bool, value: float | NDArray[np.float64] = 0.0
) -> Events:
    size = len(row)
    return Events(
        row,
        np.full(size, level),
        time_ns,
        np.full(size, is_set),
        np.full(size, value, np.float64),
    )


_NO_EVENTS = _events(np.empty(0, np.int64), DAILY, np.empty(0, np.int64), is_set=False)


def _drive_limit(track: Track, course: Course, level: int, limit_ns: Int) -> Events:
    now, then = course.clock_ns, course.clock_ns + course.driven_ns
    row = np.flatnonzero(track.moving & (now < limit_ns) & (limit_ns <= then))
    time_ns = track.time_ns[row] + limit_ns[row] - now[row]
    return _events(row, level, time_ns, is_set=True, value=limit_ns[row] / NS_PER_S)


def _night_limit(track: Track, course: Course, level: int, limit_ns: Int, table: Columns) -> Events:
    now, then = course.night_ns, course.night_ns + course.night_driven_ns
    row = np.flatnonzero(track.moving & (now < limit_ns) & (limit_ns <= then))
    instance = track.instance[row]
    time_ns = after_window_time(
        track.time_ns[row],
        table["night_phase"][instance],
        table["night_length"][instance],
        limit_ns[row] - now[row],
    )
    return _events(row, level, time_ns, is_set=True, value=limit_ns[row] / NS_PER_S)


def _ban_events(track: Track, course: Course, table: Columns) -> list[Events]:
    """Moving when a ban begins; the end of every ban somebody moved in, heard of or not."""
    row = np.flatnonzero(track.moving & (table["ban_length"][track.instance] > 0))
    instance, time_ns = track.instance[row], track.time_ns[row]
    length = table["ban_length"][instance]
    into = into_window(time_ns, table["ban_phase"][instance])
    next_ns = time_ns - into + DAY_NS
    held = next_ns < time_ns + course.cover_ns[row]
    running_end, next_end = time_ns - into + length, next_ns + length
    ends = (into < length) & (running_end <= track.next_ns[row])
    ends_next = held & (next_end <= track.next_ns[row])
    return [
        _events(row[held], BAN, next_ns[held], is_set=True, value=np.nan),
        _events(row[ends], BAN, running_end[ends], is_set=False, value=np.nan),
        _events(row[ends_next], BAN, next_end[ends_next], is_set=False, value=np.nan),
    ]


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Driven time cut at the bins, in the order it came to count; of a segment by its first row.

    key = 4 * row + (0 carried, 1 a short stop that counts from the row's time, 2 driven after it)
    """

    key: Int
    bin: Int
    begin_ns: Int
    amount_ns: Int
    segment: Int
    before_ns: Int  # sums before each piece, one more than there are pieces
    where: Int  # (segment, bin) as one number, ascending

    def sums(self, upto: Int, segment: Int, bin_: Int) -> Int:
        """Driven in the 97 bins up to `bin_`, counting pieces before position `upto`."""
        oldest = np.searchsorted(self.where, segment * _BIN_SPAN + bin_ - BINS_BACK)
        found: Int = self.before_ns[upto] - self.before_ns[np.minimum(oldest, upto)]
        return found


_NO_ROWS = np.empty(0, np.int64)
_NO_PIECES = _Pieces(*(_NO_ROWS,) * 5, before_ns=np.zeros(1, np.int64), where=_NO_ROWS)


class Daily:
    """Driven time in the last 24 hours, for the rows of a track that have such a limit."""

    def __init__(self, track: Track, course: Course, table: Columns) -> None:
        self._track, self._course, self._table = track, course, table
        limited = table["daily_ns"][track.instance] < FOREVER
        self.rows = np.flatnonzero(limited)
        self._segment = seg.starts_of(track.first)
        self._pieces = self._cut() if len(self.rows) else _NO_PIECES

    def sums(self) -> Int:
        """At the time of each of `rows`."""
        at = np.searchsorted(self._pieces.key, 4 * self.rows + 2)
        bin_ = self._track.time_ns[self.rows] // BIN_NS
        return self._pieces.sums(at, self._segment[self.rows], bin_)

    def events(self) -> Events:
        """The limit reached; time that leaves the window and takes the alarm with it."""
        if len(self.rows) == 0:
            return _NO_EVENTS
        return Events.join([self._reached(), self._left()])

    def keep(self) -> None:
        """Write the ring as of each instance's last row."""
        if len(self.rows) == 0:
            return
        track, pieces = self._track, self._pieces
        last = np.append(track.first[1:], True)
        newest = np.zeros(len(last), np.int64)
        newest[self._segment[last]] = track.time_ns[last] // BIN_NS
        ring = self._table["bins"]
        ring[np.unique(track.instance[self.rows])] = 0
        kept = pieces.bin >= newest[pieces.segment] - BINS_BACK
        place = (track.instance[pieces.segment[kept]], pieces.bin[kept] % BINS)
        np.add.at(ring, place, pieces.amount_ns[kept])

    def _cut(self) -> _Pieces:
        track, course, rows = self._track, self._course, self.rows
        stops = rows[course.stop_ns[rows] > 0]
        drives = rows[course.driven_ns[rows] > 0]
        owner_row = np.concatenate([stops, drives])
        tag = np.repeat([1, 2], [len(stops), len(drives)])
        time_ns = track.time_ns[owner_row]
        begin = np.where(tag == 1, time_ns - course.stop_ns[owner_row], time_ns)
        end = np.where(tag == 1, time_ns, time_ns + course.driven_ns[owner_row])
        oldest = begin // BIN_NS
        owner, ordinal = seg.expand((end - 1) // BIN_NS - oldest + 1)
        bin_ = oldest[owner] + ordinal
        begin = np.maximum(begin[owner], bin_ * BIN_NS)
        amount = np.minimum(end[owner], (bin_ + 1) * BIN_NS) - begin
        carried = self._carried()
        key = np.concatenate([4 * carried[0], (4 * owner_row + tag)[owner]])
        bin_ = np.concatenate([carried[1], bin_])
        order = np.lexsort((bin_, key))
        key, bin_ = key[order], bin_[order]
        amount = np.concatenate([carried[2], amount])[order]
        segment = self._segment[key // 4]
        return _Pieces(
            key=key,
            bin=bin_,
            begin_ns=np.concatenate([carried[1] * BIN_NS, begin])[order],
            amount_ns=amount,
            segment=segment,
            before_ns=np.concatenate([np.zeros(1, np.int64), np.cumsum(amount)]),
            where=segment * _BIN_SPAN + bin_,
        )

    def _carried(self) -> tuple[Int, Int, Int]:
        """(row, bin, amount) of the rings of carried rows."""
        track, table = self._track, self._table
        rows = self.rows[track.carried[self.rows]]
        ring = table["bins"][track.instance[rows]]
        which, column = np.nonzero(ring)
        newest = track.time_ns[rows[which]] // BIN_NS
        return rows[which], newest - (newest - column) % BINS, ring[which, column]

    def _reached(self) -> Events:
        pieces = self._pieces
        at = np.flatnonzero(pieces.key % 4 == 2)
        row = pieces.key[at] // 4
        limit = self._table["daily_ns"][self._track.instance[row]]
        now = pieces.sums(at, pieces.segment[at], pieces.bin[at])
        hit = (now < limit) & (limit <= now + pieces.amount_ns[at])
        time_ns = (pieces.begin_ns[at] + limit - now)[hit]
        return _events(row[hit], DAILY, time_ns, is_set=True, value=limit[hit] / NS_PER_S)

    def _left(self) -> Events:
        """Every bin leaves the window once, 97 bins after it began. While the vehicle is silent
        nothing is told: it may have driven on."""
        track, course, pieces = self._track, self._course, self._pieces
        one = np.flatnonzero(seg.heads(pieces.where))
        segment, leaves = pieces.segment[one], pieces.bin[one] + BINS
        leaves_ns = leaves * BIN_NS
        row = self._row_before(segment, leaves_ns)
        held = (row >= segment) & (leaves_ns <= (track.time_ns + course.cover_ns)[row])
        segment, leaves, row = segment[held], leaves[held], row[held]
        at = np.searchsorted(pieces.key, 4 * row + 2)
        own = np.searchsorted(pieces.key, 4 * row + 3) - at
        at += np.clip(leaves - track.time_ns[row] // BIN_NS, 0, own)
        was, now = (pieces.sums(at, segment, leaves - 1), pieces.sums(at, segment, leaves))
        ends_at = self._table["daily_reset_ns"][track.instance[row]]
        ends = (now <= ends_at) & (ends_at < was)
        value = now[ends] / NS_PER_S
        return _events(row[ends], DAILY, leaves[ends] * BIN_NS, is_set=False, value=value)

    def _row_before(self, segment: Int, time_ns: Int) -> Int:
        """The last row of each segment before a time; one before the segment if there is none."""
        times = np.unique(self._track.time_ns)
        wide = len(times) + 1
        rows = self._segment * wide + np.searchsorted(times, self._track.time_ns)
        found: Int = np.searchsorted(rows, segment * wide + np.searchsorted(times, time_ns)) - 1
        return found
