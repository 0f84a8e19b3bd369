"""Damaged files: each costs the records it hits and no other, and never the start."""

import random
import shutil
import sqlite3
from dataclasses import replace

import pytest

from gateway.model.batch import Batch
from gateway.model.errors import StorageFault
from gateway.spool import record, segment
from gateway.spool.disk import PAGE_BYTES, Disk
from gateway.spool.positions import SLOT_BYTES, Positions
from gateway.spool.recovery import HEAD_JUMP
from gateway.spool.salvage import Salvage, wal_path
from gateway.spool.spool import Spool, SpoolOptions
from gateway.testing.spool import drain, numbered

OPTIONS = SpoolOptions(segment_rows_max=600, tail_rows_max=1)
SIZES = [1, 3, 50, 2, 7, 200, 1, 400, 30, 90, 1, 1, 250, 64, 300, 5, 180, 33, 2, 1]
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def sealed(fast_root):
    """A spool of several sealed segments with records of all sizes, closed."""
    return filled(fast_root / "sealed", OPTIONS)


@pytest.fixture(scope="module")
def crashed(fast_root):
    """One segment with everything still in its log, as kill -9 leaves it."""
    place = fast_root / "crashed"
    return filled(place / "live", SpoolOptions(), crash_into=place / "copy")


def filled(directory, options, crash_into=None):
    spool = Spool.open(directory, options)
    spool.cursor("one")
    first = 0
    for size in SIZES:
        spool.append_now([numbered(first, size)])
        first += size
    if crash_into:
        shutil.copytree(directory, crash_into)
    spool.close_now()
    return crash_into or directory


def lost_after(directory):
    """Open whatever is there, read everything, append one more. The lost row numbers."""
    spool = Spool.open(directory, OPTIONS)
    try:
        cursor = spool.cursor("one")
        rows = drain(cursor)
        lost = sorted(set(range(TOTAL)) - set(rows))
        assert not rows or rows[-1] < TOTAL
        assert spool.head >= (rows[-1] + 1 if rows else 0)
        inside = [row for row in lost if rows and row < rows[-1]]
        assert len(inside) <= spool.stats().lost_rows <= len(lost)
        if lost and inside:
            assert spool.stats().damaged_segments + spool.stats().foreign_files > 0
        before = spool.head
        after = spool.append_now([Batch.of([1, 2], [3, 4], 5, received_time_ns=6)])
        assert after - before in (2, 2 + HEAD_JUMP)
        chunk = cursor.read(10)
        assert (chunk.start, chunk.end, spool.head) == (after - 2, after, after)
        assert list(chunk.batch.value) == [3, 4]
    finally:
        spool.close_now()
    return lost


def records_hit(lost):
    """Whole records, by their row ranges, that `lost` consists of."""
    hit, first = 0, 0
    gone = set(lost)
    for size in SIZES:
        rows = set(range(first, first + size))
        if rows & gone:
            assert rows <= gone, "part of a record cannot be lost"
            hit += 1
        first += size
    return hit


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.mark.slow
@pytest.mark.parametrize("share", range(3))
def test_one_flipped_bit_in_a_segment_costs_at_most_one_record(sealed, tmp_path, share):
    rng = random.Random(share)
    files = sorted(sealed.glob("*.segment"))
    assert len(files) > 2
    for case in range(24):
        copy = tmp_path / str(case)
        shutil.copytree(sealed, copy)
        victim = copy / rng.choice(files).name
        size = victim.stat().st_size
        # every fourth in the first 128 bytes, where the file header is
        offset = rng.randrange(128) if case % 4 == 0 else rng.randrange(size)
        bit = rng.randrange(8)
        flip(victim, offset, bit)
        assert records_hit(lost_after(copy)) <= 1, (victim.name, offset, bit)
        shutil.rmtree(copy)


