"""What a person may ask of an alarm, who may ask it, and why the answer is no.

    Command(action, alarm_key, actor, role, …)  --AlarmBook.command-->  CommandResult(code, reason)

Refusals carry a stable word and the HTTP status that says the same: 403 not you, 404 no such alarm,
409 not in this state (what you saw is not what is), 422 the request lacks something.

Roles and limits follow IEC 62443-4-2 CR 2.1 and common shift practice: operators acknowledge and
shelve, the shift lead takes out of service and shelves high priority, the engineer owns the rules.
Security administration and audit touch no alarm: the three are kept apart (GB/T 22239, 8.1.5).

Not here: who is logged in as what (gateway/api), and what the flags allow (alarm_rules/lifecycle).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.alarms.policy import SHELF_MAX_NS
from gateway.alarms.relations import is_automatic
from gateway.model.alarm import Alarm, AlarmEvent, Transition
from gateway.model.rule import Priority

TEXT_LENGTH_MAX = 500
"""Characters of a reason, comment, permit or source: a remark, not a report; it is in every row."""
SOURCES_MAX = 16
"""Suppression sources of one alarm; the next one is refused."""


class Action(StrEnum):
    """What can be asked."""

    ACKNOWLEDGE = "acknowledge"
    CONFIRM = "confirm"  # the corrective action is done; `text` says what was done
    COMMENT = "comment"
    SHELVE = "shelve"
    SHELVE_ONCE = "shelve_once"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    OUT_OF_SERVICE = "out_of_service"
    RETURN_TO_SERVICE = "return_to_service"
    RESET = "reset"
    DISABLE = "disable"
    ENABLE = "enable"


class Role(StrEnum):
    """Who asks. SYSTEM is the gateway's own logic (state-based suppression)."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    SHIFT_LEAD = "shift_lead"
    ENGINEER = "engineer"
    SECURITY_ADMIN = "security_admin"
    AUDITOR = "auditor"
    SYSTEM = "system"


class Refusal(StrEnum):
    """Why not. The words of `alarm_rules.lifecycle.Reason` are among these."""

    FORBIDDEN = "forbidden"
    SECOND_PERSON_REQUIRED = "second_person_required"
    UNKNOWN_ALARM = "unknown_alarm"
    STALE_TOKEN = "stale_token"  # noqa: S105 - not a password
    HIDDEN = "hidden"
    STILL_ACTIVE = "still_active"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    NOT_ACTIVE = "not_active"
    NO_OCCURRENCE = "no_occurrence"
    DISABLED = "disabled"
    OUT_OF_SERVICE = "out_of_service"
    NOT_SHELVABLE = "not_shelvable"
    TOO_MANY_SOURCES = "too_many_sources"
    TOKEN_REQUIRED = "token_required"  # noqa: S105 - not a password
    REASON_REQUIRED = "reason_required"
    PERMIT_REQUIRED = "permit_required"
    SOURCE_REQUIRED = "source_required"
    UNTIL_REQUIRED = "until_required"
    UNTIL_PAST = "until_past"
    SHELF_TOO_LONG = "shelf_too_long"
    TEXT_TOO_LONG = "text_too_long"
    ACTOR_REQUIRED = "actor_required"

    @property
    def code(self) -> int:
        """The HTTP status that says the same."""
        return _CODES.get(self, 409)


_CODES: Mapping[Refusal, int] = {
    Refusal.FORBIDDEN: 403,
    Refusal.SECOND_PERSON_REQUIRED: 403,
    Refusal.UNKNOWN_ALARM: 404,
    Refusal.TOKEN_REQUIRED: 422,
    Refusal.REASON_REQUIRED: 422,
    Refusal.PERMIT_REQUIRED: 422,
    Refusal.SOURCE_REQUIRED: 422,
    Refusal.UNTIL_REQUIRED: 422,
    Refusal.UNTIL_PAST: 422,
    Refusal.SHELF_TOO_LONG: 422,
    Refusal.TEXT_TOO_LONG: 422,
    Refusal.ACTOR_REQUIRED: 422,
}

