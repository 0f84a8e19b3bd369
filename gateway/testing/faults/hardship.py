"""F12, F17, F19: the gateway stands still for a while, is flooded with alarms, or is short of CPU,
descriptors or memory.

The limits are set on the running process (sched_setaffinity, prlimit), so that it starts well and
meets the shortage in its life, as it would on a box where something else goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.contract.mqtt import MqttTarget
from gateway.contract.mqtt_link import MqttLink, Outgoing
from gateway.runtime.clock import now_ns
from gateway.sinks.mqtt.wire import rfc3339
from gateway.testing.faults import checks, disks, evidence
from gateway.testing.faults.load import HIGH, LOW, RULE_ID, Edge
from gateway.testing.faults.process import Missing, Process, start, until
from gateway.testing.faults.rig import NS, Plan, Rig
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.servers import free_port

# ---------------------------------------------------------------------- F12

SILENCE_S = 4.0
_OFFLINE_RULE = """
[[rule]]
id = "silent"
kind = "offline"
value = { quantity = "level" }
parameters = { max_age_s = %.1f }
"""


async def suspended(run: Run) -> None:
    """F12-stop. The devices go on all the while, so a restful sleep must not make them look
    silent: the transitions are those of a gateway that never slept."""
    silence_s = run.limit(SILENCE_S)  # it must be back among its devices within its own grace
    async with run.rig(Plan(extra=_OFFLINE_RULE % silence_s)) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        process = rig.gateway
        assert process is not None, "started"
        for seconds in (6.0,) if run.quick else (10.0, 30.0, 60.0):
            process.freeze()
            await asyncio.sleep(seconds)
            process.resume()
            await asyncio.sleep(2.0)
        await checks.check_all(run, rig)
        records = await rig.records()
    silent = [r for r in records if r.alarm_key.endswith(":silent") and r.transition == "ACT"]
    run.found.figure(
        f"{len(silent)} alarms of {silence_s:g} s of silence from devices that were not"
    )
    run.found.require(not silent, f"{len(silent)} devices were called silent by a sleeper")


async def clock_step(_run: Run) -> None:
    """F12-step."""
    raise Missing(
        "time namespaces (unshare -T) move the monotonic clock and boottime, not CLOCK_REALTIME, "
        "and a step of the machine's clock would be everybody's; shown in the simulation"
    )


# ---------------------------------------------------------------------- F17

FLOOD_RECORDED_S = 2.0
CRITICAL_HEARD_MS = 250.0
_DEVICES_OF_A_MESSAGE = 500
_FLOOD_MAPPING = """
[[adapter.mappings]]
topic = "flood"
each = "$.values.{device}.{field}"
device = "{device}"
point = "{device}.{field}"
quantity = "{field}"
time = "$.time"
"""
_CRITICAL_RULE = """
[[rule]]
id = "critical"
kind = "limit"
value = { quantity = "danger" }
parameters = { levels = { HH = 50.0 } }
priority = "critical"
"""


async def _flood_of(link: MqttLink, names: list[str], level: float) -> list[Edge]:
    """Every device at once, a few hundred in each message; what must come of it."""
    messages, edges = [], []
    for begin in range(0, len(names), _DEVICES_OF_A_MESSAGE):
        part, time_ns = names[begin : begin + _DEVICES_OF_A_MESSAGE], now_ns() + begin
        values = {name: {"level": level} for name in part}
        payload = {"time": rfc3339(time_ns), "values": values}
        messages.append(Outgoing("numbered/flood/all", json.dumps(payload).encode()))
        transition = "ACT" if level == HIGH else "RTN"
        edges += [Edge(f"{name}.level:{RULE_ID}", transition, time_ns) for name in part]
    await link.publish(messages)
    return edges


async def _danger_of(link: MqttLink, level: float) -> int:
    """The critical device alone, behind all the others; when it said so."""
    time_ns = now_ns()
    danger = {"time": rfc3339(time_ns), "values": {"c0": {"danger": level}}}
    await link.publish([Outgoing("numbered/flood/all", json.dumps(danger).encode())])
    return time_ns


async def flood(run: Run) -> None:
    """F17: all alarms within a second, a critical one in their midst."""
    count = run.pick(1000, 10_000)
    names = [f"f{number}" for number in range(count)]
    mapping = _FLOOD_MAPPING.replace('"flood"', '"numbered/flood/all"')
    plan = Plan(adapter=f"points_max = {count * 2 + 1000}", mappings=mapping, extra=_CRITICAL_RULE)
    async with run.rig(plan) as rig:
        await rig.first_start()
        link = MqttLink(MqttTarget(port=rig.field_broker.port), "flood")
        await link.open()
        try:
            await _flood_of(link, names, LOW)  # declares the points
            await _danger_of(link, LOW)
            await rig.link_drained(run.limit(checks.DRAIN_S), count + 1)
            began_ns = now_ns()
            edges = await _flood_of(link, names, HIGH)
            critical_ns = await _danger_of(link, HIGH)
            await _on_record(rig, count + 1, run.limit(checks.DRAIN_S))
            recorded_ns = now_ns()
            await rig.link_drained(run.limit(checks.DRAIN_S), 2 * count + 2)
        finally:
            await link.close()
        records = await rig.records()
        rig.near.read()
    found = run.found
    found.none_of(evidence.journal_faults(records)[:5], "journal")
    found.none_of(evidence.edge_faults(edges, records), "journal")
    took_s = (recorded_ns - began_ns) / NS
    found.require(took_s <= run.limit(FLOOD_RECORDED_S), f"recorded after {took_s:.2f} s")
    _judge_telling(run, rig, began_ns, critical_ns, f"{count} recorded in {took_s:.2f} s")


async def _on_record(rig: Rig, gseq: int, timeout_s: float) -> None:
    """Until the API shows that event."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while loop.time() < until_s:
        page = await rig.link.ask("events", limit=1)
        if page and page["events"] and page["events"][-1]["gseq"] >= gseq:
            return
        await asyncio.sleep(0.02)


