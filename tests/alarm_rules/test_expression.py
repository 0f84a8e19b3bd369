"""The formula language: arithmetic, comparisons, windows, and nothing else."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alarm_rules.expression import (
    DEPTH_MAX,
    LENGTH_MAX,
    WINDOWS_MAX,
    ExpressionFault,
    Window,
    parse,
)

NAN = math.nan
VALUES = {"a": np.array([1.0, -4.0]), "b": np.array([2.0, 0.0])}
RAIN = Window("sum_over", "rain", 86400.0)


def check_values(text: str, expected: list[float]) -> None:
    """Two rows of inputs at once, and each row alone gives the same bits."""
    expression = parse(text)
    found = np.broadcast_to(expression.evaluate(VALUES), 2)
    assert np.array_equal(found, expected, equal_nan=True), found
    for row in range(2):
        alone = expression.evaluate({name: column[[row]] for name, column in VALUES.items()})
        assert np.broadcast_to(alone, 1).tobytes() == found[[row]].tobytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [1.0, -4.0]),
        ("1.5e1", [15.0, 15.0]),
        (".5", [0.5, 0.5]),
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
        ("a ** 2", [1.0, 16.0]),
        ("-a ** 2", [-1.0, -16.0]),
        ("2 ** -b", [0.25, 1.0]),
        ("2 ** 3 ** 2", [512.0, 512.0]),
        ("(-a) ** 2 * 3", [3.0, 48.0]),
        ("pow(a, 3)", [1.0, -64.0]),
        ("clip(a, 0, 0.5)", [0.5, 0.0]),
        ("where(a > 0, a, b)", [1.0, 0.0]),
        ("exp(0) + ln(1) + log10(100) + floor(2.7)", [5.0, 5.0]),
        ("sin(0) + cos(0) + tan(radians(0))", [1.0, 1.0]),
    ],
)
def test_an_expression_computes_what_it_says(text, expected) -> None:
    check_values(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", [1.0, 1.0]),
        ("a <= -4", [0.0, 1.0]),
        ("a > 1", [0.0, 0.0]),
        ("a >= 1", [1.0, 0.0]),
        ("a == 1", [1.0, 0.0]),
        ("a != 1", [0.0, 1.0]),
        ("a > 0 and b > 1", [1.0, 0.0]),
        ("a > 0 or b == 0", [1.0, 1.0]),
        ("not a > 0", [0.0, 1.0]),
        ("not a > 0 and b == 0", [0.0, 1.0]),
        ("1 + a > b + 0", [0.0, 0.0]),
        ("a > 0 or b > 0 and 1 > 2", [1.0, 0.0]),
        ("(a > 0) + (b > 0)", [2.0, 0.0]),
        ("where(a > 0 and b > 0, 1, where(b == 0, 2, 3))", [1.0, 2.0]),
    ],
)
def test_truth_is_one_or_zero_and_binds_as_it_is_read(text, expected) -> None:
    check_values(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a / b", [0.5, NAN]),
        ("min(1 / b, 5)", [0.5, NAN]),
        ("1 / (1 / b)", [2.0, NAN]),
        ("sqrt(a)", [1.0, NAN]),
        ("1e308 * 10 * a", [NAN, NAN]),
        ("ln(b)", [np.log(2.0), NAN]),
        ("(0 - 8) ** 0.5 * a", [NAN, NAN]),
        ("sqrt(a) > 0", [1.0, NAN]),
        ("not sqrt(a)", [0.0, NAN]),
        ("b == 0 or sqrt(a) > 0", [1.0, NAN]),
        ("where(sqrt(a) > 0, 1, 2)", [1.0, NAN]),
        ("where(b > 0, a / b, 7)", [0.5, 7.0]),
        ("clip(a, 2, 1)", [NAN, NAN]),
    ],
)
def test_what_has_no_answer_stays_without_one_unless_where_drops_it(text, expected) -> None:
    check_values(text, expected)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "a number, a name .*not the end at character 1"),
        ("a +", "a number, a name .*at character 4"),
        ("a b", "an operator, not 'b' at character 3"),
        ("(a", r"'\)', not the end at character 3"),
        ("a)", "an operator, not '\\)' at character 2"),
        ("1 + exec(a)", "no function 'exec'.*at character 5"),
        ("a.b", "'\\.' has no meaning here, at character 2"),
        ("__import__('os')", "no meaning here, at character 12"),
        ("min(a)", "min takes 2 to 16 arguments, not 1, at character 1"),
        ("2 + abs(a, b)", "abs takes 1 arguments, not 2, at character 5"),
        ("where(a, b)", "where takes 3"),
        ("min + 1", "'\\(' behind the function min, not '\\+' at character 5"),
        ("a; b", "';' has no meaning here, at character 2"),
        ("a = b", "'=' has no meaning"),
        ("a < b < 1", "'and' between two comparisons, not '<' at character 7"),
        ("1 + not a", "a number, a name .*not 'not' at character 5"),
        ("and", "a number, a name"),
        ("2 * 1e999", "1e999 is larger than a number can be, at character 5"),
        ("a[0]", "'\\[' has no meaning"),
        ("lambda: 1", "':' has no meaning"),
        ("1 " * LENGTH_MAX, f"at most {LENGTH_MAX} characters, not {2 * LENGTH_MAX}"),
        ("(" * (DEPTH_MAX + 2) + "a", f"deeper than {DEPTH_MAX} at character {DEPTH_MAX + 2}"),
        ("-" * (DEPTH_MAX + 2) + "a", "deeper"),
        ("not " * (DEPTH_MAX + 2) + "a", "deeper"),
        ("2" + "**2" * (DEPTH_MAX + 2), "deeper"),
        ("abs(" * (DEPTH_MAX + 2) + "a", "deeper"),
        ("sum_over(a)", "', seconds' behind the input of sum_over, not '\\)' at character 11"),
        ("sum_over(a + b, 5)", "', seconds' behind the input.*at character 12"),
        ("sum_over(2, 5)", "the name of an input in sum_over, not '2' at character 10"),
        ("sum_over(min, 5)", "the name of an input"),
        ("sum_over(a, b)", "a plain number, not 'b' at character 13"),
        ("sum_over(a, 0)", "a window of 0.001 s to 31622400 s, not 0, at character 13"),
        ("sum_over(a, 4e7)", "not 4e\\+07, at character 13"),
        ("sum_over(a, 5, 6)", "'\\)', not ','"),
        ("mean_over", "'\\(' behind the function mean_over"),
        (
            " + ".join(f"sum_over(a, {n + 1})" for n in range(WINDOWS_MAX + 1)),
            f"more than {WINDOWS_MAX} windows at character 137",
        ),
    ],
)
def test_what_is_no_formula_is_refused_with_the_place(text, word) -> None:
    with pytest.raises(ExpressionFault, match=word):
        parse(text)


def test_the_deepest_and_longest_formula_allowed_is_taken() -> None:
    assert parse("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX).names == ("a",)
    assert len(parse("a" + "+a" * (LENGTH_MAX // 2 - 1)).steps) == LENGTH_MAX - 1


def test_windows_and_names_are_told_apart_and_each_window_stands_once() -> None:
    found = parse("sum_over(rain, 86400) + level - max_over(level, 60) / sum_over(rain, 8.64e4)")
    assert found.names == ("rain", "level")
    assert found.direct == {"level"}
    assert found.windows == (RAIN, Window("max_over", "level", 60.0))


def test_the_value_of_a_window_is_handed_over_by_the_one_who_remembers() -> None:
    assert parse("sum_over(rain, 86400) / 2").evaluate({RAIN: np.array([50.0])}).tolist() == [25.0]


@given(st.text(alphabet="ab12+-*/(),. e<>=not", max_size=30))
def test_no_text_makes_the_parser_raise_anything_else(text) -> None:
    with contextlib.suppress(ExpressionFault, KeyError):
        parse(text).evaluate(dict.fromkeys("abe", VALUES["a"]))


@pytest.mark.parametrize("text", ["a ** 1.7", "pow(a, b)", "exp(a)", "ln(a)", "tan(a)", "a ** 2"])
def test_how_many_rows_are_computed_together_does_not_change_a_bit(text) -> None:
    """numpy computes some functions four or eight at a time and the rest one by one."""
    values = {
        "a": np.random.default_rng(7).uniform(0.1, 9.0, 37),
        "b": np.random.default_rng(8).uniform(-2.0, 2.0, 37),
    }
    expression = parse(text)
    together = expression.evaluate(values)
    for begin, end in ((0, 1), (0, 5), (3, 20), (36, 37), (1, 37)):
        part = {name: column[begin:end].copy() for name, column in values.items()}
        assert expression.evaluate(part).tobytes() == together[begin:end].tobytes(), (begin, end)
