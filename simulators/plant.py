"""Seeded signals for simulated devices: a base, a wander, and what the scenario does to it.

`Signal.at(t_s)` is a pure function of the scenario second, the seed and the parameters, so two
simulators that describe the same quantity agree, and a run can be repeated. The wander is the sum
of three sines with seeded phases: bounded (never beyond `wander`), smooth and cheap, which a random
walk is not.

A scenario adds **events**: `ramp` to a value, `hold` there, `release` back to the base, `silence`
(nothing is sent), `freeze` (the same value again and again), `fault` (the device says its sensor is
broken). Times are seconds since the scenario began.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_PERIODS_S = (17.0, 53.0, 211.0)  # coprime, so that the pattern does not repeat within a shift


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ramp(_Frozen):
    """From wherever the signal is at `at_s`, straight to `to` in `over_s`, hold `hold_s`, and
    straight back to the base in `back_s`."""

    kind: Literal["ramp"] = "ramp"
    at_s: float = Field(ge=0)
    to: float
    over_s: float = Field(default=5.0, gt=0)
    hold_s: float = Field(default=10.0, ge=0)
    back_s: float = Field(default=5.0, gt=0)


class Silence(_Frozen):
    """Nothing is sent between `at_s` and `at_s + for_s`."""

    kind: Literal["silence"] = "silence"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


class Freeze(_Frozen):
    """The value of `at_s` is repeated for `for_s`."""

    kind: Literal["freeze"] = "freeze"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


class Broken(_Frozen):
    """The device reports a sensor fault between `at_s` and `at_s + for_s`."""

    kind: Literal["fault"] = "fault"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


Event = Annotated[Ramp | Silence | Freeze | Broken, Field(discriminator="kind")]


class SignalConfig(_Frozen):
    """One simulated quantity."""

    base: float
    wander: float = Field(default=0.0, ge=0)  # the largest distance from base without events
    decimals: int = Field(default=2, ge=0, le=6)  # resolution of the device
    events: tuple[Event, ...] = ()


class Signal:
    """The value of one quantity at any scenario second."""

    def __init__(self, config: SignalConfig, seed: str) -> None:
        rng = random.Random(seed)
        self._config = config
        self._phases = [rng.uniform(0, 2 * math.pi) for _ in _PERIODS_S]
        self._ramps: Sequence[Ramp] = [e for e in config.events if isinstance(e, Ramp)]
        self._freezes: Sequence[Freeze] = [e for e in config.events if isinstance(e, Freeze)]

    def is_silent(self, t_s: float) -> bool:
        return self._within(Silence, t_s)

    def is_broken(self, t_s: float) -> bool:
        return self._within(Broken, t_s)

    def at(self, t_s: float) -> float:
        """The value, rounded as the device would."""
        for freeze in self._freezes:
            if freeze.at_s <= t_s < freeze.at_s + freeze.for_s:
                t_s = freeze.at_s
                break
        value = self._config.base + self._wander(t_s)
        for ramp in self._ramps:
            value += self._share(ramp, t_s) * (ramp.to - value)
        return round(value, self._config.decimals)

    def _wander(self, t_s: float) -> float:
        if not self._config.wander:
            return 0.0
        waves = (
            math.sin(2 * math.pi * t_s / period + phase)
            for period, phase in zip(_PERIODS_S, self._phases, strict=True)
        )
        return self._config.wander * sum(waves) / len(_PERIODS_S)

    def _within(self, kind: type[Silence | Broken], t_s: float) -> bool:
        return any(
            isinstance(event, kind) and event.at_s <= t_s < event.at_s + event.for_s
            for event in self._config.events
        )

    @staticmethod
    def _share(ramp: Ramp, t_s: float) -> float:
        """How far the ramp has taken the signal from its base: 0 before and after, 1 while held."""
        since = t_s - ramp.at_s
        if since <= 0:
            return 0.0
        if since < ramp.over_s:
            return since / ramp.over_s
        since -= ramp.over_s + ramp.hold_s
        return max(0.0, 1.0 - since / ramp.back_s) if since > 0 else 1.0
