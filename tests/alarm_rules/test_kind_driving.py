"""Driving time: what counts, what ends it, and what happens while nobody sends anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reference_place import overlap

from alarm_rules.kinds._place import DayWindow, after_window_time, window_time
from alarm_rules.kinds.driving import KIND, DrivingParameters
from alarm_rules.ruleset import RuleSet
from gateway.model.batch import Batch
from gateway.model.point import Device, Point, PointKind, PointTable
from gateway.model.quality import Quality
from gateway.model.rule import Priority, Rule, Selector
from gateway.testing.rule_kinds import RuleCase, Sample, at_ns, drive

NS = 1_000_000_000
MIN = 60.0
POINTS = [Point(id="v.speed", kind=PointKind.SPEED, quantity="vehicle_speed", device="v")]
DEVICES = [Device(id="v", kind="vehicle", name="鲁Z00001")]
DRIVE, STAND = 60.0, 0.0
COACH = {"drive_max_s": 14_400.0, "rest_min_s": 1_200.0}
MORNING = (6 * 60 + 13) * MIN + 20  # the cases begin at 06:13:20 in China


def rule(**given) -> Rule:
    select = {"speed": Selector(quantity="vehicle_speed")}
    return Rule("r", "driving", select, given, priority=Priority.HIGH, level="red")


def journey(*parts) -> list[Sample]:
    """Parts (minutes, speed): a sample a minute, and one at the end of a broken minute; None:
    silence."""
    samples, minute = [], 0.0
    for minutes, speed, *quality in parts:
        if speed is not None:
            at = [minute + n for n in range(int(minutes))]
            at += [minute + minutes - 1] if minutes % 1 else []
            samples += [Sample("v.speed", m * MIN, speed, *quality) for m in at]
        minute += minutes
    return samples


def check_story(samples, expected, *, end_min: float | None = None, **given) -> None:
    """`expected`: (minute, level, value in minutes)."""
    newest = samples[-1].time_s + MIN
    end_s = newest if end_min is None else end_min * MIN
    case = RuleCase([rule(**given)], POINTS, samples, DEVICES, end_s=end_s)
    found = drive(case, {"driving": KIND}).changes
    assert [
        ((c.time_ns - at_ns(0)) / NS / 60, c.level, None if c.value is None else c.value / 60)
        for c in found
    ] == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(240, DRIVE)], [(240, "FATIGUE", 240)]),
        ([(239, DRIVE)], []),
        ([(300, 5.0)], [(240, "FATIGUE", 240)]),  # 5 km/h is moving
        ([(300, math.nextafter(5.0, 0))], []),
        ([(200, DRIVE), (20, STAND), (239, DRIVE)], []),  # a whole rest
        ([(200, DRIVE), (19, STAND), (30, DRIVE)], [(240, "FATIGUE", 240)]),
        ([(230, DRIVE), (19, STAND), (1, DRIVE)], [(249, "FATIGUE", 249)]),  # resumed too early
        ([(230, DRIVE), (25, STAND), (10, DRIVE)], []),  # standing raises nothing
        ([(250, DRIVE), (30, STAND)], [(240, "FATIGUE", 240), (270, "", 0)]),
        (
            [(250, DRIVE), (10, STAND), (5, DRIVE), (25, STAND)],
            [(240, "FATIGUE", 240), (285, "", 0)],
        ),
    ],
)
def test_continuous_driving_ends_with_a_whole_rest_and_with_nothing_else(parts, expected) -> None:
    check_story(journey(*parts), expected, **COACH)


def test_where_a_short_stop_does_not_count_the_clock_only_pauses() -> None:
    parts = journey((200, DRIVE), (19, STAND), (41, DRIVE))
    check_story(parts, [(259, "FATIGUE", 240)], **COACH, short_stops="pause")


def test_standing_before_the_first_start_is_not_driving() -> None:
    check_story(journey((19, STAND), (241, DRIVE)), [(259, "FATIGUE", 240)], **COACH)


def test_the_limit_is_reached_between_two_samples_and_without_a_third() -> None:
    sparse = [Sample("v.speed", minute * MIN, DRIVE) for minute in range(0, 240, 4)]
    check_story(sparse, [(240, "FATIGUE", 240)], end_min=240, **COACH)
    check_story(sparse, [], end_min=239.999, **COACH)
    check_story(sparse[:-1], [], end_min=1000, **COACH)  # known to drive until minute 237


def test_silence_is_neither_driving_nor_rest() -> None:
    parts = journey((200, DRIVE), (60, None), (37, DRIVE))
    check_story(parts, [(296, "FATIGUE", 240)], **COACH)  # 204 driven, then 36 more
    broken = journey((230, DRIVE), (10, STAND), (10, None), (15, STAND), (10, DRIVE))
    check_story(broken, [(265, "FATIGUE", 245)], **COACH)  # no rest, and the last stop was none
    alarmed = journey((245, DRIVE))
    check_story(alarmed, [(240, "FATIGUE", 240)], end_min=5000, **COACH)


def test_a_rest_is_believed_while_samples_say_so_and_not_in_the_silence_behind() -> None:
    parts = journey((250, DRIVE), (16, STAND))  # the last one holds for 5 minutes: 20 in all
    check_story(parts, [(240, "FATIGUE", 240), (270, "", 0)], end_min=500, **COACH)
    check_story(parts[:-1], [(240, "FATIGUE", 240)], end_min=500, **COACH)


def test_a_night_in_a_sleeping_terminal_is_a_rest_only_where_the_site_says_so() -> None:
    parts = journey((230, DRIVE), (5, STAND), (600, None), (2, STAND), (20, DRIVE))
    check_story(parts, [(845, "FATIGUE", 240)], **COACH)
    check_story(parts, [], **COACH, gap_standing="standing")
    late = journey((250, DRIVE), (5, STAND), (600, None), (1, STAND))
    told = [(240, "FATIGUE", 240), (855, "", 0)]  # when the second sample of standing comes
    check_story(late, told, **COACH, gap_standing="standing")


def test_bad_values_are_silence() -> None:
    bad = journey((200, DRIVE), (30, STAND, int(Quality.BAD)), (30, math.nan), (36, DRIVE))
    check_story(bad[:-1], [], **COACH)
    check_story(bad, [(296, "FATIGUE", 240)], **COACH)


def test_a_warning_comes_before_the_limit_and_is_milder() -> None:
    parts = journey((245, DRIVE), (21, STAND))
    expected = [(210, "PREWARN", 210), (240, "FATIGUE", 240), (265, "", 0)]
    check_story(parts, expected, **COACH, pre_warn_s=1_800)
    table = PointTable()
    table.put(POINTS[0])
    (instance,) = RuleSet([rule(**COACH, pre_warn_s=1_800)], {"driving": KIND}, table).instances
    assert [(lv.name, lv.priority, lv.limit) for lv in instance.levels] == [
        ("PREWARN", Priority.MEDIUM, 12_600.0),
        ("FATIGUE", Priority.HIGH, 14_400.0),
    ]


def hours(text: str) -> float:
    """Minutes from the beginning of the case to a time of day in China, the next one."""
    at = int(text[:2]) * 60 + int(text[3:])
    return (at * MIN - MORNING) % 86_400 / MIN


NIGHT = {"night": {"from": "22:00", "to": "06:00", "drive_max_s": 7_200}}


@pytest.mark.parametrize(
    ("start", "minutes", "expected"),
    [
        ("22:30", 125, "00:30"),
        ("21:00", 300, "00:00"),  # an hour of it was by day
        ("23:59", 100, None),
        ("05:00", 200, None),  # only one hour by night
        ("03:30", 125, "05:30"),
    ],
)
def test_by_night_only_the_minutes_inside_the_window_count(start, minutes, expected) -> None:
    begin = hours(start)
    samples = [Sample("v.speed", (begin + n) * MIN, DRIVE) for n in range(minutes)]
    at = begin + (hours(expected) - begin) % 1440 if expected else 0
    check_story(samples, [(at, "NIGHT", 120)] if expected else [], **NIGHT)


BAN = {"ban": {"from": "02:00", "to": "05:00"}}


@pytest.mark.parametrize(
    ("start", "parts", "expected"),
    [
        ("01:30", [(60, DRIVE)], [(30, "NIGHTBAN")]),
        ("01:30", [(29, DRIVE), (300, STAND)], []),
        ("01:30", [(60, DRIVE), (5, STAND)], [(30, "NIGHTBAN"), (60, "")]),
        ("03:00", [(150, DRIVE)], [(0, "NIGHTBAN"), (120, "")]),
        ("04:30", [(10, DRIVE), (200, None), (2, DRIVE)], [(0, "NIGHTBAN"), (30, "")]),
        ("01:50", [(3, DRIVE), (200, None)], []),  # silent from 01:57 on: not known to move
        ("01:50", [(6, DRIVE), (3, None)], []),  # until 02:00:00, when it begins
        ("01:50", [(6.5, DRIVE), (3, None)], [(10, "NIGHTBAN"), (190, "")]),  # 30 s more
    ],
)
def test_moving_while_driving_is_forbidden_is_an_alarm_until_it_stops_or_is_allowed(
    start, parts, expected
) -> None:
    begin = hours(start)
    samples = [Sample("v.speed", s.time_s + begin * MIN, s.value) for s in journey(*parts)]
    end_min = begin + sum(p[0] for p in parts) + (240 if parts[-1][1] is None else 0)
    case = RuleCase([rule(**BAN)], POINTS, samples, DEVICES, end_s=end_min * MIN)
    found = drive(case, {"driving": KIND}).changes
    assert [((c.time_ns - at_ns(0)) / NS / 60 - begin, c.level) for c in found] == expected


EIGHT = {"daily_max_s": 28_800.0}


def test_driving_of_the_last_24_hours_is_added_up_over_rests() -> None:
    parts = [(180, DRIVE), (60, STAND), (180, DRIVE), (60, STAND), (120, DRIVE)]
    check_story(journey(*parts), [(600, "DAILY", 480)], **EIGHT)
    shorter = [*parts[:-1], (119, DRIVE)]
    check_story(journey(*shorter), [], **EIGHT)


def test_it_ends_when_a_rest_s_worth_has_left_the_window() -> None:
    """The case begins 1:40 before a bin ends; each bin leaves 24 h 15 min after it began. With the
    third one less than 8 h - 20 min are left."""
    parts = journey((480, DRIVE), (1500, STAND))
    third = 100 / 60 + 2 * 15
    expected = [(480, "DAILY", 480), (1440 + third, "", 480 - third)]
    check_story(parts, expected, **EIGHT)


def test_yesterday_s_driving_counts_for_at_least_24_hours() -> None:
    """7 h, 17 h of standing, 20 minutes more: all of it within 24 hours and a bin."""
    parts = journey((420, DRIVE), (1000, STAND), (20, DRIVE), (20, STAND))
    check_story(parts, [(1440, "DAILY", 440)], daily_max_s=26_400.0)


def test_while_silent_the_day_does_not_forgive() -> None:
    check_story(journey((480, DRIVE)), [(480, "DAILY", 480)], end_min=6000, **EIGHT)


def test_the_most_severe_of_several_is_told() -> None:
    given = {**COACH, **EIGHT, **NIGHT, **BAN, "pre_warn_s": 600}
    levels = [
        (level.name, level.limit)
        for level in RuleSet([rule(**given)], {"driving": KIND}, _table()).instances[0].levels
    ]
    assert levels == [
        ("PREWARN", 13_800.0),
        ("DAILY", 28_800.0),
        ("NIGHT", 7_200.0),
        ("FATIGUE", 14_400.0),
        ("NIGHTBAN", None),
    ]


def _table() -> PointTable:
    table = PointTable()
    for device in DEVICES:
        table.put_device(device)
    table.put(POINTS[0])
    return table


def test_a_restart_while_driving_loses_no_minute_and_tells_nothing_twice() -> None:
    table = _table()

    def fresh() -> RuleSet:
        return RuleSet([rule(**COACH, pre_warn_s=600)], {"driving": KIND}, table)

    rules, told = fresh(), []
    for minute in range(0, 260, 5):
        batch = Batch.of([0], [DRIVE], at_ns(minute * MIN), received_time_ns=at_ns(minute * MIN))
        found = rules.evaluate(batch, at_ns(minute * MIN)).conditions
        told += [(t - at_ns(0)) // NS // 60 for t in found.time_ns.tolist()]
        if minute % 50 == 45:
            saved, rules = rules.save(), fresh()
            rules.load(saved)
    assert told == [230, 240], told


def test_a_limit_made_stricter_is_applied_with_the_next_sample() -> None:
    table = _table()
    rules = RuleSet([rule(**COACH)], {"driving": KIND}, table)
    for minute in range(0, 130, 5):
        batch = Batch.of([0], [DRIVE], at_ns(minute * MIN), received_time_ns=at_ns(minute * MIN))
        assert len(rules.evaluate(batch, at_ns(minute * MIN)).conditions) == 0
    stricter = RuleSet([rule(drive_max_s=7_200.0)], {"driving": KIND}, table)
    stricter.load(rules.save())
    batch = Batch.of([0], [DRIVE], at_ns(130 * MIN), received_time_ns=at_ns(130 * MIN))
    found = stricter.evaluate(batch, at_ns(130 * MIN)).conditions
    assert (found.level.tolist(), found.value.tolist()) == ([1], [130 * MIN])


CLOCK = st.integers(0, 1439).map(lambda m: f"{m // 60:02}:{m % 60:02}")


@settings(max_examples=60)
@given(
    CLOCK, CLOCK, st.sampled_from([-5.5, 0, 8]), st.integers(0, 3 * 86_400), st.integers(1, 90_000)
)
def test_time_in_a_window_is_the_sum_over_its_days_and_can_be_undone(
    opens, closes, offset_h, begin_s, span_s
) -> None:
    if opens == closes:
        return
    window = DayWindow.model_validate({"from": opens, "to": closes})
    begin = np.array([1_700_000_000 * NS + begin_s * NS + 1])
    phase, length = np.array([window.phase_ns(offset_h)]), np.array([window.length_ns])
    end = begin + span_s * NS
    inside = window_time(end, phase, length) - window_time(begin, phase, length)
    assert int(inside[0]) == overlap(
        {"from": opens, "to": closes}, offset_h, int(begin[0]), int(end[0])
    )
    if inside[0]:
        reached = after_window_time(begin, phase, length, inside)
        assert begin[0] < reached[0] <= end[0]
        assert window_time(reached, phase, length) == window_time(end, phase, length)
        assert window_time(reached - 1, phase, length) < window_time(end, phase, length)


def test_many_vehicles_are_followed_at_once_and_each_by_itself() -> None:
    table = PointTable()
    for n in range(200):
        table.put_device(Device(id=f"v{n}", kind="vehicle"))
        table.put(Point(id=f"v{n}.speed", quantity="vehicle_speed", device=f"v{n}"))
    rules = RuleSet([rule(**COACH)], {"driving": KIND}, table)
    points = np.tile(np.arange(200), 300)
    minutes = np.repeat(np.arange(300), 200)
    speed = np.where(minutes < points + 100, DRIVE, STAND)  # vehicle n drives for 100 + n minutes
    time_ns = at_ns(0) + minutes * 60 * NS
    found = rules.evaluate(
        Batch.of(points, speed, time_ns, received_time_ns=time_ns), at_ns(300 * MIN)
    ).conditions
    raised = found.instance[found.level == 1]
    assert sorted(raised.tolist()) == list(range(140, 200))
    assert set(found.time_ns[found.level == 1].tolist()) == {at_ns(240 * MIN)}


def test_points_without_a_vehicle_and_vehicles_with_two_speeds_are_reported() -> None:
    table = _table()
    table.put(Point(id="v.other", quantity="vehicle_speed", device="v"))
    table.put(Point(id="lost", quantity="vehicle_speed"))
    assert RuleSet([rule(**COACH)], {"driving": KIND}, table).problems == [
        "r: -: points without a device cannot be judged together",
        "r: v: input speed needs one point, found v.speed, v.other",
    ]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"pre_warn_s": 60},
        {"drive_max_s": 60, "pre_warn_s": 60},
        {"ban": {"from": "02:00", "to": "05:00"}, "pre_warn_s": 60},
        {"drive_max_s": 60, "pre_warn_priority": "low"},
        {"drive_max_s": 60, "rest_min_s": 0},
        {"drive_max_s": 90_000},
        {"drive_max_s": 60, "gap_max_s": 21_601},
        {"night": {"from": "22:00", "to": "06:00"}},
        {"ban": {"from": "02:00", "to": "02:00"}},
        {"drive_max_s": 60, "utc_offset_h": 15},
        {"drive_max_s": 60, "speed": 5},
    ],
)
def test_parameters_that_make_no_sense_are_refused(given) -> None:
    with pytest.raises(ValidationError):
        DrivingParameters.model_validate(given)


@pytest.mark.parametrize(
    ("old", "new", "looser"),
    [
        (COACH, {**COACH, "drive_max_s": 14_000.0}, False),
        (COACH, {**COACH, "drive_max_s": 14_401.0}, True),
        (COACH, {**COACH, "rest_min_s": 1_199.0}, True),
        (COACH, {**COACH, "rest_min_s": 1_300.0}, False),
        (COACH, {**COACH, "moving_kmh": 6.0}, True),
        (COACH, {**COACH, "gap_max_s": 200.0}, True),
        (COACH, {**COACH, "short_stops": "pause"}, True),
        (COACH, {**COACH, "gap_standing": "standing"}, True),
        ({**COACH, "gap_standing": "standing"}, COACH, False),
        ({**COACH, "pre_warn_s": 600}, COACH, True),
        ({**COACH, **EIGHT}, COACH, True),
        ({**COACH, **NIGHT}, COACH, True),
        (COACH, {**COACH, **NIGHT, **BAN}, False),
        ({**COACH, **BAN}, {**COACH, "ban": {"from": "02:00", "to": "04:00"}}, True),
        ({**COACH, **BAN}, {**COACH, **BAN, "utc_offset_h": 7}, True),
    ],
)
def test_longer_driving_and_shorter_rests_are_looser(old, new, looser) -> None:
    pair = [DrivingParameters.model_validate(given) for given in (old, new)]
    assert bool(KIND.loosens(*pair)) == looser
