"""Before a wheel or an sdist is packed: the browser libraries must be there, or there is no build.

An editable installation is left alone (`make install` runs deploy/web_libs.py itself). For a real
build that script runs first; it needs npm only when the libraries are not there yet, so a wheel
from an sdist, which carries them, needs none. A wheel without them would install a console of blank
pages, so it fails here instead.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebLibraries(BuildHookInterface):  # type: ignore[type-arg]
    """Runs deploy/web_libs.py before a standard build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if version == "editable":
            return
        script = Path(self.root) / "deploy" / "web_libs.py"
        done = subprocess.run([sys.executable, str(script)], check=False)  # noqa: S603 - our own
        if done.returncode:
            raise RuntimeError("the browser libraries could not be fetched: nothing is built")
