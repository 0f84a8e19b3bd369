"""Records what a program does to its files, so that a power cut can be played at any moment of it.

    with recording(directory) as tape:      everything below `directory`, this process, any thread
        …the real program, real SQLite…
        tape.mark("acknowledged", 17)
    lost.image(tape, at=123, …)             see powercut.py

Two doors are watched. SQLite's: its own file methods with four of them replaced (write, truncate,
sync, close), registered as the default VFS, so that not one line of the program changes. Python's:
the calls of `os` that change a file or a name. What they do is done and noted; nothing is faked.

Each note is one thing that would have to reach the disk:

    create p · write p at offset · truncate p to size · sync p · link a b · rename a b · unlink p ·
    sync_directory d · mark (not a thing of the disk: what the program had promised by then)
    sync_failed p · the disk said no: what had been asked for so far may be lost for good

The same doors can refuse: `tape.refuse(kind, path)` is asked before each and may answer an errno.

Surprising: SQLite syncs the directory of a new log by itself, below the methods watched here; the
tape notes it where SQLite does it, at the first sync of a log or rollback journal it created.

Not here: which of it survives (powercut.py). For tests; never imported at run time.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import functools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

_OPEN_CREATE = 0x4
_OPEN_LOGS = 0x800 | 0x4000 | 0x80000  # main journal, super journal, write-ahead log
_OK = 0


class Note(NamedTuple):
    """One thing done to the disk, in the order it was done."""

    kind: str
    path: str = ""  # below the directory that is recorded
    data: Any = b""  # written bytes; the other name of a link or rename; what a mark says
    offset: int = 0  # of a write; the size of a truncation


class Tape:
    """Everything noted so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.notes: list[Note] = []
        self.refuse: Callable[[str, str], int] = lambda _kind, _path: 0
        self._lock = threading.Lock()
        self._prefix = str(self.directory) + os.sep

    def mark(self, what: str, value: object = None) -> None:
        """What the program had promised by now."""
        with self._lock:
            self.notes.append(Note("mark", what, value))

    def note(self, kind: str, path: str, data: Any = b"", offset: int = 0) -> None:
        inside = self.below(path)
        if inside is not None:
            with self._lock:
                self.notes.append(Note(kind, inside, data, offset))

    def ask(self, kind: str, path: str) -> int:
        """An errno if the disk refuses to do this now, else 0."""
        inside = self.below(path) if path else None
        if inside is None:
            return 0
        code = self.refuse(kind, inside)
        if code and kind == "sync" and not Path(path).is_dir():
            self.note("sync_failed", path)
        return code

    def below(self, path: str) -> str | None:
        """The name below the directory, or None for what lies elsewhere."""
        if path.startswith(self._prefix):
            return path[len(self._prefix) :]
        whole = str(Path(path).absolute())
        if whole + os.sep == self._prefix:
            return "."
        return whole.removeprefix(self._prefix) if whole.startswith(self._prefix) else None


