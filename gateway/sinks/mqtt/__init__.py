"""MQTT out: alarm events, retained states, heartbeat, gateway status; telemetry if asked."""

from __future__ import annotations

from gateway.contract.sink import AlarmSink, SampleSink, SinkContext, SinkKind
from gateway.sinks.mqtt.config import MqttSinkConfig

__all__ = ["KIND"]


def _build_alarms(config: MqttSinkConfig, context: SinkContext) -> AlarmSink:
    from gateway.sinks.mqtt.alarms import MqttAlarmSink  # noqa: PLC0415  loads the MQTT library

    return MqttAlarmSink(config, context)


def _build_samples(config: MqttSinkConfig, context: SinkContext) -> SampleSink | None:
    if config.telemetry == "off":
        return None
    from gateway.sinks.mqtt.telemetry import MqttTelemetrySink  # noqa: PLC0415

    return MqttTelemetrySink(config, context)


KIND = SinkKind(
    name="mqtt",
    summary="alarms over MQTT: events, retained states, heartbeat, birth and last will",
    config=MqttSinkConfig,
    build_samples=_build_samples,
    build_alarms=_build_alarms,
)
