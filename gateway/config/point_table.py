"""A point table (测点表) as integrators keep it: CSV or XLSX, Chinese or English, titles above.

    某矿安全监控系统测点表                       title rows, merged or not: skipped
    测点编号 | 名称   | 监测量 | 单位 | 量程      the heading row: the first with an id column
    001A01  | 回风T1 | 甲烷   | %    | 0～4
            |        |        |      |          blank rows: skipped

Codes are text: `001A01` and `0017` keep their zeros, and a code that a spreadsheet made a number of
comes back without `.0`. Columns nobody knows become attributes, by which rules can select.
Units are respelled (℃), never converted.

Nothing raises: what is wrong is a fault with the row it stands in.

Owns: reading cells and giving them their field. Not here: whether the values make sense together
(schema.PointSection).
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config import headings
from gateway.config.headings import plain

HEADING_ROWS_MAX = 30  # titles, project names and signatures stand above; nobody needs more
ROWS_MAX = 250_000
COLUMNS_MAX = 256
UNPACKED_BYTES_MAX = 512 << 20  # of a workbook: its XML is some ten times what it is packed
FILE_BYTES_MAX = 64 << 20  # a table of 200 000 points; more is another file by mistake
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*(?:~|-|–|—|至|到|\.\.)\s*({_NUMBER})\D*")
_INTERVAL = re.compile(rf"\s*({_NUMBER})\s*([a-z秒分钟小时毫]*)\s*")
_STATE = re.compile(r"\s*(-?[0-9]{1,9})\s*[=:：\-、](.+)", re.DOTALL)

Row = list[str]
Complain = Callable[[str, str], None]  # heading, what was expected


@dataclass(slots=True)
class TableRow:
    """One point as its row says: field -> value, ready for schema.PointSection."""

    line: int
    fields: dict[str, Any] = field(default_factory=dict)
    headings: dict[str, str] = field(default_factory=dict)  # field -> the column's own heading


@dataclass(slots=True)
class Table:
    """A table as read. `faults` are (line, heading, what was expected)."""

    rows: list[TableRow] = field(default_factory=list)
    faults: list[tuple[int, str, str]] = field(default_factory=list)


def read_table(path: Path, sheet: str = "") -> Table:
    """Read the file, whatever is in it."""
    table = Table()
    try:
        _check_size(path)
        if path.suffix.lower() in {".xlsx", ".xlsm"}:
            sheets = _workbook(path, sheet)
        else:
            sheets = [list(_csv_rows(path.read_bytes()))]
        _read_rows(_sheet_with_heading(sheets), table)
    except _NotATable as error:
        table.faults.append((0, "", str(error)))
    except OSError as error:
        table.faults.append((0, "", f"a file that can be read ({error.strerror})"))
    return table


class _NotATable(Exception):
    """What was expected of the file as a whole."""


def _check_size(path: Path) -> None:
    if path.stat().st_size > FILE_BYTES_MAX:
        raise _NotATable(f"a file of at most {FILE_BYTES_MAX >> 20} MiB")


def _csv_rows(data: bytes) -> Iterator[tuple[int, Row]]:
    """(line, cells); the line is where the row begins."""
    text = _decoded(data)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    line = 1
    try:
        for cells in reader:
            yield line, [_clean(cell) for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise _NotATable(f"a CSV file ({error}, near line {line})") from error


def _decoded(data: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            encodings = [encoding]
            break
    else:
        encodings = ["utf-8", "gb18030"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise _NotATable("text in UTF-8 or GB18030")


def _delimiter(text: str) -> str:
    """The one that cuts some row near the top into the most known headings."""

    def known(mark: str) -> int:
        top = text.splitlines()[:HEADING_ROWS_MAX]
        return max((len(_columns(line.split(mark))) for line in top), default=0)

    return max(",;\t|，", key=known)


def _workbook(path: Path, wanted: str) -> list[list[tuple[int, Row]]]:
    """The rows of the wanted sheet, or of every sheet."""
    # a library of some weight, needed by those who keep their points in a workbook
    from openpyxl import load_workbook  # noqa: PLC0415

    try:
        _check_unpacked_size(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions nobody asked for
            book = load_workbook(path, read_only=True, data_only=True)
            try:
                names = [wanted] if wanted else book.sheetnames
                if wanted and wanted not in book.sheetnames:
                    raise _NotATable(f"a sheet named {wanted}; there are {book.sheetnames}")
                return [list(_sheet_rows(book[name])) for name in names]
            finally:
                book.close()
    except (_NotATable, OSError):
        raise
    except Exception as error:  # the library raises whatever its parsers do
        raise _NotATable(f"an XLSX workbook ({type(error).__name__})") from error


def _sheet_rows(sheet: Any) -> Iterator[tuple[int, Row]]:
    """(row number, cells). What a sheet says of its own size is not believed: one cell at the far
    corner would be seventeen thousand million blank ones."""
    rows = sheet.iter_rows(values_only=True, max_row=ROWS_MAX + 1, max_col=COLUMNS_MAX)
    for number, cells in enumerate(rows, 1):
        if number > ROWS_MAX:
            raise _NotATable(f"a sheet of at most {ROWS_MAX} rows")
        if number <= HEADING_ROWS_MAX or any(cell is not None for cell in cells):
            yield number, [_text_of(cell) for cell in cells]


def _check_unpacked_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > UNPACKED_BYTES_MAX:
        raise _NotATable(f"a workbook of at most {UNPACKED_BYTES_MAX >> 20} MiB unpacked")


def _text_of(cell: object) -> str:
    """A cell as a person reads it: codes without the `.0` a spreadsheet gave them."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    return _clean(str(cell))


