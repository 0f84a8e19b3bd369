"""Random damage to the files of a spool, several at once: the start always succeeds, and what is lost
had a damaged byte.

The normal run takes CORRUPTIONS cases (default 90); `make corruptions CORRUPTIONS=10000` takes that
many. CORRUPT_SEED begins elsewhere; a failure names its seed and case, which come again by
CORRUPT_SEED and CORRUPT_FROM.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gateway.model.batch import Batch
from gateway.spool.disk import PAGE_BYTES
from gateway.spool.positions import SLOT_BYTES
from gateway.spool.salvage import _FRAME_HEADER, Salvage, _local_bytes, _opened, _read, wal_path
from gateway.spool.spool import Spool, SpoolOptions
from gateway.spool.thinning import PointTraits
from gateway.testing.spool import numbered

CASES = int(os.environ.get("CORRUPTIONS", "90"))
SEED = int(os.environ.get("CORRUPT_SEED", "0"))
FROM = int(os.environ.get("CORRUPT_FROM", "0"))
OPTIONS = SpoolOptions(segment_rows_max=600, tail_rows_max=1)
SIZES = [1, 3, 50, 2, 7, 200, 1, 400, 30, 90, 1, 1, 250, 64, 300, 5, 180, 33, 2, 1]
EVERYTHING = 1 << 60


@dataclass
class Original:
    """A spool, whole: what each offset says, and where the bytes of each record stand."""

    directory: Path
    head: int = 0
    says: dict[int, float] = field(default_factory=dict)
    records: list[tuple[range, list[tuple[str, int, int]]]] = field(default_factory=list)


def learn(directory: Path, place: Path) -> Original:
    """Read a copy, so that the original stays as it is."""
    found = Original(directory)
    for path in sorted(directory.glob("*.segment")):
        found.records += extents(path)
    shutil.copytree(directory, place)
    spool = Spool.open(place, OPTIONS)
    found.head, found.says = spool.head, everything(spool)
    assert spool.stats().lost_rows == spool.stats().damaged_segments == 0
    spool.close_now()
    shutil.rmtree(place)
    assert {row for rows, _ in found.records for row in rows} == set(found.says)
    return found


def everything(spool: Spool) -> dict[int, float]:
    cursor, says = spool.cursor("all"), {}
    while (chunk := cursor.read(777)) is not None:
        says.update(zip(range(chunk.start, chunk.end), chunk.batch.value.tolist(), strict=True))
    return says


def extents(path: Path) -> list[tuple[range, list[tuple[str, int, int]]]]:
    """Each record's rows, and the byte ranges that must be whole for it: (file name, low, high)."""
    salvage, found = Salvage(path), []
    names = (path.name, wal_path(path).name)
    with _opened(path) as files:
        for start in salvage.starts:
            file, image, offset = salvage._places[start]
            count = salvage._counts[start]
            size = 24 + 29 * count
            local = _local_bytes(size, count)
            lead = _FRAME_HEADER if file else 0
            more = 4 if local < size else 0
            ranges = [(names[file], image + offset, image + offset + local + more)]
            missing, page = size - local, _read(files[file], image, PAGE_BYTES)
            number = int.from_bytes(page[offset + local : offset + local + 4], "big")
            while missing > 0:
                at_file, at = salvage._pages[number][-1]
                lead = _FRAME_HEADER if at_file else 0
                ranges.append((names[at_file], at - lead, at + 4 + min(missing, PAGE_BYTES - 4)))
                number = int.from_bytes(_read(files[at_file], at, 4), "big")
                missing -= PAGE_BYTES - 4
            found.append((range(start, start + count), ranges))
    return found


@pytest.fixture(scope="module")
def originals(fast_root):
    root = fast_root / "corruptions"
    made = {
        "closed": filled(root / "closed"),
        "crashed": filled(root / "crashed-live", crash_into=root / "crashed"),
        "one log": filled(root / "log-live", SpoolOptions(), crash_into=root / "log"),
        "thinned": thinned(root / "thinned"),
    }
    foreign = filled(root / "foreign")
    yield {name: learn(path, root / "copy") for name, path in made.items()}, foreign
    shutil.rmtree(root)


def filled(directory, options=OPTIONS, crash_into=None):
    spool, first = Spool.open(directory, options), 0
    spool.cursor("all")
    for number, size in enumerate(SIZES):
        spool.append_now([numbered(first, size)])
        first += size
        if number in {5, 11, 17}:  # positions are written between, old and new in their two slots
            reader = spool.cursor("reader")
            reader.read(first)
            reader.commit_now(reader.position)
    if crash_into:
        shutil.copytree(directory, crash_into)
    spool.close_now()
    return crash_into or directory


