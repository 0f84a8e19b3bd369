"""What every scenario asks at its end: the whole promise, from outside evidence."""

from __future__ import annotations

import math
from collections import Counter

from gateway.testing.faults import evidence
from gateway.testing.faults.rig import Rig
from gateway.testing.faults.scenario import Run

LATENCY_P99_MS = 1000.0  # F19: even with a fifth of a CPU
TOLD_S = 10.0  # F8: from recovery until the subscriber's state equals the journal's
DRAIN_S = 60.0


async def check_all(run: Run, rig: Rig, *, store: bool = True) -> None:
    """Stop the load, let everything settle, stop the gateway; then nothing may be missing."""
    found = run.found
    await rig.feeder.stop()
    found.require(bool(rig.feeder.acknowledged), "nothing was sent: this proved nothing")
    found.require(await rig.drained(run.limit(DRAIN_S)), "not everything drained in time")
    if rig.plan.told:
        took_s = await rig.told_within(run.limit(TOLD_S))
        found.require(took_s is not None, f"the far subscriber lags {run.limit(TOLD_S):g} s")
    await check_journal(run, rig)
    if rig.plan.told:
        found.none_of(evidence.told_faults(rig.far, await rig.records())[:3], "told")
    if store:
        await rig.stop()
        check_store(run, rig, await rig.stored())


def check_store(run: Run, rig: Rig, held: Counter[tuple[str, int, float]]) -> None:
    """What the feeder was promised is there, once."""
    wanted = rig.feeder.expected
    run.found.none_of(evidence.store_faults(wanted, held), "store")
    lost = sum(sample not in held for sample in wanted)
    twice = sum(count > 1 for count in held.values())
    run.found.figure(f"{len(wanted)} samples promised, {lost} lost, {twice} stored twice")


async def check_journal(run: Run, rig: Rig, *, gaps: int = 0) -> list[evidence.JournalRecord]:
    """Gseq and seq whole, every jump recorded with its own time, the chain unbroken."""
    records = await rig.records()
    found = run.found
    found.none_of(evidence.journal_faults(records, gaps=gaps)[:5], "journal")
    found.none_of(evidence.edge_faults(rig.feeder.edges, records), "journal")
    if not gaps:
        whole, words = await evidence.journal_is_whole(rig.journal)
        found.require(whole, f"journal verify: {words}")
    found.figure(f"{len(rig.feeder.edges)} transitions, {len(records)} events on record")
    return records


def check_latency(
    run: Run, rig: Rig, since_ns: int = 0, until_ns: int = 2**63, name: str = ""
) -> None:
    """Alarms of samples sent in that span were heard by the near subscriber in time."""
    edges = [edge for edge in rig.feeder.edges if since_ns <= edge.time_ns < until_ns]
    heard = evidence.latencies_ms(rig.near, edges)
    p50, p99 = evidence.percentile(heard, 50), evidence.percentile(heard, 99)
    run.found.figure(f"{name or 'alarm latency'} p50 {p50:.0f} p99 {p99:.0f} ms of {len(heard)}")
    limit_ms = run.limit(LATENCY_P99_MS)
    run.found.require(
        not math.isnan(p99) and p99 <= limit_ms, f"{name} alarm p99 {p99:.0f} ms > {limit_ms:g}"
    )
