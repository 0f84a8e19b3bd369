"""Thinning keeps the story and frees bytes; cursors stay valid; a crash leaves old or new."""

from __future__ import annotations

import errno
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from gateway.model.batch import Batch
from gateway.model.errors import SpoolFull, StorageFault
from gateway.model.quality import Quality
from gateway.spool import thinning
from gateway.spool.salvage import Salvage
from gateway.spool.spool import Spool, SpoolOptions
from gateway.spool.thinning import PointTraits, Window, kept_rows
from gateway.testing.powercut import cuts
from gateway.testing.spool import MoodyDisk
from gateway.testing.tape import recording

MINUTE_NS = 60_000_000_000
START = 1_700_000_040 * 1_000_000_000  # a whole minute
PLAIN = PointTraits.plain()
SMALL = SpoolOptions(segment_rows_max=3_000, tail_rows_max=1)


@pytest.fixture
def place():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="thin-", dir=memory) as name:
        yield Path(name)


def rows(*table):
    """(point, value, second, quality)"""
    point, value, second, quality = zip(*table, strict=True)
    times = [START + round(each * 1e9) for each in second]
    return Batch.of(point, value, times, received_time_ns=times, quality=quality)


GOOD, BAD, NAN = Quality.GOOD, Quality.BAD_SENSOR_FAULT, float("nan")


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ([(0, 5, 0, GOOD)], [0]),
        # first, lowest, highest and last of a minute
        ([(0, v, s, GOOD) for s, v in enumerate([5, 5, 9, 4, 6, 1, 5, 5])], [0, 2, 5, 7]),
        # each minute by itself, each point by itself
        ([(0, 1, s, GOOD) for s in (0, 20, 59, 60, 61, 119)], [0, 2, 3, 5]),
        ([(p, 1, s, GOOD) for s in (0, 1, 2) for p in (0, 1)], [0, 1, 4, 5]),
        # a change of quality, and what it was until then
        ([(0, 1, 0, GOOD), (0, 1, 1, GOOD), (0, 1, 2, GOOD), (0, 1, 3, BAD), (0, 1, 4, GOOD),
          (0, 1, 5, GOOD), (0, 1, 6, GOOD)], [0, 2, 3, 4, 6]),
        # no value is neither the lowest nor the highest where there is one
        ([(0, NAN, 0, GOOD), (0, 1, 1, GOOD), (0, NAN, 2, GOOD), (0, 7, 3, GOOD), (0, NAN, 4, GOOD)],
         [0, 1, 3, 4]),
        ([(0, NAN, s, BAD) for s in range(5)], [0, 4]),
    ],
)  # fmt: skip
def test_first_last_lowest_highest_and_every_change_of_quality_stay(table, kept) -> None:
    assert np.flatnonzero(kept_rows(rows(*table), MINUTE_NS, PLAIN)).tolist() == kept


def test_every_change_of_a_code_stays() -> None:
    codes = [(0, v, s, GOOD) for s, v in enumerate([1, 1, 2, 2, 2, 1, 3, 3, 3])]
    traits = PointTraits(np.array([True]), np.array([-1]))
    assert np.flatnonzero(kept_rows(rows(*codes), MINUTE_NS, traits)).tolist() == [
        0,
        1,
        2,
        4,
        5,
        6,
        8,
    ]


def test_the_parts_of_a_position_stay_together() -> None:
    """lon rises, lat is highest in the middle: that place stays whole, and only it."""
    table = []
    for second, lat in enumerate([1, 2, 9, 2, 1]):
        table += [(0, second, second, GOOD), (1, lat, second, GOOD), (2, 0, second, GOOD)]
    traits = PointTraits(np.zeros(3, dtype=bool), np.array([0, 0, -1]))
    kept = kept_rows(rows(*table), MINUTE_NS, traits).reshape(5, 3)
    assert kept[:, 0].tolist() == kept[:, 1].tolist() == [True, False, True, False, True]


@settings(max_examples=60, deadline=None)
@given(
    points=nps.arrays(np.int32, st.integers(1, 60), elements=st.integers(0, 3)),
    data=st.data(),
)
def test_the_range_and_the_ends_of_every_interval_survive(points, data) -> None:
    n = len(points)
    value = data.draw(
        nps.arrays(np.float64, n, elements=st.sampled_from([-1, 0, 1, 5, NAN, np.inf]))
    )
    quality = data.draw(nps.arrays(np.uint8, n, elements=st.sampled_from([0, 0x40, 0x84])))
    second = data.draw(nps.arrays(np.int64, n, elements=st.integers(-90, 200)))
    batch = Batch.of(points, value, START + second * 10**9, received_time_ns=0, quality=quality)
    kept = kept_rows(batch, MINUTE_NS, PLAIN)
    thin = batch.take(kept)
    assert (
        np.array_equal(kept_rows(thin, MINUTE_NS, PLAIN), np.ones(len(thin), dtype=bool))
        or len(thin) < n
    )

    def story(of):
        told = {}
        for p, v, q, t in zip(of.point_index, of.value, of.quality, of.source_time_ns, strict=True):
            told.setdefault((p, q, t // MINUTE_NS), []).append(v)
        return {
            key: (repr(vs[0]), repr(vs[-1]), *(repr(f(np.array(vs))) for f in (np.fmin.reduce, np.fmax.reduce)))
            for key, vs in told.items()
        }  # fmt: skip

    assert story(thin) == story(batch)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 50), st.integers(-10, 120))
