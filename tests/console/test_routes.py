"""Pages, API and door over ASGI, with a real link to a fake core behind them."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.api import wire
from gateway.api.client import LinkClient
from gateway.api.completeness import Completeness
from gateway.api.server import LinkServer
from gateway.console import guard
from gateway.console.app import build_app
from gateway.console.settings import ConsoleSettings
from gateway.model.quality import Quality
from gateway.testing.core import FakeCore

BASE = "http://127.0.0.1:8808"
SAME = {"sec-fetch-site": "same-origin"}
PAGES = ["/", "/values", "/plan", "/completeness", "/system", "/api/docs"]


@asynccontextmanager
async def site(core: FakeCore | None, **settings):
    """An HTTP client of the console; without a core when None."""
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        path = Path(folder) / "core.sock"
        link = LinkClient(path)
        app = build_app(link, ConsoleSettings(**settings))
        server = LinkServer(path, core) if core else None
        if server:
            await server.start()
        transport = httpx.ASGITransport(app)
        try:
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url=BASE) as client,
            ):
                async with asyncio.timeout(3):
                    while core and len(link.newest) < 3:
                        await asyncio.sleep(0.002)
                yield client
        finally:
            if server:
                await server.close()


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_opens_without_a_core_in_both_languages(path):
    async with site(None) as client:
        chinese = await client.get(path)
        english = await client.get(path, headers={"accept-language": "en-GB,zh;q=0.5"})
    assert chinese.status_code == english.status_code == 200
    assert '<html lang="zh-CN"' in chinese.text
    assert '<html lang="en"' in english.text
    assert "值班员" in chinese.text
    assert "值班员" not in english.text


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_has_inline_code_or_an_address_elsewhere(path):
    async with site(None) as client:
        html = (await client.get(path)).text
    for forbidden in ("http://", "https://", " style=", "onclick=", "javascript:", "<style"):
        assert forbidden not in html, forbidden
    assert "<script>" not in html


async def test_the_chosen_language_is_remembered_and_only_own_pages_are_gone_back_to():
    async with site(None) as client:
        back = await client.get("/language/en?back=/values")
        assert (back.status_code, back.headers["location"]) == (303, "/values")
        assert '<html lang="en"' in (await client.get("/")).text
        for hostile in ("//evil.example", "https://evil.example/", "/\\evil.example", "x"):
            answer = await client.get("/language/en", params={"back": hostile})
            assert answer.headers["location"] == "/"
        assert (await client.get("/language/fr")).status_code == 404
        assert (await client.get("/messages/fr.js")).status_code == 404


async def test_the_modules_get_the_whole_catalogue_and_english_needs_none():
    async with site(None) as client:
        chinese = (await client.get("/messages/zh_CN.js")).text
        assert (await client.get("/messages/en.js")).text == "export default {};\n"
    assert chinese.startswith("export default {")
    assert '"Acknowledge":"确认"' in chinese


async def test_a_page_that_does_not_exist_says_so_as_page_or_as_json():
    async with site(None) as client:
        page, api = await client.get("/nowhere"), await client.get("/api/nowhere")
    assert page.status_code == api.status_code == 404
    assert "没有这个页面" in page.text
    assert api.json() == {"detail": "Not Found"}


# ------------------------------------------------------------------ API


async def test_every_answer_has_the_shape_openapi_promises(core):
    core.raise_alarm("mine.01.methane.00")
    async with site(core) as client:
        shapes = {
            "/api/link": wire.LinkState,
            "/api/status": wire.Status,
            "/api/points": wire.PointsFrame,
            "/api/values": wire.ValuesFrame,
            "/api/values/mine.01.methane.00": wire.ValueRow,
            "/api/history?point_id=dam.rain.03&from_ms=1700000000000&to_ms=1700000060000": wire.HistoryBuckets,
            "/api/alarms": wire.AlarmsFrame,
            "/api/events": wire.EventsPage,
        }
        described = (await client.get("/api/openapi.json")).json()["paths"]
        for path, shape in shapes.items():
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"] == "application/json"
            shape.model_validate_json(answer.content)
        assert {p.split("{")[0] for p in described} >= {p.split("?")[0] for p in shapes} - {
            "/api/values/mine.01.methane.00"
        }


async def test_one_value_tells_its_quality_in_words(core):
    core.bad = {"dam.rain.03": Quality.BAD_COMMUNICATION}
    async with site(core) as client:
        bad = (await client.get("/api/values/dam.rain.03")).json()
        never = (await client.get("/api/values/tank.12.level")).json()
        assert (await client.get("/api/values/nobody")).status_code == 404
    assert (bad["value"], bad["grade"], bad["reason"]) == (None, "bad", "communication")
    assert never["source_time_ms"] is None


async def test_points_are_sent_once_per_version(core):
    async with site(core) as client:
        first = await client.get("/api/points")
        again = await client.get("/api/points", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        core.table.put(core.table[0].__class__("new.point"))
        changed = await client.get("/api/points", headers={"if-none-match": first.headers["etag"]})
        assert changed.json()["points"][-1]["id"] == "new.point"


async def test_the_list_can_be_cut_and_events_read_from_where_one_left(core):
    for point in list(core.table)[:5]:
        core.raise_alarm(point.id)
    async with site(core) as client:
        cut = (await client.get("/api/alarms?limit=2")).json()
        assert (len(cut["alarms"]), cut["total_count"]) == (2, 5)
        later = (await client.get("/api/events?after_gseq=3&limit=10")).json()["events"]
        assert [event["gseq"] for event in later] == [4, 5]


NONSENSE = [
    ("/api/events?limit=0", 422),
    ("/api/alarms?limit=-1", 422),
    ("/api/history?point_id=dam.rain.03&from_ms=10&to_ms=10", 422),
    ("/api/history?point_id=dam.rain.03&from_ms=0&to_ms=99999999999999999999", 422),
    ("/api/history?point_id=nobody&from_ms=0&to_ms=10", 404),
]


@pytest.mark.parametrize(("path", "status"), NONSENSE)
async def test_nonsense_is_told_apart_from_absence(core, path, status):
    async with site(core) as client:
        assert (await client.get(path)).status_code == status


@pytest.mark.parametrize("path", ["/api/status", "/api/values", "/api/points", "/api/alarms"])
async def test_without_a_core_the_answer_is_503_and_never_empty_data(path):
    async with site(None) as client:
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json()["detail"]
        assert (await client.get("/api/link")).json()["connected"] is False


async def test_a_store_that_is_away_is_503(core):
    core.history_down = True
    async with site(core) as client:
        path = "/api/history?point_id=dam.rain.03&from_ms=0&to_ms=1000"
        assert (await client.get(path)).status_code == 503


# ------------------------------------------------------------------ acknowledge


def body_for(alarm, operator: str = "王芳") -> dict:
    return {"operator": operator, "token": wire.token(alarm)}


async def test_an_acknowledgement_reaches_the_core_with_its_name_and_may_be_repeated(core):
    alarm = core.raise_alarm("mine.01.methane.00")
    path = f"/api/alarms/{alarm.alarm_key}/acknowledge"
    async with site(core) as client:
        done = await client.post(path, json=body_for(alarm, " 王芳 "), headers=SAME)
        assert (done.status_code, done.json()["code"]) == (200, "done")
        assert core.book[alarm.alarm_key].acknowledged_by == "王芳"
        stale = await client.post(path, json=body_for(alarm), headers=SAME)
        assert (stale.status_code, stale.json()["code"]) == (409, "stale")


async def test_who_has_not_seen_the_new_level_cannot_acknowledge_it(core):
    seen = core.raise_alarm("mine.01.methane.00")
    core.escalate_alarm(seen.alarm_key)
    async with site(core) as client:
        answer = await client.post(
            f"/api/alarms/{seen.alarm_key}/acknowledge", json=body_for(seen), headers=SAME
        )
    assert answer.status_code == 409
    assert not core.book[seen.alarm_key].acknowledged


async def test_an_unknown_alarm_is_404_and_no_core_is_503(core):
    body = {"operator": "王芳", "token": "1:1"}
    async with site(core) as client:
        assert (
            await client.post("/api/alarms/x/acknowledge", json=body, headers=SAME)
        ).status_code == 404
    async with site(None) as client:
        assert (
            await client.post("/api/alarms/x/acknowledge", json=body, headers=SAME)
        ).status_code == 503


WRONG_BODIES = [
    {"token": "1:1"},
    {"operator": "", "token": "1:1"},
    {"operator": "   ", "token": "1:1"},
    {"operator": "x" * 65, "token": "1:1"},
    {"operator": "王芳"},
    {"operator": "王芳", "token": "1:1", "role": "admin"},
]


@pytest.mark.parametrize("body", WRONG_BODIES)
async def test_an_acknowledgement_without_a_person_or_a_token_never_reaches_the_core(core, body):
    async with site(core) as client:
        answer = await client.post("/api/alarms/x/acknowledge", json=body, headers=SAME)
    assert answer.status_code == 422
    assert core.commands == []


# ------------------------------------------------------------------ the door


FOREIGN = [
    {},  # neither header: not a page of ours
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"sec-fetch-site": "cross-site", "origin": BASE},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_command_from_elsewhere_is_refused_before_anything_reads_it(core, headers):
    alarm = core.raise_alarm("mine.01.methane.00")
    async with site(core) as client:
        answer = await client.post(
            f"/api/alarms/{alarm.alarm_key}/acknowledge", json=body_for(alarm), headers=headers
        )
    assert answer.status_code == 403
    assert core.commands == []


async def test_a_script_on_the_box_may_name_its_origin(core):
    alarm = core.raise_alarm("mine.01.methane.00")
    async with site(core) as client:
        answer = await client.post(
            f"/api/alarms/{alarm.alarm_key}/acknowledge",
            json=body_for(alarm),
            headers={"origin": BASE},
        )
    assert answer.status_code == 200


HOSTS = [
    ("127.0.0.1:8808", 200),
    ("10.1.2.3", 200),
    ("[::1]:8808", 200),
    ("localhost:1", 200),
    ("LOCALHOST", 200),
    ("console.mine.example", 200),
    ("evil.example", 400),
    ("127.0.0.1.evil.example", 400),
    ("console.mine.example.evil.example", 400),
    ("[bad", 400),
    ("", 400),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
async def test_a_rebound_name_is_not_served(host, status):
    async with site(None, allowed_hosts=("console.mine.example",)) as client:
        assert (await client.get("/", headers={"host": host})).status_code == status


async def test_a_large_or_endless_body_is_refused(core):
    async with site(core) as client:
        large = await client.post(
            "/api/alarms/x/acknowledge",
            content=b"x" * (guard.BODY_SIZE_MAX + 1),
            headers=SAME,
        )

        async def endless():
            yield b"x"

        chunked = await client.post("/api/alarms/x/acknowledge", content=endless(), headers=SAME)
    assert (large.status_code, chunked.status_code) == (413, 411)


@pytest.mark.parametrize(
    "path", ["/", "/api/link", "/static/console.css", "/nowhere", "/api/status"]
)
async def test_every_answer_carries_the_policy(path):
    async with site(None) as client:
        answer = await client.get(path)
        refused = await client.get(path, headers={"host": "evil.example"})
    for response in (answer, refused):
        for name, value in guard.HEADERS.items():
            assert response.headers[name] == value
    assert "unsafe" not in guard.POLICY
    assert answer.headers["cache-control"] == ("no-cache" if "static" in path else "no-store")


async def test_nothing_of_the_framework_s_own_pages_is_served():
    async with site(None) as client:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await client.get(path)).status_code == 404


def test_a_console_without_its_browser_libraries_does_not_start(monkeypatch, tmp_path):
    monkeypatch.setattr("gateway.console.app.STATIC", tmp_path)
    with pytest.raises(FileNotFoundError, match="web_libs"):
        build_app(LinkClient(tmp_path / "core.sock"))


# ------------------------------------------------------------------ completeness


async def test_completeness_balances_and_has_the_worst_first(core):
    to_ms = core.now_ns() // 60_000_000_000 * 60_000
    span = {"from_ms": to_ms - 3_600_000, "to_ms": to_ms, "bins": 12, "limit": 3}
    async with site(core) as client:
        response = await client.get("/api/completeness", params=span)
        areas = (await client.get("/api/completeness", params=span | {"by": "area"})).json()
    body = Completeness.model_validate_json(response.content)
    assert (len(body.edges_ms), len(body.rows)) == (13, 3)
    assert body.row_count > 3
    assert [row.online_rate for row in body.rows] == sorted(row.online_rate for row in body.rows)
    assert body.rows[0].main_reason in {"device_silent", "late", "bad_quality"}
    for row in (body.total, *body.rows):
        assert row.due == row.got + sum(row.gaps.values())
        assert row.minutes_due == row.minutes_online + sum(row.dark.values())
        assert sum(got for _, got, _ in row.strip) == row.got
        rows = sum(row.counted[name] for name in ("good", "bad", "repeat"))
        for consumer in row.consumers:
            assert consumer.has + sum(consumer.missing.values()) == rows
    assert sum(row["due"] for row in areas["rows"]) <= body.total.due


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"from_ms": 60_000, "to_ms": 60_000}, 422),
        ({"from_ms": 0, "to_ms": 500 * 86_400_000}, 422),
        ({"from_ms": 0, "to_ms": 60_000, "by": "colour"}, 422),
        ({"from_ms": 0}, 422),
        ({"from_ms": 0, "to_ms": 60_000, "limit": 1000, "bins": 400}, 422),
    ],
)
async def test_a_completeness_question_that_makes_no_sense_is_refused(core, query, status):
    async with site(core) as client:
        assert (await client.get("/api/completeness", params=query)).status_code == status


async def test_a_ledger_that_is_not_open_is_503(core):
    core.ledger_down = True
    async with site(core) as client:
        response = await client.get("/api/completeness", params={"from_ms": 0, "to_ms": 60_000})
    assert response.status_code == 503
    assert "not open" in response.json()["detail"]
