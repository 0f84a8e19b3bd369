"""The two files of this adapter: the list of vehicles (CSV, read) and the registrations (kept).

    registrations.jsonl   one JSON object a line, appended and synced before a code is told;
                          the last line of a phone holds; a torn last line is a code never told;
                          rewritten when most of its lines were replaced: a terminal that registers
                          as another every time fills no disk

The directory's own files are readable by the owner only: codes are secrets. Blocking; the client
calls it from a thread. Not here: what the entries mean (roster.py).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from gateway.model.errors import ConfigError, Fault, StorageFault

from .config import VehicleEntry
from .roster import Record

REGISTRATIONS = "registrations.jsonl"
REPLACED_LINES_MAX = 10_000  # and as many again as there are registrations


def read_vehicles(path: Path) -> list[VehicleEntry]:
    """The vehicles of a CSV file whose header line names the fields; empty cells are left out.

    Raises ConfigError with every faulty line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), 0, "vehicles_file", str(error))]) from None
    faults: list[Fault] = []
    entries: list[VehicleEntry] = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        if None in row:  # where DictReader puts cells beyond the header
            faults.append(Fault(str(path), reader.line_num, "", "no more cells than the header"))
            continue
        try:
            entries.append(VehicleEntry.model_validate({k: v for k, v in row.items() if v}))
        except ValidationError as error:
            for problem in error.errors():
                key = ".".join(str(part) for part in problem["loc"])
                faults.append(Fault(str(path), reader.line_num, key, problem["msg"]))
    if faults:
        raise ConfigError(faults)
    return entries


class RegistrationLog:
    """Registrations on disk; durable when `append` returns."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / REGISTRATIONS
        self._lines_max = REPLACED_LINES_MAX
        self._line_count = 0

    def load(self) -> list[Record]:
        """The registrations, last of each phone; rewrites the file without what was replaced, and
        makes it if there is none, so that its name is durable before anything is appended.

        Raises StorageFault.
        """
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            records, line_count = _parse(data)
            if line_count > len(records) or not data.endswith(b"\n"):
                self._rewrite(records.values())
            self._line_count = len(records)
            self._lines_max = 2 * len(records) + REPLACED_LINES_MAX
        except OSError as error:
            raise StorageFault(f"{self._path}: {error}") from error
        return list(records.values())

    def append(self, records: Iterable[Record]) -> None:
        """Raises StorageFault when they are not safely on disk."""
        lines = [_line(record) for record in records]
        data = "".join(lines).encode()
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                _write_all(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageFault(f"{self._path}: {error}") from error
        self._line_count += len(lines)
        if self._line_count > self._lines_max:
            self.load()

    def _rewrite(self, records: Iterable[Record]) -> None:
        fresh = self._path.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, "".join(_line(record) for record in records).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _line(record: Record) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _parse(data: bytes) -> tuple[dict[str, Record], int]:
    """The records by phone and how many lines there were; an unreadable line is skipped: its
    terminal registers again."""
    records: dict[str, Record] = {}
    lines = data.split(b"\n")
    for line in lines:
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if record.is_forgotten:
            records.pop(record.phone, None)
        else:
            records[record.phone] = record
    return records, sum(1 for line in lines if line)
