"""One simulated dam: scenario second in, values out. Seeded and pure.

    rain (mm since the last report) ---> pool level up ---> dry beach shorter
                                              beach_length = (beach_top - pool_level) / slope

so that a limit on the beach and a limit on the level go off together, as they would in the field.
A signal of `pool_level` may do anything on top (a ramp is a blocked outlet); the beach follows.
"""

from __future__ import annotations

from simulators.mqtt_json.config import RainStorm, TailingsConfig
from simulators.plant import Signal

_RAIN_DECIMALS = 1
_TIPS_PER_MM = 10  # a tipping bucket of 0.1 mm
_LENGTH_DECIMALS = 2


class Dam:
    """The values of one dam at any scenario second."""

    def __init__(self, config: TailingsConfig, dam: str, seed: int) -> None:
        self._config = config
        self._signals = {
            name: Signal(config.signal(name), f"{seed}/{dam}/{name}") for name in config.quantities
        }

    def report(self, t_s: float) -> dict[str, float | None]:
        """Every quantity that is sent now; None where the device has no value."""
        values: dict[str, float | None] = {}
        for name, signal in self._signals.items():
            if not signal.is_silent(t_s):
                values[name] = None if signal.is_broken(t_s) else signal.at(t_s)
        level, top = self._level(t_s), values.get("beach_top")
        if values.get("pool_level") is not None:
            values["pool_level"] = level
        if "beach_top" in values and "pool_level" in values:
            beach = None
            if top is not None and values["pool_level"] is not None:
                beach = round(max(0.0, (top - level) / self._config.beach_slope), _LENGTH_DECIMALS)
            values["beach_length"] = beach
        values["rain"] = self.rain_mm(t_s - self._config.interval_s, t_s)
        return values

    def rain_mm(self, from_s: float, to_s: float) -> float:
        """What fell between two scenario seconds, as the bucket's total tips."""
        return round(self._tipped(to_s) - self._tipped(from_s), _RAIN_DECIMALS)

    def _tipped(self, t_s: float) -> float:
        """The bucket's total since the scenario began: whole tips only, so that reports add up."""
        fallen = sum(_fallen_mm(storm, t_s) for storm in self._config.rain_storm)
        return int(fallen * _TIPS_PER_MM) / _TIPS_PER_MM

    def _level(self, t_s: float) -> float:
        config = self._config.signal("pool_level")
        level = self._signals["pool_level"].at(t_s)
        for storm in self._config.rain_storm:
            filled = _fallen_mm(storm, t_s) / 1000 * storm.catchment_ratio
            drained = max(0.0, t_s - storm.at_s - storm.for_s) / 3600 * storm.drain_m_per_h
            level += max(0.0, filled - drained)
        return round(level, config.decimals)


def _fallen_mm(storm: RainStorm, t_s: float) -> float:
    raining_s = min(max(0.0, t_s - storm.at_s), storm.for_s)
    return raining_s / 3600 * storm.rain_mm_per_h
