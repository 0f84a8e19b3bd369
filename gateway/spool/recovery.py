"""From whatever files are there to a catalog: the start, which is never refused for damage.

For every file: what it says of itself, where its rows end, and whether that can be believed. The
end of a segment is taken from the next one's `previous_end` where there is one, else from its last
record. Only what looks wrong is searched for records; a healthy backlog of any size costs one small
read a file.

A log with more frames in it than SQLite accepts is either an ordinary torn end (or what an earlier
use of the log left behind), or damage in the middle, which SQLite silently takes for the end. Both
look the same to it, so the log is searched for records behind the end SQLite sees, and those found
are put back.

What no one can tell from a torn end: a damaged **last** committed frame. Its rows are lost, and
counted if any consumer had committed or the spool had closed since.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gateway.model.errors import StorageFault
from gateway.spool import record
from gateway.spool.catalog import Catalog, Segment
from gateway.spool.disk import PARTIAL, Disk
from gateway.spool.positions import State
from gateway.spool.quarantine import Quarantine
from gateway.spool.salvage import Salvage, frames_in, wal_path
from gateway.spool.segment import (
    SUFFIX,
    UNREADABLE,
    DamagedSegment,
    Meta,
    NewerFormat,
    SegmentReader,
    first_of_name,
    is_damage,
    segment_bytes,
)

HEAD_JUMP = 1 << 20
"""Rows skipped after the newest segment turned out damaged: offsets handed out for rows that can no
longer be seen must not be given to other rows, because a sink may know them already."""


class _Unfinished(Exception):
    """SQLite sees no tables: a crash while the file was made, or a damaged log."""


@dataclass(slots=True)
class Found:
    """One file as read at the start."""

    path: Path
    meta: Meta | None  # None: cannot be read
    first: int
    end: int | None  # None: cannot be read
    damaged: bool = False
    found_end: int = 0  # without meta: where the records end that can still be read


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the spool goes on from."""

    spool_id: str  # "" for a new spool
    head: int
    skip: int  # rows to leave out before the next one is written


def recover(
    directory: Path,
    state: State,
    *,
    named: str,
    disk: Disk,
    catalog: Catalog,
    quarantine: Quarantine,
) -> Recovered:
    """Fill `catalog`. `named` is the spool's id as it is known where the positions are lost, or "".

    Raises StorageFault for a newer format, or when files cannot be opened.
    """
    for unfinished in directory.glob(f"*{PARTIAL}*"):  # a crash in the middle of an exchange
        disk.unlink(unfinished)
    found = [_examine(path, disk, quarantine) for path in sorted(directory.glob(f"*{SUFFIX}"))]
    present = [each for each in found if each is not None]
    spool_id = state.spool_id or named or _most_common(present)
    ours = _only_ours(present, spool_id, catalog, quarantine)
    ours.sort(key=lambda each: (each.first, _is_misnamed(each)))
    ours = [each for each in ours if not _removed_as_empty(each, disk)]
    ours = _without_duplicates(ours, catalog, quarantine)
    for before, after in itertools.pairwise(ours):
        _settle_end(before, after)
    newest_damaged = bool(ours) and _settle_newest(ours[-1])
    expected = state.forgotten if state.spool_id else (ours[0].first if ours else 0)
    for each in ours:
        previous_end = each.meta.previous_end if each.meta else each.first
        catalog.lose(expected, min(previous_end, each.first))
        assert each.end is not None
        thinned_s = each.meta.thinned_s if each.meta else 0
        size_bytes = segment_bytes(each.path)
        catalog.add(Segment(each.path, each.first, each.end, size_bytes, thinned_s=thinned_s))
        expected = max(expected, each.end)
        if each.damaged:
            open_salvage(catalog.all()[-1], catalog, quarantine)
    ended = expected
    known = max(state.head, *state.cursors.values(), 0)
    catalog.lose(ended, known)
    unsure = newest_damaged or ended < known
    return Recovered(spool_id, max(ended, known), HEAD_JUMP if unsure else 0)


