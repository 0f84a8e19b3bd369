"""What the log says of alarms: a line for each, and in a flood no more than somebody can read."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from gateway.model.rule import Priority
from gateway.runtime.service import LOGGED_MAX, log_alarms
from gateway.testing.alarms import make_event


@pytest.mark.parametrize(
    ("count", "critical_at", "lines", "left_out"),
    [
        (3, None, 3, None),
        (LOGGED_MAX, None, LOGGED_MAX, None),
        (LOGGED_MAX + 5, None, LOGGED_MAX + 1, 5),
        (LOGGED_MAX + 5, LOGGED_MAX + 2, LOGGED_MAX + 2, 4),  # the critical one is never left out
    ],
)
def test_a_flood_is_a_few_lines_and_the_critical_ones(
    caplog, count, critical_at, lines, left_out
) -> None:
    events = [make_event(n, key=f"p{n}:r", seq=1) for n in range(count)]
    if critical_at is not None:
        event = events[critical_at]
        alarm = replace(event.alarm, priority=Priority.CRITICAL)
        events[critical_at] = replace(event, alarm=alarm)
    quiet = replace(make_event(900, key="quiet:r", seq=1), annunciate=False)
    with caplog.at_level(logging.WARNING):
        log_alarms([quiet, *events])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == lines
    assert not any("quiet" in line for line in said)
    if critical_at is not None:
        assert any(f"P1 p{critical_at}:r" in line for line in said)
    if left_out is not None:
        assert f"and {left_out} more at once" in said[-1]