_OPERATORS = frozenset({Role.OPERATOR, Role.SHIFT_LEAD})
_LEAD = frozenset({Role.SHIFT_LEAD})
_ENGINEER = frozenset({Role.ENGINEER})

MAY: Mapping[Action, frozenset[Role]] = {
    Action.ACKNOWLEDGE: _OPERATORS,
    Action.CONFIRM: _OPERATORS,
    Action.COMMENT: _OPERATORS | _ENGINEER,
    Action.SHELVE: _OPERATORS,  # high priority: the shift lead, see `refusal_of`
    Action.SHELVE_ONCE: _OPERATORS,
    Action.UNSHELVE: _OPERATORS,
    Action.SUPPRESS: _LEAD | {Role.SYSTEM},
    Action.UNSUPPRESS: _LEAD | {Role.SYSTEM},
    Action.OUT_OF_SERVICE: _LEAD,
    Action.RETURN_TO_SERVICE: _LEAD,
    Action.RESET: _OPERATORS,
    Action.DISABLE: _ENGINEER,
    Action.ENABLE: _ENGINEER,
}

TRANSITION: Mapping[Action, Transition] = {
    Action.ACKNOWLEDGE: Transition.ACKNOWLEDGED,
    Action.CONFIRM: Transition.CONFIRMED,
    Action.COMMENT: Transition.COMMENTED,
    Action.SHELVE: Transition.SHELVED,
    Action.SHELVE_ONCE: Transition.SHELVED_ONCE,
    Action.UNSHELVE: Transition.UNSHELVED,
    Action.SUPPRESS: Transition.SUPPRESSED,
    Action.UNSUPPRESS: Transition.UNSUPPRESSED,
    Action.OUT_OF_SERVICE: Transition.OUT_OF_SERVICE,
    Action.RETURN_TO_SERVICE: Transition.RETURNED_TO_SERVICE,
    Action.RESET: Transition.RESET,
    Action.DISABLE: Transition.DISABLED,
    Action.ENABLE: Transition.ENABLED,
}

