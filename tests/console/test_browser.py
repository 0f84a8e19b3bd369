"""The console in a real Chromium: what an operator does, and what happens when something breaks.

What the screens say is test_browser_words.py's. The page and what fails it: conftest.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from pathlib import Path

import httpx
import pytest
import websockets
from playwright.async_api import expect

from gateway.model.rule import Priority

pytestmark = [
    pytest.mark.browser,
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        not Path(shutil.which("chromium") or "/usr/bin/chromium").exists(),
        reason="chromium is not installed",
    ),
]
METHANE = "mine.01.methane.00"
PAGES = ["/", f"/values?point={METHANE}", "/plan", "/completeness", "/system", "/api/docs"]

READY = {
    "/": ".alarm",
    "/values": ".point",
    "/plan": "#map[data-markers='20']",
    "/completeness": "#rows .line",
    "/system": "#adapters tr",
    "/api/docs": ".operation",
}


@pytest.mark.parametrize(("language", "word"), [("zh_CN", "报警"), ("en", "Alarms")])
async def test_every_page_shows_itself_whole_on_a_wall_and_on_a_phone(
    browser, site, language, word, opened
):
    site.core.raise_alarm(METHANE)
    site.core.raise_alarm("dam.freeboard.02", priority=Priority.HIGH, citation="unconfirmed")
    seen = site.core.raise_alarm("tank.03.level", priority=Priority.MEDIUM)
    site.core.clear_alarm(seen.alarm_key)
    async with opened(browser, site, language=language) as page:
        for path in PAGES:
            await page.set_viewport_size({"width": 1600, "height": 900})
            await page.goto(site.url + path)
            await expect(page.locator(READY[path.split("?")[0]]).first).to_be_visible()
            await expect(page.locator("#link-state")).to_have_class("link-state live")
            await expect(page.locator("#site-name")).to_have_text("柳沟矿业")
            await expect(page.locator(".nav a").first).to_contain_text(word)
            await page.check_layout(1600)
            await page.set_viewport_size({"width": 390, "height": 844})
            await page.check_layout(390)


async def test_an_alarm_is_on_the_wall_within_two_seconds_and_is_announced(browser, site, opened):
    async with opened(browser, site) as page:
        await expect(page.locator("#calm")).to_be_visible()
        # A low priority is shown and interrupts nobody.
        low = site.core.raise_alarm(METHANE, priority=Priority.LOW, level="L")
        await expect(page.locator("#alarms > .alarm.p4")).to_have_count(1)
        await expect(page.locator("#announcer")).to_have_text("")
        await expect(page.locator("#silence")).to_be_disabled()
        del site.core.book[low.alarm_key]
        site.core.raise_alarm(METHANE, value=1.72, limit=1.5, citation="unconfirmed")
        row = page.locator("#alarms > .alarm.p1")
        await expect(row).to_have_count(1, timeout=2000)
        await expect(page.locator("#calm")).to_be_hidden()
        for text in ("P1", "Critical", "methane limit", "1.72", "limit 1.5", "3101工作面T0",
                     "GB 51108-2015", "source unconfirmed", "unacknowledged"):  # fmt: skip
            await expect(row).to_contain_text(text)
        await expect(page.locator("#announcer")).to_contain_text("New alarm P1 Critical")
        await expect(page.locator(".tile.p1")).to_contain_text("1 unacknowledged")
        await expect(page.locator("#events li").first).to_contain_text("activated")
        assert (await page.title()).startswith("(1) ")
        await expect(page.locator("#alarms > .alarm")).to_have_count(1)


async def test_acknowledging_by_keyboard_asks_the_name_once_and_all_walls_agree(
    browser, site, opened
):
    first = site.core.raise_alarm(METHANE)
    second = site.core.raise_alarm("mine.02.methane.04", level="H")
    async with opened(browser, site) as page, opened(browser, site, language="zh_CN") as other:
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(".alarm:focus")).to_contain_text("acknowledged")
        await page.keyboard.press("a")
        await page.keyboard.press("Escape")  # without a name nothing is acknowledged
        await expect(page.locator("#operator-dialog")).to_be_hidden()
        assert site.core.commands == []
        await page.locator(".alarm").first.focus()
        await page.keyboard.press("a")
        await expect(page.locator("#operator-dialog")).to_be_visible()
        await page.keyboard.type("王芳")
        await page.keyboard.press("Enter")
        acked = page.locator(".alarm:not(.unack)")
        await expect(acked).to_have_count(1)
        await expect(acked).to_contain_text("王芳")
        await expect(other.locator(".alarm:not(.unack)")).to_contain_text("王芳")
        # The row moved down the list; the keyboard is still on a row, and goes on from there.
        assert await page.evaluate("document.activeElement.classList.contains('alarm')")
        await page.locator(".alarm.unack").focus()
        await page.keyboard.press("a")
        await expect(page.locator(".alarm.unack")).to_have_count(0)
        await expect(page.locator("#operator-dialog")).to_be_hidden()
    names = {command.operator for command in site.core.commands}
    keys = {command.alarm_key for command in site.core.commands}
    assert (names, keys) == ({"王芳"}, {first.alarm_key, second.alarm_key})


async def test_an_alarm_that_got_worse_meanwhile_is_not_acknowledged_unseen(browser, site, opened):
    alarm = site.core.raise_alarm(METHANE)
    async with opened(browser, site) as page:
        await page.evaluate("localStorage.setItem('operator', '王芳')")
        await expect(page.locator(".alarm")).to_have_count(1)
        # The wall is held at what it shows while the core goes on.
        site.served._push = _nothing
        site.core.escalate_alarm(alarm.alarm_key)
        await page.locator(".ack").click()
        await expect(page.locator("#toast")).to_contain_text("has changed since you saw it")
        page.wrong[:] = [text for text in page.wrong if "409" not in text]
    assert not site.core.book[alarm.alarm_key].acknowledged


async def test_an_alarm_that_ends_leaves_the_wall_and_focus_stays_on_it(browser, site, opened):
    keys = [
        site.core.raise_alarm(f"mine.0{n}.methane.04", priority=Priority.HIGH).alarm_key
        for n in (1, 2, 3)
    ]
    async with opened(browser, site) as page:
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(".alarm.selected")).to_have_count(1)
        gone = await page.locator(".alarm:focus").get_attribute("data-key")
        del site.core.book[gone]
        site.core.clear_alarm(next(key for key in keys if key != gone))
        await expect(page.locator(".alarm")).to_have_count(2)
        assert await page.evaluate("document.activeElement.classList.contains('alarm')")


async def _nothing(_topic: str) -> None:
    """A core that hangs: its socket is open, nothing comes."""


async def test_a_frozen_core_is_shown_in_red_and_live_again_without_a_reload(browser, site, opened):
    async with opened(browser, site) as page:
        await expect(page.locator("#calm strong")).to_have_text("No standing alarms")
        site.served._push = _nothing
        await expect(page.locator("#banner")).to_be_visible(timeout=9000)
        await expect(page.locator("#banner")).to_contain_text("No data from the gateway's core")
        await expect(page.locator("#banner")).to_contain_text("ago.")
        await expect(page.locator("body")).to_have_class("stale")
        # "No alarms" is a statement about the plant: it is taken back.
        await expect(page.locator("#calm strong")).to_have_text("Unknown: no data")
        opacity = await page.locator(".wall").evaluate("e => getComputedStyle(e).opacity")
        assert float(opacity) < 1
        del site.served._push
        await expect(page.locator("#banner")).to_be_hidden(timeout=4000)
        await expect(page.locator("body")).not_to_have_class("stale")
        assert page.navigation_count == 1


async def test_a_cut_socket_comes_back_by_itself_and_misses_no_event(browser, site, opened):
    async with opened(browser, site) as page:
        site.core.raise_alarm(METHANE)
        await expect(page.locator("#events li")).to_have_count(1)
        for connection in list(site.web.server_state.connections):
            connection.transport.abort()
        # More than one alarm frame carries: the page has to ask for what it missed.
        for point in list(site.core.table)[:50]:
            site.core.raise_alarm(point.id, priority=Priority.LOW, level="L")
        await expect(page.locator("#events li")).to_have_count(51)
        assert page.navigation_count == 1


async def test_values_are_patched_in_place_and_filtered(browser, site, opened):
    async with opened(browser, site, "/values") as page:
        row = page.locator(f".point[data-id='{METHANE}']")
        await expect(row).to_be_visible()
        await row.evaluate("e => { window.kept = e; }")
        first = await row.locator(".number b").inner_text()
        await expect(row.locator(".number b")).not_to_have_text(first)
        assert await row.evaluate("e => e === window.kept")
        bad = page.locator(".point[data-id='mine.02.methane.08']")
        await expect(bad).to_contain_text("bad · sensor fault")
        await expect(bad.locator(".number b")).to_have_text("—")
        await expect(page.locator(".point[data-id='tank.12.level']")).to_contain_text(
            "no sample yet"
        )
        await page.keyboard.press("/")
        await page.keyboard.type("methane 3203")
        await expect(page.locator(".point")).to_have_count(5)
        await page.locator("select[name=quality]").select_option("other")
        await expect(page.locator(".point")).to_have_count(1)
        await page.locator("select[name=area]").select_option("罐区")
        await expect(page.locator("#none")).to_be_visible()


async def test_a_trend_opens_by_keyboard_reads_history_and_grows_live(browser, site, opened):
    async with opened(browser, site, "/values") as page:
        await expect(page.locator(".point").first).to_be_visible()
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.locator("[data-minutes='15']").click()
        await expect(page.locator(".trend-note")).to_contain_text("stored samples")
        chart = page.locator("#chart")
        await expect(chart.locator("canvas")).to_be_visible()
        before = int(await chart.get_attribute("data-points"))
        assert before >= 600
        await expect(chart).not_to_have_attribute("data-points", str(before), timeout=4000)
        assert "point=" in page.url
        site.core.history_down = True
        await page.locator("[data-minutes='60']").click()
        await expect(page.locator(".trend-note")).to_contain_text("No history")
        await expect(page.locator(".trend-now b")).not_to_have_text("—")
        page.wrong[:] = [text for text in page.wrong if "503" not in text]
        await page.keyboard.press("Escape")
        await expect(page.locator("#trend")).to_be_hidden()


async def test_vehicles_move_and_one_in_alarm_is_first_on_the_list(browser, site, opened):
    async with opened(browser, site, "/plan") as page:
        await expect(page.locator("#map")).to_have_attribute("data-markers", "20")
        await expect(page.locator("#vehicles li")).to_have_count(20)
        site.core.raise_alarm("veh-07.vehicle_speed", priority=Priority.HIGH)
        first = page.locator("#vehicles li").first
        await expect(first).to_contain_text("测A·D0007")
        await expect(first).to_contain_text("in alarm")
        assert await page.locator(".leaflet-tile-pane img").count() == 0


async def test_the_system_page_shows_each_adapter_sink_and_the_road(browser, site, opened):
    async with opened(browser, site, "/system") as page:
        await expect(page.locator("#adapters tr")).to_have_count(3)
        faulty = page.locator("#adapters tr", has_text="dam-mqtt")
        await expect(faulty).to_contain_text("faulty")
        await expect(faulty).to_contain_text("connection refused")
        await expect(page.locator("#sinks tr", has_text="centre-mqtt")).to_contain_text("8,412")
        durable = page.locator("#road li").nth(1).locator("b")
        before = await durable.inner_text()
        await expect(durable).not_to_have_text(before)
        await expect(page.locator("#spool")).to_contain_text("20 ms")


async def test_the_completeness_page_says_who_was_not_seen_since_when_and_why(
    browser, site, opened
):
    async with opened(browser, site, "/completeness") as page:
        line = page.locator("#rows .line")
        silent = line.filter(has_text="mine.01.temperature.03")
        await expect(silent).to_contain_text("the device was silent; last seen")
        await expect(silent).to_contain_text("3 h 10 min ago")
        await expect(silent.locator("svg.strip rect.gap-device_silent").first).to_be_visible()
        await expect(line.first).to_contain_text("came too late")
        await expect(page.locator("#reasons")).to_contain_text("this gateway was not running")
        await expect(page.locator("#consumers")).to_contain_text("stored by store")
        samples = await page.locator("#samples").inner_text()  # and what may still come, apart
        got, due = (int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", samples)[:2])
        share = float((await page.locator("#share").inner_text()).removesuffix("%"))
        assert share == pytest.approx(100 * got / due, abs=0.01), samples
        before = await line.count()
        await page.locator("#filters [name=points]").fill("dam")
        await expect(line.filter(has_text="mine.01")).to_have_count(0)
        assert 0 < await line.count() < before
        await page.locator("#filters [name=points]").fill("")
        await page.locator("#filters [name=by]").select_option("area")
        await expect(line.first).to_contain_text("points")
        await page.locator("[data-hours='1']").click()
        await expect(page.locator("[data-hours='1']")).to_have_attribute("aria-pressed", "true")


async def test_sound_is_armed_by_a_click_and_silenced_until_the_next_alarm(browser, site, opened):
    async with opened(browser, site) as page:
        sound, silence = page.locator("#sound"), page.locator("#silence")
        await expect(sound).to_contain_text("Sound off")
        await sound.click()
        await expect(sound).to_have_attribute("aria-pressed", "true")
        site.core.raise_alarm(METHANE)
        await expect(silence).to_have_class("tool sounding")
        await page.keyboard.press("m")
        await expect(silence).to_be_disabled()
        await expect(page.locator(".alarm.unack")).to_have_count(1)  # silence acknowledges nothing
        site.core.raise_alarm("mine.03.methane.04")
        await expect(silence).to_have_class("tool sounding")


async def test_the_language_is_switched_on_the_spot_and_kept(browser, site, opened):
    async with opened(browser, site, "/system") as page:
        await page.locator("#language").click()
        await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        assert page.url.endswith("/system")
        await expect(page.locator("#link-state")).to_have_class("link-state live")
        await page.keyboard.press("1")
        await expect(page.locator(".nav a[aria-current]")).to_contain_text("报警")
        await page.keyboard.press("?")
        await expect(page.locator("#help-dialog")).to_contain_text("仅表示有人已看到")


async def test_the_policy_stops_injected_code(browser, site, opened):
    async with opened(browser, site) as page:
        await page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.injected = true";
                document.head.append(script);
                const image = document.createElement("img");
                image.setAttribute("onerror", "window.injected = true");
                image.src = "/static/none.png";
                document.body.append(image);
            }"""
        )
        await asyncio.sleep(0.1)
        assert await page.evaluate("window.injected") is None
        assert any("Content Security Policy" in text for text in page.wrong)
        page.wrong.clear()


