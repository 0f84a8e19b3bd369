"""The house rules a machine can check. Each failure names the file and what to do about it."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "adapters", "alarm_rules", "simulators")
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_owns_and_stays_within_its_limits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    faults = []
    if not ast.get_docstring(tree):
        faults.append("no module docstring")
    if len(text.splitlines()) > FILE_LINES_MAX:
        faults.append(f"{len(text.splitlines())} lines, more than {FILE_LINES_MAX}: split it")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                faults.append(f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}")
    assert not faults, f"{name_of(path)}: {'; '.join(faults)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_clock_module_reads_the_system_clock(path: Path) -> None:
    if name_of(path) == "gateway/runtime/clock.py":
        return
    banned = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
    calls = [
        f"line {node.lineno}: {node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in banned
    ]
    assert not calls, f"{name_of(path)} reads the clock: {calls}; take now_ns as an argument"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_nothing_is_left_unfinished_by_its_own_words(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert not found, f"{name_of(path)}: {found}"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_do_not_sleep_for_a_fixed_time(path: Path) -> None:
    """`asyncio.sleep` inside a bounded wait for a real process is written `sleep(POLL_S)`."""
    if path == Path(__file__).resolve():
        return
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"time\.sleep\((?!POLL_S)[^)]*\)", text)
    assert not found, f"{name_of(path)}: {found}; wait for a condition instead"


def test_there_is_no_package_file_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), (
        "an __init__.py under tests/ would shadow the real packages"
    )


ADAPTERS = sorted(p for p in (ROOT / "adapters").iterdir() if (p / "__init__.py").exists())


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda p: p.name)
def test_an_adapter_has_the_shape_of_an_adapter(folder: Path) -> None:
    wanted = {"config", "codec", "mapping", "client", "sample", "README"}
    missing = wanted - {path.stem for path in folder.iterdir()}
    assert not missing, f"adapters/{folder.name} lacks {sorted(missing)}"


@pytest.mark.parametrize(
    ("group", "folder"),
    [("adapters", "adapters"), ("simulators", "simulators"), ("sinks", "gateway/sinks")],
)
def test_every_plugin_folder_is_registered_and_every_registration_has_a_folder(
    group: str, folder: str
) -> None:
    registered = {entry.name for entry in entry_points(group=f"hazard_gateway.{group}")}
    folders = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert registered == folders


def test_every_rule_kind_file_is_registered() -> None:
    registered = {entry.name for entry in entry_points(group="hazard_gateway.rule_kinds")}
    files = {p.stem for p in (ROOT / "alarm_rules/kinds").glob("*.py") if p.stem[0] != "_"}
    assert registered == files


def test_each_adapter_is_named_in_the_independence_contract() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    named = {m for c in contracts if c["type"] == "independence" for m in c["modules"]}
    assert named == {f"adapters.{folder.name}" for folder in ADAPTERS}


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_carries_a_path_of_somebodys_machine() -> None:
    pattern = re.compile(rb"(?<![a-z.])/(root|home/[a-z]+|work)/")
    dirty = [
        name_of(path)
        for path in tracked_files()
        if path != Path(__file__).resolve() and pattern.search(path.read_bytes())
    ]
    assert not dirty
