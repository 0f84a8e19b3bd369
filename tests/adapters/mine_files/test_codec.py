"""Bytes ↔ messages: golden files, every cut, every quirk seen, and laws by hypothesis."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mine_files.codec import (
    RECORDS_MAX,
    decode_file,
    decode_text,
    encode_file,
    encode_name,
    format_time,
    has_end_mark,
    parse_name,
    parse_time,
    peek_time,
    stamp_time,
)
from adapters.mine_files.kinds import KINDS, Check
from gateway.model.errors import LocalProtocolError, RemoteProtocolError

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(path for path in GOLDEN.iterdir() if "B001" not in path.name)
NAME = parse_name("999901000123_CDSS_20260115080000.txt")
TIME_NS = 1_768_435_200 * 10**9  # 2026-01-15T00:00:00Z, 08:00 in China
HEADER = {"mine_code": "999901000123", "mine_name": "示例煤矿", "time": "2026-01-15 08:00:00"}
RECORD = {
    "code": "99990100012301MN0001001A01",
    "type_name": "环境瓦斯",
    "location": "3101工作面T1",
    "value": "0.32",
    "unit": "%CH4",
    "state": "0",
    "time": "2026-01-15 07:59:50",
}
CDSS = encode_file("CDSS", HEADER, [RECORD, RECORD | {"code": "99990100012301KG1003001D05"}])
BODY = CDSS.decode()


def check_same(data: bytes, *, encodings=("utf-8",)) -> None:
    """However it is wrapped, the file says what CDSS says."""
    message = decode_file(data, NAME, encodings=encodings)
    assert message.header == HEADER
    assert message.time_ns == TIME_NS
    assert [record.named() for record in message.records] == [
        RECORD,
        RECORD | {"code": "99990100012301KG1003001D05"},
    ]
    assert message.faults == []


def check_refused(code: str, data: bytes, name=NAME, **options) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_file(data, name, **options)
    assert caught.value.code == code


def check_one_fault(extra: str, field: str, expected: str) -> None:
    """One bad record between two good ones costs only itself, and says where it stood."""
    first, second, third, end = BODY.split("~")
    message = decode_text(f"{first}~{second}~{extra}~{third}~{end}", "CDSS")
    assert [record.number for record in message.records] == [1, 3]
    fault = message.faults[0]
    assert (fault.number, fault.field, fault.raw) == (2, field, extra)
    assert expected in fault.expected
    assert message.bad_share == pytest.approx(1 / 3)


# ---------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_golden_file_is_read_without_fault_and_written_again_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()
    message = decode_file(data, parse_name(path.name))
    assert message.faults == []
    assert message.warnings == {}
    assert message.records
    assert message.time_ns == TIME_NS
    again = encode_file(
        message.kind.name, message.header, [record.named() for record in message.records]
    )
    assert again == data


GOLDEN_FIELDS = [
    # kind, record, fields that an order off by one would miss
    (
        "CDDY",
        0,
        {
            "sensor_type": "0001",
            "range_high": "4",
            "alarm_high": "1.00",
            "alarm_high_release": "0.99",
            "cut_high": "1.50",
            "restore_high": "0.99",
            "location": "3101工作面T1",
        },
    ),
    (
        "CDDY",
        1,
        {"value_type": "KG", "on_text": "风筒有风", "off_text": "风筒无风", "relation": ""},
    ),
    ("CDSS", 1, {"value": "36", "unit": "ppm", "state": "1"}),
    ("FZSS", 0, {"run": "0", "power": "1"}),
    ("TJSJ", 0, {"max": "0.41", "min": "0.28", "average": "0.33"}),
    (
        "YCBJ",
        1,
        {"type": "007", "max": "2.00", "min": "0.30", "average": "1.02", "entered_by": "张某"},
    ),
    ("RYQY", 0, {"area_type": "重点区域", "capacity": "30", "name": "3101综采工作面"}),
    ("RYJZ", 0, {"code": "9999010001230007000120", "location": "3101运顺口"}),
    (
        "RYXX",
        0,
        {"job": "采煤机司机", "post": "班长", "team": "综采一队", "leader": "0", "special": "1"},
    ),
    (
        "RYSS",
        0,
        {
            "flag": "1",
            "area": "9999010001230007",
            "distance": "-3.50",
            "work_state": "正常",
            "special": "1",
        },
    ),
    ("RYSS", 1, {"flag": "2", "time_out": "2026-01-15 07:50:00", "leader": "1", "track": ""}),
    ("JZSS", 1, {"code": "9999010001230001000010", "run": "1", "power": "9"}),
    ("RYCY", 0, {"capacity": "2", "present": "3", "cards": "99990100012310042&99990100012310043"}),
]


@pytest.mark.parametrize(("kind", "number", "fields"), GOLDEN_FIELDS)
def test_fields_stand_where_the_format_puts_them(kind: str, number: int, fields: dict) -> None:
    name = f"999901000123_{kind}_20260115080000.txt"
    message = decode_file((GOLDEN / name).read_bytes(), parse_name(name))
    record = message.records[number]
    assert {key: record.get(key) for key in fields} == fields


def test_the_head_count_of_the_mine_stands_in_the_longer_header_of_the_people() -> None:
    name = "999901000123_RYXX_20260115080000.txt"
    message = decode_file((GOLDEN / name).read_bytes(), parse_name(name))
    assert message.header["capacity"] == "500"
    assert message.header["maker"] == "示例厂家"


def test_a_snapshot_in_the_frame_of_another_family_is_refused_by_its_header() -> None:
    name = "999901B0012000200001_RYSS_20260115080000.txt"
    check_refused("header", (GOLDEN / name).read_bytes(), parse_name(name))


# ------------------------------------------------------------------------------------ whole or cut


def test_a_file_cut_at_any_byte_is_unfinished_and_never_half_taken() -> None:
    for size in range(len(CDSS)):
        check_refused("incomplete", CDSS[:size])
    check_same(CDSS)


def test_a_file_cut_inside_a_character_is_unfinished_not_foreign() -> None:
    cut = CDSS.index("示".encode()) + 1
    check_refused("incomplete", CDSS[:cut])
    check_refused("incomplete", CDSS[:cut], encodings=("utf-8", "gb18030"))


def test_a_file_with_its_successor_behind_it_loses_only_the_record_where_they_meet() -> None:
    """What an appending sender makes: the seam is one bad record, the rest is read."""
    message = decode_file(CDSS + CDSS, NAME)
    assert len(message.records) == 4
    assert message.fault_count == 1


WRAPPED = [
    ("byte order mark", b"\xef\xbb\xbf" + CDSS),
    ("quotes of a JSON string", b'"' + CDSS + b'"'),
    ("both", b'\xef\xbb\xbf"' + CDSS + b'"\n'),
    ("line breaks after each mark", CDSS.replace(b"~", b"~\r\n") + b"\r\n"),
    ("blanks around segments", CDSS.replace(b"~", b" ~ ")),
    ("lines broken anywhere", CDSS[:40] + b"\r\n" + CDSS[40:]),
    ("the full-width end mark", BODY.replace("||", "‖").encode()),
    ("no record mark before the end", BODY.replace("~||", "||").encode()),
    ("empty records", BODY.replace("~", "~~").encode()),
    ("one empty field more in each record", BODY.replace("07:59:50", "07:59:50;").encode()),
    ("one empty field more in the header", BODY.replace("08:00:00", "08:00:00;").encode()),
]


@pytest.mark.parametrize("data", [data for _, data in WRAPPED], ids=[name for name, _ in WRAPPED])
def test_wrapping_seen_in_the_field_changes_nothing(data: bytes) -> None:
    check_same(data)


def test_another_encoding_is_refused_unless_configured() -> None:
    foreign = BODY.encode("gb18030")
    check_refused("encoding", foreign)
    check_same(foreign, encodings=("utf-8", "gb18030"))
    assert decode_file(foreign, NAME, encodings=("utf-8", "gb18030")).encoding == "gb18030"
    check_same(CDSS, encodings=("utf-8", "gb18030"))


def test_header_and_end_mark_alone_are_an_empty_file() -> None:
    message = decode_file(encode_file("CDSS", HEADER, []), NAME)
    assert message.records == []
    assert message.bad_share == 0


# ---------------------------------------------------------------------------------- bad records

GOOD = BODY.split("~")[1]
BAD_RECORDS = [
    ("a;b", "", "7 fields, not 2"),
    (GOOD.rsplit(";", 1)[0], "", "7 fields, not 6"),
    (GOOD.replace(";", "；"), "", "full-width"),
    (GOOD.replace("0.32;", "0.32；"), "", "full-width"),
    (GOOD.replace("99990100012301MN0001001A01", ""), "code", "a code"),
    (GOOD.replace("99990100012301MN", "9999 0100012301MN"), "code", "a code"),
    (GOOD.replace("99990100012301MN", "9999/0100012301MN"), "code", "a code"),
    (GOOD.replace("07:59:50", "07:59"), "time", "yyyy-MM-dd"),
    (GOOD.replace("2026-01-15", "2026-02-30"), "time", "yyyy-MM-dd"),
    (GOOD.replace("2026-01-15 07:59:50", ""), "time", "yyyy-MM-dd"),
]


@pytest.mark.parametrize(("extra", "field", "expected"), BAD_RECORDS)
def test_a_bad_record_costs_only_itself(extra: str, field: str, expected: str) -> None:
    check_one_fault(extra, field, expected)


def test_more_fields_than_known_are_kept_raw_and_counted() -> None:
    message = decode_text(BODY.replace("07:59:50~", "07:59:50;new;fields~"), "CDSS")
    assert [list(record.extras) for record in message.records] == [["new", "fields"]] * 2
    assert message.warnings == {"extra_fields": 2}
    assert message.faults == []


def test_absent_trailing_coordinates_of_a_substation_are_no_fault() -> None:
    message = decode_text("999901000123;矿;2026-01-15 08:00:00~99990100012300001;井底~||", "FZDY")
    assert message.records[0].get("location") == "井底"
    assert message.records[0].get("z") == ""


def test_the_two_layouts_of_base_stations_are_told_by_their_length() -> None:
    head = "999901000123;矿;2026-01-15 08:00:00~"
    older, trailing, newer = (
        decode_text(f"{head}{body}~||", "RYJZ").records[0]
        for body in ("S1;名;1;2;3;口", "S1;名;1;2;3;口;", "S1;19;1;2;3;口;2026-01-15 07:00:00")
    )
    assert older.get("name") == trailing.get("name") == "名"
    assert newer.get("name") == ""
    assert newer.get("area_type") == "19"


def test_faults_beyond_a_thousand_are_counted_and_not_kept() -> None:
    message = decode_text(BODY.replace("~||", "~" + "x~" * 5000 + "||"), "CDSS")
    assert message.fault_count == 5000
    assert len(message.faults) == 1000


def test_a_file_of_more_records_than_any_mine_has_is_refused() -> None:
    check_refused("too_many_records", BODY.replace("~||", "~" * RECORDS_MAX + "||").encode())


# ---------------------------------------------------------------------------------------- header


@pytest.mark.parametrize(
    "header",
    [
        "",
        "999901000123",
        "999901000123;矿",
        "999901000123;矿;2026-01-15",
        ";矿;2026-01-15 08:00:00",
        "999901000123;矿;2026-13-15 08:00:00",
        "999902000999;矿;2026-01-15 08:00:00",
    ],
)
def test_a_header_without_mine_or_time_or_of_another_mine_fails_the_file(header: str) -> None:
    check_refused("header", f"{header}~{GOOD}~||".encode())


def test_an_unknown_header_is_read_from_both_ends() -> None:
    text = f"999901000123;矿;new;fields;2026-01-15 08:00:00~{GOOD}~||"
    message = decode_text(text, "CDSS")
    assert message.time_ns == TIME_NS
    assert message.header == HEADER | {"mine_name": "矿"}


@pytest.mark.parametrize("kind", ["RTDATA", "NRYXX", "TFSS", "NEVERSEEN"])
def test_a_kind_without_a_field_order_is_refused_not_guessed(kind: str) -> None:
    check_refused("kind", CDSS, parse_name(f"999901000123_{kind}_20260115080000.txt"))


# ------------------------------------------------------------------------------------ names, times

NAMES = [
    ("999901000123_CDSS_20260115080000.txt", ("999901000123", "CDSS")),
    ("999901000123_CDSS_20260115080000123.txt", ("999901000123", "CDSS")),
    ("999901000123999999_CDSS_20260115080000.txt", ("999901000123999999", "CDSS")),
    ("999901B0012000200001_RYSS_20260115080000.txt", ("999901B0012000200001", "RYSS")),
    ("999901000123_CDSS_20260115080000_0042.txt", ("999901000123", "CDSS")),
    ("999901000123_CDSS_20260115080000.TXT", ("999901000123", "CDSS")),
    ("999901000123_CDSS_20260115080000.txt.tmp", None),
    ("999901000123_CDSS_20260115080000.filepart", None),
    (".999901000123_CDSS_20260115080000.txt", None),
    ("999901000123_cdss_20260115080000.txt", None),
    ("999901000123-CDSS-20260115080000.txt", None),
    ("12345678_CDSS_20260115080000.txt", None),
    ("999901000123_CDSS_2026.txt", None),
    ("999901000123_CDSS_20260115080000.txt\n", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), NAMES)
def test_names_are_known_by_their_shape_and_not_by_their_length(text: str, expected) -> None:
    name = parse_name(text)
    assert (None if name is None else (name.mine_code, name.kind)) == expected


TIMES = [
    ("2026-01-15 08:00:00", TIME_NS),
    ("2026-01-15/08:00:00", TIME_NS),
    ("2026-01-15 08:00:00.250", TIME_NS + 250_000_000),
    ("2000-01-01 08:00:00", 946_684_800 * 10**9),
    ("2024-02-29 23:59:59", 1_709_222_399 * 10**9),
    ("2026-02-29 00:00:00", None),
    ("2026-01-15 24:00:00", None),
    ("2026-01-15 08:60:00", None),
    ("1970-01-01 00:00:00", None),
    ("9999-12-31 00:00:00", None),
    ("2026-1-15 8:00:00", None),
    ("２０２６-01-15 08:00:00", None),
    ("xxxx-xx-xx xx:xx:xx", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), TIMES)
def test_times_are_china_time(text: str, expected: int | None) -> None:
    assert parse_time(text) == expected


def test_the_order_time_is_found_in_the_first_bytes_of_any_encoding() -> None:
    assert peek_time(CDSS[:200]) == TIME_NS
    assert peek_time(BODY.encode("gb18030")[:200]) == TIME_NS
    assert peek_time(CDSS[:20]) is None
    assert peek_time(b"") is None
    assert peek_time(b"x;later~") is None
    assert peek_time(b"x^2026-01-15 08:00:00~") is None
    assert stamp_time("2026") is None
    assert stamp_time("20260115080000123") == TIME_NS
    assert stamp_time("20261315080000") is None


@pytest.mark.parametrize("tail", [b"~||", b"~||\r\n", b'~||" ', b"^]]]", "~‖".encode()])
def test_an_end_mark_is_seen_through_what_may_follow_it(tail: bytes) -> None:
    assert has_end_mark(tail)
    assert not has_end_mark(tail + b"x")


# ---------------------------------------------------------------------------------------- encoding

REFUSED_TEXT = ["a;b", "a~b", "a||b", "a；b", "a\nb", "a‖b"]


@pytest.mark.parametrize("text", REFUSED_TEXT)
def test_the_encoder_refuses_text_the_format_cannot_carry(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_file("CDSS", HEADER, [RECORD | {"location": text}])


def test_the_encoder_refuses_fields_and_kinds_it_does_not_know() -> None:
    for kind, header, record in [
        ("CDSS", HEADER, {"nonsense": "1"}),
        ("CDSS", HEADER | {"nonsense": "1"}, RECORD),
        ("RTDATA", HEADER, {}),
    ]:
        with pytest.raises(LocalProtocolError):
            encode_file(kind, header, [record])


KIND_NAMES = sorted(name for name, kind in KINDS.items() if kind.layouts)
CODES = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=28)
SECONDS = st.integers(946_684_800, 4_000_000_000)
TEXTS = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters=';~^；‖]|"\ufeff'
    ),
    max_size=12,
).map(str.strip)


@st.composite
def files(draw):
    kind = KINDS[draw(st.sampled_from(KIND_NAMES))]
    values = {
        Check.ID: CODES,
        Check.TIME: SECONDS.map(lambda second: format_time(second * 10**9)),
        Check.VALUE_TYPE: st.sampled_from(["MN", "KG", "LJ", "DT"]),
        Check.FLAG: st.sampled_from(["0", "1", "2"]),
    }
    layout = draw(st.sampled_from(sorted(kind.layouts.values(), key=lambda one: len(one.fields))))
    checks = dict(layout.checks)
    record = st.fixed_dictionaries(
        {name: values[checks[i]] if i in checks else TEXTS for i, name in enumerate(layout.fields)}
    ).filter(lambda fields: any(fields.values()))
    header = {name: draw(TEXTS) for name in draw(st.sampled_from(sorted(kind.headers.values())))}
    header |= {"mine_code": draw(CODES), "time": format_time(draw(SECONDS) * 10**9)}
    return kind.name, layout, header, draw(st.lists(record, max_size=4))


@given(files())
def test_what_is_written_is_read_again(file) -> None:
    kind, layout, header, records = file
    if len(layout.fields) - 1 in KINDS[kind].layouts or len(KINDS[kind].layouts) > 1:
        # With two layouts in the table the writer takes the first that has all fields.
        records = [r for r in records if all(r.values())]
    message = decode_text(encode_file(kind, header, records).decode(), kind)
    assert dict(message.header) == header
    assert message.faults == []
    assert [record.named() for record in message.records] == records


FRAGMENTS = st.sampled_from(
    [
        b"~",
        b";",
        b"||",
        b"]]]",
        b"^",
        b'"',
        b"\xef\xbb\xbf",
        b"\r\n",
        "；".encode(),
        "‖".encode(),
        b"999901000123",
        b"2026-01-15 08:00:00",
        b"\xff",
        b"\x00",
        GOOD.encode(),
        b"-9999",
    ]
)


@given(
    st.sampled_from(KIND_NAMES),
    st.one_of(st.binary(max_size=60), st.lists(FRAGMENTS, max_size=30).map(b"".join)),
    st.booleans(),
)
def test_no_bytes_raise_anything_but_a_protocol_error(kind: str, data: bytes, ends: bool) -> None:
    name = parse_name(f"999901000123_{kind}_20260115080000.txt")
    head = b"999901000123;x;2026-01-15 08:00:00~"
    with contextlib.suppress(RemoteProtocolError):
        whole = head + data + b"||" if ends else data
        message = decode_file(whole, name, encodings=("utf-8", "gb18030"))
        assert message.fault_count == len(message.faults)


@given(SECONDS)
def test_a_time_written_is_the_time_read(second: int) -> None:
    time_ns = second * 10**9
    assert parse_time(format_time(time_ns)) == time_ns
    name = parse_name(encode_name("999901000123", "CDSS", time_ns))
    assert stamp_time(name.stamp) == time_ns
