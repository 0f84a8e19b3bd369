"""No bytes make a reader of ours raise anything but its own error, wherever they come from.

`FUZZ_CASES=200000 FUZZ_SEED=1` (`make fuzz`) for the long form, which also asks how time grows.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import TARGETS, Target

from gateway.testing.fuzz import Mutator

CASES = int(os.environ.get("FUZZ_CASES", "400"))
SEED = int(os.environ.get("FUZZ_SEED", "20261127"))
IDS = [target.name for target in TARGETS]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=IDS)
def test_a_mutant_is_read_or_refused_by_name(target: Target, tmp_path: Path) -> None:
    cases = max(20, round(CASES * target.share))
    mutator, outcomes, size = Mutator(target.corpus, target.tokens, SEED), Counter[str](), 0
    began_s = time.process_time()
    for number in range(cases):
        data = mutator.next()
        size += len(data)
        try:
            outcomes[target.run(data, random.Random(number), tmp_path)] += 1
        except BaseException as error:
            shown = data if len(data) < 4000 else data[:4000] + b"..."
            error.add_note(f"{target.name}: seed {SEED}, case {number}, {shown!r}")
            raise
    taken_s = time.process_time() - began_s
    print(f"{target.name}: {cases} cases, {size / 1e6:.1f} MB, {taken_s:.1f} s, {dict(outcomes)}")
    assert len(outcomes) > 1, f"nothing was told apart: {outcomes}"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=IDS)
def test_hypothesis_finds_no_bytes_that_break_it(
    target: Target, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    piece = st.binary(max_size=12) | st.sampled_from([*target.tokens, b"\x00"])
    damage = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), piece), max_size=5)

    @given(st.sampled_from(list(target.corpus)), damage, st.integers(0, 9))
    def check(good: bytes, steps: list[tuple[int, int, bytes]], seed: int) -> None:
        data = bytearray(good)
        for at, gone, put in steps:
            data[at : at + gone] = put
        target.run(bytes(data), random.Random(seed), folder)

    check()
