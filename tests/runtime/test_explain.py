"""An explanation tells what the core holds of a point at a moment, and what keeps rules from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from history_site import PLUGINS, SITE, T0, S, site
from test_backtest import store_of

from gateway.alarms.book import AlarmBook
from gateway.alarms.commands import Action, Command, Role, token_of
from gateway.alarms.journal import Journal
from gateway.cli import main
from gateway.model.batch import Batch
from gateway.model.quality import Quality
from gateway.runtime.rerun import Judging, open_points
from gateway.runtime.siterules import site_rules

EXTRA = """
[[rule]]
id = "only-t2"
kind = "limit"
value = { quantity = "methane", location_class = "T2" }
parameters = { levels = { H = 0.8 } }
"""
ROWS = [
    ("g1", 0, 0.5), ("g1", 10, 1.2), ("g1", 20, 1.2), ("g1", 30, 1.6), ("g1", 40, 0.3), ("g1", 50, 0.3),
    ("top", 0, 10.0), ("pool", 0, 9.0), ("pool", 20, 9.5), ("pool", 40, 9.0),
    ("g2", 0, 0.4),
]  # fmt: skip


def asked(tmp_path: Path, capsys, point: str, second: float, rows=ROWS) -> dict:
    config = site(tmp_path, SITE + EXTRA)
    if not (tmp_path / "data" / "sinks").exists():
        store_of(config, [(p, T0 + t * S, T0 + t * S, v) for p, t, v in rows])
    at = str(T0 + round(second * S))
    code = main(["explain", "-c", str(tmp_path / "site.toml"), point, "--at", at, "--json"])
    out = capsys.readouterr().out
    assert code == 0
    assert main(["explain", "-c", str(tmp_path / "site.toml"), point, "--at", at]) == 0
    found = json.loads(out)
    found["text"] = capsys.readouterr().out
    return found


def level(found: dict, rule: str, name: str) -> dict:
    (each,) = [each for each in found["rules"] if each["rule"] == rule]
    (alarm,) = each["alarms"]
    (wanted,) = [one for one in alarm["levels"] if one["level"] == name]
    return wanted


MOMENTS = [
    # second, verdict, condition, active, since, left
    (5, "normal", False, False, None, None),
    (12, "delayed", True, False, 10, 13.0),
    (24.5, "delayed", True, False, 10, 0.5),
    (25, "alarm", True, True, 10, None),
    (45, "clearing", False, True, 40, 25.0),
    (69, "clearing", False, True, 40, 1.0),
    (70, "normal", False, False, 40, None),
]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_moment_of_an_alarm_is_told_with_its_delay(moment, tmp_path, capsys) -> None:
    second, verdict, condition, active, since, left = moment
    found = asked(tmp_path, capsys, "g1", second)
    high = level(found, "methane", "H")
    assert (high["condition"], high["active"], high["left_s"]) == (condition, active, left)
    assert high["since_ns"] == (None if since is None else T0 + since * S)
    only = {each["rule"] for each in found["rules"] if each["alarms"]}
    assert only >= {"methane", "silent"}
    if second in {12, 25, 45}:  # the pack's rule without a delay decides elsewhere
        assert found["verdict"] in {verdict, "alarm"}
    if left == 13.0:
        assert "13 s of the on-delay are left" in found["text"]
    if left == 25.0:
        assert "25 s of the off-delay are left" in found["text"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "verdict", "left"), [(45, "delayed", 10.0), (56, "alarm", None)]
)
def test_what_came_in_long_after_it_was_measured_says_so_and_is_awaited_longer(
    second, verdict, left, tmp_path, capsys
) -> None:
    config = site(tmp_path, SITE + EXTRA)
    store_of(config, [("g1", T0 + t * S, T0 + (t + 30) * S, v) for t, v in ((0, 0.5), (10, 1.2))])
    found = asked(tmp_path, capsys, "g1", second)
    high = level(found, "methane", "H")
    assert (high["active"], high["left_s"]) == (verdict == "alarm", left)
    assert "the newest sample of g1 came in 30 s after it was measured" in found["text"]


def test_a_rule_that_is_not_about_the_point_says_which_field_differs(tmp_path, capsys) -> None:
    found = asked(tmp_path, capsys, "g1", 5)
    why = {each["rule"]: each["why_not"] for each in found["other_rules"]}
    assert why["only-t2"] == "location_class is 'T1', the rule wants 'T2'"
    assert why["low"] == "quantity is 'methane', the rule wants 'freeboard'"
    assert "  not only-t2: location_class is 'T1'" in found["text"]


def test_rules_of_what_is_computed_from_the_point_belong_to_it(tmp_path, capsys) -> None:
    found = asked(tmp_path, capsys, "pool", 30)
    rules = {each["rule"]: each for each in found["rules"]}
    assert rules["freeboard"]["computes"] == "dam1.freeboard"
    assert rules["freeboard"]["inputs"] == {"pool": ["pool"], "top": ["top"]}
    assert rules["low"]["through"] == "dam1.freeboard"
    assert level(found, "low", "LL")["active"] is True
    assert found["verdict"] == "alarm"
    assert [row["value"] for row in found["samples"]["pool"]] == [9.0, 9.5, 9.0]
    after = asked(tmp_path, capsys, "pool", 55)
    assert level(after, "low", "LL")["left_s"] == 5.0


def test_bad_and_old_samples_are_said_to_hold(tmp_path, capsys) -> None:
    config = site(tmp_path, SITE + EXTRA)
    store_of(config, [("g1", T0, T0, 0.5), ("g1", T0 + 10 * S, T0 + 10 * S, float("nan"))])
    found = asked(tmp_path, capsys, "g1", 40)
    assert any("rules about its value neither raise nor clear" in note for note in found["notes"])
    assert any("is 30 s old, one is due every 10 s" in note for note in found["notes"])
    assert found["samples"]["g1"][-1]["value"] is None
    assert Quality.GOOD.name.lower() == "good"


def test_what_the_journal_hid_is_told(tmp_path, capsys) -> None:
    config = site(tmp_path, SITE + EXTRA)
    rules = site_rules(config, PLUGINS.rule_kinds).rules
    journal = Journal.open(config.data_dir / "journal")
    with open_points(config, rules) as points:
        judging = Judging(config, PLUGINS, rules, points)
    judging.book = AlarmBook(journal.epoch)
    times = [T0 + 10 * S, T0 + 25 * S]
    events = judging.judge(
        Batch.of([judging.points.index("g1")] * 2, [1.2, 1.2], times, received_time_ns=times),
        times[1],
    )
    row = judging.book.get("g1:methane")
    assert row is not None
    assert row.active
    shelve = Command(
        action=Action.SHELVE, alarm_key="g1:methane", actor="wang", role=Role.SHIFT_LEAD, text="sensor in the wash",
        until_ns=T0 + 1000 * S, token=token_of(row),
    )  # fmt: skip
    shelved = judging.book.command(shelve, T0 + 28 * S)
    assert shelved.events, shelved
    journal.append([*events, *shelved.events])
    journal.close()
    found = asked(tmp_path, capsys, "g1", 35)
    (alarm,) = [each["alarms"][0] for each in found["rules"] if each["rule"] == "methane"]
    assert alarm["state"] == "SHLVD"
    assert alarm["hidden_by"][0].startswith("shelved (timed) until 2026-01-01T00:16:40")
    assert "hidden: shelved" in found["text"]
    assert [row["event"] for row in found["journal"] if row["rule"] == "methane"] == ["ACT", "SHV"]
    assert "by wang" in found["text"]


def test_a_point_nobody_knows_is_a_usage_fault(tmp_path, capsys) -> None:
    site(tmp_path, SITE)
    assert main(["explain", "-c", str(tmp_path / "site.toml"), "q9", "--at", "1"]) == 2
    assert "a point this site has configured" in capsys.readouterr().err
