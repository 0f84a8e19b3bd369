"""What may be wrong with a file, applied to its bytes. Pure.

`damage` says what the folder gets to see and whether the gateway will store the samples. Faults of
order (`late`, `duplicate`, `slow`) leave the bytes alone and are the simulator's.

Owns: damage to content. Not here: when (config.py), writing (simulator.py).
"""

from __future__ import annotations

from typing import NamedTuple

from adapters.mine_files.codec import SECOND_NS, format_time
from simulators.mine_files.config import FaultName

OTHER_MINE = "999902000999"
_FUTURE_NS = 3600 * SECOND_NS
_BAD_RECORD = "99990100012301MN0001BAD;环境瓦斯"  # two fields: in no layout
_WIDE_RECORD = "99990100012301MN0001BAD；环境瓦斯；；0.3；%CH4；0；2026-01-15 08:00:00"
_ONE_BAD = frozenset({"wrong_field_count", "full_width"})
_COSTS_THE_FILE = frozenset({"half", "many_bad", "future", "other_mine", "gb2312"})


class Damaged(NamedTuple):
    """What is written, and whether the good records in it are still taken."""

    data: bytes
    is_taken: bool


def damage(data: bytes, fault: FaultName, time_ns: int) -> Damaged:
    """`data` as this fault leaves it; `time_ns` is the header's time."""
    text = data.decode("utf-8")
    body, record_count = text.removesuffix("||"), text.count("~") - 1
    # One bad record in more than five, or the share of bad ones costs the whole file.
    is_taken = record_count >= 4 if fault in _ONE_BAD else fault not in _COSTS_THE_FILE
    match fault:
        case "half":
            data = data[: len(data) // 2]
        case "wrong_field_count":
            data = f"{body}{_BAD_RECORD}~||".encode()
        case "full_width":
            data = f"{body}{_WIDE_RECORD}~||".encode()
        case "many_bad":
            data = f"{body}{f'{_BAD_RECORD}~' * (record_count + 1)}||".encode()
        case "future":
            old, new = format_time(time_ns), format_time(time_ns + _FUTURE_NS)
            data = text.replace(old, new).encode()
        case "other_mine":
            data = f"{OTHER_MINE}{text[len(OTHER_MINE) :]}".encode()
        case "newlines":
            data = data.replace(b"~", b"~\r\n") + b"\n"
        case "bom":
            data = b"\xef\xbb\xbf" + data
        case "quotes":
            data = b'"' + data + b'"'
        case "gb2312":
            data = text.encode("gb18030")
        case "slow" | "late" | "duplicate":
            pass  # the order of files, not their content
    return Damaged(data, is_taken)
