"""A back-test raises what live running raised on the same samples, and says what another set would."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from history_site import PLUGINS, T0, S, as_csv, essence, history, run_live, site
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import main
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.quality import Quality
from gateway.runtime import year_live
from gateway.runtime.backtest import BacktestOptions, Episode, backtest, matched, other_site, report
from gateway.runtime.checking import load_site
from gateway.runtime.replay import event_row
from gateway.runtime.rerun import LateFilter, steps
from gateway.runtime.year import BEGIN_NS, Year, make_year
from gateway.runtime.year_live import compare, judged_live, minutes

DAY = 86_400 * S
SAME = '[[rule]]\nid = "unused"\nkind = "limit"\nvalue = { quantity = "none" }\nparameters = { levels = { H = 1 } }\n'


def other(folder: Path, text: str) -> Path:
    path = folder / "other.toml"
    path.write_text(text)
    return path


def run(config, folder: Path, rules: str, from_ns: int, to_ns: int, **more):
    options = BacktestOptions(folder / "site.toml", other(folder, rules), from_ns, to_ns, **more)
    return backtest(config, other_site(config, PLUGINS, options.rules), PLUGINS, options)


# ---------------------------------------------------------------------- the same as live


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_backtest_raises_what_live_running_raised_on_what_it_stored(seed: int) -> None:
    rows = history(seed)
    end_ns = rows[-1][0] + 90 * S
    with tempfile.TemporaryDirectory() as name:
        config = site(Path(name))
        live = asyncio.run(run_live(config, rows, sinks=True, until_ns=end_ns))
        result = run(config, Path(name), SAME, T0, end_ns)
    again = [event_row(event) for event in result.raised["site"].events]
    assert len(live) > 20
    assert essence(again) == essence(live)


@pytest.mark.slow
def test_a_small_year_gives_the_events_of_judging_it_minute_by_minute(tmp_path) -> None:
    """The maker writes the store directly; the live core gets the same samples in small pieces."""
    year = Year(points=40, days=2, rises=0.3, hovers=0.1, silences=0.2, faults=0.1)
    rows = make_year(tmp_path, year)
    config = load_site(tmp_path / "site.toml", PLUGINS)
    rules = (tmp_path / "other.toml").read_text()
    result = run(config, tmp_path, rules, BEGIN_NS, year.end_ns)
    assert result.rows == rows
    for name, its in (
        ("site", config),
        ("other", other_site(config, PLUGINS, tmp_path / "other.toml")),
    ):
        live = list(judged_live(its, PLUGINS, year))
        assert len(live) > 50
        assert essence(map(event_row, result.raised[name].events)) == essence(map(event_row, live))


def test_the_comparison_of_a_year_finds_an_event_that_differs(tmp_path, capsys) -> None:
    year = Year(points=10, days=1, rises=0.5, silences=0.3)
    make_year(tmp_path, year)
    same = ["--points", "10", "--days", "1"]
    assert year_live.main([str(tmp_path), *same, "--json"]) == 1, (
        "another plant than the stored one"
    )
    assert json.loads(capsys.readouterr().out)["site"]["different"] > 0
    found = compare(tmp_path, year, PLUGINS)["site"]
    assert found["different"] == 0
    assert found["events_live"] == found["events_backtest"] > 0


def test_minutes_of_receipt_hold_every_sample_once_over_midnight() -> None:
    year = Year(points=30, days=2, seed=3)
    parts = list(minutes(year))
    whole = Batch.concat([year.day(0), year.day(1)])
    again = Batch.concat(parts)
    assert np.array_equal(np.sort(again.received_time_ns), np.sort(whole.received_time_ns))
    assert len(again) == len(whole)
    minute = [np.unique(part.received_time_ns // (60 * S)) for part in parts]
    assert all(len(each) == 1 for each in minute)
    assert len(np.unique(np.concatenate(minute))) == len(parts)


def test_a_backlog_meets_the_silence_that_was_raised_meanwhile(tmp_path) -> None:
    """What came in late is judged as late as it came: the live gateway had called somebody."""
    minute = 60 * S
    rows = [(T0 + i * minute // 2, "g2", 0.5, 0) for i in range(12)]
    config = site(tmp_path)
    told = [
        (T0, T0),
        (T0 + 20 * S, T0 + 170 * S),
        (T0 + 40 * S, T0 + 170 * S),
        (T0 + 171 * S, T0 + 171 * S),
    ]
    store_of(config, [("g1", source, received, 0.5) for source, received in told]
             + [(point, time, time, value) for time, point, value, _ in rows])  # fmt: skip
    result = run(config, tmp_path, SAME, T0, T0 + 200 * S)
    silent = [e for e in result.raised["site"].events if e.alarm.alarm_key == "g1:silent"]
    # the backlog's samples are older than the silence they would end: the next live one ends it
    found = [(event.transition.value, (event.time_ns - T0) // S) for event in silent]
    assert found == [("ACT", 60), ("RTN", 171)]


def store_of(config, rows) -> None:
    """A store with (point, source, received, value) rows, and the registry that names its points."""
    from gateway.sinks.duckdb.config import DuckdbConfig
    from gateway.sinks.duckdb.store import Store
    from gateway.spool.registry import Registry

    registry = Registry.open(config.data_dir / "points", configured=config.points)
    rows = sorted(rows, key=lambda row: row[2])
    store = Store(
        config.data_dir / "sinks" / "store" / "history.duckdb", DuckdbConfig(), registry.table
    )
    point, source, received, value = zip(*rows, strict=True)
    index = [registry.table.index(each) for each in point]
    store.write(Batch.of(index, value, source, received_time_ns=received), len(rows))
    store.close()
    registry.close()


# ---------------------------------------------------------------------- differences


def episodes(*spans: tuple[int, int | None]) -> list[Episode]:
    return [Episode(begin, "H", 2, end) for begin, end in spans]


MATCHES = [
    ([], [], []),
    ([(1, 2)], [(1, 2)], [((1, 2), (1, 2))]),
    ([(1, 2)], [(4, 5)], [((1, 2), None), (None, (4, 5))]),
    ([(4, 5)], [(1, 2)], [(None, (1, 2)), ((4, 5), None)]),
    ([(1, 9)], [(2, 3), (5, 6)], [((1, 9), (2, 3)), (None, (5, 6))]),
    ([(1, 2), (4, 5)], [(0, None)], [((1, 2), (0, None)), ((4, 5), None)]),
    ([(1, 4)], [(4, 6)], [((1, 4), (4, 6))]),
]


@pytest.mark.parametrize(("ours", "theirs", "pairs"), MATCHES)
def test_episodes_that_touch_are_the_same_and_each_is_matched_once(ours, theirs, pairs) -> None:
    found = [
        tuple(each and (each.begin_ns, each.end_ns) for each in pair)
        for pair in matched(episodes(*ours), episodes(*theirs))
    ]
    assert found == pairs


LIMIT = """
[[rule]]
id = "methane"
kind = "limit"
value = { ids = ["g1"] }
parameters = { levels = { H = { limit = %s, reset = 0.9 } } }
on_delay_s = %s
"""


def test_differences_say_what_would_be_raised_when_and_for_how_long(tmp_path, capsys) -> None:
    config = site(tmp_path, SITE_OF_ONE + LIMIT % ("1.0", "0"))
    values = {0: 0.5, 60: 1.2, 120: 0.5, 180: 1.05, 240: 0.5, 300: 1.3, 420: 0.5}
    store_of(config, [("g1", T0 + t * S, T0 + t * S, v) for t, v in values.items()])
    rules = other(tmp_path, LIMIT % ("1.1", "30"))
    code = main(
        ["backtest", "-c", str(tmp_path / "site.toml"), "--rules", str(rules), "--from",
         "2026-01-01T00:00:00Z", "--to", str(T0 + 600 * S), "--json"]
    )  # fmt: skip
    out = json.loads(capsys.readouterr().out)
    assert code == 0
    found = [
        (row["what"], row["begins_s"], row["lasts_s"], row["site"] and row["site"]["begin_ns"] - T0)
        for row in out["changes"]
    ]
    assert found == [
        ("changed", 30.0, -30.0, 60 * S),
        ("gone", 0.0, -60.0, 180 * S),
        ("changed", 30.0, -30.0, 300 * S),
    ]
    total = out["difference"]
    assert (total["raised_site"], total["raised_other"], total["gone"], total["later"]) == (
        3,
        2,
        1,
        2,
    )
    assert (total["active_s_site"], total["active_s_other"]) == (240.0, 120.0)
    assert out["by_rule"] == {"methane": total}
    assert out["by_target"] == {"g1": total}
    # back within a minute of its return it is the same occurrence, and calls nobody again
    assert [out[name]["kpi"]["annunciations"] for name in ("site", "other")] == [1, 2]
    code = main(
        ["backtest", "-c", str(tmp_path / "site.toml"), "--rules", str(rules), "--from", str(T0),
         "--to", str(T0 + 600 * S)]
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "would not be raised; it lasted 1 min" in text
    assert "raised: 3 with the site's rules, 2 with" in text


SITE_OF_ONE = """
[site]
tenant = "t"
id = "s"
[history]
sink = "store"
[[sink]]
name = "store"
kind = "duckdb"
[[point]]
id = "g1"
quantity = "methane"
"""


def test_the_same_rules_make_no_difference(tmp_path) -> None:
    rules = LIMIT % ("1.0", "0")
    config = site(tmp_path, SITE_OF_ONE + rules)
    rows = [row for row in history(2) if row[1] == "g1"]
    store_of(config, list({(point, t, t, v): 0 for t, point, v, _ in rows}))
    result = run(config, tmp_path, rules, T0, T0 + DAY)
    found = report(result)
    assert found["difference"]["same"] == found["site"]["raised"] > 3
    assert found["changes"] == []
    assert found["site"] == found["other"]


def test_what_began_before_the_time_counts_in_neither(tmp_path) -> None:
    config = site(tmp_path, SITE_OF_ONE + LIMIT % ("1.0", "0"))
    store_of(
        config, [("g1", T0 + t * S, T0 + t * S, v) for t, v in ((0, 1.2), (60, 0.1), (90, 1.2))]
    )
    result = run(config, tmp_path, LIMIT % ("1.0", "10"), T0 + 30 * S, T0 + 200 * S)
    assert result.comparison.total.raised_site == 1
    assert result.comparison.total.later == 1


# ---------------------------------------------------------------------- the other rule set


def test_a_section_that_is_left_out_is_the_sites_own(tmp_path) -> None:
    config = site(tmp_path)
    override = (
        '[[pack_override]]\nrule = "coal-gas-2016.methane-report"\n'
        "parameters = { levels = { H = 0.5 } }\n"
    )
    found = other_site(config, PLUGINS, other(tmp_path, override))
    assert found.rules == config.rules
    assert found.packs == config.packs
    assert [each.rule for each in found.pack_overrides] == ["coal-gas-2016.methane-report"]
    found = other_site(config, PLUGINS, other(tmp_path, "packs = []\n"))
    assert (found.packs, found.rules) == ((), config.rules)


FAULTS = [
    ("", "at least one of packs"),
    ('[[rule]]\nid = "x"\nkind = "nonsense"\n', "other.toml:3: rule[0].kind: one of"),
    ('\n\n[[rule]]\nid = "x"\nkind = "limit"\nvalue = {}\nparameters = { levels = { Q = 1 } }\n',
     "other.toml:7: rule[0].parameters"),
    ('packs = ["nothing"]\n', "other.toml:1: packs[0]: one of"),
    ('[[pack_override]]\nrule = "coal-gas-2016.methane-report"\nparameters = { levels = { H = 5 } }\n',
     "a statutory rule may be tightened"),
    ("[[rule]\n", "TOML in UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_faults_of_the_other_rules_are_told_with_their_own_lines(text, expected, tmp_path) -> None:
    config = site(tmp_path)
    with pytest.raises(ConfigError) as raised:
        other_site(config, PLUGINS, other(tmp_path, text))
    assert expected in str(raised.value), raised.value


def test_a_site_without_history_says_so(tmp_path, capsys) -> None:
    site(tmp_path, SITE_OF_ONE.replace('[history]\nsink = "store"\n', ""))
    arguments = ["--rules", str(other(tmp_path, SAME)), "--from", "0", "--to", "9"]
    assert main(["backtest", "-c", str(tmp_path / "site.toml"), *arguments]) == 2
    assert "history.sink" in capsys.readouterr().err
    site(tmp_path, SITE_OF_ONE)
    assert main(["backtest", "-c", str(tmp_path / "site.toml"), *arguments]) == 1
    assert "no history is stored here" in capsys.readouterr().err
    arguments[-1] = "0"
    assert main(["backtest", "-c", str(tmp_path / "site.toml"), *arguments]) == 2


# ---------------------------------------------------------------------- late rows

row = st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 4))


@settings(max_examples=300)
@given(st.lists(row, max_size=30), st.lists(st.integers(0, 12), max_size=3), st.booleans())
def test_a_row_is_late_when_a_newer_one_of_its_point_came_strictly_earlier(
    rows, cuts, by_point
) -> None:
    rows = sorted({(p, t, t + lag) for p, t, lag in rows}, key=lambda each: each[2])
    wanted = {(p, t, r) for p, t, r in rows if any(q == p and u > t and s < r for q, u, s in rows)}
    found, late = LateFilter(3), set()
    for low, high in zip([-1, *sorted(cuts)], [*sorted(cuts), 99], strict=True):
        part = [each for each in rows if low < each[2] <= high]
        if by_point:  # as a settled store has them
            part.sort()
        if not part:
            continue
        point, time, received = zip(*part, strict=True)
        split = found.split(Batch.of(point, [0.0] * len(part), time, received_time_ns=received))
        if len(split) == 2:
            columns = (split[1].point_index, split[1].source_time_ns, split[1].received_time_ns)
            late |= set(zip(*(column.tolist() for column in columns), strict=True))
    assert late == wanted
    assert found.late_count == len(wanted)


def test_a_backlog_is_taken_second_by_second_and_the_rest_at_once() -> None:
    prompt = Batch.of([0, 0], [1, 1], [T0, T0 + 9 * S], received_time_ns=[T0 + 1, T0 + 9 * S])
    backlog = Batch.of([0, 0, 0], [1, 1, 1], [T0 + 10 * S, T0 + 11 * S, T0 + 200 * S],
                       received_time_ns=[T0 + 200 * S, T0 + 200 * S, T0 + 201 * S])  # fmt: skip
    found = list(steps(iter([prompt, backlog]), 0, LateFilter(1)))
    assert [len(step.batch) for step in found] == [2, 2, 1]
    assert [step.known_ns - T0 for step in found] == [-51 * S, 200 * S, 201 * S]


@pytest.mark.system
def test_the_history_of_a_running_gateway_is_read_from_a_copy(tmp_path, capsys) -> None:
    config = site(tmp_path, SITE_OF_ONE + LIMIT % ("1.0", "0"))
    store_of(
        config, [("g1", T0 + t * S, T0 + t * S, v) for t, v in ((0, 0.2), (60, 1.2), (90, 0.2))]
    )
    path = config.data_dir / "sinks" / "store" / "history.duckdb"
    holding = (
        f"import duckdb, sys; c = duckdb.connect({str(path)!r});"
        "c.execute('insert into recent values (0, ?, 3.0, 0, ?)', [int(sys.argv[1])] * 2);"
        "print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", holding, str(T0 + 120 * S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "open\n"
        rules = other(tmp_path, LIMIT % ("1.0", "0"))
        code = main(["backtest", "-c", str(tmp_path / "site.toml"), "--rules", str(rules),
                     "--from", str(T0), "--to", str(T0 + 200 * S), "--json"])  # fmt: skip
        out, err = capsys.readouterr()
        assert code == 0
        assert "a copy of it is judged" in err
        found = json.loads(out)
        assert (found["samples"], found["site"]["raised"]) == (4, 2)  # the log's row is in
    finally:
        holder.communicate(timeout=20)


def test_the_recorded_year_is_the_same_day_by_day(tmp_path) -> None:
    year = Year(points=3, days=2, seed=7)
    assert year.day(1) == Year(points=3, days=9, seed=7).day(1)
    assert year.day(1) != year.day(0)
    assert as_csv([]) == "point,time,value,quality\n\n"


# ---------------------------------------------------------------------- pieces of time


def long_runs(*, ahead: int = 0, flagged: bool = False) -> Batch:
    """Three points, one sample a minute, each for ten hours, as a store hands them out."""
    point = np.repeat(np.arange(3), 600)
    time_ns = T0 + np.tile(np.arange(600) * 60 * S, 3) + point * 7 * S
    quality = np.zeros(len(point), np.uint8)
    quality[700] = int(Quality.UNCERTAIN_CLOCK) if flagged else 0
    received_ns = time_ns + S
    received_ns[5] -= ahead
    return Batch.of(
        point, np.full(len(point), 0.5), time_ns, received_time_ns=received_ns, quality=quality
    )


def test_a_step_is_judged_in_pieces_none_of_which_is_known_beyond_what_follows() -> None:
    batch = long_runs()
    (step,) = steps(iter([batch]), 0, LateFilter(3))
    parts = list(step.pieces())
    assert len(parts) == 3
    times = [outline.taken(batch).source_time_ns for _, outline in parts]
    assert sum(map(len, times)) == len(batch)
    for (known_ns, _), after in zip(parts, times[1:], strict=False):
        assert after.min() > known_ns
    assert parts[-1][0] == step.known_ns
    assert [known_ns for known_ns, _ in parts] == sorted(known_ns for known_ns, _ in parts)


@pytest.mark.parametrize("wrong", [{"ahead": 2 * S}, {"flagged": True}])
def test_a_step_with_a_wrong_clock_is_judged_whole(wrong) -> None:
    """What is judged at its receipt belongs to no piece of the devices' times."""
    (step,) = steps(iter([long_runs(**wrong)]), 0, LateFilter(3))
    assert [known_ns for known_ns, _ in step.pieces()] == [step.known_ns]
