"""The formula language: arithmetic and nothing else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alarm_rules.expression import DEPTH_MAX, LENGTH_MAX, ExpressionFault, parse

VALUES = {"a": np.array([1.0, -4.0]), "b": np.array([2.0, 0.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [1.0, -4.0]),
        ("1.5e1", [15.0, 15.0]),
        ("a + b * 2", [5.0, -4.0]),
        ("(a + b) * 2", [6.0, -8.0]),
        ("a - b - 1", [-2.0, -5.0]),
        ("8 / 4 / 2", [1.0, 1.0]),
        ("-a", [-1.0, 4.0]),
        ("- -+a", [1.0, -4.0]),
        ("2*-b", [-4.0, -0.0]),
        ("abs(a)", [1.0, 4.0]),
        ("max(a, b, 0.5)", [2.0, 0.5]),
        ("min(a,b)", [1.0, -4.0]),
        ("sqrt(b+2)", [2.0, np.sqrt(2.0)]),
    ],
)
def test_an_expression_computes_what_it_says(text, expected) -> None:
    found = np.broadcast_to(parse(text).evaluate(VALUES), 2)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "a number, a name"),
        ("a +", "a number, a name"),
        ("a b", "an operator"),
        ("(a", "'\\)'"),
        ("a)", "an operator"),
        ("exec(a)", "no function"),
        ("a.b", "no meaning"),
        ("__import__('os')", "no meaning"),
        ("min(a)", "2 to 16"),
        ("abs(a, b)", "1 to 1"),
        ("min + 1", "'\\(' behind"),
        ("a ** 2", "a number, a name"),
        ("a; b", "no meaning"),
        ("1 " * LENGTH_MAX, "at most"),
        ("(" * (DEPTH_MAX + 2) + "a", "deeper"),
        ("-" * (DEPTH_MAX + 2) + "a", "deeper"),
    ],
)
def test_what_is_no_arithmetic_is_refused_with_the_place(text, word) -> None:
    with pytest.raises(ExpressionFault, match=word):
        parse(text)


@pytest.mark.parametrize("text", ["a / 0", "sqrt(0 - abs(a) - 1)", "1e308 * 1e308 * a"])
def test_arithmetic_without_an_answer_is_not_finite_and_raises_nothing(text) -> None:
    assert not np.isfinite(parse(text).evaluate(VALUES)).any()


@given(st.text(alphabet="ab12+-*/(),. e", max_size=30))
def test_no_text_makes_the_parser_raise_anything_else(text) -> None:
    with contextlib.suppress(ExpressionFault, KeyError):
        parse(text).evaluate(dict.fromkeys("abe", VALUES["a"]))
