"""What an operator reads: names in place of numbers, values as they are now, the law as it is cited.

The plant is the fake core's with what the demo has beside it: a mine's areas, a person, a vehicle
whose plate is foreign text.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.model.alarm import Alarm
from gateway.model.point import Device, Point, PointKind
from gateway.model.quality import Quality
from gateway.model.rule import Priority
from gateway.testing.core import CENTRE

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
S = 1_000_000_000
AREA, VEHICLE, PERSON = "9999010001230008", "v13900000011", "p0001"
SPEED = f"{VEHICLE}.speed"
WHERE = f"{PERSON}.area"
WORD = f"{VEHICLE}.alarm"
HOSTILE = "<img src=x onerror=alert(1)>"


def add_people_and_vehicles(core, *, plate: str = "测A00011") -> None:
    table = core.table
    table.put_device(Device(AREA, "area", "3102掘进工作面"))
    table.put_device(Device(VEHICLE, "vehicle", plate))
    table.put_device(Device(PERSON, "person", "测试0001"))
    table.put(Point(WHERE, PointKind.AREA, "personnel_area", name="测试0001", device=PERSON))
    for kind, name, unit in (
        (PointKind.LON, "lon", "°"),
        (PointKind.LAT, "lat", "°"),
        (PointKind.SPEED, "speed", "km/h"),
        (PointKind.BITS, "alarm", "bits"),
    ):
        table.put(Point(f"{VEHICLE}.{name}", kind, unit=unit, name=name, device=VEHICLE))


def play(core, values: dict[str, float], *, age_s: float = 0.0) -> None:
    """From now on these points have these values, `age_s` old."""
    usual = core.values

    def values_now():
        live = usual()
        for point_id, value in values.items():
            row = core.table.index(point_id)
            live.value[row], live.quality[row] = value, 0
            live.source_time_ns[row] = live.time_ns - int(age_s * S)
        return live

    core.values = values_now


def raise_as(core, raised_by: str, **facts) -> Alarm:
    """An alarm with these facts in its row; the same in its event."""
    alarm = replace(core.raise_alarm(raised_by), **facts)
    core.book[alarm.alarm_key] = alarm
    core.journal[-1] = replace(core.journal[-1], alarm=alarm)
    return alarm


async def call(page, module: str, function: str, *arguments):
    """A function of the page's own modules."""
    return await page.evaluate(
        "async ([m, f, a]) => (await import(`/static/js/${m}.js`))[f](...a)",
        [module, function, list(arguments)],
    )


async def test_an_alarm_names_the_area_the_plate_and_the_point_with_the_id_small(
    browser, site, opened
):
    core = site.core
    add_people_and_vehicles(core)
    core.bad["dam.freeboard.02"] = Quality.BAD_COMMUNICATION
    raise_as(core, METHANE, target=AREA, point_id="", area=AREA, location="", unit="人",
             level="OVER", display_name="3102掘进工作面", value=28.0, limit=19.2)  # fmt: skip
    raise_as(core, SPEED, display_name="车速", value=87.0, limit=80.0)
    async with opened(browser, site) as page:
        crowded = page.locator(".alarm", has_text="too many people")
        await expect(crowded.locator(".where > span").first).to_have_text("3102掘进工作面")
        await expect(crowded.locator("code")).to_have_text(AREA)
        await expect(crowded.locator(".reading")).to_contain_text("28people")
        await expect(crowded.locator(".reading")).to_contain_text("when raised")
        speeding = page.locator(f".alarm[data-key^='{SPEED}']")
        await expect(speeding.locator(".where > span").first).to_have_text("测A00011 · 车速")
        await expect(speeding.locator("code")).to_have_text(SPEED)
        await expect(page.locator("#events small", has_text="测A00011")).to_have_count(1)
        await expect(page.locator("#events small", has_text="3102掘进工作面")).to_have_count(1)
        await expect(page.locator("#events small", has_text=AREA)).to_have_count(0)


