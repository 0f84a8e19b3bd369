"""docs/limits.md tells the truth: every limit exists with that value, every named test exists, and
no limit of an adapter's configuration is left out."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import SpoolSection
from gateway.runtime.plugins import load_plugins

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<limit>[^|]+) \|[^|]+\|[^|]+\| (?P<test>[^|]+) \|$")
NAMED = re.compile(r"`(?P<place>[\w.]+)(?P<mark>[.:])(?P<name>\w+)` = (?P<value>[\d.]+)")
ROWS = [
    found
    for line in (ROOT / "docs/limits.md").read_text("utf-8").splitlines()
    if (found := ROW.match(line)) and found["what"] != "what grows"
]
IS_LIMIT = re.compile(r"_max(_bytes|_s|_h|_mb)?$|_timeout_s$")
CONFIGS: dict[str, Any] = {
    **{name: kind.config for name, kind in load_plugins().adapters.items()},
    "spool": SpoolSection,
}


def default_of(place: str, mark: str, name: str) -> Any:
    if mark == ":":
        return getattr(import_module(place), name)
    return CONFIGS[place].model_fields[name].default


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["what"])
def test_a_limit_of_the_page_exists_with_its_value(row: re.Match[str]) -> None:
    named = NAMED.fullmatch(row["limit"])
    if named is not None:
        found = default_of(named["place"], named["mark"], named["name"])
        assert found == pytest.approx(float(named["value"]))
    else:
        assert "`" not in row["limit"], f"not read: {row['limit']}"


def test_every_test_of_the_page_exists() -> None:
    written = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    names = {name for row in ROWS for name in re.findall(r"`(test_\w+)`", row["test"])}
    missing = sorted(name for name in names if f"def {name}(" not in written)
    assert len(names) > 20
    assert not missing


@pytest.mark.parametrize("kind", ["jt808", "mine_files", "mqtt_json"])
def test_no_limit_of_an_adapter_is_left_out(kind: str) -> None:
    page = (ROOT / "docs/limits.md").read_text("utf-8")
    fields = [name for name in CONFIGS[kind].model_fields if IS_LIMIT.search(name)]
    left_out = [name for name in fields if f"`{kind}.{name}`" not in page]
    assert set(left_out) <= {"connect_timeout_s", "incomplete_timeout_s"}  # how long we wait
