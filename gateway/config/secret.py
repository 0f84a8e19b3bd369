"""`${env:NAME}` in a value: what a configuration file must not hold itself.

Resolved once, when the file is loaded. Nothing here remembers a value but `Environment.hide`, which
takes resolved values out of messages before a person or a log sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_REFERENCE = re.compile(r"\$\{env:([^}]*)\}")
_HIDDEN = "•••"


class Environment:
    """Resolves references; collects the paths of those that are not set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._values: set[str] = set()
        self.missing: list[tuple[tuple[str | int, ...], str]] = []

    def resolve(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        """`value` with every reference in every string of it replaced."""
        if isinstance(value, dict):
            return {key: self.resolve(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.resolve(each, (*path, at)) for at, each in enumerate(value)]
        if isinstance(value, str) and "${env:" in value:
            return _REFERENCE.sub(lambda match: self._look_up(match.group(1), path), value)
        return value

    def hide(self, text: str) -> str:
        """`text` without any value that came from the environment."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, _HIDDEN)
        return text

    def _look_up(self, name: str, path: tuple[str | int, ...]) -> str:
        value = self._variables.get(name)
        if value is None:
            self.missing.append((path, name))
            return ""
        if value:
            self._values.add(value)
        return value