@pytest.mark.slow
def test_one_flipped_bit_in_the_log_costs_at_most_one_record(crashed, tmp_path):
    rng = random.Random(7)
    (file,) = crashed.glob("*.segment")
    size = wal_path(file).stat().st_size
    for case in range(36):
        copy = tmp_path / str(case)
        shutil.copytree(crashed, copy)
        # every third in a frame header or in the log's own
        offset = 32 + 4120 * rng.randrange(size // 4120) if case % 3 == 0 else rng.randrange(size)
        offset = (
            rng.randrange(32) if case % 12 == 0 else offset + rng.randrange(24) * (case % 3 == 0)
        )
        flip(wal_path(copy / file.name), min(offset, size - 1), rng.randrange(8))
        assert records_hit(lost_after(copy)) <= 1, offset
        shutil.rmtree(copy)


@pytest.mark.slow
@pytest.mark.parametrize("victim_no", range(3))
def test_a_zeroed_or_random_page_costs_only_the_records_on_it(sealed, tmp_path, victim_no):
    name = sorted(sealed.glob("*.segment"))[victim_no].name
    pages = (sealed / name).stat().st_size // PAGE_BYTES
    rng = random.Random(victim_no)
    for page in range(pages):
        copy = tmp_path / str(page)
        shutil.copytree(sealed, copy)
        data = bytearray((copy / name).read_bytes())
        at = slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
        on_page = data[at].count(record.MAGIC) + 1  # those that begin here, or one that goes on
        data[at] = bytes(PAGE_BYTES) if page % 2 else rng.randbytes(PAGE_BYTES)
        (copy / name).write_bytes(bytes(data))
        assert records_hit(lost_after(copy)) <= on_page, page
        shutil.rmtree(copy)


@pytest.mark.slow
def test_a_segment_cut_anywhere_keeps_the_records_before_the_cut(sealed, tmp_path):
    files = sorted(sealed.glob("*.segment"))
    rng = random.Random(3)
    for case in range(30):
        copy = tmp_path / str(case)
        shutil.copytree(sealed, copy)
        victim = copy / files[case % len(files)].name
        whole = Salvage(victim).starts
        size = rng.randrange(victim.stat().st_size)
        with victim.open("r+b") as file:
            file.truncate(size)
        kept = set(Salvage(victim).starts)
        lost = set(lost_after(copy))
        assert all(start not in lost for start in kept)
        assert all(start in lost for start in set(whole) - kept)
        shutil.rmtree(copy)


def test_the_salvage_reader_finds_every_record_of_an_undamaged_file(sealed):
    found = [s for f in sorted(sealed.glob("*.segment")) for s in Salvage(f).starts]
    assert found == [sum(SIZES[:i]) for i in range(len(SIZES))]


@pytest.fixture
def copy(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "spool")
    return tmp_path / "spool"


def segments(directory):
    return sorted(directory.glob("*.segment"))


def rows_of(path):
    reader = segment.SegmentReader(Disk(), path)
    meta, (_, end) = reader.meta(), reader.last()
    reader.close()
    return list(range(meta.first, end))


@pytest.mark.parametrize("which", [0, 1, -1], ids=["first", "middle", "last"])
def test_a_missing_segment_is_counted_and_offsets_keep(copy, which):
    victim = segments(copy)[which]
    gone = rows_of(victim)
    victim.unlink()
    spool = Spool.open(copy, OPTIONS)
    assert spool.stats().lost_rows == len(gone)
    assert drain(spool.cursor("one")) == [row for row in range(TOTAL) if row not in set(gone)]
    assert spool.head == TOTAL
    cursor = spool.cursor("one")
    end = spool.append_now([numbered(0, 3)])
    assert end == TOTAL + 3 + (HEAD_JUMP if which == -1 else 0)
    assert cursor.read(10).end == end
    cursor.commit_now(end)
    spool.close_now()
    spool = Spool.open(copy, OPTIONS)
    assert spool.head == end, "the jump happens once"
    assert spool.append_now([numbered(0, 1)]) == end + 1
    spool.close_now()


def test_a_duplicated_segment_is_put_aside_and_nothing_comes_twice(copy):
    original = segments(copy)[1]
    twin = copy / segment.file_name(7)
    shutil.copy(original, twin)
    spool = Spool.open(copy, OPTIONS)
    assert spool.stats().foreign_files == 1
    assert (copy / "quarantine" / twin.name).exists()
    assert original.exists()
    assert drain(spool.cursor("one")) == list(range(TOTAL))
    spool.close_now()


def test_swapped_names_do_not_matter(copy):
    one, two, *_ = segments(copy)
    one.rename(copy / "x")
    two.rename(one)
    (copy / "x").rename(two)
    assert lost_after(copy) == []


def test_a_segment_of_another_spool_is_put_aside(copy, tmp_path):
    other = filled(tmp_path / "other", OPTIONS)
    shutil.copy(segments(other)[0], copy / segment.file_name(99_999))
    spool = Spool.open(copy, OPTIONS)
    assert spool.stats().foreign_files == 1
    assert spool.head == TOTAL
    assert drain(spool.cursor("one")) == list(range(TOTAL))
    spool.close_now()


@pytest.mark.parametrize(
    "content", [b"", b"not a database", bytes(8192), b"SQLite format 3\0" + bytes(4080)]
)
def test_a_file_that_holds_no_rows_does_not_matter(copy, content):
    (copy / segment.file_name(50_000)).write_bytes(content)
    assert lost_after(copy) == []


def test_a_newer_format_is_refused_and_left_as_it_is(copy):
    path = segments(copy)[0]
    db = sqlite3.connect(path)
    (body,) = db.execute("SELECT body FROM meta").fetchone()
    text = body[8:].replace(b'"format": 1', b'"format": 2')
    import struct
    import zlib

    db.execute("UPDATE meta SET body = ?", (struct.pack("<4sI", b"HGM1", zlib.crc32(text)) + text,))
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(StorageFault, match="newer version"):
        Spool.open(copy, OPTIONS)
    assert path.read_bytes() == before


def test_the_damaged_file_is_kept_as_evidence_once(copy):
    victim = segments(copy)[1]
    flip(victim, victim.stat().st_size - 100)
    damaged = victim.read_bytes()
    for copies in (1, 0):
        spool = Spool.open(copy, OPTIONS)
        drain(spool.cursor("one"))
        assert (copy / "quarantine" / victim.name).read_bytes() == damaged
        assert spool.stats().quarantined_files == copies
        spool.close_now()


def test_damage_in_the_segment_being_written_is_found_and_writing_goes_on(tmp_path):
    spool = Spool.open(tmp_path, SpoolOptions(tail_rows_max=1))
    cursor = spool.cursor("one")
    for first in range(0, 500, 100):
        spool.append_now([numbered(first, 100)])
    (file,) = segments(tmp_path)
    log = wal_path(file)
    at = log.read_bytes().find(b"HGB1", log.stat().st_size // 2)
    flip(log, at + 500)
    rows = drain(cursor)
    assert 400 <= len(rows) <= 500
    assert spool.stats().lost_rows == 500 - len(rows) == 100
    spool.append_now([numbered(500, 5)])
    assert drain(cursor) == list(range(500, 505))
    spool.close_now()


@pytest.mark.parametrize("offset", [0, 5, 20, 60])
@pytest.mark.parametrize("slots", [(0,), (1,), (0, 1)])
def test_damaged_positions_bring_rows_twice_rather_than_never(copy, offset, slots):
    spool = Spool.open(copy, OPTIONS)
    cursor = spool.cursor("one")
    drain(cursor)
    for committed in (10, 20, 30):
        cursor.commit_now(committed)
    spool.close_now()
    for slot in slots:
        flip(copy / "positions", SLOT_BYTES * slot + offset)
    spool = Spool.open(copy, OPTIONS)
    assert spool.stats().cursors_reset == (len(slots) == 2)
    assert spool.stats().lost_rows == 0
    again = spool.cursor("one")
    assert again.committed <= 30
    assert drain(again) == list(range(again.committed, TOTAL))
    spool.close_now()


def test_a_missing_positions_file_restarts_consumers_at_the_oldest_row(copy):
    (copy / "positions").unlink()
    spool = Spool.open(copy, OPTIONS)
    assert spool.stats().cursors_reset == 1
    assert drain(spool.cursor("one")) == list(range(TOTAL))
    spool.close_now()


def test_falling_back_to_the_older_slot_never_points_at_forgotten_rows(copy):
    spool = Spool.open(copy, OPTIONS)
    cursor = spool.cursor("one")
    drain(cursor)
    cursor.commit_now(TOTAL - 5)
    oldest = spool.oldest
    assert oldest > 0
    shutil.copytree(copy, copy.parent / "crash")
    spool.close_now()
    for slot in (0, 1):
        again_in = copy.parent / f"crash-{slot}"
        shutil.copytree(copy.parent / "crash", again_in)
        flip(again_in / "positions", SLOT_BYTES * slot + 40)
        spool = Spool.open(again_in, OPTIONS)
        assert spool.stats().lost_rows == 0
        assert drain(spool.cursor("one")) == list(range(TOTAL - 5, TOTAL))
        spool.close_now()


def test_a_start_reads_no_payload_however_large_the_backlog(sealed, monkeypatch):
    def refuse(_body):
        raise AssertionError("a payload was read")

    monkeypatch.setattr(record, "decode", refuse)
    spool = Spool.open(sealed, OPTIONS)
    assert spool.head == TOTAL
    spool.close_now()


class ForgetfulDisk(Disk):
    """Cannot copy: the disk is full."""

    def copy(self, source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")


def test_evidence_that_cannot_be_kept_does_not_stop_reading(copy):
    victim = segments(copy)[1]
    flip(victim, victim.stat().st_size - 100)
    spool = Spool.open(copy, OPTIONS, disk=ForgetfulDisk())
    rows = drain(spool.cursor("one"))
    assert 0 < spool.stats().lost_rows == TOTAL - len(rows)
    assert spool.stats().quarantined_files == 0
    assert list((copy / "quarantine").iterdir()) == []
    spool.close_now()


def test_a_read_that_fails_for_no_fault_of_the_file_loses_no_row(copy):
    class Exhausted(Disk):
        out = False

        def connect(self, path, *, read_only=False, immutable=False):
            if self.out:
                error = sqlite3.OperationalError("unable to open database file")
                error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
                raise error
            return super().connect(path, read_only=read_only, immutable=immutable)

    disk = Exhausted()
    spool = Spool.open(copy, OPTIONS, disk=disk)
    cursor = spool.cursor("one")
    disk.out = True
    with pytest.raises(StorageFault, match="unable to open"):
        cursor.read(10)
    disk.out = False
    assert drain(cursor) == list(range(TOTAL))
    assert spool.stats().damaged_segments == 0
    spool.close_now()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET body = 5 WHERE start = 4",
        "UPDATE record SET body = 'text' WHERE start = 4",
        "UPDATE record SET body = zeroblob(length(body)) WHERE start = 4",
        "UPDATE record SET start = 5 WHERE start = 4",
        "UPDATE record SET count = 'x' WHERE start = (SELECT max(start) FROM record)",
        "DELETE FROM meta",
        "UPDATE meta SET body = x'00112233445566778899'",
        "UPDATE meta SET body = 7",
        "DELETE FROM record WHERE start = 4",
    ],
)
def test_a_file_that_sqlite_finds_whole_and_we_do_not_costs_at_most_one_record(copy, change):
    db = sqlite3.connect(segments(copy)[0])
    db.execute(change)
    db.commit()
    db.close()
    assert records_hit(lost_after(copy)) <= 1


def test_quarantine_has_a_limit(copy):
    folder = copy / "quarantine"
    folder.mkdir()
    for number in range(32):
        (folder / str(number)).write_text("older evidence")
    victim = segments(copy)[1]
    flip(victim, victim.stat().st_size - 100)
    lost_after(copy)
    assert len(list(folder.iterdir())) == 32


@pytest.mark.parametrize("cut", [0, 3, 24, 100, -1])
def test_a_record_of_the_wrong_length_is_refused(cut):
    body = record.encode(5, numbered(5, 10))
    assert record.decode(body)[0] == 5
    with pytest.raises(record.DamagedRecord):
        record.decode(body[:cut])


def test_every_single_bit_of_a_record_is_covered_by_its_checksum():
    body = record.encode(123, numbered(123, 3))
    for offset in range(len(body)):
        for bit in range(8):
            damaged = bytearray(body)
            damaged[offset] ^= 1 << bit
            with pytest.raises(record.DamagedRecord):
                record.decode(bytes(damaged))


def lost_with_one_slot(place) -> list[int]:
    """Every row is committed and its segment deleted; then one slot of the positions is damaged.
    For either slot what the next start believes to have lost."""
    spool = Spool.open(place, OPTIONS)
    cursor = spool.cursor("one")
    for first in range(0, 3_000, 300):
        spool.append_now([numbered(first, 300)])
    drain(cursor)
    cursor.commit_now(cursor.position)
    assert len(list(place.glob("*.segment"))) <= 1, "the sealed ones are gone"
    lost = []
    for slot in (0, 1):
        copy = place.with_name(f"{place.name}-{slot}")
        shutil.copytree(place, copy)
        flip(copy / "positions", SLOT_BYTES * slot + 40)
        again = Spool.open(copy, OPTIONS)
        lost.append(again.stats().lost_rows)
        again.close_now()
    spool.close_now()
    return lost


def test_either_slot_alone_knows_of_the_segments_that_were_deleted(tmp_path, monkeypatch):
    assert lost_with_one_slot(tmp_path / "whole") == [0, 0]
    told_once = lambda self, **changes: self.write(replace(self.state, **changes))  # noqa: E731
    monkeypatch.setattr(Positions, "write_twice", told_once)
    assert max(lost_with_one_slot(tmp_path / "mutant")) > 0, "the second writing does nothing"
