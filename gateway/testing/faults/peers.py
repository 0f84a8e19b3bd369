"""F8 and F9: broker or database killed, frozen, emptied, or spoken to through a bad wire.

In every case the near subscriber, whose broker is well, must go on hearing alarms as before; when
the fault ends, the far subscriber's state must equal the journal within ten seconds, and the store
must hold exactly what was promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from gateway.runtime.clock import now_ns
from gateway.testing.faults import checks
from gateway.testing.faults.proxy import MODES
from gateway.testing.faults.rig import Plan, Rig
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.servers import Influxd, Mosquitto

_STORE_S = 60.0  # after a fault a store may take the rest of a back-off (30 s at most) to be tried
Hurt = Callable[[Rig], Awaitable[None]]


async def through_each(run: Run, rig: Rig, cases: Mapping[str, tuple[Hurt, Hurt]]) -> None:
    """Each fault in turn, under load: begin, let it last, end, wait for the far subscriber."""
    lasting_s = 1.5 if run.quick else 8.0
    for name, (begin, end) in cases.items():
        began_ns = now_ns()
        await begin(rig)
        await asyncio.sleep(lasting_s)
        await end(rig)
        ended_ns = now_ns()
        if rig.plan.told:
            took_s = await rig.told_within(run.limit(checks.TOLD_S))
            said = "too late" if took_s is None else f"{took_s:.1f} s"
            run.found.figure(f"{name}: told {said} after")
            run.found.require(
                took_s is not None, f"{name}: the subscriber lags {run.limit(checks.TOLD_S):g} s"
            )
        await _settle_edges(run, rig)
        checks.check_latency(run, rig, began_ns, ended_ns, f"{name}:")
        run.say(f"{name}: {run.found.figures[-1]}")


async def _settle_edges(run: Run, rig: Rig) -> None:
    """Until the near subscriber has heard whatever was sent a moment ago."""
    count = len(rig.feeder.edges)

    def heard() -> bool:
        rig.near.read()
        told = {(e["alarm_key"], e["event"], e["time_ns"]) for e in rig.near.events.values()}
        return all(tuple(edge) in told for edge in rig.feeder.edges[:count])

    loop = asyncio.get_running_loop()
    until_s = loop.time() + run.limit(5.0)
    while not heard() and loop.time() < until_s:
        await asyncio.sleep(0.1)


def _modes(name: str) -> dict[str, tuple[Hurt, Hurt]]:
    async def set_mode(rig: Rig, *, mode: str) -> None:
        await rig.proxies[name].set(mode)

    heal = partial(set_mode, mode="pass")
    return {mode: (partial(set_mode, mode=mode), heal) for mode in MODES if mode != "pass"}


async def broker_wire(run: Run) -> None:
    """F8-wire."""
    async with run.rig(Plan(told=True, store="none")) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        await through_each(run, rig, _modes("told"))
        await checks.check_all(run, rig, store=False)
        check_all_told(run, rig)


async def store_wire(run: Run) -> None:
    """F9-wire."""
    async with run.rig(Plan(store="influxdb")) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        await through_each(run, rig, _modes("store"))
        await checks.check_all(run, rig)


def check_all_told(run: Run, rig: Rig) -> None:
    """The far broker never died: every event came through it, at least once."""
    rig.far.read()
    gone = rig.far.missing(range(1, max(rig.near.events, default=0) + 1))
    run.found.require(not gone, f"{len(gone)} events never told: {gone[:5]}")
    back = rig.far.went_back_count
    run.found.require(back == 0, f"a state topic went back to an older row {back} times")
    run.found.figure(f"{len(rig.far.events)} events told, {rig.far.repeat_count} of them again")


def _server_cases(of: Callable[[Rig], Mosquitto | Influxd]) -> dict[str, tuple[Hurt, Hurt]]:
    async def kill(rig: Rig) -> None:
        await of(rig).kill()

    async def start(rig: Rig) -> None:
        await of(rig).start()

    async def start_empty(rig: Rig) -> None:
        server = of(rig)
        server.empty()
        await server.start()

    async def freeze(rig: Rig) -> None:
        process = of(rig).process
        assert process is not None, "started"
        process.freeze()

    async def resume(rig: Rig) -> None:
        process = of(rig).process
        assert process is not None, "started"
        process.resume()

    return {
        "kill -9": (kill, start),
        "SIGSTOP": (freeze, resume),
        "restarted empty": (kill, start_empty),
    }


async def broker_process(run: Run) -> None:
    """F8-process."""
    async with run.rig(Plan(told=True, store="none")) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        await through_each(run, rig, _server_cases(lambda r: r.told_broker))
        await checks.check_all(run, rig, store=False)


async def store_process(run: Run) -> None:
    """F9-process. A database that was emptied has lost what it had taken; that is its own doing,
    and what came after must be there, also when somebody makes its database only later."""
    async with run.rig(Plan(store="influxdb")) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        cases = _server_cases(lambda r: r.influxd)
        del cases["restarted empty"]
        await through_each(run, rig, cases)
        await rig.feeder.stop()
        run.found.require(await rig.drained(run.limit(_STORE_S)), "the store lags behind")
        before = await rig.stored()
        kept = len(rig.feeder.acknowledged)
        lost = [sample for sample in rig.feeder.acknowledged if sample not in before]
        run.found.require(not lost, f"{len(lost)} of {kept} lost before it was emptied: {lost[:3]}")
        rig.feeder.start()
        await through_each(run, rig, {"emptied, no database at first": (_empty, _create)})
        await rig.feeder.stop()
        run.found.require(await rig.drained(run.limit(_STORE_S)), "not everything was stored")
        held = await rig.stored()
        later = [sample for sample in rig.feeder.acknowledged[kept:] if sample not in held]
        after = len(rig.feeder.acknowledged) - kept
        run.found.require(not later, f"{len(later)} of {after} lost after it was emptied")
        run.found.figure(f"{kept} samples before it was emptied and {after} after, all stored")
        await checks.check_journal(run, rig)


async def _empty(rig: Rig) -> None:
    await rig.influxd.kill()
    rig.influxd.empty()
    await rig.influxd.start(create=False)


async def _create(rig: Rig) -> None:
    await rig.influxd.create()


async def field_wire(run: Run) -> None:
    """F8-field: the wire the samples come in by. What its broker holds comes in when it is well."""
    async with run.rig(Plan(field_wire=True)) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        wire = rig.proxies["field"]
        for mode in MODES[1:]:
            await wire.set(mode)
            await asyncio.sleep(1.0 if run.quick else 8.0)
            await wire.set("pass")
            await asyncio.sleep(1.0)
        await checks.check_all(run, rig)
