"""`check_adapter_kind`: what every adapter must hold, whatever it speaks.

Run over all installed adapters by tests/contract. A new adapter is checked by being registered.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from gateway.contract.adapter import AdapterContext, AdapterKind
from gateway.model.batch import Batch
from gateway.model.errors import RemoteProtocolError, Unavailable
from gateway.model.point import Device, Point, PointTable
from gateway.testing.sinks import CountingCounters, StatusLog

HEAVY = ("aiomqtt", "paho", "duckdb", "influxdb_client", "fastapi", "uvicorn", "amqtt")
NOW_NS = 1_790_000_000_000_000_000
STOP_TIMEOUT_S = 5.0


class RecordingHouse:
    """An emit and a declare that remember; `gate` closed means not durable yet."""

    def __init__(self) -> None:
        self.table = PointTable()
        self.batches: list[Batch] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Batch) -> None:
        await self.gate.wait()
        self.batches.append(batch)

    async def points(self, points: Sequence[Point]) -> list[int]:
        return [self.table.put(point) for point in points]

    async def devices(self, devices: Sequence[Device]) -> list[int]:
        return [self.table.put_device(device) for device in devices]


def check_listing_is_light(module: str) -> None:
    """Importing a plugin's KIND loads no protocol library: `plugins` must be instant and must work
    with no extra installed."""
    code = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(  # noqa: S603  our own interpreter and module
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & set(HEAVY), f"{module} loads {loaded & set(HEAVY)} when it is listed"


def check_config(schema: type[BaseModel], required: dict[str, object]) -> None:
    """Frozen, and an unknown key is refused rather than ignored."""
    assert schema.model_config.get("extra") == "forbid", f"{schema.__name__} ignores unknown keys"
    assert schema.model_config.get("frozen"), f"{schema.__name__} can be changed after loading"
    schema.model_validate(required)


def sample_settings(folder: Path) -> dict[str, object]:
    """What `sample.toml` says of the plugin itself."""
    table = tomllib.loads((folder / "sample.toml").read_text(encoding="utf-8"))
    return {key: value for key, value in table.items() if key not in {"name", "kind"}}


def check_decoder(kind: AdapterKind, texts: Sequence[str]) -> None:
    """Any text is a list of JSON-ready messages or a named RemoteProtocolError, never more."""
    if kind.decoder is None:
        return
    for text in texts:
        name = "none"
        try:
            for decoded in kind.decoder().feed(text):
                json.dumps([dict(decoded.message), [dict(row) for row in decoded.samples]])
        except RemoteProtocolError as error:
            name = error.code
        assert name, f"{text!r}: an error without a name"


async def check_adapter_runs(kind: AdapterKind, settings: dict[str, object], folder: Path) -> None:
    """Built without I/O; run without a field system it waits or is unavailable, invents no sample,
    leaves no task behind and ends promptly when cancelled."""
    status, house = StatusLog(), RecordingHouse()
    context = AdapterContext(
        name="contract",
        now_ns=lambda: NOW_NS,
        counters=CountingCounters(),
        status=status,
        state_dir=folder,
        known_points=list,
    )
    adapter = kind.build(kind.config.model_validate(settings), context)
    others = asyncio.all_tasks()
    task = asyncio.create_task(adapter.run(house, house))
    await asyncio.wait({task}, timeout=0.3)
    task.cancel()
    async with asyncio.timeout(STOP_TIMEOUT_S):
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert outcome is None or isinstance(outcome, asyncio.CancelledError | Unavailable), outcome
    left = asyncio.all_tasks() - others
    assert not left, f"{kind.name} leaves {left} behind"
    assert not house.batches, f"{kind.name} sent samples that no device sent"


def folder_of(module: str) -> Path:
    """Where the plugin's package lies."""
    file = import_module(module).__file__
    assert file is not None
    return Path(file).parent
