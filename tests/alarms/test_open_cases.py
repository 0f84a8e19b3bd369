"""The cases the standards leave open, one test each: what ours does, in the order of the reference.

Written after the twelve rules of the life cycle's specification.
"""

from dataclasses import replace

import numpy as np
import pytest

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Action, Command, Refusal, Role
from gateway.alarms.flood import Announcer
from gateway.alarms.journal import Journal
from gateway.alarms.policy import SHELF_MAX_NS
from gateway.alarms.record import encode_alarm
from gateway.model.batch import Batch
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.runtime.intake import flag_clock
from gateway.runtime.plugins import load_plugins
from gateway.testing.alarms import Row, S, make_conditions, make_event, make_instance

ALARM = make_instance("g1", "methane")
KEY = ALARM.alarm_key
T0 = 1_790_000_000 * S


@pytest.fixture(scope="module")
def kinds():
    return load_plugins().rule_kinds


def rule_set(kinds, *rules: Rule, lateness_s: int = 0):
    from alarm_rules.ruleset import RuleSet

    points = PointTable()
    points.put(Point("g1", quantity="methane", interval_s=10.0))
    return RuleSet(rules, kinds, points, lateness_ns=lateness_s * S)


def limit(**changes) -> Rule:
    made = Rule(
        id="methane",
        kind="limit",
        inputs={"value": Selector(quantity="methane")},
        parameters={"levels": {"H": {"limit": 1.0, "reset": 0.9}}},
    )
    return replace(made, **changes)


def samples(*rows, received: float | None = None, quality=0) -> Batch:
    """(second, value) of the one point."""
    times = [T0 + round(at * S) for at, _ in rows]
    at = times if received is None else [T0 + round(received * S)] * len(rows)
    return Batch.of(
        [0] * len(rows), [v for _, v in rows], times, received_time_ns=at, quality=quality
    )


def live(book: AlarmBook, *rows: Row, instance=ALARM, known: int = 10_000):
    return book.apply(make_conditions(*rows, instances=[instance]), [instance], known * S)


def words(events) -> list[str]:
    return [f"{e.transition}{'!' * e.annunciate}" for e in events]


def test_1_no_data_is_not_normal(kinds) -> None:
    offline = Rule(
        id="silent",
        kind="offline",
        inputs={"value": Selector(quantity="methane")},
        parameters={"max_age_s": 60.0},
        priority=Priority.MEDIUM,
    )
    rules, book = rule_set(kinds, limit(), offline), AlarmBook(1)
    for batch, now in (
        (samples((0, 0.5)), 0),
        (samples((1, 1.5)), 1),
        (samples((2, np.nan), quality=Quality.BAD_NO_VALUE), 2),
        (Batch.empty(), 500),
    ):
        found = rules.evaluate(batch, T0 + now * S)
        book.apply(found.conditions, rules.instances, T0 + now * S)
    assert book.get("g1:methane").state == "UNACK"
    assert book.get("g1:silent").state == "UNACK"


def test_2_late_data_never_moves_the_live_state(kinds) -> None:
    rules, book = rule_set(kinds, limit()), AlarmBook(1)
    for batch, now in (
        (samples((100, 0.5)), 100),
        (samples((50, 1.5), (60, 0.5), received=101), 101),
    ):
        found = rules.evaluate(batch, T0 + now * S)
        events = book.apply(found.conditions, rules.instances, T0 + now * S)
    assert all(event.transition == "HIST" and not event.annunciate for event in events)
    row = book.get("g1:methane")
    assert row is None or (row.state, row.active, row.occ_no) == ("NORM", False, 0)
    corrected = live(book, Row(0, "H", 200 * S), Row(0, "H", 90 * S, late=True), instance=ALARM)
    assert words(corrected) == ["HIST", "ACT!"]
    assert book.get(KEY).active_time_ns == 200 * S


def test_3_a_backlog_still_in_condition_raises_once_and_says_how_late(kinds) -> None:
    rules, book = rule_set(kinds, limit()), AlarmBook(1)
    backlog = samples(*[(at, 1.5) for at in range(0, 600, 10)], received=1_000)
    found = rules.evaluate(backlog, T0 + 1_000 * S)
    events = book.apply(found.conditions, rules.instances, T0 + 1_000 * S)
    assert words(events) == ["ACT!"]
    assert (events[0].recorded_time_ns - events[0].time_ns) == 1_000 * S


def test_4_a_clock_ahead_is_judged_at_receipt_and_nothing_is_dropped(kinds) -> None:
    rules, book = rule_set(kinds, limit()), AlarmBook(1)
    batch = flag_clock(samples((86_400, 1.5), received=10), 5 * S)
    found = rules.evaluate(batch, T0 + 10 * S)
    (event,) = book.apply(found.conditions, rules.instances, T0 + 10 * S)
    assert (event.time_ns, event.alarm.quality) == (T0 + 10 * S, Quality.UNCERTAIN_CLOCK)
    assert batch.source_time_ns[0] == T0 + 86_400 * S


