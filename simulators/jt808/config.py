"""What the simulated fleet is and does. `speed` is how much faster than the clock scenario time
passes; a vehicle's own speed is the signal `vehicle_speed`, in km/h.

Plates begin with 测 and phones with 139000: invented, and recognisable as such.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simulators.plant import SignalConfig

_PHONE = re.compile(r"[0-9]{1,12}")
Route = tuple[tuple[float, float], ...]  # lon, lat in degrees; driven in a circle

# an invented loop of about 24 km
DEFAULT_ROUTE: Route = (
    (106.500, 29.560),
    (106.560, 29.570),
    (106.590, 29.610),
    (106.530, 29.630),
    (106.490, 29.600),
)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LinkLoss(_Frozen):
    """The vehicle drives without a link from `at_s` on, and records."""

    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


class SimulatedVehicle(_Frozen):
    """One vehicle; what is left empty comes from the fleet."""

    phone: str
    plate: str = ""
    plate_colour: int = Field(default=2, ge=0, le=255)  # yellow: large vehicles
    terminal_id: str = ""
    vehicle_class: str = ""
    vehicle_speed: SignalConfig | None = None
    route: Route = ()
    link_loss: tuple[LinkLoss, ...] = ()

    @field_validator("phone")
    @classmethod
    def _digits(cls, phone: str) -> str:
        if not _PHONE.fullmatch(phone):
            raise ValueError("a phone is 1 to 12 digits")
        return phone.lstrip("0") or "0"


class Jt808FleetConfig(_Frozen):
    """The fleet. Without `vehicles`, `vehicle_count` of them are made up."""

    host: str = "127.0.0.1"
    port: int = Field(default=7808, ge=1, le=65535)
    edition: Literal["2013", "2019"] = "2013"
    vehicle_count: int = Field(default=3, ge=1, le=100_000)
    vehicles: tuple[SimulatedVehicle, ...] = ()
    vehicle_class: str = "hazmat"
    device_prefix: str = "v"  # as the gateway is configured: for the ledger's point names
    duration_s: float = Field(default=0.0, ge=0)  # scenario seconds; 0 = until stopped
    speed: float = Field(default=1.0, gt=0)

    report_interval_s: float = Field(default=30.0, ge=1)  # and at least one second of the clock
    heartbeat_interval_s: float = Field(default=60.0, gt=0)
    vehicle_speed: SignalConfig = SignalConfig(base=55.0, wander=8.0, decimals=1)
    speed_limit_km_h: float = Field(default=0.0, ge=0)  # the terminal's own alarm; 0 = none
    route: Route = DEFAULT_ROUTE
    link_loss: tuple[LinkLoss, ...] = ()

    reply_timeout_s: float = Field(default=10.0, gt=0)  # the first; T(n+1) = T(n) * (n+1)
    reply_timeout_max_s: float = Field(default=60.0, gt=0)
    resend_count_max: int = Field(default=3, ge=0)  # then the link is taken for dead
    reconnect_interval_s: float = Field(default=2.0, gt=0)
    unanswered_max: int = Field(default=32, ge=1, le=64)  # beyond it positions wait for 0704
    recorded_max: int = Field(default=100_000, ge=1)  # positions kept without a link

    @model_validator(mode="after")
    def _usable(self) -> Jt808FleetConfig:
        phones = [vehicle.phone for vehicle in self.vehicles]
        if len(set(phones)) < len(phones):
            raise ValueError("vehicles: each phone once")
        if not self.route:
            raise ValueError("route: at least one place")
        return self

    def fleet(self) -> tuple[SimulatedVehicle, ...]:
        """Every vehicle with nothing left empty."""
        made = self.vehicles or tuple(
            SimulatedVehicle(phone=f"139000{number:05d}", plate=f"测A{number:05d}")
            for number in range(1, self.vehicle_count + 1)
        )
        return tuple(
            vehicle.model_copy(
                update={
                    "plate": vehicle.plate or f"测B{vehicle.phone[-5:]}",
                    "terminal_id": vehicle.terminal_id or f"T{vehicle.phone[-6:]:0>6}",
                    "vehicle_class": vehicle.vehicle_class or self.vehicle_class,
                    "vehicle_speed": vehicle.vehicle_speed or self.vehicle_speed,
                    "route": vehicle.route or self.route,
                    "link_loss": vehicle.link_loss or self.link_loss,
                }
            )
            for vehicle in made
        )
