"""What outside evidence says: promised rows against stored ones, and the order they came in.

A row is the same row as another when point, source time and value are. Order is that of receipt,
for each point within each lane (decision 0018): the rows of a point, in the order the database took
them, must fall into two rising sequences of the time of receipt at most, the live one and the
backlog. Rows written again are looked at once.
"""

from __future__ import annotations

import json
import math
import urllib.request
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from gateway.contract.simulator import SentSample
from gateway.testing.outage.recorder import Run

_QUERY_TIMEOUT_S = 120.0


@dataclass
class Promises:
    """Every sample a device was told is safe, in as little memory as half an hour needs."""

    sent_count: int = 0
    acknowledged_count: int = 0
    _by_point: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict)

    def sent(self, samples: Sequence[SentSample]) -> None:
        self.sent_count += len(samples)

    def acknowledged(self, samples: Sequence[SentSample]) -> None:
        self.acknowledged_count += len(samples)
        for point, time_ns, value in samples:
            times, values = self._by_point.setdefault(point, (array("q"), array("d")))
            times.append(time_ns)
            values.append(value)

    def __iter__(self) -> Iterator[tuple[str, array[int], array[float]]]:
        for point, (times, values) in self._by_point.items():
            yield point, times, values


@dataclass
class StoreCheck:
    """What the database holds of what was promised."""

    rows: int = 0
    missing: int = 0
    duplicates: int = 0
    examples: list[str] = field(default_factory=list)


def check_store(url: str, database: str, promises: Promises) -> StoreCheck:
    """Read every point back by InfluxQL and compare."""
    found = StoreCheck()
    for point in _points(url, database):
        rows = Counter(_rows(url, database, point))
        found.rows += rows.total()
        found.duplicates += sum(count - 1 for count in rows.values())
        if any(count > 1 for count in rows.values()):
            found.examples.append(f"twice: {point}")
    for point, times, values in promises:
        rows = Counter(_rows(url, database, point))
        by_time = {time_ns for time_ns, _ in rows}
        for time_ns, value in zip(times, values, strict=True):
            if time_ns == 0:  # the protocol carries none
                is_there = bool(rows)
            elif math.isinf(value):  # the gateway's own number of an area
                is_there = time_ns in by_time
            else:
                is_there = (time_ns, repr(value)) in rows
            if not is_there:
                found.missing += 1
                found.examples.append(f"missing: {point} {time_ns} {value}")
    return found


def _points(url: str, database: str) -> list[str]:
    series = _query(url, database, 'show tag values from "sample" with key = "point"')
    return [value for part in series for _, value in part["values"]]


def _rows(url: str, database: str, point: str) -> list[tuple[int, str]]:
    """(source time, value as text) of every row of the point, every tie counted."""
    literal = point.replace("\\", "\\\\").replace("'", "\\'")
    text = f"select value, quality from sample where point = '{literal}' group by dup"  # noqa: S608
    return [
        (time_ns, repr(math.nan if value is None else float(value)))
        for part in _query(url, database, text)
        for time_ns, value, _ in part["values"]
    ]


def _query(url: str, database: str, text: str) -> list[dict[str, Any]]:
    body = urlencode({"db": database, "epoch": "ns", "q": text}).encode()
    with urllib.request.urlopen(url + "/query", body, timeout=_QUERY_TIMEOUT_S) as answer:  # noqa: S310  loopback
        results = json.load(answer)["results"]
    return [series for result in results for series in result.get("series", ())]


@dataclass
class WriteCheck:
    """What the sequence of accepted requests says."""

    lines: int = 0
    rewritten: int = 0
    violations: int = 0
    backlog_rows: int = 0  # received before the database was back, accepted after
    first_ns: int = 0  # the first request it accepted after that
    last_ns: int = 0  # the last one that held such a row
    live_behind_s: float = 0.0  # the longest wait of a row received after that first request
    examples: list[str] = field(default_factory=list)


def check_writes(runs: Iterable[Run], back_ns: int) -> WriteCheck:
    """Order for each point, and how the backlog drained once the database was back."""
    found = WriteCheck()
    seen: set[int] = set()
    lanes: dict[str, list[int]] = {}
    for time_ns, lines in runs:
        if time_ns > back_ns and not found.first_ns:
            found.first_ns = time_ns
        for line in lines:
            found.lines += 1
            known = hash(line)
            if known in seen:
                found.rewritten += 1
                continue
            seen.add(known)
            point, received_ns = _read(line)
            if time_ns > back_ns:
                if received_ns < back_ns:
                    found.backlog_rows += 1
                    found.last_ns = time_ns
                elif received_ns > found.first_ns:
                    found.live_behind_s = max(found.live_behind_s, (time_ns - received_ns) / 1e9)
            if not _follows(lanes.setdefault(point, []), received_ns):
                found.violations += 1
                found.examples.append(f"out of order: {line}")
    return found


def _follows(lane_ends: list[int], received_ns: int) -> bool:
    """Put the row behind the newest lane end that is not newer than it; two lanes at most."""
    fitting = [end for end in lane_ends if end <= received_ns]
    if fitting:
        lane_ends[lane_ends.index(max(fitting))] = received_ns
        return True
    if len(lane_ends) < 2:
        lane_ends.append(received_ns)
        return True
    return False


def _read(line: str) -> tuple[str, int]:
    """(series of the point, time of receipt) of one line."""
    head, fields, _ = line.split(" ")
    received = fields.rpartition("received=")[2]
    return head.partition("point=")[2], int(received.rstrip("i"))
