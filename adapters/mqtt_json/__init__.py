"""MQTT with JSON payloads: any vendor's tree of topics and objects, told by a mapping."""

from __future__ import annotations

from adapters.mqtt_json.config import MqttJsonConfig
from gateway.contract.adapter import Adapter, AdapterContext, AdapterKind, FrameDecoder

__all__ = ["KIND"]


def _build(config: MqttJsonConfig, context: AdapterContext) -> Adapter:
    from adapters.mqtt_json.client import MqttJsonAdapter  # noqa: PLC0415  loads the MQTT library

    return MqttJsonAdapter(config, context)


def _decoder() -> FrameDecoder:
    from adapters.mqtt_json.decoder import LineDecoder  # noqa: PLC0415

    return LineDecoder()


KIND = AdapterKind(
    name="mqtt_json",
    summary="JSON over MQTT by a configurable mapping; ready: tailings-generic, geohazard",
    config=MqttJsonConfig,
    build=_build,
    decoder=_decoder,
    decodes="hex",  # one `TOPIC PAYLOAD` a line; see README.md
    capabilities=("declares_points", "durable_ack"),
)
