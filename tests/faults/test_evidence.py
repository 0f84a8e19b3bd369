"""The checker's own eyes: each kind of loss is seen, and a whole record is not complained of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from gateway.testing.faults.consoles import frame_faults
from gateway.testing.faults.evidence import (
    JournalRecord,
    edge_faults,
    journal_faults,
    percentile,
    store_faults,
)
from gateway.testing.faults.load import Edge, Sample

KEY = "d0.level:high"
T0 = 1_790_000_000_000_000_000


def record(gseq, transition, occ_no=1, *, annunciate=False, state="UNACK", key=KEY, seq=None):
    return JournalRecord(
        gseq, key, occ_no, gseq if seq is None else seq, transition, T0 + gseq, T0 + gseq,
        annunciate, state, "",
    )  # fmt: skip


WHOLE = [
    record(1, "ACT", annunciate=True),
    record(2, "ACK", state="ACKED"),
    record(3, "RTN", state="NORM"),
    record(4, "ACT", 2, annunciate=True),
    record(5, "RTN", 2, state="RTNUN"),
]


def test_a_whole_record_has_no_faults():
    assert journal_faults(WHOLE) == []
    edges = [Edge(KEY, r.transition, r.time_ns) for r in WHOLE if r.transition != "ACK"]
    assert edge_faults(edges, WHOLE) == []


def test_a_worse_level_calls_again_although_the_first_was_acknowledged():
    worse = [*WHOLE[:2], record(3, "ESC", annunciate=True)]
    assert journal_faults(worse) == []
    again = [*worse, record(4, "ACK"), record(5, "REA", annunciate=True)]
    assert any("called again after ACK, gseq 5" in fault for fault in journal_faults(again))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([*WHOLE[:2], *WHOLE[3:]], "1 missing"),
        ([*WHOLE[:2], replace(WHOLE[2], seq=4)], "seq 4 after 2"),
        ([WHOLE[0], record(2, "ACT", 2)], "raised twice"),
        ([*WHOLE[:2], record(3, "REA", annunciate=True)], "called again after ACK"),
    ],
)
def test_a_gap_a_second_raise_and_a_second_call_are_seen(records, said):
    assert any(said in fault for fault in journal_faults(records))


def test_a_transition_that_is_missing_or_has_another_time_is_seen():
    wanted = [Edge(KEY, "ACT", WHOLE[0].time_ns), Edge(KEY, "RTN", WHOLE[2].time_ns + 1)]
    assert edge_faults(wanted, WHOLE[:3]) == [
        f"1 transitions lost, e.g. {[wanted[1]]}",
        f"1 too many, e.g. {[Edge(KEY, 'RTN', WHOLE[2].time_ns)]}",
    ]


def test_a_sample_that_is_missing_changed_or_stored_twice_is_seen():
    wanted = Counter([Sample("d0.n0", T0, 1.0), Sample("d0.n0", T0 + 1, 2.0)])
    held = Counter({("d0.n0", T0, 1.0): 2, ("d0.n0", T0 + 1, 2.5): 1})
    assert [fault[:14] for fault in store_faults(wanted, held)] == [
        "1 samples lost",
        "1 stored twice",
    ]
    assert store_faults(wanted, Counter(wanted)) == []


def test_a_screen_that_lacks_a_standing_alarm_is_seen():
    frame = {"gseq": 2, "alarms": [{"key": KEY, "seq": 2}]}
    assert frame_faults(frame, WHOLE) == []
    assert frame_faults({"gseq": 2, "alarms": []}, WHOLE)
    assert frame_faults({"gseq": 3, "alarms": [{"key": KEY, "seq": 2}]}, WHOLE)


def test_percentiles_are_nearest_ranks():
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, p) for p in (50, 99, 100)] == [50.0, 99.0, 100.0]
    assert percentile([], 50) != percentile([], 50), "NaN of nothing"
