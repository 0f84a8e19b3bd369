r"""Where each key of a TOML text stands: path -> line. No parsing of values, `tomllib` does that.

    [[adapter]]                ("adapter", 0)              line 1
    port = 80                  ("adapter", 0, "port")      line 2
    tls = { "ca.file" = "x" }  ("adapter", 0, "tls", "ca.file") line 3
    hosts = [                  ("adapter", 0, "hosts")     line 4
      "a",                     ("adapter", 0, "hosts", 0)  line 5

Made for text that `tomllib` has accepted, so what would be an error there is not looked for here.
On anything unforeseen the scan ends and keeps what it has: a fault then names the line of the
enclosing table, never nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Sequence

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_STRINGS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'"""(?:\\.|[^\\])*?"{3,5}(?!")',
        r"'''.*?'{3,5}(?!')",
        r'"(?:\\.|[^"\\])*"',
        r"'[^']*'",
    )
)


class Lines:
    """The lines of one TOML text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._array_sizes: dict[Path, int] = {}
        self._lines: dict[Path, int] = {(): 0}
        try:
            self._document()
        except (_Unforeseen, RecursionError):
            return

    def of(self, path: Sequence[str | int]) -> int:
        """The line of the key, or of the nearest table around it; 0 when that is the file."""
        known = tuple(path)
        while known not in self._lines:
            known = known[:-1]
        return self._lines[known]

    def _note(self, path: Path, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._breaks, at - 1) + 1)

    def _document(self) -> None:
        table: Path = ()
        while True:
            self._skip(newlines=True)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; the path that the keys below it hang from."""
        began = self._at
        double = self._text.startswith("[[", began)
        self._at += 1 + double
        keys = self._keys()
        self._expect("]]" if double else "]")
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            self._note(path, began)
            if double and number == len(keys) - 1:
                self._array_sizes[path] = self._array_sizes.get(path, 0) + 1
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
                self._note(path, began)
        return path

    def _pair(self, table: Path) -> None:
        self._skip(newlines=True)
        began = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, began)
        self._expect("=")
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip()
            keys.append(self._key())
            self._skip()
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _key(self) -> str:
        bare = _BARE.match(self._text, self._at)
        if bare:
            self._at = bare.end()
            return bare.group()
        raw = self._string()
        if raw is None:
            raise _Unforeseen
        try:
            return str(tomllib.loads(f"key = {raw}")["key"])
        except tomllib.TOMLDecodeError as error:
            raise _Unforeseen from error

    def _value(self, path: Path) -> None:
        self._skip()
        start = self._text[self._at : self._at + 1]
        if start == "[":
            self._array(path)
        elif start == "{":
            self._inline_table(path)
        elif self._string() is None:
            scalar = _SCALAR.match(self._text, self._at)
            if scalar is None:
                raise _Unforeseen
            self._at = scalar.end()

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while not self._closed("]"):
            self._note((*path, number), self._at)
            self._value((*path, number))
            number += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, mark: str) -> bool:
        """Past blanks and a comma; whether the closing mark came, which is taken."""
        self._skip(newlines=True)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(newlines=True)
        if self._at >= len(self._text):
            raise _Unforeseen
        closed = self._text.startswith(mark, self._at)
        self._at += closed
        return closed

    def _string(self) -> str | None:
        """Take a string of any of the four kinds as it is written."""
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._at)
            if match:
                self._at = match.end()
                return match.group()
        return None

    def _skip(self, *, newlines: bool = False) -> None:
        """Past blanks, and past line ends and comments where they may stand."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in " \t" or (newlines and character in "\r\n"):
                self._at += 1
            elif newlines and character == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _expect(self, mark: str) -> None:
        self._skip()
        if not self._text.startswith(mark, self._at):
            raise _Unforeseen
        self._at += len(mark)


class _Unforeseen(Exception):
    """The scan does not understand the text; what it has found so far stands."""
