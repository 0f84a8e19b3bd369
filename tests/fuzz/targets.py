"""Everything that reads bytes of strangers, each with a corpus, its words and its promise.

A target takes one mutant and returns what became of it in one word. Anything it raises is a defect:
a codec's own error type is caught inside, so that the promise stands in one place. Files of ours
(spool, journal, recordings, configuration) are strangers too: disks rot and people edit.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import orjson
from pydantic import ValidationError

from adapters.jt808.codec import (
    EDITION_2013,
    EDITION_2019,
    Authentication,
    BulkLocation,
    Frame,
    FrameReader,
    Heartbeat,
    Location,
    PackageBudget,
    PackageLimits,
    RawMessage,
    Registration,
    decode_message,
    encode_frame,
    encode_message,
    encode_packages,
    header_for,
)
from adapters.jt808.files import RegistrationLog, read_vehicles
from adapters.jt808.mapping import samples_of, to_batch
from adapters.jt808.roster import Roster
from adapters.jt808.session import Session, SessionLimits
from adapters.mine_files.codec import (
    RECORDS_MAX,
    FileName,
    decode_file,
    encode_file,
    has_end_mark,
    parse_name,
    peek_time,
)
from adapters.mine_files.kinds import KINDS as MINE_KINDS
from adapters.mine_files.mapping import Options, View, apply, plan, to_batches
from adapters.mqtt_json import codec as json_codec
from adapters.mqtt_json.config import MqttJsonConfig
from adapters.mqtt_json.mapping import Message as JsonMessage
from adapters.mqtt_json.mapping import Translator
from adapters.mqtt_json.paths import Each, Source, Template, TopicFilter
from adapters.mqtt_json.paths import Path as JsonPath
from adapters.mqtt_json.profiles import mappings_of
from gateway.alarms import record as journal_record
from gateway.api import link, wire
from gateway.config import check
from gateway.config.point_table import read_table
from gateway.model.batch import Batch
from gateway.model.errors import ConfigError, RemoteProtocolError
from gateway.runtime.checking import kinds_of
from gateway.runtime.decoding import answer
from gateway.runtime.plugins import load_plugins
from gateway.runtime.recording import Recording
from gateway.spool import record as spool_record
from gateway.testing.alarms import make_event
from gateway.testing.fuzz import cuts

NOW = 1_785_513_700_000_000_000
PHONE = "13900000001"
ROOT = Path(__file__).resolve().parents[2]

Run = Callable[[bytes, random.Random, Path], str]


@dataclass(frozen=True)
class Target:
    """One reader of bytes."""

    name: str
    run: Run
    corpus: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    share: float = 1.0  # of the cases asked for: the slow ones do fewer


# ------------------------------------------------------------------------------------ JT/T 808


class NoCounts:
    def count(self, name: str, n: int = 1, *, reason: str = "") -> None:
        assert n >= 0
        assert len(name) < 40
        assert len(reason) < 40, f"a reason made of input: {reason!r}"


def _golden() -> list[bytes]:
    path = ROOT / "tests/adapters/jt808/golden.toml"
    cases = tomllib.loads(path.read_text("utf-8"))["frame"]
    return [bytes.fromhex(case["wire"].replace(" ", "")) for case in cases]


def _position(second: int = 0, items: bytes = b"") -> RawMessage:
    basic = Location(0, 3, 29_500_000, 106_500_000, 240, 555, 90, bytes.fromhex("260731235900"))
    body = basic.encode(EDITION_2013)
    return RawMessage(0x0200, body[:-1] + bytes((second,)) + items)


def _dialogue() -> list[bytes]:
    said = [
        Registration(EDITION_2013, 0, 0, "M", "M", "T1", 2, "测A00001"),
        Authentication("code"),
        Heartbeat(),
        _position(1, bytes.fromhex("010400001234300112")),
        BulkLocation(1, (Location(0, 3, 1, 2, 3, 4, 5, bytes.fromhex("260731235901")),) * 3),
    ]
    plain = [encode_message(m, PHONE, n, EDITION_2013) for n, m in enumerate(said)]
    parts = encode_packages(header_for(0x0704, PHONE, 9), said[-1].encode(EDITION_2013), 30)
    newer = [encode_message(m, PHONE, n, EDITION_2019) for n, m in enumerate(said)]
    return [b"".join(plain), b"".join(newer), b"".join(plain + parts)]


JT808_TOKENS = (
    b"\x7e", b"\x7e\x7e", b"\x7d", b"\x7d\x01", b"\x7d\x02", b"\x02\x00", b"\x07\x04", b"\x01\x00",
    b"\x20\x00", b"\x40\x00", b"\xff\xff\x00\x01", b"\x00\x00\x00\x00", bytes(6), b"\xf4\x00",
    b"\x13\x90\x00\x00\x00\x01", b"\x00\x1c", bytes(28), b"\x25\x04", b"\x2b\x04\xff\xff\xff\xff",
)  # fmt: skip
NEIGHBOUR = encode_message(Heartbeat(), "42", 4242, EDITION_2013)


def _jt808_frames(data: bytes, rng: random.Random, _folder: Path) -> str:
    whole = FrameReader().feed(data)
    reader = FrameReader()
    if whole != [item for part in cuts(data, rng) for item in reader.feed(part)]:
        assert any(getattr(i, "code", "") == "oversize" for i in whole) or len(data) > 4096, (
            "cutting the stream changed what it says"
        )
    outcome = "damage"
    for item in whole:
        if isinstance(item, Frame):
            outcome = _jt808_message(item)
    behind = reader.feed(b"\x7e" + NEIGHBOUR)
    last = [item for item in behind if isinstance(item, Frame)]
    assert last, "the good frame behind the damage is lost"
    assert last[-1].header.serial == 4242
    return outcome


def _jt808_message(frame: Frame) -> str:
    try:
        message = decode_message(frame.header, frame.body)
    except RemoteProtocolError as error:
        return error.code
    samples, _ = samples_of(message, NOW, 8 * 3600)
    if samples:
        batch = to_batch(samples, list(range(len(samples))), [NOW] * len(samples))
        assert len(batch) == len(samples)
    return type(message).__name__


def _jt808_repaired(data: bytes, rng: random.Random, folder: Path) -> str:
    """The mutant as the content of a frame whose length and checksum fit, so that it gets in."""
    body = data[14:1037]
    message_id = rng.choice((0x0100, 0x0102, 0x0200, 0x0704, 0x0001, 0x0005, 0x8003, 0x8100))
    edition = rng.choice((EDITION_2013, EDITION_2019))
    return _jt808_frames(encode_frame(header_for(message_id, PHONE, 1, edition), body), rng, folder)


def _jt808_session(data: bytes, rng: random.Random, _folder: Path) -> str:
    roster = Roster([], known_only=False, vehicles_max=3, new_code=lambda: "code")
    budget = PackageBudget(20_000)
    limits = SessionLimits(packages=PackageLimits(message_bytes_max=5000, parts_max=50))
    session = Session(roster, NoCounts(), limits, 0, budget=budget)
    replies, steady_ns, held = FrameReader(), 0, []
    for part in cuts(data, rng):
        steady_ns += rng.randint(0, 10**10)
        held += session.receive(part, NOW, steady_ns)
        if rng.random() < 0.7:
            for delivery in held:
                session.release(delivery)
            held = []
        session.tick(steady_ns)
        for item in replies.feed(session.take_output()):
            assert isinstance(item, Frame), "the session says what no terminal can read"
        session.close_reason(steady_ns)
        assert 0 <= budget.bytes_held <= budget.bytes_max
    session.close()
    assert budget.bytes_held == 0
    return "logged in" if session.phone else "stranger"


def _jt808_lists(data: bytes, _rng: random.Random, folder: Path) -> str:
    path = folder / "vehicles.csv"
    path.write_bytes(data)
    (folder / "registrations.jsonl").write_bytes(data)
    RegistrationLog(folder).load()
    try:
        return "vehicles" if read_vehicles(path) else "none"
    except ConfigError:
        return "refused"


# ----------------------------------------------------------------------------------- mine files

MINE = "123456789012"
TIME = "2026-07-31 23:59:59"
MINE_HEADER = {"mine_code": MINE, "mine_name": "示例煤矿", "time": TIME}
MINE_TOKENS = tuple(
    text.encode()
    for text in (
        "~", ";", "||", "‖", "^", "]]]", "；", "\ufeff", '"', "\r\n", "\x00", "未设置", "X", "null",
        TIME, "9999-99-99 99:99:99", "-9999", "1e308", "1e999", "NaN", "０", "MN", "T1", "/", "+",
        MINE, f"{MINE}010001", "ſ", "\u2028", "~" * 50, ";" * 300,
    )
)  # fmt: skip


def _mine_corpus() -> list[bytes]:
    files = []
    for kind in MINE_KINDS.values():
        if not kind.layouts:
            continue
        layout = next(iter(kind.layouts.values()))
        record = {name: f"{MINE}{n:04d}" for n, name in enumerate(layout.fields)}
        record |= {name: TIME for name in layout.fields if "time" in name}
        record |= {name: "0" for name in layout.fields if name in {"flag", "state", "leader"}}
        record |= {"value_type": "MN"} if "value_type" in record else {}
        record |= {"value": "0.32"} if "value" in record else {}
        for encoding in ("utf-8", "gb18030"):
            body = encode_file(kind.name, MINE_HEADER, [record] * 3, encoding=encoding)
            files.append(f"{kind.name}\n".encode() + body)
    return files


def _mine_files(data: bytes, rng: random.Random, _folder: Path) -> str:
    first, _, body = data.partition(b"\n")
    kind = first.decode("latin-1")
    name = FileName(MINE, kind if kind in MINE_KINDS else "CDSS", "20260731235959", "x")
    peek_time(data[:4096])
    has_end_mark(data[-64:])
    view = View()
    try:
        message = decode_file(body, name, encodings=("utf-8", "gb18030"))
        asked = plan(message, view, Options(adapter="f", points_max=50))
    except RemoteProtocolError as error:
        return error.code
    assert len(message.records) <= RECORDS_MAX
    assert len(asked.points) + len(asked.devices) <= 52, "beyond points_max, the mine's own aside"
    apply(asked, view)
    points = {point: n for n, point in enumerate(dict.fromkeys(asked.rows.point))}
    areas = {area: n for n, area in enumerate(asked.rows.area.values())}
    for batch in to_batches(asked.rows, points, areas, received_time_ns=NOW, rows_max=7):
        assert len(batch) <= 7
    for reason, _ in asked.counts:
        assert len(reason) < 40
    parse_name(data[:80].decode("latin-1"))
    return "taken" if rng.random() >= 0 and message.records else "empty"


# ------------------------------------------------------------------------------------ MQTT JSON

JSON_CORPUS = (
    b'{"device":"D1","time":"2026-07-31T23:59:59Z","values":{"pool_level":1.5,"dry_beach":60}}',
    b'{"L1_GP_1":{"2026-07-31 23:59:59":{"gpsTotalX":1.25,"gpsTotalY":"2"}}}',
    b'{"D":{"L1_LF_1":{"2026-07-31 23:59:59":"0.5"}}}',
    b'[{"v":1,"q":"0"},{"v":null},{"v":true},"x",1e999]',
    b"\x03\x00\x0b" + b'{"a":[1,2]}',
)
JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"-Infinity", b"1e999",
    b"9" * 400, b"9" * 5000, b"0.1", b"\\ud800", b"\\u0000", b'"device"', b'"time"', b'"values"',
    b"[" * 200, b'{"a":' * 40, b"\xef\xbb\xbf", b"\xff", b'"2026-13-99T99:99:99+99:99"', b"_" * 50,
)  # fmt: skip


@cache
def _translators() -> tuple[Translator, ...]:
    own = {
        "topic": "t/{dam}/#",
        "device": "{dam}",
        "point": "{dam}.{a}.{b}",
        "each": "$.{a}.{b}",
        "value": "@",
        "time": "$.time",
        "time_format": "unix_ms",
        "quality": "@.q",
        "quality_map": {"0": "good"},
        "kind": "bits",
    }
    configs = (
        MqttJsonConfig(profile="geohazard"),
        MqttJsonConfig(profile="tailings-generic"),
        MqttJsonConfig.model_validate({"mappings": [own]}),
    )
    return tuple(Translator(mappings_of(config), points_max=200) for config in configs)


def _mqtt_json(data: bytes, rng: random.Random, _folder: Path) -> str:
    try:
        body = json_codec.decode(data, wrapper=rng.choice(("none", "geohazard")))
    except RemoteProtocolError as error:
        return error.code
    outcome = "blank"
    for topic in ("$dp", "tailings/d1/telemetry", "t/d1/x", data[:20].decode("latin-1")):
        for translator in _translators():
            said = translator.translate(JsonMessage(topic, body, NOW))
            for row in said.rows:
                assert -(2**63) <= row.source_time_ns < 2**63
                assert row.quality or np.isfinite(row.value)
                outcome = "rows"
            for point in said.points:
                assert len(point.id) <= 1024, "a name without a limit"
                point.id.encode()
            assert all(len(reason) < 40 for reason, _ in said.refused)
    return outcome


PATH_CORPUS = (
    b"$.values.pool_level", b'@["a.b"][0]', b"$.{device}.{class}_{n}.{time}", b"$.channels[*]",
    b"{dam}.{$.device}", b"tailings/{dam}/telemetry/#", b"received", b"a/+/b",
)  # fmt: skip


def _mqtt_paths(data: bytes, _rng: random.Random, _folder: Path) -> str:
    text, taken = data.decode("utf-8", "replace"), []
    for parse in (JsonPath.parse, Each.parse, Template.parse, Source.parse, TopicFilter.parse):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        taken.append(parse.__qualname__)
        if isinstance(parsed, Each):
            assert sum(1 for _ in parsed.elements({"a": {"L1_GP_1": {"t": [1]}}, "b": [[2]]})) < 99
        elif isinstance(parsed, TopicFilter):
            parsed.match("tailings/d1/telemetry")
    return taken[0] if taken else "refused"


# -------------------------------------------------------------------------- spool, journal, link


def _batches() -> list[bytes]:
    batch = Batch.of(
        [0, 1, 2], [1.0, 2.0, float("nan")], [NOW] * 3, received_time_ns=NOW, quality=[0, 0, 64]
    )
    long = Batch.of(
        np.zeros(300, np.int32), np.arange(300.0), np.full(300, NOW), received_time_ns=NOW
    )
    return [spool_record.encode(7, batch), spool_record.encode(2**40, long)]


def _spool_record(data: bytes, rng: random.Random, _folder: Path) -> str:
    if rng.random() < 0.5 and len(data) > 8:  # as if the checksum were right
        data = data[:4] + struct.pack("<I", zlib.crc32(data[8:])) + data[8:]
    try:
        start, batch = spool_record.decode(data)
    except spool_record.DamagedRecord:
        return "damaged"
    assert start >= 0
    assert 0 < len(batch) <= spool_record.ROWS_MAX
    assert spool_record.encode(start, batch)[8:20] == data[8:20]
    return "whole"


def _journal_corpus() -> list[bytes]:
    return [journal_record.encode_event(make_event(gseq=number)) for number in (1, 2**40)]


def _journal_record(data: bytes, _rng: random.Random, _folder: Path) -> str:
    try:
        event = journal_record.decode_event(data)
    except journal_record.RecordError:
        return "damaged"
    assert journal_record.decode_event(journal_record.encode_event(event)) == event
    return "whole"


LINK_CORPUS = tuple(
    link.encode(frame)
    for frame in (
        link.hello("x"),
        link.Frame(link.FrameKind.REQUEST, 7, "history", b'{"point_id":"a","from_ms":0,"to_ms":9}'),
        link.Frame(link.FrameKind.REQUEST, 8, "events", b'{"after_gseq":null,"limit":10}'),
        link.Frame(link.FrameKind.REQUEST, 9, "command", b'{"kind":"ack","alarm_key":"a"}'),
        link.Frame(link.FrameKind.PUSH, 0, "values", b"{}"),
        link.error(3, "busy", "x"),
    )
)
QUERIES = {
    "alarms": wire.AlarmsQuery,
    "events": wire.EventsQuery,
    "history": wire.HistoryQuery,
    "command": wire.Command,
}


def _link(data: bytes, rng: random.Random, _folder: Path) -> str:
    decoder, outcome = link.FrameDecoder(size_max=64 * 1024), "unfinished"
    for part in cuts(data, rng):
        try:
            frames = decoder.feed(part)
        except RemoteProtocolError as error:
            return error.code
        for frame in frames:
            outcome = frame.kind.name
            try:
                link.check_hello(frame)
            except RemoteProtocolError as error:
                outcome = error.code
            for query in QUERIES.values():
                try:
                    query.model_validate_json(frame.body)
                except ValidationError:
                    continue
                outcome = query.__name__
    return outcome


# ------------------------------------------------------------ files of people: tables, recordings

TABLE_CORPUS = (
    "测点编号,名称,监测量,单位,量程,周期(s),状态\n001A01,回风T1,甲烷,%,0～4,20,0=停;1=开\n".encode(),
    b"id;name;kind;unit;range_low;range_high;interval_s\nA1;x;analog;%;0;4;20\n",
    "测点编号\t名称\t类型\n0017\t风机\t开关量\n".encode("gb18030"),
    "\ufeff某矿测点表\n\n测点编码|安装位置|单位\nB2|3101|℃\n".encode("utf-8"),
    "测点编号,周期\nA,5min\n".encode("utf-16"),
)
TABLE_TOKENS = tuple(
    text.encode()
    for text in (
        ",", ";", "\t", "|", '"', '""', "\n", "\r", "\x00", "=", '="1"', "测点编号", "量程", "周期",
        "状态", "0=停;1=开", "²=x", "9" * 5000 + "=x", "0～4", "～", "1e999", "nan", "1,000", "５秒",
        "h", "\ufeff", "\u3000", "1=" + " " * 300 + "x", "١=x",
    )
)  # fmt: skip


def _table(data: bytes, _rng: random.Random, folder: Path) -> str:
    path = folder / "points.csv"
    path.write_bytes(data)
    table = read_table(path)
    json.dumps([row.fields for row in table.rows])
    assert all(isinstance(line, int) for line, _, _ in table.faults)
    return "rows" if table.rows else "refused"


@cache
def _workbook() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.append(["测点编号", "名称", "量程", "周期"])
    sheet.append(["001A01", "回风", "0~4", 20])
    sheet.append([17.0, "风机", None, "5min"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _sheets() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_workbook())) as book:
        return [
            f"{name}\n".encode() + book.read(name)
            for name in book.namelist()
            if name.endswith(("sheet1.xml", "workbook.xml", "sharedStrings.xml", "styles.xml"))
        ]


def _xlsx(data: bytes, rng: random.Random, folder: Path) -> str:
    """One part of the workbook replaced by the mutant, or the archive itself damaged."""
    path = folder / "points.xlsx"
    name, _, body = data.partition(b"\n")
    whole = bytearray(_workbook())
    if rng.random() < 0.2:
        for _ in range(rng.randint(1, 4)):
            whole[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(whole)
    else:
        with (
            zipfile.ZipFile(io.BytesIO(whole)) as old,
            zipfile.ZipFile(path, "w") as new,
        ):
            for part in old.namelist():
                same = part.encode() == name
                new.writestr(part, body if same else old.read(part))
    table = read_table(path)
    return "rows" if table.rows else "refused"


RECORDING = b"point,time,value,quality\na,2026-01-01T00:00:00Z,0.5,good\nb,1767225601000000000,1,\n"


def _recordings() -> list[bytes]:
    import gzip

    corpus = [RECORDING, RECORDING.replace(b",", b";"), gzip.compress(RECORDING)]
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return corpus
    table = pa.table(
        {"point": ["a", "b"], "time": [NOW, NOW], "value": [1.0, None], "quality": ["good", ""]}
    )
    for write in (
        lambda out: pq.write_table(table, out),
        lambda out: _arrow(pa.ipc.new_file(out, table.schema), table),
        lambda out: _arrow(pa.ipc.new_stream(out, table.schema), table),
    ):
        out = io.BytesIO()
        write(out)
        corpus.append(out.getvalue())
    return corpus


def _arrow(writer: object, table: object) -> None:
    with writer:  # type: ignore[attr-defined]
        writer.write_table(table)  # type: ignore[attr-defined]


def _recording(data: bytes, _rng: random.Random, folder: Path) -> str:
    path = folder / "recording"
    path.write_bytes(data)
    recording = Recording(path, {"a": 0, "b": 1}.get)
    try:
        rows = sum(len(batch) for batch in recording.batches())
    except ConfigError:
        return "refused"
    list(recording.refusals.lines("x"))
    return "rows" if rows else "none"


SITE = b"""packs = ["coal-gas-2016"]
[site]
tenant = "t"
id = "s"
name = { en = "x", zh = "\xe7\x9f\xbf" }
data_dir = "data"
[[adapter]]
name = "fleet"
kind = "jt808"
port = 7808
[[adapter]]
name = "dam"
kind = "mqtt_json"
profile = "geohazard"
[[sink]]
name = "store"
kind = "duckdb"
[[point]]
id = "A1"
quantity = "methane"
unit = "%"
[[rule]]
id = "r"
kind = "limit"
priority = 1
[rule.inputs.value]
quantity = "methane"
[rule.parameters.levels.H]
limit = 1.0
"""
SITE_TOKENS = (
    b"[[adapter]]", b"[rule.inputs]", b"[a.b.c]", b'"""', b"'", b"=", b"{", b"}", b"[", b"]", b"nan",
    b"-inf", b"9" * 5000, b"1979-05-27T07:32:00Z", b"0x7f", b"true", b'"${X}"', b'"\\u0000"', b"\x00",
    b"mappings = [{topic='a',device='{',point='x'}]\n", b"packs = ['../x']\n", b"\xff", b"[" * 100,
    b"vehicles = [1]\n", b"range_low = 'x'\n", b"a." * 200, b"# \xef\xbb\xbf",
)  # fmt: skip