_SHELVING = (Action.SHELVE, Action.SHELVE_ONCE)
_NEEDS_TOKEN = (Action.ACKNOWLEDGE, Action.CONFIRM)
_NEEDS_REASON = (
    *_SHELVING,
    Action.CONFIRM,
    Action.COMMENT,
    Action.SUPPRESS,
    Action.OUT_OF_SERVICE,
    Action.DISABLE,
)
_HIDES_FOR_GOOD = (Action.SUPPRESS, Action.DISABLE)
_NEEDS_SOURCE = (Action.SUPPRESS, Action.UNSUPPRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One request. `text` is the reason or the comment; blank is absent."""

    action: Action
    alarm_key: str
    actor: str
    role: Role
    text: str = ""
    token: str = ""  # `token_of(alarm)` as the person saw it; acknowledge and confirm need it
    until_ns: int | None = None  # shelve
    source: str = ""  # suppress, unsuppress: which logic or whose decision
    permit: str = ""  # out of service: the number of the work permit
    approved_by: str = ""  # the second person, where one is needed


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The answer. Accepted without events: it was already so. Journal the events, then answer."""

    refusal: Refusal | None = None
    events: tuple[AlarmEvent, ...] = ()
    alarm: Alarm | None = None  # as it stands now, whether accepted or not

    @property
    def accepted(self) -> bool:
        return self.refusal is None

    @property
    def code(self) -> int:
        return 200 if self.refusal is None else self.refusal.code

    @property
    def reason(self) -> str:
        return "" if self.refusal is None else self.refusal.value


def token_of(alarm: Alarm) -> str:
    """What an acknowledgement must repeat: which occurrence, and how far the person saw it."""
    return f"{alarm.occ_no}:{alarm.seq}"


def urgency_of(alarm: Alarm) -> Priority:
    """What limits shelving and suppression: the most urgent of all levels the alarm can reach."""
    return alarm.priority if alarm.top_priority is None else alarm.top_priority


def refusal_of(
    command: Command,
    alarm: Alarm,
    now_ns: int,
    *,
    shelf_max_ns: Mapping[Priority, int] = SHELF_MAX_NS,
) -> Refusal | None:
    """What forbids the command before the state table is asked; None if nothing does."""
    urgency = urgency_of(alarm)
    return (
        _refused_person(command, urgency)
        or _refused_form(command)
        or _refused_token(command, alarm)
        or _refused_shelf(command, shelf_max_ns.get(urgency), now_ns)
        or _refused_source(command, alarm)
    )


def _refused_person(command: Command, urgency: Priority) -> Refusal | None:
    if not command.actor.strip():
        return Refusal.ACTOR_REQUIRED
    if command.role not in MAY[command.action]:
        return Refusal.FORBIDDEN
    if command.action in _SHELVING and urgency == Priority.HIGH and command.role not in _LEAD:
        return Refusal.FORBIDDEN
    if command.action in _HIDES_FOR_GOOD and urgency == Priority.CRITICAL:
        second = command.approved_by.strip()
        if not second or second == command.actor.strip():
            return Refusal.SECOND_PERSON_REQUIRED
    return None


def _refused_form(command: Command) -> Refusal | None:
    texts = (command.text, command.source, command.permit, command.actor, command.approved_by)
    if max(map(len, texts)) > TEXT_LENGTH_MAX:
        return Refusal.TEXT_TOO_LONG
    if command.action in _NEEDS_REASON and not command.text.strip():
        return Refusal.REASON_REQUIRED
    if command.action is Action.OUT_OF_SERVICE and not command.permit.strip():
        return Refusal.PERMIT_REQUIRED
    if command.action in _NEEDS_SOURCE and not command.source.strip():
        return Refusal.SOURCE_REQUIRED
    return None


def _refused_token(command: Command, alarm: Alarm) -> Refusal | None:
    """Stale: another occurrence, or it asked again (escalated, came back) after what was seen.

    A comment or a return to normal in between does not spoil a token: nothing new asks for a
    person. Other actions than acknowledge may carry a token, and are then held to it.
    """
    if not command.token:
        return Refusal.TOKEN_REQUIRED if command.action in _NEEDS_TOKEN else None
    occ_no, _, seq = command.token.partition(":")
    if not (occ_no.isascii() and occ_no.isdigit() and seq.isascii() and seq.isdigit()):
        return Refusal.STALE_TOKEN
    if len(command.token) > 40 or int(occ_no) != alarm.occ_no:  # two 64-bit numbers fit in 40
        return Refusal.STALE_TOKEN
    return None if alarm.attention_seq <= int(seq) <= alarm.seq else Refusal.STALE_TOKEN


def _refused_shelf(command: Command, max_ns: int | None, now_ns: int) -> Refusal | None:
    if command.action not in _SHELVING:
        return None
    if max_ns is None:
        return Refusal.NOT_SHELVABLE
    if command.until_ns is None:
        return Refusal.UNTIL_REQUIRED if command.action is Action.SHELVE else None
    if command.until_ns <= now_ns:
        return Refusal.UNTIL_PAST
    return Refusal.SHELF_TOO_LONG if command.until_ns > now_ns + max_ns else None


def _refused_source(command: Command, alarm: Alarm) -> Refusal | None:
    """A person neither takes the gateway's own sources away nor speaks in their name."""
    if command.action is Action.CONFIRM and not alarm.occ_no:
        return Refusal.NO_OCCURRENCE
    if command.action not in _NEEDS_SOURCE:
        return None
    if is_automatic(command.source):
        return Refusal.FORBIDDEN
    new = command.source not in alarm.suppressed_by
    full = new and len(alarm.suppressed_by) >= SOURCES_MAX
    return Refusal.TOO_MANY_SOURCES if command.action is Action.SUPPRESS and full else None
