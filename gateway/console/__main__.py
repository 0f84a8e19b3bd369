"""`python -m gateway.console --link PATH`: arguments only."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from gateway.console.serve import Address, serve
from gateway.console.settings import LANGUAGES, ConsoleSettings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.console", description=__doc__)
    parser.add_argument("--link", type=Path, required=True, help="the core's socket")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--stay", action="store_true", help="do not end when the parent ends")
    parser.add_argument("--parent", type=int, default=0, metavar="PID", help="end when it ends")
    parser.add_argument("--language", choices=LANGUAGES, default="zh_CN")
    parser.add_argument("--time-zone", default="Asia/Shanghai")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME")
    parser.add_argument("--log-level", choices=("INFO", "WARNING", "ERROR"), default="INFO")
    parser.add_argument("--deflate", action="store_true", help="compress live frames")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=chosen.log_level, format="%(levelname)s %(name)s: %(message)s"
    )
    address = Address(chosen.host, chosen.port, chosen.stay, chosen.parent)
    settings = ConsoleSettings(
        language=chosen.language,
        time_zone=chosen.time_zone,
        allowed_hosts=tuple(chosen.allow_host),
        deflate=chosen.deflate,
    )
    try:
        serve(chosen.link, address, settings)
    except (OSError, FileNotFoundError) as fault:
        sys.stderr.write(f"console: {fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
