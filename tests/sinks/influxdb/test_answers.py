"""Error answers a healthy server cannot be made to give, from a scripted one."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model.batch import Batch
from gateway.model.errors import Unavailable
from gateway.model.point import Point, PointTable
from gateway.sinks.influxdb import KIND
from gateway.sinks.influxdb.answers import named_lines
from gateway.testing.sinks import NOON, S, sink_context

CANARY = "canary-7c1f-secret"
LINES_MAX = 4


@dataclass
class Script:
    """What the server does: one entry for each request, then 204 for ever."""

    answers: list[tuple] = field(default_factory=list)
    poison: Callable[[str], bool] = lambda _line: False
    poison_status: int = 400
    names: str = "none"  # how the answer names the lines it refuses
    stored: dict[str, str] = field(default_factory=dict)  # line without fields -> fields
    requests: list[tuple[str, dict, int]] = field(default_factory=list)  # path, headers, lines
    let_go: threading.Event = field(default_factory=threading.Event)

    def store(self, lines: list[str]) -> int:
        """Keeps what is not poison, as InfluxDB does; returns how many were dropped."""
        dropped = 0
        for line in lines:
            if self.poison(line):
                dropped += 1
                continue
            head, fields, time_ns = line.split(" ")
            self.stored[f"{head} {time_ns}"] = fields
        return dropped


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536  # one answer, one segment

    def do_POST(self) -> None:
        script: Script = self.server.script
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        lines = body.decode().split("\n")
        script.requests.append((self.path, dict(self.headers), len(lines)))
        action, *arguments = script.answers.pop(0) if script.answers else ("store",)
        if action == "answer":
            self.answer(*arguments)
        elif action == "cut_before":
            self.close_connection = True
        elif action == "cut_after":
            script.store(lines)
            self.close_connection = True
        elif action == "hang":
            script.let_go.wait(10)
            self.close_connection = True
        else:
            poison = [number for number, line in enumerate(lines, 1) if script.poison(line)]
            dropped = script.store(lines)
            if not dropped:
                self.answer(204)
            elif script.names == "quoted":
                said = "\n".join(f"unable to parse '{lines[n - 1]}': bad number" for n in poison)
                self.answer(400, body={"error": f"partial write: {said} dropped=0"})
            elif script.names == "numbered":
                said = [
                    {"original_line": lines[n - 1][:9], "line_number": n, "error_message": "no"}
                    for n in poison[:100]
                ]
                error = "partial write of line protocol occurred"
                self.answer(400, body={"error": error, "data": said})
            elif script.poison_status == 422:
                self.answer(422, body={"code": "unprocessable entity", "message": "rejected part"})
            else:
                error = f"partial write: field type conflict: value is float dropped={dropped}"
                self.answer(400, body={"error": error})

    def answer(self, status: int, headers: dict | None = None, body: object = None) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args) -> None:
        pass


@contextmanager
def scripted(script: Script):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script = script
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        script.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()


POINTS = PointTable()
for number in range(8):
    POINTS.put(Point(f"p{number}"))


def ten_rows() -> Batch:
    return Batch.of(
        [i % 8 for i in range(10)],
        [i / 2 for i in range(10)],
        [NOON + i * S for i in range(10)],
        received_time_ns=NOON,
    )


def sink_for(url: str, tmp_path, api: str, **options):
    target = {"bucket": "b", "token": CANARY} if api == "v2" else {"database": "d"}
    if api == "v1":
        target |= {"username": "gateway", "password": CANARY}
    config = KIND.config(
        url=url,
        api=api,
        read_back=options.pop("read_back", "none"),
        lines_per_request=options.pop("lines_per_request", LINES_MAX),
        **target,
        **options,
    )
    return KIND.build_samples(config, sink_context(tmp_path, points=POINTS))


async def write_until_stored(sink, batch: Batch):
    """As the runtime does: Unavailable means the same again."""
    for _ in range(50):
        try:
            return await sink.write(batch, len(batch))
        except Unavailable:
            continue
    raise AssertionError("never stored")


APIS = pytest.mark.parametrize("api", ["v1", "v2"])


@APIS
async def test_requests_name_their_target_carry_credentials_and_few_enough_lines(
    tmp_path, api
) -> None:
    script = Script()
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, api)
        await sink.open()
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert (result.accepted, result.duplicate, len(result.rejected)) == (10, 0, 0)
    assert [lines for _, _, lines in script.requests] == [4, 4, 2]
    assert len(script.stored) == 10
    for path, headers, _ in script.requests:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        assert query["precision"] == ["ns"]
        if api == "v2":
            assert (parts.path, query["bucket"]) == ("/api/v2/write", ["b"])
            assert headers["Authorization"] == f"Token {CANARY}"
        else:
            assert (parts.path, query["db"]) == ("/write", ["d"])
            assert headers["Authorization"].startswith("Basic ")


UNAVAILABLE = [
    (("answer", 429, {"Retry-After": "7"}, {"message": "slow down"}), 7.0),
    (("answer", 503, {"Retry-After": "0"}, b"<html>busy</html>"), 0.0),
    # HTTP's other form; the sink's clock stands at 2023-11-14T22:13:20Z
    (("answer", 503, {"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT"}), 60.0),
    (("answer", 503, {"Retry-After": "soon"}), None),
    (("answer", 500, None, {"error": "timeout"}), None),
    (("answer", 502, None, b""), None),
    (("answer", 401, None, {"message": "unauthorized access"}), None),
    (("answer", 403, None, {"error": "no write access"}), None),
    (("answer", 404, None, {"error": 'database not found: "d"'}), None),
    (("answer", 400, None, {"error": "database is required"}), None),
    (("cut_before",), None),
    (("cut_after",), None),
]


@APIS
@pytest.mark.parametrize(("answer", "retry_after_s"), UNAVAILABLE, ids=lambda v: str(v)[:40])
async def test_trouble_that_is_not_the_rows_fault_sets_no_row_aside(
    tmp_path, api, answer, retry_after_s
) -> None:
    script = Script(answers=[("store",), answer])
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, api)
        await sink.open()
        with pytest.raises(Unavailable) as caught:
            await sink.write(ten_rows(), 10)
        assert caught.value.retry_after_s == retry_after_s
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert (result.accepted, len(result.rejected)) == (10, 0)
    assert len(script.stored) == 10


@APIS
async def test_a_server_that_accepts_and_never_answers_is_left_after_the_timeout(
    tmp_path, api
) -> None:
    script = Script(answers=[("hang",)])
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, api, request_timeout_s=0.1)
        await sink.open()
        with pytest.raises(Unavailable):
            await sink.write(ten_rows(), 10)
        assert (await sink.write(ten_rows(), 10)).accepted == 10
        await sink.close()


@APIS
async def test_a_server_that_is_not_there_is_unavailable(tmp_path, api) -> None:
    with scripted(Script()) as url:
        pass  # the port is free again
    sink = sink_for(url, tmp_path, api)
    await sink.open()
    with pytest.raises(Unavailable):
        await sink.write(ten_rows(), 10)
    await sink.close()


@APIS
@pytest.mark.parametrize("status", [400, 422])
async def test_poison_rows_are_named_with_the_servers_reason_and_their_neighbours_stored(
    tmp_path, api, status
) -> None:
    script = Script(poison=lambda line: "point=p3" in line, poison_status=status)
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, api)
        await sink.open()
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert result.rejected.tolist() == [3]
    assert (result.accepted, result.duplicate) == (9, 0)
    word = "field_type_conflict" if status == 400 else "refused_422"
    assert [reason.partition(":")[0] for reason in result.reasons] == [word]
    assert len(script.stored) == 9


@APIS
@pytest.mark.parametrize(("names", "word"), [("quoted", "not_parsed"), ("numbered", "refused_400")])
async def test_lines_that_the_answer_names_are_not_searched_for(tmp_path, api, names, word) -> None:
    script = Script(poison=lambda line: "point=p2" in line, names=names)
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, api, lines_per_request=10)
        await sink.open()
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert result.rejected.tolist() == [2]
    assert [reason.partition(":")[0] for reason in result.reasons] == [word]
    assert "dropped=" not in result.reasons[0]
    assert [lines for _, _, lines in script.requests] == [10, 9]
    assert len(script.stored) == 9


def many_rows(count: int) -> Batch:
    return Batch.of(
        [0] * count,
        [i / 2 for i in range(count)],
        [NOON + i * S for i in range(count)],
        received_time_ns=NOON,
    )


@pytest.mark.parametrize("names", ["none", "quoted", "numbered"])
async def test_one_poison_row_of_ten_thousand_is_set_apart_in_few_requests(tmp_path, names) -> None:
    script = Script(poison=lambda line: " value=3394.5," in line, names=names)
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, "v1", lines_per_request=5_000)
        await sink.open()
        result = await sink.write(many_rows(10_000), 10_000)
        await sink.close()
    assert (result.accepted, result.rejected.tolist()) == (9_999, [6_789])
    assert len(script.stored) == 9_999
    assert len(script.requests) <= {"none": 2 + 2 * 13, "quoted": 3, "numbered": 3}[names]


async def test_an_answer_that_names_a_hundred_of_more_is_asked_again(tmp_path) -> None:
    script = Script(poison=lambda line: ".5," in line, names="numbered")
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, "v1", lines_per_request=5_000)
        await sink.open()
        result = await sink.write(many_rows(500), 500)
        await sink.close()
    assert result.rejected.tolist() == list(range(1, 500, 2))
    assert [lines for _, _, lines in script.requests] == [500, 400, 300, 250]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":"partial write","data":[{"line_number":2,"error_message":"no"}]}', {1: "no"}),
        (b'{"error":"partial write","data":[{"line_number":4,"error_message":"no"}]}', {}),
        (b'{"error":"partial write","data":[{"line_number":0,"error_message":"no"}]}', {}),
        (b'{"error":"partial write","data":["x"]}', {}),
        (b'{"error":"partial write","data":null}', {}),
        (b"unable to parse 'b 2': bad dropped=0", {1: "bad"}),
        (
            b"{\"message\":\"unable to parse 'a 1': x\\nunable to parse 'c 3': y\"}",
            {0: "x", 2: "y"},
        ),
        (b"unable to parse 'd 4': bad", {}),
        (b"unable to parse 'a 1': bad\nunable to parse 'd 4': bad", {}),
        (b'["unable"]', {}),
        (b"\xff\xfe", {}),
        (b"", {}),
    ],
)
def test_an_answer_names_lines_that_were_sent_or_none(body, expected) -> None:
    assert named_lines(body, ["a 1", "b 2", "c 3"]) == expected


async def test_when_all_lines_of_a_request_are_dropped_nothing_is_asked_twice(tmp_path) -> None:
    script = Script(poison=lambda _line: True)
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, "v1")
        await sink.open()
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert result.rejected.tolist() == list(range(10))
    assert len(script.requests) == 3


async def test_a_request_that_is_too_large_is_sent_in_halves(tmp_path) -> None:
    script = Script(answers=[("answer", 413, None, {"error": "Request Entity Too Large"})])
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, "v1")
        await sink.open()
        result = await sink.write(ten_rows(), 10)
        await sink.close()
    assert (result.accepted, len(result.rejected)) == (10, 0)
    assert [lines for _, _, lines in script.requests] == [4, 2, 2, 4, 2]


FAULTS = st.sampled_from(
    [("store",), ("answer", 503), ("answer", 429), ("cut_before",), ("cut_after",)]
)


@pytest.mark.slow
@settings(max_examples=40)
@given(answers=st.lists(FAULTS, max_size=12), poison=st.sets(st.integers(0, 7), max_size=3))
def test_whatever_goes_wrong_the_server_ends_with_the_input_less_the_poison(
    tmp_path_factory, answers, poison
) -> None:
    import asyncio

    script = Script(
        answers=list(answers), poison=lambda line: any(f"point=p{i}," in line for i in poison)
    )
    batch = ten_rows()

    async def drive():
        sink = sink_for(url, tmp_path_factory.getbasetemp(), "v1", compression="none")
        await sink.open()
        result = await write_until_stored(sink, batch)
        await sink.close()
        return result

    with scripted(script) as url:
        result = asyncio.run(drive())
    bad = [i for i in range(10) if i % 8 in poison]
    expected = {f"sample,point=p{i % 8},site=mine-1 {NOON + i * S}" for i in range(10)}
    expected -= {f"sample,point=p{i % 8},site=mine-1 {NOON + i * S}" for i in bad}
    assert script.stored.keys() == expected
    assert result.rejected.tolist() == bad


@APIS
async def test_no_credential_is_in_an_exception_a_log_or_the_printed_configuration(
    tmp_path, api, caplog
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [("answer", 401, None, {"error": "authorization failed"}), ("cut_before",)]
    with scripted(Script(answers=answers)) as url:
        sink = sink_for(url, tmp_path, api)
        await sink.open()
        texts = [repr(sink._config), str(sink._config), sink._config.model_dump_json()]
        for _ in answers:
            with pytest.raises(Unavailable) as caught:
                await sink.write(ten_rows(), 10)
            texts.append(str(caught.getrepr(style="long", showlocals=False)))
        await sink.close()
    texts.append(caplog.text)
    assert not [text for text in texts if CANARY in text]


async def test_a_store_that_cannot_be_asked_what_it_holds_is_not_written_to_blindly(
    tmp_path,
) -> None:
    script = Script(answers=[("answer", 200, None, {"results": [{"error": "timeout"}]})])
    with scripted(script) as url:
        sink = sink_for(url, tmp_path, "v1", read_back="influxql")
        await sink.open()
        with pytest.raises(Unavailable, match="timeout"):
            await sink.write(ten_rows(), 10)
        await sink.close()
    assert script.stored == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"url": "influx:8086", "bucket": "b"}, "expected http"),
        ({"url": "http://u:p@host", "bucket": "b"}, "credentials"),
        ({"url": "http://host"}, "needs bucket"),
        ({"url": "http://host", "api": "v1", "bucket": "b"}, "needs database"),
        ({"url": "http://host", "bucket": "b", "tokens": "x"}, "tokens"),
        ({"url": "http://host", "bucket": "b", "measurement": "a\nb"}, "measurement"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_the_start(options, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        KIND.config(**options)