@contextlib.contextmanager
def recording(directory: Path, *, sqlite_syncs_directories: bool = True) -> Iterator[Tape]:
    """Note everything this process does below `directory`. One at a time.

    `sqlite_syncs_directories`: False leaves out the note of what SQLite does by itself for a new
    log, so that a program can show that it does not lean on it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tape = Tape(directory)
    with _watched_sqlite(tape, syncs_directories=sqlite_syncs_directories), _watched_os(tape):
        yield tape


# ---------------------------------------------------------------------- Python's door


@contextlib.contextmanager
def _watched_os(tape: Tape) -> Iterator[None]:
    """`os` as it is, with a note of each call that changes a file or a name."""
    opened: dict[int, tuple[str, bool]] = {}
    real = {name: getattr(os, name) for name in _Watch.CALLS}
    watch = _Watch(tape, opened, real)
    with contextlib.ExitStack() as stack:
        for name in _Watch.CALLS:
            stack.enter_context(mock.patch.object(os, name, getattr(watch, name)))
        yield


class _Watch:
    """The watched calls, by the names they have in `os`."""

    CALLS: ClassVar[tuple[str, ...]] = (
        *("open", "close", "write", "pwrite", "ftruncate", "truncate", "fsync", "fdatasync"),
        *("rename", "replace", "unlink", "remove", "link", "mkdir", "posix_fallocate"),
    )

    def __init__(
        self,
        tape: Tape,
        opened: dict[int, tuple[str, bool]],
        real: dict[str, Callable[..., Any]],
    ) -> None:
        self._tape = tape
        self._opened = opened
        self._real = real

    def open(self, path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        existed = os.path.exists(path)  # noqa: PTH110  a path of any type
        if flags & os.O_CREAT and not existed:
            self._ask("create", path)
        descriptor: int = self._real["open"](path, flags, mode, **rest)
        name = os.fsdecode(path)
        self._opened[descriptor] = (name, bool(flags & os.O_APPEND))
        if flags & os.O_CREAT and not existed:
            self._tape.note("create", name)
        if flags & os.O_TRUNC and existed:
            self._tape.note("truncate", name)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._opened.pop(descriptor, None)
        self._real["close"](descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        name, appends = self._opened.get(descriptor, ("", False))
        at = 0
        self._ask("write", name)
        if name:
            at = os.fstat(descriptor).st_size if appends else os.lseek(descriptor, 0, os.SEEK_CUR)
        written: int = self._real["write"](descriptor, data)
        if name:
            self._tape.note("write", name, bytes(data)[:written], at)
        return written

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self._ask("write", self._opened.get(descriptor, ("", False))[0])
        written: int = self._real["pwrite"](descriptor, data, offset)
        if descriptor in self._opened:
            self._tape.note("write", self._opened[descriptor][0], bytes(data)[:written], offset)
        return written

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._real["ftruncate"](descriptor, size)
        if descriptor in self._opened:
            self._tape.note("truncate", self._opened[descriptor][0], b"", size)

    def truncate(self, path: Any, size: int) -> None:
        self._real["truncate"](path, size)
        self._tape.note("truncate", os.fsdecode(path), b"", size)

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        self._ask("write", self._opened.get(descriptor, ("", False))[0])
        self._real["posix_fallocate"](descriptor, offset, size)
        if descriptor in self._opened:
            whole = os.fstat(descriptor).st_size
            self._tape.note("truncate", self._opened[descriptor][0], b"", whole)

    def fsync(self, descriptor: int) -> None:
        name = self._opened.get(descriptor, ("", False))[0]
        self._ask("sync", name)
        self._real["fsync"](descriptor)
        if name:
            is_directory = os.path.isdir(name)  # noqa: PTH112
            self._tape.note("sync_directory" if is_directory else "sync", name)

    fdatasync = fsync

    def rename(self, source: Any, target: Any, **rest: Any) -> None:
        self._ask("rename", source)
        self._real["rename"](source, target, **rest)
        self._note_rename(os.fsdecode(source), os.fsdecode(target))

    def replace(self, source: Any, target: Any, **rest: Any) -> None:
        self._ask("rename", source)
        self._real["replace"](source, target, **rest)
        self._note_rename(os.fsdecode(source), os.fsdecode(target))

    def _note_rename(self, source: str, target: str) -> None:
        self._tape.note("rename", source, self._tape.below(target))
        for descriptor, (name, appends) in self._opened.items():
            if name == source:  # what is written through it from now on has the new name
                self._opened[descriptor] = (target, appends)

    def link(self, source: Any, target: Any, **rest: Any) -> None:
        self._ask("link", source)
        self._real["link"](source, target, **rest)
        self._tape.note("link", os.fsdecode(source), self._tape.below(os.fsdecode(target)))

    def unlink(self, path: Any, **rest: Any) -> None:
        self._ask("unlink", path)
        self._real["unlink"](path, **rest)
        self._tape.note("unlink", os.fsdecode(path))

    remove = unlink

    def mkdir(self, path: Any, mode: int = 0o777, **rest: Any) -> None:
        self._ask("create", path)
        self._real["mkdir"](path, mode, **rest)
        self._tape.note("mkdir", os.fsdecode(path))

    def _ask(self, kind: str, path: Any) -> None:
        code = self._tape.ask(kind, os.fsdecode(path))
        if code:
            raise OSError(code, os.strerror(code), os.fsdecode(path))


# ---------------------------------------------------------------------- SQLite's door

_P = ctypes.c_void_p
_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, _P)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _P, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _P, ctypes.c_int)
# Names as plain addresses: SQLite reads parameters behind a name's end, a copy has none.
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, _P, ctypes.c_int, ctypes.POINTER(ctypes.c_int))
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _P, _P, ctypes.c_int)


class _Methods(ctypes.Structure):
    """sqlite3_io_methods; what is not replaced stays SQLite's own."""

    _fields_: ClassVar[Any] = [
        ("version", ctypes.c_int),
        ("close", _CLOSE),
        ("read", _P),
        ("write", _WRITE),
        ("truncate", _TRUNCATE),
        ("sync", _SYNC),
        ("others", _P * 13),
    ]


