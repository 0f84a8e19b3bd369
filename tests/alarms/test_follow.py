"""Rules that change under standing alarms; confirmation; what a row says of its levels."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Action, Command, Refusal, Role, token_of
from gateway.alarms.rows import digest_of
from gateway.model.condition import Level, RuleInstance
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_instance

KEY = "ch4.001:ch4.limit"
ALARM = make_instance()


def live(book: AlarmBook, level: str, at: int, value: float = 1.5, *, instance=ALARM):
    conditions = make_conditions(Row(0, level, at * S, value), instances=[instance])
    return book.apply(conditions, [instance], at * S)


def ask(book: AlarmBook, action: Action, at: int = 1_000, **more):
    row = book.get(KEY)
    filled = {"actor": "li", "role": Role.SHIFT_LEAD, "text": "why", "permit": "P", "source": "s"}
    filled["token"] = token_of(row) if row else "0:0"
    return book.command(Command(action=action, alarm_key=KEY, **{**filled, **more}), at * S)


def follow(book: AlarmBook, instances, live_ones=None, at: int = 2_000, levels=None):
    flags = np.array([True] * len(instances) if live_ones is None else live_ones, bool)
    codes = None if levels is None else np.array(levels, np.uint8)
    return book.follow(instances, flags, at * S, levels=codes)


def edited(instance: RuleInstance, **changes) -> RuleInstance:
    levels = changes.pop("levels", instance.levels)
    return replace(instance, rule=replace(instance.rule, **changes), levels=levels)


# --- a rule that is gone

STANDING = [
    ([], "UNACK"),
    ([Action.ACKNOWLEDGE], "ACKED"),
    ([Action.SUPPRESS], "DSUPR"),
    ([Action.OUT_OF_SERVICE], "OOSRV"),
    ([Action.DISABLE], "DISAB"),
]


@pytest.mark.parametrize(("actions", "state"), STANDING)
@pytest.mark.parametrize("gone", ["no longer matches", "no longer exists"])
def test_an_alarm_whose_rule_is_gone_is_closed_and_says_so(actions, state, gone) -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    for action in actions:
        role = Role.ENGINEER if action is Action.DISABLE else Role.SHIFT_LEAD
        assert ask(book, action, role=role).accepted
    assert book.get(KEY).state == state
    events = follow(book, [ALARM], [False]) if gone == "no longer matches" else follow(book, [])
    assert [(e.transition, e.comment, e.from_state, e.annunciate) for e in events] == [
        ("REM", "rule removed", state, False)
    ]
    row = book.get(KEY)
    assert (row.removed, row.state, row.open, row.active, row.enabled) == (
        *(True, "NORM", False, False, True),
    )
    assert (row.suppressed_by, row.out_of_service, row.hidden_note) == ((), False, "")
    assert follow(book, [ALARM], [False]) == []
    assert book.standing() == []
    assert ask(book, Action.COMMENT).refusal is Refusal.UNKNOWN_ALARM


def test_a_rule_that_comes_back_goes_on_with_the_numbers_of_the_alarm() -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    follow(book, [])
    follow(book, [ALARM])
    assert ask(book, Action.COMMENT).accepted
    (event,) = live(book, "H", 9)
    assert (event.alarm.occ_no, event.alarm.seq, event.alarm.removed) == (2, 4, False)


def test_what_a_rule_held_all_along_is_raised_when_it_matches_again() -> None:
    book = AlarmBook(1)
    live(book, "HH", 1)
    follow(book, [ALARM], [False])
    (event,) = follow(book, [ALARM], levels=[2])
    assert (event.transition, event.annunciate, event.alarm.level) == ("ACT", True, "HH")
    assert follow(book, [ALARM], levels=[2]) == []
    (back,) = live(book, "", 3)  # the rule core's clock is that of its samples
    assert back.transition == "RTN"


def test_what_a_rule_that_is_back_finds_in_old_samples_is_no_repeat_of_what_was_closed() -> None:
    """The samples since the last checkpoint are judged again, by a rule that has just come back."""
    book = AlarmBook(1)
    live(book, "H", 1)
    follow(book, [])
    again = AlarmBook(2)
    again.restore(book.snapshot(), gseq=book.gseq)
    assert follow(again, [ALARM]) == []
    assert [event.transition for event in live(again, "H", 1)] == ["ACT"]


# --- a rule that was edited

EDITS = [
    ({"version": "2"}, True),
    ({"on_delay_s": 5.0}, True),
    ({"latching": True}, True),
    ({"parameters": {"levels": {"H": 0.8}}}, True),
    ({"levels": (Level("H", Priority.MEDIUM, 0.8), Level("HH", Priority.HIGH, 2.0))}, True),
    ({"name": {"en": "another word"}}, False),
    ({}, False),
]


@pytest.mark.parametrize(("changes", "tells"), EDITS)
def test_an_edited_rule_is_told_of_what_stands_and_changes_no_flag(changes, tells: bool) -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    before = book.get(KEY)
    events = follow(book, [edited(ALARM, **changes)])
    assert [e.transition for e in events] == ["EDT"] * tells
    row = book.get(KEY)
    assert (row.state, row.attention_seq, row.level, row.limit) == (
        *(before.state, 1, "H", before.limit),
    )
    assert row.rule_version == changes.get("version", "1")
    assert follow(book, [edited(ALARM, **changes)]) == []


def test_an_edited_rule_is_not_told_of_what_nobody_sees() -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    live(book, "", 2)
    ask(book, Action.ACKNOWLEDGE)
    assert follow(book, [edited(ALARM, version="2")]) == []
    live(book, "H", 100, instance=edited(ALARM, version="2"))
    assert book.get(KEY).rule_version == "2"


def test_a_row_from_before_there_were_digests_is_compared_by_its_version() -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    old = AlarmBook(2)
    old.restore([replace(book.get(KEY), rule_digest="")], gseq=1)
    assert follow(old, [edited(ALARM, on_delay_s=3.0)]) == []
    assert [e.transition for e in follow(old, [edited(ALARM, version="2")])] == ["EDT"]


def test_equal_rules_have_one_digest_and_it_is_the_same_in_every_process() -> None:
    assert digest_of(ALARM) == digest_of(make_instance())
    assert digest_of(make_instance("other")) == digest_of(ALARM)
    assert digest_of(ALARM) == "354428f7a1f1"


# --- confirmation


def test_a_confirmation_is_recorded_with_who_and_what_and_changes_no_state() -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    ask(book, Action.ACKNOWLEDGE)
    result = ask(book, Action.CONFIRM, 1_500, text="fan 2 started")
    (event,) = result.events
    assert (event.transition, event.actor, event.comment) == ("CNF", "li", "[P] fan 2 started")
    assert (event.from_state, event.alarm.state, event.annunciate) == ("ACKED", "ACKED", False)
    assert (event.alarm.confirmed_by, event.alarm.confirmed_time_ns) == ("li", 1_500 * S)
    assert ask(book, Action.CONFIRM, actor="wang").events == ()
    assert book.get(KEY).confirmed_by == "li"


def test_the_action_is_often_done_only_after_the_return() -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    ask(book, Action.ACKNOWLEDGE)
    live(book, "", 5)
    assert ask(book, Action.CONFIRM).accepted
    assert book.get(KEY).state == "NORM"


CONFIRM_REFUSED = [
    ({}, Refusal.NOT_ACKNOWLEDGED),
    ({"text": " "}, Refusal.REASON_REQUIRED),
    ({"token": ""}, Refusal.TOKEN_REQUIRED),
    ({"token": "2:1"}, Refusal.STALE_TOKEN),
    ({"role": Role.VIEWER}, Refusal.FORBIDDEN),
    ({"actor": ""}, Refusal.ACTOR_REQUIRED),
]


@pytest.mark.parametrize(("more", "refusal"), CONFIRM_REFUSED)
def test_a_confirmation_is_refused_with_its_reason(more, refusal: Refusal) -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    assert ask(book, Action.CONFIRM, **more).refusal is refusal


def test_there_is_nothing_to_confirm_of_an_alarm_that_never_was() -> None:
    book = AlarmBook(1)
    book.declare([ALARM])
    assert ask(book, Action.CONFIRM).refusal is Refusal.NO_OCCURRENCE


@pytest.mark.parametrize("again", ["HH", "rejoin", "later"])
def test_what_asks_anew_is_not_confirmed(again: str) -> None:
    book = AlarmBook(1)
    live(book, "H", 1)
    ask(book, Action.ACKNOWLEDGE)
    ask(book, Action.CONFIRM)
    if again == "HH":
        live(book, "HH", 2_000)
    else:
        live(book, "", 2_000)
        live(book, "H", 2_010 if again == "rejoin" else 3_000)
    assert (book.get(KEY).confirmed_by, book.get(KEY).confirmed_time_ns) == ("", None)


# --- levels


def test_the_value_is_of_the_level_in_force_and_the_first_one_is_kept() -> None:
    book = AlarmBook(1)
    live(book, "H", 10, 1.1)
    live(book, "HH", 20, 2.2)
    row = book.get(KEY)
    assert (row.value, row.initial_value, row.peak, row.limit) == (2.2, 1.1, 2.2, 2.0)
    assert (row.active_time_ns, row.level_time_ns) == (10 * S, 20 * S)
    live(book, "H", 30, 1.7)
    row = book.get(KEY)
    assert (row.value, row.initial_value, row.peak, row.level) == (1.7, 1.1, 2.2, "H")
    live(book, "", 40, 0.5)
    live(book, "H", 50, 1.3)  # the same occurrence
    assert (book.get(KEY).value, book.get(KEY).initial_value) == (1.3, 1.1)
    live(book, "", 60, 0.5)
    live(book, "H", 500, 1.4)
    assert (book.get(KEY).value, book.get(KEY).initial_value) == (1.4, 1.4)


LATCHED = [  # rule latches, H latches, HH latches, levels lived through, latched after
    (False, None, True, ["H", ""], False),
    (False, None, True, ["H", "HH", ""], True),
    (False, None, True, ["HH", "H", ""], True),
    (True, False, None, ["H", ""], False),
    (True, False, None, ["H", "HH", "H", ""], True),
    (True, None, None, ["H", ""], True),
    (False, None, None, ["HH", ""], False),
]


@pytest.mark.parametrize(("rule", "h", "hh", "lived", "latched"), LATCHED)
def test_a_level_may_latch_by_itself(rule, h, hh, lived, latched) -> None:
    levels = (
        Level("H", Priority.MEDIUM, 1.0, latching=h),
        Level("HH", Priority.HIGH, 2.0, latching=hh),
    )
    instance = make_instance(levels=levels, latching=rule)
    book = AlarmBook(1)
    for at, level in enumerate(lived):
        live(book, level, 10 + at, instance=instance)
    assert book.get(KEY).latched == latched
    assert book.get(KEY).state == ("LATCU" if latched else "RTNUN")


def test_planned_alarms_are_counted_apart() -> None:
    book = AlarmBook(1)
    other = make_instance("p2")
    conditions = make_conditions(
        Row(0, "H", 1 * S, quality=0x42), Row(1, "H", 1 * S), instances=[ALARM, other]
    )
    book.apply(conditions, [ALARM, other], 2 * S)
    counts = book.counts()
    assert (counts["standing"], counts["unacknowledged"], counts["planned"]) == (1, 1, 1)
    assert (counts["UNACK"], len(book.standing())) == (1, 2)
    live(book, "H", 5)
    assert (book.counts()["standing"], book.counts()["planned"]) == (2, 0)
