"""The mapping language: topic filters, paths into JSON, templates. Parsed once, evaluated without
`eval`, pure.

    topic      tailings/{dam}/telemetry        {name} captures one level; + one level; # the rest
    path       $.values.pool_level   @.v[0]    from the message ($) or the current element (@);
               @["a.b"]  x.y                   a quoted key; no prefix means @
    each       $.{device}.{class}_{n}.{time}   {name} captures each key (or position) in turn,
               $.channels[*]   $.values.*      * takes each without a name
    template   {dam}.{$.device}                captures, and texts found by a path
    source     a path, {name} (a capture), or the word `received`

A key pattern may capture in parts, with text between: `{class}_{n}` splits `L1_GP_1` at the last
underscore (each capture takes as much as it can, from the left).

Limits: a path has at most 16 steps, a step at most 3 captures, and one `each` opens at most 10,000
elements of a message; a message with more is refused whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

ELEMENTS_MAX = 10_000
_STEPS_MAX = 16
_CAPTURES_MAX = 3
_KEY_SIZE_MAX = 256  # of a key matched against a pattern, which bounds the time; of a name's part

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_CAPTURE = re.compile(r"\{(" + _NAME + r")\}")
_STEP = re.compile(
    r"""\.?(?:
          \[ (?P<index>-?\d{1,6}) \]
        | \[ "(?P<quoted>[^"]*)" \]
        | (?P<star>\[\*\]|\*)
        | (?P<key>(?:[^.\[\]{}"*\s]|\{[A-Za-z_][A-Za-z0-9_]*\})+)
        )""",
    re.VERBOSE,
)
_PART = re.compile(r"\{([^{}]*)\}|([^{}]+)")


_NO_TEXTS = ("", "")


class _Missing:
    """What a path finds where there is nothing; JSON null is None."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class TopicFilter:
    """A subscription and what its levels capture."""

    subscription: str
    names: frozenset[str]
    _pattern: re.Pattern[str]

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> TopicFilter:
        """Raises ValueError for what is not a topic filter."""
        if not text or "\x00" in text or len(text.encode()) > 1024:
            raise ValueError("topic: an MQTT topic filter was expected")
        levels, wire, names = [], [], []
        for position, level in enumerate(text.split("/")):
            capture = _CAPTURE.fullmatch(level)
            if capture:
                names.append(capture[1])
                levels.append(f"(?P<{capture[1]}>[^/]+)")
                wire.append("+")
            elif level == "+":
                levels.append("[^/]*")
                wire.append("+")
            elif level == "#" and position == text.count("/"):
                levels.append(".*")
                wire.append("#")
            elif any(symbol in level for symbol in "+#{}"):
                raise ValueError(f"topic: {level!r} is not a level of an MQTT topic filter")
            else:
                levels.append(re.escape(level))
                wire.append(level)
        if len(set(names)) < len(names):
            raise ValueError("topic: a name is captured twice")
        pattern = "/".join(levels)
        if pattern.endswith("/.*"):
            pattern = pattern[:-3] + "(?:/.*)?"  # MQTT 4.7.1.2: a/# matches a itself
        return cls("/".join(wire), frozenset(names), re.compile(pattern, re.DOTALL))

    def match(self, topic: str) -> dict[str, str] | None:
        """The captures, or None for another topic."""
        found = self._pattern.fullmatch(topic)
        if found is None or (topic.startswith("$") and not self.subscription.startswith("$")):
            return None  # MQTT 4.7.2: wildcards do not reach the $ topics
        return found.groupdict()


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Captures with text between: `{class}_{n}`. Each capture takes as much as it can, from the
    left, which is the same as each text standing as far to the right as it can, from the right; so
    it takes one search a text. A regular expression took time with the cube of the key's length."""

    texts: tuple[str, ...]  # before, between and behind the captures
    names: tuple[str, ...]

    def match(self, key: str) -> dict[str, str] | None:
        """What the captures hold, or None."""
        if self.texts == _NO_TEXTS:  # the whole key is the one capture
            return {self.names[0]: key} if key else None
        first, *between, last = self.texts
        if not (key.startswith(first) and key.endswith(last)):
            return None
        end = len(key) - len(last)
        found: list[str] = []
        for text in reversed(between):
            at = key.rfind(text, len(first), end - 1)  # the capture behind it is not empty
            if at < 0:
                return None
            found.append(key[at + len(text) : end])
            end = at
        found.append(key[len(first) : end])
        if end <= len(first):
            return None
        return dict(zip(self.names, reversed(found), strict=True))


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a path: a fixed key, a fixed position, or every key that fits a pattern."""

    key: str | None = None
    index: int | None = None
    pattern: _Pattern | None = None  # None together with key None: all


@dataclass(frozen=True, slots=True)
class Path:
    """A fixed way into a JSON value."""

    from_root: bool
    steps: tuple[_Step, ...]

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> Path:
        from_root, steps = _parse_steps(text)
        if any(step.key is None and step.index is None for step in steps):
            raise ValueError(f"{text!r}: captures and * belong in `each`")
        return cls(from_root, steps)

    def find(self, root: Any, element: Any) -> Any:
        """The value there, or MISSING."""
        node = root if self.from_root else element
        for step in self.steps:
            node = _go(node, step)
            if node is MISSING:
                return MISSING
        return node


@dataclass(frozen=True, slots=True)
class Each:
    """The way to the elements of a message, each with what was captured on the way."""

    steps: tuple[_Step, ...]
    names: frozenset[str]

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Each:
        _from_root, steps = _parse_steps(text)
        found = [name for step in steps if step.pattern for name in step.pattern.names]
        if len(set(found)) < len(found):
            raise ValueError(f"{text!r}: a name is captured twice")
        return cls(steps, frozenset(found))

    def elements(self, root: Any) -> Iterator[tuple[dict[str, str], Any]]:
        """Captures and value of each element, in the message's order."""
        return _walk(root, self.steps, {})


@dataclass(frozen=True, slots=True)
class Template:
    """Text with captures and with texts found by a path."""

    _parts: tuple[str | Path, ...]
    _is_name: tuple[bool, ...]
    names: frozenset[str]
    paths: tuple[Path, ...]

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> Template:
        parts: list[str | Path] = []
        is_name: list[bool] = []
        position = 0
        for found in _PART.finditer(text):
            if found.start() != position:
                break
            position = found.end()
            inner = found[1]
            if inner is None:
                parts.append(found[2])
            elif inner[:1] in "$@" and inner:
                parts.append(Path.parse(inner))
            elif re.fullmatch(_NAME, inner):
                parts.append(inner)
            else:
                raise ValueError(f"{text!r}: {{{inner}}} is neither a name nor a path")
            is_name.append(inner is not None and isinstance(parts[-1], str))
        if position != len(text):
            raise ValueError(f"{text!r}: braces do not match")
        names = frozenset(
            p for p, n in zip(parts, is_name, strict=True) if n and isinstance(p, str)
        )
        paths = tuple(part for part in parts if isinstance(part, Path))
        return cls(tuple(parts), tuple(is_name), names, paths)

    def fill(self, captures: Mapping[str, str], root: Any, element: Any) -> str | None:
        """The text, or None when a part is missing or is no short text."""
        out = []
        for part, is_name in zip(self._parts, self._is_name, strict=True):
            if is_name:
                capture = captures[part]  # type: ignore[index]
                if len(capture) > _KEY_SIZE_MAX:  # a topic's level: the registry forgets no name
                    return None
                out.append(capture)
            elif isinstance(part, str):
                out.append(part)
            else:
                found = part.find(root, element)
                if isinstance(found, bool) or not isinstance(found, str | int):
                    return None
                if isinstance(found, str) and len(found) > _KEY_SIZE_MAX:
                    return None
                out.append(str(found))
        text = "".join(out)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # JSON can spell half a surrogate pair; nothing else can
                return None
        return text


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value, a time or a quality comes from."""

    path: Path | None = None
    capture: str = ""

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Source:
        if text == "received":
            return cls()
        capture = _CAPTURE.fullmatch(text)
        return cls(capture=capture[1]) if capture else cls(path=Path.parse(text))

    @property
    def is_received(self) -> bool:
        return self.path is None and not self.capture

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.capture} if self.capture else ())

    def find(self, captures: Mapping[str, str], root: Any, element: Any) -> Any:
        if self.path is not None:
            return self.path.find(root, element)
        return captures[self.capture] if self.capture else MISSING


def _parse_steps(text: str) -> tuple[bool, tuple[_Step, ...]]:
    rest = text
    from_root = rest.startswith("$")
    if rest[:1] in ("$", "@"):
        rest = rest[1:]
        if rest and rest[0] not in ".[":
            raise ValueError(f"{text!r}: a dot or a bracket was expected after {text[0]}")
    elif not rest:
        raise ValueError("a path was expected")
    steps: list[_Step] = []
    position = 0
    while position < len(rest):
        found = _STEP.match(rest, position)
        if found is None or (steps and rest[position] not in ".["):
            raise ValueError(f"{text!r}: not a path from character {position + 1} on")
        steps.append(_step(found))
        position = found.end()
    if len(steps) > _STEPS_MAX:
        raise ValueError(f"{text!r}: more than {_STEPS_MAX} steps")
    return from_root, tuple(steps)


def _step(found: re.Match[str]) -> _Step:
    if found["index"] is not None:
        return _Step(index=int(found["index"]))
    if found["quoted"] is not None:
        return _Step(key=found["quoted"])
    if found["star"]:
        return _Step()
    key = found["key"]
    captures = _CAPTURE.findall(key)
    if not captures:
        return _Step(key=key)
    if len(captures) > _CAPTURES_MAX or "}{" in key:
        raise ValueError(f"{key!r}: at most {_CAPTURES_MAX} captures, with text between them")
    if len(set(captures)) < len(captures):
        raise ValueError(f"{key!r}: a name is captured twice")
    literals, position = [], 0
    for capture in _CAPTURE.finditer(key):
        literals.append(key[position : capture.start()])
        position = capture.end()
    return _Step(pattern=_Pattern((*literals, key[position:]), tuple(captures)))


def _go(node: Any, step: _Step) -> Any:
    if step.key is not None:
        return node.get(step.key, MISSING) if isinstance(node, dict) else MISSING
    assert step.index is not None
    if not isinstance(node, list) or not -len(node) <= step.index < len(node):
        return MISSING
    return node[step.index]


def _walk(
    node: Any, steps: tuple[_Step, ...], captures: dict[str, str]
) -> Iterator[tuple[dict[str, str], Any]]:
    if not steps:
        yield captures, node
        return
    step, rest = steps[0], steps[1:]
    if step.key is not None or step.index is not None:
        found = _go(node, step)
        if found is not MISSING:
            yield from _walk(found, rest, captures)
        return
    for key, child in _children(node):
        held = captures
        if step.pattern is not None:
            match = step.pattern.match(key) if len(key) <= _KEY_SIZE_MAX else None
            if match is None:
                continue
            held = {**captures, **match}
        if rest:
            yield from _walk(child, rest, held)
        else:
            yield held, child


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield str(position), child
