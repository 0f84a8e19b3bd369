"""Whole lives: a restart at every event, two consoles at once, vectors designed after OPC UA Part 9.

I6 the journal replayed gives the live table byte for byte · I7 what two consoles do at once is what
they could have done one after the other · I8 no more is heard than there were reasons.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.book import AlarmBook, BookConfig
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.alarms.policy import AlarmGroup, EscalationStep, GroupMode
from gateway.alarms.record import decode_alarm, decode_event, encode_alarm, encode_event
from gateway.model.alarm import Transition
from gateway.model.condition import RuleInstance
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_instance

T = Transition


def silence(target: str, *, device: str, point: str = "") -> RuleInstance:
    made = make_instance(target, "silent", levels=("OFFLINE",), kind="offline")
    return RuleInstance(
        alarm_key=made.alarm_key,
        rule=made.rule,
        target=target,
        point_id=point,
        levels=made.levels,
        device=device,
    )


INSTANCES = [
    make_instance("a", "fan.a"),
    make_instance("b", "fan.b", levels=("H", "HH", "HHH")),
    make_instance("c", "fan.c", latching=True),
    silence("d1", device="d1"),
    silence("p1", device="d1", point="p1"),
]
CONFIG = BookConfig(
    realarm_after_s={Priority.MEDIUM: 30.0, Priority.HIGH: 20.0},
    realarm_max=2,
    escalation={
        Priority.MEDIUM: (EscalationStep(15, ("x",)), EscalationStep(40, ("y",))),
        Priority.CRITICAL: (EscalationStep(5, ("z",)),),
    },
    groups=(AlarmGroup("fan", rules=("fan.*",), mode=GroupMode.SUPPRESS),),
    silence_kinds=frozenset({"offline"}),
    parent_release_s=10.0,
)
REASONS = {
    *(T.ACTIVATED, T.ESCALATED, T.SHELF_EXPIRED, T.RETURNED_TO_SERVICE, T.UNSUPPRESSED),
    T.REALARMED,
}
ACTIONS = st.sampled_from(list(Action))
MOVES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 3), st.none() | ACTIONS),
    max_size=30,
)


class Life:
    """One book driven by moves: (alarm, seconds, level, what a person asks)."""

    def __init__(self, *, restarts: bool) -> None:
        self.restarts = restarts
        self.now = 1_000
        self.level = [0] * len(INSTANCES)
        self.events = []
        self.book = AlarmBook(1, config=CONFIG)
        self.follow()

    def follow(self) -> None:
        assert self.book.follow(INSTANCES, np.ones(len(INSTANCES), bool), self.now * S) == []

    def restart(self) -> None:
        rows = [decode_alarm(encode_alarm(row)) for row in self.book.snapshot()]
        self.book = AlarmBook(1, config=CONFIG)
        self.book.restore(rows, gseq=len(self.events))
        self.follow()

    def move(self, which: int, gap: int, level: int, action: Action | None) -> None:
        self.now += gap
        self.took(self.book.tick(self.now * S))
        instance = INSTANCES[which]
        level = min(level, len(instance.levels))
        rows = []
        if level != self.level[which]:
            self.level[which] = level
            name = instance.levels[level - 1].name if level else ""
            rows = [Row(which, name, self.now * S, 1.0 + level)]
        conditions = make_conditions(*rows, instances=INSTANCES)
        self.took(self.book.apply(conditions, INSTANCES, self.now * S + 1))
        if action is not None:
            self.took(self.book.command(self.wish(instance.alarm_key, action), self.now * S).events)

    def wish(self, key: str, action: Action, token: str = "") -> Command:
        row = self.book.get(key)
        return Command(
            action=action,
            alarm_key=key,
            actor="li",
            approved_by="wang",
            role=Role.ENGINEER if action in (Action.DISABLE, Action.ENABLE) else Role.SHIFT_LEAD,
            text="why",
            token=token or (token_of(row) if row else "0:0"),
            until_ns=(self.now + 25) * S if action is Action.SHELVE else None,
            source="s",
            permit="P",
        )

    def took(self, events) -> None:
        self.events += events
        if events and self.restarts:
            self.restart()


def lived(moves, *, restarts: bool = False) -> Life:
    life = Life(restarts=restarts)
    for move in moves:
        life.move(*move)
    for gap in (9, 13, 30, 60):  # everything in time has its turn
        life.move(0, gap, life.level[0], None)
    return life


@pytest.mark.slow
@settings(deadline=None)
@given(MOVES)
def test_a_restart_at_every_event_changes_no_event_and_no_row(moves) -> None:
    whole, broken = lived(moves), lived(moves, restarts=True)
    assert broken.events == whole.events
    assert broken.book.snapshot() == whole.book.snapshot()


@pytest.mark.slow
@settings(deadline=None)
@given(MOVES)
def test_replaying_the_records_gives_the_table_byte_for_byte_and_numbers_have_no_gaps(
    moves,
) -> None:
    life = lived(moves)
    table, seqs = {}, {}
    for number, event in enumerate(life.events, 1):
        again = decode_event(encode_event(event))
        assert again == event
        row = again.alarm
        assert row.gseq == number
        assert row.seq == seqs.get(row.alarm_key, 0) + 1
        seqs[row.alarm_key] = row.seq
        table[row.alarm_key] = row
    replayed = [encode_alarm(table[key]) for key in sorted(table)]
    assert replayed == [encode_alarm(row) for row in life.book.snapshot()]


@pytest.mark.slow
@settings(deadline=None)
@given(MOVES)
def test_no_more_is_heard_than_there_were_reasons_and_nothing_hidden_is(moves) -> None:
    life = lived(moves)
    heard = [event for event in life.events if event.annunciate]
    assert len(heard) <= sum(event.transition in REASONS for event in life.events)
    assert all(event.alarm.state == "UNACK" or not event.alarm.active for event in heard)
    assert all(event.transition in REASONS for event in heard)
    for event in life.events:
        if event.alarm.priority is Priority.CRITICAL and event.alarm.active:
            automatic = [s for s in event.alarm.suppressed_by if s != "s"]
            assert automatic == []


PERSONS = [
    *(Action.ACKNOWLEDGE, Action.CONFIRM, Action.SHELVE, Action.UNSHELVE, Action.COMMENT),
    *(Action.OUT_OF_SERVICE, Action.RETURN_TO_SERVICE, Action.RESET, Action.SHELVE_ONCE),
]
CONSOLE = st.lists(st.sampled_from(PERSONS), min_size=1, max_size=4)


@pytest.mark.slow
@settings(deadline=None)
@given(first=CONSOLE, second=CONSOLE, order=st.lists(st.booleans(), max_size=8), begun=MOVES)
def test_two_consoles_at_once_do_what_they_could_do_one_after_the_other(
    first, second, order, begun
) -> None:
    """Both look before either acts, so that tokens grow stale. Whatever was taken, done again in
    the order of the journal by somebody who sees everything, gives the same table."""
    both, serial = lived(begun), lived(begun)
    serial.now = both.now
    key = INSTANCES[0].alarm_key
    row = both.book.get(key)
    token = token_of(row) if row else "0:0"
    turns = itertools.chain(order, itertools.cycle([False, True]))
    queues = [list(first), list(second)]
    done = []
    while queues[0] or queues[1]:
        at = int(next(turns))
        queue = queues[at] or queues[1 - at]
        action = queue.pop(0)
        result = both.book.command(both.wish(key, action, token), both.now * S)
        if result.events:
            done.append(action)
        else:
            assert result.alarm == both.book.get(key) or both.book.get(key) is None
    for action in done:
        assert serial.book.command(serial.wish(key, action), serial.now * S).events
    assert serial.book.snapshot() == both.book.snapshot()


# Designed after the examples of OPC UA Part 9, annex B (its tables are not copied): an alarm that
# keeps its newest state only, and one whose earlier occurrences wait for a person as branches.
# Columns: what happens, Active, Acked, Confirmed, Retain (in the standing list), branches waiting.
SINGLE = [
    ("ACT", True, False, False, True, 0),
    ("ack", True, True, False, True, 0),
    ("confirm", True, True, True, True, 0),
    ("RTN", False, True, True, False, 0),
    ("ACT", True, False, False, True, 0),
    ("RTN", False, False, False, True, 0),
    ("ack", False, True, False, False, 0),
    ("confirm", False, True, True, False, 0),
]
BRANCHES = [
    ("ACT", True, False, False, True, 0),
    ("RTN", False, False, False, True, 0),
    ("ACT", True, False, False, True, 1),
    ("RTN", False, False, False, True, 1),
    ("ACT", True, False, False, True, 2),
    ("ack", True, True, False, True, 0),
    ("RTN", False, True, False, False, 0),
]


@pytest.mark.parametrize("vectors", [SINGLE, BRANCHES], ids=["newest state", "branches"])
def test_vectors_designed_after_opc_ua_part_9(vectors) -> None:
    book, instance, at = AlarmBook(1), INSTANCES[0], 0
    for what, active, acked, confirmed, retain, branches in vectors:
        at += 1_000  # beyond the rejoin window: every activation is another occurrence
        if what in ("ACT", "RTN"):
            row = Row(0, "H" if what == "ACT" else "", at * S)
            conditions = make_conditions(row, instances=[instance])
            assert book.apply(conditions, [instance], at * S)
        else:
            action = Action.ACKNOWLEDGE if what == "ack" else Action.CONFIRM
            command = Command(
                action=action,
                alarm_key=instance.alarm_key,
                actor="li",
                role=Role.OPERATOR,
                text="done",
                token=token_of(book.get(instance.alarm_key)),
            )
            assert book.command(command, at * S).events
        row = book.get(instance.alarm_key)
        waiting = row.occ_no - row.unacknowledged_from if row.unacknowledged_from else 0
        found = (
            row.active,
            row.acknowledged,
            bool(row.confirmed_by),
            bool(book.standing()),
            waiting,
        )
        assert found == (active, acked, confirmed, retain, branches), what
