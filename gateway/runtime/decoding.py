"""`hazard-gateway decode`: frames in, one JSON line each out. Damage is an answer."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from gateway.contract.adapter import AdapterKind, Decoded, FrameDecoder
from gateway.model.errors import ConfigError, Fault, RemoteProtocolError
from gateway.runtime.plugins import load_plugins


def decode_lines(protocol: str, file: Path | None) -> Iterator[str]:
    """Decode a file, or stdin. Raises ConfigError for an unknown protocol or an unreadable file."""
    kind = _decoding_kind(protocol)
    assert kind.decoder is not None
    decoder = kind.decoder()
    for line in _inputs(kind, file):
        yield from answer(decoder, line)


def answer(decoder: FrameDecoder, line: str) -> list[str]:
    """The JSON lines for one input: a message each, or one named error."""
    try:
        return [_dump(_message(decoded)) for decoded in decoder.feed(line)]
    except RemoteProtocolError as error:
        return [_dump({"ok": False, "error": error.code, "detail": error.detail})]


def _decoding_kind(protocol: str) -> AdapterKind:
    adapters = load_plugins().adapters
    kind = adapters.get(protocol)
    if kind is None or kind.decoder is None:
        known = ", ".join(name for name, found in adapters.items() if found.decoder)
        raise ConfigError([Fault("decode", 0, protocol, f"one of {known}")])
    return kind


def _inputs(kind: AdapterKind, file: Path | None) -> Iterator[str]:
    """Lines of a frame protocol; the whole of a text protocol, led by its file name when known.

    Bytes that are not UTF-8 survive as surrogates, so that the decoder can say what is wrong.
    """
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        raise ConfigError([Fault(str(file), 0, "", f"a readable file ({error})")]) from error
    text = data.decode("utf-8", "surrogateescape")
    if kind.decodes == "text":
        yield f"{file.name}\n{text}" if file else text
        return
    yield from (line for line in text.splitlines() if line.strip())


def _message(decoded: Decoded) -> dict[str, Any]:
    return {"ok": True, "message": decoded.message, "samples": list(decoded.samples)}


def _dump(row: dict[str, Any]) -> str:
    try:
        return orjson.dumps(row).decode()
    except orjson.JSONEncodeError:  # a surrogate or an integer beyond 64 bits, echoed from damage
        return orjson.dumps(_plain(row)).decode()


def _plain(value: Any) -> Any:
    """The value in words every JSON reader takes."""
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, bool):
        return value
    return value if isinstance(value, int) and -(2**63) <= value < 2**64 else str(value)
