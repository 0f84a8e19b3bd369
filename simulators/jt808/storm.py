"""`python -m simulators.jt808.storm`: ten thousand terminals come back at once, or five thousand
sockets mean no good, while a hundred terminals report every second. Prints what it did to them.

    enrol ─▶ gateway stopped and started ─▶ steady alone: baseline ─▶ storm (or slow) ─▶ figures

The gateway is `hazard-gateway run` in a process of its own with the defaults of the adapter; the
hundred, the crowd and the gateway are three processes, so that the crowd's own work is not timed;
the crowd, which stands for other machines, gives way to the other two (nice 19). On a machine of
two cores they still share its caches and its kernel: the ratio printed is an upper bound.

Passes (exit 0) when all are in within `ALL_IN_S`, the p99 of the hundred is at most `RATIO_MAX`
times its baseline, none of them was cut off, and, for slow sockets, memory grew by at most
`GROWTH_MIB`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ALL_IN_S = 120.0  # fault F16
RATIO_MAX = 2.0  # fault F16
GROWTH_MIB = 64.0  # fault F18
STEADY_FIRST = 500_000
START_TIMEOUT_S = 60.0
POLL_S = 0.1

SITE = """
[site]
tenant = "storm"
id = "storm"
name = {{ en = "reconnect storm" }}
data_dir = "{folder}/data"
[console]
enabled = false
[[adapter]]
name = "fleet"
kind = "jt808"
host = "127.0.0.1"
port = {port}
{options}
"""
ENROLMENT = "registrations_per_s_max = 100000.0\naccepts_per_s_max = 100000.0"


@dataclass
class Gateway:
    """`hazard-gateway run` as a process, and what it grows to."""

    folder: Path
    port: int
    options: str = ""
    rss_mib: list[tuple[float, float]] = field(default_factory=list)  # when, how much

    @contextlib.contextmanager
    def running(self) -> Iterator[Gateway]:
        site = self.folder / "site.toml"
        site.write_text(
            SITE.format(folder=self.folder, port=self.port, options=self.options), "utf-8"
        )
        log = self.folder / "gateway.log"
        with log.open("ab") as err:
            program = Path(sys.executable).parent / "hazard-gateway"
            process = subprocess.Popen(  # noqa: S603  our own program
                [program, "run", "-c", site], stderr=err, stdout=err
            )
            stop = threading.Event()
            watch = threading.Thread(target=self._watch, args=(process.pid, stop))
            watch.start()
            try:
                self._await_port(process)
                yield self
            finally:
                stop.set()
                watch.join()
                process.terminate()
                process.wait(START_TIMEOUT_S)

    def _await_port(self, process: subprocess.Popen[bytes]) -> None:
        end_s = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError((self.folder / "gateway.log").read_text("utf-8"))
            time.sleep(POLL_S)

    def _watch(self, pid: int, stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text("ascii")
                resident = status.split("VmRSS:")[1].split()[0]
                self.rss_mib.append((time.perf_counter(), int(resident) / 1024))

    def rss(self, from_s: float, to_s: float) -> float:
        """The most it had in that time."""
        return max((mib for at_s, mib in self.rss_mib if from_s <= at_s <= to_s), default=0.0)

    def complaints(self) -> list[str]:
        """Lines of the log that no input may cause."""
        lines = (self.folder / "gateway.log").read_text("utf-8").splitlines()
        return [line for line in lines if "Traceback" in line or " ERROR " in line]


class Crowd:
    """One process of crowd.py."""

    def __init__(self, mode: str, gateway: Gateway, count: int, first: int, seed: int) -> None:
        codes = gateway.folder / f"codes-{first}.json"
        arguments = ["--port", gateway.port, "--count", count, "--first", first]
        arguments += ["--codes", codes, "--seed", seed]
        self._process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-m", "simulators.jt808.crowd", mode, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        """Its next milestone. Raises RuntimeError when it ended without."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a crowd ended before its time")
        said: dict[str, Any] = json.loads(line)
        return said

    def say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _latencies(timings: Sequence[Sequence[float]], from_s: float, to_s: float) -> dict[str, Any]:
    values = [took_s * 1000 for at_s, took_s in timings if from_s <= at_s < to_s]
    return {
        "count": len(values),
        "p50_ms": round(percentile(values, 0.50), 2),
        "p99_ms": round(percentile(values, 0.99), 2),
    }


