r"""The durable point table: which index means which point, for good.

Every row in the spool and in a store names its point by index, so a lost or changed index makes
years of data mean something else. Therefore everything is kept **twice, in two kinds of file**:

    points.sqlite     point (idx, id, body), device (idx, id, body); body is JSON
    points.journal    one line a declaration, appended and synced before SQLite commits:
                      crc32 in hex | JSON ["what", index, "body"] | \n
    points.journal.1  the generation before the last compaction

At open both are read and joined. An entry either of them has is good; a damaged file is set aside
as `*.damaged` and written anew from the other. What is refused, with StorageFault, because going on
would guess: the two disagree on an id, or an index is in neither while a higher one exists.

What a protocol declared is stored; what the site configured is laid over it in memory only
(`overlay`), so that taking a line out of the point table takes its effect out too. A configured
point that no protocol has declared yet gets its index at open.

An index is never reused and nothing is ever removed. After a failed write nothing new is declared
until the registry is opened again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gateway.model.errors import StorageFault
from gateway.model.point import Device, Point, PointKind, PointTable, overlay
from gateway.spool.disk import Disk
from gateway.spool.segment import is_damage

_COMPACT_FACTOR = 4  # lines for each entry before the journal is written anew
_KINDS = ("point", "device")
_BLANK_POINT, _BLANK_DEVICE = Point(id="-"), Device(id="-", kind="")

Row = tuple[str, int, str]  # "point" or "device", index, body as JSON


class Registry:
    """Declares points and devices; implements gateway.contract.adapter.Declare.

    `table` is shared with everyone and changes only in the thread that declares, which is the event
    loop's. `on_change`, when set, is called there with the table after every change.
    """

    def __init__(self, path: Path, configured: Sequence[Point], disk: Disk) -> None:
        """Use `open`."""
        self.table = PointTable()
        self.on_change: Callable[[PointTable], None] | None = None
        self._path = path
        self._configured = {point.id: point for point in configured}
        self._fault: StorageFault | None = None
        self._lock: asyncio.Lock | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: tuple[Future[None], Sequence[Point], Sequence[Device]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._disk = disk
        self._store = _Store(path, disk)
        for body in self._store.found["point"]:
            self.table.put(self._overlaid(_point_of(body)))
        for body in self._store.found["device"]:
            self.table.put_device(_device_of(body))
        self.recovered = self._store.recovered

    @classmethod
    def open(
        cls, path: Path, configured: Sequence[Point] = (), *, disk: Disk | None = None
    ) -> Registry:
        """Read, repair from the other copy if need be, and declare what is configured.

        `path` is the SQLite file; the journal stands beside it. Raises StorageFault when the
        indices cannot be known for certain.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            registry = cls(path, configured, disk or Disk())
        except (OSError, sqlite3.Error) as error:
            raise StorageFault(f"{path}: {error}") from error
        try:
            registry.declare_now([Point(id=p.id) for p in configured if p.id not in registry.table])
        except BaseException:
            registry.close()
            raise
        return registry

    async def points(self, points: Sequence[Point]) -> list[int]:
        """The point_index of each, in order; durable on return. Raises StorageFault."""
        if self._new_points(points):
            await self._declare(points, ())
        return [self.table.index(point.id) for point in points]

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        """The device_index of each, in order; durable on return. Raises StorageFault."""
        if self.table.changed_devices(devices):
            await self._declare((), devices)
        return [self.table.device_index(device.id) for device in devices]

    def declare_now(
        self, points: Sequence[Point] = (), devices: Sequence[Device] = ()
    ) -> list[int]:
        """As both of the above, blocking: before the loop runs, from `on_change`, in replays.

        Waits for a declaration that is being written. The point indices.
        """
        if self._writing is not None:
            written, of_points, of_devices = self._writing
            written.result()
            self._apply(of_points, of_devices)
        rows = self._rows(points, devices)
        if rows:
            self._persist(rows)
            self._apply(points, devices)
        return [self.table.index(point.id) for point in points]

    def for_adapter(self, name: str) -> AdapterDeclare:
        """A Declare that writes `name` into every point and device."""
        return AdapterDeclare(self, name)

    def close(self) -> None:
        self._thread.shutdown()  # a declaration being written is finished
        self._store.close()

    async def _declare(self, points: Sequence[Point], devices: Sequence[Device]) -> None:
        """Written to the end even when the caller is cancelled: an index once on the disk and not
        in the table would be given again."""
        task = asyncio.create_task(self._declare_shielded(tuple(points), tuple(devices)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _declare_shielded(self, points: Sequence[Point], devices: Sequence[Device]) -> None:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            rows = self._rows(points, devices)  # again: someone may have been faster
            if rows:
                written = self._thread.submit(self._persist, rows)
                self._writing = (written, points, devices)
                try:
                    await asyncio.wrap_future(written)
                finally:
                    self._writing = None
                self._apply(points, devices)

    def _overlaid(self, declared: Point) -> Point:
        configured = self._configured.get(declared.id)
        return declared if configured is None else overlay(declared, configured)

    def _new_points(self, points: Iterable[Point]) -> list[Point]:
        """Those that are not in the table as they would be with the site's table laid over."""
        latest = {point.id: point for point in points}
        return [p for p in latest.values() if self.table.get(p.id) != self._overlaid(p)]

    def _rows(self, points: Sequence[Point], devices: Sequence[Device]) -> list[Row]:
        """What must be written, with the indices new entries will have."""
        rows: list[Row] = []
        free = len(self.table)
        for point in self._new_points(points):
            index = self.table.index(point.id) if point.id in self.table else free
            free += index == free
            rows.append(("point", index, _json_of(point, _BLANK_POINT)))
        free = len(self.table.devices)
        for device in self.table.changed_devices(devices):
            known = self.table.device(device.id) is not None
            index = self.table.device_index(device.id) if known else free
            free += index == free
            rows.append(("device", index, _json_of(device, _BLANK_DEVICE)))
        return rows

    def _persist(self, rows: Sequence[Row]) -> None:
        if self._fault is not None:
            raise StorageFault(str(self._fault))
        try:
            self._store.write(rows)
        except (OSError, sqlite3.Error) as error:
            self._fault = StorageFault(f"{self._path}: {error}")
            raise self._fault from error

    def _apply(self, points: Sequence[Point], devices: Sequence[Device]) -> None:
        new_points = self._new_points(points)
        new_devices = self.table.changed_devices(devices)
        for point in new_points:
            self.table.put(self._overlaid(point))
        for device in new_devices:
            self.table.put_device(device)
        if self.on_change is not None and (new_points or new_devices):
            self.on_change(self.table)


class AdapterDeclare:
    """A Declare for one adapter."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    async def points(self, points: Sequence[Point]) -> list[int]:
        name = self._name
        return await self._registry.points(
            [p if p.adapter == name else replace(p, adapter=name) for p in points]
        )

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        return await self._registry.devices([replace(d, adapter=self._name) for d in devices])


class _Store:
    """The two files."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._journal_path = path.with_suffix(".journal")
        self._disk = disk
        self._lock = threading.Lock()
        self._write_anew = False  # the journal
        self.recovered: list[str] = []  # names of files that were damaged and written anew
        from_sqlite = self._read_sqlite()
        from_journal, lines = self._read_journal()
        entries = _joined(from_sqlite or {}, from_journal, path)
        self.found = {what: _in_order(entries, what, path) for what in _KINDS}
        self._db = self._connect()
        self._descriptor = -1
        try:
            if from_sqlite != entries:
                self._write_sqlite([(w, i, body) for (w, i), body in entries.items()])
            self._write_anew |= lines > _COMPACT_FACTOR * len(entries) + 64
            if self._write_anew or from_journal != entries:
                self._write_journal_anew(entries)
            self._descriptor = os.open(
                self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
            disk.sync_directory(path.parent)
        except BaseException:
            self.close()
            raise

    def write(self, rows: Sequence[Row]) -> None:
        """Both files, durable on return. Raises OSError, sqlite3.Error."""
        with self._lock:
            data = b"".join(_line(row) for row in rows)
            size = os.fstat(self._descriptor).st_size
            self._disk.write_at(self._descriptor, data, size)
            self._write_sqlite(rows)

    def close(self) -> None:
        self._db.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _connect(self) -> sqlite3.Connection:
        db = self._disk.connect(self._path)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        for what in _KINDS:
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {what}"
                " (idx INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body TEXT NOT NULL)"
            )
        return db

    def _write_sqlite(self, rows: Sequence[Row]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for what, index, body in rows:
            self._db.execute(
                f"INSERT INTO {what} VALUES (?, ?, ?)"  # noqa: S608 - one of two words of ours
                " ON CONFLICT (idx) DO UPDATE SET body = excluded.body",
                (index, json.loads(body)["id"], body),
            )
        self._db.execute("COMMIT")

    def _read_sqlite(self) -> dict[tuple[str, int], str] | None:
        """Every entry; None when the file is damaged, which is then set aside."""
        if not self._path.exists():
            return {}
        entries: dict[tuple[str, int], str] = {}
        try:
            db = self._disk.connect(self._path)
            try:
                if db.execute("PRAGMA integrity_check(1)").fetchone() != (b"ok",):
                    raise sqlite3.DatabaseError("integrity")
                tables = {
                    name.decode()
                    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
                }
                for what in _KINDS if tables else ():
                    rows = db.execute(f"SELECT idx, id, body FROM {what}")  # noqa: S608
                    for index, row_id, body in rows:
                        entries[what, index] = body.decode()
                        # SQLite has no checksum: the id stands twice, and one bit changes one
                        if index is None or json.loads(body)["id"] != row_id.decode():
                            raise sqlite3.DatabaseError("id and body differ")
            finally:
                db.close()
        except (sqlite3.DatabaseError, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, sqlite3.Error) and not is_damage(error):
                raise
            self._set_aside(self._path)
            return None
        return entries

    def _read_journal(self) -> tuple[dict[tuple[str, int], str], int]:
        """Every entry that is whole, the last line of each winning, and the lines read."""
        if not self._journal_path.exists():
            return {}, 0
        entries: dict[tuple[str, int], str] = {}
        data = self._journal_path.read_bytes()
        lines = data.split(b"\n")
        lines.pop()  # behind the last newline: nothing, or a write that was never acknowledged
        torn, damaged = data != b"" and not data.endswith(b"\n"), False
        for line in lines:
            row = _row_of(line)
            if row is None:
                damaged = True
            else:
                entries[row[0], row[1]] = row[2]
        if damaged:
            self._set_aside(self._journal_path, keep=True)
        self._write_anew = torn or damaged
        return entries, len(lines)

    def _write_journal_anew(self, entries: dict[tuple[str, int], str]) -> None:
        """A new generation; the one before stays beside it."""
        partial = self._journal_path.with_name(self._journal_path.name + ".part")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            lines = b"".join(_line((what, i, body)) for (what, i), body in entries.items())
            self._disk.write_at(descriptor, lines, 0)
        finally:
            os.close(descriptor)
        before = self._journal_path.with_name(self._journal_path.name + ".1")
        if self._journal_path.exists():
            before.unlink(missing_ok=True)
            before.hardlink_to(self._journal_path)
        partial.replace(self._journal_path)

    def _set_aside(self, path: Path, *, keep: bool = False) -> None:
        """Keep the evidence of damage; `keep` leaves the file itself where it is."""
        self.recovered.append(path.name)
        aside = path.with_name(path.name + ".damaged")
        if keep:
            self._disk.copy(path, aside)
            return
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _line(row: Row) -> bytes:
    what, index, body = row
    text = json.dumps([what, index, body], ensure_ascii=False).encode()
    return b"%08x " % zlib.crc32(text) + text + b"\n"


def _row_of(line: bytes) -> Row | None:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return None
    what, index, body = json.loads(text)
    return what, index, body


def _joined(
    one: dict[tuple[str, int], str], other: dict[tuple[str, int], str], path: Path
) -> dict[tuple[str, int], str]:
    """Both together; where both have an entry the journal's, which is written first."""
    for key in one.keys() & other.keys():
        ids = json.loads(one[key])["id"], json.loads(other[key])["id"]
        if ids[0] != ids[1]:
            raise StorageFault(
                f"{path}: {key[0]} {key[1]} is {ids[0]} here and {ids[1]} in the journal;"
                " restore both files from one backup"
            )
    return dict(sorted({**one, **other}.items()))


def _in_order(entries: dict[tuple[str, int], str], what: str, path: Path) -> list[str]:
    """Bodies by index, without a gap and without one id twice."""
    bodies = [(index, body) for (kind, index), body in entries.items() if kind == what]
    for expected, (index, _) in enumerate(bodies):
        if index != expected:
            raise StorageFault(
                f"{path}: {what} {expected} is in neither copy of the registry, so later indices"
                " cannot be trusted; restore both files from one backup"
            )
    ids = [json.loads(body)["id"] for _, body in bodies]
    if len(set(ids)) != len(ids):
        raise StorageFault(f"{path}: one {what} id has two indices; restore from one backup")
    return [body for _, body in bodies]


def _json_of(entry: Point | Device, blank: Point | Device) -> str:
    """What differs from a blank one, and the id."""
    filled: dict[str, Any] = {}
    for each in fields(entry):
        value = getattr(entry, each.name)
        if each.name in ("id", "kind") or value != getattr(blank, each.name):
            filled[each.name] = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(filled, ensure_ascii=False)


def _known_fields(body: str, kind: type[Point | Device]) -> Iterator[tuple[str, Any]]:
    """A newer version's fields are left out, not refused: the index is what matters here."""
    names = {each.name for each in fields(kind)}
    return ((name, value) for name, value in json.loads(body).items() if name in names)


def _point_of(body: str) -> Point:
    filled = dict(_known_fields(body, Point))
    filled["kind"] = PointKind(filled.get("kind", PointKind.ANALOG))
    if "states" in filled:
        filled["states"] = {int(code): text for code, text in filled["states"].items()}
    return Point(**filled)


def _device_of(body: str) -> Device:
    return Device(**dict(_known_fields(body, Device)))
