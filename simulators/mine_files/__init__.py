"""A simulated coal mine that hands over its data files: gas monitoring and personnel."""

from __future__ import annotations

from typing import Any

from gateway.contract.simulator import Simulator, SimulatorContext, SimulatorKind
from simulators.mine_files.config import MineFilesSimulatorConfig


def _build(config: Any, context: SimulatorContext) -> Simulator:
    from simulators.mine_files.simulator import MineFilesSimulator  # noqa: PLC0415  lazy by contract

    return MineFilesSimulator(config, context)


KIND = SimulatorKind(
    name="mine_files",
    summary="a coal mine that writes CDSS, RYSS and their lists into a folder",
    config=MineFilesSimulatorConfig,
    build=_build,
)
