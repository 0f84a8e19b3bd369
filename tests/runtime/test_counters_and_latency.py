"""Counts add up by reason; latency is measured from receipt or from when the alarm was due."""

from __future__ import annotations

from gateway.runtime.counters import REASONS_MAX, CounterTable, StatusCell
from gateway.runtime.latency import LatencyMeter


def test_counts_are_kept_by_component_and_reason_and_can_be_summed() -> None:
    table = CounterTable()
    gas, bus = table.component("gas"), table.component("bus")
    gas.count("rejected", reason="checksum")
    gas.count("rejected", 2, reason="length")
    gas.count("accepted", 5)
    bus.count("rejected", reason="checksum")
    assert table.of("gas") == {"accepted": 5, "rejected.checksum": 1, "rejected.length": 2}
    assert table.total("gas", "rejected") == 3
    assert table.total("nobody", "rejected") == 0


def test_the_last_word_of_a_component_stands() -> None:
    status = StatusCell("gas")
    status("listening", "port 1")
    status("faulty")
    assert (status.state, status.detail) == ("faulty", "")


def test_latency_percentiles_are_of_finished_events_only() -> None:
    meter = LatencyMeter()
    assert meter.percentile_ms(50) is None
    for gseq in range(101):
        meter.start(gseq, 0)
    for gseq in range(101):
        meter.stop(gseq, gseq * 1_000_000)
    meter.stop(999, 10**15)  # an event from before a restart: its start is unknown
    assert meter.percentile_ms(50) == 50.0
    assert meter.percentile_ms(99) == 99.0


def test_reasons_made_of_input_are_bounded_and_still_counted() -> None:
    table = CounterTable()
    for number in range(10 * REASONS_MAX):
        table.component("adapter x").count("rejected", reason=f"word {number}")
    table.component("adapter x").count("rejected", reason="word 0")
    assert table.total("adapter x", "rejected") == 10 * REASONS_MAX + 1
    assert len(table.of("adapter x")) == REASONS_MAX + 1
    assert table.of("adapter x")["rejected.word 0"] == 2