async def test_the_reading_of_an_alarm_is_the_present_one_and_says_when_it_is_not(
    browser, site, opened
):
    core = site.core
    play(core, {METHANE: 0.42})
    raise_as(core, METHANE, value=1.07, peak=1.72, level="HH", limit=1.5)
    silent = raise_as(core, "mine.02.methane.04", rule_kind="offline", level="OFFLINE",
                      value=None, peak=None, limit=10.0, unit="s")  # fmt: skip
    # An escalated alarm was raised at its first level: that value is below the limit it shows.
    lost = raise_as(core, "mine.02.methane.08", value=1.07, peak=1.72, limit=1.5)
    async with opened(browser, site) as page:
        row = page.locator(f".alarm[data-key^='{METHANE}']")
        await expect(row.locator(".reading b")).to_have_text("0.42")
        await expect(row.locator(".reading small")).to_have_text("limit 1.5 · worst 1.72")
        row = page.locator(f".alarm[data-key='{lost.alarm_key}']")
        await expect(row.locator(".reading b")).to_have_text("1.72")
        await expect(row.locator(".reading small")).to_contain_text("worst so far")
        play(core, {METHANE: 0.42, silent.point_id: 0.4}, age_s=95.0)
        row = page.locator(f".alarm[data-key='{silent.alarm_key}']")
        await expect(row.locator(".reading b")).to_have_text("1 min 35 s")
        await expect(row.locator(".reading small")).to_have_text("without data · limit 10 s")
        row = page.locator(f".alarm[data-key^='{METHANE}']")
        await expect(row.locator(".reading small")).to_contain_text("1 min 35 s ago")
        play(core, {silent.point_id: 0.41})
        core.clear_alarm(silent.alarm_key)
        row = page.locator(f".alarm[data-key='{silent.alarm_key}']")
        await expect(row.locator(".reading b")).to_have_text("0.41")
        await expect(row.locator(".unit")).to_have_text("%CH4")


SOURCES = [
    (("GB 50863-2013", "2013", "8.3.5", "unconfirmed"), "GB 50863-2013 clause 8.3.5"),
    (("GB 39496-2020, GB 50863-2013", "2020", "表 4.2.1", "confirmed"),
     "GB 39496-2020, GB 50863-2013 表 4.2.1"),
    (("AQ 1029", "2019", "6.2", "confirmed"), "AQ 1029-2019 clause 6.2"),
    (("煤矿安全规程", "2016 (2022)", "第498条 表18", "confirmed"), "煤矿安全规程 2016 (2022) 第498条 表18"),
    (("AQ 1029-2019", "", "", "confirmed"), "AQ 1029-2019"),
    (("", "", "", "site"), "rule of the site"),
    (("", "", "", "engineering"), "rule of the gateway"),
]  # fmt: skip


async def test_a_standard_is_cited_with_its_year_once(browser, site, opened):
    async with opened(browser, site) as page:
        for (standard, edition, clause, confidence), expected in SOURCES:
            citation = {
                "standard": standard,
                "edition": edition,
                "clause": clause,
                "confidence": confidence,
            }
            assert await call(page, "words", "sourceOf", citation) == expected


READINGS = [
    ({"kind": "discrete", "states": {"1": "有风"}}, 1, "有风"),
    ({"kind": "discrete", "states": {"1": "有风"}}, 7, "7"),
    ({"kind": "bits", "states": {}}, 0, "none set"),
    ({"kind": "bits", "states": {"1": "超速"}}, 6, "超速, bit 2"),
    ({"kind": "bits", "states": {}}, 2**51, "bit 51"),
    ({"kind": "area", "states": {}}, -1, "in no area"),
    ({"kind": "area", "states": {}}, 9999, "9,999"),
    ({"kind": "analog", "states": {}, "unit": "m"}, 0.5, "0.5"),
]


