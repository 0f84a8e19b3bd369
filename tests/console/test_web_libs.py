"""The browser libraries: pinned, complete, licensed, and from no address of anybody's."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("web_libs", ROOT / "deploy" / "web_libs.py")
web_libs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(web_libs)


def test_the_lock_file_pins_every_package_by_hash_and_names_no_host():
    text = (ROOT / "package-lock.json").read_text()
    assert "http" not in text
    assert "resolved" not in text
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    packages = json.loads(text)["packages"]
    for name, version in wanted.items():
        locked = packages[f"node_modules/{name}"]
        assert locked["version"] == version
        assert locked["integrity"].startswith("sha512-")
    assert len(packages) == 1 + len(wanted)


def test_what_is_installed_is_what_the_lock_file_says():
    assert web_libs.is_current()


def test_every_library_comes_with_its_licence():
    folders = {name.split("/")[0] for _, name in web_libs.FILES}
    licensed = {name.split("/")[0] for _, name in web_libs.FILES if name.endswith("LICENSE")}
    assert folders == licensed


@pytest.mark.parametrize("damage", ["leaflet/leaflet.js", "stamp"])
def test_a_missing_file_is_noticed(tmp_path, damage):
    target = tmp_path / "lib"
    shutil.copytree(web_libs.TARGET, target)
    assert web_libs.is_current(target)
    (target / damage).unlink()
    assert not web_libs.is_current(target)


def test_a_changed_lock_file_is_noticed(tmp_path, monkeypatch):
    target = tmp_path / "lib"
    shutil.copytree(web_libs.TARGET, target)
    (target / "stamp").write_text("0" * 64)
    assert not web_libs.is_current(target)
