"""`journal …` and `report alarms` as a person types them: what is printed, and the exit code."""

import argparse
import json
import sqlite3
from pathlib import Path

import orjson
import pytest

from gateway.alarms.anchors import ANCHORS
from gateway.alarms.chain import link
from gateway.alarms.database import DATABASE
from gateway.alarms.journal import Journal
from gateway.model.alarm import Transition
from gateway.model.errors import ConfigError, Unavailable
from gateway.runtime.journal_cli import add_journal_commands, add_report_commands
from gateway.testing.alarms import S, make_event


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    add_journal_commands(commands)
    add_report_commands(commands)
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


@pytest.fixture
def where(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / "journal", reserve_bytes=0)
    journal.sign(0, occasion="start")
    journal.append([make_event(gseq, time_ns=gseq * S) for gseq in range(1, 7)])
    journal.append([make_event(7, time_ns=7 * S, transition=Transition.RETURNED)])
    journal.sign(8 * S)
    journal.close()
    return tmp_path / "journal"


def test_verify_says_how_far_it_is_proved_and_that_it_is_whole(where: Path, capsys) -> None:
    assert run("journal", "verify", "--dir", where) == 0
    out = capsys.readouterr().out
    assert "whole: 7 events, the last is 7" in out
    assert "could have done all" in out
    kept = where.parent / "kept"
    kept.write_bytes((where / ANCHORS).read_bytes())
    assert run("journal", "verify", "--dir", where, "--anchors", kept) == 0
    assert "2 anchors kept elsewhere prove it up to 7" in capsys.readouterr().out


def test_verify_fails_and_names_what_and_where(where: Path, capsys) -> None:
    with sqlite3.connect(where / DATABASE) as db:
        db.execute("DELETE FROM event WHERE gseq BETWEEN 3 AND 4")
    db.close()
    assert run("journal", "verify", "--dir", where, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    found = [(f["kind"], f["first_gseq"], f["last_gseq"]) for f in report["findings"]]
    assert (report["ok"], found) == (False, [("delete", 3, 4)])
    assert run("journal", "verify", "--dir", where) == 1
    assert "delete 3..4: " in capsys.readouterr().out


def test_a_public_key_printed_here_is_the_one_verify_takes(where: Path, tmp_path, capsys) -> None:
    assert run("journal", "key", "--dir", where) == 0
    (tmp_path / "site.pub").write_text(capsys.readouterr().out)
    words = ("journal", "verify", "--dir", where, "--public-key", tmp_path / "site.pub")
    assert run(*words) == 0
    assert "of the key given" in capsys.readouterr().out
    (tmp_path / "site.pub").write_text("ed25519-sha256 " + "00" * 32)
    assert run(*words) == 1
    assert "key 0..0: from anchor 1 on they are signed by key " in capsys.readouterr().out


def test_files_that_are_not_there_or_say_nothing_are_not_taken_for_no_finding(
    where: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        run("journal", "verify", "--dir", where, "--anchors", tmp_path / "misspelt")
    (tmp_path / "empty.pub").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="at least one"):
        run("journal", "verify", "--dir", where, "--public-key", tmp_path / "empty.pub")
    with pytest.raises(ConfigError):
        run("journal", "verify", "--dir", tmp_path)
    with pytest.raises(Unavailable, match="no key yet"):
        run("journal", "key", "--dir", tmp_path)


def test_the_journal_of_a_site_is_found_by_its_file(where: Path, tmp_path, capsys) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[site]\ntenant = "t"\nid = "s"\nname = "s"\ndata_dir = "data"\n')
    where.rename((tmp_path / "data").mkdir() or tmp_path / "data" / "journal")
    assert run("journal", "verify", "-c", site) == 0
    assert "whole: 7 events" in capsys.readouterr().out


def test_exported_events_are_their_records_and_chain_by_themselves(where: Path, capsys) -> None:
    assert run("journal", "export", "--dir", where) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["gseq"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    for row in rows:
        record = orjson.dumps(row["record"], option=orjson.OPT_SORT_KEYS)
        assert link(bytes.fromhex(row["prev"]), row["gseq"], record).hex() == row["hash"]
    words = (
        "journal",
        "export",
        "--dir",
        where,
        "--from",
        3 * S,
        "--to",
        "1970-01-01T08:00:05+08:00",
    )
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["gseq"] for line in out.splitlines()] == [3, 4]


def test_an_event_that_is_none_is_exported_as_damaged(where: Path, capsys) -> None:
    with sqlite3.connect(where / DATABASE) as db:
        db.execute("UPDATE event SET record = x'00ff' WHERE gseq = 3")
    db.close()
    assert run("journal", "export", "--dir", where) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[2])
    assert (row["gseq"], row["damaged"], "record" in row) == (3, True, False)


def test_the_alarm_report_is_one_json_object(where: Path, capsys) -> None:
    words = ("report", "alarms", "--dir", where, "--from", 0, "--to", 3600 * S)
    assert run(*words, "--format", "json") == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["annunciations"], body["windows"], body["damaged_rows"]) == (6, 6, 0)
    assert body["top10"] == [{"alarm_key": "ch4.001:ch4.limit", "annunciations": 6}]
    with pytest.raises(ConfigError, match="after --from"):
        run("report", "alarms", "--dir", where, "--from", 5, "--to", 5)


@pytest.mark.parametrize("text", ["2026-03-01", "soon", ""])
def test_a_time_that_could_mean_several_moments_is_wrong_usage(where: Path, text) -> None:
    with pytest.raises(SystemExit) as caught:
        run("report", "alarms", "--dir", where, "--from", text, "--to", 5)
    assert caught.value.code == 2
