"""The command line: arguments only. Data on stdout, logs on stderr, exit codes 0 / 1 / 2.

    0  done
    1  it ran and failed (a fault in the data, a server that is not there)
    2  wrong usage or configuration; every fault on a line of its own

Each command imports what it needs when it runs, so that `hazard-gateway --help` is instant.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.errors import ConfigError, GatewayError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
BENCHES = ("pipeline", "rules", "spool", "decode")


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
    bench.set_defaults(run=_bench)


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

    for line in run_bench(arguments.what, seconds=arguments.seconds, as_json=arguments.json):
        print(line)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
