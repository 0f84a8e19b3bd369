"""What a person may ask: a table of who, what, when, and the word that refuses."""

import pytest

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import MAY, SOURCES_MAX, Action, Command, Refusal, Role, token_of
from gateway.model.alarm import Transition
from gateway.model.rule import Priority
from gateway.testing.alarms import S, make_conditions, make_instance

H = 3600 * S
NOW = 100 * S
KEY = "ch4.001:ch4.limit"


def book_with(*levels: tuple[str, int], priority: Priority = Priority.MEDIUM, latching=False):
    """A book with one alarm, through the given levels."""
    instance = make_instance(priority=priority, latching=latching)
    book = AlarmBook(1)
    book.declare([instance])
    rows = make_conditions(*[(0, name, at * S, 1.5) for name, at in levels], instances=[instance])
    book.apply(rows, [instance], NOW)
    return book


def ask(book: AlarmBook, action: Action, *, now: int = NOW, role: Role | None = None, **more):
    """Ask as the best-placed person, with everything the form needs, unless told otherwise."""
    role = role or (Role.SHIFT_LEAD if Role.SHIFT_LEAD in MAY[action] else Role.ENGINEER)
    row = book.get(more.get("alarm_key", KEY))
    filled = {
        "alarm_key": KEY,
        "actor": "li.wei",
        "text": "pump test",
        "token": token_of(row) if row and action is Action.ACKNOWLEDGE else "",
        "until_ns": now + 60 * S if action is Action.SHELVE else None,
        "source": "maintenance" if action in (Action.SUPPRESS, Action.UNSUPPRESS) else "",
        "permit": "P-77" if action is Action.OUT_OF_SERVICE else "",
    }
    return book.command(Command(action=action, role=role, **{**filled, **more}), now)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", Role)
def test_only_the_roles_of_the_table_are_not_forbidden(action: Action, role: Role) -> None:
    result = ask(book_with(("H", 10)), action, role=role)
    assert (result.refusal is Refusal.FORBIDDEN) == (role not in MAY[action])


def test_every_action_has_someone_who_may_and_nobody_may_who_only_looks_or_audits() -> None:
    assert set(MAY) == set(Action)
    assert all(MAY.values())
    everyone = set().union(*MAY.values())
    assert not everyone & {Role.VIEWER, Role.AUDITOR, Role.SECURITY_ADMIN}


# levels lived through, action, changes to the command, priority, answer
REFUSED = [
    ([("H", 10)], "acknowledge", {"alarm_key": "nobody:knows"}, 3, "unknown_alarm", 404),
    ([("H", 10)], "acknowledge", {"token": ""}, 3, "token_required", 422),
    ([("H", 10)], "acknowledge", {"token": "1:0"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"token": "1:9"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"token": "2:1"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"token": "one:1"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"token": "1"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"token": "1:" + "1" * 5000}, 3, "stale_token", 409),
    ([("H", 10), ("HH", 20)], "acknowledge", {"token": "1:1"}, 3, "stale_token", 409),
    ([("H", 10)], "acknowledge", {"actor": " "}, 3, "actor_required", 422),
    ([("H", 10)], "acknowledge", {"text": "x" * 501}, 3, "text_too_long", 422),
    ([("H", 10)], "comment", {"text": " "}, 3, "reason_required", 422),
    ([("H", 10)], "shelve", {"text": ""}, 3, "reason_required", 422),
    ([("H", 10)], "shelve", {"until_ns": None}, 3, "until_required", 422),
    ([("H", 10)], "shelve", {"until_ns": NOW}, 3, "until_past", 422),
    ([("H", 10)], "shelve", {"until_ns": NOW + 8 * H + 1}, 3, "shelf_too_long", 422),
    ([("H", 10)], "shelve", {"until_ns": NOW + 8 * H + 1}, 4, "shelf_too_long", 422),
    ([("H", 10)], "shelve", {"until_ns": NOW + 1 * H + 1}, 2, "shelf_too_long", 422),
    ([("H", 10)], "shelve", {"role": Role.OPERATOR}, 2, "forbidden", 403),
    ([("H", 10)], "shelve", {}, 1, "not_shelvable", 409),
    ([("H", 10)], "shelve_once", {}, 1, "not_shelvable", 409),
    ([("H", 10), ("", 20)], "shelve_once", {}, 3, "not_active", 409),
    ([("H", 10)], "suppress", {"text": ""}, 3, "reason_required", 422),
    ([("H", 10)], "suppress", {"source": " "}, 3, "source_required", 422),
    ([("H", 10)], "suppress", {}, 1, "second_person_required", 403),
    ([("H", 10)], "suppress", {"approved_by": "li.wei"}, 1, "second_person_required", 403),
    ([("H", 10)], "disable", {}, 1, "second_person_required", 403),
    ([("H", 10)], "unsuppress", {"source": ""}, 3, "source_required", 422),
    ([("H", 10)], "out_of_service", {"permit": ""}, 3, "permit_required", 422),
    ([("H", 10)], "out_of_service", {"text": ""}, 3, "reason_required", 422),
    ([("H", 10)], "disable", {"text": ""}, 3, "reason_required", 422),
]  # fmt: skip


