"""Formulas over named inputs: text to postfix, postfix to arrays. No `eval`, no attributes.

    binds:  or < and < not < comparison < + - < * / < sign < **

    where(level > 0, (beach_top - level) / slope, 0)
    alpha * (1.5 * q1 / 10 + 2 * q2 / 50)
    sum_over(rain, 86400)            the increments of the last day
    change_over(counter, 3600)       newest minus the value an hour ago

Truth is a number: comparisons and `not` give 1 or 0, and what is not 0 counts as true.

**What has no answer is no number, and stays so**: division by zero, the root of a negative number
and overflow give NaN at that step, so that no `min` makes a number of it again. Comparing with NaN
is NaN, not false. Only `where` drops the branch it does not choose.

A window function takes an input's name and a span in seconds. What it remembers and how is not
known here: whoever evaluates hands its values over by `Window`, beside those of the names.

Owns: the grammar and its limits (length, depth, numbers, windows). Every fault names the character,
counted from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LENGTH_MAX = 500
"""Characters: far more than a formula somebody checks by eye."""
DEPTH_MAX = 40
"""Nested parentheses, signs and powers: keeps the parser's own stack small."""
ARGUMENTS_MAX = 16
WINDOWS_MAX = 8
"""Windows of one formula: each costs memory for every group."""
WINDOW_MAX_S = 366 * 86_400
"""A window may be a year long."""
WINDOW_FUNCTIONS = (
    "sum_over",
    "mean_over",
    "min_over",
    "max_over",
    "change_over",
    "increase_over",
)

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>\*\*|<=|>=|==|!=|[-+*/(),<>]))"
)
Array = NDArray[np.float64]


class Window(NamedTuple):
    """The last `seconds` of an input."""

    function: str
    name: str
    seconds: float


class ExpressionFault(ValueError):
    """The text is no expression; says where and what was expected."""


# ---------------------------------------------------------------------- arithmetic


def _truth(found: NDArray[np.bool_], *operands: Any) -> Any:
    """1 or 0, NaN where an operand is."""
    unknown = np.isnan(operands[0])
    for operand in operands[1:]:
        unknown = unknown | np.isnan(operand)
    return np.where(unknown, np.nan, found.astype(np.float64))


