"""Messages nobody could read, kept for a person to look at: one JSON line each, bounded.

    quarantine.jsonl      the newest       {"received", "topic", "reason", "detail", "size_bytes",
    quarantine.1.jsonl    before that       "sha256", "payload_base64"}

When the newest file passes half of the budget it becomes the older one, whose lines are forgotten:
the last messages tell most about what is wrong now. `keep` returns when the lines are on the disk;
only then may the messages be acknowledged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from adapters.mqtt_json.codec import format_time
from gateway.model.errors import StorageFault

_PAYLOAD_KEPT_MAX = 64 << 10  # of one message; size and sum of the whole are kept as well
_TEXT_KEPT_MAX = 500
_TEXT_KEPT_MIN = 40  # where the budget is small: six times that, twice, is still a short line


class Poison(NamedTuple):
    """One message that was not, or not wholly, understood."""

    received_time_ns: int
    topic: str
    payload: bytes
    reason: str
    detail: str


@dataclass(frozen=True)
class Quarantine:
    """The two files."""

    folder: Path
    size_max_bytes: int

    def keep(self, messages: Sequence[Poison]) -> None:
        """Append and sync. Raises StorageFault when the disk would not."""
        room = self.size_max_bytes // 2
        newest = self.folder / "quarantine.jsonl"
        try:
            size = newest.stat().st_size if newest.exists() else 0
            lines = b""
            for message in messages:
                line = _line(message, _PAYLOAD_KEPT_MAX, _TEXT_KEPT_MAX)
                if len(line) > room:
                    line = _line(message, 0, _TEXT_KEPT_MIN)
                if size + len(lines) + len(line) > room:
                    self._append(newest, lines)
                    newest.replace(self.folder / "quarantine.1.jsonl")
                    size, lines = 0, b""
                lines += line
            self._append(newest, lines)
        except OSError as error:
            raise StorageFault(f"quarantine: {error}") from error

    @staticmethod
    def _append(path: Path, lines: bytes) -> None:
        with path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def _line(message: Poison, payload_kept: int, text_kept: int) -> bytes:
    entry = {
        "received": format_time(message.received_time_ns),
        "topic": message.topic[:text_kept],
        "reason": message.reason,
        "detail": message.detail[:text_kept],
        "size_bytes": len(message.payload),
        "sha256": hashlib.sha256(message.payload).hexdigest(),
        "payload_base64": base64.b64encode(message.payload[:payload_kept]).decode(),
    }
    return json.dumps(entry, ensure_ascii=True).encode() + b"\n"
