"""From what went wrong to `file:line: key: what was expected`, for one TOML file.

pydantic reports a failed union once for each branch, with the branch's name in the path, and an
unknown key without saying which ones are known. Here a path is cut to what stands in the file, and
one key has one fault.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.secret import Environment
from gateway.model.errors import Fault
from gateway.model.lines import Lines

KeyPath = tuple[str | int, ...]


class FaultList:
    """Faults of one file, one for each key, in the order of the lines."""

    def __init__(
        self,
        file: Path,
        lines: Lines,
        environment: Environment,
        top_keys: Collection[str] = (),
    ) -> None:
        """`top_keys` belong to no table: TOML takes one written below a header for that table's."""
        self._top_keys = top_keys
        self._file = str(file)
        self._lines = lines
        self._environment = environment
        self._faults: dict[tuple[str, int, str], Fault] = {}

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, path: Sequence[str | int], expected: str) -> None:
        """A fault of the key at `path`, which need not exist; more on the same key are joined."""
        self.add_in(self._file, self._lines.of(path), dotted(path), expected)

    def add_in(self, file: str, line: int, key: str, expected: str) -> None:
        """A fault of another file, such as a point table."""
        place = (file, line, key)
        text = self._environment.hide(expected).replace("\n", " ")
        before = self._faults.get(place)
        if before and text not in before.expected.split(" or "):
            text = f"{before.expected} or {text}"
        elif before:
            text = before.expected
        self._faults[place] = Fault(file, line, key, text)

    def add_validation(
        self, error: ValidationError, base: KeyPath, data: Any, model: type[BaseModel]
    ) -> None:
        """Every error pydantic found in `data`, which stands at `base` of the file."""
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        paths = [_within(e["loc"], data, keep_last=e["type"] == "missing") for e in errors]
        for each, path in zip(errors, paths, strict=True):
            if any(len(other) > len(path) and other[: len(path)] == path for other in paths):
                continue  # another branch of a union got further and says it better
            if each["type"] == "extra_forbidden":
                key = str(each["loc"][-1])
                if len(base) + len(path) > 1 and key in self._top_keys:
                    text = f"unknown key here; {key} stands above the first [table] of the file"
                else:
                    text = _unknown_key(key, _known_keys(model, each["loc"][:-1]))
            elif each["type"] == "missing":
                text = "required"
            else:
                text = _expectation(each["msg"])
            self.add((*base, *path), text)

    def sorted(self) -> list[Fault]:
        return sorted(self._faults.values(), key=lambda f: (f.file != self._file, f.file, f.line))


def dotted(path: Sequence[str | int]) -> str:
    """`adapter[0].tls."ca.file"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.replace("_", "").replace("-", "").isalnum() and part.isascii()
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def _within(loc: Sequence[str | int], data: Any, *, keep_last: bool) -> KeyPath:
    """The part of pydantic's path that exists in the file, without names of union branches."""
    path: list[str | int] = []
    at = data
    for number, part in enumerate(loc):
        exists = (isinstance(at, dict) and part in at) or (
            isinstance(at, list) and isinstance(part, int) and part < len(at)
        )
        if exists:
            at = at[part]
            path.append(part)
        elif keep_last and number == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _expectation(message: str) -> str:
    for lead in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(lead)
    return (
        message[:1].lower() + message[1:]
        if message[:6] in {"Input ", "Extra ", "String"}
        else (message)
    )


def _known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys of the table at `loc`, as far as the models say."""
    at: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        found = at.model_fields.get(part)
        inner = _model_in(found.annotation) if found else None
        if inner is None:
            return []
        at = inner
    return [info.alias or name for name, info in at.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model an annotation speaks of; None when there is none or more than one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [found for each in getattr(annotation, "__args__", ()) if (found := _model_in(each))]
    return inner[0] if len(inner) == 1 else None


def _unknown_key(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; known are {', '.join(known)}" if known else "unknown key"
