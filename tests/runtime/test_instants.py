"""Times as people write them are read exactly, or refused with what is wrong about them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runtime.instants import TIME_MAX, TIME_MIN, rfc3339, span, time_ns_of

S = 1_000_000_000
NEW_YEAR = 1_767_225_600 * S  # 2026-01-01T00:00:00Z

READ = [
    ("2026-01-01T00:00:00Z", NEW_YEAR),
    ("2026-01-01t00:00:00z", NEW_YEAR),
    ("2026-01-01 00:00:00Z", NEW_YEAR),
    (" 2026-01-01T08:00:00+08:00 ", NEW_YEAR),
    ("2025-12-31T14:30:00-09:30", NEW_YEAR),
    ("2026-01-01T00:00:00.5Z", NEW_YEAR + S // 2),
    ("2026-01-01T00:00:00.000000001Z", NEW_YEAR + 1),
    ("2026-01-01T00:00:00.0000000019Z", NEW_YEAR + 1),  # cut off, not rounded
    ("2025-12-31T23:59:60Z", NEW_YEAR),  # a leap second, as POSIX counts
    ("1969-12-31T23:59:59Z", -S),
    ("1767225600000000000", NEW_YEAR),
    ("-1", -1),
]
REFUSED = [
    "",
    "2026-01-01",
    "2026-01-01T00:00:00",  # no offset: nobody knows when that was
    "2026-13-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:61Z",
    "2026-01-01T00:00:00+08:60",
    "２026-01-01T00:00:00Z",
    "1.7e18",
    "1_000",
    "--1",
    "9" * 30,
    "yesterday",
]


@pytest.mark.parametrize(("text", "time_ns"), READ)
def test_a_time_is_read_to_the_nanosecond(text: str, time_ns: int) -> None:
    assert time_ns_of(text) == time_ns


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_instant_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        time_ns_of(text)


@given(st.integers(TIME_MIN + 1, TIME_MAX - 1))
def test_writing_and_reading_back_changes_nothing(time_ns: int) -> None:
    assert time_ns_of(rfc3339(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.25 s"), (59, "59 s"), (60, "1 min"), (90, "1 min 30 s"), (3660, "1 h 1 min"),
     (90_000, "1 d 1 h"), (-60, "-1 min")],
)  # fmt: skip
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words
