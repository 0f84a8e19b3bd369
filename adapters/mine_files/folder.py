"""The watched folder and what stands beside it: find, read, move, remove, remember.

    folder/                 watched, two levels of sub-folders (aqjk/, rydw/, <mine code>/)
    quarantine/             files refused, each with <name>.reason.txt; <name>.rejected.txt of the
                            bad records of files taken in part. Bounded: the oldest are dropped
    archive/                files taken, when so configured. Bounded: the oldest are dropped
    unhandled/              known and unknown kinds without a mapper. Nothing is ever dropped here:
                            at the limit further files stay where they are

The only file that touches the file system; every function here blocks and is called in a thread.

Surprising: a file is named by path *and* signature (inode, size, time of change). What was read is
removed only if the path still has the signature it was read with; a sender that overwrote it in
between gets its newer file read as well.

A name is never trusted to be still what it was when it was listed: whatever is opened is opened
without following links and without waiting (a pipe put in a file's place would hold the thread for
ever), and must be a plain file.

Owns: paths and durability of notes. Not here: deciding what becomes of a file (client.py).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from adapters.mine_files.codec import FileName, parse_name, peek_time, stamp_time
from adapters.mine_files.config import MineFilesConfig
from adapters.mine_files.kinds import KINDS, Role

DEPTH_MAX = 2
SCAN_FILES_MAX = 20_000
"""Files found in one scan; the rest wait for the next one, after some of these are gone. What is
ignored never goes away by itself, so it takes no place among them: it is remembered up to the same
number and then passed by."""
HELD_FILES_MAX = 50_000
"""Files that wait (unfinished, or not movable) and are passed by without being opened. They take no
place among the found ones, so that what never goes away hides nothing behind it."""
PEEK_BYTES = 4_096
TAIL_BYTES = 64
NUMBERED_NAMES_MAX = 1_000
_TRIM_TO = 0.9  # at a limit a tenth is freed, so that the next file does not list the folder again
_ORDER = {Role.DECLARATION: 0, Role.DATA: 1, Role.OTHER: 2}


class Signature(NamedTuple):
    """What changes when a file is written to or replaced."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Signature:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """A file of this protocol in the watched folder."""

    path: Path
    name: FileName
    signature: Signature

    @property
    def role(self) -> Role:
        kind = KINDS.get(self.name.kind)
        return Role.OTHER if kind is None else kind.role


@dataclass(slots=True)
class Scan:
    """One look at the folder."""

    found: list[Found] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # path -> reason
    held: set[Path] = field(default_factory=set)  # waiting and unchanged: not looked into
    is_crowded: bool = False  # more are waiting than are remembered

    def ignore(self, path: str, reason: str) -> None:
        if len(self.ignored) < SCAN_FILES_MAX:
            self.ignored[path] = reason


class Loaded(NamedTuple):
    """The content of a file and what it was when it was read."""

    data: bytes
    digest: str
    found: Found


class Shelf:
    """A folder that files are moved to, bounded in number and bytes."""

    def __init__(self, path: Path, *, files_max: int, bytes_max: int) -> None:
        self.path = path
        self._files_max = files_max
        self._bytes_max = bytes_max
        self._files = self._bytes = -1  # not counted yet
        self._numbers: dict[str, int] = {}  # last one given to a name, of some names

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit without dropping anything."""
        self._count()
        return self._bytes + size <= self._bytes_max and self._files < self._files_max

    def free_name(self, name: str) -> str:
        """The name a file of that name would get."""
        self._count()
        number = self._numbers.get(name, 0)
        free = f"{name}.{number}" if number else name
        while (self.path / free).exists():
            number += 1
            free = f"{name}.{number}"
        if number:  # else a name sent a thousand times is looked for a thousand times each time
            if len(self._numbers) >= NUMBERED_NAMES_MAX:
                self._numbers.clear()
            self._numbers[name] = number
        return free

    def put(self, source: Path, name: str) -> str:
        """Move a file here; returns the name it has now (a taken name gets a number)."""
        free = self.free_name(name)
        size = source.lstat().st_size
        _move(source, self.path / free)
        self._files += 1
        self._bytes += size
        return free

    def note(self, name: str, lines: list[str]) -> None:
        """Write a text beside the files, replacing one of the same name."""
        self._count()
        data = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        target = self.path / name
        if not target.exists():
            self._files += 1
        _write_durably(target, data)
        self._bytes += len(data)

    def trim(self) -> int:
        """Drop the oldest until there is room again; returns how many."""
        self._count()
        if self._files <= self._files_max and self._bytes <= self._bytes_max:
            return 0
        entries = sorted(self._entries(), key=lambda entry: (entry[1].st_ctime_ns, entry[0].name))
        self._files, self._bytes = len(entries), sum(stat.st_size for _, stat in entries)
        dropped = 0
        for path, stat in entries:
            if (
                self._files <= self._files_max * _TRIM_TO
                and self._bytes <= self._bytes_max * _TRIM_TO
            ):
                break
            path.unlink(missing_ok=True)
            self._files -= 1
            self._bytes -= stat.st_size
            dropped += 1
        return dropped

    def _count(self) -> None:
        if self._files < 0:
            self.path.mkdir(parents=True, exist_ok=True)
            sizes = [stat.st_size for _, stat in self._entries()]
            self._files, self._bytes = len(sizes), sum(sizes)

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


