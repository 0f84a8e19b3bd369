"""`report completeness`: the ledger's account of a span, for a person or as JSON.

    add_completeness(names)     hooks it under `report`

Reads the ledger's file by its site file (`-c`) or its folder (`--dir`: a copy, or one that is being
written), and changes nothing. What is not counted yet is *pending*, and the head says up to when
the books are known.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.runtime.instants import time_ns_of

if TYPE_CHECKING:
    from gateway.ledger.account import Account, Row

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  no public name

MINUTE_NS = 60_000_000_000
GROUPS = ("point", "device", "area", "adapter", "site")


def add_completeness(names: Commands) -> None:
    report = names.add_parser(
        "completeness", help="expected, received, judged, stored, forwarded; why the rest was not"
    )
    place = report.add_mutually_exclusive_group(required=True)
    place.add_argument("-c", "--config", type=Path, metavar="SITE.toml")
    place.add_argument("--dir", type=Path, metavar="DIR", help="the ledger's folder, or a copy")
    for name in ("from", "to"):
        report.add_argument(
            f"--{name}", dest=f"{name}_ns", type=_time, required=True, metavar="TIME"
        )
    report.add_argument("--points", default="*", metavar="GLOB", help="of point ids")
    report.add_argument("--by", choices=GROUPS, default="point")
    report.add_argument("--format", choices=("json", "table"), default="table")
    report.set_defaults(run=_report)


def _time(text: str) -> int:
    try:
        return time_ns_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _report(arguments: argparse.Namespace) -> int:
    from gateway.api.completeness import completeness  # noqa: PLC0415
    from gateway.ledger.account import Request  # noqa: PLC0415
    from gateway.model.errors import ConfigError, Fault  # noqa: PLC0415
    from gateway.runtime.ledger_keeper import read_account  # noqa: PLC0415

    from_minute, to_minute = arguments.from_ns // MINUTE_NS, -(-arguments.to_ns // MINUTE_NS)
    if from_minute >= to_minute:
        raise ConfigError([Fault("--to", 0, "", "a time after --from")])
    request = Request(from_minute, to_minute, arguments.by, arguments.points)
    account = read_account(_directory(arguments), request)
    if arguments.format == "json":
        sys.stdout.buffer.write(completeness(account).encoded() + b"\n")
        sys.stdout.buffer.flush()
    else:
        for line in table(account):
            sys.stdout.write(line + "\n")
    return 0


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.dir is not None:
        return Path(arguments.dir)
    from gateway.runtime.checking import load_site  # noqa: PLC0415
    from gateway.runtime.plugins import load_plugins  # noqa: PLC0415

    return load_site(arguments.config, load_plugins()).data_dir / "ledger"


def table(account: Account) -> Iterator[str]:
    """Lines for a terminal: the whole, then every row, the worst first."""
    yield f"{_stamp(account.from_minute)} to {_stamp(account.to_minute)} UTC"
    yield f"counted up to {_stamp(account.known_minute)} UTC; gaps in minutes, by reason"
    yield ""
    lines = [["", "online", "complete", "due", "got", "last seen", "without"]]
    lines += [_cells(row, row.key or "-") for row in account.rows]
    lines.append(_cells(account.total, "total"))
    widths = [max(_width(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        yield "  ".join(
            _padded(cell, widths[i], left=i in {0, 6}) for i, cell in enumerate(line)
        ).rstrip()
    yield ""
    for consumer in account.total.consumers:
        why = "".join(f", {count} {reason}" for reason, count in consumer.missing.items())
        yield f"{consumer.role} {consumer.name}: has {consumer.has} of the rows received{why}"


def _cells(row: Row, key: str) -> list[str]:
    without = ", ".join(f"{reason} {minutes}" for reason, minutes in row.dark.items())
    short = row.main_reason and not row.dark
    return [
        f"{key} {row.name}".strip() if row.name != key else key,
        _percent(row.online_rate),
        _percent(row.completeness),
        str(row.due),
        str(row.got),
        _stamp(row.last_online_minute) if row.last_online_minute else "never",
        without or (f"{row.main_reason} (some samples)" if short else ""),
    ]


def _percent(share: float | None) -> str:
    """Rounded down: 99.999 % is not all."""
    return "-" if share is None else f"{int(share * 10_000) / 100:.2f} %"


def _stamp(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%d %H:%M")


def _width(text: str) -> int:
    """Columns on a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _padded(text: str, width: int, *, left: bool) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if left else blanks + text