class _File(ctypes.Structure):
    """sqlite3_file, the part every file begins with."""

    _fields_: ClassVar[Any] = [("methods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    """sqlite3_vfs."""

    _fields_: ClassVar[Any] = [
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("path_size_max", ctypes.c_int),
        ("next", _P),
        ("name", ctypes.c_char_p),
        ("app_data", _P),
        ("open", _OPEN),
        ("delete", _DELETE),
        ("others", _P * 14),
    ]


# What SQLite's own VFS answers where the system says EIO, by what it was doing.
_IO_ERROR = {"write": 778, "truncate": 1546, "sync": 1034, "create": 14, "unlink": 2570}
_FULL = 13


def _sqlite_code(kind: str, code: int) -> int:
    if code == errno.ENOSPC and kind in ("write", "truncate"):
        return _FULL
    return _IO_ERROR[kind]


class _Opened(NamedTuple):
    path: str
    own: Any  # SQLite's methods
    mine: _Methods  # kept alive


@functools.cache
def _library() -> ctypes.CDLL:
    """The SQLite that Python's module uses."""
    name = ctypes.util.find_library("sqlite3")
    library = ctypes.CDLL(name) if name else ctypes.CDLL(None)
    library.sqlite3_libversion.restype = ctypes.c_char_p
    found = library.sqlite3_libversion().decode()
    if found != sqlite3.sqlite_version:
        raise RuntimeError(f"SQLite {found} found, Python uses {sqlite3.sqlite_version}")
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    library.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
    library.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
    return library


@contextlib.contextmanager
def _watched_sqlite(tape: Tape, *, syncs_directories: bool) -> Iterator[None]:
    library = _library()
    real = library.sqlite3_vfs_find(None)
    shim = _Shim(tape, real.contents, syncs_directories=syncs_directories)
    library.sqlite3_vfs_register(ctypes.byref(shim.vfs), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(shim.vfs))
        library.sqlite3_vfs_register(real, 1)
        shim.let_go()
        _KEPT.append(shim)


_KEPT: list[_Shim] = []
"""A connection closed later, or one whose files lie elsewhere, still calls them: for good. What
they have noted is let go."""


class _Shim:
    """A VFS that is the default one, and notes what changes a file."""

    def __init__(self, tape: Tape, real: _Vfs, *, syncs_directories: bool) -> None:
        self._tape = tape
        self._syncs_directories = syncs_directories
        self._real = real
        self._files: dict[int, _Opened] = {}
        self._unsynced_names: set[int] = set()  # files whose directory SQLite syncs with them
        self.vfs = _Vfs()
        ctypes.pointer(self.vfs)[0] = real
        self.vfs.next = None
        self.vfs.name = f"tape-{id(tape)}".encode()
        self.vfs.open = _OPEN(self._open)
        self.vfs.delete = _DELETE(self._delete)
        self._close, self._write = _CLOSE(self._on_close), _WRITE(self._on_write)
        self._truncate, self._sync = _TRUNCATE(self._on_truncate), _SYNC(self._on_sync)

    def let_go(self) -> None:
        """Of the tape, which is long; what is still called goes on a blank one."""
        self._tape = Tape(self._tape.directory)

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: Any) -> int:
        path = ctypes.string_at(name).decode() if name else ""
        existed = bool(path) and Path(path).exists()
        if flags & _OPEN_CREATE and not existed and (refused := self._tape.ask("create", path)):
            _File.from_address(file).methods = None  # SQLite would else call its `close`
            return _sqlite_code("create", refused)
        code = int(self._real.open(vfs, name, file, flags, out))
        if code != _OK or not path or self._tape.below(path) is None:
            return code
        if flags & _OPEN_CREATE and not existed:
            self._tape.note("create", path)
        head = _File.from_address(file)
        mine = _Methods()
        ctypes.memmove(ctypes.byref(mine), head.methods, ctypes.sizeof(_Methods))
        own = head.methods.contents
        mine.close, mine.write = self._close, self._write
        mine.truncate, mine.sync = self._truncate, self._sync
        self._files[file] = _Opened(path, own, mine)
        if self._syncs_directories and flags & _OPEN_CREATE and flags & _OPEN_LOGS:
            self._unsynced_names.add(file)
        head.methods = ctypes.pointer(mine)
        return code

    def _delete(self, vfs: int, name: int, sync: int) -> int:
        path = ctypes.string_at(name).decode()
        if refused := self._tape.ask("unlink", path):
            return _sqlite_code("unlink", refused)
        code = int(self._real.delete(vfs, name, sync))
        if code == _OK:
            self._tape.note("unlink", path)
            if sync:
                self._tape.note("sync_directory", str(Path(path).parent))
        return code

    def _on_close(self, file: int) -> int:
        opened = self._files.pop(file)
        self._unsynced_names.discard(file)
        return int(opened.own.close(file))

    def _on_write(self, file: int, data: int, size: int, offset: int) -> int:
        opened = self._files[file]
        if refused := self._tape.ask("write", opened.path):
            return _sqlite_code("write", refused)
        code = int(opened.own.write(file, data, size, offset))
        if code == _OK:
            self._tape.note("write", opened.path, ctypes.string_at(data, size), offset)
        return code

    def _on_truncate(self, file: int, size: int) -> int:
        opened = self._files[file]
        if refused := self._tape.ask("truncate", opened.path):
            return _sqlite_code("truncate", refused)
        code = int(opened.own.truncate(file, size))
        if code == _OK:
            self._tape.note("truncate", opened.path, b"", size)
        return code

    def _on_sync(self, file: int, flags: int) -> int:
        opened = self._files[file]
        if refused := self._tape.ask("sync", opened.path):
            return _sqlite_code("sync", refused)
        code = int(opened.own.sync(file, flags))
        if code == _OK:
            self._tape.note("sync", opened.path)
            if file in self._unsynced_names:
                self._unsynced_names.discard(file)
                self._tape.note("sync_directory", str(Path(opened.path).parent))
        return code
