"""Due, got and the one reason: the cases a person would ask about."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.ledger.settle import (
    LONG_AGO,
    Facts,
    Reason,
    due_of,
    last_touched,
    online_rate,
    settle,
)

DUE = [  # interval in seconds, due in a minute, minutes before it that count
    (0.0, 0, 0),
    (float("nan"), 0, 0),
    (0.5, 120, 0),
    (7.0, 8, 0),
    (30.0, 2, 0),
    (45.0, 1, 1),
    (60.0, 1, 1),
    (61.0, 1, 2),
    (86_400.0, 1, 1440),
    (86_401.0, 0, 0),  # less than daily: no matter of minutes
]


@pytest.mark.parametrize(("interval_s", "due", "reach"), DUE)
def test_what_is_due_follows_from_the_interval_alone(interval_s, due, reach) -> None:
    many, back = due_of(np.array([interval_s]))
    assert (int(many[0]), int(back[0])) == (due, reach)


def facts(*, good, due, reach=0, **more) -> Facts:
    """One point."""

    def column(values) -> np.ndarray:
        return np.array(values, np.int64)[:, None]

    size = len(good)
    before = {name: np.array([LONG_AGO]) for name in ("good", "bad", "delayed")}
    return Facts(
        first=100,
        good=column(good),
        bad=column(more.get("bad", [0] * size)),
        delayed=column(more.get("delayed", [0] * size)),
        due=np.full((size, 1), due, np.int32),
        reach=np.full((size, 1), reach, np.int32),
        before=before | more.get("before", {}),
        closed=np.array(more.get("closed", [True] * size)),
        outage={r: last_touched(t, 100, size) for r, t in more.get("outage", {}).items()},
        adapter_outage=last_touched(more.get("adapter", []), 100, size)[:, None],
    )


CASES = [
    ("all there", {"good": [6, 6], "due": 6}, [(6, ""), (6, "")]),
    ("one slipped over the edge", {"good": [5, 7], "due": 6}, [(6, ""), (6, "")]),
    ("two missing", {"good": [4, 6], "due": 6}, [(4, "device_silent"), (6, "")]),
    ("none", {"good": [0], "due": 6}, [(0, "device_silent")]),
    ("every minute, jitter", {"good": [0, 2, 0, 1], "due": 1, "reach": 1}, [(0, "device_silent"), (1, ""), (1, ""), (1, "")]),
    ("seen before the span", {"good": [0, 0], "due": 1, "reach": 1, "before": {"good": np.array([99])}}, [(1, ""), (0, "device_silent")]),
    ("bad", {"good": [0], "bad": [6], "due": 6}, [(0, "bad_quality")]),
    ("filled later", {"good": [0], "delayed": [6], "due": 6}, [(0, "late")]),
    ("we were down, and it was silent", {"good": [0, 0, 0], "due": 6, "outage": {Reason.GATEWAY_DOWN: [(101, 101)]}}, [(0, "device_silent"), (0, "gateway_down"), (0, "device_silent")]),
    ("we were down in its interval", {"good": [0, 0, 0], "due": 1, "reach": 1, "outage": {Reason.GATEWAY_DOWN: [(101, 101)]}}, [(0, "device_silent"), (0, "gateway_down"), (0, "gateway_down")]),
    ("our fault goes first", {"good": [0], "bad": [6], "due": 6, "adapter": [(100, 100)], "outage": {Reason.DISK_DOWN: [(90, 100)]}}, [(0, "disk_down")]),
    ("its connection was down", {"good": [0], "due": 6, "adapter": [(99, 100)]}, [(0, "adapter_down")]),
    ("not over yet", {"good": [3], "due": 6, "closed": [False]}, [(3, "pending")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_gap_has_the_first_reason_that_holds(name, given, expected) -> None:
    found = settle(facts(**given))
    words = [Reason(code).word if code else "" for code in found.reason[:, 0].tolist()]
    assert list(zip(found.got[:, 0].tolist(), words, strict=True)) == expected


def test_no_rate_where_nothing_was_expected_and_pending_counts_on_neither_side() -> None:
    assert online_rate(0, 0, 0) is None
    assert online_rate(0, 3, 3) is None
    assert online_rate(9, 12, 2) == 0.9
