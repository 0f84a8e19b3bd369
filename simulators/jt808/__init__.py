"""A fleet of JT/T 808 terminals made of software: registers, reports, loses its link, backfills.

Owns the one name the entry point wants.
"""

from __future__ import annotations

from gateway.contract.simulator import Simulator, SimulatorContext, SimulatorKind

from .config import Jt808FleetConfig


def _build(config: Jt808FleetConfig, context: SimulatorContext) -> Simulator:
    from .fleet import Fleet  # noqa: PLC0415  (lazy: listing plugins opens no sockets)

    return Fleet(config, context)


KIND = SimulatorKind(
    name="jt808",
    summary="a fleet of JT/T 808 vehicle terminals (2013, 2019)",
    config=Jt808FleetConfig,
    build=_build,
)
