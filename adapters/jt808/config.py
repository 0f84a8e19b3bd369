"""Configuration of the JT/T 808 server, and of the list of vehicles it may know.

Not here: reading the CSV file (files.py) and what registration answers (roster.py).
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.model.point import is_valid_id

_PHONE = re.compile(r"[0-9A-Fa-f]{1,20}")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VehicleEntry(_Frozen):
    """One vehicle of the list. What is left empty is not checked at registration."""

    phone: str  # SIM number as the terminal sends it; leading zeros do not matter
    plate: str = ""
    plate_colour: int = Field(default=0, ge=0, le=255)  # 0 = not stated
    terminal_id: str = ""
    vehicle_class: str = ""  # hazmat, coach, truck, …: what rules select by
    name: str = ""
    utc_offset_h: float | None = Field(default=None, ge=-12, le=14)  # its clock, if not GMT+8

    @field_validator("phone")
    @classmethod
    def _digits(cls, phone: str) -> str:
        if not _PHONE.fullmatch(phone):
            raise ValueError("a phone is 1 to 20 digits")
        return phone.upper().lstrip("0") or "0"

    @field_validator("plate", "terminal_id", "vehicle_class", "name")
    @classmethod
    def _stripped(cls, text: str) -> str:
        return text.strip()


class Jt808Config(_Frozen):
    """The server. Every limit has an answer to being reached; see README.md."""

    host: str = "0.0.0.0"  # noqa: S104  terminals come from the mobile network
    port: int = Field(default=7808, ge=0, le=65535)  # 0 = any free port (tests)
    registration: Literal["open", "known"] = "open"
    vehicles: tuple[VehicleEntry, ...] = ()
    vehicles_file: str = ""  # CSV with the fields of a vehicle as its header line
    device_prefix: str = "v"
    report_interval_s: float = Field(default=30.0, gt=0)  # expected between positions
    heartbeat_interval_s: float = Field(default=60.0, gt=0)  # expected between heartbeats
    utc_offset_h: float = Field(default=8.0, ge=-12, le=14)  # 808 says GMT+8; some clocks differ

    connections_max: int = Field(default=20_000, ge=1)
    connections_per_address_max: int = Field(
        default=10_000, ge=1
    )  # carriers hide fleets behind one
    strangers_max: int = Field(default=2_000, ge=1)  # connections that have not logged in
    accepts_per_s_max: float = Field(default=100.0, ge=1)  # the others wait in the kernel
    vehicles_max: int = Field(default=20_000, ge=1)
    registrations_per_s_max: float = Field(default=50.0, gt=0)  # of phones not seen before
    registrations_per_connection_max: int = Field(default=10, ge=1)
    login_timeout_s: float = Field(default=60.0, gt=0)
    silence_timeout_s: float = Field(default=180.0, gt=0)  # three heartbeats
    auth_failures_max: int = Field(default=5, ge=1)
    frames_per_s_max: float = Field(default=100.0, gt=0)  # for each connection; then it waits
    bytes_per_s_max: float = Field(default=131_072.0, gt=0)
    burst_s: float = Field(default=4.0, gt=0)  # so many seconds' worth at once, after a dead zone
    write_buffer_max: int = Field(default=16_384, ge=4096)  # bytes a terminal leaves unread

    flush_interval_s: float = Field(default=0.005, ge=0, le=0.01)  # a reply waits this much longer
    pending_messages_max: int = Field(default=10_000, ge=1)  # not yet durable, all connections

    package_bytes_max: int = Field(default=8 * 1024 * 1024, ge=1024)
    package_bytes_total_max: int = Field(default=64 * 1024 * 1024, ge=1024)  # all connections
    package_parts_max: int = Field(default=8192, ge=1, le=65_535)  # of one message
    package_messages_max: int = Field(default=8, ge=1)  # unfinished ones, for each connection
    package_age_max_s: float = Field(default=60.0, gt=0)
    package_ask_after_s: float = Field(default=5.0, gt=0)
    package_ask_count_max: int = Field(default=3, ge=0)

    @field_validator("device_prefix")
    @classmethod
    def _valid_prefix(cls, prefix: str) -> str:
        if prefix and not (is_valid_id(prefix) and len(prefix) <= 32):
            raise ValueError("at most 32 characters without blanks and without / + #")
        return prefix