def run(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole experiment; its figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    hostile = bool(asked.slow)
    with Gateway(folder, port, ENROLMENT).running() as gateway:
        for first, count in ((0, 0 if hostile else asked.devices), (STEADY_FIRST, asked.steady)):
            crowd = Crowd("enrol", gateway, count, first, asked.seed)
            enrolled = crowd.hear()["enrolled"] if count else 0
            crowd._process.wait()  # noqa: SLF001  it ends by itself, its codes written
            crowd.end()
            if enrolled != count:
                raise RuntimeError(f"{enrolled} of {count} enrolled")
    options = f"strangers_max = {asked.strangers_max}" if asked.strangers_max else ""
    with Gateway(folder, port, options).running() as gateway:
        measured = Crowd("steady", gateway, asked.steady, STEADY_FIRST, asked.seed)
        try:
            measured.hear()
            time.sleep(asked.baseline)
            return (_slow if hostile else _storm)(asked, gateway, measured)
        finally:
            measured.end()


def _storm(asked: argparse.Namespace, gateway: Gateway, measured: Crowd) -> dict[str, Any]:
    crowd = Crowd("storm", gateway, asked.devices, 0, asked.seed)
    try:
        time.sleep(1.0)  # engineering: it has loaded its codes
        went_s = time.perf_counter()
        crowd.say()
        said = crowd.hear()
        all_in_s = said["began_s"] + said["all_in_s"]
        time.sleep(2.0)
        measured.say()
        heard = measured.hear()
        figures = {
            "devices": said["in"],
            "half_in_s": round(said["half_in_s"], 1),
            "all_in_s": round(said["all_in_s"], 1),
            "refused_or_retried": said["retried"],
            **_shared(asked, gateway, heard, went_s, all_in_s),
        }
        figures["passed"] = bool(
            figures["all_in_s"] <= ALL_IN_S
            and figures["p99_ratio"] <= RATIO_MAX
            and not heard["lost"]
            and not figures["complaints"]
        )
        return figures
    finally:
        crowd.end()


def _slow(asked: argparse.Namespace, gateway: Gateway, measured: Crowd) -> dict[str, Any]:
    crowd = Crowd("slow", gateway, asked.slow, 0, asked.seed)
    try:
        went_s = time.perf_counter()
        crowd.hear()
        time.sleep(asked.seconds)
        done_s = time.perf_counter()
        measured.say()
        heard = measured.hear()
        crowd.say()
        figures = {
            "slow_sockets": asked.slow,
            "seconds": asked.seconds,
            "closed_or_refused": crowd.hear()["closed_by_gateway"],
            **_shared(asked, gateway, heard, went_s, done_s),
        }
        figures["passed"] = bool(
            figures["rss_growth_mib"] <= GROWTH_MIB
            and not heard["lost"]
            and not figures["complaints"]
        )
        return figures
    finally:
        crowd.end()


def _shared(
    asked: argparse.Namespace,
    gateway: Gateway,
    heard: dict[str, Any],
    went_s: float,
    done_s: float,
) -> dict[str, Any]:
    before = _latencies(heard["timings"], went_s - asked.baseline, went_s - 1.0)
    during = _latencies(heard["timings"], went_s, done_s)
    rss_before = gateway.rss(went_s - 2.0, went_s)
    rss_peak = gateway.rss(went_s, done_s)
    return {
        "connected": asked.steady,
        "connected_lost": heard["lost"],
        "before": before,
        "during": during,
        "p50_ratio": round(during["p50_ms"] / before["p50_ms"], 2),
        "p99_ratio": round(during["p99_ms"] / before["p99_ms"], 2),
        "rss_before_mib": round(rss_before, 1),
        "rss_peak_mib": round(rss_peak, 1),
        "rss_growth_mib": round(rss_peak - rss_before, 1),
        "complaints": gateway.complaints()[:5],
        "seed": asked.seed,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulators.jt808.storm")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="N slow sockets instead")
    parser.add_argument("--seconds", type=float, default=75.0, help="of slow sockets")
    parser.add_argument("--strangers-max", type=int, default=0, help="0: the adapter's default")
    parser.add_argument("--steady", type=int, default=100, help="terminals that report all along")
    parser.add_argument("--baseline", type=float, default=15.0, metavar="S")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="hazard-gateway-storm-") as folder:
        figures = run(asked, Path(folder))
    if asked.json:
        lines = [json.dumps(figures)]
    else:
        lines = [f"{name:<20} {value}" for name, value in figures.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if figures["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
