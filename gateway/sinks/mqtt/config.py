"""Configuration of the MQTT sink."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, field_validator

from gateway.contract.mqtt import MqttTarget

_CLIENT_ID_SIZE_MAX = 23  # MQTT 3.1.1, 3.1.3.1: what every broker accepts


class MqttSinkConfig(MqttTarget):
    """One broker to tell."""

    root: str = Field(default="hazard", min_length=1)  # first level, or levels, of every topic
    telemetry: Literal["off", "on"] = "off"  # on: every sample too, for a centre that wants them
    telemetry_batch_size: int = Field(default=500, ge=1, le=10_000)  # samples in one message
    ack_timeout_s: float = Field(default=10.0, gt=0)  # no PUBACK for this long: the broker is away

    @field_validator("root")
    @classmethod
    def _publishable(cls, root: str) -> str:
        if any(symbol in root for symbol in "+#\x00") or root.startswith(("/", "$")):
            raise ValueError("root: a topic without + and #, not beginning with / or $")
        return root.rstrip("/")


def client_id(config: MqttSinkConfig, part: str, *names: str) -> str:
    """A stable client id; `part` keeps the alarm and the telemetry connection apart."""
    if config.client_id:
        return f"{config.client_id}-{part}"
    digest = hashlib.sha256("/".join(names).encode()).hexdigest()[:14]
    return f"hgsink{digest}{part}"[:_CLIENT_ID_SIZE_MAX]
