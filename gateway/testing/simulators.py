"""`check_simulator_kind`: what every simulator must hold, whatever it plays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.contract.simulator import CountingLedger, SimulatorContext, SimulatorKind

NOW_NS = 1_790_000_000_000_000_000
STOP_TIMEOUT_S = 5.0


def check_simulator_config(kind: SimulatorKind) -> None:
    """It says where it sends, how fast its time runs, and when it ends."""
    fields = set(kind.config.model_fields)
    assert "folder" in fields or {"host", "port"} <= fields, f"{kind.name} has no target"
    assert {"speed", "duration_s"} <= fields, f"{kind.name} cannot be sped up or ended"
    assert kind.config.model_config.get("extra") == "forbid"


async def check_simulator_waits(kind: SimulatorKind, target: Mapping[str, Any]) -> None:
    """With nobody at the other end it keeps trying, believes nothing acknowledged, and ends
    promptly when cancelled, leaving no task behind."""
    ledger = CountingLedger()
    context = SimulatorContext(
        name="contract",
        seed=1,
        ledger=ledger,
        now_ns=lambda: NOW_NS,
        sleep=asyncio.sleep,
    )
    simulator = kind.build(kind.config.model_validate(dict(target)), context)
    others = asyncio.all_tasks()
    task = asyncio.create_task(simulator.run())
    await asyncio.wait({task}, timeout=0.3)
    assert not task.done(), f"{kind.name} gave up: {task}"
    task.cancel()
    async with asyncio.timeout(STOP_TIMEOUT_S):
        await asyncio.gather(task, return_exceptions=True)
    left = asyncio.all_tasks() - others
    assert not left, f"{kind.name} leaves {left} behind"
    assert ledger.acknowledged_count == 0, f"{kind.name} believes what nobody said"