def _judge_telling(run: Run, rig: Rig, began_ns: int, critical_ns: int, said: str) -> None:
    """When the near subscriber heard the critical alarm, and all of them."""
    near, found = rig.near, run.found
    critical = [g for g, e in near.events.items() if e["alarm_key"].endswith(":critical")]
    if not found.require(bool(critical), "the critical alarm was not heard"):
        return
    heard_ms = (near.heard_ns[critical[0]] - critical_ns) / 1e6
    limit_ms = run.limit(CRITICAL_HEARD_MS)
    found.require(heard_ms <= limit_ms, f"critical heard after {heard_ms:.0f} ms > {limit_ms:.0f}")
    all_s = (max(near.heard_ns.values()) - began_ns) / NS
    found.figure(
        f"{said} after the first was sent and heard in {all_s:.2f} s; the critical one heard "
        f"{heard_ms:.0f} ms after it was sent"
    )


# ---------------------------------------------------------------------- F19

_BUSY = "while True: pass"
_BUSY_COUNT = 4
_FDS_MAX = 96  # three times what it holds at rest
_SOCKETS = 300
_MEMORY_LEFT_MB = 48
_QUERIES = 24


@contextlib.asynccontextmanager
async def _busy_neighbours(run: Run, gateway: Process) -> AsyncIterator[None]:
    """The gateway on one CPU, and that shared with others who want all of it."""
    cpu = {min(os.sched_getaffinity(0))}
    for task in Path(f"/proc/{gateway.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cpu)
    busy = []
    try:
        for number in range(_BUSY_COUNT):
            command = ["setsid", sys.executable, "-c", _BUSY]
            busy.append(start(command, run.folder / f"busy{number}.log"))
            os.sched_setaffinity(busy[-1].pid, cpu)
        yield
    finally:
        for process in busy:
            await process.kill()


async def starved(run: Run) -> None:
    """F19-cpu."""
    async with run.rig(Plan()) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        gateway = rig.gateway
        assert gateway is not None, "started"
        async with _busy_neighbours(run, gateway):
            before_s = gateway.cpu_s
            began_ns, ended_ns = now_ns(), 0
            await asyncio.sleep(3.0 if run.quick else 20.0)
            ended_ns = now_ns()
            used = (gateway.cpu_s - before_s) / ((ended_ns - began_ns) / NS)
            run.found.figure(f"{_BUSY_COUNT} busy neighbours on its CPU; it got {used:.0%} of one")
            await asyncio.sleep(1.0)
        checks.check_latency(run, rig, began_ns, ended_ns, "starved:")
        await checks.check_all(run, rig)


async def no_descriptors(run: Run) -> None:
    """F19-fds: strangers want every descriptor there is, while the spool begins new segments."""
    port = free_port()
    adapter = f'[[adapter]]\nname = "fleet"\nkind = "jt808"\nhost = "127.0.0.1"\nport = {port}\n'
    async with run.rig(Plan(extra=adapter, spool="segment_rows_max = 100")) as rig:
        await rig.first_start()
        await rig.kill()
        gateway = await rig.start(ready=False)
        # A service manager sets it before the start; this is before anything asks for it.
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (_FDS_MAX, _FDS_MAX))
        await rig.wait_ready()
        rig.feeder.start()
        await asyncio.sleep(1.0)
        writers: list[asyncio.StreamWriter] = []
        try:
            began_ns = now_ns()
            await _take_sockets(port, writers)
            await asyncio.sleep(3.0 if run.quick else 15.0)
            ended_ns = now_ns()
            held = gateway.fd_count
        finally:
            for writer in writers:
                writer.transport.abort()
        run.found.figure(f"{len(writers)} strangers let in, {held} of {_FDS_MAX} descriptors held")
        await asyncio.sleep(1.0)
        checks.check_latency(run, rig, began_ns, ended_ns - NS, "short of descriptors:")
        await disks.ends_well(run, rig)


