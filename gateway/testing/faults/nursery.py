"""The process that forks gateways (see process.py): one JSON order a line in, one pid a line out.

Everything a gateway imports is imported before the first fork; no thread is started and nothing is
opened, so a child differs from a fresh program in nothing it could notice. Ends at the end of its
input; its children get SIGKILL then.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from gateway.testing.faults.process import die_with_parent

LATE_IMPORTS = (
    "gateway.runtime.service",
    "duckdb",
    "pyarrow",
    "aiomqtt",
    "influxdb_client",
    "gateway.contract.mqtt_link",
    "gateway.sinks.duckdb.sink",
    "gateway.sinks.influxdb.sink",
    "gateway.sinks.mqtt.alarms",
    "gateway.sinks.mqtt.telemetry",
)


def main() -> int:
    from gateway.runtime.plugins import load_plugins  # noqa: PLC0415  the slow part of this program

    load_plugins()
    for name in LATE_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; nobody asks for exit codes
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_child(json.loads(line)))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    return 0


def _child(order: dict[str, Any]) -> int:
    """Become `hazard-gateway run`."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for number, descriptor in enumerate((null, log, log)):
        os.dup2(descriptor, number)
    os.close(null)
    os.close(log)
    from gateway.cli import main as gateway  # noqa: PLC0415  already imported, in the parent

    try:
        return gateway(["run", "-c", order["site"]])
    except BaseException:  # noqa: BLE001  what the program would print, and its exit code
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
