"""Which lines an error answer names. Pure.

    1.x, 2.x   unable to parse '<line>': <why>                 one for each line, the line in full
    3.x        {"data": [{"line_number": 2, "error_message": "…"}, …]}      from 1 on, at most 100

Answers that only count ("partial write: field type conflict … dropped=3") name none: the lines are
then found by halving. A count is not relied on: 1.x reports that of one shard where a request goes
to several.

What is named is taken out and the rest sent again, so a wrong reading costs a request, not a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

_QUOTED = re.compile(r"unable to parse '(.*?)': ([^\n]*)")
_REASON_SIZE_MAX = 300
_DROPPED = re.compile(r"\s*dropped=\d+\s*$")


def named_lines(body: bytes, lines: Sequence[str]) -> dict[int, str]:
    """Number in `lines` -> the server's reason. Empty when the answer names none of them, or
    something that is not among them."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = {"error": body.decode(errors="replace")}
    if not isinstance(answer, dict):
        return {}
    if isinstance(answer.get("data"), list):
        return _numbered(answer["data"], len(lines))
    return _quoted(str(answer.get("error") or answer.get("message") or ""), lines)


def _numbered(data: Sequence[object], count: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in data:
        number = item.get("line_number") if isinstance(item, dict) else None
        if not isinstance(number, int) or not 1 <= number <= count:
            return {}
        assert isinstance(item, dict), "it has a number"
        found[number - 1] = str(item.get("error_message", ""))[:_REASON_SIZE_MAX]
    return found


def _quoted(text: str, lines: Sequence[str]) -> dict[int, str]:
    reasons = {
        line: _DROPPED.sub("", why)[:_REASON_SIZE_MAX] for line, why in _QUOTED.findall(text)
    }
    if not reasons:
        return {}
    found = {number: reasons[line] for number, line in enumerate(lines) if line in reasons}
    return found if len({lines[number] for number in found}) == len(reasons) else {}
