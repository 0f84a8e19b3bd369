"""The tables of the file formats: separators, headers, and the ordered fields of each kind.

    header ~ record ~ record ~ ||        family A (coal: 42号 annex 2, MT/T 1201-2023)
    header ^ record ^ record ^ ]]]       family B (metal mines), kinds begin with N

Fields stand between `;`. A kind is a table entry: its headers by field count and its body layouts
by field count, because the same kind exists with several lengths (RYJZ has 6 fields in 2019 files
and 7 in files of a later generator). A new kind or family is an entry here plus a mapper in
mapping.py; nothing in the codec changes.

Surprising: `handled` is not "known". Known kinds without a mapper can be decoded and shown, but a
running adapter sets their files aside untouched.

Owns: names and order. Not here: splitting and checking (codec.py), meaning (mapping.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Profile:
    """The separators of one family; the end mark at the end of a file tells which."""

    family: str
    record_mark: str
    end_marks: tuple[str, ...]  # the first is the one we write
    field_mark: str = ";"


COAL = Profile(family="A", record_mark="~", end_marks=("||", "‖"))
"""`‖` is one full-width character: the 2009 proposal's end mark, accepted as an alias."""
METAL = Profile(family="B", record_mark="^", end_marks=("]]]",))
PROFILES = (COAL, METAL)


class Check(StrEnum):
    """What the codec insists on in one field. Everything else is text, judged by mapping.py."""

    ID = "a code without blanks and without / + #"
    TIME = "a time yyyy-MM-dd HH:mm:ss"
    VALUE_TYPE = "MN, KG, LJ or DT"
    FLAG = "0, 1 or 2"


@dataclass(frozen=True, slots=True)
class Layout:
    """The ordered fields of one record. Fields after `count_min` may be absent altogether."""

    fields: tuple[str, ...]
    checks: tuple[tuple[int, Check], ...] = ()
    count_min: int = 0
    index: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def shortest(self) -> int:
        return self.count_min or len(self.fields)