def open_salvage(segment: Segment, catalog: Catalog, quarantine: Quarantine) -> None:
    """From here on `segment` is read record by record; what is missing is counted."""
    if segment.salvage is not None:
        return
    catalog.damage.quarantined_files += quarantine.copy(segment.path)
    salvage = Salvage(segment.path)
    for low, high in salvage.holes(segment.first, segment.end):
        catalog.lose(low, high)
    catalog.damage.damaged_segments += 1
    segment.salvage = salvage


def remove_segment(path: Path, disk: Disk) -> None:
    """Delete the file and what SQLite keeps beside it. Raises OSError."""
    for suffix in ("-wal", "-shm", ""):
        disk.unlink(path.with_name(path.name + suffix))


def _examine(path: Path, disk: Disk, quarantine: Quarantine) -> Found | None:
    """What one file says; None for one that was never finished, which is removed."""
    named = first_of_name(path)
    found = Found(path, None, -1 if named is None else named, None)
    try:
        if path.stat().st_size == 0 and frames_in(path) == 0:
            disk.unlink(path)
            return None
        healed = frames_in(path) == 0 or _fold_in(path, disk, quarantine)
        reader = SegmentReader(disk, path)
        try:
            found.meta = reader.meta()
            if found.meta is None:
                return _unfinished(found, disk)
            found.first = found.meta.first
            start, end = reader.last()
            found.end = max(end, found.first)
            found.damaged = not healed or (end > 0 and start < found.first)
        finally:
            reader.close()
    except _Unfinished:
        return _unfinished(found, disk)
    except DamagedSegment:
        found.damaged = True
    except NewerFormat as error:
        raise StorageFault(f"{path}: written by a newer version ({error})") from error
    except (sqlite3.Error, OSError) as error:
        raise StorageFault(f"{path}: {error}") from error
    return found


def _unfinished(found: Found, disk: Disk) -> Found | None:
    """A file without tables: a crash while it was made, unless records say otherwise."""
    if Salvage(found.path).starts:
        found.damaged = True
        return found
    remove_segment(found.path, disk)
    return None


def _fold_in(path: Path, disk: Disk, quarantine: Quarantine) -> bool:
    """Fold a log left by a crash into its file; whether nothing in it had to be searched for.

    SQLite deletes the log when it closes the file, even one it could not make sense of, so the log
    is held by a second name until that has gone well.
    """
    log, held = wal_path(path), path.with_name(path.name + "-held")
    held.unlink(missing_ok=True)
    held.hardlink_to(log)
    try:
        whole = _checkpointed(path, disk, quarantine)
    except (DamagedSegment, _Unfinished):
        held.replace(log)
        held.unlink(missing_ok=True)  # replacing a name by itself leaves both
        raise
    held.unlink()
    return whole


def _checkpointed(path: Path, disk: Disk, quarantine: Quarantine) -> bool:
    try:
        db = disk.connect(path)
        try:
            for pragma in ("synchronous=FULL", "wal_autocheckpoint=0", "cell_size_check=ON"):
                db.execute(f"PRAGMA {pragma}").fetchall()
            row = db.execute("SELECT start, count FROM record ORDER BY start DESC").fetchone()
            accepted = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            behind = accepted < frames_in(path)
            end = sum(row) if row else first_of_name(path) or 0
            whole = not (behind and _put_back(db, path, end, quarantine))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            db.close()
    except UNREADABLE as error:
        if "no such table" in str(error):
            raise _Unfinished from error
        if not is_damage(error):
            raise
        raise DamagedSegment(str(error)) from error
    except TypeError as error:  # a count that is no number
        raise DamagedSegment(str(error)) from error
    return whole


