"""First-out groups, and dead links that explain what is silent behind them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.alarms.book import AlarmBook, BookConfig
from gateway.alarms.commands import Action, Command, Refusal, Role
from gateway.alarms.policy import AlarmGroup, GroupMode
from gateway.alarms.record import encode_alarm
from gateway.alarms.relations import above_in, node_of
from gateway.model.condition import RuleInstance
from gateway.model.point import Device, Point, PointTable
from gateway.model.rule import Priority
from gateway.testing.alarms import Row, S, make_conditions, make_instance

FAN = AlarmGroup("fan", rules=("fan.*",), mode=GroupMode.SUPPRESS)
MARKED = AlarmGroup("fan", rules=("fan.*",))
A, B = (make_instance(name, f"fan.{name}") for name in "ab")
C = make_instance("c", "fan.c", levels=("H", "HH", "HHH"))
OTHER = make_instance("d", "pump.d")
GROUPED = [A, B, C, OTHER]


def silence(kind: str, target: str, *, device: str = "", priority=Priority.MEDIUM) -> RuleInstance:
    """A silence alarm of a point, a device or an adapter, as the offline kind makes them."""
    made = make_instance(
        target, f"silent.{kind}", levels=("OFFLINE",), kind="offline", priority=priority
    )
    return RuleInstance(
        alarm_key=made.alarm_key,
        rule=made.rule,
        target=target,
        point_id=target if kind == "point" else "",
        levels=made.levels,
        device=target if kind == "device" else device,
    )


def plant() -> PointTable:
    """adapter gas ─ substation s1 ─ sensors d1, d2 ─ points p1, p2; adapter fleet ─ point v1."""
    points = PointTable()
    points.put_device(Device("s1", "substation", adapter="gas"))
    for name in ("d1", "d2"):
        points.put_device(Device(name, "sensor", adapter="gas", attributes={"parent": "s1"}))
    points.put(Point("p1", device="d1", adapter="gas"))
    points.put(Point("p2", device="d2", adapter="gas"))
    points.put(Point("v1", adapter="fleet"))
    return points


GAS = silence("adapter", "gas")
S1 = silence("device", "s1")
D1 = silence("device", "d1")
P1, P2 = silence("point", "p1", device="d1"), silence("point", "p2", device="d2")
P1_HIGH = silence("point", "p1", device="d1", priority=Priority.HIGH)
V1 = silence("point", "v1")
LINKS = [GAS, S1, D1, P1, P2, V1]


class World:
    """A book with what it hangs on, driven by short words."""

    def __init__(self, instances, *, groups=(), release_s: float = 0.0) -> None:
        self.instances = instances
        self.config = BookConfig(
            groups=groups, silence_kinds=frozenset({"offline"}), parent_release_s=release_s
        )
        self.book = AlarmBook(1, config=self.config, above=above_in(plant()))
        self.book.declare(instances)
        self.events = []

    def says(self, *rows, known: float | None = None) -> list[str]:
        """Rows are (instance, level, second); everything is known up to `known`."""
        made = [Row(self.instances.index(i), level, round(at * S)) for i, level, at in rows]
        until = max((row.time_ns for row in made), default=0)
        known_ns = until if known is None else round(known * S)
        return self._took(
            self.book.apply(
                make_conditions(*made, instances=self.instances), self.instances, known_ns
            )
        )

    def asks(self, instance, action: Action, at: float = 1000.0, **more) -> list[str]:
        filled = {"actor": "li", "role": Role.SHIFT_LEAD, "text": "why", "permit": "P"}
        command = Command(action=action, alarm_key=instance.alarm_key, **{**filled, **more})
        result = self.book.command(command, round(at * S))
        assert result.accepted, result.reason
        return self._took(result.events)

    def restart(self) -> None:
        rows = self.book.snapshot()
        self.book = AlarmBook(1, config=self.config, above=above_in(plant()))
        self.book.restore(rows, gseq=max((row.gseq for row in rows), default=0))

    def follows(self, at: float) -> None:
        live = np.ones(len(self.instances), bool)
        assert self._took(self.book.follow(self.instances, live, round(at * S))) == []

    def _took(self, events) -> list[str]:
        self.events += events
        return [f"{e.transition} {e.alarm.target}{'!' * e.annunciate}" for e in events]

    def row(self, instance):
        return self.book.get(instance.alarm_key)


# --- first-out


def test_the_first_of_a_group_is_marked_and_the_others_are_shown_all_the_same() -> None:
    world = World(GROUPED, groups=(MARKED,))
    assert world.says((B, "H", 1), (A, "H", 2), (OTHER, "H", 3)) == ["ACT b!", "ACT a!", "ACT d!"]
    assert [world.row(i).first_out for i in GROUPED[:2]] == [(), ("fan",)]
    assert world.events[0].alarm.first_out == ("fan",)
    assert world.row(OTHER).first_out == ()


def test_followers_are_suppressed_while_the_first_stands_and_come_back_when_it_ends() -> None:
    world = World(GROUPED, groups=(FAN,))
    assert world.says((A, "H", 1), (B, "H", 2), (C, "H", 3)) == [
        *("ACT a!", "SUP b", "ACT b", "SUP c", "ACT c")
    ]
    assert world.row(B).suppressed_by == ("first-out:fan",)
    assert (world.row(B).state, world.row(B).active) == ("DSUPR", True)
    assert world.says((C, "", 4)) == ["RTN c"]
    assert world.says((A, "", 5), known=6) == ["RTN a", "UNP b!", "UNP c"]
    assert (world.row(B).state, world.row(C).state) == ("UNACK", "NORM")
    assert world.events[-1].comment == "first-out:fan"


def test_acknowledging_the_first_keeps_the_rest_explained_and_shelving_it_does_not() -> None:
    world = World(GROUPED, groups=(FAN,))
    world.says((A, "H", 1), (B, "H", 2))
    world.asks(A, Action.ACKNOWLEDGE, at=3, token=f"1:{world.row(A).seq}")
    assert world.says(known=4) == []
    assert world.asks(A, Action.SHELVE, at=5, until_ns=100 * S) == ["SHV a", "UNP b!"]


def test_priority_one_is_never_suppressed_and_a_worse_level_is_an_alarm_of_its_own() -> None:
    world = World(GROUPED, groups=(FAN,))
    world.says((A, "H", 1), (B, "H", 2))
    assert world.says((C, "HHH", 3)) == ["ACT c!"]
    assert world.says((B, "HH", 4)) == ["UNP b", "ESC b!"]
    assert world.row(B).suppressed_by == ()


def test_a_follower_that_comes_back_at_priority_one_is_no_longer_suppressed() -> None:
    world = World(GROUPED, groups=(FAN,))
    world.says((A, "H", 1), (C, "H", 2), (C, "", 3))
    assert world.row(C).state == "DSUPR"
    assert world.says((C, "HHH", 4)) == ["UNP c", "ACT c!"]


def test_one_group_has_one_first_until_none_of_it_is_active() -> None:
    world = World(GROUPED, groups=(FAN,))
    world.says((A, "H", 1), (B, "H", 2), (A, "", 3), known=4)
    assert world.says((C, "H", 5), (A, "H", 6)) == ["ACT c!", "ACT a"]  # a rejoined: chatter
    assert world.row(A).first_out == ()
    world.says((A, "", 10), (B, "", 10), (C, "", 10))
    assert world.says((C, "H", 200)) == ["ACT c!"]
    assert world.row(C).first_out == ("fan",)


def test_a_calibration_is_no_first_and_explains_nothing() -> None:
    world = World(GROUPED, groups=(FAN,))
    planned = Row(0, "H", 1 * S, quality=0x42)
    world.book.apply(make_conditions(planned, instances=GROUPED), GROUPED, 1 * S)
    assert world.row(A).planned
    assert world.row(A).first_out == ()
    assert world.says((B, "H", 2)) == ["ACT b!"]
    assert world.row(B).first_out == ("fan",)


SELECTIONS = [
    (AlarmGroup("g", rules=("fan.*",)), True),
    (AlarmGroup("g", rules=("fan",)), False),
    (AlarmGroup("g", areas=("3101",)), True),
    (AlarmGroup("g", areas=("31*",)), True),
    (AlarmGroup("g", areas=("3102",)), False),
    (AlarmGroup("g", rules=("fan.*",), areas=("3102",)), False),
    (AlarmGroup("g", devices=("x",)), False),
]


@pytest.mark.parametrize(("group", "has"), SELECTIONS)
def test_a_group_takes_what_every_given_selection_names(group: AlarmGroup, has: bool) -> None:
    assert group.has(A) == has


# --- dead links


def test_a_dead_link_is_one_annunciation_and_everything_behind_it_is_recorded() -> None:
    world = World(LINKS)
    heard = world.says(
        (P1, "OFFLINE", 5), (GAS, "OFFLINE", 5), (S1, "OFFLINE", 5), (V1, "OFFLINE", 5)
    )
    assert heard == ["ACT gas!", "SUP s1", "ACT s1", "SUP p1", "ACT p1", "ACT v1!"]
    assert world.row(P1).suppressed_by == (
        f"parent:{GAS.alarm_key}",
        f"parent:{S1.alarm_key}",
    )


def test_what_was_silent_before_its_link_is_explained_from_then_on() -> None:
    world = World(LINKS)
    assert world.says((P1, "OFFLINE", 1), (D1, "OFFLINE", 2)) == ["ACT p1!", "ACT d1!", "SUP p1"]
    assert world.row(P1).shown
    assert world.says((D1, "", 3), known=4) == ["RTN d1", "UNP p1!"]
    assert world.row(P1).state == "UNACK"


def test_nothing_more_urgent_than_its_parent_is_explained_by_it() -> None:
    world = World([GAS, P1_HIGH])
    assert world.says((GAS, "OFFLINE", 1), (P1_HIGH, "OFFLINE", 2)) == ["ACT gas!", "ACT p1!"]


def test_a_value_over_its_limit_is_never_explained_by_a_dead_link() -> None:
    limit = RuleInstance(**{
        **{name: getattr(A, name) for name in RuleInstance.__slots__},
        "target": "p1", "point_id": "p1", "alarm_key": "p1:fan.a",
    })  # fmt: skip
    world = World([D1, limit])
    assert world.says((D1, "OFFLINE", 1), (limit, "H", 2)) == ["ACT d1!", "ACT p1!"]


def test_what_returns_with_its_link_asks_nobody_and_what_stays_silent_comes_back_later() -> None:
    world = World(LINKS, release_s=30)
    world.says((D1, "OFFLINE", 1), (GAS, "OFFLINE", 1), (P1, "OFFLINE", 2), (P2, "OFFLINE", 2))
    assert world.says((GAS, "", 10), (D1, "", 10), known=20) == ["RTN gas", "RTN d1"]
    assert world.says((P1, "", 25), known=39) == ["RTN p1"]
    assert world.says(known=41) == ["UNP p1", "UNP d1", "UNP p1", "UNP p2!"]
    assert world.events[-1].time_ns == 40 * S
    assert (world.row(P1).state, world.row(P2).state) == ("NORM", "UNACK")


def test_a_link_that_dies_again_within_the_grace_goes_on_explaining() -> None:
    world = World(LINKS, release_s=30)
    world.says((D1, "OFFLINE", 1), (P1, "OFFLINE", 2))
    world.says((D1, "", 10), known=11)
    assert world.says((D1, "OFFLINE", 20), known=100) == ["ACT d1"]  # rejoined, nobody looked yet
    assert world.row(P1).suppressed_by


def test_who_hides_the_link_has_hidden_what_is_behind_it() -> None:
    world = World(LINKS)
    world.says((D1, "OFFLINE", 1), (P1, "OFFLINE", 2))
    world.asks(D1, Action.SHELVE, at=3, until_ns=100 * S)
    assert world.says(known=50) == []
    assert world.row(P1).suppressed_by == (f"parent:{D1.alarm_key}",)


def test_nobody_takes_away_or_speaks_for_what_the_gateway_suppressed() -> None:
    world = World(LINKS)
    world.says((D1, "OFFLINE", 1), (P1, "OFFLINE", 2))
    for action in (Action.SUPPRESS, Action.UNSUPPRESS):
        command = Command(
            action=action,
            alarm_key=P1.alarm_key,
            actor="li",
            role=Role.SHIFT_LEAD,
            text="why",
            source=f"parent:{D1.alarm_key}",
        )
        assert world.book.command(command, 3 * S).refusal is Refusal.FORBIDDEN


def test_after_a_restart_what_no_longer_stands_no_longer_explains() -> None:
    world = World(LINKS, groups=(FAN,))
    world.says((D1, "OFFLINE", 1), (P1, "OFFLINE", 2), (GAS, "OFFLINE", 3))
    world.says((GAS, "", 4))  # and the process dies before anything is taken back
    world.restart()
    world.follows(10)
    assert world.says(known=11) == ["UNP d1!", "UNP p1"]
    assert world.row(P1).suppressed_by == (f"parent:{D1.alarm_key}",)


def test_nodes_and_what_is_above_them() -> None:
    above = above_in(plant())
    assert [node_of(i) for i in (GAS, S1, P1)] == [
        ("adapter", "gas"),
        ("device", "s1"),
        ("point", "p1"),
    ]
    assert above(P1) == [("device", "d1"), ("device", "s1"), ("adapter", "gas")]
    assert above(D1) == [("device", "s1"), ("adapter", "gas")]
    assert above(V1) == [("adapter", "fleet")]
    assert above(GAS) == []


def test_devices_that_name_each_other_as_parents_end_the_search() -> None:
    points = PointTable()
    points.put_device(Device("x", "sensor", attributes={"parent": "y"}))
    points.put_device(Device("y", "sensor", attributes={"parent": "x"}))
    points.put(Point("p1", device="x"))
    assert set(above_in(points)(P1)) == {("device", "x"), ("device", "y")}


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["", "OFFLINE"]),
        st.integers(0, 40),
        st.sampled_from(["", "restart", "shelve"]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(deadline=None)
@given(steps=STEPS, cut=st.booleans())
def test_whatever_happens_what_is_hidden_is_explained_by_something_that_stands(steps, cut) -> None:
    world = World(LINKS, release_s=20)
    now, level = 1, dict.fromkeys(range(len(LINKS)), "")
    for which, wanted, gap, extra in steps:
        now += gap
        instance = LINKS[which]
        if extra == "restart":
            world.restart()
            world.follows(now)
        if wanted != level[which]:
            level[which] = wanted
            world.says((instance, wanted, now), known=now + (0.5 if cut else 0))
        if extra == "shelve" and world.row(instance):
            world.asks(instance, Action.SHELVE, at=now, until_ns=(now + 60) * S)
        world._took(world.book.tick(now * S))
    now += 100
    world.says(known=now)
    world._took(world.book.tick(now * S))
    active = {row.alarm_key for row in world.book.snapshot() if row.active}
    for row in world.book.snapshot():
        for source in row.suppressed_by:
            assert source.removeprefix("parent:") in active
    gseqs = [event.alarm.gseq for event in world.events]
    assert gseqs == list(range(1, len(gseqs) + 1))
    newest = {event.alarm.alarm_key: event.alarm for event in world.events}
    live = [encode_alarm(row) for row in world.book.snapshot()]
    assert [encode_alarm(newest[key]) for key in sorted(newest)] == live
