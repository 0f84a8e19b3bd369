"""What a simulated group of tailings dams is: where it sends, how often, and its signals."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.contract.mqtt import MqttTarget
from simulators.plant import SignalConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RainStorm(_Frozen):
    """Rain that fills the pool. The level rises with the rain that fell and drains afterwards."""

    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)
    rain_mm_per_h: float = Field(gt=0, le=1000)
    catchment_ratio: float = Field(default=8.0, gt=0)  # catchment area / pool area
    drain_m_per_h: float = Field(default=0.05, ge=0)  # what the outlet takes off afterwards


# Slow and small, as on a quiet dam. pool_level is the base without rain; beach_length follows from
# level, crest and slope and therefore has no signal of its own.
QUIET: dict[str, SignalConfig] = {
    "displacement_x": SignalConfig(base=2.0, wander=0.8, decimals=2),
    "displacement_y": SignalConfig(base=1.0, wander=0.8, decimals=2),
    "displacement_z": SignalConfig(base=-3.0, wander=1.2, decimals=2),
    "phreatic_depth": SignalConfig(base=9.0, wander=0.2, decimals=3),
    "pool_level": SignalConfig(base=128.0, wander=0.02, decimals=3),
    "beach_top": SignalConfig(base=131.0, wander=0.0, decimals=3),
    "seepage_flow": SignalConfig(base=3.5, wander=0.3, decimals=2),
}


class TailingsConfig(MqttTarget):
    """One or more dams, each a publisher of one report per interval."""

    root: str = Field(default="tailings", min_length=1)
    dams: tuple[str, ...] = ("dam1",)
    interval_s: float = Field(default=10.0, gt=0)  # scenario seconds between reports of a dam
    speed: float = Field(default=1.0, gt=0)  # scenario seconds per second of the wall clock
    duration_s: float | None = Field(default=None, gt=0)  # scenario seconds; None: for ever
    beach_slope: float = Field(default=0.02, gt=0, lt=1)  # rise per metre of dry beach
    signals: dict[str, SignalConfig] = Field(default_factory=dict)  # over the quiet ones
    rain_storm: tuple[RainStorm, ...] = ()
    unacknowledged_max: int = Field(default=500, ge=1)  # reports kept for a broker that is away

    @model_validator(mode="after")
    def _usable(self) -> TailingsConfig:
        if not self.dams or len(set(self.dams)) < len(self.dams):
            raise ValueError("dams: at least one, each once")
        for text in (self.root, *self.dams):
            if not text or any(symbol in text for symbol in "/+#{}") or text.split() != [text]:
                raise ValueError(f"{text!r}: one topic level, without blanks and / + # braces")
        fixed = {"rain", "beach_length"} & set(self.signals)
        if fixed:
            raise ValueError(f"signals: {', '.join(sorted(fixed))} follows from rain_storm")
        return self

    def signal(self, quantity: str) -> SignalConfig:
        return self.signals[quantity] if quantity in self.signals else QUIET[quantity]

    @property
    def quantities(self) -> tuple[str, ...]:
        """Those with a signal of their own, in the order of the report."""
        return (*QUIET, *(name for name in self.signals if name not in QUIET))
