"""`report completeness` as a person types it: what is printed, and the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from gateway.api.completeness import Completeness
from gateway.ledger.ledger import LedgerOptions, Progress, open_ledger
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.point import Point, PointTable
from gateway.runtime.journal_cli import add_report_commands

MINUTE_NS = 60_000_000_000
FIRST = 29_000_040
FROM, TO = FIRST * MINUTE_NS, (FIRST + 10) * MINUTE_NS


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_report_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Two points twice a minute; the second is silent after five of ten minutes."""
    table = PointTable()
    for name in ("甲烷T1", "风速"):
        table.put(Point(f"p{len(table)}", interval_s=30.0, name=name, area="3101工作面"))
    ledger = open_ledger(tmp_path, LedgerOptions())
    ledger.describe(table, FROM - MINUTE_NS)
    times = np.arange(FROM, TO, MINUTE_NS // 2)
    for point, upto in ((0, 20), (1, 10)):
        batch = Batch.of(
            [point] * upto, np.zeros(upto), times[:upto], received_time_ns=times[:upto]
        )
        ledger.count(ledger.offset or 0, batch)
    now = TO + 5 * MINUTE_NS
    ledger.beat(now, now, is_read=True, adapters={}, consumers=[Progress("judge", "judge", 30)])
    ledger.flush()
    ledger.close()
    return tmp_path


def test_a_table_for_a_person_has_the_worst_first_and_says_why(where, capsys) -> None:
    assert run("report", "completeness", "--dir", where, "--from", FROM, "--to", TO) == 0
    lines = capsys.readouterr().out.splitlines()
    one, other = [line for line in lines if line.startswith("p")]
    assert one.split()[:6] == ["p1", "风速", "50.00", "%", "50.00", "%"]
    assert one.endswith("device_silent 5")
    assert other.split()[:6] == ["p0", "甲烷T1", "100.00", "%", "100.00", "%"]
    assert "judge judge: has 30 of the rows received" in lines


def test_json_is_what_the_api_answers_with(where, capsys) -> None:
    words = ("--dir", where, "--from", FROM, "--to", TO, "--format", "json", "--by", "area")
    assert run("report", "completeness", *words) == 0
    body = json.loads(capsys.readouterr().out)
    found = Completeness.model_validate(body)
    (row,) = found.rows
    assert (row.key, row.point_count, row.online_rate) == ("3101工作面", 2, 0.75)
    assert row.gaps == {"device_silent": 10}
    assert (found.from_ms, found.to_ms) == (FROM // 10**6, TO // 10**6)


@pytest.mark.parametrize(("points", "keys"), [("p0", ["p0"]), ("*风*", ["p1"]), ("x*", [])])
def test_points_are_chosen_by_a_glob(where, capsys, points, keys) -> None:
    words = ("--dir", where, "--from", FROM, "--to", TO, "--format", "json", "--points", points)
    assert run("report", "completeness", *words) == 0
    assert [row["key"] for row in json.loads(capsys.readouterr().out)["rows"]] == keys


def test_a_span_of_nothing_and_a_folder_without_a_ledger_are_refused(where, tmp_path) -> None:
    with pytest.raises(ConfigError, match="after --from"):
        run("report", "completeness", "--dir", where, "--from", TO, "--to", FROM)
    with pytest.raises(ConfigError, match="no such file"):
        run("report", "completeness", "--dir", where / "none", "--from", FROM, "--to", TO)
