"""Book and journal beside the life cycle told by hand, over random lives with crashes in them.

I1 what was shown and not acknowledged closes only by a person · I2 the process never acknowledges
what was shown · I3 a latch ends only by reset or disabling · I4 hidden alarms follow their condition
· I5 seq and gseq have no gaps, across restarts · I6 replaying the journal gives the live table byte
for byte · I8 no more is heard than there were reasons. (I7: commands are taken one at a time, so the
order they are journalled in is the serial order; that order is what the model is driven with.)
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import TRANSITION, Action, Command, Role, token_of
from gateway.alarms.journal import Journal
from gateway.alarms.record import encode_alarm
from gateway.alarms.rows import flags_of
from gateway.model.alarm import Transition
from gateway.testing.alarms import AlarmSpec, Row, S, make_conditions, make_instance

T = Transition
# Memory where there is some: thousands of syncs are not what is tested here.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
INSTANCES = [make_instance("plain"), make_instance("latching", latching=True)]
KEYS = [instance.alarm_key for instance in INSTANCES]
WHICH = st.integers(0, len(INSTANCES) - 1)
LEVELS = {"": 0, "H": 1, "HH": 2}
# A rule goes because a person took it away.
BY_A_PERSON = {T.ACKNOWLEDGED, T.UNSHELVED, T.DISABLED, T.REMOVED}
REASONS_TO_SOUND = {
    T.ACTIVATED,
    T.ESCALATED,
    T.SHELF_EXPIRED,
    T.RETURNED_TO_SERVICE,
    T.UNSUPPRESSED,
    T.REALARMED,
}


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-", dir=SCRATCH))
        self.specs = [AlarmSpec(latching=i.rule.latching) for i in INSTANCES]
        self.sources = [set() for _ in INSTANCES]
        self.until = [None for _ in INSTANCES]
        self.level = ["" for _ in INSTANCES]
        self.live = [True for _ in INSTANCES]
        self.late = set()
        self.confirmed = [False for _ in INSTANCES]
        self.event_time = 1_000 * S
        self.now = 2_000 * S
        self.told: list[Row] = []  # all the rules ever said
        self.checkpoint = 0
        self.events = []
        self.rows = {}
        self.gseq = 0

    @initialize()
    def open(self) -> None:
        self.journal = Journal.open(self.directory, reserve_bytes=0)
        self.book = AlarmBook(self.journal.epoch, gseq=self.journal.head)
        self.journal.restore_into(self.book)
        assert self.follow() == []

    def teardown(self) -> None:
        live = [encode_alarm(row) for row in self.book.snapshot()]
        assert [encode_alarm(row) for row in self.journal.live_rows()] == live
        self.journal.rebuild()
        assert [encode_alarm(row) for row in self.journal.live_rows()] == live
        assert self.journal.verify().ok
        self.journal.close()
        shutil.rmtree(self.directory)

    # --- what happens

    @rule(which=WHICH, level=st.sampled_from(list(LEVELS)), gap=st.integers(0, 70))
    def the_rules_say(self, which: int, level: str, gap: int) -> None:
        if level != self.level[which] and self.live[which]:
            self.live_through(which, level, gap)
            self.keep(self.apply(self.told[-1:]))

    @rule(which=WHICH, level=st.sampled_from(list(LEVELS)), gap=st.integers(0, 70))
    def the_rules_say_and_the_process_dies_before_the_journal(
        self, which: int, level: str, gap: int
    ) -> None:
        if level == self.level[which] or not self.live[which]:
            return
        self.live_through(which, level, gap)
        lost = self.apply(self.told[-1:])
        self.restart()
        again = self.apply(self.told[self.checkpoint :])
        assert [timeless(event) for event in again] == [timeless(event) for event in lost]
        self.keep(again)

    @rule(which=WHICH, level=st.sampled_from(list(LEVELS)), at=st.integers(0, 5))
    def late_data_is_found(self, which: int, level: str, at: int) -> None:
        if not self.live[which]:
            return
        row = Row(which, level, at * S, late=True)
        new = (which, level, at) not in self.late  # history is known by itself, whoever found it
        self.late.add((which, level, at))
        self.told.append(row)
        events = self.apply([row])
        assert [event.transition for event in events] == [T.HISTORICAL] * new
        self.keep(events)

    @rule(which=WHICH, action=st.sampled_from(list(Action)), source=st.sampled_from("ab"))
    def somebody_asks(self, which: int, action: Action, source: str) -> None:
        row = self.book.get(KEYS[which])
        role = Role.ENGINEER if action in (Action.DISABLE, Action.ENABLE) else Role.SHIFT_LEAD
        until = self.now + 50 * S if action in (Action.SHELVE, Action.SHELVE_ONCE) else None
        result = self.book.command(
            Command(
                action=action,
                alarm_key=KEYS[which],
                actor="li",
                role=role,
                text="why",
                token=token_of(row) if row else "0:0",
                until_ns=until,
                source=source,
                permit="P",
            ),
            self.now,
        )
        if not self.live[which]:
            assert (result.reason, result.events) == ("unknown_alarm", ())
            return
        answer = self.ask_spec(which, action, source)
        assert result.accepted == (answer != "reject"), result.reason
        assert bool(result.events) == (answer == "ok")
        if answer == "ok" and until:
            self.until[which] = until
        self.keep(result.events)

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * S
        for which, spec in enumerate(self.specs):
            if spec.shelf and self.until[which] <= self.now:
                assert self.do(which, T.SHELF_EXPIRED) == "ok"
        self.keep(self.book.tick(self.now))

    @rule(which=WHICH)
    def a_rule_no_longer_matches(self, which: int) -> None:
        row = self.book.get(KEYS[which])
        if not self.live[which] or row is None or row.removed:
            return
        self.live[which] = False
        self.do(which, T.REMOVED)
        self.level[which] = ""
        self.sources[which].clear()
        # Nothing judges it any more, and what does so later begins with what is then.
        self.told = [None if row and row.instance == which else row for row in self.told]
        events = self.follow()
        assert [event.transition for event in events] == [T.REMOVED]
        self.keep(events)
        assert self.book.get(KEYS[which]).removed
        assert self.follow() == []

    @rule(which=WHICH, level=st.sampled_from(list(LEVELS)))
    def a_rule_matches_again(self, which: int, level: str) -> None:
        if self.live[which]:
            return
        self.live[which] = True
        self.level[which] = level
        if level:
            assert self.do(which, T.ACTIVATED) == "ok"
        codes = [0 for _ in INSTANCES]
        codes[which] = LEVELS[level]
        self.keep(self.follow(codes))
        assert self.follow(codes) == []

    @rule()
    def the_rules_save_their_state(self) -> None:
        self.journal.save_checkpoint(len(self.told), {})
        self.checkpoint = len(self.told)

    @rule()
    def the_process_dies_and_the_rules_repeat(self) -> None:
        before = self.book.snapshot()
        self.restart()
        assert self.book.snapshot() == before
        assert self.apply(self.told[self.checkpoint :]) == []
        assert self.book.snapshot() == before

    @precondition(lambda self: self.checkpoint < len(self.told))
    @rule()
    def the_rules_start_again_in_the_same_process(self) -> None:
        before = self.book.snapshot()
        self.book.expect_repeats()
        assert self.apply(self.told[self.checkpoint :]) == []
        assert self.book.snapshot() == before

    # --- what must hold

    @invariant()
    def the_flags_are_what_the_life_cycle_says(self) -> None:
        for key, spec in zip(KEYS, self.specs, strict=True):
            row = self.book.get(key)
            if row is not None:
                assert flags_of(row) == spec.vector()
                assert bool(row.confirmed_by) == self.confirmed[KEYS.index(key)]
                if row.enabled:
                    assert row.active == (row.judged[-1:] not in ((), ("",)))

    @invariant()
    def no_more_is_heard_than_there_were_reasons(self) -> None:
        heard = sum(event.annunciate for event in self.events)
        assert heard <= sum(event.transition in REASONS_TO_SOUND for event in self.events)

    # --- how

    def live_through(self, which: int, level: str, gap: int) -> None:
        self.event_time += gap * S
        spec, was = self.specs[which], self.level[which]
        self.level[which] = level
        self.told.append(Row(which, level, self.event_time, 1.5))
        if not spec.enabled:
            return
        if not level:
            transition = T.RETURNED
        elif not was:
            transition = T.ACTIVATED
        else:
            transition = T.ESCALATED if LEVELS[level] > LEVELS[was] else T.DEESCALATED
        assert self.do(which, transition) == "ok"

    def do(self, which: int, event: T) -> str:
        """Let the specification live through it; who asks anew is no longer confirmed."""
        was = self.specs[which].acknowledged
        answer = self.specs[which].do(event)
        if was and not self.specs[which].acknowledged:
            self.confirmed[which] = False
        return answer

    def follow(self, codes=None):
        levels = np.array(codes or [0 for _ in INSTANCES], np.uint8)
        return self.book.follow(INSTANCES, np.array(self.live), self.now, levels=levels)

    def ask_spec(self, which: int, action: Action, source: str) -> str:
        sources = self.sources[which]
        if action is Action.SUPPRESS:
            if source in sources:
                return "noop"
            sources.add(source)
            if len(sources) > 1:
                return "ok"
        if action is Action.UNSUPPRESS:
            if source not in sources:
                return "noop"
            sources.remove(source)
            if sources:
                return "ok"
        row = self.book.get(KEYS[which])
        if action is Action.CONFIRM and (row is None or not row.occ_no):
            return "reject"
        answer = self.do(which, TRANSITION[action])
        if action is Action.CONFIRM and answer == "ok":
            answer = "noop" if self.confirmed[which] else "ok"
            self.confirmed[which] = True
        if action is Action.ENABLE and answer == "ok" and self.level[which]:
            assert self.do(which, T.ACTIVATED) == "ok"
        return answer

    def apply(self, rows: list[Row]):
        rows = [row for row in rows if row is not None]
        parts = [rows] if len(rows) < 3 else [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        return [
            event
            for part in parts
            for event in self.book.apply(
                make_conditions(*part, instances=INSTANCES), INSTANCES, self.now
            )
        ]

    def restart(self) -> None:
        self.journal.close()
        epoch = self.journal.epoch
        self.open()
        assert self.journal.epoch == epoch + 1

    def keep(self, events) -> None:
        for event in events:
            self.check_event(event)
        head = self.journal.append(events)
        assert self.journal.append(events) == head
        self.events += events
        assert self.journal.read(head - len(events)) == list(events)

    def check_event(self, event) -> None:
        row = event.alarm
        before = self.rows.get(row.alarm_key)
        self.rows[row.alarm_key] = row
        self.gseq += 1
        assert row.gseq == self.gseq
        assert row.seq == (before.seq if before else 0) + 1
        if before is None:
            return
        if before.open and before.shown and not before.acknowledged:
            asked_on = event.transition not in BY_A_PERSON
            assert not (asked_on and not row.open), "I1"
            assert not (asked_on and row.acknowledged), "I2"
        if before.latched and not row.latched:
            assert event.transition in (T.RESET, T.DISABLED, T.REMOVED), "I3"


def timeless(event):
    """An event without what a second run may tell differently: the epoch."""
    return replace(event, alarm=replace(event.alarm, epoch=0))


Lives.TestCase.settings = settings(
    max_examples=max(40, settings.default.max_examples // 20),
    stateful_step_count=30,
    deadline=None,  # a step is many syncs, on a disk others use too
)
Lives.TestCase.pytestmark = pytest.mark.slow
TestLives = Lives.TestCase
