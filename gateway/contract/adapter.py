"""The way in: what an adapter offers and what it is given.

An adapter turns what a field system sends into batches and hands each to `emit`, which returns when
the batch is durable. **Only then** may the adapter acknowledge: reply to the terminal, remove the
file, send the PUBACK. `emit` waits when the house is full; that wait is the back-pressure.

Not an adapter's business: retry and back-off after it raised (the supervisor's, by error type),
buffering, clocks (`context.now_ns`), judging. A device's nonsense is a sample of bad quality and a
count, never an exception out of `mapping.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from gateway.model.batch import Batch
from gateway.model.point import Device, Point


class Emit(Protocol):
    """Hand over one batch. Returns once it is durable.

    Raises SpoolFull when policy refuses it, StorageFault when the disk failed: in both cases the
    device must not be acknowledged.
    """

    async def __call__(self, batch: Batch) -> None: ...


class Declare(Protocol):
    """Make points and devices known; durable on return.

    Calling it again with what is already known costs a dictionary look-up each, so an adapter may
    declare freely. A site's point table is laid over what is declared here.
    """

    async def points(self, points: Sequence[Point]) -> list[int]:
        """The point_index of each, in order."""
        ...

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        """The device_index of each, in order: what an `area` point's value refers to."""
        ...


class Counters(Protocol):
    """Counts by name and reason; everywhere: received, accepted, rejected, dropped."""

    def count(self, name: str, n: int = 1, *, reason: str = "") -> None: ...


class LinkStatus(Protocol):
    """What the operator sees of this adapter: `listening`, `connected`, `waiting`, `faulty`, …"""

    def __call__(self, state: str, detail: str = "") -> None: ...


@dataclass(frozen=True)
class AdapterContext:
    """Everything an adapter may use of the house besides emit and declare."""

    name: str  # the configured instance name; goes into Point.adapter
    now_ns: Callable[[], int]  # UTC
    counters: Counters
    status: LinkStatus
    state_dir: Path  # the adapter's own directory for small durable notes; exists
    known_points: Callable[[], Iterable[Point]]  # this adapter's points from earlier runs


class Adapter(Protocol):
    """One running way in."""

    async def run(self, emit: Emit, declare: Declare) -> None:
        """Serve until cancelled. Returning early or raising Unavailable lets the supervisor restart
        it with back-off; raising Refused or ConfigError stops it loudly."""
        ...


@dataclass(frozen=True)
class Decoded:
    """One message as `hazard-gateway decode` prints it."""

    message: Mapping[str, Any]  # JSON-ready
    samples: Sequence[Mapping[str, Any]] = ()  # point, value, time (RFC 3339), quality


class FrameDecoder(Protocol):
    """Offline decoding for `hazard-gateway decode`; pure.

    `feed` takes one line of input (hex text of a frame, or the text of a text protocol) and returns
    what it says. A multi-frame message is returned with the frame that completes it; frames before
    that return an empty list. Raises RemoteProtocolError (never anything else) for damage.
    """

    def feed(self, data: str) -> list[Decoded]: ...


@dataclass(frozen=True)
class AdapterKind:
    """What the entry point names."""

    name: str
    summary: str  # one line for `hazard-gateway plugins`
    config: type[BaseModel]  # unknown keys refused; every option has a unit in its name
    build: Callable[[Any, AdapterContext], Adapter]  # (config, context); no I/O
    decoder: Callable[[], FrameDecoder] | None = None
    decodes: str = "hex"  # "hex": one frame a line; "text": the whole file is one input
    examples: Sequence[str] = ()  # inputs of the decoder, for `bench decode` and the contract check
    extra: str = ""  # the pip extra it needs, "" for none
    capabilities: Sequence[str] = field(default_factory=tuple)
