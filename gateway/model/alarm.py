"""Alarms and their transitions, as every consumer sees them.

The flags are orthogonal and the display state is derived from them (see
`alarm_rules/lifecycle.py`, which owns the transitions; nothing here decides anything). An event's
identity is `(alarm_key, occ_no, seq)`: publishers may repeat an event, consumers drop what they
have seen. Times are UTC nanoseconds of the event, not of its processing, except `recorded_time_ns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model.rule import Citation, Priority

SHELF_MAX_S: Mapping[Priority, int] = {
    # One shift; an hour for what is urgent; never for what is critical (no entry).
    Priority.HIGH: 3_600,
    Priority.MEDIUM: 8 * 3_600,
    Priority.LOW: 8 * 3_600,
}
"""How long an alarm may be shelved at most; a site may shorten it, never lengthen it."""


class AlarmState(StrEnum):
    """The derived display state."""

    NORMAL = "NORM"
    UNACKNOWLEDGED = "UNACK"
    ACKNOWLEDGED = "ACKED"
    RETURNED_UNACKNOWLEDGED = "RTNUN"
    LATCHED_UNACKNOWLEDGED = "LATCU"
    LATCHED_ACKNOWLEDGED = "LATCA"
    SHELVED = "SHLVD"
    SUPPRESSED = "DSUPR"
    OUT_OF_SERVICE = "OOSRV"
    DISABLED = "DISAB"


class Transition(StrEnum):
    """What happened to an alarm: the events of the life cycle."""

    ACTIVATED = "ACT"
    RETURNED = "RTN"
    ESCALATED = "ESC"
    DEESCALATED = "DEESC"
    ACKNOWLEDGED = "ACK"
    RESET = "RST"
    SHELVED = "SHV"
    SHELVED_ONCE = "SH1"
    UNSHELVED = "UNS"
    SHELF_EXPIRED = "EXP"
    SUPPRESSED = "SUP"
    UNSUPPRESSED = "UNP"
    OUT_OF_SERVICE = "OOS"
    RETURNED_TO_SERVICE = "RTS"
    REALARMED = "REA"
    DISABLED = "DIS"
    ENABLED = "ENA"
    COMMENTED = "CMT"
    HISTORICAL = "HIST"  # found in late data, or while disabled: recorded, never annunciated
    CONFIRMED = "CNF"  # a person states that the corrective action is done
    OVERDUE = "OVD"  # nobody acknowledged it in time: further people are told, nothing else changes
    RULE_CHANGED = "EDT"  # the rule was edited while the alarm stood or was hidden
    REMOVED = "REM"  # its rule, or its point's place in the rule, is gone: closed, row taken away


@dataclass(frozen=True, slots=True)
class Alarm:
    """The live row of one alarm key: everything a screen or a retained topic shows."""

    alarm_key: str
    rule_id: str
    rule_kind: str
    target: str  # the point, device, area or adapter it is about
    point_id: str  # the point whose sample decided, "" if none did
    priority: Priority
    # --- flags
    active: bool = False
    acknowledged: bool = True
    latched: bool = False
    shelved: str = ""  # "", "timed" or "oneshot"
    suppressed_by: tuple[str, ...] = ()
    out_of_service: bool = False
    enabled: bool = True
    open: bool = False  # an occurrence asks for attention
    shown: bool = False  # this occurrence was annunciated at least once
    state: AlarmState = AlarmState.NORMAL
    # --- what and why
    level: str = ""  # HH, H, L, LL, OFFLINE, … of the condition
    scheme: str = ""
    scheme_level: str = ""
    value: float | None = None  # that made the level in force
    peak: float | None = None
    limit: float | None = None
    unit: str = ""
    quality: int = 0
    name: Mapping[str, str] = field(default_factory=dict)
    action: Mapping[str, str] = field(default_factory=dict)
    location: str = ""
    area: str = ""
    display_name: str = ""  # of the point, device or area, as people there call it
    citation: Citation = Citation()
    rule_version: str = ""
    # --- identity and times
    occ_no: int = 0
    seq: int = 0
    epoch: int = 0
    gseq: int = 0
    condition_time_ns: int | None = None  # the raw condition began
    active_time_ns: int | None = None  # condition + on-delay
    return_time_ns: int | None = None
    acknowledged_time_ns: int | None = None
    acknowledged_by: str = ""
    comment: str = ""
    shelved_until_ns: int | None = None
    reactivation_count: int = 0
    # --- what the book needs to go on after a restart, and a screen may show
    planned: bool = False  # the sensor is under calibration: recorded, nobody is called
    top_priority: Priority | None = None  # the most urgent of all its levels: limits shelving
    attention_seq: int = 0  # seq that last asked for a person: an acknowledgement must have seen it
    unacknowledged_from: int = 0  # the first occurrence nobody acknowledged; 0 for none
    hidden_note: str = ""  # who shelved, suppressed, disabled or took it out of service, and why
    judged_time_ns: int | None = None  # event time of the newest verdict of the rule core
    judged: tuple[str, ...] = ()  # the levels it gave at that instant; the last holds, "" is normal
    # --- later than the first journals; left out of a record where nothing is in them
    initial_value: float | None = None  # at activation
    level_time_ns: int | None = None  # the level in force took effect
    first_out: tuple[str, ...] = ()  # groups in which this occurrence came first
    confirmed_by: str = ""  # who stated that the corrective action is done
    confirmed_time_ns: int | None = None
    attention_time_ns: int | None = None  # since when it waits, in sight, for a person
    overdue_step: int = 0  # escalation steps told since then
    realarm_count: int = 0  # in this occurrence
    shelvings: tuple[int, ...] = ()  # when it was shelved in the last seven days
    removed: bool = False  # its rule is gone; kept for its numbers only
    rule_digest: str = ""  # of the rule and its levels as they were judged by


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One transition as journalled and published, with the row as it stood right after it."""

    transition: Transition
    alarm: Alarm  # the state after the transition; carries key, occ_no, seq and gseq
    time_ns: int  # when it happened, in event time
    recorded_time_ns: int  # when the gateway found out
    from_state: AlarmState
    annunciate: bool  # asks for a person now, in sight: to be sounded (flood.py says how)
    value: float | None = None
    limit: float | None = None
    actor: str = ""  # "" for the process itself
    comment: str = ""
    late: bool = False
    level: str = ""  # of this transition; for HISTORICAL the level found, "" for its end
    step: int = 0  # OVERDUE: which escalation step, from 1
    recipients: tuple[str, ...] = ()  # OVERDUE: who is told, as the site names them

    @property
    def identity(self) -> tuple[str, int, int]:
        return (self.alarm.alarm_key, self.alarm.occ_no, self.alarm.seq)
