"""A replay is the live road with the clock of its data: the same samples, the same alarm events."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import tempfile
from pathlib import Path

import pytest
from history_site import (
    PLUGINS,
    SITE,
    T0,
    S,
    as_csv,
    essence,
    history,
    run_live,
    site,
    site_file,
)

from gateway.cli import main
from gateway.model.errors import ConfigError
from gateway.runtime import replay as module
from gateway.runtime.checking import load_site
from gateway.runtime.replay import ReplayOptions, event_row, replay


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch, tmp_path) -> None:
    """Where there is such a place: a replay is an opened spool and journal, each with syncs."""
    if Path("/dev/shm").is_dir():
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


def replayed(folder: Path, text: str, **options):
    """(rows of events, result) of replaying a file of `text` at the site in `folder`."""
    path = folder / "recorded.csv"
    path.write_text(text)
    events = []
    result = asyncio.run(
        replay(
            load_site(folder / "site.toml", PLUGINS),
            PLUGINS,
            ReplayOptions(folder / "site.toml", path, **options),
            tell=lambda found: events.extend(map(event_row, found)),
        )
    )
    return events, result


def command(capsys, *arguments: object) -> tuple[int, list[dict], str]:
    code = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


SHORT = f"""point,time,value
g1,{T0},0.5
g1,{T0 + 10 * S},1.2
g1,{T0 + 20 * S},1.6
g1,{T0 + 30 * S},0.2
"""


def test_events_carry_the_promised_keys_at_exact_times(tmp_path, capsys) -> None:
    site_file(tmp_path)
    (tmp_path / "x.csv").write_text(SHORT)
    code, events, err = command(
        capsys, "replay", "-c", tmp_path / "site.toml", tmp_path / "x.csv",
        "--until", "2026-01-01T00:01:20Z",
    )  # fmt: skip
    assert code == 0
    keys = (
        "alarm_key",
        "occ_no",
        "seq",
        "event",
        "level",
        "priority",
        "t",
        "value",
        "limit",
        "rule",
    )
    mine = [
        tuple(row[key] for key in keys) for row in events if row["rule"] in {"methane", "silent"}
    ]
    minute = "2026-01-01T00:0"
    assert sorted(mine) == [
        ("g1:methane", 1, 1, "ACT", "H", 2, f"{minute}0:25.000000000Z", 1.2, 1.0, "methane"),
        ("g1:methane", 1, 2, "RTN", "H", 2, f"{minute}1:00.000000000Z", 0.2, 0.9, "methane"),
        ("g2:silent", 1, 1, "ACT", "OFFLINE", 2, f"{minute}1:00.000000000Z", None, 60.0, "silent"),
    ]
    assert events[0]["t_ns"] == T0 + 10 * S  # of the pack's rule, which has no delay
    assert "4 rows read, 4 judged, 0 refused" in err


def test_the_clock_stops_at_the_last_sample_unless_told_otherwise(tmp_path) -> None:
    site_file(tmp_path)
    events, result = replayed(tmp_path, SHORT)
    assert not any(row["rule"] == "silent" for row in events)
    assert result.last_ns == T0 + 30 * S
    events, result = replayed(tmp_path, SHORT, until_ns=T0 + 25 * S)
    assert result.after_end == 1
    assert {row["event"] for row in events if row["rule"] == "methane"} == {"ACT"}


def test_rows_in_any_order_give_the_same_events_in_the_same_order(tmp_path) -> None:
    site_file(tmp_path)
    rows = history(3, minutes=8)
    first, result = replayed(tmp_path, as_csv(rows))
    assert len(first) > 10
    assert result.judged == len(rows)
    for seed in (1,):
        mixed = rows.copy()
        random.Random(seed).shuffle(mixed)
        again, _ = replayed(tmp_path, as_csv(mixed))
        assert essence(again) == essence(first)
        assert [row["t_ns"] for row in again] == [row["t_ns"] for row in first]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_replay_gives_the_events_that_live_running_gave(seed: int, tmp_path) -> None:
    rows = history(seed)
    end_ns = rows[-1][0] + 90 * S
    with tempfile.TemporaryDirectory() as folder:
        live = asyncio.run(run_live(site(Path(folder)), rows, until_ns=end_ns))
    site_file(tmp_path / "again")
    again, _ = replayed(tmp_path / "again", as_csv(rows), until_ns=end_ns)
    assert len(live) > 20
    assert {"LL", "OFFLINE", "H"} <= {row["level"] for row in live}
    assert essence(again) == essence(live)


def test_batches_of_any_size_give_the_same_events(tmp_path, monkeypatch) -> None:
    site_file(tmp_path)
    text = as_csv(history(5, minutes=10))
    whole, _ = replayed(tmp_path, text)
    monkeypatch.setattr(module, "BATCH_ROWS", 7)
    monkeypatch.setattr(module, "COMMIT_ROWS", 20)
    cut, _ = replayed(tmp_path, text)
    assert essence(cut) == essence(whole)


def test_what_time_does_to_an_alarm_falls_between_the_samples_of_one_batch(tmp_path) -> None:
    escalation = (
        '\n[[escalation]]\npriority = "high"\nsteps = [{ after_s = 3, recipients = ["x"] }]\n'
    )
    site_file(tmp_path, SITE + escalation)
    events, _ = replayed(tmp_path, SHORT, until_ns=T0 + 70 * S)
    mine = [(row["event"], row["t_ns"] - T0) for row in events if row["alarm_key"] == "g1:methane"]
    assert mine == [("ACT", 25 * S), ("OVD", 28 * S), ("RTN", 60 * S)]


def test_samples_of_calculated_points_are_left_out_and_calculated_again(tmp_path) -> None:
    site_file(tmp_path)
    rows = history(4, minutes=10)
    without, _ = replayed(tmp_path, as_csv(rows))
    stored = [*rows, *[(t, "dam1.freeboard", 0.1, 0) for t, point, _, _ in rows if point == "top"]]
    withal, result = replayed(tmp_path, as_csv(stored))
    assert result.calculated == len(stored) - len(rows)
    assert essence(withal) == essence(without)


def test_a_point_only_a_rule_names_is_known_and_others_need_declaring(tmp_path) -> None:
    rule = '[[rule]]\nid = "named"\nkind = "limit"\nvalue = {{ ids = ["{}"] }}\n'
    rule += "parameters = {{ levels = {{ H = 1.0 }} }}\n"
    site_file(tmp_path, SITE + rule.format("x1"))
    text = f"point,time,value\nx1,{T0},2\ny1,{T0},2\n"
    events, result = replayed(tmp_path, text)
    assert [row["alarm_key"] for row in events] == ["x1:named"]
    assert result.notes[0].endswith("point 'y1' is not known to this site: 1 rows")
    _, result = replayed(tmp_path, text, declare=True)
    assert (result.judged, result.refused) == (2, 0)


def test_points_the_running_gateway_met_are_known_from_its_registry(tmp_path) -> None:
    from gateway.model.point import Point
    from gateway.spool.registry import Registry

    config = site(tmp_path)
    registry = Registry.open(config.data_dir / "points", configured=config.points)
    registry.declare_now([Point(id="met", quantity="methane")])
    try:  # open elsewhere meanwhile, as by a running gateway
        events, result = replayed(tmp_path, f"point,time,value\nmet,{T0},3\nmet,{T0 + 60 * S},3\n")
    finally:
        registry.close()
    assert result.refused == 0
    assert "met:methane" in {row["alarm_key"] for row in events}


def test_bad_rows_are_told_and_the_rest_is_judged(tmp_path, capsys) -> None:
    site_file(tmp_path)
    (tmp_path / "x.csv").write_text(SHORT + "g1,never,1\nq9,1,1\n")
    code, events, err = command(capsys, "replay", "-c", tmp_path / "site.toml", tmp_path / "x.csv")
    assert code == 0
    assert events
    assert f"{tmp_path}/x.csv:6: time 'never' is neither" in err
    assert "x.csv:7: point 'q9' is not known to this site: 1 rows" in err
    assert "REFUSED 2 of 6 rows" in err


def test_a_file_without_one_usable_row_fails(tmp_path, capsys) -> None:
    site_file(tmp_path)
    (tmp_path / "x.csv").write_text("point,time,value\nq9,1,1\n")
    code, events, _ = command(capsys, "replay", "-c", tmp_path / "site.toml", tmp_path / "x.csv")
    assert (code, events) == (1, [])
    (tmp_path / "x.csv").write_text("point,time,value\n")
    code, _, _ = command(capsys, "replay", "-c", tmp_path / "site.toml", tmp_path / "x.csv")
    assert code == 0  # nothing to judge is no fault


def test_what_is_no_recording_is_a_usage_fault(tmp_path, capsys) -> None:
    site_file(tmp_path)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    code, _, err = command(capsys, "replay", "-c", tmp_path / "site.toml", tmp_path / "x.csv")
    assert code == 2
    assert "columns point, time, value" in err


def test_standard_input_is_read_as_a_file(tmp_path, capsys, monkeypatch) -> None:
    site_file(tmp_path)

    class Stdin:
        buffer = io.BytesIO(SHORT.encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    code, events, _ = command(capsys, "replay", "-c", tmp_path / "site.toml", "-")
    assert code == 0
    assert [row["event"] for row in events if row["rule"] == "methane"] == ["ACT"]
    assert not Stdin.buffer.closed


def test_a_data_directory_is_kept_and_never_a_used_one(tmp_path) -> None:
    site_file(tmp_path)
    kept = tmp_path / "kept"
    events, _ = replayed(tmp_path, SHORT, data_dir=kept)
    from gateway.alarms.journal import Journal

    journal = Journal.open(kept / "journal")
    assert [event_row(event) for event in journal.read(0)] == events
    journal.close()
    assert not (kept / "replay-runs").exists()
    with pytest.raises(ConfigError, match="an empty or new folder"):
        replayed(tmp_path, SHORT, data_dir=kept)