def _compared(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: _truth(test(left, right), left, right)


def _both(left: Any, right: Any) -> Any:
    return _truth((left != 0) & (right != 0), left, right)


def _either(left: Any, right: Any) -> Any:
    return _truth((left != 0) | (right != 0), left, right)


def _not(operand: Any) -> Any:
    return _truth(operand == 0, operand)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return np.where(np.isnan(condition), np.nan, np.where(condition != 0, yes, no))


def _clip(value: Any, low: Any, high: Any) -> Any:
    """NaN where there is nothing between low and high."""
    return np.where(low > high, np.nan, np.minimum(np.maximum(value, low), high))


def _power(base: Any, exponent: Any) -> Any:
    """One loop for all: numpy has others for a constant exponent, whose last bit may differ."""
    base, exponent = np.broadcast_arrays(base, exponent)
    return np.power(np.ascontiguousarray(base), np.ascontiguousarray(exponent))


_BINARY: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {  # binding strength, function
    "or": (1, _either),
    "and": (2, _both),
    "<": (4, _compared(np.less)),
    "<=": (4, _compared(np.less_equal)),
    ">": (4, _compared(np.greater)),
    ">=": (4, _compared(np.greater_equal)),
    "==": (4, _compared(np.equal)),
    "!=": (4, _compared(np.not_equal)),
    "+": (5, np.add),
    "-": (5, np.subtract),
    "*": (6, np.multiply),
    "/": (6, np.divide),
    "**": (8, _power),
}
_NOT, _COMPARISON, _SIGN, _POWER = 3, 4, 7, 8
_UNARY: dict[str, Callable[[Any], Any]] = {"negate": np.negative, "not": _not}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {  # function, fewest, most arguments
    "abs": (np.abs, 1, 1),
    "sqrt": (np.sqrt, 1, 1),
    "exp": (np.exp, 1, 1),
    "ln": (np.log, 1, 1),
    "log10": (np.log10, 1, 1),
    "sin": (np.sin, 1, 1),  # of radians
    "cos": (np.cos, 1, 1),
    "tan": (np.tan, 1, 1),
    "radians": (np.radians, 1, 1),
    "floor": (np.floor, 1, 1),
    "pow": (_power, 2, 2),
    "min": (np.minimum, 2, ARGUMENTS_MAX),
    "max": (np.maximum, 2, ARGUMENTS_MAX),
    "clip": (_clip, 3, 3),
    "where": (_where, 3, 3),
}
_WORDS = ("and", "or", "not")
RESERVED = frozenset((*_WORDS, *_FUNCTIONS, *WINDOW_FUNCTIONS))
"""Names no input may have."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Postfix steps: ("number", x), ("name", text), ("window", Window), ("negate", 1), ("+", 2),
    ("max", count)."""

    text: str
    steps: tuple[tuple[str, Any], ...]
    names: tuple[str, ...]  # every input, in order of first use
    direct: frozenset[str]  # inputs whose newest value is used, not only a window of theirs
    windows: tuple[Window, ...]  # each once, in order of first use

    def evaluate(self, values: Mapping[str | Window, Array]) -> Array:
        """Element by element; NaN where the arithmetic has no answer."""
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step, operand in self.steps:
                if step == "number":
                    stack.append(np.float64(operand))
                elif step in ("name", "window"):
                    stack.append(values[operand])
                else:
                    arguments = [stack.pop() for _ in range(operand)][::-1]
                    found = _apply(step, arguments)
                    stack.append(np.where(np.isfinite(found), found, np.nan))
        (result,) = stack
        return np.asarray(result, dtype=np.float64)


def _apply(name: str, arguments: Sequence[Any]) -> Any:
    if name in _UNARY:
        return _UNARY[name](arguments[0])
    if name in _BINARY:
        return _BINARY[name][1](*arguments)
    function, fewest, most = _FUNCTIONS[name]
    if fewest == most:
        return function(*arguments)
    result = arguments[0]
    for argument in arguments[1:]:
        result = function(result, argument)
    return result


# ---------------------------------------------------------------------- grammar


def parse(text: str) -> Expression:
    """Raises ExpressionFault."""
    if len(text) > LENGTH_MAX:
        raise ExpressionFault(f"at most {LENGTH_MAX} characters, not {len(text)}")
    parser = _Parser(text)
    parser.expression(0, 0)
    if parser.kind != "end":
        raise parser.expected("an operator")
    steps = tuple(parser.steps)
    direct = [operand for step, operand in steps if step == "name"]
    windows = dict.fromkeys(operand for step, operand in steps if step == "window")
    names = dict.fromkeys(
        operand.name if step == "window" else operand
        for step, operand in steps
        if step in ("name", "window")
    )
    return Expression(text, steps, tuple(names), frozenset(direct), tuple(windows))


class _Parser:
    """Precedence climbing with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._start = 0  # of the token
        self.steps: list[tuple[str, Any]] = []
        self.kind = self.token = ""
        self._next()

    def fault(self, text: str, start: int | None = None) -> ExpressionFault:
        place = (self._start if start is None else start) + 1
        return ExpressionFault(f"{text} at character {place}")

    def expected(self, what: str) -> ExpressionFault:
        found = repr(self.token) if self.token else "the end"
        return self.fault(f"expected {what}, not {found}")

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            rest = self._text[self._at :].lstrip()
            self._start = len(self._text) - len(rest)
            if rest:
                raise self.fault(f"{rest[0]!r} has no meaning here,")
            self.kind, self.token = "end", ""
            return
        self._at = match.end()
        self.kind = str(match.lastgroup)
        self.token = match.group(self.kind)
        self._start = match.start(self.kind)

    def _takes(self, *tokens: str) -> str:
        if self.token in tokens and self.kind != "end":
            taken = self.token
            self._next()
            return taken
        return ""

    def _deeper(self, depth: int) -> int:
        if depth >= DEPTH_MAX:
            raise self.fault(f"nested deeper than {DEPTH_MAX}")
        return depth + 1

    def expression(self, floor: int, depth: int) -> None:
        """An operand, and every operator behind it that binds at least as strongly as `floor`."""
        if floor <= _NOT and self._takes("not"):
            self.expression(_NOT, self._deeper(depth))
            self.steps.append(("not", 1))
        elif sign := self._takes("-", "+"):
            self.expression(_SIGN, self._deeper(depth))
            if sign == "-":
                self.steps.append(("negate", 1))
        else:
            self._operand(depth)
        while self.kind != "end" and self.token in _BINARY:
            strength = _BINARY[self.token][0]
            if strength < floor:
                return
            self._operator(strength, depth)

    def _operator(self, strength: int, depth: int) -> None:
        mark = self.token
        self._next()
        if strength == _POWER:  # to the right first, and a sign may follow: 2 ** -x ** 2
            self.expression(_SIGN, self._deeper(depth))
        else:
            self.expression(strength + 1, depth)
        self.steps.append((mark, 2))
        chained = strength == _COMPARISON and _BINARY.get(self.token, (0,))[0] == _COMPARISON
        if chained:
            raise self.expected("'and' between two comparisons")

    def _operand(self, depth: int) -> None:
        if self._takes("("):
            self.expression(0, self._deeper(depth))
            self._close()
        elif self.kind == "number":
            self.steps.append(("number", self._number()))
        elif self.kind == "name" and self.token not in _WORDS:
            self._named(depth)
        else:
            raise self.expected("a number, a name or a parenthesis")

    def _number(self) -> float:
        value = float(self.token)
        if not math.isfinite(value):
            raise self.fault(f"{self.token} is larger than a number can be,")
        self._next()
        return value

    def _named(self, depth: int) -> None:
        name, start = self.token, self._start
        self._next()
        if not self._takes("("):
            if name in RESERVED:
                raise self.expected(f"'(' behind the function {name}")
            self.steps.append(("name", name))
        elif name in WINDOW_FUNCTIONS:
            self._window(name, start)
        elif name in _FUNCTIONS:
            self._call(name, start, depth)
        else:
            known = ", ".join((*_FUNCTIONS, *WINDOW_FUNCTIONS))
            raise self.fault(f"no function {name!r}; there are {known};", start)

    def _call(self, name: str, start: int, depth: int) -> None:
        count, depth = 1, self._deeper(depth)
        self.expression(0, depth)
        while self._takes(","):
            self.expression(0, depth)
            count += 1
        self._close()
        _, fewest, most = _FUNCTIONS[name]
        if not fewest <= count <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise self.fault(f"{name} takes {wanted} arguments, not {count},", start)
        self.steps.append((name, count))

    def _window(self, function: str, start: int) -> None:
        if self.kind != "name" or self.token in RESERVED:
            raise self.expected(f"the name of an input in {function}")
        name = self.token
        self._next()
        if not self._takes(","):
            raise self.expected(f"', seconds' behind the input of {function}")
        if self.kind != "number":
            raise self.expected("a span in seconds, as a plain number")
        at = self._start
        seconds = self._number()
        if not 1e-3 <= seconds <= WINDOW_MAX_S:
            raise self.fault(f"a window of 0.001 s to {WINDOW_MAX_S} s, not {seconds:g},", at)
        self._close()
        self.steps.append(("window", Window(function, name, seconds)))
        if len({operand for step, operand in self.steps if step == "window"}) > WINDOWS_MAX:
            raise self.fault(f"more than {WINDOWS_MAX} windows", start)

    def _close(self) -> None:
        if not self._takes(")"):
            raise self.expected("')'")
