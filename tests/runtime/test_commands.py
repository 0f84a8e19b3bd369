"""The commands as a person types them: data on stdout, faults on stderr, exit codes 0, 1, 2."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.cli import EXIT_OK, EXIT_USAGE, main
from gateway.contract.simulator import CountingLedger
from gateway.runtime.checking import check_site
from gateway.runtime.demo import Ports, write_site
from gateway.runtime.plugins import GROUPS, load_plugins
from gateway.runtime.simulating import build_simulator, read_scenario, scenario_names

TEN_FAULTS = """
packs = ["coal-gas-1949"]
[site]
tenant = "a b"
id = "mine-1"
time_zone = "Mars/Olympus"
[console]
prot = 8808
[[adapter]]
name = "mine"
kind = "mine_files"
folder = "inbox"
poll_intervall_s = 2
[[adapter]]
name = "fleet"
kind = "jt-808"
[[sink]]
name = "store"
kind = "duckdb"
memory_limit_mb = "lots"
[[rule]]
id = "co"
kind = "limit"
value = { quantity = "carbon_monoxide" }
parameters = { levels = { H = { limit = "many" } } }
[history]
sink = "stroe"
[[point]]
id = "p1"
interval_s = 0
"""
FAULTY_LINES = [2, 4, 6, 8, 13, 16, 20, 25, 27, 30]


def test_ten_faults_give_ten_lines_each_with_its_place(tmp_path, capsys) -> None:
    site = tmp_path / "site.toml"
    site.write_text(TEN_FAULTS, encoding="utf-8")
    assert main(["check", "-c", str(site)]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [int(line.split(":")[1]) for line in lines] == FAULTY_LINES
    assert all(line.startswith(f"{site}:") for line in lines)


def test_run_says_the_same_as_check_and_starts_nothing(tmp_path, capsys) -> None:
    site = tmp_path / "site.toml"
    site.write_text(TEN_FAULTS, encoding="utf-8")
    assert main(["run", "-c", str(site)]) == EXIT_USAGE
    assert len(capsys.readouterr().err.splitlines()) == len(FAULTY_LINES)
    assert list(tmp_path.iterdir()) == [site]


def test_the_demo_site_has_no_faults_and_names_every_unconfirmed_rule(tmp_path) -> None:
    report = check_site(write_site(tmp_path, Ports(console=8808, mqtt=1883, jt808=7808)))
    assert report.faults == []
    unconfirmed = [note for note in report.notes if note.startswith("unconfirmed: ")]
    assert any("tailings.freeboard-grade-3" in note for note in unconfirmed)
    assert "no faults" in report.notes[-1]


SITE = """
packs = ["coal-gas-2016"]
[site]
tenant = "t"
id = "s"
[[pack_override]]
rule = "coal-gas-2016.methane-t1"
parameters = {{ levels = {{ H = {{ limit = {limit} }} }} }}
{signature}
"""
SIGNED = 'reason = "trial by permit 7"\nsigned_by = "chief engineer"\nsigned_on = 2026-11-01'


@pytest.mark.parametrize(
    ("limit", "signature", "fault", "note"),
    [
        (0.8, "", "", "tightened by the site"),
        (1.2, "", "may be tightened; loosening it needs", ""),
        (1.2, SIGNED, "", "loosened by the site by chief engineer on 2026-11-01"),
    ],
)
def test_a_site_may_tighten_a_statutory_rule_and_loosen_it_only_over_a_signature(
    tmp_path, limit, signature, fault, note
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(limit=limit, signature=signature), encoding="utf-8")
    report = check_site(site)
    assert [fault in str(f) for f in report.faults] == ([True] if fault else [])
    if note:
        assert any(note in line for line in report.notes)


def test_plugins_lists_everything_installed_with_its_origin(capsys) -> None:
    assert main(["plugins"]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    installed = {(g, e.name) for g in GROUPS for e in entry_points(group=f"hazard_gateway.{g}")}
    assert {tuple(line.split()[:2]) for line in lines} == installed
    assert all("hazard-gateway" in line for line in lines)


@pytest.mark.parametrize("name", scenario_names())
def test_every_shipped_scenario_has_a_summary_and_builds_its_simulator(name, tmp_path) -> None:
    folder = files("simulators") / "scenarios"
    table = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    assert table["summary"]
    kinds = load_plugins().simulators
    wanted = {"mine": "mine_files", "tailings": "mqtt_json"}
    kind = name.removeprefix("demo-") if name.startswith("demo-") else name.partition("-")[0]
    kind = wanted.get(kind, kind)
    target = str(tmp_path) if kind == "mine_files" else "127.0.0.1:1"
    build_simulator(
        kinds[kind], name=name, target=target, settings=read_scenario(name), seed=1,
        ledger=CountingLedger(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["simulate", "smoke", "--target", "x:1"], "one of jt808"),
        (["simulate", "jt808", "--target", "nowhere"], "host:port"),
        (["simulate", "jt808", "--target", "h:1", "--scenario", "none"], "jt808-normal"),
        (["run", "-c", "missing.toml"], "a file that can be read"),
    ],
)
def test_wrong_usage_is_named_and_exits_with_2(arguments, expected, capsys) -> None:
    assert main(arguments) == EXIT_USAGE
    assert expected in capsys.readouterr().err


def test_a_scenario_with_an_unknown_setting_is_refused_by_its_name(tmp_path, capsys) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text("[config]\nsped = 3\n", encoding="utf-8")
    code = main(["simulate", "jt808", "--target", "h:1", "--scenario", str(scenario)])
    assert code == EXIT_USAGE
    assert "sped" in capsys.readouterr().err


@pytest.mark.slow
def test_the_pipeline_bench_accounts_for_all_of_its_time(capsys) -> None:
    assert main(["bench", "pipeline", "--seconds", "0.3", "--json"]) == EXIT_OK
    figures = json.loads(capsys.readouterr().out)
    assert sum(figures["share_percent"].values()) == pytest.approx(100, abs=1)
    assert figures["samples_per_s"] > 0
    assert figures["machine_limit"]["write_fdatasync_samples_per_s"] > 0


def test_the_readme_names_every_command() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    for command in ("demo", "run", "check", "plugins", "decode", "simulate", "bench"):
        assert f"| `{command}" in readme
