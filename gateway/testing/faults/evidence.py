"""What can be seen from outside, and whether it is what was promised.

Journal: `journal export` and `journal verify`, the commands. Store: the database file or the
server, asked directly. The core: the local link, as any console asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from gateway import cli
from gateway.api.client import LinkClient
from gateway.model.errors import GatewayError
from gateway.testing.faults.load import RULE_ID, Edge, Sample
from gateway.testing.faults.servers import Subscriber

_SECOND_NS = 1_000_000_000
_SHOWN = 3  # of what is wrong; the rest is a number


@dataclass(frozen=True)
class JournalRecord:
    """One exported event, as far as a checker cares."""

    gseq: int
    alarm_key: str
    occ_no: int
    seq: int
    transition: str
    time_ns: int
    recorded_ns: int
    annunciate: bool
    state: str
    actor: str


def _command(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.main(arguments)
    return code, out.getvalue()


async def journal_records(folder: Path) -> list[JournalRecord]:
    """`journal export --dir …`, also while a gateway writes it. Damaged rows are left out."""
    _, text = await asyncio.to_thread(_command, "journal", "export", "--dir", str(folder))
    records = []
    for line in text.splitlines():
        row = json.loads(line)
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # a damaged record
            records.append(_record(row["gseq"], row["record"]))
    return sorted(records, key=lambda record: record.gseq)


def _record(gseq: int, record: dict[str, Any]) -> JournalRecord:
    alarm = record["alarm"]
    return JournalRecord(
        gseq=gseq,
        alarm_key=alarm["alarm_key"],
        occ_no=alarm.get("occ_no", 0),
        seq=alarm.get("seq", 0),
        transition=record["transition"],
        time_ns=record["time_ns"],
        recorded_ns=record.get("recorded_time_ns", 0),
        annunciate=bool(record.get("annunciate", False)),
        state=str(alarm.get("state", "NORM")),
        actor=record.get("actor", ""),
    )


async def journal_is_whole(folder: Path) -> tuple[bool, str]:
    """`journal verify --dir …`: whether it found nothing, and its words."""
    code, text = await asyncio.to_thread(_command, "journal", "verify", "--dir", str(folder))
    return code == 0, text.strip().replace("\n", "; ")


def journal_faults(records: Sequence[JournalRecord], *, gaps: int = 0) -> list[str]:
    """Gseq without a gap, seq of every alarm without a gap, nothing raised twice, nothing called
    again that was acknowledged."""
    faults = []
    gseqs = [record.gseq for record in records]
    if gseqs and len(gseqs) + gaps < gseqs[-1]:
        faults.append(f"gseq: {gseqs[-1] - len(gseqs)} missing of {gseqs[-1]}")
    last: dict[str, JournalRecord] = {}
    acknowledged: dict[str, int] = {}
    active: set[str] = set()
    for record in records:
        key = record.alarm_key
        before = last.get(key)
        if not gaps and record.seq != (before.seq if before else 0) + 1:
            faults.append(f"{key}: seq {record.seq} after {before.seq if before else 0}")
        if record.transition == "ACT" and key in active and not gaps:
            faults.append(f"{key}: raised twice, gseq {record.gseq}")
        if record.transition == "ACT":
            active.add(key)
        elif record.transition in {"RTN", "REM"}:  # back, or its rule is gone
            active.discard(key)
        if record.transition == "ESC":
            acknowledged.pop(key, None)  # who acknowledged has not seen the worse level
        if record.transition == "ACK":
            acknowledged[key] = record.occ_no
        elif record.annunciate and acknowledged.get(key) == record.occ_no:
            faults.append(f"{key}: called again after ACK, gseq {record.gseq}")
        last[key] = record
    return faults


def edge_faults(edges: Iterable[Edge], records: Sequence[JournalRecord]) -> list[str]:
    """Every jump is on record with its own time, and nothing else of that rule is."""
    wanted = Counter(edges)
    found = Counter(
        Edge(record.alarm_key, record.transition, record.time_ns)
        for record in records
        if record.alarm_key.endswith(f":{RULE_ID}") and record.transition in {"ACT", "RTN"}
    )
    return [*_named("transitions lost", wanted - found), *_named("too many", found - wanted)]


def store_faults(wanted: Counter[Sample], held: Counter[tuple[str, int, float]]) -> list[str]:
    """Every acknowledged sample is there, once."""
    lost = Counter({sample: 1 for sample in wanted if sample not in held})
    repeated = Counter({sample: n for sample, n in held.items() if n > 1})
    return [*_named("samples lost", lost), *_named("stored twice", repeated)]


def _named(what: str, found: Counter[Any]) -> list[str]:
    if not found:
        return []
    return [f"{len(found)} {what}, e.g. {list(found)[:_SHOWN]}"]


def newest_rows(records: Sequence[JournalRecord]) -> dict[str, JournalRecord]:
    return {record.alarm_key: record for record in records}


def told_faults(subscriber: Subscriber, records: Sequence[JournalRecord]) -> list[str]:
    """The state an outside reader has put together equals the journal's."""
    subscriber.read()
    faults = []
    for key, record in newest_rows(records).items():
        row = subscriber.states.get(key)
        if row is None:
            faults.append(f"{key}: nothing on its topic")
        elif (row["occ_no"], row["seq"], row["state"]) != (
            record.occ_no, record.seq, record.state,
        ):  # fmt: skip
            faults.append(f"{key}: topic says seq {row['seq']}, journal {record.seq}")
    return faults


