"""Floods: when they begin and end, and that they change what sounds and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.book import AlarmBook
from gateway.alarms.flood import (
    GROUPS_MAX,
    QUEUE_MAX,
    Announcer,
    FloodConfig,
    FloodDetector,
    LineKind,
    TokenBucket,
)
from gateway.model.alarm import AlarmState, Transition
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_event, make_instance

RATES = [
    ([0] * 9, 0, False),
    ([0] * 10, 0, True),
    (range(10), 9, True),
    (range(0, 600, 60), 599, True),
    (range(0, 670, 67), 669, False),  # ten in eleven minutes
]


@pytest.mark.parametrize(("seconds", "at", "flooded"), RATES)
def test_ten_annunciations_in_ten_minutes_are_a_flood(seconds, at: int, flooded: bool) -> None:
    detector = FloodDetector(FloodConfig())
    for second in seconds:
        detector.note(second * S)
    assert detector.look(at * S) == flooded


def test_a_flood_ends_below_five_in_ten_minutes_and_not_before() -> None:
    detector = FloodDetector(FloodConfig())
    for second in range(10):
        detector.note(second * S)
    assert detector.since_ns == 9 * S
    assert detector.look(604 * S)  # those of 5 to 9 are within
    assert detector.count == 5
    assert not detector.look(605 * S)
    assert (detector.count, detector.since_ns) == (4, None)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 400), max_size=60))
def test_the_sliding_count_is_what_a_list_of_times_says_and_a_clock_set_back_empties_nothing(
    steps,
) -> None:
    detector, times, now = FloodDetector(FloodConfig()), [], 10_000
    newest = 0
    for step in steps:
        now += step
        newest = max(newest, now)
        detector.note(now * S)
        times.append(newest)
        times = [time for time in times if time > newest - 600]
        assert detector.count == len(times)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(0.5, 3)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(at * S) for at in (1, 2, 3, 4)] == [False, True, False, True]
    assert bucket.take(-100 * S) is False  # a clock set back gives nothing away
    assert [bucket.take(1_000 * S) for _ in range(4)] == [True, True, True, False]


def event(number: int, *, priority=Priority.MEDIUM, transition=Transition.ACTIVATED, **alarm):
    made = make_event(number, key=f"p{number}:r", transition=Transition.ACTIVATED)
    alarm = {"priority": priority, "area": "3101", **alarm}
    return replace(made, transition=transition, annunciate=True, alarm=replace(made.alarm, **alarm))


class Rows(dict):
    """What has become of each alarm."""

    def take(self, events):
        self.update({e.alarm.alarm_key: e.alarm for e in events})
        return events


def announcer() -> tuple[Announcer, Rows]:
    rows = Rows()
    return Announcer(rows.get), rows


def kinds(lines) -> list[tuple]:
    return [(line.kind.value, line.count, line.worst.alarm.alarm_key) for line in lines]


def test_in_quiet_times_every_annunciation_is_a_call() -> None:
    made, rows = announcer()
    lines = [made.take(rows.take([event(n)]), n * 100 * S) for n in range(20)]
    assert [len(each) for each in lines] == [1] * 20
    assert made.state()["flood"] is False


def test_a_thousand_at_once_are_a_few_calls_and_one_line_for_each_area_and_rule_kind() -> None:
    made, rows = announcer()
    events = rows.take([event(n, area=("3101", "3102")[n % 2]) for n in range(1, 1001)])
    at_once = made.take(events, 5 * S)
    # nine before it is a flood, then the burst of the priority
    assert len(at_once) == 9 + 3
    later = made.due(5 * S)
    assert [(line.kind, line.count) for line in later] == [
        (LineKind.GROUP, 494),
        (LineKind.GROUP, 494),
    ]
    assert sum(line.count for line in at_once + later) == 1000
    assert made.folded_count == 988
    assert {line.first.alarm.area for line in later} == {"3101", "3102"}
    assert made.due(6 * S) == []


def test_priority_one_is_never_held_back() -> None:
    made, rows = announcer()
    made.take(rows.take([event(n) for n in range(1, 500)]), 1 * S)
    urgent = rows.take([event(n, priority=Priority.CRITICAL) for n in range(500, 600)])
    assert len(made.take(urgent, 1 * S)) == 100


def test_a_group_names_the_first_and_the_most_urgent() -> None:
    made, rows = announcer()
    made.take(rows.take([event(n, priority=Priority.LOW) for n in range(1, 30)]), 1 * S)
    made.take(rows.take([event(n, priority=Priority.HIGH) for n in range(40, 60)]), 2 * S)
    (line,) = made.due(3 * S)
    assert (line.first.alarm.alarm_key, line.worst.alarm.alarm_key) == ("p11:r", "p45:r")


def test_group_lines_come_at_most_every_five_seconds_and_at_once_when_the_flood_is_over() -> None:
    made, rows = announcer()
    made.take(rows.take([event(n) for n in range(1, 50)]), 1 * S)
    assert len(made.due(1 * S)) == 1
    made.take(rows.take([event(n) for n in range(50, 60)]), 2 * S)
    assert made.due(5 * S) == []
    assert len(made.due(6 * S)) == 1


def test_nobody_is_called_to_what_has_been_seen_to_meanwhile() -> None:
    made, rows = announcer()
    made.take(rows.take([event(n) for n in range(1, 50)]), 1 * S)
    for key, row in rows.items():
        rows[key] = replace(row, state=AlarmState.ACKNOWLEDGED)
    assert made.due(2 * S) == []


def test_shelves_that_end_in_one_moment_call_one_after_the_other() -> None:
    made, rows = announcer()
    events = rows.take([event(n, transition=Transition.SHELF_EXPIRED) for n in range(1, 9)])
    assert kinds(made.take(events, 0)) == [("alarm", 1, f"p{n}:r") for n in (1, 2, 3)]
    rows["p5:r"] = replace(rows["p5:r"], state=AlarmState.ACKNOWLEDGED)
    called = [[key for _, _, key in kinds(made.due(second * S))] for second in range(1, 7)]
    assert called == [["p4:r"], [], ["p6:r"], ["p7:r"], ["p8:r"], []]


def test_what_has_no_place_in_the_queue_is_folded_and_nothing_grows_without_end() -> None:
    made, rows = announcer()
    many = QUEUE_MAX + 53
    events = rows.take([event(n, transition=Transition.SHELF_EXPIRED) for n in range(many)])
    made.take(events, 0)
    assert made.state()["queued_count"] == QUEUE_MAX
    assert sum(line.count for line in made.due(0) if line.kind is LineKind.GROUP) == 50
    areas = rows.take([event(n, area=f"area {n}") for n in range(1000, 1000 + 3 * GROUPS_MAX)])
    made.take(areas, 10 * S)
    assert len(made.due(20 * S)) <= GROUPS_MAX + 1 + 11  # and the shelves of eleven seconds


def test_history_is_one_line_a_batch_and_never_a_sound() -> None:
    made, rows = announcer()
    ends = [("H", 1.5), ("", 0.5)]
    history = [
        replace(
            event(n, transition=Transition.HISTORICAL), annunciate=False, late=True, level=level
        )
        for n in range(1, 2001)
        for level, _ in ends
    ]
    (line,) = made.take(rows.take(history), 1 * S)
    assert (line.kind, line.count, line.sounds) == (LineKind.HISTORY, 2000, False)
    assert made.state() == {
        "flood": False,
        "flood_since_ns": None,
        "annunciations_10min": 0,
        "folded_count": 0,
        "queued_count": 0,
    }


def test_what_was_annunciated_before_a_restart_still_counts() -> None:
    made, rows = announcer()
    made.recall(range(0, 9 * S, S))
    made.take(rows.take([event(1)]), 100 * S)
    assert made.state()["flood"] is True


@settings(deadline=None)
@given(
    batches=st.lists(
        st.tuples(
            st.integers(0, 30),
            st.lists(st.sampled_from(list(Priority)), max_size=40),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_every_annunciation_is_in_exactly_one_line_and_nothing_else_is(batches) -> None:
    made, rows = announcer()
    now, number, told, wanted = 0, 0, 0, 0
    for gap, priorities, ends in batches:
        now += gap * S
        events = []
        for priority in priorities:
            number += 1
            transition = Transition.SHELF_EXPIRED if ends else Transition.ACTIVATED
            events.append(event(number, priority=priority, transition=transition))
        lines = made.take(rows.take(events), now)
        urgent = [e.alarm.alarm_key for e in events if e.alarm.priority is Priority.CRITICAL]
        found = [line.worst.alarm.alarm_key for line in lines]
        assert [key for key in found if key in urgent] == urgent
        wanted += len(events)
        told += sum(line.count for line in lines)
    for second in range(1, 1000):
        told += sum(line.count for line in made.due(now + second * S))
    assert told == wanted


def test_a_flood_changes_no_event() -> None:
    instances = [make_instance(f"p{n}") for n in range(200)]
    rows = [Row(n, "H", 100 * S + n) for n in range(200)]
    book = AlarmBook(1)
    events = book.apply(make_conditions(*rows, instances=instances), instances, 200 * S)
    copies = [replace(e) for e in events]
    made = Announcer(book.get)
    lines = made.take(events, 200 * S)
    assert len(lines) < 20
    assert events == copies
    assert all(e.annunciate for e in events)
