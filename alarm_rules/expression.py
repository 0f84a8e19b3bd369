"""Arithmetic over named inputs: text to postfix, postfix to arrays. No `eval`, no attributes.

    expression = term { (+|-) term }          "max(pool_level, 0) + 0.5 * wave"
    term       = factor { (*|/) factor }
    factor     = [-|+] factor | number | name | function ( expression {, expression} ) | ( … )

Owns: the grammar and its limits. Division by zero, the root of a negative number and overflow give
a value that is not finite; whoever asked makes bad quality of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH_MAX = 500
"""Characters: far more than a formula somebody checks by eye."""
DEPTH_MAX = 40
"""Nested parentheses and signs: keeps the parser's own stack small."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[-+*/(),]))"
)
Array = NDArray[np.float64]

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {  # function, fewest, most arguments
    "abs": (np.abs, 1, 1),
    "sqrt": (np.sqrt, 1, 1),
    "min": (np.minimum, 2, 16),
    "max": (np.maximum, 2, 16),
}


class ExpressionFault(ValueError):
    """The text is no expression; says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Postfix steps: ("number", x), ("name", text), ("negate", 0), ("+", 2), ("max", count)."""

    text: str
    steps: tuple[tuple[str, Any], ...]
    names: tuple[str, ...]  # in order of first use

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        """Element by element; not finite where the arithmetic has no answer."""
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step, operand in self.steps:
                if step == "number":
                    stack.append(np.float64(operand))
                elif step == "name":
                    stack.append(values[operand])
                elif step == "negate":
                    stack.append(np.negative(stack.pop()))
                elif step in _BINARY:
                    right = stack.pop()
                    stack.append(_BINARY[step](stack.pop(), right))
                else:
                    stack.append(_apply(step, [stack.pop() for _ in range(operand)][::-1]))
        (result,) = stack
        return np.asarray(result, dtype=np.float64)


def _apply(name: str, arguments: Sequence[Any]) -> Any:
    function = _FUNCTIONS[name][0]
    result = arguments[0] if len(arguments) > 1 else function(arguments[0])
    for argument in arguments[1:]:
        result = function(result, argument)
    return result


def parse(text: str) -> Expression:
    """Raises ExpressionFault."""
    if len(text) > LENGTH_MAX:
        raise ExpressionFault(f"at most {LENGTH_MAX} characters")
    parser = _Parser(text)
    parser.expression(0)
    if parser.kind != "end":
        raise parser.fault("an operator")
    names = dict.fromkeys(operand for step, operand in parser.steps if step == "name")
    return Expression(text, tuple(parser.steps), tuple(names))


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.steps: list[tuple[str, Any]] = []
        self.kind = self.token = ""
        self._next()

    def fault(self, expected: str) -> ExpressionFault:
        found = repr(self.token) if self.token else "the end"
        return ExpressionFault(f"expected {expected} before {found} at character {self._at}")

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            rest = self._text[self._at :].strip()
            if rest:
                raise ExpressionFault(f"{rest[0]!r} at character {self._at} has no meaning here")
            self.kind, self.token = "end", ""
            return
        self._at = match.end()
        self.kind = str(match.lastgroup)
        self.token = match.group(self.kind)

    def _takes(self, *marks: str) -> str:
        if self.kind == "mark" and self.token in marks:
            taken = self.token
            self._next()
            return taken
        return ""

    def expression(self, depth: int) -> None:
        self._chain(("+", "-"), self._term, depth)

    def _term(self, depth: int) -> None:
        self._chain(("*", "/"), self._factor, depth)

    def _chain(self, marks: tuple[str, ...], part: Callable[[int], None], depth: int) -> None:
        part(depth)
        while mark := self._takes(*marks):
            part(depth)
            self.steps.append((mark, 2))

    def _factor(self, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise ExpressionFault(f"nested deeper than {DEPTH_MAX}")
        if sign := self._takes("-", "+"):
            self._factor(depth + 1)
            if sign == "-":
                self.steps.append(("negate", 1))
        elif self._takes("("):
            self.expression(depth + 1)
            self._close()
        elif self.kind == "number":
            self.steps.append(("number", float(self.token)))
            self._next()
        elif self.kind == "name":
            self._named(depth)
        else:
            raise self.fault("a number, a name or a parenthesis")

    def _named(self, depth: int) -> None:
        name = self.token
        self._next()
        if not self._takes("("):
            if name in _FUNCTIONS:
                raise self.fault(f"'(' behind the function {name}")
            self.steps.append(("name", name))
            return
        if name not in _FUNCTIONS:
            raise ExpressionFault(f"no function {name!r}; there are {', '.join(_FUNCTIONS)}")
        count = 1
        self.expression(depth + 1)
        while self._takes(","):
            self.expression(depth + 1)
            count += 1
        self._close()
        _, fewest, most = _FUNCTIONS[name]
        if not fewest <= count <= most:
            raise ExpressionFault(f"{name} takes {fewest} to {most} arguments, not {count}")
        self.steps.append((name, count))

    def _close(self) -> None:
        if not self._takes(")"):
            raise self.fault("')'")
