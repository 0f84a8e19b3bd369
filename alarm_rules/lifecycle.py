"""The alarm state table: (flags, event) -> (flags, outcome). Values in, values out.

    flags                                    display state, first that holds
    enabled, out_of_service,                 not enabled      DISAB
    suppressed, shelved          hide        out_of_service   OOSRV
    active, acknowledged,        decide      suppressed       DSUPR
    latched                      what is     shelved          SHLVD
    shown, open                  behind      active           UNACK  / ACKED
                                             latched          LATCU  / LATCA
                                             not acknowledged RTNUN,   otherwise NORM

The flags are independent and the display state is derived, because one enumeration loses what goes
on behind a shelf or a suppression: hidden alarms keep following their condition. `open` means an
occurrence asks for attention; `shown` that a person could see it since it opened.

Confirmation (a person states that the corrective action is done), comments, escalation in time and
an edited rule are recorded and never change what is displayed.

Every pair is defined. An outcome is *ok* (taken; the flags may still be equal, as when a shelf is
extended), *noop* (already so: an idempotent success) or *reject* with a reason.

After every event that is taken the flags **settle**: an open occurrence that is visible counts as
shown; one that came and went wholly behind something that hid it is closed without asking anybody,
unless it latched; and one that is acknowledged, inactive and not latched is closed.

Surprising: an activation or return of a disabled alarm is a noop here. The book records it, and
raises it again when the alarm is enabled.

Designed after ISA-18.2-2016 and OPC UA Part 9; `docs/alarm-lifecycle.md` is printed from this file.

Not here: occurrence numbers, times, who may do what (gateway/alarms).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from gateway.model.alarm import AlarmState, Transition

TIMED = "timed"
ONESHOT = "oneshot"


class Outcome(StrEnum):
    """What became of an event."""

    OK = "ok"
    NOOP = "noop"
    REJECT = "reject"


class Reason(StrEnum):
    """Why an event was rejected."""

    HIDDEN = "hidden"
    STILL_ACTIVE = "still_active"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    NOT_ACTIVE = "not_active"
    DISABLED = "disabled"
    OUT_OF_SERVICE = "out_of_service"


class Flags(NamedTuple):
    """The state vector; the defaults are an alarm nothing ever happened to."""

    active: bool = False
    acknowledged: bool = True
    latched: bool = False
    shelved: str = ""  # "", TIMED or ONESHOT
    suppressed: bool = False
    out_of_service: bool = False
    enabled: bool = True
    shown: bool = False
    open: bool = False

    @property
    def hidden(self) -> bool:
        return not self.enabled or self.out_of_service or self.suppressed or bool(self.shelved)


class Step(NamedTuple):
    """The answer of the table. `flags` are the old ones unless the outcome is ok."""

    flags: Flags
    outcome: Outcome
    reason: Reason | None = None


class _Guard(NamedTuple):
    """The first guard that holds decides, and nothing changes."""

    holds: Callable[[Flags], bool]
    reason: Reason | None  # None: not refused, already so


class _Row(NamedTuple):
    guards: tuple[_Guard, ...]
    effect: Callable[[Flags], Flags]


def _already(holds: Callable[[Flags], bool]) -> _Guard:
    return _Guard(holds, None)


def _attend(f: Flags) -> Flags:
    """Hiding ends by itself: what is still active asks for a person again."""
    return f._replace(acknowledged=False) if f.active else f


def _unshelved_by_hand(f: Flags) -> Flags:
    """Who unshelves has taken notice, if nothing else keeps the alarm from their eyes."""
    seen = f.open and not f.suppressed and not f.out_of_service
    return f._replace(shelved="", acknowledged=True if seen else f.acknowledged)


_SHELF_GUARDS = (
    _Guard(lambda f: not f.enabled, Reason.DISABLED),
    _Guard(lambda f: f.out_of_service, Reason.OUT_OF_SERVICE),
)
_NOT_LIVE = _already(lambda f: not f.active or not f.enabled)

_TABLE: Mapping[Transition, _Row] = {
    Transition.ACTIVATED: _Row(
        (_already(lambda f: f.active or not f.enabled),),
        lambda f: f._replace(active=True, acknowledged=False, open=True),  # latch: see step
    ),
    Transition.RETURNED: _Row(
        (_already(lambda f: not f.active),),
        lambda f: f._replace(active=False, shelved="" if f.shelved == ONESHOT else f.shelved),
    ),
    Transition.ESCALATED: _Row((_NOT_LIVE,), lambda f: f._replace(acknowledged=False)),
    Transition.DEESCALATED: _Row((_NOT_LIVE,), lambda f: f),
    Transition.ACKNOWLEDGED: _Row(
        (_Guard(lambda f: f.hidden, Reason.HIDDEN), _already(lambda f: f.acknowledged)),
        lambda f: f._replace(acknowledged=True),
    ),
    Transition.RESET: _Row(
        (
            _already(lambda f: not f.latched),
            _Guard(lambda f: f.hidden, Reason.HIDDEN),
            _Guard(lambda f: f.active, Reason.STILL_ACTIVE),
            _Guard(lambda f: not f.acknowledged, Reason.NOT_ACKNOWLEDGED),
        ),
        lambda f: f._replace(latched=False),
    ),
    Transition.SHELVED: _Row(_SHELF_GUARDS, lambda f: f._replace(shelved=TIMED)),
    Transition.SHELVED_ONCE: _Row(
        (*_SHELF_GUARDS, _Guard(lambda f: not f.active, Reason.NOT_ACTIVE)),
        lambda f: f._replace(shelved=ONESHOT),
    ),
    Transition.UNSHELVED: _Row((_already(lambda f: not f.shelved),), _unshelved_by_hand),
    Transition.SHELF_EXPIRED: _Row(
        (_already(lambda f: not f.shelved),), lambda f: _attend(f._replace(shelved=""))
    ),
    Transition.SUPPRESSED: _Row(
        (_already(lambda f: f.suppressed),), lambda f: f._replace(suppressed=True)
    ),
    Transition.UNSUPPRESSED: _Row(
        (_already(lambda f: not f.suppressed),), lambda f: f._replace(suppressed=False)
    ),
    Transition.OUT_OF_SERVICE: _Row(
        (_already(lambda f: f.out_of_service),), lambda f: f._replace(out_of_service=True)
    ),
    Transition.RETURNED_TO_SERVICE: _Row(
        (_already(lambda f: not f.out_of_service),),
        lambda f: _attend(f._replace(out_of_service=False)),
    ),
    Transition.REALARMED: _Row(
        (_already(lambda f: not (f.active and f.acknowledged) or f.hidden),),
        lambda f: f._replace(acknowledged=False),
    ),
    Transition.DISABLED: _Row(
        (_already(lambda f: not f.enabled),),
        # What else hides it is kept: it was not disabled that put it there.
        lambda f: Flags(suppressed=f.suppressed, out_of_service=f.out_of_service, enabled=False),
    ),
    Transition.ENABLED: _Row((_already(lambda f: f.enabled),), lambda f: f._replace(enabled=True)),
    Transition.COMMENTED: _Row((), lambda f: f),
    Transition.HISTORICAL: _Row((), lambda f: f),
    Transition.CONFIRMED: _Row(
        (_Guard(lambda f: not f.acknowledged, Reason.NOT_ACKNOWLEDGED),), lambda f: f
    ),
    Transition.OVERDUE: _Row((_already(lambda f: f.acknowledged or f.hidden),), lambda f: f),
    Transition.RULE_CHANGED: _Row((), lambda f: f),
    # What hid it goes too: should the rule come back, nothing forgotten may keep it silent.
    Transition.REMOVED: _Row((_already(lambda f: f == Flags()),), lambda _: Flags()),
}

_DISPLAY: tuple[tuple[Callable[[Flags], bool], AlarmState], ...] = (  # first that holds
    (lambda f: not f.enabled, AlarmState.DISABLED),
    (lambda f: f.out_of_service, AlarmState.OUT_OF_SERVICE),
    (lambda f: f.suppressed, AlarmState.SUPPRESSED),
    (lambda f: bool(f.shelved), AlarmState.SHELVED),
    (lambda f: f.active and not f.acknowledged, AlarmState.UNACKNOWLEDGED),
    (lambda f: f.active, AlarmState.ACKNOWLEDGED),
    (lambda f: f.latched and not f.acknowledged, AlarmState.LATCHED_UNACKNOWLEDGED),
    (lambda f: f.latched, AlarmState.LATCHED_ACKNOWLEDGED),
    (lambda f: not f.acknowledged, AlarmState.RETURNED_UNACKNOWLEDGED),
    (lambda _: True, AlarmState.NORMAL),
)

EVENTS: tuple[Transition, ...] = tuple(_TABLE)


@cache  # the domain is finite: 768 vectors x 23 events x 2
def step(flags: Flags, event: Transition, *, latching: bool = False) -> Step:
    """What `event` makes of `flags`. `latching` is of the level reached, and matters to an
    activation and to an escalation: one into a latching level latches, none takes a latch away."""
    row = _TABLE[event]
    for guard in row.guards:
        if guard.holds(flags):
            outcome = Outcome.NOOP if guard.reason is None else Outcome.REJECT
            return Step(flags, outcome, guard.reason)
    after = row.effect(flags)
    if event is Transition.ACTIVATED:
        after = after._replace(latched=latching)
    elif event is Transition.ESCALATED and latching:
        after = after._replace(latched=True)
    return Step(_settle(after), Outcome.OK)


@cache
def display(flags: Flags) -> AlarmState:
    """The state a person is shown, derived."""
    return next(state for holds, state in _DISPLAY if holds(flags))


def reachable(*, latching: bool) -> frozenset[Flags]:
    """Every vector some history leads to."""
    found = {Flags()}
    edge = [Flags()]
    while edge:
        flags = edge.pop()
        for event in EVENTS:
            after = step(flags, event, latching=latching).flags
            if after not in found:
                found.add(after)
                edge.append(after)
    return frozenset(found)


def matrix(*, latching: bool) -> dict[tuple[AlarmState, Transition], frozenset[str]]:
    """What can become of each display state: target states, "=" (noop), "✗" (rejected).

    Several entries are told apart by flags the display state does not show.
    """
    cells: dict[tuple[AlarmState, Transition], set[str]] = {}
    for flags in reachable(latching=latching):
        for event in EVENTS:
            after, outcome, _ = step(flags, event, latching=latching)
            cells.setdefault((display(flags), event), set()).add(
                {Outcome.NOOP: "=", Outcome.REJECT: "✗"}.get(outcome, display(after).value)
            )
    return {key: frozenset(values) for key, values in cells.items()}


def render_matrix() -> str:
    """The transition matrix as Markdown, from the running table."""
    parts = [_PREAMBLE]
    for latching in (False, True):
        cells = matrix(latching=latching)
        count = len(reachable(latching=latching))
        parts.append(f"\n## {'Latching' if latching else 'Not latching'}: {count} vectors\n")
        parts.append("| from \\ event | " + " | ".join(EVENTS) + " |")
        parts.append("|---" * (len(EVENTS) + 1) + "|")
        for state in AlarmState:
            if (state, Transition.ACTIVATED) in cells:
                row = (_cell(cells[state, event]) for event in EVENTS)
                parts.append(f"| {state} | " + " | ".join(row) + " |")
    return "\n".join(parts) + "\n"


_PREAMBLE = """\
# Alarm life cycle