async def test_codes_bits_and_areas_are_read_by_their_names(browser, site, opened):
    add_people_and_vehicles(site.core)
    play(site.core, {WHERE: float(site.core.table.device_index(AREA)), WORD: 3.0})
    async with opened(browser, site, "/values") as page:
        await expect(page.locator(f".point[data-id='{WHERE}'] .number")).to_have_text(
            "3102掘进工作面"
        )
        await expect(page.locator(f".point[data-id='{WORD}'] .number")).to_have_text("bit 0, bit 1")
        for point, value, expected in READINGS:
            assert await call(page, "plant", "reading", point, {"value": value}) == expected


async def test_what_is_measured_comes_first_people_last_and_alarms_before_all(
    browser, site, opened
):
    add_people_and_vehicles(site.core)
    site.core.raise_alarm("tank.03.level", priority=Priority.LOW)
    async with opened(browser, site, "/values") as page:
        await expect(page.locator(".point").first).to_have_attribute("data-id", "tank.03.level")
        order = await page.locator(".point").evaluate_all("rows => rows.map((r) => r.dataset.id)")
        assert order[-1] == WHERE
        first_of_a_vehicle = next(i for i, name in enumerate(order) if name.startswith("veh-"))
        assert all(not name.startswith("veh-") for name in order[:first_of_a_vehicle])
        assert max(order.index(p) for p in (METHANE, "tank.12.level")) < first_of_a_vehicle
        assert order.index(SPEED) < order.index("veh-01.lon")
        await expect(page.locator(f".point[data-id='{SPEED}']")).to_contain_text("测A00011")
        await page.locator("select[name=class]").select_option("person")
        await expect(page.locator(".point")).to_have_count(1)


async def test_a_value_nobody_sent_again_is_not_called_good(browser, site, opened):
    play(site.core, {"dam.freeboard.02": 1.5}, age_s=200.0)  # every 60 s, three missed
    async with opened(browser, site, "/values?point=dam.freeboard.02") as page:
        row = page.locator(".point[data-id='dam.freeboard.02']")
        await expect(row.locator(".quality")).to_have_text("stale")
        await expect(row).to_contain_text("3 min 20 s ago")
        await expect(page.locator(".trend-quality")).to_have_text("stale")


@pytest.mark.parametrize(
    ("language", "expected"), [("zh_CN", "示例企业"), ("en", "Example enterprise")]
)
async def test_the_site_is_called_by_its_name_in_the_language_of_the_page(
    browser, site, language, expected, opened
):
    usual = site.core.status
    names = {"zh": "示例企业", "en": "Example enterprise"}
    site.core.status = lambda: usual().model_copy(update={"site_names": names})
    async with opened(browser, site, "/system", language=language) as page:
        await expect(page.locator("#site-name")).to_have_text(expected)
        await expect(page.locator("#core")).to_contain_text(expected)


@pytest.mark.parametrize(("language", "fit"), [("zh_CN", 13), ("en", 11)])
async def test_a_screen_of_1000_pixels_shows_a_dozen_alarms_whole(
    browser, site, language, fit, opened
):
    for point in list(site.core.table)[:20]:
        site.core.raise_alarm(point.id, citation="unconfirmed")
    async with opened(browser, site, language=language) as page:
        await page.set_viewport_size({"width": 1600, "height": 1000})
        await expect(page.locator(".alarm")).to_have_count(20)
        bottoms = await page.locator(".alarm").evaluate_all(
            "rows => rows.map((r) => r.getBoundingClientRect().bottom)"
        )
        assert sum(bottom <= 1000 for bottom in bottoms) >= fit
        sizes = await page.locator(".alarm").first.evaluate(
            "r => [...r.querySelectorAll('strong > span:first-child, .reading b, .ack')]"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 15
        await page.check_layout(1600)


async def test_enter_on_an_alarm_opens_the_trend_of_its_point(browser, site, opened):
    site.core.raise_alarm(METHANE)
    async with opened(browser, site) as page:
        await expect(page.locator(".alarm")).to_have_count(1)
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page.locator("#trend h2")).to_have_text("甲烷T0")
        assert page.url.endswith(f"/values?point={METHANE}")


