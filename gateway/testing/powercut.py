"""What a power cut leaves of a recorded run: one of the many states the disk may be in.

    tape ─notes up to `at`─▶ DiskModel ─a choice of what had reached the disk by itself─▶ directory

What was synced is there. What was not synced may be: any part of it, in any order, torn within a
page, grown without its content. Names that were made, changed or taken away since their directory
was last synced may be there up to some moment: file systems write their metadata in order. That is
POSIX with nothing assumed beyond ordered metadata; journalling file systems promise more.

Not here: recording (tape.py), what must hold afterwards (the tests).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from gateway.testing.tape import Note, Tape

SECTOR_BYTES = 512  # the least a disk writes whole


@dataclass
class _File:
    """One file: what is safe, and what was asked for since."""

    safe: bytearray = field(default_factory=bytearray)
    asked: list[Note] = field(default_factory=list)


class DiskModel:
    """The notes of a tape, taken one by one. `rng` decides what a failed sync leaves behind."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random(0)  # noqa: S311  a test's own luck
        self._names: dict[str, _File | None] = {}  # as the program sees them; None: a directory
        self._safe_names: dict[str, _File | None] = {}
        self._asked_names: dict[str, list[Callable[[dict[str, _File | None]], None]]] = {}

    def begin_with(self, directory: Path) -> None:
        """Everything below `directory` is there, and safe."""
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            file = None if path.is_dir() else _File(bytearray(path.read_bytes()))
            self._names[name] = self._safe_names[name] = file

    def take(self, note: Note) -> None:
        """One note more has been done."""
        if note.kind == "mark":
            return
        if note.kind == "sync_failed":  # the pages are marked clean: no later sync writes them
            file = self._file(note.path)
            for each in file.asked:
                for torn in _torn(each, self._rng):
                    _apply(file.safe, torn)
            file.asked.clear()
            return
        if note.kind in ("write", "truncate"):
            self._file(note.path).asked.append(note)
        elif note.kind == "sync":
            file = self._file(note.path)
            for each in file.asked:
                _apply(file.safe, each)
            file.asked.clear()
        elif note.kind == "sync_directory":
            for change in self._asked_names.pop(note.path, ()):
                change(self._safe_names)
        else:
            self._rename(note)

    def image(self, rng: random.Random, into: Path) -> None:
        """Write what may be found after a power cut now."""
        names = dict(self._safe_names)
        for changes in self._asked_names.values():
            for change in changes[: rng.randrange(len(changes) + 1)]:
                change(names)
        into.mkdir(parents=True, exist_ok=True)
        style = rng.choice(("lost", "kept", "torn", "torn", "prefix"))
        for path, file in sorted(names.items()):
            target = into / path
            if file is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_survives(file, style, rng))

    def _file(self, path: str) -> _File:
        file = self._names.setdefault(path, _File())
        assert file is not None, f"{path} is a directory"
        return file

    def _rename(self, note: Note) -> None:
        change = _change(note, self._names)
        change(self._names)
        places = {str(PurePath(note.path).parent)}
        if note.kind in ("rename", "link") and note.data is not None:
            places.add(str(PurePath(note.data).parent))
        for place in places:  # within one directory in order; across two, either first
            self._asked_names.setdefault(place, []).append(change)


def _change(
    note: Note, names: dict[str, _File | None]
) -> Callable[[dict[str, _File | None]], None]:
    """What a note makes of a table of names."""
    if note.kind == "create":
        return _Put(note.path, names.get(note.path) or _File())
    if note.kind == "mkdir":
        return _Put(note.path, None)
    if note.kind == "unlink":
        return _Drop(note.path)
    file = names.get(note.path) if note.path in names else _File()  # written past both doors
    if note.kind == "link":
        return _Put(note.data, file)
    assert note.kind == "rename", note.kind
    return _Move(note.path, note.data, file)


@dataclass(frozen=True)
class _Put:
    path: str
    file: _File | None

    def __call__(self, names: dict[str, _File | None]) -> None:
        names[self.path] = self.file


@dataclass(frozen=True)
class _Drop:
    path: str

    def __call__(self, names: dict[str, _File | None]) -> None:
        names.pop(self.path, None)


@dataclass(frozen=True)
class _Move:
    source: str
    target: str | None  # None: out of what is recorded
    file: _File | None

    def __call__(self, names: dict[str, _File | None]) -> None:
        names.pop(self.source, None)
        if self.target is not None:
            names[self.target] = self.file


def _apply(content: bytearray, note: Note) -> None:
    if note.kind == "truncate":
        del content[note.offset :]
        content.extend(bytes(note.offset - len(content)))
        return
    end = note.offset + len(note.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[note.offset : end] = note.data


def _survives(file: _File, style: str, rng: random.Random) -> bytes:
    """The content of a file whose last wishes may or may not have been fulfilled."""
    content = bytearray(file.safe)
    if style == "kept":
        chosen: Iterable[Note] = file.asked
    elif style == "prefix":
        chosen = file.asked[: rng.randrange(len(file.asked) + 1)]
    elif style == "torn":
        chosen = [torn for note in file.asked for torn in _torn(note, rng)]
    else:
        chosen = ()
    for note in chosen:
        _apply(content, note)
    return bytes(content)


def _torn(note: Note, rng: random.Random) -> list[Note]:
    """Any sectors of a write, or the length it gave the file without what it said."""
    if note.kind == "truncate":
        return [note] if rng.random() < 0.5 else []
    kept = []
    for begin in range(0, len(note.data), SECTOR_BYTES):
        part = note.data[begin : begin + SECTOR_BYTES]
        luck = rng.random()
        if luck < 0.5:
            kept.append(Note("write", note.path, part, note.offset + begin))
        elif luck < 0.6:
            kept.append(Note("write", note.path, bytes(len(part)), note.offset + begin))
    return kept


def cuts(
    tape: Tape, rng: random.Random, count: int, into: Callable[[int], Path]
) -> Iterable[tuple[int, Path, dict[str, object]]]:
    """`count` power cuts at random moments, in order: (notes done, directory, promises by name:
    the newest value of each mark)."""
    moments = sorted(rng.randrange(len(tape.notes) + 1) for _ in range(count))
    model, promised, done = DiskModel(), dict[str, object](), 0
    for number, moment in enumerate(moments):
        for note in tape.notes[done:moment]:
            model.take(note)
            if note.kind == "mark":
                promised[note.path] = note.data
        done = moment
        directory = into(number)
        model.image(rng, directory)
        yield moment, directory, dict(promised)
