"""The state table: every reachable vector x every event, against the life cycle told by hand."""

from pathlib import Path

import pytest

from alarm_rules import lifecycle
from alarm_rules.lifecycle import EVENTS, Flags, Outcome, Reason, display, matrix, reachable, step
from gateway.model.alarm import AlarmState, Transition
from gateway.testing.alarms import AlarmSpec

T = Transition
LATCHING = pytest.mark.parametrize("latching", [False, True])


def check_step(flags: Flags, event: Transition, *, latching: bool) -> None:
    spec = AlarmSpec(latching=latching).at(flags)
    answer = spec.do(event)
    taken = step(flags, event, latching=latching)
    assert taken.outcome == answer, (flags, event)
    assert taken.flags == spec.vector(), (flags, event)
    assert (taken.reason is not None) == (answer == "reject")
    if answer != "ok":
        assert taken.flags == flags


@LATCHING
def test_every_reachable_vector_and_event_does_what_the_specification_says(latching: bool) -> None:
    for flags in reachable(latching=latching):
        for event in EVENTS:
            check_step(flags, event, latching=latching)


@pytest.mark.parametrize(("latching", "count"), [(False, 74), (True, 90)])
def test_the_search_reaches_as_many_vectors_as_the_specification_counts(
    latching: bool, count: int
) -> None:
    assert len(reachable(latching=latching)) == count


def test_every_transition_of_the_vocabulary_is_an_event_of_the_table() -> None:
    assert set(EVENTS) == set(Transition)


# The transition matrix as the reference gives it: one row a state, one column an event.
# "/" several targets, decided by flags the state does not show.
COLUMNS = tuple(
    T(word)
    for word in [
        "ACT",
        "RTN",
        "ESC",
        "ACK",
        "RST",
        "SHV",
        "SH1",
        "UNS",
        "EXP",
        "SUP",
        "UNP",
        "OOS",
        "RTS",
        "REA",
        "DIS",
        "ENA",
    ]
)
REFERENCE = """
NORM  | UNACK | = | = | = | = | SHLVD | ✗ | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
UNACK | = | RTNUN | UNACK | ACKED | = | SHLVD | SHLVD | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
ACKED | = | NORM | UNACK | = | = | SHLVD | SHLVD | = | = | DSUPR | = | OOSRV | = | UNACK | DISAB | =
RTNUN | UNACK | = | = | NORM | = | SHLVD | ✗ | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
SHLVD | SHLVD | SHLVD/NORM/RTNUN | SHLVD | ✗ | = | SHLVD | SHLVD/✗ | ACKED/NORM | UNACK/RTNUN/NORM | DSUPR | = | OOSRV | = | = | DISAB | =
DSUPR | DSUPR | DSUPR | DSUPR | ✗ | = | DSUPR | DSUPR/✗ | DSUPR | DSUPR | = | UNACK/ACKED/RTNUN/NORM/SHLVD | OOSRV | = | = | DISAB | =
OOSRV | OOSRV | OOSRV | OOSRV | ✗ | = | ✗ | ✗ | OOSRV | OOSRV | OOSRV | OOSRV | = | UNACK/RTNUN/NORM/SHLVD/DSUPR | = | DISAB | =
DISAB | = | = | = | ✗ | = | ✗ | ✗ | = | = | DISAB | DISAB | DISAB | DISAB | = | = | NORM/DSUPR/OOSRV
"""
REFERENCE_LATCHING = """
NORM  | UNACK | = | = | = | = | SHLVD | ✗ | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
UNACK | = | LATCU | UNACK | ACKED | ✗ | SHLVD | SHLVD | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
ACKED | = | LATCA | UNACK | = | ✗ | SHLVD | SHLVD | = | = | DSUPR | = | OOSRV | = | UNACK | DISAB | =
LATCU | UNACK | = | = | LATCA | ✗ | SHLVD | ✗ | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
LATCA | UNACK | = | = | = | NORM | SHLVD | ✗ | = | = | DSUPR | = | OOSRV | = | = | DISAB | =
SHLVD | SHLVD | SHLVD/LATCU/LATCA | SHLVD | ✗ | ✗ | SHLVD | SHLVD/✗ | ACKED/NORM/LATCA | UNACK/NORM/LATCU/LATCA | DSUPR | = | OOSRV | = | = | DISAB | =
DSUPR | DSUPR | DSUPR | DSUPR | ✗ | ✗ | DSUPR | DSUPR/✗ | DSUPR | DSUPR | = | UNACK/ACKED/NORM/SHLVD/LATCU/LATCA | OOSRV | = | = | DISAB | =
OOSRV | OOSRV | OOSRV | OOSRV | ✗ | ✗ | ✗ | ✗ | OOSRV | OOSRV | OOSRV | OOSRV | = | UNACK/NORM/SHLVD/DSUPR/LATCU/LATCA | = | DISAB | =
DISAB | = | = | = | ✗ | = | ✗ | ✗ | = | = | DISAB | DISAB | DISAB | DISAB | = | = | NORM/DSUPR/OOSRV
"""
HIDDEN = {AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE, AlarmState.DISABLED}


@pytest.mark.parametrize(
    ("latching", "text"),
    [(False, REFERENCE), (True, REFERENCE_LATCHING)],
    ids=["plain", "latching"],
)
def test_the_running_table_reproduces_the_reference_matrix(latching: bool, text: str) -> None:
    found = matrix(latching=latching)
    states = set()
    for line in text.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        state = AlarmState(name)
        states.add(state)
        for event, cell in zip(COLUMNS, cells, strict=True):
            got = set(found[state, event])
            if state in HIDDEN:
                got.discard("=")  # behind what hides it the event may already be so
                wanted = set(cell.split("/")) - {"="}
            else:
                wanted = set(cell.split("/"))
            assert got == wanted, (state, event)
    assert states == {state for state, _ in found}


