"""The book: occurrences, numbers, what is heard, what is dropped."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alarms.book import LATE_KEPT, AlarmBook, BookConfig
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.model.batch import Batch
from gateway.model.condition import Conditions, Level
from gateway.model.point import Point, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_instance
from gateway.testing.effort import calls_of

KEY = "ch4.001:ch4.limit"
CALIBRATING = Quality.UNCERTAIN_CALIBRATING
PLAIN = make_instance()
LATCHING = make_instance(latching=True)


def live(book: AlarmBook, *rows, instance=PLAIN, now=10_000 * S):
    """Apply rows of one instance; the events as short words."""
    made = [row if isinstance(row, Row) else Row(0, *row) for row in rows]
    return book.apply(make_conditions(*made, instances=[instance]), [instance], now)


def words(events) -> list[str]:
    """`ACT 1.1 !` is an activation, occurrence 1, seq 1, heard."""
    return [
        f"{e.transition} {e.alarm.occ_no}.{e.alarm.seq}{' !' if e.annunciate else ''}"
        for e in events
    ]


def ask(book: AlarmBook, action: Action, now=10_000 * S, **more):
    filled = {"actor": "li", "role": Role.SHIFT_LEAD, "text": "why", "source": "s", "permit": "P"}
    if action in (Action.DISABLE, Action.ENABLE):
        filled["role"] = Role.ENGINEER
    if action is Action.ACKNOWLEDGE:
        filled["token"] = token_of(book.get(KEY))
    if action is Action.SHELVE:
        filled["until_ns"] = now + 60 * S
    result = book.command(Command(action=action, alarm_key=KEY, **{**filled, **more}), now)
    assert result.accepted, result.reason
    return words(result.events)


LIVES = [  # what the rules say: (level, second), and what the journal gets
    ([("H", 1)], ["ACT 1.1 !"]),
    ([("H", 1), ("", 2)], ["ACT 1.1 !", "RTN 1.2"]),
    ([("H", 1), ("HH", 2), ("H", 3), ("", 4)], ["ACT 1.1 !", "ESC 1.2 !", "DEESC 1.3", "RTN 1.4"]),
    # back within 60 s of the return: the same occurrence, seen but not heard
    ([("H", 1), ("", 2), ("H", 62)], ["ACT 1.1 !", "RTN 1.2", "ACT 1.3"]),
    # … unless it is worse than when it went
    ([("H", 1), ("", 2), ("HH", 62)], ["ACT 1.1 !", "RTN 1.2", "ACT 1.3 !"]),
    # later: another occurrence
    ([("H", 1), ("", 2), ("H", 63)], ["ACT 1.1 !", "RTN 1.2", "ACT 2.3 !"]),
]


@pytest.mark.parametrize(("levels", "expected"), LIVES)
@pytest.mark.parametrize("cut", [True, False])
def test_levels_become_numbered_transitions_however_they_are_cut(levels, expected, cut) -> None:
    book = AlarmBook(1)
    rows = [(level, at * S) for level, at in levels]
    events = [e for row in rows for e in live(book, row)] if cut else live(book, *rows)
    assert words(events) == expected
    assert [e.alarm.gseq for e in events] == list(range(1, len(events) + 1))
    assert [e.time_ns for e in events] == [at * S for _, at in levels]


def test_an_occurrence_closed_by_acknowledgement_is_not_rejoined() -> None:
    book = AlarmBook(1)
    live(book, ("H", 1 * S), ("", 2 * S))
    ask(book, Action.ACKNOWLEDGE)
    assert words(live(book, ("H", 3 * S))) == ["ACT 2.4 !"]


def test_a_latched_occurrence_somebody_acknowledged_sounds_again_when_it_comes_back() -> None:
    book = AlarmBook(1)
    live(book, ("H", 1 * S), ("", 2 * S), instance=LATCHING)
    ask(book, Action.ACKNOWLEDGE)
    assert book.get(KEY).state == "LATCA"
    assert words(live(book, ("H", 3 * S), instance=LATCHING)) == ["ACT 1.4 !"]
    assert book.get(KEY).reactivation_count == 1
    assert book.get(KEY).acknowledged_by == ""


def test_occurrences_nobody_acknowledged_stay_on_the_row_until_one_acknowledgement_takes_them() -> (
    None
):
    book = AlarmBook(1)
    for at in (100, 200, 300):
        live(book, ("H", at * S), ("", (at + 1) * S))
    assert (book.get(KEY).occ_no, book.get(KEY).unacknowledged_from) == (3, 1)
    ask(book, Action.ACKNOWLEDGE)
    assert book.get(KEY).unacknowledged_from == 0
    live(book, ("H", 400 * S))
    assert book.get(KEY).unacknowledged_from == 4


def test_the_rejoin_window_is_configuration() -> None:
    book = AlarmBook(1, config=BookConfig(rejoin_window_s=0.5))
    assert words(live(book, ("H", 1 * S), ("", 2 * S), ("H", 3 * S)))[-1] == "ACT 2.3 !"


def test_a_row_tells_what_and_why() -> None:
    book = AlarmBook(7)
    live(book, Row(0, "HH", 12 * S, 2.4, 10 * S, 2.25, quality=Quality.UNCERTAIN_CLOCK))
    row = book.get(KEY)
    assert (row.level, row.priority, row.value, row.peak, row.limit) == ("HH", 2, 2.4, 2.4, 2.25)
    assert (row.condition_time_ns, row.active_time_ns, row.epoch) == (10 * S, 12 * S, 7)
    assert (row.quality, row.unit, row.area, row.location) == (0x41, "%CH4", "3101", "3101 T1")
    assert (row.name["zh"], row.citation.clause, row.rule_kind) == ("甲烷超限", "6.1", "limit")
    assert row.top_priority is Priority.HIGH


def test_a_limit_the_condition_does_not_carry_is_the_level_s_own() -> None:
    book = AlarmBook(1)
    live(book, ("HH", 1 * S))
    assert (book.get(KEY).limit, book.get(KEY).value) == (2.0, None)


# --- repeats after a restart

REPEATS = [
    ([("H", 1), ("", 2)], [("H", 1), ("", 2)], []),
    ([("H", 1), ("", 2)], [("", 2)], []),
    ([("H", 1)], [("H", 1), ("", 2)], ["RTN 1.2"]),
    ([("H", 1), ("HH", 2)], [("H", 1), ("HH", 2), ("H", 3)], ["DEESC 1.3"]),
    # two verdicts in one nanosecond: an off-delay ends as the next condition begins
    ([("H", 1), ("", 2), ("HH", 2)], [("", 2), ("HH", 2)], []),
    ([("H", 1), ("", 2), ("HH", 2)], [("HH", 2), ("", 3)], ["RTN 1.4"]),
    ([("H", 1), ("", 2)], [("H", 1), ("", 2), ("HH", 2)], ["ACT 1.3 !"]),
    ([("H", 1), ("", 1)], [("H", 1), ("", 1)], []),
    ([("H", 1), ("", 1), ("H", 1)], [("H", 1), ("", 1), ("H", 1), ("", 2)], ["RTN 1.4"]),
    # the level in force said again, later: no change
    ([("H", 1)], [("H", 5)], []),
]


@pytest.mark.parametrize(("lived", "again", "expected"), REPEATS)
@pytest.mark.parametrize("restart", [True, False])
def test_conditions_that_come_again_change_nothing_and_new_ones_are_not_lost(
    lived, again, expected, restart
) -> None:
    book = AlarmBook(1)
    live(book, *[(level, at * S) for level, at in lived])
    before = book.snapshot()
    if restart:
        book = AlarmBook(2)
        book.restore(before, gseq=before[0].gseq)
    else:
        book.expect_repeats()
    events = live(book, *[(level, at * S) for level, at in again])
    assert words(events) == expected
    if not expected:
        assert book.snapshot() == before
    assert book.repeated_count == len(again) - len(expected)


def test_a_third_change_in_one_nanosecond_is_lived_through_when_nothing_is_being_repeated() -> None:
    book = AlarmBook(1)
    events = [e for level in ("H", "", "H", "") for e in live(book, (level, 5 * S))]
    assert [e.transition for e in events] == ["ACT", "RTN", "ACT", "RTN"]
    assert book.get(KEY).judged == ("H", "", "H", "")


@given(
    levels=st.lists(st.sampled_from(["", "H", "HH"]), max_size=12),
    gaps=st.lists(st.integers(0, 70), min_size=12, max_size=12),
    stop=st.integers(0, 12),
    back=st.integers(0, 12),
)
def test_a_restart_anywhere_with_any_overlap_gives_the_same_table(levels, gaps, stop, back) -> None:
    at, rows = 0, []
    for level, gap in zip(levels, gaps, strict=False):
        if level != (rows[-1][0] if rows else ""):
            at += gap * S
            rows.append((level, at))
    whole = AlarmBook(1)
    live(whole, *rows)
    first = AlarmBook(1)
    live(first, *rows[:stop])
    # The rules repeat from a checkpoint: whole instants, they hold no instant half told.
    start = min(back, stop, max(0, len(rows) - 1))
    while 0 < start < len(rows) and rows[start - 1][1] == rows[start][1]:
        start -= 1
    second = AlarmBook(1)
    second.restore(first.snapshot(), gseq=first.gseq)
    live(second, *rows[start:])
    assert second.snapshot() == whole.snapshot()


def test_late_rows_are_history_once_and_leave_the_live_row_as_it_is() -> None:
    book = AlarmBook(1)
    live(book, ("HH", 100 * S))
    before = book.get(KEY)
    late = [Row(0, "H", 10 * S, 1.2, late=True), Row(0, "", 20 * S, 0.3, late=True)]
    events = live(book, *late)
    assert words(events) == ["HIST 1.2", "HIST 1.3"]
    assert [(e.late, e.level, e.value, e.time_ns) for e in events] == [
        (True, "H", 1.2, 10 * S),
        (True, "", 0.3, 20 * S),
    ]
    assert replace(book.get(KEY), seq=1, gseq=1) == before
    assert live(book, *late) == []
    restored = AlarmBook(2)
    restored.restore(book.snapshot(), gseq=3, late=[(KEY, 10 * S, "H"), (KEY, 20 * S, "")])
    assert live(restored, *late) == []


def test_late_rows_of_an_alarm_that_never_was_raise_nothing() -> None:
    book = AlarmBook(1)
    assert words(live(book, Row(0, "H", 10 * S, late=True))) == ["HIST 0.1"]
    assert book.standing() == []
    assert book.get(KEY).state == "NORM"
    assert words(live(book, ("H", 5 * S))) == ["ACT 1.2 !"]


def test_the_memory_of_late_rows_has_a_limit_and_forgets_the_oldest(monkeypatch) -> None:
    assert LATE_KEPT == 100_000
    monkeypatch.setattr("gateway.alarms.book.LATE_KEPT", 2)
    book = AlarmBook(1)
    rows = [Row(0, "H", at * S, late=True) for at in (1, 2, 3)]
    assert len(live(book, *rows)) == 3
    assert words(live(book, rows[1], rows[2])) == []
    assert len(live(book, rows[0])) == 1


# --- hidden, disabled, planned

HIDING = [
    (Action.SHELVE, Action.UNSHELVE, "SHLVD", "ACKED", False),
    (Action.SUPPRESS, Action.UNSUPPRESS, "DSUPR", "UNACK", True),
    (Action.OUT_OF_SERVICE, Action.RETURN_TO_SERVICE, "OOSRV", "UNACK", True),
    (Action.DISABLE, Action.ENABLE, "DISAB", "UNACK", True),
]


@pytest.mark.parametrize(("hide", "show", "hidden", "after", "heard"), HIDING)
def test_what_began_while_hidden_is_heard_when_it_comes_into_sight(
    hide, show, hidden, after, heard
) -> None:
    book = AlarmBook(1)
    book.declare([PLAIN])
    ask(book, hide)
    events = live(book, ("H", 20 * S))
    assert not any(e.annunciate for e in events)
    assert book.get(KEY).state == hidden
    assert book.standing() == []
    shown = ask(book, show)
    assert book.get(KEY).state == after
    assert any(word.endswith("!") for word in shown) == heard


@pytest.mark.parametrize(("hide", "show", "hidden"), [row[:3] for row in HIDING])
def test_what_came_and_went_while_hidden_asks_nobody(hide, show, hidden) -> None:
    book = AlarmBook(1)
    book.declare([PLAIN])
    ask(book, hide)
    live(book, ("H", 20 * S), ("", 30 * S))
    assert not any(word.endswith("!") for word in ask(book, show))
    assert book.get(KEY).state == "NORM"
    assert not book.get(KEY).open


def test_a_latched_alarm_nobody_could_see_is_heard_when_it_comes_into_sight() -> None:
    book = AlarmBook(1)
    book.declare([LATCHING])
    ask(book, Action.SUPPRESS)
    live(book, ("H", 20 * S), ("", 30 * S), instance=LATCHING)
    assert ask(book, Action.UNSUPPRESS) == ["UNP 1.4 !"]
    assert book.get(KEY).state == "LATCU"


def test_a_condition_that_outlasts_a_disabled_alarm_is_raised_when_it_is_enabled() -> None:
    book = AlarmBook(1)
    live(book, Row(0, "H", 10 * S, 1.5))
    assert ask(book, Action.DISABLE) == ["DIS 1.2"]
    assert (book.get(KEY).state, book.get(KEY).active) == ("DISAB", False)
    events = live(book, Row(0, "HH", 20 * S, 2.5))
    assert [(w, e.comment) for w, e in zip(words(events), events, strict=True)] == [
        ("HIST 1.3", "disabled")
    ]
    assert ask(book, Action.ENABLE, now=30 * S) == ["ENA 1.4", "ACT 2.5 !"]
    row = book.get(KEY)
    assert (row.level, row.value, row.priority, row.state) == ("HH", 2.5, 2, "UNACK")
    assert (row.condition_time_ns, row.active_time_ns) == (20 * S, 20 * S)


def test_a_condition_that_ended_while_disabled_is_not_raised_when_it_is_enabled() -> None:
    book = AlarmBook(1)
    live(book, ("H", 10 * S))
    ask(book, Action.DISABLE)
    assert words(live(book, ("", 20 * S))) == ["HIST 1.3"]
    assert live(book, ("", 20 * S)) == []
    assert ask(book, Action.ENABLE) == ["ENA 1.4"]
    assert words(live(book, ("H", 30 * S))) == ["ACT 2.5 !"]


def test_an_alarm_of_a_sensor_under_calibration_is_recorded_and_calls_nobody() -> None:
    book = AlarmBook(1)
    events = live(book, Row(0, "H", 10 * S, 1.5, quality=CALIBRATING))
    assert words(events) == ["ACT 1.1"]
    assert book.get(KEY).planned
    assert book.get(KEY).state == "UNACK"
    assert words(live(book, Row(0, "HH", 11 * S, 2.5, quality=CALIBRATING))) == ["ESC 1.2"]
    assert words(live(book, ("", 12 * S))) == ["RTN 1.3"]


PLANNED_ENDS = [
    ([Row(0, "HH", 20 * S, 2.5)], ["ESC 1.2 !"]),
    ([Row(0, "H", 20 * S, 1.5)], ["ESC 1.2 !"]),  # same level, said again with a good value
    ([Row(0, "", 20 * S, 0.5), Row(0, "H", 30 * S, 1.5)], ["RTN 1.2", "ACT 1.3 !"]),
]


@pytest.mark.parametrize(("rows", "expected"), PLANNED_ENDS)
def test_an_alarm_that_proves_meant_after_calibration_is_heard(rows, expected) -> None:
    book = AlarmBook(1)
    live(book, Row(0, "H", 10 * S, 1.5, quality=CALIBRATING))
    assert words(live(book, *rows)) == expected
    assert not book.get(KEY).planned


def test_a_lower_level_after_calibration_is_heard_even_if_someone_acknowledged_the_test() -> None:
    book = AlarmBook(1)
    live(book, Row(0, "HH", 10 * S, 2.5, quality=CALIBRATING))
    ask(book, Action.ACKNOWLEDGE)
    assert words(live(book, Row(0, "H", 20 * S, 1.5))) == ["DEESC 1.3", "ESC 1.4 !"]


def test_a_calibration_does_not_silence_an_alarm_that_was_already_meant() -> None:
    book = AlarmBook(1)
    live(book, ("H", 10 * S))
    assert words(live(book, Row(0, "HH", 20 * S, quality=CALIBRATING))) == ["ESC 1.2 !"]
    assert not book.get(KEY).planned


# --- values while active


def table() -> PointTable:
    points = PointTable()
    for name in ("other", "ch4.001"):
        points.put(Point(name))
    return points


def seen(book: AlarmBook, *samples, quality=0) -> list[str]:
    batch = Batch.of(
        [1] * len(samples) + [0],
        [*(value for _, value in samples), 99.0],
        [*(at * S for at, _ in samples), 0],
        received_time_ns=0,
        quality=quality,
    )
    return words(book.observe(batch, table(), 10_000 * S))


PEAKS = [
    (PLAIN, "H", 1.5, 1.0, [(20, 1.9), (21, 1.2)], 1.9),
    (PLAIN, "H", 1.5, 1.0, [(5, 9.9)], 1.5),  # before it began
    (PLAIN, "H", 1.5, 1.0, [(20, float("nan"))], 1.5),
    (make_instance(levels=("L",)), "L", 0.5, 1.0, [(20, 0.2), (21, 0.4)], 0.2),
    (make_instance(levels=("LOW FLOW",)), "LOW FLOW", 0.5, 1.0, [(20, 0.2)], 0.2),
    (make_instance(levels=("OVER",)), "OVER", 5.0, 1.0, [(20, 7.0)], 7.0),
]


@pytest.mark.parametrize(("instance", "level", "value", "limit", "samples", "peak"), PEAKS)
def test_the_peak_is_the_value_furthest_beyond_the_limit(  # noqa: PLR0917
    instance, level, value, limit, samples, peak
) -> None:
    book = AlarmBook(1)
    live(book, Row(0, level, 10 * S, value, limit=limit), instance=instance)
    assert seen(book, *samples) == []
    assert book.get(KEY).peak == peak
    assert book.get(KEY).value == value


def test_a_bad_value_moves_no_peak_and_a_peak_moves_at_most_once_a_second() -> None:
    book = AlarmBook(1)
    live(book, Row(0, "H", 10 * S, 1.5))
    seen(book, (20, 5.0), quality=Quality.BAD)
    assert book.get(KEY).peak == 1.5
    seen(book, (20, 2.0))
    seen(book, (20.5, 3.0))
    assert book.get(KEY).peak == 2.0
    seen(book, (21, 3.0))
    assert book.get(KEY).peak == 3.0
    live(book, ("", 22 * S))
    seen(book, (30, 9.0))
    assert book.get(KEY).peak == 3.0


def test_a_value_still_holding_when_calibration_ends_is_heard_though_no_level_changed() -> None:
    book = AlarmBook(1)
    live(book, Row(0, "H", 10 * S, 1.5, quality=CALIBRATING))
    assert seen(book, (11, 1.6), quality=CALIBRATING) == []
    assert seen(book, (9, 1.6)) == []  # a sample from before, read once more after a restart
    assert seen(book, (12, 1.6), quality=Quality.BAD) == []
    assert seen(book, (13, 1.6)) == ["ESC 1.2 !"]
    assert seen(book, (14, 1.6)) == []


# --- time


@pytest.mark.parametrize(
    ("levels", "word", "state"),
    [
        ([("H", 10)], "EXP 1.3 !", "UNACK"),
        ([("H", 10), ("", 20)], "EXP 1.4", "RTNUN"),
        ([], "EXP 0.2", "NORM"),
    ],
)
def test_a_shelf_runs_out_at_its_time_whenever_the_tick_comes(levels, word, state) -> None:
    book = AlarmBook(1)
    book.declare([PLAIN])
    if levels:
        live(book, ("H", 10 * S))
    ask(book, Action.SHELVE, now=15 * S)
    live(book, *[(level, at * S) for level, at in levels[1:]])
    assert book.tick(75 * S - 1) == []
    events = book.tick(500 * S)
    assert words(events) == [word]
    assert (events[0].time_ns, events[0].recorded_time_ns) == (75 * S, 500 * S)
    assert book.get(KEY).state == state
    assert book.get(KEY).shelved_until_ns is None
    assert book.tick(600 * S) == []


def test_a_one_shot_shelf_ends_with_the_return_and_a_timed_one_does_not() -> None:
    for action, state in ((Action.SHELVE_ONCE, "RTNUN"), (Action.SHELVE, "SHLVD")):
        book = AlarmBook(1)
        live(book, ("H", 10 * S))
        ask(book, action)
        live(book, ("", 20 * S))
        assert book.get(KEY).state == state


def test_shelving_again_moves_the_end() -> None:
    book = AlarmBook(1)
    live(book, ("H", 10 * S))
    ask(book, Action.SHELVE, until_ns=11_000 * S)
    ask(book, Action.SHELVE, until_ns=12_000 * S)
    assert book.tick(11_500 * S) == []
    assert words(book.tick(12_000 * S)) == ["EXP 1.4 !"]


def test_an_acknowledged_alarm_asks_again_after_its_priority_s_time_if_the_site_wants_that() -> (
    None
):
    book = AlarmBook(1, config=BookConfig(realarm_after_s={Priority.MEDIUM: 600.0}))
    live(book, ("H", 10 * S))
    ask(book, Action.ACKNOWLEDGE, now=20 * S)
    assert book.tick(620 * S - 1) == []
    assert words(book.tick(620 * S)) == ["REA 1.3 !"]
    assert book.tick(9_000 * S) == []


# --- order, numbers, speed


def test_events_stand_by_time_then_priority_then_key() -> None:
    instances = [
        make_instance("c", levels=[Level("H", Priority.LOW)]),
        make_instance("b", levels=[Level("H", Priority.LOW)]),
        make_instance("a", levels=[Level("H", Priority.MEDIUM)]),
        make_instance("z", levels=[Level("H", Priority.CRITICAL)]),
    ]
    rows = [(0, "H", 5 * S), (1, "H", 5 * S), (2, "H", 5 * S), (3, "H", 5 * S), (0, "", 4 * S)]
    book = AlarmBook(1)
    book.apply(make_conditions((0, "H", 1 * S), instances=instances), instances, 9 * S)
    events = book.apply(make_conditions(*rows, instances=instances), instances, 9 * S)
    assert [(e.time_ns // S, e.alarm.target) for e in events] == [
        (4, "c"),
        (5, "z"),
        (5, "a"),
        (5, "b"),
        (5, "c"),
    ]
    assert [row.target for row in book.standing()] == ["z", "a", "b", "c"]


def test_two_changes_of_one_alarm_at_one_time_keep_their_order_whatever_their_priority() -> None:
    instance = make_instance(levels=[Level("H", Priority.LOW), Level("HH", Priority.CRITICAL)])
    book = AlarmBook(1)
    rows = make_conditions((0, "H", 5 * S), (0, "HH", 5 * S), (0, "H", 5 * S), instances=[instance])
    events = book.apply(rows, [instance], 9 * S)
    assert [e.transition for e in events] == ["ACT", "ESC", "DEESC"]


def test_the_figures_of_the_heartbeat_are_the_table_counted() -> None:
    book = AlarmBook(1)
    live(book, ("H", 1 * S), ("", 2 * S))
    counts = book.counts()
    assert (counts["standing"], counts["unacknowledged"], counts["RTNUN"]) == (1, 1, 1)
    ask(book, Action.SUPPRESS)
    counts = book.counts()
    assert (counts["standing"], counts["unacknowledged"], counts["DSUPR"]) == (0, 0, 1)


def test_the_levels_in_force_can_be_given_back_to_rules_that_lost_their_state() -> None:
    others = [make_instance("a"), PLAIN, make_instance("b")]
    book = AlarmBook(1)
    live(book, ("H", 1 * S), ("HH", 2 * S))
    assert book.levels(others).tolist() == [0, 2, 0]
    live(book, ("", 3 * S))
    assert book.levels(others).tolist() == [0, 0, 0]


def test_no_conditions_are_no_events() -> None:
    assert AlarmBook(1).apply(Conditions.empty(), [], 1) == []
    assert AlarmBook(1).tick(1) == []
    assert AlarmBook(1).observe(Batch.empty(), PointTable(), 1) == []


def test_a_level_the_rule_does_not_have_is_our_own_fault_and_asserted() -> None:
    rows = make_conditions((0, "H", S), instances=[PLAIN])
    wrong = replace(rows, level=np.array([3], np.uint8))
    with pytest.raises(AssertionError, match="no level 3"):
        AlarmBook(1).apply(wrong, [PLAIN], S)


@pytest.mark.slow
def test_a_flood_of_ten_thousand_activations_is_lived_through_at_once_and_in_order() -> None:
    size = 10_000
    instances = [
        make_instance(f"p{i:05d}", levels=[Level("H", Priority(1 + i % 4))]) for i in range(size)
    ]
    rows = make_conditions(*[(i, "H", 5 * S) for i in range(size)], instances=instances)
    book = AlarmBook(1)
    events = book.apply(rows, instances, 6 * S)
    assert [e.alarm.priority for e in events] == sorted(e.alarm.priority for e in events)
    assert [e.alarm.gseq for e in events] == list(range(1, size + 1))
    assert sum(e.annunciate for e in events) == size


@pytest.mark.slow
def test_a_flood_of_ten_thousand_is_lived_through_and_recorded_whole(tmp_path) -> None:
    """How fast: `hazard-gateway bench alarms`."""
    from gateway.alarms.journal import Journal

    instances = [make_instance(f"p{n}") for n in range(10_000)]
    rows = [Row(n, "H", 1_000 * S + n) for n in range(10_000)]
    conditions = make_conditions(*rows, instances=instances)
    journal, book = Journal.open(tmp_path, reserve_bytes=0), AlarmBook(1)
    events = book.apply(conditions, instances, 2_000 * S)
    journal.append(events)
    assert (len(events), journal.head) == (10_000, 10_000)
    journal.close()


@pytest.mark.slow
def test_the_standing_list_of_fifty_thousand_is_put_in_order_once_and_then_kept() -> None:
    instances = [make_instance(f"p{n}") for n in range(50_000)]
    rows = [Row(n, ("H", "HH")[n % 3 == 0], (1_000 + n * 7919 % 50_000) * S) for n in range(50_000)]
    book = AlarmBook(1)
    book.apply(make_conditions(*rows, instances=instances), instances, 100_000 * S)
    order = [(row.priority, row.active_time_ns, row.alarm_key) for row in book.standing()]
    assert order == sorted(order)
    assert book.standing() is book.standing()
    book.apply(
        make_conditions(Row(7, "", 200_000 * S), instances=instances), instances, 200_001 * S
    )
    looks = calls_of(book.standing)
    assert looks < 1_000, f"{looks} calls: every row was looked at"
    again = book.standing()
    assert [row.alarm_key for row in again] == [key for _, _, key in order]


def test_the_samples_of_a_point_do_not_move_the_peak_of_a_slope_made_of_them() -> None:
    slope = replace(make_instance("a", "a"), measures=False)
    points = PointTable()
    points.put(Point(id="a"))
    book = AlarmBook(epoch=1)
    book.apply(make_conditions((0, "H", 5, 1.0), instances=[slope]), [slope], 5)
    before = book.get(slope.alarm_key)
    assert not book.observe(Batch.of([0], [99.0], [9], received_time_ns=[9]), points, 9)
    assert book.get(slope.alarm_key) == before