def thinned(directory):
    """Segments that were thinned, and one that was not."""
    spool = Spool.open(directory, OPTIONS)
    spool.cursor("all")
    for first in range(0, 2_600, 40):
        at = np.arange(first, first + 40)
        spool.append_now([Batch.of(at % 3, at % 7.0, at // 3 * 10**9, received_time_ns=0)])
    while spool.thin(1_800, PointTraits.plain()) is not None:
        pass
    spool.close_now()
    return directory


# ------------------------------------------------------------------------------- what goes wrong


@dataclass
class Harm:
    """What has been done to a copy: byte ranges that are no longer what they were."""

    directory: Path
    foreign: Path
    rng: random.Random
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # file -> whose content it has
    hurt_positions: bool = False

    def content_of(self, path):
        return self.names.get(path.name, path.name)

    def note(self, path, low, high):
        self.ranges.append((self.content_of(path), low, high))

    def files(self, pattern="*.segment"):
        return sorted(self.directory.glob(pattern))

    def any_file(self):
        return self.rng.choice(self.files() + self.files("*.segment-wal"))

    def write(self, path, at, data):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)
        self.note(path, at, at + len(data))

    def bits(self):
        path = self.any_file()
        size = path.stat().st_size
        for _ in range(self.rng.choice((1, 1, 1, 8, 40)) if size else 0):
            # a third of them where a file, a log or a page begins
            near = self.rng.choice((0, 0, 0, self.rng.randrange(size)))
            at = (
                min(size - 1, near + self.rng.randrange(128))
                if self.rng.random() < 0.3
                else self.rng.randrange(size)
            )
            with path.open("rb") as file:
                file.seek(at)
                byte = file.read(1)[0]
            self.write(path, at, bytes([byte ^ 1 << self.rng.randrange(8)]))

    def page(self):
        path = self.any_file()
        size = path.stat().st_size
        unit = self.rng.choice((512, PAGE_BYTES, PAGE_BYTES, 8 * PAGE_BYTES))
        if size:
            at = self.rng.randrange(-(-size // unit)) * unit
            length = min(unit, size - at)
            zeros = self.rng.random() < 0.6
            self.write(path, at, bytes(length) if zeros else self.rng.randbytes(length))

    def truncated(self):
        path = self.any_file()
        size = self.rng.randrange(path.stat().st_size + 1)
        os.truncate(path, size)
        self.note(path, size, EVERYTHING)

    def grown(self):
        path = self.rng.choice(self.files())
        with path.open("ab") as file:
            file.write(self.rng.randbytes(self.rng.randrange(1, 9_000)))

    def missing(self):
        path = self.rng.choice(self.files())
        for each in (path, wal_path(path)):
            each.unlink(missing_ok=True)
            self.note(each, 0, EVERYTHING)

    def log_missing(self):
        for path in self.files("*.segment-wal"):
            path.unlink()
            self.note(path, 0, EVERYTHING)

    def swapped(self):
        closed = [path for path in self.files() if not wal_path(path).exists()]
        if len(closed) > 1:
            one, two = self.rng.sample(closed, 2)
            data = one.read_bytes()
            one.write_bytes(two.read_bytes())
            two.write_bytes(data)
            mine, other = self.content_of(one), self.content_of(two)
            self.names |= {one.name: other, two.name: mine}

    def duplicated(self):
        path = self.rng.choice(self.files())
        name = self.rng.choice((f"{self.rng.randrange(10**6):020d}.segment", "copy.segment"))
        if not (self.directory / name).exists() and not wal_path(path).exists():
            shutil.copy(path, self.directory / name)
            self.names[name] = self.content_of(path)

    def stranger(self):
        number = self.rng.randrange(10**5)
        target = self.directory / f"{number:020d}.segment"
        if target.exists():
            return
        kind = self.rng.randrange(4)
        if kind == 0:
            shutil.copy(self.rng.choice(sorted(self.foreign.glob("*.segment"))), target)
        elif kind == 1:
            target.write_bytes(self.rng.randbytes(self.rng.randrange(20_000)))
        elif kind == 2:
            target.write_bytes(b"")
        else:
            (self.directory / f"{number}.segment.part").write_bytes(b"half")

    def positions(self):
        self.hurt_positions = True
        path = self.directory / "positions"
        if not path.exists():
            return
        kind = self.rng.randrange(5)
        data = bytearray(path.read_bytes())
        if kind == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes(bytes(data[: self.rng.randrange(len(data) + 1)]))
        elif kind == 2:  # stale: the older slot only
            slot = self.rng.randrange(2)
            data[slot * SLOT_BYTES : slot * SLOT_BYTES + 30] = bytes(30)
            path.write_bytes(bytes(data))
        elif kind == 3:
            for _ in range(8 if data else 0):
                at = self.rng.choice((0, SLOT_BYTES)) + self.rng.randrange(140)
                data[at % len(data)] ^= 1 << self.rng.randrange(8)
            path.write_bytes(bytes(data))
        else:
            path.write_bytes(self.rng.randbytes(2 * SLOT_BYTES))

    def index(self):
        for path in self.files("*.segment-shm"):
            path.write_bytes(self.rng.randbytes(path.stat().st_size))


FOUND = [
    (11, 1002),  # a flipped bit in the schema: a record numbered by no number
    (31, 4115),  # another spool's file, too damaged to say whose it is, cut ours short
]
KINDS = (
    *(Harm.bits, Harm.bits, Harm.page, Harm.page, Harm.truncated, Harm.grown, Harm.missing),
    *(Harm.log_missing, Harm.swapped, Harm.duplicated, Harm.stranger, Harm.positions, Harm.index),
)


def check(original: Original, harm: Harm) -> int:
    """What a start finds; how many rows are gone."""
    hit = set()
    for rows, ranges in original.records:
        if any(
            name == bad and low < to and begin < high
            for name, low, high in ranges
            for bad, begin, to in harm.ranges
        ):
            hit.update(rows)
    spool = Spool.open(harm.directory, OPTIONS)
    try:
        says, stats = everything(spool), spool.stats()
        wrong = {at: value for at, value in says.items() if original.says.get(at) != value}
        assert not wrong, f"rows nobody wrote: {sorted(wrong)[:5]}"
        lost = original.says.keys() - says.keys()
        assert lost <= hit, f"{len(lost - hit)} rows lost without a damaged byte"
        inside = [at for at in lost if at < max(says, default=-1) and at > min(says)]
        assert stats.lost_rows >= len(inside), "loss is counted"
        if stats.damaged_segments or stats.foreign_files:
            assert any((harm.directory / "quarantine").iterdir()), "evidence is kept"
        assert spool.head >= max(says, default=-1) + 1
        if not harm.hurt_positions and "-wal" not in str(original.records[-1]):
            assert spool.head >= original.head, "numbers that were given out do not come again"
        end = spool.append_now([numbered(0, 2)])
        chunk = spool.cursor("all").read(10)
        assert (chunk.start, chunk.end) == (end - 2, end)
        assert not set(range(end - 2, end)) & original.says.keys() - hit
    finally:
        spool.close_now()
    again = Spool.open(harm.directory, OPTIONS)
    assert again.head >= end, "and the start after that"
    again.close_now()
    return len(lost)


def damage(seed: int, case: int, originals, copy) -> int:
    """One spool, damaged as (seed, case) says, opened again; how many rows that cost."""
    made, foreign = originals
    rng = random.Random(f"{seed} {case}")
    name = rng.choice(sorted(made))
    shutil.copytree(made[name].directory, copy)
    harm, told = Harm(copy, foreign, rng), []
    try:
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            kind = rng.choice(KINDS)
            told.append(kind.__name__)
            if harm.files():
                kind(harm)
        return check(made[name], harm)
    except BaseException as error:
        raise AssertionError(
            f"CORRUPT_SEED={seed} CORRUPT_FROM={case}: {name}, {told}: {error!r}"
        ) from error
    finally:
        shutil.rmtree(copy)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "case"), FOUND)
def test_what_once_stopped_a_start_no_longer_does(originals, tmp_path, seed, case) -> None:
    damage(seed, case, originals, tmp_path / "spool")


@pytest.mark.slow
def test_the_start_always_succeeds_and_only_records_with_a_damaged_byte_are_lost(
    originals, tmp_path
) -> None:
    lost_cases = 0
    for case in range(FROM, FROM + CASES):
        lost_cases += damage(SEED, case, originals, tmp_path / "spool") > 0
        if case % 500 == 499:  # for who waits for a long run
            print(f"{case + 1} corruptions", flush=True)
    print(f"{CASES} corruptions, {lost_cases} cost records")
    assert lost_cases > CASES / 10 or CASES < 50