def _clean(cell: str) -> str:
    """Without the blanks, the quote and the `=` that keep a spreadsheet from counting."""
    cell = cell.replace("\u3000", " ").replace("\xa0", " ").strip()
    if cell.startswith('="') and cell.endswith('"'):
        cell = cell[2:-1]
    return cell.removeprefix("'").strip()


def _sheet_with_heading(sheets: list[list[tuple[int, Row]]]) -> list[tuple[int, Row]]:
    """From the heading row on, of the first sheet that has one."""
    for rows in sheets:
        for at, (_, cells) in enumerate(rows[:HEADING_ROWS_MAX]):
            if "id" in _columns(cells).values():
                return rows[at:]
    raise _NotATable(
        "a heading row with a column for the point id (id, 测点编号, 测点编码, …) in the first"
        f" {HEADING_ROWS_MAX} rows"
    )


def _columns(cells: list[str]) -> dict[int, str]:
    """Column -> field, of the headings that are known; the first column of a field counts."""
    found: dict[int, str] = {}
    for column, cell in enumerate(cells):
        name = headings.FIELDS.get(plain(cell))
        if name and name not in found.values():
            found[column] = name
    return found


def _read_rows(rows: list[tuple[int, Row]], table: Table) -> None:
    (_, titles), *body = rows
    columns = _columns(titles)
    for line, cells in body:
        if not any(cells):
            continue

        def complain(heading: str, expected: str, line: int = line) -> None:
            table.faults.append((line, heading, expected))

        row = TableRow(line)
        for column, cell in enumerate(cells):
            if cell and column < len(titles):
                _take(row, titles[column], columns.get(column), cell, complain)
        if "id" in row.fields:
            table.rows.append(row)
        else:
            heading = next(titles[column] for column, name in columns.items() if name == "id")
            complain(heading, "a point id in every row that is not blank")


def _take(row: TableRow, heading: str, name: str | None, cell: str, complain: Complain) -> None:
    """Put one cell where it belongs."""
    if name is None:
        if heading and plain(heading) not in headings.IGNORED:
            row.fields.setdefault("attributes", {})[heading] = cell
        return
    if name == "range":
        found = _RANGE.fullmatch(unicodedata.normalize("NFKC", cell))
        if found is None:
            complain(heading, "a range such as 0~100")
            return
        low, high = map(float, found.groups())
        row.fields.setdefault("range_low", low)
        row.fields.setdefault("range_high", high)
        return
    read = _READERS.get(name)
    value = read(cell, heading) if read else cell
    if value is None:
        complain(heading, _EXPECTED[name])
        return
    row.fields[name] = value
    row.headings[name] = heading


def _kind(cell: str, _heading: str) -> str:
    return headings.KINDS.get(plain(cell), cell.lower())


def _quantity(cell: str, _heading: str) -> str:
    return headings.QUANTITIES.get(plain(cell), cell)


def _unit(cell: str, _heading: str) -> str:
    narrow = unicodedata.normalize("NFKC", cell).replace(" ", "") if cell != "℃" else cell
    return headings.UNITS.get(narrow.lower(), narrow)


def _number(cell: str, _heading: str) -> float | None:
    try:
        return float(unicodedata.normalize("NFKC", cell).replace(",", ""))
    except ValueError:
        return None


def _interval(cell: str, heading: str) -> float | None:
    """Seconds; the unit stands in the cell, else in the heading's brackets, else it is seconds."""
    found = _INTERVAL.fullmatch(unicodedata.normalize("NFKC", cell).lower())
    if found is None:
        return None
    bracketed = re.search(r"\(([^)]*)\)", unicodedata.normalize("NFKC", heading).lower())
    unit = found.group(2) or (bracketed.group(1).strip() if bracketed else "") or "s"
    seconds = headings.SECONDS_PER.get(unit)
    return None if seconds is None else float(found.group(1)) * seconds


def _states(cell: str, _heading: str) -> dict[int, str] | None:
    states = {}
    for part in re.split(r"[;；,，\n]", cell):
        if part.strip():
            found = _STATE.fullmatch(part)
            if found is None or not found.group(2).strip():
                return None
            states[int(found.group(1))] = found.group(2).strip()
    return states


_READERS: dict[str, Callable[[str, str], Any]] = {
    "kind": _kind,
    "quantity": _quantity,
    "unit": _unit,
    "range_low": _number,
    "range_high": _number,
    "interval_s": _interval,
    "states": _states,
}
_EXPECTED = {
    "range_low": "a number",
    "range_high": "a number",
    "interval_s": "a number of seconds, or one with s, min or h",
    "states": "codes and meanings such as 0=停;1=开",
}
