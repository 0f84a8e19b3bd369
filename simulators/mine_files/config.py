"""Configuration of one simulated mine: its sensors, people, areas, and what happens to them.

Times `at_s` and `for_s` are scenario seconds. `speed` makes scenario time pass faster than the wall
clock; the times written into files stay wall-clock times, because the gateway refuses files from
the future and judges by those times. The format has whole seconds only, so no series comes more
often than once a wall-clock second, however fast the scenario.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulators.plant import SignalConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SensorConfig(_Frozen):
    """One measuring point. Its code is mine + system 01 + value type + sensor type + `suffix`."""

    suffix: str = Field(pattern=r"^[0-9A-Z]{1,8}$")
    sensor_type: str = Field(pattern=r"^[0-9]{4}$")
    type_name: str
    value_type: Literal["MN", "KG"] = "MN"
    unit: str = ""
    location: str
    substation: int = Field(default=1, ge=1, le=99_999)
    signal: SignalConfig
    range_low: float | None = None
    range_high: float | None = None
    alarm_high: float | None = None
    alarm_high_release: float | None = None
    alarm_low: float | None = None
    alarm_low_release: float | None = None
    cut_high: float | None = None
    restore_high: float | None = None
    on_text: str = ""
    off_text: str = ""


class AreaConfig(_Frozen):
    """One area. The first of a mine is the road between all others."""

    code: str = Field(pattern=r"^[0-9]{4}$")
    name: str
    area_type: Literal["井口区域", "重点区域", "限制区域", "其它区域"] = "其它区域"
    capacity: int = Field(default=50, ge=1)


class Overfill(_Frozen):
    """`people` people are in one area, whoever they are and wherever they should be."""

    kind: Literal["overfill"] = "overfill"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)
    area: str = Field(pattern=r"^[0-9]{4}$")
    people: int = Field(ge=1)


class Distress(_Frozen):
    """Somebody underground calls for help."""

    kind: Literal["sos"] = "sos"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)


class SubstationDown(_Frozen):
    """A substation is off the line: its state says so, and so does that of every sensor behind."""

    kind: Literal["substation_down"] = "substation_down"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)
    substation: int = 1


class Calibration(_Frozen):
    """Test gas on one sensor: state 4, and the alarm bits its value earns (usual practice)."""

    kind: Literal["calibration"] = "calibration"
    at_s: float = Field(ge=0)
    for_s: float = Field(gt=0)
    suffix: str
    value: float = 2.0


MineEvent = Annotated[
    Overfill | Distress | SubstationDown | Calibration, Field(discriminator="kind")
]

FaultName = Literal[
    "half",  # never finished
    "slow",  # half first, the whole a moment later
    "wrong_field_count",  # one bad record more
    "many_bad",  # more than a fifth bad
    "late",  # after the file that followed it
    "future",  # one hour ahead
    "duplicate",  # the same file once more
    "other_mine",  # another mine in the header than in the name
    "full_width",  # one record more, with the wrong semicolon
    "newlines",
    "bom",
    "quotes",
    "gb2312",
]


class FileFault(_Frozen):
    """Something wrong with the first file of a kind at or after `at_s`."""

    fault: FaultName
    at_s: float = Field(ge=0)
    file_kind: Literal["CDSS", "RYSS", "FZSS", "JZSS"] = "CDSS"


def _methane(suffix: str, location: str, alarm: float, cut: float, restore: float) -> SensorConfig:
    return SensorConfig(
        suffix=suffix,
        sensor_type="0001",
        type_name="环境瓦斯",
        unit="%CH4",
        location=location,
        signal=SignalConfig(base=0.3, wander=0.2),
        range_low=0.0,
        range_high=4.0,
        alarm_high=alarm,
        alarm_high_release=alarm - 0.01,
        cut_high=cut,
        restore_high=restore,
    )


DEFAULT_SENSORS = (
    _methane("001A01", "3101工作面T1", 1.0, 1.5, 1.0),
    _methane("001A02", "3101工作面T2", 1.0, 1.0, 1.0),
    SensorConfig(
        suffix="001A03",
        sensor_type="0004",
        type_name="一氧化碳",
        unit="ppm",
        location="3101回风巷",
        signal=SignalConfig(base=6, wander=3, decimals=0),
        range_low=0,
        range_high=500,
        alarm_high=24,
        alarm_high_release=20,
    ),
    SensorConfig(
        suffix="001A04",
        sensor_type="0002",
        type_name="风速",
        unit="m/s",
        location="3101回风巷",
        signal=SignalConfig(base=2.4, wander=0.6, decimals=1),
        range_low=0,
        range_high=15,
    ),
    SensorConfig(
        suffix="001D05",
        sensor_type="1003",
        type_name="风筒状态",
        value_type="KG",
        location="3102掘进风筒",
        signal=SignalConfig(base=1, decimals=0),
        on_text="风筒有风",
        off_text="风筒无风",
    ),
)
DEFAULT_AREAS = (
    AreaConfig(code="0001", name="运输大巷", capacity=120),
    AreaConfig(code="0007", name="3101综采工作面", area_type="重点区域", capacity=25),
    AreaConfig(code="0008", name="3102掘进工作面", area_type="重点区域", capacity=16),
    AreaConfig(code="0009", name="中央变电所", area_type="限制区域", capacity=6),
)


class MineFilesSimulatorConfig(_Frozen):
    """One simulated mine and the folder it hands its files over in."""

    folder: Path
    mine_code: str = Field(default="999901000123", pattern=r"^9999[0-9]{8}$")  # no such division
    mine_name: str = "示例煤矿"
    capacity: int = Field(default=300, ge=1)  # approved head-count of the whole mine

    sensors: tuple[SensorConfig, ...] = DEFAULT_SENSORS
    cdss_interval_s: float = Field(default=20.0, ge=1)
    state_interval_s: float = Field(default=60.0, ge=1)  # FZSS and JZSS

    areas: tuple[AreaConfig, ...] = Field(default=DEFAULT_AREAS, min_length=1)
    stations_per_area: int = Field(default=3, ge=1, le=99)
    stations_down_share: float = Field(default=0.0, ge=0, le=1)
    people_count: int = Field(default=120, ge=0, le=90_000)
    absent_share: float = Field(default=0.1, ge=0, le=1)
    shift_count: int = Field(default=3, ge=1, le=4)
    start_hour: float = Field(default=11.0, ge=0, lt=24)  # of the mine's day, at scenario second 0
    dwell_s: float = Field(default=300.0, gt=0)  # how long people stay at one place
    ryss_interval_s: float = Field(default=30.0, ge=1)

    events: tuple[MineEvent, ...] = ()
    file_faults: tuple[FileFault, ...] = ()
    speed: float = Field(default=1.0, gt=0)
    duration_s: float | None = Field(default=None, gt=0)
    ack_poll_s: float = Field(default=0.05, gt=0)  # wall clock: how often to see what was taken

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        suffixes = [sensor.suffix for sensor in self.sensors]
        areas = [area.code for area in self.areas]
        if len(set(suffixes)) < len(suffixes) or len(set(areas)) < len(areas):
            raise ValueError("suffixes of sensors and codes of areas must differ")
        for event in self.events:
            if isinstance(event, Overfill):
                if event.area not in areas:
                    raise ValueError(f"overfill: there is no area {event.area}")
                if event.people > self.people_count:
                    raise ValueError(f"overfill: there are only {self.people_count} people")
            if isinstance(event, Calibration) and event.suffix not in suffixes:
                raise ValueError(f"calibration: there is no sensor {event.suffix}")
        return self
