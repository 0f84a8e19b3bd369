"""The code tables of family A: sensor types, states, units. Data, with a few look-ups.

Sensor types are table B.2 of MT/T 1201 as one real mine's dictionary has it; the water codes are
valid with system 05 only. Family B numbers its types differently: never share this table with it.

Surprising: 0001, 0011 and 0043 are all methane of the air people breathe, and one statutory limit
holds for them; 0022 is gas inside a drainage pipe, where 30 % is normal. They must not be mixed.

Owns: codes → words. Not here: which sample gets which quality (mapping.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SensorType:
    """One entry of table B.2."""

    quantity: str
    name: str
    unit: str = ""  # "" where practice has several: a wrong guess would be worse than none
    states: Mapping[int, str] = field(default_factory=dict)


def _analog(text: str) -> dict[str, SensorType]:
    """Lines of `code quantity name [unit]`."""
    rows = [line.split() for line in text.strip().splitlines()]
    return {row[0]: SensorType(row[1], row[2], row[3] if len(row) > 3 else "") for row in rows}


def _switch(text: str) -> dict[str, SensorType]:
    """Lines of `code quantity name state-0 state-1 …`."""
    rows = [line.split() for line in text.strip().splitlines()]
    return {row[0]: SensorType(row[1], row[2], "", dict(enumerate(row[3:]))) for row in rows}


SENSOR_TYPES: Mapping[str, SensorType] = _analog(
    """
        0001 methane 环境瓦斯 %CH4
        0002 wind_speed 风速 m/s
        0003 temperature 环境温度 ℃
        0004 carbon_monoxide 一氧化碳 ppm
        0005 air_pressure 风压
        0006 negative_pressure 负压 kPa
        0007 sump_level 水池水位 m
        0008 coal_level 煤位 m
        0009 hydrogen_sulfide 硫化氢 ppm
        0010 water_temperature 水温度 ℃
        0011 methane 高低浓度瓦斯 %CH4
        0012 oxygen 氧气 %
        0013 carbon_dioxide 二氧化碳 %
        0014 dust 粉尘 mg/m³
        0015 voltage 电压
        0016 frequency 频率 Hz
        0017 current 电流 A
        0018 humidity 湿度 %RH
        0019 air_volume 风量 m³/min
        0020 roof_separation 顶板离层位移 mm
        0021 dam_displacement 坝体位移 mm
        0022 pipe_methane 管道瓦斯 %CH4
        0023 pipe_temperature 管道温度 ℃
        0024 water_quality 水质
        0025 pipe_pressure 管道压力 kPa
        0026 bearing_temperature 轴承温度 ℃
        0027 noise 噪声 dB
        0028 motor_temperature 电机温度 ℃
        0029 reservoir_level 水库水位 m
        0030 phreatic_line 浸润线 m
        0031 rain 降雨量 mm
        0032 hydraulic_pressure 液压压力 MPa
        0033 rock_stress 围岩应力 MPa
        0034 borehole_stress 钻孔应力 MPa
        0035 bolt_stress 锚杆应力
        0036 mixed_gas_flow 混合瓦斯流量 m³/min
        0037 pure_gas_flow 纯瓦斯流量 m³/min
        0038 pipe_carbon_monoxide 管道一氧化碳 ppm
        0039 hydrogen 氢气 ppm
        0040 pipe_flow 管道流量 m³/min
        0041 nitrogen_dioxide 二氧化氮 ppm
        0042 sulfur_dioxide 二氧化硫 ppm
        0043 methane 激光甲烷 %CH4
        0044 ammonia 氨气 ppm
        0045 nitrogen 氮气 %
        0046 ethylene 乙烯 ppm
        0047 ethane 乙烷 ppm
        0048 pressure 压强 Pa
        0049 liquid_level 液位 m
        0050 material_level 物位 m
        0051 opening 开度 %
        0052 height 高度 m
        0053 flow 流量 m³/h
        3001 output 产量
        3002 gas_drained 瓦斯抽放量
        3003 water_drained 排水量
        3004 hoist_count 钩数
        3005 water_flow 水流量
        """
) | _switch(
    """
        1001 local_fan 局部通风机 停 开
        1002 air_door 风门 关 开
        1003 air_duct 风筒状态 无风 有风
        1004 equipment 设备开停 停 开
        1005 switch 开关 断 通
        1006 air_direction 风向 反向 正常
        1007 coal_bunker 煤仓空满 空 满
        1008 smoke 烟雾 无烟 有烟
        1009 power_breaker 断电器 断电 复电
        1010 main_fan 主通风机 停 开
        1011 feed_sensor 馈电器 负荷侧无电 负荷侧有电
        1012 sound_light_alarm 声光报警器 不报警 报警
        1013 metering_controller 计量开停控制器 停 开
        1014 control_output 控制量 断开 闭合
        1015 feed 馈电 断 通
        4001 substation_condition 分站 故障 正常
        4002 power_supply 电源状态 无 交流 直流
        """
)

_WATER_TYPES: Mapping[str, SensorType] = _analog(
    """
    0502 observation_hole_level 观测孔水位 m
    0503 water_inflow 涌水量
    """
) | _switch(
    """
    0504 water_pump 水泵 停 开
    0608 water_pump 水泵 停 开
    """
)
_WATER_SYSTEM = "05"  # INF in the reference: one generator's codes


def sensor_type(code: str, system: str = "") -> SensorType:
    """The entry for a code; an unknown one still gets a stable word of its own."""
    if system == _WATER_SYSTEM and code in _WATER_TYPES:
        return _WATER_TYPES[code]
    return SENSOR_TYPES.get(code) or SensorType(f"sensor_{code}", f"传感器{code}")


RUN_STATES: Mapping[int, str] = {0: "通信正常", 1: "通信中断", 2: "故障", 9: "未知"}
"""B.8. For substations and base stations alike."""
POWER_STATES: Mapping[int, str] = {0: "直流", 1: "交流", 2: "电源故障", 9: "未知"}
"""B.9 as two sources have it; a third is off by one, so the number itself is what is stored."""
UNKNOWN_STATE = 9

_UNIT_ALIASES: Mapping[str, str] = {
    alias.casefold(): unit
    for unit, aliases in {
        "%CH4": ("%CH4", "CH4%", "%CH₄"),
        "%": ("%", "％"),
        "ppm": ("ppm", "×10-6", "10-6"),
        "℃": ("℃", "°C", "C", "度"),
        "kPa": ("kPa",),
        "Pa": ("Pa",),
        "MPa": ("MPa",),
        "m/s": ("m/s", "米/秒"),
        "m": ("m", "米"),
        "mm": ("mm", "毫米"),
        "mg/m³": ("mg/m3", "mg/m³", "mg/m^3"),
        "m³/min": ("m3/min", "m³/min"),
        "m³/s": ("m3/s", "m³/s"),
        "m³/h": ("m3/h", "m³/h"),
        "V": ("V",),
        "kV": ("kV",),
        "A": ("A",),
        "Hz": ("Hz",),
        "dB": ("dB",),
        "%RH": ("%RH", "RH%"),
    }.items()
    for alias in aliases
}

_CASE_MATTERS = frozenset({"mpa"})
"""`mPa` is a milli-, `MPa` a megapascal: only vendors' spellings of the latter are taken."""


def normal_unit(text: str, kind: SensorType) -> str:
    """One spelling for each unit; an unknown unit stays as written, an absent one is the type's.

    A plain `%` of a methane sensor is %CH4: a volume share says the same either way.
    """
    text = text.strip()
    if not text:
        return kind.unit
    if text.casefold() in _CASE_MATTERS and not text.startswith("M"):
        return text
    unit = _UNIT_ALIASES.get(text.casefold(), text)
    return "%CH4" if unit == "%" and kind.unit == "%CH4" else unit
