"""The whole gateway in virtual time, over a handful of seeds: the laws hold, a seed decides
everything, and every deliberate fault of the gateway is found.

`make simulate SEEDS=1000` for the long form; a failure prints its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from gateway.alarms.database import DATABASE, LOST_SKIP
from gateway.alarms.journal import Journal
from gateway.testing.alarms import make_event
from gateway.testing.sim.check import violations
from gateway.testing.sim.loop import Domain, Stuck, running
from gateway.testing.sim.mutants import MUTANTS, found_in
from gateway.testing.sim.outage import Run, Times, both_of
from gateway.testing.sim.plan import plan_of
from gateway.testing.sim.verdicts import Verdicts
from gateway.testing.sim.world import events_of, run_plan

SEED = int(os.environ.get("SEED", "0"))
SHORT_S = 60.0
CUT_SEED = 2  # a seed with three power cuts


@pytest.fixture(autouse=True)
def quiet():
    """What the gateway says of its faults is not the question."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_the_laws_hold_whatever_goes_wrong(seed) -> None:
    outcome = run_plan(plan_of(seed, duration_s=SHORT_S))
    found = violations(outcome.evidence)
    assert not found, f"SEED={seed}: {[str(fault) for fault in outcome.plan.faults]}: {found}"
    assert outcome.virtual_s > SHORT_S


LOG_OF = """
import logging, sys
logging.disable(logging.CRITICAL)
from gateway.testing.sim.plan import plan_of
from gateway.testing.sim.world import run_plan
plan = plan_of(int(sys.argv[1]), kinds=("power_cut", "database", "broker"), duration_s=60.0)
sys.stdout.write("\\n".join(run_plan(plan).log))
"""


@pytest.mark.slow
def test_one_seed_gives_one_log_whatever_the_process_and_its_hashes() -> None:
    def log(hash_seed: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-c", LOG_OF, str(CUT_SEED)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout

    first = log("1")
    assert first.count(b"life") > 1, "the log is of a run in which something happened"
    assert log("2") == first


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.promise.replace(" ", "-"))
def test_every_promise_that_is_broken_is_found_out(mutant) -> None:
    assert found_in(mutant) is not None, f"{mutant.promise}: no law minds"


def test_time_jumps_to_the_next_timer_and_a_killed_domain_runs_no_cleanup() -> None:
    with running(random.Random(SEED)) as loop:
        heard = []

        async def work(domain: Domain) -> None:
            loop.call_later(3_600.0, loop.kill, domain)
            loop.spawn(domain, sleeper(), "sleeper")
            await asyncio.sleep(7_200.0)

        async def sleeper() -> None:
            try:
                await asyncio.sleep(5_000.0)
            finally:
                heard.append("cleaned up")

        loop.run_until_complete(work(Domain("one")))
        assert loop.time() == 7_200.0
        assert heard == []


def test_a_loop_in_which_everybody_waits_says_so() -> None:
    with running(random.Random(SEED)) as loop, pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())


def test_a_journal_whose_numbers_have_a_gap_is_read_to_its_end(tmp_path) -> None:
    with contextlib.closing(Journal.open(tmp_path, reserve_bytes=65_536)) as journal:
        journal.append([make_event(1)])
    (tmp_path / DATABASE).unlink()
    with contextlib.closing(Journal.open(tmp_path, reserve_bytes=65_536)) as journal:
        numbers = [journal.head + 1, journal.head + 2]
        journal.append([make_event(gseq) for gseq in numbers])
        read = [event.alarm.gseq for event in itertools.islice(events_of(journal, page=1), 9)]
    assert numbers[0] > LOST_SKIP, "what was lost left a gap"
    assert read == numbers


@pytest.fixture(scope="module")
def outage() -> list[Run]:
    """A quarter of an hour without broker and database, and the same time with them."""
    return both_of(Times(0.25, 600.0), SEED)


def broken(runs: list[Run]) -> set[str]:
    return {name for holds, name, _ in Verdicts(*runs).all() if not holds}


@pytest.mark.slow
def test_an_outage_costs_no_row_no_alarm_and_no_time(outage) -> None:
    run, plain = outage
    assert not broken(outage), list(Verdicts(*outage).all())
    assert run.backlog_rows > plain.backlog_rows, "there was an outage to come back from"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("rows", lambda run: {"first_count": run.first_count - 1}),
        ("rows", lambda _run: {"faults": ["p1: 7 after 9"]}),
        ("alarms", lambda run: {"events": run.events[1:]}),
        ("alarms", lambda run: {"events": [*run.events, run.events[0]]}),
        ("told", lambda run: {"told": dict(list(run.told.items())[1:])}),
        ("drain", lambda _run: {"drained_s": None}),
        ("drain", lambda run: {"drained_s": run.times.hours * 3_600.0 / 9}),
        ("memory", lambda run: {"peak_bytes": run.begun_bytes + (51 << 20)}),
        ("latency during", lambda run: {
            "latencies": [replace(each, virtual_s=each.virtual_s + 1) for each in run.latencies]
        }),
    ],
)  # fmt: skip
def test_an_outage_that_did_cost_something_is_found_out(outage, what, change) -> None:
    run, plain = outage
    assert what in broken([replace(run, **change(run)), plain])
