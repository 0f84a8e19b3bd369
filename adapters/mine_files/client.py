"""Watches one folder and hands what it finds to the house. The only file here that awaits.

    scan ─▶ settled? ─▶ load ─▶ taken before? ─▶ decode, map ─▶ declare ─▶ emit ─▶ note ─▶ remove
              │no         │gone      │yes: remove     │no end mark: wait, later quarantine
              └ next look └ next     └                └ refused: quarantine with the reasons

A file is removed after `emit` returned and the note of what was taken is on disk. A crash anywhere
before leaves the file: it is read again and says the same again, same points, times and values; a
crash after the note finds the file among those taken and only removes it.

Surprising: the note keeps every device this adapter declared, because the contract gives back
points of earlier runs but no devices, and a person known from RYSS alone must never overwrite one
declared by RYXX.

Owns: the order of steps. Not here: paths (folder.py), meaning (mapping.py), retry (the supervisor).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.mine_files.codec import decode_file, has_end_mark
from adapters.mine_files.config import MineFilesConfig
from adapters.mine_files.folder import (
    HELD_FILES_MAX,
    Folder,
    Found,
    Loaded,
    Signature,
    load_note,
    save_note,
)
from adapters.mine_files.kinds import KINDS, Role
from adapters.mine_files.mapping import Plan, View, apply, bad_share_fault, plan, to_batches
from gateway.contract.adapter import AdapterContext, Declare, Emit
from gateway.model.errors import RemoteProtocolError, Unavailable
from gateway.model.point import Device

log = logging.getLogger(__name__)

ROUND_FILES_MAX = 500
"""Files taken before the folder is looked at again, so that new declarations come first."""
_SECOND_NS = 1_000_000_000
_STATE_NOTE = "state.json"
_DEVICES_NOTE = "devices.json"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file that stays for now, and since when it has looked the way it does."""

    signature: Signature
    since_ns: int
    opened: bool  # looked into and found unfinished, or not movable; else only seen once


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a file as a whole is not taken."""

    reason: str
    lines: list[str]


class MineFilesAdapter:
    """One watched folder."""

    def __init__(self, config: MineFilesConfig, context: AdapterContext) -> None:
        self._config = config
        self._context = context
        self._options = config.options(context.name)
        self._folder = Folder(config, context.state_dir)
        self._view = View()
        self._taken: dict[str, None] = {}  # "name digest", oldest first
        self._point_index: dict[str, int] = {}
        self._device_index: dict[str, int] = {}
        self._waiting: dict[Path, _Waiting] = {}
        self._ignored: set[str] = set()  # counted already
        self._state = ""

    async def run(self, emit: Emit, declare: Declare) -> None:
        """Take files until cancelled.

        Raises:
            Unavailable: the folder cannot be read, or the note cannot be written.
        """
        await asyncio.to_thread(self._load_notes)
        self._say("waiting", str(self._config.folder))
        while True:
            taken = await self._round(emit, declare)
            if not taken:
                await asyncio.sleep(self._config.poll_interval_s)

    async def _round(self, emit: Emit, declare: Declare) -> int:
        """One look at the folder; returns how many files left it."""
        try:
            scan = await asyncio.to_thread(self._folder.scan, self._is_held)
        except OSError as error:
            raise Unavailable(f"cannot read the folder: {error}") from error
        self._count_ignored(scan.ignored)
        if scan.is_crowded:
            self._context.counters.count("crowded")
            self._say("faulty", f"more than {HELD_FILES_MAX} files wait unfinished")
        paths = {found.path for found in scan.found} | scan.held
        self._waiting = {p: w for p, w in self._waiting.items() if p in paths}
        left = tried = 0
        for found in scan.found:
            if not self._is_due(found):
                continue
            tried += 1
            left += await self._handle(found, emit, declare)
            if tried >= ROUND_FILES_MAX:
                break
        return left

    async def _handle(self, found: Found, emit: Emit, declare: Declare) -> bool:
        """Take one file, with what the file system may do wrong. Whether it is gone."""
        try:
            return await self._take(found, emit, declare)
        except OSError as error:
            log.error("%r: %s", str(found.path), error)  # noqa: TRY400  the message says it all
            self._context.counters.count("stuck", reason=type(error).__name__)
            self._hold(found)
            self._say("faulty", f"{found.path.name}: {error.strerror}")
            return False

    # ------------------------------------------------------------------------------------ waiting

    def _is_held(self, path: Path, signature: Signature) -> bool:
        """Whether it was looked into, has not changed since and has time left to wait."""
        waiting = self._waiting.get(path)
        if waiting is None or waiting.signature != signature:
            return False
        return waiting.opened and not self._is_overdue(waiting)

    def _is_due(self, found: Found) -> bool:
        """Whether a file is worth opening now: not one that was unfinished and has not changed."""
        waiting = self._waiting.get(found.path)
        if waiting is not None and waiting.signature == found.signature:
            return not waiting.opened or self._is_overdue(waiting)
        if self._config.settle == "end_mark":
            return True
        self._waiting[found.path] = _Waiting(found.signature, self._context.now_ns(), opened=False)
        return False

    def _is_overdue(self, waiting: _Waiting) -> bool:
        waited_ns = self._context.now_ns() - waiting.since_ns
        return waited_ns >= self._config.incomplete_timeout_s * _SECOND_NS

    def _still_waits(self, found: Found) -> bool:
        """For a file that looks unfinished: true until it has not changed for the time-out."""
        waiting = self._waiting.get(found.path)
        if waiting is None or waiting.signature != found.signature:
            self._hold(found)
            return True
        self._waiting[found.path] = replace(waiting, opened=True)
        return not self._is_overdue(waiting)

    def _hold(self, found: Found) -> None:
        """Leave it alone until it changes or the time-out has passed."""
        self._waiting[found.path] = _Waiting(found.signature, self._context.now_ns(), opened=True)

    async def _wait_or_refuse(self, found: Found) -> bool:
        """A file without an end mark: wait while it may still grow."""
        if self._still_waits(found):
            return False
        timeout_s = self._config.incomplete_timeout_s
        return await self._refuse(found, "incomplete", [f"no end mark for {timeout_s:g} s"])

    # --------------------------------------------------------------------------------- one file

    async def _take(self, found: Found, emit: Emit, declare: Declare) -> bool:
        if found.signature.size > self._config.file_size_max_bytes:
            return await self._refuse_oversized(found)
        if self._config.mine_code and found.name.mine_code != self._config.mine_code:
            return await self._take_foreign(found)
        if found.role is Role.OTHER:
            return await self._set_aside(found)
        loaded = await asyncio.to_thread(self._folder.load, found)
        return False if loaded is None else await self._take_loaded(loaded, emit, declare)

    async def _take_loaded(self, loaded: Loaded, emit: Emit, declare: Declare) -> bool:
        if _key(loaded) in self._taken:
            self._context.counters.count("duplicate")
            return await self._finish(loaded.found, keep=False)
        try:
            asked = await asyncio.to_thread(self._read, loaded)
        except RemoteProtocolError as error:
            asked = _Refusal(error.code, [str(error)])
        if isinstance(asked, Plan):
            return await self._take_new(loaded, asked, emit, declare)
        if asked.reason == "incomplete":
            return await self._wait_or_refuse(loaded.found)
        if asked.reason == "header" and not loaded.found.name.mine_code.isdigit():
            return await self._set_aside(loaded.found)  # family C has an RYSS of its own
        return await self._refuse(loaded.found, asked.reason, asked.lines)

    async def _take_new(self, loaded: Loaded, asked: Plan, emit: Emit, declare: Declare) -> bool:
        """The road of a good file."""
        name, count = loaded.found.name, self._context.counters.count
        count("received", reason=name.kind)
        await self._hand_over(asked, emit, declare)
        self._count_plan(asked)
        await asyncio.to_thread(self._note_rejected, name.text, asked)
        await self._remember(_key(loaded), asked)
        count("accepted", reason=name.kind)
        self._say("connected", name.kind)
        return await self._finish(loaded.found, keep=True)

    def _read(self, loaded: Loaded) -> Plan | _Refusal:
        """Decode and map; or the reasons to refuse the file as a whole."""
        message = decode_file(loaded.data, loaded.found.name, encodings=self._config.encodings)
        faults = [str(fault) for fault in message.faults]
        wrong = bad_share_fault(message, self._config.bad_record_share_max)
        if wrong:
            return _Refusal("bad_records", [wrong, *faults])
        ahead_s = (message.time_ns - self._context.now_ns()) / _SECOND_NS
        if ahead_s > self._config.future_tolerance_s:
            limit_s = self._config.future_tolerance_s
            line = f"header time is {ahead_s:.0f} s ahead, more than {limit_s:g} s"
            return _Refusal("future_time", [line])
        return plan(message, self._view, self._options)

    async def _hand_over(self, asked: Plan, emit: Emit, declare: Declare) -> None:
        """Declare and emit: on return everything the file says is durable.

        What the house raises goes to the supervisor; an OSError of the house is not one of the
        watched folder's.
        """
        received_ns = self._context.now_ns()
        try:
            await self._declare(asked, declare)
            for batch in to_batches(
                asked.rows,
                self._point_index,
                self._device_index,
                received_time_ns=received_ns,
                rows_max=self._config.batch_rows_max,
            ):
                await emit(batch)
        except OSError as error:
            raise Unavailable(f"the house did not take it: {error}") from error

    async def _declare(self, asked: Plan, declare: Declare) -> None:
        """What is new, and what is known of old but has no index in this run yet."""
        devices = dict(asked.devices)
        for device_id in asked.rows.area.values():
            if device_id not in self._device_index and device_id not in devices:
                devices[device_id] = self._view.devices[device_id]
        if devices:
            indices = await declare.devices(list(devices.values()))
            self._device_index.update(zip(devices, indices, strict=True))
        points = dict(asked.points)
        for point_id in asked.rows.point:
            if point_id not in self._point_index and point_id not in points:
                points[point_id] = self._view.points[point_id]
        if points:
            indices = await declare.points(list(points.values()))
            self._point_index.update(zip(points, indices, strict=True))

    # ------------------------------------------------------------------- what becomes of a file

    async def _finish(self, found: Found, *, keep: bool) -> bool:
        gone = await asyncio.to_thread(self._folder.finish, found, keep=keep)
        if gone:
            self._waiting.pop(found.path, None)
            if keep and self._config.done == "archive":
                dropped = await asyncio.to_thread(self._folder.archive.trim)
                self._count_dropped(dropped, "archive_full")
        return gone

    async def _refuse(self, found: Found, reason: str, lines: list[str]) -> bool:
        if not await asyncio.to_thread(self._folder.refuse, found, lines):
            return False
        self._waiting.pop(found.path, None)
        self._context.counters.count("rejected", reason=reason)
        self._say("faulty", f"{found.name.text}: {lines[0]}")
        log.warning("%s refused (%s): %s", found.name.text, reason, lines[0])
        dropped = await asyncio.to_thread(self._folder.quarantine.trim)
        self._count_dropped(dropped, "quarantine_full")
        return True

    async def _refuse_oversized(self, found: Found) -> bool:
        """Not opened. Moved once it has stopped growing; one that would push everything else out of
        the quarantine stays where it is."""
        if self._still_waits(found):
            return False
        size = found.signature.size
        if size > self._config.quarantine_bytes_max // 2:
            self._context.counters.count("rejected", reason="size")
            self._say("faulty", f"{found.name.text}: {size} bytes, left where it is")
            self._hold(found)
            return False
        line = f"{size} bytes, more than {self._config.file_size_max_bytes}"
        return await self._refuse(found, "size", [line])

    async def _take_foreign(self, found: Found) -> bool:
        """A file of a mine this folder is not for: refused once it is finished."""
        if not await self._is_finished(found):
            return False
        line = f"mine {found.name.mine_code}, expected {self._config.mine_code}"
        return await self._refuse(found, "other_mine", [line])

    async def _set_aside(self, found: Found) -> bool:
        """Kinds without a mapper are kept, untouched."""
        if not await self._is_finished(found):
            return False
        if not await asyncio.to_thread(self._folder.set_aside, found):
            self._context.counters.count("unhandled_left", reason=_kind_word(found))
            self._hold(found)
            return False
        self._waiting.pop(found.path, None)
        self._context.counters.count("unhandled", reason=_kind_word(found))
        return True

    async def _is_finished(self, found: Found) -> bool:
        """For files that are not decoded: an end mark, or no change for the time-out. Some of these
        kinds have no end mark."""
        tail = await asyncio.to_thread(self._folder.tail, found)
        return has_end_mark(tail) or not self._still_waits(found)

    # ------------------------------------------------------------------------------------- notes

    def _load_notes(self) -> None:
        """What earlier runs knew. A note nobody can read is the same as none: the next lists and
        snapshots rebuild it."""
        folder = self._context.state_dir
        view = View(points={p.id: p for p in self._context.known_points()} | self._view.points)
        try:
            rows = load_note(folder / _DEVICES_NOTE) or []
            view.devices = {row["id"]: _device(row, self._context.name) for row in rows}
            state = load_note(folder / _STATE_NOTE) or {}
            view.newest_ns = {str(key): int(ns) for key, ns in state.get("newest_ns", {}).items()}
            present = state.get("present", {})
            view.present = {mine: frozenset(cards) for mine, cards in present.items()}
            self._taken = dict.fromkeys(str(key) for key in state.get("taken", []))
        except (AttributeError, KeyError, TypeError, ValueError, AssertionError) as error:
            log.warning("%s: note of an earlier run not readable: %r", folder, error)
            self._context.counters.count("note_unreadable")
        self._view = view

    async def _remember(self, key: str, asked: Plan) -> None:
        """What must survive a restart. Called after emit returned, before the file is removed."""
        apply(asked, self._view)
        self._taken[key] = None
        while len(self._taken) > self._config.taken_history_count:
            del self._taken[next(iter(self._taken))]
        try:
            await asyncio.to_thread(self._save_notes, with_devices=bool(asked.devices))
        except OSError as error:
            raise Unavailable(f"cannot write the note of what was taken: {error}") from error

    def _save_notes(self, *, with_devices: bool) -> None:
        folder, view = self._context.state_dir, self._view
        if with_devices:  # first: a state that knows more than the devices would lose attributes
            rows = [
                {"id": d.id, "kind": d.kind, "name": d.name, "attributes": dict(d.attributes)}
                for d in view.devices.values()
            ]
            save_note(folder / _DEVICES_NOTE, rows)
        state = {
            "taken": list(self._taken),
            "newest_ns": view.newest_ns,
            "present": {mine: sorted(cards) for mine, cards in view.present.items()},
        }
        save_note(folder / _STATE_NOTE, state)

    def _note_rejected(self, name: str, asked: Plan) -> None:
        """The bad records of a file that was taken for the rest. Failing to note them costs only
        the note: the good records are durable, and asking for them again would not help."""
        if not asked.faults:
            return
        try:
            lines = [str(fault) for fault in asked.faults]
            self._folder.quarantine.note(f"{name}.rejected.txt", lines)
            self._count_dropped(self._folder.quarantine.trim(), "quarantine_full")
        except OSError as error:
            log.error("%s: cannot note the bad records: %s", name, error)  # noqa: TRY400
            self._context.counters.count("note_failed", reason=type(error).__name__)

    # ------------------------------------------------------------------------------------ telling

    def _count_plan(self, asked: Plan) -> None:
        for (name, reason), n in sorted(asked.counts.items()):
            self._context.counters.count(name, n, reason=reason)
        if len(asked.rows):
            self._context.counters.count("samples", len(asked.rows))

    def _count_dropped(self, n: int, reason: str) -> None:
        if n:
            self._context.counters.count("dropped", n, reason=reason)

    def _count_ignored(self, ignored: dict[str, str]) -> None:
        """Each once, however often it is seen; `ignored` is bounded by the scan."""
        fresh = Counter(reason for path, reason in ignored.items() if path not in self._ignored)
        for reason, n in fresh.items():
            self._context.counters.count("ignored", n, reason=reason)
        self._ignored = set(ignored)

    def _say(self, state: str, detail: str) -> None:
        if state != self._state or state == "faulty":
            self._state = state
            self._context.status(state, detail)


def _kind_word(found: Found) -> str:
    """The kind, if it is one we know: a sender may invent any other."""
    return found.name.kind if found.name.kind in KINDS else "unknown_kind"


def _key(loaded: Loaded) -> str:
    return f"{loaded.found.name.text} {loaded.digest}"


def _device(row: dict[str, Any], adapter: str) -> Device:
    return Device(row["id"], row["kind"], row["name"], adapter, row["attributes"])
