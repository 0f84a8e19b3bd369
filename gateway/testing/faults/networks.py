"""F14: the broker of the alarms is on the other side of a real network link, in a namespace of its
own, and the link is partitioned, half-open, or flaps.

    gateway ── 10.213.N.1 ──veth── 10.213.N.2 ── mosquitto      (N from the scenario's process id)

The namespace, with the link in it, is deleted in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from functools import partial

from gateway.testing.faults import checks, peers
from gateway.testing.faults.process import Missing
from gateway.testing.faults.rig import Plan, Rig
from gateway.testing.faults.scenario import Run
from gateway.testing.faults.servers import program


class Network:
    """A namespace and a link into it."""

    def __init__(self) -> None:
        number = os.getpid()
        self.name = f"hazard-{number}"
        self.link = f"hzd{number}"
        subnet = f"10.213.{number % 250}"
        self.here, self.there = f"{subnet}.1", f"{subnet}.2"

    def ip(self, *arguments: str) -> None:
        """Raises Missing with what `ip` says."""
        done = subprocess.run(
            [program("ip"), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Missing(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def inside(self, *arguments: str) -> None:
        self.ip("-n", self.name, *arguments)

    @property
    def prefix(self) -> tuple[str, ...]:
        return (program("ip"), "netns", "exec", self.name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    net = Network()
    try:
        net.ip("netns", "add", net.name)
        net.ip("link", "add", net.link, "type", "veth", "peer", "name", "eth0", "netns", net.name)
        net.ip("addr", "add", f"{net.here}/24", "dev", net.link)
        net.ip("link", "set", net.link, "up")
        net.inside("addr", "add", f"{net.there}/24", "dev", "eth0")
        net.inside("link", "set", "eth0", "up")
        net.inside("link", "set", "lo", "up")
        yield net
    finally:
        for what in (("netns", "del", net.name), ("link", "del", net.link)):
            with contextlib.suppress(Missing):  # whichever was made; the link goes with its peer
                net.ip(*what)


async def _partition(net: Network, _rig: Rig) -> None:
    net.ip("link", "set", net.link, "down")


async def _join(net: Network, _rig: Rig) -> None:
    net.ip("link", "set", net.link, "up")


async def _half_open(net: Network, _rig: Rig) -> None:
    net.inside("route", "add", "blackhole", f"{net.here}/32")  # it hears us; we never hear it


async def _whole(net: Network, _rig: Rig) -> None:
    net.inside("route", "del", "blackhole", f"{net.here}/32")


async def _flap(net: Network, rig: Rig, *, times: int, every_s: float) -> None:
    for _ in range(times):
        await _partition(net, rig)
        await asyncio.sleep(every_s)
        await _join(net, rig)
        await asyncio.sleep(every_s)


async def partition(run: Run) -> None:
    """F14."""
    flaps = partial(_flap, times=run.pick(3, 60), every_s=0.3 if run.quick else 2.0)
    with network() as net:
        plan = Plan(told=True, store="none", told_host=net.there, told_prefix=net.prefix)
        async with run.rig(plan) as rig:
            await rig.first_start()
            rig.feeder.start()
            await asyncio.sleep(1.0)
            await peers.through_each(
                run,
                rig,
                {
                    "partition": (partial(_partition, net), partial(_join, net)),
                    "half-open": (partial(_half_open, net), partial(_whole, net)),
                    "flapping": (partial(flaps, net), partial(_join, net)),
                },
            )
            await checks.check_all(run, rig, store=False)
            peers.check_all_told(run, rig)
