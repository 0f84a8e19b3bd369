"""The command line: arguments only. Data on stdout, logs on stderr, exit codes 0 / 1 / 2.

    0  done
    1  it ran and failed (a fault in the data, a server that is not there)
    2  wrong usage or configuration; every fault on a line of its own

Each command imports what it needs when it runs, so that `hazard-gateway --help` is instant.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.errors import ConfigError, GatewayError
from gateway.runtime.journal_cli import add_journal_commands, add_report_commands

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
BENCHES = ("pipeline", "rules", "spool", "spool-start", "decode", "backtest", "alarms")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else arguments.log_level,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:  # `hazard-gateway decode … | head`
        sys.stderr.close()
        return EXIT_OK
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except GatewayError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_OK
    except OSError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hazard-gateway",
        description="Monitoring gateway for major hazard sources and mines.",
    )
    parser.add_argument(
        "--version", action="version", version=f"hazard-gateway {version('hazard-gateway')}"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, to stderr")
    parser.set_defaults(log_level=logging.INFO)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_site_commands(commands)
    _add_tools(commands)
    _add_history_commands(commands)
    add_journal_commands(commands)
    add_report_commands(commands)
    return parser


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  no public name


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError("a port, 0 to 65535")
    return int(text)


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="simulators, gateway, broker and console in one")
    demo.add_argument("--duration", type=float, metavar="S", help="stop by itself after S seconds")
    demo.add_argument("--json", action="store_true", help="end with one JSON line of counts")
    demo.add_argument(
        "--data-dir", type=Path, metavar="D", help="keep the data here (default: a new folder)"
    )
    demo.add_argument(
        "--port", type=_port, default=8808, metavar="N", help="console port, 0 for any free one"
    )
    demo.add_argument(
        "--mqtt-port", type=_port, default=1883, metavar="N", help="broker port, 0 for any free one"
    )
    demo.add_argument("--seed", type=int, default=1, help="of every simulated signal")
    # The demo tells what happens by itself; its log would only say it twice.
    demo.set_defaults(run=_demo, log_level=logging.WARNING)


def _add_site_commands(commands: Commands) -> None:
    run = commands.add_parser("run", help="the gateway")
    run.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="validate a site: every fault on a line of its own")
    check.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    check.set_defaults(run=_check)

    plugins = commands.add_parser("plugins", help="what is installed, of which kind, from where")
    plugins.set_defaults(run=_plugins)


def _add_tools(commands: Commands) -> None:
    decode = commands.add_parser("decode", help="frames to one JSON line each")
    decode.add_argument("protocol", metavar="PROTOCOL")
    decode.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: stdin")
    decode.set_defaults(run=_decode)

    simulate = commands.add_parser("simulate", help="one simulator against any server")
    simulate.add_argument("protocol", metavar="PROTOCOL")
    simulate.add_argument(
        "--target", required=True, metavar="WHERE", help="host:port, or a folder for files"
    )
    simulate.add_argument("--scenario", metavar="NAME", help="a shipped scenario or a TOML file")
    simulate.add_argument("--seed", type=int, default=1)
    simulate.add_argument("--duration", type=float, metavar="S")
    simulate.set_defaults(run=_simulate)

    bench = commands.add_parser("bench", help="figures, the machine's own limit beside them")
    bench.add_argument("what", choices=BENCHES)
    bench.add_argument("--json", action="store_true")
    bench.add_argument("--seconds", type=float, default=10.0, help="about how long to measure")
    bench.add_argument("--gb", type=float, default=1.0, help="backlog of spool-start (default 1)")
    bench.set_defaults(run=_bench)


def _time(text: str) -> int:
    from gateway.runtime.instants import time_ns_of  # noqa: PLC0415

    try:
        return time_ns_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _file(text: str) -> Path | None:
    return None if text == "-" else Path(text)


def _add_history_commands(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="recorded samples through the same road")
    replay.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    replay.add_argument("file", type=_file, metavar="FILE", help="CSV, Parquet, Arrow; - is stdin")
    replay.add_argument("--until", type=_time, metavar="TIME", help="let the clock run up to here")
    replay.add_argument(
        "--data-dir", type=Path, metavar="D", help="keep spool and journal in this empty folder"
    )
    replay.add_argument(
        "--declare", action="store_true", help="take points the site does not know, too"
    )
    replay.set_defaults(run=_replay, log_level=logging.WARNING)

    backtest = commands.add_parser(
        "backtest", help="what another rule set would have raised over stored history"
    )
    backtest.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    backtest.add_argument(
        "--rules", type=Path, required=True, metavar="OTHER.toml",
        help="packs, [[pack_override]], [[rule]]; a section it has not is the site's own",
    )  # fmt: skip
    _add_span(backtest)
    backtest.add_argument("--json", action="store_true")
    backtest.set_defaults(run=_backtest, log_level=logging.WARNING)

    explain = commands.add_parser("explain", help="why an alarm did or did not fire")
    explain.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    explain.add_argument("point", metavar="POINT")
    explain.add_argument("--at", dest="at_ns", type=_time, required=True, metavar="TIME")
    explain.add_argument("--window-h", type=float, help="judge from so long before (default 24)")
    explain.add_argument("--json", action="store_true")
    explain.set_defaults(run=_explain, log_level=logging.WARNING)
    _add_lint(commands)


def _add_lint(commands: Commands) -> None:
    lint = commands.add_parser(
        "lint",
        aliases=["rule-lint"],
        help="false alarms a day and detection delay of limit rules, from stored history",
    )
    lint.add_argument("-c", "--config", type=Path, required=True, metavar="SITE.toml")
    lint.add_argument("--rules", type=Path, metavar="R.toml", help="default: the site's own")
    lint.add_argument("--days", type=float, default=7.0, metavar="N", help="of history (7)")
    lint.add_argument("--to", dest="to_ns", type=_time, help="their end (default: newest sample)")
    lint.add_argument("--json", action="store_true")
    lint.set_defaults(run=_lint, log_level=logging.WARNING)


def _add_span(command: argparse.ArgumentParser) -> None:
    times = "RFC 3339 or integer ns"
    command.add_argument("--from", dest="from_ns", type=_time, required=True, help=times)
    command.add_argument("--to", dest="to_ns", type=_time, required=True, help=times)


def _backtest(arguments: argparse.Namespace) -> int:
    from gateway.runtime.backtest import BacktestOptions, run_backtest  # noqa: PLC0415

    return run_backtest(
        BacktestOptions(
            config=arguments.config,
            rules=arguments.rules,
            from_ns=arguments.from_ns,
            to_ns=arguments.to_ns,
            as_json=arguments.json,
        )
    )


def _explain(arguments: argparse.Namespace) -> int:
    from gateway.runtime.explain import ExplainOptions, run_explain  # noqa: PLC0415

    return run_explain(
        ExplainOptions(
            config=arguments.config,
            point=arguments.point,
            at_ns=arguments.at_ns,
            as_json=arguments.json,
            window_s=None if arguments.window_h is None else arguments.window_h * 3600,
        )
    )


def _lint(arguments: argparse.Namespace) -> int:
    from gateway.runtime.rule_lint import LintOptions, run_lint  # noqa: PLC0415

    return run_lint(
        LintOptions(
            config=arguments.config,
            rules=arguments.rules,
            days=arguments.days,
            to_ns=arguments.to_ns,
            as_json=arguments.json,
        )
    )


def _replay(arguments: argparse.Namespace) -> int:
    from gateway.runtime.replay import ReplayOptions, run_replay  # noqa: PLC0415

    return run_replay(
        ReplayOptions(
            config=arguments.config,
            file=arguments.file,
            data_dir=arguments.data_dir,
            until_ns=arguments.until,
            declare=arguments.declare,
        )
    )


def _demo(arguments: argparse.Namespace) -> int:
    from gateway.runtime.demo import DemoOptions, run_demo  # noqa: PLC0415

    return run_demo(
        DemoOptions(
            duration_s=arguments.duration,
            as_json=arguments.json,
            data_dir=arguments.data_dir,
            port=arguments.port,
            mqtt_port=arguments.mqtt_port,
            seed=arguments.seed,
        )
    )


def _run(arguments: argparse.Namespace) -> int:
    # Until run_service listens: it reads the file after this anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from gateway.runtime.service import run_service  # noqa: PLC0415

    return run_service(arguments.config)


def _check(arguments: argparse.Namespace) -> int:
    from gateway.runtime.checking import check_site  # noqa: PLC0415

    report = check_site(arguments.config)
    for line in report.notes:
        print(line)
    for fault in report.faults:
        print(fault, file=sys.stderr)
    return EXIT_USAGE if report.faults else EXIT_OK


def _plugins(_arguments: argparse.Namespace) -> int:
    from gateway.runtime.plugins import list_plugins  # noqa: PLC0415

    for line in list_plugins():
        print(line)
    return EXIT_OK


def _decode(arguments: argparse.Namespace) -> int:
    from gateway.runtime.decoding import decode_lines  # noqa: PLC0415

    for line in decode_lines(arguments.protocol, arguments.file):
        print(line)
    return EXIT_OK


def _simulate(arguments: argparse.Namespace) -> int:
    from gateway.runtime.simulating import simulate  # noqa: PLC0415

    return simulate(
        arguments.protocol,
        target=arguments.target,
        scenario=arguments.scenario,
        seed=arguments.seed,
        duration_s=arguments.duration,
    )


def _bench(arguments: argparse.Namespace) -> int:
    from gateway.runtime.bench import run_bench  # noqa: PLC0415

    what, seconds, gb = arguments.what, arguments.seconds, arguments.gb
    for line in run_bench(what, seconds=seconds, as_json=arguments.json, gb=gb):
        print(line)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