class Folder:
    """The watched folder of one adapter, with its side folders."""

    def __init__(self, config: MineFilesConfig, state_dir: Path) -> None:
        self._config = config
        self.quarantine = Shelf(
            Path(config.quarantine_folder or state_dir / "quarantine"),
            files_max=config.quarantine_files_max,
            bytes_max=config.quarantine_bytes_max,
        )
        self.archive = Shelf(
            Path(config.archive_folder or state_dir / "archive"),
            files_max=config.archive_files_max,
            bytes_max=config.archive_bytes_max,
        )
        self.unhandled = Shelf(
            Path(config.unhandled_folder or state_dir / "unhandled"),
            files_max=config.unhandled_files_max,
            bytes_max=config.unhandled_bytes_max,
        )
        self._times: dict[Path, tuple[Signature, int]] = {}  # header times of what was found last
        shelves = (self.quarantine, self.archive, self.unhandled)
        self._own = {shelf.path.resolve() for shelf in shelves} | {state_dir.resolve()}

    def scan(self, is_held: Callable[[Path, Signature], bool] = lambda *_: False) -> Scan:
        """Everything there, in the order in which it is to be taken: what declares first, then by
        header time, then by name. What `is_held` says waits is only noted. Raises OSError when the
        folder itself cannot be read."""
        scan = Scan()
        self._scan(self._config.folder, 0, scan, is_held)
        times = {f.path: (f.signature, self._order_time(f)) for f in scan.found}
        self._times = times
        if len(scan.found) > 1:
            keyed = [(_ORDER[f.role], times[f.path][1], f.path.name, f) for f in scan.found]
            scan.found = [entry[-1] for entry in sorted(keyed, key=lambda entry: entry[:3])]
        return scan

    def _order_time(self, found: Found) -> int:
        """As read last time, if it has not changed: a backlog is listed many times."""
        known = self._times.get(found.path)
        return known[1] if known and known[0] == found.signature else _order_time(found)

    def _scan(
        self, folder: Path, depth: int, scan: Scan, is_held: Callable[[Path, Signature], bool]
    ) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(scan.found) >= SCAN_FILES_MAX:
                    return
                try:
                    self._look_at(entry, depth, scan, is_held)
                except FileNotFoundError:
                    continue  # gone between listing and looking: the sender renamed it

    def _look_at(
        self,
        entry: os.DirEntry[str],
        depth: int,
        scan: Scan,
        is_held: Callable[[Path, Signature], bool],
    ) -> None:
        if entry.name.startswith("."):
            scan.ignore(entry.path, "dot_file")
        elif entry.is_symlink():
            scan.ignore(entry.path, "symlink")
        elif entry.is_dir(follow_symlinks=False):
            path = Path(entry.path)
            if path.resolve() in self._own:
                return
            if depth >= DEPTH_MAX:
                scan.ignore(entry.path, "too_deep")
                return
            try:
                self._scan(path, depth + 1, scan, is_held)
            except PermissionError:
                scan.ignore(entry.path, "permission")
        elif not entry.is_file(follow_symlinks=False):
            scan.ignore(entry.path, "not_a_file")
        else:
            name = parse_name(entry.name)
            if name is None:
                scan.ignore(entry.path, "name")
                return
            path, signature = Path(entry.path), Signature.of(entry.stat(follow_symlinks=False))
            if not is_held(path, signature):
                scan.found.append(Found(path, name, signature))
            elif len(scan.held) < HELD_FILES_MAX:
                scan.held.add(path)
            else:
                scan.is_crowded = True

    def load(self, found: Found) -> Loaded | None:
        """Its content, None when it is gone, grown beyond the limit or no plain file any more."""
        limit = self._config.file_size_max_bytes
        file = _open_plain(found.path)
        if file is None:
            return None
        with file:
            signature = Signature.of(os.fstat(file.fileno()))
            if signature.size > limit:
                return None
            data = file.read(limit + 1)
        if len(data) > limit:
            return None
        digest = hashlib.sha256(data).hexdigest()[:32]
        return Loaded(data, digest, Found(found.path, found.name, signature))

    def tail(self, found: Found) -> bytes:
        """Its last bytes, for finding an end mark without loading it; none when it is gone."""
        file = _open_plain(found.path)
        if file is None:
            return b""
        with file:
            file.seek(max(0, found.signature.size - TAIL_BYTES))
            return file.read(TAIL_BYTES)

    def finish(self, found: Found, *, keep: bool) -> bool:
        """Remove a file that was taken (or archive it). False when it has changed since it was
        read: then it stays, to be read again. Raises OSError when it cannot be removed."""
        if not self._is_unchanged(found):
            return False
        if keep and self._config.done == "archive":
            self.archive.put(found.path, found.path.name)
        else:
            found.path.unlink()
        return True

    def refuse(self, found: Found, lines: list[str]) -> bool:
        """Move to quarantine, the reasons first: a file there is never without them. False when it
        has changed since it was judged."""
        if not self._is_unchanged(found):
            return False
        name = self.quarantine.free_name(found.path.name)
        self.quarantine.note(f"{name}.reason.txt", lines)
        self.quarantine.put(found.path, found.path.name)
        return True

    def set_aside(self, found: Found) -> bool:
        """Move to the unhandled folder. False when it has changed or there is no room."""
        if not self._is_unchanged(found) or not self.unhandled.has_room(found.signature.size):
            return False
        self.unhandled.put(found.path, found.path.name)
        return True

    def _is_unchanged(self, found: Found) -> bool:
        try:
            return Signature.of(found.path.lstat()) == found.signature
        except FileNotFoundError:
            return False


def load_note(path: Path) -> Any:
    """A note's content; None when there is none or it cannot be read (it is rebuilt from files)."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def save_note(path: Path, content: Any) -> None:
    """Replace a note durably: after a crash there is the old one or the new one, whole."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    _write_durably(path, data)


def _order_time(found: Found) -> int:
    """The header's time; by its name's time when the beginning does not say."""
    time_ns = None
    try:
        file = _open_plain(found.path)
        if file is not None:
            with file:
                time_ns = peek_time(file.read(PEEK_BYTES))
    except OSError:
        pass  # the load will say what is wrong with it
    return time_ns or stamp_time(found.name.stamp) or 0


def _open_plain(path: Path) -> BinaryIO | None:
    """Open for reading what is a plain file now; None for what is gone or has become another thing.
    Never waits for anybody. Raises OSError for a file that cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            return None
        raise
    if not stat_module.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return os.fdopen(handle, "rb")


def _write_durably(target: Path, data: bytes) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(source: Path, target: Path) -> None:
    """Rename; across file systems copy first, so that the file is whole in one place always."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, temporary, follow_symlinks=False)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
        source.unlink()
