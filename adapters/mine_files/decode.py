"""`hazard-gateway decode mine_files FILE`: one whole file, offline.

The first line may be the file's name, or the bare kind (`CDSS`); the rest is the file. Without
either nobody can tell a 4-field RYQY record from an FZSS one, so it is refused. Text that came from
bytes that are not UTF-8 is refused too: read as something else it would be other words.

The answer begins with the file as a whole (header, number of records, what was wrong); one message
for each record follows, with its samples. The value of an `area` sample is the house's index of
the area, which does not exist offline: `area` gives its code instead and `value` is null.
"""

from __future__ import annotations

import math
from typing import Any

from adapters.mine_files.codec import (
    SECOND_NS,
    FileMessage,
    FileName,
    decode_bytes,
    decode_text,
    format_time,
    parse_name,
)
from adapters.mine_files.kinds import KINDS
from adapters.mine_files.mapping import Options, Rows, View, plan
from gateway.contract.adapter import Decoded
from gateway.model.errors import RemoteProtocolError
from gateway.model.quality import Quality

_AROUND = " \t\r\n\ufeff"


class MineFileDecoder:
    """Each input is independent of the ones before."""

    def feed(self, data: str) -> list[Decoded]:
        """One file. Raises RemoteProtocolError: `name`, or what the codec finds."""
        kind, name, body = _split(data)
        _check_encoding(body)
        message = decode_text(body, kind, name=name)
        rows, faults = Rows(), list(message.faults)
        if message.kind.handled:
            asked = plan(message, View(), Options(adapter="decode"))
            rows, faults = asked.rows, asked.faults
        samples: dict[int, list[dict[str, Any]]] = {}
        for row in range(len(rows)):
            samples.setdefault(rows.record[row], []).append(_sample(rows, row))
        first = Decoded(_file(message, [str(fault) for fault in faults]), samples.get(0, ()))
        return [
            first,
            *(
                Decoded(
                    {"record": record.number, "kind": kind, **record.named()},
                    samples.get(record.number, ()),
                )
                for record in message.records
            ),
        ]


def _split(data: str) -> tuple[str, FileName | None, str]:
    first, _, rest = data.lstrip(_AROUND).partition("\n")
    first = first.strip(_AROUND)
    name = parse_name(first)
    if name is not None:
        return name.kind, name, rest
    if first in KINDS:
        return first, None, rest
    raise RemoteProtocolError("name", "the first line is neither a file name nor a kind")


def _check_encoding(text: str) -> None:
    """Raises RemoteProtocolError when it stands for bytes that are not UTF-8 (surrogates do)."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise RemoteProtocolError("encoding", str(error)) from None
    decode_bytes(data, ("utf-8",))


def _file(message: FileMessage, faults: list[str]) -> dict[str, Any]:
    return {
        "kind": message.kind.name,
        "mine_code": message.mine_code,
        "time": _rfc3339(message.time_ns),
        "header": dict(message.header),
        "records": len(message.records),
        "handled": message.kind.handled,
        "faults": faults,
    }


def _sample(rows: Rows, row: int) -> dict[str, Any]:
    value = rows.value[row]
    sample: dict[str, Any] = {
        "point": rows.point[row],
        "value": None if math.isnan(value) or row in rows.area else value,
        "time": _rfc3339(rows.time_ns[row]),
        "quality": Quality(rows.quality[row]).name.lower(),
    }
    if row in rows.area:
        sample["area"] = rows.area[row]
    return sample


def _rfc3339(time_ns: int) -> str:
    """China time, as the file has it."""
    text = format_time(time_ns).replace(" ", "T")
    milliseconds = time_ns % SECOND_NS // 1_000_000
    return f"{text}.{milliseconds:03d}+08:00" if milliseconds else f"{text}+08:00"
