"""The quick form of the fault table: one command of each family in every test run, all of them with
FAULTS=all in the environment. `make faults` runs the long forms.

Time limits are multiplied here: whether an alarm takes a second is the command's question, on a
machine that does nothing else; whether anything is lost is asked in both.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.testing.faults.process import Missing, Nursery
from gateway.testing.faults.running import run_scenario
from gateway.testing.faults.scenario import Run, Scenario
from gateway.testing.faults.table import TABLE

SHORT = {"F1", "F5-full", "F5-readonly", "F8-wire", "F9-process", "F14", "F17", "F22-reload", "F24"}
COMMANDS = [
    scenario
    for scenario in TABLE
    if scenario.function is not None and (scenario.id in SHORT or os.environ.get("FAULTS") == "all")
]


@dataclass
class Options:
    seed: int = 20261127
    quick: bool = True
    patience: float = 30.0
    cycles: int = 0
    seconds: float = 0.0


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("scenario", COMMANDS, ids=lambda scenario: scenario.id)
async def test_the_promise_holds_under_the_fault(scenario, nursery):
    # Short: the address of a socket has 108 bytes (unix(7)), and pytest's folders are deep.
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        outcome = await run_scenario(scenario, Path(folder), nursery, Options())
    print(outcome)
    if outcome.verdict == "SKIPPED":
        reason = f"{scenario.id}: {outcome.reasons[0]}"
        if os.environ.get("CI") == "true" and "is not installed" in reason:
            pytest.fail(reason)
        pytest.skip(reason)
    assert outcome.verdict == "PASS", str(outcome)


def test_every_fault_of_the_table_is_a_command_or_says_where_it_is_shown():
    numbers = {int(re.fullmatch(r"F(\d+)", scenario.group)[1]) for scenario in TABLE}
    assert numbers == set(range(1, 26))
    for scenario in TABLE:
        assert scenario.criterion, scenario.id
        assert bool(scenario.shown) != (scenario.function is not None), scenario.id
    ids = [scenario.id for scenario in TABLE]
    assert len(set(ids)) == len(ids)
    assert set(ids) > SHORT


def scenario_of(function, needs=()):
    return Scenario("F0", "a fault", "a promise", "a criterion", function, needs)


async def nothing(run: Run) -> None:
    """Compares nothing."""


async def wrong(run: Run) -> None:
    run.found.require(False, "one sample lost")


async def breaks(run: Run) -> None:
    run.found.require(True, "")
    raise RuntimeError("the harness broke")


async def lacks(run: Run) -> None:
    run.found.require(True, "")
    raise Missing("no such kernel")


async def good(run: Run) -> None:
    run.found.require(True, "")


@pytest.mark.parametrize(
    ("function", "needs", "verdict", "reason"),
    [
        (good, (), "PASS", ""),
        (nothing, (), "FAIL", "nothing was judged"),
        (wrong, (), "FAIL", "one sample lost"),
        (breaks, (), "FAIL", "the harness broke"),
        (lacks, (), "SKIPPED", "no such kernel"),
        (good, ("no-such-program",), "SKIPPED", "no-such-program is not installed"),
        (None, (), "SKIPPED", ""),
    ],
)
async def test_only_what_was_judged_and_found_right_has_passed(
    function, needs, verdict, reason, tmp_path
):
    nursery = Nursery(tmp_path)  # never opened
    outcome = await run_scenario(scenario_of(function, needs), tmp_path, nursery, Options())
    assert outcome.verdict == verdict
    assert reason in " ".join(outcome.reasons)
    assert str(outcome).startswith(verdict)
