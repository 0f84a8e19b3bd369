"""Where an MQTT broker is and how to be let in: the part of a configuration that the MQTT adapter,
the MQTT sinks and the MQTT simulators share word for word.

Only the description: the connection itself is `gateway/contract/mqtt_link.py`, which loads the
protocol library and is imported by clients when they are built, never when plugins are listed.
"""

from __future__ import annotations

import ssl
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

_NOT_EVER = frozenset((0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x99, 0x9D))
"""MQTT 5 reason codes (section 2.4) that a retry does not change: protocol version, client id,
credentials, not authorised, banned, authentication method, topic name, payload format, moved."""


class MqttTarget(BaseModel):
    """One broker. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=1883, ge=1, le=65535)
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str = Field(default="", max_length=128)  # "": made from the instance's name
    username: str = ""
    password: SecretStr = SecretStr("")
    tls: Literal["off", "on"] = "off"  # on: the broker's certificate and name are always verified
    ca_file: str = ""  # PEM; "": the system's certificate authorities
    cert_file: str = ""  # PEM, the client's own certificate, where the broker asks for one
    key_file: str = ""
    keepalive_s: int = Field(default=30, ge=5, le=65535)
    connect_timeout_s: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _certificates_belong_together(self) -> MqttTarget:
        if self.tls == "off" and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError('certificate files are given but tls = "off"')
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file come together")
        if self.password.get_secret_value() and not self.username:
            raise ValueError("a password needs a username")
        return self

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises OSError for a file that cannot be read."""
        if self.tls == "off":
            return None
        context = ssl.create_default_context(cafile=self.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


def is_refusal(reason_code: int) -> bool:
    """Whether the broker's answer would be the same again (Refused), or may pass (Unavailable)."""
    return reason_code in _NOT_EVER
