"""Damaging good input in ways that reach deep: a mutator with a seed, over a corpus and its tokens.

    corpus --pick--> bytes --1 to 6 steps--> mutant        the same seed gives the same mutants
                            `-- flip, set, cut, repeat, insert a token, splice another, overwrite

Random bytes stop at the first check of a parser. What is found comes from good input with few
things wrong and from the format's own words in places where they do not belong.

Owns: making mutants and telling how time grows. Not here: what a parser promises (tests/fuzz).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

SIZE_MAX = 64 * 1024
INTERESTING = (0, 1, 0x0A, 0x20, 0x22, 0x30, 0x39, 0x5B, 0x7B, 0x7D, 0x7E, 0x7F, 0x80, 0xFE, 0xFF)
INTEGERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    2**64 - 1,
)


@dataclass
class Mutator:
    """Mutants of `corpus`, one after the other, for ever."""

    corpus: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    seed: int = 0
    steps_max: int = 6
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311  repeatable, not a secret

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.next()

    def next(self) -> bytes:
        """One mutant. One in fifty is the good input itself."""
        rng = self.rng
        data = bytearray(rng.choice(self.corpus))
        if rng.random() < 0.02:
            return bytes(data)
        for _ in range(rng.randint(1, self.steps_max)):
            self._step(data)
        return bytes(data[:SIZE_MAX])

    def _step(self, data: bytearray) -> None:
        rng = self.rng
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 32, 200)))
        way = rng.randrange(9)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = rng.choice(INTERESTING)
        elif way == 2:
            del data[at:end]
        elif way == 3:
            data[at:at] = data[at:end] * rng.choice((1, 2, 3, 20))
        elif way == 4 and self.tokens:
            data[at:at] = rng.choice(self.tokens)
        elif way == 5 and self.tokens:
            data[at:end] = rng.choice(self.tokens)
        elif way == 6:
            other = rng.choice(self.corpus)
            data[at:] = other[rng.randint(0, len(other)) :]
        elif way == 7:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTEGERS) & (1 << 8 * width) - 1
            data[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 8))


def cuts(data: bytes, rng: random.Random) -> list[bytes]:
    """`data` in pieces, as a stream may bring it."""
    places = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(0, 4)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def growth(work: Callable[[int], object], size: int, *, repeats: int = 3) -> float:
    """How many times longer four times the size takes, in time of this process; 4 is linear, 16 is
    quadratic. The least of some repeats: the machine's other work only ever adds."""

    def least_s(count: int) -> float:
        taken = []
        for _ in range(repeats):
            began_s = time.process_time()
            work(count)
            taken.append(time.process_time() - began_s)
        return min(taken)

    work(size)  # caches and imports
    return least_s(4 * size) / max(least_s(size), 1e-4)
