"""Times as devices write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mqtt_json.codec import format_time
from adapters.mqtt_json.times import TimeReader

S = 1_000_000_000
T0 = 1_773_468_000 * S  # 2026-03-14T06:00:00Z

TIMES = [
    ("rfc3339", "", "2026-03-14T06:00:00Z", T0),
    ("rfc3339", "", "2026-03-14T06:00:00.000Z", T0),
    ("rfc3339", "", "2026-03-14t06:00:00.000000001z", T0 + 1),
    ("rfc3339", "", "2026-03-14T06:00:00.1234567899Z", T0 + 123_456_789),
    ("rfc3339", "", "2026-03-14 14:00:00+08:00", T0),
    ("rfc3339", "", "2026-03-14T14:00:00+0800", T0),
    ("rfc3339", "", "2026-03-13T22:30:00-07:30", T0),
    ("rfc3339", "+08:00", "2026-03-14T14:00:00", T0),
    ("rfc3339", "", "2026-03-14T14:00:00", None),  # no zone anywhere
    ("rfc3339", "", "2016-12-31T23:59:60Z", 1_483_228_800 * S),
    ("rfc3339", "", "2026-02-29T00:00:00Z", None),
    ("rfc3339", "", "2026-03-14T24:00:00Z", None),
    ("rfc3339", "", "1969-12-31T23:59:59Z", None),
    ("rfc3339", "", "9999-12-31T23:59:59Z", None),  # beyond int64 nanoseconds
    ("rfc3339", "", "٢٠٢٦-03-14T06:00:00Z", None),
    ("rfc3339", "", "", None),
    ("rfc3339", "", 1_773_468_000, None),
    ("rfc3339", "", None, None),
    ("unix_s", "", 1_773_468_000, T0),
    ("unix_s", "", 1_773_468_000.25, T0 + S // 4),
    ("unix_s", "", "1773468000", T0),
    ("unix_s", "", True, None),
    ("unix_s", "", -1, None),
    ("unix_s", "", float("inf"), None),
    ("unix_s", "", float("nan"), None),
    ("unix_s", "", 10**30, None),
    ("unix_s", "", {}, None),
    ("unix_ms", "", 1_773_468_000_123, T0 + 123_000_000),
    ("unix_ms", "", "1773468000123", T0 + 123_000_000),
    ("unix_ms", "", "12 h", None),
    ("%Y%m%d%H%M%S", "+08:00", "20260314140000", T0),
    ("%Y-%m-%d %H:%M:%S.%f %z", "", "2026-03-14 14:00:00.500000 +0800", T0 + S // 2),
    ("%Y%m%d%H%M%S", "Z", "2026031414", None),
    ("%Y%m%d%H%M%S", "Z", "20261314140000", None),
]


@pytest.mark.parametrize(("time_format", "zone", "raw", "expected"), TIMES)
def test_a_time_is_read_exactly_or_not_at_all(time_format, zone, raw, expected):
    assert TimeReader(time_format, zone).read(raw) == expected


@given(st.integers(0, 2**63 - 1))
def test_a_written_time_reads_back_to_the_nanosecond(time_ns):
    assert TimeReader("rfc3339").read(format_time(time_ns)) == time_ns


@given(st.integers(0, 4_102_444_800))
def test_the_written_second_is_what_the_calendar_of_python_says(seconds):
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert format_time(seconds * S) == expected


@given(
    st.sampled_from(["rfc3339", "unix_s", "unix_ms", "%Y%m%d", "%c"]),
    st.none() | st.text(max_size=70) | st.floats() | st.integers(),
)
def test_no_text_or_number_makes_the_reader_raise(time_format, raw):
    read = TimeReader(time_format, "+08:00").read(raw)
    assert read is None or 0 <= read < 2**63
