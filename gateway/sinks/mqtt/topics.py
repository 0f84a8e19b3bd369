"""Where what is published. One enterprise's site stands below one prefix, so that a broker's access
list separates tenants by topic.

    {root}/v1/{tenant}/{site}/alarm/{key}/state     retained
    {root}/v1/{tenant}/{site}/alarm/event
    {root}/v1/{tenant}/{site}/alarm/heartbeat
    {root}/v1/{tenant}/{site}/gateway/status        retained, and last will
    {root}/v1/{tenant}/{site}/telemetry

A level of ours may hold what MQTT forbids there (an area is free text): `/ + # %` and control
characters are written %XX. The payload carries every name as it is; nobody has to undo this.
"""

from __future__ import annotations

from dataclasses import dataclass

_LEVEL_SIZE_MAX = 2048  # bytes; a topic may have 65,535 in all (MQTT 3.1.1, 1.5.3)


def level(name: str) -> str:
    """`name` as one topic level; different names give different levels."""
    out = []
    for symbol in name:
        if symbol in "/+#%" or ord(symbol) < 0x20 or 0x7F <= ord(symbol) < 0xA0:
            out.append("".join(f"%{byte:02X}" for byte in symbol.encode()))
        elif 0xD800 <= ord(symbol) < 0xE000:  # half a surrogate pair: no UTF-8
            out.append(f"%u{ord(symbol):04X}")
        else:
            out.append(symbol)
    text = "".join(out) or "%"
    assert len(text.encode()) <= _LEVEL_SIZE_MAX, f"a name of {len(name)} characters"
    return text


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one site."""

    prefix: str

    @classmethod
    def of(cls, root: str, tenant: str, site: str) -> Topics:
        return cls(f"{root}/v1/{level(tenant)}/{level(site)}")

    def state(self, alarm_key: str) -> str:
        return f"{self.prefix}/alarm/{level(alarm_key)}/state"

    @property
    def event(self) -> str:
        return f"{self.prefix}/alarm/event"

    @property
    def heartbeat(self) -> str:
        return f"{self.prefix}/alarm/heartbeat"

    @property
    def status(self) -> str:
        return f"{self.prefix}/gateway/status"

    @property
    def telemetry(self) -> str:
        return f"{self.prefix}/telemetry"
