"""A recording is read whatever it is packed in; what cannot be used is named by line and reason."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from gateway.model.batch import Batch
from gateway.model.errors import ConfigError
from gateway.model.quality import Quality
from gateway.runtime import recording as module
from gateway.runtime.recording import Recording

pa = pytest.importorskip("pyarrow")
S = 1_000_000_000
T0 = 1_767_225_600 * S
POINTS = {"a": 0, "b": 1}


def read(path: Path) -> tuple[Batch, Recording]:
    recording = Recording(path, POINTS.get)
    return Batch.concat(recording.batches()), recording


def csv(tmp_path: Path, text: str | bytes, name: str = "x.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(batch: Batch) -> list[tuple[int, int, float, int]]:
    return [
        (p, t - T0, v, q)
        for p, t, v, q in zip(
            batch.point_index.tolist(), batch.source_time_ns.tolist(), batch.value.tolist(),
            batch.quality.tolist(), strict=True,
        )
    ]  # fmt: skip


PLAIN = "point,time,value,quality\na,2026-01-01T00:00:00Z,0.5,good\nb,1767225601000000000,1,\n"
WANTED = [(0, 0, 0.5, 0), (1, S, 1.0, 0)]
SPELLINGS = {
    "as it is": PLAIN,
    "byte order mark": "\ufeff" + PLAIN,
    "windows line ends": PLAIN.replace("\n", "\r\n"),
    "no newline at the end": PLAIN.rstrip("\n"),
    "blank lines": PLAIN.replace("\nb", "\n\n\nb"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "quoted": PLAIN.replace("0.5", '"0.5"').replace("a,", '"a",'),
    "other order and case": "Value, TIME ,Point\n0.5,2026-01-01T00:00:00Z,a\n1,1767225601000000000,b\n",
    "more columns": "x,point,time,y,value\n1,a,2026-01-01T00:00:00Z,2,0.5\n,b,1767225601000000000,,1\n",
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_spelling_of_csv_makes_no_difference(text: str, tmp_path: Path) -> None:
    batch, recording = read(csv(tmp_path, text))
    assert rows(batch) == WANTED
    assert recording.row_count == 2
    assert recording.refusals.total == 0
    np.testing.assert_array_equal(batch.received_time_ns, batch.source_time_ns)


def test_columns_that_are_not_ours_are_told_once(tmp_path: Path) -> None:
    _, recording = read(csv(tmp_path, SPELLINGS["more columns"]))
    assert recording.notes == [f"{recording.path}: columns left alone: x, y"]


QUALITIES = [
    ("good", 0), ("Uncertain", 64), ("BAD", 128), ("bad_sensor_fault", 132), ("132", 132), ("", 0),
    ("UNCERTAIN_CALIBRATING", 66),
]  # fmt: skip


@pytest.mark.parametrize(("word", "code"), QUALITIES)
def test_a_quality_is_a_name_in_any_case_or_its_number(
    word: str, code: int, tmp_path: Path
) -> None:
    batch, _ = read(csv(tmp_path, f"point,time,value,quality\na,{T0},1,{word}\n"))
    assert batch.quality.tolist() == [code]


@pytest.mark.parametrize(
    ("value", "quality", "code"),
    [("", "", Quality.BAD_NO_VALUE), ("nan", "good", Quality.BAD_NO_VALUE),
     ("", "bad_not_polled", Quality.BAD_NOT_POLLED), ("null", "uncertain", Quality.BAD_NO_VALUE)],
)  # fmt: skip
def test_a_sample_without_a_value_is_bad_and_keeps_its_own_reason(
    value: str, quality: str, code: int, tmp_path: Path
) -> None:
    batch, _ = read(csv(tmp_path, f"point,time,value,quality\na,{T0},{value},{quality}\n"))
    assert batch.quality.tolist() == [code]
    assert np.isnan(batch.value).all()


REFUSALS = [
    ("a,yesterday,1,good", "2: time 'yesterday' is neither RFC 3339"),
    (f"a,{T0},one,good", "2: value 'one' is no number"),
    (f"a,{T0},1_0,good", "2: value '1_0' is no finite number"),
    (f"a,{T0},inf,good", "2: value 'inf' is no finite number"),
    (f"a,{T0},1,splendid", "2: quality 'splendid' is neither good"),
    (f"a,{T0},1,192", "2: quality '192' is neither good"),
    (f",{T0},1,good", "2: no point"),
    (f"a,{T0}", "2: 2 fields, 4 are needed"),
    (f"c,{T0},1,good", "2: point 'c' is not known to this site: 1 rows"),
    (f'a,{T0},"1"x,good', "2: not CSV"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSALS)
def test_a_row_that_cannot_be_used_is_named_and_the_next_one_goes_on(
    line: str, reason: str, tmp_path: Path
) -> None:
    path = csv(tmp_path, f"point,time,value,quality\n{line}\nb,{T0},2,good\n")
    batch, recording = read(path)
    assert rows(batch) == [(1, 0, 2.0, 0)]
    assert recording.refusals.total == 1
    assert recording.row_count == 2
    (told,) = recording.refusals.lines("f.csv")
    assert told.startswith(f"f.csv:{reason}")


def test_many_refused_rows_are_counted_and_the_first_few_named(tmp_path: Path) -> None:
    body = "".join(f"a,{T0},x\n" for _ in range(12)) + "".join(
        f"q{i % 30},{T0},1\n" for i in range(90)
    )
    _, recording = read(csv(tmp_path, "point,time,value\n" + body))
    told = list(recording.refusals.lines("f"))
    assert recording.refusals.total == 102
    assert told[5] == "f: value not usable: 7 more rows"
    assert told[6] == "f:14: point 'q0' is not known to this site: 3 rows"
    assert told[-1] == "f: 10 more points are not known: 30 rows"


NO_RECORDING = {
    "empty": b"",
    "no such columns": b"name,when,what\n1,2,3\n",
    "one column missing": b"point,time,quality\na,1,good\n",
    "a column twice": b"point,time,value,Time\na,1,1,1\n",
    "cut off gzip": gzip.compress(PLAIN.encode() * 100, mtime=0)[:-30],
    "cut off parquet": b"PAR1" + b"\x00" * 40,
    "cut off arrow": b"ARROW1\x00\x00" + b"\x00" * 40,
}


@pytest.mark.parametrize("data", NO_RECORDING.values(), ids=NO_RECORDING.keys())
def test_a_file_that_is_no_recording_says_what_was_expected(data: bytes, tmp_path: Path) -> None:
    path = csv(tmp_path, data, "x.bin")
    with pytest.raises(ConfigError, match=str(path)):
        read(path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a readable file"):
        read(tmp_path / "none.csv")


# ---------------------------------------------------------------------- Parquet and Arrow


def table(**columns: object) -> object:
    return pa.table(columns)


TIMES = {
    "integers": pa.array([T0, T0 + S], pa.int64()),
    "text": pa.array(["2026-01-01T00:00:00Z", "2026-01-01T08:00:01+08:00"]),
    "micros in UTC": pa.array([T0 // 1000, (T0 + S) // 1000], pa.timestamp("us", tz="UTC")),
    "nanos elsewhere": pa.array([T0, T0 + S], pa.timestamp("ns", tz="Asia/Shanghai")),
    "no zone": pa.array([T0 // S, T0 // S + 1], pa.timestamp("s")),
}
TYPES = {
    "plain": (pa.array(["a", "b"]), pa.array([0.5, 1.0]), pa.array(["good", ""])),
    "dictionary": (
        pa.array(["a", "b"]).dictionary_encode(), pa.array([0.5, 1.0], pa.float32()),
        pa.array(["GOOD", None]).dictionary_encode(),
    ),
    "numbers": (
        pa.array(["a", "b"], pa.large_string()), pa.array(["0.5", "1"]), pa.array([0, None], pa.uint8()),
    ),
}  # fmt: skip


def packed(kind: str, data: object, path: Path) -> None:
    if kind == "parquet":
        pa.parquet.write_table(data, path)
    elif kind == "file":
        with pa.ipc.new_file(path, data.schema) as writer:
            writer.write_table(data)
    elif kind == "stream":
        with pa.ipc.new_stream(path, data.schema) as writer:
            writer.write_table(data)
    else:
        buffer = io.BytesIO()
        pa.parquet.write_table(data, buffer)
        path.write_bytes(gzip.compress(buffer.getvalue()))


@pytest.fixture(autouse=True)
def _parquet_loaded() -> None:
    pa.parquet = pytest.importorskip("pyarrow.parquet")
    pa.ipc = pytest.importorskip("pyarrow.ipc")


@pytest.mark.parametrize("kind", ["parquet", "file", "stream", "gzip"])
@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES.keys())
def test_a_columnar_file_says_the_same_as_csv(kind: str, types: tuple, tmp_path: Path) -> None:
    path = tmp_path / "x"
    point, value, quality = types
    packed(kind, table(other=[1, 2], value=value, quality=quality, point=point,
                       time=TIMES["integers"]), path)  # fmt: skip
    batch, recording = read(path)
    assert rows(batch) == WANTED
    assert recording.notes == [f"{path}: columns left alone: other"]


@pytest.mark.parametrize("time", TIMES.values(), ids=TIMES.keys())
def test_a_columnar_time_is_read_whatever_its_type(time: object, tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed("parquet", table(point=["a", "b"], time=time, value=[0.5, 1.0]), path)
    assert rows(read(path)[0]) == WANTED


def test_a_columnar_row_that_cannot_be_used_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed(
        "stream",
        table(
            point=["a", None, "c", "b", "b", "b", "a"],
            time=pa.array([T0, T0, T0, None, T0, T0, T0], pa.int64()),
            value=[1.0, 1.0, 1.0, 1.0, float("inf"), None, 1.0],
            quality=["good", "good", "good", "good", "good", "good", "odd"],
        ),
        path,
    )
    batch, recording = read(path)
    assert batch.point_index.tolist() == [0, 1]
    assert batch.quality.tolist() == [0, Quality.BAD_NO_VALUE]
    assert recording.refusals.total == 5
    assert sorted(line.split(":")[1] for line in recording.refusals.lines("x")) == list("23457")


def test_an_empty_columnar_file_is_a_recording_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "x"
    packed("file", table(point=pa.array([], pa.string()), time=pa.array([], pa.int64()),
                         value=pa.array([], pa.float64())), path)  # fmt: skip
    batch, recording = read(path)
    assert len(batch) == 0
    assert recording.row_count == 0


def test_without_pyarrow_csv_is_read_and_the_rest_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    packed("parquet", table(point=["a"], time=[T0], value=[1.0]), path)

    def gone(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(module.importlib, "import_module", gone)
    assert rows(read(csv(tmp_path, PLAIN))[0]) == WANTED
    with pytest.raises(ConfigError, match="pyarrow"):
        read(path)


def arrow_stream() -> bytes:
    out = io.BytesIO()
    table = pa.table({"point": ["a"], "time": [T0], "value": [1.0], "quality": ["good"]})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


DAMAGED = [  # found by tests/fuzz
    ("a gzip whose codes are none", gzip.compress(PLAIN.encode(), mtime=0)[:10] + b"\xcc" * 40),
    ("a column's name that is no text", arrow_stream().replace(b"quality", b"qu\xfe\xfflit")),
]


@pytest.mark.parametrize(("why", "data"), DAMAGED)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, why: str, data: bytes) -> None:
    with pytest.raises(ConfigError):
        read(csv(tmp_path, data))
