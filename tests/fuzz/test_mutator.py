"""The mutator repeats itself by seed, damages, and stays within its size."""

from __future__ import annotations

import os
from itertools import islice

import pytest

from gateway.testing.fuzz import SIZE_MAX, Mutator, cuts, growth

CORPUS = [b"one good input", b"another " * 20]


def test_the_same_seed_makes_the_same_mutants_and_another_seed_others() -> None:
    first, again, other = (
        list(islice(Mutator(CORPUS, [b"token"], seed), 50)) for seed in (7, 7, 8)
    )
    assert first == again != other
    assert sum(mutant not in CORPUS for mutant in first) > 40
    assert any(b"token" in mutant for mutant in first)


def test_a_mutant_never_outgrows_the_limit() -> None:
    mutants = islice(Mutator([bytes(SIZE_MAX)], steps_max=9), 50)
    assert max(map(len, mutants)) <= SIZE_MAX


def test_pieces_add_up_to_the_whole() -> None:
    mutator = Mutator(CORPUS)
    assert all(b"".join(cuts(data, mutator.rng)) == data for data in islice(mutator, 50))


@pytest.mark.slow
@pytest.mark.skipif("FUZZ_LONG" not in os.environ, reason="asks a clock: make fuzz")
def test_work_that_grows_with_the_square_is_told_from_work_that_does_not() -> None:
    assert growth(lambda n: sum(i * j for i in range(n) for j in range(n)), 150) > 9
    assert growth(lambda n: sum(i * i for i in range(n)), 40_000) < 9
