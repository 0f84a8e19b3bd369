"""What a minute of a point owed, what it got, and the one reason of a gap. Pure arrays.

**due** samples of a point in a minute: whole ones that fit, 60 s / interval, for an interval of up
to 30 s; else one, which is met by a sample in the minute or in the `reach` minutes before it, as
many as an interval is long. A point without a declared interval, or with one longer than a day,
owes nothing: it is *not expected*, never guessed.

**got**: samples that are not bad and came in time, at most what was due. Of two or more due, one
may be missing: it has slipped over the minute's edge, where it is surplus.

**gap** = due - got, with exactly one reason, the first that holds:

    pending         the minute is not over yet, or rows of it may still be on their way
    gateway_down    we did not run
    clock           our clock was set: these minutes were never lived, or twice
    lost_damage     the spool lost rows about then
    disk_down       our disk took no rows: nothing was acknowledged, judging went on from memory
    dropped_budget  intake refused rows: the byte budget was spent
    thinned         intake kept a share of the rows only, by policy
    adapter_down    the way in was not up
    bad_quality     samples came, and were bad
    late            samples came, but more than `delayed_after_s` after their time
    device_silent   nothing came, and none of the above

For a point that is due once in several minutes a reason holds if it held in any of them.

**online rate** 在线率: `online_rate`, here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.cells import Array

MINUTE_S = 60
WHOLE_INTERVAL_MAX_S = 30.0  # two due a minute; above it one may slip from every minute
INTERVAL_MAX_S = 86_400.0  # what comes less than daily is no matter of minutes
LONG_AGO = -(2**40)  # a minute before all


class Reason(IntEnum):
    """Why something is missing. The order is the order of asking."""

    NONE = 0
    PENDING = 1
    GATEWAY_DOWN = 2
    CLOCK = 3
    LOST_DAMAGE = 4
    DISK_DOWN = 5
    DROPPED_BUDGET = 6
    THINNED = 7
    ADAPTER_DOWN = 8
    BAD_QUALITY = 9
    LATE = 10
    DEVICE_SILENT = 11
    REJECTED = 12  # by a consumer: refused for good, set aside
    NOT_ASKED = 13  # of a consumer: the rows are older than it, or of a spool that is no more

    @property
    def word(self) -> str:
        return self.name.lower()


GAP_REASONS = tuple(r for r in Reason if Reason.NONE < r <= Reason.DEVICE_SILENT)
ROW_REASONS = (
    Reason.PENDING,
    Reason.LOST_DAMAGE,
    Reason.DROPPED_BUDGET,
    Reason.THINNED,
    Reason.REJECTED,
    Reason.NOT_ASKED,
)
"""Why a consumer does not have a row that was received."""
OUTAGES = (
    Reason.GATEWAY_DOWN,
    Reason.CLOCK,
    Reason.LOST_DAMAGE,
    Reason.DISK_DOWN,
    Reason.DROPPED_BUDGET,
    Reason.THINNED,
)


def due_of(interval_s: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Samples due in a minute and how many minutes before it count; NaN or 0 owes nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        is_due = (interval_s > 0) & (interval_s <= INTERVAL_MAX_S)
        whole = is_due & (interval_s <= WHOLE_INTERVAL_MAX_S)
        many = np.where(whole, np.floor(MINUTE_S / interval_s + 1e-9), 1.0)
        reach = np.where(is_due & ~whole, np.ceil(interval_s / MINUTE_S), 0.0)
    return np.where(is_due, many, 0).astype(np.int32), reach.astype(np.int32)


def online_rate(online: int, due: int, pending: int) -> float | None:
    """在线率: the share of expected point-minutes in which the point was seen.

    Expected (`due`): the point owed a sample in that minute. Seen (`online`): `got` above 0, that
    is at least one sample, in time and not bad. `pending`: not seen, but the minute is not
    over; nobody can say yet, so it counts on neither side. Of a device, an area, an adapter or an
    enterprise: the point-minutes of all its points together. None when nothing was expected: no
    rate, not 100 %. The same share of samples instead of minutes is the completeness.
    """
    return online / (due - pending) if due > pending else None


@dataclass
class Facts:
    """Minutes [first, first + M) of P points, as far as gaps are concerned."""

    first: int
    good: Array  # [M, P] in time and not bad
    bad: Array
    delayed: Array  # not bad, and delayed
    due: Array  # [M, P]
    reach: Array  # [M, P]
    before: dict[str, Array]  # good, bad, delayed: [P] the last minute before `first` with any
    closed: Array  # [M] over, and everything received then is counted
    outage: dict[Reason, Array]  # [M] the last minute up to this one that it touched
    adapter_outage: Array  # [M, P] likewise, of the point's own adapter


@dataclass
class Settled:
    """due = got + gap, and every gap has its reason."""

    due: Array
    got: Array
    reason: NDArray[np.uint8]  # NONE where there is no gap


def settle(facts: Facts) -> Settled:
    """Judge every minute of every point."""
    due, reach = facts.due, facts.reach
    minute = facts.first + np.arange(len(due))[:, None]
    many = due >= 2
    fast = np.where(facts.good >= due - 1, due, facts.good)
    slow = np.where(minute - last_seen(facts, "good") <= reach, due, 0)
    got = np.where(many, fast, slow)
    reason = np.zeros(due.shape, np.uint8)
    missing = got < due

    def give(code: Reason, holds: Any) -> None:
        reason[(reason == 0) & missing & holds] = code

    give(Reason.PENDING, ~facts.closed[:, None])
    for code in OUTAGES:
        if code in facts.outage:
            give(code, minute - facts.outage[code][:, None] <= reach)
    give(Reason.ADAPTER_DOWN, minute - facts.adapter_outage <= reach)
    give(Reason.BAD_QUALITY, minute - last_seen(facts, "bad") <= reach)
    give(Reason.LATE, minute - last_seen(facts, "delayed") <= reach)
    give(Reason.DEVICE_SILENT, missing)
    return Settled(due, got, reason)


def last_seen(facts: Facts, name: str) -> Array:
    """[M, P] the last minute up to this one in which there was any."""
    counts = getattr(facts, name)
    minute = facts.first + np.arange(len(counts))[:, None]
    seen = np.where(counts > 0, minute, LONG_AGO)
    if len(seen):
        seen[0] = np.maximum(seen[0], facts.before[name])
    return np.asarray(np.maximum.accumulate(seen, axis=0))


def last_touched(ranges: list[tuple[int, int]], first: int, size: int) -> NDArray[np.int64]:
    """For each of the minutes [first, first + size) the last one up to it that a range touches.
    Ranges are minutes, both ends included."""
    minute = first + np.arange(size)
    touched = np.full(size, LONG_AGO, np.int64)
    for begin, end in ranges:
        touched = np.maximum(touched, np.where(minute >= begin, np.minimum(minute, end), LONG_AGO))
    return touched
