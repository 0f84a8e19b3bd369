"""F1 and F21: the gateway itself is killed, again and again, or meets a second of itself."""

from __future__ import annotations

import asyncio

from gateway.runtime.clock import now_ns
from gateway.runtime.plugins import load_plugins
from gateway.testing.faults import checks, evidence
from gateway.testing.faults.evidence import Link
from gateway.testing.faults.process import cold_start, until
from gateway.testing.faults.rig import NS, Plan, Rig
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.wires import PACKS, Wires

_LIFE_S = (0.005, 0.5)  # after the gateway began to serve
_IN_START_SHARE = 0.15  # of the kills, so many hit it while it starts
_CONNECT_S = 2.0
_COLD_EVERY = 10  # every so many starts it is the whole program from the beginning
EVALUATES_S = 5.0
TEN = 10  # starts: do the last ones take longer than the first


async def kill_minus_nine(run: Run) -> None:
    """F1."""
    cycles = run.pick(3, 500)
    wires = Wires(run.folder, load_plugins(), run.seed)
    plan = Plan(extra=wires.adapters, top=PACKS)
    async with run.rig(plan) as rig:
        await rig.first_start()
        rig.feeder.start()
        wires.start()
        acknowledged: list[tuple[str, int]] = []
        evaluated_s: list[float] = []
        done = 0
        try:
            for number in range(cycles):
                await _one_cycle(run, rig, number, evaluated_s, acknowledged)
                done += 1
                if run.is_time_up:
                    break
                if number % 50 == 49:
                    run.say(f"{number + 1} kills, {len(rig.feeder.acknowledged)} samples")
            await rig.kill()
            await rig.start(cold=True)
            await wires.stop()
        finally:
            await wires.cancel()
        await checks.check_all(run, rig, store=False)
        records = await rig.records()
        await rig.stop()
        held = await rig.stored()
    found = run.found
    checks.check_store(run, rig, held)
    lost = wires.lost(held)
    found.require(not lost, f"{len(lost)} promised over the other wires lost, e.g. {lost[:3]}")
    found.require(len(wires.ledger.promised) > 0, "the other wires promised nothing")
    known = {(record.alarm_key, record.gseq) for record in records if record.transition == "ACK"}
    gone = [ack for ack in acknowledged if ack not in known]
    found.require(not gone, f"{len(gone)} acknowledgements answered and not on record: {gone[:3]}")
    limit_s = run.limit(EVALUATES_S)
    slow = [s for s in evaluated_s if s > limit_s]
    found.require(not slow, f"{len(slow)} starts evaluated later than {limit_s:g} s: {slow[:3]}")
    found.require(bool(evaluated_s), "no start was timed")
    first_s, last_s = (
        evidence.percentile(sorted(part), 50) for part in (evaluated_s[:TEN], evaluated_s[-TEN:])
    )
    evaluated_s.sort()
    p50, slowest = (evidence.percentile(evaluated_s, percent) for percent in (50, 100))
    found.figure(
        f"{done} kills of {cycles}; over the other wires {len(wires.ledger.promised)} promised, "
        f"{len(lost)} lost; {len(acknowledged)} acks, {len(gone)} gone; start to first alarm heard "
        f"p50 {p50:.2f} max {slowest:.2f} s, p50 of the first {TEN} {first_s:.2f}, of the last "
        f"{TEN} {last_s:.2f} s"
    )


async def _one_cycle(
    run: Run, rig: Rig, number: int, evaluated_s: list[float], acknowledged: list[tuple[str, int]]
) -> None:
    """Kill what runs, start again, live for a moment. Every tenth start is cold and timed."""
    await asyncio.sleep(run.rng.uniform(*_LIFE_S))
    await rig.kill()
    cold = number % _COLD_EVERY == 0
    if not cold and run.rng.random() < _IN_START_SHARE:
        await rig.start(ready=False)
        return
    await rig.start(cold=cold)
    if cold:
        took_s = await _first_alarm_s(run, rig)
        if run.found.require(took_s is not None, "a restarted gateway evaluates nothing"):
            assert took_s is not None, "required"
            evaluated_s.append(took_s)
    if number % 4 == 1:
        link = Link(rig.link.path)
        link.open()
        try:
            await until(lambda: link.is_connected, _CONNECT_S)
            ack = await link.acknowledge_one(f"operator{number}")
        finally:
            await link.close()
        if ack is not None:
            acknowledged.append(ack)


async def _first_alarm_s(run: Run, rig: Rig) -> float | None:
    """From the start of the process to the first alarm event it told, as heard outside."""
    seen_to = max(rig.near.events, default=0)

    def heard() -> bool:
        rig.near.read()
        return any(
            gseq > seen_to and event["recorded_time_ns"] >= rig.started_ns
            for gseq, event in rig.near.events.items()
        )

    if not await until(heard, run.limit(2 * EVALUATES_S)):
        return None
    return (now_ns() - rig.started_ns) / NS


async def second_instance(run: Run) -> None:
    """F21: a second one on the same data refuses, also while the first stands still; and the first
    goes on as if nothing had been."""
    async with run.rig(Plan()) as rig:
        await rig.first_start()
        rig.feeder.start()
        first = rig.gateway
        assert first is not None, "started"
        for is_frozen in (False, True):
            await asyncio.sleep(0.5)
            if is_frozen:
                first.freeze()
            log = rig.folder / f"second-{is_frozen}.log"
            second = cold_start(rig.site, log)
            ended = await second.ended(run.limit(30.0))
            run.found.require(ended, f"a second gateway runs (first frozen: {is_frozen})")
            await second.kill()
            words = log.read_text("utf-8", errors="replace").strip().splitlines()
            run.found.require(bool(words), "the second said nothing")
            run.found.figure(f"second said: {words[-1][:90] if words else ''}")
            first.resume()
        run.found.require(first.is_running, "the first ended")
        await asyncio.sleep(0.5)
        await checks.check_all(run, rig)
