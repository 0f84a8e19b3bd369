"""`hazard-gateway simulate`: one simulator against any server; and building them for the demo.

A scenario is a TOML file with a `summary` and a `[config]` table: the simulator's own settings
without the target, which the caller knows. Shipped ones stand in `simulators/scenarios/`.
"""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.contract.simulator import (
    CountingLedger,
    Ledger,
    Simulator,
    SimulatorContext,
    SimulatorKind,
)
from gateway.model.errors import ConfigError, Fault
from gateway.runtime.clock import now_ns
from gateway.runtime.plugins import load_plugins

DRAIN_TIMEOUT_S = 15.0


def read_scenario(name: str) -> dict[str, Any]:
    """The `[config]` of a shipped scenario, or of a TOML file. Raises ConfigError."""
    shipped = files("simulators") / "scenarios" / f"{name}.toml"
    source = shipped if shipped.is_file() else Path(name)
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(scenario_names())
        raise ConfigError([Fault(name, 0, "", f"a TOML file, or one of {known}")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Fault(name, 0, "", str(error))]) from error
    config = table.get("config", {})
    if not isinstance(config, dict):
        raise ConfigError([Fault(name, 0, "config", "a table")])
    return config


def scenario_names() -> list[str]:
    folder = files("simulators") / "scenarios"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def target_settings(schema: type[BaseModel], target: str) -> dict[str, Any]:
    """Where to send: `folder` for a simulator that writes files, else `host` and `port`."""
    if "folder" in schema.model_fields:
        return {"folder": target}
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError([Fault("--target", 0, target, "host:port")])
    return {"host": host or "127.0.0.1", "port": int(port)}


def build_simulator(
    kind: SimulatorKind,
    *,
    name: str,
    target: str,
    settings: Mapping[str, Any],
    seed: int,
    ledger: Ledger,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Simulator:
    """Raises ConfigError naming each wrong setting of the scenario."""
    try:
        config = kind.config.model_validate({**settings, **target_settings(kind.config, target)})
    except ValidationError as error:
        raise ConfigError(
            [
                Fault(f"scenario of {name}", 0, ".".join(map(str, e["loc"])), e["msg"])
                for e in error.errors()
            ]
        ) from error
    context = SimulatorContext(
        name=name,
        seed=seed,
        ledger=ledger,
        now_ns=now_ns,
        sleep=asyncio.sleep,
        log=log,
    )
    return kind.build(config, context)


def simulate(
    protocol: str, *, target: str, scenario: str | None, seed: int, duration_s: float | None
) -> int:
    """Run one simulator until its scenario ends; exit code 1 when nothing could be sent, or when
    something sent was never acknowledged."""
    kinds = load_plugins().simulators
    if protocol not in kinds:
        raise ConfigError([Fault("simulate", 0, protocol, f"one of {', '.join(kinds)}")])
    ledger = CountingLedger()
    simulator = build_simulator(
        kinds[protocol],
        name=protocol,
        target=target,
        settings=read_scenario(scenario) if scenario else {},
        seed=seed,
        ledger=ledger,
    )
    asyncio.run(_run(simulator, duration_s))
    print(f"sent {ledger.sent_count} samples, acknowledged {ledger.acknowledged_count}")
    return 0 if ledger.acknowledged_count >= ledger.sent_count > 0 else 1


async def _run(simulator: Simulator, duration_s: float | None) -> None:
    task = asyncio.create_task(simulator.run())
    try:
        await asyncio.wait_for(asyncio.shield(task), duration_s)
    except TimeoutError:
        pass
    finally:
        await stop_simulator(simulator, task)


async def stop_simulator(simulator: Simulator, task: asyncio.Task[None]) -> None:
    """Let what was sent be acknowledged, within reason, then end the task."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await simulator.drain()
    except TimeoutError:
        print("gave up waiting for acknowledgements", file=sys.stderr)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
