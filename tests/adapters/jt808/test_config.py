"""Configuration, the sample file, and what the thinking parts may import."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from adapters.jt808 import KIND
from adapters.jt808.config import Jt808Config, VehicleEntry

FOLDER = Path(KIND.build.__code__.co_filename).parent
PURE = ["codec.py", "session.py", "mapping.py", "roster.py", "decoder.py", *(
    f"wire/{path.name}" for path in (FOLDER / "wire").glob("*.py")
)]  # fmt: skip
IMPURE = {"asyncio", "socket", "time", "threading", "random", "os", "shutil", "tempfile", "pathlib", "secrets"}  # fmt: skip


def test_the_sample_shows_every_option_with_its_default() -> None:
    sample = tomllib.loads((FOLDER / "sample.toml").read_text("utf-8"))
    assert set(sample) == set(Jt808Config.model_fields)
    assert Jt808Config(**sample) == Jt808Config()


REFUSED = [
    {"prot": 1},
    {"port": 70000},
    {"registration": "closed"},
    {"device_prefix": "a/b"},
    {"device_prefix": "x" * 33},
    {"flush_interval_s": 0.02},
    {"vehicles": [{"phone": ""}]},
    {"vehicles": [{"phone": "12-34"}]},
    {"vehicles": [{"phone": "1", "klass": "x"}]},
    {"silence_timeout_s": 0},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Jt808Config(**options)


def test_a_listed_phone_is_compared_without_leading_zeros() -> None:
    assert VehicleEntry(phone="013900000001").phone == "13900000001"
    assert VehicleEntry(phone="0139abc").phone == "139ABC"
    assert VehicleEntry(phone="000").phone == "0"


@pytest.mark.parametrize("name", PURE)
def test_what_thinks_imports_no_io_and_no_clock(name: str) -> None:
    tree = ast.parse((FOLDER / name).read_text("utf-8"))
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not imported & IMPURE


def test_only_client_intake_and_door_await() -> None:
    awaiting = {
        path.name
        for path in FOLDER.rglob("*.py")
        if any(isinstance(n, ast.Await) for n in ast.walk(ast.parse(path.read_text("utf-8"))))
    }
    assert awaiting == {"client.py", "door.py", "intake.py"}