@cache
def _kinds() -> object:
    return kinds_of(load_plugins())


def _site(data: bytes, _rng: random.Random, folder: Path) -> str:
    path = folder / "site.toml"
    path.write_bytes(data)
    faults = check(path, _kinds(), environment={"X": "y"})  # type: ignore[arg-type]
    for fault in faults:
        str(fault)
    return "refused" if faults else "taken"


# ----------------------------------------------------------------------------- the decode command


def _lines() -> list[bytes]:
    hexes = [wire.hex().encode() for wire in _golden()]
    texts = [
        b"tailings/d1/telemetry " + JSON_CORPUS[0],
        b"$dp hex:" + JSON_CORPUS[4].hex().encode(),
    ]
    return [*hexes, *texts, *_mine_corpus()[:4]]


def _decode(data: bytes, _rng: random.Random, _folder: Path) -> str:
    text, outcome = data.decode("utf-8", "surrogateescape"), "error"
    for kind in load_kinds():
        for line in answer(kind.decoder(), text):  # type: ignore[attr-defined]
            row = orjson.loads(line)
            assert row["ok"] is True or (row["error"] and isinstance(row["detail"], str))
            outcome = "ok" if row["ok"] else outcome
    return outcome


@cache
def load_kinds() -> tuple[object, ...]:
    return tuple(kind for kind in load_plugins().adapters.values() if kind.decoder is not None)