def _put_back(db: sqlite3.Connection, path: Path, end: int, quarantine: Quarantine) -> bool:
    """Insert what records the log still holds behind the end SQLite accepted; whether some between
    them are missing.

    Held in memory meanwhile, because inserting overwrites the frames they stand in: at most a
    log's worth, which a checkpoint every few MiB bounds.
    """
    salvage = Salvage(path, above=end)
    if not salvage.starts:
        return False  # an ordinary torn end, or frames of an earlier use of the log
    quarantine.copy(path)
    records = [
        (start, len(batch), record.encode(start, batch)) for start, batch in salvage.records(end)
    ]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO record VALUES (?, ?, ?)", records)
    db.execute("COMMIT")
    return bool(salvage.holes(end, salvage.end))


def _removed_as_empty(found: Found, disk: Disk) -> bool:
    """A whole segment without a row is what a crash right after its creation leaves."""
    if found.damaged or found.end != found.first:
        return False
    remove_segment(found.path, disk)
    return True


def _most_common(found: list[Found]) -> str:
    names = Counter(each.meta.spool_id for each in found if each.meta)
    return max(names, key=lambda name: (names[name], name)) if names else ""


def _only_ours(
    found: list[Found], spool_id: str, catalog: Catalog, quarantine: Quarantine
) -> list[Found]:
    """Without files of another spool and files that hold no row of anybody."""
    ours = []
    for each in found:
        foreign = each.meta.spool_id != spool_id if each.meta else False
        if each.meta is None:  # then its records say where it belongs; a name may be anything
            salvage = Salvage(each.path)
            foreign = not salvage.starts
            each.first, each.found_end = salvage.first, salvage.end
        if foreign:
            _put_aside(each.path, catalog, quarantine)
        else:
            ours.append(each)
    return ours


def _put_aside(path: Path, catalog: Catalog, quarantine: Quarantine) -> None:
    catalog.damage.foreign_files += 1
    with contextlib.suppress(OSError):
        catalog.damage.quarantined_files += quarantine.move(path)


def _without_duplicates(
    found: list[Found], catalog: Catalog, quarantine: Quarantine
) -> list[Found]:
    """One file for each first row: the whole one, else the one with the right name. And no damaged
    one whose every record stands in a whole one; nor, if its name is not that of its first row
    either, in one that is named so: it may be another spool's, and would cut ours short."""
    kept: list[Found] = []
    whole = [(each.first, each.end) for each in found if not each.damaged and each.end is not None]
    named = [(each.first, each.end or each.found_end) for each in found if not _is_misnamed(each)]
    for each in found:
        others = [*whole, *named] if _is_misnamed(each) else whole
        if each.meta is None and any(
            first <= each.first and each.found_end <= end for first, end in others
        ):
            _put_aside(each.path, catalog, quarantine)
            continue
        if kept and kept[-1].first == each.first:
            loser = kept[-1] if kept[-1].damaged and not each.damaged else each
            if loser is kept[-1]:
                kept[-1] = each
            _put_aside(loser.path, catalog, quarantine)
        else:
            kept.append(each)
    return kept


def _is_misnamed(found: Found) -> bool:
    return first_of_name(found.path) != found.first


def _settle_end(before: Found, after: Found) -> None:
    """The next segment knows where this one ended. Rows behind that are of a group whose write
    failed: acknowledged to nobody, and passed over by then."""
    known = after.meta.previous_end if after.meta else None
    if known is not None and before.first <= known <= after.first:
        before.damaged = before.damaged or before.end is None or before.end < known
        before.end = known
    elif before.end is None or not before.first <= before.end <= after.first:
        before.damaged = True
        before.end = after.first


def _settle_newest(newest: Found) -> bool:
    """Nothing stands behind the newest one, so its own records must say where it ends."""
    if newest.end is not None and not newest.damaged:
        return False
    newest.end = max(Salvage(newest.path).end, newest.first)
    newest.damaged = True
    return True
