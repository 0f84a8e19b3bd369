"""Signed anchors: places of the chain vouched for, beside the journal and wherever else they go.

    anchors.jsonl, one line each, appended and synced, never changed:
    {"algorithm":"ed25519-sha256","epoch":3,"gseq":812,"head":"…","key":"…","no":41,
     "occasion":"","prev":"…","signature":"…","time_ns":…,"v":1}

    head       the chain's hash at `gseq`: every event up to there, and that there were so many
    no, prev   the anchors are a chain too: numbered from 1, `prev` is the digest of the one before
    occasion   "start", "stop", or "" for the minute's
    key        the public key; signature over everything but itself

The anchor that left the box (`Journal.newest_anchor`: heartbeat, retained topic, centre) is what
counts: with it `verify` shows what somebody with root and the key has rewritten before it.

The journal notes number and digest of the newest anchor with its next events, so that a cut-off
end of this file shows as well.

Surprising: trouble here (no key, a full disk) never stops an event from being stored; the events
are then chained and not vouched for until the next anchor, and `Journal.sign` raises.

Size: about 450 bytes a line, one a minute while events come: at most 240 MB a year.

Not here: keys (signing.py), comparing (verify.py), when (gateway/runtime/notary.py).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.alarms.files import sync_directory
from gateway.alarms.signing import PublicKey, SigningKey
from gateway.model.errors import StorageFault

ANCHORS = "anchors.jsonl"
LINE_BYTES_MAX = 4096
"""A longer line is none of ours, and is not read further."""
NO_DIGEST = bytes(32)
_VERSION = 1
_DOMAIN = b"hazard-gateway journal anchor\n"  # a signature of ours for this and nothing else


class AnchorPointer(NamedTuple):
    """What the journal notes of its newest anchor."""

    no: int
    digest: bytes

    def pack(self) -> bytes:
        return self.no.to_bytes(8, "big") + self.digest

    @classmethod
    def unpack(cls, data: object) -> AnchorPointer:
        """Nothing noted, or nonsense: the pointer before the first."""
        if not isinstance(data, bytes) or len(data) != 8 + len(NO_DIGEST):
            return NO_POINTER
        return cls(int.from_bytes(data[:8], "big"), data[8:])


NO_POINTER = AnchorPointer(0, NO_DIGEST)


@dataclass(frozen=True, slots=True)
class SignedAnchor:
    """One of them. Parsed is not yet believed: see `is_signed`."""

    no: int
    prev: bytes
    epoch: int
    gseq: int
    head: bytes
    time_ns: int
    occasion: str
    key: PublicKey
    signature: bytes = b""

    def as_json(self) -> dict[str, Any]:
        """As published; `parse_anchor` of it gives the same anchor, in whatever order of keys."""
        return self._body() | {"signature": self.signature.hex()}

    @property
    def line(self) -> bytes:
        return orjson.dumps(self.as_json(), option=orjson.OPT_SORT_KEYS) + b"\n"

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.line).digest()

    @property
    def pointer(self) -> AnchorPointer:
        return AnchorPointer(self.no, self.digest)

    def is_signed(self) -> bool:
        """Whether the key it names made it. Whose key that is, is another question."""
        return self.key.verifies(self._signed_bytes(), self.signature)

    def signed_by(self, key: SigningKey) -> SignedAnchor:
        assert self.key == key.public, "an anchor names the key that signs it"
        return SignedAnchor(
            *(self.no, self.prev, self.epoch, self.gseq, self.head, self.time_ns, self.occasion),
            key=self.key,
            signature=key.sign(self._signed_bytes()),
        )

    def _body(self) -> dict[str, Any]:
        return {
            "algorithm": self.key.algorithm,
            "epoch": self.epoch,
            "gseq": self.gseq,
            "head": self.head.hex(),
            "key": self.key.raw.hex(),
            "no": self.no,
            "occasion": self.occasion,
            "prev": self.prev.hex(),
            "time_ns": self.time_ns,
            "v": _VERSION,
        }

    def _signed_bytes(self) -> bytes:
        return _DOMAIN + orjson.dumps(self._body(), option=orjson.OPT_SORT_KEYS)


_NUMBERS = ("no", "epoch", "gseq", "time_ns")
_DIGESTS = ("head", "prev")
_NAMES = {"algorithm", "epoch", "gseq", "head", "key", "no", "occasion", "prev", "signature",
          "time_ns", "v"}  # fmt: skip


def parse_anchor(data: bytes) -> SignedAnchor | None:
    """The anchor of a line: itself, or under "anchor" of what carried it; None if there is none."""
    try:
        body = orjson.loads(data)
        if isinstance(body, dict) and isinstance(body.get("anchor"), dict):
            body = body["anchor"]
        if not isinstance(body, dict) or set(body) != _NAMES or body["v"] != _VERSION:
            return None
        numbers = {name: body[name] for name in _NUMBERS}
        digests = {name: bytes.fromhex(body[name]) for name in _DIGESTS}
        key = PublicKey(body["algorithm"], bytes.fromhex(body["key"]))
        signature = bytes.fromhex(body["signature"])
    except (ValueError, TypeError):
        return None
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers.values()):
        return None
    if not isinstance(key.algorithm, str) or not isinstance(body["occasion"], str):
        return None
    if any(len(digest) != len(NO_DIGEST) for digest in digests.values()):
        return None
    return SignedAnchor(
        no=numbers["no"],
        prev=digests["prev"],
        epoch=numbers["epoch"],
        gseq=numbers["gseq"],
        head=digests["head"],
        time_ns=numbers["time_ns"],
        occasion=body["occasion"],
        key=key,
        signature=signature,
    )


class AnchorLog:
    """The file, appended to. One thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / ANCHORS
        self.newest: SignedAnchor | None = None
        self.torn: Path | None = None  # where the end of a write that never ended was put
        self.end: AnchorPointer | None = None  # what the next follows; None: see `find_end`

    def find_end(self, noted: AnchorPointer) -> AnchorPointer:
        """What the next anchor has to follow: the file's end, or, without it, what was noted.

        Raises: StorageFault.
        """
        try:
            self.end = self._read_end(noted)
        except OSError as error:
            raise StorageFault(f"{self.path}: {error}") from error
        return self.end

    def append(self, anchor: SignedAnchor) -> None:
        """Add `anchor`, on stable storage when this returns. Raises: StorageFault."""
        assert self.end is not None, "find the end first"
        assert (anchor.no, anchor.prev) == (self.end.no + 1, self.end.digest)
        self.end = None  # after a failure the file is read again: nobody knows what is in it
        try:
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if os.write(descriptor, anchor.line) < len(anchor.line):
                    raise OSError(errno.ENOSPC, "no room for the whole line")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                sync_directory(self.path.parent)
        except OSError as error:
            raise StorageFault(f"{self.path}: {error}") from error
        self.end, self.newest = anchor.pointer, anchor

    def _read_end(self, noted: AnchorPointer) -> AnchorPointer:
        """Where the file ends, if that is at or after what was noted. Else its end is lost or
        changed, and what follows must not join the two pieces: it goes on from the note."""
        with contextlib.suppress(FileNotFoundError):
            last = self._last_line()
            anchor = parse_anchor(last)
            if anchor is not None:
                self.newest = anchor
                if anchor.no > noted.no:
                    return AnchorPointer(anchor.no, hashlib.sha256(last).digest())
        return noted

    def _last_line(self) -> bytes:
        """The last whole line; what is left of one torn by a crash is set aside and cut off."""
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - 2 * LINE_BYTES_MAX)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                self._set_aside(tail[whole:])
                file.truncate(start + whole)
                os.fsync(file.fileno())
            lines = tail[:whole].splitlines(keepends=True)
        return lines[-1] if lines else b""

    def _set_aside(self, torn: bytes) -> None:
        name = f"anchor-torn-{hashlib.sha256(torn).hexdigest()[:8]}.bin"
        path = self.path.parent / "quarantine" / name
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(torn)
            self.torn = path