def test_what_a_consumer_loses_is_what_it_would_have_got_less_what_it_gets(
    first, before, kept, committed
) -> None:
    kept = min(kept, before)
    window = Window(first, first + before, before, kept)
    would = sum(1 for row in range(first, first + before) if row >= committed)
    gets = sum(1 for row in range(first + before - kept, first + before) if row >= committed)
    assert window.fewer_for(committed) == would - gets


def one_hz(first, count):
    """Two points at 1 Hz, the value being the row's number."""
    at = np.arange(first, first + count)
    return Batch.of(at % 2, at.astype(float), START + at // 2 * 10**9, received_time_ns=0)


def filled(directory, count=9_000, options=SMALL, disk=None):
    spool = Spool.open(directory, options, disk=disk)
    spool.cursor("slow")
    for first in range(0, count, 500):
        spool.append_now([one_hz(first, 500)])
    return spool


def values(cursor, rows_max=700):
    cursor.rewind()
    found, at = [], cursor.position
    while (chunk := cursor.read(rows_max)) is not None:
        assert at <= chunk.start
        assert chunk.end - chunk.start == len(chunk.batch) <= rows_max
        found += chunk.batch.value.tolist()
        at = chunk.end
    return found


def expected_of(count=9_000, segment=3_000):
    """What is left of `count` rows, segment by segment."""
    left = []
    for first in range(0, count, segment):
        batch = one_hz(first, segment)
        left += batch.value[kept_rows(batch, MINUTE_NS, PLAIN)].tolist()
    return left


def test_thinned_segments_free_bytes_and_keep_their_offsets(place) -> None:
    spool = filled(place / "s")
    before = spool.stats().bytes_on_disk
    thinned = spool.thin(6_000, PLAIN)
    assert thinned.fewer_for(0) == 3_000 - len(expected_of(3_000))
    assert thinned.fewer_for(3_000) == 0
    assert spool.stats().bytes_on_disk == before - thinned.freed_bytes < 0.8 * before
    spool.thin(6_000, PLAIN)
    got = values(spool.cursor("slow"))
    assert got == [*expected_of(6_000), *map(float, range(6_000, 9_000))]
    assert spool.stats().lost_rows == 0
    spool.close_now()
    again = Spool.open(place / "s", SMALL)
    assert again.head == 9_000
    assert values(again.cursor("slow")) == got
    assert again.stats().lost_rows == again.stats().damaged_segments == 0
    again.close_now()


def test_ever_coarser_until_nothing_more_can_be_saved(place) -> None:
    spool = filled(place / "s")
    sizes = []
    while spool.thin(9_000, PLAIN) is not None:
        sizes.append(spool.stats().bytes_on_disk)
    assert len(sizes) >= 6
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 5
    got = values(spool.cursor("slow"))
    assert (got[0], got[-1]) == (0.0, 8_999.0)
    assert got == sorted(got)
    spool.close_now()
    again = Spool.open(place / "s", SMALL)
    while (thinned := again.thin(9_000, PLAIN)) is not None:
        assert thinned.freed_bytes == 0, "how far they were thinned is written in them"
    again.close_now()


def test_the_judge_is_never_touched(place) -> None:
    spool = filled(place / "s")
    assert spool.thin(2_999, PLAIN) is None
    assert values(spool.cursor("slow")) == [float(at) for at in range(9_000)]
    spool.close_now()


@pytest.mark.parametrize("committed", [1, 700, 1_499, 2_900, 2_999])
def test_a_consumer_in_the_middle_of_a_thinned_segment_misses_none_that_was_kept(
    place, committed
) -> None:
    spool = filled(place / "s")
    cursor = spool.cursor("slow")
    taken = cursor.read(committed).batch.value.tolist()
    while len(taken) < committed:
        taken += cursor.read(committed - len(taken)).batch.value.tolist()
    cursor.commit_now(committed)
    fewer = spool.thin(3_000, PLAIN).fewer_for(committed)
    rest = values(cursor)
    assert len(rest) == 9_000 - committed - fewer
    kept = expected_of(3_000)
    assert set(kept) <= set(taken) | set(rest)
    spool.close_now()


def test_a_damaged_byte_in_a_thinned_segment_costs_one_record(place) -> None:
    spool = filled(place / "s")
    spool.thin(3_000, PLAIN)
    spool.close_now()
    victim = min((place / "s").glob("*.segment"))
    starts = Salvage(victim).starts
    assert len(starts) == 1
    data = bytearray(victim.read_bytes())
    data[len(data) - 50] ^= 1
    victim.write_bytes(bytes(data))
    again = Spool.open(place / "s", SMALL)
    assert values(again.cursor("slow")) == [float(at) for at in range(3_000, 9_000)]
    assert again.stats().damaged_segments == 1
    again.close_now()


def test_damage_to_the_index_of_a_thinned_segment_costs_nothing_and_counts_no_loss(place) -> None:
    spool = filled(place / "s")
    spool.thin(3_000, PLAIN)
    spool.close_now()
    victim = min((place / "s").glob("*.segment"))
    data = bytearray(victim.read_bytes())
    data[0:16] = bytes(16)
    victim.write_bytes(bytes(data))
    again = Spool.open(place / "s", SMALL)
    assert values(again.cursor("slow"))[: len(expected_of(3_000))] == expected_of(3_000)
    stats = again.stats()
    assert (stats.damaged_segments, stats.lost_rows) == (1, 0)
    again.close_now()


@pytest.mark.slow
def test_a_power_cut_while_thinning_leaves_the_old_segment_or_the_new(place) -> None:
    seed = 7
    rng = random.Random(seed)
    with recording(place / "live") as tape:
        spool = filled(place / "live" / "s", 6_000)
        begun = len(tape.notes)
        while spool.thin(6_000, PLAIN) is not None:
            pass
        spool.close_now()
    whole = [float(at) for at in range(6_000)]
    seen = set()
    for moment, directory, _ in cuts(tape, rng, 150, lambda n: place / str(n)):
        if moment < begun:
            continue
        again = Spool.open(directory / "s", SMALL)
        got = values(again.cursor("slow"))
        stats = again.stats()
        assert again.head == 6_000, (seed, moment)
        assert (stats.lost_rows, stats.damaged_segments) == (0, 0), (seed, moment)
        assert {0.0, 2_999.0, 3_000.0, 5_999.0} <= set(got) <= set(whole), (seed, moment)
        assert got == sorted(got)
        assert not list(directory.glob("s/*.part*"))
        seen.add(len(got))
        again.close_now()
    assert len(seen) == 3, "old, new, and in between"


@pytest.mark.slow
def test_whichever_call_fails_while_thinning_every_row_or_its_story_is_there(place) -> None:
    for n in range(1, 40):
        home = place / str(n)
        with recording(home) as tape:
            spool = filled(home / "s", 3_000)
            count = iter(range(1, 10_000))
            tape.refuse = lambda _what, _path, n=n, count=count: errno.EIO * (next(count) == n)
            try:
                spool.thin(3_000, PLAIN)
            except StorageFault:
                pass
            else:
                assert n > 10
            tape.refuse = lambda _what, _path: 0
            got = values(spool.cursor("slow"))
            assert got in ([float(at) for at in range(3_000)], expected_of(3_000)), n
            spool.close_now()
            again = Spool.open(home / "s", SMALL)
            assert values(again.cursor("slow")) == got, n
            assert again.stats().lost_rows == 0
            again.close_now()


def test_below_the_free_room_that_must_stay_nothing_is_taken(place) -> None:
    disk = MoodyDisk()
    options = SpoolOptions(disk_free_min_bytes=1 << 30)
    spool = Spool.open(place / "s", options, disk=disk)
    spool.append_now([one_hz(0, 10)])
    assert not spool.is_tight(0.9)
    disk.free = (1 << 30) + options.segment_bytes_max
    spool._free_asked_s = -1.0
    assert spool.is_tight(0.9), "room for two segments is needed to make room"
    spool.append_now([one_hz(10, 10)])
    disk.free = 1 << 30
    spool._free_asked_s = -1.0
    with pytest.raises(SpoolFull, match="stay free"):
        spool.append_now([one_hz(20, 10)])
    stats = spool.stats()
    assert (stats.disk_free_bytes, stats.fault, stats.pending_rows) == (1 << 30, "", 0)
    disk.free = 1 << 40
    spool._free_asked_s = -1.0
    assert spool.append_now([one_hz(20, 10)]) == 30
    spool.close_now()


def test_large_segments_are_thinned_a_window_at_a_time(place, monkeypatch) -> None:
    monkeypatch.setattr(thinning, "WINDOW_ROWS", 1_000)
    spool = filled(place / "s")
    thinned = spool.thin(3_000, PLAIN)
    assert [window.end for window in thinned.windows] == [1_000, 2_000, 3_000]
    got = values(spool.cursor("slow"))
    assert got == [*expected_of(3_000, 1_000), *map(float, range(3_000, 9_000))]
    spool.close_now()