async def _take_sockets(port: int, writers: list[asyncio.StreamWriter]) -> None:
    """As many as the gateway or its backlog lets in; from several addresses, as strangers have."""
    for number in range(_SOCKETS):
        here = (f"127.0.{number // 50}.{number % 50 + 1}", 0)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                pair = await asyncio.open_connection("127.0.0.1", port, local_addr=here)
                writers.append(pair[1])


async def little_memory(run: Run) -> None:
    """F19-memory: the address space ends a little above what it has, and people ask for history."""
    async with run.rig(Plan()) as rig:
        await rig.first_start()
        rig.feeder.start()
        await asyncio.sleep(1.5)
        gateway = rig.gateway
        assert gateway is not None, "started"
        limit = _vm_bytes(gateway) + (_MEMORY_LEFT_MB << 20)
        resource.prlimit(gateway.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        began_ns = now_ns()
        rig.link.open()
        await until(lambda: rig.link.is_connected, 5.0)
        answered = await _ask_much(rig, 3.0 if run.quick else 15.0)
        ended_ns = now_ns()
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        if run.found.require(gateway.is_running, f"the gateway ended: {gateway.said(600)}"):
            resource.prlimit(gateway.pid, resource.RLIMIT_AS, no_limit)
            run.found.figure(f"{answered} history queries answered with {_MEMORY_LEFT_MB} MiB left")
            await asyncio.sleep(1.0)
            checks.check_latency(run, rig, began_ns, ended_ns, "little memory:")
            await disks.ends_well(run, rig)


async def _ask_much(rig: Rig, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    until_s, answered = loop.time() + seconds, 0
    while loop.time() < until_s:
        to_ms = now_ns() // 1_000_000
        asked = [
            rig.link.ask("history", point_id=f"d{n % 8}.n0", from_ms=to_ms - 3_600_000, to_ms=to_ms,
                         count=500)
            for n in range(_QUERIES)
        ]  # fmt: skip
        answered += sum(answer is not None for answer in await asyncio.gather(*asked))
        await asyncio.sleep(0.2)
    return answered


def _vm_bytes(process: Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmSize:"):
            return int(line.split()[1]) << 10
    raise Missing("no VmSize in /proc")
