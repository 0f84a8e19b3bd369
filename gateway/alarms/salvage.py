"""Getting what can be got out of a damaged journal file. The start is never refused.

The damaged files are first copied aside, untouched, into `quarantine/`. A working copy gets the
first page (file header and schema) of a new journal, which is the same because all tables are made
at once, and is read row by row, around the pages SQLite cannot read; rows it has lost the way to
are carved out of the bare pages. Rows are taken as bytes: chain and evidence stay as they were,
with the gaps showing.

Not here: what to do with the rows (journal.py).
"""

from __future__ import annotations

import contextlib
import filecmp
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.alarms.carve import carve
from gateway.alarms.chain import StoredRow

STEP = 256
"""Rows read at once; an unreadable step is gone through row by row."""
PROBE_MAX = 200_000
"""Single rows tried in one unreadable stretch before the rest of it is given up: a few seconds."""


ROW_SIZE_MIN = 256
"""No record is shorter: tells how many rows a file can hold when nothing else does."""


@dataclass
class Salvaged:
    """What was readable."""

    events: list[StoredRow] = field(default_factory=list)
    live: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    cursors: list[tuple[str, int]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


def quarantine(files: list[Path], directory: Path) -> list[Path]:
    """Copy `files` into `directory` under names not used before. What lies there already, because
    an earlier start did not come to the end of its rescue, is not copied again."""
    directory.mkdir(mode=0o700, exist_ok=True)
    files = [path for path in files if path.exists()]
    number = 1
    while files:
        there = [directory / f"{number:04d}-{path.name}" for path in files]
        if not any(path.exists() for path in there):
            break
        if all(map(_is_same, files, there)):
            return there
        number += 1
    kept = []
    for path in files:
        target = directory / f"{number:04d}-{path.name}"
        part = directory / f"{path.name}.part"  # of a start that was killed: copied over
        shutil.copyfile(path, part)
        part.replace(target)
        kept.append(target)
    return kept


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(path, other, shallow=False)


def salvage(damaged: Path, fresh: Path, work: Path) -> Salvaged:
    """Read `damaged` (with its -wal), working in `work`; `fresh` is a new, empty journal."""
    copy = work / "copy.db"
    _copy_database(damaged, copy)
    _replace_first_page(copy, fresh)
    rows_max = copy.stat().st_size // ROW_SIZE_MIN
    found = Salvaged()
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(copy)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        found = _read(db, rows_max)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reached = {row.gseq: row for row in found.events if isinstance(row.gseq, int)}
    found.events = list((carve(copy) | reached).values())
    return found


def _copy_database(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    wal = source.with_name(source.name + "-wal")
    if wal.exists():
        shutil.copyfile(wal, target.with_name(target.name + "-wal"))


def _replace_first_page(path: Path, fresh: Path) -> None:
    with path.open("r+b") as damaged, fresh.open("rb") as good:
        page = bytearray(good.read(4096))
        size = damaged.seek(0, 2)
        page[28:32] = (-(-size // 4096)).to_bytes(4, "big")  # pages in the file
        damaged.seek(0)
        damaged.write(page)


def _read(db: sqlite3.Connection, rows_max: int) -> Salvaged:
    found = Salvaged()
    with contextlib.suppress(sqlite3.Error):
        found.meta = dict(db.execute("SELECT name, value FROM meta"))
    with contextlib.suppress(sqlite3.Error):
        found.cursors = list(db.execute("SELECT name, gseq FROM cursor"))
    live = "SELECT rowid, alarm_key, record, sum FROM live"
    found.live = _each(db, live, "rowid", rows_max)
    events = _each(db, "SELECT gseq, * FROM event", "gseq", rows_max)
    found.events = [StoredRow(*row) for row in events]
    return found


def _each(db: sqlite3.Connection, select: str, key: str, rows_max: int) -> list[Any]:
    """Every readable row, less its leading key, around what cannot be read."""
    one = f"{select} WHERE {key} = ?"
    many = f"{select} WHERE {key} > ? ORDER BY {key} LIMIT {STEP}"
    last = _last_key(db, select, key, rows_max)
    rows: list[Any] = []
    at = probed = 0
    while at < last and probed < PROBE_MAX:
        try:
            step = db.execute(many, (at,)).fetchall()
        except sqlite3.Error:
            for probe in range(at + 1, at + 1 + STEP):
                with contextlib.suppress(sqlite3.Error):
                    rows.extend(row[1:] for row in db.execute(one, (probe,)))
            at += STEP
            probed += STEP
            continue
        if not step:
            break
        rows.extend(row[1:] for row in step)
        at = step[-1][0]
    return rows


def _last_key(db: sqlite3.Connection, select: str, key: str, rows_max: int) -> int:
    """The greatest key; else the head on record; else as many as the file could hold."""
    for question in (
        f"{select} ORDER BY {key} DESC LIMIT 1",
        "SELECT value FROM meta WHERE name = 'head'",
    ):
        with contextlib.suppress(sqlite3.Error):
            row = db.execute(question).fetchone()
            if row and isinstance(row[0], int):
                return row[0]
    return rows_max