def test_the_printed_life_cycle_in_the_documentation_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "alarm-lifecycle.md"
    assert page.read_text("utf-8") == lifecycle.render_matrix()


REFUSALS = [
    (Flags(active=True, acknowledged=False, open=True, shown=True, shelved="timed"), T.ACKNOWLEDGED, Reason.HIDDEN),
    (Flags(active=True, latched=True, open=True, shown=True), T.RESET, Reason.STILL_ACTIVE),
    (Flags(latched=True, acknowledged=False, open=True, shown=True), T.RESET, Reason.NOT_ACKNOWLEDGED),
    (Flags(latched=True, open=True, shown=True, suppressed=True), T.RESET, Reason.HIDDEN),
    (Flags(enabled=False), T.SHELVED, Reason.DISABLED),
    (Flags(out_of_service=True), T.SHELVED, Reason.OUT_OF_SERVICE),
    (Flags(), T.SHELVED_ONCE, Reason.NOT_ACTIVE),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "event", "reason"), REFUSALS)
def test_a_refusal_says_why(flags: Flags, event: Transition, reason: Reason) -> None:
    assert step(flags, event).outcome is Outcome.REJECT
    assert step(flags, event).reason is reason


@LATCHING
def test_what_was_shown_and_not_acknowledged_closes_only_by_a_person_or_with_its_rule(
    latching: bool,
) -> None:
    by_a_person = {T.ACKNOWLEDGED, T.UNSHELVED, T.DISABLED, T.REMOVED}
    for flags in reachable(latching=latching):
        if flags.open and flags.shown and not flags.acknowledged:
            for event in set(EVENTS) - by_a_person:
                after = step(flags, event, latching=latching).flags
                assert after.open, (flags, event)
                assert not after.acknowledged, (flags, event)


@LATCHING
def test_a_latch_ends_only_by_reset_disabling_or_removal(latching: bool) -> None:
    for flags in reachable(latching=latching):
        if flags.latched:
            for event in set(EVENTS) - {T.RESET, T.DISABLED, T.REMOVED}:
                assert step(flags, event, latching=latching).flags.latched, (flags, event)


@LATCHING
def test_a_hidden_alarm_keeps_following_its_condition(latching: bool) -> None:
    for flags in reachable(latching=latching):
        if flags.hidden and flags.enabled:
            assert step(flags, T.ACTIVATED, latching=latching).flags.active
            assert not step(flags, T.RETURNED, latching=latching).flags.active


@LATCHING
def test_visible_and_waiting_is_always_shown_and_closed_is_never_waiting(latching: bool) -> None:
    for flags in reachable(latching=latching):
        if flags.open and not flags.acknowledged and not flags.hidden:
            assert flags.shown
        if not flags.open:
            assert flags.acknowledged
            assert not flags.active
            assert not flags.latched


DISPLAYED = [
    (Flags(), "NORM"),
    (Flags(active=True, acknowledged=False), "UNACK"),
    (Flags(active=True), "ACKED"),
    (Flags(acknowledged=False), "RTNUN"),
    (Flags(acknowledged=False, latched=True), "LATCU"),
    (Flags(latched=True), "LATCA"),
    (Flags(active=True, acknowledged=False, shelved="oneshot"), "SHLVD"),
    (Flags(active=True, shelved="timed", suppressed=True), "DSUPR"),
    (Flags(active=True, shelved="timed", suppressed=True, out_of_service=True), "OOSRV"),
    (Flags(suppressed=True, out_of_service=True, enabled=False), "DISAB"),
]


@pytest.mark.parametrize(("flags", "state"), DISPLAYED)
def test_the_display_state_is_the_first_that_holds(flags: Flags, state: str) -> None:
    assert display(flags) == state


@LATCHING
def test_what_is_only_recorded_changes_no_flag(latching: bool) -> None:
    recorded = {T.COMMENTED, T.HISTORICAL, T.CONFIRMED, T.OVERDUE, T.RULE_CHANGED}
    for flags in reachable(latching=latching):
        for event in recorded:
            assert step(flags, event, latching=latching).flags == flags, (flags, event)


@LATCHING
def test_a_confirmation_comes_after_the_acknowledgement(latching: bool) -> None:
    for flags in reachable(latching=latching):
        taken = step(flags, T.CONFIRMED, latching=latching)
        assert (taken.outcome is Outcome.OK) == flags.acknowledged
        assert taken.reason in (None, Reason.NOT_ACKNOWLEDGED)


@LATCHING
def test_only_what_waits_in_sight_is_told_further(latching: bool) -> None:
    waiting = {AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED_UNACKNOWLEDGED}
    waiting.add(AlarmState.LATCHED_UNACKNOWLEDGED)
    for flags in reachable(latching=latching):
        taken = step(flags, T.OVERDUE, latching=latching)
        assert (taken.outcome is Outcome.OK) == (display(flags) in waiting)


@LATCHING
def test_of_a_removed_rule_nothing_is_left_that_could_hide_it_when_it_comes_back(latching) -> None:
    for flags in reachable(latching=latching):
        assert step(flags, T.REMOVED, latching=latching).flags == Flags()


def test_an_escalation_into_a_latching_level_latches_and_none_takes_a_latch_away() -> None:
    plain = step(Flags(), T.ACTIVATED).flags
    assert not step(plain, T.ESCALATED, latching=False).flags.latched
    latched = step(plain, T.ESCALATED, latching=True).flags
    assert latched.latched
    assert step(latched, T.ESCALATED, latching=False).flags.latched
