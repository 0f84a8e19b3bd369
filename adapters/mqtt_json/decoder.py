"""`hazard-gateway decode mqtt_json`: captured messages, one a line, offline. Pure.

    TOPIC<tab or blank>PAYLOAD      PAYLOAD is JSON text, or hex: and the payload's bytes in hex

which is what `mosquitto_sub -v -t '#'` prints, and `-F '%t hex:%x'` for binary payloads. All ready
profiles are tried: topic `$dp` is geohazard, `<root>/<dam>/telemetry` is tailings-generic with any
root. A sample whose time is not in the message has time null: there is no receipt to date it by.
"""

from __future__ import annotations

import binascii
import math
from typing import Any

from adapters.mqtt_json import codec
from adapters.mqtt_json.config import MqttJsonConfig
from adapters.mqtt_json.mapping import Message, Row, Translator
from adapters.mqtt_json.profiles import mappings_of
from gateway.contract.adapter import Decoded
from gateway.model.errors import RemoteProtocolError
from gateway.model.quality import Quality

_NOT_RECEIVED_NS = -1  # no device time is below 1970, so this stands for itself
_HEX = "hex:"


class LineDecoder:
    """Decodes one message a line by the ready profiles."""

    def __init__(self) -> None:
        self._tailings: dict[str, Translator] = {}
        self._geohazard = Translator(mappings_of(MqttJsonConfig(profile="geohazard")))

    def feed(self, data: str) -> list[Decoded]:
        """What one line says. Raises RemoteProtocolError for a line, a payload or a topic that no
        profile knows."""
        parts = data.strip("\r\n").split(None, 1)
        if not parts:
            return []
        if len(parts) < 2:
            raise RemoteProtocolError("line", "a topic, a blank and a payload were expected")
        topic, text = parts
        wrapper = "geohazard" if topic == "$dp" else "none"
        body = codec.decode(_payload(text), wrapper=wrapper)
        said = self._translator(topic).translate(Message(topic, body, _NOT_RECEIVED_NS))
        if said.refused:
            raise RemoteProtocolError(*said.refused[0])
        if said.is_blank:
            raise RemoteProtocolError("no_match", f"no profile finds a value under {topic}")
        message = {"topic": topic, "body": _json_ready(body), "skipped": said.skipped}
        return [Decoded(message=message, samples=[_sample(row) for row in said.rows])]

    def _translator(self, topic: str) -> Translator:
        root = topic.split("/", 1)[0]
        if topic == "$dp" or not root or any(symbol in root for symbol in "+#{}"):
            return self._geohazard
        if root not in self._tailings:
            try:
                config = MqttJsonConfig(profile="tailings-generic", root=root)
                translator = Translator(mappings_of(config))
            except ValueError:  # NUL, half a surrogate pair, too long: no topic at all
                return self._geohazard
            self._tailings.clear()  # one root at a time: a file of many invented ones costs nothing
            self._tailings[root] = translator
        return self._tailings[root]


def _payload(text: str) -> bytes:
    if not text.startswith(_HEX):
        return text.encode("utf-8", errors="surrogateescape")
    try:
        return binascii.unhexlify(text[len(_HEX) :].strip())
    except ValueError as error:
        raise RemoteProtocolError("line", f"not hex: {error}") from None


def _sample(row: Row) -> dict[str, Any]:
    unknown = row.source_time_ns == _NOT_RECEIVED_NS
    return {
        "point": row.point_id,
        "value": None if math.isnan(row.value) else row.value,
        "time": None if unknown else codec.format_time(row.source_time_ns),
        "quality": Quality(row.quality).name.lower(),
    }


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_ready(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_json_ready(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return "<ambiguous>" if value is codec.AMBIGUOUS else value
