"""The words integrators write over the columns of a point table, and into its cells.

Data only. A heading is compared after `plain`: full-width forms made narrow, lower case, no blanks,
underscores or hyphens, no bracketed remark.
"""

from __future__ import annotations

import re
import unicodedata

_BRACKETED = re.compile(r"[(\[【].*?[)\]】]")
_BETWEEN = re.compile(r"[\s_\-:/]+")


def plain(text: str) -> str:
    """The heading as it is compared."""
    narrow = unicodedata.normalize("NFKC", text).lower()
    return _BETWEEN.sub("", _BRACKETED.sub("", narrow))


HEADINGS: dict[str, tuple[str, ...]] = {
    "id": ("id", "point id", "point", "tag", "测点编号", "测点编码", "测点id", "测点号", "点号",
           "编码", "编号", "传感器编号", "传感器编码", "位号"),
    "kind": ("kind", "point kind", "type", "value type", "测点类型", "数据类型", "类型", "值类型"),
    "quantity": ("quantity", "measured quantity", "监测量", "监测项目", "监测类型", "测量类型",
                 "传感器类型", "监测参数"),
    "unit": ("unit", "units", "engineering unit", "单位", "计量单位", "工程单位"),
    "name": ("name", "point name", "description", "名称", "测点名称", "描述", "传感器名称"),
    "device": ("device", "device id", "设备", "设备编号", "设备编码", "分站", "分站编号"),
    "adapter": ("adapter", "source", "接入", "接入名称", "数据来源", "来源"),
    "area": ("area", "区域", "所属区域", "区域名称"),
    "location": ("location", "place", "安装位置", "安装地点", "位置", "地点"),
    "location_class": ("location class", "place class", "位置类别", "测点位置类别", "地点类别"),
    "interval_s": ("interval s", "interval", "sampling interval", "period", "采样间隔", "采集周期",
                   "上传周期", "周期", "采样周期"),
    "range_low": ("range low", "low", "range min", "min", "量程下限", "量程低", "下限", "最小量程"),
    "range_high": ("range high", "high", "range max", "max", "量程上限", "量程高", "上限",
                   "最大量程"),
    "range": ("range", "量程", "量程范围", "测量范围"),
    "states": ("states", "state names", "状态", "状态描述", "状态含义"),
}  # fmt: skip
"""Field -> headings. Where a table has two columns for one field the first one counts."""

FIELDS: dict[str, str] = {plain(word): field for field, words in HEADINGS.items() for word in words}
IGNORED = frozenset(plain(word) for word in ("序号", "no", "no.", "#", "行号"))

KINDS: dict[str, str] = {
    "模拟量": "analog", "模拟": "analog", "mn": "analog", "ai": "analog",
    "开关量": "discrete", "开关": "discrete", "kg": "discrete", "di": "discrete",
    "累计量": "counter", "累积量": "counter", "lj": "counter",
    "位": "bits", "报警字": "bits",
    "经度": "lon", "纬度": "lat", "高程": "alt", "速度": "speed", "方向": "heading", "区域": "area",
}  # fmt: skip

QUANTITIES: dict[str, str] = {  # GLOSSARY.md
    "甲烷": "methane", "瓦斯": "methane", "ch4": "methane",
    "一氧化碳": "carbon_monoxide", "co": "carbon_monoxide",
    "风速": "wind_speed", "温度": "temperature", "环境温度": "temperature",
    "表面位移x": "displacement_x", "表面位移y": "displacement_y", "表面位移z": "displacement_z",
    "浸润线": "phreatic_depth", "浸润线埋深": "phreatic_depth",
    "库水位": "pool_level", "滩顶高程": "beach_top", "干滩长度": "beach_length",
    "安全超高": "freeboard", "降雨量": "rain", "雨量": "rain", "渗流量": "seepage_flow",
    "车速": "vehicle_speed", "人员所在区域": "personnel_area", "人员求救": "personnel_sos",
}  # fmt: skip

UNITS: dict[str, str] = {
    "°c": "℃", "摄氏度": "℃", "米": "m", "毫米": "mm", "厘米": "cm",
    "米/秒": "m/s", "m/秒": "m/s", "升/秒": "L/s", "l/s": "L/s", "千米/时": "km/h",
    "公里/小时": "km/h", "%ch4": "%CH4", "%lel": "%LEL", "ppm": "ppm", "百分比": "%",
}  # fmt: skip
"""Spellings only. A unit is never converted: the value on the wire would not be."""

SECONDS_PER: dict[str, float] = {
    "s": 1, "sec": 1, "秒": 1, "min": 60, "分": 60, "分钟": 60, "h": 3600, "小时": 3600,
    "ms": 0.001, "毫秒": 0.001,
}  # fmt: skip
