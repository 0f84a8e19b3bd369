"""The link between core and web: frames on a local stream. Bytes in, frames out; no sockets here.

    | size u32 | kind u8 | id u32 | name size u8 | name ASCII | body: JSON |
        `-- bytes behind it, big-endian, at most FRAME_SIZE_MAX

        web                                   core
         | -- HELLO 0 {"protocol": 1} ------->  |   each says hello first; another protocol
         | <------- HELLO 0 {"protocol": 1} --  |   number ends the connection at once
         | <------------ PUSH 0 "values" -----  |   topics, newest only, as long as it lasts
         | -- REQUEST 7 "history" {…} ------->  |   answered in any order, by id
         | <-------------- RESPONSE 7 {…} ----  |
         | <------------------ ERROR 8 {…} ---  |   {"code": …, "detail": …}

The body stays bytes: what the core serialised once is what every browser gets, and nobody between
parses it. Both ends are the same release of the same program, so there is one protocol number and
no negotiation; it exists to turn a half-finished upgrade into a clear message.

Not here: sockets (server.py, client.py), what the bodies mean (wire.py).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from gateway.model.errors import LocalProtocolError, RemoteProtocolError

PROTOCOL_VERSION = 1
FRAME_SIZE_MAX = 16 * 1024 * 1024
"""40,000 points of about 400 bytes: far beyond one box, far below what hurts."""
REQUEST_SIZE_MAX = 64 * 1024
"""What the core takes from a web process: the largest command is a comment of 500 characters."""

TOPICS = ("status", "values", "alarms")
"""What the core pushes, in the order a new web process gets them."""

_SIZE = struct.Struct(">I")
_HEAD = struct.Struct(">BIB")


class FrameKind(IntEnum):
    """What a frame is; the numbers stand on the wire."""

    HELLO = 1
    REQUEST = 2
    RESPONSE = 3
    ERROR = 4
    PUSH = 5


_KINDS = frozenset(FrameKind)


class Frame(NamedTuple):
    """One frame, its body unparsed."""

    kind: FrameKind
    id: int  # of the request; 0 where there is none
    name: str  # method or topic
    body: bytes  # JSON, not yet parsed


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises LocalProtocolError when it is larger than the other side takes."""
    name = frame.name.encode("ascii")
    size = _HEAD.size + len(name) + len(frame.body)
    if size > FRAME_SIZE_MAX:
        raise LocalProtocolError("size", f"{size} bytes, {FRAME_SIZE_MAX} allowed")
    head = _HEAD.pack(frame.kind, frame.id, len(name))
    return b"".join((_SIZE.pack(size), head, name, frame.body))


def hello(software: str) -> Frame:
    body = orjson.dumps({"protocol": PROTOCOL_VERSION, "software": software})
    return Frame(FrameKind.HELLO, 0, "", body)


def error(request_id: int, code: str, detail: str = "") -> Frame:
    body = orjson.dumps({"code": code, "detail": detail})
    return Frame(FrameKind.ERROR, request_id, "", body)


def check_hello(frame: Frame) -> str:
    """The other side's software version. Raises RemoteProtocolError for anything but its hello."""
    if frame.kind is not FrameKind.HELLO:
        raise RemoteProtocolError("hello", f"{frame.kind.name} came first")
    said = parse_object(frame.body)
    if said.get("protocol") != PROTOCOL_VERSION:
        detail = f"protocol {said.get('protocol')!r} there, {PROTOCOL_VERSION} here"
        raise RemoteProtocolError("version", detail)
    return str(said.get("software", ""))


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises RemoteProtocolError for anything else."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise RemoteProtocolError("json", str(fault)) from None
    if not isinstance(parsed, dict):
        raise RemoteProtocolError("json", f"{type(parsed).__name__}, not an object")
    return parsed


class FrameDecoder:
    """Turns a byte stream into frames of at most `size_max` bytes, and holds less than one. After
    an error the stream is lost: close it."""

    def __init__(self, size_max: int = FRAME_SIZE_MAX) -> None:
        self._size_max = size_max
        self._buffer = bytearray()
        self._wanted = _SIZE.size  # grows to the whole frame once its size is known

    def feed(self, data: bytes) -> list[Frame]:
        """The frames `data` completes. Raises RemoteProtocolError: no way to find the next one."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= self._wanted:
            size = _SIZE.unpack_from(self._buffer)[0]
            if not _HEAD.size <= size <= self._size_max:
                raise RemoteProtocolError("size", f"{size} bytes")
            self._wanted = _SIZE.size + size
            if len(self._buffer) < self._wanted:
                break
            frames.append(_parse(bytes(self._buffer[_SIZE.size : self._wanted])))
            del self._buffer[: self._wanted]
            self._wanted = _SIZE.size
        return frames


def _parse(content: bytes) -> Frame:
    kind, request_id, name_size = _HEAD.unpack_from(content)
    body_start = _HEAD.size + name_size
    if kind not in _KINDS:
        raise RemoteProtocolError("kind", str(kind))
    if body_start > len(content):
        raise RemoteProtocolError("name", f"{name_size} bytes, past the end")
    name = content[_HEAD.size : body_start]
    if not name.isascii():
        raise RemoteProtocolError("name", repr(name))
    return Frame(FrameKind(kind), request_id, name.decode("ascii"), content[body_start:])