@pytest.mark.parametrize(("levels", "action", "change", "priority", "word", "code"), REFUSED)
def test_a_refused_command_says_why_and_changes_nothing(  # noqa: PLR0917
    levels, action, change, priority, word, code
) -> None:
    book = book_with(*levels, priority=Priority(priority))
    before, gseq = book.snapshot(), book.gseq
    result = ask(book, Action(action), **change)
    assert (result.reason, result.code) == (word, code)
    assert not result.accepted
    assert result.events == ()
    assert (book.snapshot(), book.gseq) == (before, gseq)


@pytest.mark.parametrize(
    ("priority", "hours", "word"), [(1, 1, "not_shelvable"), (2, 1, ""), (3, 8, ""), (4, 8, "")]
)
def test_the_longest_shelf_of_each_priority_is_allowed_and_critical_has_none(
    priority: int, hours: int, word: str
) -> None:
    book = book_with(("H", 10), priority=Priority(priority))
    result = ask(book, Action.SHELVE, until_ns=NOW + hours * H)
    assert result.reason == word


def test_a_level_that_could_become_critical_is_not_shelvable_at_its_lower_level() -> None:
    instance = make_instance(levels=("H", "HHH"))
    book = AlarmBook(1)
    book.apply(make_conditions((0, "H", S), instances=[instance]), [instance], NOW)
    assert book.get(KEY).priority is Priority.MEDIUM
    assert ask(book, Action.SHELVE).reason == "not_shelvable"


def test_two_persons_may_suppress_what_is_critical_and_the_row_names_both() -> None:
    book = book_with(("H", 10), priority=Priority.CRITICAL)
    result = ask(book, Action.SUPPRESS, approved_by="zhang.min")
    assert result.accepted
    assert result.alarm.hidden_note == "li.wei + zhang.min: pump test"


def test_an_acknowledgement_records_who_when_and_closes_what_has_returned() -> None:
    book = book_with(("H", 10), ("", 20))
    result = ask(book, Action.ACKNOWLEDGE)
    assert [event.transition for event in result.events] == [Transition.ACKNOWLEDGED]
    assert (result.alarm.acknowledged_by, result.alarm.acknowledged_time_ns) == ("li.wei", NOW)
    assert result.alarm.state == "NORM"
    assert result.alarm.comment == "pump test"


def test_a_second_acknowledgement_is_accepted_changes_nothing_and_names_the_first() -> None:
    book = book_with(("H", 10))
    token = token_of(book.get(KEY))
    assert ask(book, Action.ACKNOWLEDGE, token=token).events
    again = ask(book, Action.ACKNOWLEDGE, token=token, actor="wang.fang")
    assert again.accepted
    assert again.events == ()
    assert again.alarm.acknowledged_by == "li.wei"