async def test_a_name_that_looks_like_code_is_shown_as_text(browser, site, opened):
    hostile = "<img src=x onerror=alert(1)>"
    async with opened(browser, site) as page:
        await page.evaluate("name => localStorage.setItem('operator', name)", hostile)
        site.core.raise_alarm(METHANE)
        await page.locator(".ack").click()
        await expect(page.locator(".alarm .state small")).to_contain_text(hostile)


# ------------------------------------------------------------------ the socket itself


ORIGINS = [("same", True), ("http://evil.example", False), (None, False)]


@pytest.mark.parametrize(("origin", "welcome"), ORIGINS)
async def test_the_socket_is_for_pages_of_this_console_only(site, origin, welcome):
    url = site.url.replace("http://", "ws://") + "/ws"
    connecting = websockets.connect(
        url, origin=site.url if origin == "same" else origin, proxy=None
    )
    if welcome:
        async with connecting as socket, asyncio.timeout(3):
            topics = {str(await socket.recv()).split('"')[3] for _ in range(4)}
        assert topics == {"link", "status", "values", "alarms"}
        return
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        async with connecting:
            pass
    assert refused.value.response.status_code == 403


async def test_twenty_browsers_get_the_same_bytes_and_the_page_still_answers_at_once(site):
    url = site.url.replace("http://", "ws://") + "/ws"
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(websockets.connect(url, origin=site.url, proxy=None))
            for _ in range(20)
        ]

        async def next_values(socket) -> str:
            while True:
                text = await socket.recv()
                if text.startswith('{"topic":"values"'):
                    return text

        async with asyncio.timeout(5):
            await asyncio.gather(*(next_values(socket) for socket in sockets))
            frames = await asyncio.gather(*(next_values(socket) for socket in sockets))
        assert len(set(frames)) == 1
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            assert (await client.get(site.url + "/api/link")).json()["connected"]
