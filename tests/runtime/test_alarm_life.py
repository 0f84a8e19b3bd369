"""What a site file says of its alarms, lived through by a whole core on real files and a set clock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.model.batch import Batch
from gateway.runtime.checking import load_site
from gateway.runtime.core import heartbeat, open_core
from gateway.runtime.plugins import load_plugins
from gateway.runtime.provider import CoreView

PLUGINS = load_plugins()
S = 1_000_000_000
T0 = 1_790_000_000 * S
HEAD = """
[site]
tenant = "t"
id = "s"
[alarms]
parent_release_s = 15
flood_start = 4
flood_end = 2
"""
POINTS = "".join(
    f'[[point]]\nid = "g{n}"\nquantity = "methane"\ndevice = "s1"\narea = "3101"\n'
    for n in range(8)
)
LIMIT = """
[[rule]]
id = "methane"
kind = "limit"
value = { quantity = "methane" }
parameters = { levels = { H = { limit = 1.0 } } }
priority = "medium"
"""
SILENT = "".join(
    f"""
[[rule]]
id = "silent.{scope}"
kind = "offline"
value = {{ quantity = "methane" }}
parameters = {{ scope = "{scope}", max_age_s = 60.0 }}
priority = "{priority}"
"""
    for scope, priority in (("point", "medium"), ("device", "medium"))
)
ESCALATION = """
[[escalation]]
priority = "medium"
steps = [{ after_s = 30, recipients = ["lead"] }]
"""


class Driven:
    """A core whose clock stands where it is put, and which judges when it is told to."""

    def __init__(self, core, clock) -> None:
        self.core, self.clock = core, clock
        self.read = core.journal.head  # what the tests have looked at

    async def at(self, second: float, **values: float) -> list[str]:
        """Samples of that second, then the clock; the new events, heard ones with a mark."""
        self.clock[0] = T0 + round(second * S)
        if values:
            index = [self.core.points.index(point) for point in values]
            batch = Batch.of(
                index,
                list(values.values()),
                [self.clock[0]] * len(index),
                received_time_ns=self.clock[0],
            )
            await self.core.intake.emit(batch)
        await self.core.judge.judge_all(self.clock[0])
        events = self.core.journal.read(self.read, 10_000)
        self.read = self.core.journal.head
        return [f"{e.transition} {e.alarm.target}{'!' * e.annunciate}" for e in events]


@asynccontextmanager
async def driven(folder, text: str, second: float = 0):
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    clock = [T0 + round(second * S)]
    async with open_core(load_site(path, PLUGINS), PLUGINS, clock=lambda: clock[0]) as core:
        yield Driven(core, clock)


async def test_a_dead_device_is_one_sound_and_its_points_come_back_one_cycle_after_it(
    tmp_path,
) -> None:
    async with driven(tmp_path, HEAD + POINTS + SILENT) as house:
        fresh = {f"g{n}": 0.5 for n in range(8)}
        assert await house.at(0, **fresh) == []
        dead = await house.at(61)
        assert dead[0] == "ACT s1!"
        assert sorted(dead[1:]) == sorted(
            [f"SUP g{n}" for n in range(8)] + [f"ACT g{n}" for n in range(8)]
        )
        assert await house.at(100, g0=0.5) == ["RTN s1", "RTN g0"]
        assert await house.at(110, g1=0.5) == ["RTN g1"]
        back = await house.at(116)
        assert [word for word in back if word.endswith("!")] == [f"UNP g{n}!" for n in range(2, 8)]


async def test_a_rule_taken_out_of_the_file_closes_its_alarms_at_the_next_start(tmp_path) -> None:
    async with driven(tmp_path, HEAD + POINTS + LIMIT + SILENT) as house:
        assert await house.at(0, g0=1.5) == ["ACT g0!"]
    async with driven(tmp_path, HEAD + POINTS + SILENT, 10) as house:
        assert await house.at(11, g0=1.5) == ["REM g0"]
        assert house.core.judge.standing() == []
    async with driven(tmp_path, HEAD + POINTS + LIMIT + SILENT, 20) as house:
        assert await house.at(21, g0=1.5) == ["ACT g0!"]
        assert house.core.judge.book.get("g0:methane").occ_no == 2


@pytest.mark.parametrize("edit", ["limit = 2.0", "limit = 2.0 }, HH = { limit = 3.0"])
@pytest.mark.parametrize("saved", [True, False])
async def test_an_edited_rule_is_told_of_what_stands_and_judges_it_from_then_on(
    tmp_path, edit, saved
) -> None:
    """Also where the rule core begins afresh: other levels, or a state that was lost."""
    async with driven(tmp_path, HEAD + POINTS + LIMIT) as house:
        assert await house.at(0, g0=1.5) == ["ACT g0!"]
        if saved:
            await house.core.judge.checkpoint()
    # Without a checkpoint the sample in hand is judged again, by the edited rule.
    edited = LIMIT.replace("limit = 1.0", edit)
    async with driven(tmp_path, HEAD + POINTS + edited, 10) as house:
        assert await house.at(11) == ["EDT g0"] + ["RTN g0"] * (not saved)
        assert await house.at(12, g0=1.5) == ["RTN g0"] * saved
        assert house.core.judge.book.get("g0:methane").active is False


async def test_nobody_acknowledging_is_told_further_over_a_restart(tmp_path) -> None:
    text = HEAD + POINTS + LIMIT + ESCALATION
    async with driven(tmp_path, text) as house:
        assert await house.at(0, g0=1.5) == ["ACT g0!"]
        assert await house.at(29) == []
    async with driven(tmp_path, text, 100) as house:
        assert await house.at(101) == ["OVD g0"]
        (event,) = house.core.journal.read(1, 10)
        assert (event.recipients, event.step, event.time_ns) == (("lead",), 1, T0 + 30 * S)


async def test_a_flood_is_in_the_heartbeat_and_on_the_overview_and_outlives_a_restart(
    tmp_path,
) -> None:
    text = HEAD + POINTS + LIMIT
    async with driven(tmp_path, text) as house:
        events = await house.at(0, **{f"g{n}": 1.5 for n in range(8)})
        assert events == [f"ACT g{n}!" for n in range(8)]
        beat = heartbeat(house.core)
        assert (beat["flood"], beat["annunciations_10min"], beat["standing"]) == (True, 8, 8)
        row = CoreView(house.core).status().flood
        assert (row.active, row.count_10min) == (True, 8)
        assert sum(call.count for call in row.calls) + row.folded_count == 8
        assert {call.kind for call in row.calls} == {"alarm"}
    async with driven(tmp_path, text, 60) as house:
        assert heartbeat(house.core)["flood"] is True


async def test_planned_and_shelved_alarms_are_counted_apart_in_the_heartbeat(tmp_path) -> None:
    async with driven(tmp_path, HEAD + POINTS + LIMIT) as house:
        core = house.core
        await house.at(0, g0=1.5, g1=1.5)
        calibrating = Batch.of(
            [core.points.index("g2")], [1.5], [T0 + S], received_time_ns=T0 + S, quality=0x42
        )
        house.clock[0] = T0 + S
        await core.intake.emit(calibrating)
        assert await house.at(1) == ["ACT g2"]
        row = core.judge.book.get("g1:methane")
        command = Command(
            action=Action.SHELVE,
            alarm_key=row.alarm_key,
            actor="li",
            role=Role.OPERATOR,
            text="sensor is being moved",
            token=token_of(row),
            until_ns=T0 + 600 * S,
        )
        assert (await core.judge.command(command)).accepted
        beat = heartbeat(core)
        assert (beat["standing"], beat["unacknowledged"], beat["planned"]) == (1, 1, 1)
        assert (beat["shelved"], beat["shelvings_week"]) == (1, 1)


async def test_history_in_late_data_is_one_note_and_no_call(tmp_path, caplog) -> None:
    async with driven(tmp_path, HEAD + POINTS + LIMIT) as house:
        core = house.core
        await house.at(1_000, g0=0.5)
        seconds = np.arange(0, 200)
        batch = Batch.of(
            [core.points.index("g0")] * len(seconds),
            np.where(seconds % 2, 1.5, 0.5).tolist(),
            (T0 + seconds * S).tolist(),
            received_time_ns=T0 + 1_001 * S,
        )
        house.clock[0] = T0 + 1_001 * S
        await core.intake.emit(batch)
        events = await house.at(1_001)
        assert set(events) == {"HIST g0"}
        assert [(line.kind, line.sounds) for line in core.calls] == [("history", False)]
        assert caplog.text.count("late data held") == 1


async def test_a_fault_in_presentation_costs_the_judge_nothing(tmp_path, caplog) -> None:
    async with driven(tmp_path, HEAD + POINTS + LIMIT) as house:
        heard = []

        def broken(_lines) -> None:
            raise BrokenPipeError

        house.core.call_listeners += [broken, heard.extend]
        await house.at(0, g0=1.5)
        assert len(heard) == 1
        house.core.announcer.take = broken
        assert await house.at(1, g1=1.5) == ["ACT g1!"]
        assert house.core.call_listeners == [heard.extend]
        assert "every event is on record" in caplog.text
        await asyncio.sleep(0)


async def test_an_alarm_whose_next_event_waits_for_the_journal_is_shown_as_it_was(
    tmp_path, monkeypatch
):
    async with driven(tmp_path, HEAD + POINTS + LIMIT) as house:
        await house.at(0, g0=2.0, g1=2.0)
        core, at_call = house.core, []
        append = core.journal.append

        def look_before(events):  # the book has them, the journal has not
            at_call.append({row.alarm_key: row.active for row in CoreView(core).alarms().alarms})
            append(events)

        monkeypatch.setattr(core.journal, "append", look_before)
        await house.at(10, g0=0.1, g2=2.0)
        assert at_call == [{"g0:methane": True, "g1:methane": True}]
        shown = {row.alarm_key: row.active for row in CoreView(core).alarms().alarms}
        assert shown == {"g0:methane": False, "g1:methane": True, "g2:methane": True}


async def test_of_a_great_flood_the_newest_part_is_recalled_and_it_goes_on(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.runtime.core.FLOOD_RECALL_MAX", 6)
    text = HEAD + POINTS + LIMIT
    async with driven(tmp_path, text) as house:
        for second, value in ((0, 2.0), (100, 0.1), (400, 2.0)):
            await house.at(second, **{f"g{n}": value for n in range(8)})
        assert heartbeat(house.core)["flood"] is True
    async with driven(tmp_path, text, 700) as house:  # those of the beginning are too old
        assert heartbeat(house.core)["flood"] is True