async def test_enter_opens_the_trend_even_before_the_plant_is_known(browser, site, opened):
    site.core.raise_alarm(METHANE)
    async with opened(browser, site) as page:

        async def never_answered(_route) -> None:
            """The request hangs until the page is left."""

        await page.route("**/api/points", never_answered)
        await page.reload()
        await expect(page.locator(".alarm")).to_have_count(1)
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/values?point={METHANE}")
        await page.unroute("**/api/points")
        await page.reload()
        await expect(page.locator("#trend h2")).to_have_text("甲烷T0")


async def test_a_vehicle_already_in_alarm_is_marked_when_the_plan_opens_and_it_moves(
    browser, site, opened
):
    add_people_and_vehicles(site.core, plate=HOSTILE)
    way = {f"{VEHICLE}.lon": CENTRE[0], f"{VEHICLE}.lat": CENTRE[1], SPEED: 87.4}
    play(site.core, way)
    site.core.raise_alarm(SPEED, priority=Priority.HIGH)
    async with opened(browser, site, "/plan") as page:
        label = page.locator(".leaflet-tooltip.alarm-tip")
        await expect(label).to_have_text(f"{HOSTILE}  87 km/h", use_inner_text=False)
        assert await page.locator(".leaflet-tooltip img").count() == 0
        await expect(page.locator("#vehicles li").first).to_contain_text("in alarm")
        await expect(page.locator("#fit")).to_be_hidden()
        before = await label.get_attribute("style")
        way[f"{VEHICLE}.lat"] += 0.002
        await expect(label).not_to_have_attribute("style", before)
        # Whoever moves the map keeps it, until all vehicles are asked for again.
        await page.locator("#vehicles li").first.click()
        await expect(page.locator("#fit")).to_be_visible()
        await page.locator("#fit").click()
        await expect(page.locator("#fit")).to_be_hidden()


async def test_the_road_tells_what_was_calculated_and_adds_up(browser, site, opened):
    usual = site.core.status
    road = {"received": 3198, "derived": 31, "durable": 3229, "judged": 3229, "stored": 3082}

    def status():
        told = usual()
        return told.model_copy(
            update={
                "road": told.road.model_copy(update=road),
                "spool": told.spool.model_copy(update={"commit_window_ms": 0.0}),
            }
        )

    site.core.status = status
    async with opened(browser, site, "/system") as page:
        steps = page.locator("#road li")
        await expect(steps.nth(0).locator("b")).to_have_text("3,198")
        await expect(steps.nth(1)).to_contain_text("with 31 calculated")
        await expect(page.locator("#spool")).to_contain_text("at once")


async def test_a_page_that_never_had_data_does_not_speak_of_old_data(browser, coreless):
    context = await browser.new_context(locale="en-GB")
    page = await context.new_page()
    await page.goto(coreless)
    banner = page.locator("#banner")
    await expect(banner).to_contain_text("Nothing has been received yet", timeout=9000)
    await expect(banner).to_contain_text("No data from the gateway's core")
    await expect(banner).not_to_contain_text("is old")
    await expect(page.locator("#waiting")).to_contain_text("Nothing is known yet")
    await context.close()


@pytest.mark.parametrize(
    ("language", "expected"), [("en", "2023-11-15, 06:13:20"), ("zh_CN", "2023/11/15 06:13:20")]
)
async def test_a_date_cannot_be_read_with_day_and_month_exchanged(
    browser, site, language, expected, opened
):
    async with opened(browser, site, language=language) as page:
        assert await call(page, "i18n", "full", 1_700_000_000_000) == expected
