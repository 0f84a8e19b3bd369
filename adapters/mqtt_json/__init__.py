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
    examples=(  # an invented dam
        (
            'tailings/dam1/telemetry {"device":"dam1","time":"2026-03-14T06:00:00Z",'
            '"values":{"pool_level":128.02,"beach_top":131.0,"rain":0.2,"seepage_flow":3.5}}'
        ),
    ),
    capabilities=("declares_points", "durable_ack"),
)
