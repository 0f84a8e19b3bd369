"""Ready mappings, as data.

`tailings-generic` is ours: the field names of the national data-access documents for tailings ponds
are not public, so no conformance to them is claimed.

`geohazard` is read from the 2023 approval draft of the geohazard data-communication requirements
and the public platform documentation built on it (topic `$dp`; content ids `L<class>_<type>_<n>`);
the published edition has not been compared. Ids and units below: approval draft, **unconfirmed**.
"""

from __future__ import annotations

from typing import Any

from adapters.mqtt_json.config import MappingConfig, MqttJsonConfig

_TAILINGS_FIELDS: dict[str, tuple[str, str]] = {  # field = quantity: unit, name
    "displacement_x": ("mm", "表面位移X"),
    "displacement_y": ("mm", "表面位移Y"),
    "displacement_z": ("mm", "表面位移Z"),
    "phreatic_depth": ("m", "浸润线埋深"),
    "pool_level": ("m", "库水位"),
    "beach_top": ("m", "滩顶高程"),
    "beach_length": ("m", "干滩长度"),
    "rain": ("mm", "降雨量"),
    "seepage_flow": ("L/s", "渗流量"),
    "pore_pressure": ("kPa", "孔隙水压力"),
    "seepage_turbidity": ("NTU", "渗流浊度"),
    "internal_displacement_x": ("mm", "内部位移X"),
    "internal_displacement_y": ("mm", "内部位移Y"),
}

_XYZ_NAMES = (("X", "x"), ("Y", "y"), ("Z", "z"))

_GEOHAZARD_FIELDS: dict[str, tuple[str, str, str]] = {  # class.field: quantity, unit, name
    "L1_LF.value": ("crack", "mm", "裂缝"),
    **{f"L1_GP.gpsTotal{u}": (f"displacement_{q}", "mm", f"表面位移{u}") for u, q in _XYZ_NAMES},
    "L1_SW.dispsX": ("internal_displacement_x", "mm", "深部位移X"),
    "L1_SW.dispsY": ("internal_displacement_y", "mm", "深部位移Y"),
    **{f"L1_JS.g{u}": (f"acceleration_{q}", "mg", f"加速度{u}") for u, q in _XYZ_NAMES},
    **{f"L1_QJ.{u}": (f"tilt_{q}", "°", f"倾角{u}") for u, q in _XYZ_NAMES},
    "L1_QJ.angle": ("tilt", "°", "倾角"),
    "L1_QJ.AZI": ("tilt_azimuth", "°", "倾斜方位角"),
    **{f"L1_ZD.PL{u}": (f"vibration_frequency_{q}", "Hz", f"振动频率{u}") for u, q in _XYZ_NAMES},
    "L2_YL.value": ("stress", "kN", "应力"),
    "L2_TY.value": ("earth_pressure", "kPa", "土压力"),
    "L3_YL.value": ("rain", "mm", "降雨量"),
    "L3_YL.totalValue": ("rain_total", "mm", "累计降雨量"),
    "L3_QW.value": ("temperature", "℃", "气温"),
    "L3_TW.value": ("soil_temperature", "℃", "土壤温度"),
    "L3_HS.value": ("soil_moisture", "%", "土壤含水率"),
    "L3_DB.value": ("surface_water_level", "m", "地表水位"),
    "L3_DX.value": ("ground_water_level", "m", "地下水位"),
    "L3_SY.value": ("pore_pressure", "kPa", "孔隙水压力"),
    "L3_ST.value": ("seepage_pressure", "kPa", "渗透压力"),
    "L3_LS.value": ("flow_speed", "m/s", "流速"),
    "L3_CJ.value": ("settlement", "mm", "沉降"),
    "L3_QY.value": ("air_pressure", "kPa", "气压"),
    "L4_NW.value": ("mud_level", "m", "泥位"),
    "S1_ZT.ext_power_volt": ("external_voltage", "V", "外接电源电压"),
    "S1_ZT.solar_volt": ("solar_voltage", "V", "太阳能电压"),
    "S1_ZT.battery_volt": ("battery_voltage", "V", "蓄电池电压"),
    "S1_ZT.battery_dump_energy": ("battery_charge", "%", "剩余电量"),
    "S1_ZT.signal_4g": ("signal_strength", "dBm", "4G信号强度"),
}


def _tailings_generic(root: str) -> list[dict[str, Any]]:
    return [
        {
            "topic": f"{root}/{{dam}}/telemetry",
            "each": "$.values.{field}",
            "device": "{$.device}",
            "device_kind": "dam_station",
            "point": "{$.device}.{field}",
            "area": "{dam}",
            "time": "$.time",
            "field": "{field}",
            "fields": {
                key: {"quantity": key, "unit": unit, "name": name}
                for key, (unit, name) in _TAILINGS_FIELDS.items()
            },
            "quantity": "{field}",
        }
    ]


def _geohazard() -> list[dict[str, Any]]:
    return [
        {
            "topic": "$dp",
            "each": "$.{device}.{class}_{n}.{time}.{field}",
            "device": "{device}",
            "point": "{device}.{class}_{n}.{field}",
            "time": "{time}",
            "field": "{class}.{field}",
            "fields": {
                key: {"quantity": quantity, "unit": unit, "name": name}
                for key, (quantity, unit, name) in _GEOHAZARD_FIELDS.items()
            },
            "unknown_fields": "skip",  # raw GNSS text, version strings, vendor extras
        },
        {
            "topic": "$dp",
            "each": "$.{device}.S1_ZT_{n}.{time}.sensor_state.{content}",
            "device": "{device}",
            "point": "{device}.{content}.sensor_state",
            "time": "{time}",
            "quantity": "sensor_state",
            "kind": "discrete",
            "states": {0: "正常", 1: "故障"},
        },
    ]


def mappings_of(config: MqttJsonConfig) -> tuple[MappingConfig, ...]:
    """The profile's mappings, then the site's own."""
    if config.profile == "tailings-generic":
        ready = _tailings_generic(config.root)
    elif config.profile == "geohazard":
        ready = _geohazard()
    else:
        ready = []
    return (*(MappingConfig.model_validate(mapping) for mapping in ready), *config.mappings)


def wrapper_of(config: MqttJsonConfig) -> str:
    """What stands around the JSON of a payload."""
    return "geohazard" if config.profile == "geohazard" else config.wrapper
