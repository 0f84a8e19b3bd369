"""Other rules while the gateway runs: what lasts goes on, what is edited or gone says so, and a file
with a fault changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from test_core import PLUGINS, SITE, batch
from test_judge import EPISODE, EXPECTED, HANGS_S, KINDS, RULES, SECOND, START, House

from alarm_rules.ruleset import RuleSet
from gateway.alarms.commands import Action, Command, Role
from gateway.model.errors import ConfigError, Unavailable
from gateway.model.rule import Priority
from gateway.runtime.checking import load_site
from gateway.runtime.core import open_core
from gateway.runtime.provider import CoreView
from gateway.runtime.reloading import reload_rules, reload_when

METHANE, FREEBOARD, LOW = RULES
HIGHER = replace(METHANE, parameters={"levels": {"H": {"limit": 1.25, "reset": 0.9}}})
NAMED = [replace(rule, action={"en": "call the control room"}) for rule in RULES]


@contextlib.asynccontextmanager
async def at_work(judge):
    """It judges meanwhile; ends a test that hangs."""
    task = asyncio.create_task(judge.run())
    try:
        async with asyncio.timeout(HANGS_S):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def take(house: House, rules) -> bool:
    """As the core does it, with the judge at work."""
    async with at_work(house.judge):
        return await house.judge.take_rules(
            rules, lambda: RuleSet(rules, KINDS, house.registry.table)
        )


@pytest.mark.parametrize(
    ("other", "in_place"),
    [([NAMED[0], FREEBOARD, NAMED[2]], True), (NAMED, False)],
    ids=["in place", "a calculation: a new set"],
)
async def test_timers_go_on_by_rules_that_were_edited_at_any_moment(
    tmp_path, other, in_place
) -> None:
    async with House(tmp_path).open() as house:
        for number, rows in enumerate(EPISODE):
            await house.send(rows)
            await house.judge_all(save=True)
            assert await take(house, RULES if number % 2 else other) is in_place
        told = [row for row in house.history() if row[3] in {"ACT", "RTN"}]
        assert [(key, *row[2:]) for key, _occ, _seq, *row in told] == [
            (key, *row[2:]) for key, _occ, _seq, *row in EXPECTED
        ]


async def test_a_standing_alarm_whose_rule_is_edited_says_so_and_is_judged_by_its_next_sample(
    tmp_path,
) -> None:
    async with House(tmp_path).open() as house:
        for rows in ([("g1", 1.2, 0)], [("g1", 1.2, 3)]):
            await house.send(rows)
            await house.judge_all(save=True)
        assert await take(house, [HIGHER, FREEBOARD, LOW])
        (standing,) = house.judge.standing()
        assert (standing.alarm_key, standing.level) == ("g1:methane", "H")
        assert [row[3] for row in house.history()] == ["ACT", "EDT"]
        await house.send([("g1", 0.8, 4)])
        await house.send([("g1", 0.8, 8)])
        await house.judge_all(save=True)
        assert [row[3:] for row in house.history()][2:] == [("RTN", 7 * SECOND)]


async def test_the_alarm_of_a_rule_that_is_gone_is_closed_and_comes_again_with_it(tmp_path) -> None:
    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 0)])
        await house.send([("g1", 1.2, 3)])
        await house.judge_all(save=True)
        assert await take(house, [FREEBOARD, LOW])
        assert not house.judge.standing()
        await house.send([("g1", 1.2, 4)])
        await house.judge_all(save=True)
        assert await take(house, [FREEBOARD, LOW, METHANE])
        await house.send([("g1", 1.2, 5)])
        await house.send([("g1", 1.2, 8)])
        await house.judge_all(save=True)
        assert [row[3:] for row in house.history()] == [
            ("ACT", 2 * SECOND),
            ("REM", house.history()[1][4]),
            ("ACT", 7 * SECOND),
        ]


async def test_rules_with_a_fault_are_refused_and_those_in_force_go_on(tmp_path) -> None:
    broken = replace(METHANE, parameters={"levels": {"H": "high"}})
    async with House(tmp_path).open() as house:
        with pytest.raises(ConfigError, match=r"methane\.parameters"):
            await take(house, [broken, FREEBOARD, LOW])
        await house.send([("g1", 1.2, 0)])
        await house.send([("g1", 1.2, 3)])
        await house.judge_all(save=True)
        assert [row[3] for row in house.history()] == ["ACT"]


async def test_a_failure_of_ours_on_the_way_leaves_the_rules_that_were_in_force(
    tmp_path, monkeypatch
) -> None:
    def fails(*_arguments, **_named) -> None:
        raise RuntimeError("a bug")

    async with House(tmp_path).open() as house:
        await house.send([("g1", 1.2, 0)])
        await house.judge_all(save=True)
        monkeypatch.setattr("gateway.alarms.book.AlarmBook.follow", fails)
        with pytest.raises(RuntimeError, match="a bug"):
            await take(house, [FREEBOARD, LOW])
        monkeypatch.undo()
        await house.send([("g1", 1.2, 3)])
        await house.judge_all(save=True)  # as the supervisor does it: from the checkpoint
        assert [row[3:] for row in house.history()] == [("ACT", 2 * SECOND)]
        assert house.now_ns > START


# ---------------------------------------------------------------------- from the file

EXTRA = """
[[rule]]
id = "more"
kind = "limit"
value = { quantity = "methane" }
parameters = { levels = { H = { limit = 2.0 } } }
priority = "critical"
"""


def write(path, text: str):
    path.write_text(text.replace("WHEN_FULL", "thin"), encoding="utf-8")
    return path


async def test_the_file_says_what_is_new_edited_gone_and_what_waits_for_a_restart(tmp_path) -> None:
    path = write(tmp_path / "site.toml", SITE)
    async with open_core(load_site(path, PLUGINS), PLUGINS) as core:
        core.start()
        write(path, SITE.replace("limit = 1.0", "limit = 1.1") + EXTRA)
        found = await reload_rules(core, path)
        assert (found.added, found.edited, found.removed) == (["more"], ["methane"], [])
        assert (found.in_place, found.in_force, found.waiting) == (True, 2, [])
        await core.intake.emit(batch([2.5]))
        assert await core.settle(timeout_s=10)
        assert {row.alarm_key for row in core.judge.standing()} == {"g1:methane", "g1:more"}
        most = min(core.judge.standing(), key=lambda row: row.priority)
        assert (most.alarm_key, most.priority) == ("g1:more", Priority.CRITICAL)

        other = SITE.replace("bytes_max_mb = 16", "bytes_max_mb = 32")
        write(path, other.replace('id = "g1"', 'id = "g2"'))
        found = await reload_rules(core, path)
        assert (found.added, found.edited, found.removed) == ([], ["methane"], ["more"])
        assert list(found.waiting) == ["spool", "point"]
        assert str(found) == (
            "rules in force: 1; 0 new, 1 edited, 1 gone; waiting for a restart: spool, point"
        )


async def test_a_file_with_faults_is_refused_whole_and_the_screen_says_so(tmp_path, caplog) -> None:
    path = write(tmp_path / "site.toml", SITE)
    async with open_core(load_site(path, PLUGINS), PLUGINS) as core:
        core.start()
        wanted = asyncio.Event()
        task = asyncio.create_task(reload_when(wanted, core, path))

        async def said(state: str) -> str:
            wanted.set()
            async with asyncio.timeout(10):
                while core.status("rules").state != state:
                    await asyncio.sleep(0.005)
            return CoreView(core).status().rules.reloaded

        write(path, SITE.replace("limit = 1.0", 'limit = "one"') + EXTRA.replace("limit", "limmit"))
        text = await said("faulty")
        assert "the rules before it stay" in text
        assert "site.toml:" in text
        assert CoreView(core).status().rules.is_reload_refused
        assert [rule.id for rule in core.rules.rules] == ["methane"]
        assert sum("not reloaded" in record.message for record in caplog.records) > 1

        write(path, SITE + EXTRA)
        assert await said("in force") == "rules in force: 2; 1 new, 0 edited, 0 gone"
        counts = core.counters.of("rules")
        assert (counts["reload_refused"], counts["reloaded"]) == (1, 1)
        path.unlink()
        assert "site.toml" in await said("faulty")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_failure_of_ours_is_said_and_the_next_signal_is_heard(
    tmp_path, monkeypatch
) -> None:
    path = write(tmp_path / "site.toml", SITE)

    def fails(*_arguments) -> None:
        raise RuntimeError("a bug")

    async with open_core(load_site(path, PLUGINS), PLUGINS) as core:
        core.start()
        wanted = asyncio.Event()
        task = asyncio.create_task(reload_when(wanted, core, path))
        for state, mend in (("faulty", False), ("in force", True)):
            if mend:
                monkeypatch.undo()
            else:
                monkeypatch.setattr("gateway.runtime.reloading.load_site", fails)
            wanted.set()
            async with asyncio.timeout(10):
                while core.status("rules").state != state:
                    await asyncio.sleep(0.005)
        assert core.counters.of("rules") == {"reload_failed": 1, "reloaded": 1}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_alarm_of_a_rule_that_is_gone_takes_no_commands(tmp_path) -> None:
    wanted = Command(
        action=Action.DISABLE, alarm_key="g1:methane", actor="x", role=Role.ENGINEER,
        text="t", permit="p",
    )  # fmt: skip
    async with House(tmp_path).open() as house:
        await house.send([("g1", 0.2, 0)])
        await house.judge_all(save=True)
        assert await take(house, [FREEBOARD, LOW])
        assert (await house.judge.command(wanted)).reason == "unknown_alarm"
        assert await take(house, RULES)
        assert (await house.judge.command(wanted)).accepted


async def test_a_file_cut_before_its_first_rule_closes_nothing(tmp_path) -> None:
    path = write(tmp_path / "site.toml", SITE)
    async with open_core(load_site(path, PLUGINS), PLUGINS) as core:
        core.start()
        write(path, SITE[: SITE.index("[[rule]]")])
        with pytest.raises(ConfigError, match="at least one rule"):
            await reload_rules(core, path)
        assert [rule.id for rule in core.rules.rules] == ["methane"]


async def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "site.toml", SITE)

    def read_slowly(read, plugins):
        config = load_site(read, plugins)
        write(path, SITE + EXTRA)
        return config

    async with open_core(load_site(path, PLUGINS), PLUGINS) as core:
        core.start()
        monkeypatch.setattr("gateway.runtime.reloading.load_site", read_slowly)
        with pytest.raises(ConfigError, match="not being written"):
            await reload_rules(core, path)


async def test_rules_that_find_no_moment_are_given_back(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gateway.runtime.exchanging.TAKE_RULES_S", 0.01)
    async with House(tmp_path).open() as house:  # nobody judges
        with pytest.raises(Unavailable, match="no moment"):
            await house.judge.take_rules(RULES, lambda: house.judge.rules)
        monkeypatch.undo()
        assert await take(house, [HIGHER, FREEBOARD, LOW])


async def test_a_second_wish_while_the_first_one_waits_is_refused_and_the_first_is_done(
    tmp_path,
) -> None:
    async with House(tmp_path).open() as house:
        first = asyncio.create_task(
            house.judge.take_rules([METHANE, FREEBOARD], lambda: house.judge.rules)
        )
        await asyncio.sleep(0)  # it waits: nobody judges yet
        with pytest.raises(Unavailable, match="being taken already"):
            await house.judge.take_rules(RULES, lambda: house.judge.rules)
        async with at_work(house.judge):
            assert await first
        assert await take(house, RULES), "and then others may be asked for"


async def test_in_a_flood_rules_are_taken_after_what_they_did_not_judge(tmp_path) -> None:
    """Hundreds of changes wait to be lived through: they were judged by the rules as they were."""
    lower = replace(METHANE, on_delay_s=0.0, off_delay_s=0.0)
    async with House(tmp_path).open() as house:
        assert await take(house, [lower, FREEBOARD, LOW])
        flips = [("g1", 1.2 if second % 2 else 0.5, second) for second in range(400)]
        await house.send(flips)
        assert await take(house, [HIGHER, FREEBOARD, LOW])
        await house.judge_all(save=True)
        kinds = [row[3] for row in house.history()]
        assert kinds.count("ACT") == kinds.count("RTN") + 1 == 200
        assert kinds[-1] == "EDT", "of the one that stands"