class Role(StrEnum):
    """In which order files of a round are taken: what declares, before what refers to it."""

    DECLARATION = "declaration"
    DATA = "data"
    OTHER = "other"  # recognised, set aside


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file."""

    name: str
    role: Role
    layouts: Mapping[int, Layout]  # by field count; empty when the order of fields is not known
    headers: Mapping[int, tuple[str, ...]]
    key: str = ""  # the field whose repeat inside one file replaces the earlier record

    @property
    def handled(self) -> bool:
        return self.role is not Role.OTHER


_MARKS = {"!": Check.ID, "@": Check.TIME, "?": Check.VALUE_TYPE, "%": Check.FLAG}


def _layout(text: str, count_min: int = 0) -> Layout:
    """`!code value @time`: field names in order; a leading mark names what is checked."""
    names, checks = [], []
    for position, word in enumerate(text.split()):
        check = _MARKS.get(word[0])
        if check is not None:
            checks.append((position, check))
        names.append(word.lstrip("!@?%"))
    return Layout(
        fields=tuple(names),
        checks=tuple(checks),
        count_min=count_min,
        index={name: position for position, name in enumerate(names)},
    )


HEADER_3 = ("mine_code", "mine_name", "time")
HEADER_CDDY = _layout("mine_code mine_name model system maker expiry time").fields
HEADER_RYXX = _layout("mine_code mine_name capacity model system maker expiry time").fields
HEADER_RYJZ = _layout("mine_code mine_name capacity model maker safety_mark time").fields

_STATISTICS = "!code type_name location unit start end max max_time min min_time average time"
_ABNORMAL = (
    "!code type_name location unit type start end max max_time min min_time average"
    " cause measure entered_time entered_by time"
)
_PERSON_ALARM = "!card name start end time_in area area_time station station_time"
_OVERTIME = "!card name time_in start end area area_time station station_time"
_OVER_COUNT = "type capacity present area area_name start end cards"
_SUBSTATION = "!code location x y z"
_RUN_STATE = "!code run power @time"
_POINT_LIMITS = (
    "alarm_high alarm_high_release alarm_low alarm_low_release"
    " cut_high restore_high cut_low restore_low"
)


def _kind(
    name: str,
    role: Role,
    *layouts: Layout,
    headers: tuple[tuple[str, ...], ...] = (HEADER_3,),
    key: str = "",
) -> Kind:
    return Kind(
        name=name,
        role=role,
        layouts={len(layout.fields): layout for layout in layouts},
        headers={len(header): header for header in headers},
        key=key,
    )


_FAMILY_A = (
    # --- safety monitoring, MT/T 1201.1
    _kind(
        "CDDY",
        Role.DECLARATION,
        _layout(
            "!code system substation sensor_type ?value_type unit range_high range_low"
            f" {_POINT_LIMITS} on_text off_text location x y z relation @time"
        ),
        headers=(HEADER_CDDY,),
        key="code",
    ),
    _kind("CDSS", Role.DATA, _layout("!code type_name location value unit state @time")),
    _kind("FZSS", Role.DATA, _layout(_RUN_STATE), key="code"),
    _kind("FZDY", Role.OTHER, _layout(_SUBSTATION, count_min=2), key="code"),
    _kind("TJSJ", Role.OTHER, _layout(_STATISTICS)),
    _kind("YCBJ", Role.OTHER, _layout(_ABNORMAL)),
    # --- personnel positioning, 42号 annex 2 chapter 6, MT/T 1201.3
    _kind("RYQY", Role.DECLARATION, _layout("area_type !code capacity name"), key="code"),
    _kind(
        "RYJZ",
        Role.DECLARATION,
        _layout("!code name x y z location"),
        _layout("!code area_type x y z location @time"),
        headers=(HEADER_3, HEADER_RYJZ),
        key="code",
    ),
    _kind(
        "RYXX",
        Role.DECLARATION,
        _layout("!card name job post team birth education leader special"),
        headers=(HEADER_RYXX,),
        key="card",
    ),
    _kind(
        "RYSS",
        Role.DATA,
        _layout(
            "!card name %flag time_in time_out area area_time station station_time"
            " shift distance work_state leader special track"
        ),
        key="card",
    ),
    _kind("JZSS", Role.DATA, _layout(_RUN_STATE), key="code"),
    _kind("RYCS", Role.OTHER, _layout(_OVERTIME)),
    _kind("RYCY", Role.OTHER, _layout(_OVER_COUNT)),
    _kind("RYQJ", Role.OTHER, _layout(_PERSON_ALARM)),
    _kind("RYXZ", Role.OTHER, _layout(_PERSON_ALARM)),
)

_FAMILY_B = (
    _kind(
        "NCDDY",
        Role.OTHER,
        _layout(
            "!code system substation sensor_type ?value_type unit range_high range_low"
            " alarm_high alarm_high_release on_text off_text location x y z relation @time"
        ),
        headers=(HEADER_CDDY,),
    ),
    _kind("NCDSS", Role.OTHER, _layout("!code type_code location value unit state @time")),
    _kind("NCDYCBJ", Role.OTHER, _layout(_ABNORMAL)),
    _kind("NYCBJ", Role.OTHER, _layout(_ABNORMAL)),
    _kind("NFZDY", Role.OTHER, _layout(_SUBSTATION, count_min=2)),
    _kind("NFZSS", Role.OTHER, _layout(_RUN_STATE)),
    _kind("NRYQY", Role.OTHER, _layout("area_type !code capacity capacity_2 name")),
    _kind("NRYJZ", Role.OTHER, _layout("!code area_type x y z location"), headers=(HEADER_RYJZ,)),
    _kind(
        "NRYSS",
        Role.OTHER,
        _layout(
            "!card name %flag time_in time_out area_type area_time station station_time shift"
            " direction distance work_state x y z flag_1 flag_2 flag_3 track spare"
        ),
    ),
    _kind("NRYCY", Role.OTHER, _layout(_OVER_COUNT)),
)

_NAMES_ONLY = (
    # Field orders not confirmed, or kinds that carry identity numbers: recognised by name.
    *("NRYXX", "NRYCS", "NRYQJ", "NRYXZ", "NJZSS", "NTJSJ", "RYYJCS"),
    *("DEV", "RTDATA", "FZDATA", "ACCDATA", "YCBJDATA", "KGBHDATA"),  # family C
    *("JBSJ", "ABSJ", "JZTT", "JCJY"),  # MT/T 1201.2
    *(
        f"{system}{what}"
        for system in ("TF", "PS", "LJ", "XJ", "KY", "JC")
        for what in ("JC", "SS", "YC")
    ),
    *("YSLCDDY", "YSLCDSS", "PSLCDDY", "PSLCDSS", "CGKCDDY", "CGKCDSS", "DBCXCDSS", "SBCDSS"),
    *("ZKYL", "ZKSS", "ZJSS", "LCSS", "DYSS"),  # rock pressure, ground sound
    *("GTXDY", "JYLDY", "BWYDY", "KSWDY", "QRXDY", "KSWSS", "JYLSS", "GTXSS", "QRXSS"),
)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *_FAMILY_A,
        *_FAMILY_B,
        *(_kind(name, Role.OTHER) for name in _NAMES_ONLY),
    )
}
"""Every known kind by its exact name. Exact: a test for "contains CDSS" would swallow SBCDSS and
YSLCDSS, which are other systems with other fields."""