def test_a_comment_or_a_return_in_between_does_not_spoil_a_token_but_a_new_occurrence_does() -> (
    None
):
    instance = make_instance()
    book = book_with(("H", 10))
    token = token_of(book.get(KEY))
    assert ask(book, Action.COMMENT).accepted
    book.apply(make_conditions((0, "", 20 * S), instances=[instance]), [instance], NOW)
    later = make_conditions((0, "H", 200 * S), instances=[instance])
    other = AlarmBook(1, gseq=book.gseq)
    other.restore(book.snapshot(), gseq=book.gseq)
    assert ask(book, Action.ACKNOWLEDGE, token=token).accepted
    other.apply(later, [instance], 200 * S)
    assert ask(other, Action.ACKNOWLEDGE, token=token).reason == "stale_token"


def test_a_token_given_with_another_action_is_held_to_as_well() -> None:
    assert ask(book_with(("H", 10)), Action.SHELVE, token="1:0").reason == "stale_token"


LATCHED = [
    ([("H", 10)], [], "still_active"),
    ([("H", 10), ("", 20)], [], "not_acknowledged"),
    ([("H", 10), ("", 20)], [Action.ACKNOWLEDGE], ""),
    ([("H", 10), ("", 20)], [Action.ACKNOWLEDGE, Action.SUPPRESS], "hidden"),
]


@pytest.mark.parametrize(("levels", "first", "word"), LATCHED)
def test_a_latch_is_reset_only_when_it_is_over_seen_and_in_sight(levels, first, word) -> None:
    book = book_with(*levels, latching=True)
    for action in first:
        assert ask(book, action).accepted
    result = ask(book, Action.RESET)
    assert result.reason == word
    assert (result.alarm.state == "NORM") == (word == "")


def test_a_hidden_alarm_cannot_be_acknowledged() -> None:
    book = book_with(("H", 10))
    assert ask(book, Action.SHELVE).accepted
    assert ask(book, Action.ACKNOWLEDGE).reason == "hidden"


def test_a_one_shot_shelf_without_an_end_gets_the_longest_its_priority_allows() -> None:
    result = ask(book_with(("H", 10)), Action.SHELVE_ONCE)
    assert result.alarm.shelved_until_ns == NOW + 8 * H


def test_suppression_ends_with_its_last_source_and_every_change_of_sources_is_an_event() -> None:
    book = book_with(("H", 10))
    for source in ("a", "b"):
        assert len(ask(book, Action.SUPPRESS, source=source).events) == 1
    assert ask(book, Action.SUPPRESS, source="a").events == ()
    assert ask(book, Action.UNSUPPRESS, source="c").events == ()
    assert ask(book, Action.UNSUPPRESS, source="a").alarm.state == "DSUPR"
    assert book.get(KEY).suppressed_by == ("b",)
    last = ask(book, Action.UNSUPPRESS, source="b")
    assert (last.alarm.state, last.events[0].annunciate) == ("UNACK", True)


def test_an_alarm_takes_no_more_suppression_sources_than_its_limit() -> None:
    book = book_with(("H", 10))
    for number in range(SOURCES_MAX):
        assert ask(book, Action.SUPPRESS, source=f"s{number:02d}").accepted
    assert ask(book, Action.SUPPRESS, source="one more").reason == "too_many_sources"
    assert ask(book, Action.SUPPRESS, source="s00").accepted


def test_an_alarm_that_never_was_can_be_taken_out_of_service_once_its_rule_is_declared() -> None:
    book = book_with()
    assert book.snapshot() == []
    result = ask(book, Action.OUT_OF_SERVICE)
    assert (result.alarm.state, result.alarm.hidden_note) == ("OOSRV", "li.wei: [P-77] pump test")
    back = ask(book, Action.RETURN_TO_SERVICE)
    assert (back.alarm.state, back.alarm.hidden_note) == ("NORM", "")


def test_unshelving_by_hand_is_taking_notice() -> None:
    book = book_with(("H", 10))
    ask(book, Action.SHELVE)
    result = ask(book, Action.UNSHELVE, actor="wang.fang")
    assert (result.alarm.state, result.alarm.acknowledged_by) == ("ACKED", "wang.fang")
    assert not result.events[0].annunciate
