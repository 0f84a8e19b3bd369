"""The gateway's disk: real files in a directory of each life, and what the next life finds of them.

    power cut     what was synced, and a seeded part of the rest (gateway/testing/powercut.py); at
                  any moment, also between two writes of one transaction
    killed        everything: the kernel goes on
    ended         everything

Each life has a directory of its own, so that what the dead still hold open is no concern of the
living. Errors (EIO, ENOSPC) come through the tape's two doors, SQLite's and `os`, by order of a
`Refusal`. A sync that failed leaves a seeded part of what it should have written, for good: the
kernel takes the pages for clean and no later sync writes them.

Not seen by the tape, and so gone after a power cut: what is written through `open()` (rows a sink
set aside, the names of retained topics). Losing those is allowed; losing anything else is not.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from gateway.testing.powercut import DiskModel
from gateway.testing.tape import Tape, recording

_NOTES_MAX = 400  # beyond it the older ones are taken into the model
_NOTES_KEPT = 100


@dataclass
class Refusal:
    """What the disk answers to the calls that match, from the `after`-th on, `count` times."""

    code: int
    kinds: frozenset[str]  # of write, sync, truncate, create, rename, unlink, link
    below: str = ""  # spool, journal, points, or "" for all
    after: int = 0
    count: int = 1

    def asks(self, kind: str, path: str) -> int:
        if kind not in self.kinds or not path.startswith(self.below) or self.count <= 0:
            return 0
        if self.after > 0:
            self.after -= 1
            return 0
        self.count -= 1
        return self.code


class GatewayDisk:
    """One disk through all lives of one gateway."""

    def __init__(self, root: Path, rng: random.Random, *, watched: bool = True) -> None:
        self._root = root
        self._rng = rng
        self._watched = watched
        self._life = 0
        self._stack = contextlib.ExitStack()
        self._tape: Tape | None = None
        self._model = DiskModel(rng)
        self._taken = 0
        self.refusals: list[Refusal] = []
        self.refused: dict[str, int] = {}
        self.cut_at: int | None = None  # a power cut after so many notes of this life
        self.home = root / "0"
        self.home.mkdir(parents=True)

    def begin(self) -> Path:
        """Power on, or a process begins: the directory it finds."""
        self._taken = 0
        if self._watched:
            self._tape = tape = self._stack.enter_context(recording(self.home))
            tape.refuse = self._refuse
            self._model = DiskModel(self._rng)
            self._model.begin_with(self.home)
        return self.home

    @property
    def note_count(self) -> int:
        """What this life has done to the disk."""
        return self._taken + len(self._tape.notes) if self._tape is not None else 0

    @property
    def is_cut(self) -> bool:
        """The moment of the power cut is here, or a little past."""
        return self.cut_at is not None and self.note_count >= self.cut_at

    def keep_up(self) -> None:
        """Take what was done into the model, so that the tape stays short."""
        tape = self._tape
        if tape is not None and len(tape.notes) > _NOTES_MAX and self.cut_at is None:
            self._take(len(tape.notes) - _NOTES_KEPT)

    def _take(self, count: int) -> None:
        assert self._tape is not None
        for note in self._tape.notes[:count]:
            self._model.take(note)
        del self._tape.notes[:count]
        self._taken += count

    def power_cut(self) -> None:
        """The next life finds what had reached the disk."""
        assert self._tape is not None, "only a watched disk can be cut"
        whole = self.note_count
        self._take((whole if self.cut_at is None else min(whole, self.cut_at)) - self._taken)
        target = self._next()
        self._model.image(self._rng, target)
        self._leave(target)

    def survive(self) -> None:
        """The next life finds everything: only the process ended."""
        target = self._next()
        shutil.copytree(self.home, target)
        self._leave(target)

    def _next(self) -> Path:
        self._life += 1
        self.cut_at = None
        return self._root / str(self._life)

    def _leave(self, target: Path) -> None:
        if self._tape is not None:
            self._tape.refuse = lambda _kind, _path: 0
        self._stack.close()
        if self._tape is not None:
            self._tape.notes.clear()
            self._tape = None
        self.home = target

    def end(self) -> None:
        """The process has ended by itself, and nothing follows."""
        self._leave(self.home)

    def _refuse(self, kind: str, path: str) -> int:
        for refusal in self.refusals:
            code = refusal.asks(kind, path)
            if code:
                where = f"{code} {kind} {path.partition('/')[0]}"
                self.refused[where] = self.refused.get(where, 0) + 1
                return code
        return 0