def test_5_a_delay_half_gone_at_a_restart_goes_on(kinds) -> None:
    slow = limit(on_delay_s=600.0)
    first = rule_set(kinds, slow)
    first.evaluate(samples((0, 1.5)), T0 + 300 * S)
    second = rule_set(kinds, slow)
    second.load(first.save())
    found = second.evaluate(Batch.empty(), T0 + 601 * S)
    assert found.conditions.time_ns.tolist() == [T0 + 600 * S]


def test_6_one_condition_is_one_occurrence_however_often_it_is_told() -> None:
    book = AlarmBook(1)
    rows = [Row(0, "H", 1 * S), Row(0, "", 2 * S)]
    events = live(book, *rows)
    book.expect_repeats()
    assert live(book, *rows) == []
    assert [event.identity for event in events] == [(KEY, 1, 1), (KEY, 1, 2)]


def test_7_a_snapshot_and_the_events_after_it_give_the_table() -> None:
    book, instances = AlarmBook(1), [make_instance(f"p{n}", "r") for n in range(5)]
    conditions = [Row(n % 5, ("H", "")[n // 5 % 2], n * S) for n in range(40)]
    snapshot, at, table = [], 0, {}
    for number, row in enumerate(conditions):
        events = book.apply(make_conditions(row, instances=instances), instances, 10_000 * S)
        if number == 17:
            snapshot, at = book.snapshot(), book.gseq
            table = {alarm.alarm_key: alarm for alarm in snapshot}
        for event in events:
            if table and event.alarm.gseq > at:
                table[event.alarm.alarm_key] = event.alarm
    assert [table[key] for key in sorted(table)] == book.snapshot()
    assert len(snapshot) == 5


def test_8_after_a_gap_everything_since_the_confirmed_number_comes_again(tmp_path) -> None:
    journal = Journal.open(tmp_path, reserve_bytes=0)
    journal.append([make_event(number, seq=1, key=f"p{number}:r") for number in range(1, 8)])
    cursor = journal.cursor("sink")
    cursor.commit(3)
    assert [event.alarm.gseq for event in journal.cursor("sink").read()] == [4, 5, 6, 7]
    journal.close()


SUPPRESSIONS = [
    ("", Role.SHIFT_LEAD, Refusal.SECOND_PERSON_REQUIRED),
    ("li", Role.SHIFT_LEAD, Refusal.SECOND_PERSON_REQUIRED),
    ("wang", Role.OPERATOR, Refusal.FORBIDDEN),
    ("wang", Role.SHIFT_LEAD, None),
]


@pytest.mark.parametrize(("second", "role", "refusal"), SUPPRESSIONS)
def test_9_suppression_hides_priority_one_only_if_two_people_agree(second, role, refusal) -> None:
    book, urgent = AlarmBook(1), make_instance(levels=("H", "HHH"))
    book.declare([urgent])
    command = Command(
        action=Action.SUPPRESS,
        alarm_key=urgent.alarm_key,
        actor="li",
        role=role,
        text="why",
        source="s",
        approved_by=second,
    )
    assert book.command(command, 1 * S).refusal is refusal


def test_10_a_flood_changes_presentation_only(tmp_path) -> None:
    instances = [make_instance(f"p{n}", "r") for n in range(500)]
    rows = [Row(n, "H", 100 * S + n) for n in range(500)]
    book, journal = AlarmBook(1), Journal.open(tmp_path, reserve_bytes=0)
    events = book.apply(make_conditions(*rows, instances=instances), instances, 200 * S)
    journal.append(events)
    made = Announcer(book.get)
    assert len(made.take(events, 200 * S)) < 20
    assert journal.read(0, 1000) == events
    assert sum(event.annunciate for event in journal.read(0, 1000)) == 500
    journal.close()


def test_11_shelves_have_limits_by_priority_and_the_most_urgent_have_none() -> None:
    hours = {priority.name: limit_ns // (3_600 * S) for priority, limit_ns in SHELF_MAX_NS.items()}
    assert hours == {"HIGH": 1, "MEDIUM": 8, "LOW": 8}


def test_12_time_of_day_is_a_matter_of_the_rules_and_the_life_cycle_knows_none() -> None:
    """Schedules belong to rule kinds (driving's night ban); a life lived an hour, a day or a year
    later is the same life."""
    lives = []
    for shift in (0, 3_600, 86_400, 31_536_000):
        book = AlarmBook(1)
        rows = [Row(0, "H", (1 + shift) * S), Row(0, "", (2 + shift) * S)]
        events = live(book, *rows, known=10 + shift)
        moved = [replace(event.alarm, rule_digest="") for event in events]
        lives.append([(a.state, a.seq, a.active_time_ns - shift * S) for a in moved])
    assert all(life == lives[0] for life in lives)
    assert encode_alarm(replace(book.get(KEY), seq=1)) != encode_alarm(book.get(KEY))
