"""A flood in pieces comes to the same as in one go, but for who goes first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.alarms.book import AlarmBook, BookConfig
from gateway.alarms.commands import Action, Command, Role
from gateway.alarms.policy import AlarmGroup, EscalationStep, GroupMode
from gateway.model.alarm import Alarm, AlarmEvent
from gateway.model.batch import Batch
from gateway.model.rule import Priority
from gateway.runtime import verdicts
from gateway.runtime.verdicts import Verdicts, Work
from gateway.testing.alarms import S, make_conditions, make_instance

NOW = 10_000 * S
START = 5_000 * S
INSTANCES = [
    *(make_instance(f"gas{n}", levels=("H", "HH", "HHH")) for n in range(3)),  # HHH is critical
    *(make_instance(f"pump{n}", "pump.fault", levels=("H",)) for n in range(2)),
    make_instance("fan", levels=("H",), priority=Priority.CRITICAL),
    make_instance("first", "fan.limit", levels=("H", "HHH")),  # of the group of pumps
    make_instance(
        "gas0", "silent", levels=("OFFLINE",), kind="offline", priority=Priority.CRITICAL
    ),
]
CONFIG = BookConfig(
    realarm_after_s={Priority.CRITICAL: 40.0, Priority.MEDIUM: 60.0},
    escalation={Priority.CRITICAL: (EscalationStep(30.0, ("duty",)),)},
    groups=(AlarmGroup("pumps", ("fan.*", "pump.*"), mode=GroupMode.SUPPRESS),),
    silence_kinds=frozenset({"offline"}),
)
STEPS = st.integers(0, 20).map(lambda step: step * 5 * S)


@st.composite
def histories(draw) -> list[list[tuple[int, str, int]]]:
    """Works of (instance, level, time). Time goes on from work to work: where it does not, what
    time does to an alarm in between depends on the cut already."""
    works = []
    from_ns: dict[int, int] = defaultdict(int)
    begin_ns = START
    for _ in range(draw(st.integers(1, 4))):
        rows = []
        for at in draw(st.lists(st.integers(0, len(INSTANCES) - 1), max_size=12)):
            time_ns = from_ns[at] = max(begin_ns + draw(STEPS), from_ns[at] + S)
            names = ["", *(level.name for level in INSTANCES[at].levels)]
            rows.append((at, draw(st.sampled_from(names)), time_ns))
        works.append(rows)
        begin_ns = max([begin_ns, *(time_ns for _, _, time_ns in rows)])
    return works


def book_before(shelved: list[int]) -> AlarmBook:
    """Some alarms shelved or acknowledged, with a deadline among the changes to come."""
    book = AlarmBook(1, config=CONFIG)
    rows = [(at, INSTANCES[at].levels[0].name, START - 100 * S) for at in shelved]
    book.apply(make_conditions(*rows, instances=INSTANCES), INSTANCES, START - 99 * S)
    for at in shelved:
        row = book.get(INSTANCES[at].alarm_key)
        assert row is not None
        action = (
            Action.SHELVE if at in (3, 4) else Action.ACKNOWLEDGE
        )  # what may be critical: never
        until_ns = START + 77 * S if action is Action.SHELVE else None
        command = Command(
            action=action,
            alarm_key=row.alarm_key,
            actor="op",
            role=Role.SHIFT_LEAD,
            token=f"{row.occ_no}:{row.seq}",
            text="why",
            until_ns=until_ns,
        )
        assert book.command(command, START - 50 * S).refusal is None
    return book


def works_of(book: AlarmBook, history: list[list[tuple[int, str, int]]]) -> list[Work]:
    found = []
    for rows in history:
        work = Work(Batch.empty(), NOW, NOW)
        conditions = make_conditions(*rows, instances=INSTANCES)
        work.changes.extend(book.in_turn(conditions, INSTANCES))
        found.append(work)
    return found


def in_pieces(book: AlarmBook, history: list[list[tuple[int, str, int]]]) -> list[AlarmEvent]:
    waiting, events = Verdicts(), list[AlarmEvent]()
    for work in works_of(book, history):
        waiting.put(work, book.is_critical)
    while waiting:
        piece = waiting.take()
        found_ns = piece.work.found_ns
        if piece.is_ahead:
            events += book.live_ahead(piece.changes, found_ns)
        else:
            events += book.live(piece.changes, found_ns, is_last=piece.is_last)
    return events + book.tick(NOW)


def in_turn(book: AlarmBook, history: list[list[tuple[int, str, int]]]) -> list[AlarmEvent]:
    events: list[AlarmEvent] = []
    for work in works_of(book, history):
        events += book.live(work.changes, NOW)
    return events + book.tick(NOW)


def stories(events: list[AlarmEvent]) -> dict[str, list[tuple[object, ...]]]:
    """What happened to each alarm, without the numbers that tell the order of all."""
    found = defaultdict(list)
    for event in events:
        told = (event.transition, event.time_ns, event.annunciate, event.comment, event.level)
        found[event.alarm.alarm_key].append((*told, numberless(event.alarm)))
    return dict(found)


def numberless(alarm: Alarm) -> Alarm:
    return replace(alarm, gseq=0)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    history=histories(),
    shelved=st.lists(st.sampled_from(range(6)), unique=True),
    size=st.integers(1, 6),
)
@example(  # a follower that returns in the instant of its first alarm, a piece later
    history=[[(4, "H", START + 80 * S)], [(3, "", START + 85 * S), (4, "", START + 85 * S)]],
    shelved=[0, 1, 2, 3],
    size=1,
)
def test_every_alarm_lives_through_the_same_in_pieces_and_in_one_go(history, shelved, size) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "PIECE_MAX", size)
        cut, whole = book_before(shelved), book_before(shelved)
        events, expected = in_pieces(cut, history), in_turn(whole, history)
    assert stories(events) == stories(expected)
    assert [numberless(row) for row in cut.snapshot()] == [numberless(r) for r in whole.snapshot()]
    assert [e.alarm.gseq for e in events] == sorted(e.alarm.gseq for e in events), (
        "no gap, in order"
    )
    assert len({e.alarm.gseq for e in events}) == len(events)


def flood(count: int, critical: int, *, time_ns: int) -> tuple[list, list]:
    """`count` changes at one time, one of them critical."""
    instances = [make_instance(f"p{n:04d}", levels=("H", "HHH")) for n in range(count)]
    rows = [(n, "HHH" if n == critical else "H", time_ns) for n in range(count)]
    return rows, instances


def test_what_is_critical_goes_first_though_it_came_last(monkeypatch) -> None:
    monkeypatch.setattr(verdicts, "PIECE_MAX", 10)
    rows, instances = flood(60, critical=55, time_ns=START)
    book, waiting = AlarmBook(1), Verdicts()
    for part in (rows[:30], rows[30:]):
        work = Work(Batch.empty(), NOW, NOW)
        work.changes.extend(book.in_turn(make_conditions(*part, instances=instances), instances))
        waiting.put(work, book.is_critical)
    first = waiting.take()
    assert [c.instance.target for c in first.changes] == ["p0055"]
    assert (first.is_ahead, first.is_last) == (True, False)
    sizes, lasts = [], []
    while waiting:
        piece = waiting.take()
        sizes.append(len(piece.changes))
        lasts.append(piece.is_last)
    assert sizes == [10, 10, 10, 10, 10, 9]
    assert lasts == [False, False, True, False, False, True]
    assert waiting.count == 0


def test_few_changes_are_one_piece_in_their_order() -> None:
    rows, instances = flood(20, critical=15, time_ns=START)
    book, waiting = AlarmBook(1), Verdicts()
    work = Work(Batch.empty(), NOW, NOW)
    work.changes.extend(book.in_turn(make_conditions(*rows, instances=instances), instances))
    waiting.put(work, book.is_critical)
    piece = waiting.take()
    assert (len(piece.changes), piece.is_ahead, piece.is_last) == (20, False, True)
    assert not waiting


@pytest.mark.parametrize(
    ("instance", "level", "late", "critical"),
    [
        (0, "HHH", False, True),
        (0, "HH", False, False),
        (0, "", False, False),  # it never stood
        (0, "HHH", True, False),  # history has no hurry
        (5, "H", False, True),
        (6, "HHH", False, False),  # of a group: what was first decides who is suppressed
        (7, "OFFLINE", False, False),  # a silence may be explained by its link
    ],
)
def test_only_critical_alarms_that_stand_alone_may_go_ahead(
    instance, level, late, critical
) -> None:
    book = AlarmBook(1, config=CONFIG)
    rows = [(instance, level, START, 1.0, None, 1.0, 0, late)]
    (change,) = book.in_turn(make_conditions(*rows, instances=INSTANCES), INSTANCES)
    assert book.is_critical(change) is critical
