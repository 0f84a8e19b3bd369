"""The wheel, not the tree: what is installed at a site holds the whole console."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = ROOT / "gateway" / "console"


@pytest.mark.slow
def test_the_wheel_holds_every_page_module_catalogue_and_library(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(file.relative_to(ROOT))
        for folder in ("templates", "static", "locale")
        for file in (CONSOLE / folder).rglob("*")
        if file.is_file()
    }
    assert len(wanted) > 30
    assert wanted - held == set()
    assert not any(name.startswith(("tests/", "deploy/")) for name in held)
