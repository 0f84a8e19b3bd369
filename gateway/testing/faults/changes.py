"""F22: the rules are others while alarms stand."""

from __future__ import annotations

import asyncio
import signal

from gateway.testing.faults import checks
from gateway.testing.faults.load import LIMIT, RULE
from gateway.testing.faults.process import until
from gateway.testing.faults.rig import Plan, Rig
from gateway.testing.faults.scenario import Run

_TAKEN_S = 5.0
_BETWEEN_S = (0.05, 0.4)
_SECOND_RULE = RULE.replace('id = "', 'id = "second.').replace(f"{LIMIT}", f"{LIMIT + 1}", 1)
_COMPUTED = """
[[rule]]
id = "computed"
kind = "calculation"
inputs = { a = { quantity = "nothing.has.it" } }
parameters = { expression = "a * {n}", id = "{group}.twice", quantity = "twice" }
"""
_BROKEN = '\n[[rule]]\nid = "broken"\nkind = "limmit"\n'


async def reloaded(run: Run) -> None:
    """The file is written anew and SIGHUP sent, again and again, under load."""
    cycles = run.pick(6, 200)
    async with run.rig(Plan()) as rig:
        await rig.first_start()
        site = rig.site.read_text("utf-8")
        rig.feeder.start()
        rig.link.open()
        run.found.require(await until(lambda: bool(rig.link.status), 10.0), "no status")
        refused = 0
        for number in range(cycles):
            text, is_good = _changed(site, number)
            rig.site.write_text(text, "utf-8")
            await _take(run, rig, number, is_good=is_good)
            refused += not is_good
            if run.is_time_up:
                break
        rig.site.write_text(site, "utf-8")
        await _take(run, rig, cycles, is_good=True)
        is_one = await until(lambda: rig.link.status["rules"]["rule_count"] == 1, run.limit(10.0))
        run.found.require(is_one, "not the rules of the file")
        checks.check_latency(run, rig)
        await checks.check_all(run, rig)
        records = await rig.records()
    told = {name: sum(r.transition == name for r in records) for name in ("EDT", "REM")}
    run.found.figure(
        f"{number + 1} files, {refused} refused; {told['EDT']} alarms said that their rule was "
        f"edited, {told['REM']} that it is gone"
    )
    run.found.require(told["EDT"] > 0, "no alarm stood while its rule was edited")


def _changed(site: str, number: int) -> tuple[str, bool]:
    """The limit of the load's rule moves, where no value of the load can tell; others come and go;
    every fifth file has a fault, every seventh needs a new rule set."""
    text = site.replace(f"limit = {LIMIT}", f"limit = {LIMIT + number % 3 / 1000}", 1)
    if number % 2:
        text += _SECOND_RULE
    if number % 7 == 3:
        text += _COMPUTED.replace("{n}", str(number))
    return (text + _BROKEN, False) if number % 5 == 4 else (text, True)


async def _take(run: Run, rig: Rig, number: int, *, is_good: bool) -> None:
    process = rig.gateway
    assert process is not None, "started"
    log = rig.folder / "gateway.log"
    words = b"rules in force:" if is_good else b"not reloaded:"
    before = log.read_bytes().count(words)
    process.send(signal.SIGHUP)
    limit_s = run.limit(_TAKEN_S)
    taken = await until(lambda: log.read_bytes().count(words) > before, limit_s)
    run.found.require(taken, f"file {number} has no answer after {limit_s:g} s")
    run.found.require(process.is_running, f"the gateway ended at file {number}")
    await asyncio.sleep(run.rng.uniform(*_BETWEEN_S))
