"""What time alone does: re-alarm, escalation in time, shelves; and the limits a site sets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.book import AlarmBook, BookConfig
from gateway.alarms.commands import Action, Command, Refusal, Role, token_of
from gateway.alarms.policy import SHELF_MAX_NS, WEEK_NS, EscalationStep
from gateway.alarms.rows import SHELVINGS_KEPT
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_instance

KEY = "ch4.001:ch4.limit"
ALARM = make_instance()
STEPS = (EscalationStep(60, ("lead",)), EscalationStep(300, ("dispatch", "manager")))
URGENT_STEPS = (EscalationStep(10, ("rescue",)),)
CONFIG = BookConfig(
    realarm_after_s={Priority.MEDIUM: 600.0},
    realarm_max=2,
    escalation={Priority.MEDIUM: STEPS, Priority.HIGH: URGENT_STEPS},
)


def live(book: AlarmBook, level: str, at: int, *, known: int | None = None, quality: int = 0):
    row = Row(0, level, at * S, 1.5, quality=quality)
    conditions = make_conditions(row, instances=[ALARM])
    return book.apply(conditions, [ALARM], (at if known is None else known) * S)


def ask(book: AlarmBook, action: Action, at: int, **more):
    row = book.get(KEY)
    filled = {"actor": "li", "role": Role.SHIFT_LEAD, "text": "why", "permit": "P"}
    filled["token"] = token_of(row) if row else "0:0"
    return book.command(Command(action=action, alarm_key=KEY, **{**filled, **more}), at * S)


def ticked(book: AlarmBook, at: int) -> list[tuple]:
    return [
        (e.transition.value, e.time_ns // S, e.step, e.recipients, e.annunciate)
        for e in book.tick(at * S)
    ]


def test_an_unanswered_alarm_is_told_to_further_people_step_by_step_and_changes_nothing() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    before = book.get(KEY)
    assert ticked(book, 159) == []
    assert ticked(book, 165) == [("OVD", 160, 1, ("lead",), False)]
    row = book.get(KEY)
    assert (row.state, row.overdue_step, row.attention_seq) == (before.state, 1, 1)
    assert ticked(book, 399) == []
    assert ticked(book, 9_000) == [("OVD", 400, 2, ("dispatch", "manager"), False)]
    assert ticked(book, 99_000) == []


def test_steps_that_fell_due_while_the_process_was_away_are_all_told() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    again = AlarmBook(2, config=CONFIG)
    again.restore(book.snapshot(), gseq=book.gseq)
    assert [step[:3] for step in ticked(again, 1_000)] == [("OVD", 160, 1), ("OVD", 400, 2)]
    third = AlarmBook(3, config=CONFIG)
    third.restore(again.snapshot(), gseq=again.gseq)
    assert ticked(third, 2_000) == []


def test_the_time_counts_from_when_the_gateway_could_tell_and_not_from_a_late_sample() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100, known=1_000)
    assert ticked(book, 1_059) == []
    assert len(ticked(book, 1_060)) == 1


QUIET = [
    (lambda book: ask(book, Action.ACKNOWLEDGE, 110), "acknowledged"),
    (lambda book: ask(book, Action.SHELVE, 110, until_ns=2_000 * S), "shelved"),
    (lambda book: ask(book, Action.OUT_OF_SERVICE, 110), "out of service"),
    (lambda book: ask(book, Action.SUPPRESS, 110, source="s"), "suppressed"),
]


@pytest.mark.parametrize("act", [act for act, _ in QUIET], ids=[name for _, name in QUIET])
def test_what_somebody_saw_to_or_hid_is_not_escalated(act) -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    assert act(book).accepted
    assert ticked(book, 600) == []


def test_an_alarm_of_a_calibration_is_not_escalated_until_it_proves_meant() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100, quality=0x42)
    assert ticked(book, 5_000) == []
    live(book, "H", 5_001)
    assert [step[:3] for step in ticked(book, 5_061)] == [("OVD", 5_061, 1)]


def test_coming_back_into_sight_begins_the_time_again() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    ticked(book, 160)
    ask(book, Action.SHELVE, 170, until_ns=500 * S)
    assert [step[0] for step in ticked(book, 500)] == ["EXP"]
    assert ticked(book, 559) == []
    assert [step[:3] for step in ticked(book, 560)] == [("OVD", 560, 1)]


def test_what_becomes_more_urgent_is_told_to_those_of_its_new_priority() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    ticked(book, 160)
    live(book, "HH", 170)
    assert ticked(book, 171) == [("OVD", 110, 1, ("rescue",), False)]


def test_an_alarm_that_returned_and_nobody_acknowledged_is_escalated_too() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    live(book, "", 110)
    assert [step[:3] for step in ticked(book, 160)] == [("OVD", 160, 1)]


def test_an_acknowledged_alarm_asks_again_as_often_as_the_site_says_and_no_more() -> None:
    book = AlarmBook(1, config=CONFIG)
    live(book, "H", 100)
    at = 110
    for count in (1, 2):
        assert ask(book, Action.ACKNOWLEDGE, at).accepted
        at += 600
        (rea,) = ticked(book, at)
        assert rea == ("REA", at, 0, (), True)
        assert (book.get(KEY).realarm_count, book.get(KEY).acknowledged_by) == (count, "")
    assert ask(book, Action.ACKNOWLEDGE, at).accepted
    assert ticked(book, at + 100_000) == []
    live(book, "", 200_000)
    live(book, "H", 300_000)
    assert book.get(KEY).realarm_count == 0


SHELF_LIMITS = [
    ({}, Priority.HIGH, 3_600, None),
    ({}, Priority.HIGH, 3_601, Refusal.SHELF_TOO_LONG),
    ({Priority.HIGH: 600.0}, Priority.HIGH, 600, None),
    ({Priority.HIGH: 600.0}, Priority.HIGH, 601, Refusal.SHELF_TOO_LONG),
    ({Priority.HIGH: 99_999.0}, Priority.HIGH, 3_601, Refusal.SHELF_TOO_LONG),
    ({Priority.HIGH: 600.0}, Priority.MEDIUM, 28_800, None),
    ({Priority.CRITICAL: 600.0}, Priority.CRITICAL, 10, Refusal.NOT_SHELVABLE),
]


@pytest.mark.parametrize(("site", "priority", "seconds", "refusal"), SHELF_LIMITS)
def test_a_site_shortens_shelves_and_never_lengthens_them(site, priority, seconds, refusal) -> None:
    book = AlarmBook(1, config=BookConfig(shelf_max_s=site))
    alarm = make_instance(levels=("H",), priority=priority)
    book.declare([alarm])
    result = ask(book, Action.SHELVE, 100, until_ns=(100 + seconds) * S)
    assert result.refusal is refusal


def test_a_shelf_until_the_return_ends_at_the_limit_all_the_same() -> None:
    book = AlarmBook(1, config=BookConfig(shelf_max_s={Priority.HIGH: 600.0}))
    live(book, "HH", 100)
    ask(book, Action.SHELVE_ONCE, 110)
    assert book.get(KEY).shelved_until_ns == 710 * S
    assert ticked(book, 709) == []
    assert [step[0] for step in ticked(book, 710)] == ["EXP"]
    assert set(SHELF_MAX_NS) == {Priority.HIGH, Priority.MEDIUM, Priority.LOW}


def test_shelvings_of_the_last_week_are_counted() -> None:
    book = AlarmBook(1)
    book.declare([ALARM])
    for at in (100, 200, 300):
        assert ask(book, Action.SHELVE, at, until_ns=(at + 50) * S).accepted
    assert book.shelvings(300 * S) == 3
    assert book.shelvings(200 * S + WEEK_NS) == 1
    for at in range(400, 400 + 2 * SHELVINGS_KEPT):
        ask(book, Action.SHELVE, at, until_ns=(at + 50) * S)
    assert len(book.get(KEY).shelvings) == SHELVINGS_KEPT


@pytest.mark.slow
@settings(deadline=None)
@given(
    stops=st.lists(st.integers(1, 400), max_size=12),
    acts=st.lists(st.sampled_from(["ack", "shelve", "", "H", "HH"]), max_size=12),
)
def test_a_restart_between_any_two_ticks_changes_no_deadline(stops, acts) -> None:
    whole, broken = AlarmBook(1, config=CONFIG), AlarmBook(1, config=CONFIG)
    told = ([], [])
    now, level = 100, ""
    for act, gap in zip(acts, stops, strict=False):
        now += gap
        fresh = AlarmBook(1, config=CONFIG)
        fresh.restore(broken.snapshot(), gseq=broken.gseq)
        broken = fresh
        for book, events in zip((whole, broken), told, strict=True):
            events += book.tick(now * S)
            if act in ("", "H", "HH") and act != level:
                events += live(book, act, now)
            elif act == "ack" and book.get(KEY):
                events += ask(book, Action.ACKNOWLEDGE, now).events
            elif act == "shelve" and book.get(KEY):
                events += ask(book, Action.SHELVE, now, until_ns=(now + 90) * S).events
        level = act if act in ("", "H", "HH") else level
    assert told[0] == told[1]
