"""`journal verify|key|export` and `report alarms`: the journal's commands. Arguments and printing.

    add_journal_commands(commands)   journal …
    add_report_commands(commands)    report alarms …, report completeness … (completeness_cli.py)

All of them read a journal by its site file (`-c`) or its folder (`--dir`: a copy, or one that is
being written), and change nothing.

Not here: what is looked for (gateway/alarms/verify.py), the figures (gateway/alarms/kpi.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.model.errors import Unavailable
from gateway.runtime.completeness_cli import add_completeness
from gateway.runtime.instants import TIME_MAX, TIME_MIN, time_ns_of

if TYPE_CHECKING:
    from gateway.alarms.verify import VerifyReport

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  no public name

_ALL = (TIME_MIN, TIME_MAX)
_EXIT_OK, _EXIT_FAILED = 0, 1


def add_journal_commands(commands: Commands) -> None:
    journal = commands.add_parser("journal", help="the evidence: verify, key, export")
    actions = journal.add_subparsers(required=True, metavar="ACTION")

    verify = actions.add_parser("verify", help="whether anything in it was changed")
    _add_place(verify)
    verify.add_argument(
        "--anchors",
        type=Path,
        metavar="FILE",
        help="anchors, or heartbeats, that were kept elsewhere",
    )
    verify.add_argument(
        "--public-key", type=Path, metavar="FILE", help="believe these keys only (`journal key`)"
    )
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=_verify)

    key = actions.add_parser("key", help="the public key its anchors are signed with")
    _add_place(key)
    key.set_defaults(run=_key)

    export = actions.add_parser("export", help="events as JSON lines, with what chains them")
    _add_place(export)
    _add_times(export, required=False)
    export.set_defaults(run=_export)


def add_report_commands(commands: Commands) -> None:
    report = commands.add_parser("report", help="figures of a time")
    names = report.add_subparsers(required=True, metavar="NAME")
    alarms = names.add_parser("alarms", help="how many, how fast acknowledged, what was hidden")
    _add_place(alarms)
    _add_times(alarms, required=True)
    alarms.add_argument("--format", choices=("json",), default="json")
    alarms.set_defaults(run=_report_alarms)
    add_completeness(names)


def _add_place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-c", "--config", type=Path, metavar="SITE.toml")
    place.add_argument("--dir", type=Path, metavar="DIR", help="the journal's folder, or a copy")


def _add_times(parser: argparse.ArgumentParser, *, required: bool) -> None:
    first, last = (None, None) if required else _ALL
    for name, default in (("from", first), ("to", last)):
        parser.add_argument(
            *(f"--{name}",), dest=f"{name}_ns", type=_time, required=required,
            default=default, metavar="TIME",
        )  # fmt: skip


def _time(text: str) -> int:
    try:
        return time_ns_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.dir is not None:
        return Path(arguments.dir)
    from gateway.runtime.checking import load_site  # noqa: PLC0415
    from gateway.runtime.plugins import load_plugins  # noqa: PLC0415

    return load_site(arguments.config, load_plugins()).data_dir / "journal"


def _verify(arguments: argparse.Namespace) -> int:
    from gateway.alarms.signing import read_public_keys  # noqa: PLC0415
    from gateway.alarms.verify import verify_journal  # noqa: PLC0415

    keys = read_public_keys(arguments.public_key) if arguments.public_key else []
    if arguments.anchors is not None:
        arguments.anchors.stat()  # a name misspelt must not look like nothing to compare with
    directory = _directory(arguments)
    report = verify_journal(directory, outside=arguments.anchors, public_keys=keys)
    if arguments.json:
        _print(orjson.dumps(report.as_json()).decode())
    else:
        for line in verdict(report):
            _print(line)
    return _EXIT_OK if report.ok else _EXIT_FAILED


def verdict(report: VerifyReport) -> Iterator[str]:
    """The report in words: what was found, or how far it is proved that there is nothing."""
    for finding in report.findings:
        yield str(finding)
    if report.finding_count > len(report.findings):
        yield f"and {report.finding_count - len(report.findings)} more"
    for note in report.notes:
        yield f"note: {note}"
    whole = "whole" if report.ok else "NOT WHOLE"
    yield f"{whole}: {report.event_count} events, the last is {report.head.gseq}"
    local, outside = report.local, report.outside
    if local.anchors:
        keys = "the key given" if report.key_is_given else f"key {', '.join(report.keys)}"
        yield f"{local.anchors} anchors beside it, of {keys}, vouch for it up to {local.gseq}"
    if outside.anchors:
        yield f"{outside.anchors} anchors kept elsewhere prove it up to {outside.gseq}"
    else:
        yield "without anchors kept elsewhere: somebody with root and the key could have done all"


def _key(arguments: argparse.Namespace) -> int:
    from gateway.alarms.signing import PUBLIC_KEY, read_public_keys  # noqa: PLC0415

    path = _directory(arguments) / PUBLIC_KEY
    if not path.exists():
        raise Unavailable(f"{path}: no key yet; the gateway makes it when it starts")
    for key in read_public_keys(path):
        _print(f"# key {key.id}")
        _print(key.line)
    return _EXIT_OK


def _export(arguments: argparse.Namespace) -> int:
    from gateway.alarms.reader import JournalReader, pages_by_time  # noqa: PLC0415

    with JournalReader.open(_directory(arguments)) as reader:
        for page in pages_by_time(reader.ask, arguments.from_ns, arguments.to_ns):
            for row in page:
                _print(orjson.dumps(_exported(row)).decode())
    return _EXIT_OK


def _exported(row: Any) -> dict[str, Any]:
    """The record as it is, byte for byte, where it is one; its numbers are the journal's."""
    body: dict[str, Any] = {"gseq": row.gseq}
    try:
        orjson.loads(row.record)
        body["record"] = orjson.Fragment(row.record)
    except (ValueError, TypeError):
        body["damaged"] = True
    for name in ("prev", "hash"):
        digest = getattr(row, name)
        body[name] = digest.hex() if isinstance(digest, bytes) else None
    return body


def _report_alarms(arguments: argparse.Namespace) -> int:
    from gateway.alarms.columns import journal_columns  # noqa: PLC0415
    from gateway.alarms.kpi import kpi  # noqa: PLC0415
    from gateway.alarms.reader import JournalReader  # noqa: PLC0415
    from gateway.model.errors import ConfigError, Fault  # noqa: PLC0415

    from_ns, to_ns = arguments.from_ns, arguments.to_ns
    if from_ns >= to_ns:
        raise ConfigError([Fault("--to", 0, "", "a time after --from")])
    with JournalReader.open(_directory(arguments)) as reader:
        events, damaged_count = journal_columns(reader, from_ns, to_ns)
    body = kpi(events, from_ns=from_ns, to_ns=to_ns).to_json() | {"damaged_rows": damaged_count}
    _print(orjson.dumps(body).decode())
    return _EXIT_OK


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