Printed from `alarm_rules/lifecycle.py` by exhaustive search; do not edit. To print it again:

    python -c "from alarm_rules.lifecycle import render_matrix; print(render_matrix(), end='')"

`=` accepted, nothing changes · `✗` refused with a reason · several targets are decided by flags the
display state does not show (what is behind a shelf, whether it was ever shown).

ACT/RTN condition true/false after delays · ESC/DEESC level up/down while active · ACK acknowledge ·
RST reset of a latch · SHV/SH1 shelve for a time / until it returns · UNS unshelve by hand ·
EXP shelf ran out · SUP/UNP suppression on / last source off · OOS/RTS out of / back in service ·
REA re-alarm timer · DIS/ENA disabled/enabled · CMT comment · HIST late data, recorded only ·
CNF corrective action confirmed · OVD not acknowledged in time, further people told ·
EDT rule edited · REM rule removed, or its point no longer matches."""


def _cell(found: frozenset[str]) -> str:
    order = [*(state.value for state in AlarmState), "=", "✗"]
    return " / ".join(sorted(found, key=order.index))


def _settle(f: Flags) -> Flags:
    if f.open and not f.acknowledged and not f.hidden:
        if f.active or f.shown or f.latched:
            f = f._replace(shown=True)
        else:
            f = f._replace(acknowledged=True)  # came and went unseen
    if f.open and f.acknowledged and not f.active and not f.latched:
        f = f._replace(open=False, shown=False)
    return f