TARGETS = (
    Target("jt808 frames", _jt808_frames, [*_golden(), *_dialogue()], JT808_TOKENS, 5.0),
    Target("jt808 bodies", _jt808_repaired, [*_golden(), *_dialogue()], JT808_TOKENS),
    Target("jt808 session", _jt808_session, _dialogue(), JT808_TOKENS),
    Target(
        "jt808 lists",
        _jt808_lists,
        [
            "phone,plate,utc_offset_h\n139,测A00001,8\n".encode(),
            b'{"phone": "1", "code": "c", "is_proven": false}\n{"phone": "1", "code": ""}\n',
        ],
        (b'"', b",", b"\n", b"\x00", b'{"phone": 1, "code": []}\n', b"nan", b"\xff", b"9" * 5000),
        0.1,
    ),
    Target("mine files", _mine_files, _mine_corpus(), MINE_TOKENS),
    Target("mqtt json", _mqtt_json, JSON_CORPUS, JSON_TOKENS),
    Target("mqtt paths", _mqtt_paths, PATH_CORPUS, (*PATH_CORPUS, b"{", b"}", b"[*]", b"*", b"_")),
    Target("spool record", _spool_record, _batches(), (b"HGB1", bytes(24))),
    Target("journal record", _journal_record, _journal_corpus(), JSON_TOKENS),
    Target("link", _link, LINK_CORPUS, (*JSON_TOKENS, b"\x00\x00\x00\x06", b"\x00\x01\x00\x00")),
    Target("point table", _table, TABLE_CORPUS, TABLE_TOKENS, 0.2),
    Target("workbook", _xlsx, _sheets(), (b"<c ", b"</row>", b'r="XFD1048576"', b"&x;"), 0.05),
    Target("recording", _recording, _recordings(), (b",", b"\n", b'"', b"PAR1", b"ARROW1"), 0.2),
    Target("site file", _site, [SITE], SITE_TOKENS, 0.05),
    Target("decode command", _decode, _lines(), (*MINE_TOKENS, *JSON_TOKENS), 0.2),
)
