"""Simulated tailings dams that publish over MQTT."""

from __future__ import annotations

from gateway.contract.simulator import Simulator, SimulatorContext, SimulatorKind
from simulators.mqtt_json.config import TailingsConfig

__all__ = ["KIND"]


def _build(config: TailingsConfig, context: SimulatorContext) -> Simulator:
    from simulators.mqtt_json.client import TailingsSimulator  # noqa: PLC0415  loads the library

    return TailingsSimulator(config, context)


KIND = SimulatorKind(
    name="mqtt_json",
    summary="tailings dams publishing the tailings-generic profile over MQTT at QoS 1",
    config=TailingsConfig,
    build=_build,
)