def duckdb_samples(path: Path) -> Counter[tuple[str, int, float]]:
    """Rows of a history file no gateway has open."""
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute(
            "select p.id, s.source_time_ns, s.value from (select * from recent union all "
            "select * from settled) s join point p using (point_index)"
        ).fetchall()
    return Counter((i, int(t), math.nan if v is None else float(v)) for i, t, v in rows)


def latencies_ms(sub: Subscriber, edges: Iterable[Edge]) -> list[float]:
    """From the sample's own time to the moment the subscriber heard of its alarm, sorted."""
    sub.read()
    sent = {(edge.alarm_key, edge.transition, edge.time_ns) for edge in edges}
    found = [
        (sub.heard_ns[gseq] - event["time_ns"]) / 1e6
        for gseq, event in sub.events.items()
        if (event["alarm_key"], event["event"], event["time_ns"]) in sent
    ]
    return sorted(found)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(eq=False)
class Link:
    """The core's local link, as a console uses it."""

    path: Path
    _client: LinkClient = field(init=False)
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._client = LinkClient(self.path)

    def open(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._client.run())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def is_connected(self) -> bool:
        return self._client.connected

    @property
    def status(self) -> dict[str, Any]:
        """The last one pushed, {} before."""
        found: dict[str, Any] = json.loads(self._client.newest.get("status", b"{}"))
        return found

    def forget(self) -> None:
        """What was pushed is of a core that is gone."""
        self._client.newest.clear()

    async def ask(self, method: str, **body: Any) -> dict[str, Any] | None:
        """None when there is no answer."""
        try:
            found: dict[str, Any] = json.loads(
                await self._client.request(method, json.dumps(body).encode())
            )
        except (GatewayError, KeyError):
            return None
        return found

    async def acknowledge_one(self, operator: str) -> tuple[str, int] | None:
        """Acknowledge the first unacknowledged alarm: its key and the gseq answered, or None."""
        alarms = await self.ask("alarms")
        for row in (alarms or {}).get("alarms", []):
            if not row["acknowledged"]:
                answer = await self.ask(
                    "command",
                    name="acknowledge",
                    alarm_key=row["key"],
                    operator=operator,
                    token=row["token"],
                )
                if answer and answer["code"] == "done" and answer["gseq"]:
                    return row["key"], int(answer["gseq"])
        return None
