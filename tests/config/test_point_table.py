"""Point tables as integrators keep them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from gateway.config import point_table
from gateway.config.headings import FIELDS, HEADINGS, plain
from gateway.config.point_table import read_table

CHINESE = """\
某矿安全监控系统测点表,,,,,,,,,
编制：某某,,,,,,,,,
,,,,,,,,,
序号,测点编号,测点名称,测点类型,监测量,单位,量程,采集周期(分钟),状态,通道
1,001A01,"3101工作面,T1",模拟量,甲烷,％CH4,0～4,1,,A-1
,,,,,,,,,
2,0017,主扇开停,开关量,,,,20s,0=停；1=开,
3,002A,温度,MN,温度,°C,-20至60,0.5,,
"""
ROWS = [
    (5, {
        "id": "001A01", "name": "3101工作面,T1", "kind": "analog", "quantity": "methane",
        "unit": "%CH4", "range_low": 0, "range_high": 4, "interval_s": 60,
        "attributes": {"通道": "A-1"},
    }),
    (7, {
        "id": "0017", "name": "主扇开停", "kind": "discrete", "interval_s": 20,
        "states": {0: "停", 1: "开"},
    }),
    (8, {
        "id": "002A", "name": "温度", "kind": "analog", "quantity": "temperature", "unit": "℃",
        "range_low": -20, "range_high": 60, "interval_s": 30,
    }),
]  # fmt: skip


def check_table(path, expected, sheet=""):
    table = read_table(path, sheet)
    assert table.faults == []
    assert [(row.line, row.fields) for row in table.rows] == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_chinese_csv_is_read_in_every_encoding_it_comes_in(tmp_path, encoding, ends):
    path = tmp_path / "测点.csv"
    path.write_bytes(CHINESE.replace("\n", ends).encode(encoding))
    check_table(path, ROWS)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_delimiters_are_noticed(tmp_path, mark):
    path = tmp_path / "points.csv"
    path.write_text(
        mark.join(["Point ID", "Unit", "Location class"]) + "\n" + mark.join(["a", "m", "T1"])
    )
    check_table(path, [(2, {"id": "a", "unit": "m", "location_class": "T1"})])


def test_a_workbook_with_merged_titles_and_numeric_codes_is_read(tmp_path):
    book = Workbook()
    cover = book.active
    cover.append(["封面", "2024"])
    sheet = book.create_sheet("测点")
    sheet.append(["某某尾矿库在线监测测点表"])
    sheet.merge_cells("A1:F1")
    sheet.append([])
    sheet.append(["测点编号", "名称", "监测量", "单位", "量程下限", "量程上限", "日期"])
    sheet.append([1001, "库水位", "库水位", "米", 0, 12.5])
    sheet.append([None, None, None])
    sheet.append([1002.0, "浸润线", "浸润线埋深", "m", None, 30])
    sheet.append(["0003", "雨量", "降雨量", "mm"])
    path = tmp_path / "points.xlsx"
    book.save(path)
    check_table(path, [
        (4, {"id": "1001", "name": "库水位", "quantity": "pool_level", "unit": "m", "range_low": 0, "range_high": 12.5}),
        (6, {"id": "1002", "name": "浸润线", "quantity": "phreatic_depth", "unit": "m", "range_high": 30}),
        (7, {"id": "0003", "name": "雨量", "quantity": "rain", "unit": "mm"}),
    ])  # fmt: skip
    check_table(path, [(row.line, row.fields) for row in read_table(path).rows], sheet="测点")


@pytest.mark.parametrize(
    ("row", "heading", "expected"),
    [
        ("a,x,,,", "低", None),
        ("a,x,,,", "Range Low", "a number"),
        ("a,,soon,,", "interval", "a number of seconds, or one with s, min or h"),
        ("a,,3 weeks,,", "interval", "a number of seconds, or one with s, min or h"),
        ("a,,,four,", "量程", "a range such as 0~100"),
        ("a,,,,open", "States", "codes and meanings such as 0=停;1=开"),
        (",1,,,", "ID", "a point id in every row that is not blank"),
    ],
)
def test_a_wrong_cell_is_a_fault_of_its_row_and_column(tmp_path, row, heading, expected):
    path = tmp_path / "points.csv"
    path.write_text(f"title\nID,Range Low,interval,量程,States\nok,1,2,0-1,0=x\n{row}\n")
    found = read_table(path).faults
    if expected is None:
        assert all(name != heading for _, name, _ in found)
    else:
        assert found == [(4, heading, expected)]


def test_the_line_of_a_row_behind_a_cell_of_two_lines_is_the_one_an_editor_shows(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text('id,name\n"a","one\ntwo"\n"b","three"\n')
    assert [(row.line, row.fields["id"]) for row in read_table(path).rows] == [(2, "a"), (4, "b")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"", "a heading row"),
        ("a.csv", b"x,y\n1,2\n", "a heading row"),
        ("a.csv", b"\xff\xff\xff\xff id", "text in UTF-8 or GB18030"),
        ("a.csv", b'id,name\n"' + b"x" * 140_000, "a CSV file"),
        ("a.xlsx", b"PK not really", "an XLSX workbook"),
        ("a.xlsx", b"", "an XLSX workbook"),
    ],
)
def test_what_is_no_table_is_one_fault_of_the_file(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    (fault,) = read_table(path).faults
    assert fault[0] == 0
    assert fault[2].startswith(expected)


def test_a_sheet_that_is_not_there_is_named_with_those_that_are(tmp_path):
    book = Workbook()
    book.save(tmp_path / "a.xlsx")
    (fault,) = read_table(tmp_path / "a.xlsx", "none").faults
    assert "none" in fault[2]
    assert "Sheet" in fault[2]


def test_no_heading_means_two_fields():
    for field, words in HEADINGS.items():
        for word in words:
            assert FIELDS[plain(word)] == field, word


@pytest.mark.slow
@given(data=st.binary(max_size=300))
def test_no_bytes_make_the_reader_raise(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    read_table(path)


@pytest.mark.slow
@given(cells=st.lists(st.lists(st.text(max_size=6), max_size=5), max_size=6))
def test_no_cells_make_the_reader_raise(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "cells.csv"
    text = "测点编号,量程,周期,状态,下限\n" + "\n".join(",".join(row) for row in cells)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read_table(path)


@pytest.mark.slow
def test_a_workbook_is_not_believed_about_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell in the far corner stands for seventeen thousand million blank ones."""
    book = Workbook()
    book.active.append(["测点编号", "名称"])
    book.active.append(["A1", "x"])
    book.active.cell(1000, 16_384, "far")
    path = tmp_path / "far.xlsx"
    book.save(path)
    assert [row.fields["id"] for row in read_table(path).rows] == ["A1"]
    monkeypatch.setattr(point_table, "ROWS_MAX", 900)
    assert read_table(path).faults == [(0, "", "a sheet of at most 900 rows")]
    monkeypatch.setattr(point_table, "UNPACKED_BYTES_MAX", 1 << 10)
    assert "unpacked" in read_table(path).faults[0][2]


DEFECTS = [
    ("a code of five thousand digits", "9" * 5000 + "=x"),
    ("digits that are none to Python", "\u00b2=x"),
    ("nothing behind the sign", "1=   "),
]


@pytest.mark.parametrize(("why", "cell"), DEFECTS)
def test_a_state_nobody_can_read_is_a_fault(tmp_path: Path, why: str, cell: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"id,states\nA,{cell}\n", "utf-8")
    assert [line for line, _, _ in read_table(path).faults] == [2], why
