"""The whole gateway in virtual time, over a handful of seeds: the laws hold, a seed decides
everything, and every deliberate fault of the gateway is found.

`make simulate SEEDS=1000` for the long form; a failure prints its seed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys

import pytest

from gateway.testing.sim.check import violations
from gateway.testing.sim.loop import Domain, Stuck, running
from gateway.testing.sim.mutants import MUTANTS, found_in
from gateway.testing.sim.plan import plan_of
from gateway.testing.sim.world import run_plan

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
